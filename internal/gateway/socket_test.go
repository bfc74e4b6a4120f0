package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

const streamPath = "/v1/commands/" + anID + "/stream"

// handshake is what a client sends to watch a command.
const handshake = "GET " + streamPath + " HTTP/1.1\nHost: localhost\nAuthorization: Bearer " + token +
	"\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n\n"

// talk is a client's WebSocket.
type talk struct {
	t      *testing.T
	conn   *websocket.Conn
	binary bool
}

// upgrade makes a handshake, with the admin's token unless the headers say otherwise.
func (d *door) upgrade(path string, header ...string) (*websocket.Conn, *http.Response, error) {
	d.t.Helper()
	r := d.request("GET", path, "", header...)
	o := &websocket.DialOptions{HTTPClient: d.client, HTTPHeader: r.Header, Host: r.Host, CompressionMode: websocket.CompressionDisabled}
	if all := r.Header.Get("Sec-WebSocket-Protocol"); all != "" {
		o.Subprotocols = strings.Split(all, ", ")
	}
	r.Header.Del("Sec-WebSocket-Protocol")
	if r.Header.Get("Deflate") != "" {
		o.CompressionMode = websocket.CompressionNoContextTakeover
		r.Header.Del("Deflate")
	}
	if r.Header.Get("Authorization") == "" {
		r.Header.Del("Authorization")
	}
	conn, resp, err := websocket.Dial(d.t.Context(), d.url+path, o)
	if err == nil {
		conn.SetReadLimit(1 << 20)
		d.t.Cleanup(func() { conn.CloseNow() })
	}
	return conn, resp, err
}

func (d *door) talk(path string, header ...string) *talk {
	d.t.Helper()
	conn, _, err := d.upgrade(path, header...)
	if err != nil {
		d.t.Fatal(err)
	}
	return &talk{d.t, conn, conn.Subprotocol() == "telexec.v1.proto"}
}

