package sqlite

import (
	"context"
	"database/sql"
	"sync"
)

const (
	// walStep is after how many written bytes the checkpointer copies.
	walStep = 8 << 20
	// walMost is past how many bytes of WAL the checkpointer holds up the commits
	// to copy the rest, after which the WAL is written from its start again. While
	// commits go on beside it, it can never quite catch up.
	walMost = 32 << 20
	// pagesPerChange is about how many pages a change writes besides output; it
	// only decides when the next copying begins.
	pagesPerChange = 8
)

// checkpointer copies the WAL into the database file, on a goroutine and a
// connection of its own.
type checkpointer struct {
	w    *writer
	conn *sql.Conn // used by the goroutine alone, once started

	written int           // bytes since the last kick; the writer's
	kick    chan struct{} // capacity 1: there is something to copy; closed by stop

	done sync.WaitGroup
}

func newCheckpointer(ctx context.Context, w *writer) (*checkpointer, error) {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	c := &checkpointer{w: w, conn: conn, kick: make(chan struct{}, 1)}
	c.done.Add(1)
	return c, nil
}

// grown tells how much a commit has written. Only the writer calls it.
func (c *checkpointer) grown(size int) {
	if c.written += size; c.written < walStep {
		return
	}
	c.written = 0
	select {
	case c.kick <- struct{}{}:
	default: // it is busy, and will find this too
	}
}

// stop waits for the goroutine. The writer has ended before.
func (c *checkpointer) stop() {
	close(c.kick)
	c.done.Wait()
}

func (c *checkpointer) run() {
	defer c.done.Done()
	for range c.kick {
		if size := c.copy(); size > walMost {
			c.w.turn.Lock()
			c.copy()
			c.w.turn.Unlock()
		}
	}
}

// copy copies as much as readers allow and gives the size of the WAL in bytes. A
// failure costs nothing but a longer WAL: the next round tries again.
func (c *checkpointer) copy() int {
	var busy, frames, copied int
	err := c.conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &frames, &copied)
	if err != nil {
		c.w.log.Warn("the store could not copy its log into the database file", "error", err)
		return 0
	}
	return frames * pageSize
}
