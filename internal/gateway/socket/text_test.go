package socket

import (
	"errors"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"a","cancel":{"commandId":"x"}}`), false)
	f.Add([]byte(`{"start":{"session":"build"}}`), false)
	f.Add([]byte("\n\x01a\x2a\x00"), true)
	f.Fuzz(func(t *testing.T, data []byte, binary bool) {
		kind := websocket.MessageText
		if binary {
			kind = websocket.MessageBinary
		}
		unmarshal := func(text []byte, m proto.Message) error { return protojson.Unmarshal(text, m) }
		r, id, err := decodeRequest(binary, kind, data, unmarshal)
		if err == nil && (id == "" || r.GetRequest() == nil) || len(id) > 64 {
			t.Errorf("%v %q %v", r, id, err)
		}
		for _, err := range []error{err, decode(binary, kind, data, &telexecv1.AttachRequest{}, unmarshal)} {
			if f, ok := errors.AsType[*fault.Error](err); err != nil && (!ok || f.Hint == "") {
				t.Errorf("%v", err)
			}
		}
	})
}
