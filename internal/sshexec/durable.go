package sshexec

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// durable is a command that lives on its host. One goroutine, keep, holds the
// connection: it follows the run over one channel after the other until its end
// is known and stored.
//
//	Start, Resume ──▶ keep ──▶ follow ──▶ follow ──▶ … ──▶ ended ──Collected──▶ through
//	                            a channel each, with a pause between
type durable struct {
	runner *Runner
	run    Run
	facts  *facts

	decided chan struct{} // closed by keep when it is known whether it runs
	ended   chan struct{} // closed by keep when its end is known, or never will be
	through chan struct{} // closed by keep, its last act

	letGo       func(cause error) // makes keep end
	removeLater func()            // removes the files, without keep
	collected   chan struct{}     // closed by Collected
	collected1  sync.Once

	// Written by keep: before decided is closed …
	started  time.Time
	startErr *fault.Error // nil: it runs
	// … and before ended is closed.
	ending  command.Ending
	waitErr error

	sudo secret.Text // password, to end what runs as another user

	mu sync.Mutex
	// Guarded by mu.
	who     identity      // pid 0 while it is not known
	dir     string        // where the run lives; empty while that is not known
	key     string        // of the run
	got     command.Sizes // output that the sink has taken
	came    int64         // bytes of standard input that the host has; -1: not known
	sinkErr error

	turn   chan struct{} // capacity 1: held by the Input under way
	inputs bool          // standard input is still open; guarded by turn
	closed atomic.Bool   // Close came before the end

	// keep's own.
	sent     bool      // something may have reached the host
	again    bool      // a start of it was sent more than once
	lostAt   time.Time // since when there is no connection; zero: there is
	told     bool      // Link knows of that
	attempts int       // since then
	report   []string  // what the timeout's ladder has said
	refusal  string    // what the host refused it for
	kept     bool      // the host has files of it that are not wanted any more
	last     string    // the beginning of what it said about that
}

func newDurable(r *Runner, run Run, f *facts) *durable {
	d := &durable{
		runner: r, run: run, facts: f,
		decided: make(chan struct{}), ended: make(chan struct{}), through: make(chan struct{}),
		collected: make(chan struct{}), turn: make(chan struct{}, 1),
		got: run.From, came: -1, inputs: run.Spec.StdinOpen,
		who: identity{boot: "-", start: "-"},
	}
	if run.Spec.Sudo != nil {
		d.sudo = run.Spec.Sudo.Password
	}
	return d
}

// startDurable starts a durable run, or takes up one that mode says may be there.
func (r *Runner) startDurable(ctx context.Context, run Run, mode string) (*durable, error) {
	var f *facts
	for wait := firstPause; ; wait = min(2*wait, longestPause) {
		var err error
		if f, err = r.facts(ctx, run.Host); err == nil {
			break
		}
		// What was started is looked for as long as it takes.
		if mode == modeStart || ctx.Err() != nil {
			return nil, err
		}
		run.link(err)
		if !pause(ctx, jitter(wait)) {
			return nil, fault.Wrap(context.Cause(ctx), fault.Unavailable, fault.ReasonConnectionLost,
				"%s could not be reached; whether the command runs there is not known", run.Host.Name)
		}
	}
	if mode == modeStart && len(run.Spec.Stdin) > 0 {
		if err := r.upload(ctx, run, f); err != nil {
			return nil, err
		}
	}
	d := newDurable(r, run, f)
	life, letGo := context.WithCancelCause(context.WithoutCancel(ctx))
	d.letGo = letGo
	d.removeLater = func() { go d.removeFiles(context.WithoutCancel(ctx)) }
	go d.keep(life, mode)
	select {
	case <-d.decided:
	case <-ctx.Done():
		letGo(context.Cause(ctx))
		<-d.through
		if d.startErr == nil { // it has just begun, and nobody holds it now
			return nil, fault.Wrap(context.Cause(ctx), fault.Unavailable, fault.ReasonConnectionLost,
				"the start of the command on %s was given up when it had begun", run.Host.Name)
		}
	}
	if d.startErr != nil {
		<-d.through
		return nil, d.startErr
	}
	return d, nil
}

