package terminal

import (
	"path"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// knownShells are the names of shells that everybody may choose who may open sessions.
// probe.sh has those of them that do not tell what they are.
var knownShells = []string{
	"bash", "rbash", "zsh", "fish", "dash", "ash", "busybox", "sh", "ksh", "ksh93", "mksh", "lksh", "oksh", "loksh", "pdksh",
	"yash", "csh", "tcsh", "bsd-csh",
}

// shellDirs are where hosts have them.
var shellDirs = []string{"/bin/", "/usr/bin/", "/usr/local/bin/"}

// isShell reports whether what was asked for is a shell, and not some program.
func isShell(name string) bool {
	dir, base := path.Split(name)
	return slices.Contains(knownShells, base) && (dir == "" || slices.Contains(shellDirs, dir))
}

// mayStart reports whether the caller may start what a session is to have as its shell:
// nil, or TYPING_NOT_ALLOWED. Rules judge what is run in a shell. A program of the
// caller's own choosing would run as soon as the session is opened, and no rule would
// see it, so it is for those who may type, which passes no rules either.
func (t *Terminals) mayStart(by access.Caller, spec session.Spec) error {
	if spec.Shell == "" || isShell(spec.Shell) {
		return nil
	}
	err := t.rights.MayType(by, t.thing(&session.Session{Spec: spec, CreatedBy: by.Actor()}))
	if err == nil {
		return nil
	}
	e := fault.From(err)
	return fault.New(fault.PermissionDenied, e.Reason, "%q is not one of the usual shells, and to start another program in a session is like typing it: %s", spec.Shell, e.Message).
		WithHint("Leave the shell out, or name one of %s, or one of them in %s", strings.Join(knownShells, ", "), strings.Join(shellDirs, ", ")).
		With("host", spec.Host)
}
