package sshconn

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
)

// Why a connection was closed by us.
var (
	errSilent  = errors.New("no answer to keepalives")
	errIdle    = errors.New("idle")
	errClosing = errors.New("the pool is closed")
)

// conn is one live connection. Its goroutines end with it:
//
//	serve  turns away what the server opens, and notices the end
//	watch  sends keepalives and closes the connection when it is idle
type conn struct {
	end         *endpoint
	ssh         ssh.Conn
	link        *link
	parent      *conn  // carries it; nil: TCP
	fingerprint string // of the host key

	done    chan struct{} // closed by serve at the end, after lost is set
	lost    *fault.Error  // why it ended
	suspect atomic.Bool   // does not answer at the moment: not for new channels
	used    atomic.Bool   // a channel has been opened on it

	closing sync.Once
	reason  atomic.Value // error: why we closed it; unset: the other side did

	// Guarded by end.mu.
	sessions  int       // session channels: open, opening, or not yet surely closed
	forwards  int       // streams to hosts behind this one
	limit     int       // how many sessions it is given
	lowered   time.Time // when the server refused one and limit went below the plan
	released  time.Time // when a session was last given back
	retired   bool      // gets no more channels
	idleSince time.Time // since when nothing is on it
}

// start runs the connection's goroutines; false: the pool is closed, and nothing
// was started.
func (c *conn) start(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) bool {
	if !c.end.pool.spawn(func() { c.serve(channels) }) {
		return false
	}
	// A server asks for nothing that we do, but it wants answers: this is also
	// how it finds out that we live.
	ok := c.end.pool.spawn(func() { ssh.DiscardRequests(requests) })
	if !c.end.pool.spawn(c.watch) || !ok {
		c.close(errClosing)
	}
	return true
}

func (c *conn) serve(channels <-chan ssh.NewChannel) {
	for offered := range channels {
		offered.Reject(ssh.Prohibited, "nothing may be opened here")
	}
	err := c.ssh.Wait()
	if reason, ok := c.reason.Load().(error); ok {
		err = reason
	}
	c.link.Close()
	c.lost = lostFault(err, c.end.host)
	close(c.done)
	c.end.remove(c)
	if c.parent != nil {
		c.parent.leave()
	}
	c.end.pool.log.Debug("connection ended", "host", c.end.host.Name, "address", c.end.host.Address, "reason", err)
}

// close ends the connection; serve does the rest. It does not wait.
func (c *conn) close(reason error) {
	c.closing.Do(func() {
		c.reason.Store(reason)
		// Not ssh.Close, which writes first and so may block.
		c.link.Close()
	})
}

// live reports whether the connection has not ended.
func (c *conn) live() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// watch looks after the connection until its end.
func (c *conn) watch() {
	host := c.end.host
	interval, max := host.KeepaliveInterval, host.KeepaliveMax
	if max < 1 {
		max = 1
	}
	dead := interval * time.Duration(max)
	if max == 1 {
		interval /= 2 // the question must be asked before the time is over
	}
	var answered chan struct{} // of the keepalive under way, closed by its goroutine; nil: none
	timer := time.NewTimer(c.end.pool.idle)
	defer timer.Stop()
	for {
		wait := c.closeWhenIdle()
		if interval > 0 {
			silence := c.link.silence()
			switch {
			case answered == nil && silence >= interval:
				answered = make(chan struct{})
				if !c.keepalive(answered) {
					return
				}
				wait = min(wait, interval)
			case answered == nil || silence < interval:
				c.answers()
				wait = min(wait, interval-silence)
			case silence >= dead:
				c.close(errSilent)
				<-c.done
				return
			default:
				c.suspect.Store(true)
				wait = min(wait, dead-silence)
			}
		}
		timer.Reset(max0(wait))
		select {
		case <-c.done:
			return
		case <-answered:
			answered = nil
			c.answers()
		case <-timer.C:
		}
	}
}

// max0 keeps a timer from running wild on a wait that has just passed.
func max0(d time.Duration) time.Duration { return max(d, time.Millisecond) }

// keepalive asks the server for a sign of life; any answer is one. False: the
// pool is closed.
func (c *conn) keepalive(answered chan<- struct{}) bool {
	return c.end.pool.spawn(func() {
		defer close(answered)
		c.ssh.SendRequest("keepalive@openssh.com", true, nil)
	})
}

// closeWhenIdle closes the connection when nothing was on it for the idle
// timeout; else it says when to look again.
func (c *conn) closeWhenIdle() time.Duration {
	idle := c.end.pool.idle
	c.end.mu.Lock()
	defer c.end.mu.Unlock()
	if c.sessions+c.forwards > 0 {
		return idle
	}
	if rest := idle - time.Since(c.idleSince); rest > 0 && !c.retired {
		return rest
	}
	// Under the lock: nobody can be given a channel on it any more.
	c.retired = true
	c.close(errIdle)
	return idle
}

