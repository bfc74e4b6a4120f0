package access_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// shelf keeps keys in memory, as a store does on disk, and fails when it is told
// to: before it has written, or after.
type shelf struct {
	mu            sync.Mutex
	keys          []access.Key
	told          []audit.Entry
	uses          int
	before, after error // fail the next write
	readFails     error
	noted         chan string // UseKey sends the id, if it is there
}

func (s *shelf) write(told *audit.Entry, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, after := s.before, s.after
	s.before, s.after = nil, nil
	if before != nil {
		return before
	}
	if err := do(); err != nil {
		return err
	}
	if told != nil {
		s.told = append(s.told, *told)
	}
	return after
}

func (s *shelf) AddKey(_ context.Context, k access.Key, told audit.Entry) error {
	return s.write(&told, func() error {
		if slices.ContainsFunc(s.keys, func(o access.Key) bool { return o.Name == k.Name && o.RevokeTime.IsZero() }) {
			return fault.New(fault.AlreadyExists, fault.ReasonTokenNameTaken, "taken").WithHint("take another")
		}
		s.keys = append(s.keys, k)
		return nil
	})
}

func (s *shelf) RevokeKey(_ context.Context, name string, at time.Time, told audit.Entry) (k access.Key, err error) {
	err = s.write(&told, func() error {
		for i := range s.keys {
			if s.keys[i].Name == name && s.keys[i].RevokeTime.IsZero() {
				s.keys[i].RevokeTime = at
				k = s.keys[i]
				return nil
			}
		}
		return fault.New(fault.NotFound, fault.ReasonUnknownToken, "none").WithHint("list them")
	})
	return k, err
}

func (s *shelf) UseKey(_ context.Context, id string, at time.Time) error {
	err := s.write(nil, func() error {
		for i := range s.keys {
			if s.keys[i].ID == id {
				s.keys[i].LastUse = at
			}
		}
		s.uses++
		return nil
	})
	if s.noted != nil {
		s.noted <- id
	}
	return err
}

func (s *shelf) Keys(context.Context) ([]access.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys), s.readFails
}

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, s *shelf) *access.Keys {
	t.Helper()
	k, err := access.OpenKeys(t.Context(), s, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func create(t *testing.T, k *access.Keys, r access.KeyRequest) (string, access.Key) {
	t.Helper()
	token, key, err := k.Create(t.Context(), who("root", access.RoleAdmin), r)
	if err != nil {
		t.Fatal(err)
	}
	return token.Reveal(), key
}

func TestAKeyIsMadeUsedAndRevoked(t *testing.T) {
	s := &shelf{}
	k := open(t, s)
	token, key := create(t, k, access.KeyRequest{
		Name: "ci@build-7.example", Roles: []access.Role{access.RoleApprover, access.RoleOperator, access.RoleOperator},
		Limits: access.Limits{Start: 3},
	})
	if !strings.HasPrefix(token, "txk_"+key.ID+"_") || len(token) != 66 || key.CreatedBy != "root" || key.Hash != [32]byte{} {
		t.Errorf("token %q of key %+v", token, key)
	}
	if s.keys[0].Hash != sha256.Sum256([]byte(token)) {
		t.Error("what is stored is not the token's hash")
	}
	p, err := k.Authenticate(t.Context(), shows(token))
	if err != nil || p.Name != key.Name || p.Key != key.ID || p.Limits.Start != 3 || !p.Expiry.IsZero() ||
		!slices.Equal(p.Roles, []access.Role{access.RoleOperator, access.RoleApprover}) {
		t.Errorf("principal %+v, %v", p, err)
	}

	// Another start knows it too.
	again := open(t, s)
	if _, err := again.Authenticate(t.Context(), shows(token)); err != nil {
		t.Error(err)
	}

	told := 0
	k.WhenRevoked(key.ID, func() { told++ })
	k.WhenRevoked(key.ID, func() { t.Error("told, though it was withdrawn") })()
	k.WhenRevoked("nobody", func() { t.Error("a key that is not there can be revoked") })()
	if told != 0 {
		t.Error("it counts as revoked")
	}
	revoked, err := k.Revoke(t.Context(), who("root", access.RoleAdmin), key.Name)
	if err != nil || revoked.RevokeTime.IsZero() || revoked.Hash != [32]byte{} {
		t.Errorf("%+v, %v", revoked, err)
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	if k.WhenRevoked(key.ID, func() { told++ })(); told != 2 {
		t.Error("of a key that was revoked before, nothing is told")
	}
	for _, keys := range []*access.Keys{k, open(t, s)} {
		_, err = keys.Authenticate(t.Context(), shows(token))
		refused(t, err, fault.Unauthenticated, fault.ReasonTokenRevoked)
	}
	_, err = k.Revoke(t.Context(), who("root", access.RoleAdmin), key.Name)
	refused(t, err, fault.NotFound, fault.ReasonUnknownToken)

	// Its name is free again, for another token.
	other, second := create(t, k, access.KeyRequest{Name: key.Name, Roles: []access.Role{access.RoleViewer}})
	if other == token || second.ID == key.ID {
		t.Error("the same key again")
	}
	if list := k.List(all); len(list) != 2 || list[0].ID != key.ID || list[1].ID != second.ID || list[0].Hash != [32]byte{} {
		t.Errorf("list %+v", list)
	}
	if len(s.told) != 3 {
		t.Fatalf("audit %+v", s.told)
	}
	for i, kind := range []audit.Kind{audit.TokenCreated, audit.TokenRevoked} {
		e := s.told[i]
		if e.Kind != kind || e.Subject != key.Name || e.Principal != "root" || e.Origin != "grpc" || e.Address != "192.0.2.7" || e.Call != "call-1" ||
			!strings.Contains(e.Detail, "operator, approver") || !strings.Contains(e.Detail, key.ID) || e.Time.IsZero() {
			t.Errorf("audit %+v", e)
		}
		if strings.Contains(fmt.Sprint(e), token[17:]) {
			t.Error("the audit has the token")
		}
	}
}

func TestAKeyEndsAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := open(t, &shelf{})
		end := time.Now().Add(time.Hour)
		token, key := create(t, k, access.KeyRequest{Name: "short", Roles: []access.Role{access.RoleViewer}, Expires: end})
		<-time.After(time.Hour - time.Nanosecond)
		p, err := k.Authenticate(t.Context(), shows(token))
		if err != nil || !p.Expiry.Equal(end) || !key.ExpireTime.Equal(end) {
			t.Errorf("%+v, %v", p, err)
		}
		<-time.After(time.Nanosecond)
		_, err = k.Authenticate(t.Context(), shows(token))
		refused(t, err, fault.Unauthenticated, fault.ReasonTokenExpired)
	})
}

