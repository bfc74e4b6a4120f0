package mcptool

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// startArgs say what to run; they are the same however the call waits.
type startArgs struct {
	Host        string            `json:"host,omitempty" jsonschema:"name of the host, as list_hosts gives it; give this or sessionName"`
	SessionName string            `json:"sessionName,omitempty" jsonschema:"name of a session to run in, instead of host; ssh_run does that, and tells more"`
	Command     string            `json:"command" jsonschema:"a shell command line, run by /bin/sh"`
	Cwd         string            `json:"cwd,omitempty" jsonschema:"directory to run in; default: the login directory"`
	Env         map[string]string `json:"env,omitempty" jsonschema:"environment variables to set; their values are not kept in the history"`
	Stdin       string            `json:"stdin,omitempty" jsonschema:"standard input, at most 1 MiB; its end follows unless stdin_open"`
	StdinOpen   bool              `json:"stdin_open,omitempty" jsonschema:"keep standard input open for send_command_input; default: it has ended"`
	Sudo        bool              `json:"sudo,omitempty" jsonschema:"run as root through sudo, which must allow it without a password"`
	SudoUser    string            `json:"sudo_user,omitempty" jsonschema:"run as this user through sudo instead of root"`
	LoginShell  bool              `json:"login_shell,omitempty" jsonschema:"run in the user's login shell with its profile instead of /bin/sh"`
	PTY         bool              `json:"pty,omitempty" jsonschema:"run on a terminal: for programs that insist on one; such a command does not outlive the connection to its host"`
	Timeout     float64           `json:"timeout,omitempty" jsonschema:"end the command when it has run so many seconds; default: never"`
	RequestID   string            `json:"request_id,omitempty" jsonschema:"your own id for this request: the same id with the same content runs once, for 24 hours, however often it is sent"`
	Labels      map[string]string `json:"labels,omitempty" jsonschema:"labels to find the command by"`
}

type executeArgs struct {
	startArgs
	WaitSeconds *float64 `json:"wait_seconds,omitempty" jsonschema:"wait so long for the end, 0 to 50 (more is 50); default 30. The command goes on afterwards"`
	MaxBytes    int      `json:"max_bytes,omitempty" jsonschema:"show at most so many bytes of output, 256 to 262144; default 8192"`
	Format      format   `json:"format,omitempty" jsonschema:"text (default): without terminal control sequences; terminal: with them; base64: the exact bytes"`
}

// executeFacts is the answer of execute_command.
type executeFacts struct {
	commandFacts
	outputFacts
	StderrSoFar string `json:"stderr_so_far,omitempty" jsonschema:"what was printed on standard error, where stderr says ASYNC because the command has not ended"`
	startFacts
}

// startFacts is what is told of a call that has started a command and waited for it.
type startFacts struct {
	Asked    string `json:"asked,omitempty" jsonschema:"what the person before you was asked through this client, and said, or why nothing was asked"`
	Stale    string `json:"stale,omitempty" jsonschema:"the service could not be asked again, and why: this is not the newest state; ask again where it is"`
	Replayed bool   `json:"replayed,omitempty" jsonschema:"an earlier call with this request_id had started it"`
	Next     string `json:"next,omitempty" jsonschema:"what to do now"`
}

type startedFacts struct {
	commandFacts
	Replayed bool   `json:"replayed,omitempty" jsonschema:"an earlier call with this request_id had started it"`
	Next     string `json:"next,omitempty" jsonschema:"what to do now"`
}

