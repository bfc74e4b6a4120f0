package mcptool

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// conditions say what ends a wait besides the end of the command and the time.
// The zero value is: nothing.
type conditions struct {
	state    bool           // the state changes, or a cancel begins
	pattern  *regexp.Regexp // a line of output matches
	silence  time.Duration  // nothing was printed for so long; 0: whatever
	newBytes int64          // so much was printed; 0: whatever
}

// output reports whether output can end the wait.
func (c conditions) output() bool { return c.pattern != nil || c.silence > 0 || c.newBytes > 0 }

// outcome is what a wait has ended with.
type outcome struct {
	why   string
	match *matchFacts
}

// maxMatch is how much of a line that matches is told.
const maxMatch = 1 << 10

// What ends a wait.
const (
	whyAtOnce  = "at_once"
	whyEnded   = "ended"
	whyState   = "state"
	whyPattern = "pattern"
	whySilence = "silence"
	whyBytes   = "new_bytes"
	whyTime    = "time"
)

// sentence says why a wait has ended, where that is not plain from the command.
func (o outcome) sentence() string {
	switch o.why {
	case whyPattern:
		return fmt.Sprintf("A line of %s matches the pattern, at offset %d.", o.match.Stream, o.match.Offset)
	case whySilence:
		return "Its output has fallen silent."
	case whyBytes:
		return "As much output as was waited for has come."
	case whyTime:
		return "The time to wait is over, and what was waited for has not happened."
	}
	return ""
}

// watch is one wait for something to happen to a command. The connection to the
// service may break and come back meanwhile.
type watch struct {
	adapter        *adapter
	id             string
	wait           time.Duration
	until          conditions
	stdout, stderr *int64          // from where output counts; nil: see statusArgs
	report         *progressReport // nil: nobody listens
}

// run waits. Where only the state or silence matters it asks for long answers;
// the output itself is read only where it must be looked at.
func (w *watch) run(ctx context.Context) (outcome, error) {
	began := time.Now()
	resp, err := w.ask(ctx, 0, 0)
	if err != nil {
		return outcome{}, err
	}
	cmd := resp.GetCommand()
	switch {
	case ended(cmd) && w.until.pattern == nil:
		return outcome{why: whyEnded}, nil
	case w.until.pattern != nil || w.until.newBytes > 0:
		return w.read(ctx, cmd, w.wait-time.Since(began))
	}
	before := lifeOf(cmd)
	for {
		left := w.wait - time.Since(began)
		idle, known := silentFor(cmd)
		known = known && w.until.silence > 0
		switch {
		case ended(cmd):
			return outcome{why: whyEnded}, nil
		case w.until.state && lifeOf(cmd) != before:
			return outcome{why: whyState}, nil
		case known && idle >= w.until.silence:
			return outcome{why: whySilence}, nil
		case left <= 0:
			return outcome{why: whyTime}, nil
		}
		if known {
			left = min(left, w.until.silence-idle)
		}
		if w.report != nil {
			w.report.tell(ctx, resp)
			left = min(left, reportEvery)
		}
		if resp, err = w.ask(ctx, left, cmd.GetVersion()); err != nil {
			return outcome{}, err
		}
		cmd = resp.GetCommand()
	}
}

// ask is GetStatus: at once, or as soon as the command is newer than version.
func (w *watch) ask(ctx context.Context, wait time.Duration, version int64) (*telexecv1.GetStatusResponse, error) {
	req := &telexecv1.GetStatusRequest{CommandId: w.id, Output: &telexecv1.OutputOptions{Omit: true}}
	if w.report != nil {
		req.Output = &telexecv1.OutputOptions{LimitBytes: lastLineBytes}
	}
	if wait > 0 {
		req.Wait, req.IfVersionGreaterThan = durationpb.New(wait), &version
	}
	return w.adapter.client.GetStatus(ctx, req)
}

// life is what counts as a change of state. That a command which has a slot has
// now started is none: it is what everybody expects next. Neither is a connection
// that broke: the command goes on.
type life struct {
	state       telexecv1.CommandState
	isCancelled bool
}

func lifeOf(c *telexecv1.Command) life {
	l := life{c.GetState(), c.GetCancellation() != nil}
	if l.state == telexecv1.CommandState_COMMAND_STATE_STARTING {
		l.state = telexecv1.CommandState_COMMAND_STATE_RUNNING
	}
	return l
}

// silentFor is how long a command has printed nothing. It is not known of one that
// has not started, or whose host cannot be reached just now.
func silentFor(c *telexecv1.Command) (idle time.Duration, known bool) {
	return idleFor(c), c.GetStartTime() != nil && c.GetConnection() != telexecv1.Connection_CONNECTION_RECONNECTING
}

// Why reading has ended; causes of a context.
var (
	errTime   = errors.New("the time to wait is over")
	errSilent = errors.New("the output is silent")
)

