package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestWhatStaysInASession: another user's shell, a virtual environment, and programs that
// have the whole screen, by hand and by program.
func TestWhatStaysInASession(t *testing.T) {
	t.Parallel()
	m := sshtest.StartMachine(t, sshtest.MachineOptions{Accounts: []sshtest.Account{
		{Name: "anna", Shell: "bash", Sudo: sshtest.FreeSudo}, {Name: "zoe", Shell: "zsh", Sudo: sshtest.FreeSudo}, {Name: "root", Root: true, Shell: "bash"},
	}})
	env := testenv.Start(t, testenv.WithoutHosts(), testenv.WithHosts(m.HostOf("anna", "anna"), m.HostOf("zoe", "zoe")))

	t.Run("sudo", func(t *testing.T) {
		if !has("sudo") {
			testenv.Missing(t, "no sudo here; make setup gets it")
		}
		for host, keeper := range map[string]telexecv1.Keeper{"anna": telexecv1.Keeper_KEEPER_UNSPECIFIED, "zoe": telexecv1.Keeper_KEEPER_NONE} {
			t.Run(host, func(t *testing.T) {
				t.Parallel()
				s := openOn(t, env, &telexecv1.OpenSessionRequest{Host: host, Name: host + "-sudo", Keeper: keeper})
				_, own := s.run("id -u")
				if c, out := s.run("sudo -i"); c.GetState() != completed || c.ExitCode != nil || c.GetCompletion() != telexecv1.Completion_COMPLETION_PROMPT {
					t.Errorf("sudo -i: %q, %v", out, c)
				}
				for _, tc := range []struct {
					line, out string
					code      int32
				}{{"id -u", "0\r\n", 0}, {"cd /usr; false", "", 1}, {"pwd", "/usr\r\n", 0}} {
					if c, out := s.run(tc.line); !marked(c, tc.code) || out != tc.out {
						t.Errorf("as root, %q: %q, %v", tc.line, out, c)
					}
				}
				// What runs there is cancelled as anywhere, though it is root's.
				long := s.start("sleep "+newWord(), running)
				r, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{Session: s.name})
				if err != nil || r.GetCommand().GetId() != long.GetId() || r.GetCommand().GetState() != cancelled || r.GetReport().GetOutcome() != gone {
					t.Errorf("%v, %v", r, err)
				}
				if c, _ := s.run("exit"); c.GetState() != completed {
					t.Errorf("exit: %v", c)
				}
				if c, out := s.run("id -u"); !marked(c, 0) || out != own || own == "0\r\n" {
					t.Errorf("behind it: %q, first it was %q: %v", out, own, c)
				}
			})
		}
	})

	t.Run("venv", func(t *testing.T) {
		if _, err := os.Stat("/usr/bin/python3"); err != nil {
			t.Skip("no /usr/bin/python3 here")
		}
		s := openOn(t, env, &telexecv1.OpenSessionRequest{Host: "anna", Name: "venv"})
		if c, out := s.run("/usr/bin/python3 -m venv --without-pip ~/venv && . ~/venv/bin/activate"); !marked(c, 0) || out != "" {
			t.Fatalf("%q, %v", out, c)
		}
		if c, out := s.run("command -v python"); !marked(c, 0) || out != m.Home("anna")+"/venv/bin/python\r\n" {
			t.Errorf("%q, %v", out, c)
		}
		if c, out := s.run("python -c 'import sys; print(sys.prefix)'"); !marked(c, 0) || out != m.Home("anna")+"/venv\r\n" {
			t.Errorf("%q, %v", out, c)
		}
		// A prompt with something before it, as activate makes it, is still one.
		if c, _ := s.run("deactivate"); !marked(c, 0) {
			t.Errorf("%v", c)
		}
	})

	t.Run("top", func(t *testing.T) {
		if !has("top") {
			t.Skip("no top here")
		}
		s := openOn(t, env, &telexecv1.OpenSessionRequest{Host: "zoe", Name: "top"})
		v := s.attach(env.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_WRITER)
		v.types("top -d 0.5\r")
		if !s.showsUntil(func(r *telexecv1.ReadScreenResponse) bool {
			return strings.HasPrefix(r.GetLines()[0], "top - ") && strings.Contains(strings.Join(r.GetLines(), "\n"), " PID ")
		}) {
			t.Fatalf("%q", s.screen())
		}
		if got := s.get(); got.GetCurrentCommand() == "" {
			t.Errorf("while it runs: %v", got)
		}
		v.types("q")
		if c := v.command("top -d 0.5", completed).GetCommand(); !marked(c, 0) {
			t.Errorf("%v", c)
		}
		// The same by program: keys, and the screen that follows.
		started := s.start("top -d 0.5", running)
		if !s.showsUntil(func(r *telexecv1.ReadScreenResponse) bool { return strings.HasPrefix(r.GetLines()[0], "top - ") }) {
			t.Fatalf("%q", s.screen())
		}
		if _, err := s.api.SendKeys(t.Context(), &telexecv1.SendKeysRequest{Session: s.name, Keys: keys("q")}); err != nil {
			t.Fatal(err)
		}
		if c := await(t, env, started.GetId(), ended); !marked(c, 0) {
			t.Errorf("%v", c)
		}
	})
}

