package sqlite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
)

// manyApprovals stores n approvals of 7 principals and 100 hosts for "approver",
// every thousandth one for "lead" and of a command of "seldom", on host "rare". The
// newest ten wait.
func manyApprovals(t testing.TB, s *Store, n int) {
	t.Helper()
	multiply(t, s, n)
	const of = " FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS i FROM command)"
	for _, text := range []string{
		fmt.Sprintf(`INSERT INTO approval SELECT id, 1, iif(i > %d, 'PENDING', 'APPROVED'), '', 1, iif(i %% 1000 = 7, x'01046c656164', x'0108617070726f766572'), 0, 1,
			iif(i %% 1000 = 7, 'seldom', 'user' || (i %% 7)), 'cli', NULL, iif(i %% 1000 = 7, 'rare', 'web' || (i %% 100)), '', 'true', 1, '', '', x'01', 1, 0, NULL`, n-10) + of,
		"INSERT INTO approval_role SELECT iif(i % 1000 = 7, 'lead', 'approver'), id" + of,
	} {
		err := s.writer.do(t.Context(), 0, func() error {
			_, err := s.writer.conn.ExecContext(t.Context(), text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// approvalFilters are of every kind.
func approvalFilters() map[string]approval.Filter {
	pending := []approval.State{approval.Pending}
	return map[string]approval.Filter{
		"all":       {},
		"page":      {Before: idAt(time.Now())},
		"pending":   {States: pending},
		"states":    {States: approval.States},
		"own":       {Visible: &approval.Visible{Principal: "user1"}},
		"operator":  {Visible: &approval.Visible{Principal: "user1", Hosts: []string{"web1", "web8"}}},
		"approver":  {Visible: &approval.Visible{Principal: "ann", Roles: []string{"approver"}}},
		"lead":      {Visible: &approval.Visible{Principal: "ann", Roles: []string{"lead", "none"}}},
		"nothing":   {Visible: &approval.Visible{Principal: "ann", Roles: []string{"none"}, Hosts: []string{"nowhere"}}, States: pending},
		"waits":     {Visible: &approval.Visible{Principal: "ann", Roles: []string{"lead"}}, States: pending},
		"next":      {Visible: &approval.Visible{Principal: "ann", Roles: []string{"approver"}, Hosts: []string{"web1"}}, Before: idAt(time.Now())},
		"twice":     {Visible: &approval.Visible{Principal: "ann", Roles: []string{"approver"}, Hosts: manyHosts(visibleMost)}},
		"few":       {Visible: &approval.Visible{Principal: "ann", Hosts: append(manyHosts(10), "rare")}},
		"many":      {Visible: &approval.Visible{Principal: "ann", Roles: []string{"lead"}, Hosts: manyHosts(visibleMost + 10)}},
		"many wait": {Visible: &approval.Visible{Principal: "ann", Roles: []string{"lead"}, Hosts: manyHosts(visibleMost + 10)}, States: pending},
	}
}

// TestApprovalPlans shows that no list of approvals walks the history, whatever was
// found to be the rarest.
func TestApprovalPlans(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for name, f := range approvalFilters() {
		f.Limit = 50
		for rarest := range 4 {
			asked := 0
			in := approvalInquiry(f, func(text string, args []any) (int, error) {
				for _, line := range plan(t, s, text, args) {
					if strings.HasPrefix(line, "SCAN a") || strings.HasPrefix(line, "SCAN r") {
						t.Errorf("%s: the count walks the history: %s", name, line)
					}
				}
				if asked++; asked == rarest {
					return 1, nil
				}
				return 100, nil
			})
			text, args, err := in.compose()
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range plan(t, s, text, args) {
				switch {
				case strings.HasPrefix(line, "SCAN (subquery"), line == "SCAN a" && name == "all":
				case strings.HasPrefix(line, "SCAN"):
					t.Errorf("%s walks the history: %s\n%s", name, line, text)
				case strings.Contains(line, "MULTI-INDEX"):
					t.Errorf("%s gathers: %s\n%s", name, line, text)
				case strings.Contains(line, "TEMP B-TREE") && len(f.States) < 2 && f.Visible == nil:
					t.Errorf("%s sorts: %s\n%s", name, line, text)
				}
			}
		}
	}
	// Their removal walks nothing either.
	for _, text := range []string{"DELETE FROM approval_role WHERE command = ?", "SELECT 1 FROM approval_role WHERE role IN (?1, ?1) AND command = ?1"} {
		for _, line := range plan(t, s, text, []any{""}) {
			if strings.HasPrefix(line, "SCAN") {
				t.Errorf("%s: %s", text, line)
			}
		}
	}
}

// TestApprovalCost counts what the walks of a list meet in a long history. Each stops
// at a full page, so only those count whose rows other conditions may refuse.
func TestApprovalCost(t *testing.T) {
	const limit, n = 20, 6_000
	s := open(t, t.TempDir())
	defer s.Close()
	manyApprovals(t, s, n)
	for name, f := range approvalFilters() {
		f.Limit = limit
		in := approvalInquiry(f, s.counter(t.Context()))
		best, err := in.rarest()
		if err != nil {
			t.Fatal(err)
		}
		// Whoever sees most of what there is finds a page in it soon.
		if all := name == "all" || name == "page" || name == "many"; all || best < 0 {
			if best >= 0 || !all {
				t.Errorf("%s: walks everything: %t", name, best < 0)
			}
			continue
		}
		if c := in.conditions[best]; len(in.conditions) > 1 || c.sorts {
			met := 0
			for _, w := range c.walks {
				where, args := in.bounds(w)
				rows, err := in.count("SELECT count(*) FROM "+w.from+" WHERE "+where, args)
				if err != nil {
					t.Fatal(err)
				}
				met += rows
			}
			if met > limit {
				t.Errorf("%s meets %d rows", name, met)
			}
		}
	}
	lead := approval.Filter{Visible: &approval.Visible{Roles: []string{"lead"}}, Limit: n}
	if list, err := s.Approvals(t.Context(), lead); err != nil || len(list) != n/1000 || list[0].Requester.Principal != "seldom" {
		t.Errorf("%d approvals, %v", len(list), err)
	}
}

// TestRolesGo shows that nothing is left of what approvals were found by.
func TestRolesGo(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := benchCommand(time.Now().Add(-time.Hour))
	c.State = command.AwaitingApproval
	gate := approval.Approval{CommandID: c.ID, Version: 1, State: approval.Pending, Roles: []string{"approver", "lead", "lead"}}
	if _, _, err := s.Create(t.Context(), c, nil, &gate, accepted(c)); err != nil {
		t.Fatal(err)
	}
	left := func(want int) {
		t.Helper()
		var n int
		if err := s.read.QueryRow("SELECT count(*) FROM approval_role").Scan(&n); err != nil || n != want {
			t.Errorf("%d roles, want %d; %v", n, want, err)
		}
	}
	left(2)
	gate.Version, gate.Roles, gate.State = 2, []string{"root"}, approval.Rejected
	ch := end(c)
	ch.From = c.State
	if err := s.Decide(t.Context(), []approval.Step{{Approval: gate, Change: ch}}); err != nil {
		t.Fatal(err)
	}
	left(1)
	if done, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(48 * time.Hour), DeleteAfter: time.Hour}); err != nil || done.Deleted != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	left(0)
}

// BenchmarkApprovals compares a short history with one of 100,000 approvals: the
// cost must not grow with it.
func BenchmarkApprovals(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		s := benchStore(b)
		manyApprovals(b, s, n)
		for name, f := range approvalFilters() {
			f.Limit = 50
			b.Run(fmt.Sprintf("%s/approvals=%d", name, n), func(b *testing.B) {
				for b.Loop() {
					if _, err := s.Approvals(b.Context(), f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
