package sshtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// findProgram gives the path of a program; empty: it is not here. The PATH of
// plain users of Debian has no sbin.
func findProgram(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// HasFlavour tells whether this machine has the programs for a flavour.
func HasFlavour(f Flavour) bool {
	for _, program := range map[Flavour][]string{
		OpenSSH: {"sshd"}, Dropbear: {"dropbear", "dropbearkey"}, BusyBox: {"dropbear", "dropbearkey", "busybox"},
	}[f] {
		if findProgram(program) == "" {
			return false
		}
	}
	return true
}

// newDropbearKey makes the host key, in dropbear's own form.
func (m *Machine) newDropbearKey() {
	m.t.Helper()
	file := filepath.Join(m.Dir, "dropbear_key")
	if m.root != "" {
		file = filepath.Join(m.root, "etc", "dropbear_key")
	}
	out, err := exec.Command(findProgram("dropbearkey"), "-t", "ed25519", "-f", file).CombinedOutput()
	m.must(err)
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "ssh-ed25519 ") {
			if m.HostKey, _, _, _, err = ssh.ParseAuthorizedKey([]byte(line)); err == nil {
				return
			}
		}
	}
	m.t.Fatalf("dropbearkey has shown no public key: %v: %s", err, out)
}

// dropbear is the daemon of dropbear, in the foreground, with its log on stderr.
func (m *Machine) dropbear() daemon {
	m.t.Helper()
	program, key := findProgram("dropbear"), filepath.Join(m.Dir, "dropbear_key")
	if m.root != "" {
		program, key = "/sbin/dropbear", "/etc/dropbear_key"
	}
	return daemon{
		args:  []string{program, "-F", "-E", "-m", "-s", "-j", "-k", "-r", key, "-p", m.Addr, "-P", ""},
		ready: "Not backgrounding",
	}
}

// makeBusyBoxRoot lays out a root file system with no program but BusyBox and
// dropbear, as routers and cameras have it.
func (m *Machine) makeBusyBoxRoot() {
	m.t.Helper()
	busybox := findProgram("busybox")
	for _, dir := range []string{"bin", "sbin", "etc", "root", "home", "proc", "dev", "run", "var/tmp", "tmp"} {
		m.must(os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	for _, dir := range []string{"tmp", "var/tmp"} {
		m.must(os.Chmod(filepath.Join(m.root, dir), 0o777|os.ModeSticky))
	}
	m.install(busybox, "bin/busybox")
	m.install(findProgram("dropbear"), "sbin/dropbear")
	applets, err := exec.Command(busybox, "--list").Output()
	m.must(err)
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			m.must(os.Symlink("busybox", filepath.Join(m.root, "bin", applet)))
		}
	}
}

// install copies a program into the root file system, and the libraries that it
// is linked with to where it looks for them.
func (m *Machine) install(program, to string) {
	m.t.Helper()
	m.copyFile(program, filepath.Join(m.root, to))
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return // linked statically
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") {
			m.copyFile(word, filepath.Join(m.root, word))
		}
	}
}

func (m *Machine) copyFile(from, to string) {
	m.t.Helper()
	if _, err := os.Stat(to); err == nil {
		return
	}
	b, err := os.ReadFile(from)
	m.must(err, os.MkdirAll(filepath.Dir(to), 0o755))
	m.must(os.WriteFile(to, b, 0o755))
}

// busyBoxMounts gives the shell commands that mount what a root file system needs
// of the kernel.
func busyBoxMounts(root string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mount -t proc proc %s/proc\n", root)
	// A tmpfs, because device files need not work where the directory lies.
	fmt.Fprintf(&b, "mount -t tmpfs -o mode=755 tmpfs %s/dev\n", root)
	for name, number := range map[string]string{"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9", "tty": "5 0"} {
		fmt.Fprintf(&b, "mknod -m 666 %s/dev/%s c %s\n", root, name, number)
	}
	fmt.Fprintf(&b, "mkdir %[1]s/dev/pts %[1]s/dev/shm\nchmod 1777 %[1]s/dev/shm\n", root)
	fmt.Fprintf(&b, "mount -t devpts -o newinstance,ptmxmode=666 devpts %[1]s/dev/pts\nln -s pts/ptmx %[1]s/dev/ptmx\n", root)
	return b.String()
}
