package mcptool

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

type taskIDArgs struct {
	TaskID string `json:"task_id" jsonschema:"as submit_task gave it"`
}

type planStatusArgs struct {
	taskIDArgs
	WaitSeconds          *float64  `json:"wait_seconds,omitempty" jsonschema:"wait so long for what until says, 0 to 50 (more is 50); default 0, with until or if_version_greater_than 30"`
	Until                planUntil `json:"until,omitempty" jsonschema:"what to wait for: ended; approval: something that a person must decide; next_step: a step begins that had not begun, of a queued task the first. The end counts always. Default: the end or something to decide, and where something waits already, any change"`
	IfVersionGreaterThan *int64    `json:"if_version_greater_than,omitempty" jsonschema:"wait until its version is higher than this one, which an answer before gave, and what until says has come, if given"`
	Step                 string    `json:"step,omitempty" jsonschema:"tell of this step alone, with all of its hosts and longer command lines"`
}

// planUntil is what a call waits for.
type planUntil string

const (
	untilEnded    planUntil = "ended"
	untilApproval planUntil = "approval"
	untilNextStep planUntil = "next_step"
)

var untils = map[planUntil]telexecv1.TaskWait{
	untilEnded: telexecv1.TaskWait_TASK_WAIT_ENDED, untilApproval: telexecv1.TaskWait_TASK_WAIT_APPROVAL, untilNextStep: telexecv1.TaskWait_TASK_WAIT_STEP,
}

// planStatusFacts is the answer of get_task_status.
type planStatusFacts struct {
	planFacts
	Why  string `json:"why" jsonschema:"why the answer came now: at_once (no wait was asked for), ended, approval, next_step, changed, or time (wait_seconds were over)"`
	Next string `json:"next,omitempty" jsonschema:"what to do now"`
}

// whyChanged is that of a task of which any change was waited for.
const whyChanged = "changed"

type cancelPlanArgs struct {
	taskIDArgs
	cancelOptions
}

// cancelledPlanFacts is the answer of cancel_task.
type cancelledPlanFacts struct {
	planFacts
	AlreadyEnded bool   `json:"already_ended,omitempty" jsonschema:"it had ended before, and nothing was done"`
	Next         string `json:"next,omitempty" jsonschema:"what to do now"`
}

type undoPlanArgs struct {
	taskIDArgs
	Step        string   `json:"step,omitempty" jsonschema:"name of the one step to undo; default: all of the task, the last step first"`
	Preview     bool     `json:"preview,omitempty" jsonschema:"only tell what would run: nothing is done"`
	Reason      string   `json:"reason,omitempty" jsonschema:"why; shown to those who watch, and kept"`
	WaitSeconds *float64 `json:"wait_seconds,omitempty" jsonschema:"wait so long for the end of the undo, 0 to 50 (more is 50); default 30. It goes on afterwards"`
}

// undonePlanFacts is the answer of undo_task.
type undonePlanFacts struct {
	planFacts
	Preview bool         `json:"preview,omitempty" jsonschema:"nothing was done"`
	Undoes  []undoOfStep `json:"undoes" jsonschema:"what is undone, or would be, in its order, and what is left alone"`
	Stale   string       `json:"stale,omitempty" jsonschema:"the service could not be asked again, and why: this is not the newest state; ask again where it is"`
	Next    string       `json:"next,omitempty" jsonschema:"what to do now"`
}

type listPlansArgs struct {
	States         []string          `json:"states,omitempty" jsonschema:"only in one of these states, as get_task_status names them"`
	ConversationID string            `json:"conversation_id,omitempty" jsonschema:"only of this conversation"`
	Principal      string            `json:"principal,omitempty" jsonschema:"only submitted by this one"`
	Since          string            `json:"since,omitempty" jsonschema:"only submitted at or after, RFC 3339, or so long ago: 90m, 24h, 7d"`
	Before         string            `json:"before,omitempty" jsonschema:"only submitted before, as since"`
	Labels         map[string]string `json:"labels,omitempty" jsonschema:"only with all of these labels"`
	pageArgs
}

