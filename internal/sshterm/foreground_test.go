package sshterm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// until waits until the foreground satisfies ok.
func (w *shell) until(pid int, what string, ok func(Foreground) bool) Foreground {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer stop()
	tick := time.NewTicker(20 * time.Millisecond) // a look costs the host a few processes
	defer tick.Stop()
	for ; ; <-tick.C {
		f, err := w.Foreground(ctx, pid)
		if err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
		if ok(f) {
			return f
		}
	}
}

func running(f Foreground, commands ...string) bool {
	if f.Shell || len(f.Processes) != len(commands) {
		return false
	}
	for i, c := range commands {
		if !strings.HasPrefix(f.Processes[i].Command, c) {
			return false
		}
	}
	return true
}

func idle(f Foreground) bool { return f.Shell && len(f.Processes) == 0 && f.Nested == "" }

// Who has the terminal is seen, and ended, and nothing else is.
func TestForeground(t *testing.T) {
	m := machine(t, sshtest.OpenSSH,
		sshtest.Account{Name: "root", Root: true, Shell: "bash"},
		sshtest.Account{Name: "anna", Shell: "bash", Sudo: sshtest.FreeSudo},
		sshtest.Account{Name: "otto", Shell: "dash"},
	)
	d := newDialer(t)
	for _, c := range []struct {
		account string
		keeper  session.Keeper
		proc    string
	}{{"root", session.KeptByNone, "/proc"}, {"anna", session.KeptByTmux, "/proc"}, {"otto", session.KeptByDtach, "/nonexistent"}} {
		t.Run(c.account, func(t *testing.T) {
			terms := New(d, Options{})
			terms.proc = c.proc
			s := open(t, terms, Spec{Host: m.HostOf("web1", c.account), Keeper: c.keeper})
			s.prompt(0)
			if c.proc != "/proc" { // a host without has told it in the words of ps
				s.who.start = strings.Join(strings.Fields(m.Run("env", "LC_ALL=C", "ps", "-o", "lstart=", "-p", strconv.Itoa(s.Facts().PID))), " ")
			}
			s.until(0, "idle", idle)
			if r, err := s.Ladder(t.Context(), 0, time.Second); err != nil || r.Outcome != command.AlreadyEnded {
				t.Errorf("nothing runs: %+v, %v", r, err)
			}
			if err := s.Signal(t.Context(), 0, "INT"); reason(err) != fault.ReasonNotRunning {
				t.Errorf("nothing runs: %v", err)
			}
			background := s.background("sleep 300 &")
			for _, k := range []struct {
				line   string
				sees   []string
				signal string
				grace  time.Duration
				ended  int
			}{
				{"sleep 200", []string{"sleep 200"}, "TERM", time.Second, 1},
				{"sleep 201 | cat", []string{"sleep 201", "cat"}, "TERM", time.Second, 2},
				{`sh -c 'trap "" INT TERM; sleep 202; sleep 202'`, []string{"sh -c trap", "sleep 202"}, "KILL", 100 * time.Millisecond, 2},
				{`sh -c 'sleep 203 & setsid sleep 204 & wait'`, nil, "KILL", 0, 3},
			} {
				if c.proc != "/proc" && k.signal == "TERM" {
					continue // ps is slow
				}
				from := s.marks()
				s.types(k.line + "\r")
				f := s.until(0, k.line, func(f Foreground) bool {
					return k.sees != nil && running(f, k.sees...) || k.sees == nil && len(f.Processes) >= 2 && len(m.Running("sleep\x00204")) > 0
				})
				if f.Group <= 1 || f.Processes[0].User != c.account {
					t.Errorf("%s: %+v", k.line, f)
				}
				r, err := s.Ladder(t.Context(), 0, k.grace)
				proven := r.Outcome == command.Gone
				if err != nil || !proven || r.Signal != k.signal || r.Ended < k.ended || len(r.Left) > 0 {
					t.Errorf("%s: %+v, %v", k.line, r, err)
				}
				s.prompt(from)
				s.until(0, "idle after "+k.line, idle)
			}
			if !alive(background) {
				t.Error("the job in the background is gone")
			}
			from := s.marks()
			s.types("cat\r")
			s.until(0, "cat", func(f Foreground) bool { return running(f, "cat") })
			if err := s.Signal(t.Context(), 0, "TERM"); err != nil {
				t.Error(err)
			}
			s.prompt(from)
			if c.account == "anna" {
				s.types("sudo sleep 205\r")
				s.until(0, "sudo", func(f Foreground) bool { return running(f, "sudo sleep 205", "sleep 205") })
				if r, err := s.Ladder(t.Context(), 0, time.Second); err != nil || r.Outcome != command.Gone || r.Ended != 2 {
					t.Errorf("sudo: %+v, %v", r, err)
				}
				s.until(0, "idle after sudo", idle)
			}
			if _, err := s.Foreground(t.Context(), 1); reason(err) != fault.ReasonNotRunning {
				t.Errorf("a process of somebody else: %v", err)
			}
			left := "(trap '' HUP; sleep 206) &"
			if c.proc == "/proc" {
				left += " setsid sleep 207 &" // which loses its parent, and ps shows no environment
			}
			s.types(left + "\r")
			eventually(t, "all are there", func() bool { return len(m.Running("sleep\x0020")) == strings.Count(left, "&") })
			r, err := s.End(t.Context())
			if err != nil || r.Outcome != command.Gone {
				t.Errorf("end: %+v, %v", r, err)
			}
			if left := m.Leftovers(s.spec.ID); len(left) > 0 {
				t.Error(left)
			}
			if alive(background) {
				t.Error("the job in the background has outlived the session")
			}
		})
	}
}

