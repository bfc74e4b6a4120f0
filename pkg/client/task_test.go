package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// taskPeer is the part of the peer that has one task.
type taskPeer struct {
	telexecv1.UnimplementedTaskServiceServer

	submitted map[string]int // by request id
	undone    int
	// watch, if set, is WatchTask; n counts its calls from 1.
	watch func(n int, req *telexecv1.WatchTaskRequest, s taskSink) error
	peer  *peer
}

type taskSink = grpc.ServerStreamingServer[telexecv1.WatchTaskResponse]

const (
	taskRuns = telexecv1.TaskState_TASK_STATE_RUNNING
	taskOver = telexecv1.TaskState_TASK_STATE_COMPLETED
)

func (p *taskPeer) task(state telexecv1.TaskState, sequence int64) *telexecv1.Task {
	return &telexecv1.Task{Id: testID, State: state, Sequence: sequence}
}

func (p *taskPeer) SubmitTask(_ context.Context, req *telexecv1.SubmitTaskRequest) (*telexecv1.SubmitTaskResponse, error) {
	p.peer.mu.Lock()
	defer p.peer.mu.Unlock()
	if p.submitted == nil {
		p.submitted = make(map[string]int)
	}
	p.submitted[req.GetRequestId()]++
	return &telexecv1.SubmitTaskResponse{Task: p.task(taskRuns, 1), Replayed: p.submitted[req.GetRequestId()] > 1}, nil
}

func (p *taskPeer) GetTask(context.Context, *telexecv1.GetTaskRequest) (*telexecv1.GetTaskResponse, error) {
	return &telexecv1.GetTaskResponse{Task: p.task(taskOver, 3)}, nil
}

func (p *taskPeer) ListTasks(_ context.Context, req *telexecv1.ListTasksRequest) (*telexecv1.ListTasksResponse, error) {
	if req.GetPageToken() == "" {
		return &telexecv1.ListTasksResponse{Tasks: []*telexecv1.Task{{Id: "1"}}, NextPageToken: "p2"}, nil
	}
	return &telexecv1.ListTasksResponse{Tasks: []*telexecv1.Task{{Id: "2"}}}, nil
}

func (p *taskPeer) CancelTask(context.Context, *telexecv1.CancelTaskRequest) (*telexecv1.CancelTaskResponse, error) {
	return &telexecv1.CancelTaskResponse{AlreadyEnded: true}, nil
}

func (p *taskPeer) UndoTask(_ context.Context, req *telexecv1.UndoTaskRequest) (*telexecv1.UndoTaskResponse, error) {
	p.peer.mu.Lock()
	defer p.peer.mu.Unlock()
	if !req.GetPreview() {
		p.undone++
	}
	return &telexecv1.UndoTaskResponse{Preview: []*telexecv1.UndoStep{{Step: "a"}}}, nil
}

// DecideTask decides about the one approval that there is, once.
func (p *taskPeer) DecideTask(_ context.Context, req *telexecv1.DecideTaskRequest) (*telexecv1.DecideTaskResponse, error) {
	p.peer.mu.Lock()
	defer p.peer.mu.Unlock()
	a := p.peer.approvals[req.GetApprovalId()]
	if a.GetState() != telexecv1.ApprovalState_APPROVAL_STATE_PENDING {
		return nil, refusal(codes.FailedPrecondition, &errdetails.ErrorInfo{Domain: domain, Reason: reasonAlreadyDecided})
	}
	d := decisionOf(req)
	a.State = telexecv1.ApprovalState_APPROVAL_STATE_APPROVED
	a.Decisions = append(a.Decisions, &telexecv1.ApprovalDecision{
		By: &telexecv1.Actor{Principal: "ann"}, Verdict: d.GetVerdict(), Revision: 1, RequestHash: d.GetRequestHash(),
	})
	return &telexecv1.DecideTaskResponse{Approval: a}, nil
}

func (p *taskPeer) WatchTask(req *telexecv1.WatchTaskRequest, s taskSink) error {
	return p.watch(p.peer.note(s.Context(), "WatchTask", req), req, s)
}

