package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// tree is something that a cancel must end. WORD in the command is the time to
// sleep for, by which its processes are found whatever they have done to
// themselves; it prints "up" when the tree stands.
type tree struct {
	name      string
	command   string
	processes int    // that have WORD in their command line
	signal    string // the strongest that may be needed; empty: any
}

var trees = []tree{
	{"sleep", "echo up; exec sleep WORD", 1, "TERM"},
	{"pipeline", "echo up; sleep WORD | cat | cat", 1, "TERM"},
	{"tree of 200", "i=0; while [ $i -lt 200 ]; do sleep WORD & i=$((i+1)); done; echo up; wait", 200, "TERM"},
	{"child that ignores TERM", `sh -c 'trap "" INT TERM HUP; echo up; while :; do sleep WORD; done' & wait`, 1, ""},
	{"child that did setsid", `setsid sh -c 'echo up; exec sleep WORD' & wait`, 1, "TERM"},
	{"child that did setsid twice", `setsid sh -c 'setsid sh -c "echo up; exec sleep WORD" & exec sleep WORD' & wait`, 2, "TERM"},
	{"child that is left behind", `setsid sh -c 'exec sleep WORD' & echo up; exec sleep WORD`, 2, "TERM"},
	{"stopped child", `sh -c 'echo up; kill -STOP $$; exec sleep WORD' & wait`, 1, "TERM"},
	{"stopped tree", `sleep WORD & kill -STOP $!; echo up; kill -STOP $$; wait`, 1, "TERM"},
}

// stands starts a tree and waits until all of it is there.
func (s stage) stands(t testing.TB, r *telexecv1.ExecuteRequest, tr tree) (id, word string) {
	t.Helper()
	word = newWord()
	r.Command = strings.ReplaceAll(tr.command, "WORD", word)
	id = begin(t, s.Env, r)
	waitOutput(t, s.Env, id, "up\n")
	if !comesTrue(t, 15*time.Second, func() bool { return len(s.sleepers(word)) >= tr.processes }) {
		t.Fatalf("%d processes, want %d: %q", len(s.sleepers(word)), tr.processes, s.sleepers(word))
	}
	return id, word
}

// sleepers lists the processes of a tree.
func (s stage) sleepers(word string) []string { return s.machine.Running(word) }

// nobody fails the test where something of a tree lives.
func (s stage) nobody(t testing.TB, word string) {
	t.Helper()
	if left := s.sleepers(word); len(left) > 0 {
		t.Errorf("%d processes live on: %q", len(left), left[:min(len(left), 5)])
	}
}

// ends cancels a tree and checks all that a cancel promises.
func (s stage) ends(t testing.TB, id, word, signal string) {
	t.Helper()
	r := s.cancel(t, id)
	s.nobody(t, word)
	if got := r.GetReport().GetSignal(); signal == "TERM" && got != "INT" && got != "TERM" {
		t.Errorf("it took %s", got)
	}
	again, err := s.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: id})
	if err != nil || again.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_ALREADY_ENDED || again.GetCommand().GetState() != cancelled {
		t.Errorf("a second cancel: %v, %v", again, err)
	}
	s.swept(t, id)
}

// TestCancelStories: whatever a command has made of itself, a cancel ends all of
// it, and says so when it is true.
func TestCancelStories(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	for _, login := range logins {
		for _, how := range []telexecv1.Durability{telexecv1.Durability_DURABILITY_DURABLE, telexecv1.Durability_DURABILITY_ATTACHED} {
			for _, tr := range trees {
				name := strings.ToLower(strings.TrimPrefix(how.String(), "DURABILITY_"))
				t.Run(login+"/"+name+"/"+tr.name, func(t *testing.T) {
					id, word := s.stands(t, &telexecv1.ExecuteRequest{Host: login, Durability: how}, tr)
					s.ends(t, id, word, tr.signal)
				})
			}
		}
	}
}

// TestCancelSudo: what sudo has started is ended too, though it is not the login
// user's to signal.
func TestCancelSudo(t *testing.T) {
	t.Parallel()
	needSudo(t)
	password := secret.New("correct horse")
	const withPassword, free = "withpw", "free"
	s := newStage(t, sshtest.MachineOptions{Accounts: []sshtest.Account{
		{Name: asRoot, Root: true}, {Name: withPassword, Sudo: sshtest.PasswordSudo, Password: password}, {Name: free, Sudo: sshtest.FreeSudo},
	}})
	given := &telexecv1.Sudo{Password: password.Reveal()}
	stubborn := `sh -c 'trap "" INT TERM HUP; echo up; while :; do sleep WORD; done'`
	for name, c := range map[string]struct {
		host    string
		sudo    *telexecv1.Sudo
		command string
	}{
		"asked for, with a password":               {withPassword, given, "echo up; exec sleep WORD"},
		"asked for, with a password, ignores TERM": {withPassword, given, stubborn},
		"asked for, without a password":            {free, &telexecv1.Sudo{}, "echo up; exec sleep WORD"},
		"asked for, of root":                       {asRoot, &telexecv1.Sudo{}, "echo up; exec sleep WORD"},
		"in the command, without a password":       {free, nil, "echo up; sudo -n sleep WORD"},
		"in the command, ignores TERM":             {free, nil, "sudo -n " + stubborn},
		"in the command, of root":                  {asRoot, nil, "echo up; sudo sleep WORD"},
	} {
		t.Run(name, func(t *testing.T) {
			id, word := s.stands(t, &telexecv1.ExecuteRequest{Host: c.host, Sudo: c.sudo}, tree{command: c.command, processes: 1})
			s.ends(t, id, word, "")
		})
	}
	if strings.Contains(s.Log(), password.Reveal()) {
		t.Error("the password is in the log")
	}
}

