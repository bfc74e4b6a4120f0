package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// printer prints answers to standard output and remarks to standard error. What
// comes from outside (command lines, labels, messages) goes through printable on
// its way to people; the output of commands never passes here.
type printer struct {
	stdout, stderr io.Writer
	json           bool
	quiet          bool
	colour         bool // of stdout
	remarks        bool // stderr is a terminal: somebody reads along
	warnColour     bool // of remarks that are to be seen
	width          int  // of the terminal on stdout; 0: no terminal
	now            func() time.Time
}

// dumb reports whether nothing is known of the terminal but that it shows lines.
func dumb(env Env) bool {
	name := env.Getenv("TERM")
	return name == "" || name == "dumb"
}

func newPrinter(env Env) *printer {
	p := &printer{stdout: env.Stdout, stderr: env.Stderr, now: time.Now}
	colours := env.Getenv("NO_COLOR") == "" && !dumb(env)
	if fd, ok := terminal(env.Stdout); ok {
		p.colour = colours
		p.width, _, _ = term.GetSize(fd) // 0 where it cannot tell
	}
	if l, ok := env.Stderr.(*lockedWriter); ok {
		_, p.remarks = terminal(l.w)
		p.warnColour = p.remarks && colours
	}
	return p
}

func (p *printer) configure(o *globals) { p.json, p.quiet = o.JSON, o.Quiet }

// terminal gives the file descriptor of a terminal.
func terminal(v any) (fd int, ok bool) {
	f, ok := v.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}

// note is a remark for somebody who reads along; it is not worth a line in a log.
func (p *printer) note(format string, args ...any) {
	if p.remarks && !p.json {
		p.tell(format, args...)
	}
}

// tell is a remark that matters without a terminal too.
func (p *printer) tell(format string, args ...any) {
	if !p.quiet {
		p.printErr("telexec: " + indented(fmt.Sprintf(format, args...)) + "\n")
	}
}

// warn is a tell that is to be seen among the output of a command. JSON has it in
// its events.
func (p *printer) warn(format string, args ...any) {
	if p.quiet || p.json {
		return
	}
	text := "telexec: " + printable(fmt.Sprintf(format, args...))
	if p.warnColour {
		text = sgr(text, yellow)
	}
	p.printErr(text + "\n")
}

func (p *printer) printErr(s string) {
	_, _ = io.WriteString(p.stderr, s) // there is nowhere left to complain
}

// document prints m as one JSON document.
func (p *printer) document(m proto.Message) error {
	return p.writeJSON(m, func(dst *bytes.Buffer, src []byte) error { return json.Indent(dst, src, "", "  ") })
}

// line prints m as one line of JSON.
func (p *printer) line(m proto.Message) error {
	return p.writeJSON(m, json.Compact)
}

// writeJSON lets layout undo the blanks that protojson puts in at random.
func (p *printer) writeJSON(m proto.Message, layout func(*bytes.Buffer, []byte) error) error {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := layout(&buf, b); err != nil {
		return err
	}
	buf.WriteByte('\n')
	_, err = p.stdout.Write(buf.Bytes())
	return err
}

// value prints anything else as one JSON document.
func (p *printer) value(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(append(b, '\n'))
	return err
}

// cell is a field of a table: text, and the SGR code of its colour if any.
type cell struct {
	text   string
	colour string
}

// Colours, as SGR parameters (ECMA-48, 8.3.117).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	grey   = "90"
)

func plainCell(s string) cell { return cell{text: s} }

// table prints rows in columns, aligned for people. On a terminal the last column
// is cut at its edge.
func (p *printer) table(header []string, rows [][]cell) error {
	head := make([]cell, len(header))
	for i, h := range header {
		head[i] = cell{h, bold}
	}
	return p.columns(append([][]cell{head}, rows...))
}

func (p *printer) columns(rows [][]cell) error {
	var widths []int
	for _, row := range rows {
		for i := range row {
			row[i].text = printable(row[i].text)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for len(row) > 1 && row[len(row)-1].text == "" {
			row = row[:len(row)-1] // no blanks at the end of a line
		}
		at := 0
		for i, c := range row {
			text := c.text
			last := i == len(row)-1
			if last && p.width > at {
				text = cut(text, p.width-at)
			}
			b.WriteString(p.paint(text, c.colour))
			if !last {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+2))
			}
			at += widths[i] + 2
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(p.stdout, b.String())
	return err
}

// paint colours s where there are colours.
func (p *printer) paint(s, colour string) string {
	if !p.colour || colour == "" || s == "" {
		return s
	}
	return sgr(s, colour)
}

// sgr puts a colour around s.
func sgr(s, colour string) string { return "\x1b[" + colour + "m" + s + "\x1b[0m" }

// cut gives at most n characters of s, the last being … if some are missing.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// printable gives s with everything escaped that a terminal could take for more
// than text: control characters, and those that change the direction of writing
// or are not to be seen. What is not UTF-8 is escaped byte by byte. A backslash
// stays as it is; judged tells it apart.
func printable(s string) string {
	var b strings.Builder
	for i, size := 0, 0; i < len(s); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case visible(r):
			b.WriteRune(r)
		default:
			b.WriteString(escapedRune(r))
		}
	}
	return b.String()
}

