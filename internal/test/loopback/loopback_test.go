package loopback_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/telexec/telexec/internal/test/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *loopback.Server {
	t.Helper()
	s, err := loopback.Start(t.Context(), loopback.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func dial(t *testing.T, s *loopback.Server) *ssh.Client {
	t.Helper()
	key, err := os.ReadFile(s.IdentityFile)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	known, err := knownhosts.New(s.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", s.Addr, &ssh.ClientConfig{
		User: s.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: known,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func session(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRunsACommand(t *testing.T) {
	c := dial(t, start(t))
	run := session(t, c)
	var stdout, stderr bytes.Buffer
	run.Stdin, run.Stdout, run.Stderr = strings.NewReader("input"), &stdout, &stderr
	err := run.Run("cat; echo err >&2; exit 3")
	exit, ok := errors.AsType[*ssh.ExitError](err)
	if !ok || exit.ExitStatus() != 3 {
		t.Errorf("end = %v, want exit status 3", err)
	}
	if stdout.String() != "input" || stderr.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
}

func TestTellsTheSignal(t *testing.T) {
	c := dial(t, start(t))
	for signal, want := range map[string]string{"KILL": "KILL", "XCPU": "SIG@openssh.com"} {
		err := session(t, c).Run("ulimit -c 0; kill -" + signal + " $$")
		if exit, ok := errors.AsType[*ssh.ExitError](err); !ok || exit.Signal() != want {
			t.Errorf("after %s: %v, want the signal %s", signal, err, want)
		}
	}
}

func TestEachCommandHasItsOwnSession(t *testing.T) {
	c := dial(t, start(t))
	out, err := session(t, c).Output("cut -d ' ' -f 6 /proc/$$/stat; echo $$")
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(out)); len(f) != 2 || f[0] != f[1] {
		t.Errorf("session and pid = %q", f)
	}
}

func TestGivesATerminal(t *testing.T) {
	run := session(t, dial(t, start(t)))
	in, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	run.Stdout = &out
	if err := run.RequestPty("vt100", 24, 80, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	if err := run.Start(`tty >/dev/null && echo "$TERM"; stty size; read -r x; stty size; exit 4`); err != nil {
		t.Fatal(err)
	}
	if err := run.WindowChange(30, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "x\r"); err != nil {
		t.Fatal(err)
	}
	if exit, ok := errors.AsType[*ssh.ExitError](run.Wait()); !ok || exit.ExitStatus() != 4 {
		t.Errorf("end = %v, want exit status 4", exit)
	}
	if got := strings.ReplaceAll(out.String(), "\r", ""); !strings.Contains(got, "vt100\n") || !strings.HasSuffix(got, "\n30 100\n") {
		t.Errorf("%q", got)
	}
}

// As with sshd, what runs on a terminal is hung up when the client goes.
func TestHangsUp(t *testing.T) {
	c := dial(t, start(t))
	run := session(t, c)
	file := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run.RequestPty("vt100", 24, 80, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	if err := run.Start("trap 'echo hung up >" + file + "; exit' HUP; echo begun >" + file + "; while :; do sleep 0.05; done"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "begun\n" {
		t.Fatalf("%q, %v", got, err)
	}
	run.Close()
	if got, err := os.ReadFile(file); err != nil || string(got) != "hung up\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRefuses(t *testing.T) {
	s := start(t)
	c := dial(t, s)
	run := session(t, c)
	if err := run.Setenv("A", "B"); err == nil {
		t.Error("the environment was taken")
	}
	if err := run.Signal(ssh.SIGTERM); err != nil {
		t.Error(err) // it wants no reply
	}
	if _, _, err := c.OpenChannel("direct-tcpip", nil); err == nil {
		t.Error("forwarding was given")
	}
	if ok, _, err := c.SendRequest("keepalive@openssh.com", true, nil); ok || err != nil {
		t.Errorf("keepalive = %t, %v", ok, err)
	}
	raw, _, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := raw.SendRequest("exec", true, []byte{1}); ok || err != nil {
		t.Errorf("a broken exec request = %t, %v", ok, err)
	}
	for _, user := range []string{s.User, "somebody"} {
		_, err := ssh.Dial("tcp", s.Addr, &ssh.ClientConfig{User: user, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		if err == nil {
			t.Errorf("%s logged in without the key", user)
		}
	}
}

func TestClosingTheChannelKillsNothing(t *testing.T) {
	s := start(t)
	file := filepath.Join(t.TempDir(), "fifo")
	c := dial(t, s)
	out, err := session(t, c).Output("mkfifo " + file)
	if err != nil {
		t.Fatalf("mkfifo: %v %s", err, out)
	}
	run := session(t, c)
	if err := run.Start("read -r line <" + file + " && echo \"$line\" >" + file + ".out; echo done >" + file); err != nil {
		t.Fatal(err)
	}
	run.Close()
	if err := os.WriteFile(file, []byte("still here\n"), 0); err != nil {
		t.Fatal(err)
	}
	if done, err := os.ReadFile(file); err != nil || string(done) != "done\n" {
		t.Errorf("done = %q, %v", done, err)
	}
	if got, err := os.ReadFile(file + ".out"); err != nil || string(got) != "still here\n" {
		t.Errorf("the command wrote %q, %v", got, err)
	}
}

func TestCloseEndsRunningCommands(t *testing.T) {
	s := start(t)
	run := session(t, dial(t, s))
	if err := run.Start("sleep 300"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	if err := run.Wait(); err == nil {
		t.Error("the command ended well")
	}
	if c, err := net.Dial("tcp", s.Addr); err == nil {
		c.Close()
		t.Error("a closed server takes connections")
	}
}

func TestContextEndsTheServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := loopback.Start(ctx, loopback.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	cancel()
	c.Wait()
	s.Close()
}

func TestStartNeedsTheDirectory(t *testing.T) {
	if _, err := loopback.Start(t.Context(), loopback.Options{Dir: filepath.Join(t.TempDir(), "missing")}); err == nil {
		t.Error("it started without a place for its keys")
	}
}

func TestConfigHostIsYAML(t *testing.T) {
	s := start(t)
	var got struct {
		Hosts []struct {
			Name, Address, User string
			IdentityFile        string `yaml:"identity_file"`
			KnownHostsFile      string `yaml:"known_hosts_file"`
		}
	}
	if err := yaml.Unmarshal([]byte("hosts:\n"+s.ConfigHost("loopback")), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Hosts) != 1 {
		t.Fatalf("hosts = %+v", got.Hosts)
	}
	h := got.Hosts[0]
	if h.Name != "loopback" || h.Address != s.Addr || h.User != s.User ||
		h.IdentityFile != s.IdentityFile || h.KnownHostsFile != s.KnownHostsFile {
		t.Errorf("host = %+v", h)
	}
}
