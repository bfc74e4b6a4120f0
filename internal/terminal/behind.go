package terminal

import (
	"bytes"
	"context"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
)

// What is typed behind a line that was sent is read by what runs, or by the shell when
// that has ended: then it is the next command. While the connection is lost, or the
// service is away, nobody sees which. So the end that a mark tells when it is back is that
// of the command from before only where nothing was typed behind it, or where the process
// group that has the terminal is the one that had it before anything was. Else the command
// ends without a code, and the next one is typed when the shell has gone through what may
// have been typed behind it: where that runs, its end would be taken for the next one's.
//
// For the next run of the service it is in the store whether a command has begun for sure
// and nothing was typed behind it, as the session's Sole, which is taken back before
// anything is typed. Then the code counts whether or not the host has told yet that it
// still runs.

// Times of what is typed behind what runs.
const (
	noteMost   = 500 * time.Millisecond // keys wait so long at most until the store has it that they come
	groupAfter = time.Second            // the host is asked for the group of what runs so long after it began
)

// followed reports whether the shell may have read something behind what runs.
func (t *turn) followed() bool { return t.noted || t.ahead.any || t.ahead.before || t.keyed != 0 }

// sole reports whether the next end that a mark tells is that of what runs now.
func (l *live) sole() bool {
	t := &l.turn
	runs := t.cur != nil && !t.cur.doubt || t.unsure
	return l.s.Completion == command.ByMark && runs && !t.unseen && !t.followed()
}

// typesBehind reports whether data is the first that is typed behind a line which was
// sent, where marks tell of ends and the shell outlives the service.
func (l *live) typesBehind(data []byte) bool {
	t := &l.turn
	if t.noted || !l.kept() || t.guessing() || l.s.Keeper == session.KeptByScreen {
		return false
	}
	if t.phase == reading && t.typing == nil {
		end := bytes.IndexAny(data, "\r\n")
		return end >= 0 && end < len(data)-1
	}
	return t.phase != starting
}

// noteBehind waits until the store has what save was called for; where it fails, what is
// typed is not held up for that.
func (l *live) noteBehind(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, noteMost)
	defer stop()
	l.scribe.settle(ctx)
}

// watchGroup has it looked which group the command has that begins, if it runs for long.
func (l *live) watchGroup() {
	if l.unset(groupAlarm); l.kept() && !l.turn.guessing() && !l.turn.followed() {
		l.after(groupAlarm, groupAfter)
	}
}

// lookGroup asks the host which process group runs. Nothing was typed behind the command
// when the answer comes, so that it can be of nothing else.
func (l *live) lookGroup() {
	t := &l.turn
	p := t.cur
	if p == nil || l.link == nil || t.unseen || t.followed() || t.top().pid == 0 {
		return
	}
	sh, pid := l.link.shell, t.top().pid
	l.aside(func(ctx context.Context) func() {
		ctx, stop := context.WithTimeout(ctx, asideMost)
		defer stop()
		fg, err := sh.Foreground(ctx, pid)
		return func() {
			if err == nil && !fg.Shell && fg.Group != pid && t.cur == p && !t.unseen && !t.followed() {
				t.group = fg.Group
			}
		}
	})
}
