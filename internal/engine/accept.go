package engine

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
)

// A command is accepted once it is in the journal, and from then on it is never
// lost, whoever goes away. What is in the way of that is told before anything is
// stored.

// Execute accepts a command: when it returns, the command is stored and will
// run, whatever happens to the caller, or, where a rule wants it approved, waits
// for that. ROLE_MISSING or POLICY_DENIED where the caller may not. With a request
// id that the same principal used before for the same content, it gives that
// command and replayed is true. Where ctx ends first the command may be accepted
// all the same; the request id tells.
//
// With spec.Session, the name or id of a session, it runs there; Host, SessionID and
// SessionOwner are filled in. UNKNOWN_SESSION or SESSION_ENDED, or ACCESS_DENIED where
// the caller may not act on it.
func (e *Engine) Execute(ctx context.Context, by access.Caller, spec command.Spec) (s Snapshot, replayed bool, err error) {
	return e.execute(ctx, by, spec, "", false)
}

// ExecuteUnlessBusy is Execute, but for a session in which something runs or waits:
// that is SESSION_BUSY, which says who runs what since when, and nothing is stored.
func (e *Engine) ExecuteUnlessBusy(ctx context.Context, by access.Caller, spec command.Spec) (s Snapshot, replayed bool, err error) {
	return e.execute(ctx, by, spec, "", true)
}

// ExecuteStep is Execute of what is a step of a task (spec.Task), with an id that NewID
// has given, and that nobody else uses. After an error of the store, Get with that id
// tells whether it was accepted.
func (e *Engine) ExecuteStep(ctx context.Context, by access.Caller, spec command.Spec, id string) (Snapshot, error) {
	s, _, err := e.execute(ctx, by, spec, id, false)
	return s, err
}

// NewID gives an id for ExecuteStep, which is to be called soon.
func (e *Engine) NewID() string { return e.newID(time.Now()) }

// execute accepts a command; id is empty where it is to be given one.
func (e *Engine) execute(ctx context.Context, by access.Caller, spec command.Spec, id string, unlessBusy bool) (s Snapshot, replayed bool, err error) {
	if err := e.rights.May(by, access.Start, access.Thing{Owner: by.Name, Host: spec.Host}); err != nil {
		return Snapshot{}, false, err
	}
	return e.seeThrough(ctx, by, func(ctx context.Context, doubt func(error)) (Snapshot, bool, error) {
		return e.accept(ctx, by, spec, id, unlessBusy, doubt)
	})
}

// seeThrough has accept do its work to the end, also where ctx ends before that. It
// answers with the first result: a doubt that accept has, or what came of it.
func (e *Engine) seeThrough(ctx context.Context, by access.Caller, accept func(ctx context.Context, doubt func(error)) (Snapshot, bool, error)) (s Snapshot, replayed bool, err error) {
	if err := e.admit(); err != nil {
		return Snapshot{}, false, err
	}
	type result struct {
		s        Snapshot
		replayed bool
		err      error
	}
	results := make(chan result, 1) // the first result; nobody waits for another one
	answer := func(s Snapshot, replayed bool, err error) {
		select {
		case results <- result{s, replayed, err}:
		default:
		}
	}
	go func() {
		defer e.accepting.Done()
		var r result
		err := e.guard("accept", "request", by.Call, func() (err error) {
			r.s, r.replayed, err = accept(context.WithoutCancel(ctx), func(err error) {
				answer(Snapshot{}, false, err)
			})
			return err
		})
		answer(r.s, r.replayed, err)
	}()
	select {
	case r := <-results:
		return r.s, r.replayed, r.err
	case <-ctx.Done():
		return Snapshot{}, false, fault.From(context.Cause(ctx)).
			WithHint("The command may have been accepted; ask again with the same request_id, or look for it in the list")
	}
}

