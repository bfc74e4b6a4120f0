// Package fault holds the one error type of telexec and its kinds.
//
// Every failure that can reach a caller is a *Error: a Kind that decides the
// gRPC code and HTTP status (in rpcserver's table and nowhere else), a stable
// Reason for programs, a Message for people and a Hint that says what to do
// next. The wrapped cause is for the log only: what the caller sees is not what
// we log, and an error that is not a *Error is told outside as "internal".
//
// All reasons are listed in reasons.go and explained in docs/errors.md; a test
// keeps the two in step.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind is the class of a failure. The list is append-only.
type Kind uint8

// The kinds, each with the gRPC code it becomes.
const (
	Internal           Kind = iota // a defect of ours, INTERNAL
	Invalid                        // the request is wrong whatever the state, INVALID_ARGUMENT
	NotFound                       // the thing named does not exist, NOT_FOUND
	AlreadyExists                  // it exists with other content, ALREADY_EXISTS
	FailedPrecondition             // not in this state, FAILED_PRECONDITION
	OutOfRange                     // an offset behind the end, OUT_OF_RANGE
	Unauthenticated                // no or bad credentials, UNAUTHENTICATED
	PermissionDenied               // known, but may not, PERMISSION_DENIED
	Exhausted                      // a limit is reached, RESOURCE_EXHAUSTED
	Unavailable                    // try again later, UNAVAILABLE
	DeadlineExceeded               // took too long, DEADLINE_EXCEEDED
	Cancelled                      // the caller went away, CANCELLED
	Unsupported                    // not to be had here, UNIMPLEMENTED
	Aborted                        // somebody else changed it meanwhile, ABORTED
	DataLoss                       // stored data is damaged, DATA_LOSS
)

// Field is a problem with one field of a request.
type Field struct {
	Path    string // as in the proto: "output.limit_bytes"
	Message string // what is wrong with it
	Rule    string // id of the rule that found it; may be empty
}

// Error is a failure with all that a caller needs to act on it.
type Error struct {
	Kind       Kind
	Reason     string            // upper snake case, listed in reasons.go
	Op         string            // what was being done: "sshconn.dial"; for the log
	Message    string            // one sentence for people, without the hint
	Hint       string            // what to do next; may be empty
	Fields     []Field           // for Invalid: which fields
	Metadata   map[string]string // facts for programs: host, command_id, …
	RetryAfter time.Duration     // above 0 where a retry helps
	Err        error             // the cause; logged, never shown
}

// New makes an error of a kind with a reason and a message.
func New(kind Kind, reason, format string, args ...any) *Error {
	return &Error{Kind: kind, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Wrap is New with a cause. The cause is logged and matched by errors.Is, but
// not shown.
func Wrap(err error, kind Kind, reason, format string, args ...any) *Error {
	e := New(kind, reason, format, args...)
	e.Err = err
	return e
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithOp sets the operation and returns e.
func (e *Error) WithOp(op string) *Error { e.Op = op; return e }

// With adds a fact and returns e.
func (e *Error) With(key, value string) *Error {
	if e.Metadata == nil {
		e.Metadata = make(map[string]string)
	}
	e.Metadata[key] = value
	return e
}

// WithRetry says when a retry helps and returns e.
func (e *Error) WithRetry(after time.Duration) *Error { e.RetryAfter = after; return e }

// Error gives everything, for the log.
func (e *Error) Error() string {
	s := e.Message
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Reason != "" {
		s += " [" + e.Reason + "]"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Text is what people are shown: the message and the hint.
func (e *Error) Text() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + ". " + e.Hint
}

// From gives the *Error in err's chain. The context errors become Cancelled and
// DeadlineExceeded; anything else becomes Internal. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Wrap(err, Cancelled, ReasonCallCancelled, "the call was cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(err, DeadlineExceeded, ReasonCallDeadline, "the call took longer than its deadline")
	}
	return Wrap(err, Internal, ReasonInternal, "internal error").
		WithHint("The service's log has the details under this request's id")
}

// KindOf is From(err).Kind; Internal for nil.
func KindOf(err error) Kind {
	if e := From(err); e != nil {
		return e.Kind
	}
	return Internal
}

// ReasonOf is From(err).Reason; empty for nil.
func ReasonOf(err error) string {
	if e := From(err); e != nil {
		return e.Reason
	}
	return ""
}
