package rpcserver

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

// Limiter bounds how often callers call. Its methods may be called from any
// goroutine.
type Limiter interface {
	// Take counts a call of the class; RATE_LIMITED, with when a retry helps.
	Take(c access.Caller, class access.Class) error
	// OpenStream counts an open stream, or a call that waits, until release is called;
	// TOO_MANY_STREAMS.
	OpenStream(c access.Caller) (release func(), err error)
	// Late counts a call whose message is late, by its weight, until release is called;
	// TOO_MANY_STREAMS.
	Late(c access.Caller, weight int) (release func(), err error)
	// Admit counts what somebody unknown does until release is called;
	// TOO_MANY_STREAMS.
	Admit(address string, what access.Unknown) (release func(), err error)
	// ShowsNothing counts a call without credentials; RATE_LIMITED.
	ShowsNothing(address string) error
	// MayTry refuses addresses from which too many authentications have failed, with
	// RATE_LIMITED.
	MayTry(address string) error
	// Failed counts one that failed.
	Failed(address string)
}

// starts are the methods that begin something.
var starts = map[string]bool{
	"/telexec.v1.CommandService/Execute":     true,
	"/telexec.v1.SessionService/OpenSession": true,
	"/telexec.v1.TaskService/SubmitTask":     true,
	"/telexec.v1.TaskService/UndoTask":       true,
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

const (
	// openTimeout is how long a call may take that needs no credentials.
	openTimeout = 10 * time.Second
	// messageTimeout is how long the message of a unary call may take.
	messageTimeout = 30 * time.Second
	// lateAfter is when a message that has not arrived is late, as at every door. A
	// client that makes many calls at once sends their headers before their messages;
	// they are no more than the rates allow.
	lateAfter = access.LateAfter
	// soon is how long a call may take that holds nothing worth counting.
	soon = time.Second
)

// limitRate refuses callers that call too often or hold too many streams open. A
// call that waits holds as much as a stream does, and counts as one; before its
// message has arrived nobody knows whether it will, and it counts as late.
func limitRate(limiter Limiter) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		if open(c.method) {
			return limitUnknown(ctx, limiter, c, next)
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
			return next(ctx)
		}
		c.late = func() (func(), error) { return limiter.Late(c.caller, 1) }
		waiting := func() {}
		defer func() { waiting() }()
		c.checks = append(c.checks, func(message any) error {
			if c.waits(message) {
				release, err := limiter.OpenStream(c.caller)
				if err != nil {
					return err
				}
				waiting = release
			}
			return nil
		})
		return next(ctx)
	}
}

// limitUnknown bounds by address what needs no token, with measures of its own: an
// address has neighbours, and strangers must not use up what is for those of them
// who show who they are.
func limitUnknown(ctx context.Context, limiter Limiter, c *call, next func(context.Context) error) error {
	what := access.Asking
	if c.stream {
		if err := limiter.ShowsNothing(c.caller.Address); err != nil {
			return err
		}
		what = access.Watching
	}
	release, err := limiter.Admit(c.caller.Address, what)
	if err != nil {
		return err
	}
	defer release()
	if c.stream {
		return next(ctx)
	}
	return brief(ctx, c, next)
}

// brief runs what takes no time, unless its caller is slow: to refuse a look at
// health would cost as much as to answer it, so that it is only bounded how many
// stand at the door with a message that does not end.
func brief(ctx context.Context, c *call, next func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, notArrived(openTimeout))
	defer cancel()
	c.ends = true
	return next(ctx)
}

// notArrived ends a call whose request has taken too long.
func notArrived(after time.Duration) errOver {
	return errOver{fault.New(fault.DeadlineExceeded, fault.ReasonCallDeadline, "the request did not arrive within %s", after).
		WithHint("Send it again")}
}

// tries are the methods whose timeout is how long the call itself may take, and not
// what it asks for.
var tries = map[string]bool{
	"/telexec.v1.HostService/CheckHost": true,
}

// holds are the methods that wait for a host, or for a screen to be still, whatever
// the request says.
var holds = map[string]bool{
	"/telexec.v1.SessionService/OpenSession":  true,
	"/telexec.v1.SessionService/CloseSession": true,
	"/telexec.v1.SessionService/SendKeys":     true,
	"/telexec.v1.TaskService/CancelTask":      true,
}

// waits reports whether a request may hold its call open: it says for how long, or
// starts or tries something and does not say that it will not wait.
func (c *call) waits(request any) bool {
	if holds[c.method] {
		return true
	}
	switch r := request.(type) {
	case interface{ GetWait() *durationpb.Duration }:
		if r.GetWait() == nil {
			return starts[c.method]
		}
		return r.GetWait().AsDuration() > 0
	case interface{ GetGrace() *durationpb.Duration }:
		return r.GetGrace().AsDuration() > soon
	case interface{ GetTimeout() *durationpb.Duration }:
		return tries[c.method] && (r.GetTimeout() == nil || r.GetTimeout().AsDuration() > soon)
	}
	return false
}
