package client

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testID = "01J8Z3K4M5N6P7Q8R9S0T1V2W3"

// peer is a service that holds one command with known output, and misbehaves as
// it is told: it drops connections, answers late or not at all, forgets. It
// keeps to the contract in everything else.
type peer struct {
	telexecv1.UnimplementedCommandServiceServer
	telexecv1.UnimplementedEventServiceServer
	telexecv1.UnimplementedHostServiceServer
	telexecv1.UnimplementedAdminServiceServer
	telexecv1.UnimplementedApprovalServiceServer
	telexecv1.UnimplementedPolicyServiceServer
	sessionPeer
	taskPeer

	listener *bufconn.Listener
	server   *grpc.Server

	mu       sync.Mutex
	calls    map[string]int // by name of the method
	metadata metadata.MD    // of the last call
	requests []proto.Message
	started  map[string]int // commands by request id

	stdout, stderr []byte
	input          []byte
	inputClosed    bool

	approvals map[string]*telexecv1.Approval // by command id
	tokens    []*telexecv1.Token
	rows      []*telexecv1.ExportAuditResponse

	// before is run for every call first; an error of it is the answer, and
	// errSilent means: never answer.
	before func(method string, n int, req proto.Message) error
	// after is run behind the work of a unary call: an error loses the answer.
	after func(method string, n int) error
	// stream, if set, replaces StreamOutput; n counts its calls from 1.
	stream func(n int, req *telexecv1.StreamOutputRequest, s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error
	// events is WatchEvents; n counts its calls from 1.
	events func(n int, req *telexecv1.WatchEventsRequest, s grpc.ServerStreamingServer[telexecv1.WatchEventsResponse]) error
}

// dropped is what a caller sees of a connection that broke.
var dropped = status.Error(codes.Unavailable, "error reading from server: EOF")

func newPeer(t *testing.T) *peer {
	t.Helper()
	p := &peer{
		listener: bufconn.Listen(1 << 20),
		calls:    map[string]int{},
		started:  map[string]int{},
		before:   func(string, int, proto.Message) error { return nil },
		after:    func(string, int) error { return nil },
	}
	p.server = grpc.NewServer(grpc.UnaryInterceptor(p.unary), grpc.WaitForHandlers(true),
		// As the service: gRPC's own limit takes our pings for an attack.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}))
	telexecv1.RegisterCommandServiceServer(p.server, p)
	telexecv1.RegisterEventServiceServer(p.server, p)
	telexecv1.RegisterHostServiceServer(p.server, p)
	telexecv1.RegisterAdminServiceServer(p.server, p)
	telexecv1.RegisterApprovalServiceServer(p.server, p)
	telexecv1.RegisterPolicyServiceServer(p.server, p)
	p.sessionPeer.peer = p
	telexecv1.RegisterSessionServiceServer(p.server, p)
	p.taskPeer.peer = p
	telexecv1.RegisterTaskServiceServer(p.server, p)
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.server.Serve(p.listener) })
	t.Cleanup(func() { p.server.Stop(); wg.Wait() })
	return p
}

// dial gives a client of the peer.
func (p *peer) dial(t *testing.T, o Options) *Client {
	t.Helper()
	o.Server = "127.0.0.1:7070" // a name would be looked up, which a synctest bubble does not bear
	o.DialOptions = append(o.DialOptions, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return p.listener.DialContext(ctx)
	}), grpc.WithNoProxy())
	c, err := Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (p *peer) count(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[method]
}

func (p *peer) note(ctx context.Context, method string, req any) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[method]++
	p.metadata, _ = metadata.FromIncomingContext(ctx)
	p.requests = append(p.requests, req.(proto.Message))
	return p.calls[method]
}

func (p *peer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[bytes.LastIndexByte([]byte(info.FullMethod), '/')+1:]
	n := p.note(ctx, method, req)
	if err := p.before(method, n, req.(proto.Message)); err != nil {
		return nil, err
	}
	resp, err := handle(ctx, req)
	if err == nil {
		err = p.after(method, n)
	}
	return resp, err
}

func (p *peer) WatchEvents(req *telexecv1.WatchEventsRequest, s grpc.ServerStreamingServer[telexecv1.WatchEventsResponse]) error {
	return p.events(p.note(s.Context(), "WatchEvents", req), req, s)
}

