package access

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// An API key's token:
//
//	txk_ 4f7k2mzq9xab _ 43 characters     6 characters
//	     id, 60 bits    secret, 256 bits  checksum of all before it
//
// The prefix lets scanners for leaked secrets find it. The id is no secret: it
// finds the key. The checksum keeps nobody out; it tells a token that was cut off
// or mistyped from one that is not known, without asking what is known.
const (
	keyPrefix   = "txk_"
	idLength    = 12
	secretBytes = 32
	sumLength   = 6
	keyLength   = len(keyPrefix) + idLength + 1 + 43 + sumLength
)

// newToken gives a new API key's token and its id.
func newToken() (token, id string) {
	// rand.Text has 26 characters of 5 random bits each, and never fails.
	id = strings.ToLower(rand.Text()[:idLength])
	b := make([]byte, secretBytes)
	rand.Read(b)
	body := keyPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(b)
	return body + checksum(body), id
}

// checksum gives six characters that stand for s.
func checksum(s string) string {
	b := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s)))
	return base64.RawURLEncoding.EncodeToString(b)
}

// idOf gives the id in an API key's token; ok is false for one that was not copied
// whole.
func idOf(token string) (id string, ok bool) {
	if len(token) != keyLength || !strings.HasPrefix(token, keyPrefix) {
		return "", false
	}
	if body := token[:keyLength-sumLength]; checksum(body) != token[keyLength-sumLength:] {
		return "", false
	}
	return token[len(keyPrefix) : len(keyPrefix)+idLength], true
}

// form is what a token looks like.
type form int

const (
	formNone  form = iota // there is none
	formKey               // an API key, perhaps not a whole one
	formJWT               // three parts of base64url
	formOther             // the administrator's
)

// formOf tells the form of a token, and nothing about whether it is good. It is
// never formOther for what begins like an API key, so that half a key is told as
// such.
func formOf(token string) form {
	switch {
	case token == "":
		return formNone
	case strings.HasPrefix(token, keyPrefix):
		return formKey
	}
	dots := 0
	for i := range len(token) {
		switch c := token[i]; {
		case c == '.':
			dots++
		case !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'):
			return formOther
		}
	}
	// With an empty third part too: a token that was never signed is a bad JWT.
	if dots == 2 {
		return formJWT
	}
	return formOther
}
