package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type taskCmd struct {
	Submit taskSubmitCmd `cmd:"" help:"Submit a plan of several steps, and follow it to its end."`
	Get    taskGetCmd    `cmd:"" aliases:"show,status" help:"Show where a task is: its steps, what it waits for."`
	Watch  taskWatchCmd  `cmd:"" help:"Follow a task to its end."`
	Ls     taskLsCmd     `cmd:"" aliases:"list" help:"List tasks, newest first."`
	Cancel taskCancelCmd `cmd:"" help:"Cancel what runs of tasks, or of their undoing."`
	Undo   taskUndoCmd   `cmd:"" help:"Take back what a task has done, or one step of it."`
}

// taskExitsHelp is part of --help of whatever follows a task.
const taskExitsHelp = `
Exit codes: 0 when every step has come to its end; 1 when the task has failed or was cancelled. Where somebody has it undone:
0 when all that was to be undone is, be it one step; 1 when not. 125 when telexec itself failed, or the plan was refused;
130 after Ctrl-C, which leaves the task alone.`

type taskSubmitCmd struct {
	File         string            `arg:"" help:"The plan: YAML or JSON; - is standard input."`
	DryRun       bool              `help:"Only look whether it would be accepted, and show it."`
	Detach       bool              `short:"d" help:"Do not wait: print the task's id and leave."`
	Priority     *int32            `placeholder:"N" help:"Higher goes first among the queued, -100 to 100, whatever the plan says."`
	Label        map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Label to find the task and its commands by, beside those of the plan. May be repeated."`
	Conversation string            `placeholder:"ID" help:"The conversation that it comes from, to find it by."`
	RequestID    string            `placeholder:"ID" help:"Submit once however often it is asked for with this id (default: a new one each time)."`
}

// Help is shown by task submit --help.
func (taskSubmitCmd) Help() string {
	return `The plan has these keys; only task, steps, and of each step where it runs and what are needed:

    task: roll out version 5              # what it is about; people decide by it
    priority: 5                           # higher goes first among the queued
    conversationId: c-17
    context: {ticket: OPS-42}             # stored and shown
    labels: {deploy: "42"}                # to find it by; its commands have them too
    steps:
      - name: drain                       # else "step 1" and so on
        host: web1                        # or hosts, hostLabels, session
        command: lbctl drain web1         # a shell command line, or argv: [lbctl, drain, web1]
        undo: lbctl enable web1           # takes the step back; seen and approved together with it
      - name: upgrade
        hosts: [web1, web2, web3]         # or hostLabels: {role: web}
        rollout: {canary: 1, parallel: 2} # one first, then the others two at a time; goOn: true
        command: apt-get -y upgrade
        needsApproval: true               # waits for a person's yes
        timeout: 30m                      # on each host
        retry: {times: 2, backoff: 10s}   # only for what may safely run twice
        onFailure: undo                   # or stop (the default), continue
      - session: deploy                   # typed in a session that is open then
        command: ./manage.py migrate

A step may also have workingDirectory, sudoUser and actionType. The keys may be written as in needs_approval, too. What is
refused is told with its line, and nothing of the task has run then. On a terminal its steps are shown as they go; elsewhere
there is a line for all that happens, and with --json one JSON document a line. The task goes on when this program is ended
or loses the service: telexec task watch ID is back with it.

Examples:

    telexec task submit rollout.yaml --dry-run
    telexec task submit rollout.yaml --label deploy=42
    id=$(telexec task submit -d rollout.yaml) && telexec task watch "$id"
    jq -n '{task: "look", steps: [{host: "web1", command: "uptime"}]}' | telexec task submit -
` + taskExitsHelp
}

