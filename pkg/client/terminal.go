package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

const (
	// maxInput is how many bytes one request to a terminal has.
	maxInput = 64 << 10
	// defaultWindow is what the service uses where a start asks for none.
	defaultWindow = 256 << 10
)

// Terminal is the terminal of a session, to which the caller is attached for as long
// as it ranges over Events. Its methods may be called by many goroutines at once.
//
// It resumes by itself: when the connection or the service goes away it comes back,
// with growing pauses, and the output goes on at the exact byte, or, where the session
// has lost it, behind a new screen. What is typed meanwhile is refused, and what was
// on its way may be lost: nobody can say whether it was typed.
type Terminal struct {
	client *Client
	name   string                 // of the session, as it was asked for
	start  *telexecv1.AttachStart // from_offset is how far it has come; unset while a screen is not there whole; of Events
	at     int64                  // where the output goes on; of Events

	mu   sync.Mutex
	size *telexecv1.TerminalSize // as told last
	line *line                   // to the service; nil: not connected
	left bool                    // by Leave
	end  context.CancelFunc      // of Events; nil: it was not ranged over
}

// Attach gives the terminal of a session; start says which, and how. Nothing happens
// before Events is ranged over.
func (c *Client) Attach(start *telexecv1.AttachStart) *Terminal {
	start = proto.CloneOf(start)
	return &Terminal{client: c, name: start.GetSession(), start: start, size: start.GetSize()}
}

// line is one connection of a terminal: what goes out over it.
type line struct {
	requests chan *telexecv1.AttachRequest // to send; nobody closes it, and it holds nothing, so that who types waits for the service
	last     chan struct{}                 // closed by Leave: nothing is to be sent behind what was
	done     chan struct{}                 // closed by finished
	doneOnce sync.Once
	over     <-chan struct{} // closed when the connection is

	mu    sync.Mutex
	taken int64         // output that was taken, to be acknowledged
	bell  chan struct{} // taken has changed; of 1, so that it never blocks
}

// Events attaches, and tells what happens at the terminal until "ended". "attached"
// comes with every connection; where it is not resumed, a screen follows that stands
// for all before it. What of the output was taken is acknowledged here, behind the
// loop's body, so that a slow receiver slows nobody. Silence for three heartbeats
// counts as a lost connection.
//
// The sequence ends behind "ended", or with an error: the service refused, the context
// ended, or nothing came for Options.ResumeFor. Leaving the loop detaches, and what was
// typed just before may be lost: see Leave. It may be ranged over once.
func (t *Terminal) Events(ctx context.Context) iter.Seq2[*telexecv1.AttachResponse, error] {
	return func(yield func(*telexecv1.AttachResponse, error) bool) {
		ctx, end := context.WithCancel(ctx)
		defer end()
		t.mu.Lock()
		t.end = end
		left := t.left
		t.mu.Unlock()
		if left {
			return
		}
		err := t.client.resuming(ctx, func(p *pause) *Error { return t.attachOnce(ctx, p, yield) })
		if err != nil && !t.hasLeft() {
			err.set("session", t.name)
			yield(nil, err)
		}
	}
}

// attachOnce is attached over one connection. It gives nil when nothing more is to be
// done.
func (t *Terminal) attachOnce(ctx context.Context, p *pause, yield func(*telexecv1.AttachResponse, error) bool) *Error {
	c := t.client
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.sessions.Attach(streamCtx)
	if err != nil {
		return c.decode(ctx, err)
	}
	t.mu.Lock()
	t.start.Size = t.size
	t.mu.Unlock()
	if err := stream.Send(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: proto.CloneOf(t.start)}}); err != nil && !errors.Is(err, io.EOF) {
		return c.decode(ctx, err) // io.EOF: Recv tells why
	}
	l := &line{
		requests: make(chan *telexecv1.AttachRequest), last: make(chan struct{}), done: make(chan struct{}),
		over: streamCtx.Done(), bell: make(chan struct{}, 1),
	}
	var sending sync.WaitGroup
	sending.Go(func() { l.send(stream) })
	defer sending.Wait()
	defer cancel()
	defer t.connected(nil)

	// As in streamOnce: only while waiting.
	silence := time.AfterFunc(3*defaultHeartbeat, cancel)
	defer silence.Stop()
	window := int64(t.start.GetWindowBytes())
	if window == 0 {
		window = defaultWindow
	}
	acknowledged := int64(-1)
	for {
		silence.Reset(3 * defaultHeartbeat)
		event, err := stream.Recv()
		silence.Stop()
		if errors.Is(err, io.EOF) {
			if t.hasLeft() {
				l.finished()
				return nil
			}
			return newError(codes.Unavailable, ReasonUnreachable, "the service at %s ended the terminal too early", c.server)
		}
		if err != nil {
			return c.decode(ctx, err)
		}
		at, protocolErr := t.follow(event)
		if protocolErr != nil {
			return protocolErr
		}
		p.progress()
		if a := event.GetAttached(); a != nil {
			t.connected(l)
		}
		if !yield(event, nil) || event.GetEnded() != nil {
			return nil
		}
		if acknowledged < 0 {
			acknowledged = at
		}
		if at-acknowledged >= window/4 {
			acknowledged = at
			l.acknowledge(at)
		}
	}
}

