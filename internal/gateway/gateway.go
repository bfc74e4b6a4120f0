// Package gateway is the HTTP door: REST and WebSockets for programs, health for
// probes, metrics for Prometheus, and the web UI for people (ui.go).
//
//	client ─HTTP─▶ deadlines ─▶ doorman ─┬▶ token ─▶ body ─┬▶ REST ──┬gRPC in memory─▶ rpcserver
//	                                     └▶ login, logout  └▶ sockets┘
//
// REST is grpc-gateway: routes and messages are those of the proto. It calls the
// real gRPC server over an in-memory listener, so that every interceptor guards
// it; nothing is decided here but what only HTTP has (Host, Origin, body size,
// status). A client that goes away ends its call, never a command; one that neither
// sends nor reads does not stay (hold.go).
//
// A request shows a bearer token; or a cookie, which a browser gets for a token at
// /login (session.go); or a client certificate. The last two count only where no
// page from elsewhere can have made the request, and there a body has to say that
// it is JSON. What is refused here is told to the audit here, and once: it does
// not come to the gRPC server.
//
// JSON is that of protobuf: lowerCamelCase names (snake_case is understood too),
// int64 as strings, bytes in base64, enums by name. A field with its default
// value is left out, except an optional one that is set: "exitCode": 0 is there
// when the exit code is 0, and only then. Fields that do not exist or contradict
// the path are refused, in bodies and in queries, and so is text behind the JSON
// object. A refusal names fields and never repeats a value of a body.
//
// A streaming call answers with one message per line (application/x-ndjson),
// each sent at once. Should it break off, the last line is {"error": …}.
//
// Every failure has one shape, google.rpc.Status in JSON, whoever found it:
//
//	{"code": 5, "message": "…", "details": [{"@type": "…/google.rpc.ErrorInfo",
//	 "reason": "UNKNOWN_HOST", "domain": "telexec", "metadata": {"hint": "…"}}]}
//
// A WebSocket begins here (socket.go) and goes on in package socket.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/gateway/socket"
)

// Limits of the door.
const (
	maxBody       = 4 << 20          // bytes of a request; the gRPC server takes no more either
	maxHeader     = 64 << 10         // bytes of all headers
	headerTimeout = 10 * time.Second // for the headers of a request
	bodyTimeout   = 60 * time.Second // for its body
	idleTimeout   = 2 * time.Minute  // between two requests of a connection
	lateWeight    = 256 << 10        // bytes of a late body that count like one more
	// maxAnswer is above the largest answer there is: two streams of 1 MiB, with
	// text in which each byte became the 3 bytes of U+FFFD.
	maxAnswer = 32 << 20
	// window is the flow-control window per call of the in-memory connection; the
	// default of 64 KiB makes bulk output wait for its own acknowledgements.
	window = 1 << 20
)

// Limiter bounds how often callers call. Its methods may be called from any
// goroutine.
type Limiter interface {
	// Take counts a call of the class; RATE_LIMITED, with when a retry helps.
	Take(c access.Caller, class access.Class) error
	// MayTry refuses addresses from which too many authentications have failed, with
	// RATE_LIMITED.
	MayTry(address string) error
	// Failed counts one that failed.
	Failed(address string)
	// ShowsNothing counts a request without credentials; RATE_LIMITED.
	ShowsNothing(address string) error
	// Admit counts what somebody unknown does until release; TOO_MANY_STREAMS.
	Admit(address string, what access.Unknown) (release func(), err error)
	// Late counts a message that is late, by its weight, until release;
	// TOO_MANY_STREAMS.
	Late(c access.Caller, weight int) (release func(), err error)
}

// Refusals is told of requests that are refused.
type Refusals interface {
	// Tell tells of one. It does not fail, and waits only for a moment.
	Tell(ctx context.Context, e audit.Entry)
}

// Options is what a Gateway needs. All fields but those marked must be set.
type Options struct {
	// Dial connects to the gRPC server, in memory.
	Dial func(context.Context) (net.Conn, error)
	// Authenticator is asked before a body is read; the gRPC server asks again.
	Authenticator access.Authenticator
	// Limiter bounds guesses, and what is answered here.
	Limiter Limiter
	// Refusals is told of what is refused here.
	Refusals Refusals
	// Recorder keeps who signs in and out.
	Recorder access.Recorder
	// Sealer seals the cookies of browsers.
	Sealer Sealer
	// SessionLifetime is how long a browser stays signed in, at most.
	SessionLifetime time.Duration
	// Problem gives HTTP status and body for a failure.
	Problem func(error) (httpStatus int, body *spb.Status)
	// Ready tells why the service cannot take commands; nil where it can.
	Ready func(context.Context) error
	// Metrics answers GET /metrics.
	Metrics http.Handler
	// UI has the files of the web UI, index.html and assets/; nil: there is none.
	UI fs.FS
	// OpenAPI is the document of GET /openapi.json.
	OpenAPI []byte

	Addr           net.Addr // that is listened on
	AllowedHosts   []string // Host headers besides loopback and Addr; may be empty
	AllowedOrigins []string // origins of web pages that may call; may be empty

	// SocketMeter counts what WebSockets do.
	SocketMeter socket.Meter
	// SocketLimits bounds how many there are.
	SocketLimits socket.Limits

	TLS          *tls.Config   // nil: no TLS
	DrainTimeout time.Duration // for requests under way
	Logger       *slog.Logger
}

// Gateway is the HTTP door.
type Gateway struct {
	options    Options
	conn       *grpc.ClientConn // for REST
	socketConn *grpc.ClientConn // for WebSockets
	sockets    *socket.Sockets
	contract   []route
	ui         map[string]uiFile
	handler    http.Handler
}

