package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// isLost checks that a command is LOST for a reason, without an exit code, with a
// hint, and with its output kept.
func (s stage) isLost(t testing.TB, id, reason, kept string) {
	t.Helper()
	c := await(t, s.Env, id, ended)
	if c.GetState() != lost || c.GetFailure().GetReason() != reason || c.GetFailure().GetHint() == "" || c.ExitCode != nil || c.GetExitSignal() != "" {
		t.Errorf("%v", c)
	}
	s.told(t, id, kept, "")
}

// TestHostRebooted: in the middle of a command, seen by a service that runs, and
// by one that was away.
func TestHostRebooted(t *testing.T) {
	t.Parallel()
	for _, away := range []bool{false, true} {
		t.Run(map[bool]string{false: "while watched", true: "while the service was away"}[away], func(t *testing.T) {
			s := newStage(t, sshtest.MachineOptions{})
			ids := make(map[string]string)
			for _, login := range logins {
				ids[login], _ = s.stands(t, &telexecv1.ExecuteRequest{Host: login}, tree{command: "echo up; exec sleep WORD", processes: 1})
			}
			if away {
				s.Kill()
			}
			s.machine.Reboot()
			if away {
				s.Restart()
			}
			for _, login := range logins {
				t.Run(login, func(t *testing.T) {
					s.isLost(t, ids[login], fault.ReasonHostRebooted, "up\n")
					if r := execute(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: "echo again"}); string(r.GetStdout().GetData()) != "again\n" {
						t.Errorf("the next command: %v", r)
					}
					s.swept(t, ids[login])
				})
			}
		})
	}
}

// removeRuns removes all that the service keeps in an account's home.
func (s stage) removeRuns(t testing.TB, login string) {
	t.Helper()
	dir := s.machine.Path(login, "~/.local/state/telexec")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("nothing to remove in %s: %v", dir, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// TestRunRemoved: somebody has tidied up. With the processes gone too nothing can
// be known any more.
func TestRunRemoved(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	ids := make(map[string]string)
	for _, login := range logins {
		ids[login], _ = s.stands(t, &telexecv1.ExecuteRequest{Host: login}, tree{command: "echo x >>~/starts; echo up; exec sleep WORD", processes: 1})
	}
	// What it has printed is stored before this is.
	execute(t, s.Env, &telexecv1.ExecuteRequest{Host: asRoot, Command: "true"})
	s.Kill()
	s.machine.KillCommands()
	for _, login := range logins {
		s.removeRuns(t, login)
	}
	s.Restart()
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			defer func() {
				if starts, err := os.ReadFile(s.machine.Path(login, "~/starts")); string(starts) != "x\n" {
					t.Errorf("it was started %d times (%v)", len(starts)/2, err)
				}
			}()
			s.isLost(t, ids[login], fault.ReasonRunRemoved, "up\n")
			s.swept(t, ids[login])
		})
	}
}

// TestRunRemovedWhileFollowed: the truth is told when the command has ended,
// whichever it is, and the command is not said to run for ever.
func TestRunRemovedWhileFollowed(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	ids := make(map[string]string)
	for _, login := range logins {
		ids[login] = begin(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: "echo up; while [ ! -e ~/go ]; do sleep 0.05; done; exit 6"})
		waitOutput(t, s.Env, ids[login], "up\n")
		s.removeRuns(t, login)
		write(t, s.machine.Path(login, "~/go"), "")
	}
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			c := await(t, s.Env, ids[login], ended)
			switch {
			case c.GetState() == completed && c.GetExitCode() == 6:
			case c.GetState() == lost && c.GetFailure().GetReason() == fault.ReasonRunRemoved && c.ExitCode == nil:
			default:
				t.Errorf("%v", c)
			}
			s.swept(t, ids[login])
		})
	}
}

// TestSupervisorKilled: everything of the run dies at once, as under the OOM
// killer or an administrator's killall.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	for _, away := range []bool{false, true} {
		t.Run(map[bool]string{false: "while watched", true: "while the service was away"}[away], func(t *testing.T) {
			s := newStage(t, sshtest.MachineOptions{})
			ids := make(map[string]string)
			for _, login := range logins {
				ids[login], _ = s.stands(t, &telexecv1.ExecuteRequest{Host: login}, tree{command: "echo up; exec sleep WORD", processes: 1})
			}
			if away {
				s.Kill()
			}
			s.machine.KillCommands()
			if away {
				s.Restart()
			}
			for _, login := range logins {
				t.Run(login, func(t *testing.T) {
					s.isLost(t, ids[login], fault.ReasonSupervisorKilled, "up\n")
					s.swept(t, ids[login])
				})
			}
		})
	}
}

// TestRecycledPIDIsNotTouched: the command and its supervisor were killed, and
// another process has the pid by now, leads a group and a session of that number,
// and has nothing to do with it.
func TestRecycledPIDIsNotTouched(t *testing.T) {
	t.Parallel()
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			s := newStage(t, sshtest.MachineOptions{OwnPIDs: true})
			id, word := s.stands(t, &telexecv1.ExecuteRequest{Host: login}, tree{command: "echo up; exec sleep WORD", processes: 1})
			pids := s.machine.Pids(id)
			if len(pids) == 0 {
				t.Fatal("nothing carries the id")
			}
			s.Kill()
			s.machine.KillCommands()
			if !comesTrue(t, 5*time.Second, func() bool { return len(s.sleepers(word)) == 0 && len(s.machine.Pids(id)) == 0 }) {
				t.Fatal("it lives on")
			}
			var alive []func() bool
			for _, pid := range pids {
				alive = append(alive, s.machine.Decoy(pid))
			}
			s.Restart()
			s.isLost(t, id, fault.ReasonSupervisorKilled, "up\n")
			r, err := s.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: id})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("cancel: %v", r.GetReport())
			for i, pid := range pids {
				if !alive[i]() {
					t.Errorf("the decoy with pid %d was touched", pid)
				}
			}
			s.swept(t, id)
		})
	}
}

