package terminal

import (
	"fmt"
	"time"

	"github.com/telexec/telexec/internal/completion"
)

// How much is read, and how soon it is shown.
const (
	readSize    = 32 << 10             // bytes that are read from a shell at once
	intakeRate  = 16 << 20             // bytes that are read in a second …
	intakeBurst = 2 << 20              // … beyond so many at once
	intakeShare = 0.5                  // of the owner's time, which they take at most
	sliceMost   = 5 * time.Millisecond // what is read is worked on for so long, until others come to their turn
	pieceFirst  = 256                  // bytes that are worked on before that is looked at, of each chunk …
	pieceMost   = 4 << 10              // … more while they take little time …
	pieceLeast  = 64                   // … and fewer where they take much
	liftFor     = 2 * time.Second
	flushAfter  = 20 * time.Millisecond  // what may become a mark is shown after so long
	markAfter   = time.Second            // … where nothing of it is to be seen
	drainMost   = 300 * time.Millisecond // what was read before the shell ended is taken for so long
)

// take works on what was read. There is no rest of what was read before.
func (l *live) take(c chunk) {
	if c.err != nil {
		l.readEnd(c.err)
		return
	}
	l.link.rest, l.piece = c.data, pieceFirst
	l.takeRest()
}

// takeRest works on what was read for a moment, piece by piece: some output takes far
// longer than it is long, and callers and alarms do not wait for the end of it.
func (l *live) takeRest() {
	k, began, size := l.link, time.Now(), len(l.link.rest)
	for from := began; len(k.rest) > 0 && from.Sub(began) < sliceMost; {
		piece := k.rest[:min(l.piece, len(k.rest))]
		k.rest = k.rest[len(piece):]
		l.parser.Write(piece, l.segment)
		to := time.Now()
		switch took := to.Sub(from); {
		case took > sliceMost/2:
			l.piece = max(l.piece/8, pieceLeast)
		case took < sliceMost/32:
			l.piece = min(l.piece*2, pieceMost)
		}
		from = to
	}
	l.spend(size-len(k.rest), time.Since(began))
	wait := flushAfter
	if l.parser.Marking() {
		wait = markAfter
	}
	l.due[flushAlarm] = time.Now().Add(wait) // all this has taken its time
	l.settled()
}

// flush shows what may become a mark, when nothing more has come. What has come, and
// waits to be taken, may be the rest of it.
func (l *live) flush() {
	switch {
	case l.parser == nil:
		return
	case l.link != nil && l.stalled():
		l.after(flushAlarm, flushAfter)
		return
	case l.link != nil && len(l.link.rest) > 0:
		l.takeRest()
		return
	case l.link != nil:
		select {
		case c := <-l.link.intake:
			l.take(c)
			return
		default:
		}
	}
	l.parser.Flush(l.segment)
	l.settled()
}

// settled does what is to be done once after each piece of output.
func (l *live) settled() {
	if a := l.screen.Answers(); len(a) > 0 && l.link != nil && (l.link.answers || l.link.keys.answer(a)) {
		l.answered(a)
	}
	if title := plainText(l.screen.Title(), titleMost); title != l.s.Title {
		l.s.Title = title
		l.sooner(publishAlarm, publishAfter)
	}
}

// titleMost is how many bytes of a title are told.
const titleMost = 256

// segment takes a piece of the output, or a mark, in their order.
func (l *live) segment(s completion.Segment) {
	if s.Event != nil {
		l.mark(*s.Event)
		return
	}
	l.output(s.Data)
}

// append puts bytes at the end of the stream.
func (l *live) append(p []byte) {
	if len(p) == 0 {
		return
	}
	_, _ = l.screen.Write(p) // it never fails
	l.rec.output(p)
	l.mu.Lock()
	l.ring.write(p)
	l.active = l.now
	l.mu.Unlock()
	l.bell.Ring()
	l.sooner(outputAlarm, saveOutput)
}

// say puts a line of the service's own into the stream.
func (l *live) say(format string, args ...any) {
	l.append([]byte("\r\n\x1b[33m[telexec] " + fmt.Sprintf(format, args...) + "\x1b[0m\r\n"))
}

// offset is where the stream ends. The owner alone writes it, so it needs no lock.
func (l *live) offset() int64 { return l.ring.end }

// spend takes bytes from what may be read in a second: so many, or what could be read in
// the time that they took. Where nothing slows the intake, not more than a second is owed.
func (l *live) spend(n int, took time.Duration) {
	l.refill()
	l.tokens = max(l.tokens-max(float64(n), took.Seconds()*intakeRate/intakeShare), -intakeRate)
}

func (l *live) refill() {
	l.tokens = min(intakeBurst, l.tokens+l.now.Sub(l.refilled).Seconds()*intakeRate)
	l.refilled = l.now
}

// stalled reports whether nothing may be read now: a pump is too far behind, or enough
// was read for now.
func (l *live) stalled() bool {
	if l.lag() > pumpMost || len(l.turn.typed) > typedMost {
		return true // room, and who takes up what was typed, wake the owner
	}
	if l.tokens >= 0 || l.now.Before(l.lift) {
		return false
	}
	if l.refill(); l.tokens >= 0 {
		return false
	}
	l.sooner(intakeAlarm, time.Duration(-l.tokens/intakeRate*float64(time.Second))+time.Millisecond)
	return true
}

// drain takes what has been read before the shell ended, for a moment.
func (l *live) drain() {
	if l.link == nil {
		return
	}
	most := time.NewTimer(drainMost)
	defer most.Stop()
	for l.lag() <= pumpMost {
		intake, rest := l.link.ready()
		select {
		case c := <-intake:
			if c.err != nil {
				return
			}
			l.take(c)
		case <-rest:
			l.takeRest()
		case <-most.C:
			return
		}
	}
}
