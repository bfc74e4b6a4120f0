package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/telexec/telexec/gen/openapi"
)

// beside are the paths of the document that are not of the contract: the gateway's
// own, and WebSockets.
var beside = []string{"GET /healthz", "GET /metrics", "GET /readyz", "GET /api/agent/{task_id}/updates", "GET /v1/commands/{command_id}/stream", "GET /v1/sessions/{session}/terminal", "GET /v1/socket"}

// The committed document says for every HTTP rule of the contract what a caller
// needs, and has what the gateway does beside it.
func TestDocumentCoversTheContract(t *testing.T) {
	doc := decode(t, openapi.JSON)
	groups := map[any]bool{}
	for _, tag := range list(doc["tags"]) {
		if groups[tag.(object)["name"]] = true; tag.(object)["description"] == "" {
			t.Errorf("%v has no description", tag)
		}
	}
	used := map[any]bool{}
	var got []string
	ids := map[string]bool{}
	for path, item := range doc["paths"].(object) {
		for method, op := range item.(object) {
			where := strings.ToUpper(method) + " " + path
			got = append(got, where)
			op := op.(object)
			if id := op["operationId"].(string); ids[id] {
				t.Errorf("%s: operationId %s is not unique", where, id)
			} else {
				ids[id] = true
			}
			tag := list(op["tags"])[0]
			used[tag] = true
			if s, _ := op["summary"].(string); s == "" || len(s) > 50 || strings.HasSuffix(s, ".") || len(list(op["tags"])) != 1 || !groups[tag] {
				t.Errorf("%s: summary %q, tags %v", where, s, op["tags"])
			}
			if s, _ := op["description"].(string); s == "" {
				t.Errorf("%s has no description", where)
			}
			for _, p := range list(op["parameters"]) {
				if p.(object)["in"] == "path" && p.(object)["example"] == nil {
					t.Errorf("%s: parameter %v has no example", where, p.(object)["name"])
				}
			}
			if slices.Contains(beside, where) {
				continue
			}
			if body, ok := op["requestBody"].(object); ok {
				if body["content"].(object)["application/json"].(object)["example"] == nil {
					t.Errorf("%s: the request has no example", where)
				}
			}
			answers := op["responses"].(object)
			for kind, content := range answers["200"].(object)["content"].(object) {
				if content.(object)["example"] == nil {
					t.Errorf("%s: the %s response has no example", where, kind)
				}
			}
			for _, status := range everywhere {
				if answers[strconv.Itoa(status)] == nil {
					t.Errorf("%s: no word of status %d", where, status)
				}
			}
		}
	}
	slices.Sort(got)
	want := append(routes(t), beside...)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("paths in the document:\n%s\nroutes in the contract:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !maps.Equal(used, groups) {
		t.Errorf("groups %v, used are %v", groups, used)
	}
	if doc["info"].(object)["title"] != "telexec" || len(list(doc["security"])) != 3 {
		t.Errorf("info %v, security %v", doc["info"], doc["security"])
	}
}

// routes lists the google.api.http rules of package telexec.v1: "GET /v1/hosts".
func routes(t *testing.T) []string {
	var all []string
	add := func(rule *annotations.HttpRule) {
		switch {
		case rule.GetGet() != "":
			all = append(all, "GET "+rule.GetGet())
		case rule.GetPost() != "":
			all = append(all, "POST "+rule.GetPost())
		case rule.GetDelete() != "":
			all = append(all, "DELETE "+rule.GetDelete())
		default:
			t.Errorf("rule %v has a method this test does not know", rule)
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("telexec.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				rule, _ := proto.GetExtension(methods.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				if rule == nil {
					continue
				}
				add(rule)
				for _, more := range rule.GetAdditionalBindings() {
					add(more)
				}
			}
		}
		return true
	})
	slices.Sort(all)
	return all
}

func TestReferencesResolve(t *testing.T) {
	doc := decode(t, openapi.JSON)
	seen := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case object:
			if ref, ok := v["$ref"].(string); ok {
				seen++
				at := any(doc)
				for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					at = at.(object)[step]
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, value := range v {
				walk(value)
			}
		case []any:
			for _, value := range v {
				walk(value)
			}
		}
	}
	walk(doc)
	if seen < 100 {
		t.Errorf("saw %d references only", seen)
	}
}

