package engine

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
)

// Journal is the store as the engine needs it. Every write is durable when it
// returns nil. One that returns an error may have happened all the same; the
// engine then reads again.
type Journal interface {
	// Create stores a new command, or gives the one that the same principal made
	// with the same request id and content within 24 hours (created is false). gate
	// is what it waits for, nil for nothing; told goes into the audit.
	Create(ctx context.Context, c command.Command, contentHash []byte, gate *approval.Approval, told audit.Entry) (stored command.Command, created bool, err error)
	// Replay gives the command that Create would give for c without storing it;
	// found is false where it would store it.
	Replay(ctx context.Context, c command.Command, contentHash []byte) (stored command.Command, found bool, err error)
	// Apply takes a change whole or not at all; fault.Aborted where the stored
	// state or fence is not the expected one.
	Apply(ctx context.Context, ch command.Change) error
	// Decide takes all steps or none; fault.Aborted where a stored approval is not
	// the one before its step's, or a command as for Apply.
	Decide(ctx context.Context, steps []approval.Step) error
	// Approval gives the approval of a command, or fault.NotFound.
	Approval(ctx context.Context, commandID string) (approval.Approval, error)
	// Approvals gives approvals, newest first.
	Approvals(ctx context.Context, f approval.Filter) ([]approval.Approval, error)
	// Record tells the audit of what is nowhere else in the store.
	Record(ctx context.Context, told ...audit.Entry) error
	Get(ctx context.Context, id string) (command.Command, error)
	List(ctx context.Context, f command.Filter) ([]command.Command, error)
	// Changes gives the commands that have changed behind the number after, in the
	// order of their last change, at most limit; one that cannot be read has its ID
	// alone. LastChange gives the highest number given.
	Changes(ctx context.Context, after int64, limit int) ([]command.Changed, error)
	LastChange(ctx context.Context) (int64, error)
	// ReadOutput gives stored bytes from offset on, at most limit.
	ReadOutput(ctx context.Context, id string, s command.Stream, offset int64, limit int) ([]byte, error)
	// ReadOrder gives stored waypoints from the last one at or before position on, at
	// most limit.
	ReadOrder(ctx context.Context, id string, position int64, limit int) ([]command.Sizes, error)
	// Ping reports whether the store can write now, by writing.
	Ping(ctx context.Context) error
	// Retain does one round of retention.
	Retain(ctx context.Context, r command.Retention) (command.Retained, error)
}

// Hosts knows the hosts by name.
type Hosts interface {
	// Lookup gives a host, or fault.NotFound.
	Lookup(name string) (inventory.Host, error)
	// List gives all hosts, in any order.
	List() []inventory.Host
}

// Runner starts commands on hosts and finds them again.
type Runner interface {
	// Start starts a command and returns when the host has reported its start. A
	// host starts a durable command at most once by its id: where an earlier Start
	// of it has got through, this one takes up what that one has started.
	//
	// While nothing was sent to the host, the end of ctx ends the attempt with
	// fault.Cancelled. After that an attached start heeds ctx no more; a durable one
	// goes on through lost connections until ctx ends. A fault CONNECTION_LOST or
	// NO_EXIT_STATUS means that it may have started; every other error means that it
	// did not and will not. NOT_DURABLE: the host cannot keep it; ask again with
	// Attached.
	Start(ctx context.Context, r Run) (Process, error)
	// Resume takes up a durable command that an earlier owner has started, and
	// goes on through lost connections until ctx ends; it starts nothing.
	// RUN_REMOVED: the host has no files of it (any more); it may run all the same,
	// and Sweep finds it. NEVER_STARTED, with Void or where the start broke off: it did
	// not start and never will. SUPERSEDED: a later fence has it. CONNECTION_LOST: ctx
	// has ended.
	Resume(ctx context.Context, r Run) (Process, error)
	// Sweep ends what the host still has of a command that nobody holds a Process
	// of, found by its mark.
	Sweep(ctx context.Context, id string, host inventory.Host, grace time.Duration) (command.CancelReport, error)
	// Clean removes what the host keeps of runs of which nothing lives and for which
	// through is true; old tells it that nobody has touched one for a week. It gives
	// how many runs it removed.
	Clean(ctx context.Context, host inventory.Host, through func(id string, old bool) bool) (removed int, err error)
}

// Run is what a Runner needs to start a command or to take it up again.
type Run struct {
	ID       string
	Host     inventory.Host
	Spec     *command.Spec
	Fence    int64         // of the owner; a host heeds no owner below the highest it has seen
	From     command.Sizes // output that the owner has already
	Attached bool          // Start: on the channel, whatever Spec.Durability says
	Void     bool          // Resume: where it has not started, see to it that it never will
	// Output takes what the command prints, each stream from one goroutine, from
	// From on. It copies data, and blocks while the store is behind.
	Output func(s command.Stream, data []byte) error
	// Link hears when the connection of a durable command is lost, with the
	// reason, and with nil when it is back. It does not block. Calls follow each
	// other, and none comes after Wait has returned.
	Link func(why error)
}

