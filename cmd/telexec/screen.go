package main

import (
	"bytes"
	"strings"
)

// screenFilter takes out of a session's output what programs ask their terminal (where
// is the cursor, what are you): the service answers, for there may be several
// terminals, and what the one here answered would be typed. All else goes through as it
// is. It also knows whether a program has the alternate screen.
//
// The sequences are those of ECMA-48 and xterm's ctlseqs, and of kitty: CSI … c, n, x and t, with
// prefixes and intermediates also q, m, p, u, w, y, S, R and |; ESC Z; OSC with "?" for a value; DCS
// with "$q" or "+q"; APC G with "a=q"; ENQ.
type screenFilter struct {
	alternate bool

	held   []byte // the beginning of a sequence
	inside kind
	esc    bool // within a string: the last byte was ESC
}

// kind is what held is the beginning of.
type kind int

const (
	inText    kind = iota
	inEscape       // ESC
	inControl      // CSI
	inOSC          // ESC ]
	inDCS          // ESC P
	inLong         // a string too long to be a question
)

// mostHeld is longer than any question.
const mostHeld = 512

const (
	enq = 0x05
	bel = 0x07
	can = 0x18
	sub = 0x1a
	esc = 0x1b
)

// write gives what of p is to be shown.
func (f *screenFilter) write(p []byte) []byte {
	if f.inside == inText && bytes.IndexByte(p, esc) < 0 && bytes.IndexByte(p, enq) < 0 {
		return p
	}
	out := make([]byte, 0, len(p)+len(f.held))
	for _, c := range p {
		out = f.step(out, c)
	}
	return out
}

func (f *screenFilter) step(out []byte, c byte) []byte {
	if f.inside == inText {
		switch c {
		case esc:
			f.inside, f.held = inEscape, append(f.held[:0], c)
			return out
		case enq:
			return out
		}
		return append(out, c)
	}
	if c == can || c == sub { // which end any sequence
		return f.through(append(out, append(f.held, c)...))
	}
	switch f.inside {
	case inEscape:
		f.held = append(f.held, c)
		switch c {
		case '[':
			f.inside = inControl
		case ']':
			f.inside = inOSC
		case 'P', 'X', '^', '_':
			f.inside = inDCS
		case esc:
			out = append(out, esc)
			f.held = f.held[:1]
		case 'Z': // DECID, what are you
			return f.through(out)
		default:
			return f.through(append(out, f.held...))
		}
	case inControl:
		switch {
		case c == esc:
			out = append(out, f.held...)
			f.inside, f.held = inEscape, append(f.held[:0], c)
		case c >= 0x40 && c <= 0x7e:
			f.held = append(f.held, c)
			if !f.asks() {
				out = append(out, f.held...)
			}
			return f.through(out)
		default:
			f.held = append(f.held, c)
			if len(f.held) > mostHeld {
				return f.through(append(out, f.held...))
			}
		}
	case inOSC, inDCS, inLong:
		ends := c == bel && f.inside != inDCS || f.esc && c == '\\'
		f.esc = c == esc
		f.held = append(f.held, c)
		switch {
		case ends:
			if f.inside == inLong || !f.asks() {
				out = append(out, f.held...)
			}
			f.esc = false
			return f.through(out)
		case len(f.held) > mostHeld:
			out = append(out, f.held...)
			f.inside, f.held = inLong, f.held[:0]
		}
	}
	return out
}

// through begins anew behind a sequence.
func (f *screenFilter) through(out []byte) []byte {
	f.inside, f.held = inText, f.held[:0]
	return out
}

// asks reports whether what is held is a question, and notes the alternate screen.
func (f *screenFilter) asks() bool {
	body := f.held[2:]
	switch f.inside {
	case inControl:
		final := body[len(body)-1]
		prefix, params, between := parts(body[:len(body)-1])
		switch string(final) + prefix + between {
		case "c", "c>", "c=", "n", "n?", "x", "p$", "p?$", "q>", "u?", "u&", "w$", "y*", "S?", "m?", "R#", "|#", "|'", "v\"":
			return true
		case "t":
			first, _, _ := strings.Cut(params, ";")
			switch first {
			case "11", "13", "14", "15", "16", "18", "19", "20", "21":
				return true
			}
		}
		switch final {
		case 'h', 'l':
			if prefix != "?" {
				break
			}
			for mode := range strings.SplitSeq(params, ";") {
				switch mode {
				case "47", "1047", "1049":
					f.alternate = final == 'h'
				}
			}
		}
	case inOSC:
		body = bytes.TrimSuffix(bytes.TrimSuffix(body, []byte{bel}), []byte{esc, '\\'})
		for part := range bytes.SplitSeq(body, []byte(";")) {
			if string(part) == "?" || bytes.HasPrefix(body, []byte("21;")) && bytes.HasSuffix(part, []byte("=?")) {
				return true
			}
		}
	case inDCS:
		switch f.held[1] {
		case 'P':
			return bytes.HasPrefix(body, []byte("$q")) || bytes.HasPrefix(body, []byte("+q"))
		case '_':
			return bytes.HasPrefix(body, []byte("G")) && bytes.Contains(body, []byte("a=q"))
		}
	}
	return false
}

// parts gives what stands between CSI and its final byte: a prefix of < = > ?, the
// parameters, and the intermediate bytes, which are from blank to slash.
func parts(body []byte) (prefix, params, between string) {
	s := string(body)
	if s != "" && strings.IndexByte("<=>?", s[0]) >= 0 {
		prefix, s = s[:1], s[1:]
	}
	params = strings.TrimRightFunc(s, func(r rune) bool { return r >= ' ' && r <= '/' })
	return prefix, params, s[len(params):]
}
