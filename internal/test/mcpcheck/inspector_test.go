package mcpcheck

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// inspection is the Inspector before one of the doors of telexec-mcp. Every call
// is a process and a connection of its own.
type inspection struct {
	env  *testenv.Env
	dir  string   // of the npm modules
	door []string // arguments that lead to telexec-mcp
	// modern is for protocol 2026-07-28 and later. The Inspector then follows tasks.
	modern bool
}

// toolAnswer is what a tool has answered.
type toolAnswer struct {
	Content           []struct{ Type, Text string }
	StructuredContent json.RawMessage
	IsError           bool
}

// text is the answer in words.
func (a toolAnswer) text() (s string) {
	for _, c := range a.Content {
		s += c.Text
	}
	return s
}

func TestInspector(t *testing.T) {
	dir := modules(t)
	env := testenv.Start(t)
	stdio := []string{testenv.Build(t, "telexec-mcp")}
	for name, value := range map[string]string{
		"TELEXEC_SERVER": env.GRPCAddr, "TELEXEC_TOKEN": env.Token.Reveal(), "GOCOVERDIR": os.Getenv("GOCOVERDIR"),
	} {
		if value != "" { // the Inspector refuses what is empty
			stdio = append(stdio, "-e", name+"="+value)
		}
	}
	http := []string{serve(t, env), "--transport", "http", "--header", "Authorization: Bearer " + env.Token.Reveal()}
	for _, way := range []struct {
		name string
		door []string
		era  string
	}{
		{"stdio, before 2026-07-28", stdio, "legacy"},
		{"stdio, 2026-07-28", stdio, "modern"},
		{"http, before 2026-07-28", http, "legacy"},
		{"http, 2026-07-28", http, "modern"},
	} {
		t.Run(way.name, func(t *testing.T) {
			i := &inspection{env, dir, slices.Concat(way.door, []string{"--protocol-era", way.era}), way.era == "modern"}
			i.tools(t)
			t.Run("resources", func(t *testing.T) {
				t.Parallel()
				i.resources(t)
			})
		})
	}
}

// ask calls a method and decodes what came of it. It fails the test unless the
// Inspector ends with the code.
func (i *inspection) ask(t *testing.T, code int, into any, args ...string) {
	t.Helper()
	r := run(t.Context(), t, i.dir, inspector, slices.Concat([]string{"--cli", "--format", "json", "--quiet"}, i.door, args)...)
	if r.code != code {
		t.Fatalf("%s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	envelope := struct{ Result any }{into}
	if err := json.Unmarshal([]byte(r.stdout), &envelope); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, r.stdout, r.stderr)
	}
}

// call calls a tool that must succeed.
func (i *inspection) call(t *testing.T, tool string, arguments map[string]any, into any) toolAnswer {
	t.Helper()
	const succeeded = 0
	return i.callFor(t, succeeded, tool, arguments, into)
}

// refused calls a tool that must say why it cannot do that.
func (i *inspection) refused(t *testing.T, tool string, arguments map[string]any, into any) toolAnswer {
	t.Helper()
	const isError = 5 // exit code of the Inspector
	return i.callFor(t, isError, tool, arguments, into)
}

func (i *inspection) callFor(t *testing.T, code int, tool string, arguments map[string]any, into any) (a toolAnswer) {
	t.Helper()
	i.ask(t, code, &a, "--method", "tools/call", "--tool-name", tool, "--tool-args-json", string(raw(arguments)))
	if a.IsError != (code != 0) || a.text() == "" {
		t.Errorf("%s: %+v", tool, a)
	}
	if err := json.Unmarshal(a.StructuredContent, into); err != nil {
		t.Errorf("%s: %v: %s", tool, err, a.StructuredContent)
	}
	return a
}

