package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openJournal(t *testing.T, dir string) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(dir, "telexec.db"), sqlite.Options{Key: seal.NewKey(make([]byte, seal.KeySize))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

func fresh(t *testing.T) engine.Options {
	return engine.Options{Journal: openJournal(t, t.TempDir()), Node: "n1"}
}

func code(s engine.Snapshot) string {
	if s.Exit.Code == nil {
		return "none"
	}
	return fmt.Sprint(*s.Exit.Code)
}

func TestCommandsEndAsTheyEnd(t *testing.T) {
	n := start(t, fresh(t))
	for _, tc := range []struct {
		line   string
		state  command.State
		code   string
		signal string
		reason string
	}{
		{"true", command.Completed, "0", "", ""},
		{"exit 3", command.Completed, "3", "", ""},
		{"kill -9 $$", command.Failed, "none", "KILL", fault.ReasonSignalled},
	} {
		s := n.ended(n.execute(tc.line))
		reason := ""
		if s.Failure != nil {
			reason = s.Failure.Reason
		}
		if s.State != tc.state || code(s) != tc.code || s.Exit.Signal != tc.signal || reason != tc.reason {
			t.Errorf("%q: %s, code %s, signal %q, reason %q", tc.line, s.State, code(s), s.Exit.Signal, reason)
		}
		if s.StartTime.IsZero() || s.EndTime.Before(s.StartTime) || s.Connection != "" || s.Completion != command.ByExitStatus {
			t.Errorf("%q: start %v, end %v, connection %q, completion %q", tc.line, s.StartTime, s.EndTime, s.Connection, s.Completion)
		}
	}
}

func TestOutputIsKeptWhole(t *testing.T) {
	n := start(t, fresh(t))
	const size = 6 << 20
	id := n.execute(fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; echo oops >&2", size))
	var live bytes.Buffer
	w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	kinds := map[engine.EventKind]int{}
	for {
		ev, err := w.Next(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds[ev.Kind]++
		if ev.Kind == engine.EventChunk && ev.Chunk.Stream == command.Stdout {
			if ev.Chunk.Offset != int64(live.Len()) {
				t.Fatalf("a chunk at %d after %d bytes", ev.Chunk.Offset, live.Len())
			}
			live.Write(ev.Chunk.Data)
		}
	}
	if kinds[engine.EventComplete] != 1 || kinds[engine.EventEnded] != 1 || kinds[engine.EventGap] != 0 {
		t.Errorf("events: %v", kinds)
	}
	s := n.ended(id)
	if s.Size != (command.Sizes{size, 5}) || live.Len() != size {
		t.Fatalf("sizes %v, watched %d", s.Size, live.Len())
	}
	var stored bytes.Buffer
	for stored.Len() < size {
		data, err := n.ReadOutput(t.Context(), id, command.Stdout, int64(stored.Len()), 1<<20)
		if err != nil || len(data) == 0 {
			t.Fatal(len(data), err)
		}
		stored.Write(data)
	}
	if sha256.Sum256(stored.Bytes()) != sha256.Sum256(live.Bytes()) {
		t.Error("what was stored is not what was watched")
	}
}

// A hundred watchers, each from another offset, some of whom never read until
// the end: all see the same bytes.
func TestWatchers(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.02; done")
	const want = "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n"
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			from := int64(i % (len(want) + 1))
			if i >= 50 {
				n.ended(id)
			}
			w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{From: command.Sizes{from}, Follow: true})
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			got, last := follow(t, w)
			if got != want[from:] || last.State != command.Completed {
				t.Errorf("from %d: %q, %s", from, got, last.State)
			}
		})
	}
	wg.Wait()
	if s := n.Stats(); s.Watchers != 0 {
		t.Errorf("%d watchers after all have left", s.Watchers)
	}
	_, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{From: command.Sizes{int64(len(want)) + 1}})
	if fault.ReasonOf(err) != fault.ReasonOffsetBeyondEnd {
		t.Errorf("an offset behind the end: %v", err)
	}
	if n.Stats().Watchers != 0 {
		t.Error("a refused watcher is counted")
	}
}

