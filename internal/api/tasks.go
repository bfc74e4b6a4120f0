package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/task"
)

// Workflow runs tasks. Methods may be called concurrently, and each refuses what the
// caller may not do (ROLE_MISSING, ACCESS_DENIED).
type Workflow interface {
	// Submit stores a task, or with look only says whether it would.
	Submit(ctx context.Context, by access.Caller, p TaskPlan, look bool) (v TaskView, replayed bool, err error)
	// Get gives a task, or UNKNOWN_TASK.
	Get(ctx context.Context, by access.Caller, id string) (TaskView, error)
	// Await is Get as soon as enough says so, or the task has ended, or ctx is done, whose
	// end is no error; late then.
	Await(ctx context.Context, by access.Caller, id string, enough func(TaskView) bool) (v TaskView, late bool, err error)
	// List gives tasks that the caller may see, newest first.
	List(ctx context.Context, by access.Caller, f task.Filter) ([]TaskView, error)
	// Cancel ends a task; already: it had ended.
	Cancel(ctx context.Context, by access.Caller, id string, grace time.Duration, reason string) (v TaskView, already bool, err error)
	// Undo begins to take back what a task has done, and gives that in its order.
	Undo(ctx context.Context, by access.Caller, id string, r TaskUndo) (TaskView, []TaskUndoOf, error)
	// Watch begins to tell the events of a task behind a sequence number.
	Watch(ctx context.Context, by access.Caller, id string, after int64) (TaskWatch, TaskView, error)
	// WatchAll begins to tell what happens to all tasks; the caller closes the watcher.
	WatchAll(ctx context.Context, by access.Caller, o TasksOptions) (TasksWatcher, error)
}

// Plans gives the task of a step to who is asked about that.
type Plans interface {
	// Plan gives a task, whoever has submitted it.
	Plan(ctx context.Context, id string) (TaskView, error)
	// Get gives a task to a caller who may see it.
	Get(ctx context.Context, by access.Caller, id string) (TaskView, error)
}

// TasksOptions says which tasks to watch. All that is set must match.
type TasksOptions struct {
	After     map[string]int64 // by id: behind which event of these it begins
	Principal string
	Labels    map[string]string
}

// TasksWatcher is one watcher of all tasks, for one goroutine.
type TasksWatcher interface {
	// Next waits for the next news. After an error of ctx it may be called again: nothing is
	// lost.
	Next(ctx context.Context) (TaskNews, error)
	// Close ends the watch.
	Close()
}

// TaskNews is one thing that a watcher of all tasks is told.
type TaskNews struct {
	View  *TaskView   // a task that the watcher meets, or that of Event; nil with Known
	Event *task.Event // nil: it is only met
	Known bool        // all that was there when the watch began has been told
}

// TaskWatch is one watcher of a task, for one goroutine.
type TaskWatch interface {
	// Next waits for the next event. over is the task, when it has ended and all its events
	// were told.
	Next(ctx context.Context) (e task.Event, over *TaskView, err error)
}

// TaskView is a task as a caller sees it.
type TaskView struct {
	task.Task
	Place *task.Place // in the queue; nil: it does not wait there
}

// TaskPlan is a task that is submitted: its Spec, and where each step is to run.
type TaskPlan struct {
	Spec   task.Spec
	Places []TaskPlace
}

// TaskPlace is where a step is to run: hosts, those with labels, or a session.
type TaskPlace struct {
	Hosts   []string
	Single  bool // it was given as the one host
	Labels  map[string]string
	Session string
}

// TaskUndo says what to undo: a step, or all.
type TaskUndo struct {
	Step    string // name; empty: all
	Unknown bool   // also what may have run
	Reason  string
	Preview bool // only tell what would be done
}

// TaskUndoOf is a run that an undo is about.
type TaskUndoOf struct {
	Ref   task.Ref
	Line  string
	State task.UndoState
}

// Tasks answers for TaskService.
type Tasks struct {
	telexecv1.UnsafeTaskServiceServer // a new call of the proto does not compile until it is answered

	workflow Workflow
	deciders Deciders
}

// NewTasks makes the service.
func NewTasks(w Workflow, d Deciders) *Tasks { return &Tasks{workflow: w, deciders: d} }

