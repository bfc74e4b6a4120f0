package completion_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/completion"
)

const nonce = "0123456789abcdef0123456789abcdef"

// told is what a parser makes of pieces: data as it is, events in ‹›.
func told(pieces ...string) string {
	p := completion.NewParser(nonce)
	var b strings.Builder
	emit := func(s completion.Segment) {
		if s.Event == nil {
			b.Write(s.Data)
			return
		}
		e := s.Event
		switch e.Kind {
		case completion.ShellInfo:
			fmt.Fprintf(&b, "‹shell %s %d %d %v›", e.Shell, e.PID, e.Level, e.Starts)
		case completion.PromptStart:
			fmt.Fprintf(&b, "‹prompt %d›", e.PID)
		case completion.PromptEnd:
			fmt.Fprintf(&b, "‹reads %d›", e.PID)
		case completion.CommandStart:
			fmt.Fprintf(&b, "‹start %q %d›", e.Line, e.PID)
		case completion.CommandEnd:
			fmt.Fprintf(&b, "‹end %d %d›", e.Code, e.PID)
		}
	}
	for _, piece := range pieces {
		p.Write([]byte(piece), emit)
	}
	p.Flush(emit)
	return b.String()
}

// own makes marks of «…»: ESC ]133; … ;k=nonce BEL.
func own(s string) string {
	return strings.NewReplacer("«", "\x1b]133;", "»", ";k="+nonce+"\a", "≫", ";k="+nonce+"\x1b\\").Replace(s)
}

func TestParser(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"plain", "plain"},
		{"«A»$ «B»", "‹prompt 0›$ ‹reads 0›"},
		{"«A;p=7≫$ «B;p=7≫", "‹prompt 7›$ ‹reads 7›"},
		{"«C»out«D;0»", `‹start "" 0›out‹end 0 0›`},
		{"«C;line=echo %3B %25%0a ä%0Ab;p=3»«D;130;p=3»", "‹start \"echo ; %\\n ä\\nb\" 3›‹end 130 3›"},
		{"«C;line=100%»«C;line=%zz%4»", `‹start "100%" 0›‹start "%zz%4" 0›`},
		{"«D;5;a;p=9»$ «B»", "‹end 5 9›‹prompt 9›$ ‹reads 0›"},
		{"«D»«D;»«D;x»«D;-1»«D;258»«D;300»«D;512»", "‹end -1 0›‹end -1 0›‹end -1 0›‹end -1 0›‹end 130 0›‹end 172 0›‹end 0 0›"},
		// The first prompt of a shell is the end of nothing.
		{"«P;pid=12;shell=zsh;level=2;starts=1»«D;0;a»«B»«D;1»", "‹shell zsh 12 2 true›‹prompt 0›‹reads 0›‹end 1 0›"},
		{"«P;pid=12;shell=dash;level=;starts=0»«E;0»x«D;0»«A»", "‹shell dash 12 0 false›x‹prompt 0›"},
		{"«P;pid=99999999999999;shell=»", "‹shell  0 0 false›"},
		// The place of an end.
		{"«C»out«E;3»title«D;3;a»$ «B»", `‹start "" 0›out‹end 3 0›title‹prompt 0›$ ‹reads 0›`},
		{"«C»a«E;3»b«C»c«E;4»d«D;4»«B»«D;4»", `‹start "" 0›ab‹start "" 0›c‹end 4 0›d‹reads 0›‹end 4 0›`},
		{"«E;3»b«A»", "‹end 3 0›b‹prompt 0›"},
		{"«E;3»" + strings.Repeat("x", 9000) + "«D;3»", "‹end 3 0›" + strings.Repeat("x", 9000)},
		{"«E;3»b", "‹end 3 0›b"},
		// What is not ours.
		{"\x1b]133;D;0\a\x1b]133;A\x1b\\", "\x1b]133;D;0\a\x1b]133;A\x1b\\"},
		{"\x1b]133;D;0;k=x\a\x1b]133;D;0;k=" + nonce + "0\a", "\x1b]133;D;0;k=x\a\x1b]133;D;0;k=" + nonce + "0\a"},
		{"\x1b]133;k=" + nonce + "\a", "\x1b]133;k=" + nonce + "\a"},
		{"\x1b]133;D;0;k=" + nonce, "\x1b]133;D;0;k=" + nonce},
		{"\x1b]133;D;0\n;k=" + nonce + "\a", "\x1b]133;D;0\n;k=" + nonce + "\a"},
		{"\x1b]1337;D»", own("\x1b]1337;D»")},
		{"\x1b]0;title\a\x1b[31m\x1b", "\x1b]0;title\a\x1b[31m\x1b"},
		{"\x1b]133;\x1b]133;A«A»", "\x1b]133;\x1b]133;A‹prompt 0›"},
		{"\x1b\x1b«A»\x1b", "\x1b\x1b‹prompt 0›\x1b"},
		{"\x1b]133;C;line=" + strings.Repeat("x", 9000) + "»", own("\x1b]133;C;line=" + strings.Repeat("x", 9000) + "»")},
		{"\x1b]133;C;line=" + strings.Repeat("x", 8000) + "»", `‹start "` + strings.Repeat("x", 8000) + `" 0›`},
		// Ours, of another time.
		{"«Z;1»", ""},
	} {
		in := own(c.in)
		if got := told(in); got != c.want {
			t.Errorf("%.300q:\n%.300q, want\n%.300q", in, got, c.want)
		}
		if got := told(strings.Split(in, "")...); got != c.want {
			t.Errorf("%.300q byte by byte:\n%.300q, want\n%.300q", in, got, c.want)
		}
	}
}

