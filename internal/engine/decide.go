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
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
)

// A command that a rule wants approved waits with an owner of its own, which sees
// to its deadline and to a cancel. It is changed while it waits by whoever holds
// Engine.deciding: a decider, who may decide about several at once, or its owner.
// So one of them wins; the journal compares versions besides, for other nodes.
//
//	Execute ──▶ AWAITING_APPROVAL ──Decide──▶ QUEUED ──slot──▶ is it still what was approved? ──▶ STARTING
//	                 │  owner: deadline, cancel                        └─ no ──▶ REJECTED (APPROVAL_VOID)
//	                 ▼
//	        REJECTED, EXPIRED, CANCELLED

// newGate gives the approval that a new command waits for.
func newGate(by access.Caller, c *command.Command, said policy.Decision, host inventory.Host) *approval.Approval {
	return &approval.Approval{
		CommandID: c.ID, Version: 1, State: approval.Pending,
		Rule: said.Rule, Count: said.Gate.Count, Roles: said.Gate.Roles, AllowSelf: said.Gate.AllowSelf,
		Deadline:  c.CreateTime.Add(said.Gate.Timeout),
		Requester: c.CreatedBy, RequesterRoles: by.RoleNames(), Host: host.Name, Target: host.User + "@" + host.Address, Command: c.CommandLine(),
		Revision: 1, Author: c.CreatedBy, Hash: boundHash(&c.Spec, host),
		CreateTime: c.CreateTime,
	}
}

// Approval is an approval with what is known of its command, as one caller sees it.
type Approval struct {
	approval.Approval
	Snapshot Snapshot
	May      error // why the caller may not decide it now; nil: it may
}

// gateOf gives the approval of a command.
func (e *Engine) gateOf(ctx context.Context, id string) (approval.Approval, error) {
	if l := e.find(id); l != nil {
		if gate := l.approval(); gate != nil {
			return *gate, nil
		}
	}
	return e.journal.Approval(ctx, id)
}

func decider(by access.Caller) approval.Decider {
	return approval.Decider{Actor: by.Actor(), Address: by.Address, Roles: by.RoleNames()}
}

// Approval gives one approval to a caller who may see its command.
func (e *Engine) Approval(ctx context.Context, by access.Caller, id string) (Approval, error) {
	s, err := e.Get(ctx, by, id)
	if err != nil {
		if fault.ReasonOf(err) == fault.ReasonUnknownCommand {
			err = noApproval(id)
		}
		return Approval{}, err
	}
	gate, err := e.gateOf(ctx, id)
	if err != nil {
		return Approval{}, err
	}
	return e.approvalFor(by, gate, s), nil
}

func noApproval(id string) error {
	return fault.New(fault.NotFound, fault.ReasonUnknownApproval, "nothing waits or has waited for approval under %s", id).
		WithHint("telexec approvals lists what waits").With("command_id", id)
}

func (e *Engine) approvalFor(by access.Caller, gate approval.Approval, s Snapshot) Approval {
	return Approval{Approval: gate, Snapshot: s, May: gate.May(decider(by))}
}

// Approvals gives approvals that the caller may see, newest first, at most limit,
// and whether there may be more behind the last one looked at, whose command id is
// next. mine leaves out what the caller may not decide now.
func (e *Engine) Approvals(ctx context.Context, by access.Caller, f approval.Filter, mine bool) (list []Approval, next string, err error) {
	stored, err := e.journal.Approvals(ctx, f)
	if err != nil {
		return nil, "", err
	}
	for _, gate := range stored {
		s, err := e.Get(ctx, by, gate.CommandID)
		switch fault.ReasonOf(err) {
		case "":
		case fault.ReasonAccessDenied, fault.ReasonUnknownCommand, fault.ReasonRoleMissing:
			continue // not the caller's, or removed meanwhile
		case fault.ReasonStoreDamaged:
			e.log.Error("a command that waits for approval cannot be read; it is left out", "command", gate.CommandID, "error", err)
			continue
		default:
			return nil, "", err
		}
		if gate, err = e.gateOf(ctx, gate.CommandID); err != nil {
			continue
		}
		if a := e.approvalFor(by, gate, s); !mine || a.May == nil {
			list = append(list, a)
		}
	}
	if f.Limit > 0 && len(stored) == f.Limit {
		next = stored[len(stored)-1].CommandID
	}
	return list, next, nil
}

