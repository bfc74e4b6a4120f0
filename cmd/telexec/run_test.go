package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// invocation is one call of run with everything from outside in memory.
type invocation struct {
	stdin          io.Reader
	env            map[string]string
	signals        chan os.Signal
	stdout, stderr bytes.Buffer
	stderrTo       io.Writer // of start, in place of stderr
}

// untilText is a writer that closes seen when text has come.
type untilText struct {
	bytes.Buffer
	text string
	seen chan struct{}
}

func (u *untilText) Write(p []byte) (int, error) {
	had := strings.Contains(u.String(), u.text)
	n, err := u.Buffer.Write(p)
	if !had && strings.Contains(u.String(), u.text) {
		close(u.seen)
	}
	return n, err
}

func (i *invocation) run(ctx context.Context, args ...string) int {
	return run(ctx, Env{
		Stdin: i.stdin, Stdout: &i.stdout, Stderr: &i.stderr, Signals: i.signals,
		Getenv: func(name string) string { return i.env[name] },
	}, args)
}

// nowhere is an address on which nothing listens: port 1 of loopback.
const nowhere = "127.0.0.1:1"

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args   string
		code   int
		stdout string // a part
		stderr string // a part
	}{
		{"", 0, "Usage: telexec", ""},
		{"--help", 0, "Usage: telexec", ""},
		{"run --help", 0, "ls *.log | wc -l", ""},
		{"help-me", 125, "", "unexpected argument help-me"},
		{"run", 125, "", "expected"},
		{"run web1", 125, "", "expected"},
		{"run web1 --", 125, "", "no command to run"},
		{"run", 125, "", "telexec run --help explains it"},
		{"hosts web1", 125, "", "telexec hosts show web1 tells about one host, telexec hosts check web1 connects to it"},
		{"run -i -n web1 true", 125, "", "can't be used together"},
		{"run --durable --attached web1 true", 125, "", "can't be used together"},
		{"run --tty --durable web1 true", 125, "", "--tty and --durable can't be used together"},
		{"run --", 125, "", "there is none behind --"},
		{"--version", 0, "telexec ", ""},
		{"ps --version", 0, "telexec ", ""},
		{"help", 0, "Usage: telexec <command>", ""},
		{"help hosts check", 0, "Usage: telexec hosts check", ""},
		{"help nope", 125, "", "unexpected argument nope"},
		{"wait --help", 0, "exits as telexec run would have", ""},
		{"wait", 125, "", "telexec wait --help explains it"},
		{"wait x", 125, "", "nor enough of one"},
		{"wait 01J8Z3K4M5N6P7Q8R9S0T1V2W3", 125, "", "cannot be reached"},
		{"run --sudo-password-file x web1 true", 125, "", "through sudo"},
		{"run --help", 0, "--sudo-user=USER", ""},
		{"cancel --help", 0, "A pending cancel goes on by itself", ""},
		{"run --timeout soon web1 true", 125, "", "--timeout"},
		{"history --state asleep", 125, "", "no state"},
		{"history --origin window", 125, "", "no door"},
		{"history --since yesterdayish", 125, "", "cannot read the time"},
		{"history --limit -1", 125, "", "--limit"},
		{"logs --only stdin X", 125, "", `must be one of "stdout","stderr","both"`},
		{"input X", 125, "", "nothing to write"},
		{"completion tcsh", 125, "", "must be one of"},
		{"task submit --help", 0, "needsApproval: true", ""},
		{"task submit", 125, "", "telexec task submit --help explains it"},
		{"task submit nosuch.yaml", 125, "", "cannot read the plan"},
		{"task submit -", 125, "", "standard input holds no plan"},
		{"task ls --state asleep", 125, "", "no state"},
		{"task ls --limit -1", 125, "", "--limit"},
		{"task ls --before yesterdayish", 125, "", `cannot read the time "yesterdayish"`},
		{"history --before yesterdayish", 125, "", `cannot read the time "yesterdayish"`},
		{"task get --wait --until never V2W3", 125, "", `--until must be one of "end","approval","step"`},
		{"task get --until approval V2W3", 125, "", "--until is for --wait"},
		{"task get --help", 0, ".approvals[].commandId", ""},
		{"task undo V2W3", 125, "", "telexec task undo --preview"},
		{"task watch x", 125, "", "is not the id of a task, nor enough of one"},
		{"approvals show x", 125, "", "is not the id of an approval, nor enough of one"},
		{"ps --server ftp://x", 125, "", "unknown scheme"},
		{"ps --server example.com:1", 125, "", "plain text"},
		{"ps --token-file /does/not/exist", 125, "", "token file"},
		{"ps --server " + nowhere, 125, "", "cannot be reached"},
		{"run web1 --version", 125, "", "cannot be reached"},
		{"version --server " + nowhere, 0, "cannot be reached", ""},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var i invocation
			i.env = map[string]string{"TELEXEC_SERVER": nowhere}
			code := i.run(t.Context(), strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(i.stdout.String(), tt.stdout) || !strings.Contains(i.stderr.String(), tt.stderr) {
				t.Errorf("code %d, want %d\nstdout: %s\nstderr: %s", code, tt.code, i.stdout.String(), i.stderr.String())
			}
			if tt.stderr == "" && i.stderr.Len() > 0 {
				t.Errorf("stderr: %s", i.stderr.String())
			}
		})
	}
}