func follow(t *testing.T, w *engine.Watch) (stdout string, last engine.Snapshot) {
	for {
		ev, err := w.Next(t.Context())
		switch {
		case err == io.EOF:
			return stdout, last
		case err != nil:
			t.Error(err)
			return stdout, last
		case ev.Kind == engine.EventChunk && ev.Chunk.Stream == command.Stdout:
			stdout += string(ev.Chunk.Data)
		case ev.Kind == engine.EventEnded:
			last = *ev.Snapshot
		}
	}
}

// Without follow a watch ends with what there is; its context may end and Next
// be called again.
func TestWatchWithoutFollow(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("echo one; read x; echo two", func(s *command.Spec) { s.StdinOpen = true })
	n.prints(id, "one")
	w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, last := follow(t, w); got != "one\n" || last.State != command.Running {
		t.Errorf("got %q, %s", got, last.State)
	}
	w.Close()
	w.Close()

	w, err = n.Watch(t.Context(), ann, id, engine.WatchOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for {
		if _, err = w.Next(short); err != nil {
			break
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) || w.Offsets() != (command.Sizes{4}) {
		t.Fatalf("%v at %v", err, w.Offsets())
	}
	if total, err := n.Input(t.Context(), ann, id, []byte("x\n"), true); total != 2 || err != nil {
		t.Fatal(total, err)
	}
	if got, _ := follow(t, w); got != "two\n" {
		t.Errorf("after the pause: %q", got)
	}
}

func TestInput(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("cat", func(s *command.Spec) { s.StdinOpen = true })
	n.running(id)
	for i, part := range []string{"a", "b", ""} {
		if _, err := n.Input(t.Context(), ann, id, []byte(part), i == 2); err != nil {
			t.Fatal(err)
		}
	}
	n.ended(id)
	if data, _ := n.ReadOutput(t.Context(), id, command.Stdout, 0, 10); string(data) != "ab" {
		t.Errorf("cat gave %q", data)
	}
	if _, err := n.Input(t.Context(), ann, id, []byte("c"), false); fault.ReasonOf(err) != fault.ReasonNotRunning {
		t.Errorf("input after the end: %v", err)
	}
	closed := n.execute("sleep 60")
	n.running(closed)
	if _, err := n.Input(t.Context(), ann, closed, []byte("c"), false); fault.ReasonOf(err) != fault.ReasonStdinClosed {
		t.Errorf("input without stdin_open: %v", err)
	}
	n.Cancel(t.Context(), ann, closed, -1, "")
}

func TestCancel(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("echo ready; exec sleep 60")
	n.prints(id, "ready")
	s, report, err := n.Cancel(t.Context(), ann, id, ample, "enough")
	if err != nil || s.State != command.Cancelled || report.Outcome != command.Gone || s.Exit.Code != nil {
		t.Fatalf("%s, %+v, %v", s.State, report, err)
	}
	if c := s.Cancellation; c.By != ann.Actor() || c.Reason != "enough" || c.Report.Outcome != command.Gone || c.Time.IsZero() {
		t.Errorf("cancellation is told as %+v", c)
	}
	for range 2 {
		s, report, err = n.Cancel(t.Context(), ann, id, 0, "again")
		if err != nil || s.State != command.Cancelled || report.Outcome != command.AlreadyEnded || s.Cancellation.Reason != "enough" {
			t.Errorf("a cancel after the end: %s, %+v, %v", s.State, report, err)
		}
	}
	if _, _, err := n.Cancel(t.Context(), ann, "01ARZ3NDEKTSV4RRFFQ69G5FAV", 0, ""); fault.ReasonOf(err) != fault.ReasonAccessDenied {
		t.Errorf("a cancel of nothing: %v", err)
	}
}

// Many cancel the same command at once: one outcome, no error, and the exit of
// a command that ends by itself just then is told truthfully.
func TestCancelRaces(t *testing.T) {
	n := start(t, fresh(t))
	for range 20 {
		id := n.execute("sleep 0.02; exit 4")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, _, err := n.Cancel(t.Context(), ann, id, -1, ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		s := n.ended(id)
		switch {
		case s.State == command.Completed && code(s) == "4":
		case s.State == command.Cancelled && s.Cancellation != nil:
		default:
			t.Errorf("%s, code %s, %+v", s.State, code(s), s.Failure)
		}
	}
}

func TestCancelOutcomes(t *testing.T) {
	left := command.CancelReport{Outcome: command.Left, Signal: "KILL", Ended: 1, Left: []command.Process{{PID: 7}}, Message: "pid 7 is left"}
	t.Run("something is left", func(t *testing.T) {
		o := fresh(t)
		var stubborn atomic.Bool
		stubborn.Store(true)
		o.Runner = local{onCancel: func() (*command.CancelReport, error) {
			if stubborn.Load() {
				return &left, nil
			}
			return nil, nil
		}}
		n := start(t, o)
		id := n.execute("sleep 60")
		n.running(id)
		s, report, err := n.Cancel(t.Context(), ann, id, ample, "")
		if err != nil || report.Outcome != command.Left || s.State != command.Running || len(report.Left) != 1 {
			t.Fatalf("%s, %+v, %v", s.State, report, err)
		}
		stubborn.Store(false)
		if s, report, _ = n.Cancel(t.Context(), ann, id, ample, ""); s.State != command.Cancelled || report.Outcome != command.Gone {
			t.Errorf("the second cancel: %s, %+v", s.State, report)
		}
	})
	t.Run("it ends but children are left", func(t *testing.T) {
		o := fresh(t)
		o.Runner = local{onCancel: func() (*command.CancelReport, error) { return &left, nil }}
		n := start(t, o)
		id := n.execute("read x", withInput)
		n.running(id)
		n.Cancel(t.Context(), ann, id, ample, "")
		n.input(id, "x")
		if s := n.ended(id); s.State != command.Failed || s.Failure.Reason != fault.ReasonCancelIncomplete {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
	})
	t.Run("nothing could be ended", func(t *testing.T) {
		o := fresh(t)
		o.Runner = local{onCancel: func() (*command.CancelReport, error) {
			r := left
			r.Ended = 0
			return &r, nil
		}}
		n := start(t, o)
		id := n.execute("read x; exit 4", withInput)
		n.running(id)
		n.Cancel(t.Context(), ann, id, ample, "")
		n.input(id, "x")
		if s := n.ended(id); s.State != command.Completed || code(s) != "4" {
			t.Errorf("its own exit is told as %s, %s, %+v", s.State, code(s), s.Failure)
		}
	})
	t.Run("it has ended but a stream is held", func(t *testing.T) {
		o := fresh(t)
		o.Runner = local{onCancel: func() (*command.CancelReport, error) {
			return &command.CancelReport{Outcome: command.AlreadyEnded}, nil
		}}
		n := start(t, o)
		id := n.execute("sleep 60 & exit 5")
		n.running(id)
		n.Cancel(t.Context(), ann, id, 0, "")
		if s := n.ended(id); s.State != command.Completed || code(s) != "5" {
			t.Errorf("%s, %s, %+v", s.State, code(s), s.Failure)
		}
	})
	t.Run("the host cannot be asked", func(t *testing.T) {
		o := fresh(t)
		asked := make(chan struct{}, 100)
		o.Runner = local{onCancel: func() (*command.CancelReport, error) {
			asked <- struct{}{}
			return nil, io.ErrUnexpectedEOF
		}}
		n := start(t, o)
		id := n.execute("read x; exit 2", withInput)
		n.running(id)
		n.Cancel(soon(t), ann, id, 0, "")
		<-asked
		n.input(id, "x")
		s := n.ended(id)
		if s.State != command.Completed || code(s) != "2" {
			t.Errorf("its own exit is told as %s, %s", s.State, code(s))
		}
		if s.Cancellation == nil || s.Cancellation.Report != nil {
			t.Errorf("a cancel that has come to nothing is told as %+v", s.Cancellation)
		}
	})
	t.Run("the host cannot be asked and the service stops", func(t *testing.T) {
		o := fresh(t)
		o.Runner = local{onCancel: func() (*command.CancelReport, error) { return nil, io.ErrUnexpectedEOF }}
		n := start(t, o)
		id := n.execute("read x", withInput)
		n.running(id)
		n.Cancel(soon(t), ann, id, 0, "")
		n.until(id, "asked in vain", func(s engine.Snapshot) bool { return s.Cancellation != nil && s.Cancellation.Report != nil })
		n.stop()
		if s, err := n.Get(t.Context(), ann, id); s.State != command.Lost || reason(s) != fault.ReasonServiceRestarted || s.Exit.Signal != "" {
			t.Errorf("%s, %+v, %+v, %v", s.State, s.Exit, s.Failure, err)
		}
	})
	t.Run("it takes long", func(t *testing.T) {
		o := fresh(t)
		release := make(chan struct{})
		o.Runner = local{onCancel: func() (*command.CancelReport, error) { <-release; return nil, nil }}
		n := start(t, o)
		id := n.execute("sleep 60")
		n.running(id)
		s, report, err := n.Cancel(t.Context(), ann, id, 0, "")
		if err != nil || report.Outcome != command.Pending || s.Cancellation == nil || s.State != command.Running {
			t.Errorf("%s, %+v, %v", s.State, report, err)
		}
		close(release)
		if s := n.ended(id); s.State != command.Cancelled {
			t.Errorf("in the end %s", s.State)
		}
	})
	t.Run("a panic is one command's trouble", func(t *testing.T) {
		o := fresh(t)
		o.Runner = local{onCancel: func() (*command.CancelReport, error) { panic("boom") }}
		n := start(t, o)
		id := n.execute("sleep 0.2")
		n.running(id)
		if _, report, _ := n.Cancel(t.Context(), ann, id, -1, ""); report.Outcome != command.AlreadyEnded {
			t.Errorf("%+v", report)
		}
		n.ended(id)
	})
}

func TestCancelBeforeItRuns(t *testing.T) {
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	starting := make(chan struct{}, 1)
	o.Runner = local{beforeStart: func(ctx context.Context, r engine.Run) error {
		if r.Spec.Line == "unreachable" {
			starting <- struct{}{}
			<-ctx.Done()
			return fault.From(ctx.Err())
		}
		return nil
	}}
	n := start(t, o)
	first := n.execute("unreachable")
	<-starting
	queued := n.execute("true")
	if s, _ := n.Get(t.Context(), ann, queued); s.State != command.Queued || s.Queue.Position != 1 {
		t.Fatalf("%s, %+v", s.State, s.Queue)
	}
	for _, id := range []string{queued, first} {
		s, report, err := n.Cancel(t.Context(), ann, id, ample, "")
		if err != nil || s.State != command.Cancelled || report.Outcome != command.NeverStarted || !s.StartTime.IsZero() {
			t.Errorf("%s, %+v, %v", s.State, report, err)
		}
	}
	n.stop()
	if running, queued := n.Load("h"); running+queued != 0 {
		t.Errorf("%d running, %d queued after both are cancelled", running, queued)
	}
}

func TestSignal(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("echo ready; exec sleep 60")
	n.running(id)
	n.prints(id, "ready")
	if _, err := n.Signal(t.Context(), ann, id, "INT"); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(id); s.State != command.Failed || s.Exit.Signal != "INT" || s.Failure.Message != "it was ended by SIGINT, which ann sent through grpc" {
		t.Errorf("%s, %+v, %+v", s.State, s.Exit, s.Failure)
	}
	if _, err := n.Signal(t.Context(), ann, id, "INT"); fault.ReasonOf(err) != fault.ReasonNotRunning {
		t.Errorf("a signal after the end: %v", err)
	}
}

// slowToTell is a host that tells late that a command has started.
type slowToTell struct {
	local
	told chan struct{} // closed when it tells
}

func (r slowToTell) Start(ctx context.Context, run engine.Run) (engine.Process, error) {
	p, err := r.local.Start(ctx, run)
	if err == nil {
		<-r.told
	}
	return p, err
}

// Who has seen the first output may signal, also where the host has not told of the start
// by then.
func TestSignalWhileStarting(t *testing.T) {
	host := slowToTell{told: make(chan struct{})}
	o := fresh(t)
	o.Runner = host
	n := start(t, o)
	id := n.execute("echo ready; exec sleep 60")
	n.until(id, "printing before it is told to run", func(s engine.Snapshot) bool {
		data, _ := n.ReadOutput(t.Context(), id, command.Stdout, 0, 10)
		return s.State == command.Starting && string(data) == "ready\n"
	})
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := n.Signal(short, ann, id, "INT"); fault.ReasonOf(err) != fault.ReasonNotRunning || short.Err() == nil {
		t.Errorf("it was not waited for: %v", err)
	}
	close(host.told)
	if _, err := n.Signal(t.Context(), ann, id, "INT"); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(id); s.State != command.Failed || s.Exit.Signal != "INT" {
		t.Errorf("%s, %+v", s.State, s.Exit)
	}
}

func TestTimeout(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("sleep 60", func(s *command.Spec) { s.Timeout = 50 * time.Millisecond })
	s := n.ended(id)
	if s.State != command.TimedOut || s.Failure.Reason != fault.ReasonTimeout || s.Cancellation != nil {
		t.Errorf("%s, %+v, %+v", s.State, s.Failure, s.Cancellation)
	}
}

func TestStartFails(t *testing.T) {
	o := fresh(t)
	var reason atomic.Value
	o.Runner = local{beforeStart: func(_ context.Context, r engine.Run) error {
		if reason.Load() == "panic" {
			panic("boom")
		}
		return fault.New(fault.Unavailable, reason.Load().(string), "no").WithHint("look")
	}}
	n := start(t, o)
	for given, want := range map[string]command.State{
		fault.ReasonHostKeyChanged: command.Failed,
		fault.ReasonConnectionLost: command.Lost, // it may have started
		"panic":                    command.Lost, // so may this one
	} {
		reason.Store(given)
		s := n.ended(n.execute("true"))
		if s.State != want || s.Failure == nil || given != "panic" && (s.Failure.Reason != given || s.Failure.Hint != "look") {
			t.Errorf("%s: %s, %+v", given, s.State, s.Failure)
		}
	}
	if _, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "nowhere", Line: "true"}); fault.ReasonOf(err) != fault.ReasonUnknownHost {
		t.Errorf("unknown host: %v", err)
	}
}

func TestOutcomeUnknown(t *testing.T) {
	o := fresh(t)
	o.Runner = local{onWait: func(command.Exit) (command.Exit, error) {
		return command.Exit{}, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the connection was lost")
	}}
	n := start(t, o)
	s := n.ended(n.execute("exit 0"))
	if s.State != command.Lost || s.Exit.Code != nil || s.Failure.Reason != fault.ReasonConnectionLost || s.Completion != "" {
		t.Errorf("%s, code %s, %+v", s.State, code(s), s.Failure)
	}
}

// The exit is known and the end of the output is not: both are told.
func TestOutputIncomplete(t *testing.T) {
	o := fresh(t)
	o.Runner = local{onWait: func(e command.Exit) (command.Exit, error) {
		return e, fault.New(fault.Unavailable, fault.ReasonOutputIncomplete, "the connection was lost")
	}}
	n := start(t, o)
	s := n.ended(n.execute("echo a; exit 3"))
	if s.State != command.Completed || code(s) != "3" || s.Truncation == nil || s.Truncation.Offset[command.Stdout] != 2 || s.Completion != command.ByExitStatus {
		t.Errorf("%s, code %s, %+v, %+v", s.State, code(s), s.Failure, s.Truncation)
	}
}

func TestQueueOfAHost(t *testing.T) {
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	o.Limits = engine.Limits{MaxCommands: 10, MaxQueued: 2, QueueTimeout: time.Hour, DrainTimeout: time.Millisecond}
	n := start(t, o)
	first := n.execute("read x; echo $x", func(s *command.Spec) { s.StdinOpen = true })
	n.running(first)
	low := n.execute("true", func(s *command.Spec) { s.RequestID = "low" })
	high := n.execute("true", func(s *command.Spec) { s.Priority = 1 })
	n.until(low, "second", func(s engine.Snapshot) bool { return s.Queue != nil && s.Queue.Position == 2 })
	if s := n.Stats(); s.Running != 1 || s.Queued != 2 {
		t.Errorf("%+v", s)
	}
	_, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "true"})
	if f := fault.From(err); f == nil || f.Reason != fault.ReasonQueueFull || f.RetryAfter == 0 {
		t.Errorf("a full queue: %v", err)
	}
	again := func(id string) string {
		s, replayed, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "true", Durability: command.Attached, RequestID: id})
		if err != nil || !replayed {
			t.Errorf("a repeated request: %v, %v", replayed, err)
		}
		return s.ID
	}
	if id := again("low"); id != low {
		t.Errorf("it is answered with %s", id)
	}
	n.Input(t.Context(), ann, first, nil, true)
	if a, b := n.ended(high), n.ended(low); a.StartTime.After(b.StartTime) {
		t.Error("the lower priority went first")
	}
	list, err := n.List(t.Context(), ann, command.Filter{Limit: 2})
	if err != nil || len(list) != 2 || list[0].ID != high || list[1].ID != low {
		t.Errorf("the list is %v, %v", list, err)
	}
}

