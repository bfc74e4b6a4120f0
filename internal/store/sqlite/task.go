package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/store"
	"github.com/telexec/telexec/internal/task"
)

// A task is a row, one for each step and one for each run. What CreateTask fixes is
// written once.

// taskFixed are the columns that CreateTask writes, taskChanging those that every
// SaveTask does.
var (
	taskFixed = []string{
		"id", "principal", "origin", "roles", "create_time", "request_id", "text", "priority", "conversation", "context", "labels",
	}
	taskChanging = []string{
		"version", "state", "start_time", "end_time", "failure", "cancellation", "undo", "outcome", "sequence",
	}
	stepFixed = []string{
		"task", "step", "name", "line", "argv", "session", "directory", "sudo_user", "action_type", "undo", "needs_approval", "on_failure",
		"timeout", "retry_times", "retry_backoff", "parallel", "canary", "go_on",
	}
	stepChanging = []string{"approved_line", "approved_argv", "approved_timeout"}
	runFixed     = []string{"task", "step", "run"}
	runChanging  = []string{
		"host", "session", "state", "command", "earlier", "exit_code", "failure", "admitted", "percent", "start_time", "end_time", "retry_time",
		"undo_state", "undo_command", "undo_failure", "undo_start_time", "undo_end_time",
	}
	eventColumns = []string{
		"task", "sequence", "time", "type", "state", "task_percent", "message", "step", "host", "command", "step_state", "undo_state", "percent",
		"exit_code", "failure", "position", "estimated_wait",
	}
)

func taskFixedValues(t *task.Task) []any {
	return []any{
		t.ID, t.CreatedBy.Principal, string(t.CreatedBy.Origin), packStrings(t.Roles), micros(t.CreateTime), t.Spec.RequestID, t.Spec.Text,
		int64(t.Spec.Priority), t.Spec.ConversationID, packMap(t.Spec.Context), packMap(t.Spec.Labels),
	}
}

func taskChangingValues(t *task.Task) []any {
	return []any{
		t.Version, string(t.State), micros(t.StartTime), micros(t.EndTime), packFailure(t.Failure), packWish(t.Cancellation), packUndo(t.Undo),
		string(t.Outcome), t.Sequence,
	}
}

func stepFixedValues(t *task.Task, step int) []any {
	s := &t.Spec.Steps[step]
	return []any{
		t.ID, int64(step), s.Name, s.Line, packStrings(s.Argv), s.Session, s.WorkingDirectory, s.SudoUser, s.ActionType, s.Undo, s.NeedsApproval,
		string(s.OnFailure), int64(s.Timeout), int64(s.Retry.Times), int64(s.Retry.Backoff), int64(s.Rollout.Parallel), int64(s.Rollout.Canary), s.Rollout.GoOn,
	}
}

func stepChangingValues(s *task.Step) []any {
	return []any{s.Line, packStrings(s.Argv), int64(s.Timeout)}
}

func runFixedValues(t *task.Task, r task.Ref) []any {
	return []any{t.ID, int64(r.Step), int64(r.Run)}
}

func runChangingValues(r *task.Run) []any {
	return []any{
		r.Host, r.Session, string(r.State), r.Command, packStrings(r.Earlier), optional(r.Exit), packFailure(r.Failure), r.Admitted, r.Percent,
		micros(r.StartTime), micros(r.EndTime), micros(r.RetryTime),
		string(r.Undo.State), r.Undo.Command, packFailure(r.Undo.Failure), micros(r.Undo.StartTime), micros(r.Undo.EndTime),
	}
}

func eventValues(e *task.Event) []any {
	v := []any{
		e.Task, e.Sequence, micros(e.Time), string(e.Type), string(e.State), e.TaskPercent, e.Message, int64(e.Step), e.Host, e.Command,
		string(e.StepState), string(e.UndoState), e.Percent, optional(e.Exit), packFailure(e.Failure),
	}
	if p := e.Place; p != nil {
		return append(v, int64(p.Position), int64(p.EstimatedWait))
	}
	return append(v, nil, nil)
}

// optional is a number, or NULL.
func optional(n *int) any {
	if n == nil {
		return nil
	}
	return int64(*n)
}

