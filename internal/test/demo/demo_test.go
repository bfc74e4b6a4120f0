package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/test/loopback"
	"github.com/telexec/telexec/internal/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// programs gives the folder with the real programs.
func programs(t *testing.T) string {
	testenv.Build(t, "telexec")
	return filepath.Dir(testenv.Build(t, "telexecd"))
}

func TestDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	bins := programs(t)
	var out, problems bytes.Buffer
	if err := run(t.Context(), []string{"-bin", bins}, &out, &problems); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), problems.String())
	}
	for _, want := range []string{
		"$ telexec hosts\n", "$ telexec run demo 'for step", "step 5 of 5\n", "$ telexec status ", "$ telexec run --detach demo ",
		"# telexecd\n", "line 12 of 12\n", "Nothing lost", "$ telexec cancel ", "gone", "$ telexec session open demo", "42 in /tmp\n", "$ telexec task submit ", "$ telexec history\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not show %q", want)
		}
	}
	if strings.Contains(out.String(), "\x1b[") {
		t.Error("colours where there is no terminal")
	}
	if !strings.HasPrefix(problems.String(), "a word on stderr\n") {
		t.Errorf("on standard error: %q", problems.String())
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A demo that cannot go as it should fails, and shows why.
func TestDemoFails(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"an unknown flag":    {[]string{"-nope"}, "not defined"},
		"no programs":        {[]string{"-bin", t.TempDir()}, "starting telexecd"},
		"another telexecd":   {[]string{"-bin", fake(t, "echo telexecd 1.0")}, `says "telexecd 1.0"`},
		"one that ends":      {[]string{"-bin", fake(t, "echo no store >&2; exit 1")}, "ended before it was ready"},
		"one without tokens": {[]string{"-bin", fake(t, "echo ready grpc=a http=b")}, "admin.token"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), test.args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// fake gives a folder in which telexecd is a script.
func fake(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "telexecd"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What the typist expects and does not get is told.
func TestTypistIsStrict(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho it is fine; exit 3\n"
	if err := os.WriteFile(filepath.Join(dir, "telexec"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	typing := typist{out: io.Discard, stderr: io.Discard, bin: dir, service: &service{}}
	if _, err := typing.types(t.Context(), 3, []string{"FINE"}, "ps"); err != nil {
		t.Error(err)
	}
	if _, err := typing.types(t.Context(), 0, nil, "ps"); err == nil || !strings.Contains(err.Error(), "exit code 3, want 0") {
		t.Errorf("another exit code: %v", err)
	}
	if _, err := typing.types(t.Context(), 3, []string{"gone"}, "ps"); err == nil || !strings.Contains(err.Error(), `no "gone"`) {
		t.Errorf("another output: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := typing.types(ended, 3, nil, "ps"); err == nil || err.Error() != "interrupted" {
		t.Errorf("interrupted: %v", err)
	}
	if err := appears(ended, "01J00000000000000000000000"); err == nil {
		t.Error("a command that there is not appears")
	}
}

// "make run" tells how to use the service, as lines for a shell, and they work.
func TestStay(t *testing.T) {
	bins := programs(t)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	told, tell := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"-bin", bins, "-stay"}, tell, t.Output())
		tell.Close()
		ended <- err
	}()
	var lines bytes.Buffer
	buffer := make([]byte, 4096)
	for !strings.Contains(lines.String(), "# Ctrl-C") {
		n, err := told.Read(buffer)
		if err != nil {
			t.Fatalf("after %q: %v, %v", lines.String(), err, <-ended)
		}
		lines.Write(buffer[:n])
	}
	go func() { _, _ = io.Copy(io.Discard, told) }()
	var exports []string
	for line := range strings.Lines(lines.String()) {
		if strings.HasPrefix(line, "export ") {
			exports = append(exports, line)
		}
	}
	line := "telexec run demo 'echo it works'; telexec session open demo >/dev/null; telexec session run -d demo 'sleep 1000' >/dev/null; telexec session ls --json"
	out, err := exec.CommandContext(t.Context(), "bash", "-c", strings.Join(exports, "")+line).CombinedOutput()
	works, listed, _ := strings.Cut(string(out), "\n")
	var open struct{ ID string }
	if err := errors.Join(err, json.Unmarshal([]byte(listed), &open)); err != nil || works != "it works" {
		t.Errorf("printed %q, %v, after\n%s", out, err, lines.String())
	}
	end()
	if err := <-ended; err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	// Not even what keeps a shell is left.
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if words, err := os.ReadFile(f); err == nil && open.ID != "" && bytes.Contains(words, []byte(open.ID)) {
			t.Errorf("left: %q", words)
		}
	}
}

// TestGuide runs every sh block of docs/guide.md, in order, against a service
// with a host named demo.
func TestGuide(t *testing.T) {
	bins, tools := programs(t), filepath.Dir(testenv.Tool(t, "grpcurl"))
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "guide.md"))
	if err != nil {
		t.Fatal(err)
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

	var script strings.Builder
	// A failing line is told and the next one runs; curl fails where HTTP does.
	script.WriteString(`trap 'echo "FAILED with $?: $BASH_COMMAND"' ERR
set -uo pipefail
curl() { command curl --fail-with-body "$@"; }
`)
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(page, -1)
	if len(blocks) < 8 {
		t.Fatalf("found %d blocks only", len(blocks))
	}
	for i, block := range blocks {
		fmt.Fprintf(&script, "echo '== block %d'\n%s", i, block[1])
		if i == 0 { // it says where the service is in the reader's case
			fmt.Fprintf(&script, "URL=http://%s\n", s.http)
		}
	}
	shell := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	shell.Dir = dir
	shell.Env = append(withoutOurs(os.Environ()),
		"PATH="+bins+":"+tools+":"+os.Getenv("PATH"), "TELEXEC_SERVER="+s.grpc, "TELEXEC_TOKEN="+s.token.Reveal())
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Errorf("the last line failed: %v", err)
	}
	failed := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool {
		return !strings.Contains(line, "FAILED") || strings.Contains(line, "uname -s; exit 3") // whose point it is
	})
	failed = slices.DeleteFunc(failed, func(line string) bool { return strings.Contains(line, "COMMAND_STATE_FAILED") })
	if len(failed) > 0 {
		t.Errorf("%d lines failed:\n%s\nall:\n%s", len(failed), strings.Join(failed, "\n"), out)
	}
	// protojson puts blanks where it likes.
	dense := strings.ReplaceAll(string(out), " ", "")
	for _, want := range []string{
		"Linux\nFAILEDwith3:telexecrundemo'uname-s;exit3'\n3\n", // the exit code is telexec's
		`"exitCode":3`,                           // and REST's
		`twowords\n`,                             // arguments arrive
		"line1\nline2\n",                         // logs -f
		`"outputComplete":{"stdoutBytes":"35"`,   // the stream of REST
		"\"outputComplete\":{\n\"stdoutBytes\":", // and of gRPC
		`"stdinBytes":"12"`,                      // hello and again
		"hello\nagain\n",                         // which cat gives back
		`CANCEL_OUTCOME_ALREADY_ENDED`,           // the second cancel is harmless
		`"ok":true`,                              // the check of the host
	} {
		if !strings.Contains(dense, want) {
			t.Errorf("the output has no %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
