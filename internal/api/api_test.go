package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// plant is an engine whose commands the test makes and changes itself. It is
// for one goroutine, or for a synctest bubble in which changes are timed.
type plant struct {
	commands []Snapshot                // newest first
	output   map[command.Stream][]byte // of every command
	piece    int                       // most bytes of one ReadOutput; 0: all
	fail     error                     // of whatever is called next
	change   func(s *Snapshot)         // what happens to a command …
	after    time.Duration             // … after this long
	events   []any                     // of a Watch: Event, or time.Duration of silence
	log      []string                  // what was asked
	watching WatchOptions              // of the last Watch
	filter   command.Filter            // of the last List
	spec     command.Spec              // of the last Execute
}

func (p *plant) note(format string, args ...any) { p.log = append(p.log, fmt.Sprintf(format, args...)) }

func (p *plant) Execute(_ context.Context, by command.Actor, spec command.Spec) (Snapshot, bool, error) {
	p.spec = spec
	p.note("execute %s by %s via %s", spec.CommandLine(), by.Principal, by.Origin)
	if p.fail != nil {
		return Snapshot{}, false, p.fail
	}
	return p.commands[0], spec.RequestID == "again", nil
}

func (p *plant) Await(ctx context.Context, id string, enough func(Snapshot) bool) (Snapshot, error) {
	s, err := p.Get(ctx, id)
	if err != nil || s.Ended() || enough(s) {
		return s, err
	}
	var changed <-chan time.Time
	if p.change != nil {
		changed = time.After(p.after)
	}
	select {
	case <-ctx.Done():
	case <-changed:
		p.change(&p.commands[0])
		if s = p.commands[0]; !s.Ended() && !enough(s) {
			<-ctx.Done()
		}
	}
	return p.commands[0], nil
}

func (p *plant) Get(_ context.Context, id string) (Snapshot, error) {
	for _, s := range p.commands {
		if s.ID == id {
			return s, nil
		}
	}
	return Snapshot{}, fault.New(fault.NotFound, fault.ReasonUnknownCommand, "no command %s", id)
}

func (p *plant) List(_ context.Context, f command.Filter) ([]Snapshot, error) {
	p.filter = f
	var list []Snapshot
	for _, s := range p.commands {
		if (f.Before == "" || s.ID < f.Before) && len(list) < f.Limit {
			list = append(list, s)
		}
	}
	return list, p.fail
}

func (p *plant) Cancel(_ context.Context, by command.Actor, id string, grace time.Duration, reason string) (Snapshot, command.CancelReport, error) {
	p.note("cancel %s by %s after %s: %s", id, by.Principal, grace, reason)
	return p.commands[0], command.CancelReport{Outcome: command.Gone, Ended: 2}, p.fail
}

func (p *plant) Signal(_ context.Context, _ command.Actor, id, signal string) (Snapshot, error) {
	p.note("signal %s %s", id, signal)
	return p.commands[0], p.fail
}

func (p *plant) Input(_ context.Context, _ command.Actor, id string, data []byte, eof bool) (int64, error) {
	p.note("input %s %q %v", id, data, eof)
	return int64(len(data)) + 10, p.fail
}

func (p *plant) ReadOutput(_ context.Context, _ string, s command.Stream, offset int64, limit int) ([]byte, error) {
	if p.fail != nil {
		return nil, p.fail
	}
	data := p.output[s]
	if offset >= int64(len(data)) {
		return nil, nil
	}
	data = data[offset:]
	if p.piece > 0 {
		limit = min(limit, p.piece)
	}
	return data[:min(limit, len(data))], nil
}

func (p *plant) Watch(_ context.Context, id string, o WatchOptions) (Watcher, error) {
	p.watching = o
	if _, err := p.Get(context.Background(), id); err != nil {
		return nil, err
	}
	return &script{plant: p, at: o.From}, nil
}

// script is a Watcher of the plant's events.
type script struct {
	plant *plant
	at    command.Sizes
}

func (s *script) Next(ctx context.Context) (Event, error) {
	for {
		if len(s.plant.events) == 0 {
			return Event{}, io.EOF
		}
		switch ev := s.plant.events[0].(type) {
		case time.Duration:
			start := time.Now()
			select {
			case <-time.After(ev):
				s.plant.events = s.plant.events[1:]
			case <-ctx.Done():
				s.plant.events[0] = ev - time.Since(start)
				return Event{}, fmt.Errorf("waiting: %w", ctx.Err())
			}
		case error:
			return Event{}, ev
		case Event:
			s.plant.events = s.plant.events[1:]
			switch ev.Kind {
			case EventChunk:
				s.at[ev.Chunk.Stream] = ev.Chunk.End()
			case EventGap:
				s.at[ev.Gap.Stream] = ev.Gap.To
			}
			return ev, nil
		}
	}
}

