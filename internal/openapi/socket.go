package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/rpcserver"
)

// OpenAPI has no word for WebSockets: the document has their paths as GETs that are
// answered by 101, and their messages as schemas with examples. The generator
// makes neither, for no method of a service takes or gives those messages.

const socketIntro = `Opens a WebSocket (RFC 6455, HTTP/1.1). Each message of the client is a telexec.v1.SocketRequest,
each of the service a telexec.v1.SocketMessage (both are among the schemas, with examples): text with JSON under the subprotocol telexec.v1.json, which is also spoken
where none is named, or binary with the wire format of protobuf under telexec.v1.proto.

Who cannot set headers, as a page's script, offers its token as one more subprotocol, telexec.bearer. and the base64url of the token.
A page of this server is known by its cookie.

%s The client may send every other request on the same connection.

~~~json
%s
~~~

The service answers, and tells, for instance:

~~~json
%s
~~~

The service pings; a client that does not answer is gone. It closes with 1000 when all is told, 1001 when it shuts down, 1003 or 1007 where
a message cannot be read at all, 1008 when credentials end, 1009 for a message that is too large and 1013 where a limit is
reached. Losing the connection never touches a command: connect again, and begin at the last offset or sequence that arrived.`

// socketMessages are the envelope, and what is in it alone.
var socketMessages = []proto.Message{&pb.SocketRequest{}, &pb.SocketMessage{}, &pb.SocketData{}, &pb.Unsubscribe{}, &pb.Unsubscribed{}}

// socketNotes say what the fields of the envelope mean.
var socketNotes = map[string]string{
	"telexec.v1.SocketRequest":                 "SocketRequest is what a client says: an id, and exactly one request.",
	"telexec.v1.SocketRequest.id":              "Chosen by the client, at most 64 bytes; what the service says about this request has it. A subscription is named by it until it is over, so that no other may have it.",
	"telexec.v1.SocketRequest.subscribeOutput": "Send the output and the changes of a command. follow is implied.",
	"telexec.v1.SocketRequest.subscribeEvents": "Send the changes of commands and of sessions, and what happens to tasks.",
	"telexec.v1.SocketRequest.subscribeTask":   "Send what happens to a task.",
	"telexec.v1.SocketRequest.decide":          "Decide about an approval that a task waits for.",
	"telexec.v1.SocketRequest.unsubscribe":     "End a subscription.",
	"telexec.v1.SocketRequest.execute":         "Start a command. The answer comes at once whatever wait says, and the output follows as for subscribeOutput.",
	"telexec.v1.SocketRequest.cancel":          "End a command and all its processes.",
	"telexec.v1.SocketRequest.signal":          "Send one signal.",
	"telexec.v1.SocketRequest.input":           "Write to standard input.",

	"telexec.v1.Unsubscribe":              "Unsubscribe names the subscription to end.",
	"telexec.v1.Unsubscribe.subscription": "id of the request that it was made by.",

	"telexec.v1.SocketMessage":          "SocketMessage is what the service says.",
	"telexec.v1.SocketMessage.type":     "Which field of data is set, by its name in the proto file: output_complete for outputComplete.",
	"telexec.v1.SocketMessage.version":  "Version of this envelope: 1.",
	"telexec.v1.SocketMessage.resource": "What it is about: commands/{id}, tasks/{id}, events, or empty for the connection itself.",
	"telexec.v1.SocketMessage.sequence": "Of a command: its version, as far as told. Of events: where to go on after a loss of the connection, as after. Of a task: the same. It never falls.",
	"telexec.v1.SocketMessage.id":       "id of the request that it answers or that it is subscribed by; stream, events or updates for the subscription that the path made.",
	"telexec.v1.SocketMessage.time":     "When the service sent it.",
	"telexec.v1.SocketMessage.data":     "What it says.",

	"telexec.v1.SocketData":                "SocketData is what a SocketMessage says: exactly one of these.",
	"telexec.v1.SocketData.chunk":          "Bytes of a stream. Within a stream they follow each other exactly.",
	"telexec.v1.SocketData.command":        "How a command is: it has changed.",
	"telexec.v1.SocketData.gap":            "Retention has removed these bytes; the stream goes on behind them.",
	"telexec.v1.SocketData.outputComplete": "All output there will ever be is sent.",
	"telexec.v1.SocketData.ended":          "The end of a subscription to output: the command as it ended.",
	"telexec.v1.SocketData.event":          "A command was made or has changed; of a subscription to events.",
	"telexec.v1.SocketData.synced":         "What was missed has been told; of a subscription to events.",
	"telexec.v1.SocketData.heartbeat":      "Nothing happened; a subscription is alive.",
	"telexec.v1.SocketData.execute":        "Answer to execute.",
	"telexec.v1.SocketData.cancel":         "Answer to cancel.",
	"telexec.v1.SocketData.signal":         "Answer to signal.",
	"telexec.v1.SocketData.input":          "Answer to input.",
	"telexec.v1.SocketData.unsubscribed":   "A subscription is over; answer to unsubscribe.",
	"telexec.v1.SocketData.error":          "A request was refused, or a subscription broke off. Without id it is about the connection, which is then closed, or about a request whose id could not be read.",
	"telexec.v1.SocketData.session":        "A session was opened, has changed or has ended; of a subscription to events.",
	"telexec.v1.SocketData.task":           "A task: the first and the last of a subscription to it, and where one to events comes upon it.",
	"telexec.v1.SocketData.taskEvent":      "Something has happened to a task.",
	"telexec.v1.SocketData.decide":         "Answer to decide.",

	"telexec.v1.Unsubscribed": "Unsubscribed says that a subscription is over.",
}

