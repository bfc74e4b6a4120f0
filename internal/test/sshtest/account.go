package sshtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"syscall"
	"testing"

	"github.com/telexec/telexec/internal/secret"
)

const (
	plainUser    = "telexec-test"
	accountLock  = "/run/telexec-test.lock"
	passwordFile = "/run/telexec-test.password"
)

// PlainUser is the name of an account without privileges in which tests can log
// in. As root it is the system account telexec-test, which is made at the first
// call on a machine (home directory, /bin/sh, no usable password) and then stays;
// packages that test at the same time may all call it. Without root it is the
// current user.
func PlainUser(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			t.Fatal(err)
		}
		return u.Username
	}
	if _, err := user.Lookup(plainUser); err == nil {
		return plainUser
	}
	unlock := lockAccount(t)
	defer unlock()
	if _, err := user.Lookup(plainUser); err == nil {
		return plainUser
	}
	// The password "*" fits nothing, but unlike "!" does not lock the account,
	// which sshd would refuse also with a key.
	system(t, "", "useradd", "--system", "--create-home", "--home-dir", "/home/"+plainUser,
		"--shell", "/bin/sh", "--password", "*", plainUser)
	return plainUser
}

// PlainPassword is the password of PlainUser. It is random, set at the first
// call after a boot, and kept in a file that only root can read, because a known
// password would be a door into the machine. Only root can ask for it.
func PlainPassword(t testing.TB) secret.Text {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can set the password of a test account")
	}
	name := PlainUser(t)
	unlock := lockAccount(t)
	defer unlock()
	if b, err := os.ReadFile(passwordFile); err == nil {
		return secret.New(string(b))
	}
	password := rand.Text()
	system(t, name+":"+password+"\n", "chpasswd")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	return secret.New(password)
}

// lockAccount keeps other test processes out.
func lockAccount(t testing.TB) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(accountLock, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		t.Fatal(err)
	}
	return func() { f.Close() }
}

// system runs an administrator's program; /usr/sbin may be missing in the PATH.
func system(t testing.TB, stdin, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		path = "/usr/sbin/" + name
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("%s: %w: %s", name, err, out))
	}
}
