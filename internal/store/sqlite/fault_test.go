package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// want requires a fault of a kind with words in what people are shown of it.
func want(t *testing.T, err error, kind fault.Kind, words string) {
	t.Helper()
	e := fault.From(err)
	if e == nil || e.Kind != kind || !strings.Contains(e.Text(), words) {
		t.Fatalf("error %v; want kind %d with %q", err, kind, words)
	}
	if e.Hint == "" {
		t.Fatalf("no hint in %v", err)
	}
}

func create(t *testing.T, s *Store) command.Command {
	t.Helper()
	c := benchCommand(time.Now())
	if _, _, err := s.Create(t.Context(), c, nil, nil, accepted(c)); err != nil {
		t.Fatal(err)
	}
	return c
}

// appended applies a change that adds to stdout and gives the command as it is then.
func appended(t testing.TB, s *Store, c command.Command, data []byte) command.Command {
	t.Helper()
	chunk := command.Chunk{Offset: c.Size[0], Data: data}
	c.Size[0] = chunk.End()
	c.Version++
	if err := s.Apply(t.Context(), command.Change{From: c.State, Fence: c.Fence, Command: c, Output: []command.Chunk{chunk}}); err != nil {
		t.Fatal(err)
	}
	return c
}

// onWriter does something to the writer's connection.
func onWriter(t *testing.T, s *Store, text string) {
	t.Helper()
	s.writer.turn.Lock()
	defer s.writer.turn.Unlock()
	if _, err := s.writer.conn.ExecContext(context.Background(), text); err != nil {
		t.Fatal(err)
	}
}

