package terminal_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// A shell that ends before it reads a line has not run it, whatever its code is.
func TestAShellEndsBeforeItReadsALine(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "dash", "mksh"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			s := startAlone(t)
			on := s.open(shell)
			s.run(on, "true").ends("0", command.ByMark)
			c := s.machine.of(on.ID)
			pid := c.cmd.Process.Pid
			_ = syscall.Kill(pid, syscall.SIGSTOP)
			ended := make(chan error, 1)
			go func() {
				j, err := s.tryBegin(t.Context(), on, terminal.Run{ID: jobID(), Spec: &command.Spec{SessionID: on.ID, Line: "touch done"}})
				if err == nil {
					_, err = j.wait()
				}
				ended <- err
			}()
			s.poll("that it was typed", func() bool { return strings.Contains(c.typed(), "touch done") })
			_ = syscall.Kill(pid, syscall.SIGHUP)
			_ = syscall.Kill(pid, syscall.SIGCONT)
			wants(t, within(t, ended, "its end"), fault.ReasonSessionGone)
			if s.machine.has("done") {
				t.Error("it was run")
			}
		})
	}
}

// A line that ends the shell has its code, also where the shell does not tell starts.
func TestALineThatEndsTheShell(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "dash", "mksh"} {
		for line, code := range map[string]string{"exit 3": "3", "echo x; exit 4": "4", "exec sh -c 'exit 5'": "5"} {
			t.Run(shell+" "+line, func(t *testing.T) {
				t.Parallel()
				s := startAlone(t)
				s.run(s.open(shell), line).ends(code, command.ByExitStatus)
			})
		}
	}
}

// A host that does not answer while a shell is ended still has it: the session is CLOSING
// until the host has said otherwise.
func TestCloseWhileTheHostIsFrozen(t *testing.T) {
	t.Parallel()
	s := startAlone(t)
	on := s.openSpec(kept)
	j := s.begin(on, "sleep 1000")
	c := s.machine.of(on.ID)
	c.mu.Lock()
	c.frozen = 2
	c.mu.Unlock()
	one, report, err := s.Close(t.Context(), ann, on.ID, "")
	if err != nil || !one.Ended() || one.End.Reason != fault.ReasonSessionClosed || report.Outcome != command.Gone {
		t.Errorf("%+v, %+v, %v", one, report, err)
	}
	if left := c.members(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := j.wait(); err == nil {
		t.Error("it has an end")
	}
}

// Where nothing keeps the shell nobody can ask again.
func TestCloseOfAShellThatNothingKeepsWhileTheHostIsFrozen(t *testing.T) {
	t.Parallel()
	s := startAlone(t)
	on := s.open("bash")
	c := s.machine.of(on.ID)
	c.mu.Lock()
	c.frozen = 1
	c.mu.Unlock()
	if one, report, err := s.Close(t.Context(), ann, on.ID, ""); err != nil || !one.Ended() || report.Outcome != command.Unproven {
		t.Errorf("%+v, %+v, %v", one, report, err)
	}
}

// A prompt that cannot be given marks is recognised all the same, and what is typed at it runs.
func TestAPromptWithoutMarks(t *testing.T) {
	t.Parallel()
	for name, profile := range map[string]string{"readonly": "PS1='ro> '; readonly PS1\n", "not expanded": "PS1='ro> '; PROMPT_COMMAND='shopt -u promptvars'\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startAlone(t)
			if err := os.WriteFile(filepath.Join(s.machine.home, ".bash_profile"), []byte(profile), 0o600); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			on := s.openSpec(session.Spec{Host: "web1", Shell: "bash"})
			t.Log("open after", time.Since(began), on.Completion)
			for range 2 {
				if out := s.run(on, "echo hello"); true {
					end, err := out.wait()
					if err != nil || end.Code != nil && *end.Code != 0 || !strings.Contains(out.out.String(), "hello") {
						t.Errorf("%+v, %v: %q", end, err, out.out)
					}
				}
			}
		})
	}
}
