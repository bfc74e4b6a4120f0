package rpcserver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	validatepb "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/rpcserver"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "the-token"

// service answers as a test wants: its functions stand for handlers of api.
type service struct {
	telexecv1.UnimplementedCommandServiceServer
	execute func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error)
	stream  func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error
	hold    func() // what Cancel and CheckHost do; nil: they are not implemented
}

func (s *service) Execute(ctx context.Context, r *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
	return s.execute(ctx, r)
}

func (s *service) StreamOutput(r *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
	return s.stream(r, ss)
}

func (s *service) Cancel(ctx context.Context, r *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
	if s.hold == nil {
		return s.UnimplementedCommandServiceServer.Cancel(ctx, r)
	}
	s.hold()
	return &telexecv1.CancelResponse{}, nil
}

// hosts is the host service of the same server.
type hosts struct {
	telexecv1.UnimplementedHostServiceServer
	of *service
}

func (h hosts) CheckHost(ctx context.Context, r *telexecv1.CheckHostRequest) (*telexecv1.CheckHostResponse, error) {
	if h.of.hold == nil {
		return h.UnimplementedHostServiceServer.CheckHost(ctx, r)
	}
	h.of.hold()
	return &telexecv1.CheckHostResponse{}, nil
}

// meter keeps the codes it was told.
type meter struct {
	mu       sync.Mutex
	inFlight int
	codes    []string
	methods  []string
}

func (m *meter) CallStarted() { m.mu.Lock(); m.inFlight++; m.mu.Unlock() }
func (m *meter) Call(method, code string, _ time.Duration) {
	m.mu.Lock()
	m.inFlight--
	m.methods = append(m.methods, method)
	m.codes = append(m.codes, code)
	m.mu.Unlock()
}

// recorder keeps what the audit was told.
type recorder struct {
	mu      sync.Mutex
	entries []audit.Entry
	err     error
}

func (r *recorder) Record(_ context.Context, entries ...audit.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.entries = append(r.entries, entries...)
	return nil
}

// Tell is of rpcserver.Refusals: all are kept, none is counted.
func (r *recorder) Tell(ctx context.Context, e audit.Entry) { r.Record(ctx, e) }

// take gives the entries since the last call.
func (r *recorder) take() []audit.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.entries
	r.entries = nil
	return taken
}

// noRevocations is of a server without API keys.
type noRevocations struct{}

func (noRevocations) WhenRevoked(string, func()) func() { return func() {} }

type door struct {
	*rpcserver.Server
	audit *recorder
	conn  *grpc.ClientConn
	log   *lockedBuffer
	meter *meter
	stop  func() error // drains and gives what Run gave
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func open(t testing.TB, svc *service, drain time.Duration, change ...func(*rpcserver.Options)) *door {
	t.Helper()
	d := &door{log: &lockedBuffer{}, meter: &meter{}, audit: &recorder{}}
	logger := telemetry.NewLogger(d.log, slog.LevelInfo, telemetry.FormatText)
	o := rpcserver.Options{
		Authenticator: access.NewAdmin(secret.New(token)), Limiter: access.NewLimiter(access.Settings{}),
		Revocations: noRevocations{}, Refusals: access.NewRefusals(d.audit, logger),
		Logger: logger, Meter: d.meter, DrainTimeout: drain,
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	if d.Server, err = rpcserver.New(o); err != nil {
		t.Fatal(err)
	}
	telexecv1.RegisterCommandServiceServer(d.Server, svc)
	telexecv1.RegisterHostServiceServer(d.Server, hosts{of: svc})
	telexecv1.RegisterEventServiceServer(d.Server, telexecv1.UnimplementedEventServiceServer{})
	telexecv1.RegisterAdminServiceServer(d.Server, telexecv1.UnimplementedAdminServiceServer{})
	telexecv1.RegisterApprovalServiceServer(d.Server, telexecv1.UnimplementedApprovalServiceServer{})
	telexecv1.RegisterPolicyServiceServer(d.Server, telexecv1.UnimplementedPolicyServiceServer{})
	d.SetServing(true)

	l := bufconn.Listen(64 << 10)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx, l) }()
	d.stop = sync.OnceValue(func() error { cancel(); return <-ran })
	d.conn, err = grpc.NewClient("passthrough:door",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.conn.Close()
		if err := d.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return d
}

func withToken(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// info gives code, reason, facts and the other details of an error.
func info(t *testing.T, err error) (codes.Code, *errdetails.ErrorInfo, []any) {
	t.Helper()
	st := status.Convert(err)
	for _, d := range st.Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return st.Code(), i, st.Details()
		}
	}
	t.Fatalf("no ErrorInfo in %v", err)
	return 0, nil, nil
}

