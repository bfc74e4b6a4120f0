package api

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/session"
)

// This file is the whole border between the wire and the domain: …FromProto and
// …ToProto. Tests walk every field of both sides.

// Words are the same on both sides but for the enum's prefix: "QUEUED" and
// COMMAND_STATE_QUEUED. A word that the enum does not have gives its
// unspecified value, and a test sees to it that there is none.

func stateToProto(s command.State) telexecv1.CommandState {
	return telexecv1.CommandState(telexecv1.CommandState_value["COMMAND_STATE_"+string(s)])
}

func stateFromProto(s telexecv1.CommandState) command.State {
	return command.State(strings.TrimPrefix(s.String(), "COMMAND_STATE_"))
}

func originToProto(o command.Origin) telexecv1.Origin {
	return telexecv1.Origin(telexecv1.Origin_value["ORIGIN_"+strings.ToUpper(string(o))])
}

// originFromProto gives the empty origin, which is any, for UNSPECIFIED.
func originFromProto(o telexecv1.Origin) command.Origin {
	if o == telexecv1.Origin_ORIGIN_UNSPECIFIED {
		return ""
	}
	return command.Origin(strings.ToLower(strings.TrimPrefix(o.String(), "ORIGIN_")))
}

// durabilityFromProto gives the empty durability, which is the best there is, for
// UNSPECIFIED.
func durabilityFromProto(d telexecv1.Durability) command.Durability {
	if d == telexecv1.Durability_DURABILITY_UNSPECIFIED {
		return ""
	}
	return command.Durability(strings.TrimPrefix(d.String(), "DURABILITY_"))
}

func durabilityToProto(d command.Durability) telexecv1.Durability {
	return telexecv1.Durability(telexecv1.Durability_value["DURABILITY_"+string(d)])
}

func connectionToProto(c command.Connection) telexecv1.Connection {
	return telexecv1.Connection(telexecv1.Connection_value["CONNECTION_"+string(c)])
}

func completionToProto(c command.Completion) telexecv1.Completion {
	return telexecv1.Completion(telexecv1.Completion_value["COMPLETION_"+string(c)])
}

func outcomeToProto(o command.Outcome) telexecv1.CancelOutcome {
	return telexecv1.CancelOutcome(telexecv1.CancelOutcome_value["CANCEL_OUTCOME_"+string(o)])
}

func streamToProto(s command.Stream) telexecv1.Stream {
	if s == command.Stderr {
		return telexecv1.Stream_STREAM_STDERR
	}
	return telexecv1.Stream_STREAM_STDOUT
}

func streamFromProto(s telexecv1.Stream) command.Stream {
	if s == telexecv1.Stream_STREAM_STDERR {
		return command.Stderr
	}
	return command.Stdout
}

// specFromProto gives what was asked for.
func specFromProto(r *telexecv1.ExecuteRequest) (command.Spec, error) {
	s := command.Spec{
		RequestID:        r.GetRequestId(),
		Host:             r.GetHost(),
		Session:          r.GetSession(),
		Line:             r.GetCommand(),
		Argv:             r.GetArgv(),
		Stdin:            r.GetStdin(),
		StdinOpen:        r.GetStdinOpen(),
		Env:              r.GetEnv(),
		WorkingDirectory: r.GetWorkingDirectory(),
		LoginShell:       r.GetLoginShell(),
		Timeout:          r.GetTimeout().AsDuration(),
		QueueTimeout:     r.GetQueueTimeout().AsDuration(),
		Priority:         int(r.GetPriority()),
		Sudo:             sudoFromProto(r.GetSudo()),
		Durability:       durabilityFromProto(r.GetDurability()),
		Labels:           r.GetLabels(),
		ActionType:       r.GetActionType(),
	}
	if p := r.GetPty(); p != nil {
		s.Pty = &command.Pty{Term: p.GetTerm(), Columns: p.GetColumns(), Rows: p.GetRows()}
	}
	for i, name := range r.GetSecretEnv() {
		value, ok := s.Env[name]
		if n := len(value); !ok || n < 4 || n > 4096 {
			return command.Spec{}, invalid("secret_env["+strconv.Itoa(i)+"]", "env has no value of 4 to 4096 bytes for it",
				"the value of the variable %s cannot be masked in the output", name).
				WithHint("Give it a value of 4 to 4096 bytes in env, or take its name out of secret_env")
		}
		s.Redact = append(s.Redact, secret.New(value))
	}
	for _, value := range r.GetRedact() {
		s.Redact = append(s.Redact, secret.New(value))
	}
	return command.NewSpec(s)
}

