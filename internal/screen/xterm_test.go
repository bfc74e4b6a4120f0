package screen_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/screen"
	"github.com/telexec/telexec/internal/test/testenv"
)

// step is one thing that happens to a terminal.
type step struct {
	Write  []byte  `json:"write,omitempty"`
	Resize *[2]int `json:"resize,omitempty"`
}

func writes(s string) step           { return step{Write: []byte(s)} }
func resizes(columns, rows int) step { return step{Resize: &[2]int{columns, rows}} }
func apply(s *screen.Screen, st []step) {
	for _, st := range st {
		if st.Resize != nil {
			s.Resize(st.Resize[0], st.Resize[1])
		} else {
			_, _ = s.Write(st.Write)
		}
	}
}

// story is what happens to a terminal before and after somebody comes.
type story struct {
	Columns    int    `json:"columns"`
	Rows       int    `json:"rows"`
	Scrollback int    `json:"scrollback"`
	Kept       *int   `json:"kept,omitempty"` // lines of scrollback in the snapshot; nil: all
	Steps      []step `json:"steps"`
	After      []step `json:"after,omitempty"`
	Snapshot   []byte `json:"snapshot"`
}

func (st story) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d×%d, %d lines of scrollback", st.Columns, st.Rows, st.Scrollback)
	for i, step := range append(st.Steps[:len(st.Steps):len(st.Steps)], st.After...) {
		if i == len(st.Steps) {
			s.WriteString("\n  -- snapshot")
		}
		if step.Resize != nil {
			fmt.Fprintf(&s, "\n  resize %d×%d", step.Resize[0], step.Resize[1])
		} else if len(step.Write) > 2000 {
			fmt.Fprintf(&s, "\n  write %d bytes", len(step.Write))
		} else {
			fmt.Fprintf(&s, "\n  write %q", step.Write)
		}
	}
	return s.String()
}

// verdict is what xterm.js says to a story.
type verdict struct {
	Differs []string
	After   []string
	Text    []string
	Cursor  [2]int
	Title   string
	Sent    string
	Failed  string
	Skipped bool // xterm.js is in a state that is not ours
}

// xterm is xterm.js without a window, in a process of node.
type xterm struct {
	t   *testing.T
	in  *json.Encoder
	out *json.Decoder
}

func newXterm(t *testing.T) *xterm {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		testenv.Missing(t, "there is no node; tools/setup.sh says how to get it")
	}
	if _, err := os.Stat(filepath.Join(root, "node_modules", "@xterm", "headless")); err != nil {
		testenv.Missing(t, "there is no @xterm/headless in node_modules; make sdk installs what package.json names")
	}
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "xterm.mjs"), root)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	return &xterm{t, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))}
}

// tell has xterm.js live through a story, and compare.
func (x *xterm) tell(s *screen.Screen, st story) verdict {
	x.t.Helper()
	kept := st.Scrollback
	if st.Kept != nil {
		kept = *st.Kept
	}
	st.Snapshot = s.Snapshot(kept)
	if err := x.in.Encode(st); err != nil {
		x.t.Fatal(err)
	}
	var v verdict
	if err := x.out.Decode(&v); err != nil {
		x.t.Fatal(err)
	}
	return v
}

// same requires that a snapshot of a screen that has lived through st makes of a new
// terminal what it is, and that the text is the same too.
func (x *xterm) same(st story) bool {
	x.t.Helper()
	s := screen.New(st.Columns, st.Rows, st.Scrollback)
	apply(s, st.Steps)
	v := x.tell(s, st)
	if v.Skipped || strings.Contains(v.Failed, "(setting 'isWrapped')") {
		return true // the latter is thrown by ED 1 in the last cell of all
	}
	kept := st.Scrollback
	if st.Kept != nil {
		kept = *st.Kept
	}
	bad := v.Differs
	if v.Failed != "" {
		bad = append(bad, v.Failed)
	}
	for _, d := range v.After {
		bad = append(bad, "afterwards "+d)
	}
	lines, _ := s.Lines(kept)
	if got, want := strings.Join(lines, "\n"), strings.Join(v.Text, "\n"); got != want {
		bad = append(bad, fmt.Sprintf("Lines gives\n%s\nwant\n%s", got, want))
	}
	if row, column := s.Cursor(); column != min(v.Cursor[0], columnsOf(s)-1) || row != v.Cursor[1] {
		bad = append(bad, fmt.Sprintf("Cursor gives row %d, column %d, want %v", row, column, v.Cursor))
	}
	if s.Title() != v.Title {
		bad = append(bad, fmt.Sprintf("Title gives %q, want %q", s.Title(), v.Title))
	}
	if len(bad) > 0 {
		x.t.Errorf("%s\n%s\nsnapshot %q", st, strings.Join(bad[:min(len(bad), 12)], "\n"), s.Snapshot(st.Scrollback))
	}
	return len(bad) == 0
}

