package mcptool

import (
	"context"
	"path"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

const (
	// longest is how long a call may wait, whatever it is asked: clients give up
	// at 60 s, and the answer must have reached them before.
	longest = 50 * time.Second
	// margin is what a call that has waited keeps for its answer. The service keeps
	// a twentieth of a call's time for its own, and must not have to cut a wait.
	margin = longest / 20
	// simpleLimit is for calls that wait for nothing but the service.
	simpleLimit = 20 * time.Second
	// defaultWait is how long execute_command waits.
	defaultWait = 30 * time.Second
)

// call is one call of a tool.
type call struct {
	*adapter
	request *mcp.CallToolRequest
}

// clamp turns seconds that a caller asked for into a wait that ends before ctx.
func clamp(ctx context.Context, wait time.Duration) time.Duration {
	wait = min(wait, longest)
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)-margin)
	}
	return max(wait, 0)
}

// duration makes a time of seconds. The longest that the contract knows is a
// year; what is above that, the service refuses.
func duration(seconds float64) time.Duration {
	const most = 1e9
	return time.Duration(min(seconds, most) * float64(time.Second))
}

// may reports whether the caller may know of a host.
func (a *adapter) may(host string) bool {
	if len(a.hosts) == 0 {
		return true
	}
	for _, pattern := range a.hosts {
		if ok, _ := path.Match(pattern, host); ok {
			return true
		}
	}
	return false
}

// mayRun refuses hosts that the caller may not know.
func (a *adapter) mayRun(ctx context.Context, host string) error {
	if a.may(host) {
		return nil
	}
	a.log.WarnContext(ctx, "refused a host that --host-allow leaves out", "host", host)
	return refuse("HOST_NOT_ALLOWED", "Take one that list_hosts shows", "this adapter does not allow the host %q, only %s", host, strings.Join(a.hosts, ", "))
}

// mayTouch refuses commands on such hosts, as if they did not exist. Where all
// hosts are allowed it asks nobody.
func (a *adapter) mayTouch(ctx context.Context, id string) error {
	if len(a.hosts) == 0 {
		return nil
	}
	_, err := a.status(ctx, &telexecv1.GetStatusRequest{CommandId: id, Output: &telexecv1.OutputOptions{Omit: true}})
	return err
}

// status is GetStatus, for the hosts that the caller may know.
func (a *adapter) status(ctx context.Context, req *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
	resp, err := a.client.GetStatus(ctx, req)
	if err != nil {
		return nil, err
	}
	if cmd := resp.GetCommand(); cmd != nil && !a.may(cmd.GetHost()) {
		return nil, a.unknown(ctx, cmd)
	}
	return resp, nil
}

// unknown tells of a command that the caller may not know the same as of one that
// does not exist.
func (a *adapter) unknown(ctx context.Context, cmd *telexecv1.Command) error {
	a.log.WarnContext(ctx, "refused a command on a host that --host-allow leaves out", "command", cmd.GetId(), "host", cmd.GetHost())
	return refuse(reasonUnknownCommand, hints[reasonUnknownCommand], "there is no command %q", cmd.GetId())
}

// Reasons of the service that this room answers in a way of its own.
const (
	reasonUnknownCommand = "UNKNOWN_COMMAND"
	reasonAccessDenied   = "ACCESS_DENIED" // perhaps there is none
	reasonUnknownSession = "UNKNOWN_SESSION"
	reasonSessionBusy    = "SESSION_BUSY"
	reasonSessionEnded   = "SESSION_ENDED"
	reasonNotRunning     = "NOT_RUNNING"
	reasonBeyondEnd      = "OFFSET_BEYOND_END"
	reasonUnknownTask    = "UNKNOWN_TASK"
	reasonInvalidRequest = "INVALID_REQUEST"
	reasonExitStatus     = "EXIT_STATUS"
)

// outputFor asks for so much of each stream that a budget of text can be filled from
// it although what is removed costs nothing.
func outputFor(budget int) *telexecv1.OutputOptions {
	return &telexecv1.OutputOptions{LimitBytes: int32(min(max(2*budget, 16<<10), 1<<20))}
}
