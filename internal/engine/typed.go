package engine

import (
	"context"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
)

// Typed makes a command of what somebody has typed in a session, at the prompt with
// that number, and gives its id. Its owner takes it up with Sessions.Start, which may
// be asked before Typed returns. After an error there is no such command, or, where ctx
// has ended or the store left it in doubt, there may be one yet, which ends at once
// where Start does not know it any more.
func (e *Engine) Typed(ctx context.Context, by access.Caller, s session.Session, number int64, line string) (id string, err error) {
	spec := command.Spec{Typed: number, Line: typed(line)}
	enter(&spec, s)
	if spec, err = command.NewSpec(spec); err != nil {
		return "", err
	}
	made, _, err := e.seeThrough(ctx, by, func(ctx context.Context, doubt func(error)) (Snapshot, bool, error) {
		s, err := e.acceptTyped(ctx, by, spec, doubt)
		return s, false, err
	})
	return made.ID, err
}

// typed gives what was typed as a command line that can be kept.
func typed(line string) string {
	line = strings.ReplaceAll(strings.ToValidUTF8(line, "\uFFFD"), "\x00", "")
	return cutAt(line, command.MaxLine)
}

func (e *Engine) acceptTyped(ctx context.Context, by access.Caller, spec command.Spec, doubt func(err error)) (Snapshot, error) {
	now := time.Now()
	c := command.Command{
		ID: e.newID(now), Version: 1, State: command.Queued, Spec: spec,
		CreatedBy: by.Actor(), CreateTime: now, LastActivity: now,
		SessionOffset: -1,
	}
	c.State, _ = command.Next(c.State, command.Claim)
	claimed(&c, e.node)
	host, err := e.hosts.Lookup(spec.Host)
	if err != nil { // its shell is there all the same
		host = inventory.Host{Name: spec.Host}
	}
	hash := c.Spec.ContentHash()
	told := e.about(entry(audit.CommandAccepted, by), &c, nil)
	told.Decision, told.RequestHash, told.Outcome = "typed", boundHash(hash, host, ""), string(c.State)
	l, err := newLive(e, c)
	if err != nil {
		return Snapshot{}, err
	}
	e.queue.take(l.ticket.host, 1)
	handed := false // to its owner, with its slot
	defer func() {
		if !handed {
			e.queue.release(l.ticket.host, 0)
			e.unregister(l)
		}
	}()
	e.register(l)
	if _, _, err := e.create(ctx, c, hash, nil, told, doubt); err != nil {
		return Snapshot{}, err
	}
	handed = true
	e.feed.touch(l)
	e.births <- birth{live: l, host: &host}
	return l.snapshot(), nil
}
