package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/store/sqlite/bulk"
)

// A recording is a file that grows, and rows with the checksums of what lies in it:
//
//	rows:  [ 0: 4 MiB, 64 sums ][ 4 MiB: 4 MiB, 64 sums ][ 8 MiB: 70 KiB, 2 sums ]
//	file:  [ bytes ............ ][ bytes ............... ][ bytes ](never recorded)
//
// The bytes of an append are on the disk before the transaction that makes them part
// of the last row. What a crash left behind the end is written over by the next
// append, or cut by the sweep. So a recording costs a row for 4 MiB, however small
// the pieces are that it comes in; removing it is removing a file.

// castSize is how much of a recording a row is about.
const castSize = 4 << 20

// cast is the one stream of a recording.
const cast = command.Stream(0)

// selectRecordingEnd gives the last row of a recording; NULLs where there is none,
// and nothing where there is no session.
const selectRecordingEnd = `SELECT r.offset, r.length, r.sums FROM session s
	LEFT JOIN session_recording r ON r.session = s.id WHERE s.id = ? ORDER BY r.offset DESC LIMIT 1`

// recordingEnd reads a row of selectRecordingEnd.
func recordingEnd(row *sql.Row) (last bulk.Extent, err error) {
	var offset, length sql.NullInt64
	err = row.Scan(&offset, &length, &last.Sums)
	last.Offset, last.Length = offset.Int64, length.Int64
	return last, err
}

// AppendRecording is store.Store's.
func (s *Store) AppendRecording(ctx context.Context, id string, offset int64, data []byte) error {
	const op = "sqlite.AppendRecording"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	return failed(op, s.appendRecording(ctx, id, offset, data))
}

// appendRecording holds the recording from a look at its end to the end of the
// transaction: meanwhile nobody else writes into its file, and it does not go away.
func (s *Store) appendRecording(ctx context.Context, id string, offset int64, data []byte) error {
	release, err := s.casts.Hold(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	last, err := recordingEnd(s.recordingEnd.QueryRowContext(ctx, id))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return unknownSession(id)
	case err != nil:
		return err
	case last.End() != offset:
		return notItsEnd(id, last.End(), offset)
	case len(data) == 0:
		return nil
	case !bulk.Named(id):
		return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the recording of a session with the id %q cannot be kept", id).
			WithHint("Give sessions ULIDs as ids")
	}
	if _, err := s.casts.Write(id, cast, []command.Chunk{{Stream: cast, Offset: offset, Data: data}}); err != nil {
		return notWritten(errors.Join(err, s.casts.Cut(id, cast, offset)))
	}
	rows := grown(last, data)
	// To give up now would mean to let go of the recording with its change in the queue.
	return s.writer.do(context.WithoutCancel(ctx), 0, func() error { return s.writer.record(id, offset, rows) })
}

// grown gives the rows that change when data comes behind the last one.
func grown(last bulk.Extent, data []byte) (rows []bulk.Extent) {
	for len(data) > 0 {
		if last.Length >= castSize {
			last = bulk.Extent{Offset: last.End()}
		}
		n := min(castSize-last.Length, int64(len(data)))
		last = last.Extended(data[:n])
		rows, data = append(rows, last), data[n:]
	}
	return rows
}

// record runs on the writer's goroutine: it makes bytes that lie in the file part of a
// recording that ends at an offset.
func (w *writer) record(id string, offset int64, rows []bulk.Extent) error {
	ctx := context.Background()
	last, err := recordingEnd(w.recordingEnd.QueryRowContext(ctx, id))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return unknownSession(id) // retention was faster, and removes the file next
	case err != nil:
		return err
	case last.End() != offset:
		return notItsEnd(id, last.End(), offset)
	}
	for _, e := range rows {
		if _, err := w.putRecording.ExecContext(ctx, id, e.Offset, e.Length, e.Sums); err != nil {
			return err
		}
	}
	return nil
}

func notItsEnd(id string, end, offset int64) *fault.Error {
	return fault.New(fault.Aborted, fault.ReasonInternal, "the recording of session %s ends at %d, not at %d", id, end, offset).
		WithHint("Go on at %d", end).With("recording_bytes", strconv.FormatInt(end, 10))
}

