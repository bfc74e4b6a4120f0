package terminal_test

import (
	"log/slog"
	"testing"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// Who may type no more is refused at the next key, also where attached as a writer, and
// gets no keyboard.
func TestWhoMayTypeNoMore(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	rights, err := access.NewRights(nil)
	if err != nil {
		t.Fatal(err)
	}
	set, err := terminal.New(terminal.Options{Shells: m, Journal: st, Hosts: m, Limits: usual, Rights: rights, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := runSet(t, set, m, st)
	on := s.open("dash")
	v := s.attach(ann, on, terminal.AttachOptions{Role: session.Writer})
	if err := v.Input(t.Context(), []byte(" ")); err != nil {
		t.Fatal(err)
	}
	rights.SetTyping(access.RoleAdmin)
	wants(t, v.Input(t.Context(), []byte(" ")), fault.ReasonTypingNotAllowed)
	wants(t, v.Keyboard(t.Context(), terminal.TakeKeyboard, ""), fault.ReasonTypingNotAllowed)
	rights.SetTyping()
	if err := v.Input(t.Context(), []byte(" ")); err != nil {
		t.Error(err)
	}
}
