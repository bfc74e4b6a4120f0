package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
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
	tag      string         // group that it belongs to
	summary  string         // what it does, in a few words
	asks     string         // schema to make of its request; empty: none
	without  []string       // fields that this path does not take
	params   map[string]any // example values of parameters
	request  any            // example of the request body; nil: it has none
	response any            // example of the answer
	stream   bool           // the answer is newline-delimited JSON
	file     string         // example of the recording that the answer is where that is accepted; empty: it is none
	errors   []int          // statuses besides those that every operation can give
}

// Merge joins the OpenAPI documents that the generator wrote and completes
// every operation from ops, by its generated operationId. The reasons of errors
// are those of page, docs/errors.md. An operation without an entry, an entry without
// an operation, or two different schemas of one name are errors: the document
// would be incomplete or wrong.
func Merge(parts [][]byte, ops map[string]operation, page string) ([]byte, error) {
	paths, schemas, asked := object{}, object{}, object{}
	left := maps.Clone(ops)
	for _, part := range parts {
		var doc struct {
			Paths      map[string]map[string]object `json:"paths"`
			Components struct {
				Schemas object `json:"schemas"`
			} `json:"components"`
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
				if add.asks != "" {
					asked[add.asks] = requestSchema(op, add.asks[strings.LastIndex(add.asks, ".")+1:]+" is what "+strings.ToUpper(method)+" "+path+" takes, in one object.")
				}
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
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("examples.go has operations that the contract has not: %v", slices.Sorted(maps.Keys(left)))
	}
	// Not the words of this program: where they break lines they mean it.
	unwrap(paths)
	unwrap(schemas)
	unwrap(asked)
	schemas[statusSchema] = errorSchema()
	if err := addSockets(paths, schemas, asked); err != nil {
		return nil, err
	}
	maps.Copy(paths, ownPaths())
	reasons, err := reasonTable(page)
	if err != nil {
		return nil, err
	}
	schemes, security := credentials()
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title":       "telexec",
			"version":     "v1",
			"summary":     "Runs commands on remote hosts over SSH for programs, people and AI agents, and never loses one.",
			"description": joined(fmt.Sprintf(intro, reasons, rateTable())),
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":  []any{object{"url": "/", "description": "The service that serves this document."}},
		"security": security,
		"tags":     tags(),
		"paths":    paths,
		"components": object{
			"schemas":         schemas,
			"responses":       errorResponses(reasonsByStatus(page)),
			"securitySchemes": schemes,
		},
	}
	return encode(doc)
}

// complete adds what ops knows to one generated operation.
func complete(op object, add operation) error {
	if add.id != "" {
		op["operationId"] = add.id
	}
	op["tags"], op["summary"], op["description"] = []any{add.tag}, add.summary, description(op)

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
	if add.file != "" {
		answer["description"] = answer["description"].(string) + " Where " + recordingType + " is accepted, the bytes of the file alone; it breaks off with the connection."
		answer["content"].(object)[recordingType] = object{"schema": object{"type": "string", "format": "binary"}, "example": add.file}
	}
	refer(responses, append(slices.Clone(everywhere), add.errors...)...)
	responses["default"] = object{"$ref": "#/components/responses/" + otherResponse}
	return nil
}

// refer adds the responses of errors, by their statuses.
func refer(responses object, statuses ...int) {
	for _, status := range statuses {
		responses[strconv.Itoa(status)] = object{"$ref": "#/components/responses/" + responseName(status)}
	}
}

// description gives the whole comment of the proto: the generator has put its first
// paragraph into the summary.
func description(op object) string {
	first, _ := op["summary"].(string)
	rest, _ := op["description"].(string)
	return strings.TrimSpace(first + "\n\n" + rest)
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
				v[key] = joined(text)
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

// joined gives a text without the line breaks within its paragraphs; code and tables
// keep theirs.
func joined(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, "~~~") && !strings.HasPrefix(p, "|") {
			paragraphs[i] = strings.ReplaceAll(p, "\n", " ")
		}
	}
	return strings.Join(paragraphs, "\n\n")
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