func (s *script) Offsets() command.Sizes { return s.at }
func (s *script) Close()                 { s.plant.note("closed") }

func (p *plant) Load(host string) (running, queued int) { return len(host), 2 }
func (p *plant) Stats() Stats                           { return Stats{Running: 1, Queued: 2, Watchers: 3, Draining: true} }

const anID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

func running() Snapshot {
	return Snapshot{Command: command.Command{ID: anID, Version: 3, State: command.Running, Spec: command.Spec{Host: "h", Line: "true"}, StartTime: time.Now()}}
}

func end(s *Snapshot) {
	zero := 0
	s.State, s.Exit.Code, s.EndTime = command.Completed, &zero, time.Now()
	s.Version++
}

func caller(t *testing.T) context.Context {
	return access.WithPrincipal(t.Context(), access.Principal{Name: "ann"})
}

func newPlant(snapshots ...Snapshot) (*plant, *Commands) {
	p := &plant{commands: snapshots, output: map[command.Stream][]byte{}}
	return p, NewCommands(p, p, 30*time.Second)
}

func TestExecuteWaits(t *testing.T) {
	for name, c := range map[string]struct {
		wait     *durationpb.Duration
		deadline time.Duration // of the call; 0: none
		ends     time.Duration // when the command does
		state    telexecv1.CommandState
		took     time.Duration
	}{
		"at once":                  {durationpb.New(0), 0, time.Hour, telexecv1.CommandState_COMMAND_STATE_RUNNING, 0},
		"till the end":             {durationpb.New(time.Minute), 0, 5 * time.Second, telexecv1.CommandState_COMMAND_STATE_COMPLETED, 5 * time.Second},
		"as long as asked":         {durationpb.New(time.Minute), 0, time.Hour, telexecv1.CommandState_COMMAND_STATE_RUNNING, time.Minute},
		"as long as usual":         {nil, 0, time.Hour, telexecv1.CommandState_COMMAND_STATE_RUNNING, 30 * time.Second},
		"not beyond the deadline":  {nil, 20 * time.Second, time.Hour, telexecv1.CommandState_COMMAND_STATE_RUNNING, 19 * time.Second},
		"nor a short one":          {nil, time.Second, time.Hour, telexecv1.CommandState_COMMAND_STATE_RUNNING, 750 * time.Millisecond},
		"nor one that is too soon": {nil, 100 * time.Millisecond, time.Hour, telexecv1.CommandState_COMMAND_STATE_RUNNING, 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, svc := newPlant(running())
				p.change, p.after = end, c.ends
				p.output[command.Stdout] = []byte("hello")
				p.commands[0].Size[command.Stdout] = 5
				ctx := caller(t)
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				start := time.Now()
				r, err := svc.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "true", Wait: c.wait})
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); r.GetCommand().GetState() != c.state || took != c.took || string(r.GetStdout().GetData()) != "hello" {
					t.Errorf("after %s: %v", took, r)
				}
			})
		})
	}
}

func TestExecuteTellsWhoAndWhetherItWasThere(t *testing.T) {
	p, svc := newPlant(running())
	end(&p.commands[0])
	ctx := metadata.NewIncomingContext(caller(t), metadata.Pairs("telexec-origin", "cli"))
	r, err := svc.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "uptime", RequestId: "again", Output: &telexecv1.OutputOptions{Omit: true}})
	if err != nil || !r.GetReplayed() || r.GetStdout() != nil || r.GetStderr() != nil {
		t.Errorf("%v, %v", r, err)
	}
	if !slices.Equal(p.log, []string{"execute uptime by ann via cli"}) {
		t.Error(p.log)
	}
	if _, err := svc.Execute(ctx, &telexecv1.ExecuteRequest{Session: "s", Command: "true"}); fault.KindOf(err) != fault.Unsupported {
		t.Errorf("session: %v", err)
	}
	p.fail = fault.New(fault.Exhausted, fault.ReasonQueueFull, "full")
	if _, err := svc.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "true"}); err != p.fail {
		t.Errorf("refused: %v", err)
	}
}

// failing fails once the command was accepted.
type failing struct {
	*plant
	err error
}

func (f failing) Await(context.Context, string, func(Snapshot) bool) (Snapshot, error) {
	return Snapshot{}, f.err
}

