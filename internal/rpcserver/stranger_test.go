package rpcserver_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/rpcserver"
)

// anyStream lets a test do with a method what its client would not.
var anyStream = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

// TestAStrangerIsRefusedBeforeTheMessage: nothing of it is waited for, so that
// nobody without credentials fills the memory.
func TestAStrangerIsRefusedBeforeTheMessage(t *testing.T) {
	d := open(t, &service{}, time.Second)
	conn := dialTCP(t, d.Server, insecure.NewCredentials())
	for name, svc := range d.GetServiceInfo() {
		if name == healthpb.Health_ServiceDesc.ServiceName {
			continue
		}
		for _, m := range svc.Methods {
			s, err := conn.NewStream(t.Context(), anyStream, "/"+name+"/"+m.Name)
			if err != nil {
				t.Fatal(err)
			}
			err = s.RecvMsg(nil) // nothing was sent
			if code, i, _ := info(t, err); code != codes.Unauthenticated || i.GetReason() != fault.ReasonNoCredentials {
				t.Errorf("%s/%s: %v", name, m.Name, err)
			}
		}
	}
}

// raw sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (raw) Unmarshal(_ []byte, _ any) error { return nil }
func (raw) Name() string                    { return "proto" }

func TestAMessageThatCannotBeRead(t *testing.T) {
	d := open(t, &service{}, time.Second)
	for _, method := range []string{"/telexec.v1.CommandService/Execute", "/telexec.v1.CommandService/StreamOutput", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
		call := func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			s, err := d.conn.NewStream(ctx, anyStream, method, grpc.ForceCodec(raw{}))
			if err != nil {
				return err
			}
			if err := s.SendMsg([]byte("\xff\xff\xff")); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			s.CloseSend()
			return s.RecvMsg(nil)
		}
		if code, i, _ := info(t, call(t.Context())); code != codes.Unauthenticated {
			t.Errorf("%s of a stranger: %v %v", method, code, i)
		}
		code, i, _ := info(t, call(withToken(t.Context())))
		if code != codes.InvalidArgument || i.GetReason() != fault.ReasonInvalidRequest || i.GetMetadata()["hint"] == "" {
			t.Errorf("%s: %v %v", method, code, i)
		}
	}
	s, err := d.conn.NewStream(withToken(t.Context()), anyStream, "/telexec.v1.CommandService/Execute")
	if err != nil {
		t.Fatal(err)
	}
	s.CloseSend() // without a message
	if err := s.RecvMsg(nil); err == nil {
		t.Error("a call without a message was answered")
	}
	d.stop()
	// gRPC itself has answered the last one, and the log says with which code.
	log := d.log.String()
	if strings.Contains(log, "level=ERROR") || strings.Count(log, "code=Internal") != 1 || d.meter.codes[len(d.meter.codes)-1] != "Internal" {
		t.Errorf("log:\n%s", log)
	}
}

// TestAMessageThatIsTooLong is told with all there is to act on, unless it is too
// long by far.
func TestAMessageThatIsTooLong(t *testing.T) {
	d := open(t, &service{}, time.Second)
	long := func(n int) error {
		_, err := telexecv1.NewCommandServiceClient(d.conn).Execute(withToken(t.Context()), &telexecv1.ExecuteRequest{Host: "h", Command: strings.Repeat("x", n)})
		return err
	}
	code, i, _ := info(t, long(rpcserver.MaxMessage))
	if code != codes.ResourceExhausted || i.GetReason() != fault.ReasonInvalidRequest || i.GetMetadata()["hint"] == "" {
		t.Errorf("%v %v", code, i)
	}
	if err := long(2 * rpcserver.MaxMessage); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
	d.stop()
	if log := d.log.String(); strings.Count(log, "code=ResourceExhausted") != 2 {
		t.Errorf("log:\n%s", log)
	}
}

