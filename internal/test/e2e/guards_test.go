package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/testenv"
)

// The people of these tests. Each has an API key of that name, but the
// administrator.
const (
	vera = "vera" // viewer
	olga = "olga" // operator
	otto = "otto" // operator, whose commands the others reach for
	anna = "anna" // approver
	bert = "bert" // approver
)

// guarded is one call of the contract, and who may not make it.
type guarded struct {
	request proto.Message
	weak    []string // whose roles do not allow it, whatever it is about
	foreign []string // from whom otto's command, session or task is hidden; the request has its id
}

// absent is an id that no command has.
const absent = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// guardedCalls has a row for every call there is. Marker is a file that is made
// where Execute gets through; running and gated are otto's, and so are the session and
// the task, whose step waits for people.
func guardedCalls(host, marker, running, gated, session, task, step string) map[string]guarded {
	notOperators, notAdmins := []string{vera, anna}, []string{vera, olga, anna}
	return map[string]guarded{
		"CommandService/Execute":          {&telexecv1.ExecuteRequest{Host: host, Command: "touch " + marker}, notOperators, nil},
		"CommandService/StreamOutput":     {&telexecv1.StreamOutputRequest{CommandId: running}, nil, notAdmins},
		"CommandService/GetStatus":        {&telexecv1.GetStatusRequest{CommandId: running}, nil, notAdmins},
		"CommandService/Cancel":           {&telexecv1.CancelRequest{CommandId: running}, notOperators, []string{olga}},
		"CommandService/Signal":           {&telexecv1.SignalRequest{CommandId: running, Signal: "KILL"}, notOperators, []string{olga}},
		"CommandService/SendInput":        {&telexecv1.SendInputRequest{CommandId: running, Data: []byte("x\n")}, notOperators, []string{olga}},
		"CommandService/ListCommands":     {&telexecv1.ListCommandsRequest{}, nil, nil},
		"EventService/WatchEvents":        {&telexecv1.WatchEventsRequest{}, nil, nil},
		"SessionService/OpenSession":      {&telexecv1.OpenSessionRequest{Host: host}, notOperators, nil},
		"SessionService/GetSession":       {&telexecv1.GetSessionRequest{Session: session}, nil, notAdmins},
		"SessionService/ListSessions":     {&telexecv1.ListSessionsRequest{}, nil, nil},
		"SessionService/CloseSession":     {&telexecv1.CloseSessionRequest{Session: session}, notOperators, []string{olga}},
		"SessionService/Attach":           {&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Session: session}}}, nil, notAdmins},
		"SessionService/ReadScreen":       {&telexecv1.ReadScreenRequest{Session: session}, nil, notAdmins},
		"SessionService/SendKeys":         {&telexecv1.SendKeysRequest{Session: session, Keys: keys("touch "+marker, "Enter")}, notOperators, []string{olga}},
		"SessionService/ReadRecording":    {&telexecv1.ReadRecordingRequest{Session: session}, nil, notAdmins},
		"TaskService/SubmitTask":          {submission(host, "touch "+marker), notOperators, nil},
		"TaskService/GetTask":             {&telexecv1.GetTaskRequest{TaskId: task}, nil, notAdmins},
		"TaskService/ListTasks":           {&telexecv1.ListTasksRequest{}, nil, nil},
		"TaskService/CancelTask":          {&telexecv1.CancelTaskRequest{TaskId: task}, notOperators, []string{olga}},
		"TaskService/UndoTask":            {&telexecv1.UndoTaskRequest{TaskId: task}, notOperators, []string{olga}},
		"TaskService/DecideTask":          {&telexecv1.DecideTaskRequest{TaskId: task, ApprovalId: step, Approved: new(true)}, nil, []string{vera, olga}},
		"TaskService/WatchTask":           {&telexecv1.WatchTaskRequest{TaskId: task}, nil, notAdmins},
		"HostService/ListHosts":           {&telexecv1.ListHostsRequest{}, nil, nil},
		"HostService/GetHost":             {&telexecv1.GetHostRequest{Host: host}, nil, nil},
		"HostService/CheckHost":           {&telexecv1.CheckHostRequest{Host: host}, notOperators, nil},
		"ApprovalService/ListApprovals":   {&telexecv1.ListApprovalsRequest{}, nil, nil},
		"ApprovalService/GetApproval":     {&telexecv1.GetApprovalRequest{CommandId: gated}, nil, []string{vera, olga}},
		"ApprovalService/DecideApprovals": {decide(gated, telexecv1.Verdict_VERDICT_REJECT), nil, []string{vera, olga}},
		"PolicyService/ExplainPolicy":     {&telexecv1.ExplainPolicyRequest{Host: host, Command: "ls", Principal: otto}, notAdmins, nil},
		"AdminService/GetServerInfo":      {&telexecv1.GetServerInfoRequest{}, nil, nil},
		"AdminService/CreateToken":        {&telexecv1.CreateTokenRequest{Principal: "mallory", Roles: []string{"admin"}}, notAdmins, nil},
		"AdminService/ListTokens":         {&telexecv1.ListTokensRequest{}, notAdmins, nil},
		"AdminService/RevokeToken":        {&telexecv1.RevokeTokenRequest{Principal: otto}, notAdmins, nil},
		"AdminService/ListAuditEntries":   {&telexecv1.ListAuditEntriesRequest{}, notAdmins, nil},
		"AdminService/VerifyAudit":        {&telexecv1.VerifyAuditRequest{}, notAdmins, nil},
		"AdminService/ExportAudit":        {&telexecv1.ExportAuditRequest{}, notAdmins, nil},
	}
}

