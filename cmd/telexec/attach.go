package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
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

    ~.    leave; the session goes on
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
	if a.opts.JSON {
		return failure("a terminal is not JSON").withHint("telexec session screen --json shows what is on it")
	}
	t := &attachment{app: a, observes: c.Observe, outbox: newOutbox()}
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
	screen   screenFilter
	drawn    int      // pieces of screens
	over     bool     // the terminal is given back
	torn     bool     // what was shown ends within a character
	pending  []string // remarks that the terminal is not ready for
	gone     bool     // the service is away, which was told
	unsent   bool     // that keys were not sent was told
	typed    bool     // keys were sent since the keyboard was somebody else's
	asked    byte     // 'k' or 'r': the keyboard was asked for, or given back, and that is not done
	tight    string   // the size of the session that was told to be too large
	refusal  string   // as it was told last, …
	refused  time.Time
}

// errLeft is the end by "~.".
var errLeft = errors.New("left")

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

// typing reads what is typed.
func (t *attachment) typing(ctx context.Context) {
	var e escapes
	p := make([]byte, 4<<10)
	for {
		n, err := t.env.Stdin.Read(p)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.leave(signalled(syscall.SIGHUP)) // the terminal is gone
			return
		}
		for rest := p[:n]; len(rest) > 0; {
			var keys []byte
			var want byte
			if keys, want, rest = e.scan(rest); len(keys) > 0 && t.mayType() {
				t.outbox.put(ctx, parcel{keys: keys})
			}
			if want != 0 {
				t.do(want)
			}
		}
	}
}

// mayType reports whether keys are to be sent, and tells once where they are not.
func (t *attachment) mayType() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.typed = t.typed || !t.observes
	if t.observes && !t.unsent {
		t.unsent = true
		t.remark("you only look here: nothing that is typed is sent; Enter ~. leaves")
	}
	return !t.observes
}

// do does what a key behind "~" asks for.
func (t *attachment) do(what byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch what {
	case '.':
		t.leave(errLeft)
	case 'k':
		if t.asked = what; t.mine(t.session.GetKeyboard()) { // and by typing alone: now it is kept
			t.asked = 0
			t.remark("you have the keyboard")
		}
		t.outbox.add(parcel{action: telexecv1.KeyboardAction_KEYBOARD_ACTION_TAKE})
	case 'r':
		t.asked = what
		t.outbox.add(parcel{action: telexecv1.KeyboardAction_KEYBOARD_ACTION_RELEASE})
	case 'w':
		for _, v := range t.session.GetViewers() {
			text := viewerText(v, t.session.GetKeyboard())
			if t.mine(v.GetId()) {
				text += " (you)"
			}
			t.say(text)
		}
	case '?':
		t.say("~. leave   ~k take the keyboard   ~r give it back   ~w who is here   ~? this   ~~ type ~")
	}
}

// sending sends what was typed.
func (t *attachment) sending(ctx context.Context) {
	for {
		p, ok := t.outbox.take(ctx)
		if !ok {
			return
		}
		var err error
		if p.action != 0 {
			err = t.terminal.Keyboard(ctx, p.action, "")
		} else {
			err = t.terminal.Input(ctx, p.keys)
		}
		if err != nil && ctx.Err() == nil {
			t.mu.Lock()
			if !t.unsent {
				t.unsent = true
				t.remark("not typed: there is no connection to the service just now; Enter ~. leaves")
			}
			t.mu.Unlock()
		}
	}
}

// away is called whenever the service is to be tried again.
func (t *attachment) away(err *client.Error, delay time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.session == nil:
		t.noteRetry(err, delay)
	case !t.gone:
		t.gone = true
		t.remark("%s", err.Message)
		t.remark("the service is waited for; Enter ~. leaves")
	}
}

// mostPending is how many remarks are kept for later.
const mostPending = 10

// remark says something that is not of the session, and that nobody has asked for. mu
// is held, as for say and tell.
func (t *attachment) remark(format string, args ...any) {
	if !t.opts.Quiet {
		t.say(fmt.Sprintf(format, args...))
	}
}

// say says something that is not of the session. What has the whole screen is not
// disturbed: it is said when that is over, and now there is a bell.
func (t *attachment) say(text string) {
	if t.pending = append(t.pending, text); len(t.pending) > mostPending {
		t.pending = slices.Delete(t.pending, 0, 1)
	}
	if t.screen.alternate {
		_, _ = io.WriteString(t.env.Stdout, "\a")
	}
	t.tell()
}

