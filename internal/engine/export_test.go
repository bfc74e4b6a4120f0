package engine

import "time"

// SetTail sets how many changes a watcher of events may be behind, before Run is
// called.
func (e *Engine) SetTail(most int) { e.feed.most = most }

// Told is how much the feed has in memory: places in its tail, commands, and how many
// of those have not ended.
func (e *Engine) Told() (places, known, living int) {
	e.feed.mu.Lock()
	defer e.feed.mu.Unlock()
	return len(e.feed.tail), len(e.feed.current), len(e.feed.ids)
}

// Input is how many bytes of input a watcher has in memory.
func (w *Events) Input() (bytes int) {
	for _, c := range w.page {
		bytes += len(c.Command.Spec.Stdin)
	}
	return bytes
}

// SetStoreFirst sets how long a ladder waits for its cancel to be stored, before
// Run is called.
func (e *Engine) SetStoreFirst(d time.Duration) { e.storeFirst = d }