func taskEvent(sequence int64) *telexecv1.WatchTaskResponse {
	return &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Event{Event: &telexecv1.TaskEvent{TaskId: testID, Sequence: sequence}}}
}

func taskIs(t *telexecv1.Task) *telexecv1.WatchTaskResponse {
	return &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Task{Task: t}}
}

// watchTask reads a watch to its end, in short.
func watchTask(ctx context.Context, c *Client, req *telexecv1.WatchTaskRequest) (told []string, err error) {
	req.TaskId = testID
	for m, err := range c.WatchTask(ctx, req) {
		switch {
		case err != nil:
			return told, err
		case m.GetEvent() != nil:
			told = append(told, fmt.Sprint(m.GetEvent().GetSequence()))
		case m.GetTask() != nil:
			told = append(told, strings.ToLower(strings.TrimPrefix(m.GetTask().GetState().String(), "TASK_STATE_")))
		default:
			told = append(told, "heartbeat")
		}
	}
	return told, nil
}

func TestTaskCalls(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{})
	if r, err := c.GetTask(t.Context(), &telexecv1.GetTaskRequest{TaskId: testID}); err != nil || r.GetTask().GetId() != testID {
		t.Error(r, err)
	}
	if r, err := c.CancelTask(t.Context(), &telexecv1.CancelTaskRequest{TaskId: testID}); err != nil || !r.GetAlreadyEnded() {
		t.Error(r, err)
	}
	if r, err := c.UndoTask(t.Context(), &telexecv1.UndoTaskRequest{TaskId: testID}); err != nil || len(r.GetPreview()) != 1 {
		t.Error(r, err)
	}
	var ids []string
	for task, err := range c.ListTasks(t.Context(), &telexecv1.ListTasksRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, task.GetId())
	}
	if !slices.Equal(ids, []string{"1", "2"}) {
		t.Errorf("ids %q", ids)
	}
}

func TestSubmitTaskRunsOnceThoughTheAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.after = func(_ string, n int) error {
			if n < 4 {
				return dropped
			}
			return nil
		}
		req := &telexecv1.SubmitTaskRequest{Task: "roll out"}
		resp, err := p.dial(t, Options{}).SubmitTask(t.Context(), req)
		if err != nil || !resp.GetReplayed() {
			t.Fatal(resp, err)
		}
		if len(p.submitted) != 1 || p.count("SubmitTask") != 4 || req.GetRequestId() != "" {
			t.Errorf("submitted %v in %d calls, request id %q", p.submitted, p.count("SubmitTask"), req.GetRequestId())
		}
		p.after = func(string, int) error { return dropped }
		_, err = p.dial(t, Options{}).SubmitTask(t.Context(), &telexecv1.SubmitTaskRequest{RequestId: "mine"})
		if e, ok := asError(err); !ok || e.Reason != ReasonUnreachable || e.Metadata["request_id"] != "mine" {
			t.Errorf("got %#v", err)
		}
	})
}

// An undo that may have begun is not asked for again; a preview does no harm.
func TestUndoTaskIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.after = func(_ string, n int) error {
			if n == 3 {
				return nil
			}
			return dropped
		}
		c := p.dial(t, Options{})
		_, err := c.UndoTask(t.Context(), &telexecv1.UndoTaskRequest{TaskId: testID})
		if e, ok := asError(err); !ok || e.Metadata["in_doubt"] != "true" || p.undone != 1 || !strings.Contains(e.Hint, testID) {
			t.Errorf("%d times, %v", p.undone, err)
		}
		if _, err := c.UndoTask(t.Context(), &telexecv1.UndoTaskRequest{TaskId: testID, Preview: true}); err != nil || p.count("UndoTask") != 3 {
			t.Errorf("%d calls, %v", p.count("UndoTask"), err)
		}
	})
}

