package e2e

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the attacker's tool

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// attack is what somebody with the database's file does to the audit. It gives the
// row that must be named.
type attack struct {
	name string
	do   func(db *sql.DB, last int64) (broken int64, err error)
	// exported: an export that is checked elsewhere tells it too.
	exported bool
}

var attacks = []attack{
	{"a byte of a row's text is changed", func(db *sql.DB, last int64) (int64, error) {
		return last - 3, alter(db, "UPDATE audit SET text = CAST(substr(text, 1, 20) || char(unicode(substr(text, 21, 1)) + 1) || substr(text, 22) AS BLOB) WHERE seq = ?", last-3)
	}, true},
	{"a row is deleted", func(db *sql.DB, last int64) (int64, error) {
		return last - 2, alter(db, "DELETE FROM audit WHERE seq = ?", last-2)
	}, true},
	{"two rows are swapped", func(db *sql.DB, last int64) (int64, error) {
		return last - 4, alter(db, "UPDATE audit SET seq = CASE seq WHEN ?1 - 4 THEN ?1 + 1000 ELSE seq END WHERE seq = ?1 - 4; "+
			"UPDATE audit SET seq = ?1 - 4 WHERE seq = ?1 - 3; UPDATE audit SET seq = ?1 - 3 WHERE seq = ?1 + 1000", last)
	}, true},
	{"all from a row on is written anew", func(db *sql.DB, last int64) (int64, error) {
		// It fits together again, but for the row that the service has written since.
		return last + 1, rewrite(db, last-3)
	}, true},
	{"the last row is cut off", func(db *sql.DB, last int64) (int64, error) {
		return last, alter(db, "DELETE FROM audit WHERE seq = ?", last)
	}, true},
	{"the last rows are cut off, and the head is set back", func(db *sql.DB, last int64) (int64, error) {
		// The audit goes on, and leaves out a number.
		return last - 2, alter(db, "DELETE FROM audit WHERE seq > ?1 - 3; UPDATE audit_head SET seq = ?1 - 3, hash = (SELECT hash FROM audit WHERE seq = ?1 - 3)", last)
	}, true},
	{"the head is removed", func(db *sql.DB, last int64) (int64, error) {
		return last + 1, alter(db, "DELETE FROM audit_head")
	}, true},
	{"a column that rows are found by is changed", func(db *sql.DB, last int64) (int64, error) {
		return last - 3, alter(db, "UPDATE audit SET principal = 'somebody' WHERE seq = ?", last-3)
	}, true},
	{"all that rows are found by is removed, and said to be there", func(db *sql.DB, last int64) (int64, error) {
		// The head is no longer the service's: a number is left out.
		return last + 1, alter(db, "DELETE FROM audit_index; UPDATE audit_head SET indexed = 1")
	}, true},
	{"all of it is erased, as if nothing had ever been told", func(db *sql.DB, _ int64) (int64, error) {
		return 1, alter(db, "DELETE FROM audit_index; DELETE FROM audit_head; DELETE FROM audit")
	}, true},
}

// alter changes rows as somebody does who does not care for triggers.
func alter(db *sql.DB, statements string, args ...any) error {
	for _, trigger := range []string{"audit_is_not_changed", "audit_is_not_removed"} {
		if _, err := db.Exec("DROP TRIGGER " + trigger); err != nil {
			return err
		}
	}
	result, err := db.Exec(statements, args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("%d rows changed, %w", n, err)
	}
	return nil
}

// rewrite changes a row, and makes the chain behind it fit.
func rewrite(db *sql.DB, first int64) error {
	if err := alter(db, "UPDATE audit SET text = CAST(replace(CAST(text AS TEXT), '\"time\":\"20', '\"time\":\"19') AS BLOB) WHERE seq = ?", first); err != nil {
		return err
	}
	for seq := first; ; seq++ {
		var prev, text []byte
		err := db.QueryRow("SELECT (SELECT hash FROM audit WHERE seq = ?1 - 1), text FROM audit WHERE seq = ?1", seq).Scan(&prev, &text)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		hash := sha256.Sum256(slices.Concat(prev, text))
		at := "time" // as its text tells it
		if seq == first {
			at = "time - 3155760000000000"
		}
		if _, err := db.Exec("UPDATE audit SET time = "+at+", prev = ?, hash = ? WHERE seq = ?", prev, hash[:], seq); err != nil {
			return err
		}
	}
}

var brokenAt = regexp.MustCompile(`^broken at row (\d+): .`)

// auditor is an administrator with the real telexec.
type auditor struct {
	*testing.T
	env *testenv.Env
}

func (a auditor) cli(args ...string) testenv.Said {
	a.Helper()
	said, err := a.env.CLI(a.Context(), a.env.Token, args...)
	if err != nil {
		a.Fatalf("telexec %s: %v\n%s%s", strings.Join(args, " "), err, said.Stdout, said.Stderr)
	}
	return said
}

