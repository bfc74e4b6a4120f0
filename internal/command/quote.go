package command

import "strings"

// Quote gives the arguments as one line of POSIX shell that a shell splits back
// into exactly these arguments. Words of harmless characters stay as they are;
// all others are put in single quotes, in which nothing is special but the
// single quote itself (POSIX.1-2017, XCU 2.2.2).
func Quote(args ...string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if harmless(a) {
			b.WriteString(a)
			continue
		}
		b.WriteByte('\'')
		b.WriteString(strings.ReplaceAll(a, `'`, `'\''`))
		b.WriteByte('\'')
	}
	return b.String()
}

// harmless reports whether a shell takes a as one plain word wherever it
// stands. An = is not harmless (it may make an assignment of the first word),
// nor is a leading ~ or -, nor the empty word.
func harmless(a string) bool {
	for i := range len(a) {
		c := a[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '_', c == '/', c == '.', c == ',', c == ':', c == '@', c == '%', c == '+':
		case c == '-' && i > 0:
		default:
			return false
		}
	}
	return a != "" && !reserved[a]
}

// reserved are the words that a shell reads otherwise at the start of a command.
var reserved = map[string]bool{
	"case": true, "do": true, "done": true, "elif": true, "else": true, "esac": true, "fi": true,
	"for": true, "if": true, "in": true, "then": true, "until": true, "while": true,
	"function": true, "select": true, "time": true, "coproc": true,
}
