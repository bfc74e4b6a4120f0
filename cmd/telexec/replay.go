package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/asciicast"
	"github.com/telexec/telexec/pkg/client"
)

type sessionReplayCmd struct {
	Speed     float64       `default:"1" placeholder:"N" help:"So many times as fast, 0.1 to 100."`
	IdleLimit time.Duration `default:"2s" placeholder:"TIME" help:"No pause is longer (default ${default}; 0: as it was)."`
	At        time.Duration `xor:"from" placeholder:"TIME" help:"Begin so long after its beginning; what is before is shown at once."`
	ToCommand string        `xor:"from" placeholder:"ID" help:"Begin where this command was begun."`
	Output    string        `short:"o" placeholder:"FILE" type:"path" help:"Save the recording instead: asciicast v2, for any player; - for standard output."`

	Session string `arg:"" help:"Name or id of the session; it may have ended."`
}

// Help is shown by session replay --help.
func (sessionReplayCmd) Help() string {
	return `On a terminal: space pauses, + and - make it faster and slower, q or Ctrl-C ends it. Elsewhere all that was shown is
printed at once. With --json it is the recording itself, a line for each event. Of a session that goes on it is what has
happened so far.

Examples:

    telexec session replay deploy --speed 4
    telexec session replay deploy --at 10m
    telexec session replay deploy --to-command V2W3
    telexec session replay deploy -o deploy.cast
    telexec session replay deploy | less -R`
}

// Run plays a recording, or saves it.
func (c *sessionReplayCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.Speed < slowest || c.Speed > fastest:
		return failure("--speed is from %v to %v", slowest, fastest)
	case c.IdleLimit < 0 || c.At < 0:
		return failure("--idle-limit and --at cannot be below 0")
	case c.Session == "":
		return named(c.Session)
	case c.Output != "" && c.Output != "-" && a.opts.JSON:
		return failure("--output saves the recording, --json prints it: it is one or the other")
	case c.Output != "" && c.Output != "-":
		return c.save(ctx, a)
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		from := c.At
		if c.ToCommand != "" {
			var err error
			if from, err = c.begunAt(ctx, a, cl); err != nil {
				return err
			}
		}
		recording, stop := recordingOf(ctx, cl, c.Session)
		defer stop()
		if a.opts.JSON || c.Output == "-" {
			_, err := io.Copy(a.out.stdout, recording)
			return err
		}
		buffered := bufio.NewReader(recording)
		if _, err := buffered.Peek(1); errors.Is(err, io.EOF) {
			return failure("nothing of %s is recorded yet", c.Session).withHint("Try again in a moment")
		}
		r, err := asciicast.NewReader(buffered)
		if err != nil {
			return readFailure(err)
		}
		if _, shows := terminal(a.env.Stdout); !shows {
			return readFailure(printRecording(a.env.Stdout, r))
		}
		p := &player{app: a, speed: c.Speed, limit: c.IdleLimit, from: from, width: r.Header.Width, height: r.Header.Height}
		if err := p.show(ctx, r); err != nil {
			return readFailure(err)
		}
		if columns, rows, err := terminalSize(a.env, ""); err == nil && columns > 0 && (columns < p.width || rows < p.height) {
			a.out.note("the recording has %dx%d characters, and the terminal here %dx%d", p.width, p.height, columns, rows)
		}
		return nil
	})
}

// begunAt gives how far into the session a command was begun.
func (c *sessionReplayCmd) begunAt(ctx context.Context, a *app, cl *client.Client) (time.Duration, error) {
	s, err := cl.GetSession(ctx, c.Session)
	if err != nil {
		return 0, err
	}
	id, err := a.idArg(ctx, cl, c.ToCommand)
	if err != nil {
		return 0, err
	}
	resp, err := cl.GetStatus(ctx, &telexecv1.GetStatusRequest{CommandId: id, Output: &telexecv1.OutputOptions{Omit: true}})
	if err != nil {
		return 0, err
	}
	cmd := resp.GetCommand()
	switch {
	case cmd.GetSessionId() != s.GetId():
		return 0, failure("command %s was not in the session %s", id, s.GetName()).
			withHint("telexec history --session %s lists those that were; telexec status %s tells where this one ran", s.GetName(), id)
	case cmd.GetStartTime() == nil:
		return 0, failure("command %s has never begun", id)
	}
	return cmd.GetStartTime().AsTime().Sub(s.GetCreateTime().AsTime()), nil
}

// readFailure is err for people; nil where reading has come to the end.
func readFailure(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	if _, ours := errors.AsType[*client.Error](err); ours || errors.Is(err, context.Canceled) {
		return err
	}
	return failure("the recording cannot be read: %v", err)
}

