package mcptool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/telexec/telexec/pkg/client"
)

// tool is one tool of a toolset.
type tool struct {
	toolset string
	acts    bool // it changes something, so that it is not for ReadOnly
	add     func(*mcp.Server)
}

// nature is what a client may want to know before it lets a model call a tool.
type nature struct {
	acts        bool // on hosts: starts, ends, or feeds something
	destructive bool // what it does cannot be undone
	idempotent  bool // doing it twice is doing it once
	closedWorld bool // touches nothing but the service
}

func (n nature) annotations(title string) *mcp.ToolAnnotations {
	return &mcp.ToolAnnotations{
		Title:           title,
		ReadOnlyHint:    !n.acts,
		DestructiveHint: new(n.destructive),
		IdempotentHint:  n.idempotent || !n.acts,
		OpenWorldHint:   new(!n.closedWorld),
	}
}

// declaration is a tool as it is told to clients.
type declaration struct {
	name, title string
	description string
	nature      nature
	toolset     string
	// limit is how long a call may last; 0 means simpleLimit.
	limit time.Duration
}

// answer is what a tool gives: data for programs, words for models.
type answer[Out any] struct {
	data   Out
	text   string
	failed bool  // the command could not do what was asked; the data says why
	task   *task // instead of all that, where the client can follow tasks
	// form is what the person is to be asked, instead of all that; the client then
	// calls again.
	form *mcp.CallToolResult
}

// handler does what a tool does. An error of the service, a *client.Error, is
// told to the model with its reason and hint.
type handler[In, Out any] func(ctx context.Context, c *call, in In) (answer[Out], error)

// declare makes a tool of a handler: it infers the schemas from In and Out, whose
// jsonschema tags describe the fields, and turns errors into answers.
func declare[In, Out any](a *adapter, d declaration, handle handler[In, Out]) tool {
	t := &mcp.Tool{
		Name:         d.name,
		Title:        d.title,
		Description:  d.description,
		Annotations:  d.nature.annotations(d.title),
		InputSchema:  inputSchema[In](),
		OutputSchema: outputSchema[Out](d.name != a.teacher()),
	}
	a.arguments[d.name] = strings.Join(t.InputSchema.(*jsonschema.Schema).PropertyOrder, ", ")
	limit := d.limit
	if limit == 0 {
		limit = simpleLimit
	}
	return tool{toolset: d.toolset, acts: d.nature.acts, add: func(s *mcp.Server) {
		a.offered[d.name] = true
		mcp.AddTool(s, t, func(ctx context.Context, req *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			ans, err := handle(ctx, &call{adapter: a, request: req}, in)
			if err != nil {
				a.log.InfoContext(ctx, "a call failed", "tool", d.name, "error", err)
				failure := tellError(err)
				failure.Error.Hint = a.possible(failure.Error.Hint)
				return failure.result(), failure, nil
			}
			if ans.task != nil {
				return nil, nil, ans.task
			}
			if ans.form != nil {
				return ans.form, nil, nil
			}
			return &mcp.CallToolResult{Content: words(ans.text), IsError: ans.failed}, ans.data, nil
		})
	}}
}

// words is the text of an answer.
func words(text string) []mcp.Content { return []mcp.Content{&mcp.TextContent{Text: text}} }

// inputSchema is the schema of arguments of type In.
func inputSchema[In any]() *jsonschema.Schema {
	s := schemaOf[In]()
	constrain(s)
	return s
}

// constrain adds to s, and all within it, what constraints say.
func constrain(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		if add := constraints[name]; add != nil {
			add(p)
		}
		constrain(p)
	}
	constrain(s.Items)
}

