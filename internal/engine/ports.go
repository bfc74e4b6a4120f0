package engine

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/inventory"
)

// Journal is the store as the engine needs it. Every write is durable when it
// returns nil. One that returns an error may have happened all the same; the
// engine then reads again.
type Journal interface {
	// Create stores a new command, or gives the one that the same principal made
	// with the same request id and content within 24 hours (created is false).
	Create(ctx context.Context, c command.Command, contentHash []byte) (stored command.Command, created bool, err error)
	// Replay gives the command that Create would give for c without storing it;
	// found is false where it would store it.
	Replay(ctx context.Context, c command.Command, contentHash []byte) (stored command.Command, found bool, err error)
	// Apply takes a change whole or not at all; fault.Aborted where the stored
	// state or fence is not the expected one.
	Apply(ctx context.Context, ch command.Change) error
	Get(ctx context.Context, id string) (command.Command, error)
	List(ctx context.Context, f command.Filter) ([]command.Command, error)
	// ReadOutput gives stored bytes from offset on, at most limit.
	ReadOutput(ctx context.Context, id string, s command.Stream, offset int64, limit int) ([]byte, error)
	// Ping reports whether the store can write now, by writing.
	Ping(ctx context.Context) error
	// Retain does one round of retention.
	Retain(ctx context.Context, r command.Retention) (command.Retained, error)
}

// Hosts knows the hosts by name.
type Hosts interface {
	// Lookup gives a host, or fault.NotFound.
	Lookup(name string) (inventory.Host, error)
}

// Runner starts commands on hosts.
type Runner interface {
	// Start starts a command and returns when the host has reported its start.
	// While nothing was sent to the host, the end of ctx ends the attempt with
	// fault.Cancelled; after that ctx is not heeded. A fault CONNECTION_LOST or
	// NO_EXIT_STATUS means that it may have started; every other error means that
	// it did not.
	Start(ctx context.Context, r Run) (Process, error)
	// Sweep ends what the host still has of a command that nobody holds a Process
	// of, found by its mark.
	Sweep(ctx context.Context, id string, host inventory.Host, grace time.Duration) (command.CancelReport, error)
}

// Run is what a Runner needs to start a command.
type Run struct {
	ID   string
	Host inventory.Host
	Spec *command.Spec
	// Output takes what the command prints, each stream from one goroutine. It
	// copies data, and blocks while the store is behind.
	Output func(s command.Stream, data []byte) error
}

// Process is a command on a host. Its methods may be called concurrently.
type Process interface {
	// Started is when the host had started it.
	Started() time.Time
	// Durability is how it lives there, and why not better.
	Durability() (command.Durability, string)
	// Wait blocks until it has ended and all its output was given to Run.Output.
	// With a fault OUTPUT_INCOMPLETE the exit is true, but output is missing; any
	// other error means that its outcome is unknown.
	Wait() (command.Exit, error)
	// Signal sends one signal, by name without SIG, to its process group.
	Signal(ctx context.Context, name string) error
	// Cancel ends it and all its processes, and reports what proves it.
	Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error)
	// Input writes to its standard input and, with eof, closes it. It gives how
	// many bytes were taken from all calls.
	Input(ctx context.Context, data []byte, eof bool) (total int64, err error)
	// Close lets go of it without touching it; Wait then returns.
	Close() error
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
