package web

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// How the wire is, as specs ask for it.
const (
	open         = "open"          // everything gets through
	cut          = "cut"           // what is open breaks off, and nothing new gets through
	silent       = "silent"        // WebSockets that are open say nothing any more, for good, and do not break; new ones are fine
	noWebSockets = "no-websockets" // WebSockets that are open break off, and new ones are answered with 403
)

// maxHead is how many bytes of a request's head are looked at.
const maxHead = 64 << 10

// wire is a TCP proxy before the service. A browser opens a connection of its own
// for each WebSocket, so the first request of a connection tells what it is for.
type wire struct {
	address string // where it listens
	target  string

	mu    sync.Mutex
	mode  string
	delay time.Duration
	links map[*link]bool

	working  sync.WaitGroup
	listener net.Listener
}

// link is a connection through the wire.
type link struct {
	near, far net.Conn
	socket    bool          // a WebSocket; of the wire's mutex, like the next
	silent    bool          // whether silence is closed
	silence   chan struct{} // closed when nothing is to get through any more
	ended     chan struct{} // closed when it has broken off
	end       sync.Once
}

// newWire listens before the target until the end of the test.
func newWire(t *testing.T, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String(), target: target, mode: open, links: make(map[*link]bool), listener: l}
	w.working.Go(w.accept)
	t.Cleanup(func() {
		l.Close()
		w.breakOff(func(*link) bool { return true })
		w.working.Wait()
	})
	return w
}

// set changes how the wire is, from now on and for what is open.
func (w *wire) set(mode string, delay time.Duration) error {
	w.mu.Lock()
	w.mode, w.delay = mode, delay
	if mode == silent {
		w.mode = open
		for l := range w.links {
			if l.socket && !l.silent {
				l.silent = true
				close(l.silence)
			}
		}
	}
	w.mu.Unlock()
	switch mode {
	case open, silent:
	case cut:
		w.breakOff(func(*link) bool { return true })
	case noWebSockets:
		w.breakOff(func(l *link) bool { return l.socket })
	default:
		return fmt.Errorf("a wire cannot be %q", mode)
	}
	return nil
}

// breakOff ends the links that are meant, with a reset.
func (w *wire) breakOff(meant func(*link) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.links {
		if meant(l) {
			l.close()
		}
	}
}

func (l *link) close() {
	l.end.Do(func() {
		close(l.ended)
		for _, c := range []net.Conn{l.near, l.far} {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			if c != nil {
				c.Close()
			}
		}
	})
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return // the test is over
		}
		w.working.Go(func() { w.carry(near) })
	}
}

// carry is the life of a connection.
func (w *wire) carry(near net.Conn) {
	l := &link{near: near, silence: make(chan struct{}), ended: make(chan struct{})}
	w.mu.Lock()
	w.links[l] = true
	isCut := w.mode == cut
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.links, l)
		w.mu.Unlock()
		l.close()
	}()
	if isCut {
		return
	}
	head, err := readHead(near)
	if err != nil {
		return // it has gone before it asked for anything
	}
	socket := strings.Contains(strings.ToLower(string(head)), "\r\nupgrade: websocket\r\n")
	far, err := net.Dial("tcp", w.target)
	w.mu.Lock()
	l.socket = socket
	refused := socket && w.mode == noWebSockets
	select {
	case <-l.ended: // meanwhile
		err = net.ErrClosed
	default:
	}
	l.far = far
	w.mu.Unlock()
	switch {
	case refused:
		if far != nil {
			far.Close()
		}
		_, _ = io.WriteString(near, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	case err != nil:
		if far != nil {
			far.Close()
		}
		return // the service is not there
	}
	var other sync.WaitGroup
	other.Go(func() { w.pump(l, near, far) })
	w.pump(l, far, io.MultiReader(bytes.NewReader(head), near))
	other.Wait()
}

// readHead reads a request up to the end of its header.
func readHead(c net.Conn) (head []byte, err error) {
	r := bufio.NewReaderSize(c, 1) // at least 16 bytes, so it may have read behind the head
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) && len(head) < maxHead {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		head = append(head, b)
	}
	behind, _ := r.Peek(r.Buffered())
	return append(head, behind...), nil
}

// pump carries bytes one way until the link ends, which it sees to when there are
// no more.
func (w *wire) pump(l *link, to net.Conn, from io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		w.mu.Lock()
		delay := w.delay
		w.mu.Unlock()
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-l.ended:
			}
		}
		select {
		case <-l.silence:
			<-l.ended // what was read is lost
			return
		default:
		}
		if n > 0 {
			if _, failed := to.Write(buffer[:n]); failed != nil {
				err = failed
			}
		}
		if err != nil {
			l.close()
			return
		}
	}
}
