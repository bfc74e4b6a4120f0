package rpcserver

import (
	"context"
	"errors"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

// Revocations knows when API keys are revoked.
type Revocations interface {
	// WhenRevoked calls f when the key with this id is revoked, at once where it is
	// already. f does not wait. stop withdraws it; f may be under way then.
	WhenRevoked(keyID string, f func()) (stop func())
}

// errOver marks the ends that the steps make of calls, as causes of a context's
// end: of those whose credentials are over.
type errOver struct{ why *fault.Error }

func (e errOver) Error() string { return e.why.Error() }

// Unwrap gives the fault by which the caller is told.
func (e errOver) Unwrap() error { return e.why }

// over gives why the steps have ended a call while it went on; nil where they did
// not.
func over(ctx context.Context) error {
	if e, ok := errors.AsType[errOver](context.Cause(ctx)); ok {
		return e.why
	}
	return nil
}

// whileValid ends a call when the credentials it was made with are over: a stream
// or a wait may be longer than they are. What the call has begun goes on. A
// handler whose context ends may still say that all is well, as a wait does that
// is over; the caller is told the truth. A stream ends even where its handler hangs
// in a send to somebody who does not read, and a unary call while its message does
// not come (guardedStream.receive). No other handler gets a goroutine of its own, for
// most are over long before anything of that can happen.
func whileValid(revocations Revocations) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		who := c.caller.Principal
		if who.Expiry.IsZero() && who.Key == "" {
			return next(ctx)
		}
		c.ends = c.stream
		ctx, end := context.WithCancelCause(ctx)
		defer end(nil)
		if !who.Expiry.IsZero() {
			timer := time.AfterFunc(time.Until(who.Expiry), func() { end(errOver{expired(who)}) })
			defer timer.Stop()
		}
		if who.Key != "" {
			stop := revocations.WhenRevoked(who.Key, func() { end(errOver{revoked(who)}) })
			defer stop()
		}
		err := next(ctx)
		if ended := over(ctx); ended != nil {
			return ended
		}
		return err
	}
}

func expired(who access.Principal) *fault.Error {
	return fault.New(fault.Unauthenticated, fault.ReasonTokenExpired, "the credentials of %q have expired during the call, at %s", who.Name, who.Expiry.UTC().Format(time.RFC3339)).
		WithHint("Get new ones and call again; commands that were started go on")
}

func revoked(who access.Principal) *fault.Error {
	return fault.New(fault.Unauthenticated, fault.ReasonTokenRevoked, "the API key %q was revoked during the call", who.Name).
		WithHint("Ask an administrator for a new one (telexec token create); commands that were started go on")
}
