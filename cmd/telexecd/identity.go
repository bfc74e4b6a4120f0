package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/config"
)

// identity is who may call, and how much, as it is configured.
type identity struct {
	doors   access.Authenticators
	keys    *access.Keys
	issuers *access.Issuers
	rights  *access.Rights
	limiter *access.Limiter
}

// newIdentity makes what the configuration alone says. It opens nothing and calls
// nobody.
func newIdentity(cfg config.Config, log *slog.Logger) (who *identity, err error) {
	who = &identity{limiter: access.NewLimiter(access.Settings{
		Principal: access.Limits{
			Start: cfg.RateLimits.Principal.Start, Read: cfg.RateLimits.Principal.Read, List: cfg.RateLimits.Principal.List,
			Stream: cfg.RateLimits.Principal.Stream, Streams: cfg.RateLimits.Principal.Streams,
		},
		Address: access.Limits{
			Start: cfg.RateLimits.Address.Start, Read: cfg.RateLimits.Address.Read, List: cfg.RateLimits.Address.List,
			Stream: cfg.RateLimits.Address.Stream,
		},
		FailuresPerAddress: cfg.RateLimits.Address.Failures,
	})}
	var issuers []access.Issuer
	for _, j := range cfg.Auth.JWT {
		issuers = append(issuers, access.Issuer{
			Name: j.Name, Issuer: j.Issuer, Audience: j.Audience,
			Secret: j.Secret, PublicKey: j.PublicKey, JWKS: j.JWKSURL,
			Skew: j.ClockSkew, PrincipalClaim: j.PrincipalClaim, RolesClaim: j.RolesClaim, Roles: rolesOf(j.Roles),
		})
	}
	if who.issuers, err = access.NewIssuers(issuers, log); err != nil {
		return nil, err
	}
	if len(issuers) > 0 {
		who.doors.Issuers = who.issuers
	}
	if len(cfg.Auth.ClientCertificates.Roles) > 0 {
		if who.doors.Clients, err = access.NewClients(rolesOf(cfg.Auth.ClientCertificates.Roles)); err != nil {
			return nil, err
		}
	}
	who.rights, err = newRights(cfg)
	return who, err
}

// openIdentity adds what is kept: the administrator's token and the API keys.
func openIdentity(ctx context.Context, cfg config.Config, kept access.KeyStore, log *slog.Logger) (*identity, error) {
	who, err := newIdentity(cfg, log)
	if err != nil {
		return nil, err
	}
	if who.doors.Admin, err = access.OpenAdmin(cfg.Auth.AdminTokenFile); err != nil {
		return nil, err
	}
	if who.keys, err = access.OpenKeys(ctx, kept, log); err != nil {
		return nil, err
	}
	who.doors.Keys = who.keys
	return who, nil
}

func newRights(cfg config.Config) (*access.Rights, error) {
	var wider []access.Wider
	for _, w := range cfg.Auth.Wider {
		wider = append(wider, access.Wider{Roles: roles(w.Roles), Hosts: w.Hosts, Labels: w.Labels})
	}
	return access.NewRights(wider, roles(cfg.Sessions.TypingRoles)...)
}

func roles(names []string) []access.Role {
	list := make([]access.Role, len(names))
	for i, name := range names {
		list[i] = access.Role(name)
	}
	return list
}

func rolesOf(names map[string][]string) map[string][]access.Role {
	of := make(map[string][]access.Role, len(names))
	for name, list := range names {
		of[name] = roles(list)
	}
	return of
}

// readCertificates reads the authorities of clients' certificates.
func readCertificates(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls.client_ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.client_ca_file %s holds no certificate in PEM", file)
	}
	return pool, nil
}
