// Package sshconn makes and keeps live SSH connections.
//
//	pool := sshconn.New(sshconn.Options{Logger: log})
//	defer pool.Close()
//	channel, err := pool.Open(ctx, host) // an inventory.Host
//	if err != nil { … } // a *fault.Error: HOST_KEY_CHANGED, CONNECT_TIMEOUT, …
//	defer channel.Close()
//
// Open gives a session channel on some connection to the host, the first half of
// running something: what is sent on it is the business of others. The pool makes
// connections when they are needed (TCP or jump hosts, host key, login), lets
// many channels share one, and closes those that nobody has used for a while.
//
// What a caller need not know: a server that refuses a channel has reached its
// MaxSessions, so another connection is used; a server that drops a new
// connection has reached its MaxStartups, so it is tried again; a connection that
// died while it was idle is replaced; one that does not answer is raced against
// another after a second. What a caller gets told, without holding up other
// hosts: that the host cannot be reached, is not the host it was, or does not let
// us in. After a failure a host is left alone for a moment, and all who wait for
// it share the answer.
//
// The host's ConnectTimeout is for what the host does: a login, the opening of a
// channel. Who stands in line behind a thousand others waits for these, and for
// as long as the host serves them. It is when the host has done nothing for its
// ConnectTimeout, neither let us in nor opened nor ended a session, that all in
// line are told so.
//
// The files, from the outside in: pool.go and channel.go are what callers see;
// endpoint.go holds the connections of one host, line.go those who wait for one;
// race.go leaves a connection that does not answer for another;
// conn.go is one connection, kept alive and watched; dial.go makes it; auth.go,
// hostkey.go and knownhosts.go decide who is on which side; faults.go says what
// went wrong.
//
// It is a large room, because these parts share one thing, the handshake, and
// have no meaning without it: a failure is explained from what was tried, what
// the server showed and how far it came. Two doors lead into it, Pool and Channel.
package sshconn

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// The defaults of Options, and of a Host without a ConnectTimeout.
const (
	DefaultIdleTimeout       = 5 * time.Minute
	DefaultSessionsPerConn   = 8 // sshd's MaxSessions is 10, and closing channels still count
	DefaultHandshakesPerHost = 5 // sshd's MaxStartups is 10:30:100
	defaultConnectTimeout    = 15 * time.Second
)

// Options of a pool. The zero value has the defaults.
type Options struct {
	Logger            *slog.Logger  // failures at warn, connections at debug; nil: none
	IdleTimeout       time.Duration // how long an unused connection is kept
	SessionsPerConn   int           // channels on a connection until another one is opened
	HandshakesPerHost int           // handshakes under way at once for one host
}

// Pool holds the connections to all hosts. All methods may be called from any
// goroutine.
type Pool struct {
	log        *slog.Logger
	idle       time.Duration
	sessions   int
	handshakes int

	// life ends at Close. Handshakes run under it and not under a call's context:
	// they serve all who wait, and go on when the first of them leaves.
	life context.Context
	end  context.CancelFunc

	gate    sync.RWMutex // closed is read under RLock while a goroutine is added
	closed  bool
	running sync.WaitGroup // all goroutines of the pool

	mu      sync.RWMutex
	hosts   map[string][]*endpoint // by Host.Name; several where definitions differ
	count   int                    // endpoints in hosts
	sweepAt int                    // count at which unused endpoints are looked for
}

