package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// roles are those that rules may name.
var roles = []string{"viewer", "operator", "approver", "admin"}

// Policy decides by rules that were checked. Make it with New.
type Policy struct {
	standard    Effect
	gate        Gate
	rules       []rule
	actionTypes map[string][][]string
	warnings    []string
}

// rule is a Rule with its patterns taken apart.
type rule struct {
	Rule
	commands    [][]string
	actionTypes map[string][][]string // those that it names
	onCommand   bool
}

// Warnings tells which rules allow more than they seem to, for the operator.
func (p *Policy) Warnings() []string { return slices.Clone(p.warnings) }

// New checks rules and makes a Policy of them. The error is a *fault.Error of
// kind Invalid with every mistake of every rule in a field of its own, which
// names the rule and its line.
func New(rules Rules) (*Policy, error) {
	c := checker{}
	p := &Policy{standard: rules.Default, gate: rules.DefaultApproval.filled(), actionTypes: map[string][][]string{}}
	c.effect("policy.default", "the default", rules.Default)
	c.gate("policy.default_approval", "the default", rules.Default, rules.DefaultApproval)
	for _, name := range slices.Sorted(maps.Keys(rules.ActionTypes)) {
		path := "policy.action_types." + name
		if strings.TrimSpace(name) == "" {
			c.problem(path, "an action type needs a name")
		}
		if len(rules.ActionTypes[name]) == 0 {
			c.problem(path, "action type %q has no commands", name)
		}
		p.actionTypes[name] = c.commands(path, fmt.Sprintf("action type %q", name), rules.ActionTypes[name])
	}

	names := map[string]int{}
	everything := ""
	for i, r := range rules.Rules {
		path := fmt.Sprintf("policy.rules[%d]", i)
		who := fmt.Sprintf("rule %q", r.Name)
		if r.Name == "" {
			who = fmt.Sprintf("rule %d", i+1)
		}
		if r.Line > 0 {
			who += fmt.Sprintf(" (line %d)", r.Line)
		}
		switch before, taken := names[r.Name]; {
		case strings.TrimSpace(r.Name) == "":
			c.problem(path+".name", "%s has no name; it is told to callers and kept in the audit", who)
		case r.Name == RuleDefault || r.Name == RuleActionTypes || r.Name == RuleStep:
			c.problem(path+".name", "%s has a name that stands for something else; give it another", who)
		case taken:
			c.problem(path+".name", "%s has the name of rule %d; give it another", who, before+1)
		default:
			names[r.Name] = i
		}
		if everything != "" {
			c.problem(path, "%s is never reached, since %s before it has no condition and matches everything", who, everything)
		} else if r.Match.empty() {
			everything = who
		}
		c.effect(path+".effect", who, r.Effect)
		c.gate(path+".approval", who, r.Effect, r.Approval)
		p.rules = append(p.rules, c.rule(path+".match", who, r, p.actionTypes))
		p.warn(who, r)
	}
	if len(c.fields) == 0 {
		return p, nil
	}
	messages := make([]string, len(c.fields))
	for i, f := range c.fields {
		messages[i] = f.Message
	}
	e := fault.New(fault.Invalid, fault.ReasonBadConfig, "%s", strings.Join(messages, "\n")).
		WithHint("Correct the policy in the configuration; docs/policy.md says what each condition takes")
	e.Fields = c.fields
	return nil, e
}

// checker gathers what is wrong.
type checker struct{ fields []fault.Field }

