package engine

import (
	"context"
	"crypto/sha256"
	"strconv"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
)

// Who may do what is decided here and in decide.go, for every door alike: the
// caller's roles and whose the command is (package access), and what the rules say
// of a new one (package policy).

// SetPolicy puts rules in force for what is asked for from now on; nil allows
// everything. What waits for approval goes on waiting as it was asked to.
func (e *Engine) SetPolicy(p *policy.Policy) { e.policy.Store(p) }

// judgement is what the rules say, and of what.
type judgement struct {
	policy.Decision
	asked policy.Request
}

// judge asks the rules about a new command. POLICY_DENIED where they refuse it.
func (e *Engine) judge(by access.Caller, spec *command.Spec, host inventory.Host) (said judgement, err error) {
	// A stranger's text goes through much code here.
	err = e.guard("judge", "request", by.Call, func() error {
		said.asked = e.request(by, spec, host)
		said.Decision = e.ask(said.asked)
		return nil
	})
	if err == nil && said.Effect == policy.Deny {
		err = denied(said.Decision, host.Name)
	}
	return said, err
}

func (e *Engine) ask(r policy.Request) policy.Decision {
	if p := e.policy.Load(); p != nil {
		return p.Decide(r)
	}
	return policy.Decision{Effect: policy.Allow, Rule: policy.RuleDefault}
}

func denied(said policy.Decision, host string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "the policy refuses the command: %s", said.Reason).
		WithHint("telexec policy explain shows what the rules say of each command in it; whoever runs the service can change them").
		With("rule", said.Rule).With("decision", string(said.Effect)).With("host", host)
}

// request is what the rules are asked.
func (e *Engine) request(by access.Caller, spec *command.Spec, host inventory.Host) policy.Request {
	r := policy.Request{
		Host: host.Name, Labels: host.Labels,
		Principal: by.Name, Roles: by.RoleNames(), Origin: string(by.Origin),
		ActionType: spec.ActionType, Line: spec.Line, Argv: spec.Argv, EnvNames: spec.EnvNames(),
		Directory: spec.WorkingDirectory, Input: len(spec.Stdin) > 0 || spec.StdinOpen || spec.Pty != nil,
		LoginShell: spec.LoginShell, RawShell: host.NoShell,
	}
	if spec.Sudo != nil {
		r.Sudo, r.SudoUser = true, spec.Sudo.User
	}
	if spec.SessionID != "" {
		e.inShell(&r, spec)
	}
	return r
}

// Explain tells what the rules say of a command without running it. The caller may
// ask for itself; for others (as) only an admin may.
func (e *Engine) Explain(by, as access.Caller, spec command.Spec) (policy.Decision, error) {
	action := access.Look
	if as.Name != by.Name || !sameRoles(as, by) {
		action = access.Administer
	}
	if err := e.rights.May(by, action, access.Thing{Owner: by.Name}); err != nil {
		return policy.Decision{}, err
	}
	host, err := e.hosts.Lookup(spec.Host)
	if err != nil {
		return policy.Decision{}, err
	}
	return e.ask(e.request(as, &spec, host)), nil
}

func sameRoles(a, b access.Caller) bool {
	for _, r := range a.Roles {
		if !b.Has(r) {
			return false
		}
	}
	return len(a.Roles) == len(b.Roles)
}

// boundHash is what an approval is bound to: the SHA-256 of everything that was
// asked for (its ContentHash) and of where it goes: address, login user and shell of
// the host, the name that its key is known by, and the jump hosts on the way; in a
// session also the kind of shell there (shellKind).
func boundHash(content []byte, host inventory.Host, kind string) []byte {
	h := sha256.New()
	h.Write(content)
	where := whereabouts(host)
	if kind != "" {
		where = append(where, kind)
	}
	sum := sha256.Sum256([]byte(command.Quote(where...))) // quoted, so that no two tell the same
	h.Write(sum[:])
	return h.Sum(nil)
}

// whereabouts are all that tells where a command on a host goes.
func whereabouts(host inventory.Host) []string {
	where := []string{host.Name, host.Address, host.User, host.HostKeyAlias, strconv.FormatBool(host.NoShell)}
	for _, via := range host.Via {
		where = append(where, via.Address, via.User, via.HostKeyAlias)
	}
	return where
}

// shown gives why the caller may not do that with a command that get has given,
// with the error of get. Where the caller would not be told whether there is one,
// it is not told that there is none.
func (e *Engine) shown(ctx context.Context, by access.Caller, a access.Action, id string, s Snapshot, err error) error {
	if err != nil {
		if fault.ReasonOf(err) != fault.ReasonUnknownCommand {
			return err
		}
		if refused := e.rights.May(by, a, access.Thing{What: "command", ID: id}); refused != nil {
			return refused
		}
		return err // an administrator may know
	}
	thing := access.Thing{What: "command", ID: id, Owner: s.CreatedBy.Principal, Host: s.Spec.Host, Labels: e.labels(s.Spec.Host)}
	refused := e.rights.May(by, a, thing)
	if refused != nil && s.Spec.SessionOwner == by.Name {
		thing.Owner = s.Spec.SessionOwner // whoever runs it, it is in the caller's session
		refused = e.rights.May(by, a, thing)
	}
	if refused != nil && a == access.Look && s.Gated && e.decides(ctx, by, id) {
		return nil // an approver sees what there is to decide, and what came of it
	}
	return refused
}

// decides reports whether the caller is of those who decide about a command.
func (e *Engine) decides(ctx context.Context, by access.Caller, id string) bool {
	gate, err := e.gateOf(ctx, id)
	if err != nil {
		return false
	}
	for _, role := range gate.Roles {
		if by.Has(access.Role(role)) {
			return true
		}
	}
	return false
}

// labels gives a host's labels; none where it is not configured any more.
func (e *Engine) labels(host string) map[string]string {
	h, err := e.hosts.Lookup(host)
	if err != nil {
		return nil
	}
	return h.Labels
}

// visible bounds a list to what the caller may see; nil where that is everything.
func (e *Engine) visible(by access.Caller) *command.Visible {
	if e.rights.SeesAll(by) {
		return nil
	}
	return &command.Visible{Principal: by.Name, Hosts: e.rights.Hosts(by, func(yield func(string, map[string]string) bool) {
		for _, h := range e.hosts.List() {
			if !yield(h.Name, h.Labels) {
				return
			}
		}
	})}
}