// TestAMessageThatDoesNotCome: a token does not give the right to hold calls open
// without saying anything, and those who do still have room for others.
func TestAMessageThatDoesNotCome(t *testing.T) {
	gone := &revocations{}
	d := open(t, &service{}, time.Second, func(o *rpcserver.Options) {
		o.Revocations = gone
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Streams: 1}})
		o.Authenticator = authenticator(func(access.Credentials) (access.Principal, error) {
			return access.Principal{Name: "robot", Key: "k1"}, nil
		})
	})
	conn := dialTCP(t, d.Server, insecure.NewCredentials())
	ended := make(chan error, 260) // from each call; never blocks
	for range 260 {
		s, err := conn.NewStream(withToken(t.Context()), anyStream, telexecv1.CommandService_Execute_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- s.RecvMsg(nil) }() // nothing is sent
	}
	for range 4 {
		if code, i, _ := info(t, <-ended); code != codes.ResourceExhausted || i.GetReason() != fault.ReasonTooManyStreams {
			t.Errorf("%v %v", code, i)
		}
	}
	if _, err := telexecv1.NewCommandServiceClient(conn).GetStatus(withToken(t.Context()), &telexecv1.GetStatusRequest{CommandId: anID}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a call with its message: %v", err)
	}
	gone.revoke()
	for range 256 {
		if code, i, _ := info(t, <-ended); code != codes.Unauthenticated || i.GetReason() != fault.ReasonTokenRevoked {
			t.Errorf("%v %v", code, i)
		}
	}
}

// TestMadeUpMethods leave one label behind, and not much in the log.
func TestMadeUpMethods(t *testing.T) {
	d := open(t, &service{}, time.Second)
	for i := range 20 {
		long := "/made.up/" + strings.Repeat(string(rune('a'+i)), 3000)
		for _, ctx := range []context.Context{t.Context(), withToken(t.Context())} {
			if code, i, _ := info(t, callEmpty(ctx, d.conn, long)); code == codes.OK || len(status.Convert(errors.New(i.String())).Message()) > 1000 {
				t.Errorf("%v %v", code, i)
			}
		}
	}
	if err := callEmpty(t.Context(), d.conn, healthpb.Health_Check_FullMethodName); err != nil {
		t.Error(err)
	}
	d.stop()
	labels := make(map[string]int)
	for _, m := range d.meter.methods {
		labels[m]++
	}
	if len(labels) != 2 || labels["unknown"] != 40 || labels[healthpb.Health_Check_FullMethodName] != 1 {
		t.Errorf("labels %v", labels)
	}
	for line := range strings.Lines(d.log.String()) {
		if len(line) > 1500 {
			t.Errorf("a line of %d bytes: %.300s", len(line), line)
		}
	}
}

// TestStrangersHoldLittleOpen: health answers without credentials, to so many at
// once from one address.
func TestStrangersHoldLittleOpen(t *testing.T) {
	d := open(t, &service{}, time.Second)
	conn := dialTCP(t, d.Server, insecure.NewCredentials())
	elsewhere := metadata.AppendToOutgoingContext(t.Context(), "telexec-address", "192.0.2.1")
	health := healthpb.NewHealthClient(conn)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := func() error {
		s, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	for i := range 16 {
		if err := watch(); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if code, i, _ := info(t, watch()); code != codes.ResourceExhausted || i.GetReason() != fault.ReasonTooManyStreams {
		t.Errorf("%v %v", code, i)
	}
	// Looks are counted apart, and those that never end too.
	if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	refused := make(chan error, 20) // from those beyond; never blocks
	for range 20 {
		s, err := conn.NewStream(ctx, anyStream, healthpb.Health_Check_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		go func() { refused <- s.RecvMsg(nil) }() // nothing is sent
	}
	for range 4 {
		if code, i, _ := info(t, <-refused); code != codes.ResourceExhausted || i.GetReason() != fault.ReasonTooManyStreams {
			t.Errorf("%v %v", code, i)
		}
	}
	if _, err := healthpb.NewHealthClient(d.conn).Check(elsewhere, &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("elsewhere: %v", err)
	}
}

// TestAStreamEndsThoughItsHandlerHangs, as one does in a send to a client that does
// not read.
func TestAStreamEndsThoughItsHandlerHangs(t *testing.T) {
	gone, under, hangs := &revocations{}, make(chan struct{}), make(chan struct{})
	d := open(t, &service{stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		close(under)
		<-hangs
		return nil
	}}, time.Second, func(o *rpcserver.Options) {
		o.Revocations = gone
		o.Authenticator = authenticator(func(access.Credentials) (access.Principal, error) {
			return access.Principal{Name: "robot", Key: "k1"}, nil
		})
	})
	s, err := telexecv1.NewCommandServiceClient(d.conn).StreamOutput(withToken(t.Context()), &telexecv1.StreamOutputRequest{CommandId: anID})
	if err != nil {
		t.Fatal(err)
	}
	<-under
	gone.revoke()
	_, err = s.Recv()
	if code, i, _ := info(t, err); code != codes.Unauthenticated || i.GetReason() != fault.ReasonTokenRevoked {
		t.Errorf("%v", err)
	}
	close(hangs)
}

// TestNobodyReads: a handler that sends to a client that does not read ends with
// the credentials.
func TestNobodyReads(t *testing.T) {
	gone, under, ended := &revocations{}, make(chan struct{}), make(chan error, 1)
	d := open(t, &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		close(under)
		full := &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Command{Command: &telexecv1.Command{Command: strings.Repeat("x", 1<<20)}}}
		for {
			if err := ss.Send(full); err != nil {
				ended <- err
				return err
			}
		}
	}}, time.Second, func(o *rpcserver.Options) {
		o.Revocations = gone
		o.Authenticator = authenticator(func(access.Credentials) (access.Principal, error) {
			return access.Principal{Name: "robot", Key: "k1"}, nil
		})
	})
	_, err := telexecv1.NewCommandServiceClient(d.conn).StreamOutput(withToken(t.Context()), &telexecv1.StreamOutputRequest{CommandId: anID})
	if err != nil {
		t.Fatal(err)
	}
	<-under
	gone.revoke()
	if err := <-ended; err == nil {
		t.Error("it was sent")
	}
}

