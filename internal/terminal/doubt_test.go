package terminal_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// redraws has the prompt drawn anew, as whoever attaches with a window of another size does.
func (s *service) redraws(on session.Session) {
	s.t.Helper()
	s.attach(ann, on, terminal.AttachOptions{Size: &session.Size{Columns: 100, Rows: 30}})
}

// A line that was lost with the connection was not run, whatever code a prompt tells that
// is drawn anew.
func TestALineThatIsLostWithTheConnection(t *testing.T) {
	s := start(t)
	on := s.openSpec(kept)
	s.run(on, "(exit 7)").ends("7", command.ByMark)
	c := s.machine.of(on.ID)
	c.delay(true)
	began := make(chan *job, 1)
	go func() {
		j, err := s.tryBegin(t.Context(), on, terminal.Run{ID: jobID(), Spec: &command.Spec{SessionID: on.ID, Line: "touch done"}})
		if err != nil {
			t.Error(err)
		}
		began <- j
	}()
	s.poll("that it was typed", func() bool { return strings.Contains(c.typed(), "touch done") })
	s.machine.reach(false)
	s.poll("the loss", func() bool { return s.get(on).Connection == command.Reconnecting })
	c.delay(false)
	s.machine.reach(true)
	s.poll("that it is back", func() bool { return s.get(on).Connection == command.Connected })
	s.redraws(on)
	if j := within(t, began, "that it began"); j != nil {
		j.ends("none", command.ByPrompt)
	}
	if _, err := os.Stat(filepath.Join(s.machine.home, "done")); err == nil {
		t.Error("it was run")
	}
	s.run(on, "true").ends("0", command.ByMark)
}

// The same where the service was started anew meanwhile, and the line was never typed.
func TestALineThatWasNeverTyped(t *testing.T) {
	t.Parallel()
	for name, early := range map[string]bool{"the prompt is drawn anew before it is asked for": true, "behind that": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, st := newMachine(t), openStore(t, t.TempDir())
			s := startWith(t, m, st, usual)
			on := s.openSpec(kept)
			s.run(on, "(exit 7)").ends("7", command.ByMark)
			s.stop()
			s = startWith(t, m, st, usual)
			resume := func() *job {
				p, err := s.Resume(t.Context(), terminal.Run{ID: "never", Spec: &command.Spec{SessionID: on.ID, Line: "x"}, Output: (&sink{}).take})
				if err != nil {
					t.Fatal(err)
				}
				return &job{Process: p, id: "never", t: t, out: &sink{}}
			}
			var j *job
			if !early {
				j = resume()
			}
			s.poll("that it is back", func() bool { return s.get(on).Connection == command.Connected })
			s.redraws(on)
			if early {
				j = resume()
			}
			j.ends("none", command.ByPrompt)
		})
	}
}