// accept is Execute for as long as the store takes. Where that leaves in doubt
// whether it has the command, doubt is told so, and accept goes on until it knows.
func (e *Engine) accept(ctx context.Context, by access.Caller, spec command.Spec, id string, unlessBusy bool, doubt func(err error)) (s Snapshot, replayed bool, err error) {
	now := time.Now()
	c := command.Command{
		Version:   1,
		State:     command.Queued,
		Spec:      spec,
		CreatedBy: by.Actor(), CreateTime: now, LastActivity: now,
	}
	asked := spec.ContentHash()
	host, said, slot, err := e.reserve(ctx, by, &c.Spec, unlessBusy)
	if err != nil {
		return e.replay(ctx, c, asked, err)
	}
	c.StdinClosed = !spec.StdinOpen && spec.Pty == nil && c.Spec.SessionID == ""
	if c.Spec.SessionID != "" {
		c.SessionOffset = -1
	}
	c.Spec.Host = host.Name
	c.Rule = said.Rule
	if c.ID = id; id == "" {
		c.ID = e.newID(now)
	}
	hash := c.Spec.ContentHash()
	bound := boundHash(hash, host, shellKind(&said.asked, &c.Spec))
	if c.Spec.SessionID == "" {
		asked = hash
	} // else the name that was asked for, which another session may have when it is asked again
	var gate *approval.Approval
	switch {
	case said.Effect == policy.RequireApproval:
		c.State, c.Gated = command.AwaitingApproval, true
		gate = newGate(by, &c, said.Decision, host, bound)
	case slot:
		c.State, _ = command.Next(c.State, command.Claim)
		claimed(&c, e.node)
	}
	l, err := newLive(e, c)
	handed := false // to its owner, with what was taken for it
	defer func() {
		switch {
		case handed:
			return
		case slot:
			e.queue.release(l.ticket.host, 0)
		case gate == nil:
			e.queue.unreserve()
		}
		e.unregister(l)
	}()
	if err != nil {
		return Snapshot{}, false, err
	}
	l.gate = gate
	if gate == nil && l.session != "" {
		asked := said.asked
		l.judged = &asked
	}
	// Before it is stored, so that a replay finds it.
	if gate == nil {
		e.register(l)
	} else if err := e.registerAwaiting(l); err != nil {
		return e.replay(ctx, c, asked, err)
	}
	stored, created, err := e.create(ctx, c, asked, gate, e.accepted(by, &c, said.Decision, bound), doubt)
	if err != nil {
		return Snapshot{}, false, err
	}
	if !created {
		e.unregister(l) // before it is looked for
		s, err := e.get(ctx, stored.ID)
		return s, true, err
	}
	handed = true
	e.feed.touch(l)
	if l.session != "" {
		l.kickOwner() // to see whether that has ended meanwhile
	}
	b := birth{live: l}
	switch {
	case slot:
		b.host = &host
	case gate == nil:
		l.enqueue(&host, true)
	}
	e.births <- b // Run takes it: it waits for all accepting
	return l.snapshot(), false, nil
}

// create stores a new command. Where the store leaves in doubt whether it has it,
// doubt is told so, and create goes on until it knows.
func (e *Engine) create(ctx context.Context, c command.Command, asked []byte, gate *approval.Approval, told audit.Entry, doubt func(error)) (stored command.Command, created bool, err error) {
	err = e.guard("accept", "command", c.ID, func() (err error) {
		stored, created, err = e.journal.Create(ctx, c, asked, gate, told)
		return err
	})
	e.noteStore(err)
	if err != nil && e.wasStored(ctx, c.ID, func() { doubt(doubtful(err)) }) {
		created, err = true, nil
		e.noteStore(nil)
	}
	return stored, created, err
}

// wasStored reports whether the journal has a command whose Create gave an error.
// While it cannot tell, which doubt hears, it is asked again, until the service
// stops: the next run finds what is there.
func (e *Engine) wasStored(ctx context.Context, id string, doubt func()) bool {
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		_, err := e.journal.Get(ctx, id)
		if err == nil || fault.ReasonOf(err) == fault.ReasonUnknownCommand {
			return err == nil
		}
		doubt()
		select {
		case <-time.After(pause):
		case <-e.stopping:
			return false
		}
	}
}

