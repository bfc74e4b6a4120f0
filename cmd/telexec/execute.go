package main

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type runCmd struct {
	Detach   bool              `short:"d" help:"Do not wait: print the command's id and leave."`
	Timeout  time.Duration     `placeholder:"TIME" help:"End the command when it has run so long; exit code 124."`
	Cwd      string            `short:"C" placeholder:"DIR" help:"Directory to run in (default: the login directory)."`
	Env      []string          `short:"e" sep:"none" placeholder:"NAME=VALUE" help:"Set a variable; NAME alone passes on the value it has here. May be repeated."`
	Login    bool              `help:"Run in the user's login shell, with its profile, instead of /bin/sh."`
	TTY      bool              `name:"tty" short:"t" xor:"terminal" help:"Run on a terminal of its own; its standard error then comes on standard output."`
	Stdin    bool              `short:"i" xor:"stdin" help:"Send standard input, also when it is a terminal; a pipe or a file is sent without being asked for. With --detach: keep it open for telexec input."`
	NoStdin  bool              `short:"n" xor:"stdin" help:"Do not send standard input: the command finds it at its end."`
	Priority int32             `placeholder:"N" help:"Higher goes first among the queued, -100 to 100."`
	Label    map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Label to find the command by. May be repeated."`
	Durable  bool              `xor:"durability,terminal" help:"Only where the command can live on the host by itself; elsewhere it does not start. Without either flag: durable where it can be."`
	Attached bool              `xor:"durability" help:"On the SSH connection, though it could be durable: the command is lost with the connection."`
	Sudo     bool              `help:"Run as root, through sudo."`
	SudoUser string            `placeholder:"USER" help:"Run as this user, through sudo."`

	SudoPasswordFile string `placeholder:"FILE" type:"path" help:"File with the password for sudo, where sudo asks for one; - asks on the terminal, or takes the first line of standard input (also TELEXEC_SUDO_PASSWORD)."`

	SecretEnv  []string `placeholder:"NAME" sep:"none" help:"Set a variable to the value it has here, or in --env, and mask that value in the output. May be repeated."`
	RedactFile string   `placeholder:"FILE" type:"path" help:"File with values to mask in the output, one per line."`

	RequestID  string `placeholder:"ID" help:"Run once however often it is asked for with this id (default: a new one each time)."`
	ActionType string `placeholder:"TYPE" help:"The kind of action, for policies."`

	Host    hostWord `arg:"" passthrough:"partial" help:"Name of the host, as telexec hosts lists it."`
	Command []string `arg:"" help:"One argument is a shell command line; several are a program and its arguments."`
}

// hostWord is the name of a host. What stands behind it is the command, word by
// word: the flags of telexec end here.
type hostWord string

// Decode takes the host, also from behind a "--".
func (h *hostWord) Decode(ctx *kong.DecodeContext) error {
	for {
		if ctx.Scan.Peek().IsEOL() {
			return errors.New("there is none behind --")
		}
		var word string
		if err := ctx.Scan.PopValueInto("host", &word); err != nil {
			return err
		}
		if word != "--" {
			*h = hostWord(word)
			return nil
		}
	}
}

// Help is shown by run --help.
func (runCmd) Help() string {
	return `What follows HOST is the command, also when it looks like flags of telexec: those stand before HOST. One argument
is a line for the shell of the host; several are a program and its arguments, which reach it exactly as they are:

    telexec run web1 'ls *.log | wc -l'     the host's shell expands and pipes
    telexec run web1 ls '*.log'             lists the one file named *.log

More examples:

    telexec run web1 tail -f /var/log/syslog
    tar c dir | telexec run web1 'tar x -C /srv'
    telexec run -d --timeout 2h --label deploy=42 web1 ./deploy.sh
    telexec run -t web1 top
    telexec run --sudo web1 systemctl restart nginx

Standard output and standard error are the command's own, byte for byte. Ctrl-C interrupts the command; a
second one cancels it and tells what came of it; a third leaves it alone. The command goes on when this
program is ended or loses the service: telexec logs -f ID is back with it. When the reader of its output goes
away, as in telexec run web1 yes | head, it is cancelled, as with ssh. With --tty on a terminal every key goes to
the command once it runs; Enter ~ . leaves it alone.

A command is durable wherever its host can keep it: it lives there by itself, and goes on when the service is
restarted or loses the host. That the host is away, and back, is told on standard error (not with --quiet), and the
output goes on at the next byte. Devices without a shell, and --tty, give an attached command, which is lost with
its connection.

With --sudo the password is asked for on the terminal if sudo wants one.

Where a rule wants the command approved, that is told on standard error, and it runs when it is approved; Ctrl-C withdraws
it. Values given with --secret-env and --redact-file, plain, in base64 or percent-encoded, are "*" in the output, as it is stored
and as it is shown.
` + exitCodesHelp
}

