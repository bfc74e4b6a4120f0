package sshconn

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

const patient = 5 * time.Second // the ConnectTimeout of these tests

// newEndpoint makes the endpoint of a host to which no handshake is begun: one is
// under way for ever, and there may be only one.
func newEndpoint(t *testing.T, opt Options) *endpoint {
	opt.HandshakesPerHost = 1
	p := New(opt)
	t.Cleanup(p.Close)
	e, err := p.endpoint(inventory.Host{Name: "web1", Address: "127.0.0.1:1", ConnectTimeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	e.dialing, e.lastConnected = 1, time.Now()
	e.mu.Unlock()
	return e
}

// bare is a connection with nothing behind it.
func (e *endpoint) bare() *conn {
	near, _ := net.Pipe()
	return &conn{end: e, done: make(chan struct{}), link: newLink(near)}
}

// admit adds a bare connection with n places, on which something was opened.
func (e *endpoint) admit(n int) *conn {
	c := e.bare()
	c.used.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.connected(c)
	c.limit, c.lowered = n, time.Now()
	return c
}

// queue has a call stand in line; the channel gets its answer.
func (e *endpoint) queue(ctx context.Context, p place) <-chan error {
	answer := make(chan error, 1)
	w := newWaiter(p, time.Now())
	go func() {
		_, err := e.acquire(ctx, w)
		answer <- err
	}()
	synctest.Wait()
	return answer
}

// Who stands in line is there as long as something goes on, and no longer.
func TestLineWaitsForProgressOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Options{})
		c := e.admit(1)
		<-e.queue(t.Context(), session)
		waiting := e.queue(t.Context(), session)
		others := e.queue(t.Context(), session)
		begun := time.Now()
		for range 5 { // one session after the other comes free, for somebody who was here before
			<-time.After(patient - time.Second)
			e.mu.Lock()
			e.progress = time.Now()
			e.mu.Unlock()
		}
		synctest.Wait()
		select {
		case err := <-waiting:
			t.Fatalf("after %v: %v", time.Since(begun), err)
		default:
		}
		c.release()
		if err := <-waiting; err != nil {
			t.Fatal(err)
		}
		last := time.Now()
		err := <-others
		if f := fault.From(err); f.Reason != fault.ReasonConnectTimeout || time.Since(last) != patient {
			t.Errorf("after %v without progress: %v", time.Since(last), err)
		}
	})
}

// Each has its own time, and is told what the last attempt came to.
func TestLineEndsWithTheReasonOfTheLastAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Options{})
		begun := time.Now()
		early := e.queue(t.Context(), session)
		<-time.After(2 * time.Second)
		late := e.queue(t.Context(), session)
		e.mu.Lock()
		e.note(fault.New(fault.Unavailable, fault.ReasonHandshakeFailed, "this test"), time.Now())
		e.mu.Unlock()
		if f := fault.From(<-early); f.Reason != fault.ReasonHandshakeFailed || time.Since(begun) != patient {
			t.Errorf("the first, after %v: %v", time.Since(begun), f)
		}
		// What was noted is not news for who came at the same moment.
		if f := fault.From(<-late); f.Reason != fault.ReasonConnectTimeout || time.Since(begun) != patient+2*time.Second {
			t.Errorf("the second, after %v: %v", time.Since(begun), f)
		}
	})
}

// The caller's own end counts at once, and a closed pool too.
func TestLineIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		gone, stays := e.queue(ctx, session), e.queue(t.Context(), session)
		cancel()
		if f := fault.From(<-gone); f.Reason != fault.ReasonCallCancelled {
			t.Errorf("error = %v", f)
		}
		limited, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLimit)
		defer cancel()
		if f := fault.From(<-e.queue(limited, stream)); f.Reason != fault.ReasonConnectTimeout {
			t.Errorf("error at the limit of a host behind = %v", f)
		}
		if n := e.line[session].Len() + e.line[stream].Len(); n != 1 {
			t.Errorf("%d are in line, want 1", n)
		}
		e.pool.Close()
		if f := fault.From(<-stays); f.Reason != fault.ReasonDraining {
			t.Errorf("error = %v", f)
		}
	})
}

// Those who control go first, then all others as they came; who was served
// before and comes back is where he was.
func TestLineIsServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Options{SessionsPerConn: 1})
		var mu sync.Mutex
		var served []string
		var all sync.WaitGroup
		come := func(name string, p place, arrived time.Time) {
			w := newWaiter(p, arrived)
			all.Go(func() {
				c, err := e.acquire(t.Context(), w)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				mu.Lock()
				served = append(served, name)
				mu.Unlock()
				if p == stream {
					c.leave()
				} else {
					c.release()
				}
			})
			synctest.Wait()
			<-time.After(time.Millisecond)
		}
		begun := time.Now()
		come("again", second, begun)
		come("1", session, time.Now())
		between := time.Now()
		<-time.After(time.Millisecond)
		come("2", session, time.Now())
		come("3", session, time.Now())
		come("control 1", control, time.Now())
		come("way", stream, time.Now())
		come("control 2", control, time.Now())
		come("back between", session, between)
		come("back first", session, begun.Add(-time.Second))
		// One place, and none to spare: each has it in his turn.
		e.mu.Lock()
		e.learned, e.learnedAt = 1, time.Now()
		e.mu.Unlock()
		e.admit(1)
		all.Wait()
		served = slices.DeleteFunc(served, func(s string) bool { return s == "way" }) // it needs no turn
		want := []string{"control 1", "control 2", "back first", "1", "back between", "2", "3", "again"}
		if !slices.Equal(served, want) {
			t.Errorf("served %q, want %q", served, want)
		}
	})
}

