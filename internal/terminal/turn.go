package terminal

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
)

// phase is where the shell is between two prompts.
//
//	starting ─▶ reading ─a line is sent─▶ sent ─▶ running ─▶ between ─▶ reading
//	               ▲                       │ an empty line          prompt
//	               └───────────────────────┘
type phase uint8

const (
	starting phase = iota // it has not shown a prompt yet
	reading               // it has shown its prompt and reads
	sent                  // a line was sent, and nothing was heard of it
	running               // a command runs
	between               // one has ended, and the prompt is not there yet
)

// level is a shell of those that were started in each other; the last one has the
// terminal.
type level struct {
	pid     int
	kind    string
	starts  bool // it tells when a command starts
	foreign bool // it tells no marks: a level below does, when this one has ended
}

// turn is whose turn it is at the terminal, the shell's or a command's. It is the
// owner's.
type turn struct {
	phase  phase
	marks  bool // the shell tells marks
	tells  bool // it was made to tell them when it was opened
	heard  bool // it has told one
	levels []level
	known  string   // the kind of the shell that was opened
	nested string   // line that makes a nested shell tell marks
	cur    *Process // what runs; not nil just while running
	typing *Process // was typed, and nothing was heard of it
	starts []*Process
	number int64              // commands so far
	typed  map[int64]*Process // by number: what people typed, until it was taken up
	unsure bool               // nobody knows whether something runs
	unseen bool               // it was not seen whether the shell has gone on to what was typed behind what ran: see behind.go
	noted  bool               // the store has, or gets, that something is typed behind what runs
	group  int                // the process group of what runs, known before anything was typed behind it; 0: not known
	late   *command.Ending    // of what ran when the service began, and was not asked for yet; nil: nothing

	readAt   time.Time // when it began to read, …
	readFrom int64     // … and the offset
	prompt   string    // text before the cursor when the shell began to read
	prompted bool      // a prompt is known, so that silence says nothing
	echo     echo
	typist   access.Caller // who typed last
	typedAt  time.Time
	keyed    byte      // the last key that came behind the line that was sent last; 0: none
	sentAt   time.Time // when the service has typed a line
	dirty    bool      // something was typed and not sent
	answered bool      // the terminal has answered a program, which may not have read it
	ahead    typedAhead
	shown    bool // a prompt was begun, and its end was not told
	code     *int // of an end that was told before the start
	nesting  *nesting
	asked    bool // since the last output: who has the terminal
	printed  bool // something was printed since the line was sent, beside its echo
}

// Times of a turn.
const (
	typingMost  = 5 * time.Second        // a line that was begun and not sent is left alone for so long
	beganMost   = 5 * time.Second        // a line that was sent is taken to run when nothing is heard of it, …
	unheardMost = 30 * time.Second       // … or after so long where it is not even shown
	nothingRan  = 500 * time.Millisecond // between a prompt and the mark that says that something runs all the same
	editorWait  = 30 * time.Millisecond  // some shells show their prompt before they have the terminal to themselves
	aheadWait   = 300 * time.Millisecond // what was typed ahead begins within
	promptQuiet = 150 * time.Millisecond // a prompt is one when nothing follows it
	nestedQuiet = 300 * time.Millisecond // the same where it may be that of a nested shell
	noOutput    = 10 * time.Second       // silence, where a command has printed nothing at all
)

// starters are the kinds of shells that tell when a command starts, unless they say that
// they do not.
var starters = []string{"bash", "zsh", "fish"}

// begin takes what is known of a shell that was connected.
func (t *turn) begin(f Facts) {
	t.marks, t.tells, t.heard = f.Marks, f.Marks, false
	t.nesting, t.known = nil, f.Kind
	if len(t.levels) == 0 {
		// A shell that was found again does not introduce itself anew.
		t.levels = []level{{pid: f.PID, kind: f.Kind, starts: slices.Contains(starters, f.Kind)}}
	}
}

// top is the shell that has the terminal.
func (t *turn) top() *level { return &t.levels[len(t.levels)-1] }

// guessing reports whether prompts and silence are all that tells of ends.
func (t *turn) guessing() bool { return !t.marks || t.top().foreign }

// tellsStart reports whether the shell has a mark for the start of a command. Those that
// have a prompt alone to put marks in do not: there it has begun when its line was sent.
func (t *turn) tellsStart() bool { return !t.guessing() && t.top().starts }

// onItsWay reports whether nothing was seen of what the service has typed, not even its
// echo: a prompt that is there, or is drawn anew, is the one from before.
func (t *turn) onItsWay() bool { return t.echo.active && !t.echo.seen }

