package rpcserver

import (
	"context"
	"strings"

	"github.com/telexec/telexec/internal/access"
)

// Limiter bounds how often callers call. Its methods may be called from any
// goroutine.
type Limiter interface {
	// Take counts a call of the class; RATE_LIMITED, with when a retry helps.
	Take(c access.Caller, class access.Class) error
	// OpenStream counts an open stream until release is called; TOO_MANY_STREAMS.
	OpenStream(c access.Caller) (release func(), err error)
	// MayTry refuses addresses from which too many authentications have failed, with
	// RATE_LIMITED.
	MayTry(address string) error
	// Failed counts one that failed.
	Failed(address string)
}

// starts are the methods that begin something.
var starts = map[string]bool{
	"/telexec.v1.CommandService/Execute": true,
}

// classOf gives the class of calls that a method belongs to.
func classOf(method string, stream bool) access.Class {
	_, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	switch {
	case stream:
		return access.ClassStream
	case starts[method]:
		return access.ClassStart
	case strings.HasPrefix(name, "List"):
		return access.ClassList
	}
	return access.ClassRead
}

// limitRate refuses callers that call too often or hold too many streams open.
// Who needs no token is counted by address; to refuse a look at health would cost
// as much as to answer it, but watching it holds something.
func limitRate(limiter Limiter) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		if open(c.method) && !c.stream {
			return next(ctx)
		}
		if err := limiter.Take(c.caller, classOf(c.method, c.stream)); err != nil {
			return err
		}
		if c.stream {
			release, err := limiter.OpenStream(c.caller)
			if err != nil {
				return err
			}
			defer release()
		}
		return next(ctx)
	}
}