func number(n sql.NullInt64) *int {
	if !n.Valid {
		return nil
	}
	i := int(n.Int64)
	return &i
}

var (
	selectTask   = "SELECT " + qualified("t", taskFixed) + ", " + qualified("t", taskChanging) + " FROM "
	selectSteps  = "SELECT " + qualified("s", stepFixed) + ", " + qualified("s", stepChanging) + " FROM task_step s WHERE s.task = ? ORDER BY s.step"
	selectRuns   = "SELECT " + qualified("r", runFixed) + ", " + qualified("r", runChanging) + " FROM task_run r WHERE r.task = ? ORDER BY r.step, r.run"
	selectEvents = "SELECT " + qualified("e", eventColumns) + " FROM task_event e WHERE e.task = ? AND e.sequence > ? ORDER BY e.sequence LIMIT ?"
)

func scanTask(scan func(dest ...any) error) (t task.Task, err error) {
	var created, started, ended, priority int64
	var roles, context, labels, failure, cancellation, undo []byte
	err = scan(
		&t.ID, &t.CreatedBy.Principal, &t.CreatedBy.Origin, &roles, &created, &t.Spec.RequestID, &t.Spec.Text, &priority, &t.Spec.ConversationID, &context, &labels,
		&t.Version, &t.State, &started, &ended, &failure, &cancellation, &undo, &t.Outcome, &t.Sequence,
	)
	if err != nil {
		if !ofDatabase(err) {
			err = damagedTask(t.ID, err)
		}
		return t, err
	}
	t.CreateTime, t.StartTime, t.EndTime, t.Spec.Priority = moment(created), moment(started), moment(ended), int(priority)
	var errs [6]error
	t.Roles, errs[0] = unpackStrings(roles)
	t.Spec.Context, errs[1] = unpackMap(context)
	t.Spec.Labels, errs[2] = unpackMap(labels)
	t.Failure, errs[3] = unpackFailure(failure)
	t.Cancellation, errs[4] = unpackWish(cancellation)
	t.Undo, errs[5] = unpackUndo(undo)
	err = errors.Join(errs[:]...)
	if !slices.Contains(task.States, t.State) {
		err = errors.Join(err, errors.New("unknown state "+string(t.State)))
	}
	if err != nil {
		err = damagedTask(t.ID, err)
	}
	return t, err
}

// scanStep adds a row of selectSteps.
func scanStep(t *task.Task, scan func(dest ...any) error) error {
	var s task.StepSpec
	var now task.Step
	var id string
	var step, timeout, times, backoff, parallel, canary, approvedTimeout int64
	var argv, approvedArgv []byte
	err := scan(
		&id, &step, &s.Name, &s.Line, &argv, &s.Session, &s.WorkingDirectory, &s.SudoUser, &s.ActionType, &s.Undo, &s.NeedsApproval, &s.OnFailure,
		&timeout, &times, &backoff, &parallel, &canary, &s.Rollout.GoOn,
		&now.Line, &approvedArgv, &approvedTimeout,
	)
	if err != nil {
		return err
	}
	s.Timeout, s.Retry = time.Duration(timeout), task.Retry{Times: int(times), Backoff: time.Duration(backoff)}
	s.Rollout.Parallel, s.Rollout.Canary = int(parallel), int(canary)
	now.Timeout = time.Duration(approvedTimeout)
	var errs [2]error
	s.Argv, errs[0] = unpackStrings(argv)
	now.Argv, errs[1] = unpackStrings(approvedArgv)
	if err := errors.Join(errs[:]...); err != nil {
		return damagedTask(t.ID, err)
	}
	if int(step) != len(t.Steps) {
		return damagedTask(t.ID, fmt.Errorf("step %d is missing", len(t.Steps)))
	}
	t.Spec.Steps, t.Steps = append(t.Spec.Steps, s), append(t.Steps, now)
	return nil
}

