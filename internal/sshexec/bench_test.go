package sshexec

import (
	"io"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// raw is what x/crypto/ssh needs for the same by itself.
func raw(b *testing.B, client *ssh.Client, line string) (n int64) {
	s, err := client.NewSession()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	out, err := s.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Start(line); err != nil {
		b.Fatal(err)
	}
	if n, err = io.Copy(io.Discard, out); err != nil {
		b.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		b.Fatal(err)
	}
	return n
}

func BenchmarkTrue(b *testing.B) {
	h := start(b, sshtest.Options{User: sshtest.PlainUser(b)})
	h.line(command.Spec{Line: "true"})
	client := h.runner.dialer.(*dialer).up[0].client
	b.Run("raw", func(b *testing.B) {
		for b.Loop() {
			raw(b, client, "true")
		}
	})
	b.Run("attached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.line(command.Spec{Line: "true"})
		}
	})
	b.Run("durable", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k := h.durably(command.Spec{Line: "true"})
			if _, err := k.Wait(); err != nil {
				b.Fatal(err)
			}
			k.Collected()
		}
	})
	b.Run("raw with the same request", func(b *testing.B) {
		exec, _, _ := request(startProgram("NONCE", "id", &command.Spec{Line: "true"}, true), false, false, true)
		for b.Loop() {
			raw(b, client, exec)
		}
	})
	b.Run("environment", func(b *testing.B) {
		for b.Loop() {
			h.line(command.Spec{Line: "true", Env: map[string]string{"A": "b"}})
		}
	})
}

func BenchmarkBulk(b *testing.B) {
	const size = 256 << 20
	const line = "head -c 268435456 /dev/zero"
	h := start(b, sshtest.Options{User: sshtest.PlainUser(b)})
	h.line(command.Spec{Line: "true"})
	client := h.runner.dialer.(*dialer).up[0].client
	b.Run("raw", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			raw(b, client, line)
		}
	})
	b.Run("attached", func(b *testing.B) {
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			var n int
			p, err := h.runner.startAttached(b.Context(), newID(), h.inv, &command.Spec{Line: line},
				func(_ command.Stream, data []byte) error { n += len(data); return nil })
			if err != nil {
				b.Fatal(err)
			}
			if _, err := p.Wait(); err != nil || n != size {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("durable", func(b *testing.B) {
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			var n int
			run := Run{ID: newID(), Host: h.inv, Spec: &command.Spec{Line: line}, Fence: 1,
				Output: func(_ command.Stream, data []byte) error { n += len(data); return nil }}
			p, err := h.runner.Start(b.Context(), run)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := p.Wait(); err != nil || n != size {
				b.Fatal(n, err)
			}
			p.Collected()
		}
	})
}