// The modes of start.sh.
const (
	modeStart  = "start"
	modeRetry  = "retry"
	modeResume = "resume"
	modeVoid   = "void"
)

// Pauses between attempts to reach a host.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
)

// jitter keeps many that lost the same host from coming back at one time.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// pause is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Run) link(why error) {
	if r.Link != nil {
		r.Link(why)
	}
}

// keep sees the run to its end.
func (d *durable) keep(ctx context.Context, mode string) {
	defer close(d.through)
	defer d.letGo(nil)
	for {
		out := d.attempt(ctx, mode)
		switch {
		case ctx.Err() != nil:
			d.release(ctx)
			return
		case out.through:
			d.cleanUp(ctx)
			return
		case out.again:
			mode = modeResume
			continue
		case out.err == nil:
			// The follower has ended and the run has not: look again.
			out.err = fault.New(fault.Unavailable, fault.ReasonConnectionLost, "what followed the command on %s has ended", d.run.Host.Name)
		case !d.sent && !closed(d.decided):
			d.fail(fault.From(out.err))
			return
		}
		if d.sent && mode == modeStart {
			mode, d.again = modeRetry, true
		}
		if closed(d.decided) {
			mode = modeResume
		}
		if !d.reconnecting(ctx, out.err) {
			return
		}
	}
}

// reconnecting waits before the next attempt; false: there is none.
func (d *durable) reconnecting(ctx context.Context, why error) bool {
	if d.lostAt.IsZero() {
		d.lostAt, d.attempts = time.Now(), 0
	}
	if !d.told {
		d.told = true
		d.run.link(why)
	}
	limit := d.runner.opts.ReconnectTimeout
	if away := time.Since(d.lostAt); away > limit {
		f := fault.Wrap(why, fault.Unavailable, fault.ReasonConnectionLost,
			"%s could not be reached for %v, and how the command ended is not known", d.run.Host.Name, limit).
			WithHint("It may still run there, and what it printed is kept there. Cancel it to end what is left of it").WithOp("sshexec.wait")
		d.fail(f)
		return false
	}
	wait := min(firstPause<<min(d.attempts, 10), longestPause)
	d.attempts++
	if !pause(ctx, jitter(wait)) {
		d.release(ctx)
		return false
	}
	return true
}

