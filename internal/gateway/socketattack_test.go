package gateway_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// TestAnIDThatIsUsedAgain at once, while output pours: nothing of the subscription that
// had it before comes behind the answer to unsubscribe.
func TestAnIDThatIsUsedAgain(t *testing.T) {
	part := make([]byte, 5000)
	svc := &service{stream: func(r *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		for at := r.GetStdoutOffset(); ; at += int64(len(part)) {
			chunk := &telexecv1.OutputChunk{Stream: 1, Offset: at, Position: at, Data: part}
			if err := ss.Send(event(chunk)); err != nil {
				return err
			}
		}
	}}
	c := open(t, svc).talk("/v1/socket", "Sec-WebSocket-Protocol", "telexec.v1.proto")
	subscribe := func(round int) {
		c.send(&telexecv1.SocketRequest{Id: "s", Request: &telexecv1.SocketRequest_SubscribeOutput{
			SubscribeOutput: &telexecv1.StreamOutputRequest{CommandId: anID, StdoutOffset: int64(round) << 40},
		}})
	}
	subscribe(0)
	for round := range 200 {
		at := int64(round) << 40
		took := func(m *telexecv1.SocketMessage) {
			if m.GetType() != "chunk" || m.GetId() != "s" || m.GetData().GetChunk().GetOffset() != at {
				t.Fatalf("round %d, byte %d: %s %q at %d", round, at-int64(round)<<40, m.GetType(), m.GetId(), m.GetData().GetChunk().GetOffset())
			}
			at += int64(len(m.GetData().GetChunk().GetData()))
		}
		for range round % 5 {
			m, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			took(m)
		}
		c.send(&telexecv1.SocketRequest{Id: "u", Request: &telexecv1.SocketRequest_Unsubscribe{
			Unsubscribe: &telexecv1.Unsubscribe{Subscription: "s"},
		}})
		subscribe(round + 1)
		for {
			m, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetType() == "unsubscribed" {
				break
			}
			took(m)
		}
	}
}

// TestBrokenFrames end the socket, by 1002 (RFC 6455 §7.4.1); where nothing can be said
// any more about what follows, without a word.
func TestBrokenFrames(t *testing.T) {
	const mask = "\x00\x00\x00\x00"
	for name, frames := range map[string]string{
		"compressed, which was not agreed": "\xc1\x80" + mask,
		"a reserved bit":                   "\xa1\x80" + mask,
		"not masked":                       "\x81\x02{}",
		"a long ping":                      "\x89\xfe\x00\x7e" + mask + strings.Repeat(" ", 126),
		"a ping in parts":                  "\x09\x80" + mask,
		"an unknown opcode":                "\x83\x80" + mask,
		"a part of nothing":                "\x80\x80" + mask,
		"a message within another":         "\x01\x81" + mask + "{\x81\x82" + mask + "{}",
		"a negative length":                "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff" + mask,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &service{}, func(t *testing.T, d *door, p *pipes) {
				conn, gone := p.dial("192.0.2.1")
				defer conn.Close()
				send(t, conn, strings.Replace(handshake, streamPath, "/v1/socket", 1))
				begun := time.Now()
				go func() { _, _ = io.WriteString(conn, frames) }() // beside the answer to the handshake
				said, _ := io.ReadAll(conn)                         // to its end
				<-gone
				_, frame, _ := strings.Cut(string(said), "\r\n\r\n")
				if took := time.Since(begun); took > 10*time.Second || frame != "" && !strings.HasPrefix(frame[2:], "\x03\xea") ||
					(frame == "") != (name == "not masked" || name == "a negative length") {
					t.Errorf("%q after %v", frame, took)
				}
				d.stop()
			})
		})
	}
}

// TestABomb is a short message that is too long when it is inflated.
func TestABomb(t *testing.T) {
	c := open(t, &service{}).talk("/v1/socket", "Deflate", "yes")
	c.send(`{"id":"` + strings.Repeat("x", 64<<20) + `"}`)
	c.wantClose(1009)
}

// TestAClientThatAnswersNoPing, and says something else once, has longer, not for ever.
func TestAClientThatAnswersNoPing(t *testing.T) {
	svc := &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		<-ss.Context().Done()
		return ss.Context().Err()
	}}
	inBubble(t, svc, func(t *testing.T, d *door, p *pipes) {
		conn, gone := p.dial("192.0.2.1")
		defer conn.Close()
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		send(t, conn, handshake)
		<-time.After(25 * time.Second)                          // it was asked after 20
		send(t, conn, "\x81\x8a\x00\x00\x00\x00{\"id\":\"a\"}") // a request
		begun := time.Now()
		<-gone
		if took := time.Since(begun); took != 10*time.Minute {
			t.Errorf("gone after %v", took)
		}
		d.stop()
	})
}

// TestAHandshakeWhoseAnswerNobodyReads holds its connection no longer than any other.
func TestAHandshakeWhoseAnswerNobodyReads(t *testing.T) {
	inBubble(t, &service{}, func(t *testing.T, d *door, p *pipes) {
		conn, gone := p.dial("192.0.2.1")
		defer conn.Close()
		begun := time.Now()
		send(t, conn, handshake)
		select {
		case <-gone:
		case <-time.After(time.Hour):
		}
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("gone after %v", took)
		}
		d.stop()
	})
}
