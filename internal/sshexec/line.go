package sshexec

import (
	"embed"
	"fmt"
	"strings"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/hostshell"
)

//go:embed remote/*.sh
var remote embed.FS

// remoteScript gives an embedded script as a host is given it.
func remoteScript(name string) string { return hostshell.Script(remote, "remote/"+name) }

// attachedHead and attachedTail are the script of attached runs, in one line each.
var attachedHead, attachedTail = oneLine("attached.sh", "become.sh")

// startProgram gives the program that becomes the command: one line of POSIX sh
// of printable ASCII. With direct it is the login shell that will read it.
func startProgram(nonce, id string, spec *command.Spec, direct bool) string {
	i := interpret(spec)
	mode := "plain"
	if spec.Pty != nil {
		mode = "pty"
	}
	if direct {
		i.reader = "login"
	}
	var p strings.Builder
	p.Grow(len(attachedHead) + len(attachedTail) + len(i.line) + len(i.line)/4 + 512)
	p.WriteString(attachedHead)
	// The exports first, so that no variable asked for can replace one of ours.
	for _, name := range spec.EnvNames() {
		fmt.Fprintf(&p, "export %s=%s; ", name, expression(spec.Env[name]))
	}
	fmt.Fprintf(&p, "export TELEXEC_ID=%s; telexec_nonce=%s telexec_mode=%s telexec_login=%s telexec_reader=%s telexec_short=%s telexec_dir=%s telexec_line=%s; ",
		id, nonce, mode, i.login, i.reader, expression(i.short), expression(directory(spec)), expression(i.line))
	p.WriteString(attachedTail)
	return p.String()
}

// expression gives a word in double quotes that a POSIX shell expands to text,
// where $1 is a line end. It is one line of printable ASCII. Text of printable
// ASCII, tabs and line ends costs nothing on the host; anything else goes
// through printf, which is one fork.
func expression(text string) string {
	var b strings.Builder
	b.Grow(len(text) + len(text)/8 + 2)
	b.WriteByte('"')
	if plain(text) {
		for i := range len(text) {
			switch c := text[i]; c {
			case '\n':
				b.WriteString("$1")
			case '"', '\\', '$', '`':
				b.WriteByte('\\')
				b.WriteByte(c)
			default:
				b.WriteByte(c)
			}
		}
	} else {
		body := strings.TrimRight(text, "\n")
		b.WriteString(`$(printf %b "`)
		for i := range len(body) {
			switch c := body[i]; {
			case c < ' ' || c > '~' || c == '"' || c == '\\' || c == '$' || c == '`':
				// %b takes \0 and up to three octal digits.
				fmt.Fprintf(&b, `\0%03o`, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteString(`")`)
		// $(…) strips the line ends at its end, so they stand behind it.
		for range len(text) - len(body) {
			b.WriteString("$1")
		}
	}
	b.WriteByte('"')
	return b.String()
}

func plain(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// maxExec is the longest exec request that a host takes: it becomes one argument
// of the login shell, of which Linux allows 128 KiB (MAX_ARG_STRLEN, with NUL).
const maxExec = 128<<10 - 1

// request gives the exec request for a program, and what must go first on
// standard input. With direct the login shell is a sh and takes the program
// itself; otherwise it is told to become /bin/sh.
//
// A program that has secrets (an environment) or is too long for an argument is
// delivered on standard input, where no list of processes shows it; the shell's
// read takes it byte by byte and leaves what follows to the command. A PTY would
// echo it, so there only the request can carry it; ok is false where it does not
// fit.
func request(program string, private, pty, direct bool) (exec, stdin string, ok bool) {
	become := func(program string) string {
		if direct {
			return program
		}
		return "exec /bin/sh -c " + hostshell.Word(program)
	}
	if !private || pty {
		if exec = become(program); len(exec) <= maxExec {
			return exec, "", true
		}
		if pty {
			return "", "", false
		}
	}
	return become(`IFS= read -r telexec_program; eval "$telexec_program"`), program + "\n", true
}