// scanRun adds a row of selectRuns.
func scanRun(t *task.Task, scan func(dest ...any) error) error {
	var r task.Run
	var id string
	var step, run, started, ended, retry, undoStarted, undoEnded int64
	var exit sql.NullInt64
	var earlier, failure, undoFailure []byte
	err := scan(
		&id, &step, &run,
		&r.Host, &r.Session, &r.State, &r.Command, &earlier, &exit, &failure, &r.Admitted, &r.Percent, &started, &ended, &retry,
		&r.Undo.State, &r.Undo.Command, &undoFailure, &undoStarted, &undoEnded,
	)
	if err != nil {
		return err
	}
	r.StartTime, r.EndTime, r.RetryTime = moment(started), moment(ended), moment(retry)
	r.Undo.StartTime, r.Undo.EndTime = moment(undoStarted), moment(undoEnded)
	r.Exit = number(exit)
	var errs [3]error
	r.Earlier, errs[0] = unpackStrings(earlier)
	r.Failure, errs[1] = unpackFailure(failure)
	r.Undo.Failure, errs[2] = unpackFailure(undoFailure)
	if err := errors.Join(errs[:]...); err != nil {
		return damagedTask(t.ID, err)
	}
	if int(step) >= len(t.Steps) || int(run) != len(t.Steps[step].Runs) || !slices.Contains(task.StepStates, r.State) {
		return damagedTask(t.ID, fmt.Errorf("run %d of step %d does not fit", run, step))
	}
	t.Steps[step].Runs = append(t.Steps[step].Runs, r)
	return nil
}

func scanEvent(scan func(dest ...any) error) (e task.Event, err error) {
	var at, step int64
	var exit, position, wait sql.NullInt64
	var failure []byte
	err = scan(
		&e.Task, &e.Sequence, &at, &e.Type, &e.State, &e.TaskPercent, &e.Message, &step, &e.Host, &e.Command, &e.StepState, &e.UndoState, &e.Percent,
		&exit, &failure, &position, &wait,
	)
	if err != nil {
		return e, err
	}
	e.Time, e.Step, e.Exit = moment(at), int(step), number(exit)
	if position.Valid {
		e.Place = &task.Place{Position: int(position.Int64), EstimatedWait: time.Duration(wait.Int64)}
	}
	if e.Failure, err = unpackFailure(failure); err != nil {
		err = damagedTask(e.Task, err)
	}
	return e, err
}

// CreateTask is store.Store's.
func (s *Store) CreateTask(ctx context.Context, ch task.Change, hash []byte) (stored task.Task, created bool, err error) {
	const op = "sqlite.CreateTask"
	leave, err := s.enter(op)
	if err != nil {
		return task.Task{}, false, err
	}
	defer leave()
	ch.Events, ch.Audit = slices.Clone(ch.Events), slices.Clone(ch.Audit)
	var old string
	err = s.writer.do(ctx, 0, func() (err error) {
		old, err = s.writer.createTask(&ch, hash)
		return err
	})
	switch {
	case err != nil:
		return task.Task{}, false, failed(op, err)
	case old != "":
		stored, err = s.Task(ctx, old)
		return stored, false, err
	}
	return ch.Task, true, nil
}

// createTask runs on the writer's goroutine. old is the task that the request id has made
// before. Whatever can refuse comes before the first thing written.
func (w *writer) createTask(ch *task.Change, hash []byte) (old string, err error) {
	ctx, t := context.Background(), &ch.Task
	if old, err = w.replayTask(ctx, t.CreatedBy.Principal, t.Spec.RequestID, hash, t.CreateTime); err != nil || old != "" {
		return old, err
	}
	r, err := w.insertTask.ExecContext(ctx, append(taskFixedValues(t), taskChangingValues(t)...)...)
	if err != nil {
		return "", err
	}
	if n, err := r.RowsAffected(); err != nil {
		return "", err
	} else if n == 0 {
		return "", fault.New(fault.Internal, fault.ReasonInternal, "there is a task %q already", t.ID)
	}
	if t.Spec.RequestID != "" {
		if _, err := w.putTaskRequest.ExecContext(ctx, t.CreatedBy.Principal, t.Spec.RequestID, t.ID, hash, micros(t.CreateTime)); err != nil {
			return "", err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Spec.Labels)) {
		if _, err := w.insertTaskLabel.ExecContext(ctx, name, t.Spec.Labels[name], t.ID); err != nil {
			return "", err
		}
	}
	for i := range t.Steps {
		if _, err := w.insertStep.ExecContext(ctx, append(stepFixedValues(t, i), stepChangingValues(&t.Steps[i])...)...); err != nil {
			return "", err
		}
	}
	for _, r := range t.Refs() {
		if _, err := w.insertRun.ExecContext(ctx, append(runFixedValues(t, r), runChangingValues(t.Run(r))...)...); err != nil {
			return "", err
		}
	}
	return "", w.happened(ctx, ch)
}

