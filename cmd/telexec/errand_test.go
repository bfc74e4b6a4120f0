package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/screen"
)

// errand is a service that has one task, as a test wants it: what a real one tells only at
// the right moment.
type errand struct {
	telexecv1.UnimplementedTaskServiceServer

	first *telexecv1.GetTaskResponse // before it is waited for, and as it begins to be undone
	gets  []*telexecv1.GetTaskResponse
	last  *telexecv1.Task // as it ends; nil: it does not

	mu    sync.Mutex
	asked []*telexecv1.GetTaskRequest
	list  *telexecv1.ListTasksRequest
}

// start serves on loopback and gives an invocation that asks there.
func (s *errand) start(t *testing.T) *invocation {
	t.Helper()
	return (&scripted{errand: s}).start(t)
}

func (s *errand) SubmitTask(context.Context, *telexecv1.SubmitTaskRequest) (*telexecv1.SubmitTaskResponse, error) {
	return &telexecv1.SubmitTaskResponse{Task: s.first.GetTask(), Replayed: true}, nil
}

// GetTask gives first, and to who waits one after the other of gets.
func (s *errand) GetTask(_ context.Context, req *telexecv1.GetTaskRequest) (*telexecv1.GetTaskResponse, error) {
	if req.GetWait() == nil {
		return s.first, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, req)
	return s.gets[len(s.asked)-1], nil
}

func (s *errand) ListTasks(_ context.Context, req *telexecv1.ListTasksRequest) (*telexecv1.ListTasksResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = req
	return &telexecv1.ListTasksResponse{}, nil
}

func (s *errand) UndoTask(context.Context, *telexecv1.UndoTaskRequest) (*telexecv1.UndoTaskResponse, error) {
	return &telexecv1.UndoTaskResponse{Task: s.first.GetTask()}, nil
}

func (s *errand) WatchTask(_ *telexecv1.WatchTaskRequest, out grpc.ServerStreamingServer[telexecv1.WatchTaskResponse]) error {
	for _, t := range []*telexecv1.Task{s.first.GetTask(), s.last} {
		if t == nil {
			<-out.Context().Done()
			return nil
		}
		if err := out.Send(&telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Task{Task: t}}); err != nil {
			return err
		}
	}
	return nil
}

const (
	taskRuns     = telexecv1.TaskState_TASK_STATE_RUNNING
	taskWaits    = telexecv1.TaskState_TASK_STATE_AWAITING_APPROVAL
	taskUndoes   = telexecv1.TaskState_TASK_STATE_UNDOING
	taskComplete = telexecv1.TaskState_TASK_STATE_COMPLETED
	taskFailed   = telexecv1.TaskState_TASK_STATE_FAILED

	isUndone      = telexecv1.UndoState_UNDO_STATE_UNDONE
	undoCancelled = telexecv1.UndoState_UNDO_STATE_CANCELLED
	undoFailed    = telexecv1.UndoState_UNDO_STATE_UNDO_FAILED
)