func (a *adapter) executeTools() []tool {
	starts := nature{acts: true, destructive: true}
	return []tool{
		declare(a, declaration{
			name: "execute_command", title: "Run a command", toolset: execute, nature: starts, limit: longest,
			description: "Run a shell command on a host and wait for it up to wait_seconds (default 30, at most 50). " +
				"Done: stdout, stderr, exit_code. Not done: state \"running\", ended false, the command_id and the output so far; the command goes on and is not lost. " +
				"Do not start it again then: ask get_command_status with the command_id and wait_seconds. " +
				"State \"awaiting_approval\": a person must approve it first; tell yours. " +
				"(For callers that know no state: exit_code 124 with stderr \"ASYNC:<command_id>\" also means that it goes on.) " +
				"Cancelling this call ends the waiting only; cancel_command ends the command.",
		}, a.execute),
		declare(a, declaration{
			name: "execute_command_async", title: "Start a command", toolset: execute, nature: starts,
			description: "Start a shell command on a host and get its command_id at once, without waiting. " +
				"Follow it with get_command_status, read its output with get_command_output, end it with cancel_command.",
		}, a.start),
	}
}

// request makes the service's request of the arguments.
func (s *startArgs) request(wait time.Duration) *telexecv1.ExecuteRequest {
	req := &telexecv1.ExecuteRequest{
		RequestId: s.RequestID, Host: s.Host, Session: s.SessionName, Command: s.Command, WorkingDirectory: s.Cwd, Env: s.Env,
		Stdin: []byte(s.Stdin), StdinOpen: s.StdinOpen, LoginShell: s.LoginShell, Labels: s.Labels, Wait: durationpb.New(wait),
	}
	if s.Sudo || s.SudoUser != "" {
		req.Sudo = &telexecv1.Sudo{User: s.SudoUser}
	}
	if s.PTY {
		req.Pty = &telexecv1.Pty{}
	}
	if s.Timeout > 0 {
		req.Timeout = durationpb.New(duration(s.Timeout))
	}
	return req
}

// start answers with the id at once.
func (a *adapter) start(ctx context.Context, c *call, in startArgs) (answer[startedFacts], error) {
	named := in.SessionName
	if err := a.mayStart(ctx, &in); err != nil {
		return answer[startedFacts]{}, err
	}
	req := in.request(0)
	req.Output = &telexecv1.OutputOptions{Omit: true}
	resp, err := a.client.Execute(ctx, req)
	if err != nil {
		return answer[startedFacts]{}, sessionError(named, err)
	}
	out := startedFacts{commandFacts: facts(resp.GetCommand()), Replayed: resp.GetReplayed() && in.RequestID != ""}
	text := out.sentence()
	if !out.Ended {
		out.Next = a.next(resp.GetCommand(), outputFacts{})
		text += "\n" + out.Next
	}
	return answer[startedFacts]{data: out, text: text, failed: unsuccessful(resp.GetCommand())}, nil
}

// mayStart refuses hosts that are not allowed, and sessions on them. It puts into the
// arguments the session that it has looked at.
func (a *adapter) mayStart(ctx context.Context, in *startArgs) (err error) {
	switch {
	case in.SessionName == "" && in.Host == "" && len(a.hosts) > 0:
		return refuse("MISSING_HOST", hints["MISSING_HOST"], "there is no host to run on")
	case in.SessionName == "":
		return a.mayRun(ctx, in.Host)
	case !a.offers(sessions, true):
		return refuse("INVALID_ARGUMENT", "Give host instead of sessionName", "this adapter has no sessions")
	}
	in.SessionName, err = a.mayUse(ctx, in.SessionName)
	return err
}

// execute waits for the end, and answers with how far the command is where that
// takes too long.
func (a *adapter) execute(ctx context.Context, c *call, in executeArgs) (answer[executeFacts], error) {
	named := in.SessionName
	if err := a.mayStart(ctx, &in.startArgs); err != nil {
		return answer[executeFacts]{}, err
	}
	budget := budgetOr(in.MaxBytes, defaultBudget)
	r, err := a.perform(ctx, c, in.request(0), in.WaitSeconds, budget)
	if err != nil {
		return answer[executeFacts]{}, sessionError(named, err)
	}
	if r.form != nil || r.task != nil {
		return answer[executeFacts]{form: r.form, task: r.task}, nil
	}
	ans := a.executeAnswer(r.resp, budget, in.Format)
	ans.text = r.note(&ans.data.startFacts) + ans.text
	return ans, nil
}