// TestCancelOneOfTen: the others do not notice.
func TestCancelOneOfTen(t *testing.T) {
	s := newStage(t, sshtest.MachineOptions{})
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			var ids, word []string
			for range 10 {
				id, w := s.stands(t, &telexecv1.ExecuteRequest{Host: login, StdinOpen: true}, tree{command: "sleep WORD & echo up; read -r x; kill $!; exit 3", processes: 1})
				ids, word = append(ids, id), append(word, w)
			}
			s.ends(t, ids[4], word[4], "")
			for i, id := range ids {
				if i == 4 {
					continue
				}
				if len(s.machine.Running("sleep\x00"+word[i])) != 1 {
					t.Errorf("command %d has lost its child", i)
				}
				if _, err := s.Commands().SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: id, Data: []byte("x\n")}); err != nil {
					t.Fatal(err)
				}
				if c := await(t, s.Env, id, ended); c.GetState() != completed || c.GetExitCode() != 3 {
					t.Errorf("command %d: %v", i, c)
				}
			}
		})
	}
}

// TestCancelWhileStarting: a login that hangs does not hold up the answer, and
// what was cancelled while it hung never does its work afterwards.
func TestCancelWhileStarting(t *testing.T) {
	t.Parallel()
	if !sshtest.HasShell("bash") {
		testenv.Missing(t, "no bash here, whose .bashrc is read by sshd's commands")
	}
	s := newStage(t, sshtest.MachineOptions{Accounts: []sshtest.Account{{Name: asRoot, Root: true, Shell: "bash"}, {Name: asPlain, Shell: "bash"}}})
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			word := newWord()
			file := func(name string) string { return s.machine.Path(login, "~/"+name) }
			// Until the file is there, every login hangs. sleep adds its arguments up; the
			// second is only there to be found by.
			write(t, file(".bashrc"), "while [ ! -e ~/go ]; do sleep 0.1 "+word+"e-99; done\n")
			id := execute(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: "echo x >~/ran; exec sleep 1000", Wait: now()}).GetCommand().GetId()
			if !comesTrue(t, 10*time.Second, func() bool { return len(s.sleepers(word)) > 0 }) {
				t.Fatal("no login hangs")
			}
			await(t, s.Env, id, func(c *telexecv1.Command) bool {
				return c.GetState() == telexecv1.CommandState_COMMAND_STATE_STARTING
			})
			start := time.Now()
			r, err := s.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: id, Grace: durationpb.New(500 * time.Millisecond)})
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 3500*time.Millisecond*slowness {
				t.Errorf("answered after %v", took)
			}
			outcome := r.GetReport().GetOutcome()
			t.Logf("after %v: %v", time.Since(start), r.GetReport())
			write(t, file("go"), "")
			c := await(t, s.Env, id, ended)
			if c.GetState() != cancelled || c.ExitCode != nil {
				t.Errorf("%v", c)
			}
			switch outcome {
			case telexecv1.CancelOutcome_CANCEL_OUTCOME_NEVER_STARTED, gone, telexecv1.CancelOutcome_CANCEL_OUTCOME_PENDING:
			default:
				t.Errorf("outcome %v", outcome)
			}
			// Every login that hung has gone on by the time that another one is through.
			if r := execute(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: "echo works"}); string(r.GetStdout().GetData()) != "works\n" {
				t.Errorf("the next command: %v", r)
			}
			s.swept(t, id)
			if !comesTrue(t, 5*time.Second, func() bool { return len(s.sleepers(word)) == 0 }) {
				t.Error("a login hangs still")
			}
			if _, err := os.Stat(file("ran")); err == nil && outcome == telexecv1.CancelOutcome_CANCEL_OUTCOME_NEVER_STARTED {
				t.Error("it never started, and has run")
			}
		})
	}
}

// TestCancelDuringABlackHole: the answer does not wait for a host that is away,
// says that the cancel is pending, and it is done when the host is back.
func TestCancelDuringABlackHole(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{Wire: true}, quickLink())
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			id, word := s.stands(t, &telexecv1.ExecuteRequest{Host: login}, tree{command: "echo up; exec sleep WORD", processes: 1})
			s.machine.Wire.Drop()
			t.Cleanup(s.machine.Wire.Heal)
			for range 2 { // the first while the link seems to live, the second when it may not
				start := time.Now()
				r, err := s.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: id, Grace: durationpb.New(500 * time.Millisecond)})
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 3500*time.Millisecond*slowness {
					t.Errorf("answered after %v", took)
				}
				if r.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_PENDING || ended(r.GetCommand()) {
					t.Errorf("%v", r)
				}
			}
			if len(s.sleepers(word)) != 1 {
				t.Error("it has not lived on")
			}
			s.machine.Wire.Heal()
			c := await(t, s.Env, id, ended)
			if c.GetState() != cancelled || c.GetCancellation().GetReport().GetOutcome() != gone {
				t.Errorf("%v", c)
			}
			s.nobody(t, word)
			s.swept(t, id)
		})
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
