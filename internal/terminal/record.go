package terminal

import (
	"bytes"
	"context"
	"time"

	"github.com/telexec/telexec/internal/asciicast"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/session"
)

// Times and sizes of a recording.
const (
	recordAfter = 200 * time.Millisecond // what was recorded is stored so long after, …
	recordAt    = 64 << 10               // … or when it is so much
	markMost    = 1 << 10                // bytes of a line that are shown
)

// recorder makes the recording of a session, in the format of package asciicast, and
// gives it to the scribe. It is the owner's.
type recorder struct {
	live  *live // nil: nothing is recorded (any more)
	tape  asciicast.Writer
	mask  *output.RedactedStream
	buf   []byte
	size  int64 // of what was recorded
	until int64 // what is before this offset of the output was given to the scribe
}

// begin begins a recording, or goes on with one.
func (r *recorder) begin(l *live) {
	if !l.s.Recorded || l.s.Truncated != nil {
		return
	}
	r.live, r.mask, r.until, r.size = l, l.set.redaction.Stream(), l.offset(), l.taped
	if l.taped == 0 {
		r.buf = asciicast.AppendHeader(r.buf, asciicast.Header{
			Width: l.s.Size.Columns, Height: l.s.Size.Rows, Time: l.s.CreateTime, Title: l.name, Term: l.s.Spec.Term, Shell: l.s.Spec.Shell,
		})
		r.added()
	}
	if l.recovered {
		r.mark("the recording was interrupted: the service was restarted")
	}
}

// at is the time of an event from the beginning on.
func (r *recorder) at() time.Duration { return r.live.now.Sub(r.live.s.CreateTime) }

func (r *recorder) output(p []byte) {
	if r.live != nil {
		r.buf = r.tape.AppendOutput(r.buf, r.at(), r.mask.Write(p))
		r.added()
	}
}

func (r *recorder) resize(size session.Size) {
	if r.live != nil {
		r.buf = r.tape.AppendResize(r.buf, r.at(), size.Columns, size.Rows)
		r.added()
	}
}

// mark puts a marker into the recording: a command line, or what has happened to the
// recording. What is secret in it is masked.
func (r *recorder) mark(label string) {
	if r.live == nil || label == "" {
		return
	}
	mask := r.live.set.redaction.Stream()
	masked := append(bytes.Clone(mask.Write([]byte(label))), mask.Flush()...)
	r.buf = r.tape.AppendMarker(r.buf, r.at(), string(masked[:min(len(masked), markMost)]))
	r.added()
}

// added is called when something was added to buf.
func (r *recorder) added() {
	if len(r.buf) >= recordAt {
		r.flush()
	} else {
		r.live.sooner(recordAlarm, recordAfter)
	}
}

// flush gives the scribe what was recorded. At the limit the recording is cut.
func (r *recorder) flush() {
	l := r.live
	if l == nil || len(r.buf) == 0 {
		return
	}
	l.unset(recordAlarm)
	if most := l.set.limits.RecordingBytes; most > 0 && r.size+int64(len(r.buf)) > most {
		// Whole events that still fit, and why there are no more.
		fits := r.buf[:max(0, min(int64(len(r.buf)), most-r.size))]
		r.buf = r.tape.AppendMarker(r.buf[:bytes.LastIndexByte(fits, '\n')+1], r.at(), "the recording has reached its limit")
		l.scribe.record(r.buf, r.until)
		r.cut()
		return
	}
	if !l.scribe.record(r.buf, l.offset()) {
		r.cut()
		return
	}
	r.size += int64(len(r.buf))
	r.buf, r.until = r.buf[:0], l.offset()
}

// cut ends the recording before the output ends.
func (r *recorder) cut() {
	l := r.live
	at := r.until
	r.live, r.buf = nil, nil
	l.s.Truncated = &at
	l.set.log.Warn("a recording is cut", "session", l.id, "offset", at)
	l.publish()
}

// end records what was kept back.
func (r *recorder) end() {
	if r.live == nil {
		return
	}
	r.buf = r.tape.AppendOutput(r.buf, r.at(), r.mask.Flush())
	r.buf = r.tape.AppendRest(r.buf, r.at())
	r.flush()
}

// tapeMost is more than any recording has.
const tapeMost = 1 << 40

// recorded finds how many bytes of a recording the journal has.
func recorded(ctx context.Context, j Journal, id string) (int64, error) {
	has := func(at int64) (bool, error) {
		b, err := j.ReadRecording(ctx, id, at, 1)
		if fault.ReasonOf(err) == fault.ReasonNotRecorded {
			return false, nil
		}
		return len(b) > 0, err
	}
	low, high := int64(0), int64(1) // all bytes before low are there, none from high on
	for {
		there, err := has(high - 1)
		if err != nil {
			return 0, err
		}
		if !there {
			break
		}
		if low = high; low >= tapeMost {
			return 0, fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "the recording of session %s is longer than a recording can be", id)
		}
		high *= 2
	}
	for high--; low < high; {
		middle := low + (high-low)/2
		there, err := has(middle)
		switch {
		case err != nil:
			return 0, err
		case there:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, nil
}
