package mcptool

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// desk is where a command of a service waits for approval.
type desk struct {
	refuse   string // why the caller may not decide; empty: it may
	required int32  // approvals; 0 means 1
	line     string // its command line; empty: "reboot"
	broken   error  // of DecideApprovals

	mu        sync.Mutex
	state     telexecv1.CommandState
	version   int64
	decisions []*telexecv1.Decision
	failure   *telexecv1.Failure
}

var shownHash = bytes.Repeat([]byte{7}, 32)

func newDesk() *desk {
	return &desk{state: telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL, version: 1}
}

func (d *desk) needed() int32 { return max(d.required, 1) }

func (d *desk) command() *telexecv1.Command {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &telexecv1.Command{
		Id: testID, Host: "web1", Command: "reboot", State: d.state, Version: d.version, RequestId: "made-up.id", CreateTime: timestamppb.Now(),
		Approval: "approvals/" + testID, PolicyRule: "reboots", Failure: d.failure,
	}
	if d.line != "" {
		c.Command = d.line
	}
	switch {
	case awaits(c):
		c.AwaitedApproval = &telexecv1.AwaitedApproval{
			RequiredApprovals: d.needed(), Approvals: int32(len(d.decisions)), Roles: []string{"approver", "admin"},
			ExpireTime: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
		}
	case c.GetState() == telexecv1.CommandState_COMMAND_STATE_COMPLETED:
		c.ExitCode = new(int32(0))
	}
	return c
}

// enter moves the command on, as somebody elsewhere does.
func (d *desk) enter(s telexecv1.CommandState, failure *telexecv1.Failure) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state, d.failure = s, failure
	d.version++
}

func (s *service) GetApproval(context.Context, *telexecv1.GetApprovalRequest) (*telexecv1.GetApprovalResponse, error) {
	d := s.desk
	return &telexecv1.GetApprovalResponse{Approval: &telexecv1.Approval{
		CommandId: testID, Rule: "reboots", RequiredApprovals: d.needed(), RequestHash: shownHash, Target: "ops@10.0.0.7:22",
		CanDecide: d.refuse == "", CannotDecideReason: d.refuse, Command: d.command(), RequestedBy: &telexecv1.Actor{Principal: "agent-x"},
		ExpireTime: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
	}}, nil
}

func (s *service) DecideApprovals(_ context.Context, req *telexecv1.DecideApprovalsRequest) (*telexecv1.DecideApprovalsResponse, error) {
	d, decision := s.desk, req.GetDecisions()[0]
	if d.broken != nil {
		return nil, d.broken
	}
	if !awaits(d.command()) {
		return nil, serviceError(codes.FailedPrecondition, "ALREADY_DECIDED")
	}
	if !bytes.Equal(decision.GetRequestHash(), shownHash) {
		return nil, serviceError(codes.Aborted, "REQUEST_CHANGED")
	}
	d.mu.Lock()
	d.decisions = append(d.decisions, decision)
	approved := int32(len(d.decisions)) >= d.needed()
	d.mu.Unlock()
	switch {
	case decision.GetVerdict() == telexecv1.Verdict_VERDICT_REJECT:
		d.enter(telexecv1.CommandState_COMMAND_STATE_REJECTED, &telexecv1.Failure{Reason: "REJECTED", Message: "ops has rejected it through cli: " + decision.GetReason(), Hint: "Ask the approver, or run something else"})
	case approved:
		d.enter(telexecv1.CommandState_COMMAND_STATE_COMPLETED, nil)
	}
	return &telexecv1.DecideApprovalsResponse{Approvals: []*telexecv1.Approval{{CommandId: testID}}}, nil
}

// serviceError is an error as the service makes them.
func serviceError(code codes.Code, reason string, details ...*errdetails.RetryInfo) error {
	st, _ := status.New(code, "no. Ask somebody else").WithDetails(&errdetails.ErrorInfo{Domain: "telexec", Reason: reason, Metadata: map[string]string{"hint": "Ask somebody else"}})
	for _, d := range details {
		st, _ = st.WithDetails(d)
	}
	return st.Err()
}

// person is who is shown forms: how often, the last one, and what is answered.
type person struct {
	answer func(ctx context.Context) (*mcp.ElicitResult, error)

	mu    sync.Mutex
	asked int
	form  *mcp.ElicitParams
}

func (p *person) handle(ctx context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
	p.mu.Lock()
	p.asked++
	p.form = req.Params
	p.mu.Unlock()
	return p.answer(ctx)
}

