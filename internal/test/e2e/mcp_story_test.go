package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// long runs the stories of agents at their full length; otherwise they are the
// same, with shorter sleeps.
var long = flag.Bool("e2e.long", false, "agents wait as long as they really do: 50 s, for a command of 90 s")

// agent is a client of MCP with a telexec-mcp of its own.
type agent struct {
	t       testing.TB
	process *exec.Cmd
	session *mcp.ClientSession
}

// newAgent starts a telexec-mcp and connects to it over stdio.
func newAgent(t testing.TB, env *testenv.Env, flags ...string) *agent {
	t.Helper()
	cmd := exec.Command(testenv.Build(t, "telexec-mcp"), append(flags, "--server", env.GRPCAddr, "--token-file", env.TokenFile)...)
	client := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &mcp.CommandTransport{Command: cmd}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() }) // killed ones say so
	return &agent{t, cmd, session}
}

// facts is what the stories look at of an answer.
type facts struct {
	CommandID  string `json:"command_id"`
	State      string `json:"state"`
	Ended      bool   `json:"ended"`
	ExitCode   *int   `json:"exit_code"`
	Stdout     string `json:"stdout"`
	Stderr     string `json:"stderr"`
	Outcome    string `json:"outcome"`
	StdoutInfo struct {
		Bytes        int64 `json:"bytes"`
		NextOffset   int64 `json:"next_offset"`
		OmittedBytes int64 `json:"omitted_bytes"`
	} `json:"stdout_info"`

	size int // of the whole answer, as JSON
	text string
}

// call calls a tool that must work, within the time that clients have.
func (a *agent) call(tool string, arguments map[string]any) facts {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 60*time.Second)
	defer cancel()
	result, err := a.session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: arguments})
	if err != nil {
		a.t.Fatalf("%s %v: %v", tool, arguments, err)
	}
	text := result.Content[0].(*mcp.TextContent).Text
	if result.IsError {
		a.t.Fatalf("%s %v: %s", tool, arguments, text)
	}
	var f facts
	structured, err := json.Marshal(result.StructuredContent)
	if err == nil {
		err = json.Unmarshal(structured, &f)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	f.text, f.size = text, len(text)+len(structured)
	return f
}

// TestAgentLosesNothing: an agent whose client gives up after 60 s runs a command
// that takes longer. It has the id in time, and the result later, although both
// the adapter and the service were killed in between.
func TestAgentLosesNothing(t *testing.T) {
	t.Parallel()
	sleep, wait := 12, 3
	if *long {
		sleep, wait = 90, 50
	}
	env := testenv.Start(t)
	first := newAgent(t, env)
	began := time.Now()
	started := first.call("execute_command", map[string]any{"host": env.Host, "command": fmt.Sprintf("sleep %d; echo done", sleep), "wait_seconds": wait})
	if took := time.Since(began); took > time.Duration(wait)*time.Second+500*time.Millisecond || *long && took > 50*time.Second {
		t.Errorf("the id came after %s", took)
	} else {
		t.Logf("the id came after %s", took)
	}
	if started.State != "running" || started.Ended || started.ExitCode == nil || *started.ExitCode != 124 || started.Stderr != "ASYNC:"+started.CommandID {
		t.Errorf("%+v", started)
	}

	if err := first.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	env.Kill()
	env.Restart()

	second := newAgent(t, env)
	var ended facts
	for range 4 { // calls, each of which waits
		if ended = second.call("get_command_status", map[string]any{"command_id": started.CommandID, "wait_seconds": 50}); ended.Ended {
			break
		}
	}
	if ended.State != "completed" || ended.ExitCode == nil || *ended.ExitCode != 0 || ended.Stdout != "done\n" || ended.Stderr != "" {
		t.Errorf("%+v", ended)
	}
	t.Logf("the result came after %s", time.Since(began))
}

// TestServiceRestartsDuringACall: the service is killed and comes back while an
// agent waits; the call goes on as if nothing had been.
func TestServiceRestartsDuringACall(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	a := newAgent(t, env)
	id := a.call("execute_command_async", map[string]any{"host": env.Host, "command": "read line; echo got $line", "stdin_open": true}).CommandID
	answered := make(chan facts, 1) // the one answer
	go func() {
		defer close(answered) // also where the call has failed
		answered <- a.call("get_command_status", map[string]any{"command_id": id, "wait_seconds": 50, "until_pattern": "^got"})
	}()
	await(t, env, id, func(c *telexecv1.Command) bool { return c.GetStartTime() != nil })
	env.Kill()
	env.Restart()
	newAgent(t, env).call("send_command_input", map[string]any{"command_id": id, "input": "it\n"})
	if f := <-answered; f.Stdout != "got it\n" {
		t.Errorf("%+v", f)
	}
}

