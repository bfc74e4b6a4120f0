// Package sshtest runs a real OpenSSH server on loopback for tests.
//
//	srv := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t)})
//	host := srv.Host("web1") // an inventory.Host, ready to connect to
//
// Each server is one sshd with its own directory, port, host key, client key and
// known_hosts file; nothing of the machine's own SSH configuration is read or
// changed, and $HOME is an empty directory of the server, but for PlainUser. It ends with the test, together with every process that was started
// through it, and its log is printed when the test fails.
//
// As root any account can log in; PlainUser makes one. Without root, sshd cannot
// change the user, so only the current user can log in.
//
// A server can be made to misbehave the way servers do: KillSessions breaks the
// live connections, Pause makes the machine silent without closing anything,
// Stop and Restart take the service away and bring it back, RestartWithNewHostKey
// changes its identity. BlackHole and ClosedPort are addresses where there is no
// server at all. The processes are found through /proc, so Linux only.
//
// # Machines
//
// Where a test needs more of a host than a login, StartMachine makes a host that
// shares nothing with this one but the kernel and its files:
//
//	m := sshtest.StartMachine(t, sshtest.MachineOptions{
//		Accounts: []sshtest.Account{{Name: "root", Root: true, Shell: "zsh"}, {Name: "anna"}},
//		Wire:     true,
//	})
//	host := m.HostOf("web1", "anna")
//	m.Wire.Drop() // nothing gets through, either way
//
// It has an /etc/passwd of its own, so any account may have any login shell (root
// too) and any right to sudo; it may have its own network over a Wire that loses,
// delays and drops packets, its own pids, and a full disk (see SmallDisk); its
// server is sshd or dropbear, and its programs may be BusyBox alone. All of that is
// made of mount, network and pid namespaces and goes with the test; nothing of the
// machine that runs the tests is changed. It takes root, and tests that want one
// are skipped without.
//
// Leftovers tells what a command has left behind on a server or a machine.
package sshtest

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/secret"
)

// Options of a server. The zero value is a server with sshd's own defaults, in
// which the current user logs in with a key.
type Options struct {
	User        string     // who logs in; empty: the current user. Another one needs root
	MaxSessions int        // channels per connection; 0: sshd's default, 10
	MaxStartups string     // unauthenticated connections; empty: sshd's default, 10:30:100
	Password    bool       // offer password and keyboard-interactive too, through PAM; see PlainPassword
	ExtraConfig []string   // more lines of sshd_config, before all others: sshd takes the first of a kind
	HostCA      ssh.Signer // when set, signs a certificate for the host key, made out to 127.0.0.1
}

// Server is a running sshd. Its methods are for the one goroutine of the test;
// the fields do not change, but for HostKey.
type Server struct {
	Addr           string // 127.0.0.1:port
	User           string // who logs in
	IdentityFile   string // private key that may log in, without a passphrase
	KnownHostsFile string // holds HostKey as of the start
	HostKey        ssh.PublicKey
	Dir            string // of this server alone; removed at the end

	t      testing.TB
	opt    Options
	daemon daemon
	home   string // $HOME of who logs in; empty: the account's own
	log    logBuffer
	cmd    *exec.Cmd
	exited chan struct{} // closed by the waiting goroutine when sshd has gone
	orphan []process     // what ran under an sshd that was stopped

	guard      *exec.Cmd // see watch
	guardInput io.Closer // nil: there is none
}

// daemon is how to run an SSH server.
type daemon struct {
	args  []string // the program and its arguments
	ready string   // what a line of its log has when it listens
	child bool     // the program runs the server as its child
}

// sshd is the daemon of OpenSSH.
func (s *Server) sshd() daemon {
	s.t.Helper()
	return daemon{args: []string{findSSHD(s.t), "-D", "-e", "-f", filepath.Join(s.Dir, "sshd_config")}, ready: "Server listening on"}
}

// sshdPaths are where the server may be when it is not on the PATH, which is
// the case for plain users of Debian.
var sshdPaths = []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd"}

