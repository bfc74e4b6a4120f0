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
		return w.read(ctx, cmd)
	}
	before := lifeOf(cmd)
	for {
		left := w.wait - time.Since(began)
		idle := idleFor(cmd)
		switch {
		case ended(cmd):
			return outcome{why: whyEnded}, nil
		case w.until.state && lifeOf(cmd) != before:
			return outcome{why: whyState}, nil
		case w.until.silence > 0 && started(cmd) && idle >= w.until.silence:
			return outcome{why: whySilence}, nil
		case left <= 0:
			return outcome{why: whyTime}, nil
		}
		if w.until.silence > 0 && started(cmd) {
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

// started reports whether silence means anything yet.
func started(c *telexecv1.Command) bool { return c.GetStartTime() != nil }

// Why reading has ended; causes of a context.
var (
	errTime   = errors.New("the time to wait is over")
	errSilent = errors.New("the output is silent")
)

// read follows the output from where it counts until it does what was waited for.
func (w *watch) read(ctx context.Context, cmd *telexecv1.Command) (outcome, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	time.AfterFunc(w.wait, func() { stop(errTime) }) // harmless once ctx has ended
	r := newReader(w, cmd)
	var silence *time.Timer
	if w.until.silence > 0 {
		silence = time.AfterFunc(max(w.until.silence-idleFor(cmd), 0), func() { stop(errSilent) })
		defer silence.Stop()
	}
	for event, err := range w.adapter.client.StreamOutput(ctx, &telexecv1.StreamOutputRequest{
		CommandId: w.id, Follow: true, StdoutOffset: r.stdout.next, StderrOffset: r.stderr.next,
	}) {
		if err != nil {
			switch context.Cause(ctx) {
			case errTime:
				return outcome{why: whyTime}, nil
			case errSilent:
				return outcome{why: whySilence}, nil
			}
			return outcome{}, err
		}
		if seen, ok := r.see(event); ok {
			return seen, nil
		}
		if c := event.GetChunk(); c != nil {
			if silence != nil && r.isNew(c) {
				silence.Reset(w.until.silence)
			}
			if w.report != nil {
				w.report.tellLine(ctx, r.recent)
			}
		}
	}
	return outcome{why: whyEnded}, nil
}

// reader is what a watch has read so far.
type reader struct {
	until          conditions
	stdout, stderr lines
	sinceStdout    int64 // from here on bytes are new
	sinceStderr    int64
	fresh          int64 // new bytes so far
	before         life
	nowStdout      int64 // sizes when the watch began
	nowStderr      int64
	recent         string // the last line that is not blank
}

func newReader(w *watch, cmd *telexecv1.Command) *reader {
	r := &reader{until: w.until, before: lifeOf(cmd), nowStdout: cmd.GetStdoutBytes(), nowStderr: cmd.GetStderrBytes()}
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

// isNew reports whether a chunk was printed since the watch began.
func (r *reader) isNew(c *telexecv1.OutputChunk) bool {
	now := r.nowStdout
	if c.GetStream() == telexecv1.Stream_STREAM_STDERR {
		now = r.nowStderr
	}
	return c.GetOffset()+int64(len(c.GetData())) > now
}

// see looks at an event and reports whether it ends the watch.
func (r *reader) see(event *telexecv1.StreamOutputResponse) (outcome, bool) {
	switch {
	case event.GetChunk() != nil:
		return r.seeChunk(event.GetChunk())
	case event.GetGap() != nil:
		l := r.of(event.GetGap().GetStream())
		*l = lines{stream: l.stream, next: event.GetGap().GetTo()}
	case event.GetEnded() != nil:
		return outcome{why: whyEnded}, true
	case event.GetCommand() != nil:
		cmd := event.GetCommand()
		if r.until.state && !ended(cmd) && lifeOf(cmd) != r.before {
			return outcome{why: whyState}, true
		}
	}
	return outcome{}, false
}

func (r *reader) seeChunk(c *telexecv1.OutputChunk) (outcome, bool) {
	l, since := r.of(c.GetStream()), r.sinceStdout
	if c.GetStream() == telexecv1.Stream_STREAM_STDERR {
		since = r.sinceStderr
	}
	if end := c.GetOffset() + int64(len(c.GetData())); end > since {
		r.fresh += end - max(since, c.GetOffset())
	}
	for m := range l.add(c.GetOffset(), c.GetData()) {
		if r.matches(m) {
			return outcome{whyPattern, &m}, true
		}
		if strings.TrimSpace(m.Line) != "" {
			r.recent = m.Line
		}
	}
	if m := l.unfinished(); r.matches(m) { // a prompt has no end of line
		return outcome{whyPattern, &m}, true
	}
	if r.until.newBytes > 0 && r.fresh >= r.until.newBytes {
		return outcome{why: whyBytes}, true
	}
	return outcome{}, false
}

// matches reports whether a line is what was waited for.
func (r *reader) matches(m matchFacts) bool {
	return r.until.pattern != nil && r.until.pattern.MatchString(m.Line)
}
