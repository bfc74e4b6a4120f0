package engine

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
)

// How a command comes to run on its host. A start that broke off leaves a
// question: has the host started it or not? For a durable command the host can
// answer it, whenever it can be reached, and with Void it sees to it that "not
// yet" means never. No command ends before that is known.

// linkFlush is when a bare change of the connection is stored at the latest.
const linkFlush = time.Second

// run brings the command to run on its host, or finds it there again, and sees it
// to its end.
func (l *live) run(ctx context.Context, host *inventory.Host) {
	var p Process
	switch {
	case l.session != "":
		p = l.enterSession(ctx, host)
	case l.cmd.State == command.Running:
		p = l.resume(ctx, host)
	default:
		p = l.start(ctx, host)
	}
	if p == nil {
		return
	}
	if l.superseded {
		l.letGo(p)
		return
	}
	l.begin(p)
	if l.cmd.Durability == command.Durable {
		l.engine.clean(ctx, *host)
	}
	l.attend(ctx, p)
}

// begin makes the command RUNNING with its process.
func (l *live) begin(p Process) {
	durability, why := p.Durability()
	kept := l.sessionKept()
	l.mu.Lock()
	l.process = p
	l.kept = kept
	connection := l.link.connection()
	began := l.began
	l.began = nil
	l.mu.Unlock()
	runs := func(c *command.Command) {
		c.Connection = connection
		if began != nil {
			c.SessionOffset = *began
		}
		if durability != c.Durability || c.DurabilityReason == "" { // a fallback has told its reason already
			c.Durability, c.DurabilityReason = durability, why
		}
		blank(&c.Spec)
	}
	if l.cmd.State == command.Running {
		l.change(runs)
	} else {
		started := p.Started()
		l.enter(command.Start, func(c *command.Command) {
			c.StartTime = started
			runs(c)
		})
	}
	if l.session == "" {
		l.flushIn(flushAfter)
	} else {
		l.flushIn(0) // the next run of the service knows by nothing else that it was typed
	}
}

// blank removes what only the start needs and what may be secret.
func blank(s *command.Spec) {
	names := make(map[string]string, len(s.Env))
	for name := range s.Env {
		names[name] = ""
	}
	s.Stdin, s.Env = nil, names
	if s.Sudo != nil {
		s.Sudo = &command.Sudo{User: s.Sudo.User, NeedsPassword: s.Sudo.NeedsPassword}
	}
}

// resume finds a command again that was running. Without a process (nil) its
// owner is through with it.
func (l *live) resume(ctx context.Context, host *inventory.Host) Process {
	p, err := l.call(ctx, "resume", false, func(ctx context.Context) (Process, error) {
		return l.engine.runner.Resume(ctx, l.runOn(host))
	})
	switch {
	case err == nil:
		return p
	case l.superseded, fault.ReasonOf(err) == fault.ReasonSuperseded:
		l.letGo(nil)
	case ctx.Err() != nil:
		l.leave(ctx, nil)
	default:
		l.end(ctx, endOf(err), failed(err))
	}
	return nil
}

// start starts the command. Without a process (nil) its owner is through with it.
func (l *live) start(ctx context.Context, host *inventory.Host) Process {
	p, err := l.startOnce(ctx, host)
	if fault.ReasonOf(err) == fault.ReasonNotDurable && !l.taken { // else an owner before may have started it
		if l.mayAttach() && ctx.Err() == nil {
			if !l.attach(ctx, err) {
				if l.superseded {
					l.letGo(nil)
				}
				return nil
			}
			p, err = l.startOnce(ctx, host)
		}
	}
	switch {
	case err == nil:
		return p
	case l.superseded, fault.ReasonOf(err) == fault.ReasonSuperseded:
		l.letGo(nil)
		return nil
	case hadStarted(err):
		l.end(ctx, command.Lose, failed(err))
		return nil
	}
	// Whoever takes over does not know what the owner before has sent.
	doubt, void := broken(err) || l.taken, false
	if doubt && !attached(&l.cmd) {
		if ctx.Err() != nil {
			l.leave(ctx, nil)
			return nil
		}
		if p, void = l.void(ctx, host); !void {
			return p
		}
		doubt = false
	}
	cancelled := l.cmd.Cancellation != nil
	switch {
	case doubt:
		l.end(ctx, command.Lose, failed(err))
	case cancelled:
		l.end(ctx, command.CancelledEnd, neverStarted)
	case ctx.Err() != nil && !void && unsent(err):
		l.unclaim(ctx)
	default:
		l.end(ctx, command.StartFail, failed(err))
	}
	return nil
}

