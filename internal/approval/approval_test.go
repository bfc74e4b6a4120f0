package approval

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

var (
	noon  = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	one   = []byte("hash of revision 1")
	two   = []byte("hash of revision 2")
	three = []byte("hash of revision 3")
)

func actor(name string) command.Actor {
	return command.Actor{Principal: name, Origin: command.OriginCLI}
}

func approver(name string, roles ...string) Decider {
	if roles == nil {
		roles = []string{"approver"}
	}
	return Decider{Actor: actor(name), Roles: roles}
}

// modification is a ballot of somebody who was shown the request of that hash.
func modification(reason string, shown []byte) Ballot {
	return Ballot{Verdict: Modify, Reason: reason, Shown: shown, Modified: &Modification{Line: "apt update"}}
}

// waiting is an approval as ann's command has it, for two approvers.
func waiting(edit ...func(*Approval)) Approval {
	a := Approval{
		CommandID: "id", Version: 1, State: Pending, Rule: "upgrades", Count: 2, Roles: []string{"approver", "lead"},
		Deadline: noon.Add(time.Hour), Requester: actor("ann"), RequesterRoles: []string{"operator"}, Host: "web1",
		Command: "apt upgrade", Revision: 1, Author: actor("ann"), Hash: one, CreateTime: noon,
	}
	for _, f := range edit {
		f(&a)
	}
	return a
}

func selfAllowed(a *Approval) { a.AllowSelf = true }
func forOne(a *Approval)      { a.Count = 1 }

// take takes a decision that must be possible.
func take(t *testing.T, a Approval, d Decider, v Verdict) Approval {
	t.Helper()
	next, err := a.Take(d, v, "because", a.Hash, noon)
	if err != nil {
		t.Fatalf("%s by %s: %v", v, d.Principal, err)
	}
	return next
}

// same reports whether a refused decision has left everything as it was.
func same(a, b Approval) bool { return reflect.DeepEqual(a, b) }

func TestEnoughMustApprove(t *testing.T) {
	for count := range 4 {
		a := waiting(func(a *Approval) { a.Count = count })
		for n := 1; n <= max(count, 1); n++ { // at least one, whatever the rule says
			if a.State != Pending || !a.DecideTime.IsZero() {
				t.Fatalf("%d of %d are enough", n-1, count)
			}
			before := a
			a = take(t, a, approver(fmt.Sprintf("approver%d", n)), Approve)
			if a.Approvals() != n || a.Version != before.Version+1 || len(before.Decisions) != n-1 {
				t.Errorf("%d approvals, version %d", a.Approvals(), a.Version)
			}
		}
		if a.State != Approved || !a.DecideTime.Equal(noon) {
			t.Errorf("%d of %d: %s", a.Approvals(), count, a.State)
		}
	}
	d := take(t, waiting(), approver("bob"), Approve).Decisions[0]
	want := Decision{By: actor("bob"), Verdict: Approve, Reason: "because", Time: noon, Revision: 1, Hash: one}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("%+v", d)
	}
}

// Two deciders who begin from the same approval must not share what they append to.
func TestDecisionsOfOneApprovalAreApart(t *testing.T) {
	a := take(t, waiting(func(a *Approval) { a.Count = 9 }), approver("bob"), Approve)
	a.Decisions = slices.Grow(a.Decisions, 4)
	x, y := take(t, a, approver("carl"), Approve), take(t, a, approver("dora"), Reject)
	if x.Decisions[1].By.Principal != "carl" || y.Decisions[1].By.Principal != "dora" || len(a.Decisions) != 1 {
		t.Errorf("%v\n%v", x.Decisions, y.Decisions)
	}
	z, err := a.Revise(approver("carl"), modification("", one), two, "apt update", true, Gate{Roles: a.Roles}, noon)
	if err != nil || x.Decisions[1].Verdict != Approve || z.Decisions[1].Verdict != Modify {
		t.Errorf("%v: %v", err, z.Decisions)
	}
}

func TestOneRejectionIsEnough(t *testing.T) {
	a := take(t, waiting(func(a *Approval) { a.Count = 3 }), approver("bob"), Approve)
	a = take(t, a, approver("carl"), Reject)
	if a.State != Rejected || !a.DecideTime.Equal(noon) || a.Approvals() != 1 || a.Decisions[1].Verdict != Reject {
		t.Errorf("%+v", a)
	}
}

