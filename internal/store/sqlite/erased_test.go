package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
)

// erase is what somebody does who wants that nothing was ever told.
const erase = "DELETE FROM audit; DELETE FROM audit_index; DELETE FROM audit_head;"

// What is left beside the audit that was erased.
const (
	noCommands  = "DELETE FROM command_spec; DELETE FROM command_start; DELETE FROM command_label; DELETE FROM command_redact; DELETE FROM command;"
	noApprovals = "DELETE FROM approval_role; DELETE FROM approval;"
	noKeys      = "DELETE FROM api_key;"
	noSessions  = "DELETE FROM session;"
)

// foundErased is what is logged of an audit that begins anew and must not.
const foundErased = `level=ERROR msg="the end of the audit was not written by this service`

// openLogged opens the store at path, and gives what it logs.
func openLogged(t *testing.T, path string) (*Store, *bytes.Buffer) {
	t.Helper()
	var logged bytes.Buffer
	s, err := Open(t.Context(), path, Options{Key: testKey, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s, &logged
}

func closed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyHead keeps the head row of a store that is closed, to be put back later.
func copyHead(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE kept AS SELECT * FROM audit_head"); err != nil {
		t.Fatal(err)
	}
}

const putBack = "INSERT INTO audit_head SELECT * FROM kept;"

// foundFor requires that a store that was opened says that its audit was erased, and
// that it goes on to say so whatever is told after that.
func foundFor(t *testing.T, path string) {
	t.Helper()
	s, logged := openLogged(t, path)
	if !strings.Contains(logged.String(), foundErased) {
		t.Errorf("the log says %q", logged)
	}
	want(t, verify(t, s), fault.DataLoss, "not written by this service")
	for range 3 {
		tell(t, s, audit.Entry{Time: time.Now(), Kind: audit.Login, Principal: "eve"})
		if broken, ok := errors.AsType[*audit.Break](verify(t, s)); !ok || broken.Seq != 1 {
			t.Fatalf("found %v; want row 1", verify(t, s))
		}
		closed(t, s)
		s, _ = openLogged(t, path)
	}
	if list, err := s.AuditRows(t.Context(), audit.Filter{Principal: "eve", From: time.Now().Add(-time.Hour)}); err != nil || len(list) != 3 {
		t.Errorf("%d rows are listed, %v", len(list), err)
	}
	closed(t, s)
}

// TestErased removes all of an audit, with its head, and more or less of what it told
// of. With the first head of all put back it is found wherever something is left
// that only came with a row.
func TestErased(t *testing.T) {
	for _, c := range []struct {
		name, do string
		found    bool
	}{
		{"all is left", "", true},
		{"commands are left", noApprovals + noKeys + noSessions, true},
		{"approvals are left", noCommands + noKeys + noSessions, true},
		{"keys are left", noCommands + noApprovals + noSessions, true},
		{"sessions are left", noCommands + noApprovals + noKeys, true},
		{"nothing is left", noCommands + noApprovals + noKeys + noSessions, true},
		{"first head put back, all is left", putBack, true},
		{"first head put back, commands are left", noApprovals + noKeys + noSessions + putBack, true},
		{"first head put back, and commands made old", noApprovals + noKeys + noSessions + "UPDATE command SET create_time = 0;" + putBack, true},
		{"first head put back, and made to be of old commands", noApprovals + noKeys + noSessions + putBack + "UPDATE audit_head SET latest = 1 << 60;", true},
		{"first head put back, approvals are left", noCommands + noKeys + noSessions + putBack, true},
		{"first head put back, keys are left", noCommands + noApprovals + noSessions + putBack, true},
		{"first head put back, sessions are left", noCommands + noApprovals + noKeys + putBack, true},
		// The file is as it was before its first row, to the byte that matters.
		{"first head put back, nothing is left", noCommands + noApprovals + noKeys + noSessions + putBack, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "commands.db")
			s, _ := openLogged(t, path)
			closed(t, s)
			copyHead(t, path)

			s, _ = openLogged(t, path)
			create(t, s)
			waits := benchCommand(time.Now())
			if _, _, err := s.Create(t.Context(), waits, nil, &approval.Approval{CommandID: waits.ID, Version: 1, State: approval.Pending}, accepted(waits)); err != nil {
				t.Fatal(err)
			}
			begin(t, s)
			if err := s.AddKey(t.Context(), access.Key{ID: "k", Name: "ci"}, audit.Entry{Kind: audit.TokenCreated}); err != nil {
				t.Fatal(err)
			}
			if err := verify(t, s); err != nil {
				t.Fatal(err)
			}
			closed(t, s)
			attack(t, path, statement("PRAGMA foreign_keys = 0;"+erase+c.do))
			if c.found {
				foundFor(t, path)
				// Nor does a second time make it good.
				attack(t, path, statement(erase))
				foundFor(t, path)
				return
			}
			s, _ = openLogged(t, path)
			if err := verify(t, s); err != nil {
				t.Error(err)
			}
			closed(t, s)
		})
	}
}

