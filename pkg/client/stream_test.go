package client

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

type sink = grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]

// received is what came out of a stream.
type received struct {
	stdout, stderr bytes.Buffer
	text           strings.Builder
	gaps           []*telexecv1.OutputGap
	states         []int64 // versions
	completes      int
	last           *telexecv1.Command
	err            error
}

// follow reads a stream to its end and checks that chunks follow each other.
func follow(t *testing.T, c *Client, req *telexecv1.StreamOutputRequest) *received {
	t.Helper()
	req.CommandId, req.Follow = testID, true
	got := &received{}
	next := map[telexecv1.Stream]int64{
		telexecv1.Stream_STREAM_STDOUT: req.GetStdoutOffset(),
		telexecv1.Stream_STREAM_STDERR: req.GetStderrOffset(),
	}
	for event, err := range c.StreamOutput(t.Context(), req) {
		if err != nil {
			got.err = err
			break
		}
		switch e := event.GetEvent().(type) {
		case *telexecv1.StreamOutputResponse_Chunk:
			s := e.Chunk.GetStream()
			if e.Chunk.GetOffset() != next[s] {
				t.Errorf("%v: chunk at %d, want %d", s, e.Chunk.GetOffset(), next[s])
			}
			next[s] = e.Chunk.GetOffset() + int64(len(e.Chunk.GetData()))
			buf := &got.stdout
			if s == telexecv1.Stream_STREAM_STDERR {
				buf = &got.stderr
			}
			buf.Write(e.Chunk.GetData())
			got.text.WriteString(e.Chunk.GetText())
		case *telexecv1.StreamOutputResponse_Gap:
			got.gaps = append(got.gaps, e.Gap)
			next[e.Gap.GetStream()] = e.Gap.GetTo()
		case *telexecv1.StreamOutputResponse_Command:
			got.states = append(got.states, e.Command.GetVersion())
		case *telexecv1.StreamOutputResponse_OutputComplete:
			got.completes++
		case *telexecv1.StreamOutputResponse_Ended:
			got.last = e.Ended
		}
	}
	return got
}

func TestStreamResumesWithoutGapOrRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		rng := rand.New(rand.NewPCG(1, 2))
		p.stdout, p.stderr = make([]byte, 300_000), make([]byte, 70_000)
		for i := range p.stdout {
			p.stdout[i] = byte(rng.Uint32())
		}
		for i := range p.stderr {
			p.stderr[i] = byte(rng.Uint32())
		}
		cuts := 0
		p.stream = func(n int, req *telexecv1.StreamOutputRequest, s sink) error {
			_ = s.Send(state(p.command(1, telexecv1.CommandState_COMMAND_STATE_RUNNING)))
			out, errs := int(req.GetStdoutOffset()), int(req.GetStderrOffset())
			for out < len(p.stdout) || errs < len(p.stderr) {
				if rng.IntN(12) == 0 {
					cuts++
					switch n % 3 {
					case 0:
						return dropped
					case 1:
						return nil // ends before "ended"
					}
					return refusal(codes.Internal) // as gRPC makes of a RST_STREAM
				}
				if k := min(rng.IntN(9000), len(p.stdout)-out); k > 0 {
					_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, out, p.stdout[out:out+k]))
					out += k
				}
				if k := min(rng.IntN(3000), len(p.stderr)-errs); k > 0 {
					_ = s.Send(chunk(telexecv1.Stream_STREAM_STDERR, errs, p.stderr[errs:errs+k]))
					errs += k
				}
			}
			_ = s.Send(complete())
			if n%2 == 0 || cuts == 0 {
				cuts++
				return dropped // between the last byte and the end
			}
			return s.Send(ended(p.command(2, telexecv1.CommandState_COMMAND_STATE_COMPLETED)))
		}
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{})
		if got.err != nil || got.last.GetState() != telexecv1.CommandState_COMMAND_STATE_COMPLETED {
			t.Fatalf("err %v, last %v", got.err, got.last)
		}
		if !bytes.Equal(got.stdout.Bytes(), p.stdout) || !bytes.Equal(got.stderr.Bytes(), p.stderr) {
			t.Error("the output differs")
		}
		if cuts == 0 {
			t.Error("nothing was cut: the test tests nothing")
		}
		if len(got.states) != 1 || got.completes != 1 {
			t.Errorf("states %v, completes %d: what is known was told again", got.states, got.completes)
		}
	})
}

