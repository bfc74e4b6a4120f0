package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// object is a JSON object; encoding/json writes its keys in order, which makes
// the document the same every time.
type object = map[string]any

// operation is what is added to one operation of the generated documents.
type operation struct {
	id       string         // operationId in the merged document; empty: as generated
	without  []string       // fields that this path does not take
	params   map[string]any // example values of parameters
	request  any            // example of the request body; nil: it has none
	response any            // example of the answer
	stream   bool           // the answer is newline-delimited JSON
	errors   []int          // statuses besides those that every operation can give
}

const info = `telexec runs commands on remote hosts over SSH for programs, people and AI agents, and never loses one.

Every call needs a bearer token. Every error is a google.rpc.Status: its message says what happened, and among its
details is a google.rpc.ErrorInfo of domain "telexec" with a reason for programs and a hint that says what to do. All
reasons are listed in docs/errors.md.

Fields of type int64 are strings, as JSON numbers lose precision above 2^53. Durations are strings of seconds: "2.5s".
Bytes are base64.`

// Merge joins the OpenAPI documents that the generator wrote and completes
// every operation from ops, by its generated operationId. An operation without
// an entry, an entry without an operation, or two different schemas of one name
// are errors: the document would be incomplete or wrong.
func Merge(parts [][]byte, ops map[string]operation) ([]byte, error) {
	paths, schemas := object{}, object{}
	var tags []any
	left := maps.Clone(ops)
	for _, part := range parts {
		var doc struct {
			Paths      map[string]map[string]object `json:"paths"`
			Components struct {
				Schemas object `json:"schemas"`
			} `json:"components"`
			Tags []any `json:"tags"`
		}
		if err := json.Unmarshal(part, &doc); err != nil {
			return nil, fmt.Errorf("reading a generated document: %w", err)
		}
		for path, methods := range doc.Paths {
			for method, op := range methods {
				id, _ := op["operationId"].(string)
				add, ok := left[id]
				if !ok {
					return nil, fmt.Errorf("%s %s: operation %q has no entry in examples.go, or occurs twice", method, path, id)
				}
				delete(left, id)
				if err := complete(op, add); err != nil {
					return nil, fmt.Errorf("%s: %w", id, err)
				}
				item, _ := paths[path].(object)
				if item == nil {
					item = object{}
					paths[path] = item
				}
				item[method] = op
			}
		}
		for name, schema := range doc.Components.Schemas {
			if was, ok := schemas[name]; ok && !reflect.DeepEqual(was, schema) {
				return nil, fmt.Errorf("schema %s differs between two services", name)
			}
			schemas[name] = schema
		}
		tags = append(tags, doc.Tags...)
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("examples.go has operations that the contract has not: %v", slices.Sorted(maps.Keys(left)))
	}
	schemas[statusSchema] = errorSchema()
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title":       "telexec",
			"version":     "v1",
			"summary":     "Run commands on remote hosts over SSH.",
			"description": info,
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":  []any{object{"url": "/", "description": "The service that serves this document."}},
		"security": []any{object{"bearer": []any{}}},
		"tags":     tags,
		"paths":    paths,
		"components": object{
			"schemas":   schemas,
			"responses": errorResponses(),
			"securitySchemes": object{"bearer": object{
				"type":        "http",
				"scheme":      "bearer",
				"description": "The token of the file admin.token in the data directory of telexecd, or one that an administrator gave.",
			}},
		},
	}
	return encode(unwrap(doc))
}

// complete adds what ops knows to one generated operation.
func complete(op object, add operation) error {
	if add.id != "" {
		op["operationId"] = add.id
	}
	describe(op)

	var params []any
	for _, p := range list(op["parameters"]) {
		p := p.(object)
		name := p["name"].(string)
		if slices.Contains(add.without, name) {
			continue
		}
		if base, isMap := strings.CutSuffix(name, "[string]"); isMap {
			p["name"], p["style"], p["explode"] = base, "deepObject", true
			p["schema"] = object{"type": "object", "additionalProperties": object{"type": "string"}}
			name = base
		}
		if example, ok := add.params[name]; ok {
			p["example"] = example
		} else if p["in"] == "path" {
			return fmt.Errorf("path parameter %s has no example", name)
		}
		params = append(params, p)
	}
	if params != nil {
		op["parameters"] = params
	}

	if body, ok := op["requestBody"].(object); ok {
		if add.request == nil {
			return fmt.Errorf("the request has no example")
		}
		content := body["content"].(object)["application/json"].(object)
		content["example"] = add.request
		if properties, ok := content["schema"].(object)["properties"].(object); ok {
			for _, name := range add.without {
				delete(properties, name)
			}
		}
	}

	if add.response == nil {
		return fmt.Errorf("the response has no example")
	}
	responses := op["responses"].(object)
	answer := responses["200"].(object)
	content := answer["content"].(object)["application/json"].(object)
	content["example"] = add.response
	if add.stream {
		message := content["schema"]
		answer["description"] = "One JSON object per line, each sent at once. Where the stream breaks off, the last one has an error."
		content["schema"] = object{"anyOf": []any{message, object{
			"type": "object", "title": "Broken off", "required": []any{"error"},
			"properties": object{"error": object{"$ref": "#/components/schemas/" + statusSchema}},
		}}}
		answer["content"] = object{streamType: content}
	}
	for _, status := range append(slices.Clone(everywhere), add.errors...) {
		responses[strconv.Itoa(status)] = object{"$ref": "#/components/responses/" + responseName(status)}
	}
	responses["default"] = object{"$ref": "#/components/responses/" + responseName(http.StatusInternalServerError)}
	return nil
}

// describe makes of the generator's summary, a whole paragraph of the proto, a
// summary of one sentence and a description with all of it.
func describe(op object) {
	summary, _ := op["summary"].(string)
	rest, _ := op["description"].(string)
	first, _, more := strings.Cut(strings.ReplaceAll(summary, "\n", " "), ". ")
	op["summary"] = strings.TrimSuffix(first, ".") + "."
	if more || rest != "" {
		op["description"] = strings.TrimSpace(summary + "\n\n" + rest)
	}
}

// unwrap gives v with the line breaks within the paragraphs of descriptions
// taken out: they are those of the proto file, and renderers keep them.
func unwrap(v any) any {
	switch v := v.(type) {
	case object:
		for key, value := range v {
			text, isText := value.(string)
			switch {
			case isText && key == "description":
				paragraphs := strings.Split(text, "\n\n")
				for i, p := range paragraphs {
					paragraphs[i] = strings.ReplaceAll(p, "\n", " ")
				}
				v[key] = strings.Join(paragraphs, "\n\n")
			case key == "example":
			default:
				v[key] = unwrap(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = unwrap(v[i])
		}
	}
	return v
}

func encode(doc any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(doc)
	return b.Bytes(), err
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}
