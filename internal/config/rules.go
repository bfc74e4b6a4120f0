package config

import (
	"fmt"
	"time"
)

// RequireApproval is the effect whose Approval counts. The others are allow and
// deny.
const RequireApproval = "require_approval"

// Policy says which commands may run. The structure is checked here; what the
// patterns mean is the affair of whoever decides by them.
type Policy struct {
	// What happens with a command that no rule matches.
	Default         string   `yaml:"default" enum:"allow|deny|require_approval" default:"allow"`
	DefaultApproval Approval `yaml:"default_approval"` // zero unless Default is RequireApproval
	// The rules, see below. The first that matches decides.
	Rules []Rule `yaml:"rules"`
	// Name of a kind of action → patterns of the commands that belong to it.
	ActionTypes map[string][]string `yaml:"action_types" kind:"pattern" empty:"no"`
}

// Rule is one rule of the policy.
type Rule struct {
	// What callers and the audit are told; unique. Up to 100 letters, digits and _ . : -, but not default, action_types or step.
	Name string `yaml:"name" kind:"ruleName"`
	// What happens with a command that matches.
	Effect   string   `yaml:"effect" enum:"allow|deny|require_approval"`
	Match    Match    `yaml:"match" empty:"no"`
	Approval Approval `yaml:"approval" empty:"no"` // zero unless the effect is RequireApproval

	// Line is where the rule begins in Config.File.
	Line int `yaml:"-"`
}

// Match holds the conditions of a rule. Those that are given must all hold.
type Match struct {
	// Patterns of the host's name.
	Hosts []string `yaml:"hosts" kind:"pattern" empty:"no"`
	// Label of the host → pattern of its value; all must hold.
	Labels map[string]string `yaml:"labels" empty:"no"`
	// Patterns of the name of who asks.
	Principals []string `yaml:"principals" kind:"pattern" empty:"no"`
	// Who asks holds one of these roles.
	Roles []string `yaml:"roles" enum:"viewer|operator|approver|admin" empty:"no"`
	// Doors through which it is asked.
	Origins []string `yaml:"origins" enum:"grpc|rest|websocket|mcp|cli|web" empty:"no"`
	// Patterns of the program's name or path.
	Programs []string `yaml:"programs" kind:"pattern" empty:"no"`
	// Patterns of whole commands, one for every word.
	Commands []string `yaml:"commands" kind:"pattern" empty:"no"`
	// Patterns of the program's arguments, and of files read by redirection.
	Args []string `yaml:"args" kind:"pattern" empty:"no"`
	// Patterns of files written by redirection.
	Writes []string `yaml:"writes" kind:"pattern" empty:"no"`
	// Patterns of variables set that may change what programs do.
	Variables []string `yaml:"variables" kind:"pattern" empty:"no"`
	// Names out of policy.action_types, one of which the caller has given.
	ActionTypes []string `yaml:"action_types" kind:"pattern" empty:"no"`
}

// Approval says whose approval is asked for.
type Approval struct {
	// How many people must approve.
	Count int `yaml:"count" default:"1" min:"1" max:"100"`
	// One of these roles each of them holds.
	Roles []string `yaml:"roles" enum:"viewer|operator|approver|admin" empty:"no" auto:"approver"`
	// How long it is waited for; then the command is refused.
	Timeout time.Duration `yaml:"timeout" default:"1h" min:"1s" max:"365d"`
	// Whether who asks may approve too.
	AllowSelf bool `yaml:"allow_self" enum:"false|true" default:"false"`
}

func (a *Approval) complete() {
	if len(a.Roles) == 0 {
		a.Roles = []string{"approver"}
	}
}

// policy checks the rules and gives them their lines.
func (l *loader) policy() {
	p := &l.cfg.Policy
	// Not a problem as it is in a rule: whoever sets TELEXEC_POLICY_DEFAULT=deny in
	// haste must not be stopped by what the file says about another default.
	if p.Default == RequireApproval {
		p.DefaultApproval.complete()
	} else {
		p.DefaultApproval = Approval{}
	}
	first := make(map[string]string)
	for i := range p.Rules {
		r, key := &p.Rules[i], fmt.Sprintf("policy.rules[%d]", i)
		r.Line = l.from[key].line
		l.unique(first, r.Name, key, "rule")
		l.needed(key, "effect", r.Effect != "")
		if r.Effect == RequireApproval {
			r.Approval.complete()
			continue
		}
		r.Approval = Approval{}
		if at, set := l.from[key+".approval"]; set && r.Effect != "" {
			l.problem(at, key+".approval", "is only for rules with effect: %s; leave it out or change the effect", RequireApproval)
		}
	}
}
