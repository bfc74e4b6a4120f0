package engine

import (
	"cmp"
	"fmt"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// lostHint is what to do about a command that is LOST.
const lostHint = "Cancel it to end what may still run on the host, and look there what it has done before you run it again"

// incomplete reports whether err says that an exit is true but output missing.
func incomplete(err error) bool {
	return err != nil && fault.ReasonOf(err) == fault.ReasonOutputIncomplete
}

// known reports whether an end that came with err is true.
func known(err error) bool { return err == nil || incomplete(err) }

// after gives what a ladder has come to that followed another one: what the
// first has ended, the second does not find.
func after(first *command.CancelReport, r command.CancelReport) command.CancelReport {
	if first == nil || first.Signal == "" {
		return r
	}
	r.Ended += first.Ended
	if r.Signal == "" {
		r.Signal = first.Signal
	}
	if r.Outcome == command.AlreadyEnded {
		r.Outcome = command.Gone
	}
	return r
}

// beside gives what ladders have come to that ran at one time, r told behind first:
// of what both have seen end, nobody knows which has ended it.
func beside(first *command.CancelReport, r command.CancelReport) command.CancelReport {
	if first == nil {
		return r
	}
	r.Ended = max(r.Ended, first.Ended)
	if strength[first.Signal] > strength[r.Signal] {
		r.Signal = first.Signal
	}
	if r.Outcome == command.AlreadyEnded && first.Signal != "" {
		r.Outcome = command.Gone
	}
	return r
}

// strength has the signals of a ladder in its order.
var strength = map[string]int{"INT": 1, "TERM": 2, "KILL": 3}

// conclude decides what the end of a process was, and gives what sets the record.
func (a *attendance) conclude() (command.Event, func(c *command.Command)) {
	ev, tell := a.verdict()
	w := a.w
	return ev, func(c *command.Command) {
		c.Exit = w.end.Exit
		c.Truncation = w.end.Truncation
		if known(w.err) {
			c.Completion = cmp.Or(w.end.Completion, command.ByExitStatus)
		}
		if incomplete(w.err) || w.err != nil && ev != command.Lose {
			sizes, _ := a.log.Sizes()
			c.Truncation = &command.Truncation{Offset: sizes, Reason: "not all of it had come when the command was let go of"}
		}
		tell(c)
	}
}

// verdict decides what the end of a process was: its own, ours, or somebody
// else's. That we ended it is only said where a signal of ours ended something,
// so that an exit which won the race is told as it is; that it is cancelled only
// where nothing is left.
//
// A ladder that told nothing may have run on the host: a signal that it sends is
// taken for ours then, and the ladder after it is the proof.
func (a *attendance) verdict() (command.Event, func(c *command.Command)) {
	w, report := a.w, a.report
	guessed := a.doubt && a.signalled() && w.end.TimedOut == nil && (report == nil || report.Ended == 0)
	ours := guessed || report != nil && report.Signal != "" && (report.Ended > 0 || a.session != "" && report.Outcome == command.Gone)
	gone := ours && report != nil && (report.Outcome == command.Gone || guessed && report.Outcome == command.AlreadyEnded)
	exit := w.end.Exit
	because := func(reason, hint, format string, args ...any) func(c *command.Command) {
		f := &command.Failure{Reason: reason, Message: fmt.Sprintf(format, args...), Hint: hint}
		return func(c *command.Command) {
			c.Failure = f
			if guessed && c.Cancellation != nil {
				c.Cancellation = withReport(c.Cancellation, a.guess(gone))
			}
		}
	}
	left := ""
	if report != nil {
		left = report.Message
	}
	timeout := func(left string) func(c *command.Command) {
		return because(fault.ReasonTimeout, "Give it a longer timeout, or none",
			"it ran longer than its timeout of %s and was ended%s", a.cmd.Spec.Timeout, left)
	}
	switch {
	case a.hostTimedOut(ours):
		if r := w.end.TimedOut; r.Outcome != command.Gone {
			return command.Timeout, timeout(" on its host; " + cmp.Or(r.Message, "not all of it is proven gone"))
		}
		return command.Timeout, timeout(" on its host")
	case gone && a.timedOut:
		return command.Timeout, timeout("")
	case ours && a.timedOut && known(w.err):
		return command.Timeout, timeout("; " + cmp.Or(left, "its host could not be asked what is left of it"))
	case gone:
		by := a.cmd.Cancellation.By
		return command.CancelledEnd, because(fault.ReasonCancelledByCaller, "",
			"it was cancelled by %s through %s", by.Principal, by.Origin)
	case !known(w.err):
		return endOf(w.err), failed(w.err)
	case ours:
		return command.Killed, because(fault.ReasonCancelIncomplete,
			"The cancellation's report lists what is left on the host",
			"it was ended by a cancel, but not all of it is proven gone: %s", cmp.Or(left, a.guess(false).Message))
	case exit.Code != nil, a.session != "" && exit.Signal == "": // a prompt tells no code
		return command.Exited, func(*command.Command) {}
	}
	if sent := a.sent.Load(); sent != nil && sent.name == exit.Signal {
		return command.Killed, because(fault.ReasonSignalled, "",
			"it was ended by SIG%s, which %s sent through %s", exit.Signal, sent.by.Principal, sent.by.Origin)
	}
	return command.Killed, because(fault.ReasonSignalled,
		"Look at the host's log; a kill by the kernel for lack of memory is told there",
		"it was ended by SIG%s, which was not sent through this service", exit.Signal)
}

// hostTimedOut reports whether the host ended the command at its timeout, and no
// cancel of ours did before.
func (a *attendance) hostTimedOut(ours bool) bool {
	r := a.w.end.TimedOut
	if r == nil || r.Outcome == command.AlreadyEnded || !known(a.w.err) {
		return false
	}
	n := a.cmd.Cancellation
	return n == nil || !ours || n.Time.After(a.cmd.StartTime.Add(a.cmd.Spec.Timeout))
}

// guess is the report of a cancel whose ladder has ended the command without
// telling so.
func (a *attendance) guess(gone bool) command.CancelReport {
	r := command.CancelReport{Outcome: command.Unproven, Signal: cmp.Or(a.w.end.Signal, "INT"), Message: "its host could not be asked what is left of it"}
	if gone {
		r.Outcome, r.Message = command.Gone, "it was ended while the host did not answer; nothing of it is left there"
	} else if a.report != nil {
		r = *a.report
	}
	return r
}
