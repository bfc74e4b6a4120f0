package output_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/secret"
)

func redaction(t testing.TB, values ...string) *output.Redaction {
	t.Helper()
	var texts []secret.Text
	for _, v := range values {
		texts = append(texts, secret.New(v))
	}
	r, err := output.NewRedaction(texts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// redacted is a whole text through one stream, in one piece.
func redacted(r *output.Redaction, text string) string {
	s := r.Stream()
	out := string(s.Write([]byte(text)))
	return out + string(s.Flush())
}

// plainly masks the slow and obvious way.
func plainly(text string, values ...string) string {
	out := []byte(text)
	for _, v := range values {
		for _, form := range output.Forms(v) {
			for i := range text {
				if strings.HasPrefix(text[i:], form) {
					copy(out[i:], strings.Repeat("*", len(form)))
				}
			}
		}
	}
	return string(out)
}

// stars is text with everything between ‹ and › masked.
func stars(marked string) (text, want string) {
	masked := false
	for _, r := range marked {
		switch {
		case r == '‹' || r == '›':
			masked = r == '‹'
		case masked:
			text, want = text+string(r), want+"*"
		default:
			text, want = text+string(r), want+string(r)
		}
	}
	return text, want
}

func TestValuesAreMasked(t *testing.T) {
	values := []string{"hunter2", "a b/c?d", "line one\nline two\n", "abcd", "cdef", "zabcdz", "wxwxw", "it's(ok)!*~"}
	r := redaction(t, values...)
	for _, marked := range []string{
		"",
		"nothing to see",
		"‹hunter2›",
		"the password is ‹hunter2›.",
		"‹hunter2hunter2› and ‹hunter2› hunter",
		"hhunter ‹hunter2›2 hunterhunter‹hunter2›",
		"‹abcd› ‹cdef› ‹abcdef› abc‹cdef› ‹abcd›e",
		"‹zabcdz› z‹abcd›y z‹abcdef› z‹abcd›",
		"‹wxwxw› ‹wxwxwxwxwxw›x wxwx",
		"‹a b/c?d› ‹a+b%2Fc%3Fd› ‹a+b%2fc%3fd› ‹a%20b%2Fc%3Fd› ‹%61%20%62%2F%63%3F%64› ‹%61%20%62%2f%63%3f%64›",
		"‹it's(ok)!*~› ‹it%27s%28ok%29%21%2A~› ‹it%27s%28ok%29%21%2a~› and " + url.PathEscape("a b") + " is not one",
		"‹line one\nline two\n› ‹line one\r\nline two\r\n› line one\rline two",
	} {
		text, want := stars(marked)
		if got := redacted(r, text); got != want {
			t.Errorf("of %q is left\n%q, want\n%q", text, got, want)
		}
		if got := plainly(text, values...); got != want {
			t.Errorf("the slow way leaves of %q\n%q, want\n%q", text, got, want)
		}
	}
}

func TestBinaryValues(t *testing.T) {
	value := "\x00\xff\x80\x00\n\xfe%2B"
	r := redaction(t, value)
	for _, text := range []string{value, "\x00" + value + value + "\x00\xff\x80", value[:len(value)-1], url.QueryEscape(value), url.PathEscape(value)} {
		if got, want := redacted(r, text), plainly(text, value); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// Wherever in a text a value stands, when the whole is encoded nothing is left
// of it but what its first and last digits share with their neighbours.
func TestBase64InEveryPlace(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, alphabet := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		for n := 4; n < 40; n++ {
			value := make([]byte, n)
			for i := range value {
				value[i] = byte(random.Uint32())
			}
			r := redaction(t, string(value))
			for before := range 7 {
				for after := range 4 {
					text := strings.Repeat("<", before) + string(value) + strings.Repeat(">", after)
					encoded := alphabet.EncodeToString([]byte(text))
					got := redacted(r, encoded)
					// A digit is the value's own where all its six bits are.
					for i := range got {
						own := i*6 >= before*8 && (i+1)*6 <= (before+n)*8
						if own != (got[i] == '*') || !own && got[i] != encoded[i] {
							t.Fatalf("%d bytes behind %d: %q became %q at digit %d", n, before, encoded, got, i)
						}
					}
				}
			}
		}
	}
}

func TestOrdinaryTextIsLeftAlone(t *testing.T) {
	r := redaction(t, "hunter2", "correct horse battery staple", "AKIAIOSFODNN7EXAMPLE", "%41%42+/=")
	text := string(ordinary(1 << 20))
	if got := redacted(r, text); got != text {
		t.Error("a text without any of the values was changed")
	}
}

// ordinary is text like that of programs, without any secret.
func ordinary(n int) []byte {
	random := rand.New(rand.NewPCG(3, 4))
	words := strings.Fields("the package apt-get installed version 1.2.3-4ubuntu5 Setting up libc6:amd64 (2.39) ... hunter correct horse battery staples " +
		"GET /v1/commands?page_size=20&token=%41%42 HTTP/1.1 200 QUtJQUlPU0ZPRE5O aHVudGVy /usr/share/doc drwxr-xr-x root 4096 Jan error: failed to open file")
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[random.IntN(len(words))])
		b.WriteByte(" \n\t "[random.IntN(4)])
	}
	return b.Bytes()[:n]
}

// troublesome are values that overlap with themselves and one another.
var troublesome = []string{"aaaa", "abcab", "bcabcabcd", "abab", "cabc", "a\nb\n"}

// troubled is text full of them and their halves.
func troubled(random *rand.Rand, n int) string {
	pieces := append([]string{"a", "b", "c", "d", "abc", "\n", "\r\n", "%61", "%6"}, troublesome...)
	for _, v := range troublesome {
		pieces = append(pieces, output.Forms(v)...)
	}
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	return b.String()[:n]
}

// Any chunks give what one gives; and a stream that is left at any of them and
// begun anew where it has stopped goes on as if nothing had happened.
func TestChunksAndRestartsChangeNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	r := redaction(t, troublesome...)
	for round := range 120 {
		text := troubled(random, 1+random.IntN(120))
		want := plainly(text, troublesome...)
		if got := redacted(r, text); got != want {
			t.Fatalf("%q became\n%q, want\n%q", text, got, want)
		}
		for cut := range len(text) + 1 {
			if got := inTwo(r, text, cut, 1+round%5); got != want {
				t.Fatalf("%q left at %d became\n%q, want\n%q", text, cut, got, want)
			}
		}
		var sizes []byte
		for range 40 {
			sizes = append(sizes, byte(random.IntN(12)))
		}
		for restart := range 2 {
			if got := inChunks(t, r, text, sizes, restart == 1); got != want {
				t.Fatalf("%q in chunks of %v (restarts: %d) became\n%q, want\n%q", text, sizes, restart, got, want)
			}
		}
	}
}