// tools lists the tools and calls each of them.
func (i *inspection) tools(t *testing.T) {
	var list struct {
		Tools []struct {
			Name, Title, Description  string
			InputSchema, OutputSchema struct{ Type string }
			Annotations               map[string]any
		}
	}
	// strict: also if only some clients would not understand a schema.
	i.ask(t, 0, &list, "--method", "tools/list", "--strict")
	listed := map[string]bool{}
	for _, tool := range list.Tools {
		listed[tool.Name] = true
		if tool.Title == "" || tool.Description == "" || tool.InputSchema.Type != "object" || tool.OutputSchema.Type != "object" || tool.Annotations["readOnlyHint"] == nil && tool.Annotations["destructiveHint"] == nil {
			t.Errorf("a tool is not told in full: %+v", tool)
		}
		t.Run(tool.Name, func(t *testing.T) {
			t.Parallel()
			call, ok := calls[tool.Name]
			if !ok {
				t.Fatal("nothing here calls this tool")
			}
			call(t, i)
		})
	}
	for name := range calls {
		if !listed[name] {
			t.Errorf("there is no tool %s", name)
		}
	}
}

// command is what all answers about a command have.
type command struct {
	ID       string `json:"command_id"`
	State    string
	Ended    bool
	Host     string
	ExitCode *int   `json:"exit_code"`
	Signal   string `json:"exit_signal"`
	Stdout   string
	Stderr   string
}

func (c command) exited(code int) bool {
	return c.State == "completed" && c.Ended && c.ExitCode != nil && *c.ExitCode == code
}

// sleep starts a command that goes on until somebody ends it.
func (i *inspection) sleep(t *testing.T) (id string) {
	return begin(t, i.env, &telexecv1.ExecuteRequest{Command: "echo up; exec sleep 600"})
}

