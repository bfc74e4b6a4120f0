package api

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/session"
)

// bulletin is a watcher of events that tells what the test says: News, an error, or
// time.Duration of silence.
type bulletin struct {
	news   []any
	number int64
	asked  EventsOptions
	by     access.Caller
	fail   error
	closed bool
}

func (b *bulletin) WatchEvents(_ context.Context, by access.Caller, o EventsOptions) (EventsWatcher, error) {
	b.by, b.asked = by, o
	return b, b.fail
}

func (b *bulletin) Next(ctx context.Context) (News, error) {
	for {
		switch n := b.news[0].(type) {
		case time.Duration:
			start := time.Now()
			select {
			case <-time.After(n):
				b.news = b.news[1:]
			case <-ctx.Done():
				b.news[0] = n - time.Since(start)
				return News{}, ctx.Err()
			}
		case error:
			return News{}, n
		case News:
			b.news, b.number = b.news[1:], n.Number
			return n, nil
		}
	}
}

func (b *bulletin) Number() int64 { return b.number }
func (b *bulletin) Close()        { b.closed = true }

// eventSink keeps what a stream of events sends, in short.
type eventSink struct {
	grpc.ServerStream
	ctx  context.Context
	sent []string
	fail error
}

func (s *eventSink) Context() context.Context { return s.ctx }
func (s *eventSink) Send(m *telexecv1.WatchEventsResponse) error {
	line := fmt.Sprintf("%d ", m.GetSequence())
	if m.GetTime() == nil {
		line += "WITHOUT TIME "
	}
	switch m.GetEvent().(type) {
	case *telexecv1.WatchEventsResponse_Command:
		line += fmt.Sprintf("v%d", m.GetCommand().GetVersion())
	case *telexecv1.WatchEventsResponse_Session:
		line += fmt.Sprintf("session %s v%d %v", m.GetSession().GetName(), m.GetSession().GetVersion(), m.GetSession().GetMayType())
	case *telexecv1.WatchEventsResponse_Task:
		line += "task"
	case *telexecv1.WatchEventsResponse_TaskEvent:
		line += fmt.Sprintf("event %d", m.GetTaskEvent().GetSequence())
	case *telexecv1.WatchEventsResponse_Synced:
		line += "synced"
	case *telexecv1.WatchEventsResponse_Heartbeat:
		line += "heartbeat"
	}
	s.sent = append(s.sent, line)
	return s.fail
}

func TestWatchEvents(t *testing.T) {
	over := errors.New("over")
	for _, tc := range []struct {
		beat *durationpb.Duration
		want []string
	}{
		{nil, []string{"4 v3", "4 synced", "4 heartbeat", "4 heartbeat", "9 v4"}},
		{durationpb.New(30 * time.Second), []string{"4 v3", "4 synced", "4 heartbeat", "9 v4"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			first, then := running(), running()
			end(&then)
			b := &bulletin{news: []any{News{4, &first}, News{4, nil}, 40 * time.Second, News{9, &then}, over}}
			out := &eventSink{ctx: asAnn(t)}
			err := NewEvents(b, &stage{}, &flow{}).WatchEvents(&telexecv1.WatchEventsRequest{
				After: new(int64(3)), Host: "h", Principal: "bob", Labels: map[string]string{"a": "b"}, Heartbeat: tc.beat,
			}, out)
			if err != over || !slices.Equal(out.sent, tc.want) || !b.closed {
				t.Errorf("%v, closed %v: %q", err, b.closed, out.sent)
			}
			want := EventsOptions{After: new(int64(3)), Host: "h", Principal: "bob", Labels: map[string]string{"a": "b"}}
			if !reflect.DeepEqual(b.asked, want) || b.by.Name != "ann" {
				t.Errorf("asked %+v by %s", b.asked, b.by.Name)
			}
		})
	}
	refused := errors.New("refused")
	b := &bulletin{fail: refused}
	if err := NewEvents(b, &stage{}, &flow{}).WatchEvents(&telexecv1.WatchEventsRequest{}, &eventSink{ctx: asAnn(t)}); err != refused || b.asked.After != nil {
		t.Errorf("%v, after %v", err, b.asked.After)
	}
	gone := errors.New("gone")
	b = &bulletin{news: []any{News{}}}
	if err := NewEvents(b, &stage{}, &flow{}).WatchEvents(&telexecv1.WatchEventsRequest{}, &eventSink{ctx: asAnn(t), fail: gone}); err != gone || !b.closed {
		t.Errorf("%v, closed %v", err, b.closed)
	}
}