// submission is a task with a single step.
func submission(host, line string) *telexecv1.SubmitTaskRequest {
	return &telexecv1.SubmitTaskRequest{Task: "watched", Steps: []*telexecv1.StepSpec{{Host: host, Command: line, Undo: "true"}}}
}

// elsewhere are calls that name a session where they could name a command, or a host, and
// a task where they need not.
func elsewhere(marker, session, task string) map[string]guarded {
	return map[string]guarded{
		"EventService/WatchEvents":    {&telexecv1.WatchEventsRequest{TaskSequences: map[string]int64{task: 0}}, nil, []string{vera, olga, anna}},
		"CommandService/Execute":      {&telexecv1.ExecuteRequest{Session: session, Command: "touch " + marker}, []string{vera, anna}, []string{olga}},
		"CommandService/GetStatus":    {&telexecv1.GetStatusRequest{Session: session}, nil, []string{vera, olga, anna}},
		"CommandService/Cancel":       {&telexecv1.CancelRequest{Session: session}, []string{vera, anna}, []string{olga}},
		"CommandService/ListCommands": {&telexecv1.ListCommandsRequest{Session: session}, nil, []string{vera, olga, anna}},
	}
}

// keys gives a text, and the names of keys behind it.
func keys(text string, names ...string) []*telexecv1.Key {
	list := []*telexecv1.Key{{Key: &telexecv1.Key_Text{Text: text}}}
	for _, name := range names {
		list = append(list, &telexecv1.Key{Key: &telexecv1.Key_Name{Name: name}})
	}
	return list
}

func decide(id string, v telexecv1.Verdict) *telexecv1.DecideApprovalsRequest {
	return &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{{CommandId: id, Verdict: v}}}
}

// refusal is what the audit tells refusals apart by.
type refusal struct{ principal, method, reason string }

