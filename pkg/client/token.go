package client

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tokenKey is that of the Token in a call's context.
type tokenKey struct{}

// WithToken gives a context whose calls carry token in place of Options.Token;
// an empty one: none at all. It is for a program that calls on behalf of many,
// each with his own token, over one Client. A call keeps it when it is tried
// again, and a stream when it resumes.
func WithToken(ctx context.Context, token Token) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// FindToken gives the token for server, as in Options.Server, where the user has
// not said which: TELEXEC_TOKEN; else, for a service on this machine, the one in
// admin.token, which the first start of telexecd leaves in the data directory of
// its user. It is empty, without an error, where there is neither: the service
// will tell. The error is a file that is there and cannot be read, as another
// user's, which fs.ErrPermission matches. getenv is os.Getenv, or what stands in
// for it.
func FindToken(server string, getenv func(string) string) (Token, error) {
	if t := getenv("TELEXEC_TOKEN"); t != "" {
		return Token(t), nil
	}
	if !Loopback(server) {
		return "", nil // the token of this machine's service is nobody else's business
	}
	b, err := os.ReadFile(filepath.Join(dataDir(getenv), "admin.token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return Token(strings.TrimSpace(string(b))), nil
}

// dataDir is where a telexecd of this user keeps its data.
func dataDir(getenv func(string) string) string {
	if dir := getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "telexec")
	}
	return filepath.Join(getenv("HOME"), ".local", "state", "telexec")
}