// sudoFromProto names root where no user is named, so that it is shown and that
// both ways to ask for root are the same request.
func sudoFromProto(s *telexecv1.Sudo) *command.Sudo {
	if s == nil {
		return nil
	}
	return &command.Sudo{
		User:          cmp.Or(s.GetUser(), "root"),
		Password:      secret.New(s.GetPassword()),
		NeedsPassword: s.GetPassword() != "",
	}
}

// filterFromProto gives the filter of a list, without its page and its session, whose
// id is to be found. none is true where nothing can match it.
func filterFromProto(r *telexecv1.ListCommandsRequest) (f command.Filter, none bool) {
	f = command.Filter{
		Host:      r.GetHost(),
		Origin:    originFromProto(r.GetOrigin()),
		Principal: r.GetPrincipal(),
		Labels:    r.GetLabels(),
		From:      timeFromProto(r.GetCreateTimeFrom()),
		To:        timeFromProto(r.GetCreateTimeTo()),
		Task:      r.GetTaskId(),
	}
	for _, s := range r.GetStates() {
		f.States = append(f.States, stateFromProto(s))
	}
	if r.GetActive() {
		if len(f.States) == 0 {
			f.States = slices.Clone(command.States)
		}
		f.States = slices.DeleteFunc(f.States, command.State.Ended)
		none = len(f.States) == 0
	}
	return f, none
}

func timeFromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// timeToProto leaves the zero time unset.
func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Truncate(time.Microsecond)) // as it is stored, so that it never changes
}