// New makes an empty pool.
func New(opt Options) *Pool {
	p := &Pool{
		log:        opt.Logger,
		idle:       opt.IdleTimeout,
		sessions:   opt.SessionsPerConn,
		handshakes: opt.HandshakesPerHost,
		hosts:      make(map[string][]*endpoint),
		sweepAt:    firstSweep,
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.idle <= 0 {
		p.idle = DefaultIdleTimeout
	}
	if p.sessions <= 0 {
		p.sessions = DefaultSessionsPerConn
	}
	if p.handshakes <= 0 {
		p.handshakes = DefaultHandshakesPerHost
	}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

// hold makes Close wait until the caller calls running.Done; false when the pool
// is closed.
func (p *Pool) hold() bool {
	p.gate.RLock()
	defer p.gate.RUnlock()
	if p.closed {
		return false
	}
	p.running.Add(1)
	return true
}

// spawn runs f in a goroutine that Close waits for; false when the pool is closed.
func (p *Pool) spawn(f func()) bool {
	if !p.hold() {
		return false
	}
	go func() {
		defer p.running.Done()
		f()
	}()
	return true
}

// Close breaks all connections, fails all who wait, and returns when every
// goroutine of the pool has ended. It may be called twice.
func (p *Pool) Close() {
	p.gate.Lock()
	p.closed = true
	p.gate.Unlock()
	p.end()
	p.mu.RLock()
	for _, endpoints := range p.hosts {
		for _, e := range endpoints {
			e.shutdown()
		}
	}
	p.mu.RUnlock()
	p.running.Wait()
}

// Open opens a session channel to host. The error is a *fault.Error with the
// metadata host and address. The caller must close the channel.
//
// Where many ask at once they are served in the order of their calls, and wait as
// long as the host makes progress: it lets us in, opens sessions, or closes what
// has ended. What it does for one it will do for the next; only ctx limits that.
// When it has done nothing of it for host.ConnectTimeout, whatever the network
// does meanwhile, the error says how far the last attempt came.
func (p *Pool) Open(ctx context.Context, host inventory.Host) (*Channel, error) {
	return p.open(ctx, host, session)
}

// OpenFirst is Open for what controls something that runs already: a cancel, a
// signal, input. It goes before all who wait in Open, and where every connection
// is full it may take one session more on one, which Open leaves alone.
func (p *Pool) OpenFirst(ctx context.Context, host inventory.Host) (*Channel, error) {
	return p.open(ctx, host, control)
}

func (p *Pool) open(ctx context.Context, host inventory.Host, want place) (*Channel, error) {
	e, err := p.endpoint(host)
	if err != nil {
		return nil, err
	}
	arrived := time.Now()
	return overtake(ctx, p, func(ctx context.Context, slow func()) (*Channel, error) {
		want := want
		if slow == nil && want == session {
			want = second
		}
		return e.open(ctx, newWaiter(want, arrived), slow)
	}, func(c *Channel) { c.Close() })
}

// open opens a session on one connection after the other, until one takes it.
func (e *endpoint) open(ctx context.Context, me *waiter, slow func()) (*Channel, error) {
	for {
		c, err := e.acquire(ctx, me)
		if err != nil {
			return nil, err
		}
		channel, requests, err := c.openSession(ctx, me.heard, slow)
		if err == nil {
			e.opened(c)
			return &Channel{Channel: channel, requests: requests, conn: c}, nil
		}
		if late, ok := errors.AsType[errLate](err); ok {
			switch {
			case !errors.Is(late, errLimit):
				return nil, aboutHost(fault.From(ctx.Err()), e.host)
			case e.givenUp(me):
				return nil, timeoutFault(err, e.host, connectLimit(e.host), "we are logged in, but no session is opened")
			}
			continue // only this connection is silent: to the line, where it stood
		}
		var f *fault.Error
		if refusal, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
			f = e.refused(c, refusal)
		} else {
			f = e.broke(c, me.place, err)
		}
		if f != nil {
			return nil, f
		}
	}
}

// CheckResult is what Check found out.
type CheckResult struct {
	ServerVersion      string        // as the server calls itself: SSH-2.0-OpenSSH_9.2p1
	HostKeyFingerprint string        // SHA256:…
	Duration           time.Duration // from the dial to an open session
}

// Check connects to host anew, logs in, opens a session and leaves again, within
// host.ConnectTimeout. Errors are those of Open.
func (p *Pool) Check(ctx context.Context, host inventory.Host) (CheckResult, error) {
	e, err := p.endpoint(host)
	if err != nil {
		return CheckResult{}, err
	}
	if !p.hold() {
		return CheckResult{}, closedFault(host)
	}
	defer p.running.Done()
	ctx, cancel := context.WithTimeoutCause(ctx, connectLimit(host), errLimit)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	started := time.Now()
	c, err := e.dial(ctx)
	if err != nil {
		return CheckResult{}, e.checked(ctx, fault.From(err), started)
	}
	defer func() {
		c.close(errIdle)
		<-c.done
	}()
	e.mu.Lock()
	c.sessions, c.retired = 1, true // it is nobody else's
	e.mu.Unlock()
	channel, requests, err := c.openChannel(ctx, request{kind: "session"})
	if err != nil {
		return CheckResult{}, e.checked(ctx, checkFault(err, host), started)
	}
	channel.Close()
	p.spawn(func() { ssh.DiscardRequests(requests) }) // until the connection is closed, which is now
	e.checked(ctx, nil, started)
	return CheckResult{
		ServerVersion:      string(c.ssh.ServerVersion()),
		HostKeyFingerprint: c.fingerprint,
		Duration:           time.Since(started),
	}, nil
}

// checkFault tells why a new connection opens no session.
func checkFault(err error, host inventory.Host) *fault.Error {
	if refusal, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return channelFault(refusal, host)
	}
	if errors.Is(err, errLimit) {
		return timeoutFault(err, host, connectLimit(host), "we are logged in, but no session is opened")
	}
	if late, ok := errors.AsType[errLate](err); ok {
		return aboutHost(fault.From(late.cause), host)
	}
	return lostFault(err, host)
}

