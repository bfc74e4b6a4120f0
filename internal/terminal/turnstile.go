package terminal

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/fault"
)

// The owner works for the shell first. Whoever wants to see the screen waits for his
// turn, and after each the others wait so many times as long as it took.
const (
	lookPause = 4
	lookLeast = 100 * time.Microsecond // what takes less needs no pause
)

// turnstile lets one at a time look at the screen, with a pause behind each. It is full
// while somebody looks or the pause lasts; capacity 1.
type turnstile chan struct{}

func newTurnstile() turnstile { return make(turnstile, 1) }

// look has the owner run f, which looks at so many lines of scrollback, when it is the
// caller's turn. Who wants many lines does not hold up those who want few.
func (l *live) look(ctx context.Context, scrollback int, f func()) error {
	turn := l.little
	if scrollback > scrollbackUsual {
		turn = l.much
	}
	select {
	case turn <- struct{}{}:
	case <-l.over:
		return l.overSoon()
	case <-ctx.Done():
		return fault.From(context.Cause(ctx))
	}
	var took time.Duration
	err := l.do(ctx, func() {
		began := time.Now()
		f()
		took = time.Since(began)
	})
	if took < lookLeast {
		<-turn
	} else {
		time.AfterFunc(lookPause*took, func() { <-turn })
	}
	return err
}
