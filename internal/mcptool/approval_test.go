package mcptool

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// TestAwaitingApprovalIsTold: by every tool that tells of a command, with all that
// the person needs, and without a word that it runs.
func TestAwaitingApprovalIsTold(t *testing.T) {
	s := &service{desk: newDesk()}
	s.desk.required = 2
	session := s.serve(t, Options{})
	began := time.Now()
	for tool, arguments := range map[string]string{
		"execute_command": `{"host":"web1","command":"reboot"}`, "execute_command_async": `{"host":"web1","command":"reboot"}`,
		"get_command_status": `{"command_id":"` + testID + `"}`,
	} {
		text, isError := use(t, session, tool, arguments)
		for _, want := range []string{
			"Command " + testID + " on web1: awaiting_approval.\n", `The rule "reboots" wants it approved before it runs: 0 of 2 approvals so far`, "the role approver or admin",
			"until 2026-01-02T03:04:05.000Z", "`telexec approvals show " + testID + "`", "`telexec approve " + testID + "`", "Tell the person",
			`get_command_status {"command_id": "` + testID + `", "wait_seconds": 50}`, "Do not run it again, and do not try to get around it",
		} {
			if isError || !strings.Contains(text, want) {
				t.Errorf("%s: isError %t, without %q:\n%s", tool, isError, want, text)
			}
		}
		for _, wrong := range []string{"It goes on", "No output", "printed nothing"} {
			if strings.Contains(text, wrong) {
				t.Errorf("%s says %q:\n%s", tool, wrong, text)
			}
		}
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: json.RawMessage(arguments)})
		if err != nil {
			t.Fatal(err)
		}
		var told executeFacts
		b, _ := json.Marshal(result.StructuredContent)
		if err := json.Unmarshal(b, &told); err != nil {
			t.Fatal(err)
		}
		if told.State != "awaiting_approval" || told.Ended || told.Approval == nil || told.Approval.Rule != "reboots" || told.Approval.Required != 2 || len(told.Approval.Roles) != 2 || told.Next == "" {
			t.Errorf("%s: %s", tool, b)
		}
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("nobody decides, and it was waited for %s", d)
	}
	if text, _ := use(t, s.serve(t, Options{Toolsets: []string{"execute"}}), "execute_command", `{"host":"web1","command":"reboot"}`); strings.Contains(text, "get_command_status") || strings.Contains(text, "cancel_command") {
		t.Errorf("it names tools that there are not: %s", text)
	}
	if said := (&approvalFacts{Rule: "default", Required: 1}).sentence(); !strings.HasPrefix(said, "The policy wants it approved before it runs: 0 of 1 approval.") {
		t.Error(said)
	}
}

// TestWaitForDecision: a wait ends when somebody has decided, however fast the
// command then starts, and not before.
func TestWaitForDecision(t *testing.T) {
	for _, now := range []telexecv1.CommandState{
		telexecv1.CommandState_COMMAND_STATE_QUEUED, telexecv1.CommandState_COMMAND_STATE_STARTING, telexecv1.CommandState_COMMAND_STATE_RUNNING,
		telexecv1.CommandState_COMMAND_STATE_REJECTED, telexecv1.CommandState_COMMAND_STATE_EXPIRED,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &service{desk: newDesk()}
			session := s.serve(t, Options{})
			time.AfterFunc(7*time.Second, func() { s.desk.enter(telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL, nil) }) // one of two, say
			time.AfterFunc(9*time.Second, func() { s.desk.enter(now, nil) })
			began := time.Now()
			if text, isError := use(t, session, "get_command_status", `{"command_id":"`+testID+`","wait_seconds":30}`); isError || !strings.Contains(text, stateName(now)) {
				t.Errorf("%s: %s", now, text)
			}
			if d := time.Since(began); d < 9*time.Second || d > 10*time.Second {
				t.Errorf("%s: after %s", now, d)
			}
		})
	}
}

// TestRefusalsAreTold: what people and rules have refused, the model is to leave.
func TestRefusalsAreTold(t *testing.T) {
	for reason, state := range map[string]telexecv1.CommandState{
		"REJECTED": telexecv1.CommandState_COMMAND_STATE_REJECTED, "APPROVAL_VOID": telexecv1.CommandState_COMMAND_STATE_REJECTED,
		"POLICY_DENIED": telexecv1.CommandState_COMMAND_STATE_REJECTED, "APPROVAL_EXPIRED": telexecv1.CommandState_COMMAND_STATE_EXPIRED,
	} {
		s := &service{desk: newDesk()}
		s.desk.enter(state, &telexecv1.Failure{Reason: reason, Message: "ops says: not at noon", Hint: "Run it again"})
		for tool, arguments := range map[string]string{"execute_command": `{"host":"web1","command":"reboot"}`, "get_command_status": `{"command_id":"` + testID + `"}`} {
			text, isError := use(t, s.serve(t, Options{}), tool, arguments)
			if isError != (tool == "execute_command") || !strings.Contains(text, reason+": ops says: not at noon\nWhat to do: Tell the person") ||
				!strings.Contains(text, "do not try to get around it with another command") || strings.Contains(text, "Run it again") {
				t.Errorf("%s: isError %t: %s", tool, isError, text)
			}
		}
	}
}

