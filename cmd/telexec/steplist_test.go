package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/screen"
)

const (
	stepPending  = telexecv1.StepState_STEP_STATE_PENDING
	stepAwaits   = telexecv1.StepState_STEP_STATE_AWAITING_APPROVAL
	stepRuns     = telexecv1.StepState_STEP_STATE_RUNNING
	stepComplete = telexecv1.StepState_STEP_STATE_COMPLETED
	stepFailed   = telexecv1.StepState_STEP_STATE_FAILED
	stepSkipped  = telexecv1.StepState_STEP_STATE_SKIPPED
)

// noon is now, in these tests.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-d)) }

// aTask has a step in each state.
func aTask() *telexecv1.Task {
	run := func(host string, s telexecv1.StepState) *telexecv1.StepRun {
		return &telexecv1.StepRun{Host: host, State: s, CommandId: someID}
	}
	failed := run("web2", stepFailed)
	failed.Failure = &telexecv1.Failure{Reason: "EXIT_STATUS", Message: "it has exited with code 3"}
	again := run("web1", stepRuns)
	again.RetryTime, again.Failure = timestamppb.New(noon.Add(3*time.Second)), failed.Failure
	return &telexecv1.Task{
		Id: someID, Task: "roll out\nversion 5", State: telexecv1.TaskState_TASK_STATE_RUNNING, StartTime: ago(80 * time.Second), Percent: 47.4, CurrentStep: 1,
		Steps: []*telexecv1.Step{
			{Name: "drain", State: stepComplete, StartTime: ago(80 * time.Second), EndTime: ago(78 * time.Second), Runs: []*telexecv1.StepRun{run("web1", stepComplete)}},
			{Name: "upgrade", State: stepRuns, Percent: 52, StartTime: ago(12 * time.Second), Runs: []*telexecv1.StepRun{run("web1", stepComplete), run("web2", stepRuns), run("web3", stepPending)}},
			{Name: "restart", State: stepAwaits, Runs: []*telexecv1.StepRun{run("web1", stepAwaits)}},
			{Name: "again", State: stepRuns, StartTime: ago(time.Second), Runs: []*telexecv1.StepRun{again}},
			{Name: "bad", State: stepFailed, StartTime: ago(9 * time.Second), EndTime: ago(4 * time.Second), Runs: []*telexecv1.StepRun{run("web1", stepComplete), failed}},
			{Name: "ask", State: stepPending, NeedsApproval: true, Runs: []*telexecv1.StepRun{run("web1", stepPending)}},
			{Name: "check", State: stepPending, Session: "deploy", Runs: []*telexecv1.StepRun{run("", stepPending)}},
			{Name: "never", State: stepSkipped, Runs: []*telexecv1.StepRun{run("web1", stepSkipped)}},
		},
	}
}

// aList is a list whose terminal is tty.
func aList(tty *bytes.Buffer, t *telexecv1.Task) *stepList {
	return &stepList{out: &printer{stdout: tty, width: 100, now: func() time.Time { return noon }}, task: t}
}

func TestStepList(t *testing.T) {
	var tty bytes.Buffer
	l := aList(&tty, aTask())
	got := strings.Join(l.lines(100, 24), "\n")
	want := strings.Join([]string{
		"roll out",
		"running  █████████░░░░░░░░░░░  47 %  1 min 20 s  " + someID,
		"  ✓ drain    web1            2 s",
		"  ▸ upgrade  web1 web2 web3  ██████░░░░░░  52 %  1 of 3 hosts  12 s",
		"  ? restart  web1            waits for approval: telexec approvals show " + someID,
		"  ▸ again    web1            1 s  tried again in 3 s: it has exited with code 3",
		"  ✗ bad      web1 web2       5 s  web2: it has exited with code 3",
		"  · ask      web1            will wait for approval",
		"  · check    deploy",
		"  – never    web1            skipped",
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	l.approvals = []*telexecv1.Approval{{CommandId: someID, Step: "restart", RequiredApprovals: 2, Approvals: 1, Roles: []string{"approver"}, ExpireTime: timestamppb.New(noon.Add(time.Hour))}}
	if got := strings.Join(l.lines(200, 24), "\n"); !strings.Contains(got, "waits for approval by 2 approvers, 1 of whom approved already until ") {
		t.Errorf("got\n%s", got)
	}
	for _, line := range l.lines(40, 24) {
		if n := len([]rune(line)); n > 40 {
			t.Errorf("%d columns of 40: %s", n, line)
		}
	}
	// Where there is no room for all, those around the current one are shown.
	got = strings.Join(l.lines(60, 8), "\n")
	for _, part := range []string{"▸ upgrade", "… 6 behind"} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in\n%s", part, got)
		}
	}
	if n := strings.Count(got, "\n") + 1; n > 7 {
		t.Errorf("%d lines of 8:\n%s", n, got)
	}
}

