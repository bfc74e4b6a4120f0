package command

import (
	"strings"

	"github.com/telexec/telexec/internal/fault"
)

// MaxLine is how many bytes a command line and its environment may have
// together. Linux refuses an argument of execve of 128 KiB (MAX_ARG_STRLEN);
// what the start adds to the line must fit as well.
const MaxLine = 120_000

// NewSpec gives s if it can be run, with the limits checked that concern more
// than one field. What concerns one field is checked at the door by the rules
// in the proto.
func NewSpec(s Spec) (Spec, error) {
	if strings.TrimSpace(s.Line) == "" && len(s.Argv) == 0 {
		return Spec{}, fault.New(fault.Invalid, fault.ReasonEmptyCommand, "there is no command to run").
			WithHint("Give command (a shell command line) or argv (a list of arguments)")
	}
	for _, name := range s.EnvNames() {
		if strings.HasPrefix(name, "telexec_") {
			return Spec{}, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the variable %s cannot be set: names that begin with telexec_ are those of the script that starts the command", name).
				WithHint("Give it another name")
		}
	}
	size := len(s.CommandLine()) + len(s.WorkingDirectory)
	for k, v := range s.Env {
		size += len(k) + len(Quote(v)) + 2
	}
	if size > MaxLine {
		return Spec{}, fault.New(fault.Invalid, fault.ReasonCommandTooLong,
			"the command line and its environment have %d bytes once quoted; the limit is %d", size, MaxLine).
			WithHint(`Send a long script as stdin to a shell: command "sh -s"`)
	}
	return s, nil
}

// CommandLine gives Line, or Argv quoted.
func (s *Spec) CommandLine() string {
	if len(s.Argv) > 0 {
		return Quote(s.Argv...)
	}
	return s.Line
}
