package terminal

import (
	"fmt"
	"strings"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// What a key sends is told by xterm's "Control Sequences" (PC-style function keys) and
// by what xterm.js does: a key with modifiers m (1 and Shift 1, Alt 2, Ctrl 4 of those
// that are held) sends CSI 1 ; m X, or CSI n ; m ~; without any, a cursor key depends on
// the mode that the program has set (DECCKM).

// letterKeys end in a letter.
var letterKeys = map[string]byte{
	"Up": 'A', "Down": 'B', "Right": 'C', "Left": 'D', "Home": 'H', "End": 'F',
	"F1": 'P', "F2": 'Q', "F3": 'R', "F4": 'S',
}

// numberKeys have a number before a tilde.
var numberKeys = map[string]int{
	"Insert": 2, "Delete": 3, "PageUp": 5, "PageDown": 6,
	"F5": 15, "F6": 17, "F7": 18, "F8": 19, "F9": 20, "F10": 21, "F11": 23, "F12": 24,
}

// plainKeys are characters.
var plainKeys = map[string]byte{"Enter": '\r', "Tab": '\t', "Escape": 0x1b, "Backspace": 0x7f, "Space": ' '}

// modifiers are what is held.
type modifiers struct{ ctrl, alt, shift bool }

func (m modifiers) number() int {
	n := 1
	if m.shift {
		n++
	}
	if m.alt {
		n += 2
	}
	if m.ctrl {
		n += 4
	}
	return n
}

// keyBytes gives what a key sends, or INVALID_REQUEST. application is whether the
// program has set the mode of application cursor keys.
func keyBytes(k session.Key, application bool) ([]byte, error) {
	if k.Name == "" {
		return []byte(k.Text), nil
	}
	var held modifiers
	name := k.Name
	for {
		rest, found := "", false
		if rest, found = strings.CutPrefix(name, "Ctrl+"); found && rest != "" {
			held.ctrl = true
		} else if rest, found = strings.CutPrefix(name, "Alt+"); found && rest != "" {
			held.alt = true
		} else if rest, found = strings.CutPrefix(name, "Shift+"); found && rest != "" {
			held.shift = true
		} else {
			break
		}
		name = rest
	}
	if final, ok := letterKeys[name]; ok {
		return letterKey(final, held, application), nil
	}
	if n, ok := numberKeys[name]; ok {
		if m := held.number(); m > 1 {
			return fmt.Appendf(nil, "\x1b[%d;%d~", n, m), nil
		}
		return fmt.Appendf(nil, "\x1b[%d~", n), nil
	}
	c, ok := plainKeys[name]
	switch {
	case ok && name == "Tab" && held.shift:
		return withAlt(held, "\x1b[Z"), nil
	case ok && name == "Backspace" && held.ctrl:
		return withAlt(held, "\b"), nil
	case !ok && len(name) == 1 && ' ' < name[0] && name[0] < 0x7f:
		c = name[0]
	case !ok:
		return nil, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "there is no key %q", k.Name).
			WithHint("Name one such as Enter, Tab, Escape, Up, F5 or Ctrl+C; give text as text")
	}
	if held.shift && 'a' <= c && c <= 'z' {
		c -= 'a' - 'A'
	}
	if held.ctrl {
		c = control(c)
	}
	return withAlt(held, string(c)), nil
}

func letterKey(final byte, held modifiers, application bool) []byte {
	switch m := held.number(); {
	case m > 1:
		return fmt.Appendf(nil, "\x1b[1;%d%c", m, final)
	case application || 'P' <= final && final <= 'S':
		return []byte{0x1b, 'O', final}
	}
	return []byte{0x1b, '[', final}
}

// withAlt puts an escape before what is sent while Alt is held.
func withAlt(held modifiers, sent string) []byte {
	if held.alt {
		return []byte("\x1b" + sent)
	}
	return []byte(sent)
}

// control gives what a character is with Ctrl, as terminals have it; itself where it is
// nothing else.
func control(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z':
		return c - 'a' + 1
	case '@' <= c && c <= '_':
		return c - '@'
	case c == ' ' || c == '2':
		return 0
	case '3' <= c && c <= '7':
		return c - '3' + 0x1b
	case c == '8' || c == '?':
		return 0x7f
	case c == '/' || c == '-':
		return 0x1f
	}
	return c
}
