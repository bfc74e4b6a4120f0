package web

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What specs conclude from the wire counts only as far as the wire does what it is
// told.
func TestWire(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, "plain")
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		_, _ = io.Copy(conn, conn)
	}))
	t.Cleanup(srv.Close)
	w := newWire(t, strings.TrimPrefix(srv.URL, "http://"))
	// begin asks for a connection and gives the status of the answer, empty for none.
	begin := func(upgrade string) (c net.Conn, r *bufio.Reader, status string) {
		t.Helper()
		c, err := net.Dial("tcp", w.address)
		if errors.Is(err, syscall.ECONNRESET) { // a wire that is cut may be as quick as that
			return nil, nil, ""
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n"+upgrade+"\r\n")
		r = bufio.NewReader(c)
		status, _ = r.ReadString('\n')
		if upgrade != "" && strings.Contains(status, "101") {
			_, _ = r.ReadString('\n')
		}
		return c, r, strings.TrimSpace(status)
	}
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	echo := func(c net.Conn, r *bufio.Reader) string {
		_, _ = io.WriteString(c, "hello\n")
		line, _ := r.ReadString('\n')
		return line
	}
	set := func(mode string, delay time.Duration) {
		t.Helper()
		if err := w.set(mode, delay); err != nil {
			t.Fatal(err)
		}
	}

	first, r, status := begin(upgrade)
	if status != "HTTP/1.1 101 Switching Protocols" || echo(first, r) != "hello\n" {
		t.Fatalf("open: %q", status)
	}
	set(noWebSockets, 0)
	if line := echo(first, r); line != "" {
		t.Errorf("a WebSocket says %q when they are blocked", line)
	}
	if _, _, status := begin(upgrade); status != "HTTP/1.1 403 Forbidden" {
		t.Errorf("a new WebSocket is answered with %q", status)
	}
	if _, _, status := begin(""); status != "HTTP/1.1 200 OK" {
		t.Errorf("HTTP without a WebSocket is answered with %q", status)
	}
	set(open, 0)
	second, r, _ := begin(upgrade)
	set(silent, 0)
	if err := second.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(second, "hello\n")
	if _, err := r.ReadByte(); err == nil || err == io.EOF {
		t.Errorf("a silent WebSocket: %v", err)
	}
	third, r, status := begin(upgrade)
	if status == "" || echo(third, r) != "hello\n" {
		t.Errorf("a new WebSocket beside a silent one: %q", status)
	}
	set(open, 100*time.Millisecond)
	began := time.Now()
	if line := echo(third, r); line == "" || time.Since(began) < 200*time.Millisecond {
		t.Errorf("%q after %v with 100 ms each way", line, time.Since(began))
	}
	set(cut, 0)
	if line := echo(third, r); line != "" {
		t.Errorf("a WebSocket says %q through a wire that is cut", line)
	}
	if _, _, status := begin(""); status != "" {
		t.Errorf("a wire that is cut says %q", status)
	}
	if err := w.set("red", 0); err == nil {
		t.Error("a wire can be red")
	}
}
