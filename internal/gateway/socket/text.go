package socket

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

// The subprotocols (RFC 6455 §1.9).
const (
	JSONProtocol  = "telexec.v1.json"
	ProtoProtocol = "telexec.v1.proto"
)

// maxID is how many bytes the id of a request may have.
const maxID = 64

// unreadable is a message that breaks the protocol: the socket ends with code.
type unreadable struct {
	why  *fault.Error
	code websocket.StatusCode
}

func (u unreadable) Error() string { return u.why.Error() }

// Unwrap gives the fault that is told.
func (u unreadable) Unwrap() error { return u.why }

// decode reads a message. An error that is not unreadable is about its fields. None
// repeats a value of the message.
func decode(binary bool, kind websocket.MessageType, data []byte, m proto.Message, unmarshal func([]byte, proto.Message) error) error {
	name := m.ProtoReflect().Descriptor().Name()
	if binary != (kind == websocket.MessageBinary) {
		spoken, wanted := JSONProtocol, "text"
		if binary {
			spoken, wanted = ProtoProtocol, "binary"
		}
		return unreadable{invalid("the subprotocol %s has %s messages only", spoken, wanted).
			WithHint("Name the subprotocol that you speak: %s or %s", JSONProtocol, ProtoProtocol), websocket.StatusUnsupportedData}
	}
	if binary {
		if proto.Unmarshal(data, m) != nil {
			return unreadable{invalid("the message is no %s in the wire format of protobuf", name).
				WithHint("docs/websocket.md tells which file of the contract has it"), websocket.StatusInvalidFramePayloadData}
		}
		return nil
	}
	if err := oneObject(data); err != nil {
		return unreadable{invalid("%v", err).WithHint("Send one %s as a JSON object; docs/websocket.md shows them", name), websocket.StatusInvalidFramePayloadData}
	}
	if err := unmarshal(data, m); err != nil {
		return invalid("the request cannot be read: %v", err).WithHint("docs/websocket.md shows the requests")
	}
	return nil
}

// decodeRequest reads a message. It gives the request's id as far as it could be read
// also with an error.
func decodeRequest(binary bool, kind websocket.MessageType, data []byte, unmarshal func([]byte, proto.Message) error) (*telexecv1.SocketRequest, string, error) {
	r := &telexecv1.SocketRequest{}
	if err := decode(binary, kind, data, r, unmarshal); err != nil {
		if _, broken := errors.AsType[unreadable](err); broken {
			return nil, "", err
		}
		return nil, idOf(data), err
	}
	id := r.GetId()
	switch {
	case id == "":
		return nil, "", invalid("the request has no id").WithHint("Give each request an id; what is said about it has it")
	case len(id) > maxID:
		return nil, "", invalid("the request's id has more than %d bytes", maxID).WithHint("Choose a shorter one")
	case r.GetRequest() == nil:
		return nil, id, invalid("the request asks for nothing").
			WithHint("Give one of subscribeOutput, subscribeEvents, subscribeTask, unsubscribe, execute, cancel, signal, input and decide")
	}
	return r, id, nil
}

// oneObject fails where text is not one JSON object and nothing else.
func oneObject(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New("the message is not UTF-8")
	}
	if !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) || !json.Valid(text) {
		return errors.New("the message is not one JSON object")
	}
	return nil
}

// idOf gives the id of a request that is no good otherwise; empty where it has none
// that could be told.
func idOf(text []byte) string {
	var r struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(text, &r) != nil || len(r.ID) > maxID {
		return ""
	}
	return r.ID
}

var dataOneof = (&telexecv1.SocketData{}).ProtoReflect().Descriptor().Oneofs().ByName("data")

// typeOf names what a message says.
func typeOf(d *telexecv1.SocketData) string {
	var f protoreflect.FieldDescriptor
	if d != nil {
		f = d.ProtoReflect().WhichOneof(dataOneof)
	}
	if f == nil {
		return ""
	}
	return string(f.Name())
}

// encode appends a message as it is sent.
func encode(to []byte, binary bool, m proto.Message) (websocket.MessageType, []byte, error) {
	if binary {
		p, err := proto.MarshalOptions{}.MarshalAppend(to, m)
		return websocket.MessageBinary, p, err
	}
	p, err := protojson.MarshalOptions{}.MarshalAppend(to, m)
	return websocket.MessageText, p, err
}
