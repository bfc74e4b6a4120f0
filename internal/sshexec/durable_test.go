package sshexec

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// kept is a durable run that was started.
type kept struct {
	Process
	*output
	run Run
}

// durably starts a durable run; home is where its files lie.
func (h *host) durably(spec command.Spec) kept {
	h.t.Helper()
	k := kept{output: newOutput(), run: Run{ID: newID(), Host: h.inv, Spec: &spec, Fence: 1}}
	k.run.Output = k.output.sink
	p, err := h.runner.Start(h.t.Context(), k.run)
	if err != nil {
		h.t.Fatalf("start of %q: %v", spec.CommandLine(), err)
	}
	k.Process = p
	return k
}

func (k kept) end(t testing.TB) command.Ending {
	t.Helper()
	e, err := k.Wait()
	if err != nil {
		t.Fatalf("%q: %v", k.run.Spec.CommandLine(), err)
	}
	k.Collected()
	<-k.Process.(*durable).through
	return e
}

func TestDurableRun(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		for _, c := range []struct {
			spec                 command.Spec
			stdout, stderr, exit string
		}{
			{command.Spec{Line: "true"}, "", "", "0"},
			{command.Spec{Line: "echo out; echo err >&2; exit 7"}, "out\n", "err\n", "7"},
			{command.Spec{Line: "kill -TERM $$"}, "", "", "signal TERM"},
			{command.Spec{Line: "exit 143"}, "", "", "143"},
			{command.Spec{Line: "cat; pwd", Stdin: []byte("a\x00b"), WorkingDirectory: "/usr"}, "a\x00b/usr\n", "", "0"},
			{command.Spec{Argv: []string{"printf", "%s", "it's $HOME"}}, "it's $HOME", "", "0"},
			{command.Spec{Line: `printf '\036telexec:x: done exit 0\n'; printf %s "$V"`, Env: map[string]string{"V": "a'b\n$c"}}, "\x1etelexec:x: done exit 0\na'b\n$c", "", "0"},
			{command.Spec{Line: "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2"}, strings.Repeat("x", 300000), strings.Repeat("y", 300000), "0"},
		} {
			k := h.durably(c.spec)
			e := k.end(t)
			if out, err := k.text(command.Stdout), k.text(command.Stderr); out != c.stdout || err != c.stderr || code(e) != c.exit {
				t.Errorf("%q: %.200q, %.200q, %s", c.spec.CommandLine(), out, err, code(e))
			}
		}
	})
}

func TestDurableSurvivesItsConnection(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		links := make(chan error, 100)
		k := kept{output: newOutput(), run: Run{ID: newID(), Host: h.inv, Fence: 1,
			Spec: &command.Spec{Line: "i=0; while [ $i -lt 50 ]; do echo line $i; echo err $i >&2; i=$((i+1)); sleep 0.05; done; exit 3"}}}
		k.run.Output = k.output.sink
		k.run.Link = func(why error) { links <- why }
		p, err := h.runner.Start(t.Context(), k.run)
		if err != nil {
			t.Fatal(err)
		}
		k.Process = p
		k.await(t, has("line 5\n"))
		h.server.KillSessions()
		if why := <-links; why == nil {
			t.Error("it was not told that the connection is lost")
		}
		if why := <-links; why != nil {
			t.Error("it was not told that the connection is back:", why)
		}
		if e := k.end(t); code(e) != "3" {
			t.Error(code(e))
		}
		var want strings.Builder
		for i := range 50 {
			want.WriteString("line " + itoa(int64(i)) + "\n")
		}
		if got := k.text(command.Stdout); got != want.String() {
			t.Errorf("stdout %q", got)
		}
		if got := k.text(command.Stderr); got != strings.ReplaceAll(want.String(), "line", "err") {
			t.Errorf("stderr %q", got)
		}
	})
}

func TestDurableStartIsNotRepeated(t *testing.T) {
	h := start(t, sshtest.Options{})
	k := h.durably(command.Spec{Line: "echo once; sleep 0.3; echo more"})
	k.await(t, has("once"))
	k.Close()
	again := kept{output: newOutput(), run: k.run}
	again.run.Output, again.run.Fence = again.output.sink, 2
	p, err := h.runner.Start(t.Context(), again.run)
	if err != nil {
		t.Fatal(err)
	}
	again.Process = p
	if e := again.end(t); code(e) != "0" || again.text(command.Stdout) != "once\nmore\n" {
		t.Error(code(e), again.text(command.Stdout))
	}
}

func TestDurableCancel(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		k := h.durably(command.Spec{Line: "trap '' INT; echo up; sleep 100 & sleep 200 | cat"})
		k.await(t, has("up"))
		report, err := k.Cancel(t.Context(), 300*time.Millisecond)
		if err != nil || report.Outcome != command.Gone {
			t.Fatal(report, err)
		}
		e := k.end(t)
		t.Log(code(e), report)
	})
}

func TestDurableTimeout(t *testing.T) {
	h := start(t, sshtest.Options{})
	k := h.durably(command.Spec{Line: "echo up; sleep 100", Timeout: 300 * time.Millisecond})
	e := k.end(t)
	if e.TimedOut == nil || e.TimedOut.Outcome != command.Gone {
		t.Fatalf("%+v", e)
	}
}

func TestDurableInput(t *testing.T) {
	h := start(t, sshtest.Options{})
	k := h.durably(command.Spec{Line: "cat; echo end", Stdin: []byte("zero "), StdinOpen: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if n, err := k.Input(ctx, []byte("one "), false); n != 9 || err != nil {
		t.Fatal(n, err)
	}
	k.await(t, has("one "))
	if n, err := k.Input(ctx, []byte("two "), true); n != 13 || err != nil {
		t.Fatal(n, err)
	}
	if e := k.end(t); code(e) != "0" || k.text(command.Stdout) != "zero one two end\n" {
		t.Error(code(e), k.text(command.Stdout))
	}
	if _, err := k.Input(ctx, []byte("x"), false); fault.ReasonOf(err) != fault.ReasonNotRunning {
		t.Error(err)
	}
}