// smallDisks are the accounts of a story about full disks.
func smallDisks() []sshtest.Account {
	return []sshtest.Account{{Name: asRoot, Root: true, SmallDisk: 1 << 20}, {Name: asPlain, SmallDisk: 1 << 20}}
}

// TestDiskFullBeforeTheStart: nothing runs, and it is said why.
func TestDiskFullBeforeTheStart(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{Accounts: smallDisks()})
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			s.machine.Fill(login)
			c := execute(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: "echo ran >~/ran"}).GetCommand()
			if c.GetState() != failed || c.GetFailure().GetReason() != fault.ReasonNoSpace || c.GetFailure().GetHint() == "" || c.ExitCode != nil {
				t.Errorf("%v", c)
			}
			if _, err := os.Stat(s.machine.Path(login, "~/ran")); err == nil {
				t.Error("it has run")
			}
			s.swept(t, c.GetId())
			s.machine.Free(login)
			r := execute(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: "echo works"})
			if string(r.GetStdout().GetData()) != "works\n" || r.GetCommand().GetDurability() != telexecv1.Durability_DURABILITY_DURABLE {
				t.Errorf("with space again: %v", r)
			}
		})
	}
}

// TestDiskFullDuringTheRun: the command is neither stalled nor killed, its exit
// code is known, and the offset from which on output is missing is told.
func TestDiskFullDuringTheRun(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{Accounts: smallDisks()})
	var text strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&text, "%d\n", i+1)
	}
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			id := begin(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: "seq 1 1000; while [ ! -e ~/go ]; do sleep 0.05; done; seq 1001 200000; echo aside >&2; exit 9"})
			s.durable(t, id)
			s.reaches(t, id, 3893)
			s.machine.Fill(login)
			write(t, s.machine.Path(login, "~/go"), "")
			c := await(t, s.Env, id, ended)
			if c.GetState() != completed || c.GetExitCode() != 9 {
				t.Errorf("%v", c)
			}
			stdout, _, _ := output(t, s.Env, &telexecv1.StreamOutputRequest{CommandId: id})
			cut := c.GetTruncation()
			if cut == nil || cut.StdoutOffset == nil || cut.GetStdoutOffset() != int64(len(stdout)) || cut.GetReason() == "" {
				t.Errorf("%d bytes of stdout, truncation %v", len(stdout), cut)
			}
			if len(stdout) < 3893 || !strings.HasPrefix(text.String(), stdout) {
				same(t, "stdout", stdout, text.String()[:len(stdout)])
			}
			s.machine.Free(login)
			s.swept(t, id)
		})
	}
}

// TestSudoRefused: a wrong password, and somebody who may not. It is told apart
// from a command that ran and failed, and it has not run.
func TestSudoRefused(t *testing.T) {
	t.Parallel()
	needSudo(t)
	const withPassword, free, nobody = "withpw", "free", "nosudo"
	password := secret.New("right one")
	s := newStage(t, sshtest.MachineOptions{Accounts: []sshtest.Account{
		{Name: withPassword, Sudo: sshtest.PasswordSudo, Password: password}, {Name: free, Sudo: sshtest.FreeSudo}, {Name: nobody},
	}})
	for name, c := range map[string]struct {
		host string
		sudo *telexecv1.Sudo
		ok   bool
	}{
		"right password":  {withPassword, &telexecv1.Sudo{Password: password.Reveal()}, true},
		"wrong password":  {withPassword, &telexecv1.Sudo{Password: "wrong one"}, false},
		"no password":     {withPassword, &telexecv1.Sudo{}, false},
		"free":            {free, &telexecv1.Sudo{}, true},
		"free, password":  {free, &telexecv1.Sudo{Password: "not needed"}, true},
		"another user":    {free, &telexecv1.Sudo{User: nobody}, true},
		"may not":         {nobody, &telexecv1.Sudo{Password: "whatever"}, false},
		"no such user":    {free, &telexecv1.Sudo{User: "nobody-here"}, false},
		"may not, no pwd": {nobody, &telexecv1.Sudo{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			mark := filepath.Join("/tmp", "telexec-story-"+newWord())
			t.Cleanup(func() { os.Remove(mark) })
			r := execute(t, s.Env, &telexecv1.ExecuteRequest{Host: c.host, Sudo: c.sudo, Command: "echo ran >" + mark + "; id -un; cat; exit 8", Stdin: []byte("typed\n")})
			cmd := r.GetCommand()
			_, err := os.Stat(mark)
			if c.ok {
				want := c.sudo.GetUser()
				if want == "" {
					want = "root"
				}
				if cmd.GetState() != completed || cmd.GetExitCode() != 8 || err != nil || string(r.GetStdout().GetData()) != want+"\ntyped\n" || len(r.GetStderr().GetData()) != 0 {
					t.Errorf("%v (%v)", r, err)
				}
			} else if cmd.GetState() != failed || cmd.GetFailure().GetReason() != fault.ReasonSudoRefused || cmd.GetFailure().GetHint() == "" || cmd.ExitCode != nil || err == nil {
				t.Errorf("%v (%v)", r, err)
			}
			s.swept(t, cmd.GetId())
		})
	}
	for _, secret := range []string{password.Reveal(), "wrong one"} {
		if strings.Contains(s.Log(), secret) {
			t.Errorf("the password %q is in the log", secret)
		}
	}
}
