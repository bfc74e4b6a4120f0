package screen

// charset maps what a program writes, printable ASCII, to what is shown. nil is ASCII itself.
// Those of xterm.js (The xterm.js authors, MIT) are known: the line drawing of DEC and the
// national sets.
type charset struct {
	final byte // of ESC ( final, which selects it
	chars [0x80]rune
}

// show gives the character that is shown for r.
func (c *charset) show(r rune) rune {
	if c != nil && r < 0x7f && c.chars[r] != 0 {
		return c.chars[r]
	}
	return r
}

// wrote gives a character that is shown as r; ok is false where none is.
func (c *charset) wrote(r rune) (_ rune, ok bool) {
	if c.show(r) == r {
		return r, true
	}
	for in, out := range c.chars {
		if out == r {
			return rune(in), true
		}
	}
	return 0, false
}

// newCharset makes the set that final selects: pairs has what is written and what is shown
// for it, in turn.
func newCharset(final byte, pairs string) *charset {
	c := &charset{final: final}
	var in rune
	for i, r := range []rune(pairs) {
		if i%2 == 0 {
			in = r
		} else {
			c.chars[in] = r
		}
	}
	return c
}

// charsets has them by their final bytes. ASCII, which is B, is nil.
var charsets = map[byte]*charset{
	'B': nil,
	'0': newCharset('0', "`◆a▒b␉c␌d␍e␊f°g±h␤i␋j┘k┐l┌m└n┼o⎺p⎻q─r⎼s⎽t├u┤v┴w┬x│y≤z≥{π|≠}£~·"),
	'A': newCharset('A', `#£`),
	'4': newCharset('4', `#£@¾[i\½]|{¨|f}¼~´`),
	'C': newCharset('C', "[Ä\\Ö]Å^Ü`é{ä|ö}å~ü"),
	'5': newCharset('5', "[Ä\\Ö]Å^Ü`é{ä|ö}å~ü"),
	'R': newCharset('R', `#£@à[°\ç]§{é|ù}è~¨`),
	'Q': newCharset('Q', "@à[â\\ç]ê^î`ô{é|ù}è~û"),
	'K': newCharset('K', `@§[Ä\Ö]Ü{ä|ö}ü~ß`),
	'Y': newCharset('Y', "#£@§[°\\ç]é`ù{à|ò}è~ì"),
	'E': newCharset('E', "@Ä[Æ\\Ø]Å^Ü`ä{æ|ø}å~ü"),
	'6': newCharset('6', "@Ä[Æ\\Ø]Å^Ü`ä{æ|ø}å~ü"),
	'Z': newCharset('Z', `#£@§[¡\Ñ]¿{°|ñ}ç`),
	'H': newCharset('H', "@É[Ä\\Ö]Å^Ü`é{ä|ö}å~ü"),
	'7': newCharset('7', "@É[Ä\\Ö]Å^Ü`é{ä|ö}å~ü"),
	'=': newCharset('=', "#ù@à[é\\ç]ê^î_è`ô{ä|ö}ü~û"),
}

// selectCharset does what is selected with an intermediate.
func (s *Screen) selectCharset(final byte) {
	switch s.collect {
	case '#':
		if final == '8' {
			s.alignmentPattern()
		}
		return
	case '%':
		if final == '@' || final == 'G' {
			s.setLevel(0)
			s.designate(0, nil)
		}
		return
	}
	set, known := charsets[final]
	if !known {
		return
	}
	switch s.collect {
	case '(':
		s.designate(0, set)
	case ')', '-':
		s.designate(1, set)
	case '*', '.':
		s.designate(2, set)
	case '+':
		s.designate(3, set)
	}
}

func (s *Screen) setLevel(level int) { s.level, s.charset = level, s.sets[level] }

func (s *Screen) designate(level int, set *charset) {
	s.sets[level] = set
	if s.level == level {
		s.charset = set
	}
}

func (s *Screen) resetCharsets() { s.sets, s.level, s.charset = [4]*charset{}, 0, nil }
