package session_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
)

var update = flag.Bool("update", false, "write docs/states.md anew where it is generated")

// meaning says what each state is, for the page.
var meaning = map[session.State]string{
	session.Opening: "the service is connecting to the host and starting the shell",
	session.Open:    "the shell is there",
	session.Closing: "the shell and what runs in it are being ended",
	session.Ended:   "it is over; its end says why",
}

// The page docs/states.md shows the table that Next is, whole: the test walks every
// pair of a state and an event.
func TestStatesPage(t *testing.T) {
	const name, from, to = "../../docs/states.md", "<!-- from here on written by: go test ./internal/session -update -->\n", "<!-- up to here: sessions -->\n"
	var page strings.Builder
	page.WriteString("```mermaid\nstateDiagram-v2\n  [*] --> OPENING\n")
	for _, s := range session.States {
		for _, e := range session.Events {
			if next, ok := session.Next(s, e); ok {
				fmt.Fprintf(&page, "  %s --> %s: %s\n", s, next, e)
			}
		}
		if s == session.Ended {
			fmt.Fprintf(&page, "  %s --> [*]\n", s)
		}
	}
	page.WriteString("```\n\n| state | what it means | end |\n|---|---|:-:|\n")
	for _, s := range session.States {
		end := ""
		if s == session.Ended {
			end = "✓"
		}
		fmt.Fprintf(&page, "| `%s` | %s | %s |\n", s, meaning[s], end)
	}

	was, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := bytes.Cut(was, []byte(from))
	_, tail, ok2 := bytes.Cut(rest, []byte(to))
	if !ok1 || !ok2 {
		t.Fatalf("%s has not the lines %q and %q", name, from, to)
	}
	want := string(head) + from + page.String() + to + string(tail)
	if string(was) == want {
		return
	}
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s is not what Next says; run: go test ./internal/session -update\nwant:\n%s", name, page.String())
}

// The whole table, pair by pair: "" is refused.
func TestNext(t *testing.T) {
	for s, row := range map[session.State]map[session.Event]session.State{
		session.Opening: {session.ShellReady: session.Open, session.OpenFail: session.Ended, session.Close: session.Closing, session.ShellGone: session.Ended},
		session.Open:    {session.ShellReady: "", session.OpenFail: "", session.Close: session.Closing, session.ShellGone: session.Ended},
		session.Closing: {session.ShellReady: "", session.OpenFail: session.Ended, session.Close: "", session.ShellGone: session.Ended},
		session.Ended:   {session.ShellReady: "", session.OpenFail: "", session.Close: "", session.ShellGone: ""},
	} {
		if len(row) != len(session.Events) || meaning[s] == "" || !slices.Contains(session.States, s) {
			t.Errorf("%s: %d events, meaning %q", s, len(row), meaning[s])
		}
		for e, want := range row {
			next, ok := session.Next(s, e)
			if ok != (want != "") || ok && next != want || !ok && next != s {
				t.Errorf("%s + %s = %s, %v; want %q", s, e, next, ok, want)
			}
		}
	}
	if len(session.States) != len(meaning) {
		t.Errorf("%d states, %d are tested", len(session.States), len(meaning))
	}
	for _, e := range session.Events {
		if next, ok := session.Next(session.Ended, e); ok {
			t.Errorf("an end changes: %s + %s = %s", session.Ended, e, next)
		}
	}
	if next, ok := session.Next(session.Opening, "nonsense"); ok || next != session.Opening {
		t.Errorf("an unknown event leads to %s", next)
	}
}

// From every state that is not the end a close comes to it, whatever else happens.
func TestEverySessionEnds(t *testing.T) {
	for _, s := range session.States {
		last := s
		for _, e := range []session.Event{session.Close, session.ShellGone} {
			last, _ = session.Next(last, e)
		}
		if last != session.Ended {
			t.Errorf("%s comes to %s", s, last)
		}
		if one := (&session.Session{State: s}); one.Ended() != (s == session.Ended) {
			t.Errorf("%s: ended %v", s, one.Ended())
		}
	}
}

func TestFilter(t *testing.T) {
	s := session.Session{
		ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", State: session.Open, CreatedBy: command.Actor{Principal: "ann"},
		Spec: session.Spec{Name: "build", Host: "web1"},
	}
	for name, test := range map[string]struct {
		filter session.Filter
		want   bool
	}{
		"everything":          {session.Filter{}, true},
		"paging is not its":   {session.Filter{Before: "0", Limit: 1}, true},
		"state":               {session.Filter{States: []session.State{session.Opening, session.Open}}, true},
		"other states":        {session.Filter{States: []session.State{session.Opening, session.Ended}}, false},
		"host":                {session.Filter{Host: "web1"}, true},
		"other host":          {session.Filter{Host: "web"}, false},
		"principal":           {session.Filter{Principal: "ann"}, true},
		"other principal":     {session.Filter{Principal: "bob"}, false},
		"name":                {session.Filter{Name: "build"}, true},
		"other name":          {session.Filter{Name: "Build"}, false},
		"its own":             {session.Filter{Visible: &command.Visible{Principal: "ann"}}, true},
		"on a visible host":   {session.Filter{Visible: &command.Visible{Principal: "bob", Hosts: []string{"db1", "web1"}}}, true},
		"not to be seen":      {session.Filter{Visible: &command.Visible{Principal: "bob", Hosts: []string{"db1"}}}, false},
		"nothing can be seen": {session.Filter{Visible: &command.Visible{}}, false},
		"all of it":           {session.Filter{States: session.States, Host: "web1", Principal: "ann", Name: "build", Visible: &command.Visible{Principal: "ann"}}, true},
		"all of it but one":   {session.Filter{States: session.States, Host: "web1", Principal: "ann", Name: "other", Visible: &command.Visible{Principal: "ann"}}, false},
		"asked for, not seen": {session.Filter{Principal: "ann", Visible: &command.Visible{Principal: "bob"}}, false},
		"seen, not asked for": {session.Filter{Principal: "bob", Visible: &command.Visible{Principal: "ann"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.filter.Has(&s); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