func TestQueueTimeout(t *testing.T) {
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	n := start(t, o)
	first := n.execute("sleep 60")
	s := n.ended(n.execute("true", func(s *command.Spec) { s.QueueTimeout = 30 * time.Millisecond }))
	if s.State != command.Expired || s.Failure.Reason != fault.ReasonQueueTimeout || !s.StartTime.IsZero() {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	n.Cancel(t.Context(), ann, first, 0, "")
}

// Fifty ask with the same request id at once: one command runs, all get it.
func TestReplay(t *testing.T) {
	n := start(t, fresh(t))
	marks := filepath.Join(t.TempDir(), "marks")
	spec := command.Spec{Host: "h", Line: "echo x >>" + marks + "; sleep 0.2", RequestID: "r1"}
	var wg sync.WaitGroup
	var started atomic.Int32
	var id atomic.Value
	for range 50 {
		wg.Go(func() {
			s, replayed, err := n.Execute(t.Context(), ann, spec)
			if err != nil {
				t.Error(err)
				return
			}
			if !replayed {
				started.Add(1)
			}
			if prev := id.Swap(s.ID); prev != nil && prev != s.ID {
				t.Errorf("two commands: %s, %s", prev, s.ID)
			}
		})
	}
	wg.Wait()
	n.ended(id.Load().(string))
	s := n.ended(n.execute("wc -l <" + marks))
	if out, _ := n.ReadOutput(t.Context(), s.ID, command.Stdout, 0, 10); string(out) != "1\n" || started.Load() != 1 {
		t.Errorf("%d started, %s marks", started.Load(), out)
	}
	spec.Line = "false"
	if _, _, err := n.Execute(t.Context(), ann, spec); fault.ReasonOf(err) != fault.ReasonRequestIDReused {
		t.Errorf("other content: %v", err)
	}
	if s, replayed, err := n.Execute(t.Context(), access.Caller{Principal: access.Principal{Name: "bob", Roles: []access.Role{access.RoleOperator}}}, spec); err != nil || replayed {
		t.Errorf("another principal's request id: %v, %v", err, replayed)
	} else {
		n.ended(s.ID)
	}
	n.stop()
	if running, _ := n.Load("h"); running != 0 {
		t.Errorf("%d slots are still taken", running)
	}
}

// A command that runs when the service stops is LOST, with the reason; one that
// is queued runs when it is back.
func TestRestart(t *testing.T) {
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	n := start(t, o)
	id := n.execute("echo before; exec sleep 60")
	n.prints(id, "before")
	queued := n.execute("exit 7")
	n.stop()
	s, err := n.Get(t.Context(), ann, id)
	if err != nil || s.State != command.Lost || s.Failure.Reason != fault.ReasonServiceRestarted || s.Size[command.Stdout] != 7 {
		t.Errorf("after the stop: %s, %+v, %v", s.State, s.Failure, err)
	}
	if _, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "true"}); fault.ReasonOf(err) != fault.ReasonDraining {
		t.Errorf("a command for a stopped engine: %v", err)
	}
	again := start(t, o)
	if s := again.ended(queued); s.State != command.Completed || code(s) != "7" {
		t.Errorf("the queued one: %s, %s, %+v", s.State, code(s), s.Failure)
	}
}