func (f failing) ReadOutput(context.Context, string, command.Stream, int64, int) ([]byte, error) {
	return nil, f.err
}

func TestAFailureAfterAcceptanceNamesTheCommand(t *testing.T) {
	p, _ := newPlant(running())
	cause := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "closed").With("node", "n")
	f := failing{p, cause}
	svc := NewCommands(f, f, time.Minute)
	_, err := svc.Execute(caller(t), &telexecv1.ExecuteRequest{Host: "h", Command: "true"})
	if e := fault.From(err); e.Reason != fault.ReasonStoreUnavailable || e.Metadata["command_id"] != anID || e.Metadata["node"] != "n" {
		t.Errorf("await: %v %v", e, e.Metadata)
	}
	p.commands[0].Size[command.Stderr] = 4
	_, err = svc.Execute(caller(t), &telexecv1.ExecuteRequest{Host: "h", Command: "true", Wait: durationpb.New(0)})
	if e := fault.From(err); e.Metadata["command_id"] != anID {
		t.Errorf("output: %v %v", e, e.Metadata)
	}
	if cause.Metadata["command_id"] != "" {
		t.Error("the error of somebody else was changed")
	}
	if _, err := svc.GetStatus(caller(t), &telexecv1.GetStatusRequest{CommandId: anID}); fault.ReasonOf(err) != fault.ReasonStoreUnavailable {
		t.Errorf("status: %v", err)
	}
	if _, err := svc.GetStatus(caller(t), &telexecv1.GetStatusRequest{CommandId: anID, Wait: durationpb.New(time.Second)}); err != cause {
		t.Errorf("status with wait: %v", err)
	}
}

func TestWhoGoesAwayGetsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, svc := newPlant(running())
		ctx, cancel := context.WithCancel(caller(t))
		time.AfterFunc(time.Second, cancel)
		if _, err := svc.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "true"}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestOrigins(t *testing.T) {
	tcp, memory := &net.TCPAddr{}, &net.IPNet{}
	for _, c := range []struct {
		said string
		from net.Addr
		want command.Origin
	}{
		{"", tcp, command.OriginGRPC},
		{"cli", tcp, command.OriginCLI}, {"mcp", tcp, command.OriginMCP}, {"web", tcp, command.OriginWeb},
		{"rest", tcp, command.OriginGRPC}, {"websocket", &net.UnixAddr{Net: "unix"}, command.OriginGRPC}, {"bogus", memory, command.OriginGRPC},
		{"rest", memory, command.OriginREST}, {"websocket", memory, command.OriginWebSocket}, {"rest", nil, command.OriginGRPC},
	} {
		ctx := caller(t)
		if c.from != nil {
			ctx = peer.NewContext(ctx, &peer.Peer{Addr: c.from})
		}
		if c.said != "" {
			ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("telexec-origin", c.said))
		}
		if got := actor(ctx); got != (command.Actor{Principal: "ann", Origin: c.want}) {
			t.Errorf("%q over %T: %v", c.said, c.from, got)
		}
	}
}

func TestStatusIsALongPoll(t *testing.T) {
	i64 := func(n int64) *int64 { return &n }
	grow := func(s *Snapshot) { s.Size[command.Stderr] = 10 }
	for name, c := range map[string]struct {
		req    *telexecv1.GetStatusRequest
		change func(*Snapshot)
		took   time.Duration // the change comes after 5 s, the wait is 60 s
	}{
		"no wait":                    {&telexecv1.GetStatusRequest{}, nil, 0},
		"the end":                    {&telexecv1.GetStatusRequest{Wait: durationpb.New(time.Minute)}, end, 5 * time.Second},
		"output is not the end":      {&telexecv1.GetStatusRequest{Wait: durationpb.New(time.Minute)}, grow, time.Minute},
		"an old version":             {&telexecv1.GetStatusRequest{Wait: durationpb.New(time.Minute), IfVersionGreaterThan: i64(2)}, nil, 0},
		"this version":               {&telexecv1.GetStatusRequest{Wait: durationpb.New(time.Minute), IfVersionGreaterThan: i64(3)}, func(s *Snapshot) { s.Version++ }, 5 * time.Second},
		"a version that never comes": {&telexecv1.GetStatusRequest{Wait: durationpb.New(time.Minute), IfVersionGreaterThan: i64(9)}, grow, time.Minute},
		"bytes that are there":       {&telexecv1.GetStatusRequest{Wait: durationpb.New(time.Minute), Output: &telexecv1.OutputOptions{StdoutOffset: i64(4)}}, nil, 0},
		"bytes that come":            {&telexecv1.GetStatusRequest{Wait: durationpb.New(time.Minute), Output: &telexecv1.OutputOptions{StdoutOffset: i64(5), StderrOffset: i64(0)}}, grow, 5 * time.Second},
		"bytes that are left out":    {&telexecv1.GetStatusRequest{Wait: durationpb.New(time.Minute), Output: &telexecv1.OutputOptions{Omit: true, StdoutOffset: i64(0)}}, nil, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, svc := newPlant(running())
				p.change, p.after = c.change, 5*time.Second
				p.output[command.Stdout], p.commands[0].Size[command.Stdout] = []byte("hello"), 5
				p.output[command.Stderr] = []byte("0123456789")
				c.req.CommandId = anID
				start := time.Now()
				r, err := svc.GetStatus(caller(t), c.req)
				if took := time.Since(start); err != nil || took != c.took || r.GetCommand().GetId() != anID {
					t.Errorf("after %s: %v, %v", took, r, err)
				}
			})
		})
	}
	_, svc := newPlant()
	if _, err := svc.GetStatus(caller(t), &telexecv1.GetStatusRequest{CommandId: anID}); fault.ReasonOf(err) != fault.ReasonUnknownCommand {
		t.Error(err)
	}
}