// Run submits the plan and follows the task.
func (c *taskSubmitCmd) Run(ctx context.Context, a *app) error {
	p, err := readPlan(a.env, c.File)
	if err != nil {
		return err
	}
	req := p.given(c.Priority, c.Label, c.Conversation, c.RequestID, c.DryRun)
	cl, err := a.dial(singleCall)
	if err != nil {
		return err
	}
	defer cl.Close()
	t, err := a.submit(ctx, cl, p, req)
	switch {
	case err != nil:
		return err
	case req.GetValidateOnly() && a.opts.JSON:
		return a.out.document(t)
	case req.GetValidateOnly():
		if err := a.showPlan(t); err != nil {
			return err
		}
		a.out.note("it would be accepted; nothing was submitted")
		return nil
	case c.Detach && a.opts.JSON:
		return a.out.document(t)
	case c.Detach:
		_, err := io.WriteString(a.out.stdout, t.GetId()+"\n")
		a.out.note("telexec task watch %s follows it, telexec task cancel %[1]s ends it", t.GetId())
		return err
	}
	if a.out.width == 0 && !a.opts.JSON {
		a.out.tell("task %s", t.GetId())
	}
	return a.followTask(ctx, cl, &telexecv1.GetTaskResponse{Task: t}, 0, outcomeOf(t))
}

// submit asks for the task. Where it is not known whether it was stored, the request id is
// told, with which it is stored once.
func (a *app) submit(ctx context.Context, cl *client.Client, p *plan, req *telexecv1.SubmitTaskRequest) (*telexecv1.Task, error) {
	ctx, stop := a.interruptible(ctx)
	resp, err := cl.SubmitTask(ctx, req)
	interrupted := stop()
	if err == nil {
		if resp.GetReplayed() {
			a.out.note("request id %s was submitted already: this is its task %s", req.GetRequestId(), resp.GetTask().GetId())
		}
		return resp.GetTask(), nil
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		if id := e.Metadata["request_id"]; id != "" && !req.GetValidateOnly() && slices.Contains(inDoubt, e.Reason) {
			e.Hint = "The task may have been stored: the same command line with --request-id " + id + " follows it, and submits it only if it has not"
		}
		if interrupted != nil {
			e.Message = "interrupted before the service answered"
			a.report(e)
		}
	}
	if interrupted != nil {
		return nil, interrupted
	}
	return nil, p.located(err)
}

// showPlan shows what a task would do.
func (a *app) showPlan(t *telexecv1.Task) error {
	f := facts{}
	f.lines("Task", t.GetTask(), "")
	if t.GetPriority() != 0 {
		f.add("Priority", strconv.Itoa(int(t.GetPriority())))
	}
	f.add("Labels", labelText(t.GetLabels()))
	f.add("Conversation", t.GetConversationId())
	if err := a.out.columns(f.rows); err != nil {
		return err
	}
	var rows [][]cell
	for i, s := range t.GetSteps() {
		rows = append(rows, []cell{plainCell(strconv.Itoa(i + 1)), plainCell(s.GetName()), plainCell(firstOf(inSession(s), stepHosts(s))), plainCell(stepHow(s)), plainCell(s.GetCommand()), plainCell(firstOf(s.GetUndo(), "-"))})
	}
	if _, err := io.WriteString(a.out.stdout, "\n"); err != nil {
		return err
	}
	return a.out.table([]string{"", "STEP", "HOST", "HOW", "COMMAND", "UNDO"}, rows)
}

type taskGetCmd struct {
	ID    string `arg:"" name:"id" help:"Id of the task, or enough of its end."`
	Wait  bool   `help:"Wait, and when it has ended exit as telexec task watch does."`
	Until string `enum:"end,approval,step" default:"end" placeholder:"WHAT" help:"With --wait: until it has ended, needs somebody's approval, or begins its next step; each is over when it has ended (end, approval, step; default ${default})."`
}

// Help is shown by task get --help.
func (taskGetCmd) Help() string {
	return `With --json it is one document: the task, and the approvals that it waits for; telexec approve takes their commandId.

Examples:

    telexec task get V2W3
    telexec task get V2W3 --json | jq -r '.task.steps[] | [.name, .state] | @tsv'
    telexec task get V2W3 --wait --until approval --json | jq -r '.approvals[].commandId'
    telexec task get V2W3 --wait --json | jq -r .task.state
` + taskExitsHelp + ` Without --wait: 0 wherever the task is.
With --until approval or step: 0 also when that has come, and the task goes on.`
}

