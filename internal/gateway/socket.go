package gateway

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// A WebSocket is one more way to the calls of the gRPC server, on which it stands as
// REST does. What may be said on it is proto/telexec/v1/socket.proto.
//
//	          ┌ reader ─▶ requests: one call each ────────┐ urgent
//	client ─▶ ┤                                           ▼
//	          └ writer ◀─ wire ◀─ library ◀─ one message at a time
//	                                                      ▲ bulk, in turn
//	            subscriptions: one stream each, batches ──┘
//
// Each subscription holds one batch and the offsets where it is. While its client does
// not read, its stream is not read either, and is let go of after a while
// (socketwatch.go). The loss of a socket touches no command: what it has asked for is
// done all the same.

// The paths of sockets. On each, all requests may be sent.
const (
	socketPath = "/v1/socket"
	streamRule = "/v1/commands/{command_id}/stream"
	eventsPath = "/v1/events" // without an upgrade, REST
)

const (
	// socketWindow is how much of a stream may be on its way that nobody reads: the
	// least that gRPC knows. What is not read holds up no other stream, since gRPC
	// acknowledges to the connection what has arrived, read or not.
	socketWindow = 64 << 10
	// maxRequest is what a message may have: the input of a call in base64.
	maxRequest = 2 << 20
	// leastDeflated is what a message must have to be compressed.
	leastDeflated = 1 << 10
)

// SocketMeter counts what sockets do. Its methods may be called from any goroutine.
type SocketMeter interface {
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

// SocketLimits bounds how many sockets are open at once.
type SocketLimits struct {
	All, PerPrincipal int // 0: no limit
}

// sockets are those that are open.
type sockets struct {
	limits SocketLimits

	mu       sync.Mutex
	open     map[*socket]struct{}
	of       map[string]int // by principal; with those that are being opened
	all      int
	draining bool
	cutting  bool // and those that are left are cut off

	opening sync.WaitGroup // from admit until run
	running sync.WaitGroup
}

// admit counts a socket of a principal until release, and as opening until the caller
// says that this is Done.
func (s *sockets) admit(name string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return nil, errSocketDrain()
	case s.limits.All > 0 && s.all >= s.limits.All:
		return nil, tooMany("there are %d sockets, and may be no more", s.all).WithHint("Close one, or raise http.max_sockets")
	case s.limits.PerPrincipal > 0 && s.of[name] >= s.limits.PerPrincipal:
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

func errSocketDrain() *fault.Error {
	return fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down").
		WithHint("Connect again in a moment, and resume where you were; commands that were started go on").WithRetry(time.Second)
}

// run runs a socket. Where the gateway has begun to drain it says only that; it gives
// false where it is too late for that, too.
func (s *sockets) run(k *socket, f func()) bool {
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

// drain tells all sockets that the service goes, and waits for them until ctx ends;
// then it cuts them off.
func (s *sockets) drain(ctx context.Context) {
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

// socketOf gives the path of a socket that a request goes to, as a rule of the
// contract has it; empty where it goes elsewhere. What does not ask for an upgrade
// goes to /v1/events as to any other path.
func (g *Gateway) socketOf(r *http.Request) string {
	switch {
	case r.URL.Path == socketPath:
		return socketPath
	case r.URL.Path == eventsPath && wantsSocket(r):
		return eventsPath
	case strings.HasSuffix(r.URL.Path, "/stream") && g.ruleOf(http.MethodGet, r.URL.Path) == streamRule:
		return streamRule
	}
	return ""
}

// wantsSocket reports whether a request asks for a WebSocket (RFC 6455 §4.2.1).
func wantsSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

// tokens gives the values of a header that is a list (RFC 9110 §5.6.1).
func tokens(h http.Header, name string) (all []string) {
	for _, line := range h.Values(name) {
		for t := range strings.SplitSeq(line, ",") {
			if t = strings.TrimSpace(t); t != "" {
				all = append(all, t)
			}
		}
	}
	return all
}

func hasToken(h http.Header, name, token string) bool {
	return slices.ContainsFunc(tokens(h, name), func(t string) bool { return strings.EqualFold(t, token) })
}

// socketBearer gives the token among the subprotocols of a handshake: browsers can
// set no header there. Empty where it has none.
func (g *Gateway) socketBearer(r *http.Request) secret.Text {
	if !g.opensSocket(r) {
		return secret.Text{}
	}
	for _, t := range tokens(r.Header, "Sec-WebSocket-Protocol") {
		if encoded, ok := strings.CutPrefix(t, bearerProtocol); ok {
			if token, err := base64.RawURLEncoding.DecodeString(encoded); err == nil {
				return secret.New(string(token))
			}
			return secret.New(encoded) // no token of ours: it is refused as one that is unknown
		}
	}
	return secret.Text{}
}

// checkHandshake fails where the library would, which answers in no shape of ours.
func (g *Gateway) checkHandshake(w http.ResponseWriter, r *http.Request) (status int, err error) {
	if !wantsSocket(r) {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "Upgrade")
		}
		w.Header().Set("Upgrade", "websocket")
		return http.StatusUpgradeRequired, invalid("%s is for WebSockets", r.URL.Path).
			WithHint("Connect to it with a WebSocket client, over HTTP/1.1; by plain HTTP, read /v1/commands/{id}/output or /v1/events")
	}
	if r.Header.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		return http.StatusUpgradeRequired, invalid("WebSockets of version 13 alone are spoken here").WithHint("Use a client of RFC 6455")
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	if len(keys) == 1 {
		if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0])); err == nil && len(key) == 16 {
			return 0, nil
		}
	}
	return http.StatusBadRequest, invalid("Sec-WebSocket-Key is not 16 bytes in base64").WithHint("Use a client of RFC 6455")
}

