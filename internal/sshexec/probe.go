package sshexec

import (
	"context"
	"crypto/rand"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/inventory"
)

// facts is what an account on a host has for durable runs.
type facts struct {
	dirs       []string // where runs may live; a new one goes to the first
	old        []string // where runs may lie, and no new one can be now
	newSession string   // words that make a command the leader of a new session
	follow     string   // tail or poll
	boot       string   // boot id; empty where there is none
	has        []string // tools
}

// known is what is known of an account, and until when.
type known struct {
	turn  chan struct{} // capacity 1: held by who looks or changes
	facts *facts
	why   *fault.Error // why there can be no durable run; nil where facts is set
	until time.Time
	// How the account could not be asked, when, and by which name of a host, which has
	// keys of its own: an answer to all who were waiting for it then.
	err       *fault.Error
	failed    time.Time
	failedFor string
}

// How long an answer of an account holds.
const (
	factsHold = 10 * time.Minute
	whyHold   = time.Minute
)

// maxDir is the length of a directory that still fits in a mark.
const maxDir = markMost - 64

// all gives every directory in which a run may lie.
func (f *facts) all() []string { return slices.Concat(f.dirs, f.old) }

// unseen reports whether the shell can hand a secret on without making it an
// argument of a program.
func (f *facts) unseen() bool { return slices.Contains(f.has, "printf") }

// account tells an account apart. The same address behind other jump hosts is
// another machine.
func account(host inventory.Host) string {
	name := host.User + "@" + host.Address
	for _, hop := range host.Via {
		name += " via " + hop.User + "@" + hop.Address
	}
	return name
}

// facts gives what an account has, asking it where that is not known. NOT_DURABLE
// where runs cannot live there; other errors are those of reaching it.
func (r *Runner) facts(ctx context.Context, host inventory.Host) (*facts, error) {
	if host.NoShell {
		return nil, notDurable(host, "its configuration says that it has no shell")
	}
	v, _ := r.accounts.LoadOrStore(account(host), &known{turn: make(chan struct{}, 1)})
	k := v.(*known)
	asked := time.Now()
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, fault.From(context.Cause(ctx))
	}
	if k.failed.After(asked) && k.failedFor == host.Name {
		return nil, clone(k.err)
	}
	if time.Now().After(k.until) {
		f, why, err := r.probe(ctx, host)
		if err != nil {
			if ctx.Err() == nil { // else it says nothing of the host
				k.err, k.failed, k.failedFor = fault.From(err), time.Now(), host.Name
				err = clone(k.err)
			}
			return nil, err
		}
		k.facts, k.why, k.until = f, why, time.Now().Add(factsHold)
		if why != nil {
			k.until = time.Now().Add(whyHold)
		}
	}
	if k.why != nil {
		return nil, clone(k.why)
	}
	return k.facts, nil
}

// clone gives an error that its owner may add to.
func clone(f *fault.Error) *fault.Error {
	c := *f
	c.Metadata = maps.Clone(f.Metadata)
	return &c
}

// forget has an account asked anew.
func (r *Runner) forget(host inventory.Host) { r.accounts.Delete(account(host)) }

var probeScript = hostshell.Places + remoteScript("probe.sh") + "probe\n"

func (r *Runner) probe(ctx context.Context, host inventory.Host) (*facts, *fault.Error, error) {
	// The limit is for the shell: how long reaching the host may take is the dialer's.
	limit := r.startTimeout(host)
	asking, stop := context.WithCancel(ctx)
	defer stop()
	open := func(ctx context.Context, host inventory.Host) (Session, error) {
		ses, err := r.dialer.OpenFirst(ctx, host)
		if err == nil {
			time.AfterFunc(limit, stop)
		}
		return ses, err
	}
	nonce := rand.Text()
	lines, err := hostshell.Ask(asking, open, host, nonce, "exec /bin/sh", []byte("nonce="+nonce+"\n"+probeScript))
	switch {
	case fault.ReasonOf(err) == fault.ReasonSignalFailed && fault.KindOf(err) != fault.DeadlineExceeded:
		return nil, notDurable(host, "it runs no /bin/sh for this login"), nil
	case err != nil:
		if ctx.Err() == nil && asking.Err() != nil {
			return nil, nil, fault.New(fault.Unavailable, fault.ReasonStartFailed,
				"%s did not answer within %v; nothing was started", host.Name, limit).
				WithHint("Look what its login files do: ssh %s@%s 'exec /bin/sh -c true'", host.User, host.Name).WithOp("sshexec.probe")
		}
		return nil, nil, err
	}
	f, ok := parseFacts(lines)
	switch {
	case !ok && len(lines) > 0:
		return nil, nil, fault.New(fault.Unavailable, fault.ReasonStartFailed, "%s could not tell what it has; nothing was started", host.Name).
			WithHint("Look whether it is out of processes or memory, and run it again").WithOp("sshexec.probe")
	case !ok:
		return nil, notDurable(host, "it runs no /bin/sh for this login"), nil
	case len(f.dirs) == 0:
		return nil, notDurable(host, "there is no directory there that the login user can write and that is its own"), nil
	case f.newSession == "":
		return nil, notDurable(host, "it has neither setsid nor perl nor python3, of which one is needed"), nil
	}
	needs := []string{"awk", "cat", "grep", "mkfifo", "mv", "rm", "sleep", "tail", "wc"}
	if f.follow == "poll" {
		needs = append(needs, "dd")
	}
	for _, tool := range needs {
		if !slices.Contains(f.has, tool) {
			return nil, notDurable(host, "it has no "+tool), nil
		}
	}
	if !slices.Contains(f.has, "proc") && !slices.Contains(f.has, "ps") {
		return nil, notDurable(host, "it has neither /proc nor a ps that tells when a process began"), nil
	}
	return &f, nil, nil
}

