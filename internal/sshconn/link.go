package sshconn

import (
	"io"
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
	if err != nil {
		// At once, and not when x/crypto/ssh gets to it: it first forgets its channels,
		// and the opening of one that can still be written then would wait for ever.
		l.Close()
	}
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

// heard is when something last came in.
func (l *link) heard() time.Time { return l.started.Add(time.Duration(l.lastRead.Load())) }

// silence is for how long nothing came in.
func (l *link) silence() time.Duration { return time.Since(l.heard()) }

// forwarded is a stream through a jump host. Closing an ssh.Channel only asks the
// jump host to close it, and may block in doing so; reads and writes go on until
// it agrees. So a pipe stands before the channel, and closing that ends them:
//
//	conn ──▶ near ═══ far ◀── two copiers ──▶ channel ──▶ jump host
type forwarded struct {
	net.Conn // near
	pool     *Pool
	channel  ssh.Channel
	once     sync.Once
	local    net.Addr
	remote   net.Addr
}

func newForwarded(channel ssh.Channel, requests <-chan *ssh.Request, parent *conn, address string) *forwarded {
	near, far := net.Pipe()
	f := &forwarded{Conn: near, pool: parent.end.pool, channel: channel, local: parent.link.LocalAddr(), remote: hopAddr(address)}
	// Each ends with the channel, at the latest with the jump host's connection.
	for _, part := range []func(){
		func() { ssh.DiscardRequests(requests) },
		func() { io.Copy(far, channel); far.Close() },
		func() { io.Copy(channel, far); far.Close() },
	} {
		if !f.pool.spawn(part) {
			near.Close() // the pool is closed, and with it the connection
		}
	}
	return f
}

// Close implements net.Conn. It does not wait for the jump host.
func (f *forwarded) Close() error {
	f.once.Do(func() { f.pool.spawn(func() { f.channel.Close() }) })
	return f.Conn.Close()
}

// LocalAddr implements net.Conn: our end of the first connection of the way.
func (f *forwarded) LocalAddr() net.Addr { return f.local }

// RemoteAddr implements net.Conn: what the jump host was asked for.
func (f *forwarded) RemoteAddr() net.Addr { return f.remote }

// hopAddr is the address of a host as its jump host was asked for it.
type hopAddr string

func (hopAddr) Network() string  { return "tcp" }
func (a hopAddr) String() string { return string(a) }