// Decide takes all decisions or none. UNKNOWN_APPROVAL, ALREADY_DECIDED,
// NOT_YOUR_DECISION, REQUEST_CHANGED or POLICY_DENIED name the command that is in
// the way.
func (e *Engine) Decide(ctx context.Context, by access.Caller, ballots []approval.Ballot) ([]Approval, error) {
	// Who may decide is said by the rule that asked, not by a role of its own.
	if err := e.holdDecisions(ctx); err != nil {
		return nil, err
	}
	defer e.releaseDecisions()
	lives := make([]*live, len(ballots))
	steps := make([]approval.Step, len(ballots))
	now := time.Now()
	for i, d := range ballots {
		if slices.ContainsFunc(ballots[:i], func(other approval.Ballot) bool { return other.CommandID == d.CommandID }) {
			return nil, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "two decisions are about the command %s", d.CommandID).
				WithHint("Decide once about each").With("command_id", d.CommandID)
		}
		var err error
		if lives[i], steps[i], err = e.decision(ctx, by, d, now); err != nil {
			return nil, err
		}
	}
	// What was begun is not left half way: the writes are whole, and so is what
	// follows from them.
	ctx = context.WithoutCancel(ctx)
	if err := e.takeSteps(ctx, steps); err != nil {
		return nil, err
	}
	list := make([]Approval, len(steps))
	for i, step := range steps {
		lives[i].decide(step)
		list[i] = e.approvalFor(by, step.Approval, Snapshot{Command: step.Change.Command})
	}
	return list, nil
}