// firstOf names the subscription that a path makes; empty: none.
func firstOf(rule string) string {
	switch rule {
	case streamRule:
		return "stream"
	case eventsPath:
		return "events"
	}
	return ""
}

// firstRequest gives the subscription that a path and its query make; nil: none.
func firstRequest(rule string, r *http.Request) (*telexecv1.SocketRequest, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("the query cannot be read").WithHint("Percent-encode its values")
	}
	first := &telexecv1.SocketRequest{Id: firstOf(rule)}
	var fields proto.Message
	inPath := utilities.NewDoubleArray(nil)
	switch rule {
	case streamRule:
		id := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/commands/"), "/stream")
		o := &telexecv1.StreamOutputRequest{CommandId: id}
		first.Request, fields = &telexecv1.SocketRequest_SubscribeOutput{SubscribeOutput: o}, o
		inPath = utilities.NewDoubleArray([][]string{{"command_id"}})
	case eventsPath:
		e := &telexecv1.WatchEventsRequest{}
		first.Request, fields = &telexecv1.SocketRequest_SubscribeEvents{SubscribeEvents: e}, e
	default:
		if len(values) > 0 {
			return nil, invalid("%s has no query parameters", socketPath).WithHint("Subscribe by a message")
		}
		return nil, nil
	}
	if err := (strictQuery{}).Parse(fields, values, inPath); err != nil {
		return nil, invalid("%v", err).WithHint("docs/websocket.md lists the parameters")
	}
	return first, nil
}

// socket answers a request for a WebSocket. It returns when the socket stands, and
// net/http lets go of all that it holds for a request.
func (g *Gateway) socket(w http.ResponseWriter, r *http.Request, rule string) {
	c := g.visit(r)
	if r.Method != http.MethodGet {
		g.refuseRoute(w, r, http.StatusMethodNotAllowed)
		return
	}
	if status, err := g.checkHandshake(w, r); err != nil {
		g.refuseAs(w, r, status, err)
		return
	}
	if rule != socketPath { // which counts as one of our own paths already
		if err := g.options.Limiter.Take(c, access.ClassRead); err != nil {
			g.refuse(w, r, err)
			return
		}
	}
	first, err := firstRequest(rule, r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	release, err := g.sockets.admit(c.Name)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	defer g.sockets.opening.Done()
	u := &upgrade{ResponseWriter: w}
	k := newSocket(g, rule)
	conn, err := websocket.Accept(u, r, &websocket.AcceptOptions{
		Subprotocols:         []string{jsonProtocol, protoProtocol},
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
		g.options.Logger.DebugContext(r.Context(), "a WebSocket could not be made", "error", err)
		if u.wire != nil {
			u.wire.cut()
		}
		return
	}
	conn.SetReadLimit(maxRequest)
	k.conn, k.wire, k.binary = conn, u.wire, conn.Subprotocol() == protoProtocol
	k.said = socketMetadata(r, c)
	if c.Origin == command.OriginWeb { // the gRPC server knows when the token ends, not the cookie
		k.until = c.Expiry
	}
	k.late = func() (func(), error) { return g.options.Limiter.Late(c, 1+maxRequest/lateWeight) }
	g.options.SocketMeter.SocketOpened()
	// It outlives the request.
	ctx := context.WithoutCancel(r.Context())
	if !g.sockets.run(k, func() { defer release(); k.run(ctx, first) }) {
		release()
		k.wire.cut()
		g.options.SocketMeter.SocketClosed(int(websocket.StatusAbnormalClosure))
	}
}

// socketMetadata is what the gRPC server is told with each call of a socket.
func socketMetadata(r *http.Request, c access.Caller) metadata.MD {
	md := metadata.Pairs(originKey, string(c.Origin), addressKey, c.Address)
	if name := clientName(r); name != "" {
		md.Set(clientKey, name)
	}
	if token := r.Header.Get("Authorization"); token != "" {
		md.Set("authorization", token)
	}
	return md
}

// opensSocket reports whether a request asks for a WebSocket where there is one.
func (g *Gateway) opensSocket(r *http.Request) bool { return wantsSocket(r) && g.socketOf(r) != "" }

// plainOrigin is the origin of what a request asks for, unless it shows a cookie.
func (g *Gateway) plainOrigin(r *http.Request) command.Origin {
	if g.opensSocket(r) {
		return command.OriginWebSocket
	}
	return command.OriginREST
}

// dialSockets makes the connection to the gRPC server for the calls of sockets: with
// windows of their own, since REST reads streams at once and sockets may not read
// them at all.
func dialSockets(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:in-memory-sockets", append(options,
		grpc.WithStaticStreamWindowSize(socketWindow),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))...)
	if err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	return conn, nil
}
