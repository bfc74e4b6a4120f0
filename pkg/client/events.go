package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// Events tells every change of the commands that the caller may see, as commands
// that are as they are now; see WatchEvents of EventService for what comes first.
// It never ends by itself, but with an error: the service refused, the context
// ended, or nothing came for Options.ResumeFor.
//
// It resumes by itself: when the connection or the service goes away it comes back,
// with growing pauses, and what has changed meanwhile is told. The event "synced"
// comes once; what has not ended is told again behind a loss where it has changed.
// A command may be told twice in one version, and never in an older one than before.
// Silence for three heartbeats counts as a lost connection; heartbeats themselves are
// passed on.
//
// EVENTS_UNKNOWN ends the sequence: the store is another one than the one that gave
// req.After, or was put back to an earlier state, and the caller begins anew.
//
// Leaving the loop ends the stream. A slow receiver slows nobody: it misses steps in
// between, never the last one. The sequence may be ranged over more than once, each
// time from the start.
func (c *Client) Events(ctx context.Context, req *telexecv1.WatchEventsRequest) iter.Seq2[*telexecv1.WatchEventsResponse, error] {
	return func(yield func(*telexecv1.WatchEventsResponse, error) bool) {
		r := newEventReader(req)
		if err := c.resuming(ctx, func(p *pause) *Error { return c.eventsOnce(ctx, r, p, yield) }); err != nil {
			yield(nil, err)
		}
	}
}

// eventsOnce tells events over one connection. It gives nil when the receiver wants
// no more.
func (c *Client) eventsOnce(ctx context.Context, r *eventReader, p *pause, yield func(*telexecv1.WatchEventsResponse, error) bool) *Error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.events.WatchEvents(streamCtx, r.req)
	if err != nil {
		return c.decode(ctx, err)
	}
	// As in streamOnce: only while waiting.
	silence := time.AfterFunc(r.silence, cancel)
	defer silence.Stop()
	for {
		silence.Reset(r.silence)
		event, err := stream.Recv()
		silence.Stop()
		if errors.Is(err, io.EOF) {
			return newError(codes.Unavailable, ReasonUnreachable, "the service at %s ended the stream", c.server)
		}
		if err != nil {
			return c.decode(ctx, err)
		}
		p.progress()
		if r.accept(event) && !yield(event, nil) {
			return nil
		}
	}
}

// eventReader is how far the reading of events has come.
type eventReader struct {
	req     *telexecv1.WatchEventsRequest // with After as far as was read
	silence time.Duration
	synced  bool             // was told over any connection
	lives   map[string]lived // the commands that had not ended when they were told last
}

// lived is how a command that had not ended was told last. Its place in the queue
// moves without a new version.
type lived struct {
	version int64
	place   int32
}

func newEventReader(req *telexecv1.WatchEventsRequest) *eventReader {
	heartbeat := defaultHeartbeat
	if req.GetHeartbeat() != nil {
		heartbeat = req.GetHeartbeat().AsDuration()
	}
	return &eventReader{req: proto.CloneOf(req), silence: 3 * heartbeat, lives: make(map[string]lived)}
}

// accept reports whether an event is news to the receiver.
func (r *eventReader) accept(event *telexecv1.WatchEventsResponse) bool {
	r.req.After = new(event.GetSequence())
	switch {
	case event.GetSynced() != nil:
		first := !r.synced
		r.synced = true
		return first
	case event.GetCommand() == nil:
		return true
	}
	c := event.GetCommand()
	was, known := r.lives[c.GetId()]
	if c.GetState() >= telexecv1.CommandState_COMMAND_STATE_COMPLETED {
		delete(r.lives, c.GetId())
		return true
	}
	is := lived{c.GetVersion(), c.GetQueue().GetPosition()}
	if known && (is.version < was.version || is == was) {
		return false
	}
	r.lives[c.GetId()] = is
	return true
}
