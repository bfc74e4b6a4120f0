package main

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/api"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/sshterm"
	"github.com/telexec/telexec/internal/telemetry"
	"github.com/telexec/telexec/internal/terminal"
)

// Sessions are three rooms: sshterm has shells on hosts, terminal what is seen and typed
// there, and the engine the commands. Here is what one calls a thing turned into what
// the other one does.

// shells is sshterm as terminal needs it.
type shells struct {
	terms *sshterm.Terms
	m     *telemetry.Metrics
}

func (s shells) Open(ctx context.Context, spec terminal.ShellSpec) (terminal.Shell, error) {
	opened, err := s.terms.Open(ctx, sshterm.Spec(spec))
	if err != nil {
		return nil, err
	}
	return shell{opened, s.m}, nil
}

// shell is a sshterm.Shell as terminal needs it.
type shell struct {
	*sshterm.Shell
	m *telemetry.Metrics
}

func (s shell) Facts() terminal.Facts {
	f := s.Shell.Facts()
	return terminal.Facts{
		Kind: f.Kind, Path: f.Path, Marks: f.Marks, Keeper: f.Keeper, KeeperReason: f.KeeperReason, PID: f.PID, Nested: f.Nested,
		Answers: f.Answers, Redraw: f.Redraw,
	}
}

// Read counts.
func (s shell) Read(p []byte) (int, error) {
	n, err := s.Shell.Read(p)
	s.m.TerminalOutput(n)
	return n, err
}

func (s shell) Foreground(ctx context.Context, shellPID int) (terminal.Foreground, error) {
	f, err := s.Shell.Foreground(ctx, shellPID)
	return terminal.Foreground(f), err
}

// inSessions is terminal as the engine needs it.
type inSessions struct{ *terminal.Terminals }

func (s inSessions) Start(ctx context.Context, r engine.SessionRun) (engine.Process, error) {
	return process(s.Terminals.Start(ctx, terminal.Run(r)))
}

func (s inSessions) Resume(ctx context.Context, r engine.SessionRun) (engine.Process, error) {
	return process(s.Terminals.Resume(ctx, terminal.Run(r)))
}

func process(p *terminal.Process, err error) (engine.Process, error) {
	if err != nil {
		return nil, err // not a Process that is nil
	}
	return p, nil
}

// terminals is terminal as api needs it.
type terminals struct{ *terminal.Terminals }

func (t terminals) Watch(ctx context.Context, by access.Caller) api.SessionsWatcher {
	return t.Terminals.Watch(ctx, by)
}

func (t terminals) Screen(ctx context.Context, by access.Caller, ref string, scrollback int) (api.ScreenText, error) {
	text, err := t.Terminals.Screen(ctx, by, ref, scrollback)
	return api.ScreenText(text), err
}

func (t terminals) Keys(ctx context.Context, by access.Caller, ref string, keys []session.Key, settle time.Duration, scrollback int) (api.ScreenText, bool, error) {
	text, settled, err := t.Terminals.Keys(ctx, by, ref, keys, settle, scrollback)
	return api.ScreenText(text), settled, err
}

func (t terminals) Attach(ctx context.Context, by access.Caller, ref string, o api.AttachOptions) (api.Attachment, error) {
	v, err := t.Terminals.Attach(ctx, by, ref, terminal.AttachOptions(o))
	if err != nil {
		return api.Attachment{}, err
	}
	return api.Attachment{ID: v.ID(), Role: v.Role(), Viewer: viewer{v}}, nil
}

// viewer is a terminal.Viewer as api needs it.
type viewer struct{ *terminal.Viewer }

// seen gives api's word for terminal's.
var seen = map[terminal.EventKind]api.TerminalEventKind{
	terminal.EventAttached: api.TerminalAttached,
	terminal.EventScreen:   api.TerminalScreen,
	terminal.EventOutput:   api.TerminalOutput,
	terminal.EventSession:  api.TerminalSession,
	terminal.EventCommand:  api.TerminalCommand,
	terminal.EventTyped:    api.TerminalTyped,
	terminal.EventEnded:    api.TerminalEnded,
}

func (v viewer) Next(ctx context.Context) (api.TerminalEvent, error) {
	ev, err := v.Viewer.Next(ctx)
	if err != nil {
		return api.TerminalEvent{}, err
	}
	said := api.TerminalEvent{
		Kind: seen[ev.Kind], Session: ev.Session, Offset: ev.Offset, Data: ev.Data, CommandID: ev.CommandID, Over: ev.Over, Typist: ev.Typist, Resumed: ev.Resumed,
	}
	if p := ev.Screen; p != nil {
		said.Screen = &api.Picture{Offset: p.Offset, Data: p.Data, Size: p.Size}
		for _, m := range p.Marks {
			said.Screen.Commands = append(said.Screen.Commands, api.CommandLine(m))
		}
	}
	return said, nil
}

// holds gives terminal's word for api's.
var holds = map[api.KeyboardAction]terminal.KeyboardAction{
	api.TakeKeyboard:     terminal.TakeKeyboard,
	api.ReleaseKeyboard:  terminal.ReleaseKeyboard,
	api.HandOverKeyboard: terminal.HandOverKeyboard,
}

func (v viewer) Keyboard(ctx context.Context, a api.KeyboardAction, other string) error {
	return v.Viewer.Keyboard(ctx, holds[a], other)
}

// Execute of commands in sessions.

func (c commands) Current(ctx context.Context, by access.Caller, ref string) (api.Snapshot, bool, error) {
	s, noTask, err := c.Engine.Current(ctx, by, ref)
	return snapshot(s), noTask, err
}

func (c commands) CancelSession(ctx context.Context, by access.Caller, ref string, grace time.Duration, reason string) (api.Snapshot, command.CancelReport, bool, error) {
	s, report, noTask, err := c.Engine.CancelSession(ctx, by, ref, grace, reason)
	return snapshot(s), report, noTask, err
}

// itself is the service where it asks its own rooms.
var itself = access.Caller{Principal: access.Principal{Name: "telexecd", Roles: []access.Role{access.RoleAdmin}}}

// tellEnds tells the engine of every session that is over, as long as there are any.
func tellEnds(ctx context.Context, t *terminal.Terminals, told func(id string)) error {
	w := t.Watch(ctx, itself)
	defer w.Close()
	for {
		s, err := w.Next(ctx)
		switch {
		case ctx.Err() != nil, fault.ReasonOf(err) == fault.ReasonDraining:
			return nil
		case err != nil:
			return err
		case s != nil && s.Ended():
			told(s.ID)
		}
	}
}
