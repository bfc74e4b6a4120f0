package mcptool

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// lookFor finds all lines of data that match, with the data in chunks of up to n bytes.
func lookFor(pattern, data string, r *rand.Rand, n int) []matchFacts {
	re := regexp.MustCompile(pattern)
	l := lines{stream: streamStderr}
	var got []matchFacts
	for at := 0; at < len(data); {
		size := min(1+r.IntN(n), len(data)-at)
		for p := range l.add(int64(at), []byte(data[at:at+size])) {
			got = slices.AppendSeq(got, p.matching(re, streamStderr))
		}
		at += size
	}
	return slices.AppendSeq(got, l.open(maxLine).matching(re, streamStderr))
}

// TestLines: however the chunks fall, the lines are the same.
func TestLines(t *testing.T) {
	data := "first\r\n\x1b[32msecond\x1b[0m\n\n10%\r20%\r30%\n✓ third\nprompt> "
	want := []matchFacts{
		{Stream: streamStderr, Line: "first"}, {Stream: streamStderr, Offset: 7, Line: "second"},
		{Stream: streamStderr, Offset: 24, Line: "10%"}, {Stream: streamStderr, Offset: 28, Line: "20%"}, {Stream: streamStderr, Offset: 32, Line: "30%"},
		{Stream: streamStderr, Offset: 36, Line: "✓ third"}, {Stream: streamStderr, Offset: 46, Line: "prompt> ", Unfinished: true},
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		if got := lookFor("^.+$", data, r, 9); !slices.Equal(got, want) {
			t.Fatalf("%+v\nwant %+v", got, want)
		}
	}
}

// TestNothingHidesInLongLines: whatever is in a line, however long, is found once,
// is shown, and its offset is true; and no more than one piece is held.
func TestNothingHidesInLongLines(t *testing.T) {
	const needle = "password=hunter2"
	r := rand.New(rand.NewPCG(5, 6))
	for round := range 60 {
		data := []byte(strings.Repeat("x", 2000+r.IntN(60_000)))
		for range r.IntN(4) {
			data[r.IntN(len(data))] = '\n'
		}
		var places []int
		for at := r.IntN(3000); at+len(needle) < len(data); at += 3000 + r.IntN(20_000) {
			if !slices.Contains(data[at:at+len(needle)], '\n') {
				copy(data[at:], needle)
				places = append(places, at)
			}
		}
		if round%2 == 0 { // and at each place where a line may be cut
			for at := maxLine - 8; at+len(needle) < len(data); at += maxLine - overlap {
				data[at-1] = 'x'
			}
		}
		got := lookFor(needle, string(data), r, 3000)
		// Of one piece the first match is told: every place is in a piece that is.
		for _, m := range got {
			if !strings.Contains(m.Line, needle) || len(m.Line) > maxMatch {
				t.Fatalf("shown is %q", m.Line)
			}
			if at := int(m.Offset); string(data[at:at+len(m.Line)]) != m.Line {
				t.Fatalf("offset %d is not where it is", at)
			}
		}
		for _, place := range places {
			near := func(m matchFacts) bool {
				return int(m.Offset) <= place+maxLine && int(m.Offset)+len(m.Line) >= place-maxLine
			}
			if !slices.ContainsFunc(got, near) {
				t.Fatalf("the one at %d is not found: %+v", place, got)
			}
		}
		if len(places) == 0 && len(got) > 0 {
			t.Fatalf("%+v", got)
		}
	}
	// One that stands across a cut is found, once.
	for _, at := range []int{maxLine - 8, maxLine - overlap, maxLine - overlap - 8, maxLine - len(needle), maxLine} {
		data := []byte(strings.Repeat("x", 50_000))
		copy(data[at:], needle)
		if got := lookFor(needle, string(data), r, 500); len(got) != 1 || !got[0].Part {
			t.Errorf("at %d: %+v", at, got)
		}
	}
	// So is one in the overlap that the last piece begins with.
	data := []byte(strings.Repeat("x", maxLine+100))
	copy(data[maxLine-500:], needle)
	if got := lookFor(needle, string(data), r, 500); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	// So is one in a last line without an end.
	if got := lookFor(needle, needle+strings.Repeat("x", 6000), r, 500); len(got) != 1 || got[0].Offset != 0 {
		t.Errorf("%+v", got)
	}
	var l lines
	for i := range 100 {
		for range l.add(int64(i)*1000, []byte(strings.Repeat("x", 1000))) {
		}
		if cap(l.rest) > 4*maxLine {
			t.Fatalf("%d bytes are held", cap(l.rest))
		}
	}
}
