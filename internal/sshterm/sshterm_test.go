package sshterm

import (
	"testing"

	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// A shell of every kind opens, echoes, learns its size and tells its exit code.
func TestShells(t *testing.T) {
	for _, flavour := range []sshtest.Flavour{sshtest.OpenSSH, sshtest.Dropbear} {
		t.Run(string(flavour), func(t *testing.T) {
			t.Parallel()
			names := []string{"bash", "zsh", "fish", "dash", "ash", "mksh", "ksh93"}
			var accounts []sshtest.Account
			for _, name := range names {
				accounts = append(accounts, sshtest.Account{Name: name, Shell: name})
			}
			m := machine(t, flavour, accounts...)
			terms := New(newDialer(t), Options{})
			for i, name := range names {
				keeper := keepers[i%3]
				t.Run(name+" "+string(keeper), func(t *testing.T) {
					s := open(t, terms, Spec{Host: m.HostOf(name, name), Keeper: keeper, Size: session.Size{Columns: 91, Rows: 33}})
					kind := map[string]string{"ksh93": "ksh"}[name]
					if kind == "" {
						kind = name
					}
					if f := s.Facts(); f.Kind != kind || !f.Marks || f.Keeper != keeper || f.PID <= 1 || f.Nested == "" {
						t.Errorf("%+v", f)
					}
					s.prompt(0)
					s.run("stty size; echo TERM=$TERM", 0)
					s.sees("33 91\r\n")
					s.sees("TERM=xterm-256color\r\n")
					if err := s.Resize(session.Size{Columns: 120, Rows: 44}); err != nil {
						t.Error(err)
					}
					s.run("stty size", 0)
					s.sees("44 120\r\n")
					s.run("sh -c 'exit 5'", 5)
					s.types("exit 7\r")
					if code := s.exited(); code != 7 {
						t.Error(code)
					}
					s.End(t.Context())
					if left := m.Leftovers(s.spec.ID); len(left) > 0 {
						t.Error(left)
					}
				})
			}
		})
	}
}