// socketExamples gives examples of the messages, by the name of their type.
func socketExamples() map[string][]proto.Message {
	all := responses()
	executed := all["CommandService_Execute"].(*pb.ExecuteResponse)
	ended := executed.GetCommand()
	asks := requests()
	at := timestamppb.New(exampleStart.Add(60 * time.Millisecond))
	resource := "commands/" + exampleID
	said := func(kind, id string, sequence int64, data *pb.SocketData) *pb.SocketMessage {
		return &pb.SocketMessage{Type: kind, Version: 1, Resource: resource, Sequence: sequence, Id: id, Time: at, Data: data}
	}
	execute := &pb.ExecuteRequest{Host: "web1", Command: "df -h /"}
	synced := said("synced", "events", 4712, &pb.SocketData{Data: &pb.SocketData_Synced{Synced: &pb.Synced{}}})
	synced.Resource = "events"
	step := all["TaskService_WatchTask"].(*pb.WatchTaskResponse).GetEvent()
	update := said("task_event", "updates", step.GetSequence(), &pb.SocketData{Data: &pb.SocketData_TaskEvent{TaskEvent: step}})
	update.Resource = "tasks/" + exampleTaskID
	return map[string][]proto.Message{
		"telexec.v1.SocketRequest": {
			&pb.SocketRequest{Id: "run-1", Request: &pb.SocketRequest_Execute{Execute: execute}},
			&pb.SocketRequest{Id: "out-1", Request: &pb.SocketRequest_SubscribeOutput{SubscribeOutput: &pb.StreamOutputRequest{CommandId: exampleID, StdoutOffset: int64(len(exampleOutput)), Text: true}}},
			&pb.SocketRequest{Id: "all", Request: &pb.SocketRequest_SubscribeEvents{SubscribeEvents: asks["EventService_WatchEvents"].(*pb.WatchEventsRequest)}},
			&pb.SocketRequest{Id: "stop-1", Request: &pb.SocketRequest_Cancel{Cancel: &pb.CancelRequest{CommandId: exampleID, Reason: "wrong branch", Grace: durationpb.New(2 * time.Second)}}},
			&pb.SocketRequest{Id: "in-1", Request: &pb.SocketRequest_Input{Input: asks["CommandService_SendInput"].(*pb.SendInputRequest)}},
			&pb.SocketRequest{Id: "yes-1", Request: &pb.SocketRequest_Decide{Decide: asks["TaskService_DecideTask"].(*pb.DecideTaskRequest)}},
			&pb.SocketRequest{Id: "bye-1", Request: &pb.SocketRequest_Unsubscribe{Unsubscribe: &pb.Unsubscribe{Subscription: "out-1"}}},
		},
		"telexec.v1.SocketMessage": {
			said("chunk", "stream", 3, &pb.SocketData{Data: &pb.SocketData_Chunk{Chunk: &pb.OutputChunk{Stream: pb.Stream_STREAM_STDOUT, Data: []byte(exampleOutput), Text: exampleOutput}}}),
			said("ended", "stream", ended.GetVersion(), &pb.SocketData{Data: &pb.SocketData_Ended{Ended: ended}}),
			synced,
			update,
		},
	}
}

