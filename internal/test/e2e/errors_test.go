package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestRefusedCalls: what is wrong with a request is told by gRPC and by REST
// alike, and every refusal says what to do.
func TestRefusedCalls(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	old := execute(t, env, &telexecv1.ExecuteRequest{Command: "echo hi"}).GetCommand().GetId()
	const none = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	for name, c := range map[string]struct {
		call               func() error
		code               codes.Code
		method, path, body string
		http               int
		reason             string
	}{
		"unknown host": {func() error {
			_, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: "web9", Command: "true"})
			return err
		}, codes.NotFound, "POST", "/v1/commands", `{"host":"web9","command":"true"}`, 404, fault.ReasonUnknownHost},
		"empty command": {func() error {
			_, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host})
			return err
		}, codes.InvalidArgument, "POST", "/v1/commands", `{"host":"web1"}`, 400, fault.ReasonEmptyCommand},
		"1 MB command": {func() error {
			_, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: strings.Repeat("x", 1<<20)})
			return err
		}, codes.InvalidArgument, "POST", "/v1/commands", `{"host":"web1","command":"` + strings.Repeat("x", 1<<20) + `"}`, 400, fault.ReasonCommandTooLong},
		"no host": {func() error {
			_, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Command: "true"})
			return err
		}, codes.InvalidArgument, "POST", "/v1/commands", `{"command":"true"}`, 400, fault.ReasonMissingHost},
		"session": {func() error {
			_, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Session: "s", Command: "true"})
			return err
		}, codes.NotFound, "POST", "/v1/commands", `{"session":"s","command":"true"}`, 404, fault.ReasonUnknownSession},
		"unknown command": {func() error {
			_, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: none})
			return err
		}, codes.NotFound, "GET", "/v1/commands/" + none, "", 404, fault.ReasonUnknownCommand},
		"stream of an unknown command": {func() error {
			s, err := env.Commands().StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: none})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}, codes.NotFound, "GET", "/v1/commands/" + none + "/output", "", 404, fault.ReasonUnknownCommand},
		"behind the end": {func() error {
			s, err := env.Commands().StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: old, StdoutOffset: 4})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}, codes.OutOfRange, "GET", "/v1/commands/" + old + "/output?stdoutOffset=4", "", 400, fault.ReasonOffsetBeyondEnd},
		"signal after the end": {func() error {
			_, err := env.Commands().Signal(t.Context(), &telexecv1.SignalRequest{CommandId: old})
			return err
		}, codes.FailedPrecondition, "POST", "/v1/commands/" + old + ":signal", "{}", 400, fault.ReasonNotRunning},
		"page token": {func() error {
			_, err := env.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{PageToken: "made-up"})
			return err
		}, codes.InvalidArgument, "GET", "/v1/commands?pageToken=made-up", "", 400, fault.ReasonBadPageToken},
		"unknown session": {func() error {
			_, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{Session: "s"})
			return err
		}, codes.NotFound, "GET", "/v1/sessions/s/status", "", 404, fault.ReasonUnknownSession},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.call()
			code, i := reason(t, err)
			if code != c.code || i.GetReason() != c.reason || i.GetDomain() != "telexec" || i.GetMetadata()["hint"] == "" {
				t.Errorf("gRPC: %v, hint %q", err, i.GetMetadata()["hint"])
			}
			a := rest(t, env, c.method, c.path, c.body)
			if why, hint := a.reason(t); a.status != c.http || why != c.reason || hint == "" {
				t.Errorf("REST: HTTP %d %s", a.status, a.body)
			}
		})
	}
}

