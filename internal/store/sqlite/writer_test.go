package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// TestContextEndsInQueue has a change's context end before its turn, and in it.
func TestContextEndsInQueue(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	begun, goOn := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var inTurn, inQueue error
	wait.Go(func() {
		inTurn = s.writer.do(ctx, 0, func() error {
			close(begun)
			<-goOn
			return nil
		})
	})
	<-begun
	late := benchCommand(time.Now())
	wait.Go(func() { _, _, inQueue = s.Create(ctx, late, nil, nil, accepted(late)) })
	for queued := 0; queued == 0; runtime.Gosched() {
		s.writer.mu.Lock()
		queued = len(s.writer.queue)
		s.writer.mu.Unlock()
	}
	cancel()
	wait.Wait()
	want(t, inTurn, fault.Cancelled, "may have been applied")
	if e := fault.From(inQueue); e == nil || e.Kind != fault.Cancelled || strings.Contains(e.Text(), "may have") {
		t.Errorf("withdrawn: %v", inQueue)
	}
	close(goOn)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), late.ID); fault.KindOf(err) != fault.NotFound {
		t.Fatalf("a withdrawn change was made: %v", err)
	}
}

// TestLockedGroupFailsOnce has another program hold the lock: the whole group
// waits for it once, not each change.
func TestLockedGroupFailsOnce(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	onWriter(t, s, "PRAGMA busy_timeout = 1")
	unlock := lockOut(t, s)
	defer unlock()
	begins := countBegins(t, s)
	group := make([]*change, 100)
	for i := range group {
		group[i] = &change{do: func() error { t.Error("it was done without a transaction"); return nil }}
	}
	s.writer.turn.Lock()
	s.writer.commit(group)
	s.writer.turn.Unlock()
	if n := begins.Load(); n != 1 {
		t.Errorf("it waited %d times for the lock, want once", n)
	}
	for _, c := range group {
		want(t, failed("test", c.err), fault.Unavailable, "another program")
	}
}

// countBegins counts the transactions that the writer tries to begin from now on.
func countBegins(t *testing.T, s *Store) *atomic.Int32 {
	t.Helper()
	b := &begins{real: s.writer.begin}
	db := sql.OpenDB(b)
	t.Cleanup(func() { db.Close() })
	counted, err := db.Prepare("")
	if err != nil {
		t.Fatal(err)
	}
	s.writer.turn.Lock()
	defer s.writer.turn.Unlock()
	s.writer.begin = counted
	return &b.tried
}

// begins is a database/sql driver of the one statement that begins a transaction
// of the writer's: it counts, and has the real one do it.
type begins struct {
	real  *sql.Stmt
	tried atomic.Int32
}

func (b *begins) Connect(context.Context) (driver.Conn, error) { return b, nil }
func (b *begins) Driver() driver.Driver                        { return nil }
func (b *begins) Prepare(string) (driver.Stmt, error)          { return b, nil }
func (b *begins) Begin() (driver.Tx, error)                    { return nil, driver.ErrSkip }
func (b *begins) Close() error                                 { return nil }
func (b *begins) NumInput() int                                { return 0 }
func (b *begins) Query([]driver.Value) (driver.Rows, error)    { return nil, driver.ErrSkip }

func (b *begins) Exec([]driver.Value) (driver.Result, error) {
	b.tried.Add(1)
	return b.real.Exec()
}

// TestFailedCommitFailsTheGroup has the commit fail after every change was done,
// one of them refused: nothing has happened, so nobody may be told anything else.
func TestFailedCommitFailsTheGroup(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	times := 0
	orphan := func() error {
		times++
		// A foreign key that is checked at the commit.
		_, err := s.writer.conn.ExecContext(context.Background(),
			"PRAGMA defer_foreign_keys = 1; INSERT INTO command_start (command, env, stdin) VALUES ('nobody', NULL, NULL)")
		return err
	}
	refused := func() error { return fault.New(fault.Aborted, fault.ReasonInternal, "refused") }
	group := []*change{{do: refused}, {do: orphan}, {do: refused}}
	s.writer.turn.Lock()
	s.writer.commit(group)
	s.writer.turn.Unlock()
	for i, c := range group {
		if c.err == nil || fault.KindOf(c.err) == fault.Aborted {
			t.Errorf("change %d: %v, want the failure of the commit", i, c.err)
		}
	}
	if times != 1 {
		t.Errorf("the change was tried %d times, want once", times)
	}
	create(t, s)
}

// TestIdleRetentionWritesNothing has nothing to retain: a round of it then must
// not even need the writer.
func TestIdleRetentionWritesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	create(t, s)
	onWriter(t, s, "PRAGMA busy_timeout = 1")
	unlock := lockOut(t, s)
	defer unlock()
	if _, err := s.Retain(t.Context(), command.Retention{Now: time.Now(), TrimTo: 1, DeleteAfter: time.Hour}); err != nil {
		t.Error(err)
	}
}

// TestUnsealedSecretsLeaveTheFile has what a start needs from a version that did not
// seal it, and looks for it in the file itself.
func TestUnsealedSecretsLeaveTheFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	secret := []byte("hush-" + strings.Repeat("0123456789abcdef", 4))
	c := benchCommand(time.Now())
	c.Spec.Env = map[string]string{"TOKEN": string(secret)}
	c.Spec.Stdin = bytes.Repeat(secret, 2000)
	if _, _, err := s.Create(t.Context(), c, nil, nil, accepted(c)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writer.db.Exec("UPDATE command_start SET env = ?, stdin = ?, sealed = 0", packMap(c.Spec.Env), c.Spec.Stdin); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if b, err := os.ReadFile(s.path); err != nil || !bytes.Contains(b, secret) {
		t.Fatalf("the secret is not there before the start: %v", err)
	}
	s = open(t, dir)
	if got, err := s.Get(t.Context(), c.ID); err != nil || got.Spec.Env["TOKEN"] != string(secret) || !bytes.Equal(got.Spec.Stdin, c.Spec.Stdin) {
		t.Fatalf("it is read as %d variables and %d bytes, %v", len(got.Spec.Env), len(got.Spec.Stdin), err)
	}
	if err := s.Apply(t.Context(), end(c)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if b, err := os.ReadFile(s.path); err != nil || bytes.Contains(b, secret) {
		t.Fatalf("the secret is still there: %v", err)
	}
	if _, err := os.Stat(s.path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the log is left: %v", err)
	}
}

// TestWALStaysBounded writes more than the log may hold.
func TestWALStaysBounded(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := create(t, s)
	data := make([]byte, bulkSize-1) // more would go into a file
	for range 2 * walMost / len(data) {
		c = appended(t, s, c, data)
	}
	info, err := os.Stat(s.path + "-wal")
	if err != nil || info.Size() > walMost*3/2 {
		t.Fatalf("the log has %d bytes, %v", info.Size(), err)
	}
}

// TestSpaceIsReused writes and deletes the same amount again and again.
func TestSpaceIsReused(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	var first int64
	for range 5 {
		c := create(t, s)
		for range 12 {
			c = appended(t, s, c, make([]byte, bulkSize-1))
		}
		if err := s.Apply(t.Context(), end(c)); err != nil {
			t.Fatal(err)
		}
		if done, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), DeleteAfter: time.Minute}); err != nil || done.Deleted != 1 {
			t.Fatalf("%+v, %v", done, err)
		}
		var pages int64
		if err := s.read.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = pages
		}
		if pages > first+10 {
			t.Fatalf("the file grew from %d to %d pages", first, pages)
		}
	}
}
