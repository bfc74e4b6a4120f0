package socket

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/output"
)

const (
	// batchFor is how long output is gathered behind what was written; what comes alone
	// goes at once.
	batchFor = 20 * time.Millisecond
	// maxBatch is how many bytes of output a message has at most: in base64 they are
	// below 64 KiB, behind which nothing urgent waits long.
	maxBatch = 32 << 10
	// fullBatch is what is enough to be written at once. With so much a subscription takes
	// no more of its stream, so that of output that comes in bulk it holds one message.
	fullBatch = maxBatch / 2
	// maxParts is how many messages a batch may have, and maxUrgent how many of a
	// subscription may wait that are urgent.
	maxParts  = 64
	maxUrgent = 16
	// stallAfter is how long a batch may wait to be taken until the stream is let go of,
	// which gRPC holds some 100 KiB for. It is opened anew from the same byte.
	stallAfter = 3 * time.Second
	// retryStalled is how long after a refusal it is tried again, where that does not say.
	retryStalled = time.Second
)

// subscription is one of a socket. Its fields belong to the socket's mu, but for id
// and room.
type subscription struct {
	id   string
	room chan struct{} // something of it was taken; one pending is enough

	resource string
	stop     context.CancelFunc // nil before it runs
	batch    []message          // in their order
	bytes    int                // sizes of what is in it, and of what waits among the urgent ones
	urgent   int                // how many messages of it wait there
	version  int64              // that was told last
	taken    time.Time          // when something of the batch was last written
	ready    bool               // it is in the socket's ready
	timer    *time.Timer        // makes it ready; nil until it is first needed
	timed    bool               // the timer runs
	over     bool               // nothing more of it is written
}

// errStalled says that a client does not take what it has asked for.
var errStalled = errors.New("socket: the client does not read")

// watch runs a subscription whose id is taken. f follows it to its end, which it tells
// itself, unless it is a failure.
func (k *socket) watch(ctx context.Context, id, resource string, f func(context.Context, *subscription) error) {
	ctx, stop := context.WithCancel(ctx)
	k.mu.Lock()
	w := k.subs[id]
	if w == nil { // it was ended before it began
		k.mu.Unlock()
		stop()
		return
	}
	w.stop, w.resource = stop, resource
	k.mu.Unlock()
	k.tasks.Go(func() {
		defer stop()
		err := f(ctx, w)
		switch {
		case ctx.Err() != nil:
			k.mu.Lock()
			k.drop(w)
			k.mu.Unlock()
		case err != nil:
			k.breakOff(w, k.problem(err))
		}
	})
}

// breakOff tells that a subscription has failed, behind its output. What no other
// subscription would survive ends the socket.
func (k *socket) breakOff(w *subscription, told *spb.Status) {
	m := message{data: errorData(told), at: time.Now(), final: true}
	switch code.Code(told.GetCode()) {
	case code.Code_UNAUTHENTICATED:
		k.push(w, m)
		k.endWith(websocket.StatusPolicyViolation, "the credentials are over", nil)
	case code.Code_RESOURCE_EXHAUSTED:
		k.push(w, m)
		if w.id == k.first { // there is nothing else on it
			k.endWith(websocket.StatusTryAgainLater, "too many, or too often", nil)
		}
	default:
		k.offer(w, m)
	}
}

// subscribeOutput begins to send the output of a command.
func (k *socket) subscribeOutput(ctx context.Context, id string, r *telexecv1.StreamOutputRequest) {
	if r.GetStdoutOffset() > 0 || r.GetStderrOffset() > 0 || r.GetPosition() > 0 {
		k.set.o.Meter.SocketResumed()
	}
	resource := commandResource(r.GetCommandId())
	k.watch(ctx, id, resource, func(ctx context.Context, w *subscription) error {
		t := &outputTail{k: k, w: w, request: r, text: r.GetText()}
		r.Follow, r.Text = true, false
		return t.follow(ctx)
	})
}

