package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type inputCmd struct {
	ID        string  `arg:"" name:"id" help:"Id of the command, or enough of its end."`
	Data      *string `arg:"" optional:"" help:"What to write, as one line; - for standard input as it is."`
	NoNewline bool    `short:"n" help:"Write DATA without a new line behind it."`
	EOF       bool    `name:"eof" help:"Close the command's input behind it; on a terminal, type Ctrl-D."`
}

// Help is shown by input --help.
func (inputCmd) Help() string {
	return `The command must have its input open: it was started with telexec run -d -i, with --tty, or with stdin_open in the API.

Examples:

    telexec run -d -i web1 'while read x; do echo "got $x"; done'
    telexec input V2W3 yes
    telexec input V2W3 --eof
    telexec input V2W3 - --eof < data.bin`
}

// inputPiece is how many bytes of standard input go into one call.
const inputPiece = 256 << 10

// Run writes input.
func (c *inputCmd) Run(ctx context.Context, a *app) error {
	if c.Data == nil && !c.EOF {
		return failure("there is nothing to write").withHint("Give DATA, - for standard input, or --eof")
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		id, err := a.idArg(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		var resp *telexecv1.SendInputResponse
		send := func(data []byte, eof bool) error {
			return onceStarted(ctx, cl, id, func() (err error) {
				resp, err = cl.SendInput(ctx, &telexecv1.SendInputRequest{CommandId: id, Data: data, Eof: eof})
				return err
			})
		}
		switch {
		case c.Data == nil:
			err = send(nil, true)
		case *c.Data != "-":
			line := []byte(*c.Data)
			if !c.NoNewline {
				line = append(line, '\n')
			}
			err = send(line, c.EOF)
		default:
			err = a.sendAll(ctx, c.EOF, send)
		}
		if err != nil {
			return err
		}
		if a.opts.JSON {
			return a.out.document(resp)
		}
		return nil
	})
}

// startWait is how long one look at a command that starts may wait for news.
const startWait = 30 * time.Second

// onceStarted makes a call that needs a running command. One that is just being
// started is waited for, so that what follows telexec run --detach in a script
// does not depend on how fast the host is. A queued one is not: that may take
// hours, and the error says so.
func onceStarted(ctx context.Context, cl *client.Client, id string, call func() error) error {
	for {
		err := call()
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.Reason != "NOT_RUNNING" || e.RetryAfter == 0 {
			return err
		}
		look := &telexecv1.GetStatusRequest{CommandId: id, Output: &telexecv1.OutputOptions{Omit: true}}
		resp, lookErr := cl.GetStatus(ctx, look)
		if lookErr != nil {
			return lookErr
		}
		switch resp.GetCommand().GetState() {
		case telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL, telexecv1.CommandState_COMMAND_STATE_QUEUED:
			return err
		case telexecv1.CommandState_COMMAND_STATE_STARTING:
			look.Wait, look.IfVersionGreaterThan = durationpb.New(startWait), &resp.GetCommand().Version
			if _, lookErr = cl.GetStatus(ctx, look); lookErr != nil {
				return lookErr
			}
		}
	}
}

// sendAll sends standard input as it comes, and with eof closes behind it. Others
// may write to the same command, so that a lost answer cannot be made good: it is
// an error.
func (a *app) sendAll(ctx context.Context, eof bool, send func([]byte, bool) error) error {
	buf := make([]byte, inputPiece)
	for {
		n, err := a.env.Stdin.Read(buf)
		if n > 0 {
			if err := send(buf[:n], false); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return send(nil, eof)
		}
		if err != nil {
			return failure("cannot read standard input: %v", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
