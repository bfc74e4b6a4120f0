package main

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// scripted is a service that tells what a test wants told: what a real one tells
// only when a host goes away, or sudo refuses.
type scripted struct {
	telexecv1.UnimplementedCommandServiceServer
	*desk // approvals, policy, keys and audit; nil for none

	house  *house  // sessions; nil for none
	errand *errand // a task; nil for none

	execute func(n int, req *telexecv1.ExecuteRequest) *telexecv1.Command // n counts from 1
	stream  func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error
	status  func(n int) (*telexecv1.Command, error) // n counts from 1
	cancel  *telexecv1.CancelResponse
	refuse  error // of Execute
	list    []*telexecv1.Command

	cancelled func() // called by Cancel; nil for none
	input     func(*telexecv1.SendInputRequest) *telexecv1.SendInputResponse

	mu       sync.Mutex
	asked    []*telexecv1.ExecuteRequest
	statuses int
	listed   *telexecv1.ListCommandsRequest
}

// start serves on loopback and gives an invocation that asks there.
func (s *scripted) start(t *testing.T) *invocation {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	telexecv1.RegisterCommandServiceServer(server, s)
	if s.desk != nil {
		telexecv1.RegisterApprovalServiceServer(server, s.desk)
		telexecv1.RegisterPolicyServiceServer(server, s.desk)
		telexecv1.RegisterAdminServiceServer(server, s.desk)
	}
	if s.house != nil {
		telexecv1.RegisterSessionServiceServer(server, s.house)
	}
	if s.errand != nil {
		telexecv1.RegisterTaskServiceServer(server, s.errand)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return &invocation{env: map[string]string{"TELEXEC_SERVER": listener.Addr().String(), "TELEXEC_TOKEN": "t"}}
}

func (s *scripted) requests() []*telexecv1.ExecuteRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *scripted) Execute(_ context.Context, req *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, req)
	if s.refuse != nil {
		return nil, s.refuse
	}
	return &telexecv1.ExecuteResponse{Command: s.execute(len(s.asked), req)}, nil
}

func (s *scripted) StreamOutput(_ *telexecv1.StreamOutputRequest, out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
	return s.stream(out)
}

func (s *scripted) GetStatus(context.Context, *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses++
	cmd, err := s.status(s.statuses)
	return &telexecv1.GetStatusResponse{Command: cmd}, err
}

func (s *scripted) Cancel(context.Context, *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
	if s.cancelled != nil {
		s.cancelled()
	}
	return s.cancel, nil
}

func (s *scripted) SendInput(_ context.Context, req *telexecv1.SendInputRequest) (*telexecv1.SendInputResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.input(req), nil
}

func (s *scripted) Signal(context.Context, *telexecv1.SignalRequest) (*telexecv1.SignalResponse, error) {
	return &telexecv1.SignalResponse{}, nil
}

func (s *scripted) ListCommands(_ context.Context, req *telexecv1.ListCommandsRequest) (*telexecv1.ListCommandsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = req
	return &telexecv1.ListCommandsResponse{Commands: s.list}, nil
}

const someID = "01J8Z3K4M5N6P7Q8R9S0T1V2W3"

// durableCommand is one that runs on web1.
func durableCommand(version int64, c telexecv1.Connection) *telexecv1.Command {
	return &telexecv1.Command{
		Id: someID, Version: version, Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_RUNNING,
		Durability: telexecv1.Durability_DURABILITY_DURABLE, Connection: c,
	}
}

const (
	connected = telexecv1.Connection_CONNECTION_CONNECTED
	away      = telexecv1.Connection_CONNECTION_RECONNECTING
)

func commandEvent(c *telexecv1.Command) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Command{Command: c}}
}

func outputEvent(offset int64, text string) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Chunk{
		Chunk: &telexecv1.OutputChunk{Stream: telexecv1.Stream_STREAM_STDOUT, Offset: offset, Data: []byte(text)},
	}}
}

func endedEvent(c *telexecv1.Command) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Ended{Ended: c}}
}

// completed is the command of durableCommand, at its end.
func completed(version int64) *telexecv1.Command {
	code := int32(0)
	return &telexecv1.Command{
		Id: someID, Version: version, Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, ExitCode: &code,
		Durability: telexecv1.Durability_DURABILITY_DURABLE,
	}
}
