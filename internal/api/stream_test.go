package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// sink keeps what a stream sends.
type sink struct {
	grpc.ServerStream
	ctx  context.Context
	sent []*telexecv1.StreamOutputResponse
	fail error
}

func (s *sink) Context() context.Context { return s.ctx }
func (s *sink) Send(m *telexecv1.StreamOutputResponse) error {
	s.sent = append(s.sent, m)
	return s.fail
}

// told gives the messages in short.
func (s *sink) told() (lines []string) {
	for _, m := range s.sent {
		if m.GetTime() == nil {
			lines = append(lines, "WITHOUT TIME")
		}
		switch ev := m.GetEvent().(type) {
		case *telexecv1.StreamOutputResponse_Command:
			lines = append(lines, fmt.Sprintf("command v%d", ev.Command.GetVersion()))
		case *telexecv1.StreamOutputResponse_Chunk:
			lines = append(lines, fmt.Sprintf("%s@%d %q %q", ev.Chunk.GetStream(), ev.Chunk.GetOffset(), ev.Chunk.GetData(), ev.Chunk.GetText()))
			if ev.Chunk.Position > 0 {
				lines[len(lines)-1] += fmt.Sprint(" at ", ev.Chunk.GetPosition())
			}
		case *telexecv1.StreamOutputResponse_Gap:
			lines = append(lines, fmt.Sprintf("gap %s %d-%d", ev.Gap.GetStream(), ev.Gap.GetFrom(), ev.Gap.GetTo()))
		case *telexecv1.StreamOutputResponse_OutputComplete:
			lines = append(lines, fmt.Sprintf("complete %d %d", ev.OutputComplete.GetStdoutBytes(), ev.OutputComplete.GetStderrBytes()))
		case *telexecv1.StreamOutputResponse_Heartbeat:
			lines = append(lines, fmt.Sprintf("heartbeat %d %d", ev.Heartbeat.GetStdoutOffset(), ev.Heartbeat.GetStderrOffset()))
		case *telexecv1.StreamOutputResponse_Ended:
			lines = append(lines, "ended "+ev.Ended.GetState().String())
		}
	}
	return lines
}

func chunkEvent(s command.Stream, offset int64, data string) Event {
	return Event{Kind: EventChunk, Chunk: command.Chunk{Stream: s, Offset: offset, Data: []byte(data)}}
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := running()
		end(&ended)
		p, svc := newPlant(running())
		p.events = []any{
			Event{Kind: EventCommand, Snapshot: new(running())},
			chunkEvent(command.Stdout, 2, "5 \xe2\x82"),
			chunkEvent(command.Stderr, 0, "oops"),
			40 * time.Second, // heartbeats at 15 and 30
			chunkEvent(command.Stdout, 6, "\xac!\xe2"),
			Event{Kind: EventGap, Gap: Gap{Stream: command.Stdout, From: 9, To: 20}},
			Event{Kind: EventCommand, Snapshot: new(ended)},
			chunkEvent(command.Stdout, 20, "x\xf0\x9f"),
			Event{Kind: EventComplete, Snapshot: new(ended)},
			Event{Kind: EventEnded, Snapshot: new(ended)},
		}
		out := &sink{ctx: asAnn(t)}
		err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID, StdoutOffset: 2, Follow: true, Text: true,
			Streams: []telexecv1.Stream{telexecv1.Stream_STREAM_STDERR, telexecv1.Stream_STREAM_STDOUT}}, out)
		want := []string{
			"command v3",
			`STREAM_STDOUT@2 "5 \xe2\x82" "5 "`,
			`STREAM_STDERR@0 "oops" "oops"`,
			"heartbeat 6 4", "heartbeat 6 4",
			`STREAM_STDOUT@6 "\xac!\xe2" "€!"`,
			`STREAM_STDOUT@9 "" "` + "\uFFFD" + `" at 3`,
			"gap STREAM_STDOUT 9-20",
			"command v4",
			`STREAM_STDOUT@20 "x\xf0\x9f" "x"`,
			`STREAM_STDOUT@23 "" "` + "\uFFFD\uFFFD" + `" at 3`,
			"complete 23 4",
			"ended COMMAND_STATE_COMPLETED",
		}
		if got := out.told(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v\n%s", err, strings.Join(got, "\n"))
		}
		if p.watching != (WatchOptions{From: command.Sizes{2, 0}, Follow: true, Streams: [2]bool{true, true}}) || !slices.Equal(p.log, []string{"closed"}) {
			t.Errorf("%+v %v", p.watching, p.log)
		}
	})
}

