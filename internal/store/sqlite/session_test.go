package sqlite

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/session"
)

// newSession gives a session of a name of its own.
func newSession() session.Session {
	now := time.Now()
	s := session.Session{
		ID: ulid.MustNew(ulid.Timestamp(now), rand.Reader).String(), Version: 1, State: session.Open, CreateTime: now, LastActivity: now,
		Spec:      session.Spec{Host: "web1", Labels: map[string]string{"env": "prod"}},
		CreatedBy: command.Actor{Principal: "deploy", Origin: command.OriginWeb},
		Nonce:     "0123456789abcdef0123456789abcdef", Sole: true, Recorded: true,
	}
	s.Spec.Name = "s" + s.ID
	return s
}

func begin(t testing.TB, s *Store, more ...func(*session.Session)) session.Session {
	t.Helper()
	one := newSession()
	for _, f := range more {
		f(&one)
	}
	if err := s.CreateSession(t.Context(), one, audit.Entry{Time: one.CreateTime, Kind: audit.SessionOpened, Subject: one.Spec.Name}); err != nil {
		t.Fatal(err)
	}
	return one
}

func over(s *session.Session) { s.State, s.EndTime = session.Ended, time.Now() }

func record(t testing.TB, s *Store, id string, offset int, data []byte) {
	t.Helper()
	if err := s.AppendRecording(t.Context(), id, int64(offset), data); err != nil {
		t.Fatal(err)
	}
}

// replays requires that a recording is what was written.
func replays(t testing.TB, s *Store, id string, want []byte) {
	t.Helper()
	got, err := s.ReadRecording(t.Context(), id, 0, len(want)+1)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
	}
}

// castFile is where the recording of a session lies.
func castFile(s *Store, id string) string { return filepath.Join(s.path+"-recordings", id+".cast") }