// TestEveryDoorIsGuarded walks every call of the contract by gRPC and by REST, and
// what else the HTTP port answers, as strangers, with roles that are too weak and
// as somebody else. All are refused as documented, nothing comes of it, and the
// audit has each refusal.
func TestEveryDoorIsGuarded(t *testing.T) {
	t.Parallel()
	jwtSecret := rand.Text() + rand.Text()
	jwtFile := filepath.Join(t.TempDir(), "jwt.secret")
	if err := os.WriteFile(jwtFile, []byte(jwtSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	env := testenv.Start(t, testenv.WithConfig(`rate_limits: {address: {failures: 0}}
auth:
  jwt:
    - {name: corp, issuer: test, audience: telexec, secret_file: "`+jwtFile+`", roles: {ops: [operator]}}
policy:
  rules:
    - {name: counts, effect: require_approval, match: {programs: [factor]}}
sessions: {typing_roles: [operator]}`))
	w := &watchman{T: t, env: env, told: make(map[refusal]int)}
	w.tokens = map[string]secret.Text{
		"": env.Token, vera: env.Key(vera, "viewer"), olga: env.Key(olga, "operator"), otto: env.Key(otto, "operator"), anna: env.Key(anna, "approver"),
	}
	w.conns = make(map[string]*grpc.ClientConn)
	for name, token := range w.tokens {
		w.conns[name] = env.As(token)
	}
	// Where any user of the host may write.
	dir, err := os.MkdirTemp("", "telexec-guards-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	marker := filepath.Join(dir, "marker")
	his := telexecv1.NewCommandServiceClient(w.conns[otto])
	begun := func(line string) string {
		t.Helper()
		r, err := his.Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: line, StdinOpen: true, Wait: durationpb.New(0)})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetCommand().GetId()
	}
	running, gated := begun("read x; touch "+marker), begun("factor 6; touch "+marker)
	await(t, env, running, func(c *telexecv1.Command) bool {
		return c.GetState() == telexecv1.CommandState_COMMAND_STATE_RUNNING
	})
	session := w.session()
	task, step := w.task("factor 6; touch " + marker)
	w.calls = guardedCalls(env.Host, marker, running, gated, session, task, step)
	before := w.everything()

	w.walk(strangersOf(t, env, jwtSecret))
	w.others()
	w.elsewhere(elsewhere(marker, session, task))
	w.noMoreOf(running)
	w.browser()
	w.ownDecision(gated)

	if after := w.everything(); !reflect.DeepEqual(before, after) {
		t.Errorf("refused calls have changed something:\n%s\nis now\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a refused call has made the marker")
	}
	w.audited()
	w.sameRequestID()
	w.revokedUnderWay(running, task)
}

// task submits one of otto's, and gives its id and that of its command, which waits for
// people.
func (w *watchman) task(line string) (task, step string) {
	w.Helper()
	his := telexecv1.NewTaskServiceClient(w.conns[otto])
	t, err := his.SubmitTask(w.Context(), submission(w.env.Host, line))
	if err != nil {
		w.Fatal(err)
	}
	got, err := his.GetTask(w.Context(), &telexecv1.GetTaskRequest{TaskId: t.GetTask().GetId(), Wait: durationpb.New(time.Minute), Until: telexecv1.TaskWait_TASK_WAIT_APPROVAL})
	if err != nil || len(got.GetApprovals()) != 1 {
		w.Fatal(got, err)
	}
	return t.GetTask().GetId(), got.GetApprovals()[0].GetId()
}

// session opens one of otto's, and gives its id.
func (w *watchman) session() string {
	w.Helper()
	s, err := telexecv1.NewSessionServiceClient(w.conns[otto]).OpenSession(w.Context(), &telexecv1.OpenSessionRequest{Host: w.env.Host}, grpc.WaitForReady(true))
	if err != nil {
		w.Fatal(err)
	}
	id := s.GetSession().GetId()
	w.Cleanup(func() { closeShared(w, w.env, id) })
	return id
}

// watchman makes calls and notes what the audit must tell of them.
type watchman struct {
	*testing.T
	env    *testenv.Env
	tokens map[string]secret.Text // "" is the administrator's
	conns  map[string]*grpc.ClientConn
	calls  map[string]guarded
	told   map[refusal]int
}

// route is one way by REST to a call.
type route struct{ method, rule, path, body string }

// placeholder is a field in the path of a rule.
var placeholder = regexp.MustCompile(`\{([a-z_]+)\}`)

// routesOf gives the routes of a call with what the request says.
func routesOf(t testing.TB, m protoreflect.MethodDescriptor, request proto.Message) (routes []route) {
	t.Helper()
	rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule == nil { // a conversation, which REST has not
		return nil
	}
	for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		one := route{method: http.MethodGet, rule: r.GetGet()}
		if one.rule == "" {
			one.method, one.rule = http.MethodPost, r.GetPost()
		}
		if one.rule == "" {
			one.method, one.rule = http.MethodDelete, r.GetDelete()
		}
		if one.rule == "" {
			t.Fatalf("%s has a rule that is neither GET, POST nor DELETE: %v", m.FullName(), r)
		}
		rest := proto.Clone(request)
		one.path = placeholder.ReplaceAllStringFunc(one.rule, func(hole string) string {
			field := m.Input().Fields().ByName(protoreflect.Name(strings.Trim(hole, "{}")))
			value := rest.ProtoReflect().Get(field).String()
			rest.ProtoReflect().Clear(field)
			if value == "" {
				return "nothing"
			}
			return value
		})
		if r.GetBody() == "*" {
			body, err := protojson.Marshal(rest)
			if err != nil {
				t.Fatal(err)
			}
			one.body = string(body)
		} else if s := rest.ProtoReflect().Descriptor().Fields().ByName("session"); s != nil && rest.ProtoReflect().Has(s) {
			one.path += "?session=" + rest.ProtoReflect().Get(s).String()
		} else if r, ok := rest.(*telexecv1.WatchEventsRequest); ok {
			for id, sequence := range r.GetTaskSequences() {
				one.path += fmt.Sprintf("?task_sequences[%s]=%d", id, sequence)
			}
		}
		routes = append(routes, one)
	}
	return routes
}

// methods gives every method of every service of the contract.
func (w *watchman) methods(each func(name string, m protoreflect.MethodDescriptor, g guarded)) {
	w.Helper()
	known := maps.Clone(w.calls)
	protoregistry.GlobalFiles.RangeFilesByPackage("telexec.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				name := string(m.Parent().Name()) + "/" + string(m.Name())
				g, ok := known[name]
				if !ok {
					w.Errorf("%s is not in this test's table: who may call it?", name)
					continue
				}
				delete(known, name)
				each(name, m, g)
			}
		}
		return true
	})
	for name := range known {
		w.Errorf("%s is in this test's table and not in the contract", name)
	}
}

// lies are what a caller could say of itself; only the gateway is believed.
var lies = []string{"telexec-origin", "web", "telexec-address", "192.0.2.66", "telexec-client-bin", "admin", "x-forwarded-for", "192.0.2.66"}

