package terminal

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// Times of a connection that is lost.
const (
	redialLeast = 200 * time.Millisecond // until the shell is looked for again, doubling …
	redialMost  = 10 * time.Second       // … up to this
	lateMark    = time.Second            // what a mark may be behind the host's word
)

// loss is a connection that is lost. It is the owner's.
type loss struct {
	since   time.Time // zero: it is there
	backoff time.Duration
	ends    int  // how often its end has failed
	asked   bool // the shell has the terminal again, as the host has said once
}

func (s loss) lost() bool { return !s.since.IsZero() }

// noLink is the refusal of what needs the host.
func (l *live) noLink() error {
	return fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the service is not connected to the terminal of session %s for now", l.name).
		WithHint("Try again when the session's connection is CONNECTED").WithRetry(time.Second).With("session", l.id)
}

// lostLink goes on without a connection where something keeps the shell.
func (l *live) lostLink(err error) {
	why, sh := fault.From(err), l.link.shell
	l.hangUp()
	l.set.log.Warn("the connection to a session is lost", "session", l.id, "host", l.host.Name, "kept", l.kept(), "error", err)
	t := &l.turn
	if p := t.typing; p != nil {
		t.typing = nil
		l.run(p, l.begunAt())
		p.doubt = true // it may not have got there
	}
	if t.cur != nil {
		l.missOutput(t.cur)
	}
	l.say("the connection to %s was lost: %s", l.host.Name, plainText(why.Message, 200))
	if !l.kept() {
		l.remains = sh
		if l.closing != nil {
			l.report = unproven(err)
			l.finish(l.closing, nil)
			return
		}
		l.finish(&command.Failure{
			Reason: fault.ReasonConnectionLost, Message: fmt.Sprintf("the connection to %s was lost, and nothing keeps the shell: %s", l.host.Name, why.Message),
			Hint: "Open the session again; tmux, screen or dtach on the host would have kept it",
		}, nil)
		return
	}
	if p := t.cur; p != nil && p.run.Link != nil {
		p.run.Link(why)
	}
	l.notIntegrated()
	t.unsure, t.unseen = true, t.unseen || t.followed()
	l.unset(quietAlarm)
	l.unset(silenceAlarm)
	l.unset(openAlarm)
	l.loss.since, l.loss.backoff = l.now, 0
	l.s.Connection = command.Reconnecting
	l.publish()
	l.save()
	if l.loss.ends > 1 { // it is found, and cannot be ended: not again and again at once
		l.after(redialAlarm, min(redialLeast<<min(l.loss.ends, 10), redialMost))
		return
	}
	l.dial(true)
}

// notBack takes that the shell could not be taken up again.
func (l *live) notBack(err error) {
	why := fault.From(err)
	switch why.Reason {
	case fault.ReasonSessionGone, fault.ReasonHostRebooted:
		end := failure(err)
		if l.closing != nil {
			end = l.closing
		}
		l.finish(end, nil)
		return
	}
	if away := l.now.Sub(l.loss.since); away >= l.set.limits.ReconnectTimeout {
		l.finish(&command.Failure{
			Reason: fault.ReasonConnectionLost, Message: fmt.Sprintf("%s could not be reached for %s: %s", l.host.Name, away.Round(time.Second), why.Message),
			Hint: "The shell may be there still; look on the host. Open the session again",
		}, nil)
		return
	}
	l.loss.backoff = min(max(2*l.loss.backoff, redialLeast), redialMost)
	l.after(redialAlarm, l.loss.backoff)
}

// front is what the host says of who has the terminal of a shell; nil where it was not
// asked.
type front struct {
	pid int
	fg  Foreground
	err error
}

// frontMost is how long a shell that was found again waits for that before it is told to be
// connected: what is typed then is typed at what is known.
const frontMost = 2 * time.Second

// askFront asks who has the terminal of a shell that was just found.
func askFront(ctx context.Context, sh Shell, pid int) *front {
	if pid = cmp.Or(pid, sh.Facts().PID); pid == 0 {
		return nil // prompts tell
	}
	ctx, stop := context.WithTimeout(ctx, frontMost)
	defer stop()
	fg, err := sh.Foreground(ctx, pid)
	if err != nil && ctx.Err() != nil {
		return nil // it is asked again
	}
	return &front{pid, fg, err}
}

