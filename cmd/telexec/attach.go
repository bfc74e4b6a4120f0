package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type sessionAttachCmd struct {
	Observe bool `xor:"role" help:"Only look: nothing that is typed is sent."`
	Take    bool `xor:"role" help:"Take the keyboard, also from somebody who has it."`

	Session string `arg:"" help:"Name or id of the session."`
}

// Help is shown by session attach --help.
func (sessionAttachCmd) Help() string {
	return `The terminal here becomes that of the session: its screen first, then all as it happens, for everybody who is there.
Every key goes to it; behind a new line these do not:

    ~.    leave, behind what was typed; the session goes on
    ~k    take the keyboard, ~r give it back
    ~w    who is here
    ~?    this list
    ~~    type ~

Who types while nobody has the keyboard has it until ten seconds after the last key. Who comes and goes, and who takes the
keyboard, is told above the line of the cursor (not with --quiet), and not while a program, such as vim, has the whole
screen.

When the service goes away it is waited for (--retry-for), and the terminal goes on where it was.

Examples:

    telexec session attach deploy
    telexec session attach deploy --observe

Exit codes: the shell's own where it has ended; 0 when it was left; 125 when the session ended otherwise.`
}

// attachable tells why the terminal here cannot be a session's.
func attachable(env Env) error {
	_, in := terminal(env.Stdin)
	_, out := terminal(env.Stdout)
	if in && out {
		return nil
	}
	return failure("telexec session attach needs a terminal").
		withHint("telexec session run runs a command, telexec session keys types, telexec session screen shows the screen")
}

// Run is at the terminal until it is left or the session ends.
func (c *sessionAttachCmd) Run(ctx context.Context, a *app) error {
	if err := attachable(a.env); err != nil {
		return err
	}
	if err := named(c.Session); err != nil {
		return err
	}
	if a.opts.JSON {
		return failure("a terminal is not JSON").withHint("telexec session screen --json shows what is on it")
	}
	t := &attachment{app: a, observes: c.Observe, looks: c.Observe, taking: c.Take, outbox: newOutbox()}
	a.retrying = t.away
	cl, err := a.dial(singleCall)
	if err != nil {
		return err
	}
	defer cl.Close()
	return t.run(ctx, cl, c)
}

// attachment is the terminal here while it is a session's. Its goroutines are the one
// that calls run, which shows; watch; typing, which reads keys; and sending, since the
// service takes keys only as fast as the programs there read them, and "~." is to be
// read all the same.
type attachment struct {
	*app
	terminal *client.Terminal
	leave    context.CancelCauseFunc // the first cause is why it was left
	outbox   *outbox

	mu       sync.Mutex // guards what follows, and writing to the terminal
	session  *telexecv1.Session
	viewers  []string // the viewer that it is, behind those that it was
	observes bool
	looks    bool // by --observe
	lost     bool // what was typed before "~." may not have got there
	screen   screenFilter
	drawn    int      // pieces of screens
	over     bool     // the terminal is given back
	torn     bool     // what was shown ends within a character
	pending  []string // remarks that the terminal is not ready for
	gone     bool     // the service is away, which was told
	unsent   bool     // that keys were not sent was told
	typed    bool     // keys were sent since the keyboard was somebody else's
	taking   bool     // the keyboard is to be taken at once
	asked    byte     // 'k' or 'r': the keyboard was asked for, or given back, and that is not done
	tight    string   // the size of the session that was told to be too large
	refusal  string   // as it was told last, …
	refused  time.Time
}

// errLeft is the end by "~.".
var errLeft = errors.New("left")

// leaveWithin is how long "~." waits until the service has taken what was typed before.
const leaveWithin = time.Second

func (t *attachment) run(ctx context.Context, cl *client.Client, c *sessionAttachCmd) error {
	start := &telexecv1.AttachStart{Session: c.Session, ScrollbackLines: new(int32(0)), Label: "telexec attach"}
	if c.Observe {
		start.Role = telexecv1.ViewerRole_VIEWER_ROLE_OBSERVER
	}
	if columns, rows, err := terminalSize(t.env, ""); err == nil && columns > 0 {
		start.Size = &telexecv1.TerminalSize{Columns: int32(columns), Rows: int32(rows)}
	}
	ctx, t.leave = context.WithCancelCause(ctx)
	defer t.leave(nil)
	t.terminal = cl.Attach(start)
	var watching sync.WaitGroup
	watching.Go(func() { t.guard(func() { t.watch(ctx) }) })
	ended, err := t.follow(ctx, c.Take)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Reason == "SESSION_ENDED" && t.session != nil {
		// While there was no connection. What has it ended with?
		if s, err := cl.GetSession(ctx, t.session.GetId()); err == nil {
			ended = s
		}
	}
	why := context.Cause(ctx)
	t.leave(nil)
	watching.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case ended != nil:
		return t.endOf(ended)
	case why == errLeft && t.lost:
		t.out.tell("left %s, which goes on; what was typed last may not have got there", t.session.GetName())
		return nil
	case why == errLeft:
		t.out.note("left %s, which goes on", t.session.GetName())
		return nil
	case why != nil:
		return why
	}
	return err
}

// follow is the terminal until the session ends, or it is left. The terminal here is
// as it was when it returns.
func (t *attachment) follow(ctx context.Context, take bool) (ended *telexecv1.Session, err error) {
	var giveBack func()
	defer func() {
		if giveBack != nil {
			giveBack()
		}
	}()
	for event, err := range t.terminal.Events(ctx) {
		if err != nil {
			return nil, err
		}
		if err := t.show(event); err != nil {
			return nil, err
		}
		if event.GetAttached() != nil && giveBack == nil {
			// Not before it is sure that there is a session.
			if giveBack, err = t.begin(ctx); err != nil {
				return nil, err
			}
			if take {
				t.do('k')
			}
		}
		if s := event.GetEnded(); s != nil {
			return s, nil
		}
	}
	t.leave(errLeft) // by Leave: nothing else ends it without an error
	return nil, ctx.Err()
}