// A decision whose answer was lost is found among those that the approval holds.
func TestDecideTaskThoughTheAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.approvals = map[string]*telexecv1.Approval{testID: {CommandId: testID, State: telexecv1.ApprovalState_APPROVAL_STATE_PENDING, Revision: 1}}
		p.after = func(method string, n int) error {
			if method == "DecideTask" && n == 1 {
				return dropped
			}
			return nil
		}
		c := p.dial(t, Options{})
		yes := &telexecv1.DecideTaskRequest{TaskId: testID, ApprovalId: testID, Approved: new(true)}
		if r, err := c.DecideTask(t.Context(), yes); err != nil || len(r.GetApproval().GetDecisions()) != 1 || p.count("DecideTask") != 2 {
			t.Errorf("%v, %v after %d calls", r, err, p.count("DecideTask"))
		}
		// What somebody else has decided is not taken for this caller's.
		if _, err := c.DecideTask(t.Context(), &telexecv1.DecideTaskRequest{TaskId: testID, ApprovalId: testID, Approved: new(false)}); err == nil {
			t.Error("decided twice")
		}
	})
}

// Wherever the connection breaks, every event comes once and in its order, between the
// task as it was and as it has ended.
func TestWatchTaskResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		rng := rand.New(rand.NewPCG(3, 4))
		const events = 200
		cuts := 0
		p.watch = func(n int, req *telexecv1.WatchTaskRequest, s taskSink) error {
			if rng.IntN(4) == 0 {
				cuts++
				return dropped // before it has told anything
			}
			_ = s.Send(taskIs(p.task(taskRuns, events)))
			for i := req.GetAfter() + 1; i <= events; i++ {
				if rng.IntN(10) == 0 {
					cuts++
					switch n % 4 {
					case 0:
						return dropped
					case 1:
						return nil // ends too early
					case 2:
						<-s.Context().Done() // silence
						return s.Context().Err()
					}
					return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: "DRAINING"}, retryIn(time.Second))
				}
				if i > 1 && rng.IntN(10) == 0 {
					_ = s.Send(taskEvent(i - 1)) // once more
				}
				_ = s.Send(taskEvent(i))
			}
			if rng.IntN(2) == 0 {
				cuts++
				return dropped // between the last event and the end
			}
			return s.Send(taskIs(p.task(taskOver, events)))
		}
		want := []string{"running"}
		for i := range events {
			want = append(want, fmt.Sprint(i+1))
		}
		want = append(want, "completed")
		c := p.dial(t, Options{})
		told, err := watchTask(t.Context(), c, &telexecv1.WatchTaskRequest{Heartbeat: durationpb.New(time.Second)})
		if err != nil || !slices.Equal(told, want) {
			t.Errorf("told %v, %v", told, err)
		}
		if cuts < 10 {
			t.Errorf("cut %d times: the test tests little", cuts)
		}
		p.watch = func(_ int, req *telexecv1.WatchTaskRequest, s taskSink) error {
			_ = s.Send(taskIs(p.task(taskOver, events)))
			for i := req.GetAfter() + 1; i <= events; i++ {
				_ = s.Send(taskEvent(i))
			}
			return s.Send(taskIs(p.task(taskOver, events)))
		}
		if told, err = watchTask(t.Context(), c, &telexecv1.WatchTaskRequest{After: events - 1}); err != nil || !slices.Equal(told, []string{"completed", "200", "completed"}) {
			t.Errorf("of what has ended: %v, %v", told, err)
		}
	})
}

func TestWatchTaskEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c := p.dial(t, Options{ResumeFor: 5 * time.Second})
		p.watch = func(int, *telexecv1.WatchTaskRequest, taskSink) error {
			return refusal(codes.OutOfRange, &errdetails.ErrorInfo{Domain: domain, Reason: "EVENTS_UNKNOWN"})
		}
		_, err := watchTask(t.Context(), c, &telexecv1.WatchTaskRequest{After: 9})
		if e, ok := asError(err); !ok || e.Reason != "EVENTS_UNKNOWN" || e.Metadata["task_id"] != testID || p.count("WatchTask") != 1 {
			t.Errorf("%v after %d calls", err, p.count("WatchTask"))
		}
		p.watch = func(_ int, _ *telexecv1.WatchTaskRequest, s taskSink) error {
			_ = s.Send(taskIs(p.task(taskRuns, 5)))
			return s.Send(taskEvent(5))
		}
		_, err = watchTask(t.Context(), c, &telexecv1.WatchTaskRequest{})
		if e, ok := asError(err); !ok || e.Code != codes.DataLoss {
			t.Errorf("a hole: %v", err)
		}
		p.watch = func(_ int, _ *telexecv1.WatchTaskRequest, s taskSink) error {
			_ = s.Send(taskIs(p.task(taskRuns, 5)))
			return dropped
		}
		start := time.Now()
		told, err := watchTask(t.Context(), c, &telexecv1.WatchTaskRequest{})
		if err == nil || time.Since(start) > 6*time.Second || !slices.Equal(told, []string{"running"}) {
			t.Errorf("without progress: %v, %v after %v", told, err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.watch = func(_ int, _ *telexecv1.WatchTaskRequest, s taskSink) error {
			<-s.Context().Done()
			return s.Context().Err()
		}
		if _, err = watchTask(ctx, c, &telexecv1.WatchTaskRequest{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the end of the context: %v", err)
		}
		c.Close()
		synctest.Wait()
	})
}

