package engine

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/fault"
)

// queue decides who may run: at most a number of commands per host and for the
// whole service, by priority and then by age. It holds no command's state, only
// tickets. All methods may be called concurrently.
type queue struct {
	mu      sync.Mutex
	limit   int  // running at once in the service
	most    int  // tickets that may wait
	closed  bool // grants nothing any more
	running int
	waiting int
	hosts   map[string]*hostQueue
}

// hostQueue is the queue of one host; its queue's mu guards it.
type hostQueue struct {
	limit   int
	running int
	waiting []*ticket     // in the order of their turn
	mean    time.Duration // moving average of run times; 0 while unknown
}

// A session has a queue of its own, under a name that no host has: it takes no slot of
// its host, since what it has there is the one shell. It is forgotten whenever it is
// empty; sessions come and go.
const sessionQueue = "session "

// ticket is one command's place in the queue.
type ticket struct {
	id       string // ULID: older is smaller
	host     string // or sessionQueue and the id of its session
	priority int
	granted  chan struct{} // closed by the queue when the slot is the ticket's
	moved    func()        // called when the place may have changed; must not block
}

// QueuePlace is where a queued command stands.
type QueuePlace struct {
	Position      int           // 1 is next for its host
	EstimatedWait time.Duration // 0: unknown
	WaitsFor      string        // "host" or "service": whose limit holds it; or "session", which is busy
}

func newQueue(limit, most int) *queue {
	return &queue{limit: limit, most: most, hosts: make(map[string]*hostQueue)}
}

func turn(a, b *ticket) int {
	return cmp.Or(cmp.Compare(b.priority, a.priority), strings.Compare(a.id, b.id))
}

// host gives the queue of a host, with its limit as it is now. mu is held.
func (q *queue) host(name string, limit int) *hostQueue {
	h := q.hosts[name]
	if h == nil {
		h = &hostQueue{}
		q.hosts[name] = h
	}
	if limit > 0 {
		h.limit = limit
	}
	return h
}

// acquire takes a slot at once where one is free and nobody waits for it. Else
// it reserves a place for a ticket, which enqueue uses or unreserve gives back,
// and reports false; QUEUE_FULL is the error when no ticket more may wait.
func (q *queue) acquire(host string, limit int) (ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.acquireNow(host, limit)
}

// acquireIdle is acquire where nothing runs or waits there; else idle is false.
func (q *queue) acquireIdle(host string, limit int) (ok, idle bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy(host) {
		return false, false, nil
	}
	ok, err = q.acquireNow(host, limit)
	return ok, true, err
}

// idle reports whether nothing runs or waits there.
func (q *queue) idle(host string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.busy(host)
}

// busy is the opposite of idle. mu is held.
func (q *queue) busy(host string) bool {
	h := q.hosts[host]
	return h != nil && (h.running > 0 || len(h.waiting) > 0)
}

// forget drops the queue of a session that is empty. mu is held.
func (q *queue) forget(host string) {
	if strings.HasPrefix(host, sessionQueue) && !q.busy(host) {
		delete(q.hosts, host)
	}
}

// acquireNow is acquire. mu is held.
func (q *queue) acquireNow(host string, limit int) (ok bool, err error) {
	h := q.host(host, limit)
	defer q.forget(host)
	if !q.closed && len(h.waiting) == 0 && h.running < h.limit && q.running < q.limit {
		h.running++
		q.running++
		return true, nil
	}
	return false, q.reserve(h.mean)
}

// reserve reserves a place for a ticket; usual is how long commands run. mu is
// held.
func (q *queue) reserve(usual time.Duration) error {
	if q.waiting >= q.most {
		return fault.New(fault.Exhausted, fault.ReasonQueueFull, "%d commands are waiting, which is the limit", q.most).
			WithHint("Try again when some have run; ListCommands with state QUEUED shows them").
			WithRetry(max(time.Second, usual))
	}
	q.waiting++
	return nil
}

// take takes a slot whatever the limits: for a command that runs already, so that
// new ones wait for it. limit is 0 where the host is unknown.
func (q *queue) take(host string, limit int) {
	q.mu.Lock()
	q.host(host, limit).running++
	q.running++
	q.mu.Unlock()
}

