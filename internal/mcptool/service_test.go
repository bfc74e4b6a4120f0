package mcptool

import (
	"context"
	"encoding/json"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testID = "01J8Z3K4M5N6P7Q8R9S0T1V2W3"

// service is a gRPC service that says what real ones say only in rare moments, and
// notes what it is asked. Whatever can be had from a real service is tested with
// one, in cmd/telexec-mcp and internal/test/e2e.
type service struct {
	telexecv1.UnimplementedCommandServiceServer
	telexecv1.UnimplementedHostServiceServer
	telexecv1.UnimplementedAdminServiceServer
	telexecv1.UnimplementedApprovalServiceServer
	telexecv1.UnimplementedSessionServiceServer
	telexecv1.UnimplementedTaskServiceServer

	command        *telexecv1.Command // what all calls tell of; nil: a completed one
	stdout, stderr string
	outcome        telexecv1.CancelOutcome
	life           func(since time.Duration) *telexecv1.Command // of a command over time; nil: command
	hang           bool                                         // GetStatus never answers
	refuse         func() error                                 // of GetStatus, behind its wait
	stream         func(out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error
	streamFrom     func(req *telexecv1.StreamOutputRequest, out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error
	began          time.Time
	commands       []*telexecv1.Command // of lists
	hosts          []*telexecv1.Host
	sessions       []*telexecv1.Session // of lists; the first one is what other calls tell of; none: one on web1
	screen         *telexecv1.ReadScreenResponse
	busy           func() error          // why Execute refuses
	plan           *telexecv1.Task       // what all calls about tasks tell of; nil: a completed one
	later          *telexecv1.Task       // what GetTask tells of; nil: plan
	approvals      []*telexecv1.Approval // that it waits for
	undoes         []*telexecv1.UndoStep
	events         []*telexecv1.TaskEvent // of it; behind them only heartbeats come
	refusePlan     func() error           // of calls about tasks
	desk           *desk                  // where its command waits for approval; nil: it needs none

	mu       sync.Mutex
	requests []proto.Message
	tokens   []string
}

// serve gives a session with an adapter over the service.
func (s *service) serve(t testing.TB, o Options) *mcp.ClientSession {
	t.Helper()
	return s.serveTo(t, o, nil, nil)
}

// serveTo is serve for a client of a certain kind.
func (s *service) serveTo(t testing.TB, o Options, client *mcp.ClientOptions, revision *mcp.ClientSessionOptions) *mcp.ClientSession {
	t.Helper()
	o.Client = s.dial(t)
	server, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	here, there := mcp.NewInMemoryTransports()
	serving, err := server.Connect(t.Context(), there, nil)
	if err != nil {
		t.Fatal(err)
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, client).Connect(t.Context(), here, revision)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = session.Close()
		_ = serving.Wait()
	})
	return session
}

func (s *service) dial(t testing.TB) *client.Client {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true), grpc.UnaryInterceptor(s.note), grpc.StreamInterceptor(s.noteStream))
	telexecv1.RegisterCommandServiceServer(server, s)
	telexecv1.RegisterHostServiceServer(server, s)
	telexecv1.RegisterAdminServiceServer(server, s)
	telexecv1.RegisterApprovalServiceServer(server, s)
	telexecv1.RegisterSessionServiceServer(server, s)
	telexecv1.RegisterTaskServiceServer(server, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	c, err := client.Dial(client.Options{Server: "127.0.0.1:1", Token: "own", RetryFor: -1, DialOptions: []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); server.Stop(); serving.Wait() })
	return c
}

func (s *service) note(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	s.requests = append(s.requests, proto.Clone(req.(proto.Message)))
	s.tokens = append(s.tokens, md.Get("authorization")...)
	s.mu.Unlock()
	return handler(ctx, req)
}

func (s *service) noteStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	s.mu.Lock()
	s.tokens = append(s.tokens, md.Get("authorization")...)
	s.mu.Unlock()
	return handler(srv, stream)
}

// asked is the last request of a type.
func asked[T proto.Message](t testing.TB, s *service) T {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.requests) - 1; i >= 0; i-- {
		if r, ok := s.requests[i].(T); ok {
			return r
		}
	}
	var none T
	t.Fatalf("no %T among %d requests", none, len(s.requests))
	return none
}

