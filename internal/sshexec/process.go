package sshexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// Process is a command that runs on a host, or has run. Its methods may be
// called concurrently.
type Process struct {
	runner *Runner
	id     string
	host   inventory.Host
	pty    bool
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

	letGo    chan struct{} // closed by Close
	letGo1   sync.Once
	pumps    sync.WaitGroup // the two that carry output
	done     chan struct{}  // closed by attend, the last of all goroutines to look at the channel
	exit     command.Exit   // written before done is closed
	exitErr  error          // so too
	reported bool           // the host told an exit; attend's own until done

	mu      sync.Mutex
	failed  [2]bool            // the sink refused this stream
	sinkErr error              // its errors
	said    [2]strings.Builder // what the host said where nothing started, cut
}

func newProcess(r *Runner, id string, host inventory.Host, spec *command.Spec, ses Session, sink Sink, nonce string) *Process {
	return &Process{
		runner: r, id: id, host: host, pty: spec.Pty != nil, nonce: nonce, ses: ses, sink: sink,
		stdin:   newStdin(spec),
		decided: make(chan struct{}),
		letGo:   make(chan struct{}),
		done:    make(chan struct{}),
	}
}

// run sends the requests and starts the goroutines: feed, which goes on to write
// standard input, one per stream, and attend.
func (p *Process) run(exec, prefix string) {
	greets := command.Stderr
	if p.pty {
		greets = command.Stdout // a terminal has one stream
	}
	p.pumps.Go(func() { p.carry(command.Stdout, p.ses.Channel, greets == command.Stdout) })
	p.pumps.Go(func() { p.carry(command.Stderr, p.ses.Channel.Stderr(), greets == command.Stderr) })
	go p.attend()
	go p.feed(exec, prefix)
}

// decide settles whether it has started; the first call wins.
func (p *Process) decide(g greeting, err error) {
	p.decide1.Do(func() {
		p.started, p.who, p.plainShell, p.startErr = time.Now(), g.identity, g.plainShell, err
		close(p.decided)
	})
}

// lastWords is how long a channel on which nothing started may take to end.
const lastWords = time.Second

// errNoGreeting says that the channel ended and nothing had started.
var errNoGreeting = errors.New("no greeting")

// awaitStart waits for the decision, and words the error.
func (p *Process) awaitStart(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	late := false
	select {
	case <-p.decided:
	case <-timer.C:
		p.decide(greeting{}, fault.New(fault.Unavailable, fault.ReasonStartFailed,
			"%s did not tell within %v that the command started", p.host.Name, limit))
		late = true
	}
	if p.startErr == nil {
		return nil
	}
	if !late {
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
		f = p.notStarted(errors.Is(p.startErr, errNoGreeting))
	}
	if f.Reason == fault.ReasonStartFailed || f.Reason == fault.ReasonExecRefused {
		if said != "" {
			f.Message += fmt.Sprintf("; it said: %s", strings.ToValidUTF8(said, "\uFFFD"))
		}
		f.WithHint("Check that the account has a POSIX shell and no forced command: ssh %s@%s 'exec /bin/sh -c true'",
			p.host.User, p.host.Name)
	}
	return f
}