// A command that is LOST can be cancelled: its host is asked what is left of it.
func TestCancelOfALostCommand(t *testing.T) {
	o := fresh(t)
	var asked atomic.Int32
	o.Runner = local{
		onWait: func(command.Exit) (command.Exit, error) {
			return command.Exit{}, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the connection was lost")
		},
		onCancel: func() (*command.CancelReport, error) {
			if asked.Add(1) > 1 {
				return nil, fault.New(fault.Unavailable, fault.ReasonHostUnreachable, "no route")
			}
			return &command.CancelReport{Outcome: command.Gone, Signal: "TERM", Ended: 2}, nil
		},
	}
	n := start(t, o)
	id := n.execute("true")
	n.ended(id)
	for _, want := range []command.Outcome{command.Gone, command.Unproven} {
		s, report, err := n.Cancel(t.Context(), ann, id, -1, "")
		if err != nil || s.State != command.Lost || report.Outcome != want {
			t.Errorf("%s, %+v, %v", s.State, report, err)
		}
	}
}

// The drain lets what runs come to its end.
func TestDrain(t *testing.T) {
	o := fresh(t)
	o.Limits = engine.Limits{MaxCommands: 10, MaxQueued: 10, MaxAwaiting: 10, QueueTimeout: time.Hour, DrainTimeout: 20 * time.Second}
	n := start(t, o)
	id := n.execute("sleep 0.3; exit 5")
	n.running(id)
	n.stop()
	if s, _ := n.Get(t.Context(), ann, id); s.State != command.Completed || code(s) != "5" {
		t.Errorf("%s, %s", s.State, code(s))
	}
	if !n.Stats().Draining {
		t.Error("it does not say that it drains")
	}
}

