// Package archtest keeps the rooms of the project apart.
//
// rules.go holds the table: every package with its floor and the rooms it may
// import, every outside package with the rooms it may be used in, and every
// function that belongs in a few places only; each with a reason. Check reads
// the Go files of a tree and tells what breaks the table. Imports go strictly
// downward, so whoever reads a room needs to know only the floors below it.
//
// It parses the files itself: a test that asked "go list" would be served stale
// from the test cache, which knows only the files that a test opens.
package archtest

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Room is the row of one package.
type Room struct {
	Floor   int
	Imports []string // rooms it may import, as folders of the module
	Why     string   // what it is, in a few words: what justifies its imports
}

// Place says where something may be used. Rooms are folders or files; one that
// ends in "/..." means all below it. Several rows of one name add up, each with
// its reason; the reason of the first is told to those who break it.
type Place struct {
	Name  string // import path prefix, or "os.Getenv"
	Rooms []string
	Tests bool // test files may use it wherever they are
	Why   string
}

// Rules is the whole table.
type Rules struct {
	Module    string
	Rooms     map[string]Room
	Outside   []Place // packages outside the module; one that is not listed is refused, standard library apart
	Functions []Place // functions with a place of their own
	Peers     []Peer  // the exceptions to "strictly downward"
}

// Peer is an import that does not go downward, and why that is right.
type Peer struct{ From, To, Why string }

// Check gives every violation of rules in the tree at root, in the order of the
// files. The error is for a tree that cannot be read.
func Check(root string, rules Rules) ([]string, error) {
	found := rules.contradictions()
	files, err := goFiles(root)
	if err != nil {
		return nil, err
	}
	documented, used := map[string]bool{}, map[string]bool{}
	for _, name := range files {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		c := check{rules: rules, room: path.Dir(name), file: name, fset: fset, test: strings.HasSuffix(name, "_test.go")}
		c.imports(file)
		c.body(file)
		found = append(found, c.found...)
		for _, spec := range file.Imports {
			importPath, _ := strconv.Unquote(spec.Path.Value)
			used[rules.row(importPath)] = true
		}
		if !c.test {
			documented[c.room] = documented[c.room] || file.Doc != nil
		}
	}
	for room, ok := range documented {
		if !ok && !strings.HasPrefix(room, "gen/") {
			found = append(found, fmt.Sprintf("%s: no package comment; a newcomer starts there", room))
		}
	}
	for room := range rules.Rooms {
		if _, ok := documented[room]; !ok {
			found = append(found, fmt.Sprintf("%s: has a row but no Go files; remove the row", room))
		}
	}
	for _, p := range rules.Outside {
		if isOutside(p.Name) && !used[p.Name] {
			found = append(found, fmt.Sprintf("%s: has a row but nobody imports it; remove the row", p.Name))
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// row gives the name of the row of an outside package: the longest prefix
// counts, for grpc/status has a row of its own beside grpc.
func (r Rules) row(importPath string) (name string) {
	for _, p := range r.Outside {
		if (importPath == p.Name || strings.HasPrefix(importPath, p.Name+"/")) && len(p.Name) > len(name) {
			name = p.Name
		}
	}
	return name
}

// isOutside reports whether a package is not of the standard library.
func isOutside(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return strings.Contains(first, ".")
}

// contradictions tells where the table itself breaks "strictly downward".
func (r Rules) contradictions() (found []string) {
	for from, room := range r.Rooms {
		for _, to := range room.Imports {
			lower, ok := r.Rooms[to]
			switch {
			case !ok:
				found = append(found, fmt.Sprintf("table: %s may import %s, which has no row", from, to))
			case lower.Floor >= room.Floor && !slices.ContainsFunc(r.Peers, func(p Peer) bool { return p.From == from && p.To == to }):
				found = append(found, fmt.Sprintf("table: %s (floor %d) may not import %s (floor %d): imports go strictly downward",
					from, room.Floor, to, lower.Floor))
			}
		}
	}
	return found
}

// check is the check of one file.
type check struct {
	rules Rules
	room  string // folder
	file  string
	fset  *token.FileSet
	test  bool
	found []string
}

func (c *check) report(pos token.Pos, format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf("%s:%d: %s", c.file, c.fset.Position(pos).Line, fmt.Sprintf(format, args...)))
}

func (c *check) imports(file *ast.File) {
	room, known := c.rules.Rooms[c.room]
	if !known {
		c.report(file.Package, "package %s has no row in internal/test/archtest/rules.go", c.room)
	}
	for _, spec := range file.Imports {
		importPath, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			c.report(spec.Pos(), "import %s cannot be read", spec.Path.Value)
			continue
		}
		to, inside := strings.CutPrefix(importPath, c.rules.Module+"/")
		switch {
		case inside && c.test:
			// Tests meet whatever they need: they wire real parts together.
		case inside && known && !slices.Contains(room.Imports, to):
			c.report(spec.Pos(), "%s may not import %s (%s)", c.room, to, room.Why)
		case !inside:
			c.outside(spec.Pos(), importPath)
		}
	}
}

func (c *check) outside(pos token.Pos, importPath string) {
	switch row := c.rules.row(importPath); {
	case strings.HasPrefix(c.room, "gen/"):
		// What generated code imports is the generators' affair.
	case row == "" && isOutside(importPath):
		c.report(pos, "outside package %s has no row in internal/test/archtest/rules.go", importPath)
	default:
		c.place(pos, c.rules.Outside, row, importPath)
	}
}

// place reports what is used where none of its rows allows it. What has no row
// is free.
func (c *check) place(pos token.Pos, rows []Place, name, used string) {
	why := ""
	for _, p := range rows {
		if p.Name != name {
			continue
		}
		if p.allows(c.room, c.test) || p.allows(c.file, c.test) {
			return
		}
		why = cmp.Or(why, p.Why)
	}
	if why != "" {
		c.report(pos, "%s may not use %s (%s)", c.room, used, why)
	}
}

// body looks for functions that have a place of their own, and for init.
func (c *check) body(file *ast.File) {
	if strings.HasPrefix(c.room, "gen/") {
		return
	}
	names := map[string]string{} // of imported packages in this file → import path
	for _, spec := range file.Imports {
		importPath, _ := strconv.Unquote(spec.Path.Value)
		name := path.Base(importPath)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = importPath
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil {
				c.report(n.Pos(), "init: wiring is done where it can be seen, in run")
			}
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if !ok || names[pkg.Name] == "" {
				return true
			}
			used := names[pkg.Name] + "." + n.Sel.Name
			c.place(n.Pos(), c.rules.Functions, used, used)
		}
		return true
	})
}

// allows reports whether the place may be used in a room or file.
func (p Place) allows(room string, test bool) bool {
	return test && p.Tests || slices.ContainsFunc(p.Rooms, func(r string) bool {
		below, all := strings.CutSuffix(r, "/...")
		matched, _ := path.Match(r, room)
		return matched || all && (room == below || strings.HasPrefix(room, below+"/"))
	})
}

// madeByMake are the folders at the root that git ignores.
var madeByMake = []string{"bin", "cover"}

// goFiles lists the Go files below root, with slashes, in order. Folders of
// other modules, of fixtures and of what the build makes are left out.
func goFiles(root string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() && rel != "." {
			base := d.Name()
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil || base[0] == '.' || base == "testdata" || base == "node_modules" || slices.Contains(madeByMake, rel) {
				return filepath.SkipDir
			}
		}
		if strings.HasSuffix(rel, ".go") && !d.IsDir() {
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	slices.SortFunc(files, cmp.Compare[string])
	return files, err
}
