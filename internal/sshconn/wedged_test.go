package sshconn

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// proxy stands before a server and can hold what its clients send, one
// connection at a time: a wedged session of a server that is well.
type proxy struct {
	address string

	mu    sync.Mutex
	gates []*sync.RWMutex // of each connection, in the order they came; locked: nothing passes
	deaf  bool            // later connections lead nowhere
}

func newProxy(t *testing.T, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: l.Addr().String()}
	var running sync.WaitGroup
	var open []net.Conn
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				break
			}
			gate := new(sync.RWMutex)
			p.mu.Lock()
			p.gates = append(p.gates, gate)
			deaf := p.deaf
			p.mu.Unlock()
			open = append(open, client)
			if deaf {
				continue
			}
			to, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			open = append(open, to)
			running.Go(func() { io.Copy(client, to); client.Close() })
			running.Go(func() {
				defer to.Close()
				for b := make([]byte, 32<<10); ; {
					n, err := client.Read(b)
					if err != nil {
						return
					}
					gate.RLock()
					_, err = to.Write(b[:n])
					gate.RUnlock()
					if err != nil {
						return
					}
				}
			})
		}
		for _, c := range open {
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return p
}

// hold stops the first connection until release, which may be called twice.
func (p *proxy) hold(t *testing.T) (release func()) {
	p.mu.Lock()
	gate := p.gates[0]
	p.mu.Unlock()
	gate.Lock()
	release = sync.OnceFunc(gate.Unlock)
	t.Cleanup(release)
	return release
}

func (p *proxy) lead(nowhere bool) {
	p.mu.Lock()
	p.deaf = nowhere
	p.mu.Unlock()
}

func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.gates)
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !so(); runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

type opened struct {
	channel *Channel
	err     error
	took    time.Duration
}

// opening opens a channel in the background.
func opening(t *testing.T, p *Pool, h inventory.Host) <-chan opened {
	result := make(chan opened, 1)
	go func() {
		begun := time.Now()
		c, err := p.Open(t.Context(), h)
		result <- opened{c, err, time.Since(begun)}
	}()
	return result
}

// wedge starts a server with one connection to it, which is held.
func wedge(t *testing.T) (p *Pool, h inventory.Host, way *proxy, first *Channel) {
	t.Helper()
	s := sshtest.Start(t, sshtest.Options{})
	way = newProxy(t, s.Addr)
	h = s.Host("web1")
	h.Address, h.HostKeyAlias = way.address, knownName(s.Addr, "")
	h.ConnectTimeout, h.KeepaliveInterval = 8*time.Second, 0
	p = New(Options{})
	t.Cleanup(p.Close)
	first, err := p.Open(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	return p, h, way, first
}

// A wedged connection of a host that is well costs an Open a second.
func TestWedgedConnectionIsOvertaken(t *testing.T) {
	p, h, way, first := wedge(t)
	release := way.hold(t)
	got := <-opening(t, p, h)
	if got.err != nil {
		t.Fatal(got.err)
	}
	defer got.channel.Close()
	if got.channel.conn == first.conn || got.took > h.ConnectTimeout {
		t.Errorf("on the same connection %t, after %s", got.channel.conn == first.conn, got.took)
	}
	// The next one does not even ask there.
	asked := func() int {
		e := first.conn.end
		e.mu.Lock()
		defer e.mu.Unlock()
		return first.conn.sessions
	}
	before := asked()
	if next := <-opening(t, p, h); next.err != nil || next.channel.conn == first.conn || asked() != before {
		t.Errorf("the next one: %v; the first connection has %d places taken, before it %d", next.err, asked(), before)
	}
	// The channel that comes late gives its place back, and the connection is used again.
	release()
	await(t, "the first connection has only its own session", func() bool {
		e := first.conn.end
		e.mu.Lock()
		defer e.mu.Unlock()
		return first.conn.sessions == 1 && !first.conn.suspect.Load()
	})
}

// A server that is slow and takes no new connections is waited for.
func TestSlowServerIsWaitedFor(t *testing.T) {
	p, h, way, first := wedge(t)
	release := way.hold(t)
	way.lead(true)
	result := opening(t, p, h)
	await(t, "another connection is tried", func() bool { return way.connections() == 2 })
	release()
	if got := <-result; got.err != nil || got.channel.conn != first.conn || got.took > h.ConnectTimeout/2 {
		t.Errorf("%v after %s", got.err, got.took)
	}
}

// Who stands in line for a handshake is served by the connection that answers again.
func TestLineIsServedWhenTheServerAnswers(t *testing.T) {
	p, h, way, first := wedge(t)
	release := way.hold(t)
	way.lead(true)
	racing := opening(t, p, h)
	await(t, "another connection is tried", func() bool { return way.connections() == 2 })
	waiting := opening(t, p, h)
	e := first.conn.end
	await(t, "both are in line", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.line[session].Len() == 1 && e.line[second].Len() == 1
	})
	release()
	for _, result := range []<-chan opened{racing, waiting} {
		if got := <-result; got.err != nil || got.channel.conn != first.conn || got.took > h.ConnectTimeout/2 {
			t.Errorf("%v after %s", got.err, got.took)
		}
	}
}

