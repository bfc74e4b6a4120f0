package sshexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/inventory"
)

// attached is a command that runs on a channel, or has run. Its methods may be
// called concurrently.
type attached struct {
	runner *Runner
	id     string
	host   inventory.Host
	pty    bool
	bare   bool // see bare.go
	sudo   bool // it goes through sudo
	nonce  string
	ses    Session
	sink   Sink
	stdin  stdin

	// decided is closed, by decide, once it is known whether the command has
	// started; started, who, plainShell and startErr do not change after that.
	decided    chan struct{}
	decide1    sync.Once
	started    time.Time
	who        identity
	plainShell bool
	startErr   error // nil: it has started

	letGo   chan struct{} // closed by Close
	letGo1  sync.Once
	pumps   sync.WaitGroup // the two that carry output
	done    chan struct{}  // closed by attend, the last of all goroutines to look at the channel
	exitErr error          // written before done is closed
	orderly bool           // so too: the host itself has closed the channel, behind all its output
	unheard bool           // so too: a greeting came when nobody waited for it any more

	mu       sync.Mutex
	exit     command.Exit       // does not change once reported
	reported bool               // the host told an exit
	failed   [2]bool            // the sink refused this stream
	sinkErr  error              // its errors
	said     [2]strings.Builder // what the host said where nothing started, cut
}

func newAttached(r *Runner, id string, host inventory.Host, spec *command.Spec, ses Session, sink Sink, nonce string) *attached {
	return &attached{
		runner: r, id: id, host: host, pty: spec.Pty != nil, sudo: spec.Sudo != nil, nonce: nonce, ses: ses, sink: sink,
		stdin:   newStdin(spec),
		decided: make(chan struct{}),
		letGo:   make(chan struct{}),
		done:    make(chan struct{}),
	}
}

// run sends the requests and starts the goroutines: feed, which goes on to write
// standard input, one per stream, and attend.
func (p *attached) run(ctx context.Context, exec, prefix string) {
	greets := command.Stderr
	if p.pty {
		greets = command.Stdout // a terminal has one stream
	}
	p.pumps.Go(func() { p.carry(command.Stdout, p.ses.Channel, !p.bare && greets == command.Stdout) })
	p.pumps.Go(func() { p.carry(command.Stderr, p.ses.Channel.Stderr(), !p.bare && greets == command.Stderr) })
	go p.attend(ctx)
	go p.feed(exec, prefix)
}

// decide settles whether it has started; the first call wins.
func (p *attached) decide(g greeting, err error) {
	p.decide1.Do(func() {
		p.started, p.who, p.plainShell, p.startErr = time.Now(), g.identity, g.plainShell, err
		close(p.decided)
	})
}

// lastWords is how long a channel on which nothing started may take to end.
const lastWords = time.Second

// What can stand in the place of a greeting.
var (
	errNoGreeting = errors.New("no greeting") // the stream has ended without
	errChatter    = errors.New("too much before the greeting")
	errLate       = errors.New("no greeting in time")
)

// awaitStart waits for the decision, and words the error: nil when it has
// started.
//
// That it has not started is said only on proof: the script refused, or the host
// has ended in good order the stream that it greets on, without a greeting. That
// nothing of it is to be found afterwards would prove nothing, since a short
// command may have ended by then; and a greeting that was written just before we
// hang up is dropped by the server.
func (p *attached) awaitStart(limit time.Duration) *fault.Error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.decided:
	case <-timer.C:
		p.decide(greeting{}, errLate)
		<-p.decided
	}
	if p.startErr == nil {
		return nil
	}
	if p.startErr != errLate {
		// What the host says about it arrives until the channel ends, which need not
		// be at all.
		timer.Reset(lastWords)
		select {
		case <-p.done:
		case <-timer.C:
		}
	}
	p.mu.Lock()
	said := strings.TrimSpace(p.said[command.Stderr].String() + "\n" + p.said[command.Stdout].String())
	p.mu.Unlock()
	f, ok := errors.AsType[*fault.Error](p.startErr)
	if !ok {
		f = p.notStarted(limit)
	}
	unexplained := f.Hint == "" // what the script refused it has explained, and said nothing else
	if unexplained && (f.Reason == fault.ReasonStartFailed || f.Reason == fault.ReasonExecRefused || f.Reason == fault.ReasonNoExitStatus) {
		if said != "" {
			f.Message += itSaid(said)
		}
		f.WithHint("Check that the account has a POSIX shell and no forced command: ssh %s@%s 'exec /bin/sh -c true'",
			p.host.User, p.host.Name)
	}
	return f
}

