package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/store/sqlite/bulk"
)

// Output goes into the database or into a file by how much of it comes at once.
// The files are written before the transaction, on the caller's goroutine: what
// is bulky holds up nobody else, and in the transaction it is a row of checksums.

// bulkSize is how many bytes of a stream in one change go into its file. Less is
// stored sooner without a second fsync.
const bulkSize = 256 << 10

// filed are the extents in files of a change; nil for a stream whose output goes
// into the database.
type filed [len(command.Streams)]*bulk.Extent

// bulky reports which streams of a change belong into files.
func (e *extent) bulky() (streams []command.Stream) {
	for _, s := range command.Streams {
		if e.to[s]-e.from[s] >= bulkSize {
			streams = append(streams, s)
		}
	}
	return streams
}

// applyBulk is Apply for a change of which the output of these streams is bulky.
//
// The compare-and-set is in the transaction, and what is written before must not
// touch what another owner has stored. So the command is held from a look at the
// record to the end of the transaction: meanwhile its record may change, but
// nobody else's output goes into its files, and none goes away.
func (s *Store) applyBulk(ctx context.Context, ch *command.Change, run extent, streams []command.Stream) error {
	id := ch.Command.ID
	release, err := s.files.Hold(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	at, err := s.whereOf(ctx, id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var laid filed
	// A change that will be refused is not written; it goes to the writer as it is.
	if err == nil && at.takes(ch, run) {
		for _, stream := range streams {
			e, err := s.files.Write(id, stream, ch.Output)
			if err != nil {
				for _, stream := range streams {
					err = errors.Join(err, s.files.Cut(id, stream, at.stored[stream]))
				}
				return notWritten(err)
			}
			laid[stream] = &e
			run.size -= int(e.Length)
		}
	}
	// To give up now would mean to let go of the command with its change in the queue.
	return s.writer.do(context.WithoutCancel(ctx), run.size, func() error { return s.writer.apply(ch, run, laid) })
}

// whereabouts is what a compare-and-set depends on, and what is stored.
type whereabouts struct {
	state            command.State
	fence            int64
	earliest, stored command.Sizes
}

// selectWhere reads the whereabouts of a command.
const selectWhere = "SELECT state, fence, earliest_stdout, earliest_stderr, stored_stdout, stored_stderr FROM command WHERE id = ?"

func scanWhere(row *sql.Row) (at whereabouts, err error) {
	err = row.Scan(&at.state, &at.fence, &at.earliest[command.Stdout], &at.earliest[command.Stderr],
		&at.stored[command.Stdout], &at.stored[command.Stderr])
	return at, err
}

func (s *Store) whereOf(ctx context.Context, id string) (whereabouts, error) {
	return scanWhere(s.readWhere.QueryRowContext(ctx, id))
}

// takes reports whether the compare-and-set of a change would succeed now.
func (at *whereabouts) takes(ch *command.Change, run extent) bool {
	for _, s := range command.Streams {
		if run.from[s] >= 0 && run.from[s] != at.stored[s] {
			return false
		}
	}
	return at.state == ch.From && at.fence == ch.Fence
}

// tidy brings the files of a command in line with its record: what retention has
// cut is given back, what was never recorded is removed, and all of it where
// there is no record.
func (s *Store) tidy(ctx context.Context, id string) error {
	release, err := s.files.Hold(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	at, err := s.whereOf(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return s.files.Remove(id)
	}
	for _, stream := range command.Streams {
		if err == nil {
			err = errors.Join(s.files.Free(id, stream, at.earliest[stream]), s.files.Cut(id, stream, at.stored[stream]))
		}
	}
	return err
}

// removeFiles removes the files of a command that is deleted.
func (s *Store) removeFiles(ctx context.Context, id string) error {
	release, err := s.files.Hold(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	return s.files.Remove(id)
}

// tidied logs what kept the files of a command or session from being tidied. It is no failure
// of anybody's call: the record is right, and the next sweep tries again.
func (s *Store) tidied(id string, err error) {
	if err != nil {
		s.log.Warn("the store could not give back the space of output", "id", id, "error", err)
	}
}

// sweep tidies all files, once after Open: a process that was killed may have left
// some behind. It ends early with ctx.
func (s *Store) sweep(ctx context.Context) {
	for _, of := range []struct {
		files *bulk.Dir
		tidy  func(ctx context.Context, id string) error
	}{{s.files, s.tidy}, {s.casts, s.tidyRecording}} {
		for id, err := range of.files.Names() {
			if err == nil {
				err = of.tidy(ctx, id)
			}
			if ctx.Err() != nil {
				return
			}
			s.tidied(id, err)
		}
	}
}
