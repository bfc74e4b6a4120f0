package main

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

func TestJudged(t *testing.T) {
	for _, tt := range []struct {
		in      string
		lines   []string
		remarks int
	}{
		{`ls -la`, []string{`ls -la`}, 0},
		{``, []string{``}, 0},
		{"a\nb", []string{"a", "b"}, 0},
		{`sed 's/\n//'`, []string{`sed 's/\n//'`}, 0},
		{"sed 's/\\n//'\r", []string{`sed 's/\\n//'\r`}, 1},
		{"\x1b[2Kls", []string{`\x1b[2Kls`}, 1},
		{"ls \u202e#", []string{`ls \u202e#`}, 1},
		{"l\u200bs", []string{`l\u200bs`}, 1},
		{"l\u3164s", []string{`l\u3164s`}, 1},
		{"l\u2800s", []string{`l\u2800s`}, 1},
		{"e\u0301", []string{`e\u0301`}, 1},
		{"a\ufe0fb", []string{`a\ufe0fb`}, 1},
		{"\U000E0041", []string{`\U000e0041`}, 1},
		{"broken \xff", []string{`broken \xff`}, 1},
		{"сat größe", []string{"сat größe"}, 1},
		{"сat\t\\", []string{`сat\t\\`}, 2},
	} {
		e := judged(tt.in)
		if !slices.Equal(e.lines, tt.lines) || len(e.remarks()) != tt.remarks {
			t.Errorf("%q: got %q, %q", tt.in, e.lines, e.remarks())
		}
	}
	if got := strings.Join(judged("сat größe").remarks(), ""); !strings.Contains(got, "с (U+0441), ö (U+00F6), ß (U+00DF).") {
		t.Errorf("got %s", got)
	}
	if got := strings.Join(judged("абвгдежзик").remarks(), ""); !strings.Contains(got, "and 2 more") {
		t.Errorf("got %s", got)
	}
}

func TestFolded(t *testing.T) {
	for _, tt := range []struct {
		in    string
		width int
		want  []string
	}{
		{"abcdef", 4, []string{"abcd", "ef"}},
		{"abcdef", 0, []string{"abcdef"}},
		{"abcd", 4, []string{"abcd"}},
		{"", 4, []string{""}},
		{"ababab", 1, []string{"a", "b", "a", "b", "a", "b"}},
		{"äöü", 4, []string{"äö", "ü"}},
		{"ä", 1, []string{"ä"}},
	} {
		if got := folded(tt.in, tt.width); !slices.Equal(got, tt.want) {
			t.Errorf("%q in %d: %q", tt.in, tt.width, got)
		}
	}
}

func TestFactsThatAreJudged(t *testing.T) {
	var out bytes.Buffer
	p := &printer{stdout: &out, width: 36}
	f := facts{}
	f.add("Asked for by", "x")
	f.exactly("Host", "web1", p.width)
	f.exactly("Command", "echo 0123456789012345678901234567890\nYou           may decide", p.width)
	f.exactly("Line", "a\x1b", p.width)
	if err := p.whole(f.rows); err != nil {
		t.Fatal(err)
	}
	want := `Asked for by  x
Host          web1
Command       | echo 012345678901234
              : 5678901234567890
              | You           may de
              : cide
Line          a\x1b
              It holds characters`
	if !strings.HasPrefix(out.String(), want) || strings.Contains(out.String(), "…") {
		t.Errorf("got\n%s", out.String())
	}
}

// What is shown fits a terminal, and tells the command to the byte: two that differ
// never look the same.
func FuzzJudged(f *testing.F) {
	for _, s := range []string{"ls", "a\nb", "\\n\x1b", "\u202e\\u202e", "e\u0301", "\xff\\xff", "\"'", "\u3164", "\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := judged(s)
		for _, line := range e.lines {
			for _, r := range line {
				if !plainToSee(r) || !unicode.IsPrint(r) {
					t.Errorf("%q: %U is left", s, r)
				}
				if r > unicode.MaxASCII && len(e.remarks()) == 0 {
					t.Errorf("%q: %U is not told", s, r)
				}
			}
			if printable(line) != line {
				t.Errorf("%q: the table would change %q", s, line)
			}
			for _, width := range []int{1, 3, 20} {
				if got := strings.Join(folded(line, width), ""); got != line {
					t.Errorf("%q folded at %d: %q", line, width, got)
				}
			}
		}
		back := strings.Join(e.lines, "\n")
		if e.escaped {
			for i, line := range e.lines {
				unquoted, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
				if err != nil {
					t.Fatalf("%q: %q cannot be read back: %v", s, line, err)
				}
				e.lines[i] = unquoted
			}
			back = strings.Join(e.lines, "\n")
		}
		if back != s {
			t.Errorf("%q reads as %q", s, back)
		}
	})
}