func TestWhoMayDecide(t *testing.T) {
	byBob := func(a *Approval) { *a = take(t, *a, approver("bob"), Approve) }
	ofBob := func(a *Approval) { a.Revision, a.Author = 2, actor("bob") }
	yesInRevision1 := func(a *Approval) { byBob(a); a.Revision = 2 }
	for name, c := range map[string]struct {
		a       Approval
		by      Decider
		approve string // words of the refusal; empty: may
		reject  bool   // may reject
	}{
		"an approver":                        {waiting(), approver("bob"), "", true},
		"one of the other role":              {waiting(), approver("bob", "viewer", "lead"), "", true},
		"an admin":                           {waiting(), approver("bob", "admin"), "", true},
		"no role":                            {waiting(), approver("bob", "operator"), "approver or lead", false},
		"no role at all":                     {waiting(), Decider{Actor: actor("bob")}, "approver or lead", false},
		"who asked":                          {waiting(), approver("ann"), "of their own", true},
		"who asked, an admin":                {waiting(), approver("ann", "admin"), "of their own", true},
		"who asked, without the role":        {waiting(), approver("ann", "operator"), "approver or lead", true},
		"who asked, through another door":    {waiting(), Decider{Actor: command.Actor{Principal: "ann", Origin: command.OriginWeb}, Roles: []string{"approver"}}, "of their own", true},
		"who asked, where it is allowed":     {waiting(selfAllowed), approver("ann"), "", true},
		"who asked, allowed, no role":        {waiting(selfAllowed), approver("ann", "viewer"), "approver or lead", true},
		"the author of a modification":       {waiting(ofBob), approver("bob"), "modification of their own", true},
		"the author, where self is allowed":  {waiting(ofBob, selfAllowed), approver("bob"), "modification of their own", true},
		"another than the author":            {waiting(ofBob), approver("carl"), "", true},
		"a second time":                      {waiting(byBob), approver("bob"), "approved it already", true},
		"a second time, where self allowed":  {waiting(selfAllowed, byBob), approver("bob"), "approved it already", true},
		"again, of the next revision":        {waiting(yesInRevision1), approver("bob"), "", true},
		"nobody, where the rule names none":  {waiting(func(a *Approval) { a.Roles = nil }), approver("bob"), "for", false},
		"the admin, where the rule has none": {waiting(func(a *Approval) { a.Roles = nil }), approver("bob", "admin"), "for", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.a.May(c.by)
			e := fault.From(err)
			if (err == nil) != (c.approve == "") || err != nil && (e.Reason != fault.ReasonNotYourDecision || e.Kind != fault.PermissionDenied ||
				!strings.Contains(e.Message, c.approve) || e.Metadata["command_id"] != "id") {
				t.Errorf("May: %v", err)
			}
			after, err := c.a.Take(c.by, Approve, "", one, noon)
			if (err == nil) != (c.approve == "") || err != nil && !same(after, c.a) {
				t.Errorf("Approve: %v, %+v", err, after)
			}
			after, err = c.a.Revise(c.by, modification("", one), two, "true", true, Gate{Count: 1, Roles: []string{"approver"}}, noon)
			if (err == nil) != (c.approve == "") || err != nil && !same(after, c.a) {
				t.Errorf("Revise: %v, %+v", err, after)
			}
			after, err = c.a.Take(c.by, Reject, "", one, noon)
			if (err == nil) != c.reject || err != nil && !same(after, c.a) || err == nil && after.State != Rejected {
				t.Errorf("Reject: %v, %+v", err, after)
			}
		})
	}
}

func TestEveryStateAndVerdict(t *testing.T) {
	bob := approver("bob")
	for _, s := range States {
		a := waiting(forOne, func(a *Approval) { a.State = s })
		for v, end := range map[Verdict]State{Approve: Approved, Reject: Rejected, Modify: Approved} {
			var after Approval
			var err error
			if v == Modify {
				after, err = a.Revise(bob, modification("", one), two, "true", true, Gate{Count: 1, Roles: []string{"approver"}}, noon)
			} else {
				after, err = a.Take(bob, v, "", one, noon)
			}
			switch e := fault.From(err); {
			case s == Pending:
				if err != nil || after.State != end {
					t.Errorf("%s × %s: %s, %v", s, v, after.State, err)
				}
			case err == nil || e.Reason != fault.ReasonAlreadyDecided || e.Kind != fault.FailedPrecondition || e.Hint == "" || !same(after, a):
				t.Errorf("%s × %s: %s, %v", s, v, after.State, err)
			}
		}
		// No verdict but these two is one, and least of all a yes.
		for _, v := range []Verdict{Modify, "", "YES"} {
			if after, err := a.Take(bob, v, "", one, noon); err == nil || !same(after, a) {
				t.Errorf("%s × %q: %s", s, v, after.State)
			}
		}
	}
	for _, s := range []State{Expired, Withdrawn} {
		a := waiting().End(s, noon)
		if a.State != s || a.Version != 2 || !a.DecideTime.Equal(noon) || a.May(bob) == nil {
			t.Errorf("%+v", a)
		}
	}
}