// Sessions are the shells that people and agents share. A command in one is typed
// there, one at a time; its Process is what runs in the shell until it is back.
type Sessions interface {
	// Ready is closed when the sessions of the last run of the service are known again.
	// Nothing else is asked before.
	Ready() <-chan struct{}
	// Find gives a session that has not ended, by its name or id: UNKNOWN_SESSION, or
	// SESSION_ENDED. It asks memory alone.
	Find(ref string) (session.Session, error)
	// Session gives also one that has ended: by a name the one that has not, else the
	// latest. UNKNOWN_SESSION where there never was one, or it was removed.
	Session(ctx context.Context, ref string) (session.Session, error)
	// Start waits until the shell reads, types the command and returns when it runs.
	// One that was typed by somebody (Spec.Typed) runs already, and is only taken up;
	// its end may have come meanwhile. While nothing was typed, the end of ctx ends the
	// attempt with fault.Cancelled; after that it heeds ctx no more. CONNECTION_LOST
	// means that it may run; every other error that it does not and will not, such as
	// SESSION_ENDED.
	Start(ctx context.Context, r SessionRun) (Process, error)
	// Resume takes up a command that an earlier run of the service has typed, or that
	// somebody had; it types nothing. What runs in the shell and has no other name is taken
	// for it; where nothing does, its end was missed and is told by PROMPT. So it is not
	// asked about one that may never have been typed.
	// UNKNOWN_SESSION, SESSION_ENDED, SESSION_GONE: the shell is not there any more.
	Resume(ctx context.Context, r SessionRun) (Process, error)
	// Busy tells whether something runs in a session, and which command that is; empty
	// where it has none, or none yet.
	Busy(id string) (commandID string, busy bool)
}

// SessionRun is what Sessions need to run a command or to take it up again.
type SessionRun struct {
	ID   string
	Spec *command.Spec // SessionID says where
	From command.Sizes // output that the owner has already
	// Output takes what the command prints, from one goroutine, from From on: all of it
	// as Stdout. It copies data, and blocks while the store is behind.
	Output func(s command.Stream, data []byte) error
	// Fits is asked by Start, right before it types, whether what reads there now may have
	// the line; an error, which Start gives, means that it is not typed. It does not block.
	Fits func() error
	// Began hears once where its output begins in that of the session. It does not
	// block.
	Began func(offset int64)
	// CancelledBy tells who wants the command ended that Process.Cancel ends; nobody
	// where its timeout does.
	CancelledBy func() command.Actor
	// Link is Run.Link.
	Link func(why error)
}

// Process is a command on a host. Its methods may be called concurrently.
//
// Of a command in a session Signal types Ctrl-C for INT and sends all others to what
// has the terminal, Input types, and eof types Ctrl-D. Cancel's report counts what it
// has ended as at least one, and is ALREADY_ENDED where the command's own end came
// first. Wait gives the end with Ending.Completion; an error SHELL_EXITED,
// SESSION_CLOSED, IDLE_TIMEOUT or LIFETIME_OVER tells that it went with its shell, and
// CONNECTION_LOST that nobody knows.
type Process interface {
	// Started is when the host had started it.
	Started() time.Time
	// Durability is how it lives there, and why not better.
	Durability() (command.Durability, string)
	// Wait blocks until it has ended and all its output was given to Run.Output. A
	// durable one goes on through lost connections until then. With a fault
	// OUTPUT_INCOMPLETE the exit is true, but output is missing; any other error
	// means that its outcome is unknown: CONNECTION_LOST (attached, or Close was
	// called), HOST_REBOOTED, RUN_REMOVED, SUPERVISOR_KILLED, SUPERSEDED.
	Wait() (command.Ending, error)
	// Signal sends one signal, by name without SIG, to its process group.
	Signal(ctx context.Context, name string) error
	// Cancel ends it and all its processes, and reports what proves it. An error
	// means that the host could not be asked; the ladder may run there all the same.
	Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error)
	// Input writes to its standard input and, with eof, closes it. It gives how
	// many bytes were taken from all calls.
	Input(ctx context.Context, data []byte, eof bool) (total int64, err error)
	// Collected tells that the end is stored: what the host keeps of it is removed,
	// some time soon. It does not block.
	Collected()
	// Close lets go of it without touching it; Wait then returns.
	Close() error
}

// terminalProcess is a Process on a terminal that outlives it: what it does not read of
// its input goes to the shell there, and somebody has typed it.
type terminalProcess interface {
	InputBy(ctx context.Context, by access.Caller, data []byte, eof bool) (total int64, err error)
}

// Meter counts what happens, for metrics.
type Meter interface {
	// Ended counts a command's end; ran is zero if it never started.
	Ended(state command.State, ran time.Duration)
	// Output counts bytes of output received.
	Output(bytes int)
}

type noMeter struct{}

func (noMeter) Ended(command.State, time.Duration) {}
func (noMeter) Output(int)                         {}
