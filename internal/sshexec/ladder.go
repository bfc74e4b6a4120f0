package sshexec

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
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
		report, err = parseReport(lines)
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

// parseReport reads the answer of ladder.sh; nothing but exactly one is taken.
func parseReport(lines []string) (command.CancelReport, error) {
	bad := errors.New("not an answer of the ladder")
	if len(lines) == 1 && lines[0] == "rebooted" {
		return command.CancelReport{Outcome: command.AlreadyEnded, Message: "the host was restarted after the command had started"}, nil
	}
	if len(lines) == 0 {
		return command.CancelReport{}, bad
	}
	var r command.CancelReport
	open := false
	for _, line := range lines[:len(lines)-1] {
		if line == "open" {
			open = true
			continue
		}
		f := strings.SplitN(line, " ", 5)
		if len(f) != 5 || f[0] != "left" || f[2] == "" || !printable(line) || len(line) > 1024 {
			return command.CancelReport{}, bad
		}
		pid, ok := number(f[1])
		why, known := whyLeft[f[3]]
		if !ok || !known {
			return command.CancelReport{}, bad
		}
		what := strings.TrimRight(f[4], " ")
		r.Left = append(r.Left, command.Process{PID: pid, User: f[2], Command: what[:min(len(what), 256)], Why: why})
	}
	f := strings.Split(lines[len(lines)-1], " ")
	if len(f) != 5 || f[0] != "done" {
		return command.CancelReport{}, bad
	}
	ended, ok1 := number(f[2])
	left, ok2 := number(f[3])
	if !ok1 || !ok2 || left < int64(len(r.Left)) || len(r.Left) < int(min(left, maxLeft)) {
		return command.CancelReport{}, bad
	}
	switch f[1] {
	case "INT", "TERM", "KILL":
		r.Signal = f[1]
	case "none":
	default:
		return command.CancelReport{}, bad
	}
	r.Ended = int(ended)
	switch {
	case f[4] == "none":
		r.Outcome = command.Unproven
		r.Message = "the host has neither /proc nor ps to show what is left"
	case left > 0:
		r.Outcome = command.Left
		r.Message = fmt.Sprintf("%d of %d processes could not be ended", left, left+ended)
	case f[4] == "own":
		r.Outcome = command.Unproven
		r.Message = "no process of the login user's is left of it"
	case r.Signal == "":
		r.Outcome = command.AlreadyEnded
		r.Message = "there was no process of it any more"
	default:
		r.Outcome = command.Gone
		r.Message = fmt.Sprintf("%s ended %s", r.Signal, processes(ended))
	}
	if open && (r.Outcome == command.Gone || r.Outcome == command.AlreadyEnded) {
		r.Outcome = command.Unproven
		r.Message += "; but something that cannot be seen still has its output open, which is not waited for"
	}
	switch f[4] {
	case "proc", "none":
	case "own":
		r.Message += "; the host shows no processes of others, which it may have started (sudo)"
	case "ps":
		r.Message += "; without /proc a process that left the group and lost its parent is not seen"
	default:
		return command.CancelReport{}, bad
	}
	return r, nil
}

// maxLeft is how many processes the ladder describes.
const maxLeft = 50

var whyLeft = map[string]string{
	"survived":        "it outlived KILL",
	"forbidden":       "the login user may not signal it",
	"uninterruptible": "it waits in the kernel and cannot be interrupted",
}

