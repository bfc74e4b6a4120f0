package sshconn_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// keyFile writes a private key, encrypted where there is a passphrase.
func keyFile(t *testing.T, name string, key crypto.Signer, passphrase string) (string, ssh.Signer) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	writeFile(t, file, string(pem.EncodeToMemory(block)))
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return file, signer
}

func writeFile(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newEd25519(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeyTypes(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"rsa": rsaKey, "ecdsa": ecdsaKey, "ed25519": newEd25519(t)} {
		t.Run(name, func(t *testing.T) {
			h := s.Host(name)
			file, signer := keyFile(t, name, key, "")
			s.Authorize(signer.PublicKey())
			h.IdentityFiles = []string{file}
			mustRun(t, open(t, newPool(t, sshconn.Options{}), h), "true")
		})
	}
}

func TestEncryptedKey(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	file, signer := keyFile(t, "key", newEd25519(t), "open sesame")
	s.Authorize(signer.PublicKey())
	h := s.Host("web1")
	good := h.IdentityFiles[0]
	h.IdentityFiles = []string{file}
	h.ConnectTimeout = time.Minute // opening the key is slow on purpose, and slower under -race

	p := newPool(t, sshconn.Options{})
	h.Passphrase = secret.New("open sesame")
	for range 2 { // the second time from the cache
		mustRun(t, open(t, p, h), "true")
		if _, err := p.Check(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	h.Passphrase = secret.New("wrong word")
	_, err := p.Open(t.Context(), h)
	f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonBadCredentialFile)
	if !strings.Contains(f.Message, file) || !strings.Contains(f.Message, "passphrase is wrong") || strings.Contains(f.Error(), "wrong word") {
		t.Errorf("message = %q", f.Error())
	}
	h.Passphrase = secret.Text{}
	_, err = p.Open(t.Context(), h)
	f = wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonBadCredentialFile)
	if !strings.Contains(f.Message, "encrypted") {
		t.Errorf("message = %q", f.Message)
	}
	// It is no reason to fail while there is another key.
	h.IdentityFiles = []string{file, good}
	mustRun(t, open(t, p, h), "true")
}

func TestBadKeyFiles(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	nonsense := filepath.Join(t.TempDir(), "nonsense")
	writeFile(t, nonsense, "this is no key")
	for name, file := range map[string]string{
		"missing": filepath.Join(t.TempDir(), "none"), "not a key": nonsense, "directory": t.TempDir(),
	} {
		h := s.Host(name)
		h.IdentityFiles = []string{file}
		_, err := p.Open(t.Context(), h)
		if f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonBadCredentialFile); !strings.Contains(f.Message, file) {
			t.Errorf("%s: message = %q", name, f.Message)
		}
	}
	if strings.Contains(s.Log(), "Connection from") {
		t.Error("the server was asked with nothing to log in with")
	}
}

func TestNothingFits(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	p := newPool(t, sshconn.Options{})
	file, _ := sshtest.NewKey(t, t.TempDir(), "stranger")
	h := s.Host("web1")
	h.IdentityFiles = []string{file, "/no/such/key"}
	h.Password = secret.New("hunter2")
	_, err := p.Open(t.Context(), h)
	f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonAuthFailed)
	for _, want := range []string{file, "/no/such/key", "publickey", s.User} {
		if !strings.Contains(f.Message, want) {
			t.Errorf("the message does not tell %q: %s", want, f.Message)
		}
	}
	if strings.Contains(f.Error(), "hunter2") {
		t.Errorf("the password is in the error: %v", f)
	}
	if f.Metadata["offered_methods"] != "publickey" || f.Metadata["tried_methods"] != "publickey" || f.Metadata["user"] != s.User {
		t.Errorf("metadata = %v", f.Metadata)
	}
	nothing := s.Host("nothing")
	nothing.IdentityFiles = nil
	_, err = p.Open(t.Context(), nothing)
	if f := wantFault(t, err, nothing, fault.FailedPrecondition, fault.ReasonAuthFailed); !strings.Contains(f.Message, "nothing of ours fits") {
		t.Errorf("message = %q", f.Message)
	}
	unknown := s.Host("unknown")
	unknown.User = "no-such-user"
	_, err = p.Open(t.Context(), unknown)
	wantFault(t, err, unknown, fault.FailedPrecondition, fault.ReasonAuthFailed)
}

