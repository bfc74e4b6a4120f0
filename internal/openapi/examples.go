package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/telexec/telexec/gen/telexec/v1"
)

const (
	exampleID  = "01KAJ2QZ5V8W3M4N6P7R9STVXY"
	streamType = "application/x-ndjson"
	// recordingType is that of a recording as a file.
	recordingType = "application/x-asciicast"
)

var exampleStart = time.Date(2026, 1, 15, 9, 30, 0, 0, time.UTC)

// example gives a message as the gateway writes it.
func example(m proto.Message) any {
	raw, err := protojson.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("example of %T: %v", m, err)) // a message built here, of types linked in
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		panic(fmt.Sprintf("example of %T: %v", m, err))
	}
	return v
}

// requests holds the example requests by generated operationId, whole: fields
// that travel in the path or the query are in them too.
func requests() map[string]proto.Message {
	all := map[string]proto.Message{
		"CommandService_Execute": &pb.ExecuteRequest{
			RequestId: "deploy-42",
			Host:      "web1",
			Command:   "df -h /",
			Wait:      durationpb.New(10 * time.Second),
			Timeout:   durationpb.New(time.Minute),
			Labels:    map[string]string{"app": "shop"},
			Output:    &pb.OutputOptions{Text: true},
		},
		"CommandService_StreamOutput": &pb.StreamOutputRequest{CommandId: exampleID, Follow: true, Text: true},
		"CommandService_GetStatus":    &pb.GetStatusRequest{CommandId: exampleID, Wait: durationpb.New(10 * time.Second)},
		"CommandService_GetStatus_1":  &pb.GetStatusRequest{Session: "deploy"},
		"CommandService_Cancel":       &pb.CancelRequest{CommandId: exampleID, Reason: "wrong branch", Grace: durationpb.New(2 * time.Second)},
		"CommandService_Cancel_1":     &pb.CancelRequest{Session: "deploy", Reason: "wrong branch"},
		"CommandService_Signal":       &pb.SignalRequest{CommandId: exampleID, Signal: "HUP"},
		"CommandService_SendInput":    &pb.SendInputRequest{CommandId: exampleID, Data: []byte("yes\n"), Eof: true},
		"CommandService_ListCommands": &pb.ListCommandsRequest{PageSize: 20, States: []pb.CommandState{pb.CommandState_COMMAND_STATE_RUNNING}, Host: "web1", Labels: map[string]string{"app": "shop"}},
		"EventService_WatchEvents":    &pb.WatchEventsRequest{After: proto.Int64(4711), Host: "web1"},
		"HostService_ListHosts":       &pb.ListHostsRequest{Labels: map[string]string{"env": "prod"}},
		"HostService_GetHost":         &pb.GetHostRequest{Host: "web1"},
		"HostService_CheckHost":       &pb.CheckHostRequest{Host: "web1", Timeout: durationpb.New(5 * time.Second)},
		"AdminService_GetServerInfo":  &pb.GetServerInfoRequest{},

		"SessionService_OpenSession":    &pb.OpenSessionRequest{Host: "web1", Name: "deploy", Columns: 120, Rows: 40, Labels: map[string]string{"app": "shop"}},
		"SessionService_GetSession":     &pb.GetSessionRequest{Session: "deploy"},
		"SessionService_ListSessions":   &pb.ListSessionsRequest{PageSize: 20, Host: "web1"},
		"SessionService_CloseSession":   &pb.CloseSessionRequest{Session: "deploy", Reason: "done"},
		"SessionService_CloseSession_1": &pb.CloseSessionRequest{Session: "deploy", Reason: "done"},
		"SessionService_ReadScreen":     &pb.ReadScreenRequest{Session: "deploy", ScrollbackLines: 100},
		"SessionService_SendKeys": &pb.SendKeysRequest{Session: "deploy", Keys: []*pb.Key{
			{Key: &pb.Key_Text{Text: "cd /srv/shop"}}, {Key: &pb.Key_Name{Name: "Enter"}},
		}},
		"SessionService_ReadRecording": &pb.ReadRecordingRequest{Session: "deploy"},

		"ApprovalService_ListApprovals": &pb.ListApprovalsRequest{MineToDecide: true},
		"ApprovalService_GetApproval":   &pb.GetApprovalRequest{CommandId: exampleID},
		"ApprovalService_DecideApprovals": &pb.DecideApprovalsRequest{Decisions: []*pb.Decision{{
			CommandId: exampleID, Verdict: pb.Verdict_VERDICT_APPROVE, RequestHash: exampleHash(1), Reason: "in the window",
		}}},
		"PolicyService_ExplainPolicy":   &pb.ExplainPolicyRequest{Host: "web1", Command: "uptime && apt upgrade -y"},
		"AdminService_CreateToken":      &pb.CreateTokenRequest{Principal: "deploy-agent", Roles: []string{"operator"}, Lifetime: durationpb.New(30 * 24 * time.Hour)},
		"AdminService_ListTokens":       &pb.ListTokensRequest{PageSize: 20},
		"AdminService_RevokeToken":      &pb.RevokeTokenRequest{Principal: "deploy-agent"},
		"AdminService_ListAuditEntries": &pb.ListAuditEntriesRequest{PageSize: 20, Kinds: []string{"refused"}, Principal: "deploy-agent"},
		"AdminService_VerifyAudit":      &pb.VerifyAuditRequest{AfterSequence: 1200, AfterHash: exampleHash(3)},
		"AdminService_ExportAudit":      &pb.ExportAuditRequest{AfterSequence: 1200},
	}
	maps.Copy(all, taskRequests())
	return all
}

