// Package policy decides whether a command may run: rules over a parsed shell
// command give allow, deny or require_approval, with the rule's name and a
// reason for people.
//
//	p, err := policy.New(rules)      // every mistake of all rules at once
//	d := p.Decide(request)           // pure: no I/O, no clock
//
// A command line is taken apart into its simple commands, through pipes,
// lists, substitutions, sh -c, env, sudo, xargs, find -exec and their like:
//
//	line ──parse (read.go)──▶ raw commands ──see through (see.go)──▶ simple
//	commands ──each: the first rule that matches (decide.go)──▶ the strictest
//
// read.go parses the line as POSIX, bash, mksh and zsh would and takes it only
// where all four find the same commands. Only constructs that are fully
// understood are seen through; whatever is left is unknown, and that is the
// idea of the room: not to list what is dangerous, but what is understood.
//
// Three rules of thumb follow from that:
//
//   - What is unknown never matches an allow rule with a condition on the
//     command (Programs, Commands, Args, Writes, Variables, ActionTypes).
//   - An allow rule without such a condition ("admins may do anything on dev*")
//     says nothing about the command, and so allows whatever the text is, even
//     one that cannot be parsed.
//   - A restricting rule (deny, require_approval) may be meant for what is
//     unknown. Such a command gets the strictest of all that it could get, so
//     that $(echo rm) does not slip past a rule that denies rm.
//
// A Policy is immutable and safe for concurrent use. The room is past 1,500
// lines because one thought cannot be cut: what a shell does with a text, and
// what well-known programs do with their arguments.
package policy

import (
	"time"
)

// Effect is what a rule does.
type Effect string

// The effects, from the mildest to the strictest.
const (
	Allow           Effect = "allow"
	RequireApproval Effect = "require_approval"
	Deny            Effect = "deny"
)

// strictness orders effects.
func (e Effect) strictness() int {
	switch e {
	case Allow:
		return 0
	case RequireApproval:
		return 1
	}
	return 2
}

// The zero Gate means these.
const (
	DefaultApprovers = 1
	DefaultTimeout   = time.Hour
	DefaultRole      = "approver"
)

// Gate says whose approval is needed.
type Gate struct {
	Count     int           // how many people; 0: one
	Roles     []string      // one of these roles each; none: approver
	Timeout   time.Duration // then it is refused; 0: one hour
	AllowSelf bool          // who asks may approve too
}

func (g Gate) isZero() bool {
	return g.Count == 0 && len(g.Roles) == 0 && g.Timeout == 0 && !g.AllowSelf
}

// DefaultGate is the gate of a rule that says no more than that there is one.
func DefaultGate() Gate { return Gate{}.filled() }

func (g Gate) filled() Gate {
	if g.Count == 0 {
		g.Count = DefaultApprovers
	}
	if len(g.Roles) == 0 {
		g.Roles = []string{DefaultRole}
	}
	if g.Timeout == 0 {
		g.Timeout = DefaultTimeout
	}
	return g
}

// Match is the conditions of a rule: those that are given must all hold, and
// of the entries of one condition, one. In patterns * stands for any text and ?
// for one character; in paths both stop at a slash, and ** does not.
type Match struct {
	Hosts      []string          // patterns of the host's name
	Labels     map[string]string // label → pattern of its value; all must hold
	Principals []string          // patterns of who asks
	Roles      []string          // of who asks
	Origins    []string          // doors: grpc, rest, websocket, mcp, cli, web

	// Programs are patterns of the program's name. One without a slash means the
	// plain name, or that name in /bin, /usr/bin, /sbin, /usr/sbin,
	// /usr/local/bin or /usr/local/sbin; one with a slash the literal path.
	Programs []string
	// Commands are whole commands, a pattern for every word: "apt upgrade -y". A
	// last word that is * alone stands for any further words, none included.
	Commands []string
	// Args are patterns of arguments and of files that are read by redirection.
	// Every argument must match one; for a deny rule one argument is enough. Of a
	// rule that restricts, paths here and in Programs, Commands and Writes mean the
	// files also by another path, as far as the line tells.
	Args []string
	// Writes are patterns of files written by redirection: of an allow rule those
	// that it lets pass, of others a condition (at least one is written).
	Writes []string
	// Variables are patterns of variables set that may change what programs do
	// (PATH, LD_PRELOAD, …), used as Writes are.
	Variables []string
	// ActionTypes are names of Rules.ActionTypes: the request names one of them,
	// and the command is one of that type's.
	ActionTypes []string
}

// onCommand reports whether there is a condition on the command.
func (m *Match) onCommand() bool {
	return len(m.Programs)+len(m.Commands)+len(m.Args)+len(m.Writes)+len(m.Variables)+len(m.ActionTypes) > 0
}

// empty reports whether there is no condition at all.
func (m *Match) empty() bool {
	return !m.onCommand() && len(m.Hosts)+len(m.Labels)+len(m.Principals)+len(m.Roles)+len(m.Origins) == 0
}

// Rule is one rule of the configuration.
type Rule struct {
	Name     string // unique; told to callers and kept in the audit
	Effect   Effect
	Match    Match
	Approval Gate // of RequireApproval only
	Line     int  // of the configuration, for errors; 0: unknown
}

// Rules is the policy as configured.
type Rules struct {
	Default         Effect // what no rule matches
	DefaultApproval Gate   // of a Default of RequireApproval
	Rules           []Rule // the first that matches a simple command decides it
	// ActionTypes names sets of commands, in the form of Match.Commands.
	ActionTypes map[string][]string
}

// Request is what somebody asks to run. Either Line or Argv is set.
type Request struct {
	Host       string
	Labels     map[string]string // of the host
	Principal  string
	Roles      []string
	Origin     string
	ActionType string   // a label of the caller, or a name of Rules.ActionTypes
	Line       string   // a line for a shell
	Argv       []string // the words of one simple command, taken as they are
	EnvNames   []string // the variables that the request sets; not their values
	Directory  string   // where it is to run, if the request says so: relative paths of rules then mean nothing
	Input      bool     // it has a standard input, now or later
	Sudo       bool     // by sudo, as SudoUser ("" is root)
	SudoUser   string
	LoginShell bool // the user's own shell reads the line, and nobody knows which that is
	RawShell   bool // no POSIX shell there: the line goes out as it is
}

// Names of what decides besides rules; no rule may be named so.
const (
	RuleDefault     = "default"      // no rule matched
	RuleActionTypes = "action_types" // the request named an action type that has not this command
	RuleStep        = "step"         // a task wants the step approved, whatever the rules say
)

// Decision is what is to be done with a request, and why.
type Decision struct {
	Effect   Effect
	Rule     string   // the name of the rule that decided, or one of those above
	Gate     Gate     // of RequireApproval, with its defaults filled in
	Reason   string   // one or two sentences for people: which command and why, and what to do where something can be done
	Commands []Judged // every simple command, in the order of the text
	Parsed   bool     // the text could be taken apart
	Why      string   // why it could not, as the rest of a sentence about the line: "is read differently …"
}

// Judged is a simple command and what was decided about it.
type Judged struct {
	Words     []string // without quotes; a word computed at run time is as it was written
	Writes    []string // files written by redirection
	Reads     []string // files read by redirection
	Variables []string // variables set for it that may change what it does
	Unknown   string   // what is unknown about it, for people; empty: nothing
	Effect    Effect
	Rule      string
}