// plansFacts is the answer of list_tasks.
type plansFacts struct {
	Tasks         []planRow `json:"tasks"`
	NextPageToken string    `json:"next_page_token,omitempty" jsonschema:"there are more: ask again with it"`
}

func (a *adapter) planTools() []tool {
	looks := nature{closedWorld: true}
	return []tool{
		declare(a, declaration{
			name: "submit_task", title: "Submit a task", toolset: tasks, nature: nature{acts: true, destructive: true}, limit: longest,
			description: "Submit a plan of steps, each a command on one or more hosts, which the service runs by itself in their order. A step may wait for a person's yes (needs_approval) and say how it is taken back (undo). " +
				"Refused at once, with the step and the field, if any of it is not allowed. The call waits up to wait_seconds for the end, or for something that a person must decide; then it answers with the task_id, and the task goes on: " +
				"do not submit it again, ask get_task_status. validate_only only checks. Cancelling this call ends the waiting only; cancel_task ends the task.",
		}, a.submit),
		declare(a, declaration{
			name: "get_task_status", title: "Where a task is", toolset: tasks, nature: looks, limit: longest,
			description: "Where a task is, by task_id: state, percent, each step with exit codes, failures and command ids, what waits for a person and who may decide, place in the queue. " +
				"With wait_seconds (at most 50) the call waits for what until says: ended, approval or next_step. One such call replaces many polls. Give step to see all hosts of one step.",
		}, a.planStatus),
		declare(a, declaration{
			name: "cancel_task", title: "Cancel a task", toolset: tasks, limit: longest, nature: nature{acts: true, destructive: true, idempotent: true},
			description: "Cancel what runs of a task with all of its processes; nothing more of it begins. What has been done is not taken back: that does undo_task. " +
				"Of a task that is being undone it cancels the undo. Cancelling twice or after the end is harmless.",
		}, a.cancelPlan),
		declare(a, declaration{
			name: "undo_task", title: "Undo a task", toolset: tasks, limit: longest, nature: nature{acts: true, destructive: true},
			description: "Run the undo commands of what a task has done, the last step first, or of one step; the task must have ended (cancel_task ends it). With preview nothing runs, and the answer says what would: look at it first. " +
				"Steps without undo are left alone. So is what nobody knows the outcome of (unknown, lost): whether to undo that is for a person to say, with `telexec task undo --include-unknown` or in the web UI, not for you. " +
				"The call waits up to wait_seconds; the undo goes on afterwards.",
		}, a.undoPlan),
		declare(a, declaration{
			name: "list_tasks", title: "Tasks", toolset: tasks, nature: looks,
			description: "Tasks, running and ended, newest first, as far as you may see them, filtered by state, conversation, time, principal or label. Limit 50; next_page_token goes on.",
		}, a.listPlans),
	}
}

// plan is GetTask, for the hosts that the caller may know.
func (a *adapter) plan(ctx context.Context, req *telexecv1.GetTaskRequest) (*telexecv1.GetTaskResponse, error) {
	resp, err := a.client.GetTask(ctx, req)
	if err != nil {
		return nil, planError(err)
	}
	if !a.mayKnow(ctx, resp.GetTask()) {
		return nil, a.unknownTask(ctx, resp.GetTask())
	}
	return resp, nil
}

// mayKnow reports whether all hosts of a task are such that the caller may know of them.
func (a *adapter) mayKnow(ctx context.Context, t *telexecv1.Task) bool {
	if len(a.hosts) == 0 {
		return true
	}
	for _, s := range t.GetSteps() {
		for _, r := range s.GetRuns() {
			host := r.GetHost()
			if host == "" { // its session knows
				session, err := a.client.GetSession(ctx, s.GetSession())
				if err != nil {
					return false
				}
				host = session.GetHost()
			}
			if !a.may(host) {
				return false
			}
		}
	}
	return true
}

// mayTouchPlan refuses tasks on hosts that the caller may not know, as if they did not
// exist. Where all hosts are allowed it asks nobody.
func (a *adapter) mayTouchPlan(ctx context.Context, id string) error {
	if len(a.hosts) == 0 {
		return nil
	}
	_, err := a.plan(ctx, &telexecv1.GetTaskRequest{TaskId: id})
	return err
}

