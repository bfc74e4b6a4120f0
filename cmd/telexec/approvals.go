package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type approvalsCmd struct {
	List approvalsListCmd `cmd:"" default:"withargs" help:"List what waits (the default)."`
	Show approvalsShowCmd `cmd:"" help:"Show a request as it is to be judged."`
}

type approvalsListCmd struct {
	Mine bool `help:"Only those that you may decide."`
	All  bool `help:"Those that have been decided, too."`
}

// Help is shown by approvals --help.
func (approvalsListCmd) Help() string {
	return `Shows the commands that wait for an approval: those that you may decide, and your own; newest first. One that is the
step of a task stands for all hosts of the step, and for what takes it back; telexec approvals show has the whole plan.

Examples:

    telexec approvals --mine
    telexec approvals show V2W3
    telexec approve V2W3
    telexec reject V2W3 --reason 'not on a Friday'`
}

// Run lists approvals. JSON lines come as they are fetched.
func (c *approvalsListCmd) Run(ctx context.Context, a *app) error {
	req := &telexecv1.ListApprovalsRequest{PageSize: maxPage, MineToDecide: c.Mine}
	header := []string{"ID", "AGE", "LEFT", "HOST", "BY", "RULE", "APPROVALS", "COMMAND"}
	if c.All {
		header[2] = "STATE"
	} else {
		req.States = []telexecv1.ApprovalState{telexecv1.ApprovalState_APPROVAL_STATE_PENDING}
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		var list []*telexecv1.Approval
		for ap, err := range cl.ListApprovals(ctx, req) {
			if err != nil {
				return err
			}
			if a.opts.JSON {
				if err := a.out.line(ap); err != nil {
					return err
				}
				continue
			}
			list = append(list, ap)
		}
		if a.opts.JSON {
			return nil
		}
		steps := slices.ContainsFunc(list, func(ap *telexecv1.Approval) bool { return ap.GetTask() != nil })
		if steps {
			header = slices.Insert(header, len(header)-1, "STEP")
		}
		var rows [][]cell
		for _, ap := range list {
			third := plainCell(a.out.left(ap.GetExpireTime()))
			if c.All {
				third = approvalCell(ap)
			}
			row := []cell{
				plainCell(ap.GetCommandId()), plainCell(a.out.ago(ap.GetCreateTime())), third, plainCell(approvalHosts(ap)),
				plainCell(actor(ap.GetRequestedBy())), plainCell(ap.GetRule()), plainCell(approvalCount(ap)),
			}
			if steps {
				row = append(row, plainCell(stepText(ap)))
			}
			rows = append(rows, append(row, plainCell(ap.GetCommand().GetCommand())))
		}
		return a.out.table(header, rows)
	})
}

// stepOf gives the step that an approval is about; nil where it is about none.
func stepOf(ap *telexecv1.Approval) *telexecv1.Step { return stepNamed(ap.GetTask(), ap.GetStep()) }

