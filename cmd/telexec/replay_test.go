package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/asciicast"
	"github.com/telexec/telexec/internal/test/testenv"
)

// tape is a recording of three seconds, a pause of an hour and another size.
func tape() []byte {
	var w asciicast.Writer
	p := asciicast.AppendHeader(nil, asciicast.Header{Width: 80, Height: 24})
	p = w.AppendOutput(p, time.Second, []byte("one\r\n"))
	p = w.AppendOutput(p, 3*time.Second, []byte("tw\xff\x1b[6no\r\n"))
	p = w.AppendResize(p, time.Hour, 120, 40)
	return w.AppendOutput(p, time.Hour+time.Second, []byte("three\r\n"))
}

// TestPlayer: when what is shown.
func TestPlayer(t *testing.T) {
	for name, tt := range map[string]struct {
		player player
		keys   map[time.Duration]string // what is typed, and when
		took   time.Duration
		shown  string
	}{
		"as it was":         {player: player{speed: 1}, took: time.Hour + time.Second, shown: "one two three"},
		"pauses are short":  {player: player{speed: 1, limit: 2 * time.Second}, took: 6 * time.Second, shown: "one two three"},
		"fast":              {player: player{speed: 4, limit: 2 * time.Second}, took: 1500 * time.Millisecond, shown: "one two three"},
		"from the middle":   {player: player{speed: 1, from: time.Hour}, took: time.Second, shown: "one two three"},
		"beyond the end":    {player: player{speed: 1, from: 2 * time.Hour}, shown: "one two three"},
		"paused":            {player: player{speed: 1, limit: 2 * time.Second}, keys: map[time.Duration]string{500 * time.Millisecond: " ", time.Minute: " "}, took: 6*time.Second + 59500*time.Millisecond, shown: "one two three"},
		"ended":             {player: player{speed: 1}, keys: map[time.Duration]string{3500 * time.Millisecond: "xq"}, took: 3500 * time.Millisecond, shown: "one two"},
		"ended by Ctrl-C":   {player: player{speed: 1}, keys: map[time.Duration]string{500 * time.Millisecond: " ", time.Second: "\x03"}, took: time.Second},
		"faster and slower": {player: player{speed: 1, limit: 2 * time.Second}, keys: map[time.Duration]string{0: "++", 250 * time.Millisecond: "--"}, took: 250*time.Millisecond + 5*time.Second, shown: "one two three"},
		"as fast as can be": {player: player{speed: 1}, keys: map[time.Duration]string{0: strings.Repeat("+", 20)}, took: (time.Hour + time.Second) / 100, shown: "one two three"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p := tt.player
				keys := make(chan byte)
				p.app, p.keys = &app{env: Env{Stdout: &out}}, keys
				began := time.Now()
				ctx, stop := context.WithCancel(t.Context())
				for at, typed := range tt.keys {
					time.AfterFunc(at, func() { readKeys(ctx, strings.NewReader(typed), keys) })
				}
				r, err := asciicast.NewReader(bytes.NewReader(tape()))
				if err != nil {
					t.Fatal(err)
				}
				if err := p.play(ctx, r); err != nil && !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				took := time.Since(began)
				stop()
				shown := strings.Join(strings.Fields(strings.ReplaceAll(out.String(), "\xff", "")), " ")
				if shown != tt.shown || took.Round(time.Millisecond) != tt.took.Round(time.Millisecond) {
					t.Errorf("%q in %v, want %q in %v", shown, took, tt.shown, tt.took)
				}
			})
		})
	}
}

// TestPrintRecording: the exact bytes, at once.
func TestPrintRecording(t *testing.T) {
	r, err := asciicast.NewReader(bytes.NewReader(tape()))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := printRecording(&out, r); !errors.Is(err, io.EOF) || out.String() != "one\r\ntw\xff\x1b[6no\r\nthree\r\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func testReplay(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	name := session(t, ask, append(bare, "--size", "160x48")...)
	ask("session", "run", name, "echo first")
	id, _ := ask("session", "run", "-d", name, `printf 'a\377b\033[6n\033[?25l\033[?1049hfull'; sleep 60`)
	// Of a session that goes on, as far as it is.
	recorded := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			out, code := ask("session", "replay", name)
			if strings.Contains(out, text) {
				return
			}
			if code != 0 && code != 125 || time.Now().After(deadline) { // 125: nothing is recorded yet
				t.Fatalf("code %d, %q", code, out)
			}
		}
	}
	recorded("a\xffb\x1b[6n\x1b[?25l\x1b[?1049hfull")
	s := i.sit(t, "session", "replay", name, "--idle-limit", "10ms")
	s.until(t, "the end", func() bool { return len(s.ended) > 0 })
	s.leaves(t, 0, "first", "telexec: the recording has 160x48 characters, and the terminal here 111x33")
	if !strings.Contains(s.all.String(), "\x1b[?1049hfull") {
		t.Errorf("the screen was %q", s.all.String())
	}
	// It is ended by a key, paused or not, and by signals.
	for typed, code := range map[string]int{"q": 0, " q": 0, "\x03": 0} {
		s = i.sit(t, "session", "replay", name, "--speed", "0.1")
		s.until(t, "its beginning", func() bool { return strings.Contains(s.all.String(), "\x1b[2J") })
		s.types(typed)
		s.leaves(t, code)
	}
	s = i.sit(t, "session", "replay", name, "--speed", "0.1")
	s.until(t, "its beginning", func() bool { return strings.Contains(s.all.String(), "\x1b[2J") })
	i.signals <- os.Interrupt
	s.leaves(t, 130)
	// What is before a command is shown at once.
	s = i.sit(t, "session", "replay", name, "--speed", "100", "--to-command", strings.TrimSpace(id))
	s.leaves(t, 0, "first")
	other, _ := ask("run", "-d", "web1", "true")
	if code := i.run(t.Context(), "session", "replay", name, "--to-command", strings.TrimSpace(other)); code != 125 || !strings.Contains(i.stderr.String(), "was not in the session") {
		t.Errorf("code %d: %s", code, i.stderr.String())
	}
}
