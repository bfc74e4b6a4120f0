package sshterm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/telexec/telexec/internal/session"
)

// control is tmux in control mode (tmux(1), CONTROL MODE): lines, of which those that
// begin with %output have what the shell prints, with control characters and the
// backslash in octal; the answer to each command stands between %begin and %end. We
// type by send-keys -H, in hexadecimal. tmux reads no more of the shell than we read of
// it, but for where it happens to have less than 512 bytes of 8192 left to write: there
// 3.3 reads on.
type control struct {
	src  *source
	pane string // its id; lines of others are passed over

	hidden string // a line that was typed unseen, and no picture shows; may be empty

	writing sync.Mutex
	w       io.Writer

	// Of the reader.
	ready []byte // output that Read has not given yet
	room  []byte // that it was put into
	words string // what attach.sh has said last
	drop  bool   // output is not wanted: what is asked for will have it
	there bool   // tmux has told that it is attached

	line   []byte   // what has come of a line that is no output
	inside position // where in the lines we are
	digits int      // of an octal number that are still to come
	octal  byte     // what has come of it

	guard   string   // what the %end of the answer that is being read says
	answer  []string // its lines so far
	size    int      // their bytes
	answers []answer // to the questions that are being asked
	asking  bool
}

// answer is what tmux answers to a command.
type answer struct {
	lines []string
	ok    bool
}

// position is a place in a line.
type position uint8

const (
	inLine   position = iota // of any kind
	inOutput                 // behind "%output PANE "
	inOther                  // so, of another pane
)

const (
	maxLine   = 64 << 10 // bytes of a line that is not output, and is kept
	maxScreen = 8 << 20  // bytes of an answer that are kept
	perLine   = 256      // bytes that a line of it counts besides its own
	maxAhead  = 1 << 20  // bytes of output that are kept while an answer is waited for
)

// newControl goes on with a stream on which attach.sh has greeted.
func newControl(w io.Writer, p *plainStream) *control {
	c := &control{w: w, src: p.src}
	c.take(p.ready)
	return c
}

// attached waits until tmux has attached us. It may carry out commands before that, and
// what is printed meanwhile it does not tell.
func (c *control) attached() error {
	for !c.there {
		if c.words != "" {
			return errors.New("tmux ended at once: " + c.words)
		}
		b, err := c.src.next()
		if err != nil {
			return err
		}
		c.take(b)
	}
	return nil
}

// begin makes sure that tmux listens, and lets a shell that was started go on.
func (c *control) begin() error {
	if err := c.attached(); err != nil {
		return err
	}
	if _, err := c.ask("display-message -p '" + asked + " #{pane_id}'"); err != nil {
		return err
	}
	_, err := c.Write([]byte("\n"))
	return err
}

// asked begins the first answer that is ours; what attaching itself is answered comes
// before.
const asked = "telexec-asked"

// state is what is asked for after resume, in the order of screenState.
const state = "#{pane_id} #{cursor_x} #{cursor_y} #{alternate_on} #{alternate_saved_x} #{alternate_saved_y} " +
	"#{scroll_region_upper} #{scroll_region_lower} #{pane_height} #{cursor_flag} #{insert_flag} #{keypad_cursor_flag} #{keypad_flag} " +
	"#{origin_flag} #{wrap_flag} #{mouse_standard_flag} #{mouse_button_flag} #{mouse_all_flag} #{mouse_utf8_flag} #{mouse_sgr_flag}"

// resume gives what makes a terminal that was reset look like the one in tmux.
func (c *control) resume(size session.Size) ([]byte, error) {
	if err := c.attached(); err != nil {
		return nil, err
	}
	c.drop = true
	got, err := c.ask(
		"display-message -p '"+asked+" "+state+"'",
		"capture-pane -e -p -N",
		"capture-pane -a -e -p -N", // fails where the other screen is not on
		"display-message -p '#{?#{==:#{pane_title},#{host}},,#{pane_title}}'",
		fmt.Sprintf("resize-window -x %d -y %d", size.Columns, size.Rows),
	)
	if err != nil {
		return nil, err
	}
	c.drop = false
	lines, behind := blank(got[1].lines, c.hidden), blank(got[2].lines, c.hidden)
	return redraw(strings.Fields(got[0].lines[0])[1:], lines, behind, strings.Join(got[3].lines, ""))
}

