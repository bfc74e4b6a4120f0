package bench

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

var (
	taskHistory = flag.Int("bench.task.history", 300, "tasks that have ended before simple calls are measured")
	taskCalls   = flag.Int("bench.task.calls", 20, "calls of each kind")
)

// slots are the tasks that run while the history is made, so that none of that runs.
const slots = 4

// simple are the simple calls of tasks, each by what it asks for.
type simple struct {
	tasks     telexecv1.TaskServiceClient
	approvals telexecv1.ApprovalServiceClient
	ids       []string
	waiting   []string // commands that wait for a yes
}

// TestTasks measures simple calls about tasks with a short history, and with a long one:
// what they cost does not grow with it.
func TestTasks(t *testing.T) {
	env := testenv.Start(t, testenv.WithMaxCommands(10), testenv.WithConfig(fmt.Sprintf(
		"tasks: {max_running: %d}\nlimits: {max_awaiting_approval: 10000}\nrate_limits:\n  principal: {start: 1000000, read: 1000000, list: 1000000}\n  address: {start: 1000000, read: 1000000, list: 1000000}", slots)))
	conn := env.As(env.Key("agent", "operator"))
	s := &simple{tasks: telexecv1.NewTaskServiceClient(conn), approvals: telexecv1.NewApprovalServiceClient(env.As(env.Key("anna", "approver")))}
	ctx := t.Context()
	var blockers []string
	for range slots {
		blockers = append(blockers, s.submit(ctx, t, env.Host, "sleep 1000000", false))
	}
	short := max(*taskHistory/100, 20)
	s.history(t, env.Host, short)
	before := s.measure(t, "history of", short)
	s.history(t, env.Host, *taskHistory-short)
	after := s.measure(t, "history of", *taskHistory)
	for _, call := range []string{"list", "list of a conversation", "list of a state", "list of nothing", "get"} {
		t.Logf("%-24s %d tasks cost %.2f times what %d do (p50)", call, *taskHistory, float64(percentile(after[call], 50))/float64(percentile(before[call], 50)), short)
	}
	for _, id := range blockers {
		if _, err := s.tasks.CancelTask(ctx, &telexecv1.CancelTaskRequest{TaskId: id}); err != nil {
			t.Fatal(err)
		}
	}
	s.gates(ctx, t, env.Host, *taskCalls)
	var took []time.Duration
	for _, id := range s.waiting {
		a, err := s.approvals.GetApproval(ctx, &telexecv1.GetApprovalRequest{CommandId: id})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := s.approvals.DecideApprovals(ctx, &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{{
			CommandId: id, Verdict: telexecv1.Verdict_VERDICT_APPROVE, RequestHash: a.GetApproval().GetRequestHash(),
		}}}); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	tellTimes(t, "approve", took)
}

func tellTimes(t *testing.T, call string, took []time.Duration) {
	t.Helper()
	t.Logf("%-24s p50 %6.2f ms   p99 %6.2f ms   of %d", call, ms(percentile(took, 50)), ms(percentile(took, 99)), len(took))
}

func (s *simple) submit(ctx context.Context, t *testing.T, host, line string, gate bool) string {
	r := &telexecv1.SubmitTaskRequest{Task: "a task of the history", ConversationId: fmt.Sprint("c", rand.IntN(50)), Steps: []*telexecv1.StepSpec{
		{Host: host, Command: line, NeedsApproval: gate}, {Host: host, Command: "true", Undo: "true"}, {Host: host, Command: "true"},
	}}
	got, err := s.tasks.SubmitTask(ctx, r)
	if err != nil {
		t.Error(err)
	}
	return got.GetTask().GetId()
}

// history makes so many tasks that have ended: all slots being taken, they are
// cancelled before they have begun.
func (s *simple) history(t *testing.T, host string, n int) {
	t.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var callers sync.WaitGroup
	var mu sync.Mutex
	for range 32 {
		callers.Go(func() {
			for left.Add(-1) >= 0 && !t.Failed() {
				id := s.submit(t.Context(), t, host, "true", false)
				if _, err := s.tasks.CancelTask(t.Context(), &telexecv1.CancelTaskRequest{TaskId: id}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				s.ids = append(s.ids, id)
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// measure makes each call so many times, one after the other.
func (s *simple) measure(t *testing.T, what string, n int) map[string][]time.Duration {
	t.Helper()
	t.Logf("%s %d tasks:", what, n)
	ctx, took := t.Context(), make(map[string][]time.Duration)
	list := func(r *telexecv1.ListTasksRequest) func() error {
		return func() error { _, err := s.tasks.ListTasks(ctx, r); return err }
	}
	calls := []struct {
		name string
		do   func() error
	}{
		{"get", func() error {
			_, err := s.tasks.GetTask(ctx, &telexecv1.GetTaskRequest{TaskId: s.ids[rand.IntN(len(s.ids))]})
			return err
		}},
		{"list", list(&telexecv1.ListTasksRequest{})},
		{"list of a state", list(&telexecv1.ListTasksRequest{Status: "running"})},
		{"list of a conversation", list(&telexecv1.ListTasksRequest{ConversationId: "c7"})},
		{"list of nothing", list(&telexecv1.ListTasksRequest{ConversationId: "nothing", Status: "failed"})},
		{"submit", func() error {
			id := s.submit(ctx, t, "web1", "true", false)
			s.ids = append(s.ids, id)
			return nil
		}},
		{"cancel", func() error {
			_, err := s.tasks.CancelTask(ctx, &telexecv1.CancelTaskRequest{TaskId: s.ids[len(s.ids)-1-len(took["cancel"])]})
			return err
		}},
	}
	for _, c := range calls {
		for range *taskCalls {
			begin := time.Now()
			if err := c.do(); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			took[c.name] = append(took[c.name], time.Since(begin))
		}
		tellTimes(t, c.name, took[c.name])
	}
	return took
}

// gates has so many tasks wait for a yes.
func (s *simple) gates(ctx context.Context, t *testing.T, host string, n int) {
	t.Helper()
	for range n {
		got, err := s.tasks.GetTask(ctx, &telexecv1.GetTaskRequest{
			TaskId: s.submit(ctx, t, host, "true", true), Until: telexecv1.TaskWait_TASK_WAIT_APPROVAL, Wait: durationpb.New(time.Minute),
		})
		if err != nil || len(got.GetApprovals()) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		s.waiting = append(s.waiting, got.GetApprovals()[0].GetId())
	}
}
