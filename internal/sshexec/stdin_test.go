package sshexec

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestStdin(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		data := make([]byte, 1<<20)
		for i := range data {
			data[i] = byte(i * 7)
		}
		stdout, _, _ := h.line(command.Spec{Line: "cat", Stdin: data})
		if stdout != string(data) {
			t.Errorf("cat gave %d of %d bytes back", len(stdout), len(data))
		}
		if stdout, _, _ := h.line(command.Spec{Line: "cat; echo end"}); stdout != "end\n" {
			t.Errorf("without stdin: %q", stdout)
		}
		// With an environment the program itself goes first on standard input.
		spec := command.Spec{Line: `cat; echo "$X"`, Stdin: []byte("in\n"), Env: map[string]string{"X": "x"}}
		if stdout, _, _ := h.line(spec); stdout != "in\nx\n" {
			t.Errorf("with environment: %q", stdout)
		}
	})
}

func TestInput(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "cat; echo end", Stdin: []byte("first "), StdinOpen: true})
	for i, part := range []string{"one ", "two "} {
		total, err := r.Input(t.Context(), []byte(part), false)
		if err != nil || total != int64(4*(i+1)) {
			t.Fatal(total, err)
		}
		r.await(t, has(part))
	}
	if total, err := r.Input(t.Context(), []byte("three "), true); err != nil || total != 14 {
		t.Fatal(total, err)
	}
	if exit, err := r.Wait(); err != nil || code(exit) != "0" {
		t.Fatal(exit, err)
	}
	if got := r.text(command.Stdout); got != "first one two three end\n" {
		t.Errorf("%q", got)
	}
	if total, err := r.Input(t.Context(), []byte("x"), false); total != 14 || fault.ReasonOf(err) != fault.ReasonStdinClosed && fault.ReasonOf(err) != fault.ReasonNotRunning {
		t.Errorf("input behind the end: %d, %v", total, err)
	}
}

func TestInputRefused(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "sleep 100"})
	if _, err := r.Input(t.Context(), []byte("x"), false); fault.ReasonOf(err) != fault.ReasonStdinClosed {
		t.Errorf("not asked for: %v", err)
	}
	r.Cancel(t.Context(), 0)
	r.Wait()

	r = h.start(command.Spec{Line: "sleep 100", StdinOpen: true})
	if _, err := r.Input(t.Context(), nil, true); err != nil {
		t.Error(err)
	}
	if _, err := r.Input(t.Context(), []byte("x"), false); fault.ReasonOf(err) != fault.ReasonStdinClosed {
		t.Errorf("behind EOF: %v", err)
	}
	r.Cancel(t.Context(), 0)
	r.Wait()

	r = h.start(command.Spec{Line: "true", StdinOpen: true})
	r.Wait()
	if _, err := r.Input(t.Context(), []byte("x"), false); fault.ReasonOf(err) != fault.ReasonNotRunning {
		t.Errorf("behind the end: %v", err)
	}
}

// A command that does not read takes what fits on the way and no more, and what
// it took is told exactly.
func TestInputBusy(t *testing.T) {
	h := start(t, sshtest.Options{})
	gate := filepath.Join(h.server.Dir, "gate")
	r := h.start(command.Spec{Line: "mkfifo " + gate + "; echo ready; read -r go <" + gate + "; wc -c", StdinOpen: true})
	r.await(t, has("ready"))
	chunk := make([]byte, 1<<20)
	var total int64
	var err error
	if total, err = r.Input(t.Context(), chunk, false); err != nil { // there is room for it
		t.Fatal(err)
	}
	ctx, cancel := t.Context(), context.CancelFunc(nil)
	for err == nil {
		ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		total, err = r.Input(ctx, chunk, false)
	}
	if fault.ReasonOf(err) != fault.ReasonInputBusy {
		t.Fatal(err)
	}
	if f := fault.From(err); total < 1<<20 || f.Metadata["stdin_bytes"] == "" {
		t.Errorf("%d bytes taken, %v", total, f.Metadata)
	}
	// A second caller does not get its turn past ctx either.
	if _, err := r.Input(ctx, chunk, false); fault.ReasonOf(err) != fault.ReasonInputBusy {
		t.Error(err)
	}
	if _, err := r.Input(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gate, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(r.text(command.Stdout)); len(got) != 2 || got[1] != itoa(total) {
		t.Errorf("the command read %v, we were told %d", got, total)
	}
}