// refusal makes a handshake that fails, and gives its answer.
func (d *door) refusal(path string, header ...string) answer {
	d.t.Helper()
	_, resp, err := d.upgrade(path, header...)
	if err == nil || resp == nil {
		d.t.Fatalf("%s: %v", path, err)
	}
	body, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// send sends text, or a request.
func (c *talk) send(what any) {
	c.t.Helper()
	kind, p := websocket.MessageText, []byte(nil)
	switch m := what.(type) {
	case string:
		p = []byte(m)
	case *telexecv1.SocketRequest:
		if kind = websocket.MessageBinary; c.binary {
			p, _ = proto.Marshal(m)
		} else {
			kind = websocket.MessageText
			p, _ = protojson.Marshal(m)
		}
	}
	if err := c.conn.Write(c.t.Context(), kind, p); err != nil {
		c.t.Fatal(err)
	}
}

// next gives the next message, or why there is none.
func (c *talk) next() (*telexecv1.SocketMessage, error) {
	kind, p, err := c.conn.Read(c.t.Context())
	if err != nil {
		return nil, err
	}
	m := &telexecv1.SocketMessage{}
	if kind == websocket.MessageBinary {
		err = proto.Unmarshal(p, m)
	} else {
		err = protojson.Unmarshal(p, m)
	}
	if err == nil && (m.GetVersion() != 1 || m.GetTime() == nil || m.GetType() == "" || c.binary != (kind == websocket.MessageBinary)) {
		err = fmt.Errorf("%v %v", kind, m)
	}
	return m, err
}

// want gives the next message, which has this type and id.
func (c *talk) want(kind, id string) *telexecv1.SocketMessage {
	c.t.Helper()
	m, err := c.next()
	if err != nil {
		c.t.Fatalf("instead of %s %q: %v", kind, id, err)
	}
	if m.GetType() != kind || m.GetId() != id {
		c.t.Fatalf("instead of %s %q: %v", kind, id, m)
	}
	return m
}

// wantError gives the reason of the next message, an error about id.
func (c *talk) wantError(id string) (reason, message string) {
	c.t.Helper()
	told := c.want("error", id).GetData().GetError()
	text, _ := protojson.Marshal(told)
	_, reason, hint, message := answer{header: http.Header{"Content-Type": {"application/json"}}, body: string(text)}.problem(c.t)
	if hint == "" {
		c.t.Errorf("no hint in %s", text)
	}
	return reason, message
}

// wantClose reads to the end, which has this code.
func (c *talk) wantClose(code websocket.StatusCode) {
	c.t.Helper()
	for {
		if m, err := c.next(); err != nil {
			if websocket.CloseStatus(err) != code {
				c.t.Errorf("closed with %v, want %d", err, code)
			}
			return
		} else if m.GetType() == "error" {
			c.t.Errorf("%v", m)
		}
	}
}

// tape is the output of a command, of both streams in their order.
type tape struct {
	parts []*telexecv1.OutputChunk
	bytes map[telexecv1.Stream][]byte
}

// newTape makes output of so many bytes, in parts of at most most.
func newTape(size, most int) *tape {
	r := rand.New(rand.NewPCG(1, 2))
	t := &tape{bytes: make(map[telexecv1.Stream][]byte)}
	for at := 0; at < size; {
		s := telexecv1.Stream(1 + r.IntN(2))
		p := make([]byte, min(1+r.IntN(most), size-at))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		t.parts = append(t.parts, &telexecv1.OutputChunk{Stream: s, Offset: int64(len(t.bytes[s])), Position: int64(at), Data: p})
		t.bytes[s] = append(t.bytes[s], p...)
		at += len(p)
	}
	return t
}

func event(e any) *telexecv1.StreamOutputResponse {
	m := &telexecv1.StreamOutputResponse{Time: timestamppb.Now()}
	switch e := e.(type) {
	case *telexecv1.OutputChunk:
		m.Event = &telexecv1.StreamOutputResponse_Chunk{Chunk: e}
	case *telexecv1.OutputComplete:
		m.Event = &telexecv1.StreamOutputResponse_OutputComplete{OutputComplete: e}
	case *telexecv1.Command:
		m.Event = &telexecv1.StreamOutputResponse_Command{Command: e}
		if e.GetState() == telexecv1.CommandState_COMMAND_STATE_COMPLETED {
			m.Event = &telexecv1.StreamOutputResponse_Ended{Ended: e}
		}
	}
	return m
}

var (
	running = &telexecv1.Command{Id: anID, Version: 3, State: telexecv1.CommandState_COMMAND_STATE_RUNNING}
	ended   = &telexecv1.Command{Id: anID, Version: 7, State: telexecv1.CommandState_COMMAND_STATE_COMPLETED}
)

// play sends a tape as the service does, from the offsets that are asked for.
func (t *tape) play(r *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
	all := []*telexecv1.StreamOutputResponse{event(running)}
	for _, c := range t.parts {
		from := r.GetStdoutOffset()
		if c.GetStream() == telexecv1.Stream_STREAM_STDERR {
			from = r.GetStderrOffset()
		}
		if r.Position != nil {
			from = c.GetOffset() + r.GetPosition() - c.GetPosition()
		}
		skip := min(max(from-c.GetOffset(), 0), int64(len(c.GetData())))
		if skip < int64(len(c.GetData())) {
			all = append(all, event(&telexecv1.OutputChunk{Stream: c.GetStream(), Offset: c.GetOffset() + skip, Position: c.GetPosition() + skip, Data: c.GetData()[skip:]}))
		}
	}
	all = append(all, event(&telexecv1.OutputComplete{StdoutBytes: int64(len(t.bytes[1])), StderrBytes: int64(len(t.bytes[2]))}), event(ended))
	for _, m := range all {
		if err := ss.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// TestASocketIsExact: a client that is cut off again and again, at any byte, and goes
// on where it was has every byte once; in JSON, in the wire format and compressed.
func TestASocketIsExact(t *testing.T) {
	out := newTape(1<<20, 80<<10)
	d := open(t, &service{stream: out.play})
	for name, header := range map[string][]string{
		"json":     {},
		"deflated": {"Deflate", "yes"},
		"wire":     {"Sec-WebSocket-Protocol", "telexec.v1.proto"},
	} {
		t.Run(name, func(t *testing.T) {
			d := *d
			d.t = t
			var got [3][]byte
			r := rand.New(rand.NewPCG(3, 4))
			done := false
			for tries := 0; !done; tries++ {
				query := fmt.Sprintf("?stdout_offset=%d&stderrOffset=%d", len(got[1]), len(got[2]))
				if tries == 0 {
					query = "?position=0"
				}
				c := d.talk(streamPath+query, header...)
				for left := 1 + r.IntN(200<<10); left > 0 && !done; {
					m, err := c.next()
					if err != nil {
						t.Fatal(err)
					}
					if m.GetId() != "stream" || m.GetResource() != "commands/"+anID {
						t.Fatal(m)
					}
					switch m.GetType() {
					case "chunk":
						chunk := m.GetData().GetChunk()
						if chunk.GetOffset() != int64(len(got[chunk.GetStream()])) {
							t.Fatalf("%s at %d, have %d", chunk.GetStream(), chunk.GetOffset(), len(got[chunk.GetStream()]))
						}
						if len(chunk.GetData()) > 32<<10 {
							t.Fatalf("a chunk of %d bytes", len(chunk.GetData()))
						}
						keep := min(left, len(chunk.GetData())) // cut off in the middle
						got[chunk.GetStream()] = append(got[chunk.GetStream()], chunk.GetData()[:keep]...)
						if left -= keep; keep < len(chunk.GetData()) {
							left = 0
						}
					case "ended":
						done = m.GetSequence() == 7
					}
				}
				c.conn.CloseNow()
			}
			for _, s := range []telexecv1.Stream{1, 2} {
				if !bytes.Equal(got[s], out.bytes[s]) {
					t.Errorf("%s: %d bytes, want %d", s, len(got[s]), len(out.bytes[s]))
				}
			}
		})
	}
}

// TestABatch: what comes alone goes at once, what comes together comes together, and
// parts of both streams stay in their order.
func TestABatch(t *testing.T) {
	var next chan *telexecv1.OutputChunk // from the test to the stream
	svc := &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		for c := range next {
			if err := ss.Send(event(c)); err != nil {
				return err
			}
		}
		return ss.Send(event(ended))
	}}
	inBubble(t, svc, func(t *testing.T, d *door, _ *pipes) {
		defer d.stop()
		next = make(chan *telexecv1.OutputChunk)
		c := d.talk(streamPath + "?text=true")
		at := int64(0)
		say := func(text string) {
			next <- &telexecv1.OutputChunk{Stream: 1, Offset: at, Position: at, Data: []byte(text)}
			at += int64(len(text))
			synctest.Wait()
		}
		begun := time.Now()
		say("first\n")
		if m := c.want("chunk", "stream"); string(m.GetData().GetChunk().GetData()) != "first\n" || time.Since(begun) != 0 {
			t.Errorf("%v after %v", m, time.Since(begun))
		}
		say("a\xe2")
		say("\x82\xacb")
		m := c.want("chunk", "stream")
		if chunk := m.GetData().GetChunk(); string(chunk.GetData()) != "a€b" || chunk.GetText() != "a€b" || chunk.GetOffset() != 6 || time.Since(begun) != 20*time.Millisecond {
			t.Errorf("%v after %v", m, time.Since(begun))
		}
		say(strings.Repeat("x", 20<<10))
		say(strings.Repeat("x", 20<<10)) // does not fit with the other, and waits for nobody
		if n := len(c.want("chunk", "stream").GetData().GetChunk().GetData()); n != 20<<10 || time.Since(begun) != 20*time.Millisecond {
			t.Errorf("%d bytes after %v", n, time.Since(begun))
		}
		c.want("chunk", "stream")
		close(next)
		c.want("ended", "stream")
		// Nothing more is asked for.
		begun = time.Now()
		c.wantClose(websocket.StatusNormalClosure)
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// TestTheEndOfText: what is left of a character comes as a chunk without bytes, which
// has its place in both streams too; and not while the command goes on.
func TestTheEndOfText(t *testing.T) {
	for query, want := range map[string][]string{
		"?text=true&position=11":               {`5 11 "ab\xe2" "ab"`, `8 14 "" "\ufffd"`, "output_complete", "ended"},
		"?text=true&position=11&limit_bytes=3": {`5 11 "ab\xe2" "ab"`, "output_complete", "ended"},
	} {
		svc := &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			for _, e := range []any{
				running, &telexecv1.OutputChunk{Stream: 1, Offset: 5, Position: 11, Data: []byte("ab\xe2")}, &telexecv1.OutputComplete{StdoutBytes: 8, StderrBytes: 6}, ended,
			} {
				if err := ss.Send(event(e)); err != nil {
					return err
				}
			}
			return nil
		}}
		c := open(t, svc).talk(streamPath + query)
		c.want("command", "stream")
		var told []string
		for len(told) == 0 || told[len(told)-1] != "ended" {
			m, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			line := m.GetType()
			if chunk := m.GetData().GetChunk(); chunk != nil {
				line = fmt.Sprintf("%d %d %q %+q", chunk.GetOffset(), chunk.GetPosition(), chunk.GetData(), chunk.GetText())
			}
			told = append(told, line)
		}
		if !slices.Equal(told, want) {
			t.Errorf("%s: %q", query, told)
		}
	}
}

// TestEmptySockets are closed, and those with a subscription are not; who is there
// says so when it is asked.
func TestEmptySockets(t *testing.T) {
	svc := &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		select {
		case <-time.After(time.Hour):
			return ss.Send(event(ended))
		case <-ss.Context().Done():
			return ss.Context().Err()
		}
	}}
	inBubble(t, svc, func(t *testing.T, d *door, p *pipes) {
		begun := time.Now()
		d.talk("/v1/socket").wantClose(websocket.StatusNormalClosure)
		if took := time.Since(begun); took != 5*time.Minute {
			t.Errorf("closed after %v", took)
		}
		begun = time.Now()
		c := d.talk(streamPath)
		c.want("ended", "stream")
		if took := time.Since(begun); took != time.Hour {
			t.Errorf("ended after %v", took)
		}
		// One that reads, and does not answer.
		conn, gone := p.dial("192.0.2.1")
		defer conn.Close()
		go io.Copy(io.Discard, conn)
		begun = time.Now()
		send(t, conn, handshake)
		<-gone
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("closed after %v", took)
		}
		d.stop()
	})
}

