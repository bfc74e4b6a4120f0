package sshexec

import (
	"bytes"
	"context"
	"strconv"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// stdin is the way of input to a process: Input cuts it into pieces and hands
// them to feed, which writes one at a time. Like a pipe it takes a little more
// than was read; unlike one it says exactly how much.
type stdin struct {
	first []byte       // given with the spec
	open  bool         // more may come
	pty   *command.Pty // nil: none
	dir   string       // the spec's, for messages

	turn   chan struct{} // capacity 1: held by the Input that is under way
	pieces chan []byte   // Input sends, feed receives; closed by Input at EOF
	fed    chan struct{} // closed by feed when it writes no more
	total  atomic.Int64  // bytes taken from Input
	closed bool          // by EOF; guarded by turn
	last   byte          // the last byte typed on a terminal; guarded by turn
}

// inputPiece is the most that can be taken and not yet be with the host.
const inputPiece = 32 << 10

func newStdin(spec *command.Spec) stdin {
	return stdin{
		first: spec.Stdin, open: spec.StdinOpen || spec.Pty != nil, pty: spec.Pty, dir: spec.WorkingDirectory,
		turn: make(chan struct{}, 1), pieces: make(chan []byte), fed: make(chan struct{}), last: '\n',
	}
}

// feed asks the host to run exec and then writes standard input: what belongs to
// the start, what the spec has, what Input gives, and EOF.
func (p *attached) feed(exec, prefix string) {
	defer close(p.stdin.fed)
	ch, in := p.ses.Channel, &p.stdin
	if in.pty != nil {
		// Without waiting for the answer: the script looks whether it has one.
		ch.SendRequest("pty-req", false, ptyRequest(in.pty))
	}
	ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{exec}))
	if err != nil {
		return // the channel has ended, which attend sees
	}
	if !ok {
		p.decide(greeting{}, fault.New(fault.FailedPrecondition, fault.ReasonExecRefused,
			"%s refuses to run commands", p.host.Name))
		ch.Close()
		return
	}
	if p.bare {
		p.decide(greeting{identity: identity{boot: "-", start: "-"}}, nil)
	}
	if in.pty != nil {
		<-p.decided // a terminal would echo what is typed before
	}
	for _, b := range [][]byte{[]byte(prefix), in.first} {
		if _, err := ch.Write(b); err != nil {
			return
		}
	}
	if in.open {
		if !p.feedPieces() {
			return
		}
	}
	ch.CloseWrite()
}

// feedPieces is false when the channel takes no more.
func (p *attached) feedPieces() bool {
	for {
		select {
		case piece, more := <-p.stdin.pieces:
			if !more {
				return true
			}
			if _, err := p.ses.Channel.Write(piece); err != nil {
				return false
			}
		case <-p.done:
			return false
		}
	}
}

// Input writes data to the command's standard input and, with eof, closes it
// behind data; on a terminal, which has no such end, Ctrl-D is typed instead. It
// gives how many bytes were taken from all calls: they are with the host or, up
// to 32 KiB, on the way to it. Calls take turns.
//
// When ctx ends while the command does not read, the error is INPUT_BUSY and
// total says what was taken up to then; the rest was not. STDIN_CLOSED: input was
// not asked for, or has ended. NOT_RUNNING: the command has ended.
func (p *attached) Input(ctx context.Context, data []byte, eof bool) (total int64, err error) {
	in := &p.stdin
	if !in.open {
		return 0, stdinClosed("standard input was not kept open").WithHint("Run the command with stdin_open")
	}
	select {
	case in.turn <- struct{}{}:
		defer func() { <-in.turn }()
	case <-p.done:
		return in.total.Load(), p.notRunning()
	case <-ctx.Done():
		return in.total.Load(), inputBusy(ctx, in.total.Load())
	}
	if in.closed {
		return in.total.Load(), stdinClosed("standard input has been closed")
	}
	if len(data) > 0 {
		// What is taken may be written after this call: keep our own copy.
		data = bytes.Clone(data)
	}
	for len(data) > 0 {
		n := min(len(data), inputPiece)
		if err := p.hand(ctx, data[:n]); err != nil {
			return in.total.Load(), err
		}
		in.total.Add(int64(n))
		in.last = data[n-1]
		data = data[n:]
	}
	switch {
	case !eof:
	case in.pty != nil:
		// Ctrl-D hands over the line so far, and is the end only behind an empty one.
		end := []byte{4}
		if in.last != '\n' && in.last != '\r' {
			end = []byte{4, 4}
		}
		if err := p.hand(ctx, end); err != nil {
			return in.total.Load(), err
		}
		in.last = '\n'
	default:
		in.closed = true
		close(in.pieces)
	}
	return in.total.Load(), nil
}

// hand gives a piece to feed.
func (p *attached) hand(ctx context.Context, piece []byte) error {
	select {
	case p.stdin.pieces <- piece:
		return nil
	case <-p.done:
		return p.notRunning()
	case <-p.stdin.fed:
		if closed(p.done) {
			return p.notRunning()
		}
		return stdinClosed("the host takes no more input")
	case <-ctx.Done():
		return inputBusy(ctx, p.stdin.total.Load())
	}
}

func stdinClosed(message string) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonStdinClosed, "%s", message).WithOp("sshexec.input")
}

func inputBusy(ctx context.Context, total int64) *fault.Error {
	return fault.Wrap(context.Cause(ctx), fault.Unavailable, fault.ReasonInputBusy,
		"the command does not read its standard input").
		WithHint("Send the rest, from the byte behind stdin_bytes, when it reads again").
		With("stdin_bytes", strconv.FormatInt(total, 10)).WithOp("sshexec.input")
}

func (p *attached) notRunning() *fault.Error { return notRunning(p.host) }

func notRunning(host inventory.Host) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonNotRunning, "the command has ended on %s", host.Name)
}

// ptyRequest is the payload of pty-req (RFC 4254, 6.2). Modes that are not named
// are left as the host has them.
func ptyRequest(pty *command.Pty) []byte {
	m := struct {
		Term              string
		Columns, Rows     uint32
		WidthPx, HeightPx uint32
		Modes             string
	}{Term: pty.Term, Columns: pty.Columns, Rows: pty.Rows}
	if m.Term == "" {
		m.Term = "xterm-256color"
	}
	if m.Columns == 0 {
		m.Columns = 80
	}
	if m.Rows == 0 {
		m.Rows = 24
	}
	// RFC 4254, 8: input and output speed 38400 baud, then the end of the list.
	m.Modes = string([]byte{128, 0, 0, 0x96, 0, 129, 0, 0, 0x96, 0, 0})
	return ssh.Marshal(m)
}