// lying is the context of a call that carries them.
func (w *watchman) lying() context.Context {
	return metadata.AppendToOutgoingContext(w.Context(), lies...)
}

// grpc makes a call and checks how it is refused.
func (w *watchman) grpc(who string, conn *grpc.ClientConn, name string, request proto.Message, code codes.Code, reason, principal string) *status.Status {
	w.Helper()
	m := dynamicpb.NewMessage((&telexecv1.GetServerInfoResponse{}).ProtoReflect().Descriptor()) // nothing comes
	err := conn.Invoke(w.lying(), "/telexec.v1."+name, request, m)
	if st := status.Convert(err); st.Code() != code || reasonOf(st) != reason {
		w.Errorf("%s by gRPC with %s: %v, want %v %s", name, who, err, code, reason)
	}
	w.told[refusal{principal, name, reason}]++
	return status.Convert(err)
}

// reasonOf gives the reason of a status; empty where it has none.
func reasonOf(st *status.Status) string {
	for _, d := range st.Details() {
		if i, ok := d.(interface{ GetReason() string }); ok {
			return i.GetReason()
		}
	}
	return ""
}

// rest makes a request and checks how it is refused.
func (w *watchman) rest(who string, token secret.Text, r route, httpStatus int, told refusal, headers ...string) answer {
	w.Helper()
	authorization := ""
	if !token.IsZero() {
		authorization = "Bearer " + token.Reveal()
	}
	said := append([]string{"Authorization", authorization}, lies...)
	for i := 0; i < len(lies); i += 2 {
		said = append(said, "Grpc-Metadata-"+lies[i], lies[i+1])
	}
	a := rest(w.T, w.env, r.method, r.path, r.body, append(said, headers...)...)
	got := ""
	if a.status >= 400 {
		got, _ = a.reason(w.T)
	}
	if a.status != httpStatus || got != told.reason {
		w.Errorf("%s %s with %s: HTTP %d %s, want %d %s", r.method, r.path, who, a.status, a.body, httpStatus, told.reason)
	}
	w.told[told]++
	return a
}

// walk makes every call as every stranger.
func (w *watchman) walk(strangers []stranger) {
	for _, s := range strangers {
		code, httpStatus := codes.Unauthenticated, http.StatusUnauthorized
		if s.reason == fault.ReasonRoleMissing {
			code, httpStatus = codes.PermissionDenied, http.StatusForbidden
		}
		conn := w.env.As(s.token)
		var routes []route
		w.methods(func(name string, m protoreflect.MethodDescriptor, g guarded) {
			w.grpc(s.name, conn, name, g.request, code, s.reason, "")
			routes = append(routes, routesOf(w, m, g.request)...)
		})
		for _, r := range routes {
			w.rest(s.name, s.token, r, httpStatus, refusal{"", r.method + " " + r.rule, s.reason})
		}
		for _, path := range []string{"/", "/metrics", "/openapi.json"} {
			w.rest(s.name, s.token, route{"GET", path, path, ""}, httpStatus, refusal{"", "GET " + path, s.reason})
		}
		w.rest(s.name, s.token, route{"GET", "", "/v1/nothing", ""}, httpStatus, refusal{"", "GET other", s.reason})
		// A WebSocket is nothing but a GET to who may not come in.
		output := slices.IndexFunc(routes, func(r route) bool { return strings.HasSuffix(r.rule, "/output") })
		w.rest(s.name, s.token, routes[output], httpStatus, refusal{"", "GET " + routes[output].rule, s.reason}, upgrade...)
		const terminal = "/v1/sessions/{session}/terminal"
		w.rest(s.name, s.token, route{"GET", terminal, "/v1/sessions/deploy/terminal", ""}, httpStatus, refusal{"", "GET " + terminal, s.reason}, upgrade...)
		const updates = "/api/agent/{task_id}/updates"
		w.rest(s.name, s.token, route{"GET", updates, "/api/agent/" + absent + "/updates", ""}, httpStatus, refusal{"", "GET " + updates, s.reason}, upgrade...)
		if signedIn := w.login(s.token, httpStatus); signedIn != nil {
			w.Errorf("signed in with %s: %v", s.name, signedIn)
		}
		w.told[refusal{"", "POST /login", s.reason}]++
		// Not even what there is to call is told.
		w.grpc(s.name, conn, "NoService/Nothing", &telexecv1.ListHostsRequest{}, code, s.reason, "")
		delete(w.told, refusal{"", "NoService/Nothing", s.reason})
		w.told[refusal{"", "unknown", s.reason}]++
		reflection, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(w.lying())
		if err == nil {
			_, err = reflection.Recv()
		}
		if status.Code(err) != code {
			w.Errorf("reflection with %s: %v", s.name, err)
		}
		w.told[refusal{"", "ServerReflection/ServerReflectionInfo", s.reason}]++
	}
}

// upgrade asks for a WebSocket (RFC 6455 §4.1).
var upgrade = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}

