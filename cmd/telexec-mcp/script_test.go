package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/pkg/client"
)

var update = flag.Bool("update", false, "rewrite the expected files in testdata/script")

// TestScript runs the transcripts in testdata/script: what an agent asks of the
// real program, as a process, and what it then reads, with a real service and a
// real sshd behind it. To the language of testscript they add:
//
//	agent [REVISION] [tasks] [forms] FLAGS…  start telexec-mcp; one that runs is left first, and its log printed.
//	                                 REVISION is that of MCP, "unintroduced" to leave initialize to rpc;
//	                                 tasks: the client knows the Tasks extension; forms: it shows forms to a person
//	call TOOL ARGUMENTS              print the text of the answer
//	follow TOOL ARGUMENTS            call, and print the progress that is told first
//	structured [FIELD…]              print the data of the last answer, or a part
//	tools                            print which tools there are, and what they may do
//	rpc METHOD PARAMS                print the result of any other request
//	begin TOOL ARGUMENTS             call, and go on as soon as progress tells that it waits
//	answer                           wait for the answer of begin, and print its text
//	giveup                           cancel the call of begin, and print its answer
//	person ANSWER                    how the person fills in forms, as the result of elicitation/create
//	form                             print the text of the last form
//	decide VERDICT ID [REASON]       an approver decides elsewhere: approve or reject
//	sit SESSION                      alice sits down at the terminal of a session, until the end
//	types TEXT                       she types, in the notation of Go: echo hello\r
//	sees TEXT                        wait until the terminal has shown it to her
//	runs                             wait until she is told that a command runs
//	ends                             wait until the session has ended before her eyes
//	keyboard take|release            she takes the keyboard, or gives it back
//
// Every answer is checked against the output schema of its tool. What differs from
// run to run is written in words: ids are ID1, ID2, … in the order in which they
// appear, and $ID1 in a later call is that id; the same holds for page tokens, $TOKEN1, and for
// what tells the undos of a task apart, $UNDO1.
func TestScript(t *testing.T) {
	const atOnce = 40 // more than all transcripts together, so that none waits for another
	server := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), MaxSessions: atOnce})
	var hosts []inventory.Host
	// archive1, spare1, spare2, the gates and the shells belong to one transcript each,
	// which can then tell what is known of them, and lists what is its own.
	for _, name := range []string{"web1", "db1", "archive1", "spare1", "gate1", "gate2", "shell1", "shell2", "shell3"} {
		h := server.Host(name)
		h.MaxCommands = atOnce
		hosts = append(hosts, h)
	}
	hosts = append(hosts, closedHost(t, "spare2"), closedHost(t, "refused"), networkSwitch(t, "switch1"))
	if os.Getuid() == 0 {
		hosts = append(hosts, sshtest.Start(t, sshtest.Options{}).Host("root1"))
	}
	service := testenv.Start(t, testenv.WithoutHosts(), testenv.WithHosts(hosts...), testenv.WithConfig(policyOfScripts))
	approver, alice := approverOf(t, service), aliceOf(t, service)
	t.Cleanup(func() { closeSessions(t, service) })
	program := testenv.Build(t, "telexec-mcp")
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			c := &conversation{program: program, env: []string{
				"PATH=" + os.Getenv("PATH"), "HOME=" + e.WorkDir, "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
				"GORACE=atexit_sleep_ms=0", // or each of the many programs would end a second later
				"TELEXEC_SERVER=" + service.GRPCAddr, "TELEXEC_TOKEN=" + service.Token.Reveal(),
			}, approver: approver, alice: alice, user: server.User, ids: named{prefix: "ID"}, tokens: named{prefix: "TOKEN"}, undoes: named{prefix: "UNDO"}}
			e.Values[conversationKey{}] = c
			e.Defer(func() {
				c.getUp()
				for _, id := range c.ids.values { // they would go on for ever
					_, _ = telexecv1.NewTaskServiceClient(service.Conn()).CancelTask(context.WithoutCancel(t.Context()), &telexecv1.CancelTaskRequest{TaskId: id})
					_, _ = service.Commands().Cancel(context.WithoutCancel(t.Context()), &telexecv1.CancelRequest{CommandId: id})
				}
				if err := c.leave(); err != nil {
					e.T().Fatal(err)
				}
			})
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("there is no condition %q", cond)
		},
		Cmds: commands(map[string]func(c *conversation, args []string) (string, error){
			"agent":      (*conversation).startAgent,
			"call":       (*conversation).call,
			"follow":     (*conversation).follow,
			"structured": (*conversation).structured,
			"tools":      (*conversation).tools,
			"rpc":        (*conversation).rpc,
			"begin":      (*conversation).begin,
			"answer":     (*conversation).answer,
			"giveup":     (*conversation).giveUp,
			"person":     (*conversation).person,
			"form":       (*conversation).form,
			"decide":     (*conversation).decide,
			"sit":        (*conversation).sit,
			"types":      (*conversation).types,
			"sees":       (*conversation).sees,
			"runs":       (*conversation).runs,
			"ends":       (*conversation).ends,
			"keyboard":   (*conversation).keyboard,
		}),
	})
}

