package main

import (
	"maps"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/telexec/telexec/gen/telexec/v1"
)

const exampleTaskID = "01KAJ2S9Q7R8S9T0V1W2X3Y4Z5"

// Each call of TaskService has a second path, under /api/agent, with the number 1.

func taskRequests() map[string]proto.Message {
	all := map[string]proto.Message{
		"TaskService_SubmitTask": &pb.SubmitTaskRequest{
			Task: "roll out 2.4", Priority: 5, RequestId: "rollout-2.4", Labels: map[string]string{"app": "shop"},
			Steps: []*pb.StepSpec{
				{Name: "stop", Host: "web1", Command: "systemctl stop shop", Undo: "systemctl start shop", OnFailure: "undo"},
				{Name: "upgrade", Host: "web1", Command: "apt-get install -y shop=2.4", NeedsApproval: true, Undo: "apt-get install -y --allow-downgrades shop=2.3", OnFailure: "undo"},
			},
		},
		"TaskService_GetTask":    &pb.GetTaskRequest{TaskId: exampleTaskID, Wait: durationpb.New(30 * time.Second), Until: pb.TaskWait_TASK_WAIT_APPROVAL},
		"TaskService_ListTasks":  &pb.ListTasksRequest{Status: "running,awaiting_approval", Limit: 20, Offset: 20, DateFrom: timestamppb.New(exampleStart.Add(-24 * time.Hour)), DateTo: timestamppb.New(exampleStart)},
		"TaskService_CancelTask": &pb.CancelTaskRequest{TaskId: exampleTaskID, Reason: "wrong version"},
		"TaskService_UndoTask":   &pb.UndoTaskRequest{TaskId: exampleTaskID, StepId: "upgrade", Reason: "errors in the log"},
		"TaskService_DecideTask": &pb.DecideTaskRequest{
			TaskId: exampleTaskID, ApprovalId: exampleID, Approved: new(true), Message: "in the window",
			ModifiedParameters: &pb.ModifiedRequest{Command: "apt-get install -y shop=2.4.1"}, RequestHash: exampleHash(1),
		},
	}
	twice(all)
	all["TaskService_WatchTask"] = &pb.WatchTaskRequest{TaskId: exampleTaskID, After: 12}
	return all
}

func taskResponses(waits, decided *pb.Approval) map[string]proto.Message {
	queued, running, cancelled, undoing := exampleTask(), exampleTask(), exampleTask(), exampleTask()

	queued.State, queued.StartTime, queued.Sequence, queued.Version = pb.TaskState_TASK_STATE_QUEUED, nil, 1, 1
	queued.Percent, queued.CurrentStep = 0, 0
	queued.Queue = &pb.Queue{Position: 1, EstimatedWait: durationpb.New(40 * time.Second), WaitsFor: "tasks"}
	for _, s := range queued.Steps {
		s.State, s.Percent, s.StartTime, s.EndTime = pb.StepState_STEP_STATE_PENDING, 0, nil, nil
		s.Runs = []*pb.StepRun{{Host: "web1", State: s.State}}
	}

	cancelled.State, cancelled.EndTime = pb.TaskState_TASK_STATE_CANCELLED, timestamppb.New(exampleStart.Add(time.Minute))
	cancelled.Cancellation = &pb.Cancellation{By: cancelled.GetCreatedBy(), Time: cancelled.GetEndTime(), Reason: "wrong version"}
	cancelled.Steps[1].State, cancelled.Steps[1].Runs[0].State = pb.StepState_STEP_STATE_CANCELLED, pb.StepState_STEP_STATE_CANCELLED

	undoing.State, undoing.Outcome = pb.TaskState_TASK_STATE_UNDOING, pb.TaskState_TASK_STATE_COMPLETED
	undoing.Undo = &pb.TaskUndo{State: pb.UndoState_UNDO_STATE_RUNNING, By: undoing.GetCreatedBy(), Time: timestamppb.New(exampleStart.Add(time.Hour)), Reason: "errors in the log"}
	for _, s := range undoing.Steps {
		s.State, s.Percent, s.Runs[0].State = pb.StepState_STEP_STATE_COMPLETED, 100, pb.StepState_STEP_STATE_COMPLETED
	}
	undoing.Steps[1].UndoState = pb.UndoState_UNDO_STATE_RUNNING
	undoing.Steps[1].Runs[0].UndoState, undoing.Steps[1].Runs[0].UndoCommandId = pb.UndoState_UNDO_STATE_RUNNING, exampleID
	undoing.Percent = 100

	all := map[string]proto.Message{
		"TaskService_SubmitTask": &pb.SubmitTaskResponse{Task: queued},
		"TaskService_GetTask":    &pb.GetTaskResponse{Task: running, Approvals: []*pb.Approval{waits}},
		"TaskService_ListTasks":  &pb.ListTasksResponse{Tasks: []*pb.Task{running}},
		"TaskService_CancelTask": &pb.CancelTaskResponse{Task: cancelled},
		"TaskService_UndoTask": &pb.UndoTaskResponse{Task: undoing, Preview: []*pb.UndoStep{{
			Step: "upgrade", Host: "web1", Command: undoing.Steps[1].Undo, State: pb.UndoState_UNDO_STATE_PENDING,
		}}},
		"TaskService_DecideTask": &pb.DecideTaskResponse{Approval: decided},
	}
	twice(all)
	step := int32(1)
	all["TaskService_WatchTask"] = &pb.WatchTaskResponse{Response: &pb.WatchTaskResponse_Event{Event: &pb.TaskEvent{
		Version: 1, Id: exampleTaskID + "-13", TaskId: exampleTaskID, Sequence: 13, Time: timestamppb.New(exampleStart.Add(30 * time.Second)),
		Type: "step_progress", State: pb.TaskState_TASK_STATE_RUNNING, TaskPercent: 71, Step: "upgrade", StepIndex: &step,
		StepState: pb.StepState_STEP_STATE_RUNNING, Percent: 42, Message: `step "upgrade": 42 %`,
	}}}
	return all
}

