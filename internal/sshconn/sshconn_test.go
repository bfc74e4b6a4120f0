package sshconn_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestMain(m *testing.M) {
	// Those that are parallel wait for a time to pass more than they work.
	if err := flag.Set("test.parallel", "5"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func newPool(t *testing.T, opt sshconn.Options) *sshconn.Pool {
	t.Helper()
	p := sshconn.New(opt)
	t.Cleanup(p.Close)
	return p
}

func open(t *testing.T, p *sshconn.Pool, h inventory.Host) *sshconn.Channel {
	t.Helper()
	c, err := p.Open(t.Context(), h)
	if err != nil {
		t.Fatalf("Open %s: %v", h.Name, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// run runs a command on a channel and gives its output.
func run(c *sshconn.Channel, command string) (string, error) {
	ok, err := c.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{command}))
	if err != nil || !ok {
		return "", errors.Join(errors.New("exec refused"), err)
	}
	var out []byte
	var readErr error
	var reading sync.WaitGroup
	reading.Go(func() { out, readErr = io.ReadAll(c) })
	reading.Go(func() { io.Copy(io.Discard, c.Stderr()) })
	status := errors.New("no exit status")
	for r := range c.Requests() {
		if r.Type == "exit-status" {
			status = nil
			if string(r.Payload) != "\x00\x00\x00\x00" {
				status = errors.New("exit status not 0")
			}
		}
	}
	reading.Wait()
	return strings.TrimSpace(string(out)), errors.Join(status, readErr)
}

func mustRun(t *testing.T, c *sshconn.Channel, command string) string {
	t.Helper()
	out, err := run(c, command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return out
}

// wantFault checks the reason, the kind, the hint and the facts that every
// error of the room has.
func wantFault(t *testing.T, err error, h inventory.Host, kind fault.Kind, reason string) *fault.Error {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		t.Fatalf("error = %v, want a fault with the reason %s", err, reason)
	}
	if f.Reason != reason || f.Kind != kind {
		t.Fatalf("fault = kind %d %s: %v, want kind %d %s", f.Kind, f.Reason, f, kind, reason)
	}
	if f.Metadata["host"] != h.Name || f.Metadata["address"] != h.Address {
		t.Errorf("metadata = %v, want host %q and address %q", f.Metadata, h.Name, h.Address)
	}
	if f.Message == "" || f.Hint == "" && f.Kind != fault.Cancelled && f.Kind != fault.DeadlineExceeded {
		t.Errorf("message %q, hint %q: both must say something", f.Message, f.Hint)
	}
	return f
}

// within fails the test when f takes longer.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	started := time.Now()
	f()
	if took := time.Since(started); took > limit {
		t.Errorf("it took %s, want at most %s", took, limit)
	}
}

// waitDone waits for the end of the channel's connection.
func waitDone(t *testing.T, c *sshconn.Channel, limit time.Duration) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(limit):
		t.Fatalf("the connection is not declared dead after %s", limit)
	}
}

func TestOpenAsEachUser(t *testing.T) {
	for name, user := range map[string]string{"current": "", "plain": sshtest.PlainUser(t)} {
		t.Run(name, func(t *testing.T) {
			s := sshtest.Start(t, sshtest.Options{User: user})
			p := newPool(t, sshconn.Options{})
			c := open(t, p, s.Host("web1"))
			if got := mustRun(t, c, "id -un"); got != s.User {
				t.Errorf("logged in as %q, want %q", got, s.User)
			}
			if err := c.Err(); err != nil {
				t.Errorf("Err of a live connection = %v", err)
			}
			if err := c.Alive(t.Context()); err != nil {
				t.Errorf("Alive = %v", err)
			}
			c.Close()
			c.Close()
		})
	}
}

// One host, the limits of a fresh sshd, more at once than it takes: nobody is refused.
func TestTwoHundredAtOnce(t *testing.T) {
	for name, user := range map[string]string{"current": "", "plain": sshtest.PlainUser(t)} {
		t.Run(name, func(t *testing.T) {
			s := sshtest.Start(t, sshtest.Options{User: user, MaxSessions: 10})
			p := newPool(t, sshconn.Options{})
			h := s.Host("web1")
			var all sync.WaitGroup
			for range 200 {
				all.Go(func() {
					c, err := p.Open(t.Context(), h)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					if out, err := run(c, "echo here"); err != nil || out != "here" {
						t.Errorf("run = %q, %v", out, err)
					}
				})
			}
			all.Wait()
			if n := p.Stats("web1").Connections; n < 1 || n > 25 {
				t.Errorf("%d connections, want 1 to 25", n)
			}
		})
	}
}

func TestOneConnectionServesMany(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{SessionsPerConn: 3})
	for range 6 {
		open(t, p, s.Host("web1"))
	}
	if n := p.Stats("web1").Connections; n != 2 {
		t.Errorf("%d connections for 6 channels of 3 each, want 2", n)
	}
	if n := s.Sessions(); n != 2 {
		t.Errorf("the server has %d connections, want 2", n)
	}
}

