package socket

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/genproto/googleapis/rpc/code"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

const (
	// pingEvery is how long a client may say nothing until it is asked, and pongWithin
	// how long it may take to answer. The answer of one that was sent more than
	// laggingAfter since it was last heard comes behind all of that: it has laggingWithin.
	// One that takes nothing at all is noticed by the wire.
	pingEvery     = 20 * time.Second
	pongWithin    = 10 * time.Second
	laggingAfter  = 64 << 10
	laggingWithin = 10 * time.Minute

	// endedIdle is how long a socket of one command or task stays when that is over and nothing
	// more is asked for, emptyIdle any other that is good for nothing.
	endedIdle = 30 * time.Second
	emptyIdle = 5 * time.Minute
)

// socket is one WebSocket. Its goroutines are the reader, which runs it, the writer,
// one for each subscription, and one for each call under way.
type socket struct {
	set      *Sockets
	first    string // id of the subscription that its path made; empty: none
	conn     *websocket.Conn
	wire     *wire
	binary   bool                               // it speaks the wire format of protobuf
	said     metadata.MD                        // for each call
	until    time.Time                          // the end of the session of its browser; zero: it has none
	terminal *terminal                          // nil: it is for commands and events
	late     func() (release func(), err error) // counts a message that is late
	quiet    time.Duration                      // how long it stays when there is nothing to do
	farewell string                             // what it is closed with then

	wake     chan struct{} // something is to be written, or it ends; one pending is enough
	answered chan struct{} // an answer was written; one pending is enough
	tasks    sync.WaitGroup

	mu      sync.Mutex
	cutting context.CancelFunc // ends all its calls; nil before run
	stop    context.CancelFunc // ends its subscriptions
	urgent  []message          // in the order in which they are written, before all bulk
	ready   []*subscription    // that have bulk to be written, in turn
	subs    map[string]*subscription
	calls   map[string]struct{} // ids of those under way
	inputs  map[string][]func() // by command: what is to be sent, in its order
	pending int                 // answers that are not written
	ending  *ending             // nil: it goes on
	closed  websocket.StatusCode
	heard   time.Time // when anything was last received
	busy    time.Time // when anything was last asked for, or a subscription was over
	pinged  time.Time // when it was asked whether it is alive
	asking  bool      // and it has not said so
	deaf    bool      // nothing is read of it, for the service takes nothing: it may have said so
	since   int       // bytes written since it was heard
}

// ending is how a socket ends.
type ending struct {
	code   websocket.StatusCode
	reason string
}

// message is one to be written.
type message struct {
	id, resource string
	data         *telexecv1.SocketData     // nil: it is a terminal's
	attach       *telexecv1.AttachResponse // a terminal's
	version      int64                     // SocketMessage.sequence
	at           time.Time                 // when the service said it
	of           *subscription             // nil: of none
	answers      bool                      // a request
	final        bool                      // the last of its subscription
	size         int                       // bytes of output, or of what may be as long
}

func newSocket(set *Sockets, v Visit) *socket {
	k := &socket{
		set: set, first: v.First.GetId(), said: v.Said, until: v.Until, late: v.Late, quiet: emptyIdle, farewell: "nothing was asked for",
		wake: make(chan struct{}, 1), answered: make(chan struct{}, 1),
		subs: make(map[string]*subscription), calls: make(map[string]struct{}), inputs: make(map[string][]func()),
		closed: websocket.StatusAbnormalClosure,
	}
	switch v.First.GetRequest().(type) {
	case *telexecv1.SocketRequest_SubscribeOutput:
		k.quiet, k.farewell = endedIdle, "the command has ended"
	case *telexecv1.SocketRequest_SubscribeTask:
		k.quiet, k.farewell = endedIdle, "the task has ended"
	}
	if v.Terminal != "" {
		k.terminal = newTerminal(k, v.Terminal)
	}
	return k
}