// notStarted says what it means that no greeting was heard.
func (p *attached) notStarted(limit time.Duration) *fault.Error {
	done := closed(p.done)
	switch {
	case closed(p.ses.Lost), done && !p.orderly:
		return fault.Wrap(p.lostCause(), fault.Unavailable, fault.ReasonConnectionLost,
			"the connection to %s was lost while the command was being started; whether it ran is not known", p.host.Name)
	case p.startErr == errLate:
		return fault.New(fault.Unavailable, fault.ReasonNoExitStatus,
			"%s did not tell within %v that the command started; whether it ran is not known", p.host.Name, limit)
	case p.startErr == errChatter && (!done || p.unheard):
		return fault.New(fault.Unavailable, fault.ReasonNoExitStatus,
			"%s printed more than a megabyte before the command; whether it ran is not known", p.host.Name)
	}
	f := fault.New(fault.FailedPrecondition, fault.ReasonStartFailed, "%s did not start the command", p.host.Name)
	switch {
	case p.startErr == errChatter:
		f.Message += ": it printed more than a megabyte before"
	case !done:
	case p.exit.Code != nil:
		f.Message += fmt.Sprintf(": what it ran instead ended with exit code %d", *p.exit.Code)
	case p.exit.Signal != "":
		f.Message += fmt.Sprintf(": what it ran instead was ended by signal %s", p.exit.Signal)
	default:
		f.Message += " and closed the channel"
	}
	return f
}

// mayHaveStarted reports whether an error of a start leaves that open.
func mayHaveStarted(f *fault.Error) bool {
	return f.Reason == fault.ReasonNoExitStatus || f.Reason == fault.ReasonConnectionLost
}

