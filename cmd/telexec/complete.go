package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// completeCommand is what the completion scripts call, with all words behind
// "telexec" up to the one under the cursor. It answers with one candidate a line.
const completeCommand = "__complete"

// The scripts only pass words on: what can follow is decided here.
var (
	//go:embed completion/telexec.bash
	bashScript string
	//go:embed completion/telexec.zsh
	zshScript string
	//go:embed completion/telexec.fish
	fishScript string
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown by completion --help.
func (completionCmd) Help() string {
	return `Examples:

    source <(telexec completion bash)                        in ~/.bashrc
    telexec completion zsh > ~/.zfunc/_telexec               with ~/.zfunc in $fpath
    telexec completion fish > ~/.config/fish/completions/telexec.fish

Subcommands and flags are completed, and, when the service answers, hosts, sessions, the ids of commands and tasks, and the names of steps.`
}

// Run prints a script.
func (c *completionCmd) Run(a *app) error {
	script := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[c.Shell]
	_, err := io.WriteString(a.out.stdout, script)
	return err
}

// completeWithin bounds the questions to the service: somebody waits at a prompt.
const completeWithin = time.Second

// complete prints what can stand for the last of words. It never fails: a prompt
// is no place for errors.
func (a *app) complete(ctx context.Context, words []string) error {
	var c cli
	parser, err := newParser(Env{Stdout: io.Discard, Stderr: io.Discard}, &c)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	at := walk(parser.Model.Node, words[:len(words)-1])
	var candidates []string
	switch {
	case at.value != nil:
		candidates = choices(at.node, at.value)
	case at.positional > 0 && pathOf(at.node) == "telexec session keys" && !strings.HasPrefix(last, "-"):
		candidates = keyNames
	case at.rest:
	case at.unknown && !strings.HasPrefix(last, "-"): // who knows whether that flag has a value
	case strings.HasPrefix(last, "-"):
		for _, group := range takesFlags(at.node).AllFlags(true) {
			for _, f := range group {
				candidates = append(candidates, "--"+f.Name)
			}
		}
	case at.node.Name == "help" && at.positional == 0:
		for _, child := range at.node.Parent.Children {
			candidates = append(candidates, child.Name)
		}
	case len(at.node.Children) > 0 && at.positional == 0:
		for _, child := range at.node.Children {
			candidates = append(candidates, child.Name)
		}
	case at.positional < len(at.node.Positional):
		candidates = choices(at.node, at.node.Positional[at.positional])
	}
	// The flags that stand in front say which service to ask.
	a.opts.Server, a.opts.Token, a.opts.TokenFile = at.flags["server"], at.flags["token"], at.flags["token-file"]
	a.opts.CAFile, a.opts.Quiet = at.flags["ca-file"], true
	for _, name := range append(candidates, a.live(ctx, at)...) {
		if strings.HasPrefix(name, last) {
			fmt.Fprintln(a.out.stdout, printable(name))
		}
	}
	return nil
}

// place is where in the grammar the word under the cursor stands.
type place struct {
	node       *kong.Node
	positional int               // how many positional arguments stand before
	last       string            // the last of them
	value      *kong.Value       // of a flag that waits for it
	rest       bool              // the remote command: not our words
	unknown    bool              // the word before is a flag that there is not
	flags      map[string]string // values of flags seen
}

// walk reads words as the parser would, but forgives everything.
func walk(node *kong.Node, words []string) place {
	p := place{node: node, flags: map[string]string{}}
	var waiting *kong.Flag
	for _, w := range words {
		p.unknown = false
		switch {
		case p.rest:
		case waiting != nil:
			p.flags[waiting.Name] = w
			waiting = nil
		case strings.HasPrefix(w, "-") && w != "-" && w != "--":
			name, value, hasValue := strings.Cut(w, "=")
			f := findFlag(p.node, name)
			if f == nil {
				// The default command's own: with one of them no other can be named.
				if f = findFlag(takesFlags(p.node), name); f != nil {
					p.node = p.node.DefaultCmd
				}
			}
			p.unknown = f == nil && !hasValue
			if f != nil && !f.IsBool() {
				if hasValue {
					p.flags[f.Name] = value
				} else {
					waiting = f
				}
			}
		case len(p.node.Children) > 0 && child(p.node, w) != nil:
			p.node = child(p.node, w)
		default:
			if n := p.positional; n < len(p.node.Positional) && p.node.Positional[n].Passthrough && w != "--" {
				p.rest = true
			}
			if w != "--" {
				p.positional++
				p.last = w
			}
		}
	}
	if waiting != nil {
		p.value = waiting.Value
	}
	return p
}

func child(node *kong.Node, name string) *kong.Node {
	for _, c := range node.Children {
		if c.Name == name {
			return c
		}
		for _, alias := range c.Aliases {
			if alias == name {
				return c
			}
		}
	}
	return nil
}

// takesFlags gives the command whose flags may stand behind node: that which runs
// where none of its children is named.
func takesFlags(node *kong.Node) *kong.Node {
	if node.DefaultCmd != nil {
		return node.DefaultCmd
	}
	return node
}

// findFlag finds "--name" and "-n".
func findFlag(node *kong.Node, arg string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			if arg == "--"+f.Name || f.Short != 0 && arg == "-"+string(f.Short) {
				return f
			}
		}
	}
	return nil
}

