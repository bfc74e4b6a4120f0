package mcptool

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// large is a budget that no test's output reaches.
const large = 1 << 30

func TestShow(t *testing.T) {
	t.Parallel()
	family := "👨\u200d👩\u200d👧"
	for _, tt := range []struct {
		name, data     string
		text, terminal string // terminal: the data itself where empty
	}{
		{name: "empty"},
		{name: "plain", data: "total 0\n\tone\n", text: "total 0\n\tone\n"},
		{
			name: "colours",
			data: "\x1b[1;31mFAIL\x1b[0m \x1b[38:2::255:0:0mpkg\x1b[m\n",
			text: "FAIL pkg\n",
		},
		{
			name: "apt progress bar",
			data: "\x1b7\x1b[0;23r\x1b8\x1b[1ASetting up jq ...\r\n\x1b7\x1b[24;0f\x1b[42m\x1b[30mProgress: [ 50%]\x1b[49m\x1b[39m [##..] \x1b8",
			text: "Setting up jq ...\nProgress: [ 50%] [##..] ",
		},
		{
			name: "overwritten lines",
			data: "Reading package lists... 0%\r\rReading package lists... 98%\rReading package lists... Done\r\r\nok\r",
			text: "Reading package lists... 0%\nReading package lists... 98%\nReading package lists... Done\nok\n",
		},
		{
			name: "erased lines",
			data: " 10%\x1b[K\r\x1b[2K 20%\x1b[K\n",
			text: " 10%\n 20%\n",
		},
		{
			name: "hyperlink",
			data: "see \x1b]8;id=1;https://example.org/a\x1b\\the page\x1b]8;;\x1b\\.",
			text: "see the page.",
		},
		{
			name: "title and prompt",
			data: "\x1b]0;root@web1: ~\x07\x1b[?2004h\x1b[01;32mroot@web1\x1b[00m:\x1b[01;34m~\x1b[00m# ",
			text: "root@web1:~# ",
		},
		{
			name: "title with the byte 9C in a character",
			data: "\x1b]2;✓ passed\x07rest",
			text: "rest",
		},
		{
			name: "control strings",
			data: "a\x1bP1$r0m\x1b\\b\x1bXsos\x1b\\c\x1b^pm\x1b\\d\x1b_apc\x1b\\e",
			text: "abcde",
		},
		{
			name: "BEL ends an OSC only",
			data: "a\x1b]0;t\x07b\x1bPq\x07q\x1b\\c",
			text: "abc",
		},
		{
			name: "8-bit controls",
			data: "a\u009b31mb\u009d0;t\u009cc\u0090q\u009cd\u0085e\u0098s\u009cf\x1b]t\u009cg\u009fapc\u009ch\u009epm\u009ci",
			text: "abcdefghi",
		},
		{
			name: "raw 8-bit bytes are not UTF-8",
			data: "a\x9b31mb", text: "a\uFFFD31mb", terminal: "a\uFFFD31mb",
		},
		{
			name: "two and three bytes",
			data: "\x1bca\x1b(Bb\x1b#8c\x1b=d\x1b%Ge\x1bMf\x1b$(Bg",
			text: "abcdefg",
		},
		{
			name: "cancelled strings",
			data: "a\x1b]0;t\x18b\x1bPq\x1ac\x1b]0;t\x1b[1md\x1b]0;t\u009b1me",
			text: "abcde",
		},
		{
			name: "broken sequences keep what breaks them",
			data: "a\x1b[3\nb\x1b[3é\x1b\nc\x1b(\nd\x1b[1\x1b[2me\x1b\x1b[3mf\x1b✓",
			text: "a\nbé\nc\nde" + "f✓",
		},
		{
			name: "controls",
			data: "a\x00\x07b\bc\x0b\x0cd\x0e\x0fe\x7ff\x18",
			text: "abcdef",
		},
		{
			name: "unterminated at the end",
			data: "a\x1b[31", text: "a",
		},
		{
			name: "unterminated string at the end hides nothing",
			data: "a\x1b]0;rm -rf /", text: "a0;rm -rf /",
		},
		{name: "escape at the end", data: "a\x1b", text: "a"},
		{name: "escape at the end of a string", data: "a\x1b]0;t\x1b", text: "a"},
		{
			name: "half a character at the end of a string",
			data: "a\x1b]0\xc2", text: "a0\uFFFD", terminal: "a\x1b]0\uFFFD",
		},
		{
			name: "binary",
			data: "\x7fELF\x02\x01\xff\xfe\xc3(\xe2\x82", text: "ELF\uFFFD\uFFFD\uFFFD(\uFFFD\uFFFD",
			terminal: "\x7fELF\x02\x01\uFFFD\uFFFD\uFFFD(\uFFFD\uFFFD",
		},
		{
			name: "bad bytes within a sequence",
			data: "a\x1b]0;\xff\xfe\x07b", text: "ab", terminal: "a\x1b]0;\uFFFD\uFFFD\x07b",
		},
		{
			name: "surrogates and overlong forms",
			data: "\xed\xa0\x80\xc0\xaf", text: strings.Repeat("\uFFFD", 5), terminal: strings.Repeat("\uFFFD", 5),
		},
		{
			name: "replacement character itself",
			data: "\uFFFD", text: "\uFFFD",
		},
		{
			name: "text that only a model sees",
			data: "hi\U000E0001\U000E0049\U000E007F \u202Eab\u202C \u2066c\u2069.",
			text: "hi ab c.",
		},
		{
			name: "joiners and accents stay, marks of direction do not",
			data: family + " می\u200cخواهم \u200e❤\ufe0f e\u0301",
			text: family + " می\u200cخواهم ❤\ufe0f e\u0301",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := []byte(tt.data)
			for _, f := range []format{formatText, "", "unknown"} {
				if got, used := f.show(data, large, true); got != tt.text || used != len(data) {
					t.Errorf("format %q shows %q, %d bytes; want %q, %d", f, got, used, tt.text, len(data))
				}
			}
			want := tt.terminal
			if want == "" {
				want = tt.data
			}
			if got, used := formatTerminal.show(data, large, true); got != want || used != len(data) {
				t.Errorf("terminal shows %q, %d bytes; want %q, %d", got, used, want, len(data))
			}
			want = base64.StdEncoding.EncodeToString(data)
			if got, used := formatBase64.show(data, large, true); got != want || used != len(data) {
				t.Errorf("base64 shows %q, %d bytes; want %q, %d", got, used, want, len(data))
			}
			for budget := range 40 {
				checkShow(t, data, budget, len(data)/2)
			}
		})
	}
}

