package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// sessionPeer is the part of the peer that has one session.
type sessionPeer struct {
	telexecv1.UnimplementedSessionServiceServer

	recording []byte
	// record, if set, is ReadRecording, and attach is Attach; n counts its calls from 1.
	record func(n int, req *telexecv1.ReadRecordingRequest, s grpc.ServerStreamingServer[telexecv1.ReadRecordingResponse]) error
	attach func(n int, start *telexecv1.AttachStart, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error
	peer   *peer
}

func (p *sessionPeer) session() *telexecv1.Session {
	return &telexecv1.Session{Name: "deploy", Id: testID, OutputOffset: 3}
}

func (p *sessionPeer) OpenSession(context.Context, *telexecv1.OpenSessionRequest) (*telexecv1.OpenSessionResponse, error) {
	return &telexecv1.OpenSessionResponse{Session: p.session()}, nil
}

func (p *sessionPeer) GetSession(_ context.Context, r *telexecv1.GetSessionRequest) (*telexecv1.GetSessionResponse, error) {
	if r.GetSession() != "deploy" {
		return nil, refusal(codes.NotFound, &errdetails.ErrorInfo{Domain: domain, Reason: "UNKNOWN_SESSION"})
	}
	return &telexecv1.GetSessionResponse{Session: p.session()}, nil
}

func (p *sessionPeer) ListSessions(_ context.Context, r *telexecv1.ListSessionsRequest) (*telexecv1.ListSessionsResponse, error) {
	if r.GetPageToken() == "" {
		return &telexecv1.ListSessionsResponse{Sessions: []*telexecv1.Session{{Id: "1"}}, NextPageToken: "p2"}, nil
	}
	return &telexecv1.ListSessionsResponse{Sessions: []*telexecv1.Session{{Id: "2"}}}, nil
}

func (p *sessionPeer) CloseSession(context.Context, *telexecv1.CloseSessionRequest) (*telexecv1.CloseSessionResponse, error) {
	return &telexecv1.CloseSessionResponse{Session: p.session()}, nil
}

func (p *sessionPeer) ReadScreen(context.Context, *telexecv1.ReadScreenRequest) (*telexecv1.ReadScreenResponse, error) {
	return &telexecv1.ReadScreenResponse{Lines: []string{"$"}}, nil
}

func (p *sessionPeer) SendKeys(context.Context, *telexecv1.SendKeysRequest) (*telexecv1.SendKeysResponse, error) {
	return &telexecv1.SendKeysResponse{Settled: true}, nil
}

func (p *sessionPeer) ReadRecording(req *telexecv1.ReadRecordingRequest, s grpc.ServerStreamingServer[telexecv1.ReadRecordingResponse]) error {
	return p.record(p.peer.note(s.Context(), "ReadRecording", req), req, s)
}

func (p *sessionPeer) Attach(s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	return p.attach(p.peer.note(s.Context(), "Attach", first), first.GetStart(), s)
}

func TestSessionCalls(t *testing.T) {
	p := newPeer(t)
	c, ctx := p.dial(t, Options{}), t.Context()
	if r, err := c.OpenSession(ctx, &telexecv1.OpenSessionRequest{Host: "h"}); err != nil || r.GetSession().GetName() != "deploy" {
		t.Error(r, err)
	}
	if s, err := c.GetSession(ctx, "deploy"); err != nil || s.GetId() != testID {
		t.Error(s, err)
	}
	if s, err := c.GetSession(ctx, "other"); err == nil || s != nil {
		t.Error(s, err)
	}
	var ids []string
	for s, err := range c.ListSessions(ctx, &telexecv1.ListSessionsRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.GetId())
	}
	if !slices.Equal(ids, []string{"1", "2"}) {
		t.Error(ids)
	}
	if r, err := c.CloseSession(ctx, &telexecv1.CloseSessionRequest{Session: "deploy"}); err != nil || r.GetSession() == nil {
		t.Error(r, err)
	}
	if r, err := c.ReadScreen(ctx, &telexecv1.ReadScreenRequest{Session: "deploy"}); err != nil || len(r.GetLines()) != 1 {
		t.Error(r, err)
	}
	if r, err := c.SendKeys(ctx, &telexecv1.SendKeysRequest{Session: "deploy"}); err != nil || !r.GetSettled() {
		t.Error(r, err)
	}
}