// swept adds to the error of a start what the sweep has found.
func swept(f *fault.Error, found command.CancelReport) *fault.Error {
	switch found.Outcome {
	case command.AlreadyEnded:
		if mayHaveStarted(f) {
			f.Message += "; nothing of it runs there now"
		}
		return f
	case command.Gone:
		f.Message += "; what was found of it there was ended"
	case command.Left:
		f.Message += "; of what was found of it there, " + found.Message
	default:
		f.Message += "; what is left of it could not be found out: " + found.Message
	}
	if !mayHaveStarted(f) {
		f.Kind, f.Reason = fault.Unavailable, fault.ReasonNoExitStatus
	}
	return f
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// refusal words a greeting that says no.
func (p *attached) refusal(g greeting, dir string) error {
	switch g.refused {
	case "pty":
		return fault.New(fault.FailedPrecondition, fault.ReasonExecRefused, "%s gives no terminal", p.host.Name).
			WithHint("Run the command without pty, or allow it there (PermitTTY in sshd_config)")
	case "directory denied":
		return badDirectory(p.host, dir, true)
	}
	return badDirectory(p.host, dir, false)
}

// badDirectory says that a command cannot run in a directory.
func badDirectory(host inventory.Host, dir string, denied bool) *fault.Error {
	if denied {
		return fault.New(fault.FailedPrecondition, fault.ReasonBadWorkingDir,
			"%s may not enter the directory %q on %s", host.User, dir, host.Name).
			WithHint("Give a directory that the login user may enter")
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonBadWorkingDir,
		"there is no directory %q for %s on %s", dir, host.User, host.Name).
		WithHint("Give an existing directory, absolute or relative to the login directory")
}

// carry reads one stream to its end and gives it to the sink; the stream that
// greets also decides.
func (p *attached) carry(s command.Stream, r io.Reader, greets bool) {
	if greets && !p.greet(s, r) {
		return
	}
	var buf readBuffer
	defer buf.release()
	for {
		n, err := r.Read(buf.space())
		if n > 0 {
			// Output may overtake the greeting, which comes on the other stream; or it
			// is what a host says that starts nothing.
			early := !closed(p.decided)
			if early {
				p.note(s, buf.data[:n])
				<-p.decided
			}
			if p.startErr == nil {
				p.deliver(s, buf.data[:n])
			} else if !early {
				p.note(s, buf.data[:n])
			}
			buf.took(n)
		}
		if err != nil {
			return
		}
	}
}

// greet reads until the greeting and delivers what stands around it. It is false
// when the stream ended without one.
func (p *attached) greet(s command.Stream, r io.Reader) bool {
	var head []byte
	buf := make([]byte, 1024)
	for {
		n, err := r.Read(buf)
		head = append(head, buf[:n]...)
		p.note(s, buf[:n])
		if g, before, after, ok := findGreeting(p.nonce, head); ok {
			if g.refused != "" {
				p.decide(g, p.refusal(g, p.stdin.dir))
			} else {
				p.decide(g, nil)
			}
			p.deliver(s, before)
			p.deliver(s, after)
			return true
		}
		if err != nil {
			p.decide(greeting{}, errNoGreeting)
			return false
		}
		if len(head) > maxChatter {
			p.decide(greeting{}, errChatter)
			p.overhear(r, head)
			return false
		}
	}
}

// overhear reads a stream on which there was too much to the end, and notes
// whether the greeting came after all.
func (p *attached) overhear(r io.Reader, head []byte) {
	buf := make([]byte, largeRead)
	for {
		// What may be the beginning of a greeting, which is longer than its line by
		// less than the nonce with all around it.
		head = append(head[:0], head[max(0, len(head)-2*maxGreeting):]...)
		n, err := r.Read(buf)
		head = append(head, buf[:n]...)
		if g, _, _, ok := findGreeting(p.nonce, head); ok {
			p.unheard = p.unheard || g.refused == ""
		}
		if err != nil {
			return
		}
	}
}

// maxSaid is how much of what a host says about a failed start is told.
const maxSaid = 1024

// note keeps the beginning of what comes while nothing has started.
func (p *attached) note(s command.Stream, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if room := maxSaid - p.said[s].Len(); room > 0 {
		p.said[s].Write(data[:min(room, len(data))])
	}
}

// deliver gives output to the sink. Where nothing has started there is none.
func (p *attached) deliver(s command.Stream, data []byte) {
	if len(data) == 0 || p.startErr != nil {
		return
	}
	p.mu.Lock()
	failed := p.failed[s]
	p.mu.Unlock()
	if failed {
		return
	}
	if err := p.sink(s, data); err != nil {
		p.mu.Lock()
		p.failed[s] = true
		p.sinkErr = errors.Join(p.sinkErr, err)
		p.mu.Unlock()
	}
}

// attend takes the host's requests until the channel ends, waits for the
// streams, and settles how it all ended.
func (p *attached) attend(ctx context.Context) {
	defer close(p.done)
	var told time.Time // when the exit came
	for req := range p.ses.Requests {
		switch req.Type {
		case "exit-status":
			var m struct{ Code uint32 }
			if ssh.Unmarshal(req.Payload, &m) == nil {
				code := int(m.Code)
				p.report(command.Exit{Code: &code})
				told = time.Now()
			}
		case "exit-signal": // RFC 4254, 6.10
			var m struct {
				Signal     string
				CoreDumped bool
				Message    string
				Language   string
			}
			if ssh.Unmarshal(req.Payload, &m) == nil {
				p.report(command.Exit{Signal: signalName(m.Signal), CoreDumped: m.CoreDumped})
				told = time.Now()
			}
		}
		if req.WantReply {
			req.Reply(false, nil) // a dead channel is told by its end
		}
	}
	tail, ours := time.Since(told), closed(p.letGo)
	p.pumps.Wait()
	p.mu.Lock()
	reported, sinkErr := p.reported, p.sinkErr
	p.mu.Unlock()
	p.orderly = !ours && p.endedInOrder(ctx, reported, tail)
	p.decide(greeting{}, errNoGreeting)
	switch {
	case !reported:
		p.exitErr = p.unreported()
	case sinkErr != nil:
		p.exitErr = p.incomplete(sinkErr, "its output could not be kept")
	case p.orderly:
	case ours:
		p.exitErr = p.released()
	default:
		// A server tells the exit past the window, that is before the output that
		// still waits for room in it.
		p.exitErr = p.incomplete(p.lostCause(), "the connection was lost before all of its output had come")
	}
	p.ses.Close()
}

// report notes how the command ended; the first word counts.
func (p *attached) report(exit command.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reported {
		p.exit, p.reported = exit, true
	}
}

// endedInOrder tells, once the channel has ended and its streams are read, whether
// the host has ended it: then all its output has come. The streams of a
// connection that dies end just the same, and the news of that comes right
// behind. tail is how long before the end of the channel the exit was told; a
// long one leaves much time for losing the rest, and is worth a question.
func (p *attached) endedInOrder(ctx context.Context, reported bool, tail time.Duration) bool {
	if reported && tail < longTail {
		// Not with a timer: one costs a millisecond where nothing else happens.
		for end := time.Now(); time.Since(end) < deadAtOnce; runtime.Gosched() {
			if closed(p.ses.Lost) {
				return false
			}
		}
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, aliveWithin)
	defer cancel()
	return p.ses.Alive(ctx) == nil
}

const (
	longTail    = 5 * time.Millisecond  // an ordinary command's exit and end come in one packet
	deadAtOnce  = 50 * time.Microsecond // a dead connection ends its channels and says so in one go
	aliveWithin = 5 * time.Second       // how long the host may take to give a sign of life
)

// lostCause is why the connection is dead, nil where that is not known.
func (p *attached) lostCause() error {
	if hostshell.Lost(p.ses) {
		return p.ses.Err()
	}
	return nil
}

// unreported says why there is no exit.
func (p *attached) unreported() error {
	const hint = "Look on the host whether it still runs, and what it has done, before running it again"
	if p.orderly {
		return fault.New(fault.Unavailable, fault.ReasonNoExitStatus,
			"%s closed the channel without telling how the command ended", p.host.Name).
			WithHint(hint).WithOp("sshexec.wait")
	}
	if closed(p.letGo) && !closed(p.ses.Lost) {
		return p.released()
	}
	return fault.Wrap(p.lostCause(), fault.Unavailable, fault.ReasonConnectionLost,
		"the connection to %s was lost while the command ran; how it ended is not known", p.host.Name).
		WithHint(hint).WithOp("sshexec.wait")
}

// released is what Wait says behind Close.
func (p *attached) released() error {
	p.mu.Lock()
	reported := p.reported
	p.mu.Unlock()
	if reported {
		return p.incomplete(nil, "the service let go of it while its output was still open")
	}
	return fault.New(fault.Unavailable, fault.ReasonConnectionLost,
		"the service let go of the command on %s while it ran", p.host.Name).WithOp("sshexec.wait")
}

// incomplete says why there is an exit, and not all of the output.
func (p *attached) incomplete(cause error, why string) error {
	return fault.Wrap(cause, fault.Unavailable, fault.ReasonOutputIncomplete,
		"the command on %s has ended, but %s", p.host.Name, why).
		WithHint("The exit is true. What it printed after the kept output is not known").WithOp("sshexec.wait")
}

// signalName keeps of a signal's name what can be one. OpenSSH calls a signal
// for which SSH has no name SIG@openssh.com.
func signalName(s string) string {
	s = strings.TrimPrefix(s, "SIG")
	if s == "" || s[0] == '@' || len(s) > 64 || !hostshell.Printable(s) {
		return "UNKNOWN"
	}
	return s
}

// Started is when the host's word that it runs came in.
func (p *attached) Started() time.Time { return p.started }

// Durability is Attached, and why not better.
func (p *attached) Durability() (command.Durability, string) {
	if p.bare {
		return command.Attached, "its host has no shell"
	}
	return command.Attached, "it runs on an SSH channel and ends with its connection"
}

// Done is closed when the process has ended and all its output was given to the
// sink, or when that will never be known.
func (p *attached) Done() <-chan struct{} { return p.done }

// Wait blocks until Done, or Close, and tells how it ended. Exit has a code or a
// signal exactly where the host has told one; it is never filled in.
//
// Without an error the exit is true and the sink has all the output. A fault
// OUTPUT_INCOMPLETE means that the exit is true, but output is missing behind
// what the sink has taken: the connection died on the way, the sink failed (the
// fault wraps its error), or Close was called while a child of the command still
// held the output. Any other error, that is CONNECTION_LOST or NO_EXIT_STATUS,
// means that nobody knows how it ended.
func (p *attached) Wait() (command.Ending, error) {
	select {
	case <-p.done:
	case <-p.letGo:
		if !closed(p.done) {
			// The exit after the error: what is told in between is not lost.
			err := p.released()
			p.mu.Lock()
			defer p.mu.Unlock()
			if fault.ReasonOf(err) != fault.ReasonOutputIncomplete {
				return command.Ending{}, err
			}
			return command.Ending{Exit: p.exit}, err
		}
	}
	return command.Ending{Exit: p.exit}, p.exitErr
}

// Close closes the channel and makes Wait return. The command is not ended by
// it, but loses its streams. OpenSSH answers only when the command has ended, and
// until then Done and the place on the connection wait. After the end it does
// nothing.
func (p *attached) Close() error {
	p.letGo1.Do(func() {
		close(p.letGo)
		p.ses.Channel.Close() // fails where the channel has ended: as wanted
	})
	return nil
}

// Collected does nothing: the host keeps nothing of an attached run.
func (p *attached) Collected() {}

// sweep ends what may have started although no greeting came: a host that was
// too slow may have had its word under way when we hung up.
func (r *Runner) sweep(ctx context.Context, id string, host inventory.Host) command.CancelReport {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(sweepTimeout, r.opts.ControlTimeout))
	defer cancel()
	report, _ := r.climb(ctx, id, host, identity{boot: "-", start: "-"}, "", 0) // which says the error as well
	return report
}

const sweepTimeout = 5 * time.Second
