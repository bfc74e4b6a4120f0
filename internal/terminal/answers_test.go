package terminal_test

import (
	"testing"

	"github.com/telexec/telexec/internal/command"
)

// What a program asks its terminal is answered once: here, or by what keeps the shell.
func TestQuestionsOfPrograms(t *testing.T) {
	s := start(t)
	const line = `stty -echo; printf '\033[6n'; IFS= read -rs -t 0.5 -d R row && echo answered; read -rs -t 0.2 -n 1 && echo twice`
	if got := s.run(s.openSpec(kept), line).ends("142", command.ByMark); got != "\x1b[6nanswered\r\n" {
		t.Errorf("%q", got)
	}
	s.machine.knows = true // and is deaf: then nobody answers
	if got := s.run(s.openSpec(kept), line).ends("142", command.ByMark); got != "\x1b[6n" {
		t.Errorf("%q", got)
	}
}
