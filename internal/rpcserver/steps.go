package rpcserver

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/telemetry"
)

// requestIDHeader carries the request id, in and out.
const requestIDHeader = "x-request-id"

// first gives the first value of a header of the call.
func first(ctx context.Context, key string) string {
	if v := metadata.ValueFromIncomingContext(ctx, key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// withRequestID takes the caller's request id or makes one, and tells it in the
// header of the answer.
func withRequestID(ctx context.Context, c *call, next func(context.Context) error) error {
	id := telemetry.AcceptRequestID(first(ctx, requestIDHeader))
	// A header that cannot be set any more costs the caller an id, not the call.
	_ = c.setHeader(metadata.Pairs(requestIDHeader, id))
	return next(telemetry.WithRequestID(ctx, id))
}

// mapErrors turns every failure from inside into the status the caller sees. It
// stands outside all steps that fail or look at failures: inside, an error is a
// fault with its cause.
func mapErrors(ctx context.Context, _ *call, next func(context.Context) error) error {
	if err := next(ctx); err != nil {
		return statusOf(err).Err()
	}
	return nil
}

// observe logs every call when it is answered and counts it, by the code that
// the caller sees. Never by content: a command line may hold a password, and what
// the request calls secret is masked in errors that quote it.
func observe(log *slog.Logger, meter Meter) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		start := time.Now()
		meter.CallStarted()
		err := next(ctx)
		c.answered(ctx, log, meter, time.Since(start), err)
		return err
	}
}

// answered tells log and meter of a call that has ended.
func (c *call) answered(ctx context.Context, log *slog.Logger, meter Meter, took time.Duration, err error) {
	code, level := "OK", slog.LevelInfo
	attrs := make([]slog.Attr, 0, 7)
	attrs = append(attrs, slog.String("method", shorten(c.method, maxName)), slog.Duration("duration", took))
	if c.caller.Name != "" {
		attrs = append(attrs, slog.String("principal", c.caller.Name))
	}
	if c.caller.Address != "" { // the audit may count a refusal together with others
		attrs = append(attrs, slog.String("address", c.caller.Address))
	}
	if err != nil {
		e := faultOf(err)
		code = kinds[e.Kind].code.String()
		if told := codes.Code(c.told.Load()); told != codes.OK {
			code = told.String()
		}
		attrs = append(attrs, slog.String("reason", e.Reason))
		if e.Reason != fault.ReasonPolicyDenied { // which quotes the command; the audit tells it
			attrs = append(attrs, slog.String("error", c.masked(e.Error())))
		}
		if e.Kind == fault.Internal || e.Kind == fault.DataLoss {
			level = slog.LevelError
		}
	}
	meter.Call(c.label(), code, took)
	log.LogAttrs(ctx, level, "call", append(attrs, slog.String("code", code))...)
}

// recoverPanics turns a panic into an internal error: one broken call does not
// end the commands of everybody else.
func recoverPanics(log *slog.Logger) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) (err error) {
		defer func() {
			if p := recover(); p != nil {
				stack := debug.Stack()
				if other, ok := p.(panicOf); ok { // of another goroutine
					p, stack = other.value, other.stack
				}
				log.ErrorContext(ctx, "panic in a call", "method", shorten(c.method, maxName), "panic", c.masked(fmt.Sprint(p)), "stack", string(stack))
				err = fault.From(fmt.Errorf("panic: %v", p))
			}
		}()
		return next(ctx)
	}
}

// openMethods are those that answer without a token: health alone, and of it what
// there is.
var openMethods = map[string]bool{
	healthpb.Health_Check_FullMethodName: true,
	healthpb.Health_List_FullMethodName:  true,
	healthpb.Health_Watch_FullMethodName: true,
}

// open reports whether a method answers without a token.
func open(method string) bool { return openMethods[method] }

// noteArrival notes what is known of a caller before it shows who it is.
func noteArrival(ctx context.Context, c *call, next func(context.Context) error) error {
	c.caller.Call = telemetry.RequestID(ctx)
	c.caller.Origin, c.caller.Address, c.client = arrival(ctx)
	return next(ctx)
}

// authenticate establishes who asks, and puts the caller into the context. What is
// known in memory is looked at in any case: whoever floods us from an address with
// bad tokens must not lock out those there with good ones. A JWT has its price: where
// too many were bad, or too many wait, it is not looked at.
func authenticate(who access.Authenticator, limiter Limiter) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		if open(c.method) {
			return next(ctx)
		}
		known, err := c.identify(ctx, who, limiter)
		if err != nil {
			return err
		}
		return next(known)
	}
}

// identify gives the context with the caller.
func (c *call) identify(ctx context.Context, who access.Authenticator, limiter Limiter) (context.Context, error) {
	shown := access.Credentials{Token: bearer(first(ctx, "authorization")), Client: c.client}
	p, err := prove(ctx, who, limiter, shown, c.caller.Address)
	if err != nil {
		return nil, tooMany(limiter, c.caller.Address, err)
	}
	c.caller.Principal = p
	return access.WithCaller(ctx, c.caller), nil
}

func prove(ctx context.Context, who access.Authenticator, limiter Limiter, shown access.Credentials, address string) (access.Principal, error) {
	if shown.Slow() {
		if err := limiter.MayTry(address); err != nil {
			return access.Principal{}, err
		}
		release, err := limiter.Admit(address, access.Proving)
		if err != nil {
			return access.Principal{}, err
		}
		defer release()
	}
	return who.Authenticate(ctx, shown)
}

// tooMany counts credentials that failed, and gives what the caller is told: why
// they have, or that too many of that address have.
func tooMany(limiter Limiter, address string, failed error) error {
	switch fault.ReasonOf(failed) {
	case fault.ReasonBadCredentials:
		if err := limiter.MayTry(address); err != nil {
			return err
		}
		limiter.Failed(address)
	case fault.ReasonNoCredentials:
		if err := limiter.ShowsNothing(address); err != nil {
			return err
		}
	}
	return failed
}

// bearer gives the token of an Authorization header (RFC 6750); empty where it
// has another scheme or none.
func bearer(header string) secret.Text {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return secret.Text{}
	}
	return secret.New(strings.TrimSpace(token))
}