// redraw makes the sequences that draw a screen.
func redraw(state, lines, behind []string, title string) ([]byte, error) {
	if len(state) < 20 {
		return nil, fmt.Errorf("tmux does not tell how the screen is: %q", state)
	}
	var n [20]int
	for i, word := range state[1:20] {
		n[i+1], _ = strconv.Atoi(word) // what is empty is not set
	}
	var b bytes.Buffer
	draw := func(lines []string) {
		b.WriteString("\x1b[H")
		for i, line := range lines {
			if i > 0 {
				b.WriteString("\r\n")
			}
			// Without the blanks that the line is filled with, so that it is not wrapped.
			b.WriteString(strings.TrimRight(line, " ") + "\x1b[m")
		}
	}
	if n[3] == 1 {
		draw(behind)
		fmt.Fprintf(&b, "\x1b[%d;%dH\x1b[?1049h", n[5]+1, n[4]+1)
	}
	draw(lines)
	if n[6] > 0 || n[7] < n[8]-1 {
		fmt.Fprintf(&b, "\x1b[%d;%dr", n[6]+1, n[7]+1)
	}
	for _, mode := range []struct {
		at      int
		on, off string // off: where a terminal that was reset has it on
	}{
		{10, "\x1b[4h", ""}, {11, "\x1b[?1h", ""}, {12, "\x1b=", ""}, {14, "", "\x1b[?7l"},
		{15, "\x1b[?1000h", ""}, {16, "\x1b[?1002h", ""}, {17, "\x1b[?1003h", ""}, {18, "\x1b[?1005h", ""}, {19, "\x1b[?1006h", ""},
	} {
		if n[mode.at] == 1 {
			b.WriteString(mode.on)
		} else {
			b.WriteString(mode.off)
		}
	}
	row := n[2] + 1
	if n[13] == 1 { // the origin is that of the scroll region
		b.WriteString("\x1b[?6h")
		row -= n[6]
	}
	fmt.Fprintf(&b, "\x1b[%d;%dH", row, n[1]+1)
	if n[9] == 0 {
		b.WriteString("\x1b[?25l")
	}
	if title != "" {
		b.WriteString("\x1b]2;" + strings.Map(visible, title) + "\x1b\\")
	}
	return b.Bytes(), nil
}

// ask sends commands and gives the answer to each; the first says asked, and then the id
// of the pane. Only that of the first must be a good one.
func (c *control) ask(commands ...string) ([]answer, error) {
	c.asking = true
	defer func() { c.asking, c.answers = false, nil }()
	if err := c.send(strings.Join(commands, "\n") + "\n"); err != nil {
		return nil, err
	}
	for len(c.answers) < len(commands) {
		if c.words != "" {
			return nil, errors.New("tmux ended at once: " + c.words)
		}
		b, err := c.src.next()
		if err != nil {
			return nil, err
		}
		if c.take(b); len(c.ready) > maxAhead {
			return nil, errors.New("tmux prints without end and does not answer")
		}
	}
	return c.answers[:len(commands)], nil
}

func (c *control) send(lines string) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := io.WriteString(c.w, lines)
	return err
}

// typedAtOnce is how much one command types.
const typedAtOnce = 1024