// meets and tells are what a watch of all events says of a task.
func meets(id string, sequence int64) *telexecv1.WatchEventsResponse {
	return &telexecv1.WatchEventsResponse{Event: &telexecv1.WatchEventsResponse_Task{Task: &telexecv1.Task{Id: id, State: taskRuns, Sequence: sequence}}}
}

func tells(id string, sequence int64) *telexecv1.WatchEventsResponse {
	return tellsOf(id, sequence, taskRuns)
}

func tellsOf(id string, sequence int64, state telexecv1.TaskState) *telexecv1.WatchEventsResponse {
	return &telexecv1.WatchEventsResponse{Event: &telexecv1.WatchEventsResponse_TaskEvent{TaskEvent: &telexecv1.TaskEvent{TaskId: id, Sequence: sequence, State: state}}}
}

// Events of tasks go on behind a loss where they were, of each task. One that is gone is
// forgotten: an admin is told that it is not known, all others that they have no access.
func TestEventsResumeTasks(t *testing.T) {
	for reason, code := range map[string]codes.Code{"UNKNOWN_TASK": codes.NotFound, "ACCESS_DENIED": codes.PermissionDenied} {
		t.Run(reason, func(t *testing.T) { testEventsResumeTasks(t, reason, code) })
	}
}

func testEventsResumeTasks(t *testing.T, gone string, code codes.Code) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		const old, fresh, removed = "01J8Z3K4M5N6P7Q8R9S0T1V2W4", "01J8Z3K4M5N6P7Q8R9S0T1V2W5", "01J8Z3K4M5N6P7Q8R9S0T1V2W6"
		var asked []map[string]int64
		p.events = func(n int, req *telexecv1.WatchEventsRequest, s eventSink) error {
			asked = append(asked, maps.Clone(req.GetTaskSequences()))
			say := func(events ...*telexecv1.WatchEventsResponse) {
				for _, e := range events {
					if err := s.Send(e); err != nil {
						t.Error(err)
					}
				}
			}
			switch n {
			case 1: // event 8 of old had come between its being found and its being read
				say(meets(testID, 4), tells(testID, 4), meets(old, 8), meets(removed, 2), tells(old, 8), synced(0), meets(fresh, 1), tells(fresh, 1), tells(fresh, 2))
				return dropped
			case 2:
				return refusal(code, &errdetails.ErrorInfo{Domain: domain, Reason: gone, Metadata: map[string]string{"task_id": removed}})
			}
			say(meets(testID, 5), tells(testID, 5), meets(old, 8), meets(fresh, 3), tells(fresh, 2), tells(fresh, 3), synced(0), tells(old, 9))
			<-s.Context().Done()
			return s.Context().Err()
		}
		c := p.dial(t, Options{})
		var told []string
		for event, err := range c.Events(t.Context(), &telexecv1.WatchEventsRequest{TaskSequences: map[string]int64{testID: 3}}) {
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case event.GetTask() != nil:
				told = append(told, "meet "+event.GetTask().GetId()[25:])
			case event.GetTaskEvent() != nil:
				told = append(told, fmt.Sprint(event.GetTaskEvent().GetTaskId()[25:], ":", event.GetTaskEvent().GetSequence()))
			}
			if len(told) == 11 {
				break
			}
		}
		want := []string{"meet " + testID[25:], testID[25:] + ":4", "meet 4", "meet 6", "4:8", "meet 5", "5:1", "5:2", testID[25:] + ":5", "5:3", "4:9"}
		if !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		if want := []map[string]int64{{testID: 3}, {testID: 4, old: 8, removed: 2, fresh: 2}, {testID: 4, old: 8, fresh: 2}}; !slices.EqualFunc(asked, want, maps.Equal) {
			t.Errorf("asked %v", asked)
		}
		c.Close()
		synctest.Wait()
	})
}