func (c *checker) problem(path, format string, args ...any) {
	c.fields = append(c.fields, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) oneOf(path, who, what, got string, known []string) {
	if slices.Contains(known, got) {
		return
	}
	hint := ""
	if near := fault.Nearest(got, slices.Values(known)); len(near) > 0 {
		hint = fmt.Sprintf("; did you mean %s?", near[0])
	}
	c.problem(path, "%s: %q is no %s (%s)%s", who, got, what, strings.Join(known, ", "), hint)
}

func (c *checker) effect(path, who string, e Effect) {
	c.oneOf(path, who, "effect", string(e), []string{string(Allow), string(Deny), string(RequireApproval)})
}

func (c *checker) gate(path, who string, e Effect, g Gate) {
	if e != RequireApproval && !g.isZero() {
		c.problem(path, "%s says who approves, but its effect is %q and not %q", who, e, RequireApproval)
	}
	if g.Count < 0 {
		c.problem(path+".count", "%s: %d people cannot approve; count is 1 or more", who, g.Count)
	}
	if g.Timeout < 0 {
		c.problem(path+".timeout", "%s: the timeout %s is negative", who, g.Timeout)
	}
	for _, role := range g.Roles {
		c.oneOf(path+".roles", who, "role", role, roles)
	}
}

// patterns checks a list of patterns; blanks says whether they may have any.
func (c *checker) patterns(path, who string, patterns []string, blanks bool) {
	for _, p := range patterns {
		switch {
		case p == "":
			c.problem(path, "%s: a pattern is empty; * matches anything", who)
		case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' || r == 0x7f || r == 0xFFFD }):
			c.problem(path, "%s: the pattern %q has characters in it that are not text", who, p)
		case !blanks && strings.ContainsAny(p, " \t\n"):
			c.problem(path, "%s: the pattern %q has a blank in it, which nothing here has", who, p)
		}
	}
}

// commands checks patterns of whole commands and takes them apart.
func (c *checker) commands(path, who string, patterns []string) [][]string {
	c.patterns(path, who, patterns, true)
	var taken [][]string
	for _, p := range patterns {
		words := strings.Fields(p)
		switch {
		case len(words) == 0:
			if p != "" {
				c.problem(path, "%s: the command %q is empty", who, p)
			}
			continue
		case strings.ContainsAny(p, "'\"\\`$;|&<>()"):
			c.problem(path, "%s: the command %q has characters of shell grammar in it; a pattern is words with blanks between them, without quotes, and ? stands for a character that cannot be written", who, p)
		}
		taken = append(taken, words)
	}
	return taken
}

func (c *checker) rule(path, who string, r Rule, known map[string][][]string) rule {
	m := &r.Match
	c.patterns(path+".hosts", who, m.Hosts, false)
	c.patterns(path+".principals", who, m.Principals, true)
	c.patterns(path+".programs", who, m.Programs, false)
	c.patterns(path+".args", who, m.Args, true)
	c.patterns(path+".writes", who, m.Writes, true)
	c.patterns(path+".variables", who, m.Variables, false)
	for _, p := range m.Writes {
		if slices.Contains(strings.Split(p, "/"), "..") {
			c.problem(path+".writes", "%s: the pattern %q has .. in it; write the path without", who, p)
		}
	}
	for label, pattern := range m.Labels {
		if label == "" || pattern == "" {
			c.problem(path+".labels", "%s: a label needs a name and a pattern of its value; * matches any", who)
		}
	}
	for _, role := range m.Roles {
		c.oneOf(path+".roles", who, "role", role, roles)
	}
	var origins []string
	for _, o := range command.Origins {
		origins = append(origins, string(o))
	}
	for _, o := range m.Origins {
		c.oneOf(path+".origins", who, "origin", o, origins)
	}
	compiled := rule{Rule: r, onCommand: m.onCommand(), commands: c.commands(path+".commands", who, m.Commands), actionTypes: map[string][][]string{}}
	for _, t := range m.ActionTypes {
		commands, ok := known[t]
		if !ok {
			c.problem(path+".action_types", "%s: nobody defines the action type %q; add it to action_types", who, t)
		}
		compiled.actionTypes[t] = commands
	}
	return compiled
}

// runners are programs that run others, or any text, when they are asked to;
// those that are seen through are not among them unless they do more.
var runners = strings.Fields(`sh bash dash ash ksh mksh zsh fish csh tcsh python python2 python3 perl ruby node nodejs deno lua php tclsh expect guile
	awk gawk mawk nawk sed ed ex vi vim nvim view emacs nano find tar zip rsync scp sftp git less more man ssh env xargs make cmake gdb docker podman kubectl nerdctl
	ctr lxc tmux screen crontab at systemctl journalctl service pip pip3 npm npx gem cargo go mvn gradle ansible ansible-playbook psql mysql sqlite3 redis-cli
	openssl curl wget nmap tcpdump apt apt-get dpkg yum dnf rpm snap busybox toybox sudo doas su chroot socat nc ncat dd cp mv install ln tee chmod chown
	source . parallel mount bash-static java`)

// warn notes a rule that allows a program which runs others, whatever its
// arguments.
func (p *Policy) warn(who string, r Rule) {
	m := &r.Match
	if r.Effect != Allow || len(m.Commands)+len(m.Args)+len(m.ActionTypes) > 0 {
		return
	}
	for _, pattern := range m.Programs {
		var runs []string
		for _, name := range runners {
			if globProgram(pattern, name) || globProgram(pattern, "/usr/bin/"+name) {
				runs = append(runs, name)
			}
		}
		switch {
		case len(runs) == 1:
			p.warnings = append(p.warnings, fmt.Sprintf("%s allows %s with any arguments, and so may allow running other programs or writing files; add commands or args", who, runs[0]))
		case len(runs) > 1:
			p.warnings = append(p.warnings, fmt.Sprintf("%s allows %q, and so programs that run others or write files, such as %s; name the programs", who, pattern, runs[0]))
		}
	}
}
