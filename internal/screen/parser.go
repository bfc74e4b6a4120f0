package screen

import "unicode/utf8"

// The parser is a state machine over code points, as that of xterm.js is (which has it of
// https://vt100.net/emu/dec_ansi_parser, with UTF-8 before it). What it makes of broken
// sequences is part of what a viewer sees, so it is kept to in that too: what does not
// belong into a sequence ends it, C0 controls inside are executed, CAN and SUB abort.

type state uint8

const (
	ground state = iota
	escape
	escapeIntermediate
	csiEntry
	csiParam
	csiIntermediate
	csiIgnore
	ignoredString // SOS, PM and APC
	oscString
	dcsEntry
	dcsParam
	dcsIgnore
	dcsIntermediate
	dcsPassthrough
)

// payloadLimit is how long an OSC or DCS may be that means something; a longer one is
// passed over.
const payloadLimit = 64 << 10

// params are the parameters of a CSI sequence, at most 32 with at most 32 sub-parameters.
type params struct {
	value     [32]int32
	n         int
	sub       [32]int32
	nsub      int
	first     [32]uint8 // of each parameter: where its sub-parameters begin
	last      [32]uint8 // and end
	full      bool      // more were given
	subFull   bool
	digitsSub bool // digits belong to a sub-parameter
}

func (p *params) reset() {
	p.n, p.nsub, p.full, p.subFull, p.digitsSub = 0, 0, false, false, false
	p.add()
}

// add begins a parameter; one that is not given is 0.
func (p *params) add() {
	p.digitsSub = false
	if p.n == len(p.value) {
		p.full = true
		return
	}
	p.value[p.n], p.first[p.n], p.last[p.n] = 0, uint8(p.nsub), uint8(p.nsub)
	p.n++
}

// addSub begins a sub-parameter; one that is not given is -1.
func (p *params) addSub() {
	p.digitsSub = true
	if p.full || p.nsub == len(p.sub) {
		p.subFull = true
		return
	}
	p.sub[p.nsub] = -1
	p.nsub++
	p.last[p.n-1]++
}

func (p *params) digit(d int32) {
	if p.full || p.digitsSub && p.subFull {
		return
	}
	v := &p.value[p.n-1]
	if p.digitsSub {
		v = &p.sub[p.nsub-1]
	}
	const most = 1<<31 - 1
	switch {
	case *v < 0:
		*v = d
	case *v > (most-d)/10:
		*v = most
	default:
		*v = *v*10 + d
	}
}

func (p *params) subs(i int) []int32 { return p.sub[p.first[i]:p.last[i]] }

// get gives parameter i, or or where it is not given or 0.
func (p *params) get(i, or int) int {
	if i < p.n && p.value[i] != 0 {
		return int(p.value[i])
	}
	return or
}

// Write takes output of the terminal's programs. It takes all of it, and never fails.
func (s *Screen) Write(b []byte) (int, error) {
	n := len(b)
	if s.nheld > 0 {
		b = s.resume(b)
	}
	for len(b) > 0 {
		if s.state == ground && b[0] >= 0x20 && b[0] < 0x7f {
			run := 1
			for run < len(b) && b[run] >= 0x20 && b[run] < 0x7f {
				run++
			}
			s.printASCII(b[:run])
			b = b[run:]
			continue
		}
		if c := b[0]; c < 0x80 {
			switch {
			case s.state != ground:
				s.step(rune(c))
			case c == '\n':
				s.join = 0
				s.lineFeed()
			case c == '\r':
				s.join = 0
				s.buf.x = 0
			default:
				s.step(rune(c))
			}
			b = b[1:]
			continue
		}
		r, size, verdict := decode(b)
		if verdict == incomplete {
			s.nheld = copy(s.held[:], b)
			break
		}
		if verdict == valid {
			s.step(r)
		}
		b = b[size:]
	}
	return n, nil
}