// planStatus answers at once, or when what is waited for has come.
func (a *adapter) planStatus(ctx context.Context, c *call, in planStatusArgs) (answer[planStatusFacts], error) {
	var none answer[planStatusFacts]
	now, err := a.plan(ctx, &telexecv1.GetTaskRequest{TaskId: in.TaskID})
	if err != nil {
		return none, err
	}
	if !hasStep(now.GetTask(), in.Step) {
		return none, refuse("INVALID_ARGUMENT", "Leave step out to see the names of all", "the task has no step %q", in.Step)
	}
	wait, why := time.Duration(0), whyAtOnce
	switch {
	case in.WaitSeconds != nil:
		wait = duration(*in.WaitSeconds)
	case in.Until != "" || in.IfVersionGreaterThan != nil:
		wait = defaultWait
	}
	if wait = clamp(ctx, wait); wait > 0 {
		if now, why, err = a.awaitPlan(ctx, c, now, in.wish(now), wait); err != nil {
			return none, planError(err)
		}
	}
	if why != whyAtOnce && taskEnded(now.GetTask()) {
		why = whyEnded
	}
	out := planStatusFacts{planFacts: planOf(now.GetTask(), now.GetApprovals(), in.Step), Why: why}
	out.Next = a.nextOfPlan(&out.planFacts)
	text := out.tell(out.Next)
	if why == whyTime {
		text += "\nThe time to wait is over, and what was waited for has not happened."
	}
	return answer[planStatusFacts]{data: out, text: text}, nil // to learn of a failure is no failure
}

func hasStep(t *telexecv1.Task, name string) bool {
	for _, s := range t.GetSteps() {
		if s.GetName() == name {
			return true
		}
	}
	return name == ""
}

// wish is what is waited for of a task that is as it is now. Where nothing was said, it is
// what a caller would not want to miss.
func (in *planStatusArgs) wish(now *telexecv1.GetTaskResponse) *telexecv1.GetTaskRequest {
	req := &telexecv1.GetTaskRequest{TaskId: in.TaskID, Until: untils[in.Until]}
	switch {
	case in.IfVersionGreaterThan != nil:
		req.IfVersionGreaterThan = *in.IfVersionGreaterThan
	case in.Until != "":
	case now.GetTask().GetState() == telexecv1.TaskState_TASK_STATE_UNDOING:
		req.Until = telexecv1.TaskWait_TASK_WAIT_ENDED
	case len(now.GetApprovals()) > 0:
		req.IfVersionGreaterThan = now.GetTask().GetVersion()
	default:
		req.Until = telexecv1.TaskWait_TASK_WAIT_APPROVAL
	}
	return req
}

// awaitPlan waits for what a request says, and tells meanwhile how it goes. Where the task
// has ended already, it is as it is.
func (a *adapter) awaitPlan(ctx context.Context, c *call, now *telexecv1.GetTaskResponse, req *telexecv1.GetTaskRequest, wait time.Duration) (*telexecv1.GetTaskResponse, string, error) {
	if taskEnded(now.GetTask()) {
		return now, whyEnded, nil
	}
	report := c.progress()
	telling, stop := context.WithCancel(ctx)
	var told sync.WaitGroup
	if report != nil {
		told.Go(func() { report.followPlan(telling, a, now.GetTask()) })
	}
	resp, err := a.until(ctx, req, wait)
	stop()
	told.Wait()
	switch {
	case err != nil:
		return now, "", err
	case resp.GetStillWaiting():
		return resp, whyTime, nil
	case req.GetUntil() == telexecv1.TaskWait_TASK_WAIT_APPROVAL:
		return resp, string(untilApproval), nil
	case req.GetUntil() == telexecv1.TaskWait_TASK_WAIT_STEP:
		return resp, string(untilNextStep), nil
	case req.GetUntil() == telexecv1.TaskWait_TASK_WAIT_ENDED:
		return resp, whyEnded, nil
	}
	return resp, whyChanged, nil
}