// holdDecisions waits until nobody else changes what waits for approval.
func (e *Engine) holdDecisions(ctx context.Context) error {
	select {
	case e.deciding <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *Engine) releaseDecisions() { <-e.deciding }

// takeSteps stores steps. After an error of the journal it looks whether they were
// stored all the same.
func (e *Engine) takeSteps(ctx context.Context, steps []approval.Step) error {
	err := e.journal.Decide(ctx, steps)
	e.noteStore(err)
	if err == nil {
		return nil
	}
	if fault.KindOf(err) == fault.Aborted {
		return fault.Wrap(err, fault.Aborted, fault.ReasonRequestChanged, "somebody else has decided meanwhile").
			WithHint("Read the approvals again")
	}
	first := steps[0].Approval
	if got, getErr := e.journal.Approval(ctx, first.CommandID); getErr == nil && got.Version == first.Version &&
		len(got.Decisions) == len(first.Decisions) && got.State == first.State {
		return nil // all or none were
	}
	return err
}

// decision gives what one decision leads to. e.deciding is held.
func (e *Engine) decision(ctx context.Context, by access.Caller, d approval.Ballot, now time.Time) (*live, approval.Step, error) {
	none := approval.Step{}
	if _, err := e.Get(ctx, by, d.CommandID); err != nil {
		if fault.ReasonOf(err) == fault.ReasonUnknownCommand {
			err = noApproval(d.CommandID)
		}
		return nil, none, err
	}
	l := e.find(d.CommandID)
	var gate *approval.Approval
	var c command.Command
	if l != nil {
		gate, c = l.awaited()
	}
	if gate == nil { // it has none, or all is decided
		gate, err := e.gateOf(ctx, d.CommandID)
		if err == nil {
			err = gate.May(decider(by))
		}
		if err == nil { // pending, and nobody looks after it
			err = unattended()
		}
		return nil, none, err
	}
	step := approval.Step{Change: command.Change{From: c.State, Fence: c.Fence}}
	err := l.startable()
	if d.Verdict == approval.Reject {
		err = nil
	}
	if err != nil { // nobody need approve what cannot run
		return nil, none, err
	}
	if d.Verdict == approval.Modify {
		step, err = e.modify(by, d, *gate, &c, step, now)
	} else {
		if d.Verdict == approval.Reject && len(d.Shown) == 0 {
			d.Shown = gate.Hash // no is no, whatever was shown
		}
		step.Approval, err = gate.Take(decider(by), d.Verdict, d.Reason, d.Shown, now)
	}
	if err != nil {
		return nil, none, err
	}
	c.Version++
	switch step.Approval.State {
	case approval.Approved:
		advance(&c, command.Approve, now, nil)
	case approval.Rejected:
		advance(&c, command.Reject, now, func(c *command.Command) {
			blank(&c.Spec)
			why := fmt.Sprintf("%s has rejected it through %s", by.Name, by.Origin)
			if d.Reason != "" {
				why += ": " + d.Reason
			}
			c.Failure = &command.Failure{Reason: fault.ReasonRejected, Message: why, Hint: "Ask the approver, or run something else"}
		})
	}
	step.Change.Command = c
	step.Change.Audit = []audit.Entry{e.decided(by, &c, gate, &step.Approval)}
	if c.Ended() {
		step.Change.Audit = append(step.Change.Audit, e.ended(&c, nil, nil))
	}
	return l, step, nil
}

// modify gives the step of a modification, and makes it in c.
func (e *Engine) modify(by access.Caller, d approval.Ballot, gate approval.Approval, c *command.Command, step approval.Step, now time.Time) (approval.Step, error) {
	host, err := e.hosts.Lookup(c.Spec.Host)
	if err != nil {
		return step, err
	}
	spec := c.Spec
	spec.Line, spec.Argv = d.Modified.Line, d.Modified.Argv
	if d.Modified.Timeout > 0 {
		spec.Timeout = d.Modified.Timeout
	}
	if spec, err = command.NewSpec(spec); err != nil {
		return step, err
	}
	// It is the requester's command still, so the rules are asked about them.
	requester := access.Caller{Principal: access.Principal{Name: gate.Requester.Principal}, Origin: gate.Requester.Origin}
	for _, role := range gate.RequesterRoles {
		requester.Roles = append(requester.Roles, access.Role(role))
	}
	was, is := request(requester, &c.Spec, host), request(requester, &spec, host)
	said := e.ask(is)
	if said.Effect == policy.Deny {
		return step, denied(said, host.Name)
	}
	longer := spec.Timeout != c.Spec.Timeout && (spec.Timeout == 0 || c.Spec.Timeout > 0 && spec.Timeout > c.Spec.Timeout)
	narrower := policy.Narrower(was, is) && !longer
	asked := approval.Gate{Rule: said.Rule, Count: said.Gate.Count, Roles: said.Gate.Roles, AllowSelf: said.Gate.AllowSelf}
	if said.Effect == policy.Allow { // but the rules are told through a gate, which stays
		asked = approval.Gate{Rule: gate.Rule, Count: gate.Count, Roles: gate.Roles, AllowSelf: gate.AllowSelf}
	}
	step.Approval, err = gate.Revise(decider(by), d.Reason, d.Shown, boundHash(&spec, host), spec.CommandLine(), narrower, asked, now)
	if err != nil {
		return step, err
	}
	c.Spec = spec
	step.Spec = &spec
	return step, nil
}

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
	if c.State != command.AwaitingApproval {
		return nil, c
	}
	return l.gate, c
}