func TestStepListOfAnUndo(t *testing.T) {
	task := aTask()
	task.State, task.Undo, task.Percent, task.CurrentStep = telexecv1.TaskState_TASK_STATE_UNDOING, &telexecv1.TaskUndo{}, 50, 7
	for i, s := range []telexecv1.UndoState{
		telexecv1.UndoState_UNDO_STATE_PENDING, telexecv1.UndoState_UNDO_STATE_RUNNING, telexecv1.UndoState_UNDO_STATE_UNKNOWN,
		telexecv1.UndoState_UNDO_STATE_CANCELLED, telexecv1.UndoState_UNDO_STATE_UNDO_FAILED, telexecv1.UndoState_UNDO_STATE_NOT_UNDOABLE, telexecv1.UndoState_UNDO_STATE_UNDONE,
		telexecv1.UndoState_UNDO_STATE_AWAITING_APPROVAL,
	} {
		task.Steps[i].UndoState, task.Steps[i].State, task.Steps[i].Runs = s, stepComplete, task.Steps[i].Runs[:1]
		task.Steps[i].Runs[0].UndoState = s
	}
	task.Steps[4].Runs[0].UndoFailure = &telexecv1.Failure{Message: "it has exited with code 1"}
	var tty bytes.Buffer
	got := strings.Join(aList(&tty, task).lines(100, 24), "\n")
	for _, want := range []string{
		"undoing  ██████████░░░░░░░░░░  50 %  1 min 20 s",
		"✓ drain    web1    2 s  to be undone", "◂ upgrade  web1    12 s  being undone", "restart  web1    not undone: its outcome is not known",
		"again    web1    1 s  undo cancelled", "✗ bad      web1    5 s  undo failed: it has exited with code 1", "ask      web1    not undoable", "◂ check    deploy  undone",
		"? never    web1    its undo waits for approval",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	// Where there is no room for all, what is being undone is shown, and its share is that of
	// what is to be undone.
	l := aList(&tty, task)
	got = strings.Join(l.lines(100, 8), "\n")
	if !strings.Contains(got, "… 6 before") || !strings.Contains(got, "? never") {
		t.Errorf("got\n%s", got)
	}
	l.take(&telexecv1.TaskEvent{Type: "step_progress", StepIndex: new(int32(7)), Percent: 10, TaskPercent: 75})
	if got = l.head(100); !strings.Contains(got, "75 %") {
		t.Errorf("got %s", got)
	}
	if got = taskStateText(task); got != "undoing, 8 of 8 steps done, 50 % of the undo" {
		t.Errorf("got %s", got)
	}
}

func TestWindow(t *testing.T) {
	for _, tt := range []struct{ n, around, room, from, to int }{
		{3, 0, 5, 0, 3}, {5, 4, 5, 0, 5}, {10, 0, 5, 0, 3}, {10, 9, 5, 7, 10}, {10, 5, 5, 4, 7}, {10, 5, 1, 5, 6},
	} {
		if from, to := window(tt.n, tt.around, tt.room); from != tt.from || to != tt.to {
			t.Errorf("%+v: %d to %d", tt, from, to)
		}
	}
}

// However often it is drawn, the list stands once on the screen, as it is; and what is too
// wide for it, or longer than before, leaves nothing behind.
func TestStepListIsDrawnInItsPlace(t *testing.T) {
	var tty bytes.Buffer
	l := aList(&tty, aTask())
	l.out.colour = true
	s := screen.New(100, 24, 100)
	_, _ = s.Write([]byte("$ telexec task watch\r\n"))
	show := func() []string {
		t.Helper()
		if err := l.draw(); err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(bytes.ReplaceAll(tty.Bytes(), []byte("\n"), []byte("\r\n"))) // as a terminal that is not raw
		tty.Reset()
		lines, _ := s.Lines(100)
		for len(lines) > 0 && lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		return lines
	}
	first := show()
	if len(first) != 11 || first[0] != "$ telexec task watch" || !strings.HasPrefix(first[4], "  ▸ upgrade") {
		t.Fatalf("%s", strings.Join(first, "\n"))
	}
	l.remark("the connection is lost; trying again in 2 s")
	if got := show(); len(got) != 12 || got[11] != "the connection is lost; trying again in 2 s" {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	l.remark("")
	if !l.take(&telexecv1.TaskEvent{Type: "step_progress", StepIndex: new(int32(1)), Percent: 75, TaskPercent: 60}) {
		t.Error("progress is not all there is to know")
	}
	if got := show(); len(got) != 11 || !strings.Contains(got[4], "█████████░░░  75 %") || !strings.Contains(got[2], "60 %") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	if l.take(&telexecv1.TaskEvent{Type: "step_complete"}) {
		t.Error("what the end of a step changes is taken from its event")
	}
	l.take(&telexecv1.TaskEvent{Type: "queue_update", Queue: &telexecv1.Queue{Position: 3}})
	if got := show(); got[2] != "running  place 3  1 min 20 s  "+someID {
		t.Errorf("%s", got[2])
	}
	many := aTask()
	for i := range 40 {
		many.Steps = append(many.Steps, &telexecv1.Step{Name: fmt.Sprint("s", i), State: stepPending})
	}
	l.show(many, nil)
	show()
	l.show(aTask(), nil)
	if got := show(); !slices.Equal(got, first) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	// No line may wrap, whatever the terminal takes a character for.
	wide := aTask()
	wide.Steps[2].Name = "漢字漢字漢字漢字漢字漢字"
	wide.Steps[1].Runs[2].Host = strings.Repeat("漢", 40)
	l.show(wide, nil)
	show()
	if got := show(); len(got) != 11 {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

func TestTaskOutcome(t *testing.T) {
	failure := &telexecv1.Failure{Reason: "STEP_FAILED", Message: "step a has failed", Hint: "Look"}
	for _, tt := range []struct {
		task *telexecv1.Task
		code int // 0: no error
		want string
	}{
		{&telexecv1.Task{State: telexecv1.TaskState_TASK_STATE_COMPLETED}, 0, ""},
		{&telexecv1.Task{State: telexecv1.TaskState_TASK_STATE_UNDONE, Undo: &telexecv1.TaskUndo{}}, 0, ""},
		{&telexecv1.Task{State: telexecv1.TaskState_TASK_STATE_UNDONE, Undo: &telexecv1.TaskUndo{Automatic: true}, Failure: failure}, 1, "task X has failed, and what was done is undone: step a has failed [STEP_FAILED]"},
		{&telexecv1.Task{State: telexecv1.TaskState_TASK_STATE_FAILED, Failure: failure}, 1, "task X has failed: step a has failed [STEP_FAILED]"},
		{&telexecv1.Task{State: telexecv1.TaskState_TASK_STATE_CANCELLED, Cancellation: &telexecv1.Cancellation{By: &telexecv1.Actor{Principal: "ann"}, Reason: "no"}}, 1, "task X was cancelled by ann: no"},
		{&telexecv1.Task{State: telexecv1.TaskState_TASK_STATE_UNDO_FAILED}, 1, "task X could not be undone as a whole"},
	} {
		tt.task.Id = "X"
		e := taskOutcome(tt.task)
		if (e != nil) != (tt.code > 0) || e != nil && (e.code != tt.code || e.message != tt.want) {
			t.Errorf("%v: %v", tt.task.GetState(), e)
		}
	}
}
