package sshtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// login logs in on a machine as one of its accounts.
func login(t *testing.T, m *sshtest.Machine, account string) *ssh.Client {
	t.Helper()
	return dialAs(t, m.Server, m.HostOf("x", account).User)
}

func TestMachineAccounts(t *testing.T) {
	password := secret.New("open sesame")
	accounts := []sshtest.Account{
		{Name: "root", Root: true}, {Name: "toor", Root: true, Shell: "bash"},
		{Name: "anna", Sudo: sshtest.PasswordSudo, Password: password, Shell: "dash"},
		{Name: "ben", Sudo: sshtest.FreeSudo}, {Name: "carl"},
	}
	for _, flavour := range []sshtest.Flavour{sshtest.OpenSSH, sshtest.Dropbear, sshtest.BusyBox} {
		t.Run(string(flavour), func(t *testing.T) {
			m := sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: flavour, Accounts: accounts})
			for _, a := range accounts {
				c := login(t, m, a.Name)
				got := run(t, c, `echo "$(id -u) $HOME"; pwd; cat /proc/$PPID/comm`)
				uid, rest, _ := strings.Cut(got, " ")
				if a.Root != (uid == "0") || !strings.HasPrefix(rest, m.Home(a.Name)+"\n"+m.Home(a.Name)+"\n") {
					t.Errorf("%s: %s", a.Name, got)
				}
				run(t, c, "echo x >~/made && test -c /dev/null && echo x >/dev/null")
				if b, err := os.ReadFile(m.Path(a.Name, "~/made")); string(b) != "x\n" {
					t.Errorf("%s: %q, %v", a.Name, b, err)
				}
			}
			if n := m.Sessions(); n != len(accounts) {
				t.Errorf("%d sessions, want %d", n, len(accounts))
			}
			if flavour == sshtest.BusyBox {
				if got := run(t, login(t, m, "anna"), "ls -l /bin/* | grep -v busybox; for p in perl sudo bash setsid; do command -v $p >/dev/null && echo $p; done; true"); got != "setsid" {
					t.Errorf("more than BusyBox: %s", got)
				}
			} else {
				trySudo(t, m, password)
			}
			m.KillSessions()
			m.Stop()
			m.Restart()
			run(t, login(t, m, "anna"), "true")
		})
	}
}

func trySudo(t *testing.T, m *sshtest.Machine, password secret.Text) {
	t.Helper()
	if _, err := exec.LookPath("sudo"); err != nil {
		t.Log("no sudo here: apt-get install sudo")
		return
	}
	for _, c := range []struct{ account, command, want string }{
		{"anna", "printf '%s\n' '" + password.Reveal() + "' | sudo -S -p '' id -u", "0"},
		{"anna", "printf '%s\n' wrong | sudo -S -p '' id -u >/dev/null 2>&1 || echo refused", "refused"},
		{"anna", "sudo -n id -u 2>/dev/null || echo refused", "refused"},
		{"ben", "sudo -n id -u", "0"},
		{"carl", "sudo -n id -u 2>/dev/null || echo refused", "refused"},
	} {
		if got := run(t, login(t, m, c.account), c.command); got != c.want {
			t.Errorf("%s: %s: %q", c.account, c.command, got)
		}
	}
}

// TestMachineShells: each login shell is what runs the exec request, as root too.
func TestMachineShells(t *testing.T) {
	var accounts []sshtest.Account
	for _, name := range sshtest.Shells {
		if !sshtest.HasShell(name) {
			t.Logf("no %s here", name)
			continue
		}
		accounts = append(accounts, sshtest.Account{Name: "r-" + name, Root: true, Shell: name}, sshtest.Account{Name: "p-" + name, Shell: name})
	}
	for _, flavour := range []sshtest.Flavour{sshtest.OpenSSH, sshtest.Dropbear} {
		t.Run(string(flavour), func(t *testing.T) {
			m := sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: flavour, Accounts: accounts})
			for _, a := range accounts {
				// With more to do behind it the shell stays the parent.
				got := run(t, login(t, m, a.Name), `sh -c 'cat /proc/$PPID/comm'; echo end`)
				if want := a.Shell + "\nend"; got != want {
					t.Errorf("%s: %q", a.Name, got)
				}
			}
		})
	}
}