func TestContent(t *testing.T) {
	i64 := func(n int64) *int64 { return &n }
	const euros = "€€€€" // 12 bytes
	for name, c := range map[string]struct {
		data     string
		earliest int64
		ended    bool
		o        *telexecv1.OutputOptions
		want     *telexecv1.StreamContent
		reason   string
	}{
		"nothing":        {"", 0, false, nil, &telexecv1.StreamContent{}, ""},
		"nothing, ended": {"", 0, true, nil, &telexecv1.StreamContent{Complete: true}, ""},
		"whole":          {"hello", 0, true, nil, &telexecv1.StreamContent{Size: 5, Data: []byte("hello"), NextOffset: 5, Complete: true}, ""},
		"whole, running": {"hello", 0, false, nil, &telexecv1.StreamContent{Size: 5, Data: []byte("hello"), NextOffset: 5}, ""},
		"head and tail": {"0123456789", 0, true, &telexecv1.OutputOptions{LimitBytes: 5},
			&telexecv1.StreamContent{Size: 10, Data: []byte("012"), OmittedBytes: 5, TailOffset: 8, Tail: []byte("89"), NextOffset: 10, Complete: true}, ""},
		"just fits": {"01234", 0, true, &telexecv1.OutputOptions{LimitBytes: 5},
			&telexecv1.StreamContent{Size: 5, Data: []byte("01234"), NextOffset: 5, Complete: true}, ""},
		"trimmed": {"0123456789", 4, true, nil,
			&telexecv1.StreamContent{Size: 10, EarliestOffset: 4, Offset: 4, Data: []byte("456789"), NextOffset: 10, Complete: true}, ""},
		"from": {"0123456789", 0, true, &telexecv1.OutputOptions{LimitBytes: 3, StdoutOffset: i64(2)},
			&telexecv1.StreamContent{Size: 10, Offset: 2, Data: []byte("234"), NextOffset: 5}, ""},
		"from the end": {"0123", 0, true, &telexecv1.OutputOptions{StdoutOffset: i64(4)},
			&telexecv1.StreamContent{Size: 4, Offset: 4, NextOffset: 4, Complete: true}, ""},
		"from what is trimmed": {"0123456789", 4, true, &telexecv1.OutputOptions{StdoutOffset: i64(1)},
			&telexecv1.StreamContent{Size: 10, EarliestOffset: 4, Offset: 4, Data: []byte("456789"), NextOffset: 10, Complete: true}, ""},
		"from what may come": {"0123", 0, false, &telexecv1.OutputOptions{StdoutOffset: i64(9)},
			&telexecv1.StreamContent{Size: 4, Offset: 9, NextOffset: 9}, ""},
		"behind the end": {"0123", 0, true, &telexecv1.OutputOptions{StdoutOffset: i64(5)}, nil, fault.ReasonOffsetBeyondEnd},
		"text, running": {"a\xe2\x82", 0, false, &telexecv1.OutputOptions{Text: true},
			&telexecv1.StreamContent{Size: 3, Data: []byte("a\xe2\x82"), Text: "a", NextOffset: 3, NextTextOffset: 1}, ""},
		"text, ended": {"a\xe2\x82", 0, true, &telexecv1.OutputOptions{Text: true},
			&telexecv1.StreamContent{Size: 3, Data: []byte("a\xe2\x82"), Text: "a\uFFFD\uFFFD", NextOffset: 3, NextTextOffset: 3, Complete: true}, ""},
		"text, cut": {euros, 0, true, &telexecv1.OutputOptions{LimitBytes: 8, Text: true},
			&telexecv1.StreamContent{Size: 12, Data: []byte(euros[:4]), Text: "€", OmittedBytes: 4, TailOffset: 8, Tail: []byte(euros[8:]),
				TailText: "€", NextOffset: 12, NextTextOffset: 12, Complete: true}, ""},
		"text, cut, split end": {euros + "\xe2", 0, false, &telexecv1.OutputOptions{LimitBytes: 8, Text: true},
			&telexecv1.StreamContent{Size: 13, Data: []byte(euros[:4]), Text: "€", OmittedBytes: 5, TailOffset: 9, Tail: []byte("€\xe2"),
				TailText: "€", NextOffset: 13, NextTextOffset: 12}, ""},
		"text, cut, ends split": {euros + "\xe2", 0, true, &telexecv1.OutputOptions{LimitBytes: 8, Text: true},
			&telexecv1.StreamContent{Size: 13, Data: []byte(euros[:4]), Text: "€", OmittedBytes: 5, TailOffset: 9, Tail: []byte("€\xe2"),
				TailText: "€\uFFFD", NextOffset: 13, NextTextOffset: 13, Complete: true}, ""},
	} {
		for _, piece := range []int{0, 1} { // also where reads come byte by byte
			t.Run(fmt.Sprintf("%s/%d", name, piece), func(t *testing.T) {
				p, svc := newPlant(running())
				s := &p.commands[0]
				p.output[command.Stdout], p.piece = []byte(c.data), piece
				s.Size[command.Stdout], s.Earliest[command.Stdout] = int64(len(c.data)), c.earliest
				if c.ended {
					end(s)
				}
				got, stderr, err := svc.contents(t.Context(), *s, c.o)
				if fault.ReasonOf(err) != c.reason {
					t.Fatal(err)
				}
				if err == nil && (got.String() != c.want.String() || stderr.GetSize() != 0) {
					t.Errorf("got  %v\nwant %v", got, c.want)
				}
			})
		}
	}
}

