package engine

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// What the journal gets of a command, and when. The owner never waits for the
// store but to claim a command, to take one over, and to end it: what must be
// durable before the next thing happens.

// flushDue has flush called as soon as what waits calls for it.
func (l *live) flushDue() {
	if l.log.UnsavedBytes() >= flushAt {
		l.flushIn(0)
	} else {
		l.flushIn(flushAfter)
	}
}

// flushIn has flush called in d at the latest, or when the next try is due
// where the last one failed.
func (l *live) flushIn(d time.Duration) {
	d = max(d, l.retry)
	due := time.Now().Add(d)
	if !l.flushBy.IsZero() && !due.Before(l.flushBy) {
		return
	}
	l.flushBy = due
	l.flushTimer.Reset(d)
}

// write is one write to the journal, and what came of it.
type write struct {
	cmd  command.Command // the record that was written
	size command.Sizes   // up to where its output goes
	told int             // how many of untold went with it
	err  error
	got  *command.Command // where err is set: what the journal has now, if it could be asked
}

// flush begins to store output and changes that the journal has not. The owner
// goes on meanwhile; wrote takes the outcome.
func (l *live) flush(ctx context.Context) {
	l.flushBy = time.Time{}
	if l.writing || l.superseded {
		return // wrote sees to the rest
	}
	chunks, order := l.log.Unsaved(flushMost)
	if len(chunks) == 0 && !l.unstored {
		return
	}
	l.writing = true
	l.unstored = false
	ch := l.changeOf(l.cmd, chunks, order)
	go func() { l.writes <- l.apply(ctx, ch) }()
}

// wrote takes the outcome of a write; it reports whether the journal has it.
func (l *live) wrote(w write) bool {
	l.writing = false
	l.engine.noteStore(w.err)
	if w.err != nil || w.cmd.Version != l.written {
		l.written = w.cmd.Version
		l.engine.feed.stir()
	}
	if w.err == nil || l.reconcile(w) {
		l.stored, l.storedFence, l.storedNode = w.cmd.State, w.cmd.Fence, w.cmd.Node
		l.untold = l.untold[w.told:]
		l.log.SavedTo(w.size)
		l.retry = 0
		if l.log.UnsavedBytes() > 0 || l.unstored {
			l.flushDue()
		}
		return true
	}
	l.unstored = true
	if l.superseded {
		return false
	}
	l.retry = min(max(2*l.retry, retryLeast), retryMost)
	l.engine.log.Warn("a command's output or state could not be stored", "command", l.id, "state", w.cmd.State, "retry_in", l.retry, "error", w.err)
	l.flushIn(l.retry)
	return false
}

// reconcile learns from what the journal has after a write that gave an error:
// it may have happened all the same, this one or one before it.
func (l *live) reconcile(w write) bool {
	if w.got == nil {
		return false
	}
	if l.foreign(w) {
		l.superseded = true
		return false
	}
	l.stored, l.storedFence, l.storedNode = w.got.State, w.got.Fence, w.got.Node
	l.log.SavedTo(w.got.Size)
	return w.got.State == w.cmd.State && w.got.Version == w.cmd.Version && w.got.Size == w.size
}

// foreign reports whether another owner has the command, or had it and has ended
// it.
func (l *live) foreign(w write) bool {
	before := w.got.Fence == l.storedFence && w.got.Node == l.storedNode
	after := w.got.Fence == w.cmd.Fence && w.got.Node == w.cmd.Node
	ended := w.got.Ended() && (w.got.State != w.cmd.State || w.got.Version != w.cmd.Version)
	return !before && !after || ended
}

// changeOf gives the change that takes the journal to c with chunks, which
// follow what it has, and their order.
func (l *live) changeOf(c command.Command, chunks []command.Chunk, order []command.Sizes) command.Change {
	c.Size = l.log.SavedSizes()
	for _, ch := range chunks {
		c.Size[ch.Stream] = ch.End()
		l.tallies[ch.Stream].feed(ch)
	}
	if at := l.lastOutput.Load(); at > c.LastActivity.UnixNano() {
		c.LastActivity = time.Unix(0, at)
	}
	return command.Change{From: l.stored, Fence: l.storedFence, Command: c, Output: chunks, Order: order, Audit: slices.Clone(l.untold)}
}

