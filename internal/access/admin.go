package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/telexec/telexec/internal/secret"
)

// tokenBytes is how much randomness a token holds: more than anybody guesses.
const tokenBytes = 32

// adminName is the administrator's name, which nobody else may have.
const adminName = "admin"

// adminRoles is shared by all calls of the administrator; nobody changes it.
var adminRoles = []Role{RoleAdmin}

// Admin authenticates the one administrator. Only a hash of the token is held,
// and hashes are compared in constant time, so that neither a core dump nor a
// stopwatch gives it away.
type Admin struct {
	hash [sha256.Size]byte
}

// OpenAdmin reads the administrator's token from a file, or makes the file where
// there is none, in a directory that must exist. The file has mode 0600; one that
// others can read is refused, because its token must count as known to them.
func OpenAdmin(file string) (*Admin, error) {
	token, err := readToken(file)
	if errors.Is(err, fs.ErrNotExist) {
		token, err = makeToken(file)
	}
	if err != nil {
		return nil, err
	}
	return NewAdmin(token), nil
}

// NewAdmin authenticates the holder of the token.
func NewAdmin(token secret.Text) *Admin {
	return &Admin{hash: sha256.Sum256([]byte(token.Reveal()))}
}

// Authenticate is of Authenticator.
func (a *Admin) Authenticate(_ context.Context, shown Credentials) (Principal, error) {
	if shown.Token.IsZero() {
		return Principal{}, noCredentials()
	}
	got := sha256.Sum256([]byte(shown.Token.Reveal()))
	if subtle.ConstantTimeCompare(got[:], a.hash[:]) != 1 {
		return Principal{}, badCredentials("not the administrator's token")
	}
	return Principal{Name: adminName, Roles: adminRoles}, nil
}

func readToken(path string) (secret.Text, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Text{}, fmt.Errorf("the administrator's token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return secret.Text{}, fmt.Errorf("the administrator's token: %w", err)
	}
	if !info.Mode().IsRegular() {
		return secret.Text{}, fmt.Errorf("the administrator's token %s is not a regular file; remove it, the next start makes a new one", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return secret.Text{}, fmt.Errorf("the administrator's token %s has mode %04o, so others can read it; remove it, the next start makes a new one", path, mode)
	}
	// A token is one short line; whatever is longer is another file.
	b := make([]byte, 512)
	n, err := f.Read(b)
	token := strings.TrimSpace(string(b[:n]))
	if err != nil || len(token) < 2*tokenBytes || n == len(b) {
		return secret.Text{}, fmt.Errorf("the administrator's token %s is damaged; remove it, the next start makes a new one", path)
	}
	if formOf(token) != formOther {
		return secret.Text{}, fmt.Errorf("the administrator's token %s looks like an API key or a JWT and would be taken for one; put another in, or remove it, the next start makes a new one", path)
	}
	return secret.New(token), nil
}

// makeToken writes a new token. It is written whole before it appears under its
// name, so that a crash leaves no half a token, and Link refuses to replace one
// that another process has made meanwhile.
func makeToken(path string) (secret.Text, error) {
	b := make([]byte, tokenBytes)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	token := hex.EncodeToString(b)

	draft := path + "." + rand.Text()
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return secret.Text{}, fmt.Errorf("cannot write the administrator's token: %w", err)
	}
	defer os.Remove(draft)
	_, err = f.WriteString(token + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(draft, path)
	}
	if errors.Is(err, fs.ErrExist) {
		return readToken(path)
	}
	if err != nil {
		return secret.Text{}, fmt.Errorf("cannot write the administrator's token: %w", err)
	}
	return secret.New(token), nil
}
