package sshterm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// A shell that something keeps is found again where its files are, whatever can be
// written there by then.
func TestKeptUnwritable(t *testing.T) {
	const home = "~/.local/state/telexec"
	for name, c := range map[string]struct {
		spoil, mend string
		keepers     []session.Keeper
	}{
		"closed for writing": {"chmod 500 DIR", "chmod 700 DIR", keepers[1:2]},
		"read-only":          {"mount -o remount,bind,ro DIR", "mount -o remount,bind,rw DIR", keepers[1:]},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash", SmallDisk: 4 << 20})
			for _, keeper := range c.keepers {
				spec := Spec{Host: m.HostOf("web1", "anna"), Keeper: keeper}
				s := open(t, New(newDialer(t), Options{}), spec)
				s.sees("$ ")
				on := func(script string) { m.Run("sh", "-c", strings.ReplaceAll(script, "DIR", m.Home("anna")+home[1:])) }
				on(c.spoil)
				s.Close()

				spec = s.spec
				spec.Resume, spec.Keeper = true, "" // who has it is found, too
				again := open(t, New(newDialer(t), Options{}), spec)
				if again.Facts().PID != s.Facts().PID || again.Facts().Keeper != keeper || again.dir != s.dir {
					t.Errorf("%s: %+v in %s", keeper, again.Facts(), again.dir)
				}
				again.types("printf 'still %s.\\n' $$\r")
				again.sees(fmt.Sprintf("still %d.", s.Facts().PID))
				on(c.mend)
				again.End(t.Context())
				if left := m.Leftovers(spec.ID); len(left) > 0 {
					t.Errorf("%s: %q", keeper, left)
				}
			}
		})
	}
}

// One that is taken up again and again, from whoever has it, lives on.
func TestTakenOver(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	for _, keeper := range keepers[1:] {
		s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: keeper})
		s.sees("$ ")
		spec, pid := s.spec, s.Facts().PID
		spec.Resume = true
		for range 3 {
			again := open(t, terms, spec)
			if again.Facts().PID != pid {
				t.Fatalf("%s: another shell: %d, was %d", keeper, again.Facts().PID, pid)
			}
			s.Close()
			s = again
		}
		s.types("printf 'still %s.\\n' $$\r")
		s.sees(fmt.Sprintf("still %d.", pid))
		s.End(t.Context())
	}
}

// No client of tmux comes while one from before is about to go, whose input may end late:
// tmux 3.3 may die of it.
func TestClientsOneBehindAnother(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	m.Run("sh", "-c", `mount -t tmpfs -o mode=1777 tmpfs /usr/local/bin && cat >/usr/local/bin/tmux <<'END' && chmod 755 /usr/local/bin/tmux
#!/bin/sh
case "$*" in *attach-session*) ;; *) exec /usr/bin/tmux "$@" ;; esac
echo "$(/usr/bin/tmux -u -S tmux list-clients 2>/dev/null)" >>/usr/local/bin/clients
exec 3<&0
setsid sh -c '{ cat; sleep 0.1; } | /usr/bin/tmux "$@"' sh "$@" <&3 &
wait $!
END`)
	terms := New(newDialer(t), Options{})
	s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux})
	s.sees("$ ")
	spec := s.spec
	spec.Resume = true
	for range 3 {
		again := open(t, terms, spec)
		s.Close()
		s = again
	}
	s.End(t.Context())
	if got := m.Run("cat", "/usr/local/bin/clients"); got != "\n\n\n\n" {
		t.Errorf("there were clients when others came: %q", got)
	}
}

// So is one whose disk has become full, and with its files whole.
func TestKeptFull(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash", SmallDisk: 1 << 20})
	s := open(t, New(newDialer(t), Options{}), Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux})
	s.prompt(0)
	m.Fill("anna")
	s.Close()
	spec := s.spec
	spec.Resume = true
	again := open(t, New(newDialer(t), Options{}), spec)
	if again.Facts().PID != s.Facts().PID {
		t.Errorf("another shell: %d, was %d", again.Facts().PID, s.Facts().PID)
	}
	again.run("sh -c 'exit 4'", 4)
	again.run("[ -s "+s.dir+"/shell/nested ]", 0)
}

// A shell that cannot be looked for now is not gone.
func TestNotGone(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	m.Run("sh", "-c", "mount -t tmpfs tmpfs /usr/local/bin")
	s := open(t, New(newDialer(t), Options{}), Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux})
	s.prompt(0)
	s.Close()
	spec := s.spec
	spec.Resume = true
	for name, c := range map[string]struct{ spoil, mend string }{
		"its directory is closed": {"chmod 0 ~anna/.local/state", "chmod 700 ~anna/.local/state"},
		"its files are closed":    {"chmod 600 " + s.dir, "chmod 700 " + s.dir},
		"its home is not there":   {"mv ~anna ~anna.away", "mv ~anna.away ~anna"},
		"tmux is another one": {
			"printf '#!/bin/sh\\necho protocol version mismatch >&2; exit 1\\n' >/usr/local/bin/tmux; chmod 755 /usr/local/bin/tmux", "rm /usr/local/bin/tmux",
		},
		"tmux cannot be run": {
			"printf '#!/bin/sh\\nexit 127\\n' >/usr/local/bin/tmux; chmod 755 /usr/local/bin/tmux", "rm /usr/local/bin/tmux",
		},
	} {
		m.Run("bash", "-c", strings.ReplaceAll(c.spoil, "~anna", m.Home("anna")))
		_, err := New(newDialer(t), Options{}).Open(t.Context(), spec)
		if reason(err) != fault.ReasonStartFailed || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		m.Run("bash", "-c", strings.ReplaceAll(c.mend, "~anna", m.Home("anna")))
	}
	again := open(t, New(newDialer(t), Options{}), spec)
	again.types("exit 3\r")
	if code := again.exited(); code != 3 {
		t.Error(code)
	}
}

// What somebody else may write is not taken for files of ours.
func TestStrangePlaces(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "dash"}, sshtest.Account{Name: "eve"})
	m.Run("sh", "-c", "mount -t tmpfs -o mode=1777 tmpfs /var/tmp")
	terms := New(newDialer(t), Options{})
	spec := Spec{ID: newID(), Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux, Resume: true, Size: session.DefaultSize}
	base := "/var/tmp/telexec-" + strings.TrimSpace(m.Run("id", "-u", "anna"))
	for _, how := range []string{
		"mkdir -p BASE/sessions/ID && echo 1 >BASE/sessions/ID/state && chown -R eve BASE",
		"mkdir -p BASE/sessions/ID && echo 1 >BASE/sessions/ID/state && chown -R anna BASE && chmod 777 BASE/sessions/ID",
		"mkdir -p BASE/sessions/ID && echo 1 >BASE/sessions/ID/state && chown -R anna BASE && mv BASE/sessions BASE/x && ln -s x BASE/sessions",
	} {
		m.Run("sh", "-c", strings.NewReplacer("BASE", base, "ID", spec.ID).Replace("rm -rf BASE; "+how))
		if at, err := terms.find(t.Context(), spec); err != nil || at.dir != "" || at.hidden || at.place == "" {
			t.Errorf("%s: %+v, %v", how, at, err)
		}
		if _, err := terms.Open(t.Context(), spec); reason(err) != fault.ReasonSessionGone {
			t.Errorf("%s: %v", how, err)
		}
	}
}
