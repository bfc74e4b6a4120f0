package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/store/sqlite/bulk"
)

// Get is store.Store's.
func (s *Store) Get(ctx context.Context, id string) (command.Command, error) {
	const op = "sqlite.Get"
	leave, err := s.enter(op)
	if err != nil {
		return command.Command{}, err
	}
	defer leave()
	c, err := scanCommand(s.getOne.QueryRowContext(ctx, id).Scan, s.key)
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
const selectOutput = `SELECT c.earliest_stdout, c.earliest_stderr, c.stored_stdout, c.stored_stderr, o.offset, o.data, o.filed
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
	for before := int64(-1); ; {
		data, earliest, err := s.output(ctx, id, stream, offset, max)
		// Retention may take a file away between the look at the record and that at
		// the file; then the record says so by now.
		if errors.Is(err, bulk.ErrDamaged) && earliest != before {
			before = earliest
			continue
		}
		if errors.Is(err, bulk.ErrDamaged) {
			err = damaged(id, err)
		}
		return data, failed(op, err)
	}
}

// output also gives the earliest offset of the stream that it met.
func (s *Store) output(ctx context.Context, id string, stream command.Stream, offset int64, limit int) (data []byte, begin int64, err error) {
	rows, err := s.readOutput.QueryContext(ctx, id, int64(stream), offset)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	var earliest, stored command.Sizes
	end := int64(-1) // behind the last byte to return; -1 before the first row
	for next := offset; next != end && rows.Next(); next = offset + int64(len(data)) {
		var at, inFile sql.NullInt64
		var piece sql.RawBytes // valid until the next Next; copied into data at once
		err := rows.Scan(&earliest[command.Stdout], &earliest[command.Stderr],
			&stored[command.Stdout], &stored[command.Stderr], &at, &piece, &inFile)
		if err != nil {
			return nil, begin, err
		}
		if end < 0 {
			begin = earliest[stream]
			if offset < begin {
				return nil, begin, trimmed(id, stream, offset, begin)
			}
			if end = min(offset+int64(limit), stored[stream]); end <= offset {
				return nil, begin, nil
			}
			data = make([]byte, 0, end-offset)
		}
		length := int64(len(piece))
		if inFile.Valid {
			length = inFile.Int64
		}
		if !at.Valid || at.Int64 > next || at.Int64+length <= next {
			return nil, begin, hole(id, stream, next)
		}
		to := min(at.Int64+length, end)
		if !inFile.Valid {
			data = append(data, piece[next-at.Int64:to-at.Int64]...)
			continue
		}
		data = data[:to-offset]
		e := bulk.Extent{Offset: at.Int64, Length: length, Sums: piece}
		if err := s.files.Read(id, stream, e, next, data[next-offset:]); err != nil {
			return nil, begin, notRead(err)
		}
	}
	switch err := closeRows(rows); {
	case err != nil:
		return nil, begin, err
	case end < 0:
		return nil, begin, unknownCommand(id)
	case int64(len(data)) < end-offset:
		return nil, begin, hole(id, stream, offset+int64(len(data)))
	}
	return data, begin, nil
}

func hole(id string, stream command.Stream, at int64) error {
	return damaged(id, fmt.Errorf("%s has a hole at %d", stream, at))
}

// closeRows closes rows and gives what reading them has failed with. A Scan into
// RawBytes holds a lock of rows until Next or Close, and Err takes it once more: alone,
// behind the Scan, it would wait for ever where the context ends at that moment.
func closeRows(rows *sql.Rows) error { return errors.Join(rows.Close(), rows.Err()) }
