package workflow

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/task"
)

// Watch is one watcher of a task: a cursor behind its events, which are stored. So it
// misses none however slow it is, and slows nobody. Its methods are for one goroutine.
type Watch struct {
	w     *Workflow
	by    access.Caller
	id    string
	after int64
	page  []task.Event
}

// watchPage is how many events are read at once.
const watchPage = 200

// Watch begins to tell the events of a task behind a sequence number. EVENTS_UNKNOWN
// where there is no such event yet.
func (w *Workflow) Watch(ctx context.Context, by access.Caller, id string, after int64) (*Watch, View, error) {
	v, err := w.Get(ctx, by, id)
	if err != nil {
		return nil, v, err
	}
	if after > v.Sequence {
		return nil, v, fault.New(fault.OutOfRange, fault.ReasonEventsUnknown, "the last event of the task has number %d; %d lies behind it", v.Sequence, after).
			WithHint("Begin again with after 0").With("task_id", id)
	}
	return &Watch{w: w, by: by, id: id, after: after}, v, nil
}

// Next waits for the next event. over is the task, when it has ended and all its events
// were told; it may be asked again, should the task be undone. When ctx ends it gives
// ctx's error, and nothing is lost. DRAINING when the service stops.
func (w *Watch) Next(ctx context.Context) (e task.Event, over *View, err error) {
	for {
		if len(w.page) > 0 {
			e, w.page = w.page[0], w.page[1:]
			w.after = e.Sequence
			return e, nil, nil
		}
		rung := w.w.bellOf(w.id).Rung()
		v, err := w.w.read(ctx, w.id)
		if err != nil {
			return task.Event{}, nil, err
		}
		if v.Sequence > w.after {
			if w.page, err = w.w.events(ctx, &v, w.after); err != nil {
				return task.Event{}, nil, err
			}
			if len(w.page) > 0 {
				continue
			}
		}
		if v.Ended() && v.Sequence <= w.after {
			return task.Event{}, &v, nil
		}
		select {
		case <-rung:
		case <-w.w.stopped():
			return task.Event{}, nil, stopping()
		case <-ctx.Done():
			return task.Event{}, nil, context.Cause(ctx)
		}
	}
}

// events reads what is behind a number, but for what the view does not know of yet: it is
// stored, and about to be told.
func (w *Workflow) events(ctx context.Context, v *View, after int64) ([]task.Event, error) {
	page, err := w.Journal.TaskEvents(ctx, v.ID, after, watchPage)
	for len(page) > 0 && page[len(page)-1].Sequence > v.Sequence {
		page = page[:len(page)-1]
	}
	return page, err
}

// stopping is the end of a watch while the service stops.
func stopping() error {
	return fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down and tells nothing more").
		WithHint("Watch again in a moment, behind the last sequence").WithRetry(time.Second)
}

// stopped is closed when the service stops.
func (w *Workflow) stopped() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx == nil {
		return nil
	}
	return w.ctx.Done()
}