// The file of a recording is the recording, for its owner alone, and goes with it.
func TestRecordingFile(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	one := begin(t, s)
	if _, err := os.Stat(s.path + "-recordings"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory before the first recording: %v", err)
	}
	var whole []byte
	for i := range 300 {
		line := fmt.Appendf(nil, "[%d.5, \"o\", \"%0*d\"]\n", i, 1+7*i, i)
		record(t, s, one.ID, len(whole), line)
		whole = append(whole, line...)
	}
	if data, err := os.ReadFile(castFile(s, one.ID)); err != nil || !bytes.Equal(data, whole) {
		t.Errorf("the file has %d bytes, %v; want %d", len(data), err, len(whole))
	}
	for path, mode := range map[string]fs.FileMode{s.path + "-recordings": 0o700 | fs.ModeDir, castFile(s, one.ID): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	var rows int
	if err := s.read.QueryRow("SELECT count(*) FROM session_recording").Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
	over(&one)
	one.Version++
	if err := s.SaveSession(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if done, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), DeleteAfter: time.Minute}); err != nil || done.Sessions != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := os.Stat(castFile(s, one.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if err := s.read.QueryRow("SELECT count(*) FROM session_recording").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// What a crash between file and transaction has left is not shown, is written over, and
// is cut or removed by the sweep of the next start; files of others are left alone.
func TestRecordingLeftBehind(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	whole := bytes.Repeat([]byte("recorded "), 20_000)
	first, second := begin(t, s), begin(t, s)
	for _, one := range []session.Session{first, second} {
		record(t, s, one.ID, 0, whole)
		f, err := os.OpenFile(castFile(s, one.ID), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(bytes.Repeat([]byte("never recorded"), 10_000)); err != nil {
			t.Fatal(err)
		}
		f.Close()
		replays(t, s, one.ID, whole)
	}
	record(t, s, second.ID, len(whole), []byte("behind it"))
	replays(t, s, second.ID, append(slices.Clip(whole), "behind it"...))
	var orphans []string
	for _, name := range []string{newSession().ID + ".cast", "notes.txt", newSession().ID + ".stdout"} {
		orphans = append(orphans, filepath.Join(s.path+"-recordings", name))
		if err := os.WriteFile(orphans[len(orphans)-1], []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, s)

	s = open(t, dir)
	s.sweep(t.Context()) // that of Open may be at it too, or have ended
	for id, size := range map[string]int{first.ID: len(whole), second.ID: len(whole) + len("behind it")} {
		if info, err := os.Stat(castFile(s, id)); err != nil || info.Size() != int64(size) {
			t.Errorf("a file of %d bytes, %v; want %d", info.Size(), err, size)
		}
	}
	for i, want := range []bool{false, true, true} {
		if _, err := os.Stat(orphans[i]); (err == nil) != want {
			t.Errorf("%s: %v", orphans[i], err)
		}
	}
	replays(t, s, first.ID, whole)
	closed(t, s)
}

// TestDamagedRecording does to a file and its rows what may happen to them: a read gives
// what was written or says that it does not.
func TestDamagedRecording(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	data := make([]byte, castSize+200_000)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	exec := func(text string) func(id string) error {
		return func(id string) error { _, err := s.writer.db.Exec(text, id); return err }
	}
	for name, harm := range map[string]func(id string) error{
		"removed": func(id string) error { return os.Remove(castFile(s, id)) },
		"cut":     func(id string) error { return os.Truncate(castFile(s, id), int64(len(data))-1) },
		"changed": func(id string) error {
			return overwrite(castFile(s, id), int64(len(data))-1, data[0]+data[len(data)-1]+1)
		},
		"a row less":   exec("DELETE FROM session_recording WHERE session = ? AND offset = 0"),
		"short sums":   exec("UPDATE session_recording SET sums = x'00' WHERE session = ? AND offset > 0"),
		"other length": exec("UPDATE session_recording SET length = length - 1 WHERE session = ? AND offset = 0"),
	} {
		t.Run(name, func(t *testing.T) {
			one, bystander := begin(t, s), begin(t, s)
			record(t, s, one.ID, 0, data)
			record(t, s, bystander.ID, 0, data[:1000])
			if err := harm(one.ID); err != nil {
				t.Fatal(err)
			}
			_, err := s.ReadRecording(t.Context(), one.ID, 0, len(data))
			want(t, err, fault.DataLoss, one.ID)
			if fault.ReasonOf(err) != fault.ReasonStoreDamaged {
				t.Errorf("%v", err)
			}
			replays(t, s, bystander.ID, data[:1000])
			if got, err := s.Session(t.Context(), one.ID); err != nil || got.ID != one.ID {
				t.Errorf("the session cannot be read: %v", err)
			}
		})
	}
}

func overwrite(path string, at int64, b byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b}, at)
	return errors.Join(err, f.Close())
}

// TestDamagedSessions writes what none can be: lists go on without them.
func TestDamagedSessions(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	var all []session.Session
	for range 3 {
		all = append(all, begin(t, s))
	}
	slices.SortFunc(all, func(a, b session.Session) int { return strings.Compare(a.ID, b.ID) })
	const right = "state = 'OPEN', labels = NULL, recorded = 1"
	for _, damage := range []string{"state = 'SIDEWAYS'", "labels = x'0105'", "recorded = 7"} {
		var logged bytes.Buffer
		s.log = slog.New(slog.NewTextHandler(&logged, nil))
		for _, set := range []string{right, damage} {
			if _, err := s.writer.db.Exec("UPDATE session SET "+set+" WHERE id = ?", all[1].ID); err != nil {
				t.Fatal(err)
			}
			for _, ref := range []string{all[1].ID, all[1].Spec.Name} {
				_, err := s.Session(t.Context(), ref)
				if set == right && err != nil {
					t.Fatal(err)
				}
				if set == damage {
					want(t, err, fault.DataLoss, all[1].ID)
				}
			}
		}
		for _, f := range []session.Filter{{Limit: 2}, {Limit: 50}, {Host: "web1", Limit: 2}} {
			list, err := s.Sessions(t.Context(), f)
			if err != nil || len(list) != 2 || list[0].ID != all[2].ID || list[1].ID != all[0].ID {
				t.Fatalf("%s, %+v: %d sessions, %v", damage, f, len(list), err)
			}
		}
		if line := "session=" + all[1].ID; !strings.Contains(logged.String(), line) {
			t.Fatalf("%s: the log says nothing of it: %s", damage, &logged)
		}
	}
}

// A nonce that was sealed with another key, or for another session, is nobody's; all
// else of the session is as it was.
func TestNonceOfAnotherKey(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	one, other := begin(t, s), begin(t, s)
	if _, err := s.writer.db.Exec("UPDATE session SET nonce = (SELECT nonce FROM session WHERE id = ?) WHERE id = ?", one.ID, other.ID); err != nil {
		t.Fatal(err)
	}
	for id, nonce := range map[string]string{one.ID: one.Nonce, other.ID: ""} {
		if got, err := s.Session(t.Context(), id); err != nil || got.Nonce != nonce || got.Spec.Labels["env"] != "prod" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	closed(t, s)
	s, err := Open(t.Context(), s.path, Options{Key: seal.NewKey(bytes.Repeat([]byte{8}, seal.KeySize))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Session(t.Context(), one.ID)
	if err != nil || got.Nonce != "" || got.Spec.Name != one.Spec.Name || got.State != one.State {
		t.Errorf("%+v, %v", got, err)
	}
	if list, err := s.Sessions(t.Context(), session.Filter{Limit: 5}); err != nil || len(list) != 2 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

// TestHalfWaySessions has the database fail at each table in turn: nothing of the
// change may be left, and it can be made again.
func TestHalfWaySessions(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for _, on := range []string{
		"INSERT ON session", "UPDATE ON session", "DELETE ON session", "INSERT ON session_recording", "DELETE ON session_recording", "INSERT ON audit", "INSERT ON audit_head",
	} {
		t.Run(on, func(t *testing.T) {
			one := newSession()
			data := bytes.Repeat([]byte("0123456789"), 20_000)
			steps := []func() error{
				func() error { return s.CreateSession(t.Context(), one, audit.Entry{Kind: audit.SessionOpened}) },
				func() error { return s.AppendRecording(t.Context(), one.ID, 0, data) },
				func() error {
					return s.AppendRecording(t.Context(), one.ID, int64(len(data)), bytes.Repeat(data, 1+castSize/len(data)))
				},
				func() error {
					next := one
					next.Version++
					over(&next)
					return s.SaveSession(t.Context(), next, audit.Entry{Kind: audit.SessionEnded})
				},
				func() error {
					done, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), DeleteAfter: time.Minute})
					if err == nil && done.Sessions != 1 {
						err = fmt.Errorf("retained %+v", done)
					}
					return err
				},
			}
			content := func() string {
				got, err := s.Session(t.Context(), one.ID)
				recording, err2 := s.ReadRecording(t.Context(), one.ID, 0, 10<<20)
				head, err3 := s.AuditHead(t.Context())
				return fmt.Sprint(got.Version, got.State, err, len(recording), err2, head, err3)
			}
			failures := 0
			for i, step := range steps {
				before := content()
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
				if after := content(); after != before {
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
			if _, err := os.Stat(castFile(s, one.ID)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the recording is left: %v", err)
			}
		})
	}
}

// TestRecordingTakesTheDisk brings more than a real file system holds: what was written
// of it is given back, and the recording goes on when there is room.
func TestRecordingTakesTheDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	s := open(t, dir)
	defer s.Close()
	one := begin(t, s)
	first := bytes.Repeat([]byte("first "), 100_000)
	record(t, s, one.ID, 0, first)
	want(t, s.AppendRecording(t.Context(), one.ID, int64(len(first)), make([]byte, 16<<20)), fault.Unavailable, "no space left")
	if info, err := os.Stat(castFile(s, one.ID)); err != nil || info.Size() != int64(len(first)) {
		t.Fatalf("the file has %d bytes, %v; want %d", info.Size(), err, len(first))
	}
	one.Version++
	if err := s.SaveSession(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	record(t, s, one.ID, len(first), []byte("last"))
	replays(t, s, one.ID, append(first, "last"...))
}

// TestSessionPlans shows that nothing that is asked of sessions walks the history.
func TestSessionPlans(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for name, f := range map[string]session.Filter{
		"page":      {Before: idAt(time.Now())},
		"state":     {States: []session.State{session.Open}},
		"open":      {States: session.States[:3], Before: idAt(time.Now())},
		"host":      {Host: "web1"},
		"principal": {Principal: "deploy"},
		"name":      {Name: "build", States: session.States[:3]},
		"visible":   {Visible: &command.Visible{Principal: "deploy", Hosts: []string{"web1", "web2"}}},
		"many":      {Visible: &command.Visible{Principal: "deploy", Hosts: manyHosts(visibleMost + 10)}},
		"everything": {States: session.States[:3], Host: "web1", Principal: "deploy", Name: "build", Before: idAt(time.Now()),
			Visible: &command.Visible{Principal: "ann", Hosts: []string{"web1"}}},
	} {
		f.Limit = 50
		for rarest := range 6 {
			asked := 0
			text, args, err := sessionInquiry(f, func(text string, args []any) (int, error) {
				plan(t, s, text, args)
				if asked++; asked == rarest {
					return 1, nil
				}
				return 100, nil
			}).compose()
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range plan(t, s, text, args) {
				switch {
				case strings.HasPrefix(line, "SCAN (subquery"):
				case strings.HasPrefix(line, "SCAN"):
					t.Errorf("%s walks the history: %s\n%s", name, line, text)
				case strings.Contains(line, "TEMP B-TREE") && len(f.States) < 2 && f.Visible == nil:
					t.Errorf("%s sorts: %s\n%s", name, line, text)
				}
			}
		}
	}
	for name, text := range map[string]string{
		"one": selectSession + "session s WHERE s.id = " + sessionOf, "old": selectOldSessions,
		"recording": selectRecording, "its end": selectRecordingEnd,
	} {
		for _, line := range plan(t, s, text, make([]any, max(strings.Count(text, "?")-strings.Count(text, "?1")+1, 1))) {
			if strings.HasPrefix(line, "SCAN ") || strings.Contains(line, "TEMP B-TREE") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

// BenchmarkAppendRecording adds pieces as a busy terminal brings them.
func BenchmarkAppendRecording(b *testing.B) {
	for _, size := range []int{200, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := benchStore(b)
			one := begin(b, s)
			data := make([]byte, size)
			at := 0
			b.SetBytes(int64(size))
			for b.Loop() {
				record(b, s, one.ID, at, data)
				at += size
			}
		})
	}
}
