package rpcserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/rpcserver"
	"github.com/telexec/telexec/internal/secret"
)

func TestWhatTheAuditIsToldOfARefusal(t *testing.T) {
	denied := fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "the rule says no to plant-redact").With("rule", "look").With("decision", "deny")
	d := open(t, &service{execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		return nil, denied
	}},
		time.Second)
	ctx := withToken(t.Context())
	client := telexecv1.NewCommandServiceClient(d.conn)
	_, err := client.Execute(ctx, &telexecv1.ExecuteRequest{
		Host: "web1", Argv: []string{"mysql", "-p", "plant-redact", "plant-env's", "plant-sudo"}, Stdin: []byte("plant-stdin"),
		Env: map[string]string{"A": "plant-env's", "B": "plant-other"}, SecretEnv: []string{"A", "C"}, Redact: []string{"plant-redact"},
		Sudo: &telexecv1.Sudo{Password: "plant-sudo"},
	})
	if code, i, _ := info(t, err); code != codes.PermissionDenied || i.GetReason() != fault.ReasonPolicyDenied {
		t.Fatal(err)
	}
	entries := d.audit.take()
	if len(entries) != 1 {
		t.Fatalf("audit %+v", entries)
	}
	e := entries[0]
	if e.Host != "web1" || e.Command != "mysql '-p' '************' '***********' '**********'" || e.Rule != "look" || e.Decision != "deny" || e.SudoUser != "root" ||
		e.Detail != "the rule says no to ************" || e.Principal != "admin" || e.Reason != fault.ReasonPolicyDenied {
		t.Errorf("%+v", e)
	}
	if text, _ := json.Marshal(e); strings.Contains(string(text), "plant") || strings.Contains(string(text), token) {
		t.Errorf("a secret is told: %s", text)
	}
}

// noTokens refuses everybody their tokens.
type noTokens struct {
	telexecv1.UnimplementedAdminServiceServer
}

func (noTokens) RevokeToken(context.Context, *telexecv1.RevokeTokenRequest) (*telexecv1.RevokeTokenResponse, error) {
	return nil, fault.New(fault.PermissionDenied, fault.ReasonRoleMissing, "no")
}

func TestARefusalNamesWhatItIsAbout(t *testing.T) {
	kept := &recorder{}
	s, err := rpcserver.New(rpcserver.Options{
		Authenticator: access.NewAdmin(secret.New(token)), Limiter: access.NewLimiter(access.Settings{}), Revocations: noRevocations{},
		Refusals: kept, Logger: slog.New(slog.DiscardHandler), Meter: &meter{}, DrainTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	telexecv1.RegisterAdminServiceServer(s, noTokens{})
	conn := dialTCP(t, s, insecure.NewCredentials())
	long := strings.Repeat("é", 32)
	if _, err := telexecv1.NewAdminServiceClient(conn).RevokeToken(withToken(t.Context()), &telexecv1.RevokeTokenRequest{Principal: long}); status.Code(err) != codes.PermissionDenied {
		t.Fatal(err)
	}
	if e := kept.take(); len(e) != 1 || e[0].Subject != long || e[0].Method != "AdminService/RevokeToken" {
		t.Errorf("audit %+v", e)
	}
}

// TestARefusalStandsAlsoWhereTheAuditFails: what cannot be written down is not
// allowed for that, and the log has it.
func TestARefusalStandsAlsoWhereTheAuditFails(t *testing.T) {
	d := open(t, &service{}, time.Second)
	d.audit.err = errors.New("disk full")
	if code, _, _ := info(t, execute(t.Context(), d.conn)); code != codes.Unauthenticated {
		t.Errorf("%v", code)
	}
	d.stop()
	for _, want := range []string{"level=ERROR", "disk full", "method=CommandService/Execute", "reason=NO_CREDENTIALS"} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, d.log)
		}
	}
}
