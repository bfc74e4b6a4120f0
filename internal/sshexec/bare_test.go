package sshexec

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// device is a host whose login has a command line of its own, as a switch has: it
// knows show and wait, and nothing of a shell.
func device(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "cli")
	script := `#!/bin/sh
case $SSH_ORIGINAL_COMMAND in
"show version") echo "Acme OS 1.2" ;;
"copy - running") cat ;;
wait) echo waiting; exec sleep 100 ;;
"") while read -r line; do :; done ;;
*) echo "% Unknown command" >&2; exit 2 ;;
esac
`
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h := start(t, sshtest.Options{ExtraConfig: []string{"ForceCommand " + file}})
	if err := h.runner.Probe(t.Context(), h.inv); fault.ReasonOf(err) != fault.ReasonNotDurable {
		t.Error("a host that runs commands of its own:", err)
	}
	h.inv.NoShell = true
	return h
}

func TestBareRun(t *testing.T) {
	h := device(t)
	if _, err := h.runner.Start(t.Context(), Run{ID: newID(), Host: h.inv, Spec: &command.Spec{Line: "show version"}}); fault.ReasonOf(err) != fault.ReasonNotDurable {
		t.Errorf("a durable run: %v", err)
	}
	for _, c := range []struct {
		spec                 command.Spec
		stdout, stderr, exit string
	}{
		{command.Spec{Line: "show version"}, "Acme OS 1.2\n", "", "0"},
		{command.Spec{Line: "copy - running", Stdin: []byte("hostname a\x00b")}, "hostname a\x00b", "", "0"},
		{command.Spec{Line: "reload now"}, "", "% Unknown command\n", "2"},
	} {
		stdout, stderr, exit := h.line(c.spec)
		if stdout != c.stdout || stderr != c.stderr || code(exit) != c.exit {
			t.Errorf("%q: %q, %q, %s", c.spec.Line, stdout, stderr, code(exit))
		}
	}
	for what, spec := range map[string]command.Spec{
		"env":               {Env: map[string]string{"A": "b"}},
		"working_directory": {WorkingDirectory: "/"},
		"login_shell":       {LoginShell: true},
		"sudo":              {Sudo: &command.Sudo{}},
	} {
		spec.Line = "show version"
		if _, err := h.runner.startAttached(t.Context(), newID(), h.inv, &spec, newOutput().sink); fault.ReasonOf(err) != fault.ReasonNotSupported {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A bare run can be asked to end, and nothing is said to be proven.
func TestBareCancel(t *testing.T) {
	h := device(t)
	r := h.start(command.Spec{Line: "wait"})
	r.await(t, has("waiting"))
	if d, why := r.Durability(); d != command.Attached || why == "" {
		t.Error(d, why)
	}
	report, err := r.Cancel(t.Context(), 200*time.Millisecond)
	if err != nil || report.Outcome != command.Unproven || report.Signal == "" {
		t.Errorf("%+v, %v", report, err)
	}
	if end, err := r.Wait(); err == nil && end.Signal == "" {
		t.Errorf("%+v", end)
	}
	if report, err := h.runner.Sweep(t.Context(), r.id, h.inv, 0); err != nil || report.Outcome != command.Unproven {
		t.Errorf("%+v, %v", report, err)
	}
	r = h.start(command.Spec{Line: "wait"})
	r.await(t, has("waiting"))
	if err := r.Signal(t.Context(), ""); err != nil {
		t.Error(err)
	}
}