// TestShowWaits: what may still become something else is left for the next
// page, and only that.
func TestShowWaits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, data, rest string
		inTerminal       bool // also waited for where sequences are kept
	}{
		{"character of 2 bytes", "a", "\xc3", true},
		{"character of 4 bytes", "a", "\xf0\x9f\x91", true},
		{"8-bit introducer", "a", "\xc2", true},
		{"escape", "a", "\x1b", true},
		{"colour", "a", "\x1b[38;5", true},
		{"charset", "a", "\x1b(", true},
		{"title", "a", "\x1b]0;user@host", true},
		{"title, half of its end", "a", "\x1b]0;user@host\x1b", true},
		{"title, half of its 8-bit end", "a", "\x1b]0;user@host\xc2", true},
		{"8-bit title", "a", "\u009d0;t", true},
		{"return", "10%", "\r", false},
		{"last of the returns", "10%\r\r", "\r", false},
		{"bad byte does not wait", "a\xff", "", true},
		{"truncated character does not wait once broken", "\xe2\x82(", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := []byte(tt.data + tt.rest)
			if _, used := formatText.show(data, large, false); used != len(tt.data) {
				t.Errorf("text covers %d bytes of %q, want %d", used, data, len(tt.data))
			}
			want := len(data)
			if tt.inTerminal {
				want = len(tt.data)
			}
			if _, used := formatTerminal.show(data, large, false); used != want {
				t.Errorf("terminal covers %d bytes of %q, want %d", used, data, want)
			}
			if _, used := formatBase64.show(data, large, false); used != len(data) {
				t.Errorf("base64 covers %d bytes of %q, want all", used, data)
			}
		})
	}
}