// endOf tells that the session has ended, and gives the exit.
func (t *attachment) endOf(s *telexecv1.Session) error {
	if end := s.GetEnd(); end.GetReason() != "SHELL_EXITED" {
		e := failure("the session %s has ended: %s", s.GetName(), failureText(end))
		e.hint = end.GetHint()
		return e
	}
	if s.ExitCode == nil {
		return failure("the shell of %s has ended, but its exit code is not known", s.GetName())
	}
	if s.GetExitCode() != 0 {
		t.out.note("%s has ended: its shell has exited with code %d", s.GetName(), s.GetExitCode())
		return &exitError{code: int(s.GetExitCode())}
	}
	t.out.note("%s has ended: its shell has exited", s.GetName())
	return nil
}

// begin makes the terminal here the session's. giveBack makes it again what it was.
func (t *attachment) begin(ctx context.Context) (giveBack func(), err error) {
	in, _ := terminal(t.env.Stdin)
	before, err := term.MakeRaw(in)
	if err != nil {
		return nil, failure("cannot use the terminal: %v", err)
	}
	screen, _ := t.env.Stderr.(*lockedWriter)
	if !t.out.remarks {
		screen = nil
	}
	screen.setRaw(true)
	_, rows, _ := terminalSize(t.env, "") // 0 where it cannot tell
	t.mu.Lock()
	_, _ = io.WriteString(t.env.Stdout, begun+strings.Repeat("\n", rows))
	t.mu.Unlock()
	go t.guard(func() { t.typing(ctx) }) // which reads until the next key
	go t.guard(func() { t.sending(ctx) })
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.over = true
		_, _ = io.WriteString(t.env.Stdout, restored)
		_ = term.Restore(in, before) // a terminal that is gone needs none
		screen.setRaw(false)
	}, nil
}

// guard runs what must not end the program while the terminal is a session's: a panic
// is why it was left.
func (t *attachment) guard(do func()) {
	defer func() {
		if p := recover(); p != nil {
			t.leave(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	do()
}

// What a terminal is sent. begun keeps the title, and goes to the last line: as many new
// lines as there are rows move what was on the screen into the scrollback. restored
// undoes what programs may have done: alternate screen, mouse and focus reports,
// bracketed paste, keypad, keyboard protocols, cursor, attributes, character set,
// margins, wrapping, title. The cursor goes to a line of its own.
const (
	begun    = "\x1b[22;0t\x1b[999;1H"
	cleared  = "\x1b[?1049l\x1b[!p\x1b[?7h\x1b[r\x1b[0m\x1b[H\x1b[2J"
	restored = "\x1b[?2026l\x1b[?1049l\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l" +
		"\x1b[?2004l\x1b[?1l\x1b>\x1b[=0u\x1b[>4m\x1b[r\x1b[?6l\x1b[?7h\x1b[?5l\x1b[4l\x1b[20l\x1b(B\x0f\x1b[0m\x1b[0 q\x1b[?25h\x1b[23;0t\x1b[999;1H\r\n"
)

// watch tells the service of sizes, and leaves at a signal.
func (t *attachment) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-t.env.Signals:
			t.leave(signalled(s))
			return
		case <-t.env.Resized:
			if columns, rows, err := terminalSize(t.env, ""); err == nil && columns > 0 {
				_ = t.terminal.Resize(ctx, columns, rows) // where it fails, the next connection begins with it
			}
		}
	}
}

// drawnAfter is how long nothing more of a screen must come for it to be whole.
const drawnAfter = 100 * time.Millisecond

// show shows what the service says.
func (t *attachment) show(event *telexecv1.AttachResponse) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	switch {
	case event.GetAttached() != nil:
		if t.attached(event.GetAttached()); !event.GetAttached().GetResumed() {
			return nil // before the screen there is nothing to tell on
		}
	case event.GetScreen() != nil:
		screen := event.GetScreen()
		if !screen.GetContinued() {
			t.screen = screenFilter{}
			_, err = io.WriteString(t.env.Stdout, cleared)
		}
		if err == nil {
			err = t.draw(screen.GetData())
		}
		if err == nil {
			// More of it may follow at once. What is to be told is told behind it.
			t.drawn++
			drawn := t.drawn
			time.AfterFunc(drawnAfter, func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				if t.drawn == drawn {
					t.tell()
				}
			})
			return nil
		}
	case event.GetOutput() != nil:
		err = t.draw(event.GetOutput().GetData())
	case event.GetSession() != nil:
		t.changed(event.GetSession())
	case event.GetRefused() != nil:
		t.isRefused(event.GetRefused())
	}
	if err != nil {
		return fmt.Errorf("writing to the terminal: %w", err)
	}
	t.tell()
	return nil
}

// draw writes output to the terminal.
func (t *attachment) draw(data []byte) error {
	if data = t.screen.write(data); len(data) == 0 {
		return nil
	}
	t.torn = endsInCharacter(data)
	_, err := t.env.Stdout.Write(data)
	return err
}

// endsInCharacter reports whether p ends within a character of several bytes.
func endsInCharacter(p []byte) bool {
	for n := 1; n <= min(3, len(p)); n++ {
		if c := p[len(p)-n]; utf8.RuneStart(c) {
			return !utf8.FullRune(p[len(p)-n:])
		}
	}
	return false
}