// Sessions that are there come before it is said that all has been told, and their
// changes in between those of commands; nothing of them raises the sequence.
func TestWatchEventsTellsOfSessions(t *testing.T) {
	over := errors.New("over")
	changed := func(name, host, by string, version int64, labels map[string]string) session.Session {
		s := open()
		s.Spec, s.Version, s.CreatedBy.Principal = session.Spec{Name: name, Host: host, Labels: labels}, version, by
		return s
	}
	news := []any{
		changed("a", "h", "ann", 1, nil), changed("b", "i", "bob", 1, map[string]string{"x": "1", "y": "2"}), nil,
		20 * time.Second, changed("a", "h", "ann", 2, nil), changed("b", "i", "bob", 2, map[string]string{"x": "1", "y": "3"}),
	}
	for name, c := range map[string]struct {
		ask  *telexecv1.WatchEventsRequest
		want []string
	}{
		"all":       {&telexecv1.WatchEventsRequest{}, []string{"4 session a v1 true", "4 session b v1 false", "4 v3", "4 synced", "4 heartbeat", "4 session a v2 true", "4 session b v2 false", "4 heartbeat", "9 v3"}},
		"host":      {&telexecv1.WatchEventsRequest{Host: "i"}, []string{"4 session b v1 false", "4 v3", "4 synced", "4 heartbeat", "4 session b v2 false", "4 heartbeat", "9 v3"}},
		"principal": {&telexecv1.WatchEventsRequest{Principal: "ann"}, []string{"4 session a v1 true", "4 v3", "4 synced", "4 heartbeat", "4 session a v2 true", "4 heartbeat", "9 v3"}},
		"labels":    {&telexecv1.WatchEventsRequest{Labels: map[string]string{"x": "1", "y": "2"}}, []string{"4 session b v1 false", "4 v3", "4 synced", "4 heartbeat", "4 heartbeat", "9 v3"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bulletin{number: 4, news: []any{News{4, new(running())}, News{4, nil}, 40 * time.Second, News{9, new(running())}, over}}
				st, out := &stage{news: slices.Clone(news)}, &eventSink{ctx: asAnn(t)}
				if err := NewEvents(b, st, &flow{}).WatchEvents(c.ask, out); err != over || !slices.Equal(out.sent, c.want) {
					t.Errorf("%v: %q", err, out.sent)
				}
				if got := st.asked(); !slices.Equal(got, []string{"watch closed"}) || !b.closed {
					t.Errorf("%q, closed %v", got, b.closed)
				}
			})
		})
	}
	broken := errors.New("broken")
	for name, news := range map[string][]any{"at once": {broken}, "later": {nil, time.Second, broken}} {
		synctest.Test(t, func(t *testing.T) {
			b := &bulletin{news: []any{time.Hour}}
			st := &stage{news: news}
			if err := NewEvents(b, st, &flow{}).WatchEvents(&telexecv1.WatchEventsRequest{}, &eventSink{ctx: asAnn(t)}); err != broken || !b.closed {
				t.Errorf("%s: %v", name, err)
			}
			if got := st.asked(); !slices.Equal(got, []string{"watch closed"}) {
				t.Errorf("%s: %q", name, got)
			}
		})
	}
}