func TestTrimmedMeanwhile(t *testing.T) {
	p, svc := newPlant(running())
	p.commands[0].Size[command.Stdout] = 100 // of which nothing is there any more
	got, _, err := svc.contents(t.Context(), p.commands[0], nil)
	if err != nil || got.GetNextOffset() != 0 || got.GetComplete() {
		t.Errorf("%v, %v", got, err)
	}
}

func TestCancelSignalInput(t *testing.T) {
	p, svc := newPlant(running())
	ctx := caller(t)
	c, err := svc.Cancel(ctx, &telexecv1.CancelRequest{CommandId: anID, Reason: "enough"})
	if err != nil || c.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE || c.GetReport().GetEnded() != 2 || c.GetCommand().GetId() != anID {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := svc.Cancel(ctx, &telexecv1.CancelRequest{CommandId: anID, Grace: durationpb.New(0)}); err != nil {
		t.Error(err)
	}
	if s, err := svc.Signal(ctx, &telexecv1.SignalRequest{CommandId: anID}); err != nil || s.GetCommand().GetId() != anID {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := svc.Signal(ctx, &telexecv1.SignalRequest{CommandId: anID, Signal: "HUP"}); err != nil {
		t.Error(err)
	}
	if i, err := svc.SendInput(ctx, &telexecv1.SendInputRequest{CommandId: anID, Data: []byte("y\n"), Eof: true}); err != nil || i.GetStdinBytes() != 12 {
		t.Errorf("%v, %v", i, err)
	}
	want := []string{
		"cancel " + anID + " by ann after -1ns: enough", "cancel " + anID + " by ann after 0s: ",
		"signal " + anID + " INT", "signal " + anID + " HUP", "input " + anID + ` "y\n" true`,
	}
	if !slices.Equal(p.log, want) {
		t.Errorf("%q", p.log)
	}
	p.fail = fault.New(fault.FailedPrecondition, fault.ReasonNotRunning, "ended")
	_, err1 := svc.Cancel(ctx, &telexecv1.CancelRequest{CommandId: anID})
	_, err2 := svc.Signal(ctx, &telexecv1.SignalRequest{CommandId: anID})
	_, err3 := svc.SendInput(ctx, &telexecv1.SendInputRequest{CommandId: anID})
	if err1 != p.fail || err2 != p.fail || err3 != p.fail {
		t.Error(err1, err2, err3)
	}
	_, err1 = svc.Cancel(ctx, &telexecv1.CancelRequest{Session: "s"})
	_, err2 = svc.GetStatus(ctx, &telexecv1.GetStatusRequest{Session: "s"})
	if fault.ReasonOf(err1) != fault.ReasonUnknownSession || fault.ReasonOf(err2) != fault.ReasonUnknownSession {
		t.Error(err1, err2)
	}
}

func TestListPages(t *testing.T) {
	p, svc := newPlant()
	for i := range 5 {
		s := running()
		s.ID = fmt.Sprintf("%s%d", anID[:25], 9-i)
		p.commands = append(p.commands, s)
	}
	ctx := caller(t)
	req := &telexecv1.ListCommandsRequest{PageSize: 2, Host: "h"}
	var got []string
	for pages := 0; ; pages++ {
		page, err := svc.ListCommands(ctx, req)
		if err != nil || pages > 3 {
			t.Fatal(pages, err)
		}
		for _, c := range page.GetCommands() {
			got = append(got, c.GetId()[25:])
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
		if p.filter.Limit != 3 || p.filter.Host != "h" {
			t.Errorf("filter %+v", p.filter)
		}
		req.PageSize = 2
	}
	if strings.Join(got, "") != "98765" {
		t.Error(got)
	}
	first, err := svc.ListCommands(ctx, &telexecv1.ListCommandsRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := svc.ListCommands(ctx, &telexecv1.ListCommandsRequest{PageToken: first.GetNextPageToken(), Host: "other"}); fault.ReasonOf(err) != fault.ReasonBadPageToken {
		t.Errorf("token of another list: %v", err)
	}
	if page, err := svc.ListCommands(ctx, &telexecv1.ListCommandsRequest{Session: "s"}); err != nil || len(page.GetCommands()) != 0 {
		t.Errorf("%v, %v", page, err)
	}
	p.fail = errors.New("x")
	if _, err := svc.ListCommands(ctx, &telexecv1.ListCommandsRequest{}); err != p.fail || p.filter.Limit != 51 {
		t.Errorf("%v, limit %d", err, p.filter.Limit)
	}
}

func TestAPageIsNotTooLarge(t *testing.T) {
	p, svc := newPlant()
	for i := range 100 {
		s := running()
		s.ID = fmt.Sprintf("%s%02d", anID[:24], 99-i)
		s.Spec.Line = strings.Repeat("x", 120_000)
		p.commands = append(p.commands, s)
	}
	req, total := &telexecv1.ListCommandsRequest{PageSize: 1000}, 0
	for {
		page, err := svc.ListCommands(caller(t), req)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.GetCommands()); n == 0 || n > maxPageBytes/120_000 {
			t.Fatalf("a page of %d", n)
		}
		total += len(page.GetCommands())
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if total != 100 {
		t.Errorf("%d commands", total)
	}
}

func FuzzPageCursor(f *testing.F) {
	filter := &telexecv1.ListCommandsRequest{Host: "h"}
	good := pageToken(filter, anID)
	f.Add(good)
	f.Add("")
	f.Add(good[:len(good)-1])
	f.Add("AA==")
	f.Fuzz(func(t *testing.T, token string) {
		cursor, err := pageCursor(filter, token)
		if err == nil && token != "" && pageToken(filter, cursor) != token {
			t.Fatalf("%q is not what it should be for %q", token, cursor)
		}
		if err != nil && fault.ReasonOf(err) != fault.ReasonBadPageToken {
			t.Fatal(err)
		}
	})
}

func TestEveryChangeOfATokenIsSeen(t *testing.T) {
	filter := &telexecv1.ListCommandsRequest{Host: "h"}
	good := pageToken(filter, anID)
	if c, err := pageCursor(filter, good); err != nil || c != anID {
		t.Fatal(c, err)
	}
	for i := range len(good) {
		bad := []byte(good)
		if bad[i] = 'A'; good[i] == 'A' {
			bad[i] = 'B'
		}
		if _, err := pageCursor(filter, string(bad)); fault.ReasonOf(err) != fault.ReasonBadPageToken {
			t.Errorf("character %d can be changed", i)
		}
	}
	if _, err := pageCursor(&telexecv1.ListHostsRequest{}, good); err == nil {
		t.Error("a token of commands is good for hosts")
	}
}

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
			Event{Kind: EventCommand, Snapshot: running()},
			chunkEvent(command.Stdout, 2, "5 \xe2\x82"),
			chunkEvent(command.Stderr, 0, "oops"),
			40 * time.Second, // heartbeats at 15 and 30
			chunkEvent(command.Stdout, 6, "\xac!\xe2"),
			Event{Kind: EventGap, Gap: Gap{Stream: command.Stdout, From: 9, To: 20}},
			Event{Kind: EventCommand, Snapshot: ended},
			chunkEvent(command.Stdout, 20, "x\xf0\x9f"),
			Event{Kind: EventComplete, Snapshot: ended},
			Event{Kind: EventEnded, Snapshot: ended},
		}
		out := &sink{ctx: caller(t)}
		err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID, StdoutOffset: 2, Follow: true, Text: true,
			Streams: []telexecv1.Stream{telexecv1.Stream_STREAM_STDERR, telexecv1.Stream_STREAM_STDOUT}}, out)
		want := []string{
			"command v3",
			`STREAM_STDOUT@2 "5 \xe2\x82" "5 "`,
			`STREAM_STDERR@0 "oops" "oops"`,
			"heartbeat 6 4", "heartbeat 6 4",
			`STREAM_STDOUT@6 "\xac!\xe2" "€!"`,
			`STREAM_STDOUT@9 "" "` + "\uFFFD" + `"`,
			"gap STREAM_STDOUT 9-20",
			"command v4",
			`STREAM_STDOUT@20 "x\xf0\x9f" "x"`,
			`STREAM_STDOUT@23 "" "` + "\uFFFD\uFFFD" + `"`,
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
		Event{Kind: EventCommand, Snapshot: running()},
		chunkEvent(command.Stdout, 0, "\xe2"),
		Event{Kind: EventComplete, Snapshot: running()},
		Event{Kind: EventEnded, Snapshot: running()},
	}
	events := slices.Clone(p.events)
	for _, text := range []bool{false, true} {
		p.events = slices.Clone(events)
		out := &sink{ctx: caller(t)}
		err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID, Text: text}, out)
		// The command goes on, so the split character is not given up.
		want := []string{"command v3", `STREAM_STDOUT@0 "\xe2" ""`, "complete 1 0", "ended COMMAND_STATE_RUNNING"}
		if got := out.told(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v\n%s", err, strings.Join(got, "\n"))
		}
	}
}

