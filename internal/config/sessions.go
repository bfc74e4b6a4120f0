package config

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Sessions is about the terminals that people and agents share.
type Sessions struct {
	// Sessions that are open at once on all hosts together; one more is refused.
	MaxSessions int `yaml:"max_sessions" default:"100" min:"1" max:"10000"`
	// The same for those that one principal has opened.
	MaxPerPrincipal int `yaml:"max_per_principal" default:"20" min:"1" max:"10000"`
	// A session in which nothing has happened for so long, no output, no input, no command, is closed; 0: never. Who opens one may ask for less.
	IdleTimeout time.Duration `yaml:"idle_timeout" default:"24h"`
	// A session that has been open for so long is closed, whatever happens in it; 0: never.
	Lifetime time.Duration `yaml:"lifetime" default:"0s"`
	// Who holds one of these roles may type in the sessions it may act on; an administrator always may. No rule judges what is typed.
	TypingRoles []string `yaml:"typing_roles" enum:"viewer|operator|approver|admin" empty:"no" auto:"operator and admin; where policy has rules, or a default other than allow, admin alone"`
	// Whether the output of sessions is recorded. Recordings go with the sessions, after retention.history.
	Record bool `yaml:"record" enum:"false|true" default:"true"`
	// Bytes of one recording; what comes behind is not recorded, and the session tells from where on.
	RecordingLimit int64 `yaml:"recording_limit" kind:"size" default:"64MiB" min:"64KiB" max:"4GiB"`
	// Lines above the screen that are kept of each open session.
	Scrollback int `yaml:"scrollback" default:"10000" min:"0" max:"100000"`
	// Regular expressions (RE2) that a line with a prompt matches, for devices and shells that do not tell the ends of commands. Without any it is a line that ends in $ # > or %.
	Prompts []string `yaml:"prompts" kind:"prompt"`
}

// sessions says who may type where nothing does: without a policy whoever may run
// anything; with one, those alone whom it could not bind anyway.
func (l *loader) sessions() {
	s, p := &l.cfg.Sessions, &l.cfg.Policy
	if len(s.TypingRoles) > 0 || l.tried("sessions.typing_roles") {
		return
	}
	s.TypingRoles = []string{"operator", "admin"}
	if len(p.Rules) > 0 || p.Default != "allow" {
		s.TypingRoles = slices.Delete(s.TypingRoles, 0, 1)
	}
}

// checkPrompt wants an expression that tells a prompt from an empty line.
func checkPrompt(text string) error {
	prompt, err := regexp.Compile(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a regular expression such as '^switch[0-9]+> ?$': %w", text, err)
	case prompt.MatchString(""):
		return fmt.Errorf("%q matches an empty line too, so that every pause would be a prompt; have it match at least one character, as '^switch[0-9]+> ?$' does", text)
	}
	return nil
}