// broken is a journal that fails on demand: before the write happens, or after.
type broken struct {
	engine.Journal
	mode atomic.Int32  // 0 works, 1 fails before, 2 fails after it has written, 3 hangs until free is closed, 4 so does a claim, 5 and 6 as 1 and 2, and cannot be read
	hung chan struct{} // has an element for each write that hangs
	free chan struct{}
}

func (b *broken) fail(write func() error) error {
	switch b.mode.Load() {
	case 3:
		b.hung <- struct{}{}
		<-b.free
	case 1, 5:
		return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "disk full")
	case 2, 6:
		if err := write(); err != nil {
			return err
		}
		return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "lost the answer")
	}
	return write()
}

func (b *broken) Apply(ctx context.Context, ch command.Change) error {
	if b.mode.Load() == 4 && ch.From == command.Queued {
		b.hung <- struct{}{}
		<-b.free
	}
	return b.fail(func() error { return b.Journal.Apply(ctx, ch) })
}

func (b *broken) Create(ctx context.Context, c command.Command, hash []byte, gate *approval.Approval, told audit.Entry) (stored command.Command, created bool, err error) {
	err = b.fail(func() error { stored, created, err = b.Journal.Create(ctx, c, hash, gate, told); return err })
	return stored, created, err
}

func (b *broken) Get(ctx context.Context, id string) (command.Command, error) {
	if b.mode.Load() >= 5 {
		return command.Command{}, fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "no store")
	}
	return b.Journal.Get(ctx, id)
}

