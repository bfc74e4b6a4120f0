package sshconn

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func publicKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	_, signer := sshtest.NewKey(t, t.TempDir(), "key")
	return signer.PublicKey()
}

// OpenSSH itself says which entries are for a host.
func TestMatchingIsThatOfOpenSSH(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal("this test needs ssh-keygen: apt-get install openssh-client")
	}
	names := []string{"web1", "web1.example.com", "[web1]:2222", "[web1.example.com]:2222", "10.0.0.1", "::1", "[::1]:2222"}
	patterns := []string{
		"web1", "WEB1", "web?", "web*", "*", "[web1]:2222", "[web1]:*", "[*]:2222", "[*.example.com]:2222", "*.example.com",
		"web1,!web1", "!web1", "*,!*.example.com", "10.0.0.*", "::1", "[::1]:2222", "db1", "we*1", "w*e*b*1*", "*?", "web1,",
		",", "!", "a,,web1", knownhosts.HashHostname("web1"), knownhosts.HashHostname("[web1]:2222"),
	}
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(publicKey(t))))
	for _, pattern := range patterns {
		line := pattern + " " + key + "\n"
		file := filepath.Join(t.TempDir(), "known_hosts")
		if err := appendLine(file, strings.TrimSuffix(line, "\n")); err != nil {
			t.Fatal(err)
		}
		known := parseKnownHosts([]byte(line), file)
		for _, name := range names {
			out, _ := exec.Command(keygen, "-F", name, "-f", file).Output()
			want := bytes.Contains(out, []byte("found"))
			if got := len(known.find(name, "")) > 0; got != want {
				t.Errorf("%q is for %q: %t, OpenSSH says %t", pattern, name, got, want)
			}
		}
	}
}

func TestBrokenHashesMatchNothing(t *testing.T) {
	for _, pattern := range []string{"|", "|1|", "|1|a|b", "|2|YQ==|YQ==", "|1|YQ==|YQ==|", "|1||"} {
		if matchHash(pattern, "web1") {
			t.Errorf("%q matches", pattern)
		}
	}
}

func TestKnownName(t *testing.T) {
	for _, test := range []struct{ address, alias, want string }{
		{"web1:22", "", "web1"}, {"Web1:2222", "", "[web1]:2222"}, {"[::1]:22", "", "::1"}, {"[::1]:2222", "", "[::1]:2222"},
		{"web1:2222", "Cluster", "cluster"},
	} {
		if got := knownName(test.address, test.alias); got != test.want {
			t.Errorf("knownName(%q, %q) = %q, want %q", test.address, test.alias, got, test.want)
		}
	}
}

func TestHostKeyAlgorithms(t *testing.T) {
	key := publicKey(t)
	line := func(marker string) knownHosts {
		return parseKnownHosts([]byte(marker+"web1 "+string(ssh.MarshalAuthorizedKey(key))), "f")
	}
	if got := line("").algorithms("web1"); got[0] != ssh.KeyAlgoED25519 || slices.ContainsFunc(got, isCertificate) {
		t.Errorf("of a known key: %v", got)
	}
	if got := line("@cert-authority ").algorithms("[web1]:2222"); !isCertificate(got[0]) || !slices.Contains(got, ssh.KeyAlgoED25519) {
		t.Errorf("of a known authority: %v", got)
	}
	unknown := line("").algorithms("db1")
	if slices.Contains(unknown, ssh.KeyAlgoRSA) || !slices.Contains(unknown, ssh.KeyAlgoRSASHA512) {
		t.Errorf("of an unknown host: %v", unknown)
	}
	if keyFormat(ssh.KeyAlgoRSASHA256) != ssh.KeyAlgoRSA {
		t.Error("rsa-sha2-256 is not a signature of ssh-rsa keys")
	}
}

