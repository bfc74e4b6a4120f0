package gateway_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway"
)

const (
	updatesPath  = "/api/agent/" + anID + "/updates"
	anApprovalID = "01ARZ3NDEKTSV4RRFFQ69G5FAW"
)

type (
	taskStream  = grpc.ServerStreamingServer[telexecv1.WatchTaskResponse]
	eventStream = grpc.ServerStreamingServer[telexecv1.WatchEventsResponse]
)

// tasks keeps the last request, and answers as a test wants.
type tasks struct {
	telexecv1.UnimplementedTaskServiceServer
	last   proto.Message
	watch  func(*telexecv1.WatchTaskRequest, taskStream) error
	decide func(context.Context, *telexecv1.DecideTaskRequest) (*telexecv1.DecideTaskResponse, error)
}

func (s *tasks) SubmitTask(_ context.Context, r *telexecv1.SubmitTaskRequest) (*telexecv1.SubmitTaskResponse, error) {
	s.last = r
	return &telexecv1.SubmitTaskResponse{Task: &telexecv1.Task{Id: anID}}, nil
}

func (s *tasks) GetTask(_ context.Context, r *telexecv1.GetTaskRequest) (*telexecv1.GetTaskResponse, error) {
	s.last = r
	return &telexecv1.GetTaskResponse{Task: &telexecv1.Task{Id: anID}}, nil
}

func (s *tasks) ListTasks(_ context.Context, r *telexecv1.ListTasksRequest) (*telexecv1.ListTasksResponse, error) {
	s.last = r
	return &telexecv1.ListTasksResponse{}, nil
}

func (s *tasks) CancelTask(_ context.Context, r *telexecv1.CancelTaskRequest) (*telexecv1.CancelTaskResponse, error) {
	s.last = r
	return &telexecv1.CancelTaskResponse{}, nil
}

func (s *tasks) UndoTask(_ context.Context, r *telexecv1.UndoTaskRequest) (*telexecv1.UndoTaskResponse, error) {
	s.last = r
	return &telexecv1.UndoTaskResponse{}, nil
}

func (s *tasks) DecideTask(ctx context.Context, r *telexecv1.DecideTaskRequest) (*telexecv1.DecideTaskResponse, error) {
	s.last = r
	if s.decide != nil {
		return s.decide(ctx, r)
	}
	return &telexecv1.DecideTaskResponse{}, nil
}

func (s *tasks) WatchTask(r *telexecv1.WatchTaskRequest, ss taskStream) error {
	s.last = r
	if s.watch != nil {
		return s.watch(r, ss)
	}
	return ss.Send(&telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Heartbeat{}})
}