// TestEveryMethodIsGuarded calls every method of every registered service
// without a token, with a wrong one and with another scheme.
func TestEveryMethodIsGuarded(t *testing.T) {
	d := open(t, &service{}, time.Second)
	methods := 0
	for name, svc := range d.GetServiceInfo() {
		for _, m := range svc.Methods {
			methods++
			full := "/" + name + "/" + m.Name
			for header, reason := range map[string]string{
				"": fault.ReasonNoCredentials, "Basic " + token: fault.ReasonNoCredentials,
				"Bearer wrong": fault.ReasonBadCredentials, token: fault.ReasonNoCredentials,
			} {
				ctx := t.Context()
				if header != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
				}
				err := callEmpty(ctx, d.conn, full)
				if name == healthpb.Health_ServiceDesc.ServiceName {
					if status.Code(err) == codes.Unauthenticated {
						t.Errorf("%s wants a token", full)
					}
					continue
				}
				code, i, _ := info(t, err)
				if code != codes.Unauthenticated || i.GetReason() != reason || i.GetDomain() != rpcserver.Domain || i.GetMetadata()["hint"] == "" {
					t.Errorf("%s with authorization %q: %v", full, header, err)
				}
			}
		}
	}
	if methods < 12 {
		t.Errorf("walked only %d methods", methods)
	}
	// A method that is not there is not told to strangers either.
	if err := callEmpty(t.Context(), d.conn, "/telexec.v1.NoService/NoMethod"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("unknown method without a token: %v", err)
	}
	code, i, _ := info(t, callEmpty(withToken(t.Context()), d.conn, "/telexec.v1.NoService/NoMethod"))
	if code != codes.Unimplemented || i.GetReason() != fault.ReasonUnknownRoute {
		t.Errorf("unknown method: %v %v", code, i)
	}
}

// callEmpty opens any method as a stream, sends one empty message and reads one.
func callEmpty(ctx context.Context, conn *grpc.ClientConn, method string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	s.CloseSend()
	return s.RecvMsg(&emptypb.Empty{})
}

func TestACallCarriesPrincipalAndRequestID(t *testing.T) {
	svc := &service{execute: func(ctx context.Context, r *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		p, _ := access.FromContext(ctx)
		return &telexecv1.ExecuteResponse{Command: &telexecv1.Command{Id: telemetry.RequestID(ctx), Host: p.Name}}, nil
	}, stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		p, _ := access.FromContext(ss.Context())
		return ss.Send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Command{
			Command: &telexecv1.Command{Id: telemetry.RequestID(ss.Context()), Host: p.Name}}})
	}}
	d := open(t, svc, time.Second)
	client := telexecv1.NewCommandServiceClient(d.conn)
	ctx := metadata.AppendToOutgoingContext(withToken(t.Context()), "x-request-id", "req-7")

	var header metadata.MD
	resp, err := client.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "secret-word"}, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	if c := resp.GetCommand(); c.GetId() != "req-7" || c.GetHost() != "admin" || header.Get("x-request-id")[0] != "req-7" {
		t.Errorf("command %v, header %v", c, header)
	}
	stream, err := client.StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: "01ARZ3NDEKTSV4RRFFQ69G5FAV"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || m.GetCommand().GetId() != "req-7" || m.GetCommand().GetHost() != "admin" {
		t.Errorf("stream gave %v, %v", m, err)
	}
	if h, _ := stream.Header(); h.Get("x-request-id")[0] != "req-7" {
		t.Errorf("stream header %v", h)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("stream ended with %v", err)
	}
	d.stop()
	for _, want := range []string{"method=/telexec.v1.CommandService/Execute", "principal=admin", "request_id=req-7", "code=OK", "duration="} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, d.log)
		}
	}
	for _, never := range []string{"secret-word", token} {
		if strings.Contains(d.log.String(), never) {
			t.Errorf("%q is in the log:\n%s", never, d.log)
		}
	}
}

