package mcptool

import (
	"encoding/base64"
	"math"
	"unicode"
	"unicode/utf8"
)

// What a remote command prints is bytes for a terminal; what a language model
// reads is text, and little of it. This file stands between the two.
//
// Data is taken apart from left to right into pieces that are shown whole or
// not at all: a character, or a control sequence with all that belongs to it.
//
//	piece  o  k  \x1b[32m  ✓  \x1b]0;title\x07  \r  \n
//	text   o  k            ✓                        \n
//
// Where a piece ends, and what is shown for it, depends on the bytes that
// follow and never on those before. That is what makes paging exact: whoever
// begins again where a page ended sees what one large page would have shown.
//
// The scanner is our own because the decoders at hand are made for drawing,
// not for hostile bytes: ansi.DecodeSequence of charmbracelet/x takes the byte
// 0x9C in the middle of a UTF-8 character (the second of "✓") for the end of a
// title and does not know the C1 controls in their UTF-8 form, lets an
// unterminated string swallow everything after it, and returns grapheme
// clusters, which have no upper length and so cannot be held to a budget.

// format is how output is shown. The zero value and unknown formats show as
// formatText, the safest.
type format string

const (
	formatText     format = "text"     // UTF-8 without terminal control sequences
	formatTerminal format = "terminal" // UTF-8, control sequences kept
	formatBase64   format = "base64"   // the exact bytes
)

// maxSequence is how many bytes of a control sequence are waited for. Of a
// longer one only the introducer counts as control and the rest is text, so
// that one ESC ] does not hide all the output behind it.
const maxSequence = 4 << 10

// show turns the bytes of a stream into what is shown, at most budget bytes of
// text, which is always valid UTF-8. used tells how many bytes of data that
// covers: fewer than len(data) where the budget was used up, or where data ends
// within a character or a control sequence and more is to come (final is
// false). What is covered ends between two characters and outside of a
// sequence, so that the next page, show of data[used:], begins clean; only
// formatTerminal cuts a sequence, between two of its characters, and only one
// that alone is longer than the budget.
//
// With a budget of at least 16, used is greater than 0 for all data that is
// final and not empty or longer than 4 KiB + 16.
func (f format) show(data []byte, budget int, final bool) (text string, used int) {
	budget = max(budget, 0)
	if f == formatBase64 {
		used = min(len(data), budget/4*3)
		return base64.StdEncoding.EncodeToString(data[:used]), used
	}
	shown := make([]byte, 0, min(budget, len(data)))
	for used < len(data) {
		piece, n := f.next(data[used:], budget, final)
		if n == 0 || len(shown)+len(piece) > budget {
			break
		}
		shown = append(shown, piece...)
		used += n
	}
	return string(shown), used
}

// showEnd is show for the end of data: the text of data[first:], which fits the
// budget. It begins as early as the budget allows, or at the start of a line
// where one begins within the first quarter of that, and never within a
// character or a sequence, however long. data is taken as final: all of it up
// to its last byte is covered.
func (f format) showEnd(data []byte, budget int) (text string, first int) {
	budget = max(budget, 0)
	if f == formatBase64 {
		first = len(data) - min(len(data), budget/4*3)
		return base64.StdEncoding.EncodeToString(data[first:]), first
	}
	const whole = math.MaxInt // no sequence is cut

	// Pieces are found from the left alone, so the text is measured before it
	// is known where the part that fits begins.
	length := 0
	for i := 0; i < len(data); {
		piece, n := f.next(data[i:], whole, true)
		length += len(piece)
		i += n
	}
	lineStart := true
	for length > budget {
		piece, n := f.next(data[first:], whole, true)
		length -= len(piece)
		first += n
		lineStart = string(piece) == "\n"
	}
	if !lineStart {
		for i, left := first, length; left > length-length/4; {
			piece, n := f.next(data[i:], whole, true)
			left -= len(piece)
			i += n
			if string(piece) == "\n" {
				first = i
				break
			}
		}
	}
	text, _ = f.show(data[first:], budget, true)
	return text, first
}

// next finds the piece at the beginning of data, which is not empty: it is n
// bytes long and shown as text. A sequence that takes more than budget bytes is
// taken apart into characters. n is 0 where it takes bytes that are still to
// come to tell; never if final.
func (f format) next(data []byte, budget int, final bool) (text []byte, n int) {
	if c := data[0]; ' ' <= c && c <= '~' {
		return data[:1], 1
	}
	if n, ok := sequenceLength(data, final); !ok {
		return nil, 0
	} else if n > 0 {
		if f != formatTerminal {
			return nil, n
		}
		text = data[:n]
		if !utf8.Valid(text) {
			text = []byte(string([]rune(string(text)))) // U+FFFD for each bad byte
		}
		if len(text) <= budget {
			return text, n
		}
		// Longer than any page: shown character by character.
	}
	r, n := utf8.DecodeRune(data)
	switch {
	case r == utf8.RuneError && n == 1:
		if !final && !utf8.FullRune(data) {
			return nil, 0
		}
		return []byte("\uFFFD"), 1
	case f == formatTerminal:
		return data[:n], n
	case r == '\r':
		// A line that a progress bar overwrites stays as a line of its own. Of
		// a run of returns, or returns before a newline, the last one counts.
		switch {
		case len(data) == 1 && !final:
			return nil, 0
		case len(data) > 1 && (data[1] == '\r' || data[1] == '\n'):
			return nil, 1
		}
		return []byte("\n"), 1
	case r == 0x2028, r == 0x2029: // ends of lines and paragraphs
		return []byte("\n"), n
	case hidden(r):
		return nil, n
	}
	return data[:n], n
}