// selectRecording gives the rows of a recording that begin from one place on and before
// another, each with what is said of the whole: whether the session is recorded, and
// where the recording ends. One row without an extent where there is none; nothing
// where there is no session.
const selectRecording = `SELECT s.recorded, (SELECT offset + length FROM session_recording WHERE session = ?1 ORDER BY offset DESC LIMIT 1), r.offset, r.length, r.sums
	FROM session s LEFT JOIN session_recording r ON r.session = s.id AND r.offset >= ?2 AND r.offset < ?3
	WHERE s.id = ?1 ORDER BY r.offset`

// ReadRecording is store.Store's.
func (s *Store) ReadRecording(ctx context.Context, id string, offset int64, limit int) ([]byte, error) {
	const op = "sqlite.ReadRecording"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if offset < 0 || limit < 0 {
		return nil, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "there is no recording at offset %d (at most %d bytes)", offset, limit).
			WithHint("Read from offset 0 on").WithOp(op)
	}
	data, err := s.recording(ctx, id, offset, limit)
	// Retention may take the file away between the look at the record and that at the
	// file; then the record is gone by now.
	if errors.Is(err, bulk.ErrDamaged) {
		data, err = s.recording(ctx, id, offset, limit)
	}
	if errors.Is(err, bulk.ErrDamaged) {
		err = damagedSession(id, err)
	}
	if err != nil {
		return nil, failed(op, err)
	}
	return data, nil
}

// recording reads from the file what the rows say is in it.
func (s *Store) recording(ctx context.Context, id string, offset int64, limit int) ([]byte, error) {
	extents, end, err := s.extents(ctx, id, offset, limit)
	if err != nil || offset >= end {
		return nil, err
	}
	data := make([]byte, min(int64(limit), end-offset))
	rest := data
	for _, e := range extents {
		at := offset + int64(len(data)-len(rest))
		if at < e.Offset || at >= e.End() {
			break
		}
		n := min(e.End()-at, int64(len(rest)))
		if err := s.casts.Read(id, cast, e, at, rest[:n]); err != nil {
			return nil, notRead(err)
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: the recording has a hole at %d", bulk.ErrDamaged, offset+int64(len(data)-len(rest)))
	}
	return data, nil
}

// extents gives the rows that have bytes of a part of a recording, and where all of it
// ends.
func (s *Store) extents(ctx context.Context, id string, offset int64, limit int) (extents []bulk.Extent, end int64, err error) {
	to := offset + min(int64(limit), math.MaxInt64-offset)
	rows, err := s.readRecording.QueryContext(ctx, id, offset-offset%castSize, to)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	found := false
	for rows.Next() {
		var recorded bool
		var all, at, length sql.NullInt64
		var e bulk.Extent
		if err := rows.Scan(&recorded, &all, &at, &length, &e.Sums); err != nil {
			if !ofDatabase(err) {
				err = damagedSession(id, err)
			}
			return nil, 0, err
		}
		if !recorded && !all.Valid {
			return nil, 0, notRecorded(id)
		}
		found, end = true, all.Int64
		if at.Valid {
			e.Offset, e.Length = at.Int64, length.Int64
			extents = append(extents, e)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, err
	}
	if !found {
		return nil, 0, unknownSession(id)
	}
	return extents, end, nil
}

func notRecorded(id string) *fault.Error {
	return fault.New(fault.NotFound, fault.ReasonNotRecorded, "session %s has no recording", id).
		WithHint("Recordings are made where sessions.record is set, from the beginning of a session").With("session", id)
}

// tidyRecording brings the file of a recording in line with its rows: what was never
// recorded is removed, and all of it where there is no session.
func (s *Store) tidyRecording(ctx context.Context, id string) error {
	release, err := s.casts.Hold(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	last, err := recordingEnd(s.recordingEnd.QueryRowContext(ctx, id))
	if errors.Is(err, sql.ErrNoRows) {
		return s.casts.Remove(id)
	}
	if err != nil {
		return err
	}
	return s.casts.Cut(id, cast, last.End())
}