// device is what a switch runs for whoever logs in.
const device = `#!/bin/sh
[ "$2" != deaf ] || stty -echo
[ "$2" = deaf ] || printf 'Acme 2000\r\n'
prompt=$1
while :; do
  printf '%s' "$prompt"
  IFS= read -r line || exit 0
  case $line in
  show) printf 'port 1 up 50%%\nport 2 #\n' ;;
  slow) echo one; sleep 0.3; echo two ;;
  wait) sleep 1000 ;;
  enable) prompt='switch# ' ;;
  logout) exit 4 ;;
  '') ;;
  *) echo "no such command: $line" ;;
  esac
done
`

// TestDevices: what has no shell tells its ends by its prompt, or says nothing.
func TestDevices(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "device") // t.TempDir's parent is 0700
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "device")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, []byte(device), 0o755)); err != nil {
		t.Fatal(err)
	}
	forced := func(args string) *sshtest.Server {
		return sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), ExtraConfig: []string{"ForceCommand /bin/sh " + program + " " + args}})
	}
	prompting, mute := forced("'switch> '"), forced("'' deaf")
	told, unknown, silentOne := prompting.Host("told"), prompting.Host("unknown"), mute.Host("mute")
	told.NoShell, silentOne.NoShell = true, true
	env := testenv.Start(t, testenv.WithoutHosts(), testenv.WithHosts(told, unknown, silentOne))

	for _, host := range []string{"told", "unknown"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			s := openOn(t, env, &telexecv1.OpenSessionRequest{Host: host, Name: host})
			if got := s.get(); got.GetShell() != "" || got.GetCompletion() != telexecv1.Completion_COMPLETION_PROMPT || got.GetKeeper() != telexecv1.Keeper_KEEPER_NONE || got.GetKeeperReason() == "" {
				t.Errorf("opened as %v", got)
			}
			for _, tc := range []struct{ line, out string }{
				{"show", "port 1 up 50%\r\nport 2 #\r\n"}, {"slow", "one\r\ntwo\r\n"}, {"enable", ""}, {"show", "port 1 up 50%\r\nport 2 #\r\n"},
			} {
				c, out := s.run(tc.line)
				if c.GetState() != completed || c.GetCompletion() != telexecv1.Completion_COMPLETION_PROMPT || c.ExitCode != nil || !strings.HasPrefix(out, tc.out) || strings.Count(out, "\n") != strings.Count(tc.out, "\n") {
					t.Errorf("%q: %q, %v", tc.line, out, c)
				}
			}
			if c, _ := s.run("logout"); c.GetState() != completed || c.GetExitCode() != 4 {
				t.Errorf("%v", c)
			}
			if !comesTrue(t, 5*time.Second, func() bool {
				got := s.get()
				return got.GetEnd().GetReason() == fault.ReasonShellExited && got.GetExitCode() == 4
			}) {
				t.Errorf("%v", s.get())
			}
		})
	}
	t.Run("mute", func(t *testing.T) {
		t.Parallel()
		s := openOn(t, env, &telexecv1.OpenSessionRequest{Host: "mute", Name: "mute"})
		c, out := s.run("slow")
		if c.GetState() != completed || c.GetCompletion() != telexecv1.Completion_COMPLETION_SILENCE || c.ExitCode != nil || out != "one\r\ntwo\r\n" {
			t.Errorf("%q, %v", out, c)
		}
		if took := c.GetEndTime().AsTime().Sub(c.GetStartTime().AsTime()).Seconds(); took < 2 || took > 6 {
			t.Errorf("it took %v s", took)
		}
	})
}