func TestWhatWasShownIsWhatRuns(t *testing.T) {
	bob := approver("bob")
	for _, shown := range [][]byte{nil, {}, two, one[:5], append(bytes.Clone(one), 0)} {
		a := waiting(forOne)
		for _, v := range []Verdict{Approve, Reject} {
			after, err := a.Take(bob, v, "", shown, noon)
			if e := fault.From(err); err == nil || e.Reason != fault.ReasonRequestChanged || e.Kind != fault.Aborted ||
				e.Metadata["revision"] != "1" || e.Metadata["command_id"] != "id" || e.Hint == "" || !same(after, a) {
				t.Errorf("%s of %q: %v", v, shown, err)
			}
		}
		after, err := a.Revise(bob, modification("", shown), two, "true", true, Gate{Roles: []string{"approver"}}, noon)
		if fault.ReasonOf(err) != fault.ReasonRequestChanged || !same(after, a) {
			t.Errorf("a modification of %q: %v", shown, err)
		}
	}
}

// The one who ends it at its deadline may be late, or not there. It is over all the
// same.
func TestNobodyDecidesAfterTheDeadline(t *testing.T) {
	a, bob := waiting(forOne), approver("bob")
	for _, late := range []time.Duration{0, time.Nanosecond, time.Hour} {
		now := a.Deadline.Add(late)
		for _, v := range []Verdict{Approve, Reject} {
			if after, err := a.Take(bob, v, "", one, now); fault.ReasonOf(err) != fault.ReasonAlreadyDecided || !same(after, a) {
				t.Errorf("%s %s late: %v", v, late, err)
			}
		}
		if after, err := a.Revise(bob, modification("", one), two, "true", true, Gate{Roles: a.Roles}, now); fault.ReasonOf(err) != fault.ReasonAlreadyDecided || !same(after, a) {
			t.Errorf("a modification %s late: %v", late, err)
		}
	}
	if after, err := a.Take(bob, Approve, "", one, a.Deadline.Add(-1)); err != nil || after.State != Approved {
		t.Errorf("just in time: %v", err)
	}
}

func TestANarrowerRequestIsApprovedByWhoNarrowsIt(t *testing.T) {
	a := take(t, waiting(), approver("bob"), Approve) // one of two, of revision 1
	gate := Gate{Rule: "updates", Count: 1, Roles: []string{"lead"}}
	a, err := a.Revise(approver("carl"), modification("less", one), two, "apt update", true, gate, noon)
	if err != nil {
		t.Fatal(err)
	}
	// Bob's yes was to something else; two are still needed.
	if a.State != Pending || a.Approvals() != 1 || a.Count != 2 || a.Revision != 2 || !bytes.Equal(a.Hash, two) || a.Command != "apt update" ||
		a.Rule != "updates" || !slices.Equal(a.Roles, []string{"lead"}) || a.Author != actor("ann") || a.Version != 3 {
		t.Errorf("%+v", a)
	}
	want := []Decision{
		{By: actor("bob"), Verdict: Approve, Reason: "because", Time: noon, Revision: 1, Hash: one},
		{By: actor("carl"), Verdict: Modify, Reason: "less", Time: noon, Revision: 1, Hash: one, Command: "apt update", Asked: (&Modification{Line: "apt update"}).digest()},
		{By: actor("carl"), Verdict: Approve, Reason: "less", Time: noon, Revision: 2, Hash: two},
	}
	if !reflect.DeepEqual(a.Decisions, want) {
		t.Errorf("%+v", a.Decisions)
	}
	if a.May(approver("carl", "lead")) == nil {
		t.Error("carl approves twice")
	}
	if a = take(t, a, approver("bob", "lead"), Approve); a.State != Approved {
		t.Errorf("%+v", a)
	}
	// Where one is enough, it is done.
	a, err = waiting(forOne).Revise(approver("bob"), modification("", one), two, "apt update", true, Gate{Count: 1, Roles: []string{"approver"}}, noon)
	if err != nil || a.State != Approved || !a.DecideTime.Equal(noon) {
		t.Errorf("%v: %+v", err, a)
	}
}

