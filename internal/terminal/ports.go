package terminal

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
)

// Shells starts shells on hosts, and finds again those that something keeps.
type Shells interface {
	// Open starts a shell, or, with Resume, takes up the one that was opened before
	// with the same ID. It gives a shell that runs; that it has shown its prompt is
	// seen in its output. NO_KEEPER where the host does not have what was asked for;
	// with Resume SESSION_GONE or HOST_REBOOTED where the shell is not there any more;
	// whatever else goes wrong is the connection's, and may be tried again.
	Open(ctx context.Context, s ShellSpec) (Shell, error)
}

// ShellSpec says what shell to open.
type ShellSpec struct {
	ID     string // ULID of the session
	Host   inventory.Host
	Shell  string // path or name; empty: the login shell
	Term   string // never empty
	Size   session.Size
	Keeper session.Keeper // empty: the best there is, or, with Resume, the one that has it
	Nonce  string         // of its marks
	Resume bool           // it was opened before: find it again
}

// Facts are what is known of a shell that was opened.
type Facts struct {
	Kind         string // bash, zsh, fish, dash, ash, ksh, mksh, sh; empty: there is no shell
	Path         string
	Marks        bool // it tells its prompts and the ends of commands
	Keeper       session.Keeper
	KeeperReason string // why nothing keeps it
	PID          int
	// Nested is the line that makes a shell tell marks which was started in this one;
	// empty where there is none.
	Nested string
	// Answers: what keeps it is a terminal itself, and answers what programs ask one, so
	// that nobody else may.
	Answers bool
	// Redraw, after Resume, is what makes a terminal that was reset look right.
	Redraw []byte
}

// Shell is a shell on a terminal of a host. One goroutine reads, one writes; the rest
// may be called at any time and concurrently.
type Shell interface {
	Facts() Facts
	// Read gives what it prints. io.EOF: the shell has ended, and Exit tells how;
	// CONNECTION_LOST: the connection is gone, and a shell that something keeps goes on.
	// Whoever does not read slows it.
	Read(p []byte) (int, error)
	// Write types. It may block for as long as the programs do not read; Close ends that.
	Write(p []byte) (int, error)
	Resize(size session.Size) error
	// Exit gives the exit code of a shell that has ended; nil where the host told none.
	Exit() *int
	// Foreground tells who has the terminal of the shell with this pid, which is the
	// shell itself, or one that was started in it.
	Foreground(ctx context.Context, shellPID int) (Foreground, error)
	// Ladder ends what is in the foreground of that shell's terminal, with its
	// descendants, by TERM and, when grace is over, KILL; never the shell.
	Ladder(ctx context.Context, shellPID int, grace time.Duration) (command.CancelReport, error)
	// End ends the shell and all that belongs to its session, and removes what the host
	// keeps of it.
	End(ctx context.Context) (command.CancelReport, error)
	// Sweep removes what the host keeps of a shell that has ended by itself. What that has
	// left in the background goes on.
	Sweep(ctx context.Context) error
	// Close lets go of it without touching a shell that something keeps. Read and Write
	// then return. It may be called twice.
	Close() error
}

// Signaller is a Shell that can send a signal, by name without SIG, to the foreground
// group of the terminal of the shell with this pid.
type Signaller interface {
	Signal(ctx context.Context, shellPID int, name string) error
}

// Foreground is who has a terminal.
type Foreground struct {
	Group     int
	Shell     bool // the shell itself: nothing runs
	Processes []command.Process
	// Nested is the kind of an interactive shell that waits in the foreground, "other"
	// for what has one elsewhere or cannot be known (ssh, su, docker); empty: none.
	Nested    string
	NestedPID int
	// Raw: the shell itself has the terminal, and takes keys as they are typed, as one
	// that edits lines does at its prompt and nowhere else.
	Raw bool
	// Lines: the same, but it is given whole lines, as what such a shell runs itself. Where
	// the host does not tell, neither is set.
	Lines bool
}

// Commands hears of what people type. The engine is it.
type Commands interface {
	// Typed makes a command of what was typed at a prompt of the session, and takes it
	// up by Terminals.Start with Spec.Typed, perhaps before it returns. An error means
	// that there is no such command; what was typed runs all the same.
	Typed(ctx context.Context, by access.Caller, s session.Session, number int64, line string) (id string, err error)
}

