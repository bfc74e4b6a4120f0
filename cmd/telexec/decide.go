package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type approveCmd struct {
	ID          []string `arg:"" name:"id" help:"Ids of the commands, or enough of their ends."`
	Yes         bool     `short:"y" help:"Do not show and ask, as is needed without a terminal."`
	Reason      string   `placeholder:"TEXT" help:"Why; shown to the one who asked, and kept."`
	Modify      string   `placeholder:"CMD" help:"Let it run this command line instead. The rules look at it anew, and what does more than was asked for needs another approver. With one id."`
	RequestHash string   `placeholder:"SHA256" help:"Only if the request is still the one that telexec approvals show has shown. With one id."`
}

// Help is shown by approve --help.
func (approveCmd) Help() string {
	return `Shows each request as telexec approvals show does and asks; what was shown is what runs, and a request that has
changed since is not approved. Several are approved all together, or none of them. Exit code 0: decided; 1: the answer was no,
and nothing was decided.

Examples:

    telexec approve V2W3
    telexec approve V2W3 --modify 'apt-get upgrade --dry-run'
    telexec approve V2W3 --yes --request-hash "$(telexec approvals show V2W3 --json | jq -r .requestHash)"`
}

// Run asks, and approves.
func (c *approveCmd) Run(ctx context.Context, a *app) error {
	if len(c.ID) > 1 && (c.Modify != "" || c.RequestHash != "") {
		return failure("--modify and --request-hash are for one approval at a time")
	}
	var hash []byte
	if c.RequestHash != "" {
		var err error
		if hash, err = parseHash("--request-hash", c.RequestHash); err != nil {
			return err
		}
	}
	_, isTerminal := terminal(a.env.Stdin)
	if !c.Yes && (!isTerminal || !a.out.remarks || a.opts.JSON) {
		return failure("there is no terminal on which to show the request and ask").
			withHint("Look at it with telexec approvals show, then give --yes")
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		ids, err := a.approvalArgs(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		keyboard := bufio.NewReader(byteReader{a.env.Stdin})
		req := &telexecv1.DecideApprovalsRequest{}
		for _, id := range ids {
			ap, err := cl.GetApproval(ctx, id)
			if err != nil {
				return err
			}
			d := c.decision(ap)
			if hash != nil {
				d.RequestHash = hash
			}
			req.Decisions = append(req.Decisions, d)
			if c.Yes {
				continue
			}
			if err := a.ask(ctx, keyboard, ap, d); err != nil {
				return err
			}
		}
		return a.decide(ctx, cl, req)
	})
}

// decision is what is to be decided about the request that ap shows.
func (c *approveCmd) decision(ap *telexecv1.Approval) *telexecv1.Decision {
	d := &telexecv1.Decision{
		CommandId: ap.GetCommandId(), Verdict: telexecv1.Verdict_VERDICT_APPROVE, RequestHash: ap.GetRequestHash(), Reason: c.Reason,
	}
	if c.Modify != "" {
		d.Verdict, d.Modified = telexecv1.Verdict_VERDICT_MODIFY, &telexecv1.ModifiedRequest{Command: c.Modify}
	}
	return d
}

// ask shows what is to be approved and asks. Its error is the end where the answer
// is not yes.
func (a *app) ask(ctx context.Context, keyboard *bufio.Reader, ap *telexecv1.Approval, d *telexecv1.Decision) error {
	screen := a.out.screen()
	f := screen.approval(ap)
	if d.GetModified() != nil {
		f.exactly("Run instead", d.GetModified().GetCommand(), screen.width)
	}
	if err := screen.whole(f.rows); err != nil {
		return err
	}
	if !ap.GetCanDecide() {
		return failure("%s", because(ap.GetCommandId()+" is not yours to approve now", ap.GetCannotDecideReason()))
	}
	question := "Approve"
	if d.GetModified() != nil {
		question = "Modify"
	}
	yes, err := a.yes(ctx, keyboard, question+" "+ap.GetCommandId())
	if err == nil && !yes {
		err = &exitError{code: exitNo, message: "nothing was decided"}
	}
	return err
}

// yes asks a question, and reports whether the answer is yes.
func (a *app) yes(ctx context.Context, keyboard *bufio.Reader, question string) (bool, error) {
	_, _ = io.WriteString(a.env.Stderr, "telexec: "+question+"? [y/N] ")
	typed := make(chan string, 1) // sent to once; nobody may be there to take it
	go func() {
		line, err := keyboard.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		typed <- line
	}()
	select {
	case line := <-typed:
		if slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(line))) {
			return true, nil
		}
		if !strings.HasSuffix(line, "\n") {
			a.out.printErr("\n")
		}
		return false, nil
	case <-ctx.Done():
		a.out.printErr("\n")
		return false, ctx.Err()
	}
}

type rejectCmd struct {
	ID     []string `arg:"" name:"id" help:"Ids of the commands, or enough of their ends."`
	Reason string   `required:"" placeholder:"TEXT" help:"Why; shown to the one who asked, and kept."`
}

// Help is shown by reject --help.
func (rejectCmd) Help() string {
	return `The command never runs; the one who asked for it is told why. Several are rejected all together, or none of them.

Example:

    telexec reject V2W3 --reason 'not on a Friday'`
}

// Run rejects. It names no request: whatever it has become, it is not to run.
func (c *rejectCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		ids, err := a.approvalArgs(ctx, cl, c.ID)
		if err != nil {
			return err
		}
		req := &telexecv1.DecideApprovalsRequest{}
		for _, id := range ids {
			req.Decisions = append(req.Decisions, &telexecv1.Decision{
				CommandId: id, Verdict: telexecv1.Verdict_VERDICT_REJECT, Reason: c.Reason,
			})
		}
		return a.decide(ctx, cl, req)
	})
}

// approvalArgs finds all ids, each once.
func (a *app) approvalArgs(ctx context.Context, cl *client.Client, args []string) ([]string, error) {
	var ids []string
	for _, arg := range args {
		id, err := a.approvalArg(ctx, cl, arg)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// decide takes the decisions and tells what they came to, of one among several in
// one line of JSON.
func (a *app) decide(ctx context.Context, cl *client.Client, req *telexecv1.DecideApprovalsRequest) error {
	resp, err := cl.DecideApprovals(ctx, req)
	if err != nil {
		return err
	}
	var rows [][]cell
	for _, ap := range resp.GetApprovals() {
		switch {
		case a.opts.JSON && len(req.GetDecisions()) > 1:
			err = a.out.line(ap)
		case a.opts.JSON:
			err = a.out.document(ap)
		default:
			rows = append(rows, []cell{plainCell(ap.GetCommandId()), a.cameTo(ap), plainCell(ap.GetCommand().GetCommand())})
		}
		if err != nil {
			return err
		}
	}
	return a.out.columns(rows)
}

// cameTo is what a decision has come to.
func (a *app) cameTo(ap *telexecv1.Approval) cell {
	c := approvalCell(ap)
	switch ap.GetState() {
	case telexecv1.ApprovalState_APPROVAL_STATE_PENDING:
		c.text = fmt.Sprintf("waits for more: %s approvals, until %s", approvalCount(ap), a.out.clock(ap.GetExpireTime()))
		if ap.GetRevision() > 1 && ap.GetApprovals() == 0 {
			c.text = "modified; waits for another approver, until " + a.out.clock(ap.GetExpireTime())
		}
	case telexecv1.ApprovalState_APPROVAL_STATE_APPROVED:
		c.text = "approved for " + ap.GetCommand().GetHost()
	}
	return c
}
