package sshexec

import (
	"cmp"
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/inventory"
)

// Signal sends one signal, by name without SIG ("" means INT), to the command's
// process group; on a terminal INT and QUIT go to the group in the foreground,
// as if typed. NOT_RUNNING: it has ended. SIGNAL_FAILED: the host did not let
// us, or did not answer. Nothing is sent to a process that is not the one that
// was started.
func (p *attached) Signal(ctx context.Context, name string) error {
	if p.ended() {
		return p.notRunning().WithOp("sshexec.signal")
	}
	if p.bare {
		return p.signalBare(cmp.Or(name, "INT"))
	}
	return p.runner.signal(ctx, p.id, p.host, p.who, "", name, p.pty)
}

// signal sends one signal to a process group; more is what the script must know
// besides.
func (r *Runner) signal(ctx context.Context, id string, host inventory.Host, who identity, more, name string, pty bool) error {
	if name == "" {
		name = "INT"
	}
	if len(name) > 16 || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"+digits) != "" {
		return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "%q is not the name of a signal", name).
			WithHint("Give a name without SIG, such as INT or TERM")
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.ControlTimeout)
	defer cancel()
	tty := "no"
	if pty {
		tty = "yes"
	}
	lines, err := r.ask(ctx, host, who.vars(id, "signal", name, "tty", tty)+more+signalScript)
	if err != nil {
		return err
	}
	switch strings.Join(lines, "\n") {
	case "sent":
		return nil
	case "gone", "rebooted":
		return notRunning(host).WithOp("sshexec.signal")
	case "superseded":
		return superseded(host).WithOp("sshexec.signal")
	case "refused":
		return fault.New(fault.FailedPrecondition, fault.ReasonSignalFailed,
			"%s may not send %s to the command on %s, or there is no such signal there", host.User, name, host.Name).
			WithHint("If it runs as another user, allow sudo -n kill, or cancel it").WithOp("sshexec.signal")
	}
	return noAnswer(host, lines).WithOp("sshexec.signal")
}

// Cancel ends the command and all its processes: INT, and TERM, with grace
// between and behind them, then KILL; without grace KILL at once. The report
// says what came of it:
//
//	GONE           the host lists none of its processes any more
//	ALREADY_ENDED  there were none, or it had ended and told how
//	LEFT           some could not be ended; they are listed
//	UNPROVEN       the host cannot show its processes, or not those of other
//	               users (hidepid), or the answer was lost
//
// An error means that the host could not be asked, or did not answer within
// grace and Options.ControlTimeout; the report then is UNPROVEN. A ladder that
// was begun goes on to its end on the host, whatever becomes of ctx. It may be
// called again, and also after the connection of the command was lost.
func (p *attached) Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error) {
	if p.ended() {
		return command.CancelReport{Outcome: command.AlreadyEnded, Message: "the command had ended by itself"}, nil
	}
	if p.bare {
		return p.cancelBare(ctx, grace), nil
	}
	ctx, cancel := context.WithTimeout(ctx, grace+p.runner.opts.ControlTimeout)
	defer cancel()
	through := ""
	if p.sudo {
		through = "through=yes\n"
	}
	return p.runner.climb(ctx, p.id, p.host, p.who, through, grace)
}

// Sweep ends what the host still has of a command that nobody holds a Process
// of, because its connection was lost or the service was restarted. It finds it
// by the marker in the environment alone; what has cleared its environment and
// left the tree is not found. Report and error are as of Cancel.
func (r *Runner) Sweep(ctx context.Context, id string, host inventory.Host, grace time.Duration) (command.CancelReport, error) {
	if host.NoShell {
		return command.CancelReport{Outcome: command.Unproven, Message: "the host has no shell to show what is left"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, grace+r.opts.ControlTimeout)
	defer cancel()
	return r.climb(ctx, id, host, identity{boot: "-", start: "-"}, "", grace)
}

// ended reports whether it has ended and the host told how; only then is there
// nothing left to look after.
func (p *attached) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return closed(p.done) && p.reported
}