// constraints are what Go types cannot say of arguments; a name means the same in
// every tool. Upper limits that are given here are refused above; those that are
// only clamped stand in the descriptions.
var constraints = map[string]func(*jsonschema.Schema){
	"wait_seconds":          atLeast(0),
	"timeout":               atLeast(0),
	"grace_seconds":         between(0, maxGrace.Seconds()),
	"until_silence_seconds": between(0.1, longest.Seconds()),
	"until_new_bytes":       between(1, maxInteger),
	"max_bytes":             between(minBudget, maxBudget),
	"offset":                between(0, maxInteger),
	"stdout_offset":         between(0, maxInteger),
	"stderr_offset":         between(0, maxInteger),
	"head_lines":            between(1, maxLines),
	"tail_lines":            between(1, maxLines),
	"limit":                 between(1, maxList),
	"format":                oneOf(formatText, formatTerminal, formatBase64),
	"stream":                oneOf(streamStdout, streamStderr),
	"encoding":              oneOf(formatText, formatBase64),
	"command_id":            matching(commandID.String()),
	"columns":               between(2, 1000),
	"rows":                  between(2, 500),
	"scrollback_lines":      between(0, maxScrollback),
	"settle_seconds":        between(0, maxSettle.Seconds()),
	"if_busy":               oneOf(busyWait, busyRefuse),
	"keys":                  items(1, maxKeys),

	"task_id":                 matching(commandID.String()),
	"until":                   oneOf(untilEnded, untilApproval, untilNextStep),
	"if_version_greater_than": between(0, maxInteger),
	"steps":                   items(1, 100),
	"priority":                between(-100, 100),
	"on_failure":              oneOf(failureStops, failurePasses, failureTakeBack),
	"times":                   between(1, 20),
	"backoff_seconds":         atLeast(0),
	"parallel":                between(1, 100),
	"canary":                  between(0, 1000),
}

// maxInteger is the largest that JSON carries everywhere (RFC 8259, section 6).
const maxInteger = 1<<53 - 1

func atLeast(n float64) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.Minimum = &n }
}

func between(low, high float64) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.Minimum, s.Maximum = &low, &high }
}

func items(least, most int) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.MinItems, s.MaxItems = &least, &most }
}

func matching(pattern string) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.Pattern = pattern }
}

func oneOf[T ~string](values ...T) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) {
		for _, v := range values {
			s.Enum = append(s.Enum, string(v))
		}
	}
}

// teacher is the tool whose schema says what the fields mean that are in most answers:
// the facts of a command, of its output, of an error. To say it in each would triple
// the list of tools.
func (a *adapter) teacher() string {
	switch {
	case a.offers(execute, true):
		return "execute_command"
	case a.offers(observe, false):
		return "get_command_status"
	case a.offers(sessions, false):
		return "ssh_get_command_status"
	case a.offers(control, true):
		return "cancel_command"
	}
	return "get_task_status"
}

// field is a property of a schema, with what is said of it.
type field struct{ name, description string }

// taught are the fields of the teacher's answer.
var taught = sync.OnceValue(func() map[field]bool {
	all := map[field]bool{}
	var walk func(*jsonschema.Schema)
	walk = func(s *jsonschema.Schema) {
		for name, p := range s.Properties {
			all[field{name, p.Description}] = true
			walk(p)
		}
	}
	walk(schemaOf[executeFacts]())
	walk(schemaOf[failedCall]())
	return all
})

// forget takes out of s, and all within it, what the teacher says.
func forget(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		if taught()[field{name, p.Description}] {
			p.Description = ""
		}
		forget(p)
	}
	forget(s.Items)
}

// outputSchema is the schema of answers: an Out, or an error. It allows fields
// that are not in it, so that a later version may tell more. known leaves out what
// the teacher says already.
func outputSchema[Out any](known bool) *jsonschema.Schema {
	s := schemaOf[Out]()
	failure := schemaOf[failedCall]()
	s.Properties["error"] = failure.Properties["error"]
	if known {
		forget(s)
	}
	s.AnyOf = []*jsonschema.Schema{{Required: s.Required}, {Required: []string{"error"}}}
	s.Required = nil
	open(s)
	return s
}

// open removes additionalProperties: false from s and all within it.
func open(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if s.Type == "object" && len(s.Properties) > 0 {
		s.AdditionalProperties = nil
	}
	for _, p := range s.Properties {
		open(p)
	}
	open(s.Items)
	open(s.AdditionalProperties)
}

