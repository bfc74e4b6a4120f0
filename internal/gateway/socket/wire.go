package socket

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/fault"
)

const (
	// sendBuffer is the kernel's part of what is on its way to a client: what is
	// urgent waits behind it. Linux doubles it.
	sendBuffer = 64 << 10
	// slowTimeout is how long something of what is written has to be taken. Where a segment
	// is as large as on loopback, a reader of 1 KB/s shows only once a minute that it reads.
	slowTimeout = 2 * time.Minute
	// wirePart is written at once over TLS, where a write that was given up cannot go on.
	wirePart = 4 << 10
	// maxWaiting bounds the answers to pings that wait; a message is written when nothing
	// does.
	maxWaiting = 64 << 10
	// lastTimeout is for what is left when a socket is over.
	lastTimeout = 5 * time.Second
	// lingering is how long what a client still sends is read, so that what it was told
	// last is not lost to a reset (RFC 9112 §9.6).
	lingering = time.Second
)

// wire is the connection below a WebSocket. What is written to it is kept until
// the writer of the socket flushes it. So nothing that the library does waits for a
// client, above all the answer to a ping, for which it has five seconds.
//
//	writer ─▶ library: frames, deflate ─▶ Write: memory ─▶ writer: flush ─▶ kernel
//	reader ─▶ library: answers to pings ──────┘
type wire struct {
	net.Conn
	early []byte        // came before the upgrade was answered; of the reader
	part  int           // is written at once
	said  chan struct{} // Write and Close tell the writer; one pending is enough

	mu      sync.Mutex
	waiting []byte
	closed  bool
	last    time.Time // by which all must be written; zero: none
}

// Read is for the library's reading.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.early) > 0 {
		n := copy(p, w.early)
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
		}
		return n, nil
	}
	n, err := w.Conn.Read(p)
	if w.over() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (w *wire) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// Write keeps p. It does not wait.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, net.ErrClosed
	}
	if len(w.waiting) > maxWaiting && len(p) < wirePart { // pings without end from somebody who does not read
		return 0, fault.New(fault.Exhausted, fault.ReasonTooManyStreams, "the client does not read")
	}
	if w.waiting == nil {
		w.waiting = takeRoom()
	}
	w.waiting = append(w.waiting, p...)
	notify(w.said)
	return len(p), nil
}

// Close says that nothing more is written or read. The writer closes the
// connection when it has written what is left.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		_ = w.SetReadDeadline(time.Now()) // the reader goes
		w.endBy(time.Now().Add(lastTimeout))
	}
	notify(w.said)
	return nil
}

// hurry bounds what is left to be written.
func (w *wire) hurry(within time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endBy(time.Now().Add(within))
}

// endBy is hurry for a caller that holds mu.
func (w *wire) endBy(last time.Time) {
	if w.last.IsZero() || last.Before(w.last) {
		w.last = last
		_ = w.SetWriteDeadline(last)
	}
}

// flush writes what waits, and tells how much it was. It is the writer's alone.
func (w *wire) flush() (written int, err error) {
	for {
		w.mu.Lock()
		all := w.waiting
		w.waiting = nil
		w.mu.Unlock()
		if len(all) == 0 {
			return written, nil
		}
		for p := all; len(p) > 0; {
			w.extend()
			n, err := w.Conn.Write(p[:min(len(p), w.part)])
			written += n
			p = p[n:]
			// Over TLS that was the last; else who has taken something has as long again.
			if err != nil && (n == 0 || len(p) > 0 && !errors.Is(err, os.ErrDeadlineExceeded)) {
				return written, err
			}
		}
		giveRoom(all)
	}
}

// rooms has the memory in which messages are made and wait to be written: those who
// have something to say have it in turn.
var rooms sync.Pool

// mostRoom is what is kept of it at once; few messages are longer.
const mostRoom = 128 << 10

// takeRoom gives room without bytes.
func takeRoom() []byte {
	if p, ok := rooms.Get().(*[]byte); ok {
		return *p
	}
	return nil
}

// giveRoom takes it back.
func giveRoom(p []byte) {
	if cap(p) > 0 && cap(p) <= mostRoom {
		rooms.Put(new(p[:0]))
	}
}

// extend gives the next part its time.
func (w *wire) extend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := time.Now().Add(slowTimeout)
	if !w.last.IsZero() && w.last.Before(until) {
		until = w.last
	}
	_ = w.SetWriteDeadline(until)
}

// finish writes what is left and closes the connection. It is the writer's alone.
func (w *wire) finish() {
	w.hurry(lastTimeout)
	if _, err := w.flush(); err == nil {
		if half, ok := w.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_ = w.SetReadDeadline(time.Now().Add(lingering))
			_, _ = io.Copy(io.Discard, w.Conn) // ends when the client closes, or is late
		}
	}
	_ = w.Conn.Close()
}

// cut closes the connection at once; whoever reads or writes fails.
func (w *wire) cut() { _ = w.Conn.Close() }

// upgrade is the answer to a handshake: it puts a wire below the library. net/http
// has buffers of 4 KiB for each direction, which an idle socket would keep.
type upgrade struct {
	http.ResponseWriter
	wire *wire
}

// Hijack is of http.Hijacker.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, nil, err
	}
	early, _ := buffers.Reader.Peek(buffers.Reader.Buffered()) // as many as there are
	u.wire = &wire{Conn: conn, early: append([]byte(nil), early...), said: make(chan struct{}, 1), part: math.MaxInt}
	raw := conn
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		raw = secured.NetConn()
		u.wire.part = wirePart
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // only what is urgent would be later
	}
	return u.wire, bufio.NewReadWriter(bufio.NewReaderSize(u.wire, 1<<10), bufio.NewWriterSize(u.wire, 512)), nil
}

// notify wakes whoever waits on a channel with room for one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
