package sshconn_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestBlackHole(t *testing.T) {
	t.Parallel()
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	hole := s.Host("hole")
	hole.Address = sshtest.BlackHole(t)
	hole.ConnectTimeout = 6 * time.Second
	var waiting sync.WaitGroup
	var told atomic.Int64
	for range 50 {
		waiting.Go(func() {
			within(t, 12*time.Second, func() {
				_, err := p.Open(t.Context(), hole)
				told.Add(1)
				wantFault(t, err, hole, fault.Unavailable, fault.ReasonConnectTimeout)
			})
		})
	}
	// Others are not held up meanwhile.
	mustRun(t, open(t, p, s.Host("web1")), "true")
	if n := told.Load(); n > 0 {
		t.Errorf("it ran when %d had waited to their end", n)
	}
	waiting.Wait()
}

func TestNoWayToTheHost(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	closed := s.Host("closed")
	closed.Address = sshtest.ClosedPort(t)
	within(t, time.Second, func() {
		_, err := p.Open(t.Context(), closed)
		if f := wantFault(t, err, closed, fault.Unavailable, fault.ReasonConnectionRefused); f.RetryAfter <= 0 {
			t.Error("it does not say when to try again")
		}
	})
	unknown := s.Host("unknown")
	unknown.Address = "no-such-host.invalid:22"
	_, err := p.Open(t.Context(), unknown)
	wantFault(t, err, unknown, fault.Unavailable, fault.ReasonHostUnreachable)
	bad := s.Host("bad")
	bad.Address = "127.0.0.1:99999"
	_, err = p.Open(t.Context(), bad)
	wantFault(t, err, bad, fault.Unavailable, fault.ReasonHostUnreachable)
}

// listen serves TCP connections with f until the end of the test, and counts them.
func listen(t *testing.T, f func(net.Conn)) (address string, count func() int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			running.Go(func() { f(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(conns)
	}
}

func TestNotAnSSHServer(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	h.Address, _ = listen(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		c.Close()
	})
	_, err := p.Open(t.Context(), h)
	if f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHandshakeFailed); !strings.Contains(f.Message, "HTTP/1.1 400") {
		t.Errorf("message = %q", f.Message)
	}
	h.Name = "old"
	h.Address, _ = listen(t, func(c net.Conn) {
		io.WriteString(c, "SSH-2.0-broken\r\n\x00\x00\x00\x05nonsense")
		io.Copy(io.Discard, c)
	})
	_, err = p.Open(t.Context(), h)
	wantFault(t, err, h, fault.Unavailable, fault.ReasonHandshakeFailed)
}

func TestServerThatAlwaysHangsUpIsNotHammered(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	h.ConnectTimeout = 1500 * time.Millisecond
	address, count := listen(t, func(c net.Conn) { c.Close() })
	h.Address = address
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			_, err := p.Open(t.Context(), h)
			f := wantFault(t, err, h, fault.Unavailable, fault.ReasonHandshakeFailed)
			if !strings.Contains(f.Hint, "MaxStartups") {
				t.Errorf("hint = %q", f.Hint)
			}
		})
	}
	all.Wait()
	if n := count(); n < 2 || n > 12 {
		t.Errorf("%d attempts for 100 callers in 1.5 s, want 2 to 12", n)
	}
}

func TestServerThatEndsAfterTheLogin(t *testing.T) {
	_, hostKey := sshtest.NewKey(t, t.TempDir(), "host")
	s := sshtest.Start(t, sshtest.Options{})
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(hostKey)
	address, count := listen(t, func(c net.Conn) {
		conn, _, _, err := ssh.NewServerConn(c, config)
		if err == nil {
			conn.Close()
		}
	})
	h := s.Host("web1")
	h.Address, h.HostKeyPolicy, h.KnownHostsFiles = address, inventory.AcceptNew, []string{t.TempDir() + "/known"}
	h.ConnectTimeout = time.Second
	p := newPool(t, sshconn.Options{})
	_, err := p.Open(t.Context(), h)
	wantFault(t, err, h, fault.Unavailable, fault.ReasonConnectionLost)
	if n := count(); n > 3 {
		t.Errorf("%d logins for one call", n)
	}
}

func TestNoCommonAlgorithm(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{ExtraConfig: []string{"Ciphers 3des-cbc"}})
	p := newPool(t, sshconn.Options{})
	h := s.Host("web1")
	_, err := p.Open(t.Context(), h)
	if f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHandshakeFailed); !strings.Contains(f.Message, "3des-cbc") {
		t.Errorf("message = %q", f.Message)
	}
}
