package gateway

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

// The subprotocols (RFC 6455 §1.9). bearerProtocol is none: what follows it is a
// token, for clients that can set no headers.
const (
	jsonProtocol   = "telexec.v1.json"
	protoProtocol  = "telexec.v1.proto"
	bearerProtocol = "telexec.bearer."
)

// maxSocketID is how many bytes the id of a request may have.
const maxSocketID = 64

// unreadable is a message that breaks the protocol: the socket ends with code.
type unreadable struct {
	why  *fault.Error
	code websocket.StatusCode
}

func (u unreadable) Error() string { return u.why.Error() }

// Unwrap gives the fault that is told.
func (u unreadable) Unwrap() error { return u.why }

// decodeSocketRequest reads a message. It gives the request's id as far as it could
// be read also with an error, which never repeats a value of the message.
func decodeSocketRequest(binary bool, kind websocket.MessageType, data []byte) (*telexecv1.SocketRequest, string, error) {
	r := &telexecv1.SocketRequest{}
	if binary != (kind == websocket.MessageBinary) {
		spoken, wanted := jsonProtocol, "text"
		if binary {
			spoken, wanted = protoProtocol, "binary"
		}
		return nil, "", unreadable{invalid("the subprotocol %s has %s messages only", spoken, wanted).
			WithHint("Name the subprotocol that you speak: %s or %s", jsonProtocol, protoProtocol), websocket.StatusUnsupportedData}
	}
	if binary {
		if proto.Unmarshal(data, r) != nil {
			return nil, "", unreadable{invalid("the message is no SocketRequest in the wire format of protobuf").
				WithHint("proto/telexec/v1/socket.proto has it"), websocket.StatusInvalidFramePayloadData}
		}
	} else {
		if err := oneObject(data); err != nil {
			return nil, "", unreadable{invalid("%v", err).WithHint("Send one SocketRequest as a JSON object; docs/websocket.md shows them"), websocket.StatusInvalidFramePayloadData}
		}
		if err := protojson.Unmarshal(data, r); err != nil {
			return nil, idOf(data), invalid("the request cannot be read: %v", withoutValues(err)).WithHint("docs/websocket.md shows the requests")
		}
	}
	id := r.GetId()
	switch {
	case id == "":
		return nil, "", invalid("the request has no id").WithHint("Give each request an id; what is said about it has it")
	case len(id) > maxSocketID:
		return nil, "", invalid("the request's id has more than %d bytes", maxSocketID).WithHint("Choose a shorter one")
	case r.GetRequest() == nil:
		return nil, id, invalid("the request asks for nothing").
			WithHint("Give one of subscribeOutput, subscribeEvents, unsubscribe, execute, cancel, signal and input")
	}
	return r, id, nil
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, fault.ReasonInvalidRequest, format, args...)
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
	if json.Unmarshal(text, &r) != nil || len(r.ID) > maxSocketID {
		return ""
	}
	return r.ID
}

var socketDataOneof = (&telexecv1.SocketData{}).ProtoReflect().Descriptor().Oneofs().ByName("data")

// typeOf names what a message says.
func typeOf(d *telexecv1.SocketData) string {
	var f protoreflect.FieldDescriptor
	if d != nil {
		f = d.ProtoReflect().WhichOneof(socketDataOneof)
	}
	if f == nil {
		return ""
	}
	return string(f.Name())
}

// encode appends a message as it is sent.
func encode(to []byte, binary bool, m *telexecv1.SocketMessage) (websocket.MessageType, []byte, error) {
	if binary {
		p, err := proto.MarshalOptions{}.MarshalAppend(to, m)
		return websocket.MessageBinary, p, err
	}
	p, err := protojson.MarshalOptions{}.MarshalAppend(to, m)
	return websocket.MessageText, p, err
}
