package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/command"
)

// The commands of the demo. The first talks for a few seconds; the second does so
// while the service is killed; the third never ends by itself, ignores a polite
// end, and has children.
const (
	talks    = `for step in 1 2 3 4 5; do echo "step $step of 5"; sleep 0.6; done; echo "a word on stderr" >&2`
	counts   = `i=1; while [ $i -le 12 ]; do echo "line $i of 12"; i=$((i + 1)); sleep 0.4; done; exit 7`
	stubborn = `trap "" TERM INT; sleep 1000 | sleep 1000 & while :; do sleep 1; done`
)

// typist types commands of telexec and checks what they answer.
type typist struct {
	out, stderr io.Writer
	bin         string
	service     *service // the one that is up
	start       func(ctx context.Context) (*service, error)
	colour      bool
}

// show is the demo, step by step.
func (t *typist) show(ctx context.Context) error {
	t.caption("telexecd is up: gRPC on %s, REST on %s. Its one host is an SSH server inside this demo.", t.service.grpc, t.service.http)
	if _, err := t.types(ctx, 0, []string{"demo", "127.0.0.1:"}, "hosts"); err != nil {
		return err
	}

	t.caption("Run a command. Its output comes live, each stream where it belongs; its exit code is telexec's.")
	if _, err := t.types(ctx, 0, []string{"step 1 of 5\nstep 2 of 5\nstep 3 of 5\nstep 4 of 5\nstep 5 of 5\n"}, "run", "demo", talks); err != nil {
		return err
	}
	id, err := t.latest(ctx)
	if err != nil {
		return err
	}

	t.caption("The service keeps what became of it, and every byte.")
	if _, err := t.types(ctx, 0, []string{id, "COMPLETED"}, "status", id); err != nil {
		return err
	}

	if err := t.survives(ctx); err != nil {
		return err
	}

	t.caption("Start one that would never end and ignores polite signals, and do not wait for it.")
	id, err = t.types(ctx, 0, nil, "run", "--detach", "demo", stubborn)
	if err != nil {
		return err
	}
	id = strings.TrimSpace(id)
	if err := appears(ctx, id); err != nil {
		return err
	}
	if err := t.runs(ctx, id); err != nil { // the service hears of it a moment later
		return err
	}
	if _, err := t.types(ctx, 0, []string{id, "RUNNING"}, "ps"); err != nil {
		return err
	}

	t.caption("Cancel it: the answer comes when the host's own process list shows that nothing is left.")
	if _, err := t.types(ctx, 0, nil, "cancel", id); err != nil {
		return err
	}
	if n, err := alive(id); err != nil || n > 0 {
		return errors.Join(err, fmt.Errorf("%d processes of %s are left after its cancel", n, id))
	}

	if err := t.session(ctx); err != nil {
		return err
	}
	if err := t.task(ctx); err != nil {
		return err
	}

	t.caption("And the history of all.")
	if _, err := t.types(ctx, 0, []string{id, "COMPLETED", "CANCELLED"}, "history"); err != nil {
		return err
	}
	t.caption("That was it. \"make run\" leaves the service up for you; README.md says how to use your own hosts.")
	return nil
}

// session shows a shell that lasts.
func (t *typist) session(ctx context.Context) error {
	t.caption("A session is a shell that lasts, on a terminal that people and agents share. What is set in it stays; its commands are commands like any other.")
	for _, step := range []struct {
		exit int
		want string
		args []string
	}{
		{0, "work", []string{"open", "demo", "--name", "work"}},
		{0, "", []string{"run", "work", "cd /tmp && answer=42"}},
		{6, "42 in /tmp", []string{"run", "work", `echo "$answer in $PWD"; (exit 6)`}},
		{0, "42 in /tmp", []string{"screen", "work"}},
		{0, "", []string{"close", "work"}},
	} {
		if _, err := t.types(ctx, step.exit, []string{step.want}, append([]string{"session"}, step.args...)...); err != nil {
			return err
		}
	}
	return nil
}