// TestAnUrgentAnswer passes bulk that a client reads slowly.
func TestAnUrgentAnswer(t *testing.T) {
	out := newTape(8<<20, 200<<10)
	svc := &service{stream: out.play, cancel: func(context.Context, *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
		return &telexecv1.CancelResponse{Command: running}, nil
	}}
	d := open(t, svc)
	c := d.talk("/v1/socket")
	for i := range 8 {
		c.send(fmt.Sprintf(`{"id":"s%d","subscribeOutput":{"commandId":%q}}`, i, anID))
	}
	for range 40 {
		if _, err := c.next(); err != nil {
			t.Fatal(err)
		}
	}
	c.send(fmt.Sprintf(`{"id":"c","cancel":{"commandId":%q}}`, anID))
	read := 0
	for {
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetType() == "cancel" && m.GetId() == "c" && m.GetSequence() == 3 {
			break
		}
		read += len(m.GetData().GetChunk().GetData())
	}
	// What is in the kernel's buffers of both sides.
	if read > 5<<20 {
		t.Errorf("the answer came behind %d bytes", read)
	}
	c.send(`{"id":"u","unsubscribe":{"subscription":"s0"}}`)
	for {
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetType() == "unsubscribed" && m.GetId() == "u" {
			break
		}
	}
	c.send(`{"id":"u","unsubscribe":{"subscription":"s0"}}`)
	for {
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetId() == "s0" {
			t.Fatalf("of an ended subscription: %v", m)
		}
		if m.GetId() == "u" {
			if m.GetType() != "error" {
				t.Errorf("%v", m)
			}
			return
		}
	}
}

