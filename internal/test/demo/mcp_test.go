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

// sectionsAndTranscripts are the headings of a page, and its transcripts.
var sectionsAndTranscripts = regexp.MustCompile("(?m)^## .*$|^```mcp\n(?s:.*?)^```$")

// rerun gives a page with the answers in its transcripts as ask gives them. Ids are others
// at every run. Those that a call names are of answers above it in the same section, and
// taken from the same place of the same call's answer now; a call that names another one is
// an error, for it would be about something that the reader has not seen.
func rerun(page string, ask func(call string) (answer string)) (now string, err error) {
	ours := map[string]string{} // by the id in the page, of the section
	now = sectionsAndTranscripts.ReplaceAllStringFunc(page, func(piece string) string {
		if strings.HasPrefix(piece, "## ") {
			clear(ours)
			return piece
		}
		var run strings.Builder
		run.WriteString("```mcp\n")
		for told := range strings.SplitSeq(strings.TrimSuffix(piece, "```"), "\n> ") {
			if told == "```mcp" || err != nil {
				continue
			}
			call, was, _ := strings.Cut(told, "\n")
			call = idForm.ReplaceAllStringFunc(call, func(id string) string {
				if ours[id] == "" {
					err = fmt.Errorf("the id %s in %q is of no answer above it in its section, or of one that has another number of ids now", id, call)
				}
				return ours[id]
			})
			if err != nil {
				continue
			}
			answer := ask(call)
			fmt.Fprintf(&run, "> %s\n%s\n", call, answer)
			before, after := firsts(idForm.FindAllString(was, -1)), firsts(idForm.FindAllString(answer, -1))
			for i, id := range before {
				if len(before) == len(after) && ours[id] == "" {
					ours[id] = after[i]
				}
			}
		}
		return run.String() + "```"
	})
	return now, err
}

// TestRerun: what a call names stays what it was, whatever is written above it; what it
// cannot name is an error.
func TestRerun(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("01%024d", n) }
	made := 0
	ask := func(call string) string {
		if of := idForm.FindString(call); of != "" {
			return "status of " + of
		}
		made++
		return "started " + id(100+made)
	}
	start, look := "> start {}\nstarted %s\n", "> look {%q}\nstatus of %[1]s\n"
	section := func(blocks ...string) string {
		return "## A\n\n```mcp\n" + strings.Join(blocks, "```\n\n```mcp\n") + "```\n"
	}
	old := section(fmt.Sprintf(start, id(1)), fmt.Sprintf(look, id(1))) + "\n" + section(fmt.Sprintf(start+look, id(2), id(2)))
	for name, above := range map[string]string{
		"as it was": "", "a call that is new": section("> start {}\n"), "calls that have answers": section("> start {}\n", fmt.Sprintf(start+start, id(3), id(4))),
	} {
		now, err := rerun(above+old, ask)
		want := strings.NewReplacer(id(1), id(99+made), id(2), id(100+made)).Replace(old)
		if err != nil || !strings.HasSuffix(now, want) {
			t.Errorf("%s: %v\n%s", name, err, now)
		}
	}
	for name, page := range map[string]string{
		"of another section": old + section(fmt.Sprintf(look, id(2))),
		"of no answer":       section(fmt.Sprintf(look, id(5))),
		"of a call below":    section(fmt.Sprintf(look+start, id(5), id(5))),
		"of which it is not known which one it is now": section(fmt.Sprintf("> start {}\nstarted %s and %s\n"+look, id(1), id(2), id(2))),
	} {
		if now, err := rerun(page, ask); err == nil {
			t.Errorf("an id %s is no error:\n%s", name, now)
		}
	}
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

	calls := 0
	now, err := rerun(page, func(call string) string {
		calls++
		tool, arguments, _ := strings.Cut(call, " ")
		var result struct{ Content []struct{ Text string } }
		a.ask("tools/call", map[string]any{"name": tool, "arguments": json.RawMessage(arguments)}, &result)
		return result.Content[0].Text
	})
	if err != nil {
		t.Fatal(err)
	}
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
