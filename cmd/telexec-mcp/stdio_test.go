package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/telexec/telexec/internal/test/testenv"
)

// hello is what a client of an older protocol begins with.
const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
`

func callLine(id int, tool, arguments string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%q,"arguments":%s}}`+"\n", id, tool, arguments)
}

func TestStdio(t *testing.T) {
	e := testenv.Start(t)
	t.Run("a client that stays", func(t *testing.T) {
		p := start(t, forService(e))
		session := connect(t, &mcp.IOTransport{Reader: p.stdout, Writer: p.stdin})
		tools, err := session.ListTools(t.Context(), nil)
		if err != nil || len(tools.Tools) == 0 {
			t.Fatalf("tools %v, %v", tools, err)
		}
		r, err := session.CallTool(t.Context(), &mcp.CallToolParams{
			Name: "execute_command", Arguments: map[string]any{"host": e.Host, "command": "echo hello", "wait_seconds": 30},
		})
		if err != nil || r.IsError || !strings.Contains(text(r), "hello") {
			t.Errorf("%v, %v", r, err)
		}
		session.Close() // closes the pipe
		if code := p.exit(t); code != 0 || p.stderr.String() != "" {
			t.Errorf("code %d, %q", code, p.stderr)
		}
	})
	t.Run("a script that closes its end first", func(t *testing.T) {
		p := start(t, forService(e))
		_, _ = io.WriteString(p.stdin, hello+callLine(2, "list_hosts", "{}"))
		p.stdin.Close()
		out, err := io.ReadAll(p.stdout)
		if code := p.exit(t); code != 0 || err != nil {
			t.Errorf("code %d, %v", code, err)
		}
		answers := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(answers) != 2 || !strings.Contains(string(out), e.Host) {
			t.Errorf("%d answers: %s", len(answers), out)
		}
		for _, line := range answers {
			var message struct{ JSONRPC string }
			if err := json.Unmarshal([]byte(line), &message); err != nil || message.JSONRPC != "2.0" {
				t.Errorf("not a message: %s", line)
			}
		}
	})
	for _, how := range []string{"the end of input", "a signal"} {
		t.Run(how+" with a call under way", func(t *testing.T) {
			p := start(t, forService(e))
			_, _ = io.WriteString(p.stdin, hello+callLine(2, "execute_command", `{"host":"web1","command":"sleep 600","wait_seconds":50}`))
			cmd := running(t, e)
			began := time.Now()
			if how == "a signal" {
				p.stop()
			} else {
				p.stdin.Close()
			}
			if code := p.exit(t); code != 0 || p.stderr.String() != "" {
				t.Errorf("code %d, %q", code, p.stderr)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			goesOn(t, e, cmd)
		})
	}
	t.Run("a client that does not listen", func(t *testing.T) {
		p := start(t, forService(e))
		p.stdout.Close()
		_, _ = io.WriteString(p.stdin, hello)
		if code := p.exit(t); code != 1 || !strings.Contains(p.stderr.String(), "cannot write to standard output") {
			t.Errorf("code %d, %q", code, p.stderr)
		}
	})
	t.Run("input that is no MCP", func(t *testing.T) {
		p := start(t, forService(e))
		_, _ = io.WriteString(p.stdin, "help\n")
		if code := p.exit(t); code != 1 || !strings.Contains(p.stderr.String(), "telexec-mcp: standard input is no MCP: ") {
			t.Errorf("code %d, %q", code, p.stderr)
		}
	})
}

// The program does not need the service to start: an agent's program would take
// that for a broken adapter, and not come back.
func TestStdioWithoutService(t *testing.T) {
	p := start(t, map[string]string{"TELEXEC_SERVER": nowhere})
	session := connect(t, &mcp.IOTransport{Reader: p.stdout, Writer: p.stdin})
	if tools, err := session.ListTools(t.Context(), nil); err != nil || len(tools.Tools) == 0 {
		t.Fatalf("tools %v, %v", tools, err)
	}
	r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "list_hosts"})
	if err != nil || !r.IsError || !strings.Contains(text(r), "cannot be reached") {
		t.Errorf("%v, %v", r, err)
	}
}

// script is a connection that gives these requests and then ends.
type script struct {
	requests []*jsonrpc.Request
}

func (s *script) Read(context.Context) (jsonrpc.Message, error) {
	if len(s.requests) == 0 {
		return nil, io.EOF
	}
	r := s.requests[0]
	s.requests = s.requests[1:]
	return r, nil
}

