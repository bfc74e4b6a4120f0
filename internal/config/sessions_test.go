package config_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
)

func TestSessions(t *testing.T) {
	got, err := load(t, `
sessions:
  max_sessions: 3
  max_per_principal: 2
  idle_timeout: 0
  lifetime: 7d
  typing_roles: [approver, operator]
  record: false
  recording_limit: 1MiB
  scrollback: 0
  prompts: ['^ready: ?$', "=>"]
`)
	want := config.Sessions{
		MaxSessions: 3, MaxPerPrincipal: 2, Lifetime: 7 * 24 * time.Hour, TypingRoles: []string{"approver", "operator"},
		RecordingLimit: 1 << 20, Prompts: []string{"^ready: ?$", "=>"},
	}
	if err != nil || !reflect.DeepEqual(got.Sessions, want) {
		t.Errorf("got %+v, %v\nwant %+v", got.Sessions, err, want)
	}
}

// Who may type where nothing says so depends on whether there are rules that typing
// would pass by.
func TestWhoMayType(t *testing.T) {
	for yaml, want := range map[string]string{
		"{}":                                         "operator admin",
		"policy: {default: allow}":                   "operator admin",
		"policy: {default: deny}":                    "admin",
		"policy: {default: require_approval}":        "admin",
		"policy: {rules: [{name: a, effect: deny}]}": "admin",
		"policy: {action_types: {look: [uptime]}}":   "operator admin",
		"policy: {default: deny}\nsessions: {typing_roles: [operator]}": "operator",
		"sessions: {typing_roles: admin}":                               "admin",
		"sessions: {typing_roles: }":                                    "",
		"sessions: {typing_roles: []}":                                  "",
	} {
		got, err := load(t, yaml)
		if roles := strings.Join(got.Sessions.TypingRoles, " "); roles != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", yaml, roles, err, want)
		}
	}
	// A policy that comes later says that there is something to decide anew.
	before, err := load(t, "{}")
	if err != nil {
		t.Fatal(err)
	}
	after, err := load(t, "policy: {rules: [{name: a, effect: deny}]}")
	if err != nil {
		t.Fatal(err)
	}
	if keys := strings.Join(before.Changed(after), " "); !strings.Contains(keys, "sessions.typing_roles") {
		t.Errorf("changed is %s", keys)
	}
}

func TestUnfitSessions(t *testing.T) {
	for yaml, says := range map[string]string{
		"max_sessions: 0":               `"0" is less than 1`,
		"max_per_principal: 10001":      `"10001" is more than 10000`,
		"idle_timeout: never":           `"never" is not a duration`,
		"typing_roles: [king]":          `"king" is not one of viewer, operator, approver, admin`,
		"typing_roles: []":              "is empty",
		"record: maybe":                 `"maybe" is not one of false, true`,
		"recording_limit: 1KiB":         `"1KiB" is less than 64KiB`,
		"recording_limit: 5GiB":         `"5GiB" is more than 4GiB`,
		"scrollback: -1":                `"-1" is less than 0`,
		`prompts: ["("]`:                "is not a regular expression",
		`prompts: ['(?=x)x']`:           "is not a regular expression", // no RE2
		`prompts: ['^> *$', '> ?$|^$']`: "matches an empty line too",
		`prompts: ['']`:                 "matches an empty line too",
		`prompts: {a: b}`:               "must be a regular expression",
	} {
		_, err := load(t, "sessions:\n  "+yaml+"\n")
		e := fault.From(err)
		if err == nil || e.Reason != fault.ReasonBadConfig || len(e.Fields) != 1 || !strings.Contains(e.Fields[0].Message, says) ||
			!strings.HasPrefix(e.Fields[0].Path, "sessions."+yaml[:4]) {
			t.Errorf("%s: %v %v; want %q", yaml, err, e, says)
		}
	}
}