func TestErrorsAsJSON(t *testing.T) {
	var i invocation
	code := i.run(t.Context(), "ps", "--json", "--server", nowhere)
	if code != 125 || !strings.HasPrefix(i.stderr.String(), `{"error":{"code":"Unavailable","reason":"SERVER_UNREACHABLE","message":"`) || i.stdout.Len() > 0 {
		t.Errorf("code %d\n%s%s", code, i.stdout.String(), i.stderr.String())
	}
}

func TestToken(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, ".local", "state")
	if err := os.MkdirAll(filepath.Join(state, "telexec"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{filepath.Join(state, "telexec", "admin.token"): "from-data-dir\n", filepath.Join(dir, "t"): "from-file\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		opts globals
		env  map[string]string
		want client.Token
	}{
		{"none", globals{}, map[string]string{"HOME": dir + "/nobody"}, ""},
		{"of a service of this user", globals{}, map[string]string{"HOME": dir}, "from-data-dir"},
		{"with XDG_STATE_HOME", globals{}, map[string]string{"XDG_STATE_HOME": state}, "from-data-dir"},
		{"never for another machine", globals{Server: "https://example.com"}, map[string]string{"HOME": dir}, ""},
		{"never for another machine in the environment", globals{}, map[string]string{"HOME": dir, "TELEXEC_SERVER": "https://example.com"}, ""},
		{"environment", globals{}, map[string]string{"HOME": dir, "TELEXEC_TOKEN": "from-env"}, "from-env"},
		{"file", globals{TokenFile: filepath.Join(dir, "t")}, map[string]string{"TELEXEC_TOKEN": "from-env"}, "from-file"},
		{"flag", globals{Token: "from-flag", TokenFile: filepath.Join(dir, "t")}, nil, "from-flag"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := Env{Getenv: func(name string) string { return tt.env[name] }}
			a := &app{env: env, out: newPrinter(env), opts: tt.opts}
			if got, err := a.token(); got != tt.want || err != nil {
				t.Errorf("got %q, %v", string(got), err)
			}
		})
	}
}

