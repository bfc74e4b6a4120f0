package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/store"
	"github.com/telexec/telexec/internal/task"
)

// task gives a new task with two steps, one of them on three hosts.
func (b *bench) task(more ...func(*task.Task)) task.Task {
	b.now = b.now.Add(time.Second)
	t := task.Task{
		ID: newID(b.now), Version: 1, State: task.Queued, CreateTime: b.now,
		CreatedBy: command.Actor{Principal: "ann", Origin: command.OriginMCP},
		Spec: task.Spec{Text: "roll out", Steps: []task.StepSpec{
			{Name: "a", Line: "true", OnFailure: task.Stop, Rollout: task.Rollout{Parallel: 1}},
			{Name: "b", Argv: []string{"x", ""}, OnFailure: task.TakeBack, Rollout: task.Rollout{Parallel: 10, Canary: 1, GoOn: true}},
		}},
		Steps: []task.Step{
			{Runs: []task.Run{{Host: "h0", State: task.StepPending}}},
			{Runs: []task.Run{{Host: "h0", State: task.StepPending}, {Host: "h1", State: task.StepPending}, {Host: "h2", State: task.StepPending}}},
		},
	}
	for _, f := range more {
		f(&t)
	}
	return t
}

// happens gives a change with so many events behind those that t has; t has their number.
func (b *bench) happens(t *task.Task, n int) (ch task.Change) {
	for range n {
		t.Sequence++
		ch.Events = append(ch.Events, task.Event{
			Task: t.ID, Sequence: t.Sequence, Time: b.now, Type: task.StatusChange, State: t.State, Step: -1, Message: fmt.Sprint("event ", t.Sequence),
		})
	}
	return ch
}

func (b *bench) submit(t task.Task) task.Task {
	b.Helper()
	ch := b.happens(&t, 2)
	ch.Task = t
	stored, created, err := b.CreateTask(b.Context(), ch, []byte("hash"))
	b.must(err)
	if !created {
		b.Fatal("it was there")
	}
	b.sameTask(stored, t)
	return t
}

// goesOn saves t with one more event, and the runs that have changed.
func (b *bench) goesOn(t task.Task, runs ...task.Ref) task.Task {
	b.Helper()
	t.Version++
	ch := b.happens(&t, 1)
	ch.Task, ch.Runs = t, runs
	b.must(b.SaveTasks(b.Context(), ch))
	return t
}

func (b *bench) taskIs(want task.Task) {
	b.Helper()
	got, err := b.Task(b.Context(), want.ID)
	b.must(err)
	b.sameTask(got, want)
}

func (b *bench) sameTask(got, want task.Task) {
	b.Helper()
	for _, t := range []*task.Task{&got, &want} {
		*t = t.Clone()
		utc(reflect.ValueOf(t).Elem())
	}
	if !reflect.DeepEqual(got, want) {
		b.Fatalf("task differs\n got %s\nwant %s", text(got), text(want))
	}
}

