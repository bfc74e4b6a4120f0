package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

const (
	// useEvery is how often the use of a key is noted: often enough to find those
	// that nobody needs, seldom enough to cost nothing.
	useEvery = time.Hour
	// afterwards is how long the store may take to tell what is there, after a
	// write that failed.
	afterwards = 5 * time.Second
)

// keyName is the form of a key's name. It has no colon, see Principal.
var keyName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._@-]{0,62}[a-z0-9])?$`)

// Keys are the API keys. All of them are in memory, so that no call waits for the
// store to know who asks; they are written through to the store. Its methods may
// be called from any goroutine.
type Keys struct {
	store KeyStore
	log   *slog.Logger

	writing sync.Mutex // held by who changes the store and then mu's

	mu   sync.RWMutex
	byID map[string]*heldKey

	// used says that some key's use is to be noted: sent to by Authenticate, never
	// waiting; received by Run; not closed. One place is enough, for Run then looks
	// at all keys.
	used chan struct{}
}

// heldKey is a key in memory.
type heldKey struct {
	Key                    // never changed, but for revoked ones, which get a new heldKey
	lastUse   atomic.Int64 // Unix nanoseconds; 0: never
	lastNoted int64        // of these, what the store has; Run's alone
	watchers  *watchers    // of its revocation; shared by the key's heldKeys
}

// OpenKeys loads all keys from the store. Failures that no caller waits for go to
// the log. Run has to run for uses to be noted.
func OpenKeys(ctx context.Context, store KeyStore, log *slog.Logger) (*Keys, error) {
	k := &Keys{store: store, log: log, byID: make(map[string]*heldKey), used: make(chan struct{}, 1)}
	if err := k.load(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// load makes memory what the store has. writing is held, or nobody else has k.
func (k *Keys) load(ctx context.Context) error {
	all, err := k.store.Keys(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range all {
		k.holdLocked(key)
	}
	return nil
}

// holdLocked puts a key into memory, or its new state over the one there.
func (k *Keys) holdLocked(key Key) {
	h := &heldKey{Key: key, watchers: new(watchers)}
	if !key.LastUse.IsZero() {
		h.lastUse.Store(key.LastUse.UnixNano())
	}
	h.lastNoted = h.lastUse.Load()
	if old := k.byID[key.ID]; old != nil {
		h.watchers = old.watchers
		h.lastUse.Store(max(h.lastUse.Load(), old.lastUse.Load()))
	}
	k.byID[key.ID] = h
	if !key.RevokeTime.IsZero() {
		h.watchers.tell()
	}
}

// Authenticate is of Authenticator. The principal's Roles are shared and must not
// be changed.
func (k *Keys) Authenticate(_ context.Context, shown Credentials) (Principal, error) {
	if shown.Token.IsZero() {
		return Principal{}, noCredentials()
	}
	token := shown.Token.Reveal()
	id, whole := idOf(token)
	if !whole {
		return Principal{}, fault.New(fault.Unauthenticated, fault.ReasonBadCredentials, "the API key was not copied whole").
			WithHint("Copy it again, all of it; it begins with %s and has %d characters", keyPrefix, keyLength)
	}
	got := sha256.Sum256([]byte(token))

	k.mu.RLock()
	h := k.byID[id]
	k.mu.RUnlock()
	var want [sha256.Size]byte // of an unknown key: as long a comparison with what no token has
	if h != nil {
		want = h.Hash
	}
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || h == nil {
		return Principal{}, badCredentials("no API key has this token")
	}

	// From here on it is the key's holder who asks, and is told the truth.
	now := time.Now()
	switch {
	case !h.RevokeTime.IsZero():
		return Principal{}, fault.New(fault.Unauthenticated, fault.ReasonTokenRevoked, "the API key %q was revoked", h.Name).
			WithHint("Ask an administrator for a new one (telexec token create)").With("principal", h.Name)
	case !h.ExpireTime.IsZero() && !now.Before(h.ExpireTime):
		return Principal{}, fault.New(fault.Unauthenticated, fault.ReasonTokenExpired,
			"the API key %q has expired at %s", h.Name, h.ExpireTime.UTC().Format(time.RFC3339)).
			WithHint("Ask an administrator for a new one (telexec token create)").With("principal", h.Name)
	}
	if last := h.lastUse.Load(); now.UnixNano()-last >= int64(useEvery) && h.lastUse.CompareAndSwap(last, now.UnixNano()) {
		select {
		case k.used <- struct{}{}:
		default: // Run is told already
		}
	}
	return Principal{Name: h.Name, Roles: h.Roles, Limits: h.Limits, Key: h.ID, Expiry: h.ExpireTime}, nil
}

// WhenRevoked calls f, once, when the key with this id, as in Principal.Key, is
// revoked: streams that it has opened end then. Where it was revoked before, f is
// called at once; where there is no such key, never. When Revoke returns, f has.
// f must neither wait nor use k. stop withdraws it; f may be under way then.
func (k *Keys) WhenRevoked(id string, f func()) (stop func()) {
	k.mu.RLock()
	h := k.byID[id]
	k.mu.RUnlock()
	if h == nil {
		return func() {}
	}
	return h.watchers.add(f)
}

// watchers are functions to be called when a key is revoked. There is one for
// every call under way, so that a call needs no goroutine to wait for what nearly
// never comes.
type watchers struct {
	mu      sync.Mutex
	revoked bool
	last    uint64            // number of the last one that was added
	waiting map[uint64]func() // by their numbers
}

func (w *watchers) add(f func()) (stop func()) {
	w.mu.Lock()
	if w.revoked {
		w.mu.Unlock()
		f()
		return func() {}
	}
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = make(map[uint64]func())
	}
	w.last++
	n := w.last
	w.waiting[n] = f
	return func() {
		w.mu.Lock()
		delete(w.waiting, n)
		w.mu.Unlock()
	}
}

// tell calls all of them, at its first call.
func (w *watchers) tell() {
	w.mu.Lock()
	waiting := w.waiting
	w.revoked, w.waiting = true, nil
	w.mu.Unlock()
	for _, f := range waiting {
		f()
	}
}

// KeyRequest describes a new key.
type KeyRequest struct {
	Name    string    // of the principal it stands for: 1 to 64 of a-z, 0-9, and ._@- inside; not "admin"
	Roles   []Role    // at least one
	Limits  Limits    // of its own; none below 0
	Expires time.Time // zero: never
}

// check gives the roles in their order, each once.
func (r KeyRequest) check() ([]Role, error) {
	invalid := func(path, format string, args ...any) error {
		e := fault.New(fault.Invalid, fault.ReasonInvalidRequest, format, args...)
		e.Fields = []fault.Field{{Path: path, Message: e.Message}}
		return e
	}
	switch {
	case !keyName.MatchString(r.Name):
		return nil, invalid("principal", "the name of a principal has 1 to 64 small letters and digits, and . _ @ - between them")
	case r.Name == adminName:
		return nil, invalid("principal", "%q is the name of the administrator, whose token is in a file", adminName)
	case len(r.Roles) == 0:
		return nil, invalid("roles", "a token has at least one role: %s", roleList(Roles))
	case !r.Expires.IsZero() && !r.Expires.After(time.Now()):
		return nil, invalid("lifetime", "the token would have expired before it is made")
	}
	l := r.Limits
	for _, v := range []float64{l.Start, l.Read, l.List, l.Stream, float64(l.Streams)} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return nil, invalid("limits", "a limit is a number from 0, which stands for the service's own limit")
		}
	}
	if unknown := unknownRoles(r.Roles); len(unknown) > 0 {
		return nil, invalid("roles", "there is no role %q; the roles are %s", unknown[0], roleList(Roles))
	}
	return inOrder(r.Roles), nil
}

// unknownRoles gives those that are none.
func unknownRoles(roles []Role) []Role {
	return slices.DeleteFunc(slices.Clone(roles), func(r Role) bool { return slices.Contains(Roles, r) })
}

// inOrder gives the roles as they stand in Roles, each once.
func inOrder(roles []Role) []Role {
	return slices.DeleteFunc(slices.Clone(Roles), func(r Role) bool { return !slices.Contains(roles, r) })
}

func roleList(roles []Role) string {
	return strings.Join(Principal{Roles: roles}.RoleNames(), ", ")
}

// Create makes a key and gives its token, which is nowhere else: only its hash is
// kept, and not even that is in the Key. by must be an administrator. Besides
// ROLE_MISSING it fails with INVALID_REQUEST and TOKEN_NAME_TAKEN, and as the
// store does; what failed may be in the store nevertheless, with a token that
// nobody knows, and is then in List.
func (k *Keys) Create(ctx context.Context, by Caller, request KeyRequest) (secret.Text, Key, error) {
	if err := needs(by, Administer); err != nil {
		return secret.Text{}, Key{}, err
	}
	roles, err := request.check()
	if err != nil {
		return secret.Text{}, Key{}, err
	}
	// What the store keeps is what is given back: in whole microseconds.
	now := time.Now().UTC().Truncate(time.Microsecond)
	token, id := newToken()
	key := Key{
		ID: id, Name: request.Name, Hash: sha256.Sum256([]byte(token)), Roles: roles, Limits: request.Limits,
		CreatedBy: by.Name, CreateTime: now,
	}
	detail := "roles " + roleList(roles)
	if !request.Expires.IsZero() {
		key.ExpireTime = request.Expires.UTC().Truncate(time.Microsecond)
		detail += ", until " + key.ExpireTime.Format(time.RFC3339)
	}

	k.writing.Lock()
	defer k.writing.Unlock()
	told := by.entry(audit.TokenCreated, now)
	told.Subject, told.Detail = key.Name, fmt.Sprintf("%s, id %s", detail, key.ID)
	if err := k.store.AddKey(ctx, key, told); err != nil {
		k.loadAfter(ctx, err)
		return secret.Text{}, Key{}, err
	}
	k.mu.Lock()
	k.holdLocked(key)
	k.mu.Unlock()
	key.Hash = [sha256.Size]byte{}
	return secret.New(token), key, nil
}

// Revoke takes a key back: the next call with it is refused. by must be an
// administrator. Besides ROLE_MISSING it fails with UNKNOWN_TOKEN, and as the
// store does.
func (k *Keys) Revoke(ctx context.Context, by Caller, name string) (Key, error) {
	if err := needs(by, Administer); err != nil {
		return Key{}, err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	now := time.Now().UTC().Truncate(time.Microsecond)
	told := by.entry(audit.TokenRevoked, now)
	told.Subject = name
	k.mu.RLock()
	for _, h := range k.byID {
		if h.Name == name && h.RevokeTime.IsZero() {
			told.Detail = fmt.Sprintf("roles %s, id %s", roleList(h.Roles), h.ID)
		}
	}
	k.mu.RUnlock()
	key, err := k.store.RevokeKey(ctx, name, now, told)
	if err != nil {
		k.loadAfter(ctx, err)
		return Key{}, err
	}
	k.mu.Lock()
	k.holdLocked(key)
	k.mu.Unlock()
	key.Hash = [sha256.Size]byte{}
	return key, nil
}

// loadAfter finds out what a failed write has left: the store may have written it
// and failed to say so. The write's caller may have gone away; that must not keep
// a revoked key alive.
func (k *Keys) loadAfter(ctx context.Context, failed error) {
	if fault.KindOf(failed) == fault.NotFound || fault.KindOf(failed) == fault.AlreadyExists {
		return // the store says that it wrote nothing
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	if err := k.load(ctx); err != nil {
		k.log.ErrorContext(ctx, "API keys cannot be read after a write that failed; a key that was being revoked may still be good until the next start", "error", err)
	}
}

// KeyFilter selects keys.
type KeyFilter struct {
	Inactive bool // also those that are revoked or expired
	After    Key  // only those behind this one, of which Name, CreateTime and ID count; zero: all
	Limit    int  // at most so many; 0: all
}

// List gives keys without their hashes, by name, those of one name by creation. It
// looks at all keys there are, and sorts only those that it could give.
func (k *Keys) List(f KeyFilter) []Key {
	now := time.Now()
	k.mu.RLock()
	defer k.mu.RUnlock()
	var list []Key
	for _, h := range k.byID {
		over := !h.RevokeTime.IsZero() || !h.ExpireTime.IsZero() && !now.Before(h.ExpireTime)
		if over && !f.Inactive || compareKeys(h.Key, f.After) <= 0 {
			continue
		}
		key := h.Key
		key.Hash = [sha256.Size]byte{}
		if last := h.lastUse.Load(); last != 0 {
			key.LastUse = time.Unix(0, last).UTC().Truncate(time.Microsecond)
		}
		list = append(list, key)
	}
	slices.SortFunc(list, compareKeys)
	if f.Limit > 0 && len(list) > f.Limit {
		list = list[:f.Limit]
	}
	return list
}

// compareKeys is the order of List, in which no two keys are equal.
func compareKeys(a, b Key) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), a.CreateTime.Compare(b.CreateTime), strings.Compare(a.ID, b.ID))
}

// Run notes in the store when keys were used, until ctx ends, which is no error.
// It is to run once.
func (k *Keys) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.used:
		}
		k.noteUses(ctx)
	}
}

// noteUses writes the uses that the store does not have. What fails is tried with
// the next one.
func (k *Keys) noteUses(ctx context.Context) {
	k.mu.RLock()
	due := make([]*heldKey, 0, 1)
	for _, h := range k.byID {
		if h.lastUse.Load() > h.lastNoted {
			due = append(due, h)
		}
	}
	k.mu.RUnlock()
	for _, h := range due {
		at := h.lastUse.Load()
		if err := k.store.UseKey(ctx, h.ID, time.Unix(0, at).UTC().Truncate(time.Microsecond)); err != nil {
			if ctx.Err() == nil {
				k.log.WarnContext(ctx, "cannot note that an API key was used", "principal", h.Name, "error", err)
			}
			return
		}
		h.lastNoted = at
	}
}
