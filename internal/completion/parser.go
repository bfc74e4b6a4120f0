package completion

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a mark tells.
type Kind uint8

// The kinds, in the order in which a command brings them. What a line edited again, a
// resized window or an empty line makes a shell repeat, comes again: a PromptStart or
// PromptEnd more than once, a CommandEnd where nothing has started.
const (
	// ShellInfo: a shell introduces itself, at its start or when it was integrated. Its
	// first prompt follows, with no CommandEnd before it.
	ShellInfo Kind = iota + 1
	// PromptStart: a prompt begins.
	PromptStart
	// PromptEnd: the prompt is there and the shell reads. A program that sets the prompt
	// late may suppress one of them.
	PromptEnd
	// CommandStart: a line was read, and runs. Several of them without an end between
	// them are lines that were pasted together; the one end that follows is that of all.
	CommandStart
	// CommandEnd: whatever was read is over. Without a CommandStart before it, of a shell
	// that Starts, nothing has run: the line was empty, or could not be parsed (Code then
	// says so), or was given up with Ctrl-C.
	CommandEnd
)

// Event is one mark.
type Event struct {
	Kind   Kind
	Line   string // of CommandStart: what runs, where the shell tells it
	Code   int    // of CommandEnd: $?, 0 to 255; -1 where it is not known
	PID    int    // of the shell that tells it; 0 where it does not say
	Shell  string // of ShellInfo: bash, zsh, fish, dash, ash, ksh, mksh
	Level  int    // of ShellInfo: SHLVL, or 0
	Starts bool   // of ShellInfo: this shell tells CommandStart
}

// Segment is a piece of output: Data or an Event, never both.
type Segment struct {
	Data  []byte // valid until emit returns
	Event *Event
}

const (
	markMost  = 8 << 10 // bytes of a mark at most
	afterMost = 8 << 10 // bytes that are kept back for an end that may come
)

var markHead = []byte("\x1b]133;")

// Parser takes the marks with its nonce out of the output of a terminal. How the output
// is cut into Writes changes nothing in what comes out. It has one user at a time.
type Parser struct {
	key   string // what the body of a mark ends with
	held  []byte // the beginning of what may become a mark
	fresh bool   // a shell has introduced itself, and shown no prompt yet
	end   *Event // of E: the end of a command, which has its place here, unless a C comes
	after []byte // what came since E
	told  bool   // that end was given, so the D that repeats it is not
}

// NewParser makes the parser of a session with this nonce.
func NewParser(nonce string) *Parser { return &Parser{key: ";k=" + nonce} }

// Write takes the next output and gives what is in it, and in what was held back, in
// order. What may still become a mark is held back, at most 8 KiB, and for a short time
// as much of what follows the output of a command; Flush gives it.
func (p *Parser) Write(in []byte, emit func(Segment)) {
	b := in
	if len(p.held) > 0 {
		b = append(p.held, in...)
		p.held = nil
	}
	from := 0 // of the data that was not given yet
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\x1b')
		if i < 0 {
			break
		}
		at += i
		body, size := scan(b[at:])
		if size == 0 {
			p.held = bytes.Clone(b[at:])
			b = b[:at]
			break
		}
		said, own := strings.CutSuffix(body, p.key)
		if !own {
			at++
			continue
		}
		p.data(b[from:at], emit)
		p.mark(said, emit)
		at += size
		from = at
	}
	p.data(b[from:], emit)
}

// Marking reports whether what came last has begun as a mark does. Nothing of that is to
// be seen, so there is time for the rest of it.
func (p *Parser) Marking() bool { return len(p.held) > 0 }

// Flush gives what is held back, when nothing has come for a while: it is data.
func (p *Parser) Flush(emit func(Segment)) {
	held := p.held
	p.held = nil
	p.data(held, emit)
	p.conclude(emit)
}

// scan reads the OSC 133 at the start of b, which begins with ESC. size is 0 where b is
// only the beginning of one; body is empty where it is none.
func scan(b []byte) (body string, size int) {
	n := min(len(b), len(markHead))
	if !bytes.Equal(b[:n], markHead[:n]) {
		return "", 1
	}
	for i := n; i < min(len(b), markMost); i++ {
		switch c := b[i]; {
		case c == '\a':
			return string(b[n:i]), i + 1
		case c == '\x1b' && i+1 == len(b):
			return "", 0
		case c == '\x1b' && b[i+1] == '\\':
			return string(b[n:i]), i + 2
		case c < ' ' || c == 0x7f:
			return "", 1
		}
	}
	if len(b) >= markMost {
		return "", 1
	}
	return "", 0
}

func (p *Parser) data(b []byte, emit func(Segment)) {
	if len(b) == 0 {
		return
	}
	if p.end != nil {
		if len(p.after)+len(b) <= afterMost {
			p.after = append(p.after, b...)
			return
		}
		p.conclude(emit)
	}
	emit(Segment{Data: b})
}

// conclude gives the end that E has told, for no C comes, and what was kept back.
func (p *Parser) conclude(emit func(Segment)) {
	if p.end != nil {
		emit(Segment{Event: p.end})
		p.told = true
	}
	p.release(emit)
}

// release gives what was kept back, and forgets the end before it.
func (p *Parser) release(emit func(Segment)) {
	p.end = nil
	if after := p.after; len(after) > 0 {
		p.after = nil
		emit(Segment{Data: after})
	}
}

// mark takes one of our own: its letter and arguments.
func (p *Parser) mark(said string, emit func(Segment)) {
	letter, rest, _ := strings.Cut(said, ";")
	args := strings.Split(rest, ";")
	event := func(e Event) { emit(Segment{Event: &e}) }
	pid := number(args, "p=")
	switch letter {
	case "A":
		p.conclude(emit)
		p.fresh = false
		event(Event{Kind: PromptStart, PID: pid})
	case "B":
		p.conclude(emit)
		p.told = false
		event(Event{Kind: PromptEnd, PID: pid})
	case "C":
		p.release(emit)
		p.fresh, p.told = false, false
		line, _ := value(args, "line=")
		event(Event{Kind: CommandStart, Line: decode(line), PID: pid})
	case "D":
		p.conclude(emit)
		if !p.fresh && !p.told {
			event(Event{Kind: CommandEnd, Code: code(args[0]), PID: pid})
		}
		if slices.Contains(args, "a") {
			p.fresh = false
			event(Event{Kind: PromptStart, PID: pid})
		}
	case "E":
		p.conclude(emit)
		if !p.fresh {
			p.end = &Event{Kind: CommandEnd, Code: code(args[0]), PID: pid}
		}
	case "P":
		p.conclude(emit)
		p.fresh, p.told = true, false
		shell, _ := value(args, "shell=")
		event(Event{Kind: ShellInfo, PID: number(args, "pid="), Shell: shell, Level: number(args, "level="), Starts: slices.Contains(args, "starts=1")})
	}
}

func value(args []string, name string) (string, bool) {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, name); ok {
			return v, true
		}
	}
	return "", false
}

func number(args []string, name string) int {
	v, _ := value(args, name)
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > math.MaxInt32 {
		return 0
	}
	return n
}

// code reads $?. ksh93 has 256 and more for what a signal has ended.
func code(s string) int {
	n, err := strconv.Atoi(s)
	switch {
	case err != nil || n < 0:
		return -1
	case n > 256 && n < 512:
		return 128 + n&127
	}
	return n & 255
}

// decode undoes the percent-encoding of a line; what is none stays as it is.
func decode(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
