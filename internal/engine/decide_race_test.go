package engine_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/secret"
)

// What happens between a decision and the owner who takes it up.

// looking has look called when the approval of the command is read again, once the
// answer to the next decision was lost.
func (f *hazy) looking(id string, look func()) {
	hook := func(read string) error {
		if read == id {
			f.reading.Store(nil)
			look()
		}
		return nil
	}
	during := func() { f.reading.Store(&hook) }
	f.during.Store(&during)
	f.lost.Store(true)
}

// A decision whose answer was lost is left for the owner once, and what he has made
// of it since is what everybody sees.
func TestDecisionIsTakenUpOnce(t *testing.T) {
	o, _, f := onHazy(t)
	n := start(t, o)
	a, b := n.asks("uname; sleep 1000"), n.asks("uname; exit 4")
	ballots := []approval.Ballot{n.ballot(a, approval.Approve), n.ballot(b, approval.Approve)}
	f.looking(b, func() {
		n.until(a, "running", func(s engine.Snapshot) bool { return s.State == command.Running })
	})
	if err := n.decide(boss, ballots...); err != nil {
		t.Fatal(err)
	}
	f.lost.Store(false)
	if s, err := n.Get(t.Context(), ann, a); err != nil || s.State != command.Running {
		t.Errorf("%s, %v", s.State, err)
	}
	if s, report, err := n.Cancel(t.Context(), ann, a, 0, ""); err != nil || s.State != command.Cancelled || report.Outcome != command.Gone {
		t.Errorf("%s, %+v, %v", s.State, report, err)
	}
	if s := n.ended(b); code(s) != "4" {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

// A cancel that was told is not taken back by a decision that had begun before it.
func TestCancelIsSeenDuringADecision(t *testing.T) {
	for _, verdict := range []approval.Verdict{approval.Approve, approval.Reject} {
		t.Run(string(verdict), func(t *testing.T) {
			o, store, f := onHazy(t)
			n := start(t, o)
			id, other := n.asks("uname; sleep 1000"), n.asks("uname; exit 4")
			ballots := []approval.Ballot{n.ballot(id, verdict), n.ballot(other, approval.Approve)}
			cancelled := make(chan command.State, 1) // the one answer to the cancel
			var told engine.Snapshot
			during := func() {
				go func() {
					s, _, err := n.Cancel(context.WithoutCancel(t.Context()), ann, id, 0, "stop it")
					if err != nil {
						t.Error(err)
					}
					cancelled <- s.State
				}()
				var err error
				if told, err = n.Await(t.Context(), id, func(s engine.Snapshot) bool { return s.Cancellation != nil }); err != nil {
					t.Error(err)
				}
			}
			hook := func(read string) error {
				if read == other { // id's was read, and left for its owner
					f.reading.Store(nil)
					if s, err := n.Get(t.Context(), ann, id); err != nil || s.Version <= told.Version || !s.Ended() && s.Cancellation == nil {
						t.Errorf("%s, version %d behind %d, cancel %v, %v", s.State, s.Version, told.Version, s.Cancellation, err)
					}
				}
				return nil
			}
			armed := func() { during(); f.reading.Store(&hook) }
			f.during.Store(&armed)
			f.lost.Store(true)
			if err := n.decide(boss, ballots...); err != nil {
				t.Error(err)
			}
			f.lost.Store(false)
			want := command.Cancelled
			if verdict == approval.Reject {
				want = command.Rejected
			}
			if s := n.ended(id); s.State != want || s.Version <= told.Version {
				t.Errorf("%s, version %d", s.State, s.Version)
			}
			if got := <-cancelled; got != want {
				t.Errorf("the cancel heard of %s", got)
			}
			n.ended(other)
			n.stop()
			if c := in(t, store, id); c.Version <= told.Version {
				t.Errorf("stored is version %d, told was %d", c.Version, told.Version)
			}
		})
	}
}

// A defect while one command's owner makes sure keeps nobody else from deciding.
func TestPanicWhileMakingSure(t *testing.T) {
	o, _, f := onHazy(t)
	n := start(t, o)
	a, b := n.asks("uname"), n.asks("uname; exit 3")
	ballots := []approval.Ballot{n.ballot(a, approval.Approve), n.ballot(b, approval.Approve)}
	reads := 0
	hook := func(string) error {
		if reads++; reads == 1 {
			return errNoStore
		}
		f.reading.Store(nil)
		panic("a defect")
	}
	f.reading.Store(&hook)
	f.unmade.Store(true)
	if err := n.decide(boss, ballots[0]); fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
	f.unmade.Store(false)
	n.ended(a)
	if err := n.decide(boss, ballots[1]); err != nil {
		t.Error(err)
	}
	if s := n.ended(b); code(s) != "3" {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

// Where what a command waits for can never be read again it ends, and does not wait
// for ever.
func TestDamagedWhileUnsure(t *testing.T) {
	o, store, f := onHazy(t)
	n := start(t, o)
	id := n.asks("uname")
	ballot := n.ballot(id, approval.Approve)
	f.unmade.Store(true)
	f.blind.Store(true)
	if err := n.decide(boss, ballot); fault.ReasonOf(err) != fault.ReasonStoreUnavailable {
		t.Error(err)
	}
	hook := func(string) error { return fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "damaged") }
	f.reading.Store(&hook)
	f.blind.Store(false)
	if s := n.ended(id); s.State != command.Rejected || reason(s) != fault.ReasonApprovalVoid {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	if e := told(t, store, id, audit.CommandEnded); len(e) != 1 {
		t.Errorf("%d ends were told", len(e))
	}
}

// The masks of a command go with its end; the audit is told no line without them.
func TestAuditOfLostMasks(t *testing.T) {
	secretly := func(s *command.Spec) { s.Redact = []secret.Text{secret.New("hunter2")} }
	nothingOf := func(t *testing.T, o engine.Options, id string, kinds ...audit.Kind) {
		t.Helper()
		list := told(t, o, id)
		for _, e := range list {
			if strings.Contains(e.Command, "hunter2") {
				t.Errorf("%s %s tells %q", e.Kind, e.Outcome, e.Command)
			}
		}
		for _, k := range kinds {
			if len(told(t, o, id, k)) != 1 {
				t.Errorf("%s was not told once: %v", k, list)
			}
		}
	}
	t.Run("cancel of a lost command", func(t *testing.T) {
		o := fresh(t)
		o.Runner = local{
			onWait: func(command.Exit) (command.Exit, error) {
				return command.Exit{}, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the connection was lost")
			},
		}
		n := start(t, o)
		id := n.execute(": hunter2", secretly)
		if s := n.ended(id); s.State != command.Lost {
			t.Fatal(s.State)
		}
		n.stop()
		n = start(t, o) // nobody holds it any more
		if _, _, err := n.Cancel(t.Context(), ann, id, -1, ""); err != nil {
			t.Fatal(err)
		}
		nothingOf(t, o, id, audit.CommandAccepted, audit.CommandEnded, audit.CommandCancel)
	})
	t.Run("another key", func(t *testing.T) {
		dir := t.TempDir()
		o := fresh(t)
		o.Policy = rules(t, policy.Gate{})
		st := sealedWith(t, dir, 1)
		o.Journal = st
		n := start(t, o)
		attached := n.execute("echo one; cat; : hunter2", secretly, func(s *command.Spec) { s.Durability, s.StdinOpen = command.Attached, true })
		n.stores(attached, "running", func(c command.Command) bool { return c.State == command.Running })
		waiting := n.asks("uname; : hunter2", secretly)
		n.crash()
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, dir, "UPDATE approval SET decisions = x'ff' WHERE command = ?", waiting)
		o.Journal = sealedWith(t, dir, 2)
		n = start(t, o)
		if s := n.ended(attached); s.State != command.Lost {
			t.Error(s.State)
		}
		if s := n.ended(waiting); s.State != command.Rejected {
			t.Error(s.State)
		}
		nothingOf(t, o, attached, audit.CommandAccepted, audit.CommandEnded)
		nothingOf(t, o, waiting, audit.CommandAccepted, audit.CommandEnded)
	})
}

// A decision that is not known yet is told as that.
func TestUnsureIsToldAsThat(t *testing.T) {
	o, _, f := onHazy(t)
	n := start(t, o)
	id := n.asks("uname")
	ballot := n.ballot(id, approval.Approve)
	f.unmade.Store(true)
	f.blind.Store(true)
	_ = n.decide(boss, ballot)
	// The journal reads for lists, and not for who makes sure.
	first := true
	hook := func(string) error {
		if first {
			first = false
			return errNoStore
		}
		f.reading.Store(nil)
		return nil
	}
	f.reading.Store(&hook)
	f.blind.Store(false)
	err := n.decide(boss, ballot)
	if fault.ReasonOf(err) != fault.ReasonStoreUnavailable {
		t.Error(err)
	}
	f.unmade.Store(false)
	deadline := time.Now().Add(20 * time.Second)
	for err != nil && time.Now().Before(deadline) {
		err = n.decide(boss, ballot)
	}
	if s := n.ended(id); code(s) != "0" {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}
