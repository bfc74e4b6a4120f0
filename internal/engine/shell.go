package engine

import (
	"context"
	"strings"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
)

// posix are the shells whose lines the rules can read.
var posix = map[string]bool{"bash": true, "dash": true, "ash": true, "ksh": true, "mksh": true, "sh": true}

// inShell fills in what the rules are to know of a command in a session: somebody may
// type to it, nobody knows in which directory it runs, and its line is for the
// session's shell, or for whatever is there where that is none.
func (e *Engine) inShell(r *policy.Request, spec *command.Spec) {
	r.Input, r.Directory, r.LoginShell, r.RawShell = true, "~", false, false
	s, err := e.sessions.Find(spec.SessionID)
	switch {
	case err != nil:
		r.LoginShell = true
	case s.Shell == "", s.Completion != command.ByMark: // no shell, or what was started in it (ssh, su) is not known
		r.RawShell = true
	default:
		r.LoginShell = !posix[s.Shell] || recalls(spec.Line)
	}
}

// shellKind names the kind of shell that the rules were asked about for a command in a
// session; empty for one that is in none.
func shellKind(r *policy.Request, spec *command.Spec) string {
	switch {
	case spec.SessionID == "":
		return ""
	case r.RawShell:
		return "none"
	case r.LoginShell:
		return "another"
	}
	return "posix"
}

// recalls reports whether an interactive shell may put an earlier line, or words of it,
// in the place of this one, or of a part of it: for a "!", or for a "^" at the beginning.
func recalls(line string) bool {
	for one := range strings.SplitSeq(line, "\n") {
		if strings.HasPrefix(strings.TrimLeft(one, " \t\r"), "^") {
			return true
		}
	}
	for {
		_, rest, found := strings.Cut(line, "!")
		if !found {
			return false
		}
		if line = rest; line != "" && !strings.ContainsRune(" \t\r\n=", rune(line[0])) {
			return true
		}
	}
}

// stillFits is why a command may not be typed in its session any more; nil where it may.
// It was judged for what had the terminal then. Where another kind of shell reads there
// now, the rules are asked again, and an approval is void. was is what this run of the
// service has asked them; nil where an earlier one did.
func (e *Engine) stillFits(c *command.Command, was *policy.Request, host inventory.Host) error {
	spec := &c.Spec
	if _, err := e.sessions.Find(spec.SessionID); err != nil {
		return nil // Start tells why
	}
	now := e.request(access.Caller{Principal: access.Principal{Name: c.CreatedBy.Principal}, Origin: c.CreatedBy.Origin}, spec, host)
	var said policy.Decision
	switch {
	case was != nil && shellKind(was, spec) == shellKind(&now, spec):
		return nil
	case was != nil && c.Gated:
		return fault.New(fault.FailedPrecondition, fault.ReasonApprovalVoid, "what reads in the session %s now is not the shell for which the command was approved", spec.Session).
			WithHint("Look what runs there, and run it again")
	case was != nil:
		now.Roles = was.Roles
		said = e.ask(now)
	default: // by an earlier run, of which nothing but the line is known
		said = e.askForAnybody(now)
	}
	switch said.Effect {
	case policy.Allow:
		return nil
	case policy.RequireApproval:
		return fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "what reads in the session %s now may not be what the command was judged for, and there it needs an approval: %s", spec.Session, said.Reason).
			WithHint("Look what runs there, and run it again: it then waits for the approval").With("rule", said.Rule)
	}
	return fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "what reads in the session %s now may not be what the command was judged for, and the policy refuses it there: %s", spec.Session, said.Reason).
		WithHint("Look what runs there, and run it again when that has ended, or as plain words that mean the same in every shell").With("rule", said.Rule)
}

// askForAnybody asks the rules about a command that they have let pass once, when
// nobody knows any more for which shell, and what roles its principal had. What the
// rules can read means the same in every shell; else it must be allowed to whoever asks.
func (e *Engine) askForAnybody(r policy.Request) policy.Decision {
	said := e.ask(r)
	if !r.LoginShell && !r.RawShell || said.Parsed {
		return policy.Decision{Effect: policy.Allow, Rule: said.Rule}
	}
	for held := range 1 << len(access.Roles) {
		r.Roles = nil
		for i, role := range access.Roles {
			if held>>i&1 != 0 {
				r.Roles = append(r.Roles, string(role))
			}
		}
		if said = e.ask(r); said.Effect != policy.Allow {
			break
		}
	}
	return said
}

// unfit reports whether err is one of stillFits.
func unfit(err error) bool {
	reason := fault.ReasonOf(err)
	return reason == fault.ReasonPolicyDenied || reason == fault.ReasonApprovalVoid
}

// refuse ends a command that has its slot as the rules refuse it. Nothing of it was
// typed.
func (l *live) refuse(ctx context.Context, err error) {
	l.unclaim(ctx) // what was STARTING is not REJECTED
	l.end(ctx, command.Reject, failed(err))
}
