package gateway_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway"
)

const terminalPath = "/v1/sessions/build/terminal"

type recordingStream = grpc.ServerStreamingServer[telexecv1.ReadRecordingResponse]

type attachStream = grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]

// sessions answers for the terminals of sessions by what a test gives.
type sessions struct {
	telexecv1.UnimplementedSessionServiceServer
	service *service
}

func (s sessions) Attach(ss attachStream) error {
	if s.service.attach == nil {
		return s.UnimplementedSessionServiceServer.Attach(ss)
	}
	return s.service.attach(ss)
}

func (s sessions) ReadRecording(r *telexecv1.ReadRecordingRequest, ss recordingStream) error {
	if s.service.record == nil {
		return s.UnimplementedSessionServiceServer.ReadRecording(r, ss)
	}
	return s.service.record(r, ss)
}

// echo is a terminal that shows what is typed and where the session is over at Ctrl-D.
func echo(ss attachStream) error {
	first, err := ss.Recv()
	if err != nil {
		return err
	}
	said := &telexecv1.AttachResponse{Time: timestamppb.Now(), Response: &telexecv1.AttachResponse_Attached{Attached: &telexecv1.Attached{
		Viewer: "v1", Session: &telexecv1.Session{Name: first.GetStart().GetSession()},
	}}}
	at := int64(0)
	for {
		if err := ss.Send(said); err != nil {
			return err
		}
		r, err := ss.Recv()
		if err != nil {
			return err
		}
		p := r.GetInput()
		if bytes.Contains(p, []byte{4}) {
			return ss.Send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Ended{Ended: &telexecv1.Session{Name: "build"}}})
		}
		said = &telexecv1.AttachResponse{Time: timestamppb.Now(), Response: &telexecv1.AttachResponse_Output{Output: &telexecv1.TerminalOutput{Offset: at, Data: p}}}
		at += int64(len(p))
	}
}

// say sends a request to a terminal.
func (c *talk) say(r *telexecv1.AttachRequest) {
	c.t.Helper()
	kind, p := websocket.MessageText, []byte(nil)
	if c.binary {
		kind = websocket.MessageBinary
		p, _ = proto.Marshal(r)
	} else {
		p, _ = protojson.Marshal(r)
	}
	if err := c.conn.Write(c.t.Context(), kind, p); err != nil {
		c.t.Fatal(err)
	}
}

// hear gives the next message of a terminal, or why there is none.
func (c *talk) hear() (*telexecv1.AttachResponse, error) {
	kind, p, err := c.conn.Read(c.t.Context())
	if err != nil {
		return nil, err
	}
	m := &telexecv1.AttachResponse{}
	if kind == websocket.MessageBinary {
		return m, proto.Unmarshal(p, m)
	}
	return m, protojson.Unmarshal(p, m)
}

// wantEnd reads to the end: the reason of the failure that is told, and the code.
func (c *talk) wantEnd(reason string, code websocket.StatusCode) {
	c.t.Helper()
	told := ""
	for {
		m, err := c.hear()
		if err != nil {
			if told != reason || websocket.CloseStatus(err) != code {
				c.t.Errorf("told %q and closed with %v, want %q and %d", told, err, reason, code)
			}
			return
		}
		if e := m.GetError(); e != nil {
			text, _ := protojson.Marshal(e)
			_, told, _, _ = answer{header: map[string][]string{"Content-Type": {"application/json"}}, body: string(text)}.problem(c.t)
		}
	}
}

func start(s string) *telexecv1.AttachRequest {
	return &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Session: s}}}
}

func typed(s string) *telexecv1.AttachRequest {
	return &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Input{Input: []byte(s)}}
}

// TestATerminal: what is typed arrives in its order, and what is shown too, in both
// formats, to the end of the session.
func TestATerminal(t *testing.T) {
	for _, header := range [][]string{nil, {"Sec-WebSocket-Protocol", "telexec.v1.proto"}, {"Deflate", "yes"}} {
		t.Run(strings.Join(header, " "), func(t *testing.T) {
			d := open(t, &service{attach: echo})
			c := d.talk(terminalPath, header...)
			c.say(start(""))
			if m, err := c.hear(); err != nil || m.GetAttached().GetSession().GetName() != "build" {
				t.Fatalf("%v %v", m, err)
			}
			var want, got []byte
			for i := range 200 {
				line := fmt.Sprintf("\xff line %d\r%s", i, strings.Repeat("x", i*37))
				want = append(want, line...)
				c.say(typed(line))
			}
			for len(got) < len(want) {
				m, err := c.hear()
				if err != nil || m.GetOutput().GetOffset() != int64(len(got)) {
					t.Fatalf("%v %v", m, err)
				}
				got = append(got, m.GetOutput().GetData()...)
			}
			if !bytes.Equal(got, want) {
				t.Error("other bytes came back")
			}
			c.say(typed("\x04"))
			if m, err := c.hear(); err != nil || m.GetEnded() == nil {
				t.Errorf("%v %v", m, err)
			}
			c.wantEnd("", websocket.StatusNormalClosure)
		})
	}
}

