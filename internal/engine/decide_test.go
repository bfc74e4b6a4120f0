package engine_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/telexec/telexec/internal/store/sqlite"
)

func person(name string, roles ...access.Role) access.Caller {
	return access.Caller{Principal: access.Principal{Name: name, Roles: roles}, Origin: command.OriginCLI, Address: "192.0.2.8", Call: "call-" + name}
}

var (
	boss   = person("boss", access.RoleApprover)
	chief  = person("chief", access.RoleApprover)
	root   = person("root", access.RoleAdmin)
	viewer = person("vic", access.RoleViewer)
	other  = person("otto", access.RoleOperator)
)

// rules are: cat, echo, exit, true and : may run, apt never, the rest needs approval.
func rules(t *testing.T, gate policy.Gate) *policy.Policy {
	t.Helper()
	p, err := policy.New(policy.Rules{
		Default: policy.RequireApproval, DefaultApproval: gate,
		Rules: []policy.Rule{
			{Name: "look", Effect: policy.Allow, Match: policy.Match{Programs: []string{"cat", "echo", "exit", "true", ":"}}},
			{Name: "never", Effect: policy.Deny, Match: policy.Match{Programs: []string{"apt"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func gated(t *testing.T, gate policy.Gate) engine.Options {
	o := fresh(t)
	o.Policy = rules(t, gate)
	return o
}

// asks has ann ask for a command that must be approved.
func (n *node) asks(line string, with ...func(*command.Spec)) string {
	n.t.Helper()
	spec := command.Spec{Host: "h", Line: line, Durability: n.kind}
	for _, f := range with {
		f(&spec)
	}
	s, _, err := n.Execute(n.t.Context(), ann, spec)
	if err != nil {
		n.t.Fatal(err)
	}
	if s.State != command.AwaitingApproval || s.Gate == nil || !s.Gated || s.Gate.State != approval.Pending {
		n.t.Fatalf("%q is %s, %+v", line, s.State, s.Gate)
	}
	return s.ID
}

// ballot is a vote on a command as it is now.
func (n *node) ballot(id string, v approval.Verdict) approval.Ballot {
	n.t.Helper()
	a, err := n.Approval(n.t.Context(), root, id)
	if err != nil {
		n.t.Fatal(err)
	}
	return approval.Ballot{CommandID: id, Verdict: v, Shown: a.Hash}
}

func (n *node) decide(by access.Caller, ballots ...approval.Ballot) error {
	_, err := n.Decide(n.t.Context(), by, ballots)
	return err
}

// told gives the audit's entries about a command, oldest first.
func told(t *testing.T, o engine.Options, id string, kinds ...audit.Kind) (list []audit.Entry) {
	t.Helper()
	rows, err := o.Journal.(*sqlite.Store).AuditRows(t.Context(), audit.Filter{CommandID: id, Kinds: kinds})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range slices.Backward(rows) {
		e, err := r.Entry()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func TestApproved(t *testing.T) {
	o := gated(t, policy.Gate{})
	n := start(t, o)
	id := n.asks("printf %s \"$SECRET\"; sed s/x/y/; exit 7", func(s *command.Spec) {
		s.Env, s.Stdin = map[string]string{"SECRET": "geheim"}, []byte("x marks\n")
	})
	if err := n.decide(ann, n.ballot(id, approval.Approve)); fault.ReasonOf(err) != fault.ReasonNotYourDecision {
		t.Errorf("an operator approves: %v", err)
	}
	both := ann
	both.Roles = append(slices.Clone(ann.Roles), access.RoleApprover)
	if err := n.decide(both, n.ballot(id, approval.Approve)); fault.ReasonOf(err) != fault.ReasonNotYourDecision {
		t.Errorf("one's own: %v", err)
	}
	b := n.ballot(id, approval.Approve)
	b.Shown = bytes.Repeat([]byte{1}, 32)
	if err := n.decide(boss, b); fault.ReasonOf(err) != fault.ReasonRequestChanged {
		t.Errorf("what was not shown: %v", err)
	}
	b = n.ballot(id, approval.Approve)
	b.Reason = "go"
	if err := n.decide(boss, b); err != nil {
		t.Fatal(err)
	}
	if err := n.decide(chief, b); fault.ReasonOf(err) != fault.ReasonAlreadyDecided {
		t.Errorf("a second time: %v", err)
	}
	s := n.ended(id)
	if out := n.output(id); s.State != command.Completed || code(s) != "7" || out != "geheimy marks\n" {
		t.Errorf("it is %s with %s, %q, %+v", s.State, code(s), out, s.Failure)
	}
	entries := told(t, o, id)
	var kinds []string
	for _, e := range entries {
		kinds = append(kinds, string(e.Kind)+" "+e.Principal+" "+e.Decision+" "+e.Outcome)
	}
	if want := []string{
		"command.accepted ann require_approval AWAITING_APPROVAL",
		"approval.decided boss APPROVED APPROVE",
		"command.ended ann  COMPLETED",
	}; !slices.Equal(kinds, want) {
		t.Fatalf("told %q", kinds)
	}
	if d := entries[1]; d.Detail != "go" || d.Address != boss.Address || d.Call != boss.Call || d.Rule != policy.RuleDefault || !bytes.Equal(d.RequestHash, entries[0].RequestHash) {
		t.Errorf("%+v", d)
	}
	if e := entries[2]; *e.ExitCode != 7 || e.Stdout.Size != 14 || string(e.Stdout.Head) != "" {
		t.Errorf("%+v", e)
	}
}

func TestRejected(t *testing.T) {
	o := gated(t, policy.Gate{Count: 2})
	n := start(t, o)
	for _, tc := range []struct {
		by     access.Caller
		before []access.Caller
	}{{boss, nil}, {boss, []access.Caller{chief}}, {boss, []access.Caller{boss}}, {ann, nil}, {root, nil}} {
		id := n.asks("uptime")
		for _, by := range tc.before {
			if err := n.decide(by, n.ballot(id, approval.Approve)); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.decide(tc.by, approval.Ballot{CommandID: id, Verdict: approval.Reject, Reason: "not today"}); err != nil {
			t.Fatal(tc.by.Name, err)
		}
		s := n.ended(id)
		if s.State != command.Rejected || reason(s) != fault.ReasonRejected || !strings.Contains(s.Failure.Message, "not today") || !strings.Contains(s.Failure.Message, tc.by.Name) || !s.StartTime.IsZero() {
			t.Errorf("%s: %s, %+v", tc.by.Name, s.State, s.Failure)
		}
		if entries := told(t, o, id, audit.CommandEnded); len(entries) != 1 || entries[0].Outcome != "REJECTED" {
			t.Errorf("told %+v", entries)
		}
		if err := n.decide(chief, approval.Ballot{CommandID: id, Verdict: approval.Reject}); fault.ReasonOf(err) != fault.ReasonAlreadyDecided {
			t.Errorf("again: %v", err)
		}
	}
	if running, queued := n.Load("h"); running+queued != 0 {
		t.Errorf("%d run and %d wait", running, queued)
	}
}

func TestTwoMustApprove(t *testing.T) {
	n := start(t, gated(t, policy.Gate{Count: 2}))
	id := n.asks("uname; exit 4")
	if err := n.decide(boss, n.ballot(id, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.AwaitingApproval || s.Gate.Approvals() != 1 {
		t.Fatalf("%s, %+v, %v", s.State, s.Gate, err)
	}
	// Twice is once.
	if err := n.decide(boss, n.ballot(id, approval.Approve)); err != nil {
		t.Errorf("twice: %v", err)
	}
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.AwaitingApproval || s.Gate.Approvals() != 1 {
		t.Fatalf("%s, %+v, %v", s.State, s.Gate, err)
	}
	if err := n.decide(chief, n.ballot(id, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(id); code(s) != "4" {
		t.Errorf("%s with %s", s.State, code(s))
	}
}

func TestNobodyDecides(t *testing.T) {
	o := gated(t, policy.Gate{Timeout: 50 * time.Millisecond})
	n := start(t, o)
	id := n.asks("uptime")
	s := n.ended(id)
	if s.State != command.Expired || reason(s) != fault.ReasonApprovalExpired {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	a, err := n.Approval(t.Context(), boss, id)
	if err != nil || a.State != approval.Expired || fault.ReasonOf(a.May) != fault.ReasonAlreadyDecided {
		t.Errorf("%+v, %v", a, err)
	}
	if entries := told(t, o, id, audit.CommandEnded); len(entries) != 1 || entries[0].Outcome != "EXPIRED" || entries[0].Reason != fault.ReasonApprovalExpired {
		t.Errorf("told %+v", entries)
	}
}

func TestCancelledWhileItWaits(t *testing.T) {
	o := gated(t, policy.Gate{})
	n := start(t, o)
	id := n.asks("uptime")
	s, report, err := n.Cancel(t.Context(), ann, id, 0, "changed my mind")
	if err != nil || s.State != command.Cancelled || report.Outcome != command.NeverStarted {
		t.Errorf("%s, %+v, %v", s.State, report, err)
	}
	if a, err := n.Approval(t.Context(), boss, id); err != nil || a.State != approval.Withdrawn {
		t.Errorf("%+v, %v", a, err)
	}
	var kinds []audit.Kind
	for _, e := range told(t, o, id) {
		kinds = append(kinds, e.Kind)
	}
	if !slices.Equal(kinds, []audit.Kind{audit.CommandAccepted, audit.CommandCancel, audit.CommandEnded}) {
		t.Errorf("told %q", kinds)
	}
}

// Several at once are all decided, or none is.
func TestBatch(t *testing.T) {
	n := start(t, gated(t, policy.Gate{}))
	a, b, c := n.asks("uname; exit 1"), n.asks("uname; exit 2"), n.asks("uname; exit 3")
	stale := n.ballot(b, approval.Approve)
	stale.Shown = bytes.Repeat([]byte{9}, 32)
	for name, ballots := range map[string][]approval.Ballot{
		"one that was not shown": {n.ballot(a, approval.Approve), stale},
		"one that is not there":  {n.ballot(a, approval.Approve), {CommandID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Verdict: approval.Approve}},
		"one twice":              {n.ballot(a, approval.Approve), n.ballot(a, approval.Reject)},
	} {
		if err := n.decide(boss, ballots...); err == nil {
			t.Errorf("%s: decided", name)
		}
		if s, err := n.Get(t.Context(), ann, a); err != nil || s.State != command.AwaitingApproval {
			t.Fatalf("%s: %s, %v", name, s.State, err)
		}
	}
	if err := n.decide(boss, n.ballot(a, approval.Approve), n.ballot(b, approval.Reject), n.ballot(c, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(a); code(s) != "1" {
		t.Error("a:", s.State)
	}
	if s := n.ended(b); s.State != command.Rejected {
		t.Error("b:", s.State)
	}
	if s := n.ended(c); code(s) != "3" {
		t.Error("c:", s.State)
	}
}

// Of many who decide at once one wins, and what is told is what happened.
func TestRacingDeciders(t *testing.T) {
	o := gated(t, policy.Gate{})
	n := start(t, o)
	for range 10 {
		id := n.asks("uname; exit 5")
		approve, reject := n.ballot(id, approval.Approve), n.ballot(id, approval.Reject)
		var wins atomic.Int32
		var all sync.WaitGroup
		for i := range 8 {
			b := approve
			if i%2 == 1 {
				b = reject
			}
			all.Go(func() {
				err := n.decide(person(fmt.Sprint("p", i), access.RoleApprover), b)
				switch fault.ReasonOf(err) {
				case "":
					wins.Add(1)
				case fault.ReasonAlreadyDecided, fault.ReasonRequestChanged:
				default:
					t.Error(err)
				}
			})
		}
		all.Go(func() { n.Cancel(t.Context(), ann, id, 0, "") })
		all.Wait()
		s := n.ended(id)
		decisions, ends := told(t, o, id, audit.ApprovalDecided), told(t, o, id, audit.CommandEnded)
		if int(wins.Load()) != len(decisions) || len(decisions) > 1 || len(ends) != 1 || ends[0].Outcome != string(s.State) {
			t.Fatalf("%d won, %d decisions and %d ends were told, it is %s", wins.Load(), len(decisions), len(ends), s.State)
		}
		if len(decisions) == 1 && (decisions[0].Outcome == "REJECT") != (s.State == command.Rejected) {
			t.Errorf("%s, and it is %s", decisions[0].Outcome, s.State)
		}
	}
}

func TestModified(t *testing.T) {
	o := gated(t, policy.Gate{})
	n := start(t, o)
	modify := func(id, line string) approval.Ballot {
		b := n.ballot(id, approval.Modify)
		b.Modified = &approval.Modification{Line: line}
		return b
	}
	t.Run("to less", func(t *testing.T) {
		id := n.asks("uname; uptime")
		if err := n.decide(boss, modify(id, "uname")); err != nil {
			t.Fatal(err)
		}
		if s := n.ended(id); code(s) != "0" || s.Spec.Line != "uname" {
			t.Errorf("%s with %s, %q", s.State, code(s), s.Spec.Line)
		}
		d := told(t, o, id, audit.ApprovalDecided)
		if len(d) != 1 || d[0].Outcome != "MODIFY" || d[0].Command != "uname" {
			t.Errorf("told %+v", d)
		}
	})
	t.Run("to less, which gets the input of what is left out", func(t *testing.T) {
		id := n.asks("head -n 1; uname; sh", func(s *command.Spec) { s.Stdin = []byte("exit 9\n") })
		if err := n.decide(boss, modify(id, "sh")); err != nil {
			t.Fatal(err)
		}
		if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.AwaitingApproval {
			t.Fatalf("what was no program runs as one by one's own word: %s, %v", s.State, err)
		}
		n.Cancel(t.Context(), ann, id, 0, "")
	})
	t.Run("to what needs no approval", func(t *testing.T) {
		id := n.asks("uname")
		if err := n.decide(boss, modify(id, "echo instead")); err != nil {
			t.Fatal(err)
		}
		if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.AwaitingApproval {
			t.Fatalf("what was not asked for runs by one's own word: %s, %v", s.State, err)
		}
		if err := n.decide(chief, n.ballot(id, approval.Approve)); err != nil {
			t.Fatal(err)
		}
		if s := n.ended(id); code(s) != "0" || n.output(id) != "instead\n" {
			t.Errorf("%s", s.State)
		}
	})
	t.Run("to more", func(t *testing.T) {
		id := n.asks("uname")
		before := n.ballot(id, approval.Approve)
		if err := n.decide(boss, modify(id, "uname; exit 8")); err != nil {
			t.Fatal(err)
		}
		if err := n.decide(chief, before); fault.ReasonOf(err) != fault.ReasonRequestChanged {
			t.Errorf("what was shown before: %v", err)
		}
		if err := n.decide(boss, n.ballot(id, approval.Approve)); fault.ReasonOf(err) != fault.ReasonNotYourDecision {
			t.Errorf("one's own modification: %v", err)
		}
		if err := n.decide(chief, n.ballot(id, approval.Approve)); err != nil {
			t.Fatal(err)
		}
		if s := n.ended(id); code(s) != "8" {
			t.Errorf("%s with %s", s.State, code(s))
		}
	})
	t.Run("to what is never allowed", func(t *testing.T) {
		id := n.asks("uname")
		if err := n.decide(boss, modify(id, "uname; apt upgrade")); fault.ReasonOf(err) != fault.ReasonPolicyDenied {
			t.Errorf("%v", err)
		}
		if s, err := n.Get(t.Context(), ann, id); err != nil || s.Spec.Line != "uname" || s.Gate.Revision != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		n.Cancel(t.Context(), ann, id, 0, "")
	})
}

// What waits, and what was approved and waits for its turn, goes on after a crash.
func TestApprovalOverARestart(t *testing.T) {
	o := gated(t, policy.Gate{Count: 2})
	o.Hosts = hosts{"h": 1}
	n := start(t, o)
	id := n.asks("sed s/x/y/", func(s *command.Spec) { s.Stdin = []byte("x\n") })
	if err := n.decide(boss, n.ballot(id, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	n.crash()
	n = start(t, o)
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.AwaitingApproval || s.Gate.Approvals() != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	busy := n.execute("cat", withInput)
	if err := n.decide(chief, n.ballot(id, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	n.Await(t.Context(), id, func(s engine.Snapshot) bool { return s.State == command.Queued })
	n.crash()
	n = start(t, o)
	n.ended(busy) // LOST: it was attached
	if s := n.ended(id); s.State != command.Completed || n.output(id) != "y\n" {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

// What runs is what was shown: a request that was changed in the store, or a host
// that is another one now, is not run.
func TestApprovalIsVoid(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, o *engine.Options, dir, id string){
		"the stored line": func(t *testing.T, o *engine.Options, dir, id string) {
			edit(t, dir, "UPDATE command_spec SET line = 'echo b' WHERE command = ?", id)
		},
		"the host": func(t *testing.T, o *engine.Options, dir, id string) { o.Hosts = elsewhere{} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			st := openJournal(t, dir)
			p, err := policy.New(policy.Rules{Default: policy.RequireApproval})
			if err != nil {
				t.Fatal(err)
			}
			o := engine.Options{Journal: st, Node: "n1", Policy: p, Limits: engine.Limits{MaxCommands: 1, MaxQueued: 10, MaxAwaiting: 10, QueueTimeout: time.Hour, DrainTimeout: time.Millisecond}}
			n := start(t, o)
			blocker := n.asks("sleep 60")
			if err := n.decide(boss, n.ballot(blocker, approval.Approve)); err != nil {
				t.Fatal(err)
			}
			n.Await(t.Context(), blocker, func(s engine.Snapshot) bool { return s.State == command.Running })
			id := n.asks("echo a")
			if err := n.decide(boss, n.ballot(id, approval.Approve)); err != nil {
				t.Fatal(err)
			}
			n.crash()
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
			change(t, &o, dir, id)
			o.Journal = openJournal(t, dir)
			n = start(t, o)
			if s := n.ended(id); s.State != command.Rejected || reason(s) != fault.ReasonApprovalVoid || !s.StartTime.IsZero() {
				t.Errorf("%s, %+v", s.State, s.Failure)
			}
		})
	}
}

func edit(t *testing.T, dir, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "telexec.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if r, err := db.Exec(statement, args...); err != nil {
		t.Fatal(err)
	} else if n, _ := r.RowsAffected(); n != 1 {
		t.Fatalf("%d rows changed", n)
	}
}

// elsewhere is the host h at another address.
type elsewhere struct{}

func (elsewhere) Lookup(name string) (inventory.Host, error) {
	return inventory.Host{Name: name, Address: "203.0.113.9:22", User: "root", MaxCommands: 1}, nil
}

func (e elsewhere) List() []inventory.Host { return nil }

// A rule may let others decide than holders of the role approver.
func TestPeersApprove(t *testing.T) {
	n := start(t, gated(t, policy.Gate{Roles: []string{"operator"}}))
	id := n.asks("uname; exit 9")
	if err := n.decide(boss, approval.Ballot{CommandID: id, Verdict: approval.Approve}); fault.ReasonOf(err) != fault.ReasonAccessDenied {
		t.Errorf("an approver, who is not asked: %v", err)
	}
	if err := n.decide(other, n.ballot(id, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(id); code(s) != "9" {
		t.Errorf("%s with %s", s.State, code(s))
	}
}

func TestListOfApprovals(t *testing.T) {
	n := start(t, gated(t, policy.Gate{}))
	first, second := n.asks("uname"), n.asks("uptime")
	ids := func(by access.Caller, mine bool) (ids []string) {
		list, _, err := n.Approvals(t.Context(), by, approval.Filter{}, mine)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			ids = append(ids, a.CommandID)
		}
		return ids
	}
	both := []string{second, first}
	for _, tc := range []struct {
		by   access.Caller
		all  []string
		mine []string
	}{{boss, both, both}, {root, both, both}, {ann, both, nil}, {other, nil, nil}, {viewer, nil, nil}} {
		if got := ids(tc.by, false); !slices.Equal(got, tc.all) {
			t.Errorf("%s sees %q", tc.by.Name, got)
		}
		if got := ids(tc.by, true); !slices.Equal(got, tc.mine) {
			t.Errorf("%s may decide %q", tc.by.Name, got)
		}
	}
	list, next, err := n.Approvals(t.Context(), boss, approval.Filter{Limit: 1}, false)
	if err != nil || len(list) != 1 || next != second {
		t.Errorf("%+v, %q, %v", list, next, err)
	}
	for _, id := range both {
		n.Cancel(t.Context(), ann, id, 0, "")
	}
}

// output gives what a command has written to stdout.
func (n *node) output(id string) string {
	n.t.Helper()
	var all []byte
	for { // what is stored and what is in memory may come one after the other
		data, err := n.ReadOutput(n.t.Context(), id, command.Stdout, int64(len(all)), 1<<20)
		if err != nil {
			n.t.Error(err)
		}
		if len(data) == 0 {
			return string(all)
		}
		all = append(all, data...)
	}
}
