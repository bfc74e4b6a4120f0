package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/policy"
)

// newPolicy makes the rules of a configuration. Its error names every mistake with
// file and line.
func newPolicy(cfg config.Config) (*policy.Policy, error) {
	rules := policy.Rules{
		Default:         policy.Effect(cfg.Policy.Default),
		DefaultApproval: gate(cfg.Policy.DefaultApproval),
		ActionTypes:     cfg.Policy.ActionTypes,
	}
	for _, r := range cfg.Policy.Rules {
		m := r.Match
		rules.Rules = append(rules.Rules, policy.Rule{
			Name: r.Name, Effect: policy.Effect(r.Effect), Approval: gate(r.Approval), Line: r.Line,
			Match: policy.Match{
				Hosts: m.Hosts, Labels: m.Labels, Principals: m.Principals, Roles: m.Roles, Origins: m.Origins,
				Programs: m.Programs, Commands: m.Commands, Args: m.Args, Writes: m.Writes, Variables: m.Variables,
				ActionTypes: m.ActionTypes,
			},
		})
	}
	p, err := policy.New(rules)
	if f, ok := errors.AsType[*fault.Error](err); ok && cfg.File != "" {
		f.Message = cfg.File + ": " + strings.TrimPrefix(f.Message, cfg.File+": ")
	}
	return p, err
}

func gate(a config.Approval) policy.Gate {
	return policy.Gate{Count: a.Count, Roles: a.Roles, Timeout: a.Timeout, AllowSelf: a.AllowSelf}
}

// recorder is the audit as the program itself tells it.
type recorder interface {
	Record(ctx context.Context, told ...audit.Entry) error
}

// reloading puts new rules in force when the program is told to read its
// configuration again, and with them who may type, which no rule could judge. What
// else has changed needs a restart, and is named.
type reloading struct {
	load   func() (config.Config, error)
	use    func(*policy.Policy)
	typing func(roles ...access.Role) // says who may type in sessions, which hangs on the policy
	audit  recorder
	log    *slog.Logger
	cfg    config.Config // that is in force
}

// run reloads at every signal until ctx ends. A configuration with a mistake
// changes nothing.
func (r *reloading) run(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-hangups:
			if err := r.reload(ctx); err != nil {
				r.log.Error("the configuration was not reloaded; what was in force stays", "error", plain(err))
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *reloading) reload(ctx context.Context) error {
	cfg, err := r.load()
	if err != nil {
		return err
	}
	p, err := newPolicy(cfg)
	if err != nil {
		return err
	}
	if err := r.audit.Record(ctx, loaded(cfg)); err != nil {
		return err // rules that nobody can look up are not put in force
	}
	r.typing(roles(cfg.Sessions.TypingRoles)...)
	r.use(p)
	warn(r.log, p)
	var later []string
	for _, key := range r.cfg.Changed(cfg) {
		if key != "policy" && !strings.HasPrefix(key, "policy.") && key != "sessions.typing_roles" {
			later = append(later, key)
		}
	}
	r.cfg.Policy, r.cfg.Sessions.TypingRoles = cfg.Policy, cfg.Sessions.TypingRoles // the rest is still as it was
	r.log.Info("the policy was reloaded", "file", cfg.File, "rules", len(cfg.Policy.Rules), "default", cfg.Policy.Default,
		"typing_roles", strings.Join(cfg.Sessions.TypingRoles, ", "))
	if len(later) > 0 {
		r.log.Warn("other settings have changed as well; they need a restart", "settings", strings.Join(later, ", "))
	}
	return nil
}

// loaded tells the audit which rules are in force.
func loaded(cfg config.Config) audit.Entry {
	names := make([]string, len(cfg.Policy.Rules))
	for i, r := range cfg.Policy.Rules {
		names[i] = r.Name
	}
	return audit.Entry{
		Time: time.Now(), Kind: audit.PolicyLoaded, Subject: cfg.File,
		Detail: fmt.Sprintf("default %s, %d rules: %s", cfg.Policy.Default, len(names), strings.Join(names, ", ")),
	}
}

// warn logs what rules let through that they may not be meant to.
func warn(log *slog.Logger, p *policy.Policy) {
	for _, w := range p.Warnings() {
		log.Warn("policy: " + w)
	}
}