// TestShowUnterminated: a sequence is waited for up to a limit, and what comes
// after the limit is never hidden.
func TestShowUnterminated(t *testing.T) {
	t.Parallel()
	for _, introducer := range []string{"\x1b]", "\x1bP", "\x1bX", "\x1b^", "\x1b_", "\u009d", "\x1b[", "\u009b", "\x1b"} {
		t.Run(fmt.Sprintf("%q", introducer), func(t *testing.T) {
			t.Parallel()
			fits := strings.Repeat(" ", maxSequence-1-len(introducer))
			end := "m"
			if !strings.HasSuffix(introducer, "[") && introducer != "\u009b" && introducer != "\x1b" {
				end = "\x18"
			}
			for _, tt := range []struct {
				data, text string
				used       int // while more is to come
			}{
				{introducer + fits, "", 0},
				{introducer + fits + end + "k", "k", maxSequence + 1},
				{introducer + fits + "  ", fits + "  ", maxSequence + 1},
				{introducer + fits + " " + end + "k", strings.TrimSuffix(fits+" "+end, "\x18") + "k", maxSequence + 2},
			} {
				text, used := formatText.show([]byte(tt.data), large, false)
				if text != tt.text || used != tt.used {
					t.Errorf("%d bytes show as %d, %d covered; want %d, %d",
						len(tt.data), len(text), used, len(tt.text), tt.used)
				}
				checkShow(t, []byte(tt.data), 16, maxSequence-1)
			}
		})
	}
}

func TestShowBudget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		format format
		data   string
		budget int
		text   string
		used   int
	}{
		{"nothing", formatText, "abc", 0, "", 0},
		{"negative", formatText, "abc", -1, "", 0},
		{"negative base64", formatBase64, "abc", -1, "", 0},
		{"exact", formatText, "abc", 3, "abc", 3},
		{"not within a character", formatText, "ab✓", 4, "ab", 2},
		{"bad bytes count three", formatText, "ab\xff", 4, "ab", 2},
		{"what is not shown costs nothing", formatText, "ab\x1b[0m\x1b]0;t\x07cd", 2, "ab", 12},
		{"a return is free, its newline is not", formatText, "ab\r\n", 2, "ab", 3},
		{"sequence goes to the next page", formatTerminal, "ab\x1b[31mc", 6, "ab", 2},
		{"sequence longer than a page", formatTerminal, "\x1b]0;title\x07", 6, "\x1b]0;ti", 6},
		{"base64 whole groups", formatBase64, "abcdef", 7, "YWJj", 3},
		{"base64 too small", formatBase64, "abcdef", 3, "", 0},
		{"base64 padded at the end", formatBase64, "abcd", 8, "YWJjZA==", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text, used := tt.format.show([]byte(tt.data), tt.budget, true)
			if text != tt.text || used != tt.used {
				t.Errorf("shows %q, %d bytes; want %q, %d", text, used, tt.text, tt.used)
			}
		})
	}
}

func TestShowEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		format format
		data   string
		budget int
		text   string
		first  int
	}{
		{"empty", formatText, "", 10, "", 0},
		{"all", formatText, "one\ntwo\n", 8, "one\ntwo\n", 0},
		{"nothing", formatText, "abc", -1, "", 3},
		{"line within the first quarter", formatText, "zero\none\n123456789\n", 12, "123456789\n", 9},
		{"line just within the first quarter", formatText, "xxone\n123456789\n", 13, "123456789\n", 6},
		{"line just behind the first quarter", formatText, "xxone\n123456789\n", 14, "one\n123456789\n", 2},
		{"no line near", formatText, "0123456789", 4, "6789", 6},
		{"at a line already", formatText, "zero\n1\n23456789\n", 11, "1\n23456789\n", 5},
		{"line ended by a return", formatText, "10%\r20%\r30%\r", 5, "30%\n", 8},
		{"not within a character", formatText, "a✓✓", 5, "✓", 4},
		{"as early as fits", formatText, "abc\x1b[1md", 1, "d", 3},
		{"not within a sequence", formatTerminal, "ab\x1b[31mcd", 4, "cd", 7},
		{"end within a character", formatText, "ab\xe2\x82", 6, "\uFFFD\uFFFD", 2},
		{"end within a colour", formatText, "ab\x1b[3", 1, "b", 1},
		{"sequence longer than the budget", formatTerminal, "ab\x1b]0;t\x07c", 3, "c", 8},
		{"base64", formatBase64, "abcdefg", 8, "YmNkZWZn", 1},
		{"base64 all", formatBase64, "abcd", 100, "YWJjZA==", 0},
		{"base64 nothing", formatBase64, "abcd", -5, "", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text, first := tt.format.showEnd([]byte(tt.data), tt.budget)
			if text != tt.text || first != tt.first {
				t.Errorf("shows %q from %d; want %q from %d", text, first, tt.text, tt.first)
			}
		})
	}
}