func TestFaultsReachTheCallerWithEverythingToActOn(t *testing.T) {
	var next error
	svc := &service{
		execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) { return nil, next },
		stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			return next
		},
	}
	d := open(t, svc, time.Second)
	client := telexecv1.NewCommandServiceClient(d.conn)
	ctx := withToken(t.Context())
	calls := map[string]func() error{
		"unary": func() error {
			_, err := client.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "true"})
			return err
		},
		"stream": func() error {
			s, err := client.StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: "01ARZ3NDEKTSV4RRFFQ69G5FAV"})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
	}
	for kind, call := range calls {
		next = fault.Wrap(errors.New("disk on fire"), fault.Unavailable, fault.ReasonStoreUnavailable, "the store is closed").
			WithHint("Try later").With("node", "n1").WithRetry(3 * time.Second)
		code, i, details := info(t, call())
		if code != codes.Unavailable || i.GetReason() != "STORE_UNAVAILABLE" || i.GetMetadata()["hint"] != "Try later" || i.GetMetadata()["node"] != "n1" {
			t.Errorf("%s: %v %v", kind, code, i)
		}
		retry := time.Duration(0)
		for _, x := range details {
			if r, ok := x.(*errdetails.RetryInfo); ok {
				retry = r.GetRetryDelay().AsDuration()
			}
		}
		if retry != 3*time.Second {
			t.Errorf("%s: retry after %v", kind, retry)
		}

		next = errors.New("password=hunter2 in some library's text")
		err := call()
		if code, i, _ := info(t, err); code != codes.Internal || i.GetReason() != "INTERNAL" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: an unknown error is told as %v", kind, err)
		}
	}
	d.stop()
	for _, want := range []string{"disk on fire", "code=Unavailable", "reason=STORE_UNAVAILABLE", "level=ERROR"} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, d.log)
		}
	}
}

func TestAPanicIsAnInternalErrorOfOneCall(t *testing.T) {
	svc := &service{
		execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) { panic("oh no") },
		stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			panic("oh no")
		},
	}
	d := open(t, svc, time.Second)
	client := telexecv1.NewCommandServiceClient(d.conn)
	ctx := withToken(t.Context())
	_, err := client.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "true"})
	if code, i, _ := info(t, err); code != codes.Internal || i.GetReason() != "INTERNAL" || strings.Contains(err.Error(), "oh no") {
		t.Errorf("unary: %v", err)
	}
	s, err := client.StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: "01ARZ3NDEKTSV4RRFFQ69G5FAV"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("stream: %v", err)
	}
	d.stop()
	if log := d.log.String(); !strings.Contains(log, "oh no") || !strings.Contains(log, "rpcserver_test.go") {
		t.Errorf("no panic with its stack in the log:\n%s", log)
	}
	if d.meter.inFlight != 0 || len(d.meter.codes) != 2 || d.meter.codes[0] != "Internal" {
		t.Errorf("metrics: %d in flight, codes %v", d.meter.inFlight, d.meter.codes)
	}
}