func taskOperations() map[string]operation {
	notFound := []int{http.StatusNotFound}
	all := map[string]operation{
		"TaskService_SubmitTask": {tag: tagTasks, summary: "Submit a task", errors: []int{http.StatusNotFound, http.StatusConflict}},
		"TaskService_GetTask":    {tag: tagTasks, summary: "Get a task, and what it waits for", errors: notFound},
		"TaskService_ListTasks":  {tag: tagTasks, summary: "List tasks"},
		"TaskService_CancelTask": {tag: tagTasks, summary: "Cancel a task", errors: notFound},
		"TaskService_UndoTask":   {tag: tagTasks, summary: "Undo a task, or one step", errors: notFound},
		"TaskService_DecideTask": {tag: tagTasks, summary: "Approve, reject or change a step", asks: "telexec.v1.DecideTaskRequest", errors: []int{http.StatusNotFound, http.StatusConflict}},
	}
	for id, op := range maps.Clone(all) {
		op.asks, op.id = "", id+"ByAgent"
		all[id+"_1"] = op
	}
	all["TaskService_WatchTask"] = operation{tag: tagTasks, summary: "Watch what happens to a task", asks: "telexec.v1.WatchTaskRequest", stream: true, errors: notFound}
	return all
}

// twice gives the second path of each call what the first one has.
func twice(all map[string]proto.Message) {
	for id, m := range maps.Clone(all) {
		all[id+"_1"] = m
	}
}

func exampleTask() *pb.Task {
	begun := timestamppb.New(exampleStart.Add(20 * time.Millisecond))
	return &pb.Task{
		Name: "tasks/" + exampleTaskID, Id: exampleTaskID, Version: 7, State: pb.TaskState_TASK_STATE_AWAITING_APPROVAL, Task: "roll out 2.4", Priority: 5,
		Labels: map[string]string{"app": "shop"}, RequestId: "rollout-2.4", CreatedBy: &pb.Actor{Principal: "deploy-agent", Origin: pb.Origin_ORIGIN_MCP},
		CreateTime: timestamppb.New(exampleStart), StartTime: begun, Percent: 50, CurrentStep: 1, Sequence: 9,
		Steps: []*pb.Step{{
			Name: "stop", Command: "systemctl stop shop", Undo: "systemctl start shop", OnFailure: "undo", State: pb.StepState_STEP_STATE_COMPLETED, Percent: 100,
			StartTime: begun, EndTime: timestamppb.New(exampleStart.Add(2 * time.Second)), Rollout: &pb.Rollout{Parallel: 10},
			Runs: []*pb.StepRun{{
				Host: "web1", State: pb.StepState_STEP_STATE_COMPLETED, CommandId: "01KAJ2S9R0B1C2D3E4F5G6H7J8", ExitCode: proto.Int32(0), Percent: 100,
				StartTime: begun, EndTime: timestamppb.New(exampleStart.Add(2 * time.Second)),
			}},
		}, {
			Name: "upgrade", Command: "apt-get install -y shop=2.4", NeedsApproval: true, Undo: "apt-get install -y --allow-downgrades shop=2.3", OnFailure: "undo",
			State: pb.StepState_STEP_STATE_AWAITING_APPROVAL, Rollout: &pb.Rollout{Parallel: 10},
			Runs: []*pb.StepRun{{Host: "web1", State: pb.StepState_STEP_STATE_AWAITING_APPROVAL, CommandId: exampleID}},
		}},
	}
}
