package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type eventsCmd struct {
	After     *int64            `placeholder:"SEQUENCE" help:"Begin with what has changed behind this sequence; 0: with all that is stored."`
	Host      string            `placeholder:"HOST" help:"Only of commands on this host."`
	Label     map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Only of commands with this label; may be repeated, then all must match."`
	Principal string            `placeholder:"NAME" help:"Only of commands of this principal."`
}

// Help is shown by events --help.
func (eventsCmd) Help() string {
	return `First come the commands and tasks that have not ended, and with --after before them the commands that have changed
meanwhile; then a line for every change of a command and every event of a task, until Ctrl-C. A command that changes faster
than it is read is shown as it is now. With --json each line has a sequence: --after goes on there, and of commands nothing is
missed; of a task telexec task watch --after has all. With --host no tasks are told, for they have many hosts.

Examples:

    telexec events --host web1
    telexec events --after 0 --json | jq -r 'select(.command) | [.command.id, .command.state] | @tsv'`
}

// Run shows what happens.
func (c *eventsCmd) Run(ctx context.Context, a *app) error {
	req := &telexecv1.WatchEventsRequest{After: c.After, Host: c.Host, Labels: c.Label, Principal: c.Principal}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		synced, last := false, int64(-1)
		for event, err := range cl.Events(ctx, req) {
			if err != nil {
				if ctx.Err() != nil && last >= 0 {
					a.out.note("telexec events --after %d goes on", last)
				}
				return err
			}
			last = event.GetSequence()
			switch cmd := event.GetCommand(); {
			case a.opts.JSON:
				err = a.out.line(event)
			case cmd != nil && synced:
				err = a.out.event(event.GetTime(), cmd)
			case cmd != nil: // it has happened some time ago
				err = a.out.event(cmp.Or(cmd.GetEndTime(), cmd.GetLastActivityTime(), cmd.GetCreateTime()), cmd)
			case event.GetTask() != nil && !synced: // else its events tell of it
				err = a.out.happens(event.GetTask().GetCreateTime(), event.GetTask().GetId(), taskCell(event.GetTask()), event.GetTask().GetTask())
			case event.GetTaskEvent() != nil && event.GetTaskEvent().GetType() != "step_progress":
				e := event.GetTaskEvent()
				err = a.out.happens(e.GetTime(), e.GetTaskId(), taskCell(&telexecv1.Task{State: e.GetState()}), e.GetMessage())
			case event.GetSynced() != nil:
				synced = true
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// stateWidth has room for most states with an exit code.
const stateWidth = 14

// event prints that a command has changed, in a line of its own: what comes next is
// not known, so nothing can be aligned with it.
func (p *printer) event(at *timestamppb.Timestamp, cmd *telexecv1.Command) error {
	state := stateCell(cmd)
	if exit := exitText(cmd); exit != "-" {
		state.text += " " + printable(exit)
	}
	return p.happens(at, cmd.GetId(), state, cmd.GetHost()+"  "+cmd.GetCommand())
}

// happens prints what has become of a command or a task.
func (p *printer) happens(at *timestamppb.Timestamp, id string, state cell, what string) error {
	blank := strings.Repeat(" ", max(0, stateWidth-len(state.text)))
	head := fmt.Sprintf("%s  %s  ", at.AsTime().Local().Format(time.DateTime), id)
	tail := "  " + printable(what)
	if used := len(head) + max(stateWidth, len(state.text)); p.width > used {
		tail = cut(tail, p.width-used)
	}
	_, err := io.WriteString(p.stdout, head+p.paint(state.text, state.colour)+blank+tail+"\n")
	return err
}
