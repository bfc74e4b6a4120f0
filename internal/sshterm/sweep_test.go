package sshterm

import (
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/test/sshtest"
)

// The files of a shell that has ended go, and what it has left in the background stays.
func TestSweep(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	for _, keeper := range keepers[:3] { // screen tells no prompts
		s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: keeper})
		s.prompt(0)
		s.run("setsid nohup sleep 230 >/dev/null 2>&1 </dev/null &", 0)
		s.types("exit 3\r")
		if code := s.exited(); code != 3 {
			t.Errorf("%s: exit code %d", keeper, code)
		}
		if err := s.Sweep(t.Context()); err != nil {
			t.Errorf("%s: %v", keeper, err)
		}
		eventually(t, "its files are gone", func() bool {
			for _, left := range m.Leftovers(s.spec.ID) {
				if strings.HasPrefix(left, "file ") {
					return false
				}
			}
			return true
		})
		if left := m.Running("sleep\x00230"); len(left) != 1 {
			t.Errorf("%s: what was left in the background: %q", keeper, left)
		}
		if _, err := s.End(t.Context()); err != nil {
			t.Errorf("%s: %v", keeper, err)
		}
		eventually(t, "nothing is left", func() bool { return len(m.Leftovers(s.spec.ID)) == 0 })
	}
}
