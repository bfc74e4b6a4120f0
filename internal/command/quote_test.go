package command_test

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
)

func TestQuote(t *testing.T) {
	for want, args := range map[string][]string{
		"":                        nil,
		"''":                      {""},
		"true":                    {"true"},
		"a/b.c,d:e@f%g+h_i-j 0":   {"a/b.c,d:e@f%g+h_i-j", "0"},
		"echo 'two words'":        {"echo", "two words"},
		`'it'\''s'`:               {"it's"},
		"ls '-l'":                 {"ls", "-l"},
		"'a=b'":                   {"a=b"},
		"'~'":                     {"~"},
		"'if' 'done'":             {"if", "done"},
		"'$(reboot)' '`id`' '&&'": {"$(reboot)", "`id`", "&&"},
		"'line\nbreak' 'é'":       {"line\nbreak", "é"},
	} {
		if got := command.Quote(args...); got != want {
			t.Errorf("Quote(%q) = %s, want %s", args, got, want)
		}
	}
}

// The first word of a line is where a shell is at its most inventive: keywords,
// assignments, tildes. Quoted, each is the name of a program that there is not.
func TestQuoteFirstWord(t *testing.T) {
	for _, word := range []string{
		"if", "then", "else", "elif", "fi", "for", "in", "do", "done", "while", "until", "case", "esac",
		"function", "select", "time", "coproc", "a=b", "~", "~root", "-x", "!", "{", "}", "(", "#", "*", "[[", "a;b", "a b", "\\", "$x",
	} {
		shell := exec.Command("/bin/sh", "-c", command.Quote(word))
		shell.Env = []string{"PATH=/nonexistent"}
		err := shell.Run()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || (exit.ExitCode() != 127 && exit.ExitCode() != 126) {
			t.Errorf("%s as a command gives %v, want 127: not found", command.Quote(word), err)
		}
	}
}

// FuzzQuote asks a real shell whether it reads the arguments as they were.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "a", "a b", "it's", "''", "\\", "$HOME `id` $(id)", "-n", "a\nb", "*", "~", "é\xff\x80", "!x", "{a,b}", "#", "a=b", "\r\t"} {
		f.Add(seed, "x")
		f.Add("x", seed)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ContainsRune(a+b, 0) {
			return // no argument of a process can hold NUL
		}
		args := []string{a, b, a + b}
		line := `set -- ` + command.Quote(args...) + `; printf '%s\000' "$@"`
		out, err := exec.Command("/bin/sh", "-c", line).Output()
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, args) {
			t.Errorf("the shell read %q, want %q", got, args)
		}
	})
}
