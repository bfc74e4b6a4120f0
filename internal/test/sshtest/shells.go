package sshtest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// Shells are the login shells that people have, by name. ash is BusyBox's.
var Shells = []string{"sh", "bash", "zsh", "dash", "ash", "mksh", "ksh93", "yash", "fish", "tcsh"}

// HasShell tells whether this machine has one of Shells.
func HasShell(name string) bool { return shellPath(name) != "" }

// shellPath gives where a shell is, or BusyBox for ash; empty: nowhere.
func shellPath(name string) string {
	if name == "ash" {
		name = "busybox"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// shell gives the login shell of an account as a path.
func (m *Machine) shell(name string) string {
	m.t.Helper()
	switch {
	case name == "" || m.root != "":
		return "/bin/sh"
	case filepath.IsAbs(name):
		return name
	}
	path := shellPath(name)
	switch {
	case path == "":
		m.t.Skipf("no %s here; make setup gets it", name)
	case name != "ash":
		return path
	}
	// BusyBox is what it is called.
	ash := filepath.Join(m.Dir, "bin", "ash")
	m.must(os.MkdirAll(filepath.Dir(ash), 0o755))
	if err := os.Symlink(path, ash); !errors.Is(err, fs.ErrExist) {
		m.must(err)
	}
	return ash
}
