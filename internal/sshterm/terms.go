package sshterm

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
)

// Session is an open session channel and what is to be known of its connection.
type Session = hostshell.Session

// Dialer gives channels to hosts.
type Dialer interface {
	// Open gives a session channel on a working connection to the host, on which
	// no request was sent yet. It ends with an error when ctx does. Many calls may
	// be under way at once. An error is a *fault.Error that says why.
	Open(ctx context.Context, host inventory.Host) (Session, error)
	// OpenFirst is Open for what must not stand in line behind commands that wait
	// for a place.
	OpenFirst(ctx context.Context, host inventory.Host) (Session, error)
}

// Options of Terms. The zero value is ready to use.
type Options struct {
	// StartTimeout is how long a host may take until the shell runs, login files of the
	// exec request included; 0: the host's ConnectTimeout, else 15 s.
	StartTimeout time.Duration
	// ControlTimeout is how long the host may take to answer a question or, on top of
	// the grace, a ladder; 0: 10 s.
	ControlTimeout time.Duration
}

// Terms opens shells on terminals of hosts. Its methods may be called concurrently.
type Terms struct {
	dialer Dialer
	opts   Options
	proc   string // /proc; another one in tests

	// accounts has a *known per account and shell. One small entry each, for a time.
	accounts sync.Map
}

// New makes Terms that reach hosts through d.
func New(d Dialer, opts Options) *Terms {
	if opts.ControlTimeout <= 0 {
		opts.ControlTimeout = 10 * time.Second
	}
	return &Terms{dialer: d, opts: opts, proc: "/proc"}
}

// Spec says what shell to open.
type Spec struct {
	ID     string // of letters, digits, "-" and "_"; of one session alone
	Host   inventory.Host
	Shell  string // path or name; empty: the login shell
	Term   string // empty: xterm-256color
	Size   session.Size
	Keeper session.Keeper // empty: the best there is, or, with Resume, the one that has it
	Nonce  string         // of its marks
	Resume bool           // it was opened before: find it again
}

// Facts are what is known of a shell that was opened.
type Facts struct {
	Kind         string // bash, zsh, fish, dash, ash, ksh, mksh, yash, csh, sh; empty: there is no shell
	Path         string
	Marks        bool // it tells its prompts and the ends of commands
	Keeper       session.Keeper
	KeeperReason string // why nothing keeps it
	PID          int    // 0 where the host does not tell
	// Nested is the line that makes a shell tell marks which was started in this one;
	// empty where there is none.
	Nested string
	// Redraw, after Resume, is what makes a terminal that was reset look right; empty
	// where the keeper draws the screen by itself (screen), or has none to show (dtach).
	Redraw []byte
	// Answers: the keeper is a terminal itself and has answered what programs ask one
	// (DA, DSR, …), so that nobody else should.
	Answers bool
}

// Open starts a shell, or with Resume takes up the one of the same ID, and returns when
// the host has told that it runs. Whoever has had it loses it.
//
// NO_KEEPER: the host does not have the one that was asked for. With Resume
// SESSION_GONE: the host does not have the shell any more, with "exit_code" in the
// metadata where it has ended meanwhile and told one; HOST_REBOOTED. START_FAILED,
// NO_SPACE, INVALID_REQUEST: it cannot be had there, with Resume for now. Everything else is of the
// connection; whether something was started is then not known, and End tells.
func (t *Terms) Open(ctx context.Context, spec Spec) (*Shell, error) {
	s, err := t.open(ctx, spec)
	if err != nil {
		f := fault.From(err)
		if f.Op == "" {
			f.WithOp("sshterm.open")
		}
		return nil, f.With("host", spec.Host.Name)
	}
	return s, nil
}