// Who follows an undo is told what has come of that, and not what the task had come to
// before, which it goes back to where it is undone in part.
func TestUndoIsJudgedByItself(t *testing.T) {
	cancelled := &telexecv1.Cancellation{By: &telexecv1.Actor{Principal: "ann"}, Reason: "no"}
	follow := [][]string{{"task", "undo", "--yes", someID, "a"}, {"task", "watch", someID}, {"task", "get", "--wait", someID}, {"task", "submit", "-"}}
	for _, tt := range []struct {
		name string
		last *telexecv1.Task
		code int
		says string
	}{
		{"one step of a failed one", &telexecv1.Task{State: taskFailed, Undo: &telexecv1.TaskUndo{State: isUndone}}, 0, ""},
		{"one step", &telexecv1.Task{State: taskComplete, Undo: &telexecv1.TaskUndo{State: isUndone}}, 0, ""},
		{"all", &telexecv1.Task{State: telexecv1.TaskState_TASK_STATE_UNDONE, Undo: &telexecv1.TaskUndo{State: isUndone}}, 0, ""},
		{"cancelled", &telexecv1.Task{State: taskComplete, Undo: &telexecv1.TaskUndo{State: undoCancelled, Cancellation: cancelled}}, 1, "the undo of task " + someID + " was cancelled by ann: no"},
		{"failed", &telexecv1.Task{State: telexecv1.TaskState_TASK_STATE_UNDO_FAILED, Undo: &telexecv1.TaskUndo{State: undoFailed}}, 1, "could not be undone as a whole"},
		{"by itself", &telexecv1.Task{State: taskFailed, Undo: &telexecv1.TaskUndo{State: isUndone, Automatic: true}}, 1, "has failed"},
	} {
		for _, args := range follow {
			t.Run(tt.name+"/"+args[1], func(t *testing.T) {
				tt.last.Id = someID
				s := &errand{last: tt.last, gets: []*telexecv1.GetTaskResponse{{Task: tt.last}}, first: &telexecv1.GetTaskResponse{
					Task: &telexecv1.Task{Id: someID, State: taskUndoes, Undo: &telexecv1.TaskUndo{State: telexecv1.UndoState_UNDO_STATE_RUNNING, Automatic: tt.last.GetUndo().GetAutomatic()}},
				}}
				i := s.start(t)
				i.stdin = strings.NewReader(`{"task": "x", "steps": [{"host": "web1", "command": "id"}]}`)
				code := i.run(t.Context(), args...)
				want := tt.code
				if tt.name == "by itself" && args[1] == "undo" {
					want = 0 // there is no such thing
				}
				if code != want || want > 0 && !strings.Contains(i.stderr.String(), tt.says) {
					t.Errorf("code %d, want %d; %s", code, want, i.stderr.String())
				}
			})
		}
	}
	// Who has not begun to follow an undo is told what the task has come to.
	s := &errand{first: &telexecv1.GetTaskResponse{Task: &telexecv1.Task{Id: someID, State: taskFailed, Undo: &telexecv1.TaskUndo{State: isUndone}}}}
	s.last, s.gets = s.first.GetTask(), []*telexecv1.GetTaskResponse{s.first}
	for _, args := range follow[1:3] {
		i := s.start(t)
		if code := i.run(t.Context(), args...); code != 1 || !strings.Contains(i.stderr.String(), "has failed") {
			t.Errorf("%s: code %d, %s", args, code, i.stderr.String())
		}
		s.asked = nil
	}
}

// A wait is for the end, for something to decide, or for the next step.
func TestTaskGetUntil(t *testing.T) {
	is := func(state telexecv1.TaskState, step int32, approvals ...*telexecv1.Approval) *telexecv1.GetTaskResponse {
		return &telexecv1.GetTaskResponse{Task: &telexecv1.Task{Id: someID, State: state, CurrentStep: step, Version: 7 + int64(step)}, Approvals: approvals}
	}
	late := func(r *telexecv1.GetTaskResponse) *telexecv1.GetTaskResponse {
		r.StillWaiting = true
		return r
	}
	waits := &telexecv1.Approval{CommandId: someID, Step: "ask", RequiredApprovals: 1}
	for _, tt := range []struct {
		name  string
		args  []string
		gets  []*telexecv1.GetTaskResponse
		until telexecv1.TaskWait
		asked int
		code  int
		says  string
	}{
		{"end", nil, []*telexecv1.GetTaskResponse{late(is(taskRuns, 0)), late(is(taskRuns, 1)), is(taskComplete, 1)}, telexecv1.TaskWait_TASK_WAIT_ENDED, 3, 0, "completed"},
		{"the end, said", []string{"--until", "end"}, []*telexecv1.GetTaskResponse{is(taskFailed, 1)}, telexecv1.TaskWait_TASK_WAIT_ENDED, 1, 1, "failed"},
		{"approval", []string{"--until", "approval"}, []*telexecv1.GetTaskResponse{late(is(taskRuns, 1)), is(taskWaits, 1, waits)}, telexecv1.TaskWait_TASK_WAIT_APPROVAL, 2, 0, "telexec approvals show " + someID},
		{"decided meanwhile", []string{"--until=approval"}, []*telexecv1.GetTaskResponse{is(taskRuns, 1), is(taskWaits, 2, waits)}, telexecv1.TaskWait_TASK_WAIT_APPROVAL, 2, 0, "telexec approvals show " + someID},
		{"no approval", []string{"--until=approval"}, []*telexecv1.GetTaskResponse{is(taskComplete, 1)}, telexecv1.TaskWait_TASK_WAIT_APPROVAL, 1, 0, "completed"},
		{"failed before an approval", []string{"--until=approval"}, []*telexecv1.GetTaskResponse{is(taskFailed, 1)}, telexecv1.TaskWait_TASK_WAIT_APPROVAL, 1, 1, "failed"},
		{"step", []string{"--until", "step"}, []*telexecv1.GetTaskResponse{late(is(taskRuns, 0)), is(taskRuns, 1)}, telexecv1.TaskWait_TASK_WAIT_STEP, 2, 0, "running"},
		{"step between two questions", []string{"--until", "step"}, []*telexecv1.GetTaskResponse{late(is(taskRuns, 1))}, telexecv1.TaskWait_TASK_WAIT_STEP, 1, 0, "running"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &errand{first: is(taskRuns, 0), gets: tt.gets}
			i := s.start(t)
			code := i.run(t.Context(), append([]string{"task", "get", "--wait", someID}, tt.args...)...)
			if code != tt.code || !strings.Contains(i.stdout.String(), tt.says) || len(s.asked) != tt.asked || s.asked[0].GetUntil() != tt.until {
				t.Errorf("code %d, asked %v\n%s%s", code, s.asked, i.stdout.String(), i.stderr.String())
			}
		})
	}
}

