package rpcserver

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/telexec/telexec/internal/access"
)

// call is one call as the steps see it, unary or stream.
type call struct {
	method    string                    // full name: "/telexec.v1.CommandService/Execute"
	stream    bool                      // not unary
	setHeader func(metadata.MD) error   // adds to the header of the answer
	checks    []func(message any) error // run on every message received
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

// step is one thing done around every call. A step that does not call next
// refuses the call.
type step func(ctx context.Context, c *call, next func(context.Context) error) error

// chain is the list of steps, outermost first. Both interceptors are made of the
// same list, so that what guards a unary call guards a stream.
type chain []step

func (steps chain) run(ctx context.Context, c *call, handler func(context.Context) error) error {
	if len(steps) == 0 {
		return handler(ctx)
	}
	return steps[0](ctx, c, func(ctx context.Context) error { return steps[1:].run(ctx, c, handler) })
}

func (steps chain) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	c := &call{method: info.FullMethod, setHeader: func(md metadata.MD) error { return grpc.SetHeader(ctx, md) }}
	c.message.Store(req)
	err = steps.run(ctx, c, func(ctx context.Context) error {
		if err := c.check(req); err != nil {
			return err
		}
		var err error
		resp, err = handler(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (steps chain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := &call{method: info.FullMethod, stream: true, setHeader: ss.SetHeader}
	return steps.run(ss.Context(), c, func(ctx context.Context) error {
		return handler(srv, &guardedStream{ServerStream: ss, ctx: ctx, call: c, receives: info.IsClientStream})
	})
}

// guardedStream is a stream with the context that the steps have made, whose
// received messages are checked. When the caller's credentials are over nothing
// goes in or out any more. gRPC's own interface forces the context into the
// struct; it lives as long as the call.
type guardedStream struct {
	grpc.ServerStream
	ctx      context.Context
	call     *call
	receives bool // more than one message
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) SendMsg(m any) error {
	if err := over(s.ctx); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *guardedStream) RecvMsg(m any) error {
	if err := s.recv(m); err != nil {
		return err
	}
	s.call.message.CompareAndSwap(nil, m)
	return s.call.check(m)
}

// recv receives a message, or fails when the credentials are over: gRPC's own
// RecvMsg would wait for a caller who says nothing. One that was left waiting ends
// when the handler returns, and nobody looks at what it received.
func (s *guardedStream) recv(m any) error {
	if !s.receives {
		return s.ServerStream.RecvMsg(m)
	}
	received := make(chan error, 1) // one from RecvMsg; never blocks
	go func() { received <- s.ServerStream.RecvMsg(m) }()
	select {
	case err := <-received:
		if ended := over(s.ctx); ended != nil {
			return ended
		}
		return err
	case <-s.ctx.Done():
		if ended := over(s.ctx); ended != nil {
			return ended
		}
		return <-received // the call itself has ended, and so does RecvMsg
	}
}