// Journal is the store as the sessions need it. Every write is durable when it returns
// nil.
type Journal interface {
	// CreateSession stores a new session; SESSION_EXISTS where one that has not ended
	// has the name.
	CreateSession(ctx context.Context, s session.Session, told audit.Entry) error
	// SaveSession stores a later version; fault.Aborted where the stored one is as late.
	SaveSession(ctx context.Context, s session.Session, told ...audit.Entry) error
	// Session gives a session by its id, or that of a name which has not ended, else the
	// latest of the name; UNKNOWN_SESSION where there is none.
	Session(ctx context.Context, ref string) (session.Session, error)
	// Sessions lists, newest first.
	Sessions(ctx context.Context, f session.Filter) ([]session.Session, error)
	// AppendRecording adds to the recording, of which it has offset bytes.
	AppendRecording(ctx context.Context, id string, offset int64, data []byte) error
	// ReadRecording gives bytes from offset on, at most max, and none at the end of what
	// there is; NOT_RECORDED where there is no recording.
	ReadRecording(ctx context.Context, id string, offset int64, max int) ([]byte, error)
	// Record tells the audit.
	Record(ctx context.Context, told ...audit.Entry) error
}

// Hosts knows the hosts by name.
type Hosts interface {
	// Lookup gives a host, or UNKNOWN_HOST.
	Lookup(name string) (inventory.Host, error)
	// List gives all hosts, in any order.
	List() []inventory.Host
}

// Run is what is needed to run a command in a session, or to take it up again.
type Run struct {
	ID   string
	Spec *command.Spec // SessionID says where; with Typed it runs already
	From command.Sizes // output that the caller has already
	// Output takes what the command prints, from From on, from one goroutine, all of it
	// as Stdout: a terminal has one stream. It copies data, and may block.
	Output func(s command.Stream, data []byte) error
	// Fits is asked right before it is typed, with what reads then published; an error,
	// which Start gives, means that it is not typed. nil: nobody asks. It does not block.
	Fits func() error
	// Began hears where its output begins in that of the session, once; nil: nobody asks.
	// It does not block.
	Began func(offset int64)
	// CancelledBy tells who asked for the cancel that Process.Cancel carries out; nil:
	// nobody known.
	CancelledBy func() command.Actor
	// Link hears when the connection of the session is lost, with the reason, and with
	// nil when it is back; nil: nobody asks. It does not block.
	Link func(why error)
}

// AttachOptions say how somebody wants to be attached.
type AttachOptions struct {
	Role       session.Role  // empty: Writer where the caller may type, else Observer
	Size       *session.Size // of its window; nil: it has none
	From       *int64        // go on at this offset where its bytes are still there; nil: the screen first
	Window     int           // bytes that may be on their way; 0: 256 KiB
	Scrollback int           // lines that come with a screen; below 0: 1000
	Label      string        // what the client calls itself
}

// EventKind is what an Event tells a viewer.
type EventKind uint8

// The kinds. The first is EventAttached, the last EventEnded.
const (
	EventAttached EventKind = iota // Session, Offset, Resumed
	EventScreen                    // Screen, which replaces all before it
	EventOutput                    // Offset, Data, which follows what came before
	EventSession                   // Session has changed
	EventCommand                   // the command CommandID was begun at Offset, or has ended there: Over
	EventTyped                     // Typist typed, who is somebody else
	EventEnded                     // Session is over
)

// Event is one thing that a viewer is told.
type Event struct {
	Kind      EventKind
	Session   *session.Session
	Screen    *Picture
	Offset    int64
	Data      []byte // good until the next one
	CommandID string
	Over      bool // of EventCommand
	Typist    *session.Viewer
	Resumed   bool
}

// Picture is a terminal as it is at one moment.
type Picture struct {
	Offset int64  // of the first byte of output behind it
	Data   []byte // what a terminal of this size, newly reset, must be given
	Size   session.Size
	Marks  []Mark
}

// Text is a screen as text.
type Text struct {
	Lines        []string // scrollback first; without trailing spaces
	Scrollback   int      // how many of them are scrollback
	CursorRow    int      // on the screen; 0 is the topmost
	CursorColumn int
	Alternate    bool // a full-screen program has the screen
	Session      session.Session
}

// KeyboardAction is what a viewer wants to do with the keyboard.
type KeyboardAction uint8

// The actions.
const (
	TakeKeyboard     KeyboardAction = iota + 1 // also from somebody who has it
	ReleaseKeyboard                            // anybody may type then
	HandOverKeyboard                           // to another writer
)
