package output

import "sync"

// Bell wakes any number of waiters at once. A waiter takes the channel before
// it looks at what it waits for, so that a ring in between is not missed:
//
//	for {
//		rung := bell.Rung()
//		if enough() { return }
//		select { case <-rung: case <-ctx.Done(): … }
//	}
//
// The zero value is ready. Ring costs next to nothing while nobody waits.
type Bell struct {
	mu sync.Mutex
	ch chan struct{} // closed by the next Ring; nil while nobody waits
}

// Rung gives a channel that the next Ring closes.
func (b *Bell) Rung() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// Ring wakes everyone who holds a channel from Rung.
func (b *Bell) Ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