// unclaim gives the command back to the queue, for the next run of the service to start
// it.
func (l *live) unclaim(ctx context.Context) {
	l.enter(command.Unclaim, func(c *command.Command) {
		c.Node, c.Connection = "", ""
		c.Fence-- // no host has seen it: the next owner is the first again
		c.Durability, c.DurabilityReason = "", ""
	})
	_ = l.persist(ctx, l.cmd) // a failure is logged; the next run then finds it STARTING
}

// broken reports whether a start that gave err may have got through.
func broken(err error) bool {
	f := fault.From(err)
	return f.Reason == fault.ReasonConnectionLost || f.Reason == fault.ReasonNoExitStatus || f.Kind == fault.Internal
}

// hadStarted reports whether err tells of a command that an earlier attempt has
// started, and of which the host cannot say any more how it ended.
func hadStarted(err error) bool {
	switch fault.ReasonOf(err) {
	case fault.ReasonHostRebooted, fault.ReasonRunRemoved, fault.ReasonSupervisorKilled:
		return true
	}
	return false
}

// endOf gives the event of an end that the host tells as err: that the command has
// not begun after all, or went with its session, or that its outcome cannot be known.
func endOf(err error) command.Event {
	switch fault.ReasonOf(err) {
	case fault.ReasonStartFailed, fault.ReasonSudoRefused, fault.ReasonBadWorkingDir, fault.ReasonNoSpace:
		return command.Killed
	case fault.ReasonShellExited, fault.ReasonSessionClosed, fault.ReasonIdleTimeout, fault.ReasonLifetimeOver:
		return command.Killed // with the shell that it ran in
	}
	return command.Lose
}

// unsent reports whether a start that gave err can be made again as if it had
// not been tried.
func unsent(err error) bool {
	f := fault.From(err)
	return f.Kind == fault.Cancelled || f.Reason == fault.ReasonNotDurable
}

// mayAttach reports whether the command may run attached where its host cannot
// keep it.
func (l *live) mayAttach() bool {
	return l.cmd.Spec.Durability != command.Durable && l.cmd.Cancellation == nil
}

// attach records that the command runs attached, since its host cannot keep it.
// That is in the journal before it is started so: after a crash nobody must start
// it a second time. It reports whether it is.
func (l *live) attach(ctx context.Context, why error) bool {
	l.change(func(c *command.Command) {
		c.Durability, c.DurabilityReason = command.Attached, fault.From(why).Message
	})
	return l.persist(ctx, l.cmd) == nil
}

// startOnce makes one attempt to start the command, unless a cancel has been
// asked for; one that comes meanwhile gives the attempt up.
func (l *live) startOnce(ctx context.Context, host *inventory.Host) (Process, error) {
	l.takeWishes() // while the journal was busy
	if l.cmd.Cancellation != nil {
		return nil, fault.New(fault.Cancelled, fault.ReasonCancelledByCaller, "it was cancelled before it started")
	}
	if err := startable(&l.cmd.Spec); err != nil {
		return nil, err
	}
	r := l.runOn(host)
	r.Attached = attached(&l.cmd)
	return l.call(ctx, "start", true, func(ctx context.Context) (Process, error) {
		return l.engine.runner.Start(ctx, r)
	})
}

// void finds out what became of a start that broke off: it gives the process if
// there is one. never is true where the host has seen to it that there never will
// be; with neither, its owner is through with it.
func (l *live) void(ctx context.Context, host *inventory.Host) (p Process, never bool) {
	r := l.runOn(host)
	r.Void = true
	p, err := l.call(ctx, "void", false, func(ctx context.Context) (Process, error) {
		return l.engine.runner.Resume(ctx, r)
	})
	switch {
	case err == nil:
		return p, false
	case l.superseded, fault.ReasonOf(err) == fault.ReasonSuperseded:
		l.letGo(nil)
	case fault.ReasonOf(err) == fault.ReasonNeverStarted:
		return nil, true
	case ctx.Err() != nil:
		l.leave(ctx, nil)
	default:
		l.end(ctx, endOf(err), failed(err))
	}
	return nil, false
}

// runOn gives what a Runner needs. It has a copy of the Spec, since the owner
// blanks its own.
func (l *live) runOn(host *inventory.Host) Run {
	spec := l.cmd.Spec
	from, take := l.outlet()
	return Run{
		ID: l.id, Host: *host, Spec: &spec, Fence: l.cmd.Fence, From: from,
		Output: take,
		Link:   l.linked,
	}
}

