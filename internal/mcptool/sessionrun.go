package mcptool

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// busyChoice is what becomes of a command for a session in which another one runs.
type busyChoice string

const (
	busyWait   busyChoice = "wait"
	busyRefuse busyChoice = "refuse"
)

type runArgs struct {
	sessionArgs
	Command     string            `json:"command" jsonschema:"what to run in the shell of the session; may have several lines"`
	WaitSeconds *float64          `json:"wait_seconds,omitempty" jsonschema:"wait so long for the end, 0 to 50 (more is 50); default 30. The command goes on afterwards"`
	IfBusy      busyChoice        `json:"if_busy,omitempty" jsonschema:"where something runs there: wait (default) for its turn, or refuse"`
	Timeout     float64           `json:"timeout,omitempty" jsonschema:"end the command when it has run so many seconds; default: never"`
	ActionType  string            `json:"action_type,omitempty" jsonschema:"the kind of action this is, where the rules of the service know kinds"`
	RequestID   string            `json:"request_id,omitempty" jsonschema:"your own id for this request: the same id with the same content runs once, for 24 hours, however often it is sent"`
	Labels      map[string]string `json:"labels,omitempty" jsonschema:"labels to find the command by"`
	MaxBytes    int               `json:"max_bytes,omitempty" jsonschema:"show at most so many bytes of output, 256 to 262144; default 8192"`
	Format      format            `json:"format,omitempty" jsonschema:"text (default): without terminal control sequences; terminal: with them; base64: the exact bytes"`
}

// runFacts is the answer of ssh_run. What a command in a session prints is all in
// stdout: a terminal has one stream.
type runFacts struct {
	SessionName string `json:"sessionName"`
	Status      string `json:"status" jsonschema:"running (it has not ended; state says whether it waits), completed, failed or cancelled"`
	commandFacts
	outputFacts
	startFacts
}

type sessionStatusArgs struct {
	sessionArgs
	CommandID    string   `json:"command_id,omitempty" jsonschema:"this command of the session, such as one that waits its turn; default: the current or last one"`
	WaitSeconds  *float64 `json:"wait_seconds,omitempty" jsonschema:"wait so long for the end of the command, or a change of its state, 0 to 50 (more is 50); default 0"`
	StdoutOffset *int64   `json:"stdout_offset,omitempty" jsonschema:"show the output from here on, as next_offset of the answer before; default: beginning and end"`
	MaxBytes     int      `json:"max_bytes,omitempty" jsonschema:"show at most so many bytes of output, 256 to 262144; default 2048"`
	Format       format   `json:"format,omitempty" jsonschema:"text (default): without terminal control sequences; terminal: with them; base64: the exact bytes"`
}

type cancelSessionArgs struct {
	sessionArgs
	cancelOptions
}

// sessionStatusFacts is where the command of a session is.
type sessionStatusFacts struct {
	SessionName string       `json:"sessionName"`
	Status      string       `json:"status" jsonschema:"of the command: running (it has not ended; task.state says whether it waits), completed, failed (also timed out, rejected, expired and lost) or cancelled; no_task where nothing ran in the session or there is none of this name"`
	Message     string       `json:"message,omitempty"`
	Task        *statusFacts `json:"task,omitempty" jsonschema:"the command, and what it printed"`
}

// sessionCancelFacts is what a cancel in a session came to.
type sessionCancelFacts struct {
	SessionName string       `json:"sessionName"`
	Status      string       `json:"status" jsonschema:"no_task where nothing runs in the session or there is none of this name, else as in ssh_get_command_status"`
	Message     string       `json:"message,omitempty"`
	Cancel      *cancelFacts `json:"cancel,omitempty" jsonschema:"what was done, and what proves it"`
}

// noTask is the status of a session in which there is nothing to tell of.
const noTask = "no_task"

