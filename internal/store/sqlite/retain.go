package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/store"
)

// Retention finds its work by indexes on what is left to do and does it in steps
// of bounded size, each a transaction of the writer: a step of a gigabyte would
// hold up every commit for a second.

const (
	stepPieces   = 512     // rows of output removed in one step: 32 MiB at most
	stepOrder    = 512     // rows of its order looked at in one step: 2 MiB at most
	stepCommands = 32      // commands or sessions deleted in one step, each with
	stepBytes    = 1 << 20 // so much output at most
	stepTasks    = 4       // tasks deleted in one step; one may have thousands of events
	batchDefault = 100
)

// Retain is store.Store's.
func (s *Store) Retain(ctx context.Context, r command.Retention) (done command.Retained, err error) {
	const op = "sqlite.Retain"
	leave, err := s.enter(op)
	if err != nil {
		return done, err
	}
	defer leave()
	if r.Batch <= 0 {
		r.Batch = batchDefault
	}
	round := retention{s: s, Retention: r}
	err = round.run(ctx)
	return round.done, failed(op, err)
}

// retention is one round.
type retention struct {
	command.Retention
	s    *Store
	done command.Retained
}

func (r *retention) run(ctx context.Context) error {
	if r.DeleteAfter > 0 {
		if err := r.deleteOld(ctx); err != nil {
			return err
		}
		if err := r.deleteOldSessions(ctx); err != nil {
			return err
		}
		if err := r.deleteOldTasks(ctx); err != nil {
			return err
		}
	}
	if r.TrimTo > 0 {
		if err := r.trimLong(ctx); err != nil {
			return err
		}
	}
	return r.forget(ctx)
}

// candidate is a command that retention may have to act on, or a session, which has
// no streams.
type candidate struct {
	id               string
	end              int64 // microseconds
	earliest, stored command.Sizes
}

