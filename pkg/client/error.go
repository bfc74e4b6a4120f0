package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reasons that this package gives itself. All others come from the service and
// are listed in docs/errors.md.
const (
	// ReasonUnreachable: no connection to the service, or it broke.
	ReasonUnreachable = "SERVER_UNREACHABLE"
	// ReasonInvalidOptions: Dial refused its Options.
	ReasonInvalidOptions = "INVALID_OPTIONS"
	// ReasonProtocol: the service sent what the contract rules out.
	ReasonProtocol = "PROTOCOL_ERROR"
	// ReasonInputLost: input may have been lost on the way and cannot be sent again.
	ReasonInputLost = "INPUT_LOST"
	// ReasonTooLarge: a request, or an answer, has more bytes than the other side takes.
	ReasonTooLarge = "MESSAGE_TOO_LARGE"
	// ReasonCallEnded: the caller's context ended the call.
	ReasonCallEnded = "CALL_ENDED"
)

// domain is that of the service's google.rpc.ErrorInfo.
const domain = "telexec"

// Error is a call that failed. Every error of a call is one; take it with
// errors.AsType[*client.Error](err). An error of the caller's own context is
// also matched by errors.Is(err, context.Canceled) or DeadlineExceeded.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason is stable, upper snake case, for programs. Empty where something
	// between here and the service answered instead of it.
	Reason string
	// Message is one sentence for people: what happened.
	Message string
	// Hint is one sentence for people: what to do next. May be empty.
	Hint string
	// Fields tells which fields of the request are wrong.
	Fields []Field
	// RetryAfter is above 0 where the service says that a retry helps then.
	RetryAfter time.Duration
	// Metadata has facts for programs: "host", "command_id", "request_id"; and
	// "in_doubt" with "true" where DecideApprovals, DecideTask, CreateToken or UndoTask may have done what
	// was asked all the same.
	Metadata map[string]string

	cause error
	// doubt says that this call, or an earlier attempt at it, may have been carried
	// out all the same.
	doubt bool
}

// Field is a problem with one field of a request.
type Field struct {
	// Path is the field, as in the proto: "output.limit_bytes".
	Path string
	// Message says what is wrong with it.
	Message string
}

// Error gives the message and the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + ". " + e.Hint
}

// Unwrap gives the cause, which may be a context error.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus lets status.FromError and status.Code understand the error.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