// What would be done twice is not asked for again.
func TestWhichSessionCallsAreRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		call   func(context.Context, *Client) error
		calls  int
	}{
		"open without a name": {"OpenSession", func(ctx context.Context, c *Client) error {
			_, err := c.OpenSession(ctx, &telexecv1.OpenSessionRequest{Host: "h", Reuse: true})
			return err
		}, 1},
		"open anew": {"OpenSession", func(ctx context.Context, c *Client) error {
			_, err := c.OpenSession(ctx, &telexecv1.OpenSessionRequest{Host: "h", Name: "n"})
			return err
		}, 1},
		"open or reuse": {"OpenSession", func(ctx context.Context, c *Client) error {
			_, err := c.OpenSession(ctx, &telexecv1.OpenSessionRequest{Host: "h", Name: "n", Reuse: true})
			return err
		}, 2},
		"keys": {"SendKeys", func(ctx context.Context, c *Client) error {
			_, err := c.SendKeys(ctx, &telexecv1.SendKeysRequest{Session: "deploy"})
			return err
		}, 1},
		"close": {"CloseSession", func(ctx context.Context, c *Client) error {
			_, err := c.CloseSession(ctx, &telexecv1.CloseSessionRequest{Session: "deploy"})
			return err
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.after = func(_ string, n int) error {
					if n == 1 {
						return dropped
					}
					return nil
				}
				if err := c.call(t.Context(), p.dial(t, Options{})); (err == nil) != (c.calls == 2) || p.count(c.method) != c.calls {
					t.Errorf("%d calls, %v", p.count(c.method), err)
				}
			})
		})
	}
}

func TestRecordingResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.recording = []byte(strings.Repeat("0123456789", 100))
		p.record = func(n int, req *telexecv1.ReadRecordingRequest, s grpc.ServerStreamingServer[telexecv1.ReadRecordingResponse]) error {
			if req.GetSession() != testID {
				t.Errorf("asked for %q, which may be another session by now", req.GetSession())
			}
			for at := req.GetOffset(); ; at += 100 {
				if at >= int64(n)*300 {
					return []error{dropped, nil, refusal(codes.Unavailable, retryIn(time.Second))}[n%3]
				}
				rest := p.recording[at:]
				piece := rest[:min(100, len(rest))]
				if err := s.Send(&telexecv1.ReadRecordingResponse{Offset: at, Data: piece, Last: len(rest) <= 100}); err != nil || len(rest) <= 100 {
					return err
				}
			}
		}
		var got bytes.Buffer
		c := p.dial(t, Options{})
		for piece, err := range c.ReadRecording(t.Context(), &telexecv1.ReadRecordingRequest{Session: "deploy", Offset: 5}) {
			if err != nil {
				t.Fatal(err)
			}
			got.Write(piece.GetData())
		}
		if !bytes.Equal(got.Bytes(), p.recording[5:]) || p.count("ReadRecording") != 4 {
			t.Errorf("%d bytes in %d calls", got.Len(), p.count("ReadRecording"))
		}
		for _, err := range c.ReadRecording(t.Context(), &telexecv1.ReadRecordingRequest{Session: "other"}) {
			if e, ok := asError(err); !ok || e.Reason != "UNKNOWN_SESSION" {
				t.Error(err)
			}
		}
		p.record = func(_ int, _ *telexecv1.ReadRecordingRequest, s grpc.ServerStreamingServer[telexecv1.ReadRecordingResponse]) error {
			return s.Send(&telexecv1.ReadRecordingResponse{Offset: 7, Data: []byte("x"), Last: true})
		}
		for _, err := range c.ReadRecording(t.Context(), &telexecv1.ReadRecordingRequest{Session: "deploy"}) {
			if e, ok := asError(err); !ok || e.Reason != ReasonProtocol {
				t.Error(err)
			}
		}
	})
}

// The answers of a terminal.

func attached(offset int64, resumed bool) *telexecv1.AttachResponse {
	return &telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Attached{Attached: &telexecv1.Attached{
		Viewer: "v1", Session: &telexecv1.Session{Name: "deploy", Id: testID}, Offset: offset, Resumed: resumed,
	}}}
}

func terminalOutput(offset int64, data string) *telexecv1.AttachResponse {
	return &telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Output{Output: &telexecv1.TerminalOutput{Offset: offset, Data: []byte(data)}}}
}

func screenAt(offset int64) *telexecv1.AttachResponse {
	return &telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Screen{Screen: &telexecv1.Screen{Offset: offset, Data: []byte("screen")}}}
}

func terminalEnded() *telexecv1.AttachResponse {
	return &telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Ended{Ended: &telexecv1.Session{Id: testID}}}
}

