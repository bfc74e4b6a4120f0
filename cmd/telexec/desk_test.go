package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// desk is where a scripted service has approvals, policy, keys and audit.
type desk struct {
	telexecv1.UnimplementedApprovalServiceServer
	telexecv1.UnimplementedPolicyServiceServer
	telexecv1.UnimplementedAdminServiceServer

	mu        sync.Mutex
	approvals []*telexecv1.Approval
	explain   *telexecv1.ExplainPolicyResponse
	tokens    []*telexecv1.Token
	entries   []*telexecv1.AuditEntry
	rows      []*telexecv1.ExportAuditResponse
	verify    *telexecv1.VerifyAuditResponse
	info      *telexecv1.GetServerInfoResponse
	fail      error           // what the export ends with
	requests  []proto.Message // in the order they came
	came      chan struct{}   // not nil: who decides or makes a key sends here, and waits until the caller has gone
}

// keeps keeps a caller waiting for an answer, if it is to.
func (d *desk) keeps(ctx context.Context) {
	if d.came != nil {
		d.came <- struct{}{}
		<-ctx.Done()
	}
}

// sit starts a service that has only d.
func (d *desk) sit(t *testing.T) *invocation {
	t.Helper()
	return (&scripted{desk: d}).start(t)
}

func (d *desk) note(req proto.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests = append(d.requests, req)
}

// last gives the last request of a type.
func last[T proto.Message](t *testing.T, d *desk) (req T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.requests) - 1; i >= 0; i-- {
		if req, ok := d.requests[i].(T); ok {
			return req
		}
	}
	t.Fatalf("no %T has come", req)
	return req
}

func refused(code codes.Code, reason, message string) error {
	st, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "telexec"})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func (d *desk) ListApprovals(_ context.Context, req *telexecv1.ListApprovalsRequest) (*telexecv1.ListApprovalsResponse, error) {
	d.note(req)
	return &telexecv1.ListApprovalsResponse{Approvals: d.approvals}, nil
}

func (d *desk) GetApproval(_ context.Context, req *telexecv1.GetApprovalRequest) (*telexecv1.GetApprovalResponse, error) {
	d.note(req)
	for _, a := range d.approvals {
		if a.GetCommandId() == req.GetCommandId() {
			return &telexecv1.GetApprovalResponse{Approval: a}, nil
		}
	}
	return nil, refused(codes.NotFound, "UNKNOWN_APPROVAL", "nothing waits under this id")
}

// DecideApprovals approves and rejects; what is modified waits for another.
func (d *desk) DecideApprovals(ctx context.Context, req *telexecv1.DecideApprovalsRequest) (*telexecv1.DecideApprovalsResponse, error) {
	d.note(req)
	d.keeps(ctx)
	resp := &telexecv1.DecideApprovalsResponse{}
	for _, one := range req.GetDecisions() {
		for _, a := range d.approvals {
			if a.GetCommandId() != one.GetCommandId() {
				continue
			}
			if h := one.GetRequestHash(); len(h) > 0 && string(h) != string(a.GetRequestHash()) {
				return nil, refused(codes.Aborted, "REQUEST_CHANGED", "the request has changed")
			}
			a = proto.CloneOf(a)
			switch one.GetVerdict() {
			case telexecv1.Verdict_VERDICT_REJECT:
				a.State = telexecv1.ApprovalState_APPROVAL_STATE_REJECTED
			case telexecv1.Verdict_VERDICT_MODIFY:
				a.Revision, a.Approvals = 2, 0
			default:
				if a.Approvals++; a.GetApprovals() >= a.GetRequiredApprovals() {
					a.State = telexecv1.ApprovalState_APPROVAL_STATE_APPROVED
				}
			}
			resp.Approvals = append(resp.Approvals, a)
		}
	}
	return resp, nil
}

func (d *desk) ExplainPolicy(_ context.Context, req *telexecv1.ExplainPolicyRequest) (*telexecv1.ExplainPolicyResponse, error) {
	d.note(req)
	return d.explain, nil
}

