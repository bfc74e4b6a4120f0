package command_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
)

var update = flag.Bool("update", false, "write docs/states.md anew where it is generated")

// meaning says what each state is, for the page.
var meaning = map[command.State]string{
	command.AwaitingApproval: "a rule asks for a person's yes first",
	command.Queued:           "accepted and stored; waits for a slot on its host or in the service",
	command.Starting:         "has a slot; the service is connecting to the host and starting it",
	command.Running:          "the host has started it",
	command.Completed:        "it ran to its own end: the exit code is known, zero or not, unless only a prompt or silence in a session told that end",
	command.Failed:           "it could not start, or a signal ended it that is not part of a cancel or a timeout; the reason says which",
	command.Cancelled:        "cancelled through this service",
	command.TimedOut:         "its timeout passed and it was ended for that",
	command.Rejected:         "refused by policy or by an approver; it never started",
	command.Expired:          "waited too long in the queue or for approval; it never started",
	command.Lost:             "its outcome cannot be known any more; the reason says why",
}

// The page docs/states.md shows the table that Next is, whole: the test walks
// every pair of a state and an event.
func TestStatesPage(t *testing.T) {
	const name, from, to = "../../docs/states.md", "<!-- from here on written by: go test ./internal/command -update -->\n", "<!-- up to here -->\n"
	var page strings.Builder
	page.WriteString("```mermaid\nstateDiagram-v2\n  [*] --> QUEUED\n  [*] --> AWAITING_APPROVAL\n")
	for _, s := range command.States {
		for _, e := range command.Events {
			if next, ok := command.Next(s, e); ok {
				fmt.Fprintf(&page, "  %s --> %s: %s\n", s, next, e)
			}
		}
		if s.Ended() {
			fmt.Fprintf(&page, "  %s --> [*]\n", s)
		}
	}
	page.WriteString("```\n\n| state | what it means | end |\n|---|---|:-:|\n")
	for _, s := range command.States {
		end := ""
		if s.Ended() {
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
	t.Errorf("%s is not what Next says; run: go test ./internal/command -update\nwant:\n%s", name, page.String())
}

func TestNext(t *testing.T) {
	for _, s := range command.States {
		if !s.Valid() || meaning[s] == "" {
			t.Errorf("%s: valid %v, meaning %q", s, s.Valid(), meaning[s])
		}
		leaves := false
		for _, e := range command.Events {
			next, ok := command.Next(s, e)
			leaves = leaves || ok
			switch {
			case !ok && next != s:
				t.Errorf("%s refuses %s but moves to %s", s, e, next)
			case ok && (next == s || !next.Valid()):
				t.Errorf("%s + %s = %s", s, e, next)
			}
		}
		if leaves == s.Ended() {
			t.Errorf("%s: ended %v, but can be left %v", s, s.Ended(), leaves)
		}
	}
	for _, e := range command.Events {
		if next, ok := command.Next("NONSENSE", e); ok || next != "NONSENSE" {
			t.Errorf("an unknown state + %s = %s", e, next)
		}
	}
	if command.State("NONSENSE").Valid() || command.State("").Valid() {
		t.Error("a state that is not in the list is valid")
	}
}

// Every state can be reached, and an end from everywhere.
func TestEveryStateIsReached(t *testing.T) {
	reach := func(from command.State) map[command.State]bool {
		seen := map[command.State]bool{from: true}
		for todo := []command.State{from}; len(todo) > 0; todo = todo[1:] {
			for _, e := range command.Events {
				if next, ok := command.Next(todo[0], e); ok && !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
		return seen
	}
	fromStart := reach(command.AwaitingApproval)
	for _, s := range command.States {
		if !fromStart[s] {
			t.Errorf("%s cannot be reached", s)
		}
		if !s.Ended() && !reach(s)[command.Cancelled] {
			t.Errorf("%s can never be cancelled", s)
		}
	}
}

// Whatever the path, what never started never completes.
func TestOnlyWhatStartedCompletes(t *testing.T) {
	for _, s := range []command.State{command.AwaitingApproval, command.Queued} {
		for _, e := range []command.Event{command.Exited, command.Killed, command.Timeout, command.Lose} {
			if next, ok := command.Next(s, e); ok {
				t.Errorf("%s + %s = %s, although nothing runs yet", s, e, next)
			}
		}
	}
}
