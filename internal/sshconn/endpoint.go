package sshconn

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// The backoff after failures: the first step, and the most.
const (
	backoffFirst = 200 * time.Millisecond
	backoffMost  = 5 * time.Second
)

// relearn is for how long a learned limit of channels is believed. Servers are
// changed, and a channel that is closing counts for a moment: without an end to
// it the limit would only ever go down.
const relearn = time.Minute

// endpoint is one definition of a host with its connections. Who needs one takes
// a place on a connection, or waits in line:
//
//	acquire ── free place ──▶ conn
//	   └────── line ◀── settle (a place came free) · connected · failed · lookAtLine
//
// The line is in line.go. Who stands in it stays there as long as the host makes
// progress, be there hundreds before him; see progress.
//
// Handshakes run in goroutines of their own, as many as the line needs, at most
// the limit. While it is not known whether the host lets us in, there is one at
// a time: two hundred waiting commands are no reason to try a wrong key twice.
type endpoint struct {
	pool *Pool
	host inventory.Host
	via  *endpoint // the last jump host; nil: none
	keys keyCache

	lastUsed atomic.Int64 // Unix nanoseconds; for the pool's sweep
	children int          // endpoints whose via this is; guarded by pool.mu

	mu      sync.Mutex
	conns   []*conn     // live ones, oldest first
	line    line        // those for whom there is no place
	dialing int         // handshakes under way
	retry   *time.Timer // runs dialMore when the backoff is over; nil: none set
	shut    bool        // the pool is closed

	progress time.Time   // when the host last let us in, opened a channel, or ended a session
	unproven bool        // nothing could be opened on the last new connection: a login says nothing
	look     *time.Timer // runs lookAtLine at lookAt; nil: never set
	lookAt   time.Time   // zero: look is not set

	width         int       // handshakes at once: halved when the server drops one, one more with each success
	failures      int       // since the last success
	notBefore     time.Time // no handshake begins before
	failure       *fault.Error
	failedAt      time.Time
	lastConnected time.Time
	learned       int // limit of channels on the last connection that refused one
	learnedAt     time.Time
}

// count adds to the places that are taken. Called with the lock.
func (c *conn) count(p place, n int) {
	if p == stream {
		c.forwards += n
	} else {
		c.sessions += n
	}
}

// fits reports whether the connection may take on a place. Called with the lock.
func (c *conn) fits(p place) bool {
	switch {
	case c.retired || c.suspect.Load() || !c.live():
		return false
	case p == stream:
		return true
	case p == control:
		return c.sessions < c.room()+c.spare()
	}
	return c.sessions < c.room()
}

// room is how many sessions the connection is given. Called with the lock.
func (c *conn) room() int {
	if plan := c.end.pool.sessions; c.limit < plan && time.Since(c.lowered) > relearn {
		c.limit = plan
	}
	return c.limit
}

// spare is how many sessions more it is given for control, where everything is
// taken by what runs: the plan stays below what servers allow. Not when this
// server has shown where its limit is. Called with the lock.
func (c *conn) spare() int {
	if c.end.learned > 0 && time.Since(c.end.learnedAt) < relearn {
		return 0
	}
	return 1
}

// settle is called with the lock when a place on c came free.
func (e *endpoint) settle(c *conn) {
	if c.sessions+c.forwards == 0 {
		c.idleSince = time.Now()
		if c.retired {
			c.close(errIdle)
		}
	}
	e.serve(c)
}

// dialMore begins the handshakes that the line needs. Called with the lock.
func (e *endpoint) dialMore() {
	if e.shut || e.line.empty() {
		return
	}
	plan := e.plan()
	need := max(1, (e.line.sessions(plan)+plan-1)/plan)
	allowed := e.width
	if e.failures > 0 || e.lastConnected.IsZero() {
		allowed = 1
	}
	begin := min(need, allowed) - e.dialing
	if begin <= 0 {
		return
	}
	if pause := time.Until(e.notBefore); pause > 0 {
		if e.retry == nil {
			e.retry = time.AfterFunc(pause, e.retryNow)
		}
		return
	}
	for range begin {
		e.dialing++
		if !e.pool.spawn(e.handshake) {
			e.dialing--
			e.refuse(closedFault(e.host))
			return
		}
	}
}

func (e *endpoint) retryNow() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retry = nil
	e.dialMore()
}

// plan is how many sessions a new connection is given. Called with the lock.
func (e *endpoint) plan() int {
	if e.learned > 0 && time.Since(e.learnedAt) < relearn {
		return min(e.learned, e.pool.sessions)
	}
	return e.pool.sessions
}

