package bulk

import (
	"os"
	"syscall"
)

// openDirect opens a file for writing around the page cache.
func openDirect(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_DIRECT, 0)
}

// datasync makes the bytes of a file durable, and of its inode what is needed to
// read them.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}

// The modes of fallocate(2) that make a hole.
const (
	keepSize  = 0x1
	punchHole = 0x2
)

// punch makes a hole at the beginning of a file, without changing its size.
func punch(f *os.File, size int64) error {
	for {
		if err := syscall.Fallocate(int(f.Fd()), keepSize|punchHole, 0, size); err != syscall.EINTR {
			return err
		}
	}
}
