package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// How a task is followed: on a terminal as a list of its steps that lives (steplist.go),
// elsewhere with a line for each event, and as JSON with a document for each.

// followTask tells what becomes of a task until it has ended, or is left alone; after is
// the last event that need not be told. Its error, which outcome gives of the end, has the
// exit code.
func (a *app) followTask(ctx context.Context, cl *client.Client, now *telexecv1.GetTaskResponse, after int64, outcome func(*telexecv1.Task) *exitError) error {
	t := now.GetTask()
	ctx, stop := a.interruptible(ctx)
	var last *telexecv1.Task
	var err error
	if a.out.width > 0 && !a.opts.JSON && !dumb(a.env) {
		last, err = a.watchSteps(ctx, cl, now)
	} else {
		last, err = a.watchLines(ctx, cl, t, after)
	}
	left := stop()
	switch {
	case err == nil:
		if e := outcome(last); e != nil {
			return e
		}
		return nil
	case left != nil:
		a.out.printErr("telexec: task " + t.GetId() + " goes on without you: telexec task watch " + t.GetId() +
			" is back with it, telexec task cancel " + t.GetId() + " ends it\n")
		return left
	}
	if e, ok := errors.AsType[*client.Error](err); ok && e.Reason == client.ReasonUnreachable {
		e.Hint = "The task goes on: telexec task watch " + t.GetId() + " is back with it when the service is"
	}
	return err
}

// watchLines prints a line for each event, and gives the task as it has ended.
func (a *app) watchLines(ctx context.Context, cl *client.Client, t *telexecv1.Task, after int64) (last *telexecv1.Task, err error) {
	for m, err := range cl.WatchTask(ctx, &telexecv1.WatchTaskRequest{TaskId: t.GetId(), After: after}) {
		switch e := m.GetEvent(); {
		case err != nil:
			return nil, err
		case m.GetHeartbeat() != nil:
			continue
		case a.opts.JSON:
			err = a.out.line(m)
		case e != nil && worthALine(t, e):
			err = a.out.taskEvent(e)
		}
		if err != nil {
			return nil, err
		}
		if m.GetTask() != nil {
			last = m.GetTask()
		}
	}
	return last, nil
}

// worthALine reports whether people are told of an event: not of every percent, and of a
// step on one host once.
func worthALine(t *telexecv1.Task, e *telexecv1.TaskEvent) bool {
	if e.GetType() == "step_progress" {
		return false
	}
	ofStep := e.StepIndex != nil && e.GetCommandId() == "" && (e.GetType() == "step_start" || e.GetType() == "step_complete")
	if !ofStep || int(e.GetStepIndex()) >= len(t.GetSteps()) || e.GetStepState() == telexecv1.StepState_STEP_STATE_SKIPPED {
		return true
	}
	return len(t.GetSteps()[e.GetStepIndex()].GetRuns()) > 1
}

// taskEvent prints one thing that has happened to a task.
func (p *printer) taskEvent(e *telexecv1.TaskEvent) error {
	text, colour := printable(e.GetMessage()), ""
	switch e.GetType() {
	case "approval_request":
		text += ": telexec approvals show " + e.GetApprovalId()
		colour = yellow
	case "error":
		colour = red
	case "step_complete", "undo_complete":
		colour = stepCell(e.GetStepState()).colour
		if e.GetType() == "undo_complete" {
			colour = undoCell(e.GetUndoState()).colour
		}
	}
	head := e.GetTime().AsTime().Local().Format(time.DateTime) + "  "
	if p.width > len(head) && e.GetApprovalId() == "" {
		text = cut(text, p.width-len(head))
	}
	_, err := io.WriteString(p.stdout, head+p.paint(text, colour)+"\n")
	return err
}

const (
	refreshLeast = 200 * time.Millisecond // between two looks at the whole task
	refreshMost  = 5 * time.Second        // that one may take
)

// watchSteps shows the steps as they go, and gives the task as it has ended.
func (a *app) watchSteps(ctx context.Context, cl *client.Client, now *telexecv1.GetTaskResponse) (*telexecv1.Task, error) {
	t := now.GetTask()
	list := &stepList{out: a.out, task: t, approvals: now.GetApprovals()}
	a.retrying = func(err *client.Error, delay time.Duration) {
		list.remark(fmt.Sprintf("%s; trying again in %s", strings.TrimSuffix(err.Message, "."), humanDuration(delay)))
	}
	ctx, stop := context.WithCancel(ctx)
	type told struct {
		m   *telexecv1.WatchTaskResponse
		err error
	}
	news := make(chan told) // sent to by the goroutine, which closes it at the end
	go func() {
		defer close(news)
		for m, err := range cl.WatchTask(ctx, &telexecv1.WatchTaskRequest{TaskId: t.GetId(), After: t.GetSequence()}) {
			select {
			case news <- told{m, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { // whoever draws has ended when this has
		stop()
		for range news {
		}
	}()
	second := time.NewTicker(time.Second) // what runs takes longer and longer
	defer second.Stop()
	var due <-chan time.Time // when the task is to be looked at; nil: there is nothing new
	if t.GetState() == telexecv1.TaskState_TASK_STATE_AWAITING_APPROVAL && len(now.GetApprovals()) == 0 {
		due = time.After(0) // it was submitted before, and what it waits for was not told
	}
	var looked time.Time
	if err := list.draw(); err != nil {
		return nil, err
	}
	for last := t; ; {
		select {
		case n, ok := <-news:
			switch {
			case !ok && ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case !ok:
				list.show(last, nil)
				return last, list.draw()
			case n.err != nil:
				return nil, n.err
			}
			list.remark("")
			if n.m.GetTask() != nil {
				last = n.m.GetTask()
			}
			if !list.take(n.m.GetEvent()) && due == nil {
				due = time.After(max(refreshLeast-time.Since(looked), 0))
			}
		case <-due:
			due, looked = nil, time.Now()
			within, cancel := context.WithTimeout(ctx, refreshMost)
			if resp, err := cl.GetTask(within, &telexecv1.GetTaskRequest{TaskId: t.GetId()}); err == nil {
				list.show(resp.GetTask(), resp.GetApprovals())
			} // else the next news brings another look
			cancel()
		case <-second.C:
		case <-a.env.Resized:
		}
		if err := list.draw(); err != nil {
			return nil, err
		}
	}
}
