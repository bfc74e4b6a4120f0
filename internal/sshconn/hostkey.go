package sshconn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// hostKeyCheck decides about the key that one server shows in one handshake.
type hostKeyCheck struct {
	host  inventory.Host
	name  string // as in known_hosts
	known knownHosts

	// Set by check, which the handshake calls once, before it returns.
	shown   ssh.PublicKey // nil: the handshake did not come so far
	refusal *fault.Error  // why it was refused
}

// newHostKeyCheck reads the known_hosts files anew, so that what a person has
// just added counts at once.
func newHostKeyCheck(host inventory.Host) (*hostKeyCheck, error) {
	known, err := readKnownHosts(host.KnownHostsFiles)
	if err != nil {
		return nil, aboutHost(fault.Wrap(err, fault.FailedPrecondition, fault.ReasonHostKeyUnknown,
			"the host key of %s cannot be checked: %v", subject(host), err), host).
			WithHint("Let the service read the file, or take it out of known_hosts_file")
	}
	return &hostKeyCheck{host: host, name: knownName(host.Address, host.HostKeyAlias), known: known}, nil
}

// check is the ssh.HostKeyCallback.
func (c *hostKeyCheck) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	c.shown = key
	if refusal := c.decide(remote, key); refusal != nil {
		c.refusal = aboutHost(refusal, c.host).
			With("host_key", plainKey(key).Type()).
			With("host_key_fingerprint", ssh.FingerprintSHA256(plainKey(key)))
		return c.refusal
	}
	return nil
}

// plainKey is the key itself, also of a certificate.
func plainKey(key ssh.PublicKey) ssh.PublicKey {
	if cert, ok := key.(*ssh.Certificate); ok {
		return cert.Key
	}
	return key
}

func (c *hostKeyCheck) decide(remote net.Addr, key ssh.PublicKey) *fault.Error {
	plain := plainKey(key)
	all := []ssh.PublicKey{key, plain}
	cert, certified := key.(*ssh.Certificate)
	if certified {
		all = append(all, cert.SignatureKey)
	}
	if line, revoked := c.known.revoked(all...); revoked {
		return fault.New(fault.FailedPrecondition, fault.ReasonHostKeyRevoked,
			"the host key of %s (%s) is marked @revoked in %s", subject(c.host), describe(plain), line).
			WithHint("This key must not be trusted again: give the host a new one, or find out who answers in its place")
	}
	var certProblem error
	if certified {
		trusted, err := c.checkCertificate(cert, remote)
		if trusted {
			return nil
		}
		certProblem = err
	}
	if c.known.trusts(c.name, plain) {
		return nil
	}
	if lines := c.known.find(c.name, ""); len(lines) > 0 {
		return c.changed(lines[0], plain)
	}
	if certProblem != nil {
		return fault.Wrap(certProblem, fault.FailedPrecondition, fault.ReasonHostKeyUnknown,
			"the certificate of the host key of %s is not good: %s", subject(c.host), strings.TrimPrefix(certProblem.Error(), "ssh: ")).
			WithHint("Have the certificate renewed for the name %s, or correct the @cert-authority line in %s",
				principal(c.name), strings.Join(c.host.KnownHostsFiles, ", "))
	}
	if c.host.HostKeyPolicy == inventory.AcceptNew {
		return c.accept(plain)
	}
	return c.unknown(plain)
}

// checkCertificate says whether an authority that is known for this host vouches
// for it. Not trusted without an error: no known authority has signed it.
func (c *hostKeyCheck) checkCertificate(cert *ssh.Certificate, remote net.Addr) (bool, error) {
	authorities := c.known.authorities(c.name)
	if !holds(authorities, cert.SignatureKey) {
		return false, nil
	}
	checker := ssh.CertChecker{
		IsHostAuthority: func(key ssh.PublicKey, _ string) bool { return holds(authorities, key) },
	}
	err := checker.CheckHostKey(net.JoinHostPort(principal(c.name), "22"), remote, cert)
	return err == nil, err
}

// principal is the name that a certificate must be made out to.
func principal(name string) string {
	host, _ := withoutPort(name)
	return host
}

// describe is a key as people compare it: type and fingerprint.
func describe(key ssh.PublicKey) string { return key.Type() + " " + ssh.FingerprintSHA256(key) }

func (c *hostKeyCheck) unknown(key ssh.PublicKey) *fault.Error {
	line := knownhosts.Line([]string{c.name}, key)
	if len(c.host.KnownHostsFiles) == 0 {
		return fault.New(fault.FailedPrecondition, fault.ReasonHostKeyUnknown,
			"the host key of %s is not known: it shows %s, and no known_hosts file is configured", subject(c.host), describe(key)).
			WithHint("Set known_hosts_file for the host and put this line in it, if the fingerprint is the host's own: %s", line)
	}
	file := c.host.KnownHostsFiles[0]
	return fault.New(fault.FailedPrecondition, fault.ReasonHostKeyUnknown,
		"the host key of %s is not in %s: it shows %s", subject(c.host), strings.Join(c.host.KnownHostsFiles, ", "), describe(key)).
		WithHint("Compare the fingerprint with what \"ssh-keygen -lf\" says of the key on the host itself. "+
			"If it is the same, add this line to %s: %s", file, line).
		With("known_hosts_file", file).With("known_hosts_line", line)
}

func (c *hostKeyCheck) changed(line knownLine, key ssh.PublicKey) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonHostKeyChanged,
		"the host key of %s has changed: %s says %s, the host shows %s", subject(c.host), line, describe(line.key), describe(key)).
		WithHint("Either the host was installed anew, or somebody answers in its place. "+
			"Ask its administrator for the fingerprint; only if it is the one shown, remove the old key with: ssh-keygen -R '%s' -f %s",
			c.name, line.file).
		With("known_hosts_file", line.file).With("known_hosts_entry", line.String()).
		With("known_fingerprint", ssh.FingerprintSHA256(line.key))
}

// accepting guards the known_hosts files that this process appends to: the
// handshakes with a new host, several at once, write one line.
var accepting sync.Mutex

// accept writes the key of a new host to the first known_hosts file. A key that
// cannot be remembered is not accepted: the next one would be accepted too.
func (c *hostKeyCheck) accept(key ssh.PublicKey) *fault.Error {
	refuse := func(err error) *fault.Error {
		return fault.Wrap(err, fault.FailedPrecondition, fault.ReasonHostKeyUnknown,
			"the new host key of %s (%s) cannot be remembered: %v", subject(c.host), describe(key), err).
			WithHint("Set known_hosts_file for the host to a file that the service can write")
	}
	if len(c.host.KnownHostsFiles) == 0 {
		return refuse(errors.New("no known_hosts file is configured"))
	}
	accepting.Lock()
	defer accepting.Unlock()
	known, err := readKnownHosts(c.host.KnownHostsFiles)
	if err != nil {
		return refuse(err)
	}
	if known.trusts(c.name, key) {
		return nil
	}
	if lines := known.find(c.name, ""); len(lines) > 0 {
		return c.changed(lines[0], key)
	}
	if err := appendLine(c.host.KnownHostsFiles[0], knownhosts.Line([]string{c.name}, key)); err != nil {
		return refuse(err)
	}
	return nil
}

// appendLine adds a line to a file, in one write, so that other programs that
// append at the same time do not mix with it. The file and its directory are
// made where they are missing.
func appendLine(file, line string) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// A last line without its end must not swallow the new one.
	var last [1]byte
	if size := info.Size(); size > 0 {
		if _, err := f.ReadAt(last[:], size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = fmt.Fprintln(f, line)
	return err
}
