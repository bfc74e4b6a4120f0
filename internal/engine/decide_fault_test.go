package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/store/sqlite"
)

// What becomes of decisions when the store, the service or the host fails at the
// worst moment.

// hazy is a journal whose answers to Decide get lost, before the write or
// behind it, and that can be blind.
type hazy struct {
	engine.Journal
	lost    atomic.Bool                           // it writes and says that it did not
	unmade  atomic.Bool                           // it does not write, and says so
	angry   atomic.Bool                           // it panics
	blind   atomic.Bool                           // approvals cannot be read
	during  atomic.Pointer[func()]                // called behind the next write
	reading atomic.Pointer[func(id string) error] // called before an approval is read
}

var errNoStore = fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "no store")

func (f *hazy) Decide(ctx context.Context, steps []approval.Step) error {
	switch {
	case f.angry.Load():
		panic("a defect of the store")
	case f.unmade.Load():
		return errNoStore
	}
	err := f.Journal.Decide(ctx, steps)
	if hook := f.during.Swap(nil); hook != nil {
		(*hook)()
	}
	if err == nil && f.lost.Load() {
		return errNoStore
	}
	return err
}

func (f *hazy) Approval(ctx context.Context, id string) (approval.Approval, error) {
	if f.blind.Load() {
		return approval.Approval{}, errNoStore
	}
	if hook := f.reading.Load(); hook != nil {
		if err := (*hook)(id); err != nil {
			return approval.Approval{}, err
		}
	}
	return f.Journal.Approval(ctx, id)
}

func onHazy(t *testing.T) (engine.Options, engine.Options, *hazy) {
	o := gated(t, policy.Gate{})
	store := o
	f := &hazy{Journal: o.Journal}
	o.Journal = f
	return o, store, f
}

// A decision that was stored though the answer was lost is taken, once; one that was
// not is not. Who decides the same again hears the same.
func TestDecisionIsStoredOrNot(t *testing.T) {
	for _, blind := range []bool{false, true} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("blind %v, lost %v", blind, lost), func(t *testing.T) {
				o, store, f := onHazy(t)
				n := start(t, o)
				id := n.asks("uname; exit 3")
				b := n.ballot(id, approval.Approve)
				f.lost.Store(lost)
				f.unmade.Store(!lost)
				f.blind.Store(blind)
				err := n.decide(boss, b)
				if (err == nil) != (lost && !blind) || err != nil && fault.KindOf(err) != fault.Unavailable {
					t.Errorf("first: %v", err)
				}
				f.lost.Store(false)
				f.unmade.Store(false)
				f.blind.Store(false)
				if lost { // the command goes on, whoever asks
					n.ended(id)
				}
				if err := n.decide(boss, b); err != nil {
					t.Errorf("again: %v", err)
				}
				if s := n.ended(id); code(s) != "3" {
					t.Errorf("%s, %+v", s.State, s.Failure)
				}
				if d := told(t, store, id, audit.ApprovalDecided); len(d) != 1 {
					t.Errorf("%d decisions were told", len(d))
				}
			})
		}
	}
}

// The same for the end of what waits.
func TestWithdrawalIsStoredOrNot(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost %v", lost), func(t *testing.T) {
			o, store, f := onHazy(t)
			n := start(t, o)
			id := n.asks("uname")
			f.lost.Store(lost)
			f.unmade.Store(!lost)
			f.blind.Store(true)
			if _, report, err := n.Cancel(soon(t), ann, id, 0, "x"); report.Outcome != command.Pending {
				t.Errorf("%+v, %v", report, err)
			}
			f.lost.Store(false)
			f.unmade.Store(false)
			f.blind.Store(false)
			if s := n.ended(id); s.State != command.Cancelled {
				t.Errorf("%s", s.State)
			}
			if c, e := told(t, store, id, audit.CommandCancel), told(t, store, id, audit.CommandEnded); len(c) != 1 || len(e) != 1 {
				t.Errorf("%d cancels and %d ends were told", len(c), len(e))
			}
		})
	}
}

