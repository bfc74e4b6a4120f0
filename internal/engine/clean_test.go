package engine

import (
	"testing"
	"time"
)

func TestCleaningIsDueOnceAnHour(t *testing.T) {
	c := newCleaning()
	now := time.Now()
	if !c.begin("a", now) || !c.begin("b", now) {
		t.Error("a host that was never visited is not due")
	}
	c.end("a")
	if c.begin("a", now.Add(cleanEvery-1)) {
		t.Error("it is due again too soon")
	}
	if !c.begin("a", now.Add(cleanEvery)) {
		t.Error("it is not due after an hour")
	}
	if c.begin("b", now.Add(2*cleanEvery)) {
		t.Error("a second visit begins while one is under way")
	}
}

func TestQueueTake(t *testing.T) {
	q := newQueue(2, 10)
	for range 3 {
		q.take("a", 1)
	}
	q.take("gone", 0)
	if ok, _ := q.acquire("a", 1); ok {
		t.Error("a slot is free although more run than may")
	}
	tk := newTicket("01", "a", 0)
	q.enqueue(tk, 1, true)
	for i := range 4 {
		if granted(tk) {
			t.Errorf("granted after %d releases", i)
		}
		q.release([]string{"a", "a", "gone", "a"}[i], 0)
	}
	if !granted(tk) {
		t.Error("not granted when all are through")
	}
}