func TestLearnsTheServersLimit(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{MaxSessions: 2})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			c, err := p.Open(t.Context(), h)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
		})
	}
	all.Wait()
	if n := p.Stats("web1").Connections; n < 6 {
		t.Errorf("%d connections hold 12 channels of 2 each", n)
	}
}

func TestClosedChannelGivesItsPlaceBack(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{MaxSessions: 1})
	p := newPool(t, sshconn.Options{SessionsPerConn: 1})
	for range 10 {
		c := open(t, p, s.Host("web1"))
		// One that runs to its end, and one that is closed in the middle.
		mustRun(t, c, "true")
		c.Close()
	}
	if n := strings.Count(s.Log(), "Accepted publickey"); n != 1 {
		t.Errorf("%d logins for channels one after the other, want 1", n)
	}
	c := open(t, p, s.Host("web1"))
	if ok, err := c.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{"echo out; sleep 300"})); !ok || err != nil {
		t.Fatalf("exec = %t, %v", ok, err)
	}
	c.Close()
	// Its place is taken on the host while the command runs: another connection.
	mustRun(t, open(t, p, s.Host("web1")), "true")
}

func TestServerOpensNoSession(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{ExtraConfig: []string{"MaxSessions 0"}})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			_, err := p.Open(t.Context(), h)
			wantFault(t, err, h, fault.Unavailable, fault.ReasonChannelRefused)
		})
	}
	all.Wait()
	if n := strings.Count(s.Log(), "Accepted publickey"); n > 20 {
		t.Errorf("%d logins to be refused 20 times", n)
	}
	_, err := p.Check(t.Context(), h)
	wantFault(t, err, h, fault.Unavailable, fault.ReasonChannelRefused)
}

func TestDroppedHandshakesAreTriedAgain(t *testing.T) {
	// One login at a time, all others are dropped: sshd's random early drop at its worst.
	s := sshtest.Start(t, sshtest.Options{MaxStartups: "1:100:1"})
	p := newPool(t, sshconn.Options{SessionsPerConn: 1})
	h := s.Host("web1")
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			c, err := p.Open(t.Context(), h)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
		})
	}
	all.Wait()
	if !strings.Contains(s.Log(), "MaxStartups") {
		t.Error("the server dropped nobody: the test shows nothing")
	}
}

func TestKilledSessionIsNoticed(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	c := open(t, p, h)
	s.KillSessions()
	waitDone(t, c, 5*time.Second)
	f := wantFault(t, c.Err(), h, fault.Unavailable, fault.ReasonConnectionLost)
	if f == c.Err() {
		t.Error("two callers share one error value")
	}
	wantFault(t, c.Alive(t.Context()), h, fault.Unavailable, fault.ReasonConnectionLost)
	mustRun(t, open(t, p, h), "true")
}

func TestRestartedServerIsFoundAgain(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	c := open(t, p, h)
	mustRun(t, c, "true")
	c.Close()
	s.Stop()
	_, err := p.Open(t.Context(), h)
	// The dead connection may be noticed before or while it is used.
	wantFault(t, err, h, fault.Unavailable, fault.ReasonConnectionRefused)
	s.Restart()
	mustRun(t, open(t, p, h), "true")
	stats := p.Stats("web1")
	if stats.LastFailure == nil || stats.LastFailure.Reason != fault.ReasonConnectionRefused || stats.LastFailureTime.After(stats.LastConnected) {
		t.Errorf("stats = %+v", stats)
	}
}

func TestSilentServerIsFoundByKeepalive(t *testing.T) {
	t.Parallel()
	for _, max := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			t.Parallel()
			s := sshtest.Start(t, sshtest.Options{})
			p := newPool(t, sshconn.Options{})
			h := s.Host("web1")
			// The same silence for each; the server must not be silent for so long before.
			h.KeepaliveInterval, h.KeepaliveMax = 3*time.Second, max
			if max > 1 {
				h.KeepaliveInterval /= time.Duration(max)
			}
			c := open(t, p, h)
			s.Pause()
			waitDone(t, c, 15*time.Second)
			f := wantFault(t, c.Err(), h, fault.Unavailable, fault.ReasonConnectionLost)
			if !strings.Contains(f.Message, "did not answer") {
				t.Errorf("message = %q", f.Message)
			}
			wantFault(t, c.Alive(t.Context()), h, fault.Unavailable, fault.ReasonConnectionLost)
			s.Resume()
		})
	}
}