// Run shows a task.
func (c *taskGetCmd) Run(ctx context.Context, a *app) error {
	if !c.Wait && c.Until != "end" {
		return failure("--until is for --wait")
	}
	patience := singleCall
	if c.Wait {
		patience = a.opts.RetryFor // there is nothing else to do meanwhile
	}
	cl, err := a.dial(patience)
	if err != nil {
		return err
	}
	defer cl.Close()
	return a.with(ctx, cl, func(ctx context.Context, cl *client.Client) error {
		id, err := a.taskArg(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		now, err := cl.GetTask(ctx, &telexecv1.GetTaskRequest{TaskId: id})
		if err != nil {
			return err
		}
		outcome := outcomeOf(now.GetTask())
		if c.Wait && !taskEnded(now.GetTask().GetState()) {
			if now, err = c.wait(ctx, cl, now.GetTask()); err != nil {
				return err
			}
		}
		if a.opts.JSON {
			err = a.out.document(now)
		} else {
			err = a.showTask(now)
		}
		if err != nil || !c.Wait || !taskEnded(now.GetTask().GetState()) {
			return err
		}
		if e := outcome(now.GetTask()); e != nil {
			return e
		}
		return nil
	})
}

// untils are the words of --until.
var untils = map[string]telexecv1.TaskWait{
	"end":      telexecv1.TaskWait_TASK_WAIT_ENDED,
	"approval": telexecv1.TaskWait_TASK_WAIT_APPROVAL,
	"step":     telexecv1.TaskWait_TASK_WAIT_STEP,
}

// wait gives the task as soon as what is waited for has come, or it has ended. It is asked
// for again and again, and what has come between two questions counts too.
func (c *taskGetCmd) wait(ctx context.Context, cl *client.Client, was *telexecv1.Task) (*telexecv1.GetTaskResponse, error) {
	req := &telexecv1.GetTaskRequest{TaskId: was.GetId(), Wait: durationpb.New(waitOnce), Until: untils[c.Until]}
	for {
		now, err := cl.GetTask(ctx, req)
		if err != nil || taskEnded(now.GetTask().GetState()) {
			return now, err
		}
		switch {
		case c.Until == "step" && now.GetTask().GetCurrentStep() != was.GetCurrentStep():
			now.StillWaiting = false
		case c.Until == "approval" && !now.GetStillWaiting() && len(now.GetApprovals()) == 0: // it is decided meanwhile
			req.IfVersionGreaterThan = now.GetTask().GetVersion()
			continue
		}
		if !now.GetStillWaiting() {
			return now, nil
		}
	}
}

// showTask prints all that a person wants to know about a task.
func (a *app) showTask(resp *telexecv1.GetTaskResponse) error {
	t := resp.GetTask()
	f := facts{}
	f.add("Id", t.GetId())
	f.lines("Task", t.GetTask(), "")
	f.paint("State", taskStateText(t), taskCell(t).colour)
	if fail := t.GetFailure(); fail != nil {
		f.lines("Why", failureText(fail), red)
		f.lines("", fail.GetHint(), "")
	}
	a.addCancellation(&f, "Cancelled by", t.GetCancellation())
	if u := t.GetUndo(); u != nil {
		by := because(actor(u.GetBy())+", "+a.out.moment(u.GetTime()), u.GetReason())
		if u.GetAutomatic() {
			by = "itself, " + a.out.moment(u.GetTime()) + ", for a step has failed that says so"
		}
		f.add("Undone by", by)
		a.addCancellation(&f, "Undo cancelled", u.GetCancellation())
	}
	for _, ap := range resp.GetApprovals() {
		what := fmt.Sprintf("step %q", ap.GetStep())
		if ap.GetUndoes() {
			what = "the undo of " + what
		}
		f.paint("Waits", what+" "+needs(ap.GetRequiredApprovals(), ap.GetApprovals(), ap.GetRoles())+" until "+a.out.clock(ap.GetExpireTime()), yellow)
		f.add("", "telexec approvals show "+ap.GetCommandId())
	}
	if t.GetPriority() != 0 {
		f.add("Priority", strconv.Itoa(int(t.GetPriority())))
	}
	f.add("Labels", labelText(t.GetLabels()))
	f.add("Conversation", t.GetConversationId())
	name := "Context"
	for _, k := range slices.Sorted(maps.Keys(t.GetContext())) {
		f.add(name, k+": "+t.GetContext()[k])
		name = ""
	}
	f.add("Asked for by", actor(t.GetCreatedBy()))
	f.add("Created", a.out.moment(t.GetCreateTime()))
	if t.GetStartTime() != nil {
		f.add("Started", a.out.moment(t.GetStartTime()))
	}
	if t.GetEndTime() != nil {
		f.add("Ended", a.out.moment(t.GetEndTime()))
	}
	f.add("Took", a.out.taskTook(t))
	if err := a.out.columns(f.rows); err != nil {
		return err
	}
	if _, err := io.WriteString(a.out.stdout, "\n"); err != nil {
		return err
	}
	return a.stepTable(t)
}

func (a *app) addCancellation(f *facts, name string, n *telexecv1.Cancellation) {
	if n != nil {
		f.add(name, because(actor(n.GetBy())+", "+a.out.moment(n.GetTime()), n.GetReason()))
	}
}

// stepTable prints a row for each run.
func (a *app) stepTable(t *telexecv1.Task) error {
	undoes := t.GetUndo() != nil
	header := []string{"", "STEP", "HOST", "STATE", "EXIT", "TOOK"}
	if undoes {
		header = append(header, "UNDO")
	}
	var rows [][]cell
	var why []string
	for i, s := range t.GetSteps() {
		number, name, line := strconv.Itoa(i+1), s.GetName(), s.GetCommand()
		for _, r := range s.GetRuns() {
			exit := "-"
			if r.ExitCode != nil {
				exit = strconv.Itoa(int(r.GetExitCode()))
			}
			row := []cell{plainCell(number), plainCell(name), plainCell(firstOf(r.GetHost(), s.GetSession(), "-")), runCell(r), plainCell(exit), plainCell(a.out.took(r.GetStartTime(), r.GetEndTime()))}
			if undoes {
				row = append(row, undoCell(r.GetUndoState()))
			}
			rows = append(rows, append(row, plainCell(firstOf(r.GetCommandId(), "-")), plainCell(line)))
			number, name, line = "", "", ""
			where := fmt.Sprintf("step %q", s.GetName())
			if len(s.GetRuns()) > 1 {
				where += " on " + r.GetHost()
			}
			if fail := r.GetFailure(); fail != nil && r.GetState() != telexecv1.StepState_STEP_STATE_SKIPPED {
				why = append(why, where+": "+failureText(fail))
			}
			if fail := r.GetUndoFailure(); fail != nil {
				why = append(why, "the undo of "+where+": "+failureText(fail))
			}
		}
	}
	if err := a.out.table(append(header, "COMMAND", "LINE"), rows); err != nil || len(why) == 0 {
		return err
	}
	var b strings.Builder
	for _, one := range why {
		b.WriteString("\n" + indented(one))
	}
	_, err := io.WriteString(a.out.stdout, b.String()+"\n")
	return err
}

type taskWatchCmd struct {
	ID    string `arg:"" name:"id" help:"Id of the task, or enough of its end."`
	After int64  `placeholder:"SEQUENCE" help:"Leave out the events up to this sequence. Not for a terminal, where the steps are shown as they are."`
}

// Help is shown by task watch --help.
func (taskWatchCmd) Help() string {
	return `On a terminal the steps are shown as they go. Elsewhere there is a line for each event, from the first one of the task
on, and with --json one JSON document a line: the task, its events, each of which has a sequence, and the task as it has
ended. Each event comes once and in its order, also when the service goes away meanwhile (--retry-for). Ctrl-C leaves the
task alone.

Examples:

    telexec task watch V2W3
    telexec task watch V2W3 --after 17 --json | jq -r 'select(.event) | .event.message'
` + taskExitsHelp
}

// Run follows a task.
func (c *taskWatchCmd) Run(ctx context.Context, a *app) error {
	cl, err := a.dial(singleCall)
	if err != nil {
		return err
	}
	defer cl.Close()
	var now *telexecv1.GetTaskResponse
	err = a.with(ctx, cl, func(ctx context.Context, cl *client.Client) error {
		id, err := a.taskArg(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		now, err = cl.GetTask(ctx, &telexecv1.GetTaskRequest{TaskId: id})
		return err
	})
	if err != nil {
		return err
	}
	return a.followTask(ctx, cl, now, c.After, outcomeOf(now.GetTask()))
}

type taskLsCmd struct {
	State        []string          `placeholder:"STATE" help:"Only in one of these states: queued, running, awaiting_approval, undoing, completed, failed, cancelled, undone, undo_failed."`
	Label        map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Only with this label; may be repeated, then all must match."`
	Conversation string            `placeholder:"ID" help:"Only of this conversation."`
	Principal    string            `placeholder:"NAME" help:"Only those asked for by this principal."`
	Since        string            `placeholder:"TIME" help:"Only those submitted since then: a duration before now (90m, 2h, 7d), a date or a time (2006-01-02, RFC 3339)."`
	Before       string            `placeholder:"TIME" help:"Only those submitted before then; written as --since is."`
	Limit        int               `default:"20" placeholder:"N" help:"At most so many (default ${default}; 0: all)."`
	PageToken    string            `allowempty:"" placeholder:"TOKEN" help:"Go on where an earlier page ended."`
}

// Help is shown by task ls --help.
func (taskLsCmd) Help() string {
	return `Of those that wait for their turn, QUEUE has the place and how long that takes, as far as is known.

Examples:

    telexec task ls --state queued,running,awaiting_approval
    telexec task ls --since 7d --label deploy=42 --limit 0 --json | jq -r .id
    telexec task ls --since 2026-03-01 --before 2026-04-01 --limit 0`
}

// Run lists tasks. JSON lines come as they are fetched.
func (c *taskLsCmd) Run(ctx context.Context, a *app) error {
	req := &telexecv1.ListTasksRequest{Labels: c.Label, Principal: c.Principal, ConversationId: c.Conversation, PageToken: c.PageToken}
	for _, s := range c.State {
		n, ok := telexecv1.TaskState_value["TASK_STATE_"+enumName(s)]
		if !ok || n == 0 {
			return failure("there is no state %q", s).withHint("telexec task ls --help lists the states")
		}
		req.States = append(req.States, telexecv1.TaskState(n))
	}
	var err error
	if req.DateFrom, req.DateTo, err = a.between(c.Since, c.Before); err != nil {
		return err
	}
	if c.Limit < 0 {
		return failure("--limit cannot be below 0")
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		var tasks []*telexecv1.Task
		for left := c.Limit; ; {
			req.PageSize = maxPage
			if c.Limit > 0 {
				req.PageSize = int32(min(left, maxPage))
			}
			page, err := cl.ListTasksPage(ctx, req)
			if err != nil {
				return err
			}
			for _, t := range page.GetTasks() {
				if !a.opts.JSON {
					tasks = append(tasks, t)
				} else if err := a.out.line(t); err != nil {
					return err
				}
			}
			left -= len(page.GetTasks())
			req.PageToken = page.GetNextPageToken()
			if req.PageToken == "" || c.Limit > 0 && left <= 0 {
				break
			}
		}
		if !a.opts.JSON {
			if err := a.taskTable(tasks); err != nil {
				return err
			}
		}
		if req.PageToken != "" {
			a.out.note("there are older ones: --page-token %s goes on, --limit 0 shows all", req.PageToken)
		}
		return nil
	})
}

// taskTable prints tasks, with their places where any waits for its turn.
func (a *app) taskTable(tasks []*telexecv1.Task) error {
	header := []string{"ID", "STATE", "STEPS"}
	queued := slices.ContainsFunc(tasks, func(t *telexecv1.Task) bool { return t.GetQueue().GetPosition() > 0 })
	if queued {
		header = append(header, "QUEUE")
	}
	rows := make([][]cell, len(tasks))
	for i, t := range tasks {
		row := []cell{plainCell(t.GetId()), taskCell(t), plainCell(fmt.Sprintf("%d/%d", stepsDone(t), len(t.GetSteps())))}
		if queued {
			row = append(row, plainCell(firstOf(queueText(t.GetQueue()), "-")))
		}
		text, _, _ := strings.Cut(t.GetTask(), "\n")
		rows[i] = append(row, plainCell(a.out.ago(t.GetCreateTime())), plainCell(firstOf(a.out.taskTook(t), "-")), plainCell(actor(t.GetCreatedBy())), plainCell(text))
	}
	return a.out.table(append(header, "CREATED", "TOOK", "BY", "TASK"), rows)
}

type taskCancelCmd struct {
	ID     []string       `arg:"" name:"id" help:"Ids of the tasks, or enough of their ends."`
	Grace  *time.Duration `placeholder:"TIME" help:"How long the commands may take to go by themselves before they are killed, 0 to 60s (default 0.5s)."`
	Reason string         `allowempty:"" placeholder:"TEXT" help:"Why; shown to whoever watches, and kept."`
}

// Help is shown by task cancel --help.
func (taskCancelCmd) Help() string {
	return `What runs of a task is cancelled, and nothing more of it begins. What it has done stays done: telexec task undo takes
it back. Of a task that is being undone the undo is cancelled. Harmless when the task has ended before. Exit code 0: the
task has ended; 1: it has not yet, because a host cannot be reached or does not answer, and goes on being cancelled.

Examples:

    telexec task cancel V2W3 --reason 'wrong branch'
    telexec task cancel $(telexec task ls --label deploy=42 --state running,queued --json | jq -r .id)`
}

// Run cancels tasks. An id that is wrong is told before anything is cancelled.
func (c *taskCancelCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		ids := make([]string, len(c.ID))
		for i, arg := range c.ID {
			var err error
			if ids[i], err = a.taskArg(ctx, cl, arg); err != nil {
				return err
			}
		}
		type answer struct {
			resp *telexecv1.CancelTaskResponse
			err  error
		}
		answers := make([]answer, len(ids))
		var calls errgroup.Group
		calls.SetLimit(cancelsAtOnce)
		for i, id := range ids {
			calls.Go(func() error {
				req := &telexecv1.CancelTaskRequest{TaskId: id, Reason: c.Reason}
				if c.Grace != nil {
					req.Grace = durationpb.New(*c.Grace)
				}
				answers[i].resp, answers[i].err = cl.CancelTask(ctx, req)
				return nil
			})
		}
		_ = calls.Wait() // each has its own answer
		code := 0
		var rows [][]cell
		for i, got := range answers {
			t := got.resp.GetTask()
			switch {
			case got.err != nil && (len(ids) == 1 || ctx.Err() != nil):
				return got.err
			case got.err != nil:
				if !a.opts.JSON {
					a.out.tell("%s could not be cancelled:", ids[i])
				}
				code = a.report(got.err)
				continue
			case a.opts.JSON && len(ids) > 1:
				if err := a.out.line(got.resp); err != nil {
					return err
				}
			case a.opts.JSON:
				if err := a.out.document(got.resp); err != nil {
					return err
				}
			}
			what := taskStateName(t.GetState())
			switch {
			case !taskEnded(t.GetState()):
				what += ": what runs of it has not ended yet, and goes on being cancelled"
				if code == 0 {
					code = exitNo
				}
			case got.resp.GetAlreadyEnded():
				what += " before"
			}
			rows = append(rows, []cell{plainCell(t.GetId()), plainCell(what)})
		}
		if !a.opts.JSON {
			if err := a.out.columns(rows); err != nil {
				return err
			}
		}
		if code != 0 {
			return &exitError{code: code}
		}
		return nil
	})
}

// taskArg finds the whole id of a task, as idArg does of a command.
func (a *app) taskArg(ctx context.Context, cl *client.Client, arg string) (string, error) {
	return a.findID(strings.TrimPrefix(arg, "tasks/"), "tasks", "telexec task ls lists the tasks", func() ([]string, error) {
		return taskIDs(ctx, cl, nil)
	})
}

// taskFlag is taskArg of what may be left out.
func (a *app) taskFlag(ctx context.Context, cl *client.Client, arg string) (string, error) {
	if arg == "" {
		return "", nil
	}
	return a.taskArg(ctx, cl, arg)
}

// taskIDs gives the ids of one page.
func taskIDs(ctx context.Context, cl *client.Client, states []telexecv1.TaskState) ([]string, error) {
	page, err := cl.ListTasksPage(ctx, &telexecv1.ListTasksRequest{PageSize: maxPage, States: states})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, t := range page.GetTasks() {
		ids = append(ids, t.GetId())
	}
	return ids, nil
}
