package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

func TestMain(m *testing.M) {
	// These tests wait for hosts and services more than they work. What measures is
	// not parallel, and runs before the others.
	if err := flag.Set("test.parallel", "3"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// users are the hosts of an environment, each logged in to as another user.
func users(env *testenv.Env) []string {
	if os.Getuid() == 0 {
		return []string{"root1", "web1"}
	}
	return []string{"web1"}
}

// execute runs a command and fails the test where it is not accepted.
func execute(t testing.TB, env *testenv.Env, r *telexecv1.ExecuteRequest) *telexecv1.ExecuteResponse {
	t.Helper()
	if r.Host == "" {
		r.Host = env.Host
	}
	resp, err := env.Commands().Execute(t.Context(), r)
	if err != nil {
		t.Fatalf("%s: %v", r.GetCommand(), err)
	}
	return resp
}

// begin starts a command and does not wait for its end, only until it runs.
func begin(t testing.TB, env *testenv.Env, r *telexecv1.ExecuteRequest) (id string) {
	t.Helper()
	r.Wait = durationpb.New(0)
	id = execute(t, env, r).GetCommand().GetId()
	await(t, env, id, func(c *telexecv1.Command) bool {
		return c.GetState() == telexecv1.CommandState_COMMAND_STATE_RUNNING || c.GetEndTime() != nil
	})
	return id
}

// await long-polls until a command is as it should be; 30 s at most.
func await(t testing.TB, env *testenv.Env, id string, want func(*telexecv1.Command) bool) *telexecv1.Command {
	t.Helper()
	version := int64(0)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		s, err := env.Commands().GetStatus(ctx, &telexecv1.GetStatusRequest{
			CommandId: id, Wait: durationpb.New(10 * time.Second), IfVersionGreaterThan: &version, Output: &telexecv1.OutputOptions{Omit: true},
		}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatalf("command %s: %v", id, err)
		}
		if want(s.GetCommand()) {
			return s.GetCommand()
		}
		if s.GetCommand().GetEndTime() != nil {
			t.Fatalf("command %s has ended otherwise: %v", id, s.GetCommand())
		}
		version = s.GetCommand().GetVersion()
	}
}

func ended(c *telexecv1.Command) bool { return c.GetEndTime() != nil }

// output follows a command from the given offsets to its end, and gives both
// streams, having checked that nothing is missing or repeated.
func output(t testing.TB, env *testenv.Env, r *telexecv1.StreamOutputRequest) (stdout, stderr string, last *telexecv1.Command) {
	t.Helper()
	r.Follow = true
	s, err := env.Commands().StreamOutput(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	data := map[telexecv1.Stream]*strings.Builder{telexecv1.Stream_STREAM_STDOUT: {}, telexecv1.Stream_STREAM_STDERR: {}}
	at := map[telexecv1.Stream]int64{telexecv1.Stream_STREAM_STDOUT: r.GetStdoutOffset(), telexecv1.Stream_STREAM_STDERR: r.GetStderrOffset()}
	for n := 0; ; n++ {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return data[telexecv1.Stream_STREAM_STDOUT].String(), data[telexecv1.Stream_STREAM_STDERR].String(), last
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 && m.GetCommand() == nil {
			t.Errorf("the first message is %v", m)
		}
		if last != nil {
			t.Errorf("behind the end: %v", m)
		}
		last = m.GetEnded()
		if c := m.GetChunk(); c != nil {
			if c.GetOffset() != at[c.GetStream()] || len(c.GetData()) > 256<<10 {
				t.Fatalf("%v: %d bytes at %d, want offset %d", c.GetStream(), len(c.GetData()), c.GetOffset(), at[c.GetStream()])
			}
			at[c.GetStream()] += int64(len(c.GetData()))
			data[c.GetStream()].Write(c.GetData())
		}
	}
}

// reason gives code and ErrorInfo of a failed call.
func reason(t testing.TB, err error) (codes.Code, *errdetails.ErrorInfo) {
	t.Helper()
	st := status.Convert(err)
	for _, d := range st.Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return st.Code(), i
		}
	}
	t.Fatalf("no ErrorInfo in %v", err)
	return 0, nil
}

// answer is an answer of REST.
type answer struct {
	status int
	body   []byte
}

func rest(t testing.TB, env *testenv.Env, method, path, body string, headers ...string) answer {
	t.Helper()
	resp := env.REST(t.Context(), method, path, body, headers...)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, b}
}

// reason gives the reason and the hint of a refusal by REST.
func (a answer) reason(t testing.TB) (reason, hint string) {
	t.Helper()
	var p struct {
		Details []struct {
			Reason   string
			Metadata map[string]string
		}
	}
	if err := json.Unmarshal(a.body, &p); err != nil || len(p.Details) == 0 {
		t.Fatalf("HTTP %d is no refusal: %v: %s", a.status, err, a.body)
	}
	return p.Details[0].Reason, p.Details[0].Metadata["hint"]
}

// unmarshal reads a good answer.
func unmarshal(a answer, into any) error {
	if a.status != 200 {
		return fmt.Errorf("HTTP %d", a.status)
	}
	return json.Unmarshal(a.body, into)
}