func TestCipherOrder(t *testing.T) {
	for aes, first := range map[bool]string{true: ssh.CipherAES128GCM, false: ssh.CipherChaCha20Poly1305} {
		got := algorithms(aes)
		if got.Ciphers[0] != first || len(got.Ciphers) != 6 {
			t.Errorf("ciphers with AES %t: %v", aes, got.Ciphers)
		}
		if slices.Contains(got.KeyExchanges, ssh.InsecureKeyExchangeDH14SHA1) || slices.Contains(got.MACs, ssh.InsecureHMACSHA196) {
			t.Errorf("weak algorithms: %v %v", got.KeyExchanges, got.MACs)
		}
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	for _, limit := range []time.Duration{time.Second, time.Minute} {
		for n := 1; n < 100; n++ {
			got := backoff(n, limit)
			if got <= 0 || got > min(backoffMost, limit/2) {
				t.Fatalf("backoff(%d, %s) = %s", n, limit, got)
			}
			if n == 1 && got > backoffFirst {
				t.Fatalf("the first backoff is %s", got)
			}
		}
	}
}

func TestUnusedEndpointsAreForgotten(t *testing.T) {
	p := New(Options{})
	defer p.Close()
	hop := inventory.Host{Name: "hop", Address: "127.0.0.1:1"}
	for i := range firstSweep {
		h := inventory.Host{Name: fmt.Sprint("web", i), Address: "127.0.0.1:1", Via: []inventory.Host{hop}}
		if _, err := p.endpoint(h); err != nil {
			t.Fatal(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep(time.Now().Add(-time.Minute))
	if p.count != firstSweep+1 {
		t.Errorf("%d endpoints are left of %d that were used just now", p.count, firstSweep+1)
	}
	later := time.Now().Add(time.Minute)
	p.sweep(later) // in one go or, for the jump host, in two
	p.sweep(later)
	if p.count != 0 || len(p.hosts) != 0 {
		t.Errorf("%d endpoints are left: %v", p.count, p.hosts)
	}
}

func TestClosedPoolStartsNothing(t *testing.T) {
	p := New(Options{})
	e, err := p.endpoint(inventory.Host{Name: "web1", Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if p.spawn(func() { t.Error("it ran") }) {
		t.Error("a goroutine was started")
	}
	c := &conn{end: e}
	if c.start(nil, nil) {
		t.Error("a connection was started")
	}
	if _, _, err := c.openChannel(context.Background(), request{kind: "session"}); err != errClosing {
		t.Errorf("openChannel = %v", err)
	}
}

// Whatever is in the file, reading and matching it ends and does not panic, and
// a good line after it still counts.
func FuzzKnownHosts(f *testing.F) {
	key := publicKey(f)
	good := "good.example.com " + string(ssh.MarshalAuthorizedKey(key))
	for _, seed := range []string{
		"", "#", "|1|a|b", good, "@revoked * " + good, "@cert-authority * ssh-ed25519", "a,!b,*?* " + good, "\x00\n\r\n|", "@ @ @ @",
	} {
		f.Add([]byte(seed), "[web1]:2222")
	}
	f.Fuzz(func(t *testing.T, content []byte, name string) {
		known := parseKnownHosts(append(append(content, '\n'), good...), "f")
		known.trusts(name, key)
		known.authorities(name)
		if len(known.algorithms(name)) == 0 {
			t.Error("no algorithm is left")
		}
		if _, revoked := known.revoked(key); !revoked && !slices.ContainsFunc(known, func(l knownLine) bool {
			return l.pattern == "good.example.com" && sameKey(l.key, key)
		}) {
			t.Errorf("the good line is lost among %d", len(known))
		}
	})
}

func FuzzMatchPattern(f *testing.F) {
	f.Add("*a?b*", "xxaybzz")
	f.Add(strings.Repeat("*a", 50), strings.Repeat("a", 49))
	f.Fuzz(func(t *testing.T, pattern, s string) {
		got := matchPattern(pattern, s)
		if !strings.ContainsAny(pattern, "*?") && got != (pattern == s) {
			t.Errorf("matchPattern(%q, %q) = %t", pattern, s, got)
		}
		if !matchPattern("*", s) || !matchPattern(s+"*", s) && !strings.ContainsAny(s, "*?") {
			t.Errorf("* does not match %q", s)
		}
	})
}