// run reads until the socket is over, and returns when all it began is done: the
// calls too, which the loss of a socket does not end.
func (k *socket) run(ctx context.Context, v Visit) {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	watching, stop := context.WithCancel(ctx)
	k.mu.Lock()
	k.cutting, k.stop = cut, stop
	k.heard, k.busy = time.Now(), time.Now()
	if k.ending != nil { // before it began
		stop()
	}
	k.mu.Unlock()
	if !k.until.IsZero() {
		over := time.AfterFunc(time.Until(k.until), func() {
			k.end(websocket.StatusPolicyViolation, "the credentials are over", k.set.o.Over(k.until))
		})
		defer over.Stop()
	}
	var writer sync.WaitGroup
	writer.Go(func() { k.write(watching) })
	switch {
	case k.terminal != nil:
		k.terminal.open(watching)
	case v.First != nil && k.owe():
		k.take(ctx, watching, v.First)
	}
	for {
		kind, data, err := k.read(context.WithoutCancel(ctx))
		if err != nil {
			k.note(err)
			break
		}
		k.hear(true)
		k.set.o.Meter.SocketReceived(len(data))
		k.receive(ctx, watching, kind, data)
	}
	stop()
	_ = k.conn.CloseNow() // where it is closing already this waits for that
	writer.Wait()
	k.tasks.Wait()
	k.mu.Lock()
	code := k.closed
	k.mu.Unlock()
	k.set.o.Meter.SocketClosed(int(code))
}

// read gives the next message. One that has begun is held in memory until it is there,
// so that it counts as the body of a request does, and has as long.
func (k *socket) read(ctx context.Context) (websocket.MessageType, []byte, error) {
	kind, r, err := k.conn.Reader(ctx)
	if err != nil {
		return 0, nil, err
	}
	late := &access.Lateness{Count: k.late, GiveUp: func(why error) { k.end(websocket.StatusTryAgainLater, "too much is late", why) }}
	counting := time.AfterFunc(access.LateAfter, late.Begin)
	limit := time.AfterFunc(messageTimeout, func() {
		k.end(websocket.StatusPolicyViolation, "the message did not arrive whole", fault.New(fault.Cancelled, fault.ReasonCallCancelled,
			"the message did not arrive whole within %s", messageTimeout).WithHint("Connect again, and send it again; send long input in parts"))
	})
	data, err := io.ReadAll(r)
	counting.Stop()
	limit.Stop()
	_ = late.End() // which the client was told
	return kind, data, err
}

// note keeps by which code a client has closed the socket, or the library.
func (k *socket) note(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending != nil {
		return
	}
	if errors.Is(err, websocket.ErrMessageTooBig) {
		k.closed = websocket.StatusMessageTooBig
	} else if code := websocket.CloseStatus(err); code >= 0 {
		k.closed = code
	}
}

// end tells why, unless that is nil, and closes the socket. What is urgent is
// written before, bulk is not. The first end counts.
func (k *socket) end(code websocket.StatusCode, reason string, why error) {
	var told *spb.Status
	if why != nil {
		told = k.problem(why)
	}
	k.endWith(code, reason, told)
}

func (k *socket) endWith(code websocket.StatusCode, reason string, told *spb.Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending != nil {
		return
	}
	k.ending, k.closed = &ending{code, reason}, code
	if told != nil {
		k.urgent = append(k.urgent, k.failure(message{at: time.Now()}, told))
	}
	if k.stop != nil {
		k.stop()
	}
	if k.wire != nil {
		k.wire.hurry(lastTimeout)
	}
	notify(k.wake)
	notify(k.answered)
}

// goAway ends the socket because the service stops.
func (k *socket) goAway() {
	k.end(websocket.StatusGoingAway, "the service is shutting down", errDrain())
}

// cut ends the socket and its calls at once.
func (k *socket) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cutting != nil {
		k.cutting()
	}
	k.wire.cut()
}

// settle notes that a request needs no answer but what it begins.
func (k *socket) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending--
}

