package sshconn

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// wire is one end of a stream in memory that holds what nobody has read yet, as
// a network does: an SSH handshake begins with a write on both sides.
type wire struct {
	net.Conn // nil: nothing else is called
	in, out  *half
}

type half struct {
	mu     sync.Mutex
	change *sync.Cond
	held   bytes.Buffer
	closed bool
}

func newWire() (a, b *wire) {
	one, two := new(half), new(half)
	one.change, two.change = sync.NewCond(&one.mu), sync.NewCond(&two.mu)
	return &wire{in: one, out: two}, &wire{in: two, out: one}
}

func (w *wire) Read(p []byte) (int, error) {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	for w.in.held.Len() == 0 && !w.in.closed {
		w.in.change.Wait()
	}
	if w.in.closed {
		return 0, io.EOF
	}
	return w.in.held.Read(p)
}

func (w *wire) Write(p []byte) (int, error) {
	w.out.mu.Lock()
	defer w.out.mu.Unlock()
	if w.out.closed {
		return 0, io.ErrClosedPipe
	}
	w.out.change.Broadcast()
	return w.out.held.Write(p)
}

func (w *wire) Close() error {
	for _, h := range []*half{w.in, w.out} {
		h.mu.Lock()
		h.closed = true
		h.change.Broadcast()
		h.mu.Unlock()
	}
	return nil
}

func (w *wire) RemoteAddr() net.Addr { return hopAddr("in memory") }
func (w *wire) LocalAddr() net.Addr  { return hopAddr("in memory") }

// logIn logs in to an SSH server of this process, which takes its time to open
// a channel and meanwhile says something each so often, or never for 0.
func (e *endpoint) logIn(t *testing.T, takes, each time.Duration) *conn {
	t.Helper()
	return e.logInTo(t, server{takes: takes, each: each})
}

// server is how an SSH server of this process behaves.
type server struct {
	takes time.Duration // until it opens a channel
	each  time.Duration // it says something so often; 0: never
	says  int           // so many times; 0: to the end
	mute  bool          // it answers no keepalive
}

func (e *endpoint) logInTo(t *testing.T, s server) *conn {
	t.Helper()
	near, far := newWire()
	config := &ssh.ServerConfig{NoClientAuth: true}
	_, hostKey := sshtest.NewKey(t, t.TempDir(), "host")
	config.AddHostKey(hostKey)
	var serving sync.WaitGroup
	serving.Go(func() {
		peer, channels, requests, err := ssh.NewServerConn(far, config)
		if err != nil {
			t.Error(err)
			return
		}
		serving.Go(func() {
			if !s.mute {
				ssh.DiscardRequests(requests)
			}
			for range requests {
			}
		})
		over := make(chan struct{})
		if s.each > 0 {
			serving.Go(func() {
				for n := 0; s.says == 0 || n < s.says; n++ {
					select {
					case <-time.After(s.each):
						peer.SendRequest("how-are-you@example.com", false, nil)
					case <-over:
						return
					}
				}
			})
		}
		for offered := range channels {
			serving.Go(func() {
				select {
				case <-time.After(s.takes):
				case <-over:
				}
				if c, rest, err := offered.Accept(); err == nil {
					serving.Go(func() { ssh.DiscardRequests(rest) })
					serving.Go(func() { io.Copy(io.Discard, c); c.Close() })
				}
			})
		}
		close(over)
	})
	t.Cleanup(func() { near.Close(); serving.Wait() })
	wire := newLink(near)
	raw, channels, requests, err := ssh.NewClientConn(wire, "", &ssh.ClientConfig{HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{end: e, ssh: raw, link: wire, done: make(chan struct{}), idleSince: time.Now()}
	if !c.start(channels, requests) {
		t.Fatal("the pool is closed")
	}
	e.mu.Lock()
	e.connected(c)
	e.mu.Unlock()
	return c
}

// A server that is slower than its ConnectTimeout is waited for as long as it
// shows that it lives, and no longer.
func TestSlowChannel(t *testing.T) {
	for name, test := range map[string]struct {
		takes, each time.Duration
		want        time.Duration // until the channel is there; 0: it fails after patient
	}{
		"quick":                      {takes: time.Second / 2, want: time.Second / 2},
		"slow but alive":             {takes: 4 * patient, each: patient / 2, want: 4 * patient},
		"slow and silent":            {takes: 4 * patient},
		"silent in time":             {takes: patient - 1, want: patient - 1},
		"alive, but too rarely":      {takes: 4 * patient, each: patient + time.Second},
		"alive to the end of a call": {takes: time.Hour, each: time.Second, want: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, Options{})
				c := e.logIn(t, test.takes, test.each)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begun := time.Now()
				channel, err := e.pool.Open(ctx, e.host)
				took := time.Since(begun)
				switch {
				case test.want > 0:
					if err != nil || took != test.want {
						t.Errorf("after %v: %v", took, err)
					} else {
						channel.Close()
					}
				case test.want < 0:
					if f := fault.From(err); f.Reason != fault.ReasonCallDeadline || took != time.Minute {
						t.Errorf("after %v: %v", took, err)
					}
				default:
					if f := fault.From(err); f.Reason != fault.ReasonConnectTimeout || took != patient {
						t.Errorf("after %v: %v", took, err)
					}
				}
				c.link.Close()
				<-c.done
				synctest.Wait()
				e.mu.Lock()
				defer e.mu.Unlock()
				if c.sessions != 0 {
					t.Errorf("%d places are taken on a connection that has ended", c.sessions)
				}
			})
		})
	}
}

