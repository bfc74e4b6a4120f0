package mcptool

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// conditions say what ends a wait besides the end of the command and the time.
// The zero value is: nothing.
type conditions struct {
	state    bool           // the state changes
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
	case whyState:
		return "Its state has changed."
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
		return w.read(ctx, cmd, max(w.wait-time.Since(began), 0))
	}
	before, heard := cmd, began // heard is when the command last printed something, or could not be heard
	for {
		left := w.wait - time.Since(began)
		if !audible(cmd) {
			heard = time.Now()
		}
		quiet := time.Since(heard)
		listens := w.until.silence > 0 && audible(cmd)
		switch {
		case ended(cmd):
			return outcome{why: whyEnded}, nil
		case w.until.state && changed(before, cmd):
			return outcome{why: whyState}, nil
		case listens && quiet >= w.until.silence:
			return outcome{why: whySilence}, nil
		case left <= 0:
			return outcome{why: whyTime}, nil
		}
		if listens {
			left = min(left, w.until.silence-quiet)
		}
		if w.report != nil {
			w.report.tell(ctx, resp)
			left = min(left, reportEvery)
		}
		if resp, err = w.ask(ctx, left, cmd.GetVersion()); err != nil {
			return outcome{}, err
		}
		last := cmd
		cmd = resp.GetCommand()
		if printed(cmd) != printed(last) {
			heard = time.Now().Add(-min(idleFor(cmd), time.Since(heard)))
		}
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

// changed reports whether the state of a command has changed in a way that somebody
// waits for. That one which has a slot starts, or one that starts then runs, is what
// everybody expects; that one was approved is not.
func changed(before, now *telexecv1.Command) bool {
	const starting, running = telexecv1.CommandState_COMMAND_STATE_STARTING, telexecv1.CommandState_COMMAND_STATE_RUNNING
	switch now.GetState() {
	case before.GetState():
		return false
	case starting:
		return awaits(before)
	case running:
		return before.GetState() != starting
	}
	return true
}

// printed is how much a command has printed.
func printed(c *telexecv1.Command) int64 { return c.GetStdoutBytes() + c.GetStderrBytes() }

// audible reports whether it would be known here if the command printed something:
// it has started, and its host can be reached.
func audible(c *telexecv1.Command) bool {
	return c.GetStartTime() != nil && c.GetConnection() != telexecv1.Connection_CONNECTION_RECONNECTING
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
	limit := wait
	if limit == 0 { // then what there is is looked at, however long that takes
		limit = searchTime
	}
	over := time.AfterFunc(limit, func() { stop(errTime) })
	defer over.Stop()
	silence := time.AfterFunc(limit, func() { stop(errSilent) })
	silence.Stop() // until listen sets it
	defer silence.Stop()

	r := newReader(w, cmd)
	req := &telexecv1.StreamOutputRequest{CommandId: w.id, Follow: wait > 0, StdoutOffset: r.stdout.next, StderrOffset: r.stderr.next}
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
			r.listen(silence)
		}
		if w.report != nil {
			w.report.tellLine(ctx, r.recent, r.command.GetProgress())
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
	nowStdout, nowStderr int64     // sizes when the watch began: up to there it reads what is old
	heard                time.Time // when the command last printed something, or could not be heard
	reports              bool      // somebody follows
	recent               string    // the last line that is not blank
}

// listen keeps the timer for silence: it runs once the command can be heard and all
// that is old has been read, and begins anew with whatever is printed.
func (r *reader) listen(silence *time.Timer) {
	if !audible(r.command) || r.stdout.next < r.nowStdout || r.stderr.next < r.nowStderr {
		silence.Stop()
		return
	}
	silence.Reset(max(r.until.silence-time.Since(r.heard), 0))
}

func newReader(w *watch, cmd *telexecv1.Command) *reader {
	r := &reader{until: w.until, command: cmd, heard: time.Now(), reports: w.report != nil, nowStdout: cmd.GetStdoutBytes(), nowStderr: cmd.GetStderrBytes()}
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
		for _, l := range []*lines{&r.stdout, &r.stderr} { // the whole of the last lines
			p := l.open(maxLine)
			p.open = !ended(event.GetEnded())
			if m := r.match(p, l.stream); m != nil {
				return outcome{whyPattern, m}, true
			}
		}
		if !ended(event.GetEnded()) {
			return outcome{why: whyTime}, true
		}
		return outcome{why: whyEnded}, true
	case event.GetCommand() != nil:
		r.command = event.GetCommand()
		if !audible(r.command) {
			r.heard = time.Now()
		}
	}
	return outcome{}, false
}

func (r *reader) seeChunk(ctx context.Context, c *telexecv1.OutputChunk) (outcome, bool) {
	l, since, old := r.of(c.GetStream()), r.sinceStdout, r.nowStdout
	if c.GetStream() == telexecv1.Stream_STREAM_STDERR {
		since, old = r.sinceStderr, r.nowStderr
	}
	end := c.GetOffset() + int64(len(c.GetData()))
	if end > since {
		r.fresh += end - max(since, c.GetOffset())
	}
	if end > old {
		r.heard = time.Now()
	}
	for p := range l.add(c.GetOffset(), c.GetData()) {
		if ctx.Err() != nil {
			return outcome{}, false // the stream tells why
		}
		if m := r.match(p, l.stream); m != nil {
			return outcome{whyPattern, m}, true
		}
		r.remember(p)
	}
	// A prompt has no end of line. What of it is new is looked at, with what it may
	// have begun in.
	p := l.open(len(c.GetData()) + overlap)
	if m := r.match(p, l.stream); m != nil {
		return outcome{whyPattern, m}, true
	}
	r.remember(p)
	if r.until.newBytes > 0 && r.fresh >= r.until.newBytes {
		return outcome{why: whyBytes}, true
	}
	return outcome{}, false
}

// match gives the first line of a piece that is what was waited for, or nil.
func (r *reader) match(p piece, stream streamName) *matchFacts {
	if r.until.pattern == nil {
		return nil
	}
	for m := range p.matching(r.until.pattern, stream) {
		return &m
	}
	return nil
}

// remember keeps the last line with something in it, for those who follow.
func (r *reader) remember(p piece) {
	if !r.reports {
		return
	}
	if line := lastOf(lineText(p.raw)); line != "" {
		r.recent = line
	}
}
