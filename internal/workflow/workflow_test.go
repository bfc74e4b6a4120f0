package workflow_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/store/sqlite"
	"github.com/telexec/telexec/internal/task"
	"github.com/telexec/telexec/internal/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ann = who("ann", access.RoleOperator)
	bob = who("bob", access.RoleOperator)
	adm = who("adm", access.RoleAdmin)
)

func who(name string, roles ...access.Role) access.Caller {
	return access.Caller{Principal: access.Principal{Name: name, Roles: roles}, Origin: command.OriginGRPC}
}

// service is a Workflow that runs, on a store of its own.
type service struct {
	*workflow.Workflow
	t     testing.TB
	field *field
	store *sqlite.Store
	stop  func()
}

var usual = workflow.Limits{Running: 4, Queued: 100, Approval: time.Hour, History: time.Hour}

func start(t testing.TB, hosts int, limits workflow.Limits) *service {
	t.Helper()
	return serve(t, newField(t, hosts), openStore(t), limits)
}

func openStore(t testing.TB) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), sqlite.Options{Key: seal.NewKey(bytes.Repeat([]byte{7}, seal.KeySize)), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func serve(t testing.TB, f *field, st *sqlite.Store, limits workflow.Limits) *service {
	t.Helper()
	return serveOn(t, f, f, st, limits)
}

// serveOn has commands run by what stands before the field.
func serveOn(t testing.TB, f *field, commands workflow.Commands, j workflow.Journal, limits workflow.Limits) *service {
	t.Helper()
	st, _ := j.(*sqlite.Store)
	if c, crashes := j.(*crash); crashes {
		st = c.Store
	}
	s := &service{t: t, field: f, store: st, Workflow: workflow.New(workflow.Options{
		Journal: j, Commands: commands, Hosts: f, Limits: limits, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	<-s.Ready()
	return s
}

// again is the next run of the service.
func (s *service) again() *service {
	s.t.Helper()
	s.stop()
	return serve(s.t, s.field, s.store, usual)
}

// plan gives a plan of steps, each written as "line on hosts; undo=…; gate; …".
func plan(steps ...string) workflow.Plan {
	p := workflow.Plan{Spec: task.Spec{Text: "roll out"}}
	for _, text := range steps {
		head, rest, _ := strings.Cut(text, ";")
		line, hosts, _ := strings.Cut(head, " on ")
		s, at := task.StepSpec{Line: line}, workflow.Place{}
		if hosts == "all" {
			at.Labels = map[string]string{"env": "prod"}
		} else {
			at.Hosts = strings.Fields(hosts)
		}
		for flag := range strings.SplitSeq(rest, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(flag), "=")
			n := 0
			fmt.Sscan(value, &n)
			switch key {
			case "undo":
				s.Undo = value
			case "gate":
				s.NeedsApproval = true
			case "canary":
				s.Rollout.Canary = n
			case "parallel":
				s.Rollout.Parallel = n
			case "retry":
				s.Retry = task.Retry{Times: n, Backoff: time.Millisecond}
			case "continue":
				s.OnFailure = task.Continue
			case "takeback":
				s.OnFailure = task.TakeBack
			}
		}
		p.Spec.Steps, p.Places = append(p.Spec.Steps, s), append(p.Places, at)
	}
	return p
}

func (s *service) submit(by access.Caller, steps ...string) string {
	s.t.Helper()
	v, _, err := s.Submit(s.t.Context(), by, plan(steps...), false)
	if err != nil {
		s.t.Fatal(err)
	}
	return v.ID
}

// until waits until a task is like that.
func (s *service) until(id, what string, is func(workflow.View) bool) workflow.View {
	s.t.Helper()
	ctx, stop := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer stop()
	v, late, err := s.Await(ctx, adm, id, is)
	if err != nil {
		s.t.Fatal(err)
	}
	if late || !is(v) {
		s.t.Fatalf("in vain: %s; it is %s", what, v.State)
	}
	return v
}

func (s *service) ends(id string, want task.State) workflow.View {
	s.t.Helper()
	v := s.until(id, "its end", workflow.View.Ended)
	if v.State != want {
		s.t.Fatalf("it is %s, %+v, want %s", v.State, v.Failure, want)
	}
	return v
}

// events gives all events of a task, which are numbered without a gap.
func (s *service) events(id string) (all []task.Event) {
	s.t.Helper()
	all, err := s.store.TaskEvents(s.t.Context(), id, 0, 10_000)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, e := range all {
		if e.Sequence != int64(i)+1 {
			s.t.Fatalf("event %d has number %d", i+1, e.Sequence)
		}
	}
	return all
}

func TestSteps(t *testing.T) {
	s := start(t, 3, usual)
	id := s.submit(ann, "ok a on h00", "ok b on h00 h01 h02; parallel=1", "ok c on h01")
	v := s.ends(id, task.Completed)
	if got := s.field.log(); got != "ok a@h00 ok b@h00 ok b@h01 ok b@h02 ok c@h01" {
		t.Error(got)
	}
	if v.Percent() != 100 || v.StartTime.IsZero() || v.EndTime.Before(v.StartTime) || v.Steps[1].Runs[2].Exit == nil || *v.Steps[1].Runs[2].Exit != 0 {
		t.Errorf("%+v", v)
	}
	var types []string
	for _, e := range s.events(id) {
		if e.Type != task.StepProgress { // which goes by the clock
			types = append(types, string(e.Type))
		}
	}
	want := "status_change status_change step_start step_start step_complete step_complete " +
		"step_start step_start step_complete step_start step_complete step_start step_complete step_complete " +
		"step_start step_start step_complete step_complete status_change completed"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	rows, err := s.store.AuditRows(t.Context(), audit.Filter{Limit: 10})
	if err != nil || len(rows) != 2 {
		t.Errorf("%d entries in the audit, %v", len(rows), err)
	}
}

func TestStepThatFails(t *testing.T) {
	s := start(t, 20, usual)
	// One canary of twenty hosts fails: nothing else is touched.
	v := s.ends(s.submit(ann, "fail on all; canary=1"), task.Failed)
	if got := s.field.log(); got != "fail@h00" || v.Failure.Reason != fault.ReasonStepFailed || !strings.Contains(v.Failure.Message, "h00: it has exited with code 3") {
		t.Errorf("%s, %+v", got, v.Failure)
	}
	// What was done is taken back, the last first.
	id := s.submit(ann, "ok 1 on h00; undo=undo 1", "ok 2 on h01; undo=undo 2", "ok 3 on h02; undo=undo 3", "fail 4 on h00; takeback; undo=undo 4")
	v = s.ends(id, task.Undone)
	if got := s.field.log(); got != "ok 1@h00 ok 2@h01 ok 3@h02 fail 4@h00 undo 3@h02 undo 2@h01 undo 1@h00" {
		t.Error(got)
	}
	if v.Outcome != task.Failed || !v.Undo.Automatic || v.Undo.By.Principal != "ann" || v.Steps[0].UndoState() != task.UndoDone || v.Steps[3].UndoState() != task.UndoUnknown {
		t.Errorf("%+v", v.Undo)
	}
	// Tried again where it says so.
	v = s.ends(s.submit(ann, "fail again on h00; retry=2; continue", "ok then on h01"), task.Completed)
	if got := s.field.log(); got != "fail again@h00 fail again@h00 fail again@h00 ok then@h01" || len(v.Steps[0].Runs[0].Earlier) != 2 {
		t.Errorf("%s, %+v", got, v.Steps[0].Runs[0])
	}
	// Rules that have changed refuse it at its turn: there is no command then.
	p := plan("hold on h00", "ok later on h00")
	late, _, err := s.Submit(t.Context(), ann, p, false)
	if err != nil {
		t.Fatal(err)
	}
	s.field.of("hold", "h00")
	s.field.mu.Lock()
	s.field.trouble = func(doing, _ string) error {
		if doing == "start" {
			return fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "denied by now").WithHint("Ask")
		}
		return nil
	}
	s.field.mu.Unlock()
	s.field.ends("hold", "h00", 0)
	v = s.ends(late.ID, task.Failed)
	if r := v.Steps[1].Runs[0]; r.Failure.Reason != fault.ReasonPolicyDenied || r.Command != "" {
		t.Errorf("%+v", r)
	}
	s.field.mu.Lock()
	s.field.trouble = nil
	s.field.mu.Unlock()
	// What is not known stops it.
	v = s.ends(s.submit(ann, "silent on h00", "ok on h00"), task.Failed)
	if v.Steps[0].State() != task.StepLost || v.Steps[0].Runs[0].Failure.Reason != fault.ReasonNoExitCode {
		t.Errorf("%+v", v.Steps[0])
	}
}

func TestGate(t *testing.T) {
	s := start(t, 3, usual)
	id := s.submit(ann, "ok 1 on h00", "hold 2 on h00 h01 h02; gate; undo=undo 2", "ok 3 on h00")
	v := s.until(id, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
	c := s.field.of("hold 2", "h00")
	if ref := c.Spec.Task; ref.Gate != usual.Approval || len(ref.Hosts) != 3 || ref.Undo != "undo 2" || ref.ID != id || ref.Name != "step 2" || v.Steps[1].State() != task.StepAwaiting {
		t.Errorf("%+v", ref)
	}
	if !slices.ContainsFunc(s.events(id), func(e task.Event) bool { return e.Type == task.ApprovalRequest && e.Command == c.ID && e.Step == 1 }) {
		t.Error("nobody was told")
	}
	s.field.decides("hold 2", "h00", true, "hold instead")
	for _, h := range []string{"h01", "h02"} {
		if other := s.field.of("hold instead", h); other.Spec.Task.Under != c.ID {
			t.Errorf("%+v", other.Spec.Task)
		}
	}
	for _, h := range []string{"h00", "h01", "h02"} {
		s.field.ends("hold instead", h, 0)
	}
	v = s.ends(id, task.Completed)
	if v.Steps[1].Line != "hold instead" {
		t.Errorf("%+v", v.Steps[1])
	}
	// And no is for all of them.
	id = s.submit(ann, "hold on h00 h01; gate", "ok on h00")
	s.until(id, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
	s.field.decides("hold", "h00", false, "")
	v = s.ends(id, task.Failed)
	if v.Steps[0].Runs[1].State != task.StepSkipped || v.Steps[1].State() != task.StepSkipped {
		t.Errorf("%+v", v.Steps)
	}
}

func TestSubmitIsRefused(t *testing.T) {
	s := start(t, 3, workflow.Limits{Running: 1, Queued: 1, Approval: time.Hour, History: time.Hour})
	ctx := t.Context()
	for name, tc := range map[string]struct {
		p             workflow.Plan
		reason, field string
	}{
		"an unknown host":  {plan("ok on h00", "ok on h00 nowhere"), fault.ReasonUnknownHost, "steps[1].hosts"},
		"a denied command": {plan("ok on h00", "denied on h01"), fault.ReasonPolicyDenied, "steps[1].command"},
		"a denied undo":    {plan("ok on h00; undo=denied"), fault.ReasonPolicyDenied, "steps[0].undo"},
		"only canaries":    {plan("ok on h00 h01; canary=2"), fault.ReasonInvalidRequest, "steps[0].rollout.canary"},
		"an empty command": {plan("  on h00"), fault.ReasonEmptyCommand, "steps[0].command"},
		"labels of none": {workflow.Plan{Spec: task.Spec{Steps: []task.StepSpec{{Line: "ok"}}}, Places: []workflow.Place{{Labels: map[string]string{"no": "such"}}}},
			fault.ReasonInvalidRequest, "steps[0].host_labels"},
		"two of one name": {workflow.Plan{Spec: task.Spec{Steps: []task.StepSpec{{Line: "ok", Name: "step 2"}, {Line: "ok"}}}, Places: []workflow.Place{{Hosts: []string{"h00"}}, {Hosts: []string{"h00"}}}},
			fault.ReasonInvalidRequest, "steps[1].name"},
	} {
		_, _, err := s.Submit(ctx, ann, tc.p, false)
		if f := fault.From(err); f.Reason != tc.reason || f.Metadata["field"] != tc.field || f.Hint == "" || !strings.HasPrefix(f.Message, "step ") {
			t.Errorf("%s: %v, %+v", name, err, f)
		}
	}
	_, _, err := s.Submit(ctx, who("vic", access.RoleViewer), plan("ok on h00"), false)
	if fault.ReasonOf(err) != fault.ReasonRoleMissing {
		t.Error(err)
	}
	if v, _, err := s.Submit(ctx, ann, plan("ok on h00"), true); err != nil || v.ID != "" {
		t.Errorf("%+v, %v", v, err)
	}
	if list, err := s.List(ctx, ann, task.Filter{}); err != nil || len(list) > 0 {
		t.Errorf("%d tasks, %v", len(list), err)
	}
	s.submit(ann, "hold on h00")
	s.submit(ann, "ok on h00")
	if _, _, err := s.Submit(ctx, ann, plan("ok on h00"), false); fault.ReasonOf(err) != fault.ReasonQueueFull {
		t.Error(err)
	}
}

func TestRequestID(t *testing.T) {
	s := start(t, 1, usual)
	p := plan("ok on h00")
	p.Spec.RequestID = "once"
	first, replayed, err := s.Submit(t.Context(), ann, p, false)
	if err != nil || replayed {
		t.Fatal(err)
	}
	s.ends(first.ID, task.Completed)
	again, replayed, err := s.Submit(t.Context(), ann, p, false)
	if err != nil || !replayed || again.ID != first.ID || again.State != task.Completed {
		t.Errorf("%+v, %v", again, err)
	}
	p.Spec.Text = "another"
	if _, _, err := s.Submit(t.Context(), ann, p, false); fault.ReasonOf(err) != fault.ReasonRequestIDReused {
		t.Error(err)
	}
}

func TestWhoseItIs(t *testing.T) {
	s := start(t, 1, usual)
	ctx := t.Context()
	id := s.submit(ann, "ok on h00; undo=undo")
	s.ends(id, task.Completed)
	unknown := ulidOf("0")
	for _, one := range []string{id, unknown} {
		for name, err := range map[string]error{
			"get":    errOf(s.Get(ctx, bob, one)),
			"cancel": errOf3(s.Cancel(ctx, bob, one, workflow.Cancel{})),
			"undo":   errOf3(s.Undo(ctx, bob, one, workflow.UndoRequest{})),
			"watch":  errOf3(s.Watch(ctx, bob, one, 0)),
		} {
			if fault.ReasonOf(err) != fault.ReasonAccessDenied {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := s.Get(ctx, adm, unknown); fault.ReasonOf(err) != fault.ReasonUnknownTask {
		t.Error(err)
	}
	for by, want := range map[string]int{"ann": 1, "bob": 0} {
		if list, err := s.List(ctx, who(by, access.RoleOperator), task.Filter{}); err != nil || len(list) != want {
			t.Errorf("%s sees %d, %v", by, len(list), err)
		}
	}
}

func ulidOf(digit string) string { return strings.Repeat(digit, 26) }

func errOf[A any](_ A, err error) error          { return err }
func errOf3[A, B any](_ A, _ B, err error) error { return err }

func TestCancel(t *testing.T) {
	s := start(t, 3, usual)
	ctx := t.Context()
	id := s.submit(ann, "ok 1 on h00; undo=undo 1", "hold 2 on h00 h01; undo=undo 2", "ok 3 on h00")
	s.field.of("hold 2", "h01")
	s.field.log()
	v, already, err := s.Cancel(ctx, ann, id, workflow.Cancel{Reason: "enough"})
	if err != nil || already || v.State != task.Cancelled || v.Cancellation.By.Principal != "ann" || v.Cancellation.Reason != "enough" || v.Steps[2].State() != task.StepSkipped {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, already, err := s.Cancel(ctx, ann, id, workflow.Cancel{}); err != nil || !already {
		t.Errorf("%v, %v", already, err)
	}
	if got := s.field.log(); got != "" {
		t.Errorf("%s has begun", got)
	}
	last := s.events(id)
	if e := last[len(last)-1]; e.Type != task.TaskCancelled {
		t.Errorf("%+v", e)
	}
	// While it waits for its turn, it never begins.
	one := start(t, 1, workflow.Limits{Running: 1, Queued: 10, Approval: time.Hour, History: time.Hour})
	one.submit(ann, "hold on h00")
	waits := one.submit(ann, "ok on h00")
	if v, _, err := one.Cancel(ctx, ann, waits, workflow.Cancel{}); err != nil || v.State != task.Cancelled || !v.StartTime.IsZero() {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestUndo(t *testing.T) {
	s := start(t, 3, usual)
	ctx := t.Context()
	id := s.submit(ann, "ok 1 on h00; undo=undo 1", "ok 2 on h00 h01; undo=hold 2", "ok 3 on h02", "lost 4 on h00; undo=undo 4; continue")
	if _, _, err := s.Undo(ctx, ann, id, workflow.UndoRequest{}); err == nil {
		t.Error("it is undone while it runs")
	} else if reason := fault.ReasonOf(err); reason != fault.ReasonTaskNotEnded && reason != fault.ReasonNothingToUndo {
		t.Error(err)
	}
	before := s.ends(id, task.Completed)
	s.field.log()
	show := func(list []workflow.UndoOf) (text string) {
		for _, u := range list {
			text += fmt.Sprintf("%d.%d %s; ", u.Ref.Step, u.Ref.Run, u.State)
		}
		return text
	}
	v, list, err := s.Undo(ctx, ann, id, workflow.UndoRequest{Preview: true})
	if err != nil || show(list) != "3.0 UNKNOWN; 2.0 NOT_UNDOABLE; 1.0 PENDING; 1.1 PENDING; 0.0 PENDING; " || v.Version != before.Version || s.field.log() != "" {
		t.Fatalf("%s, %v", show(list), err)
	}
	if _, _, err := s.Undo(ctx, ann, id, workflow.UndoRequest{Step: "nothing"}); fault.ReasonOf(err) != fault.ReasonInvalidRequest {
		t.Error(err)
	}
	agent := ann
	agent.Origin = command.OriginMCP
	if _, _, err := s.Undo(ctx, agent, id, workflow.UndoRequest{Unknown: true}); fault.ReasonOf(err) != fault.ReasonPersonNeeded {
		t.Error(err)
	}
	// It is watched and cancelled as the task is.
	if v, _, err = s.Undo(ctx, ann, id, workflow.UndoRequest{Reason: "oops"}); err != nil || v.State != task.Undoing {
		t.Fatalf("%+v, %v", v, err)
	}
	s.field.of("hold 2", "h01")
	if _, _, err := s.Undo(ctx, adm, id, workflow.UndoRequest{}); fault.ReasonOf(err) != fault.ReasonTaskNotEnded {
		t.Error(err)
	}
	if v, _, err = s.Cancel(ctx, adm, id, workflow.Cancel{}); err != nil || v.State != task.UndoFailed || v.Steps[0].UndoState() != task.UndoCancelled {
		t.Fatalf("%+v, %v", v, err)
	}
	// And what is left of it is undone later, with what may have run.
	s.field.log()
	if _, _, err = s.Undo(ctx, ann, id, workflow.UndoRequest{Unknown: true}); err != nil {
		t.Fatal(err)
	}
	s.field.ends("hold 2", "h00", 0)
	s.field.ends("hold 2", "h01", 0)
	v = s.ends(id, task.Undone)
	if got := s.field.log(); !strings.HasPrefix(got, "undo 4@h00 hold 2@h0") || !strings.HasSuffix(got, " undo 1@h00") || v.Outcome != task.Completed {
		t.Errorf("%s, %s", got, v.Outcome)
	}
	if _, _, err := s.Undo(ctx, ann, id, workflow.UndoRequest{}); fault.ReasonOf(err) != fault.ReasonNothingToUndo {
		t.Error(err)
	}
}

// An undo command that rules want approved waits for people, who are told once.
func TestUndoThatWaits(t *testing.T) {
	s := start(t, 1, usual)
	id := s.submit(ann, "ok on h00; undo=ask hold")
	s.ends(id, task.Completed)
	if _, _, err := s.Undo(t.Context(), ann, id, workflow.UndoRequest{}); err != nil {
		t.Fatal(err)
	}
	waits := func(v workflow.View) bool { return v.Steps[0].UndoState() == task.UndoAwaiting }
	s.until(id, "that it waits", waits)
	s = s.again()
	s.until(id, "that it waits", waits)
	v, _, err := s.Cancel(t.Context(), ann, id, workflow.Cancel{})
	if err != nil || v.State != task.Completed || v.Undo.State != task.UndoCancelled || v.Steps[0].UndoState() != task.UndoCancelled {
		t.Fatalf("cancelled: %+v, %v", v, err)
	}
	if _, _, err := s.Undo(t.Context(), ann, id, workflow.UndoRequest{}); err != nil {
		t.Fatal(err)
	}
	s.until(id, "that it waits", waits)
	s.field.decides("ask hold", "h00", true, "")
	s.until(id, "that it runs", func(v workflow.View) bool { return v.Steps[0].UndoState() == task.UndoRunning })
	s.field.ends("ask hold", "h00", 0)
	s.ends(id, task.Undone)
	asked, let := 0, 0
	for _, e := range s.events(id) {
		switch {
		case e.Type == task.ApprovalRequest:
			asked++
		case e.Type == task.StatusChange && e.UndoState == task.UndoRunning && e.Command != "":
			let++
		}
	}
	if asked != 2 || let != 1 { // once for each undo
		t.Errorf("people were told %d times, and that they have let it run %d times", asked, let)
	}
}

// A restart goes on where it was, and nothing runs twice, wherever it comes.
func TestRestart(t *testing.T) {
	s := start(t, 3, usual)
	id := s.submit(ann, "ok 1 on h00", "hold 2 on h00 h01", "ok 3 on h02; gate", "hold 4 on h00; undo=hold undo", "fail 5 on h01; takeback")
	s.field.of("hold 2", "h01")
	s = s.again()
	s.field.ends("hold 2", "h00", 0)
	s = s.again()
	s.field.ends("hold 2", "h01", 0)
	s.until(id, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
	s = s.again()
	s.field.decides("ok 3", "h02", true, "")
	s.field.of("hold 4", "h00")
	s.stop()
	s.field.ends("hold 4", "h00", 0) // while it is away
	s = s.again()
	s.field.of("hold undo", "h00")
	s = s.again()
	s.field.ends("hold undo", "h00", 0)
	s.ends(id, task.Undone)
	if twice := s.field.twice(); len(twice) > 0 {
		t.Errorf("ran twice: %v", twice)
	}
	s.events(id)
}

// The same with a crash at every write to the store, before it and behind it.
func TestCrashes(t *testing.T) {
	for _, behind := range []bool{false, true} {
		for at, crashed := 1, true; crashed; at++ {
			crashed = crashesAt(t, at, behind)
			if at > 100 {
				t.Fatal("a task has more than 100 writes")
			}
		}
	}
}

// crashesAt runs a task that crashes at one write, and reports whether it has come to it.
func crashesAt(t *testing.T, at int, behind bool) (crashed bool) {
	s := start(t, 3, usual)
	c := &crash{Store: s.store, at: at, behind: behind, hit: make(chan struct{})}
	s.stop()
	s = serveOn(t, s.field, s.field, c, usual)
	id := s.submit(ann, "ok 1 on h00; undo=undo 1", "ok 2 on h00 h01 h02; parallel=2; undo=undo 2", "fail 3 on h02; retry=1; takeback")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		select {
		case <-c.hit:
			cancel()
		case <-ctx.Done():
		}
	}()
	if v, _, err := s.Await(ctx, adm, id, workflow.View.Ended); err != nil {
		t.Fatal(err)
	} else if !v.Ended() {
		select {
		case <-c.hit:
			crashed = true
		default:
			t.Fatalf("crash at write %d, behind it %v: it is %s, and has not crashed", at, behind, v.State)
		}
		s.stop()
		s = serve(t, s.field, s.store, usual)
		s.ends(id, task.Undone)
	}
	s.field.mu.Lock()
	for line, n := range s.field.starts {
		if most := map[bool]int{true: 2, false: 1}[line == "fail 3@h02"]; n > most {
			t.Errorf("crash at write %d, behind it %v: %s ran %d times", at, behind, line, n)
		}
	}
	s.field.mu.Unlock()
	s.events(id)
	s.stop()
	return crashed
}

// crash is a journal of which one write never returns.
type crash struct {
	*sqlite.Store
	mu     sync.Mutex
	n, at  int
	behind bool
	hit    chan struct{}
}

func (c *crash) SaveTasks(ctx context.Context, changes ...task.Change) error {
	c.mu.Lock()
	c.n++
	here := c.n == c.at
	dead := c.n > c.at
	c.mu.Unlock()
	gone := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the service was killed")
	switch {
	case dead:
		return gone
	case here && c.behind:
		err := c.Store.SaveTasks(ctx, changes...)
		close(c.hit)
		if err != nil {
			return err
		}
		return gone
	case here:
		close(c.hit)
		return gone
	}
	return c.Store.SaveTasks(ctx, changes...)
}

// Task is not told either, from then on.
func (c *crash) Task(ctx context.Context, id string) (task.Task, error) {
	c.mu.Lock()
	dead := c.n >= c.at
	c.mu.Unlock()
	if dead {
		return task.Task{}, fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the service was killed")
	}
	return c.Store.Task(ctx, id)
}

// Tasks of all priorities with one slot: the order is right, and places are told.
func TestQueue(t *testing.T) {
	s := start(t, 1, workflow.Limits{Running: 1, Queued: 100, Approval: time.Hour, History: time.Hour})
	first := s.submit(ann, "hold first on h00")
	s.field.of("hold first", "h00")
	type one struct {
		id       string
		priority int
	}
	var all []one
	r := rand.New(rand.NewPCG(3, 3))
	for i := range 49 {
		p := plan(fmt.Sprintf("ok %02d on h00", i))
		p.Spec.Priority = r.IntN(3)
		v, _, err := s.Submit(t.Context(), ann, p, false)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one{v.ID, p.Spec.Priority})
	}
	want := slices.Clone(all)
	slices.SortStableFunc(want, func(a, b one) int { return b.priority - a.priority })
	for i, w := range want {
		v, err := s.Get(t.Context(), ann, w.id)
		if err != nil || v.Place == nil || v.Place.Position != i+1 {
			t.Fatalf("%+v, %v; want place %d", v.Place, err, i+1)
		}
	}
	s.field.ends("hold first", "h00", 0)
	s.ends(first, task.Completed)
	began := make([]time.Time, len(want))
	for i, w := range want {
		began[i] = s.ends(w.id, task.Completed).StartTime
	}
	if !slices.IsSortedFunc(began, time.Time.Compare) {
		t.Error("they have not begun in their order")
	}
	last := want[len(want)-1]
	places := map[int]bool{}
	for _, e := range s.events(last.id) {
		if e.Type == task.QueueUpdate {
			places[e.Place.Position] = true
		}
	}
	if len(places) < 5 || !places[1] {
		t.Errorf("it was told the places %v", places)
	}
}

// Places are pushed also where nothing begins: to those whom another one comes before, and
// to those before whom one is cancelled.
func TestPlacesArePushed(t *testing.T) {
	s := start(t, 1, workflow.Limits{Running: 1, Queued: 100, Approval: time.Hour, History: time.Hour})
	s.submit(ann, "hold on h00")
	s.field.of("hold", "h00")
	told := func(id string, want ...int) {
		t.Helper()
		var got []int
		is := func(workflow.View) bool {
			got = nil
			for _, e := range s.events(id) {
				if e.Type == task.QueueUpdate {
					got = append(got, e.Place.Position)
				}
			}
			return slices.Equal(got, want)
		}
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		if _, late, err := s.Await(ctx, adm, id, is); err != nil || late {
			t.Fatalf("it was told %v, want %v; %v", got, want, err)
		}
	}
	first, second := s.submit(ann, "ok on h00"), s.submit(ann, "ok on h00")
	told(first, 1)
	told(second, 2)
	p := plan("ok on h00")
	p.Spec.Priority = 1
	v, _, err := s.Submit(t.Context(), ann, p, false)
	if err != nil {
		t.Fatal(err)
	}
	told(v.ID, 1)
	told(first, 1, 2)
	told(second, 2, 3)
	if _, _, err := s.Cancel(t.Context(), ann, first, workflow.Cancel{}); err != nil {
		t.Fatal(err)
	}
	told(second, 2, 3, 2)
}

// How much of a step is done is told, once a second at most.
func TestProgress(t *testing.T) {
	s := start(t, 2, usual)
	id := s.submit(ann, "hold on h00 h01", "ok on h00")
	s.field.tells("hold", "h00", 50)
	s.until(id, "a quarter of the step", func(v workflow.View) bool { return v.Steps[0].Percent() == 25 && v.Percent() == 12.5 })
	s.field.tells("hold", "h00", 60) // at once behind it, and then nothing more
	s.field.tells("hold", "h01", 20)
	s.until(id, "the last of it", func(v workflow.View) bool { return v.Steps[0].Percent() == 40 })
	var told []task.Event
	for _, e := range s.events(id) {
		if e.Type == task.StepProgress {
			told = append(told, e)
		}
	}
	if len(told) != 2 || told[0].Percent != 25 || told[0].TaskPercent != 12.5 || told[1].Percent != 40 || told[1].Step != 0 || told[1].Time.Sub(told[0].Time) < time.Second {
		t.Errorf("%+v", told)
	}
}

// While a task waits for people another one has its slot.
func TestWhoWaitsForPeopleHasNoSlot(t *testing.T) {
	s := start(t, 1, workflow.Limits{Running: 1, Queued: 100, Approval: time.Hour, History: time.Hour})
	waits := s.submit(ann, "ok 1 on h00; gate", "ok 2 on h00")
	s.until(waits, "that it waits", func(v workflow.View) bool { return v.State == task.AwaitingApproval })
	s.ends(s.submit(ann, "ok 3 on h00"), task.Completed)
	s.field.decides("ok 1", "h00", true, "")
	s.ends(waits, task.Completed)
}

// Whoever watches sees every event once, in its order, however often it comes back.
func TestWatch(t *testing.T) {
	s := start(t, 3, usual)
	r := rand.New(rand.NewPCG(9, 9))
	for range 50 {
		id := s.submit(ann, "ok 1 on h00 h01 h02; parallel=1", "ok 2 on h01", "ok 3 on h02")
		var got []int64
		var over *workflow.View
		for over == nil {
			after := int64(0)
			if len(got) > 0 {
				after = got[len(got)-1]
			}
			w, _, err := s.Watch(t.Context(), ann, id, after)
			if err != nil {
				t.Fatal(err)
			}
			for range 1 + r.IntN(4) { // and it is cut
				e, end, err := w.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if over = end; over != nil {
					break
				}
				got = append(got, e.Sequence)
			}
		}
		for i, n := range got {
			if n != int64(i)+1 {
				t.Fatalf("%v", got)
			}
		}
		if int64(len(got)) != over.Sequence {
			t.Fatalf("%d events of %d", len(got), over.Sequence)
		}
	}
	id := s.submit(ann, "hold on h00")
	if _, _, err := s.Watch(t.Context(), ann, id, 100); fault.ReasonOf(err) != fault.ReasonEventsUnknown {
		t.Error(err)
	}
}