// visible reports whether r is to be seen. Some letters, marks and symbols are
// not: fillers, selectors of variants, the empty pattern of Braille, the head of a
// note that has none.
func visible(r rune) bool {
	return unicode.IsPrint(r) && r != '\u2800' && r != '\U0001D159' &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// escapedRune is r as Go would write it: \n, \x1b, \u202e.
func escapedRune(r rune) string {
	quoted := strconv.QuoteRuneToASCII(r)
	return quoted[1 : len(quoted)-1]
}

// linesOf gives the lines of a text that hold something.
func linesOf(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(s) {
			if line = strings.TrimRight(line, "\r\n"); line != "" && !yield(line) {
				return
			}
		}
	}
}

// indented is printable for a text that may have lines, as what a host said has:
// each but the first stands under it.
func indented(s string) string {
	var b strings.Builder
	for line := range linesOf(s) {
		if b.Len() > 0 {
			b.WriteString("\n  ")
		}
		b.WriteString(printable(line))
	}
	return b.String()
}

// ago gives a time for people: "3 min ago".
func (p *printer) ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	d := p.now().Sub(t.AsTime())
	if d < time.Second { // the service's clock may be a little ahead
		return "just now"
	}
	return coarse(d) + " ago"
}

// moment gives a time for people who want to know exactly: local time, and ago.
func (p *printer) moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05 MST") + " (" + p.ago(t) + ")"
}

// coarse gives the largest unit of a duration.
func coarse(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// humanDuration gives the two largest units of a duration: "12 ms", "1.4 s",
// "3 min 20 s".
func humanDuration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d/time.Millisecond)
	case d < time.Minute:
		return strconv.FormatFloat(float64(d/(100*time.Millisecond))/10, 'f', -1, 64) + " s"
	case d < time.Hour:
		return two(int(d/time.Minute), "min", int(d/time.Second)%60, "s")
	case d < 48*time.Hour:
		return two(int(d/time.Hour), "h", int(d/time.Minute)%60, "min")
	}
	return two(int(d/(24*time.Hour)), "days", int(d/time.Hour)%24, "h")
}

func two(a int, unitA string, b int, unitB string) string {
	if b == 0 {
		return fmt.Sprintf("%d %s", a, unitA)
	}
	return fmt.Sprintf("%d %s %d %s", a, unitA, b, unitB)
}

// duration is humanDuration of a field that may be unset.
func duration(d *durationpb.Duration) string {
	if d == nil {
		return "-"
	}
	return humanDuration(d.AsDuration())
}

// size gives a number of bytes for people.
func size(n int64) string {
	if n < 10_000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n)/1024, "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, next
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// enum gives the name of an enum value without its prefix, in lower case.
func enum(name, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}

func stateName(s telexecv1.CommandState) string { return enum(s.String(), "COMMAND_STATE_") }

func originName(o telexecv1.Origin) string { return enum(o.String(), "ORIGIN_") }

// stateCell is the state of a command, with a colour that says how it went.
func stateCell(cmd *telexecv1.Command) cell {
	c := cell{text: stateName(cmd.GetState())}
	switch cmd.GetState() {
	case telexecv1.CommandState_COMMAND_STATE_RUNNING:
		c.colour = green
		switch {
		case cmd.GetCancellation() != nil:
			c.text, c.colour = "cancelling", yellow
		case reconnecting(cmd):
			c.text, c.colour = "reconnecting", yellow
		}
	case telexecv1.CommandState_COMMAND_STATE_QUEUED, telexecv1.CommandState_COMMAND_STATE_STARTING,
		telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL:
		c.colour = yellow
	case telexecv1.CommandState_COMMAND_STATE_COMPLETED:
		if cmd.GetExitCode() != 0 {
			c.colour = red
		}
	case telexecv1.CommandState_COMMAND_STATE_CANCELLED:
		c.colour = grey
	default:
		c.colour = red
	}
	return c
}

// ended reports whether a state is an end: COMPLETED and those behind it.
func ended(s telexecv1.CommandState) bool {
	return s >= telexecv1.CommandState_COMMAND_STATE_COMPLETED
}
