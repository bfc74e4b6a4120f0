package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
)

// verify reads the whole chain and gives what is wrong with it.
func verify(t testing.TB, s *Store) error {
	t.Helper()
	head, err := s.AuditHead(t.Context())
	if err != nil {
		return err
	}
	var checker audit.Checker
	for after := int64(0); ; {
		rows, err := s.AuditChain(t.Context(), after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			_ = checker.Next(row) // the first break stays
			after = row.Seq
		}
		if len(rows) == 0 {
			return checker.End(head)
		}
	}
}

// attack does something to a database whose service is stopped, as whoever can write
// its file may.
func attack(t *testing.T, path string, do func(db *sql.DB) error) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, text := range []string{"DROP TRIGGER audit_is_not_changed", "DROP TRIGGER audit_is_not_removed"} {
		if _, err := db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := do(db); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{ // nobody shall see that they were gone
		"CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END",
		"CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END",
	} {
		if _, err := db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
}

// statement is an attack with SQL alone.
func statement(text string) func(db *sql.DB) error {
	return func(db *sql.DB) error {
		_, err := db.Exec(text)
		return err
	}
}

// forge puts rows behind number after, rightly linked, as whoever knows package
// audit can. Rows that are there are replaced.
func forge(after, last int64) func(db *sql.DB) error {
	return func(db *sql.DB) error {
		var hash []byte
		if err := db.QueryRow("SELECT hash FROM audit WHERE seq = ?", after).Scan(&hash); err != nil {
			return err
		}
		head := audit.Head{Seq: after, Hash: audit.Hash(hash)}
		for head.Seq < last {
			e := audit.Entry{Time: time.Now(), Kind: audit.Login, Principal: "nobody"}
			row := audit.Chain(head.Seq, head.Hash, e)
			c := columnsOf(&e)
			if _, err := db.Exec("INSERT OR REPLACE INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
				row.Seq, row.Prev[:], row.Hash[:], row.Text, c.time, c.kind, c.principal, c.host, c.command); err != nil {
				return err
			}
			if _, err := db.Exec("DELETE FROM audit_index WHERE seq = ?; INSERT INTO audit_index VALUES ('klogin', ?), ('pnobody', ?)", row.Seq, row.Seq, row.Seq); err != nil {
				return err
			}
			head = audit.Head{Seq: row.Seq, Hash: row.Hash}
		}
		return nil
	}
}

// TestTampering changes the database of a stopped service in every way there is: it
// starts again, and says so; the first broken row is named; and the break stays when
// the service goes on to write.
func TestTampering(t *testing.T) {
	const rows = 80 // of which the first 64 are indexed
	for _, c := range []struct {
		name   string
		do     func(db *sql.DB) error
		row    int64 // first broken row; 0: the head is no longer the service's
		logged string
	}{
		{"nothing", statement(""), -1, ""},
		{"text", statement(`UPDATE audit SET text = CAST(replace(CAST(text AS TEXT), '"ann"', '"bob"') AS BLOB) WHERE seq = 5`), 5, ""},
		{"text that is none", statement("UPDATE audit SET text = x'7b' WHERE seq = 5"), 5, ""},
		{"text and hash", func(db *sql.DB) error {
			var prev []byte
			if err := db.QueryRow("SELECT prev FROM audit WHERE seq = 5").Scan(&prev); err != nil {
				return err
			}
			row := audit.Chain(4, audit.Hash(prev), audit.Entry{Kind: audit.Login})
			c := columnsOf(&audit.Entry{Kind: audit.Login})
			_, err := db.Exec("UPDATE audit SET text = ?, hash = ?, time = ?, kind = ?, principal = '', host = '', command = '' WHERE seq = 5", row.Text, row.Hash[:], c.time, c.kind)
			return errors.Join(err, statement("DELETE FROM audit_index WHERE seq = 5; INSERT INTO audit_index VALUES ('klogin', 5)")(db))
		}, 6, ""},
		{"the last one's text", statement("UPDATE audit SET text = CAST('{}' AS BLOB) WHERE seq = 80"), 80, ""},
		{"hash", statement("UPDATE audit SET hash = zeroblob(32) WHERE seq = 5"), 5, ""},
		{"hash with more behind it", statement("UPDATE audit SET hash = CAST(hash || x'00' AS BLOB) WHERE seq = 5"), 5, ""},
		{"hash of the last one", statement("UPDATE audit SET hash = zeroblob(32) WHERE seq = 80"), 80, "does not end with"},
		{"prev", statement("UPDATE audit SET prev = zeroblob(32) WHERE seq = 5"), 5, ""},
		{"time", statement("UPDATE audit SET time = time + 1 WHERE seq = 5"), 5, ""},
		{"kind", statement("UPDATE audit SET kind = 'login' WHERE seq = 5"), 5, ""},
		{"principal", statement("UPDATE audit SET principal = 'bob' WHERE seq = 5"), 5, ""},
		{"no principal", statement("UPDATE audit SET principal = '' WHERE seq = 75"), 75, ""},
		{"host", statement("UPDATE audit SET host = 'web2' WHERE seq = 5"), 5, ""},
		{"command", statement("UPDATE audit SET command = 'x' WHERE seq = 5"), 5, ""},
		{"index", statement("DELETE FROM audit_index WHERE word = 'pann' AND seq = 5"), 5, ""},
		{"how far it is indexed", statement("UPDATE audit_head SET indexed = 80"), 0, "not written by this service"},
		{"latest time", statement("UPDATE audit_head SET latest = latest - 1"), 0, "not written by this service"},
		{"how far times go back", statement("UPDATE audit_head SET back = back + 1"), 0, "not written by this service"},
		{"deleted", statement("DELETE FROM audit WHERE seq = 5"), 5, ""},
		{"the first one deleted", statement("DELETE FROM audit WHERE seq = 1"), 1, ""},
		{"deleted and moved up", statement("DELETE FROM audit WHERE seq = 5; UPDATE audit SET seq = seq - 1 WHERE seq > 5"), 5, "does not end with"},
		{"swapped", statement("UPDATE audit SET seq = 1000 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = 6; UPDATE audit SET seq = 6 WHERE seq = 1000"), 5, ""},
		{"put in", statement("INSERT INTO audit SELECT 1000, prev, hash, text, time, kind, principal, host, command FROM audit WHERE seq = 3"), 81, "does not end with"},
		{"cut at the end", statement("DELETE FROM audit WHERE seq > 77"), 78, "does not end with"},
		{"all cut", statement("DELETE FROM audit; DELETE FROM audit_index"), 1, "does not end with"},
		{"appended", forge(80, 83), 81, "does not end with"},
		{"written anew from some row on", forge(50, 80), 80, "does not end with"},
		{"head deleted", statement("DELETE FROM audit_head"), 0, "not written by this service"},
		{"all cut and the head deleted", statement("DELETE FROM audit_head; DELETE FROM audit; DELETE FROM audit_index"), 0, "not written by this service"},
		{"cut, and a head made for it", statement(`DELETE FROM audit WHERE seq > 77;
			UPDATE audit_head SET seq = 77, hash = (SELECT hash FROM audit WHERE seq = 77)`), 0, "not written by this service"},
		{"tag", statement("UPDATE audit_head SET tag = zeroblob(32)"), 0, "not written by this service"},
		{"no tag", statement("UPDATE audit_head SET tag = x''"), 0, "not written by this service"},
		{"head hash with more behind it", statement("UPDATE audit_head SET hash = CAST(hash || x'00' AS BLOB)"), 0, "not written by this service"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "commands.db")
			var logged bytes.Buffer
			start := func() *Store {
				t.Helper()
				s, err := Open(t.Context(), path, Options{Key: testKey, Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s := start()
			first := make([]audit.Entry, rows)
			for i := range first {
				first[i] = audit.Entry{Time: time.UnixMicro(int64(i + 1)), Kind: audit.Refused, Principal: "ann", Host: "web1", CommandID: "c"}
			}
			tell(t, s, first[:indexStep]...)
			tell(t, s, first[indexStep:]...)
			if err := errors.Join(verify(t, s), s.Close()); err != nil || logged.Len() > 0 {
				t.Fatalf("before: %v; %s", err, &logged)
			}
			attack(t, path, c.do)

			s = start()
			if !strings.Contains(logged.String(), c.logged) || (logged.Len() > 0) != (c.logged != "") {
				t.Errorf("the log says %s; want %q", &logged, c.logged)
			}
			err := verify(t, s)
			broken, _ := errors.AsType[*audit.Break](err)
			switch {
			case c.row < 0:
				if err != nil {
					t.Fatal(err)
				}
			case c.row == 0:
				want(t, err, fault.DataLoss, "not written by this service")
			case broken == nil || broken.Seq != c.row:
				t.Fatalf("found %v; want row %d", err, c.row)
			}
			// The evidence outlives what is told from then on.
			for range 2 {
				for range 2 {
					tell(t, s, slices.Repeat([]audit.Entry{{Time: time.Now(), Kind: audit.Login, Principal: "eve"}}, indexStep/2+3)...)
				}
				after, _ := errors.AsType[*audit.Break](verify(t, s))
				if (after != nil) != (c.row >= 0) {
					t.Fatalf("after more was told: %v", verify(t, s))
				}
				if after != nil && broken != nil && c.logged == "" && *after != *broken {
					t.Fatalf("row %d was broken, %v", c.row, after)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = start()
			}
			if list, err := s.AuditRows(t.Context(), audit.Filter{Principal: "eve", From: time.Now().Add(-time.Hour)}); err != nil || len(list) != 2*(indexStep+6) {
				t.Errorf("%d rows are listed, %v", len(list), err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func tell(t testing.TB, s *Store, told ...audit.Entry) {
	t.Helper()
	if err := s.Record(t.Context(), told...); err != nil {
		t.Fatal(err)
	}
}

// TestAuditIsAppendOnly has our own program try.
func TestAuditIsAppendOnly(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	tell(t, s, audit.Entry{Kind: audit.Login}, audit.Entry{Kind: audit.Logout})
	for _, text := range []string{"UPDATE audit SET text = x''", "DELETE FROM audit", "UPDATE OR REPLACE audit SET seq = 1 WHERE seq = 2"} {
		if _, err := s.writer.db.Exec(text); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := verify(t, s); err != nil {
		t.Error(err)
	}
}

// TestAnotherKey opens the store with a key that is not the one it was written with.
func TestAnotherKey(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	c := create(t, s) // with a variable that is sealed
	s.Close()
	var logged bytes.Buffer
	s, err := Open(t.Context(), filepath.Join(dir, "commands.db"), Options{
		Key: seal.NewKey(bytes.Repeat([]byte{8}, seal.KeySize)), Logger: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.Contains(logged.String(), "not written by this service") {
		t.Errorf("the log says %s", &logged)
	}
	want(t, verify(t, s), fault.DataLoss, "not written by this service")
	// The command is there, without what cannot be read.
	got, err := s.Get(t.Context(), c.ID)
	if err != nil || !got.Spec.SecretsLost || len(got.Spec.Env) != len(c.Spec.Env) || slices.ContainsFunc(slices.Collect(maps.Values(got.Spec.Env)), func(v string) bool { return v != "" }) {
		t.Errorf("%+v, %v", got.Spec, err)
	}
	// What it starts itself is well, and so is what needs no secret any more.
	create(t, s)
	if err := s.Apply(t.Context(), end(c)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
}

func TestNoKey(t *testing.T) {
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), "commands.db"), Options{}); fault.KindOf(err) != fault.Internal {
		t.Fatalf("opened without a key: %v", err)
	}
}

// TestChainAfterRetry has one change of a group fail in the middle of what it tells:
// the others are tried alone, and the chain goes through them.
func TestChainAfterRetry(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	tell(t, s, audit.Entry{Kind: audit.Login})
	onWriter(t, s, "CREATE TRIGGER fail BEFORE INSERT ON audit WHEN new.kind = 'logout' BEGIN SELECT RAISE(ABORT, 'this test'); END")
	refused := fault.New(fault.Aborted, fault.ReasonInternal, "refused")
	var group []*change
	for i := range 9 {
		told := []audit.Entry{{Kind: audit.Login, Detail: fmt.Sprint(i)}, {Kind: audit.Refused}}
		switch i {
		case 4:
			told[1].Kind = audit.Logout
		case 6:
			group = append(group, &change{do: func() error { return refused }})
			continue
		}
		group = append(group, &change{do: func() error { return s.writer.tell(t.Context(), told...) }})
	}
	s.writer.turn.Lock()
	s.writer.commit(group)
	s.writer.turn.Unlock()
	for i, c := range group {
		if (c.err != nil) != (i == 4 || i == 6) {
			t.Errorf("change %d: %v", i, c.err)
		}
	}
	if err := verify(t, s); err != nil {
		t.Fatal(err)
	}
	tell(t, s, audit.Entry{Kind: audit.Login})
	if list, err := s.AuditRows(t.Context(), audit.Filter{}); err != nil || len(list) != 2+7*2 || verify(t, s) != nil {
		t.Fatalf("%d rows, %v, %v", len(list), err, verify(t, s))
	}
	// A group that fails at its end leaves nothing of the chain either.
	onWriter(t, s, "DROP TRIGGER fail; CREATE TRIGGER fail BEFORE INSERT ON audit_head BEGIN SELECT RAISE(ABORT, 'this test'); END")
	if err := s.Record(t.Context(), audit.Entry{Kind: audit.Login}); err == nil {
		t.Fatal("told without a head")
	}
	onWriter(t, s, "DROP TRIGGER fail")
	tell(t, s, audit.Entry{Kind: audit.Login})
	if list, err := s.AuditRows(t.Context(), audit.Filter{}); err != nil || len(list) != 3+7*2 || verify(t, s) != nil {
		t.Fatalf("%d rows, %v, %v", len(list), err, verify(t, s))
	}
}

// TestAuditDiskFull tells until the file has no room: a command that cannot be told
// of is not stored.
func TestAuditDiskFull(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	create(t, s)
	onWriter(t, s, "PRAGMA max_page_count = 90")
	var err error
	for err == nil {
		err = s.Record(t.Context(), audit.Entry{Kind: audit.Refused, Command: strings.Repeat("x", audit.MaxCommand)})
	}
	want(t, err, fault.Unavailable, "no space left")
	// There may be room left for what is smaller.
	before, told := tables(t, s), audit.Entry{}
	for err = nil; err == nil; {
		before = tables(t, s)
		c := benchCommand(time.Now())
		told = accepted(c)
		told.Command = strings.Repeat("x", audit.MaxCommand)
		_, _, err = s.Create(t.Context(), c, nil, nil, told)
	}
	want(t, err, fault.Unavailable, "no space left")
	if after := tables(t, s); after != before {
		t.Errorf("half stored: %s, before it was %s", after, before)
	}
	if err := verify(t, s); err != nil {
		t.Error(err)
	}
	onWriter(t, s, "PRAGMA max_page_count = 1000000")
	create(t, s)
	if err := verify(t, s); err != nil {
		t.Error(err)
	}
}

// TestAuditPlans shows that no list of the audit or of approvals walks all there is.
func TestAuditPlans(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	now := time.Now()
	for name, f := range map[string]audit.Filter{
		"page":  {Before: 7},
		"kind":  {Kinds: audit.Kinds[:1]},
		"kinds": {Kinds: audit.Kinds},
		"who":   {Principal: "ann", From: now, To: now},
		"where": {Host: "web1"},
		"what":  {CommandID: "x"},
		"all":   {Kinds: audit.Kinds[:2], Principal: "ann", Host: "web1", CommandID: "x", Before: 7},
	} {
		f.Limit = 50
		for rarest := range 5 {
			asked := 0
			in := auditInquiry(f, 1000, func(text string, args []any) (int, error) {
				plan(t, s, text, args)
				if asked++; asked == rarest {
					return 1, nil
				}
				return 100, nil
			})
			if err := s.auditBounds(t.Context(), in, f, chain{}); err != nil {
				t.Fatal(err)
			}
			text, args, err := in.compose()
			if err != nil {
				t.Fatal(err)
			}
			searched(t, s, name, text, args)
		}
	}
	for _, states := range [][]approval.State{approval.States[:1], approval.States} {
		in := approvalInquiry(approval.Filter{States: states, Before: "x", Limit: 50}, s.counter(t.Context()))
		text, args, err := in.compose()
		if err != nil {
			t.Fatal(err)
		}
		searched(t, s, fmt.Sprint(states), text, args)
	}
}

// searched requires that a statement scans no table.
func searched(t *testing.T, s *Store, name, text string, args []any) {
	t.Helper()
	for _, line := range plan(t, s, text, args) {
		if strings.HasPrefix(line, "SCAN ") && !strings.HasPrefix(line, "SCAN (subquery") {
			t.Errorf("%s: %s\n%s", name, line, text)
		}
	}
}
