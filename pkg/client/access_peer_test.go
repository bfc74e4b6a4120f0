package client

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// What the peer does about who may do what. Whoever calls it is ann.

// no is a refusal with a reason.
func no(code codes.Code, reason string) error {
	return refusal(code, &errdetails.ErrorInfo{Domain: domain, Reason: reason})
}

// waits makes approvals that wait for so many.
func (p *peer) waits(required int32, ids ...string) {
	p.approvals = map[string]*telexecv1.Approval{}
	for _, id := range ids {
		hash := sha256.Sum256([]byte(id))
		p.approvals[id] = &telexecv1.Approval{
			CommandId: id, State: telexecv1.ApprovalState_APPROVAL_STATE_PENDING, RequiredApprovals: required, RequestHash: hash[:], Revision: 1,
		}
	}
}

func (p *peer) ListApprovals(_ context.Context, req *telexecv1.ListApprovalsRequest) (*telexecv1.ListApprovalsResponse, error) {
	if req.GetPageToken() == "" {
		return &telexecv1.ListApprovalsResponse{Approvals: []*telexecv1.Approval{{CommandId: "1"}}, NextPageToken: "p2"}, nil
	}
	return &telexecv1.ListApprovalsResponse{Approvals: []*telexecv1.Approval{{CommandId: "2"}}}, nil
}

func (p *peer) GetApproval(_ context.Context, req *telexecv1.GetApprovalRequest) (*telexecv1.GetApprovalResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.approvals[req.GetCommandId()]
	if a == nil {
		return nil, no(codes.NotFound, "UNKNOWN_APPROVAL")
	}
	return &telexecv1.GetApprovalResponse{Approval: proto.CloneOf(a)}, nil
}

func (p *peer) DecideApprovals(_ context.Context, req *telexecv1.DecideApprovalsRequest) (*telexecv1.DecideApprovalsResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range req.GetDecisions() {
		if err := p.mayDecide(d); err != nil {
			return nil, err
		}
	}
	var resp telexecv1.DecideApprovalsResponse
	for _, d := range req.GetDecisions() {
		p.decide("ann", d)
		resp.Approvals = append(resp.Approvals, proto.CloneOf(p.approvals[d.GetCommandId()]))
	}
	return &resp, nil
}

func (p *peer) mayDecide(d *telexecv1.Decision) error {
	a := p.approvals[d.GetCommandId()]
	switch {
	case a == nil:
		return no(codes.NotFound, "UNKNOWN_APPROVAL")
	case a.GetState() != telexecv1.ApprovalState_APPROVAL_STATE_PENDING:
		return no(codes.FailedPrecondition, reasonAlreadyDecided)
	case string(a.GetRequestHash()) != string(d.GetRequestHash()):
		return no(codes.Aborted, reasonRequestChanged)
	}
	for _, was := range a.GetDecisions() {
		if was.GetBy().GetPrincipal() == "ann" && was.GetRevision() == a.GetRevision() {
			return no(codes.PermissionDenied, reasonNotYourDecision)
		}
	}
	return nil
}

// decide takes a decision.
func (p *peer) decide(who string, d *telexecv1.Decision) {
	a := p.approvals[d.GetCommandId()]
	a.Decisions = append(a.Decisions, &telexecv1.ApprovalDecision{
		By: &telexecv1.Actor{Principal: who}, Verdict: d.GetVerdict(), RequestHash: d.GetRequestHash(), Revision: a.GetRevision(),
		Command: d.GetModified().GetCommand(),
	})
	switch d.GetVerdict() {
	case telexecv1.Verdict_VERDICT_MODIFY:
		hash := sha256.Sum256([]byte(d.GetModified().GetCommand()))
		a.Revision, a.RequestHash, a.Approvals = a.GetRevision()+1, hash[:], 0
		a.Command = &telexecv1.Command{Command: d.GetModified().GetCommand(), Argv: d.GetModified().GetArgv(), Timeout: d.GetModified().GetTimeout()}
	case telexecv1.Verdict_VERDICT_APPROVE:
		if a.Approvals++; a.GetApprovals() == a.GetRequiredApprovals() {
			a.State = telexecv1.ApprovalState_APPROVAL_STATE_APPROVED
		}
	default:
		a.State = telexecv1.ApprovalState_APPROVAL_STATE_REJECTED
	}
}

