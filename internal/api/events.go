package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
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
}

// NewEvents makes the service.
func NewEvents(h Happenings) *Events { return &Events{happenings: h} }

// WatchEvents is of EventService.
func (e *Events) WatchEvents(r *telexecv1.WatchEventsRequest, out grpc.ServerStreamingServer[telexecv1.WatchEventsResponse]) error {
	ctx := out.Context()
	w, err := e.happenings.WatchEvents(ctx, caller(ctx), EventsOptions{
		After: r.After, Host: r.GetHost(), Principal: r.GetPrincipal(), Labels: r.GetLabels(),
	})
	if err != nil {
		return err
	}
	defer w.Close()
	heartbeat := heartbeatOf(r.GetHeartbeat())
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
		m.Time = timestamppb.Now()
		if err := out.Send(m); err != nil {
			return err
		}
	}
}
