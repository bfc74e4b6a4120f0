package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// keeping are what can keep a shell, and the programs.
var keeping = map[string]telexecv1.Keeper{
	"tmux": telexecv1.Keeper_KEEPER_TMUX, "dtach": telexecv1.Keeper_KEEPER_DTACH, "screen": telexecv1.Keeper_KEEPER_SCREEN, "alone": telexecv1.Keeper_KEEPER_NONE,
}

// lossStage is a machine with a session for each keeper that is here, named by it.
func lossStage(t *testing.T, names ...string) (stage, map[string]*shared) {
	t.Helper()
	var accounts []sshtest.Account
	for _, name := range names {
		if name != "alone" && !has(name) {
			t.Logf("no %s here; make setup gets it", name)
			continue
		}
		accounts = append(accounts, sshtest.Account{Name: name, Shell: "bash"})
	}
	st := newStage(t, sshtest.MachineOptions{Accounts: accounts}, quickLink())
	sessions := make(map[string]*shared)
	for _, a := range accounts {
		s := openOn(t, st.Env, &telexecv1.OpenSessionRequest{Host: a.Name, Name: a.Name, Keeper: keeping[a.Name]})
		if got := s.get(); got.GetKeeper() != keeping[a.Name] || (got.GetKeeperReason() == "") != (a.Name != "alone") {
			t.Fatalf("opened as %v", got)
		}
		sessions[a.Name] = s
	}
	return st, sessions
}

// shellPID is what "echo pid $$" prints.
var shellPID = regexp.MustCompile(`pid [0-9]+\r\n`)

// goesOn checks that it is the shell that had that pid, with its variables, and that
// its commands have exact output and codes, but behind screen, which hides marks.
func (s *shared) goesOn(pid string) {
	s.Helper()
	want := pid + "still there\r\n"
	c, out := s.run("echo pid $$; echo still $x; sh -c 'exit 3'")
	if s.name == "screen" {
		if c.GetState() != completed || c.ExitCode != nil || c.GetCompletion() != telexecv1.Completion_COMPLETION_PROMPT || !strings.Contains(out, want) {
			s.Errorf("%s: %q, want %q: %v", s.name, out, want, c)
		}
	} else if out != want || !marked(c, 3) {
		s.Errorf("%s: %q, want %q: %v", s.name, out, want, c)
	}
}

// waits gives a line that prints begun and runs until a file of that name is in the
// home, and ends with a code.
func waits(name string, code int) string {
	return fmt.Sprintf("sh -c 'echo begun; while [ ! -e ~/%s ]; do sleep 0.05; done; exit %d'", name, code)
}