// responses holds an example answer to each of the requests.
func responses() map[string]proto.Message {
	running, done, cancelled := exampleCommand(), exampleCommand(), exampleCommand()

	running.State = pb.CommandState_COMMAND_STATE_RUNNING
	running.Connection = pb.Connection_CONNECTION_CONNECTED
	running.Version = 3

	done.State = pb.CommandState_COMMAND_STATE_COMPLETED
	done.ExitCode = proto.Int32(0)
	done.Completion = pb.Completion_COMPLETION_EXIT_STATUS
	done.EndTime = timestamppb.New(exampleStart.Add(60 * time.Millisecond))
	done.Duration = durationpb.New(38 * time.Millisecond)
	done.StdoutBytes = int64(len(exampleOutput))
	done.Version = 4

	cancelled.State = pb.CommandState_COMMAND_STATE_CANCELLED
	cancelled.EndTime = timestamppb.New(exampleStart.Add(4 * time.Second))
	cancelled.Version = 5
	report := &pb.CancelReport{
		Outcome: pb.CancelOutcome_CANCEL_OUTCOME_GONE, Signal: "INT", Ended: 2,
		Duration: durationpb.New(120 * time.Millisecond), Message: "2 processes ended; none is left",
	}
	cancelled.Cancellation = &pb.Cancellation{
		By: cancelled.GetCreatedBy(), Time: timestamppb.New(exampleStart.Add(4 * time.Second)), Reason: "wrong branch", Report: report,
	}

	host := &pb.Host{
		Name: "web1", Address: "web1.example.com:22", User: "deploy", ProxyJump: []string{"bastion"},
		Labels: map[string]string{"env": "prod"}, MaxCommands: 10, Connections: 1,
		LastConnectedTime: timestamppb.New(exampleStart), Source: pb.HostSource_HOST_SOURCE_CONFIG,
	}
	stdout := &pb.StreamContent{
		Size: int64(len(exampleOutput)), Data: []byte(exampleOutput), Text: exampleOutput,
		NextOffset: int64(len(exampleOutput)), NextTextOffset: int64(len(exampleOutput)), Complete: true,
	}
	stderr := &pb.StreamContent{Complete: true}

	awaiting := exampleCommand()
	awaiting.State = pb.CommandState_COMMAND_STATE_AWAITING_APPROVAL
	awaiting.Command, awaiting.StartTime, awaiting.Durability, awaiting.Version = "apt upgrade -y", nil, 0, 1
	awaiting.Approval, awaiting.PolicyRule = "approvals/"+exampleID, "upgrades"
	awaiting.AwaitedApproval = &pb.AwaitedApproval{RequiredApprovals: 1, Roles: []string{"approver"}, ExpireTime: timestamppb.New(exampleStart.Add(time.Hour))}
	waits := &pb.Approval{
		Name: "approvals/" + exampleID, Id: exampleID, CommandId: exampleID, State: pb.ApprovalState_APPROVAL_STATE_PENDING,
		Rule: "upgrades", RequiredApprovals: 1, Roles: []string{"approver"}, ExpireTime: timestamppb.New(exampleStart.Add(time.Hour)),
		Revision: 1, RequestHash: exampleHash(1), CanDecide: true,
		RequestedBy: &pb.Actor{Principal: "deploy-agent", Origin: pb.Origin_ORIGIN_MCP}, CreateTime: timestamppb.New(exampleStart),
		Command: awaiting, Target: "deploy@web1.example.com:22",
	}
	approved := proto.CloneOf(waits)
	approved.State, approved.Approvals, approved.CanDecide = pb.ApprovalState_APPROVAL_STATE_APPROVED, 1, false
	approved.CannotDecideReason, approved.DecideTime = "it has been decided: it is APPROVED", timestamppb.New(exampleStart.Add(2*time.Minute))
	approved.Command.State, approved.Command.AwaitedApproval = pb.CommandState_COMMAND_STATE_QUEUED, nil
	token := &pb.Token{
		Name: "tokens/deploy-agent", Principal: "deploy-agent", Id: "k3v9x0q2m1ab", Roles: []string{"operator"}, CreatedBy: "admin",
		CreateTime: timestamppb.New(exampleStart), ExpireTime: timestamppb.New(exampleStart.Add(30 * 24 * time.Hour)),
	}
	revoked := proto.CloneOf(token)
	revoked.RevokeTime = timestamppb.New(exampleStart.Add(time.Hour))

	open := exampleSession()
	closed := exampleSession()
	closed.State, closed.Version, closed.Connection = pb.SessionState_SESSION_STATE_ENDED, 9, pb.Connection_CONNECTION_UNSPECIFIED
	closed.EndTime = timestamppb.New(exampleStart.Add(time.Hour))
	closed.End = &pb.Failure{Reason: "SESSION_CLOSED", Message: "admin closed it: done"}
	closed.Viewers, closed.Keyboard, closed.MayType = nil, "", false
	screen := &pb.ReadScreenResponse{
		Lines: []string{"deploy@web1:~$ cd /srv/shop", "deploy@web1:/srv/shop$"}, CursorRow: 1, CursorColumn: 23, Session: open,
	}

	all := map[string]proto.Message{
		"CommandService_Execute": &pb.ExecuteResponse{Command: done, Stdout: stdout, Stderr: stderr},
		"CommandService_StreamOutput": &pb.StreamOutputResponse{
			Time: timestamppb.New(exampleStart),
			Event: &pb.StreamOutputResponse_Chunk{Chunk: &pb.OutputChunk{
				Stream: pb.Stream_STREAM_STDOUT, Data: []byte(exampleOutput), Text: exampleOutput,
			}},
		},
		"CommandService_GetStatus":    &pb.GetStatusResponse{Command: done, Stdout: stdout, Stderr: stderr},
		"CommandService_GetStatus_1":  &pb.GetStatusResponse{NoTask: true},
		"CommandService_Cancel":       &pb.CancelResponse{Command: cancelled, Report: report},
		"CommandService_Cancel_1":     &pb.CancelResponse{NoTask: true},
		"CommandService_Signal":       &pb.SignalResponse{Command: running},
		"CommandService_SendInput":    &pb.SendInputResponse{StdinBytes: 4},
		"CommandService_ListCommands": &pb.ListCommandsResponse{Commands: []*pb.Command{running}},
		"EventService_WatchEvents": &pb.WatchEventsResponse{
			Time: timestamppb.New(exampleStart), Sequence: 4712,
			Event: &pb.WatchEventsResponse_Command{Command: running},
		},
		"HostService_ListHosts": &pb.ListHostsResponse{Hosts: []*pb.Host{host}},
		"HostService_GetHost":   &pb.GetHostResponse{Host: host},
		"HostService_CheckHost": &pb.CheckHostResponse{
			Host: host, Ok: true, Duration: durationpb.New(85 * time.Millisecond), ServerVersion: "SSH-2.0-OpenSSH_9.2p1",
			HostKeyFingerprint: "SHA256:8YVbJ0m3zS0a6Wc1bFqf2cB1kq0y9kq0n4w1r5t7u9A",
			Durability:         pb.Durability_DURABILITY_DURABLE,
		},
		"AdminService_GetServerInfo": &pb.GetServerInfoResponse{
			Version: "v0.1.0", GoVersion: "go1.26.0", Node: "build1", Store: "sqlite",
			StartTime: timestamppb.New(exampleStart), Uptime: durationpb.New(time.Hour), RunningCommands: 2, Principal: "admin",
			Limits: &pb.Limits{MaxCommands: 200, MaxCommandsPerHost: 10, MaxQueued: 1000}, Roles: []string{"admin"},
		},

		"SessionService_OpenSession":    &pb.OpenSessionResponse{Session: open},
		"SessionService_GetSession":     &pb.GetSessionResponse{Session: open},
		"SessionService_ListSessions":   &pb.ListSessionsResponse{Sessions: []*pb.Session{open}},
		"SessionService_CloseSession":   &pb.CloseSessionResponse{Session: closed, Report: report},
		"SessionService_CloseSession_1": &pb.CloseSessionResponse{Session: closed, Report: report},
		"SessionService_ReadScreen":     screen,
		"SessionService_SendKeys":       &pb.SendKeysResponse{Screen: screen, Settled: true},
		"SessionService_ReadRecording":  &pb.ReadRecordingResponse{Data: []byte(exampleRecording)},

		"ApprovalService_ListApprovals":   &pb.ListApprovalsResponse{Approvals: []*pb.Approval{waits}},
		"ApprovalService_GetApproval":     &pb.GetApprovalResponse{Approval: waits},
		"ApprovalService_DecideApprovals": &pb.DecideApprovalsResponse{Approvals: []*pb.Approval{approved}},
		"PolicyService_ExplainPolicy": &pb.ExplainPolicyResponse{
			Effect: pb.PolicyEffect_POLICY_EFFECT_REQUIRE_APPROVAL, Rule: "upgrades",
			Reason: "\"apt upgrade -y\" needs approval by the rule upgrades",
			Commands: []*pb.JudgedCommand{
				{Words: []string{"uptime"}, Effect: pb.PolicyEffect_POLICY_EFFECT_ALLOW, Rule: "look"},
				{Words: []string{"apt", "upgrade", "-y"}, Effect: pb.PolicyEffect_POLICY_EFFECT_REQUIRE_APPROVAL, Rule: "upgrades"},
			},
			RequiredApprovals: 1, ApproverRoles: []string{"approver"}, ApprovalTimeout: durationpb.New(time.Hour),
		},
		"AdminService_CreateToken": &pb.CreateTokenResponse{Secret: "txk_…", Token: token},
		"AdminService_ListTokens":  &pb.ListTokensResponse{Tokens: []*pb.Token{token}},
		"AdminService_RevokeToken": &pb.RevokeTokenResponse{Token: revoked},
		"AdminService_ListAuditEntries": &pb.ListAuditEntriesResponse{Entries: []*pb.AuditEntry{{
			Sequence: 1207, Time: timestamppb.New(exampleStart), Kind: "refused",
			By: &pb.Actor{Principal: "deploy-agent", Origin: pb.Origin_ORIGIN_MCP}, Address: "10.0.0.9", Method: "CommandService/Execute",
			Host: "web1", Command: "rm -rf /srv", Decision: "deny", Rule: "default", Reason: "POLICY_DENIED", Count: 1, Hash: exampleHash(2),
		}}},
		"AdminService_VerifyAudit": &pb.VerifyAuditResponse{Intact: true, VerifiedRows: 7, HeadSequence: 1207, HeadHash: exampleHash(2)},
		"AdminService_ExportAudit": &pb.ExportAuditResponse{
			Sequence: 1201, PreviousHash: exampleHash(3), Hash: exampleHash(4),
			Text: `{"time":"2026-01-15T09:30:00Z","kind":"command.accepted","principal":"admin"}`,
		},
	}
	maps.Copy(all, taskResponses(waits, approved))
	return all
}

