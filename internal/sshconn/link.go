package sshconn

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// headSize is how much of what a server says first is kept for error messages.
const headSize = 80

// link is the byte stream below a connection. It notes when bytes last came in,
// because any byte is a sign of life: a reply to a keepalive may stand in line
// behind a lot of output.
type link struct {
	net.Conn
	started  time.Time
	lastRead atomic.Int64 // nanoseconds after started

	headFull atomic.Bool
	mu       sync.Mutex
	first    []byte // what the server said first, up to headSize
}

func newLink(c net.Conn) *link { return &link{Conn: c, started: time.Now()} }

// Read implements net.Conn.
func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.lastRead.Store(int64(time.Since(l.started)))
		if !l.headFull.Load() {
			l.keep(p[:n])
		}
	}
	return n, err
}

func (l *link) keep(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = append(l.first, p[:min(len(p), headSize-len(l.first))]...)
	if len(l.first) == headSize {
		l.headFull.Store(true)
	}
}

// head is what the server said first.
func (l *link) head() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.first)
}

// silence is for how long nothing came in.
func (l *link) silence() time.Duration {
	return time.Since(l.started) - time.Duration(l.lastRead.Load())
}

// forwarded is a stream through a jump host: a direct-tcpip channel as a
// net.Conn. It has no deadlines; closing it unblocks reads and writes.
type forwarded struct {
	ssh.Channel
	local, remote net.Addr
}

func (f forwarded) LocalAddr() net.Addr              { return f.local }
func (f forwarded) RemoteAddr() net.Addr             { return f.remote }
func (f forwarded) SetDeadline(time.Time) error      { return errNoDeadline }
func (f forwarded) SetReadDeadline(time.Time) error  { return errNoDeadline }
func (f forwarded) SetWriteDeadline(time.Time) error { return errNoDeadline }

// hopAddr is the address of a host as its jump host was asked for it.
type hopAddr string

func (hopAddr) Network() string  { return "tcp" }
func (a hopAddr) String() string { return string(a) }
