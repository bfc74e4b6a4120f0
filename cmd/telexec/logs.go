package main

import (
	"context"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type logsCmd struct {
	ID           string `arg:"" name:"id" help:"Id of the command, or enough of its end."`
	Follow       bool   `short:"f" help:"Go on until the command has ended."`
	StdoutOffset int64  `placeholder:"BYTE" help:"First byte of standard output to show."`
	StderrOffset int64  `placeholder:"BYTE" help:"First byte of standard error to show."`
	Only         string `enum:"stdout,stderr,both" default:"both" placeholder:"STREAM" help:"Only this stream: stdout or stderr (default ${default})."`
}

// Help is shown by logs --help.
func (logsCmd) Help() string {
	return `Standard output and standard error of the command come on those of telexec, byte for byte. A service that goes
away meanwhile is waited for. So is a host on which the command lives by itself: that it is away, and back, is told on
standard error (not with --quiet), and the output goes on at the next byte. The exit code is 0 when all was shown,
whatever that of the command is: telexec wait ID gives that one.

Examples:

    telexec logs -f 01J8Z3K4M5N6P7Q8R9S0T1V2W3
    telexec logs --only stderr V2W3
    telexec logs --stdout-offset 1048576 V2W3`
}

// Run shows the output.
func (c *logsCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		id, err := a.idArg(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		req := &telexecv1.StreamOutputRequest{
			CommandId: id, Follow: c.Follow, StdoutOffset: c.StdoutOffset, StderrOffset: c.StderrOffset,
		}
		switch c.Only {
		case "stdout":
			req.Streams = []telexecv1.Stream{telexecv1.Stream_STREAM_STDOUT}
		case "stderr":
			req.Streams = []telexecv1.Stream{telexecv1.Stream_STREAM_STDERR}
		}
		host, approval := link{out: a.out}, gate{out: a.out}
		for event, err := range cl.StreamOutput(ctx, req) {
			if err != nil {
				return err
			}
			if cmd := event.GetCommand(); cmd != nil {
				host.watch(cmd)
				approval.watch(cmd)
			}
			if a.opts.JSON {
				err = a.out.line(event)
			} else {
				err = a.out.output(event)
			}
			if err != nil {
				return err
			}
			if t := event.GetEnded().GetTruncation(); t != nil && !a.opts.JSON {
				a.out.tell("some of the output was not kept: %s", t.GetReason())
			}
			if end := event.GetEnded(); end != nil && !c.Follow && !ended(end.GetState()) {
				a.out.note("%s has not ended; -f follows it", id)
			}
		}
		return nil
	})
}

// output passes the bytes of an event on as they are: a terminal may do with
// them what the command wants, as with ssh.
func (p *printer) output(event *telexecv1.StreamOutputResponse) error {
	switch e := event.GetEvent().(type) {
	case *telexecv1.StreamOutputResponse_Chunk:
		w := p.stdout
		if e.Chunk.GetStream() == telexecv1.Stream_STREAM_STDERR {
			w = p.stderr
		}
		_, err := w.Write(e.Chunk.GetData())
		return err
	case *telexecv1.StreamOutputResponse_Gap:
		p.tell("bytes %d to %d of %s are not stored any more", e.Gap.GetFrom(), e.Gap.GetTo()-1, enum(e.Gap.GetStream().String(), "STREAM_"))
	}
	return nil
}
