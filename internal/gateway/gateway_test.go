package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway"
	"github.com/telexec/telexec/internal/rpcserver"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	token = "the-token"
	anID  = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
)

// service answers as a test wants.
type service struct {
	telexecv1.UnimplementedCommandServiceServer
	execute func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error)
	status  func(context.Context, *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error)
	stream  func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error
	cancel  func(context.Context, *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error)
	input   func(context.Context, *telexecv1.SendInputRequest) (*telexecv1.SendInputResponse, error)
	attach  func(attachStream) error
	record  func(*telexecv1.ReadRecordingRequest, recordingStream) error

	tasks  telexecv1.TaskServiceServer  // nil: nothing of it is there
	events telexecv1.EventServiceServer // nil: likewise
}

func (s *service) Cancel(ctx context.Context, r *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
	if s.cancel == nil {
		return s.UnimplementedCommandServiceServer.Cancel(ctx, r)
	}
	return s.cancel(ctx, r)
}

func (s *service) SendInput(ctx context.Context, r *telexecv1.SendInputRequest) (*telexecv1.SendInputResponse, error) {
	if s.input == nil {
		return s.UnimplementedCommandServiceServer.SendInput(ctx, r)
	}
	return s.input(ctx, r)
}

func (s *service) Execute(ctx context.Context, r *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
	return s.execute(ctx, r)
}

func (s *service) GetStatus(ctx context.Context, r *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
	return s.status(ctx, r)
}

func (s *service) StreamOutput(r *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
	return s.stream(r, ss)
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

// door is a gateway before the real gRPC server, on a port of its own.
type door struct {
	t      *testing.T
	url    string
	client *http.Client
	audit  *recorder
	ready  error
	stop   context.CancelFunc
	ended  chan error
}

func open(t *testing.T, svc *service, change ...func(*gateway.Options)) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return openAt(t, l, &http.Transport{}, svc, change...)
}

