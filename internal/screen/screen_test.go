package screen_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/screen"
)

// recording is the output of a program, in testdata/recordings/NAME.COLUMNSxROWS, as it came
// from a pseudo-terminal of that size with TERM=xterm-256color and UTF-8, while somebody
// typed.
type recording struct {
	name          string
	columns, rows int
	output        []byte
}

func recordings(t testing.TB) (all []recording) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "recordings", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		r := recording{name: filepath.Base(file)}
		_, size, _ := strings.Cut(r.name, ".")
		if _, err := fmt.Sscanf(size, "%dx%d", &r.columns, &r.rows); err != nil {
			t.Fatal(err)
		}
		if r.output, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// TestRecordings compares with xterm.js what real programs show, at many places of their
// output, also in the middle of sequences, and with a size that changed on the way.
func TestRecordings(t *testing.T) {
	x := newXterm(t)
	const places = 6
	for _, r := range recordings(t) {
		for i := range places + 1 {
			at := len(r.output) * i / places
			for at > 0 && at < len(r.output) && !utf8.RuneStart(r.output[at]) {
				at-- // xterm.js loses some characters that are cut in two
			}
			kept := 1000
			st := story{Columns: r.columns, Rows: r.rows, Scrollback: 1000, Kept: &kept, Steps: []step{{Write: r.output[:at]}},
				After: []step{{Write: r.output[at:]}}}
			if i%3 == 2 {
				kept = 5
				half := at / 2
				for !utf8.RuneStart(r.output[half]) {
					half--
				}
				st.Steps = []step{{Write: r.output[:half]}, resizes(r.columns-7, r.rows+3), {Write: r.output[half:at]}}
			}
			if !x.same(st) {
				t.Fatalf("%s up to %d", r.name, at)
			}
		}
	}
}

func TestWidths(t *testing.T) {
	x := newXterm(t)
	if err := x.in.Encode(map[string]bool{"widths": true}); err != nil {
		t.Fatal(err)
	}
	var answer struct{ Widths [][2]int }
	if err := x.out.Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Widths) < 100 {
		t.Fatalf("xterm.js tells of %d ranges", len(answer.Widths))
	}
	width, widthOf := 0, screen.Width()
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if len(answer.Widths) > 0 && rune(answer.Widths[0][0]) == r {
			width, answer.Widths = answer.Widths[0][1], answer.Widths[1:]
		}
		if got := widthOf(r); got != width {
			t.Fatalf("U+%04X has the width %d, want %d", r, got, width)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct{ query, answer string }{
		{"\x1b[c", "\x1b[?1;2c"},
		{"\x1b[0c", "\x1b[?1;2c"},
		{"\x1b[1c", ""},
		{"\x1b[>c", "\x1b[>0;276;0c"},
		{"\x1b[>q", "\x1bP>|telexec\x1b\\"},
		{"\x1b[5n", "\x1b[0n"},
		{"abc\r\nde\x1b[6n", "\x1b[2;3R"},
		{"0123456789\x1b[6n", "\x1b[1;10R"},
		{"\x1b[3;4H\x1b[?6n", "\x1b[?3;4R"},
		{"\x1b[?2004$p", "\x1b[?2004;2$y"},
		{"\x1b[?2004h\x1b[?2004$p", "\x1b[?2004;1$y"},
		{"\x1b[?7$p\x1b[?25$p\x1b[?1049$p\x1b[?12345$p", "\x1b[?7;1$y\x1b[?25;1$y\x1b[?1049;2$y\x1b[?12345;0$y"},
		{"\x1b[?1003h\x1b[?1000$p\x1b[?1003$p\x1b[?1006$p", "\x1b[?1000;2$y\x1b[?1003;1$y\x1b[?1006;2$y"},
		{"\x1b[4h\x1b[4$p\x1b[20$p\x1b[2$p", "\x1b[4;1$y\x1b[20;2$y\x1b[2;4$y"},
		{"\x1b]10;?\x07", "\x1b]10;rgb:ffff/ffff/ffff\x1b\\"},
		{"\x1b]11;?\x1b\\", "\x1b]11;rgb:0000/0000/0000\x1b\\"},
		{"\x1b]10;#102030;?\x07\x1b]10;?\x07", "\x1b]11;rgb:0000/0000/0000\x1b\\\x1b]10;rgb:1010/2020/3030\x1b\\"},
		{"\x1b]4;1;?;200;?;244;?\x07", "\x1b]4;1;rgb:cccc/0000/0000\x1b\\\x1b]4;200;rgb:ffff/0000/d7d7\x1b\\\x1b]4;244;rgb:8080/8080/8080\x1b\\"},
		{"\x1b]4;1;rgb:1/2/3\x07\x1b]4;1;?\x07\x1b]104\x07\x1b]4;1;?\x07", "\x1b]4;1;rgb:1111/2222/3333\x1b\\\x1b]4;1;rgb:cccc/0000/0000\x1b\\"},
		{"\x1bP$qr\x1b\\\x1bP$qm\x1b\\\x1bP$qx\x1b\\", "\x1bP1$r1;4r\x1b\\\x1bP1$r0m\x1b\\\x1bP0$r\x1b\\"},
		{"\x1b[3 q\x1bP$q q\x1b\\\x1b[1\"q\x1bP$q\"q\x1b\\", "\x1bP1$r3 q\x1b\\\x1bP1$r1\"q\x1b\\"},
		{"\x1b]52;c;?\x07\x1b[18t\x1b[21t", ""}, // the clipboard and the title are nobody's business
	} {
		s := screen.New(10, 4, 0)
		_, _ = s.Write([]byte(c.query))
		if got := string(s.Answers()); got != c.answer {
			t.Errorf("%q is answered %q, want %q", c.query, got, c.answer)
		}
		if got := s.Answers(); len(got) > 0 {
			t.Errorf("%q is answered again: %q", c.query, got)
		}
	}
}

