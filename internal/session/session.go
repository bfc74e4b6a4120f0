// Package session holds the words for a session: a named, lasting shell on a host, on
// a terminal that people and agents share. What was asked for (Spec), how it is
// (Session), who is there (Viewer), and its states with the pure table Next. No I/O
// happens here, and nothing here knows of SSH, SQL or the wire.
//
// Start with State and Next, then Session.
package session

import (
	"slices"
	"time"

	"github.com/telexec/telexec/internal/command"
)

// State is where a session is in its life. The strings are stored and shown.
type State string

// The states, each with the states that may follow.
const (
	Opening State = "OPENING" // → Open, Closing, Ended
	Open    State = "OPEN"    // → Closing, Ended
	Closing State = "CLOSING" // → Ended
	Ended   State = "ENDED"   // end; Session.End says why
)

// States lists all states in the order of a life.
var States = []State{Opening, Open, Closing, Ended}

// Event is what can happen to a session.
type Event string

// The events.
const (
	ShellReady Event = "shell_ready" // the shell has shown its prompt, or is there without one
	OpenFail   Event = "open_fail"   // there is no shell, and never was
	Close      Event = "close"       // somebody, or a time-out, wants it closed
	ShellGone  Event = "shell_gone"  // the shell is gone, or cannot be reached any more
)

// Events lists all events.
var Events = []Event{ShellReady, OpenFail, Close, ShellGone}

// Next is the whole state machine: the state that follows s when e happens. It is
// pure. ok is false where e cannot happen in s; the state is then s.
func Next(s State, e Event) (next State, ok bool) {
	switch e {
	case ShellReady:
		if s == Opening {
			return Open, true
		}
	case OpenFail:
		if s == Opening || s == Closing {
			return Ended, true
		}
	case Close:
		if s == Opening || s == Open {
			return Closing, true
		}
	case ShellGone:
		if s != Ended {
			return Ended, true
		}
	}
	return s, false
}

// Keeper is what keeps a shell while there is no connection to its host. The
// strings are stored and shown.
type Keeper string

// The keepers; the empty one in a Spec asks for the best there is.
const (
	KeptByNone   Keeper = "NONE" // the shell ends with its connection
	KeptByTmux   Keeper = "TMUX"
	KeptByScreen Keeper = "SCREEN"
	KeptByDtach  Keeper = "DTACH"
)

// Size is the size of a terminal in characters.
type Size struct{ Columns, Rows int }

// DefaultSize is that of a terminal of which none was asked for.
var DefaultSize = Size{Columns: 80, Rows: 24}

// Spec is what was asked for. It is not changed after that.
type Spec struct {
	Name        string // never empty once it is opened
	Host        string // name of the host
	Shell       string // path or name; empty: the login shell
	Term        string // empty: xterm-256color
	Size        Size   // zero: DefaultSize
	Keeper      Keeper // empty: the best there is
	IdleTimeout time.Duration
	Labels      map[string]string
}

// Session is a session as it is. Values are passed by copy; pointers, slices and maps
// in them are never changed after they were set, so a copy is a snapshot.
type Session struct {
	ID        string // ULID
	Version   int64  // grows with every change
	State     State
	Spec      Spec // Size as it was asked for; see Session.Size
	CreatedBy command.Actor

	CreateTime   time.Time
	OpenTime     time.Time // zero before
	EndTime      time.Time // zero before
	LastActivity time.Time // output, input or a command
	ExpireTime   time.Time // zero: never

	Shell        string // as it was recognised: bash, zsh, fish, dash, ash, ksh, mksh, sh; empty: none
	Completion   command.Completion
	Keeper       Keeper // empty until it has opened
	KeeperReason string // why nothing keeps it
	Connection   command.Connection

	Size   Size
	Title  string
	Output int64            // where its output ends; more than was printed where the service was killed
	End    *command.Failure // nil before the end
	Exit   *int             // code of the shell, where the host reported one; never filled in

	// For the next run of the service; nobody outside is told.
	Nonce string // of its shell's marks
	Sole  bool   // something runs for sure and nothing was typed behind it: the next end that a mark tells is its own

	Recorded  bool
	Truncated *int64 // where the recording ends before the output does; nil: it has all of it

	// Of a session that has not ended, and not stored:
	Viewers  []Viewer
	Keyboard string // id of the viewer who has it; empty: nobody
	Current  string // id of the command that runs; empty: none
}

// Ended reports whether it is over.
func (s *Session) Ended() bool { return s.State == Ended }

// Role is what a viewer may do. The strings are shown.
type Role string

// The roles.
const (
	Observer Role = "OBSERVER" // sees everything and types nothing
	Writer   Role = "WRITER"   // may type, when it has the keyboard or nobody has
)

// Viewer is somebody who is attached.
type Viewer struct {
	ID        string
	Actor     command.Actor
	Role      Role
	Label     string // what the client calls itself
	Since     time.Time
	LastInput time.Time // zero: never
	Behind    bool      // it is waited for
}

// Key is text to type, or one key by its name; see package terminal for the names.
type Key struct{ Text, Name string }

// Filter selects sessions, newest first. What is zero selects everything.
type Filter struct {
	States    []State
	Host      string
	Principal string
	Name      string
	Visible   *command.Visible // who asks may see no others; nil: everything
	Before    string           // ids below this one; empty: all
	Limit     int              // above 0
}

// Has reports whether a session is selected, whatever Before and Limit say.
func (f Filter) Has(s *Session) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, s.State)) &&
		(f.Host == "" || f.Host == s.Spec.Host) &&
		(f.Principal == "" || f.Principal == s.CreatedBy.Principal) &&
		(f.Name == "" || f.Name == s.Spec.Name) &&
		(f.Visible == nil || f.Visible.Principal == s.CreatedBy.Principal || slices.Contains(f.Visible.Hosts, s.Spec.Host))
}
