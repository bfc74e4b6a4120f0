package sshexec

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/inventory"
)

// Dialer gives channels to hosts.
type Dialer interface {
	// Open gives a session channel on a working connection to the host, on which
	// no request was sent yet. It ends with an error when ctx does. Many calls may
	// be under way at once. An error is a *fault.Error that says why.
	Open(ctx context.Context, host inventory.Host) (Session, error)
	// OpenFirst is Open for what must not stand in line behind commands that wait
	// for a place: cancels, signals, input, and the question what a host can do.
	OpenFirst(ctx context.Context, host inventory.Host) (Session, error)
}

// Session is an open session channel and what is to be known of its connection.
type Session = hostshell.Session

// Options of a Runner. The zero value is ready to use.
type Options struct {
	// StartTimeout is how long a host may take from the exec request to the
	// greeting, login files included; 0: the host's ConnectTimeout, else 15 s.
	StartTimeout time.Duration
	// ControlTimeout is how long the host may take to answer a signal or, on top
	// of the grace, a cancel; 0: 10 s.
	ControlTimeout time.Duration
	// ReconnectTimeout is how long a host may be away until its durable runs are
	// given up; 0: 24 h.
	ReconnectTimeout time.Duration
}

// Runner starts commands on hosts. Its methods may be called concurrently.
type Runner struct {
	dialer   Dialer
	opts     Options
	askAfter time.Duration // of silence a follower is asked how its run is

	// plain has an account whose login shell was last seen to be a
	// plain sh. One small entry per account ever used.
	plain sync.Map

	// accounts has a *known per account. One small entry per account ever used.
	accounts sync.Map
}

// New makes a Runner that reaches hosts through d.
func New(d Dialer, opts Options) *Runner {
	if opts.ControlTimeout <= 0 {
		opts.ControlTimeout = 10 * time.Second
	}
	if opts.ReconnectTimeout <= 0 {
		opts.ReconnectTimeout = 24 * time.Hour
	}
	return &Runner{dialer: d, opts: opts, askAfter: 10 * time.Second}
}

// Run is a command to start, or one that was started.
type Run struct {
	ID       string // of letters, digits, "-" and "_"; none may be the beginning of another
	Host     inventory.Host
	Spec     *command.Spec
	Fence    int64         // of the owner; a host heeds no owner below the highest it has seen
	From     command.Sizes // output that the owner has
	Attached bool          // on the channel, whatever Spec.Durability says
	Void     bool          // Resume: where it has not started, it never will
	Output   Sink
	// Link hears that the connection to a durable run is lost, and with nil that it
	// is back. It does not block.
	Link func(why error)
}

// Process is a command on a host. Its methods may be called concurrently.
type Process interface {
	// Started is when the host's word that it runs came in.
	Started() time.Time
	// Durability is how it lives there, and why not better.
	Durability() (command.Durability, string)
	// Wait blocks until the command has ended and the sink has all its output. With
	// a fault OUTPUT_INCOMPLETE the exit is true but output is missing; any other
	// error means that nobody knows how it ended.
	Wait() (command.Ending, error)
	// Signal sends one signal, by name without SIG, to its process group.
	Signal(ctx context.Context, name string) error
	// Cancel ends it and all its processes, and reports what proves it.
	Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error)
	// Input writes to its standard input and, with eof, closes it.
	Input(ctx context.Context, data []byte, eof bool) (total int64, err error)
	// Collected has removed what the host keeps of it. It does not block.
	Collected()
	// Close lets go of it without touching it; Wait then returns.
	Close() error
}

// Start starts a command and returns when the host has told that it runs.
//
// A durable run is started at most once: where an earlier Start of the same ID
// has got through, this one takes up what that one has started. It goes on
// through lost connections until ctx ends, from then on with CONNECTION_LOST if it
// may have started. NOT_DURABLE: the host cannot keep it; nothing was started.
// NO_SPACE, SUDO_REFUSED, BAD_WORKING_DIRECTORY, START_FAILED: it did not start.
//
// For an attached one see startAttached.
func (r *Runner) Start(ctx context.Context, run Run) (Process, error) {
	if err := checkSpec(run.ID, run.Spec); err != nil {
		return nil, err.WithOp("sshexec.start")
	}
	if run.Attached {
		p, err := r.startAttached(ctx, run.ID, run.Host, run.Spec, run.Output)
		if err != nil {
			return nil, err // not p: a nil pointer in an interface is not nil
		}
		return p, nil
	}
	if run.Spec.Pty != nil {
		return nil, notDurable(run.Host, "a terminal lives on its connection")
	}
	mode := modeStart
	if run.Fence > 1 {
		mode = modeRetry // an owner before may have started it
	}
	return r.take(ctx, run, mode)
}

// Resume takes up a durable run that was started before, and starts nothing.
// RUN_REMOVED: the host has nothing of it. NEVER_STARTED: it did not start and
// never will. SUPERSEDED: a later owner has it. CONNECTION_LOST: ctx has ended.
func (r *Runner) Resume(ctx context.Context, run Run) (Process, error) {
	if err := checkSpec(run.ID, run.Spec); err != nil {
		return nil, err.WithOp("sshexec.resume")
	}
	if run.Void {
		return r.take(ctx, run, modeVoid)
	}
	return r.take(ctx, run, modeResume)
}

func (r *Runner) take(ctx context.Context, run Run, mode string) (Process, error) {
	d, err := r.startDurable(ctx, run, mode)
	if err != nil {
		f := fault.From(err)
		if f.Op == "" {
			f.WithOp("sshexec." + mode)
		}
		return nil, f
	}
	return d, nil
}