// On a terminal what a task waits for already is told at once.
func TestTaskThatWaitsIsWatched(t *testing.T) {
	waits := &telexecv1.GetTaskResponse{
		Task: &telexecv1.Task{Id: someID, Task: "roll out", State: taskWaits, Steps: []*telexecv1.Step{
			{Name: "ask", State: stepAwaits, Runs: []*telexecv1.StepRun{{Host: "web1", State: stepAwaits, CommandId: someID}}},
		}},
		Approvals: []*telexecv1.Approval{{CommandId: someID, Step: "ask", RequiredApprovals: 2, Roles: []string{"approver"}, ExpireTime: timestamppb.New(time.Now().Add(time.Hour))}},
	}
	for _, args := range [][]string{{"task", "watch", someID}, {"task", "submit", "--request-id", "r1"}} {
		if args[1] == "submit" {
			args = append(args, writePlan(t, "task: roll out\nsteps:\n  - {name: ask, host: web1, command: id}\n"))
		}
		t.Run(args[1], func(t *testing.T) {
			i := (&errand{first: waits}).start(t)
			i.signals = make(chan os.Signal, 1)
			_, out, wait := i.startOnTerminal(t, args...)
			tty := &seen{out, screen.New(111, 33, 1000)}
			tty.shows(t, "? ask", "waits for approval by 2 approvers until ")
			i.signals <- syscall.SIGINT
			if code := wait(); code != 130 {
				t.Errorf("code %d", code)
			}
		})
	}
}

// Lists take times from and to, as the history does.
func TestTimesOfLists(t *testing.T) {
	s := &errand{}
	i := s.start(t)
	if code := i.run(t.Context(), "task", "ls", "--since", "2026-01-02", "--before", "2026-02-03T04:05:06Z"); code != 0 {
		t.Fatal(i.stderr.String())
	}
	from := time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local)
	to := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	if !s.list.GetDateFrom().AsTime().Equal(from) || !s.list.GetDateTo().AsTime().Equal(to) {
		t.Errorf("asked from %v to %v", s.list.GetDateFrom().AsTime(), s.list.GetDateTo().AsTime())
	}
	commands := &scripted{}
	i = commands.start(t)
	if code := i.run(t.Context(), "history", "--before", "2026-02-03T04:05:06Z"); code != 0 {
		t.Fatal(i.stderr.String())
	}
	if !commands.listed.GetCreateTimeTo().AsTime().Equal(to) || commands.listed.GetCreateTimeFrom() != nil {
		t.Errorf("asked %v", commands.listed)
	}
}