// schemaOf infers the schema of T. Not every client understands a list of types:
// what is optional is left out here, never null.
func schemaOf[T any]() *jsonschema.Schema {
	s, err := jsonschema.For[T](nil)
	if err != nil {
		panic(err) // a type of this package that is no JSON; every test would find it
	}
	plain(s)
	return s
}

// plain takes out of s and all within it what says nothing: null for what is
// optional, and the range of a Go integer.
func plain(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	s.Minimum, s.Maximum = nil, nil
	if i := slices.Index(s.Types, "null"); i >= 0 && len(s.Types) == 2 {
		s.Type, s.Types = s.Types[1-i], nil
	}
	for _, p := range s.Properties {
		plain(p)
	}
	plain(s.Items)
	plain(s.AdditionalProperties)
}

// withoutNulls removes arguments that are null, also of the steps of a plan: many clients
// send every argument that there is, and mean "not given". What cannot be read is left to
// the schema.
func withoutNulls(arguments json.RawMessage) json.RawMessage {
	if !bytes.Contains(arguments, []byte("null")) {
		return arguments
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(arguments, &fields) != nil {
		return arguments
	}
	for name, value := range fields {
		var steps []json.RawMessage
		switch {
		case string(bytes.TrimSpace(value)) == "null":
			delete(fields, name)
		case name == "steps" && json.Unmarshal(value, &steps) == nil:
			for i := range steps {
				steps[i] = withoutNulls(steps[i])
			}
			if cleaned, err := json.Marshal(steps); err == nil {
				fields[name] = cleaned
			}
		case name == "retry", name == "rollout":
			fields[name] = withoutNulls(value)
		}
	}
	cleaned, err := json.Marshal(fields)
	if err != nil {
		return arguments
	}
	return cleaned
}

// failedCall is the answer of a call that failed.
type failedCall struct {
	Error callError `json:"error"`
}

// callError says why a call failed and what to do about it.
type callError struct {
	Reason            string   `json:"reason" jsonschema:"stable, upper snake case, for programs"`
	Message           string   `json:"message" jsonschema:"what happened"`
	Hint              string   `json:"hint,omitempty" jsonschema:"what to do next"`
	Fields            []string `json:"fields,omitempty" jsonschema:"which arguments are wrong, and why"`
	RetryAfterSeconds float64  `json:"retry_after_seconds,omitempty" jsonschema:"trying again helps after so long"`
	RequestID         string   `json:"request_id,omitempty" jsonschema:"the command may have started, or the task been submitted: call again with this request_id to learn its id; it does not run twice"`

	Running *runningFacts `json:"running,omitempty" jsonschema:"with SESSION_BUSY: what runs in the session"`

	task bool // it is about a task, and not a command
}

// runningFacts is what keeps a session busy.
type runningFacts struct {
	CommandID string `json:"command_id"`
	Command   string `json:"command" jsonschema:"its beginning"`
	Principal string `json:"principal" jsonschema:"who runs it"`
	Since     string `json:"since"`
}

// maxSaid is how much of a message is told: it may repeat an argument.
const maxSaid = 500

// brief makes a message fit to be shown: it may repeat what a host or a caller has
// written.
func brief(message string) string { return cut(oneLine(message), maxSaid) }

// Error gives the message and the hint.
func (e *callError) Error() string { return strings.TrimSuffix(e.Message, ".") + ". " + e.Hint }

// stepOfPlan is what a field of a step begins with.
var stepOfPlan = regexp.MustCompile(`^steps\[\d+\]\.`)

// argumentOf is what tools call a field of the service's requests.
func argumentOf(field string) string {
	if step := stepOfPlan.FindString(field); step != "" {
		if field = field[len(step):]; field != "name" {
			field = argumentOf(field)
		}
		return step + field
	}
	switch field {
	case "data":
		return "input"
	case "session", "name":
		return "sessionName"
	case "working_directory":
		return "cwd"
	case "step_id":
		return "step"
	case "retry.backoff":
		return "retry.backoff_seconds"
	}
	if key, ok := strings.CutSuffix(field, "].name"); ok {
		return key + "].key"
	}
	return field
}

// maxFields is how many wrong arguments are told at once.
const maxFields = 10

// refuse makes an error of this room's own.
func refuse(reason, hint, format string, args ...any) *callError {
	return &callError{Reason: reason, Message: brief(fmt.Sprintf(format, args...)), Hint: hint}
}

// tellError is what is told of an error.
func tellError(err error) *failedCall {
	if e, ok := errors.AsType[*callError](err); ok {
		return &failedCall{*e}
	}
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return &failedCall{callError{Reason: "INTERNAL", Message: brief(err.Error())}}
	}
	told := callError{Reason: e.Reason, Message: brief(e.Message), Hint: brief(e.Hint), RetryAfterSeconds: e.RetryAfter.Seconds()}
	switch e.Reason {
	case "":
		told.Reason = e.Code.String()
	case client.ReasonUnreachable, client.ReasonCallEnded, client.ReasonProtocol:
		told.RequestID = e.Metadata["request_id"] // nobody refused it, so that it may have arrived
	}
	if hint, ok := hints[e.Reason]; ok {
		told.Hint = hint
	}
	if hint, ok := refusals[e.Reason]; ok {
		told.Hint = hint
	}
	if e.Reason == reasonSessionBusy && e.Metadata["command_id"] != "" {
		told.Running = &runningFacts{CommandID: e.Metadata["command_id"], Command: brief(e.Metadata["command"]), Principal: e.Metadata["principal"], Since: e.Metadata["since"]}
	}
	if e.Reason == "EMPTY_COMMAND" {
		told.Message = "there is no command to run"
	}
	for _, f := range e.Fields[:min(len(e.Fields), maxFields)] {
		if f.Message == e.Message {
			continue // it is said already
		}
		told.Fields = append(told.Fields, brief(argumentOf(f.Path)+": "+f.Message))
	}
	if len(told.Fields) > 0 && told.Reason == "INVALID_ARGUMENT" {
		told.Hint = "" // it only points to the fields
	}
	return &failedCall{told}
}

