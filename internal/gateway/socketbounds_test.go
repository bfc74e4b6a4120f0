package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway"
	"github.com/telexec/telexec/internal/gateway/socket"
)

// TestLimitsOfASocket: ids, subscriptions, requests under way.
func TestLimitsOfASocket(t *testing.T) {
	silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	svc := &service{
		stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			return silent(ss.Context())
		},
		cancel: func(ctx context.Context, _ *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
			return nil, silent(ctx)
		},
	}
	d := open(t, svc)
	c := d.talk("/v1/socket")
	for i := range 64 {
		c.send(fmt.Sprintf(`{"id":"s%d","subscribeOutput":{"commandId":%q}}`, i, anID))
	}
	c.send(fmt.Sprintf(`{"id":"s1","subscribeOutput":{"commandId":%q}}`, anID))
	if reason, _ := c.wantError("s1"); reason != fault.ReasonInvalidRequest {
		t.Error(reason)
	}
	c.send(fmt.Sprintf(`{"id":"more","subscribeOutput":{"commandId":%q}}`, anID))
	if reason, _ := c.wantError("more"); reason != fault.ReasonTooManyStreams {
		t.Error(reason)
	}
	for i := range 33 {
		c.send(fmt.Sprintf(`{"id":"c%d","cancel":{"commandId":%q}}`, i, anID))
	}
	if reason, _ := c.wantError("c32"); reason != fault.ReasonTooManyStreams {
		t.Error(reason)
	}
	c.conn.CloseNow()

	d = open(t, svc, func(o *gateway.Options) { o.SocketLimits = socket.Limits{All: 3, PerPrincipal: 2} })
	d.talk("/v1/socket")
	c = d.talk("/v1/socket")
	a := d.refusal("/v1/socket")
	if _, reason, hint, _ := a.problem(t); a.status != 429 || reason != fault.ReasonTooManyStreams || hint == "" {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	c.conn.Close(websocket.StatusNormalClosure, "")
	for { // the place is free when the service has seen it
		conn, _, err := d.upgrade("/v1/socket")
		if err == nil {
			conn.CloseNow()
			break
		}
	}
}

// TestWhoMayConnect: by each kind of credentials, and from which pages.
func TestWhoMayConnect(t *testing.T) {
	var origin atomic.Value
	svc := &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		md, _ := metadata.FromIncomingContext(ss.Context())
		origin.Store(strings.Join(md.Get("telexec-origin"), ","))
		return ss.Send(event(ended))
	}}
	d := open(t, svc)
	cookie := d.login()
	inProtocol := "telexec.bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))
	d.audit.take()
	for _, c := range []struct {
		name   string
		header []string
		status int
		reason string // or origin of the command
		proto  string
	}{
		{"header", nil, 101, "websocket", ""},
		{"subprotocol", []string{"Authorization", "", "Sec-WebSocket-Protocol", "telexec.v1.json, " + inProtocol}, 101, "websocket", "telexec.v1.json"},
		{"subprotocol alone", []string{"Authorization", "", "Sec-WebSocket-Protocol", inProtocol}, 101, "websocket", ""},
		{"bad subprotocol", []string{"Authorization", "", "Sec-WebSocket-Protocol", "telexec.bearer.%"}, 401, fault.ReasonBadCredentials, ""},
		{"cookie", []string{"Authorization", "", "Cookie", cookie, "Origin", d.url}, 101, "web", ""},
		{"cookie of no page", []string{"Authorization", "", "Cookie", cookie}, 101, "web", ""},
		{"cookie of another page", []string{"Authorization", "", "Cookie", cookie, "Origin", "https://ops.example"}, 401, fault.ReasonNoCredentials, ""},
		{"token of another page", []string{"Origin", "https://ops.example"}, 101, "websocket", ""},
		{"cookie of a foreign page", []string{"Authorization", "", "Cookie", cookie, "Origin", "https://evil.example"}, 403, fault.ReasonForbiddenOrigin, ""},
		{"token of a foreign page", []string{"Origin", "https://evil.example"}, 403, fault.ReasonForbiddenOrigin, ""},
		{"no page", []string{"Origin", "null"}, 403, fault.ReasonForbiddenOrigin, ""},
		{"foreign name", []string{"Host", "evil.example"}, 403, fault.ReasonForbiddenOrigin, ""},
		{"nobody", []string{"Authorization", ""}, 401, fault.ReasonNoCredentials, ""},
		{"bad token", []string{"Authorization", "Bearer guess"}, 401, fault.ReasonBadCredentials, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.status == 101 {
				d := *d
				d.t = t
				s := d.talk(streamPath, c.header...)
				s.want("ended", "stream")
				if got := origin.Load(); got != c.reason || s.conn.Subprotocol() != c.proto {
					t.Errorf("origin %v, subprotocol %q", got, s.conn.Subprotocol())
				}
				return
			}
			d := open(t, svc) // of a stranger, the audit is told at once only of the first refusals
			a := d.refusal(streamPath, c.header...)
			if _, reason, hint, _ := a.problem(t); a.status != c.status || reason != c.reason || hint == "" {
				t.Errorf("HTTP %d %s", a.status, a.body)
			}
			e := d.audit.take()
			if len(e) != 1 || e[0].Method != "GET /v1/commands/{command_id}/stream" || e[0].Reason != c.reason || e[0].Origin != "websocket" {
				t.Errorf("audit %+v", e)
			}
		})
	}
}

