package rpcserver

import (
	"context"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
)

// drawer is a store that keeps a key for as long as nobody asks for it.
type drawer struct{ access.KeyStore }

func (drawer) Keys(context.Context) ([]access.Key, error)            { return nil, nil }
func (drawer) AddKey(context.Context, access.Key, audit.Entry) error { return nil }

// BenchmarkWhileValid is what it costs a short call that its credentials can end.
func BenchmarkWhileValid(b *testing.B) {
	keys, err := access.OpenKeys(b.Context(), drawer{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	root := access.Caller{Principal: access.Principal{Name: "root", Roles: []access.Role{access.RoleAdmin}}}
	_, key, err := keys.Create(b.Context(), root, access.KeyRequest{Name: "ci", Roles: []access.Role{access.RoleViewer}})
	if err != nil {
		b.Fatal(err)
	}
	step := whileValid(keys)
	for name, p := range map[string]access.Principal{
		"key":          {Name: "ci", Key: key.ID},
		"key expiring": {Name: "ci", Key: key.ID, Expiry: time.Now().Add(time.Hour)},
		"jwt":          {Name: "ci", Expiry: time.Now().Add(time.Hour)},
		"admin":        {Name: "admin"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			// As in gRPC: the context of a call can end.
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			c := &call{caller: access.Caller{Principal: p}}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := step(ctx, c, func(context.Context) error { return nil }); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
