package access

import (
	"sync"
	"time"
)

// LateAfter is when a message, or the body of a request, that has begun and is not there
// whole is late: what has come of it is held in memory, and a caller may have few such.
const LateAfter = time.Second

// Lateness counts a message from when it is late until it is there.
type Lateness struct {
	Count  func() (release func(), err error)
	GiveUp func(why error) // ends the reading; called at most once, and not after End

	mu      sync.Mutex
	over    bool // it is there, or will not be
	release func()
	refused error
}

// Begin says that it is late. Where it may not be, GiveUp is called.
func (l *Lateness) Begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	if l.release, l.refused = l.Count(); l.refused != nil {
		l.GiveUp(l.refused)
	}
}

// End says that it is there, or will not be. It gives why it was given up; nil where
// it was not.
func (l *Lateness) End() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.refused == nil && l.release != nil {
		l.release()
	}
	return l.refused
}