// others makes every call with keys that are good, for something else.
func (w *watchman) others() {
	w.methods(func(name string, m protoreflect.MethodDescriptor, g guarded) {
		for _, who := range g.weak {
			w.grpc(who, w.conns[who], name, g.request, codes.PermissionDenied, fault.ReasonRoleMissing, who)
			for _, r := range routesFor(w, m, g.request) {
				w.rest(who, w.tokens[who], r, http.StatusForbidden, refusal{who, name, fault.ReasonRoleMissing})
			}
		}
		for _, who := range g.foreign {
			w.hidden(who, name, m, g.request)
		}
		if g.weak == nil && g.foreign == nil && !m.IsStreamingServer() { // open to all who are known
			if err := w.conns[vera].Invoke(w.Context(), "/telexec.v1."+name, g.request, dynamicpb.NewMessage(m.Output())); err != nil {
				w.Errorf("%s as a viewer: %v", name, err)
			}
		}
	})
	for _, who := range []string{vera, olga, anna} {
		list, err := telexecv1.NewCommandServiceClient(w.conns[who]).ListCommands(w.Context(), &telexecv1.ListCommandsRequest{})
		if err != nil || len(list.GetCommands()) != 0 {
			w.Errorf("%s lists %v, %v", who, list, err)
		}
		approvals, err := telexecv1.NewApprovalServiceClient(w.conns[who]).ListApprovals(w.Context(), &telexecv1.ListApprovalsRequest{})
		want := map[string]int{anna: 2}[who]
		if err != nil || len(approvals.GetApprovals()) != want {
			w.Errorf("%s lists %v, %v", who, approvals, err)
		}
		if told := w.events(who); len(told) != want {
			w.Errorf("%s is told of %v", who, told)
		}
		sessions, err := telexecv1.NewSessionServiceClient(w.conns[who]).ListSessions(w.Context(), &telexecv1.ListSessionsRequest{Ended: true})
		if err != nil || len(sessions.GetSessions()) != 0 {
			w.Errorf("%s lists %v, %v", who, sessions, err)
		}
		tasks, err := telexecv1.NewTaskServiceClient(w.conns[who]).ListTasks(w.Context(), &telexecv1.ListTasksRequest{})
		if err != nil || len(tasks.GetTasks()) != 0 {
			w.Errorf("%s lists %v, %v", who, tasks, err)
		}
	}
}

// elsewhere makes calls that name otto's session, or task, as those to whom it is nobody's.
func (w *watchman) elsewhere(calls map[string]guarded) {
	for name, g := range calls {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("telexec.v1." + strings.ReplaceAll(name, "/", ".")))
		if err != nil {
			w.Fatal(err)
		}
		m := d.(protoreflect.MethodDescriptor)
		for _, who := range g.weak {
			w.grpc(who, w.conns[who], name, g.request, codes.PermissionDenied, fault.ReasonRoleMissing, who)
		}
		for _, who := range g.foreign {
			w.hidden(who, name, m, g.request)
		}
	}
}

// routesFor gives the routes of a call that take what the request names: a command, or
// the session that it runs in.
func routesFor(t testing.TB, m protoreflect.MethodDescriptor, request proto.Message) []route {
	t.Helper()
	return slices.DeleteFunc(routesOf(t, m, request), func(r route) bool {
		return strings.HasPrefix(r.path, "/v1/commands/nothing") || strings.HasPrefix(r.path, "/v1/sessions/nothing")
	})
}

// events gives what somebody is told of who watches everything from the beginning on.
func (w *watchman) events(who string) (told []*telexecv1.Command) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	s, err := telexecv1.NewEventServiceClient(w.conns[who]).WatchEvents(ctx, &telexecv1.WatchEventsRequest{After: new(int64)})
	for err == nil {
		var m *telexecv1.WatchEventsResponse
		if m, err = s.Recv(); m.GetSynced() != nil {
			return told
		} else if m.GetCommand() != nil {
			told = append(told, m.GetCommand())
		} else if m.GetSession() != nil {
			w.Errorf("%s is told of a session: %v", who, m.GetSession())
		} else if m.GetTask() != nil || m.GetTaskEvent() != nil {
			w.Errorf("%s is told of a task: %v", who, m)
		}
	}
	w.Errorf("%s watches events: %v", who, err)
	return told
}

