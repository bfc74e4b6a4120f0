package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// The writer numbers the changes of all commands, and each command has the number
// of its last one. A transaction begins at the last number that was committed, so
// that one which is rolled back has used none, and commits follow each other: who
// has seen a number has seen all below it. What a deletion takes away from the end
// is kept in change_floor, which nothing else writes: an ordinary change costs an
// entry of an index.

// selectLastChange reads the last number that was given.
const selectLastChange = "SELECT max((SELECT ifnull(max(changed), 0) FROM command), (SELECT number FROM change_floor))"

// selectChanged finds the commands that have changed behind a number.
const selectChanged = "SELECT changed, id FROM command INDEXED BY command_changed WHERE changed > ? ORDER BY changed LIMIT ?"

// LastChange is store.Store's.
func (s *Store) LastChange(ctx context.Context) (last int64, err error) {
	const op = "sqlite.LastChange"
	leave, err := s.enter(op)
	if err != nil {
		return 0, err
	}
	defer leave()
	err = s.read.QueryRowContext(ctx, selectLastChange).Scan(&last)
	return last, failed(op, err)
}

// Changes is store.Store's. Its cost is a seek and what it gives.
func (s *Store) Changes(ctx context.Context, after int64, limit int) ([]command.Changed, error) {
	const op = "sqlite.Changes"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	list, err := s.changes(ctx, after, limit)
	return list, failed(op, err)
}

// changes finds the ids and reads the rows in one transaction: with a look at each,
// a command that changes meanwhile would be told with a number that is not its own.
func (s *Store) changes(ctx context.Context, after int64, limit int) ([]command.Changed, error) {
	find, done, err := s.lists.prepared(ctx, s.read, selectChanged)
	if err != nil {
		return nil, err
	}
	defer done()
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() // nothing was written
	list, err := readChanged(tx.StmtContext(ctx, find).QueryContext(ctx, after, limit))
	if err != nil {
		return nil, err
	}
	get := tx.StmtContext(ctx, s.getOne)
	for i := range list {
		id := list[i].Command.ID
		c, err := scanCommand(get.QueryRowContext(ctx, id).Scan, s.key)
		if _, damage := errors.AsType[*fault.Error](err); damage || errors.Is(err, sql.ErrNoRows) {
			s.log.Warn("a damaged record has changed", "command", id, "error", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		list[i].Command = c
	}
	return list, nil
}

// readChanged gives numbers and ids.
func readChanged(rows *sql.Rows, err error) (list []command.Changed, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c command.Changed
		if err := rows.Scan(&c.Number, &c.Command.ID); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}