func TestStrangersLearnNothing(t *testing.T) {
	k := open(t, &shelf{})
	token, key := create(t, k, access.KeyRequest{Name: "known", Roles: []access.Role{access.RoleViewer}})
	if _, err := k.Revoke(t.Context(), who("root", access.RoleAdmin), key.Name); err != nil {
		t.Fatal(err)
	}
	elsewhere, _ := create(t, open(t, &shelf{}), access.KeyRequest{Name: "known", Roles: []access.Role{access.RoleViewer}})
	// The id of a key that there is (a revoked one at that), with another secret.
	forged := access.Seal(token[:17] + elsewhere[17:60])
	var texts []string
	for _, guess := range []string{elsewhere, forged} {
		_, err := k.Authenticate(t.Context(), shows(guess))
		e := refused(t, err, fault.Unauthenticated, fault.ReasonBadCredentials)
		texts = append(texts, e.Text()+fmt.Sprint(e.Metadata))
		if strings.Contains(e.Error(), guess[17:]) || strings.Contains(e.Text(), key.ID) {
			t.Errorf("it tells %q", e.Error())
		}
	}
	if texts[0] != texts[1] {
		t.Errorf("an unknown id is told %q, an unknown secret %q", texts[0], texts[1])
	}
	_, err := k.Authenticate(t.Context(), access.Credentials{})
	refused(t, err, fault.Unauthenticated, fault.ReasonNoCredentials)
}

func TestATokenThatWasNotCopiedWhole(t *testing.T) {
	k := open(t, &shelf{})
	token, _ := create(t, k, access.KeyRequest{Name: "a", Roles: []access.Role{access.RoleViewer}})
	flipped := []byte(token)
	flipped[30] ^= 1
	for _, part := range []string{token[:len(token)-1], token[:10], "txk_", token + "x", string(flipped), strings.ToUpper(token[:20]) + token[20:]} {
		_, err := k.Authenticate(t.Context(), shows(part))
		if e := refused(t, err, fault.Unauthenticated, fault.ReasonBadCredentials); !strings.Contains(e.Message, "not copied whole") {
			t.Errorf("%q: %s", part, e.Message)
		}
	}
}