// hidden checks that otto's command and one that is not there are answered alike.
func (w *watchman) hidden(who, name string, m protoreflect.MethodDescriptor, request proto.Message) {
	w.Helper()
	gone := atAbsent(w, request)
	told := refusal{who, name, fault.ReasonAccessDenied}
	is := w.grpc(who, w.conns[who], name, request, codes.PermissionDenied, told.reason, who)
	isNot := w.grpc(who, w.conns[who], name, gone, codes.PermissionDenied, told.reason, who)
	if a, b := anonymous(fmt.Sprint(is.Message(), is.Details())), anonymous(fmt.Sprint(isNot.Message(), isNot.Details())); a != b {
		w.Errorf("%s tells %s that there is such a command:\n%s\n%s", name, who, a, b)
	}
	theirs, nobodys := routesFor(w, m, request), routesFor(w, m, gone)
	for i, r := range theirs {
		is := w.rest(who, w.tokens[who], r, http.StatusForbidden, told)
		isNot := w.rest(who, w.tokens[who], nobodys[i], http.StatusForbidden, told)
		var a, b any
		if err := json.Unmarshal([]byte(anonymous(string(is.body))), &a); err != nil {
			w.Error(err)
		}
		if err := json.Unmarshal([]byte(anonymous(string(isNot.body))), &b); err != nil || !reflect.DeepEqual(a, b) {
			w.Errorf("%s %s tells %s that there is such a command:\n%s\n%s", r.method, r.rule, who, is.body, isNot.body)
		}
	}
	// Only who may see everything is told that it is not there.
	if err := w.conns[""].Invoke(w.Context(), "/telexec.v1."+name, gone, dynamicpb.NewMessage(m.Output())); status.Code(err) != codes.NotFound {
		w.Errorf("%s of no command as the administrator: %v", name, err)
	}
}

var commandID = regexp.MustCompile(`[0-7][0-9A-HJKMNP-TV-Z]{25}`)

func anonymous(s string) string { return commandID.ReplaceAllString(s, "ID") }

// atAbsent gives the request for a command that is not there.
func atAbsent(t testing.TB, request proto.Message) proto.Message {
	t.Helper()
	text, err := protojson.Marshal(request)
	gone := request.ProtoReflect().New().Interface()
	if err == nil {
		err = protojson.Unmarshal(commandID.ReplaceAll(text, []byte(absent)), gone)
	}
	if err != nil {
		t.Fatal(err)
	}
	return gone
}

// noMoreOf checks what only HTTP has: no way around by another spelling of a path,
// no WebSocket opens, and no foreign page calls, also not with a good token.
func (w *watchman) noMoreOf(running string) {
	for _, path := range []string{"//metrics", "/metrics/", "/./metrics", "/healthz/../metrics", "/healthz/metrics", "/%6Detrics/", "/METRICS", "/V1/commands", "/v1//commands", "/debug/pprof/", "/login/", "/gateway"} {
		w.rest("no token", secret.Text{}, route{"GET", "", path, ""}, http.StatusUnauthorized, refusal{"", "GET other", fault.ReasonNoCredentials})
	}
	path := "/v1/commands/" + running + "/output"
	ask := append([]string{"Authorization", "Bearer " + w.tokens[otto].Reveal()}, upgrade...)
	if a := rest(w, w.env, "GET", path, "", ask...); a.status == http.StatusSwitchingProtocols {
		w.Error("a WebSocket was opened")
	}
	w.rest(otto, w.tokens[otto], route{"GET", "", path, ""}, http.StatusForbidden,
		refusal{"", "GET /v1/commands/{command_id}/output", fault.ReasonForbiddenOrigin}, append(upgrade, "Origin", "https://evil.example")...)
}

