package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/testenv"
)

func TestACommandEndsAsItDid(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	for _, host := range users(env) {
		for name, c := range map[string]struct {
			req    *telexecv1.ExecuteRequest
			state  telexecv1.CommandState
			code   int32 // -1: none
			signal string
			stdout string
			stderr string
			reason string
		}{
			"exit 3":       {&telexecv1.ExecuteRequest{Command: "exit 3"}, telexecv1.CommandState_COMMAND_STATE_COMPLETED, 3, "", "", "", ""},
			"streams":      {&telexecv1.ExecuteRequest{Command: "echo out; echo err >&2"}, telexecv1.CommandState_COMMAND_STATE_COMPLETED, 0, "", "out\n", "err\n", ""},
			"kill -9":      {&telexecv1.ExecuteRequest{Command: "kill -9 $$"}, telexecv1.CommandState_COMMAND_STATE_FAILED, -1, "KILL", "", "", fault.ReasonSignalled},
			"argv":         {&telexecv1.ExecuteRequest{Argv: []string{"printf", "%s|", "a b", "$HOME", "'"}}, telexecv1.CommandState_COMMAND_STATE_COMPLETED, 0, "", "a b|$HOME|'|", "", ""},
			"stdin":        {&telexecv1.ExecuteRequest{Command: "cat; echo end", Stdin: []byte("a\x00b")}, telexecv1.CommandState_COMMAND_STATE_COMPLETED, 0, "", "a\x00bend\n", "", ""},
			"environment":  {&telexecv1.ExecuteRequest{Command: `echo "$A"`, Env: map[string]string{"A": "x y\nz"}}, telexecv1.CommandState_COMMAND_STATE_COMPLETED, 0, "", "x y\nz\n", "", ""},
			"directory":    {&telexecv1.ExecuteRequest{Command: "pwd", WorkingDirectory: "/usr"}, telexecv1.CommandState_COMMAND_STATE_COMPLETED, 0, "", "/usr\n", "", ""},
			"no directory": {&telexecv1.ExecuteRequest{Command: "pwd", WorkingDirectory: "/nowhere"}, telexecv1.CommandState_COMMAND_STATE_FAILED, -1, "", "", "", fault.ReasonBadWorkingDir},
			"timeout":      {&telexecv1.ExecuteRequest{Command: "trap '' INT; sleep 60", Timeout: durationpb.New(200 * time.Millisecond)}, telexecv1.CommandState_COMMAND_STATE_TIMED_OUT, -1, "TERM", "", "", fault.ReasonTimeout},
			"attached":     {&telexecv1.ExecuteRequest{Command: "sleep 60", Durability: telexecv1.Durability_DURABILITY_ATTACHED, Timeout: durationpb.New(200 * time.Millisecond)}, telexecv1.CommandState_COMMAND_STATE_TIMED_OUT, -1, "INT", "", "", fault.ReasonTimeout},
			"pty":          {&telexecv1.ExecuteRequest{Command: "stty size; echo $TERM", Pty: &telexecv1.Pty{Columns: 70, Rows: 20, Term: "vt100"}}, telexecv1.CommandState_COMMAND_STATE_COMPLETED, 0, "", "20 70\r\nvt100\r\n", "", ""},
		} {
			t.Run(host+"/"+name, func(t *testing.T) {
				c.req.Host = host
				r := execute(t, env, c.req)
				cmd := r.GetCommand()
				if cmd.GetState() != c.state || cmd.ExitCode == nil != (c.code < 0) || c.code >= 0 && cmd.GetExitCode() != c.code ||
					c.signal != "*" && cmd.GetExitSignal() != c.signal || cmd.GetFailure().GetReason() != c.reason {
					t.Errorf("%v", cmd)
				}
				if string(r.GetStdout().GetData()) != c.stdout || string(r.GetStderr().GetData()) != c.stderr {
					t.Errorf("stdout %q, stderr %q", r.GetStdout().GetData(), r.GetStderr().GetData())
				}
			})
		}
	}
}

