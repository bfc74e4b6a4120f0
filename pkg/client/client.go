// Package client is the Go client of telexec. It speaks the gRPC contract of
// proto/telexec/v1 with the generated messages of gen/telexec/v1, and adds what
// every good caller would have to write for itself:
//
//   - an Execute that never runs a command twice: it always carries a request
//     id, so a lost answer is asked for again;
//   - a StreamOutput that resumes by itself: when the connection or the service
//     goes away, it comes back and goes on at the exact byte;
//   - tasks, of which every event is told once and in its order, over lost connections too;
//   - sessions, and a [Terminal] that comes back by itself when the connection does, at
//     the exact byte;
//   - errors that can be acted on: [Error] has the reason for programs and the
//     hint for people;
//   - lists as iterators over all their pages;
//   - decisions about approvals, of which it is known in the end whether they were
//     taken, and the audit, which resumes like output and can be checked here
//     ([AuditChain]).
//
// A first program:
//
//	c, err := client.Dial(client.Options{Server: "127.0.0.1:7070", Token: token})
//	if err != nil { … }
//	defer c.Close()
//	resp, err := c.Execute(ctx, &telexecv1.ExecuteRequest{Host: "web1", Command: "uptime"})
//	if err != nil { … }
//	for event, err := range c.StreamOutput(ctx, &telexecv1.StreamOutputRequest{
//		CommandId: resp.GetCommand().GetId(), Follow: true,
//	}) {
//		if err != nil { … }
//		os.Stdout.Write(event.GetChunk().GetData())
//	}
//
// What is retried: calls that do no harm when they reach the service twice
// (all but Signal, SendInput, SendKeys, CreateToken, UndoTask and most of OpenSession), and any call that provably never
// left this machine. A client that never had a connection does not retry at all: a
// wrong address is told at once.
//
// The package has all of the contract that Go programs call, which makes it larger
// than most rooms here: client.go and list.go are the calls, retry.go, stream.go
// and input.go what makes them safe, session.go and terminal.go those about sessions, task.go those about tasks, approval.go, token.go and audit.go those about
// who may do what, and error.go what can go wrong.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

const (
	// DefaultServer is where telexecd listens unless told otherwise.
	DefaultServer = "127.0.0.1:7070"

	// maxReceive bounds one message from the service, in bytes. The largest
	// legitimate one carries two streams of 1 MiB, as bytes and as text, in which a
	// byte that is no UTF-8 takes three.
	maxReceive = 32 << 20

	defaultRetryFor  = 10 * time.Second
	defaultResumeFor = 2 * time.Minute
)

// Token is a bearer token. However it is printed, it shows as "[secret]"; the
// value is string(token).
type Token string

const mask = "[secret]"

// String gives the mask.
func (Token) String() string { return mask }

// GoString gives the mask, for %#v.
func (Token) GoString() string { return mask }

// MarshalText gives the mask, for JSON and everything like it.
func (Token) MarshalText() ([]byte, error) { return []byte(mask), nil }

// LogValue gives the mask.
func (Token) LogValue() slog.Value { return slog.StringValue(mask) }

// Options say which service to talk to, and how. The zero value is a service on
// this machine at its default address, without a token.
type Options struct {
	// Server is "host:port"; empty means DefaultServer, and a missing port 7070.
	// With a scheme "https" or "grpcs" the connection is TLS; "http" and "grpc"
	// are plain text.
	Server string

	// Token is sent with every call as "authorization: Bearer …". Empty: none.
	// FindToken knows where to look for one; WithToken gives single calls another.
	Token Token

	// Origin names the door this caller is: "cli", "mcp". Empty: plain gRPC.
	Origin string

	// TLS asks for TLS whatever Server's scheme says. CAFile and TLSConfig imply it.
	TLS bool
	// CAFile is a PEM file with the authorities to trust instead of the system's.
	CAFile string
	// TLSConfig is used as it is (CAFile is added to it); nil means the defaults.
	TLSConfig *tls.Config

	// Insecure allows plain text to an address that is not loopback. Everything,
	// also the token, can then be read and changed on the way.
	Insecure bool

	// RetryFor is how long a single call is tried again while the service cannot
	// be reached; 0 means 10 s, below 0 never. The call's context ends it sooner.
	RetryFor time.Duration
	// ResumeFor is the same for a stream that was cut off, and for input that is
	// being copied: how long without any progress until it gives up; 0 means
	// 2 min, below 0 never.
	ResumeFor time.Duration

	// OnRetry, if set, is told why and after which delay something is tried
	// again. It is called from the goroutine that makes the call.
	OnRetry func(err *Error, delay time.Duration)

	// UserAgent goes before gRPC's own, as in "telexec-cli/1.0".
	UserAgent string

	// DialOptions are given to grpc.NewClient behind those of this package.
	DialOptions []grpc.DialOption
}