func (s *service) told() *telexecv1.Command {
	if s.desk != nil {
		return s.desk.command()
	}
	if s.life != nil {
		return s.life(time.Since(s.began))
	}
	if s.command != nil {
		return s.command
	}
	return &telexecv1.Command{
		Id: testID, Host: "web1", Command: "true", State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, ExitCode: new(int32(0)), CreateTime: timestamppb.Now(),
	}
}

func content(s string) *telexecv1.StreamContent {
	return &telexecv1.StreamContent{Size: int64(len(s)), Data: []byte(s), NextOffset: int64(len(s)), Complete: true}
}

// wait waits as the service does: until the command is newer or has ended, or the
// time or the call is over.
func (s *service) wait(ctx context.Context, wait time.Duration, version int64) {
	over := time.After(wait)
	for c := s.told(); !ended(c) && c.GetVersion() <= version; c = s.told() {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *service) Execute(ctx context.Context, req *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
	if s.life != nil {
		s.began = time.Now()
	}
	if s.busy != nil {
		return nil, s.busy()
	}
	if s.desk != nil { // the real one does not wait then either
		req.Wait = nil
	}
	s.wait(ctx, req.GetWait().AsDuration(), math.MaxInt64)
	return &telexecv1.ExecuteResponse{Command: s.told(), Stdout: content(s.stdout), Stderr: content(s.stderr)}, nil
}

func (s *service) GetStatus(ctx context.Context, req *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
	s.wait(ctx, req.GetWait().AsDuration(), req.GetIfVersionGreaterThan())
	if s.hang {
		<-ctx.Done()
	}
	if s.refuse != nil {
		return nil, s.refuse()
	}
	return &telexecv1.GetStatusResponse{Command: s.told(), Stdout: content(s.stdout), Stderr: content(s.stderr)}, nil
}

func (s *service) StreamOutput(req *telexecv1.StreamOutputRequest, out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
	if s.stream != nil {
		return s.stream(out)
	}
	if s.streamFrom != nil {
		return s.streamFrom(req, out)
	}
	return out.Send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Ended{Ended: s.told()}})
}

func (s *service) Cancel(context.Context, *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
	return &telexecv1.CancelResponse{Command: s.told(), Report: &telexecv1.CancelReport{Outcome: s.outcome, Left: []*telexecv1.Process{
		{Pid: 7, User: "root", Command: "evil\x1b[2J\nname", Why: "not ours to kill"},
	}}}, nil
}

func (s *service) Signal(context.Context, *telexecv1.SignalRequest) (*telexecv1.SignalResponse, error) {
	return &telexecv1.SignalResponse{Command: s.told()}, nil
}

func (s *service) SendInput(_ context.Context, req *telexecv1.SendInputRequest) (*telexecv1.SendInputResponse, error) {
	return &telexecv1.SendInputResponse{StdinBytes: int64(len(req.GetData()))}, nil
}

func (s *service) ListCommands(_ context.Context, req *telexecv1.ListCommandsRequest) (*telexecv1.ListCommandsResponse, error) {
	// The token is the index of the next one.
	from := len(req.GetPageToken())
	to := min(from+int(req.GetPageSize()), len(s.commands))
	resp := &telexecv1.ListCommandsResponse{Commands: s.commands[min(from, to):to]}
	if to < len(s.commands) {
		resp.NextPageToken = strings.Repeat("+", to)
	}
	return resp, nil
}

func (s *service) ListHosts(context.Context, *telexecv1.ListHostsRequest) (*telexecv1.ListHostsResponse, error) {
	return &telexecv1.ListHostsResponse{Hosts: s.hosts}, nil
}

func (s *service) CheckHost(_ context.Context, req *telexecv1.CheckHostRequest) (*telexecv1.CheckHostResponse, error) {
	if req.GetHost() == "down" {
		return &telexecv1.CheckHostResponse{Failure: &telexecv1.Failure{Reason: "HOST_UNREACHABLE", Message: "nobody there"}}, nil
	}
	return &telexecv1.CheckHostResponse{Ok: true}, nil
}

