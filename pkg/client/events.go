package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// Events tells every change of the commands and sessions that the caller may see, as they
// are now, and every event of tasks; see WatchEvents of EventService for what comes first.
// It never ends by itself, but with an error: the service refused, the context
// ended, or nothing came for Options.ResumeFor.
//
// It resumes by itself: when the connection or the service goes away it comes back,
// with growing pauses, and what has changed meanwhile is told. The event "synced"
// comes once; what has not ended is told again behind a loss where it has changed.
// A command may be told twice in one version, and never in an older one than before. Of a
// task that was told each event is told once and in its order; where there are more than
// 1000, behind a loss only of those that were told last, and the others are met anew.
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
	stream, err := c.events.WatchEvents(streamCtx, r.request())
	if err != nil {
		return c.decode(ctx, err)
	}
	// As in streamOnce: only while waiting.
	silence := time.AfterFunc(r.silence, cancel)
	defer silence.Stop()
	for synced := false; ; {
		silence.Reset(r.silence)
		event, err := stream.Recv()
		silence.Stop()
		if errors.Is(err, io.EOF) {
			return newError(codes.Unavailable, ReasonUnreachable, "the service at %s ended the stream", c.server)
		}
		if err != nil {
			e := c.decode(ctx, err)
			// Retention has removed it, which only an admin is told.
			gone := e.Reason == reasonUnknownTask || e.Reason == reasonAccessDenied
			if gone && r.forget(e.Metadata["task_id"]) {
				e.RetryAfter = minDelay
			}
			return e
		}
		p.progress()
		synced = synced || event.GetSynced() != nil
		if r.accept(event, synced) && !yield(event, nil) {
			return nil
		}
	}
}

// eventReader is how far the reading of events has come.
type eventReader struct {
	req     *telexecv1.WatchEventsRequest // with After as far as was read
	silence time.Duration
	synced  bool              // was told over any connection
	lives   map[string]lived  // the commands that had not ended when they were told last
	tasks   map[string]placed // the tasks that were told, by id
	recent  []string          // their ids, in the order in which they were told last
	over    []string          // of them, those that have ended, in the order of their ends
}

// placed is how far a task was told.
type placed struct {
	told  int64 // the last event; 0 for none
	after int64 // behind which to go on
	met   bool  // it was told itself
}

const (
	// tasksKept is how many tasks are remembered: the service takes no more.
	tasksKept = 1000
	// overKept is how many of them may have ended: the end may have been told but for its
	// last event, and it may be undone while nobody listens.
	overKept = 100
)

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
	r := &eventReader{req: proto.CloneOf(req), silence: 3 * heartbeat, lives: make(map[string]lived), tasks: make(map[string]placed)}
	for id, after := range req.GetTaskSequences() {
		r.tasks[id] = placed{told: after, after: after}
	}
	r.recent = slices.Sorted(maps.Keys(r.tasks))
	return r
}

// request is what to ask the service for now.
func (r *eventReader) request() *telexecv1.WatchEventsRequest {
	r.req.TaskSequences = make(map[string]int64, len(r.tasks))
	for id, is := range r.tasks {
		r.req.TaskSequences[id] = is.after
	}
	return r.req
}

// accept reports whether an event is news to the receiver. synced says that this
// connection has told what there was.
func (r *eventReader) accept(event *telexecv1.WatchEventsResponse, synced bool) bool {
	r.req.After = new(event.GetSequence())
	switch {
	case event.GetTask() != nil:
		return r.acceptTask(event.GetTask(), synced)
	case event.GetTaskEvent() != nil:
		return r.acceptTaskEvent(event.GetTaskEvent())
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

// acceptTask is accept of a task as it is, which comes before its events. One that was
// there before the watch is told from there on, and a new one from its beginning.
func (r *eventReader) acceptTask(t *telexecv1.Task, synced bool) bool {
	is, known := r.tasks[t.GetId()]
	first := !is.met
	is.met = true
	if !known && (!synced || t.GetUndo() != nil) {
		is.after = t.GetSequence()
	}
	r.remember(t.GetId(), is)
	return first
}

// acceptTaskEvent is accept of an event of a task.
func (r *eventReader) acceptTaskEvent(e *telexecv1.TaskEvent) bool {
	id := e.GetTaskId()
	is := r.tasks[id]
	if e.GetSequence() <= is.told {
		return false
	}
	is.told, is.after = e.GetSequence(), e.GetSequence()
	r.over = without(r.over, id)
	if e.GetState() >= telexecv1.TaskState_TASK_STATE_COMPLETED {
		r.over = append(r.over, id)
	}
	r.remember(id, is)
	return true
}

// remember notes how far a task was told. Of those that have ended, and of too many, the
// first are dropped.
func (r *eventReader) remember(id string, is placed) {
	r.tasks[id] = is
	r.recent = append(without(r.recent, id), id)
	if len(r.over) > overKept {
		r.drop(r.over[0])
	}
	if len(r.recent) > tasksKept {
		r.drop(r.recent[0])
	}
}

// forget gives up a task that the service has not any more, and reports whether it was one
// that this watch has met: one that the caller has named is the caller's error.
func (r *eventReader) forget(id string) bool {
	if !r.tasks[id].met {
		return false
	}
	r.drop(id)
	return true
}

func (r *eventReader) drop(id string) {
	delete(r.tasks, id)
	r.recent, r.over = without(r.recent, id), without(r.over, id)
}

// without gives ids, in whose place it is, but for one.
func without(ids []string, id string) []string {
	return slices.DeleteFunc(ids, func(one string) bool { return one == id })
}
