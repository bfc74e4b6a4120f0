package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// mostPending is how many remarks are kept for later.
const mostPending = 10

// remark says something that is not of the session, and that nobody has asked for. mu
// is held, as for say and tell.
func (t *attachment) remark(format string, args ...any) {
	if !t.opts.Quiet {
		t.say(fmt.Sprintf(format, args...))
	}
}

// say says something that is not of the session. What has the whole screen is not
// disturbed: it is said when that is over, and now there is a bell.
func (t *attachment) say(text string) {
	if t.pending = append(t.pending, text); len(t.pending) > mostPending {
		t.pending = slices.Delete(t.pending, 0, 1)
	}
	if t.screen.alternate {
		_, _ = io.WriteString(t.env.Stdout, "\a")
	}
	t.tell()
}

// tell writes the remarks that are pending above the line of the cursor, which stays as
// it is: what is just being typed goes on behind itself. The sequences are LF, CUU,
// DECSC, IL, DECRC and CUD; the first two make sure that there is a line below. Only a
// line that is just full is not as it was: the next character stands on its last.
func (t *attachment) tell() {
	if t.screen.alternate || t.torn || t.screen.inside == inLong || t.over {
		return
	}
	columns, _, _ := terminalSize(t.env, "")
	for _, text := range t.pending {
		for _, line := range folded("[telexec] "+printable(text), columns) {
			_, _ = io.WriteString(t.env.Stdout, "\n\x1b[A\x1b7\x1b[0m\x1b(B\x0f\r\x1b[L"+line+"\x1b8\x1b[B")
		}
	}
	t.pending = nil
}

// away is called whenever the service is to be tried again.
func (t *attachment) away(err *client.Error, delay time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.session == nil:
		t.noteRetry(err, delay)
	case !t.gone:
		t.gone = true
		t.remark("%s", err.Message)
		t.remark("the service is waited for; Enter ~. leaves")
	}
}

// attached takes the beginning of a connection.
func (t *attachment) attached(at *telexecv1.Attached) {
	if t.gone {
		t.gone = false
		t.pending = append(t.pending, "connected again")
	}
	before := t.session
	t.session = at.GetSession()
	t.viewers = append(t.viewers, at.GetViewer())
	t.unsent, t.refusal, t.asked = false, "", 0
	observed := t.observes
	t.observes = at.GetRole() == telexecv1.ViewerRole_VIEWER_ROLE_OBSERVER
	if t.observes && !observed && !t.opts.Quiet {
		t.pending = append(t.pending, "you may not type here, and only look; Enter ~. leaves")
	}
	t.fits()
	if before == nil && !t.opts.Quiet {
		for _, v := range t.session.GetViewers() {
			if !t.mine(v.GetId()) {
				t.pending = append(t.pending, viewerText(v, t.session.GetKeyboard()))
			}
		}
	}
}

// fits tells when the session has more characters than the terminal; not while the
// keyboard is this terminal's, or is asked for: with it the session gets its size, if not
// at once.
func (t *attachment) fits() {
	if t.taking || t.asked == 'k' || t.mine(t.session.GetKeyboard()) {
		t.tight = ""
		return
	}
	columns, rows, err := terminalSize(t.env, "")
	s := t.session
	size := fmt.Sprintf("%dx%d", s.GetColumns(), s.GetRows())
	if err != nil || columns == 0 || int(s.GetColumns()) <= columns && int(s.GetRows()) <= rows {
		t.tight = ""
		return
	}
	if t.tight != size && !t.opts.Quiet {
		t.pending = append(t.pending, fmt.Sprintf("the session has %s characters, and the terminal here %dx%d", size, columns, rows))
	}
	t.tight = size
}

// changed tells what is new for who is at the terminal.
func (t *attachment) changed(s *telexecv1.Session) {
	before := t.session
	t.session = s
	had, has := before.GetKeyboard(), s.GetKeyboard()
	switch who := viewerOf(s, has); {
	case t.mine(has) && (t.asked == 'k' || !t.mine(had) && !t.typed): // who only types has it without being told
		t.remark("you have the keyboard")
		t.asked = 0
	case has == "" && t.asked == 'r':
		t.remark("nobody has the keyboard: who types gets it")
		t.asked = 0
	case t.mine(had) && !t.mine(has) && who != nil:
		t.remark("%s has the keyboard now; Enter ~k takes it", actor(who.GetActor()))
	}
	t.fits()
	if had != has {
		t.refusal = ""
		t.typed = t.typed && t.mine(has)
	}
	for _, v := range s.GetViewers() {
		if viewerOf(before, v.GetId()) == nil && !t.mine(v.GetId()) {
			t.remark("%s is here", viewerText(v, ""))
		}
	}
	for _, v := range before.GetViewers() {
		if viewerOf(s, v.GetId()) == nil && !t.mine(v.GetId()) {
			t.remark("%s has left", actor(v.GetActor()))
		}
	}
}

// refusedAgain is how long the same refusal is not told again: keys are refused one by
// one.
const refusedAgain = 10 * time.Second

// isRefused tells that something was not done.
func (t *attachment) isRefused(f *telexecv1.Failure) {
	t.typed, t.asked = false, 0
	t.fits()
	if t.refusal == f.GetReason() && t.out.now().Sub(t.refused) < refusedAgain {
		return
	}
	t.refusal, t.refused = f.GetReason(), t.out.now()
	text := f.GetMessage()
	if f.GetReason() == "KEYBOARD_TAKEN" {
		text += "; Enter ~k takes it"
	}
	t.remark("%s", text)
}

// mine reports whether a viewer is, or was, the terminal here.
func (t *attachment) mine(viewer string) bool { return slices.Contains(t.viewers, viewer) }

func viewerOf(s *telexecv1.Session, id string) *telexecv1.Viewer {
	i := slices.IndexFunc(s.GetViewers(), func(v *telexecv1.Viewer) bool { return v.GetId() == id })
	if i < 0 {
		return nil
	}
	return s.GetViewers()[i]
}