func TestStreamFails(t *testing.T) {
	p, svc := newPlant(running())
	if err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: "other"}, &sink{ctx: caller(t)}); fault.ReasonOf(err) != fault.ReasonUnknownCommand {
		t.Error(err)
	}
	broken := errors.New("store")
	p.events = []any{broken}
	if err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID}, &sink{ctx: caller(t)}); err != broken {
		t.Error(err)
	}
	gone := errors.New("gone")
	for _, ev := range []any{
		Event{Kind: EventCommand}, Event{Kind: EventEnded},
	} {
		p.events = []any{ev}
		if err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID}, &sink{ctx: caller(t), fail: gone}); err != gone {
			t.Error(err)
		}
	}
	for _, ev := range []Event{{Kind: EventGap}, {Kind: EventComplete, Snapshot: Snapshot{Command: command.Command{State: command.Lost}}}} {
		out := &teller{out: &sink{ctx: caller(t), fail: gone}, text: true}
		out.decoder[command.Stdout].Next([]byte("\xe2"))
		if err := out.tell(ev, command.Sizes{}); err != gone {
			t.Error(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(caller(t))
		time.AfterFunc(3500*time.Millisecond, cancel)
		p, svc := newPlant(running())
		p.events = []any{time.Hour}
		out := &sink{ctx: ctx}
		if err := svc.StreamOutput(&telexecv1.StreamOutputRequest{CommandId: anID, Heartbeat: durationpb.New(time.Second)}, out); !errors.Is(err, context.Canceled) || len(out.sent) != 3 {
			t.Errorf("%v after %v", err, out.told())
		}
	})
}

