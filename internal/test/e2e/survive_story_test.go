package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// TestSurvivesKillOfTheService: kill -9 in the middle, twice; what comes out is
// whole, and so is the exit code.
func TestSurvivesKillOfTheService(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	line, stdout, stderr := story(3000, "0.2")
	// However long a restart takes here, the command has not ended before the last one:
	// what a service leaves that dies at its very end stays until its host is used again.
	line = strings.Replace(line, "; exit", "; until [ -e ~/last ]; do sleep 0.1; done; exit", 1)
	ids := make(map[string]string)
	for _, login := range logins {
		ids[login] = begin(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: line})
		s.durable(t, ids[login])
	}
	for _, part := range []int{500, 30_000} {
		for _, login := range logins {
			s.reaches(t, ids[login], part)
		}
		s.Kill()
		s.Restart()
	}
	for _, login := range logins {
		if err := os.WriteFile(s.machine.Path(login, "~/last"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			if c := s.told(t, ids[login], stdout, stderr); c.GetState() != completed || c.GetExitCode() != 7 {
				t.Errorf("%v", c)
			}
			s.swept(t, ids[login])
		})
	}
}

// reaches waits until so many bytes of a command's standard output are there.
func (s stage) reaches(t testing.TB, id string, size int) {
	t.Helper()
	if err := s.getsTo(t, id, size); err != nil {
		t.Fatal(err)
	}
}

// getsTo is reaches, and gives an error where the command does not get there.
func (s stage) getsTo(t testing.TB, id string, size int) error {
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	version := int64(0)
	for {
		got, err := s.Commands().GetStatus(ctx, &telexecv1.GetStatusRequest{
			CommandId: id, Wait: durationpb.New(100 * time.Millisecond), IfVersionGreaterThan: &version, Output: &telexecv1.OutputOptions{Omit: true},
		}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if got.GetCommand().GetStdoutBytes() >= int64(size) {
			return nil
		}
		if ended(got.GetCommand()) {
			return fmt.Errorf("it has ended at %d bytes: %v", got.GetCommand().GetStdoutBytes(), got.GetCommand())
		}
		version = got.GetCommand().GetVersion()
	}
}

// TestEndedWhileTheServiceWasAway: the command has come to its end while nobody
// looked; all of both streams and the exit code are collected afterwards.
func TestEndedWhileTheServiceWasAway(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	line, stdout, stderr := story(800, "0.2")
	ids := make(map[string]string)
	for _, login := range logins {
		ids[login] = begin(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: line})
	}
	for _, login := range logins {
		s.reaches(t, ids[login], 500)
	}
	s.Kill()
	for _, login := range logins {
		if !comesTrue(t, 15*time.Second, func() bool { return len(sshtest.Carriers(ids[login])) == 0 }) {
			t.Fatalf("%s: it does not end: %q", login, sshtest.Carriers(ids[login]))
		}
	}
	s.Restart()
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			if c := s.told(t, ids[login], stdout, stderr); c.GetState() != completed || c.GetExitCode() != 7 {
				t.Errorf("%v", c)
			}
			s.swept(t, ids[login])
		})
	}
}

// TestSurvivesKilledSessions: sshd's processes die under a command, again and
// again; who watches sees it and misses nothing.
func TestSurvivesKilledSessions(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	line, stdout, stderr := story(3000, "0.2")
	ids, seen := make(map[string]string), make(map[string]<-chan sight)
	for _, login := range logins {
		ids[login] = begin(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: line})
		seen[login] = watch(t.Context(), s.Commands(), ids[login])
	}
	for _, part := range []int{500, 30_000, 60_000} {
		for _, login := range logins {
			s.reaches(t, ids[login], part)
		}
		s.machine.KillSessions()
		for _, login := range logins {
			await(t, s.Env, ids[login], func(c *telexecv1.Command) bool {
				return c.GetConnection() == telexecv1.Connection_CONNECTION_RECONNECTING
			})
		}
	}
	for _, login := range logins {
		t.Run(login, func(t *testing.T) { s.watched(t, ids[login], <-seen[login], stdout, stderr) })
	}
}

// watched checks what a watcher has seen of a story whose link was lost meanwhile.
func (s stage) watched(t *testing.T, id string, got sight, stdout, stderr string) {
	t.Helper()
	if got.err != nil {
		t.Fatal(got.err)
	}
	same(t, "watched stdout", got.stdout, stdout)
	same(t, "watched stderr", got.stderr, stderr)
	if got.last.GetState() != completed || got.last.GetExitCode() != 7 {
		t.Errorf("%v", got.last)
	}
	away := slices.Index(got.links, telexecv1.Connection_CONNECTION_RECONNECTING)
	if away < 0 || !slices.Contains(got.links[away:], telexecv1.Connection_CONNECTION_CONNECTED) {
		t.Errorf("the watcher has seen the links %v", got.links)
	}
	s.told(t, id, stdout, stderr)
	s.swept(t, id)
}

// TestSurvivesABlackHole: nothing gets through for a while, and nobody says so.
func TestSurvivesABlackHole(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{Wire: true}, quickLink())
	line, stdout, stderr := story(2000, "0.3")
	ids, seen := make(map[string]string), make(map[string]<-chan sight)
	for _, login := range logins {
		ids[login] = begin(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: line})
		seen[login] = watch(t.Context(), s.Commands(), ids[login])
	}
	for _, login := range logins {
		s.reaches(t, ids[login], 500)
	}
	s.machine.Wire.Drop()
	for _, login := range logins {
		await(t, s.Env, ids[login], func(c *telexecv1.Command) bool {
			return c.GetConnection() == telexecv1.Connection_CONNECTION_RECONNECTING
		})
	}
	s.machine.Wire.Heal()
	for _, login := range logins {
		t.Run(login, func(t *testing.T) { s.watched(t, ids[login], <-seen[login], stdout, stderr) })
	}
}