func (p *peer) command(version int64, state telexecv1.CommandState) *telexecv1.Command {
	return &telexecv1.Command{
		Id: testID, Version: version, State: state,
		StdoutBytes: int64(len(p.stdout)), StderrBytes: int64(len(p.stderr)),
	}
}

func (p *peer) Execute(_ context.Context, req *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started[req.GetRequestId()]++
	return &telexecv1.ExecuteResponse{
		Command:  p.command(1, telexecv1.CommandState_COMMAND_STATE_RUNNING),
		Replayed: p.started[req.GetRequestId()] > 1,
	}, nil
}

func (p *peer) GetStatus(context.Context, *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
	return &telexecv1.GetStatusResponse{Command: p.command(3, telexecv1.CommandState_COMMAND_STATE_LOST)}, nil
}

func (p *peer) Cancel(context.Context, *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
	return &telexecv1.CancelResponse{Report: &telexecv1.CancelReport{Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE}}, nil
}

func (p *peer) Signal(context.Context, *telexecv1.SignalRequest) (*telexecv1.SignalResponse, error) {
	return &telexecv1.SignalResponse{}, nil
}

func (p *peer) SendInput(_ context.Context, req *telexecv1.SendInputRequest) (*telexecv1.SendInputResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inputClosed {
		return nil, refusal(codes.FailedPrecondition, &errdetails.ErrorInfo{Domain: domain, Reason: reasonStdinClosed})
	}
	p.input = append(p.input, req.GetData()...)
	p.inputClosed = req.GetEof()
	return &telexecv1.SendInputResponse{StdinBytes: int64(len(p.input))}, nil
}

func (p *peer) ListCommands(_ context.Context, req *telexecv1.ListCommandsRequest) (*telexecv1.ListCommandsResponse, error) {
	if req.GetPageToken() == "" {
		return &telexecv1.ListCommandsResponse{Commands: []*telexecv1.Command{{Id: "1"}, {Id: "2"}}, NextPageToken: "p2"}, nil
	}
	return &telexecv1.ListCommandsResponse{Commands: []*telexecv1.Command{{Id: "3"}}}, nil
}

func (p *peer) ListHosts(_ context.Context, req *telexecv1.ListHostsRequest) (*telexecv1.ListHostsResponse, error) {
	if req.GetPageToken() == "" {
		return &telexecv1.ListHostsResponse{Hosts: []*telexecv1.Host{{Name: "a"}}, NextPageToken: "p2"}, nil
	}
	return &telexecv1.ListHostsResponse{Hosts: []*telexecv1.Host{{Name: "b"}}}, nil
}

func (p *peer) GetHost(_ context.Context, req *telexecv1.GetHostRequest) (*telexecv1.GetHostResponse, error) {
	return &telexecv1.GetHostResponse{Host: &telexecv1.Host{Name: req.GetHost()}}, nil
}

func (p *peer) CheckHost(context.Context, *telexecv1.CheckHostRequest) (*telexecv1.CheckHostResponse, error) {
	return &telexecv1.CheckHostResponse{Ok: true}, nil
}

func (p *peer) GetServerInfo(context.Context, *telexecv1.GetServerInfoRequest) (*telexecv1.GetServerInfoResponse, error) {
	return &telexecv1.GetServerInfoResponse{Version: "1.2.3", Principal: "ann"}, nil
}

func (p *peer) StreamOutput(req *telexecv1.StreamOutputRequest, s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
	n := p.note(s.Context(), "StreamOutput", req)
	if err := p.before("StreamOutput", n, req); err != nil {
		return err
	}
	return p.stream(n, req, s)
}

// Events of a stream.

func chunk(s telexecv1.Stream, offset int, data []byte) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Chunk{
		Chunk: &telexecv1.OutputChunk{Stream: s, Offset: int64(offset), Data: data},
	}}
}

func state(cmd *telexecv1.Command) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Command{Command: cmd}}
}

func complete() *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_OutputComplete{OutputComplete: &telexecv1.OutputComplete{}}}
}

func ended(cmd *telexecv1.Command) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Ended{Ended: cmd}}
}

// refusal is a status as the service makes them.
func refusal(code codes.Code, details ...protoadapt.MessageV1) error {
	st, err := status.New(code, "no").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func retryIn(d time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

// serve runs a server on a loopback port.
func serve(t *testing.T, s *grpc.Server) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	return l.Addr().String(), func() { s.Stop(); wg.Wait() }
}