// performance is what came of starting a command and waiting for it: a response, or in
// its place the handle of a task, or a form that the person must fill in first.
type performance struct {
	resp     *telexecv1.ExecuteResponse
	replayed bool
	said     string // by the person who was asked; see asking
	lost     error  // why the response is not the newest state
	task     *task
	form     *mcp.CallToolResult
}

// note tells what is to be known besides the command, as data and as the lines above
// all others.
func (r *performance) note(f *startFacts) (text string) {
	f.Asked, f.Replayed = r.said, r.replayed
	if r.lost != nil {
		failure := tellError(r.lost).Error
		f.Stale = failure.Reason + ": " + failure.Message
		text = "This is not its newest state: the service could not be asked again. " + f.Stale + "\n"
	}
	if r.said != "" {
		text += r.said + "\n"
	}
	return text
}

// perform starts a command and waits for it as long as the caller wants, nil for the
// default. Clients that follow tasks get one where the command is not done by then.
func (a *adapter) perform(ctx context.Context, c *call, req *telexecv1.ExecuteRequest, waitSeconds *float64, budget int) (performance, error) {
	wait := defaultWait
	if c.followsTasks() {
		wait = defaultTaskWait
	}
	if waitSeconds != nil {
		wait = duration(*waitSeconds)
	}
	wait = clamp(ctx, wait)
	named := req.GetRequestId() != ""
	if earlier, ok := c.earlierRound(); ok && !named {
		req.RequestId = earlier.requestID // the command that the form was about
	}
	req.Output = outputFor(budget)
	resp, asked, lost, err := a.executeAndWait(ctx, c, req, wait)
	if err != nil {
		return performance{}, err
	}
	r := performance{resp: resp, said: asked.said, lost: lost, form: asked.form}
	r.replayed = resp.GetReplayed() && named // else it was only our client that asked twice
	// What waits for approval is told at once: a task would hide it from the model,
	// which is to tell the person.
	if cmd := resp.GetCommand(); r.form == nil && !ended(cmd) && !awaits(cmd) && c.followsTasks() {
		r.task = a.createdTask(ctx, cmd)
	}
	return r, nil
}

// firstWait is how long the call that starts a command waits itself. Most are over
// by then; of the others the id is known from then on, whatever happens to the
// connection.
const firstWait = 2 * time.Second

// executeAndWait starts a command and waits for its end. Once there is an id no
// failure may hide it: where the service cannot be asked any more, what was known
// last is the answer, with lost saying why it is no newer.
//
// A command that waits for approval it does not wait for, unless the person can be
// asked here and decides.
func (a *adapter) executeAndWait(ctx context.Context, c *call, req *telexecv1.ExecuteRequest, wait time.Duration) (resp *telexecv1.ExecuteResponse, asked asking, lost, err error) {
	began := time.Now()
	first, report := firstWait, c.progress()
	if report != nil {
		first = 0 // whoever wants to see how it goes sees it from the beginning
	}
	req.Wait = durationpb.New(min(wait, first))
	resp, err = a.client.Execute(ctx, req)
	left := wait - time.Since(began)
	if err != nil {
		return resp, asked, nil, err
	}
	again := func() error {
		status, err := a.client.GetStatus(ctx, &telexecv1.GetStatusRequest{CommandId: resp.GetCommand().GetId(), Output: req.GetOutput()})
		if err == nil {
			resp = &telexecv1.ExecuteResponse{Command: status.GetCommand(), Stdout: status.GetStdout(), Stderr: status.GetStderr(), Replayed: resp.GetReplayed()}
		}
		return err
	}
	if awaits(resp.GetCommand()) {
		if asked = c.askPerson(ctx, resp.GetCommand()); asked.said == "" {
			return resp, asked, nil, nil
		}
		if err := again(); err != nil || awaits(resp.GetCommand()) {
			return resp, asked, err, nil
		}
		left = clamp(ctx, wait) // that a person took time is not the command's
	}
	if ended(resp.GetCommand()) || left <= 0 {
		return resp, asked, nil, nil
	}
	w := &watch{adapter: a, id: resp.GetCommand().GetId(), wait: left, report: report}
	if _, err := w.run(ctx); err != nil {
		return resp, asked, err, nil
	}
	return resp, asked, again(), nil
}

