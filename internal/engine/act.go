package engine

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// cancelAnswer is what the answer to a cancel may take beyond its grace.
const cancelAnswer = 2 * time.Second

// Cancel ends a command and answers when its end is proven, or when grace (below
// 0: half a second) and two seconds have passed; the work then goes on and the
// outcome is PENDING, also while the host cannot be reached: the command is ended
// as soon as it can be. It may be called at any time and any number of times, also
// for a command that is LOST: what is left of it on its host is ended then.
func (e *Engine) Cancel(ctx context.Context, by access.Caller, id string, grace time.Duration, reason string) (Snapshot, command.CancelReport, error) {
	if grace < 0 {
		grace = defaultGrace
	}
	if err := e.may(ctx, by, id); err != nil {
		return Snapshot{}, command.CancelReport{}, err
	}
	if l := e.find(id); l != nil {
		wait, stop := context.WithTimeout(ctx, grace+cancelAnswer)
		defer stop()
		r := cancelRequest{by: by, reason: reason, grace: grace, noted: make(chan struct{})}
		l.wish(r)
		select {
		case <-r.noted:
			s, err := awaitCancel(wait, l), ctx.Err()
			return s, e.reportOf(s), err
		case <-wait.Done(): // it is being stored, or the caller went away; the wish stays
			s := l.snapshot()
			return s, e.reportOf(s), ctx.Err()
		case <-l.done:
			select {
			case <-r.noted: // and it has ended of that
				s := l.snapshot()
				return s, e.reportOf(s), nil
			default:
			}
		}
	}
	s, err := e.get(ctx, id)
	if err != nil {
		return Snapshot{}, command.CancelReport{}, err
	}
	if !s.Ended() {
		return s, command.CancelReport{}, fault.New(fault.Unavailable, fault.ReasonDraining, "the service is stopping and cannot end it now").
			WithHint("Cancel it again when the service is back").WithRetry(time.Second)
	}
	if s.State == command.Lost {
		told := e.about(entry(audit.CommandCancel, by), &s.Command, nil)
		told.Command = "" // its masks went with its end; the entry of when it was accepted has it
		told.Detail = reason
		if err := e.journal.Record(ctx, told); err != nil {
			return s, command.CancelReport{}, err
		}
		return s, e.sweep(ctx, s, grace), nil
	}
	return s, command.CancelReport{
		Outcome: command.AlreadyEnded, Message: "it had ended before as " + string(s.State),
	}, nil
}

// sweep ends what is left on its host of a command that is LOST: nobody knows
// whether it still runs there. The command stays LOST.
func (e *Engine) sweep(ctx context.Context, s Snapshot, grace time.Duration) command.CancelReport {
	if s.Spec.SessionID != "" {
		return e.sweepSession(s)
	}
	ctx, stop := context.WithTimeout(ctx, grace+cancelAnswer)
	defer stop()
	host, err := e.hosts.Lookup(s.Spec.Host)
	if err == nil {
		var r command.CancelReport
		if r, err = e.runner.Sweep(ctx, s.ID, host, grace); err == nil {
			return r
		}
	}
	return command.CancelReport{
		Outcome: command.Unproven,
		Message: "the command is LOST and its host could not be asked what is left of it: " + fault.From(err).Text(),
	}
}

// awaitCancel gives a command as soon as it has ended, or its cancel has come to
// nothing, or ctx ends.
func awaitCancel(ctx context.Context, l *live) Snapshot {
	for {
		rung := l.bell.Rung()
		s := l.snapshot()
		if s.Ended() || !underWay(s.Cancellation) && s.Cancellation.Report.Outcome != command.Gone {
			return s
		}
		select {
		case <-rung:
		case <-l.done:
			return l.snapshot()
		case <-ctx.Done():
			return l.snapshot()
		}
	}
}

// underWay reports whether the outcome of a cancel is still to come.
func underWay(n *command.Cancellation) bool {
	return n != nil && (n.Report == nil || n.Report.Outcome == command.Pending)
}

// reportOf gives what a cancel of s has come to by now.
func (e *Engine) reportOf(s Snapshot) command.CancelReport {
	n := s.Cancellation
	switch {
	case n != nil && n.Report != nil && (s.Ended() || n.Report.Outcome != command.Gone && n.Report.Outcome != command.Pending):
		return *n.Report
	case s.State == command.Lost:
		return command.CancelReport{Outcome: command.Unproven, Message: "the command is LOST; cancel it again to end what may be left of it on its host"}
	case s.Ended():
		return command.CancelReport{Outcome: command.AlreadyEnded, Message: "it ended by itself before it could be cancelled"}
	}
	r := command.CancelReport{Outcome: command.Pending, Message: "its end is not proven yet; the work goes on"}
	switch trouble := e.StoreTrouble(); {
	case trouble != nil:
		r.Message = "the store takes nothing for now, so that its end cannot be told: " + fault.From(trouble).Message
	case n != nil && n.Report != nil && n.Report.Outcome == command.Pending:
		r = *n.Report
	case s.Connection == command.Reconnecting:
		r.Message = "its host does not answer for now; it will be ended as soon as it can be"
	}
	return r
}

