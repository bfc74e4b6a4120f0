package terminal_test

import (
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
)

var shells = []string{"bash", "zsh", "fish", "dash", "ash", "mksh", "ksh"}

func TestCommandsInShells(t *testing.T) {
	s := start(t)
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) {
			s := s.with(t)
			on := s.open(shell)
			if on.State != "OPEN" || on.Completion != command.ByMark {
				t.Errorf("%+v", on)
			}
			for _, tc := range []struct{ line, code, output string }{
				{"true", "0", ""},
				{"false", "1", ""},
				{"echo hello", "0", "hello\r\n"},
				{"sh -c 'exit 5'", "5", ""},
				{"cd /tmp", "0", ""},
				{"pwd", "0", "/tmp\r\n"},
				{"printf abc", "0", "abc"},
				{"echo ä€𝄞", "0", "ä€𝄞\r\n"},
				{"echo 'me$ '", "0", "me$ \r\n"},
				{"echo one\necho two", "0", "one\r\ntwo\r\n"},
				{"echo " + strings.Repeat("x", 200), "0", strings.Repeat("x", 200) + "\r\n"},
			} {
				if got := s.run(on, tc.line).ends(tc.code, command.ByMark); got != tc.output {
					t.Errorf("%q printed %q, want %q", tc.line, got, tc.output)
				}
			}
		})
	}
}