// The example requests pass the rules of the proto, so that whoever copies one
// is not refused; and no message has an example under a name the contract does
// not know.
func TestExamplesFollowTheContract(t *testing.T) {
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	requests, responses := requests(), responses()
	if got, want := slices.Sorted(maps.Keys(responses)), slices.Sorted(maps.Keys(requests)); !slices.Equal(got, want) {
		t.Errorf("responses for %v, requests for %v", got, want)
	}
	for id, request := range requests {
		if err := validator.Validate(request); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		service, method, _ := strings.Cut(strings.TrimSuffix(id, "_1"), "_")
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("telexec.v1." + service + "." + method))
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		m := found.(protoreflect.MethodDescriptor)
		if m.Input() != request.ProtoReflect().Descriptor() || m.Output() != responses[id].ProtoReflect().Descriptor() {
			t.Errorf("%s has examples %T and %T, the method wants %s and %s", id, request, responses[id], m.Input().FullName(), m.Output().FullName())
		}
		// What the document shows reads back as the message it was made of.
		shown, err := json.Marshal(example(responses[id]))
		if err != nil {
			t.Fatal(err)
		}
		back := responses[id].ProtoReflect().New().Interface()
		if err := protojson.Unmarshal(shown, back); err != nil || !proto.Equal(back, responses[id]) {
			t.Errorf("%s: the response does not read back: %v", id, err)
		}
	}
}

const part = `{
  "paths": {"/v1/things/{host}": {"post": {
    "tags": ["Things"], "operationId": "Do", "summary": "Do does\nit. Well.", "description": "Always.",
    "parameters": [
      {"name": "host", "in": "path", "required": true, "schema": {"type": "string"}},
      {"name": "labels[string]", "in": "query", "schema": {"type": "string"}},
      {"name": "session", "in": "query", "schema": {"type": "string"}}],
    "requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": {"a": {}, "session": {}}}}}},
    "responses": {"200": {"description": "Done\nwell.", "content": {"application/json": {"schema": {"type": "object"}}}}}}}},
  "components": {"schemas": {"Thing": {"type": "object"}}},
  "tags": [{"name": "Things"}]}`

// streams are what the WebSockets are made of.
const streams = `{"paths": {
  "/v1/commands/{command_id}/output": {"get": {"operationId": "Output", "summary": "Output streams.",
    "parameters": [
      {"name": "command_id", "in": "path", "required": true, "description": "The command.", "schema": {"type": "string"}},
      {"name": "follow", "in": "query", "schema": {"type": "boolean"}},
      {"name": "labels[string]", "in": "query", "description": "Labels.", "schema": {"type": "string"}}],
    "responses": {"200": {"content": {"application/json": {"schema": {"type": "object"}}}}}}},
  "/v1/sessions/{session}/screen": {"get": {"operationId": "Screen", "summary": "Screen shows.",
    "parameters": [
      {"name": "session", "in": "path", "required": true, "description": "The session.", "schema": {"type": "string"}},
      {"name": "scrollbackLines", "in": "query", "schema": {"type": "integer"}}],
    "responses": {"200": {"content": {"application/json": {"schema": {"type": "object"}}}}}}},
  "/v1/tasks/{task_id}/events": {"get": {"operationId": "Task", "summary": "Task tells.",
    "parameters": [{"name": "task_id", "in": "path", "required": true, "description": "The task.", "schema": {"type": "string"}}],
    "responses": {"200": {"content": {"application/json": {"schema": {"type": "object"}}}}}}},
  "/v1/events": {"get": {"operationId": "Events", "summary": "Events tell.",
    "responses": {"200": {"content": {"application/json": {"schema": {"type": "object"}}}}}}}}}`

const errorsPage = "| `QUEUE_FULL` | RESOURCE_EXHAUSTED | 429 | as many wait as may | try again |\n" +
	"| `INPUT_BUSY` | ABORTED, UNAVAILABLE | 409, 503 | the input is not read | try again |\n" +
	"| `TIMEOUT` | TIMED_OUT | the timeout passed | allow more time |\n"

func fixture() map[string]operation {
	return map[string]operation{"Do": {
		tag: "Things", summary: "Do it",
		id: "DoIt", without: []string{"session"}, params: map[string]any{"host": "web1"},
		request: object{"a": 1}, response: object{}, stream: true, errors: []int{http.StatusNotFound},
	}}
}