// TestRequestsOnASocket, one of each.
func TestRequestsOnASocket(t *testing.T) {
	var inputs bytes.Buffer
	var md metadata.MD
	wait := make(chan struct{})
	svc := &service{
		execute: func(ctx context.Context, r *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
			md, _ = metadata.FromIncomingContext(ctx)
			if r.GetHost() != "web1" || r.GetCommand() != "uptime" || r.GetActionType() != "check" || r.GetWait() == nil || r.GetWait().AsDuration() != 0 || !r.GetOutput().GetOmit() {
				return nil, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "no").WithHint("None")
			}
			return &telexecv1.ExecuteResponse{Command: running}, nil
		},
		stream: newTape(100, 100).play,
		input: func(_ context.Context, r *telexecv1.SendInputRequest) (*telexecv1.SendInputResponse, error) {
			if inputs.Len() == 0 {
				<-wait
			}
			inputs.Write(r.GetData())
			return &telexecv1.SendInputResponse{}, nil
		},
	}
	d := open(t, svc)
	c := d.talk("/v1/socket", "Sec-WebSocket-Protocol", "telexec.v1.json")
	c.send(`{"id":"e1","execute":{"host":"web1","command":"uptime","action_type":"check","wait":"10s"}}`)
	if m := c.want("execute", "e1"); m.GetSequence() != 3 || m.GetResource() != "commands/"+anID {
		t.Error(m)
	}
	c.want("command", "e1")
	c.want("chunk", "e1")
	for {
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetType() == "ended" {
			break
		}
	}
	if o, a := md.Get("telexec-origin"), md.Get("telexec-address"); !slices.Equal(o, []string{"websocket"}) || !slices.Equal(a, []string{"127.0.0.1"}) {
		t.Errorf("metadata %v", md)
	}
	for i := range 20 {
		c.send(fmt.Sprintf(`{"id":"i%d","input":{"commandId":%q,"data":%q}}`, i, anID, base64.StdEncoding.EncodeToString([]byte{byte('a' + i)})))
	}
	c.send(`{"id":"w","subscribeEvents":{}}`) // before the inputs: they hold up nothing else
	if m, err := c.next(); err != nil || m.GetId() != "w" {
		t.Errorf("%v %v", m, err)
	}
	close(wait)
	for i := range 20 {
		c.want("input", fmt.Sprintf("i%d", i))
	}
	if inputs.String() != "abcdefghijklmnopqrst" {
		t.Errorf("inputs %q", inputs.String())
	}
	c.send(`{"id":"e2","execute":{"host":"web2","command":"uptime"}}`)
	if reason, _ := c.wantError("e2"); reason != fault.ReasonInvalidRequest {
		t.Error(reason)
	}
}

