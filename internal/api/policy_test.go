package api

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/policy"
)

// bench is a judge who says what it was told to.
type bench struct {
	by, as access.Caller
	spec   command.Spec
	says   policy.Decision
	fail   error
}

func (b *bench) Explain(by, as access.Caller, spec command.Spec) (policy.Decision, error) {
	b.by, b.as, b.spec = by, as, spec
	return b.says, b.fail
}

func TestEveryFieldOfADecisionIsTold(t *testing.T) {
	d := full[policy.Decision]()
	p := decisionToProto(d)
	if missing := unset("", p.ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}
	inside := map[string]string{
		"Gate.AllowSelf": "of the approval, when there is one",
		"Parsed":         "each command tells what is not known of it",
		"Why":            "the reason says it",
		"Writes":         "the reason says it where it matters",
		"Reads":          "the reason says it where it matters",
		"Variables":      "the reason says it where it matters",
	}
	check := func(path string, v reflect.Value) {
		old := reflect.ValueOf(v.Interface())
		v.SetZero()
		changed := !proto.Equal(p, decisionToProto(d))
		v.Set(old)
		if _, hidden := inside[path]; changed == hidden {
			t.Errorf("%s: changes the wire: %v", path, changed)
		}
	}
	leaves("", reflect.ValueOf(&d).Elem(), check)
	leaves("", reflect.ValueOf(&d.Commands[0]).Elem(), check)

	d.Effect = policy.Allow // then nobody has to approve
	if p := decisionToProto(d); p.GetRequiredApprovals() != 0 || p.GetApproverRoles() != nil || p.GetApprovalTimeout() != nil {
		t.Errorf("%v", p)
	}
}

// A message with a string that is no UTF-8 would not be sent at all.
func TestWordsThatAreNoText(t *testing.T) {
	p := decisionToProto(policy.Decision{Effect: policy.Deny, Reason: "no \xff", Commands: []policy.Judged{{Words: []string{"ls", "\xc3("}, Unknown: "\xf0\x9f"}}})
	c := p.GetCommands()[0]
	for _, s := range append(c.GetWords(), c.GetUnknown(), p.GetReason()) {
		if !utf8.ValidString(s) || s == "" {
			t.Errorf("%q", s)
		}
	}
	if _, err := proto.Marshal(p); err != nil {
		t.Error(err)
	}
}

// A line that is taken apart again and again becomes no message that cannot be sent.
func TestALongExplanationCanBeSent(t *testing.T) {
	rules, err := policy.New(policy.Rules{Default: policy.Deny})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"sudo sudo sudo sudo sudo sudo sudo sudo sudo sudo sudo sudo sudo sudo sudo sudo " + strings.Repeat("a ", 59_000), strings.Repeat("ls;", 40_000)} {
		if size := proto.Size(decisionToProto(rules.Decide(policy.Request{Host: "h", Line: line}))); size > 4<<20-64<<10 {
			t.Errorf("%.20s…: %d bytes", line, size)
		}
	}
}

func TestExplainPolicy(t *testing.T) {
	b := &bench{says: policy.Decision{Effect: policy.Deny, Rule: "r"}}
	svc := NewPolicy(b)
	explain := func(ctx context.Context, r *telexecv1.ExplainPolicyRequest) *telexecv1.ExplainPolicyResponse {
		t.Helper()
		got, err := svc.ExplainPolicy(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := explain(asAnn(t), &telexecv1.ExplainPolicyRequest{Host: "web1", Command: "ls"})
	if got.GetEffect() != telexecv1.PolicyEffect_POLICY_EFFECT_DENY || got.GetRule() != "r" || !reflect.DeepEqual(b.as, b.by) || b.by.Name != "ann" {
		t.Errorf("%v as %+v", got, b.as)
	}
	// Every field counts.
	req, n := &telexecv1.ExplainPolicyRequest{}, 0
	fullMessage(req.ProtoReflect(), &n)
	req.Roles = []string{"viewer"}
	explain(asAnn(t), &telexecv1.ExplainPolicyRequest{})
	spec, as := b.spec, b.as
	fields := req.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		one := &telexecv1.ExplainPolicyRequest{}
		one.ProtoReflect().Set(f, req.ProtoReflect().Get(f))
		if explain(asAnn(t), one); reflect.DeepEqual(b.spec, spec) && reflect.DeepEqual(b.as, as) {
			t.Errorf("%s changes nothing", f.Name())
		}
		if b.by.Name != "ann" || !slices.Equal(b.by.Roles, []access.Role{access.RoleOperator}) {
			t.Errorf("%s: asked by %+v", f.Name(), b.by)
		}
	}
	explain(asAnn(t), &telexecv1.ExplainPolicyRequest{Principal: "bob", Roles: []string{"viewer"}, Origin: telexecv1.Origin_ORIGIN_MCP, EnvNames: []string{"PATH"}})
	if b.as.Name != "bob" || !slices.Equal(b.as.Roles, []access.Role{access.RoleViewer}) || b.as.Origin != command.OriginMCP || !slices.Equal(b.spec.EnvNames(), []string{"PATH"}) {
		t.Errorf("%+v, %+v", b.as, b.spec)
	}
	// A role that there is not would match no rule, and the answer would be believed.
	*b = bench{says: b.says}
	_, err := svc.ExplainPolicy(asAnn(t), &telexecv1.ExplainPolicyRequest{Host: "web1", Command: "ls", Roles: []string{"viewer", "operater"}})
	if e := fault.From(err); err == nil || e.Kind != fault.Invalid || e.Reason != fault.ReasonInvalidRequest || len(e.Fields) != 1 || e.Fields[0].Path != "roles" ||
		!strings.Contains(e.Message, `"operater"`) || b.by.Name != "" {
		t.Errorf("%v", err)
	}
	b.fail = fault.New(fault.PermissionDenied, fault.ReasonRoleMissing, "no")
	if _, err := svc.ExplainPolicy(asAnn(t), req); err != b.fail {
		t.Error(err)
	}
}