// A handshake that fails leaves nobody in line for whom there is a place.
func TestFailedHandshakeServesTheLine(t *testing.T) {
	_, _, _, first := wedge(t)
	e := first.conn.end
	for _, kind := range []fault.Kind{fault.Unavailable, fault.FailedPrecondition} {
		me := newWaiter(session, time.Now())
		e.mu.Lock()
		e.line.join(me)
		e.failed(fault.New(kind, fault.ReasonHandshakeFailed, "this test"), time.Now())
		e.mu.Unlock()
		select {
		case g := <-me.ready:
			if g.c != first.conn {
				t.Errorf("it was given %v", g.err)
			}
		default:
			t.Error("it still waits")
		}
	}
}

// A wedged connection to a jump host does not stop what goes through it.
func TestWedgedJumpHostIsOvertaken(t *testing.T) {
	p, hop, way, first := wedge(t)
	h := sshtest.Start(t, sshtest.Options{}).Host("web2")
	h.Via, h.ConnectTimeout = []inventory.Host{hop}, 8*time.Second
	way.hold(t)
	got := <-opening(t, p, h)
	if got.err != nil {
		t.Fatal(got.err)
	}
	if parent := got.channel.conn.parent; parent == first.conn || got.took > h.ConnectTimeout {
		t.Errorf("through the same connection %t, after %s", parent == first.conn, got.took)
	}
}

// A handshake through a jump host that falls silent meanwhile ends at its time.
func TestJumpHostFallsSilentInAHandshake(t *testing.T) {
	p, hop, way, _ := wedge(t)
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	h := hop
	h.Name, h.Address, h.Via, h.ConnectTimeout = "web2", target.Addr().String(), []inventory.Host{hop}, time.Second
	checked := make(chan error, 1)
	go func() {
		_, err := p.Check(t.Context(), h)
		checked <- err
	}()
	stream, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	// Our version has come through: the stream is there, and the handshake waits.
	if _, err := stream.Read(make([]byte, len(clientVersion))); err != nil {
		t.Fatal(err)
	}
	way.hold(t)
	select {
	case err := <-checked:
		if f := fault.From(err); f.Reason != fault.ReasonConnectTimeout {
			t.Errorf("error = %v", err)
		}
	case <-time.After(4 * h.ConnectTimeout):
		t.Error("it goes on after its time")
	}
}

// A connection to a jump host that has ended, but is not yet known to, is replaced.
func TestJumpHostThatHasJustEndedIsReplaced(t *testing.T) {
	p, hop, _, first := wedge(t)
	h := sshtest.Start(t, sshtest.Options{}).Host("web2")
	h.Via = []inventory.Host{hop}
	first.Close()
	first.conn.link.Close()
	<-first.Done()
	// As it was in the moment before its end was noticed.
	e := first.conn.end
	dead := &conn{end: e, ssh: first.conn.ssh, link: first.conn.link, done: make(chan struct{}), limit: 1}
	dead.used.Store(true)
	e.mu.Lock()
	e.conns = append([]*conn{dead}, e.conns...)
	e.mu.Unlock()
	defer close(dead.done)
	if got := <-opening(t, p, h); got.err != nil {
		t.Error(got.err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if dead.forwards != 0 || !dead.retired {
		t.Errorf("it has %d streams, retired %t", dead.forwards, dead.retired)
	}
	e.conns = e.conns[1:]
}

// What a caller's own deadline ends is no failure of the host.
func TestCallersDeadlineIsNoFailureOfTheHost(t *testing.T) {
	p, hop, way, _ := wedge(t)
	hole := hop
	hole.Name, hole.Address = "hole", sshtest.BlackHole(t)
	behind := hole
	behind.Name, behind.Via = "behind", []inventory.Host{hop}
	wedged := hop
	wedged.Name = "wedged"
	wedged.Via = []inventory.Host{hop}
	for _, h := range []inventory.Host{hole, behind, wedged} {
		if h.Name == "wedged" {
			way.hold(t)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := p.Check(ctx, h)
		cancel()
		if f := fault.From(err); f.Reason != fault.ReasonCallDeadline || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", h.Name, err)
		}
		if s := p.Stats(h.Name); s.LastFailure != nil {
			t.Errorf("%s: noted as %v", h.Name, s.LastFailure)
		}
	}
}
