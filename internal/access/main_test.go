package access_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// who makes a caller at an address.
func who(name string, roles ...access.Role) access.Caller {
	return access.Caller{
		Principal: access.Principal{Name: name, Roles: roles},
		Origin:    command.OriginGRPC, Address: "192.0.2.7", Call: "call-1",
	}
}

// shows makes credentials of a token.
func shows(token string) access.Credentials { return access.Credentials{Token: secret.New(token)} }

// refused checks that err has this kind and reason, and says what to do.
func refused(t *testing.T, err error, kind fault.Kind, reason string) *fault.Error {
	t.Helper()
	if err == nil {
		t.Fatalf("it was let through, want %s", reason)
	}
	e := fault.From(err)
	if e.Kind != kind || e.Reason != reason {
		t.Fatalf("%v %s (%v), want %v %s", e.Kind, e.Reason, err, kind, reason)
	}
	if e.Hint == "" && reason != fault.ReasonBadConfig && reason != fault.ReasonInvalidRequest {
		t.Errorf("%s: no hint", reason)
	}
	return e
}
