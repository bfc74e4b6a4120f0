package api

import (
	"context"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/secret"
)

// Tokens makes API keys and takes them back. Methods may be called concurrently.
type Tokens interface {
	// Create makes a key and gives its token, which is nowhere kept.
	Create(ctx context.Context, by access.Caller, r access.KeyRequest) (secret.Text, access.Key, error)
	// Revoke takes the key of that name back, or UNKNOWN_TOKEN.
	Revoke(ctx context.Context, by access.Caller, name string) (access.Key, error)
	// List gives all keys, by name.
	List() []access.Key
}

// CreateToken is of AdminService.
func (a *Admin) CreateToken(ctx context.Context, r *telexecv1.CreateTokenRequest) (*telexecv1.CreateTokenResponse, error) {
	request := access.KeyRequest{Name: r.GetToken(), Limits: limitsFromProto(r.GetLimits())}
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
func (a *Admin) ListTokens(ctx context.Context, _ *telexecv1.ListTokensRequest) (*telexecv1.ListTokensResponse, error) {
	if err := a.may(ctx); err != nil {
		return nil, err
	}
	answer := &telexecv1.ListTokensResponse{}
	for _, key := range a.tokens.List() {
		answer.Tokens = append(answer.Tokens, tokenToProto(key))
	}
	return answer, nil
}

// RevokeToken is of AdminService.
func (a *Admin) RevokeToken(ctx context.Context, r *telexecv1.RevokeTokenRequest) (*telexecv1.RevokeTokenResponse, error) {
	key, err := a.tokens.Revoke(ctx, caller(ctx), r.GetToken())
	if err != nil {
		return nil, err
	}
	return &telexecv1.RevokeTokenResponse{Token: tokenToProto(key)}, nil
}
