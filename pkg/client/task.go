package client

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// SubmitTask stores a task, which then runs whatever becomes of the caller. Where req
// has no request id the client sets one (in a copy), so that an answer lost on the way is
// asked for again and the task still runs once; as Execute does.
func (c *Client) SubmitTask(ctx context.Context, req *telexecv1.SubmitTaskRequest) (*telexecv1.SubmitTaskResponse, error) {
	if req.GetRequestId() == "" {
		req = proto.CloneOf(req)
		req.RequestId = rand.Text()
	}
	resp, err := call(ctx, c, true, c.tasks.SubmitTask, req)
	if e, ok := asError(err); ok && c.connected.Load() {
		e.set("request_id", req.GetRequestId())
	}
	return resp, err
}

// GetTask tells where a task is and what it waits for; a long-poll with req.Wait.
func (c *Client) GetTask(ctx context.Context, req *telexecv1.GetTaskRequest) (*telexecv1.GetTaskResponse, error) {
	return call(ctx, c, true, c.tasks.GetTask, req)
}

// ListTasks gives the tasks that match req, newest first, over all pages; as
// ListCommands.
func (c *Client) ListTasks(ctx context.Context, req *telexecv1.ListTasksRequest) iter.Seq2[*telexecv1.Task, error] {
	req = proto.CloneOf(req)
	return pages(func(token string) ([]*telexecv1.Task, string, error) {
		if token != "" {
			req.PageToken = token
		}
		resp, err := c.ListTasksPage(ctx, req)
		return resp.GetTasks(), resp.GetNextPageToken(), err
	})
}

// ListTasksPage gives one page, for callers that page themselves.
func (c *Client) ListTasksPage(ctx context.Context, req *telexecv1.ListTasksRequest) (*telexecv1.ListTasksResponse, error) {
	return call(ctx, c, true, c.tasks.ListTasks, req)
}

// CancelTask cancels what runs of a task, or of its undo; harmless when it has ended
// before.
func (c *Client) CancelTask(ctx context.Context, req *telexecv1.CancelTaskRequest) (*telexecv1.CancelTaskResponse, error) {
	return call(ctx, c, true, c.tasks.CancelTask, req)
}

// UndoTask begins to take back what a task has done, or with req.Preview tells what that
// would be. Once it may have reached the service it is not tried again, but for a preview:
// where it is then not known whether the undo has begun, the error says so in its hint, and
// GetTask tells.
func (c *Client) UndoTask(ctx context.Context, req *telexecv1.UndoTaskRequest) (*telexecv1.UndoTaskResponse, error) {
	resp, err := call(ctx, c, req.GetPreview(), c.tasks.UndoTask, req)
	e, ok := asError(err)
	if ok && e.doubt && !req.GetPreview() && (e.leavesOpen() || e.temporary()) {
		return nil, e.inDoubt("Whether the undo has begun is not known: read the task %s again, and ask once more if it is not being undone", req.GetTaskId())
	}
	return resp, err
}

// DecideTask decides about one approval that a task waits for: req.Approved must be set, to
// yes or no. What DecideApprovals says of lost answers holds here too.
func (c *Client) DecideTask(ctx context.Context, req *telexecv1.DecideTaskRequest) (*telexecv1.DecideTaskResponse, error) {
	resp, err := call(ctx, c, true, c.tasks.DecideTask, req)
	e, ok := asError(err)
	if !ok || !e.doubt {
		return resp, err
	}
	taken, err := c.doubted(ctx, e, []*telexecv1.Decision{decisionOf(req)})
	if err != nil {
		return nil, err
	}
	return &telexecv1.DecideTaskResponse{Approval: taken[0]}, nil
}

