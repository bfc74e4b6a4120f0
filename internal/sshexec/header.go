package sshexec

import (
	"bytes"
	"strings"

	"github.com/telexec/telexec/internal/hostshell"
)

// identity is what tells a process on a host apart from every other one that
// was ever there.
type identity struct {
	pid            int64
	group, session int64  // 0 where they are not the process's own
	boot           string // boot id; "-" where the host has none
	start          string // start time as the host words it; "-" where unknown
}

// greeting is the one line that the script tells: started, or refused and why.
type greeting struct {
	identity
	plainShell bool   // the login shell is a sh that reads no login files for -c
	refused    string // empty when it started: "pty", "directory missing", "directory denied"
}

// Limits of what is read before and in the greeting.
const (
	maxGreeting = 256     // bytes of the line
	maxChatter  = 1 << 20 // bytes of login files on its stream
)

// findGreeting looks for the greeting in what a stream has given so far. before
// and after are what stands around it: output like any other. done is false
// while it may still come. Something that looks like the greeting but is not
// exactly one (a shell that prints its commands shows the script itself) is
// passed over.
func findGreeting(nonce string, b []byte) (g greeting, before, after []byte, done bool) {
	token := []byte("telexec:" + nonce + ": ")
	for at := 0; ; {
		i := bytes.Index(b[at:], token)
		if i < 0 {
			return greeting{}, nil, nil, false
		}
		from := at + i
		rest := b[from+len(token):]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 && len(rest) <= maxGreeting {
			return greeting{}, nil, nil, false
		}
		if end >= 0 && end <= maxGreeting {
			// A terminal makes CR LF of a line end.
			if g, ok := parseGreeting(strings.TrimSuffix(string(rest[:end]), "\r")); ok {
				return g, b[:from], rest[end+1:], true
			}
		}
		at = from + len(token)
	}
}

func parseGreeting(line string) (greeting, bool) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "refused":
		switch rest {
		case "pty", "directory missing", "directory denied":
			return greeting{refused: rest}, true
		}
	case "started":
		f := strings.SplitN(rest, " ", 6)
		if len(f) != 6 || f[3] != "sh" && f[3] != "other" || !hostshell.Printable(rest) || f[4] == "" || f[5] == "" {
			return greeting{}, false
		}
		var n [3]int64
		for i := range n {
			v, ok := hostshell.Number(f[i])
			if !ok {
				return greeting{}, false
			}
			n[i] = v
		}
		g := greeting{identity: identity{pid: n[0], boot: f[4], start: f[5]}, plainShell: f[3] == "sh"}
		if g.pid <= 1 {
			return greeting{}, false
		}
		// Only a group or session that the process leads is the command's alone:
		// a server that makes none would have us end the server.
		if n[1] == g.pid {
			g.group = g.pid
		}
		if n[2] == g.pid {
			g.session = g.pid
		}
		return g, true
	}
	return greeting{}, false
}