// mark takes a mark of the shell.
func (l *live) mark(e completion.Event) {
	t := &l.turn
	t.heard, t.marks = true, true
	l.integrated(e)
	l.spoken(e)
	switch e.Kind {
	case completion.ShellInfo: // spoken has taken it
	case completion.PromptStart:
		t.shown = true // should its end be missing, quiet tells
		l.after(quietAlarm, promptQuiet)
	case completion.PromptEnd:
		t.shown = false
		l.prompted()
	case completion.CommandStart:
		l.commandStart(e.Line)
	case completion.CommandEnd:
		code := e.Code
		if code < 0 {
			l.commandEnd(nil)
		} else {
			l.commandEnd(&code)
		}
	}
}

// complete notes how ends are recognised from now on.
func (l *live) complete(by command.Completion) {
	if l.s.Completion != by {
		l.s.Completion = by
		l.publish()
	}
}

// prompted is called when the shell has shown its prompt and reads.
func (l *live) prompted() {
	t := &l.turn
	switch {
	case t.typing != nil:
		// Prompts are shown anew, also before a line runs: what comes next tells.
		if !t.onItsWay() {
			l.sooner(beganAlarm, nothingRan)
		}
		return
	case t.phase == reading: // it was shown anew, and its line erased before
		l.screen.Mark(strconv.FormatInt(t.number+1, 10))
		t.prompt = l.screen.LineToCursor()
		t.echo.prompt = t.prompt
		return
	case t.cur != nil:
		// Its end was not told: another shell has taken this one's place.
		l.endCommand(t.cur, nil, command.ByPrompt)
	}
	l.complete(command.ByMark)
	l.read()
}

// read begins to read a line.
func (l *live) read() {
	t := &l.turn
	if t.unseen && !t.guessing() {
		t.ahead.unseen()
	}
	t.phase, t.unsure, t.unseen = reading, false, false
	t.prompt = l.screen.LineToCursor()
	t.echo = echo{active: true, persons: true, prompt: t.prompt}
	l.screen.Mark(strconv.FormatInt(t.number+1, 10)) // the next command begins here
	l.prompts.Learn(t.prompt)
	l.unset(quietAlarm)
	l.unset(silenceAlarm)
	// What was typed while the command ran may be the beginning of the next line, and so
	// may be what the terminal has answered.
	t.dirty, t.answered = t.ahead.any || t.answered, false
	t.readFrom = l.offset()
	if t.ahead.lines > 0 {
		t.echo.entered = !t.guessing() && slices.Contains(editors, t.top().kind)
		l.after(pullAlarm, aheadWait)
	}
	t.readAt = l.now
	l.openNow()
	if t.ahead.lines == 0 {
		l.pull()
	}
}

// commandStart is called when the shell says that a command begins here.
func (l *live) commandStart(line string) {
	t := &l.turn
	if p := t.cur; p != nil {
		if t.typing == nil {
			// More lines of it, or it was taken to run already.
			if p.doubt && !t.ahead.any && !t.ahead.before && sameLine(line, p.line) {
				p.doubt = false
			}
			return
		}
		l.endCommand(t.cur, nil, command.ByPrompt)
	}
	if line == "" {
		line = t.echo.line()
	}
	p := t.typing
	if p != nil && t.ahead.before && !sameLine(line, p.line) {
		p = nil // what was typed ahead; ours comes behind it
	}
	if p == nil {
		p = l.typedProcess(line)
	} else {
		t.typing = nil
	}
	l.run(p, l.offset())
}

// sameLine compares lines as far as a shell keeps them.
func sameLine(told, line string) bool {
	return told == "" || strings.Join(strings.Fields(told), " ") == strings.Join(strings.Fields(line), " ")
}

// commandEnd is called when the shell says that the command has ended; code is nil where
// it does not say how.
func (l *live) commandEnd(code *int) {
	t := &l.turn
	if t.outside(t.cur) || t.outside(t.typing) {
		code = nil
	}
	switch {
	case t.cur != nil:
		l.endCommand(t.cur, code, command.ByMark)
	case t.typing != nil && (t.onItsWay() || !t.tellsStart() && !t.echo.seen):
		// No line has ended since: the prompt, which tells ends, is drawn anew.
	case t.typing != nil && !t.tellsStart():
		// Its echo was not recognised.
		p := t.typing
		t.typing = nil
		l.run(p, l.begunAt())
		l.endCommand(p, code, command.ByMark)
	case t.typing != nil:
		// It did not begin: a syntax error. Or the prompt is shown anew before it does.
		t.code = code
		l.after(beganAlarm, nothingRan)
	case t.phase == reading && t.ahead.lines > 0 && !t.guessing() && !t.tellsStart():
		if p := l.typedProcess(l.aheadLine()); p.line != "" {
			l.run(p, t.readFrom)
			l.endCommand(p, code, command.ByMark)
		} else {
			t.ahead.runs(true)
		}
	case t.phase == sent:
		t.phase = between
	}
}

