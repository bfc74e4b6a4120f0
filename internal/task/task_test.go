package task_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/task"
)

// plan gives a task of steps, each written as "name hosts flags…": so many hosts, and
// undo, gate, canary=N, parallel=N, goon, retry=N, continue, takeback.
func plan(t testing.TB, steps ...string) *task.Task {
	t.Helper()
	one := &task.Task{ID: "T", State: task.Running, CreatedBy: command.Actor{Principal: "ann"}}
	for _, text := range steps {
		spec := task.StepSpec{OnFailure: task.Stop, Rollout: task.Rollout{Parallel: 10}}
		var hosts int
		for i, word := range strings.Fields(text) {
			key, value, _ := strings.Cut(word, "=")
			n := 0
			if value != "" {
				fmt.Sscan(value, &n)
			}
			switch {
			case i == 0:
				spec.Name, spec.Line = word, "do "+word
			case i == 1:
				fmt.Sscan(word, &hosts)
			case key == "undo":
				spec.Undo = "undo " + spec.Name
			case key == "gate":
				spec.NeedsApproval = true
			case key == "canary":
				spec.Rollout.Canary = n
			case key == "parallel":
				spec.Rollout.Parallel = n
			case key == "goon":
				spec.Rollout.GoOn = true
			case key == "continue":
				spec.OnFailure = task.Continue
			case key == "takeback":
				spec.OnFailure = task.TakeBack
			default:
				t.Fatalf("no flag %q", word)
			}
		}
		step := task.Step{}
		for i := range hosts {
			step.Runs = append(step.Runs, task.Run{Host: fmt.Sprintf("h%d", i), State: task.StepPending})
		}
		one.Spec.Steps, one.Steps = append(one.Spec.Steps, spec), append(one.Steps, step)
	}
	return one
}

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// run does what is due until the task is over, the runs being told how they end by a
// function, and gives what began and ended, in its order: "a@h0" began, "a@h0:FAILED"
// has ended, "-a@h0" is undone.
func run(t testing.TB, one *task.Task, ends func(step, host string) task.StepState) (log []string) {
	t.Helper()
	name := func(r task.Ref) string { return one.Spec.Steps[r.Step].Name + "@" + one.Run(r).Host }
	var running, undoing []task.Ref
	for range 10_000 {
		d := one.Due(noon)
		for _, r := range d.Skip {
			one.Run(r).State = task.StepSkipped
		}
		for _, r := range d.Drop {
			one.Run(r).Undo.State = task.UndoCancelled
		}
		for _, r := range d.Start {
			one.Run(r).State, one.Run(r).StartTime = task.StepRunning, noon
			running, log = append(running, r), append(log, name(r))
		}
		for _, r := range d.Undo {
			one.Run(r).Undo.State = task.UndoRunning
			undoing, log = append(undoing, r), append(log, "-"+name(r))
		}
		switch {
		case d.Over:
			if len(running)+len(undoing) > 0 {
				t.Fatalf("over while %v and %v run", running, undoing)
			}
			if one.Conclude(noon) {
				return append(log, string(one.State))
			}
		case len(running) > 0:
			i := rand.IntN(len(running))
			r := running[i]
			if lead := one.Run(r); !lead.Admitted && rand.IntN(2) == 0 {
				lead.Admitted = true
				continue
			}
			running = slices.Delete(running, i, i+1)
			if one.Run(r).State = ends(one.Spec.Steps[r.Step].Name, one.Run(r).Host); one.Run(r).State != task.StepCompleted {
				log = append(log, name(r)+":"+string(one.Run(r).State))
			}
		case len(undoing) > 0:
			r := undoing[0]
			undoing = undoing[1:]
			one.Run(r).Undo.State = task.UndoDone
			if ends("-"+one.Spec.Steps[r.Step].Name, one.Run(r).Host) == task.StepFailed {
				one.Run(r).Undo.State = task.UndoFailing
			}
		case len(d.Skip)+len(d.Drop) == 0:
			t.Fatalf("nothing is due and nothing runs: %+v", one.Steps)
		}
	}
	t.Fatal("it has no end")
	return nil
}

