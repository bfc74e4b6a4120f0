// Package command holds the words for a command: what was asked (Spec), what
// became of it (Command), how it ended (Exit), and its states with the pure
// table Next that says which may follow which. No I/O happens here, and nothing
// here knows of SSH, SQL or the wire.
//
// Start with State and Next, then Spec and Command.
package command

import (
	"maps"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/secret"
)

// Stream is one of the two output streams.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota
	Stderr
	streams // how many there are
)

// Streams lists both, for loops and array sizes.
var Streams = [streams]Stream{Stdout, Stderr}

// String gives "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Sizes holds a byte count or an offset per stream, indexed by Stream.
type Sizes [streams]int64

// Origin is the door a request came through. The strings are stored and shown.
type Origin string

// The origins.
const (
	OriginGRPC      Origin = "grpc"
	OriginREST      Origin = "rest"
	OriginWebSocket Origin = "websocket"
	OriginMCP       Origin = "mcp"
	OriginCLI       Origin = "cli"
	OriginWeb       Origin = "web"
)

// Origins lists all origins.
var Origins = []Origin{OriginGRPC, OriginREST, OriginWebSocket, OriginMCP, OriginCLI, OriginWeb}

// Actor is who asked, and through which door.
type Actor struct {
	Principal string
	Origin    Origin
}

// Durability is how a command lives on its host.
type Durability string

// The durabilities; the empty one in a Spec asks for the best there is.
const (
	Durable  Durability = "DURABLE"  // by itself; survives the connection
	Attached Durability = "ATTACHED" // on an SSH channel; ends with it
)

// Connection is whether the service sees a running command just now.
type Connection string

// The connections.
const (
	Connected    Connection = "CONNECTED"
	Reconnecting Connection = "RECONNECTING"
)

// Completion is how an end was recognised.
type Completion string

// The completions.
const (
	ByExitStatus Completion = "EXIT_STATUS"
	ByMark       Completion = "MARK"
	ByPrompt     Completion = "PROMPT"
	BySilence    Completion = "SILENCE"
)

// Pty asks for a pseudo-terminal. Zero sizes mean 80 by 24, an empty Term means
// xterm-256color.
type Pty struct {
	Term          string
	Columns, Rows uint32
}

// Sudo asks to run as another user, through sudo.
type Sudo struct {
	User string // empty: root
	// Password for sudo, where it asks for one. It is nowhere stored, so a command
	// that has waited through a restart of the service cannot be started any more
	// where NeedsPassword says that it had one.
	Password      secret.Text
	NeedsPassword bool // a password was given
}

// TaskRef says for which step of which task a command is.
type TaskRef struct {
	ID     string        // ULID of the task
	Step   int           // index of the step, from 0
	Name   string        // of the step
	Hosts  []string      // where the step runs, of the command that people decide about for all of them; else empty
	Places []string      // where the engine has found each of Hosts: its address and the way there
	Undo   string        // of that command: the line that takes the step back, which they see and approve with it
	Undoes bool          // this is that line
	Gate   time.Duration // for so long it waits for people, also where no rule asks for that; 0: as the rules say
	Under  string        // id of the command of this step, approved, that this one is approved with; empty: none
}

// Spec is what was asked for: everything that is needed to run it, and nothing
// about what became of it. A Spec that NewSpec accepted is valid; nobody checks
// it again. It is not changed after that.
type Spec struct {
	RequestID        string            // empty: not idempotent
	Host             string            // name of the host
	Session          string            // name of the session it runs in; empty: none
	SessionID        string            // ULID of that
	SessionOwner     string            // principal that opened it, whose affair the command is too
	Typed            int64             // it was typed in the session: number of its prompt; 0: it is to be typed
	Task             *TaskRef          // nil: it is no step of a task
	Line             string            // shell command line; empty with Argv
	Argv             []string          // arguments; empty with Line
	Stdin            []byte            // given at the start
	StdinOpen        bool              // more may come through Input
	Env              map[string]string // variables to set
	WorkingDirectory string            // empty: login directory
	LoginShell       bool              // run in the login shell, not /bin/sh
	Pty              *Pty              // nil: none
	Sudo             *Sudo             // nil: as the login user
	Timeout          time.Duration     // from its start; 0: none
	QueueTimeout     time.Duration     // in the queue; 0: the service's limit
	Priority         int               // higher first
	Durability       Durability        // empty: the best there is
	Labels           map[string]string
	ActionType       string
	Redact           []secret.Text // values to be masked in its output
	// SecretsLost says that the values of Env, Stdin and Redact could not be read from
	// the store, whose key is another one now: it cannot be started any more.
	SecretsLost bool
}

// EnvNames gives the sorted names of the variables.
func (s *Spec) EnvNames() []string { return slices.Sorted(maps.Keys(s.Env)) }

// Failure says why a command did not run to its own end. Reason is one of
// fault's.
type Failure struct {
	Reason, Message, Hint string
}

// Exit is how the host says a process ended: a code or a signal, never both.
type Exit struct {
	Code       *int   // nil where the host reported none; never filled in
	Signal     string // "KILL", without SIG
	CoreDumped bool
}

