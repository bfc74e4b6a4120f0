// Package store is the contract between telexec and what keeps its commands:
// their records, their output, the approvals they wait for, the request ids that
// make a repeated request harmless; its sessions with their recordings; the API keys
// of callers; and the audit of it all, written in the same step as what it tells. A driver (package sqlite)
// fulfils it; package storetest is the one suite that every driver passes. No SQL,
// and no word of a database, is spoken outside the drivers.
//
// A command lives in the store like this:
//
//	Create ─▶ record ──Apply──▶ record' ──Apply──▶ … ──▶ ended ──Retain──▶ trimmed ──▶ gone
//	            (compare-and-set on state and fence; output comes in the same step)
//
// What a driver keeps, besides what was written last:
//
//   - Spec, CreatedBy and CreateTime are written by Create and never changed, but
//     for a Spec that a Decide replaces; its RequestID stays.
//   - The values of Spec.Env and all of Spec.Stdin may be secret and are needed
//     only to start the command. They are sealed (package seal), so that no file of
//     the store shows them, and removed by the Apply that takes it beyond STARTING;
//     from then on Env has its names with empty values, and Stdin is nil.
//   - Spec.Redact is sealed too, and kept until the command has ended.
//   - Where what is sealed cannot be opened, since the key is another one now, the
//     command comes back without it, with Spec.SecretsLost, which is never stored.
//   - Spec.Sudo.Password is never written, not even for a moment: whatever is read
//     has none, and NeedsPassword tells that there was one.
//   - Earliest is the store's own: Apply leaves it alone, Retain raises it.
//   - A session has its Spec, CreatedBy and CreateTime from CreateSession for good;
//     its Viewers, Keyboard and Current are never stored. Its Nonce is sealed, and
//     comes back empty where it cannot be opened.
//   - Times are kept to the microsecond and given back in UTC; the zero time
//     stays zero. Strings are bytes: they need not be UTF-8. An empty slice or
//     map and a nil one are the same, and come back as nil.
package store

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/task"
)

// RequestIDLife is for how long after a command's CreateTime its request id
// names it.
const RequestIDLife = 24 * time.Hour

// TasksBytes is what a list of tasks may have before it ends early.
const TasksBytes = 4 << 20

// Store keeps everything. All methods may be called concurrently. Every write is
// durable when it returns nil: it survives kill -9 and loss of power.
//
// Errors are *fault.Error. Besides those that the methods name: Unavailable
// (STORE_UNAVAILABLE) when the store is closed or its disk fails, and then
// nothing of the call was stored; DataLoss (STORE_DAMAGED) when what is stored
// cannot be what was written; Cancelled or DeadlineExceeded when ctx ended
// first. A write whose ctx ends while it waits for its turn has not happened and
// never will; once its turn has come the error says that it may have happened,
// and the caller reads again.
type Store interface {
	Commands
	Approvals
	Sessions
	Tasks
	Audit
	access.KeyStore

	// Ping reports whether the store can write now.
	Ping(ctx context.Context) error

	// Close lets writes that were accepted finish and lets go of the files. Every
	// later call answers STORE_UNAVAILABLE at once. It may be called twice.
	Close() error
}

// Approvals keeps what commands wait for. An approval is made by Create and goes
// with its command.
type Approvals interface {
	// Decide takes all steps or none: of each the approval, the command's change
	// with its audit entries, and what is asked for from now on, where that is set.
	// It fails with Aborted when a stored approval has another version than the one
	// before its step's, with NotFound (UNKNOWN_APPROVAL) where a command has none,
	// or as Apply does. No two steps are of one command.
	Decide(ctx context.Context, steps []approval.Step) error

	// Approval gives the approval of a command, or NotFound (UNKNOWN_APPROVAL). A
	// damaged one is DataLoss (STORE_DAMAGED).
	Approval(ctx context.Context, commandID string) (approval.Approval, error)

	// Approvals gives those that the filter selects, newest first: by falling
	// command id. A damaged one is left out and logged. Its cost is that of the
	// rarest thing asked for, not of the history.
	Approvals(ctx context.Context, f approval.Filter) ([]approval.Approval, error)
}

