package engine

import "time"

// SetTail sets how many changes a watcher of events may be behind, before Run is
// called.
func (e *Engine) SetTail(most int) { e.feed.most = most }

// SetStoreFirst sets how long a ladder waits for its cancel to be stored, before
// Run is called.
func (e *Engine) SetStoreFirst(d time.Duration) { e.storeFirst = d }