// TestTheRoutesOfTasks: each is for one call, with what path, query and body say;
// "history" is no id.
func TestTheRoutesOfTasks(t *testing.T) {
	svc := &tasks{}
	d := open(t, &service{tasks: svc})
	from, to := &timestamppb.Timestamp{Seconds: 1767225600}, &timestamppb.Timestamp{Seconds: 1767312000, Nanos: 5e8}
	plan := &telexecv1.SubmitTaskRequest{Task: "roll out", Priority: 5, Steps: []*telexecv1.StepSpec{{Name: "a", Host: "web1", Command: "true", NeedsApproval: true, Undo: "false"}}}
	const planned = `{"task": "roll out", "priority": 5, "steps": [{"name": "a", "host": "web1", "command": "true", "needsApproval": true, "undo": "false"}]}`
	const decided = `{"approvalId":"` + anApprovalID + `","approved":true,"message":"go","modifiedParameters":{"command":"id"}}`
	decision := &telexecv1.DecideTaskRequest{TaskId: anID, ApprovalId: anApprovalID, Approved: new(true), Message: "go", ModifiedParameters: &telexecv1.ModifiedRequest{Command: "id"}}
	history := &telexecv1.ListTasksRequest{Status: "completed,failed", Limit: 20, Offset: 40, DateFrom: from, DateTo: to}
	const filter = "?status=completed,failed&limit=20&offset=40&dateFrom=2026-01-01T00:00:00Z&dateTo=2026-01-02T00:00:00.5Z"
	for _, c := range []struct {
		method, path, body string
		want               proto.Message
	}{
		{"POST", "/api/agent", planned, plan},
		{"POST", "/v1/tasks", planned, plan},
		{"GET", "/api/agent/" + anID, "", &telexecv1.GetTaskRequest{TaskId: anID}},
		{"GET", "/v1/tasks/" + anID + "?until=TASK_WAIT_STEP&if_version_greater_than=7", "", &telexecv1.GetTaskRequest{TaskId: anID, Until: telexecv1.TaskWait_TASK_WAIT_STEP, IfVersionGreaterThan: 7}},
		{"GET", "/api/agent/history", "", &telexecv1.ListTasksRequest{}},
		{"GET", "/api/agent/history" + filter, "", history},
		{"GET", "/v1/tasks" + filter, "", history},
		{"GET", "/api/agent/history?labels%5Bteam%5D=web&labels%5Ba.b/c%5D=", "", &telexecv1.ListTasksRequest{Labels: map[string]string{"team": "web", "a.b/c": ""}}},
		{"GET", "/api/agent/history?status=RUNNING&dateFrom=2026-01-01", "", &telexecv1.ListTasksRequest{Status: "RUNNING", DateFrom: from}},
		{"POST", "/api/agent/" + anID + "/approve", decided, decision},
		{"POST", "/v1/tasks/" + anID + ":decide", decided, decision},
		{"POST", "/api/agent/" + anID + "/undo", `{"stepId":"a"}`, &telexecv1.UndoTaskRequest{TaskId: anID, StepId: "a"}},
		{"POST", "/v1/tasks/" + anID + ":undo", "", &telexecv1.UndoTaskRequest{TaskId: anID}},
		{"DELETE", "/api/agent/" + anID, "", &telexecv1.CancelTaskRequest{TaskId: anID}},
		{"DELETE", "/api/agent/" + anID + "?reason=enough", "", &telexecv1.CancelTaskRequest{TaskId: anID, Reason: "enough"}},
		{"POST", "/v1/tasks/" + anID + ":cancel", `{"reason":"enough"}`, &telexecv1.CancelTaskRequest{TaskId: anID, Reason: "enough"}},
		{"GET", "/v1/tasks/" + anID + "/events?after=3", "", &telexecv1.WatchTaskRequest{TaskId: anID, After: 3}},
	} {
		svc.last = nil
		if a := d.do(c.method, c.path, c.body); a.status != 200 || !proto.Equal(svc.last, c.want) {
			t.Errorf("%s %s: HTTP %d %s, asked for %v", c.method, c.path, a.status, a.body, svc.last)
		}
	}
	// The wrong way about.
	for _, c := range []struct {
		method, path, body, allow string
		status                    int
	}{
		{"PUT", "/api/agent", planned, "POST", 405},
		{"GET", "/api/agent", "", "POST", 405},
		{"POST", "/api/agent/" + anID, "", "DELETE, GET", 405},
		{"GET", "/api/agent/" + anID + "/approve", "", "POST", 405},
		{"GET", "/api/agent/" + anID + "/undo", "", "POST", 405},
		{"DELETE", "/v1/tasks", "", "GET, POST", 405},
		{"GET", "/api/agent/" + anID + "/nothing", "", "", 404},
		{"GET", "/api/agents", "", "", 404},
		{"GET", "/api/agent/17", "", "", 400},
		{"DELETE", "/api/agent/history", "", "", 400},
		{"DELETE", "/api/agent/" + anID + "?because=enough", "", "", 400},
		{"GET", "/api/agent/history?statuses=failed", "", "", 400},
		{"GET", "/api/agent/history?status=fine", "", "", 400},
		{"GET", "/api/agent/history?limit=1001", "", "", 400},
		{"GET", "/api/agent/history?offset=-1", "", "", 400},
		{"GET", "/api/agent/history?dateFrom=yesterday", "", "", 400},
		{"GET", "/api/agent/history?dateTo=9999-12-31T23:59:59-12:00", "", "", 400},
		{"GET", "/api/agent/history?limit=1e1", "", "", 400},
		{"GET", "/api/agent/history?labels=x", "", "", 400},
		{"GET", "/api/agent/history?labels%5Ba%5D%5Bb%5D=c", "", "", 400},
		{"GET", "/api/agent/history?labels%5Ba%5Db=c", "", "", 400},
		{"GET", "/api/agent/history?labels%5Ba=c", "", "", 400},
		{"GET", "/api/agent/history?principal%5Bzz=c", "", "", 400},
		{"DELETE", "/api/agent/" + anID, `{"reason":"why"}`, "", 400},
		{"POST", "/api/agent", `{"task":"x"}`, "", 400},
		{"POST", "/api/agent", `{"task":"x","steps":[{"host":"h","command":"true","aproval":true}]}`, "", 400},
		{"POST", "/api/agent/" + anID + "/approve", `{"approved":true}`, "", 400},
	} {
		svc.last = nil
		a := d.do(c.method, c.path, c.body)
		if _, _, hint, _ := a.problem(t); a.status != c.status || hint == "" || a.header.Get("Allow") != c.allow || svc.last != nil {
			t.Errorf("%s %s: HTTP %d, Allow %q: %s", c.method, c.path, a.status, a.header.Get("Allow"), a.body)
		}
	}
	// With a cookie, as our own pages do.
	cookie := []string{"Authorization", "", "Cookie", d.login(), "Origin", d.url, "Sec-Fetch-Site", "same-origin"}
	if a := d.do("DELETE", "/api/agent/"+anID, "", cookie...); a.status != 200 {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	cookie[5] = "https://evil.example"
	for _, c := range [][2]string{{"DELETE", "/api/agent/" + anID}, {"POST", "/api/agent/" + anID + "/approve"}, {"POST", "/api/agent"}} {
		if a := d.do(c[0], c[1], "", cookie...); a.status != 403 {
			t.Errorf("%v from a foreign page: HTTP %d %s", c, a.status, a.body)
		}
	}
}

// plot is a task with so many events, told as the service does from after on. Its last
// event is the task's.
func plot(events int) func(*telexecv1.WatchTaskRequest, taskStream) error {
	task := &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Task{Task: &telexecv1.Task{Id: anID, Version: 9, Sequence: int64(events)}}}
	return func(r *telexecv1.WatchTaskRequest, ss taskStream) error {
		all := []*telexecv1.WatchTaskResponse{task}
		for i := r.GetAfter() + 1; i <= int64(events); i++ {
			all = append(all, &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Event{Event: &telexecv1.TaskEvent{TaskId: anID, Sequence: i, Message: strings.Repeat("x", 500)}}})
			if i%10 == 0 {
				all = append(all, &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Heartbeat{Heartbeat: &telexecv1.TaskHeartbeat{}}})
			}
		}
		for _, m := range append(all, task) {
			if err := ss.Send(m); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestATaskOnASocket: a client that is cut off again and again, and goes on behind the
// last sequence, is told every event once, in its order.
func TestATaskOnASocket(t *testing.T) {
	const events = 2000
	d := open(t, &service{tasks: &tasks{watch: plot(events)}})
	for name, header := range map[string][]string{
		"json":     {},
		"deflated": {"Deflate", "yes"},
		"wire":     {"Sec-WebSocket-Protocol", "telexec.v1.proto"},
	} {
		t.Run(name, func(t *testing.T) {
			d := *d
			d.t = t
			r := rand.New(rand.NewPCG(5, 6))
			last, done := int64(0), false
			for !done {
				c := d.talk(fmt.Sprintf("%s?after=%d&heartbeat=20s", updatesPath, last), header...)
				first := c.want("task", "updates")
				if first.GetSequence() != last || first.GetResource() != "tasks/"+anID || first.GetData().GetTask().GetVersion() != 9 {
					t.Fatal(first)
				}
				for left := r.IntN(300); left > 0 && !done; left-- {
					m, err := c.next()
					if err != nil {
						t.Fatal(err)
					}
					switch m.GetType() {
					case "task_event":
						if last++; m.GetData().GetTaskEvent().GetSequence() != last {
							t.Fatalf("instead of event %d: %v", last, m)
						}
					case "task":
						done = last == events
					case "heartbeat":
					default:
						t.Fatal(m)
					}
					if m.GetSequence() != last || m.GetId() != "updates" || m.GetResource() != "tasks/"+anID {
						t.Fatal(m)
					}
				}
				c.conn.CloseNow()
			}
		})
	}
}

// TestTheEndOfATask ends the subscription, and after a while its socket; its name is
// free at once.
func TestTheEndOfATask(t *testing.T) {
	inBubble(t, &service{tasks: &tasks{watch: plot(1)}}, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk(updatesPath)
		for range 2 {
			for _, kind := range []string{"task", "task_event", "task"} {
				c.want(kind, "updates")
			}
			c.send(fmt.Sprintf(`{"id":"updates","subscribeTask":{"taskId":%q}}`, anID))
		}
		for range 3 {
			_, _ = c.next()
		}
		begun := time.Now()
		c.wantClose(websocket.StatusNormalClosure)
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("closed after %v", took)
		}
		d.stop()
	})
}

