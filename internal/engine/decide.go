package engine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
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
//
// Here are the deciders; what the owner does is in await.go.

// newGate gives the approval that a new command waits for.
func newGate(by access.Caller, c *command.Command, said policy.Decision, host inventory.Host, hash []byte) *approval.Approval {
	return &approval.Approval{
		CommandID: c.ID, Version: 1, State: approval.Pending,
		Rule: said.Rule, Count: said.Gate.Count, Roles: said.Gate.Roles, AllowSelf: said.Gate.AllowSelf,
		Deadline:  c.CreateTime.Add(said.Gate.Timeout),
		Requester: c.CreatedBy, RequesterRoles: by.RoleNames(), Host: host.Name, Target: host.User + "@" + host.Address, Command: c.CommandLine(),
		Revision: 1, Author: c.CreatedBy, Hash: hash,
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
	return approval.Decider{Actor: by.Actor(), Roles: by.RoleNames()}
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
	if s.Gate != nil {
		return e.approvalFor(by, *s.Gate, s), nil
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

// approvalFor gives an approval as the caller sees it. Only a gate that was taken
// together with the command is shown to be decided: else the hash may be of another
// request than the one beside it.
func (e *Engine) approvalFor(by access.Caller, gate approval.Approval, s Snapshot) Approval {
	a := Approval{Approval: gate, Snapshot: s, May: gate.May(decider(by))}
	if a.May == nil && s.Gate == nil {
		a.May = unattended()
	}
	return a
}

// Approvals gives approvals that the caller may see, newest first, at most limit,
// and where the next page begins: behind the command with the id next, which is
// empty where there is none. mine leaves out what the caller may not decide now.
func (e *Engine) Approvals(ctx context.Context, by access.Caller, f approval.Filter, mine bool) (list []Approval, next string, err error) {
	if err := e.rights.May(by, access.Look, access.Thing{Owner: by.Name}); err != nil {
		return nil, "", err
	}
	if v := e.visible(by); v != nil {
		f.Visible = &approval.Visible{Principal: v.Principal, Roles: by.RoleNames(), Hosts: v.Hosts}
	}
	stored, err := e.journal.Approvals(ctx, f)
	if err != nil {
		return nil, "", err
	}
	for _, gate := range stored {
		s, err := e.get(ctx, gate.CommandID)
		switch {
		case fault.ReasonOf(err) == fault.ReasonUnknownCommand:
			continue // removed meanwhile
		case fault.KindOf(err) == fault.DataLoss:
			e.log.Error("a command that waits for approval cannot be read; it is left out", "command", gate.CommandID, "error", err)
			continue
		case err != nil:
			return nil, "", err
		}
		if s.Gate != nil {
			gate = *s.Gate
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
// NOT_YOUR_DECISION, REQUEST_CHANGED, APPROVAL_VOID or POLICY_DENIED name the
// command that is in the way. A decision that the caller has taken already is
// answered as it was then.
func (e *Engine) Decide(ctx context.Context, by access.Caller, ballots []approval.Ballot) ([]Approval, error) {
	// Who may decide is said by the rule that asked, not by a role of its own.
	if err := e.holdDecisions(ctx); err != nil {
		return nil, err
	}
	defer e.releaseDecisions()
	now := time.Now().Truncate(time.Microsecond) // as it is stored
	list := make([]Approval, len(ballots))
	var steps []approval.Step
	var lives []*live
	for i, b := range ballots {
		if slices.ContainsFunc(ballots[:i], func(other approval.Ballot) bool { return other.CommandID == b.CommandID }) {
			return nil, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "two decisions are about the command %s", b.CommandID).
				WithHint("Decide once about each").With("command_id", b.CommandID)
		}
		if l := e.find(b.CommandID); l != nil && l.isUnsure() {
			l.reread(ctx)
		}
		was, err := e.Approval(ctx, by, b.CommandID)
		if err != nil {
			return nil, err
		}
		if list[i] = was; was.Taken(decider(by), b) {
			continue
		}
		l, step, err := e.decision(by, b, now, was)
		if err != nil {
			return nil, err
		}
		list[i] = e.approvalFor(by, step.Approval, Snapshot{Command: step.Change.Command, Gate: &step.Approval})
		lives, steps = append(lives, l), append(steps, step)
	}
	if len(steps) == 0 {
		return list, nil
	}
	// What was begun is not left half way: the writes are whole, and so is what
	// follows from them.
	if err := e.settle(context.WithoutCancel(ctx), lives, steps); err != nil {
		return nil, err
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

// settle stores steps and leaves them for the owners. After an error of the
// journal it looks what that has: the steps may be stored all the same, or somebody
// else's may be. Where it cannot be seen, the owners go on looking, and nobody
// decides before they know. e.deciding is held.
func (e *Engine) settle(ctx context.Context, lives []*live, steps []approval.Step) error {
	err := e.guard("decide", "command", steps[0].Approval.CommandID, func() error { return e.journal.Decide(ctx, steps) })
	e.noteStore(err)
	stored, known := err == nil, true
	if err != nil {
		stored = true
		for i, l := range lives {
			got, ok := l.reread(ctx)
			known = known && ok
			stored = stored && ok && got.Same(&steps[i].Approval)
		}
	}
	switch {
	case err != nil && stored: // reread has left it for the owners, who may have taken it up
		return nil
	case stored:
		for i, l := range lives {
			l.decide(steps[i].Approval, steps[i].Change.Command)
		}
		return nil
	case !known:
		f := fault.From(err)
		return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable, "%s; whether the decision was stored is not known", f.Message).
			WithHint("Decide the same again in a moment").WithRetry(time.Second)
	case fault.KindOf(err) == fault.Aborted:
		return fault.Wrap(err, fault.Aborted, fault.ReasonRequestChanged, "somebody else has decided meanwhile").
			WithHint("Read the approvals again")
	}
	return err
}

// reread takes from the journal what it has of a command and of what that waits
// for, where it is another thing than is known here. It reports whether the journal
// could be read; while it cannot, the command is unsure. Where it never can be again,
// the command ends. Whoever holds deciding may call it.
func (l *live) reread(ctx context.Context) (approval.Approval, bool) {
	j := l.engine.journal
	gate, err := j.Approval(ctx, l.id)
	c, lost := command.Command{}, unreadable(err)
	if err == nil || lost {
		why := err
		if c, err = j.Get(ctx, l.id); err == nil && lost {
			gate = l.approval().End(approval.Rejected, time.Now())
			if c.State == command.AwaitingApproval {
				c.Version = max(c.Version, l.version()) + versionLeap
				c, err = l.engine.voidWaiting(ctx, c, why)
			}
		}
	}
	if err != nil {
		l.mu.Lock()
		l.unsure = true
		l.mu.Unlock()
		l.kickOwner()
		return gate, false
	}
	l.mu.Lock()
	l.unsure = false
	was := l.gate
	c.Version = max(c.Version, l.cmd.Version+1) // watchers never see it fall
	if sudo := l.cmd.Spec.Sudo; sudo != nil && c.Spec.Sudo != nil && !c.Ended() {
		c.Spec.Sudo = sudo // with its password, which is stored nowhere
	}
	l.mu.Unlock()
	if !was.Same(&gate) {
		l.decide(gate, c)
	}
	return gate, true
}

// unreadable reports whether err says that a record cannot be read, now or ever.
func unreadable(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.DataLoss || kind == fault.NotFound
}

// makeSure has the journal read again until it is known what that has; false where
// ctx ends first.
func (l *live) makeSure(ctx context.Context) bool {
	for pause := retryLeast; l.isUnsure(); pause = min(2*pause, retryMost) {
		if l.engine.holdDecisions(ctx) != nil {
			return false
		}
		l.rereadAndRelease(ctx)
		if !l.isUnsure() {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// rereadAndRelease is reread by who gives deciding back, whatever happens.
func (l *live) rereadAndRelease(ctx context.Context) {
	defer l.engine.releaseDecisions()
	l.reread(ctx)
}

func (l *live) version() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cmd.Version
}

func (l *live) isUnsure() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsure
}

// decision gives what one decision leads to. e.deciding is held.
func (e *Engine) decision(by access.Caller, d approval.Ballot, now time.Time, was Approval) (*live, approval.Step, error) {
	none := approval.Step{}
	l := e.find(d.CommandID)
	var gate *approval.Approval
	var c command.Command
	if l != nil {
		gate, c = l.awaited()
	}
	if gate == nil { // all is decided, or nobody looks after it, or what the journal has is not known
		err := was.May
		switch {
		case l != nil && l.isUnsure():
			err = fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "whether a decision about it was stored is not known").
				WithHint("Decide again in a moment").WithRetry(time.Second)
		case err == nil:
			err = unattended()
		}
		return nil, none, err
	}
	step := approval.Step{Change: command.Change{From: c.State, Fence: c.Fence}}
	var err error
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
		c.Version += versionLeap // above what a cancel has been told with meanwhile
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
	// It is the requester's command still, so the rules are asked about them.
	requester := access.Caller{Principal: access.Principal{Name: gate.Requester.Principal}, Origin: gate.Requester.Origin}
	for _, role := range gate.RequesterRoles {
		requester.Roles = append(requester.Roles, access.Role(role))
	}
	was := e.request(requester, &c.Spec, host)
	if !bytes.Equal(gate.Hash, boundHash(c.Spec.ContentHash(), host, shellKind(&was, &c.Spec))) {
		return step, approvalVoid(host.Name) // what was shown is elsewhere by now
	}
	spec := c.Spec
	spec.Line, spec.Argv = d.Modified.Line, d.Modified.Argv
	if d.Modified.Timeout > 0 {
		spec.Timeout = d.Modified.Timeout
	}
	if spec, err = command.NewSpec(spec); err != nil {
		return step, err
	}
	is := e.request(requester, &spec, host)
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
	step.Approval, err = gate.Revise(decider(by), d, boundHash(spec.ContentHash(), host, shellKind(&is, &spec)), spec.CommandLine(), narrower, asked, now)
	if err != nil {
		return step, err
	}
	c.Spec = spec
	step.Spec = &spec
	return step, nil
}

func approvalVoid(host string) error {
	return fault.New(fault.FailedPrecondition, fault.ReasonApprovalVoid, "what would run is not what was shown: the stored request, the address or login user of %s, or the shell of its session, has changed since", host).
		WithHint("Run it again")
}
