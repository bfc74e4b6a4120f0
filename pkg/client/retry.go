package client

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// Delays between two attempts: they double from minDelay to maxDelay, each
// shortened by up to half at random, so that many clients do not come back to a
// restarted service in step.
const (
	minDelay = 100 * time.Millisecond
	maxDelay = 5 * time.Second
)

// pause is the time between attempts, and the time until giving up. The zero
// value with limit set is ready; it belongs to one goroutine.
type pause struct {
	limit time.Duration // without progress; below 0: no second attempt
	since time.Time     // of the first failure behind the last progress
	delay time.Duration
}

// progress forgets the failures so far.
func (p *pause) progress() { p.since, p.delay = time.Time{}, 0 }

// next gives how long to wait before another attempt after err, or false when
// the limit would be passed.
func (p *pause) next(err *Error) (time.Duration, bool) {
	now := time.Now()
	if p.since.IsZero() {
		p.since, p.delay = now, minDelay
	} else {
		p.delay = min(2*p.delay, maxDelay)
	}
	wait := max(p.delay/2+mathrand.N(p.delay/2), err.RetryAfter)
	return wait, now.Add(wait).Sub(p.since) <= p.limit
}

// sleep waits for d, or until ctx ends and then gives its error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retry waits for another attempt after err. It gives the error to end with
// where there must be none: err itself, or the caller's context has ended.
func (c *Client) retry(ctx context.Context, p *pause, err *Error) *Error {
	if !c.connected.Load() {
		return err // a wrong address is told at once
	}
	wait, ok := p.next(err)
	if !ok {
		return err
	}
	c.onRetry(err, wait)
	if sleepErr := sleep(ctx, wait); sleepErr != nil {
		return c.decode(ctx, sleepErr)
	}
	return nil
}

// resuming calls once, which follows a stream over one connection, again and again as
// long as it ends in a way that may pass. It gives nil when nothing more is to be done.
func (c *Client) resuming(ctx context.Context, once func(p *pause) *Error) *Error {
	p := pause{limit: c.resumeFor}
	for {
		err := once(&p)
		if err == nil || !err.temporary() && err.RetryAfter <= 0 {
			return err
		}
		if err = c.retry(ctx, &p, err); err != nil {
			return err
		}
	}
}

// call makes a unary call, again and again where that is of use and harmless:
// repeatable says that it may reach the service twice.
func call[Req, Resp any](ctx context.Context, c *Client, repeatable bool,
	method func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req,
) (Resp, error) {
	p := pause{limit: c.retryFor}
	for doubt := false; ; {
		sent := new(atomic.Bool)
		resp, err := method(context.WithValue(ctx, sentKey{}, sent), req)
		if err == nil {
			return resp, nil
		}
		e := c.decode(ctx, err)
		doubt = doubt || sent.Load() && e.leavesOpen()
		e.doubt = doubt
		// Unavailable with a reason is an answer of the service: it has not done
		// what was asked, but where the host may have, and says when to come again.
		refused := e.Reason != ReasonUnreachable && e.RetryAfter > 0 && (repeatable || !e.hostMayHaveActed())
		lost := e.Reason == ReasonUnreachable && (repeatable || !sent.Load())
		if e.temporary() && (refused || lost) {
			if e = c.retry(ctx, &p, e); e == nil {
				continue
			}
			e.doubt = doubt
		}
		var none Resp
		return none, e
	}
}

// withRequestID gives req, or where it has no request id a copy with a new one.
func withRequestID(req *telexecv1.ExecuteRequest) *telexecv1.ExecuteRequest {
	if req.GetRequestId() != "" {
		return req
	}
	req = proto.CloneOf(req)
	req.RequestId = rand.Text()
	return req
}

// sentKey is that of the *atomic.Bool in a call's context that is set when the
// call was written to a connection.
type sentKey struct{}

// sentMarker is a stats handler that notes which calls were written to a
// connection. It is the one place where gRPC tells "may have arrived" and "never
// left" apart: both are Unavailable.
type sentMarker struct{ c *Client }

func (sentMarker) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (m sentMarker) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); !ok {
		return
	}
	m.c.connected.Store(true)
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}

func (sentMarker) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentMarker) HandleConn(context.Context, stats.ConnStats)                       {}
