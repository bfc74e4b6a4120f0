package main

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/telexec/telexec/gen/openapi"
	pb "github.com/telexec/telexec/gen/telexec/v1"
)

// What the document shows of the envelope can be sent, and reads back; what the
// service says has the type of what it says.
func TestSocketExamplesFollowTheContract(t *testing.T) {
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	schemas := decode(t, openapi.JSON)["components"].(object)["schemas"].(object)
	all := terminalExamples()
	maps.Copy(all, socketExamples())
	for name, messages := range all {
		if shown := list(schemas[name].(object)["examples"]); len(shown) != len(messages) {
			t.Errorf("%s has %d examples in the document, not %d", name, len(shown), len(messages))
		}
		for i, m := range messages {
			if err := validator.Validate(m); err != nil {
				t.Errorf("%s %d: %v", name, i, err)
			}
			shown, err := json.Marshal(example(m))
			if err != nil {
				t.Fatal(err)
			}
			back := m.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal(shown, back); err != nil || !proto.Equal(back, m) {
				t.Errorf("%s %d does not read back: %v", name, i, err)
			}
			if said, ok := m.(*pb.SocketMessage); ok {
				data := said.GetData().ProtoReflect()
				if f := data.WhichOneof(data.Descriptor().Oneofs().Get(0)); f == nil || string(f.Name()) != said.GetType() {
					t.Errorf("%s %d has type %q, and says %v", name, i, said.GetType(), f)
				}
			}
		}
	}
}

// TestSchemasHaveTheFieldsOfTheirMessages, as protobuf writes them in JSON: the
// generator makes some, this package puts the rest together.
func TestSchemasHaveTheFieldsOfTheirMessages(t *testing.T) {
	schemas := decode(t, openapi.JSON)["components"].(object)["schemas"].(object)
	names := []string{"SocketRequest", "SocketMessage", "SocketData", "Unsubscribe", "Unsubscribed",
		"ExecuteRequest", "StreamOutputRequest", "WatchEventsRequest", "CancelRequest", "SignalRequest", "SendInputRequest"}
	for _, m := range terminalMessages {
		names = append(names, string(m.ProtoReflect().Descriptor().Name()))
	}
	for _, name := range names {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("telexec.v1." + name))
		if err != nil {
			t.Fatal(err)
		}
		schema, ok := schemas["telexec.v1."+name].(object)
		if !ok || schema["description"] == "" {
			t.Errorf("%s: %v", name, schema)
			continue
		}
		var got, want []string
		for field, of := range schema["properties"].(object) {
			got = append(got, field)
			if text, _ := of.(object)["description"].(string); text == "" {
				t.Errorf("%s.%s has no description", name, field)
			}
		}
		fields := found.(protoreflect.MessageDescriptor).Fields()
		for i := range fields.Len() {
			want = append(want, fields.Get(i).JSONName())
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %v, the message has %v", name, got, want)
		}
	}
}

// The words about the envelope are about fields that there are.
func TestNothingIsSaidOfFieldsThatAreGone(t *testing.T) {
	known := map[string]bool{"telexec.v1.KeyboardAction": true}
	for _, m := range slices.Concat(socketMessages, terminalMessages) {
		d := m.ProtoReflect().Descriptor()
		known[string(d.FullName())] = true
		for i := range d.Fields().Len() {
			known[string(d.FullName())+"."+d.Fields().Get(i).JSONName()] = true
		}
	}
	for _, notes := range []map[string]string{socketNotes, terminalNotes} {
		for name := range notes {
			if !known[name] {
				t.Errorf("something is told of %s", name)
			}
		}
	}
}

// The limits that the introduction tells are the defaults.
func TestLimitsAreTheDefaults(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rates {
		found := false
		for line := range strings.Lines(string(page)) {
			cells := strings.Split(line, " | ")
			found = found || len(cells) > 2 && cells[0] == "| `"+r.setting+"`" && cells[2] == "`"+r.value+"`"
		}
		if !found {
			t.Errorf("docs/configuration.md does not say that %s is %s", r.setting, r.value)
		}
	}
}

// TestReasonsStandUnderTheirStatuses: in the committed document, as docs/errors.md
// has them.
func TestReasonsStandUnderTheirStatuses(t *testing.T) {
	page, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	table, err := reasonTable(string(page))
	if err != nil || strings.Count(table, "\n") < 40 {
		t.Fatalf("%v:\n%s", err, table)
	}
	doc := decode(t, openapi.JSON)
	if !strings.Contains(doc["info"].(object)["description"].(string), table) {
		t.Error("the introduction has not the reasons of docs/errors.md: run make gen")
	}
	responses := doc["components"].(object)["responses"].(object)
	for name, reason := range map[string]string{"NotFound": "`UNKNOWN_HOST`", "TooManyRequests": "`RATE_LIMITED`", "Conflict": "`REQUEST_ID_REUSED`"} {
		response := responses[name].(object)
		if !strings.Contains(response["description"].(string), reason) {
			t.Errorf("%s: %v", name, response["description"])
		}
	}
	if responses["TooManyRequests"].(object)["headers"].(object)["Retry-After"] == nil {
		t.Error("429 tells of no Retry-After")
	}
	if _, err := reasonTable("# Errors\n"); err == nil {
		t.Error("a page without the table is taken")
	}
}
