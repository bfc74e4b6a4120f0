package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

func TestDialRefuses(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		o    Options
		want string // in the error; empty: accepted
	}{
		{"default", Options{}, ""},
		{"loopback", Options{Server: "127.0.0.1:1"}, ""},
		{"IPv6 loopback", Options{Server: "[::1]:1"}, ""},
		{"localhost", Options{Server: "http://localhost/"}, ""},
		{"elsewhere in plain text", Options{Server: "example.com:7070"}, "plain text"},
		{"elsewhere in plain text, with a scheme", Options{Server: "grpc://192.0.2.1:7070"}, "plain text"},
		{"elsewhere in plain text, by choice", Options{Server: "example.com:7070", Insecure: true}, ""},
		{"elsewhere with TLS", Options{Server: "https://example.com:7070"}, ""},
		{"elsewhere with TLS by option", Options{Server: "example.com", TLS: true}, ""},
		{"elsewhere with a TLS config", Options{Server: "grpcs://example.com", TLSConfig: &tls.Config{}}, ""},
		{"a name that begins like loopback", Options{Server: "127.0.0.1.example.com:1"}, "plain text"},
		{"a user that looks like loopback", Options{Server: "127.0.0.1:1@example.com"}, "cannot use"},
		{"a token of two lines", Options{Token: "a\nb"}, "the token holds"},
		{"a token with a blank", Options{Token: "a b"}, "the token holds"},
		{"a token beyond ASCII", Options{Token: "tökén"}, "the token holds"},
		{"scheme", Options{Server: "ftp://localhost"}, "unknown scheme"},
		{"path", Options{Server: "http://localhost/v1"}, "cannot use"},
		{"no host", Options{Server: ":7070"}, "cannot use"},
		{"not an address", Options{Server: "local host:70:70"}, "cannot use"},
		{"CA file missing", Options{CAFile: noPEM + "x"}, "CA file"},
		{"CA file not PEM", Options{CAFile: noPEM}, "no certificate"},
		{"gRPC refuses", Options{DialOptions: []grpc.DialOption{grpc.WithDefaultServiceConfig("{")}}, "cannot use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Dial(tt.o)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Reason != ReasonInvalidOptions || e.Code != codes.InvalidArgument || !strings.Contains(e.Message, tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	for server, want := range map[string]bool{
		"": true, "localhost": true, "https://127.0.0.2:1": true, "[::1]:3": true,
		"192.0.2.1": false, "localhost.example.com": false, "ftp://localhost": false,
	} {
		if Loopback(server) != want {
			t.Errorf("%q: not %v", server, want)
		}
	}
}

func FuzzParseServer(f *testing.F) {
	for _, s := range []string{"", "localhost", "https://a:1", "[::1]:2", "http://127.0.0.1@x", "a:b:c", "://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, _, err := parseServer(s)
		if err != nil {
			return
		}
		if again, _, err := parseServer(target); err != nil || again != target {
			t.Errorf("%q: %q becomes %q, %v", s, target, again, err)
		}
	})
}

func TestTokenIsNeverPrinted(t *testing.T) {
	o := Options{Token: "s3cret"}
	j, _ := json.Marshal(o.Token)
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s %q", o, o, o, o.Token, o.Token), string(j), o.Token.LogValue().String()} {
		if strings.Contains(s, "s3cret") {
			t.Errorf("printed: %s", s)
		}
	}
}

func TestCallsCarryTokenAndOrigin(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{Token: "s3cret", Origin: "cli", UserAgent: "test/1"})
	if c.Server() != "127.0.0.1:7070" {
		t.Errorf("server %q", c.Server())
	}
	if _, err := c.GetServerInfo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.metadata.Get("authorization"); !slices.Equal(got, []string{"Bearer s3cret"}) {
		t.Errorf("authorization %q", got)
	}
	if got := p.metadata.Get("telexec-origin"); !slices.Equal(got, []string{"cli"}) {
		t.Errorf("origin %q", got)
	}
	if got := p.metadata.Get("user-agent"); len(got) != 1 || !strings.HasPrefix(got[0], "test/1") {
		t.Errorf("user agent %q", got)
	}
}