// Ending is all that the host says about the end of a command.
type Ending struct {
	Exit
	// TimedOut is the report of the ladder that the host itself ran when the
	// timeout had passed; nil: it did not pass there.
	TimedOut *CancelReport
	// Truncation tells what the host could not keep of the output; nil: nothing.
	Truncation *Truncation
	// Completion is how the end was recognised; empty: by an exit status. ByPrompt and
	// BySilence know of no exit code.
	Completion Completion
}

// Progress is what the output says about the command's progress. What was seen last
// stays when the command ends, as it was.
type Progress struct {
	Percent float64   // 0 to 100, cut to one decimal; falls where another phase begins
	Label   string    // what is being done, one line; empty where the output does not say it
	Time    time.Time // when it was seen
}

// Process is one process on a host.
type Process struct {
	PID     int64
	User    string
	Command string // cut at 256 bytes
	Why     string // why it is left; empty for one that is gone
}

// Outcome is what a cancel has come to.
type Outcome string

// The outcomes.
const (
	Gone         Outcome = "GONE"          // the host shows nothing is left
	AlreadyEnded Outcome = "ALREADY_ENDED" // nothing was done
	NeverStarted Outcome = "NEVER_STARTED" // and never will be
	Pending      Outcome = "PENDING"       // under way
	Left         Outcome = "LEFT"          // some could not be ended
	Unproven     Outcome = "UNPROVEN"      // the host cannot show what is left
)

// CancelReport is what was done to end a command and what proves it.
type CancelReport struct {
	Outcome  Outcome
	Signal   string // strongest needed: INT, TERM, KILL; empty for none
	Ended    int    // processes ended
	Left     []Process
	Duration time.Duration
	Message  string
}

// Cancellation is a cancel that was asked for. It is kept when the command's
// own end wins the race.
type Cancellation struct {
	By     Actor
	Time   time.Time
	Reason string
	// Grace is how long after Time its processes are killed; 0: at once. Of a later
	// cancel that is counted from Time too.
	Grace  time.Duration
	Report *CancelReport // nil while under way
}

// DefaultGrace is the grace of a cancel that asks for none.
const DefaultGrace = 500 * time.Millisecond

// Within gives n with the grace of a cancel that is asked for at now.
func (n Cancellation) Within(grace time.Duration, now time.Time) Cancellation {
	n.Grace = max(0, grace)
	if grace > 0 {
		n.Grace += max(0, now.Sub(n.Time))
	}
	return n
}

// GraceLeft is what is left of the grace at now for an owner that takes over: never
// more than all of it, whatever the clock says, and never less than the default
// unless less was asked for, since the owner before may not have sent a signal.
func (n Cancellation) GraceLeft(now time.Time) time.Duration {
	least := min(n.Grace, DefaultGrace)
	return min(max(least, n.Grace-now.Sub(n.Time)), n.Grace)
}

// Truncation tells from where on output was not kept; -1 where all was.
type Truncation struct {
	Offset Sizes
	Reason string
}

// Command is a command as it is: what was asked and what became of it. Values
// are passed by copy; pointers and maps in them are never changed after they
// were set, so a copy is a snapshot.
type Command struct {
	ID        string // ULID
	Version   int64  // grows with every change
	State     State
	Spec      Spec
	CreatedBy Actor

	CreateTime   time.Time
	StartTime    time.Time // zero before
	EndTime      time.Time // zero before
	LastActivity time.Time

	Exit             Exit
	Failure          *Failure // nil for Completed
	Completion       Completion
	Connection       Connection
	Durability       Durability
	DurabilityReason string
	Cancellation     *Cancellation
	Progress         *Progress
	Truncation       *Truncation
	Size             Sizes // bytes received
	Earliest         Sizes // first byte still stored
	StdinClosed      bool  // Input is refused from now on

	Rule  string // of the policy that let it in; empty: it came before there was one
	Gated bool   // a rule wants it approved before it runs

	// SessionOffset is where its output begins in that of its session, -1 until that is
	// known; 0 without a session.
	SessionOffset int64

	Node  string // node that owns it; empty while queued
	Fence int64  // grows with every change of owner
}

// CommandLine gives the command line for people: Line, or Argv quoted.
func (c *Command) CommandLine() string { return c.Spec.CommandLine() }

// Ended reports whether it has ended.
func (c *Command) Ended() bool { return c.State.Ended() }

// StdinOpen reports whether Input can still write to it: in a session that is to type.
func (c *Command) StdinOpen() bool {
	return !c.Ended() && !c.StdinClosed && (c.Spec.StdinOpen || c.Spec.Pty != nil || c.Spec.SessionID != "")
}

// Duration is how long it ran, or has run until now.
func (c *Command) Duration(now time.Time) time.Duration {
	switch {
	case c.StartTime.IsZero():
		return 0
	case !c.EndTime.IsZero():
		return max(0, c.EndTime.Sub(c.StartTime))
	}
	return max(0, now.Sub(c.StartTime))
}

// Chunk is a run of output bytes of one stream with its offset from the start
// of the stream. Data is never changed after it was made.
type Chunk struct {
	Stream Stream
	Offset int64
	Data   []byte
}

// End is the offset behind the chunk.
func (c Chunk) End() int64 { return c.Offset + int64(len(c.Data)) }