// intact checks the audit, and gives its last row and the hash of it.
func (a auditor) intact() (last int64, noted string) {
	a.Helper()
	said := a.cli("audit", "verify")
	_, noted, _ = strings.Cut(strings.TrimSpace(said.Stdout), "the last is ")
	row, _, _ := strings.Cut(noted, ":")
	last, err := strconv.ParseInt(row, 10, 64)
	if said.Code != 0 || err != nil || !strings.HasPrefix(said.Stdout, fmt.Sprintf("intact, %d rows", last)) {
		a.Fatalf("audit verify: %+v", said)
	}
	return last, noted
}

// broken checks that a verification names this row.
func (a auditor) broken(row int64, args ...string) {
	a.Helper()
	said := a.cli(append([]string{"audit", "verify"}, args...)...)
	m := brokenAt.FindStringSubmatch(said.Stdout)
	if said.Code != 1 || m == nil || m[1] != strconv.FormatInt(row, 10) {
		a.Errorf("audit verify %s: %+v, want row %d", strings.Join(args, " "), said, row)
	}
}

// TestAuditStory alters the audit on disk in every way, and looks whether it is
// told.
func TestAuditStory(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	a := auditor{t, env}
	agent, viewer := env.Key("agent", "operator"), env.Key(vera, "viewer")
	his := telexecv1.NewCommandServiceClient(env.As(agent))
	for i := range 5 {
		if _, err := his.Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: fmt.Sprint("echo ", i)}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := telexecv1.NewCommandServiceClient(env.As(viewer)).Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "id"}); err == nil {
		t.Error("a viewer may execute")
	}
	_, early := a.intact()
	store := filepath.Join(env.DataDir, "telexec.db")
	env.Stop()
	young := copyStore(t, store)
	env.Restart()
	for i := range 5 {
		if _, err := his.Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: fmt.Sprint("echo ", i)}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	// Every start of a command is on the record, and how it ended.
	var kinds []string
	for e := range auditOf(t.Context(), t, env, &telexecv1.ListAuditEntriesRequest{Principal: "agent"}) {
		kinds = append(kinds, e.GetKind())
	}
	if n := strings.Count(strings.Join(kinds, " "), "command.accepted"); n != 10 {
		t.Errorf("%d commands of the agent are told: %q", n, kinds)
	}
	env.Stop()
	good := copyStore(t, store)
	last := lastRow(t, store)

	for i, attack := range attacks {
		t.Run(attack.name, func(t *testing.T) {
			a := auditor{t, env}
			putStore(t, store, good)
			db := openStore(t, store)
			row, err := attack.do(db, last)
			if err := errorOf(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			env.Restart()
			defer env.Kill()
			a.broken(row)
			export := filepath.Join(env.Dir, fmt.Sprint("export", i))
			if said := a.cli("audit", "export", export); said.Code != 0 {
				t.Fatalf("audit export: %+v", said)
			}
			if attack.exported {
				a.broken(row, "--file", export)
			}
			// What it is found by, and what comes, does not hide it.
			if _, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "true"}, grpc.WaitForReady(true)); err != nil {
				t.Errorf("the service does not go on: %v", err)
			}
			a.broken(row)
		})
	}
	t.Run("an old file is put back", func(t *testing.T) {
		a := auditor{t, env}
		putStore(t, store, good)
		env.Restart()
		now, noted := a.intact()
		env.Stop()
		putStore(t, store, young)
		env.Restart()
		a.intact() // it fits together
		for range 20 {
			a.cli("ps", "--token", "txk_nobody") // so that there is another row of that number
		}
		if said := a.cli("audit", "verify", "--from", early); said.Code != 0 {
			t.Errorf("a row that is still there: %+v", said)
		}
		if said := a.cli("audit", "verify", "--from", noted); said.Code != 1 {
			t.Errorf("row %d was noted, and is not there: %+v", now, said)
		}
	})
}

