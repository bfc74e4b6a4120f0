package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway"
)

// pipes is a listener without a network, so that time can be a test's own.
type pipes struct {
	arrived chan net.Conn // one from each dial to Accept; without a buffer
	closed  chan struct{}
	once    sync.Once
}

func newPipes() *pipes { return &pipes{arrived: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.arrived:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// end is the server's end of a pipe, from an address, that tells when it is closed.
type end struct {
	net.Conn
	from   string
	closed func()
}

func (e end) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(e.from), Port: 1} }
func (e end) Close() error         { e.closed(); return e.Conn.Close() }

// dial gives the client's end of a connection from an address; gone is closed when
// the server closes its own.
func (p *pipes) dial(from string) (c net.Conn, gone <-chan struct{}) {
	ours, theirs := net.Pipe()
	closed := make(chan struct{})
	select {
	case p.arrived <- end{theirs, from, sync.OnceFunc(func() { close(closed) })}:
	case <-p.closed:
		close(closed)
	}
	return ours, closed
}

// inBubble runs a test against a gateway in a bubble of time.
func inBubble(t *testing.T, svc *service, test func(t *testing.T, d *door, p *pipes), change ...func(*gateway.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			c, _ := p.dial("127.0.0.1")
			return c, nil
		}}
		test(t, openAt(t, p, transport, svc, change...), p)
	})
}

// send writes text to a connection, and reads nothing.
func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
}

// receive reads one answer from a connection.
func receive(t *testing.T, from *bufio.Reader) (status int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestABodyThatNobodyReads holds no connection: whatever is answered without it is
// answered soon, though the body does not come, and at once where it is there.
func TestABodyThatNobodyReads(t *testing.T) {
	for name, c := range map[string]struct {
		request, header string
		status          int
	}{
		"no token":        {"POST /v1/commands", "Host: localhost", 401},
		"bad token":       {"POST /v1/commands", "Host: localhost\nAuthorization: Bearer x", 401},
		"foreign name":    {"POST /v1/commands", "Host: evil.example", 403},
		"foreign page":    {"POST /v1/commands", "Host: localhost\nOrigin: https://evil.example", 403},
		"health":          {"GET /healthz", "Host: localhost", 200},
		"readiness":       {"GET /readyz", "Host: localhost", 200},
		"login page":      {"GET /login", "Host: localhost", 200},
		"login elsewhere": {"POST /login", "Host: localhost\nSec-Fetch-Site: same-site", 403},
		"logout":          {"POST /logout", "Host: localhost", 303},
		"no route":        {"PUT /login", "Host: localhost", 405},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &service{}, func(t *testing.T, _ *door, p *pipes) {
				for _, length := range []string{"Content-Length: 1000\n\nabc", "Transfer-Encoding: chunked\n\n3\nabc\n"} {
					conn, gone := p.dial("192.0.2.1")
					begun := time.Now()
					send(t, conn, c.request+" HTTP/1.1\n"+c.header+"\n"+length)
					if status, body := receive(t, bufio.NewReader(conn)); status != c.status || time.Since(begun) > 2*time.Second {
						t.Errorf("HTTP %d %s after %v", status, body, time.Since(begun))
					}
					<-gone
					if took := time.Since(begun); took > 3*time.Second {
						t.Errorf("the connection was closed after %v", took)
					}
					conn.Close()
				}
				// The connection of an honest client can be used again, also after a while.
				conn, _ := p.dial("192.0.2.2")
				defer conn.Close()
				answers := bufio.NewReader(conn)
				for range 3 {
					begun := time.Now()
					send(t, conn, c.request+" HTTP/1.1\n"+c.header+"\nContent-Length: 3\n\nabc")
					if status, body := receive(t, answers); status != c.status || time.Since(begun) != 0 {
						t.Errorf("HTTP %d %s after %v", status, body, time.Since(begun))
					}
					<-time.After(time.Minute)
				}
			})
		})
	}
}

