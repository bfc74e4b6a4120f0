// Package socket is WebSockets (RFC 6455) over the gRPC server: one more way to its
// calls, on which it stands as REST does. Its handshake is the gateway's affair, who
// opens it and from which page; here is what is said on it once it stands.
//
//	          ┌ reader ─▶ requests: one call each ────────┐ urgent
//	client ─▶ ┤                                           ▼
//	          └ writer ◀─ wire ◀─ library ◀─ one message at a time
//	                                                      ▲ bulk, in turn
//	            subscriptions: one stream each, batches ──┘
//
// There are two kinds. What may be said on one for commands and events is
// proto/telexec/v1/socket.proto: each subscription holds one batch and the offsets where
// it is; while its client does not read, its stream is not read either, and is let go of
// after a while (watch.go). One for the terminal of a session speaks AttachRequest and
// AttachResponse, one stream of the gRPC server (terminal.go). The loss of a socket touches
// no command and no session: what it has asked for is done all the same.
//
// socket.go has those that are open, run.go one of them with its reader and writer,
// calls.go and watch.go what its messages ask for, text.go how they are written, wire.go
// the connection below it.
package socket

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

const (
	// MaxRequest is what a message may have: the input of a call in base64.
	MaxRequest = 2 << 20
	// messageTimeout is how long a message may take to arrive.
	messageTimeout = 60 * time.Second
	// leastDeflated is what a message must have to be compressed.
	leastDeflated = 1 << 10
)

// Options is what Sockets are made of. All are needed.
type Options struct {
	// Conn is the gRPC server. What of a stream is on its way that nobody reads should
	// be little: sockets may not read at all.
	Conn *grpc.ClientConn
	// Problem gives a failure as it is told.
	Problem func(error) *spb.Status
	// Over gives why nothing more may be asked when the login of a browser is over.
	Over func(until time.Time) error
	// Unmarshal reads the JSON of protobuf. Its error repeats no value of it.
	Unmarshal func(text []byte, m proto.Message) error
	Meter     Meter
	Limits    Limits
	Logger    *slog.Logger
}

// Meter counts what sockets do. Its methods may be called from any goroutine.
type Meter interface {
	// SocketOpened counts a socket as open, until SocketClosed.
	SocketOpened()
	// SocketClosed tells by which code (RFC 6455 §7.4); 1006: without one.
	SocketClosed(code int)
	// SocketSent counts a message, and what it was when it was written: the time since
	// the service said it.
	SocketSent(bytes int, age time.Duration)
	// SocketReceived counts a message of a client.
	SocketReceived(bytes int)
	// SocketResumed counts a subscription that does not begin at the beginning.
	SocketResumed()
}

// Limits bounds how many sockets are open at once.
type Limits struct {
	All, PerPrincipal int // 0: no limit
}

// Sockets are those that are open. Its methods may be called concurrently.
type Sockets struct {
	o Options

	mu       sync.Mutex
	open     map[*socket]struct{}
	of       map[string]int // by principal; with those that are being opened
	all      int
	draining bool
	cutting  bool // and those that are left are cut off

	opening sync.WaitGroup // from admit until run
	running sync.WaitGroup
}

// New makes Sockets, of which none is open.
func New(o Options) *Sockets {
	return &Sockets{o: o, open: make(map[*socket]struct{}), of: make(map[string]int)}
}

// Visit is who opens a socket, and for what.
type Visit struct {
	Principal string                             // counts against Limits
	Said      metadata.MD                        // goes with each call
	Until     time.Time                          // the end of the login of its browser; zero: it has none
	Late      func() (release func(), err error) // counts a message that is late
	First     *telexecv1.SocketRequest           // is done before what the client says; nil: nothing
	Terminal  string                             // the session whose terminal it is; empty: it is for commands and events
}

// Serve answers a handshake that was looked at before. It returns when the socket
// stands, and net/http lets go of all that it holds for a request. With an error,
// nothing was answered.
func (s *Sockets) Serve(w http.ResponseWriter, r *http.Request, v Visit) error {
	release, err := s.admit(v.Principal)
	if err != nil {
		return err
	}
	defer s.opening.Done()
	u := &upgrade{ResponseWriter: w}
	conn, err := websocket.Accept(u, r, &websocket.AcceptOptions{
		Subprotocols:         []string{JSONProtocol, ProtoProtocol},
		InsecureSkipVerify:   true, // the doorman has looked at the Origin
		CompressionMode:      websocket.CompressionNoContextTakeover,
		CompressionThreshold: leastDeflated,
	})
	if err == nil && r.Context().Err() != nil { // by which net/http tells that it could not write that
		_ = conn.CloseNow()
		err = r.Context().Err()
	}
	if err != nil { // the client went away; or a defect, as the handshake is checked
		release()
		s.o.Logger.DebugContext(r.Context(), "a WebSocket could not be made", "error", err)
		if u.wire != nil {
			u.wire.cut()
		}
		return nil
	}
	conn.SetReadLimit(MaxRequest)
	k := newSocket(s, v)
	k.conn, k.wire, k.binary = conn, u.wire, conn.Subprotocol() == ProtoProtocol
	s.o.Meter.SocketOpened()
	// It outlives the request.
	ctx := context.WithoutCancel(r.Context())
	if !s.run(k, func() { defer release(); k.run(ctx, v) }) {
		release()
		k.wire.cut()
		s.o.Meter.SocketClosed(int(websocket.StatusAbnormalClosure))
	}
	return nil
}

// admit counts a socket of a principal until release, and as opening until the caller
// says that this is Done.
func (s *Sockets) admit(name string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return nil, errDrain()
	case s.o.Limits.All > 0 && s.all >= s.o.Limits.All:
		return nil, tooMany("there are %d sockets, and may be no more", s.all).WithHint("Close one, or raise http.max_sockets")
	case s.o.Limits.PerPrincipal > 0 && s.of[name] >= s.o.Limits.PerPrincipal:
		return nil, tooMany("%q has %d sockets, and may have no more", name, s.of[name]).
			WithHint("Close one, or subscribe to several commands on one socket; http.max_sockets_per_principal is the limit")
	}
	s.all++
	s.of[name]++
	s.opening.Add(1)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.of[name]--; s.of[name] == 0 {
			delete(s.of, name)
		}
	}), nil
}

func tooMany(format string, args ...any) *fault.Error {
	return fault.New(fault.Exhausted, fault.ReasonTooManyStreams, format, args...)
}

func errDrain() *fault.Error {
	return fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down").
		WithHint("Connect again in a moment, and resume where you were; commands that were started go on").WithRetry(time.Second)
}

// run runs a socket. Where the gateway has begun to drain it says only that; it gives
// false where it is too late for that, too.
func (s *Sockets) run(k *socket, f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cutting {
		return false
	}
	if s.draining {
		k.goAway()
	}
	s.open[k] = struct{}{}
	s.running.Go(func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.open, k)
		}()
		f()
	})
	return true
}

// Drain tells all sockets that the service goes, and waits for them until ctx ends;
// then it cuts them off.
func (s *Sockets) Drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	for k := range s.open {
		k.goAway()
	}
	s.mu.Unlock()
	gone := make(chan struct{}) // closed when none is left
	go func() { s.opening.Wait(); s.running.Wait(); close(gone) }()
	select {
	case <-gone:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.cutting = true
	for k := range s.open {
		k.cut()
	}
	s.mu.Unlock()
	s.running.Wait() // what is being opened fails with its connection, or in run
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, fault.ReasonInvalidRequest, format, args...)
}
