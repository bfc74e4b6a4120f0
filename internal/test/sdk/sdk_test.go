package sdk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/test/testenv"
)

// only runs some of the cases: go test ./internal/test/sdk -args -sdk.run restart
var only = flag.String("sdk.run", ".", "run only the cases whose names match this expression of JavaScript")

// The tests wait more than they compute, so that more than there are processors run
// at once, unless -parallel says how many.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "5"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if shared.dir != "" {
			_ = os.RemoveAll(shared.dir)
		}
		os.Exit(code)
	}))
}

// suiteLimit is how long a run of a suite may take, slow machines included.
const suiteLimit = 8 * time.Minute

// config is what the cases want of the service: an approval that they can give
// themselves, and room for those that ask a lot.
const config = `
rate_limits:
  principal: {start: 0, read: 0, list: 0, stream: 0, streams: 0}
  address: {start: 0, read: 0, list: 0, stream: 0, failures: 0}
policy: {rules: [{name: ask, effect: require_approval, match: {programs: [factor]}, approval: {roles: [admin], allow_self: true}}]}
`

// TestNode runs all cases in Node without a WebSocket, so that the SDK polls; and
// with one.
func TestNode(t *testing.T) {
	t.Parallel()
	w := theWorkshop(t)
	for _, socket := range []bool{false, true} {
		t.Run(fmt.Sprintf("WebSocket=%v", socket), func(t *testing.T) {
			t.Parallel()
			env := testenv.Start(t, testenv.WithConfig(config), testenv.WithMaxCommands(150))
			w.test(t, env, nil, w.flags(socket), "service.test.js")
		})
	}
}

// TestAlone runs what needs no service.
func TestAlone(t *testing.T) {
	t.Parallel()
	w := theWorkshop(t)
	for _, name := range []string{"unit.test.js", "follow.test.js", "terminal.test.js"} {
		t.Log(w.output(t, w.dir, w.node, append(w.testing(), filepath.Join(w.dir, "compiled", "test", name))...))
	}
}

// workshop is a directory with the package as a user has it, and its compiled tests.
type workshop struct {
	root  string // of the repository
	dir   string
	node  string
	major int // of node's version
}

// shared is the workshop of all tests, which only read it.
var shared struct {
	once sync.Once
	dir  string // empty until it is made
	*workshop
}