// task shows several steps, and how they are undone.
func (t *typist) task(ctx context.Context) error {
	t.caption("A task is a plan of several steps. The last one of this fails, and what was done is undone.")
	dir := filepath.Dir(t.service.tokenFile)
	file := filepath.Join(dir, "plan.yaml")
	plan := fmt.Sprintf(`task: switch to blue
steps:
  - {name: note, host: demo, command: echo blue >%[1]s, undo: rm %[1]s}
  - {name: look, host: demo, command: cat %[1]s}
  - {name: check, host: demo, command: grep green %[1]s, onFailure: undo}
`, command.Quote(filepath.Join(dir, "stage")))
	if err := os.WriteFile(file, []byte(plan), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s\n%s", t.in("1", "$ cat "+typed(file)), plan)
	_, err := t.types(ctx, 1, []string{"note", "check", "undone"}, "task", "submit", file)
	return err
}

// survives shows that a command, its output and its exit code outlive a kill -9 of
// the service.
func (t *typist) survives(ctx context.Context) error {
	t.caption("A command lives on its host, not in the service. Start one that counts, and kill the service in mid count.")
	id, err := t.types(ctx, 0, nil, "run", "--detach", "demo", counts)
	if err != nil {
		return err
	}
	id = strings.TrimSpace(id)
	if err := t.prints(ctx, id, "line 3 of 12\n"); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s\n", t.in("1", fmt.Sprintf("$ kill -9 %d    # telexecd", t.service.cmd.Process.Pid)))
	t.service.kill()
	n, err := alive(id)
	if err != nil || n == 0 {
		return errors.Join(err, fmt.Errorf("no process of %s is left after the service was killed", id))
	}
	t.caption("There is no service any more; the command runs on. Now the service comes back.")
	again, err := t.start(ctx)
	if err != nil {
		return err
	}
	t.service = again
	want := ""
	for i := 1; i <= 12; i++ {
		want += fmt.Sprintf("line %d of 12\n", i)
	}
	got, err := t.types(ctx, 0, []string{want}, "logs", "--follow", id)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the output is %q, want %q", got, want)
	}
	if _, err := t.types(ctx, 0, []string{id, "COMPLETED", "exit code 7"}, "status", id); err != nil {
		return err
	}
	t.caption("Nothing lost: %d bytes, each once, SHA-256 %.16x… as it should be; and the exit code is the command's own 7.",
		len(got), sha256.Sum256([]byte(got)))
	return nil
}

// prints waits until the service has a command's line.
func (t *typist) prints(ctx context.Context, id, line string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("%s has not printed %q after %v", id, line, startLimit))
	defer cancel()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		var got bytes.Buffer
		if err := t.telexec(ctx, &got, "logs", id); err != nil {
			return fmt.Errorf("logs of %s: %w", id, err)
		}
		if strings.Contains(got.String(), line) {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// runs waits until the service has heard that a command runs.
func (t *typist) runs(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("%s is not told to be running after %v", id, startLimit))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var got bytes.Buffer
		if err := t.telexec(ctx, &got, "status", id); err != nil {
			return fmt.Errorf("status of %s: %w", id, err)
		}
		if strings.Contains(got.String(), "running") {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leaveUp tells how to use the service and waits for the end of ctx.
func (t *typist) leaveUp(ctx context.Context) error {
	t.caption("telexecd is up, with a host \"demo\" that runs commands on this machine, as you. In another terminal:")
	fmt.Fprintf(t.out, "export PATH=%s:$PATH\nexport TELEXEC_SERVER=%s\nexport TELEXEC_TOKEN=$(cat %s)\n\n",
		command.Quote(t.bin), t.service.grpc, command.Quote(t.service.tokenFile))
	fmt.Fprintf(t.out, "telexec run demo 'for i in 1 2 3; do date; sleep 1; done'\n")
	fmt.Fprintf(t.out, "telexec session open demo --attach\n")
	fmt.Fprintf(t.out, "curl -H \"authorization: Bearer $TELEXEC_TOKEN\" http://%s/v1/hosts\n", t.service.http)
	fmt.Fprintf(t.out, "grpcurl -plaintext -H \"authorization: Bearer $TELEXEC_TOKEN\" $TELEXEC_SERVER list\n")
	fmt.Fprintf(t.out, "claude mcp add telexec -e TELEXEC_SERVER=$TELEXEC_SERVER -e TELEXEC_TOKEN=$TELEXEC_TOKEN -- $(command -v telexec-mcp)\n")
	t.caption("In a browser: http://%s/ asks for that token, once.", t.service.http)
	t.caption("Ctrl-C here ends it; what it kept is then removed.")
	select {
	case <-ctx.Done():
		return t.closeSessions(context.WithoutCancel(ctx))
	case err := <-t.service.exited:
		t.service.exited <- err // for stop
		return errors.New("telexecd has ended by itself")
	}
}

// closeSessions ends the shells that are left, which tmux would keep for ever.
func (t *typist) closeSessions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var out bytes.Buffer
	if err := t.telexec(ctx, &out, "session", "ls", "--json"); err != nil {
		return fmt.Errorf("telexec session ls: %w", err)
	}
	for lines := json.NewDecoder(&out); ; {
		var open struct{ ID string }
		switch err := lines.Decode(&open); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("telexec session ls --json: %w", err)
		}
		if err := t.telexec(ctx, io.Discard, "session", "close", open.ID); err != nil {
			return fmt.Errorf("telexec session close %s: %w", open.ID, err)
		}
	}
}

