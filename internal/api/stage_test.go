package api

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

const aSession = "01ARZ3NDEKTSV4RRFFQ69G5FAW"

// stage has sessions that the test makes and changes itself; a viewer of them is told
// what the test says.
type stage struct {
	sessions  []session.Session // newest first
	fail      error             // of whatever is called next
	recording []byte
	text      ScreenText
	news      []any // of a Watch: session.Session, nil, error, or time.Duration of silence; behind them it waits
	events    []any // of an Attach: TerminalEvent, error, or time.Duration of silence
	role      session.Role
	refuse    error // of Input and Keyboard

	mu      sync.Mutex
	log     []string // what was asked
	spec    session.Spec
	filter  session.Filter
	options AttachOptions
}

func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// asked gives what was asked so far, and forgets it.
func (s *stage) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

func (s *stage) Open(_ context.Context, by access.Caller, spec session.Spec, reuse bool) (session.Session, bool, error) {
	s.spec = spec
	s.note("open %s on %s by %s", spec.Name, spec.Host, by.Name)
	if s.fail != nil {
		return session.Session{}, false, s.fail
	}
	return s.sessions[0], reuse, nil
}

func (s *stage) Get(_ context.Context, _ access.Caller, ref string) (session.Session, error) {
	for _, one := range s.sessions {
		if one.ID == ref || one.Spec.Name == ref {
			return one, s.fail
		}
	}
	return session.Session{}, fault.New(fault.NotFound, fault.ReasonUnknownSession, "there is no session %q", ref)
}

func (s *stage) List(_ context.Context, _ access.Caller, f session.Filter) ([]session.Session, error) {
	s.filter = f
	var list []session.Session
	for _, one := range s.sessions {
		if (f.Before == "" || one.ID < f.Before) && len(list) < f.Limit {
			list = append(list, one)
		}
	}
	return list, s.fail
}

func (s *stage) Close(_ context.Context, by access.Caller, ref, reason string) (session.Session, command.CancelReport, error) {
	s.note("close %s by %s: %s", ref, by.Name, reason)
	if s.fail != nil {
		return session.Session{}, command.CancelReport{}, s.fail
	}
	return s.sessions[0], command.CancelReport{Outcome: command.Gone, Ended: 3}, nil
}

func (s *stage) MayType(by access.Caller, one session.Session) bool {
	return by.Name == one.CreatedBy.Principal
}

func (s *stage) Watch(context.Context, access.Caller) SessionsWatcher { return &bell{stage: s} }

// bell is a watcher of the stage's sessions.
type bell struct {
	stage  *stage
	synced bool
}