// outside reports whether p was begun in a shell that has ended before it: the code that
// another shell tells is that of the shell, which is that of p where p has ended it.
func (t *turn) outside(p *Process) bool {
	return p != nil && len(t.levels) < p.depth && !endsShell.MatchString(p.line)
}

// endsShell matches lines that end a shell with their own code.
var endsShell = regexp.MustCompile(`^\s*(exit|logout|exec)(\s[^;&|]*)?$`)

// run makes p the command that runs, whose output begins at an offset.
func (l *live) run(p *Process, begin int64) {
	t := &l.turn
	t.number++
	t.phase, t.cur, t.code, t.late = running, p, nil, nil
	t.dirty, t.asked, t.unsure, t.unseen, t.echo = false, false, false, false, echo{}
	t.ahead.runs(p.typed)
	t.noted, t.group = t.ahead.any || t.keyed != 0, 0
	l.watchGroup()
	p.number, p.depth, p.frame = t.number, len(t.levels), frames[t.top().kind]
	if t.guessing() {
		p.frame = frame{}
	}
	l.unset(beganAlarm)
	l.unset(pullAlarm)
	p.begin(l.now, begin)
	if p.typed && p.line != "" {
		l.tellTyped(p)
	}
	l.note(p.id, begin, false)
	l.rec.mark(p.line)
	l.publish()
	if l.kept() {
		l.save() // the next run is to know that it has begun
	}
	l.watchQuiet()
}

// endCommand ends the command that runs.
func (l *live) endCommand(p *Process, code *int, by command.Completion) {
	t := &l.turn
	l.cancelled(p)
	t.cur, t.phase, t.typedAt, t.group = nil, between, time.Time{}, 0
	if (p.doubt || t.unseen) && by == command.ByMark {
		code = nil
	}
	end := command.Ending{Completion: by}
	switch {
	case by == command.ByMark && code == nil:
		end.Completion = command.ByPrompt // a mark has a code
	case by == command.ByMark, by == command.ByExitStatus:
		end.Code = code
	}
	if p.id == "" && p.missed && end.Code != nil {
		t.late = &end
	}
	p.finish(end, nil)
	l.note(p.id, p.endsAt(), true)
	l.publish()
}

// loseCommand ends a command whose outcome is not known.
func (l *live) loseCommand(p *Process, err error) {
	p.finish(command.Ending{}, err)
	if p.begun() {
		l.note(p.id, p.endsAt(), true)
	}
}

// endCommands ends what runs, and what waits to run, with the session.
func (l *live) endCommands(e *ending) {
	t := &l.turn
	var lost, never error
	if e.keep {
		lost = fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the service lets go of the session %s", l.name)
		never = fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down, and the command was not typed").WithRetry(time.Second)
	} else {
		lost = fault.New(fault.Unavailable, e.why.Reason, "the session %s has ended while the command ran: %s", l.name, e.why.Message).WithHint("%s", e.why.Hint)
		never = fault.New(fault.FailedPrecondition, fault.ReasonSessionEnded, "the session %s has ended, and the command was not typed: %s", l.name, e.why.Message).
			WithHint("Open a new one").With("session", l.id)
	}
	if p := t.cur; p != nil {
		l.cancelled(p)
		t.cur = nil
		l.loseCommand(p, lost)
	}
	if p := t.typing; p != nil {
		t.typing = nil
		p.begin(l.now, l.begunAt())
		l.loseCommand(p, lost)
	}
	for _, p := range t.starts {
		p.refuse(never)
	}
	t.starts = nil
	l.dropUnheld()
}

// shellExited ends what runs with the shell, with its code. A line of which it is not
// known whether the shell has come to it is lost.
func (l *live) shellExited(code *int) {
	t := &l.turn
	p := t.typing
	if p == nil {
		p = t.cur
	}
	if p == nil {
		return
	}
	began := t.typing == nil && !p.doubt && !t.unseen && (t.tellsStart() || l.endedShell(p, code))
	switch {
	case began && code == nil:
		return // endCommands
	case began:
		l.endCommand(p, code, command.ByExitStatus)
		return
	}
	if t.typing, t.cur = nil, nil; !p.begun() {
		p.begin(l.now, l.begunAt())
	}
	l.cancelled(p)
	l.loseCommand(p, fault.New(fault.Unavailable, fault.ReasonSessionGone, "the shell of session %s ended when the command had been typed; whether it ran is not known", l.name).
		WithHint("Look on the host what it has done before you run it again"))
}

