package mcptool

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

func (s *service) toldPlan() *telexecv1.Task {
	if s.plan != nil {
		return s.plan
	}
	return planned(telexecv1.TaskState_TASK_STATE_COMPLETED, stepOn("one", telexecv1.StepState_STEP_STATE_COMPLETED, "web1"))
}

// planned is a task in a state.
func planned(state telexecv1.TaskState, steps ...*telexecv1.Step) *telexecv1.Task {
	return &telexecv1.Task{
		Id: testID, Version: 7, State: state, Task: "roll out", Steps: steps, CreateTime: timestamppb.Now(),
		CreatedBy: &telexecv1.Actor{Principal: "admin", Origin: telexecv1.Origin_ORIGIN_MCP},
	}
}

// stepOn is a step that is in one state on some hosts.
func stepOn(name string, state telexecv1.StepState, hosts ...string) *telexecv1.Step {
	s := &telexecv1.Step{Name: name, Command: "do " + name, Undo: "undo " + name, OnFailure: "stop", State: state}
	for _, h := range hosts {
		s.Runs = append(s.Runs, &telexecv1.StepRun{Host: h, State: state, CommandId: testID})
	}
	return s
}

func (s *service) SubmitTask(context.Context, *telexecv1.SubmitTaskRequest) (*telexecv1.SubmitTaskResponse, error) {
	if s.refusePlan != nil {
		return nil, s.refusePlan()
	}
	return &telexecv1.SubmitTaskResponse{Task: s.toldPlan()}, nil
}

// GetTask waits, where that is asked, until the time is over: a task here does not change.
func (s *service) GetTask(ctx context.Context, req *telexecv1.GetTaskRequest) (*telexecv1.GetTaskResponse, error) {
	if s.refusePlan != nil {
		return nil, s.refusePlan()
	}
	t := s.toldPlan()
	if s.later != nil {
		t = s.later
	}
	late := req.GetWait().AsDuration() > 0 && !taskEnded(t)
	if late {
		select {
		case <-time.After(req.GetWait().AsDuration()):
		case <-ctx.Done():
		}
	}
	return &telexecv1.GetTaskResponse{Task: t, Approvals: s.approvals, StillWaiting: late}, nil
}

func (s *service) ListTasks(context.Context, *telexecv1.ListTasksRequest) (*telexecv1.ListTasksResponse, error) {
	return &telexecv1.ListTasksResponse{Tasks: []*telexecv1.Task{s.toldPlan()}}, nil
}

func (s *service) CancelTask(context.Context, *telexecv1.CancelTaskRequest) (*telexecv1.CancelTaskResponse, error) {
	return &telexecv1.CancelTaskResponse{Task: s.toldPlan()}, nil
}

func (s *service) UndoTask(context.Context, *telexecv1.UndoTaskRequest) (*telexecv1.UndoTaskResponse, error) {
	if s.refusePlan != nil {
		return nil, s.refusePlan()
	}
	return &telexecv1.UndoTaskResponse{Task: s.toldPlan(), Preview: s.undoes}, nil
}

func (s *service) WatchTask(req *telexecv1.WatchTaskRequest, out grpc.ServerStreamingServer[telexecv1.WatchTaskResponse]) error {
	p := &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Task{Task: s.toldPlan()}}
	for _, e := range s.events {
		if err := out.Send(p); err != nil {
			return err
		}
		p = &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Event{Event: e}}
	}
	for {
		if err := out.Send(p); err != nil {
			return err
		}
		select {
		case <-time.After(req.GetHeartbeat().AsDuration()):
		case <-out.Context().Done():
			return out.Context().Err()
		}
		p = &telexecv1.WatchTaskResponse{Response: &telexecv1.WatchTaskResponse_Heartbeat{Heartbeat: &telexecv1.TaskHeartbeat{}}}
	}
}