// TestMachineWire: what the network does is seen by who is on it.
func TestMachineWire(t *testing.T) {
	m := sshtest.StartMachine(t, sshtest.MachineOptions{Wire: true})
	c := login(t, m, "root")
	ask := func(limit time.Duration) (time.Duration, bool) {
		start := time.Now()
		answered := make(chan struct{})
		go func() {
			c.SendRequest("keepalive@openssh.com", true, nil)
			close(answered)
		}()
		t.Cleanup(func() { m.Wire.Heal(); <-answered })
		select {
		case <-answered:
			return time.Since(start), true
		case <-time.After(limit):
			return limit, false
		}
	}
	if _, ok := ask(5 * time.Second); !ok {
		t.Fatal("no answer over a good wire")
	}
	m.Wire.Delay(50*time.Millisecond, 10*time.Millisecond)
	if took, ok := ask(5 * time.Second); !ok || took < 100*time.Millisecond {
		t.Errorf("answer after %v with a delay of 50 ms each way: %t", took, ok)
	}
	m.Wire.Heal()
	m.Wire.Drop()
	if took, ok := ask(300 * time.Millisecond); ok {
		t.Errorf("answer through a black hole after %v", took)
	}
	if m.Wire.Lost() == 0 {
		t.Error("nothing was dropped")
	}
	m.Wire.Heal()
	if _, ok := ask(10 * time.Second); !ok {
		t.Error("no answer after Heal")
	}
	m.Wire.Loss(0.2)
	if got := run(t, c, "head -c 300000 /dev/zero | wc -c"); got != "300000" {
		t.Errorf("%s", got)
	}
	m.Wire.Heal()
	start := time.Now()
	out, err := func() ([]byte, error) {
		s, err := c.NewSession()
		if err != nil {
			return nil, err
		}
		defer s.Close()
		return s.Output("head -c 20000000 /dev/zero")
	}()
	if err != nil || len(out) != 20_000_000 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	t.Logf("20 MB over the wire in %v", time.Since(start))
}

func TestMachinePIDs(t *testing.T) {
	m := sshtest.StartMachine(t, sshtest.MachineOptions{OwnPIDs: true})
	c := login(t, m, "root")
	pid, err := strconv.Atoi(run(t, c, "exec sh -c 'echo $$'"))
	if err != nil || pid > 1000 {
		t.Errorf("pid %d, %v", pid, err)
	}
	// The next process of the machine is the one that sshd forks for the command.
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	m.NextPID(7000)
	if out, err := session.Output("echo $$"); err != nil || strings.TrimSpace(string(out)) != "7000" {
		t.Errorf("%s, %v", out, err)
	}
	m.Pause()
	m.Resume()
	m.KillSessions()
	m.Stop()
	m.Restart()
	run(t, login(t, m, "root"), "true")
}

func TestMachineSmallDisk(t *testing.T) {
	for _, flavour := range []sshtest.Flavour{sshtest.OpenSSH, sshtest.BusyBox} {
		t.Run(string(flavour), func(t *testing.T) {
			m := sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: flavour, Accounts: []sshtest.Account{
				{Name: "root", Root: true, SmallDisk: 1 << 20}, {Name: "anna", SmallDisk: 1 << 20},
			}})
			for _, account := range []string{"root", "anna"} {
				c := login(t, m, account)
				run(t, c, "cd ~/.local/state/telexec && echo before >kept && test $(df -k . | tail -1 | awk '{print $2}') = 1024")
				m.Fill(account)
				if got := run(t, c, "cd ~/.local/state/telexec && { (echo x >new) 2>/dev/null || echo full; } && printf after. 1<>kept && cat kept"); got != "full\nafter." {
					t.Errorf("%s: %q", account, got)
				}
				m.Free(account)
				run(t, c, "cd ~/.local/state/telexec && echo x >new")
			}
		})
	}
}

