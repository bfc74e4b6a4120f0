package sshexec

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// durable is a command that lives on its host. One goroutine, keep, holds the
// connection: it follows the run over one channel after the other until its end
// is known and stored.
//
//	Start, Resume ──▶ keep ──▶ attempt ──▶ attempt ──▶ … ──▶ ended ──Collected──▶ through
//	                           a channel each, with a pause between
type durable struct {
	runner *Runner
	run    Run
	sudo   secret.Text // password, to end what runs as another user

	decided chan struct{} // closed by keep when it is known whether it runs
	ended   chan struct{} // closed by keep when its end is known, or never will be
	through chan struct{} // closed by keep, its last act

	letGo      func(cause error) // makes keep end
	collected  chan struct{}     // closed by Collected
	collected1 sync.Once
	remove1    sync.Once
	remove     func() // removes the files, without keep

	// Written by keep: before decided is closed …
	started  time.Time
	startErr *fault.Error // nil: it runs
	// … and before ended is closed.
	ending  command.Ending
	waitErr error

	mu sync.Mutex
	// Guarded by mu.
	who     identity                   // pid 0 while it is not known
	dir     string                     // where the run lives; empty while that is not known
	got     command.Sizes              // output that the sink has taken
	refused [len(command.Streams)]bool // by the sink: it gets no more of it
	sinkErr error                      // why
	said    string                     // the beginning of standard error before it was decided
	came    int64                      // bytes of standard input that the host has; -1: not known

	turn   chan struct{} // capacity 1: held by the Input under way
	inputs bool          // standard input is still open; guarded by turn

	// keep's own, and anybody's once it is through.
	facts    *facts
	key      string    // of the run
	first    string    // the mode of the first attempt
	uploaded bool      // the host has the standard input that is sent before
	fresh    bool      // what the host has was asked anew because its directory was gone
	sent     bool      // something may have reached the host, also from an owner before
	again    bool      // we have sent a start more than once
	early    int       // connections that broke before anything was sent
	mute     int       // attempts that the host has ended without a word
	kept     bool      // the host may have files of it
	claimed  bool      // the host has said that it has it
	lostAt   time.Time // since when there is no connection; zero: there is
	told     bool      // Link knows of that
	linkedAt time.Time // when the host has last answered
	attempts int       // since it was last connected for steady
	report   []string  // what the timeout's ladder has said
}