// The caller goes away while its command is being stored: the command is accepted
// all the same, runs, and answers to its request id.
func TestCallerLeavesWhileStoring(t *testing.T) {
	o := fresh(t)
	j := &broken{Journal: o.Journal, hung: make(chan struct{}, 9), free: make(chan struct{})}
	o.Journal = j
	n := start(t, o)
	j.mode.Store(3)
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-j.hung
		leave()
	}()
	spec := command.Spec{Host: "h", Line: "exit 7", RequestID: "r"}
	if _, _, err := n.Execute(ctx, ann, spec); fault.KindOf(err) != fault.Cancelled {
		t.Fatal(err)
	}
	j.mode.Store(0)
	close(j.free)
	s, _, err := n.Execute(t.Context(), ann, spec)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := n.List(t.Context(), ann, command.Filter{}); err != nil || len(list) != 1 {
		t.Errorf("%d commands, %v", len(list), err)
	}
	if s := n.ended(s.ID); s.State != command.Completed || code(s) != "7" {
		t.Errorf("%s, %s", s.State, code(s))
	}
}

// While the store hangs a running command can be cancelled; what it printed and
// how it ended is stored when the store is back.
func TestCancelWhileTheStoreHangs(t *testing.T) {
	o := fresh(t)
	j := &broken{Journal: o.Journal, hung: make(chan struct{}, 9), free: make(chan struct{})}
	o.Journal = j
	n := start(t, o)
	id := n.execute("read x; echo b; read y", withInput)
	n.running(id)
	j.mode.Store(3)
	n.input(id, "x")
	<-j.hung
	n.prints(id, "b")
	s, report, err := n.Cancel(t.Context(), ann, id, 0, "")
	if err != nil || report.Outcome != command.Pending || s.Cancellation == nil {
		t.Errorf("%+v, %+v, %v", report, s.Cancellation, err)
	}
	j.mode.Store(0)
	close(j.free)
	if s := n.ended(id); s.State != command.Cancelled || s.Size[command.Stdout] != 2 {
		t.Errorf("%s, %v, %+v, %+v, %+v", s.State, s.Size, s.Exit, s.Failure, s.Cancellation)
	}
}

