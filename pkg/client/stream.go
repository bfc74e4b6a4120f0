package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// defaultHeartbeat is what the service uses where the request asks for none.
const defaultHeartbeat = 15 * time.Second

// StreamOutput streams the output of a command from the offsets of req, or from its
// position in both streams, with state changes, heartbeats and the rest, until the
// event "ended". It resumes by itself: when the connection or the service goes away
// it comes back, with growing pauses, and goes on at the exact byte, so that the
// chunks of a stream always follow each other without gap or repeat, and have
// req.LimitBytes together at most. What retention has removed comes as an OutputGap.
// Silence for three heartbeats counts as a lost connection.
//
// That the service has lost the host of a command, or has it back, is an event
// too: a Command whose Connection is RECONNECTING or CONNECTED. A durable command
// goes on meanwhile, the stream stays open, and the output goes on at the next
// byte; the receiver has nothing to do.
//
// With req.Follow the last event is the command in its final state, behind all
// of its output, or as it is when it has given req.LimitBytes. The sequence ends
// behind that event, or with an error: the service refused, the context ended, or
// nothing came for Options.ResumeFor. Leaving the loop ends the stream and does not
// touch the command. Each event belongs to the receiver; a slow receiver slows
// nobody.
//
// With req.Text the client itself makes the text, so that a character that a
// lost connection has split still comes out whole; what is left of one when the
// command has ended comes in a chunk without data.
//
// The sequence may be ranged over more than once, each time from the start.
func (c *Client) StreamOutput(ctx context.Context, req *telexecv1.StreamOutputRequest) iter.Seq2[*telexecv1.StreamOutputResponse, error] {
	return func(yield func(*telexecv1.StreamOutputResponse, error) bool) {
		r := newReader(req)
		p := pause{limit: c.resumeFor}
		for {
			err := c.streamOnce(ctx, r, &p, yield)
			if err == nil {
				return
			}
			if err.Code == codes.OutOfRange && r.resumed && r.placed {
				err = c.rewind(ctx, r)
			} else if err.temporary() || err.RetryAfter > 0 {
				err = c.retry(ctx, &p, err)
			}
			if err != nil {
				err.set("command_id", req.GetCommandId())
				yield(nil, err)
				return
			}
			r.resumed = true
		}
	}
}

// streamOnce streams over one connection. It gives nil when nothing more is to
// be done: the stream has ended, or the receiver wants no more.
func (c *Client) streamOnce(ctx context.Context, r *reader, p *pause, yield func(*telexecv1.StreamOutputResponse, error) bool) *Error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.commands.StreamOutput(streamCtx, r.request())
	if err != nil {
		return c.decode(ctx, err)
	}
	// Silence is measured only while waiting: a slow receiver is not the
	// service's fault.
	silence := time.AfterFunc(r.silence, cancel)
	defer silence.Stop()
	for first := true; ; first = false {
		silence.Reset(r.silence)
		event, err := stream.Recv()
		silence.Stop()
		if errors.Is(err, io.EOF) {
			return newError(codes.Unavailable, ReasonUnreachable, "the service at %s ended the stream too early", c.server)
		}
		if err != nil {
			return c.decode(ctx, err)
		}
		events, protocolErr := r.accept(event, first)
		if protocolErr != nil {
			return protocolErr
		}
		// What a resumed stream begins with is known already; only more counts.
		if len(events) > 0 {
			p.progress()
		}
		for _, e := range events {
			if !yield(e, nil) {
				return nil
			}
		}
		if event.GetEnded() != nil {
			return nil
		}
	}
}

// rewind helps where the service has less than was read: it was killed before
// the last bytes were stored, and the command ended with it. Nothing more will
// come, but the stream still has to tell the end.
func (c *Client) rewind(ctx context.Context, r *reader) *Error {
	resp, err := c.GetStatus(ctx, &telexecv1.GetStatusRequest{
		CommandId: r.req.GetCommandId(),
		Output:    &telexecv1.OutputOptions{Omit: true},
	})
	if err != nil {
		e, _ := asError(err)
		return e
	}
	cmd := resp.GetCommand()
	if r.stdout.next <= cmd.GetStdoutBytes() && r.stderr.next <= cmd.GetStderrBytes() {
		return newError(codes.OutOfRange, ReasonProtocol, "the service refuses to go on at bytes that it has")
	}
	r.stdout.rewound = min(r.stdout.next, cmd.GetStdoutBytes())
	r.stderr.rewound = min(r.stderr.next, cmd.GetStderrBytes())
	r.rewound = true
	return nil
}

// reader is how far the reading of one command has come.
type reader struct {
	req      *telexecv1.StreamOutputRequest
	stdout   position
	stderr   position
	placed   bool  // both know where they are; not before the first byte where req has a position
	passed   int64 // bytes passed on
	version  int64 // of the last command event
	resumed  bool  // this is not the first connection
	rewound  bool  // ask from position.rewound
	over     bool  // the command has ended, as far as was told
	complete bool  // OutputComplete was passed on
	silence  time.Duration
}

// position is where a reader is in one stream.
type position struct {
	stream  telexecv1.Stream
	next    int64  // the next byte to pass on
	rewound int64  // where to ask from after a rewind
	partial []byte // the beginning of a character whose rest is to come
	behind  int64  // the place in both streams behind the last byte
}

func newReader(req *telexecv1.StreamOutputRequest) *reader {
	heartbeat := defaultHeartbeat
	if req.GetHeartbeat() != nil {
		heartbeat = req.GetHeartbeat().AsDuration()
	}
	return &reader{
		req:     req,
		stdout:  position{stream: telexecv1.Stream_STREAM_STDOUT, next: req.GetStdoutOffset()},
		stderr:  position{stream: telexecv1.Stream_STREAM_STDERR, next: req.GetStderrOffset()},
		placed:  req.Position == nil,
		silence: 3 * heartbeat,
	}
}

