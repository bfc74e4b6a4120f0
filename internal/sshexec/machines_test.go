package sshexec

import (
	"testing"
	"time"

	"github.com/telexec/telexec/internal/test/sshtest"
)

// on gives a host for an account of a machine.
func on(t testing.TB, m *sshtest.Machine, account string) *host {
	h := &host{t: t, server: m.Server, inv: m.HostOf(account, account)}
	h.runner = New(newDialer(t), Options{StartTimeout: time.Minute})
	return h
}

// Nothing that a host of another make has for its scripts makes a difference.
func TestDurableOnOtherMachines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flavour  sshtest.Flavour
		accounts []sshtest.Account
	}{
		{sshtest.BusyBox, []sshtest.Account{{Name: "root", Root: true}, {Name: "plain"}}},
		{sshtest.Dropbear, []sshtest.Account{{Name: "root", Root: true}, {Name: "plain", Shell: "fish"}}},
		{sshtest.OpenSSH, []sshtest.Account{{Name: "csh", Shell: "tcsh"}, {Name: "bash", Shell: "bash", Root: true}, {Name: "zsh", Shell: "zsh"}}},
	} {
		t.Run(string(c.flavour), func(t *testing.T) {
			t.Parallel()
			m := sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: c.flavour, Accounts: c.accounts})
			for _, a := range c.accounts {
				t.Run(a.Name, func(t *testing.T) {
					h := on(t, m, a.Name)
					h.runner.askAfter = 100 * time.Millisecond
					inAnyShell(t, h, false)
				})
			}
		})
	}
}
