package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/fault"
)

func newTicket(id, host string, priority int) *ticket {
	return &ticket{id: id, host: host, priority: priority, granted: make(chan struct{}), moved: func() {}}
}

func granted(t *ticket) bool {
	select {
	case <-t.granted:
		return true
	default:
		return false
	}
}

func TestQueueOrder(t *testing.T) {
	q := newQueue(10, 100)
	for range 2 {
		if ok, err := q.acquire("a", 2); !ok || err != nil {
			t.Fatal("a free host gives no slot", err)
		}
	}
	if ok, _ := q.acquire("a", 2); ok {
		t.Fatal("a third slot where two are allowed")
	}
	var tickets []*ticket
	for i, priority := range []int{0, 5, 0, 5, -1} {
		tk := newTicket(fmt.Sprintf("%02d", i), "a", priority)
		tickets = append(tickets, tk)
		q.enqueue(tk, 2, false)
	}
	for i, want := range []int{3, 1, 4, 2, 5} {
		if p := q.place(tickets[i]); p == nil || p.Position != want || p.WaitsFor != "host" {
			t.Errorf("ticket %d stands at %+v, want %d", i, p, want)
		}
	}
	for _, next := range []int{1, 3, 0, 2, 4} {
		if granted(tickets[next]) {
			t.Fatalf("ticket %d has a slot too early", next)
		}
		q.release("a", time.Second)
		if !granted(tickets[next]) {
			t.Fatalf("ticket %d has no slot although it is its turn", next)
		}
	}
	if running, waiting := q.load("a"); running != 2 || waiting != 0 {
		t.Errorf("load is %d, %d", running, waiting)
	}
}

// Where the service's own limit holds everyone, the next slot goes to whose turn
// it is over all hosts.
func TestQueueServiceLimit(t *testing.T) {
	q := newQueue(1, 100)
	q.acquire("a", 10)
	onA, onB := newTicket("01", "a", 0), newTicket("02", "b", 1)
	q.enqueue(onA, 10, false)
	q.enqueue(onB, 10, false)
	if p := q.place(onA); p.WaitsFor != "service" {
		t.Errorf("waits for %s", p.WaitsFor)
	}
	q.release("a", 0)
	if !granted(onB) || granted(onA) {
		t.Fatal("the slot did not go to the higher priority on the other host")
	}
	q.release("b", 0)
	if !granted(onA) {
		t.Fatal("no slot for the last one")
	}
}

func TestQueueLeave(t *testing.T) {
	q := newQueue(10, 2)
	q.acquire("a", 1)
	first, second := newTicket("01", "a", 0), newTicket("02", "a", 0)
	q.enqueue(first, 1, false)
	q.enqueue(second, 1, false)
	if _, err := q.acquire("a", 1); fault.ReasonOf(err) != fault.ReasonQueueFull {
		t.Errorf("a third waits where two may: %v", err)
	}
	if !q.remove(first) || q.remove(first) {
		t.Error("a ticket leaves once")
	}
	if p := q.place(second); p.Position != 1 {
		t.Errorf("position %d after the first has left", p.Position)
	}
	q.release("a", 0)
	if q.remove(second) {
		t.Error("a ticket with a slot can only release it")
	}
	q.close()
	q.release("a", 0)
	if ok, _ := q.acquire("a", 1); ok {
		t.Error("a closed queue gives a slot")
	}
	if q.place(first) != nil || q.place(newTicket("09", "z", 0)) != nil {
		t.Error("a place for one who does not wait")
	}
}

func TestQueueEstimate(t *testing.T) {
	q := newQueue(10, 100)
	q.acquire("a", 1)
	first, second := newTicket("01", "a", 0), newTicket("02", "a", 0)
	q.enqueue(first, 1, false)
	q.enqueue(second, 1, false)
	if p := q.place(second); p.EstimatedWait != 0 {
		t.Errorf("an estimate of %s before anything has run", p.EstimatedWait)
	}
	third := newTicket("03", "a", 0)
	q.enqueue(third, 1, false)
	q.release("a", 4*time.Second)
	if p := q.place(third); p.EstimatedWait != 8*time.Second {
		t.Errorf("estimate %s for the second in the queue after a run of 4 s", p.EstimatedWait)
	}
}

// A host that is not configured any more has no limit; who waits for it is told so
// by its owner.
func TestPlaceWithoutALimit(t *testing.T) {
	q := newQueue(10, 100)
	q.take("gone", 0)
	q.release("gone", time.Second)
	tk := newTicket("01", "gone", 0)
	q.enqueue(tk, 0, false)
	if p := q.place(tk); p == nil || p.Position != 1 {
		t.Errorf("%+v", p)
	}
}

// A session has one slot, whatever runs elsewhere, and leaves nothing behind.
func TestQueueOfASession(t *testing.T) {
	const s = sessionQueue + "1"
	q := newQueue(3, 2)
	if ok, idle, err := q.acquireIdle(s, 1); !ok || !idle || err != nil {
		t.Fatalf("%v, %v, %v", ok, idle, err)
	}
	if ok, idle, err := q.acquireIdle(s, 1); ok || idle || err != nil {
		t.Errorf("a second one: %v, %v, %v", ok, idle, err)
	}
	first := newTicket("01", s, 0)
	q.enqueue(first, 1, false)
	if p := q.place(first); p == nil || p.WaitsFor != "session" {
		t.Errorf("%+v", p)
	}
	q.take(s, 1) // somebody types
	q.release(s, 0)
	if granted(first) {
		t.Error("a turn while something runs")
	}
	q.release(s, 0)
	if !granted(first) || q.idle(s) {
		t.Error("no turn when nothing does")
	}
	q.release(s, 0)
	if len(q.hosts) != 0 || !q.idle(s) {
		t.Errorf("%d queues are left", len(q.hosts))
	}

	for range 3 {
		q.acquire("h", 10)
	}
	second := newTicket("02", s, 0)
	if ok, idle, err := q.acquireIdle(s, 1); ok || !idle || err != nil {
		t.Errorf("without a slot of the service: %v, %v, %v", ok, idle, err)
	}
	q.enqueue(second, 1, true)
	if p := q.place(second); p == nil || p.WaitsFor != "service" {
		t.Errorf("%+v", p)
	}
	if !q.remove(second) || q.remove(second) || len(q.hosts) != 1 {
		t.Errorf("%d queues are left", len(q.hosts))
	}
	if running, waiting := q.total(); running != 3 || waiting != 0 {
		t.Errorf("%d run and %d wait", running, waiting)
	}
}