func processes(n int64) string {
	if n == 1 {
		return "1 process"
	}
	return strconv.FormatInt(n, 10) + " processes"
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

// maxAnswer is the most that is read of an answer.
const maxAnswer = 1 << 20

// The scripts that signal, behind their values.
var (
	signalScript = remoteScript("identity.sh") + remoteScript("signal.sh")
	ladderScript = remoteScript("identity.sh") + remoteScript("ladder.sh") + "end_all\n"
)

// opener is one of the Dialer's methods.
type opener func(ctx context.Context, host inventory.Host) (Session, error)

// ask runs a script over a channel of its own and gives the lines of its answer.
// Once sent, the script does not need us any more.
func (r *Runner) ask(ctx context.Context, host inventory.Host, script string) ([]string, error) {
	nonce := rand.Text()
	return r.askWith(ctx, r.dialer.OpenFirst, host, nonce, "exec /bin/sh", []byte("nonce="+nonce+"\n"+script))
}

// askInTurn is ask for what can wait.
func (r *Runner) askInTurn(ctx context.Context, host inventory.Host, script string) ([]string, error) {
	nonce := rand.Text()
	return r.askWith(ctx, r.dialer.Open, host, nonce, "exec /bin/sh", []byte("nonce="+nonce+"\n"+script))
}

// askWith is ask for a script that is in exec and has stdin, over a channel that
// open gives. dropbear now and then closes one that it has just opened: then there
// is another.
func (r *Runner) askWith(ctx context.Context, open opener, host inventory.Host, nonce, exec string, stdin []byte) (lines []string, err error) {
	for range 3 {
		if lines, err = r.askOnce(ctx, open, host, nonce, exec, stdin); !errors.Is(err, errUnasked) || ctx.Err() != nil {
			break
		}
	}
	return lines, err
}

func (r *Runner) askOnce(ctx context.Context, open opener, host inventory.Host, nonce, exec string, stdin []byte) ([]string, error) {
	ses, err := open(ctx, host)
	if err != nil {
		return nil, err
	}
	type result struct {
		answer []byte
		err    error
	}
	results := make(chan result, 1) // the one result
	go func() {
		defer ses.Close()
		answer, err := converse(ses, exec, stdin)
		results <- result{answer, err}
	}()
	var res result
	select {
	case res = <-results:
	case <-ctx.Done():
		go ses.Close() // which may wait for a connection that takes nothing
		return nil, fault.Wrap(context.Cause(ctx), fault.DeadlineExceeded, fault.ReasonSignalFailed,
			"%s did not answer in time", host.Name).WithOp("sshexec.ask")
	}
	lines := answerLines(nonce, string(res.answer))
	if res.err != nil || len(lines) == 0 {
		if lost(ses) {
			return nil, fault.Wrap(errors.Join(ses.Err(), res.err), fault.Unavailable, fault.ReasonConnectionLost,
				"the connection to %s was lost before it answered", host.Name).WithOp("sshexec.ask")
		}
		if res.err != nil {
			return nil, fault.Wrap(res.err, fault.Unavailable, fault.ReasonSignalFailed,
				"%s refuses to run the script that signals", host.Name).WithOp("sshexec.ask")
		}
	}
	return lines, nil
}

// lost reports whether the connection is dead, the news of which may come a
// little later than the end of its channels.
func lost(ses Session) bool {
	timer := time.NewTimer(lostWithin)
	defer timer.Stop()
	select {
	case <-ses.Lost:
		return true
	case <-timer.C:
		return false
	}
}

// errUnasked is that of a channel which the host has closed without an answer to
// the exec request.
var errUnasked = errors.New("the host closed the channel before it ran anything")

// converse has the login shell run exec with stdin, and reads its output to the end.
func converse(ses Session, exec string, stdin []byte) ([]byte, error) {
	parted := untilParted(ses)
	go io.Copy(io.Discard, ses.Channel.Stderr())
	ok, err := ses.Channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{exec}))
	if errors.Is(err, io.EOF) {
		return nil, errUnasked
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("exec request refused")
	}
	// A script may answer without having read all of it.
	go func() {
		ses.Channel.Write(stdin)
		ses.Channel.CloseWrite()
	}()
	answer, err := io.ReadAll(io.LimitReader(ses.Channel, maxAnswer))
	parted()
	return answer, err
}

// answerLines picks the lines that bear the nonce, and takes it off; login files
// may have talked before and between.
func answerLines(nonce, answer string) []string {
	var lines []string
	for line := range strings.Lines(answer) {
		if _, said, ok := strings.Cut(line, "telexec:"+nonce+": "); ok && strings.HasSuffix(said, "\n") {
			lines = append(lines, said[:len(said)-1])
		}
	}
	return lines
}