// TestHostsThatCannotBeUsed: a command on such a host is accepted and ends as
// FAILED with the reason, and CheckHost tells the same; no host holds up another.
func TestHostsThatCannotBeUsed(t *testing.T) {
	good := sshtest.Start(t, sshtest.Options{})
	dead := func(name, addr string) inventory.Host {
		h := good.Host(name)
		h.Address, h.ConnectTimeout = addr, 2*time.Second
		return h
	}
	wrongKey := good.Host("wrong-key")
	file, _ := sshtest.NewKey(t, t.TempDir(), "id")
	wrongKey.IdentityFiles = []string{file}
	missingKey := good.Host("missing-key")
	missingKey.IdentityFiles = []string{"/nowhere/id"}
	wrongUser := good.Host("wrong-user")
	wrongUser.User = "no-such-user"
	unknown := good.Host("unknown-key")
	empty := t.TempDir() + "/known_hosts"
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unknown.KnownHostsFiles = []string{empty}
	changed := sshtest.Start(t, sshtest.Options{})
	changedHost := changed.Host("changed-key")
	changed.Stop()
	changed.RestartWithNewHostKey()

	env := testenv.Start(t, testenv.WithHosts(dead("black-hole", sshtest.BlackHole(t)), dead("closed-port", sshtest.ClosedPort(t)),
		dead("no-name", "no-such-name.invalid:22"), wrongKey, missingKey, wrongUser, unknown, changedHost))
	for host, want := range map[string]string{
		"black-hole":  fault.ReasonConnectTimeout,
		"closed-port": fault.ReasonConnectionRefused,
		"no-name":     fault.ReasonHostUnreachable,
		"wrong-key":   fault.ReasonAuthFailed,
		"wrong-user":  fault.ReasonAuthFailed,
		"missing-key": fault.ReasonBadCredentialFile,
		"unknown-key": fault.ReasonHostKeyUnknown,
		"changed-key": fault.ReasonHostKeyChanged,
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			r, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: host, Command: "true"})
			if err != nil {
				t.Fatal(err)
			}
			c := r.GetCommand()
			if c.GetState() != telexecv1.CommandState_COMMAND_STATE_FAILED || c.ExitCode != nil || c.GetFailure().GetReason() != want ||
				c.GetFailure().GetMessage() == "" || c.GetFailure().GetHint() == "" {
				t.Errorf("%v", c)
			}
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("told after %v", took)
			}
			check, err := env.Hosts().CheckHost(t.Context(), &telexecv1.CheckHostRequest{Host: host, Timeout: durationpb.New(5 * time.Second)})
			if err != nil || check.GetOk() || check.GetFailure().GetReason() != want {
				t.Errorf("check: %v, %v", check, err)
			}
			if f := check.GetHost().GetLastFailure(); f.GetReason() != want || check.GetHost().GetLastFailureTime() == nil {
				t.Errorf("host: %v", check.GetHost())
			}
		})
	}
	// Meanwhile the others answer.
	start := time.Now()
	check, err := env.Hosts().CheckHost(t.Context(), &telexecv1.CheckHostRequest{Host: env.Host})
	if err != nil || !check.GetOk() || !strings.HasPrefix(check.GetServerVersion(), "SSH-2.0-") || !strings.HasPrefix(check.GetHostKeyFingerprint(), "SHA256:") ||
		check.GetDurability() != telexecv1.Durability_DURABILITY_DURABLE || time.Since(start) > 2*time.Second {
		t.Errorf("after %v: %v, %v", time.Since(start), check, err)
	}
}

// TestAStoreThatCannotBeWritten: when the disk takes no more, commands are
// refused with a reason, what is known can still be read, and when the disk
// works again so does the service.
func TestAStoreThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	id := execute(t, env, &telexecv1.ExecuteRequest{Command: "echo hi"}).GetCommand().GetId()
	limit := func(bytes uint64) {
		t.Helper()
		// Only the soft limit, so that it can be raised again.
		if err := unix.Prlimit(env.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(0)
	_, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "true"})
	if code, i := reason(t, err); code != codes.Unavailable || i.GetReason() != fault.ReasonStoreUnavailable || i.GetMetadata()["hint"] == "" {
		t.Errorf("%v", err)
	}
	a := rest(t, env, "POST", "/v1/commands", `{"host":"web1","command":"true"}`)
	if why, _ := a.reason(t); a.status != 503 || why != fault.ReasonStoreUnavailable {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if s, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: id}); err != nil || string(s.GetStdout().GetData()) != "hi\n" {
		t.Errorf("reading: %v, %v", s, err)
	}
	limit(unix.RLIM_INFINITY)
	if r := execute(t, env, &telexecv1.ExecuteRequest{Command: "exit 4"}); r.GetCommand().GetExitCode() != 4 {
		t.Errorf("%v", r)
	}
}

// TestAMessageThatIsTooLarge is refused before it is read into memory.
func TestAMessageThatIsTooLarge(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.WithoutHosts())
	_, err := env.Commands().SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Data: make([]byte, 5<<20)})
	if err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("%v", err)
	}
	if a := rest(t, env, "POST", "/v1/commands", strings.Repeat(" ", 5<<20)); a.status != 413 {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
}