// answers notes a sign of life: who stands in line may have a place on c again.
func (c *conn) answers() {
	if c.suspect.CompareAndSwap(true, false) {
		c.end.mu.Lock()
		defer c.end.mu.Unlock()
		c.end.serve(c)
	}
}

// leave gives back a stream that went through the connection.
func (c *conn) leave() {
	c.end.mu.Lock()
	defer c.end.mu.Unlock()
	c.forwards--
	c.end.settle(c)
}

// release gives back a session that the server knows to be over.
func (c *conn) release() {
	c.end.mu.Lock()
	defer c.end.mu.Unlock()
	if c.live() {
		c.end.progress = time.Now()
	}
	c.drop()
}

// drop gives back a session. Called with the lock.
func (c *conn) drop() {
	c.sessions--
	c.released = time.Now()
	c.end.settle(c)
}

// errLate is the failure of a channel that had not been opened when the context
// ended. The server may still open it.
type errLate struct{ cause error }

func (e errLate) Error() string { return "no answer to the opening of a channel: " + e.cause.Error() }
func (e errLate) Unwrap() error { return e.cause }

// clearing is for how long a session that has ended may still count on the
// server: sshd clears up only when it has dealt with all packets that are there,
// and the opening of the next one may be among them.
const clearing = 100 * time.Millisecond

// openSession is openChannel for a session, for a call that last heard of the
// host at a time. A refusal that may be due to one that has just ended does not
// count; one round trip later it is certain.
func (c *conn) openSession(ctx context.Context, heard time.Time, slow func()) (ssh.Channel, <-chan *ssh.Request, error) {
	for again := false; ; again = true {
		asked := time.Now()
		channel, requests, err := c.openChannel(ctx, request{kind: "session", heard: heard, settled: c.release, slow: slow})
		if _, refused := errors.AsType[*ssh.OpenChannelError](err); !refused || again {
			return channel, requests, err
		}
		c.end.mu.Lock()
		ambiguous := c.released.After(asked.Add(-clearing))
		c.end.mu.Unlock()
		if !ambiguous {
			return nil, nil, err
		}
	}
}

// wedgedAfter is how long a server may take to open a channel until its
// connection is suspect and another one is tried as well.
const wedgedAfter = time.Second

// request is a channel to be opened.
type request struct {
	kind    string
	payload []byte
	heard   time.Time // when the host last did something for the caller; zero: ctx alone is the limit
	settled func()    // the channel was given up, and now it is certain that it is not there; nil: nobody cares
	slow    func()    // there is no answer after wedgedAfter; called by openChannel, once; nil: nobody cares
}

// openChannel opens a channel. After wedgedAfter without an answer the connection
// is suspect, and slow is called. It goes on until ctx ends or the connection has
// shown no sign of life for the host's ConnectTimeout; a server that says
// something, if not about the channel, is only slow. The error is an errLate then;
// the channel is closed should it still come.
func (c *conn) openChannel(ctx context.Context, r request) (ssh.Channel, <-chan *ssh.Request, error) {
	type result struct {
		channel  ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	results := make(chan result, 1) // the goroutine sends one, if it is the first to set decided
	var decided atomic.Bool
	ok := c.end.pool.spawn(func() {
		channel, requests, err := c.ssh.OpenChannel(r.kind, r.payload)
		if decided.CompareAndSwap(false, true) {
			results <- result{channel, requests, err}
			return
		}
		if err == nil {
			c.answers()
			channel.Close()
			ssh.DiscardRequests(requests)
		}
		if r.settled != nil {
			r.settled()
		}
	})
	if !ok {
		return nil, nil, errClosing
	}
	first := wedgedAfter
	if !r.heard.IsZero() {
		first = min(first, connectLimit(c.end.host))
	}
	atLeast := time.Now().Add(first) // however late the host is
	timer := time.NewTimer(first)
	defer timer.Stop()
	for waiting := false; ; waiting = true {
		var why error
		select {
		case got := <-results:
			c.answers()
			return got.channel, got.requests, got.err
		case <-ctx.Done():
			why = context.Cause(ctx)
		case <-timer.C:
			if !waiting {
				c.suspect.Store(true)
			}
			if !r.heard.IsZero() {
				rest := time.Until(later(atLeast, c.lifeUntil(r.heard)))
				if rest <= 0 {
					why = errLimit
					break
				}
				timer.Reset(rest)
			}
			if !waiting && r.slow != nil {
				r.slow()
			}
		}
		if why == nil {
			continue
		}
		if decided.CompareAndSwap(false, true) {
			return nil, nil, errLate{why}
		}
		got := <-results
		c.answers()
		return got.channel, got.requests, got.err
	}
}

// lifeUntil is until when the connection is waited for if nothing more comes, by
// a call that last heard of the host at a time.
func (c *conn) lifeUntil(heard time.Time) time.Time {
	return later(heard, c.link.heard()).Add(connectLimit(c.end.host))
}
