package sshexec

import (
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestSudo(t *testing.T) {
	t.Parallel()
	password := secret.New("it's a \\ secret $1")
	m := sshtest.StartMachine(t, sshtest.MachineOptions{Accounts: []sshtest.Account{
		{Name: "asked", Sudo: sshtest.PasswordSudo, Password: password},
		{Name: "free", Sudo: sshtest.FreeSudo}, {Name: "denied", Sudo: sshtest.NoSudo}}})
	with := func(p secret.Text) *command.Sudo { return &command.Sudo{NeedsPassword: true, Password: p} }
	for _, c := range []struct {
		account string
		spec    command.Spec
		out     string
		reason  string
	}{
		{"asked", command.Spec{Line: "id -un; umask | tail -c 4", Sudo: with(password)}, "root\n022\n", ""},
		{"asked", command.Spec{Line: "id -un; cat; echo $V; pwd; exit 3", Sudo: with(password), Stdin: []byte("in"), Env: map[string]string{"V": "a'b"}, WorkingDirectory: "/usr"}, "root\nina'b\n/usr\n", ""},
		{"asked", command.Spec{Line: "id -un", Sudo: with(secret.New("wrong"))}, "", fault.ReasonSudoRefused},
		{"asked", command.Spec{Line: "id -un", Sudo: &command.Sudo{}}, "", fault.ReasonSudoRefused},
		{"asked", command.Spec{Line: "id -un", Sudo: with(password), WorkingDirectory: "/nonexistent"}, "", fault.ReasonBadWorkingDir},
		{"free", command.Spec{Argv: []string{"id", "-un"}, Sudo: &command.Sudo{User: "asked"}}, "asked\n", ""},
		{"free", command.Spec{Line: "cat; id -un", Sudo: with(password), Stdin: []byte("in\n")}, "in\nroot\n", ""},
		{"denied", command.Spec{Line: "id -un", Sudo: &command.Sudo{}}, "", fault.ReasonSudoRefused},
	} {
		t.Run(c.account+" "+c.spec.CommandLine(), func(t *testing.T) {
			t.Parallel()
			h := on(t, m, c.account)
			o := newOutput()
			run := Run{ID: newID(), Host: h.inv, Fence: 1, Spec: &c.spec, Output: o.sink}
			p, err := h.runner.Start(t.Context(), run)
			if fault.ReasonOf(err) != c.reason {
				t.Fatal(err)
			}
			if c.reason != "" {
				if strings.Contains(err.Error(), "secret") {
					t.Error("the password is told:", err)
				}
				// Only the password is taken for one.
				if p := c.spec.Sudo.Password; c.account == "asked" && !p.IsZero() && p != password && !strings.Contains(err.Error(), "1 incorrect password attempt") {
					t.Error(err)
				}
				eventually(t, "nothing is left", func() bool { return len(m.Leftovers(run.ID)) == 0 })
				return
			}
			if _, err := p.Wait(); err != nil || o.text(command.Stdout) != c.out || o.text(command.Stderr) != "" {
				t.Errorf("%q %q %v", o.text(command.Stdout), o.text(command.Stderr), err)
			}
			p.Collected()
			<-p.(*durable).through
		})
	}
	for name, line := range map[string]string{"cancel": "echo up; trap '' TERM INT; sleep 1000; sleep 1000", "timeout": "echo up; sleep 1000"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := on(t, m, "asked")
			spec := command.Spec{Line: line, Sudo: with(password), StdinOpen: true}
			if name == "timeout" {
				spec.Timeout = 10 * time.Second // sudo comes first
			}
			k := h.durably(spec)
			k.await(t, has("up"))
			if name == "cancel" {
				if r, err := k.Cancel(t.Context(), grace); err != nil || r.Outcome != command.Gone {
					t.Error(r, err)
				}
			}
			e, err := k.Wait()
			if err != nil || name == "timeout" && (e.TimedOut == nil || e.TimedOut.Outcome != command.Gone) {
				t.Errorf("%+v %v", e, err)
			}
			k.Collected()
			<-k.Process.(*durable).through
			eventually(t, "nothing is left", func() bool { return len(m.Leftovers(k.run.ID)) == 0 })
		})
	}
}
