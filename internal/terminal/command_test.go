package terminal_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

func TestStartWaitsForWhatRuns(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	v.types("read x; echo got $x\r")
	first := s.typedJob("read x; echo got $x")
	if id, busy := s.Busy(on.ID); !busy || id != "typed-1" {
		t.Errorf("busy with %q, %v", id, busy)
	}
	began := make(chan *job, 1)
	go func() {
		j, err := s.tryBegin(t.Context(), on, terminal.Run{ID: "second", Spec: &command.Spec{SessionID: on.ID, Line: "echo second"}})
		if err != nil {
			t.Error(err)
		}
		began <- j
	}()
	never, stop := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := s.tryBegin(never, on, terminal.Run{ID: "third", Spec: &command.Spec{SessionID: on.ID, Line: "echo never"}})
		left <- err
	}()
	stop()
	if err := within(t, left, "that it is given up"); fault.KindOf(err) != fault.Cancelled {
		t.Errorf("called off: %v", err)
	}
	select {
	case <-began:
		t.Fatal("it began while another ran")
	default:
	}
	v.types("the answer\r")
	if out := first.ends("0", command.ByMark); out != "the answer\r\ngot the answer\r\n" {
		t.Errorf("%q", out)
	}
	j := within(t, began, "that it began")
	if out := j.ends("0", command.ByMark); out != "second\r\n" {
		t.Errorf("%q", out)
	}
	s.run(on, "echo end").ends("0", command.ByMark)
	v.sees("end\r\n")
	if strings.Contains(v.text(), "never") {
		t.Errorf("what was called off ran: %q", v.text())
	}
}

