package output_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/output"
)

func TestTextJoinsWhatWasSplit(t *testing.T) {
	for name, c := range map[string]struct {
		chunks []string
		want   []string // what each chunk gives
		end    string
	}{
		"euro in two":        {[]string{"5 \xe2\x82", "\xac!"}, []string{"5 ", "€!"}, ""},
		"euro in three":      {[]string{"\xe2", "\x82", "\xac"}, []string{"", "", "€"}, ""},
		"four bytes":         {[]string{"\xf0\x9f\x98", "\x80"}, []string{"", "😀"}, ""},
		"empty chunk within": {[]string{"\xe2\x82", "", "\xac"}, []string{"", "", "€"}, ""},
		"never completed":    {[]string{"a\xe2\x82"}, []string{"a"}, "\uFFFD\uFFFD"},
		"broken by ASCII":    {[]string{"\xe2\x82", "x"}, []string{"", "\uFFFD\uFFFDx"}, ""},
		"lone continuation":  {[]string{"\x82x\xff"}, []string{"\uFFFDx\uFFFD"}, ""},
		"continuations only": {[]string{"\x82\x82\x82\x82\x82"}, []string{strings.Repeat("\uFFFD", 5)}, ""},
		"NUL passes":         {[]string{"a\x00b"}, []string{"a\x00b"}, ""},
		"overlong at once":   {[]string{"\xc0", "\x80"}, []string{"\uFFFD", "\uFFFD"}, ""},
		"surrogate":          {[]string{"\xed\xa0", "\x80"}, []string{"\uFFFD\uFFFD", "\uFFFD"}, ""},
		"U+FFFD itself":      {[]string{"\xef\xbf", "\xbd"}, []string{"", "\uFFFD"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var text output.Text
			for i, chunk := range c.chunks {
				if got := text.Next([]byte(chunk)); got != c.want[i] {
					t.Errorf("chunk %d gave %q, want %q", i, got, c.want[i])
				}
			}
			if held := text.Held(); held > 3 || (c.end == "") != (held == 0) {
				t.Errorf("%d bytes held back", held)
			}
			if got := text.End(); got != c.end || text.Held() != 0 {
				t.Errorf("end gave %q, want %q", got, c.end)
			}
		})
	}
}

// FuzzText: however a stream is cut, the text is that of the whole, valid, and
// equal to the bytes where they were valid.
func FuzzText(f *testing.F) {
	f.Add([]byte("5 € and 😀\x00\xff\xe2\x82"), uint8(3), uint8(7))
	f.Add([]byte("\xed\xa0\x80\xf4\x90\x80\x80"), uint8(1), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, i, j uint8) {
		var whole, cut output.Text
		want := whole.Next(b) + whole.End()
		a, z := min(int(i), len(b)), min(int(j), len(b))
		a, z = min(a, z), max(a, z)
		got := cut.Next(b[:a]) + cut.Next(b[a:z]) + cut.Next(b[z:]) + cut.End()
		if got != want || !utf8.ValidString(got) {
			t.Fatalf("%q cut at %d and %d gave %q, whole %q", b, a, z, got, want)
		}
		if utf8.Valid(b) && got != string(b) {
			t.Fatalf("valid %q became %q", b, got)
		}
	})
}
