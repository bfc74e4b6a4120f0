package sshtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/secret"
)

// Flavour is which SSH server a machine runs and what programs it has.
type Flavour string

// The flavours.
const (
	OpenSSH  Flavour = "openssh"  // sshd, and the programs of the machine that runs the tests
	Dropbear Flavour = "dropbear" // dropbear, and those programs
	BusyBox  Flavour = "busybox"  // dropbear in a root file system with no program but BusyBox
)

// Sudo is what an account may do with sudo.
type Sudo int

// The rights.
const (
	NoSudo       Sudo = iota // nothing: sudo refuses it
	PasswordSudo             // everything, each time with its Password
	FreeSudo                 // everything, without a password
)

// Account is somebody who can log in on a machine with the machine's key.
type Account struct {
	Name     string
	Root     bool        // user id 0; several accounts may be root
	Shell    string      // login shell, one of Shells or a path; empty: /bin/sh. BusyBox has only its sh
	Sudo     Sudo        // not on BusyBox, which has no sudo
	Password secret.Text // for PasswordSudo
	// SmallDisk puts what the service keeps in the account's home on a file system
	// of so many bytes, which Fill and Free fill and empty; 0: no.
	SmallDisk int
}

// MachineOptions are how a machine should be. The zero value is one with sshd on
// loopback in which root logs in.
type MachineOptions struct {
	Flavour     Flavour   // empty: OpenSSH
	Accounts    []Account // empty: root
	OwnPIDs     bool      // process ids of its own, see Machine.NextPID
	Wire        bool      // a network of its own, over Machine.Wire
	MaxSessions int       // as in Options; sshd only
	ExtraConfig []string  // as in Options; sshd only
}

// Machine is a host with accounts of its own. What a Server can do it can, too.
type Machine struct {
	*Server
	Wire *Wire // nil without MachineOptions.Wire

	opt      MachineOptions
	holder   *holder
	root     string // its root directory, as the holder sees it; empty: /
	accounts map[string]account
}

// account is an Account as it was made.
type account struct {
	Account
	uid  int
	home string // in the machine
}

// StartMachine starts a machine until the end of the test. The test is skipped
// where this machine cannot have one: not root, no namespaces, no dropbear, no
// BusyBox, no such shell. It fails where it should be possible and is not.
func StartMachine(t testing.TB, opt MachineOptions) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a machine with accounts of its own")
	}
	if opt.Flavour == "" {
		opt.Flavour = OpenSSH
	}
	if !HasFlavour(opt.Flavour) {
		t.Skipf("no programs here for a machine with %s: apt-get install openssh-server dropbear-bin busybox-static", opt.Flavour)
	}
	if len(opt.Accounts) == 0 {
		opt.Accounts = []Account{{Name: "root", Root: true}}
	}
	m := &Machine{Server: &Server{t: t, User: opt.Accounts[0].Name}, opt: opt, accounts: make(map[string]account)}
	m.makeDir()
	t.Cleanup(m.cleanup)
	if opt.Flavour == BusyBox {
		m.root = filepath.Join(m.Dir, "root")
		m.makeBusyBoxRoot()
	}
	identity, signer := NewKey(t, m.Dir, "client_key")
	m.IdentityFile = identity
	m.write("authorized_keys", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o644)
	m.addAccounts()

	m.holder = newHolder(t, m.setup(), opt.OwnPIDs, opt.Wire)
	if opt.Wire {
		m.Wire = newWire(t, m.holder.pid)
		m.Addr = m.Wire.host.String() + ":2222"
	}
	if opt.Flavour == OpenSSH {
		m.newHostKey()
		m.Server.opt = Options{MaxSessions: opt.MaxSessions, ExtraConfig: append([]string{"AcceptEnv none"}, opt.ExtraConfig...)}
		m.listen(func() {
			m.configure()
			m.daemon = m.inside(m.sshd())
		})
	} else {
		m.newDropbearKey()
		m.listen(func() { m.daemon = m.inside(m.dropbear()) })
	}
	return m
}

// cleanup ends the servers, then all else that runs in the machine, then its
// namespaces, and last removes its directory.
func (m *Machine) cleanup() {
	m.Stop()
	for _, p := range m.processes() {
		p.signal(syscall.SIGKILL)
	}
	if m.holder != nil {
		m.holder.end()
	}
	if m.Wire != nil {
		m.Wire.close()
	}
	m.Server.cleanup()
}

// inside makes a daemon run in the machine.
func (m *Machine) inside(d daemon) daemon {
	args := m.holder.enter()
	if m.root != "" {
		args = append(args, "chroot", m.root)
	}
	d.args = append(args, d.args...)
	d.child = m.opt.OwnPIDs // nsenter forks to enter a pid namespace
	return d
}

// HostOf describes the machine to a client that logs in as one of its accounts.
func (m *Machine) HostOf(name, account string) inventory.Host {
	m.t.Helper()
	if _, ok := m.accounts[account]; !ok {
		m.t.Fatalf("the machine has no account %q", account)
	}
	h := m.Server.Host(name)
	h.User = account
	return h
}

// Path gives the place where the test finds a file of the machine, by its
// absolute path there, or by one that begins with "~/" in the account's home.
func (m *Machine) Path(account, path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = filepath.Join(m.accounts[account].home, rest)
	}
	return filepath.Join("/proc", strconv.Itoa(m.holder.pid), "root", m.root, path)
}

// Home is the home directory of an account, as the machine has it.
func (m *Machine) Home(account string) string { return m.accounts[account].home }

