package sshconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/secret"
)

// credentials is everything that one handshake can log in with, and what became
// of it.
type credentials struct {
	signers  []ssh.Signer // in the order of trying
	names    []string     // of the signers, for messages
	password secret.Text
	skipped  []string // what was configured and cannot be used, with the reason
	badFile  bool     // a configured file is among skipped
	agent    io.Closer

	// Written by the handshake's goroutine, read when it has ended.
	offered []string // methods of the server
	tried   []string // methods that failed
}

// keyCache keeps what encrypted key files hold: their key derivation is slow on
// purpose (bcrypt), and a burst of commands opens many connections.
type keyCache struct {
	mu   sync.Mutex
	keys map[string]cachedKey
}

type cachedKey struct {
	modified time.Time
	size     int64
	signer   ssh.Signer
}

// load reads a private key file. An encrypted one needs the passphrase.
func (k *keyCache) load(file string, passphrase secret.Text) (ssh.Signer, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	cached, ok := k.keys[file]
	k.mu.Unlock()
	if ok && cached.modified.Equal(info.ModTime()) && cached.size == info.Size() {
		return cached.signer, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(content)
	if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); !encrypted || passphrase.IsZero() {
		return signer, err
	}
	if signer, err = ssh.ParsePrivateKeyWithPassphrase(content, []byte(passphrase.Reveal())); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = make(map[string]cachedKey)
	}
	k.keys[file] = cachedKey{modified: info.ModTime(), size: info.Size(), signer: signer}
	return signer, nil
}

// gather collects what host may log in with: its key files in their order, each
// with its certificates first; then, unless IdentitiesOnly, the other keys of
// the agent. A file that cannot be used is skipped with the reason; it is an
// error only if nothing is left to try. Close must be called after the handshake.
func gather(ctx context.Context, host inventory.Host, cache *keyCache) (*credentials, error) {
	c := &credentials{password: host.Password}
	inAgent := c.askAgent(ctx, host.Agent)
	certs := c.readCertificates(host.CertificateFiles)
	for _, file := range host.IdentityFiles {
		signer, err := cache.load(file, host.Passphrase)
		if err != nil {
			// The agent may hold the key that we cannot read.
			if held := findKey(inAgent, publicHalf(file, err)); held != nil {
				c.add(held, file+" (agent)", certs, file)
				continue
			}
			c.skip(file, err, host.Passphrase)
			continue
		}
		c.add(signer, file, certs, file)
	}
	if !host.IdentitiesOnly {
		for _, signer := range inAgent {
			c.add(signer, "agent", certs, "")
		}
	}
	if len(c.signers) == 0 && c.password.IsZero() && c.badFile {
		c.Close()
		return nil, aboutHost(fault.New(fault.FailedPrecondition, fault.ReasonBadCredentialFile,
			"there is nothing to log in to %s with: %s", subject(host), strings.Join(c.skipped, "; ")).
			WithHint("Correct identity_file, its permissions or its passphrase, or load the key into the agent"), host)
	}
	return c, nil
}

// Close ends the talk with the agent.
func (c *credentials) Close() {
	if c.agent != nil {
		c.agent.Close()
	}
}

// askAgent lists the keys that the agent at socket holds; none without a socket.
// Its connection lives until Close or the end of ctx's deadline.
func (c *credentials) askAgent(ctx context.Context, socket string) []ssh.Signer {
	if socket == "" {
		return nil
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		c.skipped = append(c.skipped, "agent: "+rootText(err))
		return nil
	}
	// An agent that hangs must not hold the handshake longer than allowed.
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	c.agent = conn
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		c.skipped = append(c.skipped, "agent: "+rootText(err))
		return nil
	}
	return signers
}

// skip remembers why a private key file is not used.
func (c *credentials) skip(file string, err error, passphrase secret.Text) {
	c.badFile = true
	reason := rootText(err)
	if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
		reason = "it is encrypted, and there is no passphrase for it"
	} else if !passphrase.IsZero() && strings.Contains(reason, "decryption password incorrect") {
		reason = "the passphrase is wrong"
	}
	c.skipped = append(c.skipped, file+": "+reason)
}

// publicHalf is the public key of a private key file that cannot be used: from
// the file itself, which may also be a public key file, or from file.pub; nil if
// neither has it.
func publicHalf(file string, err error) ssh.PublicKey {
	if missing, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok && missing.PublicKey != nil {
		return missing.PublicKey
	}
	for _, f := range []string{file, file + ".pub"} {
		if key, err := readPublicKey(f); err == nil {
			return key
		}
	}
	return nil
}

