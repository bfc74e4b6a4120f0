package rpcserver

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

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
// the caller sees. Never by content: a command line may hold a password.
func observe(log *slog.Logger, meter Meter) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		start := time.Now()
		meter.CallStarted()
		err := next(ctx)
		took := time.Since(start)

		code, level := "OK", slog.LevelInfo
		attrs := make([]slog.Attr, 0, 6)
		attrs = append(attrs, slog.String("method", c.method), slog.Duration("duration", took))
		if c.caller.Name != "" {
			attrs = append(attrs, slog.String("principal", c.caller.Name))
		}
		if err != nil {
			e := faultOf(err)
			code = kinds[e.Kind].code.String()
			attrs = append(attrs, slog.String("reason", e.Reason))
			if e.Reason != fault.ReasonPolicyDenied { // which quotes the command; the audit tells it
				attrs = append(attrs, slog.String("error", e.Error()))
			}
			if e.Kind == fault.Internal || e.Kind == fault.DataLoss {
				level = slog.LevelError
			}
		}
		meter.Call(c.method, code, took)
		log.LogAttrs(ctx, level, "call", append(attrs, slog.String("code", code))...)
		return err
	}
}

// recoverPanics turns a panic into an internal error: one broken call does not
// end the commands of everybody else.
func recoverPanics(log *slog.Logger) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) (err error) {
		defer func() {
			if p := recover(); p != nil {
				log.ErrorContext(ctx, "panic in a call", "method", c.method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				err = fault.From(fmt.Errorf("panic: %v", p))
			}
		}()
		return next(ctx)
	}
}

// open are the methods that answer without a token: health alone.
func open(method string) bool {
	return strings.HasPrefix(method, "/"+healthpb.Health_ServiceDesc.ServiceName+"/")
}

// noteArrival notes what is known of a caller before it shows who it is.
func noteArrival(ctx context.Context, c *call, next func(context.Context) error) error {
	c.caller.Call = telemetry.RequestID(ctx)
	c.caller.Origin, c.caller.Address, c.client = arrival(ctx)
	return next(ctx)
}

// authenticate establishes who asks, and puts the caller into the context. Who
// has guessed too often is not listened to any more.
func authenticate(who access.Authenticator, limiter Limiter) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		if open(c.method) {
			return next(ctx)
		}
		shown := access.Credentials{Token: bearer(first(ctx, "authorization")), Client: c.client}
		if !shown.Token.IsZero() {
			if err := limiter.MayTry(c.caller.Address); err != nil {
				return err
			}
		}
		p, err := who.Authenticate(ctx, shown)
		if err != nil {
			if fault.ReasonOf(err) == fault.ReasonBadCredentials {
				limiter.Failed(c.caller.Address)
			}
			return err
		}
		c.caller.Principal = p
		return next(access.WithCaller(ctx, c.caller))
	}
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
