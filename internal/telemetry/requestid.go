package telemetry

import (
	"context"
	"crypto/rand"
)

// MaxRequestID is how many bytes of a caller's request id are accepted.
const MaxRequestID = 128

type requestIDKey struct{}

// NewRequestID makes an id: 26 random letters and digits.
func NewRequestID() string { return rand.Text() }

// AcceptRequestID gives id where it is fit to be logged and sent back (printable
// ASCII without spaces, 1 to MaxRequestID bytes), and a new one otherwise.
func AcceptRequestID(id string) string {
	if id == "" || len(id) > MaxRequestID {
		return NewRequestID()
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return NewRequestID()
		}
	}
	return id
}

// WithRequestID gives a context that carries the id. Every record logged with it
// has the attribute request_id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID gives the id that ctx carries; empty where it carries none.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