// utc makes times as they are stored, and what is empty nil.
func utc(v reflect.Value) {
	if t, ok := v.Interface().(time.Time); ok {
		v.Set(reflect.ValueOf(t.UTC().Truncate(time.Microsecond)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			utc(v.Field(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			one := reflect.New(v.Type().Elem())
			one.Elem().Set(v.Elem())
			utc(one.Elem())
			v.Set(one)
		}
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			v.SetZero()
		} else if v.Kind() == reflect.Slice {
			for i := range v.Len() {
				utc(v.Index(i))
			}
		}
	}
}

// taskFields fills every field of a task by reflection, so that a field that is added
// later and forgotten in a driver fails here.
func taskFields(b *bench) {
	full := func(seed int64) (t task.Task) {
		fill(b, reflect.ValueOf(&t).Elem(), &seed)
		t.State = task.UndoFailed
		for i := range t.Steps {
			for j := range t.Steps[i].Runs {
				t.Steps[i].Runs[j].State = task.StepLost
			}
		}
		return t
	}
	first := full(1)
	first.ID, first.Sequence = newID(first.CreateTime), 0
	first = b.submit(first)
	b.pause()
	b.taskIs(first)

	second := full(1000)
	second.ID, second.Version, second.Sequence = first.ID, first.Version+1, first.Sequence
	ch := task.Change{Task: second, Runs: []task.Ref{}, Steps: []int{}}
	for i := range second.Steps {
		ch.Steps = append(ch.Steps, i)
		for j := range second.Steps[i].Runs {
			ch.Runs = append(ch.Runs, task.Ref{Step: i, Run: j})
		}
	}
	var e task.Event
	seed := int64(5000)
	fill(b, reflect.ValueOf(&e).Elem(), &seed)
	e.Task, e.Sequence, e.State, e.StepState = first.ID, first.Sequence+1, task.Running, task.StepLost
	ch.Events, ch.Task.Sequence = []task.Event{e}, e.Sequence
	b.must(b.SaveTasks(b.Context(), ch))
	b.pause()
	want := ch.Task
	want.Spec, want.CreatedBy, want.Roles, want.CreateTime = first.Spec, first.CreatedBy, first.Roles, first.CreateTime
	b.taskIs(want)
	list, err := b.Tasks(b.Context(), task.Filter{})
	b.must(err)
	if len(list) != 1 {
		b.Fatalf("%d tasks", len(list))
	}
	b.sameTask(list[0], want)
	events, err := b.TaskEvents(b.Context(), first.ID, first.Sequence, 10)
	b.must(err)
	utc(reflect.ValueOf(&e).Elem())
	if len(events) != 1 || !reflect.DeepEqual(events[0], e) {
		b.Fatalf("event differs\n got %s\nwant %s", text(events), text(e))
	}

	// All that can go is gone again.
	third := task.Task{ID: first.ID, Version: want.Version + 1, State: task.Queued, Sequence: want.Sequence, Spec: want.Spec, Steps: want.Clone().Steps}
	ch = task.Change{Task: third, Runs: ch.Runs, Steps: ch.Steps}
	for i := range third.Steps {
		third.Steps[i].Line, third.Steps[i].Argv, third.Steps[i].Timeout = "", nil, 0
		for j := range third.Steps[i].Runs {
			third.Steps[i].Runs[j] = task.Run{Host: want.Steps[i].Runs[j].Host, State: task.StepPending}
		}
	}
	b.must(b.SaveTasks(b.Context(), ch))
	b.pause()
	third.CreatedBy, third.Roles, third.CreateTime = want.CreatedBy, want.Roles, want.CreateTime
	b.taskIs(third)
}

func taskRequests(b *bench) {
	ctx := b.Context()
	ask := func(t task.Task, hash string) (task.Task, bool, error) {
		ch := b.happens(&t, 1)
		ch.Task, ch.Audit = t, []audit.Entry{b.entry(audit.TaskSubmitted, t.ID)}
		return b.CreateTask(ctx, ch, []byte(hash))
	}
	named := func(t *task.Task) { t.Spec.RequestID = "once" }
	first, created, err := ask(b.task(named), "x")
	b.must(err)
	if !created {
		b.Fatal("it was there")
	}
	first = b.goesOn(first)
	told := b.chain()
	b.pause()
	replay := func(principal, id, hash string, now time.Time) (task.Task, bool, error) {
		return b.ReplayTask(ctx, principal, id, []byte(hash), now)
	}
	late := first.CreateTime.Add(store.RequestIDLife)
	for _, now := range []time.Time{first.CreateTime, late.Add(-time.Microsecond)} {
		again, found, err := replay("ann", "once", "x", now)
		b.must(err)
		if !found {
			b.Fatal("the request is not known")
		}
		b.sameTask(again, first)
		_, found, err = replay("ann", "once", "y", now)
		if e := b.fails(err, fault.AlreadyExists, fault.ReasonRequestIDReused); found || e.Metadata["task_id"] != first.ID {
			b.Fatalf("%+v", e)
		}
	}
	for _, none := range []struct {
		principal, id string
		now           time.Time
	}{{"bob", "once", b.now}, {"ann", "twice", b.now}, {"ann", "", b.now}, {"ann", "once", late}} {
		for _, hash := range []string{"x", "y"} {
			if again, found, err := replay(none.principal, none.id, hash, none.now); err != nil || found || again.ID != "" {
				b.Fatalf("%+v: %v, %v, %v", none, again, found, err)
			}
		}
	}
	b.tells(told)
	again, created, err := ask(b.task(named), "x")
	b.must(err)
	if created {
		b.Fatal("it was made twice")
	}
	b.sameTask(again, first)
	_, _, err = ask(b.task(named), "y")
	if e := b.fails(err, fault.AlreadyExists, fault.ReasonRequestIDReused); e.Metadata["task_id"] != first.ID {
		b.Fatalf("%+v", e)
	}
	b.tells(told)
	// Another principal's, and another day's, is another one.
	for _, more := range []func(*task.Task){
		func(t *task.Task) { t.CreatedBy.Principal = "bob" },
		func(t *task.Task) {
			b.now = b.now.Add(store.RequestIDLife)
			t.CreateTime, t.ID = b.now, newID(b.now)
		},
	} {
		if _, created, err := ask(b.task(named, more), "y"); err != nil || !created {
			b.Fatalf("%v, %v", created, err)
		}
	}
}

// taskVersions saves what is newer than what is stored, all or none.
func taskVersions(b *bench) {
	ctx := b.Context()
	one, other := b.submit(b.task()), b.submit(b.task())
	told := b.chain()
	refuses := func(want fault.Kind, reason string, changes ...task.Change) {
		b.Helper()
		for i := range changes {
			changes[i].Audit = []audit.Entry{b.entry(audit.TaskEnded, "refused")}
		}
		b.fails(b.SaveTasks(ctx, changes...), want, reason)
		b.tells(told)
		b.taskIs(one)
		b.taskIs(other)
	}
	newer := func(t task.Task) task.Change {
		t.Version++
		t.Outcome = task.Failed
		return task.Change{Task: t}
	}
	gap := newer(one)
	gap.Task.Sequence++
	strange := newer(b.task())
	for range 2 {
		refuses(fault.Aborted, "", newer(other), task.Change{Task: one})
		refuses(fault.Aborted, "", newer(other), gap)
		refuses(fault.NotFound, fault.ReasonUnknownTask, newer(other), strange)
		b.pause()
	}
	a, c := newer(one), newer(other)
	b.must(b.SaveTasks(ctx, a, c))
	b.pause()
	b.taskIs(a.Task)
	b.taskIs(c.Task)
	b.must(b.SaveTasks(ctx))

	errs := together(20, func(i int) error {
		next := newer(a.Task)
		next.Events, next.Task.Sequence = []task.Event{{Task: one.ID, Sequence: one.Sequence + 1, Step: i}}, one.Sequence+1
		return b.SaveTasks(ctx, next)
	})
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			b.fails(err, fault.Aborted, "")
		}
	}
	events, err := b.TaskEvents(ctx, one.ID, 0, 100)
	b.must(err)
	if won != 1 || int64(len(events)) != one.Sequence+1 {
		b.Fatalf("%d have saved, there are %d events", won, len(events))
	}
	_, err = b.Task(ctx, newID(b.now))
	b.fails(err, fault.NotFound, fault.ReasonUnknownTask)
}