// noToken does not say where there might be one: a model is not to look for it.
const noToken = "Whoever has set this adapter up must give it a token that the service knows"

// newToken is noToken for one that was good before.
const newToken = "Tell the person: whoever has set this adapter up must give it a new token; calling again does not help"

// toolName is the form of the names of tools.
var toolName = regexp.MustCompile(`\b[a-z]+(_[a-z]+)+\b`)

// possible is a hint that names only tools that are offered; else nothing.
func (a *adapter) possible(hint string) string {
	for _, name := range toolName.FindAllString(hint, -1) {
		if _, isTool := a.arguments[name]; isTool && !a.offered[name] {
			return ""
		}
	}
	return hint
}

// hints are what to do about some errors, in the words of the tools instead of
// those of the service.
var hints = map[string]string{
	"UNKNOWN_HOST":         "list_hosts shows the hosts there are",
	"MISSING_HOST":         "Give host; list_hosts shows the hosts there are",
	"EMPTY_COMMAND":        "Give command, a shell command line",
	"NO_CREDENTIALS":       noToken,
	"BAD_CREDENTIALS":      noToken,
	"TOKEN_EXPIRED":        newToken,
	"TOKEN_REVOKED":        newToken,
	"ROLE_MISSING":         "Tell the person: an administrator can give this adapter a token with that role; do not try another way",
	reasonAccessDenied:     "list_running_commands and list_command_history show what you have access to; do not try other ids",
	"RATE_LIMITED":         "Wait that long before the next call, and call less often: one call with wait_seconds replaces many",
	"TOO_MANY_STREAMS":     "Wait until other calls have ended, and make fewer at once",
	reasonUnknownCommand:   "list_running_commands and list_command_history show the ids there are",
	reasonUnknownSession:   "ssh_list_sessions shows the sessions there are",
	reasonSessionBusy:      "Wait for its end with ssh_get_command_status and wait_seconds, or leave if_busy out to have your turn come; ssh_cancel_running_command ends it, which is for you to do only if it is yours or the person says so",
	"SESSION_EXISTS":       "Take another sessionName; ssh_list_sessions shows where the one of this name is",
	reasonSessionEnded:     "Open another one with ssh_open_session",
	"TOO_MANY_SESSIONS":    "Use one that is open, or close yours that are not needed any more; ssh_list_sessions shows them",
	"TYPING_NOT_ALLOWED":   "Run commands with ssh_run, which does not need to type; where a program asks something, tell the person",
	"KEYBOARD_TAKEN":       "Somebody else types there: wait and look with ssh_read_screen, or ask the person; ssh_run does not need the keyboard",
	reasonBeyondEnd:        "Go on from next_offset of the answer before",
	client.ReasonCallEnded: "A command that was started goes on: get_command_status tells where it is",
	reasonNotRunning:       "get_command_status shows where it is",
	reasonUnknownTask:      "list_tasks shows the tasks there are",
	"TASK_NOT_ENDED":       "Wait for its end with get_task_status, wait_seconds and until ended, or end it with cancel_task; if it is being undone already, get_task_status shows how that goes",
	"NOTHING_TO_UNDO":      "get_task_status shows of each step what was done and whether it has an undo; tell the person what cannot be taken back",
	"PERSON_NEEDED":        "Tell the person, who can look at the host, and do it in the web UI or with `telexec task undo --include-unknown`",
	"STDIN_CLOSED":         "Start the command with stdin_open, or give all of its input as stdin",
}