// until is GetTask with a wait. The service ends a wait for something to decide, undo
// commands included, and reads what that is only then: where it was decided in between,
// nothing is there any more, and the service is asked again.
func (a *adapter) until(ctx context.Context, req *telexecv1.GetTaskRequest, wait time.Duration) (*telexecv1.GetTaskResponse, error) {
	for began := time.Now(); ; {
		req.Wait = durationpb.New(max(wait-time.Since(began), 0))
		resp, err := a.client.GetTask(ctx, req)
		if err != nil || req.GetUntil() != telexecv1.TaskWait_TASK_WAIT_APPROVAL || taskEnded(resp.GetTask()) || len(resp.GetApprovals()) > 0 || resp.GetStillWaiting() {
			return resp, err
		}
		if time.Since(began) >= wait {
			resp.StillWaiting = true
			return resp, nil
		}
		req.IfVersionGreaterThan = max(req.GetIfVersionGreaterThan(), resp.GetTask().GetVersion())
	}
}

// follow waits for a task that this call has begun, or has begun to undo, as long as the
// caller wants, nil for the default. Once there is a task no failure may hide it: then what
// was known last is the answer, with lost saying why it is no newer.
func (a *adapter) follow(ctx context.Context, c *call, began *telexecv1.GetTaskResponse, waitSeconds *float64, until telexecv1.TaskWait) (now *telexecv1.GetTaskResponse, lost error) {
	wait := defaultWait
	if c.followsPlans() {
		wait = defaultTaskWait
	}
	if waitSeconds != nil {
		wait = duration(*waitSeconds)
	}
	id := began.GetTask().GetId()
	if wait = clamp(ctx, wait); wait > 0 {
		now, _, lost = a.awaitPlan(ctx, c, began, &telexecv1.GetTaskRequest{TaskId: id, Until: until}, wait)
		return now, lost
	}
	now, lost = a.client.GetTask(ctx, &telexecv1.GetTaskRequest{TaskId: id})
	if lost != nil {
		return began, lost
	}
	return now, nil
}

// followPlan tells the percentage and the last event of a task until ctx ends.
func (p *progressReport) followPlan(ctx context.Context, a *adapter, t *telexecv1.Task) {
	line, seen := spaced(taskStateName(t.GetState())), &telexecv1.Progress{Percent: t.GetPercent()}
	p.send(ctx, line, seen)
	req := &telexecv1.WatchTaskRequest{TaskId: t.GetId(), After: t.GetSequence(), Heartbeat: durationpb.New(reportEvery)}
	for news, err := range a.client.WatchTask(ctx, req) {
		if err != nil {
			return // the wait tells
		}
		if e := news.GetEvent(); e != nil {
			seen.Percent = e.GetTaskPercent()
			if e.GetMessage() != "" {
				line = oneLine(e.GetMessage())
			}
		}
		p.send(ctx, line, seen)
	}
}

func (a *adapter) cancelPlan(ctx context.Context, _ *call, in cancelPlanArgs) (answer[cancelledPlanFacts], error) {
	var none answer[cancelledPlanFacts]
	if err := a.mayTouchPlan(ctx, in.TaskID); err != nil {
		return none, err
	}
	resp, err := a.client.CancelTask(ctx, &telexecv1.CancelTaskRequest{TaskId: in.TaskID, Reason: in.Reason, Grace: in.request().GetGrace()})
	if err != nil {
		return none, planError(err)
	}
	out := cancelledPlanFacts{planFacts: planOf(resp.GetTask(), nil, ""), AlreadyEnded: resp.GetAlreadyEnded()}
	out.Next = a.nextOfPlan(&out.planFacts)
	said := "Cancelled: nothing of it runs any more, and nothing more begins."
	switch {
	case out.AlreadyEnded:
		said = "It had ended before; nothing was done."
	case out.Ended && out.lost():
		said = "Cancelled, and nothing more begins; but what became of some of it is not known, and it may run."
	case !out.Ended:
		said = "The cancel is under way, and is carried on by itself; nothing more of the task begins."
	case resp.GetTask().GetUndo() != nil:
		said = "The undo is cancelled; what it had not reached is as it was."
	}
	return answer[cancelledPlanFacts]{data: out, text: said + "\n" + out.tell(out.Next)}, nil
}

