package output

import (
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// What a Redaction takes. Values of 8 KiB in all always fit, and usually of
// three times that: what counts is the size of what finds them, which with all
// their encodings is at most 4 MiB.
const (
	LeastRedacted = leastForm // bytes of a value: shorter ones would be found everywhere
	MostRedacted  = 8 << 10   // bytes of a value
	MaxRedactions = 64        // values

	mostInAll = 32 << 10 // bytes of all values: more never fits, and is not tried
)

// Redaction knows the values that must not show in a command's output. It never
// changes, so any number of streams may use it at once. A nil Redaction, and one
// without values, masks nothing.
//
// A value is found as it is, with CR LF for its line ends, in base64 (both
// alphabets, wherever in the encoded text it stands: the digits that depend on
// the value alone) and percent-encoded (with upper or lower hexadecimal digits:
// as url.QueryEscape does it, the same with %20 for a space, as url.PathEscape
// and as JavaScript's encodeURIComponent, and with every byte escaped). What is
// encoded in another way, or broken over several lines, is not found.
type Redaction struct {
	find *automaton // nil for no values
}

// NewRedaction makes the redaction of these values. It fails with fault.Invalid:
// SECRET_TOO_SHORT for a value below LeastRedacted bytes, SECRETS_TOO_LARGE for
// one above MostRedacted, for more than MaxRedactions, and for values that are
// too large together.
func NewRedaction(values ...secret.Text) (*Redaction, error) {
	if len(values) == 0 {
		return &Redaction{}, nil
	}
	if len(values) > MaxRedactions {
		return nil, tooLarge("%d values are to be redacted, and at most %d can be", len(values), MaxRedactions)
	}
	sum := 0
	for i, v := range values {
		n := len(v.Reveal())
		if n < LeastRedacted {
			return nil, fault.New(fault.Invalid, fault.ReasonSecretTooShort, "value %d to be redacted has %d bytes, and %d is the least", i+1, n, LeastRedacted).
				WithHint("So short a value would be found in ordinary text; take a longer secret, or do not have it redacted")
		}
		if n > MostRedacted {
			return nil, tooLarge("value %d to be redacted has %d bytes, and %d is the most", i+1, n, MostRedacted)
		}
		sum += n
	}
	var find *automaton
	if sum <= mostInAll {
		var all []string
		for _, v := range values {
			all = append(all, forms(v.Reveal())...)
		}
		slices.Sort(all)
		find = newAutomaton(slices.Compact(all))
	}
	if find == nil {
		return nil, tooLarge("the values to be redacted have %d bytes in all, too many to look for in all their encodings", sum)
	}
	return &Redaction{find: find}, nil
}

func tooLarge(format string, args ...any) error {
	return fault.New(fault.Invalid, fault.ReasonSecretsTooLarge, format, args...).
		WithHint("Have at most %d values redacted, of %d bytes each and %d in all; of a large one, a part that nothing else contains is enough", MaxRedactions, MostRedacted, MostRedacted)
}

// Format shows nothing of the values.
func (*Redaction) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redaction]") }

// Stream begins the redaction of one stream of output, at its start or where an
// earlier one has stopped.
func (r *Redaction) Stream() *RedactedStream {
	if r == nil {
		return &RedactedStream{}
	}
	return &RedactedStream{find: r.find}
}

// RedactedStream masks the values in one stream of output, chunk after chunk:
// each of their bytes becomes a '*', so every other byte keeps its offset and
// the length stays true. Values that overlap are masked whole. It has one user
// at a time.
//
// It holds back only what cannot be decided yet: the end of what it was given,
// as far as it may be the beginning of a value, and a value which that overlaps;
// never as much as twice the longest encoding of a value. So a stream can be
// left anywhere and begun anew: what Write has given out ends where no value is
// cut in two, so a new RedactedStream that is given the raw stream from that
// offset on (the size of what is stored) masks the rest just as this one would
// have.
type RedactedStream struct {
	find  *automaton // nil masks nothing
	state uint32     // of find, after all that was given

	buf   []byte // what is held back is buf[start:], not masked; before it lies what was given out last
	start int
	found []span // in buf: what of it must be masked. Both ends ascend.
}