func TestTLSWithCAFile(t *testing.T) {
	// httptest has a certificate for 127.0.0.1 and example.com.
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	p := newPeer(t)
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0])))
	telexecv1.RegisterAdminServiceServer(server, p)
	addr, stop := serve(t, server)
	defer stop()

	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"trusted", Options{Server: "https://" + addr, CAFile: ca}, true},
		{"not trusted", Options{Server: "https://" + addr}, false},
		{"plain text to a TLS port", Options{Server: addr}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.RetryFor = -1
			c, err := Dial(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.GetServerInfo(t.Context())
			if (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPlainCalls(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{})
	ctx := t.Context()
	if h, err := c.GetHost(ctx, "web1"); err != nil || h.GetName() != "web1" {
		t.Error(h, err)
	}
	if r, err := c.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web1"}); err != nil || !r.GetOk() {
		t.Error(r, err)
	}
	if r, err := c.Cancel(ctx, &telexecv1.CancelRequest{CommandId: testID}); err != nil || r.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE {
		t.Error(r, err)
	}
	if _, err := c.Signal(ctx, &telexecv1.SignalRequest{CommandId: testID}); err != nil {
		t.Error(err)
	}
	if r, err := c.GetStatus(ctx, &telexecv1.GetStatusRequest{CommandId: testID}); err != nil || r.GetCommand().GetId() != testID {
		t.Error(r, err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
}

func TestListsGoOverAllPages(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{})
	for range 2 { // a sequence can be read again
		var ids []string
		for cmd, err := range c.ListCommands(t.Context(), &telexecv1.ListCommandsRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, cmd.GetId())
		}
		if !slices.Equal(ids, []string{"1", "2", "3"}) {
			t.Errorf("ids %q", ids)
		}
	}
	var names []string
	for host, err := range c.ListHosts(t.Context(), &telexecv1.ListHostsRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, host.GetName())
	}
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("hosts %q", names)
	}
	before := p.count("ListCommands")
	for range c.ListCommands(t.Context(), &telexecv1.ListCommandsRequest{}) {
		break
	}
	if n := p.count("ListCommands") - before; n != 1 {
		t.Errorf("%d pages fetched for one command", n)
	}
	p.before = func(_ string, n int, _ proto.Message) error {
		return refusal(codes.InvalidArgument, &errdetails.ErrorInfo{Domain: domain, Reason: "BAD_PAGE_TOKEN"})
	}
	for cmd, err := range c.ListCommands(t.Context(), &telexecv1.ListCommandsRequest{}) {
		if e, ok := asError(err); !ok || e.Reason != "BAD_PAGE_TOKEN" || cmd != nil {
			t.Errorf("got %v, %v", cmd, err)
		}
	}
}

func TestExecuteRunsOnceThoughTheAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.after = func(_ string, n int) error {
			if n < 4 {
				return dropped
			}
			return nil
		}
		req := &telexecv1.ExecuteRequest{Host: "web1", Command: "true"}
		resp, err := p.dial(t, Options{}).Execute(t.Context(), req)
		if err != nil || !resp.GetReplayed() {
			t.Fatal(resp, err)
		}
		if len(p.started) != 1 || p.count("Execute") != 4 {
			t.Errorf("started %v in %d calls", p.started, p.count("Execute"))
		}
		if req.GetRequestId() != "" {
			t.Error("the caller's request was changed")
		}
	})
}

func TestExecuteThatStaysUnansweredTellsItsRequestID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.after = func(string, int) error { return dropped }
		begin := time.Now()
		_, err := p.dial(t, Options{}).Execute(t.Context(), &telexecv1.ExecuteRequest{Host: "web1", Command: "true", RequestId: "mine"})
		e, ok := asError(err)
		if !ok || e.Reason != ReasonUnreachable || e.Metadata["request_id"] != "mine" || !strings.Contains(e.Message, "lost") {
			t.Errorf("got %#v", err)
		}
		if took := time.Since(begin); took < 5*time.Second || took > defaultRetryFor {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestSignalIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.after = func(string, int) error { return dropped }
		c := p.dial(t, Options{})
		if _, err := c.Signal(t.Context(), &telexecv1.SignalRequest{CommandId: testID}); err == nil || p.count("Signal") != 1 {
			t.Errorf("%d calls, %v", p.count("Signal"), err)
		}
		// One that never left may be tried again.
		p.listener.Close()
		p.server.Stop()
		synctest.Wait() // the client has noticed, so the next one cannot leave
		tries := 0
		c.onRetry = func(*Error, time.Duration) { tries++ }
		if _, err := c.Signal(t.Context(), &telexecv1.SignalRequest{CommandId: testID}); err == nil || tries == 0 {
			t.Errorf("%d tries, %v", tries, err)
		}
	})
}

func TestRetryHonoursTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.before = func(_ string, n int, _ proto.Message) error {
			if n == 1 {
				return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: "DRAINING"}, retryIn(3*time.Second))
			}
			return nil
		}
		begin := time.Now()
		c := p.dial(t, Options{})
		if _, err := c.GetServerInfo(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 3*time.Second {
			t.Errorf("came back after %v", took)
		}
		// Without a time to come back, or with a later one than we wait, it is final.
		for _, err := range []error{
			refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: "STORE_UNAVAILABLE"}),
			refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: "STORE_UNAVAILABLE"}, retryIn(time.Hour)),
		} {
			begin, before := time.Now(), p.count("GetServerInfo")
			p.before = func(string, int, proto.Message) error { return err }
			_, err := c.GetServerInfo(t.Context())
			if e, ok := asError(err); !ok || e.Reason != "STORE_UNAVAILABLE" || p.count("GetServerInfo") != before+1 || time.Since(begin) > time.Second {
				t.Errorf("got %v after %v", err, time.Since(begin))
			}
		}
	})
}

func TestErrorIsDecoded(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{})
	p.before = func(string, int, proto.Message) error {
		return refusal(codes.InvalidArgument,
			&errdetails.ErrorInfo{Domain: "other", Reason: "NOT_OURS"},
			&errdetails.ErrorInfo{Domain: domain, Reason: "INVALID_REQUEST", Metadata: map[string]string{"hint": "Do better", "host": "web1"}},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "host", Description: "too long"}}},
			retryIn(time.Second))
	}
	_, err := c.GetServerInfo(t.Context())
	e, ok := errors.AsType[*Error](fmt.Errorf("wrapped: %w", err))
	if !ok {
		t.Fatal(err)
	}
	if e.Code != codes.InvalidArgument || e.Reason != "INVALID_REQUEST" || e.Message != "no" || e.Hint != "Do better" ||
		e.RetryAfter != time.Second || !slices.Equal(e.Fields, []Field{{"host", "too long"}}) ||
		len(e.Metadata) != 1 || e.Metadata["host"] != "web1" {
		t.Errorf("got %#v", e)
	}
	if e.Error() != "no. Do better" || status.Code(err) != codes.InvalidArgument {
		t.Errorf("%q, %v", e, status.Code(err))
	}
	// What is not from the service keeps its code and message.
	p.before = func(string, int, proto.Message) error { return status.Error(codes.Unimplemented, "unknown service") }
	_, err = c.GetServerInfo(t.Context())
	if e, _ := asError(err); e.Code != codes.Unimplemented || e.Reason != "" || e.Error() != "unknown service" {
		t.Errorf("got %#v", e)
	}
}

func TestCallersContextEndsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.after = func(string, int) error { return dropped }
		c := p.dial(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		c.onRetry = func(*Error, time.Duration) { cancel() }
		_, err := c.GetServerInfo(ctx)
		if e, ok := asError(err); !ok || e.Reason != ReasonCallEnded || !errors.Is(err, context.Canceled) || e.Code != codes.Canceled {
			t.Errorf("got %#v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		p.before = func(string, int, proto.Message) error { return sleep(t.Context(), time.Second) }
		_, err = c.GetServerInfo(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "deadline") {
			t.Errorf("got %v", err)
		}
	})
}

// TestHTTPPort: the other port of telexecd is taken easily for the one of gRPC.
func TestHTTPPort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request")
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	c, err := Dial(Options{Server: listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.GetServerInfo(t.Context())
	if e, ok := asError(err); !ok || e.Reason != ReasonUnreachable || !strings.Contains(e.Message, "is an HTTP port") {
		t.Errorf("%v", err)
	}
}

// What gRPC itself refuses is told in words of ours, and which side does not take it.
func TestMessageThatIsTooLarge(t *testing.T) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(1000))
	telexecv1.RegisterTaskServiceServer(server, telexecv1.UnimplementedTaskServiceServer{})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	c := (&peer{listener: listener}).dial(t, Options{})
	_, err := c.SubmitTask(t.Context(), &telexecv1.SubmitTaskRequest{Task: strings.Repeat("x", 2000), RequestId: "r"})
	e, ok := asError(err)
	if !ok || e.Reason != ReasonTooLarge || e.Code != codes.ResourceExhausted || e.Hint == "" ||
		e.Message != "the request has 2006 bytes, which is more than the 1000 bytes that one message may have" {
		t.Errorf("%#v", err)
	}
	for message, want := range map[string]string{
		"grpc: received message larger than max (40000000 vs. 33554432)":     "the answer has 40000000 bytes, which is more than the 33554432 bytes that one message may have",
		"grpc: received message after decompression larger than max 5242880": "the request is more than the 5242880 bytes that one message may have",
	} {
		e := c.decode(t.Context(), status.Error(codes.ResourceExhausted, message))
		if e.Reason != ReasonTooLarge || e.Message != want {
			t.Errorf("%s: %v", message, e)
		}
	}
}

