package task

import (
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
)

// EventType is what has happened. The strings are stored and shown.
type EventType string

// The types of events.
const (
	StatusChange    EventType = "status_change"    // the task is in another state, or with Step people have let that run
	StepStart       EventType = "step_start"       // a step begins, or with Host its command there
	StepProgress    EventType = "step_progress"    // Percent of a step
	StepComplete    EventType = "step_complete"    // a step is over, or with Host its command there
	ErrorEvent      EventType = "error"            // something went wrong: Failure
	ApprovalRequest EventType = "approval_request" // people are to decide about Command
	UndoStart       EventType = "undo_start"       // an undo command begins
	UndoComplete    EventType = "undo_complete"    // it is over, or there is none
	TaskCompleted   EventType = "completed"
	TaskCancelled   EventType = "cancelled"
	QueueUpdate     EventType = "queue_update" // Place
)

// EventTypes lists all of them.
var EventTypes = []EventType{
	StatusChange, StepStart, StepProgress, StepComplete, ErrorEvent, ApprovalRequest, UndoStart, UndoComplete,
	TaskCompleted, TaskCancelled, QueueUpdate,
}

// Event is something that has happened to a task. Sequence begins with 1 and rises by
// one: none is missing, and none is told twice.
type Event struct {
	Task        string // id
	Sequence    int64
	Time        time.Time
	Type        EventType
	State       State   // of the task from then on
	TaskPercent float64 // of all steps
	Message     string  // for people

	Step      int // index; -1: it is not about one
	Host      string
	Command   string // id
	StepState StepState
	UndoState UndoState
	Percent   float64 // of the step
	Exit      *int
	Failure   *command.Failure
	Place     *Place
}

// Place is where a task stands in the queue.
type Place struct {
	Position      int           // 1 is next
	EstimatedWait time.Duration // 0: not known
}

// Change is one step of a task's life, for the store to take whole or not at all. It is
// compare-and-set: it is applied only while the stored task has a version below
// Task.Version.
type Change struct {
	Task   Task  // as it is to be; its Sequence is that of the last event
	Runs   []Ref // the runs that have changed
	Steps  []int // the steps of which Line or Argv have
	Events []Event
	Audit  []audit.Entry
}

// Filter selects tasks for a list. The zero value selects all; all that is set must
// match. Newest first.
type Filter struct {
	States         []State
	Principal      string
	Visible        string // only those of this principal; empty: whatever there is
	ConversationID string
	Labels         map[string]string
	From, To       time.Time // creation time, From inclusive, To exclusive
	Before         string    // only ids below this one: the cursor of a page
	Offset         int       // leave out so many of the newest that match
	Limit          int       // at most so many; 0 means no limit
}
