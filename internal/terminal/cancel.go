package terminal

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// Times of a cancel.
const (
	cancelTold   = 60 * time.Millisecond  // the line is shown so long after Ctrl-C, whatever comes
	cancelHeeded = 300 * time.Millisecond // what has not ended by then does not heed Ctrl-C
	cancelAfter  = 2 * time.Second        // what the shell may take to show that it is back
)

// cancelling is a cancel of the command that runs. It is the owner's.
type cancelling struct {
	of   *Process // nil: none
	by   command.Actor
	told bool // the line was shown
}

// Cancel ends it: Ctrl-C first, then, where that is not heeded, the ladder on what has
// the terminal, never on the shell. The report is GONE where the shell is back, and
// ALREADY_ENDED where its own end came first. An error means that the host could not be
// asked.
func (p *Process) Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error) {
	l, began := p.live, time.Now()
	var sh Shell
	var pid int
	var foreign bool
	var err error
	front := make(chan int, 1) // gets the group that has the terminal, 0 where that is not known
	asked := l.do(ctx, func() {
		if p.ended() {
			return
		}
		if l.link == nil {
			err = l.noLink()
			return
		}
		top := l.turn.top()
		sh, pid, foreign = l.link.shell, top.pid, top.foreign && !slices.Contains(nestable, top.kind)
		l.interrupt(p)
		if !foreign {
			l.asides.Go(func() {
				ctx, stop := context.WithTimeout(l.ctx, asideMost)
				defer stop()
				fg, err := sh.Foreground(ctx, pid)
				if err != nil {
					fg.Group = 0
				}
				front <- fg.Group
			})
		}
	})
	switch {
	case p.ended() && sh == nil:
		return command.CancelReport{Outcome: command.AlreadyEnded, Message: "the command had ended by itself"}, nil
	case asked != nil:
		return command.CancelReport{Outcome: command.Unproven}, asked
	case err != nil:
		return command.CancelReport{Outcome: command.Unproven}, err
	}
	heeded := cancelHeeded
	if grace <= 0 {
		heeded = cancelTold
	}
	if p.endsWithin(ctx, heeded) {
		return p.proven(command.CancelReport{Signal: "INT", Ended: 1, Duration: time.Since(began), Message: "the shell has told that it ended"}), nil
	}
	if foreign {
		if p.endsWithin(ctx, cancelAfter) {
			return p.proven(command.CancelReport{Signal: "INT", Ended: 1, Duration: time.Since(began), Message: "its prompt is back"}), nil
		}
		return command.CancelReport{Outcome: command.Unproven, Signal: "INT", Duration: time.Since(began),
			Message: "it runs behind another shell, where its processes cannot be seen; Ctrl-C was typed"}, nil
	}
	report, err := p.climb(ctx, sh, pid, front, max(0, grace-heeded))
	report.Duration = time.Since(began)
	back := p.endsWithin(ctx, cancelAfter)
	switch {
	case back:
		if report.Outcome == command.AlreadyEnded || report.Signal == "" {
			report.Signal = "INT"
		}
		report.Ended = max(1, report.Ended)
		if err != nil || report.Message == "" {
			report.Message = "the shell has told that it ended"
		}
		if report.Outcome != command.Left {
			report = p.proven(report)
		}
		return report, nil
	case err != nil:
		return command.CancelReport{Outcome: command.Unproven, Message: fault.From(err).Message, Duration: report.Duration}, err
	case report.Outcome == command.Left:
		return report, nil
	}
	// Nothing is left of it, but the shell does not say so.
	fg, err := sh.Foreground(ctx, pid)
	switch {
	case err != nil:
		report.Outcome, report.Message = command.Unproven, "the host did not say who has the terminal: "+fault.From(err).Message
	case fg.Shell:
		report.Outcome, report.Ended = command.Gone, max(1, report.Ended)
		l.post(func() {
			if l.turn.cur == p {
				l.endCommand(p, nil, command.ByPrompt)
			}
		})
	default:
		report.Outcome, report.Left = command.Left, fg.Processes
		if report.Message == "" {
			report.Message = "something has the terminal of the session still"
		}
	}
	return report, nil
}

// groupLadder is a Shell whose ladder can be held to one process group: where another one
// has the terminal of the shell with this pid, nothing is done, and the report is
// ALREADY_ENDED.
type groupLadder interface {
	LadderOn(ctx context.Context, shellPID, group int, grace time.Duration) (command.CancelReport, error)
}

