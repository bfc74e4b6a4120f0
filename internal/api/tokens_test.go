package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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
	filter  access.KeyFilter
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

// List gives keys as they hang there.
func (b *board) List(f access.KeyFilter) []access.Key {
	b.filter = f
	from := slices.IndexFunc(b.keys, func(k access.Key) bool { return k.ID == f.After.ID }) + 1
	return b.keys[from:min(len(b.keys), from+f.Limit)]
}

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
			Principal: "ci", Roles: []string{"operator", "viewer"}, Lifetime: durationpb.New(time.Hour), Limits: &telexecv1.CallLimits{StartsPerSecond: 2.5, OpenStreams: 3},
		})
		if err != nil || made.GetSecret() != "txk_hush" || made.GetToken().GetName() != "tokens/ci" || made.GetToken().GetCreatedBy() != "root" ||
			!made.GetToken().GetExpireTime().AsTime().Equal(time.Now().Add(time.Hour)) {
			t.Errorf("%v, %v", made, err)
		}
		want := access.KeyRequest{Name: "ci", Roles: []access.Role{access.RoleOperator, access.RoleViewer}, Limits: access.Limits{Start: 2.5, Streams: 3}, Expires: time.Now().Add(time.Hour)}
		if b.by.Name != "root" || !reflect.DeepEqual(b.request, want) {
			t.Errorf("%+v", b.request)
		}
		if _, err := svc.CreateToken(asRoot(t), &telexecv1.CreateTokenRequest{Principal: "ever"}); err != nil || !b.request.Expires.IsZero() {
			t.Errorf("%v, until %v", err, b.request.Expires)
		}
		list, err := svc.ListTokens(asRoot(t), &telexecv1.ListTokensRequest{})
		if err != nil || len(list.GetTokens()) != 2 || list.GetTokens()[0].GetPrincipal() != "ci" || strings.Contains(list.String(), "hush") {
			t.Errorf("%v, %v", list, err)
		}
		gone, err := svc.RevokeToken(asRoot(t), &telexecv1.RevokeTokenRequest{Principal: "ci"})
		if err != nil || gone.GetToken().GetPrincipal() != "ci" || gone.GetToken().GetRevokeTime() == nil {
			t.Errorf("%v, %v", gone, err)
		}
		b.fail = errors.New("store")
		_, err1 := svc.CreateToken(asRoot(t), &telexecv1.CreateTokenRequest{Principal: "x"})
		_, err2 := svc.RevokeToken(asRoot(t), &telexecv1.RevokeTokenRequest{Principal: "x"})
		if err1 != b.fail || err2 != b.fail {
			t.Error(err1, err2)
		}
	})
}

func TestPagesOfTokens(t *testing.T) {
	b := &board{}
	for i := range 7 {
		b.keys = append(b.keys, access.Key{ID: fmt.Sprint("k", i), Name: "ci", CreateTime: noon.Add(time.Duration(i) * time.Microsecond)})
	}
	svc := NewAdmin(Info{}, &plant{}, b, nil, nil)
	req := &telexecv1.ListTokensRequest{PageSize: 3, IncludeInactive: true}
	var sizes []int
	for n := 0; ; {
		page, err := svc.ListTokens(asRoot(t), req)
		if err != nil || n > 7 {
			t.Fatal(err, n)
		}
		sizes = append(sizes, len(page.GetTokens()))
		for _, token := range page.GetTokens() {
			if token.GetId() != b.keys[n].ID {
				t.Errorf("%v in place %d", token, n)
			}
			n++
		}
		if !b.filter.Inactive || b.filter.Limit != 4 {
			t.Errorf("%+v", b.filter)
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
		after, last := b.keys[n-1], access.Key{}
		if last, err = keyAt(keyCursor(after)); err != nil || last.ID != after.ID || last.Name != after.Name || !last.CreateTime.Equal(after.CreateTime) {
			t.Errorf("%+v, %v", last, err)
		}
	}
	if !slices.Equal(sizes, []int{3, 3, 1}) {
		t.Errorf("%v", sizes)
	}
	if _, err := svc.ListTokens(asRoot(t), &telexecv1.ListTokensRequest{}); err != nil || b.filter.Inactive || b.filter.Limit != 51 {
		t.Errorf("%v: %+v", err, b.filter)
	}
	first, err := svc.ListTokens(asRoot(t), &telexecv1.ListTokensRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	filter := &telexecv1.ListTokensRequest{}
	for name, bad := range map[string]*telexecv1.ListTokensRequest{
		"of another list":    {PageToken: first.GetNextPageToken(), IncludeInactive: true},
		"nonsense":           {PageToken: "x"},
		"sealed, no place":   {PageToken: pageToken(filter, "x")},
		"sealed, not a time": {PageToken: pageToken(filter, "ci:then:k1")},
	} {
		if _, err := svc.ListTokens(asRoot(t), bad); fault.ReasonOf(err) != fault.ReasonBadPageToken {
			t.Errorf("%s: %v", name, err)
		}
	}
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
			_, err := svc.CreateToken(ctx, &telexecv1.CreateTokenRequest{Principal: "ci", Roles: []string{"viewer"}})
			return err
		},
		"ListTokens": func(ctx context.Context) error { _, err := svc.ListTokens(ctx, nil); return err },
		"RevokeToken": func(ctx context.Context) error {
			_, err := svc.RevokeToken(ctx, &telexecv1.RevokeTokenRequest{Principal: "x"})
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
	if log.reads != 0 || len(keys.List(access.KeyFilter{})) != 0 {
		t.Errorf("the audit was read %d times, there are %d keys", log.reads, len(keys.List(access.KeyFilter{})))
	}
	for name, call := range calls {
		if err := call(asRoot(t)); fault.ReasonOf(err) == fault.ReasonRoleMissing {
			t.Errorf("%s as an administrator: %v", name, err)
		}
	}
	if !slices.ContainsFunc(keys.List(access.KeyFilter{}), func(k access.Key) bool { return k.Name == "ci" }) {
		t.Error("an administrator made no key")
	}
}
