package sshconn_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// knownFile writes a known_hosts file of lines.
func knownFile(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	writeFile(t, file, strings.Join(lines, "\n")+"\n")
	return file
}

// keyText is a public key as it stands in a line of known_hosts.
func keyText(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func bracketed(address string) string { return knownhosts.Normalize(address) }

func TestKnownHostKey(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	_, other := sshtest.NewKey(t, t.TempDir(), "other")
	name, key := bracketed(s.Addr), keyText(s.HostKey)
	for title, known := range map[string][]string{
		"plain":                 {name + " " + key},
		"hashed":                {knownhosts.HashHostname(name) + " " + key},
		"with a comment":        {"# a comment", "", name + " " + key + " somebody@somewhere"},
		"one of several names":  {"web1,10.0.0.1," + name + " " + key},
		"pattern":               {"[127.0.0.*]:* " + key},
		"host without its port": {"127.0.0.1 " + key},
		"second key":            {name + " " + keyText(other.PublicKey()), name + " " + key},
		"beside broken lines":   {"|1|broken", "@what " + name + " " + key, name + " ssh-future AAAA", name, "\x00\xff", name + " " + key},
	} {
		t.Run(title, func(t *testing.T) {
			h := s.Host("web1")
			h.KnownHostsFiles = []string{"/no/such/file", knownFile(t, known...)}
			open(t, newPool(t, sshconn.Options{}), h)
		})
	}
	t.Run("under an alias", func(t *testing.T) {
		h := s.Host("web1")
		h.HostKeyAlias = "Cluster"
		h.KnownHostsFiles = []string{knownFile(t, "cluster "+key)}
		open(t, newPool(t, sshconn.Options{}), h)
	})
	t.Run("of a type that the server would not show first", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "rsa")
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		two := sshtest.Start(t, sshtest.Options{ExtraConfig: []string{"HostKey " + file}})
		public, err := os.ReadFile(file + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		h := two.Host("web1")
		h.KnownHostsFiles = []string{knownFile(t, bracketed(two.Addr)+" "+string(public))}
		open(t, newPool(t, sshconn.Options{}), h)
	})
}

func TestUnknownHostKey(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	h := s.Host("web1")
	_, other := sshtest.NewKey(t, t.TempDir(), "other")
	h.KnownHostsFiles = []string{knownFile(t, "elsewhere "+keyText(s.HostKey), "!"+bracketed(s.Addr)+",* "+keyText(other.PublicKey()))}
	p := newPool(t, sshconn.Options{})
	_, err := p.Open(t.Context(), h)
	f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyUnknown)
	if !strings.Contains(f.Message, ssh.FingerprintSHA256(s.HostKey)) || f.Metadata["host_key_fingerprint"] != ssh.FingerprintSHA256(s.HostKey) {
		t.Errorf("the fingerprint is not told: %q, %v", f.Message, f.Metadata)
	}
	if !strings.Contains(f.Hint, s.KnownHostsLine()) || !strings.Contains(f.Hint, h.KnownHostsFiles[0]) {
		t.Errorf("hint = %q", f.Hint)
	}
	if strings.Contains(s.Log(), "Accepted") {
		t.Error("a login to an unknown host")
	}
	// Doing what the hint says helps.
	writeFile(t, h.KnownHostsFiles[0], f.Metadata["known_hosts_line"]+"\n")
	open(t, p, h)

	h.KnownHostsFiles = nil
	_, err = p.Open(t.Context(), h)
	wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyUnknown)
	h.KnownHostsFiles = []string{t.TempDir()} // a directory cannot be read
	_, err = p.Open(t.Context(), h)
	wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyUnknown)
}

func TestChangedHostKey(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	old := s.HostKey
	for _, policy := range []inventory.HostKeyPolicy{inventory.Strict, inventory.AcceptNew} {
		s.RestartWithNewHostKey()
		h := s.Host("web1")
		h.HostKeyPolicy = policy
		before := lines(t, s.KnownHostsFile)
		_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
		f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyChanged)
		for _, want := range []string{s.KnownHostsFile + ":1", ssh.FingerprintSHA256(old), ssh.FingerprintSHA256(s.HostKey)} {
			if !strings.Contains(f.Message, want) {
				t.Errorf("the message does not tell %q: %s", want, f.Message)
			}
		}
		if !strings.Contains(f.Hint, "ssh-keygen -R '"+bracketed(s.Addr)+"' -f "+s.KnownHostsFile) {
			t.Errorf("hint = %q", f.Hint)
		}
		if after := lines(t, s.KnownHostsFile); len(after) != len(before) {
			t.Errorf("the file was changed: %q", after)
		}
	}
}

