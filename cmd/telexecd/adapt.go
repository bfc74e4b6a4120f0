package main

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/api"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/sshexec"
	"github.com/telexec/telexec/internal/telemetry"
)

// Rooms of one floor do not know each other, so two of them may have a type
// each for the same thing. Here is one turned into the other, and nothing else.

// commands is the engine as api needs it.
type commands struct{ *engine.Engine }

func snapshot(s engine.Snapshot) api.Snapshot {
	a := api.Snapshot{Command: s.Command, Gate: s.Gate, Watchers: s.Watchers}
	if s.Queue != nil {
		place := api.QueuePlace(*s.Queue)
		a.Queue = &place
	}
	return a
}

func (c commands) Execute(ctx context.Context, by access.Caller, spec command.Spec, o api.ExecuteOptions) (api.Snapshot, bool, error) {
	execute := c.Engine.Execute
	if o.RefuseBusy {
		execute = c.Engine.ExecuteUnlessBusy
	}
	s, replayed, err := execute(ctx, by, spec)
	return snapshot(s), replayed, err
}

func (c commands) Await(ctx context.Context, id string, enough func(api.Snapshot) bool) (api.Snapshot, error) {
	s, err := c.Engine.Await(ctx, id, func(s engine.Snapshot) bool { return enough(snapshot(s)) })
	return snapshot(s), err
}

func (c commands) Get(ctx context.Context, by access.Caller, id string) (api.Snapshot, error) {
	s, err := c.Engine.Get(ctx, by, id)
	return snapshot(s), err
}

func (c commands) List(ctx context.Context, by access.Caller, f command.Filter) ([]api.Snapshot, error) {
	list, err := c.Engine.List(ctx, by, f)
	out := make([]api.Snapshot, len(list))
	for i, s := range list {
		out[i] = snapshot(s)
	}
	return out, err
}

func (c commands) Cancel(ctx context.Context, by access.Caller, id string, grace time.Duration, reason string) (api.Snapshot, command.CancelReport, error) {
	s, report, err := c.Engine.Cancel(ctx, by, id, grace, reason)
	return snapshot(s), report, err
}

func (c commands) Signal(ctx context.Context, by access.Caller, id, signal string) (api.Snapshot, error) {
	s, err := c.Engine.Signal(ctx, by, id, signal)
	return snapshot(s), err
}

func (c commands) Watch(ctx context.Context, by access.Caller, id string, o api.WatchOptions) (api.Watcher, error) {
	w, err := c.Engine.Watch(ctx, by, id, engine.WatchOptions(o))
	if err != nil {
		return nil, err
	}
	return watcher{w}, nil
}

func (c commands) WatchEvents(ctx context.Context, by access.Caller, o api.EventsOptions) (api.EventsWatcher, error) {
	w, err := c.Engine.WatchEvents(ctx, by, engine.EventsOptions(o))
	if err != nil {
		return nil, err
	}
	return events{w}, nil
}

// events is an engine.Events as api needs it.
type events struct{ *engine.Events }

func (e events) Next(ctx context.Context) (api.News, error) {
	n, err := e.Events.Next(ctx)
	said := api.News{Number: n.Number}
	if err == nil && n.Snapshot != nil {
		said.Snapshot = pointer(n.Snapshot)
	}
	return said, err
}

func approvalOf(a engine.Approval) api.Approval {
	return api.Approval{Approval: a.Approval, Snapshot: snapshot(a.Snapshot), May: a.May}
}

func approvalsOf(list []engine.Approval) []api.Approval {
	out := make([]api.Approval, len(list))
	for i, a := range list {
		out[i] = approvalOf(a)
	}
	return out
}

func (c commands) Approval(ctx context.Context, by access.Caller, id string) (api.Approval, error) {
	a, err := c.Engine.Approval(ctx, by, id)
	return approvalOf(a), err
}

func (c commands) Approvals(ctx context.Context, by access.Caller, f approval.Filter, mine bool) ([]api.Approval, string, error) {
	list, next, err := c.Engine.Approvals(ctx, by, f, mine)
	return approvalsOf(list), next, err
}

