package sshtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// runDirectory is where the service keeps the runs of an account.
const runDirectory = ".local/state/telexec"

// filler is the file that takes the space of a full disk.
const filler = "filler"

// diskMount gives the shell commands that mount the small disk of an account.
func (m *Machine) diskMount(a account) string {
	home := filepath.Join(m.root, a.home)
	dir := filepath.Join(home, runDirectory)
	return fmt.Sprintf("mkdir -p %[1]s\nchown -R %[2]d:%[2]d %[3]s/.local\nmount -t tmpfs -o size=%[4]d,mode=700,uid=%[2]d,gid=%[2]d tmpfs %[1]s\n",
		dir, a.uid, home, a.SmallDisk)
}

// Fill takes all the space on an account's small disk. Files that are there can
// still be overwritten in place, and new ones be made, as long as they stay empty.
func (m *Machine) Fill(account string) {
	m.t.Helper()
	if m.accounts[account].SmallDisk == 0 {
		m.t.Fatalf("account %q has no small disk", account)
	}
	f, err := os.OpenFile(m.Path(account, "~/"+runDirectory+"/"+filler), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	m.must(err)
	defer f.Close()
	// The last page may be had by small writes only.
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(bytes.Repeat([]byte{0xFF}, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			m.t.Fatalf("filling a small disk: %v", err)
		}
	}
}

// Free gives back what Fill took.
func (m *Machine) Free(account string) {
	m.t.Helper()
	m.must(os.Remove(m.Path(account, "~/"+runDirectory+"/"+filler)))
}
