package terminal_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/store/sqlite"
	"github.com/telexec/telexec/internal/terminal"
)

// frail is a journal that fails as it is told to. What is nil works.
type frail struct {
	*sqlite.Store
	mu     sync.Mutex
	create func(ctx context.Context, s session.Session, told audit.Entry) error
	save   func(s session.Session, told []audit.Entry) error // nil: it is saved
	record func() error
}

// set changes how it fails.
func (f *frail) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *frail) CreateSession(ctx context.Context, s session.Session, told audit.Entry) error {
	f.mu.Lock()
	create := f.create
	f.mu.Unlock()
	if create != nil {
		return create(ctx, s, told)
	}
	return f.Store.CreateSession(ctx, s, told)
}

func (f *frail) SaveSession(ctx context.Context, s session.Session, told ...audit.Entry) error {
	f.mu.Lock()
	save := f.save
	f.mu.Unlock()
	if save != nil {
		if err := save(s, told); err != nil {
			return err
		}
	}
	return f.Store.SaveSession(ctx, s, told...)
}

func (f *frail) AppendRecording(ctx context.Context, id string, offset int64, data []byte) error {
	f.mu.Lock()
	record := f.record
	f.mu.Unlock()
	if record != nil {
		if err := record(); err != nil {
			return err
		}
	}
	return f.Store.AppendRecording(ctx, id, offset, data)
}

var errFull = fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the disk is full")