// What the caller has named itself and may not see is the caller's error, and so is what is
// said of no task.
func TestEventsOfTasksThatAreNotThere(t *testing.T) {
	for _, tt := range []struct {
		reason string
		code   codes.Code
		of     map[string]string
	}{
		{"UNKNOWN_TASK", codes.NotFound, map[string]string{"task_id": testID}},
		{"ACCESS_DENIED", codes.PermissionDenied, map[string]string{"task_id": testID}},
		{"ACCESS_DENIED", codes.PermissionDenied, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			p.events = func(int, *telexecv1.WatchEventsRequest, eventSink) error {
				return refusal(tt.code, &errdetails.ErrorInfo{Domain: domain, Reason: tt.reason, Metadata: tt.of})
			}
			c := p.dial(t, Options{})
			_, err := happens(t.Context(), c, &telexecv1.WatchEventsRequest{TaskSequences: map[string]int64{testID: 3}}, 1)
			if e, ok := asError(err); !ok || e.Reason != tt.reason || p.count("WatchEvents") != 1 {
				t.Errorf("%v after %d calls", err, p.count("WatchEvents"))
			}
			c.Close()
			synctest.Wait()
		})
	}
}

// However many tasks are told, the service is asked to go on with no more than it takes:
// those that were told last, and few of those that have ended.
func TestEventsRememberSoManyTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		id := func(n int) string { return fmt.Sprintf("01J8Z3K4M5N6P7Q8R9S0T1%04d", n) }
		const some = 1200
		var asked []map[string]int64
		p.events = func(n int, req *telexecv1.WatchEventsRequest, s eventSink) error {
			asked = append(asked, maps.Clone(req.GetTaskSequences()))
			say := func(e *telexecv1.WatchEventsResponse) {
				if err := s.Send(e); err != nil {
					t.Error(err)
				}
			}
			switch n {
			case 1:
				say(synced(0))
				for i := range some {
					say(meets(id(i), 1))
					say(tells(id(i), 1))
					say(tells(id(0), int64(i)+2)) // something happens to it all the time
				}
			case 2: // now all but the first and the last end
				say(synced(0))
				for i := 1; i < some-1; i++ {
					say(tellsOf(id(i), 2, taskOver))
				}
				say(tellsOf(id(some-2), 3, telexecv1.TaskState_TASK_STATE_UNDOING)) // it has not, after all
			default:
				say(heartbeat(1))
				<-s.Context().Done()
				return s.Context().Err()
			}
			return dropped
		}
		c := p.dial(t, Options{})
		for event, err := range c.Events(t.Context(), &telexecv1.WatchEventsRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			if event.GetHeartbeat() != nil {
				break
			}
		}
		if len(asked) != 3 {
			t.Fatalf("asked %d times", len(asked))
		}
		if is := asked[1]; len(is) != 1000 || is[id(0)] != some+1 || is[id(some-1)] != 1 || is[id(some-999)] != 1 {
			t.Errorf("%d tasks, of the first %d, of the last %d, of the first that is left %d", len(is), is[id(0)], is[id(some-1)], is[id(some-999)])
		}
		// Of the last 100 that have ended one is undone; and two run.
		if is := asked[2]; len(is) != overKept+2 || is[id(0)] == 0 || is[id(some-1)] != 1 || is[id(some-2)] != 3 || is[id(some-1-overKept)] != 2 {
			t.Errorf("%d tasks", len(is))
		}
		c.Close()
		synctest.Wait()
	})
}