// endedShell reports whether a shell that does not tell when a command starts has ended
// with this one, not before it: that it was shown is the terminal's doing.
func (l *live) endedShell(p *Process, code *int) bool {
	if told := exitsWith.FindStringSubmatch(p.line); told != nil {
		n, err := strconv.Atoi(told[1])
		return err == nil && code != nil && n&0xff == *code
	}
	if code != nil && *code >= 128 {
		return false // by a signal
	}
	return l.turn.printed || p.missed || endsShell.MatchString(p.line) && code != nil
}

// exitsWith matches lines that end a shell with a code of their own.
var exitsWith = regexp.MustCompile(`^\s*(?:exit|logout)\s+([0-9]{1,9})\s*$`)

// answered notes that the terminal has answered a program. What has not read it leaves
// it to the shell, where it would stand before the next line.
func (l *live) answered(answer []byte) {
	switch t := &l.turn; {
	case t.phase != reading:
		t.answered = true
	case t.top().kind != "ash" || bytes.Count(answer, []byte{0x1b}) > 1: // ash itself asks once at each prompt, and reads
		t.dirty = true
	}
}

// pull types the next command that waits, where the shell reads and nobody is in the
// middle of typing.
func (l *live) pull() {
	t := &l.turn
	if t.ahead.lines > 0 && t.phase == reading {
		if left := aheadWait - l.now.Sub(t.readAt); left > 0 {
			l.after(pullAlarm, left)
			return
		}
		if !l.aheadIsOver() {
			return
		}
	}
	if len(t.starts) == 0 || t.typing != nil || t.cur != nil || t.nesting != nil || l.link == nil || l.closing != nil {
		return
	}
	switch t.phase {
	case reading:
	case sent:
		// Somebody has sent a line that goes on, and left it.
		if left := typingMost - l.now.Sub(t.typedAt); left > 0 {
			l.after(pullAlarm, left)
		} else {
			t.typedAt = l.now
			l.link.keys.put([]byte{interrupt}, true)
			l.after(pullAlarm, typingMost)
		}
		return
	default:
		return
	}
	if t.dirty {
		if left := typingMost - l.now.Sub(t.typedAt); left > 0 && !t.ahead.before {
			l.after(pullAlarm, left)
			return
		}
		// To the end of the line, and all before it away.
		l.link.keys.put([]byte("\x05\x15"), true)
		t.dirty, t.readAt = false, l.now
	}
	if left := editorWait - l.now.Sub(t.readAt); left > 0 && slices.Contains(editors, t.top().kind) {
		l.after(pullAlarm, left)
		return
	}
	t.ahead, t.keyed, t.noted = typedAhead{before: t.ahead.before}, 0, false
	p := t.starts[0]
	t.starts = slices.Delete(t.starts, 0, 1)
	if p.run.Fits != nil {
		if err := p.run.Fits(); err != nil {
			p.refuse(err)
			l.pull()
			return
		}
	}
	t.typing, t.sentAt, p.depth = p, l.now, len(t.levels)
	l.typeLine(p)
	l.stayActive()
	l.publish()
	if t.tellsStart() {
		l.after(beganAlarm, beganMost)
	}
}

// unheardOf is called when nothing was heard of a line that was sent, or a prompt alone.
// Where the line itself was not shown, the prompt is the one from before, and the line is
// on its way still: the connection may be slow, or the host.
func (l *live) unheardOf() {
	t := &l.turn
	p := t.typing
	if p == nil {
		return
	}
	line := l.screen.LineToCursor()
	back, shown := l.prompts.Is(line), !t.onItsWay()
	if back && !shown && l.now.Sub(t.sentAt) < unheardMost {
		l.after(beganAlarm, beganMost)
		return
	}
	t.typing = nil
	code, at := t.code, l.begunAt()
	l.run(p, at)
	switch {
	case !shown:
		p.doubt = true
		l.save()
	case code != nil:
		l.endCommand(p, code, command.ByMark)
		l.read()
	case back && strings.HasSuffix(strings.TrimSpace(line), ">") && !strings.HasSuffix(strings.TrimSpace(t.prompt), ">"):
		// It goes on, and is called off: there is no more of it.
		p.doubt = true
		l.link.keys.put([]byte{interrupt}, true)
	case back: // nothing ran: a comment, say
		l.endCommand(p, nil, command.ByPrompt)
		l.read()
	}
}

// begunAt is where the output of a line that was sent begins, as far as can be told.
func (l *live) begunAt() int64 {
	e := &l.turn.echo
	if e.seen {
		return e.end
	}
	if e.active {
		return e.from
	}
	return l.offset()
}