// tell writes the remarks that are pending above the line of the cursor, which stays as
// it is: what is just being typed goes on behind itself. The sequences are LF, CUU,
// DECSC, IL, DECRC and CUD; the first two make sure that there is a line below. Only a
// line that is just full is not as it was: the next character stands on its last.
func (t *attachment) tell() {
	if t.screen.alternate || t.torn || t.screen.inside == inLong || t.over {
		return
	}
	columns, _, _ := terminalSize(t.env, "")
	for _, text := range t.pending {
		for _, line := range folded("[telexec] "+printable(text), columns) {
			_, _ = io.WriteString(t.env.Stdout, "\n\x1b[A\x1b7\x1b[0m\x1b(B\x0f\r\x1b[L"+line+"\x1b8\x1b[B")
		}
	}
	t.pending = nil
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

// attached takes the beginning of a connection.
func (t *attachment) attached(at *telexecv1.Attached) {
	if t.gone {
		t.gone = false
		t.pending = append(t.pending, "connected again")
	}
	before := t.session
	t.session = at.GetSession()
	t.viewers = append(t.viewers, at.GetViewer())
	t.unsent, t.refusal, t.asked = false, "", 0
	observed := t.observes
	t.observes = at.GetRole() == telexecv1.ViewerRole_VIEWER_ROLE_OBSERVER
	if t.observes && !observed && !t.opts.Quiet {
		t.pending = append(t.pending, "you may not type here, and only look; Enter ~. leaves")
	}
	t.fits()
	if before == nil && !t.opts.Quiet {
		for _, v := range t.session.GetViewers() {
			if !t.mine(v.GetId()) {
				t.pending = append(t.pending, viewerText(v, t.session.GetKeyboard()))
			}
		}
	}
}

// fits tells when the session has more characters than the terminal.
func (t *attachment) fits() {
	columns, rows, err := terminalSize(t.env, "")
	s := t.session
	size := fmt.Sprintf("%dx%d", s.GetColumns(), s.GetRows())
	if err != nil || columns == 0 || int(s.GetColumns()) <= columns && int(s.GetRows()) <= rows {
		t.tight = ""
		return
	}
	if t.tight != size && !t.opts.Quiet {
		t.pending = append(t.pending, fmt.Sprintf("the session has %s characters, and the terminal here %dx%d", size, columns, rows))
	}
	t.tight = size
}

// changed tells what is new for who is at the terminal.
func (t *attachment) changed(s *telexecv1.Session) {
	before := t.session
	t.session = s
	t.fits()
	had, has := before.GetKeyboard(), s.GetKeyboard()
	switch who := viewerOf(s, has); {
	case t.mine(has) && (t.asked == 'k' || !t.mine(had) && !t.typed): // who only types has it without being told
		t.remark("you have the keyboard")
		t.asked = 0
	case has == "" && t.asked == 'r':
		t.remark("nobody has the keyboard: who types gets it")
		t.asked = 0
	case t.mine(had) && !t.mine(has) && who != nil:
		t.remark("%s has the keyboard now; Enter ~k takes it", actor(who.GetActor()))
	}
	if had != has {
		t.refusal = ""
		t.typed = t.typed && t.mine(has)
	}
	for _, v := range s.GetViewers() {
		if viewerOf(before, v.GetId()) == nil && !t.mine(v.GetId()) {
			t.remark("%s is here", viewerText(v, ""))
		}
	}
	for _, v := range before.GetViewers() {
		if viewerOf(s, v.GetId()) == nil && !t.mine(v.GetId()) {
			t.remark("%s has left", actor(v.GetActor()))
		}
	}
}

// refusedAgain is how long the same refusal is not told again: keys are refused one by
// one.
const refusedAgain = 10 * time.Second

// isRefused tells that something was not done.
func (t *attachment) isRefused(f *telexecv1.Failure) {
	t.typed, t.asked = false, 0
	if t.refusal == f.GetReason() && t.out.now().Sub(t.refused) < refusedAgain {
		return
	}
	t.refusal, t.refused = f.GetReason(), t.out.now()
	text := f.GetMessage()
	if f.GetReason() == "KEYBOARD_TAKEN" {
		text += "; Enter ~k takes it"
	}
	t.remark("%s", text)
}

// mine reports whether a viewer is, or was, the terminal here.
func (t *attachment) mine(viewer string) bool { return slices.Contains(t.viewers, viewer) }

func viewerOf(s *telexecv1.Session, id string) *telexecv1.Viewer {
	i := slices.IndexFunc(s.GetViewers(), func(v *telexecv1.Viewer) bool { return v.GetId() == id })
	if i < 0 {
		return nil
	}
	return s.GetViewers()[i]
}

// parcel is keys, or something to do with the keyboard.
type parcel struct {
	keys   []byte
	action telexecv1.KeyboardAction
}

// mostKeys is how much of what was typed waits to be sent.
const mostKeys = 1 << 20

// outbox has what was typed and not sent yet, in order.
type outbox struct {
	mu      sync.Mutex
	parcels []parcel
	size    int           // of the keys in them
	filled  chan struct{} // has an element when there is something; capacity 1
	emptied chan struct{} // has an element when there is room again; capacity 1
}

func newOutbox() *outbox {
	return &outbox{filled: make(chan struct{}, 1), emptied: make(chan struct{}, 1)}
}

// add adds a parcel; false where it is full.
func (o *outbox) add(p parcel) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(p.keys) > 0 && o.size > mostKeys {
		return false
	}
	o.size += len(p.keys)
	if n := len(o.parcels); n > 0 && p.action == 0 && o.parcels[n-1].action == 0 {
		o.parcels[n-1].keys = append(o.parcels[n-1].keys, p.keys...)
	} else {
		p.keys = slices.Clone(p.keys)
		o.parcels = append(o.parcels, p)
	}
	ring(o.filled)
	return true
}

