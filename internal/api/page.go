package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"

	"google.golang.org/protobuf/proto"

	"github.com/telexec/telexec/internal/fault"
)

// A page token is opaque to callers:
//
//	base64url( version, 1 byte | seal, 12 bytes | cursor )
//
// The seal is a hash over the version, the filter and the cursor, so a token
// that was changed, cut, or given to a list with another filter is refused
// instead of giving a wrong page. It is no secret: what a cursor selects, its
// caller may see anyway.
const (
	pageVersion = 1
	sealBytes   = 12
	// defaultPage is the page size where the caller gives none.
	defaultPage = 50
)

// pageToken makes the token for what follows the cursor in the list with this
// filter: the request without its page.
func pageToken(filter proto.Message, cursor string) string {
	b := append([]byte{pageVersion}, seal(filter, cursor)...)
	return base64.RawURLEncoding.EncodeToString(append(b, cursor...))
}

// pageCursor gives the cursor of a token; empty for the empty token, the first
// page.
func pageCursor(filter proto.Message, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err == nil && len(b) > 1+sealBytes && b[0] == pageVersion {
		cursor := string(b[1+sealBytes:])
		if subtle.ConstantTimeCompare(b[1:1+sealBytes], seal(filter, cursor)) == 1 {
			return cursor, nil
		}
	}
	return "", badPageToken()
}

func badPageToken() error {
	return fault.New(fault.Invalid, fault.ReasonBadPageToken, "the page token does not belong to this list").
		WithHint("Give next_page_token unchanged, with the same filter; begin again without a token")
}

func seal(filter proto.Message, cursor string) []byte {
	h := sha256.New()
	h.Write([]byte{pageVersion})
	h.Write([]byte(filter.ProtoReflect().Descriptor().FullName()))
	// Both sides are made by the same program, or the token is refused; that
	// deterministic encodings may differ between programs does no harm.
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(filter)
	if err != nil { // invalid UTF-8, which cannot have come over the wire
		b = []byte(err.Error())
	}
	h.Write([]byte{0, byte(len(cursor) >> 8), byte(len(cursor))})
	h.Write([]byte(cursor))
	h.Write(b)
	return h.Sum(nil)[:sealBytes]
}

// pageSize gives how many are asked for.
func pageSize(asked int32) int {
	if asked == 0 {
		return defaultPage
	}
	return int(asked)
}
