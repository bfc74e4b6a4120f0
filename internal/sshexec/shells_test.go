package sshexec

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// otherShell is a dialer to hosts on which another shell takes the place of
// /bin/sh: in every request and script it is called by its own name.
type otherShell struct {
	*dialer
	words string
}

func (o otherShell) Open(ctx context.Context, host inventory.Host) (Session, error) {
	ses, err := o.dialer.Open(ctx, host)
	if err == nil {
		ses.Channel = otherChannel{ses.Channel, o.words}
	}
	return ses, err
}

func (o otherShell) OpenFirst(ctx context.Context, host inventory.Host) (Session, error) {
	return o.Open(ctx, host)
}

type otherChannel struct {
	ssh.Channel
	words string
}

func (c otherChannel) replace(b []byte) []byte {
	return bytes.ReplaceAll(b, []byte("/bin/sh "), []byte(c.words+" "))
}

func (c otherChannel) SendRequest(name string, reply bool, payload []byte) (bool, error) {
	var m struct{ Command string }
	if name == "exec" && ssh.Unmarshal(payload, &m) == nil {
		line := string(c.replace([]byte(m.Command + " ")))
		payload = ssh.Marshal(struct{ Command string }{line})
	}
	return c.Channel.SendRequest(name, reply, payload)
}

func (c otherChannel) Write(b []byte) (int, error) {
	if _, err := c.Channel.Write(c.replace(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// The scripts do the same in every shell that is /bin/sh somewhere. yash reads
// bytes beyond ASCII only where the locale has them.
func TestDurableInEveryShell(t *testing.T) {
	t.Parallel()
	for name, words := range map[string]string{
		"bash": "bash --posix", "busybox": "busybox sh", "mksh": "mksh", "ksh93": "ksh93", "yash": "env LC_ALL=C.UTF-8 yash --posixly-correct", "zsh": "zsh --emulate sh",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(name); err != nil {
				testenv.Missing(t, "no "+name+"; tools/setup.sh gets it")
			}
			h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
			d := newDialer(t)
			h.runner = New(otherShell{d, words}, Options{StartTimeout: 20 * time.Second})
			h.runner.askAfter = 100 * time.Millisecond
			inAnyShell(t, h, name == "zsh")
		})
	}
}

// inAnyShell goes once through what the scripts can do. A silent shell does not
// say that a signal has ended a command: it is told as a code.
func inAnyShell(t *testing.T, h *host, silent bool) {
	// Beside all the rest, for even a slow shell must have come to its trap.
	timed := h.durably(command.Spec{Line: "trap '' INT TERM; echo up; sleep 100; sleep 100", Timeout: 3100 * time.Millisecond})
	for _, c := range []struct{ line, stdout, stderr, exit string }{
		{"true", "", "", "0"},
		{"echo out; echo err >&2; exit 7", "out\n", "err\n", "7"},
		{"sleep 0.3; printf 'a\\0b'; printf 'c\\0' >&2; exit 200", "a\x00b", "c\x00", "200"},
		{"kill -TERM $$", "", "", "signal TERM"},
		{"kill -KILL $$", "", "", "signal KILL"},
		{"exit 143", "", "", "143"},
		{"umask | tail -c 4; echo $TELEXEC_RUN$telexec_home; cd /; pwd", "022\n\n/\n", "", "0"},
	} {
		if signal, ok := strings.CutPrefix(c.exit, "signal "); ok && silent {
			c.exit = map[string]string{"TERM": "143", "KILL": "137"}[signal]
		}
		k := h.durably(command.Spec{Line: c.line})
		e := k.end(t)
		if out, err := k.text(command.Stdout), k.text(command.Stderr); out != c.stdout || err != c.stderr || code(e) != c.exit {
			t.Errorf("%q: %.200q, %.200q, %s", c.line, out, err, code(e))
		}
	}
	// Long, so that no shell has it in one read.
	long := strings.Repeat("x", 50_000)
	k := h.durably(command.Spec{Argv: []string{"printf", "%s.", long, "é\n'"}})
	if e := k.end(t); code(e) != "0" || k.text(command.Stdout) != long+".é\n'." {
		t.Errorf("long: %s %.60q %q", code(e), k.text(command.Stdout), k.text(command.Stderr))
	}
	k = h.durably(command.Spec{Line: "cat; echo end", Stdin: []byte("zero "), StdinOpen: true})
	if _, err := k.Input(t.Context(), []byte("one "), false); err != nil {
		t.Error(err)
	}
	k.await(t, has("one "))
	if n, err := k.Input(t.Context(), []byte("two "), true); err != nil || n != 13 {
		t.Error(n, err)
	}
	if e := k.end(t); code(e) != "0" || k.text(command.Stdout) != "zero one two end\n" {
		t.Error(code(e), k.text(command.Stdout))
	}
	k = h.durably(command.Spec{Line: "cat", Stdin: []byte("in")})
	if e := k.end(t); code(e) != "0" || k.text(command.Stdout) != "in" {
		t.Error(code(e), k.text(command.Stdout))
	}
	// Followed again in the middle, asked, interrupted.
	k = h.durably(command.Spec{Line: "trap 'echo got; exit 5' INT; echo b >&2; echo a; while :; do sleep 0.05; done"})
	k.await(t, has("a"))
	k.Close()
	again := h.resumed(k, 2)
	if err := again.Signal(t.Context(), "INT"); err != nil {
		t.Error(err)
		again.Cancel(t.Context(), 0) // it would not end
	}
	if e := again.end(t); code(e) != "5" || again.text(command.Stdout) != "a\ngot\n" || again.text(command.Stderr) != "b\n" {
		t.Error(code(e), again.text(command.Stdout), again.text(command.Stderr))
	}
	k = h.durably(command.Spec{Line: "echo up; sleep 100 & sleep 200 | cat"})
	k.await(t, has("up"))
	if r, err := k.Cancel(t.Context(), grace); err != nil || r.Outcome != command.Gone {
		t.Error(r, err)
	}
	k.end(t)
	if e := timed.end(t); e.TimedOut == nil || e.TimedOut.Outcome != command.Gone || e.TimedOut.Signal != "KILL" {
		t.Errorf("%+v", e)
	}
	run := Run{ID: newID(), Host: h.inv, Spec: &command.Spec{Line: "true", WorkingDirectory: "/nonexistent"}, Fence: 1, Output: newOutput().sink}
	if _, err := h.runner.Start(t.Context(), run); fault.ReasonOf(err) != fault.ReasonBadWorkingDir {
		t.Error(err)
	}
	run.ID, run.Void = newID(), true
	if _, err := h.runner.Resume(t.Context(), run); fault.ReasonOf(err) != fault.ReasonNeverStarted {
		t.Error(err)
	}
	if _, err := h.runner.Start(t.Context(), run); fault.ReasonOf(err) != fault.ReasonNeverStarted {
		t.Error(err)
	}
}

// resumed takes up a run with another fence, from the beginning.
func (h *host) resumed(k kept, fence int64) kept {
	h.t.Helper()
	again := kept{output: newOutput(), run: k.run}
	again.run.Output, again.run.Fence = again.output.sink, fence
	p, err := h.runner.Resume(h.t.Context(), again.run)
	if err != nil {
		h.t.Fatal(err)
	}
	again.Process = p
	return again
}