func newError(code codes.Code, reason, format string, args ...any) *Error {
	return &Error{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) withHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// set adds a fact that the service has not given.
func (e *Error) set(key, value string) {
	if _, ok := e.Metadata[key]; ok {
		return
	}
	if e.Metadata == nil {
		e.Metadata = make(map[string]string)
	}
	e.Metadata[key] = value
}

// asError gives the *Error in err's chain.
func asError(err error) (*Error, bool) { return errors.AsType[*Error](err) }

// decode makes an *Error of what a gRPC call gave. ctx is that of the caller,
// whose end explains the error better than the transport does. err is not nil.
func (c *Client) decode(ctx context.Context, err error) *Error {
	st := status.Convert(err)
	e := &Error{Code: st.Code(), Message: st.Message(), cause: err}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != domain {
				continue
			}
			e.Reason = d.GetReason()
			e.Metadata = maps.Clone(d.GetMetadata())
			e.Hint = e.Metadata["hint"]
			delete(e.Metadata, "hint")
			e.Message = strings.TrimSuffix(e.Message, ". "+e.Hint)
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, Field{Path: v.GetField(), Message: v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	if e.Reason != "" {
		return e
	}
	// Not from the service: the caller's context, or the way there.
	if cause := ctx.Err(); cause != nil {
		e.Reason, e.cause = ReasonCallEnded, cause
		e.Message = "the call was cancelled"
		if errors.Is(cause, context.DeadlineExceeded) {
			e.Message = "the call took longer than its deadline"
		}
		e.Code = status.FromContextError(cause).Code()
		return e
	}
	if m := tooLarge.FindStringSubmatch(st.Message()); e.Code == codes.ResourceExhausted && m != nil {
		c.isTooLarge(e, m[1], m[2])
		return e
	}
	if e.broken() {
		e.Reason = ReasonUnreachable
		e.Message = fmt.Sprintf("the service at %s cannot be reached: %s", c.server, plain(st.Message()))
		e.Hint = "Check that telexecd runs and that the server address is right"
		if c.connected.Load() {
			e.Message = fmt.Sprintf("the connection to the service at %s is lost: %s", c.server, plain(st.Message()))
			e.Hint = "Commands go on without it; try again when the service is back"
		} else if strings.Contains(st.Message(), "looked like an HTTP/1.1 header") {
			c.isHTTP(e)
		}
	} else if strings.Contains(st.Message(), "unexpected HTTP status code") {
		c.isHTTP(e)
	}
	return e
}

// tooLarge is what gRPC says of a message that one side does not take: of a request the
// service's gRPC, of an answer ours. "received message larger than max (7340080 vs. 5242880)".
var tooLarge = regexp.MustCompile(`^grpc: received message (?:after decompression )?larger than max \(?(?:(\d+) vs\. )?(\d+)\)?$`)

// isTooLarge makes e tell which message was too large, where gRPC tells it in its own words.
func (c *Client) isTooLarge(e *Error, has, most string) {
	what, hint := "the request", "Ask for less at once"
	if most == strconv.Itoa(maxReceive) {
		what, hint = "the answer", "Ask for a smaller part of it"
	}
	if has != "" {
		has = " has " + has + " bytes, which"
	}
	e.Reason = ReasonTooLarge
	e.Message = fmt.Sprintf("%s%s is more than the %s bytes that one message may have", what, has, most)
	e.Hint = hint
}

// isHTTP makes e tell that a web server was called, which gRPC tells in its own words.
func (c *Client) isHTTP(e *Error) {
	e.Message = c.server + " is an HTTP port, perhaps the one for REST"
	e.Hint = "Give the gRPC port, which is " + DefaultServer + " by default; telexecd tells both when it starts"
}

// broken reports whether e, which has no reason, can only come from the
// transport or from a proxy: the service gives every error a reason. gRPC makes
// Internal of a stream that was reset or cut in the middle of a message, and
// Canceled of one that the other side dropped.
func (e *Error) broken() bool {
	switch e.Code {
	case codes.Unavailable, codes.Internal, codes.Canceled:
		return true
	}
	return false
}

// temporary reports whether the same call may well work a little later.
func (e *Error) temporary() bool {
	return e.Reason == ReasonUnreachable || e.Code == codes.Unavailable
}

// Reasons of the service on which calls of this package act.
const (
	reasonStoreUnavailable = "STORE_UNAVAILABLE" // what was written may have been kept
	reasonCallDeadline     = "CALL_DEADLINE"     // the service gave up waiting for it
	reasonAlreadyDecided   = "ALREADY_DECIDED"
	reasonRequestChanged   = "REQUEST_CHANGED"
	reasonNotYourDecision  = "NOT_YOUR_DECISION"
	reasonTokenNameTaken   = "TOKEN_NAME_TAKEN"
	reasonUnknownToken     = "UNKNOWN_TOKEN"
	reasonUnknownTask      = "UNKNOWN_TASK"
	reasonAccessDenied     = "ACCESS_DENIED"
)

// inDoubt makes e tell that what was asked may have been done, and what to do then.
func (e *Error) inDoubt(hint string, args ...any) *Error {
	e.set("in_doubt", "true")
	return e.withHint(hint, args...)
}

// leavesOpen reports whether e does not tell what became of a call that was
// written to a connection.
func (e *Error) leavesOpen() bool {
	switch e.Reason {
	case ReasonUnreachable, ReasonCallEnded, reasonStoreUnavailable, reasonCallDeadline:
		return true
	}
	return false
}

// plain gives the heart of a transport error of gRPC, without the layers that it
// has passed: `connection error: desc = "transport: Error while dialing: dial
// tcp …: connect: connection refused"`.
func plain(message string) string {
	if _, inner, ok := strings.Cut(message, `desc = "`); ok {
		message = strings.TrimSuffix(inner, `"`)
	}
	message = strings.TrimPrefix(message, "transport: ")
	return strings.TrimPrefix(message, "Error while dialing: ")
}
