package sdk

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// examples are the programs of the SDK's README.
func examples(t *testing.T, w *workshop, kind string) []string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(w.root, "sdk", "typescript", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```"+kind+"\n(.*?)^```$").FindAllStringSubmatch(string(readme), -1) {
		found = append(found, m[1])
	}
	if len(found) == 0 {
		t.Fatalf("README.md has no examples of %q", kind)
	}
	return found
}

// TestReadme compiles the examples of the README as strictly as a user might, and
// runs them: each must come to its end by itself.
func TestReadme(t *testing.T) {
	t.Parallel()
	w := theWorkshop(t)
	env := testenv.Start(t, testenv.WithConfig(config))
	dir := filepath.Join(w.dir, "examples")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("package.json", `{"type": "module"}`)
	write("tsconfig.json", `{"compilerOptions": {"module": "nodenext", "target": "es2022", "lib": ["es2022"], "types": ["node"],
		"strict": true, "exactOptionalPropertyTypes": true, "noUncheckedIndexedAccess": true}}`)
	all := examples(t, w, "ts")
	for i, text := range all {
		write(name(i)+".ts", text)
	}
	w.output(t, dir, filepath.Join(w.root, "node_modules", ".bin", "tsc"), "-p", ".")
	for i, text := range all {
		t.Run(name(i), func(t *testing.T) {
			t.Parallel()
			w.example(t, env, filepath.Join(dir, name(i)+".js"), text)
		})
	}
}

// example runs one of them, without WebSocket and with.
func (w *workshop) example(t *testing.T, env *testenv.Env, file, text string) {
	for _, socket := range []bool{false, true} {
		// One that waits for somebody.
		if _, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "factor 6", Wait: durationpb.New(0)}); err != nil {
			t.Fatal(err)
		}
		out := w.output(t, filepath.Dir(file), "env", append(append([]string{
			"TELEXEC_URL=http://" + env.HTTPAddr, "TELEXEC_TOKEN=" + env.Token.Reveal(), w.node,
		}, w.flags(socket)...), file)...)
		if strings.Contains(text, "console.log") && out == "" {
			t.Errorf("this example says nothing:\n%s", text)
		}
		if strings.Contains(text, "exit 3") && out != "3 Linux" {
			t.Errorf("the first example says %q", out)
		}
	}
}

func name(i int) string { return "example" + string(rune('A'+i)) }