// TestASequenceNeverFalls, though a change of the command passes its output.
func TestASequenceNeverFalls(t *testing.T) {
	svc := &service{stream: func(_ *telexecv1.StreamOutputRequest, ss grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		for i := range int64(40) {
			ev := event(&telexecv1.OutputChunk{Stream: 1, Offset: i, Position: i, Data: []byte("x")})
			if i%2 == 1 {
				ev = event(&telexecv1.Command{Id: anID, Version: i})
			}
			if err := ss.Send(ev); err != nil {
				return err
			}
		}
		return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "gone").WithHint("Wait")
	}}
	inBubble(t, svc, func(t *testing.T, d *door, _ *pipes) {
		c := d.talk(streamPath)
		for last := int64(0); ; {
			m, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetSequence() < last {
				t.Fatalf("%d came behind %d: %v", m.GetSequence(), last, m)
			}
			if last = m.GetSequence(); m.GetType() == "error" {
				if last != 39 {
					t.Error(m)
				}
				break
			}
		}
		d.stop()
	})
}

// TestAClientThatStopsSending while it does not read does not hold the socket.
func TestAClientThatStopsSending(t *testing.T) {
	inBubble(t, &service{stream: newTape(1<<20, 64<<10).play}, func(t *testing.T, d *door, p *pipes) {
		conn, gone := p.dial("192.0.2.1")
		defer conn.Close()
		send(t, conn, handshake)
		if _, err := io.ReadFull(conn, make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		send(t, conn, "\x88\x80\x00\x00\x00\x00") // a close frame
		<-gone
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("gone after %v", took)
		}
		d.stop()
	})
}

// TestMalformedMessages are told, with the id where it could be read and without what
// was said; only what is no message at all ends the socket.
func TestMalformedMessages(t *testing.T) {
	d := open(t, &service{})
	c := d.talk("/v1/socket")
	for text, id := range map[string]string{
		`{}`:         "",
		`{"id":"a"}`: "a",
		`{"id":"a","cancel":{"commandId":"geheim"}}`:           "a",
		`{"id":"a","cancel":{"commandId":17}}`:                 "a",
		`{"id":"a","kancel":{}}`:                               "a",
		`{"id":"a","cancel":{},"signal":{}}`:                   "a",
		`{"id":"` + strings.Repeat("x", 65) + `","cancel":{}}`: "",
		`{"id":7}`: "",
		`{"id":"a","unsubscribe":{"subscription":"geheim"}}`:       "a",
		`{"id":"a","execute":{"host":"h","command":{"geheim":1}}}`: "a",
	} {
		c.send(text)
		if reason, message := c.wantError(id); reason != fault.ReasonInvalidRequest || strings.Contains(message, "geheim") {
			t.Errorf("%s: %s %s", text, reason, message)
		}
	}
	for text, code := range map[string]websocket.StatusCode{
		`{`: 1007, "\xff": 1007, `[]`: 1007, `{} {}`: 1007, "": 1007, strings.Repeat(" ", 2<<20) + "{}": 1009,
	} {
		c := d.talk("/v1/socket")
		c.send(text)
		if code == 1007 {
			c.wantError("")
		}
		c.wantClose(code)
	}
	c = d.talk("/v1/socket")
	if err := c.conn.Write(t.Context(), websocket.MessageBinary, []byte{1}); err != nil {
		t.Fatal(err)
	}
	c.wantError("")
	c.wantClose(1003)
	c = d.talk("/v1/socket", "Sec-WebSocket-Protocol", "telexec.v1.proto")
	if err := c.conn.Write(t.Context(), websocket.MessageBinary, []byte{1}); err != nil {
		t.Fatal(err)
	}
	c.wantError("")
	c.wantClose(1007)
}