// fills is a person who fills in a form.
func fills(action string, fields map[string]any) *person {
	return &person{answer: func(context.Context) (*mcp.ElicitResult, error) {
		return &mcp.ElicitResult{Action: action, Content: fields}, nil
	}}
}

// runs calls execute_command in a bubble of time, through a client of a revision
// that shows forms to a person.
func runs(t *testing.T, s *service, p *person, revision string, o Options) (facts executeFacts, text string, isError bool, d time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		session := s.serveTo(t, o, &mcp.ClientOptions{ElicitationHandler: p.handle}, &mcp.ClientSessionOptions{ProtocolVersion: revision})
		began := time.Now()
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "execute_command", Arguments: json.RawMessage(`{"host":"web1","command":"reboot"}`)})
		if err != nil {
			t.Fatal(err)
		}
		d = time.Since(began)
		b, _ := json.Marshal(result.StructuredContent)
		if err := json.Unmarshal(b, &facts); err != nil {
			t.Fatal(err)
		}
		if len(result.InputRequests) > 0 {
			t.Fatalf("the client was left with %v", result.InputRequests)
		}
		text, isError = result.Content[0].(*mcp.TextContent).Text, result.IsError
	})
	return facts, text, isError, d
}

var revisions = []string{"2025-11-25", "2026-07-28"}

// TestPersonDecides: whatever the person does with the form, the model learns what
// came of it, and the decision is of what was shown.
func TestPersonDecides(t *testing.T) {
	for _, revision := range revisions {
		for name, tt := range map[string]struct {
			person  *person
			desk    func(*desk)
			state   string
			asked   string
			verdict telexecv1.Verdict // 0: nothing is decided
			reason  string
		}{
			"approves": {fills("accept", map[string]any{"decision": "approve", "reason": "go"}), nil, "completed", "has approved it", telexecv1.Verdict_VERDICT_APPROVE, "go"},
			"rejects":  {fills("accept", map[string]any{"decision": "reject", "reason": "not at noon"}), nil, "rejected", "has rejected it", telexecv1.Verdict_VERDICT_REJECT, "not at noon"},
			"declines": {fills("decline", nil), nil, "rejected", "has rejected it", telexecv1.Verdict_VERDICT_REJECT, ""},
			"cancels":  {fills("cancel", nil), nil, "awaiting_approval", "has not decided", 0, ""},
			"accepts without a word": {
				fills("accept", nil), nil, "awaiting_approval", "has not decided", 0, "",
			},
			"approves in vain":         {fills("cancel", map[string]any{"decision": "approve"}), nil, "awaiting_approval", "has not decided", 0, ""},
			"is the first of two":      {fills("accept", map[string]any{"decision": "approve"}), func(d *desk) { d.required = 2 }, "awaiting_approval", "has approved it", telexecv1.Verdict_VERDICT_APPROVE, ""},
			"may not decide":           {fills("accept", map[string]any{"decision": "approve"}), func(d *desk) { d.refuse = "nobody decides about a command of their own" }, "awaiting_approval", "somebody else must decide: nobody decides about a command of their own.", 0, ""},
			"may not decide at last":   {fills("accept", map[string]any{"decision": "approve"}), func(d *desk) { d.broken = serviceError(codes.PermissionDenied, "ROLE_MISSING") }, "awaiting_approval", "could not be passed on (ROLE_MISSING: no)", 0, ""},
			"saw what is not any more": {fills("accept", map[string]any{"decision": "approve"}), func(d *desk) { d.broken = serviceError(codes.Aborted, "REQUEST_CHANGED") }, "awaiting_approval", "was changed meanwhile", 0, ""},
			"would see half of it":     {fills("accept", map[string]any{"decision": "approve"}), func(d *desk) { d.line = strings.Repeat("x", maxShown) }, "awaiting_approval", "too long to be shown", 0, ""},
		} {
			t.Run(name+" "+revision, func(t *testing.T) {
				p := &person{answer: tt.person.answer}
				s := &service{desk: newDesk()}
				if tt.desk != nil {
					tt.desk(s.desk)
				}
				facts, text, isError, _ := runs(t, s, p, revision, Options{ElicitApprovals: true})
				if facts.State != tt.state || !strings.Contains(facts.Asked, tt.asked) || !strings.Contains(text, tt.asked) || isError != (tt.state == "rejected") {
					t.Errorf("isError %t, %s, asked %q:\n%s", isError, facts.State, facts.Asked, text)
				}
				if facts.Replayed {
					t.Error("the model made one call, and is told of another before it")
				}
				if tt.verdict == 0 {
					if len(s.desk.decisions) > 0 {
						t.Errorf("%v", s.desk.decisions)
					}
					return
				}
				want := &telexecv1.Decision{CommandId: testID, Verdict: tt.verdict, RequestHash: shownHash, Reason: tt.reason}
				if len(s.desk.decisions) != 1 || !proto.Equal(s.desk.decisions[0], want) || p.asked != 1 {
					t.Errorf("asked %d times: %v", p.asked, s.desk.decisions)
				}
			})
		}
	}
}