// ends reports whether the socket is ending.
func (k *socket) ends() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ending != nil
}

// hear notes that the client is there.
func (k *socket) hear(asks bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heard, k.since = time.Now(), 0
	if asks {
		k.busy = k.heard
	}
}

// hand hands on what a client has said to who may take its time. Nothing is read
// meanwhile, and no answer to a ping is heard.
func (k *socket) hand(on func()) {
	k.mu.Lock()
	k.deaf = true
	k.mu.Unlock()
	on()
	k.mu.Lock()
	k.deaf = false
	k.mu.Unlock()
	k.hear(false)
}

// look asks a client that says nothing whether it is there, closes a socket that is
// good for nothing, and gives when to look again. dead says that the client is gone.
func (k *socket) look(ctx context.Context) (next time.Time, dead bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if k.ending != nil || k.deaf {
		return now.Add(pingEvery), false
	}
	if k.asking {
		next = k.pinged.Add(pongWithin)
		switch {
		case !k.heard.Before(k.pinged): // it has said something else meanwhile
			next = k.heard.Add(laggingWithin)
		case k.since > laggingAfter:
			next = k.pinged.Add(laggingWithin)
		}
		if !now.Before(next) {
			return next, true
		}
	} else if next = k.heard.Add(pingEvery); !now.Before(next) {
		k.asking, k.pinged = true, now
		next = now.Add(pongWithin)
		k.tasks.Go(func() { k.ping(ctx) })
	}
	if len(k.subs) == 0 && len(k.calls) == 0 {
		idle := k.busy.Add(k.quiet)
		if !now.Before(idle) {
			k.ending, k.closed = &ending{websocket.StatusNormalClosure, k.farewell}, websocket.StatusNormalClosure
			k.wire.hurry(lastTimeout)
			notify(k.wake)
		}
		next = earlier(next, idle)
	}
	return next, false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// ping asks, and waits for the answer.
func (k *socket) ping(ctx context.Context) {
	err := k.conn.Ping(ctx)
	if err == nil {
		k.hear(false)
	}
	k.mu.Lock()
	k.asking = false
	k.mu.Unlock()
	notify(k.wake)
}

// problem gives a failure as it is told.
func (k *socket) problem(err error) *spb.Status {
	return k.set.o.Problem(err)
}

// failure makes of m what tells of a failure.
func (k *socket) failure(m message, told *spb.Status) message {
	if k.terminal != nil {
		m.attach = &telexecv1.AttachResponse{Time: timestamppb.Now(), Response: &telexecv1.AttachResponse_Error{Error: told}}
	} else {
		m.data = errorData(told)
	}
	return m
}

func errorData(body *spb.Status) *telexecv1.SocketData {
	return &telexecv1.SocketData{Data: &telexecv1.SocketData_Error{Error: body}}
}

// tell has a message written before all bulk.
func (k *socket) tell(m message) {
	if m.at.IsZero() {
		m.at = time.Now()
	}
	k.mu.Lock()
	k.urgent = append(k.urgent, m)
	k.mu.Unlock()
	notify(k.wake)
}

// fail tells that a request has failed. Credentials that are over end the socket,
// too: nothing on it would succeed.
func (k *socket) fail(m message, err error) {
	told := k.problem(err)
	m.data = errorData(told)
	k.tell(m)
	if told.GetCode() == int32(code.Code_UNAUTHENTICATED) {
		k.endWith(websocket.StatusPolicyViolation, "the credentials are over", nil)
	}
}

// write writes what there is to be written, until the connection is over.
func (k *socket) write(ctx context.Context) {
	ctx = context.WithoutCancel(ctx) // the library would close the connection at its end
	timer := time.NewTimer(pingEvery)
	defer timer.Stop()
	defer k.wire.finish()
	closing := false
	for !k.wire.over() {
		var m message
		ok := false
		if !closing { // the client's close is the last that is waited for
			m, ok = k.next()
		}
		switch {
		case ok:
			if !k.put(ctx, m) {
				k.lose()
				return
			}
			continue
		case !closing:
			if e := k.over(); e != nil {
				closing = true
				// The library waits for the client's close, and meanwhile somebody has to write.
				k.tasks.Go(func() { _ = k.conn.Close(e.code, e.reason) })
			}
		}
		if n, err := k.wire.flush(); err != nil {
			k.lose()
			return
		} else if n > 0 {
			k.wrote(n)
		}
		next, dead := k.look(ctx)
		if dead {
			k.lose()
			return
		}
		timer.Reset(time.Until(next))
		select {
		case <-k.wake:
		case <-k.wire.said:
		case <-timer.C:
		}
	}
}

// lose gives up a client that is gone: the reader ends, and with it the socket.
func (k *socket) lose() {
	k.mu.Lock()
	k.stop()
	k.mu.Unlock()
	k.wire.cut()
	_ = k.wire.Close()
	notify(k.answered)
}

func (k *socket) over() *ending {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ending
}

func (k *socket) wrote(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.since += n
}

// next takes what is to be written next: what is urgent, else bulk of the
// subscription whose turn it is.
func (k *socket) next() (message, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.urgent) > 0 {
		m := k.urgent[0]
		k.urgent[0] = message{} // not to be held while nobody reads
		if k.urgent = k.urgent[1:]; len(k.urgent) == 0 {
			k.urgent = nil
		}
		if m.of != nil {
			m.of.urgent--
			m.of.bytes -= m.size
			if m.of.over {
				continue
			}
			k.took(&m)
		}
		return m, true
	}
	for len(k.ready) > 0 && k.ending == nil {
		w := k.ready[0]
		k.ready = k.ready[1:]
		if w.over || len(w.batch) == 0 {
			w.ready = false
			continue
		}
		m := w.batch[0]
		w.batch[0] = message{}
		w.batch = w.batch[1:]
		w.bytes -= m.size
		switch {
		case len(w.batch) == 0:
			w.batch, w.ready = nil, false
		case w.batch[0].size == 0: // not bulk: it waits for nobody
			k.ready = append([]*subscription{w}, k.ready...)
		default:
			k.ready = append(k.ready, w)
		}
		w.taken = time.Now()
		k.took(&m)
		return m, true
	}
	k.ready = nil
	return message{}, false
}