// That the service has lost the host of a command is an event among others: it
// is passed on, each time, and the output goes on behind it.
func TestStreamTellsThatTheHostIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stdout = []byte("before after")
		link := func(version int64, c telexecv1.Connection) *telexecv1.StreamOutputResponse {
			cmd := p.command(version, telexecv1.CommandState_COMMAND_STATE_RUNNING)
			cmd.Connection = c
			return state(cmd)
		}
		const away, back = telexecv1.Connection_CONNECTION_RECONNECTING, telexecv1.Connection_CONNECTION_CONNECTED
		p.stream = func(n int, _ *telexecv1.StreamOutputRequest, s sink) error {
			if n == 1 {
				_ = s.Send(link(1, back))
				_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 0, p.stdout[:7]))
				_ = s.Send(link(2, away))
				return dropped
			}
			_ = s.Send(link(2, away)) // known
			_ = s.Send(link(3, back))
			_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 7, p.stdout[7:]))
			_ = s.Send(complete())
			return s.Send(ended(p.command(4, telexecv1.CommandState_COMMAND_STATE_COMPLETED)))
		}
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{})
		if got.err != nil || got.stdout.String() != "before after" || !slices.Equal(got.states, []int64{1, 2, 3}) {
			t.Errorf("%q, states %v, %v", got.stdout.String(), got.states, got.err)
		}
	})
}

func TestStreamOfServiceThatGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stream = func(int, *telexecv1.StreamOutputRequest, sink) error { return dropped }
		var delays []time.Duration
		c := p.dial(t, Options{ResumeFor: time.Minute, OnRetry: func(err *Error, d time.Duration) {
			if err.Reason != ReasonUnreachable {
				t.Errorf("reason %q", err.Reason)
			}
			delays = append(delays, d)
		}})
		begin := time.Now()
		got := follow(t, c, &telexecv1.StreamOutputRequest{})
		e, ok := asError(got.err)
		if !ok || e.Reason != ReasonUnreachable || e.Metadata["command_id"] != testID {
			t.Fatalf("got %#v", got.err)
		}
		if took := time.Since(begin); took < 50*time.Second || took > time.Minute {
			t.Errorf("gave up after %v, want just below a minute", took)
		}
		if len(delays) < 12 || len(delays) > 40 || delays[0] > minDelay || delays[len(delays)-1] < maxDelay/2 {
			t.Errorf("delays %v", delays)
		}
	})
}

func TestStreamOfWrongAddressFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.listener.Close()
		begin := time.Now()
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{})
		if e, ok := asError(got.err); !ok || e.Reason != ReasonUnreachable || e.Hint == "" {
			t.Errorf("got %#v", got.err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestStreamSilenceIsALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stdout = []byte("ab")
		p.stream = func(n int, req *telexecv1.StreamOutputRequest, s sink) error {
			if n == 1 {
				_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 0, p.stdout[:1]))
				<-s.Context().Done()
				return nil
			}
			_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, int(req.GetStdoutOffset()), p.stdout[req.GetStdoutOffset():]))
			return s.Send(ended(p.command(2, telexecv1.CommandState_COMMAND_STATE_COMPLETED)))
		}
		begin := time.Now()
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{Heartbeat: durationpb.New(2 * time.Second)})
		if got.err != nil || got.stdout.String() != "ab" {
			t.Errorf("got %q, %v", got.stdout.String(), got.err)
		}
		if took := time.Since(begin); took < 6*time.Second || took > 7*time.Second {
			t.Errorf("took %v, want three heartbeats", took)
		}
	})
}

func TestStreamReceiverMayBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		goOn := make(chan struct{})
		p.stream = func(_ int, _ *telexecv1.StreamOutputRequest, s sink) error {
			_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 0, []byte("x")))
			<-goOn
			return s.Send(ended(p.command(2, telexecv1.CommandState_COMMAND_STATE_COMPLETED)))
		}
		for event, err := range p.dial(t, Options{}).StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: testID}) {
			if err != nil {
				t.Fatal(err)
			}
			if event.GetChunk() != nil {
				_ = sleep(t.Context(), time.Hour) // of the bubble
				close(goOn)
			}
		}
		if n := p.count("StreamOutput"); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestStreamTextSurvivesACutCharacter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stdout = []byte("a€b\xffc\xe2\x82")
		p.stream = func(n int, req *telexecv1.StreamOutputRequest, s sink) error {
			if req.GetText() {
				t.Error("the service was asked for text")
			}
			at := int(req.GetStdoutOffset())
			if at < len(p.stdout) {
				_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, at, p.stdout[at:at+1]))
				return dropped
			}
			_ = s.Send(complete())
			return s.Send(ended(p.command(2, telexecv1.CommandState_COMMAND_STATE_COMPLETED)))
		}
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{Text: true})
		if want := "a€b\uFFFDc\uFFFD\uFFFD"; got.text.String() != want || !bytes.Equal(got.stdout.Bytes(), p.stdout) {
			t.Errorf("text %q, want %q; err %v", got.text.String(), want, got.err)
		}
	})
}