func (t *Terms) open(ctx context.Context, spec Spec) (*Shell, error) {
	if err := check(&spec); err != nil {
		return nil, err
	}
	if spec.Host.NoShell {
		return t.openBare(ctx, spec, "its configuration says that the host has no shell")
	}
	facts, err := t.facts(ctx, spec.Host, spec.Shell)
	if err != nil {
		return nil, err
	}
	if facts.bare != "" && spec.Resume && spec.Keeper != session.KeptByNone {
		t.forget(spec) // there was a shell, and may be again
		return nil, unreachable(spec, facts.bare)
	}
	if facts.bare != "" {
		return t.openBare(ctx, spec, facts.bare)
	}
	if facts.kind == "" {
		return nil, fault.New(fault.FailedPrecondition, fault.ReasonStartFailed, "%s has no shell %q that can be run", spec.Host.Name, spec.Shell).
			WithHint("Give the path of a shell that is there, or none for the login shell")
	}
	if spec.Resume {
		return t.resume(ctx, spec, facts)
	}
	keepers, reason := facts.keepers(spec.Keeper)
	if spec.Keeper != "" && spec.Keeper != session.KeptByNone && len(keepers) == 0 {
		return nil, noKeeper(spec, reason)
	}
	for _, keeper := range keepers {
		s, err := t.openKept(ctx, spec, facts, keeper, found{dir: place(facts, spec.ID)})
		if failed, ok := err.(keeperFailed); ok {
			reason = keeperNames[keeper] + " does not start: " + string(failed)
			continue
		}
		return s, err
	}
	if spec.Keeper != "" && spec.Keeper != session.KeptByNone {
		return nil, noKeeper(spec, reason)
	}
	return t.openDirect(ctx, spec, facts, reason)
}

// keeperFailed is why a keeper could not be started, in its own words.
type keeperFailed string

func (k keeperFailed) Error() string { return string(k) }

func noKeeper(spec Spec, reason string) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonNoKeeper, "nothing on %s can keep the shell as was asked: %s", spec.Host.Name, reason).
		WithHint("Install %s there, or ask for the best there is, or for none", keeperNames[spec.Keeper])
}

func gone(spec Spec) *fault.Error {
	return fault.New(fault.NotFound, fault.ReasonSessionGone, "%s does not have the shell of the session any more", spec.Host.Name).
		WithHint("Open a new session")
}

// check refuses what no host can be told, whoever let it through, and fills in.
func check(spec *Spec) *fault.Error {
	invalid := func(path, message string) *fault.Error {
		f := fault.New(fault.Invalid, fault.ReasonInvalidRequest, "%s: %s", path, message)
		f.Fields = []fault.Field{{Path: path, Message: message}}
		return f
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if spec.ID == "" || len(spec.ID) > 64 || strings.Trim(spec.ID, letters+"-_") != "" {
		return invalid("id", "must be 1 to 64 letters, digits, - or _")
	}
	if strings.Trim(spec.Shell, letters+"/._+-") != "" || strings.HasPrefix(spec.Shell, "-") || len(spec.Shell) > 4096 {
		return invalid("shell", "a shell is given as a path or a name, with letters, digits and / . _ + - only")
	}
	if spec.Term == "" {
		spec.Term = "xterm-256color"
	}
	if strings.Trim(spec.Term, letters+"+._-") != "" || len(spec.Term) > 64 {
		return invalid("term", "the name of a terminal type has letters, digits and + . _ - only")
	}
	if spec.Size == (session.Size{}) {
		spec.Size = session.DefaultSize
	}
	if spec.Size.Columns < 1 || spec.Size.Columns > 1000 || spec.Size.Rows < 1 || spec.Size.Rows > 1000 {
		return invalid("size", "a terminal has 1 to 1000 columns and rows")
	}
	if strings.Trim(spec.Nonce, letters) != "" {
		return invalid("nonce", "must be letters and digits")
	}
	if _, known := keeperNames[spec.Keeper]; !known {
		return invalid("keeper", "there is none of this name")
	}
	return nil
}

func (t *Terms) startTimeout(host inventory.Host) time.Duration {
	switch {
	case t.opts.StartTimeout > 0:
		return t.opts.StartTimeout
	case host.ConnectTimeout > 0:
		return host.ConnectTimeout
	}
	return 15 * time.Second
}

// launch is a shell to be started: how, and whether it will tell marks.
type launch struct {
	completion.Launch
	marks  bool
	nested string // the line of Facts.Nested
}

// launchOf gives how the shell of a session is started. With marks false it is as at
// any login.
func launchOf(f *facts, spec Spec, marks bool) launch {
	if marks && spec.Nonce != "" {
		if l, ok := completion.Integrate(f.kind, f.path, spec.Nonce); ok {
			line, file := completion.Nested(spec.Nonce)
			files := map[string]string{nestedFile: file}
			for name, content := range l.Files {
				files[name] = content
			}
			l.Files = files
			return launch{Launch: l, marks: true, nested: line}
		}
	}
	argv := []string{f.path, "-l"}
	if f.kind == "" {
		argv = argv[:1]
	}
	return launch{Launch: completion.Launch{Argv: argv}}
}

// nestedFile is the name of the file that completion.Nested's line reads.
const nestedFile = "nested"

// quote gives words as POSIX sh reads them.
func quote(words ...string) string { return command.Quote(words...) }
