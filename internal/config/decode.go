package config

import (
	"encoding"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// decoder brings a YAML document into the Config. It walks the syntax tree
// itself, because a library's decoder stops at the first problem, and because a
// scalar's text as it was written (1.10, 0022) is wanted, not what YAML makes of it.
type decoder struct {
	*loader
	file    string
	anchors map[string]ast.Node
	secrets bool // the file holds a secret
}

func (d *decoder) decode(data []byte) {
	tree, err := parse(data)
	if err != nil {
		at, message := source{name: d.file}, err.Error()
		if syntax, ok := err.(yaml.Error); ok {
			message = syntax.GetMessage()
			if t := syntax.GetToken(); t != nil && t.Position != nil {
				at.line = t.Position.Line
			}
		}
		d.problem(at, "", "not YAML: %s", message)
		return
	}
	d.anchors = make(map[string]ast.Node)
	for i, document := range tree.Docs {
		if document.Body == nil {
			continue
		}
		if i > 0 {
			d.problem(d.at(document.Body), "", "a second document; a file holds one")
			return
		}
		ast.Walk(d, document.Body)
		d.section(reflect.ValueOf(&d.cfg).Elem(), document.Body, "")
	}
}

// parse is the library's parser with its panics turned into errors: it has some
// on input that is not YAML at all.
func parse(data []byte) (tree *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the parser gave up: %v", r)
		}
	}()
	return parser.ParseBytes(data, 0)
}

// Visit collects the anchors.
func (d *decoder) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		d.anchors[a.Name.GetToken().Value] = a.Value
	}
	return d
}

// at gives the place of a node.
func (d *decoder) at(n ast.Node) source {
	s := source{name: d.file}
	if t := n.GetToken(); t != nil && t.Position != nil {
		s.line = t.Position.Line
	}
	return s
}

// resolve takes the tags and anchors off a node and follows aliases; nil stands
// for null and for what cannot be resolved, which is then a problem.
func (d *decoder) resolve(n ast.Node, key string) ast.Node {
	for start, steps := n, 0; ; steps++ {
		switch x := n.(type) {
		case *ast.AnchorNode:
			n = x.Value
		case *ast.TagNode:
			n = x.Value
		case *ast.AliasNode:
			target, known := d.anchors[x.Value.GetToken().Value]
			if !known || steps > 100 {
				d.problem(d.at(start), key, "no value stands behind the alias *%s", x.Value.GetToken().Value)
				return nil
			}
			n = target
		case *ast.NullNode:
			return nil
		default:
			return n
		}
	}
}

// entry is one key of a mapping.
type entry struct {
	name  string
	at    source
	value ast.Node
}

// entries gives the keys of a mapping, with those of its merge keys (<<) that it
// does not have itself; depth is that of merges.
func (d *decoder) entries(n ast.Node, key string, depth int) []entry {
	var pairs []*ast.MappingValueNode
	switch x := d.resolve(n, key).(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		pairs = x.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{x}
	default:
		d.problem(d.at(n), key, "must be a mapping of keys, not %s", nodeName(x))
		return nil
	}
	if depth > 10 {
		d.problem(d.at(n), key, "merges (<<) are nested too deeply")
		return nil
	}
	var own, merged []entry
	for _, p := range pairs {
		if p.Key.IsMergeKey() {
			merged = append(merged, d.merge(p.Value, key, depth+1)...)
			continue
		}
		name := p.Key.GetToken().Value
		if k, ok := p.Key.(*ast.MappingKeyNode); ok && k.Value != nil {
			name = k.Value.GetToken().Value
		}
		own = append(own, entry{name, d.at(p.Key), p.Value})
	}
	for _, m := range merged {
		if !slices.ContainsFunc(own, func(e entry) bool { return e.name == m.name }) {
			own = append(own, m)
		}
	}
	return own
}

