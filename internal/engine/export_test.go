package engine

import "time"

// SetStoreFirst sets how long a ladder waits for its cancel to be stored, before
// Run is called.
func (e *Engine) SetStoreFirst(d time.Duration) { e.storeFirst = d }
