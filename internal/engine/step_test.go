package engine_test

import (
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
)

const aTask = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// step has a caller run a step of a task.
func (n *node) step(by access.Caller, host, line string, ref command.TaskRef) (engine.Snapshot, error) {
	n.t.Helper()
	if ref.ID == "" {
		ref.ID = aTask
	}
	ref.Name = "a step"
	return n.ExecuteStep(n.t.Context(), by, command.Spec{Host: host, Line: line, Task: &ref}, n.NewID())
}

// A task may want a step approved that no rule does, and then people have so long for it.
func TestStepWithAGate(t *testing.T) {
	o := fresh(t)
	n := start(t, o)
	s, err := n.step(ann, "h", "exit 4", command.TaskRef{Gate: time.Hour})
	if err != nil || s.State != command.AwaitingApproval || s.Gate.Rule != policy.RuleStep || s.Gate.Count != 1 || s.Gate.Deadline.Sub(s.Gate.CreateTime).Round(time.Minute) != time.Hour {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := n.decide(boss, n.ballot(s.ID, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(s.ID); code(s) != "4" {
		t.Errorf("%s with %s", s.State, code(s))
	}
	for _, e := range told(t, o, s.ID) {
		if e.Task != aTask {
			t.Errorf("the audit is not told of what task it is: %+v", e)
		}
	}
	if s, err := n.step(ann, "h", "exit 4", command.TaskRef{}); err != nil || s.Gated {
		t.Errorf("a step without a gate: %+v, %v", s.Gate, err)
	}
	// What a rule says holds, and not what the task says.
	n = start(t, gated(t, policy.Gate{Count: 2, Timeout: time.Minute}))
	if s, err := n.step(ann, "h", "sed q", command.TaskRef{Gate: time.Hour}); err != nil || s.Gate.Count != 2 || s.Gate.Rule == policy.RuleStep {
		t.Errorf("%+v, %v", s.Gate, err)
	}
	if _, err := n.step(ann, "h", "apt install x", command.TaskRef{Gate: time.Hour}); fault.ReasonOf(err) != fault.ReasonPolicyDenied {
		t.Error(err)
	}
}

// What people have said about a step on its first host is so for the hosts that they were
// shown, when it is tried again, and for what takes it back; for nothing else.
func TestWhatIsApprovedWithAStep(t *testing.T) {
	o := gated(t, policy.Gate{})
	o.Hosts = hosts{"h": 10, "i": 10, "j": 10}
	n := start(t, o)
	lead, err := n.step(ann, "h", "sed q </dev/null", command.TaskRef{Step: 1, Hosts: []string{"h", "i"}, Undo: "sed 2q </dev/null"})
	if err != nil {
		t.Fatal(err)
	}
	under := func(ref command.TaskRef) command.TaskRef {
		ref.Under = lead.ID
		if ref.Step == 0 {
			ref.Step = 1
		}
		return ref
	}
	waits := func(what string, want bool, by access.Caller, host, line string, ref command.TaskRef) {
		t.Helper()
		s, err := n.step(by, host, line, under(ref))
		if err != nil || s.Gated != want {
			t.Errorf("%s: gated %v, want %v; %v", what, s.Gated, want, err)
		}
	}
	waits("before anybody has decided", true, ann, "i", "sed q </dev/null", command.TaskRef{})
	if err := n.decide(boss, n.ballot(lead.ID, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	waits("another host", false, ann, "i", "sed q </dev/null", command.TaskRef{})
	waits("again", false, ann, "h", "sed q </dev/null", command.TaskRef{})
	waits("undo", false, ann, "i", "sed 2q </dev/null", command.TaskRef{Undoes: true})
	waits("undo by somebody else", false, root, "h", "sed 2q </dev/null", command.TaskRef{Undoes: true})
	n.crash()
	o.Hosts = moved{hosts{"h": 10, "i": 10, "j": 10}, "i"}
	n = start(t, o)
	waits("where it has been moved to", true, ann, "i", "sed q </dev/null", command.TaskRef{})
	waits("one that has not been moved", false, ann, "h", "sed q </dev/null", command.TaskRef{})
	n.crash()
	o.Hosts = hosts{"h": 10, "i": 10, "j": 10}
	n = start(t, o)
	waits("a host that was not shown", true, ann, "j", "sed q </dev/null", command.TaskRef{})
	waits("another line", true, ann, "i", "sed 3q </dev/null", command.TaskRef{})
	waits("undo by another line", true, ann, "i", "sed 3q </dev/null", command.TaskRef{Undoes: true})
	waits("the undo as a step", true, ann, "i", "sed 2q </dev/null", command.TaskRef{})
	waits("the step as its undo", true, ann, "i", "sed q </dev/null", command.TaskRef{Undoes: true})
	waits("another step", true, ann, "i", "sed q </dev/null", command.TaskRef{Step: 2})
	waits("another task", true, ann, "i", "sed q </dev/null", command.TaskRef{ID: "01ARZ3NDEKTSV4RRFFQ69G5FAW"})
	// Nor for what differs in anything else.
	s, err := n.ExecuteStep(t.Context(), ann, command.Spec{
		Host: "i", Line: "sed q </dev/null", WorkingDirectory: "/", Task: &command.TaskRef{ID: aTask, Step: 1, Name: "a step", Under: lead.ID},
	}, n.NewID())
	if err != nil || !s.Gated {
		t.Errorf("in another directory: gated %v, %v", s.Gated, err)
	}
	// Nor after a no.
	lead, err = n.step(ann, "h", "sed q </dev/null", command.TaskRef{Step: 1, Hosts: []string{"h", "i"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.decide(boss, n.ballot(lead.ID, approval.Reject)); err != nil {
		t.Fatal(err)
	}
	waits("after a no", true, ann, "i", "sed q </dev/null", command.TaskRef{})
	// And the hash that was approved binds the hosts and the undo.
	one, _ := n.step(ann, "h", "sed q", command.TaskRef{Hosts: []string{"h"}, Undo: "sed 2q"})
	two, _ := n.step(ann, "h", "sed q", command.TaskRef{Hosts: []string{"h", "i"}, Undo: "sed 2q"})
	three, _ := n.step(ann, "h", "sed q", command.TaskRef{Hosts: []string{"h"}, Undo: "sed 3q"})
	if a, b, c := n.ballot(one.ID, "").Shown, n.ballot(two.ID, "").Shown, n.ballot(three.ID, "").Shown; string(a) == string(b) || string(a) == string(c) {
		t.Error("the hash does not tell hosts or undo")
	}
}

// A rule that asks for more by now asks again; where the task alone asks, any approval of
// the lead is for the others, also by another rule, or modified into what needs none.
func TestWhatARuleAsksMore(t *testing.T) {
	o := gated(t, policy.Gate{})
	o.Hosts = hosts{"h": 10, "i": 10}
	n := start(t, o)
	ref := command.TaskRef{Step: 1, Hosts: []string{"h", "i"}}
	lead, err := n.step(ann, "h", "sed q </dev/null", ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.decide(boss, n.ballot(lead.ID, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	for name, gate := range map[string]policy.Gate{"more people": {Count: 2}, "others": {Roles: []string{"admin"}}} {
		n.SetPolicy(rules(t, gate))
		if s, err := n.step(ann, "i", "sed q </dev/null", command.TaskRef{Step: 1, Under: lead.ID}); err != nil || !s.Gated {
			t.Errorf("%s: gated %v, %v", name, s.Gated, err)
		}
	}
	n.SetPolicy(rules(t, policy.Gate{}))
	ref.Gate = time.Hour
	if lead, err = n.step(ann, "h", "sed q </dev/null", ref); err != nil {
		t.Fatal(err)
	}
	b := n.ballot(lead.ID, approval.Modify)
	b.Modified = &approval.Modification{Line: "echo instead"}
	if err := n.decide(boss, b); err != nil {
		t.Fatal(err)
	}
	if a, err := n.Approval(t.Context(), root, lead.ID); err != nil {
		t.Fatal(err)
	} else if a.State == approval.Pending {
		if err := n.decide(root, n.ballot(lead.ID, approval.Approve)); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := n.step(ann, "i", "echo instead", command.TaskRef{Step: 1, Under: lead.ID, Gate: time.Hour}); err != nil || s.Gated {
		t.Errorf("modified: gated %v, %v", s.Gated, err)
	}
}

func TestJudge(t *testing.T) {
	o := gated(t, policy.Gate{})
	n := start(t, o)
	for line, want := range map[string]string{"echo": "", "sed q": "", "apt": fault.ReasonPolicyDenied} {
		if err := n.Judge(t.Context(), ann, command.Spec{Host: "h", Line: line}); fault.ReasonOf(err) != want {
			t.Errorf("%s: %v", line, err)
		}
	}
	if err := n.Judge(t.Context(), ann, command.Spec{Host: "nowhere", Line: "echo"}); fault.ReasonOf(err) != fault.ReasonUnknownHost {
		t.Error(err)
	}
	if err := n.Judge(t.Context(), viewer, command.Spec{Host: "h", Line: "echo"}); fault.ReasonOf(err) != fault.ReasonRoleMissing {
		t.Error(err)
	}
	if rows := told(t, o, "", audit.CommandAccepted); len(rows) > 0 {
		t.Errorf("%d commands were accepted", len(rows))
	}
}

// moved are hosts of which one is at another address by now.
type moved struct {
	hosts
	name string
}

func (m moved) Lookup(name string) (inventory.Host, error) {
	h, err := m.hosts.Lookup(name)
	if name == m.name {
		h.Address = "203.0.113.9:22"
	}
	return h, err
}