// request is what to ask the service for now.
func (r *reader) request() *telexecv1.StreamOutputRequest {
	req := proto.CloneOf(r.req)
	req.Text = false
	if !r.placed {
		return req
	}
	req.Position = nil
	req.StdoutOffset, req.StderrOffset = r.stdout.next, r.stderr.next
	if r.rewound {
		req.StdoutOffset, req.StderrOffset = r.stdout.rewound, r.stderr.rewound
		req.LimitBytes = 0 // what comes again is not part of it; acceptChunk cuts the rest
	} else if left := r.left(); left > 0 {
		req.LimitBytes = left
	} else if left == 0 { // only the end is missing; a byte more is not passed on
		req.LimitBytes, req.Follow = 1, false
	}
	return req
}

// left is how many bytes may still be passed on; below 0 where that has no limit.
func (r *reader) left() int64 {
	if r.req.GetLimitBytes() == 0 {
		return -1
	}
	return r.req.GetLimitBytes() - r.passed
}

// place learns from the first byte, or the first gap, where both streams are at the
// position that was asked for: their offsets there are together the position.
func (r *reader) place(s telexecv1.Stream, offset int64) {
	if r.placed {
		return
	}
	r.placed = true
	r.stdout.next, r.stderr.next = offset, max(0, r.req.GetPosition()-offset)
	if s == telexecv1.Stream_STREAM_STDERR {
		r.stdout.next, r.stderr.next = r.stderr.next, r.stdout.next
	}
}

func (r *reader) at(s telexecv1.Stream) *position {
	if s == telexecv1.Stream_STREAM_STDERR {
		return &r.stderr
	}
	return &r.stdout
}

// accept gives what of an event is to be passed on. first says that it is the
// first one of its connection.
func (r *reader) accept(event *telexecv1.StreamOutputResponse, first bool) ([]*telexecv1.StreamOutputResponse, *Error) {
	switch {
	case event.GetChunk() != nil:
		return r.acceptChunk(event)
	case event.GetGap() != nil:
		gap := event.GetGap()
		r.place(gap.GetStream(), gap.GetFrom())
		at := r.at(gap.GetStream())
		if gap.GetTo() <= at.next {
			return nil, nil
		}
		gap.From = max(gap.GetFrom(), at.next)
		events := append(r.flush(at), event)
		at.next = gap.GetTo()
		return events, nil
	case event.GetCommand() != nil:
		known := first && r.resumed && event.GetCommand().GetVersion() == r.version
		r.version = event.GetCommand().GetVersion()
		r.over = event.GetCommand().GetState() >= telexecv1.CommandState_COMMAND_STATE_COMPLETED
		if known {
			return nil, nil
		}
	case event.GetOutputComplete() != nil:
		if r.complete {
			return nil, nil
		}
		r.complete = true
		if !r.req.GetFollow() && !r.over {
			return []*telexecv1.StreamOutputResponse{event}, nil // the rest of a character may come yet
		}
		return append(append(r.flush(&r.stdout), r.flush(&r.stderr)...), event), nil
	}
	return []*telexecv1.StreamOutputResponse{event}, nil
}

// acceptChunk cuts off what was passed on before, which comes again only after a
// rewind, and what lies behind the limit. It refuses a chunk that would leave a hole.
func (r *reader) acceptChunk(event *telexecv1.StreamOutputResponse) ([]*telexecv1.StreamOutputResponse, *Error) {
	chunk := event.GetChunk()
	r.place(chunk.GetStream(), chunk.GetOffset())
	at := r.at(chunk.GetStream())
	if chunk.GetOffset() > at.next {
		return nil, newError(codes.DataLoss, ReasonProtocol,
			"the service left out bytes %d to %d of the output without saying so", at.next, chunk.GetOffset())
	}
	known := min(at.next-chunk.GetOffset(), int64(len(chunk.GetData())))
	if known > 0 {
		chunk.Data = chunk.GetData()[known:]
		chunk.Offset += known
		chunk.Position += known
	}
	if left := r.left(); left >= 0 && left < int64(len(chunk.GetData())) {
		chunk.Data = chunk.GetData()[:left]
	}
	if len(chunk.GetData()) == 0 {
		return nil, nil
	}
	r.passed += int64(len(chunk.GetData()))
	at.behind = chunk.GetPosition() + int64(len(chunk.GetData()))
	at.next = chunk.GetOffset() + int64(len(chunk.GetData()))
	chunk.Text = ""
	if r.req.GetText() {
		chunk.Text = at.text(chunk.GetData())
	}
	return []*telexecv1.StreamOutputResponse{event}, nil
}

// flush gives the bytes that have waited in vain for the rest of a character.
func (r *reader) flush(at *position) []*telexecv1.StreamOutputResponse {
	if len(at.partial) == 0 {
		return nil
	}
	text := valid(at.partial)
	at.partial = nil
	return []*telexecv1.StreamOutputResponse{{
		Event: &telexecv1.StreamOutputResponse_Chunk{Chunk: &telexecv1.OutputChunk{
			Stream: at.stream, Offset: at.next, Text: text, Position: at.behind,
		}},
	}}
}

// text gives data as UTF-8 and keeps back the beginning of a character at its end.
func (at *position) text(data []byte) string {
	b := append(at.partial, data...)
	whole := len(b)
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax+1; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				whole = i
			}
			break
		}
	}
	at.partial = append([]byte(nil), b[whole:]...)
	return valid(b[:whole])
}

// valid gives b with U+FFFD for every byte that is not UTF-8.
func valid(b []byte) string { return string([]rune(string(b))) }