// TestAPanicInAStreamOfAKey is caught though the handler has a goroutine.
func TestAPanicInAStreamOfAKey(t *testing.T) {
	d := open(t, &service{stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		panic("oh no")
	}}, time.Second, func(o *rpcserver.Options) {
		o.Authenticator = authenticator(func(access.Credentials) (access.Principal, error) {
			return access.Principal{Name: "robot", Key: "k1"}, nil
		})
	})
	s, err := telexecv1.NewCommandServiceClient(d.conn).StreamOutput(withToken(t.Context()), &telexecv1.StreamOutputRequest{CommandId: anID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Internal {
		t.Error(err)
	}
	d.stop()
	if log := d.log.String(); !strings.Contains(log, "oh no") || !strings.Contains(log, "stranger_test.go") {
		t.Errorf("log:\n%s", log)
	}
}

// TestACallThatWaitsCountsAsAStream, for it holds as much.
func TestACallThatWaitsCountsAsAStream(t *testing.T) {
	under, finish := make(chan struct{}, 1), make(chan struct{})
	d := open(t, &service{execute: func(_ context.Context, r *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		if r.GetWait() == nil {
			under <- struct{}{}
			<-finish
		}
		return &telexecv1.ExecuteResponse{}, nil
	}}, time.Second, func(o *rpcserver.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Streams: 1}})
	})
	ctx := withToken(t.Context())
	first := make(chan error, 1)
	go func() { first <- execute(ctx, d.conn) }()
	<-under
	if code, i, _ := info(t, execute(ctx, d.conn)); code != codes.ResourceExhausted || i.GetReason() != fault.ReasonTooManyStreams {
		t.Errorf("%v %v", code, i)
	}
	client := telexecv1.NewCommandServiceClient(d.conn)
	if _, err := client.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "true", Wait: durationpb.New(0)}); err != nil {
		t.Errorf("without a wait: %v", err)
	}
	close(finish)
	if err := <-first; err != nil {
		t.Error(err)
	}
	go func() { <-under }()
	if err := execute(ctx, d.conn); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestSecretsOfARequestAreNotLogged, wherever an error quotes them.
func TestSecretsOfARequestAreNotLogged(t *testing.T) {
	d := open(t, &service{execute: func(_ context.Context, r *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		if r.GetHost() == "panic" {
			panic(r.GetCommand())
		}
		return nil, fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "cannot run %q on %s", r.GetCommand(), r.GetHost())
	}}, time.Second)
	for _, host := range []string{"web1", "panic"} {
		_, err := telexecv1.NewCommandServiceClient(d.conn).Execute(withToken(t.Context()), &telexecv1.ExecuteRequest{
			Host: host, Command: `echo "plant-redact plant"env plant-sudo`, Redact: []string{`"plant-redact`},
			Env: map[string]string{"A": `plant"env`}, SecretEnv: []string{"A"}, Sudo: &telexecv1.Sudo{Password: "plant-sudo"},
		})
		if err == nil {
			t.Fatal("no error")
		}
	}
	d.stop()
	log := d.log.String()
	if strings.Contains(log, "plant") || !strings.Contains(log, "STORE_UNAVAILABLE") || !strings.Contains(log, "panic in a call") || !strings.Contains(log, "******") {
		t.Errorf("log:\n%s", log)
	}
}