func (p *peer) ExplainPolicy(_ context.Context, req *telexecv1.ExplainPolicyRequest) (*telexecv1.ExplainPolicyResponse, error) {
	return &telexecv1.ExplainPolicyResponse{Effect: telexecv1.PolicyEffect_POLICY_EFFECT_DENY, Rule: req.GetCommand()}, nil
}

func (p *peer) CreateToken(_ context.Context, req *telexecv1.CreateTokenRequest) (*telexecv1.CreateTokenResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.valid(req.GetPrincipal()) != nil {
		return nil, no(codes.AlreadyExists, reasonTokenNameTaken)
	}
	t := &telexecv1.Token{Principal: req.GetPrincipal(), Id: fmt.Sprint(len(p.tokens))}
	p.tokens = append(p.tokens, t)
	return &telexecv1.CreateTokenResponse{Secret: "s3cret", Token: t}, nil
}

// valid gives the key of that name that is not revoked.
func (p *peer) valid(name string) *telexecv1.Token {
	for _, t := range p.tokens {
		if t.GetPrincipal() == name && t.GetRevokeTime() == nil {
			return t
		}
	}
	return nil
}

// ListTokens gives one key a page.
func (p *peer) ListTokens(_ context.Context, req *telexecv1.ListTokensRequest) (*telexecv1.ListTokensResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	resp := &telexecv1.ListTokensResponse{}
	for i, t := range p.tokens {
		switch after, _ := strconv.Atoi(req.GetPageToken()); {
		case i < after || t.GetRevokeTime() != nil && !req.GetIncludeInactive():
		case len(resp.GetTokens()) == 1:
			resp.NextPageToken = fmt.Sprint(i)
			return resp, nil
		default:
			resp.Tokens = append(resp.Tokens, t)
		}
	}
	return resp, nil
}

func (p *peer) RevokeToken(_ context.Context, req *telexecv1.RevokeTokenRequest) (*telexecv1.RevokeTokenResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.valid(req.GetPrincipal())
	if t == nil {
		return nil, no(codes.NotFound, reasonUnknownToken)
	}
	t.RevokeTime = timestamppb.Now()
	return &telexecv1.RevokeTokenResponse{Token: t}, nil
}

func (p *peer) ListAuditEntries(_ context.Context, req *telexecv1.ListAuditEntriesRequest) (*telexecv1.ListAuditEntriesResponse, error) {
	if req.GetPageToken() == "" {
		return &telexecv1.ListAuditEntriesResponse{Entries: []*telexecv1.AuditEntry{{Sequence: 3}, {Sequence: 2}}, NextPageToken: "p2"}, nil
	}
	return &telexecv1.ListAuditEntriesResponse{Entries: []*telexecv1.AuditEntry{{Sequence: 1}}}, nil
}

func (p *peer) VerifyAudit(context.Context, *telexecv1.VerifyAuditRequest) (*telexecv1.VerifyAuditResponse, error) {
	return &telexecv1.VerifyAuditResponse{Intact: true, VerifiedRows: int64(len(p.rows))}, nil
}

// ExportAudit sends what there is; before is asked ahead of every row, with the
// number of rows sent so far in all.
func (p *peer) ExportAudit(req *telexecv1.ExportAuditRequest, s grpc.ServerStreamingServer[telexecv1.ExportAuditResponse]) error {
	p.note(s.Context(), "ExportAudit", req)
	for _, row := range p.rows {
		if row.GetSequence() <= req.GetAfterSequence() {
			continue
		}
		if err := p.before("row", p.note(s.Context(), "row", row), row); err != nil {
			return err
		}
		if err := s.Send(row); err != nil {
			return err
		}
	}
	return nil
}

// chained makes a chain of rows with these texts.
func chained(texts ...string) []*telexecv1.ExportAuditResponse {
	var rows []*telexecv1.ExportAuditResponse
	previous := make([]byte, sha256.Size)
	for i, text := range texts {
		hash := sha256.Sum256(append(append([]byte(nil), previous...), text...))
		rows = append(rows, &telexecv1.ExportAuditResponse{Sequence: int64(i + 1), PreviousHash: previous, Hash: hash[:], Text: text})
		previous = hash[:]
	}
	return rows
}
