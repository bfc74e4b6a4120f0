package command

import (
	"time"

	"github.com/telexec/telexec/internal/audit"
)

// Change is one step of a command's life, for the store to take whole or not at
// all: the record, the output that came with it. It is compare-and-set: the
// store applies it only while the stored command has state From and fence
// Fence; otherwise it fails with fault.Aborted and has changed nothing.
type Change struct {
	From    State
	Fence   int64
	Command Command       // the record as it is to be; Command.ID names it
	Output  []Chunk       // new output; within a stream without gap or repeat
	Order   []Sizes       // the waypoints in it, rising; none lies at its end or behind it
	Audit   []audit.Entry // what the audit is told of it, in this order
}

// Changed is a command that has changed.
type Changed struct {
	Number  int64 // of its last change, in the order of all changes of all commands
	Command Command
}

// Filter selects commands for a list. The zero value selects all; all that is
// set must match. Newest first.
type Filter struct {
	States    []State
	Host      string
	Origin    Origin
	Principal string
	Session   string   // ULID of a session
	Task      string   // id of a task: its steps
	Visible   *Visible // nil: whatever there is
	Labels    map[string]string
	From, To  time.Time // creation time, From inclusive, To exclusive
	Before    string    // only ids below this one: the cursor of a page
	Limit     int       // at most so many; 0 means no limit
}

// Visible bounds a list to what a caller may see: what is the principal's own, or runs
// in a session of it (Spec.SessionOwner), and what is on these hosts.
type Visible struct {
	Principal string
	Hosts     []string
}

// Retention says what the store should remove. With TrimTo 0 nothing is cut, with
// DeleteAfter 0 nothing deleted; Batch 0 leaves its size to the store.
type Retention struct {
	Now         time.Time
	TrimAfter   time.Duration        // output of commands that ended so long ago is cut …
	TrimTo      int64                // … to its last so many bytes per stream
	DeleteAfter time.Duration        // commands, sessions and tasks that ended so long ago are deleted
	Batch       int                  // at most so many of them in one go
	InUse       func(id string) bool // watched now: leave it for the next round; nil: none
}

// Retained is what a retention round did.
type Retained struct {
	Trimmed, Deleted int  // commands
	Sessions, Tasks  int  // deleted
	More             bool // Batch was reached; call again
}
