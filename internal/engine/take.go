package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// What the last run of the service has left is taken up here. A queued command
// queues again. A durable one that was starting or running still lives on its
// host, or will be found not to: it gets an owner at once and a slot whatever
// the limits, since it runs whatever they are. So does one in a session, whose shell
// something may have kept. An attached one ended with the process that held its
// channel: its outcome cannot be known.

// versionLeap is how far the version of a command that is taken up lies ahead of
// the stored one: behind all that the last run may have told and not stored. What
// is left of 53 bits, which is what a JSON number has, is enough for 2^33 restarts.
const versionLeap = 1 << 20

// unfinishedStates are those of a command that has not ended.
var unfinishedStates = []command.State{command.AwaitingApproval, command.Queued, command.Starting, command.Running}

// recover takes up every command that has not ended, and gives those that need
// an owner. It asks no host.
func (e *Engine) recover(ctx context.Context) (left []*live, err error) {
	unfinished, err := e.journal.List(ctx, command.Filter{States: unfinishedStates})
	if err != nil {
		return nil, err
	}
	var lost []command.Command
	var queued []*live
	for _, c := range unfinished {
		c.Version += versionLeap
		waits := c.State == command.Queued || c.State == command.AwaitingApproval
		if !waits && attached(&c) && c.Spec.SessionID == "" {
			lost = append(lost, c)
			continue
		}
		l, _ := newLive(e, c) // its owner ends one that cannot be masked
		if c.State == command.AwaitingApproval {
			gate, err := e.journal.Approval(ctx, c.ID)
			switch {
			case err != nil && !unreadable(err):
				return nil, err
			case err != nil: // nobody can decide about it any more
				if _, err := e.voidWaiting(ctx, c, err); err != nil {
					return nil, err
				}
				continue
			}
			l.gate = &gate
		}
		e.register(l)
		left = append(left, l)
		if waits {
			if c.State == command.Queued {
				queued = append(queued, l)
			}
			continue
		}
		l.taken = true
		l.kept = l.session != "" // as far as is known: the service need not wait for it when it stops
		host, err := e.hosts.Lookup(c.Spec.Host)
		if err != nil {
			host.MaxCommands = 0 // its owner ends it
		}
		e.queue.take(l.ticket.host, slots(&c.Spec, &host))
	}
	// Only now, when every slot that is in use is taken.
	for _, l := range queued {
		if host, err := e.hosts.Lookup(l.cmd.Spec.Host); err == nil && l.startable() == nil { // if not, its owner ends it
			l.enqueue(&host, false)
		}
	}
	return left, e.loseAll(ctx, lost)
}

// attached reports whether a command that has a slot lives on its channel, as far
// as the journal can know.
func attached(c *command.Command) bool {
	return c.Durability == command.Attached || c.Spec.Durability == command.Attached
}

// loseAll ends attached commands of the last run of the service as LOST, all at
// once, so that the store can take them in a few commits.
func (e *Engine) loseAll(ctx context.Context, lost []command.Command) error {
	errs := make([]error, len(lost))
	var all sync.WaitGroup
	for i, c := range lost {
		all.Go(func() { errs[i] = e.loseAttached(ctx, c) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// voidWaiting ends a command whose approval cannot be read, and gives it as it is
// then.
func (e *Engine) voidWaiting(ctx context.Context, c command.Command, why error) (command.Command, error) {
	ch := command.Change{From: c.State, Fence: c.Fence}
	advance(&c, command.Reject, time.Now(), func(c *command.Command) {
		blank(&c.Spec)
		c.Failure = &command.Failure{
			Reason:  fault.ReasonApprovalVoid,
			Message: "what it waited for cannot be read any more: " + fault.From(why).Message,
			Hint:    "Run it again",
		}
	})
	c.Version++
	ch.Command, ch.Audit = c, []audit.Entry{e.ended(&c, nil, nil)}
	if err := e.journal.Apply(ctx, ch); err != nil {
		return c, err
	}
	e.feed.stir()
	e.log.Error("a command waited for an approval that cannot be read; it was ended", "command", c.ID, "error", why)
	return c, nil
}

func (e *Engine) loseAttached(ctx context.Context, c command.Command) error {
	ch := command.Change{From: c.State, Fence: c.Fence}
	why := command.Failure{
		Reason:  fault.ReasonServiceRestarted,
		Message: "the service ended while the command was running on an attached connection",
		Hint:    lostHint,
	}
	if c.State == command.Starting {
		why.Message = "the service ended while the command was being started; whether it ran is not known"
	}
	advance(&c, command.Lose, time.Now(), func(c *command.Command) { c.Failure = &why })
	c.Version++
	c.Node = e.node
	c.Fence++ // so that an owner which was only asleep writes nothing any more
	ch.Command = c
	ch.Audit = []audit.Entry{e.ended(&c, nil, nil)}
	if err := e.journal.Apply(ctx, ch); err != nil {
		return err
	}
	e.feed.stir()
	e.log.Warn("a command was lost with the last run of the service", "command", c.ID, "host", c.Spec.Host)
	return nil
}

// takeOver makes this owner the command's one in the journal, before anything is
// asked of its host; nil where it is not, or the command has ended for want of
// its host.
func (l *live) takeOver(ctx context.Context) *inventory.Host {
	if n := l.cmd.Cancellation; n != nil {
		l.doubt = true // the last owner may have run a ladder
		l.grace = n.GraceLeft(time.Now())
	}
	l.change(func(c *command.Command) {
		c.Node = l.engine.node
		c.Fence++
		c.Connection = command.Reconnecting
	})
	if err := l.persist(ctx, l.cmd); err != nil {
		l.engine.log.Warn("a command of the last run of the service could not be taken over", "command", l.id, "host", l.cmd.Spec.Host, "error", err)
		return nil
	}
	if l.unmaskable != nil { // what it prints would be shown with its secrets
		f := fault.From(l.unmaskable)
		l.end(ctx, command.Lose, func(c *command.Command) {
			c.Failure = &command.Failure{Reason: f.Reason, Message: "the service let go of the command, whose output it could not mask: " + f.Message, Hint: lostHint}
		})
		return nil
	}
	host, err := l.engine.hosts.Lookup(l.cmd.Spec.Host)
	if err != nil {
		f := fault.From(err)
		l.end(ctx, command.Lose, func(c *command.Command) {
			c.Failure = &command.Failure{
				Reason:  f.Reason,
				Message: "the command was on a host that is not configured any more: " + f.Message,
				Hint:    lostHint,
			}
		})
		return nil
	}
	return &host
}

func secretsLost() error {
	return fault.New(fault.FailedPrecondition, fault.ReasonSealBroken,
		"what was secret of it cannot be read any more: it is sealed, and the service's key is another one now").
		WithHint("Run it again, or give the service back the key file that it had")
}

// startable is why the command cannot be started any more.
func (l *live) startable() error {
	if l.unmaskable != nil {
		return l.unmaskable
	}
	return startable(&l.cmd.Spec)
}

// startable is why what was asked for cannot be started any more: what is nowhere
// stored was lost with the last run of the service.
func startable(spec *command.Spec) error {
	if spec.SecretsLost {
		return secretsLost()
	}
	if s := spec.Sudo; s != nil && s.NeedsPassword && s.Password.IsZero() {
		return fault.New(fault.FailedPrecondition, fault.ReasonServiceRestarted,
			"the service was restarted before the command started, and sudo's password, which is never stored, went with it").
			WithHint("Run it again with the password")
	}
	return nil
}
