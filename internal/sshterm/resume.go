package sshterm

import (
	"cmp"
	"context"
	"strings"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/session"
)

// found is where the files of a session are.
type found struct {
	dir    string         // empty: nowhere
	keeper session.Keeper // that was started there
	place  string         // where directories of sessions can be made now; empty: nowhere
	hidden bool           // there may be some that cannot be seen now
}

var findScript = hostshell.Places + script("find.sh")

// find looks for the files of a session that was opened before. Which directory is the
// best one may have changed since, so it looks in every one, also where nothing can be
// written now.
func (t *Terms) find(ctx context.Context, spec Spec) (found, error) {
	lines, err := t.ask(ctx, spec.Host, t.startTimeout(spec.Host), "id="+quote(spec.ID)+"\n"+findScript)
	if err != nil {
		return found{}, err
	}
	at, ok := parseFound(lines)
	if !ok {
		return found{}, unreachable(spec, "its answer is not whole")
	}
	return at, nil
}

// parseFound reads the answer of find.sh; ok is false where it is not whole.
func parseFound(lines []string) (at found, ok bool) {
	for _, line := range lines {
		word, value, _ := strings.Cut(line, " ")
		switch word {
		case "place":
			if at.place == "" && pathForm(value) {
				at.place = value
			}
		case "kept":
			keeper, dir, _ := strings.Cut(value, " ")
			if _, known := keeperNames[session.Keeper(keeper)]; at.dir == "" && known && pathForm(dir) {
				at.keeper, at.dir = session.Keeper(keeper), dir
			}
		case "hidden":
			at.hidden = true
		case "looked":
			return at, true
		}
	}
	return at, false
}

// resume takes up a shell that was opened before. That it is gone is said only where
// that is certain.
func (t *Terms) resume(ctx context.Context, spec Spec, f *facts) (*Shell, error) {
	if spec.Keeper == session.KeptByNone {
		return nil, gone(spec)
	}
	at, err := t.find(ctx, spec)
	if err != nil {
		return nil, err
	}
	keeper := cmp.Or(spec.Keeper, at.keeper)
	switch {
	case at.dir == "" && at.hidden:
		return nil, unreachable(spec, "the directories in which its files may be cannot be read now")
	case at.dir == "" || keeper == session.KeptByNone:
		return nil, gone(spec)
	}
	s, err := t.openKept(ctx, spec, f, keeper, at)
	if failed, ok := err.(keeperFailed); ok {
		return nil, unreachable(spec, string(failed))
	}
	return s, err
}

// unreachable tells that a shell, which may be there, cannot be taken up.
func unreachable(spec Spec, why string) *fault.Error {
	return fault.New(fault.Unavailable, fault.ReasonStartFailed, "the shell of the session on %s cannot be taken up now: %s", spec.Host.Name, why).
		WithHint("Look what has changed on the host: ssh %s@%s", spec.Host.User, spec.Host.Name)
}