// stepNamed gives a step of a task; nil where there is none of that name.
func stepNamed(t *telexecv1.Task, name string) *telexecv1.Step {
	for _, s := range t.GetSteps() {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// approvalHosts is the host, and how many more the step has: "web1 +2".
func approvalHosts(ap *telexecv1.Approval) string {
	host := ap.GetCommand().GetHost()
	if n := len(stepOf(ap).GetRuns()); n > 1 && !ap.GetUndoes() {
		host += fmt.Sprintf(" +%d", n-1)
	}
	return host
}

// stepText is "upgrade of roll out", or "undo of …".
func stepText(ap *telexecv1.Approval) string {
	if ap.GetTask() == nil {
		return "-"
	}
	text, _, _ := strings.Cut(ap.GetTask().GetTask(), "\n")
	s := ap.GetStep() + " of " + text
	if ap.GetUndoes() {
		s = "undo of " + s
	}
	return cut(s, 40)
}

type approvalsShowCmd struct {
	ID string `arg:"" name:"id" help:"Id of the command, or enough of its end."`
}

// Help is shown by approvals show --help.
func (approvalsShowCmd) Help() string {
	return `Shows all that would run, and of a step of a task the whole plan, and nothing of it cut or hidden: characters that are not to be seen are escaped, and letters
that may look like others are named. "Request" is the SHA-256 of all of it; telexec approve --request-hash takes it.`
}

// Run shows one approval.
func (c *approvalsShowCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		id, err := a.approvalArg(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		ap, err := cl.GetApproval(ctx, id)
		if err != nil {
			return err
		}
		if a.opts.JSON {
			return a.out.document(ap)
		}
		f := a.out.approval(ap)
		switch {
		case ap.GetCanDecide():
			f.paint("You", fmt.Sprintf("may decide: telexec approve %s, telexec reject %[1]s --reason TEXT", id), green)
		case ap.GetState() == telexecv1.ApprovalState_APPROVAL_STATE_PENDING:
			f.paint("You", because("may not decide", ap.GetCannotDecideReason()), yellow)
		}
		return a.out.whole(f.rows)
	})
}

// approval gives all that a decider needs.
func (p *printer) approval(ap *telexecv1.Approval) facts {
	cmd := ap.GetCommand()
	f := facts{}
	f.add("Approval", ap.GetCommandId())
	f.paint("State", p.approvalState(ap), approvalCell(ap).colour)
	step := stepOf(ap)
	if step != nil {
		p.stepFacts(&f, ap, step)
	}
	f.exactly("Host", cmd.GetHost(), p.width)
	if n := len(step.GetRuns()); n > 1 && !ap.GetUndoes() {
		var others []string
		for _, r := range step.GetRuns() {
			if r.GetHost() != cmd.GetHost() {
				others = append(others, r.GetHost())
			}
		}
		f.exactly("and on", strings.Join(others, " "), p.width)
	}
	f.exactly("Target", ap.GetTarget(), p.width)
	if cmd.GetSudoUser() != "" {
		f.exactly("As", cmd.GetSudoUser(), p.width)
	} else {
		f.add("As", "the login user of the host")
	}
	f.exactly("Command", cmd.GetCommand(), p.width)
	switch {
	case step == nil || ap.GetUndoes():
	case step.GetUndo() != "":
		f.exactly("Undo", step.GetUndo(), p.width)
	default:
		f.add("Undo", "none: the step cannot be taken back")
	}
	if cmd.GetWorkingDirectory() != "" {
		f.exactly("Directory", cmd.GetWorkingDirectory(), p.width)
	} else {
		f.add("Directory", "the login directory")
	}
	if names := cmd.GetEnvNames(); len(names) > 0 {
		f.exactly("Environment", strings.Join(names, " "), p.width)
	}
	f.add("Runs", howAsked(cmd))
	if cmd.GetTimeout() != nil {
		f.add("Timeout", duration(cmd.GetTimeout()))
	} else {
		f.add("Timeout", "none")
	}
	if ap.GetStdinBytes() > 0 {
		f.add("Input", fmt.Sprintf("%s, SHA-256 %x", size(ap.GetStdinBytes()), ap.GetStdinSha256()))
	}
	if cmd.GetStdinOpen() {
		f.paint("", "and more may be written to it while it runs", yellow)
	}
	if len(cmd.GetLabels()) > 0 {
		f.exactly("Labels", labelText(cmd.GetLabels()), p.width)
	}
	if cmd.GetActionType() != "" {
		f.exactly("Action", cmd.GetActionType(), p.width)
	}
	f.exactly("Asked for by", actor(ap.GetRequestedBy()), p.width)
	f.add("", p.moment(ap.GetCreateTime()))
	f.add("Rule", ap.GetRule())
	f.add("Request", fmt.Sprintf("%x, revision %d", ap.GetRequestHash(), ap.GetRevision()))
	for _, d := range ap.GetDecisions() {
		f.add("Decision", decisionText(d, p.ago(d.GetTime())))
		if d.GetReason() != "" {
			f.exactly("", d.GetReason(), p.width)
		}
	}
	if step != nil {
		p.planFacts(&f, ap)
	}
	return f
}

// stepFacts tells which step of which task is to be approved.
func (p *printer) stepFacts(f *facts, ap *telexecv1.Approval, step *telexecv1.Step) {
	f.exactly("Task", ap.GetTask().GetTask(), p.width)
	f.add("", fmt.Sprintf("%s, %s", ap.GetTask().GetId(), taskStateText(ap.GetTask())))
	number := slices.Index(ap.GetTask().GetSteps(), step) + 1
	what := fmt.Sprintf("%s, number %d of %d", step.GetName(), number, len(ap.GetTask().GetSteps()))
	if step.GetSession() != "" {
		what += ", " + inSession(step)
	}
	if ap.GetUndoes() {
		what += "; this is what takes it back"
	} else if how := stepHow(step); how != "-" {
		what += "; " + how
	}
	f.exactly("Step", what, p.width)
}

// planFacts has the whole plan of the task, step by step.
func (p *printer) planFacts(f *facts, ap *telexecv1.Approval) {
	for i, s := range ap.GetTask().GetSteps() {
		state := stepCell(s.GetState())
		text := s.GetName() + " " + firstOf(inSession(s), "on "+stepHosts(s)) + ", " + strings.ReplaceAll(state.text, "_", " ")
		if s.GetName() == ap.GetStep() {
			text += "; this one"
		} else if how := stepHow(s); how != "-" {
			text += "; " + how
		}
		f.exactly(fmt.Sprintf("Step %d", i+1), text, p.width)
		f.exactly("  runs", s.GetCommand(), p.width)
		if s.GetUndo() != "" {
			f.exactly("  undo", s.GetUndo(), p.width)
		}
	}
}

// howAsked is how, of a command that has not been started.
func howAsked(cmd *telexecv1.Command) string {
	asked := &telexecv1.Command{LoginShell: cmd.GetLoginShell(), Pty: cmd.GetPty(), Priority: cmd.GetPriority(), Durability: cmd.GetDurability()}
	return how(asked)
}

// decisionText is "approve by ann via cli, 3 min ago".
func decisionText(d *telexecv1.ApprovalDecision, ago string) string {
	s := fmt.Sprintf("%s by %s, %s, of revision %d", enum(d.GetVerdict().String(), "VERDICT_"), actor(d.GetBy()), ago, d.GetRevision())
	if d.GetVerdict() == telexecv1.Verdict_VERDICT_MODIFY {
		s += ", to the command above, or one that was modified again"
	}
	return s
}

// approvalState is the state with what belongs to it.
func (p *printer) approvalState(ap *telexecv1.Approval) string {
	s := approvalCell(ap).text
	if ap.GetState() != telexecv1.ApprovalState_APPROVAL_STATE_PENDING {
		return s + ", " + p.moment(ap.GetDecideTime())
	}
	return fmt.Sprintf("%s, %s, until %s (%s left)", s, needs(ap.GetRequiredApprovals(), ap.GetApprovals(), ap.GetRoles()),
		p.clock(ap.GetExpireTime()), p.left(ap.GetExpireTime()))
}

// needs is "by 2 approvers or admins, one of whom has approved".
func needs(required, have int32, roles []string) string {
	who := strings.Join(roles, " or ")
	switch {
	case who == "":
		who = "approver"
	case required > 1:
		who = strings.Join(roles, "s or ")
	}
	s := fmt.Sprintf("by %d %s", required, who)
	if required > 1 {
		s += "s"
	}
	if have > 0 {
		s += fmt.Sprintf(", %d of whom approved already", have)
	}
	return s
}

// approvalCount is "1/2".
func approvalCount(ap *telexecv1.Approval) string {
	return fmt.Sprintf("%d/%d", ap.GetApprovals(), ap.GetRequiredApprovals())
}

// approvalCell is the state of an approval, with a colour that says how it went.
func approvalCell(ap *telexecv1.Approval) cell {
	c := cell{text: enum(ap.GetState().String(), "APPROVAL_STATE_")}
	switch ap.GetState() {
	case telexecv1.ApprovalState_APPROVAL_STATE_PENDING:
		c.colour = yellow
	case telexecv1.ApprovalState_APPROVAL_STATE_APPROVED:
		c.colour = green
	case telexecv1.ApprovalState_APPROVAL_STATE_WITHDRAWN:
		c.colour = grey
	default:
		c.colour = red
	}
	return c
}

// left is how long it is until t: "55 min".
func (p *printer) left(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return coarse(max(t.AsTime().Sub(p.now()), 0))
}

// clock is a time of this day, or a date with its time.
func (p *printer) clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	at, now := t.AsTime().Local(), p.now().Local()
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format("15:04")
	}
	return at.Format("2006-01-02 15:04")
}