// exampleHash gives 32 bytes that look like a SHA-256.
func exampleHash(n byte) []byte {
	sum := sha256.Sum256([]byte{n})
	return sum[:]
}

const exampleOutput = "Filesystem      Size  Used Avail Use% Mounted on\n/dev/sda1        40G   18G   20G  48% /\n"

func exampleCommand() *pb.Command {
	return &pb.Command{
		Name: "commands/" + exampleID, Id: exampleID, Host: "web1", Command: "df -h /",
		Timeout: durationpb.New(time.Minute), Labels: map[string]string{"app": "shop"}, RequestId: "deploy-42",
		CreatedBy:  &pb.Actor{Principal: "admin", Origin: pb.Origin_ORIGIN_REST},
		CreateTime: timestamppb.New(exampleStart), StartTime: timestamppb.New(exampleStart.Add(22 * time.Millisecond)),
		LastActivityTime: timestamppb.New(exampleStart.Add(60 * time.Millisecond)),
		Durability:       pb.Durability_DURABILITY_DURABLE,
	}
}

const exampleSessionID = "01KAJ2R4T0B1C2D3E4F5G6H7J8"

// exampleRecording is how a recording begins.
const exampleRecording = `{"version":2,"width":120,"height":40,"timestamp":1768469400,"title":"deploy"}
[0.041,"o","deploy@web1:~$ "]
`