func TestWhoMayMakeKeysAndWhich(t *testing.T) {
	s := &shelf{}
	k := open(t, s)
	viewer := []access.Role{access.RoleViewer}
	for _, by := range []access.Caller{who("ann"), who("ann", access.RoleOperator, access.RoleApprover, access.RoleViewer)} {
		_, _, err := k.Create(t.Context(), by, access.KeyRequest{Name: "x", Roles: viewer})
		if e := refused(t, err, fault.PermissionDenied, fault.ReasonRoleMissing); e.Metadata["role"] != "admin" {
			t.Errorf("%v", e.Metadata)
		}
		_, err = k.Revoke(t.Context(), by, "x")
		refused(t, err, fault.PermissionDenied, fault.ReasonRoleMissing)
	}
	past := time.Now().Add(-time.Second)
	for field, requests := range map[string][]access.KeyRequest{
		"principal": {
			{Roles: viewer}, {Name: "admin", Roles: viewer}, {Name: "Ann", Roles: viewer}, {Name: "a:b", Roles: viewer}, {Name: "-a", Roles: viewer},
			{Name: "a.", Roles: viewer}, {Name: "a\n", Roles: viewer}, {Name: strings.Repeat("a", 65), Roles: viewer},
		},
		"roles":    {{Name: "a"}, {Name: "a", Roles: []access.Role{"root"}}, {Name: "a", Roles: []access.Role{access.RoleViewer, ""}}},
		"lifetime": {{Name: "a", Roles: viewer, Expires: past}},
		"limits": {
			{Name: "a", Roles: viewer, Limits: access.Limits{Read: -1}}, {Name: "a", Roles: viewer, Limits: access.Limits{Streams: -1}},
			{Name: "a", Roles: viewer, Limits: access.Limits{List: math.NaN()}}, {Name: "a", Roles: viewer, Limits: access.Limits{Stream: math.Inf(1)}},
		},
	} {
		for _, r := range requests {
			_, _, err := k.Create(t.Context(), who("root", access.RoleAdmin), r)
			if e := refused(t, err, fault.Invalid, fault.ReasonInvalidRequest); len(e.Fields) != 1 || e.Fields[0].Path != field {
				t.Errorf("%+v: %+v", r, e.Fields)
			}
		}
	}
	if len(s.keys)+len(s.told) != 0 {
		t.Errorf("something was written: %+v %+v", s.keys, s.told)
	}
	for _, name := range []string{"a", "0", strings.Repeat("a", 64), "a._@-b"} {
		create(t, k, access.KeyRequest{Name: name, Roles: viewer})
	}
	_, _, err := k.Create(t.Context(), who("root", access.RoleAdmin), access.KeyRequest{Name: "a", Roles: viewer})
	refused(t, err, fault.AlreadyExists, fault.ReasonTokenNameTaken)
}

// all is every key there is.
var all = access.KeyFilter{Inactive: true}

func TestListOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := open(t, &shelf{})
		names := func(f access.KeyFilter) (names []string) {
			for _, key := range k.List(f) {
				names = append(names, key.Name)
			}
			return names
		}
		root, viewer := who("root", access.RoleAdmin), []access.Role{access.RoleViewer}
		for _, name := range []string{"c", "b", "a"} {
			create(t, k, access.KeyRequest{Name: name, Roles: viewer})
		}
		create(t, k, access.KeyRequest{Name: "d", Roles: viewer, Expires: time.Now().Add(time.Minute)})
		if got := names(access.KeyFilter{}); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
			t.Errorf("%v", got)
		}
		<-time.After(time.Minute)
		if _, err := k.Revoke(t.Context(), root, "b"); err != nil {
			t.Fatal(err)
		}
		_, second := create(t, k, access.KeyRequest{Name: "b", Roles: viewer})
		if got := names(access.KeyFilter{}); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("good ones: %v", got)
		}
		// Page by page, the two of one name too.
		var got []access.Key
		for f := all; ; f.After = got[len(got)-1] {
			f.Limit = 1
			page := k.List(f)
			if len(page) == 0 || len(got) > 5 {
				break
			}
			got = append(got, page...)
		}
		if want := k.List(all); len(got) != 5 || !reflect.DeepEqual(got, want) || got[2].ID != second.ID {
			t.Errorf("%+v\nwant %+v", got, want)
		}
	})
}