// New makes a gateway. The caller runs it or closes it. It outlives ctx.
func New(ctx context.Context, o Options) (*Gateway, error) {
	inMemory := []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return o.Dial(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // never leaves the process
	}
	socketConn, err := dialSockets(inMemory...)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	conn, err := grpc.NewClient("passthrough:in-memory", append(inMemory,
		grpc.WithStreamInterceptor(peekFirst),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(8*window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
	)...)
	if err != nil {
		socketConn.Close()
		return nil, fmt.Errorf("gateway: %w", err)
	}
	g := &Gateway{options: o, conn: conn, socketConn: socketConn, contract: contractRoutes()}
	g.sockets = socket.New(socket.Options{
		Conn: socketConn, Problem: g.socketProblem, Over: func(until time.Time) error { return signedInUntil(until) }, Unmarshal: unmarshalJSON,
		Meter: o.SocketMeter, Limits: o.SocketLimits, Logger: o.Logger,
	})
	if g.ui, err = readUI(o.UI); err != nil {
		g.Close()
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if g.handler, err = g.routes(ctx); err != nil {
		g.Close()
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return g, nil
}

// Close lets go of the gRPC connections of a gateway that is not run.
func (g *Gateway) Close() error { return errors.Join(g.conn.Close(), g.socketConn.Close()) }

// routes puts everything together: what stands before the token, and behind it.
func (g *Gateway) routes(ctx context.Context) (http.Handler, error) {
	rest := g.newREST()
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		telexecv1.RegisterCommandServiceHandler,
		telexecv1.RegisterEventServiceHandler,
		telexecv1.RegisterHostServiceHandler,
		telexecv1.RegisterSessionServiceHandler,
		telexecv1.RegisterTaskServiceHandler,
		telexecv1.RegisterApprovalServiceHandler,
		telexecv1.RegisterPolicyServiceHandler,
		telexecv1.RegisterAdminServiceHandler,
	} {
		if err := register(ctx, rest, g.conn); err != nil {
			return nil, err
		}
	}
	// Paths are compared as they are: http.ServeMux would clean them and redirect,
	// which is one more answer that is not in the one shape.
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := checkText(r); err != nil {
			g.refuse(w, r, err)
			return
		}
		if g.byBrowser(r) {
			if err := checkType(r); err != nil {
				g.refuseAs(w, r, http.StatusUnsupportedMediaType, err)
				return
			}
		}
		_, own := ownPaths[r.URL.Path]
		if own || uiRule(r.URL.Path) != "" {
			if err := g.options.Limiter.Take(g.visit(r), access.ClassRead); err != nil {
				g.refuse(w, r, err)
				return
			}
		}
		if file, ok := readsDocs(r); ok {
			file.ServeHTTP(w, r)
			return
		}
		if rule := g.socketOf(r); rule != "" {
			g.socket(w, r, rule)
			return
		}
		if g.wantsRecording(r) {
			g.recording(w, r)
			return
		}
		if g.serveUI(w, r) {
			return
		}
		switch {
		case reads(r, "/"):
			g.refuseRoute(w, r, http.StatusNotFound)
		case reads(r, "/metrics"):
			g.options.Metrics.ServeHTTP(w, r)
		case reads(r, "/openapi.json"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(g.options.OpenAPI) // a client that went away
		case own:
			g.refuseRoute(w, r, http.StatusMethodNotAllowed)
		default:
			rest.ServeHTTP(w, r)
		}
	})
	known := g.authenticated(g.readBody(guarded))
	keeper := newDoorman(g.options.Addr, g.options.AllowedHosts, g.options.AllowedOrigins)
	kept := keeper.guard(g.refuse, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" || r.URL.Path == "/logout" {
			g.sign(w, r)
			return
		}
		known.ServeHTTP(w, r)
	}))
	return bounded(withRequestID(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case reads(r, "/healthz"):
			healthy(w)
		case reads(r, "/readyz"):
			if err := g.options.Ready(r.Context()); err != nil {
				g.refuse(w, r, err)
				return
			}
			healthy(w)
		default:
			kept.ServeHTTP(w, r)
		}
	}))), nil
}

func healthy(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"ok"}` + "\n")) // a probe that went away
}

// Run serves the listener until ctx ends, and then drains: no new request is
// taken, those under way may finish within the drain timeout, the rest is cut
// off. It closes the listener and the gRPC connection, and returns nil after a
// drain, else why it failed.
func (g *Gateway) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           g.handler,
		TLSConfig:         g.options.TLS,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{WriteByteTimeout: frameTimeout},
		ErrorLog:          slog.NewLogLogger(g.options.Logger.Handler(), slog.LevelDebug),
	}
	serve := func() error { return server.Serve(l) }
	if g.options.TLS != nil {
		serve = func() error { return server.ServeTLS(l, "", "") }
	}
	failed := make(chan error, 1) // one from serve; never blocks
	go func() { failed <- serve() }()

	var err error
	select {
	case err = <-failed:
		now, cancel := context.WithCancel(ctx)
		cancel()
		g.sockets.Drain(now) // which Close does not know
	case <-ctx.Done():
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.options.DrainTimeout)
		var drained sync.WaitGroup
		drained.Go(func() { g.sockets.Drain(bounded) }) // which Shutdown does not know
		_ = server.Shutdown(bounded)                    // its only error is the timeout; Close does the rest
		drained.Wait()
		cancel()
		if err = <-failed; errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
	}
	if err = errors.Join(err, server.Close(), g.Close()); err != nil {
		return fmt.Errorf("HTTP server: %w", err)
	}
	return nil
}