// outlet gives what takes the command's output, and from where on.
func (l *live) outlet() (from command.Sizes, take func(s command.Stream, data []byte) error) {
	from, _ = l.log.Sizes()
	// What an attempt before has held back comes again.
	var masks [len(command.Streams)]*output.RedactedStream
	var gauges [len(command.Streams)]*output.Gauge
	for s := range masks {
		masks[s], gauges[s] = l.redaction.Stream(), newGauge(from[s])
	}
	l.masks, l.gauges = masks, gauges
	return from, func(s command.Stream, data []byte) error {
		l.engine.meter.Output(len(data))
		return l.append(s, masks[s].Write(data), gauges[s])
	}
}

// call has f ask the host, and the owner at work meanwhile. f's context ends with
// ctx, when another owner has the command, and, with yield, when a cancel comes.
func (l *live) call(ctx context.Context, doing string, yield bool, f func(ctx context.Context) (Process, error)) (Process, error) {
	type result struct {
		p   Process
		err error
	}
	calling, giveUp := context.WithCancel(ctx)
	defer giveUp()
	results := make(chan result, 1) // the one result
	go func() {
		var r result
		r.err = l.guard(doing, func() (err error) {
			r.p, err = f(calling)
			return err
		})
		results <- r
	}()
	for {
		select {
		case r := <-results:
			return r.p, r.err
		case <-l.kick:
			if l.takeWishes() && yield {
				giveUp()
			}
			l.takeLink()
			l.takeProgress()
		case <-l.tellBy:
			l.tellProgress()
		case w := <-l.writes:
			if l.wrote(w); l.superseded {
				giveUp()
			}
		case <-l.dirty:
			l.flushDue()
		case <-l.flushTimer.C:
			l.flush(ctx)
		}
	}
}

// link is what Run.Link has told.
type link struct {
	lost error // nil: connected
	back bool  // it has come back since the owner looked
	news bool  // something was told since the owner looked
}

func (k link) connection() command.Connection {
	if k.lost != nil {
		return command.Reconnecting
	}
	return command.Connected
}

// linked is Run.Link.
func (l *live) linked(why error) {
	l.mu.Lock()
	l.link.news = true
	l.link.lost = why
	l.link.back = l.link.back || why == nil
	l.mu.Unlock()
	l.kickOwner()
}

// takeLink takes up what was told about the connection. It reports whether the
// host can be asked again.
func (l *live) takeLink() (back bool) {
	l.mu.Lock()
	k := l.link
	l.link.back, l.link.news = false, false
	l.mu.Unlock()
	if !k.news {
		return false
	}
	searching := l.cmd.State == command.Running && l.process == nil // nobody can ask anything of it yet
	if now := k.connection(); now != l.cmd.Connection && !searching {
		l.change(func(c *command.Command) { c.Connection = now })
		l.flushIn(linkFlush)
		if k.lost != nil {
			l.engine.log.Info("the connection to a command was lost", "command", l.id, "host", l.cmd.Spec.Host, "error", k.lost)
		} else {
			l.engine.log.Info("the connection to a command is back", "command", l.id, "host", l.cmd.Spec.Host)
		}
	}
	return k.back && k.lost == nil
}

// leave lets a durable command go on without its owner, for the next run of the
// service to take it up: what is known of it is stored, and nothing is asked of
// its host. p is nil where there is no process yet.
func (l *live) leave(ctx context.Context, p Process) {
	if p != nil {
		p.Close()
	}
	l.log.Close()
	if l.writing {
		l.wrote(<-l.writes)
	}
	l.tellProgress()
	if !l.superseded && (l.unstored || l.cmd.Version > l.written || l.log.UnsavedBytes() > 0) {
		_ = l.persist(ctx, l.cmd) // a failure is logged; the host has what the journal has not
	}
	l.engine.log.Info("a command goes on without the service", "command", l.id, "host", l.cmd.Spec.Host, "state", l.cmd.State)
}

// letGo drops a command that another owner has: this one may write, end and
// remove nothing of it any more.
func (l *live) letGo(p Process) {
	if p != nil {
		p.Close()
	}
	l.log.Close()
	l.engine.log.Warn("another owner has a command; this one lets go of it", "command", l.id, "host", l.cmd.Spec.Host, "fence", l.storedFence)
}
