// Package task holds the words for a task: an ordered list of steps, each a command on
// one or more hosts, that may wait for people and can be taken back. What was asked for
// (Spec), how it is (Task), what has happened to it (Event), and the pure functions that
// say what is to be done next (Due) and what has come of it. No I/O happens here, and
// nothing here knows of SSH, SQL or the wire.
//
//	Task ─┬─ Step ─┬─ Run: the step on one host ── command, command again, undo command
//	      │        └─ Run
//	      └─ Step ── Run
//
// Start with State and Task, then Due.
package task

import (
	"fmt"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/command"
)

// State is where a task is in its life. The strings are stored and shown.
type State string

// The states, each with the states that may follow.
const (
	Queued           State = "QUEUED"            // → Running, Cancelled
	Running          State = "RUNNING"           // → AwaitingApproval, Undoing, Completed, Failed, Cancelled
	AwaitingApproval State = "AWAITING_APPROVAL" // → Running, Undoing, Completed, Failed, Cancelled
	Undoing          State = "UNDOING"           // → Undone, UndoFailed; after a part of it, the end it had come to

	Completed  State = "COMPLETED"   // end: nothing has stopped it; → Undoing
	Failed     State = "FAILED"      // end: a step has, and nothing behind it ran; → Undoing
	Cancelled  State = "CANCELLED"   // end; → Undoing
	Undone     State = "UNDONE"      // end: all that can be undone is
	UndoFailed State = "UNDO_FAILED" // end: something could not be undone; → Undoing
)

// States lists all states in the order of a life.
var States = []State{Queued, Running, AwaitingApproval, Undoing, Completed, Failed, Cancelled, Undone, UndoFailed}

// Ended reports whether s is an end. A task that has ended may be undone.
func (s State) Ended() bool {
	switch s {
	case Completed, Failed, Cancelled, Undone, UndoFailed:
		return true
	}
	return false
}

// StepState is where a step is, or a run. The strings are stored and shown.
type StepState string

// The states of steps and runs.
const (
	StepPending   StepState = "PENDING"           // its turn has not come
	StepAwaiting  StepState = "AWAITING_APPROVAL" // people are to decide
	StepRunning   StepState = "RUNNING"           // its command is queued or runs, or it is tried again soon
	StepCompleted StepState = "COMPLETED"         // end: exit code 0; of a step, everywhere
	StepFailed    StepState = "FAILED"            // end
	StepCancelled StepState = "CANCELLED"         // end
	StepLost      StepState = "LOST"              // end: what became of it is not known
	StepSkipped   StepState = "SKIPPED"           // end: it never ran
)

// StepStates lists all of them.
var StepStates = []StepState{StepPending, StepAwaiting, StepRunning, StepCompleted, StepFailed, StepCancelled, StepLost, StepSkipped}

// Ended reports whether s is an end.
func (s StepState) Ended() bool {
	switch s {
	case StepPending, StepAwaiting, StepRunning:
		return false
	}
	return true
}

// UndoState is what undoing has come to. The strings are stored and shown.
type UndoState string

// The states of undoing; the empty one says that nobody has asked for it.
const (
	UndoPending   UndoState = "PENDING"
	UndoAwaiting  UndoState = "AWAITING_APPROVAL" // people are to decide
	UndoRunning   UndoState = "RUNNING"
	UndoDone      UndoState = "UNDONE"       // end: its command has ended with exit code 0
	UndoFailing   UndoState = "UNDO_FAILED"  // end: it has ended otherwise, or could not run
	NotUndoable   UndoState = "NOT_UNDOABLE" // end: the step has run, and has no undo
	UndoUnknown   UndoState = "UNKNOWN"      // end: how much of the step was done is not known; a person must say
	UndoCancelled UndoState = "CANCELLED"    // end: it was not its turn yet
)

// UndoStates lists all of them.
var UndoStates = []UndoState{UndoPending, UndoAwaiting, UndoRunning, UndoDone, UndoFailing, NotUndoable, UndoUnknown, UndoCancelled}

// Open reports whether the undo is still to be done.
func (s UndoState) Open() bool { return s == UndoPending || s == UndoAwaiting || s == UndoRunning }

// OnFailure is what happens when a step fails. The strings are stored and shown.
type OnFailure string