// TestALongWaitIsNotCutOff by what bounds the body or the answer.
func TestALongWaitIsNotCutOff(t *testing.T) {
	inBubble(t, &service{
		execute: func(ctx context.Context, _ *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
			select {
			case <-time.After(5 * time.Minute):
				return &telexecv1.ExecuteResponse{}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			for range 2 {
				if err := ss.Send(chunk(0, "line")); err != nil {
					return err
				}
				<-time.After(5 * time.Minute)
			}
			return nil
		},
	}, func(t *testing.T, d *door, p *pipes) {
		if a := d.do("POST", "/v1/commands", `{"host":"h","command":"true"}`); a.status != 200 {
			t.Errorf("HTTP %d %s", a.status, a.body)
		}
		// Nor by a client that takes its time to read a stream.
		conn, _ := p.dial("192.0.2.1")
		defer conn.Close()
		send(t, conn, "GET "+statusPath+"/output?follow=true HTTP/1.1\nHost: localhost\nAuthorization: Bearer "+token+"\n\n")
		<-time.After(20 * time.Minute)
		if status, body := receive(t, bufio.NewReader(conn)); status != 200 || strings.Count(body, "chunk") != 2 {
			t.Errorf("HTTP %d %s", status, body)
		}
	})
}

// TestWhoNeverReads does not stay, however many answers are asked for.
func TestWhoNeverReads(t *testing.T) {
	for name, request := range map[string]string{
		"login page": "GET /login HTTP/1.1\nHost: localhost\n\n",
		"health":     "GET /healthz HTTP/1.1\nHost: localhost\n\n",
		"refusal":    "GET /v1/hosts HTTP/1.1\nHost: localhost\n\n",
		"redirect":   "POST /logout HTTP/1.1\nHost: localhost\n\n",
		"document":   "GET /openapi.json HTTP/1.1\nHost: localhost\nAuthorization: Bearer " + token + "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &service{}, func(t *testing.T, _ *door, p *pipes) {
				conn, gone := p.dial("192.0.2.1")
				defer conn.Close()
				begun := time.Now()
				send(t, conn, request)
				<-gone
				if took := time.Since(begun); took > time.Minute {
					t.Errorf("it stayed for %v", took)
				}
			})
		})
	}
}

// deafConn is a client's end of a connection that reads nothing from when it is told.
type deafConn struct {
	net.Conn
	deaf, closed chan struct{}
}

func (c deafConn) Read(p []byte) (int, error) {
	select {
	case <-c.deaf:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(p)
	}
}

