package mcptool

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// The Tasks extension of MCP (SEP-2663): a client that knows it gets a handle
// instead of a result that is not there yet, and polls. Here a task is a command:
// its id is the command's, so that any adapter answers for it, and it is known as
// long as the service knows the command. Or it is a task of the service, which is
// something else, a plan: its id then is "tasks/" and the plan's. The undo of such a one
// begins when it has ended, and a task of MCP that has ended stays so: hence each undo is one
// of its own, with "/undo/" behind that and which it is, see undoMark.
const (
	tasksExtension = "io.modelcontextprotocol/tasks"

	methodTaskGet    = "tasks/get"
	methodTaskUpdate = "tasks/update"
	methodTaskCancel = "tasks/cancel"

	// defaultTaskWait is how long they wait for such a client: what is over by then
	// needs no handle.
	defaultTaskWait = time.Second
	// pollInterval is how often a client should ask.
	pollInterval = 2 * time.Second
	// leastKept is said where the service cannot say how long it keeps commands: it is
	// how long it knows request ids.
	leastKept = 24 * time.Hour
)

// Task states of the extension.
const (
	taskWorking   = "working"
	taskCompleted = "completed"
	taskCancelled = "cancelled"
)

// task is a task as it is told: what execute_command, ssh_run, submit_task and undo_task
// give instead of a result, and what tasks/get answers.
type task struct {
	mcp.ResultBase
	ResultType     string              `json:"resultType"`
	TaskID         string              `json:"taskId"`
	Status         string              `json:"status"`
	StatusMessage  string              `json:"statusMessage,omitempty"`
	CreatedAt      string              `json:"createdAt"`
	LastUpdatedAt  string              `json:"lastUpdatedAt"`
	TTLMs          int64               `json:"ttlMs"` // from createdAt
	PollIntervalMs int64               `json:"pollIntervalMs,omitempty"`
	Result         *mcp.CallToolResult `json:"result,omitempty"`
}

// Error makes a task an error, which is the only thing besides a result that a
// tool's handler can give; receive takes it out again.
func (t *task) Error() string { return t.TaskID + " goes on as a task" }

// acknowledgement is the empty result of tasks/update and tasks/cancel.
type acknowledgement struct {
	mcp.ResultBase
	ResultType string `json:"resultType"`
}

// taskParams are the parameters of all methods of tasks.
type taskParams struct {
	mcp.ParamsBase
	TaskID string `json:"taskId"`
	// InputResponses answer what a task has asked; no task of ours asks.
	InputResponses map[string]json.RawMessage `json:"inputResponses,omitempty"`

	wrong string // what they should have been; empty: nothing is wrong with them
}

// UnmarshalJSON never fails, for what the SDK then answers with is all that it was given,
// and types of Go. Names are as they are written here and not in other letters, as
// wherever else the SDK reads them.
func (p *taskParams) UnmarshalJSON(b []byte) error {
	*p = taskParams{}
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil {
		p.wrong = "params is an object"
		return nil
	}
	for _, f := range []struct {
		name, kind string
		into       any
	}{
		{"_meta", "an object", &p.Meta}, {"taskId", "a string", &p.TaskID}, {"inputResponses", "an object", &p.InputResponses},
	} {
		if value, ok := fields[f.name]; ok && json.Unmarshal(value, f.into) != nil {
			p.wrong = f.name + " is " + f.kind
			return nil
		}
	}
	return nil
}

// TasksSince is the revision of MCP that the Tasks extension builds on. Revisions
// are dates, and sort as text.
const TasksSince = "2026-07-28"

// TaskMethods are the methods of the Tasks extension. Each names a task in taskId.
var TaskMethods = []string{methodTaskGet, methodTaskUpdate, methodTaskCancel}

// addTaskMethods makes the methods known. They are served in receive, where the
// request can be seen and not only its parameters.
func addTaskMethods(s *mcp.Server) {
	for _, method := range TaskMethods {
		err := mcp.AddReceivingCustomMethod(s, method, func(context.Context, *mcp.ServerSession, *taskParams) (*task, error) {
			return nil, &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: method + " was not served"}
		})
		if err != nil {
			panic(err) // a standard method of this name; every test would find it
		}
	}
}

