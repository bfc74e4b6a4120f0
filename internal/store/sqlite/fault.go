package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"strconv"
	"syscall"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/store/sqlite/bulk"
	driver "modernc.org/sqlite"
	code "modernc.org/sqlite/lib"
)

// failed tells the caller what an error of the database means for him. Errors
// that are faults already stay as they are.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.From(err)
	}
	if errors.Is(err, sql.ErrConnDone) || errors.Is(err, errClosed) {
		return closedFault().WithOp(op)
	}
	e, ok := errors.AsType[*driver.Error](err)
	if !ok {
		return fault.Wrap(err, fault.Internal, fault.ReasonInternal, "the store failed").WithOp(op)
	}
	switch e.Code() & 0xff {
	case code.SQLITE_CORRUPT, code.SQLITE_NOTADB:
		return fault.Wrap(err, fault.DataLoss, fault.ReasonStoreDamaged, "the database file is damaged").
			WithHint("Stop telexecd and restore the database from a backup, or recover it with sqlite3's .recover").WithOp(op)
	case code.SQLITE_FULL:
		return noSpace(err).WithOp(op)
	case code.SQLITE_READONLY, code.SQLITE_PERM, code.SQLITE_AUTH, code.SQLITE_CANTOPEN:
		return notWritable(err).WithOp(op)
	case code.SQLITE_BUSY, code.SQLITE_LOCKED, code.SQLITE_PROTOCOL:
		return unavailable(err, "another program holds the database locked", "End the program that has the database open, such as a sqlite3 shell").WithOp(op)
	case code.SQLITE_IOERR, code.SQLITE_NOMEM, code.SQLITE_NOLFS:
		return diskFailed(err).WithOp(op)
	}
	return fault.Wrap(err, fault.Internal, fault.ReasonInternal, "the store failed").WithOp(op)
}

// notWritten is an output file that could not be written.
func notWritten(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return noSpace(err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
		return notWritable(err)
	}
	return diskFailed(err)
}

// notRead is an output file that could not be read, or was not what was written,
// which the caller must look into first.
func notRead(err error) error {
	if errors.Is(err, bulk.ErrDamaged) {
		return err
	}
	return diskFailed(err)
}

func noSpace(err error) *fault.Error {
	return unavailable(err, "the store has no space left", "Free disk space where the data directory is; nothing that was stored is lost")
}

func notWritable(err error) *fault.Error {
	return unavailable(err, "the store cannot be written", "Check that telexecd owns the data directory and may write to it and to its file system")
}

func diskFailed(err error) *fault.Error {
	return unavailable(err, "the store's disk failed", "Check the disk and the kernel's log")
}

// unavailable is a store that fails now and may work later.
func unavailable(err error, message, hint string) *fault.Error {
	return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable, "%s", message).
		WithHint("%s", hint).WithRetry(time.Second)
}

func closedFault() *fault.Error {
	return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the store is closed").
		WithHint("The service is shutting down; ask again when it is back")
}

func unknownCommand(id string) *fault.Error {
	return fault.New(fault.NotFound, fault.ReasonUnknownCommand, "there is no command %q", id).
		WithHint("Check the id; retention deletes old commands").With("command_id", id)
}

func damaged(id string, err error) *fault.Error {
	return fault.Wrap(err, fault.DataLoss, fault.ReasonStoreDamaged, "what is stored of command %q is damaged", id).
		WithHint("Restore the database from a backup; other commands can still be read").With("command_id", id)
}

func unknownSession(ref string) *fault.Error {
	return fault.New(fault.NotFound, fault.ReasonUnknownSession, "there is no session %q", ref).
		WithHint("Check the name or id; retention deletes sessions that ended long ago").With("session", ref)
}

func damagedSession(id string, err error) *fault.Error {
	return fault.Wrap(err, fault.DataLoss, fault.ReasonStoreDamaged, "what is stored of session %q is damaged", id).
		WithHint("Restore the database from a backup; other sessions can still be read").With("session", id)
}

func unknownTask(id string) error {
	return fault.New(fault.NotFound, fault.ReasonUnknownTask, "there is no task %q", id).
		WithHint("telexec task ls lists them; retention may have removed it").With("task_id", id)
}

func damagedTask(id string, err error) error {
	return fault.Wrap(err, fault.DataLoss, fault.ReasonStoreDamaged, "what is stored of task %s is damaged", id).
		WithHint("Restore the database from a backup; other tasks can still be read").With("task_id", id)
}

func trimmed(id string, s command.Stream, offset, earliest int64) *fault.Error {
	return fault.New(fault.OutOfRange, fault.ReasonOutputTrimmed,
		"%s of command %s is stored from offset %d on; retention has removed the byte at %d", s, id, earliest, offset).
		WithHint("Read from offset %d", earliest).With("earliest_offset", strconv.FormatInt(earliest, 10))
}

// ofDatabase reports whether an error came from the database or from the call's
// context, and not from the conversion of a value.
func ofDatabase(err error) bool {
	_, ok := errors.AsType[*driver.Error](err)
	return ok || errors.Is(err, sql.ErrNoRows) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