// statusOf is the status of a command for those who ask by session: four words, where
// its state has eleven.
func statusOf(c *telexecv1.Command) string {
	switch {
	case !ended(c):
		return "running"
	case c.GetState() == telexecv1.CommandState_COMMAND_STATE_COMPLETED, c.GetState() == telexecv1.CommandState_COMMAND_STATE_CANCELLED:
		return stateName(c.GetState())
	}
	return "failed"
}

// runInSession runs a command as execute_command does, in the shell of a session.
func (a *adapter) runInSession(ctx context.Context, c *call, in runArgs) (answer[runFacts], error) {
	var none answer[runFacts]
	ref, err := a.mayUse(ctx, in.SessionName)
	if err != nil {
		return none, err
	}
	budget := budgetOr(in.MaxBytes, defaultBudget)
	r, err := a.perform(ctx, c, in.request(ref), in.WaitSeconds, budget)
	if err != nil {
		return none, sessionError(in.SessionName, err)
	}
	if r.form != nil || r.task != nil {
		return answer[runFacts]{form: r.form, task: r.task}, nil
	}
	ans := a.runAnswer(r.resp, budget, in.Format)
	ans.text = r.note(&ans.data.startFacts) + ans.text
	return ans, nil
}

// request makes the service's request of the arguments.
func (in *runArgs) request(session string) *telexecv1.ExecuteRequest {
	req := &telexecv1.ExecuteRequest{
		Session: session, Command: in.Command, ActionType: in.ActionType, RequestId: in.RequestID, Labels: in.Labels, IfBusy: telexecv1.IfBusy_IF_BUSY_WAIT,
	}
	if in.IfBusy == busyRefuse {
		req.IfBusy = telexecv1.IfBusy_IF_BUSY_REFUSE
	}
	if in.Timeout > 0 {
		req.Timeout = durationpb.New(duration(in.Timeout))
	}
	return req
}

// runAnswer tells the result, or how far the command is.
func (a *adapter) runAnswer(resp snapshot, budget int, f format) answer[runFacts] {
	cmd := resp.GetCommand()
	output, excerpts := outputFrom(resp, nil, nil, budget, f.orText())
	out := runFacts{SessionName: cmd.GetSession(), Status: statusOf(cmd), commandFacts: facts(cmd), outputFacts: output}
	var text strings.Builder
	text.WriteString(out.sentence())
	if !out.Ended {
		out.Next = a.next(cmd, out.outputFacts)
		text.WriteString("\n" + out.Next)
	}
	if !awaits(cmd) {
		a.quote(&text, cmd, excerpts...)
	}
	return answer[runFacts]{data: out, text: text.String(), failed: unsuccessful(cmd)}
}

// nextInSession says what else can be done about a command in a session that has not
// ended.
func (a *adapter) nextInSession(cmd *telexecv1.Command) (said string) {
	runs := cmd.GetState() == telexecv1.CommandState_COMMAND_STATE_STARTING || cmd.GetState() == telexecv1.CommandState_COMMAND_STATE_RUNNING
	switch {
	case runs && a.offers(sessions, true):
		return fmt.Sprintf(" If it asks for something: ssh_read_screen, ssh_send_keys. To end it: ssh_cancel_running_command {\"sessionName\": %q}.", cmd.GetSession())
	case cmd.GetQueue() != nil && a.offers(sessions, false):
		said = fmt.Sprintf(" What runs there: ssh_get_command_status {\"sessionName\": %q}.", cmd.GetSession())
	}
	if a.offers(control, true) {
		said += " To end it: cancel_command."
	}
	return said
}

