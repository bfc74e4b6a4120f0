package mcptool

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// A task of the service is a plan: steps in an order, on one or more hosts, some of which
// wait for people and some of which can be taken back. What an agent says of one is here;
// what is told of it is in plan.go and plantext.go, the calls about one that there is in
// plancalls.go. The tasks of MCP are something else, see task.go.

// waitArgs say how long a call waits for a task.
type waitArgs struct {
	WaitSeconds *float64 `json:"wait_seconds,omitempty" jsonschema:"wait so long for its end, or something that a person must decide, 0 to 50 (more is 50); default 30. The task goes on afterwards"`
}

type planArgs struct {
	Task           string            `json:"task" jsonschema:"what it is about, in a line or a few: people decide by it"`
	Steps          []stepArgs        `json:"steps" jsonschema:"what to run, in this order; 1 to 100 steps, on at most 1000 hosts together"`
	Priority       int               `json:"priority,omitempty" jsonschema:"higher goes first among the queued, -100 to 100; default 0"`
	ConversationID string            `json:"conversation_id,omitempty" jsonschema:"the conversation that it comes from, to find it by"`
	Context        map[string]string `json:"context,omitempty" jsonschema:"what else people should know about it"`
	Labels         map[string]string `json:"labels,omitempty" jsonschema:"labels to find the task by; its commands have them too"`
	RequestID      string            `json:"request_id,omitempty" jsonschema:"your own id for this request: the same id with the same content runs once, for 24 hours, however often it is sent"`
	ValidateOnly   bool              `json:"validate_only,omitempty" jsonschema:"only look whether it would be accepted: nothing is stored, and nothing runs"`
	waitArgs
}

// stepArgs is one step of a plan. Where it runs is one of host, hosts, host_labels and
// sessionName.
type stepArgs struct {
	Name          string            `json:"name,omitempty" jsonschema:"how to call it, unique in the task; default: step 1 and so on"`
	Host          string            `json:"host,omitempty" jsonschema:"the host to run on; give this, hosts, host_labels or sessionName"`
	Hosts         []string          `json:"hosts,omitempty" jsonschema:"several hosts, in the order of their turns"`
	HostLabels    map[string]string `json:"host_labels,omitempty" jsonschema:"every host with all of these labels"`
	SessionName   string            `json:"sessionName,omitempty" jsonschema:"a session to run in, which must be open when the turn comes"`
	Command       string            `json:"command,omitempty" jsonschema:"a shell command line"`
	Argv          []string          `json:"argv,omitempty" jsonschema:"instead of command: the arguments, which no shell reads"`
	Undo          string            `json:"undo,omitempty" jsonschema:"a command line that takes the step back, on the host where it ran; seen and approved together with the step. Without one it cannot be undone"`
	NeedsApproval bool              `json:"needs_approval,omitempty" jsonschema:"it waits for a person's yes, also where no rule asks for one"`
	OnFailure     onFailure         `json:"on_failure,omitempty" jsonschema:"when it fails: stop (default; nothing more runs), continue (the next step runs) or undo (what was done is undone, last first)"`
	Timeout       float64           `json:"timeout,omitempty" jsonschema:"end it when it has run so many seconds on a host; default: never"`
	Retry         *retryArgs        `json:"retry,omitempty" jsonschema:"try it again where it fails; only for what may safely run twice"`
	Rollout       *rolloutArgs      `json:"rollout,omitempty" jsonschema:"how it goes over several hosts"`
	Cwd           string            `json:"cwd,omitempty" jsonschema:"directory to run in; default: the login directory"`
	SudoUser      string            `json:"sudo_user,omitempty" jsonschema:"run as this user through sudo, which must allow it without a password"`
	ActionType    string            `json:"action_type,omitempty" jsonschema:"the kind of action this is, where the rules of the service know kinds"`
}

// onFailure is what happens when a step fails.
type onFailure string

const (
	failureStops    onFailure = "stop"
	failurePasses   onFailure = "continue"
	failureTakeBack onFailure = "undo"
)

type retryArgs struct {
	Times          int     `json:"times" jsonschema:"how often, 1 to 20"`
	BackoffSeconds float64 `json:"backoff_seconds,omitempty" jsonschema:"how long to wait before the first time, doubling with each; default 1"`
}