func TestDue(t *testing.T) {
	fails := func(which ...string) func(step, host string) task.StepState {
		return func(step, host string) task.StepState {
			for _, w := range which {
				at, state, _ := strings.Cut(w, ":")
				if at == step+"@"+host {
					if state != "" {
						return task.StepState(state)
					}
					return task.StepFailed
				}
			}
			return task.StepCompleted
		}
	}
	for name, tc := range map[string]struct {
		steps []string
		fails []string
		want  string
	}{
		"one after the other":        {[]string{"a 1", "b 1", "c 1"}, nil, "a@h0 b@h0 c@h0 COMPLETED"},
		"nothing behind a failure":   {[]string{"a 1", "b 1", "c 1"}, []string{"b@h0"}, "a@h0 b@h0 b@h0:FAILED FAILED"},
		"but where it says so":       {[]string{"a 1", "b 1 continue", "c 1"}, []string{"b@h0"}, "a@h0 b@h0 b@h0:FAILED c@h0 COMPLETED"},
		"what is not known":          {[]string{"a 1", "b 1"}, []string{"a@h0:LOST"}, "a@h0 a@h0:LOST FAILED"},
		"taken back, the last first": {[]string{"a 1 undo", "b 1", "c 1 undo", "d 1 undo takeback"}, []string{"d@h0"}, "a@h0 b@h0 c@h0 d@h0 d@h0:FAILED -c@h0 -a@h0 UNDONE"},
		"nothing to take back":       {[]string{"a 1", "b 1 takeback"}, []string{"b@h0"}, "a@h0 b@h0 b@h0:FAILED FAILED"},
		"an undo fails":              {[]string{"a 1 undo", "b 1 undo", "c 1 takeback"}, []string{"c@h0", "-b@h0"}, "a@h0 b@h0 c@h0 c@h0:FAILED -b@h0 -a@h0 UNDO_FAILED"},
		"what is not known is left":  {[]string{"a 1 undo", "b 1 undo takeback"}, []string{"b@h0:LOST"}, "a@h0 b@h0 b@h0:LOST -a@h0 UNDONE"},
		"so many at once":            {[]string{"a 3 parallel=1"}, nil, "a@h0 a@h1 a@h2 COMPLETED"},
		"a failure stops the rest":   {[]string{"a 3 parallel=1"}, []string{"a@h0"}, "a@h0 a@h0:FAILED FAILED"},
		"or does not":                {[]string{"a 3 parallel=1 goon"}, []string{"a@h0"}, "a@h0 a@h0:FAILED a@h1 a@h2 FAILED"},
		"a canary that fails":        {[]string{"a 20 canary=1"}, []string{"a@h0"}, "a@h0 a@h0:FAILED FAILED"},
		"a canary of those that may": {[]string{"a 3 canary=1 goon"}, []string{"a@h0"}, "a@h0 a@h0:FAILED FAILED"},
	} {
		t.Run(name, func(t *testing.T) {
			one := plan(t, tc.steps...)
			if got := strings.Join(run(t, one, fails(tc.fails...)), " "); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if one.Percent() != 100 || one.EndTime.IsZero() || (one.State == task.Failed) != (one.Failure != nil && one.Outcome == "") {
				t.Errorf("%v %%, ended %v, %+v", one.Percent(), one.EndTime, one.Failure)
			}
		})
	}
}

// The lead of a step that people decide about goes first, alone, and what they say is
// for all its hosts.
func TestTheLeadDecides(t *testing.T) {
	one := plan(t, "a 3 gate goon", "b 1")
	if d := one.Due(noon); fmt.Sprint(d.Start) != "[{0 0}]" {
		t.Fatalf("%+v", d)
	}
	one.Steps[0].Runs[0].State = task.StepRunning // and nobody knows yet whether it waits
	if d := one.Due(noon); len(d.Start) > 0 {
		t.Fatalf("%+v", d)
	}
	one.Steps[0].Runs[0].State = task.StepAwaiting
	if d := one.Due(noon); len(d.Start) > 0 || one.Progress() != task.AwaitingApproval {
		t.Fatalf("%+v, %s", d, one.Progress())
	}
	yes := one.Clone()
	yes.Steps[0].Runs[0].State, yes.Steps[0].Runs[0].Admitted = task.StepRunning, true
	if d := yes.Due(noon); fmt.Sprint(d.Start) != "[{0 1} {0 2}]" {
		t.Errorf("%+v", d)
	}
	one.Steps[0].Runs[0].State, one.Steps[0].Runs[0].Failure = task.StepFailed, &command.Failure{Reason: fault.ReasonRejected}
	if d := one.Due(noon); len(d.Start) > 0 || fmt.Sprint(d.Skip) != "[{0 1} {0 2}]" {
		t.Errorf("%+v", d)
	}
}

