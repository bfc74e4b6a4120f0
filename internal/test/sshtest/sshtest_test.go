package sshtest_test

import (
	"bytes"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial logs in with x/crypto/ssh alone, so that the room under test elsewhere
// is not needed here.
func dial(t *testing.T, s *sshtest.Server) *ssh.Client {
	t.Helper()
	return dialAs(t, s, s.User)
}

func dialAs(t *testing.T, s *sshtest.Server, user string) *ssh.Client {
	t.Helper()
	key, err := os.ReadFile(s.IdentityFile)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", s.Addr, &ssh.ClientConfig{
		User:            user,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(s.HostKey),
		// As a client does that has the key in its known_hosts; dropbear dies of one
		// that asks for another kind.
		HostKeyAlgorithms: []string{s.HostKey.Type()},
		Timeout:           5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func run(t *testing.T, c *ssh.Client, command string) string {
	t.Helper()
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	out, err := session.CombinedOutput(command)
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestLogsInAsEachUser(t *testing.T) {
	for name, user := range map[string]string{"current": "", "plain": sshtest.PlainUser(t)} {
		t.Run(name, func(t *testing.T) {
			s := sshtest.Start(t, sshtest.Options{User: user})
			if got := run(t, dial(t, s), "id -un"); got != s.User {
				t.Errorf("logged in as %q, want %q", got, s.User)
			}
			h := s.Host("web1")
			if h.Name != "web1" || h.Address != s.Addr || h.User != s.User {
				t.Errorf("Host = %+v", h)
			}
			known, err := os.ReadFile(s.KnownHostsFile)
			if err != nil || strings.TrimSpace(string(known)) != s.KnownHostsLine() {
				t.Errorf("known_hosts = %q, %v", known, err)
			}
		})
	}
}

func TestKillSessionsBreaksConnectionsOnly(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	c := dial(t, s)
	if n := s.Sessions(); n != 1 {
		t.Errorf("Sessions = %d, want 1", n)
	}
	s.KillSessions()
	if err := c.Wait(); err == nil {
		t.Error("the connection ended without an error")
	}
	run(t, dial(t, s), "true")
}

// What a login has left behind ends with the server, also where nobody is above it any
// more and it has left its session.
func TestNothingOutlivesTheServer(t *testing.T) {
	var pids []string
	t.Run("server", func(t *testing.T) {
		s := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t)})
		c := dial(t, s)
		pids = strings.Fields(run(t, c, "setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!"))
		c.Close()
	})
	if len(pids) != 1 {
		t.Fatal(pids)
	}
	if stat, err := os.ReadFile("/proc/" + pids[0] + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("it lives: %s", stat)
	}
}

func TestRestartWithNewHostKey(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	old, addr := s.HostKey, s.Addr
	s.Stop()
	s.Stop()
	s.KillSessions()
	s.Pause()
	if n := s.Sessions(); n != 0 {
		t.Errorf("Sessions of a stopped server = %d", n)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("a stopped server takes connections")
	}
	s.RestartWithNewHostKey()
	if s.Addr != addr || bytes.Equal(old.Marshal(), s.HostKey.Marshal()) {
		t.Errorf("address %s (was %s), same key: %t", s.Addr, addr, bytes.Equal(old.Marshal(), s.HostKey.Marshal()))
	}
	run(t, dial(t, s), "true")
}

func TestPauseIsSilenceAndResumeEndsIt(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	c := dial(t, s)
	s.Pause()
	var answer sync.WaitGroup
	replied := make(chan error, 1) // one reply, read below
	answer.Go(func() {
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		replied <- err
	})
	select {
	case err := <-replied:
		t.Errorf("a paused server answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.Resume()
	answer.Wait()
}

func TestMaxSessionsHolds(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{MaxSessions: 1, MaxStartups: "5:30:10"})
	c := dial(t, s)
	first, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := c.NewSession(); err == nil {
		t.Error("a second session was let in")
	}
}

func TestAuthorizeAddsAKey(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	file, signer := sshtest.NewKey(t, t.TempDir(), "other")
	s.Authorize(signer.PublicKey())
	s.IdentityFile = file
	run(t, dial(t, s), "true")
	if !strings.Contains(s.Log(), "Accepted publickey") {
		t.Error("the log does not tell of the login")
	}
}

func TestPasswordLogin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can set a password")
	}
	password := sshtest.PlainPassword(t)
	s := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), Password: true})
	h := s.PasswordHost("web1", password)
	if len(h.IdentityFiles) != 0 {
		t.Errorf("identity files = %v", h.IdentityFiles)
	}
	for name, method := range map[string]ssh.AuthMethod{
		"password": ssh.Password(h.Password.Reveal()),
		"keyboard-interactive": ssh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) {
			answers := make([]string, len(q))
			for i := range answers {
				answers[i] = h.Password.Reveal()
			}
			return answers, nil
		}),
	} {
		c, err := ssh.Dial("tcp", s.Addr, &ssh.ClientConfig{
			User: s.User, Auth: []ssh.AuthMethod{method}, HostKeyCallback: ssh.FixedHostKey(s.HostKey),
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		run(t, c, "true")
		c.Close()
	}
}

func TestHostCertificate(t *testing.T) {
	_, ca := sshtest.NewKey(t, t.TempDir(), "ca")
	s := sshtest.Start(t, sshtest.Options{HostCA: ca})
	check := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return bytes.Equal(key.Marshal(), ca.PublicKey().Marshal())
	}}
	key, err := os.ReadFile(s.IdentityFile)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", s.Addr, &ssh.ClientConfig{
		User: s.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: check.CheckHostKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestNoServer(t *testing.T) {
	if c, err := net.Dial("tcp", sshtest.ClosedPort(t)); err == nil {
		c.Close()
		t.Error("the closed port is open")
	}
	c, err := net.Dial("tcp", sshtest.BlackHole(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !os.IsTimeout(err) {
		t.Errorf("the black hole said something: %d, %v", n, err)
	}
}