// durationToProto leaves 0 unset.
func durationToProto(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// commandToProto gives a command as the wire has it. now is what a running
// command's duration counts to.
func commandToProto(s Snapshot, now time.Time) *telexecv1.Command {
	c := &telexecv1.Command{
		Name:             "commands/" + s.ID,
		Id:               s.ID,
		Version:          s.Version,
		State:            stateToProto(s.State),
		Host:             s.Spec.Host,
		Session:          s.Spec.Session,
		SessionId:        s.Spec.SessionID,
		Command:          s.CommandLine(),
		Argv:             s.Spec.Argv,
		WorkingDirectory: s.Spec.WorkingDirectory,
		EnvNames:         s.Spec.EnvNames(),
		LoginShell:       s.Spec.LoginShell,
		Timeout:          durationToProto(s.Spec.Timeout),
		Priority:         int32(s.Spec.Priority),
		Labels:           s.Spec.Labels,
		ActionType:       s.Spec.ActionType,
		RequestId:        s.Spec.RequestID,
		CreatedBy:        actorToProto(s.CreatedBy),
		CreateTime:       timeToProto(s.CreateTime),
		StartTime:        timeToProto(s.StartTime),
		EndTime:          timeToProto(s.EndTime),
		LastActivityTime: timeToProto(s.LastActivity),
		ExitSignal:       s.Exit.Signal,
		Failure:          failureToProto(s.Failure),
		Connection:       connectionToProto(s.Connection),
		Durability:       durabilityToProto(s.Durability),
		DurabilityReason: s.DurabilityReason,
		Completion:       completionToProto(s.Completion),
		Cancellation:     cancellationToProto(s.Cancellation),
		StdoutBytes:      s.Size[command.Stdout],
		StderrBytes:      s.Size[command.Stderr],
		StdinOpen:        s.StdinOpen(),
		PolicyRule:       s.Rule,
		TaskStep:         stepName(s.Spec.Task),
		Watchers:         int32(s.Watchers),
	}
	if s.Spec.SessionID != "" && s.SessionOffset >= 0 {
		offset := s.SessionOffset
		c.SessionOffset = &offset
	}
	if s.Gated {
		c.Approval = approvalName(s.ID)
	}
	if g := s.Gate; g != nil {
		c.AwaitedApproval = &telexecv1.AwaitedApproval{
			RequiredApprovals: int32(g.Count), Approvals: int32(g.Approvals()),
			Roles: g.Roles, ExpireTime: timeToProto(g.Deadline),
		}
	}
	if !s.StartTime.IsZero() {
		c.Duration = durationpb.New(s.Duration(now))
	}
	if s.Exit.Code != nil {
		code := int32(*s.Exit.Code)
		c.ExitCode = &code
	}
	if sudo := s.Spec.Sudo; sudo != nil {
		c.SudoUser = cmp.Or(sudo.User, "root") // never its password
	}
	if p := s.Spec.Pty; p != nil {
		c.Pty = &telexecv1.Pty{Term: p.Term, Columns: p.Columns, Rows: p.Rows}
	}
	if p := s.Progress; p != nil {
		c.Progress = &telexecv1.Progress{Percent: p.Percent, Label: p.Label, Time: timeToProto(p.Time)}
	}
	if q := s.Queue; q != nil {
		c.Queue = &telexecv1.Queue{Position: int32(q.Position), EstimatedWait: durationToProto(q.EstimatedWait), WaitsFor: q.WaitsFor}
	}
	if t := s.Truncation; t != nil {
		c.Truncation = &telexecv1.Truncation{Reason: t.Reason}
		if o := t.Offset[command.Stdout]; o >= 0 {
			c.Truncation.StdoutOffset = &o
		}
		if o := t.Offset[command.Stderr]; o >= 0 {
			c.Truncation.StderrOffset = &o
		}
	}
	return c
}

func actorToProto(a command.Actor) *telexecv1.Actor {
	return &telexecv1.Actor{Principal: a.Principal, Origin: originToProto(a.Origin)}
}

func failureToProto(f *command.Failure) *telexecv1.Failure {
	if f == nil {
		return nil
	}
	return &telexecv1.Failure{Reason: f.Reason, Message: f.Message, Hint: f.Hint}
}

func cancellationToProto(c *command.Cancellation) *telexecv1.Cancellation {
	if c == nil {
		return nil
	}
	p := &telexecv1.Cancellation{By: actorToProto(c.By), Time: timeToProto(c.Time), Reason: c.Reason}
	if c.Report != nil {
		p.Report = reportToProto(*c.Report)
	}
	return p
}

func reportToProto(r command.CancelReport) *telexecv1.CancelReport {
	p := &telexecv1.CancelReport{
		Outcome:  outcomeToProto(r.Outcome),
		Signal:   r.Signal,
		Ended:    int32(r.Ended),
		Duration: durationpb.New(r.Duration),
		Message:  r.Message,
	}
	for _, left := range r.Left {
		p.Left = append(p.Left, &telexecv1.Process{Pid: left.PID, User: left.User, Command: left.Command, Why: left.Why})
	}
	return p
}

// hostToProto gives a host with how it does. Credentials stay behind.
func hostToProto(h inventory.Host, running, queued int, link Link) *telexecv1.Host {
	p := &telexecv1.Host{
		Name:              h.Name,
		Address:           h.Address,
		User:              h.User,
		Labels:            maps.Clone(h.Labels),
		MaxCommands:       int32(h.MaxCommands),
		RunningCommands:   int32(running),
		QueuedCommands:    int32(queued),
		Connections:       int32(link.Connections),
		LastConnectedTime: timeToProto(link.LastConnected),
		LastFailure:       failureToProto(link.LastFailure),
		LastFailureTime:   timeToProto(link.LastFailed),
		Source:            telexecv1.HostSource(telexecv1.HostSource_value["HOST_SOURCE_"+strings.ToUpper(string(h.Source))]),
	}
	for _, via := range h.Via {
		p.ProxyJump = append(p.ProxyJump, via.Name)
	}
	return p
}

func sessionStateToProto(s session.State) telexecv1.SessionState {
	return telexecv1.SessionState(telexecv1.SessionState_value["SESSION_STATE_"+string(s)])
}

func keeperToProto(k session.Keeper) telexecv1.Keeper {
	return telexecv1.Keeper(telexecv1.Keeper_value["KEEPER_"+string(k)])
}

// keeperFromProto gives the empty keeper, which is the best there is, for UNSPECIFIED.
func keeperFromProto(k telexecv1.Keeper) session.Keeper {
	if k == telexecv1.Keeper_KEEPER_UNSPECIFIED {
		return ""
	}
	return session.Keeper(strings.TrimPrefix(k.String(), "KEEPER_"))
}

func roleToProto(r session.Role) telexecv1.ViewerRole {
	return telexecv1.ViewerRole(telexecv1.ViewerRole_value["VIEWER_ROLE_"+string(r)])
}

// roleFromProto gives the empty role, which is what the caller may be, for UNSPECIFIED.
func roleFromProto(r telexecv1.ViewerRole) session.Role {
	if r == telexecv1.ViewerRole_VIEWER_ROLE_UNSPECIFIED {
		return ""
	}
	return session.Role(strings.TrimPrefix(r.String(), "VIEWER_ROLE_"))
}

func keyboardActionFromProto(a telexecv1.KeyboardAction) KeyboardAction {
	return map[telexecv1.KeyboardAction]KeyboardAction{
		telexecv1.KeyboardAction_KEYBOARD_ACTION_TAKE:      TakeKeyboard,
		telexecv1.KeyboardAction_KEYBOARD_ACTION_RELEASE:   ReleaseKeyboard,
		telexecv1.KeyboardAction_KEYBOARD_ACTION_HAND_OVER: HandOverKeyboard,
	}[a]
}

// sessionSpecFromProto gives what was asked for, with the usual size where none was.
func sessionSpecFromProto(r *telexecv1.OpenSessionRequest) session.Spec {
	return session.Spec{
		Name:        r.GetName(),
		Host:        r.GetHost(),
		Shell:       r.GetShell(),
		Term:        r.GetTerm(),
		Size:        session.Size{Columns: cmp.Or(int(r.GetColumns()), session.DefaultSize.Columns), Rows: cmp.Or(int(r.GetRows()), session.DefaultSize.Rows)},
		Keeper:      keeperFromProto(r.GetKeeper()),
		IdleTimeout: r.GetIdleTimeout().AsDuration(),
		Labels:      r.GetLabels(),
	}
}

// sessionFilterFromProto gives the filter of a list of sessions, without its page.
func sessionFilterFromProto(r *telexecv1.ListSessionsRequest) session.Filter {
	f := session.Filter{Host: r.GetHost(), Principal: r.GetPrincipal(), Name: r.GetName()}
	if !r.GetEnded() {
		f.States = slices.DeleteFunc(slices.Clone(session.States), func(s session.State) bool { return s == session.Ended })
	}
	return f
}

// attachOptionsFromProto gives how somebody wants to attach.
func attachOptionsFromProto(r *telexecv1.AttachStart) AttachOptions {
	o := AttachOptions{
		Role: roleFromProto(r.GetRole()), From: r.FromOffset, Window: int(r.GetWindowBytes()), Scrollback: -1, Label: r.GetLabel(),
	}
	if size := r.GetSize(); size != nil {
		o.Size = new(sizeFromProto(size))
	}
	if r.ScrollbackLines != nil {
		o.Scrollback = int(r.GetScrollbackLines())
	}
	return o
}

func sizeFromProto(s *telexecv1.TerminalSize) session.Size {
	return session.Size{Columns: int(s.GetColumns()), Rows: int(s.GetRows())}
}

// sessionToProto gives a session as the wire has it; mayType is whether its reader may
// type in it. The nonce of its shell's marks stays behind.
func sessionToProto(s session.Session, mayType bool) *telexecv1.Session {
	p := &telexecv1.Session{
		Name:             s.Spec.Name,
		Id:               s.ID,
		Version:          s.Version,
		State:            sessionStateToProto(s.State),
		Host:             s.Spec.Host,
		Shell:            s.Shell,
		Completion:       completionToProto(s.Completion),
		Keeper:           keeperToProto(s.Keeper),
		KeeperReason:     s.KeeperReason,
		Connection:       connectionToProto(s.Connection),
		Columns:          int32(s.Size.Columns),
		Rows:             int32(s.Size.Rows),
		Title:            text(s.Title),
		CreatedBy:        actorToProto(s.CreatedBy),
		CreateTime:       timeToProto(s.CreateTime),
		OpenTime:         timeToProto(s.OpenTime),
		EndTime:          timeToProto(s.EndTime),
		LastActivityTime: timeToProto(s.LastActivity),
		End:              failureToProto(s.End),
		Keyboard:         s.Keyboard,
		CurrentCommand:   s.Current,
		OutputOffset:     s.Output,
		Recorded:         s.Recorded,
		IdleTimeout:      durationToProto(s.Spec.IdleTimeout),
		ExpireTime:       timeToProto(s.ExpireTime),
		Labels:           s.Spec.Labels,
		MayType:          mayType,

		RecordingTruncatedOffset: s.Truncated,
	}
	if s.Exit != nil {
		code := int32(*s.Exit)
		p.ExitCode = &code
	}
	for _, v := range s.Viewers {
		p.Viewers = append(p.Viewers, &telexecv1.Viewer{
			Id: v.ID, Actor: actorToProto(v.Actor), Role: roleToProto(v.Role), Label: v.Label,
			Since: timeToProto(v.Since), LastInputTime: timeToProto(v.LastInput), Behind: v.Behind,
		})
	}
	return p
}

func screenTextToProto(t ScreenText, mayType bool) *telexecv1.ReadScreenResponse {
	lines := make([]string, len(t.Lines))
	for i, line := range t.Lines {
		lines[i] = text(line)
	}
	return &telexecv1.ReadScreenResponse{
		Lines: lines, ScrollbackLines: int32(t.Scrollback), CursorRow: int32(t.CursorRow), CursorColumn: int32(t.CursorColumn),
		AlternateScreen: t.Alternate, Session: sessionToProto(t.Session, mayType),
	}
}

func commandLinesToProto(lines []CommandLine) (list []*telexecv1.ScreenCommand) {
	for _, l := range lines {
		list = append(list, &telexecv1.ScreenCommand{CommandId: l.ID, Line: int32(l.Line)})
	}
	return list
}

func approvalName(id string) string { return "approvals/" + id }

func approvalStateToProto(s approval.State) telexecv1.ApprovalState {
	return telexecv1.ApprovalState(telexecv1.ApprovalState_value["APPROVAL_STATE_"+string(s)])
}

func approvalStateFromProto(s telexecv1.ApprovalState) approval.State {
	return approval.State(strings.TrimPrefix(s.String(), "APPROVAL_STATE_"))
}

func verdictToProto(v approval.Verdict) telexecv1.Verdict {
	return telexecv1.Verdict(telexecv1.Verdict_value["VERDICT_"+string(v)])
}

func verdictFromProto(v telexecv1.Verdict) approval.Verdict {
	return approval.Verdict(strings.TrimPrefix(v.String(), "VERDICT_"))
}

func approvalToProto(a Approval, now time.Time) *telexecv1.Approval {
	p := &telexecv1.Approval{
		Name:              approvalName(a.CommandID),
		Id:                a.CommandID,
		CommandId:         a.CommandID,
		State:             approvalStateToProto(a.State),
		Rule:              a.Rule,
		RequiredApprovals: int32(a.Count),
		Approvals:         int32(a.Approvals()),
		Roles:             a.Roles,
		ExpireTime:        timeToProto(a.Deadline),
		Revision:          int32(a.Revision),
		RequestHash:       a.Hash,
		CanDecide:         a.May == nil,
		RequestedBy:       actorToProto(a.Requester),
		CreateTime:        timeToProto(a.CreateTime),
		DecideTime:        timeToProto(a.DecideTime),
		Command:           commandToProto(a.Snapshot, now),
		StdinBytes:        int64(len(a.Snapshot.Spec.Stdin)),
		Target:            a.Target,
	}
	if step := a.Snapshot.Spec.Task; step != nil {
		p.Step, p.Undoes = step.Name, step.Undoes
	}
	if a.May != nil {
		p.CannotDecideReason = fault.From(a.May).Message
	}
	if stdin := a.Snapshot.Spec.Stdin; len(stdin) > 0 {
		sum := sha256.Sum256(stdin)
		p.StdinSha256 = sum[:]
	}
	for _, d := range a.Decisions {
		p.Decisions = append(p.Decisions, &telexecv1.ApprovalDecision{
			By: actorToProto(d.By), Verdict: verdictToProto(d.Verdict), Reason: d.Reason, Time: timeToProto(d.Time),
			Revision: int32(d.Revision), RequestHash: d.Hash, Command: d.Command,
		})
	}
	return p
}

func effectToProto(e policy.Effect) telexecv1.PolicyEffect {
	return telexecv1.PolicyEffect(telexecv1.PolicyEffect_value["POLICY_EFFECT_"+strings.ToUpper(string(e))])
}

func decisionToProto(d policy.Decision) *telexecv1.ExplainPolicyResponse {
	p := &telexecv1.ExplainPolicyResponse{Effect: effectToProto(d.Effect), Rule: d.Rule, Reason: text(d.Reason)}
	for _, c := range d.Commands {
		words := make([]string, len(c.Words))
		for i, word := range c.Words {
			words[i] = text(word)
		}
		p.Commands = append(p.Commands, &telexecv1.JudgedCommand{
			Words: words, Unknown: text(c.Unknown), Effect: effectToProto(c.Effect), Rule: c.Rule,
		})
	}
	if d.Effect == policy.RequireApproval {
		p.RequiredApprovals = int32(d.Gate.Count)
		p.ApproverRoles = d.Gate.Roles
		p.ApprovalTimeout = durationToProto(d.Gate.Timeout)
	}
	return p
}

// text gives s as a proto can carry it. Quotes and escapes of a shell can make bytes
// that are no UTF-8, and a message with such a string is not sent at all.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func rowToProto(row audit.Row) *telexecv1.AuditEntry {
	e, err := row.Entry()
	if err != nil { // VerifyAudit names it
		return &telexecv1.AuditEntry{Sequence: row.Seq, Kind: "damaged", Detail: "this row cannot be read; the audit was changed", Hash: row.Hash[:]}
	}
	p := &telexecv1.AuditEntry{
		Sequence: row.Seq, Time: timeToProto(e.Time), Kind: string(e.Kind),
		By:      &telexecv1.Actor{Principal: e.Principal, Origin: originToProto(command.Origin(e.Origin))},
		Address: e.Address, CallId: e.Call, Method: e.Method,
		CommandId: e.CommandID, Session: e.Session, Task: e.Task, Host: e.Host, Command: e.Command, SudoUser: e.SudoUser, RequestHash: e.RequestHash, Subject: e.Subject,
		Decision: e.Decision, Rule: e.Rule, Outcome: e.Outcome, Reason: e.Reason, Detail: e.Detail, Signal: e.Signal,
		Stdout: auditOutputToProto(e.Stdout), Stderr: auditOutputToProto(e.Stderr),
		Count: int32(max(e.Count, 1)), Hash: row.Hash[:],
	}
	if e.ExitCode != nil {
		code := int32(*e.ExitCode)
		p.ExitCode = &code
	}
	return p
}