// TestWithoutAnUpgrade a path of sockets says what it is for.
func TestWithoutAnUpgrade(t *testing.T) {
	d := open(t, &service{})
	for _, c := range []struct {
		method, path string
		header       []string
		status       int
		has          [2]string
	}{
		{"GET", "/v1/socket", nil, 426, [2]string{"Upgrade", "websocket"}},
		{"GET", streamPath, nil, 426, [2]string{"Upgrade", "websocket"}},
		{"GET", updatesPath, nil, 426, [2]string{"Upgrade", "websocket"}},
		{"POST", "/v1/socket", nil, 405, [2]string{"Allow", "GET"}},
		{"POST", streamPath, nil, 405, [2]string{"Allow", "GET"}},
		{"DELETE", updatesPath, nil, 405, [2]string{"Allow", "GET"}},
		{"GET", "/v1/socket", []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8"}, 426, [2]string{"Sec-WebSocket-Version", "13"}},
		{"GET", "/v1/socket", []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13"}, 400, [2]string{}},
	} {
		a := d.do(c.method, c.path, "", c.header...)
		if _, _, hint, _ := a.problem(t); a.status != c.status || hint == "" || c.has[0] != "" && a.header.Get(c.has[0]) != c.has[1] {
			t.Errorf("%s %s: HTTP %d %v %s", c.method, c.path, a.status, a.header, a.body)
		}
	}
	for path, status := range map[string]int{
		"/v1/socket?a=b": 400, streamPath + "?stdoutoffset=1": 400, streamPath + "?stdout_offset=x": 400, streamPath + "?command_id=" + strings.Replace(anID, "0", "1", 1): 400,
		"/v1/events?x=1": 400, updatesPath + "?sequence=1": 400, updatesPath + "?after=x": 400, updatesPath + "?task_id=" + strings.Replace(anID, "0", "1", 1): 400,
	} {
		if a := d.refusal(path); a.status != status {
			t.Errorf("%s: HTTP %d %s", path, a.status, a.body)
		}
	}
}

// TestSocketsWhenTheServiceStops are told, and what they have asked for is done.
func TestSocketsWhenTheServiceStops(t *testing.T) {
	begun := make(chan struct{})
	svc := &service{cancel: func(ctx context.Context, _ *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
		close(begun)
		<-ctx.Done() // as the server drains
		return nil, ctx.Err()
	}}
	d := open(t, svc)
	c, asking := d.talk("/v1/socket"), d.talk("/v1/socket")
	asking.send(fmt.Sprintf(`{"id":"c","cancel":{"commandId":%q}}`, anID))
	<-begun
	d.stop()
	if reason, _ := c.wantError(""); reason != fault.ReasonDraining {
		t.Error(reason)
	}
	c.wantClose(websocket.StatusGoingAway)
}

// TestASocketThatOpensWhenTheServiceStops is told as well.
func TestASocketThatOpensWhenTheServiceStops(t *testing.T) {
	inBubble(t, &service{}, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk("/v1/socket")
		d.stop()
		begun := time.Now()
		if reason, _ := c.wantError(""); reason != fault.ReasonDraining || time.Since(begun) != slowOpening {
			t.Errorf("%s after %v", reason, time.Since(begun))
		}
		c.wantClose(websocket.StatusGoingAway)
	}, func(o *gateway.Options) { o.SocketMeter = slowMeter{o.SocketMeter} })
}

// slowMeter is slow where a socket stands and does not run yet.
type slowMeter struct{ socket.Meter }

const slowOpening = 500 * time.Millisecond

func (m slowMeter) SocketOpened() {
	m.Meter.SocketOpened()
	<-time.After(slowOpening)
}

// TestSocketsWhenTheListenerFails are closed before Run returns.
func TestSocketsWhenTheListenerFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := openAt(t, l, &http.Transport{}, &service{})
	c := d.talk("/v1/socket")
	l.Close()
	if err := <-d.ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	d.ended <- nil // which the cleanup waits for
	for err = nil; err == nil; {
		_, err = c.next()
	}
}

