package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/screen"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/pkg/client"
)

// writePlan puts a plan into a file.
func writePlan(t *testing.T, yaml string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// seen is what is on the terminal of a test.
type seen struct {
	r *bufio.Reader
	s *screen.Screen
}

// lines are those that hold something.
func (s *seen) lines() []string {
	lines, _ := s.s.Lines(1000)
	return slices.DeleteFunc(lines, func(l string) bool { return l == "" })
}

// until reads until the lines are as wanted.
func (s *seen) until(t *testing.T, what string, is func(lines []string) bool) {
	t.Helper()
	b := make([]byte, 4096)
	for !is(s.lines()) {
		n, err := s.r.Read(b)
		_, _ = s.s.Write(b[:n])
		if err != nil {
			t.Fatalf("waiting for %s: %v; there is\n%s", what, err, strings.Join(s.lines(), "\n"))
		}
	}
}

// shows waits for a line with all of these parts.
func (s *seen) shows(t *testing.T, parts ...string) {
	t.Helper()
	s.until(t, strings.Join(parts, " … "), func(lines []string) bool {
		return slices.ContainsFunc(lines, func(l string) bool {
			return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l, p) })
		})
	})
}

// approve approves what a task waits for, as somebody else.
func approve(t *testing.T, service *testenv.Env, name, task string) {
	t.Helper()
	c, err := client.Dial(client.Options{Server: service.GRPCAddr, Token: client.Token(service.Key(name, "approver").Reveal())})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for ap, err := range c.ListApprovals(t.Context(), &telexecv1.ListApprovalsRequest{States: []telexecv1.ApprovalState{telexecv1.ApprovalState_APPROVAL_STATE_PENDING}}) {
		if err != nil {
			t.Fatal(err)
		}
		if ap.GetTask().GetId() != task {
			continue
		}
		if _, err := c.DecideTask(t.Context(), &telexecv1.DecideTaskRequest{
			TaskId: task, ApprovalId: ap.GetCommandId(), Approved: new(true), RequestHash: ap.GetRequestHash(),
		}); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%s waits for nothing", task)
}

// The largest plan that telexec lets through is one that the service takes.
func testLargestTask(t *testing.T, service *testenv.Env) {
	_, ask := live(t, service)
	left := planText - len("t")
	plan := "task: t\nsteps:\n"
	for i := range planSteps {
		n := min(left-(planSteps-1-i), 100_000)
		left -= n
		plan += "  - {host: web1, command: " + strings.Repeat("x", n) + "}\n"
	}
	if s, code := ask("task", "submit", "--dry-run", "--json", writePlan(t, plan)); code != 0 || left != 0 {
		t.Errorf("code %d, %d left, %.500s", code, left, s)
	}
	for part, more := range map[string]string{"limit is 100": "  - {host: web1, command: x}\n", "limit is 262144": "context: {a: b}\n"} {
		q := &invocation{env: map[string]string{"TELEXEC_SERVER": "127.0.0.1:1"}}
		if code := q.run(t.Context(), "task", "submit", writePlan(t, plan+more)); code != 125 || !strings.Contains(q.stderr.String(), part) || !strings.Contains(q.stderr.String(), "as several tasks") {
			t.Errorf("code %d, %.500s", code, q.stderr.String())
		}
	}
	q := &invocation{env: map[string]string{"TELEXEC_SERVER": "127.0.0.1:1"}}
	if code := q.run(t.Context(), "task", "submit", writePlan(t, "task: "+strings.Repeat("x", 7<<20))); code != 125 || !strings.Contains(q.stderr.String(), "plan.yaml is larger than a plan can be, which is 1 MiB") {
		t.Errorf("code %d, %.500s", code, q.stderr.String())
	}
}

// Of a terminal of which nothing is known nobody asks for more than lines.
func testTaskOnAPlainTerminal(t *testing.T, service *testenv.Env) {
	for _, name := range []string{"", "dumb"} {
		i, _ := live(t, service)
		i.env["TERM"] = name
		_, out, wait := i.startOnTerminal(t, "task", "submit", writePlan(t, "task: t\nsteps: [{name: one, host: web1, command: echo one}]\n"))
		for line := ""; !strings.Contains(line, "every step has come to its end"); {
			var err error
			if line, err = out.ReadString('\n'); err != nil || strings.Contains(line, "\x1b") {
				t.Fatalf("TERM=%s: %q, %v", name, line, err)
			}
		}
		if code := wait(); code != 0 {
			t.Errorf("code %d", code)
		}
	}
}

// On a terminal the steps are a list that lives, also while the service is started anew;
// then the undo is shown, asked for, and followed.
func testTaskOnATerminal(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	flag := filepath.Join(os.TempDir(), "telexec-task-"+strconv.Itoa(os.Getpid())) // of the host, which is this machine
	plan := writePlan(t, `task: roll out
steps:
  - {name: prepare, host: web1, command: echo one, undo: echo first back}
  - {name: progress, host: web1, command: 'for i in 10 20 50; do echo "Uploading: $i%"; sleep 1.2; done; while ! [ -e `+flag+` ]; do sleep 0.1; done'}
  - {name: gate, host: web1, command: echo asked, needsApproval: true, undo: 'echo second back'}
`)
	ask("run", "web1", "rm -f "+flag)
	defer ask("run", "web1", "rm -f "+flag)
	_, out, wait := i.startOnTerminal(t, "task", "submit", plan)
	tty := &seen{out, screen.New(111, 33, 1000)}
	tty.shows(t, "✓ prepare", "web1")
	tty.shows(t, "▸ progress", "web1", "██████░░░░░░  50 %")
	tty.shows(t, "· gate", "web1", "will wait for approval")
	tty.shows(t, "running  █", "░  ")
	id := commandID(t, strings.Join(tty.lines(), "\n"))
	service.Restart()
	if s, code := ask("run", "web1", "touch "+flag); code != 0 {
		t.Fatal(s)
	}
	tty.shows(t, "? gate", "waits for approval by 1 approver until ")
	tty.shows(t, "awaiting approval  █")
	approve(t, service, "tess", id)
	if code := wait(); code != 0 {
		t.Errorf("code %d", code)
	}
	tty.shows(t, "✓ gate")
	tty.shows(t, "completed  ", id)
	if lines := tty.lines(); len(lines) != 5 || lines[0] != "roll out" {
		t.Errorf("left behind:\n%s", strings.Join(lines, "\n"))
	}

	keyboard, out, wait := i.startOnTerminal(t, "task", "undo", id)
	tty = &seen{out, screen.New(111, 33, 1000)}
	tty.shows(t, "Left alone", "progress on web1: not_undoable")
	tty.shows(t, "runs", "echo second back")
	tty.shows(t, "Undo "+id+"? [y/N]")
	_, _ = keyboard.WriteString("n\r")
	if code := wait(); code != 1 {
		t.Errorf("code %d", code)
	}
	tty.shows(t, "nothing was undone")
	keyboard, out, wait = i.startOnTerminal(t, "task", "undo", id, "--reason", "slow")
	tty = &seen{out, screen.New(111, 33, 1000)}
	tty.shows(t, "Undo "+id+"? [y/N]")
	_, _ = keyboard.WriteString("y\r")
	if code := wait(); code != 0 {
		t.Errorf("code %d", code)
	}
	tty.shows(t, "undone  ", id)
	tty.shows(t, "◂ gate", "undone")
	tty.shows(t, "◂ prepare", "undone")
}

// Ctrl-C leaves the task alone, and tells how to come back.
func testTaskIsLeft(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	plan := writePlan(t, "task: it sleeps\nsteps:\n  - {name: sleeps, host: web1, command: sleep 600}\n")
	_, out, wait := i.startOnTerminal(t, "task", "submit", plan)
	tty := &seen{out, screen.New(111, 33, 1000)}
	tty.shows(t, "▸ sleeps")
	i.signals <- syscall.SIGINT
	if code := wait(); code != 130 {
		t.Errorf("code %d", code)
	}
	tty.shows(t, "goes on without you: telexec task watch ")
	id := commandID(t, strings.Join(tty.lines(), "\n"))
	if s, code := ask("task", "cancel", id); code != 0 || !strings.Contains(s, "cancelled") {
		t.Errorf("cancel: %d, %s", code, s)
	}
}

// Over connections that break all the time each event is told once and in its order.
func testTaskOverABrokenWay(t *testing.T, service *testenv.Env) {
	i, _ := live(t, service)
	yaml := "task: many\nsteps:\n"
	for n := range 8 {
		yaml += fmt.Sprintf("  - {name: s%d, host: web1, command: sleep 0.1}\n", n)
	}
	way := startCutter(t, service.GRPCAddr, 3500)
	i.env["TELEXEC_SERVER"] = way.addr
	if code := i.run(t.Context(), "task", "submit", "--json", writePlan(t, yaml)); code != 0 {
		t.Fatalf("code %d, %s", code, i.stderr.String())
	}
	n := 0
	for line := range strings.Lines(i.stdout.String()) {
		if strings.HasPrefix(line, `{"event":`) {
			if n++; !strings.Contains(line, fmt.Sprintf(`"sequence":"%d"`, n)) {
				t.Fatalf("event %d: %s", n, line)
			}
		}
	}
	if n < 18 || way.cuts() < 2 {
		t.Errorf("%d events, %d cuts", n, way.cuts())
	}
}