// cleanUp removes what the host has of a run that has ended, once that is stored,
// where the follower could not be told to do so.
func (d *durable) cleanUp(ctx context.Context) {
	if !d.kept {
		return
	}
	if d.startErr == nil {
		timer := time.NewTimer(collectIn)
		defer timer.Stop()
		select {
		case <-d.collected:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
	d.removeFiles(ctx)
}

// removeFiles is one attempt; Clean sees to the rest.
func (d *durable) removeFiles(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, d.runner.opts.ControlTimeout)
	defer cancel()
	d.runner.remove(ctx, d.run.Host, d.facts, []string{d.run.ID})
}

// linked notes that the host has answered.
func (d *durable) linked() {
	d.lostAt, d.attempts = time.Time{}, 0
	if d.told {
		d.told = false
		d.run.link(nil)
	}
}

// fail settles that it does not run, or that its end cannot be known.
func (d *durable) fail(f *fault.Error) {
	if !closed(d.decided) {
		d.startErr = f.With("host", d.run.Host.Name)
		close(d.decided)
	}
	d.waitErr = f
	d.end()
}

func (d *durable) end() {
	if !closed(d.ended) {
		close(d.ended)
	}
}

// release ends keep because nobody wants it any more.
func (d *durable) release(ctx context.Context) {
	if closed(d.ended) {
		return
	}
	if !closed(d.decided) && !d.sent {
		d.fail(fault.From(context.Cause(ctx)))
		return
	}
	d.fail(fault.New(fault.Unavailable, fault.ReasonConnectionLost,
		"the service let go of the command on %s; it goes on there", d.run.Host.Name).WithOp("sshexec.wait"))
}

// begun settles that it runs.
func (d *durable) begun(who identity) {
	d.mu.Lock()
	d.who = who
	d.mu.Unlock()
	if !closed(d.decided) {
		d.started = time.Now()
		close(d.decided)
	}
}

// conclude settles the end from the host's words about it: "exit 0 o=17".
func (d *durable) conclude(how string) {
	f := strings.Fields(how)
	incomplete := len(f) > 0 && f[0] == "broken"
	if incomplete {
		f = f[1:]
	}
	if len(f) == 0 {
		f = []string{"torn"}
	}
	host := d.run.Host.Name
	d.kept = true
	end := command.Ending{Truncation: truncation(f[1:], d.headed())}
	var lost *fault.Error
	if strings.HasPrefix(d.refusal, "directory") {
		f = []string{"unstarted"}
	}
	switch code, ok := 0, false; f[0] {
	case "exit":
		if len(f) > 1 {
			code, ok = small(f[1])
		}
		if ok {
			end.Exit.Code = &code
		} else {
			lost = lostFault(fault.ReasonNoExitStatus, "%s has no exit code of the command", host)
		}
	case "signal":
		end.Exit.Signal = "UNKNOWN"
		if len(f) > 1 {
			end.Exit.Signal = signalName(f[1])
		}
		end.Exit.CoreDumped = len(f) > 2 && f[2] == "core"
	case "unstarted":
		lost = d.unstarted(f[1:])
	case "rebooted":
		lost = lostFault(fault.ReasonHostRebooted, "%s was restarted while the command ran", host)
	case "killed":
		lost = lostFault(fault.ReasonSupervisorKilled, "what watched over the command on %s was killed, and how it ended is not known", host)
	default:
		lost = lostFault(fault.ReasonRunRemoved, "what %s kept of the command is damaged", host)
	}
	if lost != nil {
		d.fail(lost)
		return
	}
	if !closed(d.decided) { // it was short, and where it began is not in the spool
		d.begun(identity{boot: "-", start: "-"})
	}
	d.mu.Lock()
	sinkErr := d.sinkErr
	d.mu.Unlock()
	if len(d.report) > 0 {
		if r, err := parseReport(d.report); err == nil {
			end.TimedOut = &r
		}
	}
	d.ending = end
	switch {
	case sinkErr != nil:
		d.waitErr = d.incomplete(sinkErr, "its output could not be kept")
	case incomplete:
		d.waitErr = d.incomplete(nil, "what took its output there was killed")
	}
	d.end()
}

// unstarted words that the command itself has not begun.
func (d *durable) unstarted(why []string) *fault.Error {
	host := d.run.Host
	switch {
	case strings.HasPrefix(d.refusal, "directory"):
		return badDirectory(host, d.run.Spec.WorkingDirectory, d.refusal == "directory denied")
	case len(why) > 0 && why[0] == "nospace":
		return noSpace(host.Name)
	case d.refusal == "sudo" || len(why) > 0 && why[0] == "sudo":
		f := fault.New(fault.FailedPrecondition, fault.ReasonSudoRefused, "sudo on %s did not let the command start", host.Name).
			WithHint("Check the password, and what sudo allows: ssh %s@%s sudo -l", host.User, host.Name)
		if said := strings.TrimSpace(d.last); said != "" {
			f.Message += "; it said: " + strings.ToValidUTF8(said, "\uFFFD")
		}
		return f
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonStartFailed, "%s could not start the command", host.Name).
		WithHint("Nothing of it ran; look whether the host is out of processes or memory, and run it again")
}

func noSpace(host string) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonNoSpace, "there is no space on %s to start the command", host).
		WithHint("Nothing of it ran. Make room in the home directory of the login user there, or run it attached")
}