func TestAWiderRequestNeedsAnother(t *testing.T) {
	for _, count := range []int{0, 1, 3} { // that the rules ask for now
		a, err := waiting(forOne).Revise(approver("bob"), modification("more", one), two, "apt full-upgrade", false, Gate{Rule: "all", Count: count, Roles: []string{"approver"}}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if a.State != Pending || a.Approvals() != 0 || a.Count != max(1, count) || a.Author != actor("bob") || len(a.Decisions) != 1 {
			t.Errorf("%+v", a)
		}
		for _, who := range []string{"ann", "bob"} {
			if err := a.May(approver(who)); fault.ReasonOf(err) != fault.ReasonNotYourDecision {
				t.Errorf("%s may approve it: %v", who, err)
			}
		}
		if a.May(approver("carl")) != nil {
			t.Error("carl may not")
		}
		// Also not by narrowing it again, which would make a yes of it.
		if _, err := a.Revise(approver("bob"), modification("", two), three, "x", true, Gate{Roles: []string{"approver"}}, noon); fault.ReasonOf(err) != fault.ReasonNotYourDecision {
			t.Errorf("the author narrows it: %v", err)
		}
		// What carl narrows is bob's still.
		b, err := a.Revise(approver("carl"), modification("", two), three, "x", true, Gate{Count: 2, Roles: []string{"approver"}}, noon)
		if err != nil || b.Author != actor("bob") || b.May(approver("bob")) == nil {
			t.Errorf("%v: %+v", err, b)
		}
	}
	// A rule that asks for nobody does not make it approved by nobody.
	a, err := waiting(func(a *Approval) { a.Count = 0 }).Revise(approver("bob"), modification("", one), two, "x", false, Gate{Roles: []string{"approver"}}, noon)
	if err != nil || a.State != Pending {
		t.Errorf("%v: %s", err, a.State)
	}
}

// Whoever modifies it for ever must not make it too large to be sent.
func TestAnApprovalStaysSmall(t *testing.T) {
	a := waiting(func(a *Approval) { a.Count = 100 })
	line := strings.Repeat("€", 40_000)
	for n := 0; ; n++ {
		if n > MaxRevisions+1 {
			t.Fatal("there is no end")
		}
		hash := fmt.Append(nil, n)
		next, err := a.Revise(approver(fmt.Sprint("approver", n)), modification("", a.Hash), hash, line, false, Gate{Roles: a.Roles}, noon)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid || fault.From(err).Hint == "" || n != MaxRevisions || !same(next, a) {
				t.Errorf("after %d: %v", n, err)
			}
			break
		}
		a = next
		d := a.Decisions[n]
		if len(d.Command) > MaxShown || !strings.HasSuffix(d.Command, "€…") || !utf8.ValidString(d.Command) || a.Command != line {
			t.Fatalf("%d bytes of an earlier line", len(d.Command))
		}
	}
	if a = take(t, a, approver("zoe"), Reject); a.State != Rejected {
		t.Error("it can be decided no more")
	}
	if got := cut("apt update"); got != "apt update" {
		t.Errorf("%q", got)
	}
	if got := cut(strings.Repeat("\x80", 2*MaxShown)); len(got) > MaxShown {
		t.Errorf("%d bytes", len(got))
	}
}

// Who asks again since an answer was lost hears the same, whatever was decided
// meanwhile; another decision is not taken for that one.
func TestTaken(t *testing.T) {
	bob, carl := approver("bob"), approver("carl")
	yes := Ballot{Verdict: Approve, Shown: one}
	a, err := waiting().Take(bob, Approve, "", one, noon)
	if err != nil || !a.Taken(bob, yes) || a.Taken(carl, yes) {
		t.Fatal(err, a)
	}
	if a, err = a.Take(carl, Approve, "", one, noon); err != nil || !a.Taken(bob, yes) || !a.Taken(carl, yes) {
		t.Error("a decision that somebody else's has followed is not known any more")
	}
	if a.Taken(bob, Ballot{Verdict: Reject}) || a.Taken(bob, Ballot{Verdict: Approve, Shown: two}) || a.Taken(bob, Ballot{Verdict: Approve, Shown: one, Reason: "x"}) {
		t.Error("another decision is taken for this one")
	}
	other := func(m Modification) Ballot {
		b := modification("", one)
		b.Modified = &m
		return b
	}
	for _, narrower := range []bool{false, true} {
		a, err := waiting().Revise(bob, modification("", one), two, "apt update", narrower, Gate{Count: 2, Roles: []string{"approver"}}, noon)
		if err != nil || !a.Taken(bob, modification("", one)) || a.Taken(carl, modification("", one)) || a.Taken(bob, modification("", two)) {
			t.Error(err, a)
		}
		for _, m := range []Modification{
			{Line: "apt update", Timeout: time.Minute}, {Line: "apt upgrade"}, {Argv: []string{"apt", "update"}}, {Line: "apt update", Argv: []string{"x"}}, {},
		} {
			if a.Taken(bob, other(m)) {
				t.Errorf("%+v is taken for another modification", m)
			}
		}
	}
}
