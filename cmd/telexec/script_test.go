package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/pkg/client"
)

var update = flag.Bool("update", false, "rewrite the expected files in testdata/script")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"telexec": main})
}

// policy is for dora alone, for a rule that refuses something refuses what it does
// not understand, too.
const policy = `policy:
  rules:
    - name: no-ids
      effect: deny
      match: {programs: [hostid], principals: ["dora*"]}
    - name: counts
      effect: require_approval
      match: {programs: [nproc], principals: ["dora*"]}
      approval: {count: 1, roles: [approver], timeout: 1h}
    - name: twice
      effect: require_approval
      match: {programs: [factor], principals: ["dora*"]}
      approval: {count: 2, roles: [approver], timeout: 1h}
    - name: soon
      effect: require_approval
      match: {programs: [logname], principals: ["dora*"]}
      approval: {timeout: 1s}
`

// TestScript runs the transcripts in testdata/script: the real program, as a
// process, against a real service and a real sshd.
func TestScript(t *testing.T) {
	service := testenv.Start(t, testenv.WithConfig(policy), testenv.WithHosts(inventory.Host{Name: "refused", Address: sshtest.ClosedPort(t), User: "nobody", HostKeyPolicy: "accept-new"}))
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=0") // or each of the many programs would end a second later
			e.Setenv("TELEXEC_SERVER", service.GRPCAddr)
			e.Setenv("TELEXEC_HTTP", service.HTTPAddr)
			e.Setenv("TELEXEC_TOKEN", service.Token.Reveal())
			e.Setenv("TOKEN_FILE", service.TokenFile)
			e.Setenv("ESC", "\x1b")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code":      code,
			"capture":   capture,
			"await":     await,
			"awaittask": awaitTask,
			"over":      over,
			"shorten":   shorten,
		},
	})
}

// code N PROGRAM ARGS… runs a program and requires its exit code.
func code(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: code N program [args]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// capture NAME puts the last standard output, without blanks at its ends, into a
// variable.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// shorten ID sets SUFFIX to enough of the end of an id to know it by, and PREFIX
// to too little of its beginning, which is the time.
func shorten(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("SUFFIX", strings.ToLower(args[0][18:]))
	ts.Setenv("PREFIX", args[0][:4])
}

// over SESSION waits until a session has ended: what ran in it has ended a moment before.
func over(ts *testscript.TestScript, _ bool, args []string) {
	c, err := client.Dial(client.Options{Server: ts.Getenv("TELEXEC_SERVER"), Token: client.Token(ts.Getenv("TELEXEC_TOKEN"))})
	ts.Check(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, err := range c.Attach(&telexecv1.AttachStart{Session: args[0]}).Events(ctx) {
		if e, ok := errors.AsType[*client.Error](err); ok && e.Reason == "SESSION_ENDED" {
			return
		}
		ts.Check(err)
	}
}

// await TEXT ID follows a command until its stream shows TEXT: output, in the
// plain form, or a state.
func await(ts *testscript.TestScript, _ bool, args []string) {
	text, id := args[0], args[1]
	c, err := client.Dial(client.Options{Server: ts.Getenv("TELEXEC_SERVER"), Token: client.Token(ts.Getenv("TELEXEC_TOKEN"))})
	ts.Check(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var output strings.Builder
	for event, err := range c.StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: id, Follow: true}) {
		ts.Check(err)
		output.Write(event.GetChunk().GetData())
		if strings.Contains(output.String(), text) || stateName(event.GetCommand().GetState()) == text {
			return
		}
	}
	ts.Fatalf("%s ended without %q; its output: %s", id, text, output.String())
}

// awaittask STATE ID follows a task until it is in a state. The standard output is then
// the id of what it waits for, or else of the command that runs.
func awaitTask(ts *testscript.TestScript, _ bool, args []string) {
	state, id := args[0], args[1]
	c, err := client.Dial(client.Options{Server: ts.Getenv("TELEXEC_SERVER"), Token: client.Token(ts.Getenv("TELEXEC_TOKEN"))})
	ts.Check(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	command, is := "", false
	for m, err := range c.WatchTask(ctx, &telexecv1.WatchTaskRequest{TaskId: id}) {
		ts.Check(err)
		e := m.GetEvent()
		command = firstOf(e.GetCommandId(), command)
		is = is || e != nil && taskStateName(e.GetState()) == strings.ToLower(state)
		if is && command != "" {
			_, _ = io.WriteString(ts.Stdout(), command+"\n")
			return
		}
	}
	ts.Fatalf("%s ended without being %s", id, state)
}