// back goes on with a shell that was found again.
func (l *live) back(facts Facts, f *front) {
	l.loss = loss{ends: l.loss.ends}
	// What was on the screen is drawn anew; what was in between is lost.
	l.append([]byte("\x1bc"))
	l.append(lastLines(facts.Redraw, redrawMost))
	l.screen.Answers() // what it asks was answered before
	l.rec.mark("the recording was interrupted: the connection was lost")
	t := &l.turn
	if p := t.cur; p != nil && p.run.Link != nil {
		p.run.Link(nil)
	}
	t.phase = running
	if t.cur == nil {
		t.unsure = true
	}
	if t.guessing() {
		t.printed = true
		l.watchQuiet()
	}
	if f != nil && f.pid == t.top().pid {
		l.tookFront(f.fg, f.err)
	} else {
		l.askBack()
	}
	l.save()
}

// redrawMost is how much of what draws a screen anew is taken: more would push out of the
// ring what pumps have not read yet.
const redrawMost = ringMost - pumpMost - 4*pumpRead

// lastLines gives the end of data, of at most so many bytes, from the beginning of a line on.
func lastLines(data []byte, most int) []byte {
	if len(data) <= most {
		return data
	}
	data = data[len(data)-most:]
	return data[bytes.IndexByte(data, '\n')+1:]
}

// builtin reports whether a shell that has the terminal itself runs one of its own
// commands, such as read: one that edits lines does not do so then.
func (l *live) builtin(fg Foreground) bool {
	kind := l.turn.top().kind
	return fg.Lines && (slices.Contains(starters, kind) || slices.Contains(editors, kind)) && !l.prompts.Is(l.screen.LineToCursor())
}

// askBack asks who has the terminal of a shell that was found again: where it is the
// shell, what ran has ended.
func (l *live) askBack() {
	sh, pid := l.link.shell, l.turn.top().pid
	if pid == 0 {
		return // prompts tell
	}
	l.aside(func(ctx context.Context) func() {
		ctx, stop := context.WithTimeout(ctx, asideMost)
		defer stop()
		fg, err := sh.Foreground(ctx, pid)
		return func() {
			if t := &l.turn; l.link != nil && l.link.shell == sh && t.unsure && t.phase == running {
				l.tookFront(fg, err)
			} // else it was lost again, or a mark has told
		}
	})
}

// tookFront takes who has the terminal of a shell that was found again.
func (l *live) tookFront(fg Foreground, err error) {
	t, pid := &l.turn, l.turn.top().pid
	switch reason := fault.ReasonOf(err); {
	case len(t.levels) > 1 && (reason == fault.ReasonNotRunning || reason == fault.ReasonSessionGone):
		// A shell that was started in another one has ended meanwhile.
		t.levels = t.levels[:len(t.levels)-1]
		l.publish()
		l.askBack()
	case err != nil:
		l.set.log.Warn("a host did not say who has a terminal", "session", l.id, "host", l.host.Name, "error", err)
		l.after(redialAlarm, redialMost)
	case fg.Shell && !l.builtin(fg) && !l.loss.asked:
		// The mark of its end may be on its way.
		l.loss.asked = true
		l.after(redialAlarm, lateMark)
	case fg.Shell && !l.builtin(fg):
		if t.cur != nil {
			l.endCommand(t.cur, nil, command.ByPrompt)
		}
		if l.marked != "" && l.marked == t.top().kind && !t.guessing() {
			l.complete(command.ByMark)
		}
		l.read()
	default:
		t.unsure = false
		if t.group != 0 && t.group == fg.Group {
			t.unseen = false // it has run all the time
		}
		if t.cur == nil {
			p := newProcess(l, Run{})
			p.missed = true
			p.doubt = true
			t.cur = p
			p.begin(l.now, l.offset())
			l.missOutput(p)
			l.publish()
		}
		// What is in the group of the shell may be part of its prompt.
		if fg.Shell || fg.Group != pid {
			t.cur.doubt = false
		}
		l.watchQuiet() // it may be a shell that waits
	}
}
