package rpcserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/rpcserver"
	"github.com/telexec/telexec/internal/secret"
)

const anID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// authenticator is one that a test makes of a function.
type authenticator func(access.Credentials) (access.Principal, error)

func (f authenticator) Authenticate(_ context.Context, shown access.Credentials) (access.Principal, error) {
	return f(shown)
}

// everything makes a server with all services that the contract has, now and
// later, whose handlers tell reached that they were.
func everything(t *testing.T, o rpcserver.Options, reached func(method string)) (*rpcserver.Server, []string) {
	t.Helper()
	s, err := rpcserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	var methods []string
	protoregistry.GlobalFiles.RangeFilesByPackage("telexec.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			desc := &grpc.ServiceDesc{ServiceName: string(service.FullName()), HandlerType: (*any)(nil), Metadata: f.Path()}
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				full := "/" + desc.ServiceName + "/" + string(m.Name())
				methods = append(methods, full)
				if m.IsStreamingServer() || m.IsStreamingClient() {
					desc.Streams = append(desc.Streams, grpc.StreamDesc{
						StreamName: string(m.Name()), ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient(),
						Handler: func(any, grpc.ServerStream) error { reached(full); return nil },
					})
					continue
				}
				desc.Methods = append(desc.Methods, grpc.MethodDesc{
					MethodName: string(m.Name()),
					Handler: func(srv any, ctx context.Context, dec func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
						in := &emptypb.Empty{}
						if err := dec(in); err != nil {
							return nil, err
						}
						return around(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, func(context.Context, any) (any, error) {
							reached(full)
							return &emptypb.Empty{}, nil
						})
					},
				})
			}
			s.RegisterService(desc, struct{}{})
		}
		return true
	})
	s.SetServing(true)
	return s, methods
}

// TestNothingIsReachedWithoutCredentials calls every method of the contract, of
// health and of reflection: whoever is not known is refused and told to the audit
// once, and no handler learns of it.
func TestNothingIsReachedWithoutCredentials(t *testing.T) {
	kept := &recorder{}
	logger := slog.New(slog.DiscardHandler)
	reached := make(chan string, 1)
	gone := time.Now().Add(-time.Hour)
	s, methods := everything(t, rpcserver.Options{
		Authenticator: authenticator(func(shown access.Credentials) (access.Principal, error) {
			if shown.Token.Reveal() == "over" {
				return access.Principal{}, fault.New(fault.Unauthenticated, fault.ReasonTokenExpired, "over since %s", gone)
			}
			return access.NewAdmin(secret.New(token)).Authenticate(t.Context(), shown)
		}),
		Limiter: access.NewLimiter(access.Settings{}), Revocations: noRevocations{}, Refusals: kept,
		Logger: logger, Meter: &meter{}, DrainTimeout: time.Second,
	}, func(method string) { reached <- method })
	conn := dialTCP(t, s, insecure.NewCredentials())
	if len(methods) < 20 {
		t.Fatalf("walked only %d methods", len(methods))
	}
	methods = append(methods, "/"+reflectionpb.ServerReflection_ServiceDesc.ServiceName+"/ServerReflectionInfo", "/telexec.v1.CommandService/Nonsense", "/x/y")
	for _, method := range methods {
		told := strings.TrimPrefix(strings.TrimPrefix(method, "/telexec.v1."), "/grpc.reflection.v1.")
		subject := ""
		if strings.HasSuffix(method, "/Nonsense") || method == "/x/y" {
			told, subject = "unknown", strings.TrimPrefix(method, "/")
		}
		for shown, reason := range map[string]string{
			"": fault.ReasonNoCredentials, "wrong": fault.ReasonBadCredentials, "over": fault.ReasonTokenExpired,
		} {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "call-7", "telexec-origin", "mcp")
			if shown != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+shown)
			}
			code, i, _ := info(t, callEmpty(ctx, conn, method))
			if code != codes.Unauthenticated || i.GetReason() != reason {
				t.Errorf("%s with %q: %v %v", method, shown, code, i)
			}
			entries := kept.take()
			if len(entries) != 1 {
				t.Errorf("%s with %q: the audit was told %d times: %+v", method, shown, len(entries), entries)
				continue
			}
			e := entries[0]
			if e.Kind != audit.Refused || e.Method != told || e.Subject != subject || e.Reason != reason || e.Principal != "" ||
				e.Origin != "mcp" || e.Address != "127.0.0.1" || e.Call != "call-7" || e.Detail == "" {
				t.Errorf("%s with %q: %+v", method, shown, e)
			}
		}
		select {
		case m := <-reached:
			t.Errorf("%s was reached", m)
		default:
		}
	}
	// The handlers can be reached: with the token.
	for _, method := range methods[:len(methods)-3] {
		if err := callEmpty(withToken(t.Context()), conn, method); err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%s with the token: %v", method, err)
		}
		if m := <-reached; m != method {
			t.Errorf("%s reached %s", method, m)
		}
	}
	if err := callEmpty(t.Context(), conn, "/"+healthpb.Health_ServiceDesc.ServiceName+"/Check"); err != nil {
		t.Errorf("health: %v", err)
	}
	if entries := kept.take(); len(entries) != 0 {
		t.Errorf("told of what was not refused: %+v", entries)
	}
}