// Without follow, the rest of a character may come when the caller asks again.
func TestStreamTextOfARunningCommandIsNotFlushed(t *testing.T) {
	for at, want := range map[telexecv1.CommandState]string{
		telexecv1.CommandState_COMMAND_STATE_RUNNING:   "a",
		telexecv1.CommandState_COMMAND_STATE_COMPLETED: "a\uFFFD\uFFFD",
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			p.stream = func(_ int, _ *telexecv1.StreamOutputRequest, s sink) error {
				_ = s.Send(state(p.command(1, at)))
				_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 0, []byte("a\xe2\x82")))
				_ = s.Send(complete())
				return s.Send(ended(p.command(1, at)))
			}
			var text strings.Builder
			for event, err := range p.dial(t, Options{}).StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: testID, Text: true}) {
				if err != nil {
					t.Fatal(err)
				}
				text.WriteString(event.GetChunk().GetText())
			}
			if text.String() != want {
				t.Errorf("%v: text %q, want %q", at, text.String(), want)
			}
		})
	}
}

func TestStreamTellsGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stream = func(n int, req *telexecv1.StreamOutputRequest, s sink) error {
			gap := &telexecv1.OutputGap{Stream: telexecv1.Stream_STREAM_STDOUT, From: 0, To: 100}
			_ = s.Send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Gap{Gap: gap}})
			if n == 1 {
				return dropped
			}
			_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 100, []byte("x")))
			return s.Send(ended(p.command(2, telexecv1.CommandState_COMMAND_STATE_COMPLETED)))
		}
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{StdoutOffset: 7})
		if got.err != nil || len(got.gaps) != 1 || got.gaps[0].GetFrom() != 7 || got.gaps[0].GetTo() != 100 {
			t.Errorf("gaps %v, err %v", got.gaps, got.err)
		}
	})
}

func TestStreamRefusesAHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stream = func(_ int, _ *telexecv1.StreamOutputRequest, s sink) error {
			return s.Send(chunk(telexecv1.Stream_STREAM_STDERR, 5, []byte("x")))
		}
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{})
		if e, ok := asError(got.err); !ok || e.Reason != ReasonProtocol || e.Code != codes.DataLoss {
			t.Errorf("got %v", got.err)
		}
	})
}

// A service that is killed may have stored less than it had sent. The command
// ended with it; its watchers still learn the end.
func TestStreamOfServiceThatForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stdout = []byte("abcdef")
		p.stream = func(n int, req *telexecv1.StreamOutputRequest, s sink) error {
			switch {
			case n == 1:
				_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 0, p.stdout))
				p.stdout = p.stdout[:4]
				return dropped
			case req.GetStdoutOffset() > int64(len(p.stdout)):
				return refusal(codes.OutOfRange, &errdetails.ErrorInfo{Domain: domain, Reason: "OFFSET_BEYOND_END"})
			}
			_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 2, p.stdout[2:])) // and more than was asked for
			_ = s.Send(complete())
			return s.Send(ended(p.command(4, telexecv1.CommandState_COMMAND_STATE_LOST)))
		}
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{})
		if got.err != nil || got.stdout.String() != "abcdef" || got.last.GetState() != telexecv1.CommandState_COMMAND_STATE_LOST {
			t.Errorf("got %q, %v, %v", got.stdout.String(), got.last, got.err)
		}
	})
}

func TestStreamRewindThatCannotHelp(t *testing.T) {
	for name, status := range map[string]error{
		"the service has the bytes": nil,
		"the status is refused":     refusal(codes.NotFound, &errdetails.ErrorInfo{Domain: domain, Reason: "UNKNOWN_COMMAND"}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.before = func(method string, n int, _ proto.Message) error {
					switch {
					case method == "GetStatus":
						return status
					case n == 1:
						return dropped
					}
					return refusal(codes.OutOfRange, &errdetails.ErrorInfo{Domain: domain, Reason: "OFFSET_BEYOND_END"})
				}
				got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{})
				if e, ok := asError(got.err); !ok || e.Reason == ReasonUnreachable {
					t.Errorf("got %v", got.err)
				}
			})
		})
	}
}

func TestStreamRefusedIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.before = func(string, int, proto.Message) error {
			return refusal(codes.NotFound, &errdetails.ErrorInfo{Domain: domain, Reason: "UNKNOWN_COMMAND"})
		}
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{})
		if e, ok := asError(got.err); !ok || e.Reason != "UNKNOWN_COMMAND" || p.count("StreamOutput") != 1 {
			t.Errorf("got %v after %d calls", got.err, p.count("StreamOutput"))
		}
	})
}

func TestStreamEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stream = func(int, *telexecv1.StreamOutputRequest, sink) error { return dropped }
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var last error
		for _, err := range p.dial(t, Options{}).StreamOutput(ctx, &telexecv1.StreamOutputRequest{}) {
			last = err
		}
		if !errors.Is(last, context.DeadlineExceeded) {
			t.Errorf("got %v", last)
		}
	})
}

func TestStreamMayBeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		left := make(chan struct{})
		p.stream = func(_ int, _ *telexecv1.StreamOutputRequest, s sink) error {
			_ = s.Send(state(p.command(1, telexecv1.CommandState_COMMAND_STATE_RUNNING)))
			<-s.Context().Done()
			close(left)
			return nil
		}
		for range p.dial(t, Options{}).StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{}) {
			break
		}
		<-left
	})
}