// approvalArg finds the whole id as idArg does, among the approvals that the
// caller is shown: the commands of others are listed nowhere else.
func (a *app) approvalArg(ctx context.Context, cl *client.Client, arg string) (string, error) {
	return a.findID(strings.TrimPrefix(arg, "approvals/"), "approvals", "telexec approvals --all lists them", func() ([]string, error) {
		return approvalIDs(ctx, cl, &telexecv1.ListApprovalsRequest{PageSize: maxPage})
	})
}

// approvalIDs gives the ids of one page.
func approvalIDs(ctx context.Context, cl *client.Client, req *telexecv1.ListApprovalsRequest) ([]string, error) {
	page, err := cl.ListApprovalsPage(ctx, req)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, ap := range page.GetApprovals() {
		ids = append(ids, ap.GetCommandId())
	}
	return ids, nil
}

// gate tells the follower of a command what it waits for where a rule wants it
// approved: nothing comes meanwhile, and that looks like silence.
type gate struct {
	out  *printer
	told string // empty: it does not wait
	line string // the command as it was when it began to wait
}

// watch takes every state of the command that the stream tells.
func (g *gate) watch(cmd *telexecv1.Command) {
	if cmd.GetState() != telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL {
		if g.told != "" && !ended(cmd.GetState()) { // how it has ended is told by its outcome
			as := ""
			if cmd.GetCommand() != g.line {
				as = ", but as something else: " + cmd.GetCommand()
			}
			g.out.warn("%s is approved%s", cmd.GetId(), as)
		}
		g.told = ""
		return
	}
	if g.told == "" {
		g.line = cmd.GetCommand()
	}
	text := waitText(g.out, cmd)
	if text == g.told {
		return
	}
	g.told = text
	g.out.warn("%s %s: telexec approvals show %[1]s", cmd.GetId(), text)
}

// waitText is "waits for approval by 1 approver until 14:20 (rule upgrades)".
func waitText(p *printer, cmd *telexecv1.Command) string {
	s := "waits for approval"
	if w := cmd.GetAwaitedApproval(); w != nil {
		s += " " + needs(w.GetRequiredApprovals(), w.GetApprovals(), w.GetRoles()) + " until " + p.clock(w.GetExpireTime())
	}
	if cmd.GetPolicyRule() != "" {
		s += " (rule " + cmd.GetPolicyRule() + ")"
	}
	return s
}

// parseHash reads a SHA-256, in hexadecimal as people are shown it, or in base64 as
// JSON has it.
func parseHash(flag, s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(s)
	}
	if err != nil || len(b) != sha256.Size {
		return nil, failure("%s: %q is not a SHA-256, which has 64 hexadecimal digits, or 44 characters of base64", flag, s)
	}
	return b, nil
}
