package terminal

import (
	"bytes"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// What was typed ahead is known again as the terminal, or an editor, has shown it.
func TestWhatWasShown(t *testing.T) {
	for name, tc := range map[string]struct {
		output string
		want   bool
	}{
		"nothing":                   {"Password:\r\nhello\r\n", false},
		"a part":                    {"hunter\r\n", false},
		"by the terminal":           {"x\r\nhunter2\r\n", true},
		"erased in part":            {"hunx\b \bter3\b \b2\r\n", true},
		"by an editor":              {"\x1b[?2004hme$ \x1b[1mhun\x1b(Bter2\x1b]0;title\x07\r\n", true},
		"over the edge":             {"hun\r\nter2\r\n", true},
		"long ago":                  {"hunter2" + strings.Repeat("x", 3*aheadSeen), true},
		"at the end of much":        {strings.Repeat("x", 3*aheadSeen) + "hunter2", true},
		"in the middle of too much": {strings.Repeat("x", 3*aheadSeen) + "hunter2" + strings.Repeat("x", 3*aheadSeen), false},
		"across where it is looked": {strings.Repeat("x", aheadSeen-3) + "hunter2" + strings.Repeat("x", 10), true},
	} {
		l := &live{ring: newRing(1000)}
		l.ring.write([]byte("hunter2 before it was typed\r\n"))
		at := l.ring.end
		l.ring.write([]byte(tc.output))
		if got := l.wasShown("hunter2", at); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The lines are told apart, each with where it was begun.
func TestLinesTypedAhead(t *testing.T) {
	l := &live{ring: newRing(0)}
	a := &l.turn.ahead
	for _, part := range []string{"sec", "ret\rec", "ho\r", "rest"} {
		a.add([]byte(part), l.offset())
		if part != "sec" && part != "ret\rec" {
			l.ring.write([]byte("echo\r\n"))
		}
	}
	if a.lines != 2 || len(a.begun) != 3 {
		t.Errorf("%+v", a)
	}
	if line := l.aheadLine(); line != "echo" || a.lines != 1 || !a.any {
		t.Errorf("%q, %+v", line, a)
	}
	if a.runs(true); a.lines != 0 || string(a.text) != "rest" || len(a.begun) != 1 || l.aheadLine() != "" {
		t.Errorf("%+v", a)
	}
}

// What has fallen off a ring is not read, and no other bytes instead of it.
func TestARingGivesNothingElse(t *testing.T) {
	r := newRing(100)
	r.write(bytes.Repeat([]byte("x"), ringMost+10))
	b := make([]byte, 10)
	if n := r.read(b, 100, r.end); n != 0 {
		t.Errorf("%q", b[:n])
	}
	if n := r.read(b, r.start, r.end); n != len(b) {
		t.Errorf("%d bytes", n)
	}
}

// A screen that is drawn anew does not push out what pumps have not read.
func TestLastLines(t *testing.T) {
	if got := lastLines([]byte("one\ntwo\nthree"), 9); string(got) != "three" {
		t.Errorf("%q", got)
	}
	if got := lastLines([]byte("one\ntwo"), 7); string(got) != "one\ntwo" {
		t.Errorf("%q", got)
	}
	r := newRing(0)
	r.write(make([]byte, pumpMost+readSize))
	if r.write(lastLines(make([]byte, 4<<20), redrawMost)); r.start != 0 {
		t.Errorf("%d bytes are gone", r.start)
	}
}

// A pump whose bytes are gone says so, and holds nothing up.
func TestAPumpThatIsTooLate(t *testing.T) {
	l := &live{ring: newRing(0), room: make(chan struct{}, 1), holders: make(map[*Process]bool)}
	p := newProcess(l, Run{})
	p.from = 0
	l.holders[p] = true
	l.ring.write(make([]byte, ringMost+1))
	p.finish(command.Ending{}, nil)
	p.pump()
	if _, err := p.Wait(); fault.ReasonOf(err) != fault.ReasonOutputIncomplete || l.lag() != 0 {
		t.Errorf("%v, %d", err, l.lag())
	}
}