// types shows a command as a person would type it, runs it, and checks exit code
// and standard output. It gives the standard output.
func (t *typist) types(ctx context.Context, exit int, want []string, args ...string) (string, error) {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = typed(a)
	}
	line := "telexec " + strings.Join(words, " ")
	fmt.Fprintln(t.out, t.in("1", "$ "+line))
	var got bytes.Buffer
	err := t.telexec(ctx, io.MultiWriter(t.out, &got), args...)
	code := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		code, err = failed.ExitCode(), nil
	}
	switch {
	case ctx.Err() != nil:
		return "", errors.New("interrupted")
	case err != nil:
		return "", fmt.Errorf("%s: %w", line, err)
	case code != exit:
		return "", fmt.Errorf("%s: exit code %d, want %d", line, code, exit)
	}
	for _, w := range want {
		if !strings.Contains(strings.ToUpper(got.String()), strings.ToUpper(w)) {
			return "", fmt.Errorf("%s: its output has no %q", line, w)
		}
	}
	return got.String(), nil
}

// typed gives a word as a person would quote it.
func typed(word string) string {
	if strings.HasPrefix(word, "-") {
		return word
	}
	return command.Quote(word)
}

// telexec runs the real program.
func (t *typist) telexec(ctx context.Context, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(t.bin, "telexec"), args...)
	cmd.Stdout, cmd.Stderr = stdout, t.stderr
	cmd.Env = append(withoutOurs(os.Environ()), "TELEXEC_SERVER="+t.service.grpc, "TELEXEC_TOKEN="+t.service.token.Reveal())
	return cmd.Run()
}

// latest gives the id of the newest command.
func (t *typist) latest(ctx context.Context) (string, error) {
	var out bytes.Buffer
	if err := t.telexec(ctx, &out, "history", "--limit", "1", "--json"); err != nil {
		return "", fmt.Errorf("telexec history: %w", err)
	}
	var newest struct{ ID string }
	if err := json.Unmarshal(out.Bytes(), &newest); err != nil || newest.ID == "" {
		return "", fmt.Errorf("telexec history --json printed %q (%w)", out.String(), err)
	}
	return newest.ID, nil
}

// caption prints a short text between the steps.
func (t *typist) caption(format string, args ...any) {
	fmt.Fprintf(t.out, "\n%s\n", t.in("36", "# "+fmt.Sprintf(format, args...)))
}

// in gives s in an SGR colour or weight.
func (t *typist) in(sgr, s string) string {
	if !t.colour {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// appears waits until a command is to be seen on its host.
func appears(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("no process of %s is to be seen on the host after %v", id, startLimit))
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		if n, err := alive(id); err != nil || n > 0 {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// alive counts the processes of a command on this machine, which the demo's host
// is: those that carry its id in their environment.
func alive(id string) (n int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("cannot look at /proc (%w)", err)
	}
	for _, f := range files {
		env, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile, or somebody else's
		}
		for variable := range bytes.SplitSeq(env, []byte{0}) {
			if string(variable) == "TELEXEC_ID="+id {
				n++
			}
		}
	}
	return n, nil
}