// dialTCP runs a server on a port and connects to it.
func dialTCP(t *testing.T, s *rpcserver.Server, creds credentials.TransportCredentials, more ...net.Listener) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx, append(more, l)...) }()
	conn, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return conn
}

// whoami is a service that keeps the caller of the last Execute.
func whoami(got *access.Caller) *service {
	return &service{execute: func(ctx context.Context, _ *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		*got, _ = access.FromContext(ctx)
		return &telexecv1.ExecuteResponse{}, nil
	}}
}

func execute(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := telexecv1.NewCommandServiceClient(conn).Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "true"})
	return err
}

func TestWhatIsBelievedOfAnArrival(t *testing.T) {
	var got access.Caller
	var client string
	d := open(t, whoami(&got), time.Second, func(o *rpcserver.Options) {
		admin := o.Authenticator
		o.Authenticator = authenticator(func(shown access.Credentials) (access.Principal, error) {
			client = shown.Client
			return admin.Authenticate(t.Context(), shown)
		})
	})
	tcp := dialTCP(t, d.Server, insecure.NewCredentials())
	for _, origin := range append(command.Origins, "", "nonsense") {
		ctx := metadata.AppendToOutgoingContext(withToken(t.Context()), "telexec-origin", string(origin),
			"telexec-address", "192.0.2.7", "telexec-client-bin", "ci.example", "x-request-id", "call-9")
		believed := origin
		if !slices.Contains(command.Origins, origin) {
			believed = command.OriginGRPC
		}
		if err := execute(ctx, d.conn); err != nil {
			t.Fatal(err)
		}
		if got.Origin != believed || got.Address != "192.0.2.7" || client != "ci.example" || got.Name != "admin" || got.Call != "call-9" {
			t.Errorf("in memory, %q: %+v, client %q", origin, got, client)
		}
		if origin != command.OriginCLI && origin != command.OriginMCP {
			believed = command.OriginGRPC
		}
		if err := execute(ctx, tcp); err != nil {
			t.Fatal(err)
		}
		if got.Origin != believed || got.Address != "127.0.0.1" || client != "" {
			t.Errorf("over TCP, %q: %+v, client %q", origin, got, client)
		}
	}
}