func TestWedgedConnection(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	h.ConnectTimeout, h.KeepaliveInterval = 4*time.Second, 0
	first := open(t, p, h)
	s.Pause()
	within(t, 12*time.Second, func() {
		_, err := p.Open(t.Context(), h)
		f := wantFault(t, err, h, fault.Unavailable, fault.ReasonConnectTimeout)
		if !strings.Contains(f.Message, "no session") {
			t.Errorf("message = %q", f.Message)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := first.Alive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Alive of a silent server = %v", err)
	}
	// The next one does not wait on the same connection.
	_, err := p.Open(t.Context(), h)
	if f := wantFault(t, err, h, fault.Unavailable, fault.ReasonConnectTimeout); !strings.Contains(f.Message, "says nothing") {
		t.Errorf("message = %q", f.Message)
	}
	s.Resume()
	mustRun(t, open(t, p, h), "true")
	if err := first.Err(); err != nil {
		t.Errorf("the first connection = %v", err)
	}
}

func TestIdleConnectionsClose(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{IdleTimeout: 100 * time.Millisecond})
	h := s.Host("web1")
	h.KeepaliveInterval = 0
	c := open(t, p, h)
	select {
	case <-c.Done():
		t.Fatal("a connection with an open channel was closed")
	case <-time.After(250 * time.Millisecond):
	}
	mustRun(t, c, "true")
	c.Close()
	waitDone(t, c, 5*time.Second)
}

func TestCallerLeaves(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	h.Address = sshtest.BlackHole(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := p.Open(ctx, h)
	wantFault(t, err, h, fault.DeadlineExceeded, fault.ReasonCallDeadline)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Open(gone, h)
	wantFault(t, err, h, fault.Cancelled, fault.ReasonCallCancelled)
	_, err = p.Check(gone, h)
	wantFault(t, err, h, fault.Cancelled, fault.ReasonCallCancelled)

	// On a live connection too.
	live := s.Host("live")
	first := open(t, p, live)
	s.Pause()
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = p.Open(ctx, live)
	wantFault(t, err, live, fault.DeadlineExceeded, fault.ReasonCallDeadline)
	s.Resume()
	mustRun(t, first, "true")
}

func TestCheck(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	got, err := p.Check(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.ServerVersion, "SSH-2.0-OpenSSH") || got.HostKeyFingerprint != ssh.FingerprintSHA256(s.HostKey) || got.Duration <= 0 {
		t.Errorf("Check = %+v", got)
	}
	if stats := p.Stats("web1"); stats.Connections != 0 || stats.LastConnected.IsZero() || stats.LastFailure != nil {
		t.Errorf("stats = %+v", stats)
	}
	h.Address = sshtest.ClosedPort(t)
	_, err = p.Check(t.Context(), h)
	wantFault(t, err, h, fault.Unavailable, fault.ReasonConnectionRefused)
	if stats := p.Stats("web1"); stats.LastFailure == nil {
		t.Errorf("stats = %+v", stats)
	}
	h.Address, h.ConnectTimeout = sshtest.BlackHole(t), 100*time.Millisecond
	_, err = p.Check(t.Context(), h)
	wantFault(t, err, h, fault.Unavailable, fault.ReasonConnectTimeout)
}

func TestStatsOfAnUnknownHost(t *testing.T) {
	if got := newPool(t, sshconn.Options{}).Stats("nobody"); got != (sshconn.Stats{}) {
		t.Errorf("stats = %+v", got)
	}
}

func TestOtherDefinitionOtherConnection(t *testing.T) {
	root := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := root.Host("web1")
	open(t, p, h)
	h.Labels, h.MaxCommands = map[string]string{"env": "prod"}, 3 // no matter for a connection
	open(t, p, h)
	if n := p.Stats("web1").Connections; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	h.KeepaliveMax++
	open(t, p, h)
	if n := p.Stats("web1").Connections; n != 2 {
		t.Errorf("%d connections of two definitions, want 2", n)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := sshconn.New(sshconn.Options{})
	h := s.Host("web1")
	live := open(t, p, h)
	hole := h
	hole.Name, hole.Address = "hole", sshtest.BlackHole(t)
	var waiting sync.WaitGroup
	begun := make(chan struct{}) // closed by the first of the callers
	waiting.Go(func() {
		close(begun)
		_, err := p.Open(t.Context(), hole)
		if err == nil {
			t.Error("the black hole answered")
		}
	})
	waiting.Go(func() {
		if _, err := p.Check(t.Context(), hole); err == nil {
			t.Error("the black hole answered")
		}
	})
	<-begun
	within(t, 2*time.Second, p.Close)
	waiting.Wait()
	p.Close()
	waitDone(t, live, time.Second)
	wantFault(t, live.Err(), h, fault.Unavailable, fault.ReasonConnectionLost)
	if err := live.Alive(t.Context()); err == nil {
		t.Error("a connection of a closed pool is alive")
	}
	for _, host := range []inventory.Host{h, s.Host("new")} {
		_, err := p.Open(t.Context(), host)
		wantFault(t, err, host, fault.Unavailable, fault.ReasonDraining)
	}
	_, err := p.Check(t.Context(), h)
	wantFault(t, err, h, fault.Unavailable, fault.ReasonDraining)
}

func TestWrongKeyIsTriedOnceForAllWhoWait(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	file, _ := sshtest.NewKey(t, t.TempDir(), "stranger")
	h.IdentityFiles = []string{file}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, err := p.Open(t.Context(), h)
			wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonAuthFailed)
		})
	}
	all.Wait()
	if n := strings.Count(s.Log(), "Connection from"); n > 3 {
		t.Errorf("%d logins with a wrong key for 50 callers", n)
	}
}

func lines(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(b)))
}
