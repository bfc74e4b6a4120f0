package config

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/telexec/telexec/internal/secret"
)

// Some settings name files whose content is the setting: secrets, keys, values
// to mask. They are read here, once, so that nothing is found wrong later.

// Bounds of such files.
const (
	secretLimit = 64 << 10 // bytes of a secret
	keyLimit    = 1 << 20  // bytes of public keys and certificates
	valuesLimit = 1 << 20  // bytes of all values to mask
	valueMin    = 4        // bytes of one; shorter ones would be found everywhere
	valueMax    = 4096
	hs256Min    = 32 // bytes of a secret for HS256, RFC 7518 section 3.2
)

// read reads the file that the setting key names. Everybody may read one that is
// not private, but nobody may write either.
func (l *loader) read(path, key string, limit int64, private bool) ([]byte, bool) {
	at, forbidden, may, bits := l.from[key], fs.FileMode(0o002), "write", "w"
	if private {
		forbidden, may, bits = 0o006, "read or write", "rw"
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		l.problem(at, key, "%s cannot be read: %v", path, cause(err))
		return nil, false
	case !info.Mode().IsRegular() || info.Size() > limit:
		l.problem(at, key, "%s is not a file of at most %d bytes", path, limit)
		return nil, false
	case info.Mode().Perm()&forbidden != 0:
		l.problem(at, key, "anybody may %s %s (mode %04o); run: chmod o-%s %s", may, path, info.Mode().Perm(), bits, path)
		return nil, false
	}
	data, err := os.ReadFile(path)
	if err != nil {
		l.problem(at, key, "%s cannot be read: %v", path, cause(err))
		return nil, false
	}
	if len(bytes.TrimRight(data, "\r\n")) == 0 {
		l.problem(at, key, "%s is empty", path)
		return nil, false
	}
	return data, true
}

// secret reads a secret from its file, without the line break at its end.
func (l *loader) secret(s *secret.Text, path, key string) {
	if path == "" {
		return
	}
	fileKey := key + "_file"
	if !s.IsZero() {
		l.problem(l.from[fileKey], fileKey, "is set beside %s; only one of them can be", key[strings.LastIndexByte(key, '.')+1:])
		return
	}
	if data, ok := l.read(path, fileKey, secretLimit, true); ok {
		*s = secret.New(string(bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))))
	}
}

// jwtKey reads what the tokens of an issuer are checked with.
func (l *loader) jwtKey(j *JWT, key string) {
	var given []string
	for _, name := range []string{"secret_file", "public_key_file", "jwks_url"} {
		if l.tried(key + "." + name) {
			given = append(given, name)
		}
	}
	switch len(given) {
	case 0:
		l.problem(l.from[key], key, "one of secret_file, public_key_file and jwks_url is missing")
	case 1:
	default:
		l.problem(l.from[key+"."+given[1]], key+"."+given[1], "is set beside %s; only one of them can be", given[0])
		return
	}
	l.secret(&j.Secret, j.SecretFile, key+".secret")
	if n := len(j.Secret.Reveal()); n > 0 && n < hs256Min {
		l.problem(l.from[key+".secret_file"], key+".secret_file", "the secret in %s has %d bytes; HS256 needs at least %d", j.SecretFile, n, hs256Min)
	}
	if j.PublicKeyFile == "" {
		return
	}
	fileKey := key + ".public_key_file"
	data, ok := l.read(j.PublicKeyFile, fileKey, keyLimit, false)
	if !ok {
		return
	}
	switch block, _ := pem.Decode(data); {
	case block == nil:
		l.problem(l.from[fileKey], fileKey, "%s holds no key in PEM (-----BEGIN PUBLIC KEY-----)", j.PublicKeyFile)
	case strings.Contains(block.Type, "PRIVATE"):
		l.problem(l.from[fileKey], fileKey, "%s holds a private key, which belongs to the issuer alone; write the public one", j.PublicKeyFile)
	default:
		j.PublicKey = data
	}
}

// redaction reads the values to mask. A problem tells the line of a value, never
// the value.
func (l *loader) redaction() {
	const key = "redaction.values_file"
	r := &l.cfg.Redaction
	if r.ValuesFile == "" {
		return
	}
	data, ok := l.read(r.ValuesFile, key, valuesLimit, true)
	if !ok {
		return
	}
	seen := make(map[string]bool)
	number := 0
	for line := range bytes.Lines(data) {
		number++
		value := string(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")))
		if value == "" || seen[value] {
			continue
		}
		seen[value] = true
		at := source{r.ValuesFile, number}
		switch {
		case len(value) < valueMin || len(value) > valueMax:
			l.problem(at, key, "a value of %d bytes; write one of %d to %d bytes in a line", len(value), valueMin, valueMax)
		case strings.TrimSpace(value) != value:
			l.problem(at, key, "a value that begins or ends with white space; write it without, and the rest of it is masked")
		default:
			r.Values = append(r.Values, secret.New(value))
		}
	}
}

// cause takes the operation and path off a file error; the message has them.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