// TestRefusedCallsAreTold: each with what to do, and none as if trying again were of
// use, but where it is.
func TestRefusedCallsAreTold(t *testing.T) {
	for _, tt := range []struct {
		code   codes.Code
		reason string
		retry  time.Duration
		want   string
		rpc    int64 // code of the protocol, where there is no result to put it in
	}{
		{codes.PermissionDenied, "ROLE_MISSING", 0, "What to do: Tell the person: an administrator", codeRefused},
		{codes.PermissionDenied, "ACCESS_DENIED", 0, "What to do: list_running_commands", jsonrpc.CodeInvalidParams},
		{codes.PermissionDenied, "POLICY_DENIED", 0, "do not try to get around it", codeRefused},
		{codes.Unauthenticated, "TOKEN_EXPIRED", 0, "a new token; calling again does not help", codeRefused},
		{codes.Unauthenticated, "TOKEN_REVOKED", 0, "a new token; calling again does not help", codeRefused},
		{codes.ResourceExhausted, "RATE_LIMITED", 3 * time.Second, "Try again in 3 s.", codeRefused},
		{codes.ResourceExhausted, "TOO_MANY_STREAMS", 0, "make fewer at once", codeRefused},
		{codes.Unknown, "INTERNAL", 0, "Ask somebody else", jsonrpc.CodeInternalError},
	} {
		s := &service{refuse: func() error {
			var retry []*errdetails.RetryInfo
			if tt.retry > 0 {
				retry = append(retry, &errdetails.RetryInfo{RetryDelay: durationpb.New(tt.retry)})
			}
			return serviceError(tt.code, tt.reason, retry...)
		}}
		c := s.dial(t)
		session := s.serve(t, Options{})
		text, isError := use(t, session, "get_command_status", `{"command_id":"`+testID+`"}`)
		if !isError || !strings.HasPrefix(text, tt.reason+": no\n") || !strings.Contains(text, tt.want) {
			t.Errorf("isError %t: %s", isError, text)
		}
		if tt.retry == 0 && strings.Contains(strings.ToLower(text), "try again") {
			t.Errorf("it is told to try again: %s", text)
		}
		_, err := c.GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: testID})
		if e, ok := errors.AsType[*jsonrpc.Error](protocolError(err)); !ok || e.Code != tt.rpc || strings.Contains(e.Message, "internal") {
			t.Errorf("%s as an error of the protocol: %v", tt.reason, e)
		}
	}
}

// TestAwaitingInLists: it can be asked for, and is seen.
func TestAwaitingInLists(t *testing.T) {
	s := &service{commands: []*telexecv1.Command{newDesk().command()}}
	text, _ := use(t, s.serve(t, Options{}), "list_command_history", `{"states":["awaiting_approval"]}`)
	if r := asked[*telexecv1.ListCommandsRequest](t, s); len(r.GetStates()) != 1 || r.GetStates()[0] != telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL {
		t.Errorf("%v", r)
	}
	if !strings.Contains(text, "web1  awaiting_approval by the rule reboots  reboot") {
		t.Error(text)
	}
}

// TestTaskThatAwaitsApproval: a client that follows tasks is told at once too, for
// its model must tell the person; the id is a task all the same.
func TestTaskThatAwaitsApproval(t *testing.T) {
	s := &service{desk: newDesk()}
	server, err := New(Options{Client: s.dial(t)})
	if err != nil {
		t.Fatal(err)
	}
	var status *task
	server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
			result, err := next(ctx, method, req)
			if t, ok := result.(*task); ok {
				status = t
			}
			return result, err
		}
	})
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
	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},` +
		`"io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}`
	for _, request := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"execute_command","arguments":{"host":"web1","command":"reboot"},` + meta + `}}`,
		`{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{"taskId":"` + testID + `",` + meta + `}}`,
	} {
		msg, err := jsonrpc.DecodeMessage([]byte(request))
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
		if b := string(answer.(*jsonrpc.Response).Result); !strings.Contains(b, "awaiting_approval") || !strings.Contains(b, "telexec approve "+testID) {
			t.Errorf("%s\nis answered with %s", request, b)
		} else if strings.Contains(request, "tools/call") && !strings.Contains(b, "Tell the person") {
			t.Errorf("the model is not told: %s", b)
		}
	}
	if status == nil || status.Status != taskWorking {
		t.Errorf("%+v", status)
	}
}