func TestAStoreThatFails(t *testing.T) {
	broken := errors.New("disk")
	if _, err := access.OpenKeys(t.Context(), &shelf{readFails: broken}, quiet); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	root, request := who("root", access.RoleAdmin), access.KeyRequest{Name: "a", Roles: []access.Role{access.RoleViewer}}

	s := &shelf{before: broken}
	k := open(t, s)
	if token, _, err := k.Create(t.Context(), root, request); !errors.Is(err, broken) || !token.IsZero() || len(k.List(all)) != 0 {
		t.Errorf("failed, not written: %v %+v", err, k.List(all))
	}
	s.after = broken
	if token, _, err := k.Create(t.Context(), root, request); !errors.Is(err, broken) || !token.IsZero() || len(k.List(all)) != 1 {
		t.Errorf("failed, but written: %v %+v", err, k.List(all))
	}
	if _, err := k.Revoke(t.Context(), root, "a"); err != nil {
		t.Fatal(err)
	}

	token, _ := create(t, k, request)
	s.before = broken
	if _, err := k.Revoke(t.Context(), root, "a"); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := k.Authenticate(t.Context(), shows(token)); err != nil {
		t.Errorf("it is revoked here, but not in the store: %v", err)
	}
	// The caller went away, and the store does not say that it has revoked it.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.after = context.Canceled
	if _, err := k.Revoke(ctx, root, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	_, err := k.Authenticate(t.Context(), shows(token))
	refused(t, err, fault.Unauthenticated, fault.ReasonTokenRevoked)

	var log bytes.Buffer
	k, err = access.OpenKeys(t.Context(), s, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.before, s.readFails = broken, broken
	if _, _, err := k.Create(t.Context(), root, request); !errors.Is(err, broken) || !strings.Contains(log.String(), "cannot be read") {
		t.Errorf("%v, log %q", err, log.String())
	}
}

func TestUsesAreNotedOncePerHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{noted: make(chan string)}
		k := open(t, s)
		token, key := create(t, k, access.KeyRequest{Name: "a", Roles: []access.Role{access.RoleViewer}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- k.Run(ctx) }()
		use := func() {
			if _, err := k.Authenticate(t.Context(), shows(token)); err != nil {
				t.Error(err)
			}
		}
		first := time.Now()
		use() // does not wait for the store, which waits for us
		use()
		if id := <-s.noted; id != key.ID {
			t.Errorf("noted %q", id)
		}
		<-time.After(time.Hour - 1)
		use()
		synctest.Wait()
		if last := k.List(all)[0].LastUse; s.uses != 1 || !s.keys[0].LastUse.Equal(first) || !last.Equal(first) {
			t.Errorf("%d uses, the last at %v, here %v", s.uses, s.keys[0].LastUse, last)
		}
		<-time.After(1)
		s.before = errors.New("disk")
		use()
		<-s.noted // it failed, and is tried again with the next one
		other, _ := create(t, k, access.KeyRequest{Name: "b", Roles: []access.Role{access.RoleViewer}})
		if _, err := k.Authenticate(t.Context(), shows(other)); err != nil {
			t.Error(err)
		}
		<-s.noted
		<-s.noted
		synctest.Wait()
		if s.uses != 3 {
			t.Errorf("%d uses", s.uses)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		// Nobody listens any more: calls go on.
		<-time.After(2 * time.Hour)
		use()
		<-time.After(2 * time.Hour)
		use()
	})
}

func TestKeysFromManyGoroutines(t *testing.T) {
	k := open(t, &shelf{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg, running sync.WaitGroup
	running.Go(func() { _ = k.Run(ctx) })
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("k%d", i)
			token, _, err := k.Create(t.Context(), who("root", access.RoleAdmin), access.KeyRequest{Name: name, Roles: []access.Role{access.RoleViewer}})
			if err != nil {
				t.Error(err)
				return
			}
			for range 100 {
				if _, err := k.Authenticate(t.Context(), access.Credentials{Token: token}); err != nil {
					t.Error(err)
				}
			}
			if _, err := k.Revoke(t.Context(), who("root", access.RoleAdmin), name); err != nil {
				t.Error(err)
			}
			if _, err := k.Authenticate(t.Context(), access.Credentials{Token: token}); fault.ReasonOf(err) != fault.ReasonTokenRevoked {
				t.Error(err)
			}
			k.List(all)
		})
	}
	wg.Wait()
	cancel()
	running.Wait()
}

func FuzzTokens(f *testing.F) {
	k, err := access.OpenKeys(context.Background(), &shelf{}, quiet)
	if err != nil {
		f.Fatal(err)
	}
	token, _, err := k.Create(context.Background(), who("root", access.RoleAdmin), access.KeyRequest{Name: "a", Roles: []access.Role{access.RoleViewer}})
	if err != nil {
		f.Fatal(err)
	}
	all := access.Authenticators{Admin: access.NewAdmin(secret.New("right")), Keys: k}
	for _, s := range []string{token.Reveal(), token.Reveal()[:40], "txk_", "a.b.c", "", "right", "txk_\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := all.Authenticate(t.Context(), shows(s))
		if good := s == "right" || s == token.Reveal(); good != (err == nil) || good == (p.Name == "") {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
		if err != nil && fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%q: %v", s, err)
		}
	})
}
