// Package api answers the calls of telexec.v1: it turns a request into words of
// the domain (convert.go), asks the engine, and turns what it says into an
// answer.
//
//	Commands   CommandService:  run, watch, stop, list
//	Hosts      HostService:     which hosts there are and how they are
//	Sessions   SessionService:  shells on terminals that are shared
//	Events     EventService:    what happens to all commands and sessions
//	Approvals  ApprovalService: what waits for a person's yes, and the decisions
//	Policy     PolicyService:   what the rules would say
//	Admin      AdminService:    what this server is and how it does; API keys, audit
//
// A request that comes here is valid by the rules of the proto and has a
// caller in its context; rpcserver has seen to both, and makes the gRPC
// status of the faults returned here. What the engine and the hosts must offer
// is declared beside what asks for it; the program puts them together.
//
// The room is larger than most because it has a method for every call of the
// contract and, in convert.go, every field of it; each is short, and nothing is
// decided here but what an answer leaves out.
package api

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// Snapshot is a command at one moment.
type Snapshot struct {
	command.Command
	Queue    *QueuePlace        // nil unless it is queued
	Gate     *approval.Approval // nil unless it waits for approval
	Watchers int                // how many watch its output just now
}

// QueuePlace is where a queued command stands.
type QueuePlace struct {
	Position      int           // 1 is next for its host
	EstimatedWait time.Duration // 0: unknown
	WaitsFor      string        // "host" or "service": whose limit; "session": what runs there
}

// Engine runs commands. Its methods may be called concurrently. Each refuses what
// the caller may not do (ROLE_MISSING, ACCESS_DENIED, POLICY_DENIED).
type Engine interface {
	// Execute accepts a command durably and does not wait for its end. replayed:
	// an earlier request with the same id had made it. spec.Session is the name or the id
	// of the session; UNKNOWN_SESSION, SESSION_ENDED.
	Execute(ctx context.Context, by access.Caller, spec command.Spec, o ExecuteOptions) (s Snapshot, replayed bool, err error)
	// Await gives a command that one of the others has given, as soon as enough says so, or it has ended, or ctx is
	// done, which is not an error.
	Await(ctx context.Context, id string, enough func(Snapshot) bool) (Snapshot, error)
	// Get gives a command, or UNKNOWN_COMMAND.
	Get(ctx context.Context, by access.Caller, id string) (Snapshot, error)
	// List gives the commands that the caller may see, newest first.
	List(ctx context.Context, by access.Caller, f command.Filter) ([]Snapshot, error)
	// Cancel ends a command; a negative grace is the default one.
	Cancel(ctx context.Context, by access.Caller, id string, grace time.Duration, reason string) (Snapshot, command.CancelReport, error)
	// Signal sends one signal.
	Signal(ctx context.Context, by access.Caller, id, signal string) (Snapshot, error)
	// Input writes to standard input and gives how many bytes all calls wrote.
	Input(ctx context.Context, by access.Caller, id string, data []byte, eof bool) (total int64, err error)
}

// ExecuteOptions say how a command is taken; they are no part of what is asked for, so
// that a repeated request may differ in them.
type ExecuteOptions struct {
	RefuseBusy bool // where something runs in its session: SESSION_BUSY, and nothing is stored
}

// Typing knows what runs in sessions, by their names or ids. Its methods may be called
// concurrently, and refuse as those of Engine; UNKNOWN_SESSION.
type Typing interface {
	// Current gives the command that runs in a session, else its last; noTask where there
	// is none.
	Current(ctx context.Context, by access.Caller, ref string) (s Snapshot, noTask bool, err error)
	// CancelSession ends the command that runs in a session, whoever typed it; noTask
	// where none does. A negative grace is the default one.
	CancelSession(ctx context.Context, by access.Caller, ref string, grace time.Duration, reason string) (s Snapshot, report command.CancelReport, noTask bool, err error)
}