// lockOut takes the write lock as another program would, until unlock.
func lockOut(t *testing.T, s *Store) (unlock func()) {
	t.Helper()
	other, err := s.writer.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		_, err := other.ExecContext(context.Background(), "ROLLBACK")
		if err := errors.Join(err, other.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// check reads the whole database and fails the test where it is damaged.
func check(t *testing.T, s *Store) {
	t.Helper()
	var verdict string
	if err := s.read.QueryRow("PRAGMA quick_check(1)").Scan(&verdict); err != nil || verdict != "ok" {
		t.Fatalf("the database is damaged: %s, %v", verdict, err)
	}
}

// TestDiskFull limits the file, then has one caller ask for more than there is
// room for in the same transaction as others who ask for little.
func TestDiskFull(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	big := create(t, s)
	small := make([]command.Command, 10)
	for i := range small {
		small[i] = create(t, s)
	}
	onWriter(t, s, "PRAGMA max_page_count = 60")
	step := func(c command.Command, n int) command.Change {
		c.Version++
		c.Size[0] = int64(n)
		return command.Change{From: c.State, Fence: c.Fence, Command: c, Output: []command.Chunk{{Data: make([]byte, n)}}}
	}
	part := func(ch command.Change) *change {
		run, err := runOf(ch.Output)
		return &change{do: func() error { return errors.Join(err, s.writer.apply(&ch, run, filed{})) }}
	}
	var group []*change
	for _, c := range small {
		group = append(group, part(step(c, 100)))
	}
	group = slices.Insert(group, 5, part(step(big, 1<<20)))
	s.writer.turn.Lock()
	s.writer.commit(group)
	s.writer.turn.Unlock()
	bigErr := failed("test", group[5].err)
	for i, c := range group {
		if i != 5 && c.err != nil {
			t.Errorf("a small change failed with the big one: %v", c.err)
		}
	}
	want(t, bigErr, fault.Unavailable, "no space left")
	got, err := s.Get(t.Context(), big.ID)
	if err != nil || got.Version != big.Version {
		t.Fatalf("half applied: %+v, %v", got, err)
	}
	if data, err := s.ReadOutput(t.Context(), big.ID, command.Stdout, 0, 10); err != nil || len(data) != 0 {
		t.Fatalf("half applied: %d bytes, %v", len(data), err)
	}
	onWriter(t, s, "PRAGMA max_page_count = 1000000")
	if err := s.Apply(t.Context(), step(big, 1<<20)); err != nil {
		t.Fatalf("after there is room again: %v", err)
	}
	check(t, s)
}

// TestFileSystemFull fills a real file system.
func TestFileSystemFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	s := open(t, dir)
	defer s.Close()
	c := create(t, s)
	write := func(n int) error {
		next := c
		next.Version++
		chunk := command.Chunk{Offset: c.Size[0], Data: bytes.Repeat([]byte{byte(c.Version)}, n)}
		next.Size[0] = chunk.End()
		err := s.Apply(t.Context(), command.Change{From: c.State, Fence: c.Fence, Command: next, Output: []command.Chunk{chunk}})
		if err == nil {
			c = next
		}
		return err
	}
	var err error
	for err == nil {
		err = write(300_000)
	}
	want(t, err, fault.Unavailable, "")
	got, err := s.Get(t.Context(), c.ID)
	if err != nil || got.Version != c.Version || got.Size != c.Size {
		t.Fatalf("version %d size %d, %v; want %d and %d", got.Version, got.Size, err, c.Version, c.Size)
	}
	data, err := s.ReadOutput(t.Context(), c.ID, command.Stdout, 0, 8<<20)
	if err != nil || int64(len(data)) != c.Size[0] {
		t.Fatalf("%d bytes of %d, %v", len(data), c.Size[0], err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if err := write(300_000); err != nil {
		t.Fatalf("after there is room again: %v", err)
	}
}

// TestFilesTakeTheDisk brings more at once than a real file system holds: what was
// written of it is given back, so that there is room for how the command ended.
func TestFilesTakeTheDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	s := open(t, dir)
	defer s.Close()
	first := bytes.Repeat([]byte("first "), bulkSize)
	c := appended(t, s, create(t, s), first)
	chunk := command.Chunk{Offset: c.Size[0], Data: make([]byte, 16<<20)}
	want(t, s.Apply(t.Context(), command.Change{From: c.State, Fence: c.Fence, Command: c, Output: []command.Chunk{chunk}}),
		fault.Unavailable, "no space left")
	if info, err := os.Stat(file(s, c.ID)); err != nil || info.Size() != c.Size[0] {
		t.Fatalf("the file has %d bytes, %v; want %d", info.Size(), err, c.Size[0])
	}
	if err := s.Apply(t.Context(), end(c, command.Chunk{Offset: c.Size[0], Data: []byte("last")})); err != nil {
		t.Fatal(err)
	}
	reads(t, s, c.ID, 0, append(first, "last"...))
}

// TestHalfWay has the database fail at each table in turn, after other tables
// were written: nothing of the change may be left, and later ones go on.
func TestHalfWay(t *testing.T) {
	for _, on := range []string{
		"INSERT ON command", "INSERT ON command_spec", "INSERT ON command_start", "INSERT ON command_label", "INSERT ON command_redact", "INSERT ON request",
		"INSERT ON audit", "INSERT ON audit_head", "DELETE ON command_redact",
		"INSERT ON output_chunk", "INSERT ON output_order", "UPDATE ON command", "DELETE ON command_start",
		"DELETE ON output_chunk", "DELETE ON output_order", "DELETE ON command_label", "DELETE ON request", "DELETE ON command", "DELETE ON command_spec",
	} {
		t.Run(on, func(t *testing.T) {
			s := open(t, t.TempDir())
			defer s.Close()
			c := create(t, s)
			next := end(c, command.Chunk{Data: make([]byte, 3<<20)}, command.Chunk{Stream: command.Stderr, Data: []byte("err")})
			next.Order = []command.Sizes{{1 << 20, 1}}
			steps := []func() error{
				func() error { _, _, err := s.Create(t.Context(), c, nil, nil, accepted(c)); return err },
				func() error { return s.Apply(t.Context(), next) },
				func() error {
					_, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), TrimTo: 100})
					return err
				},
				func() error {
					_, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(100 * time.Hour), DeleteAfter: time.Hour})
					return err
				},
			}
			// The command of this test is a new one; the first is a bystander.
			c = benchCommand(time.Now())
			c.Spec.Redact = []secret.Text{secret.New("hush")}
			next.Command.ID, next.Command.Spec, next.Command.CreateTime = c.ID, c.Spec, c.CreateTime
			failures := 0
			for i, step := range steps {
				before := tables(t, s)
				onWriter(t, s, "CREATE TRIGGER fail BEFORE "+on+" BEGIN SELECT RAISE(ABORT, 'this test'); END")
				err := step()
				onWriter(t, s, "DROP TRIGGER fail")
				if err == nil {
					continue
				}
				failures++
				if fault.KindOf(err) != fault.Internal {
					t.Fatalf("step %d: %v", i, err)
				}
				// Retention works in steps: what it has cut stays cut.
				if after := tables(t, s); i < 2 && after != before {
					t.Fatalf("step %d left something half done\nbefore %s\nafter  %s", i, before, after)
				}
				if err := step(); err != nil {
					t.Fatalf("step %d, again: %v", i, err)
				}
			}
			if failures == 0 {
				t.Fatal("nothing failed")
			}
			check(t, s)
			if err := verify(t, s); err != nil {
				t.Fatal(err)
			}
			if got := tables(t, s); got != "command 1 command_label 1 command_spec 1 command_start 1 command_redact 0 approval 0 output_chunk 0 output_order 0 request 0 api_key 0 audit 3 audit_head 1 " {
				t.Fatalf("at last there is %s", got)
			}
		})
	}
}