func TestRequestsAreValidated(t *testing.T) {
	d := open(t, &service{}, time.Second) // a request that got through would panic
	client := telexecv1.NewCommandServiceClient(d.conn)
	ctx := withToken(t.Context())
	for name, c := range map[string]struct {
		req    *telexecv1.ExecuteRequest
		reason string
		field  string
		says   string
	}{
		"nothing":          {&telexecv1.ExecuteRequest{}, fault.ReasonEmptyCommand, "command", "command"},
		"no command":       {&telexecv1.ExecuteRequest{Host: "h"}, fault.ReasonEmptyCommand, "command", "command"},
		"no host":          {&telexecv1.ExecuteRequest{Command: "true"}, fault.ReasonMissingHost, "host", "host"},
		"long command":     {&telexecv1.ExecuteRequest{Host: "h", Command: strings.Repeat("x", 1<<20)}, fault.ReasonCommandTooLong, "command", "120,000"},
		"long argv":        {&telexecv1.ExecuteRequest{Host: "h", Argv: []string{strings.Repeat("x", 1<<20)}}, fault.ReasonCommandTooLong, "argv", "100,000"},
		"both":             {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Argv: []string{"b"}}, fault.ReasonInvalidRequest, "command", "not both"},
		"host":             {&telexecv1.ExecuteRequest{Host: "-h", Command: "a"}, fault.ReasonInvalidRequest, "host", "does not begin with a hyphen"},
		"request id":       {&telexecv1.ExecuteRequest{Host: "h", Command: "a", RequestId: "a b"}, fault.ReasonInvalidRequest, "request_id", "no spaces"},
		"session":          {&telexecv1.ExecuteRequest{Session: "a b", Command: "a"}, fault.ReasonInvalidRequest, "session", "letters, digits and . _ -"},
		"NUL":              {&telexecv1.ExecuteRequest{Host: "h", Command: "a\x00"}, fault.ReasonInvalidRequest, "command", "NUL"},
		"directory":        {&telexecv1.ExecuteRequest{Host: "h", Command: "a", WorkingDirectory: "a\x00"}, fault.ReasonInvalidRequest, "working_directory", "NUL"},
		"variable":         {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Env: map[string]string{"1": ""}}, fault.ReasonInvalidRequest, `env["1"]`, "does not begin with a digit"},
		"value":            {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Env: map[string]string{"A": "\x00"}}, fault.ReasonInvalidRequest, `env["A"]`, "NUL"},
		"label":            {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Labels: map[string]string{"a b": ""}}, fault.ReasonInvalidRequest, `labels["a b"]`, "letters and digits"},
		"no label":         {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Labels: map[string]string{"": ""}}, fault.ReasonInvalidRequest, `labels[""]`, "letters and digits"},
		"action type":      {&telexecv1.ExecuteRequest{Host: "h", Command: "a", ActionType: "A"}, fault.ReasonInvalidRequest, "action_type", "small letters"},
		"terminal":         {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Pty: &telexecv1.Pty{Term: "a b"}}, fault.ReasonInvalidRequest, "pty.term", "terminal type"},
		"sudo":             {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Sudo: &telexecv1.Sudo{User: "a b"}}, fault.ReasonInvalidRequest, "sudo.user", "user"},
		"sudo, two lines":  {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Sudo: &telexecv1.Sudo{Password: "hunter2\n"}}, fault.ReasonInvalidRequest, "sudo.password", "sudo reads one line"},
		"sudo, return":     {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Sudo: &telexecv1.Sudo{Password: "hunter2\r"}}, fault.ReasonInvalidRequest, "sudo.password", "sudo reads one line"},
		"sudo, NUL":        {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Sudo: &telexecv1.Sudo{Password: "hunter2\x00"}}, fault.ReasonInvalidRequest, "sudo.password", "sudo reads one line"},
		"sudo, long":       {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Sudo: &telexecv1.Sudo{Password: strings.Repeat("hunter2", 200)}}, fault.ReasonInvalidRequest, "sudo.password", "1024"},
		"durable terminal": {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Pty: &telexecv1.Pty{}, Durability: telexecv1.Durability_DURABILITY_DURABLE}, fault.ReasonInvalidRequest, "durability", "a terminal lives on its connection"},
		"priority":         {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Priority: 101}, fault.ReasonInvalidRequest, "priority", "100"},
		"limit":            {&telexecv1.ExecuteRequest{Host: "h", Command: "a", Output: &telexecv1.OutputOptions{LimitBytes: -1}}, fault.ReasonInvalidRequest, "output.limit_bytes", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.Execute(ctx, c.req)
			code, i, details := info(t, err)
			if code != codes.InvalidArgument || i.GetReason() != c.reason || i.GetMetadata()["hint"] == "" {
				t.Fatalf("%v %v", code, i)
			}
			var fields []*errdetails.BadRequest_FieldViolation
			for _, x := range details {
				if b, ok := x.(*errdetails.BadRequest); ok {
					fields = b.GetFieldViolations()
				}
			}
			found := false
			for _, f := range fields {
				found = found || f.GetField() == c.field && strings.Contains(f.GetDescription(), c.says) && f.GetReason() != ""
			}
			if c.reason == fault.ReasonInvalidRequest && len(fields) != 1 {
				t.Errorf("one mistake, %d complaints: %v", len(fields), fields)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is told: %v", err)
			}
			if strings.Contains(err.Error(), "regex") {
				t.Errorf("not for people: %v", err)
			}
			if !found || !strings.Contains(status.Convert(err).Message(), c.says) {
				t.Errorf("fields %v in %v", fields, err)
			}
		})
	}
	// What is wrong with a message as a whole is told of a field of it too.
	for _, m := range []proto.Message{&telexecv1.ExecuteRequest{}, &telexecv1.GetStatusRequest{}} {
		rules, _ := proto.GetExtension(m.ProtoReflect().Descriptor().Options(), validatepb.E_Message).(*validatepb.MessageRules)
		if len(rules.GetCel()) == 0 {
			t.Errorf("%T has no rules: the test tests nothing", m)
		}
		for _, rule := range rules.GetCel() {
			name, _, _ := strings.Cut(rule.GetId(), ".")
			if m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name)) == nil {
				t.Errorf("%T: the rule %s begins with no field", m, rule.GetId())
			}
		}
	}
	s, err := client.StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: "x"})
	if err != nil {
		t.Fatal(err)
	}
	_, streamErr := s.Recv()
	_, statusErr := client.GetStatus(ctx, &telexecv1.GetStatusRequest{CommandId: "x"})
	_, cancelErr := client.Cancel(ctx, &telexecv1.CancelRequest{CommandId: "x"})
	_, signalErr := client.Signal(ctx, &telexecv1.SignalRequest{CommandId: "x"})
	_, inputErr := client.SendInput(ctx, &telexecv1.SendInputRequest{CommandId: "x"})
	for call, err := range map[string]error{
		"StreamOutput": streamErr, "GetStatus": statusErr, "Cancel": cancelErr, "Signal": signalErr, "SendInput": inputErr,
	} {
		code, i, _ := info(t, err)
		if code != codes.InvalidArgument || i.GetReason() != fault.ReasonInvalidRequest ||
			!strings.HasPrefix(status.Convert(err).Message(), "command_id: a command id has 26 digits and capital letters") {
			t.Errorf("%s: %v", call, err)
		}
	}
	_, err = client.Signal(ctx, &telexecv1.SignalRequest{CommandId: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Signal: "SIGINT"})
	if message := status.Convert(err).Message(); !strings.HasPrefix(message, "signal: a signal is one of INT, TERM,") {
		t.Errorf("Signal: %v", err)
	}
	_, err = telexecv1.NewHostServiceClient(d.conn).GetHost(ctx, &telexecv1.GetHostRequest{})
	if code, i, _ := info(t, err); code != codes.InvalidArgument || i.GetReason() != fault.ReasonMissingHost {
		t.Errorf("GetHost: %v", err)
	}
}

