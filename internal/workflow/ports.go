package workflow

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/task"
)

// Journal is the store as workflow needs it. Every write is durable when it returns nil.
// One that returns an error may have happened all the same; it is then read again.
type Journal interface {
	// CreateTask stores a new task, or gives the one that the same principal made with the
	// same request id and content within 24 hours (created is false).
	CreateTask(ctx context.Context, ch task.Change, hash []byte) (stored task.Task, created bool, err error)
	// ReplayTask gives what CreateTask would for that request id, and stores nothing; found is
	// false where it would make a new task.
	ReplayTask(ctx context.Context, principal, requestID string, hash []byte, now time.Time) (stored task.Task, found bool, err error)
	// SaveTasks takes all changes or none; fault.Aborted where a stored task is not the one
	// before.
	SaveTasks(ctx context.Context, changes ...task.Change) error
	// Task gives a task, or fault.NotFound (UNKNOWN_TASK).
	Task(ctx context.Context, id string) (task.Task, error)
	// Tasks gives tasks, newest first.
	Tasks(ctx context.Context, f task.Filter) ([]task.Task, error)
	// TaskEvents gives events behind a sequence number, at most limit.
	TaskEvents(ctx context.Context, id string, after int64, limit int) ([]task.Event, error)
}

// Commands runs the commands of steps.
type Commands interface {
	// Ready is closed when commands are taken, and those of the last run of the service
	// are known again.
	Ready() <-chan struct{}
	// Judge tells why a command would be refused now, or its host is not known; nil where
	// it would run, or wait for people.
	Judge(ctx context.Context, by access.Caller, spec command.Spec) error
	// NewID gives an id for Start.
	NewID() string
	// Start accepts a command under that id. When it returns nil, the command is stored and
	// will run, or waits for people; when it returns an error, Get tells whether it is.
	Start(ctx context.Context, by access.Caller, spec command.Spec, id string) (command.Command, error)
	// Get gives a command, or fault.NotFound (UNKNOWN_COMMAND).
	Get(ctx context.Context, id string) (command.Command, error)
	// Await gives a command as soon as its version is above that, which progress raises too,
	// or it has ended, or ctx is done, whose end is no error.
	Await(ctx context.Context, id string, version int64) (command.Command, error)
	// Cancel ends a command, and answers when that is proven, or after the grace.
	Cancel(ctx context.Context, by access.Caller, id string, c Cancel) error
}

// Hosts knows the hosts by name.
type Hosts interface {
	// Lookup gives a host, or fault.NotFound.
	Lookup(name string) (inventory.Host, error)
	// List gives all hosts, in any order.
	List() []inventory.Host
}
