package main

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/api"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/task"
	"github.com/telexec/telexec/internal/workflow"
)

// The glue between tasks and what they are made of: workflow runs commands through the
// engine, and api asks workflow.

// steps is the engine as workflow needs it.
type steps struct{ *engine.Engine }

func (s steps) Start(ctx context.Context, by access.Caller, spec command.Spec, id string) (command.Command, error) {
	now, err := s.ExecuteStep(ctx, by, spec, id)
	return now.Command, err
}

func (s steps) Get(ctx context.Context, id string) (command.Command, error) {
	now, err := s.Engine.Get(ctx, itself, id)
	return now.Command, err
}

func (s steps) Await(ctx context.Context, id string, version int64) (command.Command, error) {
	now, err := s.Engine.Await(ctx, id, func(now engine.Snapshot) bool { return now.Version > version })
	return now.Command, err
}

func (s steps) Cancel(ctx context.Context, by access.Caller, id string, c workflow.Cancel) error {
	_, _, err := s.Engine.Cancel(ctx, by, id, c.Grace, c.Reason)
	return err
}

// tasks is workflow as api needs it.
type tasks struct{ *workflow.Workflow }

func taskView(v workflow.View) api.TaskView { return api.TaskView(v) }

func (t tasks) Submit(ctx context.Context, by access.Caller, p api.TaskPlan, look bool) (api.TaskView, bool, error) {
	plan := workflow.Plan{Spec: p.Spec, Places: make([]workflow.Place, len(p.Places))}
	for i, place := range p.Places {
		plan.Places[i] = workflow.Place(place)
	}
	v, replayed, err := t.Workflow.Submit(ctx, by, plan, look)
	return taskView(v), replayed, err
}

func (t tasks) Get(ctx context.Context, by access.Caller, id string) (api.TaskView, error) {
	v, err := t.Workflow.Get(ctx, by, id)
	return taskView(v), err
}

func (t tasks) Plan(ctx context.Context, id string) (api.TaskView, error) {
	v, err := t.Workflow.Plan(ctx, id)
	return taskView(v), err
}

func (t tasks) Await(ctx context.Context, by access.Caller, id string, enough func(api.TaskView) bool) (api.TaskView, bool, error) {
	v, late, err := t.Workflow.Await(ctx, by, id, func(v workflow.View) bool { return enough(taskView(v)) })
	return taskView(v), late, err
}

func (t tasks) List(ctx context.Context, by access.Caller, f task.Filter) ([]api.TaskView, error) {
	list, err := t.Workflow.List(ctx, by, f)
	views := make([]api.TaskView, len(list))
	for i, v := range list {
		views[i] = taskView(v)
	}
	return views, err
}

func (t tasks) Cancel(ctx context.Context, by access.Caller, id string, grace time.Duration, reason string) (api.TaskView, bool, error) {
	v, already, err := t.Workflow.Cancel(ctx, by, id, workflow.Cancel{Grace: grace, Reason: reason})
	return taskView(v), already, err
}

func (t tasks) Undo(ctx context.Context, by access.Caller, id string, r api.TaskUndo) (api.TaskView, []api.TaskUndoOf, error) {
	v, list, err := t.Workflow.Undo(ctx, by, id, workflow.UndoRequest(r))
	of := make([]api.TaskUndoOf, len(list))
	for i, u := range list {
		of[i] = api.TaskUndoOf(u)
	}
	return taskView(v), of, err
}

func (t tasks) Watch(ctx context.Context, by access.Caller, id string, after int64) (api.TaskWatch, api.TaskView, error) {
	w, v, err := t.Workflow.Watch(ctx, by, id, after)
	return taskWatch{w}, taskView(v), err
}

// taskWatch is a workflow.Watch as api needs it.
type taskWatch struct{ *workflow.Watch }

func (w taskWatch) Next(ctx context.Context) (task.Event, *api.TaskView, error) {
	e, over, err := w.Watch.Next(ctx)
	if over == nil {
		return e, nil, err
	}
	v := taskView(*over)
	return e, &v, err
}

func (t tasks) WatchAll(ctx context.Context, by access.Caller, o api.TasksOptions) (api.TasksWatcher, error) {
	w, err := t.Workflow.WatchAll(ctx, by, workflow.AllOptions(o))
	if err != nil {
		return nil, err
	}
	return tasksWatcher{w}, nil
}

// tasksWatcher is a workflow.All as api needs it.
type tasksWatcher struct{ *workflow.All }

func (w tasksWatcher) Next(ctx context.Context) (api.TaskNews, error) {
	n, err := w.All.Next(ctx)
	said := api.TaskNews{Event: n.Event, Known: n.Known}
	if n.View != nil {
		v := taskView(*n.View)
		said.View = &v
	}
	return said, err
}
