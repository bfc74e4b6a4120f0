package chaos

import (
	"context"
	"slices"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// breaker does the damage. It belongs to the goroutine of the test, as do the
// service and the servers that it breaks.
type breaker struct {
	h      *harness
	done   []Fault
	undo   []undo
	reatt  []time.Duration // see Summary.Reattached
	late   int
	report func(Fault) // hears of each fault that is over
}

// undo ends a fault that lasts.
type undo struct {
	at    time.Duration
	fault Fault
	end   func()
}

// strike does all blows in their time, and undoes the last of them.
func (b *breaker) strike(ctx context.Context, blows []Blow) {
	for _, blow := range blows {
		b.undoUntil(ctx, blow.At)
		if !b.until(ctx, blow.At) {
			break
		}
		b.do(ctx, blow)
	}
	b.undoUntil(ctx, 1<<62)
}

// until waits for a time of the run.
func (b *breaker) until(ctx context.Context, at time.Duration) bool {
	return pause(ctx, at-b.h.now())
}

// undoUntil ends the faults whose time is over at a time of the run. Where ctx
// has ended it does not wait for theirs.
func (b *breaker) undoUntil(ctx context.Context, at time.Duration) {
	for len(b.undo) > 0 && b.undo[0].at <= at {
		u := b.undo[0]
		b.undo = b.undo[1:]
		b.until(ctx, u.at)
		u.end()
		b.over(u.fault)
	}
}

func (b *breaker) over(f Fault) {
	f.To = b.h.now()
	b.report(f)
	b.done = append(b.done, f)
}

// lasting notes a fault that end will end.
func (b *breaker) lasting(f Fault, d time.Duration, end func()) {
	b.undo = append(b.undo, undo{b.h.now() + d, f, end})
	slices.SortFunc(b.undo, func(x, y undo) int { return int(x.at - y.at) })
}

// busy reports whether a lasting fault of a host has not been undone.
func (b *breaker) busy(host string) bool {
	return slices.ContainsFunc(b.undo, func(u undo) bool { return u.fault.Host == host })
}

func (b *breaker) do(ctx context.Context, blow Blow) {
	h, f := b.h, Fault{Kind: blow.Kind, Host: blow.Host, From: b.h.now()}
	if f.Host != "" && b.busy(f.Host) {
		f.Kind = KillSessions // one thing at a time, but something
	}
	switch f.Kind {
	case KillService:
		running := b.running(ctx)
		h.env.Kill()
		pause(ctx, blow.For/8)
		spawned := h.now()
		h.env.Restart()
		b.over(f)
		b.reattached(ctx, running, spawned)
	case RestartService:
		h.env.Restart()
		b.over(f)
	case StopService:
		h.env.Signal(syscall.SIGSTOP)
		pause(ctx, blow.For)
		h.env.Signal(syscall.SIGCONT)
		b.over(f)
	case KillSessions:
		h.servers[f.Host].KillSessions()
		b.over(f)
	case StopSSHD:
		h.servers[f.Host].Stop()
		b.lasting(f, blow.For, h.servers[f.Host].Restart)
	case DropLink, DelayLink, FillDisk:
		b.lasting(f, blow.For, h.breakMachine(f.Kind, f.Host))
	}
}

// active lists the commands of this run that have not ended.
func (b *breaker) active(ctx context.Context) []*telexecv1.Command {
	resp, err := retry(ctx, b.h.commands.ListCommands, &telexecv1.ListCommandsRequest{
		Active: true, PageSize: 1000, Labels: map[string]string{"chaos": b.h.run},
		CreateTimeFrom: timestamppb.New(b.h.began.Add(-time.Minute)),
	})
	if err != nil {
		return nil
	}
	return resp.GetCommands()
}

// running gives the durable commands that run, on hosts that are well.
func (b *breaker) running(ctx context.Context) map[string]bool {
	ids := make(map[string]bool)
	for _, c := range b.active(ctx) {
		if c.GetState() == telexecv1.CommandState_COMMAND_STATE_RUNNING && c.GetDurability() == telexecv1.Durability_DURABILITY_DURABLE && !b.busy(c.GetHost()) {
			ids[c.GetId()] = true
		}
	}
	return ids
}

// attachLimit is how long the harness waits for commands to be connected again.
const attachLimit = 5 * time.Second

// reattached measures how long after the start of the service each of these
// commands was connected again, or over.
func (b *breaker) reattached(ctx context.Context, ids map[string]bool, spawned time.Duration) {
	b.reattachedWithin(ctx, ids, spawned, attachLimit)
}

func (b *breaker) reattachedWithin(ctx context.Context, ids map[string]bool, spawned, limit time.Duration) {
	for len(ids) > 0 && b.h.now()-spawned < limit {
		away := make(map[string]bool)
		for _, c := range b.active(ctx) {
			if c.GetConnection() != telexecv1.Connection_CONNECTION_CONNECTED {
				away[c.GetId()] = true
			}
		}
		for id := range ids {
			if !away[id] {
				b.reatt = append(b.reatt, b.h.now()-spawned)
				delete(ids, id)
			}
		}
		if !pause(ctx, 10*time.Millisecond) {
			return
		}
	}
	b.late += len(ids)
}
