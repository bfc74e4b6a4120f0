package terminal_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/terminal"
)

// What somebody has typed to a program is no beginning of a line when the program has
// ended. At the first prompt behind it that is not known, and the line is cleared.
func TestCommandsBehindWhatWasTypedToAProgram(t *testing.T) {
	s := start(t)
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) {
			s := s.with(t)
			s.Use(s)
			defer s.takers.Wait()
			on := s.open(shell)
			v := s.attach(ann, on, terminal.AttachOptions{})
			v.types("head -n 1; true\r")
			typed := s.typedJob("head -n 1; true")
			console := s.machine.of(on.ID)
			s.poll("that it reads", console.runs) // some shells drop what is typed at the turn
			v.types("to the program\r")
			typed.ends("0", command.ByMark)
			if got := s.run(on, "sleep 0.1; echo one").ends("0", command.ByMark); got != "one\r\n" {
				t.Errorf("it printed %q", got)
			}
			before := len(console.typed())
			if got := s.run(on, "echo two; sh -c 'exit 4'").ends("4", command.ByMark); got != "two\r\n" {
				t.Errorf("it printed %q", got)
			}
			if keys := console.typed()[before:]; strings.Contains(keys, "\x15") {
				t.Errorf("a line was cleared that nobody has begun: %q", keys)
			}
		})
	}
}

// Lines that somebody types while commands are typed and run are theirs, whenever they
// come, and no command is taken for another one.
func TestLinesBetweenCommands(t *testing.T) {
	s := start(t)
	for _, shell := range []string{"bash", "zsh", "dash", "mksh"} {
		t.Run(shell, func(t *testing.T) {
			s := s.with(t)
			s.Use(s)
			defer s.takers.Wait()
			on := s.open(shell)
			v := s.attach(ann, on, terminal.AttachOptions{})
			const rounds = 12
			console := s.machine.of(on.ID)
			for n := range rounds {
				line := fmt.Sprintf("echo begin %d; sleep 0.01; echo end %d", n, n)
				j := make(chan *job, 1)
				go func() {
					began, err := s.tryBegin(t.Context(), on, terminal.Run{ID: jobID(), Spec: &command.Spec{SessionID: on.ID, Line: line}})
					if err != nil {
						t.Error(err)
					}
					j <- began
				}()
				// As soon as it was typed, and in later rounds a little after.
				s.poll("that it was typed", func() bool { return strings.Contains(console.typed(), line) })
				if n%3 > 0 {
					v.sees(fmt.Sprintf("begin %d\r\n", n))
				}
				v.types(fmt.Sprintf("echo mine %d\r", n))
				one := within(t, j, "that it began")
				if one == nil {
					return
				}
				out := one.ends("0", command.ByMark)
				if begin, end := fmt.Sprintf("begin %d\r\n", n), fmt.Sprintf("end %d\r\n", n); !strings.Contains(out, begin) || !strings.Contains(out, end) {
					t.Errorf("round %d: %q", n, out)
				}
				if mine := s.typedJob(fmt.Sprintf("echo mine %d", n)).ends("0", command.ByMark); !strings.HasSuffix(mine, fmt.Sprintf("mine %d\r\n", n)) {
					t.Errorf("round %d: typed was %q", n, mine)
				}
			}
		})
	}
}

// A line that was typed ahead and runs for long has the shell to itself.
func TestALongLineTypedAhead(t *testing.T) {
	s := start(t)
	for _, shell := range []string{"bash", "dash", "mksh"} {
		t.Run(shell, func(t *testing.T) {
			s := s.with(t)
			s.Use(s)
			defer s.takers.Wait()
			on := s.open(shell)
			v := s.attach(ann, on, terminal.AttachOptions{})
			first := s.begin(on, "sleep 0.2; echo first")
			v.types("sleep 0.8; echo lx\x7fate\r")
			if out := first.ends("0", command.ByMark); !strings.HasSuffix(out, "first\r\n") {
				t.Errorf("%q", out)
			}
			if out := s.run(on, "echo next").ends("0", command.ByMark); out != "next\r\n" {
				t.Errorf("%q", out)
			}
			if out := s.typedJob("sleep 0.8; echo late").ends("0", command.ByMark); !strings.HasSuffix(out, "late\r\n") {
				t.Errorf("%q", out)
			}
		})
	}
}
