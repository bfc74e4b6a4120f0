package mcptool

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// all are the tools, and whether each acts.
var all = map[string]bool{
	"execute_command": true, "execute_command_async": true,
	"get_command_status": false, "get_command_output": false,
	"interrupt_command_by_id": true, "cancel_command": true, "send_command_input": true,
	"list_running_commands": false, "list_command_history": false, "list_hosts": false,
	"ssh_open_session": true, "ssh_list_sessions": false, "ssh_close_session": true, "ssh_run": true,
	"ssh_get_command_status": false, "ssh_cancel_running_command": true, "ssh_read_screen": false, "ssh_send_keys": true,
	"submit_task": true, "get_task_status": false, "cancel_task": true, "undo_task": true, "list_tasks": false,
}

// ofTasks reports whether a tool is of the toolset tasks.
func ofTasks(name string) bool { return strings.Contains(name, "_task") }

func offered(t *testing.T, session *mcp.ClientSession) []string {
	t.Helper()
	list, err := session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	return names
}

// TestEveryToolIsDeclared: a client and its model learn all they need.
func TestEveryToolIsDeclared(t *testing.T) {
	session := (&service{}).serve(t, Options{Version: "1.2.3"})
	list, err := session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Tools) != len(all) {
		t.Errorf("%d tools, want %d", len(list.Tools), len(all))
	}
	for _, tool := range list.Tools {
		acts, known := all[tool.Name]
		if !known {
			t.Errorf("%s is not known here", tool.Name)
		}
		if n := len(tool.Description); n < 40 || n > 800 {
			t.Errorf("%s: a description of %d bytes", tool.Name, n)
		}
		a := tool.Annotations
		if a == nil || a.Title == "" || a.DestructiveHint == nil || a.OpenWorldHint == nil {
			t.Fatalf("%s: annotations %+v", tool.Name, a)
		}
		if a.ReadOnlyHint == acts || *a.DestructiveHint != acts || !acts && !a.IdempotentHint {
			t.Errorf("%s: annotations %+v", tool.Name, a)
		}
		schema := tool.InputSchema.(map[string]any)
		if schema["type"] != "object" || schema["additionalProperties"] != false {
			t.Errorf("%s: input schema %v", tool.Name, schema)
		}
		for name, property := range schema["properties"].(map[string]any) {
			if p := property.(map[string]any); p["description"] == nil || p["type"] == nil {
				t.Errorf("%s: argument %s: %v", tool.Name, name, p)
			}
		}
		if out, ok := tool.OutputSchema.(map[string]any); !ok || out["type"] != "object" {
			t.Errorf("%s: output schema %v", tool.Name, tool.OutputSchema)
		}
	}
	info := session.InitializeResult()
	if info.ServerInfo.Version != "1.2.3" || !strings.Contains(info.Instructions, "do not start it again") {
		t.Errorf("%+v", info)
	}
}