func readPublicKey(file string) (ssh.PublicKey, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(content)
	return key, err
}

// readCertificates reads the certificate files of the configuration.
func (c *credentials) readCertificates(files []string) []*ssh.Certificate {
	var certs []*ssh.Certificate
	for _, file := range files {
		cert, err := readCertificate(file)
		if err != nil {
			c.badFile = true
			c.skipped = append(c.skipped, file+": "+rootText(err))
			continue
		}
		certs = append(certs, cert)
	}
	return certs
}

func readCertificate(file string) (*ssh.Certificate, error) {
	key, err := readPublicKey(file)
	if err != nil {
		return nil, err
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("it holds a key, not a certificate")
	}
	return cert, nil
}

func findKey(signers []ssh.Signer, key ssh.PublicKey) ssh.Signer {
	if key == nil {
		return nil
	}
	for _, s := range signers {
		if sameKey(s.PublicKey(), key) {
			return s
		}
	}
	return nil
}

// add appends the certificates of a key and then the key; file, when not empty,
// may have a certificate beside it. What is there already is not tried twice.
func (c *credentials) add(signer ssh.Signer, name string, certs []*ssh.Certificate, file string) {
	if file != "" {
		if beside, err := readCertificate(file + "-cert.pub"); err == nil {
			certs = append(slices.Clip(certs), beside)
		}
	}
	signer = modern(signer)
	for _, cert := range certs {
		if !sameKey(cert.Key, signer.PublicKey()) {
			continue
		}
		if certified, err := ssh.NewCertSigner(cert, signer); err == nil {
			c.append(certified, name+" with certificate "+cert.KeyId)
		}
	}
	c.append(signer, name)
}

func (c *credentials) append(signer ssh.Signer, name string) {
	if findKey(c.signers, signer.PublicKey()) != nil {
		return
	}
	c.signers = append(c.signers, signer)
	c.names = append(c.names, name)
}

// modern keeps an RSA key from signing with SHA-1.
func modern(signer ssh.Signer) ssh.Signer {
	able, ok := signer.(ssh.AlgorithmSigner)
	if !ok || signer.PublicKey().Type() != ssh.KeyAlgoRSA {
		return signer
	}
	limited, err := ssh.NewSignerWithAlgorithms(able, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
	if err != nil {
		return signer
	}
	return limited
}

// methods gives the ways to log in, each tried if the server offers it.
func (c *credentials) methods() []ssh.AuthMethod {
	var all []ssh.AuthMethod
	if len(c.signers) > 0 {
		all = append(all, ssh.PublicKeys(c.signers...))
	}
	if !c.password.IsZero() {
		all = append(all, ssh.PasswordCallback(func() (string, error) { return c.password.Reveal(), nil }),
			ssh.KeyboardInteractive(c.answer))
	}
	return all
}

// answer gives the password to the prompts that hide what is typed. A prompt
// with echo asks for something else, which would be shown: it gets nothing.
func (c *credentials) answer(_, _ string, prompts []string, echo []bool) ([]string, error) {
	answers := make([]string, len(prompts))
	for i := range prompts {
		if !echo[i] {
			answers[i] = c.password.Reveal()
		}
	}
	return answers, nil
}

// watch is the ssh.ClientAuthCallback: it only listens.
func (c *credentials) watch(auth *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	c.offered = auth.AllowedMethods
	c.tried = auth.TriedMethods
	return nil, nil
}

// fault tells why the server let nobody in.
func (c *credentials) fault(err error, host inventory.Host) *fault.Error {
	var tried []string
	for _, method := range c.tried {
		switch method {
		case "none":
			continue // the question what the server offers
		case "publickey":
			method = fmt.Sprintf("publickey (%s)", strings.Join(c.names, ", "))
		}
		tried = append(tried, method)
	}
	what := "nothing of ours fits"
	if len(tried) > 0 {
		what = "it refused " + strings.Join(tried, ", ")
	}
	message := fmt.Sprintf("%s does not let %q in: %s; it offers %s", subject(host), host.User, what, orNothing(c.offered))
	if len(c.skipped) > 0 {
		message += "; not tried: " + strings.Join(c.skipped, "; ")
	}
	return aboutHost(fault.Wrap(err, fault.FailedPrecondition, fault.ReasonAuthFailed, "%s", message).
		WithHint("Check the user, that the public key is in its authorized_keys on the host, and what the log of sshd says"), host).
		With("user", host.User).
		With("tried_methods", strings.Join(slices.DeleteFunc(slices.Clone(c.tried), func(m string) bool { return m == "none" }), ",")).
		With("offered_methods", strings.Join(c.offered, ","))
}

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}
