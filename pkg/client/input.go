package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// firstLook and lastLook are the delays between looks at a command that has not
// started yet.
const (
	firstLook = 20 * time.Millisecond
	lastLook  = time.Second
)

// inputSize is how many bytes of input go into one call at most: what the service
// takes, and inputLeast where connections break under more. readSize is how many of
// them are read at once.
const (
	inputSize  = 1 << 20
	inputLeast = 64 << 10
	readSize   = 128 << 10
)

// CopyInput sends r to the standard input of a command until r ends, then closes
// that input. It must be the only writer to it: where an answer was lost it asks
// how many bytes the command's input has taken and goes on behind them, so that
// the command reads every byte once. While the command does not read, or the
// service has lost the host on which it goes on, it waits as at a pipe. It gives
// how many bytes were taken.
//
// A call costs the host a shell, so that r is read on while one is under way: the
// next takes all that is there by then, up to 1 MiB. What is read while none is
// under way goes at once.
//
// An error of r is given as it is, behind what was read before it, and leaves the
// input open. All others are *Error: FAILED_PRECONDITION (STDIN_CLOSED,
// NOT_RUNNING) where the command wants no more, which for a copy is often as good
// as an end. The context ends everything but a Read of r that blocks: after an
// error one may be under way, which is the last, and what it reads is lost.
func (c *Client) CopyInput(ctx context.Context, commandID string, r io.Reader) (int64, error) {
	w := inputWriter{c: c, id: commandID, most: inputSize}
	if err := w.ask(ctx); err != nil {
		return 0, err
	}
	start := w.taken
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a := readAhead{came: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	go a.read(ctx, r)
	var data []byte
	for {
		select {
		case <-a.came:
		case <-ctx.Done():
			return w.taken - start, c.decode(ctx, ctx.Err())
		}
		var readErr error
		data, readErr = a.take(data)
		if len(data) > 0 {
			if err := w.write(ctx, data, false); err != nil {
				return w.taken - start, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			err := w.write(ctx, nil, true)
			return w.taken - start, err
		}
		if readErr != nil {
			return w.taken - start, readErr
		}
	}
}

// readAhead holds what was read and is not under way yet.
type readAhead struct {
	came chan struct{} // capacity 1: read sends when there is more, or the end
	room chan struct{} // capacity 1: take sends when there is room

	mu   sync.Mutex // guards what follows
	data []byte     // at most inputSize
	err  error      // how r ended
}

// read reads r to its end, or for as long as ctx lasts.
func (a *readAhead) read(ctx context.Context, r io.Reader) {
	buf := make([]byte, readSize)
	for ctx.Err() == nil {
		n, err := r.Read(buf)
		a.mu.Lock()
		a.data, a.err = append(a.data, buf[:n]...), err
		full := len(a.data) > inputSize-readSize
		a.mu.Unlock()
		if n > 0 || err != nil {
			ring(a.came)
		}
		if err != nil {
			return
		}
		for full {
			select {
			case <-a.room:
			case <-ctx.Done():
				return
			}
			a.mu.Lock()
			full = len(a.data) > inputSize-readSize
			a.mu.Unlock()
		}
	}
}

// take gives what there is and, behind it, how r ended; what comes next is kept
// in used, which the caller gives up.
func (a *readAhead) take(used []byte) ([]byte, error) {
	a.mu.Lock()
	data, err := a.data, a.err
	a.data = used[:0]
	a.mu.Unlock()
	ring(a.room)
	return data, err
}

// ring tells who waits at c, now or later, that there is something to look at.
func ring(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// inputWriter writes to the input of one command and knows how far it is.
type inputWriter struct {
	c     *Client
	id    string
	taken int64 // bytes the input had taken when last heard
	most  int   // bytes that go into a call: fewer where connections break under more
}

// send is SendInput, and waits for a command that has not started yet. What is
// repeatable waits for a host that is away, too.
func (w *inputWriter) send(ctx context.Context, repeatable bool, data []byte, eof bool) error {
	req := &telexecv1.SendInputRequest{CommandId: w.id, Data: data, Eof: eof}
	for delay := firstLook; ; delay = min(2*delay, lastLook) {
		resp, err := call(ctx, w.c, repeatable, w.c.commands.SendInput, req)
		if err == nil {
			w.taken = resp.GetStdinBytes()
			return nil
		}
		e, _ := asError(err)
		starts := e.Reason == reasonNotRunning && e.RetryAfter > 0
		if !starts && !(repeatable && e.hostMayHaveActed()) {
			return err
		}
		if sleepErr := sleep(ctx, delay); sleepErr != nil {
			return w.c.decode(ctx, sleepErr)
		}
	}
}

// ask learns how many bytes were taken: input without bytes changes nothing.
func (w *inputWriter) ask(ctx context.Context) error { return w.send(ctx, true, nil, false) }

// write sends data, all of it, and eof behind it.
func (w *inputWriter) write(ctx context.Context, data []byte, eof bool) error {
	p := pause{limit: w.c.resumeFor}
	for {
		part := data[:min(len(data), w.most)]
		last := eof && len(part) == len(data)
		before := w.taken
		err := w.send(ctx, false, part, last)
		if err == nil {
			w.most = min(2*w.most, inputSize)
			if data = data[len(part):]; len(data) == 0 && last == eof {
				return nil
			}
			p.progress()
			continue
		}
		e, _ := asError(err)
		broken := e.Reason == ReasonUnreachable
		for err != nil {
			if err = w.bear(ctx, &p, err); err != nil {
				return err
			}
			err = w.ask(ctx)
			if e, _ := asError(err); last && e != nil && e.Reason == reasonStdinClosed {
				return nil // it was the call before that closed it
			}
		}
		arrived := w.taken - before
		if arrived < 0 || arrived > int64(len(part)) {
			return newError(codes.DataLoss, ReasonInputLost,
				"the command's input stands at byte %d where %d to %d were possible", w.taken, before, before+int64(len(part))).
				withHint("Somebody else writes to it too, or the service has lost input; cancel the command and start again")
		}
		if arrived > 0 {
			p.progress()
		} else if broken {
			w.most = max(w.most/4, inputLeast)
		}
		if data = data[arrived:]; len(data) == 0 && !eof {
			return nil
		}
	}
}

// bear waits for as long as err calls for before the service is asked how far the
// input is. It gives the error to end with where there is nothing to wait for.
func (w *inputWriter) bear(ctx context.Context, p *pause, err error) error {
	e, _ := asError(err)
	switch {
	case e.hostMayHaveActed():
		// The command is slow, which is its right, or its host is away, which the
		// service gives up when it is time: no limit, but the caller's.
		if sleepErr := sleep(ctx, max(e.RetryAfter, minDelay)); sleepErr != nil {
			return w.c.decode(ctx, sleepErr)
		}
		return nil
	case e.Reason == ReasonUnreachable, e.Reason == reasonDraining:
		if e = w.c.retry(ctx, p, e); e == nil {
			return nil
		}
	}
	return e
}

// Reasons of the service that CopyInput acts on.
const (
	reasonInputBusy   = "INPUT_BUSY"
	reasonStdinClosed = "STDIN_CLOSED"
	reasonNotRunning  = "NOT_RUNNING" // with a time to come back: not yet

	reasonConnectionLost = "CONNECTION_LOST" // of the service with the host
	reasonDraining       = "DRAINING"        // the service starts or stops
)

// hostMayHaveActed reports whether the service has lost the host, or had no time
// left, before it knew what became of a call there: what was asked may have been
// done, also in part. The command goes on, or has ended by the next call.
func (e *Error) hostMayHaveActed() bool {
	return e.Reason == reasonInputBusy || e.Code == codes.Unavailable && e.Reason == reasonConnectionLost
}