// TestAnswersLikeXterm compares the answers with those of xterm.js, which has no colors
// without a window.
func TestAnswersLikeXterm(t *testing.T) {
	x := newXterm(t)
	var queries strings.Builder
	for mode := range 30 {
		fmt.Fprintf(&queries, "\x1b[%d$p\x1b[?%d$p", mode, mode)
	}
	for _, mode := range []int{45, 47, 66, 67, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 1047, 1048, 1049, 2004, 2026, 2027} {
		fmt.Fprintf(&queries, "\x1b[?%d$p", mode)
	}
	queries.WriteString("\x1b[c\x1b[>c\x1b[5n\x1b[6n\x1b[?6n\x1bP$qr\x1b\\\x1bP$qm\x1b\\\x1bP$q\"p\x1b\\\x1bP$q\"q\x1b\\\x1bP$qz\x1b\\")
	for _, before := range []string{"", "\x1b[?1h\x1b[?6h\x1b[?7l\x1b[?12h\x1b[?25l\x1b[?45h\x1b[?66h\x1b[?1002h\x1b[?1004h\x1b[?1006h\x1b[?2004h\x1b[?2026h\x1b[4h\x1b[20h\x1b[2;4r\x1b[3;3H\x1b[1\"q",
		"\x1b[?1049h\x1b[?9h\x1b[?1016h"} {
		s := screen.New(20, 6, 10)
		st := story{Columns: 20, Rows: 6, Scrollback: 10, Steps: []step{writes(before + queries.String())}}
		apply(s, st.Steps)
		if got, want := string(s.Answers()), x.tell(s, st).Sent; got != want || want == "" {
			t.Errorf("after %q:\n%q, want\n%q", before, got, want)
		}
	}
}