// outOfBounds is how the SDK says that a number is too small or too large.
var outOfBounds = regexp.MustCompile(`(minimum|maximum): \S+ is (?:less|greater) than (\d+(?:\.\d*[1-9])?)(?:\.0+)?`)

// refusedArguments tells of arguments that the schema does not allow as of any
// other error. The SDK checks them before the tool is called, and no tool of ours
// makes such an error.
func (a *adapter) refusedArguments(tool string, r *mcp.CallToolResult) *mcp.CallToolResult {
	said := strings.TrimPrefix(r.GetError().Error(), `validating "arguments": `)
	said = strings.ReplaceAll(strings.ReplaceAll(said, "validating root: ", ""), "validating /properties/", "argument ")
	said = outOfBounds.ReplaceAllString(said, "it must be at $1 $2")
	said = strings.NewReplacer("at minimum", "at least", "at maximum", "at most").Replace(said)
	failure := &failedCall{callError{Reason: "INVALID_ARGUMENT", Message: brief(said)}}
	switch {
	case strings.Contains(said, "argument steps") && strings.Contains(said, "properties"):
		failure.Error.Hint = fieldsOfStep
	case strings.Contains(said, "properties"): // unknown ones, or one that is missing
		failure.Error.Hint = "The arguments are " + a.arguments[tool]
	case strings.HasPrefix(said, "argument command_id"):
		failure.Error.Hint = "An id has 26 digits and capital letters, as execute_command gave it"
	case strings.HasPrefix(said, "argument task_id"):
		failure.Error.Hint = "An id has 26 digits and capital letters, as submit_task gave it"
	}
	result := failure.result()
	result.StructuredContent = failure
	return result
}

// result is the error in words.
func (f *failedCall) result() *mcp.CallToolResult {
	e := f.Error
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Reason, e.Message)
	if e.Hint != "" {
		fmt.Fprintf(&b, "\nWhat to do: %s", e.Hint)
	}
	for _, field := range e.Fields {
		fmt.Fprintf(&b, "\n- %s", field)
	}
	if e.Running != nil {
		fmt.Fprintf(&b, "\nIts command_id is %s.", e.Running.CommandID)
	}
	if e.RetryAfterSeconds > 0 {
		fmt.Fprintf(&b, "\nTry again in %s.", seconds(e.RetryAfterSeconds))
	}
	if e.RequestID != "" && e.task {
		fmt.Fprintf(&b, "\nThe task may have been submitted all the same. Make this call again with the same arguments and request_id %q: "+
			"it gives the id of that task, and runs nothing twice.", e.RequestID)
	} else if e.RequestID != "" {
		fmt.Fprintf(&b, "\nThe command may have started all the same. Make this call again with the same arguments and request_id %q: "+
			"it gives the id of that command, and runs nothing twice.", e.RequestID)
	}
	return &mcp.CallToolResult{Content: words(b.String()), IsError: true}
}