// policyOfScripts has rules for the gates, so that the other hosts have none.
const policyOfScripts = `
policy:
  rules:
    - {name: polite, effect: require_approval, match: {hosts: [gate1, gate2], commands: ["echo please *"]}}
    - {name: own, effect: require_approval, match: {hosts: [gate1], commands: ["echo mine *"]}, approval: {allow_self: true}}
    - {name: never, effect: deny, match: {hosts: [gate1, gate2], commands: ["echo forbidden *"]}}
`

// approverOf gives a client of a service whose token may approve what others ask for.
func approverOf(t *testing.T, service *testenv.Env) *client.Client {
	made, err := service.Admin().CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: "boss", Roles: []string{"approver"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(client.Options{Server: service.GRPCAddr, Token: client.Token(made.GetSecret())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// closeSessions ends the sessions that transcripts have left open: tmux and its like
// would keep their shells when the service is gone.
func closeSessions(t *testing.T, service *testenv.Env) {
	ctx := context.WithoutCancel(t.Context())
	c := telexecv1.NewSessionServiceClient(service.Conn())
	open, err := c.ListSessions(ctx, &telexecv1.ListSessionsRequest{})
	if err != nil {
		t.Error(err)
	}
	for _, s := range open.GetSessions() {
		if _, err := c.CloseSession(ctx, &telexecv1.CloseSessionRequest{Session: s.GetId()}); err != nil {
			t.Error(err)
		}
	}
}

// networkSwitch is a host without a shell: a program that asks for lines and answers.
func networkSwitch(t *testing.T, name string) inventory.Host {
	return sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), ExtraConfig: []string{
		`ForceCommand /bin/sh -c 'while printf "switch> "; read -r line; do [ "$line" = hang ] && sleep 600; echo "port 1 up"; done'`,
	}}).Host(name)
}

func closedHost(t *testing.T, name string) inventory.Host {
	return inventory.Host{Name: name, Address: sshtest.ClosedPort(t), User: "nobody", HostKeyPolicy: "accept-new"}
}

// conversation is the state of one transcript.
type conversation struct {
	program string
	env     []string
	user    string // who logs in at the hosts

	alice *client.Client
	seat  *seat // hers; nil: she is elsewhere

	approver *client.Client
	answers  map[string]any // of the person to forms

	agent *agent
	last  json.RawMessage // the data of the last answer
	begun struct {        // the request that begin made
		id     int
		params map[string]any
	}
	ids    named
	tokens named
	undoes named
	marks  []string // those of all answers so far
}

type conversationKey struct{}

// commands makes commands of testscript of methods that give what is printed.
func commands(methods map[string]func(c *conversation, args []string) (string, error)) map[string]func(*testscript.TestScript, bool, []string) {
	all := make(map[string]func(*testscript.TestScript, bool, []string))
	for name, method := range methods {
		all[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			c := ts.Value(conversationKey{}).(*conversation)
			switch {
			case neg:
				ts.Fatalf("%s prints what happens, also errors; it cannot be negated", name)
			case c.agent == nil && name != "agent":
				ts.Fatalf("there is no agent yet")
			}
			out, err := method(c, args)
			ts.Check(err)
			if out != "" {
				fmt.Fprintln(ts.Stdout(), strings.TrimRight(out, "\n"))
			}
		}
	}
	return all
}

// leave ends the program, if one runs.
func (c *conversation) leave() error {
	if c.agent == nil {
		return nil
	}
	a := c.agent
	c.agent = nil
	return a.leave()
}

// startAgent starts the program, and prints the log of the one before.
func (c *conversation) startAgent(args []string) (log string, err error) {
	if before := c.agent; before != nil {
		if err := c.leave(); err != nil {
			return "", err
		}
		log = before.log.String()
	}
	revision, tasks, forms := "2025-11-25", false, false
	if len(args) > 0 && (args[0] == "unintroduced" || strings.HasPrefix(args[0], "20")) {
		revision, args = args[0], args[1:]
	}
	if len(args) > 0 && args[0] == "tasks" {
		tasks, args = true, args[1:]
	}
	if len(args) > 0 && args[0] == "forms" {
		forms, args = true, args[1:]
	}
	a, err := startAgent(c.program, c.env, args...)
	if err != nil {
		return "", err
	}
	c.agent = a
	if forms {
		a.person = c.answers
	}
	if revision != "unintroduced" {
		if err := a.introduce(revision, tasks); err != nil {
			return "", errors.Join(err, c.leave())
		}
	}
	return c.plain(log), nil
}

// call prints what a model reads.
func (c *conversation) call(args []string) (string, error) {
	params, err := c.toolParams(args)
	if err != nil {
		return "", err
	}
	m, err := c.agent.ask("tools/call", params)
	if err != nil {
		return "", err
	}
	return c.told(params, m)
}

// follow is call with progress.
func (c *conversation) follow(args []string) (string, error) {
	params, err := c.toolParams(args)
	if err != nil {
		return "", err
	}
	params["_meta"] = map[string]any{"progressToken": "p"}
	c.agent.notes = nil
	m, err := c.agent.ask("tools/call", params)
	if err != nil {
		return "", err
	}
	var progress []string
	for _, note := range c.agent.notes {
		var p struct {
			ProgressToken, Message string
			Progress, Total        float64
		}
		if err := json.Unmarshal(note.Params, &p); err != nil || note.Method != "notifications/progress" || p.ProgressToken != "p" {
			return "", fmt.Errorf("not a progress: %s %s", note.Method, note.Params)
		}
		line := "progress: " + p.Message
		if p.Total > 0 { // without it, it is time
			line = fmt.Sprintf("progress %.0f of %.0f: %s", p.Progress, p.Total, p.Message)
		}
		progress = append(progress, line+"\n")
	}
	text, err := c.told(params, m)
	return strings.Join(slices.Compact(progress), "") + text, err
}

// begin makes a call that waits for something, and does not wait for its answer.
func (c *conversation) begin(args []string) (string, error) {
	params, err := c.toolParams(args)
	if err != nil {
		return "", err
	}
	params["_meta"] = map[string]any{"progressToken": "p"}
	c.agent.notes = nil
	if c.begun.id, err = c.agent.send("tools/call", params); err != nil {
		return "", err
	}
	c.begun.params = params
	for len(c.agent.notes) == 0 {
		if err := c.agent.read(); err != nil {
			return "", err
		}
	}
	return "", nil
}

// answer prints what a model reads when the call of begin is answered.
func (c *conversation) answer([]string) (string, error) {
	m, err := c.agent.answer(c.begun.id)
	if err != nil {
		return "", err
	}
	return c.told(c.begun.params, m)
}

// giveUp cancels the call of begin, as clients do, and prints what comes of it.
func (c *conversation) giveUp([]string) (string, error) {
	if err := c.agent.notify("notifications/cancelled", map[string]any{"requestId": c.begun.id, "reason": "not needed any more"}); err != nil {
		return "", err
	}
	m, err := c.agent.answer(c.begun.id)
	if err != nil {
		return "", err
	}
	return c.raw(m)
}

// person says how forms are filled in by the agents that are started from now on.
func (c *conversation) person(args []string) (_ string, err error) {
	c.answers, err = c.object(strings.Join(args, " "))
	return "", err
}

// form prints what the person was shown last.
func (c *conversation) form([]string) (string, error) {
	return cmp.Or(c.plain(c.agent.form), "no form was shown"), nil
}

// decide lets an approver decide about what it was shown.
func (c *conversation) decide(args []string) (string, error) {
	if len(args) < 2 {
		return "", fmt.Errorf("usage: decide VERDICT ID [REASON]")
	}
	id := cmp.Or(c.ids.value(args[1]), args[1])
	shown, err := c.approver.GetApproval(context.Background(), id)
	if err != nil {
		return "", err
	}
	verdict := telexecv1.Verdict(telexecv1.Verdict_value["VERDICT_"+strings.ToUpper(args[0])])
	_, err = c.approver.DecideApprovals(context.Background(), &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{
		{CommandId: id, Verdict: verdict, RequestHash: shown.GetRequestHash(), Reason: strings.Join(args[2:], " ")},
	}})
	return "", err
}

