package terminal_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// What takes long to work on is worked on in pieces, between which callers are served; all
// of it is, in its order.
func TestCallersDoNotWaitForSlowOutput(t *testing.T) {
	const columns, rows, prompt = 600, 300, "switch# "
	// A screen full of text of which all is moved, again and again.
	full := strings.Repeat(strings.Repeat("x", columns-1)+"\r\n", rows)
	slow := strings.Repeat("\x1b[ A", 1500) + "\x1b[m\x1b[2J\x1b[H"
	var numbers strings.Builder
	for i := range 100 {
		fmt.Fprintf(&numbers, "%d ", i)
	}
	begun, going := make(chan struct{}), make(chan struct{})
	shells := scripted{likeDevice, func(k *scriptedShell) {
		k.prints(prompt)
		<-going
		k.prints(full)
		k.prints(slow + numbers.String())
		close(begun)
		k.line()
	}}
	m, st := newMachine(t), openStore(t, t.TempDir())
	limits := usual
	limits.Record = false
	set, err := terminal.New(terminal.Options{Shells: shells, Journal: st, Hosts: m, Limits: limits, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	s := runSet(t, set, m, st)
	on := s.openSpec(session.Spec{Host: "web1", Size: session.Size{Columns: columns, Rows: rows}})
	close(going)
	within(t, begun, "that it has printed")
	began := int64(len(prompt) + len(full))
	served := map[int64]bool{}
	for at, from := int64(0), time.Now(); at < began+int64(len(slow)+numbers.Len()); {
		if _, err := s.Screen(t.Context(), ann, on.ID, 0); err != nil {
			t.Fatal(err)
		}
		if at = s.get(on).Output; at > began {
			served[at] = true
		}
		if time.Since(from) > patience {
			t.Fatal("there is no end of it")
		}
	}
	text, err := s.Screen(t.Context(), ann, on.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(text.Lines[0]); got != strings.TrimSpace(numbers.String()) {
		t.Errorf("%q", got)
	}
	if len(served) < 2 {
		t.Errorf("callers were served at %d places of it", len(served))
	}
}