// resume goes on with a character that the last Write had the beginning of, and gives what
// is left of b.
func (s *Screen) resume(b []byte) []byte {
	var buf [8]byte
	held := s.nheld
	have := held + copy(buf[held:], b)
	copy(buf[:], s.held[:held])
	at := 0
	for at < held { // what is broken gives back bytes that may begin another
		r, size, verdict := decode(buf[at:have])
		if verdict == incomplete {
			s.nheld = copy(s.held[:], buf[at:have])
			return nil // all of b is in it, or it would not be incomplete
		}
		if verdict == valid {
			s.step(r)
		}
		at += size
	}
	s.nheld = 0
	return b[at-held:]
}

type verdict uint8

const (
	valid verdict = iota
	invalid
	incomplete
)

// decode gives the first code point of b. What is not UTF-8 is passed over, as xterm.js
// does it: a sequence that is cut short up to the byte that does not belong to it, and
// surrogates, U+FEFF and what is longer than needed wholly.
func decode(b []byte) (r rune, size int, v verdict) {
	var more int
	switch c := b[0]; {
	case c < 0x80:
		return rune(c), 1, valid
	case c&0xe0 == 0xc0:
		r, more = rune(c&0x1f), 1
	case c&0xf0 == 0xe0:
		r, more = rune(c&0x0f), 2
	case c&0xf8 == 0xf0:
		r, more = rune(c&0x07), 3
	default:
		return 0, 1, invalid
	}
	for i := 1; i <= more; i++ {
		if i == len(b) {
			return 0, 0, incomplete
		}
		if b[i]&0xc0 != 0x80 {
			return 0, i, invalid
		}
		r = r<<6 | rune(b[i]&0x3f)
	}
	switch more {
	case 1:
		if r < 0x80 {
			return 0, 1, invalid
		}
	case 2:
		if r < 0x800 || r >= 0xd800 && r <= 0xdfff || r == 0xfeff {
			return 0, 3, invalid
		}
	case 3:
		if r < 0x10000 || r > 0x10ffff {
			return 0, 4, invalid
		}
	}
	return r, more + 1, valid
}

// clear begins a sequence.
func (s *Screen) clear() {
	s.params.reset()
	s.collect = 0
}

// collected adds a prefix or an intermediate. Sequences have at most two that mean
// something; more than three are kept as one that means nothing.
func (s *Screen) collected(r rune) {
	if s.collect >= 1<<16 {
		s.collect = 0x202020
		return
	}
	s.collect = s.collect<<8 | uint32(r)
}

// step takes one code point, in any state.
func (s *Screen) step(r rune) {
	switch {
	case r < 0x20:
		s.control(r)
		return
	case r == 0x7f:
		if s.state == oscString {
			s.payload(r)
		}
		return
	case r > 0x7f && r < 0xa0:
		s.control8(r)
		return
	}
	if r > 0x7f {
		switch s.state {
		case ground:
			s.print(r)
		case oscString, dcsPassthrough:
			s.payload(r)
		case csiIgnore, dcsIgnore:
		default:
			s.state = ground
		}
		return
	}
	switch s.state {
	case ground:
		s.printASCII([]byte{byte(r)})
	case escape:
		s.escape(r)
	case escapeIntermediate:
		if r < 0x30 {
			s.collected(r)
			return
		}
		s.state = ground
		s.dispatchEscape(r)
		s.join = 0
	case csiEntry, csiParam:
		switch {
		case r < 0x30:
			s.collected(r)
			s.state = csiIntermediate
		case r < 0x3c:
			s.param(r)
			s.state = csiParam
		case r < 0x40:
			if s.state == csiParam {
				s.state = csiIgnore
				return
			}
			s.collected(r)
			s.state = csiParam
		default:
			s.state = ground
			s.dispatchCSI(r)
			s.join = 0
		}
	case csiIntermediate:
		switch {
		case r < 0x30:
			s.collected(r)
		case r < 0x40:
			s.state = csiIgnore
		default:
			s.state = ground
			s.dispatchCSI(r)
			s.join = 0
		}
	case csiIgnore:
		if r >= 0x40 {
			s.state = ground
		}
	case oscString:
		s.payload(r)
	case dcsEntry, dcsParam, dcsIntermediate:
		switch {
		case r < 0x30:
			s.collected(r)
			s.state = dcsIntermediate
		case r < 0x3c && s.state != dcsIntermediate:
			s.state = dcsParam // no parameter of a DCS means anything
		case r < 0x40:
			if s.state != dcsEntry {
				s.state = dcsIgnore
				return
			}
			s.collected(r)
			s.state = dcsParam
		default:
			s.state = dcsPassthrough
			s.begin(int(s.collect<<8 | uint32(r)))
		}
	case dcsPassthrough:
		s.payload(r)
	}
}

