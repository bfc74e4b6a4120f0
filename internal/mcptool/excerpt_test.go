package mcptool

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// stored gives of a stream what the service gives: all of it, or beyond the limit
// a beginning and an end.
func stored(data string, limit int, complete bool) *telexecv1.StreamContent {
	c := content(data)
	c.Complete = complete
	if len(data) > limit {
		c.Data, c.Tail = []byte(data[:limit/2]), []byte(data[len(data)-limit/2:])
		c.TailOffset = int64(len(data) - limit/2)
		c.OmittedBytes = c.TailOffset - int64(limit/2)
	}
	return c
}

func TestExcerpt(t *testing.T) {
	long := strings.Repeat("0123456789\n", 1000)
	for _, tt := range []struct {
		name         string
		content      *telexecv1.StreamContent
		budget       int
		format       format
		text         string
		omittedFrom  int64
		omittedBytes int64
		next         int64
	}{
		{"all", content("hello\n"), 256, formatText, "hello\n", 0, 0, 6},
		{"nothing", content(""), 256, formatText, "", 0, 0, 0},
		{"colours cost nothing", content(strings.Repeat("\x1b[32m", 100) + "x"), 256, formatText, "x", 0, 0, 501},
		{"beginning and end", content(long), 44, formatText,
			"0123456789\n0123456789\n\n[… 10956 bytes left out, from offset 22 on …]\n0123456789\n0123456789\n", 22, 10956, 11000},
		{"of what was cut before", stored(long, 2200, true), 44, formatText,
			"0123456789\n0123456789\n\n[… 10956 bytes left out, from offset 22 on …]\n0123456789\n0123456789\n", 22, 10956, 11000},
		{"cut inside of a sequence", stored(strings.Repeat("x", 400)+"\x1b[32mgreen\n"+strings.Repeat("\x1b[0m", 85), 700, true), 256, formatText,
			strings.Repeat("x", 128) + "\n[… 283 bytes left out, from offset 128 on …]\n", 128, 283, 751},
		{"a character that is still coming", stored("a\xe2\x9c", 100, false), 256, formatText, "a", 0, 0, 1},
		{"an end that is still coming", stored(strings.Repeat("x", 1000)+"A\x1b[3", 2000, false), 256, formatText,
			strings.Repeat("x", 128) + "\n[… 745 bytes left out, from offset 128 on …]\n" + strings.Repeat("x", 127) + "A", 128, 745, 1001},
		{"a sequence that is still coming", stored("a\x1b[3", 100, false), 256, formatText, "a", 0, 0, 1},
		{"base64 is one piece, without a mark in it", content(long), 256, formatBase64, base64.StdEncoding.EncodeToString([]byte(long[:192])), 192, 10808, 192},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := excerptOf(streamStdout, tt.content, tt.budget, tt.format)
			if e.text() != tt.text || e.info.OmittedOffset != tt.omittedFrom || e.info.OmittedBytes != tt.omittedBytes || e.info.NextOffset != tt.next {
				t.Errorf("%q, %+v", e.text(), e.info)
			}
			if len(e.head)+len(e.tail) > tt.budget {
				t.Errorf("%d bytes are more than %d", len(e.head)+len(e.tail), tt.budget)
			}
		})
	}
}

// TestExcerptsTellTheTruth: with whatever output and budget, what is shown and
// what is said to be left out are all there is, and no more than the budget.
func TestExcerptsTellTheTruth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var b strings.Builder
		for range r.IntN(300) {
			b.WriteString([]string{"a", "line\n", "✓", "\x1b[1;31m", "\r\n", "\xff", "\x1b]0;t\x07", "  "}[r.IntN(8)])
		}
		data, budget := b.String(), minBudget+r.IntN(400)
		e := excerptOf(streamStdout, content(data), budget, formatText)
		if len(e.head)+len(e.tail) > budget {
			t.Fatalf("%d bytes are more than %d for %q", len(e.head)+len(e.tail), budget, data)
		}
		whole, _ := formatText.show([]byte(data), 1<<20, true)
		if e.info.OmittedBytes == 0 {
			if e.text() != whole {
				t.Fatalf("%q is shown as %q, want %q", data, e.text(), whole)
			}
			continue
		}
		omitted := data[e.info.OmittedOffset:][:e.info.OmittedBytes]
		middle, _ := formatText.show([]byte(omitted), 1<<20, true)
		if e.head+middle+e.tail != whole {
			t.Fatalf("%q: %q, %q left out, %q: %+v", data, e.head, middle, e.tail, e.info)
		}
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		stdout, stderr       int
		forStdout, forStderr int
	}{
		{0, 0, 1000, 0}, {5000, 100, 900, 100}, {100, 5000, 100, 900}, {5000, 5000, 500, 500}, {500, 500, 500, 500},
	} {
		if out, err := share(1000, tt.stdout, tt.stderr); out != tt.forStdout || err != tt.forStderr {
			t.Errorf("%d and %d share 1000 as %d and %d, want %d and %d", tt.stdout, tt.stderr, out, err, tt.forStdout, tt.forStderr)
		}
	}
}

