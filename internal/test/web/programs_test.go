package web

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/test/testenv"
)

// chromium is the browser: Debian's.
const chromium = "/usr/bin/chromium"

// browserLimit is how long the browser may take to start, and to end.
const browserLimit = time.Minute

// needs skips the test where the programs or the npm packages are not there.
func needs(t *testing.T) {
	t.Helper()
	const modules = "../../../node_modules"
	if _, err := exec.LookPath("node"); err != nil {
		testenv.Missing(t, "no node; tools/setup.sh gets it")
	}
	if _, err := os.Stat(chromium); err != nil {
		testenv.Missing(t, "no "+chromium+"; tools/setup.sh gets it")
	}
	for _, name := range []string{"playwright-core", "@axe-core/playwright"} {
		if _, err := os.Stat(filepath.Join(modules, name)); err != nil {
			testenv.Missing(t, "no "+name+" in node_modules; npm ci --ignore-scripts installs what is in package-lock.json")
		}
	}
}

// plainEnvironment is that of the programs: nothing of the developer's own
// settings, and a directory for temporary files that goes with the test.
func plainEnvironment(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	return []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TZ=UTC"}
}

// launch starts the browser, and gives the address where playwright finds it. It
// ends with the test, and nothing of it may be left.
func launch(t *testing.T) (address string) {
	t.Helper()
	environment := plainEnvironment(t)
	cmd := exec.Command("node", filepath.Join("specs", "browser.mjs"), chromium)
	cmd.Env = environment
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // its end tells the browser to go
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make(chan string, 1) // the first line, or closed; by the reader
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(first)
		lines := bufio.NewScanner(stdout)
		if lines.Scan() {
			first <- lines.Text()
		}
		for lines.Scan() {
		}
	})
	t.Cleanup(func() {
		stdin.Close()
		killer := time.AfterFunc(browserLimit, func() { _ = cmd.Process.Kill() })
		defer killer.Stop()
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the browser: %v\n%s", err, stderr.String())
		}
		left := processes(func(env, _ string) bool { return strings.Contains(env, "\x00"+environment[1]+"\x00") })
		if len(left) > 0 {
			t.Errorf("left of the browser: %q", left)
		}
	})
	select {
	case address = <-first:
	case <-time.After(browserLimit):
	}
	if !strings.HasPrefix(address, "ws://") {
		t.Fatalf("the browser did not start, and said %q", address)
	}
	return address
}

// processes gives the command lines of the processes that are meant, by their
// environment (NUL-separated, and so at both ends) and their command line.
func processes(meant func(environment, line string) bool) (lines []string) {
	all, _ := filepath.Glob("/proc/[0-9]*") // fails for no pattern but a bad one
	for _, dir := range all {
		// Nothing is read of one that has ended, or that is not ours.
		environment, _ := os.ReadFile(filepath.Join(dir, "environ"))
		text, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		line := strings.ReplaceAll(string(text), "\x00", " ")
		if line != "" && meant("\x00"+string(environment), line) {
			lines = append(lines, line)
		}
	}
	return lines
}
