package api

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/fault"
)

// Approval is an approval with what is known of its command, as one caller sees it.
type Approval struct {
	approval.Approval
	Snapshot Snapshot
	May      error // why the caller may not decide it now; nil: it may
}

// Deciders take decisions. Methods may be called concurrently.
type Deciders interface {
	// Approval gives one approval, or UNKNOWN_APPROVAL.
	Approval(ctx context.Context, by access.Caller, id string) (Approval, error)
	// Approvals gives those that the caller may see, newest first; next is where the
	// next page begins, empty where there is none. mine: only those that the caller
	// may decide now.
	Approvals(ctx context.Context, by access.Caller, f approval.Filter, mine bool) (list []Approval, next string, err error)
	// Decide takes all ballots or none.
	Decide(ctx context.Context, by access.Caller, ballots []approval.Ballot) ([]Approval, error)
}

// Approvals answers for ApprovalService.
type Approvals struct {
	telexecv1.UnsafeApprovalServiceServer

	deciders Deciders
	plans    Plans
}

// NewApprovals makes the service.
func NewApprovals(d Deciders, p Plans) *Approvals { return &Approvals{deciders: d, plans: p} }

// withPlan is an approval on the wire; that of a step comes with the whole plan, for who
// may decide it now, or may see the task.
func withPlan(ctx context.Context, plans Plans, a Approval, now time.Time) (*telexecv1.Approval, error) {
	p := approvalToProto(a, now)
	if step := a.Snapshot.Spec.Task; step != nil {
		v, err := plans.Get(ctx, caller(ctx), step.ID)
		if err != nil && a.May == nil {
			v, err = plans.Plan(ctx, step.ID)
		}
		switch {
		case fault.KindOf(err) == fault.NotFound, fault.KindOf(err) == fault.PermissionDenied: // retention has removed it, or it is not for the caller
		case err != nil:
			return nil, err
		default:
			p.Task = taskToProto(v)
		}
	}
	return p, nil
}

// ListApprovals is of ApprovalService.
func (a *Approvals) ListApprovals(ctx context.Context, r *telexecv1.ListApprovalsRequest) (*telexecv1.ListApprovalsResponse, error) {
	unpaged := proto.CloneOf(r)
	unpaged.PageSize, unpaged.PageToken = 0, ""
	cursor, err := pageCursor(unpaged, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	f := approval.Filter{Before: cursor, Limit: pageSize(r.GetPageSize())}
	for _, s := range r.GetStates() {
		f.States = append(f.States, approvalStateFromProto(s))
	}
	if r.GetMineToDecide() && len(f.States) == 0 {
		f.States = []approval.State{approval.Pending}
	}
	list, next, err := a.deciders.Approvals(ctx, caller(ctx), f, r.GetMineToDecide())
	if err != nil {
		return nil, err
	}
	page, bytes, now := &telexecv1.ListApprovalsResponse{}, 0, time.Now()
	for i, one := range list {
		p, err := withPlan(ctx, a.plans, one, now)
		if err != nil {
			return nil, err
		}
		bytes += proto.Size(p)
		if i > 0 && bytes > maxPageBytes {
			next = list[i-1].CommandID
			break
		}
		page.Approvals = append(page.Approvals, p)
	}
	if next != "" {
		page.NextPageToken = pageToken(unpaged, next)
	}
	return page, nil
}

// GetApproval is of ApprovalService.
func (a *Approvals) GetApproval(ctx context.Context, r *telexecv1.GetApprovalRequest) (*telexecv1.GetApprovalResponse, error) {
	one, err := a.deciders.Approval(ctx, caller(ctx), r.GetCommandId())
	if err != nil {
		return nil, err
	}
	p, err := withPlan(ctx, a.plans, one, time.Now())
	if err != nil {
		return nil, err
	}
	return &telexecv1.GetApprovalResponse{Approval: p}, nil
}

// DecideApprovals is of ApprovalService.
func (a *Approvals) DecideApprovals(ctx context.Context, r *telexecv1.DecideApprovalsRequest) (*telexecv1.DecideApprovalsResponse, error) {
	ballots := make([]approval.Ballot, len(r.GetDecisions()))
	for i, d := range r.GetDecisions() {
		ballots[i] = approval.Ballot{
			CommandID: d.GetCommandId(), Verdict: verdictFromProto(d.GetVerdict()),
			Shown: d.GetRequestHash(), Reason: d.GetReason(),
		}
		if ballots[i].Verdict != approval.Reject && len(d.GetRequestHash()) == 0 {
			return nil, invalid("decisions["+strconv.Itoa(i)+"].request_hash", "is missing",
				"a decision names the request that was shown, and one has no request_hash").
				WithHint("Take request_hash from the approval as it was shown").With("command_id", d.GetCommandId())
		}
		if m := d.GetModified(); m != nil {
			ballots[i].Modified = &approval.Modification{Line: m.GetCommand(), Argv: m.GetArgv(), Timeout: m.GetTimeout().AsDuration()}
		}
	}
	list, err := a.deciders.Decide(ctx, caller(ctx), ballots)
	if err != nil {
		return nil, err
	}
	answer, now := &telexecv1.DecideApprovalsResponse{}, time.Now()
	for _, one := range list {
		answer.Approvals = append(answer.Approvals, approvalToProto(one, now))
	}
	return answer, nil
}