func TestLeftoversAreFound(t *testing.T) {
	const id = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
	look := func(t *testing.T, c *ssh.Client, leftovers func(string) []string) {
		t.Helper()
		if left := leftovers(id); len(left) != 0 {
			t.Fatalf("before: %q", left)
		}
		run(t, c, "mkdir -p ~/.cache/telexec/"+id+" /tmp/telexec-$(id -u) && echo x >/tmp/telexec-$(id -u)/"+id+".state; "+
			"TELEXEC_RUN="+id+" sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!' >~/pid")
		left := leftovers(id)
		if len(left) != 3 || !strings.Contains(fmt.Sprint(left), "sleep 1000") {
			t.Errorf("found %q", left)
		}
		run(t, c, "rm -rf ~/.cache/telexec /tmp/telexec-$(id -u)/"+id+".state; rmdir /tmp/telexec-$(id -u) 2>/dev/null; kill -9 $(cat ~/pid)")
		eventually(t, "nothing to be left", func() bool { return len(leftovers(id)) == 0 })
	}
	t.Run("server", func(t *testing.T) {
		s := sshtest.Start(t, sshtest.Options{})
		look(t, dial(t, s), s.Leftovers)
	})
	for _, flavour := range []sshtest.Flavour{sshtest.OpenSSH, sshtest.BusyBox} {
		t.Run(string(flavour), func(t *testing.T) {
			m := sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: flavour, Accounts: []sshtest.Account{{Name: "anna"}}, OwnPIDs: true})
			look(t, login(t, m, "anna"), m.Leftovers)
		})
	}
}

func TestMachineReboot(t *testing.T) {
	for _, flavour := range []sshtest.Flavour{sshtest.OpenSSH, sshtest.BusyBox} {
		t.Run(string(flavour), func(t *testing.T) {
			m := sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: flavour})
			const boot = "cat /proc/sys/kernel/random/boot_id"
			c := login(t, m, "root")
			before := run(t, c, boot+"; sleep 12345 >/dev/null 2>&1 & echo kept >~/file")
			eventually(t, "the command to run", func() bool { return len(m.Running("sleep\x0012345")) == 1 })
			m.Reboot()
			if err := c.Wait(); err == nil {
				t.Error("the connection ended without an error")
			}
			after := run(t, login(t, m, "root"), "cat ~/file; "+boot)
			if !strings.HasPrefix(after, "kept\n") || strings.HasSuffix(after, before) || len(after) != len("kept\n")+36 {
				t.Errorf("boot id before %q, after %q", before, after)
			}
			if left := m.Running("sleep\x0012345"); len(left) != 0 {
				t.Errorf("over the reboot: %q", left)
			}
		})
	}
}

func TestDecoyHasThePID(t *testing.T) {
	m := sshtest.StartMachine(t, sshtest.MachineOptions{OwnPIDs: true})
	const id = "01HZZZZZZZZZZZZZZZZZZZZZZY"
	run(t, login(t, m, "root"), "TELEXEC_ID="+id+" setsid sleep 12345 >/dev/null 2>&1 & sleep 0.1")
	pids := m.Pids(id)
	if len(pids) != 1 {
		t.Fatalf("pids %v", pids)
	}
	m.KillCommands()
	eventually(t, "the killed command to go", func() bool { return len(m.Pids(id)) == 0 && len(m.Running("sleep")) == 0 })
	alive := m.Decoy(pids[0])
	got := run(t, login(t, m, "root"), fmt.Sprintf("ps -o pid=,pgid=,sid=,args= -p %d", pids[0]))
	if f := strings.Fields(got); !alive() || len(f) != 5 || f[0] != f[1] || f[1] != f[2] || f[3] != "sleep" {
		t.Errorf("the decoy is %q, alive: %t", got, alive())
	}
	run(t, login(t, m, "root"), fmt.Sprintf("kill -STOP %d", pids[0]))
	eventually(t, "the decoy to be stopped", func() bool { return !alive() })
}

// eventually waits for something that takes a moment.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.After(10 * time.Second); !is(); {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-limit:
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}
