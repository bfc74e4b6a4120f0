package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// A plan is a task as somebody has written it: a SubmitTaskRequest in YAML, of which JSON
// is a part. Its keys are those of the proto, as they stand there or as JSON has them. The
// syntax tree is walked along the message, so that a problem is told with its line, and a
// scalar counts as it was written: command: true is the program of that name.

// What a plan may be. The last three are the service's limits, told here before anything is
// sent; the others are far beyond them, and keep small what a file that is no plan costs.
const (
	maxPlan     = 1 << 20 // bytes of the file
	planDepth   = 20      // of what stands in what; a plan needs six
	planBlank   = 200     // blank lines in a row, for which the library takes time by their square
	planWords   = 40_000  // tokens of the file
	planNodes   = 40_000  // keys and elements, each as often as aliases and merges have it stand
	mostTold    = 20      // problems
	planSteps   = 100
	planText    = 256 << 10 // bytes of what is run and told
	planMessage = 4 << 20   // bytes of all of it
)

// plan is what a file says.
type plan struct {
	name  string // of the file, as people are told
	req   *telexecv1.SubmitTaskRequest
	lines map[string]int // by path, as the service names fields: "steps[0].command"
}

// readPlan reads a file; - is standard input.
func readPlan(env Env, file string) (*plan, error) {
	name, from := file, env.Stdin
	if file == "-" {
		name = "standard input"
		if from == nil {
			from = strings.NewReader("")
		}
	} else {
		f, err := os.Open(file)
		if err != nil {
			return nil, failure("cannot read the plan: %v", err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxPlan+1))
	switch {
	case err != nil:
		return nil, failure("cannot read the plan: %v", err)
	case len(data) > maxPlan:
		return nil, failure("%s is larger than a plan can be, which is %d MiB", name, maxPlan>>20).withHint(planTooLarge)
	}
	return parsePlan(name, bytes.TrimPrefix(data, []byte("\uFEFF"))) // which editors put in front
}

// planTooLarge is what to do about a plan that is.
const planTooLarge = "Put long scripts into files on the hosts, or submit it as several tasks"

// parsePlan reads a plan. The error has all that is wrong with its form, or the first
// problems where there are many.
func parsePlan(name string, data []byte) (*plan, error) {
	p := &plan{name: name, req: &telexecv1.SubmitTaskRequest{}, lines: make(map[string]int)}
	r := planReader{plan: p, anchors: make(map[string]ast.Node)}
	if line, b := notText(data); line > 0 {
		r.problem(line, "", "not UTF-8 text: there is a byte 0x%02x", b)
		return nil, r.err()
	}
	if json.Valid(data) {
		data = bytes.ReplaceAll(data, []byte("\t"), []byte(" ")) // between its words alone; YAML has no tabs there
	}
	tree, err := parseYAML(data)
	if e, ok := errors.AsType[*planBound](err); ok {
		r.problem(e.line, "", "%s", e.message)
		return nil, r.err()
	} else if err != nil {
		line, message := 0, err.Error()
		if syntax, ok := err.(yaml.Error); ok {
			message = syntax.GetMessage()
			if t := syntax.GetToken(); t != nil && t.Position != nil {
				line = t.Position.Line
			}
		}
		r.problem(line, "", "not YAML: %s", message)
		return nil, r.err()
	}
	found := false
	for _, document := range tree.Docs {
		switch {
		case document.Body == nil:
		case found:
			r.problem(lineOf(document.Body), "", "a second document; a file holds one plan")
		default:
			found = true
			ast.Walk(&r, document.Body)
			r.message(p.req.ProtoReflect(), document.Body, "", "")
		}
	}
	if !found {
		return nil, failure("%s holds no plan", name).withHint("telexec task submit --help shows one")
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return p, p.bounded()
}

// bounded is an error where a plan is larger than the service takes. It counts what the
// service counts.
func (p *plan) bounded() error {
	n := len(p.req.GetTask())
	for k, v := range p.req.GetContext() {
		n += len(k) + len(v)
	}
	for _, s := range p.req.GetSteps() {
		n += len(s.GetCommand()) + len(s.GetUndo())
		for _, a := range s.GetArgv() {
			n += len(a)
		}
	}
	if n > planText {
		return failure("%s: the plan has %d bytes of text; the limit is %d", p.name, n, planText).withHint(planTooLarge)
	}
	if n := proto.Size(p.req); n > planMessage {
		return failure("%s: the plan has %d bytes; the limit is %d", p.name, n, planMessage).withHint(planTooLarge)
	}
	return nil
}

// located tells where in the file the fields stand that the service has refused.
func (p *plan) located(err error) error {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return err
	}
	if len(e.Fields) == 0 {
		if line := p.line(e.Metadata["field"]); line > 0 {
			e.Message = fmt.Sprintf("%s:%d: %s", p.name, line, e.Message)
		}
		return e
	}
	problems := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		problems[i] = p.name
		if line := p.line(f.Path); line > 0 {
			problems[i] += ":" + strconv.Itoa(line)
		}
		problems[i] += ": " + p.told(f.Path) + ": " + f.Message
	}
	e.Message = severally(problems)
	return e
}

