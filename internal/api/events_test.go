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
			err := NewEvents(b).WatchEvents(&telexecv1.WatchEventsRequest{
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
	if err := NewEvents(b).WatchEvents(&telexecv1.WatchEventsRequest{}, &eventSink{ctx: asAnn(t)}); err != refused || b.asked.After != nil {
		t.Errorf("%v, after %v", err, b.asked.After)
	}
	gone := errors.New("gone")
	b = &bulletin{news: []any{News{}}}
	if err := NewEvents(b).WatchEvents(&telexecv1.WatchEventsRequest{}, &eventSink{ctx: asAnn(t), fail: gone}); err != gone || !b.closed {
		t.Errorf("%v, closed %v", err, b.closed)
	}
}