// A store that panics takes neither the service nor the command down.
func TestStoreThatPanics(t *testing.T) {
	o, _, f := onHazy(t)
	n := start(t, o)
	id := n.asks("uname; exit 3")
	f.angry.Store(true)
	if err := n.decide(boss, n.ballot(id, approval.Approve)); fault.KindOf(err) != fault.Internal {
		t.Errorf("%v", err)
	}
	f.angry.Store(false)
	if err := n.decide(boss, n.ballot(id, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	n.ended(id)
}

// A cancel that comes while a decision is being stored is told, whatever wins.
func TestCancelBesideADecision(t *testing.T) {
	for verdict, want := range map[approval.Verdict]command.State{approval.Reject: command.Rejected, approval.Approve: command.Cancelled} {
		t.Run(string(verdict), func(t *testing.T) {
			o, store, f := onHazy(t)
			n := start(t, o)
			id := n.asks("uname")
			done := make(chan struct{})
			hook := func() {
				go func() {
					defer close(done)
					n.Cancel(context.WithoutCancel(t.Context()), ann, id, 0, "stop it")
				}()
				n.Await(t.Context(), id, func(s engine.Snapshot) bool { return s.Cancellation != nil })
			}
			f.during.Store(&hook)
			if err := n.decide(boss, n.ballot(id, verdict)); err != nil {
				t.Fatal(err)
			}
			<-done
			s := n.ended(id)
			n.stop() // its owner is through
			if s.State != want || len(told(t, store, id, audit.CommandCancel)) != 1 {
				t.Errorf("%s, told %+v", s.State, told(t, store, id))
			}
		})
	}
}

// A cancel that was taken up outlives a stop of the service.
func TestCancelAtAStop(t *testing.T) {
	o, store, f := onHazy(t)
	n := start(t, o)
	busy, id := n.asks("uname"), n.asks("uname -a")
	done := make(chan struct{})
	hook := func() {
		go func() {
			defer close(done)
			n.Cancel(context.WithoutCancel(t.Context()), ann, id, 0, "stop it")
		}()
		n.Await(t.Context(), id, func(s engine.Snapshot) bool { return s.Cancellation != nil })
		go n.stop()
		<-done
	}
	f.during.Store(&hook)
	if err := n.decide(boss, n.ballot(busy, approval.Reject)); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if c := in(t, store, id); c.State != command.Cancelled {
		t.Errorf("it is %s, %+v", c.State, c.Cancellation)
	}
}

// What was shown is elsewhere by now: nobody modifies it to run there.
func TestModifiedAfterTheHostHasMoved(t *testing.T) {
	o := gated(t, policy.Gate{})
	n := start(t, o)
	id := n.asks("uname; id")
	n.crash()
	o.Hosts = elsewhere{}
	n = start(t, o)
	b := n.ballot(id, approval.Modify)
	b.Modified = &approval.Modification{Line: "uname -a"}
	if err := n.decide(boss, b); fault.ReasonOf(err) != fault.ReasonApprovalVoid {
		t.Errorf("%v", err)
	}
}

// What cannot be started any more gives back what it held of the queue.
func TestApprovedInVain(t *testing.T) {
	o := gated(t, policy.Gate{})
	o.Hosts = hosts{"h": 1}
	n := start(t, o)
	gone := n.asks("uname")
	secretive := n.asks("uname", func(s *command.Spec) {
		s.Sudo = &command.Sudo{User: "root", Password: secret.New("hush"), NeedsPassword: true}
	})
	n.crash()
	n = start(t, o)
	if s := n.ended(secretive); s.State != command.Rejected || reason(s) != fault.ReasonServiceRestarted {
		t.Errorf("what has lost its password is %s, %+v", s.State, s.Failure)
	}
	if a, err := n.Approval(t.Context(), boss, secretive); err != nil || a.State != approval.Rejected {
		t.Errorf("%s, %v", a.State, err)
	}
	n.crash()
	o.Hosts = hosts{"other": 1}
	n = start(t, o)
	if err := n.decide(boss, n.ballot(gone, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(gone); reason(s) != fault.ReasonUnknownHost {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	if s := n.Stats(); s.Queued != 0 || s.Running != 0 {
		t.Errorf("%+v", s)
	}
}

// An approval that cannot be read ends its command, and keeps nothing else from
// starting.
func TestDamagedApproval(t *testing.T) {
	dir := t.TempDir()
	st := openJournal(t, dir)
	o := engine.Options{Journal: st, Node: "n1", Policy: rules(t, policy.Gate{})}
	n := start(t, o)
	id, whole := n.asks("uname"), n.asks("uname; exit 2")
	n.crash()
	st.Close()
	edit(t, dir, "UPDATE approval SET decisions = x'ff' WHERE command = ?", id)
	o.Journal = openJournal(t, dir)
	n = start(t, o)
	if c := in(t, o, id); c.State != command.Rejected || c.Failure.Reason != fault.ReasonApprovalVoid {
		t.Errorf("%s, %+v", c.State, c.Failure)
	}
	if list, _, err := n.Approvals(t.Context(), boss, approval.Filter{}, false); err != nil || len(list) != 1 {
		t.Errorf("%d approvals, %v", len(list), err)
	}
	if err := n.decide(boss, n.ballot(whole, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	n.ended(whole)
}

// One caller cannot fill the service with what waits for people, nor does what waits
// keep others out of the queue.
func TestTooManyAwaiting(t *testing.T) {
	o := gated(t, policy.Gate{})
	o.Limits = engine.Limits{MaxCommands: 1, MaxQueued: 1, MaxAwaiting: 2, QueueTimeout: time.Hour, DrainTimeout: time.Millisecond}
	n := start(t, o)
	first := n.asks("uname")
	n.asks("uname")
	if _, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "uname"}); fault.ReasonOf(err) != fault.ReasonTooManyAwaiting {
		t.Errorf("a third: %v", err)
	}
	if s, _, err := n.Execute(t.Context(), other, command.Spec{Host: "h", Line: "uname", Durability: n.kind}); err != nil || s.State != command.AwaitingApproval {
		t.Errorf("somebody else's: %v", err)
	}
	n.ended(n.execute("true"))
	n.Cancel(t.Context(), ann, first, 0, "")
	n.ended(first)
	n.asks("uname")
}

// explosive are hosts one of which is a defect of ours.
type explosive struct{ hosts }

func (e explosive) Lookup(name string) (inventory.Host, error) {
	if name == "boom" {
		panic("a defect")
	}
	return e.hosts.Lookup(name)
}

// A panic while a command is being accepted costs that command, not the service.
func TestPanicInAccept(t *testing.T) {
	o := fresh(t)
	o.Hosts = explosive{hosts{"h": 1}}
	n := start(t, o)
	if _, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "boom", Line: "true"}); fault.KindOf(err) != fault.Internal {
		t.Errorf("%v", err)
	}
	n.ended(n.execute("true"))
}

// Who modifies a request beyond what was asked for does not approve that, whatever
// the rule lets requesters do.
func TestAllowSelf(t *testing.T) {
	n := start(t, gated(t, policy.Gate{AllowSelf: true}))
	both := ann
	both.Roles = []access.Role{access.RoleOperator, access.RoleApprover}
	id := n.asks("uname; exit 1")
	if err := n.decide(both, n.ballot(id, approval.Approve)); err != nil {
		t.Errorf("one's own: %v", err)
	}
	n.ended(id)
	id = n.asks("uname")
	b := n.ballot(id, approval.Modify)
	b.Modified = &approval.Modification{Line: "uptime"}
	if err := n.decide(boss, b); err != nil {
		t.Fatal(err)
	}
	if err := n.decide(boss, n.ballot(id, approval.Approve)); fault.ReasonOf(err) != fault.ReasonNotYourDecision {
		t.Errorf("one's own modification: %v", err)
	}
	if err := n.decide(both, n.ballot(id, approval.Approve)); err != nil {
		t.Errorf("whose command it is: %v", err)
	}
	n.ended(id)
}

// sealedWith opens the store in a directory with one of several keys.
func sealedWith(t *testing.T, dir string, key byte) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(dir, "telexec.db"), sqlite.Options{Key: seal.NewKey(bytes.Repeat([]byte{key}, seal.KeySize))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// With another key nothing that was sealed is left: what waits ends, and what runs
// is let go of rather than shown with its secrets.
func TestLostKey(t *testing.T) {
	dir := t.TempDir()
	o, m := onMachine(t)
	o.Policy = rules(t, policy.Gate{})
	o.Hosts = hosts{"h": 1}
	st := sealedWith(t, dir, 1)
	o.Journal = st
	n := start(t, o)
	with := func(s *command.Spec) {
		s.StdinOpen, s.Env, s.Redact = true, map[string]string{"a": "b"}, []secret.Text{secret.New("hunter2")}
	}
	running := n.execute("echo one; cat; : hunter2", with)
	n.prints(running, "one")
	n.stores(running, "running", func(c command.Command) bool { return c.State == command.Running && c.Size[command.Stdout] == 4 })
	queued := n.execute("true", with)
	waiting := n.asks("uname", with)
	n.crash()
	st.Close()
	m.with(func() {})
	o.Journal = sealedWith(t, dir, 2)
	n = start(t, o)
	for id, want := range map[string]command.State{running: command.Lost, queued: command.Failed, waiting: command.Rejected} {
		if s := n.ended(id); s.State != want || reason(s) != fault.ReasonSealBroken {
			t.Errorf("%s, %+v; want %s", s.State, s.Failure, want)
		}
		for _, e := range told(t, o, id) {
			if strings.Contains(e.Command, "hunter2") {
				t.Errorf("%s tells %q", e.Kind, e.Command)
			}
		}
	}
	if out := n.output(running); out != "one\n" {
		t.Errorf("it shows %q", out)
	}
}

// Whoever looks while a modification is being taken up sees the command that the
// hash is of.
func TestShownTogether(t *testing.T) {
	n := start(t, gated(t, policy.Gate{Count: 3}))
	id := n.asks("uname; id; df")
	by := person("p0", access.RoleApprover)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 40 {
			b := n.ballot(id, approval.Modify)
			b.Modified = &approval.Modification{Line: fmt.Sprint("uname; echo ", i)}
			if err := n.decide(person(fmt.Sprint("p", i+1), access.RoleApprover), b); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for more := true; more; {
		select {
		case <-done:
			more = false
		default:
		}
		a, err := n.Approval(t.Context(), by, id)
		if err != nil || a.Snapshot.CommandLine() != a.Command {
			t.Fatalf("shown %q with the hash of %q, %v", a.Snapshot.CommandLine(), a.Command, err)
		}
	}
	n.Cancel(t.Context(), ann, id, 0, "")
}
