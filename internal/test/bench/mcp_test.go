package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// agent asks telexec-mcp, with as little between as can be: what is measured is
// the adapter and not a client's library.
type agent struct {
	// ask sends one message and gives the answer to it; one at a time.
	ask func(message []byte) ([]byte, error)
}

// adapter starts telexec-mcp for a service. It gets the environment of a client
// of that service, and ends when its standard input does or it is killed.
func adapter(env *testenv.Env, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, append([]string{"--server", env.GRPCAddr}, args...)...)
	cmd.Env = []string{"TELEXEC_TOKEN=" + env.Token.Reveal(), "HOME=" + env.Dir}
	return cmd
}

// overStdio starts an adapter and speaks to it on its standard input and output.
func overStdio(b *testing.B, env *testenv.Env, program string) agent {
	b.Helper()
	cmd := adapter(env, program)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	answers := bufio.NewReaderSize(out, 1<<20)
	a := agent{ask: func(message []byte) ([]byte, error) {
		if _, err := fmt.Fprintf(in, "%s\n", message); err != nil {
			return nil, err
		}
		return answers.ReadBytes('\n')
	}}
	if _, err := a.ask(initialize); err != nil {
		b.Fatal(err)
	}
	if _, err := io.WriteString(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`+"\n"); err != nil {
		b.Fatal(err)
	}
	return a
}

// overHTTP starts an adapter that serves HTTP, and speaks to that.
func overHTTP(b *testing.B, env *testenv.Env, program string) agent {
	b.Helper()
	cmd := adapter(env, program, "--http", "0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	url := strings.TrimSpace(line[strings.Index(line, "http://"):])
	transport := &http.Transport{}
	b.Cleanup(func() { transport.CloseIdleConnections(); cmd.Process.Kill(); cmd.Wait() })
	return agent{ask: func(message []byte) ([]byte, error) {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(message))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+env.Token.Reveal())
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("Mcp-Protocol-Version", revision)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s, %w", resp.Status, body, err)
		}
		_, data, _ := bytes.Cut(body, []byte("data: ")) // one event
		return bytes.TrimSpace(data), nil
	}}
}

// revision is the one of MCP that is spoken here.
const revision = "2025-11-25"

var initialize = []byte(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"` + revision +
	`","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`)

// told is what a tool has answered, as far as it matters here.
type told struct {
	Result struct {
		IsError           bool
		StructuredContent json.RawMessage
		Content           []struct{ Text string }
	}
}

// call calls a tool, and gives the whole answer and its size.
func (a agent) call(tool string, arguments any) (told, int, error) {
	var t told
	message, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": tool, "arguments": arguments},
	})
	if err != nil {
		return t, 0, err
	}
	answer, err := a.ask(message)
	if err != nil {
		return t, 0, err
	}
	if err := json.Unmarshal(answer, &t); err != nil {
		return t, 0, err
	}
	if t.Result.IsError || len(t.Result.Content) == 0 {
		return t, 0, fmt.Errorf("%s: %s", tool, answer)
	}
	return t, len(answer), nil
}

// shown is as much output as execute_command asks the service for by itself.
var shown = &telexecv1.OutputOptions{LimitBytes: 16 << 10}

