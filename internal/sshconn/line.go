package sshconn

import (
	"container/list"
	"context"
	"time"

	"github.com/telexec/telexec/internal/fault"
)

// place is what a connection is needed for, in the order of serving.
type place int

const (
	control place = iota // a session that goes first: it is to control what runs already
	session
	second     // a session for who has asked for one elsewhere and gets no answer
	stream     // to a host behind it; there may be any number of them
	places int = iota
)

// waiter is one call that needs a place, as long as it lasts: it may come back
// to the line when a connection turns out to be of no use. It is its caller's
// while it is not in the line, and the endpoint's while it is.
type waiter struct {
	place
	arrived time.Time  // orders the line
	heard   time.Time  // when the host last did something for it; ConnectTimeout counts from there
	ready   chan grant // capacity 1; sent to once for each time in the line, by who takes it out
	spot    *list.Element
}

func newWaiter(p place, arrived time.Time) *waiter {
	return &waiter{place: p, arrived: arrived, heard: arrived, ready: make(chan grant, 1)}
}

type grant struct {
	c   *conn
	err *fault.Error
}

// line holds those who wait, for each kind of place in the order of their arrival.
type line [places]list.List

// join puts w where its arrival says: at the end when it comes for the first
// time, and near the front when it has been served before and comes back.
func (l *line) join(w *waiter) {
	queue := &l[w.place]
	for front, back := queue.Front(), queue.Back(); front != nil; front, back = front.Next(), back.Prev() {
		if front.Value.(*waiter).arrived.After(w.arrived) {
			w.spot = queue.InsertBefore(w, front)
			return
		}
		if !back.Value.(*waiter).arrived.After(w.arrived) {
			w.spot = queue.InsertAfter(w, back)
			return
		}
	}
	w.spot = queue.PushBack(w)
}

// answer takes w out of the line with its answer.
func (l *line) answer(w *waiter, g grant) {
	l.leave(w)
	w.ready <- g
}

func (l *line) leave(w *waiter) {
	l[w.place].Remove(w.spot)
	w.spot = nil
}

// first is who is next for a kind of place; nil: nobody waits for one.
func (l *line) first(p place) *waiter {
	if front := l[p].Front(); front != nil {
		return front.Value.(*waiter)
	}
	return nil
}

// all gives everybody; the one that is given may be taken out.
func (l *line) all(yield func(*waiter) bool) {
	for p := range l {
		for at := l[p].Front(); at != nil; {
			w := at.Value.(*waiter)
			at = at.Next()
			if !yield(w) {
				return
			}
		}
	}
}

// ahead reports whether somebody waits who is served before a newcomer.
func (l *line) ahead(p place) bool {
	if p == second {
		return l[control].Len()+l[session].Len()+l[second].Len() > 0
	}
	return l[p].Len() > 0
}

func (l *line) empty() bool {
	for p := range l {
		if l[p].Len() > 0 {
			return false
		}
	}
	return true
}

// sessions is for how many sessions there should be places. Those who ask a
// second time count for one connection at most: a server that is slow everywhere
// would otherwise get as many logins again, and be slower still.
func (l *line) sessions(perConn int) int {
	return l[control].Len() + l[session].Len() + min(l[second].Len(), perConn)
}

// acquire gives a connection with the place that w needs. The caller gives it
// back with release or leave.
//
// It waits as long as the host makes progress. When it makes none for its
// ConnectTimeout, the answer is why the last attempt to connect failed.
func (e *endpoint) acquire(ctx context.Context, w *waiter) (*conn, error) {
	e.mu.Lock()
	if e.shut {
		e.mu.Unlock()
		return nil, closedFault(e.host)
	}
	if !e.line.ahead(w.place) {
		if c := take(w.place, e.conns); c != nil {
			w.heard = later(w.heard, e.progress)
			e.mu.Unlock()
			return c, nil
		}
	}
	e.line.join(w)
	e.lookAgain(e.patience(w))
	e.dialMore()
	e.mu.Unlock()

	select {
	case g := <-w.ready:
		return g.unpack()
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.spot != nil {
		e.line.leave(w)
		if left(ctx) {
			return nil, aboutHost(fault.From(ctx.Err()), e.host)
		}
		return nil, e.inVain(w)
	}
	// The answer came at the same moment; there is no reason to refuse it.
	return (<-w.ready).unpack()
}

func (g grant) unpack() (*conn, error) {
	if g.err != nil {
		return nil, g.err
	}
	return g.c, nil
}

// serve gives the places on some connections to those who wait, in their order.
// Called with the lock.
func (e *endpoint) serve(conns ...*conn) {
	for p := range place(places) {
		for w := e.line.first(p); w != nil; w = e.line.first(p) {
			c := take(p, conns)
			if c == nil {
				break
			}
			w.heard = later(w.heard, e.progress)
			e.line.answer(w, grant{c: c})
		}
	}
}

// take finds the connection that is best for a place, and takes it; nil if there
// is none. Called with the lock.
func take(p place, conns []*conn) *conn {
	var best *conn
	for _, c := range conns {
		// The least busy one; among equals the oldest, so that the others get idle.
		if c.fits(p) && (best == nil || c.sessions < best.sessions) {
			best = c
		}
	}
	if best != nil {
		best.count(p, 1)
	}
	return best
}

// refuse gives everybody who waits the same answer. Called with the lock.
func (e *endpoint) refuse(f *fault.Error) {
	for w := range e.line.all {
		e.line.answer(w, grant{err: clone(f)})
	}
}

// patience is until when w waits if nothing happens. Called with the lock.
func (e *endpoint) patience(w *waiter) time.Time {
	return later(w.heard, e.progress).Add(connectLimit(e.host))
}

// givenUp reports whether the host has made no progress in w's time.
func (e *endpoint) givenUp(w *waiter) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !time.Now().Before(e.patience(w))
}

// lookAgain sees to it that the line is looked at when somebody's patience may be
// over. One timer does for all. Called with the lock.
func (e *endpoint) lookAgain(at time.Time) {
	if !e.lookAt.IsZero() && !at.Before(e.lookAt) {
		return
	}
	e.lookAt = at
	if e.look == nil {
		e.look = time.AfterFunc(time.Until(at), e.lookAtLine)
	} else {
		e.look.Reset(time.Until(at))
	}
}

// lookAtLine answers those whose patience is over.
func (e *endpoint) lookAtLine() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	e.lookAt = time.Time{}
	e.serve(e.conns...) // time alone gives places too, see room
	var next time.Time  // when the next one's is
	for w := range e.line.all {
		until := e.patience(w)
		if !now.Before(until) {
			e.line.answer(w, grant{err: e.inVain(w)})
		} else if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	if !next.IsZero() {
		// Thousands who came one after the other are not looked at one by one.
		e.lookAgain(later(next, now.Add(connectLimit(e.host)/50)))
	}
}

// inVain tells why nothing came free for w. Called with the lock.
func (e *endpoint) inVain(w *waiter) *fault.Error {
	if e.failure != nil && e.failedAt.After(later(w.heard, e.progress)) {
		return clone(e.failure)
	}
	return timeoutFault(errLimit, e.host, connectLimit(e.host), "no connection came free")
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