// TestTheSameByHTTP2, where a connection has many requests.
func TestTheSameByHTTP2(t *testing.T) {
	server, _ := certificate(t, "server", x509.ExtKeyUsageServerAuth)
	svc := &service{execute: func(ctx context.Context, _ *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		select {
		case <-time.After(10 * time.Minute):
			return &telexecv1.ExecuteResponse{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		deaf, closed := make(chan struct{}), make(chan struct{})
		var gone <-chan struct{}
		transport := &http.Transport{ForceAttemptHTTP2: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			var c net.Conn
			c, gone = p.dial("192.0.2.1")
			return deafConn{c, deaf, closed}, nil
		}}
		d := openAt(t, p, transport, svc, func(o *gateway.Options) {
			o.TLS = &tls.Config{Certificates: []tls.Certificate{server}}
		})
		if a := d.do("POST", "/v1/commands", `{"host":"h","command":"true"}`); a.status != 200 {
			t.Errorf("a long wait: HTTP %d %s", a.status, a.body)
		}
		body, never := io.Pipe()
		defer never.Close()
		r := d.request("POST", "/v1/commands", "", "Authorization", "")
		r.Body, r.ContentLength = body, 1000
		begun := time.Now()
		resp, err := d.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 401 || resp.ProtoMajor != 2 || time.Since(begun) > 2*time.Second {
			t.Errorf("%s %s after %v", resp.Proto, resp.Status, time.Since(begun))
		}
		close(deaf)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begun = time.Now()
		for range 20 {
			go func() {
				if resp, err := d.client.Do(d.request("GET", "/login", "").WithContext(ctx)); err == nil {
					resp.Body.Close()
				}
			}()
		}
		<-gone
		if took := time.Since(begun); took > 10*time.Minute {
			t.Errorf("it stayed for %v", took)
		}
		close(closed)
	})
}

// TestALargeAnswerIsForSlowReaders too, as long as they read.
func TestALargeAnswerIsForSlowReaders(t *testing.T) {
	inBubble(t, &service{status: func(context.Context, *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
		return &telexecv1.GetStatusResponse{Stdout: &telexecv1.StreamContent{Data: make([]byte, 1<<20)}}, nil
	}}, func(t *testing.T, _ *door, p *pipes) {
		conn, _ := p.dial("192.0.2.1")
		defer conn.Close()
		send(t, conn, "GET "+statusPath+" HTTP/1.1\nHost: localhost\nAuthorization: Bearer "+token+"\nConnection: close\n\n")
		part, all := make([]byte, 32<<10), 0
		for {
			n, err := io.ReadFull(conn, part)
			if all += n; err != nil {
				break
			}
			<-time.After(5 * time.Second)
		}
		if all < 4<<20/3 {
			t.Errorf("%d bytes came", all)
		}
	})
}

// TestFormsThatDoNotArrive: nobody knows who sends them, so that they are few. Who
// sends one that is there takes no place, and keeps none from being taken.
func TestFormsThatDoNotArrive(t *testing.T) {
	inBubble(t, &service{}, func(t *testing.T, d *door, p *pipes) {
		answered := make(chan string, 20) // from each connection; never blocks
		begun := time.Now()
		for range 20 {
			conn, _ := p.dial("127.0.0.1")
			defer conn.Close()
			send(t, conn, "POST /login HTTP/1.1\nHost: localhost\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 100\n\ntoken=")
			go func() {
				line, _ := bufio.NewReader(conn).ReadString('\n')
				answered <- line
			}()
		}
		honest := func() {
			t.Helper()
			at := time.Now()
			if a := d.form("/login", url.Values{"token": {token}}); a.status != 303 || time.Since(at) != 0 {
				t.Errorf("HTTP %d %s after %v", a.status, a.body, time.Since(at))
			}
		}
		honest()
		for range 4 {
			if line := <-answered; !strings.HasPrefix(line, "HTTP/1.1 429 ") {
				t.Errorf("%q", line)
			}
		}
		honest()
		// Whoever does not send the form gives the place back in the end.
		for range 16 {
			if line := <-answered; !strings.HasPrefix(line, "HTTP/1.1 400 ") {
				t.Errorf("%q", line)
			}
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		honest()
	})
}

// TestBodiesThatAreLate: a token does not give the right to fill the memory with
// what is not a request yet, and leaves others and small ones alone.
func TestBodiesThatAreLate(t *testing.T) {
	inBubble(t, &service{execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		return &telexecv1.ExecuteResponse{}, nil
	}}, func(t *testing.T, d *door, p *pipes) {
		const whole = 4<<20 - 1
		head := "POST /v1/commands HTTP/1.1\nHost: localhost\nAuthorization: Bearer " + token + "\n"
		answered := make(chan string, 80) // from each connection; never blocks
		for i := range 80 {
			conn, _ := p.dial(fmt.Sprintf("192.0.2.%d", i))
			defer conn.Close()
			length := fmt.Sprintf("Content-Length: %d\n\n", whole)
			if i%2 == 0 {
				length = "Transfer-Encoding: chunked\n\n"
			}
			send(t, conn, head+length+"3\n")
			go func() {
				line, _ := bufio.NewReader(conn).ReadString('\n')
				answered <- line
			}()
		}
		refused := 0
		<-time.After(4 * time.Second)
		synctest.Wait()
		for range len(answered) {
			if line := <-answered; !strings.HasPrefix(line, "HTTP/1.1 429 ") {
				t.Errorf("%q", line)
			}
			refused++
		}
		if refused < 60 || refused > 70 {
			t.Errorf("%d of 80 were refused", refused)
		}
		good := `{"host":"h","command":"true"}`
		if a := d.do("POST", "/v1/commands", good+strings.Repeat(" ", 3<<20)); a.status != 200 {
			t.Errorf("one that comes: HTTP %d %s", a.status, a.body)
		}
		r := d.request("POST", "/v1/commands", "")
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(good+strings.Repeat(" ", 3<<20))), -1
		resp, err := d.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != 200 {
			t.Errorf("one of unknown length: HTTP %d", resp.StatusCode)
		}
		// One that is late, and comes in the end.
		conn, _ := p.dial("192.0.2.1")
		defer conn.Close()
		send(t, conn, head+fmt.Sprintf("Content-Length: %d\n\n", len(good)))
		<-time.After(30 * time.Second)
		send(t, conn, good)
		if status, body := receive(t, bufio.NewReader(conn)); status != 200 {
			t.Errorf("a small one: HTTP %d %s", status, body)
		}
		for range 80 - refused {
			if line := <-answered; !strings.HasPrefix(line, "HTTP/1.1 408 ") {
				t.Errorf("%q", line)
			}
		}
	})
}

