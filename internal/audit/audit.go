// Package audit holds the words for what is told about who did what: an Entry is
// one thing that happened, a Row is an Entry in its place in the chain.
//
// Every row carries the SHA-256 of the row before it and of itself:
//
//	row n:  hash = SHA-256( hash of row n-1 ‖ text of the entry )
//
// where the text is the entry as JSON, kept as it was written. So a row that is
// changed, removed, added or moved breaks the chain at its place, and anybody can
// check an export with a few lines of any language. The end of the chain is kept
// apart, with a tag that only the holder of the service's key can make: a chain
// that was cut short or written anew from some row on does not end there.
//
// The chain is made by the store, in the transaction that changes what the entry
// tells of. Nothing here does I/O: Chain makes a row, and a Checker checks rows.
package audit

import (
	"crypto/sha256"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// Kind is what an entry tells of. The strings are stored and shown.
type Kind string

// The kinds.
const (
	CommandAccepted Kind = "command.accepted" // a command was accepted; Decision says how
	CommandEnded    Kind = "command.ended"    // Outcome is its last state
	CommandCancel   Kind = "command.cancel"   // somebody asked to end it
	CommandSignal   Kind = "command.signal"   // somebody sent it a signal
	CommandInput    Kind = "command.input"    // somebody wrote to its standard input
	SessionOpened   Kind = "session.opened"   // a shell was started on a host
	SessionTyped    Kind = "session.typed"    // somebody began to type in it
	SessionKeyboard Kind = "session.keyboard" // the keyboard was taken or handed over; Detail says to whom
	SessionClose    Kind = "session.close"    // somebody asked to close it
	SessionEnded    Kind = "session.ended"    // Reason says why
	TaskSubmitted   Kind = "task.submitted"   // somebody has submitted a plan
	TaskCancel      Kind = "task.cancel"      // somebody asked to cancel it, or its undo
	TaskUndo        Kind = "task.undo"        // somebody, or a step that says so, asked to undo it; Detail says what of it
	TaskEnded       Kind = "task.ended"       // Outcome is its state
	ApprovalDecided Kind = "approval.decided" // Outcome is the verdict
	Refused         Kind = "refused"          // a call was refused; Reason says why
	Login           Kind = "login"            // a browser was given a cookie
	Logout          Kind = "logout"           // a browser gave it back
	TokenCreated    Kind = "token.created"    // an API key was made
	TokenRevoked    Kind = "token.revoked"    // and taken back
	PolicyLoaded    Kind = "policy.loaded"    // rules came into force
	ServiceStarted  Kind = "service.started"  // the service began to take commands
	ServiceStopped  Kind = "service.stopped"  // and took no more
)

// Kinds lists all kinds.
var Kinds = []Kind{
	CommandAccepted, CommandEnded, CommandCancel, CommandSignal, CommandInput,
	SessionOpened, SessionTyped, SessionKeyboard, SessionClose, SessionEnded,
	TaskSubmitted, TaskCancel, TaskUndo, TaskEnded,
	ApprovalDecided, Refused, Login, Logout, TokenCreated, TokenRevoked,
	PolicyLoaded, ServiceStarted, ServiceStopped,
}

// Bounds of what one entry holds.
const (
	// MaxCommand is how many bytes of a command line an entry shows; its request
	// hash stands for all of it.
	MaxCommand = 4096
	// MaxDetail is how many bytes of a text from outside an entry shows.
	MaxDetail = 1024
)

// Entry is one thing that happened. What does not apply is empty. Secrets are
// never in one.
type Entry struct {
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`

	// Who, from where, through which door, in which call.
	Principal string `json:"principal,omitempty"`
	Origin    string `json:"origin,omitempty"`
	Address   string `json:"address,omitempty"` // IP address of the caller
	Call      string `json:"call,omitempty"`    // id of the call, as in the log
	Method    string `json:"method,omitempty"`  // of a refused call: "CommandService/Execute", "POST /login"

	// What.
	CommandID   string `json:"command_id,omitempty"`
	Session     string `json:"session,omitempty"` // ULID of the session that it is about, or in which the command runs
	Task        string `json:"task,omitempty"`    // ULID of the task that it is about, or of which the command is a step
	Host        string `json:"host,omitempty"`
	Command     string `json:"command,omitempty"` // the line, at most MaxCommand bytes
	SudoUser    string `json:"sudo_user,omitempty"`
	RequestHash []byte `json:"request_hash,omitempty"` // SHA-256 of the whole request
	Subject     string `json:"subject,omitempty"`      // of other kinds: what was acted on, such as the principal of a token

	// Why it might.
	Decision string `json:"decision,omitempty"` // allow, deny, require_approval; "typed" where no rule was asked; of ApprovalDecided the approval's state from then on
	Rule     string `json:"rule,omitempty"`     // that decided it

	// What came of it.
	Outcome  string  `json:"outcome,omitempty"` // state of a command, verdict of an approval
	Reason   string  `json:"reason,omitempty"`  // stable, as in errors
	Detail   string  `json:"detail,omitempty"`  // for people, at most MaxDetail bytes
	ExitCode *int    `json:"exit_code,omitempty"`
	Signal   string  `json:"signal,omitempty"` // that ended it, or was sent
	Stdout   *Output `json:"stdout,omitempty"`
	Stderr   *Output `json:"stderr,omitempty"`
	Count    int     `json:"count,omitempty"` // how many alike it stands for; 0 is one
}

// Output tells of a stream of a command that has ended.
type Output struct {
	Size   int64  `json:"size"`             // bytes received
	Digest []byte `json:"sha256,omitempty"` // of all of them; empty where some were not stored
	Head   []byte `json:"head,omitempty"`
	Tail   []byte `json:"tail,omitempty"` // behind Head; empty where Head has all
}

// Hash is a link of the chain.
type Hash [sha256.Size]byte

// Row is an entry in its place. Text is what the hash is of.
type Row struct {
	Seq  int64 // 1 is the first
	Prev Hash  // of the row before; zero for the first
	Hash Hash
	Text []byte // the entry as JSON
}

// Chain makes the row that follows a row with number seq and hash prev; 0 and the
// zero hash for the first. It cannot fail: an entry can always be written. Bytes
// that are no UTF-8 are written as U+FFFD, a year that JSON cannot have as 1970.
func Chain(seq int64, prev Hash, e Entry) Row {
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	e.Command, e.Detail = cut(e.Command, MaxCommand), cut(e.Detail, MaxDetail)
	text, err := json.Marshal(e)
	if err != nil { // a year beyond 9999; the clock is wrong, the rest is not
		e.Time = time.Unix(0, 0).UTC()
		text, _ = json.Marshal(e)
	}
	return Row{Seq: seq + 1, Prev: prev, Hash: link(prev, text), Text: text}
}

func link(prev Hash, text []byte) Hash {
	h := sha256.New()
	h.Write(prev[:])
	h.Write(text)
	return Hash(h.Sum(nil))
}

// cut gives at most n bytes of s as UTF-8, with an ellipsis where it was longer.
// What JSON would write for a byte that is no UTF-8 is longer than the byte, so it
// counts as what is written.
func cut(s string, n int) string {
	s = string([]rune(s[:min(len(s), n+1)]))
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// Entry gives what the row tells.
func (r Row) Entry() (Entry, error) {
	var e Entry
	err := json.Unmarshal(r.Text, &e)
	return e, err
}

// Head is the end of a chain: the number and hash of its last row.
type Head struct {
	Seq  int64
	Hash Hash
}

// Filter selects rows for a list, newest first. The zero value selects all; all
// that is set must match.
type Filter struct {
	Kinds     []Kind
	Principal string
	Host      string
	CommandID string
	From, To  time.Time // From inclusive, To exclusive
	Before    int64     // only rows with a number below; 0: all
	Limit     int       // at most so many; 0: no limit
}