// ReplayTask is store.Store's. It asks on the writer's connection, as Replay does.
func (s *Store) ReplayTask(ctx context.Context, principal, requestID string, hash []byte, now time.Time) (stored task.Task, found bool, err error) {
	const op = "sqlite.ReplayTask"
	leave, err := s.enter(op)
	if err != nil {
		return task.Task{}, false, err
	}
	defer leave()
	var old string
	if err := s.writer.do(ctx, 0, func() (err error) {
		old, err = s.writer.replayTask(context.Background(), principal, requestID, hash, now)
		return err
	}); err != nil || old == "" {
		return task.Task{}, false, failed(op, err)
	}
	stored, err = s.Task(ctx, old)
	return stored, err == nil, err
}

// replayTask runs on the writer's goroutine. It gives the id of the task that a request
// id names, empty if none, or says that it was for something else.
func (w *writer) replayTask(ctx context.Context, principal, requestID string, hash []byte, now time.Time) (id string, err error) {
	if requestID == "" {
		return "", nil
	}
	var was []byte
	var at int64
	switch err := w.findTaskRequest.QueryRowContext(ctx, principal, requestID).Scan(&id, &was, &at); {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil
	case err != nil:
		return "", err
	case now.Sub(moment(at)) >= store.RequestIDLife:
		return "", nil
	case string(was) != string(hash):
		return "", fault.New(fault.AlreadyExists, fault.ReasonRequestIDReused, "the request id %q was used for another task within the last 24 hours", requestID).
			WithHint("Use a new request id for a new task; repeat a request unchanged").With("task_id", id)
	}
	return id, nil
}

// happened stores the events of a change, and what the audit is told.
func (w *writer) happened(ctx context.Context, ch *task.Change) error {
	for i := range ch.Events {
		if _, err := w.insertEvent.ExecContext(ctx, eventValues(&ch.Events[i])...); err != nil {
			return err
		}
	}
	return w.tell(ctx, ch.Audit...)
}

// SaveTasks is store.Store's.
func (s *Store) SaveTasks(ctx context.Context, changes ...task.Change) error {
	const op = "sqlite.SaveTasks"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	changes = slices.Clone(changes)
	for i := range changes { // the writer may still work on them when ctx has ended this call
		ch := &changes[i]
		ch.Task = ch.Task.Clone()
		ch.Events, ch.Audit, ch.Runs, ch.Steps = slices.Clone(ch.Events), slices.Clone(ch.Audit), slices.Clone(ch.Runs), slices.Clone(ch.Steps)
	}
	return failed(op, s.writer.do(ctx, 0, func() error { return s.writer.saveTasks(changes) }))
}

// saveTasks runs on the writer's goroutine: all are looked at before the first is written.
func (w *writer) saveTasks(changes []task.Change) error {
	ctx := context.Background()
	for i := range changes {
		t := &changes[i].Task
		var version, sequence int64
		err := w.taskVersion.QueryRowContext(ctx, t.ID).Scan(&version, &sequence)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return unknownTask(t.ID)
		case err != nil:
			return err
		case version >= t.Version || sequence+int64(len(changes[i].Events)) != t.Sequence:
			return fault.New(fault.Aborted, fault.ReasonInternal, "task %s was changed meanwhile: it has version %d and %d events; this is %d with %d", t.ID, version, sequence, t.Version, t.Sequence).
				WithHint("Read the task again and decide anew").With("task_id", t.ID)
		}
	}
	for i := range changes {
		ch := &changes[i]
		if _, err := w.updateTask.ExecContext(ctx, append(taskChangingValues(&ch.Task), ch.Task.ID)...); err != nil {
			return err
		}
		for _, step := range ch.Steps {
			if _, err := w.updateStep.ExecContext(ctx, append(stepChangingValues(&ch.Task.Steps[step]), ch.Task.ID, int64(step))...); err != nil {
				return err
			}
		}
		for _, r := range ch.Runs {
			if _, err := w.updateRun.ExecContext(ctx, append(runChangingValues(ch.Task.Run(r)), ch.Task.ID, int64(r.Step), int64(r.Run))...); err != nil {
				return err
			}
		}
		if err := w.happened(ctx, ch); err != nil {
			return err
		}
	}
	return nil
}

