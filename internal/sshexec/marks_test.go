package sshexec

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
)

const (
	keyA = "AAAAAAAAAAAAAAAAAAAAAAAAAA"
	keyB = "BBBBBBBBBBBBBBBBBBBBBBBBBB"
)

// split gives what marks makes of a stream that comes in pieces.
func split(stream []byte, cut func(i int) bool) (data string, said []mark, held string) {
	var m marks
	var out bytes.Buffer
	known := func(k string) bool { return k == keyA }
	var piece []byte
	give := func() {
		m.next(bytes.Clone(piece), known, func(b []byte) { out.Write(b) }, func(s mark) { said = append(said, s) })
		piece = piece[:0]
	}
	for i, c := range stream {
		piece = append(piece, c)
		if cut(i) {
			give()
		}
	}
	give()
	return out.String(), said, string(m.held)
}

var markPattern = regexp.MustCompile(`(?s-m)\x1etelexec:` + keyA + `: ([^\n]*)\n`)

// Against a plain regular expression, cut anywhere.
func FuzzMarks(f *testing.F) {
	good := "\x1etelexec:" + keyA + ": done exit 0  \n"
	for _, s := range []string{
		"", "plain", good, "a" + good + "b", good + good, "\x1e" + good, "\x1etelexec:" + keyB + ": x\n", "\x1etelexec:" + keyA,
		"\x1etelexec:" + keyB + ": " + good, "x\x1e\x1e\x00\x1etele" + good, "\x1etelexec:" + keyA + ":x\n",
	} {
		f.Add([]byte(s), uint64(0))
		f.Add([]byte(s), uint64(0x5555555555555555))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cuts uint64) {
		data, said, held := split(stream, func(i int) bool { return cuts>>(i%64)&1 == 1 })
		var want strings.Builder
		var marks []string
		rest := stream
		for {
			at := markPattern.FindSubmatchIndex(rest)
			if at == nil {
				break
			}
			if at[1]-at[0] > markMost {
				want.Write(rest[:at[0]+1])
				rest = rest[at[0]+1:]
				continue
			}
			want.Write(rest[:at[0]])
			marks = append(marks, strings.TrimRight(string(rest[at[2]:at[3]]), " "))
			rest = rest[at[1]:]
		}
		want.Write(rest)
		if data+held != want.String() {
			t.Fatalf("data %q and held %q, want %q", data, held, want.String())
		}
		if len(held) >= markMost || held != "" && held[0] != markStart {
			t.Fatalf("held %q", held)
		}
		if len(said) != len(marks) {
			t.Fatalf("%q, want %q", said, marks)
		}
		for i := range said {
			if said[i].words != marks[i] || said[i].key != keyA {
				t.Fatalf("%q, want %q", said, marks)
			}
		}
	})
}

// A mark of the follower may stand in the middle of one of the run's, and does
// not spoil it.
func TestMarkWithinAMark(t *testing.T) {
	inner, outer := "\x1etelexec:"+keyB+": state live\n", "out\x1etelexec:"+keyA+": done exit 0\nput"
	for at := range len(outer) + 1 {
		stream := outer[:at] + inner + outer[at:]
		var own, runs marks
		var data strings.Builder
		var said []string
		note := func(m mark) { said = append(said, m.words) }
		for b := range bytes.SplitAfterSeq([]byte(stream), nil) {
			own.next(b, func(k string) bool { return k == keyB }, func(b []byte) {
				runs.next(b, func(k string) bool { return k == keyA }, func(b []byte) { data.Write(b) }, note)
			}, note)
		}
		if data.String() != "output" || len(said) != 2 {
			t.Fatalf("at %d: %q %q", at, data.String(), said)
		}
	}
}

func FuzzWords(f *testing.F) {
	for _, s := range []string{
		"boot 100 100 100 12345", "- 2 0 0 Sat_Nov_21_05:29:31_2026", "exit 0 o=17 e=9", "signal TERM core o=x", "broken exit 3",
		"unstarted directory denied", "", "exit 256", "exit -1", "killed", "dir /a b", "new_session setsid", "probed", "has cat",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if who, ok := parseRun(s); ok && (who.pid <= 1 || who.group != 0 && who.group != who.pid || who.session != 0 && who.session != who.pid || who.boot == "") {
			t.Errorf("%q: %+v", s, who)
		}
		if c := truncation(strings.Fields(s)); c != nil {
			for _, n := range c.Offset {
				if n < -1 {
					t.Errorf("%q: %+v", s, c)
				}
			}
		}
		if facts, ok := parseFacts(strings.Split(s, "\n")); ok {
			for _, d := range facts.dirs {
				if d[0] != '/' || len(d) > maxDir || strings.ContainsAny(d, "\x00\n\x1e") {
					t.Errorf("%q: %q", s, d)
				}
			}
		}
		// Whatever the host says, it comes to an end that is one thing or the other.
		d := newDurable(nil, Run{Host: h0, Spec: &command.Spec{}}, modeStart)
		d.conclude(s)
		if !closed(d.ended) || !closed(d.decided) {
			t.Fatal("not concluded")
		}
		known := d.ending.Code != nil || d.ending.Signal != ""
		if known && d.startErr != nil || !known && d.waitErr == nil || known && d.ending.Code != nil && d.ending.Signal != "" {
			t.Errorf("%q: %+v, %v", s, d.ending, d.waitErr)
		}
		if c := d.ending.Code; c != nil && (*c < 0 || *c > 255) {
			t.Errorf("%q: %d", s, *c)
		}
	})
}