// severally is one problem, or a line for each of several.
func severally(problems []string) string {
	if len(problems) == 1 {
		return problems[0]
	}
	if len(problems) > mostTold {
		return fmt.Sprintf("the plan has more than %d problems:\n%s\nand more", mostTold, strings.Join(problems[:mostTold], "\n"))
	}
	return fmt.Sprintf("the plan has %d problems:\n%s", len(problems), strings.Join(problems, "\n"))
}

// told is a field as people are told of it: with the name of its step.
func (p *plan) told(path string) string {
	for i, s := range p.req.GetSteps() {
		at := fmt.Sprintf("steps[%d]", i)
		rest, ok := strings.CutPrefix(path, at)
		if !ok {
			continue
		}
		if s.GetName() != "" {
			at += fmt.Sprintf(" %q", s.GetName())
		}
		return at + strings.Replace(rest, ".", ": ", 1)
	}
	return path
}

// line gives the line of a field, or of what it would stand in; 0 where there is none.
// The service names some fields by what it has made of others.
func (p *plan) line(path string) int {
	for path != "" {
		for _, one := range []string{path, strings.TrimSuffix(path, "s"), strings.TrimSuffix(path, "command") + "argv"} {
			if line, ok := p.lines[one]; ok {
				return line
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// planReader brings a document into the request.
type planReader struct {
	*plan
	anchors  map[string]ast.Node
	nodes    int      // that were read
	problems []string // not all, where there are more than are told
	hint     string   // in place of the one about the form
}

// Visit collects the anchors.
func (r *planReader) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		r.anchors[a.Name.GetToken().Value] = a.Value
	}
	return r
}

// problem notes what is wrong. where is what people are told: `steps[1] "restart"`.
func (r *planReader) problem(line int, where, format string, args ...any) {
	if len(r.problems) > mostTold {
		return
	}
	s := r.name
	if line > 0 {
		s += ":" + strconv.Itoa(line)
	}
	if where != "" {
		s += ": " + where
	}
	r.problems = append(r.problems, s+": "+fmt.Sprintf(format, args...))
}

func (r *planReader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return failure("%s", severally(r.problems)).withHint("%s", firstOf(r.hint, "telexec task submit --help shows what may stand in a plan"))
}

// more counts a node, and reports whether it is to be read: aliases and merges can make a
// few lines stand for millions.
func (r *planReader) more(n ast.Node) bool {
	r.nodes++
	if r.nodes == planNodes+1 {
		r.problem(lineOf(n), "", "more than %d keys and elements up to here, with what aliases and merges (<<) stand for; no plan needs that", planNodes)
	}
	return r.nodes <= planNodes
}

// lineOf is where a node stands; 0: not known. The library puts a mapping at its first
// colon.
func lineOf(n ast.Node) int {
	switch x := n.(type) {
	case *ast.MappingNode:
		if len(x.Values) > 0 {
			n = x.Values[0].Key
		}
	case *ast.MappingValueNode:
		n = x.Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// resolve takes tags and anchors off a node and follows aliases; nil stands for null, and
// for an alias behind which nothing stands.
func (r *planReader) resolve(n ast.Node) ast.Node {
	for range 100 {
		switch x := n.(type) {
		case *ast.AnchorNode:
			n = x.Value
		case *ast.TagNode:
			n = x.Value
		case *ast.AliasNode:
			name := x.Value.GetToken().Value
			if n = r.anchors[name]; n == nil {
				r.problem(lineOf(x), "", "nothing stands behind the alias *%s", name)
				return nil
			}
		case *ast.NullNode:
			return nil
		default:
			return n
		}
	}
	return nil
}

// planEntry is one key of a mapping.
type planEntry struct {
	name  string
	line  int
	value ast.Node
}

// entries gives the keys of a mapping, with those of its merge keys (<<) that it has not
// itself.
func (r *planReader) entries(n ast.Node, where string, depth int) []planEntry {
	if !r.more(n) {
		return nil
	}
	var pairs []*ast.MappingValueNode
	switch x := r.resolve(n).(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		pairs = x.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{x}
	case *ast.SequenceNode:
		if depth == 0 {
			r.problem(lineOf(n), where, "must be a mapping of keys, not a list")
			return nil
		}
		var all []planEntry
		for _, item := range x.Values {
			all = append(all, r.entries(item, where, depth+1)...)
		}
		return all
	default:
		r.problem(lineOf(n), where, "must be a mapping of keys, not a single value")
		return nil
	}
	if depth > 10 {
		r.problem(lineOf(n), where, "merges (<<) are nested too deeply")
		return nil
	}
	var own, merged []planEntry
	for _, p := range pairs {
		if !r.more(p) {
			return nil
		}
		if p.Key.IsMergeKey() {
			merged = append(merged, r.entries(p.Value, where, depth+1)...)
			continue
		}
		name := p.Key.GetToken().Value
		if k, ok := p.Key.(*ast.MappingKeyNode); ok && k.Value != nil {
			name = k.Value.GetToken().Value
		}
		own = append(own, planEntry{name, lineOf(p.Key), p.Value})
	}
	has := make(map[string]bool, len(own))
	for _, e := range own {
		has[e.name] = true
	}
	for _, m := range merged {
		if !has[m.name] {
			has[m.name] = true
			own = append(own, m)
		}
	}
	return own
}

// message fills a message. path is how the service names it, where how people are told.
func (r *planReader) message(m protoreflect.Message, n ast.Node, path, where string) {
	fields := m.Descriptor().Fields()
	for _, e := range r.entries(n, where, 0) {
		fd := fields.ByTextName(e.name)
		if fd == nil {
			fd = fields.ByJSONName(e.name)
		}
		if fd == nil {
			var names []string
			for i := range fields.Len() {
				names = append(names, fields.Get(i).JSONName())
			}
			r.problem(e.line, where, "there is no key %q; there are %s", e.name, strings.Join(names, ", "))
			continue
		}
		at, told := string(fd.Name()), e.name
		if path != "" {
			at = path + "." + at
		}
		if where != "" {
			told = where + ": " + told
		}
		if _, twice := r.lines[at]; twice {
			r.problem(e.line, told, "it stands here twice")
			continue
		}
		r.lines[at] = e.line
		if value := r.resolve(e.value); value != nil {
			r.field(m, fd, value, at, told)
		}
	}
}

// field fills one field.
func (r *planReader) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, n ast.Node, path, where string) {
	switch {
	case fd.IsMap():
		into := m.Mutable(fd).Map()
		for _, e := range r.entries(n, where, 0) {
			if text, ok := r.text(e.value, e.line, where+": "+e.name); ok {
				into.Set(protoreflect.ValueOfString(e.name).MapKey(), protoreflect.ValueOfString(text))
			}
		}
	case fd.IsList():
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			r.problem(lineOf(n), where, "must be a list, each element behind a hyphen")
			return
		}
		if path == "steps" && len(list.Values) > planSteps {
			r.problem(lineOf(list.Values[planSteps]), where, "the plan has %d steps; the limit is %d", len(list.Values), planSteps)
			r.hint = "Submit it as several tasks"
			return
		}
		into := m.Mutable(fd).List()
		for i, item := range list.Values {
			if !r.more(item) {
				return
			}
			at := fmt.Sprintf("%s[%d]", path, i)
			r.lines[at] = lineOf(item)
			if fd.Kind() != protoreflect.MessageKind {
				if text, ok := r.text(item, lineOf(item), where); ok {
					into.Append(protoreflect.ValueOfString(text))
				}
				continue
			}
			element := into.NewElement()
			r.message(element.Message(), item, at, r.stepName(item, i))
			into.Append(element)
		}
	case fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Duration":
		text, ok := r.text(n, lineOf(n), where)
		if !ok {
			return
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			r.problem(lineOf(n), where, "%q is no length of time; write it as in 90s, 5m or 1h30m", text)
			return
		}
		m.Set(fd, protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()))
	case fd.Message() != nil:
		r.message(m.Mutable(fd).Message(), n, path, where)
	default:
		if text, ok := r.text(n, lineOf(n), where); ok {
			r.scalar(m, fd, n, text, where)
		}
	}
}

// stepName is how people are told of a step.
func (r *planReader) stepName(n ast.Node, i int) string {
	told := fmt.Sprintf("steps[%d]", i)
	if _, ok := r.resolve(n).(*ast.SequenceNode); ok {
		return told
	}
	quiet := planReader{plan: r.plan, anchors: r.anchors, nodes: r.nodes} // what is wrong with it is told where it is read
	for _, e := range quiet.entries(n, "", 0) {
		if text, ok := quiet.text(e.value, 0, ""); ok && e.name == "name" && text != "" {
			return fmt.Sprintf("%s %q", told, text)
		}
	}
	return told
}

// scalar fills a field that has one value.
func (r *planReader) scalar(m protoreflect.Message, fd protoreflect.FieldDescriptor, n ast.Node, text, where string) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		m.Set(fd, protoreflect.ValueOfString(text))
	case protoreflect.BoolKind:
		if _, ok := n.(*ast.BoolNode); !ok {
			r.problem(lineOf(n), where, "must be true or false, not %q", text)
			return
		}
		m.Set(fd, protoreflect.ValueOfBool(strings.EqualFold(text, "true")))
	case protoreflect.Int32Kind:
		number, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			r.problem(lineOf(n), where, "must be a whole number, not %q", text)
			return
		}
		m.Set(fd, protoreflect.ValueOfInt32(int32(number)))
	default:
		panic("a plan has a field of kind " + fd.Kind().String())
	}
}

// text gives a scalar as it was written.
func (r *planReader) text(n ast.Node, line int, where string) (string, bool) {
	switch x := r.resolve(n).(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.LiteralNode:
		return x.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return x.GetToken().Value, true
	case nil:
		return "", true
	}
	r.problem(line, where, "must be a single value")
	return "", false
}

// given puts what the flags say into the plan.
func (p *plan) given(priority *int32, labels map[string]string, conversation, requestID string, look bool) *telexecv1.SubmitTaskRequest {
	req := proto.CloneOf(p.req)
	if priority != nil {
		req.Priority = *priority
	}
	if len(labels) > 0 && req.Labels == nil {
		req.Labels = make(map[string]string)
	}
	for k, v := range labels {
		req.Labels[k] = v
	}
	req.ConversationId = firstOf(conversation, req.GetConversationId())
	req.RequestId = firstOf(requestID, req.GetRequestId())
	req.ValidateOnly = req.GetValidateOnly() || look
	return req
}