// A cancel that comes while the claim of a queued command is being stored is not
// forgotten: the command never starts.
func TestCancelWhileTheClaimHangs(t *testing.T) {
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	j := &broken{Journal: o.Journal, hung: make(chan struct{}, 9), free: make(chan struct{})}
	o.Journal = j
	n := start(t, o)
	first := n.execute("echo a; read x", func(s *command.Spec) { s.StdinOpen = true })
	n.running(first)
	queued := n.execute("echo ran")
	j.mode.Store(4)
	n.Input(t.Context(), ann, first, nil, true)
	<-j.hung
	if _, report, err := n.Cancel(t.Context(), ann, queued, 0, ""); err != nil || report.Outcome != command.Pending {
		t.Errorf("%+v, %v", report, err)
	}
	j.mode.Store(0)
	close(j.free)
	s := n.ended(queued)
	if s.State != command.Cancelled || s.Size != (command.Sizes{}) || s.Cancellation.Report.Outcome != command.NeverStarted {
		t.Errorf("%s, %v, %+v", s.State, s.Size, s.Cancellation)
	}
}

// The store fails while a command runs: nothing is lost once it works again,
// whether the failed writes had happened or not.
func TestStoreFails(t *testing.T) {
	for mode, name := range map[int32]string{1: "not persisted", 2: "persisted"} {
		t.Run(name, func(t *testing.T) {
			o := fresh(t)
			j := &broken{Journal: o.Journal}
			o.Journal = j
			n := start(t, o)
			id := n.execute("echo a; read x; echo b; exit 6", func(s *command.Spec) { s.StdinOpen = true })
			n.running(id)
			n.prints(id, "a")
			j.mode.Store(mode)
			if _, err := n.Input(t.Context(), ann, id, []byte("\n"), true); err != nil {
				t.Fatal(err)
			}
			n.prints(id, "b")
			other, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "true"})
			if mode == 1 && (n.StoreTrouble() == nil || n.CheckStore(t.Context()) != nil || n.StoreTrouble() != nil) {
				t.Error("the store's trouble is not told, or not forgotten") // Ping itself works here
			}
			if mode == 1 && fault.ReasonOf(err) != fault.ReasonStoreUnavailable || mode == 2 && err != nil {
				t.Errorf("a command while the store fails: %v", err)
			}
			j.mode.Store(0)
			s := n.ended(id)
			if s.State != command.Completed || code(s) != "6" {
				t.Errorf("%s, %s", s.State, code(s))
			}
			if data, err := j.ReadOutput(t.Context(), id, command.Stdout, 0, 10); string(data) != "a\nb\n" {
				t.Errorf("stored %q, %v", data, err)
			}
			if err == nil {
				n.ended(other.ID)
			}
			n.stop()
			if running, _ := n.Load("h"); running != 0 {
				t.Errorf("%d slots are taken", running)
			}
		})
	}
}