// TestAKilledConnectionIsTold: an attached command is LOST with its connection.
func TestAKilledConnectionIsTold(t *testing.T) {
	env := testenv.Start(t)
	id := begin(t, env, &telexecv1.ExecuteRequest{Command: "echo started; exec sleep 1000", Durability: telexecv1.Durability_DURABILITY_ATTACHED})
	// Before it prints, its process may be one of sshd's own still.
	await(t, env, id, func(c *telexecv1.Command) bool { return c.GetStdoutBytes() > 0 })
	start := time.Now()
	env.Servers[env.Host].KillSessions()
	c := await(t, env, id, ended)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("told after %v", took)
	}
	if c.GetState() != telexecv1.CommandState_COMMAND_STATE_LOST || c.ExitCode != nil || c.GetFailure().GetReason() != fault.ReasonConnectionLost || c.GetFailure().GetHint() == "" {
		t.Errorf("%v", c)
	}
	// What is left of it on the host can still be cancelled; the command stays LOST.
	r, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: id})
	if err != nil || r.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE || r.GetCommand().GetState() != telexecv1.CommandState_COMMAND_STATE_LOST {
		t.Errorf("cancel of a lost command: %v, %v", r, err)
	}
	// The host is usable at once again.
	if r := execute(t, env, &telexecv1.ExecuteRequest{Command: "echo back"}); string(r.GetStdout().GetData()) != "back\n" {
		t.Errorf("%v", r)
	}
}

func TestOneRequestIDStartsOneCommand(t *testing.T) {
	env := testenv.Start(t)
	marks := filepath.Join("/tmp", "telexec-e2e-"+filepath.Base(env.Dir)+fmt.Sprint(env.PID()))
	t.Cleanup(func() { os.Remove(marks) })
	req := func() *telexecv1.ExecuteRequest {
		return &telexecv1.ExecuteRequest{Host: env.Host, Command: "echo x >> " + marks, RequestId: "only-once"}
	}
	ids := make([]string, 50)
	fresh := make([]bool, len(ids))
	client := env.Commands()
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			r, err := client.Execute(t.Context(), req())
			if err != nil {
				t.Error(err)
				return
			}
			ids[i], fresh[i] = r.GetCommand().GetId(), !r.GetReplayed()
			if r.GetCommand().GetExitCode() != 0 || !ended(r.GetCommand()) {
				t.Errorf("%v", r)
			}
		})
	}
	wg.Wait()
	made := 0
	for i := range ids {
		if ids[i] != ids[0] {
			t.Errorf("call %d got %s, call 0 %s", i, ids[i], ids[0])
		}
		if fresh[i] {
			made++
		}
	}
	if b, err := os.ReadFile(marks); made != 1 || err != nil || string(b) != "x\n" {
		t.Errorf("%d calls made it; on the host %q, %v", made, b, err)
	}
	// Also over a restart; and never for something else.
	env.Kill()
	env.Restart()
	if r := execute(t, env, req()); !r.GetReplayed() || r.GetCommand().GetId() != ids[0] {
		t.Errorf("%v", r)
	}
	other := req()
	other.Command += " "
	_, err := client.Execute(t.Context(), other)
	if code, i := reason(t, err); code.String() != "AlreadyExists" || i.GetReason() != fault.ReasonRequestIDReused {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(marks); string(b) != "x\n" {
		t.Errorf("on the host %q", b)
	}
}

