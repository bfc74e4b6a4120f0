package terminal_test

import (
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
			v.types("to the program\r")
			typed.ends("0", command.ByMark)
			console := s.machine.of(on.ID)
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
