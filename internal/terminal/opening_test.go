package terminal_test

import (
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// After kill -9 it may not be stored yet what keeps the shell of a session that was being
// opened, or closed again: it is looked for all the same, and no shell is left behind.
func TestTakenUpBeforeItsKeeperWasStored(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	s := startWith(t, m, st, usual)
	opening, closing := s.openSpec(kept), s.openSpec(kept)
	var was []session.Session
	for _, on := range []session.Session{opening, closing} {
		one, err := st.Session(t.Context(), on.ID)
		if err != nil {
			t.Fatal(err)
		}
		one.OpenTime, one.Keeper, one.Shell, one.Completion, one.Connection = time.Time{}, "", "", "", ""
		was = append(was, one)
	}
	never := was[0]
	never.ID, never.Spec.Name = "01HZZZZZZZZZZZZZZZZZZZZZZZ", "never"
	s.stop()
	st = openStore(t, t.TempDir())
	for _, one := range append(was, never) {
		one.State, one.Version = session.Opening, 1
		if err := st.CreateSession(t.Context(), one, auditEntry); err != nil {
			t.Fatal(err)
		}
		if one.ID == closing.ID {
			one.State, one.Version = session.Closing, 2
			if err := st.SaveSession(t.Context(), one); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A service that cannot reach the host, and stops again, leaves that to the next one.
	m.reach(false)
	middle := startWith(t, m, st, usual)
	if one := middle.get(opening); one.State != session.Opening || one.Connection != command.Reconnecting {
		t.Errorf("while the host is away: %+v %+v", one, one.End)
	}
	middle.stop()
	m.reach(true)

	again := startWith(t, m, st, usual)
	again.poll("that it opens", func() bool { return again.get(opening).State != session.Opening })
	if one := again.get(opening); one.State != session.Open || one.Keeper != session.KeptByTmux || one.Shell != "bash" {
		t.Errorf("%+v %+v", one, one.End)
	}
	again.run(opening, "(exit 5)").ends("5", command.ByMark)
	again.poll("the ends", func() bool {
		one, other := again.get(closing), again.get(never)
		return one.Ended() && other.Ended()
	})
	if one := again.get(closing); one.End.Reason != fault.ReasonSessionClosed {
		t.Errorf("%+v", one.End)
	}
	if left := m.of(closing.ID).members(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if one := again.get(never); one.End.Reason != fault.ReasonSessionGone {
		t.Errorf("%+v", one.End)
	}
}