// Sink takes the output of a command, in order within a stream. The two streams
// are given by two goroutines, perhaps before Start has returned. It may block:
// the window of the channel then fills and the command waits in its write. Both
// streams share that window (RFC 4254, 5.2), so a stream must not wait for the
// other to go on. It must not keep data, nor change it. After an error it is not
// called again for that stream; what else the stream has is read and dropped.
type Sink = func(s command.Stream, data []byte) error

// startAttached starts a command on a channel and returns when the host has told
// that it runs.
//
// While nothing was sent to the host, the end of ctx ends the attempt with
// fault.Cancelled or fault.DeadlineExceeded; after that ctx is not heeded and
// the host has Options.StartTimeout. An error with reason CONNECTION_LOST or
// NO_EXIT_STATUS means that the command may have started, also where the host
// has merely taken too long; every other one means that it did not:
// BAD_WORKING_DIRECTORY, EXEC_REFUSED (the server takes no exec, or no PTY),
// START_FAILED (what answered is not a POSIX shell), COMMAND_TOO_LONG,
// INVALID_REQUEST, and what the Dialer says.
func (r *Runner) startAttached(ctx context.Context, id string, host inventory.Host, spec *command.Spec, sink Sink) (*attached, error) {
	const op = "sshexec.start"
	if err := checkSpec(id, spec); err != nil {
		return nil, err.WithOp(op)
	}
	if host.NoShell {
		return r.startBare(ctx, id, host, spec, sink)
	}
	account := account(host)
	_, direct := r.plain.Load(account)
	p, ended, err := r.try(ctx, id, host, spec, sink, direct)
	if err != nil && direct && ended && fault.ReasonOf(err) == fault.ReasonStartFailed {
		// Nothing has started, perhaps because the login shell is another one now.
		r.plain.Delete(account)
		p, _, err = r.try(ctx, id, host, spec, sink, false)
	}
	if err != nil {
		f := fault.From(err)
		if f.Op == "" {
			f.WithOp(op)
		}
		return nil, f
	}
	if p.plainShell {
		r.plain.Store(account, nil)
	} else {
		r.plain.Delete(account)
	}
	return p, nil
}

// try is one attempt to start. ended: the host itself has ended the channel.
func (r *Runner) try(ctx context.Context, id string, host inventory.Host, spec *command.Spec, sink Sink, direct bool) (p *attached, ended bool, err error) {
	nonce := rand.Text()
	login, behind := spec, ""
	if spec.Sudo != nil {
		login, behind = throughSudo(spec, id)
	}
	exec, prefix, ok := request(startProgram(nonce, id, login, direct), len(login.Env) > 0, spec.Pty != nil, direct)
	if !ok {
		return nil, false, fault.New(fault.Invalid, fault.ReasonCommandTooLong,
			"the command line, quoted for the login shell, is longer than a host takes on a terminal (%d bytes)", maxExec).
			WithHint("Run it without pty, or put it in a file on the host")
	}
	ses, err := r.dialer.Open(ctx, host)
	if err != nil {
		return nil, false, err
	}
	if err := ctx.Err(); err != nil {
		ses.Close()
		return nil, false, err
	}
	p = newAttached(r, id, host, spec, ses, sink, nonce)
	p.run(context.WithoutCancel(ctx), exec, prefix+behind)
	if f := p.awaitStart(r.startTimeout(host)); f != nil {
		ended = closed(p.done)
		p.Close()
		if !ended && (f.Reason == fault.ReasonStartFailed || mayHaveStarted(f)) {
			f = swept(f, r.sweep(ctx, id, host))
		}
		return nil, ended, f.With("host", host.Name)
	}
	return p, false, nil
}

func (r *Runner) startTimeout(host inventory.Host) time.Duration {
	switch {
	case r.opts.StartTimeout > 0:
		return r.opts.StartTimeout
	case host.ConnectTimeout > 0:
		return host.ConnectTimeout
	}
	return 15 * time.Second
}

// checkSpec refuses what no shell can be told, whoever let it through.
func checkSpec(id string, spec *command.Spec) *fault.Error {
	invalid := func(path, message string) *fault.Error {
		f := fault.New(fault.Invalid, fault.ReasonInvalidRequest, "%s: %s", path, message)
		f.Fields = []fault.Field{{Path: path, Message: message}}
		return f
	}
	if id == "" || len(id) > 64 || strings.Trim(id, letters+digits+"-_") != "" {
		return invalid("id", "must be 1 to 64 letters, digits, - or _")
	}
	if spec.Sudo != nil && spec.Sudo.NeedsPassword && spec.Pty != nil {
		return invalid("sudo.password", "on a terminal sudo asks for it itself")
	}
	const nul = "cannot hold a NUL byte"
	if strings.Contains(spec.CommandLine(), "\x00") {
		return invalid("command", nul)
	}
	if strings.Contains(spec.WorkingDirectory, "\x00") {
		return invalid("working_directory", nul)
	}
	for name, value := range spec.Env {
		if name == "" || digit(name[0]) || strings.Trim(name, letters+digits+"_") != "" {
			return invalid("env", "a name must be letters, digits and _ and not begin with a digit")
		}
		if strings.Contains(value, "\x00") {
			return invalid("env", nul)
		}
	}
	return nil
}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
)

func digit(c byte) bool { return '0' <= c && c <= '9' }
