package output

import (
	"strings"
	"unicode/utf8"
)

// Text turns the bytes of a stream, chunk after chunk, into valid UTF-8. A
// character that is split between two chunks comes out whole with the second:
// up to 3 bytes are held back until then. Each byte that is not part of a valid
// character becomes U+FFFD, so that nothing vanishes silently. The zero value
// is ready at the start of a stream.
//
// The text is the same however the stream was cut into chunks.
type Text struct {
	held [utf8.UTFMax - 1]byte // beginning of a character, not complete yet
	n    int
}

// Next gives the text of data and of what was held back before it.
func (t *Text) Next(data []byte) string {
	if t.n > 0 {
		if len(data) == 0 {
			return ""
		}
		data = append(t.held[:t.n:t.n], data...)
	}
	keep := partial(data)
	t.n = copy(t.held[:], data[len(data)-keep:])
	return valid(data[:len(data)-keep])
}

// End gives what is held back as text, for the end of the stream or a gap in
// it: one U+FFFD per byte.
func (t *Text) End() string {
	s := valid(t.held[:t.n])
	t.n = 0
	return s
}

// Held is how many bytes are held back, 0 to 3.
func (t *Text) Held() int { return t.n }

// partial is how many bytes at the end of b begin a character that may be
// completed by what follows.
func partial(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		tail := b[len(b)-n:]
		if utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

// valid gives b with U+FFFD for every byte that is not UTF-8.
func valid(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	s.Grow(len(b) + 2*utf8.UTFMax)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		s.WriteRune(r)
		b = b[size:]
	}
	return s.String()
}