func auditOutputToProto(o *audit.Output) *telexecv1.AuditOutput {
	if o == nil {
		return nil
	}
	return &telexecv1.AuditOutput{Bytes: o.Size, Sha256: o.Digest, Head: o.Head, Tail: o.Tail}
}

func limitsFromProto(l *telexecv1.CallLimits) access.Limits {
	return access.Limits{
		Start: l.GetStartsPerSecond(), Read: l.GetReadsPerSecond(), List: l.GetListsPerSecond(),
		Stream: l.GetStreamsPerSecond(), Streams: int(l.GetOpenStreams()),
	}
}

func tokenToProto(k access.Key) *telexecv1.Token {
	t := &telexecv1.Token{
		Name: "tokens/" + k.Name, Principal: k.Name, Id: k.ID, CreatedBy: k.CreatedBy,
		CreateTime: timeToProto(k.CreateTime), ExpireTime: timeToProto(k.ExpireTime),
		RevokeTime: timeToProto(k.RevokeTime), LastUseTime: timeToProto(k.LastUse),
		Roles: access.Principal{Roles: k.Roles}.RoleNames(),
	}
	if k.Limits != (access.Limits{}) {
		t.Limits = &telexecv1.CallLimits{
			StartsPerSecond: k.Limits.Start, ReadsPerSecond: k.Limits.Read, ListsPerSecond: k.Limits.List,
			StreamsPerSecond: k.Limits.Stream, OpenStreams: int32(k.Limits.Streams),
		}
	}
	return t
}