// followsTasks reports whether the caller can be given a task that is a command.
func (c *call) followsTasks() bool {
	return c.hasTasks() && knowsTasks(c.request.ProtocolVersion(), c.request.ClientCapabilities())
}

// followsPlans reports whether the caller can be given a task that is one of the service.
func (c *call) followsPlans() bool {
	return c.offers(tasks, true) && knowsTasks(c.request.ProtocolVersion(), c.request.ClientCapabilities())
}

func knowsTasks(version string, capabilities *mcp.ClientCapabilities) bool {
	if version < TasksSince || capabilities == nil {
		return false
	}
	_, ok := capabilities.Extensions[tasksExtension]
	return ok
}

// serveTask answers the methods of tasks.
func (a *adapter) serveTask(ctx context.Context, method string, req *mcp.ServerRequest[*taskParams]) (mcp.Result, error) {
	if req.Params == nil { // of which the SDK could not read the metadata either
		return nil, invalidParams("params are missing")
	}
	if req.Params.wrong != "" {
		return nil, invalidParams(req.Params.wrong)
	}
	if !knowsTasks(req.ProtocolVersion(), req.ClientCapabilities()) {
		return nil, &jsonrpc.Error{
			Code:    mcp.CodeMissingRequiredClientCapabilities,
			Message: method + " is for clients that declare the extension " + tasksExtension,
			Data:    json.RawMessage(`{"requiredCapabilities":{"extensions":{"` + tasksExtension + `":{}}}}`),
		}
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	id := req.Params.TaskID
	if plan, ok := strings.CutPrefix(id, planPrefix); ok && a.offers(tasks, true) {
		if plan, mark, undoes := strings.Cut(plan, undoInfix); isCommandID(plan) && undoes == (mark != "") {
			return a.servePlan(ctx, method, plan, mark)
		}
	}
	if !isCommandID(id) || !a.hasTasks() {
		return nil, invalidParams("there is no such task")
	}
	if method == methodTaskGet {
		return a.getTask(ctx, id)
	}
	// A task that does not exist, or not for this caller, is told as such.
	if _, err := a.status(ctx, &telexecv1.GetStatusRequest{CommandId: id, Output: &telexecv1.OutputOptions{Omit: true}}); err != nil {
		return nil, protocolError(err)
	}
	if method == methodTaskCancel {
		if _, err := a.client.Cancel(ctx, &telexecv1.CancelRequest{CommandId: id, Reason: "the client cancelled its task"}); err != nil {
			return nil, protocolError(err)
		}
	}
	return &acknowledgement{ResultType: "complete"}, nil
}

// The handle of a task of the service begins with planPrefix; that of an undo also has
// undoInfix and the undo's mark.
const (
	planPrefix = "tasks/"
	undoInfix  = "/undo/"
)

// undoMark tells the undo of a task from those before and after it: when it began, in the
// microseconds that the service keeps. It is empty where there is none.
func undoMark(t *telexecv1.Task) string {
	if t.GetUndo() == nil {
		return ""
	}
	return strconv.FormatInt(t.GetUndo().GetTime().AsTime().UnixMicro(), 36)
}

// servePlan is serveTask for a task of the service, or for the undo of it with this mark.
// Of an undo before the last the service does not know what it came to: that is no task of
// MCP any more.
func (a *adapter) servePlan(ctx context.Context, method, id, undo string) (mcp.Result, error) {
	resp, err := a.plan(ctx, &telexecv1.GetTaskRequest{TaskId: id})
	if err != nil {
		return nil, protocolError(err)
	}
	t := resp.GetTask()
	if undo != "" && undo != undoMark(t) {
		return nil, invalidParams("there is no such task")
	}
	told := a.planTask(ctx, t, undo)
	switch method {
	case methodTaskGet:
		told.ResultType = "complete"
		switch {
		case told.Status != taskCompleted:
		case undo != "":
			told.Result, err = resultFrom(a.undoAnswer(resp, undosOf(t, undoing(t))))
		default:
			told.Result, err = resultFrom(a.submitAnswer(resp))
		}
		return told, err
	case methodTaskCancel:
		if told.Status != taskWorking {
			break // what goes on may be the other one
		}
		if _, err := a.client.CancelTask(ctx, &telexecv1.CancelTaskRequest{TaskId: id, Reason: "the client cancelled its task"}); err != nil {
			return nil, protocolError(err)
		}
	}
	return &acknowledgement{ResultType: "complete"}, nil
}

// planHandle is the handle of a task of the service, or of the undo of it with this mark, or
// nil where the answer is better: it has ended, the caller could not follow it, or a person
// must decide, now or at a step to come, which the handle would hide from the model that is
// to tell the person.
func (c *call) planHandle(ctx context.Context, resp *telexecv1.GetTaskResponse, undo string) *task {
	t := resp.GetTask()
	if undo != "" && undo != undoMark(t) || taskEnded(t) || len(resp.GetApprovals()) > 0 || !c.followsPlans() {
		return nil
	}
	for _, s := range t.GetSteps() {
		if s.GetNeedsApproval() && s.GetState() < telexecv1.StepState_STEP_STATE_COMPLETED {
			return nil
		}
	}
	handle := c.planTask(ctx, t, undo)
	if handle.Status != taskWorking {
		return nil
	}
	handle.ResultType = "task"
	return handle
}

// planTask tells of a task of the service, or of its undo, which has this mark, as one of MCP.
func (a *adapter) planTask(ctx context.Context, t *telexecv1.Task, undo string) *task {
	id, began, state := planPrefix+t.GetId(), t.GetCreateTime(), cameTo(t)
	cancelled, over := state == telexecv1.TaskState_TASK_STATE_CANCELLED, isEnd(state)
	if undo != "" {
		id, began = id+undoInfix+undo, t.GetUndo().GetTime()
		cancelled, over = t.GetUndo().GetCancellation() != nil && t.GetUndo().GetState() != telexecv1.UndoState_UNDO_STATE_UNDONE, taskEnded(t)
	}
	f := planOf(t, nil, "")
	told := &task{
		TaskID: id, Status: taskWorking, StatusMessage: f.sentence(), CreatedAt: clock(began),
		TTLMs: a.keptFor(ctx, began, t.GetEndTime()), PollIntervalMs: pollInterval.Milliseconds(),
	}
	told.LastUpdatedAt = told.CreatedAt
	for _, at := range []string{f.StartTime, f.EndTime} {
		told.LastUpdatedAt = max(told.LastUpdatedAt, at)
	}
	switch {
	case over && cancelled:
		told.Status = taskCancelled
	case over:
		told.Status = taskCompleted
	}
	return told
}

// cameTo is the state of a task as it was submitted. An undo that its own steps have begun
// belongs to that; one that somebody asks for later changes nothing of what it had come to.
func cameTo(t *telexecv1.Task) telexecv1.TaskState {
	if t.GetUndo() != nil && !t.GetUndo().GetAutomatic() && t.GetOutcome() != telexecv1.TaskState_TASK_STATE_UNSPECIFIED {
		return t.GetOutcome()
	}
	return t.GetState()
}

// getTask tells of a task, with its result once it has one.
func (a *adapter) getTask(ctx context.Context, id string) (mcp.Result, error) {
	resp, err := a.status(ctx, &telexecv1.GetStatusRequest{CommandId: id, Output: outputFor(defaultBudget)})
	if err != nil {
		return nil, protocolError(err)
	}
	t := a.taskOf(ctx, resp.GetCommand())
	t.ResultType = "complete"
	if t.Status == taskCompleted {
		t.Result, err = a.resultOf(resp)
	}
	return t, err
}

// invalidParams is what is said of a task or a place that does not exist.
func invalidParams(message string) error {
	return &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: message}
}

