// Package loopback is a small SSH server on 127.0.0.1, so that the demo and the
// benchmarks have a host to talk to on a machine without sshd.
//
//	srv, err := loopback.Start(ctx, loopback.Options{Dir: dir})
//	defer srv.Close()
//	os.WriteFile(config, []byte("hosts:\n"+srv.ConfigHost("loopback")), 0o600)
//
// It runs exec requests as the current user through /bin/sh -c, each in a
// session of its own, with stdout and stderr apart or on a terminal, and tells the exit
// status or the signal. Only the client key that Start writes may log in. Like sshd it
// kills nothing when a channel or a connection closes, but hangs terminals up; unlike
// sshd it takes no environment and no signals.
//
// It is not for production and not for the tests of the connection: those use
// a real OpenSSH server, see sshtest.
package loopback

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Options of a server.
type Options struct {
	Dir  string // where the keys and the known_hosts file are written; it must exist
	Home string // $HOME of who logs in; it must exist. Empty: that of this program
}

// Server is a running server. Its fields do not change.
type Server struct {
	Addr           string // 127.0.0.1:port
	User           string // the current user, the only one who may log in
	IdentityFile   string // private key that may log in
	KnownHostsFile string // holds the key of the server

	home     string
	config   *ssh.ServerConfig
	listener net.Listener
	stop     context.CancelFunc // kills the commands and ends the goroutines
	running  sync.WaitGroup     // every goroutine

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once Close has begun
}

// Start makes new keys, writes them to opt.Dir and serves on an ephemeral port
// until ctx ends or Close is called.
func Start(ctx context.Context, opt Options) (*Server, error) {
	current, err := user.Current()
	if err != nil {
		return nil, err
	}
	s := &Server{
		User:           current.Username,
		home:           opt.Home,
		IdentityFile:   filepath.Join(opt.Dir, "loopback_client_key"),
		KnownHostsFile: filepath.Join(opt.Dir, "loopback_known_hosts"),
		conns:          make(map[net.Conn]struct{}),
	}
	host, _, err := newKey()
	if err != nil {
		return nil, err
	}
	client, clientPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	s.config = &ssh.ServerConfig{PublicKeyCallback: s.allow(client.PublicKey())}
	s.config.AddHostKey(host)
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.Addr = s.listener.Addr().String()
	_, port, _ := net.SplitHostPort(s.Addr)
	known := fmt.Sprintf("[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(host.PublicKey()))
	err = errors.Join(
		os.WriteFile(s.IdentityFile, clientPEM, 0o600),
		os.WriteFile(s.KnownHostsFile, []byte(known), 0o600))
	if err != nil {
		s.listener.Close()
		return nil, err
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.running.Go(func() { s.accept(ctx) })
	context.AfterFunc(ctx, s.closeAll)
	return s, nil
}

// newKey makes a key and its private half in OpenSSH's format.
func newKey() (ssh.Signer, []byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "loopback")
	if err != nil {
		return nil, nil, err
	}
	signer, err := ssh.NewSignerFromSigner(key)
	return signer, pem.EncodeToMemory(block), err
}

func (s *Server) allow(key ssh.PublicKey) func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
	return func(meta ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
		if meta.User() != s.User || string(offered.Marshal()) != string(key.Marshal()) {
			return nil, errors.New("not the key of this server's client")
		}
		return nil, nil
	}
}

// ConfigHost is the server as one entry of "hosts:" in the configuration file of
// the service: YAML, indented by two spaces.
func (s *Server) ConfigHost(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n", name)
	for _, field := range [][2]string{
		{"address", s.Addr},
		{"user", s.User},
		{"identity_file", s.IdentityFile},
		{"known_hosts_file", s.KnownHostsFile},
	} {
		fmt.Fprintf(&b, "    %s: %q\n", field[0], field[1])
	}
	return b.String()
}

// Close switches the machine off: it kills the commands, drops the connections
// and waits for every goroutine. It may be called twice.
func (s *Server) Close() {
	s.stop()
	s.closeAll()
	s.running.Wait()
}

func (s *Server) closeAll() {
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// keep remembers c for closeAll; false when that has begun.
func (s *Server) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) accept(ctx context.Context) {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		if !s.keep(c) {
			c.Close()
			return
		}
		s.running.Go(func() {
			defer s.forget(c)
			defer c.Close()
			s.serve(ctx, c)
		})
	}
}

// serve speaks SSH on one connection until it breaks.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	conn, channels, requests, err := ssh.NewServerConn(c, s.config)
	if err != nil {
		return
	}
	defer conn.Close()
	s.running.Go(func() {
		// keepalive@openssh.com wants an answer; as with sshd, failure is one.
		ssh.DiscardRequests(requests)
	})
	for offered := range channels {
		if offered.ChannelType() != "session" {
			offered.Reject(ssh.UnknownChannelType, "only sessions here")
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		s.running.Go(func() { s.session(ctx, channel, requests) })
	}
}

// session answers the requests of one channel; the first exec is served.
func (s *Server) session(ctx context.Context, channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	var asked *ptyRequest
	for r := range requests {
		if r.Type == "pty-req" && asked == nil {
			asked = new(ptyRequest)
			err := ssh.Unmarshal(r.Payload, asked)
			r.Reply(err == nil, nil)
			if err != nil {
				return
			}
			continue
		}
		if r.Type != "exec" {
			r.Reply(false, nil)
			continue
		}
		var payload struct{ Command string }
		if err := ssh.Unmarshal(r.Payload, &payload); err != nil {
			r.Reply(false, nil)
			return
		}
		if asked != nil {
			on, err := startOn(asked, payload.Command, s.home)
			r.Reply(err == nil, nil)
			if err == nil {
				s.running.Go(func() { on.resize(requests) })
				on.serve(ctx, channel, &s.running)
			}
			return
		}
		p, err := start(payload.Command, s.home)
		r.Reply(err == nil, nil)
		if err != nil {
			return
		}
		s.running.Go(func() {
			// It ends with the channel, which the end of this function closes.
			ssh.DiscardRequests(requests)
		})
		s.running.Go(func() {
			// EOF from the client is EOF for the command; a command that has
			// ended, or does not read, is no error of ours.
			io.Copy(p.stdin, channel)
			p.stdin.Close()
		})
		p.serve(ctx, channel)
		return
	}
}
