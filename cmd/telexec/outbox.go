package main

import (
	"context"
	"slices"
	"sync"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// parcel is keys, something to do with the keyboard, or the last thing of all.
type parcel struct {
	keys   []byte
	action telexecv1.KeyboardAction
	leave  bool
}

func (p parcel) isKeys() bool { return p.action == 0 && !p.leave }

// mostKeys is how much of what was typed waits to be sent.
const mostKeys = 1 << 20

// outbox has what was typed and not sent yet, in order.
type outbox struct {
	mu      sync.Mutex
	parcels []parcel
	size    int           // of the keys in them
	filled  chan struct{} // has an element when there is something; capacity 1
	emptied chan struct{} // has an element when there is room again; capacity 1
}

func newOutbox() *outbox {
	return &outbox{filled: make(chan struct{}, 1), emptied: make(chan struct{}, 1)}
}

// add adds a parcel; false where it is full.
func (o *outbox) add(p parcel) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(p.keys) > 0 && o.size > mostKeys {
		return false
	}
	o.size += len(p.keys)
	if n := len(o.parcels); n > 0 && p.isKeys() && o.parcels[n-1].isKeys() {
		o.parcels[n-1].keys = append(o.parcels[n-1].keys, p.keys...)
	} else {
		p.keys = slices.Clone(p.keys)
		o.parcels = append(o.parcels, p)
	}
	ring(o.filled)
	return true
}

// put adds a parcel, and waits for room until ctx ends.
func (o *outbox) put(ctx context.Context, p parcel) {
	for !o.add(p) {
		select {
		case <-o.emptied:
		case <-ctx.Done():
			return
		}
	}
}

// take gives the next parcel; false when ctx has ended.
func (o *outbox) take(ctx context.Context) (parcel, bool) {
	for {
		o.mu.Lock()
		if len(o.parcels) > 0 {
			p := o.parcels[0]
			o.parcels = slices.Delete(o.parcels, 0, 1)
			o.size -= len(p.keys)
			o.mu.Unlock()
			ring(o.emptied)
			return p, true
		}
		o.mu.Unlock()
		select {
		case <-o.filled:
		case <-ctx.Done():
			return parcel{}, false
		}
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default: // it is rung already
	}
}
