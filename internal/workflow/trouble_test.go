package workflow_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/task"
	"github.com/telexec/telexec/internal/workflow"
)

var oneSlot = workflow.Limits{Running: 1, Queued: 1000, Approval: time.Hour, History: time.Hour}

// ranked submits a task of one step with a priority.
func (s *service) ranked(priority int, step string) string {
	s.t.Helper()
	p := plan(step)
	p.Spec.Priority = priority
	v, _, err := s.Submit(s.t.Context(), ann, p, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return v.ID
}

// After a restart those that ran have their slots first, and then it goes by priority.
func TestTurnsAfterARestart(t *testing.T) {
	s := start(t, 1, oneSlot)
	first := s.ranked(0, "hold first on h00")
	s.field.of("hold first", "h00")
	low, high := s.ranked(0, "ok low on h00"), s.ranked(50, "hold high on h00")
	s.field.ends("hold first", "h00", 0)
	s.ends(first, task.Completed)
	s.field.of("hold high", "h00") // the younger one runs
	s.stop()
	s = serve(t, s.field, s.store, oneSlot)
	if v, err := s.Get(t.Context(), adm, low); err != nil || v.State != task.Queued || s.Stats() != (workflow.Stats{Begun: 1, Queued: 1}) {
		t.Errorf("the older one is %s; %+v, %v", v.State, s.Stats(), err)
	}
	higher := s.ranked(90, "ok higher on h00")
	s.stop()
	s.field.ends("hold high", "h00", 0) // while it is away
	s.field.log()
	s = serve(t, s.field, s.store, oneSlot)
	s.ends(high, task.Completed)
	s.ends(low, task.Completed)
	s.ends(higher, task.Completed)
	if got := s.field.log(); got != "ok higher@h00 ok low@h00" {
		t.Error(got)
	}
}

// full has the engine take no commands for as long as it is set.
func (f *field) full() *atomic.Bool {
	full := new(atomic.Bool)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble = func(doing, _ string) error {
		if doing == "start" && full.Load() {
			return fault.New(fault.Exhausted, fault.ReasonQueueFull, "full")
		}
		return nil
	}
	return full
}

// What cannot be started yet when a task is cancelled never begins.
func TestCancelOfWhatCannotBegin(t *testing.T) {
	s := start(t, 1, usual)
	full := s.field.full()
	full.Store(true)
	id := s.submit(ann, "hold on h00")
	s.until(id, "that it is tried", func(v workflow.View) bool { return v.Steps[0].Runs[0].Command != "" })
	if v, _, err := s.Cancel(t.Context(), ann, id, workflow.Cancel{}); err != nil || v.State != task.Cancelled || v.Steps[0].State() != task.StepSkipped {
		t.Fatalf("%+v, %v", v, err)
	}
	full.Store(false)
	if got := s.field.log(); got != "" {
		t.Errorf("%s has begun", got)
	}
	// One that was tried before has an end that tells of that; also over a restart.
	id = s.submit(ann, "hold on h00; retry=3")
	s.field.of("hold", "h00")
	full.Store(true)
	s.field.ends("hold", "h00", 3)
	s.until(id, "the second try", func(v workflow.View) bool {
		r := v.Steps[0].Runs[0]
		return len(r.Earlier) == 1 && r.RetryTime.IsZero()
	})
	s = s.again()
	v, _, err := s.Cancel(t.Context(), ann, id, workflow.Cancel{})
	if r := v.Steps[0].Runs[0]; err != nil || v.State != task.Cancelled || r.State != task.StepCancelled || len(r.Earlier) != 0 {
		t.Errorf("%+v, %v", v.Steps[0].Runs[0], err)
	}
}

// slow is a field on which a question may take as long as the test wants.
type slow struct {
	*field
	asked func(command.Spec)
}

func (s slow) Judge(ctx context.Context, by access.Caller, spec command.Spec) error {
	s.asked(spec)
	return s.field.Judge(ctx, by, spec)
}

// Of two who have a task undone one is first, and the other is refused: nothing is undone
// twice.
func TestTwoUndosAtOnce(t *testing.T) {
	f := newField(t, 1)
	var held atomic.Bool
	at, hold := make(chan struct{}), make(chan struct{})
	s := serveOn(t, f, slow{f, func(spec command.Spec) {
		if spec.Task.Undoes && held.CompareAndSwap(true, false) {
			close(at)
			<-hold
		}
	}}, openStore(t), usual)
	id := s.submit(ann, "ok 1 on h00; undo=undo 1")
	s.ends(id, task.Completed)
	held.Store(true)
	first := make(chan error, 1)
	go func() {
		_, _, err := s.Undo(context.Background(), ann, id, workflow.UndoRequest{})
		first <- err
	}()
	<-at
	if _, _, err := s.Undo(t.Context(), adm, id, workflow.UndoRequest{}); fault.ReasonOf(err) != fault.ReasonTaskNotEnded {
		t.Errorf("the second one: %v", err)
	}
	close(hold)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	s.ends(id, task.Undone)
	if got := f.log(); got != "ok 1@h00 undo 1@h00" {
		t.Error(got)
	}
}

// Whoever has a task undone as soon as it has ended is not told that it goes on.
func TestUndoAtOnce(t *testing.T) {
	s := start(t, 1, usual)
	for range 50 {
		id := s.submit(ann, "ok on h00; undo=undo")
		s.ends(id, task.Completed)
		if _, _, err := s.Undo(t.Context(), ann, id, workflow.UndoRequest{}); err != nil {
			t.Fatal(err)
		}
		s.ends(id, task.Undone)
	}
}

// A try that waits for people again runs when they have let it.
func TestRetryThatWaits(t *testing.T) {
	s := start(t, 1, usual)
	id := s.submit(ann, "ask hold on h00; retry=1")
	for range 2 {
		s.until(id, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
		s.field.decides("ask hold", "h00", true, "")
		s.until(id, "that it runs", func(v workflow.View) bool { return v.State == task.Running && v.Steps[0].Runs[0].Admitted })
		s.field.ends("ask hold", "h00", 3)
	}
	s.ends(id, task.Failed)
}

// A command of which nothing can be read any more while it runs is not run a second time.
func TestACommandThatCannotBeRead(t *testing.T) {
	s := start(t, 1, usual)
	var damaged atomic.Bool
	s.field.mu.Lock()
	s.field.trouble = func(doing, _ string) error {
		if doing == "get" && damaged.Load() {
			return fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "damaged")
		}
		return nil
	}
	s.field.mu.Unlock()
	id := s.submit(ann, "hold on h00; retry=1; undo=undo; takeback")
	s.until(id, "that it runs", func(v workflow.View) bool { return v.Steps[0].Runs[0].Admitted })
	damaged.Store(true)
	s.field.bell.Ring()
	v := s.ends(id, task.Failed)
	if r := v.Steps[0].Runs[0]; r.State != task.StepLost || r.Failure.Reason != fault.ReasonStoreDamaged || r.Undo.State != task.UndoUnknown {
		t.Errorf("%+v", r)
	}
	if got := s.field.log(); got != "hold@h00" {
		t.Error(got)
	}
}

// The first event of a task is told to who watches all, too.
func TestFirstEvents(t *testing.T) {
	s := start(t, 1, workflow.Limits{Running: 1000, Queued: 10_000, Approval: time.Hour, History: time.Hour})
	r := s.watchAll(adm, workflow.AllOptions{})
	r.until("what is there", nil)
	const n = 100
	for g := range 4 {
		go func() {
			for i := range n / 4 {
				if _, _, err := s.Submit(context.Background(), ann, plan(fmt.Sprintf("ok %d-%d on h00", g, i)), false); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	r.until("all ends", func() bool { // which fails where an event is missing
		over := 0
		for _, is := range r.over {
			if is {
				over++
			}
		}
		return over == n
	})
}

// Estimates leave out the time in which people think.
func TestEstimateWithoutPeople(t *testing.T) {
	s := start(t, 1, oneSlot)
	id := s.submit(ann, "ok on h00; gate")
	thinks := s.until(id, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
	for time.Since(thinks.StartTime) < 300*time.Millisecond {
		s.field.of("ok", "h00")
	}
	s.field.decides("ok", "h00", true, "")
	s.ends(id, task.Completed)
	s.submit(ann, "hold on h00")
	v, err := s.Get(t.Context(), ann, s.submit(ann, "ok on h00"))
	if err != nil || v.Place == nil || v.Place.EstimatedWait > 200*time.Millisecond {
		t.Errorf("%+v, %v", v.Place, err)
	}
}

// How long it takes is told anew where that changes, also of who stays in its place.
func TestEstimatesArePushed(t *testing.T) {
	s := start(t, 1, oneSlot)
	asks := s.submit(ann, "ok on h00; gate")
	s.until(asks, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
	s.submit(ann, "hold on h00")
	s.field.of("hold", "h00")
	waits := s.submit(ann, "ok on h00")
	var told []task.Place
	is := func(workflow.View) bool {
		told = nil
		for _, e := range s.events(waits) {
			if e.Type == task.QueueUpdate {
				told = append(told, *e.Place)
			}
		}
		return len(told) > 1
	}
	if s.until(waits, "its place", func(workflow.View) bool { is(workflow.View{}); return len(told) == 1 }); told[0] != (task.Place{Position: 1}) {
		t.Errorf("it was told %+v", told)
	}
	s.field.decides("ok", "h00", true, "")
	if s.until(waits, "its estimate", is); told[1].Position != 1 || told[1].EstimatedWait <= 0 {
		t.Errorf("it was told %+v", told)
	}
}

// Tasks whose people cannot even be asked, for so many wait, take no slot.
func TestTooManyWait(t *testing.T) {
	s := start(t, 1, oneSlot)
	var crowd atomic.Bool
	crowd.Store(true)
	s.field.mu.Lock()
	s.field.trouble = func(doing, id string) error {
		if doing == "start" && crowd.Load() {
			return fault.New(fault.Exhausted, fault.ReasonTooManyAwaiting, "too many wait")
		}
		return nil
	}
	s.field.mu.Unlock()
	id := s.submit(ann, "ok on h00; gate")
	s.until(id, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
	crowd.Store(false)
	other := s.submit(bob, "ok on h00")
	s.ends(other, task.Completed)
	s.field.decides("ok", "h00", true, "")
	s.ends(id, task.Completed)
	asked := 0
	for _, e := range s.events(id) {
		if e.Type == task.ApprovalRequest {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("people were told %d times", asked)
	}
}

// What was accepted once is answered again, whatever holds now; and another plan is not
// taken for it.
func TestReplayOfWhatWouldBeRefused(t *testing.T) {
	s := start(t, 1, workflow.Limits{Running: 1, Queued: 1, Approval: time.Hour, History: time.Hour})
	s.submit(ann, "hold on h00")
	s.field.of("hold", "h00")
	p := plan("ok on h00")
	p.Spec.RequestID = "once"
	first, _, err := s.Submit(t.Context(), ann, p, false)
	if err != nil {
		t.Fatal(err)
	}
	again := func(what string) {
		t.Helper()
		if v, replayed, err := s.Submit(t.Context(), ann, p, false); err != nil || !replayed || v.ID != first.ID {
			t.Errorf("%s: %v, %v", what, replayed, err)
		}
	}
	again("the queue is full")
	s.field.hosts = nil
	again("the host is gone")
	other := p
	other.Spec.Text = "another"
	if _, _, err := s.Submit(t.Context(), ann, other, false); fault.ReasonOf(err) != fault.ReasonRequestIDReused {
		t.Error(err)
	}
	if _, _, err := s.Submit(t.Context(), bob, p, false); fault.ReasonOf(err) != fault.ReasonUnknownHost {
		t.Errorf("somebody else's: %v", err)
	}
}

// What people have approved is so on the other hosts, with its time, too.
func TestModifiedTimeout(t *testing.T) {
	s := start(t, 2, usual)
	p := plan("hold on h00 h01; gate")
	p.Spec.Steps[0].Timeout = time.Hour
	v, _, err := s.Submit(t.Context(), ann, p, false)
	if err != nil {
		t.Fatal(err)
	}
	c := s.field.of("hold", "h00")
	s.until(v.ID, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
	s.field.mu.Lock()
	s.field.commands[c.ID].Spec.Timeout = time.Minute
	s.field.mu.Unlock()
	s.field.decides("hold", "h00", true, "")
	if other := s.field.of("hold", "h01"); other.Spec.Timeout != time.Minute {
		t.Errorf("approved with 1m, the other host has %v", other.Spec.Timeout)
	}
}