// findWait is how long a call that needs the process of a command waits for it while
// that is being started, for its output may be seen before, or while the service, which
// was restarted, still looks for it on its host: mostly it is there in a moment.
const findWait = 5 * time.Second

// may tells why the caller may not act on a command; nil where it may.
func (e *Engine) may(ctx context.Context, by access.Caller, id string) error {
	s, err := e.get(ctx, id)
	return e.shown(ctx, by, access.Act, id, s, err)
}

// process gives the process of a command that runs, or NOT_RUNNING, which is also the
// answer where its host does not tell of the start in time. While it is not found again
// that is CONNECTION_LOST, and nothing was asked of the host.
func (e *Engine) process(ctx context.Context, id string) (*live, Process, error) {
	l := e.find(id)
	if l == nil {
		s, err := e.get(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if onHost(s.State) {
			return nil, nil, unattended()
		}
		return nil, nil, notRunning(s.State)
	}
	ctx, stop := context.WithTimeout(ctx, findWait)
	defer stop()
	for {
		rung := l.bell.Rung()
		s, p := l.snapshot(), l.running()
		switch {
		case p != nil:
			return l, p, nil
		case !onHost(s.State):
			return nil, nil, notRunning(s.State)
		}
		select {
		case <-rung:
		case <-l.done:
			if s := l.snapshot(); !onHost(s.State) {
				return nil, nil, notRunning(s.State)
			}
			return nil, nil, unattended()
		case <-ctx.Done():
			if s.State == command.Starting {
				return nil, nil, notRunning(s.State)
			}
			return nil, nil, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the service is looking for the command on its host, which it has not reached yet").
				WithHint("Try again when its connection is CONNECTED").WithRetry(time.Second)
		}
	}
}

// onHost reports whether a command in this state may have a process.
func onHost(s command.State) bool { return s == command.Starting || s == command.Running }

// unattended is what is told of a command that has not ended and has no owner any
// more.
func unattended() error {
	return fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down and has let go of the command").
		WithHint("Try again in a moment: the service looks after it again when it is back").WithRetry(time.Second)
}

func notRunning(s command.State) error {
	f := fault.New(fault.FailedPrecondition, fault.ReasonNotRunning, "the command is %s, not RUNNING", s)
	if !s.Ended() {
		return f.WithHint("Wait until it runs, or cancel it").WithRetry(time.Second)
	}
	return f.WithHint("It has ended; its status tells how")
}

// Signal sends one signal, by name without SIG, to a running command's process
// group. NOT_RUNNING where it does not run.
func (e *Engine) Signal(ctx context.Context, by access.Caller, id, name string) (Snapshot, error) {
	if err := e.may(ctx, by, id); err != nil {
		return Snapshot{}, err
	}
	l, p, err := e.process(ctx, id)
	if err != nil {
		return Snapshot{}, err
	}
	told := l.tells(audit.CommandSignal, by)
	told.Signal = name
	if err := e.journal.Record(ctx, told); err != nil {
		return Snapshot{}, err
	}
	sent := &sentSignal{by: by.Actor(), name: name} // before, since the end may come first
	l.sent.Store(sent)
	if err := p.Signal(ctx, name); err != nil {
		if fault.ReasonOf(err) != fault.ReasonConnectionLost { // else it may have arrived
			l.sent.CompareAndSwap(sent, nil)
		}
		return Snapshot{}, err
	}
	return l.snapshot(), nil
}

// Input writes to a running command's standard input, and closes it with eof.
// NOT_RUNNING, or STDIN_CLOSED where it was not asked for or has ended. In a session
// it is to type, which is TYPING_NOT_ALLOWED to whom it is.
func (e *Engine) Input(ctx context.Context, by access.Caller, id string, data []byte, eof bool) (total int64, err error) {
	if err := e.may(ctx, by, id); err != nil {
		return 0, err
	}
	l, p, err := e.process(ctx, id)
	if err != nil {
		return 0, err
	}
	s := l.snapshot()
	if !s.StdinOpen() {
		return 0, fault.New(fault.FailedPrecondition, fault.ReasonStdinClosed, "the command's standard input is closed").
			WithHint("Start the command with stdin_open to send input later")
	}
	if l.session != "" {
		if err := e.rights.MayType(by, e.sessionOf(&s.Command)); err != nil {
			return 0, err
		}
	}
	if err := e.tellInput(ctx, by, l); err != nil {
		return 0, err
	}
	if at, ok := p.(terminalProcess); ok {
		total, err = at.InputBy(ctx, by, data, eof)
	} else {
		total, err = p.Input(ctx, data, eof)
	}
	if err == nil && eof && s.Spec.Pty == nil && l.session == "" {
		l.inputEnded.Store(true)
		l.kickOwner()
	}
	return total, err
}
