package archtest_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/telexec/telexec/internal/test/archtest"
)

// The project keeps its own rules.
func TestProject(t *testing.T) {
	found, err := archtest.Check(filepath.Join("..", "..", ".."), archtest.Project)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// Every rule has a reason, and rows name folders once.
func TestReasons(t *testing.T) {
	for name, room := range archtest.Project.Rooms {
		if room.Why == "" {
			t.Errorf("%s: no reason", name)
		}
		if len(slices.Compact(slices.Sorted(slices.Values(room.Imports)))) != len(room.Imports) {
			t.Errorf("%s: an import twice", name)
		}
	}
	for _, place := range slices.Concat(archtest.Project.Outside, archtest.Project.Functions) {
		if place.Why == "" {
			t.Errorf("%s: no reason", place.Name)
		}
	}
	for _, peer := range archtest.Project.Peers {
		if peer.Why == "" {
			t.Errorf("%s → %s: no reason", peer.From, peer.To)
		}
	}
}

// fixture is a small house in which everything is as it should be.
var fixture = archtest.Rules{
	Module: "example.com/m",
	Rooms: map[string]archtest.Room{
		"fault":    {0, nil, "errors"},
		"engine":   {1, []string{"fault"}, "runs"},
		"store":    {1, []string{"fault"}, "keeps"},
		"store/db": {1, []string{"fault", "store"}, "a driver"},
		"cmd/d":    {2, []string{"engine", "store", "store/db"}, "wires"},
	},
	Peers: []archtest.Peer{{"store/db", "store", "a driver implements its contract"}},
	Outside: []archtest.Place{
		{Name: "example.com/grpc", Rooms: []string{"engine"}, Why: "one door"},
		{Name: "example.com/grpc/status", Rooms: []string{"cmd/..."}, Why: "one table"},
		{Name: "database/sql", Rooms: []string{"store/db"}, Why: "drivers only"},
		{Name: "testing", Tests: true, Why: "tests only"},
	},
	Functions: []archtest.Place{
		{Name: "os.Getenv", Rooms: []string{"cmd/*"}, Tests: true, Why: "read once"},
		{Name: "time.Sleep", Rooms: []string{"engine"}, Why: "tests wait for signals"},
		{Name: "context.Background", Rooms: []string{"engine/deep.go"}, Why: "contexts come from above"},
	},
}

const sound = `
-- fault/fault.go --
// Package fault is documented.
package fault
-- engine/engine.go --
// Package engine is documented.
package engine
import ("example.com/grpc"; "time"; "example.com/m/fault")
func Run() { time.Sleep(1) }
type T struct{}
func (T) init() {}
-- engine/deep.go --
package engine
import "context"
var ctx = context.Background()
-- engine/engine_test.go --
package engine
import ("os"; "testing"; "example.com/m/store/db")
func TestX(t *testing.T) { os.Getenv("X") }
-- store/store.go --
// Package store is documented.
package store
-- store/db/db.go --
// Package db is documented.
package db
import ("database/sql"; "example.com/m/store")
-- cmd/d/main.go --
// Command d is documented.
package main
import ("example.com/grpc/status"; "os"; env "os")
func main() { os.Getenv("X"); env.Getenv("Y") }
-- other/go.mod --
module other
-- other/other.go --
package other
-- store/testdata/broken.go --
not Go
`

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		files string // added to the sound tree
		want  string // in the one violation; empty: none
	}{
		"a sound tree":         {"", ""},
		"an import upward":     {"-- fault/x.go --\npackage fault\nimport _ \"example.com/m/engine\"\n", "fault/x.go:2: fault may not import engine (errors)"},
		"an import sideways":   {"-- engine/x.go --\npackage engine\nimport _ \"example.com/m/store\"\n", "engine/x.go:2: engine may not import store (runs)"},
		"a room without a row": {"-- new/x.go --\n// Package new is documented.\npackage new\n", "new/x.go:2: package new has no row"},
		"a package without a comment": {"-- cmd/d/main.go --\npackage main\nimport _ \"example.com/grpc/status\"\n",
			"cmd/d: no package comment"},
		"an outside package in the wrong room":       {"-- store/x.go --\npackage store\nimport _ \"database/sql\"\n", "store may not use database/sql (drivers only)"},
		"an outside package below one with a row":    {"-- engine/x.go --\npackage engine\nimport _ \"example.com/grpc/codes\"\n", ""},
		"the longer row counts":                      {"-- engine/x.go --\npackage engine\nimport _ \"example.com/grpc/status\"\n", "engine may not use example.com/grpc/status (one table)"},
		"an outside package without a row":           {"-- engine/x.go --\npackage engine\nimport _ \"example.com/new\"\n", "outside package example.com/new has no row"},
		"a standard package without a row":           {"-- engine/x.go --\npackage engine\nimport _ \"io\"\n", ""},
		"testing outside tests":                      {"-- engine/x.go --\npackage engine\nimport _ \"testing\"\n", "engine may not use testing (tests only)"},
		"the environment in a room":                  {"-- engine/x.go --\npackage engine\nimport e \"os\"\nvar x = e.Getenv(\"X\")\n", "engine/x.go:3: engine may not use os.Getenv (read once)"},
		"a function handed on":                       {"-- engine/x.go --\npackage engine\nimport \"os\"\nvar x = os.Getenv\n", "engine may not use os.Getenv"},
		"a test that sleeps":                         {"-- store/x_test.go --\npackage store\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", "store/x_test.go:3: store may not use time.Sleep (tests wait for signals)"},
		"a context out of nowhere":                   {"-- engine/x.go --\npackage engine\nimport \"context\"\nvar c = context.Background()\n", "engine may not use context.Background"},
		"init":                                       {"-- engine/x.go --\npackage engine\nfunc init() {}\n", "engine/x.go:2: init: "},
		"a method of another thing of the same name": {"-- engine/x.go --\npackage engine\ntype o struct{}\nfunc (o) Getenv(string) {}\nfunc f(os o) { os.Getenv(\"X\") }\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := archtest.Check(tree(t, sound+test.files), fixture)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case test.want == "" && len(found) > 0:
				t.Errorf("found %q", found)
			case test.want != "" && (len(found) != 1 || !strings.Contains(found[0], test.want)):
				t.Errorf("found %q, want one with %q", found, test.want)
			}
		})
	}
}

func TestContradictions(t *testing.T) {
	rules := archtest.Rules{Rooms: map[string]archtest.Room{
		"a": {1, []string{"b", "gone"}, "x"},
		"b": {1, nil, "x"},
	}, Outside: []archtest.Place{{Name: "example.com/unused", Rooms: []string{"a"}, Why: "x"}, {Name: "unsafe", Why: "x"}}}
	found, err := archtest.Check(tree(t, "-- a/a.go --\n// Package a is documented.\npackage a\n"), rules)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"b: has a row but no Go files; remove the row",
		"example.com/unused: has a row but nobody imports it; remove the row",
		"table: a (floor 1) may not import b (floor 1): imports go strictly downward",
		"table: a may import gone, which has no row",
	}
	if !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}

func TestUnreadable(t *testing.T) {
	if _, err := archtest.Check(filepath.Join(t.TempDir(), "missing"), fixture); err == nil {
		t.Error("a missing tree is no error")
	}
	if _, err := archtest.Check(tree(t, "-- a/a.go --\nnot Go\n"), fixture); err == nil {
		t.Error("a broken file is no error")
	}
}

// tree writes the files of an archive; of two files of one name the later one
// stays.
func tree(t *testing.T, archive string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		name := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