// login signs a browser in, and gives its cookie.
func (w *watchman) login(token secret.Text, want int) *http.Cookie {
	w.Helper()
	form := url.Values{"token": {token.Reveal()}}.Encode()
	r, err := http.NewRequestWithContext(w.Context(), "POST", "http://"+w.env.HTTPAddr+"/login", strings.NewReader(form))
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	transport := &http.Transport{DisableKeepAlives: true} // follows no redirect
	resp, err := transport.RoundTrip(r)
	if err != nil {
		w.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != want {
		w.Errorf("login: HTTP %d, want %d", resp.StatusCode, want)
	}
	for _, c := range resp.Cookies() {
		return c
	}
	return nil
}

// browser checks that a cookie is good for as long as its token is, for pages of
// this server, and for nothing that was changed in it.
func (w *watchman) browser() {
	cookie := w.login(w.env.Key("cora", "viewer"), http.StatusSeeOther)
	if cookie == nil || !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode {
		w.Fatalf("the cookie is %v", cookie)
	}
	hosts := route{"GET", "/v1/hosts", "/v1/hosts", ""}
	sent := cookie.Name + "=" + cookie.Value
	if a := rest(w, w.env, "GET", hosts.path, "", "Authorization", "", "Cookie", sent); a.status != http.StatusOK {
		w.Errorf("with the cookie: HTTP %d %s", a.status, a.body)
	}
	changed := []byte(sent)
	if at := len(changed) / 2; changed[at] == 'A' {
		changed[at] = 'B'
	} else {
		changed[at] = 'A'
	}
	w.rest("a changed cookie", secret.Text{}, hosts, http.StatusUnauthorized, refusal{"", "GET /v1/hosts", fault.ReasonBadCredentials}, "Cookie", string(changed))
	w.rest("a cookie, from elsewhere", secret.Text{}, hosts, http.StatusForbidden, refusal{"", "GET /v1/hosts", fault.ReasonForbiddenOrigin},
		"Cookie", sent, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	if _, err := w.env.Admin().RevokeToken(w.Context(), &telexecv1.RevokeTokenRequest{Principal: "cora"}); err != nil {
		w.Fatal(err)
	}
	w.rest("a cookie of a revoked key", secret.Text{}, hosts, http.StatusUnauthorized, refusal{"", "GET /v1/hosts", fault.ReasonTokenRevoked}, "Cookie", sent)
}

// ownDecision checks that nobody approves what is their own.
func (w *watchman) ownDecision(gated string) {
	shown, err := telexecv1.NewApprovalServiceClient(w.conns[otto]).GetApproval(w.Context(), &telexecv1.GetApprovalRequest{CommandId: gated})
	if err != nil {
		w.Fatal(err)
	}
	r := decide(gated, telexecv1.Verdict_VERDICT_APPROVE)
	r.Decisions[0].RequestHash = shown.GetApproval().GetRequestHash()
	w.grpc(otto, w.conns[otto], "ApprovalService/DecideApprovals", r, codes.PermissionDenied, fault.ReasonNotYourDecision, otto)
}

// everything tells what there is: commands, sessions, tasks, approvals and keys.
func (w *watchman) everything() (all []string) {
	w.Helper()
	commands, err := w.env.Commands().ListCommands(w.Context(), &telexecv1.ListCommandsRequest{PageSize: 1000})
	if err != nil {
		w.Fatal(err)
	}
	for _, c := range commands.GetCommands() {
		all = append(all, fmt.Sprint(c.GetId(), " ", c.GetState(), " version ", c.GetVersion()))
	}
	sessions, err := telexecv1.NewSessionServiceClient(w.env.Conn()).ListSessions(w.Context(), &telexecv1.ListSessionsRequest{Ended: true})
	if err != nil {
		w.Fatal(err)
	}
	for _, s := range sessions.GetSessions() {
		all = append(all, fmt.Sprint(s.GetId(), " ", s.GetState(), " viewers ", len(s.GetViewers()), " keyboard ", s.GetKeyboard()))
	}
	tasks, err := telexecv1.NewTaskServiceClient(w.env.Conn()).ListTasks(w.Context(), &telexecv1.ListTasksRequest{})
	if err != nil {
		w.Fatal(err)
	}
	for _, one := range tasks.GetTasks() {
		all = append(all, fmt.Sprint(one.GetId(), " ", one.GetState(), " version ", one.GetVersion()))
	}
	approvals, err := telexecv1.NewApprovalServiceClient(w.env.Conn()).ListApprovals(w.Context(), &telexecv1.ListApprovalsRequest{})
	if err != nil {
		w.Fatal(err)
	}
	for _, a := range approvals.GetApprovals() {
		all = append(all, fmt.Sprint(a.GetCommandId(), " ", a.GetState(), " decisions ", len(a.GetDecisions())))
	}
	tokens, err := w.env.Admin().ListTokens(w.Context(), &telexecv1.ListTokensRequest{PageSize: 1000, IncludeInactive: true})
	if err != nil {
		w.Fatal(err)
	}
	for _, k := range tokens.GetTokens() {
		if !slices.Contains([]string{"late", "fired", "cora"}, k.GetPrincipal()) { // made by the test itself
			all = append(all, fmt.Sprint(k.GetPrincipal(), " ", k.GetRoles(), " revoked ", k.GetRevokeTime().IsValid()))
		}
	}
	return all
}

// folded is a refusal by its door alone. Of a flood of many kinds within seconds, of
// strangers above all, the audit tells the door and the number.
func (r refusal) folded() refusal {
	switch verb, _, spaced := strings.Cut(r.method, " "); {
	case r.method == "REST", spaced && strings.ToUpper(verb) == verb:
		r.method = "REST"
	default:
		r.method = "gRPC"
	}
	return r
}

// audited checks that the audit has told every refusal, and no other one.
func (w *watchman) audited() {
	w.env.Restart() // what was counted is written
	got, want := make(map[refusal]int), make(map[refusal]int)
	for e := range auditOf(w.Context(), w.T, w.env, &telexecv1.ListAuditEntriesRequest{Kinds: []string{"refused"}}) {
		r := refusal{e.GetBy().GetPrincipal(), e.GetMethod(), e.GetReason()}
		got[r.folded()] += int(e.GetCount())
		many := r.method == "gRPC" || r.method == "REST"
		if !many && w.told[r] == 0 {
			w.Errorf("the audit has a refusal %+v that nobody has seen", r)
		}
		if e.GetAddress() != "127.0.0.1" || e.GetDetail() == "" || !many && (e.GetCallId() == "" || e.GetBy().GetOrigin() == telexecv1.Origin_ORIGIN_UNSPECIFIED) {
			w.Errorf("not told whole: %v", e)
		}
		if e.GetBy().GetOrigin() == telexecv1.Origin_ORIGIN_WEB && e.GetMethod() != "POST /login" && e.GetMethod() != "GET /v1/hosts" {
			w.Errorf("nobody has called so from a browser: %v", e)
		}
	}
	for r, n := range w.told {
		want[r.folded()] += n
	}
	for r, n := range want {
		if got[r] != n {
			w.Errorf("the audit has %d of %d refusals %+v", got[r], n, r)
		}
	}
	for r, n := range got {
		if want[r] == 0 {
			w.Errorf("the audit has %d refusals %+v that nobody has seen", n, r)
		}
	}
}

// sameRequestID checks that nobody gets at somebody else's command by its request
// id, which may be easy to guess.
func (w *watchman) sameRequestID() {
	r := &telexecv1.ExecuteRequest{Host: w.env.Host, Command: "true", RequestId: "nightly"}
	var ids []string
	for _, who := range []string{otto, olga, otto} {
		got, err := telexecv1.NewCommandServiceClient(w.conns[who]).Execute(w.Context(), r, grpc.WaitForReady(true))
		if err != nil || got.GetCommand().GetCreatedBy().GetPrincipal() != who {
			w.Fatalf("%s: %v, %v", who, got, err)
		}
		ids = append(ids, got.GetCommand().GetId())
	}
	if ids[0] != ids[2] || ids[0] == ids[1] {
		w.Errorf("otto, olga and otto again were given %q", ids)
	}
}

// revokedUnderWay checks that a stream ends with the key it was opened with, and
// that what the key has started goes on.
func (w *watchman) revokedUnderWay(running, task string) {
	s, err := telexecv1.NewCommandServiceClient(w.conns[otto]).StreamOutput(w.Context(), &telexecv1.StreamOutputRequest{CommandId: running, Follow: true})
	if err == nil {
		_, err = s.Recv()
	}
	events, eventsErr := telexecv1.NewEventServiceClient(w.conns[otto]).WatchEvents(w.Context(), &telexecv1.WatchEventsRequest{})
	if eventsErr == nil {
		_, eventsErr = events.Recv()
	}
	watch, watchErr := telexecv1.NewTaskServiceClient(w.conns[otto]).WatchTask(w.Context(), &telexecv1.WatchTaskRequest{TaskId: task})
	if watchErr == nil {
		_, watchErr = watch.Recv()
	}
	session := w.session() // the service was started anew
	terminal, terminalErr := telexecv1.NewSessionServiceClient(w.conns[otto]).Attach(w.Context())
	if terminalErr == nil {
		_ = terminal.Send(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Session: session}}})
		_, terminalErr = terminal.Recv()
	}
	if err != nil || eventsErr != nil || watchErr != nil || terminalErr != nil {
		w.Fatal(err, eventsErr, watchErr, terminalErr)
	}
	if _, err := w.env.Admin().RevokeToken(w.Context(), &telexecv1.RevokeTokenRequest{Principal: otto}); err != nil {
		w.Fatal(err)
	}
	for err == nil {
		_, err = s.Recv()
	}
	for eventsErr == nil {
		_, eventsErr = events.Recv()
	}
	for watchErr == nil {
		_, watchErr = watch.Recv()
	}
	for terminalErr == nil {
		_ = terminal.Send(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Input{Input: []byte("typed-behind-the-end")}})
		_, terminalErr = terminal.Recv()
	}
	for _, err := range []error{err, eventsErr, watchErr, terminalErr} {
		if st := status.Convert(err); st.Code() != codes.Unauthenticated || reasonOf(st) != fault.ReasonTokenRevoked {
			w.Errorf("a stream has ended with %v", err)
		}
	}
	if got := await(w, w.env, running, func(*telexecv1.Command) bool { return true }); got.GetState() != telexecv1.CommandState_COMMAND_STATE_RUNNING {
		w.Errorf("it does not go on: %v", got)
	}
	if s, err := telexecv1.NewSessionServiceClient(w.env.Conn()).ReadScreen(w.Context(), &telexecv1.ReadScreenRequest{Session: session}); err != nil ||
		s.GetSession().GetState() != telexecv1.SessionState_SESSION_STATE_OPEN || len(s.GetSession().GetViewers()) != 0 {
		w.Errorf("the session does not go on alone: %v, %v", s, err)
	}
	// A new key of the name has what was the old one's.
	again := telexecv1.NewCommandServiceClient(w.env.As(w.env.Key(otto, "operator")))
	if got, err := again.Cancel(w.Context(), &telexecv1.CancelRequest{CommandId: running}); err != nil || got.GetReport().GetOutcome() != gone {
		w.Errorf("%v, %v", got, err)
	}
}