// asyncExitCode is what `timeout` exits with; together with "ASYNC:<id>" on
// stderr it is how older callers are told that a command goes on. Nothing else
// says so: state does, and an exit code comes only from a host.
const asyncExitCode = 124

// executeAnswer tells the result, or how far the command is.
func (a *adapter) executeAnswer(resp snapshot, budget int, f format) answer[executeFacts] {
	cmd := resp.GetCommand()
	output, excerpts := outputFrom(resp, nil, nil, budget, f.orText())
	out := executeFacts{commandFacts: facts(cmd), outputFacts: output}
	var text strings.Builder
	text.WriteString(out.sentence())
	if !out.Ended {
		out.Next = a.next(cmd, out.outputFacts)
		text.WriteString("\n" + out.Next)
		out.StderrSoFar, out.Stderr = out.Stderr, "ASYNC:"+cmd.GetId()
		out.ExitCode = new(int32(asyncExitCode))
	}
	if !awaits(cmd) {
		a.quote(&text, cmd, excerpts...)
	}
	return answer[executeFacts]{data: out, text: text.String(), failed: unsuccessful(cmd)}
}

// next says what to do about a command that has not ended, with the tools there are.
// shown is what was shown of its output, which is not to be shown again.
func (a *adapter) next(cmd *telexecv1.Command, shown outputFacts) string {
	if awaits(cmd) {
		return a.nextApproval(cmd.GetId())
	}
	said := "It goes on; do not start it again."
	if cmd.GetQueue().GetWaitsFor() == "session" {
		said = "It is typed when what runs in its session has ended; do not start it again."
	}
	if call := a.waitCall(cmd); call != "" {
		if i := shown.StdoutInfo; i != nil && i.NextOffset > 0 {
			call += fmt.Sprintf(", \"stdout_offset\": %d", i.NextOffset)
		}
		if i := shown.StderrInfo; i != nil && i.NextOffset > 0 && cmd.GetSession() == "" {
			call += fmt.Sprintf(", \"stderr_offset\": %d", i.NextOffset)
		}
		said += " To wait for it: " + call + "}."
	}
	if cmd.GetSession() != "" {
		return said + a.nextInSession(cmd)
	}
	if a.offers(control, true) {
		if cmd.GetStdinOpen() {
			said += " If it waits for input: send_command_input."
		}
		said += " To end it: cancel_command."
	}
	return said
}

// waitCall is the call that waits for a command, without what stands behind; empty
// where there is none.
func (a *adapter) waitCall(cmd *telexecv1.Command) string {
	switch {
	case a.offers(observe, false):
		return fmt.Sprintf("get_command_status {\"command_id\": %q, \"wait_seconds\": 50", cmd.GetId())
	case cmd.GetSession() != "" && a.offers(sessions, false):
		// By its id: the current command of the session may be another one.
		return fmt.Sprintf("ssh_get_command_status {\"sessionName\": %q, \"command_id\": %q, \"wait_seconds\": 50", cmd.GetSession(), cmd.GetId())
	}
	return ""
}

// orText is the format, text where none was given.
func (f format) orText() format {
	if f == "" {
		return formatText
	}
	return f
}

// bytes gives what a caller wrote in a format.
func (f format) bytes(s string) ([]byte, error) {
	if f != formatBase64 {
		return []byte(s), nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, refuse("INVALID_ARGUMENT", "Give standard base64 with padding, or text without encoding", "input is not base64: %v", err)
	}
	return b, nil
}
