package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type statusCmd struct {
	Session string `placeholder:"NAME" help:"What runs in this session, or else ran last."`
	ID      string `arg:"" name:"id" optional:"" help:"Id of the command, or enough of its end."`
}

// Help is shown by status --help.
func (statusCmd) Help() string {
	return `Examples:

    telexec status 01J8Z3K4M5N6P7Q8R9S0T1V2W3
    telexec status V2W3 --json | jq -r .state
    telexec status --session deploy`
}

// Run shows a command.
func (c *statusCmd) Run(ctx context.Context, a *app) error {
	if (c.ID == "") == (c.Session == "") {
		return failure("give the id of a command, or --session").withHint("telexec status --help has examples")
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		req := &telexecv1.GetStatusRequest{Session: c.Session, Output: &telexecv1.OutputOptions{Omit: true}}
		if c.ID != "" {
			var err error
			if req.CommandId, err = a.idArg(ctx, cl, c.ID); err != nil {
				return err
			}
		}
		resp, err := cl.GetStatus(ctx, req)
		if err != nil {
			return err
		}
		if resp.GetNoTask() {
			return a.noTask(resp, "nothing has run in %s", c.Session)
		}
		return a.showCommand(resp.GetCommand())
	})
}

// noTask tells that a session has no command.
func (a *app) noTask(m proto.Message, format string, args ...any) error {
	if a.opts.JSON {
		return a.out.document(m)
	}
	_, err := fmt.Fprintln(a.out.stdout, printable(fmt.Sprintf(format, args...)))
	return err
}

// showCommand prints all that a person wants to know about a command.
func (a *app) showCommand(cmd *telexecv1.Command) error {
	if a.opts.JSON {
		return a.out.document(cmd)
	}
	f := facts{}
	f.add("Command", cmd.GetId())
	f.paint("State", stateText(cmd), stateCell(cmd).colour)
	if cmd.GetState() == telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL {
		f.add("", waitText(a.out, cmd))
		f.add("", "telexec approvals show "+cmd.GetId()+" shows what is to be approved")
	}
	if fail := cmd.GetFailure(); fail != nil {
		f.lines("Why", failureText(fail), red)
		f.lines("", fail.GetHint(), "")
	}
	if n := cmd.GetCancellation(); n != nil {
		f.add("Cancelled by", because(actor(n.GetBy())+", "+a.out.moment(n.GetTime()), n.GetReason()))
		if n.GetReport() != nil {
			f.lines("", cancelText(n.GetReport()), "")
		}
		for _, p := range n.GetReport().GetLeft() {
			f.paint("Left", processText(p), red)
		}
	}
	f.add("Host", cmd.GetHost())
	f.add("Session", cmd.GetSession())
	if id, step := taskStep(cmd); id != "" {
		f.add("Step", fmt.Sprintf("%q of task %s", step, id))
	}
	f.add("Line", cmd.GetCommand())
	f.add("Directory", cmd.GetWorkingDirectory())
	f.add("Environment", strings.Join(cmd.GetEnvNames(), " "))
	f.add("Runs", how(cmd))
	f.add("Labels", labelText(cmd.GetLabels()))
	f.add("Action", cmd.GetActionType())
	f.add("Asked for by", actor(cmd.GetCreatedBy()))
	f.add("Rule", cmd.GetPolicyRule())
	f.add("Created", a.out.moment(cmd.GetCreateTime()))
	if cmd.GetStartTime() != nil {
		f.add("Started", a.out.moment(cmd.GetStartTime()))
	}
	if cmd.GetEndTime() != nil {
		f.add("Ended", a.out.moment(cmd.GetEndTime()))
	}
	if cmd.GetStartTime() != nil {
		f.add("Took", duration(cmd.GetDuration()))
	}
	if cmd.GetStartTime() != nil && cmd.GetLastActivityTime() != nil {
		f.add("Last activity", a.out.moment(cmd.GetLastActivityTime()))
	}
	if cmd.GetTimeout() != nil {
		f.add("Timeout", duration(cmd.GetTimeout()))
	}
	if p := cmd.GetProgress(); p != nil {
		f.add("Progress", strings.TrimSpace(progressText(cmd)+" "+p.GetLabel()))
	}
	f.add("Output", fmt.Sprintf("%s on stdout, %s on stderr", size(cmd.GetStdoutBytes()), size(cmd.GetStderrBytes())))
	if t := cmd.GetTruncation(); t != nil {
		f.paint("Not kept", "some of the output: "+t.GetReason(), red)
	}
	if cmd.GetStdinOpen() {
		f.add("Input", "open: telexec input "+cmd.GetId())
	}
	return a.out.columns(f.rows)
}

// stateText is the state with what belongs to it.
func stateText(cmd *telexecv1.Command) string {
	s := stateCell(cmd).text
	switch {
	case cmd.ExitCode != nil:
		s += fmt.Sprintf(", exit code %d", cmd.GetExitCode())
	case cmd.GetExitSignal() != "":
		s += ", signal " + cmd.GetExitSignal()
	case cmd.GetState() == telexecv1.CommandState_COMMAND_STATE_QUEUED:
		s += ", " + queueText(cmd.GetQueue())
	case cmd.GetState() == telexecv1.CommandState_COMMAND_STATE_COMPLETED:
		s += ", exit code not known" + recognised[cmd.GetCompletion()]
	case reconnecting(cmd) && cmd.GetCancellation() != nil:
		s += ", as soon as " + cmd.GetHost() + " can be reached; until then it goes on there"
	case reconnecting(cmd):
		s += " to " + cmd.GetHost() + "; the command goes on there"
	}
	return strings.TrimSuffix(s, ", ")
}

// queueText is "place 3, about 20 s, until the host has room".
func queueText(q *telexecv1.Queue) string {
	if q.GetPosition() == 0 {
		return ""
	}
	s := fmt.Sprintf("place %d", q.GetPosition())
	if q.GetEstimatedWait() != nil {
		s += ", about " + duration(q.GetEstimatedWait())
	}
	switch q.GetWaitsFor() {
	case "":
	case "session":
		s += ", until what runs there has ended"
	default:
		s += ", until the " + q.GetWaitsFor() + " has room"
	}
	return s
}

// how says in which ways a command is not run in the ordinary way.
func how(cmd *telexecv1.Command) string {
	var parts []string
	if cmd.GetLoginShell() {
		parts = append(parts, "in the login shell")
	}
	if cmd.GetPty() != nil {
		parts = append(parts, "on a terminal")
	}
	if cmd.GetSudoUser() != "" {
		parts = append(parts, "as "+cmd.GetSudoUser())
	}
	if cmd.GetPriority() != 0 {
		parts = append(parts, fmt.Sprintf("with priority %d", cmd.GetPriority()))
	}
	if cmd.GetDurability() != telexecv1.Durability_DURABILITY_UNSPECIFIED {
		parts = append(parts, because(enum(cmd.GetDurability().String(), "DURABILITY_"), cmd.GetDurabilityReason()))
	}
	return strings.Join(parts, ", ")
}

// facts are the rows of a view of one thing. What is not known has no row.
type facts struct{ rows [][]cell }

func (f *facts) add(name, value string) { f.paint(name, value, "") }

func (f *facts) paint(name, value, colour string) {
	if value != "" {
		f.rows = append(f.rows, []cell{{name, bold}, {value, colour}})
	}
}

// lines is paint for what a host may have said in several lines.
func (f *facts) lines(name, value, colour string) {
	for line := range linesOf(value) {
		f.paint(name, line, colour)
		name = ""
	}
}