// Whatever the host says is a sign of life, also where its answers to keepalives
// do not come through; and when it says nothing more, that is noticed in time.
func TestBusyConnectionOutlivesItsKeepalives(t *testing.T) {
	for max, each := range map[int]time.Duration{
		0: patient - 1, 1: patient - 1,
		3: 2 * patient, // it has been asked, and is suspect, each time
	} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, Options{})
				e.host.KeepaliveInterval, e.host.KeepaliveMax = patient, max
				const says = 10
				begun := time.Now()
				c := e.logInTo(t, server{each: each, says: says, mute: true})
				<-c.done
				silence := patient
				if max > 1 {
					silence *= time.Duration(max)
				}
				if took, want := time.Since(begun), says*each+silence; took != want {
					t.Errorf("it ended after %v, want %v: %v", took, want, c.lost)
				}
				if c.lost.Reason != fault.ReasonConnectionLost || !strings.Contains(c.lost.Message, "did not answer") {
					t.Errorf("lost = %v", c.lost)
				}
			})
		})
	}
}

// Whom one connection has kept waiting in silence waits on for another one, before
// all who came later, as long as the host makes progress.
func TestSilentConnectionIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Options{SessionsPerConn: 1})
		e.logIn(t, time.Hour, 0)
		var first, later atomic.Int64 // seconds after which each was served
		var all sync.WaitGroup
		begun := time.Now()
		open := func(served *atomic.Int64) {
			all.Go(func() {
				c, err := e.pool.Open(t.Context(), e.host)
				if err != nil {
					t.Error(err)
					return
				}
				served.Store(int64(time.Since(begun) / time.Second))
				<-time.After(time.Second) // it runs something
				c.Close()
			})
			<-time.After(time.Millisecond)
		}
		open(&first)
		open(&later)
		for range 5 {
			<-time.After(patient / 2)
			e.mu.Lock()
			e.progress = time.Now()
			e.mu.Unlock()
		}
		e.logIn(t, 0, 0)
		all.Wait()
		if first.Load() != 12 || later.Load() != 13 {
			t.Errorf("the first was served after %d s, the other one after %d s, want 12 and 13", first.Load(), later.Load())
		}
	})
}

// Where the pool is closed meanwhile, a call ends.
func TestCloseWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Options{})
		e.logIn(t, time.Hour, time.Second)
		done := make(chan error, 1)
		go func() {
			_, err := e.pool.Open(t.Context(), e.host)
			done <- err
		}()
		<-time.After(2 * patient)
		e.pool.Close()
		if f := fault.From(<-done); f.Reason != fault.ReasonDraining {
			t.Errorf("error = %v", f)
		}
	})
}