// checked notes the outcome of a Check under ctx; f nil: it is well. It returns f.
func (e *endpoint) checked(ctx context.Context, f *fault.Error, begun time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f == nil {
		e.succeeded()
		e.dialMore() // who waits for the end of a backoff need not wait longer
		return nil
	}
	if !left(ctx) { // else it says nothing about the host
		e.note(f, begun)
	}
	return clone(f)
}

// Stats tells about the connections to one host.
type Stats struct {
	Connections     int          // live now
	LastConnected   time.Time    // when a login last succeeded; zero: never
	LastFailure     *fault.Error // the last failure to connect; nil: none. It must not be changed
	LastFailureTime time.Time
}

// Stats tells about the connections to the host with this name.
func (p *Pool) Stats(hostName string) Stats {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var s Stats
	for _, e := range p.hosts[hostName] {
		e.mu.Lock()
		s.Connections += len(e.conns)
		if e.lastConnected.After(s.LastConnected) {
			s.LastConnected = e.lastConnected
		}
		if e.failure != nil && e.failedAt.After(s.LastFailureTime) {
			s.LastFailure, s.LastFailureTime = e.failure, e.failedAt
		}
		e.mu.Unlock()
	}
	return s
}

// endpoint gives the endpoint of a host, with those of its jump hosts.
func (p *Pool) endpoint(host inventory.Host) (*endpoint, error) {
	if len(host.Via) > inventory.MaxJumps {
		return nil, aboutHost(fault.New(fault.FailedPrecondition, fault.ReasonJumpFailed,
			"%s has %d jump hosts, at most %d are possible", subject(host), len(host.Via), inventory.MaxJumps).
			WithHint("Shorten proxy_jump"), host)
	}
	p.mu.RLock()
	e := p.find(&host)
	p.mu.RUnlock()
	if e == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		e = p.make(host)
	}
	return e, nil
}

// find gives the endpoint with exactly this definition. Called with the lock.
func (p *Pool) find(host *inventory.Host) *endpoint {
	for _, e := range p.hosts[host.Name] {
		if sameHost(&e.host, host) {
			e.lastUsed.Store(time.Now().UnixNano())
			return e
		}
	}
	return nil
}

// make gives the endpoint of a host, new if there is none. Called with the
// write lock.
func (p *Pool) make(host inventory.Host) *endpoint {
	if e := p.find(&host); e != nil {
		return e
	}
	e := &endpoint{pool: p, host: host, width: p.handshakes}
	e.lastUsed.Store(time.Now().UnixNano())
	p.gate.RLock()
	e.shut = p.closed
	p.gate.RUnlock()
	if n := len(host.Via); n > 0 {
		hop := host.Via[n-1]
		hop.Via = host.Via[:n-1]
		e.via = p.make(hop)
		e.via.children++
	}
	if p.count >= p.sweepAt {
		p.sweep(time.Now().Add(-forgetAfter))
		p.sweepAt = max(firstSweep, 2*p.count)
	}
	p.hosts[host.Name] = append(p.hosts[host.Name], e)
	p.count++
	return e
}

// When endpoints are forgotten: those of hosts that nobody has used for so long,
// looked for when there are many, and again when they have doubled.
const (
	firstSweep  = 256
	forgetAfter = time.Hour
)

// sweep forgets the endpoints that nobody has used since t. Called with the
// write lock.
func (p *Pool) sweep(t time.Time) {
	for name, endpoints := range p.hosts {
		kept := slices.DeleteFunc(endpoints, func(e *endpoint) bool {
			if e.children > 0 || !e.unused(t) {
				return false
			}
			if e.via != nil {
				e.via.children--
			}
			p.count--
			return true
		})
		if len(kept) == 0 {
			delete(p.hosts, name)
		} else {
			p.hosts[name] = kept
		}
	}
}

// sameHost reports whether a connection made for a serves b: all that matters
// for it is the same.
func sameHost(a, b *inventory.Host) bool {
	same := a.Name == b.Name && a.Address == b.Address && a.User == b.User &&
		a.IdentitiesOnly == b.IdentitiesOnly && a.Agent == b.Agent &&
		a.Passphrase == b.Passphrase && a.Password == b.Password &&
		a.HostKeyAlias == b.HostKeyAlias && a.HostKeyPolicy == b.HostKeyPolicy &&
		a.ConnectTimeout == b.ConnectTimeout &&
		a.KeepaliveInterval == b.KeepaliveInterval && a.KeepaliveMax == b.KeepaliveMax &&
		len(a.Via) == len(b.Via) &&
		slices.Equal(a.IdentityFiles, b.IdentityFiles) &&
		slices.Equal(a.CertificateFiles, b.CertificateFiles) &&
		slices.Equal(a.KnownHostsFiles, b.KnownHostsFiles)
	if !same {
		return false
	}
	for i := range a.Via {
		if !sameHost(&a.Via[i], &b.Via[i]) {
			return false
		}
	}
	return true
}