func (c commands) Decide(ctx context.Context, by access.Caller, ballots []approval.Ballot) ([]api.Approval, error) {
	list, err := c.Engine.Decide(ctx, by, ballots)
	return approvalsOf(list), err
}

func (c commands) Stats() api.Stats { return api.Stats(c.Engine.Stats()) }

// pointer is snapshot for events. Inlined it would have both snapshots on the stack of
// each call that waits for an event, of which there are as many as watchers.
//
//go:noinline
func pointer(s *engine.Snapshot) *api.Snapshot {
	return new(snapshot(*s))
}

// watcher is an engine.Watch as api needs it.
type watcher struct{ *engine.Watch }

// kinds gives api's word for the engine's.
var kinds = map[engine.EventKind]api.EventKind{
	engine.EventCommand:  api.EventCommand,
	engine.EventChunk:    api.EventChunk,
	engine.EventGap:      api.EventGap,
	engine.EventComplete: api.EventComplete,
	engine.EventEnded:    api.EventEnded,
}

func (w watcher) Next(ctx context.Context) (api.Event, error) {
	ev, err := w.Watch.Next(ctx)
	if err != nil {
		return api.Event{}, err
	}
	said := api.Event{Kind: kinds[ev.Kind], Chunk: ev.Chunk, Position: ev.Position, Gap: api.Gap(ev.Gap)}
	if ev.Snapshot != nil {
		said.Snapshot = pointer(ev.Snapshot)
	}
	return said, nil
}

// runner is sshexec as the engine needs it.
type runner struct{ *sshexec.Runner }

func (r runner) Start(ctx context.Context, run engine.Run) (engine.Process, error) {
	return r.Runner.Start(ctx, sshexec.Run(run))
}

func (r runner) Resume(ctx context.Context, run engine.Run) (engine.Process, error) {
	return r.Runner.Resume(ctx, sshexec.Run(run))
}

// dialer is the pool as sshexec needs it.
type dialer struct{ pool *sshconn.Pool }

func (d dialer) Open(ctx context.Context, host inventory.Host) (sshexec.Session, error) {
	return channelOf(d.pool.Open(ctx, host))
}

func (d dialer) OpenFirst(ctx context.Context, host inventory.Host) (sshexec.Session, error) {
	return channelOf(d.pool.OpenFirst(ctx, host))
}

func channelOf(c *sshconn.Channel, err error) (sshexec.Session, error) {
	if err != nil {
		return sshexec.Session{}, err
	}
	return sshexec.Session{Channel: c.Channel, Requests: c.Requests(), Lost: c.Done(), Err: c.Err, Close: c.Close, Alive: c.Alive}, nil
}

// links is the pool, with what runs on it, as api needs it.
type links struct {
	pool   *sshconn.Pool
	runner *sshexec.Runner
}

func (l links) Link(host string) api.Link {
	s := l.pool.Stats(host)
	link := api.Link{Connections: s.Connections, LastConnected: s.LastConnected}
	if f := s.LastFailure; f != nil && !s.LastConnected.After(s.LastFailureTime) {
		link.LastFailure = &command.Failure{Reason: f.Reason, Message: f.Message, Hint: f.Hint}
		link.LastFailed = s.LastFailureTime
	}
	return link
}

func (l links) Check(ctx context.Context, h inventory.Host) (api.Finding, error) {
	r, err := l.pool.Check(ctx, h)
	if err != nil {
		return api.Finding{}, err
	}
	found := api.Finding{ServerVersion: r.ServerVersion, HostKey: r.HostKeyFingerprint, Durability: command.Durable}
	switch err := l.runner.Probe(ctx, h); {
	case fault.ReasonOf(err) == fault.ReasonNotDurable:
		found.Durability, found.DurabilityReason = command.Attached, fault.From(err).Message
	case err != nil:
		return api.Finding{}, err
	}
	return found, nil
}

// meter is telemetry as the engine needs it.
type meter struct{ m *telemetry.Metrics }

func (m meter) Ended(s command.State, ran time.Duration) { m.m.CommandEnded(string(s), ran) }
func (m meter) Output(bytes int)                         { m.m.Output(bytes) }
