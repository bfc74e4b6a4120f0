package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/testenv"
)

// counter is where people and agents come with curl about their tasks.
type counter struct {
	*testing.T
	env   *testenv.Env
	curl  string
	token map[string]secret.Text
}

// taskAnswer is what an answer about tasks may have.
type taskAnswer struct {
	Task struct {
		ID, State, Task, ConversationID, CreateTime string
		Priority                                    int
		Context                                     map[string]string
		CreatedBy                                   struct{ Principal, Origin string }
		Steps                                       []struct {
			Name, Command, Undo, State, UndoState string
			NeedsApproval                         bool
			Runs                                  []struct {
				CommandID     string `json:"commandId"`
				UndoCommandID string `json:"undoCommandId"`
				ExitCode      *int
				Failure       struct{ Reason, Message string }
			}
		}
	}
	Approvals []struct{ ID, Step, State string }
	Approval  struct{ ID, State, Step string }
	Preview   []struct{ Step, Host, Command, State string }
	Tasks     []struct{ ID, State string }

	NextPageToken string
	AlreadyEnded  bool
}

// TestTheRoutesOfAgents does all that /api/agent is for with curl, as several people, on
// one service for all chapters.
func TestTheRoutesOfAgents(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		testenv.Missing(t, "no curl")
	}
	env := testenv.Start(t)
	d := &counter{env: env, curl: curl, token: map[string]secret.Text{
		"admin": env.Token, "agent": env.Key("agent", "operator"), "other": env.Key("other", "operator"),
		"viewer": env.Key("viewer", "viewer"), anna: env.Key(anna, "approver"), bert: env.Key(bert, "approver"), "nobody": {},
	}}
	for _, chapter := range []struct {
		name string
		tell func(*counter)
	}{
		{"from the plan to the undo", (*counter).planned},
		{"modified into less", (*counter).modified},
		{"rejected", (*counter).rejected},
		{"cancelled", (*counter).cancelled},
		{"approved over a socket", (*counter).overASocket},
		{"history", (*counter).history},
		{"wrong input", (*counter).wrong},
	} {
		t.Run(chapter.name, func(t *testing.T) {
			in := *d
			in.T = t
			chapter.tell(&in)
		})
	}
}

// ask runs curl for one of the people. A body makes it a POST, unless method says
// otherwise.
func (d *counter) ask(who, method, path, body string) answer {
	d.Helper()
	args := []string{"-sS", "-g", "-w", "\n%{http_code}", "-X", method}
	if token := d.token[who]; !token.IsZero() {
		args = append(args, "-H", "Authorization: Bearer "+token.Reveal())
	}
	if body != "" {
		args = append(args, "-H", "Content-Type: application/json", "-d", body)
	}
	out, err := exec.CommandContext(d.Context(), d.curl, append(args, "http://"+d.env.HTTPAddr+path)...).Output()
	end := bytes.LastIndexByte(out, '\n')
	if err != nil || end < 0 {
		d.Fatalf("curl %s %s: %v", method, path, err)
	}
	status, err := strconv.Atoi(string(out[end+1:]))
	if err != nil {
		d.Fatal(err)
	}
	return answer{status, out[:end]}
}

// get is ask for what succeeds.
func (d *counter) get(who, method, path, body string) (got taskAnswer) {
	d.Helper()
	a := d.ask(who, method, path, body)
	if err := unmarshal(a, &got); err != nil {
		d.Fatalf("%s %s as %s: %v: %s", method, path, who, err, a.body)
	}
	return got
}

// refused is ask for what is refused for this reason, in the standard form.
func (d *counter) refused(who, method, path, body string, status int, reason string) (text string) {
	d.Helper()
	a := d.ask(who, method, path, body)
	var p struct {
		Code    int
		Message string
		Details []struct {
			Type           string `json:"@type"`
			Reason, Domain string
			Metadata       map[string]string
		}
	}
	if err := json.Unmarshal(a.body, &p); err != nil || a.status != status || p.Code == 0 || p.Message == "" || len(p.Details) == 0 {
		d.Errorf("%s %s as %s: HTTP %d %s, want %d", method, path, who, a.status, a.body, status)
		return ""
	}
	if info := p.Details[0]; info.Type != "type.googleapis.com/google.rpc.ErrorInfo" || info.Domain != "telexec" || info.Reason != reason || info.Metadata["hint"] == "" {
		d.Errorf("%s %s as %s: %s, want %s", method, path, who, a.body, reason)
	}
	return string(a.body)
}