// decisionOf is what a request decides.
func decisionOf(req *telexecv1.DecideTaskRequest) *telexecv1.Decision {
	d := &telexecv1.Decision{
		CommandId: req.GetApprovalId(), Verdict: telexecv1.Verdict_VERDICT_REJECT, RequestHash: req.GetRequestHash(), Reason: req.GetMessage(),
	}
	if req.GetApproved() {
		d.Verdict = telexecv1.Verdict_VERDICT_APPROVE
		if m := req.GetModifiedParameters(); m != nil {
			d.Verdict, d.Modified = telexecv1.Verdict_VERDICT_MODIFY, m
		}
	}
	return d
}

// WatchTask tells every event of a task behind req.After, each once and in its order,
// until the task has ended. First comes the task as it is, last as it has ended, behind
// all of its events; between them heartbeats are passed on, too.
//
// It resumes by itself: when the connection or the service goes away it comes back, with
// growing pauses, and goes on behind the last event. Silence for three heartbeats counts
// as a lost connection.
//
// The sequence ends behind the task that has ended, or with an error: the service
// refused, the context ended, or nothing came for Options.ResumeFor. EVENTS_UNKNOWN means
// that the store was put back to an earlier state, and the caller begins anew. Leaving the
// loop ends the stream and does not touch the task. A slow receiver misses nothing and slows
// nobody. The sequence may be ranged over more than once, each time from the start.
func (c *Client) WatchTask(ctx context.Context, req *telexecv1.WatchTaskRequest) iter.Seq2[*telexecv1.WatchTaskResponse, error] {
	return func(yield func(*telexecv1.WatchTaskResponse, error) bool) {
		r := newTaskReader(req)
		if err := c.resuming(ctx, func(p *pause) *Error { return c.watchTaskOnce(ctx, r, p, yield) }); err != nil {
			err.set("task_id", req.GetTaskId())
			yield(nil, err)
		}
	}
}

// watchTaskOnce watches over one connection. It gives nil when nothing more is to be
// done: the task has ended, or the receiver wants no more.
func (c *Client) watchTaskOnce(ctx context.Context, r *taskReader, p *pause, yield func(*telexecv1.WatchTaskResponse, error) bool) *Error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.tasks.WatchTask(streamCtx, r.req)
	if err != nil {
		return c.decode(ctx, err)
	}
	// As in streamOnce: only while waiting.
	silence := time.AfterFunc(r.silence, cancel)
	defer silence.Stop()
	for first := true; ; first = false {
		silence.Reset(r.silence)
		m, err := stream.Recv()
		silence.Stop()
		if errors.Is(err, io.EOF) {
			return newError(codes.Unavailable, ReasonUnreachable, "the service at %s ended the stream too early", c.server)
		}
		if err != nil {
			return c.decode(ctx, err)
		}
		news, protocolErr := r.accept(m, first)
		if protocolErr != nil {
			return protocolErr
		}
		if !news {
			continue
		}
		p.progress()
		if !yield(m, nil) || m.GetTask() != nil && !first {
			return nil
		}
	}
}

// taskReader is how far the watching of one task has come.
type taskReader struct {
	req     *telexecv1.WatchTaskRequest // with After as far as was told
	silence time.Duration
	told    bool // the task as it is, at the beginning
}

func newTaskReader(req *telexecv1.WatchTaskRequest) *taskReader {
	heartbeat := defaultHeartbeat
	if req.GetHeartbeat() != nil {
		heartbeat = req.GetHeartbeat().AsDuration()
	}
	return &taskReader{req: proto.CloneOf(req), silence: 3 * heartbeat}
}

// accept reports whether a message is news to the receiver. first says that it is the
// first one of its connection.
func (r *taskReader) accept(m *telexecv1.WatchTaskResponse, first bool) (bool, *Error) {
	switch {
	case m.GetTask() != nil && first:
		was := r.told
		r.told = true
		return !was, nil
	case m.GetEvent() != nil:
		n := m.GetEvent().GetSequence()
		if n <= r.req.GetAfter() {
			return false, nil
		}
		if n != r.req.GetAfter()+1 {
			return false, newError(codes.DataLoss, ReasonProtocol, "the service sent event %d of the task where %d was to come", n, r.req.GetAfter()+1)
		}
		r.req.After = n
	}
	return true, nil
}