// protocolError is what is told of an error of the service, where there is no result
// to put it in.
func protocolError(err error) error {
	e := tellError(err).Error
	switch e.Reason {
	case reasonUnknownCommand, reasonUnknownTask, reasonAccessDenied, reasonBeyondEnd:
		return invalidParams(e.Message)
	}
	data, marshalErr := json.Marshal(e)
	if marshalErr != nil {
		return marshalErr
	}
	code := int64(jsonrpc.CodeInternalError)
	if refused(err) {
		code = codeRefused
	}
	return &jsonrpc.Error{Code: code, Message: e.Reason + ": " + e.Message, Data: data}
}

// codeRefused is the code of what the service has refused, which is no failure of
// anybody: of those that JSON-RPC leaves to servers, one that MCP has not taken.
const codeRefused = -32000

// refused reports whether an error says that the caller may not, or not so often.
func refused(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && slices.Contains([]string{"Unauthenticated", "PermissionDenied", "ResourceExhausted"}, e.Code.String())
}

// createdTask is the handle of a command that was started.
func (a *adapter) createdTask(ctx context.Context, cmd *telexecv1.Command) *task {
	t := a.taskOf(ctx, cmd)
	t.ResultType = "task"
	return t
}

// taskOf tells of a command as a task. A command that was cancelled is a cancelled
// task; any other end is a completed one, with a result that says what it was.
func (a *adapter) taskOf(ctx context.Context, cmd *telexecv1.Command) *task {
	f := facts(cmd)
	t := &task{
		TaskID: f.CommandID, Status: taskWorking, StatusMessage: f.sentence(), CreatedAt: f.CreateTime, LastUpdatedAt: f.LastActivity,
		TTLMs: a.keptFor(ctx, cmd.GetCreateTime(), cmd.GetEndTime()), PollIntervalMs: pollInterval.Milliseconds(),
	}
	if t.LastUpdatedAt == "" {
		t.LastUpdatedAt = t.CreatedAt
	}
	switch {
	case cmd.GetState() == telexecv1.CommandState_COMMAND_STATE_CANCELLED:
		t.Status = taskCancelled
	case f.Ended:
		t.Status = taskCompleted
	}
	return t
}