// Write types.
func (c *control) Write(p []byte) (int, error) {
	head := "send-keys -t " + c.pane + " -H"
	var b strings.Builder
	b.Grow(len(p)*3 + (len(p)/typedAtOnce+1)*(len(head)+1))
	for from := 0; from < len(p); from += typedAtOnce {
		b.WriteString(head)
		for _, c := range p[from:min(from+typedAtOnce, len(p))] {
			digits := hex.AppendEncode([]byte{' '}, []byte{c})
			b.Write(digits)
		}
		b.WriteByte('\n')
	}
	if err := c.send(b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *control) resize(size session.Size) error {
	return c.send(fmt.Sprintf("resize-window -t %s -x %d -y %d\n", c.pane, size.Columns, size.Rows))
}

// Read gives output.
func (c *control) Read(out []byte) (int, error) {
	for len(c.ready) == 0 {
		if c.words != "" {
			return 0, io.EOF
		}
		b, err := c.src.next()
		if err != nil {
			return 0, err
		}
		c.ready = c.room[:0]
		c.take(b)
		c.room = c.ready
	}
	n := copy(out, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

func (c *control) verdict() string { return c.words }

// take takes bytes of lines.
func (c *control) take(b []byte) {
	for len(b) > 0 {
		if c.inside != inLine {
			b = c.output(b)
			continue
		}
		end := bytes.IndexByte(b, '\n')
		piece := b
		if end >= 0 {
			piece = b[:end]
		}
		// Of output that is long, the beginning is told apart before its end has come.
		if c.guard == "" && len(c.line) < outputHead {
			piece = piece[:min(len(piece), outputHead-len(c.line))]
		}
		had := len(c.line)
		if len(c.line)+len(piece) <= maxLine {
			c.line = append(c.line, piece...)
		}
		if c.guard == "" && had < outputHead {
			if pane, size := outputPane(c.line); size > 0 {
				c.inside = inOther
				if pane == c.pane && !c.drop {
					c.inside = inOutput
				}
				b = b[size-had:]
				c.line = c.line[:0]
				continue
			}
		}
		b = b[len(piece):]
		if len(b) > 0 && b[0] == '\n' {
			b = b[1:]
			line := strings.TrimSuffix(string(c.line), "\r")
			c.line = c.line[:0]
			c.heard(line)
		}
	}
}

// outputHead is the most that stands before output: "%output", a pane's id, two blanks.
const outputHead = 32

// outputPane gives the pane of a line of output, and the size of what stands before it;
// 0 where it is none, or not to be seen yet.
func outputPane(line []byte) (pane string, size int) {
	rest, ok := bytes.CutPrefix(line, []byte("%output %"))
	if !ok {
		return "", 0
	}
	id, _, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return "", 0
	}
	return "%" + string(id), len("%output %") + len(id) + 1
}

// output takes bytes of a line of output, and gives those behind its end.
func (c *control) output(b []byte) []byte {
	end := bytes.IndexByte(b, '\n')
	line := b
	if end >= 0 {
		line, b = b[:end], b[end+1:]
	} else {
		b = nil
	}
	if c.inside == inOutput {
		c.decode(line)
	}
	if end >= 0 {
		c.inside, c.digits = inLine, 0
	}
	return b
}

// decode takes the octal out of output.
func (c *control) decode(line []byte) {
	for len(line) > 0 {
		if c.digits > 0 {
			c.octal = c.octal<<3 | (line[0] & 7)
			c.digits--
			line = line[1:]
			if c.digits == 0 {
				c.ready = append(c.ready, c.octal)
			}
			continue
		}
		i := bytes.IndexByte(line, '\\')
		if i < 0 {
			c.ready = append(c.ready, line...)
			return
		}
		c.ready = append(c.ready, line[:i]...)
		line = line[i+1:]
		c.digits, c.octal = 3, 0
	}
}

// heard takes a line that is no output.
func (c *control) heard(line string) {
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case c.guard != "":
		if rest == c.guard && (word == "%end" || word == "%error") {
			c.answered(answer{c.answer, word == "%end"})
			c.guard, c.answer, c.size = "", nil, 0
			return
		}
		if c.size += len(line) + perLine; c.asking && c.size <= maxScreen {
			c.answer = append(c.answer, line)
		}
	case word == "%begin":
		c.guard = rest
	case word == "%session-changed":
		c.there = true
	case strings.HasPrefix(line, "\x1etelexec:"):
		if _, words, ok := strings.Cut(line, ": "); ok {
			c.words = words
		}
	}
	// All else is news of windows and layouts, and %exit, behind which attach.sh speaks.
}

// answered takes an answer. The first that is ours has the pane.
func (c *control) answered(a answer) {
	if !c.asking {
		return
	}
	if len(c.answers) == 0 {
		if !a.ok || len(a.lines) == 0 {
			return
		}
		f := strings.Fields(a.lines[0])
		if len(f) < 2 || f[0] != asked || !paneForm(f[1]) {
			return
		}
		c.pane = f[1]
	}
	c.answers = append(c.answers, a)
	if c.drop && len(c.answers) == resumeAnswers {
		c.drop = false // what comes behind the picture is not in it
	}
}

// paneForm reports whether s is the id of a pane: it becomes part of commands.
func paneForm(s string) bool {
	digits, ok := strings.CutPrefix(s, "%")
	return ok && digits != "" && len(digits) <= 10 && strings.Trim(digits, "0123456789") == ""
}

// resumeAnswers is the number of answers behind which the picture of resume is whole.
const resumeAnswers = 3

// tmuxConfig is all that tmux reads: nothing of the account's, no key of its own, no
// status line, and a terminal inside of the type that was asked for.
func tmuxConfig(spec Spec) string {
	return `set -gq default-terminal ` + spec.Term + `
set -gq status off
set -gq history-limit 1
set -gq prefix None
set -gq prefix2 None
set -gq mouse off
set -sq escape-time 0
set -sq set-clipboard off
set -sq exit-unattached off
set -gq destroy-unattached off
set -gq remain-on-exit off
set -gq detach-on-destroy on
set -gq update-environment ''
set -gq allow-rename off
set -gq automatic-rename off
set -gq bell-action none
set -gq monitor-bell off
`
}

// screenConfig is all that screen reads.
func screenConfig(spec Spec) string {
	term := "screen"
	if strings.Contains(spec.Term, "256color") {
		term = "screen-256color"
	}
	return `startup_message off
vbell off
altscreen on
defutf8 on
deflogin off
autodetach on
defscrollback 0
msgwait 0
escape ""
termcapinfo * ti@:te@
term ` + term + "\n"
}