// TestALostConnection: the connection dies under a session. What something keeps goes
// on, the same shell with what runs in it; the rest is told to be over.
func TestALostConnection(t *testing.T) {
	t.Parallel()
	st, sessions := lossStage(t, slices.Sorted(maps.Keys(keeping))...)
	pids, seats, long := make(map[string]string), make(map[string]*seat), make(map[string]string)
	for name, s := range sessions {
		if _, out := s.run("x=there; echo pid $$"); shellPID.MatchString(out) {
			pids[name] = shellPID.FindString(out)
		} else {
			t.Fatalf("%s: %q", name, out)
		}
		seats[name] = s.attach(st.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_WRITER)
		long[name] = s.start(waits("go", 6), running).GetId()
	}
	for _, v := range seats {
		v.sees("begun\r\n")
	}
	broken := time.Now()
	st.machine.KillSessions()

	// Everybody sees why.
	for name, v := range seats {
		v.sees("[telexec] the connection to " + name + " was lost")
		if took := time.Since(broken); took > 5*time.Second {
			t.Errorf("%s: told after %v", name, took)
		}
	}
	lone := seats["alone"]
	end := lone.until("the end", func(m *telexecv1.AttachResponse) bool { return m.GetEnded() != nil }).GetEnded()
	if end.GetEnd().GetReason() != fault.ReasonConnectionLost || end.GetEnd().GetHint() == "" || end.ExitCode != nil {
		t.Errorf("without a keeper: %v", end)
	}
	if c := await(t, st.Env, long["alone"], ended); c.GetState() != lost || c.GetFailure().GetReason() != fault.ReasonConnectionLost || c.ExitCode != nil {
		t.Errorf("what ran without a keeper: %v", c)
	}
	if took := time.Since(broken); took > 5*time.Second {
		t.Errorf("without a keeper it was told after %v", took)
	}
	delete(sessions, "alone")

	for name, s := range sessions {
		seats[name].until("that it is back", func(m *telexecv1.AttachResponse) bool {
			return m.GetSession().GetConnection() == telexecv1.Connection_CONNECTION_CONNECTED
		})
		if c := await(t, st.Env, long[name], func(*telexecv1.Command) bool { return true }); c.GetState() != running {
			t.Errorf("%s: what ran in it: %v", name, c)
		}
		write(t, st.machine.Path(name, "~/go"), "")
		c := await(t, st.Env, long[name], ended)
		if c.GetState() != completed || c.GetTruncation() == nil {
			t.Errorf("%s: what ran in it: %v", name, c)
		}
		// screen hides marks, and so the code.
		if marks := name != "screen"; marks != (c.ExitCode != nil) || marks && c.GetExitCode() != 6 {
			t.Errorf("%s: what ran in it: %v", name, c)
		}
		s.goesOn(pids[name])
		long[name] = s.start(waits("go2", 5), running).GetId()
		seats[name].sees("begun\r\n")
	}

	// What ends while nobody can look: it has ended, and nobody knows how.
	st.machine.Stop()
	for name := range sessions {
		write(t, st.machine.Path(name, "~/go2"), "")
	}
	if !comesTrue(t, 10*time.Second, func() bool { return len(st.machine.Running("go2")) == 0 }) {
		t.Fatalf("it does not end: %q", st.machine.Running("go2"))
	}
	for name, s := range sessions {
		if got := s.get(); got.GetState() != telexecv1.SessionState_SESSION_STATE_OPEN || got.GetConnection() != telexecv1.Connection_CONNECTION_RECONNECTING {
			t.Errorf("%s: while the host is away: %v", name, got)
		}
	}
	st.machine.Restart()
	for name, s := range sessions {
		c := await(t, st.Env, long[name], ended)
		if c.GetState() != completed || c.ExitCode != nil || c.GetCompletion() != telexecv1.Completion_COMPLETION_PROMPT || c.GetTruncation() == nil {
			t.Errorf("%s: what ended meanwhile: %v", name, c)
		}
		s.goesOn(pids[name])
		id := s.get().GetId()
		r, err := s.api.CloseSession(t.Context(), &telexecv1.CloseSessionRequest{Session: name})
		if err != nil || r.GetSession().GetState() != telexecv1.SessionState_SESSION_STATE_ENDED || r.GetReport().GetOutcome() != gone {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		st.swept(t, id)
	}
}

// TestASessionSurvivesACrash: what tmux keeps is found again by a service that was
// stopped, and by one that was killed.
func TestASessionSurvivesACrash(t *testing.T) {
	t.Parallel()
	st, sessions := lossStage(t, "tmux", "alone")
	s, alone := sessions["tmux"], sessions["alone"]
	if s == nil {
		testenv.Missing(t, "no tmux here; make setup gets it")
	}
	_, pid := s.run("x=there; echo pid $$")
	if !shellPID.MatchString(pid) {
		t.Fatalf("%q", pid)
	}
	for _, how := range []string{"restart", "kill -9"} {
		// One that is a process of its own, and one that the shell runs itself.
		line := map[string]string{"restart": waits("go", 6), "kill -9": "echo begun; while [ ! -e ~/go ]; do read -r -t 0.1 y; done; (exit 6)"}[how]
		long := s.start(line, running)
		stored(t, st.Env, long.GetId(), "RUNNING") // what is told a moment before may be lost by kill -9, and says so
		before := s.get()
		if how == "restart" {
			st.Restart()
		} else {
			st.Kill()
			st.Restart()
		}
		again := s.attach(st.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_WRITER)
		again.connected()
		if got := s.get(); got.GetId() != before.GetId() || got.GetState() != telexecv1.SessionState_SESSION_STATE_OPEN || got.GetVersion() <= before.GetVersion() || got.GetOutputOffset() < before.GetOutputOffset() {
			t.Errorf("%s: %v, it was %v", how, got, before)
		}
		write(t, st.machine.Path("tmux", "~/go"), "")
		if c := await(t, st.Env, long.GetId(), ended); c.GetState() != completed || c.ExitCode == nil || c.GetExitCode() != 6 {
			t.Errorf("%s: what ran in it: %v", how, c)
		}
		s.goesOn(pid)
		s.run("rm -f ~/go")
	}
	if got := alone.get(); got.GetEnd().GetReason() != fault.ReasonServiceRestarted {
		t.Errorf("without a keeper: %v", got)
	}
}

// stored waits until the store has a command in a state: whoever watches may be told a
// moment before.
func stored(t *testing.T, env *testenv.Env, id, state string) {
	t.Helper()
	db := openStore(t, filepath.Join(env.DataDir, "telexec.db"))
	defer db.Close()
	var now string
	if !comesTrue(t, 30*time.Second, func() bool {
		return db.QueryRowContext(t.Context(), "SELECT state FROM command WHERE id = ?", id).Scan(&now) == nil && now == state
	}) {
		t.Fatalf("the store has %s as %q, not %s", id, now, state)
	}
}