func (*script) Write(context.Context, jsonrpc.Message) error { return nil }
func (*script) Close() error                                 { return nil }
func (*script) SessionID() string                            { return "" }

func TestEndOfInputWaitsForAnswers(t *testing.T) {
	id := func(n float64) jsonrpc.ID {
		id, err := jsonrpc.MakeID(n)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	for _, tt := range []struct {
		name     string
		requests []*jsonrpc.Request
		answered map[float64]time.Duration // when, by id
		want     time.Duration
	}{
		{"nothing to wait for", nil, nil, 0},
		{"a notification", []*jsonrpc.Request{{Method: "notifications/initialized"}}, nil, 0},
		{"a subscription, which has no end", []*jsonrpc.Request{{ID: id(1), Method: "subscriptions/listen"}}, nil, 0},
		{"two calls", []*jsonrpc.Request{{ID: id(1), Method: "a"}, {ID: id(2), Method: "b"}},
			map[float64]time.Duration{1: 100 * time.Millisecond, 2: 200 * time.Millisecond}, 200 * time.Millisecond},
		{"a call that takes too long", []*jsonrpc.Request{{ID: id(1), Method: "a"}, {ID: id(2), Method: "b"}},
			map[float64]time.Duration{1: 100 * time.Millisecond}, lastAnswers},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(&script{requests: tt.requests})
				for range tt.requests {
					if _, err := p.Read(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				for n, delay := range tt.answered {
					time.AfterFunc(delay, func() { _ = p.Write(t.Context(), &jsonrpc.Response{ID: id(n)}) })
				}
				began := time.Now()
				if _, err := p.Read(t.Context()); !errors.Is(err, io.EOF) {
					t.Errorf("read: %v", err)
				}
				if took := time.Since(began); took != tt.want {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
			})
		})
	}
}

// The program itself: what main adds are signals and the pipe that broke.
func TestProcess(t *testing.T) {
	program := testenv.Build(t, "telexec-mcp")
	begin := func(t *testing.T) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader, closeOut func()) {
		cmd = exec.CommandContext(t.Context(), program, "--server", nowhere)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		r, w := pipes(t)
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		_, _ = io.WriteString(in, hello)
		out = bufio.NewReader(r)
		if line, err := out.ReadString('\n'); err != nil || !strings.Contains(line, `"serverInfo"`) {
			t.Fatalf("%q, %v", line, err)
		}
		return cmd, in, out, func() { r.Close() }
	}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			cmd, _, _, _ := begin(t)
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("end of input", func(t *testing.T) {
		cmd, in, _, _ := begin(t)
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	for name, end := range map[string]func(*exec.Cmd, io.WriteCloser){
		"end of input": func(_ *exec.Cmd, in io.WriteCloser) { in.Close() },
		"signal":       func(cmd *exec.Cmd, _ io.WriteCloser) { _ = cmd.Process.Signal(syscall.SIGTERM) },
	} {
		// The answers fill the pipe, so that the program is stuck in writing.
		t.Run("a client that does not read, "+name, func(t *testing.T) {
			cmd, in, _, _ := begin(t)
			for i := range 12 {
				_, _ = io.WriteString(in, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/list"}`+"\n", i+2))
			}
			end(cmd, in)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	// What is not read is not made either: the input of such a client is not taken.
	t.Run("a client that writes and does not read", func(t *testing.T) {
		cmd, in, _, _ := begin(t)
		var sent atomic.Int64
		stuck := make(chan struct{}) // closed when writing has failed: the program is gone
		go func() {
			defer close(stuck)
			for i := range 200_000 {
				if _, err := io.WriteString(in, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/list"}`+"\n", i+2)); err != nil {
					return
				}
				sent.Add(1)
			}
		}()
		for last := int64(-1); last < maxOpen || last != sent.Load(); { // until no more is taken
			last = sent.Load()
			select {
			case <-stuck:
				t.Fatal("the program has ended")
			case <-time.After(500 * time.Millisecond):
			}
		}
		if n := sent.Load(); n > 10_000 {
			t.Errorf("%d calls were taken", n)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		<-stuck
	})
	t.Run("a client that was killed", func(t *testing.T) {
		cmd, in, _, closeOut := begin(t)
		closeOut()
		_, _ = io.WriteString(in, callLine(2, "list_hosts", "{}"))
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("code %d", code)
		}
	})
}
