package api

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/output"
)

// defaultHeartbeat is how long a stream may be silent where the caller does not
// say.
const defaultHeartbeat = 15 * time.Second

// StreamOutput is of CommandService.
func (c *Commands) StreamOutput(r *telexecv1.StreamOutputRequest, out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
	o := WatchOptions{From: command.Sizes{r.GetStdoutOffset(), r.GetStderrOffset()}, Follow: r.GetFollow()}
	for _, s := range r.GetStreams() {
		o.Streams[streamFromProto(s)] = true
	}
	ctx := out.Context()
	watcher, err := c.output.Watch(ctx, caller(ctx), r.GetCommandId(), o)
	if err != nil {
		return err
	}
	defer watcher.Close()
	heartbeat := defaultHeartbeat
	if r.GetHeartbeat() != nil {
		heartbeat = r.GetHeartbeat().AsDuration()
	}
	t := teller{out: out, text: r.GetText()}
	for {
		ev, err := nextWithin(ctx, watcher, heartbeat)
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

// errSilence says that nothing happened for as long as a heartbeat.
var errSilence = errors.New("api: nothing happened")

// nextWithin is Next with an end to the waiting.
func nextWithin(ctx context.Context, w Watcher, silence time.Duration) (Event, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, silence, errSilence)
	defer cancel()
	ev, err := w.Next(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		// Whatever the wait was in (the log, the store): it was ended by the clock.
		return Event{}, errSilence
	}
	return ev, err
}

// teller puts events on the wire.
type teller struct {
	out     grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]
	text    bool                              // give UTF-8 too
	decoder [len(command.Streams)]output.Text // holds back split characters
}

func (t *teller) send(m *telexecv1.StreamOutputResponse) error {
	m.Time = timestamppb.Now()
	return t.out.Send(m)
}

func (t *teller) tell(ev Event, at command.Sizes) error {
	m := &telexecv1.StreamOutputResponse{}
	switch ev.Kind {
	case EventCommand:
		m.Event = &telexecv1.StreamOutputResponse_Command{Command: commandToProto(ev.Snapshot, time.Now())}
	case EventChunk:
		chunk := &telexecv1.OutputChunk{Stream: streamToProto(ev.Chunk.Stream), Offset: ev.Chunk.Offset, Data: ev.Chunk.Data}
		if t.text {
			chunk.Text = t.decoder[ev.Chunk.Stream].Next(ev.Chunk.Data)
		}
		m.Event = &telexecv1.StreamOutputResponse_Chunk{Chunk: chunk}
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
		m.Event = &telexecv1.StreamOutputResponse_Ended{Ended: commandToProto(ev.Snapshot, time.Now())}
	}
	return t.send(m)
}

// release tells the beginning of a character that will never be completed: the
// stream, or the run before a gap, ends in it. It is a chunk without bytes.
func (t *teller) release(s command.Stream, at int64) error {
	text := t.decoder[s].End()
	if text == "" {
		return nil
	}
	return t.send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Chunk{
		Chunk: &telexecv1.OutputChunk{Stream: streamToProto(s), Offset: at, Text: text},
	}})
}