// What may happen.
const (
	Stop     OnFailure = "stop"     // nothing more runs
	Continue OnFailure = "continue" // the next step runs
	TakeBack OnFailure = "undo"     // what was done is undone, the last first
)

// Bounds of a task.
const (
	MaxSteps = 100
	MaxRuns  = 1000 // of all steps together

	MaxRetries = 20 // of a run
)

// Spec is what was asked for. It is not changed after that.
type Spec struct {
	RequestID      string // empty: not idempotent
	Text           string // what it is about
	Priority       int    // higher first
	ConversationID string
	Context        map[string]string
	Labels         map[string]string
	Steps          []StepSpec
}

// StepSpec is one step as it was asked for. Its hosts are known: they are those of its
// runs.
type StepSpec struct {
	Name             string // unique in the task, never empty
	Line             string // empty with Argv
	Argv             []string
	Session          string // empty: none
	WorkingDirectory string
	SudoUser         string
	ActionType       string
	Undo             string // empty: it cannot be undone
	NeedsApproval    bool
	OnFailure        OnFailure // never empty
	Timeout          time.Duration
	Retry            Retry
	Rollout          Rollout
}

// Retry says how often a run is tried again.
type Retry struct {
	Times   int           // 0: never
	Backoff time.Duration // before the first time, doubling
}

// Rollout says how a step goes over its hosts.
type Rollout struct {
	Parallel int  // at once; at least 1
	Canary   int  // so many come first, and alone
	GoOn     bool // also where it has failed on one
}

// Task is a task as it is. Values are passed by copy; what slices, maps and pointers in
// them hold is never changed after they were set, so a copy is a snapshot.
type Task struct {
	ID        string // ULID
	Version   int64  // grows with every change
	State     State
	Spec      Spec
	CreatedBy command.Actor
	Roles     []string // of who submitted it, then

	CreateTime time.Time
	StartTime  time.Time // zero before
	EndTime    time.Time // zero before, and while it is undone

	Steps        []Step
	Failure      *command.Failure // of Failed
	Cancellation *Cancellation    // nil: nobody has asked
	Undo         *Undo            // nil: nobody has asked
	Outcome      State            // what it had come to before it was undone; empty: it was not
	Sequence     int64            // of its last event
}

// Ended reports whether it is over. It may be undone then.
func (t *Task) Ended() bool { return t.State.Ended() }

// Cancellation is a cancel that was asked for.
type Cancellation struct {
	By     command.Actor
	Time   time.Time
	Reason string
}

// Undo is an undo that was asked for.
type Undo struct {
	State        UndoState // Running, or what it has come to
	By           command.Actor
	Roles        []string // of who has asked, then
	Time         time.Time
	Reason       string
	Automatic    bool // by a step that says so
	Cancellation *Cancellation
}

// Step is a step as it is: its runs, in the order of their turns. Spec has the rest.
type Step struct {
	Line    string // as approved, where that is not what was asked for
	Argv    []string
	Timeout time.Duration // as approved, with Line or Argv
	Runs    []Run
}

// Run is a step on one host.
type Run struct {
	Host      string // of one in a session empty, until its command is known
	Session   string // ULID of that, from then on: its name may be another's later
	State     StepState
	Command   string   // id of the command, the last one; empty before
	Earlier   []string // ids of those before it
	Exit      *int     // nil where the host reported none
	Failure   *command.Failure
	Admitted  bool // its command has been let run: it waits for nobody, or people have said yes
	Percent   float64
	StartTime time.Time
	EndTime   time.Time
	RetryTime time.Time // when it is tried again; zero: it is not
	Undo      UndoRun
}

// UndoRun is the undo of a run.
type UndoRun struct {
	State     UndoState
	Command   string // id; empty before
	Failure   *command.Failure
	StartTime time.Time
	EndTime   time.Time
}

// Ref names a run: the index of its step, and its own in that.
type Ref struct{ Step, Run int }

// Run gives a run.
func (t *Task) Run(r Ref) *Run { return &t.Steps[r.Step].Runs[r.Run] }

// Refs names all runs, in the order of their steps.
func (t *Task) Refs() (all []Ref) {
	for i := range t.Steps {
		for j := range t.Steps[i].Runs {
			all = append(all, Ref{i, j})
		}
	}
	return all
}