// addSockets adds the WebSockets to the paths, and their messages to the schemas. asked
// has the forms of the requests of the contract.
func addSockets(paths, schemas, asked object) error {
	examples := socketExamples()
	if err := addSchemas(schemas, socketMessages, examples, socketNotes); err != nil {
		return err
	}
	maps.Copy(schemas, asked)

	output, err := find(paths, "/v1/commands/{command_id}/output")
	if err != nil {
		return err
	}
	events, err := find(paths, "/v1/events")
	if err != nil {
		return err
	}
	requests, chunk := examples["telexec.v1.SocketRequest"], examples["telexec.v1.SocketMessage"][0]
	answer := proto.CloneOf(chunk.(*pb.SocketMessage))
	answer.Id = requests[0].(*pb.SocketRequest).GetId()
	sample := func(m proto.Message) string {
		text, err := encode(example(m))
		if err != nil {
			panic(fmt.Sprintf("example of %T: %v", m, err)) // it comes out of JSON
		}
		return strings.TrimSpace(string(text))
	}
	paths["/v1/socket"] = object{"get": socket("WebSocket_Open", "Open a WebSocket", nil,
		fmt.Sprintf(socketIntro, "It begins without a subscription.", sample(requests[0]), sample(answer)))}
	paths["/v1/commands/{command_id}/stream"] = object{"get": socket("WebSocket_StreamOutput", "Follow a command over a WebSocket",
		without(list(output["parameters"]), "follow"),
		fmt.Sprintf(socketIntro, "It begins with a subscription to the output and the changes of the command, whose id is stream.", sample(requests[3]), sample(chunk)),
		http.StatusNotFound)}

	updates, err := find(paths, "/v1/tasks/{task_id}/events")
	if err != nil {
		return err
	}
	paths["/api/agent/{task_id}/updates"] = object{"get": socket("WebSocket_WatchTask", "Follow a task over a WebSocket",
		list(updates["parameters"]),
		fmt.Sprintf(socketIntro, "It begins with a subscription to what happens to the task, whose id is updates; what the task waits for may be decided over it.", sample(requests[5]), sample(examples["telexec.v1.SocketMessage"][3])),
		http.StatusNotFound)}

	note := "**As a WebSocket:** asked to upgrade, the path answers 101 and opens a connection as GET /v1/socket does, with a subscription to these events, whose id is events."
	events["description"] = events["description"].(string) + "\n\n" + note
	events["responses"].(object)["101"] = object{"description": "The connection is a WebSocket now."}
	return addTerminal(paths, schemas)
}

// addSchemas adds the schemas of messages, with examples of them and what notes say of
// their fields.
func addSchemas(schemas object, messages []proto.Message, examples map[string][]proto.Message, notes map[string]string) error {
	for _, m := range messages {
		d := m.ProtoReflect().Descriptor()
		schema, err := socketSchema(d, notes)
		if err != nil {
			return err
		}
		var shown []any
		for _, e := range examples[string(d.FullName())] {
			shown = append(shown, example(e))
		}
		if shown != nil {
			schema["examples"] = shown
		}
		schemas[string(d.FullName())] = schema
	}
	return nil
}

// socket gives the operation of a WebSocket.
func socket(id, summary string, params []any, description string, more ...int) object {
	_, refusal := rpcserver.Problem(fault.New(fault.Invalid, fault.ReasonInvalidRequest, "/v1/socket is for WebSockets").
		WithHint("Connect to it with a WebSocket client, over HTTP/1.1; by plain HTTP, read /v1/commands/{id}/output or /v1/events"))
	answers := object{
		"101": object{"description": "The connection is a WebSocket now. Its messages are SocketRequest and SocketMessage."},
		"426": object{
			"description": "The request does not ask for a WebSocket.",
			"headers":     object{"Upgrade": object{"schema": object{"type": "string", "const": "websocket"}}},
			"content": object{"application/json": object{
				"schema":  object{"$ref": "#/components/schemas/" + statusSchema},
				"example": example(refusal),
			}},
		},
	}
	refer(answers, append(slices.Clone(everywhere), more...)...)
	op := object{"operationId": id, "summary": summary, "description": joined(description), "tags": []any{tagSocket}, "responses": answers}
	if params != nil {
		op["parameters"] = params
	}
	return op
}