func TestHeadAndTailLines(t *testing.T) {
	data := "one\ntwo\nthree\nfour"
	for n, want := range map[int]string{1: "one\n", 2: "one\ntwo\n", 4: data, 9: data} {
		if got := headLines([]byte(data), n); string(got) != want {
			t.Errorf("the first %d lines are %q, want %q", n, got, want)
		}
	}
	for _, end := range []string{"", "\n"} {
		for n, want := range map[int]string{1: "four", 2: "three\nfour", 4: data, 9: data} {
			in := &outputArgs{TailLines: n, Format: formatText}
			e := in.lastLines(streamStdout, content(data+end), 1000)
			if e.info.Note != "" || e.head != want+end || e.info.Offset != int64(len(data)-len(want)) || e.info.NextOffset != int64(len(data+end)) {
				t.Errorf("the last %d lines are %q, want %q: %+v", n, e.head, want+end, e.info)
			}
		}
	}
	for n, noted := range map[int]bool{10: false, 100: true} {
		in := &outputArgs{TailLines: n, HeadLines: n, Format: formatText}
		long := content(strings.Repeat("0123456789\n", 1000))
		if e := in.lastLines(streamStdout, long, 256); (e.info.Note != "") != noted {
			t.Errorf("the last %d lines: %+v", n, e.info)
		}
		if e := in.firstLines(streamStdout, long, 256); (e.info.Note != "") != noted || e.paged != noted {
			t.Errorf("the first %d lines: %+v", n, e.info)
		}
	}
	in := &outputArgs{TailLines: 1, Format: formatText}
	if e := in.lastLines(streamStdout, stored("a\nb\xe2\x9c", 100, false), 1000); e.head != "b" || e.info.NextOffset != 3 {
		t.Errorf("%q %+v", e.head, e.info)
	}
}

func TestParseResource(t *testing.T) {
	for uri, want := range map[string]bool{
		"telexec://commands/" + testID + "/stdout":           true,
		"telexec://commands/" + testID + "/stderr?offset=10": true,
		"telexec://commands/" + testID + "/stdout?offset=-1": false,
		"telexec://commands/" + testID + "/stdout?offset=x":  false,
		"telexec://commands/" + testID + "/stdin":            false,
		"telexec://commands/" + testID + "/stdout/x":         false,
		"telexec://commands/short/stdout":                    false,
		"telexec://hosts/" + testID + "/stdout":              false,
		"file:///etc/passwd":                                 false,
		"telexec://commands/%2e%2e/stdout":                   false,
		"\x00":                                               false,
	} {
		if in, ok := parseResource(uri); ok != want {
			t.Errorf("%q: %t, want %t", uri, ok, want)
		} else if ok && in.CommandID != testID {
			t.Errorf("%q: %+v", uri, in)
		}
	}
}

// TestWhatIsHeldBack: bytes that may still belong to something are said to be there.
func TestWhatIsHeldBack(t *testing.T) {
	for data, noted := range map[string]bool{"a\n\x1b]0;title": true, "a\xe2\x9c": true, "50%\r": false, "a\n": false} {
		c := stored(data, 100, false)
		in := &outputArgs{TailLines: 5, Format: formatText}
		for name, e := range map[string]excerpt{"page": page(streamStdout, c, c.GetData(), 256, formatText), "tail": in.lastLines(streamStdout, c, 256)} {
			if (e.info.Note != "") != noted {
				t.Errorf("%s of %q: %+v", name, data, e.info)
			}
		}
		if e := page(streamStdout, content(data), []byte(data), 256, formatText); e.info.Note != "" || e.info.NextOffset != int64(len(data)) {
			t.Errorf("all of %q: %+v", data, e.info)
		}
	}
}
