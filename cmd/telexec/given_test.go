package main

import (
	"slices"
	"strings"
	"testing"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// Every flag of every command refuses an empty value, however it is written, but
// for the two where it means something.
func TestEmptyValueOfAFlag(t *testing.T) {
	var c cli
	parser, err := newParser(Env{}, &c)
	if err != nil {
		t.Fatal(err)
	}
	var allowed []string
	seen := 0
	for _, node := range append(parser.Model.Leaves(false), parser.Model.Node) {
		words := strings.Fields(pathOf(node))[1:]
		for _, f := range node.Flags {
			if f.IsBool() {
				continue
			}
			seen++
			if f.Tag.Has("allowempty") {
				allowed = append(allowed, strings.Join(append(words, "--"+f.Name), " "))
				continue
			}
			forms := [][]string{{"--" + f.Name, ""}, {"--" + f.Name + "="}}
			if f.Short != 0 {
				forms = append(forms, []string{"-" + string(f.Short), ""})
			}
			for _, form := range forms {
				i := &invocation{env: map[string]string{"TELEXEC_SERVER": nowhere}}
				code := i.run(t.Context(), append(slices.Clone(words), form...)...)
				if want := "telexec: --" + f.Name + " is empty\n  "; code != 125 || !strings.HasPrefix(i.stderr.String(), want) || i.stdout.Len() > 0 {
					t.Errorf("%s %q: exit code %d, %s%s", pathOf(node), form, code, i.stdout.String(), i.stderr.String())
				}
			}
		}
	}
	if want := []string{"cancel --reason", "history --page-token", "session close --reason", "task ls --page-token", "task cancel --reason"}; !slices.Equal(allowed, want) {
		t.Errorf("empty may be %q, want %q", allowed, want)
	}
	if seen < 40 {
		t.Errorf("only %d flags were looked at", seen)
	}
}

// Nothing is asked of the service where a value is missing; a variable of the
// environment that is empty is not set, and an empty value within one is meant.
func TestEmptyValueAsksNothing(t *testing.T) {
	for _, args := range [][]string{
		{"approve", "--yes", "--request-hash", "", someID},
		{"approve", "--yes", "--modify", "", someID},
		{"approve", "--yes", "--modify=", someID},
		{"reject", "--reason", "", someID},
		{"token", "create", "ci", "--role", "viewer", "--expires", ""},
		{"token", "create", "ci", "--role", ""},
		{"audit", "verify", "--from", ""},
		{"audit", "verify", "--file", ""},
		{"audit", "--principal", ""},
		{"audit", "--command="},
		{"audit", "--kind", ""},
		{"audit", "list", "--kind", "refused", "--kind", ""},
		{"policy", "test", "--as", "", "web1", "ls"},
		{"policy", "test", "--sudo-user", "", "web1", "ls"},
		{"-s", "", "ps"},
		{"ps", "--host", ""},
		{"run", "-C", "", "web1", "rm -r *"},
		{"history", "--label", "", "--label", "a=b"},
	} {
		d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade")}}
		i := d.sit(t)
		i.want(t, i.run(t.Context(), args...), 125, []string{"!intact"}, []string{" is empty\n", "$(…)"})
		if len(d.requests) > 0 {
			t.Errorf("%q asked %v", args, d.requests)
		}
	}
	s := &scripted{list: []*telexecv1.Command{durableCommand(1, connected)}, cancel: &telexecv1.CancelResponse{
		Command: completed(2), Report: &telexecv1.CancelReport{Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE},
	}}
	for _, args := range [][]string{
		{"cancel", "--reason", "", someID}, {"history", "--page-token", ""}, {"history", "--label", "a="},
	} {
		i := s.start(t)
		i.env["TELEXEC_CA_FILE"] = ""
		i.want(t, i.run(t.Context(), args...), 0, nil, nil)
	}
}
