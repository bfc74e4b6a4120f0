package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/session"
)

// withShells gives options with sessions.
func withShells(t *testing.T) (engine.Options, *shells) {
	o := fresh(t)
	s := newShells(t)
	o.Sessions = s
	return o, s
}

// inside has a command run in a session.
func inside(ref string) func(*command.Spec) {
	return func(s *command.Spec) { s.Host, s.Durability, s.Session = "", "", ref }
}

func TestCommandsInASession(t *testing.T) {
	o, sessions := withShells(t)
	o.Hosts = hosts{"h": 1}
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	blocker := n.execute("cat", withInput)
	n.running(blocker) // the host has no slot left, and a session needs none

	var ids []string
	for _, tc := range []struct {
		ref, line, code, out string
	}{
		{"dev", "cd /usr && x=5", "0", ""},
		{dev.s.ID, "pwd; echo $x", "0", "/usr\n5\n"},
		{"dev", "false", "1", ""},
		{"dev", "(exit 5)", "5", ""},
		{"dev", "sh -c 'kill -INT $$'", "130", ""},
	} {
		id := n.execute(tc.line, inside(tc.ref))
		s := n.ended(id)
		ids = append(ids, id)
		if s.State != command.Completed || code(s) != tc.code || s.Completion != command.ByMark || n.output(id) != tc.out {
			t.Errorf("%q: %s, code %s, %s, output %q, %+v", tc.line, s.State, code(s), s.Completion, n.output(id), s.Failure)
		}
		if s.Spec.Session != "dev" || s.Spec.SessionID != dev.s.ID || s.Spec.SessionOwner != "ann" || s.Spec.Host != "h" {
			t.Errorf("it is in %q (%s) of %s on %s", s.Spec.Session, s.Spec.SessionID, s.Spec.SessionOwner, s.Spec.Host)
		}
		if s.Durability != command.Attached || s.DurabilityReason != "it runs in the session dev" {
			t.Errorf("%s, %s", s.Durability, s.DurabilityReason)
		}
	}
	if s, _ := n.Get(t.Context(), ann, ids[0]); s.SessionOffset != 0 {
		t.Errorf("the first begins at %d", s.SessionOffset)
	}
	if s, _ := n.Get(t.Context(), ann, ids[2]); s.SessionOffset != int64(len("/usr\n5\n")) {
		t.Errorf("the third begins at %d", s.SessionOffset)
	}
	list, err := n.List(t.Context(), ann, command.Filter{Session: dev.s.ID})
	if err != nil || len(list) != len(ids) || list[0].ID != ids[4] {
		t.Errorf("%d are listed, %v", len(list), err)
	}
	for _, e := range told(t, o, ids[0]) {
		if e.Session != dev.s.ID || e.Host != "h" {
			t.Errorf("the audit has %+v", e)
		}
	}
	n.input(blocker, "")
	n.Input(t.Context(), ann, blocker, nil, true)
	n.ended(blocker)
	n.idle()
}

// Where a command begins is known at its end, however short it is.
func TestWhereAShortCommandBegins(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	sessions.opened("dev")
	sessions.late = true
	n.ended(n.execute("echo one", inside("dev")))
	for range 20 {
		if s := n.ended(n.execute("true", inside("dev"))); s.SessionOffset != int64(len("one\n")) {
			t.Fatalf("it begins at %d", s.SessionOffset)
		}
	}
}

// Of many commands for one session each waits for the one before.
func TestOneAtATime(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	other := sessions.opened("other")
	const many = 50
	ids := make([]string, many)
	first := n.execute("read x", inside("dev"))
	n.running(first)
	for i := range ids {
		ids[i] = n.execute(fmt.Sprintf("echo %d", i), inside("dev"))
	}
	n.until(ids[1], "second", func(s engine.Snapshot) bool {
		return s.Queue != nil && s.Queue.Position == 2 && s.Queue.WaitsFor == "session"
	})
	if running, queued := n.Load("h"); running != 1 || queued != many {
		t.Errorf("%d run and %d wait", running, queued)
	}
	if s := n.Stats(); s.Running != 1 || s.Queued != many {
		t.Errorf("%+v", s)
	}
	n.ended(n.execute("true", inside(other.s.ID))) // which has nothing to do with it
	n.input(first, "")
	before := n.ended(first)
	for i, id := range ids {
		s := n.ended(id)
		if s.StartTime.Before(before.EndTime) || n.output(id) != fmt.Sprintln(i) {
			t.Errorf("%d began at %v, and the one before has ended at %v; output %q", i, s.StartTime, before.EndTime, n.output(id))
		}
		before = s
	}
	sessions.mu.Lock()
	defer sessions.mu.Unlock()
	if sessions.most > 2 { // one in each
		t.Errorf("%d were given to the sessions at once", sessions.most)
	}
	if dev.out == 0 {
		t.Error("they have not run there")
	}
}