// TestCookiesAreGuessesToo: one that this service has not made counts as a token
// that it does not know.
func TestCookiesAreGuessesToo(t *testing.T) {
	over := open(t, &service{}, func(o *gateway.Options) { o.SessionLifetime = 0 }).login() // by the same key
	few := func(o *gateway.Options) {
		o.Limiter = access.NewLimiter(access.Settings{FailuresPerAddress: 0.1}) // one at once
	}
	d := open(t, &service{}, few)
	for range 3 { // was a good one, and is no guess
		if a := d.do("GET", "/v1/hosts", "", "Authorization", "", "Cookie", over); a.status != 401 {
			t.Errorf("over: HTTP %d %s", a.status, a.body)
		}
		if a := d.form("/logout", nil, "Cookie", over); a.status != 303 {
			t.Errorf("over: signing out: HTTP %d", a.status)
		}
	}
	d.audit.take()
	for i, status := range []int{401, 429, 429} {
		if a := d.do("GET", "/v1/hosts", "", "Authorization", "", "Cookie", "telexec=plant"); a.status != status {
			t.Errorf("%d: HTTP %d %s", i, a.status, a.body)
		}
	}
	if e := d.audit.take(); len(e) != 2 || e[0].Reason != fault.ReasonBadCredentials || e[1].Reason != fault.ReasonRateLimited || e[1].Origin != "web" {
		t.Errorf("audit %+v", e)
	}

	d = open(t, &service{}, few)
	for i, status := range []int{303, 429} {
		if a := d.form("/logout", nil, "Cookie", "telexec=plant"); a.status != status || a.cookie(t).MaxAge != -1 {
			t.Errorf("%d: signing out: HTTP %d %s", i, a.status, a.body)
		}
	}
	if e := d.audit.take(); len(e) != 2 || e[0].Reason != fault.ReasonBadCredentials || e[0].Method != "POST /logout" || e[1].Reason != fault.ReasonRateLimited {
		t.Errorf("signing out: audit %+v", e)
	}
}

// TestTheLogTellsTheAddress of what is refused: the audit may have counted it
// together with others.
func TestTheLogTellsTheAddress(t *testing.T) {
	var log bytes.Buffer
	d := open(t, &service{}, func(o *gateway.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	d.do("GET", "/v1/hosts", "", "Authorization", "Bearer guess")
	d.stop()
	if !strings.Contains(log.String(), "address=127.0.0.1") {
		t.Errorf("log:\n%s", log.String())
	}
}