func TestText(t *testing.T) {
	s := screen.New(10, 3, 5)
	for i := range 6 {
		fmt.Fprintf(s, "line %d  \r\n", i)
	}
	fmt.Fprint(s, "漢字 and\x1b[41m \x1b[K")
	want := []string{"line 2", "line 3", "line 4", "line 5", "漢字 and"}
	for scrollback, scrolled := range map[int]int{-1: 0, 0: 0, 2: 2, 3: 3, 9: 4} {
		all := append([]string{"line 0", "line 1"}[max(0, 2-max(0, scrolled-2)):], want...)
		if scrolled < 2 {
			all = want[2-scrolled:]
		}
		if lines, got := s.Lines(scrollback); got != scrolled || !slices.Equal(lines, all) {
			t.Errorf("Lines(%d) = %q, %d, want %q, %d", scrollback, lines, got, all, scrolled)
		}
	}
	if got := s.Row(1); got != "line 5" {
		t.Errorf("Row(1) = %q", got)
	}
	if got := s.Row(7) + s.Row(-1); got != "" {
		t.Errorf("Row of no row = %q", got)
	}
	if row, column := s.Cursor(); row != 2 || column != 9 {
		t.Errorf("Cursor = %d, %d", row, column)
	}
	fmt.Fprint(s, "\x1b[?1049h\x1b[2;2Hvim")
	if lines, scrolled := s.Lines(9); !s.Alternate() || scrolled != 0 || !slices.Equal(lines, []string{"", " vim", ""}) {
		t.Errorf("the alternate screen is %q", lines)
	}
}

func TestLineToCursor(t *testing.T) {
	for _, c := range []struct{ output, want string }{
		{"", ""},
		{"$ ", "$ "},
		{"$ ls\r\na b\r\n$ echo hello", "$ echo hello"},
		{"$ echo 0123456789 abc", "$ echo 0123456789 abc"},
		{"$ echo 0123456789 abc\x1b[D\x1b[D", "$ echo 0123456789 ab"},
		{"$ echo 01", "$ echo 01"},
		{"$ echo 012", "$ echo 012"},
		{"$ echo 01漢字\x1b[31mx", "$ echo 01漢字x"}, // one of them does not fit
		{"\x1b[32m$ \x1b[mx\r\x1b[2C", "$ "},
		{strings.Repeat("abcdefghij", 9) + "xy", strings.Repeat("abcdefghij", 9) + "xy"}, // begins in the scrollback
		{"e\u0301a", "e\u0301a"},
	} {
		s := screen.New(10, 4, 100)
		fmt.Fprint(s, c.output)
		if got := s.LineToCursor(); got != c.want {
			t.Errorf("after %q the line is %q, want %q", c.output, got, c.want)
		}
	}
}

func TestModes(t *testing.T) {
	s := screen.New(80, 24, 0)
	if s.ApplicationCursor() || s.BracketedPaste() || s.Alternate() || s.Title() != "" {
		t.Error("a new screen has modes")
	}
	fmt.Fprint(s, "\x1b[?1h\x1b[?2004h\x1b[?1049h\x1b]0;a; title\x1b\\")
	if !s.ApplicationCursor() || !s.BracketedPaste() || !s.Alternate() || s.Title() != "a; title" {
		t.Error("modes were not set")
	}
	fmt.Fprint(s, "\x1b[?1l\x1b[?2004l\x1b[?1049l\x1b]2;\x07")
	if s.ApplicationCursor() || s.BracketedPaste() || s.Alternate() || s.Title() != "" {
		t.Error("modes were not reset")
	}
	if columns, rows := s.Size(); columns != 80 || rows != 24 {
		t.Errorf("the size is %d×%d", columns, rows)
	}
	s.Resize(0, 0)
	if columns, rows := s.Size(); columns != 2 || rows != 1 {
		t.Errorf("the least size is %d×%d", columns, rows)
	}
	s.Resize(1<<20, 1<<20)
	if columns, rows := s.Size(); columns != 1000 || rows != 500 {
		t.Errorf("the largest size is %d×%d", columns, rows)
	}
}