// apply makes one write, however long the store takes: a write that was given up
// half way would leave in doubt what the journal has. It touches nothing of the
// owner's.
func (l *live) apply(ctx context.Context, ch command.Change) write {
	ctx = context.WithoutCancel(ctx) // the last write survives the end of the owner's context
	w := write{cmd: ch.Command, size: ch.Command.Size, told: len(ch.Audit)}
	w.err = l.guard("store", func() error { return l.engine.journal.Apply(ctx, ch) })
	if w.err != nil {
		if got, err := l.engine.journal.Get(ctx, l.id); err == nil {
			w.got = &got
		}
	}
	return w
}

// persist stores c with all output that waits, again and again until the journal
// has them; after the end of ctx once more and no longer. Where another owner has
// the command it gives up at once.
func (l *live) persist(ctx context.Context, c command.Command) error {
	if l.writing {
		l.wrote(<-l.writes)
	}
	for {
		if l.superseded {
			return fault.New(fault.Aborted, fault.ReasonSuperseded, "another owner has the command")
		}
		last := ctx.Err() != nil
		chunks, order := l.log.Unsaved(math.MaxInt)
		w := l.apply(ctx, l.changeOf(c, chunks, order))
		if l.wrote(w) {
			l.unstored = false
			return nil
		}
		if last {
			return w.err
		}
		if l.superseded {
			continue
		}
		select {
		case <-time.After(l.retry):
		case <-ctx.Done():
		}
	}
}

// end stores how the command ended, with the last of its output, and then tells
// it to everyone. It reports whether the journal has it.
func (l *live) end(ctx context.Context, ev command.Event, f func(c *command.Command)) bool {
	l.log.Close()
	c := l.cmd
	if p, news := l.takeSeen(); news { // the last of it
		c.Progress = &p
	}
	advance(&c, ev, time.Now(), func(c *command.Command) {
		blank(&c.Spec)
		c.Spec.Redact = nil
		f(c)
	})
	c.Version++
	l.untold = append(l.untold, l.endTold(ctx, c))
	if err := l.persist(ctx, c); err != nil {
		if l.superseded {
			l.letGo(nil)
		} else {
			l.engine.log.Error("a command's end could not be stored; the next run of the service sees to it", "command", l.id, "state", c.State, "error", err)
		}
		return false
	}
	l.releaseSlot() // whoever is told of the end finds it free
	c.Size, _ = l.log.Sizes()
	l.mu.Lock()
	l.cmd = c
	l.process = nil
	l.mu.Unlock()
	l.tellEnd()
	return true
}

// tellEnd tells everyone of the end that the journal has.
func (l *live) tellEnd() {
	l.log.Close()
	l.log.Seal()
	l.announce()
	l.engine.meter.Ended(l.cmd.State, l.cmd.Duration(l.cmd.EndTime))
}

// endTold gives what the audit is told of the command's end as c is, with all its
// output.
func (l *live) endTold(ctx context.Context, c command.Command) audit.Entry {
	if l.writing {
		l.wrote(<-l.writes)
	}
	var told [len(command.Streams)]*audit.Output
	sizes, _ := l.log.Sizes()
	saved := l.log.SavedSizes()
	rest, _ := l.log.Unsaved(math.MaxInt)
	for _, s := range command.Streams {
		t := &l.tallies[s]
		// The journal has what an owner before has stored. Without it there is no digest.
		if err := t.catchUp(context.WithoutCancel(ctx), l.engine.journal, l.id, s, saved[s]); err != nil {
			l.engine.log.Warn("the output of a command could not be read for the audit", "command", l.id, "stream", s.String(), "error", err)
		}
		for _, chunk := range rest {
			if chunk.Stream == s {
				t.feed(chunk)
			}
		}
		told[s] = t.told(sizes[s])
	}
	return l.engine.ended(&c, told[command.Stdout], told[command.Stderr])
}

// abandon ends a command whose owner has failed with err.
func (l *live) abandon(ctx context.Context, err error) {
	if p := l.running(); p != nil {
		p.Close()
	}
	if l.cmd.State.Ended() {
		return
	}
	switch l.cmd.State {
	case command.AwaitingApproval:
		if l.withdraw(ctx, command.Reject, failed(err)); l.cmd.State == command.Queued { // somebody has approved it meanwhile
			l.end(ctx, command.StartFail, failed(err))
		}
	case command.Queued:
		l.end(ctx, command.StartFail, failed(err))
	default:
		l.end(ctx, command.Lose, failed(err))
	}
}