func TestBusyIsRefused(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	spec := command.Spec{Session: "dev", Line: "read x; : first"}
	var accepted, refused atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, _, err := n.ExecuteUnlessBusy(t.Context(), ann, spec)
			switch fault.ReasonOf(err) {
			case "":
				accepted.Add(1)
			case fault.ReasonSessionBusy:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if accepted.Load() != 1 || refused.Load() != 19 {
		t.Fatalf("%d accepted, %d refused", accepted.Load(), refused.Load())
	}
	list, err := n.List(t.Context(), ann, command.Filter{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d commands, %v", len(list), err)
	}
	first := n.running(list[0].ID)
	_, _, err = n.ExecuteUnlessBusy(t.Context(), ann, spec)
	f := fault.From(err)
	if f == nil || f.Reason != fault.ReasonSessionBusy || f.Hint == "" || f.Metadata["command_id"] != first.ID || f.Metadata["command"] != spec.Line ||
		f.Metadata["principal"] != "ann" || f.Metadata["since"] != first.StartTime.UTC().Format(time.RFC3339) || !strings.Contains(f.Message, `ann runs "read x; : first" since`) {
		t.Errorf("%v, %v", err, f)
	}
	n.input(first.ID, "")
	n.ended(first.ID)
	n.idle()

	// What a person types is seen before it has a record.
	sessions.mu.Lock()
	dev.run("read y")
	sessions.mu.Unlock()
	if _, _, err := n.ExecuteUnlessBusy(t.Context(), ann, spec); fault.ReasonOf(err) != fault.ReasonSessionBusy {
		t.Errorf("while somebody types: %v", err)
	}
	if s := n.Stats(); s.Running+s.Queued != 0 {
		t.Errorf("what was refused keeps a place: %+v", s)
	}
	waits := n.execute("echo there", inside("dev"))
	fmt.Fprintln(dev.stdin)
	n.ended(waits)
}

// Whoever is told of an end is not refused for what has ended.
func TestNotBusyAfterTheEnd(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	sessions.opened("dev")
	for range 30 {
		s, _, err := n.ExecuteUnlessBusy(t.Context(), ann, command.Spec{Session: "dev", Line: "true"})
		if err != nil {
			t.Fatal(err)
		}
		n.ended(s.ID)
	}
}

func TestTyped(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	bob := other
	bob.Origin = command.OriginWeb
	id, err := dev.types(t.Context(), bob, 1, "read x; (exit 4)")
	if err != nil {
		t.Fatal(err)
	}
	s := n.running(id)
	if s.CreatedBy != bob.Actor() || s.Spec.Typed != 1 || s.CommandLine() != "read x; (exit 4)" || s.Spec.SessionID != dev.s.ID {
		t.Errorf("%+v", s.Command)
	}
	waits := n.execute("echo after", inside("dev"))
	n.until(waits, "waiting", func(s engine.Snapshot) bool { return s.Queue != nil && s.Queue.WaitsFor == "session" })
	if second, err := n.Typed(t.Context(), bob, dev.s, 2, "\x00"); fault.ReasonOf(err) != fault.ReasonEmptyCommand || second != "" {
		t.Errorf("an empty line: %q, %v", second, err)
	}
	fmt.Fprint(dev.stdin, "\n")
	if s := n.ended(id); s.State != command.Completed || code(s) != "4" || s.Completion != command.ByMark {
		t.Errorf("%s, %s, %+v", s.State, code(s), s.Failure)
	}
	if s := n.ended(waits); s.State != command.Completed {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	entries := told(t, o, id, audit.CommandAccepted)
	if len(entries) != 1 {
		t.Fatalf("the audit has %+v", entries)
	}
	if e := entries[0]; e.Decision != "typed" || e.Principal != bob.Name || e.Origin != "web" || e.Session != dev.s.ID || e.Outcome != string(command.Starting) {
		t.Errorf("the audit has %+v", e)
	}
}

// What was typed is kept as text, and no longer than a command may be.
func TestTypedIsCleaned(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	for i, tc := range []struct{ line, kept string }{
		{": a\x00b", ": ab"},
		{": \xff", ": \uFFFD"},
		{": " + strings.Repeat("é", command.MaxLine), ": " + strings.Repeat("é", command.MaxLine/2-1)},
	} {
		sessions.mu.Lock()
		dev.typed[int64(i+1)] = dev.run(":")
		sessions.mu.Unlock()
		id, err := n.Typed(t.Context(), ann, dev.s, int64(i+1), tc.line)
		if err != nil {
			t.Fatal(err)
		}
		if s := n.ended(id); s.CommandLine() != tc.kept {
			t.Errorf("%.20q is kept as %.20q, %d bytes", tc.line, s.CommandLine(), len(s.CommandLine()))
		}
	}
}

// Who types is not disturbed by a service that cannot make a record of it.
func TestTypedWithoutARecord(t *testing.T) {
	o, sessions := withShells(t)
	store := &deaf{Journal: o.Journal}
	o.Journal = store
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	store.full.Store(true)
	short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if id, err := dev.types(short, ann, 1, "read x"); err == nil || id != "" || short.Err() != nil {
		t.Errorf("a store that takes nothing: %q, %v, %v", id, err, short.Err())
	}
	store.full.Store(false)
	if s := n.Stats(); s.Running+s.Queued != 0 {
		t.Errorf("it keeps a place: %+v", s)
	}
	if _, _, noTask, err := n.CancelSession(t.Context(), ann, "dev", ample, ""); fault.ReasonOf(err) != fault.ReasonNotRunning || noTask {
		t.Errorf("a cancel of what has no record: %v, %v", noTask, err)
	}
	waits := n.execute("echo there", inside("dev")) // for the shell
	n.until(waits, "starting", func(s engine.Snapshot) bool { return s.State == command.Starting })
	fmt.Fprintln(dev.stdin)
	n.ended(waits)
	n.Drain()
	if id, err := dev.types(t.Context(), ann, 2, ": quietly"); fault.ReasonOf(err) != fault.ReasonDraining || id != "" {
		t.Errorf("a service that stops: %q, %v", id, err)
	}
	// What the session does not know any more has run for all that.
	n = sessions.serve(start(t, engine.Options{Journal: o.Journal, Node: "n1", Sessions: sessions}))
	id, err := n.Typed(t.Context(), ann, dev.s, 99, ": gone")
	if err != nil {
		t.Fatal(err)
	}
	if s := n.ended(id); s.State != command.Lost || reason(s) != fault.ReasonNotRunning {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

// Somebody types while commands come for the same session: each runs once, and no
// place is kept.
func TestTypedRaces(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	var ids []string
	for i := range 20 {
		var wg sync.WaitGroup
		var executed, typed string
		wg.Go(func() { executed = n.execute("echo e", inside("dev")) })
		wg.Go(func() {
			sessions.await(t.Context(), func() bool {
				if dev.current != nil {
					return false
				}
				dev.typed[int64(i+1)] = dev.run("echo t") // what is typed at a prompt, at once
				return true
			})
			var err error
			if typed, err = n.Typed(t.Context(), ann, dev.s, int64(i+1), "echo t"); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		ids = append(ids, executed, typed)
	}
	for i, id := range ids {
		want := "et"[i%2:][:1] + "\n"
		if s := n.ended(id); s.State != command.Completed || n.output(id) != want {
			t.Errorf("%s, %q, %+v", s.State, n.output(id), s.Failure)
		}
	}
	n.idle()
}

// idle waits until nothing runs or waits.
func (n *node) idle() {
	n.t.Helper()
	late := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s := n.Stats()
		running, queued := n.Load("h")
		if s.Running+s.Queued+running+queued == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			n.t.Fatalf("%+v; on the host %d run and %d wait", s, running, queued)
		}
	}
}

// Whatever somebody types is ended by whoever may act on the session, by its name.
func TestCancelInASession(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	_, report, noTask, err := n.CancelSession(t.Context(), ann, "dev", ample, "")
	if err != nil || !noTask || report.Outcome != command.AlreadyEnded {
		t.Errorf("nothing runs: %+v, %v, %v", report, noTask, err)
	}
	id, err := dev.types(t.Context(), other, 1, "sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	n.running(id)
	waits := n.execute("echo next", inside("dev"))
	mcp := ann
	mcp.Origin = command.OriginMCP
	asked := make(chan command.Actor, 1)
	sessions.cancel = func(j *held) (*command.CancelReport, error) {
		asked <- j.run.CancelledBy()
		return nil, nil
	}
	s, report, noTask, err := n.CancelSession(t.Context(), mcp, "dev", ample, "enough")
	if err != nil || noTask || s.ID != id || s.State != command.Cancelled || report.Outcome != command.Gone || report.Signal != "INT" || code(s) != "130" {
		t.Fatalf("%s, %+v, %v, %v", s.State, report, noTask, err)
	}
	if by := <-asked; by != mcp.Actor() || s.Cancellation.By != mcp.Actor() || s.Cancellation.Reason != "enough" || reason(s) != fault.ReasonCancelledByCaller {
		t.Errorf("by %+v, %+v, %+v", by, s.Cancellation, s.Failure)
	}
	if s := n.ended(waits); s.State != command.Completed {
		t.Errorf("what waited: %s, %+v", s.State, s.Failure)
	}
}

func TestCancelWhileQueuedForASession(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	first := n.execute("read x", inside("dev"))
	n.running(first)
	queued := n.execute("echo never", inside("dev"))
	last := n.execute("echo last", inside("dev"))
	s, report, err := n.Cancel(t.Context(), ann, queued, ample, "")
	if err != nil || s.State != command.Cancelled || report.Outcome != command.NeverStarted {
		t.Errorf("%s, %+v, %v", s.State, report, err)
	}
	n.input(first, "")
	n.ended(last)

	// So it is where its turn has come and the shell is in use.
	sessions.mu.Lock()
	dev.run("read y")
	sessions.mu.Unlock()
	starting := n.execute("echo never", inside("dev"))
	n.until(starting, "starting", func(s engine.Snapshot) bool { return s.State == command.Starting })
	if s, report, err := n.Cancel(t.Context(), ann, starting, ample, ""); err != nil || s.State != command.Cancelled || report.Outcome != command.NeverStarted {
		t.Errorf("%s, %+v, %v", s.State, report, err)
	}
	fmt.Fprintln(dev.stdin)
	n.idle()
	sessions.mu.Lock()
	defer sessions.mu.Unlock()
	if got := dev.out; got != int64(len("last\n")) {
		t.Errorf("the shell has printed %d bytes", got)
	}
}

// How the end of a command in a session is told.
func TestEndsInASession(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	gone := func(reason string) func(*command.Ending) error {
		return func(end *command.Ending) error {
			*end = command.Ending{}
			return fault.New(fault.Unavailable, reason, "it is gone")
		}
	}
	guess := func(by command.Completion) func(*command.Ending) error {
		return func(end *command.Ending) error {
			*end = command.Ending{Completion: by}
			return nil
		}
	}
	for name, tc := range map[string]struct {
		line       string
		onEnd      func(*command.Ending) error
		state      command.State
		code       string
		completion command.Completion
		reason     string
	}{
		"by a prompt":           {"true", guess(command.ByPrompt), command.Completed, "none", command.ByPrompt, ""},
		"by silence":            {"true", guess(command.BySilence), command.Completed, "none", command.BySilence, ""},
		"the shell exits":       {"exit 3", nil, command.Completed, "3", command.ByMark, ""},
		"the shell is killed":   {"kill -9 $$", nil, command.Failed, "none", "", fault.ReasonShellExited},
		"it is closed":          {"true", gone(fault.ReasonSessionClosed), command.Failed, "none", "", fault.ReasonSessionClosed},
		"it was idle":           {"true", gone(fault.ReasonIdleTimeout), command.Failed, "none", "", fault.ReasonIdleTimeout},
		"the connection is off": {"true", gone(fault.ReasonConnectionLost), command.Lost, "none", "", fault.ReasonConnectionLost},
		"the host was rebooted": {"true", gone(fault.ReasonHostRebooted), command.Lost, "none", "", fault.ReasonHostRebooted},
	} {
		t.Run(name, func(t *testing.T) {
			sessions.mu.Lock()
			sessions.onEnd = tc.onEnd
			sessions.mu.Unlock()
			s := n.ended(n.execute(tc.line, inside(sessions.opened("dev").s.ID)))
			if s.State != tc.state || code(s) != tc.code || s.Completion != tc.completion || reason(s) != tc.reason {
				t.Errorf("%s, code %s, %q, %+v", s.State, code(s), s.Completion, s.Failure)
			}
		})
	}
}

// An end that a cancel has brought about is told so, and one that came by itself too.
func TestCancelOutcomesInASession(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	ends := func(j *job) { fmt.Fprintln(j.shell.stdin) }
	for name, tc := range map[string]struct {
		line   string
		cancel func(s *shells, j *job) (*command.CancelReport, error)
		state  command.State
		code   string
	}{
		"its own end won": {"read x; (exit 130)", func(s *shells, j *job) (*command.CancelReport, error) {
			ends(j)
			s.await(context.Background(), func() bool { return j.end != nil })
			return nil, nil // which finds nothing
		}, command.Completed, "130"},
		"it has a code of its own": {"read x; (exit 7)", func(s *shells, j *job) (*command.CancelReport, error) {
			ends(j)
			return &command.CancelReport{Outcome: command.Gone, Signal: "INT", Ended: 1}, nil
		}, command.Cancelled, "7"},
		"nothing was counted": {"read x; (exit 130)", func(s *shells, j *job) (*command.CancelReport, error) {
			ends(j)
			return &command.CancelReport{Outcome: command.Gone, Signal: "INT"}, nil
		}, command.Cancelled, "130"},
		"the report got lost": {"read x; (exit 130)", func(s *shells, j *job) (*command.CancelReport, error) {
			s.mu.Lock()
			over := j.end != nil
			s.mu.Unlock()
			if over {
				return nil, nil
			}
			ends(j)
			return nil, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "no answer")
		}, command.Cancelled, "130"},
		"it could not be killed": {"read x; (exit 137)", func(s *shells, j *job) (*command.CancelReport, error) {
			ends(j)
			return &command.CancelReport{Outcome: command.Left, Signal: "KILL", Ended: 1}, nil
		}, command.Failed, "137"},
	} {
		t.Run(name, func(t *testing.T) {
			sessions.mu.Lock()
			sessions.cancel = func(j *held) (*command.CancelReport, error) { return tc.cancel(sessions, j.job) }
			sessions.mu.Unlock()
			id := n.execute(tc.line, inside(sessions.opened("dev").s.ID))
			n.running(id)
			n.Cancel(t.Context(), ann, id, ample, "")
			if s := n.ended(id); s.State != tc.state || code(s) != tc.code {
				t.Errorf("%s, code %s, %+v, %+v", s.State, code(s), s.Failure, s.Cancellation)
			}
		})
	}
}

func TestTimeoutInASession(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	sessions.opened("dev", kept)
	var by command.Actor
	sessions.cancel = func(j *held) (*command.CancelReport, error) {
		by = j.run.CancelledBy()
		return nil, nil
	}
	s := n.ended(n.execute("sleep 60", inside("dev"), func(s *command.Spec) { s.Timeout = 50 * time.Millisecond }))
	if s.State != command.TimedOut || s.Cancellation != nil || by != (command.Actor{}) {
		t.Errorf("%s, %+v, %+v", s.State, s.Failure, by)
	}
}

// A cancel is seen at once, also while the store takes its time.
func TestCancelInASessionDoesNotWaitForTheStore(t *testing.T) {
	o, sessions := withShells(t)
	slow := &slowStore{Journal: o.Journal, free: make(chan struct{})}
	o.Journal = slow
	n := sessions.serve(start(t, o, func(e *engine.Engine) { e.SetStoreFirst(time.Hour) }))
	sessions.opened("dev")
	id := n.execute("sleep 60", inside("dev"))
	n.running(id)
	n.stores(id, "running", func(c command.Command) bool { return c.State == command.Running })
	slow.hold.Store(true)
	asked := make(chan struct{}, 1)
	sessions.mu.Lock()
	sessions.cancel = func(*held) (*command.CancelReport, error) { asked <- struct{}{}; return nil, nil }
	sessions.mu.Unlock()
	go n.Cancel(t.Context(), ann, id, ample, "")
	<-asked
	close(slow.free)
	if s := n.ended(id); s.State != command.Cancelled {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

// slowStore is a journal whose writes can be held.
type slowStore struct {
	engine.Journal
	hold atomic.Bool
	free chan struct{}
}

func (h *slowStore) Apply(ctx context.Context, ch command.Change) error {
	if h.hold.Load() {
		<-h.free
	}
	return h.Journal.Apply(ctx, ch)
}

// A service that stops does not wait for a command that waits for its shell.
func TestStopWhileACommandWaitsForItsShell(t *testing.T) {
	o, sessions := withShells(t)
	o.Limits = engine.Limits{MaxCommands: 100, MaxQueued: 100, MaxAwaiting: 20, QueueTimeout: time.Hour, DrainTimeout: time.Hour}
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev", kept)
	sessions.mu.Lock()
	dev.run("read x")
	sessions.mu.Unlock()
	id := n.execute("echo a", inside("dev"))
	n.until(id, "starting", func(s engine.Snapshot) bool { return s.State == command.Starting })
	n.stop() // in less than the hour that attached ones get
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.Queued || s.Durability != "" {
		t.Fatalf("%s, %s, %v", s.State, s.Durability, err)
	}
	fmt.Fprintln(dev.stdin)
	n = sessions.serve(start(t, o))
	if s := n.ended(id); s.State != command.Completed || n.output(id) != "a\n" {
		t.Errorf("%s, %+v, %q", s.State, s.Failure, n.output(id))
	}
}

// When the service stops, whoever lets go first of a command that is kept: it goes on.
func TestKeptIsLetGoOf(t *testing.T) {
	o, sessions := withShells(t)
	o.Limits = engine.Limits{MaxCommands: 100, MaxQueued: 100, MaxAwaiting: 20, QueueTimeout: time.Hour, DrainTimeout: time.Hour}
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev", kept)
	id := n.execute("read x; (exit 3)", inside("dev"))
	n.running(id)
	other := n.execute("cat", withInput) // which the service waits for
	n.running(other)
	dropped := n.dropping(id)
	n.Drain()
	sessions.mu.Lock()
	for _, h := range dev.helds {
		h.Close()
	}
	sessions.mu.Unlock()
	dropped()
	n.Input(t.Context(), ann, other, nil, true)
	n.stop()
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.Running {
		t.Fatalf("%s, %+v, %v", s.State, s.Failure, err)
	}
	fmt.Fprintln(dev.stdin)
	n = sessions.serve(start(t, o))
	if s := n.ended(id); s.State != command.Completed || code(s) != "3" {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

// Why a session is gone that the last run of the service has left is told of its
// command too.
func TestLostWithItsSession(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev", kept)
	id := n.execute("read x", inside("dev"))
	n.running(id)
	n.stop()
	sessions.mu.Lock()
	dev.s.End = &command.Failure{Reason: fault.ReasonHostRebooted, Message: "the host was rebooted"}
	sessions.mu.Unlock()
	dev.ends()
	n = sessions.serve(start(t, o))
	s := n.ended(id)
	if s.State != command.Lost || reason(s) != fault.ReasonHostRebooted || !strings.Contains(s.Failure.Message, "the session dev ended while the command was running: the host was rebooted") || s.Failure.Hint == "" {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	_, report, err := n.Cancel(t.Context(), ann, id, ample, "")
	if err != nil || report.Outcome != command.Unproven || !strings.Contains(report.Message, "LOST") {
		t.Errorf("a cancel of it: %+v, %v", report, err)
	}
}

// How a start that failed in a session is told: what may have been typed did not fail
// to start.
func TestStartFailsInASession(t *testing.T) {
	o, sessions := withShells(t)
	var reason atomic.Value
	sessions.typing = func(context.Context, engine.SessionRun) error {
		return fault.New(fault.Unavailable, reason.Load().(string), "no")
	}
	n := sessions.serve(start(t, o))
	sessions.opened("dev")
	for given, want := range map[string]command.State{
		fault.ReasonSessionEnded:     command.Failed,
		fault.ReasonHostUnreachable:  command.Failed,
		fault.ReasonShellExited:      command.Failed,
		fault.ReasonConnectionLost:   command.Lost,
		fault.ReasonSessionGone:      command.Lost,
		fault.ReasonServiceRestarted: command.Lost,
	} {
		reason.Store(given)
		if s := n.ended(n.execute("true", inside("dev"))); s.State != want || s.Failure == nil || s.Failure.Reason != given {
			t.Errorf("%s: %s, %+v", given, s.State, s.Failure)
		}
	}
	n.idle()
}

// What waits for a session that ends does so at once.
func TestSessionEndsWhileQueued(t *testing.T) {
	o, sessions := withShells(t)
	o.Policy = rules(t, policy.Gate{})
	o.Limits = engine.Limits{MaxCommands: 2, MaxQueued: 100, MaxAwaiting: 20, QueueTimeout: time.Hour, DrainTimeout: time.Millisecond}
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	other := sessions.opened("other")
	first := n.execute("cat", inside("dev"))
	n.running(first)
	var waiting []string
	for range 5 {
		waiting = append(waiting, n.execute("echo never", inside("dev")))
	}
	gate := n.asks("uname", inside("dev"))
	// The service has no slot more for this one.
	busy := n.execute("cat", withInput)
	n.running(busy)
	full := n.execute("echo never", inside("other"))
	n.until(full, "waiting", func(s engine.Snapshot) bool { return s.Queue != nil && s.Queue.WaitsFor == "service" })
	other.ends()
	if s := n.ended(full); s.State != command.Failed || reason(s) != fault.ReasonSessionEnded || s.Failure.Hint == "" || !s.StartTime.IsZero() {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	dev.ends()
	for _, id := range waiting {
		if s := n.ended(id); s.State != command.Failed || reason(s) != fault.ReasonSessionEnded {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
	}
	if s := n.ended(gate); s.State != command.Rejected || reason(s) != fault.ReasonSessionEnded {
		t.Errorf("what waited for approval: %s, %+v", s.State, s.Failure)
	}
	if s := n.ended(first); s.State != command.Failed || reason(s) != fault.ReasonShellExited {
		t.Errorf("what ran: %s, %+v", s.State, s.Failure)
	}
	if _, _, err := n.Execute(t.Context(), ann, command.Spec{Session: "dev", Line: "echo never"}); fault.ReasonOf(err) != fault.ReasonSessionEnded {
		t.Errorf("a session that has ended: %v", err)
	}
	n.Input(t.Context(), ann, busy, nil, true)
	n.ended(busy)
	n.idle()
}

// Whoever may act on a session may see and end what runs in it; to others it is as if
// there were none.
func TestWhoseSession(t *testing.T) {
	o, sessions := withShells(t)
	rights, err := access.NewRights([]access.Wider{{Roles: []access.Role{access.RoleOperator}, Hosts: []string{"shared"}}}, access.RoleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	o.Rights = rights
	o.Hosts = hosts{"h": 10, "shared": 10}
	n := sessions.serve(start(t, o))
	sessions.opened("dev")
	sessions.opened("open", func(s *session.Session) { s.Spec.Host = "shared" })
	typed, err := sessions.find("dev").types(t.Context(), root, 1, "read x")
	if err != nil {
		t.Fatal(err)
	}
	n.running(typed)

	calls := map[string]func(by access.Caller, ref string) error{
		"Execute": func(by access.Caller, ref string) error {
			_, _, err := n.Execute(t.Context(), by, command.Spec{Session: ref, Line: "true"})
			return err
		},
		"Current": func(by access.Caller, ref string) error { _, _, err := n.Current(t.Context(), by, ref); return err },
		"CancelSession": func(by access.Caller, ref string) error {
			_, _, _, err := n.CancelSession(t.Context(), by, ref, 0, "")
			return err
		},
	}
	for name, call := range calls {
		for _, by := range []access.Caller{other, viewer} {
			refused, absent := call(by, "dev"), call(by, "nothing")
			if fault.KindOf(refused) != fault.PermissionDenied || strings.ReplaceAll(refused.Error(), "dev", "nothing") != absent.Error() {
				t.Errorf("%s by %s: %v; of nothing: %v", name, by.Name, refused, absent)
			}
		}
		if err := call(root, "nothing"); fault.ReasonOf(err) != fault.ReasonUnknownSession {
			t.Errorf("%s of nothing by an admin: %v", name, err)
		}
	}
	if _, err := n.Get(t.Context(), other, typed); fault.ReasonOf(err) != fault.ReasonAccessDenied {
		t.Errorf("somebody else: %v", err)
	}
	if s, err := n.Get(t.Context(), ann, typed); err != nil || s.CreatedBy.Principal != "root" {
		t.Errorf("its owner: %v", err)
	}
	list, err := n.List(t.Context(), ann, command.Filter{})
	if err != nil || len(list) != 1 || list[0].ID != typed {
		t.Errorf("its owner lists %d, %v", len(list), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w, err := n.WatchEvents(ctx, ann, engine.EventsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if news, err := w.Next(ctx); err != nil || news.Snapshot == nil || news.Snapshot.ID != typed {
		t.Errorf("its owner is told %+v, %v", news.Snapshot, err)
	}
	if s, noTask, err := n.Current(t.Context(), ann, "dev"); err != nil || noTask || s.ID != typed {
		t.Errorf("its owner asks for the current one: %s, %v, %v", s.ID, noTask, err)
	}
	// To type needs the right to, which an operator has not here.
	if _, err := n.Input(t.Context(), ann, typed, []byte("x\n"), false); fault.ReasonOf(err) != fault.ReasonTypingNotAllowed {
		t.Errorf("an operator types: %v", err)
	}
	if _, err := n.Input(t.Context(), root, typed, []byte("x"), false); err != nil {
		t.Error(err)
	}
	if _, err := n.Signal(t.Context(), ann, typed, "INT"); err != nil {
		t.Error(err)
	}
	_, _ = n.Input(t.Context(), root, typed, []byte("\n"), false) // where the signal has not ended it yet
	n.ended(typed)
	shared, _, err := n.Execute(t.Context(), other, command.Spec{Session: "open", Line: "true"})
	if err != nil {
		t.Fatal(err)
	}
	n.ended(shared.ID)
}

func TestCurrent(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	current := func() (string, bool) {
		t.Helper()
		s, noTask, err := n.Current(t.Context(), ann, "dev")
		if err != nil {
			t.Fatal(err)
		}
		return s.ID, noTask
	}
	if id, noTask := current(); id != "" || !noTask {
		t.Errorf("of an empty session %q, %v", id, noTask)
	}
	first := n.execute("read x", inside("dev"))
	n.running(first)
	second := n.execute("echo two", inside("dev"))
	if id, noTask := current(); id != first || noTask {
		t.Errorf("%q is current, not %q", id, first)
	}
	n.input(first, "")
	n.ended(second)
	for range 2 {
		if id, noTask := current(); id != second || noTask {
			t.Errorf("%q was last, not %q", id, second)
		}
		dev.ends()
	}
	sessions.opened("dev") // another one of the name
	if id, noTask := current(); id != "" || !noTask {
		t.Errorf("of the next session %q, %v", id, noTask)
	}
	s, _, err := n.Current(t.Context(), ann, dev.s.ID)
	if err != nil || s.ID != second {
		t.Errorf("by the id of the one before: %q, %v", s.ID, err)
	}
}

// A repeated request is answered with what it has made, whatever became of its session.
func TestRetryInASession(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev")
	spec := command.Spec{Session: "dev", Line: "echo once", RequestID: "r1"}
	try := func(f func(context.Context, access.Caller, command.Spec) (engine.Snapshot, bool, error)) (string, bool) {
		t.Helper()
		s, replayed, err := f(t.Context(), ann, spec)
		if err != nil {
			t.Fatal(err)
		}
		return s.ID, replayed
	}
	id, _ := try(n.Execute)
	n.ended(id)
	busy := n.execute("read x", inside("dev"))
	for range 2 {
		if again, replayed := try(n.ExecuteUnlessBusy); again != id || !replayed {
			t.Errorf("%s, %v", again, replayed)
		}
		dev.ends()
	}
	n.ended(busy)
	sessions.opened("dev")
	if again, replayed := try(n.Execute); again != id || !replayed {
		t.Errorf("in another session of the name: %s, %v", again, replayed)
	}
	spec.Line = "echo other"
	if _, _, err := n.Execute(t.Context(), ann, spec); fault.KindOf(err) != fault.AlreadyExists {
		t.Errorf("another request with the id: %v", err)
	}
}

// A restart of the service: what a keeper keeps goes on, and nothing is run twice.
func TestRestartWithSessions(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("crash %v", crash), func(t *testing.T) {
			o, sessions := withShells(t)
			n := sessions.serve(start(t, o))
			stays, goes, used := sessions.opened("stays", kept), sessions.opened("goes"), sessions.opened("used", kept)
			on := n.execute("echo a; read x; echo b; (exit 6)", inside("stays"))
			n.prints(on, "a")
			next := n.execute("echo next", inside("stays"))
			lost := n.execute("read x", inside("goes"))
			n.running(lost)
			never := n.execute("echo never", inside("goes"))
			sessions.mu.Lock()
			used.run("read y") // by somebody, without a record
			sessions.mu.Unlock()
			starting := n.execute("echo s", inside("used"))
			n.until(starting, "starting", func(s engine.Snapshot) bool { return s.State == command.Starting })
			n.stores(on, "its output", func(c command.Command) bool { return c.Size[command.Stdout] == 2 && c.State == command.Running })
			n.stores(lost, "running", func(c command.Command) bool { return c.State == command.Running })
			n.stores(starting, "starting", func(c command.Command) bool { return c.State == command.Starting })
			if crash {
				n.crash()
			} else {
				n.stop()
			}
			goes.ends()
			sessions.mu.Lock()
			sessions.ready = make(chan struct{})
			sessions.mu.Unlock()
			o.Node = "n2"
			n = sessions.serve(start(t, o))
			if _, _, err := n.Execute(t.Context(), ann, command.Spec{Session: "stays", Line: "true"}); fault.ReasonOf(err) != fault.ReasonDraining {
				t.Errorf("before the sessions are known: %v", err)
			}
			for _, id := range []string{next, never} {
				if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.Queued {
					t.Errorf("before the sessions are known it is %s, %v", s.State, err)
				}
			}
			sessions.isReady()
			if s := n.ended(lost); s.State != command.Lost || reason(s) != fault.ReasonServiceRestarted {
				t.Errorf("without its session it is %s, %+v", s.State, s.Failure)
			}
			if s := n.ended(never); s.State != command.Failed || reason(s) != fault.ReasonSessionEnded {
				t.Errorf("what waited for it is %s, %+v", s.State, s.Failure)
			}
			fmt.Fprintln(used.stdin)
			s := n.ended(starting)
			switch {
			case crash && (s.State != command.Lost || reason(s) != fault.ReasonServiceRestarted || !s.StartTime.IsZero() || s.Completion != ""):
				t.Errorf("what may have been typed is %s by %q, began %v, %+v", s.State, s.Completion, s.StartTime, s.Failure)
			case !crash && (s.State != command.Completed || n.output(starting) != "s\n"):
				t.Errorf("what was about to be typed is %s, %+v, %q", s.State, s.Failure, n.output(starting))
			}
			n.until(on, "found", func(s engine.Snapshot) bool { return s.State == command.Running && s.Connection == command.Connected })
			fmt.Fprintln(stays.stdin)
			if s := n.ended(on); s.State != command.Completed || code(s) != "6" || n.output(on) != "a\nb\n" || s.SessionOffset != 0 {
				t.Errorf("what goes on is %s, code %s, %q at %d, %+v", s.State, code(s), n.output(on), s.SessionOffset, s.Failure)
			}
			if s := n.ended(next); s.State != command.Completed || n.output(next) != "next\n" {
				t.Errorf("what waited is %s, %q, %+v", s.State, n.output(next), s.Failure)
			}
			n.idle()
		})
	}
}

// What may have been typed when the service was killed is LOST: what runs in the shell
// then may be somebody else's, and a cancel leaves that alone.
func TestKilledWhileItIsTyped(t *testing.T) {
	o, sessions := withShells(t)
	n := sessions.serve(start(t, o))
	dev, free := sessions.opened("dev", kept), sessions.opened("free", kept)
	sessions.mu.Lock()
	dev.run("read x") // by somebody, without a record
	free.run("read y")
	sessions.mu.Unlock()
	var ids []string
	for _, ref := range []string{"dev", "free"} {
		id := n.execute("echo never", inside(ref))
		n.stores(id, "starting", func(c command.Command) bool { return c.State == command.Starting })
		ids = append(ids, id)
	}
	n.crash()
	fmt.Fprintln(free.stdin)
	sessions.await(t.Context(), func() bool { return free.current == nil })
	n = sessions.serve(start(t, o))
	for _, id := range ids {
		_, report, err := n.Cancel(t.Context(), ann, id, ample, "")
		if err != nil || report.Outcome != command.Unproven {
			t.Errorf("a cancel of it: %+v, %v", report, err)
		}
		s := n.ended(id)
		if s.State != command.Lost || reason(s) != fault.ReasonServiceRestarted || !strings.Contains(s.Failure.Message, "not known") || s.Failure.Hint == "" || !s.StartTime.IsZero() {
			t.Errorf("%s, began %v, %+v", s.State, s.StartTime, s.Failure)
		}
	}
	n.idle()
	if id, busy := sessions.Busy(dev.s.ID); !busy || id != "" {
		t.Errorf("what somebody runs is taken for %q, busy %v", id, busy)
	}
	fmt.Fprintln(dev.stdin)
}

// The rules read a line as the session's shell does, and what is approved is bound to
// the session.
func TestPolicyInASession(t *testing.T) {
	o, sessions := withShells(t)
	o.Policy = rules(t, policy.Gate{})
	n := sessions.serve(start(t, o))
	for name, shell := range map[string]string{"sh": "bash", "fish": "fish", "device": ""} {
		sessions.opened(name, func(s *session.Session) { s.Shell, s.Completion = shell, command.ByMark })
	}
	// Somebody has typed ssh in it: what reads the line is not the shell that was opened.
	sessions.opened("within", func(s *session.Session) { s.Shell, s.Completion = "bash", command.ByPrompt })
	for _, tc := range []struct {
		ref, line string
		state     command.State // AwaitingApproval, or whatever follows
		reason    string
	}{
		{"sh", "echo a; cat </dev/null", command.Completed, ""},
		{"sh", "echo a; uname", command.AwaitingApproval, ""},
		{"sh", "apt update", "", fault.ReasonPolicyDenied},
		{"sh", "echo !apt", "", fault.ReasonPolicyDenied}, // whatever that was
		{"sh", "echo ! =", command.Completed, ""},
		{"fish", "echo a; cat </dev/null", "", fault.ReasonPolicyDenied}, // as everything may be that cannot be read
		{"fish", "echo a", command.Completed, ""},
		{"within", "echo a", command.Completed, ""},
		{"within", "echo a; cat </dev/null", "", fault.ReasonPolicyDenied},
		{"device", "echo a", command.Completed, ""},
		{"device", "echo a; echo b", "", fault.ReasonPolicyDenied},
	} {
		s, _, err := n.Execute(t.Context(), ann, command.Spec{Session: tc.ref, Line: tc.line})
		if err == nil && tc.state != command.AwaitingApproval {
			s = n.ended(s.ID)
		}
		if s.State != tc.state || fault.ReasonOf(err) != tc.reason {
			t.Errorf("%s, %q: %s, %v", tc.ref, tc.line, s.State, err)
		}
	}
	first := n.asks("uname", inside("sh"))
	if err := n.decide(boss, n.ballot(first, approval.Approve)); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(first); s.State != command.Completed || n.output(first) == "" {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	second := n.asks("uname", inside("fish"))
	b := n.ballot(second, approval.Modify)
	b.Modified = &approval.Modification{Line: "echo instead"}
	if err := n.decide(boss, b); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(n.ballot(first, approval.Approve).Shown, n.ballot(n.asks("uname", inside("device")), approval.Approve).Shown) {
		t.Error("what is approved in one session is approved in another")
	}
}

// marked is a session whose shell is one that the rules know.
func marked(s *session.Session) {
	s.Shell, s.Completion, s.Keeper = "bash", command.ByMark, session.KeptByTmux
}

// reads has another shell read what comes next in a session.
func (sh *shell) reads(shell string, by command.Completion) {
	sh.of.mu.Lock()
	defer sh.of.mu.Unlock()
	sh.s.Shell, sh.s.Completion = shell, by
}

// A command that waits is judged again where another kind of shell reads when its turn
// comes, also after a restart, which knows less.
func TestJudgedAgainInASession(t *testing.T) {
	const ran = command.Completed
	newRules := func(standard policy.Effect, rules ...policy.Rule) *policy.Policy {
		p, err := policy.New(policy.Rules{Default: standard, Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	echo := policy.Rule{Name: "echo", Effect: policy.Allow, Match: policy.Match{Programs: []string{"echo"}}}
	operators := policy.Rule{Name: "operators", Effect: policy.Allow, Match: policy.Match{Roles: []string{"operator"}}}
	strict := newRules(policy.Deny, echo)
	for name, tc := range map[string]struct {
		rules     *policy.Policy
		line      string
		shell     string
		by        command.Completion
		state     command.State
		restarted command.State // the same where the service was restarted meanwhile
		says      string
	}{
		"the same shell":      {strict, "echo in $x", "bash", command.ByMark, ran, ran, ""},
		"one of its kind":     {strict, "echo in $x", "dash", command.ByMark, ran, ran, ""},
		"another one":         {strict, "echo in $x", "fish", command.ByMark, command.Rejected, command.Rejected, "No rule allows"},
		"an unknown one":      {strict, "echo in $x", "bash", command.ByPrompt, command.Rejected, command.Rejected, "No rule allows"},
		"plain words":         {strict, "echo in x", "bash", command.ByPrompt, ran, ran, ""},
		"it needs approval":   {newRules(policy.RequireApproval, echo), "echo in $x", "bash", command.ByPrompt, command.Rejected, command.Rejected, "needs an approval"},
		"operators may all":   {newRules(policy.Deny, operators), "echo in $x", "bash", command.ByPrompt, ran, command.Rejected, "No rule allows"},
		"everything may be":   {newRules(policy.Allow), "echo in $x", "bash", command.ByPrompt, ran, ran, ""},
		"plain for operators": {newRules(policy.Deny, operators), "echo in x", "bash", command.ByPrompt, ran, ran, ""},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", name, restart), func(t *testing.T) {
				o, sessions := withShells(t)
				n := sessions.serve(start(t, o))
				dev := sessions.opened("dev", marked)
				first := n.execute("read y", inside("dev"))
				n.stores(first, "running", func(c command.Command) bool { return c.State == command.Running })
				n.SetPolicy(tc.rules)
				id := n.execute(tc.line, inside("dev"))
				dev.reads(tc.shell, tc.by)
				want := tc.state
				if restart {
					want = tc.restarted
					n.crash()
					o.Policy = tc.rules
					n = sessions.serve(start(t, o))
				}
				fmt.Fprintln(dev.stdin)
				s := n.ended(id)
				if s.State != want {
					t.Fatalf("%s, %+v; want %s", s.State, s.Failure, want)
				}
				if want == ran {
					return
				}
				if reason(s) != fault.ReasonPolicyDenied || !strings.Contains(s.Failure.Message, tc.says) || s.Failure.Hint == "" || !s.StartTime.IsZero() || s.Durability != "" {
					t.Errorf("%+v", s.Command)
				}
				if e := told(t, o, id, audit.CommandEnded); len(e) != 1 || e[0].Outcome != string(command.Rejected) || e[0].Reason != fault.ReasonPolicyDenied {
					t.Errorf("the audit has %+v", e)
				}
				if n.output(id) != "" {
					t.Errorf("it has printed %q", n.output(id))
				}
				n.idle()
			})
		}
	}
}

// So is one whose turn had come, and which then waited for somebody who was typing.
func TestJudgedAgainWhileItIsTyped(t *testing.T) {
	for _, gated := range []bool{false, true} {
		o, sessions := withShells(t)
		o.Policy = rules(t, policy.Gate{})
		n := sessions.serve(start(t, o))
		dev := sessions.opened("dev", marked)
		sessions.mu.Lock()
		dev.run("read x") // by somebody, without a record
		sessions.mu.Unlock()
		var id string
		why := fault.ReasonPolicyDenied
		if gated {
			why = fault.ReasonApprovalVoid
			id = n.asks("uname", inside("dev"))
			if err := n.decide(boss, n.ballot(id, approval.Approve)); err != nil {
				t.Fatal(err)
			}
		} else {
			id = n.execute("echo in $x", inside("dev"))
		}
		n.until(id, "starting", func(s engine.Snapshot) bool { return s.State == command.Starting })
		dev.reads("bash", command.ByPrompt)
		fmt.Fprintln(dev.stdin)
		if s := n.ended(id); s.State != command.Rejected || reason(s) != why || n.output(id) != "" || !s.StartTime.IsZero() || s.Durability != "" {
			t.Errorf("%s, %+v, %q", s.State, s.Failure, n.output(id))
		}
		n.idle()
	}
}

// What is approved is approved for the kind of shell that read when it was asked for.
func TestApprovedForAShell(t *testing.T) {
	o, sessions := withShells(t)
	o.Policy = rules(t, policy.Gate{})
	n := sessions.serve(start(t, o))
	dev := sessions.opened("dev", marked)
	approved := func(id string) string {
		t.Helper()
		if err := n.decide(chief, n.ballot(id, approval.Approve)); err != nil {
			t.Fatal(err)
		}
		return id
	}
	modification := func(id string) approval.Ballot {
		b := n.ballot(id, approval.Modify)
		b.Modified = &approval.Modification{Line: "sort </dev/null"}
		return b
	}
	first := n.execute("cat", inside("dev"))
	n.running(first)
	n.stores(first, "running", func(c command.Command) bool { return c.State == command.Running })
	void := approved(n.asks("uname", inside("dev")))
	modified := n.asks("uname", inside("dev"))
	if err := n.decide(boss, modification(modified)); err != nil {
		t.Fatal(err)
	}
	approved(modified)
	dev.reads("bash", command.ByPrompt)
	late := n.asks("uname", inside("dev")) // of whatever is there now
	dev.reads("fish", command.ByMark)
	if err := n.decide(boss, modification(late)); fault.ReasonOf(err) != fault.ReasonApprovalVoid {
		t.Errorf("a modification of what would be read by another shell: %v", err)
	}
	n.crash()
	n = sessions.serve(start(t, o))
	n.Input(t.Context(), ann, first, nil, true)
	n.CancelSession(t.Context(), ann, "dev", ample, "")
	for _, id := range []string{void, modified} {
		if s := n.ended(id); s.State != command.Rejected || reason(s) != fault.ReasonApprovalVoid || !strings.Contains(s.Failure.Message, "shell") || !s.StartTime.IsZero() {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
	}
	dev.reads("bash", command.ByMark)
	if s := n.ended(approved(n.asks("uname", inside("dev")))); s.State != command.Completed {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

func TestWithoutSessions(t *testing.T) {
	n := start(t, fresh(t))
	spec := command.Spec{Session: "dev", Line: "true"}
	for name, call := range map[string]func() error{
		"Execute":       func() error { _, _, err := n.Execute(t.Context(), ann, spec); return err },
		"Current":       func() error { _, _, err := n.Current(t.Context(), ann, "dev"); return err },
		"CancelSession": func() error { _, _, _, err := n.CancelSession(t.Context(), ann, "dev", 0, ""); return err },
	} {
		if err := call(); fault.ReasonOf(err) != fault.ReasonNotSupported {
			t.Errorf("%s: %v", name, err)
		}
	}
}