// Output reads what commands have printed.
type Output interface {
	// ReadOutput gives bytes of a command that Engine has given, from offset on, at most limit, and none at the end of
	// what there is.
	ReadOutput(ctx context.Context, id string, s command.Stream, offset int64, limit int) ([]byte, error)
	// Watch begins to watch a command; the caller closes the watcher.
	Watch(ctx context.Context, by access.Caller, id string, o WatchOptions) (Watcher, error)
}

// WatchOptions says what to watch.
type WatchOptions struct {
	From     command.Sizes              // first byte of each stream
	Position *int64                     // or of both, in the order in which they came; nil: From says it
	Follow   bool                       // go on until the command has ended
	Streams  [len(command.Streams)]bool // which; none means both
	Limit    int64                      // end after so many bytes; 0: none
}

// Watcher is one watcher of one command, for one goroutine.
type Watcher interface {
	// Next waits for the next event; io.EOF after EventEnded. After an error of
	// ctx it may be called again: nothing is lost.
	Next(ctx context.Context) (Event, error)
	// Offsets is how far each stream was told.
	Offsets() command.Sizes
	// Close ends the watch.
	Close()
}

// EventKind is what an Event tells.
type EventKind uint8

// The kinds. The first event is an EventCommand, the last two are EventComplete
// and EventEnded.
const (
	EventCommand  EventKind = iota // Snapshot changed
	EventChunk                     // Chunk came; at most 256 KiB
	EventGap                       // Gap is not stored any more
	EventComplete                  // all output was told
	EventEnded                     // Snapshot is the last word
)

// Event is one thing that a watcher is told.
type Event struct {
	Kind     EventKind
	Snapshot *Snapshot // nil of a chunk and of a gap
	Chunk    command.Chunk
	Position int64 // of Chunk's first byte in both streams, in the order in which they came
	Gap      Gap
}

// Gap is a run of bytes of a stream that are not stored any more.
type Gap struct {
	Stream   command.Stream
	From, To int64
}

// Load tells how busy the service is.
type Load interface {
	// Load tells how many commands run on a host and wait for it.
	Load(host string) (running, queued int)
	// Stats tells the same of the whole service.
	Stats() Stats
}

// Stats is how the service does.
type Stats struct {
	Running, Queued int
	Watchers        int // of the output of one command each
	EventWatchers   int // of what happens to all
	Draining        bool
}

// Inventory knows the hosts.
type Inventory interface {
	// List gives all hosts, in any order.
	List() []inventory.Host
	// Lookup gives a host, or UNKNOWN_HOST.
	Lookup(name string) (inventory.Host, error)
}

// Connections knows the connections to hosts.
type Connections interface {
	// Link tells about the connections to a host now.
	Link(host string) Link
	// Check connects to a host, looks around, and tells what it found, within the
	// host's ConnectTimeout. An error is a fault that says why the host cannot be
	// used.
	Check(ctx context.Context, h inventory.Host) (Finding, error)
}

// Link is how a host is connected.
type Link struct {
	Connections   int
	LastConnected time.Time        // zero: never since the start
	LastFailure   *command.Failure // nil when the last attempt worked
	LastFailed    time.Time        // zero without LastFailure
}

// Finding is what a check found.
type Finding struct {
	ServerVersion    string // "SSH-2.0-OpenSSH_9.2p1"
	HostKey          string // "SHA256:…"
	Durability       command.Durability
	DurabilityReason string // why it is not Durable
}

// caller gives who calls; the door has seen to it that somebody does.
func caller(ctx context.Context) access.Caller {
	by, _ := access.FromContext(ctx)
	return by
}

// invalid refuses a request because of one field.
func invalid(path, problem, format string, args ...any) *fault.Error {
	e := fault.New(fault.Invalid, fault.ReasonInvalidRequest, format, args...)
	e.Fields = []fault.Field{{Path: path, Message: problem}}
	return e
}