// pages shows data page by page, all of it that can be shown. It fails the test
// where a page breaks a promise.
func pages(t *testing.T, f format, data []byte, budget int, final bool) (text string, used int) {
	t.Helper()
	var shown strings.Builder
	for used < len(data) {
		page, n := f.show(data[used:], budget, final)
		if len(page) > budget {
			t.Fatalf("%s: page of %d bytes, budget %d", f, len(page), budget)
		}
		if !utf8.ValidString(page) {
			t.Fatalf("%s: page %q is not UTF-8", f, page)
		}
		if n < 0 || n > len(data)-used {
			t.Fatalf("%s: covers %d of %d bytes", f, n, len(data)-used)
		}
		if n == 0 {
			if page != "" {
				t.Fatalf("%s: no bytes shown as %q", f, page)
			}
			if budget >= 16 && (final || len(data)-used > maxSequence+16) {
				t.Fatalf("%s: no progress with %d bytes, budget %d, final %v", f, len(data)-used, budget, final)
			}
			break
		}
		shown.WriteString(page)
		used += n
	}
	return shown.String(), used
}

// checkShow checks all that show and showEnd promise for data, also when it
// comes in two parts, the first cut bytes before the others.
func checkShow(t *testing.T, data []byte, budget, cut int) {
	t.Helper()
	for _, f := range []format{formatText, formatTerminal, formatBase64} {
		whole, used := pages(t, f, data, 8*len(data)+16, true)
		if used != len(data) {
			t.Fatalf("%s: all covers %d of %d bytes", f, used, len(data))
		}
		switch f {
		case formatText:
			checkText(t, whole)
		case formatTerminal:
			if want := string([]rune(string(data))); whole != want {
				t.Fatalf("terminal shows %q, want %q", whole, want)
			}
		case formatBase64:
			if got, err := base64.StdEncoding.DecodeString(whole); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("base64 %q of %q: %v", whole, data, err)
			}
		}

		text, used := pages(t, f, data, budget, true)
		if budget >= 16 && text != whole {
			t.Fatalf("%s: pages of %d show %q, want %q", f, budget, text, whole)
		}
		if !strings.HasPrefix(whole, text) {
			t.Fatalf("%s: %d bytes show %q, not the beginning of %q", f, used, text, whole)
		}

		if budget >= 16 && f != formatBase64 { // parts of base64 have padding each
			early, used := pages(t, f, data[:cut], budget, false)
			late, _ := pages(t, f, data[used:], budget, true)
			if early+late != whole {
				t.Fatalf("%s: cut at %d shows %q and %q, want %q", f, cut, early, late, whole)
			}
		}

		end, first := f.showEnd(data, budget)
		switch {
		case len(end) > max(budget, 0):
			t.Fatalf("%s: end of %d bytes, budget %d", f, len(end), budget)
		case first < 0 || first > len(data):
			t.Fatalf("%s: end begins at %d of %d", f, first, len(data))
		case budget >= 16 && first == len(data) && whole != "" && f != formatTerminal:
			t.Fatalf("%s: nothing of the end shown, budget %d", f, budget)
		case f == formatBase64:
			if got, err := base64.StdEncoding.DecodeString(end); err != nil || !bytes.Equal(got, data[first:]) {
				t.Fatalf("base64 end %q: %v", end, err)
			}
		case !strings.HasSuffix(whole, end):
			t.Fatalf("%s: end %q is not the end of %q", f, end, whole)
		}
		if again, used := f.show(data[first:], max(budget, 0), true); again != end || used != len(data)-first {
			t.Fatalf("%s: end from %d shows %q, %q when read again", f, first, end, again)
		}
	}
}