// inTwo gives one stream what is before cut, in chunks of a size, and another
// stream everything from where the first has stopped.
func inTwo(r *output.Redaction, text string, cut, size int) string {
	var out []byte
	first, second := r.Stream(), r.Stream()
	for chunk := range slices.Chunk([]byte(text[:cut]), size) {
		out = append(out, first.Write(chunk)...)
	}
	out = append(out, second.Write([]byte(text[len(out):]))...)
	return string(append(out, second.Flush()...))
}

// inChunks writes text in chunks of these sizes, again and again, and if wanted
// in a new stream whenever a size is 0.
func inChunks(t testing.TB, r *output.Redaction, text string, sizes []byte, restart bool) string {
	t.Helper()
	var out []byte
	s, at := r.Stream(), 0
	for i := 0; at < len(text); i++ {
		size := 1
		if i < len(sizes) {
			size = int(sizes[i])
		} else if len(sizes) > 0 {
			size = 1 + int(sizes[i%len(sizes)])
		}
		if size == 0 && restart {
			s, at = r.Stream(), len(out)
			continue
		}
		chunk := []byte(text[at:min(at+size, len(text))])
		before := bytes.Clone(chunk)
		out = append(out, s.Write(chunk)...)
		if !bytes.Equal(chunk, before) {
			t.Fatalf("Write changed its argument %q to %q", before, chunk)
		}
		at += len(chunk)
		if len(out)+s.Held() != at {
			t.Fatalf("%d bytes given out and %d held of %d", len(out), s.Held(), at)
		}
	}
	return string(append(out, s.Flush()...))
}

// What is held back is bounded by the values, however long they go on, and so
// nothing waits for the end of an endless chain of them.
func TestHeldIsBounded(t *testing.T) {
	for _, value := range []string{"aaaa", "abcab", "ab" + strings.Repeat("a", 100), strings.Repeat("abc", 2000)} {
		r := redaction(t, value)
		longest := 0
		for _, form := range output.Forms(value) {
			longest = max(longest, len(form))
		}
		text := strings.Repeat(value, 1+100_000/len(value))
		if value == "abcab" {
			text = strings.Repeat("abc", 30_000)
		}
		s, most, given := r.Stream(), 0, 0
		for chunk := range slices.Chunk([]byte(text), 777) {
			given += len(s.Write(chunk))
			most = max(most, s.Held())
		}
		if most >= 2*longest || given < len(text)-2*longest {
			t.Errorf("%.10s…: %d bytes were held, of forms of at most %d; %d of %d given", value, most, longest, given, len(text))
		}
		if got := redacted(r, text); strings.Trim(got[:len(got)-2], "*") != "" {
			t.Errorf("%.10s…: not all of the chain is masked", value)
		}
	}
}

