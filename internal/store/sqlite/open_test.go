package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "tele xec?#%41")
	s := open(t, dir)
	defer s.Close()
	create(t, s)
	for name, mode := range map[string]os.FileMode{
		"": 0o700 | os.ModeDir, "commands.db": 0o600, "commands.db-wal": 0o600, "commands.db-shm": 0o600, "commands.db.lock": 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%q: mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
	for pragma, value := range map[string]string{"page_size": itoa(pageSize), "journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "secure_delete": "1"} {
		var got string
		err := s.writer.do(t.Context(), 0, func() error {
			return s.writer.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got)
		})
		if err != nil || got != value {
			t.Errorf("%s is %s, %v; want %s", pragma, got, err, value)
		}
	}
	if _, err := s.read.Exec("DELETE FROM command"); err == nil {
		t.Error("a reader's connection can write")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Run("second opener", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		_, err := Open(t.Context(), filepath.Join(dir, "commands.db"), Options{Key: testKey})
		want(t, err, fault.Unavailable, fmt.Sprintf("(process %d)", os.Getpid()))
		create(t, s) // the first one is not disturbed
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		open(t, dir).Close()
	})
	prepared := func(t *testing.T, pragma string) string {
		dir := t.TempDir()
		s := open(t, dir)
		if _, err := s.writer.db.Exec(pragma); err != nil {
			t.Fatal(err)
		}
		s.Close()
		return filepath.Join(dir, "commands.db")
	}
	t.Run("newer tables", func(t *testing.T) {
		path := prepared(t, "PRAGMA user_version = 999")
		before, _ := os.ReadFile(path)
		_, err := Open(t.Context(), path, Options{Key: testKey})
		want(t, err, fault.FailedPrecondition, "newer telexecd (its version is 999")
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Error("the file was changed")
		}
	})
	t.Run("another program's database", func(t *testing.T) {
		_, err := Open(t.Context(), prepared(t, "PRAGMA application_id = 7"), Options{Key: testKey})
		want(t, err, fault.FailedPrecondition, "another program")
	})
	t.Run("no database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "commands.db")
		if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), path, Options{Key: testKey})
		want(t, err, fault.DataLoss, "damaged")
	})
	t.Run("no file", func(t *testing.T) {
		_, err := Open(t.Context(), t.TempDir(), Options{Key: testKey})
		want(t, err, fault.Unavailable, "is a directory")
	})
	t.Run("no directory", func(t *testing.T) {
		_, err := Open(t.Context(), "/dev/null/x/commands.db", Options{Key: testKey})
		want(t, err, fault.Unavailable, "not a directory")
	})
	t.Run("no lock file", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "commands.db.lock"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), filepath.Join(dir, "commands.db"), Options{Key: testKey})
		want(t, err, fault.Unavailable, "cannot be locked")
	})
	t.Run("ended context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Open(ctx, filepath.Join(t.TempDir(), "commands.db"), Options{Key: testKey})
		if fault.KindOf(err) != fault.Cancelled {
			t.Fatal(err)
		}
	})
}

func TestMigrate(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := create(t, s)
	text, err := steps(migrations)
	if err != nil {
		t.Fatal(err)
	}
	last := len(text) // what the program has; the test's own come behind
	files := func(more ...string) fstest.MapFS {
		from := fstest.MapFS{}
		for i, step := range append(slices.Clip(text), more...) {
			from[fmt.Sprintf("migrations/%04d_step.sql", i+1)] = &fstest.MapFile{Data: []byte(step)}
		}
		return from
	}
	version := func() (n int) {
		if err := s.read.QueryRow("PRAGMA user_version").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	migrated := func(from fstest.MapFS) error {
		conn, err := s.writer.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return migrate(t.Context(), conn, from, testKey)
	}
	const add = "ALTER TABLE command ADD COLUMN nice INTEGER NOT NULL DEFAULT 5; CREATE TABLE more (x);"
	gap := files(add, "")
	delete(gap, fmt.Sprintf("migrations/%04d_step.sql", last+1))
	for _, wrong := range []fstest.MapFS{files(add, "CREATE TABLE more (x)"), gap} {
		if err := migrated(wrong); err == nil {
			t.Fatal("no error")
		}
		if n := version(); n != last {
			t.Fatalf("version %d after a failure", n)
		}
	}
	for range 2 {
		if err := migrated(files(add)); err != nil {
			t.Fatal(err)
		}
	}
	var nice int
	if err := s.read.QueryRow("SELECT nice FROM command WHERE id = ?", c.ID).Scan(&nice); err != nil || nice != 5 || version() != last+1 {
		t.Fatalf("nice %d, version %d, %v", nice, version(), err)
	}
}

// A database of every earlier version is brought up to date with what is in it.
func TestMigrateWhatIsThere(t *testing.T) {
	all, err := steps(migrations)
	if err != nil {
		t.Fatal(err)
	}
	// The columns of the first version.
	first := strings.Join(slices.Concat(fixed[:5], slices.DeleteFunc(slices.Clone(changing), func(c string) bool {
		return c == "cancel_grace" || c == "rule" || c == "gated" || c == "session_offset"
	}), fixed[5:7], []string{"stored_stdout", "stored_stderr", "kept"}), ", ")
	for version := 1; version < len(all); version++ {
		path := filepath.Join(t.TempDir(), "commands.db")
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		numbered := "SELECT 1"
		if version >= 7 { // which gives numbers to those that are there
			numbered = "UPDATE command SET changed = 1"
		}
		for _, step := range append(all[:version:version],
			fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, version),
			`INSERT INTO command (`+first+`) VALUES ('01ARZ3NDEKTSV4RRFFQ69G5FAV', 'web1', 'ann', 'cli', 1, 1, 'COMPLETED', '', 0, 1, 2, 2, 0, '', 0,
				NULL, NULL, NULL, '', '', '', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0)`,
			`UPDATE command SET cancel_principal = 'ann', cancel_origin = 'cli', cancel_time = 1, cancel_reason = ''`,
			`INSERT INTO command_spec (command, request_id, line, stdin_open, working_directory, login_shell, timeout, queue_timeout, priority, durability, action_type)
				VALUES ('01ARZ3NDEKTSV4RRFFQ69G5FAV', '', 'uptime', 0, '', 0, 0, 0, 0, '', '')`,
			numbered,
			// What a start needs was not sealed.
			`INSERT INTO command_start (command, env, stdin) VALUES ('01ARZ3NDEKTSV4RRFFQ69G5FAV', x'020141014f', x'696e')`) {
			if _, err := db.ExecContext(t.Context(), step); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), path, Options{Key: testKey})
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Get(t.Context(), "01ARZ3NDEKTSV4RRFFQ69G5FAV")
		if err != nil || c.Spec.Line != "uptime" || c.State != command.Completed || c.Spec.Sudo != nil || c.Cancellation.Grace != command.DefaultGrace ||
			c.Spec.Env["A"] != "O" || string(c.Spec.Stdin) != "in" {
			t.Errorf("from version %d: %+v, %v", version, c, err)
		}
		list, err := s.Changes(t.Context(), 0, 10)
		if last, lastErr := s.LastChange(t.Context()); err != nil || lastErr != nil || last != 1 || len(list) != 1 || list[0].Number != 1 {
			t.Errorf("from version %d: the last change is %d of %+v, %v, %v", version, last, list, err, lastErr)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
