package mcpcheck

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/telexec/telexec/internal/test/testenv"
)

// expectedFailures is in the form that the suite reads.
const expectedFailures = "testdata/expected-failures.yml"

// TestConformance runs all scenarios for servers, and again those of the newest
// and of an older revision of the protocol: without --spec-version the suite runs
// a scenario of many revisions as of 2025-11-25. Those of the extensions, Tasks
// among them, are in the first run.
func TestConformance(t *testing.T) {
	dir := modules(t)
	env := testenv.Start(t)
	f := &front{token: env.Token, fixtures: newFixtures(t, env)}
	url := f.start(t, serve(t, env))
	expected, err := filepath.Abs(expectedFailures)
	if err != nil {
		t.Fatal(err)
	}
	listed, failed := listed(t), map[string]string{}
	for _, age := range []struct {
		name string
		args []string
	}{
		{"all scenarios", nil},
		{"protocol 2026-07-28", []string{"--spec-version", "2026-07-28"}},
		{"protocol 2025-06-18", []string{"--spec-version", "2025-06-18"}},
	} {
		t.Run(age.name, func(t *testing.T) {
			results := t.TempDir()
			args := append([]string{"server", "--url", url, "--suite", "all", "-o", results, "--expected-failures", expected}, age.args...)
			r := run(t.Context(), t, dir, conformance, args...)
			_, summary, ok := strings.Cut(r.stdout, "=== SUMMARY ===")
			if !ok {
				t.Fatalf("the suite did not come to its end:\n%s%s", r.stdout, r.stderr)
			}
			t.Log(summary)
			here := failures(t, results)
			maps.Copy(failed, here)
			if r.code != 0 {
				t.Errorf("not as %s says, exit code %d:\n%s", expectedFailures, r.code, r.stderr)
				for _, check := range slices.Sorted(maps.Keys(here)) {
					if !slices.Contains(listed, check) {
						t.Logf("%s: %s", check, here[check])
					}
				}
			}
		})
	}
	// The suite itself tolerates entries for checks that there are not.
	for _, check := range listed {
		if _, ok := failed[check]; !ok && !t.Failed() {
			t.Errorf("%s: %s is listed, and did not fail", expectedFailures, check)
		}
	}
}

// listed are the checks that may fail, as scenario:check.
func listed(t *testing.T) []string {
	t.Helper()
	var file struct{ Server []string }
	data, err := os.ReadFile(expectedFailures)
	if err == nil {
		err = yaml.Unmarshal(data, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Server
}

// resultOf finds the scenario in the name of a directory of results.
var resultOf = regexp.MustCompile(`^server-(.+)-\d{4}-\d\d-\d\dT[-0-9]+Z$`)

// failures gives the checks in the results that did not succeed, as
// scenario:check, and why. A warning, which is for what servers should do and need
// not, is none to the suite's summary but must be listed all the same.
func failures(t *testing.T, results string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(results, "*", "checks.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no results in %s: %v", results, err)
	}
	failed := map[string]string{}
	for _, name := range files {
		var checks []struct{ ID, Status, ErrorMessage string }
		data, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(data, &checks)
		}
		scenario := resultOf.FindStringSubmatch(filepath.Base(filepath.Dir(name)))
		if err != nil || scenario == nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, c := range checks {
			if c.Status == "FAILURE" || c.Status == "WARNING" {
				failed[scenario[1]+":"+c.ID] = fmt.Sprintf("%s: %s", c.Status, c.ErrorMessage)
			}
		}
	}
	return failed
}
