package rpcserver

import (
	"errors"
	"net/http"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/telexec/telexec/internal/fault"
)

// Domain is the domain of every ErrorInfo.
const Domain = "telexec"

// kinds is the one table from a kind of failure to what each door calls it. The
// HTTP statuses are those of google/rpc/code.proto.
var kinds = map[fault.Kind]struct {
	code codes.Code
	http int
}{
	fault.Internal:           {codes.Internal, http.StatusInternalServerError},
	fault.Invalid:            {codes.InvalidArgument, http.StatusBadRequest},
	fault.NotFound:           {codes.NotFound, http.StatusNotFound},
	fault.AlreadyExists:      {codes.AlreadyExists, http.StatusConflict},
	fault.FailedPrecondition: {codes.FailedPrecondition, http.StatusBadRequest},
	fault.OutOfRange:         {codes.OutOfRange, http.StatusBadRequest},
	fault.Unauthenticated:    {codes.Unauthenticated, http.StatusUnauthorized},
	fault.PermissionDenied:   {codes.PermissionDenied, http.StatusForbidden},
	fault.Exhausted:          {codes.ResourceExhausted, http.StatusTooManyRequests},
	fault.Unavailable:        {codes.Unavailable, http.StatusServiceUnavailable},
	fault.DeadlineExceeded:   {codes.DeadlineExceeded, http.StatusGatewayTimeout},
	fault.Cancelled:          {codes.Canceled, 499}, // "client closed request", nginx's word for it
	fault.Unsupported:        {codes.Unimplemented, http.StatusNotImplemented},
	fault.Aborted:            {codes.Aborted, http.StatusConflict},
	fault.DataLoss:           {codes.DataLoss, http.StatusInternalServerError},
}

// foreign gives the kind of a code, and the reason of a status that gRPC itself
// made: for them too the answer names one.
var foreign = map[codes.Code]struct {
	kind   fault.Kind
	reason string
}{
	codes.InvalidArgument:    {fault.Invalid, fault.ReasonInvalidRequest},
	codes.OutOfRange:         {fault.OutOfRange, fault.ReasonInvalidRequest},
	codes.NotFound:           {fault.NotFound, fault.ReasonUnknownRoute},
	codes.Unimplemented:      {fault.Unsupported, fault.ReasonUnknownRoute},
	codes.ResourceExhausted:  {fault.Exhausted, fault.ReasonInvalidRequest},
	codes.Canceled:           {fault.Cancelled, fault.ReasonCallCancelled},
	codes.DeadlineExceeded:   {fault.DeadlineExceeded, fault.ReasonCallDeadline},
	codes.Unavailable:        {fault.Unavailable, fault.ReasonDraining},
	codes.Unauthenticated:    {fault.Unauthenticated, fault.ReasonBadCredentials},
	codes.PermissionDenied:   {fault.PermissionDenied, fault.ReasonForbiddenOrigin},
	codes.AlreadyExists:      {fault.AlreadyExists, fault.ReasonInternal},
	codes.FailedPrecondition: {fault.FailedPrecondition, fault.ReasonInternal},
	codes.Aborted:            {fault.Aborted, fault.ReasonInternal},
	codes.DataLoss:           {fault.DataLoss, fault.ReasonInternal},
	codes.Internal:           {fault.Internal, fault.ReasonInternal},
}

// carrier is an error that gRPC made: it has a status.
type carrier interface {
	error
	GRPCStatus() *status.Status
}

// faultOf gives the fault for any error from inside. An error of gRPC itself (a
// stream whose client went away) has its kind by its code; one that is neither
// that nor a fault is internal, and its text stays in the log.
func faultOf(err error) *fault.Error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return fault.From(err)
	}
	c, ok := errors.AsType[carrier](err)
	if !ok {
		return fault.From(err)
	}
	known, ok := foreign[c.GRPCStatus().Code()]
	if !ok {
		return fault.From(err)
	}
	text := c.GRPCStatus().Message()
	if c.GRPCStatus().Code() == codes.InvalidArgument {
		// What a library says of JSON or a query it cannot read; protobuf's texts
		// begin with its own name and a space of one kind or another.
		text = "the request cannot be read: " + strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
	}
	e := fault.Wrap(err, known.kind, known.reason, "%s", text)
	if known.reason == fault.ReasonInvalidRequest {
		e.Hint = "GET /openapi.json describes every request"
	}
	return e
}

// statusOf gives the status that a caller sees for err. Its message ends with
// the hint, since many clients show nothing else; the hint alone is in the
// ErrorInfo.
func statusOf(err error) *status.Status {
	e := faultOf(err)
	st := status.New(kinds[e.Kind].code, e.Text())
	facts := make(map[string]string, len(e.Metadata)+1)
	for k, v := range e.Metadata {
		facts[k] = v
	}
	if e.Hint != "" {
		facts["hint"] = e.Hint
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Reason, Domain: Domain, Metadata: facts}}
	if len(e.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, f := range e.Fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: f.Path, Description: f.Message, Reason: f.Rule,
			})
		}
		details = append(details, bad)
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	full, err := st.WithDetails(details...)
	if err != nil { // only for code OK, which no kind has
		return st
	}
	return full
}

// Problem gives what a REST caller is told for err: the HTTP status and the
// body. It takes faults and errors of gRPC calls alike, so that one failure has
// one face at every door.
func Problem(err error) (httpStatus int, body *spb.Status) {
	if c, ok := errors.AsType[carrier](err); ok {
		st := c.GRPCStatus()
		for _, d := range st.Details() {
			if _, ok := d.(*errdetails.ErrorInfo); ok { // statusOf has made it
				return kinds[foreign[st.Code()].kind].http, st.Proto()
			}
		}
	}
	return kinds[faultOf(err).Kind].http, statusOf(err).Proto()
}