func TestTwoHundredAtOnce(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 40
	}
	env := testenv.Start(t, testenv.WithMaxCommands(n))
	for _, host := range users(env) {
		t.Run(host, func(t *testing.T) {
			client := env.Commands()
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					r, err := client.Execute(t.Context(), &telexecv1.ExecuteRequest{
						Host: host, Command: fmt.Sprintf("sleep 0.5; echo %d; exit %d", i, i%7), Wait: durationpb.New(2 * time.Minute),
					})
					if err != nil {
						t.Error(err)
						return
					}
					if c := r.GetCommand(); c.ExitCode == nil || c.GetExitCode() != int32(i%7) || string(r.GetStdout().GetData()) != fmt.Sprintf("%d\n", i) {
						t.Errorf("command %d: %v", i, r)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestQueueOverTheLimitOfAHost(t *testing.T) {
	env := testenv.Start(t, testenv.WithMaxCommands(1), testenv.WithConfig("limits:\n  max_queued: 2"))
	first := begin(t, env, &telexecv1.ExecuteRequest{Command: "sleep 1000"})
	wait := func(priority int32) *telexecv1.Command {
		return execute(t, env, &telexecv1.ExecuteRequest{Command: "true", Priority: priority, Wait: durationpb.New(0)}).GetCommand()
	}
	second, third := wait(0), wait(5)
	place := func(id string) *telexecv1.Queue {
		s, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: id})
		if err != nil {
			t.Fatal(err)
		}
		return s.GetCommand().GetQueue()
	}
	// The owner of a command puts it into the queue, shortly after it is accepted.
	await(t, env, third.GetId(), func(*telexecv1.Command) bool {
		return place(third.GetId()).GetPosition() == 1 && place(second.GetId()).GetPosition() == 2
	})
	if q := place(second.GetId()); q.GetWaitsFor() != "host" {
		t.Errorf("%v", q)
	}
	_, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "true"})
	if code, i := reason(t, err); code.String() != "ResourceExhausted" || i.GetReason() != fault.ReasonQueueFull {
		t.Errorf("%v", err)
	}
	if a := rest(t, env, "POST", "/v1/commands", `{"host":"web1","command":"true"}`); a.status != 429 {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if _, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: first}); err != nil {
		t.Fatal(err)
	}
	a, b := await(t, env, third.GetId(), ended), await(t, env, second.GetId(), ended)
	if !a.GetStartTime().AsTime().Before(b.GetStartTime().AsTime()) {
		t.Errorf("the higher priority started at %v, the lower at %v", a.GetStartTime().AsTime(), b.GetStartTime().AsTime())
	}
}

func TestCancelSignalAndInput(t *testing.T) {
	env := testenv.Start(t)
	for _, host := range users(env) {
		t.Run(host, func(t *testing.T) {
			client := env.Commands()
			id := begin(t, env, &telexecv1.ExecuteRequest{Host: host, Command: `trap "" INT TERM; echo up; (sleep 1001 | cat) & wait; sleep 1002`})
			start := time.Now()
			c, err := client.Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: id, Reason: "enough"})
			if err != nil || c.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE || c.GetReport().GetSignal() != "KILL" ||
				c.GetCommand().GetState() != telexecv1.CommandState_COMMAND_STATE_CANCELLED || time.Since(start) > 3*time.Second {
				t.Errorf("after %v: %v, %v", time.Since(start), c, err)
			}
			if c.GetCommand().GetCancellation().GetReason() != "enough" || c.GetCommand().GetCancellation().GetBy().GetPrincipal() != "admin" {
				t.Errorf("%v", c.GetCommand().GetCancellation())
			}
			if c, err = client.Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: id}); err != nil || c.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_ALREADY_ENDED {
				t.Errorf("again: %v, %v", c, err)
			}

			id = begin(t, env, &telexecv1.ExecuteRequest{Host: host, Command: `trap 'echo got; exit 7' USR1; echo up; while :; do sleep 0.05; done`})
			waitOutput(t, env, id, "up\n")
			if _, err := client.Signal(t.Context(), &telexecv1.SignalRequest{CommandId: id, Signal: "USR1"}); err != nil {
				t.Fatal(err)
			}
			if c := await(t, env, id, ended); c.GetExitCode() != 7 {
				t.Errorf("%v", c)
			}
			if _, err := client.Signal(t.Context(), &telexecv1.SignalRequest{CommandId: id}); err == nil {
				t.Error("a finished command can be signalled")
			} else if _, i := reason(t, err); i.GetReason() != fault.ReasonNotRunning {
				t.Errorf("%v", err)
			}

			id = begin(t, env, &telexecv1.ExecuteRequest{Host: host, Command: "read a; echo got $a; cat", StdinOpen: true})
			for i, in := range []*telexecv1.SendInputRequest{{Data: []byte("one\n")}, {Data: []byte("two"), Eof: true}} {
				in.CommandId = id
				r, err := client.SendInput(t.Context(), in)
				if err != nil || r.GetStdinBytes() != []int64{4, 7}[i] {
					t.Fatalf("%v, %v", r, err)
				}
			}
			if stdout, _, last := output(t, env, &telexecv1.StreamOutputRequest{CommandId: id}); stdout != "got one\ntwo" || last.GetExitCode() != 0 {
				t.Errorf("%q %v", stdout, last)
			}
			if _, err := client.SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: id, Data: []byte("x")}); err == nil {
				t.Error("a finished command takes input")
			}
		})
	}
}

