package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// A browser proves itself with a cookie, which holds the token and when it ends,
// sealed by a key that only the service has. Nothing is kept here: the token in
// it is looked at anew with every request, so that a key that is revoked ends
// what browsers do with it, too.
//
//	GET /login ─▶ page ─▶ POST /login: token ─▶ cookie ─▶ GET / …  POST /logout
//
// SameSite=Strict and the doorman keep pages of others from using it; and it does
// not count at all in a request that a page from elsewhere has made, not even
// where that page may call with a token of its own. The same holds for a client
// certificate, which a browser shows like a cookie (clientName).

// Sealer seals what only this service may read.
type Sealer interface {
	// Seal encrypts plain for a purpose and binds it to bound.
	Seal(purpose string, plain, bound []byte) []byte
	// Open gives what was sealed for the purpose and bound so, and fails for
	// anything else.
	Open(purpose string, sealed, bound []byte) ([]byte, error)
}

const (
	sessionPurpose = "http.session"
	// maxCookie is how many bytes a cookie may have, that all browsers keep it: 4096
	// with its attributes (RFC 6265 §6.1).
	maxCookie = 3800
	// maxForm is how many bytes of a form are read: a token, and where to go.
	maxForm = 64 << 10
	// formTimeout is how long a form may take: nobody knows yet who sends it.
	formTimeout = 4 * time.Second
	// maxNext is how many bytes of a path to go to after the login are taken.
	maxNext = 2048
	// loginAudit is how long the audit of a login may take.
	loginAudit = 5 * time.Second

	signInAgain = "Sign in again, at /login"
)

// session is what a cookie holds.
type session struct {
	token secret.Text
	end   time.Time
}

// cookieName is the name of the cookie. With TLS it has the prefix by which
// browsers see to it that no other host, and no plain HTTP, has set it.
func (g *Gateway) cookieName() string {
	if g.options.TLS != nil {
		return "__Host-telexec"
	}
	return "telexec"
}

// cookie makes the cookie that holds the session; without one, that which takes
// it away.
func (g *Gateway) cookie(s *session) *http.Cookie {
	c := &http.Cookie{
		Name: g.cookieName(), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: g.options.TLS != nil, MaxAge: -1,
	}
	if s != nil {
		plain := binary.BigEndian.AppendUint64(nil, uint64(s.end.Unix()))
		plain = append(plain, s.token.Reveal()...)
		c.Value = base64.RawURLEncoding.EncodeToString(g.options.Sealer.Seal(sessionPurpose, plain, []byte(c.Name)))
		c.MaxAge = max(1, int(time.Until(s.end).Seconds()))
	}
	return c
}

// sessionOf gives the session of a request; nil where it has none. It fails where
// all its cookies are over, or not made by this service. There may be several:
// cookies know no ports, so that without TLS any other server of this host can set
// one of our name, and it must not be able to keep people out.
func (g *Gateway) sessionOf(r *http.Request) (*session, error) {
	if !fromOwnPage(r) {
		return nil, nil
	}
	var failed error
	for _, c := range r.CookiesNamed(g.cookieName()) {
		if c.Value == "" {
			continue
		}
		s, err := g.openCookie(c)
		if err == nil {
			return s, nil
		}
		// That one is over says more than that another is not ours.
		if failed == nil || fault.ReasonOf(err) == fault.ReasonTokenExpired {
			failed = err
		}
	}
	return nil, failed
}

// openCookie gives the session that a cookie holds.
func (g *Gateway) openCookie(c *http.Cookie) (*session, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	var plain []byte
	if err == nil {
		plain, err = g.options.Sealer.Open(sessionPurpose, sealed, []byte(c.Name))
	}
	if err != nil || len(plain) < 8 {
		return nil, fault.Wrap(err, fault.Unauthenticated, fault.ReasonBadCredentials, "the cookie is not one of this server").WithHint(signInAgain)
	}
	s := &session{token: secret.New(string(plain[8:])), end: time.Unix(int64(binary.BigEndian.Uint64(plain)), 0)}
	if !time.Now().Before(s.end) {
		return nil, signedInUntil(s.end)
	}
	return s, nil
}

