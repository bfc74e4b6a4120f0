package engine

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/command"
)

// What an interactive shell takes for a reference to its history, and what not, as
// bash(1) has it under "HISTORY EXPANSION".
func TestRecalls(t *testing.T) {
	for line, want := range map[string]bool{
		"": false, "echo a": false, "! true": false, "!": false, "[ a != b ]": false, "echo hello!": false,
		"echo a^b ^c": false, "^a^b": true, " ^a^b": true, "echo\n^a^b": true, "!(a)": true, "shopt -s extglob; ls !(a)": true, "echo !;a": true,
		"!!": true, "!rm": true, "echo a; !-2": true, "echo \"!$\"": true, "! true; !x": true,
	} {
		if got := recalls(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

// Whatever a terminal tells of what was typed can be kept, and sent as text.
func FuzzTyped(f *testing.F) {
	for _, line := range []string{"", "ls -l", "a\x00b", "\xff\xfe", "é\xc3", strings.Repeat("é", command.MaxLine), "x" + strings.Repeat("\xff", command.MaxLine)} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		kept := typed(line)
		if len(kept) > command.MaxLine || !utf8.ValidString(kept) || strings.ContainsRune(kept, 0) {
			t.Errorf("%.50q is kept as %.50q, %d bytes", line, kept, len(kept))
		}
		if utf8.ValidString(line) && len(line) <= command.MaxLine && kept != strings.ReplaceAll(line, "\x00", "") {
			t.Errorf("%.50q is kept as %.50q", line, kept)
		}
		if kept == "" {
			return
		}
		if _, err := command.NewSpec(command.Spec{Line: kept}); err != nil {
			t.Errorf("%.50q: %v", kept, err)
		}
	})
}
