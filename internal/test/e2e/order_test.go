package e2e

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// merged gives the output of a command as its stream tells it, each run of one stream
// behind its name, and checks that the positions follow each other.
func merged(t testing.TB, env *testenv.Env, r *telexecv1.StreamOutputRequest) string {
	t.Helper()
	s, err := env.Commands().StreamOutput(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	last := telexecv1.Stream_STREAM_UNSPECIFIED
	for next := r.GetPosition(); ; {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		c := m.GetChunk()
		if c == nil {
			continue
		}
		if c.GetPosition() != next {
			t.Errorf("%q at position %d, want %d", c.GetData(), c.GetPosition(), next)
		}
		if next = c.GetPosition() + int64(len(c.GetData())); c.GetStream() != last {
			fmt.Fprintf(&text, "|%s ", map[telexecv1.Stream]string{telexecv1.Stream_STREAM_STDOUT: "out", telexecv1.Stream_STREAM_STDERR: "err"}[c.GetStream()])
		}
		last = c.GetStream()
		text.WriteString(strings.ReplaceAll(string(c.GetData()), "\n", "."))
	}
}

// TestOrderOfBothStreams: what a command says in turn on both streams is told in turn,
// while it runs, after the service was killed in its middle, and after its end.
func TestOrderOfBothStreams(t *testing.T) {
	env := testenv.Start(t)
	id := begin(t, env, &telexecv1.ExecuteRequest{StdinOpen: true, Durability: telexecv1.Durability_DURABILITY_DURABLE,
		Command: "for i in 1 2; do echo e$i >&2; sleep 0.3; echo o$i; sleep 0.3; echo E$i >&2; read x; done"})
	told := "|err e1.|out o1.|err E1."
	await(t, env, id, func(c *telexecv1.Command) bool { return c.GetStderrBytes() == 6 })
	if got := merged(t, env, &telexecv1.StreamOutputRequest{CommandId: id}); got != told {
		t.Errorf("while it runs: %s", got)
	}
	env.Kill()
	env.Restart()
	if got := merged(t, env, &telexecv1.StreamOutputRequest{CommandId: id}); got != told {
		t.Errorf("after the kill: %s", got)
	}
	answer := func() {
		if _, err := env.Commands().SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: id, Data: []byte("\n")}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, env, id, func(c *telexecv1.Command) bool {
		return c.GetConnection() == telexecv1.Connection_CONNECTION_CONNECTED
	})
	answer()
	await(t, env, id, func(c *telexecv1.Command) bool { return c.GetStderrBytes() == 12 })
	answer()
	told = "|err e1.|out o1.|err E1.e2.|out o2.|err E2."
	for _, when := range []string{"to its end", "after its end"} {
		if got := merged(t, env, &telexecv1.StreamOutputRequest{CommandId: id, Follow: true}); got != told {
			t.Errorf("%s: %s", when, got)
		}
	}
	at := int64(4)
	if got := merged(t, env, &telexecv1.StreamOutputRequest{CommandId: id, Position: &at, LimitBytes: 9}); got != "|out 1.|err E1.e2.|out o" {
		t.Errorf("a page: %s", got)
	}
}
