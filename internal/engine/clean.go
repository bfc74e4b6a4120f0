package engine

import (
	"context"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// What a host keeps of a run is removed when its end is stored. Where the
// service was killed in between, or never came back, something stays; it is
// looked for when the host is used anyway.
const (
	cleanEvery = time.Hour       // for a host that is in use
	cleanMost  = 2 * time.Minute // for one visit
)

// cleaning is when which host was cleaned last.
type cleaning struct {
	done sync.WaitGroup // visits; Add comes from owners, so before Run has waited for them

	mu   sync.Mutex
	last map[string]time.Time // by host
	busy map[string]bool      // hosts with a visit under way
}

func newCleaning() *cleaning {
	return &cleaning{last: make(map[string]time.Time), busy: make(map[string]bool)}
}

// begin reports whether a host is due now; the caller then calls end.
func (c *cleaning) begin(host string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, visited := c.last[host]; c.busy[host] || visited && now.Sub(last) < cleanEvery {
		return false
	}
	c.busy[host], c.last[host] = true, now
	return true
}

func (c *cleaning) end(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, host)
}

// clean removes what a host keeps of runs that are through, where that is due. It
// does not block.
func (e *Engine) clean(ctx context.Context, host inventory.Host) {
	if !e.cleaning.begin(host.Name, time.Now()) {
		return
	}
	e.cleaning.done.Go(func() {
		defer e.cleaning.end(host.Name)
		ctx, stop := context.WithTimeout(ctx, cleanMost)
		defer stop()
		var removed int
		err := e.guard("clean", "host", host.Name, func() (err error) {
			removed, err = e.runner.Clean(ctx, host, func(id string, old bool) bool { return e.through(ctx, id, old) })
			return err
		})
		switch {
		case err != nil && ctx.Err() == nil:
			e.log.Warn("what a host keeps of ended runs could not be removed", "host", host.Name, "error", err)
		case removed > 0:
			e.log.Info("removed what a host kept of ended runs", "host", host.Name, "runs", removed)
		}
	})
}

// through reports whether a command has ended for good, so that its host need
// keep nothing of it. One that the journal does not know may be another service's;
// one that was given up, because its host was away or not configured any more, has
// its end and its last output there, for whoever looks: both stay until they are old.
func (e *Engine) through(ctx context.Context, id string, old bool) bool {
	if e.find(id) != nil {
		return false
	}
	c, err := e.journal.Get(ctx, id)
	if err != nil {
		return old && fault.ReasonOf(err) == fault.ReasonUnknownCommand
	}
	return c.Ended() && (old || c.State != command.Lost || lostOnHost(c.Failure))
}

// lostOnHost reports whether it is the host itself that has said how it was lost.
func lostOnHost(f *command.Failure) bool {
	if f == nil {
		return false
	}
	switch f.Reason {
	case fault.ReasonHostRebooted, fault.ReasonSupervisorKilled, fault.ReasonRunRemoved, fault.ReasonNoExitStatus:
		return true
	}
	return false
}