// Run starts the command and follows it.
func (c *runCmd) Run(ctx context.Context, a *app) error {
	req, err := c.request(a.env)
	if err != nil {
		return err
	}
	if first := c.Command[0]; strings.HasPrefix(first, "-") && first != "--" {
		a.out.note("%s is taken for the command: flags of telexec stand before the host", first)
	}
	input := c.input(a.env.Stdin)
	req.StdinOpen = input != nil || c.Detach && c.Stdin
	if req.Sudo, err = c.sudo(a); err != nil {
		return err
	}
	f := &follower{app: a, input: input, gate: gate{out: a.out}}
	if c.TTY {
		if err := f.terminal(a.env, req); err != nil {
			return err
		}
		defer f.keys.end()
	}
	f.client, err = a.dial(singleCall)
	if err != nil {
		return err
	}
	defer f.client.Close()
	for {
		cmd, err := f.start(ctx, req)
		if err != nil {
			return err
		}
		if c.Detach {
			return f.detach(cmd)
		}
		err = f.follow(ctx, cmd)
		fd, ok := c.mayAsk(a, req, f.latest.Load())
		if !ok {
			return err
		}
		code := a.report(err)
		password, err := a.askPassword(fd, string(c.Host))
		if err != nil {
			return err
		}
		if password == "" {
			return &exitError{code: code}
		}
		req.Sudo.Password = password
		f = &follower{app: a, client: f.client, input: f.input, keys: f.keys, gate: gate{out: a.out}}
	}
}

// request makes the request of the flags.
func (c *runCmd) request(env Env) (*telexecv1.ExecuteRequest, error) {
	req := &telexecv1.ExecuteRequest{
		RequestId:        c.RequestID,
		Host:             string(c.Host),
		Env:              make(map[string]string, len(c.Env)),
		WorkingDirectory: c.Cwd,
		LoginShell:       c.Login,
		Wait:             durationpb.New(0),
		Priority:         c.Priority,
		Durability:       c.durability(),
		Labels:           c.Label,
		ActionType:       c.ActionType,
		Output:           &telexecv1.OutputOptions{Omit: true},
	}
	var err error
	if req.Command, req.Argv, err = commandWords(string(c.Host), c.Command); err != nil {
		return nil, err
	}
	for _, e := range c.Env {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			value = env.Getenv(name)
		}
		req.Env[name] = value
	}
	if err := c.secrets(env, req); err != nil {
		return nil, err
	}
	if c.Timeout != 0 {
		req.Timeout = durationpb.New(c.Timeout)
	}
	return req, nil
}

// commandWords gives what stands behind a host as a line for its shell, or as a
// program and its arguments.
func commandWords(host string, words []string) (line string, argv []string, err error) {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	switch {
	case len(words) == 0:
		return "", nil, failure("there is no command to run on %s", host).withHint("telexec run --help has examples")
	case len(words) > 1:
		return "", words, nil
	case words[0] == "":
		return "", nil, failure("the command to run on %s is empty", host).withHint("telexec run --help has examples")
	}
	return words[0], nil, nil
}

func (c *runCmd) durability() telexecv1.Durability {
	switch {
	case c.Durable:
		return telexecv1.Durability_DURABILITY_DURABLE
	case c.Attached:
		return telexecv1.Durability_DURABILITY_ATTACHED
	}
	return telexecv1.Durability_DURABILITY_UNSPECIFIED
}

