package main

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type waitCmd struct {
	ID string `arg:"" name:"id" help:"Id of the command, or enough of its end."`
}

// Help is shown by wait --help.
func (waitCmd) Help() string {
	return `Waits until the command has ended and exits as telexec run would have. Its output is not shown, only why it has not
run to its end where that is so; with --json the command as it ended. A service that goes away meanwhile is waited for
(--retry-for). Ctrl-C ends the waiting and leaves the command alone.

Example:

    id=$(telexec run -d web1 ./deploy.sh)
    telexec wait "$id" && echo deployed
` + exitCodesHelp
}

// waitOnce is how long one question waits for the end: below a minute, after which
// what stands between may close a connection that is silent.
const waitOnce = 50 * time.Second

// Run waits for the end.
func (c *waitCmd) Run(ctx context.Context, a *app) error {
	cl, err := a.dial(a.opts.RetryFor) // there is nothing else to do meanwhile
	if err != nil {
		return err
	}
	defer cl.Close()
	return a.with(ctx, cl, func(ctx context.Context, cl *client.Client) error {
		id, err := a.idArg(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		for {
			resp, err := cl.GetStatus(ctx, &telexecv1.GetStatusRequest{
				CommandId: id, Wait: durationpb.New(waitOnce), Output: &telexecv1.OutputOptions{Omit: true},
			})
			if err != nil {
				return err
			}
			cmd := resp.GetCommand()
			if !ended(cmd.GetState()) {
				continue
			}
			if a.opts.JSON {
				if err := a.out.document(cmd); err != nil {
					return err
				}
			}
			if e := outcome(cmd); e != nil {
				return e
			}
			return nil
		}
	})
}