// took notes that a message of a subscription is written, whose sequence never falls. The caller holds mu.
func (k *socket) took(m *message) {
	w := m.of
	w.version = max(w.version, m.version) // an urgent one may have passed it
	m.version = w.version
	if m.final {
		k.drop(w)
	}
	notify(w.room)
}

// put writes a message; false: the connection is gone.
func (k *socket) put(ctx context.Context, m message) bool {
	var told proto.Message = m.attach
	if m.attach == nil {
		told = &telexecv1.SocketMessage{
			Type: typeOf(m.data), Version: 1, Resource: m.resource, Sequence: m.version, Id: m.id, Time: timestamppb.Now(), Data: m.data,
		}
	}
	kind, p, err := encode(takeRoom(), k.binary, told)
	if err != nil { // text that is no UTF-8; nothing of ours
		k.set.o.Logger.Error("a message of a WebSocket cannot be encoded", "type", typeOf(m.data), "error", err)
		return false
	}
	size := len(p)
	err = k.conn.Write(ctx, kind, p) // the wire has a copy
	giveRoom(p)
	if err != nil {
		return false
	}
	m.data, m.attach, told, p = nil, nil, nil, nil // not to be held while nobody reads
	n, err := k.wire.flush()
	if err != nil {
		return false
	}
	k.wrote(n)
	k.set.o.Meter.SocketSent(size, time.Since(m.at))
	if m.answers {
		k.mu.Lock()
		k.pending--
		k.mu.Unlock()
		notify(k.answered)
	}
	return true
}