// submit submits a plan as the agent, and gives the task's id.
func (d *counter) submit(steps ...string) string {
	d.Helper()
	got := d.get("agent", "POST", "/api/agent", fmt.Sprintf(`{"task": %q, "steps": [%s]}`, d.Name(), strings.Join(steps, ", ")))
	if len(got.Task.ID) != 26 {
		d.Fatalf("%+v", got)
	}
	return "/api/agent/" + got.Task.ID
}

// waits gives what a task waits for, once it does.
func (d *counter) waits(task string) (approval string) {
	d.Helper()
	got := d.get("agent", "GET", task+"?wait=30s&until=TASK_WAIT_APPROVAL", "")
	if len(got.Approvals) != 1 || got.Task.State != "TASK_STATE_AWAITING_APPROVAL" {
		d.Fatalf("%+v", got)
	}
	return got.Approvals[0].ID
}

// ends gives a task once it has ended, as it should.
func (d *counter) ends(task, state string) taskAnswer {
	d.Helper()
	got := d.get("agent", "GET", task+"?wait=30s&until=TASK_WAIT_ENDED", "")
	if got.Task.State != "TASK_STATE_"+state {
		d.Fatalf("want %s: %+v", state, got)
	}
	return got
}

// planned: a plan is submitted, seen, modified and approved, done and taken back; by
// those who may, and by nobody else.
func (d *counter) planned() {
	got := d.get("agent", "POST", "/api/agent", `{"task": "roll out", "priority": 5, "conversationId": "c-17", "context": {"ticket": "T-9"}, "steps": [
		{"name": "a", "host": "web1", "command": "echo hello", "needsApproval": true, "undo": "echo goodbye"},
		{"name": "b", "host": "web1", "command": "true", "undo": "true"},
		{"name": "c", "host": "web1", "command": "echo for ever"}]}`)
	p := got.Task
	if len(p.ID) != 26 || p.Task != "roll out" || p.Priority != 5 || p.ConversationID != "c-17" || p.Context["ticket"] != "T-9" || len(p.Steps) != 3 ||
		!p.Steps[0].NeedsApproval || p.Steps[0].Undo != "echo goodbye" || p.CreatedBy.Principal != "agent" || p.CreatedBy.Origin != "ORIGIN_REST" {
		d.Fatalf("%+v", got)
	}
	task := "/api/agent/" + p.ID
	approval := d.waits(task)

	// Who has nothing to do with it does not see it, nor what it waits for.
	yes := fmt.Sprintf(`{"approvalId": %q, "approved": true}`, approval)
	for _, who := range []string{"other", "viewer"} {
		d.refused(who, "GET", task, "", 403, fault.ReasonAccessDenied)
		d.refused(who, "GET", "/v1/tasks/"+p.ID+"/events", "", 403, fault.ReasonAccessDenied)
		if list := d.get(who, "GET", "/api/agent/history", ""); len(list.Tasks) != 0 {
			d.Errorf("%s sees %+v", who, list)
		}
		d.refused(who, "POST", task+"/approve", yes, 403, fault.ReasonAccessDenied)
	}
	d.refused("other", "POST", task+"/undo", `{}`, 403, fault.ReasonAccessDenied)
	d.refused("other", "DELETE", task, "", 403, fault.ReasonAccessDenied)
	for _, who := range []string{"viewer", anna} { // these are for operators
		d.refused(who, "POST", task+"/undo", `{}`, 403, fault.ReasonRoleMissing)
		d.refused(who, "DELETE", task, "", 403, fault.ReasonRoleMissing)
	}
	for _, route := range []string{"GET " + task, "POST " + task + "/approve", "POST " + task + "/undo", "DELETE " + task, "GET /api/agent/history", "POST /api/agent"} {
		method, path, _ := strings.Cut(route, " ")
		d.refused("nobody", method, path, "", 401, fault.ReasonNoCredentials)
	}
	// Nobody approves their own. An approver sees the plan with what is to be decided.
	d.refused("agent", "POST", task+"/approve", yes, 403, fault.ReasonNotYourDecision)
	if now := d.get("agent", "GET", task, ""); now.Task.State != "TASK_STATE_AWAITING_APPROVAL" || len(now.Approvals) != 1 || now.Approvals[0].Step != "a" {
		d.Errorf("%+v", now)
	}
	plan := d.ask(anna, "GET", "/v1/approvals/"+approval, "")
	if !bytes.Contains(plan.body, []byte("echo for ever")) {
		d.Errorf("HTTP %d %s", plan.status, plan.body)
	}

	decided := d.get(anna, "POST", task+"/approve", fmt.Sprintf(`{"approvalId": %q, "approved": true, "message": "but politely", "modifiedParameters": {"command": "echo hello, please"}}`, approval))
	if decided.Approval.ID != approval || decided.Approval.State != "APPROVAL_STATE_PENDING" || decided.Approval.Step != "a" {
		d.Errorf("%+v", decided)
	}
	// It is not less than what was asked for, so that it takes another one.
	d.refused(anna, "POST", task+"/approve", yes, 403, fault.ReasonNotYourDecision)
	if decided := d.get(bert, "POST", task+"/approve", yes); decided.Approval.State != "APPROVAL_STATE_APPROVED" {
		d.Errorf("%+v", decided)
	}
	done := d.ends(task, "COMPLETED")
	if s := done.Task.Steps[0]; s.Command != "echo hello, please" || s.Undo != "echo goodbye" || len(s.Runs) != 1 || s.Runs[0].ExitCode == nil || *s.Runs[0].ExitCode != 0 {
		d.Errorf("%+v", s)
	}
	out := d.ask("agent", "GET", "/v1/commands/"+done.Task.Steps[0].Runs[0].CommandID+"?output.text=true", "")
	if !bytes.Contains(out.body, []byte(`"hello, please\n"`)) {
		d.Errorf("HTTP %d %s", out.status, out.body)
	}

	// One step, and then what is left of it.
	d.refused("other", "POST", task+"/undo", `{"stepId": "a"}`, 403, fault.ReasonAccessDenied)
	undo := d.get("agent", "POST", task+"/undo", `{"stepId": "a"}`)
	if len(undo.Preview) != 1 || undo.Preview[0].Command != "echo goodbye" || undo.Preview[0].State != "UNDO_STATE_PENDING" {
		d.Errorf("%+v", undo)
	}
	states := func(a taskAnswer) (all []string) {
		for _, s := range a.Task.Steps {
			all = append(all, s.UndoState)
		}
		return all
	}
	// There is more of it to be undone, so it is what it was.
	if got := d.ends(task, "COMPLETED"); !slices.Equal(states(got), []string{"UNDO_STATE_UNDONE", "", ""}) || got.Task.Steps[0].Runs[0].UndoCommandID == "" {
		d.Errorf("%+v", got)
	}
	if all := d.get("agent", "POST", task+"/undo", `{}`).Preview; len(all) != 3 || all[0].Step != "c" || all[0].State != "UNDO_STATE_NOT_UNDOABLE" ||
		all[1].Step != "b" || all[1].State != "UNDO_STATE_PENDING" || all[2].State != "UNDO_STATE_UNDONE" {
		d.Errorf("%+v", all)
	}
	if got := d.ends(task, "UNDONE"); !slices.Equal(states(got), []string{"UNDO_STATE_UNDONE", "UNDO_STATE_UNDONE", "UNDO_STATE_NOT_UNDOABLE"}) {
		d.Errorf("%+v", got)
	}
	d.refused("agent", "POST", task+"/undo", `{}`, 400, fault.ReasonNothingToUndo)

	// The audit has who was refused what, and who has decided.
	told := make(map[string]string)
	for e := range auditOf(d.Context(), d, d.env, &telexecv1.ListAuditEntriesRequest{Kinds: []string{"refused", "approval.decided"}}) {
		if e.GetTask() == p.ID {
			told[e.GetBy().GetPrincipal()+" "+e.GetKind()+" "+e.GetMethod()] = e.GetReason()
			if e.GetAddress() != "127.0.0.1" || e.GetBy().GetOrigin() != telexecv1.Origin_ORIGIN_REST {
				d.Errorf("%v", e)
			}
		}
	}
	for entry, reason := range map[string]string{
		"other refused TaskService/GetTask": fault.ReasonAccessDenied, "viewer refused TaskService/DecideTask": fault.ReasonAccessDenied,
		"other refused TaskService/CancelTask": fault.ReasonAccessDenied, anna + " refused TaskService/UndoTask": fault.ReasonRoleMissing,
		"agent refused TaskService/DecideTask": fault.ReasonNotYourDecision, "other refused TaskService/WatchTask": fault.ReasonAccessDenied,
	} {
		if told[entry] != reason {
			d.Errorf("the audit has no %q with %s, but %v", entry, reason, told)
		}
	}
	if _, ok := told[anna+" approval.decided "]; !ok {
		d.Errorf("the audit has %v", told)
	}
}