// A key is never held back for longer than a moment.
func TestFlush(t *testing.T) {
	t.Parallel()
	p := completion.NewParser(nonce)
	var got bytes.Buffer
	emit := func(s completion.Segment) { got.Write(s.Data) }
	p.Write([]byte("a\x1b"), emit)
	if got.String() != "a" {
		t.Errorf("%q", got.String())
	}
	p.Flush(emit)
	p.Flush(emit)
	p.Write([]byte("]133;A"+own("»")), emit)
	if want := "a\x1b]133;A" + own("»"); got.String() != want {
		t.Errorf("%q, want %q", got.String(), want)
	}
}

func FuzzParser(f *testing.F) {
	for _, s := range []string{
		"", "plain", "«A»$ «B»ls\r\n«C;line=ls»a\r\n«D;0»", "«P;pid=1;shell=bash;level=1;starts=1»", "x«E;1»y«D;1;a»z«C»«E;2»", "\x1b]133;A\a\x1b]133;D;k=\x1b\\\x1b«A≫\x1b]13", "«D;;;;a»«C;line=%%%»",
	} {
		f.Add([]byte(own(s)), uint16(3), uint16(9))
	}
	f.Fuzz(func(t *testing.T, in []byte, one, two uint16) {
		whole := told(string(in))
		cut := []int{int(one) % (len(in) + 1), int(two) % (len(in) + 1)}
		slices.Sort(cut)
		if parts := told(string(in[:cut[0]]), string(in[cut[0]:cut[1]]), string(in[cut[1]:])); parts != whole {
			t.Errorf("cut at %d: %q, whole %q", cut, parts, whole)
		}
		// What is left is the input without some complete marks of ours.
		p := completion.NewParser(nonce)
		var data bytes.Buffer
		given := 0
		for _, b := range in {
			p.Write([]byte{b}, func(s completion.Segment) { data.Write(s.Data) })
			if given++; given-data.Len() > 8<<10 && !bytes.Contains(in, []byte(nonce)) {
				t.Fatalf("%d of %d bytes are held back", given-data.Len(), given)
			}
		}
		p.Flush(func(s completion.Segment) { data.Write(s.Data) })
		if want := without(in); !bytes.Equal(data.Bytes(), want) {
			t.Errorf("%q is left of %q, want %q", data.Bytes(), in, want)
		}
	})
}

// without removes our marks the slow and obvious way.
func without(in []byte) []byte {
	var out []byte
	for len(in) > 0 {
		if size := ours(in); size > 0 {
			in = in[size:]
			continue
		}
		out, in = append(out, in[0]), in[1:]
	}
	return out
}

func ours(in []byte) int {
	rest, ok := bytes.CutPrefix(in, []byte("\x1b]133;"))
	if !ok {
		return 0
	}
	n := bytes.IndexFunc(rest, func(r rune) bool { return r < ' ' || r == 0x7f })
	if n < 0 || !bytes.HasSuffix(rest[:n], []byte(";k="+nonce)) {
		return 0
	}
	size := 6 + n + 1
	if rest[n] == '\x1b' && bytes.HasPrefix(rest[n:], []byte("\x1b\\")) {
		size++
	} else if rest[n] != '\a' {
		return 0
	}
	if size > 8<<10 {
		return 0
	}
	return size
}

func BenchmarkParser(b *testing.B) {
	text := []byte(strings.Repeat("\x1b[32mdrwxr-xr-x\x1b[0m 2 root root 4096 Jan  1 00:00 \x1b[34mfile\x1b[0m\r\n", 500))
	p := completion.NewParser(nonce)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		p.Write(text, func(completion.Segment) {})
	}
}
