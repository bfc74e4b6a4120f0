package e2e

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestEvents: whoever watches is told of every command from QUEUED to its end, by
// gRPC and line by line by REST, and after a restart what was missed.
func TestEvents(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	before := execute(t, env, &telexecv1.ExecuteRequest{Command: "exit 2"}).GetCommand().GetId()
	running := begin(t, env, &telexecv1.ExecuteRequest{Command: "exec sleep 1000", Labels: map[string]string{"tier": "web"}})

	stream, err := telexecv1.NewEventServiceClient(env.Conn()).WatchEvents(t.Context(), &telexecv1.WatchEventsRequest{After: new(int64)})
	if err != nil {
		t.Fatal(err)
	}
	var number int64
	until := func(what string, enough func(m *telexecv1.WatchEventsResponse) bool) {
		t.Helper()
		for {
			m, err := stream.Recv()
			if err != nil {
				t.Fatalf("waiting for %s: %v", what, err)
			}
			if m.GetSequence() < number || m.GetTime() == nil {
				t.Errorf("behind sequence %d: %v", number, m)
			}
			if number = m.GetSequence(); enough(m) {
				return
			}
		}
	}
	until("the command of before", func(m *telexecv1.WatchEventsResponse) bool {
		return m.GetCommand().GetId() == before && m.GetCommand().GetExitCode() == 2
	})
	until("the one that runs", func(m *telexecv1.WatchEventsResponse) bool { return m.GetCommand().GetId() == running })
	until("synced", func(m *telexecv1.WatchEventsResponse) bool { return m.GetSynced() != nil })

	// The same by HTTP, of some commands only.
	resp := env.REST(t.Context(), "GET", "/v1/events?labels[tier]=web&heartbeat=1s", "")
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("HTTP %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	type line struct {
		Sequence  string
		Time      time.Time
		Command   *struct{ ID, State string }
		Synced    *struct{}
		Heartbeat *struct{}
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	next := func() (l line) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil || l.Time.IsZero() || l.Sequence == "" {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		return l
	}
	if l := next(); l.Command == nil || l.Command.ID != running || l.Command.State != "COMMAND_STATE_RUNNING" {
		t.Errorf("first %s", lines.Bytes())
	}
	if l := next(); l.Synced == nil {
		t.Errorf("then %s", lines.Bytes())
	}
	if l := next(); l.Heartbeat == nil {
		t.Errorf("then %s", lines.Bytes())
	}

	if _, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: running}); err != nil {
		t.Fatal(err)
	}
	until("the cancel", func(m *telexecv1.WatchEventsResponse) bool { return m.GetCommand().GetCancellation() != nil })
	until("the end", func(m *telexecv1.WatchEventsResponse) bool {
		return m.GetCommand().GetId() == running && m.GetCommand().GetState() == telexecv1.CommandState_COMMAND_STATE_CANCELLED
	})
	for ended := false; !ended; {
		l := next()
		if ended = l.Command != nil && l.Command.State == "COMMAND_STATE_CANCELLED"; l.Command != nil && l.Command.ID != running {
			t.Errorf("a command that was not asked for: %s", lines.Bytes())
		}
	}
	a := rest(t, env, "GET", "/v1/events?after=1000000000", "")
	if why, hint := a.reason(t); a.status != http.StatusBadRequest || why != fault.ReasonEventsUnknown || !strings.Contains(hint, "begin again") {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}

	// A stop ends the stream, and does not wait for whoever watches.
	later := begin(t, env, &telexecv1.ExecuteRequest{Command: "sleep 0.3; exit 6"})
	start := time.Now()
	env.Signal(syscall.SIGTERM)
	for err == nil {
		var m *telexecv1.WatchEventsResponse
		if m, err = stream.Recv(); err == nil {
			number = m.GetSequence()
		}
	}
	if code, i := reason(t, err); code != codes.Unavailable || i.GetReason() != fault.ReasonDraining {
		t.Errorf("at the end: %v", err)
	}
	if code := env.Exited(); code != 0 || time.Since(start) > 10*time.Second {
		t.Errorf("exit code %d after %v", code, time.Since(start))
	}
	env.Restart()
	stream, err = telexecv1.NewEventServiceClient(env.Conn()).WatchEvents(t.Context(), &telexecv1.WatchEventsRequest{After: &number})
	if err != nil {
		t.Fatal(err)
	}
	until("what was missed", func(m *telexecv1.WatchEventsResponse) bool {
		if c := m.GetCommand(); c != nil && c.GetId() != later {
			t.Errorf("told again: %v", c)
		}
		return m.GetCommand().GetExitCode() == 6
	})
}