func TestPlainTransportErrors(t *testing.T) {
	got := plain(`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`)
	if got != "dial tcp 127.0.0.1:1: connect: connection refused" {
		t.Errorf("got %q", got)
	}
}

func TestCopyInput(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 240_000) // four calls or more
	busy := refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reasonInputBusy}, retryIn(time.Second))
	for _, tt := range []struct {
		name  string
		setup func(p *peer)
	}{
		{"all well", func(*peer) {}},
		{"requests are lost", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				if n%3 == 0 {
					return dropped
				}
				return nil
			}
		}},
		{"answers are lost", func(p *peer) {
			p.after = func(_ string, n int) error {
				if n%2 == 0 {
					return dropped
				}
				return nil
			}
		}},
		{"the command waits in the queue", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				if n < 50 {
					return refusal(codes.FailedPrecondition, &errdetails.ErrorInfo{Domain: domain, Reason: reasonNotRunning}, retryIn(time.Second))
				}
				return nil
			}
		}},
		{"the command is slow for an hour", func(p *peer) {
			p.before = func(_ string, n int, req proto.Message) error {
				in := req.(*telexecv1.SendInputRequest)
				if n < 7200 && len(in.GetData()) > 0 {
					p.mu.Lock() // it takes a part
					defer p.mu.Unlock()
					if n == 100 {
						p.input = append(p.input, in.GetData()[:1000]...)
					}
					return busy
				}
				return nil
			}
		}},
		{"the host takes all and its answer is lost", func(p *peer) {
			p.after = func(_ string, n int) error {
				if n%2 == 0 {
					return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reasonConnectionLost}, retryIn(time.Second))
				}
				return nil
			}
		}},
		{"the command takes a part and then all", func(p *peer) {
			p.before = func(_ string, n int, req proto.Message) error {
				in := req.(*telexecv1.SendInputRequest)
				if n%3 != 2 || len(in.GetData()) < 1000 {
					return nil
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				p.input = append(p.input, in.GetData()[:1000]...)
				return busy
			}
		}},
		{"the service looks for the command for a minute", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				if n > 2 && n < 60 {
					return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reasonConnectionLost}, retryIn(time.Second))
				}
				return nil
			}
		}},
		{"the service stops for half a minute and is away as long", func(p *peer) {
			var stopped time.Time
			p.before = func(_ string, n int, _ proto.Message) error {
				if n == 3 {
					stopped = time.Now()
				}
				switch away := time.Since(stopped); {
				case n < 3 || away > time.Minute:
					return nil
				case away > 30*time.Second:
					return dropped
				}
				return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reasonDraining}, retryIn(time.Second))
			}
		}},
		{"the host is away for hours", func(p *peer) {
			p.before = func(_ string, n int, req proto.Message) error {
				if n == 1 || n > 10_000 {
					return nil
				}
				if n == 2 { // it took a part before it went away
					p.mu.Lock()
					defer p.mu.Unlock()
					p.input = append(p.input, req.(*telexecv1.SendInputRequest).GetData()[:1000]...)
				}
				return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reasonConnectionLost})
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.input = []byte("before")
				tt.setup(p)
				n, err := p.dial(t, Options{}).CopyInput(t.Context(), testID, iotest.DataErrReader(bytes.NewReader(want)))
				if err != nil || n != int64(len(want)) {
					t.Fatalf("%d bytes, %v", n, err)
				}
				if !bytes.Equal(p.input, append([]byte("before"), want...)) || !p.inputClosed {
					t.Errorf("the command got %d bytes, closed %v", len(p.input), p.inputClosed)
				}
			})
		})
	}
}

// What comes while a call is under way goes together in the next, in pieces that
// the service takes; what comes alone goes at once.
func TestCopyInputGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		var sizes []int
		p.before = func(_ string, _ int, req proto.Message) error {
			if n := len(req.(*telexecv1.SendInputRequest).GetData()); n > 0 {
				sizes = append(sizes, n)
				<-time.After(time.Second)
			}
			return nil
		}
		r, w := io.Pipe()
		go func() {
			defer w.Close()
			w.Write([]byte("typed"))
			<-time.After(time.Minute)
			for range 100 {
				w.Write(make([]byte, 64<<10))
			}
		}()
		const want = 5 + 100*64<<10
		if n, err := p.dial(t, Options{}).CopyInput(t.Context(), testID, r); err != nil || n != want {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if sizes[0] != 5 || len(sizes) > 12 || slices.Max(sizes) > 1<<20 {
			t.Errorf("calls of %v bytes", sizes)
		}
	})
}

