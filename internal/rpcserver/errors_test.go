package rpcserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/telexec/telexec/internal/fault"
)

// TestEveryKindHasItsCodes: a kind without a row would be told as OK.
func TestEveryKindHasItsCodes(t *testing.T) {
	for k := fault.Internal; k <= fault.DataLoss; k++ {
		row, ok := kinds[k]
		if !ok || row.code == codes.OK || row.http < 400 {
			t.Errorf("kind %d has the row %+v", k, row)
		}
		if f, ok := foreign[row.code]; ok && f.kind != k {
			t.Errorf("code %v is kind %d, and comes back as %d", row.code, k, f.kind)
		}
	}
	if len(kinds) != int(fault.DataLoss)+1 {
		t.Errorf("%d kinds in the table", len(kinds))
	}
}

func TestProblem(t *testing.T) {
	mine := fault.New(fault.NotFound, fault.ReasonUnknownHost, "no host web9").WithHint("List them")
	for name, c := range map[string]struct {
		err    error
		http   int
		reason string
	}{
		"a fault":                   {mine, 404, fault.ReasonUnknownHost},
		"wrapped":                   {fmt.Errorf("x: %w", mine), 404, fault.ReasonUnknownHost},
		"from a call":               {statusOf(mine).Err(), 404, fault.ReasonUnknownHost},
		"of gRPC itself":            {status.Error(codes.ResourceExhausted, "message larger than max"), 429, fault.ReasonInvalidRequest},
		"of the gateway's parser":   {status.Error(codes.InvalidArgument, "unknown field"), 400, fault.ReasonInvalidRequest},
		"a code of nobody":          {status.Error(codes.Unknown, "?"), 500, fault.ReasonInternal},
		"the caller went away":      {context.Canceled, 499, fault.ReasonCallCancelled},
		"the caller's deadline":     {status.FromContextError(context.DeadlineExceeded).Err(), 504, fault.ReasonCallDeadline},
		"internal from a call":      {statusOf(errors.New("x")).Err(), 500, fault.ReasonInternal},
		"an error without a status": {errors.New("x"), http.StatusInternalServerError, fault.ReasonInternal},
	} {
		got, body := Problem(c.err)
		var reason string
		for _, d := range status.FromProto(body).Details() {
			if i, ok := d.(*errdetails.ErrorInfo); ok {
				reason = i.GetReason()
			}
		}
		if got != c.http || reason != c.reason || body.GetMessage() == "" {
			t.Errorf("%s: HTTP %d, %v", name, got, body)
		}
	}
}