// hidden reports whether r is a control, or one of the characters that a person
// does not see, or sees elsewhere, while a model reads them: the format characters of
// Unicode (tags, bidirectional controls, spaces without width), fillers, and those
// selectors of variants that bytes can be smuggled in. What belongs to the spelling
// of words and emoji is not hidden: the two joiners, U+FE0E and U+FE0F, and the
// number signs of Arabic and its kin, which are seen.
func hidden(r rune) bool {
	switch {
	case r == '\n', r == '\t', r == 0x200C, r == 0x200D:
		return false
	case r < ' ', 0x7F <= r && r <= 0x9F,
		r == 0x115F, r == 0x1160, r == 0x3164, r == 0xFFA0,
		0x180B <= r && r <= 0x180F, 0xFE00 <= r && r <= 0xFE0D,
		0xE0000 <= r && r <= 0xE0FFF:
		return true
	}
	return unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Prepended_Concatenation_Mark, r)
}

// sequenceLength returns the length of the control sequence (ECMA-48, ISO 2022) at
// the beginning of data, 0 if there is none. ok is false where it takes bytes
// that are still to come to tell. Like in a terminal, a sequence is over where
// a byte comes that cannot be part of it; that byte is not swallowed.
func sequenceLength(data []byte, final bool) (n int, ok bool) {
	var second byte
	switch {
	case data[0] == 0x1B && len(data) == 1:
		return 1, final
	case data[0] == 0x1B:
		second = data[1]
	case c1(data) != 0:
		// The C1 controls are ESC and a byte from @ to _ in one character,
		// which in UTF-8 is two bytes long as well.
		second = c1(data) - 0x40
	default:
		return 0, true
	}
	switch {
	case second == '[':
		return csiLength(data, 2, '@', final)
	case second == ']' || second == 'P' || second == 'X' || second == '^' || second == '_':
		return stringLength(data, second == ']', final)
	case ' ' <= second && second <= '/':
		return csiLength(data, 1, '0', final)
	case '0' <= second && second <= '~':
		return 2, true
	}
	return 1, true
}

// c1 returns the C1 control (0x80 to 0x9F) that data begins with in UTF-8, or
// 0. Such a byte by itself is no control but not UTF-8.
func c1(data []byte) byte {
	if len(data) > 1 && data[0] == 0xC2 && 0x80 <= data[1] && data[1] <= 0x9F {
		return data[1]
	}
	return 0
}

// csiLength returns the length of a CSI sequence, or of an escape sequence with
// intermediate bytes: after an introducer of the given length it consists of
// bytes from ' ' up to last, and ends with one from last to '~'.
func csiLength(data []byte, introducer int, last byte, final bool) (n int, ok bool) {
	for n = introducer; n < len(data) && n < maxSequence; n++ {
		switch c := data[n]; {
		case last <= c && c <= '~':
			return n + 1, true
		case c < ' ' || c > '~':
			return n, true
		}
	}
	if n == maxSequence {
		return introducer, true
	}
	return n, final
}

// stringLength returns the length of the control string (OSC, DCS, SOS, PM or
// APC) that data begins with, its terminator included: ST, or BEL if it is an
// OSC. Any other sequence, CAN and SUB cancel it. That also keeps the search
// linear: no introducer is within the bytes that are looked at in vain. Where
// the end is missing, in all of the data or in the first maxSequence bytes,
// the introducer alone counts.
func stringLength(data []byte, osc, final bool) (n int, ok bool) {
	const introducer = 2
	for n = introducer; n < len(data) && n < maxSequence; n++ {
		rest := data[n:]
		switch rest[0] {
		case 0x07:
			if osc {
				return n + 1, true
			}
		case 0x18, 0x1A:
			return n + 1, true
		case 0x1B:
			switch {
			case len(rest) == 1:
				return n, final
			case rest[1] == '\\':
				return n + 2, true
			}
			return n, true
		case 0xC2:
			switch c := c1(rest); {
			case len(rest) == 1 && !final:
				return 0, false
			case c == 0x9C:
				return n + 2, true
			case c != 0:
				return n, true
			}
		}
	}
	return introducer, final || n == maxSequence
}
