package engine

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// acquireIdle takes the session's slot where nothing runs or waits there.
func (e *Engine) acquireIdle(spec *command.Spec) (slot bool, err error) {
	key := queueOf(spec, "")
	slot, idle, err := e.queue.acquireIdle(key, 1)
	if err != nil {
		return false, err
	}
	if idle {
		if _, typing := e.sessions.Busy(spec.SessionID); !typing {
			return slot, nil
		}
		if slot {
			e.queue.release(key, 0)
		} else {
			e.queue.unreserve()
		}
	}
	return false, e.sessionBusy(spec)
}

// mustBeIdle is SESSION_BUSY where something runs or waits in the session.
func (e *Engine) mustBeIdle(spec *command.Spec) error {
	if spec.SessionID == "" {
		return nil
	}
	if _, typing := e.sessions.Busy(spec.SessionID); !typing && e.queue.idle(queueOf(spec, "")) {
		return nil
	}
	return e.sessionBusy(spec)
}

// lineShown is how many bytes of a command line SESSION_BUSY has.
const lineShown = 200

// sessionBusy says who runs what since when.
func (e *Engine) sessionBusy(spec *command.Spec) error {
	hint := "Run it with if_busy WAIT to have its turn come, or cancel what runs there: telexec cancel --session " + spec.Session
	l := e.currentIn(spec.SessionID, command.Queued)
	if l == nil { // it was typed just now, or has just ended
		return fault.New(fault.FailedPrecondition, fault.ReasonSessionBusy, "something runs in the session %s", spec.Session).
			WithHint("%s", hint).With("session", spec.Session)
	}
	s := l.snapshot()
	since := s.StartTime
	if since.IsZero() {
		since = s.CreateTime
	}
	line := shortened(strings.ToValidUTF8(s.CommandLine(), "\uFFFD"), lineShown)
	at := since.UTC().Format(time.RFC3339)
	return fault.New(fault.FailedPrecondition, fault.ReasonSessionBusy, "in the session %s %s runs %q since %s", spec.Session, s.CreatedBy.Principal, line, at).
		WithHint("%s", hint).With("session", spec.Session).
		With("command_id", s.ID).With("command", line).With("principal", s.CreatedBy.Principal).With("since", at)
}

// shortened gives at most n bytes of text, which is UTF-8, with an ellipsis where it was
// longer.
func shortened(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return cutAt(text, n-len("…")) + "…"
}

// cutAt gives at most n bytes of text, whole runes.
func cutAt(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