// unreserve gives back a place that acquire reserved.
func (q *queue) unreserve() {
	q.mu.Lock()
	q.waiting--
	q.mu.Unlock()
}

// enqueue adds a ticket, for which acquire may have reserved the place. It may be
// granted before enqueue returns.
func (q *queue) enqueue(t *ticket, limit int, reserved bool) {
	q.mu.Lock()
	h := q.host(t.host, limit)
	i, _ := slices.BinarySearchFunc(h.waiting, t, turn)
	h.waiting = slices.Insert(h.waiting, i, t)
	if !reserved {
		q.waiting++
	}
	moved := slices.Clone(h.waiting[i:])
	q.grant(h)
	q.mu.Unlock()
	tell(moved)
}

// remove takes back a ticket. It reports false where the ticket was granted
// already; the slot is then the caller's to release.
func (q *queue) remove(t *ticket) bool {
	q.mu.Lock()
	h := q.hosts[t.host]
	if h == nil {
		q.mu.Unlock()
		return false
	}
	i, found := slices.BinarySearchFunc(h.waiting, t, turn)
	if !found {
		q.mu.Unlock()
		return false
	}
	h.waiting = slices.Delete(h.waiting, i, i+1)
	q.waiting--
	moved := slices.Clone(h.waiting[i:])
	q.forget(t.host)
	q.mu.Unlock()
	tell(moved)
	return true
}

// release gives a slot back. ran is how long it was used; 0 for not at all.
func (q *queue) release(host string, ran time.Duration) {
	q.mu.Lock()
	h := q.hosts[host]
	wasFull := q.running >= q.limit
	h.running--
	q.running--
	switch {
	case ran <= 0:
	case h.mean == 0:
		h.mean = ran
	default:
		h.mean += (ran - h.mean) / 4
	}
	if wasFull {
		q.grantAny()
	} else {
		q.grant(h)
	}
	moved := slices.Clone(h.waiting)
	q.forget(host)
	q.mu.Unlock()
	tell(moved)
}

// grant gives a host's free slots to those whose turn it is there. mu is held.
func (q *queue) grant(h *hostQueue) {
	for q.grantable(h) {
		q.grantFirst(h)
	}
}

// grantAny gives the service's free slots to those whose turn it is over all
// hosts. It is needed only where the service's own limit held them back, which
// may be on any host. mu is held.
func (q *queue) grantAny() {
	for {
		var next *hostQueue
		for _, h := range q.hosts {
			if q.grantable(h) && (next == nil || turn(h.waiting[0], next.waiting[0]) < 0) {
				next = h
			}
		}
		if next == nil {
			return
		}
		q.grantFirst(next)
	}
}

// grantable reports whether a host has a free slot and somebody who waits for
// it. mu is held.
func (q *queue) grantable(h *hostQueue) bool {
	return !q.closed && len(h.waiting) > 0 && h.running < h.limit && q.running < q.limit
}

// grantFirst gives a slot to the first who waits on a host. mu is held.
func (q *queue) grantFirst(h *hostQueue) {
	t := h.waiting[0]
	h.waiting = slices.Delete(h.waiting, 0, 1)
	q.waiting--
	h.running++
	q.running++
	close(t.granted)
}

// place tells where a ticket stands; nil where it does not wait.
func (q *queue) place(t *ticket) *QueuePlace {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hosts[t.host]
	if h == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(h.waiting, t, turn)
	if !found {
		return nil
	}
	p := &QueuePlace{Position: i + 1, WaitsFor: "host"}
	switch {
	case h.running < h.limit:
		p.WaitsFor = "service"
	case strings.HasPrefix(t.host, sessionQueue):
		p.WaitsFor = "session"
	}
	if h.mean > 0 {
		p.EstimatedWait = h.mean * time.Duration(i/max(h.limit, 1)+1) // 0: its host is not configured any more
	}
	return p
}

// load tells how many run on a host and how many wait for it.
func (q *queue) load(host string) (running, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h := q.hosts[host]; h != nil {
		return h.running, len(h.waiting)
	}
	return 0, 0
}

// total tells how many run and wait in the service.
func (q *queue) total() (running, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running, q.waiting
}

// close stops granting. What waits goes on waiting.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}

func tell(tickets []*ticket) {
	for _, t := range tickets {
		t.moved()
	}
}
