package sshconn_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// chain starts n jump servers.
func chain(t *testing.T, n int) (servers []*sshtest.Server, via []inventory.Host) {
	t.Helper()
	for i := range n {
		s := sshtest.Start(t, sshtest.Options{})
		servers = append(servers, s)
		via = append(via, s.Host(fmt.Sprintf("hop%d", i+1)))
	}
	return servers, via
}

func TestJumpChains(t *testing.T) {
	hops, via := chain(t, 5)
	target := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	for _, n := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := newPool(t, sshconn.Options{})
			h := target.Host("web1")
			h.Via, h.ConnectTimeout = via[:n], 20*time.Second
			c := open(t, p, h)
			if got := mustRun(t, c, "id -un"); got != target.User {
				t.Errorf("logged in as %q, want %q", got, target.User)
			}
			for i := range 5 {
				want := 0
				if i < n {
					want = 1
				}
				if got := hops[i].Sessions(); got != want {
					t.Errorf("hop %d has %d connections, want %d", i+1, got, want)
				}
			}
			if got, err := p.Check(t.Context(), h); err != nil || !strings.HasPrefix(got.ServerVersion, "SSH-2.0-") {
				t.Errorf("Check = %+v, %v", got, err)
			}
			p.Close()
		})
		for i, hop := range hops {
			hop.Stop()
			hop.Restart()
			via[i] = hop.Host(via[i].Name)
		}
	}
	h := target.Host("web1")
	h.Via = append(via, via[0])
	_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
	wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonJumpFailed)
}

func TestHostsShareTheirJumpConnection(t *testing.T) {
	hops, via := chain(t, 1)
	one, two := sshtest.Start(t, sshtest.Options{}), sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{IdleTimeout: 200 * time.Millisecond})
	var all sync.WaitGroup
	var channels [2]*sshconn.Channel
	for i, s := range []*sshtest.Server{one, two} {
		h := s.Host(fmt.Sprintf("web%d", i+1))
		h.Via, h.KeepaliveInterval = via, 0
		all.Go(func() { channels[i], _ = p.Open(t.Context(), h) })
	}
	all.Wait()
	for i, c := range channels {
		if c == nil {
			t.Fatalf("channel %d was not opened", i)
		}
	}
	if n := hops[0].Sessions(); n != 1 {
		t.Errorf("the jump host has %d connections, want 1", n)
	}
	// It stays as long as one of them needs it.
	channels[0].Close()
	waitDone(t, channels[0], 5*time.Second)
	mustRun(t, channels[1], "true")
	channels[1].Close()
	waitDone(t, channels[1], 5*time.Second)
}

func TestLostJumpHostEndsWhatGoesThroughIt(t *testing.T) {
	hops, via := chain(t, 1)
	target := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	h := target.Host("web1")
	h.Via = via
	c := open(t, p, h)
	hops[0].KillSessions()
	waitDone(t, c, 5*time.Second)
	wantFault(t, c.Err(), h, fault.Unavailable, fault.ReasonConnectionLost)
	mustRun(t, open(t, p, h), "true")
}