func exampleSession() *pb.Session {
	by := &pb.Actor{Principal: "admin", Origin: pb.Origin_ORIGIN_WEB}
	return &pb.Session{
		Name: "deploy", Id: exampleSessionID, Version: 4, State: pb.SessionState_SESSION_STATE_OPEN, Host: "web1", Shell: "bash",
		Completion: pb.Completion_COMPLETION_MARK, Keeper: pb.Keeper_KEEPER_TMUX, Connection: pb.Connection_CONNECTION_CONNECTED,
		Columns: 120, Rows: 40, Title: "deploy@web1: ~", CreatedBy: by,
		CreateTime: timestamppb.New(exampleStart), OpenTime: timestamppb.New(exampleStart.Add(120 * time.Millisecond)),
		LastActivityTime: timestamppb.New(exampleStart.Add(4 * time.Second)), OutputOffset: 1840, Recorded: true,
		Viewers: []*pb.Viewer{{
			Id: "v1", Actor: by, Role: pb.ViewerRole_VIEWER_ROLE_WRITER, Label: "Firefox",
			Since: timestamppb.New(exampleStart.Add(time.Second)), LastInputTime: timestamppb.New(exampleStart.Add(4 * time.Second)),
		}},
		Keyboard: "v1", IdleTimeout: durationpb.New(24 * time.Hour), Labels: map[string]string{"app": "shop"}, MayType: true,
	}
}

