package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/session"
)

// Happenings tells what happens to all commands.
type Happenings interface {
	// WatchEvents begins to watch; the caller closes the watcher. EVENTS_UNKNOWN where
	// o.After lies behind the last change.
	WatchEvents(ctx context.Context, by access.Caller, o EventsOptions) (EventsWatcher, error)
}

// EventsOptions says what changes to watch. All that is set must match.
type EventsOptions struct {
	After     *int64 // what has changed behind this number comes first; nil: nothing does
	Host      string
	Principal string
	Labels    map[string]string
}

// EventsWatcher is one watcher of events, for one goroutine.
type EventsWatcher interface {
	// Next waits for the next news. After an error of ctx it may be called again:
	// nothing is lost.
	Next(ctx context.Context) (News, error)
	// Number is how far the changes were told.
	Number() int64
	// Close ends the watch.
	Close()
}

// News is one thing that a watcher of events is told.
type News struct {
	Number   int64     // whoever comes back behind it misses nothing
	Snapshot *Snapshot // a command as it is now; nil: all that was missed has been told
}

// Events answers for EventService.
type Events struct {
	telexecv1.UnsafeEventServiceServer // a new call of the proto does not compile until it is answered

	happenings Happenings
	shells     Shells
	workflow   Workflow
}

// NewEvents makes the service.
func NewEvents(h Happenings, s Shells, w Workflow) *Events {
	return &Events{happenings: h, shells: s, workflow: w}
}

// WatchEvents is of EventService. Commands, sessions and tasks are watches each in a
// goroutine of its own; what they tell comes under a lock.
func (e *Events) WatchEvents(r *telexecv1.WatchEventsRequest, out grpc.ServerStreamingServer[telexecv1.WatchEventsResponse]) error {
	ctx, end := context.WithCancelCause(out.Context())
	defer end(nil)
	by := caller(ctx)
	w, err := e.happenings.WatchEvents(ctx, by, EventsOptions{
		After: r.After, Host: r.GetHost(), Principal: r.GetPrincipal(), Labels: r.GetLabels(),
	})
	if err != nil {
		return err
	}
	defer w.Close()
	t := herald{out: out, number: w.Number()}
	sessions := sessionNews{shells: e.shells, by: by, host: r.GetHost(), principal: r.GetPrincipal(), labels: r.GetLabels(), herald: &t}
	sessions.watcher = e.shells.Watch(ctx, by)
	if err := sessions.tell(ctx, true); err != nil { // before anything says that all has been told
		sessions.watcher.Close()
		return err
	}
	var listening sync.WaitGroup
	defer listening.Wait()
	defer end(nil)
	listening.Go(func() {
		defer sessions.watcher.Close()
		if err := sessions.tell(ctx, false); err != nil {
			end(err)
		}
	})
	if r.GetHost() == "" {
		tasks, err := e.workflow.WatchAll(ctx, by, TasksOptions{After: r.GetTaskSequences(), Principal: r.GetPrincipal(), Labels: r.GetLabels()})
		if err != nil {
			return err
		}
		if err := tellTasks(ctx, &t, tasks, true); err != nil {
			tasks.Close()
			return err
		}
		listening.Go(func() {
			defer tasks.Close()
			if err := tellTasks(ctx, &t, tasks, false); err != nil {
				end(err)
			}
		})
	}
	err = tellCommands(ctx, &t, w, heartbeatOf(r.GetHeartbeat()))
	if cause := context.Cause(ctx); cause != nil && out.Context().Err() == nil {
		return cause // why the other one has ended it
	}
	return err
}

// tellCommands tells what becomes of commands, until it fails.
func tellCommands(ctx context.Context, t *herald, w EventsWatcher, heartbeat time.Duration) error {
	for {
		m := &telexecv1.WatchEventsResponse{}
		switch news, err := nextWithin(ctx, w.Next, heartbeat); {
		case errors.Is(err, errSilence):
			m.Sequence = w.Number()
			m.Event = &telexecv1.WatchEventsResponse_Heartbeat{Heartbeat: &telexecv1.EventHeartbeat{}}
		case err != nil:
			return err
		case news.Snapshot == nil:
			m.Sequence = news.Number
			m.Event = &telexecv1.WatchEventsResponse_Synced{Synced: &telexecv1.Synced{}}
		default:
			m.Sequence = news.Number
			m.Event = &telexecv1.WatchEventsResponse_Command{Command: commandToProto(*news.Snapshot, time.Now())}
		}
		if err := t.send(m); err != nil {
			return err
		}
	}
}

// tellTasks tells what becomes of tasks until it fails, or, with known, until what was
// there when the watch began has been told.
func tellTasks(ctx context.Context, t *herald, w TasksWatcher, known bool) error {
	for {
		news, err := w.Next(ctx)
		if err != nil {
			return err
		}
		m := &telexecv1.WatchEventsResponse{}
		switch {
		case news.Known:
			if known {
				return nil
			}
			continue
		case news.Event != nil:
			m.Event = &telexecv1.WatchEventsResponse_TaskEvent{TaskEvent: taskEventToProto(*news.Event, &news.View.Task)}
		default:
			m.Event = &telexecv1.WatchEventsResponse_Task{Task: taskToProto(*news.View)}
		}
		if err := t.send(m); err != nil {
			return err
		}
	}
}

// herald puts events on the wire. The number of what changes is that of commands: it
// goes with what is told of sessions and tasks as it is.
type herald struct {
	mu     sync.Mutex // held while the stream sends
	out    grpc.ServerStreamingServer[telexecv1.WatchEventsResponse]
	number int64 // as far as told
}

func (t *herald) send(m *telexecv1.WatchEventsResponse) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.GetSession() != nil || m.GetTask() != nil || m.GetTaskEvent() != nil {
		m.Sequence = t.number
	}
	t.number = m.GetSequence()
	m.Time = timestamppb.Now()
	return t.out.Send(m)
}

// sessionNews tells what becomes of sessions.
type sessionNews struct {
	shells          Shells
	by              access.Caller
	host, principal string
	labels          map[string]string
	watcher         SessionsWatcher
	herald          *herald
}

// tell tells of sessions until it fails, or, with known, until those have been told that
// had not ended when the watch began.
func (n *sessionNews) tell(ctx context.Context, known bool) error {
	for {
		s, err := n.watcher.Next(ctx)
		if err != nil {
			return err
		}
		if s == nil {
			if known {
				return nil
			}
			continue
		}
		if !n.wanted(s) {
			continue
		}
		p := sessionToProto(*s, n.shells.MayType(n.by, *s))
		if err := n.herald.send(&telexecv1.WatchEventsResponse{Event: &telexecv1.WatchEventsResponse_Session{Session: p}}); err != nil {
			return err
		}
	}
}

// wanted reports whether a session is among those that were asked for.
func (n *sessionNews) wanted(s *session.Session) bool {
	if !(session.Filter{Host: n.host, Principal: n.principal}).Has(s) {
		return false
	}
	for key, value := range n.labels {
		if has, ok := s.Spec.Labels[key]; !ok || has != value {
			return false
		}
	}
	return true
}