// TestNewAudit opens a new store again and again before anything is told: its audit
// is intact, and it has a head that cannot be removed unnoticed.
func TestNewAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "commands.db")
	for range 2 {
		s, logged := openLogged(t, path)
		if err := verify(t, s); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(logged.String(), `level=INFO msg="the database is new`) {
			t.Errorf("the log says %q", logged)
		}
		closed(t, s)
	}
	attack(t, path, statement("DELETE FROM audit_head"))
	foundFor(t, path)
}

// TestAnotherDatabase puts a new file in the place of the one there was. From inside
// it cannot be told from a first start: the log says that an audit begins, and a head
// that was noted elsewhere tells the rest.
func TestAnotherDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "commands.db")
	s, _ := openLogged(t, path)
	create(t, s)
	noted, err := s.AuditHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s, logged := openLogged(t, path)
	defer s.Close()
	if err := verify(t, s); err != nil || !strings.Contains(logged.String(), "its audit begins now") {
		t.Errorf("%v; the log says %q", err, logged)
	}
	create(t, s)
	head, err := s.AuditHead(t.Context())
	if err != nil || head.Seq != noted.Seq || head.Hash == noted.Hash {
		t.Errorf("the head is %v, %v; before it was %v", head, err, noted)
	}
}

// earlier makes a database of a version that kept no audit, with these commands.
func earlier(t *testing.T, path string, version int, created ...time.Time) {
	t.Helper()
	all, err := steps(migrations)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	texts := append(all[:version:version], fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, version))
	for i, at := range created {
		id := fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5F%02d", i)
		texts = append(texts,
			fmt.Sprintf(`INSERT INTO command (id, host, principal, origin, create_time, version, state, node, fence, start_time, end_time, last_activity,
				exit_signal, core_dumped, completion, connection, durability, durability_reason, size_stdout, size_stderr, stdin_closed,
				earliest_stdout, earliest_stderr, stored_stdout, stored_stderr, kept)
				VALUES ('%s', 'web1', 'ann', 'cli', %d, 1, 'COMPLETED', '', 0, 1, 2, 2, '', 0, '', '', '', '', 0, 0, 0, 0, 0, 0, 0, 0)`, id, micros(at)),
			fmt.Sprintf(`INSERT INTO command_spec (command, request_id, line, stdin_open, working_directory, login_shell, timeout, queue_timeout, priority, durability, action_type)
				VALUES ('%s', '', 'uptime', 0, '', 0, 0, 0, 0, '', '')`, id))
	}
	for _, text := range texts {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUpgradedAudit opens databases of versions that kept no audit: the commands in
// them are no sign of an erased one. That holds for these commands alone, and only
// while the head is there that was made with the upgrade.
func TestUpgradedAudit(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for version := 1; version < auditVersion; version++ {
		for _, c := range []struct {
			name  string
			do    string // after a command of the new version
			found bool
		}{
			{"erased", erase, true},
			{"erased with the new command", erase + fmt.Sprintf("DELETE FROM command WHERE create_time > %d", micros(old)), true},
			{"head put back", erase + putBack, true},
			{"nothing", "", false},
		} {
			t.Run(fmt.Sprintf("%d/%s", version, c.name), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "commands.db")
				earlier(t, path, version, old.Add(-time.Hour), old)
				for range 2 { // also where it is killed before anything was told
					s, logged := openLogged(t, path)
					if err := verify(t, s); err != nil {
						t.Fatal(err)
					}
					if !strings.Contains(logged.String(), `level=WARN msg="the database has commands of a version that kept no audit`) {
						t.Errorf("the log says %q", logged)
					}
					closed(t, s)
				}
				copyHead(t, path)
				s, _ := openLogged(t, path)
				create(t, s)
				closed(t, s)
				attack(t, path, statement(c.do))
				if c.found {
					foundFor(t, path)
					return
				}
				s, logged := openLogged(t, path)
				if err := verify(t, s); err != nil || logged.Len() > 0 {
					t.Errorf("%v; the log says %q", err, logged)
				}
				closed(t, s)
			})
		}
	}
	t.Run("without times", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "commands.db")
		earlier(t, path, auditVersion-1, time.Time{})
		s, _ := openLogged(t, path)
		defer s.Close()
		if err := verify(t, s); err != nil {
			t.Error(err)
		}
	})
}
