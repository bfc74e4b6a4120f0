package fault_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// answers gives what each kind is called at the doors, as in rpcserver's table.
var answers = map[string]struct {
	code string
	http int
}{
	"Internal":           {"INTERNAL", 500},
	"Invalid":            {"INVALID_ARGUMENT", 400},
	"NotFound":           {"NOT_FOUND", 404},
	"AlreadyExists":      {"ALREADY_EXISTS", 409},
	"FailedPrecondition": {"FAILED_PRECONDITION", 400},
	"OutOfRange":         {"OUT_OF_RANGE", 400},
	"Unauthenticated":    {"UNAUTHENTICATED", 401},
	"PermissionDenied":   {"PERMISSION_DENIED", 403},
	"Exhausted":          {"RESOURCE_EXHAUSTED", 429},
	"Unavailable":        {"UNAVAILABLE", 503},
	"DeadlineExceeded":   {"DEADLINE_EXCEEDED", 504},
	"Cancelled":          {"CANCELLED", 499},
	"Unsupported":        {"UNIMPLEMENTED", 501},
	"Aborted":            {"ABORTED", 409},
	"DataLoss":           {"DATA_LOSS", 500},
}

// docs/errors.md tells for every reason of a call the codes that the source
// gives it, no more and no fewer.
func TestCodesAreTrue(t *testing.T) {
	used := uses(t)
	page, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, calls, _ := strings.Cut(string(page), "\n## Calls\n")
	calls, _, _ = strings.Cut(calls, "\n## ")
	rows := 0
	for line := range strings.Lines(calls) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		rows++
		reason := strings.Trim(cells[0], " `")
		if reason == "INTERNAL" {
			continue // a defect comes under the code of whatever it broke
		}
		var codes, statuses []string
		for _, kind := range slices.Sorted(maps.Keys(used[reason])) {
			codes = append(codes, answers[kind].code)
			statuses = append(statuses, fmt.Sprint(answers[kind].http))
		}
		slices.Sort(statuses)
		statuses = slices.Compact(statuses)
		if got, want := strings.TrimSpace(cells[1]), strings.Join(slices.Sorted(slices.Values(codes)), ", "); got != want {
			t.Errorf("docs/errors.md: %s has codes %q, the source gives %q", reason, got, want)
		}
		if got, want := strings.TrimSpace(cells[2]), strings.Join(statuses, ", "); got != want {
			t.Errorf("docs/errors.md: %s has HTTP statuses %q, the source gives %q", reason, got, want)
		}
	}
	if rows < 20 {
		t.Errorf("found %d rows only", rows)
	}
}

// uses reads the source for faults: every place that names a kind and a reason
// together. It gives reason → kinds.
func uses(t *testing.T) map[string]map[string]bool {
	t.Helper()
	values := reasons(t)
	used := map[string]map[string]bool{}
	note := func(parts []ast.Expr, qualified bool, kind string) {
		reason := ""
		for _, part := range parts {
			if pair, ok := part.(*ast.KeyValueExpr); ok {
				part = pair.Value
			}
			var name string
			switch e := part.(type) {
			case *ast.SelectorExpr:
				if pkg, ok := e.X.(*ast.Ident); !ok || pkg.Name != "fault" {
					continue
				}
				name = e.Sel.Name
			case *ast.Ident:
				if qualified {
					continue
				}
				name = e.Name
			}
			if _, ok := answers[name]; ok {
				kind = name
			}
			if value, ok := values[name]; ok {
				reason = value
			}
		}
		if kind != "" && reason != "" {
			if used[reason] == nil {
				used[reason] = map[string]bool{}
			}
			used[reason][kind] = true
		}
	}
	for _, root := range []string{"../../internal", "../../cmd", "../../pkg"} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/test/") || strings.Contains(name, "/openapi/") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			implied := ""
			if strings.HasSuffix(name, "rpcserver/validate.go") {
				implied = "Invalid" // its table has reasons for requests that break a rule
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					note(n.Args, file.Name.Name != "fault", "")
				case *ast.CompositeLit:
					note(n.Elts, file.Name.Name != "fault", implied)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return used
}
