package mcptool

import (
	"fmt"
	"strings"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// What a rule wants approved waits for people. This file is what the model is told
// of that, and what it is to tell the person it works for: it can decide nothing,
// for there is no tool that does. elicit.go asks the person directly, where that is
// allowed.

// approvalFacts is what a command waits for that a rule wants approved.
type approvalFacts struct {
	Rule       string   `json:"rule" jsonschema:"the rule that wants it"`
	Required   int32    `json:"required_approvals" jsonschema:"how many people must approve"`
	Approvals  int32    `json:"approvals" jsonschema:"how many have"`
	Roles      []string `json:"roles" jsonschema:"who may: people with any of these roles"`
	ExpireTime string   `json:"expire_time,omitempty" jsonschema:"until when it waits; then it never runs"`
	How        string   `json:"how" jsonschema:"how a person decides; you cannot"`
}

// awaits reports whether a command waits for approval.
func awaits(c *telexecv1.Command) bool {
	return c.GetState() == telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL
}

func approvalOf(c *telexecv1.Command) *approvalFacts {
	if !awaits(c) {
		return nil
	}
	w := c.GetAwaitedApproval()
	return &approvalFacts{
		Rule: c.GetPolicyRule(), Required: w.GetRequiredApprovals(), Approvals: w.GetApprovals(),
		Roles: append([]string{}, w.GetRoles()...), ExpireTime: clock(w.GetExpireTime()),
		How: howToDecide(c.GetId()),
	}
}

// howToDecide is how a person decides about an approval.
func howToDecide(id string) string {
	return fmt.Sprintf("`telexec approvals show %s` shows it, `telexec approve %s` approves, `telexec reject %s --reason TEXT` rejects", id, id, id)
}

// whoWants names the rule that wants a command approved. The service calls what
// holds where no rule matches "default", and what a plan says itself "step".
func whoWants(rule string) string {
	switch rule {
	case "", "default":
		return "the policy"
	case "step":
		return "the plan"
	}
	return fmt.Sprintf("the rule %q", rule)
}

// sentence says what is waited for, and how a person decides.
func (f *approvalFacts) sentence() string {
	var b strings.Builder
	who := whoWants(f.Rule)
	fmt.Fprintf(&b, "%s wants it approved before it runs: %d of %s", strings.ToUpper(who[:1])+who[1:], f.Approvals, count(int64(f.Required), "approval"))
	if len(f.Roles) > 0 {
		fmt.Fprintf(&b, " so far, which the role %s can give", strings.Join(f.Roles, " or "))
	}
	if f.ExpireTime != "" {
		fmt.Fprintf(&b, ". It waits until %s, and never runs if nobody has decided by then", f.ExpireTime)
	}
	return b.String() + ".\nHow people decide: " + f.How + "."
}

// noWayAround ends what is told of a refusal.
const noWayAround = "do not try to get around it with another command"

// nextApproval says what the model should do about a command that waits for approval.
func (a *adapter) nextApproval(id string) string {
	said := "It has not run, and you cannot approve it. Tell the person you work for that it waits, who may approve it, until when and how."
	if a.offers(observe, false) {
		said += fmt.Sprintf(" Then wait for the decision: get_command_status {\"command_id\": %q, \"wait_seconds\": 50}.", id)
	}
	said += " Do not run it again, and " + noWayAround + "."
	if a.offers(control, true) {
		said += " To withdraw it: cancel_command."
	}
	return said
}

// Reasons of commands that people or rules have refused.
const (
	reasonPolicyDenied    = "POLICY_DENIED"
	reasonRejected        = "REJECTED"
	reasonApprovalExpired = "APPROVAL_EXPIRED"
	reasonApprovalVoid    = "APPROVAL_VOID"
)

// refusals are what to do about them, in place of what the service says: its hints
// are for people, who may well run it again or ask somebody.
var refusals = map[string]string{
	reasonPolicyDenied: "Tell the person that the rules do not allow it (`telexec policy explain` tells them more); " + noWayAround,
	reasonRejected:     "Tell the person, with the reason; do not run it again unless they say so, and " + noWayAround,
	reasonApprovalExpired: "Tell the person that nobody approved it in time; run it again only if they say so, for then it waits again, and " +
		noWayAround,
	reasonApprovalVoid: "Tell the person that it did not run, because it is not any more what was approved; run it again only if they say so, for then it has to be approved again, and " +
		noWayAround,
}