// certificates makes a CA, and certificates for a server and a client.
func certificates(t *testing.T) (ca *x509.CertPool, server, client tls.Certificate) {
	t.Helper()
	issue := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (tls.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			by = key
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, key
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootPair, rootKey := issue(root, root, nil)
	parsed, err := x509.ParseCertificate(rootPair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	ca = x509.NewCertPool()
	ca.AddCert(parsed)
	server, _ = issue(&x509.Certificate{SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, parsed, rootKey)
	client, _ = issue(&x509.Certificate{SerialNumber: big.NewInt(3), DNSNames: []string{"ci.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, parsed, rootKey)
	return ca, server, client
}

func TestClientCertificates(t *testing.T) {
	ca, server, client := certificates(t)
	clients, err := access.NewClients(map[string][]access.Role{"ci.example": {access.RoleOperator}})
	if err != nil {
		t.Fatal(err)
	}
	var got access.Caller
	d := open(t, whoami(&got), time.Second, func(o *rpcserver.Options) {
		o.Authenticator = access.Authenticators{Admin: o.Authenticator, Clients: clients}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca, NextProtos: []string{"h2", "http/1.1"}}
	})
	with := credentials.NewTLS(&tls.Config{RootCAs: ca, ServerName: "127.0.0.1", Certificates: []tls.Certificate{client}})
	conn := dialTCP(t, d.Server, with)
	if err := execute(t.Context(), conn); err != nil || got.Name != "cert:ci.example" || got.Address != "127.0.0.1" {
		t.Errorf("with a certificate: %v, %+v", err, got)
	}
	if err := execute(withToken(t.Context()), conn); err != nil || got.Name != "admin" {
		t.Errorf("with a certificate and a token: %v, %+v", err, got)
	}
	// The gateway's connection stays plain, and its word about a certificate counts.
	if err := execute(metadata.AppendToOutgoingContext(t.Context(), "telexec-client-bin", "ci.example"), d.conn); err != nil || got.Name != "cert:ci.example" {
		t.Errorf("in memory: %v, %+v", err, got)
	}
}

func TestTLSWithoutACertificate(t *testing.T) {
	ca, server, _ := certificates(t)
	var got access.Caller
	d := open(t, whoami(&got), time.Second, func(o *rpcserver.Options) {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca}
	})
	conn := dialTCP(t, d.Server, credentials.NewTLS(&tls.Config{RootCAs: ca, ServerName: "127.0.0.1"}))
	if err := execute(withToken(t.Context()), conn); err != nil || got.Name != "admin" {
		t.Errorf("with a token: %v, %+v", err, got)
	}
	err := execute(metadata.AppendToOutgoingContext(t.Context(), "telexec-client-bin", "ci.example"), conn)
	if code, i, _ := info(t, err); code != codes.Unauthenticated || i.GetReason() != fault.ReasonNoCredentials {
		t.Errorf("with a name and no certificate: %v", err)
	}
	plain, err := grpc.NewClient(conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := execute(withToken(t.Context()), plain); status.Code(err) != codes.Unavailable {
		t.Errorf("without TLS: %v", err)
	}
}

// retryAfter gives the RetryInfo of an error.
func retryAfter(details []any) time.Duration {
	for _, x := range details {
		if r, ok := x.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

func TestRateLimits(t *testing.T) {
	var got access.Caller
	d := open(t, whoami(&got), time.Second, func(o *rpcserver.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Start: 0.1}}) // one at once
	})
	ctx := withToken(t.Context())
	if err := execute(ctx, d.conn); err != nil {
		t.Fatal(err)
	}
	// Before validation: a flood of wrong requests is one, too.
	_, err := telexecv1.NewCommandServiceClient(d.conn).Execute(ctx, &telexecv1.ExecuteRequest{Host: "web1"})
	code, i, details := info(t, err)
	if code != codes.ResourceExhausted || i.GetReason() != fault.ReasonRateLimited || retryAfter(details) <= 0 {
		t.Errorf("%v %v %v", code, i, details)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Principal != "admin" || e[0].Method != "CommandService/Execute" || e[0].Reason != fault.ReasonRateLimited {
		t.Errorf("audit %+v", e)
	}
	if _, err := telexecv1.NewAdminServiceClient(d.conn).GetServerInfo(ctx, &telexecv1.GetServerInfoRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("another class: %v", err)
	}
}

func TestOpenStreamsAreLimited(t *testing.T) {
	opened, finish := make(chan struct{}, 1), make(chan struct{})
	d := open(t, &service{stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		opened <- struct{}{}
		<-finish
		return nil
	}}, time.Second, func(o *rpcserver.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Streams: 1}})
	})
	watch := func() error {
		s, err := telexecv1.NewCommandServiceClient(d.conn).StreamOutput(withToken(t.Context()), &telexecv1.StreamOutputRequest{CommandId: anID})
		if err != nil {
			return err
		}
		_, err = s.Recv()
		return err
	}
	first := make(chan error, 1)
	go func() { first <- watch() }()
	<-opened
	if code, i, _ := info(t, watch()); code != codes.ResourceExhausted || i.GetReason() != fault.ReasonTooManyStreams {
		t.Errorf("second: %v %v", code, i)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Reason != fault.ReasonTooManyStreams || e[0].Method != "CommandService/StreamOutput" {
		t.Errorf("audit %+v", e)
	}
	close(finish)
	if err := <-first; err != io.EOF {
		t.Error(err)
	}
	if err := watch(); err != io.EOF {
		t.Errorf("after the first has ended: %v", err)
	}
}

// Who watches health shows no token, and is counted apart (TestStrangersHoldLittleOpen):
// what is for callers at the address is left for them.
func TestWatchersOfHealthTakeNoStreams(t *testing.T) {
	d := open(t, &service{stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		return nil
	}}, time.Second, func(o *rpcserver.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Address: access.Limits{Streams: 1, Read: 0.1}})
	})
	conn := dialTCP(t, d.Server, insecure.NewCredentials())
	health := healthpb.NewHealthClient(conn)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Error(err)
		}
	}
	s, err := telexecv1.NewCommandServiceClient(conn).StreamOutput(withToken(ctx), &telexecv1.StreamOutputRequest{CommandId: anID})
	if err == nil {
		_, err = s.Recv()
	}
	if err != io.EOF {
		t.Errorf("a caller beside them: %v", err)
	}
	for range 5 { // a look is free
		if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Error(err)
		}
	}
}

