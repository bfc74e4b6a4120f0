package hostshell

import (
	"embed"
	"strings"
)

//go:embed remote/*.sh
var remote embed.FS

// Identity and Ladder are the scripts that make sure of a process, and end a tree of
// them. Ladder goes behind Identity, and its functions are called behind both; what
// must be set in front is told in the files. Places finds where files may be kept.
var (
	Identity = Script(remote, "remote/identity.sh")
	Ladder   = Script(remote, "remote/ladder.sh")
	Places   = Script(remote, "remote/places.sh")
)

// Script gives an embedded script without its comments and blank lines.
func Script(files embed.FS, name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the name of an embedded file is a constant of the package that has it
	}
	var s strings.Builder
	for line := range strings.Lines(string(b)) {
		if t := strings.TrimSpace(line); t == "" || t[0] == '#' {
			continue
		}
		s.WriteString(line)
	}
	return s.String()
}

// Word quotes s so that every login shell reads it as one word: sh and its
// kin, fish and csh agree on single quotes around anything but the single quote
// itself, the backslash (special there in fish) and "!" (history in csh), and
// on a backslash before one of those outside quotes. s has no line end: csh
// cannot quote one the way sh does.
func Word(s string) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/8 + 2)
	quoted := false
	for i := range len(s) {
		c := s[i]
		bare := c == '\'' || c == '\\' || c == '!'
		if bare == quoted {
			b.WriteByte('\'')
			quoted = !quoted
		}
		if bare {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	if quoted {
		b.WriteByte('\'')
	}
	if len(s) == 0 {
		return "''"
	}
	return b.String()
}