// notStarted words the end of a channel on which no greeting came.
func (p *Process) notStarted(ended bool) *fault.Error {
	if closed(p.ses.Lost) {
		return fault.Wrap(p.ses.Err(), fault.Unavailable, fault.ReasonConnectionLost,
			"the connection to %s was lost while the command was being started; whether it ran is not known", p.host.Name)
	}
	f := fault.New(fault.FailedPrecondition, fault.ReasonStartFailed, "%s did not start the command", p.host.Name)
	switch {
	case !ended:
		f.Message += ": it printed more than a megabyte before"
	case !closed(p.done):
	case p.exit.Code != nil:
		f.Message += fmt.Sprintf(": what it ran instead ended with exit code %d", *p.exit.Code)
	case p.exit.Signal != "":
		f.Message += fmt.Sprintf(": what it ran instead was ended by signal %s", p.exit.Signal)
	default:
		f.Message += " and closed the channel"
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
func (p *Process) refusal(g greeting, dir string) error {
	switch g.refused {
	case "pty":
		return fault.New(fault.FailedPrecondition, fault.ReasonExecRefused, "%s gives no terminal", p.host.Name).
			WithHint("Run the command without pty, or allow it there (PermitTTY in sshd_config)")
	case "directory denied":
		return fault.New(fault.FailedPrecondition, fault.ReasonBadWorkingDir,
			"%s may not enter the directory %q on %s", p.host.User, dir, p.host.Name).
			WithHint("Give a directory that the login user may enter")
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonBadWorkingDir,
		"there is no directory %q for %s on %s", dir, p.host.User, p.host.Name).
		WithHint("Give an existing directory, absolute or relative to the login directory")
}

// carry reads one stream to its end and gives it to the sink; the stream that
// greets also decides.
func (p *Process) carry(s command.Stream, r io.Reader, greets bool) {
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
func (p *Process) greet(s command.Stream, r io.Reader) bool {
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
			p.decide(greeting{}, errors.New("too much before the greeting"))
			return true
		}
	}
}

// maxSaid is how much of what a host says about a failed start is told.
const maxSaid = 1024

// note keeps the beginning of what comes while nothing has started.
func (p *Process) note(s command.Stream, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if room := maxSaid - p.said[s].Len(); room > 0 {
		p.said[s].Write(data[:min(room, len(data))])
	}
}

// deliver gives output to the sink. Where nothing has started there is none.
func (p *Process) deliver(s command.Stream, data []byte) {
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

// lostWithin is how long the end of a channel may come before the news that its
// whole connection is dead.
const lostWithin = 500 * time.Millisecond

// attend takes the host's requests until the channel ends, waits for the
// streams, and settles how it all ended.
func (p *Process) attend() {
	defer close(p.done)
	for req := range p.ses.Requests {
		switch req.Type {
		case "exit-status":
			var m struct{ Code uint32 }
			if ssh.Unmarshal(req.Payload, &m) == nil {
				code := int(m.Code)
				p.exit, p.reported = command.Exit{Code: &code}, true
			}
		case "exit-signal": // RFC 4254, 6.10
			var m struct {
				Signal     string
				CoreDumped bool
				Message    string
				Language   string
			}
			if ssh.Unmarshal(req.Payload, &m) == nil {
				p.exit, p.reported = command.Exit{Signal: signalName(m.Signal), CoreDumped: m.CoreDumped}, true
			}
		}
		if req.WantReply {
			req.Reply(false, nil) // a dead channel is told by its end
		}
	}
	p.pumps.Wait()
	p.decide(greeting{}, errNoGreeting)
	if !p.reported {
		p.exitErr = p.unreported()
	}
	p.mu.Lock()
	if p.exitErr == nil && p.sinkErr != nil {
		p.exitErr = p.sinkErr
	}
	p.mu.Unlock()
	p.ses.Close()
}

// unreported says why there is no exit.
func (p *Process) unreported() error {
	timer := time.NewTimer(lostWithin)
	defer timer.Stop()
	select {
	case <-p.ses.Lost:
		return fault.Wrap(p.ses.Err(), fault.Unavailable, fault.ReasonConnectionLost,
			"the connection to %s was lost while the command ran; how it ended is not known", p.host.Name).
			WithHint("Look on the host whether it still runs, or cancel it here, before running it again").
			WithOp("sshexec.wait")
	case <-p.letGo:
		return p.releasedError()
	case <-timer.C:
	}
	return fault.New(fault.Unavailable, fault.ReasonNoExitStatus,
		"%s closed the channel without telling how the command ended", p.host.Name).
		WithHint("Look on the host whether it still runs, or cancel it here, before running it again").
		WithOp("sshexec.wait")
}

func (p *Process) releasedError() error {
	return fault.New(fault.Unavailable, fault.ReasonConnectionLost,
		"the service let go of the command on %s while it ran", p.host.Name).WithOp("sshexec.wait")
}

// signalName keeps of a signal's name what can be one. OpenSSH calls a signal
// for which SSH has no name SIG@openssh.com.
func signalName(s string) string {
	s = strings.TrimPrefix(s, "SIG")
	if s == "" || s[0] == '@' || len(s) > 64 || !printable(s) {
		return "UNKNOWN"
	}
	return s
}

// Started is when the host's word that it runs came in.
func (p *Process) Started() time.Time { return p.started }

// Durability is Attached, and why not better.
func (p *Process) Durability() (command.Durability, string) {
	return command.Attached, "it runs on an SSH channel and ends with its connection"
}

// Done is closed when the process has ended and all its output was given to the
// sink, or when that will never be known.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait blocks until Done, or Close, and tells how it ended. Exit has a code or a
// signal exactly where the host has told one; it is never filled in. A fault
// CONNECTION_LOST or NO_EXIT_STATUS means that nobody knows; any other error is
// the sink's: the exit is true, but output is missing.
func (p *Process) Wait() (command.Exit, error) {
	select {
	case <-p.done:
		return p.exit, p.exitErr
	case <-p.letGo:
	}
	select {
	case <-p.done:
		return p.exit, p.exitErr
	default:
		return command.Exit{}, p.releasedError()
	}
}

// Close closes the channel and makes Wait return. The command is not ended by
// it, but loses its streams. OpenSSH answers only when the command has ended, and
// until then Done and the place on the connection wait. After the end it does
// nothing.
func (p *Process) Close() error {
	p.letGo1.Do(func() {
		close(p.letGo)
		p.ses.Channel.Close() // fails where the channel has ended: as wanted
	})
	return nil
}

// sweep ends what may have started although no greeting came: a host that was
// too slow may have had its word under way when we hung up. Without an answer
// nothing more can be done.
func (r *Runner) sweep(ctx context.Context, id string, host inventory.Host) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(sweepTimeout, r.opts.ControlTimeout))
	defer cancel()
	r.climb(ctx, id, host, identity{boot: "-", start: "-"}, 0)
}

const sweepTimeout = 5 * time.Second