// TestRequestsAboutTasks on a socket: several subscriptions, decisions, and what is
// refused.
func TestRequestsAboutTasks(t *testing.T) {
	var md metadata.MD
	watched := make(chan struct{}, 8) // one when a watch has ended; for all that there are
	svc := &tasks{
		watch: func(r *telexecv1.WatchTaskRequest, ss taskStream) error {
			defer func() { watched <- struct{}{} }()
			if r.GetTaskId() != anID {
				return fault.New(fault.PermissionDenied, fault.ReasonAccessDenied, "not yours").WithHint("Ask")
			}
			_ = ss.Send(&telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Task{Task: &telexecv1.Task{Id: anID}}})
			<-ss.Context().Done()
			return ss.Context().Err()
		},
		decide: func(ctx context.Context, r *telexecv1.DecideTaskRequest) (*telexecv1.DecideTaskResponse, error) {
			md, _ = metadata.FromIncomingContext(ctx)
			if !r.GetApproved() {
				return nil, fault.New(fault.PermissionDenied, fault.ReasonNotYourDecision, "not yours").WithHint("Ask")
			}
			return &telexecv1.DecideTaskResponse{Approval: &telexecv1.Approval{Id: r.GetApprovalId()}}, nil
		},
	}
	d := open(t, &service{tasks: svc})
	c := d.talk("/v1/socket")
	c.send(fmt.Sprintf(`{"id":"t1","subscribeTask":{"taskId":%q,"after":"4"}}`, anID))
	if m := c.want("task", "t1"); m.GetSequence() != 4 {
		t.Error(m)
	}
	c.send(fmt.Sprintf(`{"id":"t1","subscribeTask":{"taskId":%q}}`, anID))
	if reason, _ := c.wantError("t1"); reason != fault.ReasonInvalidRequest {
		t.Error(reason)
	}
	c.send(fmt.Sprintf(`{"id":"t2","subscribeTask":{"taskId":%q}}`, anApprovalID))
	if reason, _ := c.wantError("t2"); reason != fault.ReasonAccessDenied {
		t.Error(reason)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Method != "TaskService/WatchTask" || e[0].Task != anApprovalID || e[0].Reason != fault.ReasonAccessDenied {
		t.Errorf("audit %+v", e)
	}
	<-watched
	c.send(`{"id":"t2","subscribeTask":{"taskId":"mine"}}`)
	if reason, message := c.wantError("t2"); reason != fault.ReasonInvalidRequest || strings.Contains(message, "mine") {
		t.Error(reason, message)
	}
	d.audit.take()
	c.send(fmt.Sprintf(`{"id":"d1","decide":{"taskId":%q,"approvalId":%q,"approved":true}}`, anID, anApprovalID))
	if m := c.want("decide", "d1"); m.GetResource() != "tasks/"+anID || m.GetData().GetDecide().GetApproval().GetId() != anApprovalID {
		t.Error(m)
	}
	if md.Get("telexec-origin")[0] != "websocket" || md.Get("telexec-address")[0] != "127.0.0.1" {
		t.Errorf("metadata %v", md)
	}
	c.send(fmt.Sprintf(`{"id":"d2","decide":{"taskId":%q,"approvalId":%q}}`, anID, anApprovalID))
	if reason, _ := c.wantError("d2"); reason != fault.ReasonInvalidRequest {
		t.Error(reason)
	}
	d.audit.take()
	c.send(fmt.Sprintf(`{"id":"d2","decide":{"taskId":%q,"approvalId":%q,"approved":false}}`, anID, anApprovalID))
	if reason, _ := c.wantError("d2"); reason != fault.ReasonNotYourDecision {
		t.Error(reason)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Kind != audit.Refused || e[0].Method != "TaskService/DecideTask" || e[0].Principal != "admin" ||
		e[0].Origin != "websocket" || e[0].Address != "127.0.0.1" || e[0].Task != anID || e[0].CommandID != anApprovalID || e[0].Reason != fault.ReasonNotYourDecision {
		t.Errorf("audit %+v", e)
	}
	c.send(`{"id":"u","unsubscribe":{"subscription":"t1"}}`)
	if m := c.want("unsubscribed", "u"); m.GetResource() != "tasks/"+anID {
		t.Error(m)
	}
	<-watched

	// That of the path is refused in the same way, and the socket stays for others.
	c = d.talk("/api/agent/" + anApprovalID + "/updates")
	if reason, _ := c.wantError("updates"); reason != fault.ReasonAccessDenied {
		t.Error(reason)
	}
	c.send(fmt.Sprintf(`{"id":"t","subscribeTask":{"taskId":%q}}`, anID))
	c.want("task", "t")
	d.stop()
	if reason, _ := c.wantError(""); reason != fault.ReasonDraining {
		t.Error(reason)
	}
	c.wantClose(websocket.StatusGoingAway)
}

// TestWhoMayWatchATask: as on every socket.
func TestWhoMayWatchATask(t *testing.T) {
	d := open(t, &service{tasks: &tasks{watch: plot(1)}})
	cookie := d.login()
	inProtocol := "telexec.bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))
	for name, header := range map[string][]string{
		"subprotocol": {"Authorization", "", "Sec-WebSocket-Protocol", "telexec.v1.json, " + inProtocol},
		"cookie":      {"Authorization", "", "Cookie", cookie, "Origin", d.url},
	} {
		t.Run(name, func(t *testing.T) {
			d := *d
			d.t = t
			d.talk(updatesPath, header...).want("task", "updates")
		})
	}
	d.audit.take()
	for _, c := range []struct {
		header []string
		status int
		reason string
	}{
		{[]string{"Authorization", "", "Cookie", cookie, "Origin", "https://evil.example"}, 403, fault.ReasonForbiddenOrigin},
		{[]string{"Authorization", "", "Cookie", cookie, "Origin", "https://ops.example"}, 401, fault.ReasonNoCredentials},
		{[]string{"Authorization", ""}, 401, fault.ReasonNoCredentials},
	} {
		d := open(t, &service{tasks: &tasks{watch: plot(1)}})
		a := d.refusal(updatesPath, c.header...)
		if _, reason, _, _ := a.problem(t); a.status != c.status || reason != c.reason {
			t.Errorf("%v: HTTP %d %s", c.header, a.status, a.body)
		}
		if e := d.audit.take(); len(e) != 1 || e[0].Method != "GET /api/agent/{task_id}/updates" || e[0].Reason != c.reason {
			t.Errorf("%v: audit %+v", c.header, e)
		}
	}
}

// TestAWatchEndsWithItsCredentials.
func TestAWatchEndsWithItsCredentials(t *testing.T) {
	svc := &tasks{watch: func(_ *telexecv1.WatchTaskRequest, ss taskStream) error {
		<-ss.Context().Done()
		return ss.Context().Err()
	}}
	inBubble(t, &service{tasks: svc}, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk(updatesPath)
		begun := time.Now()
		if reason, _ := c.wantError("updates"); reason != fault.ReasonTokenExpired || time.Since(begun) != time.Hour {
			t.Errorf("%s after %v", reason, time.Since(begun))
		}
		c.wantClose(websocket.StatusPolicyViolation)
		d.stop()
	}, func(o *gateway.Options) { o.Authenticator = expiring{o.Authenticator, time.Now().Add(time.Hour)} })
}