// Sessions keeps sessions and their recordings.
//
//	CreateSession ─▶ record ──SaveSession──▶ record' ──…──▶ ended ──Retain──▶ gone
//	                    └─ AppendRecording, AppendRecording, …        with its recording
type Sessions interface {
	// CreateSession stores a new session with its audit entry. Its ID is a ULID of
	// CreateTime; its Spec.Name is not empty. It fails with AlreadyExists
	// (SESSION_EXISTS) while a session that has not ended has the
	// name: of many callers at once with one name, one succeeds.
	CreateSession(ctx context.Context, s session.Session, told audit.Entry) error

	// SaveSession replaces the record of a session, but for what CreateSession fixes,
	// and stores the audit entries with it. It fails with Aborted where the stored
	// version is not lower than s.Version, or where the stored session has ended and s
	// has not; with NotFound (UNKNOWN_SESSION).
	SaveSession(ctx context.Context, s session.Session, told ...audit.Entry) error

	// Session gives a session by its id, or by its name: the one that has not ended,
	// else the newest of that name. NotFound (UNKNOWN_SESSION); a damaged one is
	// DataLoss (STORE_DAMAGED).
	Session(ctx context.Context, ref string) (session.Session, error)

	// Sessions gives those that the filter selects, newest first: by falling id. A
	// damaged one is left out and logged. Its cost is that of the rarest thing asked
	// for, not of the history.
	Sessions(ctx context.Context, f session.Filter) ([]session.Session, error)

	// AppendRecording adds bytes to the recording of a session, also of one that has
	// ended. It fails with Aborted (metadata recording_bytes, which is where it ends)
	// where the recording does not end at offset, and with NotFound (UNKNOWN_SESSION). It is for bytes that were gathered: each call costs
	// one flush of the disk more than the others.
	AppendRecording(ctx context.Context, id string, offset int64, data []byte) error

	// ReadRecording gives the bytes of a recording from offset on: max of them, or fewer
	// where it ends; none, without an error, at or behind that end. It fails with
	// NotFound: NOT_RECORDED where nothing was ever added to it and the session is not
	// Recorded, UNKNOWN_SESSION where there is no session. A damaged one is DataLoss
	// (STORE_DAMAGED).
	ReadRecording(ctx context.Context, id string, offset int64, max int) ([]byte, error)
}

// Tasks keeps tasks and what has happened to them.
//
//	CreateTask ─▶ record + events ──SaveTasks──▶ record' + events' ──…──▶ ended ──Retain──▶ gone
type Tasks interface {
	// CreateTask stores a new task with its steps, runs and events, and what the audit is
	// told; of the change Runs and Steps are not looked at. Its ID is a ULID of CreateTime.
	//
	// With a Spec.RequestID that the same principal used within RequestIDLife it stores
	// nothing: if hash is the one given then, the task of that time comes back as it is
	// now, with created false; otherwise it fails with AlreadyExists (REQUEST_ID_REUSED,
	// metadata task_id).
	CreateTask(ctx context.Context, ch task.Change, hash []byte) (stored task.Task, created bool, err error)

	// ReplayTask gives the task that CreateTask would give, without storing one, for a
	// Spec.RequestID of a principal and hash at a time: as it is now. found is false where
	// CreateTask would store one.
	ReplayTask(ctx context.Context, principal, requestID string, hash []byte, now time.Time) (stored task.Task, found bool, err error)

	// SaveTasks takes all changes or none. Of each it replaces the record, but for what
	// CreateTask fixes, and the runs and steps that it names, and adds the events and what
	// the audit is told. It fails with Aborted where a stored version is not lower than
	// that of the change, or where the events do not follow those that are stored; with
	// NotFound (UNKNOWN_TASK). No two changes are of one task.
	SaveTasks(ctx context.Context, changes ...task.Change) error

	// Task gives a task, or NotFound (UNKNOWN_TASK). A damaged one is DataLoss
	// (STORE_DAMAGED).
	Task(ctx context.Context, id string) (task.Task, error)

	// Tasks gives those that the filter selects, newest first: by falling id. A damaged
	// one is left out and logged. Its cost is that of the rarest thing asked for, not of
	// the history, and of Offset.
	//
	// With a Limit it may give fewer than there are: it ends behind the second task, or
	// one after that, with which their command lines as they are shown, arguments, undo
	// lines, contexts and texts have more than TasksBytes together. The next ones are
	// Before the last.
	Tasks(ctx context.Context, f task.Filter) ([]task.Task, error)

	// TaskEvents gives the events of a task behind a sequence number, in their order, at
	// most limit; none, without an error, where there are none, or no such task.
	TaskEvents(ctx context.Context, id string, after int64, limit int) ([]task.Event, error)
}