// look gives what a terminal has told, in short: output as it is, the rest as words.
func look(t *testing.T, term *Terminal, do func(*telexecv1.AttachResponse)) (told string, err error) {
	t.Helper()
	var b strings.Builder
	for event, err := range term.Events(t.Context()) {
		if err != nil {
			return b.String(), err
		}
		switch r := event.GetResponse().(type) {
		case *telexecv1.AttachResponse_Attached:
			fmt.Fprintf(&b, "<attached %d>", r.Attached.GetOffset())
		case *telexecv1.AttachResponse_Screen:
			fmt.Fprintf(&b, "<screen %d>", r.Screen.GetOffset())
		case *telexecv1.AttachResponse_Output:
			b.Write(r.Output.GetData())
		case *telexecv1.AttachResponse_Ended:
			b.WriteString("<ended>")
		}
		if do != nil {
			do(event)
		}
	}
	return b.String(), nil
}

func TestTerminalResumesAtTheByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		var starts []*telexecv1.AttachStart
		p.attach = func(n int, start *telexecv1.AttachStart, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
			starts = append(starts, proto.CloneOf(start))
			switch n {
			case 1:
				_ = s.Send(attached(10, false))
				_ = s.Send(screenAt(10))
				_ = s.Send(terminalOutput(10, "abc"))
				r, err := s.Recv() // the new size
				if err != nil || r.GetResize().GetColumns() != 100 {
					t.Errorf("%v, %v", r, err)
				}
				return dropped
			case 2:
				_ = s.Send(attached(13, true))
				_ = s.Send(terminalOutput(13, "def"))
				return nil // before it has ended
			}
			_ = s.Send(attached(50, false)) // it was away for too long
			_ = s.Send(screenAt(50))
			_ = s.Send(terminalOutput(50, "x"))
			return s.Send(terminalEnded())
		}
		c := p.dial(t, Options{})
		term := c.Attach(&telexecv1.AttachStart{Session: "deploy", Size: &telexecv1.TerminalSize{Columns: 80, Rows: 24}})
		told, err := look(t, term, func(event *telexecv1.AttachResponse) {
			if string(event.GetOutput().GetData()) == "abc" {
				if err := term.Resize(t.Context(), 100, 30); err != nil {
					t.Error(err)
				}
			}
		})
		if want := "<attached 10><screen 10>abc<attached 13>def<attached 50><screen 50>x<ended>"; err != nil || told != want {
			t.Errorf("%q, %v", told, err)
		}
		var asked []string
		for _, s := range starts {
			at := int64(-1)
			if s.FromOffset != nil {
				at = s.GetFromOffset()
			}
			asked = append(asked, fmt.Sprintf("%s from %d, %d columns", s.GetSession(), at, s.GetSize().GetColumns()))
		}
		want := []string{"deploy from -1, 80 columns", testID + " from 13, 100 columns", testID + " from 16, 100 columns"}
		if !slices.Equal(asked, want) {
			t.Errorf("%q", asked)
		}
	})
}

// Who loses the connection in the middle of the screen has no screen: it comes anew,
// whatever of it had arrived.
func TestTerminalWithHalfAScreenBeginsAnew(t *testing.T) {
	type said = *telexecv1.AttachResponse
	refused := &telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Refused{Refused: &telexecv1.Failure{Reason: "KEYBOARD_TAKEN"}}}
	beat := &telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Heartbeat{Heartbeat: &telexecv1.AttachHeartbeat{}}}
	for name, c := range map[string]struct {
		said []said
		from int64 // of the next start; -1: none
	}{
		"before it":              {[]said{attached(10, false)}, -1},
		"in it":                  {[]said{attached(10, false), screenAt(10)}, -1},
		"in it, while it types":  {[]said{attached(10, false), screenAt(10), refused}, -1},
		"in one behind a gap":    {[]said{attached(10, true), terminalOutput(10, "abc"), screenAt(50)}, -1},
		"behind it":              {[]said{attached(10, false), screenAt(10), beat}, 10},
		"behind it, with output": {[]said{attached(10, false), screenAt(10), terminalOutput(10, "abc")}, 13},
		"of one that came back":  {[]said{attached(10, true)}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				from := int64(-2)
				p.attach = func(n int, start *telexecv1.AttachStart, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
					if n == 1 {
						for _, m := range c.said {
							_ = s.Send(proto.CloneOf(m))
						}
						return dropped
					}
					if from = -1; start.FromOffset != nil {
						from = start.GetFromOffset()
					}
					_ = s.Send(attached(99, false))
					_ = s.Send(screenAt(99))
					return s.Send(terminalEnded())
				}
				if _, err := look(t, p.dial(t, Options{}).Attach(&telexecv1.AttachStart{Session: "deploy"}), nil); err != nil || from != c.from {
					t.Errorf("came back at %d, want %d; %v", from, c.from, err)
				}
			})
		})
	}
}

func TestTerminalSendsWhatIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		var heard []string
		long := strings.Repeat("x", maxInput+3)
		p.attach = func(_ int, start *telexecv1.AttachStart, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
			_ = s.Send(attached(0, false))
			_ = s.Send(terminalOutput(0, strings.Repeat("y", 20_000)))
			_ = s.Send(terminalOutput(20_000, "z"))
			for len(heard) < 6 {
				r, err := s.Recv()
				if err != nil {
					return err
				}
				switch said := r.GetRequest().(type) {
				case *telexecv1.AttachRequest_Input:
					heard = append(heard, fmt.Sprintf("input of %d", len(said.Input)))
				case *telexecv1.AttachRequest_Keyboard:
					heard = append(heard, "keyboard "+said.Keyboard.GetViewer())
				case *telexecv1.AttachRequest_Acknowledged:
					heard = append(heard, fmt.Sprintf("acknowledged %d", said.Acknowledged))
				case *telexecv1.AttachRequest_Resize:
					heard = append(heard, "resize")
				}
			}
			return s.Send(terminalEnded())
		}
		term := p.dial(t, Options{}).Attach(&telexecv1.AttachStart{Session: "deploy", WindowBytes: 64 << 10})
		if e, ok := asError(term.Input(t.Context(), []byte("early"))); !ok || e.Reason != ReasonUnreachable || e.Hint == "" {
			t.Errorf("typed before there is a terminal: %v", e)
		}
		if err := term.Resize(t.Context(), 90, 20); err != nil {
			t.Error(err)
		}
		_, err := look(t, term, func(event *telexecv1.AttachResponse) {
			if event.GetAttached() == nil {
				return
			}
			for _, err := range []error{
				term.Input(t.Context(), []byte("ls\r")), term.Input(t.Context(), []byte(long)),
				term.Keyboard(t.Context(), telexecv1.KeyboardAction_KEYBOARD_ACTION_HAND_OVER, "v2"), term.Resize(t.Context(), 91, 20),
			} {
				if err != nil {
					t.Error(err)
				}
			}
		})
		want := []string{"input of 3", "input of 65536", "input of 3", "keyboard v2", "resize", "acknowledged 20000"}
		if err != nil || !slices.Equal(heard, want) {
			t.Errorf("%q, %v", heard, err)
		}
	})
}

// Who leaves has typed what it has typed before, or knows that nobody knows.
func TestTerminalIsLeft(t *testing.T) {
	type stream = grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]
	var heard atomic.Int64
	hears := func(s stream) error {
		for {
			r, err := s.Recv()
			if err != nil {
				return err
			}
			heard.Add(int64(len(r.GetInput())))
		}
	}
	for name, c := range map[string]struct {
		attach func(s stream) error
		typed  int
		takes  time.Duration
		err    error
		reason string
	}{
		"when all was typed": {func(s stream) error {
			<-time.After(300 * time.Millisecond)
			if err := hears(s); !errors.Is(err, io.EOF) {
				t.Errorf("the client has not said that it has said all: %v", err)
			}
			<-time.After(300 * time.Millisecond)
			return s.Send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Refused{Refused: &telexecv1.Failure{}}})
		}, 3*maxInput + 1, 600 * time.Millisecond, nil, ""},
		"when nothing was": {func(s stream) error {
			<-s.Context().Done()
			return nil
		}, 0, 0, nil, ""},
		"a service that does not know": {func(s stream) error {
			_ = hears(s)
			<-s.Context().Done()
			return nil
		}, 3, time.Second, context.DeadlineExceeded, ""},
		"a service that goes away": {func(s stream) error {
			_ = hears(s)
			return dropped
		}, 3, 0, nil, ReasonUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				heard.Store(0)
				p.attach = func(_ int, _ *telexecv1.AttachStart, s stream) error {
					_ = s.Send(attached(0, false))
					return c.attach(s)
				}
				term := p.dial(t, Options{}).Attach(&telexecv1.AttachStart{Session: "deploy"})
				left, refused := make(chan error), 0
				for event, err := range term.Events(t.Context()) {
					switch {
					case err != nil:
						t.Error(err)
					case event.GetRefused() != nil:
						refused++
					case event.GetAttached() != nil:
						go func() {
							if err := term.Input(t.Context(), make([]byte, c.typed)); err != nil {
								t.Error(err)
							}
							began := time.Now()
							ctx, cancel := context.WithTimeout(t.Context(), time.Second)
							defer cancel()
							err := term.Leave(ctx)
							if took := time.Since(began); took.Round(100*time.Millisecond) != c.takes {
								t.Errorf("left after %v, want %v", took, c.takes)
							}
							left <- err
						}()
					}
				}
				err := <-left
				e, _ := asError(err)
				switch {
				case c.reason != "":
					if e == nil || e.Reason != c.reason {
						t.Errorf("left with %v", err)
					}
				case !errors.Is(err, c.err) || c.err == nil && err != nil:
					t.Errorf("left with %v", err)
				}
				if heard.Load() != int64(c.typed) || c.takes == 600*time.Millisecond && refused != 1 || p.count("Attach") != 1 {
					t.Errorf("%d bytes of %d got there, %d refused, %d calls", heard.Load(), c.typed, refused, p.count("Attach"))
				}
				if e, ok := asError(term.Input(t.Context(), []byte("late"))); !ok || e.Reason != ReasonUnreachable {
					t.Errorf("typed when it was left: %v", e)
				}
			})
		})
	}
}