// TestALostSocketEndsNoCall that it has made.
func TestALostSocketEndsNoCall(t *testing.T) {
	begun, lost, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	svc := &service{cancel: func(ctx context.Context, _ *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
		close(begun)
		<-lost
		done <- ctx.Err()
		return &telexecv1.CancelResponse{}, nil
	}}
	d := open(t, svc, func(o *gateway.Options) { o.SocketLimits.All = 1 })
	c := d.talk("/v1/socket")
	c.send(fmt.Sprintf(`{"id":"c","cancel":{"commandId":%q}}`, anID))
	<-begun
	c.conn.CloseNow()
	close(lost)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCredentialsThatAreOver end the socket.
func TestCredentialsThatAreOver(t *testing.T) {
	svc := &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		<-ss.Context().Done()
		return ss.Context().Err()
	}}
	inBubble(t, svc, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk(streamPath)
		begun := time.Now()
		if reason, _ := c.wantError("stream"); reason != fault.ReasonTokenExpired || time.Since(begun) != time.Hour {
			t.Errorf("%s after %v", reason, time.Since(begun))
		}
		c.wantClose(websocket.StatusPolicyViolation)
		d.stop()
	}, func(o *gateway.Options) { o.Authenticator = expiring{o.Authenticator, time.Now().Add(time.Hour)} })
}

// TestASessionThatIsOver ends the sockets of the browser, though its token is good.
func TestASessionThatIsOver(t *testing.T) {
	svc := &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		<-ss.Context().Done()
		return ss.Context().Err()
	}}
	inBubble(t, svc, func(t *testing.T, d *door, _ *pipes) {
		begun := time.Now()
		c := d.talk(streamPath, "Authorization", "", "Cookie", d.login(), "Origin", d.url)
		if reason, _ := c.wantError(""); reason != fault.ReasonTokenExpired || time.Since(begun) != time.Hour {
			t.Errorf("%s after %v", reason, time.Since(begun))
		}
		c.wantClose(websocket.StatusPolicyViolation)
		d.stop()
	}, func(o *gateway.Options) { o.SessionLifetime = time.Hour })
}