// read follows the output from where it counts until it does what was waited for,
// or the time is over.
func (w *watch) read(ctx context.Context, cmd *telexecv1.Command, wait time.Duration) (outcome, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	over := time.AfterFunc(wait, func() { stop(errTime) })
	defer over.Stop()
	silence := time.AfterFunc(wait, func() { stop(errSilent) }) // no sooner than it is set below
	silence.Stop()
	defer silence.Stop()

	r := newReader(w, cmd)
	req := &telexecv1.StreamOutputRequest{CommandId: w.id, Follow: true, StdoutOffset: r.stdout.next, StderrOffset: r.stderr.next}
	if w.report != nil {
		req.Heartbeat = durationpb.New(reportEvery)
	}
	for event, err := range w.adapter.client.StreamOutput(ctx, req) {
		if err != nil {
			switch context.Cause(ctx) {
			case errTime:
				return outcome{why: whyTime}, nil
			case errSilent:
				return outcome{why: whySilence}, nil
			}
			return outcome{}, err
		}
		if seen, ok := r.see(ctx, event); ok {
			return seen, nil
		}
		if w.until.silence > 0 {
			r.listen(silence, event)
		}
		if w.report != nil {
			w.report.tellLine(ctx, r.recent)
		}
	}
	return outcome{why: whyEnded}, nil
}

// reader is what a watch has read so far.
type reader struct {
	until                conditions
	stdout, stderr       lines
	sinceStdout          int64 // from here on bytes count as new
	sinceStderr          int64
	fresh                int64 // new bytes so far
	command              *telexecv1.Command
	nowStdout, nowStderr int64  // sizes when the watch began: up to there it reads what is old
	listening            bool   // the timer for silence runs
	recent               string // the last line that is not blank
}

// listen keeps the timer for silence: it runs once the command can be heard, that
// is, has started, is connected, and all that is old has been read; and it begins
// anew with whatever is printed.
func (r *reader) listen(silence *time.Timer, event *telexecv1.StreamOutputResponse) {
	idle, known := silentFor(r.command)
	caughtUp := r.stdout.next >= r.nowStdout && r.stderr.next >= r.nowStderr
	switch {
	case !known || !caughtUp:
		silence.Stop()
		r.listening = false
	case !r.listening:
		silence.Reset(max(r.until.silence-idle, 0))
		r.listening = true
	case event.GetChunk() != nil:
		silence.Reset(r.until.silence)
	}
}

func newReader(w *watch, cmd *telexecv1.Command) *reader {
	r := &reader{until: w.until, command: cmd, nowStdout: cmd.GetStdoutBytes(), nowStderr: cmd.GetStderrBytes()}
	r.sinceStdout, r.sinceStderr = orElse(w.stdout, r.nowStdout), orElse(w.stderr, r.nowStderr)
	r.stdout, r.stderr = lines{next: r.sinceStdout}, lines{next: r.sinceStderr}
	if w.until.pattern != nil { // all of it, where nothing was said
		r.stdout, r.stderr = lines{next: orElse(w.stdout, 0)}, lines{next: orElse(w.stderr, 0)}
	}
	r.stdout.stream, r.stderr.stream = streamStdout, streamStderr
	return r
}

func orElse(v *int64, otherwise int64) int64 {
	if v == nil {
		return otherwise
	}
	return *v
}

// of is what was read of a stream.
func (r *reader) of(s telexecv1.Stream) *lines {
	if s == telexecv1.Stream_STREAM_STDERR {
		return &r.stderr
	}
	return &r.stdout
}

// see looks at an event and reports whether it ends the watch.
func (r *reader) see(ctx context.Context, event *telexecv1.StreamOutputResponse) (outcome, bool) {
	switch {
	case event.GetChunk() != nil:
		return r.seeChunk(ctx, event.GetChunk())
	case event.GetGap() != nil:
		l := r.of(event.GetGap().GetStream())
		*l = lines{stream: l.stream, next: event.GetGap().GetTo()}
	case event.GetEnded() != nil:
		return outcome{why: whyEnded}, true
	case event.GetCommand() != nil:
		r.command = event.GetCommand()
	}
	return outcome{}, false
}

func (r *reader) seeChunk(ctx context.Context, c *telexecv1.OutputChunk) (outcome, bool) {
	l, since := r.of(c.GetStream()), r.sinceStdout
	if c.GetStream() == telexecv1.Stream_STREAM_STDERR {
		since = r.sinceStderr
	}
	if end := c.GetOffset() + int64(len(c.GetData())); end > since {
		r.fresh += end - max(since, c.GetOffset())
	}
	for m := range l.add(c.GetOffset(), c.GetData()) {
		if ctx.Err() != nil {
			return outcome{}, false // the stream tells why
		}
		if r.matches(m) {
			return found(m), true
		}
		if strings.TrimSpace(m.Line) != "" {
			r.recent = m.Line
		}
	}
	if m := l.unfinished(); r.matches(m) { // a prompt has no end of line
		m.Unfinished = true
		return found(m), true
	}
	if r.until.newBytes > 0 && r.fresh >= r.until.newBytes {
		return outcome{why: whyBytes}, true
	}
	return outcome{}, false
}

// found is the outcome of a line that matches.
func found(m matchFacts) outcome {
	m.Line = cut(m.Line, maxMatch)
	return outcome{whyPattern, &m}
}

// matches reports whether a line is what was waited for.
func (r *reader) matches(m matchFacts) bool {
	return r.until.pattern != nil && r.until.pattern.MatchString(m.Line)
}