// merge gives the keys behind a merge key: of one mapping or of a list of them.
func (d *decoder) merge(n ast.Node, key string, depth int) []entry {
	list, ok := d.resolve(n, key).(*ast.SequenceNode)
	if !ok {
		return d.entries(n, key, depth)
	}
	var all []entry
	for _, item := range list.Values {
		all = append(all, d.entries(item, key, depth)...)
	}
	return all
}

// section fills a struct from a mapping.
func (d *decoder) section(v reflect.Value, n ast.Node, key string) {
	fields := make(map[string]reflect.StructField)
	var names []string
	for f := range v.Type().Fields() {
		if name := f.Tag.Get("yaml"); name != "-" {
			fields[name], names = f, append(names, name)
		}
	}
	for _, e := range d.entries(n, key, 0) {
		path := e.name
		if key != "" {
			path = key + "." + e.name
		}
		f, known := fields[e.name]
		if !known {
			meant := "known here: " + strings.Join(names, ", ")
			if near := fault.Nearest(e.name, slices.Values(names)); len(near) > 0 {
				meant = "did you mean " + near[0] + "?"
			}
			d.problem(e.at, path, "unknown key (%s)", meant)
			continue
		}
		d.value(v.FieldByIndex(f.Index), f.Tag, e, path)
	}
}

// value fills one field. A key without a value is a key that is not there, except
// where that would be dangerous to believe.
func (d *decoder) value(v reflect.Value, tag reflect.StructTag, e entry, key string) {
	before := len(d.problems)
	must := func(length int, wrong string) {
		if length == 0 && tag.Get("empty") == "no" && len(d.problems) == before {
			d.from[key] = e.at
			d.problem(e.at, key, "%s; leave the key out or write %s", wrong, typeName(v.Type(), tag))
		}
	}
	n := d.resolve(e.value, key)
	if n == nil {
		must(0, "has no value")
		return
	}
	d.from[key] = e.at
	switch {
	case isSection(v.Type()):
		d.section(v, n, key)
	case v.Kind() == reflect.Map:
		d.mapping(v, tag, n, key)
		must(v.Len(), "is empty")
	case v.Kind() == reflect.Slice:
		d.list(v, tag, n, e, key)
		must(v.Len(), "is empty")
	default:
		d.scalar(v, tag, n, e.at, key)
	}
}

// mapping fills a map with names of the user's own, to texts or to lists.
func (d *decoder) mapping(v reflect.Value, tag reflect.StructTag, n ast.Node, key string) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(n, key, 0) {
		item, itemKey := reflect.New(v.Type().Elem()).Elem(), key+"."+e.name
		if e.name == "" {
			d.problem(e.at, key, "a name is empty")
			continue
		}
		if item.Kind() == reflect.Slice {
			d.value(item, tag, e, itemKey)
		} else if text, ok := d.text(e.value, e.at, itemKey, "text"); ok {
			item.SetString(text)
		} else {
			continue
		}
		v.SetMapIndex(reflect.ValueOf(e.name), item)
	}
}

