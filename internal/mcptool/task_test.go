package mcptool

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// wire gives a client that knows the Tasks extension, as it is on the wire: params are the
// fields behind _meta.
func (s *service) wire(t *testing.T) func(method, params string) *jsonrpc.Response {
	t.Helper()
	server, err := New(Options{Client: s.dial(t)})
	if err != nil {
		t.Fatal(err)
	}
	here, there := mcp.NewInMemoryTransports()
	serving, err := server.Connect(t.Context(), there, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := here.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = serving.Wait() })
	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"secret","version":"1"},` +
		`"io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}`
	id := 0
	return func(method, params string) *jsonrpc.Response {
		t.Helper()
		id++
		msg, err := jsonrpc.DecodeMessage(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":{%s,%s}}`, id, method, meta, params))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Write(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
		answer, err := conn.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return answer.(*jsonrpc.Response)
	}
}

// TestUndoHandles: every undo of a task is a task of MCP of its own, so that one that has
// ended stays so when the next begins, and is then not known any more.
func TestUndoHandles(t *testing.T) {
	undone := func(state telexecv1.TaskState, undo telexecv1.UndoState, at time.Time) *telexecv1.Task {
		p := planned(state, stepOn("one", stepDone, "web1"))
		p.Outcome, p.Undo = telexecv1.TaskState_TASK_STATE_COMPLETED, &telexecv1.TaskUndo{State: undo, By: p.GetCreatedBy(), Time: timestamppb.New(at)}
		return p
	}
	first := time.Date(2026, 7, 28, 1, 2, 3, 456_789_999, time.UTC)
	second := first.Add(time.Microsecond)
	begun := undone(telexecv1.TaskState_TASK_STATE_UNDOING, telexecv1.UndoState_UNDO_STATE_RUNNING, first)
	again := undone(telexecv1.TaskState_TASK_STATE_UNDOING, telexecv1.UndoState_UNDO_STATE_RUNNING, second)

	s := &service{plan: begun}
	send := s.wire(t)
	ask := func(method, params string) task {
		t.Helper()
		answer := send(method, params)
		if answer.Error != nil {
			t.Fatalf("%s %s: %v", method, params, answer.Error)
		}
		var told task
		if err := json.Unmarshal(answer.Result, &told); err != nil {
			t.Fatal(err)
		}
		return told
	}
	const undo = `"name":"undo_task","arguments":{"task_id":"` + testID + `","wait_seconds":0}`
	handle := ask("tools/call", undo).TaskID
	named := fmt.Sprintf(`"taskId":%q`, handle)
	if !strings.HasPrefix(handle, planPrefix+testID+"/undo/") {
		t.Fatalf("the handle is %q", handle)
	}
	// The service keeps microseconds.
	s.plan = undone(telexecv1.TaskState_TASK_STATE_UNDO_FAILED, telexecv1.UndoState_UNDO_STATE_UNDO_FAILED, first.Truncate(time.Microsecond))
	if got := ask(methodTaskGet, named); got.Status != taskCompleted || got.TaskID != handle {
		t.Errorf("%+v", got)
	}
	s.plan = again
	for _, method := range TaskMethods {
		for _, id := range []string{handle, planPrefix + testID + "/undo", planPrefix + testID + "/undo/", handle + "/", handle + "0", strings.ToUpper(handle)} {
			if answer := send(method, fmt.Sprintf(`"taskId":%q`, id)); !isWire(answer.Error, jsonrpc.CodeInvalidParams, "there is no such task") {
				t.Errorf("%s %s: %s %v", method, id, answer.Result, answer.Error)
			}
		}
	}
	next := ask("tools/call", undo).TaskID
	if got := ask(methodTaskGet, fmt.Sprintf(`"taskId":%q`, next)); next == handle || got.Status != taskWorking {
		t.Errorf("%q: %+v", next, got)
	}
	if got := ask(methodTaskGet, `"taskId":"`+planPrefix+testID+`"`); got.Status != taskCompleted {
		t.Errorf("%+v", got)
	}

	// Nor does a call give the handle of an undo that somebody has begun behind its own.
	s.plan, s.later = begun, again
	if got := send("tools/call", undo); got.Error != nil || !strings.Contains(string(got.Result), `"undoing"`) || strings.Contains(string(got.Result), "taskId") {
		t.Errorf("%s %v", got.Result, got.Error)
	}
	s.later = nil

	// A task that nobody has undone has no such handle.
	s.plan = planned(telexecv1.TaskState_TASK_STATE_COMPLETED, stepOn("one", stepDone, "web1"))
	for _, id := range []string{handle, planPrefix + testID + "/undo/"} {
		if answer := send(methodTaskGet, fmt.Sprintf(`"taskId":%q`, id)); !isWire(answer.Error, jsonrpc.CodeInvalidParams, "there is no such task") {
			t.Errorf("%s: %s %v", id, answer.Result, answer.Error)
		}
	}
	for _, r := range s.requests {
		if _, ok := r.(*telexecv1.CancelTaskRequest); ok {
			t.Errorf("cancelled: %v", r)
		}
	}
}

// isWire reports whether an error of JSON-RPC is this one.
func isWire(err error, code int64, message string) bool {
	wire, ok := err.(*jsonrpc.Error)
	return ok && wire.Code == code && wire.Message == message
}

// TestTaskParams: what is wrong with the parameters is told in words, without what else is
// among them.
func TestTaskParams(t *testing.T) {
	send := (&service{}).wire(t)
	for params, want := range map[string]string{
		`"taskId":5`:                "taskId is a string",
		`"taskId":{"a":"b"}`:        "taskId is a string",
		`"taskId":["A"]`:            "taskId is a string",
		`"taskId":null`:             "there is no such task",
		`"taskID":5`:                "there is no such task",
		`"TASKID":"` + testID + `"`: "there is no such task",
		`"taskId":"` + testID + `","inputResponses":5`: "inputResponses is an object",
	} {
		for _, method := range TaskMethods {
			if answer := send(method, params); !isWire(answer.Error, jsonrpc.CodeInvalidParams, want) {
				t.Errorf("%s %s: %s %v", method, params, answer.Result, answer.Error)
			}
		}
	}
	if answer := send(methodTaskGet, `"taskId":"`+testID+`","TASKID":5,"inputResponses":{"a":1}`); answer.Error != nil || !strings.Contains(string(answer.Result), taskCompleted) {
		t.Errorf("%s %v", answer.Result, answer.Error)
	}
	// These come no further than that in a session that knows the extension.
	for params, want := range map[string]string{`[]`: "params is an object", `"secret"`: "params is an object", `{"taskId":"A","_meta":"secret"}`: "_meta is an object"} {
		var p taskParams
		if err := json.Unmarshal([]byte(params), &p); err != nil || p.wrong != want {
			t.Errorf("%s: %q, %v", params, p.wrong, err)
		}
	}
}