// Run runs a program in the machine as root, outside of any login, and gives what
// it printed. It fails the test where the program fails.
func (m *Machine) Run(args ...string) string {
	m.t.Helper()
	enter := m.holder.enter()
	if m.root != "" {
		enter = append(enter, "chroot", m.root)
	}
	args = append(enter, args...)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// uids counts the plain accounts that this process has made.
var uids atomic.Int32

// newUID gives a user id that nobody else has: directories like /tmp/telexec-UID
// are seen by the whole of the machine that runs the tests.
func newUID() int { return 3_000_000 + os.Getpid()*100 + int(uids.Add(1)) }

// addAccounts makes passwd, group, shadow, sudoers and the homes.
func (m *Machine) addAccounts() {
	m.t.Helper()
	passwd := []string{"nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin", "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin"}
	shadow := []string{"nobody:*:20000::::::", "sshd:*:20000::::::"}
	group := []string{"root:x:0:", "nogroup:x:65534:", "tty:x:5:", "shadow:x:42:"}
	sudoers := []string{"Defaults timestamp_timeout=0, !lecture, passwd_tries=2", "root ALL=(ALL:ALL) ALL"}
	shells := []string{"/bin/sh"}
	hasRoot := false
	for _, a := range m.opt.Accounts {
		a.Shell = m.shell(a.Shell)
		made := account{Account: a, uid: newUID(), home: "/home/" + a.Name}
		if a.Root {
			made.uid = 0
		}
		if m.root == "" {
			// In the server's own directory, so that nobody else's home is needed.
			made.home = filepath.Join(m.Dir, "home", a.Name)
		}
		hasRoot = hasRoot || a.Name == "root"
		m.accounts[a.Name] = made
		m.makeHome(made)
		hash := "*"
		if !a.Password.IsZero() {
			hash = m.crypt(a.Password)
		}
		id := strconv.Itoa(made.uid)
		passwd = append(passwd, strings.Join([]string{a.Name, "x", id, id, "", made.home, a.Shell}, ":"))
		shadow = append(shadow, a.Name+":"+hash+":20000::::::")
		if !a.Root {
			group = append(group, a.Name+":x:"+id+":")
		}
		shells = append(shells, a.Shell)
		switch a.Sudo {
		case PasswordSudo:
			sudoers = append(sudoers, a.Name+" ALL=(ALL:ALL) ALL")
		case FreeSudo:
			sudoers = append(sudoers, a.Name+" ALL=(ALL:ALL) NOPASSWD: ALL")
		}
	}
	if !hasRoot {
		// sudo and sshd look for somebody of this name.
		passwd = append(passwd, "root:x:0:0::/root:/bin/sh")
		shadow = append(shadow, "root:*:20000::::::")
	}
	etc := filepath.Join(m.Dir, "etc")
	if m.root != "" {
		etc = filepath.Join(m.root, "etc")
	}
	m.must(os.MkdirAll(etc, 0o755))
	for name, f := range map[string]struct {
		lines []string
		mode  os.FileMode
	}{
		"passwd": {passwd, 0o644}, "shadow": {shadow, 0o600}, "group": {group, 0o644}, "sudoers": {sudoers, 0o440}, "shells": {shells, 0o644},
	} {
		m.must(os.WriteFile(filepath.Join(etc, name), []byte(strings.Join(f.lines, "\n")+"\n"), f.mode))
	}
}

// makeHome makes a home directory with the key that may log in, where dropbear
// looks for it.
func (m *Machine) makeHome(a account) {
	m.t.Helper()
	home := filepath.Join(m.root, a.home)
	keys := filepath.Join(home, ".ssh", "authorized_keys")
	key, err := os.ReadFile(filepath.Join(m.Dir, "authorized_keys"))
	m.must(err, os.MkdirAll(filepath.Dir(keys), 0o755), os.Chmod(home, 0o700))
	m.must(os.WriteFile(keys, key, 0o600))
	for _, p := range []string{home, filepath.Dir(keys), keys} {
		m.must(os.Chown(p, a.uid, a.uid))
	}
}

// crypt gives the hash of a password for /etc/shadow.
func (m *Machine) crypt(password secret.Text) string {
	m.t.Helper()
	// The standard library has no crypt(3); every Debian has this of perl.
	if findProgram("perl") == "" {
		m.t.Skip("no perl here, which makes the hash of a password")
	}
	cmd := exec.Command("perl", "-e", `$_ = <STDIN>; print crypt($_, '$6$telexectest$')`)
	cmd.Stdin = strings.NewReader(password.Reveal())
	hash, err := cmd.Output()
	m.must(err)
	return string(hash)
}

// setup gives the shell commands that furnish the machine's mount namespace.
func (m *Machine) setup() string {
	var b strings.Builder
	if m.root != "" {
		b.WriteString(busyBoxMounts(m.root))
	} else {
		for _, name := range []string{"passwd", "shadow", "group", "shells", "sudoers"} {
			if _, err := os.Stat("/etc/" + name); err == nil { // sudoers only where there is sudo
				fmt.Fprintf(&b, "mount --bind %s/etc/%s /etc/%[2]s\n", m.Dir, name)
			}
		}
		// sshd and dropbear write who was on; lastlog grows with the user id.
		b.WriteString("mount -t tmpfs tmpfs /var/log\n")
		if m.opt.OwnPIDs {
			b.WriteString("mount -t proc proc /proc\n")
		}
	}
	for _, a := range m.opt.Accounts {
		if a.SmallDisk > 0 {
			b.WriteString(m.diskMount(m.accounts[a.Name]))
		}
	}
	return b.String()
}