// put adds a parcel, and waits for room until ctx ends.
func (o *outbox) put(ctx context.Context, p parcel) {
	for !o.add(p) {
		select {
		case <-o.emptied:
		case <-ctx.Done():
			return
		}
	}
}

// take gives the next parcel; false when ctx has ended.
func (o *outbox) take(ctx context.Context) (parcel, bool) {
	for {
		o.mu.Lock()
		if len(o.parcels) > 0 {
			p := o.parcels[0]
			o.parcels = slices.Delete(o.parcels, 0, 1)
			o.size -= len(p.keys)
			o.mu.Unlock()
			ring(o.emptied)
			return p, true
		}
		o.mu.Unlock()
		select {
		case <-o.filled:
		case <-ctx.Done():
			return parcel{}, false
		}
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default: // it is rung already
	}
}

// escapes looks for "~" behind a new line in what is typed. What is pasted is not typed:
// in a bracketed paste nothing is looked for, since it would be a stranger's "~." that
// leaves, with the rest for the shell here.
type escapes struct {
	state  int  // 0: behind a new line, 1: behind its ~, 2: elsewhere
	pasted bool // within a bracketed paste
	seen   int  // bytes of the bracket that may be coming
}

// Brackets of what is pasted (xterm's ctlseqs, "Bracketed Paste Mode").
const (
	pasteBegin = "\x1b[200~"
	pasteEnd   = "\x1b[201~"
)

// bracket takes one byte and notes where a paste begins and ends.
func (e *escapes) bracket(c byte) {
	want := pasteBegin
	if e.pasted {
		want = pasteEnd
	}
	switch {
	case c == want[e.seen]:
		if e.seen++; e.seen == len(want) {
			e.pasted, e.seen = !e.pasted, 0
		}
	case c == esc:
		e.seen = 1
	default:
		e.seen = 0
	}
}

// scan gives the keys that are the session's up to the first that is not, which is what
// was behind "~", or 0; and what is left to look at.
func (e *escapes) scan(p []byte) (keys []byte, want byte, rest []byte) {
	for i, c := range p {
		e.bracket(c)
		switch {
		case e.pasted:
			e.state = 2
			keys = append(keys, c)
		case c == '\r' || c == '\n' || c == 3 || c == 4: // Ctrl-C and Ctrl-D give a new line, too
			if e.state == 1 {
				keys = append(keys, '~')
			}
			e.state = 0
			keys = append(keys, c)
		case e.state == 0 && c == '~':
			e.state = 1
		case e.state == 1 && strings.IndexByte(".krw?", c) >= 0:
			e.state = 0
			return keys, c, p[i+1:]
		case e.state == 1 && c == '~':
			e.state = 2
			keys = append(keys, c)
		case e.state == 1:
			e.state = 2
			keys = append(keys, '~', c)
		default:
			e.state = 2
			keys = append(keys, c)
		}
	}
	return keys, 0, nil
}