// TestTwoAgents: what one agent starts, another one sees and cancels, each through
// an adapter of its own; both then see the same.
func TestTwoAgents(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	one, two := newAgent(t, env), newAgent(t, env)
	id := one.call("execute_command_async", map[string]any{"host": env.Host, "command": "echo up; sleep 300 & sleep 300"}).CommandID
	await(t, env, id, func(c *telexecv1.Command) bool { return c.GetStartTime() != nil })
	if list := two.call("list_running_commands", nil); !strings.Contains(list.text, id) {
		t.Errorf("the other agent does not see it: %s", list.text)
	}
	if f := two.call("cancel_command", map[string]any{"command_id": id, "reason": "not needed"}); f.Outcome != "gone" || f.State != "cancelled" {
		t.Errorf("cancel: %+v", f)
	}
	for _, a := range []*agent{one, two} {
		if f := a.call("get_command_status", map[string]any{"command_id": id}); f.State != "cancelled" || !f.Ended {
			t.Errorf("%+v", f)
		}
	}
}

// TestMuchOutputCostsLittle: 50 MB of output cost an agent no more than its
// budget, and it can have any byte of them.
func TestMuchOutputCostsLittle(t *testing.T) {
	const size = 50_000_000
	env := testenv.Start(t)
	a := newAgent(t, env)
	ran := a.call("execute_command", map[string]any{"host": env.Host, "command": "awk 'BEGIN {for (i = 1; i <= 500000; i++) printf \"%099d\\n\", i}'", "wait_seconds": 50})
	if !ran.Ended {
		ran = a.call("get_command_status", map[string]any{"command_id": ran.CommandID, "wait_seconds": 50})
	}
	if ran.StdoutInfo.Bytes != size || ran.StdoutInfo.OmittedBytes < size-8<<10 {
		t.Fatalf("%+v", ran.StdoutInfo)
	}
	// What a model reads is the text or the structured content: each holds the
	// output once. Everything else about a command is below 2 KiB.
	if limit := 8<<10 + 2<<10; len(ran.text) > limit || ran.size-len(ran.text) > limit+1<<10 {
		t.Errorf("the answer has %d bytes of text and %d of JSON", len(ran.text), ran.size-len(ran.text))
	}
	t.Logf("50 MB cost %d bytes of text, or %d of JSON", len(ran.text), ran.size-len(ran.text))

	line := func(offset int64) string { return fmt.Sprintf("%099d\n", offset/100+1) }
	for range 50 {
		offset := rand.Int64N(size - 1000)
		page := a.call("get_command_output", map[string]any{"command_id": ran.CommandID, "offset": offset, "max_bytes": 256, "format": "base64"})
		got, err := base64.StdEncoding.DecodeString(page.Stdout)
		want := (line(offset) + line(offset+100) + line(offset+200) + line(offset+300))[offset%100:]
		if err != nil || string(got) != want[:len(got)] || len(got) != 192 {
			t.Fatalf("at %d: %q, %v", offset, got, err)
		}
	}
	begin := int64(size - 3_000_000) // all of it takes a minute with the race detector
	if *long {
		begin = 0
	}
	got, want := sha256.New(), sha256.New()
	for offset := begin; offset < size; offset += 100 {
		want.Write([]byte(line(offset)))
	}
	for offset := begin; offset < size; {
		page := a.call("get_command_output", map[string]any{"command_id": ran.CommandID, "offset": offset, "max_bytes": 256 << 10})
		if page.StdoutInfo.NextOffset <= offset {
			t.Fatalf("no way on from %d: %+v", offset, page.StdoutInfo)
		}
		got.Write([]byte(page.Stdout))
		offset = page.StdoutInfo.NextOffset
	}
	if g, w := fmt.Sprintf("%x", got.Sum(nil)), fmt.Sprintf("%x", want.Sum(nil)); g != w {
		t.Errorf("all pages together have the hash %s, want %s", g, w)
	}
}
