package api

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/secret"
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

// specFromProto gives what was asked for, or says what of it cannot be had yet.
func specFromProto(r *telexecv1.ExecuteRequest) (command.Spec, error) {
	if r.GetSession() != "" {
		return command.Spec{}, unsupported("running a command in a session", "Give host instead of session")
	}
	s := command.Spec{
		RequestID:        r.GetRequestId(),
		Host:             r.GetHost(),
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

// filterFromProto gives the filter of a list, without its page. none is true
// where nothing can match it.
func filterFromProto(r *telexecv1.ListCommandsRequest) (f command.Filter, none bool) {
	f = command.Filter{
		Host:      r.GetHost(),
		Origin:    originFromProto(r.GetOrigin()),
		Principal: r.GetPrincipal(),
		Labels:    r.GetLabels(),
		From:      timeFromProto(r.GetCreateTimeFrom()),
		To:        timeFromProto(r.GetCreateTimeTo()),
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
	// No command of this build belongs to a session.
	return f, none || r.GetSession() != ""
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