// background types a line that starts a job, and gives the job's pid.
func (w *shell) background(line string) int {
	w.t.Helper()
	w.run(line, 0)
	w.run("echo job=$!.", 0)
	found := jobNumber.FindStringSubmatch(w.sees("job="))
	if found == nil {
		w.t.Fatal("the shell does not tell the pid of its job")
	}
	pid, _ := strconv.Atoi(found[1])
	return pid
}

var jobNumber = regexp.MustCompile(`job=([0-9]+)\.`)

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// eventually waits for a condition on the host that nothing tells us of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("waited in vain until " + what)
		}
	}
}

// A shell in the shell, also on a terminal of its own as sudo makes one, is seen, and
// looked into by its pid.
func TestNestedShells(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		testenv.Missing(t, "no script; tools/setup.sh gets it")
	}
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash", Sudo: sshtest.FreeSudo}, sshtest.Account{Name: "otto", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByNone})
	s.prompt(0)
	for _, c := range []struct{ line, kind string }{
		{"bash --norc", "bash"}, {"sh", "sh"}, {"sudo -s bash --norc", "bash"}, {"script -qc 'zsh -f' /dev/null", "zsh"}, {"fish --no-config", "fish"},
		{"sh -c 'bash --norc; true'", "bash"}, {"ssh-agent dash", "dash"}, {"sudo -s sudo -u otto bash --norc", "other"},
	} {
		s.types(c.line + "\r")
		f := s.until(0, c.line, func(f Foreground) bool { return f.Nested == c.kind && f.NestedPID != 0 })
		if f.Shell || !alive(f.NestedPID) {
			t.Errorf("%s: %+v", c.line, f)
		}
		s.until(f.NestedPID, "idle in "+c.line, func(in Foreground) bool { return in.Shell && in.Nested == "" })
		s.types("sleep 210\r")
		in := s.until(f.NestedPID, "sleep in "+c.line, func(in Foreground) bool { return running(in, "sleep 210") })
		if r, err := s.LadderOn(t.Context(), f.NestedPID, in.Group+1, time.Second); err != nil || r.Outcome != command.AlreadyEnded {
			t.Errorf("on another group in %s: %+v, %v", c.line, r, err)
		}
		if out, err := s.Foreground(t.Context(), 0); err != nil || out.Shell || out.Nested != "" {
			t.Errorf("%s, sleeping: %+v, %v", c.line, out, err)
		}
		if r, err := s.LadderOn(t.Context(), f.NestedPID, in.Group, time.Second); err != nil || r.Outcome != command.Gone || r.Ended != 1 {
			t.Errorf("in %s: %+v, %v", c.line, r, err)
		}
		s.until(f.NestedPID, "idle again in "+c.line, func(in Foreground) bool { return in.Shell })
		s.types("exit\r")
		s.until(0, "idle after "+c.line, idle)
	}
	// A script is no shell that waits.
	s.types("sh -c 'read x; echo $x'\r")
	if f := s.until(0, "a script", func(f Foreground) bool { return len(f.Processes) == 1 }); f.Nested != "" {
		t.Errorf("%+v", f)
	}
	s.types("\x03")
	s.until(0, "idle", idle)
}

// A shell that has given up job control is in the group of whoever runs it, which is
// neither looked at nor ended with what the shell runs.
func TestNoJobControl(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "otto", Shell: "dash"})
	terms := New(newDialer(t), Options{})
	s := open(t, terms, Spec{Host: m.HostOf("web1", "otto"), Keeper: session.KeptByTmux})
	s.prompt(0)
	s.run("set +m", 0)
	s.until(0, "idle", idle)
	from := s.marks()
	s.types("sleep 240\r")
	s.until(0, "sleep", func(f Foreground) bool { return running(f, "sleep 240") })
	if r, err := s.Ladder(t.Context(), 0, time.Second); err != nil || r.Outcome != command.Gone || r.Ended != 1 {
		t.Errorf("%+v %v", r, err)
	}
	s.prompt(from)
	s.run("true", 0)
	s.types("exit 6\r")
	if code := s.exited(); code != 6 {
		t.Errorf("exit code %d", code)
	}
}