// span is a run of bytes to mask.
type span struct{ from, to int }

// scanBlock is after how many bytes what has been found is masked, so that a
// long chunk full of values does not need a long list of them.
const scanBlock = 8 << 10

// Write takes the next bytes of the stream and gives what may go out now: some
// of what was held back before, and of data. It does not change data. What it
// gives is valid until the next call, and may be a part of data itself.
func (s *RedactedStream) Write(data []byte) []byte {
	if s.find == nil {
		return data
	}
	if held := s.buf[s.start:]; len(held) <= s.start {
		s.buf = append(s.buf[:0], held...)
		s.moveFound(s.start)
		s.start = 0
	}
	text, scanned, cut := data, 0, s.start
	own := len(s.buf) > 0 // text is buf, not the caller's
	if own {
		scanned = len(s.buf)
		s.buf = append(s.buf, data...)
		text = s.buf
	}
	for scanned < len(text) {
		end := min(scanned+scanBlock, len(text))
		s.scan(text[scanned:end], scanned)
		scanned = end
		cut = max(cut, s.whole(end))
		if len(s.found) > 0 && s.found[0].from < cut {
			if !own {
				s.buf = append(s.buf[:0], data...)
				text, own = s.buf, true
			}
			s.mask(cut)
		}
	}
	if !own {
		s.buf = append(s.buf[:0], data[cut:]...)
		s.moveFound(cut)
		return data[:cut:cut]
	}
	out := s.buf[s.start:cut:cut]
	s.start = cut
	return out
}

// Flush gives what is held back, at the end of the stream; no value will be
// completed any more. The next Write begins another stream. What it gives is
// valid until then.
func (s *RedactedStream) Flush() []byte {
	s.mask(len(s.buf))
	out := s.buf[s.start:]
	s.start, s.state = len(s.buf), 0
	return out
}

// Format shows nothing of the bytes that are held back.
func (*RedactedStream) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted stream]") }

// scan looks through text, which follows what was scanned before and lies at
// this place in buf.
func (s *RedactedStream) scan(text []byte, at int) {
	find, state := s.find, s.state
	for i := 0; i < len(text); {
		if state == 0 {
			i = find.skip(text, i)
		}
		state = find.next(state, text[i])
		i++
		if n := int(find.longest[state]); n > 0 {
			s.add(span{at + i - n, at + i})
		}
	}
	s.state = state
}

// add notes a span that ends behind all before it, and forgets those within it.
func (s *RedactedStream) add(next span) {
	n := len(s.found)
	for n > 0 && s.found[n-1].from >= next.from {
		n--
	}
	s.found = append(s.found[:n], next)
}

// whole gives up to where the text that ends here is decided, such that someone
// who sees only what follows comes to the same result about it. Whatever is
// still to be completed begins at open or later. A span that begins before open
// and ends behind it must not be cut, so it begins what is held: those before
// it end before it does, so where they reach into it, it covers what is theirs.
func (s *RedactedStream) whole(end int) int {
	open := end - s.find.depth(s.state)
	n := sort.Search(len(s.found), func(i int) bool { return s.found[i].from >= open })
	if n > 0 && s.found[n-1].to > open {
		return s.found[n-1].from
	}
	return open
}

// mask masks in buf what has been found before cut and forgets it. What reaches
// behind cut is covered there by a span that begins at cut.
func (s *RedactedStream) mask(cut int) {
	n, done := 0, 0
	for ; n < len(s.found) && s.found[n].from < cut; n++ {
		to := min(s.found[n].to, cut)
		for i := max(s.found[n].from, done); i < to; i++ {
			s.buf[i] = '*'
		}
		done = to
	}
	s.found = slices.Delete(s.found, 0, n)
}

// moveFound moves all spans towards the beginning of buf.
func (s *RedactedStream) moveFound(by int) {
	for i := range s.found {
		s.found[i].from -= by
		s.found[i].to -= by
	}
}