// While the service is away there is nothing to wait for.
func TestTerminalIsLeftWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.attach = func(int, *telexecv1.AttachStart, grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
			return dropped
		}
		var term *Terminal
		left := false
		term = p.dial(t, Options{OnRetry: func(*Error, time.Duration) {
			if !left {
				left = true
				if e, ok := asError(term.Leave(t.Context())); !ok || e.Reason != ReasonUnreachable {
					t.Errorf("%v", e)
				}
			}
		}}).Attach(&telexecv1.AttachStart{Session: "deploy"})
		if told, err := look(t, term, nil); told != "" || err != nil || p.count("Attach") != 1 {
			t.Errorf("%q, %v, %d calls", told, err, p.count("Attach"))
		}
	})
}

func TestTerminalEnds(t *testing.T) {
	for name, c := range map[string]struct {
		attach func(n int, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error
		reason string
		calls  int // 0: several
	}{
		"refused": {func(int, grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
			return refusal(codes.PermissionDenied, &errdetails.ErrorInfo{Domain: domain, Reason: "TYPING_NOT_ALLOWED"})
		}, "TYPING_NOT_ALLOWED", 1},
		"a hole in the output": {func(_ int, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
			_ = s.Send(attached(3, false))
			_ = s.Send(terminalOutput(5, "x"))
			<-s.Context().Done()
			return nil
		}, ReasonProtocol, 1},
		"a service that stays away": {func(int, grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
			return dropped
		}, ReasonUnreachable, 0},
		"a service that says nothing": {func(n int, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
			if n == 1 {
				_ = s.Send(attached(0, false))
				<-s.Context().Done()
				return nil
			}
			return refusal(codes.FailedPrecondition, &errdetails.ErrorInfo{Domain: domain, Reason: "SESSION_ENDED"})
		}, "SESSION_ENDED", 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.attach = func(n int, _ *telexecv1.AttachStart, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
					return c.attach(n, s)
				}
				term := p.dial(t, Options{}).Attach(&telexecv1.AttachStart{Session: "deploy"})
				_, err := look(t, term, nil)
				if e, ok := asError(err); !ok || e.Reason != c.reason || e.Metadata["session"] != "deploy" || c.calls > 0 && p.count("Attach") != c.calls || c.calls == 0 && p.count("Attach") < 3 {
					t.Errorf("%v after %d calls", err, p.count("Attach"))
				}
				if e, ok := asError(term.Input(t.Context(), []byte("late"))); !ok || e.Reason != ReasonUnreachable {
					t.Errorf("typed behind the end: %v", e)
				}
			})
		})
	}
}

// Who types while the service takes nothing waits, and no longer than it wants to; who
// leaves the loop leaves nothing behind.
func TestTerminalOfAServiceThatTakesNothing(t *testing.T) {
	p := newPeer(t)
	p.attach = func(_ int, _ *telexecv1.AttachStart, s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
		_ = s.Send(attached(0, false))
		<-s.Context().Done()
		return status.FromContextError(s.Context().Err()).Err()
	}
	term := p.dial(t, Options{}).Attach(&telexecv1.AttachStart{Session: "deploy"})
	for event, err := range term.Events(t.Context()) {
		if err != nil || event.GetAttached() == nil {
			t.Fatal(event, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := term.Input(ctx, make([]byte, 64<<20))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		break
	}
	if err := term.Input(t.Context(), []byte("x")); err == nil || errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