func TestLongChunks(t *testing.T) {
	values := []string{"hunter2", "aaaa", strings.Repeat("0123456789", 500)}
	r := redaction(t, values...)
	text := ordinary(100_000)
	for i, at := 0, 5000; at < len(text)-6000; i, at = i+1, at+5678 {
		copy(text[at:], values[i%3])
	}
	copy(text[50_000:], strings.Repeat("a", 20_000))
	want := plainly(string(text), values...)
	if got := redacted(r, string(text)); got != want {
		t.Error("in one chunk: the result is another")
	}
	for _, size := range []int{1, 100, 8192, 32_767} {
		var out []byte
		s := r.Stream()
		for chunk := range slices.Chunk(text, size) {
			out = append(out, s.Write(chunk)...)
		}
		if out = append(out, s.Flush()...); string(out) != want {
			t.Errorf("in chunks of %d: the result is another", size)
		}
	}
}

func TestFlushBeginsAnew(t *testing.T) {
	r := redaction(t, "hunter2")
	s := r.Stream()
	out := string(s.Write([]byte("x hunt")))
	out += string(s.Flush()) + "|" + string(s.Flush())
	out += string(s.Write([]byte("er2 hunter2 h")))
	out += string(s.Flush())
	if want := "x hunt|er2 ******* h"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
}

// Where there is nothing to do, nothing is done.
func TestTheCallersSliceComesBack(t *testing.T) {
	data := []byte("nothing here to hide")
	for name, r := range map[string]*output.Redaction{"nil": nil, "no values": redaction(t), "a value": redaction(t, "hunter2")} {
		s := r.Stream()
		for range 2 {
			out := s.Write(data)
			if len(out) != len(data) || &out[0] != &data[0] {
				t.Errorf("%s: Write gave %q, want its argument back", name, out)
			}
			if more := s.Flush(); len(more) != 0 {
				t.Errorf("%s: Flush gave %q", name, more)
			}
		}
		if out := s.Write(nil); len(out) != 0 {
			t.Errorf("%s: nothing became %q", name, out)
		}
	}
	// A beginning at the end is held, the rest is still the caller's.
	s := redaction(t, "hunter2").Stream()
	if out := s.Write([]byte("to hide: hunt")); string(out) != "to hide: " || cap(out) != len(out) {
		t.Errorf("Write gave %q of capacity %d", out, cap(out))
	}
}

func TestBoundsOfValues(t *testing.T) {
	many := func(n, size int) (values []secret.Text) {
		for i := range n {
			values = append(values, secret.New(fmt.Sprintf("%0*d", size, i)))
		}
		return values
	}
	random := make([]byte, output.MostRedacted)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for name, c := range map[string]struct {
		values []secret.Text
		reason string
	}{
		"none":                     {nil, ""},
		"the shortest":             {many(1, 4), ""},
		"the longest":              {many(1, 8<<10), ""},
		"the longest, random":      {[]secret.Text{secret.New(string(random))}, ""},
		"the longest, line ends":   {[]secret.Text{secret.New(strings.Repeat("\n", 8<<10))}, ""},
		"the longest, in parts":    {[]secret.Text{secret.New(string(random[:4096])), secret.New(string(random[4096:]))}, ""},
		"the most":                 {many(64, 200), ""},
		"the same twice":           {slices.Concat(many(2, 20), many(2, 20)), ""},
		"empty":                    {[]secret.Text{{}}, fault.ReasonSecretTooShort},
		"too short":                {append(many(3, 10), secret.New("abc")), fault.ReasonSecretTooShort},
		"too long":                 {many(1, 8<<10+1), fault.ReasonSecretsTooLarge},
		"too many":                 {many(65, 10), fault.ReasonSecretsTooLarge},
		"too long together":        {many(64, 8<<10), fault.ReasonSecretsTooLarge},
		"too large in their forms": {[]secret.Text{secret.New(string(random)), secret.New(strings.Repeat("\xff/ ", 2700)), secret.New("x" + string(random[1:]))}, fault.ReasonSecretsTooLarge},
	} {
		r, err := output.NewRedaction(c.values...)
		if fault.ReasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
			t.Errorf("%s: %v, want reason %q", name, err, c.reason)
		}
		if err != nil {
			if e := fault.From(err); e.Kind != fault.Invalid || e.Hint == "" || strings.Contains(e.Text(), "abc") {
				t.Errorf("%s: %+v", name, e)
			}
		} else if len(c.values) > 0 && r.States() > output.MostStates {
			t.Errorf("%s: %d states", name, r.States())
		}
	}
}