// expiring is an authenticator whose principals expire.
type expiring struct {
	access.Authenticator
	end time.Time
}

func (e expiring) Authenticate(ctx context.Context, c access.Credentials) (access.Principal, error) {
	p, err := e.Authenticator.Authenticate(ctx, c)
	p.Expiry = e.end
	return p, err
}

// TestAStalledClient holds no stream, and has every byte when it reads again.
func TestAStalledClient(t *testing.T) {
	out := newTape(2<<20, 64<<10)
	var mu sync.Mutex
	open, opened := 0, 0
	svc := &service{stream: func(r *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		mu.Lock()
		open++
		opened++
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			open--
		}()
		return out.play(r, ss)
	}}
	inBubble(t, svc, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk(streamPath)
		c.want("command", "stream")
		got := 0
		for stalls := range 4 {
			<-time.After(10 * time.Second)
			synctest.Wait()
			mu.Lock()
			if open != 0 || opened != stalls+1 {
				t.Errorf("%d streams are open, %d were", open, opened)
			}
			mu.Unlock()
			for range 3 {
				got += len(c.want("chunk", "stream").GetData().GetChunk().GetData())
			}
		}
		for {
			m, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetType() == "ended" {
				break
			}
			got += len(m.GetData().GetChunk().GetData())
		}
		if got != 2<<20 {
			t.Errorf("%d bytes", got)
		}
		d.stop()
	})
}

// TestWhatAStalledClientIsTold of the command: not again what it knows, but all that
// changes later, though the version stays, as the place in a queue and the watchers do.
func TestWhatAStalledClientIsTold(t *testing.T) {
	out := newTape(1<<20, 64<<10)
	resumed := false
	svc := &service{stream: func(r *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		if resumed {
			_ = ss.Send(event(running))
			_ = ss.Send(event(&telexecv1.Command{Id: anID, Version: running.GetVersion(), Watchers: 5}))
		}
		resumed = true
		return out.play(r, ss)
	}}
	inBubble(t, svc, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk(streamPath)
		c.want("command", "stream")
		<-time.After(10 * time.Second)
		var watchers []int32
		for {
			m, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetType() == "ended" {
				break
			}
			if cmd := m.GetData().GetCommand(); cmd != nil {
				watchers = append(watchers, cmd.GetWatchers())
			}
		}
		if !slices.Equal(watchers, []int32{5, 0}) { // and that with which the tape begins
			t.Errorf("told of %v watchers", watchers)
		}
		d.stop()
	})
}

// TestAClientThatTakesNothing is gone after a while; one that takes a little stays.
func TestAClientThatTakesNothing(t *testing.T) {
	out := newTape(1<<20, 64<<10)
	inBubble(t, &service{stream: out.play}, func(t *testing.T, d *door, p *pipes) {
		slow, slowGone := p.dial("192.0.2.1")
		send(t, slow, handshake)
		begun := time.Now()
		part := make([]byte, 1<<10)
		for time.Since(begun) < 5*time.Minute {
			if _, err := io.ReadFull(slow, part); err != nil {
				t.Fatalf("after %v: %v", time.Since(begun), err)
			}
			<-time.After(time.Second)
		}
		begun = time.Now()
		<-slowGone // it does not read any more
		if took := time.Since(begun); took < time.Minute || took > 4*time.Minute {
			t.Errorf("gone after %v", took)
		}
		slow.Close()
		d.stop()
	})
}

// TestAnswersThatNobodyReads stop the reading of requests, and end the socket in the
// end.
func TestAnswersThatNobodyReads(t *testing.T) {
	inBubble(t, &service{}, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk("/v1/socket")
		begun := time.Now()
		sent := 0
		for c.conn.Write(t.Context(), websocket.MessageText, []byte(`{"id":"a"}`)) == nil {
			sent++
		}
		if took := time.Since(begun); took != 2*time.Minute || sent < 64 || sent > 70 {
			t.Errorf("%d were sent, within %v", sent, took)
		}
		d.stop()
	})
}