// parseFacts reads the answer of probe.sh; ok is false where it is not whole.
func parseFacts(lines []string) (f facts, ok bool) {
	f.follow = "poll"
	for _, line := range lines {
		word, value, _ := strings.Cut(line, " ")
		switch word {
		case "dir", "old":
			switch usable := strings.HasPrefix(value, "/") && len(value) <= maxDir && !strings.ContainsFunc(value, unicode.IsControl); {
			case usable && word == "dir":
				f.dirs = append(f.dirs, value)
			case usable:
				f.old = append(f.old, value)
			}
		case "new_session":
			if hostshell.Printable(value) {
				f.newSession = value
			}
		case "follow":
			if value == "tail" {
				f.follow = value
			}
		case "boot":
			if hostshell.Printable(value) {
				f.boot = value
			}
		case "has":
			f.has = append(f.has, value)
		case "probed":
			return f, true
		}
	}
	return f, false
}

// notDurable says why there can be no durable run.
func notDurable(host inventory.Host, why string) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonNotDurable, "%s cannot keep a command by itself: %s", host.Name, why).
		WithHint("Run it attached: it then ends with its connection").WithOp("sshexec.start")
}

// Probe reports whether an account's commands can be durable: nil, or NOT_DURABLE
// with the reason, or why it could not be asked. START_FAILED: it seems to run
// nothing at all.
func (r *Runner) Probe(ctx context.Context, host inventory.Host) error {
	_, err := r.facts(ctx, host)
	if fault.ReasonOf(err) == fault.ReasonNotDurable && !host.NoShell {
		if f := r.runsNothing(ctx, host); f != nil {
			return f
		}
	}
	return err
}

// runsNothing tells, by an error that has its words, an account that answers to
// every exec request with the same refusal, as nologin does; nil where it does not.
// A command line of another kind than sh's knows "exit", or says what it is that it
// does not know, or has nothing against no command at all, for which sshd starts
// the shell as at a login.
func (r *Runner) runsNothing(ctx context.Context, host inventory.Host) *fault.Error {
	ctx, stop := context.WithTimeout(ctx, r.startTimeout(host))
	defer stop()
	first, ok := r.reply(ctx, host, "exec /bin/sh -c exit")
	if !ok || first.code == 0 {
		return nil
	}
	for _, exec := range []string{"exit", ""} {
		if next, ok := r.reply(ctx, host, exec); !ok || next != first {
			return nil
		}
	}
	f := fault.New(fault.FailedPrecondition, fault.ReasonStartFailed,
		"%s runs nothing for %s: it ends every request with exit code %d", host.Name, host.User, first.code).
		WithHint("Give the account a login shell; if it runs only certain commands, say shell: none in the host's configuration").
		WithOp("sshexec.probe")
	if words := strings.TrimSpace(first.words); words != "" {
		f.Message += itSaid(words)
	}
	return f
}

// reply is what came of an exec request.
type reply struct {
	code  uint32
	words string // the beginning of both streams
}

// reply gives what the host makes of an exec request with no input; ok is false
// where it has told no exit code.
func (r *Runner) reply(ctx context.Context, host inventory.Host, exec string) (is reply, ok bool) {
	ses, err := r.dialer.OpenFirst(ctx, host)
	if err != nil {
		return is, false
	}
	defer ses.Close()
	defer context.AfterFunc(ctx, func() { ses.Close() })()
	if did, err := ses.Channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{exec})); err != nil || !did {
		return is, false
	}
	ses.Channel.CloseWrite()
	var streams [2][]byte
	var reading sync.WaitGroup
	for i, from := range []io.Reader{ses.Channel, ses.Channel.Stderr()} {
		reading.Go(func() { streams[i], _ = io.ReadAll(io.LimitReader(from, maxRefusal)) })
	}
	for req := range ses.Requests {
		var status struct{ Code uint32 }
		if req.Type == "exit-status" && ssh.Unmarshal(req.Payload, &status) == nil {
			is.code, ok = status.Code, true
		}
		if req.WantReply {
			req.Reply(false, nil)
		}
	}
	reading.Wait()
	is.words = string(streams[0]) + string(streams[1])
	return is, ok && ctx.Err() == nil
}
