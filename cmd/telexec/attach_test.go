package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/screen"
)

// TestScreenFilter: what programs ask their terminal is taken out, and nothing else,
// however it is cut into pieces.
func TestScreenFilter(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"text":             {"ls -l\r\n\x1b[1;31mred\x1b[0m ünï 表", "ls -l\r\n\x1b[1;31mred\x1b[0m ünï 表"},
		"attributes":       {"a\x1b[cb\x1b[>cc\x1b[=0cd\x1b[0ce", "abcde"},
		"reports":          {"a\x1b[6nb\x1b[5nc\x1b[?6nd", "abcd"},
		"mode":             {"\x1b[?2026$p\x1b[4$px", "x"},
		"version":          {"\x1b[>qx\x1b[>0q", "x"},
		"cursor style":     {"\x1b[2 q\x1b[0 q", "\x1b[2 q\x1b[0 q"},
		"window":           {"\x1b[14t\x1b[18tx\x1b[22;0;0t\x1b[23;0;0t", "x\x1b[22;0;0t\x1b[23;0;0t"},
		"keyboard":         {"\x1b[?u\x1b[>1u\x1b[u", "\x1b[>1u\x1b[u"},
		"colours":          {"\x1b]11;?\x07x\x1b]10;?\x1b\\y\x1b]4;1;?\x07\x1b]11;#fff\x07", "xy\x1b]11;#fff\x07"},
		"title":            {"\x1b]0;vim: is it?\x07", "\x1b]0;vim: is it?\x07"},
		"a mark in a path": {"\x1b]7;file://h/a;?b\x07", "\x1b]7;file://h/a;?b\x07"},
		"settings":         {"\x1bP$qm\x1b\\x\x1bP+q544e\x1b\\y\x1bPq#0\x1b\\", "xy\x1bPq#0\x1b\\"},
		"enquiry":          {"a\x05b", "ab"},
		"cancelled":        {"\x1b[6\x18n\x1b[6\x1an", "\x1b[6\x18n\x1b[6\x1an"},
		"old questions":    {"a\x1bZb\x1b[1;1;1;1;1;1*yc\x1b[1$wd\x1b[&ue\x1b[\"vf\x1b['|g\x1b[#Rh", "abcdefgh"},
		"of newer ones":    {"a\x1b[?1;1;0Sb\x1b[?4mc\x1b[?2026$pd\x1b]21;foreground=?\x07e\x1b_Gi=1,a=q;AA\x1b\\f", "abcdef"},
		"no questions":     {"\x1b[?0c\x1b[>4;1m\x1b[>4n\x1b[2S\x1b[4m\x1b[2y\x1b_Ga=T;AA\x1b\\\x1b]21;foreground=red\x07", "\x1b[?0c\x1b[>4;1m\x1b[>4n\x1b[2S\x1b[4m\x1b[2y\x1b_Ga=T;AA\x1b\\\x1b]21;foreground=red\x07"},
		"begun anew":       {"\x1b[6\x1b[31mx\x1b\x1b[6n", "\x1b[6\x1b[31mx\x1b"},
		"parameters":       {"\x1b[xq\x1b[2;1;1;1;1$xq", "q\x1b[2;1;1;1;1$xq"},
	} {
		for _, size := range []int{1, 2, 3, len(test.in)} {
			var f screenFilter
			var got []byte
			for p := []byte(test.in); len(p) > 0; {
				n := min(size, len(p))
				got = append(got, f.write(p[:n])...)
				p = p[n:]
			}
			if string(got) != test.want {
				t.Errorf("%s, %d at a time: %q, want %q", name, size, got, test.want)
			}
		}
	}
	var f screenFilter
	for _, step := range []struct {
		in   string
		full bool
	}{{"\x1b[?1049h", true}, {"\x1b[?25l", true}, {"\x1b[?1;1049l", false}, {"\x1b[?47h", true}} {
		if f.write([]byte(step.in)); f.alternate != step.full {
			t.Errorf("behind %q: %v", step.in, f.alternate)
		}
	}
}

// FuzzScreenFilter: pieces make no difference, a string without end is not kept, and
// what has no question in it is as it was.
func FuzzScreenFilter(f *testing.F) {
	f.Add([]byte("a\x1b[6nb\x1b]11;?\x07c\x1bP$qm\x1b\\"), 3)
	f.Add([]byte("\x1b]0;"), 1)
	f.Fuzz(func(t *testing.T, p []byte, at int) {
		var whole, cut screenFilter
		want := bytes.Clone(whole.write(p))
		at = max(0, min(at, len(p)))
		got := append(bytes.Clone(cut.write(p[:at])), cut.write(p[at:])...)
		if !bytes.Equal(got, want) {
			t.Errorf("%q cut at %d: %q, want %q", p, at, got, want)
		}
		if len(want)+len(whole.held) > len(p) || len(whole.held) > mostHeld+1 {
			t.Errorf("%d bytes of %d, and %d are held", len(want), len(p), len(whole.held))
		}
	})
}

// TestRemarksAtATerminal: what is not of the session stands above the line of the cursor, which
// goes on as if nothing had been, and never within a character, a title, or what a
// full-screen program shows.
func TestRemarksAtATerminal(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after string // of the session; there is a remark between
		want          string
		rows          int // 0: 6
	}{
		"behind a prompt":     {"one\r\n$ ls -", "l\r\ntwo\r\n$ ", "one\n[telexec] bob is here\n$ ls -l\ntwo\n$", 0},
		"on the last line":    {"1\r\n2\r\n3\r\n4\r\n$ ls -", "l", "2\n3\n4\n[telexec] bob is here\n$ ls -l", 5},
		"on the first line":   {"$ ls", " -l", "[telexec] bob is here\n$ ls -l", 0},
		"with attributes":     {"\x1b[7;44m$ ls\x1b(0", "q", "[telexec] bob is here\n$ ls─", 0},
		"within a character":  {"$ 表\xe8", "\xa1\xa8x", "[telexec] bob is here\n$ 表表x", 0},
		"within a sequence":   {"$ ls\x1b[3", "1mx", "[telexec] bob is here\n$ lsx", 0},
		"within a long title": {"$ ls\x1b]0;" + strings.Repeat("x", 2*mostHeld), "x\x07y", "[telexec] bob is here\n$ lsy", 0},
		"in a whole screen":   {"$ vim\r\n\x1b[?1049h\x1b[HFULL", " SCREEN", "FULL SCREEN", 0},
		"behind it":           {"$ vim\r\n\x1b[?1049h\x1b[HFULL", "\x1b[?1049l$ ", "$ vim\n[telexec] bob is here\n$", 0},
	} {
		t.Run(name, func(t *testing.T) {
			rows := tt.rows
			if rows == 0 {
				rows = 6
			}
			here := screen.New(40, rows, 0)
			a := &attachment{app: &app{env: Env{Stdout: here}, out: &printer{now: time.Now}}}
			said := func(data string) {
				if err := a.show(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Output{Output: &telexecv1.TerminalOutput{Data: []byte(data)}}}); err != nil {
					t.Fatal(err)
				}
			}
			said(tt.before)
			a.remark("bob is here")
			said(tt.after)
			lines, _ := here.Lines(0)
			if got := strings.TrimRight(strings.Join(lines, "\n"), "\n"); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
