package sshexec

import (
	"strconv"
	"strings"

	"github.com/telexec/telexec/internal/command"
)

// shortcut gives the name of a command that can do without a shell of its own:
// of a program with plain arguments or, where builtin is set, of something that
// the start script's shell can do in that shell's place. It is empty where a
// shell must read the line. Most of what is run on hosts is one program with
// plain arguments, and an exec of a shell is a third of what a short command
// costs its host.
//
// Only where nothing else comes out differently: a builtin says here what it
// would say there, and a single program takes the shell's place, as with sh -c in
// most shells. Some versions of dash wait for it instead and turn a signal that
// ends it into the code 128+n and a line on standard error; here the signal is
// told as it was. attached.sh decides the rest, which only the host knows: what
// shell it is, and whether there is such a program.
func shortcut(spec *command.Spec) (name string, builtin bool) {
	if spec.LoginShell {
		return "", false // the login files are part of what was asked for
	}
	if len(spec.Env) > 0 {
		return "", false // a second shell would set IFS, PWD, OPTIND and their like anew
	}
	words := spec.Argv
	if len(words) == 0 && plainWords(spec.Line) {
		words = strings.Fields(spec.Line)
	}
	if len(words) == 0 || words[0] == "" || !plainWords(words[0]) || strings.Contains(words[0], " ") {
		return "", false
	}
	switch name = words[0]; name {
	case "true", "false", "echo":
		return name, true
	case "pwd":
		if len(words) == 1 {
			return name, true
		}
		return "", false // its complaints begin with the name of the shell
	case "exit":
		if len(words) == 2 {
			if n, err := strconv.Atoi(words[1]); err == nil && strconv.Itoa(n) == words[1] && 0 <= n && n <= 255 {
				return name, true
			}
		}
		return "", false
	}
	if strings.Contains("-+%", name[:1]) || shellWords[name] {
		return "", false
	}
	return name, false
}

// plainWords reports whether a shell takes line as it stands, split at its
// blanks: no quoting, expansion, pattern, assignment, redirection or comment.
func plainWords(line string) bool {
	return strings.Trim(line, letters+digits+" _/.,:@%+-") == ""
}

// shellWords are the reserved words, builtins and predefined aliases of the
// shells that are /bin/sh somewhere. Those that are programs as well are run by
// a shell all the same: which of the two it takes is its affair.
var shellWords = words(`. : alias autoload bg bind break builtin bye caller case cat cd chdir command
	compgen complete compopt continue coproc declare dirs disown do done elif else enable esac eval exec
	export fc fdflags fg fi float for foreach function functions getopts global hash hashinfo help hist
	history if in inputrc integer jobid jobs kill let local log login logout mapfile memleak nameref
	newgrp nocorrect noglob nohup popd print printf pushd r read readarray readonly realpath redirect
	rehash rename repeat return select set setvar shift shopt source stop suspend test then time times
	trap type typeset ulimit umask unalias unset until vmstate wait whence where which while wordexp
	zmodload`)

func words(s string) map[string]bool {
	set := make(map[string]bool)
	for _, w := range strings.Fields(s) {
		set[w] = true
	}
	return set
}
