package rpcserver

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

// A list that is too long is refused for that alone; of many violations the first are told.
func TestMuchThatIsWrong(t *testing.T) {
	v, err := newValidator()
	if err != nil {
		t.Fatal(err)
	}
	plan := func(steps int) *telexecv1.SubmitTaskRequest {
		r := &telexecv1.SubmitTaskRequest{}
		for range steps {
			r.Steps = append(r.Steps, &telexecv1.StepSpec{})
		}
		return r
	}
	inner := plan(1)
	inner.Steps[0].Hosts = make([]string, 100_000)
	for name, c := range map[string]struct {
		m    proto.Message
		path string
	}{
		"steps":          {plan(100_000), "steps"},
		"one over":       {plan(101), "steps"},
		"hosts":          {inner, "steps[0].hosts"},
		"as many as may": {plan(100), ""},
	} {
		f, ok := overlong(c.m.ProtoReflect(), "").(*fault.Error)
		if ok != (c.path != "") || ok && (len(f.Fields) != 1 || f.Fields[0].Path != c.path || f.Reason != fault.ReasonInvalidRequest || !strings.HasPrefix(f.Message, c.path+": has ")) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	f := fault.From(invalid(v.Validate(plan(100))))
	if len(f.Fields) != toldMost || !strings.Contains(f.Message, "; and ") || !strings.HasSuffix(f.Message, " more") {
		t.Errorf("%d fields: %s", len(f.Fields), f.Message)
	}
}
