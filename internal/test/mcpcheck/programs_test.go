package mcpcheck

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The clients, as files below tools/mcp/node_modules.
const (
	inspector   = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
	conformance = "@modelcontextprotocol/conformance/dist/index.js"
)

// modules is where the clients are. The test is skipped where they are not.
func modules(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../../tools/mcp/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".package-lock.json")); err != nil {
		t.Skip("no tools/mcp/node_modules; make mcp-check installs what is in tools/mcp/package.json")
	}
	return dir
}

// result is how a client has ended.
type result struct {
	stdout, stderr string
	code           int
}

// run runs a client to its end. It has a home directory of its own, for both keep
// files there.
func run(ctx context.Context, t *testing.T, dir, client string, args ...string) result {
	t.Helper()
	// Nothing of it takes half as long, slow machines included.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node(dir), append([]string{filepath.Join(dir, client)}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + filepath.Join(dir, ".bin") + ":" + os.Getenv("PATH"), "NO_COLOR=1"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || ctx.Err() != nil) {
		t.Fatalf("%s: %v\n%s", client, errors.Join(err, ctx.Err()), stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// node is the pinned one, or that of the system where npm has none for it.
func node(dir string) string {
	if pinned := filepath.Join(dir, ".bin", "node"); exec.Command(pinned, "--version").Run() == nil {
		return pinned
	}
	return "node"
}

// serve starts telexec-mcp as a server for many, and gives its address. It is
// stopped at the end of the test, and must then end without an error.
func serve(t *testing.T, env *testenv.Env) (url string) {
	t.Helper()
	cmd := exec.Command(testenv.Build(t, "telexec-mcp"), "--server", env.GRPCAddr, "--http", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "TELEXEC_TOKEN=")
	// It must not outlive a test binary that was killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const telling = "telexec-mcp: serving MCP on "
	ready := make(chan string, 1) // sent to once, if it becomes ready; closed when stderr ends
	var log strings.Builder
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(ready)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			if url, ok := strings.CutPrefix(lines.Text(), telling); ok {
				ready <- url
			}
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended; Wait tells how
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("telexec-mcp: %v", err)
		}
		if t.Failed() {
			t.Logf("telexec-mcp wrote:\n%s", log.String())
		}
	})
	if url = <-ready; url == "" {
		t.Fatal("telexec-mcp did not become ready")
	}
	return url
}
