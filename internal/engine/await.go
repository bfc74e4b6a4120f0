package engine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// What the owner of a command does while that waits for approval.
//
// Whoever holds Engine.deciding leaves what the journal has in gate and decided, and
// the owner makes it the command's own (takeDecision). Where the journal's answer to
// a write was lost and it cannot be read, the command is unsure, and nobody decides
// about it until the owner has made sure. untold has what the audit is still to get;
// tried is the end that was written with it, which may be stored though it was not
// answered for.

// approval gives what the command waits for; nil where it has decided or waits for
// nothing. Anyone may call it.
func (l *live) approval() *approval.Approval {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gate
}

// awaited gives what the command waits for and its record, the last that was
// decided; nil where it does not wait. Whoever holds deciding may call it.
func (l *live) awaited() (*approval.Approval, command.Command) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cmd
	if l.decided != nil {
		c = *l.decided
	}
	if c.State != command.AwaitingApproval || l.unsure {
		return nil, c
	}
	return l.gate, c
}

// decide leaves what the journal has for the owner to take up.
func (l *live) decide(gate approval.Approval, c command.Command) {
	l.mu.Lock()
	l.gate, l.decided = &gate, &c
	l.mu.Unlock()
	l.engine.feed.touch(l)
	l.kickOwner()
}

// takeDecision makes the last step the command's own. It reports whether there
// was one.
func (l *live) takeDecision() bool {
	l.mu.Lock()
	c := l.decided
	if c == nil {
		l.mu.Unlock()
		return false
	}
	l.decided = nil
	gate := l.gate
	l.cmd = l.merged(*c)
	l.mu.Unlock()
	l.stored, l.storedFence, l.storedNode = c.State, c.Fence, c.Node
	if l.tried != nil && gate.Same(l.tried) {
		l.untold = nil // they went with it
	}
	l.tried = nil
	if c.Ended() {
		l.tellEnd()
	}
	l.announce()
	return true
}

// awaitDecision waits until the command is approved. It reports whether it is in
// the queue; if not, it has ended or ctx has.
func (l *live) awaitDecision(ctx context.Context) bool {
	deadline := time.NewTimer(time.Until(l.approval().Deadline))
	defer deadline.Stop()
	if err := l.startable(); err != nil { // nobody need decide about what cannot run
		l.withdraw(ctx, command.Reject, failed(err))
		l.kickOwner() // to see what came of that
	}
	ready := l.sessionsReady()
	for {
		ev, why := command.Event(""), func(*command.Command) {}
		select {
		case <-ready:
			ready = nil
			l.kickOwner() // to see whether its session is there
		case <-l.kick:
			if !l.makeSure(ctx) {
				return false
			}
			l.takeDecision()
			if l.takeWishes() {
				ev, why = command.CancelledEnd, neverStarted
			} else if err := l.sessionOver(); ready == nil && err != nil { // nobody need decide about what cannot run
				ev, why = command.Reject, failed(err)
			}
		case <-deadline.C:
			ev, why = command.Expire, l.undecided
		case <-ctx.Done():
			return false
		}
		if ev != "" && l.cmd.State == command.AwaitingApproval && !l.withdraw(ctx, ev, why) {
			return false
		}
		switch {
		case l.cmd.Ended():
			l.tellLeft(ctx)
			return false
		case l.cmd.State == command.Queued && l.cmd.Cancellation != nil: // both at once
			l.end(ctx, command.CancelledEnd, neverStarted)
			return false
		case l.cmd.State == command.Queued:
			l.enqueueApproved()
			return true
		}
	}
}

// tellLeft tells the audit of cancels that came when the command had just ended.
func (l *live) tellLeft(ctx context.Context) {
	if len(l.untold) == 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer stop()
	if err := l.engine.journal.Record(ctx, l.untold...); err != nil {
		l.engine.log.Error("cancels of a command that had just ended could not be told to the audit", "command", l.id, "error", err)
	}
	l.untold = nil
}