func TestWhoGuessesIsNotListenedTo(t *testing.T) {
	var got access.Caller
	d := open(t, whoami(&got), time.Second, func(o *rpcserver.Options) {
		o.Limiter = access.NewLimiter(access.Settings{FailuresPerAddress: 0.1})
	})
	conn := dialTCP(t, d.Server, insecure.NewCredentials())
	wrong := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer guess")
	for range 3 { // nothing shown is no guess
		if _, i, _ := info(t, execute(t.Context(), conn)); i.GetReason() != fault.ReasonNoCredentials {
			t.Errorf("%v", i)
		}
	}
	if err := execute(withToken(t.Context()), conn); err != nil {
		t.Fatal(err)
	}
	if _, i, _ := info(t, execute(wrong, conn)); i.GetReason() != fault.ReasonBadCredentials {
		t.Errorf("first guess: %v", i)
	}
	jwt := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer e30.e30.e30")
	for _, ctx := range []context.Context{wrong, jwt} {
		code, i, details := info(t, execute(ctx, conn))
		if code != codes.ResourceExhausted || i.GetReason() != fault.ReasonRateLimited || retryAfter(details) <= 0 {
			t.Errorf("after it: %v %v", code, i)
		}
	}
	// Who has a good one is not locked out by those who guess.
	if err := execute(withToken(t.Context()), conn); err != nil {
		t.Error(err)
	}
	// Another address, as the gateway tells it, is not concerned.
	err := execute(metadata.AppendToOutgoingContext(jwt, "telexec-address", "192.0.2.1"), d.conn)
	if _, i, _ := info(t, err); i.GetReason() != fault.ReasonBadCredentials {
		t.Errorf("elsewhere: %v", err)
	}
}