type rolloutArgs struct {
	Parallel int  `json:"parallel,omitempty" jsonschema:"on how many hosts at once, 1 to 100; default 10"`
	Canary   int  `json:"canary,omitempty" jsonschema:"so many hosts come first, the others only where it has completed on all of these"`
	GoOn     bool `json:"go_on,omitempty" jsonschema:"go on to other hosts where it has failed on one; default: those it has not reached are left alone"`
}

// submittedFacts is the answer of submit_task.
type submittedFacts struct {
	planFacts
	Valid    bool   `json:"valid,omitempty" jsonschema:"with validate_only: it would be accepted; there is no task"`
	Stale    string `json:"stale,omitempty" jsonschema:"the service could not be asked again, and why: this is not the newest state; ask again where it is"`
	Replayed bool   `json:"replayed,omitempty" jsonschema:"an earlier call with this request_id had submitted it"`
	Next     string `json:"next,omitempty" jsonschema:"what to do now"`
}

// submit stores a plan, and waits for its end or for what a person must decide.
func (a *adapter) submit(ctx context.Context, c *call, in planArgs) (answer[submittedFacts], error) {
	var none answer[submittedFacts]
	req, err := a.planRequest(ctx, &in)
	if err != nil {
		return none, err
	}
	resp, err := a.client.SubmitTask(ctx, req)
	if err != nil {
		return none, submitError(err, in.ValidateOnly)
	}
	if in.ValidateOnly {
		out := submittedFacts{planFacts: planOf(resp.GetTask(), nil, ""), Valid: true}
		return answer[submittedFacts]{data: out, text: "The service would accept this task. Nothing was stored, and nothing runs.\n" + out.tellSteps()}, nil
	}
	now, lost := a.follow(ctx, c, &telexecv1.GetTaskResponse{Task: resp.GetTask()}, in.WaitSeconds, telexecv1.TaskWait_TASK_WAIT_APPROVAL)
	if handle := c.planHandle(ctx, now, ""); handle != nil {
		return answer[submittedFacts]{task: handle}, nil
	}
	ans := a.submitAnswer(now)
	ans.data.Replayed = resp.GetReplayed() && in.RequestID != ""
	ans.data.Stale, ans.text = stale(lost, ans.text)
	return ans, nil
}

// submitAnswer tells how far a plan is.
func (a *adapter) submitAnswer(resp *telexecv1.GetTaskResponse) answer[submittedFacts] {
	t := resp.GetTask()
	out := submittedFacts{planFacts: planOf(t, resp.GetApprovals(), "")}
	out.Next = a.nextOfPlan(&out.planFacts)
	state := cameTo(t)
	failed := isEnd(state) && state != telexecv1.TaskState_TASK_STATE_COMPLETED
	return answer[submittedFacts]{data: out, text: out.tell(out.Next), failed: failed}
}

// stale tells that what is known is not the newest state, as data and above the text.
func stale(lost error, text string) (said, told string) {
	if lost == nil {
		return "", text
	}
	failure := tellError(lost).Error
	said = failure.Reason + ": " + failure.Message
	return said, "This is not its newest state: the service could not be asked again. " + said + "\n" + text
}

// planRequest makes the service's request of the arguments, of hosts and sessions that the
// caller may know.
func (a *adapter) planRequest(ctx context.Context, in *planArgs) (*telexecv1.SubmitTaskRequest, error) {
	req := &telexecv1.SubmitTaskRequest{
		Task: in.Task, Priority: int32(in.Priority), ConversationId: in.ConversationID, Context: in.Context, Labels: in.Labels,
		RequestId: in.RequestID, ValidateOnly: in.ValidateOnly,
	}
	for i := range in.Steps {
		step := in.Steps[i].spec()
		if err := a.mayPlan(ctx, i, step); err != nil {
			return nil, err
		}
		req.Steps = append(req.Steps, step)
	}
	return req, nil
}