func taskEvents(b *bench) {
	ctx := b.Context()
	t := b.submit(b.task())
	for range 30 {
		t = b.goesOn(t)
	}
	b.pause()
	for _, after := range []int64{0, 1, 17, t.Sequence - 1, t.Sequence, t.Sequence + 5} {
		for _, limit := range []int{1, 7, 100} {
			events, err := b.TaskEvents(ctx, t.ID, after, limit)
			b.must(err)
			if want := max(0, min(int64(limit), t.Sequence-after)); int64(len(events)) != want {
				b.Fatalf("%d events behind %d, want %d", len(events), after, want)
			}
			for i, e := range events {
				if e.Sequence != after+1+int64(i) || e.Message != fmt.Sprint("event ", e.Sequence) || e.Task != t.ID || e.Exit != nil || e.Place != nil || e.Failure != nil {
					b.Fatalf("%s behind %d", text(e), after)
				}
			}
		}
	}
	if events, err := b.TaskEvents(ctx, newID(b.now), 0, 10); err != nil || len(events) > 0 {
		b.Fatalf("%v, %v", events, err)
	}
}

// taskLists compares lists with what a filter says, for all kinds of filters.
func taskLists(b *bench) {
	r := rand.New(rand.NewPCG(8, 8))
	var all []task.Task
	for i := range 120 {
		all = append(all, b.submit(b.task(func(t *task.Task) {
			t.State = task.States[r.IntN(len(task.States))]
			t.CreatedBy.Principal = []string{"ann", "bob", "eve"}[r.IntN(3)]
			t.Spec.ConversationID = []string{"", "", "talk"}[r.IntN(3)]
			if i%3 == 0 {
				t.Spec.Labels = map[string]string{"team": []string{"db", "web"}[r.IntN(2)], "x": "y"}
			}
		})))
	}
	b.pause()
	slices.Reverse(all)
	for i, f := range []task.Filter{
		{}, {States: []task.State{task.Queued, task.Failed}}, {Principal: "bob"}, {Visible: "ann"}, {Visible: "ann", Principal: "bob"},
		{ConversationID: "talk"}, {Labels: map[string]string{"team": "db", "x": "y"}}, {Labels: map[string]string{"team": "none"}},
		{From: all[80].CreateTime, To: all[20].CreateTime}, {From: all[3].CreateTime}, {States: task.States, Visible: "eve", To: all[50].CreateTime},
	} {
		var want []string
		for _, t := range all {
			if (len(f.States) == 0 || slices.Contains(f.States, t.State)) && (f.Principal == "" || f.Principal == t.CreatedBy.Principal) &&
				(f.Visible == "" || f.Visible == t.CreatedBy.Principal) && (f.ConversationID == "" || f.ConversationID == t.Spec.ConversationID) &&
				(f.From.IsZero() || !t.CreateTime.Before(f.From)) && (f.To.IsZero() || t.CreateTime.Before(f.To)) && labelled(t.Spec.Labels, f.Labels) {
				want = append(want, t.ID)
			}
		}
		for _, page := range []int{0, 1, 7, 500} {
			f := f
			f.Limit = page
			var got []string
			for {
				list, err := b.Tasks(b.Context(), f)
				b.must(err)
				for _, t := range list {
					got = append(got, t.ID)
				}
				if page == 0 || len(list) < page {
					break
				}
				f.Before = list[len(list)-1].ID
			}
			if !slices.Equal(got, want) {
				b.Fatalf("filter %d by %d: %d tasks, want %d", i, page, len(got), len(want))
			}
		}
		for _, offset := range []int{1, 10, 200} {
			for _, limit := range []int{0, 5} {
				f := f
				f.Offset, f.Limit = offset, limit
				list, err := b.Tasks(b.Context(), f)
				b.must(err)
				rest := want[min(offset, len(want)):]
				if limit > 0 {
					rest = rest[:min(limit, len(rest))]
				}
				if !slices.EqualFunc(list, rest, func(t task.Task, id string) bool { return t.ID == id }) {
					b.Fatalf("filter %d, offset %d, limit %d: %d tasks, want %s", i, offset, limit, len(list), strings.Join(rest, " "))
				}
			}
		}
	}
}

