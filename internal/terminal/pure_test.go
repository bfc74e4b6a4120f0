package terminal

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/session"
)

func TestKeyBytes(t *testing.T) {
	for name, want := range map[string]string{
		"Enter": "\r", "Tab": "\t", "Escape": "\x1b", "Backspace": "\x7f", "Space": " ", "Delete": "\x1b[3~", "Insert": "\x1b[2~",
		"Up": "\x1b[A", "Down": "\x1b[B", "Right": "\x1b[C", "Left": "\x1b[D", "Home": "\x1b[H", "End": "\x1b[F",
		"PageUp": "\x1b[5~", "PageDown": "\x1b[6~", "F1": "\x1bOP", "F4": "\x1bOS", "F5": "\x1b[15~", "F12": "\x1b[24~",
		"Ctrl+C": "\x03", "Ctrl+c": "\x03", "Ctrl+D": "\x04", "Ctrl+[": "\x1b", "Ctrl+\\": "\x1c", "Ctrl+Space": "\x00", "Ctrl+/": "\x1f", "Ctrl+?": "\x7f",
		"Alt+x": "\x1bx", "Alt+Enter": "\x1b\r", "Ctrl+Alt+x": "\x1b\x18", "Shift+a": "A", "Shift+Tab": "\x1b[Z", "Ctrl+Backspace": "\b",
		"Ctrl+Up": "\x1b[1;5A", "Shift+F1": "\x1b[1;2P", "Ctrl+Alt+Shift+Delete": "\x1b[3;8~", "Alt+PageUp": "\x1b[5;3~",
		"a": "a", "+": "+", "Ctrl++": "+", "~": "~",
	} {
		if got, err := keyBytes(session.Key{Name: name}, false); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]string{"Up": "\x1bOA", "Home": "\x1bOH", "Ctrl+Up": "\x1b[1;5A", "F5": "\x1b[15~"} {
		if got, err := keyBytes(session.Key{Name: name}, true); err != nil || string(got) != want {
			t.Errorf("%s is %q for an application, %v; want %q", name, got, err, want)
		}
	}
	if got, err := keyBytes(session.Key{Text: "Enter\x00ä"}, false); err != nil || string(got) != "Enter\x00ä" {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"F13", "enter", "Ctrl+", "Ctrl", "ä", "Meta+x", "ab"} {
		if got, err := keyBytes(session.Key{Name: name}, false); err == nil {
			t.Errorf("%s is %q", name, got)
		}
	}
}

func FuzzKeyBytes(f *testing.F) {
	for _, name := range []string{"Enter", "Ctrl+Alt+Shift+F12", "Ctrl+", "++", "Alt+\x00"} {
		f.Add(name, true)
	}
	f.Fuzz(func(t *testing.T, name string, application bool) {
		if name == "" {
			return
		}
		if got, err := keyBytes(session.Key{Name: name}, application); (err == nil) != (len(got) > 0) || len(got) > 16 {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// The ring has the last bytes of all that was written, at their offsets.
func FuzzRing(f *testing.F) {
	f.Add(uint64(1), int64(0))
	f.Add(uint64(2), int64(1<<40+7))
	f.Fuzz(func(t *testing.T, seed uint64, from int64) {
		if from < 0 || from > 1<<50 {
			return
		}
		random := rand.New(rand.NewPCG(seed, 1))
		r, all := newRing(from), []byte(nil)
		for range 20 {
			p := make([]byte, random.IntN(random.IntN(1<<20)+1))
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			r.write(p)
			all = append(all, p...)
			if r.end != from+int64(len(all)) || r.end-r.start > ringMost || r.end-r.start < int64(min(len(all), ringMost)) {
				t.Fatalf("it has %d to %d of %d bytes from %d", r.start, r.end, len(all), from)
			}
			at := r.start + random.Int64N(r.end-r.start+1)
			to := at + random.Int64N(r.end-at+1)
			got := make([]byte, to-at)
			if n := r.read(got, at, to); int64(n) != to-at || !bytes.Equal(got, all[at-from:to-from]) {
				t.Fatalf("%d bytes from %d to %d are others", n, at, to)
			}
		}
	})
}

func TestFrames(t *testing.T) {
	lead := frames["fish"].lead
	for text, rest := range map[string]string{
		"\x1b[?2004l\x1b]0;true ~\a\x1b[30m\x1b(B\x1b[m\rout\r\n": "out\r\n",
		"out":           "out",
		"\x1b[2Jout":    "\x1b[2Jout",
		"\x1b]0;open":   "\x1b]0;open",
		"\x1b[30m\x1b[": "\x1b[",
	} {
		n := len(lead.FindString(text))
		if text[n:] != rest {
			t.Errorf("%q leaves %q", text, text[n:])
		}
		if want := slices.Contains([]string{"\x1b]0;open", "\x1b["}, rest); unfinishedEscape([]byte(text[n:])) != want {
			t.Errorf("%q: unfinished %v", rest, !want)
		}
	}
	for text, want := range map[string]int{"": 0, "x\x1b": 1, "x\x1b[?20": 5, "x\x1b[?2004h": 8, "\x1b[?2004hx": 0} {
		if got := partOf(frames["bash"].tail, []byte(text)); got != want {
			t.Errorf("%q ends in %d bytes of the tail, want %d", text, got, want)
		}
	}
}

func TestWholeLine(t *testing.T) {
	for _, tc := range []struct{ toCursor, row, want string }{
		{"me$ ec", "me$ echo one", "me$ echo one"},
		{"", "me$ echo", "me$ echo"},
		{"me$ a long line", "long line and more", "me$ a long line and more"},
		{"me$ ", "me$", "me$ "},
		{"me$ x", "me$ x", "me$ x"},
	} {
		if got := wholeLine(tc.toCursor, tc.row); got != tc.want {
			t.Errorf("%q and %q are %q, want %q", tc.toCursor, tc.row, got, tc.want)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	var n names
	for i := range int64(2 * namesMost) {
		n.name(i+1, "x")
	}
	if len(n.ids) != namesMost || len(n.order) != namesMost || n.ids[2*namesMost] != "x" {
		t.Errorf("%d, %d", len(n.ids), len(n.order))
	}
}

// A job in the background may print for ever at a prompt.
func TestEchoIsBounded(t *testing.T) {
	e := echo{active: true, persons: true, prompt: "$ "}
	long := strings.Repeat("x", 3*rowMost)
	for i := range int64(3 * rowsMost) {
		e.row(long, i)
	}
	size := 0
	for _, line := range e.lines {
		size += len(line)
	}
	if len(e.lines) > rowsMost || size > rowsMost*rowMost {
		t.Errorf("%d lines, %d bytes", len(e.lines), size)
	}
	if e.row("$ make all", 1); e.line() != "make all" {
		t.Errorf("%q", e.line())
	}
}