// doubtful is err for a caller whose command may have been accepted all the same.
func doubtful(err error) error {
	f := fault.From(err)
	return fault.Wrap(err, f.Kind, f.Reason, "%s; whether the command was accepted is not known", f.Message).
		WithHint("Ask again with the same request_id, or look for it in the list").WithRetry(f.RetryAfter)
}

// reserve finds out where the command is to run, asks the rules and takes a slot
// there, or else a place in the queue; for a command that is to be approved first,
// neither.
func (e *Engine) reserve(ctx context.Context, by access.Caller, spec *command.Spec, unlessBusy bool) (host inventory.Host, said judgement, slot bool, err error) {
	if spec.Session != "" {
		if err = e.placeIn(ctx, by, spec); err != nil {
			return host, said, false, err
		}
	}
	if host, err = e.hosts.Lookup(spec.Host); err != nil {
		return host, said, false, err
	}
	if said, err = e.judge(by, spec, host); err == nil && spec.Task != nil {
		err = e.gateStep(ctx, spec, host, &said.Decision)
	}
	if err != nil || said.Effect == policy.RequireApproval {
		if err == nil && unlessBusy {
			err = e.mustBeIdle(spec)
		}
		return host, said, false, err
	}
	if unlessBusy && spec.SessionID != "" {
		slot, err = e.acquireIdle(spec)
	} else {
		slot, err = e.queue.acquire(queueOf(spec, host.Name), slots(spec, &host))
	}
	return host, said, slot, err
}

// queueOf names the queue of a command.
func queueOf(spec *command.Spec, host string) string {
	if spec.SessionID != "" {
		return sessionQueue + spec.SessionID
	}
	return host
}

// slots is how many commands may run at once where this one is to run.
func slots(spec *command.Spec, host *inventory.Host) int {
	if spec.SessionID != "" {
		return 1
	}
	return host.MaxCommands
}

// awaitingInput is how many bytes of input one principal's commands that wait for
// approval may hold in memory.
const awaitingInput = 16 << 20

// registerAwaiting is register for a command that waits for approval, of which one
// principal may have so many.
func (e *Engine) registerAwaiting(l *live) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, input := 0, len(l.cmd.Spec.Stdin)
	for _, other := range e.lives {
		if held, awaits := other.awaits(l.cmd.CreatedBy.Principal); awaits {
			n++
			input += held
		}
	}
	if input > awaitingInput {
		return fault.New(fault.Exhausted, fault.ReasonTooManyAwaiting, "the commands of %s that wait for approval hold %d bytes of input; the limit is %d", l.cmd.CreatedBy.Principal, input, awaitingInput).
			WithHint("Have some decided, cancel some, or leave the input in a file on the host")
	}
	if n >= e.limits.MaxAwaiting {
		return fault.New(fault.Exhausted, fault.ReasonTooManyAwaiting, "%d commands of %s are waiting for approval, which is the limit", n, l.cmd.CreatedBy.Principal).
			WithHint("Have some decided, or cancel some; telexec approvals lists them")
	}
	e.add(l)
	return nil
}

// replay gives the command that the request id of c names already, or else
// refused: what was accepted once is answered again, whatever holds now.
func (e *Engine) replay(ctx context.Context, c command.Command, asked []byte, refused error) (Snapshot, bool, error) {
	if c.Spec.RequestID == "" {
		return Snapshot{}, false, refused
	}
	stored, found, err := e.journal.Replay(ctx, c, asked)
	switch {
	case err != nil:
		return Snapshot{}, false, err
	case !found:
		return Snapshot{}, false, refused
	}
	s, err := e.get(ctx, stored.ID)
	return s, true, err
}

// newID gives a ULID; they rise also within a millisecond.
func (e *Engine) newID(now time.Time) string {
	return ulid.MustNew(ulid.Timestamp(now), e.entropy).String()
}

// admit begins to accept a command, or is an error where none are taken.
func (e *Engine) admit() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.ready:
		if !e.draining {
			e.accepting.Add(1)
			return nil
		}
	default:
	}
	return draining()
}

func draining() error {
	return fault.New(fault.Unavailable, fault.ReasonDraining, "the service takes no new commands: it is starting or shutting down").
		WithHint("Try again in a moment, with the same request_id").WithRetry(time.Second)
}