func TestOutcome(t *testing.T) {
	code := func(n int32) *int32 { return &n }
	for _, tt := range []struct {
		name string
		cmd  *telexecv1.Command
		code int
		text string
	}{
		{"well", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, ExitCode: code(0)}, 0, ""},
		{"exit code", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, ExitCode: code(3)}, 3, ""},
		{"exit code that is not known is never 0", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_COMPLETED}, 125, "not known"},
		{"recognised by a prompt", &telexecv1.Command{Host: "switch1", Session: "work", State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, Completion: telexecv1.Completion_COMPLETION_PROMPT}, 125, "telexec: work: command  has ended, but its exit code is not known: its end was recognised by a prompt\n"},
		{"recognised by silence", &telexecv1.Command{Session: "work", State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, Completion: telexecv1.Completion_COMPLETION_SILENCE}, 125, "its output has fallen silent, and it may yet go on\n"},
		{"signal", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_FAILED, ExitSignal: "KILL", Failure: &telexecv1.Failure{Reason: "SIGNALLED", Message: "ended by KILL"}}, 137, "ended by KILL [SIGNALLED]"},
		{"signal without a number", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_FAILED, ExitSignal: "RTMIN"}, 128, "could not run"},
		{"failed", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_FAILED, Failure: &telexecv1.Failure{Reason: "HOST_UNREACHABLE", Message: "no route", Hint: "check"}}, 125, "no route [HOST_UNREACHABLE]"},
		{"failed, by a message that names the host inside", &telexecv1.Command{Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_FAILED, Failure: &telexecv1.Failure{Reason: "R", Message: "on web1: no"}}, 125, "telexec: on web1: no [R]"},
		{"failed, by a message that names another", &telexecv1.Command{Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_FAILED, Failure: &telexecv1.Failure{Reason: "R", Message: "web1-db did not start"}}, 125, "telexec: web1: web1-db did not start [R]"},
		{"failed, in several lines", &telexecv1.Command{Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_FAILED, Failure: &telexecv1.Failure{Reason: "R", Message: "web1 said: a\r\n\n\x1bb\n"}}, 125, "telexec: web1 said: a\n  \\x1bb [R]\n"},
		{"failed, by a message that names the host", &telexecv1.Command{Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_FAILED, Failure: &telexecv1.Failure{Reason: "HOST_UNREACHABLE", Message: "web1 (10.0.0.1:22) has no route"}}, 125, "telexec: web1 (10.0.0.1:22) has no route ["},
		{"cancelled", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_CANCELLED, Cancellation: &telexecv1.Cancellation{By: &telexecv1.Actor{Principal: "ann"}, Reason: "wrong"}}, 130, "cancelled by ann: wrong"},
		{"cancelled with an exit code", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_CANCELLED, ExitCode: code(0)}, 130, "was cancelled"},
		{"timeout", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_TIMED_OUT, Timeout: durationpb.New(5 * time.Second)}, 124, "after 5 s"},
		{"rejected", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_REJECTED}, 125, "refused"},
		{"expired", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_EXPIRED}, 125, "never started"},
		{"lost", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_LOST}, 125, "lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var i invocation
			i.signals = nil
			a := &app{out: &printer{stderr: &i.stderr}}
			var err error
			if e := outcome(tt.cmd); e != nil {
				err = e
			}
			if got := a.report(err); got != tt.code || !strings.Contains(i.stderr.String(), tt.text) {
				t.Errorf("code %d, want %d; %s", got, tt.code, i.stderr.String())
			}
			if tt.text == "" && i.stderr.Len() > 0 {
				t.Errorf("stderr: %s", i.stderr.String())
			}
		})
	}
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		text string
	}{
		{nil, 0, ""},
		{errors.New("odd \x1b"), 125, "telexec: odd \\x1b\n"},
		{fmt.Errorf("write: %w", syscall.EPIPE), 141, ""},
		{&client.Error{Message: "bad", Hint: "do better", Fields: []client.Field{{Path: "host", Message: "too long"}, {Path: "x", Message: "ad"}}}, 125, "telexec: bad\n  host: too long\n  do better\n"},
		{&client.Error{Reason: "UNKNOWN_HOST", Message: "none", Hint: "Did you mean web1?"}, 125, "telexec: none\n  Did you mean web1?\n"},
		{&client.Error{Reason: "UNKNOWN_COMMAND", Message: "none", Hint: "Check the id"}, 125, "telexec: none\n  Check the id. telexec history lists the commands\n"},
		{&client.Error{Reason: "INVALID_REQUEST", Message: "grace: too long", Fields: []client.Field{{Path: "grace", Message: "too long"}}}, 125, "telexec: grace: too long\n  telexec --help tells what may be given\n"},
		{signalled(syscall.SIGTERM), 143, ""},
		{signalled(nil), 130, ""},
	} {
		var b bytes.Buffer
		a := &app{out: &printer{stderr: &b}}
		if got := a.report(tt.err); got != tt.code || b.String() != tt.text {
			t.Errorf("%v: code %d, want %d; %q, want %q", tt.err, got, tt.code, b.String(), tt.text)
		}
	}
}

