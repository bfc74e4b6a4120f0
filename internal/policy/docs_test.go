package policy_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	. "github.com/telexec/telexec/internal/policy"
)

// page is the configuration as docs/policy.md writes it. Reading it for the
// service is another room's work; here it is only to hold the page to its word.
type page struct {
	Policy struct {
		Default     Effect
		ActionTypes map[string][]string `yaml:"action_types"`
		Rules       []struct {
			Name   string
			Effect Effect
			Match  struct {
				Hosts, Principals, Roles, Origins, Programs, Commands, Args, Writes, Variables []string

				Labels      map[string]string
				ActionTypes []string `yaml:"action_types"`
			}
			Approval struct {
				Count   int
				Roles   []string
				Timeout time.Duration
			}
		}
	}
}

func (p *page) rules() Rules {
	rules := Rules{Default: p.Policy.Default, ActionTypes: p.Policy.ActionTypes}
	for _, r := range p.Policy.Rules {
		m := r.Match
		rules.Rules = append(rules.Rules, Rule{Name: r.Name, Effect: r.Effect, Approval: Gate{Count: r.Approval.Count, Roles: r.Approval.Roles, Timeout: r.Approval.Timeout},
			Match: Match{Hosts: m.Hosts, Labels: m.Labels, Principals: m.Principals, Roles: m.Roles, Origins: m.Origins, Programs: m.Programs,
				Commands: m.Commands, Args: m.Args, Writes: m.Writes, Variables: m.Variables, ActionTypes: m.ActionTypes}})
	}
	return rules
}

var (
	block = regexp.MustCompile("(?s)```yaml\n(.*?)```\n(.*?)(?:```yaml|$)")
	row   = regexp.MustCompile("(?m)^\\|(?: ([a-z_]*) ?\\|)? `(.*)` \\| (allow|deny|require_approval) \\| (\\S+) \\|$")
)

// Every block of docs/policy.md loads, and every table below one tells what its
// rules decide.
func TestTheGuideIsTrue(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks, rows := 0, 0
	for rest := string(text); ; {
		at := block.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		config, below := rest[at[2]:at[3]], rest[at[4]:at[5]]
		rest = rest[at[5]:]
		var p page
		if err := yaml.UnmarshalWithOptions([]byte(config), &p, yaml.Strict()); err != nil {
			t.Fatalf("%s\n%v", config, err)
		}
		pol := newPolicy(t, p.rules())
		blocks++
		for _, r := range row.FindAllStringSubmatch(below, -1) {
			rows++
			expect{Request{ActionType: r[1], Line: strings.ReplaceAll(r[2], `\|`, "|")}, Effect(r[3]), r[4]}.check(t, pol)
		}
	}
	if blocks < 6 || rows < 40 {
		t.Errorf("found %d blocks and %d rows only", blocks, rows)
	}
}
