package mcptool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// maxGrace is the longest grace that a cancel can wait for within a call.
const maxGrace = 40 * time.Second

type idArgs struct {
	CommandID string `json:"command_id" jsonschema:"as execute_command gave it"`
}

type cancelArgs struct {
	idArgs
	cancelOptions
}

type cancelOptions struct {
	Reason       string   `json:"reason,omitempty" jsonschema:"why; shown to those who watch, and kept"`
	GraceSeconds *float64 `json:"grace_seconds,omitempty" jsonschema:"how long it may take to end by itself after INT and TERM before it is killed, 0 to 40; default 0.5"`
}

// cancelFacts is the answer of a cancel.
type cancelFacts struct {
	commandFacts
	Outcome string         `json:"outcome" jsonschema:"gone (proven: no process of it is left), already_ended, never_started, pending (under way, and carried on by itself), left (see left), unproven"`
	Message string         `json:"message,omitempty" jsonschema:"what was done and what proves it"`
	Signal  string         `json:"signal,omitempty" jsonschema:"the strongest signal that was needed"`
	Killed  int32          `json:"processes_ended,omitempty"`
	Left    []processFacts `json:"left,omitempty" jsonschema:"processes that could not be ended"`
}

type processFacts struct {
	PID     int64  `json:"pid"`
	User    string `json:"user,omitempty"`
	Command string `json:"command,omitempty"`
	Why     string `json:"why,omitempty"`
}

type inputArgs struct {
	idArgs
	Input    string `json:"input,omitempty" jsonschema:"what to write, exactly: a line ends with a line feed"`
	Encoding format `json:"encoding,omitempty" jsonschema:"text (default), or base64 for bytes"`
	EOF      bool   `json:"eof,omitempty" jsonschema:"close standard input behind it"`
}

// inputFacts is the answer of send_command_input.
type inputFacts struct {
	CommandID  string `json:"command_id"`
	StdinBytes int64  `json:"stdin_bytes" jsonschema:"bytes of input that the command's host has taken so far, from all calls"`
}

func (a *adapter) controlTools() []tool {
	return []tool{
		declare(a, declaration{
			name: "interrupt_command_by_id", title: "Interrupt a command", toolset: control, nature: nature{acts: true, destructive: true},
			description: "Send one Ctrl-C (SIGINT) to a running command. What it makes of it is its own affair; to be sure that it ends, use cancel_command.",
		}, a.interrupt),
		declare(a, declaration{
			name: "cancel_command", title: "Cancel a command", toolset: control, limit: longest,
			nature: nature{acts: true, destructive: true, idempotent: true},
			description: "End a command and all of its processes: INT, TERM, then KILL after grace_seconds. The answer says what proves that nothing is left, or what is. " +
				"Works for whatever you may see running, and withdraws what waits for approval; cancelling twice or after the end is harmless.",
		}, a.cancel),
		declare(a, declaration{
			name: "send_command_input", title: "Write to a command's input", toolset: control, nature: nature{acts: true, destructive: true},
			description: "Write to the standard input of a running command that was started with stdin_open or pty; eof closes it. What is sent cannot be taken back.",
		}, a.sendInput),
	}
}

func (a *adapter) interrupt(ctx context.Context, _ *call, in idArgs) (answer[commandFacts], error) {
	if err := a.mayTouch(ctx, in.CommandID); err != nil {
		return answer[commandFacts]{}, err
	}
	resp, err := onceStarted(ctx, a, in.CommandID, func() (*telexecv1.SignalResponse, error) {
		return a.client.Signal(ctx, &telexecv1.SignalRequest{CommandId: in.CommandID, Signal: "INT"})
	})
	if err != nil {
		return answer[commandFacts]{}, err
	}
	f := facts(resp.GetCommand())
	text := "SIGINT was sent. " + f.sentence()
	if a.offers(observe, false) {
		text += "\nget_command_status with wait_seconds shows what comes of it."
	}
	return answer[commandFacts]{data: f, text: text}, nil
}

func (a *adapter) cancel(ctx context.Context, _ *call, in cancelArgs) (answer[cancelFacts], error) {
	if err := a.mayTouch(ctx, in.CommandID); err != nil {
		return answer[cancelFacts]{}, err
	}
	req := in.request()
	req.CommandId = in.CommandID
	resp, err := a.client.Cancel(ctx, req)
	if err != nil {
		return answer[cancelFacts]{}, err
	}
	return cancelAnswer(resp), nil
}