func TestRevokedHostKey(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	h := s.Host("web1")
	h.HostKeyPolicy = inventory.AcceptNew
	h.KnownHostsFiles = []string{knownFile(t, s.KnownHostsLine(), "@revoked * "+keyText(s.HostKey))}
	_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
	if f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyRevoked); !strings.Contains(f.Message, h.KnownHostsFiles[0]+":2") {
		t.Errorf("message = %q", f.Message)
	}
}

func TestHostCertificate(t *testing.T) {
	_, ca := sshtest.NewKey(t, t.TempDir(), "ca")
	_, stranger := sshtest.NewKey(t, t.TempDir(), "stranger")
	s := sshtest.Start(t, sshtest.Options{HostCA: ca})
	try := func(known ...string) (inventory.Host, error) {
		h := s.Host("web1")
		h.KnownHostsFiles = []string{knownFile(t, known...)}
		c, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return h, err
	}
	authority := "@cert-authority " + bracketed(s.Addr) + " " + keyText(ca.PublicKey())
	for _, known := range []string{authority, "@cert-authority 127.0.0.* " + keyText(ca.PublicKey())} {
		if _, err := try(known); err != nil {
			t.Errorf("%s: %v", known, err)
		}
	}
	h, err := try("@cert-authority * " + keyText(stranger.PublicKey()))
	wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyUnknown)
	h, err = try(authority, "@revoked * "+keyText(ca.PublicKey()))
	wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyRevoked)
	// The key itself is known: that the authority is not does no harm.
	if _, err := try("@cert-authority * "+keyText(stranger.PublicKey()), s.KnownHostsLine()); err != nil {
		t.Error(err)
	}
	// Made out to another name.
	h = s.Host("web1")
	h.HostKeyAlias = "db1"
	h.KnownHostsFiles = []string{knownFile(t, "@cert-authority db1 "+keyText(ca.PublicKey()))}
	_, err = newPool(t, sshconn.Options{}).Open(t.Context(), h)
	if f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyUnknown); !strings.Contains(f.Hint, "db1") {
		t.Errorf("hint = %q", f.Hint)
	}
}

func TestAcceptNew(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	h := s.Host("web1")
	h.HostKeyPolicy = inventory.AcceptNew
	file := filepath.Join(t.TempDir(), "new", "known_hosts")
	h.KnownHostsFiles = []string{file, s.Dir + "/none"}
	p := newPool(t, sshconn.Options{SessionsPerConn: 1})
	var all sync.WaitGroup
	for range 3 { // several pools, as several services on one machine
		other := newPool(t, sshconn.Options{})
		for _, pool := range []*sshconn.Pool{p, other} {
			all.Go(func() {
				c, err := pool.Open(t.Context(), h)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { c.Close() })
			})
		}
	}
	all.Wait()
	if got := lines(t, file); len(got) != 1 || strings.TrimSpace(got[0]) != s.KnownHostsLine() {
		t.Errorf("known_hosts = %q", got)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	// From now on it is known, and a change is refused.
	s.RestartWithNewHostKey()
	_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
	wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyChanged)
}

func TestAcceptNewKeepsTheFileWhole(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	h := s.Host("web1")
	h.HostKeyPolicy = inventory.AcceptNew
	file := filepath.Join(t.TempDir(), "known_hosts")
	writeFile(t, file, "elsewhere "+keyText(s.HostKey)) // no end of line
	h.KnownHostsFiles = []string{file}
	open(t, newPool(t, sshconn.Options{}), h)
	if got := lines(t, file); len(got) != 2 || !strings.HasPrefix(got[0], "elsewhere ") || strings.TrimSpace(got[1]) != s.KnownHostsLine() {
		t.Errorf("known_hosts = %q", got)
	}
}

func TestAcceptNewMustRemember(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	file := knownFile(t, "")
	for title, files := range map[string][]string{
		"no file":          nil,
		"under a file":     {filepath.Join(file, "known_hosts")},
		"in no filesystem": {"/proc/no/known_hosts"},
	} {
		h := s.Host(title)
		h.HostKeyPolicy, h.KnownHostsFiles = inventory.AcceptNew, files
		_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
		wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonHostKeyUnknown)
	}
}
