package sshexec

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// What one owner leaves to the next.

// next gives up a run that is not collected, and tells what the next owner finds.
func (h *host) next(t *testing.T, k kept) (Process, *output, error) {
	t.Helper()
	k.Close()
	<-k.Process.(*durable).through
	o := newOutput()
	run := k.run
	run.Fence, run.Output = run.Fence+1, o.sink
	p, err := h.runner.Resume(t.Context(), run)
	if err == nil {
		t.Cleanup(func() {
			p.Collected()
			<-p.(*durable).through
		})
	}
	return p, o, err
}

// The last bytes of an output look like the beginning of a mark. The first owner
// had them from what saw the command end, the next has them from the spools.
func TestOutputThatEndsLikeAMark(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	h.durably(command.Spec{Line: "true"}).end(t) // the host is known, so the next is near
	k := h.durably(command.Spec{Line: `printf 'x\036'; printf 'y\036telexec:' >&2`})
	k.Wait()
	p, o, err := h.next(t, k)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]*output{"first": k.output, "next": o} {
		if e, err := p.Wait(); err != nil || code(e) != "0" || o.text(command.Stdout) != "x\x1e" || o.text(command.Stderr) != "y\x1etelexec:" {
			t.Errorf("%s: %s %v %q %q", name, code(e), err, o.text(command.Stdout), o.text(command.Stderr))
		}
	}
}

// A follower's greeting is read after the answer to an Input that came later.
func TestGreetingBehindAnInput(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	k := h.durably(command.Spec{Line: "cat", StdinOpen: true})
	d := k.Process.(*durable)
	if n, err := k.Input(t.Context(), []byte("one "), false); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	(&session{d: d}).greet("live", d.key+" 0")
	if n, err := k.Input(t.Context(), []byte("two "), true); n != 8 || err != nil {
		t.Error(n, err)
	}
	if e := k.end(t); code(e) != "0" || k.text(command.Stdout) != "one two " {
		t.Error(code(e), k.text(command.Stdout))
	}
}

// What there is of a run that was lost stays until its owner has stored it.
func TestLostRunIsThereUntilCollected(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	k := h.durably(command.Spec{Line: "echo precious; sleep 1000"})
	k.await(t, has("precious"))
	leader, _, _ := strings.Cut(h.record(k.run.ID, ".f")[3], ":")
	for _, pid := range append(supervisors(t, leader), marked(t, k.run.ID)...) {
		n, _ := strconv.Atoi(pid)
		syscall.Kill(n, syscall.SIGKILL)
	}
	p, o, err := h.next(t, k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); fault.ReasonOf(err) != fault.ReasonSupervisorKilled || o.text(command.Stdout) != "precious\n" {
		t.Error(err, o.text(command.Stdout))
	}
	if len(h.filesOf(k.run.ID)) == 0 {
		t.Error("it was removed before anybody said that it is stored")
	}
}

// A run whose host was away for too long may live, and what it prints is kept.
func TestRunThatWasGivenUpIsNotRemoved(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	h.runner.opts.ReconnectTimeout = 200 * time.Millisecond
	k := h.durably(command.Spec{Line: "echo up; sleep 1000"})
	k.await(t, has("up"))
	h.server.Stop()
	if _, err := k.Wait(); fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
	h.server.Restart()
	k.Collected()
	d := k.Process.(*durable)
	<-d.through
	if d.kept || len(h.filesOf(k.run.ID)) == 0 {
		t.Error("it is removed while it lives")
	}
	if report, err := k.Cancel(t.Context(), time.Second); err != nil || report.Outcome != command.Gone {
		t.Error(report, err)
	}
	d.removeFiles(t.Context())
}

// withoutGo is a service that dies before it says "go".
type withoutGo struct{ *dialer }

func (d withoutGo) Open(ctx context.Context, host inventory.Host) (Session, error) {
	s, err := d.dialer.Open(ctx, host)
	if err == nil {
		s.Channel = mute{s.Channel}
	}
	return s, err
}

type mute struct{ ssh.Channel }

func (c mute) Write(b []byte) (int, error) {
	if string(b) == "go\n" {
		return len(b), nil
	}
	return c.Channel.Write(bytes.Replace(b, []byte("now=yes"), []byte("now=no"), 1))
}

