package mcptool

import (
	"context"
	"fmt"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

type sessionArgs struct {
	SessionName string `json:"sessionName" jsonschema:"name of the session"`
}

type cancelSessionArgs struct {
	sessionArgs
	cancelOptions
}

// sessionFacts is where the command of a session is.
type sessionFacts struct {
	SessionName string       `json:"sessionName"`
	Status      string       `json:"status" jsonschema:"no_task where nothing ran in the session or there is none of this name, else the state of its current or last command"`
	Message     string       `json:"message,omitempty"`
	Task        *statusFacts `json:"task,omitempty" jsonschema:"the command, as get_command_status tells it"`
}

// sessionCancelFacts is what a cancel in a session came to.
type sessionCancelFacts struct {
	SessionName string       `json:"sessionName"`
	Status      string       `json:"status" jsonschema:"no_task where nothing runs in the session or there is none of this name, else the state of the command"`
	Message     string       `json:"message,omitempty"`
	Cancel      *cancelFacts `json:"cancel,omitempty" jsonschema:"as cancel_command tells it"`
}

// noTask is the status of a session in which there is nothing to tell of.
const noTask = "no_task"

func (a *adapter) sessionTools() []tool {
	return []tool{
		declare(a, declaration{
			name: "ssh_get_command_status", title: "Where the command of a session is", toolset: observe, nature: nature{closedWorld: true},
			description: "Where the current or last command of a session is, by sessionName; no_task where nothing ran in it, or no session has this name.",
		}, a.sessionStatus),
		declare(a, declaration{
			name: "ssh_cancel_running_command", title: "Cancel what runs in a session", toolset: control, limit: longest,
			nature:      nature{acts: true, destructive: true, idempotent: true},
			description: "End what runs in a session with all of its processes, whoever started it, by sessionName; no_task where nothing runs in it, or no session has this name.",
		}, a.cancelSession),
	}
}

func (a *adapter) sessionStatus(ctx context.Context, _ *call, in sessionArgs) (answer[sessionFacts], error) {
	out := sessionFacts{SessionName: in.SessionName, Status: noTask}
	resp, err := a.status(ctx, &telexecv1.GetStatusRequest{Session: in.SessionName, Output: outputFor(statusBudget)})
	if said, ok := nothingThere(in.SessionName, resp.GetNoTask(), err); ok {
		out.Message = said
		return answer[sessionFacts]{data: out, text: noTask + ": " + said}, nil
	}
	if err != nil {
		return answer[sessionFacts]{}, err
	}
	status := a.statusAnswer(resp, outcome{why: whyAtOnce}, &statusArgs{})
	out.Status, out.Task = status.data.State, &status.data
	return answer[sessionFacts]{data: out, text: status.text}, nil
}

func (a *adapter) cancelSession(ctx context.Context, _ *call, in cancelSessionArgs) (answer[sessionCancelFacts], error) {
	out := sessionCancelFacts{SessionName: in.SessionName, Status: noTask}
	req := in.request()
	req.Session = in.SessionName
	if len(a.hosts) > 0 { // what is ended must be what was looked at
		resp, err := a.status(ctx, &telexecv1.GetStatusRequest{Session: in.SessionName, Output: &telexecv1.OutputOptions{Omit: true}})
		if said, ok := nothingThere(in.SessionName, resp.GetNoTask(), err); ok {
			out.Message = said
			return answer[sessionCancelFacts]{data: out, text: noTask + ": " + said}, nil
		}
		if err != nil {
			return answer[sessionCancelFacts]{}, err
		}
		req.Session, req.CommandId = "", resp.GetCommand().GetId()
	}
	resp, err := a.client.Cancel(ctx, req)
	if said, ok := nothingThere(in.SessionName, resp.GetNoTask(), err); ok {
		out.Message = said
		return answer[sessionCancelFacts]{data: out, text: noTask + ": " + said}, nil
	}
	if err != nil {
		return answer[sessionCancelFacts]{}, err
	}
	cancel := cancelAnswer(resp)
	out.Status, out.Cancel = cancel.data.State, &cancel.data
	return answer[sessionCancelFacts]{data: out, text: cancel.text, failed: cancel.failed}, nil
}

// nothingThere reports whether there is no command to tell of, and says why. A
// session that does not exist, or not for this caller, is no error to an agent that
// only wants to know whether something runs in it.
func nothingThere(session string, noTask bool, err error) (said string, ok bool) {
	if noTask {
		return "nothing runs in this session", true
	}
	if err == nil {
		return "", false
	}
	switch tellError(err).Error.Reason {
	case reasonUnknownSession, reasonUnknownCommand, reasonAccessDenied:
		return fmt.Sprintf("there is no session %q", session), true
	}
	return "", false
}
