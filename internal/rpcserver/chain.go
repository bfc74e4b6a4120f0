package rpcserver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// call is one call as the steps see it, unary or stream.
type call struct {
	method    string                    // full name: "/telexec.v1.CommandService/Execute"
	setHeader func(metadata.MD) error   // adds to the header of the answer
	checks    []func(message any) error // run on every message received
	principal string                    // set once it is known, for the log
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
	c := &call{method: info.FullMethod, setHeader: ss.SetHeader}
	return steps.run(ss.Context(), c, func(ctx context.Context) error {
		return handler(srv, &guardedStream{ServerStream: ss, ctx: ctx, call: c})
	})
}

// guardedStream is a stream with the context that the steps have made, whose
// received messages are checked. gRPC's own interface forces the context into
// the struct; it lives as long as the call.
type guardedStream struct {
	grpc.ServerStream
	ctx  context.Context
	call *call
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.call.check(m)
}
