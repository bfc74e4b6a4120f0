package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/policy"
)

// Judge tells what the rules would say.
type Judge interface {
	// Explain asks the rules about a command as somebody would ask for it.
	Explain(by, as access.Caller, spec command.Spec) (policy.Decision, error)
}

// Policy answers for PolicyService.
type Policy struct {
	telexecv1.UnsafePolicyServiceServer

	judge Judge
}

// NewPolicy makes the service.
func NewPolicy(j Judge) *Policy { return &Policy{judge: j} }

// ExplainPolicy is of PolicyService.
func (p *Policy) ExplainPolicy(ctx context.Context, r *telexecv1.ExplainPolicyRequest) (*telexecv1.ExplainPolicyResponse, error) {
	by := caller(ctx)
	as := by
	as.Name = cmp.Or(r.GetPrincipal(), by.Name)
	as.Origin = cmp.Or(originFromProto(r.GetOrigin()), by.Origin)
	if len(r.GetRoles()) > 0 {
		as.Roles = nil
		for _, name := range r.GetRoles() {
			role := access.Role(name)
			if !slices.Contains(access.Roles, role) {
				// It would match no rule, and the answer would look like one.
				all := strings.Join(access.Principal{Roles: access.Roles}.RoleNames(), ", ")
				return nil, invalid("roles", fmt.Sprintf("there is no role %q; the roles are %s", name, all), "there is no role %q; the roles are %s", name, all)
			}
			as.Roles = append(as.Roles, role)
		}
	}
	spec := command.Spec{
		Host: r.GetHost(), Line: r.GetCommand(), Argv: r.GetArgv(), Env: map[string]string{},
		Sudo: sudoFromProto(r.GetSudo()), LoginShell: r.GetLoginShell(), ActionType: r.GetActionType(),
		WorkingDirectory: r.GetWorkingDirectory(),
	}
	for _, name := range r.GetEnvNames() {
		spec.Env[name] = ""
	}
	said, err := p.judge.Explain(by, as, spec)
	if err != nil {
		return nil, err
	}
	return decisionToProto(said), nil
}
