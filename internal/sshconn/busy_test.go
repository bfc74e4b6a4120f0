package sshconn

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// busy starts a server that lets in one connection and no other, on which there
// are two places: who comes then waits in line.
func busy(t *testing.T, maxSessions int) (s *sshtest.Server, p *Pool, h inventory.Host, held [2]*Channel) {
	t.Helper()
	s = sshtest.Start(t, sshtest.Options{MaxSessions: maxSessions})
	way := newProxy(t, s.Addr)
	h = s.Host("web1")
	h.Address, h.HostKeyAlias = way.address, knownName(s.Addr, "")
	h.ConnectTimeout, h.KeepaliveInterval = 3*time.Second, 0
	p = New(Options{SessionsPerConn: len(held)})
	t.Cleanup(p.Close)
	for i := range held {
		c, err := p.Open(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		held[i] = c
	}
	way.lead(true)
	return s, p, h, held
}

// runs runs a command on a channel to its end.
func runs(c *Channel, command string) error {
	if ok, err := c.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{command})); err != nil || !ok {
		return fmt.Errorf("exec = %t, %v", ok, err)
	}
	for range c.Requests() {
	}
	return nil
}

// inLine waits until so many stand in line.
func inLine(t *testing.T, p *Pool, h inventory.Host, want place, n int) {
	t.Helper()
	e, err := p.endpoint(h)
	if err != nil {
		t.Fatal(err)
	}
	await(t, fmt.Sprint(n, " are in line"), func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.line[want].Len() == n
	})
}

// Many more than there are places, for longer than ConnectTimeout, on a host that
// lets no other connection in: all have their turn, as they came.
func TestLineLastsAsLongAsPlacesComeFree(t *testing.T) {
	t.Parallel()
	_, p, h, held := busy(t, 10)
	const n = 12
	var all sync.WaitGroup
	served, leave := make(chan int), make(chan struct{}) // each sends and then receives once
	for i := range n {
		all.Go(func() {
			c, err := p.Open(t.Context(), h)
			served <- i
			<-leave
			if err != nil {
				t.Errorf("%d: %v", i, err)
				return
			}
			defer c.Close()
			if err := runs(c, "true"); err != nil {
				t.Error(err)
			}
		})
		inLine(t, p, h, session, i+1)
	}
	begun := time.Now()
	held[0].Close()
	held[1].Close()
	var order []int
	for len(order) < n {
		// Two are served at once, and say so in any order.
		pair := []int{<-served, <-served}
		slices.Sort(pair)
		order = append(order, pair...)
		if len(order) < n {
			<-time.After(h.ConnectTimeout / 4)
		}
		leave <- struct{}{}
		leave <- struct{}{}
	}
	if took := time.Since(begun); took < h.ConnectTimeout {
		t.Errorf("it took %v, less than the ConnectTimeout: the test shows nothing", took)
	}
	all.Wait()
	if !slices.IsSorted(order) {
		t.Errorf("served in the order %v", order)
	}
}

// When the host falls silent, all who stand in line are told in its time.
func TestLineIsToldOfADeadHost(t *testing.T) {
	t.Parallel()
	s, p, h, _ := busy(t, 10)
	var waiting []<-chan opened
	for range 50 {
		waiting = append(waiting, opening(t, p, h))
	}
	inLine(t, p, h, session, len(waiting))
	begun := time.Now() // nothing goes on behind it
	s.Pause()
	defer s.Resume()
	for _, result := range waiting {
		got := <-result
		if f := fault.From(got.err); f.Reason != fault.ReasonConnectTimeout {
			t.Fatalf("error = %v", got.err)
		}
	}
	if took := time.Since(begun); took > h.ConnectTimeout+5*time.Second {
		t.Errorf("the last was told after %v", took)
	}
}

// Whoever controls what runs does not stand behind those who want to run something.
func TestOpenFirst(t *testing.T) {
	_, p, h, held := busy(t, 10)
	var all sync.WaitGroup
	var mu sync.Mutex
	var order []string
	ask := func(name string, open func(context.Context, inventory.Host) (*Channel, error)) {
		all.Go(func() {
			c, err := open(t.Context(), h)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer c.Close()
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			if err := runs(c, "true"); err != nil {
				t.Error(err)
			}
		})
	}
	ask("start", p.Open)
	inLine(t, p, h, session, 1)
	// There is a place for it although the connection is full …
	first, err := p.OpenFirst(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	inLine(t, p, h, session, 1)
	// … and when that is taken as well, it is the next.
	ask("control", p.OpenFirst)
	inLine(t, p, h, control, 1)
	held[0].Close() // there are two again, and the third place is for control
	await(t, "it is served", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(order) == 1
	})
	first.Close()
	held[1].Close()
	all.Wait()
	if !slices.Equal(order, []string{"control", "start"}) {
		t.Errorf("served in the order %q", order)
	}
}

// A server that has no place to spare is no trouble: it says so once.
func TestOpenFirstOnAFullServer(t *testing.T) {
	_, p, h, held := busy(t, 2)
	result := make(chan error, 1)
	go func() {
		c, err := p.OpenFirst(t.Context(), h)
		if err == nil {
			c.Close()
		}
		result <- err
	}()
	inLine(t, p, h, control, 1)
	held[0].Close()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if err := runs(held[1], "true"); err != nil {
		t.Errorf("what ran before: %v", err)
	}
}

// Hundreds at once, each with a session that it keeps: all are served, on no more
// connections than it takes.
func TestHundredsThatStay(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := New(Options{HandshakesPerHost: 1}) // a long line, soon
	defer p.Close()
	h := s.Host("web1")
	const n = 400
	began := time.Now()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := p.Open(t.Context(), h); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got := p.Stats(h.Name).Connections
	t.Logf("%d sessions on %d connections after %v", n, got, time.Since(began).Round(time.Millisecond))
	if most := n/DefaultSessionsPerConn + 10; got > most {
		t.Errorf("%d connections, want at most %d", got, most)
	}
}