// largeTasks pages over tasks of many bytes: a page ends with the one that makes it too
// large, but never with the first, and the next one goes on behind it.
func largeTasks(b *bench) {
	much := strings.Repeat("x", store.TasksBytes/4+1)
	var want []string
	for _, more := range []func(t *task.Task){
		func(t *task.Task) { t.Spec.Text = much },
		func(t *task.Task) { t.Spec.Context = map[string]string{"a": much} },
		func(t *task.Task) { t.Spec.Steps[0].Line = much },
		func(t *task.Task) { t.Spec.Steps[1].Undo = much },
		func(t *task.Task) { t.Spec.Steps[1].Argv = []string{"x", much} },
		func(t *task.Task) { t.Steps[0].Line = much },
		func(t *task.Task) { t.Steps[1].Argv = []string{"x", much} },
		func(t *task.Task) { t.Spec.Text = "small" },
		func(t *task.Task) { t.Spec.Text = strings.Repeat(much, 5) },
		func(t *task.Task) { t.Spec.Text = strings.Repeat(much, 6) },
		func(t *task.Task) { t.Spec.Text = strings.Repeat(much, 7) },
		func(t *task.Task) { t.Spec.Text = "small too" },
	} {
		want = append(want, b.submit(b.task(more)).ID)
	}
	slices.Reverse(want)
	b.pause()
	page := func(f task.Filter) (ids []string) {
		list, err := b.Tasks(b.Context(), f)
		b.must(err)
		for _, t := range list {
			ids = append(ids, t.ID)
		}
		return ids
	}
	// From the newest on, in fourths of what is still no page: 0 7 | 6 5 | 0 1 1 1 1 | 1 1 1.
	for limit, sizes := range map[int][]int{1: {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 2: {2, 2, 2, 2, 2, 2}, 3: {2, 2, 3, 3, 2}, 100: {2, 2, 5, 3}} {
		var got []string
		var pages []int
		for f := (task.Filter{Limit: limit}); ; f.Before = got[len(got)-1] {
			ids := page(f)
			if len(ids) == 0 {
				break
			}
			got, pages = append(got, ids...), append(pages, len(ids))
		}
		if !slices.Equal(got, want) || !slices.Equal(pages, sizes) {
			b.Errorf("by %d: %d tasks in pages of %d, want %d in pages of %d", limit, len(got), pages, len(want), sizes)
		}
	}
	if got := page(task.Filter{Limit: 10, Offset: 4}); !slices.Equal(got, want[4:9]) {
		b.Errorf("behind 4: %d tasks", len(got))
	}
	// Who sets no limit gets all.
	if got := page(task.Filter{}); !slices.Equal(got, want) {
		b.Errorf("%d tasks without a limit", len(got))
	}
}

func labelled(has, asked map[string]string) bool {
	for k, v := range asked {
		if has[k] != v {
			return false
		}
	}
	return true
}

// tasksGo has retention delete tasks that have ended long ago, with all that is theirs.
func tasksGo(b *bench) {
	ctx := b.Context()
	old := func(t *task.Task) {
		t.State, t.EndTime = task.Completed, b.now
		t.Spec.RequestID, t.Spec.Labels = "r"+t.ID, map[string]string{"a": "b"}
	}
	var gone []task.Task
	for range 7 {
		gone = append(gone, b.submit(b.task(old)))
	}
	undone := b.submit(b.task(old, func(t *task.Task) { t.State, t.EndTime = task.Undoing, time.Time{} }))
	runs := b.submit(b.task())
	b.now = b.now.Add(48 * time.Hour)
	young := b.submit(b.task(old))
	b.pause()
	round := command.Retention{Now: b.now.Add(time.Hour), DeleteAfter: 24 * time.Hour, Batch: 5, InUse: func(id string) bool { return id == gone[0].ID }}
	if done := b.retain(round); done.Tasks != 5 || !done.More {
		b.Fatalf("%+v", done)
	}
	b.pause()
	if done := b.retain(round); done.Tasks != 1 {
		b.Fatalf("%+v", done)
	}
	for _, t := range []task.Task{gone[0], undone, runs, young} {
		b.taskIs(t)
	}
	for _, t := range gone[1:] {
		_, err := b.Task(ctx, t.ID)
		b.fails(err, fault.NotFound, fault.ReasonUnknownTask)
		if events, err := b.TaskEvents(ctx, t.ID, 0, 10); err != nil || len(events) > 0 {
			b.Fatalf("%v, %v", events, err)
		}
	}
	if list, err := b.Tasks(ctx, task.Filter{Labels: map[string]string{"a": "b"}}); err != nil || len(list) != 3 {
		b.Fatalf("%d tasks, %v", len(list), err)
	}
}

// taskUndoneMeanwhile has the undo of a task begin when retention has selected it and
// not yet deleted it; another one is undone already, and ends anew.
func taskUndoneMeanwhile(b *bench) {
	ended := func(t *task.Task) { t.State, t.EndTime = task.Completed, b.now }
	gone, undone, again := b.submit(b.task(ended)), b.submit(b.task(ended)), b.submit(b.task(ended))
	b.now = b.now.Add(48 * time.Hour)
	begin := map[string]func(){
		undone.ID: func() {
			undone.State, undone.EndTime = task.Undoing, time.Time{}
			undone = b.goesOn(undone)
		},
		again.ID: func() {
			again.State, again.EndTime = task.Undone, b.now
			again = b.goesOn(again)
		},
	}
	done := b.retain(command.Retention{Now: b.now, DeleteAfter: 24 * time.Hour, InUse: func(id string) bool {
		if now := begin[id]; now != nil {
			now()
		}
		return false
	}})
	b.pause()
	b.taskIs(undone)
	b.taskIs(again)
	_, err := b.Task(b.Context(), gone.ID)
	b.fails(err, fault.NotFound, fault.ReasonUnknownTask)
	if done.Tasks != 1 || done.More {
		b.Fatalf("%+v", done)
	}
}

// taskCalls calls what is about tasks, each in a way that would succeed, or not fail so.
func (b *bench) taskCalls(ctx context.Context) []error {
	t := b.task()
	_, _, create := b.CreateTask(ctx, task.Change{Task: t}, nil)
	_, _, replay := b.ReplayTask(ctx, "ann", "once", nil, b.now)
	_, one := b.Task(ctx, t.ID)
	_, list := b.Tasks(ctx, task.Filter{Limit: 1})
	_, events := b.TaskEvents(ctx, t.ID, 0, 1)
	return []error{create, replay, b.SaveTasks(ctx, task.Change{Task: t}), one, list, events}
}