// vars gives what the scripts need, as assignments.
func (w identity) vars(id string, more ...string) string {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	pairs := append([]string{
		"id", id, "pid", n(w.pid), "group", n(w.group), "session", n(w.session),
		"boot", w.boot, "start", w.start, "proc", "/proc", "run", "", "password", "", "through", "",
	}, more...)
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString(pairs[i] + "=" + command.Quote(pairs[i+1]) + "\n")
	}
	return b.String()
}

// graces splits a grace into what INT and what TERM get, in hundredths of a
// second. INT gets a fifth: what heeds it goes at once, and what does not (every
// background job of a script ignores it) should not wait long for TERM.
func graces(grace time.Duration) (interrupt, terminate int64) {
	all := int64(max(0, grace) / (10 * time.Millisecond))
	if all < 2 {
		return 0, all
	}
	interrupt = max(1, all/5)
	return interrupt, all - interrupt
}

// climb runs the ladder; once more where the connection broke before the answer.
func (r *Runner) climb(ctx context.Context, id string, host inventory.Host, who identity, more string, grace time.Duration) (command.CancelReport, error) {
	begin := time.Now()
	interrupt, terminate := graces(grace)
	vars := who.vars(id, "grace_int", strconv.FormatInt(interrupt, 10), "grace_term", strconv.FormatInt(terminate, 10)) + more
	lines, err := r.ask(ctx, host, vars+ladderScript)
	unheard := fault.ReasonOf(err) == fault.ReasonConnectionLost && ctx.Err() == nil
	if unheard {
		lines, err = r.ask(ctx, host, vars+ladderScript)
	}
	var report command.CancelReport
	if err == nil && len(lines) == 1 && lines[0] == "superseded" {
		err = superseded(host).WithOp("sshexec.cancel")
	} else if err == nil {
		report, err = hostshell.ParseReport(lines)
		if err != nil {
			err = noAnswer(host, lines).WithOp("sshexec.cancel")
		}
	}
	if err == nil && unheard && report.Outcome == command.AlreadyEnded {
		// The first ladder may have ended it, and its answer is lost.
		err = fault.New(fault.Unavailable, fault.ReasonConnectionLost,
			"the connection to %s was lost before the ladder had answered", host.Name).WithOp("sshexec.cancel")
	}
	if err != nil {
		report = command.CancelReport{Outcome: command.Unproven, Message: fault.From(err).Message}
	}
	report.Duration = time.Since(begin)
	return report, err
}

func superseded(host inventory.Host) *fault.Error {
	return fault.New(fault.Aborted, fault.ReasonSuperseded, "another owner has the command on %s by now", host.Name).
		WithHint("Ask the service that has it")
}

func noAnswer(host inventory.Host, lines []string) *fault.Error {
	return fault.New(fault.Unavailable, fault.ReasonSignalFailed, "%s gave no answer that can be understood", host.Name).
		WithHint("Check that /bin/sh works there: ssh %s@%s 'exec /bin/sh -c true'", host.User, host.Name).
		With("answer", strconv.Quote(strings.Join(lines, "\n")))
}

// The scripts that signal, behind their values.
var (
	signalScript = hostshell.Identity + remoteScript("signal.sh")
	ladderScript = hostshell.Identity + hostshell.Ladder + "end_all\n"
)

// ask runs a script over a channel of its own and gives the lines of its answer.
// Once sent, the script does not need us any more.
func (r *Runner) ask(ctx context.Context, host inventory.Host, script string) ([]string, error) {
	nonce := rand.Text()
	return hostshell.Ask(ctx, r.dialer.OpenFirst, host, nonce, "exec /bin/sh", []byte("nonce="+nonce+"\n"+script))
}

// askInTurn is ask for what can wait.
func (r *Runner) askInTurn(ctx context.Context, host inventory.Host, script string) ([]string, error) {
	nonce := rand.Text()
	return hostshell.Ask(ctx, r.dialer.Open, host, nonce, "exec /bin/sh", []byte("nonce="+nonce+"\n"+script))
}