// TestAHeaderIsBounded before anybody looks at it.
func TestAHeaderIsBounded(t *testing.T) {
	var got access.Caller
	d := open(t, whoami(&got), time.Second)
	conn := dialTCP(t, d.Server, insecure.NewCredentials())
	if err := execute(withToken(t.Context()), conn); err != nil { // the client knows the server's bound now
		t.Fatal(err)
	}
	fat := metadata.AppendToOutgoingContext(withToken(t.Context()), "x-fat", strings.Repeat("x", 100<<10))
	if err := execute(fat, conn); err == nil {
		t.Error("a header of 100 KiB was taken")
	}
}

// BenchmarkUnary is what a call costs that does nothing, through all steps.
func BenchmarkUnary(b *testing.B) {
	d := open(b, &service{execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		return &telexecv1.ExecuteResponse{}, nil
	}}, time.Second)
	ctx := withToken(b.Context())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := execute(ctx, d.conn); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// TestStrangersTakeNothingFromCallers: watches of health are bounded apart, in how
// many there are and in how often they begin.
func TestStrangersTakeNothingFromCallers(t *testing.T) {
	d := open(t, &service{stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		return nil
	}}, time.Second, func(o *rpcserver.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Address: access.Limits{Stream: 0.5, Streams: 2}, FailuresPerAddress: 0.1})
	})
	conn := dialTCP(t, d.Server, insecure.NewCredentials())
	watch := func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	if err := callEmpty(t.Context(), conn, "/"+healthpb.Health_ServiceDesc.ServiceName+"/MadeUp"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a method that health does not have: %v", err)
	}
	var refused error
	for range 100 {
		if err := watch(); err != nil {
			refused = err
		}
	}
	if code, i, _ := info(t, refused); code != codes.ResourceExhausted || i.GetReason() != fault.ReasonRateLimited || i.GetMetadata()["class"] != "bare" {
		t.Errorf("%v %v", code, i)
	}
	for range 3 { // of five at once
		s, err := telexecv1.NewCommandServiceClient(conn).StreamOutput(withToken(t.Context()), &telexecv1.StreamOutputRequest{CommandId: anID})
		if err == nil {
			_, err = s.Recv()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("a caller: %v", err)
		}
	}
}

// TestWhatHoldsCountsAsAStream, whatever the field is called that says how long.
func TestWhatHoldsCountsAsAStream(t *testing.T) {
	under, finish := make(chan struct{}, 8), make(chan struct{}) // one from each call that holds; closed: they end
	d := open(t, &service{hold: func() { under <- struct{}{}; <-finish }}, time.Second, func(o *rpcserver.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Streams: 1}})
	})
	ctx := withToken(t.Context())
	cancel := func(grace *durationpb.Duration) func() error {
		return func() error {
			_, err := telexecv1.NewCommandServiceClient(d.conn).Cancel(ctx, &telexecv1.CancelRequest{CommandId: anID, Grace: grace})
			return err
		}
	}
	check := func(timeout *durationpb.Duration) func() error {
		return func() error {
			_, err := telexecv1.NewHostServiceClient(d.conn).CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web1", Timeout: timeout})
			return err
		}
	}
	ended := make(chan error, 4) // from each call; never blocks
	begin := func(call func() error) {
		go func() { ended <- call() }()
		<-under
	}
	long, short := durationpb.New(60*time.Second), durationpb.New(time.Second)
	for _, call := range []func() error{cancel(nil), cancel(short), check(short)} { // are over soon
		begin(call)
	}
	begin(cancel(long)) // the one that there may be
	for name, call := range map[string]func() error{"cancel": cancel(long), "check": check(long), "check, as long as the host's timeout": check(nil)} {
		if code, i, _ := info(t, call()); code != codes.ResourceExhausted || i.GetReason() != fault.ReasonTooManyStreams {
			t.Errorf("%s: %v %v", name, code, i)
		}
	}
	close(finish)
	for range 4 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := check(nil)(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestTheLogTellsTheAddress of a call: the audit may have counted its refusal
// together with others.
func TestTheLogTellsTheAddress(t *testing.T) {
	d := open(t, &service{}, time.Second)
	conn := dialTCP(t, d.Server, insecure.NewCredentials())
	if err := execute(t.Context(), conn); err == nil {
		t.Error("a stranger was let in")
	}
	d.stop()
	if log := d.log.String(); !strings.Contains(log, "address=127.0.0.1") {
		t.Errorf("log:\n%s", log)
	}
}
