package api

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// plant is an engine whose commands the test makes and changes itself. It is
// for one goroutine, or for a synctest bubble in which changes are timed.
type plant struct {
	commands []Snapshot                // newest first
	output   map[command.Stream][]byte // of every command
	piece    int                       // most bytes of one ReadOutput; 0: all
	fail     error                     // of whatever is called next
	change   func(s *Snapshot)         // what happens to a command …
	after    time.Duration             // … after this long
	events   []any                     // of a Watch: Event, or time.Duration of silence
	log      []string                  // what was asked
	watching WatchOptions              // of the last Watch
	filter   command.Filter            // of the last List
	spec     command.Spec              // of the last Execute
	options  ExecuteOptions            // of the last Execute
	idle     bool                      // nothing runs in a session, or ever has
	asked    access.Caller             // of the last Get, List or Watch
}

func (p *plant) note(format string, args ...any) { p.log = append(p.log, fmt.Sprintf(format, args...)) }

func (p *plant) Execute(_ context.Context, by access.Caller, spec command.Spec, o ExecuteOptions) (Snapshot, bool, error) {
	p.spec, p.options = spec, o
	p.note("execute %s by %s via %s", spec.CommandLine(), by.Name, by.Origin)
	if p.fail != nil {
		return Snapshot{}, false, p.fail
	}
	return p.commands[0], spec.RequestID == "again", nil
}

func (p *plant) Await(ctx context.Context, id string, enough func(Snapshot) bool) (Snapshot, error) {
	s, err := p.find(id)
	if err != nil || s.Ended() || enough(s) {
		return s, err
	}
	var changed <-chan time.Time
	if p.change != nil {
		changed = time.After(p.after)
	}
	select {
	case <-ctx.Done():
	case <-changed:
		p.change(&p.commands[0])
		if s = p.commands[0]; !s.Ended() && !enough(s) {
			<-ctx.Done()
		}
	}
	return p.commands[0], nil
}

func (p *plant) Get(_ context.Context, by access.Caller, id string) (Snapshot, error) {
	p.asked = by
	return p.find(id)
}

func (p *plant) Current(_ context.Context, by access.Caller, ref string) (Snapshot, bool, error) {
	p.note("current of %s by %s", ref, by.Name)
	if p.fail != nil || p.idle {
		return Snapshot{}, p.idle, p.fail
	}
	return p.commands[0], false, nil
}

func (p *plant) CancelSession(_ context.Context, by access.Caller, ref string, grace time.Duration, reason string) (Snapshot, command.CancelReport, bool, error) {
	p.note("cancel in %s by %s after %s: %s", ref, by.Name, grace, reason)
	if p.fail != nil || p.idle {
		return Snapshot{}, command.CancelReport{}, p.idle, p.fail
	}
	return p.commands[0], command.CancelReport{Outcome: command.Gone, Ended: 1}, false, nil
}

func (p *plant) find(id string) (Snapshot, error) {
	for _, s := range p.commands {
		if s.ID == id {
			return s, nil
		}
	}
	return Snapshot{}, fault.New(fault.NotFound, fault.ReasonUnknownCommand, "no command %s", id)
}

func (p *plant) List(_ context.Context, by access.Caller, f command.Filter) ([]Snapshot, error) {
	p.asked, p.filter = by, f
	var list []Snapshot
	for _, s := range p.commands {
		if (f.Before == "" || s.ID < f.Before) && len(list) < f.Limit {
			list = append(list, s)
		}
	}
	return list, p.fail
}

func (p *plant) Cancel(_ context.Context, by access.Caller, id string, grace time.Duration, reason string) (Snapshot, command.CancelReport, error) {
	p.note("cancel %s by %s after %s: %s", id, by.Name, grace, reason)
	return p.commands[0], command.CancelReport{Outcome: command.Gone, Ended: 2}, p.fail
}

func (p *plant) Signal(_ context.Context, _ access.Caller, id, signal string) (Snapshot, error) {
	p.note("signal %s %s", id, signal)
	return p.commands[0], p.fail
}

func (p *plant) Input(_ context.Context, _ access.Caller, id string, data []byte, eof bool) (int64, error) {
	p.note("input %s %q %v", id, data, eof)
	return int64(len(data)) + 10, p.fail
}

func (p *plant) ReadOutput(_ context.Context, _ string, s command.Stream, offset int64, limit int) ([]byte, error) {
	if p.fail != nil {
		return nil, p.fail
	}
	data := p.output[s]
	if offset >= int64(len(data)) {
		return nil, nil
	}
	data = data[offset:]
	if p.piece > 0 {
		limit = min(limit, p.piece)
	}
	return data[:min(limit, len(data))], nil
}

func (p *plant) Watch(_ context.Context, by access.Caller, id string, o WatchOptions) (Watcher, error) {
	p.asked, p.watching = by, o
	if _, err := p.find(id); err != nil {
		return nil, err
	}
	return &script{plant: p, at: o.From}, nil
}

// script is a Watcher of the plant's events.
type script struct {
	plant *plant
	at    command.Sizes
}

func (s *script) Next(ctx context.Context) (Event, error) {
	for {
		if len(s.plant.events) == 0 {
			return Event{}, io.EOF
		}
		switch ev := s.plant.events[0].(type) {
		case time.Duration:
			start := time.Now()
			select {
			case <-time.After(ev):
				s.plant.events = s.plant.events[1:]
			case <-ctx.Done():
				s.plant.events[0] = ev - time.Since(start)
				return Event{}, fmt.Errorf("waiting: %w", ctx.Err())
			}
		case error:
			return Event{}, ev
		case Event:
			s.plant.events = s.plant.events[1:]
			switch ev.Kind {
			case EventChunk:
				s.at[ev.Chunk.Stream] = ev.Chunk.End()
			case EventGap:
				s.at[ev.Gap.Stream] = ev.Gap.To
			}
			return ev, nil
		}
	}
}

func (s *script) Offsets() command.Sizes { return s.at }
func (s *script) Close()                 { s.plant.note("closed") }

func (p *plant) Load(host string) (running, queued int) { return len(host), 2 }
func (p *plant) Stats() Stats                           { return Stats{Running: 1, Queued: 2, Watchers: 3, Draining: true} }

const anID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

func running() Snapshot {
	return Snapshot{Command: command.Command{ID: anID, Version: 3, State: command.Running, Spec: command.Spec{Host: "h", Line: "true"}, StartTime: time.Now()}}
}

func end(s *Snapshot) {
	zero := 0
	s.State, s.Exit.Code, s.EndTime = command.Completed, &zero, time.Now()
	s.Version++
}

// asAnn is a call of an operator; as is one of somebody else.
func asAnn(t *testing.T) context.Context { return as(t.Context(), "ann", access.RoleOperator) }

func as(ctx context.Context, name string, roles ...access.Role) context.Context {
	return access.WithCaller(ctx, access.Caller{
		Principal: access.Principal{Name: name, Roles: roles, Expiry: noon}, Origin: command.OriginCLI, Address: "192.0.2.1", Call: "call-1",
	})
}

func newPlant(snapshots ...Snapshot) (*plant, *Commands) {
	p := &plant{commands: snapshots, output: map[command.Stream][]byte{}}
	return p, NewCommands(p, p, p, &stage{}, 30*time.Second)
}