// recordingOf reads a recording as it comes.
func recordingOf(ctx context.Context, cl *client.Client, session string) (r io.Reader, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	pipe, w := io.Pipe()
	go func() {
		for piece, err := range cl.ReadRecording(ctx, &telexecv1.ReadRecordingRequest{Session: session}) {
			if err == nil {
				_, err = w.Write(piece.GetData())
			}
			if err != nil {
				w.CloseWithError(err)
				return
			}
		}
		w.Close()
	}()
	return pipe, func() { cancel(); pipe.Close() }
}

// save writes the file. None that is there is written over.
func (c *sessionReplayCmd) save(ctx context.Context, a *app) error {
	f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // what it shows is not for everybody
	if errors.Is(err, fs.ErrExist) {
		return failure("cannot write the recording: %s exists already", c.Output).withHint("Take another name, or remove it first; - is standard output")
	}
	if err != nil {
		return failure("cannot write the recording: %v", err)
	}
	var n int64
	err = a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		recording, stop := recordingOf(ctx, cl, c.Session)
		defer stop()
		var err error
		n, err = io.Copy(f, recording)
		return err
	})
	if err = errors.Join(err, f.Close()); err != nil {
		if n == 0 {
			_ = os.Remove(c.Output) // ours, and in the way of the next attempt
		}
		return err
	}
	a.out.note("%s, %s", c.Output, size(n))
	return nil
}

// printRecording prints what was shown.
func printRecording(w io.Writer, r *asciicast.Reader) error {
	for {
		e, err := r.Next()
		if err != nil {
			return err
		}
		if e.Kind == asciicast.Output {
			if _, err := w.Write(e.Data); err != nil {
				return err
			}
		}
	}
}

// readKeys gives what is typed.
func readKeys(ctx context.Context, from io.Reader, keys chan<- byte) {
	p := make([]byte, 64)
	for {
		n, err := from.Read(p)
		for _, c := range p[:n] {
			select {
			case keys <- c:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// How fast a recording is played, as a multiple of what it was.
const (
	slowest = 0.1
	fastest = 100.0
)

// player plays a recording on the terminal here.
type player struct {
	*app
	speed         float64
	limit         time.Duration
	from          time.Duration
	width, height int         // the most that the recording had so far
	keys          <-chan byte // nil: there are none
	paused        bool
	screen        screenFilter
}

// show plays it, and leaves the terminal as it was.
func (p *player) show(ctx context.Context, r *asciicast.Reader) error {
	if in, ok := terminal(p.env.Stdin); ok {
		before, err := term.MakeRaw(in)
		if err != nil {
			return failure("cannot use the terminal: %v", err)
		}
		screen, _ := p.env.Stderr.(*lockedWriter)
		screen.setRaw(p.out.remarks)
		keys := make(chan byte) // from the terminal, until it or ctx ends
		ctx, stop := context.WithCancel(ctx)
		go readKeys(ctx, p.env.Stdin, keys)
		p.keys = keys
		defer func() {
			stop()
			_ = term.Restore(in, before) // a terminal that is gone needs none
			screen.setRaw(false)
		}()
	}
	p.retrying = func(*client.Error, time.Duration) {} // it goes on by itself, and a remark would be in the picture
	_, rows, _ := terminalSize(p.env, "")              // 0 where it cannot tell
	defer func() { _, _ = io.WriteString(p.env.Stdout, restored) }()
	if _, err := io.WriteString(p.env.Stdout, begun+strings.Repeat("\n", rows)+cleared); err != nil {
		return err
	}
	if err := p.play(ctx, r); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// play shows the events in their time. Its error is io.EOF at the end; nil: it was
// ended by a key.
func (p *player) play(ctx context.Context, r *asciicast.Reader) error {
	last := p.from
	for {
		e, err := r.Next()
		if err != nil {
			return err
		}
		if e.At > last {
			if on, err := p.wait(ctx, e.At-last); !on || err != nil {
				return err
			}
			last = e.At
		}
		switch e.Kind {
		case asciicast.Output:
			if _, err := p.env.Stdout.Write(p.screen.write(e.Data)); err != nil {
				return err
			}
		case asciicast.Resize:
			p.width, p.height = max(p.width, e.Width), max(p.height, e.Height)
		}
	}
}

// wait lets time pass. on is false when a key ends it.
func (p *player) wait(ctx context.Context, d time.Duration) (on bool, err error) {
	if p.limit > 0 {
		d = min(d, p.limit)
	}
	for left := d; ; {
		began := time.Now()
		var over <-chan time.Time
		if !p.paused {
			over = time.After(time.Duration(float64(left) / p.speed))
		}
		select {
		case <-over:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		case key := <-p.keys:
			if !p.paused {
				left -= time.Duration(float64(time.Since(began)) * p.speed)
			}
			switch key {
			case 'q', 3, 4:
				return false, nil
			case ' ':
				p.paused = !p.paused
			case '+':
				p.speed = min(p.speed*2, fastest)
			case '-':
				p.speed = max(p.speed/2, slowest)
			}
		}
	}
}