// errorOf gives the first error.
func errorOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func openStore(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

func lastRow(t *testing.T, path string) (last int64) {
	t.Helper()
	db := openStore(t, path)
	err := db.QueryRow("SELECT max(seq) FROM audit").Scan(&last)
	if err := errorOf(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return last
}

// copyStore reads the database of a stopped service, and what belongs to it.
func copyStore(t *testing.T, path string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	content := make(map[string][]byte)
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if content[f], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	if len(content[path]) == 0 {
		t.Fatalf("no database in %q", files)
	}
	return content
}

// putStore puts it back, and nothing else.
func putStore(t *testing.T, path string, content map[string][]byte) {
	t.Helper()
	for f := range copyStore(t, path) {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	for f, b := range content {
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAuditSurvivesKills kills the service at random moments under load. What it
// has promised, what it lists and what the audit tells are the same each time.
func TestAuditSurvivesKills(t *testing.T) {
	t.Parallel()
	rounds, bound := 20, 15*time.Second
	if raceEnabled {
		rounds = 5
	}
	env := testenv.Start(t, testenv.WithConfig("policy: {rules: [{name: ask, effect: require_approval, match: {programs: [factor]}, approval: {roles: [admin], allow_self: true}}]}"))
	begun := time.Now()
	promised := make(map[string]bool)
	for round := range rounds {
		if time.Since(begun) > bound {
			t.Logf("%d rounds in %v", round, bound)
			break
		}
		for _, id := range loadUntilKilled(t, env) {
			promised[id] = true
		}
		env.Restart()
		accountsFor(t, env, promised, false)
		if t.Failed() {
			t.Fatalf("after %d kills", round+1)
		}
	}
	// Nothing goes on for ever.
	list, err := env.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{Active: true, PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.GetCommands() {
		if c.GetState() == awaiting {
			if _, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: c.GetId()}); err != nil {
				t.Error(err)
			}
		}
		await(t, env, c.GetId(), ended)
	}
	accountsFor(t, env, promised, true)
	t.Logf("%d commands were promised", len(promised))
}

// loadUntilKilled lets several callers start, approve and cancel commands, and
// kills the service at some moment. It gives the commands that were promised.
func loadUntilKilled(t *testing.T, env *testenv.Env) (promised []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var callers sync.WaitGroup
	commands, approvals := env.Commands(), telexecv1.NewApprovalServiceClient(env.Conn())
	for n := range 4 {
		callers.Go(func() {
			for ctx.Err() == nil {
				line := []string{"true", "echo told; exit 3", "sleep 0.2", "factor 6"}[n]
				r, err := commands.Execute(ctx, &telexecv1.ExecuteRequest{Host: env.Host, Command: line})
				if err != nil {
					return // it was killed
				}
				id := r.GetCommand().GetId()
				mu.Lock()
				promised = append(promised, id)
				mu.Unlock()
				if r.GetCommand().GetState() != awaiting {
					continue
				}
				a, err := approvals.GetApproval(ctx, &telexecv1.GetApprovalRequest{CommandId: id})
				if err != nil {
					return
				}
				verdict := decide(id, telexecv1.Verdict_VERDICT_APPROVE)
				verdict.Decisions[0].RequestHash = a.GetApproval().GetRequestHash()
				if _, err := approvals.DecideApprovals(ctx, verdict); err != nil {
					return
				}
			}
		})
	}
	select {
	case <-time.After(time.Duration(10+rand.IntN(150)) * time.Millisecond): // some moment
	case <-ctx.Done():
	}
	env.Kill()
	cancel()
	callers.Wait()
	return promised
}

// accountsFor checks that what is listed is told in the audit, once, and the other
// way round. Over: nothing runs any more.
func accountsFor(t *testing.T, env *testenv.Env, promised map[string]bool, over bool) {
	t.Helper()
	listed := make(map[string]*telexecv1.Command)
	list := func() {
		t.Helper()
		for page := ""; ; {
			r, err := env.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{PageSize: 1000, PageToken: page}, grpc.WaitForReady(true))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range r.GetCommands() {
				if listed[c.GetId()] == nil {
					listed[c.GetId()] = c
				}
			}
			if page = r.GetNextPageToken(); page == "" {
				return
			}
		}
	}
	list() // before the audit is read: what has ended by now is told by then
	told := map[string]map[string]int{"command.accepted": {}, "command.ended": {}}
	for e := range auditOf(t.Context(), t, env, &telexecv1.ListAuditEntriesRequest{Kinds: []string{"command.accepted", "command.ended"}}) {
		told[e.GetKind()][e.GetCommandId()]++
		if c := listed[e.GetCommandId()]; e.GetKind() == "command.ended" && ended(c) && "COMMAND_STATE_"+e.GetOutcome() != c.GetState().String() {
			t.Errorf("the audit tells of %v: %v", c, e)
		}
	}
	for id, c := range listed {
		if n := told["command.accepted"][id]; n != 1 {
			t.Errorf("%d entries tell that %s was accepted: %v", n, id, c)
		}
		if n := told["command.ended"][id]; n > 1 || n == 0 && ended(c) || over && n != 1 {
			t.Errorf("%d entries tell that %s has ended: %v", n, id, c)
		}
	}
	for kind, ids := range told {
		for id := range ids {
			if listed[id] == nil {
				t.Errorf("%s of %s, and there is no such command", kind, id)
			}
		}
	}
	for id := range promised {
		if listed[id] == nil {
			t.Errorf("%s was promised and is lost", id)
		}
	}
	v, err := env.Admin().VerifyAudit(t.Context(), &telexecv1.VerifyAuditRequest{}, grpc.WaitForReady(true))
	if err != nil || !v.GetIntact() {
		t.Errorf("the audit: %v, %v", v, err)
	}
}

// auditOf gives the entries that match, newest first.
func auditOf(ctx context.Context, t testing.TB, env *testenv.Env, r *telexecv1.ListAuditEntriesRequest) func(func(*telexecv1.AuditEntry) bool) {
	t.Helper()
	return func(yield func(*telexecv1.AuditEntry) bool) {
		t.Helper()
		for r.PageSize = 1000; ; {
			page, err := env.Admin().ListAuditEntries(ctx, r, grpc.WaitForReady(true))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.GetEntries() {
				if !yield(e) {
					return
				}
			}
			if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
				return
			}
		}
	}
}