// Somebody who is in the middle of typing is not disturbed; a line that was left is
// cleared.
func TestStartWaitsForWhoTypes(t *testing.T) {
	for _, tc := range []struct{ shell, begun string }{{"bash", "ech"}, {"dash", "ech"}, {"ash", "ech"}, {"mksh", "ech"}, {"zsh", "for i in a b\r"}} {
		t.Run(tc.shell, func(t *testing.T) {
			t.Parallel()
			s := startAlone(t)
			on := s.open(tc.shell)
			v := s.attach(ann, on, terminal.AttachOptions{})
			v.types(tc.begun)
			at := time.Now()
			j := s.begin(on, "echo the agent")
			if waited := time.Since(at); waited < 4*time.Second {
				t.Errorf("it waited for %v alone", waited)
			}
			if out := j.ends("0", command.ByMark); out != "the agent\r\n" {
				t.Errorf("%q", out)
			}
			v.types("echo mine\r")
			s.typedJob("echo mine").ends("0", command.ByMark)
			if out := s.run(on, "echo again").ends("0", command.ByMark); out != "again\r\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

func TestTypedCommands(t *testing.T) {
	s := start(t)
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) {
			s := s.with(t)
			s.Use(s)
			defer s.takers.Wait()
			on := s.open(shell)
			v := s.attach(ann, on, terminal.AttachOptions{})
			w := s.attach(adm, on, terminal.AttachOptions{})
			for _, tc := range []struct{ typed, line, code, out string }{
				{"echo typed\r", "echo typed", "0", "typed\r\n"},
				{"false\r", "false", "1", ""},
				{"echo twx\x7fo\r", "echo two", "0", "two\r\n"},
				{"printf 'a b'; true\r", "printf 'a b'; true", "0", "a b"},
			} {
				by := v
				if tc.line == "false" {
					by = w
				}
				_ = by.Keyboard(t.Context(), terminal.TakeKeyboard, "")
				for _, key := range tc.typed {
					s.poll("the prompt", func() bool { return !s.busy(on) && s.atPrompt(on) })
					by.types(string(key))
				}
				j := s.typedJob(tc.line)
				if got := j.ends(tc.code, command.ByMark); got != tc.out {
					t.Errorf("%q printed %q, want %q", tc.line, got, tc.out)
				}
				if by == w {
					v.seen("that somebody else typed", func(e terminal.Event) bool { return e.Kind == terminal.EventTyped && e.Typist.ID == w.ID() })
				}
				lines := s.lines()
				if last := lines[len(lines)-1]; last.by != by.by() {
					t.Errorf("%q was typed by %s", tc.line, last.by)
				}
			}
			if n := len(s.lines()); n != 4 {
				t.Errorf("%d commands: %+v", n, s.lines())
			}
			v.seen("its beginning", func(e terminal.Event) bool { return e.Kind == terminal.EventCommand && e.CommandID == "typed-1" })
		})
	}
}

// A command that was typed is taken up late, and nothing of its output is missing; or
// nobody takes it up, and it runs all the same.
func TestTypedCommandsAreTakenUpLate(t *testing.T) {
	s := start(t)
	s.deaf = true
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	v.types("head -c 900000 /dev/zero | tr '\\0' z; echo; false\r")
	s.poll("that it is told", func() bool { return len(s.lines()) == 1 })
	s.poll("that it has ended", func() bool { return !s.busy(on) })
	v.types("echo between\r")
	v.sees("between\r\n")
	l := s.lines()[0]
	j := s.takeUp(l)
	if out := j.ends("1", command.ByMark); len(out) != 900002 || strings.Trim(out, "z") != "\r\n" {
		t.Errorf("%d bytes, ending in %q", len(out), out[max(0, len(out)-10):])
	}
	if j := s.takeUp(l); j != nil {
		t.Error("it was taken up twice")
	}
	s.mu.Lock()
	s.fails = fault.New(fault.Unavailable, fault.ReasonDraining, "no more")
	s.mu.Unlock()
	v.types("head -c 5000000 /dev/zero | tr '\\0' z; echo; echo over\r")
	v.sees("over\r\n")
}

func TestLargeOutputIntoASlowSink(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	const size = 20 << 20
	sum := sha256.New()
	var got, at atomic.Int64
	var most uint64
	r := terminal.Run{ID: "large", Spec: &command.Spec{SessionID: on.ID, Line: fmt.Sprintf("stty -opost; head -c %d /dev/zero | tr '\\0' y; stty opost; (exit 7)", size)}, Output: func(_ command.Stream, b []byte) error {
		sum.Write(b)
		if n := got.Add(int64(len(b))); n/(2<<20) != at.Load() {
			at.Store(n / (2 << 20))
			<-time.After(20 * time.Millisecond) // it is slow, now and then
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
		return nil
	}}
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	j, err := s.tryBegin(t.Context(), on, r)
	if err != nil {
		t.Fatal(err)
	}
	j.ends("7", command.ByMark)
	want := sha256.Sum256([]byte(strings.Repeat("y", size)))
	if got.Load() != size || [32]byte(sum.Sum(nil)) != want {
		t.Errorf("%d bytes came, want %d", got.Load(), size)
	}
	if grown := int64(most) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

func TestASinkThatFails(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	r := terminal.Run{ID: "fails", Spec: &command.Spec{SessionID: on.ID, Line: "seq 100000; false"}, Output: func(command.Stream, []byte) error {
		return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "full")
	}}
	j, err := s.tryBegin(t.Context(), on, r)
	if err != nil {
		t.Fatal(err)
	}
	end, err := j.wait()
	wants(t, err, fault.ReasonOutputIncomplete)
	if end.Code == nil || *end.Code != 1 {
		t.Errorf("%+v", end)
	}
}

func TestExit(t *testing.T) {
	s := start(t)
	for _, shell := range []string{"bash", "dash", "fish"} {
		on := s.open(shell)
		end, err := s.begin(on, "exit 3").wait()
		if err != nil || end.Code == nil || *end.Code != 3 {
			t.Errorf("%s: %+v, %v", shell, end, err)
		}
		s.poll("its end", func() bool { one := s.get(on); return one.Ended() && one.End.Reason == fault.ReasonShellExited })
		_, err = s.tryBegin(t.Context(), on, terminal.Run{ID: "x", Spec: &command.Spec{SessionID: on.ID, Line: "true"}})
		wants(t, err, fault.ReasonSessionEnded)
	}
	s.poll("that nothing is kept of them", func() bool {
		s.machine.mu.Lock()
		defer s.machine.mu.Unlock()
		return s.machine.swept == 3
	})
	_, err := s.tryBegin(t.Context(), session.Session{}, terminal.Run{ID: "x", Spec: &command.Spec{SessionID: "none", Line: "true"}})
	wants(t, err, fault.ReasonUnknownSession)
}

// A line that is wrong, or nothing, ends all the same.
func TestLinesThatAreNoCommands(t *testing.T) {
	s := start(t)
	for _, shell := range []string{"bash", "zsh", "dash", "mksh"} {
		t.Run(shell, func(t *testing.T) {
			s := s.with(t)
			on := s.open(shell)
			for _, line := range []string{"echo 'open", "if true", ")", "echo \x01\x1b[A \x7f end"} {
				end, err := s.begin(on, line).wait()
				if err != nil || end.Code == nil {
					t.Errorf("%q: %+v, %v", line, end, err)
				}
			}
			if end, err := s.begin(on, "# nothing").wait(); err != nil || end.Code != nil && *end.Code != 0 && shell == "bash" {
				t.Errorf("%+v, %v", end, err)
			}
			s.run(on, "echo fine").ends("0", command.ByMark)
		})
	}
}

func TestInputAndSignals(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	j := s.begin(on, "cat; echo now; sleep 1000")
	for i, text := range []string{"one\r", "two\r"} {
		if total, err := j.Input(t.Context(), []byte(text), i == 1); err != nil || total != int64(4*(i+1)+i) {
			t.Errorf("%d, %v", total, err)
		}
	}
	s.poll("what was given", func() bool { return strings.Count(j.out.String(), "two\r\n") == 2 })
	s.poll("that it sleeps", func() bool { return strings.Contains(j.out.String(), "now") && s.machine.of(on.ID).runs() })
	wants(t, j.Signal(t.Context(), "TERM"), "")
	j.ends("143", command.ByMark)
	wants(t, j.Signal(t.Context(), "INT"), fault.ReasonNotRunning)
	_, err := j.Input(t.Context(), []byte("x"), false)
	wants(t, err, fault.ReasonNotRunning)
	j = s.begin(on, "sleep 1000")
	s.poll("that it runs", func() bool { return s.machine.of(on.ID).runs() })
	wants(t, j.Signal(t.Context(), "INT"), "")
	j.ends("130", command.ByMark)
	if kind, why := j.Durability(); kind != command.Attached || !strings.Contains(why, on.Spec.Name) {
		t.Errorf("%s, %s", kind, why)
	}
}