func TestOneRedactionManyStreams(t *testing.T) {
	r := redaction(t, troublesome...)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			text := troubled(rand.New(rand.NewPCG(7, uint64(i))), 2000)
			if got, want := inTwo(r, text, 1000, 10), plainly(text, troublesome...); got != want {
				t.Errorf("stream %d: another result", i)
			}
		})
	}
	all.Wait()
}

func TestNothingOfAValuePrints(t *testing.T) {
	r := redaction(t, "hunter2")
	s := r.Stream()
	s.Write([]byte("hunter"))
	holder := struct {
		r *output.Redaction
		s *output.RedactedStream
	}{r, s}
	shown := fmt.Sprintf("%v %+v %#v", holder, holder, holder)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		shown += fmt.Sprintf(verb+verb, r, s)
	}
	for _, form := range []string{"hunt", fmt.Sprintf("%x", "hunt"), "104 117", "0x68, 0x75"} {
		if strings.Contains(shown, form) {
			t.Errorf("%q shows in %.200s", form, shown)
		}
	}
}

// Whatever values and text, the result is that of the slow way, in any chunks
// and with restarts anywhere.
func FuzzRedact(f *testing.F) {
	f.Add("hunter2", "abcd", "x hunter2 aHVudGVyMg== abcdabcd", []byte{3, 0, 5})
	f.Add("abcab", "bcabcd", "abcabcabcabcabcdabcabX", []byte{1, 0, 1, 0, 7, 0})
	f.Add("aaaa", "a\nb\n", "aaaaaaaaa\r\nb\r\na%0ab%0A%61", []byte{2})
	f.Add("\x00\xff\x80\x01", "????", "%00%FF%80%01 AP+AAQ AP-AAQ", []byte{})
	f.Fuzz(func(t *testing.T, one, two, text string, sizes []byte) {
		if len(one) < 4 || len(two) < 4 || len(one)+len(two) > 200 || len(text) > 2000 {
			return
		}
		r := redaction(t, one, two)
		want := plainly(text, one, two)
		if got := redacted(r, text); got != want {
			t.Fatalf("%q became\n%q, want\n%q", text, got, want)
		}
		for _, restart := range []bool{false, true} {
			if got := inChunks(t, r, text, sizes, restart); got != want {
				t.Fatalf("%q in chunks of %v (restarts: %v) became\n%q, want\n%q", text, sizes, restart, got, want)
			}
		}
		if len(sizes) > 0 {
			cut := min(int(sizes[0])*8, len(text))
			if got := inTwo(r, text, cut, 1+len(sizes)); got != want {
				t.Fatalf("%q left at %d became\n%q, want\n%q", text, cut, got, want)
			}
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	random := rand.New(rand.NewPCG(8, 9))
	tokens := func(n int) (values []string) {
		for range n {
			var v strings.Builder
			for range 32 {
				v.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[random.IntN(62)])
			}
			values = append(values, v.String())
		}
		return values
	}
	binary := make([]byte, 32<<10)
	for i := range binary {
		binary[i] = byte(random.Uint32())
	}
	five := append(tokens(3), "hunter2-Passw0rd", "correct horse battery staple")
	for _, c := range []struct {
		name   string
		values []string
		text   []byte
	}{
		{"one value", tokens(1), ordinary(32 << 10)},
		{"five values", five, ordinary(32 << 10)},
		{"64 values", tokens(64), ordinary(32 << 10)},
		{"five values, binary", five, binary},
		{"five values, base64", five, []byte(base64.StdEncoding.EncodeToString(binary))},
		{"a value per line", five, bytes.Repeat([]byte("the password is "+five[3]+", as it was before and has always been\n"), 450)},
		{"nothing but values", []string{"aaaa"}, bytes.Repeat([]byte("a"), 32<<10)},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := redaction(b, c.values...).Stream()
			s.Write(c.text)
			b.SetBytes(int64(len(c.text)))
			b.ReportAllocs()
			for b.Loop() {
				s.Write(c.text)
			}
		})
	}
	b.Run("compile five values", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			redaction(b, five...)
		}
	})
}