// Client is a connection to a telexec service. It is safe for use by many
// goroutines at once. Make one with Dial, and Close it.
type Client struct {
	conn      *grpc.ClientConn
	commands  telexecv1.CommandServiceClient
	events    telexecv1.EventServiceClient
	hosts     telexecv1.HostServiceClient
	admin     telexecv1.AdminServiceClient
	sessions  telexecv1.SessionServiceClient
	approvals telexecv1.ApprovalServiceClient
	policy    telexecv1.PolicyServiceClient
	tasks     telexecv1.TaskServiceClient
	server    string // as shown to people
	retryFor  time.Duration
	resumeFor time.Duration
	onRetry   func(*Error, time.Duration)
	// connected is set once any call was written to a connection: the address is
	// right, so that a failure from then on may be worth another try.
	connected atomic.Bool
}

// Dial prepares a client. It does not connect: the first call does, and a
// service that is not there is its error. What Dial refuses, with code
// InvalidArgument, is a bad address, a bad CA file, a token that cannot be one, and
// plain text to another machine without Options.Insecure.
func Dial(o Options) (*Client, error) {
	target, secure, addressErr := parseServer(o.Server)
	if addressErr != nil {
		return nil, addressErr
	}
	if strings.ContainsFunc(string(o.Token), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, optionError("the token holds a character that no token has: a blank, the end of a line, or one beyond ASCII").
			withHint("Look at where it comes from: a token is one word")
	}
	secure = secure || o.TLS || o.CAFile != "" || o.TLSConfig != nil
	if !secure && !o.Insecure && !loopback(target) {
		return nil, optionError("the connection to %s would be plain text: everybody on the way could read the token and change the commands", target).
			withHint("Use TLS (https://%s), or say explicitly that plain text is fine here (--insecure, Options.Insecure)", target)
	}
	transport := insecure.NewCredentials()
	if secure {
		cfg, err := tlsConfig(o)
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(cfg)
	}
	c := &Client{
		server:    target,
		retryFor:  orDefault(o.RetryFor, defaultRetryFor),
		resumeFor: orDefault(o.ResumeFor, defaultResumeFor),
		onRetry:   o.OnRetry,
	}
	if c.onRetry == nil {
		c.onRetry = func(*Error, time.Duration) {}
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(caller{token: o.Token, origin: o.Origin}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceive)),
		grpc.WithStatsHandler(sentMarker{c}),
		grpc.WithUserAgent(o.UserAgent),
		// A connection that died without a word is noticed within 40 s, also by
		// calls that wait long. The service allows a ping every 10 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// gRPC's own pause between two dials may grow to 2 min; ours must be the
		// longer one, or a service that is back would not be noticed.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minDelay, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxDelay / 2},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	conn, err := grpc.NewClient(target, append(opts, o.DialOptions...)...)
	if err != nil {
		return nil, optionError("cannot use the server address %q: %v", target, err).
			withHint("Give it as host:port or https://host:port")
	}
	c.conn = conn
	c.commands = telexecv1.NewCommandServiceClient(conn)
	c.events = telexecv1.NewEventServiceClient(conn)
	c.hosts = telexecv1.NewHostServiceClient(conn)
	c.admin = telexecv1.NewAdminServiceClient(conn)
	c.sessions = telexecv1.NewSessionServiceClient(conn)
	c.approvals = telexecv1.NewApprovalServiceClient(conn)
	c.policy = telexecv1.NewPolicyServiceClient(conn)
	c.tasks = telexecv1.NewTaskServiceClient(conn)
	return c, nil
}

// Close ends the connection; calls under way fail. It may be called twice.
func (c *Client) Close() error {
	_ = c.conn.Close() // its one error is that it was closed before
	return nil
}

// Server gives the address that is dialled, as "host:port".
func (c *Client) Server() string { return c.server }

// Execute starts a command and waits for it up to req.Wait; see the service's
// documentation of Execute. Where req has no request id the client sets one (in
// a copy), so that an answer lost on the way is asked for again and the command
// still runs once. The id is in the command of the answer; where even retrying
// did not bring one, it is in the error's metadata as "request_id" if the request
// may have reached the service: asking again with it is then the way to know.
func (c *Client) Execute(ctx context.Context, req *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
	req = withRequestID(req)
	resp, err := call(ctx, c, true, c.commands.Execute, req)
	if e, ok := asError(err); ok && c.connected.Load() {
		e.set("request_id", req.GetRequestId())
	}
	return resp, err
}