// TestMarks follows commands: their lines scroll, are wrapped anew, are erased.
func TestMarks(t *testing.T) {
	s := screen.New(20, 4, 6)
	run := func(id, output string) {
		fmt.Fprint(s, "$ ")
		s.Mark(id)
		fmt.Fprintf(s, "%s\r\n%s", id, output)
	}
	expect := func(what string, scrollback int, want ...screen.Mark) {
		t.Helper()
		if got := s.Marks(scrollback); !slices.Equal(got, want) {
			t.Errorf("%s: marks are %v, want %v", what, got, want)
		}
		// They are lines of what Snapshot sends.
		columns, rows := s.Size()
		other := screen.New(columns, rows, 100)
		_, _ = other.Write(s.Snapshot(scrollback))
		if lines, _ := other.Lines(100); !s.Alternate() {
			for _, m := range want {
				if !strings.Contains(lines[m.Line], m.ID) {
					t.Errorf("%s: line %d of %q is not of %s", what, m.Line, lines, m.ID)
				}
			}
		}
	}
	expect("nothing", 10)
	run("one", "a\r\nb\r\n")
	expect("one", 10, screen.Mark{ID: "one", Line: 0})
	run("two", strings.Repeat("0123456789", 3)+"\r\n")
	run("three", "")
	expect("three", 10, screen.Mark{ID: "one", Line: 0}, screen.Mark{ID: "two", Line: 3}, screen.Mark{ID: "three", Line: 6})
	expect("a part", 1, screen.Mark{ID: "two", Line: 0}, screen.Mark{ID: "three", Line: 3})
	s.Resize(10, 4)
	expect("narrower", 10, screen.Mark{ID: "one", Line: 0}, screen.Mark{ID: "two", Line: 3}, screen.Mark{ID: "three", Line: 7})
	s.Resize(40, 4)
	expect("wider", 10, screen.Mark{ID: "one", Line: 0}, screen.Mark{ID: "two", Line: 3}, screen.Mark{ID: "three", Line: 5})
	fmt.Fprint(s, "\x1b[?1049hvim")
	expect("behind vim", 10, screen.Mark{ID: "one", Line: 0}, screen.Mark{ID: "two", Line: 3}, screen.Mark{ID: "three", Line: 5})
	fmt.Fprint(s, "\x1b[?1049l")
	fmt.Fprint(s, strings.Repeat("x\r\n", 7))
	expect("pushed out", 10, screen.Mark{ID: "three", Line: 1})
	fmt.Fprint(s, "\x1b[3J")
	expect("scrollback erased", 10)
	run("four", "")
	fmt.Fprint(s, "\x1b[H\x1b[2J")
	expect("clear", 0)
}

// TestWidenFullLines lays wide characters out on columns that they fill to the last cell,
// after some were cut in two.
func TestWidenFullLines(t *testing.T) {
	for scrollback := range 12 {
		s := screen.New(9, 5, scrollback)
		fmt.Fprint(s, "漢\x1b[70b\x1b[3Jé")
		s.Resize(5, 2)
		fmt.Fprint(s, "\x1b[3;1H\r\nabcdefghijabcdefghijabcd")
		s.Resize(6, 4)
		s.Snapshot(scrollback)
	}
}