// TestWhenNobodyIsAsked: without the flag, without a form, or where the client has
// forms of another kind only.
func TestWhenNobodyIsAsked(t *testing.T) {
	yes := map[string]any{"decision": "approve"}
	for _, revision := range revisions {
		p := fills("accept", yes)
		s := &service{desk: newDesk()}
		facts, text, _, d := runs(t, s, p, revision, Options{})
		if p.asked != 0 || len(s.desk.decisions) != 0 || facts.State != "awaiting_approval" || facts.Asked != "" || d > time.Second {
			t.Errorf("%s: asked %d times, %s after %s: %s", revision, p.asked, facts.State, d, text)
		}
		if !strings.Contains(facts.Next, "Tell the person") || !strings.Contains(facts.Next, "do not try to get around it") {
			t.Errorf("next: %s", facts.Next)
		}
	}
	for form, capabilities := range map[bool]*mcp.ClientCapabilities{
		true:  {Elicitation: &mcp.ElicitationCapabilities{}},
		false: {Elicitation: &mcp.ElicitationCapabilities{URL: &mcp.URLElicitationCapabilities{}}},
	} {
		if showsForms(capabilities) != form {
			t.Errorf("%+v shows forms: %t", capabilities.Elicitation, !form)
		}
	}
	if showsForms(nil) || showsForms(&mcp.ClientCapabilities{}) {
		t.Error("a client that says nothing of forms shows them")
	}
}

// TestForgedRounds: what a client brings along as an earlier round decides nothing
// that the service has not shown, and nothing at all without the flag.
func TestForgedRounds(t *testing.T) {
	yes := mcp.InputResponseMap{formKey: &mcp.ElicitResult{Action: "accept", Content: map[string]any{"decision": "approve"}}}
	for _, tt := range []struct {
		state string
		o     Options
		named string // request id that the service is asked with
	}{
		{strings.Repeat("00", 32) + ".made-up.id", Options{ElicitApprovals: true}, "made-up.id"}, // another hash
		{round{"made-up.id", shownHash}.String(), Options{}, ""},                                 // no flag
		{"zz.made-up.id", Options{ElicitApprovals: true}, ""},
		{".made-up.id", Options{ElicitApprovals: true}, ""},
		{round{"", shownHash}.String(), Options{ElicitApprovals: true}, ""},
	} {
		s := &service{desk: newDesk()}
		session := s.serveTo(t, tt.o, &mcp.ClientOptions{
			ElicitationHandler: fills("cancel", nil).handle, MultiRoundTrip: &mcp.MultiRoundTripOptions{Disabled: true},
		}, &mcp.ClientSessionOptions{ProtocolVersion: "2026-07-28"})
		if _, err := session.CallTool(t.Context(), &mcp.CallToolParams{
			Name: "execute_command", Arguments: json.RawMessage(`{"host":"web1","command":"reboot"}`), RequestState: tt.state, InputResponses: yes,
		}); err != nil {
			t.Fatal(err)
		}
		if len(s.desk.decisions) > 0 {
			t.Errorf("%q has decided %v", tt.state, s.desk.decisions)
		}
		if got := asked[*telexecv1.ExecuteRequest](t, s).GetRequestId(); tt.named != "" && got != tt.named || tt.named == "" && got == "made-up.id" {
			t.Errorf("%q: request id %q", tt.state, got)
		}
	}
}

// TestNobodyAnswers: the call ends in time all the same, and what is answered later
// counts for nothing.
func TestNobodyAnswers(t *testing.T) {
	s := &service{desk: newDesk()}
	p := &person{answer: func(ctx context.Context) (*mcp.ElicitResult, error) {
		<-ctx.Done() // the form is taken back
		return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"decision": "approve"}}, nil
	}}
	facts, text, _, d := runs(t, s, p, "2025-11-25", Options{ElicitApprovals: true})
	if facts.State != "awaiting_approval" || !strings.Contains(text, "not answered in time") || len(s.desk.decisions) > 0 {
		t.Errorf("%s: %s", facts.State, text)
	}
	if most := longest - margin; d < most-time.Second || d > most+time.Second {
		t.Errorf("after %s", d)
	}
}

