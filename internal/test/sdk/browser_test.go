package sdk

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/test/testenv"
)

// TestBrowser runs the cases in Chromium, bundled as an application would be: on a
// page of another origin, which has a token; and the README's example for pages of
// the service itself.
func TestBrowser(t *testing.T) {
	t.Parallel()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		testenv.Missing(t, "there is no chromium; tools/setup.sh says how to get it")
	}
	w := theWorkshop(t)

	// The page from elsewhere: its origin has to be known before the service starts.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<!doctype html><title>elsewhere</title>")
	})}
	served := make(chan struct{})
	go func() { _ = elsewhere.Serve(l); close(served) }()
	t.Cleanup(func() { elsewhere.Close(); <-served })
	origin := "http://" + l.Addr().String()

	// Imports stay on top; the rest may wait for something, as modules may and scripts may not.
	example := examples(t, w, "ts browser")[0]
	imports, rest, _ := strings.Cut(example, "\n\n")
	file := filepath.Join(w.dir, "example.js")
	if err := os.WriteFile(file, []byte(imports+"\nglobalThis.example = (async () => {\n"+rest+"})();\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rolldown := filepath.Join(w.root, "node_modules", ".bin", "rolldown")
	bundle := func(from, to string) string {
		to = filepath.Join(w.dir, to)
		w.output(t, w.dir, rolldown, from, "--format", "iife", "--platform", "browser", "--minify", "--file", to)
		return to
	}
	settings := []string{
		"TELEXEC_CHROMIUM=" + chromium, "TELEXEC_ORIGIN=" + origin,
		"TELEXEC_BUNDLE=" + bundle(filepath.Join(w.dir, "compiled", "test", "page.js"), "page.bundle.js"),
		"TELEXEC_EXAMPLE=" + bundle(file, "example.bundle.js"),
	}
	if size, err := os.Stat(filepath.Join(w.dir, "example.bundle.js")); err != nil || size.Size() > maxBundle {
		t.Errorf("a small program is %v bytes, %v; may be %d", size.Size(), err, maxBundle)
	}
	env := testenv.Start(t, testenv.WithConfig(config+fmt.Sprintf("http: {allowed_origins: [%q]}", origin)), testenv.WithMaxCommands(150))
	w.test(t, env, settings, nil, "browser.test.js")
}

// maxBundle is what the SDK with all it needs may add to an application, minified
// and not compressed. A sixth of it is sessions and tasks, above all the contract of
// their requests.
const maxBundle = 200 << 10