func TestTooManyKeys(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{ExtraConfig: []string{"MaxAuthTries 2"}})
	h := s.Host("web1")
	h.IdentityFiles = nil
	for range 5 {
		file, _ := keyFile(t, "key", newEd25519(t), "")
		h.IdentityFiles = append(h.IdentityFiles, file)
	}
	_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
	wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonAuthFailed)
}

// serveAgent runs an agent with keys on a socket until the end of the test.
func serveAgent(t *testing.T, keys ...agent.AddedKey) (socket string) {
	t.Helper()
	keyring := agent.NewKeyring()
	for _, k := range keys {
		if err := keyring.Add(k); err != nil {
			t.Fatal(err)
		}
	}
	return serveSocket(t, func(c net.Conn) { agent.ServeAgent(keyring, c) })
}

func serveSocket(t *testing.T, f func(net.Conn)) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
		os.RemoveAll(dir)
	})
	return socket
}

func TestAgent(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	key := newEd25519(t)
	file, signer := keyFile(t, "key", key, "not told")
	s.Authorize(signer.PublicKey())
	stranger := newEd25519(t)
	socket := serveAgent(t, agent.AddedKey{PrivateKey: stranger}, agent.AddedKey{PrivateKey: key})

	any := s.Host("any key of the agent")
	any.IdentityFiles, any.Agent = nil, socket
	// The agent holds the key that cannot be read, and only that one is tried.
	only := s.Host("identities only")
	only.IdentityFiles, only.Agent, only.IdentitiesOnly = []string{file}, socket, true
	// The configuration may name the public half.
	public := s.Host("public key file")
	writeFile(t, file+".only.pub", string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	public.IdentityFiles, public.Agent, public.IdentitiesOnly = []string{file + ".only.pub"}, socket, true
	for _, h := range []inventory.Host{any, only, public} {
		t.Run(h.Name, func(t *testing.T) { mustRun(t, open(t, newPool(t, sshconn.Options{}), h), "true") })
	}

	other, _ := keyFile(t, "other", newEd25519(t), "")
	refused := s.Host("other")
	refused.IdentityFiles, refused.Agent, refused.IdentitiesOnly = []string{other}, socket, true
	_, err := newPool(t, sshconn.Options{}).Open(t.Context(), refused)
	if f := wantFault(t, err, refused, fault.FailedPrecondition, fault.ReasonAuthFailed); strings.Contains(f.Message, ", agent") {
		t.Errorf("a key of the agent was tried: %s", f.Message)
	}
}

func TestAgentOutOfOrder(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	h := s.Host("no agent")
	h.Agent = filepath.Join(t.TempDir(), "none")
	mustRun(t, open(t, newPool(t, sshconn.Options{}), h), "true") // there is still the key file
	h.IdentityFiles = nil
	_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
	if f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonAuthFailed); !strings.Contains(f.Message, "agent: ") {
		t.Errorf("message = %q", f.Message)
	}
	rude := s.Host("rude agent")
	rude.Agent = serveSocket(t, func(net.Conn) {})
	mustRun(t, open(t, newPool(t, sshconn.Options{}), rude), "true")
	hung := s.Host("hung agent")
	hung.Agent, hung.ConnectTimeout = serveSocket(t, func(c net.Conn) { io.Copy(io.Discard, c) }), 500*time.Millisecond
	within(t, 2*time.Second, func() {
		_, err := newPool(t, sshconn.Options{}).Open(t.Context(), hung)
		wantFault(t, err, hung, fault.Unavailable, fault.ReasonConnectTimeout)
	})
}

// userCA is an authority that a server trusts for logins.
func userCA(t *testing.T) (ca ssh.Signer, config []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ca") // read by sshd as root, so anywhere
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	_, ca = sshtest.NewKey(t, dir, "ca")
	file := filepath.Join(dir, "ca.pub")
	writeFile(t, file, string(ssh.MarshalAuthorizedKey(ca.PublicKey())))
	return ca, []string{"TrustedUserCAKeys " + file}
}

