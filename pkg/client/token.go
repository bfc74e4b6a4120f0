package client

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// maxPage is the most that a page can be asked to hold.
const maxPage = 1000

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

// CreateToken makes an API key. Its token is in the answer and nowhere else, so
// that the call is not made again where it may have arrived. An error then says so
// in its hint: there may be a key of that name whose token nobody has; revoke it
// and make another. Only an admin may.
func (c *Client) CreateToken(ctx context.Context, req *telexecv1.CreateTokenRequest) (*telexecv1.CreateTokenResponse, error) {
	resp, err := call(ctx, c, false, c.admin.CreateToken, req)
	if e, ok := asError(err); ok && e.doubt && (e.leavesOpen() || e.temporary() || e.Reason == reasonTokenNameTaken) {
		return nil, e.inDoubt("The key %[1]s may have been made, and its token is lost with the answer: if it is listed, revoke %[1]s and make another", req.GetPrincipal())
	}
	return resp, err
}

// ListTokens gives the API keys that match req by the name of their principals,
// without their tokens, over all pages; as ListCommands. Only an admin may.
func (c *Client) ListTokens(ctx context.Context, req *telexecv1.ListTokensRequest) iter.Seq2[*telexecv1.Token, error] {
	req = proto.CloneOf(req)
	return pages(func(token string) ([]*telexecv1.Token, string, error) {
		if token != "" {
			req.PageToken = token
		}
		resp, err := c.ListTokensPage(ctx, req)
		return resp.GetTokens(), resp.GetNextPageToken(), err
	})
}

// ListTokensPage gives one page, for callers that page themselves.
func (c *Client) ListTokensPage(ctx context.Context, req *telexecv1.ListTokensRequest) (*telexecv1.ListTokensResponse, error) {
	return call(ctx, c, true, c.admin.ListTokens, req)
}

// RevokeToken takes the API key of the principal of that name back, at once. A lost answer is asked
// for again: a key that the first attempt has revoked is no error. Only an admin
// may.
func (c *Client) RevokeToken(ctx context.Context, principal string) (*telexecv1.Token, error) {
	resp, err := call(ctx, c, true, c.admin.RevokeToken, &telexecv1.RevokeTokenRequest{Principal: principal})
	if e, ok := asError(err); ok && e.doubt && e.Reason == reasonUnknownToken {
		if was := c.lastRevoked(ctx, principal); was != nil {
			return was, nil
		}
	}
	return resp.GetToken(), err
}

// lastRevoked gives the key of that principal that was revoked last, or nil.
func (c *Client) lastRevoked(ctx context.Context, principal string) (last *telexecv1.Token) {
	for t, err := range c.ListTokens(ctx, &telexecv1.ListTokensRequest{PageSize: maxPage, IncludeInactive: true}) {
		if err != nil {
			return nil
		}
		if t.GetPrincipal() == principal && t.GetRevokeTime() != nil &&
			(last == nil || t.GetRevokeTime().AsTime().After(last.GetRevokeTime().AsTime())) {
			last = t
		}
	}
	return last
}
