package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// The failure stories: what becomes of commands when hosts, connections, disks,
// processes and the service itself fail. Each is told as root and as a plain
// user, on a machine of its own that may be broken at will.

const (
	completed = telexecv1.CommandState_COMMAND_STATE_COMPLETED
	failed    = telexecv1.CommandState_COMMAND_STATE_FAILED
	cancelled = telexecv1.CommandState_COMMAND_STATE_CANCELLED
	timedOut  = telexecv1.CommandState_COMMAND_STATE_TIMED_OUT
	lost      = telexecv1.CommandState_COMMAND_STATE_LOST

	gone = telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE
)

// The accounts of a story, which are its hosts too.
const (
	asRoot  = "root"
	asPlain = "anna"
)

var logins = []string{asRoot, asPlain}

// stage is a service and a machine on which each account is a host.
type stage struct {
	*testenv.Env
	machine *sshtest.Machine
}

// newStage makes them. Without accounts there are root and a plain user.
func newStage(t *testing.T, opt sshtest.MachineOptions, opts ...testenv.Option) stage {
	t.Helper()
	if len(opt.Accounts) == 0 {
		opt.Accounts = []sshtest.Account{{Name: asRoot, Root: true}, {Name: asPlain}}
	}
	m := sshtest.StartMachine(t, opt)
	var hosts []inventory.Host
	for _, a := range opt.Accounts {
		h := m.HostOf(a.Name, a.Name)
		h.MaxCommands = 100
		hosts = append(hosts, h)
	}
	return stage{testenv.Start(t, append(opts, testenv.WithoutHosts(), testenv.WithHosts(hosts...))...), m}
}

// quickLink makes the service notice a dead link within a second or so.
func quickLink() testenv.Option {
	return testenv.WithConfig("ssh:\n  keepalive_interval: 300ms\n  keepalive_max: 3")
}

// words counts what newWord has given.
var words atomic.Int64

// newWord gives a number of seconds to sleep for that no other process has in its
// command line.
func newWord() string { return fmt.Sprint(1_000_000_000 + words.Add(1)) }

// durable fails the test where a command is not kept by its host.
func (s stage) durable(t testing.TB, id string) {
	t.Helper()
	got, err := s.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: id})
	if err != nil {
		t.Fatal(err)
	}
	if c := got.GetCommand(); c.GetDurability() != telexecv1.Durability_DURABILITY_DURABLE {
		t.Fatalf("the command is %v (%s), not durable: %v", c.GetDurability(), c.GetDurabilityReason(), c)
	}
}

// swept waits until the host has nothing of a command any more, neither processes
// nor files.
func (s stage) swept(t testing.TB, id string) {
	t.Helper()
	var left []string
	// The tombstone of a command whose start was tried more than once may stay: it
	// keeps a late first try from starting it again.
	tombstone := func(what string) bool { return strings.HasPrefix(what, "file ") && strings.HasSuffix(what, id+".go") }
	if !comesTrue(t, 15*time.Second, func() bool {
		left = slices.DeleteFunc(s.machine.Leftovers(id), tombstone)
		return len(left) == 0
	}) {
		t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
	}
}

// comesTrue looks again and again, for as long as limit, whether something is so.
func comesTrue(t testing.TB, limit time.Duration, is func() bool) bool {
	t.Helper()
	over := time.After(limit)
	for !is() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-over:
			return is()
		case <-t.Context().Done():
			return false
		}
	}
	return true
}

// story gives a command line that prints n numbered lines on standard output and
// some on standard error, pausing each 200 lines, and ends with code 7; and what
// it prints.
func story(n int, pause string) (line, stdout, stderr string) {
	line = fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo \"line $i of a story that must come whole\"; "+
		"[ $((i %% 10)) -ne 0 ] || echo \"aside $i\" >&2; [ $((i %% 200)) -ne 0 ] || sleep %s; i=$((i+1)); done; exit 7", n, pause)
	var out, side strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "line %d of a story that must come whole\n", i)
		if i%10 == 0 {
			fmt.Fprintf(&side, "aside %d\n", i)
		}
	}
	return line, out.String(), side.String()
}

// sight is what a watcher has seen of a command.
type sight struct {
	stdout, stderr string
	links          []telexecv1.Connection // each change of it
	last           *telexecv1.Command
	err            error
}

// watch follows a command in the background until its end. It is for a service
// that stays up meanwhile.
func watch(ctx context.Context, client telexecv1.CommandServiceClient, id string) <-chan sight {
	seen := make(chan sight, 1) // the one result
	go func() {
		var s sight
		s.err = s.follow(ctx, client, id)
		seen <- s
	}()
	return seen
}

func (s *sight) follow(ctx context.Context, client telexecv1.CommandServiceClient, id string) error {
	stream, err := client.StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: id, Follow: true}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if c := m.GetChunk(); c != nil {
			to := &s.stdout
			if c.GetStream() == telexecv1.Stream_STREAM_STDERR {
				to = &s.stderr
			}
			if c.GetOffset() != int64(len(*to)) {
				return fmt.Errorf("%v: a chunk at %d, want offset %d", c.GetStream(), c.GetOffset(), len(*to))
			}
			*to += string(c.GetData())
		}
		if c := m.GetCommand(); c != nil && c.GetEndTime() == nil && c.GetConnection() != 0 &&
			(len(s.links) == 0 || s.links[len(s.links)-1] != c.GetConnection()) {
			s.links = append(s.links, c.GetConnection())
		}
		if c := m.GetEnded(); c != nil {
			s.last = c
		}
	}
}

// told checks that a command has told all of a story, to whoever asks now.
func (s stage) told(t testing.TB, id, stdout, stderr string) *telexecv1.Command {
	t.Helper()
	c := await(t, s.Env, id, ended)
	gotOut, gotErr, _ := output(t, s.Env, &telexecv1.StreamOutputRequest{CommandId: id})
	same(t, "stdout", gotOut, stdout)
	same(t, "stderr", gotErr, stderr)
	return c
}

// same compares long texts, and says where they part.
func same(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s has %d bytes, want %d; they part at %d: %.60q, want %.60q", what, len(got), len(want), at, got[at:], want[at:])
}

// cancel cancels a command and checks that the answer proves its end.
func (s stage) cancel(t testing.TB, id string) *telexecv1.CancelResponse {
	t.Helper()
	start := time.Now()
	r, err := s.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: id})
	took := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	if r.GetReport().GetOutcome() != gone || r.GetCommand().GetState() != cancelled {
		t.Errorf("after %v: %v: %v", took, r.GetReport(), r.GetCommand())
	}
	if took > 3*time.Second*slowness {
		t.Errorf("answered after %v: %v", took, r.GetReport())
	}
	t.Logf("gone after %v, by %s, %d processes", took, r.GetReport().GetSignal(), r.GetReport().GetEnded())
	return r
}

func needSudo(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("sudo"); err != nil {
		testenv.Missing(t, "no sudo; tools/setup.sh gets it")
	}
}

func now() *durationpb.Duration { return durationpb.New(0) }
