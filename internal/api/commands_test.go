package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

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
				ctx := asAnn(t)
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
	ctx := asAnn(t)
	r, err := svc.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "uptime", RequestId: "again", Output: &telexecv1.OutputOptions{Omit: true}})
	if err != nil || !r.GetReplayed() || r.GetStdout() != nil || r.GetStderr() != nil {
		t.Errorf("%v, %v", r, err)
	}
	if !slices.Equal(p.log, []string{"execute uptime by ann via cli"}) {
		t.Error(p.log)
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
	svc := NewCommands(f, f, f, &stage{}, time.Minute)
	_, err := svc.Execute(asAnn(t), &telexecv1.ExecuteRequest{Host: "h", Command: "true"})
	if e := fault.From(err); e.Reason != fault.ReasonStoreUnavailable || e.Metadata["command_id"] != anID || e.Metadata["node"] != "n" {
		t.Errorf("await: %v %v", e, e.Metadata)
	}
	p.commands[0].Size[command.Stderr] = 4
	_, err = svc.Execute(asAnn(t), &telexecv1.ExecuteRequest{Host: "h", Command: "true", Wait: durationpb.New(0)})
	if e := fault.From(err); e.Metadata["command_id"] != anID {
		t.Errorf("output: %v %v", e, e.Metadata)
	}
	if cause.Metadata["command_id"] != "" {
		t.Error("the error of somebody else was changed")
	}
	if _, err := svc.GetStatus(asAnn(t), &telexecv1.GetStatusRequest{CommandId: anID}); fault.ReasonOf(err) != fault.ReasonStoreUnavailable {
		t.Errorf("status: %v", err)
	}
	if _, err := svc.GetStatus(asAnn(t), &telexecv1.GetStatusRequest{CommandId: anID, Wait: durationpb.New(time.Second)}); err != cause {
		t.Errorf("status with wait: %v", err)
	}
}

func TestWhoGoesAwayGetsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, svc := newPlant(running())
		ctx, cancel := context.WithCancel(asAnn(t))
		time.AfterFunc(time.Second, cancel)
		if _, err := svc.Execute(ctx, &telexecv1.ExecuteRequest{Host: "h", Command: "true"}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Whoever must approve it may take hours, so whoever asked is told at once; who polls
// for the end waits.
func TestExecuteDoesNotWaitForApproval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running()
		s.State, s.Gated, s.StartTime = command.AwaitingApproval, true, time.Time{}
		s.Gate = &approval.Approval{Count: 2, Roles: []string{"approver"}, Deadline: time.Now().Add(time.Hour)}
		p, svc := newPlant(s)
		start := time.Now()
		r, err := svc.Execute(asAnn(t), &telexecv1.ExecuteRequest{Host: "h", Command: "true", Wait: durationpb.New(time.Minute)})
		if c := r.GetCommand(); err != nil || time.Since(start) != 0 || c.GetState() != telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL ||
			c.GetApproval() != "approvals/"+anID || c.GetAwaitedApproval().GetRequiredApprovals() != 2 || c.GetAwaitedApproval().GetExpireTime() == nil {
			t.Errorf("%v after %s: %v", err, time.Since(start), r)
		}
		p.change, p.after = end, 5*time.Second
		got, err := svc.GetStatus(asAnn(t), &telexecv1.GetStatusRequest{CommandId: anID, Wait: durationpb.New(time.Minute)})
		if err != nil || time.Since(start) != 5*time.Second || got.GetCommand().GetState() != telexecv1.CommandState_COMMAND_STATE_COMPLETED {
			t.Errorf("%v after %s: %v", err, time.Since(start), got)
		}
	})
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
				r, err := svc.GetStatus(asAnn(t), c.req)
				if took := time.Since(start); err != nil || took != c.took || r.GetCommand().GetId() != anID {
					t.Errorf("after %s: %v, %v", took, r, err)
				}
			})
		})
	}
	_, svc := newPlant()
	if _, err := svc.GetStatus(asAnn(t), &telexecv1.GetStatusRequest{CommandId: anID}); fault.ReasonOf(err) != fault.ReasonUnknownCommand {
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
	ctx := asAnn(t)
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
	if _, err := svc.GetStatus(ctx, &telexecv1.GetStatusRequest{CommandId: anID}); err != nil || p.asked.Name != "ann" || p.asked.Call != "call-1" {
		t.Errorf("GetStatus as %+v: %v", p.asked, err)
	}
	p.fail = fault.New(fault.FailedPrecondition, fault.ReasonNotRunning, "ended")
	_, err1 := svc.Cancel(ctx, &telexecv1.CancelRequest{CommandId: anID})
	_, err2 := svc.Signal(ctx, &telexecv1.SignalRequest{CommandId: anID})
	_, err3 := svc.SendInput(ctx, &telexecv1.SendInputRequest{CommandId: anID})
	if err1 != p.fail || err2 != p.fail || err3 != p.fail {
		t.Error(err1, err2, err3)
	}
}

