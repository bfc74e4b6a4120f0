package screen_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/screen"
)

var (
	seed    = flag.Uint64("screen.seed", 1, "the first of the generated stories")
	stories = flag.Int("screen.stories", 150, "how many of them")
)

// TestGenerated compares with xterm.js what sequences do that nobody would write.
func TestGenerated(t *testing.T) {
	x := newXterm(t)
	for i := range *stories {
		g := generator{rand.New(rand.NewPCG(*seed+uint64(i), 7))}
		if !x.same(g.story()) {
			t.Fatalf("seed %d", *seed+uint64(i))
		}
	}
}

type generator struct{ *rand.Rand }

func (g generator) story() story {
	st := story{Columns: 3 + g.IntN(20), Rows: 2 + g.IntN(7), Scrollback: g.IntN(20)}
	size := [2]int{st.Columns, st.Rows}
	for range 1 + g.IntN(4) {
		var out strings.Builder
		for range g.IntN(30) {
			out.WriteString(g.piece(size))
		}
		st.Steps = append(st.Steps, writes(out.String()))
	}
	for range g.IntN(10) {
		st.After = append(st.After, writes(g.piece(size)))
	}
	return st
}

func pick[T any](g generator, of ...T) T { return of[g.IntN(len(of))] }

// piece is a text or a sequence.
func (g generator) piece(size [2]int) string {
	columns, rows := size[0], size[1]
	n := func() int { return pick(g, 0, 1, 1, 2, 3, g.IntN(columns+2), g.IntN(rows+2)) }
	switch g.IntN(24) {
	case 0, 1, 2, 3:
		return strings.Repeat("abcdefghij", 3)[:1+g.IntN(29)]
	case 4, 5:
		return pick(g, "漢", "漢字", "é", "e\u0301", "🙂", "ｗｉｄｅ", "─│", "漢\u0301", "\u0301")
	case 6:
		return "\r\n"
	case 7, 8:
		return pick(g, "\r", "\n", "\b", "\t", "\n\n\n", "\x1bM", "\x1bD", "\x1bE", "\v")
	case 9, 10:
		return fmt.Sprintf("\x1b[%d;%dH", n(), n())
	case 11, 12:
		return fmt.Sprintf("\x1b[%d%c", n(), pick(g, 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'I', 'Z', 'a', 'd', 'e', '`'))
	case 13, 14:
		return fmt.Sprintf("\x1b[%d%c", n(), pick(g, '@', 'L', 'M', 'P', 'S', 'T', 'X', 'b'))
	case 15:
		return fmt.Sprintf("\x1b[%d%c", g.IntN(3), pick(g, 'J', 'K', 'K'))
	case 16:
		return fmt.Sprintf("\x1b[%d;%dr", n(), n())
	case 17, 18, 19:
		style := pick(g, "0", "1", "2", "3", "4", "7", "9", "22", "24", "31", "39", "44", "49", "97", "103", "53", "4:3", "21", "58:5:3", "59",
			"38;5;99", "48;2;1;2;3", "38:2::4:5:6", "0;33;45")
		return "\x1b[" + style + "m"
	case 20:
		return pick(g, "\x1b7", "\x1b8", "\x1b(0", "\x1b(B", "\x1b)0", "\x0e", "\x0f", "\x1bH", "\x1b[g", "\x1b[3g", "\x1b*A", "\x1bn", "\x1b=")
	case 21:
		mode := pick(g, "?1", "?5", "?6", "?12", "?25", "?45", "?47", "?1047", "?1048", "?1049", "?1049", "?1000", "?1006", "?2004", "4", "20", "?2026")
		return "\x1b[" + mode + pick(g, "h", "l", "l")
	case 22:
		return pick(g, "\x1b]2;title\x07", "\x1b]8;;http://a/\x1b\\", "\x1b]8;;\x1b\\", "\x1b]8;id=1;http://b/\x07", "\x1b]52;c;YQ==\x07", "\x1b]4;3;#102030\x07",
			"\x1b[3 q", "\x1b[1\"q", "\x1b[\"q", "\x1b[?K", "\x1b[?J", "\x1b[ @", "\x1b[ A", "\x1b['}", "\x1b['~", "\x1b#8", "\x1b[!p", "\x1bc")
	}
	// Broken, or not complete: what follows completes it.
	return pick(g, "\x1b[", "\x1b[1;", "\x1b[?", "\x1b]2;x", "\x1b", "\x1b(", "\x1b[1\n", "\x9b", "\xe6\xbc", "\xff", "\x1bP$q", "\x1bPx", "\x1b_y", "\x18", "\x1b\\", "\x07", "\u0085")
}

// TestResizes compares what changes of size do: to lines that were wrapped, to the rows
// above and below the cursor, on both screens.
func TestResizes(t *testing.T) {
	x := newXterm(t)
	for i := range *stories {
		g := generator{rand.New(rand.NewPCG(*seed+uint64(i), 8))}
		// With all of the scrollback in use xterm.js may put a line that goes out at its
		// beginning to the end instead: there is enough of it.
		st := story{Columns: 2 + g.IntN(20), Rows: 2 + g.IntN(7), Scrollback: 300}
		for range 1 + g.IntN(6) {
			var out strings.Builder
			for range g.IntN(12) {
				out.WriteString(pick(g, "\r\n", "\r\n", "abc", strings.Repeat("abcdefghij", g.IntN(5)), "漢", "漢字漢字漢字漢字", "\x1b[44m", "\x1b[m", "\x1b[K",
					"\x1b[A", "\x1b[H", "\t", "\x1b7", "\x1b8", "\x1b[?1049h", "\x1b[?1049l", "\x1b[?1049l", "\x1b[J", "\x1b[2;3r", "\x1b[3J"))
			}
			st.Steps = append(st.Steps, writes(out.String()), resizes(2+g.IntN(24), 1+g.IntN(9)))
		}
		st.Steps = append(st.Steps, writes("x"))
		if !x.same(st) {
			t.Fatalf("seed %d", *seed+uint64(i))
		}
	}
}

// TestSplit requires that it does not matter how output is cut.
func TestSplit(t *testing.T) {
	for i := range *stories {
		g := generator{rand.New(rand.NewPCG(*seed+uint64(i), 7))}
		st := g.story()
		whole, cut := screen.New(st.Columns, st.Rows, st.Scrollback), screen.New(st.Columns, st.Rows, st.Scrollback)
		for _, one := range st.Steps {
			apply(whole, []step{one})
			for b := one.Write; len(b) > 0; {
				n := 1 + g.IntN(min(3, len(b)))
				_, _ = cut.Write(b[:n])
				b = b[n:]
			}
		}
		if a, b := whole.Snapshot(100), cut.Snapshot(100); string(a) != string(b) {
			t.Fatalf("%s\nwhole %q\ncut   %q", st, a, b)
		}
	}
}
