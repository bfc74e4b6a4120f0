package engine

import (
	"bytes"
	"context"
	"slices"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
)

// A step of a task is a command like any other, but for two things. The task may want it
// approved where no rule does. And people decide once about a step: what they have
// approved on its first host, with the line that takes it back, is approved for its other
// hosts, when it is tried again, and when it is taken back.

// gateStep makes of what the rules say about a step what holds for it.
func (e *Engine) gateStep(ctx context.Context, spec *command.Spec, host inventory.Host, said *policy.Decision) error {
	if err := e.place(spec, host); err != nil {
		return err
	}
	t := spec.Task
	if said.Effect == policy.Allow && t.Gate > 0 {
		gate := policy.DefaultGate()
		gate.Timeout = t.Gate
		said.Effect, said.Rule, said.Gate = policy.RequireApproval, policy.RuleStep, gate
	}
	if said.Effect != policy.RequireApproval || t.Under == "" {
		return nil
	}
	covered, err := e.covered(ctx, spec, host, said)
	if covered {
		said.Effect = policy.Allow
	}
	return err
}

// place notes where the hosts are that people decide about: what they approve is for these
// places, and not for whatever has the name later.
func (e *Engine) place(spec *command.Spec, host inventory.Host) error {
	if len(spec.Task.Hosts) == 0 {
		return nil
	}
	t := *spec.Task
	t.Hosts, t.Places = slices.Clone(t.Hosts), nil
	if spec.SessionID != "" {
		t.Hosts = []string{host.Name}
	}
	for _, name := range t.Hosts {
		at, err := e.hosts.Lookup(name)
		if err != nil {
			return err
		}
		t.Places = append(t.Places, command.Quote(whereabouts(at)...))
	}
	spec.Task = &t
	return nil
}

// covered reports whether the approval that a step names is for it too: by the same
// rule, which asks for no more by now, or where the task alone asks by any; of the same step
// of the same task, and about the same line, or the one that takes it back.
func (e *Engine) covered(ctx context.Context, spec *command.Spec, host inventory.Host, said *policy.Decision) (bool, error) {
	t := spec.Task
	gate, err := e.gateOf(ctx, t.Under)
	if fault.KindOf(err) == fault.NotFound {
		return false, nil // it needed none
	}
	if err != nil {
		return false, err
	}
	lead, err := e.get(ctx, t.Under)
	if err != nil {
		return false, err
	}
	was := lead.Spec.Task
	if gate.State != approval.Approved || said.Rule != policy.RuleStep && !asksAsMuch(gate, said) || was == nil || was.ID != t.ID || was.Step != t.Step || !slices.Contains(was.Places, command.Quote(whereabouts(host)...)) {
		return false, nil
	}
	if t.Undoes {
		return was.Undo != "" && spec.Line == was.Undo && len(spec.Argv) == 0, nil
	}
	return bytes.Equal(withoutPlace(lead.Spec), withoutPlace(*spec)), nil
}

// asksAsMuch reports whether an approval was asked for by the rule that asks now, and as
// much.
func asksAsMuch(gate approval.Approval, said *policy.Decision) bool {
	roles := func(list []string) []string { return slices.Sorted(slices.Values(list)) }
	return gate.Rule == said.Rule && gate.Count >= said.Gate.Count && slices.Equal(roles(gate.Roles), roles(said.Gate.Roles))
}

// withoutPlace is the hash of what a step does, wherever it does it.
func withoutPlace(s command.Spec) []byte {
	s.Host, s.Task = "", nil
	return s.ContentHash()
}

// Judge tells why a command would be refused now, which is not stored; nil where it would
// run, or wait for people. A session that is not there yet is none of the reasons.
func (e *Engine) Judge(ctx context.Context, by access.Caller, spec command.Spec) error {
	if err := e.rights.May(by, access.Start, access.Thing{Owner: by.Name, Host: spec.Host}); err != nil {
		return err
	}
	if spec.Session != "" {
		switch err := e.placeIn(ctx, by, &spec); fault.ReasonOf(err) {
		case "":
		case fault.ReasonUnknownSession, fault.ReasonSessionEnded, fault.ReasonAccessDenied: // of which the last is said of one that is not there, too
			return nil
		default:
			return err
		}
	}
	host, err := e.hosts.Lookup(spec.Host)
	if err == nil {
		_, err = e.judge(by, &spec, host)
	}
	return err
}
