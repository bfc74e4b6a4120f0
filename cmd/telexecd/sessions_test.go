package main

import (
	"testing"

	"github.com/telexec/telexec/internal/api"
	"github.com/telexec/telexec/internal/terminal"
)

// Every word of terminal has one of api, and another one each.
func TestWordsOfTerminals(t *testing.T) {
	kinds := map[api.TerminalEventKind]bool{}
	for kind := terminal.EventAttached; kind <= terminal.EventEnded; kind++ {
		said, ok := seen[kind]
		if !ok || kinds[said] {
			t.Errorf("event %d is %d, %v", kind, said, ok)
		}
		kinds[said] = true
	}
	if len(kinds) != int(api.TerminalEnded)+1 || seen[terminal.EventAttached] != api.TerminalAttached || seen[terminal.EventEnded] != api.TerminalEnded {
		t.Errorf("%v", seen)
	}
	actions := map[terminal.KeyboardAction]bool{}
	for a := api.TakeKeyboard; a <= api.HandOverKeyboard; a++ {
		done, ok := holds[a]
		if !ok || done == 0 || actions[done] {
			t.Errorf("action %d is %d, %v", a, done, ok)
		}
		actions[done] = true
	}
}