// TestSurvivesABadNetwork: packets are late, and some are lost.
func TestSurvivesABadNetwork(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{Wire: true})
	line, stdout, stderr := story(1000, "0.1")
	s.machine.Wire.Delay(20*time.Millisecond, 20*time.Millisecond)
	s.machine.Wire.Loss(0.03)
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			id := begin(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: line})
			if c := s.told(t, id, stdout, stderr); c.GetState() != completed || c.GetExitCode() != 7 {
				t.Errorf("%v", c)
			}
		})
	}
}

// TestTimeoutWhileTheServiceIsAway: the host keeps the time.
func TestTimeoutWhileTheServiceIsAway(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	ids, word := make(map[string]string), make(map[string]string)
	for _, login := range logins {
		ids[login], word[login] = s.stands(t, &telexecv1.ExecuteRequest{Host: login, Timeout: durationpb.New(2 * time.Second)},
			tree{command: `sh -c 'trap "" INT TERM; echo up; while :; do sleep WORD; done' & sleep WORD`, processes: 2})
	}
	s.Kill()
	for _, login := range logins {
		if len(s.sleepers(word[login])) == 0 {
			t.Errorf("%s: it was ended before its time, or with the service", login)
		}
	}
	for _, login := range logins {
		if !comesTrue(t, 10*time.Second, func() bool { return len(s.sleepers(word[login])) == 0 }) {
			t.Errorf("%s: past its time it lives on: %q", login, s.sleepers(word[login]))
		}
	}
	s.Restart()
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			c := await(t, s.Env, ids[login], ended)
			if c.GetState() != timedOut || c.GetFailure().GetReason() != fault.ReasonTimeout ||
				strings.Contains(c.GetFailure().GetMessage(), "neither /proc nor ps") {
				t.Errorf("%v", c)
			}
			s.swept(t, ids[login])
		})
	}
}

// TestInputAfterARestart: standard input stays open over a restart, and its end
// arrives.
func TestInputAfterARestart(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	ids := make(map[string]string)
	send := func(t *testing.T, login, data string, eof bool, total int) {
		t.Helper()
		r, err := s.Commands().SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: ids[login], Data: []byte(data), Eof: eof}, grpc.WaitForReady(true))
		if err != nil || r.GetStdinBytes() != int64(total) {
			t.Fatalf("%v, %v", r, err)
		}
	}
	for _, login := range logins {
		ids[login] = begin(t, s.Env, &telexecv1.ExecuteRequest{Host: login, Command: "cat; echo end; exit 4", StdinOpen: true})
		s.durable(t, ids[login])
		send(t, login, "before\n", false, 7)
		waitOutput(t, s.Env, ids[login], "before\n")
	}
	s.Kill()
	s.Restart()
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			await(t, s.Env, ids[login], func(c *telexecv1.Command) bool {
				return c.GetConnection() == telexecv1.Connection_CONNECTION_CONNECTED && c.GetStdinOpen()
			})
			send(t, login, "after", true, 12)
			if c := s.told(t, ids[login], "before\nafterend\n", ""); c.GetState() != completed || c.GetExitCode() != 4 {
				t.Errorf("%v", c)
			}
			s.swept(t, ids[login])
		})
	}
}

// TestOneStartOverKills: a request that is repeated until it is answered, while
// the service is killed at whatever moment, starts once.
func TestOneStartOverKills(t *testing.T) {
	t.Parallel()
	s := newStage(t, sshtest.MachineOptions{})
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	request := func(login string, round int) *telexecv1.ExecuteRequest {
		return &telexecv1.ExecuteRequest{
			Host: login, RequestId: fmt.Sprintf("%s-%d", login, round), Wait: now(),
			Command: fmt.Sprintf("echo started >>~/starts-%d; sleep 0.3; echo done; exit 5", round),
		}
	}
	for round := range rounds {
		ctx, stop := context.WithCancel(t.Context())
		asked := make(chan error, len(logins)) // one each, that nobody needs: most calls die with the service
		for _, login := range logins {
			go func() {
				_, err := s.Commands().Execute(ctx, request(login, round))
				asked <- err
			}()
		}
		wait := rand.N(120 * time.Millisecond)
		<-time.After(wait)
		s.Kill()
		for range logins {
			<-asked
		}
		stop()
		s.Restart()
		for _, login := range logins {
			r, err := s.Commands().Execute(t.Context(), request(login, round), grpc.WaitForReady(true))
			if err != nil {
				t.Fatal(err)
			}
			c := await(t, s.Env, r.GetCommand().GetId(), ended)
			starts, err := os.ReadFile(s.machine.Path(login, fmt.Sprintf("~/starts-%d", round)))
			if c.GetState() != completed || c.GetExitCode() != 5 || strings.Count(string(starts), "started") != 1 {
				t.Errorf("%s, killed after %v, replayed %t: %d starts (%v): %v", login, wait, r.GetReplayed(), strings.Count(string(starts), "started"), err, c)
			}
			s.swept(t, c.GetId())
		}
	}
}