func TestJumpFails(t *testing.T) {
	_, via := chain(t, 3)
	target := sshtest.Start(t, sshtest.Options{})
	noForward := sshtest.Start(t, sshtest.Options{ExtraConfig: []string{"AllowTcpForwarding no"}})
	stranger, _ := sshtest.NewKey(t, t.TempDir(), "stranger")

	edit := func(i int, f func(*inventory.Host)) []inventory.Host {
		hops := append([]inventory.Host(nil), via...)
		f(&hops[i])
		return hops
	}
	for name, test := range map[string]struct {
		via     []inventory.Host
		address string
		hop     string
		kind    fault.Kind
		reason  string
	}{
		"first hop refuses": {
			via: edit(0, func(h *inventory.Host) { h.Address = sshtest.ClosedPort(t) }),
			hop: "hop1", kind: fault.Unavailable, reason: fault.ReasonConnectionRefused,
		},
		"key of the second hop unknown": {
			via: edit(1, func(h *inventory.Host) { h.KnownHostsFiles = nil }),
			hop: "hop2", kind: fault.FailedPrecondition, reason: fault.ReasonHostKeyUnknown,
		},
		"login to the last hop": {
			via: edit(2, func(h *inventory.Host) { h.IdentityFiles = []string{stranger} }),
			hop: "hop3", kind: fault.FailedPrecondition, reason: fault.ReasonAuthFailed,
		},
		"second hop refuses": {
			via: edit(1, func(h *inventory.Host) { h.Address = sshtest.ClosedPort(t) }),
			hop: "hop1", kind: fault.Unavailable, reason: fault.ReasonConnectionRefused,
		},
		"no forwarding": {
			via: []inventory.Host{noForward.Host("closed")},
			hop: "closed", kind: fault.FailedPrecondition, reason: fault.ReasonChannelRefused,
		},
		"target refuses": {
			via: via[:1], address: sshtest.ClosedPort(t),
			hop: "hop1", kind: fault.Unavailable, reason: fault.ReasonConnectionRefused,
		},
		"target unknown to the hop": {
			via: via[:1], address: "no-such-host.invalid:22",
			hop: "hop1", kind: fault.Unavailable, reason: fault.ReasonHostUnreachable,
		},
		"target without a port": {
			via: via[:1], address: "no-port",
			hop: "hop1", kind: fault.Unavailable, reason: fault.ReasonHostUnreachable,
		},
		"target with a bad port": {
			via: via[:1], address: "host:ssh",
			hop: "hop1", kind: fault.Unavailable, reason: fault.ReasonHostUnreachable,
		},
		"first hop is a black hole": {
			via: edit(0, func(h *inventory.Host) { h.Address, h.ConnectTimeout = sshtest.BlackHole(t), 300*time.Millisecond }),
			hop: "hop1", kind: fault.Unavailable, reason: fault.ReasonConnectTimeout,
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := target.Host("web1")
			h.Via = test.via
			if test.address != "" {
				h.Address = test.address
			}
			_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
			f := wantFault(t, err, h, test.kind, fault.ReasonJumpFailed)
			if f.Metadata["jump"] != test.hop || f.Metadata["jump_reason"] != test.reason {
				t.Errorf("jump = %s %s, want %s %s: %s", f.Metadata["jump"], f.Metadata["jump_reason"], test.hop, test.reason, f.Message)
			}
			if !strings.Contains(f.Message, test.hop) || strings.Count(f.Message, "jump host") != 1 {
				t.Errorf("message = %q", f.Message)
			}
		})
	}
}

func TestBlackHoleBehindAJumpHost(t *testing.T) {
	t.Parallel()
	_, via := chain(t, 1)
	p := newPool(t, sshconn.Options{})
	open(t, p, via[0]) // whose own login does not count
	h := sshtest.Start(t, sshtest.Options{}).Host("web1")
	h.Via, h.Address, h.ConnectTimeout = via, sshtest.BlackHole(t), 4*time.Second
	within(t, 8*time.Second, func() {
		_, err := p.Open(t.Context(), h)
		wantFault(t, err, h, fault.Unavailable, fault.ReasonConnectTimeout)
	})
}

func TestSilentJumpHost(t *testing.T) {
	t.Parallel()
	hops, via := chain(t, 1)
	target := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	open(t, p, via[0])
	h := target.Host("web1")
	h.Via, h.ConnectTimeout = via, 4*time.Second
	hops[0].Pause()
	within(t, 8*time.Second, func() {
		_, err := p.Open(t.Context(), h)
		wantFault(t, err, h, fault.Unavailable, fault.ReasonJumpFailed)
	})
	hops[0].Resume()
	mustRun(t, open(t, p, h), "true")
}