// GetStatus tells where a command is, with output on request; a long-poll with
// req.Wait.
func (c *Client) GetStatus(ctx context.Context, req *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
	return call(ctx, c, true, c.commands.GetStatus, req)
}

// Cancel ends a command and its processes; harmless when it has ended before.
func (c *Client) Cancel(ctx context.Context, req *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
	return call(ctx, c, true, c.commands.Cancel, req)
}

// Signal sends one signal to a command. It is not retried once it may have
// reached the host.
func (c *Client) Signal(ctx context.Context, req *telexecv1.SignalRequest) (*telexecv1.SignalResponse, error) {
	return call(ctx, c, false, c.commands.Signal, req)
}

// SendInput writes to the standard input of a command. It is not retried once
// any of it may have reached the command; CopyInput does what is needed to be sure.
func (c *Client) SendInput(ctx context.Context, req *telexecv1.SendInputRequest) (*telexecv1.SendInputResponse, error) {
	return call(ctx, c, false, c.commands.SendInput, req)
}

// GetHost tells about one host.
func (c *Client) GetHost(ctx context.Context, name string) (*telexecv1.Host, error) {
	resp, err := call(ctx, c, true, c.hosts.GetHost, &telexecv1.GetHostRequest{Host: name})
	return resp.GetHost(), err
}

// CheckHost connects to a host and tells what was found. That it cannot be
// reached is an answer (ok is false, with the failure), not an error.
func (c *Client) CheckHost(ctx context.Context, req *telexecv1.CheckHostRequest) (*telexecv1.CheckHostResponse, error) {
	return call(ctx, c, true, c.hosts.CheckHost, req)
}

// GetServerInfo tells what the service is and how it does.
func (c *Client) GetServerInfo(ctx context.Context) (*telexecv1.GetServerInfoResponse, error) {
	return call(ctx, c, true, c.admin.GetServerInfo, &telexecv1.GetServerInfoRequest{})
}

// caller says who calls and through which door, in the metadata of every call.
type caller struct {
	token  Token
	origin string
}

func (c caller) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	md := make(map[string]string, 2)
	token := c.token
	if t, ok := ctx.Value(tokenKey{}).(Token); ok {
		token = t
	}
	if token != "" {
		md["authorization"] = "Bearer " + string(token)
	}
	if c.origin != "" {
		md["telexec-origin"] = c.origin
	}
	return md, nil
}

// RequireTransportSecurity is false because Dial has decided that already, and
// knows about loopback.
func (caller) RequireTransportSecurity() bool { return false }

// parseServer gives "host:port" and whether the scheme asks for TLS.
func parseServer(s string) (target string, secure bool, err *Error) {
	if s == "" {
		s = DefaultServer
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "grpc", s
	}
	switch scheme {
	case "https", "grpcs":
		secure = true
	case "http", "grpc":
	default:
		return "", false, optionError("cannot use the server address %q: unknown scheme %q", s, scheme).
			withHint("Give it as host:port or https://host:port")
	}
	u, parseErr := url.Parse("//" + rest)
	if parseErr != nil || !onlyHostPort(u) {
		return "", false, optionError("cannot use the server address %q", s).
			withHint("Give it as host:port or https://host:port")
	}
	port := u.Port()
	if port == "" {
		port = "7070"
	}
	return net.JoinHostPort(u.Hostname(), port), secure, nil
}

// Loopback reports whether server, as in Options.Server, stays on this machine.
func Loopback(server string) bool {
	target, _, err := parseServer(server)
	return err == nil && loopback(target)
}

// onlyHostPort reports whether u names a host, perhaps a port, and nothing more.
func onlyHostPort(u *url.URL) bool {
	host := u.Hostname()
	if host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return false
	}
	return u.User == nil && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.Fragment == ""
}

// loopback reports whether target stays on this machine. "localhost" does by
// RFC 6761, section 6.3.
func loopback(target string) bool {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

func tlsConfig(o Options) (*tls.Config, error) {
	cfg := o.TLSConfig.Clone()
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if o.CAFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, optionError("cannot read the CA file: %v", err)
	}
	if cfg.RootCAs == nil {
		cfg.RootCAs = x509.NewCertPool()
	}
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, optionError("the CA file %s holds no certificate", o.CAFile).
			withHint(`It must be PEM, with "-----BEGIN CERTIFICATE-----"`)
	}
	return cfg, nil
}

// optionError is a refusal of Dial.
func optionError(format string, args ...any) *Error {
	return newError(codes.InvalidArgument, ReasonInvalidOptions, format, args...)
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