func (s *service) toldSession() *telexecv1.Session {
	if len(s.sessions) > 0 {
		return s.sessions[0]
	}
	return &telexecv1.Session{Name: "work", Id: testID, Host: "web1", State: telexecv1.SessionState_SESSION_STATE_OPEN, Columns: 80, Rows: 24}
}

func (s *service) OpenSession(context.Context, *telexecv1.OpenSessionRequest) (*telexecv1.OpenSessionResponse, error) {
	return &telexecv1.OpenSessionResponse{Session: s.toldSession()}, nil
}

func (s *service) GetSession(context.Context, *telexecv1.GetSessionRequest) (*telexecv1.GetSessionResponse, error) {
	return &telexecv1.GetSessionResponse{Session: s.toldSession()}, nil
}

func (s *service) ListSessions(context.Context, *telexecv1.ListSessionsRequest) (*telexecv1.ListSessionsResponse, error) {
	return &telexecv1.ListSessionsResponse{Sessions: s.sessions}, nil
}

func (s *service) CloseSession(context.Context, *telexecv1.CloseSessionRequest) (*telexecv1.CloseSessionResponse, error) {
	return &telexecv1.CloseSessionResponse{Session: s.toldSession(), Report: &telexecv1.CancelReport{Outcome: s.outcome, Left: []*telexecv1.Process{
		{Pid: 7, User: "root", Command: "evil\x1b[2J\nname", Why: "not ours to kill"},
	}}}, nil
}

func (s *service) toldScreen() *telexecv1.ReadScreenResponse {
	screen := &telexecv1.ReadScreenResponse{Lines: strings.Split(s.stdout, "\n")}
	if s.screen != nil {
		screen = s.screen
	}
	screen = proto.CloneOf(screen)
	screen.Session = s.toldSession()
	return screen
}

func (s *service) ReadScreen(context.Context, *telexecv1.ReadScreenRequest) (*telexecv1.ReadScreenResponse, error) {
	return s.toldScreen(), nil
}

func (s *service) SendKeys(context.Context, *telexecv1.SendKeysRequest) (*telexecv1.SendKeysResponse, error) {
	return &telexecv1.SendKeysResponse{Screen: s.toldScreen()}, nil
}

func (s *service) GetServerInfo(context.Context, *telexecv1.GetServerInfoRequest) (*telexecv1.GetServerInfoResponse, error) {
	return &telexecv1.GetServerInfoResponse{}, nil
}

// use calls a tool, and checks its structured content against its schema.
func use(t testing.TB, session *mcp.ClientSession, name, arguments string) (text string, isError bool) {
	t.Helper()
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: json.RawMessage(arguments)})
	if err != nil {
		t.Fatalf("%s %s: %v", name, arguments, err)
	}
	if err := fits(result.StructuredContent, schemas(t)[name]); err != nil {
		t.Errorf("%s %s: %v", name, arguments, err)
	}
	return result.Content[0].(*mcp.TextContent).Text, result.IsError
}

// schemas are the output schemas of all tools.
func schemas(t testing.TB) map[string]*jsonschema.Resolved {
	t.Helper()
	resolved.Do(func() {
		server, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		here, there := mcp.NewInMemoryTransports()
		serving, err := server.Connect(context.Background(), there, nil)
		if err != nil {
			t.Fatal(err)
		}
		session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(context.Background(), here, nil)
		if err != nil {
			t.Fatal(err)
		}
		list, err := session.ListTools(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resolvedSchemas = map[string]*jsonschema.Resolved{}
		for _, tool := range list.Tools {
			var s jsonschema.Schema
			b, err := json.Marshal(tool.OutputSchema)
			if err == nil {
				err = json.Unmarshal(b, &s)
			}
			if err != nil {
				t.Fatal(err)
			}
			if resolvedSchemas[tool.Name], err = s.Resolve(nil); err != nil {
				t.Fatal(err)
			}
		}
		_ = session.Close()
		_ = serving.Wait()
	})
	return resolvedSchemas
}

var (
	resolved        sync.Once
	resolvedSchemas map[string]*jsonschema.Resolved
)

func fits(structured any, schema *jsonschema.Resolved) error {
	var v any
	b, err := json.Marshal(structured)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		return err
	}
	return schema.Validate(v)
}
