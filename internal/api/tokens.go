package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/secret"
)

// Tokens makes API keys and takes them back. Methods may be called concurrently.
type Tokens interface {
	// Create makes a key and gives its token, which is nowhere kept.
	Create(ctx context.Context, by access.Caller, r access.KeyRequest) (secret.Text, access.Key, error)
	// Revoke takes the key of the principal of that name back, or UNKNOWN_TOKEN.
	Revoke(ctx context.Context, by access.Caller, name string) (access.Key, error)
	// List gives keys in their order.
	List(f access.KeyFilter) []access.Key
}

// CreateToken is of AdminService.
func (a *Admin) CreateToken(ctx context.Context, r *telexecv1.CreateTokenRequest) (*telexecv1.CreateTokenResponse, error) {
	request := access.KeyRequest{Name: r.GetPrincipal(), Limits: limitsFromProto(r.GetLimits())}
	for _, role := range r.GetRoles() {
		request.Roles = append(request.Roles, access.Role(role))
	}
	if r.GetLifetime() != nil {
		request.Expires = time.Now().Add(r.GetLifetime().AsDuration())
	}
	token, key, err := a.tokens.Create(ctx, caller(ctx), request)
	if err != nil {
		return nil, err
	}
	return &telexecv1.CreateTokenResponse{Secret: token.Reveal(), Token: tokenToProto(key)}, nil
}

// ListTokens is of AdminService.
func (a *Admin) ListTokens(ctx context.Context, r *telexecv1.ListTokensRequest) (*telexecv1.ListTokensResponse, error) {
	if err := a.may(ctx); err != nil {
		return nil, err
	}
	unpaged := &telexecv1.ListTokensRequest{IncludeInactive: r.GetIncludeInactive()}
	cursor, err := pageCursor(unpaged, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := pageSize(r.GetPageSize())
	f := access.KeyFilter{Inactive: r.GetIncludeInactive(), Limit: size + 1}
	if cursor != "" {
		if f.After, err = keyAt(cursor); err != nil {
			return nil, err
		}
	}
	page := &telexecv1.ListTokensResponse{}
	for i, key := range a.tokens.List(f) {
		if i == size {
			page.NextPageToken = pageToken(unpaged, keyCursor(f.After))
			break
		}
		page.Tokens = append(page.Tokens, tokenToProto(key))
		f.After = key
	}
	return page, nil
}

// keyCursor gives the place of a key in the list: its name, when it was made in
// Unix microseconds, and its id, none of which has a colon.
func keyCursor(k access.Key) string {
	return fmt.Sprintf("%s:%d:%s", k.Name, k.CreateTime.UnixMicro(), k.ID)
}

// keyAt gives as much of the key as a cursor tells.
func keyAt(cursor string) (access.Key, error) {
	parts := strings.Split(cursor, ":")
	if len(parts) != 3 {
		return access.Key{}, badPageToken() // the seal is no secret
	}
	made, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return access.Key{}, badPageToken()
	}
	return access.Key{Name: parts[0], CreateTime: time.UnixMicro(made), ID: parts[2]}, nil
}

// RevokeToken is of AdminService.
func (a *Admin) RevokeToken(ctx context.Context, r *telexecv1.RevokeTokenRequest) (*telexecv1.RevokeTokenResponse, error) {
	key, err := a.tokens.Revoke(ctx, caller(ctx), r.GetPrincipal())
	if err != nil {
		return nil, err
	}
	return &telexecv1.RevokeTokenResponse{Token: tokenToProto(key)}, nil
}
