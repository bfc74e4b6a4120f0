package rpcserver

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/telexec/telexec/internal/access"
)

// call is one call as the steps see it, unary or stream.
type call struct {
	method    string                    // full name: "/telexec.v1.CommandService/Execute"
	known     bool                      // there is such a method
	stream    bool                      // not unary
	ends      bool                      // the steps may end it while its handler is busy
	setHeader func(metadata.MD) error   // adds to the header of the answer
	checks    []func(message any) error // run on every message received
	late      func() (func(), error)    // counts the call while its message is late, until what it gives is called; set by limitRate
	told      atomic.Uint32             // the code by which gRPC has answered before the steps could; 0: it has not
	message   atomic.Value              // the first that was received; a handler may receive in a goroutine of its own
	caller    access.Caller             // as far as it is known: the principal after authentication
	client    string                    // name in the caller's certificate; empty: none
}

func (c *call) check(message any) error {
	for _, f := range c.checks {
		if err := f(message); err != nil {
			return err
		}
	}
	return nil
}

// label gives the method as a label of a metric: there is one for each method,
// and one for all that callers make up.
func (c *call) label() string {
	if c.known {
		return c.method
	}
	return "unknown"
}

// masked gives a text about the call, as it may be logged: without what the
// request calls secret.
func (c *call) masked(text string) string {
	m, ok := c.message.Load().(proto.Message)
	if !ok {
		return text
	}
	mask, ok := maskOf(m.ProtoReflect())
	if !ok {
		return "not shown: the request has more secrets than are masked"
	}
	return mask(text)
}

// step is one thing done around every call. A step that does not call next
// refuses the call. Its variables are on the stack while the call lasts, which for
// streams may be long: what is needed before or after next alone is in functions of its own.
type step func(ctx context.Context, c *call, next func(context.Context) error) error

// chain is the list of steps, outermost first.
type chain []step

func (steps chain) run(ctx context.Context, c *call, handler func(context.Context) error) error {
	if len(steps) == 0 {
		return handler(ctx)
	}
	return steps[0](ctx, c, func(ctx context.Context) error { return steps[1:].run(ctx, c, handler) })
}
