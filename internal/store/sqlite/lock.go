package sqlite

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/telexec/telexec/internal/fault"
)

// lockFile takes the lock that says which process has the store. SQLite itself
// would let a second one in, and two engines would run each other's commands.
// The lock is on a file of its own, as closing any descriptor of the database
// would drop SQLite's locks; the kernel frees it when the process ends, however
// it ends, so the file may stay.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unavailable(err, "the store cannot be locked: "+message(err),
			"Check that telexecd owns the data directory and may write to it")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, unavailable(err, "the store cannot be locked: "+err.Error(),
				"Put the data directory on a local file system that has flock")
		}
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		e := fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable,
			"another telexecd has this data directory open (process %s)", strings.TrimSpace(string(holder))).
			WithHint("Stop it first, or give this one a data directory of its own with --data-dir")
		return nil, e.With("lock_file", path)
	}
	// Only for the message above; the lock does not depend on it.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(itoa(os.Getpid())+"\n"), 0)
	return f, nil
}

func itoa(n int) string { return strconv.Itoa(n) }