// candidates asks for commands or sessions that ended before a time. Those in use are passed
// over; asking for Batch of the others, it goes on behind them.
func (r *retention) candidates(ctx context.Context, text string, args func(after candidate) []any) ([]candidate, error) {
	var found []candidate
	var last candidate
	for len(found) < r.left() {
		rows, err := r.s.read.QueryContext(ctx, text, append(args(last), r.Batch)...)
		if err != nil {
			return nil, err
		}
		n := 0
		for rows.Next() {
			n++
			var c candidate
			if err := rows.Scan(&c.id, &c.end, &c.earliest[0], &c.earliest[1], &c.stored[0], &c.stored[1]); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			last = c
			if r.InUse == nil || !r.InUse(c.id) {
				found = append(found, c)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
		if n < r.Batch {
			break
		}
	}
	if len(found) >= r.left() {
		r.done.More = true
		found = found[:r.left()]
	}
	return found, nil
}

// left is how many commands, sessions and tasks of the batch are left.
func (r *retention) left() int {
	return r.Batch - r.done.Trimmed - r.done.Deleted - r.done.Sessions - r.done.Tasks
}

const selectCandidates = "SELECT id, end_time, earliest_stdout, earliest_stderr, stored_stdout, stored_stderr FROM command "

var (
	// A record with an end time in a state that is no end would be wrong; it is
	// better kept than its running command deleted.
	ended = func() string {
		var names []string
		for _, state := range command.States {
			if state.Ended() {
				names = append(names, "'"+string(state)+"'")
			}
		}
		return " AND state IN (" + strings.Join(names, ", ") + ")"
	}()

	selectOld = selectCandidates + "INDEXED BY command_end WHERE end_time > 0 AND end_time <= ? AND (end_time, id) > (?, ?)" +
		ended + " ORDER BY end_time, id LIMIT ?"
	selectOldSessions = "SELECT id, end_time, 0, 0, 0, 0 FROM session INDEXED BY session_end WHERE end_time > 0 AND end_time <= ? AND (end_time, id) > (?, ?)" +
		" AND state = '" + string(session.Ended) + "' ORDER BY end_time, id LIMIT ?"
	// One that is undone again has no end.
	selectOldTasks = "SELECT id, end_time, 0, 0, 0, 0 FROM task INDEXED BY task_end WHERE end_time > 0 AND end_time <= ? AND (end_time, id) > (?, ?)" +
		" ORDER BY end_time, id LIMIT ?"
	// A command that was cut has no more than TrimTo and is not met again.
	selectLong = selectCandidates + "INDEXED BY command_kept WHERE kept > 0 AND kept > ? AND end_time <= ? AND (kept, end_time, id) > (?, ?, ?)" +
		ended + " ORDER BY kept, end_time, id LIMIT ?"
)

func (r *retention) deleteOld(ctx context.Context) error {
	before := micros(r.Now.Add(-r.DeleteAfter))
	old, err := r.candidates(ctx, selectOld, func(after candidate) []any { return []any{before, after.end, after.id} })
	if err != nil {
		return err
	}
	for group := range slices.Chunk(old, stepCommands) {
		// Much output first, in steps of its own.
		for i := range group {
			c := &group[i]
			if c.stored[0]-c.earliest[0]+c.stored[1]-c.earliest[1] > stepBytes {
				if err := r.cut(ctx, c, c.stored); err != nil {
					return err
				}
			}
		}
		err := r.step(ctx, func(ctx context.Context, w *writer) error {
			for _, c := range group {
				if err := w.delete(ctx, c.id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		r.done.Deleted += len(group)
		for _, c := range group {
			r.s.tidied(c.id, r.s.removeFiles(context.WithoutCancel(ctx), c.id))
		}
	}
	return nil
}

// deleteOldSessions deletes sessions, and their recordings behind that: what is
// removed first would be missed by whoever reads it.
func (r *retention) deleteOldSessions(ctx context.Context) error {
	before := micros(r.Now.Add(-r.DeleteAfter))
	old, err := r.candidates(ctx, selectOldSessions, func(after candidate) []any { return []any{before, after.end, after.id} })
	if err != nil {
		return err
	}
	for group := range slices.Chunk(old, stepCommands) {
		if err := r.step(ctx, func(ctx context.Context, w *writer) error {
			for _, c := range group {
				if _, err := w.deleteSession.ExecContext(ctx, c.id); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		r.done.Sessions += len(group)
		for _, c := range group {
			r.s.tidied(c.id, r.s.tidyRecording(context.WithoutCancel(ctx), c.id))
		}
	}
	return nil
}

// deleteOldTasks deletes tasks with all that has happened to them. One that is undone
// since it was found stays.
func (r *retention) deleteOldTasks(ctx context.Context) error {
	before := micros(r.Now.Add(-r.DeleteAfter))
	old, err := r.candidates(ctx, selectOldTasks, func(after candidate) []any { return []any{before, after.end, after.id} })
	if err != nil {
		return err
	}
	for group := range slices.Chunk(old, stepTasks) {
		deleted := 0
		if err := r.step(ctx, func(ctx context.Context, w *writer) error {
			for _, c := range group {
				result, err := w.deleteTask.ExecContext(ctx, c.id, before)
				if err != nil {
					return err
				}
				n, err := result.RowsAffected()
				if err != nil {
					return err
				}
				deleted += int(n)
			}
			return nil
		}); err != nil {
			return err
		}
		r.done.Tasks += deleted
	}
	return nil
}

func (r *retention) trimLong(ctx context.Context) error {
	before := micros(r.Now.Add(-r.TrimAfter))
	long, err := r.candidates(ctx, selectLong, func(after candidate) []any {
		return []any{r.TrimTo, before, after.kept(), after.end, after.id}
	})
	if err != nil {
		return err
	}
	for i := range long {
		c := &long[i]
		to := c.earliest
		for _, s := range command.Streams {
			to[s] = max(to[s], c.stored[s]-r.TrimTo)
		}
		if err := r.cut(ctx, c, to); err != nil {
			return err
		}
		r.done.Trimmed++
		r.s.tidied(c.id, r.s.tidy(context.WithoutCancel(ctx), c.id))
	}
	return nil
}

// kept is the column of that name.
func (c *candidate) kept() int64 {
	return max(c.stored[0]-c.earliest[0], c.stored[1]-c.earliest[1])
}

// cut removes the output of c before to, exactly, and keeps c.earliest in step
// with what is stored.
func (r *retention) cut(ctx context.Context, c *candidate, to command.Sizes) error {
	for more := false; more || c.earliest != to; {
		next := c.earliest
		err := r.step(ctx, func(ctx context.Context, w *writer) (err error) {
			if next, err = w.cut(ctx, c.id, c.earliest, to); err == nil {
				more, err = w.cutOrder(ctx, c.id, next)
			}
			return err
		})
		if err != nil {
			return err
		}
		c.earliest = next
	}
	return nil
}

func (r *retention) forget(ctx context.Context) error {
	before := micros(r.Now.Add(-store.RequestIDLife))
	for table, forget := range map[string]func(*writer) *sql.Stmt{
		"request":      func(w *writer) *sql.Stmt { return w.forgetRequests },
		"task_request": func(w *writer) *sql.Stmt { return w.forgetTaskRequests },
	} {
		// Most rounds of most services find none: a look costs no transaction.
		var due bool
		if err := r.s.read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM "+table+" WHERE create_time <= ?)", before).Scan(&due); err != nil {
			return err
		}
		if !due {
			continue
		}
		most := int64(10 * r.Batch)
		var forgotten int64
		if err := r.step(ctx, func(ctx context.Context, w *writer) error {
			result, err := forget(w).ExecContext(ctx, before, most)
			if err != nil {
				return err
			}
			forgotten, err = result.RowsAffected()
			return err
		}); err != nil {
			return err
		}
		if forgotten == most {
			r.done.More = true
		}
	}
	return nil
}

// step does one step on the writer, unless the store is closing. What do sets may
// be read only when step gives nil: otherwise the writer may still be at it.
func (r *retention) step(ctx context.Context, do func(ctx context.Context, w *writer) error) error {
	select {
	case <-r.s.closing:
		return errClosed
	default:
	}
	w := r.s.writer
	return w.do(ctx, 0, func() (err error) {
		ctx := context.Background()
		// Bulk output is not worth overwriting when it is freed. Not as prepared
		// statements: this pragma takes effect when it is prepared.
		if _, err := w.conn.ExecContext(ctx, "PRAGMA secure_delete = FAST"); err != nil {
			return err
		}
		defer func() {
			if _, e := w.conn.ExecContext(ctx, "PRAGMA secure_delete = ON"); err == nil {
				err = e
			}
		}()
		return do(ctx, w)
	})
}

// cut runs on the writer's goroutine: one step of removing output before to. It
// gives the new earliest offsets.
func (w *writer) cut(ctx context.Context, id string, earliest, to command.Sizes) (command.Sizes, error) {
	room := int64(stepPieces)
	for _, s := range command.Streams {
		if earliest[s] >= to[s] {
			continue
		}
		// The first piece that is too many for this step, if there is one.
		until := to[s]
		err := w.pieceAfter.QueryRowContext(ctx, id, int64(s), to[s], room).Scan(&until)
		below := until // pieces that begin before go whole
		if errors.Is(err, sql.ErrNoRows) {
			below, err = w.split(ctx, id, s, until)
		}
		if err != nil {
			return earliest, err
		}
		result, err := w.deletePieces.ExecContext(ctx, id, int64(s), below)
		if err != nil {
			return earliest, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return earliest, err
		}
		earliest[s] = until
		if room -= n; room <= 0 {
			break
		}
	}
	_, err := w.setEarliest.ExecContext(ctx, id, earliest[command.Stdout], earliest[command.Stderr])
	return earliest, err
}

// split makes a piece begin at an offset that lies inside of one, and gives the
// offset below which pieces go whole. An extent in a file stays as it is: the
// checksum of the block at the offset is over all of it.
func (w *writer) split(ctx context.Context, id string, s command.Stream, at int64) (below int64, err error) {
	var from int64
	var data []byte
	var inFile sql.NullInt64
	switch err := w.pieceAt.QueryRowContext(ctx, id, int64(s), at).Scan(&from, &data, &inFile); {
	case errors.Is(err, sql.ErrNoRows):
		return at, nil
	case err != nil:
		return 0, err
	case inFile.Valid && from+inFile.Int64 > at:
		return from, nil
	case inFile.Valid || from == at || from+int64(len(data)) <= at:
		return at, nil
	}
	_, err = w.insertPiece.ExecContext(ctx, id, int64(s), at, data[at-from:], nil)
	return at, err
}

// delete runs on the writer's goroutine and removes a command with all that
// belongs to it; what has a foreign key goes with the record.
func (w *writer) delete(ctx context.Context, id string) error {
	var principal, requestID string
	var packed []byte
	err := w.belongings.QueryRowContext(ctx, id).Scan(&principal, &requestID, &packed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	// Labels that cannot be read leave rows behind that lists pass over; they must
	// not keep the command for ever.
	labels, _ := unpackMap(packed)
	for name, value := range labels {
		if _, err := w.deleteLabel.ExecContext(ctx, name, value, id); err != nil {
			return err
		}
	}
	if requestID != "" {
		if _, err := w.deleteRequest.ExecContext(ctx, principal, requestID, id); err != nil {
			return err
		}
	}
	if _, err := w.raiseFloor.ExecContext(ctx, id); err != nil {
		return err
	}
	_, err = w.deleteCommand.ExecContext(ctx, id)
	return err
}