// signedInUntil refuses a browser whose session is over.
func signedInUntil(end time.Time) *fault.Error {
	return fault.New(fault.Unauthenticated, fault.ReasonTokenExpired, "the browser was signed in until %s", end.UTC().Format(time.RFC3339)).
		WithHint(signInAgain)
}

// fromOwnPage reports whether a request was made by a page of this server, or by
// no page: by a person, or a program.
func fromOwnPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	page, err := url.Parse(origin)
	// With TLS, what came over plain HTTP under the same name may be anybody's.
	return err == nil && strings.EqualFold(page.Host, r.Host) && (r.TLS == nil || page.Scheme == "https")
}

// sign answers for /login and /logout, which need no credentials.
func (g *Gateway) sign(w http.ResponseWriter, r *http.Request) {
	switch {
	case reads(r, "/login"):
		g.showLogin(w, http.StatusOK, localPath(r.URL.Query().Get("next")), "")
	case r.Method != http.MethodPost:
		g.refuseRoute(w, r, http.StatusMethodNotAllowed)
	case !fromOwnPage(r): // of a page that may call, but not sign anybody in or out
		g.refuse(w, r, foreignPage(r))
	case r.URL.Path == "/login":
		g.login(w, r)
	default:
		g.logout(w, r)
	}
}

func (g *Gateway) showLogin(w http.ResponseWriter, status int, next, problem string) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110 §15.5.2
	}
	writePage(w, status, loginPage, struct{ Next, Problem, Lifetime string }{next, problem, spoken(g.options.SessionLifetime)})
}

// spoken gives a duration for people: "12 hours", "90 minutes".
func spoken(d time.Duration) string {
	if d >= time.Hour && d%time.Hour == 0 {
		return plural(int(d.Hours()), "hour")
	}
	return plural(max(1, int(d.Minutes())), "minute")
}

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.Itoa(n) + " " + unit + "s"
}

// sentence gives a failure's text as sentences of a page.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:] + "."
}

// login takes a token from a form, and gives a cookie for it.
func (g *Gateway) login(w http.ResponseWriter, r *http.Request) {
	c := g.visitor(r)
	// Only what is late takes a place, of which an address has few: behind a proxy all
	// share them.
	form, err := take(w, r, maxForm, formTimeout, func() (func(), error) { return g.options.Limiter.Admit(c.Address, access.SigningIn) })
	if fault.ReasonOf(err) == fault.ReasonTooManyStreams {
		g.failLogin(w, r, c, "/", err)
		return
	}
	if err == nil {
		r.Body = io.NopCloser(bytes.NewReader(form))
		err = r.ParseForm()
	}

	// The body alone: what is in the query would be in histories and logs.
	next := localPath(r.PostForm.Get("next"))
	fail := func(err error) { g.failLogin(w, r, c, next, err) }
	if err != nil {
		fail(fault.Wrap(err, fault.Invalid, fault.ReasonInvalidRequest, "the form cannot be read").WithHint("Send it again"))
		return
	}
	token := secret.New(strings.TrimSpace(r.PostForm.Get("token")))
	if token.IsZero() {
		fail(fault.New(fault.Unauthenticated, fault.ReasonNoCredentials, "there is no token").WithHint("Enter one"))
		return
	}
	if c.Principal, err = g.identify(r, c.Address, access.Credentials{Token: token}); err != nil {
		fail(err)
		return
	}
	// Like a command, a login is a row that the audit keeps for good.
	if err := g.options.Limiter.Take(c, access.ClassStart); err != nil {
		fail(err)
		return
	}
	end := time.Now().Add(g.options.SessionLifetime)
	if !c.Expiry.IsZero() && c.Expiry.Before(end) {
		end = c.Expiry
	}
	s := &session{token, end}
	cookie := g.cookie(s)
	if len(cookie.Name)+len(cookie.Value) > maxCookie {
		fail(fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the token is too long for a cookie").WithHint("Use another one; telexec token create makes short ones"))
		return
	}
	if err := g.record(r, c, audit.Login); err != nil {
		fail(err) // nobody gets in behind the audit's back
		return
	}
	http.SetCookie(w, cookie)
	redirect(w, next)
}

// failLogin tells on the login page why there is no cookie, and the log and the
// audit.
func (g *Gateway) failLogin(w http.ResponseWriter, r *http.Request, c access.Caller, next string, err error) {
	status, body := g.options.Problem(err)
	g.log(r, status, err)
	g.tell(r, c, err)
	setRetryAfter(w, body)
	g.showLogin(w, status, next, sentence(body.GetMessage()))
}

// visitor is a visit of somebody with a browser.
func (g *Gateway) visitor(r *http.Request) access.Caller {
	c := g.visit(r)
	c.Origin = command.OriginWeb
	return c
}

// record tells the audit of a login or a logout.
func (g *Gateway) record(r *http.Request, c access.Caller, kind audit.Kind) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), loginAudit)
	defer cancel()
	e := audit.Entry{Time: time.Now(), Kind: kind, Principal: c.Name, Origin: string(c.Origin), Address: c.Address, Call: c.Call}
	e.Method, _ = g.methodName(r)
	return g.options.Recorder.Record(ctx, e)
}