// tables counts the rows of all tables.
func tables(t *testing.T, s *Store) (counts string) {
	t.Helper()
	for _, name := range []string{"command", "command_label", "command_spec", "command_start", "command_redact", "approval", "output_chunk", "output_order", "request", "api_key", "audit", "audit_head"} {
		var n int
		if err := s.read.QueryRow("SELECT count(*) FROM " + name).Scan(&n); err != nil {
			t.Fatal(err)
		}
		counts += fmt.Sprint(name, " ", n, " ")
	}
	return counts
}

// TestHalfWayDecided has the database fail at each table in turn, in the second of
// two steps where it can: nothing of the first is left either.
func TestHalfWayDecided(t *testing.T) {
	for _, on := range []string{
		"UPDATE ON approval", "UPDATE ON command_spec", "UPDATE ON command", "INSERT ON command_start", "DELETE ON command_start", "INSERT ON command_redact",
		"DELETE ON command_redact", "INSERT ON command_label", "DELETE ON command_label", "INSERT ON audit", "INSERT ON audit_head",
	} {
		t.Run(on, func(t *testing.T) {
			s := open(t, t.TempDir())
			defer s.Close()
			var steps []approval.Step
			for range 2 {
				c := benchCommand(time.Now())
				c.State, c.Spec.Redact = command.AwaitingApproval, []secret.Text{secret.New("hush")}
				gate := approval.Approval{CommandID: c.ID, Version: 1, State: approval.Pending}
				if _, _, err := s.Create(t.Context(), c, nil, &gate, accepted(c)); err != nil {
					t.Fatal(err)
				}
				spec := c.Spec
				spec.Host, spec.Line, spec.Labels = "web2", "true", map[string]string{"env": "test"}
				gate.Version, gate.State = 2, approval.Approved
				next := c
				next.State = command.Queued
				steps = append(steps, approval.Step{Approval: gate, Spec: &spec, Change: command.Change{From: c.State, Fence: c.Fence, Command: next,
					Audit: []audit.Entry{{Kind: audit.ApprovalDecided, CommandID: c.ID}}}})
			}
			before := content(t, s, steps)
			// Where the table has the command's id, only the second one fails.
			when := " WHEN 1"
			switch _, table, _ := strings.Cut(on, " ON "); {
			case table == "audit":
				when = " WHEN new.command = '" + steps[1].Approval.CommandID + "'"
			case table == "command":
				when = " WHEN old.id = '" + steps[1].Approval.CommandID + "'"
			case table != "audit_head" && strings.HasPrefix(on, "INSERT"):
				when = " WHEN new.command = '" + steps[1].Approval.CommandID + "'"
			case table != "audit_head":
				when = " WHEN old.command = '" + steps[1].Approval.CommandID + "'"
			}
			onWriter(t, s, "CREATE TRIGGER fail BEFORE "+on+when+" BEGIN SELECT RAISE(ABORT, 'this test'); END")
			if err := s.Decide(t.Context(), steps); fault.KindOf(err) != fault.Internal || err == nil {
				t.Fatal(err)
			}
			onWriter(t, s, "DROP TRIGGER fail")
			if after := content(t, s, steps); after != before {
				t.Fatalf("half decided:\n%s\nbefore:\n%s", after, before)
			}
			if err := s.Decide(t.Context(), steps); err != nil {
				t.Fatal(err)
			}
			if after := content(t, s, steps); strings.Count(after, "APPROVED") != 2 || strings.Count(after, "web2") != 2 {
				t.Fatalf("decided:\n%s", after)
			}
			if err := verify(t, s); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// content is all that is stored of the commands of some steps, and how much is told.
func content(t *testing.T, s *Store, steps []approval.Step) string {
	t.Helper()
	text := tables(t, s)
	for _, st := range steps {
		c, err := s.Get(t.Context(), st.Approval.CommandID)
		a, err2 := s.Approval(t.Context(), st.Approval.CommandID)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("\n%+v\n%+v", c, a)
	}
	return text
}

// TestHalfWayKeys has the audit fail: then there is no key either, and none revoked.
func TestHalfWayKeys(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	add := func() error {
		return s.AddKey(t.Context(), access.Key{ID: "k", Name: "ci"}, audit.Entry{Kind: audit.TokenCreated})
	}
	revoke := func() error {
		_, err := s.RevokeKey(t.Context(), "ci", time.Now(), audit.Entry{Kind: audit.TokenRevoked})
		return err
	}
	for i, step := range []func() error{add, revoke} {
		onWriter(t, s, "CREATE TRIGGER fail BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'this test'); END")
		if err := step(); err == nil {
			t.Fatal("it was done in silence")
		}
		onWriter(t, s, "DROP TRIGGER fail")
		if list, err := s.Keys(t.Context()); err != nil || len(list) != i || i == 1 && !list[0].RevokeTime.IsZero() {
			t.Fatalf("keys %+v, %v", list, err)
		}
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if err := verify(t, s); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedApprovalsAndKeys writes what none can be: lists go on without them.
func TestDamagedApprovalsAndKeys(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	var ids []string
	for range 3 {
		c := benchCommand(time.Now())
		c.State = command.AwaitingApproval
		if _, _, err := s.Create(t.Context(), c, nil, &approval.Approval{CommandID: c.ID, State: approval.Pending, Roles: []string{"a"}}, accepted(c)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	for _, damage := range []string{"state = 'SIDEWAYS'", "roles = x'0505'", "requester_roles = x'01'", "decisions = x'01'", "allow_self = 7"} {
		var logged bytes.Buffer
		s.log = slog.New(slog.NewTextHandler(&logged, nil))
		for _, set := range []string{"state = 'PENDING', roles = x'010161', requester_roles = NULL, decisions = NULL, allow_self = 0", damage} {
			if _, err := s.writer.db.Exec("UPDATE approval SET "+set+" WHERE command = ?", ids[1]); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Approval(t.Context(), ids[1]); set == damage {
				want(t, err, fault.DataLoss, ids[1])
				if fault.ReasonOf(err) != fault.ReasonStoreDamaged {
					t.Fatalf("%s: %v", damage, err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range []approval.Filter{{Limit: 2}, {}, {Visible: &approval.Visible{Roles: []string{"a"}}, Limit: 2}} {
			list, err := s.Approvals(t.Context(), f)
			if err != nil || len(list) != 2 || list[0].CommandID != ids[2] || list[1].CommandID != ids[0] {
				t.Fatalf("%s, %+v: %d approvals, %v", damage, f, len(list), err)
			}
		}
		if line := "command=" + ids[1]; !strings.Contains(logged.String(), line) {
			t.Fatalf("%s: the log says nothing of it: %s", damage, &logged)
		}
	}
	for _, name := range []string{"a", "b"} {
		if err := s.AddKey(t.Context(), access.Key{ID: name, Name: name}, audit.Entry{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"UPDATE api_key SET hash = x'00' WHERE id = 'a'", "UPDATE api_key SET hash = zeroblob(32), roles = x'05' WHERE id = 'a'"} {
		if _, err := s.writer.db.Exec(text); err != nil {
			t.Fatal(err)
		}
		if list, err := s.Keys(t.Context()); err != nil || len(list) != 1 || list[0].Name != "b" {
			t.Fatalf("%+v, %v", list, err)
		}
		_, err := s.RevokeKey(t.Context(), "a", time.Now(), audit.Entry{})
		want(t, err, fault.DataLoss, "API key")
	}
}

func TestReadOnly(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := create(t, s)
	onWriter(t, s, "PRAGMA query_only = 1")
	fresh := benchCommand(time.Now())
	_, _, err := s.Create(t.Context(), fresh, nil, nil, accepted(fresh))
	want(t, err, fault.Unavailable, "cannot be written")
	want(t, s.Apply(t.Context(), end(c)), fault.Unavailable, "cannot be written")
	_, err = s.Retain(t.Context(), command.Retention{Now: time.Now().Add(48 * time.Hour)})
	want(t, err, fault.Unavailable, "cannot be written")
	if _, err := s.Get(t.Context(), c.ID); err != nil {
		t.Fatalf("what is stored can still be read: %v", err)
	}
}

// TestLockedByAnotherProgram has somebody else hold the write lock for longer
// than the writer waits.
func TestLockedByAnotherProgram(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := create(t, s)
	onWriter(t, s, "PRAGMA busy_timeout = 1")
	unlock := lockOut(t, s)
	want(t, s.Ping(t.Context()), fault.Unavailable, "another program")
	want(t, s.Apply(t.Context(), end(c)), fault.Unavailable, "another program")
	unlock()
	if err := s.Apply(t.Context(), end(c)); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedRows writes what no Command can be into one column after another.
func TestDamagedRows(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	var logged bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&logged, nil))
	for i, text := range []string{
		"UPDATE command SET state = 'SIDEWAYS' WHERE id = ?",
		"UPDATE command SET core_dumped = 7 WHERE id = ?",
		"UPDATE command SET cancel_principal = '', cancel_report = x'ff' WHERE id = ?",
		"UPDATE command_spec SET labels = x'0105' WHERE command = ?",
		"UPDATE command_spec SET argv = x'0501' WHERE command = ?",
	} {
		c := create(t, s)
		bystander := create(t, s)
		if _, err := s.writer.db.Exec(text, c.ID); err != nil {
			t.Fatal(err)
		}
		_, err := s.Get(t.Context(), c.ID)
		want(t, err, fault.DataLoss, c.ID)
		// A list goes on without it, and its page is as full as ever.
		list, err := s.List(t.Context(), command.Filter{Before: bystander.ID + "~", Limit: 2})
		if err != nil || len(list) != min(2, 1+i) || list[0].ID != bystander.ID {
			t.Fatalf("%d commands, %v", len(list), err)
		}
		if line := fmt.Sprintf("command=%s", c.ID); !strings.Contains(logged.String(), line) {
			t.Fatalf("the log says nothing of %s: %s", c.ID, &logged)
		}
		if _, err := s.Get(t.Context(), bystander.ID); err != nil {
			t.Fatal(err)
		}
		// The repeated request meets it too.
		again := c
		again.ID = benchCommand(time.Now()).ID
		_, _, err = s.Create(t.Context(), again, nil, nil, accepted(again))
		want(t, err, fault.DataLoss, c.ID)
	}

	c := create(t, s)
	for range 3 {
		c = appended(t, s, c, make([]byte, 100_000))
	}
	for _, text := range []string{
		"DELETE FROM output_chunk WHERE command = ? AND offset = 165536",
		"DELETE FROM output_chunk WHERE command = ? AND offset > 0",
		"DELETE FROM output_chunk WHERE command = ?",
	} {
		if _, err := s.writer.db.Exec(text, c.ID); err != nil {
			t.Fatal(err)
		}
		_, err := s.ReadOutput(t.Context(), c.ID, command.Stdout, 0, 300_000)
		want(t, err, fault.DataLoss, c.ID)
		_, err = s.ReadOutput(t.Context(), c.ID, command.Stdout, 170_000, 10)
		want(t, err, fault.DataLoss, c.ID)
	}

	// A record that the request table names is gone.
	c = create(t, s)
	if _, err := s.writer.db.Exec("DELETE FROM command WHERE id = ?", c.ID); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Create(t.Context(), c, nil, nil, accepted(c))
	want(t, err, fault.DataLoss, c.ID)
}

// TestDamagedFile overwrites a page in the middle of the file.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for range 50 {
		create(t, s)
	}
	check(t, s)
	s.Close()
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for page := int64(3); page < 12; page++ {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, pageSize), page*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	s = open(t, dir)
	defer s.Close()
	_, err = s.List(t.Context(), command.Filter{Host: "web1", States: []command.State{command.Starting}})
	want(t, err, fault.DataLoss, "damaged")
}