func find(paths object, path string) (object, error) {
	item, _ := paths[path].(object)
	op, ok := item["get"].(object)
	if !ok {
		return nil, fmt.Errorf("the contract has no GET %s, of which a WebSocket is made", path)
	}
	return op, nil
}

// without gives the parameters but those of the names.
func without(params []any, names ...string) []any {
	return slices.DeleteFunc(slices.Clone(params), func(p any) bool { return slices.Contains(names, p.(object)["name"].(string)) })
}

// socketSchema describes a message of a WebSocket as protobuf writes it in JSON, in
// the words of notes.
func socketSchema(d protoreflect.MessageDescriptor, notes map[string]string) (object, error) {
	note := func(name string) (string, error) {
		text, ok := notes[name]
		if !ok {
			return "", fmt.Errorf("socket.go and terminal.go have no word about %s", name)
		}
		return text, nil
	}
	about, err := note(string(d.FullName()))
	if err != nil {
		return nil, err
	}
	properties := object{}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		schema, err := fieldSchema(f)
		if err != nil {
			return nil, err
		}
		if schema["description"], err = note(string(d.FullName()) + "." + f.JSONName()); err != nil {
			return nil, err
		}
		properties[f.JSONName()] = schema
	}
	return object{"type": "object", "description": about, "properties": properties}, nil
}

func fieldSchema(f protoreflect.FieldDescriptor) (object, error) {
	if f.IsList() {
		items, err := elementSchema(f)
		return object{"type": "array", "items": items}, err
	}
	return elementSchema(f)
}

func elementSchema(f protoreflect.FieldDescriptor) (object, error) {
	switch f.Kind() {
	case protoreflect.EnumKind:
		return object{"$ref": "#/components/schemas/" + string(f.Enum().FullName())}, nil
	case protoreflect.BoolKind:
		return object{"type": "boolean"}, nil
	case protoreflect.BytesKind:
		return object{"type": "string", "format": "byte"}, nil
	case protoreflect.MessageKind:
		if name := f.Message().FullName(); name != "google.protobuf.Timestamp" {
			return object{"$ref": "#/components/schemas/" + string(name)}, nil
		}
		return object{"type": "string", "format": "date-time"}, nil
	case protoreflect.StringKind:
		return object{"type": "string"}, nil
	case protoreflect.Int32Kind:
		return object{"type": "integer", "format": "int32"}, nil
	case protoreflect.Int64Kind:
		return object{"type": "string", "format": "int64"}, nil
	}
	return nil, fmt.Errorf("socket.go does not know what %s, a %s, is in JSON", f.FullName(), f.Kind())
}

// requestSchema gives the form of a whole request from the generated operation,
// where its fields are spread over path, query and body.
func requestSchema(op object, about string) object {
	properties := object{}
	if body, ok := op["requestBody"].(object); ok {
		schema := body["content"].(object)["application/json"].(object)["schema"].(object)
		fields, _ := schema["properties"].(object)
		maps.Copy(properties, fields)
	}
	for _, p := range list(op["parameters"]) {
		p := p.(object)
		name, field := p["name"].(string), object{}
		maps.Copy(field, p["schema"].(object))
		if base, isMap := strings.CutSuffix(name, "[string]"); isMap {
			name, field = base, object{"type": "object", "additionalProperties": object{"type": "string"}}
		}
		field["description"] = p["description"]
		properties[camel(name)] = field
	}
	return object{"type": "object", "description": about, "properties": properties}
}

// camel gives the JSON name of a field: "commandId" of "command_id".
func camel(name string) string {
	words := strings.Split(name, "_")
	for i, word := range words[1:] {
		words[i+1] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.Join(words, "")
}
