package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type cancelCmd struct {
	Session []string       `sep:"none" placeholder:"NAME" help:"What runs in this session, whoever typed it. May be repeated."`
	ID      []string       `arg:"" name:"id" optional:"" help:"Ids of the commands, or enough of their ends."`
	Grace   *time.Duration `placeholder:"TIME" help:"How long it may take to go by itself before it is killed, 0 to 60s (default 0.5s)."`
	Reason  string         `allowempty:"" placeholder:"TEXT" help:"Why; shown to whoever watches, and kept."`
}

// Help is shown by cancel --help.
func (cancelCmd) Help() string {
	return `Ends the command and all its processes on the host and tells what proves it. Harmless when the command has ended
before. Exit code 0: nothing of it was left that the host shows. 1: something is left, which is listed with its process
id, its user and why; or the host cannot show it; or the cancel is pending. Of several commands each is told, and the exit
code is 0 when it is that for all.

A pending cancel goes on by itself. While the host cannot be reached nothing can be ended there: the command goes on, and
is cancelled as soon as the host is back. telexec status ID tells what came of it, telexec cancel ID asks once more.

Examples:

    telexec cancel V2W3 --reason 'wrong branch'
    telexec cancel V2W3 --grace 20s
    telexec cancel --session deploy
    telexec cancel $(telexec ps --host web1 --json | jq -r .id)`
}

// cancelsAtOnce is how many cancels are under way at a time: each waits for its
// host.
const cancelsAtOnce = 16

// Run cancels commands. An id that is wrong is told before anything is cancelled.
func (c *cancelCmd) Run(ctx context.Context, a *app) error {
	if (len(c.ID) == 0) == (len(c.Session) == 0) {
		return failure("give the id of a command, or --session").withHint("telexec cancel --help has examples")
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		if len(c.Session) > 0 {
			return c.inSessions(ctx, a, cl)
		}
		ids := make([]string, len(c.ID))
		for i, arg := range c.ID {
			var err error
			if ids[i], err = a.idArg(ctx, cl, arg); err != nil {
				return err
			}
		}
		type answer struct {
			resp *telexecv1.CancelResponse
			err  error
		}
		answers := make([]answer, len(ids))
		var calls errgroup.Group
		calls.SetLimit(cancelsAtOnce)
		for i, id := range ids {
			calls.Go(func() error {
				req := &telexecv1.CancelRequest{CommandId: id, Reason: c.Reason}
				if c.Grace != nil {
					req.Grace = durationpb.New(*c.Grace)
				}
				answers[i].resp, answers[i].err = cl.Cancel(ctx, req)
				return nil
			})
		}
		_ = calls.Wait() // each has its own answer
		code := 0
		for i, got := range answers {
			if got.err != nil {
				if len(ids) == 1 || ctx.Err() != nil {
					return got.err
				}
				if !a.opts.JSON { // where the error has the id among its metadata
					a.out.tell("%s could not be cancelled:", ids[i])
				}
				code = a.report(got.err)
				continue
			}
			if err := a.printCancel(got.resp, len(ids) > 1); err != nil {
				return err
			}
			if !cancelDone(got.resp.GetReport()) && code == 0 {
				code = exitNo
			}
		}
		if code != 0 {
			return &exitError{code: code}
		}
		return nil
	})
}

// inSessions cancels what runs in sessions, one after the other.
func (c *cancelCmd) inSessions(ctx context.Context, a *app, cl *client.Client) error {
	code := 0
	several := len(c.Session) > 1
	for _, name := range c.Session {
		req := &telexecv1.CancelRequest{Session: name, Reason: c.Reason}
		if c.Grace != nil {
			req.Grace = durationpb.New(*c.Grace)
		}
		resp, err := cl.Cancel(ctx, req)
		switch {
		case err != nil && (!several || ctx.Err() != nil):
			return err
		case err != nil:
			code = a.report(err)
			continue
		case resp.GetNoTask() && a.opts.JSON && several:
			err = a.out.line(resp)
		case resp.GetNoTask():
			err = a.noTask(resp, "nothing runs in %s", name)
		default:
			if err = a.printCancel(resp, several); err == nil && !cancelDone(resp.GetReport()) && code == 0 {
				code = exitNo
			}
		}
		if err != nil {
			return err
		}
	}
	if code != 0 {
		return &exitError{code: code}
	}
	return nil
}

// cancelDone reports whether nothing is left to do or to look for.
func cancelDone(r *telexecv1.CancelReport) bool {
	switch r.GetOutcome() {
	case telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE, telexecv1.CancelOutcome_CANCEL_OUTCOME_ALREADY_ENDED,
		telexecv1.CancelOutcome_CANCEL_OUTCOME_NEVER_STARTED:
		return true
	}
	return false
}

