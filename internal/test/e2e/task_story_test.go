package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// fleet is a service with hosts of its own, an agent that submits tasks, and an
// approver.
type fleet struct {
	*testenv.Env
	machines  []*sshtest.Machine
	agentConn *grpc.ClientConn
	agent     telexecv1.TaskServiceClient
	approver  telexecv1.ApprovalServiceClient
}

// newFleet makes machines with so many hosts on each, named h00 and so on.
func newFleet(t *testing.T, machines, hosts int, config string) *fleet {
	t.Helper()
	f := &fleet{}
	var all []inventory.Host
	for range machines {
		m := sshtest.StartMachine(t, sshtest.MachineOptions{Accounts: []sshtest.Account{{Name: asPlain}}, MaxSessions: 100})
		f.machines = append(f.machines, m)
		for range hosts {
			all = append(all, m.HostOf(fmt.Sprintf("h%02d", len(all)), asPlain))
		}
	}
	f.Env = testenv.Start(t, testenv.WithoutHosts(), testenv.WithHosts(all...), testenv.WithConfig(config))
	f.agentConn = f.As(f.Key("agent", "operator"))
	f.agent = telexecv1.NewTaskServiceClient(f.agentConn)
	f.approver = telexecv1.NewApprovalServiceClient(f.As(f.Key("anna", "approver")))
	return f
}

