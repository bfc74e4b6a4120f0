// Package tty starts programs on terminals of this machine, for tests and for the demo.
package tty

import (
	"cmp"
	"os"
	"os/exec"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Start starts cmd on a terminal of a size, in a session of its own. What is given reads
// what the program prints and writes what is typed; a read or a write ends when it is
// closed, which hangs the terminal up.
func Start(cmd *exec.Cmd, columns, rows int) (*os.File, error) {
	blocking, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)})
	if err != nil {
		return nil, err
	}
	defer blocking.Close()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), blocking.Name()), nil
}

// Resize gives a terminal another size.
func Resize(f *os.File, columns, rows int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)})
	})
	return cmp.Or(err, failed)
}