func (s *stepArgs) spec() *telexecv1.StepSpec {
	spec := &telexecv1.StepSpec{
		Name: s.Name, Host: s.Host, Hosts: s.Hosts, HostLabels: s.HostLabels, Session: s.SessionName, Command: s.Command, Argv: s.Argv, Undo: s.Undo,
		NeedsApproval: s.NeedsApproval, OnFailure: string(s.OnFailure), WorkingDirectory: s.Cwd, SudoUser: s.SudoUser, ActionType: s.ActionType,
	}
	if s.Timeout > 0 {
		spec.Timeout = durationpb.New(duration(s.Timeout))
	}
	if r := s.Retry; r != nil {
		spec.Retry = &telexecv1.Retry{Times: int32(r.Times)}
		if r.BackoffSeconds > 0 {
			spec.Retry.Backoff = durationpb.New(duration(r.BackoffSeconds))
		}
	}
	if r := s.Rollout; r != nil {
		spec.Rollout = &telexecv1.Rollout{Parallel: int32(r.Parallel), Canary: int32(r.Canary), GoOn: r.GoOn}
	}
	return spec
}

// mayPlan refuses steps on hosts that are not allowed, and in sessions on such hosts. Of
// labels it makes the hosts that they are of, as far as these exist for the caller.
func (a *adapter) mayPlan(ctx context.Context, i int, step *telexecv1.StepSpec) (err error) {
	switch {
	case step.GetSession() != "" && !a.offers(sessions, true):
		return refuse("INVALID_ARGUMENT", "Give host instead of sessionName", "this adapter has no sessions")
	case len(a.hosts) == 0:
		return nil
	}
	named := step.GetHosts()
	if step.GetHost() != "" {
		named = append(slices.Clone(named), step.GetHost())
	}
	for _, host := range named {
		if err := a.mayRun(ctx, host); err != nil {
			return err
		}
	}
	if step.GetSession() != "" {
		if step.Session, err = a.mayUse(ctx, step.GetSession()); err != nil {
			return err
		}
	}
	if len(step.GetHostLabels()) == 0 || len(named) > 0 || step.GetSession() != "" {
		return nil // the service says what is wrong with several of them
	}
	for host, err := range a.client.ListHosts(ctx, &telexecv1.ListHostsRequest{Labels: step.GetHostLabels()}) {
		if err != nil {
			return err
		}
		if a.may(host.GetName()) {
			step.Hosts = append(step.Hosts, host.GetName())
		}
	}
	if len(step.GetHosts()) == 0 {
		return refuse("INVALID_ARGUMENT", hints["UNKNOWN_HOST"], "no host has all the labels of steps[%d]", i)
	}
	slices.Sort(step.Hosts)
	step.HostLabels = nil
	return nil
}

// fieldsOfStep are the names of what a step may have, for whoever has guessed.
const fieldsOfStep = "The fields of a step are name, host, hosts, host_labels, sessionName, command, argv, undo, needs_approval, on_failure, timeout, " +
	"retry {times, backoff_seconds}, rollout {parallel, canary, go_on}, cwd, sudo_user, action_type"

// submitError is what is told where a plan was not taken, or nobody knows whether it was.
func submitError(err error, validateOnly bool) error {
	told := tellError(err).Error
	told.task = true
	if validateOnly {
		told.RequestID = "" // it may be asked again without
	}
	told.Hint = strings.ReplaceAll(told.Hint, "telexec hosts shows", "list_hosts shows")
	return planError(&told)
}

// planError is what is told of an error about a task: what may be done about it are other
// tools than where it is about a command.
func planError(err error) error {
	told := tellError(err).Error
	switch told.Reason {
	case reasonUnknownTask, reasonAccessDenied:
		told.Hint = hints[reasonUnknownTask]
	case reasonInvalidRequest:
		if strings.HasPrefix(told.Hint, "telexec task get") {
			told.Hint = "get_task_status shows the names of its steps"
		}
	case client.ReasonCallEnded:
		told.Hint = "A task that was submitted goes on: list_tasks finds it, get_task_status tells where it is"
	}
	return &told
}

// unknownTask tells of a task that the caller may not know the same as of one that does
// not exist.
func (a *adapter) unknownTask(ctx context.Context, t *telexecv1.Task) error {
	a.log.WarnContext(ctx, "refused a task on hosts that --host-allow leaves out", "task", t.GetId())
	return refuse(reasonUnknownTask, hints[reasonUnknownTask], "there is no task %q", t.GetId())
}