func TestMerge(t *testing.T) {
	all := fixture()
	all["Output"] = operation{asks: "telexec.v1.StreamOutputRequest", params: map[string]any{"command_id": "c1"}, response: object{}}
	all["Events"] = operation{response: object{}}
	all["Task"] = operation{params: map[string]any{"task_id": "t1"}, response: object{}}
	all["Screen"] = operation{params: map[string]any{"session": "deploy"}, response: object{}}
	raw, err := Merge([][]byte{[]byte(part), []byte(streams)}, all, errorsPage)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Merge([][]byte{[]byte(part), []byte(streams)}, all, errorsPage)
	if err != nil || string(again) != string(raw) {
		t.Errorf("two runs differ (%v)", err)
	}
	doc := decode(t, raw)
	paths := doc["paths"].(object)
	op := paths["/v1/things/{host}"].(object)["post"].(object)
	if op["operationId"] != "DoIt" || op["summary"] != "Do it" || op["description"] != "Do does it. Well.\n\nAlways." || list(op["tags"])[0] != "Things" {
		t.Errorf("operation is described as %v: %v: %v", op["operationId"], op["summary"], op["description"])
	}
	params := list(op["parameters"])
	if len(params) != 2 || params[0].(object)["example"] != "web1" || params[1].(object)["name"] != "labels" || params[1].(object)["style"] != "deepObject" {
		t.Errorf("parameters %v", params)
	}
	if properties := op["requestBody"].(object)["content"].(object)["application/json"].(object)["schema"].(object)["properties"].(object); len(properties) != 1 {
		t.Errorf("the body has %v", properties)
	}
	answers := op["responses"].(object)
	if answers["404"] == nil || answers["200"].(object)["content"].(object)[streamType] == nil {
		t.Errorf("responses %v", answers)
	}

	// A WebSocket takes what the stream takes by query, but for what it implies.
	socket := paths["/v1/commands/{command_id}/stream"].(object)["get"].(object)
	var names []any
	for _, p := range list(socket["parameters"]) {
		names = append(names, p.(object)["name"])
	}
	if !slices.Equal(names, []any{"command_id", "labels"}) || socket["responses"].(object)["101"] == nil || socket["responses"].(object)["426"] == nil {
		t.Errorf("parameters %v, responses %v", names, socket["responses"])
	}
	terminal := paths["/v1/sessions/{session}/terminal"].(object)["get"].(object)
	if params := list(terminal["parameters"]); len(params) != 1 || params[0].(object)["name"] != "session" || terminal["responses"].(object)["101"] == nil {
		t.Errorf("parameters %v, responses %v", params, terminal["responses"])
	}
	if events := paths["/v1/events"].(object)["get"].(object); events["responses"].(object)["101"] == nil || !strings.Contains(events["description"].(string), "WebSocket") {
		t.Errorf("events %v", events)
	}
	components := doc["components"].(object)
	asked := components["schemas"].(object)["telexec.v1.StreamOutputRequest"].(object)["properties"].(object)
	if got := slices.Sorted(maps.Keys(asked)); !slices.Equal(got, []string{"commandId", "follow", "labels"}) || asked["commandId"].(object)["description"] != "The command." ||
		asked["labels"].(object)["type"] != "object" {
		t.Errorf("the whole request is %v", asked)
	}
	if text := components["responses"].(object)["Conflict"].(object)["description"].(string); !strings.HasSuffix(text, ": `INPUT_BUSY`.") {
		t.Errorf("409 is described as %q", text)
	}
	if text := doc["info"].(object)["description"].(string); !strings.Contains(text, "\n| `INPUT_BUSY` | 409, 503 | the input is not read | try again |\n") ||
		strings.Contains(text, "TIMEOUT") || !strings.Contains(text, "\\\n  -d '") {
		t.Errorf("the introduction is\n%s", text)
	}
}

func TestMergeRefuses(t *testing.T) {
	change := func(f func(*operation)) map[string]operation {
		op := fixture()["Do"]
		f(&op)
		return map[string]operation{"Do": op}
	}
	extra := fixture()
	extra["Gone"] = operation{}
	for name, test := range map[string]struct {
		parts []string
		ops   map[string]operation
		want  string
	}{
		"an operation without an entry": {[]string{part}, nil, "has no entry"},
		"an entry without an operation": {[]string{part}, extra, "Gone"},
		"an operation twice":            {[]string{part, part}, fixture(), "occurs twice"},
		"two schemas of one name": {[]string{part, `{"components": {"schemas": {"Thing": {"type": "string"}}}}`},
			fixture(), "schema Thing differs"},
		"not JSON":            {[]string{"{"}, nil, "unexpected end"},
		"no request example":  {[]string{part}, change(func(o *operation) { o.request = nil }), "request has no example"},
		"no response example": {[]string{part}, change(func(o *operation) { o.response = nil }), "response has no example"},
		"no path example":     {[]string{part}, change(func(o *operation) { o.params = nil }), "parameter host has no example"},
	} {
		t.Run(name, func(t *testing.T) {
			var parts [][]byte
			for _, p := range test.parts {
				parts = append(parts, []byte(p))
			}
			if _, err := Merge(parts, test.ops, errorsPage); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	in, out, page := filepath.Join(dir, "in.json"), filepath.Join(dir, "out.json"), filepath.Join(dir, "errors.md")
	for name, text := range map[string]string{in: `{"paths": {}}`, page: errorsPage} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// An empty document lacks every operation of the contract.
	if err := run([]string{"-errors", page, "-out", out, in}, io.Discard); err == nil || !strings.Contains(err.Error(), "CommandService_Execute") {
		t.Errorf("got %v", err)
	}
	for _, args := range [][]string{{}, {"-out", out}, {"-nope"}, {"-errors", page, "-out", out},
		{"-errors", filepath.Join(dir, "missing"), "-out", out, in}, {"-errors", page, "-out", out, filepath.Join(dir, "missing")}} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("run(%q) did not fail", args)
		}
	}
}

func decode(t *testing.T, raw []byte) object {
	t.Helper()
	var doc object
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}