func lostFault(reason, format string, args ...any) *fault.Error {
	return fault.New(fault.Unavailable, reason, format, args...).
		WithHint("Look on the host what it has done before you run it again").WithOp("sshexec.wait")
}

func (d *durable) incomplete(cause error, why string) error {
	return fault.Wrap(cause, fault.Unavailable, fault.ReasonOutputIncomplete,
		"the command on %s has ended, but %s", d.run.Host.Name, why).
		WithHint("The exit is true. What it printed after the kept output is not known").WithOp("sshexec.wait")
}

// truncation reads o=N and e=N, the sizes of spools that could not take all.
func truncation(words []string, headed bool) *command.Truncation {
	t := command.Truncation{Offset: command.Sizes{-1, -1}, Reason: "the host's disk was full, or the limit of its spool was reached"}
	cut := false
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		n, ok := number(value)
		if !ok {
			continue
		}
		switch name {
		case "o":
			t.Offset[command.Stdout], cut = n, true
		case "e":
			if headed {
				n = max(0, n-int64(headSize))
			}
			t.Offset[command.Stderr], cut = n, true
		}
	}
	if !cut {
		return nil
	}
	return &t
}

// small reads an exit code.
func small(s string) (int, bool) {
	n, ok := number(s)
	return int(n), ok && n <= 255
}

// headed reports whether the spool of standard error begins with a header.
func (d *durable) headed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.who.pid > 0
}

// Started is when the host's word that it runs came in.
func (d *durable) Started() time.Time { return d.started }

// Durability is Durable.
func (d *durable) Durability() (command.Durability, string) { return command.Durable, "" }

// Wait blocks until the command has ended and the sink has all its output.
func (d *durable) Wait() (command.Ending, error) {
	<-d.ended
	return d.ending, d.waitErr
}

// Collected has the run removed from the host.
func (d *durable) Collected() {
	d.collected1.Do(func() {
		close(d.collected)
		if d.closed.Load() { // keep is not there any more
			d.removeLater()
		}
	})
}

// Close lets go of the run without touching it; Wait then returns.
func (d *durable) Close() error {
	d.closed.Store(!closed(d.ended))
	d.letGo(errLetGo)
	<-d.ended
	return nil
}

var errLetGo = errors.New("the service let go of the command")

// hold gives what the scripts need to find the run, and to leave it alone where
// another owner has it.
func (d *durable) hold() (who identity, vars string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.who, fmt.Sprintf("run=%s fence=%d\n", command.Quote(d.dir+"/"+d.run.ID), d.run.Fence)
}

// Signal sends one signal to the command's process group.
func (d *durable) Signal(ctx context.Context, name string) error {
	if closed(d.ended) {
		return notRunning(d.run.Host).WithOp("sshexec.signal")
	}
	who, vars := d.hold()
	return d.runner.signal(ctx, d.run.ID, d.run.Host, who, vars+d.password(), name, false)
}

// Cancel ends the command and all its processes.
func (d *durable) Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error) {
	if closed(d.ended) && d.waitErr == nil {
		return command.CancelReport{Outcome: command.AlreadyEnded, Message: "the command had ended by itself"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, grace+d.runner.opts.ControlTimeout)
	defer cancel()
	who, vars := d.hold()
	return d.runner.climb(ctx, d.run.ID, d.run.Host, who, vars+d.password(), grace)
}

// password lets the ladder reach what sudo has started.
func (d *durable) password() string {
	if d.sudo.IsZero() {
		return ""
	}
	return "password=" + command.Quote(d.sudo.Reveal()) + "\n"
}

// physical gives the offsets in the spools of what comes behind got.
func physical(got command.Sizes) (out, err string) {
	e := got[command.Stderr]
	if e > 0 {
		e += int64(headSize)
	}
	return strconv.FormatInt(got[command.Stdout], 10), strconv.FormatInt(e, 10)
}
