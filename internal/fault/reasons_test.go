package fault_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// reasons reads the constants of reasons.go: name → value.
func reasons(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found[spec.Names[0].Name] = value
		}
		return true
	})
	return found
}

// Reasons are part of the API: upper snake case, short enough for ErrorInfo
// (at most 63 characters), each once.
func TestReasonsAreWellFormed(t *testing.T) {
	form := regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,62}$`)
	names := map[string]string{}
	for name, value := range reasons(t) {
		if !form.MatchString(value) || !strings.HasPrefix(name, "Reason") {
			t.Errorf("%s = %q", name, value)
		}
		if was, ok := names[value]; ok {
			t.Errorf("%s and %s are both %s", was, name, value)
		}
		names[value] = name
	}
	if len(names) < 40 {
		t.Errorf("found %d reasons only", len(names))
	}
}

// docs/errors.md explains every reason once and no other, and says for each
// what to do.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]int{}
	row := regexp.MustCompile("^\\| `([A-Z0-9_]+)` \\|(.*)\\|$")
	for line := range strings.Lines(string(page)) {
		m := row.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		documented[m[1]]++
		for i, cell := range strings.Split(m[2], "|") {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("docs/errors.md: %s has an empty cell %d", m[1], i+2)
			}
		}
	}
	for name, value := range reasons(t) {
		if documented[value] != 1 {
			t.Errorf("docs/errors.md explains %s (%s) %d times, want once", value, name, documented[value])
		}
		delete(documented, value)
	}
	for value := range documented {
		t.Errorf("docs/errors.md explains %s, which is not in reasons.go", value)
	}
}
