package rpcserver

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/telexec/telexec/internal/fault"
)

// Every method is a stream to gRPC, unary ones too:
//
//	header ─▶ steps ─▶ handler ─▶ RecvMsg ─▶ checks ─▶ …
//
// gRPC would read a unary call's message, of up to MaxMessage, before it asks any
// interceptor; many strangers at once would fill the memory. In a stream nobody
// takes more than its window of 64 KiB until the handler receives, and the handler
// is behind the steps. On the wire both are the same.

// asStreams gives a service whose unary methods are streams.
func asStreams(service *grpc.ServiceDesc) *grpc.ServiceDesc {
	made := *service
	made.Methods = nil
	made.Streams = append([]grpc.StreamDesc(nil), service.Streams...)
	for _, m := range service.Methods {
		made.Streams = append(made.Streams, grpc.StreamDesc{
			StreamName: m.MethodName,
			Handler: func(srv any, ss grpc.ServerStream) error {
				resp, err := m.Handler(srv, ss.Context(), ss.RecvMsg, pass)
				if err != nil {
					return err
				}
				return ss.SendMsg(resp)
			},
		})
	}
	return &made
}

// pass is an interceptor that does nothing.
func pass(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(ctx, req)
}

// interceptor puts the steps around all calls. methods are those that there are.
func (steps chain) interceptor(methods map[string]bool) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		c := &call{
			method: info.FullMethod, known: methods[info.FullMethod],
			stream: info.IsClientStream || info.IsServerStream, setHeader: ss.SetHeader,
		}
		return steps.run(ss.Context(), c, func(ctx context.Context) error {
			guarded := &guardedStream{ServerStream: ss, ctx: ctx, call: c}
			if !c.ends {
				return handler(srv, guarded)
			}
			return untilOver(ctx, func() error { return handler(srv, guarded) })
		})
	}
}

// untilOver runs a handler, and leaves it alone when the call is over before: it
// may hang in a receive from a client that says nothing, or in a send to one that
// does not read. Both fail when the call is answered, and then the handler ends.
func untilOver(ctx context.Context, handler func() error) error {
	return await(ctx, begin(handler))
}

// begin runs f in a goroutine of its own, and gives how it ends.
func begin(f func() error) <-chan outcome {
	ended := make(chan outcome, 1) // one from f; never blocks
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o.panicked = &panicOf{p, debug.Stack()}
			}
			ended <- o
		}()
		o.err = f()
	}()
	return ended
}

// await waits until what was begun has ended, or the call is over.
func await(ctx context.Context, ended <-chan outcome) error {
	select {
	case o := <-ended:
		return o.get()
	case <-ctx.Done():
		if err := over(ctx); err != nil {
			return err
		}
		return (<-ended).get() // the client has gone, and the handler notices
	}
}

// outcome is how a handler has ended in a goroutine of its own.
type outcome struct {
	err      error
	panicked *panicOf // nil: it did not
}

// panicOf is a panic of another goroutine, with its stack.
type panicOf struct {
	value any
	stack []byte
}

// get gives the error of the handler, or panics as it did.
func (o outcome) get() error {
	if o.panicked != nil {
		panic(*o.panicked)
	}
	return o.err
}

// guardedStream is a stream with the context that the steps have made, whose
// received messages are checked. When the caller's credentials are over nothing
// goes in or out any more. gRPC's own interface forces the context into the
// struct; it lives as long as the call.
type guardedStream struct {
	grpc.ServerStream
	ctx  context.Context
	call *call
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) SendMsg(m any) error {
	if err := over(s.ctx); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *guardedStream) RecvMsg(m any) error {
	r := &received{message: m}
	err := s.receive(r)
	if ended := over(s.ctx); ended != nil {
		return ended
	}
	// What gRPC itself finds wrong it tells the caller before we know of it, without
	// ErrorInfo: too long by far, no message or two, cut off, a compression it has not.
	// Left to us is the log, with the code that was told.
	if c, ok := errors.AsType[carrier](err); ok {
		s.call.told.Store(uint32(c.GRPCStatus().Code()))
		switch c.GRPCStatus().Code() {
		case codes.Internal, codes.Unimplemented: // which put the blame on the server
			err = unreadable(err, c.GRPCStatus().Message())
		}
	}
	if err == nil {
		err = r.err
	}
	if err != nil {
		return err
	}
	s.call.message.CompareAndSwap(nil, m)
	return s.call.check(m)
}

// receive waits for a message. That of a unary call may not be long in coming: the
// call holds a goroutine and a window of memory, and nobody knows yet what it is. Of
// a receive that is given up nothing is left once the call is answered.
func (s *guardedStream) receive(r *received) error {
	if s.call.stream || s.call.ends { // which may be left as they are
		return s.ServerStream.RecvMsg(r)
	}
	ctx, cancel := context.WithTimeoutCause(s.ctx, messageTimeout, notArrived(messageTimeout))
	defer cancel()
	late := time.NewTimer(lateAfter)
	defer late.Stop()
	arrived := begin(func() error { return s.ServerStream.RecvMsg(r) })
	select {
	case o := <-arrived:
		return o.get()
	case <-ctx.Done():
	case <-late.C:
		release, err := s.call.late()
		if err != nil {
			return err
		}
		defer release()
	}
	return await(ctx, arrived)
}

// unreadable is the fault for a message that cannot be read, because of why.
func unreadable(err error, why string) error {
	return fault.Wrap(err, fault.Invalid, fault.ReasonInvalidRequest, "the message cannot be read: %s", strings.TrimSpace(strings.TrimPrefix(why, "proto:"))).
		WithHint("Send what the .proto files describe; the server tells them by reflection")
}

// received is a message to be received. What is wrong with its bytes is kept in
// err, a fault: gRPC would answer the caller itself, with a code that puts the blame on the
// server and nothing to act on.
type received struct {
	message any
	err     error
}

// codec is protobuf's, which knows received.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Unmarshal is of encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*received)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if data.Len() > MaxMessage {
		r.err = fault.New(fault.Exhausted, fault.ReasonInvalidRequest, "the message has %d bytes, and may have %d", data.Len(), MaxMessage).
			WithHint("Send long input in parts, with SendInput")
		return nil
	}
	if err := c.CodecV2.Unmarshal(data, r.message); err != nil {
		r.err = unreadable(err, err.Error())
	}
	return nil
}