// An end does not wait for a Read that blocks, and no other Read follows it.
func TestCopyInputEndsWhileItReads(t *testing.T) {
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			want := ReasonCallEnded
			if closes {
				want = reasonStdinClosed
				p.before = func(_ string, n int, _ proto.Message) error {
					if n == 1 {
						return nil
					}
					return refusal(codes.FailedPrecondition, &errdetails.ErrorInfo{Domain: domain, Reason: reasonStdinClosed})
				}
			}
			r, w := io.Pipe()
			go w.Write([]byte("a"))
			_, err := p.dial(t, Options{}).CopyInput(ctx, testID, r)
			if e, ok := asError(err); !ok || e.Reason != want {
				t.Errorf("got %v, want %s", err, want)
			}
			w.Write([]byte("b")) // to the Read under way
			synctest.Wait()
			r.Close()
			if _, err := w.Write([]byte("c")); !errors.Is(err, io.ErrClosedPipe) {
				t.Error("it reads on:", err)
			}
		})
	}
}

// What may have been done is not asked for again, whatever time to come back the
// answer gives.
func TestInputAndSignalAreSentOnce(t *testing.T) {
	for _, reason := range []string{reasonConnectionLost, reasonInputBusy} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.after = func(string, int) error {
					return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reason}, retryIn(time.Second))
				}
				c := p.dial(t, Options{})
				_, err := c.SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: testID, Data: []byte("line 1\n")})
				if e, ok := asError(err); !ok || e.Reason != reason || e.RetryAfter != time.Second || string(p.input) != "line 1\n" {
					t.Errorf("the command got %q, %v", p.input, err)
				}
				if _, err = c.Signal(t.Context(), &telexecv1.SignalRequest{CommandId: testID}); err == nil || p.count("Signal") != 1 {
					t.Errorf("%d signals, %v", p.count("Signal"), err)
				}
			})
		})
	}
}

func TestCopyInputFails(t *testing.T) {
	closed := refusal(codes.FailedPrecondition, &errdetails.ErrorInfo{Domain: domain, Reason: reasonStdinClosed})
	boom := errors.New("boom")
	for _, tt := range []struct {
		name   string
		setup  func(p *peer)
		input  io.Reader
		reason string
		is     error
	}{
		{"at once", func(p *peer) { p.inputClosed = true }, strings.NewReader("x"), reasonStdinClosed, nil},
		{"in the middle", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				if n > 1 {
					return closed
				}
				return nil
			}
		}, strings.NewReader("x"), reasonStdinClosed, nil},
		{"never starts", func(p *peer) {
			p.before = func(string, int, proto.Message) error {
				return refusal(codes.FailedPrecondition, &errdetails.ErrorInfo{Domain: domain, Reason: reasonNotRunning}, retryIn(time.Second))
			}
		}, strings.NewReader("x"), ReasonCallEnded, context.DeadlineExceeded},
		{"the host is away and given up", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				if n < 5 {
					return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reasonConnectionLost})
				}
				return refusal(codes.FailedPrecondition, &errdetails.ErrorInfo{Domain: domain, Reason: reasonNotRunning})
			}
		}, strings.NewReader("x"), reasonNotRunning, nil},
		{"while it asks", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				switch n {
				case 1:
					return nil
				case 2:
					return dropped
				}
				return closed
			}
		}, strings.NewReader("x"), reasonStdinClosed, nil},
		{"it is not the only writer", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				if n == 2 {
					p.input = append(p.input, "others"...)
					return dropped
				}
				return nil
			}
		}, strings.NewReader("x"), ReasonInputLost, nil},
		{"the service is gone", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				if n > 1 {
					return dropped
				}
				return nil
			}
		}, strings.NewReader("x"), ReasonUnreachable, nil},
		{"the reader fails", func(*peer) {}, iotest.ErrReader(boom), "", boom},
		{"the caller has no time", func(p *peer) {
			p.before = func(_ string, n int, _ proto.Message) error {
				if n > 1 {
					return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reasonInputBusy}, retryIn(2*time.Minute))
				}
				return nil
			}
		}, strings.NewReader("x"), ReasonCallEnded, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				tt.setup(p)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := p.dial(t, Options{ResumeFor: 10 * time.Second}).CopyInput(ctx, testID, tt.input)
				if e, ok := asError(err); tt.reason != "" && (!ok || e.Reason != tt.reason) {
					t.Errorf("got %v, want %s", err, tt.reason)
				}
				if tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("got %v, want %v", err, tt.is)
				}
			})
		})
	}
}