// checkText checks that text has nothing in it that formatText removes.
func checkText(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if unicode.IsControl(r) && r != '\n' && r != '\t' ||
			unicode.Is(unicode.Bidi_Control, r) && r != '\u200e' && r != '\u200f' && r != '\u061c' ||
			0xE0000 <= r && r <= 0xE007F {
			t.Fatalf("%U in text %q", r, text)
		}
	}
	if again, _ := formatText.show([]byte(text), len(text), true); again != text {
		t.Fatalf("text %q shown again is %q", text, again)
	}
}

// hostile are beginnings that, repeated, make a careless scanner look at the
// same bytes again and again.
var hostile = []string{
	"\x1b", "\x1b]", "\u009d", "\x1b[", "\x1bP\x07", "\x1b]\xc2", "\x1b ", "\r", "\xf0\x9f", "\u0301",
	"\x1b]" + strings.Repeat("x", maxSequence), "\u009b" + strings.Repeat("0", maxSequence),
}

func TestShowHostile(t *testing.T) {
	t.Parallel()
	const size = 12 << 10
	for _, s := range hostile {
		data := []byte(strings.Repeat(s, size/len(s)))
		for _, budget := range []int{16, 1000} {
			checkShow(t, data, budget, len(data)/2)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []rune("ab \n\r\t\x07\x18\x1b\x1b\x1b[]P\\(;0m\u0085\u009b\u009c\u009d✓👍\u202e\U000E0041")
	for range 200 {
		var data []byte
		for range random.IntN(200) {
			if random.IntN(5) == 0 {
				data = append(data, byte(random.Uint32()))
			} else {
				data = utf8.AppendRune(data, alphabet[random.IntN(len(alphabet))])
			}
		}
		checkShow(t, data, random.IntN(64), random.IntN(len(data)+1))
	}
}

// FuzzShow puts fill spaces into data at hole: spaces may be within any
// sequence, and so the fuzzer reaches maxSequence with short inputs.
func FuzzShow(f *testing.F) {
	f.Add([]byte("\x1b[1;31mFAIL\x1b[0m \xff✓\r\r\n\x1b]8;;u\x1b\\link\x1b]8;;\x07"), 17, 9, 2, 0)
	f.Add([]byte("one\ntwo\r\u009b2mthree\U000E0041\u202e"), 5, 8, 10, 3)
	f.Add([]byte("\x1bP\x1b\\end"), 16, 4095, 2, maxSequence-3)
	f.Add([]byte("\x1b[mend"), 4096, 4096, 2, maxSequence-2)
	f.Add([]byte("\x1b]\u009c✓"), 100, 4096, 2, maxSequence-2)
	f.Fuzz(func(t *testing.T, data []byte, budget, cut, hole, fill int) {
		at := func(i, n int) int { return max(0, i%n) }
		hole = at(hole, len(data)+1)
		data = slices.Concat(data[:hole], bytes.Repeat([]byte(" "), at(fill, maxSequence+32)), data[hole:])
		checkShow(t, data, at(budget, 2*maxSequence), at(cut, len(data)+1))
	})
}

func BenchmarkShow(b *testing.B) {
	const size = 1 << 20
	inputs := map[string][]byte{
		"random": make([]byte, size),
		"log":    []byte(strings.Repeat("\x1b[32mok\x1b[0m  \tgithub.com/telexec/telexec\t0.012s ✓\r\n", size/50)),
	}
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(inputs["random"])
	for _, s := range hostile {
		inputs[fmt.Sprintf("%.8q", s)] = []byte(strings.Repeat(s, size/len(s)))
	}
	for name, data := range inputs {
		for _, f := range []format{formatText, formatTerminal} {
			b.Run(fmt.Sprintf("%s/%s", f, name), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					f.show(data, 4*size, true)
				}
			})
		}
	}
	b.Run("end", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			formatText.showEnd(inputs["random"], 8<<10)
		}
	})
}