// openAt is open on a listener, which the transport reaches.
func openAt(t *testing.T, l net.Listener, transport *http.Transport, svc *service, change ...func(*gateway.Options)) *door {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	metrics := telemetry.NewMetrics("test")
	kept := &recorder{}
	refusals := access.NewRefusals(kept, logger)
	o := gateway.Options{
		Authenticator: access.NewAdmin(secret.New(token)), Limiter: access.NewLimiter(access.Settings{}), Refusals: refusals, Recorder: kept,
		Sealer: seal.NewKey(make([]byte, seal.KeySize)), SessionLifetime: 12 * time.Hour, Problem: rpcserver.Problem,
		Metrics: metrics.Handler(), OpenAPI: []byte(`{"openapi":"3.1.0"}`), UI: uiFiles,
		AllowedHosts: []string{"telexec.example"}, AllowedOrigins: []string{"https://ops.example"},
		SocketMeter:  metrics,
		DrainTimeout: time.Second, Logger: logger,
	}
	for _, f := range change {
		f(&o)
	}
	server, err := rpcserver.New(rpcserver.Options{
		Authenticator: o.Authenticator, Limiter: access.NewLimiter(access.Settings{}), Revocations: noRevocations{}, Refusals: refusals,
		Logger: logger, Meter: metrics, DrainTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	telexecv1.RegisterCommandServiceServer(server, svc)
	telexecv1.RegisterSessionServiceServer(server, sessions{service: svc})
	telexecv1.RegisterHostServiceServer(server, telexecv1.UnimplementedHostServiceServer{})
	if svc.tasks == nil {
		svc.tasks = telexecv1.UnimplementedTaskServiceServer{}
	}
	if svc.events == nil {
		svc.events = telexecv1.UnimplementedEventServiceServer{}
	}
	telexecv1.RegisterTaskServiceServer(server, svc.tasks)
	telexecv1.RegisterEventServiceServer(server, svc.events)
	telexecv1.RegisterAdminServiceServer(server, telexecv1.UnimplementedAdminServiceServer{})
	telexecv1.RegisterApprovalServiceServer(server, telexecv1.UnimplementedApprovalServiceServer{})
	telexecv1.RegisterPolicyServiceServer(server, telexecv1.UnimplementedPolicyServiceServer{})
	memory := bufconn.Listen(256 << 10)
	d := &door{
		t: t, url: "http://" + l.Addr().String(), ended: make(chan error, 2), audit: kept,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	o.Dial, o.Ready = memory.DialContext, func(context.Context) error { return d.ready }
	if o.Addr == nil {
		o.Addr = l.Addr()
	}
	if o.TLS != nil {
		d.url = "https://" + l.Addr().String()
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	g, err := gateway.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	d.stop = stop
	go func() { d.ended <- server.Run(ctx, memory) }()
	go func() { d.ended <- g.Run(ctx, l) }()
	t.Cleanup(func() {
		d.client.CloseIdleConnections()
		stop()
		for range 2 {
			if err := <-d.ended; err != nil {
				t.Error(err)
			}
		}
	})
	return d
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// problem gives the error of an answer, which must have the one shape.
func (a answer) problem(t *testing.T) (code int, reason, hint, message string) {
	t.Helper()
	var p struct {
		Code    int
		Message string
		Details []struct {
			Type     string `json:"@type"`
			Reason   string
			Domain   string
			Metadata map[string]string
		}
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("HTTP %d is no problem: %v, %q: %s", a.status, err, a.header.Get("Content-Type"), a.body)
	}
	for _, d := range p.Details {
		if d.Type == "type.googleapis.com/google.rpc.ErrorInfo" && d.Domain == "telexec" {
			return p.Code, d.Reason, d.Metadata["hint"], p.Message
		}
	}
	t.Fatalf("no ErrorInfo in %s", a.body)
	return 0, "", "", ""
}

func (d *door) request(method, path, body string, header ...string) *http.Request {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	return r
}

func (d *door) do(method, path, body string, header ...string) answer {
	d.t.Helper()
	resp, err := d.client.Do(d.request(method, path, body, header...))
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func TestACallByREST(t *testing.T) {
	var got *telexecv1.ExecuteRequest
	var md metadata.MD
	zero := int32(0)
	d := open(t, &service{execute: func(ctx context.Context, r *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		got = r
		md, _ = metadata.FromIncomingContext(ctx)
		return &telexecv1.ExecuteResponse{
			Command: &telexecv1.Command{Id: anID, State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, ExitCode: &zero, StdoutBytes: 5},
			Stdout:  &telexecv1.StreamContent{Size: 5, Data: []byte("a\x00\xff\r\n"), Complete: true},
		}, nil
	}})
	a := d.do("POST", "/v1/commands", `{"host":"web1","command":"true","wait":"2s","output":{"limitBytes":10}}`,
		"X-Request-Id", "req-9", "Telexec-Origin", "cli", "Grpc-Metadata-Telexec-Origin", "cli")
	if a.status != 200 || got.GetHost() != "web1" || got.GetWait().AsDuration() != 2*time.Second || got.GetOutput().GetLimitBytes() != 10 {
		t.Fatalf("HTTP %d %s; request %v", a.status, a.body, got)
	}
	if o := md.Get("telexec-origin"); len(o) != 1 || o[0] != "rest" {
		t.Errorf("origin %v", o)
	}
	if a.header.Get("X-Request-Id") != "req-9" || md.Get("x-request-id")[0] != "req-9" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("request id: %v and %v", a.header, md)
	}
	var body struct {
		Command struct {
			State       string
			ExitCode    *int
			StdoutBytes string
			ExitSignal  *string
		}
		Stdout struct{ Data []byte }
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Fatal(err)
	}
	c := body.Command
	if c.State != "COMMAND_STATE_COMPLETED" || c.ExitCode == nil || *c.ExitCode != 0 || c.StdoutBytes != "5" || c.ExitSignal != nil || string(body.Stdout.Data) != "a\x00\xff\r\n" {
		t.Errorf("body %s", a.body)
	}
}

func TestEveryRefusalHasTheOneShape(t *testing.T) {
	d := open(t, &service{
		execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
			return nil, fault.New(fault.Exhausted, fault.ReasonQueueFull, "too many wait").WithHint("Wait").WithRetry(1500 * time.Millisecond)
		},
		status: func(context.Context, *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
			return nil, errors.New("database password is hunter2")
		},
		stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			return fault.New(fault.NotFound, fault.ReasonUnknownCommand, "no such command").WithHint("List them")
		},
	})
	good := `{"host":"h","command":"true"}`
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status, code       int
		reason, says       string
	}{
		"no token":         {"POST", "/v1/commands", good, []string{"Authorization", ""}, 401, 16, fault.ReasonNoCredentials, "credentials"},
		"other scheme":     {"POST", "/v1/commands", good, []string{"Authorization", "Basic " + token}, 401, 16, fault.ReasonNoCredentials, ""},
		"wrong token":      {"GET", "/nowhere", "", []string{"Authorization", "Bearer x"}, 401, 16, fault.ReasonBadCredentials, ""},
		"metrics, no auth": {"GET", "/metrics", "", []string{"Authorization", ""}, 401, 16, fault.ReasonNoCredentials, ""},
		"fault":            {"POST", "/v1/commands", good, nil, 429, 8, fault.ReasonQueueFull, "too many"},
		"unknown error":    {"GET", "/v1/commands/" + anID, "", nil, 500, 13, fault.ReasonInternal, "internal"},
		"stream":           {"GET", "/v1/commands/" + anID + "/output", "", nil, 404, 5, fault.ReasonUnknownCommand, "no such"},
		"validation":       {"POST", "/v1/commands", `{"host":"h"}`, nil, 400, 3, fault.ReasonEmptyCommand, "command"},
		"megabyte command": {"POST", "/v1/commands", `{"host":"h","command":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 400, 3, fault.ReasonCommandTooLong, "120,000"},
		"unknown field":    {"POST", "/v1/commands", `{"hots":"h"}`, nil, 400, 3, fault.ReasonInvalidRequest, "hots"},
		"broken JSON":      {"POST", "/v1/commands", `{"host":`, nil, 400, 3, fault.ReasonInvalidRequest, "the request cannot be read: unexpected EOF"},
		"unknown query":    {"GET", "/v1/commands/" + anID + "?stdout_ofset=5", "", nil, 400, 3, fault.ReasonInvalidRequest, "stdout_ofset"},
		"unknown nested":   {"GET", "/v1/commands/" + anID + "?output.limit=5", "", nil, 400, 3, fault.ReasonInvalidRequest, "output"},
		"deep into scalar": {"GET", "/v1/commands/" + anID + "?wait.x.y=5", "", nil, 400, 3, fault.ReasonInvalidRequest, "wait.x.y"},
		"bad query value":  {"GET", "/v1/commands?page_size=many", "", nil, 400, 3, fault.ReasonInvalidRequest, "many"},
		"huge body":        {"POST", "/v1/commands", strings.Repeat(" ", 5<<20), nil, 413, 8, fault.ReasonInvalidRequest, "4194304"},
		"no route":         {"GET", "/v2/commands", "", nil, 404, 5, fault.ReasonUnknownRoute, "/v2/commands"},
		"unclean path":     {"GET", "//v1/../v1/commands", "", nil, 404, 5, fault.ReasonUnknownRoute, "//v1"},
		"metrics, posted":  {"POST", "/metrics", "", nil, 405, 12, fault.ReasonUnknownRoute, "GET, HEAD"},
		"health, posted":   {"POST", "/healthz", "", nil, 405, 12, fault.ReasonUnknownRoute, "GET, HEAD"},
		"no method":        {"DELETE", "/v1/commands", "", nil, 405, 12, fault.ReasonUnknownRoute, "takes GET, POST"},
		"no method of one": {"PUT", "/v1/commands/" + anID + ":cancel", "", nil, 405, 12, fault.ReasonUnknownRoute, "POST"},
		"bad escape":       {"GET", "/v1/commands/%25zz/output", "", nil, 400, 3, fault.ReasonInvalidRequest, ""},
		"not implemented":  {"GET", "/v1/hosts", "", nil, 501, 12, fault.ReasonUnknownRoute, ""},
		"foreign name":     {"GET", "/v1/commands", "", []string{"Host", "evil.example"}, 403, 7, fault.ReasonForbiddenOrigin, "evil.example"},
		"foreign address":  {"GET", "/v1/commands", "", []string{"Host", "192.0.2.7:80"}, 403, 7, fault.ReasonForbiddenOrigin, "192.0.2.7"},
		"foreign page":     {"POST", "/v1/commands", good, []string{"Origin", "https://evil.example"}, 403, 7, fault.ReasonForbiddenOrigin, "evil.example"},
		"foreign reading":  {"GET", "/v1/commands", "", []string{"Origin", "http://localhost:3000"}, 403, 7, fault.ReasonForbiddenOrigin, "localhost:3000"},
		"opaque page":      {"POST", "/v1/commands", good, []string{"Origin", "null"}, 403, 7, fault.ReasonForbiddenOrigin, "null"},
		"fetch metadata":   {"POST", "/v1/commands", good, []string{"Sec-Fetch-Site", "cross-site"}, 403, 7, fault.ReasonForbiddenOrigin, "web pages of another site"},
	} {
		t.Run(name, func(t *testing.T) {
			a := d.do(c.method, c.path, c.body, c.header...)
			code, reason, hint, message := a.problem(t)
			if a.status != c.status || code != c.code || reason != c.reason || !strings.Contains(message, c.says) {
				t.Errorf("HTTP %d, %s", a.status, a.body)
			}
			if hint == "" && name != "not implemented" {
				t.Errorf("no hint: %s", a.body)
			}
			if strings.Contains(a.body, "hunter2") || a.header.Get("X-Request-Id") == "" {
				t.Errorf("body %s, header %v", a.body, a.header)
			}
			if c.status == 401 && a.header.Get("WWW-Authenticate") != "Bearer" {
				t.Error("401 without WWW-Authenticate")
			}
			if c.status == 405 && !strings.Contains(message, "takes "+a.header.Get("Allow")+".") {
				t.Errorf("Allow %q, %s", a.header.Get("Allow"), message)
			}
			if name == "fault" && a.header.Get("Retry-After") != "2" {
				t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
			}
		})
	}
}

func TestWhoMayCall(t *testing.T) {
	d := open(t, &service{status: func(context.Context, *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
		return &telexecv1.GetStatusResponse{}, nil
	}})
	path := "/v1/commands/" + anID
	port := d.url[strings.LastIndex(d.url, ":"):]
	for _, header := range [][]string{
		nil,
		{"Host", "localhost"}, {"Host", "LocalHost" + port}, {"Host", "x.localhost."}, {"Host", "[::1]" + port}, {"Host", "127.0.0.2"},
		{"Host", "telexec.example"}, {"Host", "Telexec.Example:443"},
		{"Origin", d.url}, {"Origin", "https://ops.example"}, {"Sec-Fetch-Site", "same-origin"},
		{"Host", "localhost" + port, "Origin", "http://localhost" + port},
	} {
		if a := d.do("GET", path, "", header...); a.status != 200 {
			t.Errorf("%v: HTTP %d %s", header, a.status, a.body)
		}
	}
	a := d.do("GET", path, "", "Origin", "https://ops.example", "Sec-Fetch-Site", "cross-site")
	if a.header.Get("Access-Control-Allow-Origin") != "https://ops.example" || a.header.Get("Vary") != "Origin" {
		t.Errorf("CORS headers %v", a.header)
	}
	a = d.do("OPTIONS", path, "", "Authorization", "", "Origin", "https://ops.example", "Access-Control-Request-Method", "POST")
	if a.status != 204 || !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight: HTTP %d %v", a.status, a.header)
	}
	for _, rule := range []string{"GET /v1/sessions", "POST /v1/sessions", "DELETE /v1/sessions/x"} { // what the contract has
		if method, _, _ := strings.Cut(rule, " "); !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), method) {
			t.Errorf("a page may not %s", rule)
		}
	}
	if a := d.do("OPTIONS", path, "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); a.status != 403 {
		t.Errorf("foreign preflight: HTTP %d", a.status)
	}
}

func TestListeningOnAllAddresses(t *testing.T) {
	d := open(t, &service{}, func(o *gateway.Options) { o.Addr = &net.TCPAddr{IP: net.IPv6unspecified, Port: 1} })
	if a := d.do("GET", "/openapi.json", "", "Host", "192.0.2.7:80"); a.status != 200 || a.body != `{"openapi":"3.1.0"}` {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if a := d.do("GET", "/openapi.json", "", "Host", "evil.example"); a.status != 403 {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	d := open(t, &service{})
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := d.do("GET", path, "", "Authorization", "", "Host", "10.1.2.3"); a.status != 200 || a.body != "{\"status\":\"ok\"}\n" {
			t.Errorf("%s: HTTP %d %s", path, a.status, a.body)
		}
	}
	d.ready = fault.New(fault.Unavailable, fault.ReasonDraining, "shutting down").WithHint("Try later").WithRetry(time.Second)
	a := d.do("GET", "/readyz", "", "Authorization", "")
	if _, reason, _, _ := a.problem(t); a.status != 503 || reason != fault.ReasonDraining || a.header.Get("Retry-After") != "1" {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if a := d.do("GET", "/healthz", ""); a.status != 200 {
		t.Errorf("a draining service is not alive: %d", a.status)
	}
	if a := d.do("GET", "/metrics", ""); a.status != 200 || !strings.Contains(a.body, "telexec_build_info") {
		t.Errorf("HTTP %d %.200s", a.status, a.body)
	}
}

func chunk(offset int64, data string) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Chunk{
		Chunk: &telexecv1.OutputChunk{Stream: telexecv1.Stream_STREAM_STDOUT, Offset: offset, Data: []byte(data)}}}
}

func TestAStreamIsLinesSentAtOnce(t *testing.T) {
	goOn := make(chan struct{})
	d := open(t, &service{stream: func(r *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		if r.GetStdoutOffset() != 7 || !r.GetFollow() || len(r.GetStreams()) != 1 {
			return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "%v", r)
		}
		if err := ss.Send(chunk(7, "first\n")); err != nil {
			return err
		}
		<-goOn
		if err := ss.Send(chunk(13, "second")); err != nil {
			return err
		}
		return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the store is gone").WithHint("Resume at the offset")
	}})
	resp, err := d.client.Do(d.request("GET", "/v1/commands/"+anID+"/output?stdout_offset=7&follow=true&streams=STREAM_STDOUT", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("HTTP %d %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	type line struct {
		Chunk struct {
			Offset string
			Data   []byte
		}
		Error struct {
			Code    int
			Message string
		}
	}
	next := func() (l line) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	// The first line comes while the second does not exist yet.
	if l := next(); l.Chunk.Offset != "7" || string(l.Chunk.Data) != "first\n" {
		t.Errorf("first line %+v", l)
	}
	close(goOn)
	if l := next(); l.Chunk.Offset != "13" || string(l.Chunk.Data) != "second" {
		t.Errorf("second line %+v", l)
	}
	if l := next(); l.Error.Code != 14 || l.Error.Message != "the store is gone. Resume at the offset" {
		t.Errorf("last line %+v", l)
	}
	if lines.Scan() {
		t.Errorf("more: %s", lines.Text())
	}
}

func TestAnEmptyStream(t *testing.T) {
	d := open(t, &service{stream: func(*telexecv1.StreamOutputRequest, grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		return nil
	}})
	if a := d.do("GET", "/v1/commands/"+anID+"/output", ""); a.status != 200 || a.body != "" {
		t.Errorf("HTTP %d %q", a.status, a.body)
	}
}

func TestAClientThatGoesAwayEndsItsCall(t *testing.T) {
	started, gone := make(chan struct{}), make(chan struct{})
	d := open(t, &service{execute: func(ctx context.Context, _ *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		close(started)
		<-ctx.Done()
		close(gone)
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := d.client.Do(d.request("POST", "/v1/commands", `{"host":"h","command":"true"}`).WithContext(ctx)); err == nil {
		t.Error("the call was answered")
	}
	<-gone
}

func TestRunTellsWhyItEnded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(t.Context(), gateway.Options{
		Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("none") }, Problem: rpcserver.Problem,
		Authenticator: access.NewAdmin(secret.New(token)), Ready: func(context.Context) error { return nil },
		Metrics: http.NotFoundHandler(), Addr: l.Addr(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := g.Run(t.Context(), l); err == nil || !strings.Contains(err.Error(), "HTTP server") {
		t.Errorf("Run gave %v", err)
	}
	if err := g.Close(); err == nil {
		t.Error("Run left the connection open")
	}
}

// TestOwnFailuresAreLogged: what fails in the gateway itself is INTERNAL to the
// caller, and has its cause in the log. What the gRPC server has failed in is in
// its own log.
func TestOwnFailuresAreLogged(t *testing.T) {
	var log bytes.Buffer
	beyond := &timestamppb.Timestamp{Seconds: 1e18} // no JSON holds it
	d := open(t, &service{
		execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
			return &telexecv1.ExecuteResponse{Command: &telexecv1.Command{CreateTime: beyond}}, nil
		},
		status: func(context.Context, *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
			return nil, errors.New("the server's own")
		},
		stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			return ss.Send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Command{Command: &telexecv1.Command{CreateTime: beyond}}})
		},
	}, func(o *gateway.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	})
	a := d.do("POST", "/v1/commands", `{"host":"h","command":"id"}`, "X-Request-Id", "unary")
	if _, reason, _, message := a.problem(t); a.status != 500 || reason != fault.ReasonInternal || strings.Contains(message, "seconds") {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if a := d.do("GET", "/v1/commands/"+anID+"/output", ""); !strings.Contains(a.body, fault.ReasonInternal) || strings.Contains(a.body, "seconds") {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if a := d.do("GET", "/v1/commands/"+anID, ""); a.status != 500 {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	d.stop()
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 || strings.Count(log.String(), "Timestamp") != 2 || strings.Contains(log.String(), "the server's own") {
		t.Errorf("%d rows:\n%s", n, log.String())
	}
}