// revocations is of one key: what is to be called when it is revoked.
type revocations struct {
	mu    sync.Mutex
	funcs []func()
}

func (r *revocations) WhenRevoked(id string, f func()) (stop func()) {
	if id == "k1" {
		r.mu.Lock()
		r.funcs = append(r.funcs, f)
		r.mu.Unlock()
	}
	return func() {}
}

func (r *revocations) revoke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.funcs {
		f()
	}
}

func TestCallsEndWithTheirCredentials(t *testing.T) {
	for name, end := range map[string]struct {
		who    access.Principal
		reason string
	}{
		"expired": {access.Principal{Name: "robot"}, fault.ReasonTokenExpired},
		"revoked": {access.Principal{Name: "robot", Key: "k1"}, fault.ReasonTokenRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			gone := &revocations{}
			under := make(chan struct{}, 3)
			svc := &service{
				execute: func(ctx context.Context, _ *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
					under <- struct{}{}
					<-ctx.Done() // a wait that is over is no error
					return &telexecv1.ExecuteResponse{}, nil
				},
				stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
					under <- struct{}{}
					<-ss.Context().Done()
					// Nothing goes out any more.
					return ss.Send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Command{Command: &telexecv1.Command{Id: anID}}})
				},
			}
			d := open(t, svc, time.Second, func(o *rpcserver.Options) {
				o.Revocations = gone
				o.Authenticator = authenticator(func(access.Credentials) (access.Principal, error) {
					p := end.who
					if p.Key == "" {
						p.Expiry = time.Now().Add(300 * time.Millisecond)
					}
					return p, nil
				})
			})
			ctx := withToken(t.Context())
			ended := make(chan error, 3)
			go func() { ended <- execute(ctx, d.conn) }()
			go func() {
				s, err := telexecv1.NewCommandServiceClient(d.conn).StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: anID})
				if err == nil {
					_, err = s.Recv()
				}
				ended <- err
			}()
			go func() { // its handler waits for a message that never comes
				s, err := reflectionpb.NewServerReflectionClient(d.conn).ServerReflectionInfo(ctx)
				if err == nil {
					err = s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
				}
				if err == nil {
					_, err = s.Recv()
				}
				under <- struct{}{}
				if err == nil {
					_, err = s.Recv()
				}
				ended <- err
			}()
			for range 3 {
				<-under
			}
			if end.who.Key != "" {
				gone.revoke()
			}
			for range 3 {
				if code, i, _ := info(t, <-ended); code != codes.Unauthenticated || i.GetReason() != end.reason || i.GetMetadata()["hint"] == "" {
					t.Errorf("%v %v", code, i)
				}
			}
			entries := d.audit.take()
			if len(entries) != 3 {
				t.Errorf("%d entries: %+v", len(entries), entries)
			}
			for _, e := range entries {
				if e.Principal != "robot" || e.Reason != end.reason {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

// A call that its client ends is not told as one whose credentials are over.
func TestAClientThatGoesAwayHasCredentials(t *testing.T) {
	under := make(chan struct{})
	d := open(t, &service{execute: func(ctx context.Context, _ *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		close(under)
		<-ctx.Done()
		return nil, ctx.Err()
	}}, time.Second, func(o *rpcserver.Options) {
		o.Authenticator = authenticator(func(access.Credentials) (access.Principal, error) {
			return access.Principal{Name: "robot", Key: "k2", Expiry: time.Now().Add(time.Hour)}, nil
		})
	})
	ctx, cancel := context.WithCancel(withToken(t.Context()))
	go func() { <-under; cancel() }()
	if err := execute(ctx, d.conn); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	d.stop()
	if e := d.audit.take(); len(e) != 0 {
		t.Errorf("audit %+v", e)
	}
	if !strings.Contains(d.log.String(), "reason=CALL_CANCELLED") {
		t.Errorf("log:\n%s", d.log)
	}
}