// subscribeEvents begins to send what happens in the service.
func (k *socket) subscribeEvents(ctx context.Context, id string, r *telexecv1.WatchEventsRequest) {
	if r.GetAfter() > 0 {
		k.set.o.Meter.SocketResumed()
	}
	k.watch(ctx, id, "events", func(ctx context.Context, w *subscription) error {
		stream, err := telexecv1.NewEventServiceClient(k.set.o.Conn).WatchEvents(k.outgoing(ctx), r)
		for err == nil {
			var ev *telexecv1.WatchEventsResponse
			if err = k.waitRoom(ctx, w, 0); err == nil {
				ev, err = stream.Recv()
			}
			if err == nil {
				// A task may be a hundred long command lines: one at once is enough.
				k.push(w, message{data: eventData(ev), version: ev.GetSequence(), at: saidAt(ev.GetTime()), size: proto.Size(ev.GetTask())})
			}
		}
		if errors.Is(err, io.EOF) {
			k.push(w, message{data: unsubscribed(), at: time.Now(), final: true})
			return nil
		}
		return err
	})
}

func eventData(ev *telexecv1.WatchEventsResponse) *telexecv1.SocketData {
	switch e := ev.GetEvent().(type) {
	case *telexecv1.WatchEventsResponse_Command:
		return &telexecv1.SocketData{Data: &telexecv1.SocketData_Event{Event: e.Command}}
	case *telexecv1.WatchEventsResponse_Synced:
		return &telexecv1.SocketData{Data: &telexecv1.SocketData_Synced{Synced: e.Synced}}
	case *telexecv1.WatchEventsResponse_Session:
		return &telexecv1.SocketData{Data: &telexecv1.SocketData_Session{Session: e.Session}}
	case *telexecv1.WatchEventsResponse_Task:
		return taskData(e.Task)
	case *telexecv1.WatchEventsResponse_TaskEvent:
		return taskEventData(e.TaskEvent)
	}
	return heartbeat()
}

func taskData(t *telexecv1.Task) *telexecv1.SocketData {
	return &telexecv1.SocketData{Data: &telexecv1.SocketData_Task{Task: t}}
}

func taskEventData(e *telexecv1.TaskEvent) *telexecv1.SocketData {
	return &telexecv1.SocketData{Data: &telexecv1.SocketData_TaskEvent{TaskEvent: e}}
}

func heartbeat() *telexecv1.SocketData {
	return &telexecv1.SocketData{Data: &telexecv1.SocketData_Heartbeat{Heartbeat: &telexecv1.Heartbeat{}}}
}

// subscribeTask begins to send the events of a task. It is over with the task: the
// second message that has it is the last.
func (k *socket) subscribeTask(ctx context.Context, id string, r *telexecv1.WatchTaskRequest) {
	if r.GetAfter() > 0 {
		k.set.o.Meter.SocketResumed()
	}
	k.watch(ctx, id, taskResource(r.GetTaskId()), func(ctx context.Context, w *subscription) error {
		stream, err := telexecv1.NewTaskServiceClient(k.set.o.Conn).WatchTask(k.outgoing(ctx), r)
		// Where to go on is behind the last event that was told, whatever the task says.
		told, met := r.GetAfter(), false
		for err == nil {
			var said *telexecv1.WatchTaskResponse
			if err = k.waitRoom(ctx, w, 0); err == nil {
				said, err = stream.Recv()
			}
			if err != nil {
				break
			}
			m := message{data: heartbeat(), at: time.Now()}
			switch s := said.GetResponse().(type) {
			case *telexecv1.WatchTaskResponse_Event:
				m.data, told = taskEventData(s.Event), s.Event.GetSequence()
			case *telexecv1.WatchTaskResponse_Task:
				m.data, m.size, m.final = taskData(s.Task), proto.Size(s.Task), met
				met = true
			}
			m.version = told
			if k.push(w, m); m.final {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			k.push(w, message{data: unsubscribed(), version: told, at: time.Now(), final: true})
			return nil
		}
		return err
	})
}

// saidAt gives when the service said a message.
func saidAt(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Now()
	}
	return t.AsTime()
}

