package web

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/telexec/telexec/internal/test/testenv"
)

// TestUnits runs the tests of those parts of the page that need no browser
// (web/test), compiled by tsc, in Node.
func TestUnits(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	tsc := filepath.Join(root, "node_modules", ".bin", "tsc")
	node, err := exec.LookPath("node")
	if err != nil {
		testenv.Missing(t, "no node; tools/setup.sh gets it")
	}
	if _, err := exec.LookPath(tsc); err != nil {
		testenv.Missing(t, "no tsc in node_modules; npm ci --ignore-scripts installs what is in package-lock.json")
	}
	out := t.TempDir()
	if text, err := exec.CommandContext(t.Context(), tsc, "-p", filepath.Join(root, "web", "tsconfig.test.json"), "--outDir", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := os.Symlink(filepath.Join(root, "node_modules"), filepath.Join(out, "node_modules")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "package.json"), []byte(`{"type": "module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	tests, err := filepath.Glob(filepath.Join(out, "test", "*.test.js"))
	if err != nil || len(tests) == 0 {
		t.Fatalf("no tests were compiled: %v", err)
	}
	if text, err := exec.CommandContext(t.Context(), node, append([]string{"--test"}, tests...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}