// A nested shell that waits at its prompt while the service is started anew is found there.
func TestARestartWhileANestedShellWaits(t *testing.T) {
	t.Parallel()
	for _, inner := range []string{"bash --norc", "dash"} {
		t.Run(inner, func(t *testing.T) {
			t.Parallel()
			m, st := newMachine(t), openStore(t, t.TempDir())
			s := startWith(t, m, st, usual)
			on := s.openSpec(kept)
			s.begin(on, inner).ends("none", command.ByPrompt)
			s.run(on, "true").ends("0", command.ByMark)
			s.stop()
			s = startWith(t, m, st, usual)
			if out := s.run(on, "echo x; (exit 4)").ends("4", command.ByMark); out != "x\r\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

// One that ends while the connection is lost gives way to the shell that it was started in.
func TestANestedShellEndsUnseen(t *testing.T) {
	s := start(t)
	on := s.openSpec(kept)
	s.begin(on, "bash --norc").ends("none", command.ByPrompt)
	c := s.machine.of(on.ID)
	j := s.begin(on, "read -r x; exit 3")
	v := s.attach(ann, on, terminal.AttachOptions{})
	c.delay(true)
	v.types("it\r")
	s.poll("that it was typed", func() bool { return strings.Contains(c.typed(), "it\r") })
	s.machine.reach(false)
	c.delay(false)
	if _, err := c.tty.WriteString("it\r"); err != nil { // what was on its way gets there
		t.Fatal(err)
	}
	s.poll("that it is gone", func() bool { return len(c.members()) == 1 })
	s.machine.reach(true)
	j.ends("none", command.ByPrompt)
	if out := s.run(on, "echo x; (exit 4)").ends("4", command.ByMark); out != "x\r\n" {
		t.Errorf("%q", out)
	}
}

// The code of a nested shell is not that of the command whose shell it was, unless that
// has ended it.
func TestANestedShellDies(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	c := s.machine.of(on.ID)
	own := c.cmd.Process.Pid
	s.begin(on, "bash --norc").ends("none", command.ByPrompt)
	j := s.begin(on, "sleep 5")
	inside := func(name string) []int {
		return processes(func(p stat) bool { return p.session == own && p.pid != own && p.name == name })
	}
	s.poll("that it runs", func() bool { return len(inside("sleep")) == 1 })
	for _, pid := range inside("bash") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	j.ends("none", command.ByPrompt)
	s.begin(on, "bash --norc").ends("none", command.ByPrompt)
	s.run(on, "exit 3").ends("3", command.ByMark)
	s.run(on, "true").ends("0", command.ByMark)
}

// What goes by the name of sh is what it says it is.
func TestABashThatIsCalledSh(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	sh := filepath.Join(s.machine.home, "sh")
	bash, err := filepath.EvalSymlinks("/bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bash, sh); err != nil {
		t.Fatal(err)
	}
	s.begin(on, sh).ends("none", command.ByPrompt)
	s.run(on, "(exit 7)").ends("7", command.ByMark)
	if out := s.run(on, "echo wow!x").ends("0", command.ByMark); out != "wow!x\r\n" {
		t.Errorf("%q", out)
	}
	if kind := s.get(on).Shell; kind != "bash" {
		t.Errorf("it is %q", kind)
	}
}

// What a program has read without echo is a password, not the command that the shell runs
// behind it.
func TestAPasswordIsNoCommand(t *testing.T) {
	for _, shell := range []string{"dash", "mksh"} {
		t.Run(shell, func(t *testing.T) {
			s := start(t)
			on := s.open(shell)
			v := s.attach(ann, on, terminal.AttachOptions{})
			const asks = "sh ./asks"
			if err := os.WriteFile(filepath.Join(s.machine.home, "asks"), []byte("stty -echo; echo Password:; read x; stty echo; echo Thanks:; sleep 0.2"), 0o600); err != nil {
				t.Fatal(err)
			}
			v.types(asks + "\r")
			v.sees("Password:\r\n")
			v.types("hunter2\r")
			v.sees("Thanks:\r\n")
			v.types("sleep 0.4; echo lx\x7fate\r")
			first := s.typedLine(asks)
			if j := within(t, first.taken, "that it is taken up"); j != nil {
				j.ends("0", command.ByMark)
			}
			s.typedJob("sleep 0.4; echo late").ends("0", command.ByMark)
			if lines := s.lines(); len(lines) != 2 {
				t.Errorf("commands: %+v", lines)
			}
		})
	}
}

// typedLine waits for the first command that was typed, which is this line.
func (s *service) typedLine(line string) typedLine {
	s.t.Helper()
	s.poll("that something was typed", func() bool { return len(s.lines()) > 0 })
	if first := s.lines()[0]; first.line == line {
		return first
	}
	s.t.Fatalf("%+v, want %q", s.lines(), line)
	panic("unreachable")
}

// The line that makes a shell tell marks is not typed into a line that somebody has begun.
func TestNothingIsTypedIntoALineThatGoesOn(t *testing.T) {
	for _, first := range []string{"exec bash --norc", "bash --norc"} {
		t.Run(first, func(t *testing.T) {
			s := start(t)
			on := s.open("bash")
			v := s.attach(ann, on, terminal.AttachOptions{})
			c := s.machine.of(on.ID)
			v.types(first + "\r")
			v.types("ls -d \\\r")
			v.sees("2004h> ")
			s.poll("that it was looked who waits there", func() bool { return c.looks.Load() > 0 })
			v.types("/usr\r")
			s.typedJob(first).ends("none", command.ByPrompt)
			if out := s.run(on, "echo x; (exit 4)").ends("4", command.ByMark); out != "x\r\n" {
				t.Errorf("%q", out)
			}
			if seen := v.text(); strings.Contains(seen, "nested") || !strings.Contains(seen, "\r/usr\r\n") {
				t.Errorf("%q", seen)
			}
		})
	}
}

// A ladder that gets to the host when its command has ended, and the next one runs, leaves
// that alone.
func TestALadderThatComesLate(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	c := s.machine.of(on.ID)
	here, on2 := make(chan struct{}, 10), make(chan struct{})
	c.mu.Lock()
	c.climb = func() { here <- struct{}{}; <-on2 }
	c.mu.Unlock()
	j := s.begin(on, `sh -c 'trap "read x; exit 4" INT; echo ready; while :; do sleep 0.02; done'`)
	s.poll("that it is ready", func() bool { return strings.Contains(j.out.String(), "ready") })
	cancelled := make(chan command.CancelReport, 1)
	go func() {
		report, err := j.Cancel(t.Context(), 5*time.Second)
		if err != nil {
			t.Error(err)
		}
		cancelled <- report
	}()
	within(t, here, "the ladder")
	v.types("\r")
	j.ends("4", command.ByMark)
	const line = "sh -c 'echo begun; read x; echo survived'"
	v.types(line + "\r")
	next := s.typedJob(line)
	s.poll("that the next one runs", func() bool { return strings.Contains(next.out.String(), "begun") })
	close(on2)
	if report := within(t, cancelled, "the report"); report.Outcome != command.Gone {
		t.Errorf("%+v", report)
	}
	v.types("\r")
	if out := next.ends("0", command.ByMark); !strings.Contains(out, "survived") {
		t.Errorf("%q", out)
	}
	if all := s.lines(); !slices.ContainsFunc(all, func(l typedLine) bool { return l.line == line }) {
		t.Errorf("%+v", all)
	}
}