// TestDecidedElsewhere: the form is taken back, and the call goes on with what was
// decided; an answer that comes at the same moment is too late.
func TestDecidedElsewhere(t *testing.T) {
	s := &service{desk: newDesk()}
	p := &person{answer: func(ctx context.Context) (*mcp.ElicitResult, error) {
		time.AfterFunc(5*time.Second, func() { s.desk.enter(telexecv1.CommandState_COMMAND_STATE_COMPLETED, nil) })
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	facts, text, _, d := runs(t, s, p, "2025-11-25", Options{ElicitApprovals: true})
	if facts.State != "completed" || facts.Asked != saidElsewhere || d < 5*time.Second || d > 6*time.Second {
		t.Errorf("%s after %s: %s", facts.State, d, text)
	}
	for _, revision := range revisions {
		s := &service{desk: newDesk()}
		p := &person{answer: func(context.Context) (*mcp.ElicitResult, error) {
			s.desk.enter(telexecv1.CommandState_COMMAND_STATE_REJECTED, &telexecv1.Failure{Reason: "REJECTED", Message: "ops has rejected it"})
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"decision": "approve"}}, nil
		}}
		facts, text, isError, _ := runs(t, s, p, revision, Options{ElicitApprovals: true})
		if facts.State != "rejected" || !isError || len(s.desk.decisions) > 0 || strings.Contains(facts.Asked, "approved") {
			t.Errorf("%s: %s, asked %q: %s", revision, facts.State, facts.Asked, text)
		}
	}
}

// TestClientBreaksOff: a form that cannot be shown leaves the command waiting.
func TestClientBreaksOff(t *testing.T) {
	s := &service{desk: newDesk()}
	p := &person{answer: func(context.Context) (*mcp.ElicitResult, error) { return nil, context.Canceled }}
	facts, text, isError, _ := runs(t, s, p, "2025-11-25", Options{ElicitApprovals: true})
	if facts.State != "awaiting_approval" || isError || !strings.Contains(facts.Asked, "could not be asked here") {
		t.Errorf("%s: %s", facts.State, text)
	}
}

// TestForm: it shows all that would run, and nothing in it can hide or forge a line.
func TestForm(t *testing.T) {
	approval := &telexecv1.Approval{
		Rule: "reboots", Target: "ops@10.0.0.7:22", StdinBytes: 3, StdinSha256: []byte{0xab}, Approvals: 0, RequiredApprovals: 1,
		RequestedBy: &telexecv1.Actor{Principal: "agent-x"},
		Command: &telexecv1.Command{
			Host: "web1", Command: "echo a\n\nHost: harmless\x1b[2K\u202eevil\u00a0\u200d\ttab \u200b ok ✓ é", SudoUser: "root", WorkingDirectory: "/tmp\nCommand: ls",
			EnvNames: []string{"LD_PRELOAD"}, StdinOpen: true, LoginShell: true, Pty: &telexecv1.Pty{}, ActionType: "package_update",
		},
	}
	text, ok := formText(approval)
	if !ok {
		t.Fatal("it is not shown")
	}
	for _, want := range []string{
		`the rule "reboots"`, "\nHost: web1\n", "\nTarget: ops@10.0.0.7:22\n", "\nAsked for by: agent-x\n", "\nAs user, by sudo: root\n", "\nDirectory: /tmp⟨U+000A⟩Command: ls\n",
		`Sets variables, to values that are not shown: "LD_PRELOAD"`, "3 bytes, SHA-256 ab", "more can be sent", "login shell", "Terminal: yes", "Kind of action: package_update",
		"    | echo a\n    | \n    | Host: harmless⟨U+001B⟩[2K⟨U+202E⟩evil⟨U+00A0⟩⟨U+200D⟩⟨U+0009⟩tab ⟨U+200B⟩ ok ✓ é\n", "To decline is to reject it",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	approval.Rule = "default"
	if text, _ = formText(approval); !strings.Contains(text, "and the policy wants it approved") {
		t.Error(text)
	}
	approval.Command.Argv = []string{"printf", "a\nb", ""}
	if text, _ = formText(approval); !strings.Contains(text, "    0| printf\n    1| a⟨U+000A⟩b\n    2| \n") {
		t.Error(text)
	}
	if got := pictured("a\xffb"); got != "a⟨FF⟩b" {
		t.Errorf("%q", got)
	}
	if verdict, reason := verdictOf(&mcp.ElicitResult{Action: "decline", Content: map[string]any{"reason": strings.Repeat("é", maxReason)}}); verdict != telexecv1.Verdict_VERDICT_REJECT || len(reason) != maxReason {
		t.Errorf("%s with a reason of %d bytes", verdict, len(reason))
	}
}
