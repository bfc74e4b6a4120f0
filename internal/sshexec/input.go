package sshexec

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
)

// pieceMost is how much of an input is sent at once.
const pieceMost = 1 << 20

// Input gives the host more standard input for the command and, with eof, its
// end. total is how much the host has from all calls, also those of owners
// before: it keeps it until the command reads it, at most some 16 MiB. Calls take
// turns.
//
// A piece is taken once, also where the answer was lost and it was sent again.
// INPUT_BUSY: the command has not read what is there, or the host could not be
// reached, until ctx ended; total says what was taken. STDIN_CLOSED, NOT_RUNNING;
// CONNECTION_LOST where the service lets go of the command, which goes on.
func (d *durable) Input(ctx context.Context, data []byte, eof bool) (total int64, err error) {
	if !d.run.Spec.StdinOpen {
		return 0, stdinClosed("standard input was not kept open").WithHint("Run the command with stdin_open")
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-d.ended:
		return d.taken(), d.over()
	case <-ctx.Done():
		return d.taken(), inputBusy(ctx, d.taken())
	}
	if closed(d.ended) {
		return d.taken(), d.over()
	}
	if !d.inputs {
		return d.taken(), stdinClosed("standard input has been closed")
	}
	for {
		piece := data[:min(len(data), pieceMost)]
		last := len(piece) == len(data)
		if err := d.give(ctx, piece, eof && last); err != nil {
			return d.taken(), err
		}
		data = data[len(piece):]
		if last {
			d.inputs = !eof
			return d.taken(), nil
		}
	}
}

func (d *durable) taken() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(0, d.came)
}

// give sends one piece until the host has it.
func (d *durable) give(ctx context.Context, piece []byte, eof bool) error {
	from := d.taken()
	for wait := firstPause; ; wait = min(2*wait, time.Second) {
		word, came, err := d.sendPiece(ctx, from, piece, eof)
		d.mu.Lock()
		d.came = max(d.came, came)
		d.mu.Unlock()
		switch {
		case err == nil && word == "took" && came >= from+int64(len(piece)):
			return nil
		case err == nil && word == "closed":
			return stdinClosed("standard input has been closed")
		case err == nil && word == "superseded":
			return superseded(d.run.Host).WithOp("sshexec.input")
		case err == nil && word == "took":
			return fault.New(fault.Aborted, fault.ReasonInputBusy, "somebody else has written to the command's standard input").
				WithHint("Ask how much it has, and send what follows")
		case err == nil && (word == "gone" || word == "ended"):
			return notRunning(d.run.Host)
		}
		// busy, nospace, short, away, or the host cannot be reached just now
		select {
		case <-d.ended:
			why := d.over()
			why.RetryAfter = 0 // it may have been taken: to be asked first
			return why
		default:
		}
		if !pause(ctx, wait) {
			busy := inputBusy(ctx, d.taken())
			if word == "nospace" {
				busy.Message = "there is no space on " + d.run.Host.Name + " for more of the command's standard input"
				busy.Hint = "Make room there, and send the rest, from the byte behind stdin_bytes"
			}
			return busy
		}
	}
}

// sendPiece gives the host's word about a piece, and how much it has now.
func (d *durable) sendPiece(ctx context.Context, from int64, piece []byte, eof bool) (word string, came int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.runner.opts.ControlTimeout)
	defer cancel()
	d.mu.Lock()
	dir := d.dir
	d.mu.Unlock()
	nonce, end := rand.Text(), "no"
	if eof {
		end = "yes"
	}
	program := newline + inputHead + fmt.Sprintf("nonce=%s dir=%s id=%s fence=%d from=%d size=%d eof=%s; ",
		nonce, expression(dir), d.run.ID, d.run.Fence, from, len(piece), end) + inputTail
	lines, err := hostshell.Ask(ctx, d.runner.dialer.OpenFirst, d.run.Host, nonce, shellExec(program), piece)
	if err != nil || len(lines) != 1 {
		return "", 0, err
	}
	word, rest, _ := strings.Cut(lines[0], " ")
	came, _ = hostshell.Number(rest)
	return word, came, nil
}
