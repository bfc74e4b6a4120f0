package sqlite

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
)

// kinds are filters of every kind, from none to all at once.
func kinds() map[string]command.Filter {
	labels := map[string]string{"env": "prod"}
	now := time.Now()
	return map[string]command.Filter{
		"all":       {},
		"page":      {Before: idAt(now)},
		"time":      {From: now.Add(-time.Hour), To: now},
		"state":     {States: []command.State{command.Failed}},
		"states":    {States: command.States},
		"host":      {Host: "web1"},
		"principal": {Principal: "deploy", Before: idAt(now)},
		"origin":    {Origin: command.OriginMCP},
		"session":   {Session: "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
		"label":     {Labels: labels},
		"visible":   {Visible: &command.Visible{Principal: "deploy", Hosts: []string{"web1", "web2"}}, Before: idAt(now)},
		"many":      {Visible: &command.Visible{Principal: "deploy", Hosts: manyHosts(visibleMost + 10)}},
		"own":       {Visible: &command.Visible{Principal: "deploy"}},
		"labels":    {Labels: map[string]string{"env": "prod", "app": "shop"}, From: now},
		"everything": {States: command.States[4:], Host: "web1", Principal: "deploy", Origin: command.OriginCLI, Session: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Labels: labels,
			Visible: &command.Visible{Principal: "ann", Hosts: []string{"web1", "web2"}},
			From:    now.Add(-time.Hour), To: now, Before: idAt(now)},
	}
}

func manyHosts(n int) (hosts []string) {
	for i := range n {
		hosts = append(hosts, fmt.Sprint("web", i))
	}
	return hosts
}

// TestListPlans shows that no list walks the history, whichever condition was
// found to be the rarest.
func TestListPlans(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for name, f := range kinds() {
		f.Limit = 50
		for rarest := range 9 {
			asked := 0
			in := inquiryOf(f, func(text string, args []any) (int, error) {
				for _, line := range plan(t, s, text, args) {
					if strings.HasPrefix(line, "SCAN c") {
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
				case strings.HasPrefix(line, "SCAN (subquery"), line == "SCAN c" && name == "all":
				case strings.HasPrefix(line, "SCAN"):
					t.Errorf("%s walks the history: %s\n%s", name, line, text)
				case strings.Contains(line, "TEMP B-TREE") && len(f.States) < 2 && f.Visible == nil:
					t.Errorf("%s sorts: %s\n%s", name, line, text)
				}
			}
		}
	}
	// Where a great many hosts have a great many commands, all is walked, in order.
	in := inquiryOf(kinds()["many"], func(string, []any) (int, error) { return probeMost, nil })
	text, args, err := in.compose()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range plan(t, s, text, args) {
		if strings.Contains(line, "TEMP B-TREE") || strings.Contains(line, "MULTI-INDEX") {
			t.Errorf("what can be seen is sorted: %s\n%s", line, text)
		}
	}
	for name, text := range map[string]string{"old": selectOld, "long": selectLong, "output": selectOutput} {
		for _, line := range plan(t, s, text, make([]any, strings.Count(text, "?"))) {
			if strings.HasPrefix(line, "SCAN ") || strings.Contains(line, "TEMP B-TREE") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

func plan(t *testing.T, s *Store, text string, args []any) (lines []string) {
	t.Helper()
	rows, err := s.read.Query("EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var line string
		if err := rows.Scan(&id, &parent, &unused, &line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		t.Fatalf("no plan for %s", text)
	}
	return lines
}

// TestListRarest finds one command among many that fulfil each of two conditions
// but never both, by walking the third condition's two.
func TestListRarest(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	multiply(t, s, 3000)
	c := benchCommand(time.Now())
	c.Spec.Host, c.CreatedBy.Principal = "rare", "seldom"
	if _, _, err := s.Create(t.Context(), c, nil, nil, accepted(c)); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), command.Filter{Host: "rare", States: []command.State{command.Completed, command.Starting}, Limit: 50})
	if err != nil || len(list) != 1 || list[0].ID != c.ID {
		t.Fatalf("%d commands, %v", len(list), err)
	}
}

// TestManyKindsOfLists has more kinds of filters at once than statements are kept,
// and more callers than connections.
func TestManyKindsOfLists(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	multiply(t, s, 200)
	var wait sync.WaitGroup
	for i := range 2 * listingsMost {
		wait.Go(func() {
			f := command.Filter{Limit: 3, Labels: map[string]string{}}
			for j := range i / 32 {
				f.Labels[fmt.Sprint("label", j)] = ""
			}
			for bit, set := range []func(){
				func() { f.States = []command.State{command.Completed} },
				func() { f.Principal = "user1" },
				func() { f.Origin = command.OriginCLI },
				func() { f.From = time.Unix(0, 0) },
				func() { f.Before = "nothing is after the letter n" },
			} {
				if i>>bit&1 == 1 {
					set()
				}
			}
			if list, err := s.List(t.Context(), f); err != nil || (len(list) > 0) != (i < 32) {
				t.Errorf("%+v: %d commands, %v", f, len(list), err)
			}
		})
	}
	wait.Wait()
	if n := len(s.lists.statements); n != listingsMost {
		t.Errorf("%d statements are kept", n)
	}
}

// multiply fills the tables with n ended commands of many kinds, a second apart
// and older than now.
func multiply(t testing.TB, s *Store, n int) {
	t.Helper()
	c := benchCommand(time.Now().Add(-time.Hour))
	c.Spec.RequestID = ""
	if _, _, err := s.Create(t.Context(), c, nil, nil, accepted(c)); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), end(c)); err != nil {
		t.Fatal(err)
	}
	copied := func(table, key string, values map[string]string) string {
		rows, err := s.read.Query("SELECT name FROM pragma_table_info('" + table + "')")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var to, from []string
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			to = append(to, name)
			if value, ok := values[name]; ok {
				name = value
			}
			from = append(from, name)
		}
		return fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s, n WHERE %s = '%s'",
			table, strings.Join(to, ", "), strings.Join(from, ", "), table, key, c.ID)
	}
	// Not ULIDs, but of the right length and in the order of their times.
	id := fmt.Sprintf("printf('%s%%016d', i)", idAt(time.Now().Add(-2 * time.Hour))[:10])
	numbers := fmt.Sprintf("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", n)
	for _, text := range []string{
		copied("command", "id", map[string]string{"id": id,
			"host": "'web' || (i % 100)", "principal": "'user' || (i % 7)", "origin": "CASE i % 3 WHEN 0 THEN 'cli' WHEN 1 THEN 'rest' ELSE 'grpc' END",
			"state": "CASE WHEN i % 1000 = 0 THEN 'FAILED' ELSE 'COMPLETED' END", "create_time": "create_time + i * 1000"}),
		copied("command_spec", "command", map[string]string{"command": id}),
		copied("command_label", "command", map[string]string{"command": id, "value": "'team' || (i % 50)"}),
	} {
		err := s.writer.do(t.Context(), 0, func() error {
			_, err := s.writer.conn.ExecContext(t.Context(), numbers+text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkList compares a short history with one of 100,000 commands: the cost
// must not grow with it.
func BenchmarkList(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		s := benchStore(b)
		multiply(b, s, n)
		for name, f := range map[string]command.Filter{
			"newest": {}, "host": {Host: "web7"}, "none": {Host: "nowhere"}, "failed": {States: []command.State{command.Failed}},
			"active":  {States: []command.State{command.Queued, command.Starting, command.Running}},
			"exclude": {Host: "web7", Principal: "user1", States: []command.State{command.Failed}},
			"label":   {Labels: map[string]string{"env": "team3"}},
			"visible": {Visible: &command.Visible{Principal: "nobody", Hosts: []string{"web7", "web8", "nowhere"}}},
			"unseen":  {Visible: &command.Visible{Principal: "nobody", Hosts: []string{"nowhere"}}},
			"most":    {Visible: &command.Visible{Principal: "nobody", Hosts: manyHosts(1000)}},
			"hosts":   {Visible: &command.Visible{Principal: "nobody", Hosts: manyHosts(visibleMost)}},
			"many":    {Visible: &command.Visible{Principal: "nobody", Hosts: manyHosts(300)}, States: []command.State{command.Failed}},
		} {
			f.Limit = 50
			b.Run(fmt.Sprintf("%s/commands=%d", name, n), func(b *testing.B) {
				for b.Loop() {
					if _, err := s.List(b.Context(), f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