// handshake makes one connection and serves the line with the outcome.
func (e *endpoint) handshake() {
	// A little less than those who wait have, so that they are told how far it came.
	limit := connectLimit(e.host)
	ctx, cancel := context.WithTimeoutCause(e.pool.life, limit-limit/50, errLimit)
	defer cancel()
	begun := time.Now()
	c, err := e.dial(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dialing--
	switch {
	case err != nil:
		e.failed(fault.From(err), begun)
	case !c.live():
		e.failed(clone(c.lost), begun)
	default:
		e.connected(c)
	}
}

// connected takes a new connection in. Called with the lock.
func (e *endpoint) connected(c *conn) {
	if e.unproven {
		e.lastConnected = time.Now() // and opened says whether it is a success
	} else {
		e.succeeded()
	}
	if e.shut {
		c.close(errClosing)
		return
	}
	c.limit, c.lowered = e.plan(), e.learnedAt
	e.conns = append(e.conns, c)
	e.serve(c)
	e.dialMore()
}

// opened notes that a channel was opened on c.
func (e *endpoint) opened(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c.used.Store(true)
	e.progress = time.Now()
	if e.unproven {
		e.unproven = false
		e.succeeded()
		e.dialMore()
	}
}

// succeeded notes that the host takes connections. Called with the lock.
func (e *endpoint) succeeded() {
	e.progress = time.Now()
	e.failures, e.notBefore, e.lastConnected = 0, time.Time{}, time.Now()
	e.width = min(e.width+1, e.pool.handshakes)
}

// note remembers the failure of something begun at a time, and sets the backoff.
// Those that were under way together count as one. Called with the lock.
func (e *endpoint) note(f *fault.Error, begun time.Time) {
	if begun.After(e.failedAt) {
		e.failures++
		e.notBefore = time.Now().Add(backoff(e.failures, connectLimit(e.host)))
		if dropped(f) || f.Reason == fault.ReasonConnectTimeout {
			e.width = max(1, e.width/2) // fewer at once are through sooner
		}
	}
	e.failure, e.failedAt = f, time.Now()
	if pause := time.Until(e.notBefore); pause > 0 && !final(f) {
		f.RetryAfter = pause
	}
	e.pool.log.Warn("no connection", "host", e.host.Name, "address", e.host.Address, "reason", f.Reason, "error", f, "failures", e.failures)
}

// failed serves the line with the failure of a handshake. Those for whom there is
// no place get it as their answer, unless there is hope: other connections or handshakes, or a
// server that only turned this one away. Called with the lock.
func (e *endpoint) failed(f *fault.Error, begun time.Time) {
	e.note(f, begun)
	e.serve(e.conns...)
	hope := dropped(f) || e.dialing > 0 || slices.ContainsFunc(e.conns, (*conn).live)
	if final(f) || !hope {
		e.refuse(f)
	}
	e.dialMore()
}

// backoff is the pause after the n-th failure in a row: doubling, at most so
// long that who comes then still gets a fresh answer within the connect timeout,
// and with jitter, so that many services do not come back at the same moment.
func backoff(n int, limit time.Duration) time.Duration {
	most := min(backoffMost, limit/2)
	pause := min(backoffFirst<<min(n-1, 10), most)
	return pause/2 + rand.N(pause/2+1)
}

// remove takes out a connection that has ended.
func (e *endpoint) remove(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.conns, c); i >= 0 {
		e.conns = slices.Delete(e.conns, i, i+1)
	}
	e.dialMore()
}

// refused tells what it means that the server did not open a session on c: nil
// if another connection should be tried. It gives the place back.
func (e *endpoint) refused(c *conn, err *ssh.OpenChannelError) *fault.Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c.sessions--
	if c.sessions > 0 {
		// Busy: this is what it can hold.
		c.limit, c.lowered = c.sessions, time.Now()
		e.learned, e.learnedAt = c.limit, c.lowered
		e.settle(c)
		e.dialMore()
		return nil
	}
	fresh := !c.used.Load() && !c.retired
	c.retired = true
	e.settle(c)
	if !fresh {
		e.dialMore()
		return nil
	}
	return e.useless(channelFault(err, e.host), true)
}

// broke tells what it means that c ended while a channel was being opened on it:
// nil if another connection should be tried. It gives the place back.
func (e *endpoint) broke(c *conn, p place, err error) *fault.Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c.count(p, -1)
	first := !c.retired
	c.retired = true
	e.settle(c)
	if e.shut {
		return closedFault(e.host)
	}
	if c.used.Load() {
		e.dialMore()
		return nil
	}
	// It ended right after the login. A server that does so for everybody must
	// not be asked again and again.
	return e.useless(lostFault(err, e.host), first)
}

// useless tells what it means that a new connection was good for nothing, as f
// says: nil if another one should be tried, because others are of use. first:
// this has not been noted yet. Called with the lock.
func (e *endpoint) useless(f *fault.Error, first bool) *fault.Error {
	if first {
		e.unproven = true
		e.note(f, time.Now())
	}
	if slices.ContainsFunc(e.conns, func(c *conn) bool { return c.used.Load() && c.live() }) {
		e.dialMore()
		return nil
	}
	if first {
		e.refuse(f)
	}
	return clone(f)
}

// shutdown ends everything; the pool waits for the goroutines.
func (e *endpoint) shutdown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.shut = true
	for _, timer := range []*time.Timer{e.retry, e.look} {
		if timer != nil {
			timer.Stop()
		}
	}
	e.refuse(closedFault(e.host))
	for _, c := range e.conns {
		c.close(errClosing)
	}
}

// unused reports whether nothing is going on and nobody came since t.
func (e *endpoint) unused(t time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns) == 0 && e.line.empty() && e.dialing == 0 && e.lastUsed.Load() < t.UnixNano()
}

func closedFault(host inventory.Host) *fault.Error {
	return aboutHost(fault.Wrap(errClosing, fault.Unavailable, fault.ReasonDraining,
		"the service is shutting down and makes no connections any more").
		WithHint("Try again when it is back"), host)
}
