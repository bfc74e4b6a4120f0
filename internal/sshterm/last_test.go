package sshterm

import (
	"io"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// The last that a shell prints is not lost with what keeps it.
func TestLastWords(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "dash"})
	terms := New(newDialer(t), Options{})
	for range 10 {
		s, err := terms.Open(t.Context(), Spec{ID: newID(), Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux, Nonce: completion.NewNonce()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("echo last $((40+2)) words; exit 3\r")); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(s)
		if code := s.Exit(); err != nil || code == nil || *code != 3 || !strings.Contains(string(b), "last 42 words\r\n") {
			t.Errorf("%q, %v, %v", b, err, code)
		}
		s.Close()
	}
}