// follow notes how far an event leads, and gives where the output goes on. A screen
// comes in pieces and does not say which is the last: it is there whole when something
// comes that only follows on one. A loss before that begins with the screen again.
func (t *Terminal) follow(event *telexecv1.AttachResponse) (int64, *Error) {
	switch r := event.GetResponse().(type) {
	case *telexecv1.AttachResponse_Attached:
		// Its id from now on: when the connection is back another may have its name.
		t.start.Session = r.Attached.GetSession().GetId()
		t.at, t.start.FromOffset = r.Attached.GetOffset(), nil
		if r.Attached.GetResumed() {
			t.start.FromOffset = new(t.at)
		}
	case *telexecv1.AttachResponse_Screen:
		t.at, t.start.FromOffset = r.Screen.GetOffset(), nil
	case *telexecv1.AttachResponse_Output:
		if r.Output.GetOffset() != t.at {
			return 0, newError(codes.DataLoss, ReasonProtocol, "the service sent byte %d of the terminal where %d was to come", r.Output.GetOffset(), t.at)
		}
		t.at += int64(len(r.Output.GetData()))
		t.start.FromOffset = new(t.at)
	case *telexecv1.AttachResponse_Session, *telexecv1.AttachResponse_Typed, *telexecv1.AttachResponse_Heartbeat:
		t.start.FromOffset = new(t.at)
	}
	return t.at, nil
}

// connected notes the connection over which the terminal can be typed at; nil: none.
// Who has left types no more.
func (t *Terminal) connected(l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.line = l; t.left {
		t.line = nil
	}
}

func (t *Terminal) hasLeft() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left
}

// acknowledge has it sent that all output before the offset was taken.
func (l *line) acknowledge(offset int64) {
	l.mu.Lock()
	l.taken = offset
	l.mu.Unlock()
	select {
	case l.bell <- struct{}{}:
	default: // it is rung already
	}
}

// finished notes that the service has done all that it was asked for.
func (l *line) finished() { l.doneOnce.Do(func() { close(l.done) }) }

// send sends what is to be sent until the connection is over, or left. A send that
// fails is told by the receiving side.
func (l *line) send(stream grpc.BidiStreamingClient[telexecv1.AttachRequest, telexecv1.AttachResponse]) {
	for asked := false; ; {
		var r *telexecv1.AttachRequest
		select {
		case r = <-l.requests:
			asked = true
		case <-l.bell:
			l.mu.Lock()
			r = &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Acknowledged{Acknowledged: l.taken}}
			l.mu.Unlock()
		case <-l.last:
			if asked {
				// The service ends the call when it has done what came before.
				_ = stream.CloseSend()
			} else {
				l.finished()
			}
			return
		case <-l.over:
			return
		}
		if stream.Send(r) != nil {
			<-l.over
			return
		}
	}
}

// say sends one request. It waits while the service takes nothing.
func (t *Terminal) say(ctx context.Context, r *telexecv1.AttachRequest) error {
	t.mu.Lock()
	l := t.line
	t.mu.Unlock()
	if l == nil {
		return notAttached(t.name)
	}
	select {
	case l.requests <- r:
		return nil
	case <-l.last:
		return notAttached(t.name)
	case <-l.over:
		return notAttached(t.name)
	case <-ctx.Done():
		return t.client.decode(ctx, ctx.Err())
	}
}

// Leave detaches when the service has done what it was asked for: what was typed by
// calls that have returned is typed then, or was refused, which Events still tells. It
// waits for that until ctx ends. Whatever comes of it, Events then ends, without an
// error, and nothing can be typed any more.
//
// An error means that what was typed last may be lost: the error of ctx, or
// SERVER_UNREACHABLE where the terminal is not connected, or is no more. Leave is not to
// be called from within the loop over Events, which must go on meanwhile, nor twice.
func (t *Terminal) Leave(ctx context.Context) error {
	t.mu.Lock()
	l, end := t.line, t.end
	t.line, t.left = nil, true
	t.mu.Unlock()
	if end != nil {
		defer end()
	}
	if l == nil {
		return notAttached(t.name)
	}
	close(l.last)
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return t.client.decode(ctx, ctx.Err())
	case <-l.over:
	}
	select {
	case <-l.done: // which is why it is over
		return nil
	default:
		return notAttached(t.name)
	}
}

func notAttached(session string) *Error {
	return newError(codes.Unavailable, ReasonUnreachable, "the terminal of %s is not connected just now; nothing was sent", session).
		withHint("Type it again when it is; \"attached\" tells")
}

// Input types. What the service refuses it tells as an event. SERVER_UNREACHABLE
// while the terminal is not connected.
func (t *Terminal) Input(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		part := data[:min(len(data), maxInput)]
		data = data[len(part):]
		// The stream sends it when it comes to it, and the caller goes on with its buffer.
		part = append([]byte(nil), part...)
		if err := t.say(ctx, &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Input{Input: part}}); err != nil {
			return err
		}
	}
	return nil
}

// Resize tells the size of the caller's window, also to every later connection.
func (t *Terminal) Resize(ctx context.Context, columns, rows int) error {
	size := &telexecv1.TerminalSize{Columns: int32(columns), Rows: int32(rows)}
	t.mu.Lock()
	t.size = size
	connected := t.line != nil
	t.mu.Unlock()
	if !connected {
		return nil // the next connection begins with it
	}
	return t.say(ctx, &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Resize{Resize: size}})
}

// Keyboard takes the keyboard, releases it or hands it over to the viewer of the id.
func (t *Terminal) Keyboard(ctx context.Context, action telexecv1.KeyboardAction, viewer string) error {
	return t.say(ctx, &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Keyboard{
		Keyboard: &telexecv1.KeyboardRequest{Action: action, Viewer: viewer},
	}})
}