func findSSHD(t testing.TB) string {
	t.Helper()
	if p, err := exec.LookPath("sshd"); err == nil && filepath.IsAbs(p) {
		return p
	}
	for _, p := range sshdPaths {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	t.Fatal("these tests need a real OpenSSH server, and there is no sshd here: apt-get install openssh-server")
	return ""
}

// Start runs a server until the end of the test. It fails the test where sshd is
// not installed or does not start.
func Start(t testing.TB, opt Options) *Server {
	t.Helper()
	s := &Server{t: t, opt: opt, User: opt.User}
	current, err := user.Current()
	if err != nil {
		t.Fatalf("current user: %v", err)
	}
	if s.User == "" {
		s.User = current.Username
	}
	root := os.Geteuid() == 0
	if !root && s.User != current.Username {
		t.Fatalf("only root can run an sshd in which another user (%s) logs in", s.User)
	}
	s.makeDir()
	t.Cleanup(s.cleanup)

	if s.User == current.Username {
		// The home of whoever runs the tests stays out of them: bash reads .bashrc
		// when sshd runs it, which may do or print anything.
		s.home = filepath.Join(s.Dir, "home")
		if err := os.Mkdir(s.home, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	identity, signer := NewKey(t, s.Dir, "client_key")
	s.IdentityFile = identity
	s.write("authorized_keys", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o644)
	s.newHostKey()
	s.listen(func() {
		s.configure()
		s.daemon = s.sshd()
	})
	return s
}

// makeDir makes the server's directory, and the one that sshd does not start
// without.
func (s *Server) makeDir() {
	s.t.Helper()
	if os.Geteuid() == 0 {
		s.must(os.MkdirAll("/run/sshd", 0o755))
	}
	// Not t.TempDir: its parent is 0700, and sshd reads the authorized keys as
	// the user who logs in.
	dir, err := os.MkdirTemp("", "sshtest")
	s.must(err)
	s.Dir = dir
	s.must(os.Chmod(dir, 0o755))
}

// listen starts the server on a free port of loopback, unless Addr is set
// already. configure is called once Addr is known.
func (s *Server) listen(configure func()) {
	s.t.Helper()
	fixed := s.Addr != ""
	// Another process may take the port between the choice and the server's bind.
	for attempt := 1; ; attempt++ {
		if !fixed {
			s.Addr = freeAddr(s.t)
		}
		configure()
		err := s.run()
		if err == nil {
			break
		}
		if fixed || attempt == 5 || !strings.Contains(s.log.String(), "in use") {
			s.t.Fatalf("start of the SSH server: %v\n%s", err, s.log.String())
		}
	}
	s.KnownHostsFile = s.write("known_hosts", []byte(s.KnownHostsLine()+"\n"), 0o600)
	s.watch()
}

// KnownHostsLine is what the client must know about the server, without an end of line.
func (s *Server) KnownHostsLine() string {
	host, port, _ := net.SplitHostPort(s.Addr)
	return fmt.Sprintf("[%s]:%s %s", host, port, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.HostKey))))
}

// Host describes the server to a client: strict host keys, the client key and
// nothing else to log in with, 5 s to connect, keepalives each 5 s.
func (s *Server) Host(name string) inventory.Host {
	return inventory.Host{
		Name:              name,
		Address:           s.Addr,
		User:              s.User,
		IdentityFiles:     []string{s.IdentityFile},
		KnownHostsFiles:   []string{s.KnownHostsFile},
		HostKeyPolicy:     inventory.Strict,
		ConnectTimeout:    5 * time.Second,
		KeepaliveInterval: 5 * time.Second,
		KeepaliveMax:      3,
		MaxCommands:       10,
		Source:            inventory.FromConfig,
	}
}

