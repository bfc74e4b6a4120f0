package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/fault"
)

func TestErrorCarriesEverything(t *testing.T) {
	err := fault.Wrap(io.ErrUnexpectedEOF, fault.Unavailable, fault.ReasonHostUnreachable, "%s cannot be reached", "web1").
		WithHint("Check %s", "the network").WithOp("sshconn.dial").With("host", "web1").With("address", "192.0.2.1:22").WithRetry(time.Second)

	if got, want := err.Error(), "sshconn.dial: web1 cannot be reached [HOST_UNREACHABLE]: unexpected EOF"; got != want {
		t.Errorf("for the log: %q, want %q", got, want)
	}
	if got, want := err.Text(), "web1 cannot be reached. Check the network"; got != want {
		t.Errorf("for people: %q, want %q", got, want)
	}
	if strings.Contains(err.Text(), "EOF") {
		t.Error("the cause is shown to people")
	}
	if err.Metadata["host"] != "web1" || err.Metadata["address"] != "192.0.2.1:22" || err.RetryAfter != time.Second {
		t.Errorf("facts %v, retry %v", err.Metadata, err.RetryAfter)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
	if got := fault.New(fault.NotFound, "", "nothing here"); got.Error() != "nothing here" || got.Text() != "nothing here" || got.Unwrap() != nil {
		t.Errorf("a bare error says %q, %q", got.Error(), got.Text())
	}
}

func TestFrom(t *testing.T) {
	known := fault.New(fault.NotFound, fault.ReasonUnknownHost, "there is no host web9")
	for name, test := range map[string]struct {
		err    error
		kind   fault.Kind
		reason string
	}{
		"nil":                   {nil, fault.Internal, ""},
		"ours":                  {known, fault.NotFound, fault.ReasonUnknownHost},
		"ours, wrapped":         {fmt.Errorf("looking it up: %w", known), fault.NotFound, fault.ReasonUnknownHost},
		"ours over a cancel":    {fault.Wrap(context.Canceled, fault.Unavailable, fault.ReasonDraining, "shutting down"), fault.Unavailable, fault.ReasonDraining},
		"a cancelled context":   {fmt.Errorf("waiting: %w", context.Canceled), fault.Cancelled, fault.ReasonCallCancelled},
		"a passed deadline":     {context.DeadlineExceeded, fault.DeadlineExceeded, fault.ReasonCallDeadline},
		"somebody else's error": {io.EOF, fault.Internal, fault.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fault.KindOf(test.err); got != test.kind {
				t.Errorf("kind %v, want %v", got, test.kind)
			}
			if got := fault.ReasonOf(test.err); got != test.reason {
				t.Errorf("reason %q, want %q", got, test.reason)
			}
			e := fault.From(test.err)
			if (e == nil) != (test.err == nil) {
				t.Fatalf("From gives %v", e)
			}
			if e != nil && !errors.Is(e, test.err) && !errors.Is(test.err, e) {
				t.Errorf("From(%v) = %v has nothing to do with it", test.err, e)
			}
		})
	}
	if text := fault.From(errors.New("password is hunter2")).Text(); strings.Contains(text, "hunter2") {
		t.Errorf("an unknown error is shown outside: %q", text)
	}
}