// printCancel tells what came of a cancel, of one among several in one line of
// JSON.
func (a *app) printCancel(resp *telexecv1.CancelResponse, several bool) error {
	switch {
	case a.opts.JSON && several:
		return a.out.line(resp)
	case a.opts.JSON:
		return a.out.document(resp)
	}
	defer a.tellPending(resp)
	var rows [][]cell
	name := plainCell(resp.GetCommand().GetId())
	for line := range linesOf(cancelText(resp.GetReport())) {
		rows = append(rows, []cell{name, plainCell(line)})
		name = plainCell("")
	}
	for _, p := range resp.GetReport().GetLeft() {
		rows = append(rows, []cell{{"left", red}, plainCell(processText(p))})
	}
	return a.out.columns(rows)
}

// tellPending says what becomes of a cancel that was not done yet.
func (a *app) tellPending(resp *telexecv1.CancelResponse) {
	if resp.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_PENDING {
		return
	}
	cmd := resp.GetCommand()
	if reconnecting(cmd) {
		a.out.tell("%s cannot be reached; the command goes on there, and is cancelled as soon as it can be: telexec status %s tells what came of it", cmd.GetHost(), cmd.GetId())
		return
	}
	a.out.tell("the cancel goes on by itself: telexec status %s tells what came of it, telexec cancel %s asks once more", cmd.GetId(), cmd.GetId())
}

// cancelText tells what came of a cancel in one line: "gone: 3 processes ended,
// none left (TERM, 0.3 s)".
func cancelText(r *telexecv1.CancelReport) string {
	s := strings.ReplaceAll(enum(r.GetOutcome().String(), "CANCEL_OUTCOME_"), "_", " ")
	var parts []string
	if r.GetMessage() != "" {
		parts = append(parts, r.GetMessage())
	} else if r.GetEnded() > 0 {
		parts = append(parts, fmt.Sprintf("processes ended: %d", r.GetEnded()))
	}
	if len(parts) > 0 {
		s += ": " + strings.Join(parts, ", ")
	}
	var how []string
	if r.GetSignal() != "" {
		how = append(how, r.GetSignal())
	}
	if r.GetDuration() != nil && worked(r) {
		how = append(how, duration(r.GetDuration()))
	}
	if len(how) > 0 {
		s += " (" + strings.Join(how, ", ") + ")"
	}
	return s
}

// worked reports whether anything was done that has taken its time.
func worked(r *telexecv1.CancelReport) bool {
	switch r.GetOutcome() {
	case telexecv1.CancelOutcome_CANCEL_OUTCOME_ALREADY_ENDED, telexecv1.CancelOutcome_CANCEL_OUTCOME_NEVER_STARTED,
		telexecv1.CancelOutcome_CANCEL_OUTCOME_PENDING:
		return false
	}
	return true
}

func processText(p *telexecv1.Process) string {
	return because(fmt.Sprintf("process %d of %s, %s", p.GetPid(), p.GetUser(), p.GetCommand()), p.GetWhy())
}

type signalCmd struct {
	ID     string `arg:"" name:"id" help:"Id of the command, or enough of its end."`
	Signal string `arg:"" optional:"" default:"INT" help:"Name or number of the signal (default ${default})."`
}

// Help is shown by signal --help.
func (signalCmd) Help() string {
	return `The signal goes to the command's process group; what it makes of it is its own affair. To be sure of an end there
is telexec cancel.

Examples:

    telexec signal V2W3 HUP
    telexec signal V2W3 SIGUSR1
    telexec signal V2W3 2`
}

// Run sends a signal.
func (c *signalCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		id, err := a.idArg(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		name := signalName(c.Signal)
		var resp *telexecv1.SignalResponse
		err = onceStarted(ctx, cl, id, func() (err error) {
			resp, err = cl.Signal(ctx, &telexecv1.SignalRequest{CommandId: id, Signal: name})
			return err
		})
		if err != nil {
			return err
		}
		if a.opts.JSON {
			return a.out.document(resp.GetCommand())
		}
		a.out.note("sent %s to %s", name, id)
		return nil
	})
}

// signalName understands "SIGTERM", "term" and "15".
func signalName(s string) string {
	if n, err := strconv.Atoi(s); err == nil {
		for name, number := range signalNumbers {
			if number == syscall.Signal(n) {
				return name
			}
		}
	}
	return strings.TrimPrefix(strings.ToUpper(s), "SIG")
}