// TestAWatcherOfATaskThatStalls is waited for: the service is not read for it beyond what
// is on the way, and it is told every event when it reads again.
func TestAWatcherOfATaskThatStalls(t *testing.T) {
	const events = 20000
	var sent atomic.Int64
	play := plot(events)
	svc := &tasks{watch: func(r *telexecv1.WatchTaskRequest, ss taskStream) error { return play(r, counted{ss, &sent}) }}
	inBubble(t, &service{tasks: svc}, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk(updatesPath)
		c.want("task", "updates")
		<-time.After(time.Minute)
		synctest.Wait()
		if n := sent.Load(); n > 1000 {
			t.Errorf("%d messages were taken for a client that does not read", n)
		}
		for last := int64(0); last < events; {
			m, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetType() == "task_event" {
				if last++; m.GetSequence() != last {
					t.Fatalf("instead of %d: %v", last, m)
				}
			}
		}
		d.stop()
	})
}

// counted counts what is sent.
type counted struct {
	taskStream
	n *atomic.Int64
}

func (s counted) Send(m *telexecv1.WatchTaskResponse) error {
	s.n.Add(1)
	return s.taskStream.Send(m)
}

// happenings tells what a test wants.
type happenings struct {
	telexecv1.UnimplementedEventServiceServer
	tell func(*telexecv1.WatchEventsRequest, eventStream) error
}

