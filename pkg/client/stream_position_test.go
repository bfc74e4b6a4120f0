package client

import (
	"testing"
	"testing/synctest"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// A stream that began at a position resumes at the offsets that the first byte has
// shown, and gives as many bytes as were asked for, whenever it is cut.
func TestStreamFromAPosition(t *testing.T) {
	// Both streams take turns of one byte: position p is byte p/2 of stdout where p is
	// even, else of stderr.
	const size, from, limit = 40, 11, 20
	for cut := range limit + 2 {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			p.stream = func(n int, req *telexecv1.StreamOutputRequest, s sink) error {
				if n == 1 && cut == 0 {
					return dropped // before the first byte
				}
				_ = s.Send(state(p.command(1, telexecv1.CommandState_COMMAND_STATE_RUNNING)))
				at := int(req.GetPosition())
				if req.Position == nil {
					at = int(req.GetStdoutOffset() + req.GetStderrOffset())
				}
				for sent := 0; at < size && sent < int(req.GetLimitBytes()); sent++ {
					if n == 1 && sent == cut {
						return dropped
					}
					c := chunk([]telexecv1.Stream{telexecv1.Stream_STREAM_STDOUT, telexecv1.Stream_STREAM_STDERR}[at%2], at/2, []byte{byte(at)})
					c.GetChunk().Position = int64(at)
					_ = s.Send(c)
					at++
				}
				if n == 1 && cut >= limit {
					return dropped // between the last byte and the end
				}
				_ = s.Send(complete())
				return s.Send(ended(p.command(1, telexecv1.CommandState_COMMAND_STATE_RUNNING)))
			}
			at := int64(from)
			next := at
			for event, err := range p.dial(t, Options{}).StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: testID, Position: &at, LimitBytes: limit, Follow: true}) {
				if err != nil {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				if c := event.GetChunk(); c != nil {
					if c.GetPosition() != next || c.GetData()[0] != byte(next) {
						t.Fatalf("cut at %d: byte %d at position %d, want %d", cut, c.GetData()[0], c.GetPosition(), next)
					}
					next++
				}
			}
			if next != from+limit {
				t.Errorf("cut at %d: told up to %d", cut, next)
			}
		})
	}
}

// A limit holds as well where the service has less of one stream than was passed on,
// and so gives all that it has of both.
func TestStreamLimitOfServiceThatForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.stdout = []byte("abcdef")
		p.stderr = []byte("0123456789")
		p.stream = func(n int, req *telexecv1.StreamOutputRequest, s sink) error {
			switch {
			case n == 1:
				_ = s.Send(chunk(telexecv1.Stream_STREAM_STDOUT, 0, p.stdout))
				p.stdout = p.stdout[:4]
				return dropped
			case req.GetStdoutOffset() > int64(len(p.stdout)):
				return refusal(codes.OutOfRange, &errdetails.ErrorInfo{Domain: domain, Reason: "OFFSET_BEYOND_END"})
			}
			_ = s.Send(chunk(telexecv1.Stream_STREAM_STDERR, int(req.GetStderrOffset()), p.stderr[req.GetStderrOffset():]))
			_ = s.Send(complete())
			return s.Send(ended(p.command(4, telexecv1.CommandState_COMMAND_STATE_LOST)))
		}
		got := follow(t, p.dial(t, Options{}), &telexecv1.StreamOutputRequest{LimitBytes: 8})
		if got.err != nil || got.stdout.String()+got.stderr.String() != "abcdef01" {
			t.Errorf("got %q and %q, %v", got.stdout.String(), got.stderr.String(), got.err)
		}
	})
}
