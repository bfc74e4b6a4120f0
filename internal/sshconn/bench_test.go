package sshconn_test

import (
	"os"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// BenchmarkOpen compares a warm Open with the bare opening of a channel on the
// same server: the difference is what the pool costs.
func BenchmarkOpen(b *testing.B) {
	s := sshtest.Start(b, sshtest.Options{})
	b.Run("pool", func(b *testing.B) {
		p := sshconn.New(sshconn.Options{})
		defer p.Close()
		for b.Loop() {
			c, err := p.Open(b.Context(), s.Host("web1"))
			if err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	})
	b.Run("raw", func(b *testing.B) {
		key, err := os.ReadFile(s.IdentityFile)
		if err != nil {
			b.Fatal(err)
		}
		signer, err := ssh.ParsePrivateKey(key)
		if err != nil {
			b.Fatal(err)
		}
		c, err := ssh.Dial("tcp", s.Addr, &ssh.ClientConfig{
			User: s.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(s.HostKey),
		})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		for b.Loop() {
			channel, requests, err := c.OpenChannel("session", nil)
			if err != nil {
				b.Fatal(err)
			}
			channel.Close()
			for range requests {
			}
		}
	})
}