func certify(t *testing.T, ca ssh.Signer, key ssh.PublicKey, user string) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key, CertType: ssh.UserCert, KeyId: "deploy key", ValidPrincipals: []string{user}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificate(t *testing.T) {
	ca, config := userCA(t)
	s := sshtest.Start(t, sshtest.Options{ExtraConfig: config, User: sshtest.PlainUser(t)})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ed25519": newEd25519(t), "rsa": rsaKey} {
		file, signer := keyFile(t, "key", key, "")
		cert := certify(t, ca, signer.PublicKey(), s.User)
		certFile := filepath.Join(t.TempDir(), "cert")
		writeFile(t, certFile, string(ssh.MarshalAuthorizedKey(cert)))

		configured := s.Host(name + " from a configured file")
		configured.IdentityFiles, configured.CertificateFiles = []string{file}, []string{certFile}
		mustRun(t, open(t, newPool(t, sshconn.Options{}), configured), "true")

		held := s.Host(name + " held by the agent")
		held.IdentityFiles = nil
		held.Agent = serveAgent(t, agent.AddedKey{PrivateKey: key, Certificate: cert})
		mustRun(t, open(t, newPool(t, sshconn.Options{}), held), "true")

		plain := s.Host(name + " without the certificate")
		plain.IdentityFiles = []string{file}
		_, err := newPool(t, sshconn.Options{}).Open(t.Context(), plain)
		wantFault(t, err, plain, fault.FailedPrecondition, fault.ReasonAuthFailed)

		beside := s.Host(name + " beside the key")
		beside.IdentityFiles = []string{file}
		writeFile(t, file+"-cert.pub", string(ssh.MarshalAuthorizedKey(cert)))
		mustRun(t, open(t, newPool(t, sshconn.Options{}), beside), "true")
	}
}

func TestBadCertificateFiles(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	h := s.Host("web1")
	notOne := filepath.Join(t.TempDir(), "key.pub")
	writeFile(t, notOne, string(ssh.MarshalAuthorizedKey(s.HostKey)))
	h.CertificateFiles = []string{"/no/such/cert", notOne}
	mustRun(t, open(t, newPool(t, sshconn.Options{}), h), "true") // the key itself will do
	h.IdentityFiles = nil
	_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
	f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonBadCredentialFile)
	if !strings.Contains(f.Message, "/no/such/cert") || !strings.Contains(f.Message, "not a certificate") {
		t.Errorf("message = %q", f.Message)
	}
}

func TestPassword(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can set the password of a test account")
	}
	for name, config := range map[string][]string{
		"password":             {"KbdInteractiveAuthentication no"},
		"keyboard-interactive": {"PasswordAuthentication no"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), Password: true, ExtraConfig: config})
			h := s.PasswordHost("web1", sshtest.PlainPassword(t))
			c := open(t, newPool(t, sshconn.Options{}), h)
			if got := mustRun(t, c, "id -un"); got != s.User {
				t.Errorf("logged in as %q", got)
			}
			h.Password = secret.New("wrong word")
			_, err := newPool(t, sshconn.Options{}).Open(t.Context(), h)
			f := wantFault(t, err, h, fault.FailedPrecondition, fault.ReasonAuthFailed)
			if strings.Contains(f.Error(), "wrong word") || !strings.Contains(f.Message, name) {
				t.Errorf("error = %v", f)
			}
		})
	}
}

// A prompt that shows what is typed does not get the password.
func TestPromptWithEchoGetsNothing(t *testing.T) {
	_, hostKey := sshtest.NewKey(t, t.TempDir(), "host")
	answers := make(chan []string, 1) // of the one login
	config := &ssh.ServerConfig{KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
		got, err := ask("", "", []string{"Password: ", "Favourite colour: "}, []bool{false, true})
		answers <- got
		return nil, err
	}}
	config.AddHostKey(hostKey)
	address, _ := listen(t, func(c net.Conn) {
		if conn, _, _, err := ssh.NewServerConn(c, config); err == nil {
			conn.Close()
		}
	})
	h := inventory.Host{
		Name: "web1", Address: address, User: "u", Password: secret.New("hunter2"),
		HostKeyPolicy: inventory.AcceptNew, KnownHostsFiles: []string{filepath.Join(t.TempDir(), "known")}, ConnectTimeout: 5 * time.Second,
	}
	newPool(t, sshconn.Options{}).Open(t.Context(), h)
	if got := <-answers; len(got) != 2 || got[0] != "hunter2" || got[1] != "" {
		t.Errorf("answers = %d of them, the second %q", len(got), got[len(got)-1])
	}
}