// lastWrite is how long the last write about a command may take once the service
// stops.
const lastWrite = 5 * time.Second

func (l *live) undecided(c *command.Command) {
	gate := l.approval()
	c.Failure = &command.Failure{
		Reason:  fault.ReasonApprovalExpired,
		Message: fmt.Sprintf("%d of %d had approved it when its time was over", gate.Approvals(), gate.Count),
		Hint:    "Run it again, and tell a holder of " + strings.Join(gate.Roles, " or ") + " that it waits",
	}
}

// withdraw ends the command while it waits for approval, unless somebody has
// decided meanwhile. It reports false where neither could be stored before ctx
// ended; it is tried once after that as well, since a cancel was answered for.
func (l *live) withdraw(ctx context.Context, ev command.Event, f func(*command.Command)) bool {
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		last := ctx.Err() != nil
		err := l.tryWithdraw(ctx, ev, f)
		if err == nil || l.cmd.State != command.AwaitingApproval {
			return true
		}
		l.engine.log.Warn("the end of a command that waits for approval could not be stored", "command", l.id, "retry_in", pause, "error", err)
		if last {
			return false
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (l *live) tryWithdraw(ctx context.Context, ev command.Event, f func(*command.Command)) error {
	e := l.engine
	if ctx.Err() != nil {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
		defer stop()
	}
	if err := e.holdDecisions(ctx); err != nil {
		return err
	}
	defer e.releaseDecisions()
	ctx = context.WithoutCancel(ctx)
	if l.isUnsure() {
		if _, ok := l.reread(ctx); !ok {
			return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "what the store has of it is not known")
		}
	}
	if l.takeDecision(); l.cmd.State != command.AwaitingApproval {
		return nil
	}
	now := time.Now().Truncate(time.Microsecond)
	c := l.cmd
	advance(&c, ev, now, func(c *command.Command) {
		blank(&c.Spec)
		f(c)
	})
	c.Version++
	state := approval.Withdrawn
	switch ev {
	case command.Expire:
		state = approval.Expired
	case command.Reject:
		state = approval.Rejected
	}
	told := append(slices.Clone(l.untold), e.ended(&c, nil, nil))
	gate := l.approval().End(state, now)
	l.tried = &gate
	err := e.settle(ctx, []*live{l}, []approval.Step{{
		Approval: gate,
		Change:   command.Change{From: l.stored, Fence: l.storedFence, Command: c, Audit: told},
	}})
	l.takeDecision()
	return err
}

// enqueueApproved puts an approved command into the queue. Where its host is not
// configured any more, awaitSlot ends it.
func (l *live) enqueueApproved() {
	host, err := l.engine.hosts.Lookup(l.host)
	if err != nil {
		host.MaxCommands = 0
	}
	l.enqueue(&host, false) // who waited for approval is not refused a place
}

// stillApproved is why a command whose approval is over may not run after all:
// what would run is not what was approved. Of a store that does not answer it is
// asked again, until it does or ctx ends.
func (l *live) stillApproved(ctx context.Context, host *inventory.Host) error {
	if !l.cmd.Gated {
		return nil
	}
	gate, err := l.engine.journal.Approval(ctx, l.id)
	for pause := retryLeast; err != nil && fault.KindOf(err) == fault.Unavailable; pause = min(2*pause, retryMost) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		gate, err = l.engine.journal.Approval(ctx, l.id)
	}
	if err != nil {
		return err
	}
	asked := l.engine.request(access.Caller{}, &l.cmd.Spec, *host)
	if gate.State == approval.Approved && bytes.Equal(gate.Hash, boundHash(l.cmd.Spec.ContentHash(), *host, shellKind(&asked, &l.cmd.Spec))) {
		if l.session != "" {
			l.judged = &asked
		}
		return nil
	}
	return approvalVoid(host.Name)
}
