package client_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/pkg/client"
)

// breaker is a way to a service that cuts each connection somewhere: after a random
// number of bytes from the service.
type breaker struct {
	addr string
	cuts atomic.Int64
}

func startBreaker(t *testing.T, target string, most int64) *breaker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &breaker{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn // under mu
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, near, far)
			mu.Unlock()
			wg.Go(func() {
				after := 1 + rand.Int64N(most)
				if n, _ := io.CopyN(near, far, after); n == after {
					b.cuts.Add(1)
				}
				near.Close()
				far.Close()
			})
			wg.Go(func() {
				_, _ = io.Copy(far, near)
				near.Close()
				far.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return b
}

func hasReason(err error, reason string) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Reason == reason
}

// TestWatchTaskOverARealService: over a connection that is cut at random moments, and over
// a restart of the service, every event comes once and in its order.
func TestWatchTaskOverARealService(t *testing.T) {
	service := testenv.Start(t)
	way := startBreaker(t, service.GRPCAddr, 12_000)
	dial := func(addr string) *client.Client {
		c, err := client.Dial(client.Options{Server: addr, Token: client.Token(service.Token.Reveal())})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	decider := client.WithToken(t.Context(), client.Token(service.Key("bob", "approver").Reveal()))
	broken, whole := dial(way.addr), dial(service.GRPCAddr)
	req := &telexecv1.SubmitTaskRequest{Task: "many steps", Labels: map[string]string{"test": "watch"}}
	const steps = 12
	for i := range steps {
		s := &telexecv1.StepSpec{Name: fmt.Sprintf("s%02d", i), Host: service.Host, Command: "sleep 0.1", Undo: "true"}
		if i == steps/2 {
			s.NeedsApproval = true
		}
		req.Steps = append(req.Steps, s)
	}
	submitted, err := broken.SubmitTask(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	id := submitted.GetTask().GetId()
	tasks := 0
	for task, err := range whole.ListTasks(t.Context(), &telexecv1.ListTasksRequest{Labels: req.GetLabels()}) {
		if err != nil || task.GetId() != id {
			t.Errorf("there is %v, %v", task.GetId(), err)
		}
		tasks++
	}
	if tasks != 1 {
		t.Errorf("%d tasks of one submit", tasks)
	}

	watch := func(after int64) (last *telexecv1.Task) {
		t.Helper()
		first := after
		for m, err := range broken.WatchTask(t.Context(), &telexecv1.WatchTaskRequest{TaskId: id, After: after}) {
			if err != nil {
				t.Fatal(err)
			}
			last = m.GetTask()
			e := m.GetEvent()
			if e == nil {
				continue
			}
			if after++; e.GetSequence() != after || e.GetTaskId() != id {
				t.Fatalf("event %d of %s, want %d of %s", e.GetSequence(), e.GetTaskId(), after, id)
			}
			if e.GetType() == "approval_request" {
				for what, req := range map[string]*telexecv1.DecideTaskRequest{
					"neither yes nor no":      {},
					"what runs instead of no": {Approved: new(false), ModifiedParameters: &telexecv1.ModifiedRequest{Command: "true"}},
				} {
					req.TaskId, req.ApprovalId = id, e.GetApprovalId()
					if _, err := whole.DecideTask(decider, req); !hasReason(err, "INVALID_REQUEST") {
						t.Errorf("%s: %v", what, err)
					}
				}
				service.Restart()
				if _, err := whole.DecideTask(decider, &telexecv1.DecideTaskRequest{TaskId: id, ApprovalId: e.GetApprovalId(), Approved: new(true)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if last.GetSequence() != after || after == first {
			t.Fatalf("ended behind event %d, with %v", after, last)
		}
		return last
	}
	last := watch(0)
	if last.GetState() != telexecv1.TaskState_TASK_STATE_COMPLETED {
		t.Fatalf("it has ended as %v", last)
	}

	preview, err := broken.UndoTask(t.Context(), &telexecv1.UndoTaskRequest{TaskId: id, Preview: true})
	if err != nil || len(preview.GetPreview()) != steps || preview.GetPreview()[0].GetStep() != "s11" {
		t.Fatalf("%v, %v", preview, err)
	}
	if _, err := whole.UndoTask(t.Context(), &telexecv1.UndoTaskRequest{TaskId: id}); err != nil {
		t.Fatal(err)
	}
	last = watch(last.GetSequence())
	if last.GetState() != telexecv1.TaskState_TASK_STATE_UNDONE {
		t.Errorf("the undo has ended as %v", last)
	}
	watch(0) // all of it once more
	if way.cuts.Load() < 3 {
		t.Errorf("cut %d times: the test tests little", way.cuts.Load())
	}

	// The same of all events, of which those of the task are told.
	var got []int64
	for event, err := range broken.Events(t.Context(), &telexecv1.WatchEventsRequest{TaskSequences: map[string]int64{id: 0}, Labels: req.GetLabels()}) {
		if err != nil {
			t.Fatal(err)
		}
		if e := event.GetTaskEvent(); e != nil {
			got = append(got, e.GetSequence())
		}
		if len(got) == int(last.GetSequence()) {
			break
		}
	}
	if !slices.IsSorted(got) || len(slices.Compact(got)) != int(last.GetSequence()) {
		t.Errorf("among all events: %v", got)
	}
	t.Logf("%d events, %d cuts", last.GetSequence(), way.cuts.Load())
}