func (h happenings) WatchEvents(r *telexecv1.WatchEventsRequest, ss eventStream) error {
	return h.tell(r, ss)
}

// TestEventsOfTasks come with those of commands, in the order in which the service tells
// them. Sequence is that of the commands.
func TestEventsOfTasks(t *testing.T) {
	var asked *telexecv1.WatchEventsRequest
	svc := happenings{tell: func(r *telexecv1.WatchEventsRequest, ss eventStream) error {
		asked = r
		for _, m := range []*telexecv1.WatchEventsResponse{
			{Sequence: 7, Event: &telexecv1.WatchEventsResponse_Task{Task: &telexecv1.Task{Id: anID, Sequence: 90}}},
			{Sequence: 7, Event: &telexecv1.WatchEventsResponse_Synced{Synced: &telexecv1.Synced{}}},
			{Sequence: 7, Event: &telexecv1.WatchEventsResponse_TaskEvent{TaskEvent: &telexecv1.TaskEvent{TaskId: anID, Sequence: 91}}},
			{Sequence: 8, Event: &telexecv1.WatchEventsResponse_Command{Command: running}},
		} {
			if err := ss.Send(m); err != nil {
				return err
			}
		}
		return nil
	}}
	c := open(t, &service{events: svc}).talk("/v1/events?after=7&task_sequences[" + anID + "]=90")
	for _, want := range []struct {
		kind     string
		sequence int64
	}{{"task", 7}, {"synced", 7}, {"task_event", 7}, {"event", 8}, {"unsubscribed", 8}} {
		m := c.want(want.kind, "events")
		if m.GetSequence() != want.sequence || m.GetResource() != "events" {
			t.Errorf("%v, want %v", m, want)
		}
		if e := m.GetData().GetTaskEvent(); e != nil && e.GetSequence() != 91 {
			t.Error(m)
		}
	}
	if asked.GetAfter() != 7 || asked.GetTaskSequences()[anID] != 90 {
		t.Errorf("asked for %v", asked)
	}
}