// TestPingsThatNobodyReads: the answers do not fill the memory.
func TestPingsThatNobodyReads(t *testing.T) {
	inBubble(t, &service{}, func(t *testing.T, d *door, p *pipes) {
		conn, gone := p.dial("192.0.2.1")
		defer conn.Close()
		send(t, conn, strings.Replace(handshake, streamPath, "/v1/socket", 1))
		if _, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil); err != nil {
			t.Fatal(err)
		}
		ping := append([]byte{0x89, 0x80 | 125, 0, 0, 0, 0}, make([]byte, 125)...)
		sent := 0
		for ; sent < 10_000; sent++ {
			if _, err := conn.Write(ping); err != nil {
				break
			}
		}
		if <-gone; sent == 0 || sent > 1000 {
			t.Errorf("%d pings were taken", sent)
		}
		d.stop()
	})
}

// TestAMessageThatDoesNotEnd holds no memory for ever, though its parts come and pings
// are answered; and only so many may be late.
func TestAMessageThatDoesNotEnd(t *testing.T) {
	begin := "\x01\x80\x00\x00\x00\x00"  // a text frame without bytes that is not the last
	part := "\x00\x81\x00\x00\x00\x00 "  // one more
	pong := "\x8a\x81\x00\x00\x00\x00%d" // the answer to the ping of that number
	for name, c := range map[string]struct {
		limiter  gateway.Limiter
		min, max time.Duration
	}{
		"alone":    {nil, 55 * time.Second, 70 * time.Second},
		"too many": {noneLate{}, 0, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &service{}, func(t *testing.T, d *door, p *pipes) {
				conn, gone := p.dial("192.0.2.1")
				defer conn.Close()
				send(t, conn, strings.Replace(handshake, streamPath, "/v1/socket", 1))
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				begun := time.Now()
				send(t, conn, begin)
				for going := true; going && time.Since(begun) < 5*time.Minute; {
					for n := range 9 {
						_, _ = fmt.Fprintf(conn, pong, n+1)
					}
					_, _ = io.WriteString(conn, part)
					select {
					case <-gone:
						going = false
					case <-time.After(2 * time.Second):
					}
				}
				if took := time.Since(begun); took < c.min || took > c.max {
					t.Errorf("gone after %v", took)
				}
				d.stop()
			}, func(o *gateway.Options) {
				if c.limiter != nil {
					o.Limiter = noneLate{o.Limiter}
				}
			})
		})
	}
}

// noneLate refuses all that is late.
type noneLate struct{ gateway.Limiter }

func (noneLate) Late(access.Caller, int) (func(), error) {
	return nil, fault.New(fault.Exhausted, fault.ReasonTooManyStreams, "too many are late").WithHint("Send whole messages")
}

// TestSecureSockets: over TLS, where HTTP/2 is spoken too, which has no upgrade.
func TestSecureSockets(t *testing.T) {
	server, _ := certificate(t, "server", x509.ExtKeyUsageServerAuth)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := newTape(300<<10, 64<<10)
	d := openAt(t, l, &http.Transport{}, &service{stream: out.play}, func(o *gateway.Options) {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{server}}
	})
	c := d.talk(streamPath)
	got := 0
	for {
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetType() == "ended" {
			break
		}
		got += len(m.GetData().GetChunk().GetData())
	}
	if got != 300<<10 {
		t.Errorf("%d bytes", got)
	}
	c.conn.Close(websocket.StatusNormalClosure, "")
	d.client.Transport = &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if a := d.do("GET", streamPath, ""); a.status != 426 || a.header.Get("Connection") != "" {
		t.Errorf("HTTP %d %v", a.status, a.header)
	}
	// A client that speaks both takes HTTP/1.1 for it.
	d.talk(streamPath).want("command", "stream")
}
