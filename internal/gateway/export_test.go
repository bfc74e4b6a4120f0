package gateway

import (
	"github.com/coder/websocket"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// DecodeSocketRequest is decodeSocketRequest for a message of the right kind.
func DecodeSocketRequest(binary bool, data []byte) (*telexecv1.SocketRequest, string, error) {
	kind := websocket.MessageText
	if binary {
		kind = websocket.MessageBinary
	}
	return decodeSocketRequest(binary, kind, data)
}