func TestReflectionWithToken(t *testing.T) {
	d := open(t, &service{}, time.Second)
	s, err := reflectionpb.NewServerReflectionClient(d.conn).ServerReflectionInfo(withToken(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil || !strings.Contains(m.String(), "telexec.v1.CommandService") {
		t.Errorf("%v, %v", m, err)
	}
	s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		t.Error(err)
	}
}

func TestDrain(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	svc := &service{execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		close(started)
		<-finish
		return &telexecv1.ExecuteResponse{}, nil
	}}
	d := open(t, svc, time.Minute)
	health := healthpb.NewHealthClient(d.conn)
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "telexec.v1.CommandService"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health %v, %v", m, err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := telexecv1.NewCommandServiceClient(d.conn).Execute(withToken(t.Context()), &telexecv1.ExecuteRequest{Host: "h", Command: "true"})
		answered <- err
	}()
	<-started
	stopped := make(chan error, 1)
	go func() { stopped <- d.stop() }()
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health while draining: %v, %v", m, err)
	}
	d.conn.Close() // ends the watch, which a drain would wait for
	<-answered
	close(finish)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestDrainIsBounded(t *testing.T) {
	started := make(chan struct{})
	svc := &service{execute: func(ctx context.Context, _ *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		close(started)
		<-ctx.Done() // never ends by itself
		return nil, ctx.Err()
	}}
	d := open(t, svc, 50*time.Millisecond)
	answered := make(chan error, 1)
	go func() {
		_, err := telexecv1.NewCommandServiceClient(d.conn).Execute(withToken(t.Context()), &telexecv1.ExecuteRequest{Host: "h", Command: "true"})
		answered <- err
	}()
	<-started
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if err := <-answered; err == nil {
		t.Error("the call was answered")
	}
}

func TestABrokenListenerEndsRun(t *testing.T) {
	s, err := rpcserver.New(rpcserver.Options{
		Authenticator: access.NewAdmin(secret.New(token)), Logger: slog.New(slog.DiscardHandler), Meter: &meter{}, DrainTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	good, bad := bufconn.Listen(1), bufconn.Listen(1)
	bad.Close()
	if err := s.Run(t.Context(), good, bad); err == nil || !strings.Contains(err.Error(), "gRPC server") {
		t.Errorf("Run gave %v", err)
	}
}