// A command that is asked for by its session is answered as one that is asked for by
// its id; where there is none, that is no failure.
func TestCommandsOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, svc := newPlant(running())
		ctx := asAnn(t)
		for busy, refuse := range map[telexecv1.IfBusy]bool{telexecv1.IfBusy_IF_BUSY_UNSPECIFIED: false, telexecv1.IfBusy_IF_BUSY_WAIT: false, telexecv1.IfBusy_IF_BUSY_REFUSE: true} {
			if _, err := svc.Execute(ctx, &telexecv1.ExecuteRequest{Session: "deploy", Command: "true", IfBusy: busy, Wait: durationpb.New(0)}); err != nil ||
				p.spec.Session != "deploy" || p.spec.Host != "" || p.options.RefuseBusy != refuse {
				t.Errorf("%s: %+v, %+v, %v", busy, p.spec, p.options, err)
			}
		}
		p.log = nil
		p.change, p.after = end, 5*time.Second
		start := time.Now()
		got, err := svc.GetStatus(ctx, &telexecv1.GetStatusRequest{Session: "deploy", Wait: durationpb.New(time.Minute)})
		if err != nil || time.Since(start) != 5*time.Second || got.GetNoTask() || got.GetCommand().GetState() != telexecv1.CommandState_COMMAND_STATE_COMPLETED {
			t.Errorf("%v after %s: %v", err, time.Since(start), got)
		}
		cancelled, err := svc.Cancel(ctx, &telexecv1.CancelRequest{Session: "deploy", Grace: durationpb.New(time.Second), Reason: "enough"})
		if err != nil || cancelled.GetNoTask() || cancelled.GetReport().GetEnded() != 1 || cancelled.GetCommand().GetId() != anID {
			t.Errorf("%v, %v", cancelled, err)
		}
		p.idle, start = true, time.Now()
		if got, err := svc.GetStatus(ctx, &telexecv1.GetStatusRequest{Session: "deploy", Wait: durationpb.New(time.Minute)}); err != nil ||
			!got.GetNoTask() || got.GetCommand() != nil || time.Since(start) != 0 {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := svc.Cancel(ctx, &telexecv1.CancelRequest{Session: "deploy"}); err != nil || !got.GetNoTask() || got.GetCommand() != nil || got.GetReport() != nil {
			t.Errorf("%v, %v", got, err)
		}
		want := []string{"current of deploy by ann", "cancel in deploy by ann after 1s: enough", "current of deploy by ann", "cancel in deploy by ann after -1ns: "}
		if !slices.Equal(p.log, want) {
			t.Errorf("%q", p.log)
		}
		p.idle, p.fail = false, fault.New(fault.NotFound, fault.ReasonUnknownSession, "no")
		_, err1 := svc.Cancel(ctx, &telexecv1.CancelRequest{Session: "s"})
		_, err2 := svc.GetStatus(ctx, &telexecv1.GetStatusRequest{Session: "s"})
		if err1 != p.fail || err2 != p.fail {
			t.Error(err1, err2)
		}
	})
}

// Commands are stored with the id of their session, which a name leads to.
func TestListOfASession(t *testing.T) {
	p, _ := newPlant(running())
	on := &stage{sessions: []session.Session{{ID: aSession, Spec: session.Spec{Name: "deploy"}}}}
	svc := NewCommands(p, p, p, on, time.Minute)
	if page, err := svc.ListCommands(asAnn(t), &telexecv1.ListCommandsRequest{Session: "deploy"}); err != nil || len(page.GetCommands()) != 1 || p.filter.Session != aSession {
		t.Errorf("%v, %v: %+v", page, err, p.filter)
	}
	if _, err := svc.ListCommands(asAnn(t), &telexecv1.ListCommandsRequest{Session: "other"}); fault.ReasonOf(err) != fault.ReasonUnknownSession {
		t.Error(err)
	}
}
