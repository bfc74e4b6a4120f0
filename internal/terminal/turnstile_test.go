package terminal

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
)

// Those who look at much of the screen take a small part of the owner's time, however many
// they are, and those who look at little do not wait for them.
func TestLookingTakesLittleOfTheOwnersTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(&Terminals{}, session.Session{Size: session.DefaultSize}, inventory.Host{})
		over := make(chan struct{})
		go func() {
			for {
				select {
				case f := <-l.calls:
					f()
				case <-over:
					return
				}
			}
		}()
		const long = 40 * time.Millisecond
		until := time.Now().Add(10 * time.Second)
		var all sync.WaitGroup
		var busy atomic.Int64
		for range 50 {
			all.Go(func() {
				for time.Now().Before(until) {
					if err := l.look(t.Context(), 10000, func() { busy.Add(int64(long)); <-time.After(long) }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		began := time.Now()
		if err := l.look(t.Context(), 1000, func() {}); err != nil || time.Since(began) > long {
			t.Errorf("who looks at little waited for %v, %v", time.Since(began), err)
		}
		<-time.After(time.Until(until))
		if took := time.Duration(busy.Load()); took > 2*time.Second+long {
			t.Errorf("of 10 s, %v went to those who look", took)
		}
		all.Wait()
		<-time.After(time.Second) // the last pause
		close(over)
	})
}