// waitOutput long-polls until a command's stdout is at least as long as want,
// and compares it.
func waitOutput(t testing.TB, env *testenv.Env, id, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for at := int64(0); at < int64(len(want)); {
		s, err := env.Commands().GetStatus(ctx, &telexecv1.GetStatusRequest{
			CommandId: id, Wait: durationpb.New(10 * time.Second), Output: &telexecv1.OutputOptions{StdoutOffset: &at},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := string(s.GetStdout().GetData())
		if !strings.HasPrefix(want[at:], got) {
			t.Fatalf("stdout at %d: %q", at, got)
		}
		at = s.GetStdout().GetNextOffset()
	}
}

func TestOddBytesArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	// A character split over two packets is whole in text, however it is asked for.
	id := begin(t, env, &telexecv1.ExecuteRequest{Command: `printf '5 \342\202'; sleep 0.4; printf '\254 more'`})
	s, err := env.Commands().StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: id, Follow: true, Text: true})
	if err != nil {
		t.Fatal(err)
	}
	var text, data string
	chunks := 0
	for {
		m, err := s.Recv()
		if err != nil {
			break
		}
		if c := m.GetChunk(); c != nil {
			chunks++
			text += c.GetText()
			data += string(c.GetData())
		}
	}
	if text != "5 € more" || data != text || chunks < 2 {
		t.Errorf("%d chunks, text %q, data %q", chunks, text, data)
	}
	r := execute(t, env, &telexecv1.ExecuteRequest{Command: `printf 'a\0b\377\342\202'`, Output: &telexecv1.OutputOptions{Text: true}})
	if got := r.GetStdout(); string(got.GetData()) != "a\x00b\xff\xe2\x82" || got.GetText() != "a\x00b\uFFFD\uFFFD\uFFFD" {
		t.Errorf("%v", got)
	}
	// One line of 1 MB.
	r = execute(t, env, &telexecv1.ExecuteRequest{Command: `head -c 1000000 /dev/zero | tr '\0' x`, Output: &telexecv1.OutputOptions{LimitBytes: 1 << 20}})
	if got := r.GetStdout(); !bytes.Equal(got.GetData(), bytes.Repeat([]byte("x"), 1_000_000)) || !got.GetComplete() {
		t.Errorf("%d bytes", len(got.GetData()))
	}
	// More than asked for: beginning, end, and how much between.
	r = execute(t, env, &telexecv1.ExecuteRequest{Command: `seq 1 100000`, Output: &telexecv1.OutputOptions{LimitBytes: 100}})
	if got := r.GetStdout(); !strings.HasPrefix(string(got.GetData()), "1\n2\n") || !strings.HasSuffix(string(got.GetTail()), "100000\n") ||
		int64(len(got.GetData())+len(got.GetTail()))+got.GetOmittedBytes() != got.GetSize() || len(got.GetData())+len(got.GetTail()) != 100 {
		t.Errorf("%v", got)
	}
}

// TestPollingSeesEveryByte reads a command's output by GetStatus alone.
func TestPollingSeesEveryByte(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	id := begin(t, env, &telexecv1.ExecuteRequest{Command: `for i in $(seq 1 40); do seq $i 100 $((i*400)); sleep 0.02; done`})
	var all bytes.Buffer
	for at, polls := int64(0), 0; ; polls++ {
		s, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{
			CommandId: id, Wait: durationpb.New(5 * time.Second), Output: &telexecv1.OutputOptions{StdoutOffset: &at, LimitBytes: 1000},
		})
		if err != nil {
			t.Fatal(err)
		}
		all.Write(s.GetStdout().GetData())
		if at = s.GetStdout().GetNextOffset(); s.GetStdout().GetComplete() {
			break
		}
	}
	want, _, _ := output(t, env, &telexecv1.StreamOutputRequest{CommandId: id})
	if all.String() != want || len(want) < 1000 {
		t.Errorf("%d bytes by polling, %d by streaming", all.Len(), len(want))
	}
	middle, _, _ := output(t, env, &telexecv1.StreamOutputRequest{CommandId: id, StdoutOffset: 500})
	if middle != want[500:] {
		t.Error("resuming at an offset gives something else")
	}
}