// Where tells people where a run is: "on web1", or `in session "deploy"`.
func (t *Task) Where(r Ref) string {
	if session := t.Spec.Steps[r.Step].Session; session != "" {
		return fmt.Sprintf("in session %q", session)
	}
	return "on " + t.Run(r).Host
}

// Clone gives a copy of which the steps, the runs and the undo may be changed.
func (t Task) Clone() Task {
	t.Steps = slices.Clone(t.Steps)
	for i := range t.Steps {
		t.Steps[i].Runs = slices.Clone(t.Steps[i].Runs)
	}
	if t.Undo != nil {
		undo := *t.Undo
		t.Undo = &undo
	}
	return t
}

// State gives where a step is: of its runs.
func (s *Step) State() StepState {
	var has = map[StepState]int{}
	for i := range s.Runs {
		has[s.Runs[i].State]++
	}
	for _, state := range []StepState{StepRunning, StepAwaiting} {
		if has[state] > 0 {
			return state
		}
	}
	if has[StepPending] > 0 {
		if has[StepPending] < len(s.Runs) {
			return StepRunning // between two of them
		}
		return StepPending
	}
	for _, state := range []StepState{StepFailed, StepLost, StepCancelled, StepSkipped} {
		if has[state] > 0 {
			return state
		}
	}
	return StepCompleted
}

// UndoState gives what undoing a step has come to: of its runs.
func (s *Step) UndoState() UndoState {
	for _, state := range []UndoState{UndoRunning, UndoAwaiting, UndoPending, UndoFailing, UndoUnknown, UndoCancelled, NotUndoable, UndoDone} {
		if slices.ContainsFunc(s.Runs, func(r Run) bool { return r.Undo.State == state }) {
			return state
		}
	}
	return ""
}

// Percent is how much of a step is done, 0 to 100.
func (s *Step) Percent() float64 {
	sum := 0.0
	for i := range s.Runs {
		if s.Runs[i].State.Ended() {
			sum += 100
		} else {
			sum += s.Runs[i].Percent
		}
	}
	return sum / float64(max(len(s.Runs), 1))
}

// Percent is how much of all steps is done, 0 to 100; while it is undone, how much of that.
func (t *Task) Percent() float64 {
	if t.State == Undoing {
		return t.undonePercent()
	}
	sum := 0.0
	for i := range t.Steps {
		sum += t.Steps[i].Percent()
	}
	return sum / float64(max(len(t.Steps), 1))
}

func (t *Task) undonePercent() float64 {
	over, all := 0, 0
	for i := range t.Steps {
		for j := range t.Steps[i].Runs {
			switch u := &t.Steps[i].Runs[j].Undo; {
			case u.State.Open():
				all++
			case u.EndTime.IsZero() || u.EndTime.Before(t.Undo.Time): // of an undo before
			case u.State == UndoDone, u.State == UndoFailing, u.State == UndoCancelled:
				over, all = over+1, all+1
			}
		}
	}
	return 100 * float64(over) / float64(max(all, 1))
}

// Current is the index of the step that it is at, or that is being undone; the last one
// when all have ended.
func (t *Task) Current() int {
	if t.State == Undoing {
		for i := len(t.Steps) - 1; i >= 0; i-- {
			if t.Steps[i].UndoState().Open() {
				return i
			}
		}
	}
	for i := range t.Steps {
		if !t.Steps[i].State().Ended() {
			return i
		}
	}
	return len(t.Steps) - 1
}

// Busy is for how long at least one of its commands ran, which leaves out the time in which
// people thought.
func (t *Task) Busy() (sum time.Duration) {
	var runs []Run
	for i := range t.Steps {
		for _, r := range t.Steps[i].Runs {
			if !r.StartTime.IsZero() && r.EndTime.After(r.StartTime) {
				runs = append(runs, r)
			}
		}
	}
	slices.SortFunc(runs, func(a, b Run) int { return a.StartTime.Compare(b.StartTime) })
	var until time.Time
	for _, r := range runs {
		from := r.StartTime
		if from.Before(until) {
			from = until
		}
		if r.EndTime.After(from) {
			sum += r.EndTime.Sub(from)
			until = r.EndTime
		}
	}
	return sum
}