func TestTriedAgain(t *testing.T) {
	one := plan(t, "a 1")
	r := &one.Steps[0].Runs[0]
	r.State, r.RetryTime = task.StepRunning, noon.Add(time.Second)
	if d := one.Due(noon); len(d.Start) > 0 || !d.Again.Equal(noon.Add(time.Second)) {
		t.Errorf("%+v", d)
	}
	if d := one.Due(noon.Add(time.Second)); len(d.Start) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestCancelled(t *testing.T) {
	one := plan(t, "a 1 undo", "b 2 parallel=1", "c 1")
	one.Steps[0].Runs[0].State = task.StepCompleted
	one.Steps[1].Runs[0].State = task.StepRunning
	one.Cancellation = &task.Cancellation{}
	if d := one.Due(noon); fmt.Sprint(d.Skip) != "[{1 1}]" || len(d.Start) > 0 || d.Over {
		t.Fatalf("%+v", d)
	}
	log := run(t, func() *task.Task {
		one.Steps[1].Runs[0].State = task.StepCancelled
		return one
	}(), nil)
	if strings.Join(log, " ") != "CANCELLED" || one.Steps[2].State() != task.StepSkipped {
		t.Errorf("%v, %+v", log, one.Steps)
	}
}

// An undo of one step leaves the others, and the task is again what it was.
func TestUndoOfAStep(t *testing.T) {
	one := plan(t, "a 1 undo", "b 1 undo", "c 1")
	run(t, one, func(string, string) task.StepState { return task.StepCompleted })
	one.Undo = &task.Undo{}
	if !one.BeginUndo(func(step int) bool { return step == 0 }, false) || one.State != task.Undoing || one.Ended() {
		t.Fatalf("%+v", one)
	}
	if one.Percent() != 0 || one.Current() != 0 {
		t.Errorf("%v %% is undone, and it is at step %d", one.Percent(), one.Current())
	}
	if log := run(t, one, func(string, string) task.StepState { return task.StepCompleted }); strings.Join(log, " ") != "-a@h0 COMPLETED" || one.Steps[0].UndoState() != task.UndoDone || one.Undo.State != task.UndoDone {
		t.Errorf("%v, %+v", log, one)
	}
	one.Undo = &task.Undo{}
	if !one.BeginUndo(nil, false) {
		t.Fatal("nothing is left")
	}
	if one.Percent() != 0 || one.Current() != 1 {
		t.Errorf("%v %% is undone, and it is at step %d", one.Percent(), one.Current())
	}
	if log := run(t, one, func(string, string) task.StepState { return task.StepCompleted }); strings.Join(log, " ") != "-b@h0 UNDONE" || one.Outcome != task.Completed || one.Steps[2].UndoState() != task.NotUndoable {
		t.Errorf("%v, %+v", log, one)
	}
	one.Undo = &task.Undo{}
	if one.BeginUndo(nil, false) {
		t.Error("there is more")
	}
}

// An undo has come to what it has come to itself; the task also to what failed before.
func TestUndoBesideOneThatFailed(t *testing.T) {
	one := plan(t, "a 1 undo", "b 1 undo")
	run(t, one, func(string, string) task.StepState { return task.StepCompleted })
	for i, c := range []struct {
		ends task.StepState
		want task.UndoState
	}{{task.StepFailed, task.UndoFailing}, {task.StepCompleted, task.UndoDone}} {
		one.Undo = &task.Undo{Time: noon.Add(time.Duration(i))}
		one.BeginUndo(func(step int) bool { return step == i }, false)
		one.Steps[i].Runs[0].Undo.EndTime = one.Undo.Time
		run(t, one, func(string, string) task.StepState { return c.ends })
		if one.Undo.State != c.want || one.State != task.UndoFailed {
			t.Errorf("the undo of step %d: %s, the task %s", i, one.Undo.State, one.State)
		}
	}
}

// What may have run, and whose undo has failed, is undone again where a person says so
// again, and till then the task is not undone.
func TestUndoThatFailedOfWhatIsNotKnown(t *testing.T) {
	one := plan(t, "a 1 undo", "b 1 undo")
	run(t, one, func(step, _ string) task.StepState {
		if step == "b" {
			return task.StepFailed
		}
		return task.StepCompleted
	})
	for _, c := range []struct {
		unknown bool
		ends    task.StepState
		want    string
	}{
		{true, task.StepFailed, "-b@h0 -a@h0 UNDO_FAILED"},
		{false, task.StepCompleted, "-a@h0 UNDO_FAILED"},
		{true, task.StepCompleted, "-b@h0 UNDONE"},
	} {
		one.Undo = &task.Undo{}
		if !one.BeginUndo(nil, c.unknown) {
			t.Fatalf("nothing is left: %+v", one)
		}
		if log := run(t, one, func(string, string) task.StepState { return c.ends }); strings.Join(log, " ") != c.want {
			t.Errorf("%v, want %s", log, c.want)
		}
	}
}

// What may have run is undone where a person says so.
func TestUndoOfWhatIsNotKnown(t *testing.T) {
	one := plan(t, "a 2 undo goon")
	run(t, one, func(_, host string) task.StepState {
		if host == "h0" {
			return task.StepLost
		}
		return task.StepFailed
	})
	one.Undo = &task.Undo{}
	if one.BeginUndo(nil, false) || one.Steps[0].Runs[0].Undo.State != task.UndoUnknown || one.State != task.Failed {
		t.Fatalf("%+v", one)
	}
	if !one.BeginUndo(nil, true) {
		t.Fatal("nothing is undone")
	}
	if log := run(t, one, func(string, string) task.StepState { return task.StepCompleted }); strings.Join(log, " ") != "-a@h0 -a@h1 UNDONE" {
		t.Errorf("%v", log)
	}
}

func TestUndoIsCancelled(t *testing.T) {
	one := plan(t, "a 1 undo", "b 1 undo")
	run(t, one, func(string, string) task.StepState { return task.StepCompleted })
	one.Undo = &task.Undo{}
	one.BeginUndo(nil, false)
	one.Steps[1].Runs[0].Undo.State = task.UndoRunning
	one.Undo.Cancellation = &task.Cancellation{}
	if d := one.Due(noon); d.Over || len(d.Undo)+len(d.Drop) > 0 {
		t.Fatalf("%+v", d)
	}
	one.Steps[1].Runs[0].Undo.State = task.UndoDone
	if log := run(t, one, nil); strings.Join(log, " ") != "COMPLETED" || one.Undo.State != task.UndoCancelled || one.Steps[0].UndoState() != task.UndoCancelled {
		t.Errorf("%v, %+v", log, one)
	}
}

// An undo that was cancelled when there was nothing left to cancel is done.
func TestUndoIsCancelledTooLate(t *testing.T) {
	one := plan(t, "a 1 undo")
	run(t, one, func(string, string) task.StepState { return task.StepCompleted })
	one.Undo = &task.Undo{Cancellation: &task.Cancellation{}}
	one.BeginUndo(nil, false)
	one.Steps[0].Runs[0].Undo.State = task.UndoDone
	if log := run(t, one, nil); strings.Join(log, " ") != "UNDONE" || one.Undo.State != task.UndoDone {
		t.Errorf("%v, %+v", log, one)
	}
}

// Whatever happens, and whenever the service is killed (each step begins from what is
// stored, which is the task), a task comes to an end, no more runs at once than may, and
// nothing runs behind what stops it.
func TestDueProperty(t *testing.T) {
	flags := []string{"undo", "canary=1", "canary=2", "parallel=1", "parallel=2", "goon", "continue", "takeback"}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		var steps []string
		for i := range 1 + r.IntN(4) {
			text := fmt.Sprintf("s%d %d", i, 1+r.IntN(4))
			for range r.IntN(4) {
				text += " " + flags[r.IntN(len(flags))]
			}
			steps = append(steps, text)
		}
		one := plan(t, steps...)
		began := map[string]int{}
		for _, line := range run(t, one, func(string, string) task.StepState {
			return []task.StepState{task.StepCompleted, task.StepCompleted, task.StepCompleted, task.StepFailed, task.StepLost, task.StepCancelled}[r.IntN(6)]
		}) {
			began[line]++
		}
		for line, n := range began {
			if n > 1 {
				t.Fatalf("seed %d, %v: %s came %d times", seed, steps, line, n)
			}
		}
		for i := range one.Steps {
			if !one.Steps[i].State().Ended() || one.Steps[i].UndoState().Open() {
				t.Fatalf("seed %d, %v: %+v", seed, steps, one.Steps[i])
			}
		}
	}
}

func TestBusy(t *testing.T) {
	one := plan(t, "a 3", "b 1")
	at := func(r *task.Run, from, to int) {
		r.StartTime, r.EndTime = noon.Add(time.Duration(from)*time.Second), noon.Add(time.Duration(to)*time.Second)
	}
	if got := one.Busy(); got != 0 {
		t.Errorf("before it has begun: %v", got)
	}
	at(&one.Steps[0].Runs[0], 0, 10)
	at(&one.Steps[0].Runs[1], 2, 5)
	at(&one.Steps[0].Runs[2], 8, 12)
	at(&one.Steps[1].Runs[0], 100, 101) // people thought before it
	if got := one.Busy(); got != 13*time.Second {
		t.Errorf("%v", got)
	}
}