// TestBounds is about output that is there to take memory.
func TestBounds(t *testing.T) {
	for name, out := range map[string]func(i int) string{
		"combining": func(i int) string { return "\u0301" },
		"combined":  func(i int) string { return fmt.Sprintf("a%c%c", 0x300+i%100, 0x300+i/100%100) },
		"links":     func(i int) string { return fmt.Sprintf("\x1b]8;;http://a/%d/%s\x07x", i, strings.Repeat("y", 4000)) },
		"colors":    func(i int) string { return fmt.Sprintf("\x1b[4;58:2::%d:%d:%dmx", i>>16&255, i>>8&255, i&255) },
		"styles":    func(i int) string { return fmt.Sprintf("\x1b[38;2;%d;%d;%dmx", i>>16&255, i>>8&255, i&255) },
		"title":     func(i int) string { return "\x1b]2;" + strings.Repeat("t", 1000) },
		"payload":   func(i int) string { return strings.Repeat("t", 1000) },
		"queries":   func(i int) string { return "\x1b[6n\x1b[c" },
		"repeat":    func(i int) string { return strings.Repeat("漢\x1b[2147483647b", max(0, 1-i/50)) },
		"insert":    func(i int) string { return "\x1b[2147483647L\x1b[2147483647@\x1b[2147483647S\x1b[2147483647I" },
	} {
		before := heap()
		s := screen.New(100, 10, 1000)
		if name == "payload" {
			fmt.Fprint(s, "\x1b]2;")
		}
		var b bytes.Buffer
		for i := range 6000 {
			b.WriteString(out(i))
			if b.Len() > 60000 {
				_, _ = s.Write(b.Bytes())
				b.Reset()
			}
		}
		if size := heap() - before; size > 48<<20 {
			t.Errorf("%s: it takes %d bytes", name, size)
		}
		if size := len(s.Snapshot(1000)); size > 40<<20 {
			t.Errorf("%s: a snapshot has %d bytes", name, size)
		}
		if size := len(s.Answers()); size > 64<<10 {
			t.Errorf("%s: %d bytes of answers", name, size)
		}
		fmt.Fprint(s, "\x1b\\\x1bcok")
		if got := s.Row(0); got != "ok" {
			t.Errorf("%s: after a reset the screen says %q", name, got)
		}
	}
}

// TestClipboard requires that nothing of OSC 52 gets into a snapshot.
func TestClipboard(t *testing.T) {
	for _, out := range []string{"\x1b]52;c;aGVsbG8=\x07x", "\x1b]52;c;aGVsbG8=", "\x1b]52;", "\u009d52;c;aGVsbG8=\u009c"} {
		s := screen.New(80, 24, 0)
		fmt.Fprint(s, out)
		if got := s.Snapshot(0); bytes.Contains(got, []byte("52;")) || bytes.Contains(got, []byte("aGVs")) {
			t.Errorf("after %q a snapshot is %q", out, got)
		}
	}
}

// FuzzScreen requires of any output, at any size: it is taken without a panic, a snapshot is
// not unbounded, and a screen that is given a snapshot gives the same one.
func FuzzScreen(f *testing.F) {
	for _, c := range cases {
		f.Add([]byte(strings.Join(c, "")), uint8(20), uint8(6), uint8(11), uint8(4))
	}
	for _, r := range recordings(f) {
		f.Add(r.output[:min(len(r.output), 4000)], uint8(r.columns), uint8(r.rows), uint8(40), uint8(10))
	}
	f.Fuzz(func(t *testing.T, output []byte, columns, rows, laterColumns, laterRows uint8) {
		s := screen.New(int(columns), int(rows), 50)
		_, _ = s.Write(output[:len(output)/2])
		s.Resize(int(laterColumns), int(laterRows))
		_, _ = s.Write(output[len(output)/2:])
		s.Answers()
		s.Lines(50)
		s.LineToCursor()
		s.Marks(50)

		first := s.Snapshot(50)
		if cells := (50 + int(laterRows)) * max(2, int(laterColumns)); len(first) > 300<<10+cells*400 {
			t.Fatalf("a snapshot of %d cells has %d bytes", cells, len(first))
		}
		again := func(snapshot []byte) []byte {
			other := screen.New(int(laterColumns), int(laterRows), 50)
			_, _ = other.Write(snapshot)
			if a, b := screenOf(s), screenOf(other); a != b {
				t.Fatalf("the screen is\n%s\nand after %q\n%s", a, snapshot, b)
			}
			return other.Snapshot(50)
		}
		second := again(first)
		if third := again(second); !bytes.Equal(second, third) {
			t.Fatalf("a snapshot %q\nof a snapshot %q", third, second)
		}
	})
}

func screenOf(s *screen.Screen) string {
	lines, scrolled := s.Lines(50)
	row, column := s.Cursor()
	return fmt.Sprintf("%q %d %d %d %q %v", lines, scrolled, row, column, s.Title(), s.Alternate())
}