func unsubscribed() *telexecv1.SocketData {
	return &telexecv1.SocketData{Data: &telexecv1.SocketData_Unsubscribed{Unsubscribed: &telexecv1.Unsubscribed{}}}
}

// unsubscribe ends a subscription. Nothing of it comes behind the answer.
func (k *socket) unsubscribe(id, name string) {
	k.mu.Lock()
	w := k.subs[name]
	if w != nil {
		k.drop(w)
	}
	k.mu.Unlock()
	if w == nil {
		k.fail(message{id: id, answers: true}, invalid("there is no such subscription").
			WithHint("subscription is the id of the request that it was made by; it may have ended already"))
		return
	}
	k.tell(message{id: id, resource: w.resource, data: unsubscribed(), answers: true})
}

// drop ends a subscription, and what is not written of it is not. The caller holds mu.
func (k *socket) drop(w *subscription) {
	if w.over {
		return
	}
	w.over, w.batch, w.bytes = true, nil, 0
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.stop != nil {
		w.stop()
	}
	if k.subs[w.id] == w {
		delete(k.subs, w.id)
	}
	k.busy = time.Now()
	notify(k.wake)
	notify(w.room)
}

// push has a message of a subscription written before all bulk.
func (k *socket) push(w *subscription, m message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.over {
		return
	}
	m.id, m.resource, m.of = w.id, w.resource, w
	w.urgent++
	w.bytes += m.size
	k.urgent = append(k.urgent, m)
	notify(k.wake)
}

// offer has a message written in its turn, behind what the subscription has said
// before. Output joins what came right before it, and waits for a moment where some
// was written just now.
func (k *socket) offer(w *subscription, m message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.over {
		return
	}
	m.id, m.resource, m.of = w.id, w.resource, w
	if n := len(w.batch); n == 0 || !join(&w.batch[n-1], m) {
		w.batch = append(w.batch, m)
	}
	w.bytes += m.size
	due := w.taken.Add(batchFor)
	switch now := time.Now(); {
	case w.ready:
	case m.size == 0, w.bytes >= fullBatch, !now.Before(due):
		k.ripen(w)
	case w.timed:
	case w.timer == nil:
		w.timed = true
		w.timer = time.AfterFunc(due.Sub(now), func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if w.timed = false; !w.ready && !w.over && len(w.batch) > 0 {
				k.ripen(w)
			}
		})
	default:
		w.timed = true
		w.timer.Reset(due.Sub(now))
	}
}

// ripen makes a batch ready to be written. The caller holds mu.
func (k *socket) ripen(w *subscription) {
	w.ready = true
	k.ready = append(k.ready, w)
	notify(k.wake)
}

// join adds a chunk to the one before it, where it goes on there and both are not
// too much for a message.
func join(to *message, m message) bool {
	a, b := to.data.GetChunk(), m.data.GetChunk()
	if a == nil || b == nil || len(b.GetData()) == 0 || to.size+m.size > maxBatch || a.GetStream() != b.GetStream() ||
		a.GetOffset()+int64(len(a.GetData())) != b.GetOffset() || a.GetPosition()+int64(len(a.GetData())) != b.GetPosition() {
		return false
	}
	a.Data = append(a.Data, b.GetData()...)
	a.Text += b.GetText()
	to.size += m.size
	to.version = m.version
	return true
}