// undoPlan begins to take back what was done, and waits for the end of that.
func (a *adapter) undoPlan(ctx context.Context, c *call, in undoPlanArgs) (answer[undonePlanFacts], error) {
	var none answer[undonePlanFacts]
	if err := a.mayTouchPlan(ctx, in.TaskID); err != nil {
		return none, err
	}
	resp, err := a.client.UndoTask(ctx, &telexecv1.UndoTaskRequest{TaskId: in.TaskID, StepId: in.Step, Preview: in.Preview, Reason: in.Reason})
	if err != nil {
		return none, unanswered(planError(err), "get_task_status shows whether it is being undone all the same")
	}
	undoes := undosOf(resp.GetTask(), resp.GetPreview())
	if in.Preview {
		out := undonePlanFacts{planFacts: planOf(resp.GetTask(), nil, in.Step), Undoes: undoes, Preview: true}
		out.Next = fmt.Sprintf("To do it: undo_task {\"task_id\": %q}, if the person you work for wants it.", out.TaskID)
		if in.Step != "" {
			out.Next = fmt.Sprintf("To do it: undo_task {\"task_id\": %q, \"step\": %q}, if the person you work for wants it.", out.TaskID, in.Step)
		}
		return answer[undonePlanFacts]{data: out, text: out.sentence() + "\n" + tellUndos(undoes, true) + "\n" + out.Next}, nil
	}
	now, lost := a.follow(ctx, c, &telexecv1.GetTaskResponse{Task: resp.GetTask()}, in.WaitSeconds, telexecv1.TaskWait_TASK_WAIT_ENDED)
	if handle := c.planHandle(ctx, now, undoMark(resp.GetTask())); handle != nil {
		return answer[undonePlanFacts]{task: handle}, nil
	}
	ans := a.undoAnswer(now, undoes)
	ans.data.Stale, ans.text = stale(lost, ans.text)
	return ans, nil
}

// undoAnswer tells how far an undo is.
func (a *adapter) undoAnswer(resp *telexecv1.GetTaskResponse, undoes []undoOfStep) answer[undonePlanFacts] {
	t := resp.GetTask()
	out := undonePlanFacts{planFacts: planOf(t, resp.GetApprovals(), ""), Undoes: undoes}
	out.Next = a.nextOfPlan(&out.planFacts)
	text := out.tell(out.Next)
	if steps := tellUndos(undoes, false); steps != "" {
		text = steps + "\n" + text
	}
	failed := out.Ended && t.GetUndo().GetState() != telexecv1.UndoState_UNDO_STATE_UNDONE
	return answer[undonePlanFacts]{data: out, text: text, failed: failed}
}