func (a *adapter) sessionStatus(ctx context.Context, c *call, in sessionStatusArgs) (answer[sessionStatusFacts], error) {
	var none answer[sessionStatusFacts]
	nothing := func(said string) (answer[sessionStatusFacts], error) {
		out := sessionStatusFacts{SessionName: in.SessionName, Status: noTask, Message: said}
		return answer[sessionStatusFacts]{data: out, text: noTask + ": " + said}, nil
	}
	resp, err := a.statusInSession(ctx, &in)
	if said, ok := nothingThere(in.SessionName, resp.GetNoTask(), err); ok {
		return nothing(said)
	}
	if err != nil {
		return none, err
	}
	asked := statusArgs{CommandID: resp.GetCommand().GetId(), WaitSeconds: in.WaitSeconds, StdoutOffset: in.StdoutOffset, MaxBytes: in.MaxBytes, Format: in.Format}
	status := a.statusAnswer(resp, outcome{why: whyAtOnce}, &asked)
	if in.WaitSeconds != nil && *in.WaitSeconds > 0 && !status.data.Ended {
		if status, err = a.getStatus(ctx, c, asked); err != nil {
			return none, err
		}
	}
	out := sessionStatusFacts{SessionName: in.SessionName, Status: status.data.status, Task: &status.data}
	return answer[sessionStatusFacts]{data: out, text: out.Status + ": " + status.text}, nil
}

// statusInSession asks for a command of a session: the one that is named, else its
// current or last one.
func (a *adapter) statusInSession(ctx context.Context, in *sessionStatusArgs) (*telexecv1.GetStatusResponse, error) {
	options := outputFor(budgetOr(in.MaxBytes, statusBudget))
	options.StdoutOffset = in.StdoutOffset
	if in.CommandID == "" {
		ref, err := a.mayUse(ctx, in.SessionName)
		if err != nil {
			return nil, err
		}
		return a.client.GetStatus(ctx, &telexecv1.GetStatusRequest{Session: ref, Output: options})
	}
	unknown := refuse(reasonUnknownCommand, "Leave out command_id for the current or last one", "there is no command %q in the session %q", in.CommandID, in.SessionName)
	resp, err := a.status(ctx, &telexecv1.GetStatusRequest{CommandId: in.CommandID, Output: options})
	if err != nil {
		if reason := tellError(err).Error.Reason; reason == reasonUnknownCommand || reason == reasonAccessDenied {
			return nil, unknown // of the session that says nothing, see nothingThere
		}
		return nil, err
	}
	if cmd := resp.GetCommand(); in.SessionName == "" || in.SessionName != cmd.GetSession() && in.SessionName != cmd.GetSessionId() {
		return nil, unknown
	}
	return resp, nil
}

func (a *adapter) cancelSession(ctx context.Context, _ *call, in cancelSessionArgs) (answer[sessionCancelFacts], error) {
	out := sessionCancelFacts{SessionName: in.SessionName, Status: noTask}
	ref, err := a.mayUse(ctx, in.SessionName)
	var resp *telexecv1.CancelResponse
	if err == nil {
		req := in.request()
		req.Session = ref
		resp, err = a.client.Cancel(ctx, req)
	}
	if said, ok := nothingThere(in.SessionName, resp.GetNoTask(), err); ok {
		out.Message = said
		return answer[sessionCancelFacts]{data: out, text: noTask + ": " + said}, nil
	}
	if err != nil {
		return answer[sessionCancelFacts]{}, err
	}
	cancel := cancelAnswer(resp)
	out.Status, out.Cancel = statusOf(resp.GetCommand()), &cancel.data
	return answer[sessionCancelFacts]{data: out, text: out.Status + ": " + cancel.text, failed: cancel.failed}, nil
}

// nothingThere reports whether there is no command to tell of, and says why. A
// session that does not exist, or not for this caller, is no error to an agent that
// only wants to know whether something runs in it.
func nothingThere(session string, noTask bool, err error) (said string, ok bool) {
	if noTask {
		return "nothing runs in this session", true
	}
	if err == nil {
		return "", false
	}
	switch tellError(err).Error.Reason {
	case reasonUnknownSession, reasonAccessDenied:
		return fmt.Sprintf("there is no session %q", session), true
	}
	return "", false
}