func TestStreamWithoutFollowOrText(t *testing.T) {
	p, svc := newPlant(running())
	p.events = []any{
		Event{Kind: EventCommand, Snapshot: new(running())},
		chunkEvent(command.Stdout, 0, "\xe2"),
		Event{Kind: EventComplete, Snapshot: new(running())},
		Event{Kind: EventEnded, Snapshot: new(running())},
	}
	events := slices.Clone(p.events)
	for _, text := range []bool{false, true} {
		p.events = slices.Clone(events)
		out := &sink{ctx: asAnn(t)}
		err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID, Text: text}, out)
		// The command goes on, so the split character is not given up.
		want := []string{"command v3", `STREAM_STDOUT@0 "\xe2" ""`, "complete 1 0", "ended COMMAND_STATE_RUNNING"}
		if got := out.told(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v\n%s", err, strings.Join(got, "\n"))
		}
	}
}

// A page by position: what it asks for, and the position of every chunk, also of one
// that has only what is left of a character.
func TestStreamByPosition(t *testing.T) {
	ended := running()
	end(&ended)
	ended.Watchers = 7
	p, svc := newPlant(running())
	chunk := func(s command.Stream, offset, position int64, data string) Event {
		ev := chunkEvent(s, offset, data)
		ev.Position = position
		return ev
	}
	p.events = []any{
		Event{Kind: EventCommand, Snapshot: new(ended)},
		chunk(command.Stdout, 5, 11, "ab\xe2"),
		chunk(command.Stderr, 6, 14, "c"),
		Event{Kind: EventComplete, Snapshot: new(ended)},
		Event{Kind: EventEnded, Snapshot: new(ended)},
	}
	out := &sink{ctx: asAnn(t)}
	at := int64(11)
	err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID, Position: &at, LimitBytes: 4, Text: true}, out)
	want := []string{
		"command v4",
		`STREAM_STDOUT@5 "ab\xe2" "ab" at 11`,
		`STREAM_STDERR@6 "c" "c" at 14`,
		`STREAM_STDOUT@8 "" "` + "\uFFFD" + `" at 14`,
		"complete 8 7",
		"ended COMMAND_STATE_COMPLETED",
	}
	if got := out.told(); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n%s", err, strings.Join(got, "\n"))
	}
	if p.watching != (WatchOptions{Position: &at, Limit: 4}) {
		t.Errorf("%+v", p.watching)
	}
	if got := out.sent[0].GetCommand().GetWatchers(); got != 7 {
		t.Errorf("%d watchers", got)
	}
}

func TestStreamFails(t *testing.T) {
	p, svc := newPlant(running())
	if err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: "other"}, &sink{ctx: asAnn(t)}); fault.ReasonOf(err) != fault.ReasonUnknownCommand {
		t.Error(err)
	}
	broken := errors.New("store")
	p.events = []any{broken}
	if err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID}, &sink{ctx: asAnn(t)}); err != broken {
		t.Error(err)
	}
	gone := errors.New("gone")
	for _, ev := range []any{
		Event{Kind: EventCommand, Snapshot: &Snapshot{}}, Event{Kind: EventEnded, Snapshot: &Snapshot{}},
	} {
		p.events = []any{ev}
		if err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID}, &sink{ctx: asAnn(t), fail: gone}); err != gone {
			t.Error(err)
		}
	}
	for _, ev := range []Event{{Kind: EventGap}, {Kind: EventComplete, Snapshot: &Snapshot{Command: command.Command{State: command.Lost}}}} {
		out := &teller{out: &sink{ctx: asAnn(t), fail: gone}, text: true}
		out.decoder[command.Stdout].Next([]byte("\xe2"))
		if err := out.tell(ev, command.Sizes{}); err != gone {
			t.Error(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(asAnn(t))
		time.AfterFunc(3500*time.Millisecond, cancel)
		p, svc := newPlant(running())
		p.events = []any{time.Hour}
		out := &sink{ctx: ctx}
		if err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID, Heartbeat: durationpb.New(time.Second)}, out); !errors.Is(err, context.Canceled) || len(out.sent) != 3 {
			t.Errorf("%v after %v", err, out.told())
		}
	})
}