// param takes a byte of the parameters.
func (s *Screen) param(r rune) {
	switch r {
	case ';':
		s.params.add()
	case ':':
		s.params.addSub()
	default:
		s.params.digit(r - '0')
	}
}

// escape takes what follows ESC.
func (s *Screen) escape(r rune) {
	switch {
	case r < 0x30:
		s.collected(r)
		s.state = escapeIntermediate
	case r == '[':
		s.clear()
		s.state = csiEntry
	case r == ']':
		s.begin(-1)
		s.state = oscString
	case r == 'P':
		s.clear()
		s.state = dcsEntry
	case r == 'X', r == '^', r == '_':
		s.state = ignoredString
	default:
		s.state = ground
		s.dispatchEscape(r)
		s.join = 0
	}
}

// control takes a C0 control.
func (s *Screen) control(r rune) {
	switch r {
	case 0x1b:
		switch s.state {
		case oscString, dcsPassthrough:
			s.end(true)
		}
		s.clear()
		s.state = escape
		return
	case 0x18, 0x1a: // CAN, SUB
		switch s.state {
		case oscString, dcsPassthrough:
			s.end(false)
		}
		s.join = 0
		s.state = ground
		return
	}
	switch s.state {
	case ground, escape, escapeIntermediate, csiEntry, csiParam, csiIntermediate, csiIgnore:
		s.execute(r)
	case oscString:
		if r == 0x07 {
			s.end(true)
			s.state = ground
		}
	case dcsPassthrough:
		s.payload(r)
	}
}

// control8 takes a C1 control, which comes as two bytes of UTF-8, and begins or ends things
// in any state.
func (s *Screen) control8(r rune) {
	switch r {
	case 0x9c: // ST
		switch s.state {
		case oscString, dcsPassthrough:
			s.end(true)
		}
		s.state = ground
	case 0x9d:
		s.begin(-1)
		s.state = oscString
	case 0x98, 0x9e, 0x9f:
		s.state = ignoredString
	case 0x9b:
		s.clear()
		s.state = csiEntry
	case 0x90:
		s.clear()
		s.state = dcsEntry
	default:
		s.execute(r)
		s.state = ground
	}
}

// begin begins an OSC, of which the number comes with its payload, or the DCS that ident
// says.
func (s *Screen) begin(ident int) {
	s.body, s.tooLong = s.body[:0], false
	s.number, s.numbered, s.refused = ident, ident >= 0, false
}

// payload takes a character of an OSC or DCS.
func (s *Screen) payload(r rune) {
	if s.state == oscString && !s.numbered {
		switch {
		case s.refused:
		case r == ';':
			s.numbered = true
		case r < '0' || r > '9':
			s.refused = true
		default:
			s.number = min(max(s.number, 0)*10+int(r-'0'), 1<<24)
		}
		return
	}
	if s.refused || s.tooLong || !s.meant() {
		return
	}
	if len(s.body) > payloadLimit {
		s.body, s.tooLong = s.body[:0], true
		return
	}
	s.body = utf8.AppendRune(s.body, r)
}

// meant reports whether the payload of the OSC or DCS that has begun is for us.
func (s *Screen) meant() bool {
	if s.state == dcsPassthrough {
		return s.number == requestStatus
	}
	switch s.number {
	case 0, 2, 4, 8, 10, 11, 12, 104, 110, 111, 112:
		return true
	}
	return false
}

// end ends an OSC or DCS. It counts unless it was aborted.
func (s *Screen) end(counts bool) {
	if counts && !s.refused && !s.tooLong {
		if s.state == dcsPassthrough {
			s.dispatchDCS(s.number, string(s.body))
		} else {
			s.dispatchOSC(s.number, string(s.body))
		}
	}
	if cap(s.body) > 4<<10 {
		s.body = nil
	}
	s.body = s.body[:0]
	s.clear()
	s.join = 0
}
