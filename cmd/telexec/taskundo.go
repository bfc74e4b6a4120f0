package main

import (
	"bufio"
	"context"
	"io"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// telexec task undo: what would run is shown, asked about, and followed.

type taskUndoCmd struct {
	ID             string `arg:"" name:"id" help:"Id of the task, or enough of its end."`
	Step           string `arg:"" optional:"" help:"Name of the one step to undo; without it all of them, the last first."`
	Preview        bool   `help:"Only show what would run."`
	IncludeUnknown bool   `help:"Undo also what may have run: where the outcome is not known, or the command has failed or was cancelled on the way. Look at the host first."`
	Reason         string `placeholder:"TEXT" help:"Why; shown to whoever watches, and kept."`
	Yes            bool   `short:"y" help:"Do not show and ask, as is needed without a terminal."`
	Detach         bool   `short:"d" help:"Do not wait for the end of it."`
}

// Help is shown by task undo --help.
func (taskUndoCmd) Help() string {
	return `Runs the undo commands of what the task has done, the last step first, on the hosts where it ran. On a terminal it shows
what would run and asks. A step without an undo command cannot be undone, and one whose outcome is not known is left
alone without --include-unknown. The task must have ended.

Examples:

    telexec task undo V2W3 --preview
    telexec task undo V2W3 --reason 'the new version is slow'
    telexec task undo V2W3 upgrade --yes
` + taskExitsHelp
}

// Run shows, asks, begins the undo and follows it.
func (c *taskUndoCmd) Run(ctx context.Context, a *app) error {
	_, isTerminal := terminal(a.env.Stdin)
	if !c.Yes && !c.Preview && (!isTerminal || !a.out.remarks || a.opts.JSON) {
		return failure("there is no terminal on which to show what would run, and ask").
			withHint("Look at it with telexec task undo --preview, then give --yes")
	}
	cl, err := a.dial(singleCall)
	if err != nil {
		return err
	}
	defer cl.Close()
	var before int64
	var t *telexecv1.Task
	err = a.with(ctx, cl, func(ctx context.Context, cl *client.Client) error {
		id, err := a.taskArg(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		req := &telexecv1.UndoTaskRequest{TaskId: id, StepId: c.Step, IncludeUnknown: c.IncludeUnknown, Reason: c.Reason, Preview: true}
		preview, err := cl.UndoTask(ctx, req)
		if err != nil {
			return err
		}
		before = preview.GetTask().GetSequence()
		switch {
		case c.Preview && a.opts.JSON:
			return a.out.document(preview)
		case c.Preview:
			return a.out.undoTable(preview.GetPreview())
		case !c.Yes:
			if err := a.askUndo(ctx, id, preview); err != nil {
				return err
			}
		}
		req.Preview = false
		resp, err := cl.UndoTask(ctx, req)
		t = resp.GetTask()
		return err
	})
	switch {
	case err != nil || c.Preview:
		return err
	case c.Detach && a.opts.JSON:
		return a.out.document(t)
	case c.Detach:
		a.out.note("telexec task watch %s follows it, telexec task cancel %[1]s stops it", t.GetId())
		return nil
	}
	return a.followTask(ctx, cl, &telexecv1.GetTaskResponse{Task: t}, before, undoOutcome)
}

// undoTable shows what an undo would run, and what it leaves alone and why.
func (p *printer) undoTable(steps []*telexecv1.UndoStep) error {
	var rows [][]cell
	for _, u := range steps {
		state, line := undoCell(u.GetState()), u.GetCommand()
		switch u.GetState() {
		case telexecv1.UndoState_UNDO_STATE_PENDING:
			state = cell{"runs", green}
		case telexecv1.UndoState_UNDO_STATE_UNKNOWN:
			state.text = "left alone: its outcome is not known (--include-unknown)"
		case telexecv1.UndoState_UNDO_STATE_NOT_UNDOABLE:
			state.text, line = "left alone: it has no undo", "-"
		}
		rows = append(rows, []cell{plainCell(u.GetStep()), plainCell(u.GetHost()), state, plainCell(line)})
	}
	if len(rows) == 0 {
		_, err := io.WriteString(p.stdout, "nothing would run\n")
		return err
	}
	return p.table([]string{"STEP", "HOST", "UNDO", "COMMAND"}, rows)
}

// askUndo shows what would run and asks. Its error is the end where the answer is not yes.
func (a *app) askUndo(ctx context.Context, id string, preview *telexecv1.UndoTaskResponse) error {
	screen := a.out.screen()
	f := facts{}
	f.exactly("Task", preview.GetTask().GetTask(), screen.width)
	for _, u := range preview.GetPreview() {
		name := u.GetStep()
		if u.GetHost() != "" {
			name += " on " + u.GetHost()
		} else if s := stepNamed(preview.GetTask(), u.GetStep()); s.GetSession() != "" {
			name += " " + inSession(s)
		}
		switch u.GetState() {
		case telexecv1.UndoState_UNDO_STATE_PENDING:
			f.exactly("Undo", name, screen.width)
			f.exactly("  runs", u.GetCommand(), screen.width)
		default:
			f.paint("Left alone", name+": "+undoCell(u.GetState()).text, yellow)
		}
	}
	if err := screen.whole(f.rows); err != nil {
		return err
	}
	yes, err := a.yes(ctx, bufio.NewReader(byteReader{a.env.Stdin}), "Undo "+id)
	if err == nil && !yes {
		err = &exitError{code: exitNo, message: "nothing was undone"}
	}
	return err
}