func columnsOf(s *screen.Screen) int {
	columns, _ := s.Size()
	return columns
}

// TestSequences compares with xterm.js what single things do.
func TestSequences(t *testing.T) {
	x := newXterm(t)
	for _, c := range cases {
		for _, size := range [][3]int{{20, 6, 50}, {10, 4, 3}} {
			steps := []step{}
			for _, part := range c {
				if columns, rows := 0, 0; strings.HasPrefix(part, "resize") {
					if _, err := fmt.Sscanf(part, "resize %d %d", &columns, &rows); err != nil {
						t.Fatal(err)
					}
					steps = append(steps, resizes(columns, rows))
				} else {
					steps = append(steps, writes(part))
				}
			}
			x.same(story{Columns: size[0], Rows: size[1], Scrollback: size[2], Steps: steps, After: []step{writes(after)}})
		}
	}
}

// after is what programs may go on with.
const after = "xy\u0301漢\x1b[2b\r\n\tz\x1b[31mred\x1b[m\x1b8p\x1b[Hq\x0eq\x0fq\nlines\nlines\nlines\x1b[3;1Hr"

var cases = [][]string{
	{""},
	{"hello"},
	{"hello\r\nworld\r\n"},
	{"1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\n9\r\n10\r\n11\r\n12\r\n"},
	{strings.Repeat("0123456789", 5)},
	{strings.Repeat("0123456789", 4)},
	{strings.Repeat("0123456789", 2)},
	{strings.Repeat("0123456789", 4) + "\r"},
	{strings.Repeat("0123456789", 30)},
	{strings.Repeat("0123456789", 30) + "\b\b"},
	{"\x1b[41m" + strings.Repeat("0123456789", 30)},
	{"漢字テスト", "漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト"},
	{"x漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト"},
	{"\x1b[44;33mx漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト漢字テスト"},
	{"e\u0301e\u0301\u0302漢\u0301\u0301", "\u0301"},
	{"\u0301abc\u200b"},
	{"ab\r\u0301"},
	{"0123456789012345678\u6f22\u0301"},
	{strings.Repeat("0123456789", 2) + "\u0301\u0301"},
	{"a\xe6\xbc\xa2b", "\xe6", "\xbc", "\xa2", "\xe6\xbc"},
	{"\xff\xc3(\xe2\x82(\xf0\x9f\x98(\xed\xa0\x80\xef\xbb\xbf\xc0\x80x"},
	{"🙂👨‍👩‍👧🇩🇪", "é"},
	{"\x1b[?7l" + strings.Repeat("0123456789", 4)},
	{"\x1b[?7l漢字漢字漢abcdefghijklm"},
	{"\x1b[2;4r\x1b[4;1Ha\nb\nc\nd\x1b[2;1H\x1bM\x1bM"},
	{"1\r\n2\r\n3\r\n4\x1b[1;3r\x1b[3;1H\n\n\nx"},
	{"1\r\n2\r\n3\r\n4\x1b[2;1H\x1b[L\x1b[2L"},
	{"1\r\n2\r\n3\r\n4\x1b[2;1H\x1b[M", "\x1b[42m\x1b[9M"},
	{"abcdef\x1b[3G\x1b[2@", "\x1b[45m\x1b[2@X"},
	{"abcdef\x1b[3G\x1b[2P", "\x1b[45m\x1b[2P"},
	{"漢字漢字\x1b[4G\x1b[2@"},
	{"漢字漢字\x1b[4G\x1b[2P"},
	{"漢字漢字\x1b[4G\x1b[X\x1b[6GX"},
	{"漢字漢字\x1b[31;1;4m\x1b[2GX"},
	{"\x1b[31;1;4m漢字漢字\x1b[33m\x1b[2GX\x1b[3GY"},
	{"\x1b[4hab\rXY\x1b[31m漢\x1b[D漢", "\x1b[10GZ"},
	{"abcdefgh\x1b[4G\x1b[4hX"},
	{"0123456789\x1b[4G\x1b[4hX\u0301"},
	{"漢字漢字漢字漢字漢字\r\x1b[4h\x1b[31mX\x1b[4l"},
	{"a\tb\tc\x1b[3g\x1b[5G\x1bH\x1b[9G\x1bH\r\tx\ty\x1b[2Zz"},
	{"\x1b[2;5r\x1b[?6h\x1b[1;3Hx\x1b[9;9Hy", "\x1b[?6l"},
	{"main\x1b[?1049halt\x1b[5;5Hx"},
	{"main\x1b[?1049halt\x1b[?1049l"},
	{"main\x1b[31m\x1b[?47halt\x1b[2;3r\x1b7\x1b[32m\x1b[1;1Hx\x1b8"},
	{"main\x1b[?1047halt\x1b7\x1b[?1047lmore"},
	{"main\x1b[42m\x1b[?1049h\x1b[2Jalt"},
	{"\x1b[1m1\x1b[2m2\x1b[3m3\x1b[4m4\x1b[5m5\x1b[7m7\x1b[8m8\x1b[9m9\x1b[53m53", "\x1b[22m1\x1b[23m2\x1b[24m3\x1b[25m4\x1b[27m5\x1b[28m6\x1b[29m7\x1b[55m8"},
	{"\x1b[4:2ma\x1b[4:3mb\x1b[4:4mc\x1b[4:5md\x1b[21me\x1b[4:0mf\x1b[58:5:9;4mg\x1b[58:2::1:2:3mh\x1b[59mi"},
	{"\x1b[58;5;9ma\x1b[4mb"},
	{"\x1b[31ma\x1b[92mb\x1b[41mc\x1b[103md\x1b[38;5;200me\x1b[48;5;17mf\x1b[38;2;1;2;3mg\x1b[48:2::9:8:7mh\x1b[38:2:9:8:7mi\x1b[39mj\x1b[49mk\x1b[0ml"},
	{"\x1b(0lqqk\x1b(B\x1b)0\x0ex\x0fx", "\x0e"},
	{"\x1b*0\x1bnq\x1b+A\x1bo#\x1b(K[]", "\x1b(4]"},
	{"\x1b(0\x1b7\x1b(Bq\x1b8"},
	{"\x1b(4]|"},
	{"ab\x1b[3b\x1b[2bc", "漢\x1b[2b", "e\u0301\x1b[2b"},
	{"\x1b[3 q\x1b[?25l", "\x1b[?12h"},
	{"\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?1h\x1b=\x1b[?1004h\x1b[?45h\x1b[20h"},
	{"\x1b[?1003h\x1b[?1016h\x1b[?2026h\x1b[?66h"},
	{"\x1b]0;a title\x07x\x1b]2;another; one\x1b\\", "\x1b]2;\x07"},
	{"\x1b]8;;http://a.example/\x1b\\link\x1b]8;;\x1b\\ no \x1b]8;id=x:y=z;http://b.example/;c\x07b\x1b[4mu\x1b[m"},
	{"\x1b]52;c;aGVsbG8=\x07x"},
	{"\x1b]4;1;rgb:12/34/56;200;#abc\x07\x1b]10;#123456\x07\x1b]11;rgb:f/0/f\x1b\\", "\x1b]104;200\x07\x1b]110\x07"},
	{"abc\x1b[44m\x1b[K\x1b[2;3Hx\x1b[1K\x1b[3;1Hyyy\x1b[2K\x1b[4;4H\x1b[J"},
	{"1\r\n2\r\n3\r\n4\x1b[2;2H\x1b[45m\x1b[1J"},
	{"1\r\n2\r\n3\r\n4\x1b[45m\x1b[2J"},
	{strings.Repeat("l\r\n", 20) + "\x1b[3J"},
	{"ab\x1b[1\"qcd\x1b[0\"qef\x1b[?2Kx\x1b[1;4H\x1b[1\"qy\x1b[?J"},
	{"ab\x1b[3;3H\x1b[31m\x1b7\x1b[1;1H\x1b[m", "\x1b8x"},
	{"\x1b[4mx\x1b7\x1b[my\x1b8z"},
	{"\x1b]8;;http://a/\x07x\x1b7\x1b]8;;\x07y\x1b8z", "\x1b[4mq"},
	{"\x1b[s\x1b[5;5Hx\x1b[uy"},
	{"\x1b[31m\x1b#8"},
	{"\x1b[3;3H\x1b[31;4m\x1b[?25l\x1b[2;3rx\x1bcy"},
	{"\x1b[3;3H\x1b[31;4m\x1b[?25l\x1b[2;3r\x1b[?2004h\x1b)0\x0ex\x1b[!py"},
	{"1\r\n2\r\n3\x1b[2S\x1b[T\x1b[44m\x1b[S"},
	{"abc\r\ndef\x1b[ @\x1b[2 A"},
	{"abc\r\ndef\x1b[1;2H\x1b['}\x1b[2'~"},
	{"0123456789012345678901234\x1b[?45h\r\b\b\bx"},
	{"x\x85y\x84z\x88\u0085a\u0084b\u009b31mc\u009d2;t\u009cd"},
	{"a\x1b[1;2\nHb\x1b[\x18c\x1b[1\x1ad\x1b[<>me\x1b[1!?mf"},
	{"\x1b[12;34"}, {"\x1b[?2"}, {"\x1b[4:"}, {"\x1b["}, {"\x1b"}, {"\x1b("}, {"\x1b]2;ti"}, {"\x1b]1"}, {"\x1bP$"}, {"\x1bPq12"}, {"\x1b_x"}, {"\x1b[1 "}, {"\x1b[<<"},
	{"\x1b]52;c;aGVs"}, {"\x1b[0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;0;3"},
	{"0123456789\x1b[31m漢\x1b[2K", "012345678901234567890123456789\x1b[44m\x1b[1K"},
	{strings.Repeat("0123456789", 2) + "\x1b[K"},
	{strings.Repeat("0123456789", 2) + "\x1b[41m\x1b[2K"},
	{strings.Repeat("0123456789", 7), "resize 8 6"},
	{strings.Repeat("0123456789", 7), "resize 8 6", "resize 33 6"},
	{strings.Repeat("0123456789", 7) + "\r\n$ ", "resize 33 6", "more"},
	{strings.Repeat("0123456789", 7) + "\r\n$ ", "resize 13 6", "more"},
	{strings.Repeat("漢字テスト", 9) + "\r\n$ ", "resize 13 6", "resize 40 6", "resize 7 5"},
	{strings.Repeat("line\r\n", 9) + "\r\n$ ", "resize 20 3", "resize 20 9", "resize 20 2"},
	{"a\r\nb\r\nc\x1b[1;1H", "resize 20 2", "resize 30 9"},
	{"\x1b[?1049h" + strings.Repeat("0123456789", 7), "resize 8 3", "x\r\ny", "resize 30 7"},
	{"\x1b[?1049h" + strings.Repeat("0123456789", 7), "resize 8 3", "\x1b#8\x1b[44m\x1b[ @", "\x1b#8\x1b[m\x1b['~"},
	{"main\x1b[?1049halt\x1b[?1049l", "resize 8 3", "\x1b[?1049hx", "resize 30 7", "y\x1bcz\x1b[?1049h", "resize 8 3", "\x1b[?1049l\x1b[44m\x1b[?1049hx"},
	{strings.Repeat("0123456789", 7) + "\x1b[?1049halt", "resize 8 3", "\x1b[?1049l", "resize 15 5"},
	{"\x1b[3g", "resize 40 6"},
	{"\x1b[2;3r\x1b[3;2H\x1b7", "resize 15 9"},
}