// theWorkshop packs and compiles, once; some seconds.
func theWorkshop(t *testing.T) *workshop {
	t.Helper()
	shared.once.Do(func() { shared.workshop = newWorkshop(t) })
	if shared.workshop == nil {
		testenv.Missing(t, "the package could not be made; another test says why")
	}
	return shared.workshop
}

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if shared.dir, err = os.MkdirTemp("", "telexec-sdk-"); err != nil {
		t.Fatal(err)
	}
	w := &workshop{root: root, dir: shared.dir}
	if w.node, err = exec.LookPath("node"); err != nil {
		testenv.Missing(t, "there is no node; tools/setup.sh says how to get it")
	}
	if _, err := os.Stat(filepath.Join(root, "node_modules", ".package-lock.json")); err != nil {
		testenv.Missing(t, "there is no node_modules; make sdk installs what package.json names")
	}
	version := w.output(t, w.dir, w.node, "--version")
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if w.major, err = strconv.Atoi(major); err != nil {
		t.Fatalf("node calls itself %q", version)
	}

	source := filepath.Join(root, "sdk", "typescript")
	copied := filepath.Join(w.dir, "source")
	if err := os.CopyFS(filepath.Join(copied, "src"), os.DirFS(filepath.Join(source, "src"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "README.md", "LICENSE"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tsc := filepath.Join(root, "node_modules", ".bin", "tsc")
	w.output(t, source, tsc, "-p", "tsconfig.json", "--outDir", filepath.Join(copied, "dist"))
	w.output(t, source, tsc, "-p", "test/tsconfig.json", "--noEmit", "false", "--outDir", filepath.Join(w.dir, "compiled"))

	// As npm install lays it.
	installed := filepath.Join(w.dir, "node_modules", "@telexec", "client")
	packed := w.output(t, copied, "npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", w.dir)
	if err := os.MkdirAll(installed, 0o755); err != nil {
		t.Fatal(err)
	}
	w.output(t, w.dir, "tar", "-xzf", filepath.Join(w.dir, packed), "-C", installed, "--strip-components=1")
	for _, name := range []string{"@bufbuild", "@types", "undici-types", "playwright-core"} {
		if err := os.Symlink(filepath.Join(root, "node_modules", name), filepath.Join(w.dir, "node_modules", name)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// output runs a program to its end, and gives what it wrote, without the last line's
// end.
func (w *workshop) output(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(w.environment(), "npm_config_offline=true")
	tie(cmd)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// tie has a program and its children end when they are to, and the program with the
// test binary, also where that is killed: what a child of node's waits for is node.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// testing gives the flags of node for a file of tests, which it runs in its own
// process: node --test would start another, which nothing ends with it.
func (w *workshop) testing() []string {
	return []string{"--enable-source-maps", "--test-reporter=spec", "--test-name-pattern=" + *only}
}

// flags gives those with which node has a WebSocket, or none. From 22 on it has one
// unless told.
func (w *workshop) flags(socket bool) []string {
	switch {
	case socket && w.major < 22:
		return []string{"--experimental-websocket"}
	case !socket && w.major >= 22:
		return []string{"--no-experimental-websocket"}
	}
	return nil
}

// environment has nothing of the developer's own settings.
func (w *workshop) environment() []string {
	return []string{"HOME=" + w.dir, "PATH=" + os.Getenv("PATH"), "NO_COLOR=1"}
}

// test runs compiled tests against the service, and does to it what they ask for.
func (w *workshop) test(t *testing.T, env *testenv.Env, settings, flags []string, file string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), suiteLimit)
	defer cancel()
	control := newControl(t)
	cmd := exec.CommandContext(ctx, w.node, slices.Concat(flags, w.testing(), []string{filepath.Join(w.dir, "compiled", "test", file)})...)
	cmd.Dir = w.dir
	cmd.Env = append(w.environment(),
		"TELEXEC_URL=http://"+env.HTTPAddr, "TELEXEC_TOKEN="+env.Token.Reveal(), "TELEXEC_HOST="+env.Host, "TELEXEC_CONTROL="+control.url,
	)
	cmd.Env = append(cmd.Env, settings...)
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	tie(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for lines := bufio.NewScanner(said); lines.Scan(); { // ends with the process, and whoever has its output
			t.Log(lines.Text())
		}
		ended <- cmd.Wait()
	}()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("node: %v", err)
			}
			return
		case r := <-control.asked:
			// Here, since the environment is of the goroutine of the test.
			if r.what == "kill" {
				env.Kill()
			}
			env.Restart()
			close(r.done)
		}
	}
}

// control is where the tests ask for what only the one who has started the service
// can do.
type control struct {
	url   string
	asked chan request
}

type request struct {
	what string
	done chan struct{} // closed by the one who has done it
}

func newControl(t *testing.T) *control {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &control{url: "http://" + l.Addr().String(), asked: make(chan request)}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		req := request{strings.TrimPrefix(r.URL.Path, "/"), make(chan struct{})}
		if r.Method != http.MethodPost || req.what != "restart" && req.what != "kill" {
			http.Error(w, "POST /restart or /kill", http.StatusNotFound)
			return
		}
		select {
		case c.asked <- req:
			<-req.done
		case <-r.Context().Done():
		}
	})}
	served := make(chan struct{})
	go func() { _ = s.Serve(l); close(served) }()
	t.Cleanup(func() { s.Close(); <-served })
	return c
}

// TestPack looks at what npm would publish.
func TestPack(t *testing.T) {
	t.Parallel()
	w := theWorkshop(t)
	installed := filepath.Join(w.dir, "node_modules", "@telexec", "client")
	var files []string
	err := filepath.WalkDir(installed, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(installed, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		top, _, _ := strings.Cut(name, string(filepath.Separator))
		if !slices.Contains([]string{"dist", "src", "package.json", "README.md", "LICENSE"}, top) {
			t.Errorf("%s is published", name)
		}
	}
	for _, name := range []string{"dist/index.js", "dist/index.js.map", "dist/index.d.ts", "src/index.ts", "README.md", "LICENSE"} {
		if !slices.Contains(files, name) {
			t.Errorf("%s is not published", name)
		}
	}
	license := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if license(filepath.Join(installed, "LICENSE")) != license(filepath.Join(w.root, "LICENSE")) {
		t.Error("sdk/typescript/LICENSE is not the LICENSE of the repository")
	}
	var p struct {
		Dependencies map[string]string
		SideEffects  *bool
	}
	if err := json.Unmarshal([]byte(license(filepath.Join(installed, "package.json"))), &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Dependencies) != 1 || p.Dependencies["@bufbuild/protobuf"] == "" || p.SideEffects == nil || *p.SideEffects {
		t.Errorf("package.json says %+v", p)
	}
	// What a user's program has.
	out := w.output(t, w.dir, w.node, "--input-type=module", "-e", `
		import { Telexec, TelexecError, CommandState } from "@telexec/client";
		const client = new Telexec({ baseUrl: "http://127.0.0.1:9" });
		const e = await client.serverInfo().catch((e) => e);
		console.log(e instanceof TelexecError, CommandState.COMPLETED);
		client.close();`)
	if want := fmt.Sprint(true, " ", 5); out != want {
		t.Errorf("a program says %q, want %q", out, want)
	}
}
