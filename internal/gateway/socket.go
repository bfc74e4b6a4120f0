package gateway

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway/socket"
	"github.com/telexec/telexec/internal/secret"
)

// A WebSocket begins as a request: who asks, from which page, and how long they may
// take to say it is the same for all that comes over HTTP. What is said on it once it
// stands is package socket's.

// The paths of sockets. On each but that of a terminal, all requests may be sent.
const (
	socketPath  = "/v1/socket"
	streamRule  = "/v1/commands/{command_id}/stream"
	updatesRule = "/api/agent/{task_id}/updates"
	eventsPath  = "/v1/events" // without an upgrade, REST

	terminalRule = "/v1/sessions/{session}/terminal"
)

// bearerProtocol is no subprotocol: what follows it is a token, for clients that can
// set no headers.
const bearerProtocol = "telexec.bearer."

// socketWindow is how much of a stream may be on its way that nobody reads: the
// least that gRPC knows. What is not read holds up no other stream, since gRPC
// acknowledges to the connection what has arrived, read or not.
const socketWindow = 64 << 10

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
	case strings.HasSuffix(r.URL.Path, "/updates") && g.ruleOf(http.MethodGet, r.URL.Path) == updatesRule:
		return updatesRule
	case strings.HasSuffix(r.URL.Path, "/terminal") && g.ruleOf(http.MethodGet, r.URL.Path) == terminalRule:
		return terminalRule
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
		instead := "read /v1/commands/{id}/output or /v1/events"
		switch {
		case strings.HasSuffix(r.URL.Path, "/terminal"):
			instead = "read /v1/sessions/{session}/screen and type with /v1/sessions/{session}:keys"
		case strings.HasSuffix(r.URL.Path, "/updates"):
			instead = "read /v1/tasks/{id}/events"
		}
		return http.StatusUpgradeRequired, invalid("%s is for WebSockets", r.URL.Path).
			WithHint("Connect to it with a WebSocket client, over HTTP/1.1; by plain HTTP, %s", instead)
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

// firstRequest gives the subscription that a path and its query make; nil: none.
func firstRequest(rule string, r *http.Request) (*telexecv1.SocketRequest, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("the query cannot be read").WithHint("Percent-encode its values")
	}
	first := &telexecv1.SocketRequest{}
	var fields proto.Message
	inPath := utilities.NewDoubleArray(nil)
	switch rule {
	case streamRule:
		id := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/commands/"), "/stream")
		o := &telexecv1.StreamOutputRequest{CommandId: id}
		first.Id, first.Request, fields = "stream", &telexecv1.SocketRequest_SubscribeOutput{SubscribeOutput: o}, o
		inPath = utilities.NewDoubleArray([][]string{{"command_id"}})
	case updatesRule:
		id := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/api/agent/"), "/updates")
		u := &telexecv1.WatchTaskRequest{TaskId: id}
		first.Id, first.Request, fields = "updates", &telexecv1.SocketRequest_SubscribeTask{SubscribeTask: u}, u
		inPath = utilities.NewDoubleArray([][]string{{"task_id"}})
	case terminalRule:
		if len(values) > 0 {
			return nil, invalid("%s has no query parameters", rule).WithHint("Say it in start, the first message; docs/websocket.md shows it")
		}
		return nil, nil
	case eventsPath:
		e := &telexecv1.WatchEventsRequest{}
		first.Id, first.Request, fields = "events", &telexecv1.SocketRequest_SubscribeEvents{SubscribeEvents: e}, e
	default:
		if len(values) > 0 {
			return nil, invalid("%s has no query parameters", rule).WithHint("Subscribe by a message")
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
	v := socket.Visit{
		Principal: c.Name, First: first, Said: callMetadata(r, c),
		Late: func() (func(), error) { return g.options.Limiter.Late(c, 1+socket.MaxRequest/lateWeight) },
	}
	if rule == terminalRule {
		v.Terminal = strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/sessions/"), "/terminal")
	}
	if c.Origin == command.OriginWeb { // the gRPC server knows when the token ends, not the cookie
		v.Until = c.Expiry
	}
	if err := g.sockets.Serve(w, r, v); err != nil {
		g.refuse(w, r, err)
	}
}

// callMetadata is what the gRPC server is told with each call that is made here, but
// for the id of the call.
func callMetadata(r *http.Request, c access.Caller) metadata.MD {
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

// socketProblem gives a failure as a socket tells it.
func (g *Gateway) socketProblem(err error) *spb.Status {
	httpStatus, body := g.options.Problem(err)
	if failedHere(httpStatus, err) {
		g.options.Logger.Error("a request on a WebSocket failed in the gateway", "error", err)
	}
	return body
}

// unmarshalJSON reads the JSON of protobuf.
func unmarshalJSON(text []byte, m proto.Message) error {
	if err := protojson.Unmarshal(text, m); err != nil {
		return withoutValues(err)
	}
	return nil
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, fault.ReasonInvalidRequest, format, args...)
}