// Authorize lets another key log in.
func (s *Server) Authorize(key ssh.PublicKey) {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(s.Dir, "authorized_keys"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = f.Write(ssh.MarshalAuthorizedKey(key))
	if err := errors.Join(err, f.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// Log is what the server has written so far, sshd at level VERBOSE.
func (s *Server) Log() string { return s.log.String() }

// NewKey makes an ed25519 key in dir/name, mode 0600, readable by OpenSSH.
func NewKey(t testing.TB, dir, name string) (file string, signer ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if signer, err = ssh.NewSignerFromSigner(key); err != nil {
		t.Fatal(err)
	}
	return file, signer
}

// must fails the test where something that should work does not.
func (s *Server) must(errs ...error) {
	s.t.Helper()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) write(name string, content []byte, mode os.FileMode) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, content, mode); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// newHostKey makes the host key, and its certificate where there is a CA.
func (s *Server) newHostKey() {
	s.t.Helper()
	_, signer := NewKey(s.t, s.Dir, "host_key")
	s.HostKey = signer.PublicKey()
	if s.opt.HostCA == nil {
		return
	}
	cert := &ssh.Certificate{
		Key:             s.HostKey,
		CertType:        ssh.HostCert,
		KeyId:           "sshtest",
		ValidPrincipals: []string{"127.0.0.1"},
		ValidBefore:     ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, s.opt.HostCA); err != nil {
		s.t.Fatal(err)
	}
	s.write("host_key-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o644)
}

func (s *Server) configure() {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.Addr)
	lines := append([]string(nil), s.opt.ExtraConfig...)
	lines = append(lines,
		"ListenAddress "+host,
		"Port "+port,
		"HostKey "+filepath.Join(s.Dir, "host_key"),
		"PidFile none",
		"AuthorizedKeysFile "+filepath.Join(s.Dir, "authorized_keys"),
		"StrictModes no",
		"PermitRootLogin yes",
		"PrintMotd no",
		"UseDNS no",
		"LogLevel VERBOSE",
		"Subsystem sftp internal-sftp",
	)
	if s.home != "" {
		lines = append(lines, "SetEnv HOME="+s.home)
	}
	if s.opt.HostCA != nil {
		lines = append(lines, "HostCertificate "+filepath.Join(s.Dir, "host_key-cert.pub"))
	}
	if s.opt.Password {
		// Only PAM can ask by keyboard-interactive.
		lines = append(lines, "UsePAM yes", "PasswordAuthentication yes", "KbdInteractiveAuthentication yes")
	} else {
		lines = append(lines, "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no")
	}
	if s.opt.MaxSessions > 0 {
		lines = append(lines, "MaxSessions "+strconv.Itoa(s.opt.MaxSessions))
	}
	if s.opt.MaxStartups != "" {
		lines = append(lines, "MaxStartups "+s.opt.MaxStartups)
	}
	s.write("sshd_config", []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// run starts the server and waits until it listens.
func (s *Server) run() error {
	pipe, pipeWriter, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(s.daemon.args[0], s.daemon.args[1:]...)
	cmd.Stderr = pipeWriter
	// The server must not outlive a test binary that was killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	err = cmd.Start()
	pipeWriter.Close()
	if err != nil {
		pipe.Close()
		return err
	}
	ready := make(chan struct{})  // closed by the reader at the line that says so
	exited := make(chan struct{}) // closed when sshd has gone
	var reader sync.WaitGroup
	reader.Go(func() { s.log.copyLines(pipe, s.daemon.ready, ready) })
	go func() {
		cmd.Wait()
		// Processes that outlive sshd may hold the other end of the pipe.
		pipe.SetReadDeadline(time.Now().Add(time.Second))
		reader.Wait()
		pipe.Close()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	select {
	case <-ready:
		return nil
	case <-exited:
		s.cmd = nil
		return errors.New("it ended at once")
	case <-limit.C:
		s.Stop()
		return errors.New("it does not listen after 20 s")
	}
}

// Restart starts the server again, after Stop, on the same port with the same key.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.run(); err != nil {
		s.t.Fatalf("restart of the SSH server: %v\n%s", err, s.log.String())
	}
}

// RestartWithNewHostKey is Restart with another host key, as after a
// reinstallation or with somebody in the middle. KnownHostsFile keeps the old
// key; HostKey is the new one.
func (s *Server) RestartWithNewHostKey() {
	s.t.Helper()
	s.Stop()
	s.newHostKey()
	s.Restart()
}

func (s *Server) cleanup() {
	s.Stop()
	for _, p := range s.orphan {
		p.signal(syscall.SIGKILL)
	}
	if s.guardInput != nil {
		s.guardInput.Close()
		s.guard.Wait()
	}
	if s.t.Failed() {
		s.t.Logf("log of the SSH server on %s:\n%s", s.Addr, s.log.String())
	}
	os.RemoveAll(s.Dir)
}

// logBuffer collects what sshd says.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// copyLines reads until the end, and closes ready at the sign that the server listens.
func (b *logBuffer) copyLines(r io.Reader, sign string, ready chan<- struct{}) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		b.mu.Lock()
		b.buf.Write(lines.Bytes())
		b.buf.WriteByte('\n')
		b.mu.Unlock()
		if ready != nil && strings.Contains(lines.Text(), sign) {
			close(ready)
			ready = nil
		}
	}
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// freeAddr is a port of loopback that nobody listens on at the moment.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ClosedPort is an address where nothing listens: connections are refused.
func ClosedPort(t testing.TB) string {
	t.Helper()
	return freeAddr(t)
}

// BlackHole is an address that takes TCP connections and never says a word, as
// a hung machine or a firewall does. It lasts until the end of the test.
func BlackHole(t testing.TB) string {
	t.Helper()
	// The kernel completes connections up to the backlog; nobody accepts them.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// PasswordHost is Host with the password of PlainPassword and no key.
func (s *Server) PasswordHost(name string, password secret.Text) inventory.Host {
	h := s.Host(name)
	h.IdentityFiles = nil
	h.Password = password
	return h
}
