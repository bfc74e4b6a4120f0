package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// board is where keys hang. It lets everybody, for its owner decides who may.
type board struct {
	by      access.Caller
	request access.KeyRequest
	keys    []access.Key
	fail    error
}

func (b *board) Create(_ context.Context, by access.Caller, r access.KeyRequest) (secret.Text, access.Key, error) {
	b.by, b.request = by, r
	k := access.Key{ID: "k1", Name: r.Name, Roles: r.Roles, Limits: r.Limits, CreatedBy: by.Name, ExpireTime: r.Expires}
	b.keys = append(b.keys, k)
	return secret.New("txk_hush"), k, b.fail
}

func (b *board) Revoke(_ context.Context, by access.Caller, name string) (access.Key, error) {
	b.by = by
	return access.Key{Name: name, RevokeTime: noon}, b.fail
}

func (b *board) List() []access.Key { return b.keys }

func asRoot(t *testing.T) context.Context { return as(t.Context(), "root", access.RoleAdmin) }

func TestEveryFieldOfATokenIsTold(t *testing.T) {
	k := full[access.Key]()
	p := tokenToProto(k)
	if missing := unset("", p.ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}
	leaves("", reflect.ValueOf(&k).Elem(), func(path string, v reflect.Value) {
		if strings.HasPrefix(path, "Hash[") {
			return
		}
		old := reflect.ValueOf(v.Interface())
		v.SetZero()
		if proto.Equal(p, tokenToProto(k)) {
			t.Errorf("%s is not told", path)
		}
		v.Set(old)
	})
	k.Hash = sha256.Sum256([]byte("txk_hush"))
	if !proto.Equal(p, tokenToProto(k)) {
		t.Error("the hash is told")
	}
	if limitsFromProto(p.GetLimits()) != k.Limits {
		t.Errorf("%v", p.GetLimits())
	}
	if p := tokenToProto(access.Key{}); p.Limits != nil || p.ExpireTime != nil || p.LastUseTime != nil || limitsFromProto(nil) != (access.Limits{}) {
		t.Errorf("filled in: %v", p)
	}
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		svc := NewAdmin(Info{}, &plant{}, b, nil, nil)
		made, err := svc.CreateToken(asRoot(t), &telexecv1.CreateTokenRequest{
			Token: "ci", Roles: []string{"operator", "viewer"}, Lifetime: durationpb.New(time.Hour), Limits: &telexecv1.CallLimits{StartsPerSecond: 2.5, OpenStreams: 3},
		})
		if err != nil || made.GetSecret() != "txk_hush" || made.GetToken().GetName() != "tokens/ci" || made.GetToken().GetCreatedBy() != "root" ||
			!made.GetToken().GetExpireTime().AsTime().Equal(time.Now().Add(time.Hour)) {
			t.Errorf("%v, %v", made, err)
		}
		want := access.KeyRequest{Name: "ci", Roles: []access.Role{access.RoleOperator, access.RoleViewer}, Limits: access.Limits{Start: 2.5, Streams: 3}, Expires: time.Now().Add(time.Hour)}
		if b.by.Name != "root" || !reflect.DeepEqual(b.request, want) {
			t.Errorf("%+v", b.request)
		}
		if _, err := svc.CreateToken(asRoot(t), &telexecv1.CreateTokenRequest{Token: "ever"}); err != nil || !b.request.Expires.IsZero() {
			t.Errorf("%v, until %v", err, b.request.Expires)
		}
		list, err := svc.ListTokens(asRoot(t), &telexecv1.ListTokensRequest{})
		if err != nil || len(list.GetTokens()) != 2 || list.GetTokens()[0].GetToken() != "ci" || strings.Contains(list.String(), "hush") {
			t.Errorf("%v, %v", list, err)
		}
		gone, err := svc.RevokeToken(asRoot(t), &telexecv1.RevokeTokenRequest{Token: "ci"})
		if err != nil || gone.GetToken().GetToken() != "ci" || gone.GetToken().GetRevokeTime() == nil {
			t.Errorf("%v, %v", gone, err)
		}
		b.fail = errors.New("store")
		_, err1 := svc.CreateToken(asRoot(t), &telexecv1.CreateTokenRequest{Token: "x"})
		_, err2 := svc.RevokeToken(asRoot(t), &telexecv1.RevokeTokenRequest{Token: "x"})
		if err1 != b.fail || err2 != b.fail {
			t.Error(err1, err2)
		}
	})
}

// What is an administrator's is refused to all others before anything is looked at.
func TestOnlyAdminsMay(t *testing.T) {
	log := newLedger(3)
	keys, err := access.OpenKeys(t.Context(), noKeys{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	svc := NewAdmin(Info{}, &plant{}, keys, log, nil)
	calls := map[string]func(context.Context) error{
		"CreateToken": func(ctx context.Context) error {
			_, err := svc.CreateToken(ctx, &telexecv1.CreateTokenRequest{Token: "ci", Roles: []string{"viewer"}})
			return err
		},
		"ListTokens": func(ctx context.Context) error { _, err := svc.ListTokens(ctx, nil); return err },
		"RevokeToken": func(ctx context.Context) error {
			_, err := svc.RevokeToken(ctx, &telexecv1.RevokeTokenRequest{Token: "x"})
			return err
		},
		"ListAuditEntries": func(ctx context.Context) error {
			_, err := svc.ListAuditEntries(ctx, &telexecv1.ListAuditEntriesRequest{PageToken: "x"})
			return err
		},
		"VerifyAudit": func(ctx context.Context) error {
			_, err := svc.VerifyAudit(ctx, &telexecv1.VerifyAuditRequest{})
			return err
		},
		"ExportAudit": func(ctx context.Context) error {
			return svc.ExportAudit(&telexecv1.ExportAuditRequest{}, &exports{ctx: ctx})
		},
	}
	for name, call := range calls {
		for _, roles := range [][]access.Role{nil, {access.RoleViewer}, {access.RoleOperator, access.RoleApprover, access.RoleViewer}} {
			if err := call(as(t.Context(), "ann", roles...)); fault.ReasonOf(err) != fault.ReasonRoleMissing || fault.KindOf(err) != fault.PermissionDenied {
				t.Errorf("%s as %v: %v", name, roles, err)
			}
		}
		if err := call(t.Context()); fault.KindOf(err) != fault.PermissionDenied { // through no door at all
			t.Errorf("%s as nobody: %v", name, err)
		}
	}
	if log.reads != 0 || len(keys.List()) != 0 {
		t.Errorf("the audit was read %d times, there are %d keys", log.reads, len(keys.List()))
	}
	for name, call := range calls {
		if err := call(asRoot(t)); fault.ReasonOf(err) == fault.ReasonRoleMissing {
			t.Errorf("%s as an administrator: %v", name, err)
		}
	}
	if !slices.ContainsFunc(keys.List(), func(k access.Key) bool { return k.Name == "ci" }) {
		t.Error("an administrator made no key")
	}
}
