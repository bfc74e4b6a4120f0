package main

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type policyCmd struct {
	Test    policyTestCmd    `cmd:"" help:"Tell in one line what the rules would say about a command."`
	Explain policyExplainCmd `cmd:"" help:"Tell how the rules see a command, and why they decide so."`
}

// policyQuestion is a command as it would be run, and by whom.
type policyQuestion struct {
	Cwd        string   `short:"C" placeholder:"DIR" help:"Directory it would run in (default: the login directory)."`
	Env        []string `short:"e" sep:"none" placeholder:"NAME" help:"A variable that would be set. May be repeated."`
	Login      bool     `help:"It would run in the login shell."`
	Sudo       bool     `help:"It would run as root, through sudo."`
	SudoUser   string   `placeholder:"USER" help:"It would run as this user, through sudo."`
	ActionType string   `placeholder:"TYPE" help:"The kind of action it would be."`
	Origin     string   `placeholder:"DOOR" help:"The door it would come through: grpc, rest, websocket, mcp, cli, web (default: cli)."`
	As         string   `placeholder:"PRINCIPAL" help:"Who would ask (default: you). For an admin."`
	Role       []string `placeholder:"ROLE" help:"With this role: viewer, operator, approver, admin; may be repeated (default: yours). For an admin."`

	Host    hostWord `arg:"" passthrough:"partial" help:"Name of the host, as telexec hosts lists it."`
	Command []string `arg:"" help:"The command, as behind telexec run HOST."`
}

// policyCodes is part of the help of both.
const policyCodes = `Nothing is started. Exit codes: 0 it may run; 1 it is refused; 3 it would wait for approval; 125 telexec failed.`

// request makes the request of the flags. path is the subcommand, whose help has
// more.
func (q *policyQuestion) request(path string) (*telexecv1.ExplainPolicyRequest, error) {
	req := &telexecv1.ExplainPolicyRequest{
		Host: string(q.Host), LoginShell: q.Login, ActionType: q.ActionType, Principal: q.As, Roles: q.Role,
		WorkingDirectory: q.Cwd,
	}
	var err error
	if req.Command, req.Argv, err = commandWords(string(q.Host), q.Command); err != nil {
		return nil, failure("%v", err).withHint("%s --help has examples", path)
	}
	if q.Sudo || q.SudoUser != "" {
		req.Sudo = &telexecv1.Sudo{User: firstOf(q.SudoUser, "root")}
	}
	for _, e := range q.Env {
		name, _, _ := strings.Cut(e, "=")
		req.EnvNames = append(req.EnvNames, name)
	}
	if q.Origin != "" {
		n, ok := telexecv1.Origin_value["ORIGIN_"+enumName(q.Origin)]
		if !ok || n == 0 {
			return nil, failure("there is no door %q", q.Origin).withHint("%s --help lists the doors", path)
		}
		req.Origin = telexecv1.Origin(n)
	}
	return req, nil
}

// ask asks, lets show print the answer, and ends with the code that it stands for.
func (q *policyQuestion) ask(ctx context.Context, a *app, show func(*telexecv1.ExplainPolicyResponse) error) error {
	req, err := q.request(a.path)
	if err != nil {
		return err
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		resp, err := cl.ExplainPolicy(ctx, req)
		if err != nil {
			return err
		}
		if a.opts.JSON {
			err = a.out.document(resp)
		} else {
			err = show(resp)
		}
		if err != nil {
			return err
		}
		switch resp.GetEffect() {
		case telexecv1.PolicyEffect_POLICY_EFFECT_ALLOW:
			return nil
		case telexecv1.PolicyEffect_POLICY_EFFECT_REQUIRE_APPROVAL:
			return &exitError{code: exitApproval}
		}
		return &exitError{code: exitNo}
	})
}

type policyTestCmd struct {
	policyQuestion `embed:""`
}

// Help is shown by policy test --help.
func (policyTestCmd) Help() string {
	return policyCodes + `

Examples:

    telexec policy test web1 -- apt-get upgrade -y
    telexec policy test -C /srv/app web1 ./deploy.sh
    telexec policy test --as ann --role operator --origin mcp web1 'ls; id'`
}

// Run tells the verdict.
func (c *policyTestCmd) Run(ctx context.Context, a *app) error {
	return c.ask(ctx, a, func(resp *telexecv1.ExplainPolicyResponse) error {
		effect := effectCell(resp.GetEffect())
		_, err := fmt.Fprintf(a.out.stdout, "%s, %s\n", a.out.paint(effect.text, effect.colour), printable(because("rule "+resp.GetRule(), resp.GetReason())))
		return err
	})
}

type policyExplainCmd struct {
	policyQuestion `embed:""`
}

// Help is shown by policy explain --help.
func (policyExplainCmd) Help() string {
	return `Shows each simple command that the line is made of, also within substitutions, sh -c, sudo, xargs and the like: its
words, what cannot be known of it before it runs, and the rule that speaks about it. A word that holds a blank stands in
brackets. A command of which something cannot be
known is never allowed by a rule that names programs.

` + policyCodes + `

Example:

    telexec policy explain web1 'find /var/log -name "*.gz" -exec rm {} +'`
}

// Run tells all.
func (c *policyExplainCmd) Run(ctx context.Context, a *app) error {
	return c.ask(ctx, a, a.out.explanation)
}

func (p *printer) explanation(resp *telexecv1.ExplainPolicyResponse) error {
	f := facts{}
	effect := effectCell(resp.GetEffect())
	f.paint("Verdict", effect.text, effect.colour)
	f.add("Rule", resp.GetRule())
	f.add("Why", resp.GetReason())
	if resp.GetEffect() == telexecv1.PolicyEffect_POLICY_EFFECT_REQUIRE_APPROVAL {
		f.add("Approval", needs(resp.GetRequiredApprovals(), 0, resp.GetApproverRoles())+", within "+duration(resp.GetApprovalTimeout()))
	}
	for _, c := range resp.GetCommands() {
		effect := effectCell(c.GetEffect())
		f.exactly("Command", wordsText(c.GetWords()), p.width)
		f.paint("", because(effect.text, "rule "+firstOf(c.GetRule(), "default")), effect.colour)
		if c.GetUnknown() != "" {
			f.paint("", "not known: "+c.GetUnknown(), yellow)
		}
	}
	return p.whole(f.rows)
}

// wordsText is the words of a command, in brackets where they would not be seen to
// be one. Quotes would not do: what is not known of a word stands in it as it was
// written, with quotes of its own.
func wordsText(words []string) string {
	if len(words) == 0 {
		return "(no program)"
	}
	shown := make([]string, len(words))
	for i, w := range words {
		if shown[i] = w; w == "" || strings.ContainsFunc(w, unicode.IsSpace) {
			shown[i] = "[" + w + "]"
		}
	}
	return strings.Join(shown, " ")
}

// effectCell is what a rule says.
func effectCell(e telexecv1.PolicyEffect) cell {
	c := cell{enum(e.String(), "POLICY_EFFECT_"), red}
	switch e {
	case telexecv1.PolicyEffect_POLICY_EFFECT_ALLOW:
		c.colour = green
	case telexecv1.PolicyEffect_POLICY_EFFECT_REQUIRE_APPROVAL:
		c.colour = yellow
	case telexecv1.PolicyEffect_POLICY_EFFECT_UNSPECIFIED:
		c = cell{text: "no verdict"}
	}
	return c
}