// modified: who takes something away has approved the rest.
func (d *counter) modified() {
	task := d.submit(`{"name": "a", "host": "web1", "command": "echo one; echo two", "needsApproval": true}`)
	got := d.get(anna, "POST", task+"/approve", fmt.Sprintf(`{"approvalId": %q, "approved": true, "modifiedParameters": {"command": "echo two"}}`, d.waits(task)))
	if got.Approval.State != "APPROVAL_STATE_APPROVED" {
		d.Errorf("%+v", got)
	}
	if done := d.ends(task, "COMPLETED"); done.Task.Steps[0].Command != "echo two" {
		d.Errorf("%+v", done)
	}
}

// rejected: what was said goes to who has asked.
func (d *counter) rejected() {
	task := d.submit(`{"name": "a", "host": "web1", "command": "true", "needsApproval": true}`, `{"name": "b", "host": "web1", "command": "true"}`)
	id := d.waits(task)
	got := d.get(anna, "POST", task+"/approve", fmt.Sprintf(`{"approvalId": %q, "approved": false, "message": "not on a Friday"}`, id))
	if got.Approval.State != "APPROVAL_STATE_REJECTED" {
		d.Errorf("%+v", got)
	}
	done := d.ends(task, "FAILED")
	if a, b := done.Task.Steps[0], done.Task.Steps[1]; a.State != "STEP_STATE_FAILED" || a.Runs[0].Failure.Reason != fault.ReasonRejected ||
		!strings.Contains(a.Runs[0].Failure.Message, "not on a Friday") || b.State != "STEP_STATE_SKIPPED" {
		d.Errorf("%+v", done)
	}
	d.refused(anna, "POST", task+"/approve", fmt.Sprintf(`{"approvalId": %q, "approved": true}`, id), 400, fault.ReasonAlreadyDecided)
}