// BenchmarkMCP is what a call of a tool costs over the gRPC call that it makes:
// execute_command of "true" and Execute, get_command_status and GetStatus, in
// turns, over stdio and over HTTP.
func BenchmarkMCP(b *testing.B) {
	_, env := setup(b)
	program := testenv.Build(b, "telexec-mcp")
	stdio, web := overStdio(b, env, program), overHTTP(b, env, program)
	commands := env.Commands()
	execute := func(ctx context.Context) (string, error) {
		res, err := commands.Execute(ctx, &telexecv1.ExecuteRequest{
			Host: env.Host, Command: "true", Wait: durationpb.New(30 * time.Second), Output: shown,
		})
		return res.GetCommand().GetId(), err
	}
	id, err := execute(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	execution := map[string]string{"host": env.Host, "command": "true"}
	question := map[string]string{"command_id": id}

	for name, rivals := range map[string][]rival{
		"execute_command": {
			{"grpc", func() error { _, err := execute(b.Context()); return err }},
			{"stdio", func() error { _, _, err := stdio.call("execute_command", execution); return err }},
			{"http", func() error { _, _, err := web.call("execute_command", execution); return err }},
		},
		"get_command_status": {
			{"grpc", func() error {
				_, err := commands.GetStatus(b.Context(), &telexecv1.GetStatusRequest{CommandId: id, Output: shown})
				return err
			}},
			{"stdio", func() error { _, _, err := stdio.call("get_command_status", question); return err }},
			{"http", func() error { _, _, err := web.call("get_command_status", question); return err }},
		},
	} {
		b.Run(name, func(b *testing.B) {
			times := make([][]time.Duration, len(rivals))
			for _, r := range rivals { // warm
				for range 5 {
					if err := r.run(); err != nil {
						b.Fatal(r.name, err)
					}
				}
			}
			for b.Loop() {
				for i, r := range rivals {
					begin := time.Now()
					if err := r.run(); err != nil {
						b.Fatal(r.name, err)
					}
					times[i] = append(times[i], time.Since(begin))
				}
			}
			for i, r := range rivals {
				for _, p := range []int{50, 95} {
					b.ReportMetric(ms(percentile(times[i], p)), fmt.Sprintf("%s-p%d-ms", r.name, p))
					if i > 0 {
						b.ReportMetric(ms(percentile(times[i], p)-percentile(times[0], p)), fmt.Sprintf("%s-over-grpc-p%d-ms", r.name, p))
					}
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkMCPStart is the time from the start of telexec-mcp to its answer to
// initialize, which is what an agent's program waits for when it opens.
func BenchmarkMCPStart(b *testing.B) {
	env := testenv.Start(b, testenv.WithoutHosts())
	program := testenv.Build(b, "telexec-mcp")
	var times []time.Duration
	for b.Loop() {
		cmd := adapter(env, program)
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		if _, err := fmt.Fprintf(in, "%s\n", initialize); err != nil {
			b.Fatal(err)
		}
		answer, err := bufio.NewReader(out).ReadString('\n')
		times = append(times, time.Since(begin))
		if err != nil || !strings.Contains(answer, `"serverInfo"`) {
			b.Fatalf("%q, %v", answer, err)
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(ms(percentile(times, 50)), "p50-ms")
	b.ReportMetric(ms(percentile(times, 95)), "p95-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMCPLargeOutput is what 50 MB of output cost a model that has asked for
// nothing special: bytes of text, and of the whole answer, which carries the
// output twice, for programs and for models. After that the time of a page from
// the middle.
func BenchmarkMCPLargeOutput(b *testing.B) {
	_, env := setup(b)
	a := overStdio(b, env, testenv.Build(b, "telexec-mcp"))
	const size = 50_000_000
	run := map[string]any{"host": env.Host, "command": fmt.Sprintf("yes 'a line of fifty bytes, as logs of builds have them' | head -c %d", size), "wait_seconds": 50}
	var pages []time.Duration
	var text, whole int
	for b.Loop() {
		answer, n, err := a.call("execute_command", run)
		if err != nil {
			b.Fatal(err)
		}
		var facts struct {
			ID     string `json:"command_id"`
			Ended  bool
			Stdout struct{ Bytes int64 } `json:"stdout_info"`
		}
		if err := json.Unmarshal(answer.Result.StructuredContent, &facts); err != nil {
			b.Fatal(err)
		}
		if !facts.Ended || facts.Stdout.Bytes != size {
			b.Fatalf("ended %v with %d bytes", facts.Ended, facts.Stdout.Bytes)
		}
		text, whole = len(answer.Result.Content[0].Text), n
		for i := range 20 {
			begin := time.Now()
			if _, _, err := a.call("get_command_output", map[string]any{"command_id": facts.ID, "offset": size / 20 * i}); err != nil {
				b.Fatal(err)
			}
			pages = append(pages, time.Since(begin))
		}
	}
	b.ReportMetric(float64(text), "text-bytes")
	b.ReportMetric(float64(whole), "answer-bytes")
	b.ReportMetric(ms(percentile(pages, 50)), "page-p50-ms")
	b.ReportMetric(ms(percentile(pages, 95)), "page-p95-ms")
	b.ReportMetric(0, "ns/op")
}
