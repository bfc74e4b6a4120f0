package socket

import (
	"context"
	"errors"
	"io"

	"github.com/coder/websocket"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// terminal is a socket of the other kind: each of its messages is an AttachRequest or
// an AttachResponse, and goes to or comes from one stream of the gRPC server.
//
// How much is on its way is bounded by the service, which waits for what the client
// acknowledges; what else it says waits here as for any subscription.
type terminal struct {
	k       *socket
	session string // of the path

	// The reader's own.
	stream  grpc.BidiStreamingClient[telexecv1.AttachRequest, telexecv1.AttachResponse] // nil: it could not be opened
	started bool
}

// terminalID names the one subscription that a terminal is to its socket.
const terminalID = "terminal"

func newTerminal(k *socket, session string) *terminal {
	k.subs[terminalID] = &subscription{id: terminalID, room: make(chan struct{}, 1)}
	return &terminal{k: k, session: session}
}

// open begins the stream, which lives by ctx.
func (t *terminal) open(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	stream, err := telexecv1.NewSessionServiceClient(t.k.set.o.Conn).Attach(t.k.outgoing(ctx))
	if err != nil {
		stop()
		t.fail(err)
		return
	}
	t.stream = stream
	t.k.watch(ctx, terminalID, "", func(ctx context.Context, w *subscription) error {
		defer stop()
		return t.follow(ctx, w)
	})
}

// follow sends what the stream says, to its end, and then ends the socket.
func (t *terminal) follow(ctx context.Context, w *subscription) error {
	for {
		if err := t.k.waitRoom(ctx, w, 0); err != nil {
			return err
		}
		m, err := t.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			t.taken(ctx, w)
			t.k.end(websocket.StatusNormalClosure, "the session has ended", nil)
			return nil
		case err != nil && ctx.Err() == nil:
			t.taken(ctx, w)
			t.fail(err)
			return nil
		case err != nil:
			return err
		}
		t.k.push(w, message{attach: m, at: saidAt(m.GetTime())})
	}
}

// taken waits until the client has all that the stream has said.
func (t *terminal) taken(ctx context.Context, w *subscription) {
	for {
		t.k.mu.Lock()
		left := w.urgent
		t.k.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-w.room:
		case <-ctx.Done():
			return
		}
	}
}

// receive passes on what the client says, in its order. It waits while the service
// takes nothing.
func (t *terminal) receive(kind websocket.MessageType, data []byte) {
	r := &telexecv1.AttachRequest{}
	err := decode(t.k.binary, kind, data, r, t.k.set.o.Unmarshal)
	start := r.GetStart()
	switch {
	case err != nil:
	case start != nil && t.started:
		err = invalid("start is the first request, and no other").WithHint("Open another WebSocket")
	case start == nil && !t.started:
		err = invalid("the first request is start").WithHint("Send {\"start\": {}} first; docs/websocket.md shows it")
	case start != nil && start.GetSession() != "" && start.GetSession() != t.session:
		err = invalid("start names another session than the path").WithHint("Leave session out: the path has it")
	case r.GetRequest() == nil:
		err = invalid("the request asks for nothing").WithHint("Give one of start, input, resize, acknowledged and keyboard")
	}
	if err != nil { // what comes behind it would stand in another order
		code := websocket.StatusPolicyViolation
		if broken, ok := errors.AsType[unreadable](err); ok {
			code = broken.code
		}
		t.k.end(code, "the message cannot be read", err)
		return
	}
	if start != nil {
		start.Session, t.started = t.session, true
	}
	if t.stream != nil {
		t.k.hand(func() { _ = t.stream.Send(r) }) // what is wrong with the stream, follow is told
	}
}

// fail tells why the stream broke off, and ends the socket.
func (t *terminal) fail(err error) {
	told := t.k.problem(err)
	status := websocket.StatusPolicyViolation
	reason := "refused"
	switch code.Code(told.GetCode()) {
	case code.Code_UNAVAILABLE:
		status, reason = websocket.StatusGoingAway, "the service is shutting down"
	case code.Code_RESOURCE_EXHAUSTED:
		status, reason = websocket.StatusTryAgainLater, "too many, or too often"
	case code.Code_UNAUTHENTICATED:
		reason = "the credentials are over"
	case code.Code_INTERNAL, code.Code_UNKNOWN:
		status, reason = websocket.StatusInternalError, "the service has failed"
	}
	t.k.endWith(status, reason, told)
}