// Audit keeps the chain of what was done. Entries come with what they tell of
// (Create, Apply, Decide, CreateSession, SaveSession, CreateTask, SaveTasks, AddKey, RevokeKey), or alone by Record; each has its
// place in the chain when the call returns. Nothing ever changes or removes one.
type Audit interface {
	// Record stores entries that tell of nothing else in the store.
	Record(ctx context.Context, told ...audit.Entry) error

	// AuditRows gives the rows that the filter selects, newest first. Its cost is
	// that of what is asked for, not of the chain.
	AuditRows(ctx context.Context, f audit.Filter) ([]audit.Row, error)

	// AuditChain gives at most limit rows behind the row with number after, in
	// their order and as they are: damaged ones too, and where one is missing the
	// next one. An entry whose columns beside its text do not tell the same comes
	// with a text that says so, which is not that of its hash.
	AuditChain(ctx context.Context, after int64, limit int) ([]audit.Row, error)

	// AuditHead gives the end of the chain as it was written last; of a store that is
	// new, number 0. DataLoss (STORE_DAMAGED) where its tag is not the service's, where
	// it is missing, for a store has one from its beginning on, and where it has number
	// 0 beside what only came with an entry. Rows may have been written behind it by
	// the time the chain is read.
	//
	// A store whose chain does not end at its head opens all the same, and logs it.
	// What is told from then on leaves the break in the chain where it is. What cannot
	// be noticed is a store that was put back as a whole, or replaced by a new one.
	AuditHead(ctx context.Context) (audit.Head, error)
}

// Commands keeps commands and their output.
type Commands interface {
	// Create stores a new command. Its state is QUEUED, AWAITING_APPROVAL, or
	// STARTING when it has been claimed already; its ID is a ULID of CreateTime.
	// What comes back is c itself, with Spec.Sudo.Password.
	//
	// gate is what it waits for where it is AWAITING_APPROVAL, else nil; told goes
	// into the audit. Both are stored with it or not at all.
	//
	// With a Spec.RequestID that the same principal used within RequestIDLife it
	// stores nothing: if hash is the one given then, the command of that time
	// comes back as it is now, with created false; otherwise it fails with
	// AlreadyExists (REQUEST_ID_REUSED, metadata command_id). hash stands for the
	// content of the request and is made by the caller.
	Create(ctx context.Context, c command.Command, hash []byte, gate *approval.Approval, told audit.Entry) (stored command.Command, created bool, err error)

	// Replay gives the command that Create would give for c and hash without
	// storing it; found is false where Create would store it. c needs CreatedBy,
	// CreateTime and Spec.RequestID.
	Replay(ctx context.Context, c command.Command, hash []byte) (stored command.Command, found bool, err error)

	// Apply takes a change whole or not at all. It fails with Aborted when the
	// stored state or fence is not the expected one, or the output does not begin
	// where the stored output ends; with NotFound (UNKNOWN_COMMAND) when there is
	// no such command; with Invalid when the output has a gap or an overlap in
	// itself, or Order is not within it. Its audit entries are stored with it.
	Apply(ctx context.Context, ch command.Change) error

	// Get gives a command, or NotFound (UNKNOWN_COMMAND).
	Get(ctx context.Context, id string) (command.Command, error)

	// List gives the commands that the filter selects, newest first: by falling
	// id. A damaged record is left out and logged. Its cost is that of the rarest
	// thing asked for, not of the history.
	List(ctx context.Context, f command.Filter) ([]command.Command, error)

	// Changes gives the commands that have changed behind the number after, in the
	// order of their last change, at most limit: each occurs once, as it is now. A
	// number is given by Create, Decide, and an Apply that changes the version, in the
	// order in which they are committed: once Changes has told one, none at or below
	// it comes later. Of a damaged record, which is logged, the Command has its ID
	// alone. What Retain has deleted is not told.
	Changes(ctx context.Context, after int64, limit int) ([]command.Changed, error)

	// LastChange gives the highest number that was ever given; 0 before the first. It
	// never falls, whatever Retain deletes and however often the store is opened.
	LastChange(ctx context.Context) (int64, error)

	// ReadOutput gives the stored bytes of a stream from offset on: max of them,
	// or fewer where the stored output ends; none, without an error, at or behind
	// that end. It fails with OutOfRange (OUTPUT_TRIMMED, metadata
	// earliest_offset) when retention has removed the byte at offset, and with
	// NotFound (UNKNOWN_COMMAND).
	ReadOutput(ctx context.Context, id string, stream command.Stream, offset int64, max int) ([]byte, error)

	// ReadOrder gives the stored waypoints of both streams (see command.Path) from the
	// last one at or before position on: max of them, or fewer where there are no more.
	// Those between bytes that retention has removed may be gone. It fails with NotFound
	// (UNKNOWN_COMMAND), and with DataLoss (STORE_DAMAGED).
	ReadOrder(ctx context.Context, id string, position int64, max int) ([]command.Sizes, error)

	// Retain does one round of retention, at most r.Batch commands, sessions and tasks
	// of it: it cuts output, deletes commands with all that belongs to them, sessions with
	// their recordings and tasks with their events, and forgets request ids older than RequestIDLife. The commands
	// of a session or a task go by their own ends. It works in small steps between which other
	// writes go on; after an error, Retained says what was done before it.
	Retain(ctx context.Context, r command.Retention) (command.Retained, error)
}