// calls has for every tool what calls it.
var calls = map[string]func(*testing.T, *inspection){
	"execute_command": func(t *testing.T, i *inspection) {
		var c command
		a := i.call(t, "execute_command", map[string]any{
			"host": i.env.Host, "command": `printf '%s ' "$PWD" "$A"; cat; printf err >&2; exit 3`,
			"cwd": "/usr", "env": map[string]any{"A": "of env"}, "stdin": "of stdin",
		}, &c)
		if !c.exited(3) || c.Stdout != "/usr of env of stdin" || c.Stderr != "err" || !strings.Contains(a.text(), c.Stdout) || !strings.Contains(a.text(), "exit code 3") {
			t.Errorf("%+v\n%s", c, a.text())
		}
		i.call(t, "execute_command", map[string]any{"host": i.env.Host, "command": "sleep 2; echo late", "wait_seconds": 0}, &c)
		switch {
		case i.modern && (!c.exited(0) || c.Stdout != "late\n"):
			t.Errorf("of a command that it followed as a task: %+v", c)
		case !i.modern && (c.Ended || c.ID == "" || c.Stderr != "ASYNC:"+c.ID || c.ExitCode == nil || *c.ExitCode != 124):
			t.Errorf("of a command that goes on: %+v", c)
		}
		c = command{}
		i.refused(t, "execute_command", map[string]any{"host": i.env.Host, "command": "true", "cwd": "/nowhere"}, &c)
		if c.State != "failed" {
			t.Errorf("of a command that cannot start: %+v", c)
		}
	},
	"execute_command_async": func(t *testing.T, i *inspection) {
		var c command
		i.call(t, "execute_command_async", map[string]any{"host": i.env.Host, "command": "sleep 1; echo late"}, &c)
		if c.Ended || c.Host != i.env.Host {
			t.Errorf("%+v", c)
		}
		if _, out := end(t, i.env, c.ID); out != "late\n" {
			t.Errorf("%s printed %q", c.ID, out)
		}
	},
	"get_command_status": func(t *testing.T, i *inspection) {
		id := start(t, i.env, &telexecv1.ExecuteRequest{Command: "sleep 2; echo ready for all; exec sleep 600"})
		var c struct {
			command
			Why   string
			Match struct{ Line string }
		}
		i.call(t, "get_command_status", map[string]any{"command_id": id, "wait_seconds": 40, "until_pattern": "^ready"}, &c)
		if c.ID != id || c.Ended || c.Why != "pattern" || c.Match.Line != "ready for all" {
			t.Errorf("%+v", c)
		}
		var refusal struct{ Error struct{ Reason, Hint string } }
		i.refused(t, "get_command_status", map[string]any{"command_id": strings.Repeat("0", 26)}, &refusal)
		if refusal.Error.Reason != "UNKNOWN_COMMAND" || refusal.Error.Hint == "" {
			t.Errorf("of a command that there is not: %+v", refusal)
		}
	},
	"get_command_output": func(t *testing.T, i *inspection) {
		id := start(t, i.env, &telexecv1.ExecuteRequest{Command: "seq 100000; echo err >&2", Wait: wait})
		var page struct {
			command
			Matches []struct{ Line string }
			Info    struct{ Bytes int } `json:"stdout_info"`
		}
		i.call(t, "get_command_output", map[string]any{"command_id": id, "stream": "stdout", "tail_lines": 2}, &page)
		if page.Stdout != "99999\n100000\n" || page.Info.Bytes != 588895 {
			t.Errorf("the last lines: %+v", page)
		}
		i.call(t, "get_command_output", map[string]any{"command_id": id, "stream": "stdout", "offset": 588895 - 7}, &page)
		if page.Stdout != "100000\n" {
			t.Errorf("a page: %+v", page)
		}
		i.call(t, "get_command_output", map[string]any{"command_id": id, "pattern": "^77.77$"}, &page)
		if len(page.Matches) != 10 || page.Matches[9].Line != "77977" {
			t.Errorf("matching lines: %+v", page)
		}
	},
	"interrupt_command_by_id": func(t *testing.T, i *inspection) {
		id := begin(t, i.env, &telexecv1.ExecuteRequest{Command: "trap 'echo caught; exit 7' INT; echo up; while :; do sleep 0.1; done"})
		var c command
		i.call(t, "interrupt_command_by_id", map[string]any{"command_id": id}, &c)
		if ended, out := end(t, i.env, id); c.ID != id || ended.GetExitCode() != 7 || out != "up\ncaught\n" {
			t.Errorf("%+v, then %v: %q", c, ended, out)
		}
	},
	"cancel_command": func(t *testing.T, i *inspection) {
		id := i.sleep(t)
		var c struct {
			command
			Outcome, Message string
		}
		i.call(t, "cancel_command", map[string]any{"command_id": id, "reason": "seen enough", "grace_seconds": 5}, &c)
		if c.ID != id || c.State != "cancelled" || c.Outcome != "gone" || c.Message == "" {
			t.Errorf("%+v", c)
		}
		if ended, _ := end(t, i.env, id); ended.GetCancellation().GetReason() != "seen enough" {
			t.Errorf("the reason is not kept: %v", ended)
		}
	},
	"send_command_input": func(t *testing.T, i *inspection) {
		id := begin(t, i.env, &telexecv1.ExecuteRequest{Command: "echo up; cat", StdinOpen: true})
		var c struct {
			command
			Bytes int `json:"stdin_bytes"`
		}
		i.call(t, "send_command_input", map[string]any{"command_id": id, "input": "hello\n", "eof": true}, &c)
		if _, out := end(t, i.env, id); c.Bytes != 6 || out != "up\nhello\n" {
			t.Errorf("%+v, then %q", c, out)
		}
	},
	"list_running_commands": func(t *testing.T, i *inspection) {
		id := i.sleep(t)
		var list struct{ Commands []command }
		i.call(t, "list_running_commands", map[string]any{}, &list)
		if !slices.ContainsFunc(list.Commands, func(c command) bool { return c.ID == id && c.State == "running" }) {
			t.Errorf("%s is not in %+v", id, list)
		}
	},
	"list_command_history": func(t *testing.T, i *inspection) {
		id := start(t, i.env, &telexecv1.ExecuteRequest{Command: "exit 4", Wait: wait})
		var list struct{ Commands []command }
		i.call(t, "list_command_history", map[string]any{"host": i.env.Host}, &list)
		if !slices.ContainsFunc(list.Commands, func(c command) bool { return c.ID == id && c.exited(4) }) {
			t.Errorf("%s is not in %+v", id, list)
		}
	},
	"list_hosts": func(t *testing.T, i *inspection) {
		var list struct {
			Hosts []struct{ Name, Reachable string }
		}
		a := i.call(t, "list_hosts", map[string]any{"check": true}, &list)
		if len(list.Hosts) != len(i.env.Servers) || !strings.Contains(a.text(), i.env.Host) {
			t.Errorf("%+v\n%s", list, a.text())
		}
		for _, h := range list.Hosts {
			if i.env.Servers[h.Name] == nil || h.Reachable != "yes" {
				t.Errorf("%+v", h)
			}
		}
	},
	"ssh_open_session": func(t *testing.T, i *inspection) {
		var s session
		name := i.session(t)
		i.call(t, "ssh_open_session", map[string]any{"host": i.env.Host, "sessionName": name}, &s)
		if s.SessionName != name || s.State != "open" || !s.Reused {
			t.Errorf("%+v", s)
		}
	},
	"ssh_run": func(t *testing.T, i *inspection) {
		name := i.session(t)
		var c command
		i.call(t, "ssh_run", map[string]any{"sessionName": name, "command": "cd /usr"}, &c)
		i.call(t, "ssh_run", map[string]any{"sessionName": name, "command": "pwd; (exit 3)"}, &c)
		if !c.exited(3) || strings.TrimSpace(c.Stdout) != "/usr" {
			t.Errorf("%+v", c)
		}
		i.call(t, "ssh_run", map[string]any{"sessionName": name, "command": "sleep 2; echo late", "wait_seconds": 0}, &c)
		if i.modern && (!c.exited(0) || strings.TrimSpace(c.Stdout) != "late") || !i.modern && (c.Ended || c.ID == "") {
			t.Errorf("of a command that is not done at once: %+v", c)
		}
	},
	"ssh_get_command_status": func(t *testing.T, i *inspection) {
		name := i.session(t)
		var c struct {
			SessionName, Status string
			Task                command
		}
		i.call(t, "ssh_get_command_status", map[string]any{"sessionName": name}, &c)
		if c.SessionName != name || c.Status != "no_task" {
			t.Errorf("where nothing ran: %+v", c)
		}
		id := begin(t, i.env, &telexecv1.ExecuteRequest{Session: name, Command: "echo up; sleep 1; (exit 4)"})
		i.call(t, "ssh_get_command_status", map[string]any{"sessionName": name, "wait_seconds": 40}, &c)
		if c.Status != "completed" || c.Task.ID != id || !c.Task.exited(4) {
			t.Errorf("%+v", c)
		}
	},
	"ssh_cancel_running_command": func(t *testing.T, i *inspection) {
		name := i.session(t)
		id := begin(t, i.env, &telexecv1.ExecuteRequest{Session: name, Command: "echo up; sleep 600"})
		var c struct {
			Status string
			Cancel struct{ Outcome string }
		}
		i.call(t, "ssh_cancel_running_command", map[string]any{"sessionName": name}, &c)
		if ended, _ := end(t, i.env, id); c.Status != "cancelled" || c.Cancel.Outcome != "gone" || ended.GetState() != telexecv1.CommandState_COMMAND_STATE_CANCELLED {
			t.Errorf("%+v, %v", c, ended)
		}
		i.call(t, "ssh_cancel_running_command", map[string]any{"sessionName": name}, &c)
		if c.Status != "no_task" {
			t.Errorf("where nothing runs: %+v", c)
		}
	},
	"ssh_list_sessions": func(t *testing.T, i *inspection) {
		name := i.session(t)
		var list struct{ Sessions []session }
		i.call(t, "ssh_list_sessions", map[string]any{}, &list)
		if !slices.ContainsFunc(list.Sessions, func(s session) bool { return s.SessionName == name && s.State == "open" && s.Host == i.env.Host }) {
			t.Errorf("%s is not in %+v", name, list)
		}
	},
	"ssh_read_screen": func(t *testing.T, i *inspection) {
		name := i.session(t)
		begin(t, i.env, &telexecv1.ExecuteRequest{Session: name, Command: "echo up to date; sleep 600"})
		var s struct{ Screen string }
		i.call(t, "ssh_read_screen", map[string]any{"sessionName": name}, &s)
		if !strings.Contains(s.Screen, "\nup to date") {
			t.Errorf("%+v", s)
		}
	},
	"ssh_send_keys": func(t *testing.T, i *inspection) {
		name := i.session(t)
		id := begin(t, i.env, &telexecv1.ExecuteRequest{Session: name, Command: "echo up; read x; echo is $x"})
		var s struct{ Screen string }
		i.call(t, "ssh_send_keys", map[string]any{"sessionName": name, "keys": []map[string]string{{"text": "it"}, {"key": "Enter"}}}, &s)
		if _, out := end(t, i.env, id); !strings.Contains(out, "is it") || !strings.Contains(s.Screen, "is it") {
			t.Errorf("%+v, then %q", s, out)
		}
	},
	"ssh_close_session": func(t *testing.T, i *inspection) {
		name := i.session(t)
		begin(t, i.env, &telexecv1.ExecuteRequest{Session: name, Command: "echo up; sleep 600"})
		var s session
		i.call(t, "ssh_close_session", map[string]any{"sessionName": name, "reason": "seen enough"}, &s)
		if s.State != "ended" || s.Outcome != "gone" {
			t.Errorf("%+v", s)
		}
		var refusal struct{ Error struct{ Reason string } }
		i.refused(t, "ssh_run", map[string]any{"sessionName": name, "command": "true"}, &refusal)
		if refusal.Error.Reason != "SESSION_ENDED" {
			t.Errorf("of a session that is closed: %+v", refusal)
		}
	},
	"submit_task": func(t *testing.T, i *inspection) {
		var p plan
		i.call(t, "submit_task", map[string]any{"task": "two steps", "steps": []map[string]any{
			{"name": "one", "host": i.env.Host, "command": "true"}, {"name": "two", "host": i.env.Host, "command": "exit 3", "on_failure": "continue"},
		}}, &p)
		if p.State != "completed" || len(p.Steps) != 2 || p.Steps[0].State != "completed" || p.Steps[1].State != "failed" {
			t.Errorf("%+v", p)
		}
		var refusal struct{ Error struct{ Reason string } }
		i.refused(t, "submit_task", map[string]any{"task": "nowhere", "steps": []map[string]any{{"host": "nowhere", "command": "true"}}}, &refusal)
		if refusal.Error.Reason != "UNKNOWN_HOST" {
			t.Errorf("on a host that is not there: %+v", refusal)
		}
	},
	"get_task_status": func(t *testing.T, i *inspection) {
		id := i.task(t, "sleep 1", "")
		var p plan
		i.call(t, "get_task_status", map[string]any{"task_id": id, "until": "ended", "wait_seconds": 40}, &p)
		if p.State != "completed" || p.TaskID != id || p.Percent != 100 {
			t.Errorf("%+v", p)
		}
	},
	"list_tasks": func(t *testing.T, i *inspection) {
		id := i.task(t, "sleep 600", "")
		type one struct {
			TaskID string `json:"task_id"`
			Ended  bool
		}
		var list struct{ Tasks []one }
		i.call(t, "list_tasks", map[string]any{}, &list)
		if !slices.Contains(list.Tasks, one{id, false}) {
			t.Errorf("%s is not in %+v", id, list)
		}
	},
	"cancel_task": func(t *testing.T, i *inspection) {
		id := i.task(t, "sleep 600", "")
		var p plan
		i.call(t, "cancel_task", map[string]any{"task_id": id, "reason": "seen enough"}, &p)
		if p.State != "cancelled" || !p.Ended {
			t.Errorf("%+v", p)
		}
	},
	"undo_task": func(t *testing.T, i *inspection) {
		id := i.task(t, "true", "true")
		c := telexecv1.NewTaskServiceClient(i.env.Conn())
		if _, err := c.GetTask(t.Context(), &telexecv1.GetTaskRequest{TaskId: id, Until: telexecv1.TaskWait_TASK_WAIT_ENDED, Wait: durationpb.New(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		var p plan
		i.call(t, "undo_task", map[string]any{"task_id": id, "preview": true}, &p)
		if p.State != "completed" || len(p.Undoes) != 1 || p.Undoes[0].State != "pending" {
			t.Errorf("a preview: %+v", p)
		}
		i.call(t, "undo_task", map[string]any{"task_id": id}, &p)
		if p.State != "undone" || p.Outcome != "completed" {
			t.Errorf("%+v", p)
		}
	},
}

// plan is what answers about a task have.
type plan struct {
	TaskID  string `json:"task_id"`
	State   string
	Ended   bool
	Outcome string
	Percent float64
	Steps   []struct{ Name, State string }
	Undoes  []struct{ Step, State string }
}

// task submits a task of one step, as another client of the service. What is left of it
// is cancelled behind the test.
func (i *inspection) task(t *testing.T, line, undo string) (id string) {
	t.Helper()
	c := telexecv1.NewTaskServiceClient(i.env.Conn())
	submitted, err := c.SubmitTask(t.Context(), &telexecv1.SubmitTaskRequest{Task: "a test", Steps: []*telexecv1.StepSpec{{Host: i.env.Host, Command: line, Undo: undo}}})
	if err != nil {
		t.Fatal(err)
	}
	id = submitted.GetTask().GetId()
	t.Cleanup(func() {
		if _, err := c.CancelTask(context.WithoutCancel(t.Context()), &telexecv1.CancelTaskRequest{TaskId: id}); err != nil {
			t.Error(err)
		}
	})
	return id
}

// session is what answers about a session have.
type session struct {
	SessionName, State, Host, Outcome string
	Reused                            bool
}

// session opens a session for a test, as another client of the service, and gives its
// name. It is closed behind the test.
func (i *inspection) session(t *testing.T) (name string) {
	t.Helper()
	c := telexecv1.NewSessionServiceClient(i.env.Conn())
	opened, err := c.OpenSession(t.Context(), &telexecv1.OpenSessionRequest{Host: i.env.Host, Shell: "/bin/bash"})
	if err != nil {
		t.Fatal(err)
	}
	id := opened.GetSession().GetId()
	t.Cleanup(func() {
		if _, err := c.CloseSession(context.WithoutCancel(t.Context()), &telexecv1.CloseSessionRequest{Session: id}); err != nil {
			t.Error(err)
		}
	})
	return opened.GetSession().GetName()
}

// resources reads the output of a command as a resource, by the template and as
// it is listed.
func (i *inspection) resources(t *testing.T) {
	id := start(t, i.env, &telexecv1.ExecuteRequest{Command: "echo out; echo err >&2", Wait: wait})
	var templates struct {
		ResourceTemplates []struct{ URITemplate, Name, Description, MIMEType string }
	}
	i.ask(t, 0, &templates, "--method", "resources/templates/list")
	for _, stream := range []string{"stdout", "stderr"} {
		uri := "telexec://commands/" + id + "/" + stream
		if !slices.ContainsFunc(templates.ResourceTemplates, func(r struct{ URITemplate, Name, Description, MIMEType string }) bool {
			return strings.HasPrefix(r.URITemplate, "telexec://commands/{") && r.Description != ""
		}) {
			t.Errorf("no template for %s: %+v", uri, templates)
		}
		var read struct {
			Contents []struct{ URI, MIMEType, Text string }
		}
		i.ask(t, 0, &read, "--method", "resources/read", "--uri", uri)
		want := strings.TrimPrefix(stream, "std") + "\n"
		if len(read.Contents) != 1 || read.Contents[0].URI != uri || !strings.Contains(read.Contents[0].Text, want) {
			t.Errorf("%s: %+v", uri, read)
		}
	}
	var list struct {
		Resources []struct{ URI, Name string }
	}
	i.ask(t, 0, &list, "--method", "resources/list")
	if !slices.ContainsFunc(list.Resources, func(r struct{ URI, Name string }) bool { return strings.Contains(r.URI, id) }) {
		t.Errorf("%s is not in %+v", id, list)
	}
}