// keptFor is how long from its creation on the service knows a command or a task at least,
// in milliseconds: its history is kept from the end on, nil before, so that it grows
// while it runs.
func (a *adapter) keptFor(ctx context.Context, created, over *timestamppb.Timestamp) int64 {
	kept := time.Duration(a.kept.Load())
	if kept == 0 {
		kept = leastKept
		if info, err := a.client.GetServerInfo(ctx); err == nil {
			kept = info.GetLimits().GetHistoryRetention().AsDuration()
			a.kept.Store(int64(kept))
		}
	}
	until := time.Now()
	if over != nil {
		until = over.AsTime()
	}
	age := until.Sub(created.AsTime()).Truncate(time.Hour) // so that it does not change with every question
	return (max(age, 0) + kept).Milliseconds()
}

// resultOf is the result of a task: what execute_command would have answered, or in a
// session ssh_run, which tells all that execute_command does.
func (a *adapter) resultOf(resp snapshot) (*mcp.CallToolResult, error) {
	if resp.GetCommand().GetSession() != "" {
		return resultFrom(a.runAnswer(resp, defaultBudget, formatText))
	}
	return resultFrom(a.executeAnswer(resp, defaultBudget, formatText))
}

// resultFrom is an answer as a result of its own.
func resultFrom[Out any](ans answer[Out]) (*mcp.CallToolResult, error) {
	data, err := json.Marshal(ans.data)
	if err != nil {
		return nil, err
	}
	return &mcp.CallToolResult{Content: words(ans.text), StructuredContent: json.RawMessage(data), IsError: ans.failed}, nil
}

// commandID is the form of ids.
var commandID = regexp.MustCompile(`^[0-7][0-9A-HJKMNP-TV-Z]{25}$`)

func isCommandID(s string) bool { return commandID.MatchString(s) }
