package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// TestACommandThatWaitsForApproval goes through all rooms at once: rule, approval,
// modification, a real host, output, audit. The rooms' own tests go into each.
func TestACommandThatWaitsForApproval(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	home := t.TempDir()
	file := write(t, home, "ssh_config: none\n"+
		"hosts: [{name: web1, address: '"+server.Addr+"', user: "+server.User+", identity_file: ["+server.IdentityFile+"], known_hosts_file: ["+server.KnownHostsFile+"]}]\n"+
		"policy:\n  default: deny\n  rules:\n    - {name: talk, effect: require_approval, match: {programs: [echo, sleep]}, approval: {count: 1, timeout: 1h}}\n")
	s := start(t, settings(home), "--config", file, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	conn, admin := s.dial(t)
	made, err := telexecv1.NewAdminServiceClient(conn).CreateToken(admin, &telexecv1.CreateTokenRequest{Principal: "agent", Roles: []string{"operator"}})
	if err != nil {
		t.Fatal(err)
	}
	agent := withToken(t.Context(), made.GetSecret())
	commands, approvals := telexecv1.NewCommandServiceClient(conn), telexecv1.NewApprovalServiceClient(conn)
	ask := func(line string) *telexecv1.Command {
		t.Helper()
		r, err := commands.Execute(agent, &telexecv1.ExecuteRequest{Host: "web1", Command: line, Wait: durationpb.New(time.Minute)})
		if err != nil || r.GetCommand().GetState() != telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL ||
			r.GetCommand().GetAwaitedApproval().GetRequiredApprovals() != 1 || r.GetCommand().GetPolicyRule() != "talk" {
			t.Fatalf("%v, %v", r, err)
		}
		return r.GetCommand()
	}
	id := ask("echo hello; echo to you").GetId()

	// The one who asked sees it and may not decide it; the administrator may.
	for name, c := range map[string]struct {
		mine int
		may  bool
	}{"agent": {0, false}, "admin": {1, true}} {
		ctx := agent
		if name == "admin" {
			ctx = admin
		}
		one, err := approvals.GetApproval(ctx, &telexecv1.GetApprovalRequest{CommandId: id})
		if err != nil || one.GetApproval().GetCanDecide() != c.may || one.GetApproval().GetRequestedBy().GetPrincipal() != "agent" ||
			one.GetApproval().GetTarget() != server.User+"@"+server.Addr {
			t.Errorf("%s: %v, %v", name, one, err)
		}
		mine, err := approvals.ListApprovals(ctx, &telexecv1.ListApprovalsRequest{MineToDecide: true})
		if err != nil || len(mine.GetApprovals()) != c.mine {
			t.Errorf("%s: %v, %v", name, mine, err)
		}
	}
	shown, err := approvals.GetApproval(admin, &telexecv1.GetApprovalRequest{CommandId: id})
	if err != nil {
		t.Fatal(err)
	}
	hash := shown.GetApproval().GetRequestHash()
	decide := &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{{CommandId: id, Verdict: telexecv1.Verdict_VERDICT_APPROVE, RequestHash: hash}}}
	if _, err := approvals.DecideApprovals(agent, decide); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the agent decides: %v", err)
	}
	// Less than was asked for is approved by whoever says so.
	decide.Decisions[0].Verdict, decide.Decisions[0].Modified = telexecv1.Verdict_VERDICT_MODIFY, &telexecv1.ModifiedRequest{Command: "echo hello"}
	done, err := approvals.DecideApprovals(admin, decide)
	if err != nil || done.GetApprovals()[0].GetState() != telexecv1.ApprovalState_APPROVAL_STATE_APPROVED || done.GetApprovals()[0].GetRevision() != 2 {
		t.Fatalf("%v, %v", done, err)
	}
	stream, err := commands.StreamOutput(agent, &telexecv1.StreamOutputRequest{CommandId: id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	var last *telexecv1.Command
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		said.Write(m.GetChunk().GetData())
		last = m.GetEnded()
	}
	if said.String() != "hello\n" || last.GetState() != telexecv1.CommandState_COMMAND_STATE_COMPLETED || last.GetExitCode() != 0 || last.ExitCode == nil {
		t.Errorf("%q, %v", said.String(), last)
	}

	// Another one runs, is sent a signal that does it no harm, and is cancelled.
	id = ask("sleep 1000").GetId()
	shown, err = approvals.GetApproval(admin, &telexecv1.GetApprovalRequest{CommandId: id})
	if err != nil {
		t.Fatal(err)
	}
	decide.Decisions[0] = &telexecv1.Decision{CommandId: id, Verdict: telexecv1.Verdict_VERDICT_APPROVE, RequestHash: shown.GetApproval().GetRequestHash()}
	if _, err := approvals.DecideApprovals(admin, decide); err != nil {
		t.Fatal(err)
	}
	for version := int64(0); ; {
		r, err := commands.GetStatus(agent, &telexecv1.GetStatusRequest{CommandId: id, Wait: durationpb.New(time.Minute), IfVersionGreaterThan: &version})
		if err != nil {
			t.Fatal(err)
		}
		if version = r.GetCommand().GetVersion(); r.GetCommand().GetState() == telexecv1.CommandState_COMMAND_STATE_RUNNING {
			break
		}
	}
	if r, err := commands.Signal(agent, &telexecv1.SignalRequest{CommandId: id, Signal: "CONT"}); err != nil || r.GetCommand().GetId() != id {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := commands.Cancel(agent, &telexecv1.CancelRequest{CommandId: id}); err != nil || r.GetCommand().GetEndTime() == nil {
		t.Errorf("%v, %v", r, err)
	}
	list, err := commands.ListCommands(agent, &telexecv1.ListCommandsRequest{})
	if err != nil || len(list.GetCommands()) != 2 {
		t.Errorf("%v, %v", list, err)
	}

	// The audit tells all of it, in its order, and holds.
	page, err := telexecv1.NewAdminServiceClient(conn).ListAuditEntries(admin, &telexecv1.ListAuditEntriesRequest{CommandId: list.GetCommands()[1].GetId()})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range page.GetEntries() {
		if e.GetKind() != "refused" {
			kinds = append(kinds, e.GetKind()+" by "+e.GetBy().GetPrincipal())
		}
	}
	if got := strings.Join(kinds, ", "); got != "command.ended by agent, approval.decided by admin, command.accepted by agent" {
		t.Errorf("the audit tells %s", got)
	}
	if v, err := telexecv1.NewAdminServiceClient(conn).VerifyAudit(admin, &telexecv1.VerifyAuditRequest{}); err != nil || !v.GetIntact() || v.GetVerifiedRows() < 8 {
		t.Errorf("%v, %v", v, err)
	}
}