func newDurable(r *Runner, run Run, mode string) *durable {
	d := &durable{
		runner: r, run: run, first: mode, sent: mode != modeStart,
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
	d := newDurable(r, run, mode)
	life, letGo := context.WithCancelCause(context.WithoutCancel(ctx))
	d.letGo = letGo
	d.remove = func() {
		d.remove1.Do(func() {
			if d.kept {
				go d.removeFiles(context.WithoutCancel(ctx))
			}
		})
	}
	go d.keep(life, mode)
	select {
	case <-d.decided:
	case <-ctx.Done():
		letGo(context.Cause(ctx))
		<-d.ended
		if d.startErr == nil { // it has just begun, and nobody holds it now
			return nil, fault.Wrap(context.Cause(ctx), fault.Unavailable, fault.ReasonConnectionLost,
				"the start of the command on %s was given up when it had begun", run.Host.Name)
		}
	}
	if d.startErr != nil {
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

// Pauses between attempts to reach a host. Where followers die as soon as they
// have begun, the pauses grow too.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
	steady       = 5 * time.Second
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

// keep sees the run to its end.
func (d *durable) keep(ctx context.Context, mode string) {
	defer func() {
		d.letGo(nil)
		close(d.through)
		if closed(d.collected) {
			d.remove()
		}
	}()
	for {
		out := d.attempt(ctx, mode)
		switch {
		case out.through:
			d.cleanUp(ctx)
			return
		case ctx.Err() != nil:
			d.release(ctx)
			return
		case out.next != "":
			mode = out.next
			continue
		case out.err == nil:
			// The follower has ended and the run has not: look again.
			out.err = fault.New(fault.Unavailable, fault.ReasonConnectionLost, "what followed the command on %s has ended", d.run.Host.Name)
		case !closed(d.decided) && d.unsent(mode, out.err) && !d.lostEarly(out.err):
			d.fail(fault.From(out.err))
			return
		}
		switch {
		case closed(d.decided), d.claimed && mode != modeVoid:
			mode = modeResume
		case d.sent && mode == modeStart:
			mode, d.again = modeRetry, true
		}
		if !d.reconnecting(ctx, out.err) {
			return
		}
	}
}

// unsent reports whether err proves that nothing has been started: nothing was
// sent, or the host could never have kept it.
func (d *durable) unsent(mode string, err error) bool {
	return !d.sent || mode == modeRetry && (!d.again || d.mute > 1) && fault.ReasonOf(err) == fault.ReasonNotDurable
}

// earlyMost is how many connections are tried that break before anything was sent.
const earlyMost = 5

// lostEarly reports whether there is to be another attempt at a start of which
// nothing was sent: the host was there, and the connection broke.
func (d *durable) lostEarly(err error) bool {
	if d.sent || fault.ReasonOf(err) != fault.ReasonConnectionLost {
		return false
	}
	d.early++
	return d.early < earlyMost
}

// reconnecting waits before the next attempt; false: there is none.
func (d *durable) reconnecting(ctx context.Context, why error) bool {
	if d.lostAt.IsZero() {
		d.lostAt = time.Now()
		if time.Since(d.linkedAt) > steady {
			d.attempts = 0
		}
	}
	if !d.told {
		d.told = true
		d.link(why)
	}
	limit := d.runner.opts.ReconnectTimeout
	if away := time.Since(d.lostAt); away > limit {
		d.kept = false // not ours to remove while it lives; Clean will when it does not
		d.fail(fault.Wrap(why, fault.Unavailable, fault.ReasonConnectionLost,
			"%s could not be reached for %v, and how the command ended is not known", d.run.Host.Name, limit).
			WithHint("It may still run there, and what it printed is kept there. Cancel it to end what is left of it").WithOp("sshexec.wait"))
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

// linked notes that the host has answered.
func (d *durable) linked() {
	d.lostAt, d.linkedAt = time.Time{}, time.Now()
	if d.told {
		d.told = false
		d.link(nil)
	}
}

func (d *durable) link(why error) {
	if d.run.Link != nil {
		d.run.Link(why)
	}
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
	if ctx.Err() == nil && d.removeFiles(ctx) == nil {
		d.kept = false
	}
}

// removeFiles is one attempt; Clean sees to the rest.
func (d *durable) removeFiles(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.runner.opts.ControlTimeout)
	defer cancel()
	if d.facts == nil {
		return nil
	}
	_, err := d.runner.remove(ctx, d.run.Host, d.facts, strconv.FormatInt(d.run.Fence, 10), []string{d.run.ID})
	return err
}

// fail settles that it does not run, or that its end cannot be known.
func (d *durable) fail(f *fault.Error) {
	if closed(d.ended) {
		return
	}
	if !closed(d.decided) {
		d.startErr = f.With("host", d.run.Host.Name)
		close(d.decided)
	}
	d.waitErr = f
	close(d.ended)
}

// release ends keep because nobody wants it any more.
func (d *durable) release(ctx context.Context) {
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
		if closed(d.through) {
			d.remove()
		}
	})
}

// Close lets go of the run without touching it; Wait then returns. A sink that is
// at work is not waited for, and gets nothing more.
func (d *durable) Close() error {
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
	vars = fmt.Sprintf("run=%s fence=%d\n", command.Quote(d.dir+"/"+d.run.ID), d.run.Fence)
	if d.run.Spec.Sudo != nil {
		vars += "through=yes\n"
	}
	if !d.sudo.IsZero() && d.facts.unseen() { // to reach what sudo has started
		vars += "password=" + command.Quote(d.sudo.Reveal()) + "\n"
	}
	return d.who, vars
}

// over says why nothing more reaches the command, once ended is closed: that it has
// ended only where that is so.
func (d *durable) over() *fault.Error {
	if fault.ReasonOf(d.waitErr) != fault.ReasonConnectionLost {
		return notRunning(d.run.Host)
	}
	return fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the service has let go of the command on %s, where it may go on", d.run.Host.Name).
		WithHint("Try again in a moment").WithRetry(time.Second)
}

// Signal sends one signal to the command's process group.
func (d *durable) Signal(ctx context.Context, name string) error {
	if closed(d.ended) {
		return d.over().WithOp("sshexec.signal")
	}
	who, vars := d.hold()
	return d.runner.signal(ctx, d.run.ID, d.run.Host, who, vars, name, false)
}

// Cancel ends the command and all its processes. It asks the host also when the
// command is known to have ended: something of it may live on.
func (d *durable) Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error) {
	ctx, cancel := context.WithTimeout(ctx, grace+d.runner.opts.ControlTimeout)
	defer cancel()
	who, vars := d.hold()
	return d.runner.climb(ctx, d.run.ID, d.run.Host, who, vars, grace)
}
