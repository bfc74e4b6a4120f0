// Command telexec runs commands on remote hosts through a telexec service, and
// looks after them: their output, state, input, signals and end. It is a pure
// gRPC client over pkg/client: whatever it does, any program can do.
//
// main is a shell around run, which gets everything from outside in an Env, so
// that tests call the same. Each subcommand is a struct with its flags and a Run
// method, in the file of its name:
//
//	cli.go      the grammar: global flags and the list of subcommands
//	execute.go terminal.go sudo.go redact.go  run: start a command and be its terminal; signals, input, secrets
//	logs.go wait.go status.go cancel.go input.go list.go events.go hosts.go server.go complete.go
//	task.go plan.go follow.go steplist.go  plans of several steps: their file, and how they go
//	approvals.go decide.go policy.go  what waits for a yes, and what the rules say
//	session.go opening.go keys.go attach.go typing.go outbox.go remark.go screen.go replay.go  sessions, and the terminal here as theirs
//	token.go audit.go  API keys, and what was done
//	given.go    flags that were given an empty value
//	link.go     what is told while a host is away
//	exact.go    how a request is shown to somebody who decides about it
//	print.go    how answers look: tables, JSON, times, colours, safe text
//	exit.go     which exit code means what
//
// It is one room, though larger than others, because its files hardly know each
// other: they share the grammar, the printer and the exit codes.
package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/telexec/telexec/internal/program"
	"github.com/telexec/telexec/pkg/client"
)

// Env is all that the program gets from outside.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	// Signals carries SIGINT, SIGTERM and SIGHUP; nil for none.
	Signals <-chan os.Signal
	// Resized has an element when the terminal has got another size; nil: it never does.
	Resized <-chan os.Signal
}

// run is the whole program: it gives the exit code.
func run(ctx context.Context, env Env, args []string) int {
	env.Stderr = &lockedWriter{w: env.Stderr}
	a := &app{env: env, out: newPrinter(env)}
	err := a.dispatch(ctx, args)
	return a.report(err)
}

// lockedWriter lets the goroutines of one run share a writer.
type lockedWriter struct {
	w io.Writer

	mu  sync.Mutex // guards writing to w, and raw
	raw bool       // w is a terminal in raw mode: a new line needs a return
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.raw {
		return l.w.Write(p)
	}
	if _, err := l.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// setRaw says whether the terminal that w is has been put into raw mode. A nil l is none.
func (l *lockedWriter) setRaw(raw bool) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raw = raw
}

// app is one invocation.
type app struct {
	env  Env
	opts globals
	out  *printer
	path string // the subcommand as it is called, "telexec hosts check"; empty before it is known

	hints map[string]string // of this subcommand, by reason, in place of the general ones

	retrying func(err *client.Error, delay time.Duration) // called before every other attempt; nil: noteRetry
}

// newParser gives the grammar, bound to c.
func newParser(env Env, c *cli) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("telexec"),
		kong.Description("Run commands on remote hosts, and never lose one."),
		kong.NoDefaultHelp(),
		kong.Writers(env.Stdout, env.Stderr),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.Vars{"server": client.DefaultServer},
		kong.PostBuild(refuseEmpty),
	)
}

// dispatch parses args and runs what they ask for.
func (a *app) dispatch(ctx context.Context, args []string) error {
	// What stands behind __complete is not to be parsed but completed.
	if len(args) > 0 && args[0] == completeCommand {
		return a.complete(ctx, args[1:])
	}
	var c cli
	parser, err := newParser(a.env, &c)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	a.opts = c.globals
	a.out.configure(&a.opts)
	switch {
	case errors.Is(err, program.ErrShown):
		return nil
	case errors.Is(err, syscall.EPIPE):
		return err // nobody reads the help to its end
	case err != nil:
		return usageError(err)
	}
	a.path = pathOf(parsed.Selected())
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(a)
}

// pathOf is a subcommand as it is called, without the other names that it has.
func pathOf(node *kong.Node) string {
	if node.Parent == nil {
		return node.Name
	}
	return pathOf(node.Parent) + " " + node.Name
}

// interruptible gives a context that the first signal ends. stop ends the
// listening and gives that signal's exit, or nil; it must be called.
func (a *app) interruptible(ctx context.Context) (_ context.Context, stop func() *exitError) {
	ctx, cancel := context.WithCancelCause(ctx)
	heard := make(chan *exitError, 1) // sent to once, by the listener
	go func() {
		select {
		case s := <-a.env.Signals:
			e := signalled(s)
			cancel(e)
			heard <- e
		case <-ctx.Done():
			heard <- nil
		}
	}()
	return ctx, sync.OnceValue(func() *exitError {
		cancel(nil)
		return <-heard
	})
}

// session runs do with a client and a context that a signal ends.
func (a *app) session(ctx context.Context, do func(context.Context, *client.Client) error) error {
	c, err := a.dial(singleCall)
	if err != nil {
		return err
	}
	defer c.Close()
	return a.with(ctx, c, do)
}

// with runs do with a context that a signal ends.
func (a *app) with(ctx context.Context, c *client.Client, do func(context.Context, *client.Client) error) error {
	ctx, stop := a.interruptible(ctx)
	err := do(ctx, c)
	interrupted := stop()
	if interrupted == nil || err == nil {
		return err
	}
	// Who interrupts needs no telling that nothing came of it, but that something may have.
	if e, ok := errors.AsType[*client.Error](err); ok && e.Metadata["in_doubt"] != "" {
		if e.Reason == client.ReasonCallEnded {
			e.Message = "interrupted before the service answered"
		}
		a.report(e)
	}
	return interrupted
}

// dial makes the client that the global flags ask for. A single call is tried
// for at most patience.
func (a *app) dial(patience time.Duration) (*client.Client, error) {
	token, err := a.token()
	if err != nil {
		return nil, err
	}
	retryFor := a.opts.RetryFor
	if retryFor == 0 {
		retryFor = -1 // for the client 0 means its default
	}
	return client.Dial(client.Options{
		Server:    a.server(),
		Token:     token,
		Origin:    "cli",
		TLS:       a.opts.TLS,
		CAFile:    firstOf(a.opts.CAFile, a.env.Getenv("TELEXEC_CA_FILE")),
		Insecure:  a.opts.Insecure,
		RetryFor:  min(retryFor, patience),
		ResumeFor: retryFor,
		UserAgent: "telexec-cli/" + program.Version(),
		OnRetry: func(err *client.Error, delay time.Duration) {
			if a.retrying != nil {
				a.retrying(err, delay)
				return
			}
			a.noteRetry(err, delay)
		},
	})
}

// noteRetry tells that the service is to be tried again.
func (a *app) noteRetry(err *client.Error, delay time.Duration) {
	a.out.note("%s; trying again in %s", strings.TrimSuffix(err.Message, "."), humanDuration(delay))
}

// server is the address as the user gives it; empty for the default.
func (a *app) server() string { return firstOf(a.opts.Server, a.env.Getenv("TELEXEC_SERVER")) }

// singleCall is how long a single call is tried where people wait for it.
const singleCall = 10 * time.Second

// token finds the bearer token: --token, --token-file, else where every client
// looks for it.
func (a *app) token() (client.Token, error) {
	if a.opts.Token != "" {
		return client.Token(a.opts.Token), nil
	}
	if file := a.opts.TokenFile; file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", failure("cannot read the token file: %v", err)
		}
		return client.Token(strings.TrimSpace(string(b))), nil
	}
	token, err := client.FindToken(a.server(), a.env.Getenv)
	if err != nil {
		a.out.note("%v", err) // of another user: his token is not ours
	}
	return token, nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