// decide leaves a step that the journal has for the owner to take up.
func (l *live) decide(step approval.Step) {
	l.mu.Lock()
	l.gate = &step.Approval
	l.decided = &step.Change.Command
	l.mu.Unlock()
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
	cancelled := l.cmd.Cancellation
	l.cmd = *c
	if l.cmd.Cancellation == nil && !l.cmd.Ended() {
		l.cmd.Cancellation = cancelled
	}
	l.mu.Unlock()
	l.stored, l.storedFence, l.storedNode = c.State, c.Fence, c.Node
	if c.Ended() {
		l.tellEnd()
	}
	l.bell.Ring()
	return true
}

// awaitDecision waits until the command is approved. It reports whether it is in
// the queue; if not, it has ended or ctx has.
func (l *live) awaitDecision(ctx context.Context) bool {
	deadline := time.NewTimer(time.Until(l.approval().Deadline))
	defer deadline.Stop()
	for {
		ev, why := command.Event(""), func(*command.Command) {}
		select {
		case <-l.kick:
			l.takeDecision()
			if l.takeWishes() || l.cmd.Cancellation != nil {
				ev, why = command.CancelledEnd, neverStarted
			}
		case <-deadline.C:
			ev, why = command.Expire, l.undecided
		case <-ctx.Done():
			l.leaveQueue()
			return false
		}
		if ev != "" && l.cmd.State == command.AwaitingApproval {
			l.withdraw(ctx, ev, why)
		}
		switch {
		case l.cmd.State == command.Queued && l.cmd.Cancellation != nil: // both at once
			l.leaveQueue()
			l.end(ctx, command.CancelledEnd, neverStarted)
			return false
		case l.cmd.State == command.Queued:
			l.enqueueApproved()
			return true
		case l.cmd.Ended():
			l.leaveQueue()
			return false
		}
	}
}

func (l *live) undecided(c *command.Command) {
	gate := l.approval()
	c.Failure = &command.Failure{
		Reason:  fault.ReasonApprovalExpired,
		Message: fmt.Sprintf("%d of %d had approved it when its time was over", gate.Approvals(), gate.Count),
		Hint:    "Run it again, and tell a holder of " + strings.Join(gate.Roles, " or ") + " that it waits",
	}
}

// withdraw ends the command while it waits for approval, unless somebody has
// decided meanwhile: awaitDecision then finds that.
func (l *live) withdraw(ctx context.Context, ev command.Event, f func(*command.Command)) {
	e := l.engine
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		if e.holdDecisions(ctx) != nil {
			return
		}
		if l.takeDecision(); l.cmd.State != command.AwaitingApproval {
			e.releaseDecisions()
			return
		}
		now := time.Now()
		c := l.cmd
		advance(&c, ev, now, func(c *command.Command) {
			blank(&c.Spec)
			f(c)
		})
		c.Version++
		state := approval.Withdrawn
		if ev == command.Expire {
			state = approval.Expired
		}
		gate := l.approval().End(state, now)
		told := append(slices.Clone(l.untold), e.ended(&c, nil, nil))
		err := e.takeSteps(context.WithoutCancel(ctx), []approval.Step{{
			Approval: gate,
			Change:   command.Change{From: l.stored, Fence: l.storedFence, Command: c, Audit: told},
		}})
		if err == nil {
			l.untold = nil
			l.decide(approval.Step{Approval: gate, Change: command.Change{Command: c}})
			l.takeDecision()
		}
		e.releaseDecisions()
		if err == nil {
			return
		}
		e.log.Warn("the end of a command that waits for approval could not be stored", "command", l.id, "retry_in", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// enqueueApproved puts an approved command into the queue. Where its host is not
// configured any more, awaitSlot ends it.
func (l *live) enqueueApproved() {
	host, err := l.engine.hosts.Lookup(l.ticket.host)
	if err != nil {
		host.MaxCommands = 0
	}
	l.enqueue(host.MaxCommands, l.reserved)
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
	if gate.State == approval.Approved && bytes.Equal(gate.Hash, boundHash(&l.cmd.Spec, *host)) {
		return nil
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonApprovalVoid, "what would run is not what was approved: the stored request, or the address or login user of %s, has changed since", host.Name).
		WithHint("Run it again")
}