// logout takes the cookie back. Whoever wants out gets out, also where the cookie
// is no good any more, or the audit cannot be written, which the log tells. Who
// does it too often gets out as well: 429 says that the audit has no logout of it,
// but a refusal.
func (g *Gateway) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, g.cookie(nil))
	c, err := g.leaver(r)
	if err == nil && c.Name != "" {
		if err = g.options.Limiter.Take(c, access.ClassStart); err == nil {
			if err := g.record(r, c, audit.Logout); err != nil {
				g.options.Logger.ErrorContext(r.Context(), "a logout could not be written to the audit", "principal", c.Name, "error", err)
			}
		}
	}
	switch {
	case fault.KindOf(err) == fault.Exhausted:
		g.failLogin(w, r, c, "/", err)
		return
	case fault.ReasonOf(err) == fault.ReasonBadCredentials:
		// Nobody is kept in, but a guess is told of here as anywhere.
		g.log(r, http.StatusSeeOther, err)
		g.tell(r, c, err)
	}
	redirect(w, "/login")
}

// leaver gives who wants out. It has no name where there is no cookie, or an error.
func (g *Gateway) leaver(r *http.Request) (access.Caller, error) {
	c := g.visitor(r)
	s, err := g.sessionOf(r)
	switch {
	case err != nil:
		err = g.tooMany(c.Address, err)
	case s != nil:
		c.Principal, err = g.identify(r, c.Address, access.Credentials{Token: s.token})
	}
	return c, err
}

// loginPath gives the path of the login that leads back to what a request asked for.
func loginPath(r *http.Request) string {
	if r.URL.Path == "/" && r.URL.RawQuery == "" {
		return "/login"
	}
	return "/login?" + url.Values{"next": {r.URL.RequestURI()}}.Encode()
}

// redirect sends a browser on by GET to a path of this server.
func redirect(w http.ResponseWriter, path string) {
	w.Header().Set("Location", path)
	w.WriteHeader(http.StatusSeeOther)
}

// localPath gives a path of this server to go to after the login: s, or / where s
// could lead elsewhere. Browsers read a backslash as a slash, leave out tabs and
// line ends, and take two slashes for the beginning of a host.
func localPath(s string) string {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxNext || u.IsAbs() || u.Host != "" || u.User != nil ||
		!strings.HasPrefix(s, "/") || strings.Contains(u.EscapedPath(), "//") || strings.HasPrefix(s, "//") ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '\\' || r > '~' }) {
		return "/"
	}
	return s
}