// operations gives what Merge adds to each operation of the contract.
func operations() map[string]operation {
	ops := map[string]operation{
		"CommandService_Execute":      {tag: tagCommands, summary: "Run a command", asks: "telexec.v1.ExecuteRequest", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusNotImplemented}},
		"CommandService_StreamOutput": {tag: tagCommands, summary: "Stream the output of a command", asks: "telexec.v1.StreamOutputRequest", stream: true, errors: []int{http.StatusNotFound}},
		"CommandService_GetStatus":    {tag: tagCommands, summary: "Get a command, with output on request", without: []string{"session"}, errors: []int{http.StatusNotFound}},
		"CommandService_GetStatus_1":  {tag: tagCommands, summary: "Get the command of a session", id: "CommandService_GetStatusBySession", without: []string{"commandId"}, errors: []int{http.StatusNotFound}},
		"CommandService_Cancel":       {tag: tagCommands, summary: "Cancel a command and all its processes", asks: "telexec.v1.CancelRequest", without: []string{"session"}, errors: []int{http.StatusNotFound}},
		"CommandService_Cancel_1":     {tag: tagCommands, summary: "Cancel the command of a session", id: "CommandService_CancelBySession", without: []string{"commandId"}, errors: []int{http.StatusNotFound}},
		"CommandService_Signal":       {tag: tagCommands, summary: "Send a signal to a command", asks: "telexec.v1.SignalRequest", errors: []int{http.StatusNotFound}},
		"CommandService_SendInput":    {tag: tagCommands, summary: "Write to the standard input of a command", asks: "telexec.v1.SendInputRequest", errors: []int{http.StatusNotFound}},
		"CommandService_ListCommands": {tag: tagCommands, summary: "List commands"},
		"EventService_WatchEvents":    {tag: tagEvents, summary: "Watch commands and sessions change", asks: "telexec.v1.WatchEventsRequest", stream: true},
		"HostService_ListHosts":       {tag: tagHosts, summary: "List hosts"},
		"HostService_GetHost":         {tag: tagHosts, summary: "Get a host", errors: []int{http.StatusNotFound}},
		"HostService_CheckHost":       {tag: tagHosts, summary: "Check that a host can be used", errors: []int{http.StatusNotFound}},
		"AdminService_GetServerInfo":  {tag: tagService, summary: "Get what the service is, and who the caller is"},

		"SessionService_OpenSession":    {tag: tagSessions, summary: "Open a session", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusNotImplemented}},
		"SessionService_GetSession":     {tag: tagSessions, summary: "Get a session, and who is there", errors: []int{http.StatusNotFound}},
		"SessionService_ListSessions":   {tag: tagSessions, summary: "List sessions"},
		"SessionService_CloseSession":   {tag: tagSessions, summary: "Close a session", errors: []int{http.StatusNotFound}},
		"SessionService_CloseSession_1": {tag: tagSessions, summary: "Close a session", id: "SessionService_DeleteSession", errors: []int{http.StatusNotFound}},
		"SessionService_ReadScreen":     {tag: tagSessions, summary: "Read the screen as text", errors: []int{http.StatusNotFound}},
		"SessionService_SendKeys":       {tag: tagSessions, summary: "Type, and get the screen that follows", errors: []int{http.StatusNotFound}},
		"SessionService_ReadRecording":  {tag: tagSessions, summary: "Read the recording", stream: true, file: exampleRecording, errors: []int{http.StatusNotFound}},

		"ApprovalService_ListApprovals":   {tag: tagApprovals, summary: "List approvals"},
		"ApprovalService_GetApproval":     {tag: tagApprovals, summary: "Get an approval", errors: []int{http.StatusNotFound}},
		"ApprovalService_DecideApprovals": {tag: tagApprovals, summary: "Approve, reject or change what waits", errors: []int{http.StatusNotFound, http.StatusConflict}},
		"PolicyService_ExplainPolicy":     {tag: tagPolicy, summary: "Ask which rule would decide, and how", errors: []int{http.StatusNotFound}},
		"AdminService_CreateToken":        {tag: tagTokens, summary: "Make an API key", errors: []int{http.StatusConflict}},
		"AdminService_ListTokens":         {tag: tagTokens, summary: "List API keys"},
		"AdminService_RevokeToken":        {tag: tagTokens, summary: "Take an API key back", errors: []int{http.StatusNotFound}},
		"AdminService_ListAuditEntries":   {tag: tagAudit, summary: "List the audit"},
		"AdminService_VerifyAudit":        {tag: tagAudit, summary: "Verify the chain of the audit"},
		"AdminService_ExportAudit":        {tag: tagAudit, summary: "Export the audit", stream: true},
	}
	maps.Copy(ops, taskOperations())
	requests, responses := requests(), responses()
	for id, op := range ops {
		op.params = parameters(requests[id])
		op.request = bodyOf(requests[id])
		op.response = example(responses[id])
		ops[id] = op
	}
	return ops
}

// inPath are the fields that stand in the path of every operation that has
// them beside a body.
var inPath = []string{"command_id", "session", "host", "principal", "task_id"}

// parameters gives the example's fields by the names that parameters have: the
// proto name in the path, the JSON name in the query.
func parameters(m proto.Message) map[string]any {
	params := example(m).(object)
	fields := m.ProtoReflect().Descriptor().Fields()
	for _, name := range inPath {
		if f := fields.ByName(protoreflect.Name(name)); f != nil && m.ProtoReflect().Has(f) {
			params[name] = m.ProtoReflect().Get(f).String()
		}
	}
	return params
}

// bodyOf gives the example without what stands in the path. Some have a field of
// such a name in the body.
func bodyOf(m proto.Message) any {
	switch m.(type) {
	case *pb.ExecuteRequest, *pb.ExplainPolicyRequest, *pb.CreateTokenRequest, *pb.OpenSessionRequest:
		return example(m)
	}
	body := proto.Clone(m)
	fields := body.ProtoReflect().Descriptor().Fields()
	for _, name := range inPath {
		if f := fields.ByName(protoreflect.Name(name)); f != nil {
			body.ProtoReflect().Clear(f)
		}
	}
	return example(body)
}