// SubmitTask is of TaskService.
func (s *Tasks) SubmitTask(ctx context.Context, r *telexecv1.SubmitTaskRequest) (*telexecv1.SubmitTaskResponse, error) {
	v, replayed, err := s.workflow.Submit(ctx, caller(ctx), taskPlanFromProto(r), r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	return &telexecv1.SubmitTaskResponse{Task: taskToProto(v), Replayed: replayed}, nil
}

// GetTask is of TaskService.
func (s *Tasks) GetTask(ctx context.Context, r *telexecv1.GetTaskRequest) (*telexecv1.GetTaskResponse, error) {
	by := caller(ctx)
	v, err := s.workflow.Get(ctx, by, r.GetTaskId())
	if err != nil {
		return nil, err
	}
	late := false
	if wait := r.GetWait().AsDuration(); wait > 0 {
		first := v
		waiting, stop := context.WithTimeout(ctx, wait)
		defer stop()
		v, late, err = s.workflow.Await(waiting, by, r.GetTaskId(), func(now TaskView) bool { return taskIs(r, first, now) })
		if err != nil {
			return nil, err
		}
	}
	answer := &telexecv1.GetTaskResponse{Task: taskToProto(v), StillWaiting: late}
	answer.Approvals, err = s.approvals(ctx, by, v)
	return answer, err
}

// taskIs reports whether what the caller waits for has come, since it was first.
func taskIs(r *telexecv1.GetTaskRequest, first, now TaskView) bool {
	if least := r.GetIfVersionGreaterThan(); least > 0 && now.Version <= least {
		return false
	}
	switch r.GetUntil() {
	case telexecv1.TaskWait_TASK_WAIT_ENDED:
		return now.Ended()
	case telexecv1.TaskWait_TASK_WAIT_APPROVAL:
		return len(waiting(&now.Task)) > 0
	case telexecv1.TaskWait_TASK_WAIT_STEP:
		return begun(&now.Task) > begun(&first.Task)
	}
	return r.GetIfVersionGreaterThan() > 0 || now.Version > first.Version
}

// begun is the index of the last step that has begun; -1: none has.
func begun(t *task.Task) int {
	for i := len(t.Steps) - 1; i >= 0; i-- {
		if slices.ContainsFunc(t.Steps[i].Runs, func(r task.Run) bool { return !r.StartTime.IsZero() }) {
			return i
		}
	}
	return -1
}

// waiting lists the commands of a task that wait for people.
func waiting(t *task.Task) (ids []string) {
	for i := range t.Steps {
		for _, r := range t.Steps[i].Runs {
			if r.State == task.StepAwaiting {
				ids = append(ids, r.Command)
			}
			if r.Undo.State == task.UndoAwaiting {
				ids = append(ids, r.Undo.Command)
			}
		}
	}
	return ids
}

// approvals gives what a task waits for, as the caller sees it.
func (s *Tasks) approvals(ctx context.Context, by access.Caller, v TaskView) (list []*telexecv1.Approval, err error) {
	for _, id := range waiting(&v.Task) {
		a, err := s.deciders.Approval(ctx, by, id)
		switch {
		case fault.KindOf(err) == fault.NotFound, fault.ReasonOf(err) == fault.ReasonAccessDenied:
			continue // it is gone since
		case err != nil:
			return nil, err
		case a.State == approval.Pending:
			list = append(list, approvalToProto(a, time.Now()))
		}
	}
	return list, nil
}

// ListTasks is of TaskService.
func (s *Tasks) ListTasks(ctx context.Context, r *telexecv1.ListTasksRequest) (*telexecv1.ListTasksResponse, error) {
	unpaged := proto.CloneOf(r)
	unpaged.PageSize, unpaged.Limit, unpaged.PageToken = 0, 0, ""
	cursor, err := pageCursor(unpaged, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	f := taskFilterFromProto(r)
	size := taskPageSize(r)
	f.Before, f.Limit = cursor, size+1 // one more tells whether there is a next page
	if cursor != "" {
		f.Offset = 0 // it was of the first page
	}
	list, err := s.workflow.List(ctx, caller(ctx), f)
	if err != nil {
		return nil, err
	}
	page, bytes := &telexecv1.ListTasksResponse{}, 0
	for i, one := range list {
		p := taskToProto(one)
		bytes += proto.Size(p)
		if i == size || i > 0 && bytes > maxPageBytes {
			page.NextPageToken = pageToken(unpaged, list[i-1].ID)
			break
		}
		page.Tasks = append(page.Tasks, p)
	}
	return page, nil
}

// taskPage is the page size where the caller gives none.
const taskPage = 20

func taskPageSize(r *telexecv1.ListTasksRequest) int {
	for _, n := range []int32{r.GetPageSize(), r.GetLimit()} {
		if n > 0 {
			return int(n)
		}
	}
	return taskPage
}

// CancelTask is of TaskService.
func (s *Tasks) CancelTask(ctx context.Context, r *telexecv1.CancelTaskRequest) (*telexecv1.CancelTaskResponse, error) {
	grace := time.Duration(-1)
	if r.GetGrace() != nil {
		grace = r.GetGrace().AsDuration()
	}
	v, already, err := s.workflow.Cancel(ctx, caller(ctx), r.GetTaskId(), grace, r.GetReason())
	if err != nil {
		return nil, err
	}
	return &telexecv1.CancelTaskResponse{Task: taskToProto(v), AlreadyEnded: already}, nil
}

// UndoTask is of TaskService.
func (s *Tasks) UndoTask(ctx context.Context, r *telexecv1.UndoTaskRequest) (*telexecv1.UndoTaskResponse, error) {
	v, list, err := s.workflow.Undo(ctx, caller(ctx), r.GetTaskId(), TaskUndo{
		Step: r.GetStepId(), Unknown: r.GetIncludeUnknown(), Preview: r.GetPreview(), Reason: r.GetReason(),
	})
	if err != nil {
		return nil, err
	}
	answer, room := &telexecv1.UndoTaskResponse{Task: taskToProto(v)}, maxPageBytes
	for _, u := range list {
		line := text(u.Line)
		if room -= len(line); room < 0 {
			line = ""
		}
		answer.Preview = append(answer.Preview, &telexecv1.UndoStep{
			Step: v.Spec.Steps[u.Ref.Step].Name, Host: v.Run(u.Ref).Host, Command: line, State: undoStateToProto(u.State),
		})
	}
	return answer, nil
}

// DecideTask is of TaskService.
func (s *Tasks) DecideTask(ctx context.Context, r *telexecv1.DecideTaskRequest) (*telexecv1.DecideTaskResponse, error) {
	by, id := caller(ctx), r.GetApprovalId()
	a, err := s.deciders.Approval(ctx, by, id)
	if err != nil {
		return nil, err
	}
	if t := a.Snapshot.Spec.Task; t == nil || t.ID != r.GetTaskId() {
		return nil, fault.New(fault.NotFound, fault.ReasonUnknownApproval, "the task %s does not wait for an approval %s", r.GetTaskId(), id).
			WithHint("GET /v1/tasks/%s lists what it waits for", r.GetTaskId()).With("task_id", r.GetTaskId())
	}
	b := approval.Ballot{CommandID: id, Verdict: approval.Reject, Shown: r.GetRequestHash(), Reason: r.GetMessage()}
	if r.GetApproved() {
		b.Verdict = approval.Approve
		if len(b.Shown) == 0 {
			b.Shown = a.Hash
		}
		if m := r.GetModifiedParameters(); m != nil {
			b.Verdict, b.Modified = approval.Modify, &approval.Modification{Line: m.GetCommand(), Argv: m.GetArgv(), Timeout: m.GetTimeout().AsDuration()}
		}
	}
	list, err := s.deciders.Decide(ctx, by, []approval.Ballot{b})
	if err != nil {
		return nil, err
	}
	return &telexecv1.DecideTaskResponse{Approval: approvalToProto(list[0], time.Now())}, nil
}

// watched is what TaskWatch.Next has given.
type watched struct {
	event task.Event
	over  *TaskView
}

// WatchTask is of TaskService.
func (s *Tasks) WatchTask(r *telexecv1.WatchTaskRequest, stream grpc.ServerStreamingServer[telexecv1.WatchTaskResponse]) error {
	ctx := stream.Context()
	watch, v, err := s.workflow.Watch(ctx, caller(ctx), r.GetTaskId(), r.GetAfter())
	if err != nil {
		return err
	}
	next := func(ctx context.Context) (watched, error) {
		e, over, err := watch.Next(ctx)
		return watched{e, over}, err
	}
	silence := heartbeatOf(r.GetHeartbeat())
	p := &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Task{Task: taskToProto(v)}}
	for {
		if err := stream.Send(p); err != nil {
			return err
		}
		news, err := nextWithin(ctx, next, silence)
		switch {
		case errors.Is(err, errSilence):
			p = &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Heartbeat{Heartbeat: &telexecv1.TaskHeartbeat{}}}
		case err != nil:
			return err
		case news.over != nil:
			return stream.Send(&telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Task{Task: taskToProto(*news.over)}})
		default:
			p = &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Event{Event: taskEventToProto(news.event, &v.Task)}}
		}
	}
}
