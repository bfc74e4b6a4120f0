// Package seal keeps values at rest that only this service can read: the
// environment and standard input of commands that wait, what a browser proves
// itself with. The store holds them sealed; the key is one small file beside it.
//
//	file ── OpenKey ─▶ Key ─┬─ Seal, Open   what only this service may read
//	                        └─ Tag, Check   what only this service may write
//
// A sealed value is one byte of version, a random nonce of 96 bits, and the
// value encrypted and authenticated by AES-256-GCM. Its key is derived from the
// one in the file (HKDF, RFC 5869, with SHA-256) for a purpose, the caller's
// word for what kind of value it is, and for what the value is bound to, the
// place where it is stored. So a value that was moved to another row, or is
// taken for another kind of value, does not open.
//
// GCM with random nonces is sound for 2³² values under one key (NIST SP 800-38D,
// 8.3). Since the key is derived for purpose and bound, that counts the values
// sealed for one place: a row of the store takes a few. A caller that binds
// nothing has 2³² values per purpose for the life of the key file.
//
// Losing the key loses what is sealed, and nothing else: commands, their output
// and their history are not.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

const (
	// KeySize is the size of a key in bytes.
	KeySize = 32
	// Overhead is how many bytes a sealed value has more than what is in it: the
	// version, the nonce and GCM's tag.
	Overhead = 1 + 12 + 16
	// TagSize is the size of a tag in bytes.
	TagSize = sha256.Size

	// version is the first byte of what is sealed now.
	version = 1
)

// Key seals and opens, and makes and checks tags. It never changes, so all its
// methods may be called concurrently. However it is printed, logged or encoded,
// nothing of it shows.
type Key struct {
	master secret.Text // which does not show even where package fmt prints others' fields
}

// NewKey makes a key of KeySize random bytes; it panics for another number of
// them. Outside of tests, OpenKey is the way to one.
func NewKey(random []byte) *Key {
	if len(random) != KeySize {
		panic("seal: a key has 32 bytes")
	}
	return &Key{master: secret.New(string(random))}
}

// Seal encrypts plain for a purpose and binds it to bound, the name of the place
// where it will lie, such as a command's id; Open must be told the same two.
// Neither is part of what Seal gives. It takes what fits into memory; GCM's own
// limit is 64 GiB.
func (k *Key) Seal(purpose string, plain, bound []byte) []byte {
	sealed := make([]byte, 1, len(plain)+Overhead)
	sealed[0] = version
	return k.aead(purpose, bound).Seal(sealed, nil, plain, bound)
}

// Open gives what was sealed for this purpose and bound to this place. Whatever
// is not that (of another key, purpose or place, changed, cut short) is a
// fault.DataLoss with reason SEAL_BROKEN.
func (k *Key) Open(purpose string, sealed, bound []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, broken(errors.New("too short"), purpose)
	}
	if sealed[0] != version {
		return nil, broken(errors.New("unknown version"), purpose)
	}
	plain, err := k.aead(purpose, bound).Open(nil, nil, sealed[1:], bound)
	if err != nil {
		return nil, broken(err, purpose)
	}
	return plain, nil
}

func broken(err error, purpose string) error {
	return fault.Wrap(err, fault.DataLoss, fault.ReasonSealBroken, "a sealed value (%s) cannot be opened: it was sealed with another key or for another place, or it is damaged", purpose).
		WithHint("If the service's key file was replaced, put the one back that belongs to this data directory; else send the command again, or log in again").
		WithOp("seal.open")
}

// Tag gives the HMAC-SHA-256 of data (RFC 2104) under a key derived for the
// purpose, TagSize bytes: proof that this service has seen data for it.
func (k *Key) Tag(purpose string, data []byte) []byte {
	h := hmac.New(sha256.New, k.derive("tag", purpose, nil))
	h.Write(data)
	return h.Sum(nil)
}

// Check reports whether tag is data's for this purpose. How long it takes tells
// nothing about the right one.
func (k *Key) Check(purpose string, data, tag []byte) bool {
	return hmac.Equal(k.Tag(purpose, data), tag)
}

func (k *Key) aead(purpose string, bound []byte) cipher.AEAD {
	block, err := aes.NewCipher(k.derive("seal", purpose, bound))
	if err != nil {
		panic(err) // a key of 32 bytes is one of AES-256
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // every AES cipher has a GCM
	}
	return aead
}

// derive gives the key for one use. The length of the purpose stands in front of
// it, so that no other purpose and bound read the same.
func (k *Key) derive(use, purpose string, bound []byte) []byte {
	info := append([]byte("telexec "), use...)
	info = append(info, 0, version)
	info = binary.BigEndian.AppendUint64(info, uint64(len(purpose)))
	info = append(info, purpose...)
	info = append(info, bound...)
	key, err := hkdf.Key(sha256.New, []byte(k.master.Reveal()), nil, string(info), KeySize)
	if err != nil {
		panic(err) // HKDF with SHA-256 gives up to 8,160 bytes
	}
	return key
}
