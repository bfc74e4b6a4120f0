package workflow

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/task"
)

// queue decides which task may run: so many at once, by priority and then by age. One
// that waits for people, or is undone, takes no slot. Its Workflow's mu guards it.
type queue struct {
	slots   int
	began   map[*live]time.Time     // those that have a slot
	held    map[*live]time.Duration // for how long those that have not ended had one before
	waiting []*live                 // in the order of their turn
	recent  []time.Duration         // how long the last ones took; the eldest first
}

func newQueue(slots int) queue {
	return queue{slots: slots, began: make(map[*live]time.Time), held: make(map[*live]time.Duration)}
}

func turn(a, b *live) int {
	return cmp.Or(cmp.Compare(b.priority, a.priority), strings.Compare(a.id, b.id))
}

func (q *queue) add(l *live) {
	i, _ := slices.BinarySearchFunc(q.waiting, l, turn)
	q.waiting = slices.Insert(q.waiting, i, l)
}

// running notes whether a task has a slot. It may have one beyond those there are: one
// that goes on after people have decided.
func (q *queue) running(l *live, slot bool) {
	q.waiting = slices.DeleteFunc(q.waiting, func(o *live) bool { return o == l })
	began, has := q.began[l]
	switch {
	case slot && !has:
		q.began[l] = time.Now()
	case !slot && has:
		q.held[l] += time.Since(began)
		delete(q.began, l)
	}
}

// remove forgets a task, and gives for how long it has had a slot.
func (q *queue) remove(l *live) (held time.Duration) {
	q.running(l, false)
	held = q.held[l]
	delete(q.held, l)
	return held
}

// next gives the task whose turn it is; nil where there is none, or no slot.
func (q *queue) next() *live {
	if len(q.waiting) == 0 || len(q.began) >= q.slots {
		return nil
	}
	return q.waiting[0]
}

// places tells each task that waits where it is.
func (q *queue) places(now time.Time, tell func(*live, *task.Place)) {
	for i, l := range q.waiting {
		tell(l, q.at(i, now))
	}
}

// took notes how long a task took.
func (q *queue) took(d time.Duration) {
	q.recent = append(q.recent, max(d, 0))
	if len(q.recent) > recentMost {
		q.recent = q.recent[1:]
	}
}

// place gives where a task waits; nil where it does not.
func (q *queue) place(l *live, now time.Time) *task.Place {
	i, waits := slices.BinarySearchFunc(q.waiting, l, turn)
	if !waits {
		return nil
	}
	return q.at(i, now)
}

// at gives the place of the task with an index. The estimate: those before it share the
// slots, each taking as long as the last ones did on average, behind what is left of the
// one that ends first.
func (q *queue) at(i int, now time.Time) *task.Place {
	p := &task.Place{Position: i + 1}
	if len(q.recent) == 0 {
		return p
	}
	var sum time.Duration
	for _, d := range q.recent {
		sum += d
	}
	mean := sum / time.Duration(len(q.recent))
	first := mean
	for _, began := range q.began {
		first = min(first, max(mean-now.Sub(began), mean/10))
	}
	p.EstimatedWait = first + mean*time.Duration(i)/time.Duration(q.slots)
	return p
}