// Task is store.Store's.
func (s *Store) Task(ctx context.Context, id string) (task.Task, error) {
	const op = "sqlite.Task"
	leave, err := s.enter(op)
	if err != nil {
		return task.Task{}, err
	}
	defer leave()
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return task.Task{}, failed(op, err)
	}
	defer tx.Rollback() // nothing was written
	t, err := scanTask(tx.QueryRowContext(ctx, selectTask+"task t WHERE t.id = ?", id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = unknownTask(id)
	}
	if err == nil {
		err = s.readSteps(ctx, tx, &t)
	}
	if err != nil {
		return task.Task{}, failed(op, err)
	}
	return t, nil
}

// readSteps reads the steps and runs of a task.
func (s *Store) readSteps(ctx context.Context, tx *sql.Tx, t *task.Task) error {
	for _, part := range []struct {
		text string
		scan func(*task.Task, func(dest ...any) error) error
	}{{selectSteps, scanStep}, {selectRuns, scanRun}} {
		rows, err := tx.QueryContext(ctx, part.text, t.ID)
		if err != nil {
			return err
		}
		for rows.Next() {
			if err = part.scan(t, rows.Scan); err != nil {
				break
			}
		}
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			if f, damage := errors.AsType[*fault.Error](err); damage {
				return f
			}
			return err
		}
	}
	return nil
}

// Tasks is store.Store's. A damaged one is left out and logged.
func (s *Store) Tasks(ctx context.Context, f task.Filter) ([]task.Task, error) {
	const op = "sqlite.Tasks"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	offset, got := f.Offset, portion{bounded: f.Limit > 0}
	list, err := filled(f.Limit, f.Before, func(limit int, before string) ([]task.Task, string, error) {
		f.Limit, f.Before, f.Offset = limit, before, offset
		offset = 0 // of the first page alone
		return s.taskPage(ctx, f, &got)
	})
	return list, failed(op, err)
}

// portion is what a list of tasks has so far. One may have 24 MB, so a list ends by bytes
// too.
type portion struct {
	bounded      bool // the caller wants no more than some, and goes on behind them
	tasks, bytes int
}

// full says that nothing more is to be read. It never is with one task: by the second the
// caller, who counts too, sees that there is more.
func (p *portion) full() bool { return p.bounded && p.tasks > 1 && p.bytes > store.TasksBytes }

func (p *portion) add(t *task.Task) {
	p.tasks++
	p.bytes += len(t.Spec.Text)
	for name, value := range t.Spec.Context {
		p.bytes += len(name) + len(value)
	}
	for i := range t.Steps {
		asked, now := &t.Spec.Steps[i], &t.Steps[i]
		line, argv := asked.Line, asked.Argv
		if now.Line != "" || len(now.Argv) > 0 {
			line, argv = now.Line, now.Argv // which is what is shown
		}
		p.bytes += len(line) + len(asked.Undo)
		for _, word := range argv {
			p.bytes += len(word)
		}
	}
}