// Nobody follows when the timeout comes; the next owner is told of it.
func TestTimeoutThatNobodyFollowed(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	h.durably(command.Spec{Line: "true"}).end(t)
	h.runner = New(withoutGo{newDialer(t)}, Options{})
	run := Run{ID: newID(), Host: h.inv, Fence: 1, Spec: &command.Spec{Line: "sleep 1000", Timeout: 700 * time.Millisecond}, Output: newOutput().sink}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	given := make(chan struct{}) // closed when the start was given up
	go func() {
		defer close(given)
		if p, err := h.runner.Start(ctx, run); err == nil { // a machine that is slow
			p.Close()
		}
	}()
	eventually(t, "the command runs", func() bool {
		f := h.record(run.ID, ".st")
		return len(f) > 0 && f[0] != "claim"
	})
	cancel()
	<-given
	eventually(t, "the end of the run", func() bool {
		f := h.record(run.ID, ".st")
		return len(f) > 0 && f[0] == "done"
	})
	run.Fence = 2
	h.runner = New(newDialer(t), Options{})
	p, err := h.runner.Resume(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := p.Wait(); err != nil || e.TimedOut == nil || e.TimedOut.Outcome != command.Gone {
		t.Errorf("%s, timed out %+v: %v", code(e), e.TimedOut, err)
	}
	p.Collected()
	<-p.(*durable).through
}

// awayDialer is a host that does not answer, which it takes a while to see.
type awayDialer struct{ asked *atomic.Int32 }

func (d awayDialer) Open(ctx context.Context, _ inventory.Host) (Session, error) {
	d.asked.Add(1)
	pause(ctx, 300*time.Millisecond)
	return Session{}, fault.Wrap(errors.New("away"), fault.Unavailable, fault.ReasonConnectTimeout, "no")
}

func (d awayDialer) OpenFirst(ctx context.Context, h inventory.Host) (Session, error) {
	return d.Open(ctx, h)
}

// All who wait to hear what a host has share the answer that it is away.
func TestStartsOnAHostThatIsAway(t *testing.T) {
	t.Parallel()
	d := awayDialer{asked: new(atomic.Int32)}
	r := New(d, Options{})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			_, err := r.Start(t.Context(), Run{ID: newID(), Host: inventory.Host{Name: "x"}, Spec: &command.Spec{Line: "true"}, Output: newOutput().sink})
			if fault.ReasonOf(err) != fault.ReasonConnectTimeout {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := d.asked.Load(); n > 10 { // 1, but for those that came when it was known
		t.Errorf("it was asked %d times for 20 starts at once", n)
	}
}

// breaking is a host whose connections break so often before anything is sent.
type breaking struct {
	*dialer
	left *atomic.Int32
}

func (d breaking) Open(ctx context.Context, host inventory.Host) (Session, error) {
	if d.left.Add(-1) >= 0 {
		return Session{}, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "broken")
	}
	return d.dialer.Open(ctx, host)
}

// A connection that breaks before anything was sent is no reason to fail, unless
// it does so again and again.
func TestConnectionThatBreaksBeforeTheStart(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	for _, breaks := range []int32{earlyMost - 1, earlyMost} {
		d := breaking{dialer: newDialer(t), left: new(atomic.Int32)}
		h.runner = New(d, Options{})
		d.left.Store(breaks)
		spec, starts := counted(t, "exit 3")
		e, _, err := h.outcome(Run{ID: newID(), Host: h.inv, Spec: spec, Fence: 1})
		if failed := fault.ReasonOf(err) == fault.ReasonConnectionLost; failed != (breaks == earlyMost) || !failed && (code(e) != "3" || starts() != 1) || failed && starts() != 0 {
			t.Errorf("%d breaks: %s %v, %d starts", breaks, code(e), err, starts())
		}
	}
}

// What has left the group, the session and the environment still has the output.
func TestCancelOfWhatHasOnlyTheOutput(t *testing.T) {
	t.Parallel()
	eachUser(t, func(t *testing.T, h *host) {
		k := h.durably(command.Spec{Line: "setsid env -i sh -c '(sleep 1000 & echo $!)'; echo up; sleep 1000"})
		pid, _, _ := strings.Cut(k.await(t, has("up")), "\n")
		report, err := k.Cancel(t.Context(), time.Second)
		if err != nil || report.Outcome != command.Gone || alive(pid) {
			t.Errorf("%+v %v, and %s lives: %t", report, err, pid, alive(pid))
		}
		if e := k.end(t); e.Signal != "" && e.Signal != "INT" || code(e) != "130" && e.Signal == "" {
			t.Error(code(e), e.Signal)
		}
	})
}

// Somebody whom the login user cannot see has the output open: it is said, and not
// waited for.
func TestOutputThatSomebodyUnseenHolds(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("takes root, who is not seen")
	}
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	for name, spec := range map[string]command.Spec{"cancel": {Line: "echo up; sleep 1000"}, "timeout": {Line: "echo up; sleep 1000", Timeout: time.Second}} {
		k := h.durably(spec)
		k.await(t, has("up"))
		pipe, err := os.OpenFile("/proc/"+h.record(k.run.ID, ".st")[2]+"/fd/1", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer pipe.Close()
		if name == "cancel" {
			if report, err := k.Cancel(t.Context(), time.Second); err != nil || report.Outcome != command.Unproven {
				t.Errorf("%+v %v", report, err)
			}
		}
		if e := k.end(t); name == "timeout" && (e.TimedOut == nil || e.TimedOut.Outcome != command.Unproven) {
			t.Errorf("%s: %+v", name, e.TimedOut)
		}
	}
}