// choices gives the values that the grammar knows.
func choices(node *kong.Node, v *kong.Value) []string {
	if v.Flag != nil && v.Name == "state" && pathOf(node) == "telexec task ls" {
		return taskStates
	}
	if known, ok := knownValues[v.Name]; ok && v.Flag != nil {
		return known
	}
	var out []string
	for _, s := range strings.Split(v.Enum, ",") {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// knownValues are those of flags that the service judges, or that are checked
// behind the grammar.
var knownValues = map[string][]string{
	"role":   {"viewer", "operator", "approver", "admin"},
	"keeper": {"tmux", "screen", "dtach", "none"},
	"shell":  {"bash", "zsh", "fish", "dash", "ash", "sh", "ksh", "ksh93", "mksh"},
	"origin": {"grpc", "rest", "websocket", "mcp", "cli", "web"},
	"state": {
		"awaiting_approval", "queued", "starting", "running", "completed", "failed", "cancelled", "timed_out", "rejected", "expired", "lost",
	},
	"kind": {
		"command.accepted", "command.ended", "command.cancel", "command.signal", "command.input",
		"session.opened", "session.typed", "session.keyboard", "session.close", "session.ended",
		"task.submitted", "task.cancel", "task.undo", "task.ended", "approval.decided", "refused",
		"login", "logout", "token.created", "token.revoked", "policy.loaded", "service.started", "service.stopped",
	},
}

// taskStates are the states of tasks, as telexec task ls takes them.
var taskStates = []string{"queued", "running", "awaiting_approval", "undoing", "completed", "failed", "cancelled", "undone", "undo_failed"}

// live asks the service for hosts, ids, principals, sessions and steps where one of them is
// wanted.
func (a *app) live(ctx context.Context, at place) []string {
	name := ""
	switch {
	case at.value != nil:
		name = at.value.Name
	case !at.rest && !at.unknown && at.positional < len(at.node.Positional):
		name = at.node.Positional[at.positional].Name
	}
	if !slices.Contains([]string{"host", "id", "principal", "session", "step", "task"}, name) {
		return nil
	}
	cl, err := a.dial(singleCall)
	if err != nil {
		return nil
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, completeWithin)
	defer cancel()
	switch {
	case name == "host":
		return hostNames(ctx, cl)
	case name == "principal":
		return principals(ctx, cl)
	case name == "session":
		return sessionNames(ctx, cl, outlived[pathOf(at.node)])
	case name == "step":
		return stepNames(ctx, a, cl, at)
	case name == "task" || strings.HasPrefix(pathOf(at.node), "telexec task "):
		ids, _ := taskIDs(ctx, cl, taskStatesFor[at.node.Name])
		return ids
	case needsApproval[pathOf(at.node)]:
		ids, _ := approvalIDs(ctx, cl, &telexecv1.ListApprovalsRequest{States: []telexecv1.ApprovalState{telexecv1.ApprovalState_APPROVAL_STATE_PENDING}})
		return ids
	}
	// What runs is what one signals and cancels; its output may be wanted later.
	page, err := cl.ListCommandsPage(ctx, &telexecv1.ListCommandsRequest{Active: needsRunning[at.node.Name]})
	if err != nil {
		return nil
	}
	var ids []string
	for _, cmd := range page.GetCommands() {
		ids = append(ids, cmd.GetId())
	}
	return ids
}

// needsRunning are the subcommands that concern only commands that have not ended.
var needsRunning = map[string]bool{"cancel": true, "signal": true, "input": true}

// taskStatesFor are the states of the tasks that a subcommand of task is of use for.
var taskStatesFor = map[string][]telexecv1.TaskState{
	"cancel": {
		telexecv1.TaskState_TASK_STATE_QUEUED, telexecv1.TaskState_TASK_STATE_RUNNING,
		telexecv1.TaskState_TASK_STATE_AWAITING_APPROVAL, telexecv1.TaskState_TASK_STATE_UNDOING,
	},
	"undo": {
		telexecv1.TaskState_TASK_STATE_COMPLETED, telexecv1.TaskState_TASK_STATE_FAILED, telexecv1.TaskState_TASK_STATE_CANCELLED,
		telexecv1.TaskState_TASK_STATE_UNDONE, telexecv1.TaskState_TASK_STATE_UNDO_FAILED,
	},
}

// stepNames are those of the task that stands before.
func stepNames(ctx context.Context, a *app, cl *client.Client, at place) []string {
	id, err := a.taskArg(ctx, cl, at.last)
	if err != nil {
		return nil
	}
	resp, err := cl.GetTask(ctx, &telexecv1.GetTaskRequest{TaskId: id})
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range resp.GetTask().GetSteps() {
		names = append(names, s.GetName())
	}
	return names
}

// needsApproval are those that concern what waits for approval.
var needsApproval = map[string]bool{"telexec approvals show": true, "telexec approve": true, "telexec reject": true}

// principals are those that have a key which is not revoked, be it expired.
func principals(ctx context.Context, cl *client.Client) []string {
	var names []string
	for t, err := range cl.ListTokens(ctx, &telexecv1.ListTokensRequest{PageSize: maxPage, IncludeInactive: true}) {
		if err != nil {
			break
		}
		if t.GetRevokeTime() == nil {
			names = append(names, t.GetPrincipal())
		}
	}
	return names
}

// outlived are the subcommands that are of use when a session has ended.
var outlived = map[string]bool{"telexec session show": true, "telexec session replay": true, "telexec history": true}

// sessionNames are those of the newest sessions.
func sessionNames(ctx context.Context, cl *client.Client, ended bool) []string {
	page, err := cl.ListSessionsPage(ctx, &telexecv1.ListSessionsRequest{PageSize: maxPage, Ended: ended})
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range page.GetSessions() {
		if name := s.GetName(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func hostNames(ctx context.Context, cl *client.Client) []string {
	var names []string
	for h, err := range cl.ListHosts(ctx, &telexecv1.ListHostsRequest{}) {
		if err != nil {
			break
		}
		names = append(names, h.GetName())
	}
	return names
}