// TestRefusalsOfATerminal: what is said wrong, and what the service refuses.
func TestRefusalsOfATerminal(t *testing.T) {
	for name, test := range map[string]struct {
		say    []*telexecv1.AttachRequest
		raw    string
		attach func(attachStream) error
		reason string
		code   websocket.StatusCode
	}{
		"no start":        {say: []*telexecv1.AttachRequest{typed("x")}, reason: fault.ReasonInvalidRequest, code: websocket.StatusPolicyViolation},
		"start twice":     {say: []*telexecv1.AttachRequest{start(""), start("")}, reason: fault.ReasonInvalidRequest, code: websocket.StatusPolicyViolation},
		"another session": {say: []*telexecv1.AttachRequest{start("other")}, reason: fault.ReasonInvalidRequest, code: websocket.StatusPolicyViolation},
		"nothing":         {say: []*telexecv1.AttachRequest{{}}, reason: fault.ReasonInvalidRequest, code: websocket.StatusPolicyViolation},
		"no JSON":         {raw: "ls", reason: fault.ReasonInvalidRequest, code: websocket.StatusInvalidFramePayloadData},
		"unknown field":   {raw: `{"type":"ls"}`, reason: fault.ReasonInvalidRequest, code: websocket.StatusPolicyViolation},
		"a size of zero": {say: []*telexecv1.AttachRequest{{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Size: &telexecv1.TerminalSize{}}}}},
			reason: fault.ReasonInvalidRequest, code: websocket.StatusPolicyViolation},
		"not allowed": {say: []*telexecv1.AttachRequest{start("")}, attach: func(attachStream) error {
			return fault.New(fault.PermissionDenied, fault.ReasonTypingNotAllowed, "only administrators may type here").WithHint("Attach as an observer")
		}, reason: fault.ReasonTypingNotAllowed, code: websocket.StatusPolicyViolation},
		"draining": {say: []*telexecv1.AttachRequest{start("")}, attach: func(attachStream) error {
			return fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down").WithHint("Connect again")
		}, reason: fault.ReasonDraining, code: websocket.StatusGoingAway},
		"a defect": {say: []*telexecv1.AttachRequest{start("")}, attach: func(attachStream) error { return status.Error(codes.Internal, "x") },
			reason: fault.ReasonInternal, code: websocket.StatusInternalError},
	} {
		t.Run(name, func(t *testing.T) {
			svc := &service{attach: echo}
			if test.attach != nil {
				svc.attach = test.attach
			}
			c := open(t, svc).talk(terminalPath)
			for _, r := range test.say {
				c.say(r)
			}
			if test.raw != "" {
				c.send(test.raw)
			}
			c.wantEnd(test.reason, test.code)
		})
	}
	d := open(t, &service{})
	if a := d.do("GET", terminalPath, ""); a.status != 426 || !strings.Contains(a.body, "/screen") {
		t.Errorf("without an upgrade: HTTP %d %s", a.status, a.body)
	}
	if a := d.refusal(terminalPath + "?size=1"); a.status != 400 || !strings.Contains(a.body, "start") {
		t.Errorf("with a query: HTTP %d %s", a.status, a.body)
	}
}

// TestALeftTerminal: the stream ends with its socket, and with the service.
func TestALeftTerminal(t *testing.T) {
	over := make(chan error, 1)
	svc := &service{attach: func(ss attachStream) error {
		if err := echo(ss); err != nil {
			over <- err
		}
		return nil
	}}
	d := open(t, svc)
	c := d.talk(terminalPath)
	c.say(start(""))
	c.hear()
	c.conn.CloseNow()
	<-over
	c = d.talk(terminalPath)
	c.say(start(""))
	c.hear()
	d.stop()
	c.wantEnd(fault.ReasonDraining, websocket.StatusGoingAway)
	<-over
}

// TestAStalledTerminal: who does not read is waited for, with less than 1 MiB in memory,
// and the service is not read for it; Ctrl-C arrives all the same.
func TestAStalledTerminal(t *testing.T) {
	for _, protocol := range []string{"telexec.v1.json", "telexec.v1.proto"} {
		var sent atomic.Int64
		interrupted := make(chan struct{})
		svc := &service{attach: func(ss attachStream) error {
			go func() {
				for {
					r, err := ss.Recv()
					if err != nil {
						return
					}
					if slices.Contains(r.GetInput(), 3) {
						close(interrupted)
					}
				}
			}()
			p := bytes.Repeat([]byte("y\n"), 8<<10)
			for {
				if err := ss.Send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Output{Output: &telexecv1.TerminalOutput{Offset: sent.Load(), Data: p}}}); err != nil {
					return err
				}
				sent.Add(int64(len(p)))
			}
		}}
		inBubble(t, svc, func(t *testing.T, d *door, _ *pipes) {
			interrupted = make(chan struct{}) // of this bubble
			c := d.talk(terminalPath, "Sec-WebSocket-Protocol", protocol)
			c.say(start(""))
			if _, err := c.hear(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := sent.Load(); n < 64<<10 || n > 1<<20 {
				t.Errorf("%s: %d bytes were taken for a client that does not read", protocol, n)
			}
			c.say(typed("\x03"))
			<-interrupted
			c.conn.CloseNow()
			d.stop()
		})
	}
}

// TestATerminalWhoseCredentialsAreOver ends, be it a token or the cookie of a browser.
func TestATerminalWhoseCredentialsAreOver(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*gateway.Options)
		cookie bool
	}{
		"a token":  {func(o *gateway.Options) { o.Authenticator = expiring{o.Authenticator, time.Now().Add(time.Hour)} }, false},
		"a cookie": {func(o *gateway.Options) { o.SessionLifetime = time.Hour }, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &service{attach: echo}, func(t *testing.T, d *door, _ *pipes) {
				begun, header := time.Now(), []string(nil)
				if c.cookie {
					header = []string{"Authorization", "", "Cookie", d.login(), "Origin", d.url}
				}
				k := d.talk(terminalPath, header...)
				k.say(start(""))
				k.wantEnd(fault.ReasonTokenExpired, websocket.StatusPolicyViolation)
				if took := time.Since(begun); took != time.Hour {
					t.Errorf("after %v", took)
				}
				d.stop()
			}, c.change)
		})
	}
}