func TestToolsets(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options Options
		want    func(name string, acts bool) bool
	}{
		{"all", Options{}, func(string, bool) bool { return true }},
		{"read-only", Options{ReadOnly: true}, func(_ string, acts bool) bool { return !acts }},
		{"hosts only", Options{Toolsets: []string{"hosts"}}, func(name string, _ bool) bool { return name == "list_hosts" }},
		{"run, but not stop", Options{Toolsets: []string{"execute", "observe"}}, func(name string, _ bool) bool {
			return !slices.Contains([]string{"list_hosts", "cancel_command", "interrupt_command_by_id", "send_command_input"}, name) && !strings.HasPrefix(name, "ssh_") && !ofTasks(name)
		}},
		{"sessions only", Options{Toolsets: []string{"sessions"}}, func(name string, _ bool) bool { return strings.HasPrefix(name, "ssh_") }},
		{"tasks only", Options{Toolsets: []string{"tasks"}}, func(name string, _ bool) bool { return ofTasks(name) }},
		{"tasks to look at", Options{Toolsets: []string{"tasks"}, ReadOnly: true}, func(name string, acts bool) bool { return ofTasks(name) && !acts }},
		{"sessions to look at", Options{Toolsets: []string{"sessions"}, ReadOnly: true}, func(name string, acts bool) bool { return strings.HasPrefix(name, "ssh_") && !acts }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := offered(t, (&service{}).serve(t, tt.options))
			for name, acts := range all {
				if slices.Contains(got, name) != tt.want(name, acts) {
					t.Errorf("%s: offered is %t", name, slices.Contains(got, name))
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []Options{{Toolsets: []string{"nope"}}, {Toolsets: []string{"control"}, ReadOnly: true}, {Hosts: []string{"web["}}, {Hosts: []string{""}}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// TestArguments: everything that can be said of a command reaches the service.
func TestArguments(t *testing.T) {
	s := &service{}
	session := s.serve(t, Options{})
	use(t, session, "execute_command", `{"host":"web1","command":"id","cwd":"/tmp","env":{"A":"b"},"stdin":"in","stdin_open":true,"sudo_user":"www","login_shell":true,
		"timeout":1.5,"request_id":"r1","labels":{"k":"v"},"max_bytes":1000,"format":"terminal","sessionName":null}`)
	r := asked[*telexecv1.ExecuteRequest](t, s)
	if r.GetHost() != "web1" || r.GetCommand() != "id" || r.GetWorkingDirectory() != "/tmp" || r.GetEnv()["A"] != "b" || string(r.GetStdin()) != "in" || !r.GetStdinOpen() ||
		r.GetSudo().GetUser() != "www" || !r.GetLoginShell() || r.GetTimeout().AsDuration() != 1500*time.Millisecond || r.GetRequestId() != "r1" || r.GetLabels()["k"] != "v" ||
		r.GetSession() != "" || r.GetPty() != nil {
		t.Errorf("%v", r)
	}
	use(t, session, "execute_command_async", `{"sessionName":"dev","command":"top","pty":true,"sudo":true}`)
	if r := asked[*telexecv1.ExecuteRequest](t, s); r.GetSession() != "dev" || r.GetPty() == nil || r.GetSudo() == nil || r.GetWait().AsDuration() != 0 {
		t.Errorf("%v", r)
	}
	use(t, session, "cancel_command", `{"command_id":"`+testID+`","reason":"why","grace_seconds":0}`)
	if r := asked[*telexecv1.CancelRequest](t, s); r.GetReason() != "why" || r.GetGrace() == nil || r.GetGrace().AsDuration() != 0 {
		t.Errorf("%v", r)
	}
	use(t, session, "send_command_input", `{"command_id":"`+testID+`","input":"AAE=","encoding":"base64","eof":true}`)
	if r := asked[*telexecv1.SendInputRequest](t, s); string(r.GetData()) != "\x00\x01" || !r.GetEof() {
		t.Errorf("%v", r)
	}
}

// TestUnprovenCancelIsAnError: a model must not take it for done.
func TestUnprovenCancelIsAnError(t *testing.T) {
	for outcome, bad := range map[telexecv1.CancelOutcome]bool{
		telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE: false, telexecv1.CancelOutcome_CANCEL_OUTCOME_ALREADY_ENDED: false,
		telexecv1.CancelOutcome_CANCEL_OUTCOME_LEFT: true, telexecv1.CancelOutcome_CANCEL_OUTCOME_UNPROVEN: true,
	} {
		text, isError := use(t, (&service{outcome: outcome}).serve(t, Options{}), "cancel_command", `{"command_id":"`+testID+`"}`)
		if isError != bad {
			t.Errorf("%s: isError %t: %s", outcome, isError, text)
		}
		if strings.Contains(text, "\x1b") || strings.Contains(text, "evil\n") {
			t.Errorf("the name of a process writes as it likes: %q", text)
		}
	}
}

// TestListsOfSomeHosts: what is not allowed is passed over, and the pages go on
// where they should.
func TestListsOfSomeHosts(t *testing.T) {
	s := &service{}
	for i := range 500 {
		host := "db1"
		if i%10 == 3 {
			host = "web1"
		}
		s.commands = append(s.commands, &telexecv1.Command{Id: testID[:20] + fmt.Sprintf("%06d", i), Host: host, Command: "c"})
	}
	session := s.serve(t, Options{Hosts: []string{"web*"}})
	var got []rowFacts
	arguments := `{"limit":20}`
	for pages := 0; ; pages++ {
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "list_command_history", Arguments: json.RawMessage(arguments)})
		if err != nil {
			t.Fatal(err)
		}
		var list listFacts
		b, _ := json.Marshal(result.StructuredContent)
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Commands) > 20 {
			t.Errorf("a page of %d", len(list.Commands))
		}
		got = append(got, list.Commands...)
		if list.NextPageToken == "" {
			break
		}
		if pages > 10 {
			t.Fatal("the pages do not end")
		}
		arguments = `{"limit":20,"page_token":"` + list.NextPageToken + `"}`
	}
	for i, row := range got {
		if want := fmt.Sprintf("%06d", 10*i+3); row.Host != "web1" || !strings.HasSuffix(row.CommandID, want) {
			t.Fatalf("row %d is %+v, want %s", i, row, want)
		}
	}
	if len(got) != 50 {
		t.Errorf("%d commands, want 50", len(got))
	}
}

func TestCheckHosts(t *testing.T) {
	s := &service{hosts: []*telexecv1.Host{{Name: "up", Labels: map[string]string{"role": "web"}}, {Name: "down"}}}
	session := s.serve(t, Options{})
	if text, _ := use(t, session, "list_hosts", `{}`); strings.Count(text, "unknown") != 2 {
		t.Error(text)
	}
	text, _ := use(t, session, "list_hosts", `{"check":true}`)
	if !strings.Contains(text, "reachable: yes") || !strings.Contains(text, "reachable: no (HOST_UNREACHABLE)") || !strings.Contains(text, "role=web") {
		t.Error(text)
	}
}

// TestCallersTokens: whatever a caller asks for is asked with his token, by many at
// once, and never with the adapter's.
func TestCallersTokens(t *testing.T) {
	s := &service{hosts: []*telexecv1.Host{{Name: "a"}, {Name: "b"}}}
	server, err := New(Options{Client: s.dial(t)})
	if err != nil {
		t.Fatal(err)
	}
	server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) { // as the HTTP server does
			caller, _ := req.GetParams().GetMeta()["caller"].(string)
			extra := &mcp.RequestExtra{TokenInfo: &auth.TokenInfo{Extra: map[string]any{TokenKey: client.Token(caller)}}}
			switch req := req.(type) {
			case *mcp.CallToolRequest:
				req.Extra = extra
			case *mcp.ReadResourceRequest:
				req.Extra = extra
			case *mcp.ListResourcesRequest:
				req.Extra = extra
			}
			return next(ctx, method, req)
		}
	})
	here, there := mcp.NewInMemoryTransports()
	serving, err := server.Connect(t.Context(), there, nil)
	if err != nil {
		t.Fatal(err)
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test"}, nil).Connect(t.Context(), here, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(); _ = serving.Wait() })

	arguments := map[string]string{
		"execute_command": `{"host":"a","command":"c"}`, "execute_command_async": `{"host":"a","command":"c"}`, "list_hosts": `{"check":true}`,
		"ssh_get_command_status": `{"sessionName":"x"}`, "ssh_cancel_running_command": `{"sessionName":"x"}`, "ssh_list_sessions": `{}`,
		"ssh_open_session": `{"host":"a"}`, "ssh_close_session": `{"sessionName":"x"}`, "ssh_run": `{"sessionName":"x","command":"c"}`,
		"ssh_read_screen": `{"sessionName":"x"}`, "ssh_send_keys": `{"sessionName":"x","keys":[{"text":"y"}]}`,
		"list_running_commands": `{}`, "list_command_history": `{}`, "list_tasks": `{}`,
		"submit_task":     `{"task":"t","steps":[{"host":"a","command":"c"}],"wait_seconds":0}`,
		"get_task_status": `{"task_id":"` + testID + `"}`, "cancel_task": `{"task_id":"` + testID + `"}`, "undo_task": `{"task_id":"` + testID + `","preview":true}`,
		"get_command_status": `{"command_id":"` + testID + `","until_pattern":"x","wait_seconds":1}`,
		"get_command_output": `{"command_id":"` + testID + `","pattern":"x"}`,
	}
	var wg sync.WaitGroup
	for i := range 20 {
		meta := mcp.Meta{"caller": fmt.Sprintf("caller%d", i)}
		wg.Go(func() {
			for name := range all {
				in, ok := arguments[name]
				if !ok {
					in = `{"command_id":"` + testID + `"}`
				}
				if _, err := session.CallTool(t.Context(), &mcp.CallToolParams{Meta: meta, Name: name, Arguments: json.RawMessage(in)}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := session.ListResources(t.Context(), &mcp.ListResourcesParams{Meta: meta}); err != nil {
				t.Error(err)
			}
			if _, err := session.ReadResource(t.Context(), &mcp.ReadResourceParams{Meta: meta, URI: resourceURI(testID, streamStdout)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	calls := map[string]int{}
	for _, token := range s.tokens {
		calls[token]++
	}
	for token, n := range calls {
		if !strings.HasPrefix(token, "Bearer caller") || n != len(s.tokens)/20 {
			t.Errorf("%d calls with %q, want %d", n, token, len(s.tokens)/20)
		}
	}
	if len(calls) != 20 {
		t.Errorf("%d callers", len(calls))
	}
}

// FuzzArguments calls tools with whatever arguments. Every answer is a result or an
// error of the protocol, fits the schema, is valid UTF-8 and of bounded size.
func FuzzArguments(f *testing.F) {
	names := []string{"no_such_tool"}
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, arguments := range []string{
		`{}`, `null`, `[]`, `"x"`, `{"command_id":"` + testID + `"}`, `{"command_id":null,"wait_seconds":-1}`,
		`{"host":"web1","command":"true","env":{"A":null},"timeout":1e309}`, `{"command_id":"` + testID + `","offset":9223372036854775807,"max_bytes":256}`,
		`{"command_id":"` + testID + `","pattern":"(a*)*$","offset":0}`, `{"command_id":"` + testID + `","tail_lines":1,"head_lines":1}`,
		`{"command_id":"` + testID + `","until_pattern":"x{1000}{1000}","wait_seconds":1e-9}`, `{"since":"1h","before":"now","states":["running","x"]}`,
		`{"sessionName":"x","host":"web1","command":"c","keys":[{"text":"a"},{"key":"Ctrl+C"}],"columns":2,"rows":500}`, `{"sessionName":"x","keys":[{}],"scrollback_lines":10000}`,
		`{"task_id":"` + testID + `","until":"ended","wait_seconds":1e-9,"step":"x"}`, `{"task":"t","steps":[{"host":"web1","command":"c","retry":null,"timeout":1e309}]}`,
		`{"task":"","steps":[null],"validate_only":true}`, `{"task":"t","steps":[{"host_labels":{"a":"b"},"retry":{"times":3},"rollout":{"canary":null}}],"priority":-100}`,
		`{"limit":200,"page_token":"\u0000"}`, `{"sessionName":"` + strings.Repeat("x", 100) + `"}`, `{"host":"\ud800","command":"\u0000"}`,
	} {
		for i := range names {
			f.Add(uint8(i), arguments, "out\x1b[0m\xff")
		}
	}
	s := &service{}
	session := s.serve(f, Options{Hosts: []string{"web*"}})
	f.Fuzz(func(t *testing.T, tool uint8, arguments, output string) {
		if !json.Valid([]byte(arguments)) {
			t.Skip("the client would not send it")
		}
		s.stdout, s.stderr = output, output
		name := names[int(tool)%len(names)]
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: json.RawMessage(arguments)})
		if err != nil {
			if name != "no_such_tool" && !strings.Contains(err.Error(), "invalid") && !strings.Contains(err.Error(), "unmarshal") {
				t.Fatalf("%s %s: %v", name, arguments, err)
			}
			return
		}
		if err := fits(result.StructuredContent, schemas(t)[name]); err != nil {
			t.Errorf("%s %s: %v", name, arguments, err)
		}
		text := result.Content[0].(*mcp.TextContent).Text
		if !utf8.ValidString(text) {
			t.Errorf("%s %s: %q", name, arguments, text)
		}
		// Arguments come back only in part. JSON may write a byte of output with six.
		structured, _ := json.Marshal(result.StructuredContent)
		if most := 2*len(output) + 12<<10; len(text) > most || len(structured) > 6*most {
			t.Errorf("%s %s: %d bytes of text, %d of JSON", name, arguments, len(text), len(structured))
		}
	})
}

// TestParamsThatAreMissing: no request, however little is in it, ends the adapter.
func TestParamsThatAreMissing(t *testing.T) {
	s := &service{}
	server, err := New(Options{Client: s.dial(t)})
	if err != nil {
		t.Fatal(err)
	}
	here, there := mcp.NewInMemoryTransports()
	serving, err := server.Connect(t.Context(), there, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := here.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = serving.Wait() })
	send := func(id int64, method, params string) *jsonrpc.Response {
		t.Helper()
		msg, err := jsonrpc.DecodeMessage([]byte(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q%s}`, id, method, params)))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Write(t.Context(), msg); err != nil {
			t.Fatalf("%s%s: %v", method, params, err)
		}
		answer, err := conn.Read(t.Context())
		if err != nil {
			t.Fatalf("%s%s: %v", method, params, err)
		}
		return answer.(*jsonrpc.Response)
	}
	send(1, "initialize", `,"params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}`)
	id := int64(1)
	for _, method := range []string{
		methodTaskGet, methodTaskCancel, methodTaskUpdate, "tools/call", "tools/list", "resources/list", "resources/read", "resources/templates/list",
		"prompts/list", "prompts/get", "completion/complete", "logging/setLevel", "ping", "subscriptions/listen", "server/discover",
	} {
		for _, params := range []string{"", `,"params":null`, `,"params":{}`, `,"params":[]`, `,"params":{"_meta":null}`, `,"params":{"taskId":null,"name":null,"uri":null}`} {
			id++
			if answer := send(id, method, params); answer.ID.Raw() != id {
				t.Errorf("%s%s: answer to %v", method, params, answer.ID.Raw())
			}
		}
	}
}

// TestDearPatterns: a pattern that takes minutes for a line is refused before it
// is tried; those that people write are not.
func TestDearPatterns(t *testing.T) {
	for pattern, fine := range map[string]bool{
		"(" + strings.Repeat("x?", 490) + "){1000}y":     false,
		"((a{100}){100}){100}":                           false,
		"(x+x+)+y":                                       true,
		`^\d{4}-\d{2}-\d{2}T.*(ERROR|WARN) [a-z]{1,64}:`: true,
		"[[:alpha:]]{500}":                               true,
		strings.Repeat("a", 999):                         true,
		"(":                                              false,
	} {
		if _, err := compile(pattern); (err == nil) != fine {
			t.Errorf("%.40s: %v", pattern, err)
		}
	}
}