func TestRequest(t *testing.T) {
	parse := func(t *testing.T, args ...string) *telexecv1.ExecuteRequest {
		t.Helper()
		var c cli
		parser, err := newParser(Env{}, &c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(append([]string{"run"}, args...)); err != nil {
			t.Fatal(err)
		}
		req, err := c.Run.request(Env{Getenv: func(name string) string { return "local " + name }})
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	for _, tt := range []struct {
		args    string
		command string
		argv    string // joined by |
	}{
		{"web1|ls -la *", "ls -la *", ""},
		{"web1|ls|-la|*", "", "ls|-la|*"},
		{"web1|--|ls|-d", "", "ls|-d"},
		{"web1|--|uptime", "uptime", ""},
		{"web1|sh|-c|x|--|-t", "", "sh|-c|x|--|-t"},
		{"web1|--|--|x", "", "--|x"},
		{"--|web1|ls|--json", "", "ls|--json"},
		{"-q|web1|ls|-q", "", "ls|-q"},
		{"web1|-x", "-x", ""},
		{"web1|--timeout|1s|sleep|3", "", "--timeout|1s|sleep|3"},
		{"web1|--help", "--help", ""},
		{"web1|ls||", "", "ls||"},
	} {
		req := parse(t, strings.Split(tt.args, "|")...)
		if req.GetCommand() != tt.command || strings.Join(req.GetArgv(), "|") != tt.argv || req.GetHost() != "web1" {
			t.Errorf("%s: command %q, argv %q, host %q", tt.args, req.GetCommand(), req.GetArgv(), req.GetHost())
		}
	}
	req := parse(t, "-C", "/srv", "-e", "A=1,2;3=4", "-e", "B", "-e", "C=", "--login", "--timeout", "90s", "--priority=-5",
		"--label", "a=b=c;d", "--label", "e=f", "--request-id", "r1", "--action-type", "deploy", "web1", "true")
	if req.GetWorkingDirectory() != "/srv" || !req.GetLoginShell() || req.GetTimeout().AsDuration() != 90*time.Second ||
		req.GetPriority() != -5 || req.GetRequestId() != "r1" || req.GetActionType() != "deploy" {
		t.Errorf("got %v", req)
	}
	for flag, want := range map[string]telexecv1.Durability{
		"-q": telexecv1.Durability_DURABILITY_UNSPECIFIED, "--durable": telexecv1.Durability_DURABILITY_DURABLE,
		"--attached": telexecv1.Durability_DURABILITY_ATTACHED,
	} {
		if got := parse(t, flag, "web1", "true").GetDurability(); got != want {
			t.Errorf("%s: durability %s", flag, got)
		}
	}
	if e := req.GetEnv(); len(e) != 3 || e["A"] != "1,2;3=4" || e["B"] != "local B" || e["C"] != "" {
		t.Errorf("env %q", e)
	}
	if l := req.GetLabels(); len(l) != 2 || l["a"] != "b=c;d" || l["e"] != "f" {
		t.Errorf("labels %q", l)
	}
}

func TestInputIsDecidedAsBySSH(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	file, err := os.Open("run_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, tt := range []struct {
		name string
		c    runCmd
		in   io.Reader
		sent bool
	}{
		{"pipe", runCmd{}, r, true},
		{"file", runCmd{}, file, true},
		{"reader", runCmd{}, strings.NewReader("x"), true},
		{"nothing", runCmd{}, nil, false},
		{"null", runCmd{}, null, false},
		{"closed", runCmd{}, closed, false},
		{"pipe with -n", runCmd{NoStdin: true}, r, false},
		{"pipe with -d", runCmd{Detach: true}, r, false},
		{"pipe with -d -i", runCmd{Detach: true, Stdin: true}, r, false},
		{"null with -i", runCmd{Stdin: true}, null, true},
	} {
		if got := tt.c.input(tt.in) != nil; got != tt.sent {
			t.Errorf("%s: sent %v", tt.name, got)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, tt := range []struct {
		typed string
		want  string
		left  bool
	}{
		{"~.x", "", true},
		{"ls\r~.", "ls\r", true},
		{"ls ~.", "ls ~.", false},
		{"~~.", "~~.", false},
		{"\n~x\r\n~.rest", "\n~x\r\n", true},
	} {
		for _, chunk := range []int{1, 100} {
			e := &keyboard{r: pieces(tt.typed, chunk), leave: make(chan struct{})}
			b, err := io.ReadAll(e)
			left := false
			select {
			case <-e.leave:
				left = true
			default:
			}
			// Typed one by one, the ~ is on its way before the . is known.
			got := strings.TrimSuffix(string(b), "~")
			if err != nil || got != tt.want || left != tt.left {
				t.Errorf("%q in pieces of %d: %q, left %v, %v", tt.typed, chunk, b, left, err)
			}
		}
	}
}

// pieces reads s in pieces of n bytes.
func pieces(s string, n int) io.Reader {
	var rs []io.Reader
	for len(s) > 0 {
		k := min(n, len(s))
		rs = append(rs, strings.NewReader(s[:k]))
		s = s[k:]
	}
	return io.MultiReader(rs...)
}

func TestSince(t *testing.T) {
	now := time.Date(2025, 3, 10, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.AddDate(0, 0, -7),
		"2025-03-01":           time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC),
		"2025-03-01 08:30":     time.Date(2025, 3, 1, 8, 30, 0, 0, time.UTC),
		"2025-03-01T08:30:00Z": time.Date(2025, 3, 1, 8, 30, 0, 0, time.UTC),
	} {
		if got, err := parseSince(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-5m", "d", "-1d", "99999d", "soon"} {
		if got, err := parseSince(in, now); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestSignalNames(t *testing.T) {
	for in, want := range map[string]string{"INT": "INT", "sigterm": "TERM", "15": "TERM", "9": "KILL", "99": "99", "usr1": "USR1"} {
		if got := signalName(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestCancelText(t *testing.T) {
	for want, r := range map[string]*telexecv1.CancelReport{
		"gone: 3 processes ended (TERM, 300 ms)": {Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE, Message: "3 processes ended", Signal: "TERM", Duration: durationpb.New(300 * time.Millisecond)},
		"gone: processes ended: 2":               {Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE, Ended: 2},
		"already ended: as COMPLETED":            {Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_ALREADY_ENDED, Message: "as COMPLETED", Duration: durationpb.New(0)},
		"pending: the host is away":              {Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_PENDING, Message: "the host is away", Duration: durationpb.New(time.Second)},
		"never started":                          {Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_NEVER_STARTED},
	} {
		if got := cancelText(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestStatusView(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &printer{stdout: &out, now: time.Now}}
	err := a.showCommand(&telexecv1.Command{
		Id: "X", State: telexecv1.CommandState_COMMAND_STATE_QUEUED, Host: "web1", Command: "a\nb",
		Queue:     &telexecv1.Queue{Position: 3, EstimatedWait: durationpb.New(20 * time.Second), WaitsFor: "host"},
		Failure:   &telexecv1.Failure{Reason: "R", Message: "l\nm", Hint: "h"},
		StartTime: timestamppb.Now(), LastActivityTime: timestamppb.Now(),
		Progress: &telexecv1.Progress{Percent: 12.5, Label: "unpacking"},
		Cancellation: &telexecv1.Cancellation{By: &telexecv1.Actor{Principal: "ann", Origin: telexecv1.Origin_ORIGIN_WEB}, Reason: "why", Report: &telexecv1.CancelReport{
			Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_LEFT, Left: []*telexecv1.Process{{Pid: 7, User: "root", Command: "sleep", Why: "not ours"}},
		}},
		Pty: &telexecv1.Pty{}, LoginShell: true, SudoUser: "root", Priority: 5, Durability: telexecv1.Durability_DURABILITY_ATTACHED,
		DurabilityReason: "no shell", Timeout: durationpb.New(time.Minute), StdinOpen: true, Truncation: &telexecv1.Truncation{Reason: "disk full"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"State          queued, place 3, about 20 s, until the host has room\n",
		"Why            l\n               m [R]\n               h\n",
		"Cancelled by   ann via web, -: why\n               left\n",
		"Left           process 7 of root, sleep: not ours\n",
		"Line           a\\nb\n", "Last activity  ", "(just now)\n",
		"Runs           in the login shell, on a terminal, as root, with priority 5, attached: no shell\n",
		"Timeout        1 min\n", "Progress       12.5 % unpacking\n",
		"Not kept       some of the output: disk full\n", "Input          open",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	for want, cmd := range map[string]*telexecv1.Command{
		"failed, signal KILL":            {State: telexecv1.CommandState_COMMAND_STATE_FAILED, ExitSignal: "KILL"},
		"completed, exit code not known": {State: telexecv1.CommandState_COMMAND_STATE_COMPLETED},
		"queued":                         {State: telexecv1.CommandState_COMMAND_STATE_QUEUED},
	} {
		if got := stateText(cmd); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCompletionOfWords(t *testing.T) {
	for _, tt := range []struct {
		words string // joined by |; the last one is under the cursor
		want  string // joined by blanks; a leading … means: among others
	}{
		{"", "run logs wait status cancel signal input ps history events session task approvals approve reject policy hosts token audit server version completion help"},
		{"help|wa", "wait"},
		{"run|--|web1|ls|--det", ""},
		{"run|web1|--det", ""},
		{"hi", "history"},
		{"hosts|", "list show check"},
		{"hosts|c", "check"},
		{"completion|", "bash zsh fish"},
		{"completion|bash|", ""},
		{"logs|--fo", "--follow"},
		{"--server|x|logs|--o", "--only"},
		{"logs|--only|", "stdout stderr both"},
		{"logs|--only=stdout|--fo", "--follow"},
		{"run|--quiet|--det", "--detach"},
		{"run|--dur", "--durable"},
		{"run|--att", "--attached"},
		{"run|--sudo", "--sudo --sudo-user --sudo-password-file"},
		{"run|--sudo-user|deploy|--det", "--detach"},
		{"run|web1|ls|--det", ""},
		{"run|web1|ls|", ""},
		{"info|--js", "--json"},
		{"logs|", ""}, // no service, no ids
		{"run|", ""},
		{"run|--no-such|--det", "--detach"},
		{"ps|--host|", ""},
		{"approvals|", "list show"},
		{"approvals|--m", "--mine"},
		{"audit|--kind|token.", "token.created token.revoked"},
		{"audit|--kind|refused|", ""}, // no subcommand can follow
		{"audit|--kind|refused|--prin", "--principal"},
		{"audit|--ki", "--kind"},
		{"audit|--fr", ""},
		{"hosts|--la", "--label"},
		{"hosts|--json|c", "check"},
		{"policy|t", "test"},
		{"policy|test|--ro", "--role"},
		{"policy|explain|--cw", "--cwd"},
		{"policy|test|-C|/srv|--ro", "--role"},
		{"policy|test|--origin|m", "mcp"},
		{"policy|test|web1|ls|--ro", ""},
		{"token|create|--role|", "viewer operator approver admin"},
		{"token|create|ci|--role=viewer|--exp", "--expires"},
		{"audit|verify|--fr", "--from"},
		{"audit|list|--kind|token.", "token.created token.revoked"},
		{"history|--state|re", "rejected"},
		{"approve|--mod", "--modify"},
		{"run|--redact", "--redact-file"},
		{"token|revoke|", ""},
		{"session|", "ls open attach run show screen keys replay close"},
		{"sessions|at", "attach"},
		{"session|run|deploy|ls|--ti", ""},
		{"session|open|--keeper|", "tmux screen dtach none"},
		{"session|--al", "--all"},
		{"session|attach|", ""}, // no service, no names
		{"task|", "submit get watch ls cancel undo"},
		{"tasks|w", "watch"},
		{"task|submit|--dry", "--dry-run"},
		{"task|ls|--state|un", "undoing undone undo_failed"},
		{"task|get|V2W3|--until|", "end approval step"},
		{"task|undo|V2W3|", ""},
		{"ps|--task|", ""},
	} {
		t.Run(tt.words, func(t *testing.T) {
			var i invocation
			i.env = map[string]string{"TELEXEC_SERVER": nowhere}
			code := i.run(t.Context(), append([]string{completeCommand}, strings.Split(tt.words, "|")...)...)
			if got := strings.Join(strings.Fields(i.stdout.String()), " "); got != tt.want || code != 0 || i.stderr.Len() > 0 {
				t.Errorf("got %q, want %q; code %d, %s", got, tt.want, code, i.stderr.String())
			}
		})
	}
	var i invocation
	if i.run(t.Context(), completeCommand); !strings.HasPrefix(i.stdout.String(), "run\n") {
		t.Errorf("without a word: %q", i.stdout.String())
	}
	i.env = map[string]string{"TELEXEC_SERVER": "ftp://x"}
	if code := i.run(t.Context(), completeCommand, "run", ""); code != 0 || i.stderr.Len() > 0 {
		t.Errorf("with a bad address: %d, %s", code, i.stderr.String())
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var i invocation
		if code := i.run(t.Context(), "completion", shell); code != 0 || !strings.Contains(i.stdout.String(), completeCommand) {
			t.Errorf("%s: %d\n%s", shell, code, i.stdout.String())
		}
	}
}

// Where it is not known whether the command was accepted, the request id is told,
// with which it starts once.
func TestStartInDoubt(t *testing.T) {
	doubt, err := status.New(codes.Unavailable, "whether it was accepted is not known").WithDetails(&errdetails.ErrorInfo{
		Reason: "STORE_UNAVAILABLE", Domain: "telexec",
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{refuse: doubt.Err()}
	i := s.start(t)
	if code := i.run(t.Context(), "run", "-n", "--retry-for", "0", "web1", "true"); code != 125 || len(s.asked) == 0 ||
		!strings.Contains(i.stderr.String(), "--request-id "+s.asked[0].GetRequestId()) {
		t.Errorf("code %d, stderr %q", code, i.stderr.String())
	}
}
