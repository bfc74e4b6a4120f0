package e2e

import (
	"os"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestAKilledServiceTellsTheTruth: after kill -9 a command that ran attached is
// LOST and never running for ever, its output so far is there, and what was queued runs.
func TestAKilledServiceTellsTheTruth(t *testing.T) {
	env := testenv.Start(t, testenv.WithMaxCommands(1))
	before := execute(t, env, &telexecv1.ExecuteRequest{Command: "echo one; exit 5"})
	running := begin(t, env, &telexecv1.ExecuteRequest{Command: "echo kept; exec sleep 1000", Durability: telexecv1.Durability_DURABILITY_ATTACHED})
	waitOutput(t, env, running, "kept\n")
	queued := execute(t, env, &telexecv1.ExecuteRequest{Command: "echo later", Wait: durationpb.New(0)}).GetCommand()
	// Output becomes durable within some 20 ms; wait until the queue shows the
	// second, which is later.
	await(t, env, queued.GetId(), func(c *telexecv1.Command) bool { return c.GetQueue().GetPosition() == 1 })
	env.Kill()
	env.Restart()

	c := await(t, env, running, ended)
	if c.GetState() != telexecv1.CommandState_COMMAND_STATE_LOST || c.GetFailure().GetReason() != fault.ReasonServiceRestarted ||
		c.GetFailure().GetHint() == "" || c.ExitCode != nil {
		t.Errorf("%v", c)
	}
	if stdout, _, last := output(t, env, &telexecv1.StreamOutputRequest{CommandId: queued.GetId()}); stdout != "later\n" || last.GetExitCode() != 0 {
		t.Errorf("queued: %q %v", stdout, last)
	}
	s, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: before.GetCommand().GetId()})
	if err != nil || s.GetCommand().GetExitCode() != 5 || string(s.GetStdout().GetData()) != "one\n" {
		t.Errorf("history: %v, %v", s, err)
	}
}

// TestADrainLetsCommandsEnd: SIGTERM takes no new commands, waits for those that
// run attached, tells their end to whoever watches, and ends with exit code 0.
func TestADrainLetsCommandsEnd(t *testing.T) {
	env := testenv.Start(t)
	id := begin(t, env, &telexecv1.ExecuteRequest{Command: "read go; echo end", StdinOpen: true, Durability: telexecv1.Durability_DURABILITY_ATTACHED})
	client := env.Commands()
	watch, err := client.StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetCommand() == nil {
		t.Fatalf("%v, %v", m, err)
	}
	env.Signal(syscall.SIGTERM)
	for { // until it drains
		_, err := client.Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "true"})
		if err == nil {
			continue
		}
		if code, i := reason(t, err); code != codes.Unavailable || i.GetReason() != fault.ReasonDraining {
			t.Fatalf("%v", err)
		}
		break
	}
	if a := rest(t, env, "GET", "/readyz", "", "Authorization", ""); a.status != 503 {
		t.Errorf("readyz: HTTP %d %s", a.status, a.body)
	}
	if a := rest(t, env, "GET", "/healthz", "", "Authorization", ""); a.status != 200 {
		t.Errorf("healthz: HTTP %d %s", a.status, a.body)
	}
	if _, err := client.SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: id, Data: []byte("go\n")}); err != nil {
		t.Fatal(err)
	}
	var got string
	var last *telexecv1.Command
	for last == nil {
		m, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got += string(m.GetChunk().GetData())
		last = m.GetEnded()
	}
	if got != "end\n" || last.GetState() != telexecv1.CommandState_COMMAND_STATE_COMPLETED {
		t.Errorf("%q %v", got, last)
	}
	if code := env.Exited(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestADrainIsBounded: an attached command that does not end is let go of when the drain
// timeout is over, and LOST; and a second signal does not wait for that.
func TestADrainIsBounded(t *testing.T) {
	env := testenv.Start(t, testenv.WithConfig("drain_timeout: 300ms"))
	id := begin(t, env, &telexecv1.ExecuteRequest{Command: "exec sleep 1000", Durability: telexecv1.Durability_DURABILITY_ATTACHED})
	start := time.Now()
	env.Signal(syscall.SIGTERM)
	if code := env.Exited(); code != 0 || time.Since(start) > 10*time.Second {
		t.Errorf("exit code %d after %v", code, time.Since(start))
	}
	env.Restart()
	if c := await(t, env, id, ended); c.GetState() != telexecv1.CommandState_COMMAND_STATE_LOST || c.GetFailure().GetReason() != fault.ReasonServiceRestarted {
		t.Errorf("%v", c)
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	env := testenv.Start(t, testenv.WithConfig("drain_timeout: 10m"))
	begin(t, env, &telexecv1.ExecuteRequest{Command: "exec sleep 1000", Durability: telexecv1.Durability_DURABILITY_ATTACHED})
	env.Signal(os.Interrupt)
	for { // until the first was heeded
		if a := rest(t, env, "GET", "/readyz", "", "Authorization", ""); a.status == 503 {
			break
		}
	}
	env.Signal(os.Interrupt)
	if code := env.Exited(); code == 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestASecondServiceOnTheSameDataIsRefused: two would both run what is queued.
func TestASecondServiceOnTheSameDataIsRefused(t *testing.T) {
	env := testenv.Start(t, testenv.WithoutHosts())
	out, err := env.Another("--data-dir", env.DataDir, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	if err == nil || out == "" {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	if _, err := env.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{}); status.Code(err) != codes.OK {
		t.Errorf("the first one: %v", err)
	}
}