// park is an inventory with connections.
type park struct {
	hosts   []inventory.Host
	found   Finding
	problem error
	takes   time.Duration
}

func (p *park) List() []inventory.Host { return p.hosts }
func (p *park) Lookup(name string) (inventory.Host, error) {
	for _, h := range p.hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return inventory.Host{}, fault.New(fault.NotFound, fault.ReasonUnknownHost, "no host %s", name)
}
func (p *park) Link(string) Link { return Link{Connections: 4} }
func (p *park) Check(ctx context.Context, h inventory.Host) (Finding, error) {
	select {
	case <-time.After(h.ConnectTimeout):
		return Finding{}, fault.New(fault.DeadlineExceeded, fault.ReasonConnectTimeout, "no answer").WithHint("look")
	case <-time.After(p.takes):
		return p.found, p.problem
	case <-ctx.Done():
		return Finding{}, ctx.Err()
	}
}

func TestHosts(t *testing.T) {
	p := &park{}
	for _, n := range []string{"web3", "db1", "web1", "web2"} {
		p.hosts = append(p.hosts, inventory.Host{Name: n, Labels: map[string]string{"kind": n[:2]}})
	}
	svc := NewHosts(p, &plant{}, p)
	ctx := caller(t)
	req, got := &telexecv1.ListHostsRequest{PageSize: 2}, []string(nil)
	for {
		page, err := svc.ListHosts(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range page.GetHosts() {
			got = append(got, h.GetName())
			if int(h.GetRunningCommands()) != len(h.GetName()) || h.GetQueuedCommands() != 2 || h.GetConnections() != 4 {
				t.Errorf("%v", h)
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(got, []string{"db1", "web1", "web2", "web3"}) {
		t.Error(got)
	}
	labelled, err := svc.ListHosts(ctx, &telexecv1.ListHostsRequest{Labels: map[string]string{"kind": "db"}})
	if err != nil || len(labelled.GetHosts()) != 1 {
		t.Errorf("%v, %v", labelled, err)
	}
	if _, err := svc.ListHosts(ctx, &telexecv1.ListHostsRequest{PageToken: "x"}); fault.ReasonOf(err) != fault.ReasonBadPageToken {
		t.Error(err)
	}
	one, err := svc.GetHost(ctx, &telexecv1.GetHostRequest{Host: "web1"})
	if err != nil || one.GetHost().GetName() != "web1" {
		t.Errorf("%v, %v", one, err)
	}
	_, err1 := svc.GetHost(ctx, &telexecv1.GetHostRequest{Host: "web9"})
	_, err2 := svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web9"})
	if fault.ReasonOf(err1) != fault.ReasonUnknownHost || fault.ReasonOf(err2) != fault.ReasonUnknownHost {
		t.Error(err1, err2)
	}
}

func TestCheckHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &park{hosts: []inventory.Host{{Name: "web1", Address: "10.0.0.1:22", ConnectTimeout: 10 * time.Second}}, takes: 2 * time.Second,
			found: Finding{ServerVersion: "SSH-2.0-x", HostKey: "SHA256:y", Durability: command.Attached, DurabilityReason: "old"}}
		svc := NewHosts(p, &plant{}, p)
		ctx := caller(t)
		r, err := svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web1"})
		if err != nil || !r.GetOk() || r.GetFailure() != nil || r.GetDuration().AsDuration() != 2*time.Second || r.GetServerVersion() != "SSH-2.0-x" ||
			r.GetHostKeyFingerprint() != "SHA256:y" || r.GetDurability() != telexecv1.Durability_DURABILITY_ATTACHED || r.GetDurabilityReason() != "old" {
			t.Errorf("%v, %v", r, err)
		}
		r, err = svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web1", Timeout: durationpb.New(time.Second)})
		if err != nil || r.GetOk() || r.GetFailure().GetReason() != fault.ReasonConnectTimeout || r.GetFailure().GetHint() == "" || r.GetDuration().AsDuration() != time.Second {
			t.Errorf("%v, %v", r, err)
		}
		p.problem = fault.New(fault.Unavailable, fault.ReasonConnectionRefused, "refused").WithHint("start sshd")
		r, err = svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web1"})
		if err != nil || r.GetFailure().GetReason() != fault.ReasonConnectionRefused || r.GetFailure().GetHint() != "start sshd" {
			t.Errorf("%v, %v", r, err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := svc.CheckHost(gone, &telexecv1.CheckHostRequest{Host: "web1"}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestServerInfo(t *testing.T) {
	info := full[Info]()
	info.Started = time.Now().Add(-time.Minute)
	r, err := NewAdmin(info, &plant{}).GetServerInfo(caller(t), &telexecv1.GetServerInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if missing := unset("", r.ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}
	if r.GetPrincipal() != "ann" || r.GetUptime().AsDuration() < time.Minute || r.GetLimits().GetRetainedOutputBytes() != info.Limits.RetainedOutput {
		t.Errorf("%v", r)
	}
}