// input decides what becomes of standard input, as ssh would: a pipe, a socket or
// a file is sent, a terminal only when asked for, and nothing to a command that
// is left alone.
func (c *runCmd) input(stdin io.Reader) io.Reader {
	switch {
	case c.NoStdin || c.Detach || stdin == nil:
		return nil
	case c.Stdin:
		return stdin
	}
	if _, isTerminal := terminal(stdin); isTerminal {
		if c.TTY {
			return stdin
		}
		return nil
	}
	f, ok := stdin.(*os.File)
	if !ok {
		return stdin
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeDevice != 0 {
		return nil // closed, or /dev/null: there is nothing to send
	}
	return stdin
}

// follower is one "run": it starts a command and is its terminal until it ends.
// Its goroutines are the one that calls follow, the reader of the stream, and
// the sender of input.
type follower struct {
	*app
	client *client.Client
	id     string
	input  io.Reader // nil: none
	keys   *keyboard // what input is, with --tty on a terminal; nil for another

	// Of the goroutine that calls start and follow.
	early      *exitError // a signal that came before the command was known
	interrupts int        // how often Ctrl-C was typed
	pending    int        // calls made for Ctrl-C that have not come to anything yet

	answers chan func()                       // what those calls have come to; follow runs them
	running chan struct{}                     // closed by read when the command runs; input begins then
	latest  atomic.Pointer[telexecv1.Command] // the command as read has last seen it

	// Of read.
	place string // place in the queue, as last told
	host  link
	gate  gate
}

// inDoubt are the reasons of a failed start that may have been accepted all the same.
var inDoubt = []string{client.ReasonUnreachable, client.ReasonCallEnded, "STORE_UNAVAILABLE"}

// start asks for the command. A signal meanwhile ends the asking; whether the
// command has started is then not known.
func (f *follower) start(ctx context.Context, req *telexecv1.ExecuteRequest) (*telexecv1.Command, error) {
	ctx, stop := f.interruptible(ctx)
	resp, err := f.client.Execute(ctx, req)
	f.early = stop()
	if err == nil {
		f.id = resp.GetCommand().GetId()
		if resp.GetReplayed() {
			f.out.note("request id %s has run already: this is its command %s", req.GetRequestId(), f.id)
		}
		return resp.GetCommand(), nil
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		if id := e.Metadata["request_id"]; id != "" && slices.Contains(inDoubt, e.Reason) {
			e.Hint = "The command may have started: the same command line with --request-id " + id + " follows it, and starts it only if it has not"
		}
		if f.early != nil {
			e.Message = "interrupted before the service answered"
			f.report(e)
		}
	}
	if f.early != nil {
		return nil, f.early
	}
	return nil, err
}

// detach prints the id.
func (f *follower) detach(cmd *telexecv1.Command) error {
	if f.opts.JSON {
		return f.out.document(cmd)
	}
	_, err := io.WriteString(f.out.stdout, f.id+"\n")
	f.gate.watch(cmd)
	f.out.note("telexec logs -f %s follows it, telexec cancel %s ends it", f.id, f.id)
	return err
}

// follow is the terminal of the command until it ends, or is left alone.
func (f *follower) follow(ctx context.Context, cmd *telexecv1.Command) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	f.latest.Store(cmd)
	f.host = link{out: f.out}
	f.answers = make(chan func(), 2) // one for each call that Ctrl-C makes: none of them blocks
	f.running = make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- f.read(ctx, cmd) }()
	if f.input != nil {
		go f.sendInput(ctx)
	}
	if f.early != nil {
		if left := f.signal(ctx, f.early); left != nil {
			return left
		}
	}
	for {
		select {
		case err := <-done:
			return f.finish(ctx, err)
		case s := <-f.env.Signals:
			if left := f.signal(ctx, signalled(s)); left != nil {
				return left
			}
		case answer := <-f.answers:
			answer()
		case <-f.keys.leaving():
			f.tellLeft()
			return &exitError{code: exitCancelled}
		}
	}
}

// signal does what a signal to telexec asks for; it gives the exit where that is
// to leave. Only Ctrl-C means the command.
func (f *follower) signal(ctx context.Context, s *exitError) error {
	if s.code != exitCancelled || f.interrupts > 1 {
		f.tellLeft()
		return s
	}
	f.interrupts++
	if f.latest.Load().GetState() == telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL {
		f.interrupts = 2 // nothing runs that could be interrupted
	}
	f.interrupt(ctx)
	return nil
}

// cancelAnswer is how long the end of a command waits for what came of its
// cancel, which usually has arrived before.
const cancelAnswer = 3 * time.Second

// finish is what is left to do when reading has ended.
func (f *follower) finish(ctx context.Context, err error) error {
	timeout := time.NewTimer(cancelAnswer)
	defer timeout.Stop()
	for f.interrupts > 1 && f.pending > 0 {
		select {
		case answer := <-f.answers:
			answer()
		case <-f.env.Signals:
			f.pending = 0
		case <-timeout.C:
			f.pending = 0
		}
	}
	if errors.Is(err, syscall.EPIPE) {
		// As with ssh: a command whose output nobody reads ends.
		_, _ = f.client.Cancel(ctx, &telexecv1.CancelRequest{CommandId: f.id, Reason: "the reader of its output went away"})
	}
	return err
}

