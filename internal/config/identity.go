package config

import (
	"fmt"
	"time"

	"github.com/telexec/telexec/internal/secret"
)

// Auth is about who may call, besides those who show an API key.
type Auth struct {
	// File with the administrator's token; made with mode 0600 at the first start.
	AdminTokenFile string `yaml:"admin_token_file" kind:"path" auto:"admin.token in data_dir"`
	// Whose JSON Web Tokens are taken, see below.
	JWT                []JWT              `yaml:"jwt"`
	ClientCertificates ClientCertificates `yaml:"client_certificates"`
	// Who sees and touches the commands of others, see below.
	Wider []Wider `yaml:"wider"`
}

// JWT is an issuer of JSON Web Tokens. Exactly one of SecretFile, PublicKeyFile
// and JWKSURL is set; it says how the tokens are signed.
type JWT struct {
	// Stands in the names of its principals, jwt:NAME:…; unique. Up to 32 small letters, digits and -.
	Name string `yaml:"name" kind:"issuerName"`
	// What the claim iss must be, to the letter; unique.
	Issuer string `yaml:"issuer" kind:"word"`
	// What the claim aud must be, or have among others.
	Audience string `yaml:"audience" kind:"word"`
	// File with the secret of tokens signed by HS256, 32 bytes or more. One of this, public_key_file and jwks_url is needed.
	SecretFile string `yaml:"secret_file" kind:"path"`
	// File with the public key, in PEM, of tokens signed by RS256 or ES256.
	PublicKeyFile string `yaml:"public_key_file" kind:"path"`
	// Where the issuer publishes its public keys: https, or http on loopback.
	JWKSURL string `yaml:"jwks_url" kind:"jwksURL"`
	// How far the issuer's clock and this machine's may differ.
	ClockSkew time.Duration `yaml:"clock_skew" default:"1m" max:"10m"`
	// Claim that names who asks.
	PrincipalClaim string `yaml:"principal_claim" default:"sub" kind:"word"`
	// Claim with the words that are looked up in roles: a list, or a text with blanks between them; its name, or a path with dots.
	RolesClaim string `yaml:"roles_claim" default:"roles" kind:"word"`
	// Word in the roles claim → the roles that it gives. Who has none of the words has no role.
	Roles map[string][]string `yaml:"roles" enum:"viewer|operator|approver|admin" empty:"no"`

	// Secret is what SecretFile holds.
	Secret secret.Text `yaml:"-" of:"secret_file"`
	// PublicKey is what PublicKeyFile holds: PEM.
	PublicKey []byte `yaml:"-" of:"public_key_file"`
}

// ClientCertificates is about callers that show a certificate of TLS.ClientCAFile.
type ClientCertificates struct {
	// Name in a client's certificate, or *. and the rest of one → roles; needs tls.client_ca_file.
	Roles map[string][]string `yaml:"roles" enum:"viewer|operator|approver|admin" empty:"no"`
}

// Wider lets holders of roles see and touch everybody's commands on some hosts.
type Wider struct {
	// Who holds one of these roles.
	Roles []string `yaml:"roles" enum:"viewer|operator|approver|admin" empty:"no"`
	// Patterns of the hosts' names, one of which must match: * is any text, ? one character, [a-c] one of some. hosts or labels is needed; with both, both must hold.
	Hosts []string `yaml:"hosts" kind:"glob" empty:"no"`
	// Labels of the host, with their values; it must have all.
	Labels map[string]string `yaml:"labels" empty:"no"`
}

// RateLimits bounds the calls of one caller.
type RateLimits struct {
	Principal PrincipalRates `yaml:"principal"`
	Address   AddressRates   `yaml:"address"`
}

// PrincipalRates are the limits of one principal whose API key says nothing else:
// calls per second.
type PrincipalRates struct {
	// Commands started per second by one principal; 0: no limit.
	Start float64 `yaml:"start" default:"200" max:"1000000"`
	// Calls per second of one principal that ask, or act on what runs; 0: no limit.
	Read float64 `yaml:"read" default:"1000" max:"1000000"`
	// Lists per second of one principal; 0: no limit.
	List float64 `yaml:"list" default:"100" max:"1000000"`
	// Streams opened per second by one principal; 0: no limit.
	Stream float64 `yaml:"stream" default:"200" max:"1000000"`
	// Open streams and waiting calls of one principal at once; 0: no limit.
	Streams int `yaml:"streams" default:"1000" min:"0" max:"1000000"`
}

// AddressRates are the limits of one IP address, whoever calls from there: calls
// per second.
type AddressRates struct {
	// Commands started per second from one address; 0: no limit.
	Start float64 `yaml:"start" default:"400" max:"1000000"`
	// Calls per second from one address that ask, or act on what runs; 0: no limit.
	Read float64 `yaml:"read" default:"2000" max:"1000000"`
	// Lists per second from one address; 0: no limit.
	List float64 `yaml:"list" default:"200" max:"1000000"`
	// Streams opened per second from one address; 0: no limit.
	Stream float64 `yaml:"stream" default:"400" max:"1000000"`
	// Calls per second from one address whose credentials are refused, and twenty times as many that show none; 0: no limit.
	Failures float64 `yaml:"failures" default:"5" max:"1000000"`
}

// auth checks who may call and reads the keys that tokens are checked with.
func (l *loader) auth() {
	c := &l.cfg
	if c.TLS.ClientCAFile != "" && !c.TLS.Enabled() {
		l.problem(l.from["tls.client_ca_file"], "tls.client_ca_file", "tls.cert_file and tls.key_file are missing; certificates of clients need TLS")
	}
	if key := "auth.client_certificates.roles"; len(c.Auth.ClientCertificates.Roles) > 0 && c.TLS.ClientCAFile == "" {
		l.problem(l.from[key], key, "tls.client_ca_file is missing; without it no client is asked for a certificate")
	}
	if c.TLS.ClientCAFile != "" {
		l.read(c.TLS.ClientCAFile, "tls.client_ca_file", keyLimit, false)
	}
	first, issuers := make(map[string]string), make(map[string]string)
	for i := range c.Auth.JWT {
		j, key := &c.Auth.JWT[i], fmt.Sprintf("auth.jwt[%d]", i)
		l.unique(first, j.Name, key, "issuer")
		l.needed(key, "issuer", j.Issuer != "")
		if other, taken := issuers[j.Issuer]; taken && j.Issuer != "" {
			l.problem(l.from[key+".issuer"], key+".issuer", "is that of the entry at line %d; which keys to use would be open", l.from[other].line)
		} else {
			issuers[j.Issuer] = key
		}
		l.needed(key, "audience", j.Audience != "")
		l.needed(key, "roles", len(j.Roles) > 0)
		l.jwtKey(j, key)
	}
	for i, w := range c.Auth.Wider {
		key := fmt.Sprintf("auth.wider[%d]", i)
		l.needed(key, "roles", len(w.Roles) > 0)
		if len(w.Hosts) == 0 && len(w.Labels) == 0 && !l.tried(key+".hosts") && !l.tried(key+".labels") {
			l.problem(l.from[key], key, `hosts or labels is missing; for all hosts write hosts: ["*"]`)
		}
	}
}
