package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/test/loopback"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

var update = flag.Bool("update", false, "write the answers in docs/mcp.md anew")

// agent speaks to a telexec-mcp on its standard input and output, a line each.
type agent struct {
	t    *testing.T
	send *json.Encoder
	told *bufio.Reader
}

// ask sends a request and gives its result.
func (a *agent) ask(method string, params, result any) {
	a.t.Helper()
	request := map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
	if err := a.send.Encode(request); err != nil {
		a.t.Fatal(err)
	}
	line, err := a.told.ReadBytes('\n')
	if err != nil {
		a.t.Fatal(err)
	}
	answer := struct {
		Result any
		Error  json.RawMessage
	}{Result: result}
	if err := json.Unmarshal(line, &answer); err != nil || answer.Error != nil {
		a.t.Fatalf("%s: %s, %v", method, line, err)
	}
}

// startAgent starts telexec-mcp for a service.
func startAgent(t *testing.T, s *service) *agent {
	t.Helper()
	cmd := exec.Command(testenv.Build(t, "telexec-mcp"), "--server", s.grpc)
	cmd.Env = append(withoutOurs(os.Environ()), "TELEXEC_TOKEN="+s.token.Reveal())
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	a := &agent{t: t, send: json.NewEncoder(in), told: bufio.NewReader(out)}
	a.ask("initialize", map[string]any{
		"protocolVersion": "2025-11-25", "capabilities": struct{}{}, "clientInfo": map[string]string{"name": "docs", "version": "1"},
	}, nil)
	return a
}

// What the transcripts of docs/mcp.md hold that is another at every run.
var (
	idForm  = regexp.MustCompile(`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`)
	varying = []struct {
		form *regexp.Regexp
		name string
	}{
		{regexp.MustCompile(`=== [0-9a-f]{8}`), "=== MARK"},
		{regexp.MustCompile(` after [0-9.]+ s\b`), ""},                // left out where it is very short
		{regexp.MustCompile(`cancelled, exit code \d+`), "cancelled"}, // of the signal that was needed
		{regexp.MustCompile(`(HUP|INT|TERM|KILL) ended \d+ process(es)?|the shell has told that it ended`), "SIGNAL ended them"},
		{regexp.MustCompile(`(?m)^((tmux|screen|dtach) keeps it when|It ends when) the connection to its host is lost.*$`), "KEEPER"}, // of what is installed
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
		{regexp.MustCompile(`\S+@\S+:\d+`), "LOGIN"},
	}
)

// constant writes text in the same way at every run.
func constant(text string) string {
	for i, id := range firsts(idForm.FindAllString(text, -1)) {
		text = strings.ReplaceAll(text, id, fmt.Sprintf("ID-%d", i))
	}
	for _, v := range varying {
		text = v.form.ReplaceAllString(text, v.name)
	}
	return text
}

// firsts leaves out what was there before.
func firsts(all []string) (kept []string) {
	for _, s := range all {
		if !slices.Contains(kept, s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// TestMCPPage holds docs/mcp.md against the real programs: the answers in its
// transcripts (fenced as "mcp"; "> TOOL ARGUMENTS" is a call) are those that a
// model gets, by a service with the configuration that the page shows (fenced as
// "yaml"), its settings are JSON, and no tool is missing. The sessions of the page are on
// web1, a real sshd.
func TestMCPPage(t *testing.T) {
	const name = "../../../docs/mcp.md"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, block := range regexp.MustCompile("(?ms)^```json\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		if !json.Valid([]byte(block[1])) {
			t.Errorf("no JSON:\n%s", block[1])
		}
	}

	dir := t.TempDir()
	host, err := loopback.Start(t.Context(), loopback.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	terminals := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	config := host.ConfigHost("demo") + fmt.Sprintf("  - {name: web1, address: %q, user: %q, identity_file: %q, known_hosts_file: %q}\n",
		terminals.Addr, terminals.User, terminals.IdentityFile, terminals.KnownHostsFile)
	for _, block := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		config += block[1] // so that the answers are those of the rules that the page shows
	}
	s, err := startService(t.Context(), filepath.Dir(testenv.Build(t, "telexecd")), dir, config, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the agent's
		if err := s.stop(t.Failed(), t.Output()); err != nil {
			t.Error(err)
		}
	})
	a := startAgent(t, s)

	var listed struct{ Tools []struct{ Name string } }
	a.ask("tools/list", struct{}{}, &listed)
	if len(listed.Tools) < 10 {
		t.Errorf("only %d tools", len(listed.Tools))
	}
	for _, tool := range listed.Tools {
		if !strings.Contains(page, "`"+tool.Name+"`") {
			t.Errorf("the page says nothing of %s", tool.Name)
		}
	}

	// Ids are others at every run; the nth of the page is the nth of this run.
	transcripts := regexp.MustCompile("(?ms)^```mcp\n(.*?)^```$")
	inPage := firsts(idForm.FindAllString(strings.Join(transcripts.FindAllString(page, -1), ""), -1))
	var ours []string
	calls := 0
	now := transcripts.ReplaceAllStringFunc(page, func(block string) string {
		var run strings.Builder
		run.WriteString("```mcp\n")
		for line := range strings.Lines(block) {
			call, ok := strings.CutPrefix(line, "> ")
			if !ok {
				continue
			}
			calls++
			for i, id := range ours[:min(len(ours), len(inPage))] {
				call = strings.ReplaceAll(call, inPage[i], id)
			}
			tool, arguments, _ := strings.Cut(strings.TrimSpace(call), " ")
			var result struct{ Content []struct{ Text string } }
			a.ask("tools/call", map[string]any{"name": tool, "arguments": json.RawMessage(arguments)}, &result)
			text := result.Content[0].Text
			ours = firsts(append(ours, idForm.FindAllString(text, -1)...))
			run.WriteString("> " + call + text + "\n")
		}
		return run.String() + "```"
	})
	if calls < 10 {
		t.Errorf("found %d calls only", calls)
	}
	if constant(now) == constant(page) {
		return
	}
	if *update {
		if err := os.WriteFile(name, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	was := strings.Split(constant(page), "\n")
	for i, line := range strings.Split(constant(now), "\n") {
		if i >= len(was) || line != was[i] {
			t.Fatalf("docs/mcp.md differs from what the tools answer (-update writes it anew), first in line %d:\nnow %s\nwas %s", i+1, line, was[min(i, len(was)-1)])
		}
	}
	t.Fatal("docs/mcp.md has more lines than the tools answer (-update writes it anew)")
}
