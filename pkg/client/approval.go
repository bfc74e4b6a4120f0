package client

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// ListApprovals gives the approvals that match req, newest first, over all pages;
// as ListCommands. They are those that the caller may decide, and those of the
// caller's own commands.
func (c *Client) ListApprovals(ctx context.Context, req *telexecv1.ListApprovalsRequest) iter.Seq2[*telexecv1.Approval, error] {
	req = proto.CloneOf(req)
	return pages(func(token string) ([]*telexecv1.Approval, string, error) {
		if token != "" {
			req.PageToken = token
		}
		resp, err := c.ListApprovalsPage(ctx, req)
		return resp.GetApprovals(), resp.GetNextPageToken(), err
	})
}

// ListApprovalsPage gives one page, for callers that page themselves.
func (c *Client) ListApprovalsPage(ctx context.Context, req *telexecv1.ListApprovalsRequest) (*telexecv1.ListApprovalsResponse, error) {
	return call(ctx, c, true, c.approvals.ListApprovals, req)
}

// GetApproval gives the approval that a command waits for or has waited for, with
// all that its decider should see. Its id is that of the command.
func (c *Client) GetApproval(ctx context.Context, commandID string) (*telexecv1.Approval, error) {
	resp, err := call(ctx, c, true, c.approvals.GetApproval, &telexecv1.GetApprovalRequest{CommandId: commandID})
	return resp.GetApproval(), err
}

// DecideApprovals decides one or several approvals: all of them or none. Each
// decision names the hash of the request that was shown (Approval.request_hash).
//
// Where the answer is lost on the way the decisions are sent again, and when the
// service then says that there is nothing left to decide, the approvals are read:
// if they hold these decisions of this caller, they are the answer, otherwise the
// refusal is. An error that leaves it open says so in its hint; reading the
// approvals is then the way to know.
func (c *Client) DecideApprovals(ctx context.Context, req *telexecv1.DecideApprovalsRequest) (*telexecv1.DecideApprovalsResponse, error) {
	resp, err := call(ctx, c, true, c.approvals.DecideApprovals, req)
	e, ok := asError(err)
	if !ok || !e.doubt {
		return resp, err
	}
	taken, err := c.doubted(ctx, e, req.GetDecisions())
	if err != nil {
		return nil, err
	}
	return &telexecv1.DecideApprovalsResponse{Approvals: taken}, nil
}

// doubted is what came of decisions whose answer may have been lost: the approvals where
// they hold them, else e, which the last attempt has met with.
func (c *Client) doubted(ctx context.Context, e *Error, decisions []*telexecv1.Decision) ([]*telexecv1.Approval, error) {
	switch e.Reason {
	case reasonAlreadyDecided, reasonRequestChanged, reasonNotYourDecision:
		taken, readErr := c.taken(ctx, decisions)
		if readErr == nil && taken != nil {
			return taken, nil
		}
		if readErr == nil {
			return nil, e
		}
	default:
		if !e.leavesOpen() && !e.temporary() {
			return nil, e
		}
	}
	return nil, e.inDoubt("Whether it was decided is not known: read the approval again, and decide if it still waits")
}

// taken gives the approvals if they hold all of these decisions of the caller, or
// nil. The error is that they cannot be read, or do not tell.
func (c *Client) taken(ctx context.Context, decisions []*telexecv1.Decision) ([]*telexecv1.Approval, error) {
	me, err := c.GetServerInfo(ctx)
	if err != nil {
		return nil, err
	}
	approvals := make([]*telexecv1.Approval, len(decisions))
	for i, d := range decisions {
		a, err := c.GetApproval(ctx, d.GetCommandId())
		if err != nil {
			return nil, err
		}
		if held, err := holds(a, d, me.GetPrincipal()); err != nil || !held {
			return nil, err
		}
		approvals[i] = a
	}
	return approvals, nil
}

// holds reports whether an approval has a decision of this principal. It fails
// where the approval shows too little of a modification to tell it from another of
// the same principal.
func holds(a *telexecv1.Approval, d *telexecv1.Decision, principal string) (bool, error) {
	var untold error
	for _, was := range a.GetDecisions() {
		if was.GetBy().GetPrincipal() != principal || was.GetVerdict() != d.GetVerdict() {
			continue
		}
		if hash := d.GetRequestHash(); len(hash) > 0 && !bytes.Equal(hash, was.GetRequestHash()) {
			continue
		}
		if d.GetModified() == nil {
			return true, nil
		}
		if held, err := modifiedTo(a, was, d.GetModified()); held {
			return true, nil
		} else if err != nil {
			untold = err
		}
	}
	return false, untold
}

// errUntold: an approval does not show what a modification has made of the request.
var errUntold = errors.New("the approval does not show all of the modification")

// modifiedTo reports whether a modification was m. The decision itself shows the
// command line only, with an ellipsis where it is long; the command shows all, as
// long as it is the one that the decision has made of it.
func modifiedTo(a *telexecv1.Approval, was *telexecv1.ApprovalDecision, m *telexecv1.ModifiedRequest) (bool, error) {
	runs := a.GetCommand()
	if a.GetRevision() != was.GetRevision()+1 {
		shown := was.GetCommand()
		if m.GetCommand() != "" && m.GetCommand() != shown && !strings.HasSuffix(shown, "…") {
			return false, nil
		}
		return false, errUntold
	}
	if !slices.Equal(m.GetArgv(), runs.GetArgv()) || m.GetCommand() != "" && m.GetCommand() != runs.GetCommand() {
		return false, nil
	}
	switch {
	case m.GetTimeout() != nil:
		return runs.GetTimeout() != nil && runs.GetTimeout().AsDuration() == m.GetTimeout().AsDuration(), nil
	case runs.GetTimeout() != nil:
		return false, errUntold // that of the request, or of another modification
	}
	return true, nil
}

// ExplainPolicy tells which rule would decide about a command, and why. Nothing
// is started.
func (c *Client) ExplainPolicy(ctx context.Context, req *telexecv1.ExplainPolicyRequest) (*telexecv1.ExplainPolicyResponse, error) {
	return call(ctx, c, true, c.policy.ExplainPolicy, req)
}
