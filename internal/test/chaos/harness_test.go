package chaos

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/pkg/client"
)

// harness is a service, its hosts and what the commands on them share.
type harness struct {
	t        *testing.T
	env      *testenv.Env
	servers  map[string]*sshtest.Server
	machines map[string]*sshtest.Machine // those of servers that are machines
	places   []Place

	run      string // names this run in labels and environments
	dir      string // on all hosts, writable by all: the actor, and the files of starts
	actor    string
	began    time.Time
	conn     *grpc.ClientConn
	commands telexecv1.CommandServiceClient
	client   *client.Client // for what only a good client gets right
	streams  atomic.Int64   // numbers the streams for Sighting.Stream
}

const (
	perHost = 64 // commands at once on a host
	// mark is the variable that every process of a command carries, so that what
	// is left of it is found whatever the service itself marks.
	mark = "CHAOS_RUN"
)

// newHarness starts a service with these servers. The plain and the root host of
// testenv are always there.
func newHarness(t *testing.T, seed uint64, options ...testenv.Option) *harness {
	t.Helper()
	h := &harness{
		t: t, servers: make(map[string]*sshtest.Server), machines: make(map[string]*sshtest.Machine),
		run: fmt.Sprintf("%d-%d", seed, os.Getpid()),
	}
	h.installActor()
	options = append(options, testenv.WithMaxCommands(perHost), testenv.WithConfig("drain_timeout: 1s\nssh:\n  keepalive_interval: 1s\n  keepalive_max: 2\n  connect_timeout: 5s"))
	options = append(options, h.startMachines()...)
	h.env = testenv.Start(t, options...)
	for name, s := range h.env.Servers {
		h.servers[name] = s
		h.places = append(h.places, Place{Name: name})
	}
	h.sortPlaces()
	h.dial()
	h.began = time.Now()
	return h
}

// installActor copies the test binary to where every account can run it.
func (h *harness) installActor() {
	h.t.Helper()
	dir, err := os.MkdirTemp("", "telexec-chaos-hosts-")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { os.RemoveAll(dir) })
	h.dir, h.actor = dir, filepath.Join(dir, "actor")
	if err := os.Chmod(dir, 0o1777); err != nil {
		h.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		h.t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(h.actor, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if closeErr := to.Close(); err != nil || closeErr != nil {
		h.t.Fatal(err, closeErr)
	}
}

// dial connects as two clients do: one of the bare contract, whose retries are
// the harness's own, and the one that programs would use.
func (h *harness) dial() {
	h.t.Helper()
	var err error
	h.conn, err = grpc.NewClient("passthrough:"+h.env.GRPCAddr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(token(h.env.Token.Reveal())),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		h.t.Fatal(err)
	}
	h.commands = telexecv1.NewCommandServiceClient(h.conn)
	h.client, err = client.Dial(client.Options{Server: h.env.GRPCAddr, Token: client.Token(h.env.Token.Reveal()), RetryFor: time.Minute})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.conn.Close(); h.client.Close() })
	// A client that has never reached the service does not try twice.
	if _, err := h.client.GetServerInfo(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// token is sent with every call.
type token string

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

// now is the time since the start of the run.
func (h *harness) now() time.Duration { return time.Since(h.began) }

// pause waits, and reports false where ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// startsFile is where a command notes its starts.
func (h *harness) startsFile(r *Record) string {
	return filepath.Join(h.dir, "starts."+strconv.Itoa(r.Number))
}

// line is the command line that plays a record's script. Its first act is to
// note that it has started. A command that is to be cancelled has a child that
// has left its group and one that will not hear of SIGHUP.
func (h *harness) line(r *Record) string {
	play := h.actor + " " + actorName + " " + strings.Join(r.Script.Args(), " ")
	line := "echo start >>" + h.startsFile(r) + "; "
	switch {
	case r.Script.Signal != "":
		return line + play + "; kill -s " + r.Script.Signal + " $$"
	case r.Script.Kind == Endless && r.Number%2 == 0:
		return line + "setsid sleep 600 >/dev/null 2>&1 & nohup sleep 600 >/dev/null 2>&1 & " + play
	case r.Number%3 == 0:
		return line + play + "; exit $?"
	}
	return line + "exec " + play
}

// sighting makes a Sighting of what a call told.
func (h *harness) sighting(by string, asked time.Duration, c *telexecv1.Command) Sighting {
	s := Sighting{
		By: by, Asked: asked, At: h.now(),
		State: strings.TrimPrefix(c.GetState().String(), "COMMAND_STATE_"),
		Ended: c.GetState() >= telexecv1.CommandState_COMMAND_STATE_COMPLETED, Code: -1,
		Signal: c.GetExitSignal(), Reason: c.GetFailure().GetReason(),
		Size: [2]int64{c.GetStdoutBytes(), c.GetStderrBytes()}, Cut: [2]int64{-1, -1},
		Attached: c.GetDurability() == telexecv1.Durability_DURABILITY_ATTACHED,
	}
	if c.ExitCode != nil {
		s.Code = int(c.GetExitCode())
	}
	if c.GetEndTime() != nil {
		// The store keeps microseconds.
		s.EndTime = c.GetEndTime().AsTime().Truncate(time.Microsecond)
	}
	if t := c.GetTruncation(); t != nil {
		if t.StdoutOffset != nil {
			s.Cut[Stdout] = t.GetStdoutOffset()
		}
		if t.StderrOffset != nil {
			s.Cut[Stderr] = t.GetStderrOffset()
		}
	}
	if report := c.GetCancellation().GetReport(); report != nil {
		s.Outcome = strings.TrimPrefix(report.GetOutcome().String(), "CANCEL_OUTCOME_")
	}
	return s
}

// streamOf gives the harness's name of a stream.
func streamOf(s telexecv1.Stream) Stream {
	if s == telexecv1.Stream_STREAM_STDERR {
		return Stderr
	}
	return Stdout
}