// list fills a slice from a list, or from one scalar.
func (d *decoder) list(v reflect.Value, tag reflect.StructTag, n ast.Node, e entry, key string) {
	element := v.Type().Elem()
	items := []ast.Node{n}
	if l, ok := n.(*ast.SequenceNode); ok {
		items = l.Values
	} else if isSection(element) {
		d.problem(e.at, key, "must be a list, not %s", nodeName(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		at := d.at(item)
		d.from[itemKey] = at
		if !isSection(element) {
			d.scalar(v.Index(i), tag, item, at, itemKey)
			continue
		}
		if m := d.resolve(item, itemKey); m != nil {
			d.from[itemKey] = source{at.name, d.firstLine(m, at.line)}
			d.elementDefaults(v.Index(i))
			d.section(v.Index(i), m, itemKey)
		}
	}
}

// elementDefaults gives an element of a list what it has where the file is silent.
func (d *decoder) elementDefaults(element reflect.Value) {
	for _, f := range leaves(element, "") {
		if text, ok := f.field.Tag.Lookup("default"); ok {
			if err := setText(f.value, f.field.Tag, text, place{}); err != nil {
				d.problem(source{name: "default"}, f.key, "%v", err)
			}
		}
	}
}

// firstLine gives the line of a mapping's first key; the library puts a mapping
// itself at its first colon.
func (d *decoder) firstLine(n ast.Node, otherwise int) int {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		return d.at(m.Values[0].Key).line
	}
	return otherwise
}

func (d *decoder) scalar(v reflect.Value, tag reflect.StructTag, n ast.Node, at source, key string) {
	text, ok := d.text(n, at, key, typeName(v.Type(), tag))
	if !ok {
		return
	}
	if v.Type() == reflect.TypeFor[secret.Text]() {
		d.secrets = true
	}
	if err := setText(v, tag, text, place{d.cfg.Home, filepath.Dir(d.file)}); err != nil {
		d.problem(at, key, "%v", err)
	}
}

// text gives a scalar as it was written; want says what it should be.
func (d *decoder) text(n ast.Node, at source, key, want string) (string, bool) {
	switch x := d.resolve(n, key).(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.LiteralNode:
		return x.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return x.GetToken().Value, true
	case nil:
		d.problem(at, key, "has no value; it must be %s", want)
	default:
		d.problem(at, key, "must be %s, not %s", want, nodeName(x))
	}
	return "", false
}

// nodeName says what a node is, in words.
func nodeName(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	return "a single value"
}

// isSection reports whether a type is a struct of settings, not one value.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// typeName says in words what a setting holds: in messages and in the
// documentation.
func typeName(t reflect.Type, tag reflect.StructTag) string {
	switch kind := tag.Get("kind"); {
	case t.Kind() == reflect.Slice && isSection(t.Elem()):
		return "a list of mappings"
	case t.Kind() == reflect.Slice:
		return "a list of: " + bare(typeName(t.Elem(), tag))
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Slice:
		return "a mapping to lists of: " + bare(typeName(t.Elem().Elem(), tag))
	case t.Kind() == reflect.Map:
		return "a mapping of texts"
	case isSection(t):
		return "a mapping of keys"
	case tag.Get("enum") != "":
		return "one of " + strings.ReplaceAll(tag.Get("enum"), "|", ", ")
	case t == reflect.TypeFor[time.Duration]():
		return "a duration" + limits(tag)
	case t == reflect.TypeFor[secret.Text]():
		return "a secret text"
	case t == reflect.TypeFor[Target]():
		return "a host[:port]"
	case kind == "size":
		return "a size" + limits(tag)
	case kind == "addr":
		return "an address host:port"
	case kind == "path":
		return "a path"
	case kind == "pathOrNone":
		return "a path or none"
	case kind == "hostName", kind == "issuerName", kind == "ruleName":
		return "a name"
	case kind == "pattern", kind == "glob":
		return "a pattern"
	case kind == "prompt":
		return "a regular expression"
	case kind == "jwksURL":
		return "a URL"
	case kind == "httpHost":
		return "a host[:port]"
	case kind == "origin":
		return "an origin"
	case t.Kind() == reflect.Int:
		return "a whole number" + limits(tag)
	case t.Kind() == reflect.Float64:
		return "a number" + limits(tag)
	}
	return "a text"
}

// bare takes the article off the name of a type.
func bare(name string) string {
	for _, article := range []string{"a ", "an ", "one of "} {
		name = strings.TrimPrefix(name, article)
	}
	return name
}

// limits gives the range of a setting, in words.
func limits(tag reflect.StructTag) string {
	switch low, high := tag.Get("min"), tag.Get("max"); {
	case low != "" && high != "":
		return fmt.Sprintf(" from %s to %s", low, high)
	case low != "":
		return " of at least " + low
	case high != "":
		return " of at most " + high
	}
	return ""
}
