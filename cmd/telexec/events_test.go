package main

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// herald tells what a test wants told, then nothing until the caller goes away.
type herald struct {
	telexecv1.UnimplementedEventServiceServer
	tells []*telexecv1.WatchEventsResponse
	fail  error
	asked *telexecv1.WatchEventsRequest
}

func (h *herald) WatchEvents(r *telexecv1.WatchEventsRequest, out grpc.ServerStreamingServer[telexecv1.WatchEventsResponse]) error {
	h.asked = r
	for _, m := range h.tells {
		if err := out.Send(m); err != nil {
			return err
		}
	}
	if h.fail == nil {
		<-out.Context().Done()
	}
	return h.fail
}

// listen runs telexec events with args against h, interrupts it when text has come,
// and gives its exit code and what it printed.
func (h *herald) listen(t *testing.T, text string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	telexecv1.RegisterEventServiceServer(server, h)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	defer func() { server.Stop(); serving.Wait() }()
	signals := make(chan os.Signal, 1)
	out := &untilText{text: text, seen: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	serving.Go(func() {
		select {
		case <-out.seen:
			signals <- os.Interrupt
		case <-ctx.Done():
		}
	})
	var errOut strings.Builder
	env := map[string]string{"TELEXEC_SERVER": listener.Addr().String(), "TELEXEC_TOKEN": "t"}
	code = run(ctx, Env{Stdout: struct{ io.Writer }{out}, Stderr: &errOut, Signals: signals, Getenv: func(name string) string { return env[name] }}, append([]string{"events"}, args...))
	cancel()
	return code, out.String(), errOut.String()
}

func TestEvents(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	tell := func(sequence int64, sent time.Time, c *telexecv1.Command) *telexecv1.WatchEventsResponse {
		c.Id = someID
		return &telexecv1.WatchEventsResponse{Time: timestamppb.New(sent), Sequence: sequence, Event: &telexecv1.WatchEventsResponse_Command{Command: c}}
	}
	three := int32(3)
	h := &herald{tells: []*telexecv1.WatchEventsResponse{
		tell(4, at, &telexecv1.Command{
			State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, ExitCode: &three, Host: "web1", Command: "false", EndTime: timestamppb.New(at.Add(-time.Hour)),
		}),
		{Time: timestamppb.New(at), Sequence: 5, Event: &telexecv1.WatchEventsResponse_Synced{Synced: &telexecv1.Synced{}}},
		{Time: timestamppb.New(at), Sequence: 5, Event: &telexecv1.WatchEventsResponse_Heartbeat{Heartbeat: &telexecv1.EventHeartbeat{}}},
		tell(6, at, &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_RUNNING, Host: "web2", Command: "uptime # \x1b[2J", CreateTime: timestamppb.New(at.Add(-time.Hour))}),
	}}
	want := "2026-03-01 11:00:00  " + someID + "  completed 3     web1  false\n" +
		"2026-03-01 12:00:00  " + someID + "  running         web2  uptime # \\x1b[2J\n"
	code, stdout, stderr := h.listen(t, "uptime", "--after", "3", "--host", "web2", "--principal", "ann", "--label", "a=b=c")
	if code != exitCancelled || stdout != want || stderr != "" {
		t.Errorf("exit code %d\n%swant\n%s%s", code, stdout, want, stderr)
	}
	if r := h.asked; r.GetAfter() != 3 || r.GetHost() != "web2" || r.GetPrincipal() != "ann" || r.GetLabels()["a"] != "b=c" {
		t.Errorf("asked %v", r)
	}
	_, stdout, _ = h.listen(t, "web2", "--json")
	if lines := strings.Split(stdout, "\n"); len(lines) != 5 || h.asked.After != nil || !strings.Contains(lines[1], `"sequence":"5","synced":{}`) {
		t.Errorf("asked %v, told\n%s", h.asked, stdout)
	}
	h = &herald{fail: refused(codes.OutOfRange, "EVENTS_UNKNOWN", "the last change has number 2")}
	if code, stdout, stderr = h.listen(t, "never", "--after", "3"); code != 125 || stdout != "" || !strings.Contains(stderr, "the last change has number 2") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
}

// Of a task that has not ended it is told where it is, then every event but percents.
func TestEventsOfTasks(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local))
	task := func(id string) *telexecv1.WatchEventsResponse {
		return &telexecv1.WatchEventsResponse{Event: &telexecv1.WatchEventsResponse_Task{Task: &telexecv1.Task{
			Id: id, Task: "roll out", State: telexecv1.TaskState_TASK_STATE_RUNNING, CreateTime: at,
		}}}
	}
	tell := func(id string, sequence int64, kind, message string) *telexecv1.WatchEventsResponse {
		return &telexecv1.WatchEventsResponse{Event: &telexecv1.WatchEventsResponse_TaskEvent{TaskEvent: &telexecv1.TaskEvent{
			TaskId: id, Sequence: sequence, Type: kind, Message: message, Time: at, State: telexecv1.TaskState_TASK_STATE_AWAITING_APPROVAL,
		}}}
	}
	other := "01J8Z3K4M5N6P7Q8R9S0T1V2W4"
	h := &herald{tells: []*telexecv1.WatchEventsResponse{
		task(someID), {Event: &telexecv1.WatchEventsResponse_Synced{Synced: &telexecv1.Synced{}}},
		tell(someID, 5, "step_progress", "50 %"), task(other), tell(other, 1, "approval_request", "step a waits\x1b"),
	}}
	want := "2026-03-01 12:00:00  " + someID + "  running         roll out\n" +
		"2026-03-01 12:00:00  " + other + "  awaiting_approval  step a waits\\x1b\n"
	if code, stdout, stderr := h.listen(t, "waits"); code != exitCancelled || stdout != want || stderr != "" {
		t.Errorf("exit code %d\n%swant\n%s%s", code, stdout, want, stderr)
	}
}