// taskPage also gives the id to go on behind, empty where nothing older is left, or where
// got is full.
func (s *Store) taskPage(ctx context.Context, f task.Filter, got *portion) (list []task.Task, last string, err error) {
	if f.Offset > 0 && f.Limit > 0 {
		f.Limit += f.Offset // they are counted off
	}
	text, args, err := taskInquiry(f, s.counter(ctx)).compose()
	if err != nil {
		return nil, "", err
	}
	find, done, err := s.lists.prepared(ctx, s.read, text)
	if err != nil {
		return nil, "", err
	}
	defer done()
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, "", err
	}
	defer tx.Rollback() // nothing was written
	ids, err := readIDs(tx.StmtContext(ctx, find).QueryContext(ctx, args...))
	if err != nil {
		return nil, "", err
	}
	if len(ids) > 0 && len(ids) == f.Limit {
		last = ids[len(ids)-1]
	}
	for _, id := range ids[min(f.Offset, len(ids)):] {
		t, err := scanTask(tx.QueryRowContext(ctx, selectTask+"task t WHERE t.id = ?", id).Scan)
		if err == nil {
			err = s.readSteps(ctx, tx, &t)
		}
		if _, damage := errors.AsType[*fault.Error](err); damage || errors.Is(err, sql.ErrNoRows) {
			s.log.Warn("a list leaves out a damaged task", "task", id, "error", err)
			continue
		}
		if err != nil {
			return nil, "", err
		}
		list = append(list, t)
		if got.add(&t); got.full() {
			return list, "", nil
		}
	}
	return list, last, nil
}

func taskInquiry(f task.Filter, count func(text string, args []any) (int, error)) *inquiry {
	in := &inquiry{everything: walk{from: "task t", where: "1", id: "t.id"}, limit: f.Limit, count: count}
	for _, name := range slices.Sorted(maps.Keys(f.Labels)) {
		args := []any{name, f.Labels[name]}
		in.conditions = append(in.conditions, condition{
			walks:     []walk{{from: "task_label l CROSS JOIN task t ON t.id = l.task", where: "l.name = ? AND l.value = ?", args: args, id: "l.task"}},
			probe:     []walk{{from: "task_label l", where: "l.name = ? AND l.value = ?", args: args, id: "l.task"}},
			predicate: predicate{"EXISTS (SELECT 1 FROM task_label WHERE name = ? AND value = ? AND task = t.id)", args},
		})
	}
	states := make([]string, len(f.States))
	for i, state := range f.States {
		states[i] = string(state)
	}
	in.asksAny(byTask("state"), "t.state", states)
	for _, principal := range []string{f.Principal, f.Visible} {
		if principal != "" {
			in.asks(byTask("principal"), principal)
		}
	}
	if f.ConversationID != "" {
		in.asks(walk{from: "task t INDEXED BY task_conversation", where: "t.conversation = ? AND t.conversation <> ''", id: "t.id"}, f.ConversationID)
	}
	// One upper bound only: of two, SQLite seeks to one and walks to the other.
	before := f.Before
	if !f.To.IsZero() {
		in.checks = append(in.checks, predicate{"t.create_time < ?", []any{micros(f.To)}})
		if to := idAt(f.To.Add(idSlack)); before == "" || to < before {
			before = to
		}
	}
	if before != "" {
		in.below = before
	}
	if !f.From.IsZero() {
		in.checks = append(in.checks, predicate{"t.create_time >= ?", []any{micros(f.From)}})
		in.least = idAt(f.From.Add(-idSlack))
	}
	return in
}

// byTask is the walk of a column of task that has an index of its name.
func byTask(column string) walk {
	return walk{from: "task t INDEXED BY task_" + column, where: "t." + column + " = ?", id: "t.id"}
}

// TaskEvents is store.Store's.
func (s *Store) TaskEvents(ctx context.Context, id string, after int64, limit int) ([]task.Event, error) {
	const op = "sqlite.TaskEvents"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	find, done, err := s.lists.prepared(ctx, s.read, selectEvents)
	if err != nil {
		return nil, failed(op, err)
	}
	defer done()
	rows, err := find.QueryContext(ctx, id, after, limit)
	if err != nil {
		return nil, failed(op, err)
	}
	defer rows.Close()
	var list []task.Event
	for rows.Next() {
		e, err := scanEvent(rows.Scan)
		if err != nil {
			return nil, failed(op, err)
		}
		list = append(list, e)
	}
	return list, failed(op, rows.Err())
}
