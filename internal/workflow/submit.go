package workflow

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/task"
)

// Place is where a step is to run: one host, several, those with labels, or a session.
type Place struct {
	Hosts   []string
	Single  bool // it was given as the one host
	Labels  map[string]string
	Session string
}

// Plan is a task that is submitted: its Spec, and where each step is to run.
type Plan struct {
	Spec   task.Spec
	Places []Place // as many as there are steps
}

// parallelDefault is on how many hosts a step runs at once where nobody says.
const parallelDefault = 10

// Submit stores a task: when it returns, the task is stored and will run, whatever
// happens to the caller. What would be refused later is refused now, with the step and
// the field: INVALID_REQUEST, UNKNOWN_HOST, POLICY_DENIED, EMPTY_COMMAND, ROLE_MISSING,
// QUEUE_FULL. With a request id that the same principal used before for the same content
// it gives that task, and replayed is true. With look nothing is stored.
func (w *Workflow) Submit(ctx context.Context, by access.Caller, p Plan, look bool) (v View, replayed bool, err error) {
	if err := w.Rights.May(by, access.Start, access.Thing{Owner: by.Name}); err != nil {
		return View{}, false, err
	}
	now := time.Now()
	t := task.Task{
		Version: 1, State: task.Queued, Spec: p.Spec, CreatedBy: by.Actor(), Roles: by.RoleNames(), CreateTime: now,
	}
	hash := contentHash(p)
	err = bounded(&p.Spec)
	if err == nil {
		err = w.lay(ctx, by, &t, p.Places)
	}
	if look {
		return View{Task: t}, false, err
	}
	if err == nil {
		err = w.admit()
	}
	if err != nil {
		return w.replay(ctx, by, &p.Spec, hash, err)
	}
	t.ID = w.Commands.NewID()
	l := newLive(w, t)
	l.now = now
	l.tell(task.Event{Type: task.StatusChange, Step: -1, State: task.Queued, Message: fmt.Sprintf("%s has submitted the task", by.Name)})
	ch := l.ch
	ch.Task = l.t.Clone()
	ch.Audit = []audit.Entry{l.entry(audit.TaskSubmitted, audit.Entry{Address: by.Address, Call: by.Call, Detail: t.Spec.Text, Count: len(t.Steps)})}
	l.ch = task.Change{}
	stored, created, err := w.Journal.CreateTask(context.WithoutCancel(ctx), ch, hash)
	if err != nil && l.stored(ctx, &ch) {
		stored, created, err = ch.Task, true, nil
	}
	switch {
	case err != nil:
		return View{}, false, err
	case !created:
		v, err := w.read(ctx, stored.ID)
		return v, true, err
	}
	l.publish(&ch) // before its owner tells more
	w.mu.Lock()
	if w.ctx != nil && w.ctx.Err() == nil { // else the next run finds it
		w.add(l)
		w.grant()
	}
	w.mu.Unlock()
	return w.view(l), false, nil
}

// replay gives the task that a request id names already, or else refused: what was accepted
// once is answered again, whatever holds now.
func (w *Workflow) replay(ctx context.Context, by access.Caller, s *task.Spec, hash []byte, refused error) (View, bool, error) {
	if s.RequestID == "" {
		return View{}, false, refused
	}
	stored, found, err := w.Journal.ReplayTask(ctx, by.Name, s.RequestID, hash, time.Now())
	switch {
	case err != nil:
		return View{}, false, err
	case !found:
		return View{}, false, refused
	}
	v, err := w.read(ctx, stored.ID)
	return v, true, err
}

// admit is an error where no task is taken.
func (w *Workflow) admit() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx == nil || w.ctx.Err() != nil {
		return draining()
	}
	if n := len(w.queue.waiting); n >= w.Limits.Queued {
		return fault.New(fault.Exhausted, fault.ReasonQueueFull, "%d tasks wait, which is the limit", n).
			WithHint("Try again when some have ended, with the same request_id").WithRetry(time.Minute)
	}
	return nil
}

