package api

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/output"
)

// defaultHeartbeat is how long a stream may be silent where the caller does not
// say.
const defaultHeartbeat = 15 * time.Second

// maxPart is how many bytes of output a message has, at most. Of a stream that nobody
// reads gRPC holds two messages, each in a buffer of 32 KiB or, were it larger, of 1 MiB.
const maxPart = 31 << 10

// StreamOutput is of CommandService.
func (c *Commands) StreamOutput(r *telexecv1.StreamOutputRequest, out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
	ctx := out.Context()
	watcher, err := c.watch(ctx, r)
	if err != nil {
		return err
	}
	defer watcher.Close()
	heartbeat := heartbeatOf(r.GetHeartbeat())
	t := teller{out: out, text: r.GetText()}
	for {
		ev, err := nextWithin(ctx, watcher.Next, heartbeat)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errSilence):
			at := watcher.Offsets()
			err = t.send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Heartbeat{Heartbeat: &telexecv1.Heartbeat{
				StdoutOffset: at[command.Stdout], StderrOffset: at[command.Stderr],
			}}})
		case err == nil:
			err = t.tell(ev, watcher.Offsets())
		}
		if err != nil {
			return err
		}
	}
}

func (c *Commands) watch(ctx context.Context, r *telexecv1.StreamOutputRequest) (Watcher, error) {
	o := WatchOptions{
		From: command.Sizes{r.GetStdoutOffset(), r.GetStderrOffset()}, Position: r.Position,
		Follow: r.GetFollow(), Limit: r.GetLimitBytes(),
	}
	for _, s := range r.GetStreams() {
		o.Streams[streamFromProto(s)] = true
	}
	return c.output.Watch(ctx, caller(ctx), r.GetCommandId(), o)
}

// heartbeatOf gives how long a stream may be silent where the caller has asked so.
func heartbeatOf(asked *durationpb.Duration) time.Duration {
	if asked == nil {
		return defaultHeartbeat
	}
	return asked.AsDuration()
}

// errSilence says that nothing happened for as long as a heartbeat.
var errSilence = errors.New("api: nothing happened")

// nextWithin is the Next of a watcher with an end to the waiting.
func nextWithin[E any](ctx context.Context, next func(context.Context) (E, error), silence time.Duration) (E, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, silence, errSilence)
	defer cancel()
	ev, err := next(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		// Whatever the wait was in (the log, the store): it was ended by the clock.
		err = errSilence
	}
	return ev, err
}

// teller puts events on the wire.
type teller struct {
	out     grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]
	text    bool                              // give UTF-8 too
	decoder [len(command.Streams)]output.Text // holds back split characters
	behind  [len(command.Streams)]int64       // position behind the last byte
}

func (t *teller) send(m *telexecv1.StreamOutputResponse) error {
	m.Time = timestamppb.Now()
	return t.out.Send(m)
}

func (t *teller) tell(ev Event, at command.Sizes) error {
	m := &telexecv1.StreamOutputResponse{}
	switch ev.Kind {
	case EventCommand:
		m.Event = &telexecv1.StreamOutputResponse_Command{Command: commandToProto(*ev.Snapshot, time.Now())}
	case EventChunk:
		return t.tellChunk(ev)
	case EventGap:
		if err := t.release(ev.Gap.Stream, ev.Gap.From); err != nil {
			return err
		}
		m.Event = &telexecv1.StreamOutputResponse_Gap{Gap: &telexecv1.OutputGap{
			Stream: streamToProto(ev.Gap.Stream), From: ev.Gap.From, To: ev.Gap.To,
		}}
	case EventComplete:
		if ev.Snapshot.Ended() {
			for _, s := range command.Streams {
				if err := t.release(s, at[s]); err != nil {
					return err
				}
			}
		}
		m.Event = &telexecv1.StreamOutputResponse_OutputComplete{OutputComplete: &telexecv1.OutputComplete{
			StdoutBytes: at[command.Stdout], StderrBytes: at[command.Stderr],
		}}
	case EventEnded:
		m.Event = &telexecv1.StreamOutputResponse_Ended{Ended: commandToProto(*ev.Snapshot, time.Now())}
	}
	return t.send(m)
}

// tellChunk tells a run of output, in messages of at most maxPart bytes.
func (t *teller) tellChunk(ev Event) error {
	offset, position := ev.Chunk.Offset, ev.Position
	for part := range slices.Chunk(ev.Chunk.Data, maxPart) {
		chunk := &telexecv1.OutputChunk{Stream: streamToProto(ev.Chunk.Stream), Offset: offset, Data: part, Position: position}
		offset, position = offset+int64(len(part)), position+int64(len(part))
		t.behind[ev.Chunk.Stream] = position
		if t.text {
			chunk.Text = t.decoder[ev.Chunk.Stream].Next(part)
		}
		if err := t.send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
	}
	return nil
}

// release tells the beginning of a character that will never be completed: the
// stream, or the run before a gap, ends in it. It is a chunk without bytes.
func (t *teller) release(s command.Stream, at int64) error {
	text := t.decoder[s].End()
	if text == "" {
		return nil
	}
	return t.send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Chunk{
		Chunk: &telexecv1.OutputChunk{Stream: streamToProto(s), Offset: at, Text: text, Position: t.behind[s]},
	}})
}