// climb is the ladder on what had the terminal when Ctrl-C was typed. Another group that
// has it by then is the next command, which somebody has typed meanwhile, unless this one
// still does not end.
func (p *Process) climb(ctx context.Context, sh Shell, pid int, front <-chan int, grace time.Duration) (report command.CancelReport, err error) {
	group := 0
	select {
	case group = <-front:
	case <-p.over:
	case <-ctx.Done():
	}
	held, can := sh.(groupLadder)
	for range groupsMost {
		if p.ended() {
			return command.CancelReport{Outcome: command.AlreadyEnded}, nil
		}
		if group == 0 || !can {
			return sh.Ladder(ctx, pid, grace)
		}
		if report, err = held.LadderOn(ctx, pid, group, grace); err != nil || report.Outcome != command.AlreadyEnded || p.endsWithin(ctx, cancelHeeded) {
			return report, err
		}
		fg, asked := sh.Foreground(ctx, pid)
		if asked != nil || fg.Shell {
			return report, nil
		}
		group = fg.Group // it has gone on to something else
	}
	return report, err
}

// groupsMost is how many groups of one command, each begun when the one before has ended,
// a cancel goes after.
const groupsMost = 3

// proven makes a report one of a command whose end the shell has told, unless it went
// with the session.
func (p *Process) proven(r command.CancelReport) command.CancelReport {
	r.Outcome = command.Gone
	p.live.mu.Lock()
	defer p.live.mu.Unlock()
	if p.lost != nil && fault.ReasonOf(p.lost) == fault.ReasonConnectionLost {
		r.Outcome, r.Message = command.Unproven, "the connection to the terminal was lost meanwhile"
	}
	return r
}

// endsWithin waits for its end.
func (p *Process) endsWithin(ctx context.Context, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-p.over:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return p.ended()
}

// interrupt types Ctrl-C at what runs. What was not typed yet is not typed any more, and
// what is on its way is read at full speed.
func (l *live) interrupt(p *Process) {
	if l.cancel.of != p {
		var by command.Actor
		if p.run.CancelledBy != nil {
			by = p.run.CancelledBy()
		}
		l.cancel = cancelling{of: p, by: by}
		l.after(cancelAlarm, cancelTold)
	}
	l.lift = l.now.Add(liftFor)
	l.link.keys.forget()
	l.link.keys.put([]byte{interrupt}, true)
	l.stayActive()
}

// tellCancel shows who has cancelled what runs.
func (l *live) tellCancel() {
	c := &l.cancel
	if c.of == nil || c.told {
		return
	}
	c.told = true
	if prompt := l.screen.LineToCursor(); l.turn.guessing() && l.prompts.Is(prompt) {
		// It is back already, and not known as such yet: the line goes before it.
		l.append([]byte("\r\x1b[K"))
		defer l.append([]byte(prompt))
	}
	l.append([]byte("\r\n\x1b[33m[CANCELLED] Command terminated by " + terminator(c.by) + "\x1b[0m\r\n"))
}

// cancelled is called at the end of a command: the line stands before the prompt.
func (l *live) cancelled(p *Process) {
	if l.cancel.of == p {
		l.tellCancel()
		l.cancel = cancelling{}
		l.unset(cancelAlarm)
	}
}

// doors are what people call them.
var doors = map[command.Origin]string{
	command.OriginMCP: "MCP client", command.OriginWeb: "web UI", command.OriginREST: "REST client",
	command.OriginGRPC: "gRPC client", command.OriginCLI: "CLI", command.OriginWebSocket: "WebSocket client",
}

// terminator tells who has ended a command.
func terminator(by command.Actor) string {
	if by == (command.Actor{}) {
		return "its time-out"
	}
	door := doors[by.Origin]
	if door == "" {
		door = "client"
	}
	return door + " (" + plainText(by.Principal, 255) + ")"
}

// Signal types what a terminal has for INT, QUIT and TSTP; any other signal goes to what
// has the terminal, where the host can be asked to send one. NOT_RUNNING: it has ended.
func (p *Process) Signal(ctx context.Context, name string) error {
	l := p.live
	var sh Shell
	var pid int
	var err error
	typed := map[string]byte{"": interrupt, "INT": interrupt, "QUIT": 0x1c, "TSTP": 0x1a}
	key, ok := typed[name]
	asked := l.do(ctx, func() {
		switch {
		case p.ended():
			err = notRunning(l.name)
		case l.link == nil:
			err = l.noLink()
		default:
			sh, pid = l.link.shell, l.turn.top().pid
			if ok {
				l.link.keys.put([]byte{key}, true)
				l.lift = l.now.Add(liftFor)
				l.stayActive()
			}
		}
	})
	if asked != nil || err != nil || ok {
		return cmp.Or(asked, err)
	}
	if s, can := sh.(Signaller); can {
		return s.Signal(ctx, pid, name)
	}
	return fault.New(fault.Unsupported, fault.ReasonNotSupported, "in a session %s cannot be sent", name).
		WithHint("Send INT, QUIT or TSTP, or cancel the command")
}