// startTime is how long a call waits for a command that is about to start.
const startTime = 10 * time.Second

// onceStarted makes a call that needs a running command. Where the command is only
// about to start, as behind execute_command_async or a restart of the service, it
// waits for that and calls again: the service has done nothing the first time.
func onceStarted[Resp any](ctx context.Context, a *adapter, id string, do func() (Resp, error)) (Resp, error) {
	resp, err := do()
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != reasonNotRunning {
		return resp, err
	}
	began := time.Now()
	var version int64 // 0: the first answer comes at once
	for wait := startTime; wait > 0; wait = startTime - time.Since(began) {
		status, statusErr := a.client.GetStatus(ctx, &telexecv1.GetStatusRequest{
			CommandId: id, Wait: durationpb.New(wait), IfVersionGreaterThan: &version, Output: &telexecv1.OutputOptions{Omit: true},
		})
		if statusErr != nil {
			return resp, err
		}
		cmd := status.GetCommand()
		switch cmd.GetState() {
		case telexecv1.CommandState_COMMAND_STATE_QUEUED, telexecv1.CommandState_COMMAND_STATE_STARTING:
			version = cmd.GetVersion()
		case telexecv1.CommandState_COMMAND_STATE_RUNNING:
			return do()
		default:
			return resp, err
		}
	}
	return resp, err
}

// request is the part of a cancel that is the same for commands and sessions.
func (o *cancelOptions) request() *telexecv1.CancelRequest {
	req := &telexecv1.CancelRequest{Reason: o.Reason}
	if o.GraceSeconds != nil {
		req.Grace = durationpb.New(duration(*o.GraceSeconds))
	}
	return req
}

func cancelAnswer(resp *telexecv1.CancelResponse) answer[cancelFacts] {
	f := facts(resp.GetCommand())
	var text strings.Builder
	text.WriteString(f.sentence() + "\n")
	out, failed := tellReport(&text, "Cancel", resp.GetReport())
	out.commandFacts = f
	return answer[cancelFacts]{data: out, text: text.String(), failed: failed}
}

// tellReport tells what was done to end processes, as data and in words that begin with
// a title. bad: there may be some left.
func tellReport(b *strings.Builder, title string, report *telexecv1.CancelReport) (out cancelFacts, bad bool) {
	out = cancelFacts{
		Outcome: enumName(report.GetOutcome().String(), "CANCEL_OUTCOME_"),
		Message: report.GetMessage(), Signal: report.GetSignal(), Killed: report.GetEnded(),
	}
	fmt.Fprintf(b, "%s: %s", title, strings.ReplaceAll(out.Outcome, "_", " "))
	if out.Message != "" {
		fmt.Fprintf(b, "; %s", out.Message)
	}
	b.WriteString(".")
	for _, p := range report.GetLeft() {
		out.Left = append(out.Left, processFacts{p.GetPid(), p.GetUser(), p.GetCommand(), p.GetWhy()})
		fmt.Fprintf(b, "\nLeft: process %d of %s: %s (%s)", p.GetPid(), p.GetUser(), oneLine(p.GetCommand()), p.GetWhy())
	}
	return out, report.GetOutcome() == telexecv1.CancelOutcome_CANCEL_OUTCOME_LEFT || report.GetOutcome() == telexecv1.CancelOutcome_CANCEL_OUTCOME_UNPROVEN
}

func (a *adapter) sendInput(ctx context.Context, _ *call, in inputArgs) (answer[inputFacts], error) {
	data, err := in.Encoding.bytes(in.Input)
	if err != nil {
		return answer[inputFacts]{}, err
	}
	if err := a.mayTouch(ctx, in.CommandID); err != nil {
		return answer[inputFacts]{}, err
	}
	resp, err := onceStarted(ctx, a, in.CommandID, func() (*telexecv1.SendInputResponse, error) {
		return a.client.SendInput(ctx, &telexecv1.SendInputRequest{CommandId: in.CommandID, Data: data, Eof: in.EOF})
	})
	if err != nil {
		return answer[inputFacts]{}, err
	}
	text := fmt.Sprintf("Sent %s to command %s; it was sent %d in all.", count(len(data), "byte"), in.CommandID, resp.GetStdinBytes())
	if in.EOF {
		text += " Its input is closed."
	}
	return answer[inputFacts]{data: inputFacts{in.CommandID, resp.GetStdinBytes()}, text: text}, nil
}