// A full connection has one place more, for control alone, as long as the server
// has not shown that it is full.
func TestSparePlaceIsForControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Options{SessionsPerConn: 2})
		c := e.admit(2)
		for range 2 {
			<-e.queue(t.Context(), session)
		}
		waiting := e.queue(t.Context(), session)
		if err := <-e.queue(t.Context(), control); err != nil {
			t.Fatal(err)
		}
		c.release() // the control's: the place was an extra one
		synctest.Wait()
		select {
		case err := <-waiting:
			t.Fatalf("it has the place for control: %v", err)
		default:
		}
		e.mu.Lock()
		e.learned, e.learnedAt = 2, time.Now()
		e.mu.Unlock()
		second := e.queue(t.Context(), control)
		c.release()
		if err := <-second; err != nil {
			t.Errorf("control = %v", err)
		}
		c.release()
		if err := <-waiting; err != nil {
			t.Errorf("session = %v", err)
		}
	})
}

// Those who ask a second time do not double the connections of a slow server.
func TestSecondAsksNeedOneConnection(t *testing.T) {
	var l line
	for range 20 {
		l.join(newWaiter(session, time.Now()))
		l.join(newWaiter(second, time.Now()))
	}
	l.join(newWaiter(control, time.Now()))
	l.join(newWaiter(stream, time.Now()))
	if got := l.sessions(8); got != 20+1+8 {
		t.Errorf("there should be %d places, want %d", got, 20+1+8)
	}
}

// What connections give back when they are dead is no progress, nor is a session
// that the server has not confirmed to be over.
func TestProgressIsWhatTheHostDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Options{})
		c := e.admit(3)
		for range 3 {
			<-e.queue(t.Context(), session)
		}
		at := func() time.Time {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.progress
		}
		connected := at()
		<-time.After(time.Second)
		e.mu.Lock()
		c.drop()
		e.mu.Unlock()
		if at() != connected {
			t.Error("a session of which the server knows nothing counts")
		}
		c.release()
		if at() == connected {
			t.Error("a session that is over does not count")
		}
		before := at()
		<-time.After(time.Second)
		close(c.done)
		c.release()
		if at() != before {
			t.Error("a dead connection counts")
		}
	})
}

// A new connection on which nothing can be opened turns those away for whom
// others are of use only when there is no progress elsewhere either: its login is
// none, and is repeated with growing pauses.
func TestUselessConnections(t *testing.T) {
	for name, end := range map[string]func(e *endpoint, c *conn) *fault.Error{
		fault.ReasonConnectionLost: func(e *endpoint, c *conn) *fault.Error {
			close(c.done)
			return e.broke(c, session, nil)
		},
		fault.ReasonChannelRefused: func(e *endpoint, c *conn) *fault.Error {
			defer close(c.done)
			return e.refused(c, &ssh.OpenChannelError{Reason: ssh.ConnectionFailed})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, Options{SessionsPerConn: 1})
				e.admit(1)
				<-e.queue(t.Context(), session)
				const between = 1100 * time.Millisecond
				begun := time.Now()
				me := newWaiter(session, begun)
				var err error
				for n := 0; err == nil; n++ {
					c := e.bare()
					time.AfterFunc(between, func() {
						e.mu.Lock()
						defer e.mu.Unlock()
						e.connected(c)
					})
					if _, err = e.acquire(t.Context(), me); err != nil {
						break
					}
					if f := end(e, c); f != nil {
						t.Fatalf("it should try another one: %v", f)
					}
					e.remove(c)
					if e.failures != n+1 {
						t.Errorf("%d failures are counted after %d", e.failures, n+1)
					}
				}
				// The first of the logins has counted: it might have been of use.
				if f := fault.From(err); f.Reason != name || time.Since(begun) != patient+between {
					t.Errorf("after %v: %v", time.Since(begun), f)
				}
				e.opened(e.admit(1))
				e.mu.Lock()
				defer e.mu.Unlock()
				if e.failures != 0 || e.unproven || e.progress != time.Now() {
					t.Errorf("failures %d, unproven %t, progress %v", e.failures, e.unproven, e.progress)
				}
			})
		})
	}
}

// Tens of thousands in line cost each of them the same as ten.
func BenchmarkLine(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(map[int]string{10: "ten", 10_000: "ten thousand"}[n], func(b *testing.B) {
			p := New(Options{})
			defer p.Close()
			e := &endpoint{pool: p, host: inventory.Host{ConnectTimeout: time.Minute}}
			c := e.bare()
			c.limit, c.sessions = 1, 1
			var arrived time.Time
			for range n {
				e.line.join(newWaiter(session, arrived))
			}
			b.ReportAllocs()
			for b.Loop() {
				arrived = arrived.Add(1)
				w := newWaiter(session, arrived)
				e.mu.Lock()
				e.line.join(w)
				e.lookAgain(e.patience(w))
				e.mu.Unlock()
				c.release()
			}
			e.shutdown()
		})
	}
}
