package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Decide gives what is to be done with q. It is pure.
func (p *Policy) Decide(q Request) Decision {
	r := read(&q)
	d := Decision{Effect: Allow, Parsed: r.why == "", Why: r.why}
	simples := r.simples
	switch {
	case r.why != "":
		text := q.Line
		if len(q.Argv) > 0 {
			text = strings.Join(q.Argv, " ")
		}
		simples = []simple{{words: []word{{text: text}}, unknown: "it " + r.why}}
	case len(simples) == 0:
		simples = []simple{{}} // nothing runs; what rules say of the rest still counts
	}

	p.judge(&q, r, simples, &d)
	if commands, ok := p.actionTypes[q.ActionType]; ok {
		for i := range simples {
			if simples[i].raises || d.Effect == Deny && d.Rule == RuleActionTypes {
				continue
			}
			if s := &simples[i]; s.unknown != "" || s.open || matchCommands(commands, s, r, true) != yes || len(s.reads) > 0 {
				d.Effect, d.Rule, d.Gate = Deny, RuleActionTypes, Gate{}
				d.Commands[i].Effect, d.Commands[i].Rule = Deny, RuleActionTypes
				d.Reason = fmt.Sprintf("%s is none of the commands of action type %q. Run it without an action type, or only what belongs to it",
					d.Commands[i].title(), q.ActionType)
			}
		}
	}
	return d
}

// judge decides every simple command and puts the strictest of all into d.
func (p *Policy) judge(q *Request, r *reading, simples []simple, d *Decision) {
	applies := make([]bool, len(p.rules))
	for i := range p.rules {
		applies[i] = p.rules[i].about(q)
	}
	var all verdict
	worst := 0
	for i := range simples {
		s := &simples[i]
		v := p.one(q, r, s, applies)
		j := Judged{Words: s.texts(), Variables: r.variables, Unknown: s.doubt(), Effect: v.effect, Rule: v.rule}
		for _, w := range s.writes {
			j.Writes = append(j.Writes, w.text)
		}
		for _, w := range s.reads {
			j.Reads = append(j.Reads, w.text)
		}
		d.Commands = append(d.Commands, j)
		merged := all.and(v)
		if i == 0 || merged.effect != all.effect || merged.rule != all.rule {
			worst = i
		}
		all = merged
	}
	d.Effect, d.Rule, d.Gate = all.effect, all.rule, all.gate
	d.Reason = reason(d, worst, all.torn)
}

// verdict is what becomes of a simple command, or of several.
type verdict struct {
	effect Effect
	rule   string
	gate   Gate // of RequireApproval
	// torn: it is denied only since nobody has the roles for all its approvals.
	torn bool
}

// and gives the stricter of two verdicts. Two approvals become one that is worth
// both: the larger count, the shorter timeout, only roles that both name, and
// oneself only where both let one. Where they name no common role, there is
// none, and the commands have to be asked for one at a time.
func (v verdict) and(w verdict) verdict {
	if v.effect == "" || w.effect.strictness() > v.effect.strictness() || v.torn && w.effect == Deny {
		return w
	}
	if v.effect != RequireApproval || w.effect != RequireApproval {
		return v
	}
	g := Gate{
		Count:     max(v.gate.Count, w.gate.Count),
		Timeout:   min(v.gate.Timeout, w.gate.Timeout),
		AllowSelf: v.gate.AllowSelf && w.gate.AllowSelf,
	}
	for _, role := range v.gate.Roles {
		if slices.Contains(w.gate.Roles, role) {
			g.Roles = append(g.Roles, role)
		}
	}
	rule := v.rule
	if w.gate.Count > v.gate.Count || len(g.Roles) == 0 {
		rule = w.rule
	}
	if len(g.Roles) == 0 {
		return verdict{effect: Deny, rule: rule, torn: true}
	}
	return verdict{effect: RequireApproval, rule: rule, gate: g}
}

// one finds the first rule that matches s. Restricting rules that may match it
// on the way count too, and the strictest of all is the verdict.
func (p *Policy) one(q *Request, r *reading, s *simple, applies []bool) verdict {
	var v verdict
	for i := range p.rules {
		if !applies[i] {
			continue
		}
		rule := &p.rules[i]
		is := rule.matches(q, r, s)
		if is != no {
			v = v.and(verdictOf(rule.Effect, rule.Name, rule.Approval))
		}
		if is == yes {
			return v
		}
	}
	return v.and(verdictOf(p.standard, RuleDefault, p.gate))
}

func verdictOf(e Effect, rule string, g Gate) verdict {
	if e != RequireApproval {
		return verdict{effect: e, rule: rule}
	}
	return verdict{effect: e, rule: rule, gate: g.filled()}
}

// title names a command for people.
func (j *Judged) title() string {
	if len(j.Words) == 0 {
		return "a line that runs nothing"
	}
	return quoted(strings.Join(j.Words, " "))
}

func reason(d *Decision, worst int, torn bool) string {
	j := &d.Commands[worst]
	if torn {
		return fmt.Sprintf("Its commands need approvals of people with different roles (%s for %s), and no role is enough for all. Run them one at a time, without anything computed",
			ruleTitle(d.Rule), j.title())
	}
	doubt := ""
	if j.Unknown != "" {
		doubt = ", of which it is not known what it runs (" + j.Unknown + ")"
	}
	switch {
	case d.Effect == Allow && len(d.Commands) == 1:
		return fmt.Sprintf("%s is allowed by %s", j.title(), ruleTitle(j.Rule))
	case d.Effect == Allow:
		var rules []string
		for i := range d.Commands {
			if t := ruleTitle(d.Commands[i].Rule); !slices.Contains(rules, t) {
				rules = append(rules, t)
			}
		}
		return fmt.Sprintf("All %d commands in it are allowed, by %s", len(d.Commands), strings.Join(rules, ", "))
	case d.Effect == RequireApproval:
		return fmt.Sprintf("%s%s needs an approval (%s: %d from %s within %s). Wait for it, or ask somebody to decide",
			j.title(), doubt, ruleTitle(j.Rule), d.Gate.Count, strings.Join(d.Gate.Roles, " or "), d.Gate.Timeout)
	case j.Rule == RuleDefault && j.Unknown != "":
		return fmt.Sprintf("No rule allows %s%s. Write it plainly, one program with its arguments at a time", j.title(), doubt)
	case j.Rule == RuleDefault:
		more := ""
		if len(j.Writes) > 0 {
			more = ", which writes " + quoted(strings.Join(j.Writes, " "))
		}
		if len(j.Variables) > 0 {
			more += ", with " + strings.Join(j.Variables, ", ") + " set"
		}
		return fmt.Sprintf("No rule allows %s%s, and the default is to deny", j.title(), more)
	}
	return fmt.Sprintf("%s%s is denied by %s", j.title(), doubt, ruleTitle(j.Rule))
}

func ruleTitle(name string) string {
	if name == RuleDefault {
		return "the default"
	}
	return fmt.Sprintf("rule %q", name)
}
