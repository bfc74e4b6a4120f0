package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/test/loopback"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestAuditPage runs what docs/audit.md tells to run, in order, and its check by
// hand on the export that comes of it: once as it is, and once with a byte changed.
func TestAuditPage(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		testenv.Missing(t, "no python3, in which the check on the page is")
	}
	bins := programs(t)
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "audit.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) (all [][]byte) {
		for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(page, -1) {
			all = append(all, m[1])
		}
		return all
	}
	commands, check := block("sh"), block("python")
	if len(commands) != 3 || len(check) != 1 {
		t.Fatalf("the page has %d blocks of sh and %d of Python", len(commands), len(check))
	}
	dir := t.TempDir()
	host, err := loopback.Start(t.Context(), loopback.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	s, err := startService(t.Context(), bins, dir, host.ConfigHost("demo"), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(t.Failed(), t.Output()); err != nil {
			t.Error(err)
		}
	}()
	run := func(name string, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), name, args...)
		c.Dir = dir
		c.Env = append(withoutOurs(os.Environ()), "PATH="+bins+":"+os.Getenv("PATH"), "TELEXEC_SERVER="+s.grpc, "TELEXEC_TOKEN="+s.token.Reveal())
		out, err := c.CombinedOutput()
		if err != nil {
			return string(out) + "\nFAILED: " + err.Error()
		}
		return string(out)
	}
	telexec := filepath.Join(bins, "telexec")
	const line = `echo 'ünïcode <&> "quoted"' # in the audit`
	if out := run(telexec, "run", "demo", line); strings.Contains(out, "FAILED") {
		t.Fatal(out)
	}
	script := "set -euo pipefail\n" + string(commands[0])
	// The nightly check fails with what it has found, not with what tee has.
	if out := run("bash", "-c", string(commands[1])); strings.Contains(out, "FAILED") || strings.Count(out, "intact, ") != 2 || !strings.Contains(out, " behind row ") {
		t.Errorf("the nightly check prints\n%s", out)
	}
	for _, heads := range []string{"", "intact, 1 rows; the last is 1:" + strings.Repeat("0", 64) + "\n", "broken at row 3: its text is not what was written\n"} {
		if err := os.WriteFile(filepath.Join(dir, "heads.txt"), []byte(heads), 0o600); err != nil {
			t.Fatal(err)
		}
		nightly := strings.SplitN(string(commands[1]), "\n", 3)
		if out := run("bash", "-c", nightly[0]+"\n"+nightly[2]); !strings.Contains(out, "FAILED") || strings.Contains(out, "intact") {
			t.Errorf("with %q noted the nightly check prints\n%s", heads, out)
		}
	}
	if _, err := exec.LookPath("jq"); err == nil {
		script += string(commands[2])
	}
	out := run("bash", "-c", script)
	if strings.Contains(out, "FAILED") || !strings.Contains(out, "intact, ") || strings.Contains(script, "jq") && strings.Count(out, line) != 3 {
		t.Errorf("the commands of the page print\n%s", out) // the line: in the list accepted and ended, and what jq finds
	}
	file, export := filepath.Join(dir, "check.py"), filepath.Join(dir, "audit.jsonl")
	if err := os.WriteFile(file, check[0], 0o600); err != nil {
		t.Fatal(err)
	}
	by := run(python, file, export)
	told := strings.TrimPrefix(run(telexec, "audit", "verify", "--file", export), "intact, ")
	if by != told || strings.Contains(by, "FAILED") {
		t.Errorf("the check of the page says %q, telexec %q", by, told)
	}
	text, err := os.ReadFile(export)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(export, []byte(strings.Replace(string(text), "quoted", "Quoted", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if by := run(python, file, export); !strings.Contains(by, "row 3 is not as it was written") {
		t.Errorf("with a byte changed the check of the page says %q", by)
	}
}
