package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// Get is store.Store's.
func (s *Store) Get(ctx context.Context, id string) (command.Command, error) {
	const op = "sqlite.Get"
	leave, err := s.enter(op)
	if err != nil {
		return command.Command{}, err
	}
	defer leave()
	c, err := scanCommand(s.getOne.QueryRowContext(ctx, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = unknownCommand(id)
	}
	if err != nil {
		return command.Command{}, failed(op, err)
	}
	return c, nil
}

// selectOutput gives the pieces of a stream from the one that holds an offset on,
// each with what the record says of the stream; or one row without a piece where
// there is none.
const selectOutput = `SELECT c.earliest_stdout, c.earliest_stderr, c.stored_stdout, c.stored_stderr, o.offset, o.data
	FROM command c LEFT JOIN output_chunk o ON o.command = c.id AND o.stream = ?2 AND o.offset >=
		ifnull((SELECT max(offset) FROM output_chunk WHERE command = ?1 AND stream = ?2 AND offset <= ?3), 0)
	WHERE c.id = ?1 ORDER BY o.offset`

// ReadOutput is store.Store's. Its cost is a seek and the pieces it touches.
func (s *Store) ReadOutput(ctx context.Context, id string, stream command.Stream, offset int64, max int) ([]byte, error) {
	const op = "sqlite.ReadOutput"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if int(stream) >= len(command.Streams) || offset < 0 || max < 0 {
		return nil, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "there is no output of stream %d at offset %d (at most %d bytes)", stream, offset, max).WithOp(op)
	}
	data, err := s.output(ctx, id, stream, offset, max)
	return data, failed(op, err)
}

func (s *Store) output(ctx context.Context, id string, stream command.Stream, offset int64, limit int) (data []byte, err error) {
	rows, err := s.readOutput.QueryContext(ctx, id, int64(stream), offset)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	var earliest, stored command.Sizes
	end := int64(-1) // behind the last byte to return; -1 before the first row
	for next := offset; next != end && rows.Next(); next = offset + int64(len(data)) {
		var at sql.NullInt64
		var piece sql.RawBytes // valid until the next Next; copied into data at once
		err := rows.Scan(&earliest[command.Stdout], &earliest[command.Stderr],
			&stored[command.Stdout], &stored[command.Stderr], &at, &piece)
		if err != nil {
			return nil, err
		}
		if end < 0 {
			if offset < earliest[stream] {
				return nil, trimmed(id, stream, offset, earliest[stream])
			}
			if end = min(offset+int64(limit), stored[stream]); end <= offset {
				return nil, nil
			}
			data = make([]byte, 0, end-offset)
		}
		if !at.Valid || at.Int64 > next || at.Int64+int64(len(piece)) <= next {
			return nil, hole(id, stream, next)
		}
		piece = piece[next-at.Int64:]
		data = append(data, piece[:min(int64(len(piece)), end-next)]...)
	}
	switch err := rows.Err(); {
	case err != nil:
		return nil, err
	case end < 0:
		return nil, unknownCommand(id)
	case int64(len(data)) < end-offset:
		return nil, hole(id, stream, offset+int64(len(data)))
	}
	return data, nil
}

func hole(id string, stream command.Stream, at int64) error {
	return damaged(id, fmt.Errorf("%s has a hole at %d", stream, at))
}
