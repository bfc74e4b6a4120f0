package testenv_test

import (
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAWholeService(t *testing.T) {
	env := testenv.Start(t)
	run := func() {
		t.Helper()
		r, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "echo hello; exit 3"})
		if err != nil || string(r.GetStdout().GetData()) != "hello\n" || r.GetCommand().GetExitCode() != 3 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	run()
	addr, pid := env.GRPCAddr, env.PID()
	env.Restart()
	if env.GRPCAddr != addr || env.PID() == pid {
		t.Errorf("restarted on %s as %d, was on %s as %d", env.GRPCAddr, env.PID(), addr, pid)
	}
	run()
	env.Kill()
	env.Restart()
	list, err := env.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{})
	if err != nil || len(list.GetCommands()) != 2 {
		t.Errorf("history %v, %v", list, err)
	}
	guest := env.Key("guest", "viewer")
	if said, err := env.CLI(t.Context(), guest, "hosts"); err != nil || said.Code != 0 || !strings.Contains(said.Stdout, env.Host) {
		t.Errorf("hosts: %+v, %v", said, err)
	}
	if _, err := telexecv1.NewCommandServiceClient(env.As(guest)).Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "id"}); err == nil {
		t.Error("a viewer executes")
	}
	env.Configure("policy: {default: deny}")
	env.Restart()
	if said, err := env.CLI(t.Context(), env.Token, "run", env.Host, "id"); err != nil || said.Code != 125 || said.Stderr == "" {
		t.Errorf("run: %+v, %v", said, err)
	}
	resp := env.REST(t.Context(), "GET", "/v1/hosts", "")
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || len(body) < 10 {
		t.Errorf("HTTP %d %s", resp.StatusCode, body)
	}
}