func (a *adapter) listPlans(ctx context.Context, _ *call, in listPlansArgs) (answer[plansFacts], error) {
	var none answer[plansFacts]
	req := &telexecv1.ListTasksRequest{ConversationId: in.ConversationID, Principal: in.Principal, Labels: in.Labels}
	for _, name := range in.States {
		state, ok := telexecv1.TaskState_value["TASK_STATE_"+strings.ToUpper(name)]
		if !ok || state == 0 {
			return none, refuse("INVALID_ARGUMENT", "Take one of "+names(telexecv1.TaskState_value, "TASK_STATE_"), "there is no state %q", name)
		}
		req.States = append(req.States, telexecv1.TaskState(state))
	}
	now, token := anchor(in.PageToken)
	in.PageToken = token
	var err error
	if req.DateFrom, err = moment("since", in.Since, now); err != nil {
		return none, err
	}
	if req.DateTo, err = moment("before", in.Before, now); err != nil {
		return none, err
	}
	out := plansFacts{Tasks: []planRow{}}
	rows, err := visible(in.pageArgs, func(token string, size int32) ([]*telexecv1.Task, string, error) {
		req.PageToken, req.PageSize = token, size
		resp, err := a.client.ListTasksPage(ctx, req)
		return resp.GetTasks(), resp.GetNextPageToken(), err
	}, func(t *telexecv1.Task) bool { return a.mayKnow(ctx, t) }, &out.NextPageToken)
	if err != nil {
		return none, err
	}
	if out.NextPageToken != "" && (in.Since != "" || in.Before != "") {
		out.NextPageToken = strconv.FormatInt(now.UnixMicro(), 36) + anchorMark + out.NextPageToken
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s, newest first.", count(len(rows), "task"))
	for _, t := range rows {
		row := planRowOf(t)
		out.Tasks = append(out.Tasks, row)
		fmt.Fprintf(&text, "\n%s  %s  %s", row.TaskID, row.CreateTime, spaced(row.State))
		if row.CurrentStep != "" {
			fmt.Fprintf(&text, "  %.0f %% at %q", row.Percent, row.CurrentStep)
		}
		fmt.Fprintf(&text, "  %s  by %s  %q", count(row.Steps, "step"), row.CreatedBy, row.Task)
		if row.Reason != "" {
			fmt.Fprintf(&text, "  %s", row.Reason)
		}
	}
	if out.NextPageToken != "" {
		fmt.Fprintf(&text, "\nThere are more: page_token %q.", out.NextPageToken)
	}
	return answer[plansFacts]{data: out, text: text.String()}, nil
}

// nextOfPlan says what to do about a task, with the tools there are.
func (a *adapter) nextOfPlan(f *planFacts) string {
	acts := a.offers(tasks, true)
	withdraw := ""
	if acts {
		withdraw = " To end it: cancel_task."
	}
	switch {
	case f.TaskID == "":
		return ""
	case len(f.Approvals) > 0:
		said := fmt.Sprintf("What waits has not run, and you cannot approve it. Tell the person you work for what waits, who may approve it, until when and how. "+
			"Then wait for the decision: get_task_status {\"task_id\": %q, \"wait_seconds\": 50, \"if_version_greater_than\": %d}.", f.TaskID, f.Version)
		if acts {
			said += " Do not submit it again, and " + noWayAround + "."
		}
		return said + withdraw
	case f.State == "undoing":
		return fmt.Sprintf("The undo goes on by itself. To wait for it: get_task_status {\"task_id\": %q, \"wait_seconds\": 50, \"until\": %q}.", f.TaskID, untilEnded)
	case !f.Ended:
		said := "It goes on by itself"
		if acts {
			said += "; do not submit it again"
		}
		return said + fmt.Sprintf(". To wait for it: get_task_status {\"task_id\": %q, \"wait_seconds\": 50}.", f.TaskID) + withdraw
	}
	var said []string
	if id := f.culprit(); id != "" && a.offers(observe, false) {
		said = append(said, fmt.Sprintf("What it printed where it went wrong: get_command_output {\"command_id\": %q}.", id))
	}
	if acts && f.undoable() {
		said = append(said, fmt.Sprintf("What was done can be taken back, if the person you work for wants that: undo_task {\"task_id\": %q, \"preview\": true} shows how.", f.TaskID))
	}
	return strings.Join(said, " ")
}

// lost reports whether it is not known of some of it what it has come to.
func (f *planFacts) lost() bool {
	for _, s := range f.Steps {
		if s.Hosts["lost"] > 0 {
			return true
		}
	}
	return false
}

// culprit is the command that has gone wrong, empty for none.
func (f *planFacts) culprit() string {
	for _, s := range f.Steps {
		for _, r := range s.Runs {
			if r.UndoState == "undo_failed" {
				return r.UndoCommandID
			}
		}
	}
	if f.State != "failed" && f.Outcome != "failed" {
		return ""
	}
	for _, s := range f.Steps {
		for _, r := range s.Runs {
			if r.ExitCode != nil && *r.ExitCode != 0 {
				return r.CommandID
			}
		}
	}
	return ""
}

// undoable reports whether something that was done has an undo that was not done. That a
// task has completed is no reason to take it back.
func (f *planFacts) undoable() bool {
	if f.State == "completed" {
		return false
	}
	for _, s := range f.Steps {
		if s.Undo == "" {
			continue
		}
		if s.UndoState == "" && s.Hosts["completed"] > 0 || s.UndoState == "undo_failed" || s.UndoState == "cancelled" {
			return true
		}
	}
	return false
}
