package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
)

// How much one transaction takes at most. A larger one would make its first
// caller wait for the last one's bytes.
const (
	groupChanges = 256
	groupBytes   = 8 << 20
)

// change is one caller's part of a transaction.
type change struct {
	// do does it, on the writer's goroutine and connection. A *fault.Error means
	// that it was refused and wrote nothing; any other error is the database's and
	// rolls the transaction back. It may be called again after a rollback.
	do   func() error
	size int           // bytes of output in it
	done chan struct{} // closed by the writer when err is final
	err  error         // written before done is closed
}

// writer makes all changes, on one connection and one goroutine.
type writer struct {
	log  *slog.Logger
	db   *sql.DB   // two connections: conn and the checkpointer's
	conn *sql.Conn // used by the writer's goroutine alone, once started
	key  *seal.Key
	statements

	// The end of the audit; see audit.go. The writer's goroutine has them.
	committed, next chain

	// The number of the last change, in the store and in the transaction under way;
	// see changes.go. The writer's goroutine has them.
	lastChange, nextChange int64

	// turn is held while a transaction is under way, and by the checkpointer where
	// it must have the WAL to itself.
	turn sync.Mutex

	checkpointer *checkpointer

	mu     sync.Mutex
	queue  []*change     // not begun
	closed bool          // nothing more is queued
	wake   chan struct{} // capacity 1: something is queued, or closed is set

	started bool // by start, before which there is nothing to wait for
	ended   chan struct{}
}

// newWriter opens the file and migrates it.
func newWriter(ctx context.Context, path string, key *seal.Key, log *slog.Logger) (_ *writer, err error) {
	w := &writer{log: log, key: key, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	w.db, err = sql.Open("sqlite", dsn(path, "rw", writerCache,
		"synchronous(FULL)",
		// The checkpointer does it; a commit never does.
		"wal_autocheckpoint(0)",
		"journal_size_limit("+itoa(walMost)+")",
		// What an Apply removes, such as the secrets of a start, is overwritten.
		"secure_delete(1)"))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = w.close()
		}
	}()
	if w.conn, err = w.db.Conn(ctx); err != nil {
		return nil, err
	}
	// The page size of an empty file, then the mode that fixes it.
	if _, err = w.conn.ExecContext(ctx, "PRAGMA page_size = "+itoa(pageSize)); err != nil {
		return nil, err
	}
	var mode string
	if err = w.conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return nil, err
	}
	if mode != "wal" {
		return nil, unavailable(fmt.Errorf("journal mode is %s", mode), "the store's file system has no shared memory for WAL",
			"Put the data directory on a local file system")
	}
	if err = migrate(ctx, w.conn, migrations, w.key); err != nil {
		return nil, err
	}
	if err = w.statements.prepare(ctx, w.conn); err != nil {
		return nil, err
	}
	if err = w.resume(ctx); err != nil {
		return nil, err
	}
	if err = w.conn.QueryRowContext(ctx, selectLastChange).Scan(&w.lastChange); err != nil {
		return nil, err
	}
	w.checkpointer, err = newCheckpointer(ctx, w)
	return w, err
}

func (w *writer) start() {
	w.started = true
	go w.run()
	go w.checkpointer.run()
}

// close lets the queue run empty and ends the goroutines.
func (w *writer) close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	if w.started {
		w.ring()
		<-w.ended
		w.checkpointer.stop()
	}
	var errs []error
	if w.checkpointer != nil {
		errs = append(errs, w.checkpointer.conn.Close())
	}
	if w.conn != nil {
		errs = append(errs, w.statements.close(), w.conn.Close())
	}
	return errors.Join(append(errs, w.db.Close())...)
}

// do queues a change and waits for its answer. Where ctx ends first, a change
// that has not begun is withdrawn; of one that has, the error says that it may
// have happened.
func (w *writer) do(ctx context.Context, size int, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &change{do: do, size: size, done: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return errClosed
	}
	w.queue = append(w.queue, c)
	w.mu.Unlock()
	w.ring()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	w.mu.Lock()
	i := slices.Index(w.queue, c)
	if i >= 0 {
		w.queue = slices.Delete(w.queue, i, i+1)
	}
	w.mu.Unlock()
	if i >= 0 {
		return ctx.Err()
	}
	select {
	case <-c.done: // both at once: the answer is better
		return c.err
	default:
	}
	e := fault.From(ctx.Err())
	e.Message += " while the change was being stored; it may have been applied"
	return e.WithHint("Read the command again before you repeat the change")
}

func (w *writer) ring() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// await waits until something is queued; false when nothing ever will be again.
func (w *writer) await() bool {
	for {
		w.mu.Lock()
		n, closed := len(w.queue), w.closed
		w.mu.Unlock()
		if n > 0 || closed {
			return n > 0
		}
		<-w.wake
	}
}

// take removes the next group from the queue. From then on its changes can no
// longer be withdrawn.
func (w *writer) take() (group []*change, size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(w.queue) && n < groupChanges && (n == 0 || size+w.queue[n].size <= groupBytes) {
		size += w.queue[n].size
		n++
	}
	group = slices.Clone(w.queue[:n])
	w.queue = slices.Delete(w.queue, 0, n)
	return group, size
}

func (w *writer) run() {
	defer close(w.ended)
	for w.await() {
		w.turn.Lock()
		group, size := w.take() // empty where all were withdrawn meanwhile
		if len(group) > 0 {
			w.commit(group)
		}
		w.turn.Unlock()
		for _, c := range group {
			close(c.done)
		}
		w.checkpointer.grown(size + len(group)*pageSize*pagesPerChange)
	}
}

// commit makes the changes of a group in one transaction and sets their errors.
// Where the database fails, nothing of the group has happened. If it failed at
// one change, each is tried alone, so that one that cannot be stored does not
// fail the others. If it failed at the transaction, it would do so again, and
// may take as long as lockWait for it: all that are left fail at once.
func (w *writer) commit(group []*change) {
	culprit, err := w.try(group)
	for alone := culprit != nil && len(group) > 1; alone && len(group) > 0; group = group[1:] {
		if culprit, err = w.try(group[:1]); err != nil && culprit == nil {
			break
		}
	}
	if err != nil && culprit == nil {
		for _, c := range group {
			c.err = err
		}
	}
}

// try makes the changes of a group in one transaction. On an error nothing has
// happened; culprit is the change that failed, nil where it was the transaction.
func (w *writer) try(group []*change) (culprit *change, err error) {
	// The end of one caller's context must not end what others share.
	ctx := context.Background()
	if _, err := w.begin.ExecContext(ctx); err != nil {
		return nil, err
	}
	w.next, w.nextChange = w.committed, w.lastChange
	for _, c := range group {
		c.err = c.do()
		if _, refused := errors.AsType[*fault.Error](c.err); c.err != nil && !refused {
			w.undo(ctx)
			return c, c.err
		}
	}
	err = w.writeHead(ctx)
	if err == nil {
		_, err = w.end.ExecContext(ctx)
	}
	if err != nil {
		w.undo(ctx)
		return nil, err
	}
	w.committed, w.lastChange = w.next, w.nextChange
	return nil, nil
}

// undo rolls back. After some failures SQLite has done so itself, and the error
// says only that.
func (w *writer) undo(ctx context.Context) { _, _ = w.rollback.ExecContext(ctx) }