// cancelled: while it runs and while it waits, and once more.
func (d *counter) cancelled() {
	task := d.submit(`{"name": "a", "host": "web1", "command": "echo on; exec sleep 1000", "undo": "true"}`, `{"host": "web1", "command": "true"}`)
	if !comesTrue(d, 20*time.Second, func() bool { return d.get("agent", "GET", task, "").Task.Steps[0].Runs[0].CommandID != "" }) {
		d.Fatal("it does not begin")
	}
	d.refused("agent", "POST", task+"/undo", `{}`, 400, fault.ReasonTaskNotEnded)
	got := d.get("agent", "DELETE", task+"?reason=enough", "")
	if got.AlreadyEnded || got.Task.State != "TASK_STATE_CANCELLED" || got.Task.Steps[0].State != "STEP_STATE_CANCELLED" || got.Task.Steps[1].State != "STEP_STATE_SKIPPED" {
		d.Errorf("%+v", got)
	}
	if again := d.get("agent", "DELETE", task, ""); !again.AlreadyEnded || again.Task.State != "TASK_STATE_CANCELLED" {
		d.Errorf("%+v", again)
	}
	waiting := d.submit(`{"host": "web1", "command": "true", "needsApproval": true}`)
	id := d.waits(waiting)
	if got := d.get("agent", "DELETE", waiting, ""); got.Task.State != "TASK_STATE_CANCELLED" {
		d.Errorf("%+v", got)
	}
	d.refused(anna, "POST", waiting+"/approve", fmt.Sprintf(`{"approvalId": %q, "approved": true}`, id), 400, fault.ReasonAlreadyDecided)
}

