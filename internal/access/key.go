package access

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/telexec/telexec/internal/audit"
)

// Key is an API key as it is kept: of the token itself only the hash is. The
// token has 256 random bits, so that nobody finds one to a hash.
type Key struct {
	ID         string // short, random; part of the token, and shown
	Name       string // the principal's name; unique among keys that are not revoked
	Hash       [sha256.Size]byte
	Roles      []Role
	Limits     Limits
	CreatedBy  string // principal
	CreateTime time.Time
	ExpireTime time.Time // zero: never
	RevokeTime time.Time // zero: not revoked
	LastUse    time.Time // zero: never; to about an hour
}

// KeyStore keeps API keys. Every write is durable, with its audit entry, when it
// returns nil.
type KeyStore interface {
	// AddKey stores a new key; TOKEN_NAME_TAKEN where one that is not revoked has
	// its name.
	AddKey(ctx context.Context, k Key, told audit.Entry) error
	// RevokeKey sets the revoke time of the key of that name which is not revoked,
	// and gives it; UNKNOWN_TOKEN where there is none.
	RevokeKey(ctx context.Context, name string, at time.Time, told audit.Entry) (Key, error)
	// UseKey notes when the key with that id was used.
	UseKey(ctx context.Context, id string, at time.Time) error
	// Keys gives all keys, revoked ones too, by name and then by creation.
	Keys(ctx context.Context) ([]Key, error)
}

// Limits bound the calls of one principal. A zero field is the service's limit.
type Limits struct {
	Start   float64 // Execute and other calls that begin something, per second
	Read    float64 // calls that ask and act on what runs, per second
	List    float64 // lists, per second
	Stream  float64 // new streams, per second
	Streams int     // open streams at once
}