// startFrail starts a service with such a journal.
func startFrail(t *testing.T) (*service, *frail) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	j := &frail{Store: st}
	set, err := terminal.New(terminal.Options{Shells: m, Journal: j, Hosts: m, Limits: usual, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return runSet(t, set, m, st), j
}

// frailBubble is bubble with such a journal, and with a log.
func frailBubble(t *testing.T, f func(t *testing.T, s *service, j *frail, log *lines)) {
	synctest.Test(t, func(t *testing.T) {
		m, st := newMachine(t), openStore(t, t.TempDir())
		j, log := &frail{Store: st}, &lines{}
		set, err := terminal.New(terminal.Options{Shells: timeless{}, Journal: j, Hosts: m, Limits: usual, Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		s := runSet(t, set, m, st)
		f(t, s, j, log)
		s.stop()
	})
}

// lines are what was logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count tells how many of them have all of these words.
func (l *lines) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	return n
}

var named = session.Spec{Host: "web1", Name: "x", Shell: "dash"}

// A store that cannot say whether it has a session: its name is free all the same.
func TestASessionThatMayBeStored(t *testing.T) {
	s, j := startFrail(t)
	j.create = func(ctx context.Context, one session.Session, told audit.Entry) error {
		if err := j.Store.CreateSession(ctx, one, told); err != nil {
			return err
		}
		return context.DeadlineExceeded
	}
	_, _, err := s.Open(t.Context(), ann, named, false)
	if err == nil || fault.ReasonOf(err) == fault.ReasonSessionExists {
		t.Errorf("it is open: %v", err)
	}
	if one, err := s.Get(t.Context(), ann, "x"); err != nil || !one.Ended() || one.End == nil {
		t.Errorf("%+v, %v", one, err)
	}

	// Nor can it be ended: whoever closes it ends it.
	j.set(func() { j.save = func(session.Session, []audit.Entry) error { return errFull } })
	if _, _, err := s.Open(t.Context(), ann, named, false); err == nil {
		t.Error("it is open")
	}
	j.set(func() { j.create, j.save = nil, nil })
	_, _, err = s.Open(t.Context(), ann, named, true)
	wants(t, err, fault.ReasonSessionExists)
	one, report, err := s.Close(t.Context(), ann, "x", "stuck")
	if err != nil || one.State != session.Ended || one.End.Reason != fault.ReasonSessionClosed || report.Outcome != command.Unproven {
		t.Errorf("%+v, %+v, %v", one, report, err)
	}
	if stored, err := s.store.Session(t.Context(), one.ID); err != nil || stored.State != session.Ended {
		t.Errorf("%+v, %v", stored, err)
	}
	if told := s.audit(audit.SessionClose); len(told) != 1 || told[0].Detail != "stuck" {
		t.Errorf("%+v", told)
	}
	if one, _, err := s.Open(t.Context(), ann, named, true); err != nil || one.State != session.Open {
		t.Errorf("%+v, %v", one, err)
	}
}

// Who opens a session and goes away while it is stored leaves one that is open.
func TestWhoOpensASessionGoesAway(t *testing.T) {
	s, j := startFrail(t)
	ctx, leave := context.WithCancel(t.Context())
	j.create = func(ctx context.Context, one session.Session, told audit.Entry) error {
		leave()
		return j.Store.CreateSession(ctx, one, told)
	}
	_, _, err := s.Open(ctx, ann, named, false)
	wants(t, err, fault.ReasonCallCancelled)
	j.set(func() { j.create = nil })
	if one, reused, err := s.Open(t.Context(), ann, named, true); err != nil || !reused || one.State != session.Open {
		t.Errorf("%+v, %v, %v", one, reused, err)
	}
}

// Who closes a session that is just being opened closes that one.
func TestCloseWhileASessionIsStored(t *testing.T) {
	s, j := startFrail(t)
	closed := make(chan error, 1)
	var id string
	j.create = func(ctx context.Context, one session.Session, told audit.Entry) error {
		if err := j.Store.CreateSession(ctx, one, told); err != nil {
			return err
		}
		id = one.ID
		go func() {
			one, _, err := s.Close(s.t.Context(), ann, id, "")
			if err == nil && one.End.Reason != fault.ReasonSessionClosed {
				err = fmt.Errorf("it ended as %+v", one.End)
			}
			closed <- err
		}()
		return nil
	}
	if _, _, err := s.Open(t.Context(), ann, named, false); err != nil && fault.ReasonOf(err) != fault.ReasonSessionEnded && fault.ReasonOf(err) != fault.ReasonSessionClosed {
		t.Error(err)
	}
	if err := within(t, closed, "the close"); err != nil {
		t.Error(err)
	}
	if c := s.machine.of(id); c != nil && len(c.members()) > 0 {
		t.Error("its shell is left")
	}
}

// slow is a machine whose shells tell who has their terminal only when they are let.
type slow struct {
	*machine
	asked, let chan struct{}
}

func (m slow) Open(ctx context.Context, s terminal.ShellSpec) (terminal.Shell, error) {
	sh, err := m.machine.Open(ctx, s)
	if err != nil || s.Shell != "bash" {
		return sh, err
	}
	return slowShell{sh, m}, nil
}

type slowShell struct {
	terminal.Shell
	m slow
}

func (k slowShell) Foreground(ctx context.Context, pid int) (terminal.Foreground, error) {
	select {
	case k.m.asked <- struct{}{}:
	default:
	}
	<-k.m.let
	return k.Shell.Foreground(ctx, pid)
}

// The name of a session is that of its successor as soon as there is one, whatever the
// old one still waits for.
func TestTheSuccessorHasTheName(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	slow := slow{m, make(chan struct{}, 1), make(chan struct{})}
	let := sync.OnceFunc(func() { close(slow.let) })
	set, err := terminal.New(terminal.Options{Shells: slow, Journal: st, Hosts: m, Limits: usual})
	if err != nil {
		t.Fatal(err)
	}
	s := runSet(t, set, m, st)
	defer let()
	old := s.openSpec(session.Spec{Host: "web1", Name: "x", Shell: "bash"})
	s.begin(old, "printf 'x$ '; sleep 1000")
	within(t, slow.asked, "that it is asked who is there")
	ctx, stop := context.WithCancel(t.Context())
	go func() { _, _, _ = s.Close(ctx, ann, old.ID, "") }()
	s.poll("its end", func() bool { one := s.get(old); return one.Ended() })
	stop()
	one := s.openSpec(session.Spec{Host: "web1", Name: "x", Shell: "dash"})
	for range 50 {
		if got, err := s.Find("x"); err != nil || got.ID != one.ID {
			t.Fatalf("%s is %+v, %v", one.ID, got, err)
		}
	}
}

// What the audit cannot be told is told to the log, and what comes with a version that is
// not taken is told without it.
func TestNothingIsLostOnTheWayToTheAudit(t *testing.T) {
	frailBubble(t, func(t *testing.T, s *service, j *frail, log *lines) {
		on := s.openSpec(session.Spec{Host: "web1"})
		v := s.attach(ann, on, terminal.AttachOptions{})
		take := func() {
			t.Helper()
			<-time.After(time.Second)
			if err := v.Keyboard(t.Context(), terminal.TakeKeyboard, ""); err != nil {
				t.Fatal(err)
			}
		}
		j.set(func() {
			j.save = func(one session.Session, told []audit.Entry) error {
				if len(told) == 0 {
					return nil
				}
				return fault.New(fault.Aborted, fault.ReasonInternal, "a later one is there")
			}
		})
		for range 3 {
			take()
		}
		<-time.After(5 * time.Second)
		synctest.Wait()
		if n := len(s.audit(audit.SessionKeyboard)); n != 3 {
			t.Errorf("%d of 3 are in the audit", n)
		}
		j.set(func() { j.save = func(session.Session, []audit.Entry) error { return errFull } })
		for range 1005 {
			take()
		}
		j.set(func() { j.save = nil })
		<-time.After(5 * time.Second)
		synctest.Wait()
		kept, logged := len(s.audit(audit.SessionKeyboard))-3, log.count("could not be written to the audit", string(audit.SessionKeyboard), on.ID)
		if kept+logged != 1005 || kept < 1000 {
			t.Errorf("%d are in the audit, %d in the log", kept, logged)
		}
	})
}

// Where the rest of a recording finds no room, the session says so.
func TestTheDiskIsFullAtTheEnd(t *testing.T) {
	frailBubble(t, func(t *testing.T, s *service, j *frail, log *lines) {
		on := s.openSpec(session.Spec{Host: "web1"})
		v := s.attach(ann, on, terminal.AttachOptions{})
		v.types("before")
		<-time.After(time.Second)
		synctest.Wait()
		had := s.get(on).Output
		j.set(func() { j.record = func() error { return errFull } })
		v.types("behind")
		<-time.After(time.Second)
		one, _, err := s.Close(t.Context(), ann, on.ID, "")
		if err != nil || !one.Ended() || one.Truncated == nil || *one.Truncated != had {
			t.Errorf("%+v, cut at %v, want %d; %v", one, one.Truncated, had, err)
		}
		if stored, err := s.store.Session(t.Context(), on.ID); err != nil || !stored.Ended() || stored.Truncated == nil || *stored.Truncated != had || stored.Version != one.Version {
			t.Errorf("stored %+v, %v", stored, err)
		}
	})
}

// An end that cannot be stored is stored as soon as it can; until then nobody is told that
// it has ended, and its name is not free.
func TestAnEndThatCannotBeStored(t *testing.T) {
	frailBubble(t, func(t *testing.T, s *service, j *frail, log *lines) {
		on := s.openSpec(session.Spec{Host: "web1", Name: "x"})
		j.set(func() { j.save = func(session.Session, []audit.Entry) error { return errFull } })
		one, report, err := s.Close(t.Context(), ann, on.ID, "")
		if err != nil || one.State != session.Closing || report.Outcome != command.Pending {
			t.Errorf("%+v, %+v, %v", one, report, err)
		}
		<-time.After(time.Minute)
		_, err = s.Screen(t.Context(), ann, on.ID, 0)
		wants(t, err, fault.ReasonSessionEnded)
		if one := s.get(on); one.State != session.Closing {
			t.Errorf("%+v", one)
		}
		j.set(func() { j.save = nil })
		<-time.After(5 * time.Second)
		synctest.Wait()
		if stored, err := s.store.Session(t.Context(), on.ID); err != nil || !stored.Ended() || stored.End.Reason != fault.ReasonSessionClosed {
			t.Errorf("stored %+v, %v", stored, err)
		}
		if again := s.openSpec(session.Spec{Host: "web1", Name: "x"}); again.ID == on.ID {
			t.Error("it is the old one")
		}
	})
}

// A service that stops does not wait for that.
func TestAnEndThatIsNeverStored(t *testing.T) {
	frailBubble(t, func(t *testing.T, s *service, j *frail, log *lines) {
		on := s.openSpec(session.Spec{Host: "web1"})
		j.set(func() { j.save = func(session.Session, []audit.Entry) error { return errFull } })
		_, _, _ = s.Close(t.Context(), ann, on.ID, "")
		<-time.After(time.Minute)
		s.stop()
		j.set(func() { j.save = nil })
	})
}
