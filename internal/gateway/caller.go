package gateway

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/telemetry"
)

// visit is who makes a request, as far as it is known.
func (g *Gateway) visit(r *http.Request) access.Caller {
	if c, ok := access.FromContext(r.Context()); ok {
		return c
	}
	c := access.Caller{Origin: g.plainOrigin(r), Call: telemetry.RequestID(r.Context())}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.Address = at.Addr().Unmap().String()
	}
	return c
}

// clientName gives the name in the verified certificate of a request; empty where
// there is none, or where it does not count: a browser shows a certificate without
// being asked to, as it does a cookie, so it says who sits there and not who has
// made the request.
func clientName(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || !fromOwnPage(r) {
		return ""
	}
	return access.ClientName(r.TLS.VerifiedChains[0][0])
}

// bearer gives the token of the Authorization header (RFC 6750); empty where it
// has another scheme or none.
func bearer(r *http.Request) secret.Text {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return secret.Text{}
	}
	return secret.New(strings.TrimSpace(token))
}

// authenticate finds out whose request it is: by bearer token, of a WebSocket
// also among the subprotocols; else by cookie, else by client certificate. It gives
// the request with the caller in its context, and with the token in the header,
// from where it goes on to the gRPC server. The caller is told as far as it is known
// also with an error.
func (g *Gateway) authenticate(r *http.Request) (*http.Request, access.Caller, error) {
	c := g.visit(r)
	shown := access.Credentials{Token: bearer(r), Client: clientName(r)}
	if shown.Token.IsZero() {
		shown.Token = g.socketBearer(r)
	}
	var signedIn *session
	var err error
	if shown.Token.IsZero() {
		signedIn, err = g.sessionOf(r)
		if signedIn != nil || err != nil {
			c.Origin = command.OriginWeb
		}
		if err != nil {
			return r, c, g.tooMany(c.Address, err)
		}
		if signedIn != nil {
			shown.Token = signedIn.token
		}
	}
	if c.Principal, err = g.identify(r, c.Address, shown); err != nil {
		return r, c, err
	}
	if signedIn != nil && (c.Expiry.IsZero() || signedIn.end.Before(c.Expiry)) {
		c.Expiry = signedIn.end
	}
	r = r.WithContext(access.WithCaller(r.Context(), c))
	r.Header.Del("Authorization")
	if !shown.Token.IsZero() {
		r.Header.Set("Authorization", "Bearer "+shown.Token.Reveal())
	}
	return r, c, nil
}

// byBrowser reports whether a request that was authenticated showed what browsers
// show by themselves, a cookie or a certificate, and no token of its own.
func (g *Gateway) byBrowser(r *http.Request) bool {
	return g.visit(r).Origin == command.OriginWeb || bearer(r).IsZero()
}

// identify asks the authenticator. From an address that has guessed too often
// nothing is heard that takes long to look at; what is known in memory is looked at
// all the same, so that nobody's guesses keep a neighbour with a good token out.
func (g *Gateway) identify(r *http.Request, address string, shown access.Credentials) (access.Principal, error) {
	limiter := g.options.Limiter
	if shown.Slow() {
		if err := limiter.MayTry(address); err != nil {
			return access.Principal{}, err
		}
		release, err := limiter.Admit(address, access.Proving)
		if err != nil {
			return access.Principal{}, err
		}
		defer release()
	}
	p, err := g.options.Authenticator.Authenticate(r.Context(), shown)
	if err != nil {
		return access.Principal{}, g.tooMany(address, err)
	}
	return p, nil
}

// tooMany counts credentials that failed, and gives what the caller is told: why
// they have, or that too many of that address have. What was good once, and is over,
// is no guess.
func (g *Gateway) tooMany(address string, failed error) error {
	limiter := g.options.Limiter
	switch fault.ReasonOf(failed) {
	case fault.ReasonBadCredentials:
		if limited := limiter.MayTry(address); limited != nil {
			return limited
		}
		limiter.Failed(address)
	case fault.ReasonNoCredentials:
		if limited := limiter.ShowsNothing(address); limited != nil {
			return limited
		}
	}
	return failed
}

// authenticated lets through only who has credentials. The gRPC server decides
// anyway; here it spares reading the body of a stranger, and guards what is not
// gRPC.
func (g *Gateway) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known, c, err := g.authenticate(r)
		if err == nil {
			next.ServeHTTP(w, known)
			return
		}
		if (asksForUI(r) || reads(r, "/docs") && wantsPage(r)) && fault.KindOf(err) == fault.Unauthenticated {
			// Who has shown nothing was not refused, but asked for it.
			if fault.ReasonOf(err) != fault.ReasonNoCredentials {
				g.tell(r, c, err)
			}
			redirect(w, loginPath(r))
			return
		}
		g.refuseCaller(w, r, c, err)
	})
}

// tell tells the audit of a refusal by the gateway. What the gRPC server has
// refused it has told itself.
func (g *Gateway) tell(r *http.Request, c access.Caller, err error) {
	f, ours := errors.AsType[*fault.Error](err)
	if !ours || !access.RefusedByAccess(err) {
		return
	}
	e := audit.Entry{
		Kind: audit.Refused, Principal: c.Name, Origin: string(c.Origin), Address: c.Address, Call: c.Call,
		Reason: f.Reason, Detail: f.Message,
	}
	e.Method, e.Subject = g.methodName(r)
	g.options.Refusals.Tell(r.Context(), e)
}

// methodName gives "GET /v1/commands/{command_id}", the method and the rule of the
// path. What is not there is "other", since callers can make up any number of
// paths, and what they asked for is the subject.
func (g *Gateway) methodName(r *http.Request) (method, subject string) {
	method = r.Method
	if !slices.Contains(knownMethods, method) {
		method, subject = "other", cut(r.Method)+" "
	}
	if _, own := ownPaths[r.URL.Path]; own {
		return method + " " + r.URL.Path, subject
	}
	if rule := uiRule(r.URL.Path); rule != "" {
		return method + " " + rule, subject
	}
	if rule := g.ruleOf(method, r.URL.Path); rule != "" {
		return method + " " + rule, subject
	}
	return method + " other", strings.ToValidUTF8(subject+cut(r.URL.Path), "\ufffd")
}

var knownMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}
