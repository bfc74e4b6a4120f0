package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md anew")

const (
	page    = "../../docs/configuration.md"
	example = "../../docs/telexec.example.yaml"
)

// elements are the lists of mappings, by the names of their tables.
var elements = map[string]reflect.Type{
	"hosts":        reflect.TypeFor[Host](),
	"auth.jwt":     reflect.TypeFor[JWT](),
	"auth.wider":   reflect.TypeFor[Wider](),
	"policy.rules": reflect.TypeFor[Rule](),
}

// TestDocumentation holds docs/configuration.md against the struct: every
// setting has its row, and there is no row without a setting. The meaning in a
// row is the comment of the field.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got, comments := string(text), fieldComments(t)
	want := between(t, got, "settings", settingsTable(t, comments))
	for name, element := range elements {
		want = between(t, want, name, elementTable(t, element, comments))
	}
	if got == want {
		return
	}
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Fatalf("%s:%d is not what the struct says; run go test ./internal/config -update\n got %s\nwant %s", page, i+1, gotLines[i], wantLines[i])
		}
	}
	t.Fatalf("%s is not what the struct says; run go test ./internal/config -update", page)
}

func settingsTable(t *testing.T, comments map[string]string) string {
	var b strings.Builder
	b.WriteString("| key | type | default | variable | meaning |\n|---|---|---|---|---|\n")
	variables := map[string]string{"TELEXEC_CONFIG": "the file", "TELEXEC_SERVER": "clients", "TELEXEC_TOKEN": "clients"}
	for _, f := range leaves(reflect.ValueOf(&Config{}).Elem(), "") {
		variable := f.variable()
		if variable != "" {
			if other, taken := variables[variable]; taken {
				t.Errorf("%s and %s share %s", f.key, other, variable)
			}
			variables[variable] = f.key
			variable = "`" + variable + "`"
		}
		if f.value.Kind() == reflect.Slice && isSection(f.value.Type().Elem()) && elements[f.key] != f.value.Type().Elem() {
			t.Errorf("the elements of %s have no table", f.key)
		}
		b.WriteString(row(t, f.key, f.field, comment(reflect.TypeFor[Config](), f, comments), variable))
	}
	return b.String()
}

func elementTable(t *testing.T, element reflect.Type, comments map[string]string) string {
	var b strings.Builder
	b.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	for _, f := range leaves(reflect.New(element).Elem(), "") {
		b.WriteString(row(t, f.key, f.field, comment(element, f, comments)))
	}
	return b.String()
}

// comment gives the comment of a leaf below a section.
func comment(t reflect.Type, f leaf, comments map[string]string) string {
	for name := range strings.SplitSeq(f.key, ".") {
		for field := range t.Fields() {
			if field.Tag.Get("yaml") == name && isSection(field.Type) {
				t = field.Type
			}
		}
	}
	return comments[t.Name()+"."+f.field.Name]
}

// row is the line of one setting.
func row(t *testing.T, key string, f reflect.StructField, meaning string, more ...string) string {
	if meaning == "" {
		t.Errorf("the field of %s has no comment", key)
	}
	def := f.Tag.Get("auto")
	if d := f.Tag.Get("default"); d != "" {
		def = "`" + d + "`"
	}
	cells := append([]string{"`" + key + "`", bare(typeName(f.Type, f.Tag)), def}, more...)
	return "| " + strings.Join(append(cells, meaning), " | ") + " |\n"
}

// fieldComments reads the comments of the fields: of Log.Level.
func fieldComments(t *testing.T) map[string]string {
	comments := make(map[string]string)
	for _, name := range []string{"config.go", "identity.go", "rules.go", "sessions.go", "tasks.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range s.Fields.List {
					comments[spec.Name.Name+"."+f.Names[0].Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
			return false
		})
	}
	return comments
}

// between puts content between the markers of a name.
func between(t *testing.T, text, name, content string) string {
	begin, end := "<!-- "+name+": made by go test ./internal/config -update -->\n", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(text, begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s lacks the markers %q and %q", page, begin, end)
	}
	return before + begin + content + end + after
}

// TestDocumentedYAML loads every YAML block of the page.
func TestDocumentedYAML(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"server.crt", "server.key", "clients.crt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllSubmatch(text, -1)
	if len(blocks) < 4 {
		t.Errorf("%d blocks", len(blocks))
	}
	file := filepath.Join(dir, "t.yaml")
	for _, b := range blocks {
		if err := os.WriteFile(file, b[1], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(Flags{Config: file}, func(string) string { return "" }); err != nil {
			t.Errorf("%s%v", b[1], err)
		}
	}
}

// TestExample loads the example file and sees that it shows every setting.
func TestExample(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	dir := filepath.Join(home, ".config", "telexec")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// Nothing but the file itself: whoever copies it has no other.
	if err := os.WriteFile(filepath.Join(dir, "telexec.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": home}
	got, err := Load(Flags{}, func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Hosts) < 2 || got.Hosts[0].Labels["env"] != "prod" {
		t.Errorf("the hosts are %+v", got.Hosts)
	}

	shows := func(key string) {
		key = key[strings.LastIndexByte(key, '.')+1:]
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^ *(# *)*(- )?%s:`, key)).Match(text) {
			t.Errorf("%s does not show %s", example, key)
		}
	}
	for _, f := range leaves(reflect.ValueOf(&got).Elem(), "") {
		shows(f.key)
		// What the example sets is the default, so that it can be copied and cut down.
		// It is never so for the approval of a default that needs none.
		if d := f.field.Tag.Get("default"); d != "" && !strings.HasPrefix(f.key, "policy.default_approval.") {
			want := reflect.New(f.value.Type()).Elem()
			if err := setText(want, f.field.Tag, d, place{home, home}); err != nil || !want.Equal(f.value) {
				t.Errorf("%s: %s is %v, the default %v", example, f.key, f.value, want)
			}
		}
	}
	for _, element := range elements {
		for _, f := range leaves(reflect.New(element).Elem(), "") {
			shows(f.key)
		}
	}
}