// TestLongPlans for a client that does not read wait at the service, not here.
func TestLongPlans(t *testing.T) {
	var sent atomic.Int64
	long := &telexecv1.Task{Id: anID, Task: strings.Repeat("x", 1<<20)}
	svc := happenings{tell: func(_ *telexecv1.WatchEventsRequest, ss eventStream) error {
		for range 30 {
			if err := ss.Send(&telexecv1.WatchEventsResponse{Event: &telexecv1.WatchEventsResponse_Task{Task: long}}); err != nil {
				return err
			}
			sent.Add(1)
		}
		return nil
	}}
	inBubble(t, &service{events: svc}, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk("/v1/socket")
		c.conn.SetReadLimit(4 << 20)
		c.send(`{"id":"e","subscribeEvents":{}}`)
		synctest.Wait()
		if n := sent.Load(); n > 4 {
			t.Errorf("%d MiB were taken for a client that does not read", n)
		}
		for range 30 {
			c.want("task", "e")
		}
		c.want("unsubscribed", "e")
		d.stop()
	})
}

// TestEventsOfATaskByREST are lines, as every stream.
func TestEventsOfATaskByREST(t *testing.T) {
	d := open(t, &service{tasks: &tasks{watch: plot(3)}})
	resp, err := d.client.Do(d.request("GET", "/v1/tasks/"+anID+"/events?after=1", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if resp.StatusCode != 200 || len(lines) != 4 {
		t.Fatalf("HTTP %d %s", resp.StatusCode, text)
	}
	for i, line := range lines[1:3] {
		m := &telexecv1.WatchTaskResponse{}
		if err := protojson.Unmarshal([]byte(line), m); err != nil || m.GetEvent().GetSequence() != int64(i+2) {
			t.Errorf("%v: %s", err, line)
		}
	}
}