func (b *bell) Next(ctx context.Context) (*session.Session, error) {
	for len(b.stage.news) > 0 {
		next := b.stage.news[0]
		if silence, ok := next.(time.Duration); ok {
			select {
			case <-time.After(silence):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		b.stage.news = b.stage.news[1:]
		switch n := next.(type) {
		case nil:
			b.synced = true
			return nil, nil
		case error:
			return nil, n
		case session.Session:
			return &n, nil
		}
	}
	if !b.synced {
		b.synced = true
		return nil, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (b *bell) Close() { b.stage.note("watch closed") }

func (s *stage) Screen(_ context.Context, _ access.Caller, ref string, scrollback int) (ScreenText, error) {
	s.note("screen of %s with %d", ref, scrollback)
	return s.text, s.fail
}

func (s *stage) Keys(_ context.Context, by access.Caller, ref string, keys []session.Key, settle time.Duration, scrollback int) (ScreenText, bool, error) {
	s.note("keys %v in %s by %s, %s, %d", keys, ref, by.Name, settle, scrollback)
	return s.text, true, s.fail
}

func (s *stage) Recording(_ context.Context, _ access.Caller, ref string, offset int64, limit int) ([]byte, bool, error) {
	s.note("recording of %s from %d", ref, offset)
	if s.fail != nil {
		return nil, false, s.fail
	}
	rest := s.recording[min(offset, int64(len(s.recording))):]
	return rest[:min(limit, len(rest))], len(rest) <= limit, nil
}

func (s *stage) Attach(_ context.Context, by access.Caller, ref string, o AttachOptions) (Attachment, error) {
	s.options = o
	s.note("attach to %s by %s", ref, by.Name)
	return Attachment{ID: "v1", Role: s.role, Viewer: &seat{s}}, s.fail
}

// seat is a viewer of the stage.
type seat struct{ stage *stage }

func (v *seat) Next(ctx context.Context) (TerminalEvent, error) {
	for {
		if len(v.stage.events) == 0 {
			return TerminalEvent{}, io.EOF
		}
		switch ev := v.stage.events[0].(type) {
		case time.Duration:
			start := time.Now()
			select {
			case <-time.After(ev):
				v.stage.events = v.stage.events[1:]
			case <-ctx.Done():
				v.stage.events[0] = ev - time.Since(start)
				return TerminalEvent{}, ctx.Err()
			}
		case error:
			return TerminalEvent{}, ev
		case TerminalEvent:
			v.stage.events = v.stage.events[1:]
			return ev, nil
		}
	}
}

func (v *seat) Input(_ context.Context, data []byte) error {
	v.stage.note("input %q", data)
	return v.stage.refuse
}

func (v *seat) Resize(size session.Size) { v.stage.note("resize %dx%d", size.Columns, size.Rows) }
func (v *seat) Acknowledge(offset int64) { v.stage.note("acknowledged %d", offset) }
func (v *seat) Close()                   { v.stage.note("left") }
func (v *seat) Keyboard(_ context.Context, a KeyboardAction, viewer string) error {
	v.stage.note("keyboard %d %s", a, viewer)
	return v.stage.refuse
}

// told keeps what is told of refusals.
type told struct {
	mu      sync.Mutex
	entries []audit.Entry
}

func (r *told) Tell(_ context.Context, e audit.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
}

// line is a stream to a terminal: the client says what the test puts into says, and
// what it is told is kept in short.
type line struct {
	grpc.ServerStream
	ctx  context.Context
	says chan *telexecv1.AttachRequest // closed by the test: the client has nothing more to say
	err  error                         // what a Recv gives then; nil: io.EOF
	fail error                         // of Send

	mu   sync.Mutex
	sent []*telexecv1.AttachResponse
}

func newLine(ctx context.Context, says ...*telexecv1.AttachRequest) *line {
	l := &line{ctx: ctx, says: make(chan *telexecv1.AttachRequest, 100)}
	for _, r := range says {
		l.says <- r
	}
	return l
}

func (l *line) Context() context.Context { return l.ctx }

func (l *line) Recv() (*telexecv1.AttachRequest, error) {
	select {
	case r, ok := <-l.says:
		if ok {
			return r, nil
		}
		if l.err != nil {
			return nil, l.err
		}
		return nil, io.EOF
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
}

func (l *line) Send(m *telexecv1.AttachResponse) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, m)
	return l.fail
}

// told gives what was sent, in short.
func (l *line) told() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.sent {
		text := ""
		if m.GetTime() == nil {
			text = "WITHOUT TIME "
		}
		switch r := m.GetResponse().(type) {
		case *telexecv1.AttachResponse_Attached:
			text += fmt.Sprintf("attached %s %s at %d, resumed %v, may type %v", r.Attached.GetViewer(), r.Attached.GetRole(), r.Attached.GetOffset(), r.Attached.GetResumed(), r.Attached.GetSession().GetMayType())
		case *telexecv1.AttachResponse_Screen:
			text += fmt.Sprintf("screen of %d at %d, %dx%d, %d commands, continued %v", len(r.Screen.GetData()), r.Screen.GetOffset(), r.Screen.GetColumns(), r.Screen.GetRows(), len(r.Screen.GetCommands()), r.Screen.GetContinued())
		case *telexecv1.AttachResponse_Output:
			text += fmt.Sprintf("output of %d at %d", len(r.Output.GetData()), r.Output.GetOffset())
		case *telexecv1.AttachResponse_Session:
			text += fmt.Sprintf("session v%d", r.Session.GetVersion())
		case *telexecv1.AttachResponse_Command:
			text += fmt.Sprintf("command %s at %d", r.Command.GetCommand().GetState(), r.Command.GetOffset())
		case *telexecv1.AttachResponse_Typed:
			text += fmt.Sprintf("typed %s %s", r.Typed.GetViewer(), r.Typed.GetActor().GetPrincipal())
		case *telexecv1.AttachResponse_Refused:
			text += "refused " + r.Refused.GetReason()
		case *telexecv1.AttachResponse_Ended:
			text += "ended " + r.Ended.GetState().String()
		case *telexecv1.AttachResponse_Heartbeat:
			text += "heartbeat"
		}
		lines = append(lines, text)
	}
	return lines
}
