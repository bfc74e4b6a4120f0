package seal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/telexec/telexec/internal/fault"
)

// anew is what is said wherever a new key is a way out: what it costs.
const anew = "or remove the file: the next start makes a new key, and what was sealed with the old one " +
	"(environment and stdin of commands that wait, browser logins) cannot be read any more; commands and their output stay"

// OpenKey reads the key from a file, or makes the file where there is none, in a
// directory that must exist. Of several processes that make it at once, all get
// the key of the one that was first. The file holds the key in hexadecimal and
// has mode 0600; one that others can read, or that holds anything else, is
// refused: fault.FailedPrecondition with reason BAD_SEAL_KEY and a hint that
// says what to do. Keep a copy of the file with the copies of the store.
func OpenKey(file string) (*Key, error) {
	key, err := readKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(file)
	}
	return key, err
}

func readKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unusable(err, "the key of sealed values %s cannot be read", path).WithHint("Let the service's user read the file and its directory")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, unusable(err, "the key of sealed values %s cannot be read", path).WithHint("Check the disk that it lies on")
	}
	if !info.Mode().IsRegular() {
		return nil, unusable(nil, "the key of sealed values %s is not a regular file", path).WithHint("Put the file back from a copy; %s", anew)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, unusable(nil, "the key of sealed values %s has mode %04o, so others can read or change it", path, mode).
			WithHint("If nobody has, chmod 600 the file; %s", anew)
	}
	// A key is one line; whatever is longer is another file.
	b, err := io.ReadAll(io.LimitReader(f, 2*KeySize+2))
	if err != nil {
		return nil, unusable(err, "the key of sealed values %s cannot be read", path).WithHint("Check the disk that it lies on")
	}
	line := strings.TrimSuffix(string(b), "\n")
	random, err := hex.DecodeString(line)
	if err != nil || len(random) != KeySize {
		// Not err: it quotes a byte of the file.
		return nil, unusable(nil, "the key of sealed values %s is damaged: it is not one line of %d hexadecimal digits", path, 2*KeySize).
			WithHint("Put the file back from a copy; %s", anew)
	}
	return NewKey(random), nil
}

// makeKey writes a new key. It is written whole and to the disk before it
// appears under its name, so that a crash leaves no half a key, and Link refuses
// to replace one that another process has made meanwhile. Before the key is used
// its name is on the disk too: what is sealed must not outlive the key.
func makeKey(path string) (*Key, error) {
	random := make([]byte, KeySize)
	rand.Read(random) // never fails: crypto/rand ends the process instead

	draft := path + "." + rand.Text()
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, unwritable(err, path)
	}
	defer os.Remove(draft)
	_, err = f.WriteString(hex.EncodeToString(random) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(draft, path)
	}
	theirs := errors.Is(err, fs.ErrExist)
	if err != nil && !theirs {
		return nil, unwritable(err, path)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, unwritable(err, path)
	}
	if theirs {
		return readKey(path)
	}
	return NewKey(random), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("to sync the directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func unusable(err error, format string, args ...any) *fault.Error {
	return fault.Wrap(err, fault.FailedPrecondition, fault.ReasonBadSealKey, format, args...).WithOp("seal.open-key")
}

func unwritable(err error, path string) error {
	return unusable(err, "the key of sealed values %s cannot be written", path).
		WithHint("Its directory must exist, be writable for the service's user and have space")
}