// overASocket: a decision there is a decision as any other, and who watches is told.
func (d *counter) overASocket() {
	task := d.submit(`{"name": "a", "host": "web1", "command": "echo yes", "needsApproval": true}`)
	id := d.waits(task)
	as := func(who, path string) *socket {
		conn, _, err := websocket.Dial(d.Context(), "ws://"+d.env.HTTPAddr+path, &websocket.DialOptions{
			Subprotocols: []string{"telexec.v1.json", "telexec.bearer." + base64.RawURLEncoding.EncodeToString([]byte(d.token[who].Reveal()))},
		})
		if err != nil {
			d.Fatal(err)
		}
		d.Cleanup(func() { conn.CloseNow() })
		return &socket{d, conn}
	}
	watcher := as("agent", task+"/updates")
	watcher.until("task", "updates")
	told := func(kind string) *telexecv1.TaskEvent {
		for {
			m, _ := watcher.until("task_event", "updates")
			if e := m.GetData().GetTaskEvent(); e.GetType() == kind {
				return e
			}
		}
	}
	if e := told("approval_request"); e.GetApprovalId() != id || e.GetStep() != "a" {
		d.Errorf("%v", e)
	}
	taskID := strings.TrimPrefix(task, "/api/agent/")
	yes := fmt.Sprintf(`{"id": "d", "decide": {"taskId": %q, "approvalId": %q, "approved": true}}`, taskID, id)
	for who, reason := range map[string]string{"agent": fault.ReasonNotYourDecision, "other": fault.ReasonAccessDenied} {
		s := as(who, "/v1/socket")
		s.send(yes)
		m, err := s.next()
		if err != nil || m.GetId() != "d" || !strings.Contains(m.GetData().GetError().String(), reason) {
			d.Errorf("%s: %v, %v", who, m, err)
		}
	}
	// The updates of a task that one may not see are not told, on a socket that stands.
	s := as("other", task+"/updates")
	if m, err := s.next(); err != nil || m.GetId() != "updates" || !strings.Contains(m.GetData().GetError().String(), fault.ReasonAccessDenied) {
		d.Errorf("%v, %v", m, err)
	}
	s = as(anna, "/v1/socket")
	s.send(yes)
	if m, _ := s.until("decide", "d"); m.GetData().GetDecide().GetApproval().GetState() != telexecv1.ApprovalState_APPROVAL_STATE_APPROVED {
		d.Errorf("%v", m)
	}
	told("step_complete")
	told("completed")
	if m, _ := watcher.until("task", "updates"); m.GetData().GetTask().GetState() != telexecv1.TaskState_TASK_STATE_COMPLETED {
		d.Errorf("%v", m)
	}
	var by []string
	for e := range auditOf(d.Context(), d, d.env, &telexecv1.ListAuditEntriesRequest{Kinds: []string{"approval.decided"}, CommandId: id}) {
		by = append(by, fmt.Sprint(e.GetBy().GetPrincipal(), " ", e.GetBy().GetOrigin(), " ", e.GetAddress(), " ", e.GetTask() == taskID))
	}
	if !slices.Equal(by, []string{anna + " ORIGIN_WEBSOCKET 127.0.0.1 true"}) {
		d.Errorf("the audit has %q", by)
	}
}

// history: the newest first, twenty of them unless somebody says otherwise.
func (d *counter) history() {
	before := len(d.get("agent", "GET", "/api/agent/history?limit=1000", "").Tasks)
	var ids []string // newest first
	for range 23 {
		task := d.submit(`{"host": "web1", "command": "true"}`)
		ids = append([]string{strings.TrimPrefix(task, "/api/agent/")}, ids...)
	}
	for _, id := range ids {
		d.ends("/api/agent/"+id, "COMPLETED")
	}
	failed := d.submit(`{"host": "web1", "command": "false"}`)
	d.ends(failed, "FAILED")
	ids = append([]string{strings.TrimPrefix(failed, "/api/agent/")}, ids...)
	list := func(who, query string) (got []string) {
		d.Helper()
		for _, p := range d.get(who, "GET", "/api/agent/history"+query, "").Tasks {
			got = append(got, p.ID)
		}
		return got
	}
	created := func(i int) time.Time {
		at, err := time.Parse(time.RFC3339Nano, d.get("agent", "GET", "/api/agent/"+ids[i], "").Task.CreateTime)
		if err != nil {
			d.Fatal(err)
		}
		return at
	}
	rfc := func(at time.Time) string { return url.QueryEscape(at.UTC().Format(time.RFC3339Nano)) }
	fifth, tenth := created(5), created(10)
	for query, want := range map[string][]string{
		"":                          ids[:20],
		"?limit=5":                  ids[:5],
		"?limit=5&offset=2":         ids[2:7],
		"?offset=20&limit=4":        ids[20:24],
		"?status=failed&limit=1":    ids[:1],
		"?status=completed&limit=3": ids[1:4],
		"?status=completed,failed&limit=3&offset=1":           ids[1:4],
		"?status=running,queued":                              nil,
		"?dateFrom=" + rfc(tenth) + "&dateTo=" + rfc(fifth):   ids[6:11],
		"?dateFrom=" + rfc(fifth) + "&limit=2":                ids[:2],
		"?dateFrom=" + rfc(time.Now().Add(time.Hour)):         nil,
		"?dateTo=2020-01-01T00:00:00Z":                        nil,
		"?dateFrom=" + rfc(tenth) + "&status=failed&offset=1": nil,
	} {
		if got := list("agent", query); !slices.Equal(got, want) {
			d.Errorf("history%s: %v, want %v", query, got, want)
		}
	}
	if got := list("agent", "?limit=1000"); len(got) != before+len(ids) {
		d.Errorf("%d tasks, want %d", len(got), before+len(ids))
	}
	if got := list("other", "?limit=1000"); len(got) != 0 {
		d.Errorf("somebody else sees %v", got)
	}
	if got := list("admin", ""); !slices.Equal(got, ids[:20]) {
		d.Errorf("an administrator sees %v", got)
	}
	// Page by page.
	first := d.get("agent", "GET", "/api/agent/history?limit=15", "")
	next := d.get("agent", "GET", "/api/agent/history?limit=9&pageToken="+url.QueryEscape(first.NextPageToken), "")
	if len(first.Tasks) != 15 || len(next.Tasks) != 9 || next.Tasks[0].ID != ids[15] || next.Tasks[8].ID != ids[23] {
		d.Errorf("%+v\n%+v", first, next)
	}
}