// interrupt does what Ctrl-C asks for: first interrupt, then cancel. Its calls
// answer through f.answers, so that what they tell is told in order.
func (f *follower) interrupt(ctx context.Context) {
	f.pending++
	if f.interrupts == 1 {
		go func() {
			_, err := f.client.Signal(ctx, &telexecv1.SignalRequest{CommandId: f.id, Signal: "INT"})
			f.answers <- func() {
				f.pending--
				if err != nil {
					f.out.tell("could not interrupt %s: %v. Ctrl-C again cancels it", f.id, err)
					return
				}
				f.out.note("interrupted %s; Ctrl-C again cancels it", f.id)
			}
		}()
		return
	}
	f.out.tell("cancelling %s; Ctrl-C again leaves it alone", f.id)
	go func() {
		resp, err := f.client.Cancel(ctx, &telexecv1.CancelRequest{CommandId: f.id, Reason: "Ctrl-C"})
		f.answers <- func() {
			f.pending--
			if err != nil {
				f.out.tell("could not cancel %s: %v", f.id, err)
				return
			}
			f.out.tell("%s", cancelText(resp.GetReport()))
			f.tellPending(resp)
			for _, p := range resp.GetReport().GetLeft() {
				f.out.tell("left: %s", processText(p))
			}
		}
	}()
}

// tellLeft says how to get back.
func (f *follower) tellLeft() {
	if f.interrupts > 1 { // the cancel may or may not have reached the service
		f.out.printErr("telexec: left command " + f.id + " before it was cancelled: telexec status " + f.id +
			" tells whether it goes on, telexec cancel " + f.id + " ends it\n")
		return
	}
	whither := " goes on without you"
	if cmd := f.latest.Load(); durable(cmd) {
		whither = " goes on without you, on " + printable(cmd.GetHost()) + " by itself"
	}
	f.out.printErr("telexec: command " + f.id + whither + ": telexec logs -f " + f.id +
		" is back with it, telexec cancel " + f.id + " ends it\n")
}

// read passes the stream on until the command has ended. Its result is that of
// run.
func (f *follower) read(ctx context.Context, cmd *telexecv1.Command) error {
	f.watch(cmd)
	for event, err := range f.client.StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: f.id, Follow: true}) {
		if err != nil {
			return f.lost(err)
		}
		if f.opts.JSON {
			if err := f.out.line(event); err != nil {
				return err
			}
		} else if err := f.out.output(event); err != nil {
			return err
		}
		if c := event.GetCommand(); c != nil {
			f.watch(c)
		}
		if c := event.GetEnded(); c != nil {
			f.latest.Store(c)
			if t := c.GetTruncation(); t != nil {
				f.out.tell("some of the output was not kept: %s", t.GetReason())
			}
			if e := outcome(c); e != nil {
				return e
			}
		}
	}
	return nil
}

// lost is what is said when the stream is given up: the command is not.
func (f *follower) lost(err error) error {
	e, ok := errors.AsType[*client.Error](err)
	if ok && e.Reason == client.ReasonUnreachable {
		e.Hint = "The command goes on: telexec logs -f " + f.id + " is back with it when the service is"
	}
	return err
}

// watch tells what a reader should know about a command that gives no output.
func (f *follower) watch(cmd *telexecv1.Command) {
	f.latest.Store(cmd)
	f.host.watch(cmd)
	f.gate.watch(cmd)
	if cmd.GetState() != telexecv1.CommandState_COMMAND_STATE_QUEUED && f.place != "" {
		if cmd.GetSession() != "" {
			f.out.note("%s is free for %s", cmd.GetSession(), f.id)
		} else {
			f.out.note("%s has a free place for %s", cmd.GetHost(), f.id)
		}
		f.place = ""
	}
	switch cmd.GetState() {
	case telexecv1.CommandState_COMMAND_STATE_QUEUED:
		if text := queueText(cmd.GetQueue()); text != f.place && text != "" {
			f.place = text
			f.out.note("%s waits on %s: %s", f.id, firstOf(cmd.GetSession(), cmd.GetHost()), text)
		}
	case telexecv1.CommandState_COMMAND_STATE_RUNNING:
		select {
		case <-f.running:
		default:
			f.keys.begin()
			close(f.running)
		}
	}
}

// sendInput copies standard input to the command once it runs.
func (f *follower) sendInput(ctx context.Context) {
	select {
	case <-f.running:
	case <-ctx.Done():
		return
	}
	_, err := f.client.CopyInput(ctx, f.id, f.input)
	if err != nil && ctx.Err() == nil && !inputUnwanted(err) {
		f.out.tell("standard input could not be sent: %v", err)
	}
}

// inputUnwanted reports whether err means that the command has ended or closed
// its input, which is its right.
func inputUnwanted(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && (e.Reason == "STDIN_CLOSED" || e.Reason == "NOT_RUNNING")
}