// waitRoom waits until a subscription may hold one more message; errStalled where
// that takes longer than within, unless it is 0.
func (k *socket) waitRoom(ctx context.Context, w *subscription, within time.Duration) error {
	var late <-chan time.Time
	for {
		k.mu.Lock()
		ok := w.bytes < fullBatch && len(w.batch) < maxParts && w.urgent < maxUrgent
		k.mu.Unlock()
		if ok {
			return ctx.Err()
		}
		if late == nil && within > 0 {
			timer := time.NewTimer(within)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-w.room:
		case <-late:
			return errStalled
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outputTail follows the output of a command for one subscription. It is for one
// goroutine.
type outputTail struct {
	k       *socket
	w       *subscription
	request *telexecv1.StreamOutputRequest // where it goes on
	text    bool
	decoder [telexecv1.Stream_STREAM_STDERR + 1]output.Text // of each stream, where text is wanted
	behind  [telexecv1.Stream_STREAM_STDERR + 1]int64       // position behind its last byte, likewise
	over    bool                                            // the command has ended, as far as was told
	version int64                                           // of the command, as told
	resumed bool
	first   bool // nothing of this stream has come
}

// follow reads to the end. A stream that nobody reads is let go of, and opened anew
// when the client has taken the batch before it.
func (t *outputTail) follow(ctx context.Context) error {
	for {
		err := t.read(ctx)
		again := time.Duration(0)
		switch {
		case errors.Is(err, errStalled):
			if err := t.k.waitRoom(ctx, t.w, 0); err != nil {
				return err
			}
		case err != nil && t.resumed:
			// The client has done nothing that could be too much: it was we who let go.
			var limited bool
			if again, limited = retryAfter(t.k.problem(err)); !limited {
				return err
			}
		default:
			return err
		}
		t.resumed = true
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// retryAfter tells when to try again what was refused because it was too much.
func retryAfter(told *spb.Status) (time.Duration, bool) {
	if told.GetCode() != int32(code.Code_RESOURCE_EXHAUSTED) {
		return 0, false
	}
	for _, d := range told.GetDetails() {
		retry := &errdetails.RetryInfo{}
		if d.UnmarshalTo(retry) == nil {
			return max(retry.GetRetryDelay().AsDuration(), time.Millisecond), true
		}
	}
	return retryStalled, true
}

// read follows one stream until it ends, or stalls.
func (t *outputTail) read(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := telexecv1.NewCommandServiceClient(t.k.set.o.Conn).StreamOutput(t.k.outgoing(ctx), t.request)
	if err != nil {
		return err
	}
	t.first = true
	patience := stallAfter
	if t.request.GetLimitBytes() > 0 {
		patience = 0 // how much is left of the limit would be ours to count
	}
	for {
		if err := t.k.waitRoom(ctx, t.w, patience); err != nil {
			return err
		}
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			t.k.offer(t.w, message{data: unsubscribed(), version: t.version, at: time.Now(), final: true})
			return nil
		}
		if err != nil {
			return err
		}
		if done, err := t.say(ctx, m, patience); done || err != nil {
			return err
		}
	}
}

// say gives one message of the stream to the writer; done: it was the last.
func (t *outputTail) say(ctx context.Context, m *telexecv1.StreamOutputResponse, patience time.Duration) (done bool, err error) {
	at, known := saidAt(m.GetTime()), t.first && t.resumed
	t.first = false
	offer := func(d *telexecv1.SocketData, final bool) {
		t.k.offer(t.w, message{data: d, version: t.version, at: at, final: final})
	}
	switch e := m.GetEvent().(type) {
	case *telexecv1.StreamOutputResponse_Command:
		if known && e.Command.GetVersion() <= t.version {
			return false, nil // every stream begins with one
		}
		t.version = max(t.version, e.Command.GetVersion())
		t.over = e.Command.GetState() >= telexecv1.CommandState_COMMAND_STATE_COMPLETED
		t.k.push(t.w, message{data: &telexecv1.SocketData{Data: &telexecv1.SocketData_Command{Command: e.Command}}, version: t.version, at: at})
	case *telexecv1.StreamOutputResponse_Chunk:
		return false, t.cut(ctx, e.Chunk, at, patience)
	case *telexecv1.StreamOutputResponse_Gap:
		t.release(e.Gap.GetStream(), e.Gap.GetFrom(), at)
		t.advance(e.Gap.GetStream(), e.Gap.GetTo(), 0)
		offer(&telexecv1.SocketData{Data: &telexecv1.SocketData_Gap{Gap: e.Gap}}, false)
	case *telexecv1.StreamOutputResponse_OutputComplete:
		if t.over || t.request.GetLimitBytes() == 0 { // else the rest of a character may come yet
			t.release(telexecv1.Stream_STREAM_STDOUT, e.OutputComplete.GetStdoutBytes(), at)
			t.release(telexecv1.Stream_STREAM_STDERR, e.OutputComplete.GetStderrBytes(), at)
		}
		offer(&telexecv1.SocketData{Data: &telexecv1.SocketData_OutputComplete{OutputComplete: e.OutputComplete}}, false)
	case *telexecv1.StreamOutputResponse_Heartbeat:
		offer(&telexecv1.SocketData{Data: &telexecv1.SocketData_Heartbeat{Heartbeat: e.Heartbeat}}, false)
	case *telexecv1.StreamOutputResponse_Ended:
		t.version = max(t.version, e.Ended.GetVersion())
		offer(&telexecv1.SocketData{Data: &telexecv1.SocketData_Ended{Ended: e.Ended}}, true)
		return true, nil
	}
	return false, nil
}

// cut gives a chunk to the writer, in parts that are not too large for a message.
func (t *outputTail) cut(ctx context.Context, c *telexecv1.OutputChunk, at time.Time, patience time.Duration) error {
	data, offset, position := c.GetData(), c.GetOffset(), c.GetPosition()
	for part := range slices.Chunk(data, maxBatch) {
		if err := t.k.waitRoom(ctx, t.w, patience); err != nil {
			return err
		}
		if len(part) < len(data) {
			part = slices.Clone(part) // not to keep all of it for the part that waits
		}
		chunk := &telexecv1.OutputChunk{Stream: c.GetStream(), Offset: offset, Position: position, Data: slices.Clip(part)}
		if d := t.decoderOf(c.GetStream()); d != nil {
			chunk.Text = d.Next(part)
			t.behind[c.GetStream()] = position + int64(len(part))
		}
		t.k.offer(t.w, message{
			data:    &telexecv1.SocketData{Data: &telexecv1.SocketData_Chunk{Chunk: chunk}},
			version: t.version, at: at, size: len(part),
		})
		offset += int64(len(part))
		position += int64(len(part))
		t.advance(c.GetStream(), offset, position)
	}
	return nil
}

// advance notes where to go on.
func (t *outputTail) advance(s telexecv1.Stream, offset, position int64) {
	switch {
	case t.request.Position != nil:
		t.request.Position = new(max(position, t.request.GetPosition()))
	case s == telexecv1.Stream_STREAM_STDOUT:
		t.request.StdoutOffset = offset
	case s == telexecv1.Stream_STREAM_STDERR:
		t.request.StderrOffset = offset
	}
}

func (t *outputTail) decoderOf(s telexecv1.Stream) *output.Text {
	if !t.text || int(s) < 0 || int(s) >= len(t.decoder) {
		return nil
	}
	return &t.decoder[s]
}

// release tells the beginning of a character that will never be completed.
func (t *outputTail) release(s telexecv1.Stream, at int64, when time.Time) {
	d := t.decoderOf(s)
	if d == nil {
		return
	}
	if text := d.End(); text != "" {
		t.k.offer(t.w, message{
			data: &telexecv1.SocketData{Data: &telexecv1.SocketData_Chunk{Chunk: &telexecv1.OutputChunk{
				Stream: s, Offset: at, Text: text, Position: t.behind[s],
			}}},
			version: t.version, at: when,
		})
	}
}