// submit submits a plan.
func (f *fleet) submit(t testing.TB, r *telexecv1.SubmitTaskRequest) *telexecv1.Task {
	t.Helper()
	if r.Task == "" {
		r.Task = t.Name()
	}
	got, err := f.agent.SubmitTask(t.Context(), r, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return got.GetTask()
}

// task waits until a task is as it should be.
func (f *fleet) task(t testing.TB, id, what string, is func(*telexecv1.Task) bool) *telexecv1.Task {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	ask := &telexecv1.GetTaskRequest{TaskId: id}
	for {
		got, err := f.agent.GetTask(ctx, ask, grpc.WaitForReady(true))
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		p := got.GetTask()
		if is(p) {
			return p
		}
		if p.GetEndTime() != nil {
			t.Fatalf("waiting for %s, it has ended: %v", what, p)
		}
		ask.Wait, ask.IfVersionGreaterThan = durationpb.New(10*time.Second), p.GetVersion()
	}
}

func (f *fleet) ends(t testing.TB, id string, want telexecv1.TaskState) *telexecv1.Task {
	t.Helper()
	p := f.task(t, id, "its end", func(p *telexecv1.Task) bool { return p.GetEndTime() != nil })
	if p.GetState() != want {
		t.Fatalf("it is %v, want %v: %v", p.GetState(), want, p)
	}
	return p
}

// yes approves what a task waits for, as it is shown.
func (f *fleet) yes(t testing.TB, id string) *telexecv1.Approval {
	t.Helper()
	list, err := f.approver.ListApprovals(t.Context(), &telexecv1.ListApprovalsRequest{MineToDecide: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list.GetApprovals() {
		if a.GetTask().GetId() != id {
			continue
		}
		if _, err := f.approver.DecideApprovals(t.Context(), &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{{
			CommandId: a.GetCommandId(), Verdict: telexecv1.Verdict_VERDICT_APPROVE, RequestHash: a.GetRequestHash(),
		}}}); err != nil {
			t.Fatal(err)
		}
		return a
	}
	t.Fatalf("nothing of %s waits: %v", id, list)
	return nil
}

// count is a command that leaves a trace of each time that it has begun.
func count(name string) string { return "echo " + name + " >>~/began; " }

// began gives what was begun on the machines, sorted, with how often.
func (f *fleet) began(t testing.TB) map[string]int {
	t.Helper()
	times := make(map[string]int)
	for i, m := range f.machines {
		text, err := os.ReadFile(m.Path(asPlain, "~/began"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, name := range strings.Fields(string(text)) {
			times[fmt.Sprintf("%s on %d", name, i)]++
		}
	}
	return times
}

// TestATaskSurvives: five steps on three hosts with a gate in the middle, and kill -9
// while it waits for people, while its steps run, and while it is taken back. Each step
// runs once, and what comes is whole.
func TestATaskSurvives(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, 1, "")
	hold := func(name string) string { return count(name) + "until [ -e ~/" + name + " ]; do sleep 0.05; done" }
	let := func(name string) {
		for _, m := range f.machines {
			if err := os.WriteFile(m.Path(asPlain, "~/"+name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	id := f.submit(t, &telexecv1.SubmitTaskRequest{Steps: []*telexecv1.StepSpec{
		{Name: "one", Host: "h00", Command: count("one"), Undo: count("undo-one")},
		{Name: "two", Hosts: []string{"h00", "h01", "h02"}, Command: hold("two"), Undo: hold("undo-two")},
		{Name: "three", Hosts: []string{"h01", "h02"}, Command: count("three"), NeedsApproval: true, Undo: count("undo-three")},
		{Name: "four", Host: "h02", Command: hold("four")},
		{Name: "five", Host: "h00", Command: count("five") + "exit 3", OnFailure: "continue"},
	}}).GetId()
	f.task(t, id, "the second step", func(p *telexecv1.Task) bool {
		return !slices.ContainsFunc(p.GetSteps()[1].GetRuns(), func(r *telexecv1.StepRun) bool { return r.GetStartTime() == nil })
	})
	f.Kill()
	f.Restart()
	let("two")
	f.task(t, id, "the gate", func(p *telexecv1.Task) bool { return p.GetState() == telexecv1.TaskState_TASK_STATE_AWAITING_APPROVAL })
	f.Kill()
	f.Restart()
	shown := f.yes(t, id)
	if p := shown.GetTask(); len(p.GetSteps()) != 5 || shown.GetStep() != "three" || p.GetSteps()[2].GetUndo() == "" || len(p.GetSteps()[2].GetRuns()) != 2 {
		t.Errorf("the approver was shown %v", shown)
	}
	f.task(t, id, "the fourth step", func(p *telexecv1.Task) bool { return p.GetSteps()[3].GetRuns()[0].GetStartTime() != nil })
	f.Kill()
	let("four")
	f.Restart()
	p := f.ends(t, id, telexecv1.TaskState_TASK_STATE_COMPLETED)
	if run := p.GetSteps()[4].GetRuns()[0]; run.GetExitCode() != 3 || run.GetFailure().GetReason() != fault.ReasonExitStatus {
		t.Errorf("%v", run)
	}
	want := map[string]int{"one on 0": 1, "two on 0": 1, "two on 1": 1, "two on 2": 1, "three on 1": 1, "three on 2": 1, "four on 2": 1, "five on 0": 1}
	if got := f.began(t); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("on the hosts ran %v, want %v", got, want)
	}

	if _, err := f.agent.UndoTask(t.Context(), &telexecv1.UndoTaskRequest{TaskId: id, Reason: "second thoughts"}); err != nil {
		t.Fatal(err)
	}
	f.task(t, id, "the undo of the second step", func(p *telexecv1.Task) bool {
		return !slices.ContainsFunc(p.GetSteps()[1].GetRuns(), func(r *telexecv1.StepRun) bool {
			return r.GetUndoState() != telexecv1.UndoState_UNDO_STATE_RUNNING
		})
	})
	for _, run := range f.task(t, id, "itself", func(*telexecv1.Task) bool { return true }).GetSteps()[1].GetRuns() {
		await(t, f.Env, run.GetUndoCommandId(), func(c *telexecv1.Command) bool { return c.GetState() == running })
	}
	f.Kill()
	f.Restart()
	let("undo-two")
	p = f.ends(t, id, telexecv1.TaskState_TASK_STATE_UNDONE)
	for i, want := range []telexecv1.UndoState{3, 3, 3, 5, 5} { // UNDONE, …, NOT_UNDOABLE, …
		if got := p.GetSteps()[i].GetUndoState(); got != want {
			t.Errorf("step %d is %v, want %v", i+1, got, want)
		}
	}
	for _, name := range []string{"undo-one on 0", "undo-two on 0", "undo-two on 1", "undo-two on 2", "undo-three on 1", "undo-three on 2"} {
		want[name] = 1
	}
	if got := f.began(t); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("on the hosts ran %v, want %v", got, want)
	}
	f.events(t, id, p.GetSequence())
}

// events gives all events of a task, of which none may be missing.
func (f *fleet) events(t testing.TB, id string, last int64) (all []*telexecv1.TaskEvent) {
	t.Helper()
	stream, err := f.agent.WatchTask(t.Context(), &telexecv1.WatchTaskRequest{TaskId: id})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			break
		}
		if e := m.GetEvent(); e != nil {
			if all = append(all, e); e.GetSequence() != int64(len(all)) {
				t.Fatalf("event %d has the number %d", len(all), e.GetSequence())
			}
		}
	}
	if int64(len(all)) != last {
		t.Fatalf("%d events were told, of %d", len(all), last)
	}
	return all
}

// TestAFailureTakesBack: the fourth step fails, and the three before it are undone, the
// last first. The audit has all of it.
func TestAFailureTakesBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, 1, "")
	r := &telexecv1.SubmitTaskRequest{}
	for i := 1; i <= 3; i++ {
		r.Steps = append(r.Steps, &telexecv1.StepSpec{Name: fmt.Sprint(i), Host: "h00", Command: count(fmt.Sprint(i)), Undo: count(fmt.Sprint("undo-", i))})
	}
	r.Steps[1].Undo += "echo too late >&2; exit 4"
	r.Steps = append(r.Steps, &telexecv1.StepSpec{Name: "4", Host: "h00", Command: count("4") + "exit 9", Undo: count("undo-4"), OnFailure: "undo"})
	id := f.submit(t, r).GetId()
	p := f.ends(t, id, telexecv1.TaskState_TASK_STATE_UNDO_FAILED)
	text, err := os.ReadFile(f.machines[0].Path(asPlain, "~/began"))
	if err != nil || strings.Join(strings.Fields(string(text)), " ") != "1 2 3 4 undo-3 undo-2 undo-1" {
		t.Errorf("%q, %v", text, err)
	}
	if p.GetOutcome() != telexecv1.TaskState_TASK_STATE_FAILED || !p.GetUndo().GetAutomatic() || p.GetFailure().GetReason() != fault.ReasonStepFailed {
		t.Errorf("%v", p)
	}
	var got []telexecv1.UndoState
	kinds := []string{"task.submitted", "command.accepted", "command.ended", "command.accepted", "command.ended", "command.accepted", "command.ended", "command.accepted", "command.ended",
		"task.undo", "command.accepted", "command.ended", "command.accepted", "command.ended", "command.accepted", "command.ended", "task.ended"}
	for _, s := range p.GetSteps() {
		got = append(got, s.GetUndoState())
		if id := s.GetRuns()[0].GetUndoCommandId(); s.GetName() != "4" {
			if c := await(t, f.Env, id, ended); c.GetTaskStep() != "tasks/"+p.GetId()+"/steps/"+s.GetName() || (c.GetExitCode() == 4) != (s.GetName() == "2") {
				t.Errorf("%v", c)
			}
		}
	}
	if fmt.Sprint(got) != "[UNDO_STATE_UNDONE UNDO_STATE_UNDO_FAILED UNDO_STATE_UNDONE UNDO_STATE_UNKNOWN]" {
		t.Errorf("%v", got)
	}
	list, err := f.Admin().ListAuditEntries(t.Context(), &telexecv1.ListAuditEntriesRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range slices.Backward(list.GetEntries()) {
		if e.GetTask() == id {
			told = append(told, e.GetKind())
		}
	}
	if !slices.Equal(told, kinds) {
		t.Errorf("the audit has\n%q, want\n%q", told, kinds)
	}
}

// TestACanaryThatFails: of twenty hosts the first fails, and the others are not touched.
// Without it, the rest stops at the first that fails.
func TestACanaryThatFails(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, 20, "")
	var hosts []string
	for i := range 20 {
		hosts = append(hosts, fmt.Sprintf("h%02d", i))
	}
	p := f.ends(t, f.submit(t, &telexecv1.SubmitTaskRequest{Steps: []*telexecv1.StepSpec{
		{Name: "canary", Hosts: hosts, Command: count("canary") + "exit 1", Rollout: &telexecv1.Rollout{Canary: 1}},
		{Name: "behind", Host: "h00", Command: count("behind")},
	}}).GetId(), telexecv1.TaskState_TASK_STATE_FAILED)
	for i, run := range p.GetSteps()[0].GetRuns() {
		want := telexecv1.StepState_STEP_STATE_SKIPPED
		if i == 0 {
			want = telexecv1.StepState_STEP_STATE_FAILED
		}
		if run.GetState() != want || run.GetHost() != hosts[i] {
			t.Errorf("%v", run)
		}
	}
	// Host 3 fails: what is under way ends, and nothing more begins.
	only := `[ "$(wc -l <~/began)" -ne 4 ] || exit 1`
	p = f.ends(t, f.submit(t, &telexecv1.SubmitTaskRequest{Steps: []*telexecv1.StepSpec{
		{Name: "one by one", Hosts: hosts, Command: count("next") + only, Rollout: &telexecv1.Rollout{Parallel: 1, Canary: 2}},
	}}).GetId(), telexecv1.TaskState_TASK_STATE_FAILED)
	states := make(map[telexecv1.StepState]int)
	for _, run := range p.GetSteps()[0].GetRuns() {
		states[run.GetState()]++
	}
	if states[telexecv1.StepState_STEP_STATE_COMPLETED] != 2 || states[telexecv1.StepState_STEP_STATE_FAILED] != 1 || states[telexecv1.StepState_STEP_STATE_SKIPPED] != 17 {
		t.Errorf("%v", states)
	}
	if got := f.began(t); fmt.Sprint(got) != "map[canary on 0:1 next on 0:3]" {
		t.Errorf("on the hosts ran %v", got)
	}
}

// TestAQueueOfTasks: fifty tasks of mixed priority with one slot. They run in their order,
// their places are pushed, and once ten have run the estimates are within a factor of two.
func TestAQueueOfTasks(t *testing.T) {
	f := newFleet(t, 1, 1, "tasks:\n  max_running: 1")
	step := func() []*telexecv1.StepSpec {
		return []*telexecv1.StepSpec{{Host: "h00", Command: "sleep 0.1"}}
	}
	gate := f.submit(t, &telexecv1.SubmitTaskRequest{Steps: []*telexecv1.StepSpec{{Host: "h00", Command: "until [ -e ~/go ]; do sleep 0.05; done"}}})
	f.task(t, gate.GetId(), "its slot", func(p *telexecv1.Task) bool { return p.GetState() == telexecv1.TaskState_TASK_STATE_RUNNING })
	var all []*telexecv1.Task
	for i := range 50 {
		all = append(all, f.submit(t, &telexecv1.SubmitTaskRequest{Priority: int32(i * 7 % 3), Steps: step()}))
	}
	slices.SortStableFunc(all, func(a, b *telexecv1.Task) int { return int(b.GetPriority() - a.GetPriority()) })
	for i, p := range all {
		if now := f.task(t, p.GetId(), "itself", func(*telexecv1.Task) bool { return true }); now.GetQueue().GetPosition() != int32(i+1) {
			t.Fatalf("%d has the place %v", i+1, now.GetQueue())
		}
	}
	metrics := string(rest(t, f.Env, "GET", "/metrics", "").body)
	for _, line := range []string{"\ntelexec_tasks_running 1\n", "\ntelexec_tasks_queued 50\n"} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics have no %q", line)
		}
	}
	if err := os.WriteFile(f.machines[0].Path(asPlain, "~/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	estimates := make(map[string]time.Duration)
	var asked time.Time
	var begun []time.Time
	for i, p := range all {
		if i == 10 { // the gate's own time is not among the last ones any more than as one of eleven
			asked = time.Now()
			for _, later := range all[20:] {
				now := f.task(t, later.GetId(), "itself", func(*telexecv1.Task) bool { return true })
				estimates[later.GetId()] = now.GetQueue().GetEstimatedWait().AsDuration()
			}
		}
		begun = append(begun, f.ends(t, p.GetId(), telexecv1.TaskState_TASK_STATE_COMPLETED).GetStartTime().AsTime())
		if estimate := estimates[p.GetId()]; i >= 20 {
			if waited := begun[i].Sub(asked); estimate < waited/2 || estimate > 2*waited {
				t.Errorf("%d was told to wait for %v, and waited for %v", i+1, estimate, waited)
			}
		}
	}
	if !slices.IsSortedFunc(begun, time.Time.Compare) {
		t.Error("they have not run in their order")
	}
	last := all[49]
	places := 0
	for _, e := range f.events(t, last.GetId(), f.ends(t, last.GetId(), telexecv1.TaskState_TASK_STATE_COMPLETED).GetSequence()) {
		if e.GetType() == "queue_update" {
			places++
		}
	}
	if places < 40 {
		t.Errorf("its place was pushed %d times", places)
	}
}

// TestATaskInASession: steps that share a shell. Who has approved one has approved what
// takes it back there, too; of a session that is not there a step fails.
func TestATaskInASession(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, 1, "")
	if _, err := telexecv1.NewSessionServiceClient(f.agentConn).OpenSession(t.Context(), &telexecv1.OpenSessionRequest{
		Host: "h00", Name: "work", Shell: "/bin/bash", Keeper: telexecv1.Keeper_KEEPER_NONE,
	}); err != nil {
		t.Fatal(err)
	}
	id := f.submit(t, &telexecv1.SubmitTaskRequest{Steps: []*telexecv1.StepSpec{
		{Name: "set", Session: "work", Command: "cd / && GREETING=moin; " + count("set"), Undo: "cd; " + count("unset"), NeedsApproval: true},
		{Name: "use", Session: "work", Command: `[ "$GREETING in $PWD" = "moin in /" ]`},
	}}).GetId()
	f.task(t, id, "the gate", func(p *telexecv1.Task) bool { return p.GetState() == telexecv1.TaskState_TASK_STATE_AWAITING_APPROVAL })
	if shown := f.yes(t, id); shown.GetCommand().GetSession() == "" || shown.GetStep() != "set" {
		t.Errorf("the approver was shown %v", shown)
	}
	if p := f.ends(t, id, telexecv1.TaskState_TASK_STATE_COMPLETED); p.GetSteps()[1].GetRuns()[0].GetHost() != "h00" {
		t.Errorf("where it ran is not said: %v", p)
	}
	if _, err := f.agent.UndoTask(t.Context(), &telexecv1.UndoTaskRequest{TaskId: id}); err != nil {
		t.Fatal(err)
	}
	f.ends(t, id, telexecv1.TaskState_TASK_STATE_UNDONE)
	if got := f.began(t); fmt.Sprint(got) != "map[set on 0:1 unset on 0:1]" {
		t.Errorf("there ran %v", got)
	}
	// The session is the one where it ran, whatever has its name later.
	id = f.submit(t, &telexecv1.SubmitTaskRequest{Steps: []*telexecv1.StepSpec{{Session: "work", Command: "true", Undo: count("elsewhere")}}}).GetId()
	f.ends(t, id, telexecv1.TaskState_TASK_STATE_COMPLETED)
	sessions := telexecv1.NewSessionServiceClient(f.agentConn)
	if _, err := sessions.CloseSession(t.Context(), &telexecv1.CloseSessionRequest{Session: "work"}); err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.OpenSession(t.Context(), &telexecv1.OpenSessionRequest{Host: "h00", Name: "work", Shell: "/bin/bash", Keeper: telexecv1.Keeper_KEEPER_NONE}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.agent.UndoTask(t.Context(), &telexecv1.UndoTaskRequest{TaskId: id}); err != nil {
		t.Fatal(err)
	}
	p := f.ends(t, id, telexecv1.TaskState_TASK_STATE_UNDO_FAILED)
	if reason := p.GetSteps()[0].GetRuns()[0].GetUndoFailure().GetReason(); reason != fault.ReasonSessionEnded || f.began(t)["elsewhere on 0"] > 0 {
		t.Errorf("%s, and there ran %v: %v", reason, f.began(t), p)
	}
	p = f.ends(t, f.submit(t, &telexecv1.SubmitTaskRequest{Steps: []*telexecv1.StepSpec{{Session: "nowhere", Command: "true"}}}).GetId(), telexecv1.TaskState_TASK_STATE_FAILED)
	if reason := p.GetSteps()[0].GetRuns()[0].GetFailure().GetReason(); reason != fault.ReasonAccessDenied || !strings.HasPrefix(p.GetFailure().GetMessage(), `step "step 1" has not completed in session "nowhere": `) {
		t.Errorf("%s: %v", reason, p)
	}
}