func (d *desk) CreateToken(ctx context.Context, req *telexecv1.CreateTokenRequest) (*telexecv1.CreateTokenResponse, error) {
	d.note(req)
	d.keeps(ctx)
	t := &telexecv1.Token{Principal: req.GetPrincipal(), Roles: req.GetRoles()}
	if req.GetLifetime() != nil {
		t.ExpireTime = timestamppb.New(time.Now().Add(req.GetLifetime().AsDuration()))
	}
	return &telexecv1.CreateTokenResponse{Secret: "tx_s3cret", Token: t}, nil
}

func (d *desk) ListTokens(_ context.Context, req *telexecv1.ListTokensRequest) (*telexecv1.ListTokensResponse, error) {
	d.note(req)
	return &telexecv1.ListTokensResponse{Tokens: d.tokens}, nil
}

func (d *desk) RevokeToken(_ context.Context, req *telexecv1.RevokeTokenRequest) (*telexecv1.RevokeTokenResponse, error) {
	d.note(req)
	return &telexecv1.RevokeTokenResponse{Token: &telexecv1.Token{Principal: req.GetPrincipal()}}, nil
}

func (d *desk) ListAuditEntries(_ context.Context, req *telexecv1.ListAuditEntriesRequest) (*telexecv1.ListAuditEntriesResponse, error) {
	d.note(req)
	if req.GetPageToken() != "" {
		return &telexecv1.ListAuditEntriesResponse{Entries: d.entries[1:]}, nil
	}
	return &telexecv1.ListAuditEntriesResponse{Entries: d.entries[:1], NextPageToken: "2"}, nil
}

func (d *desk) VerifyAudit(_ context.Context, req *telexecv1.VerifyAuditRequest) (*telexecv1.VerifyAuditResponse, error) {
	d.note(req)
	return d.verify, nil
}

func (d *desk) ExportAudit(req *telexecv1.ExportAuditRequest, s grpc.ServerStreamingServer[telexecv1.ExportAuditResponse]) error {
	d.note(req)
	for _, row := range d.rows {
		if row.GetSequence() > req.GetAfterSequence() {
			if err := s.Send(row); err != nil {
				return err
			}
		}
	}
	return d.fail
}

func (d *desk) GetServerInfo(context.Context, *telexecv1.GetServerInfoRequest) (*telexecv1.GetServerInfoResponse, error) {
	return d.info, nil
}

// chained makes rows with these texts, as the service would.
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

const otherID = "01J8Z3K4M5N6P7Q8R9S0T1V2X9"

// waiting is an approval of a command line that the caller may decide.
func waiting(id, line string) *telexecv1.Approval {
	hash := sha256.Sum256([]byte(line))
	return &telexecv1.Approval{
		CommandId: id, State: telexecv1.ApprovalState_APPROVAL_STATE_PENDING, Rule: "upgrades", RequiredApprovals: 1, Roles: []string{"approver"},
		ExpireTime: timestamppb.New(time.Now().Add(59*time.Minute + 30*time.Second)), CreateTime: timestamppb.New(time.Now().Add(-90 * time.Second)),
		Revision: 1, RequestHash: hash[:], CanDecide: true,
		RequestedBy: &telexecv1.Actor{Principal: "ann", Origin: telexecv1.Origin_ORIGIN_MCP},
		Command:     &telexecv1.Command{Id: id, Host: "web1", Command: line},
	}
}

// want checks the end of an invocation: its exit code, and parts of what it said.
// A part that begins with "!" must not be there.
func (i *invocation) want(t *testing.T, code, wantCode int, stdout, stderr []string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("exit code %d, want %d", code, wantCode)
	}
	for name, s := range map[string]struct {
		got   string
		parts []string
	}{"stdout": {i.stdout.String(), stdout}, "stderr": {i.stderr.String(), stderr}} {
		for _, part := range s.parts {
			absent := strings.HasPrefix(part, "!")
			if strings.Contains(s.got, strings.TrimPrefix(part, "!")) == absent {
				t.Errorf("%s: %s\n%s", name, fmt.Sprintf("want %q", part), s.got)
			}
		}
	}
	if stderr == nil && i.stderr.Len() > 0 {
		t.Errorf("stderr: %s", i.stderr.String())
	}
}