// contentHash stands for all that was asked for.
func contentHash(p Plan) []byte {
	p.Spec.RequestID = ""
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // it has nothing that JSON cannot have
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// planMost is how many bytes the texts of a plan have at most: those that wait are held in
// memory.
const planMost = 256 << 10

// bounded is an error where a plan is too large.
func bounded(s *task.Spec) error {
	n := len(s.Text)
	for k, v := range s.Context {
		n += len(k) + len(v)
	}
	for i := range s.Steps {
		n += len(s.Steps[i].Line) + len(s.Steps[i].Undo)
		for _, a := range s.Steps[i].Argv {
			n += len(a)
		}
	}
	if n > planMost {
		return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the plan has %d bytes of text; the limit is %d", n, planMost).
			WithHint("Put long scripts into files on the hosts, or submit it as several tasks").With("field", "steps")
	}
	return nil
}

// lay fills in the runs of a task and what was left out, and sees whether it can run.
func (w *Workflow) lay(ctx context.Context, by access.Caller, t *task.Task, places []Place) error {
	t.Spec.Steps = slices.Clone(t.Spec.Steps)
	names := make(map[string]int)
	runs := 0
	for i := range t.Spec.Steps {
		s := &t.Spec.Steps[i]
		if s.Name == "" {
			s.Name = fmt.Sprintf("step %d", i+1)
		}
		if first, taken := names[s.Name]; taken {
			return wrong(i, s.Name, "name", "step %d has the name %q already", first+1, s.Name).WithHint("Give each step a name of its own")
		}
		names[s.Name] = i
		if s.OnFailure == "" {
			s.OnFailure = task.Stop
		}
		if s.Rollout.Parallel == 0 {
			s.Rollout.Parallel = parallelDefault
		}
		hosts, err := w.hosts(i, s, places[i])
		if err != nil {
			return err
		}
		if s.Rollout.Canary > 0 && s.Rollout.Canary >= len(hosts) {
			return wrong(i, s.Name, "rollout.canary", "%d canaries leave no host for later: the step runs on %d", s.Rollout.Canary, len(hosts)).
				WithHint("Give fewer canaries, or none")
		}
		s.Session = places[i].Session
		step := task.Step{}
		for _, h := range hosts {
			step.Runs = append(step.Runs, task.Run{Host: h, State: task.StepPending})
		}
		t.Steps = append(t.Steps, step)
		if runs += len(hosts); runs > task.MaxRuns {
			return wrong(i, s.Name, "hosts", "with this step the task has %d commands; the limit is %d", runs, task.MaxRuns).
				WithHint("Submit it as several tasks")
		}
	}
	for _, r := range t.Refs() {
		if err := w.judge(ctx, by, t, r); err != nil {
			return err
		}
	}
	return nil
}

// hosts gives where a step runs, in its order; the name is empty in a session, whose host
// the session knows.
func (w *Workflow) hosts(i int, s *task.StepSpec, p Place) ([]string, error) {
	switch {
	case p.Session != "":
		return []string{""}, nil
	case len(p.Labels) == 0:
		for _, name := range p.Hosts {
			if _, err := w.Hosts.Lookup(name); err != nil {
				f := fault.From(err)
				field := "hosts"
				if p.Single {
					field = "host"
				}
				return nil, wrong(i, s.Name, field, "%s", f.Message).as(f)
			}
		}
		return p.Hosts, nil
	}
	var names []string
	for _, h := range w.Hosts.List() {
		if labelled(h, p.Labels) {
			names = append(names, h.Name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		var asked []string
		for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
			asked = append(asked, k+"="+p.Labels[k])
		}
		return nil, wrong(i, s.Name, "host_labels", "no host has %s", strings.Join(asked, ", ")).WithHint("telexec hosts shows the labels of each")
	}
	return names, nil
}

func labelled(h inventory.Host, labels map[string]string) bool {
	for k, v := range labels {
		if has, ok := h.Labels[k]; !ok || has != v {
			return false
		}
	}
	return true
}

// judge sees whether a run, and what takes it back, would be let run now.
func (w *Workflow) judge(ctx context.Context, by access.Caller, t *task.Task, r task.Ref) error {
	s := &t.Spec.Steps[r.Step]
	for _, one := range []struct {
		field string
		spec  command.Spec
	}{{"command", specOf(t, r)}, {"undo", undoOf(t, r)}} {
		if one.field == "undo" && s.Undo == "" {
			continue
		}
		spec, err := command.NewSpec(one.spec)
		if err == nil {
			err = w.Commands.Judge(ctx, by, spec)
		}
		if err != nil {
			f := fault.From(err)
			return wrong(r.Step, s.Name, one.field, "%s %s", f.Message, t.Where(r)).as(f)
		}
	}
	return nil
}

// refusal is a fault about one field of one step.
type refusal struct{ *fault.Error }

func wrong(step int, name, field, format string, args ...any) refusal {
	return refusal{fault.New(fault.Invalid, fault.ReasonInvalidRequest, "step %q: "+format, append([]any{name}, args...)...).
		With("field", fmt.Sprintf("steps[%d].%s", step, field)).With("step", name)}
}

// as gives the refusal the kind, reason and hint of what it comes of.
func (r refusal) as(f *fault.Error) *fault.Error {
	r.Kind, r.Reason, r.Hint, r.RetryAfter = f.Kind, f.Reason, f.Hint, f.RetryAfter
	for k, v := range f.Metadata {
		r.With(k, v)
	}
	return r.Error
}