// wrong: what is wrong is told in the standard form, with the field where it is one's.
func (d *counter) wrong() {
	const unknown = "/api/agent/01ARZ3NDEKTSV4RRFFQ69G5FAV"
	done := d.submit(`{"name": "a", "host": "web1", "command": "true"}`)
	d.ends(done, "COMPLETED")
	waiting := d.submit(`{"name": "a", "host": "web1", "command": "true", "needsApproval": true}`)
	id := d.waits(waiting)
	const step = `{"host": "web1", "command": "true"}`
	for _, c := range []struct {
		who, method, path, body string
		status                  int
		reason, says            string
	}{
		{"agent", "POST", "/api/agent", `{"task": }`, 400, fault.ReasonInvalidRequest, "JSON"},
		{"agent", "POST", "/api/agent", `{"steps": [` + step + `]}`, 400, fault.ReasonInvalidRequest, `"field":"task"`},
		{"agent", "POST", "/api/agent", `{"task": "x", "steps": []}`, 400, fault.ReasonInvalidRequest, `"field":"steps"`},
		{"agent", "POST", "/api/agent", `{"task": "x", "stepps": []}`, 400, fault.ReasonInvalidRequest, "stepps"},
		{"agent", "POST", "/api/agent", `{"task": "x", "priority": 101, "steps": [` + step + `]}`, 400, fault.ReasonInvalidRequest, "priority"},
		{"agent", "POST", "/api/agent", `{"task": "x", "steps": [` + step + `, {"host": "web1"}]}`, 400, fault.ReasonEmptyCommand, "steps[1]"},
		{"agent", "POST", "/api/agent", `{"task": "x", "steps": [{"command": "true"}]}`, 400, fault.ReasonInvalidRequest, "steps[0]"},
		{"agent", "POST", "/api/agent", `{"task": "x", "steps": [{"host": "web9", "command": "true"}]}`, 404, fault.ReasonUnknownHost, "web9"},
		{"agent", "POST", "/api/agent", `{"task": "x", "steps": [{"host": "web1", "command": "true", "onFailure": "panic"}]}`, 400, fault.ReasonInvalidRequest, "on_failure"},
		{"agent", "POST", "/api/agent?wait=1s", `{"task": "x", "steps": [` + step + `]}`, 400, fault.ReasonInvalidRequest, "query"},
		{"viewer", "POST", "/api/agent", `{"task": "x", "steps": [` + step + `]}`, 403, fault.ReasonRoleMissing, "operator"},
		{anna, "POST", "/api/agent", `{"task": "x", "steps": [` + step + `]}`, 403, fault.ReasonRoleMissing, "operator"},
		{"agent", "GET", "/api/agent/17", "", 400, fault.ReasonInvalidRequest, "task_id"},
		{"agent", "GET", unknown, "", 403, fault.ReasonAccessDenied, "task"},
		{"admin", "GET", unknown, "", 404, fault.ReasonUnknownTask, ""},
		{"admin", "DELETE", unknown, "", 404, fault.ReasonUnknownTask, ""},
		{"admin", "POST", unknown + "/undo", `{}`, 404, fault.ReasonUnknownTask, ""},
		{"agent", "GET", done + "?until=THE_END", "", 400, fault.ReasonInvalidRequest, "until"},
		{"agent", "GET", done + "?wait=2h", "", 400, fault.ReasonInvalidRequest, "wait"},
		{"agent", "GET", "/api/agent/history?status=fine", "", 400, fault.ReasonInvalidRequest, "status"},
		{"agent", "GET", "/api/agent/history?limit=1001", "", 400, fault.ReasonInvalidRequest, "limit"},
		{"agent", "GET", "/api/agent/history?limit=many", "", 400, fault.ReasonInvalidRequest, "limit"},
		{"agent", "GET", "/api/agent/history?offset=-1", "", 400, fault.ReasonInvalidRequest, "offset"},
		{"agent", "GET", "/api/agent/history?dateFrom=yesterday", "", 400, fault.ReasonInvalidRequest, "date"},
		{"agent", "GET", "/api/agent/history?dateTo=2026-13-01T00:00:00Z", "", 400, fault.ReasonInvalidRequest, "date"},
		{"agent", "GET", "/api/agent/history?datefrom=2026-01-01T00:00:00Z", "", 400, fault.ReasonInvalidRequest, "dateFrom"},
		{"agent", "GET", "/api/agent/history?dateTo=2026-02-30", "", 400, fault.ReasonInvalidRequest, "as a date, 2026-01-02"},
		{anna, "POST", waiting + "/approve", `{"approved": true}`, 400, fault.ReasonInvalidRequest, "approval_id"},
		{anna, "POST", waiting + "/approve", `{"approvalId": "` + id + `"}`, 400, fault.ReasonInvalidRequest, "approved"},
		{anna, "POST", waiting + "/approve", `{"approvalId": "` + id + `", "approved": false, "modifiedParameters": {"command": "id"}}`, 400, fault.ReasonInvalidRequest, "approved must be true"},
		{anna, "POST", waiting + "/approve", `{"approvalId": "` + id + `", "approved": "yes"}`, 400, fault.ReasonInvalidRequest, "approved"},
		{anna, "POST", done + "/approve", `{"approvalId": "` + id + `", "approved": true}`, 404, fault.ReasonUnknownApproval, ""},
		{"admin", "POST", waiting + "/approve", `{"approvalId": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "approved": true}`, 404, fault.ReasonUnknownApproval, ""},
		{anna, "POST", waiting + "/approve", `{"approvalId": "` + id + `", "approved": true, "modifiedParameters": {"host": "web2"}}`, 400, fault.ReasonInvalidRequest, "host"},
		{anna, "POST", waiting + "/approve", `{"approvalId": "` + id + `", "approved": true, "requestHash": "AAAA"}`, 400, fault.ReasonInvalidRequest, "request_hash"},
		{anna, "POST", waiting + "/approve", `{"approvalId": "` + id + `", "approved": true, "requestHash": "` + strings.Repeat("A", 43) + `="}`, 409, fault.ReasonRequestChanged, ""},
		{"agent", "POST", done + "/undo", `{"stepId": "z"}`, 400, fault.ReasonInvalidRequest, "z"},
		{"agent", "POST", done + "/undo", `{}`, 400, fault.ReasonNothingToUndo, ""},
		{"agent", "DELETE", done + "?force=true", "", 400, fault.ReasonInvalidRequest, "force"},
		{"agent", "PUT", done, "{}", 405, fault.ReasonUnknownRoute, "DELETE, GET"},
		{"agent", "GET", done + "/result", "", 404, fault.ReasonUnknownRoute, ""},
		{"agent", "GET", done + "/updates", "", 426, fault.ReasonInvalidRequest, "WebSocket"},
	} {
		if text := d.refused(c.who, c.method, c.path, c.body, c.status, c.reason); !strings.Contains(text, c.says) {
			d.Errorf("%s %s %s: no %q in %s", c.method, c.path, c.body, c.says, text)
		}
	}
	if still := d.get("agent", "GET", waiting, ""); len(still.Approvals) != 1 {
		d.Errorf("%+v", still)
	}
	d.get("agent", "DELETE", waiting, "")
}