// structured prints the data of the last answer, or some of its fields.
func (c *conversation) structured(fields []string) (string, error) {
	if len(fields) == 0 {
		return c.plainJSON(c.last)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(c.last, &all); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range fields {
		value, ok := all[name]
		if !ok {
			value = json.RawMessage("absent")
		}
		fmt.Fprintf(&b, "%q: %s\n", name, value)
	}
	return c.plain(b.String()), nil
}

// tools prints the tools, each with the annotations that hold for it.
func (c *conversation) tools([]string) (string, error) {
	m, err := c.agent.ask("tools/list", map[string]any{})
	if err != nil {
		return "", err
	}
	var list struct {
		Tools []struct {
			Name        string
			Annotations struct{ ReadOnlyHint, DestructiveHint, IdempotentHint, OpenWorldHint bool }
		}
	}
	if err := json.Unmarshal(m.Result, &list); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, t := range list.Tools {
		b.WriteString(t.Name + ":")
		for _, hint := range []struct {
			holds bool
			word  string
		}{
			{t.Annotations.ReadOnlyHint, " read-only"}, {t.Annotations.DestructiveHint, " destructive"},
			{t.Annotations.IdempotentHint, " idempotent"}, {t.Annotations.OpenWorldHint, " open-world"},
		} {
			if hint.holds {
				b.WriteString(hint.word)
			}
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}

// rpc makes any other request.
func (c *conversation) rpc(args []string) (string, error) {
	if len(args) != 2 {
		return "", fmt.Errorf("usage: rpc METHOD PARAMS")
	}
	params, err := c.object(args[1])
	if err != nil {
		return "", err
	}
	m, err := c.agent.ask(args[0], params)
	if err != nil {
		return "", err
	}
	var task struct{ Result json.RawMessage }
	if args[0] == "tasks/get" && json.Unmarshal(m.Result, &task) == nil && task.Result != nil {
		if _, err := c.agent.result(toolOf(params["taskId"].(string)), message{Result: task.Result}); err != nil {
			return "", err
		}
	}
	return c.raw(m)
}

// toolOf is the tool that gives a handle of this form, and whose answers its results are.
func toolOf(handle string) string {
	switch {
	case !strings.HasPrefix(handle, "tasks/"):
		return "execute_command"
	case strings.Contains(handle, "/undo/"):
		return "undo_task"
	}
	return "submit_task"
}

// toolParams makes the parameters of tools/call.
func (c *conversation) toolParams(args []string) (map[string]any, error) {
	if len(args) != 2 {
		return nil, fmt.Errorf("usage: call TOOL ARGUMENTS")
	}
	arguments, err := c.object(args[1])
	return map[string]any{"name": args[0], "arguments": arguments}, err
}

// object reads an object that may have $ID1, $TOKEN1 and $UNDO1 in it.
func (c *conversation) object(text string) (o map[string]any, err error) {
	text = reference.ReplaceAllStringFunc(text, func(name string) string {
		return cmp.Or(c.ids.value(name[1:]), c.tokens.value(name[1:]), c.undoes.value(name[1:]), name)
	})
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return o, nil
}

var reference = regexp.MustCompile(`\$(ID|TOKEN|UNDO)[0-9]+`)

// told is the answer of a tool in words.
func (c *conversation) told(params map[string]any, m message) (string, error) {
	c.last = nil
	if m.Error != nil || isTask(m.Result) {
		return c.raw(m)
	}
	r, err := c.agent.result(params["name"].(string), m)
	if err != nil {
		return "", err
	}
	c.last = r.StructuredContent
	text := r.Content[0].Text
	if !isPlain(text) && params["arguments"].(map[string]any)["format"] != "terminal" {
		return "", fmt.Errorf("the answer has control characters in it: %q", text)
	}
	if m := introduction.FindStringSubmatch(text); m != nil {
		if slices.Contains(c.marks, m[1]) {
			return "", fmt.Errorf("the mark %s was used before", m[1])
		}
		c.marks = append(c.marks, m[1])
	}
	if r.IsError {
		text += "\nisError: true"
	}
	return c.plain(text), nil
}

// raw is an answer as JSON.
func (c *conversation) raw(m message) (string, error) {
	if m.Error == nil {
		return c.plainJSON(m.Result)
	}
	text := fmt.Sprintf("error %d: %s", m.Error.Code, m.Error.Message)
	if len(m.Error.Data) > 0 {
		text += "\n" + string(m.Error.Data)
	}
	return c.plain(text), nil
}

func isTask(result json.RawMessage) bool {
	var kind struct{ ResultType string }
	return json.Unmarshal(result, &kind) == nil && kind.ResultType == "task"
}

// isPlain reports whether a text is fit for a model.
func isPlain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t'
	})
}
