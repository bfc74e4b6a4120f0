package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/telemetry"
)

// refuse answers with a failure, in the one shape.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	g.refuseCaller(w, r, g.visit(r), err)
}

// refuseCaller is refuse for a caller of whom more is known than the request's
// context tells.
func (g *Gateway) refuseCaller(w http.ResponseWriter, r *http.Request, c access.Caller, err error) {
	status, body := g.options.Problem(err)
	g.log(r, status, err)
	g.tell(r, c, err)
	writeProblem(w, status, body)
}

// refuseAs is refuse for what only HTTP has a status for.
func (g *Gateway) refuseAs(w http.ResponseWriter, r *http.Request, status int, err error) {
	_, body := g.options.Problem(err)
	g.log(r, status, err)
	writeProblem(w, status, body)
}

// log tells of a refusal, and of a failure of our own with its cause, which the
// caller is not told. What comes from the gRPC server is in its log, and its texts
// may quote the command.
func (g *Gateway) log(r *http.Request, status int, err error) {
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", status),
		slog.String("address", g.visit(r).Address), // the audit may count a refusal together with others
	}
	switch _, ours := errors.AsType[*fault.Error](err); {
	case failedHere(status, err):
		g.options.Logger.LogAttrs(r.Context(), slog.LevelError, "the request failed in the gateway", append(attrs, slog.Any("error", err))...)
	case ours:
		g.options.Logger.LogAttrs(r.Context(), slog.LevelInfo, "request refused", append(attrs, slog.Any("error", err))...)
	default:
		g.options.Logger.LogAttrs(r.Context(), slog.LevelDebug, "request refused", attrs...)
	}
}

// failedHere reports whether err, which is answered with that HTTP status, is a
// defect, and not the gRPC server's.
func failedHere(httpStatus int, err error) bool {
	return httpStatus == http.StatusInternalServerError && !fromServer(err)
}

func writeProblem(w http.ResponseWriter, status int, body *spb.Status) {
	text, err := protojson.Marshal(body)
	if err != nil { // a detail of an unknown type; the message is what matters
		text, _ = protojson.Marshal(&spb.Status{Code: body.GetCode(), Message: body.GetMessage()})
	}
	setRetryAfter(w, body)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that went away
}

// setRetryAfter tells when a retry helps (RFC 9110 §10.2.3), where the failure
// does.
func setRetryAfter(w http.ResponseWriter, body *spb.Status) {
	for _, detail := range body.GetDetails() {
		retry := &errdetails.RetryInfo{}
		if detail.UnmarshalTo(retry) == nil {
			seconds := math.Ceil(retry.GetRetryDelay().AsDuration().Seconds())
			w.Header().Set("Retry-After", strconv.FormatFloat(seconds, 'f', 0, 64))
		}
	}
}

// withRequestID takes the client's request id or makes one, and tells it in the
// answer.
func withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := telemetry.AcceptRequestID(r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r.WithContext(telemetry.WithRequestID(r.Context(), id)))
	})
}

// readBody reads the whole body before anything else happens, within a time
// limit: http.Server's ReadTimeout would go on counting while a call waits for a
// command, and cut it off. A caller may have few bodies under way that are late,
// fewer large ones than small ones, for what has arrived of them is kept in memory.
func (g *Gateway) readBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := take(w, r, maxBody, bodyTimeout, func() (func(), error) {
			size := r.ContentLength
			if size < 0 || size > maxBody { // not told, or of no use
				size = maxBody
			}
			return g.options.Limiter.Late(g.visit(r), int(1+size/lateWeight))
		})
		if fault.ReasonOf(err) == fault.ReasonTooManyStreams {
			g.refuse(w, r, err)
			return
		}
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			g.refuseAs(w, r, http.StatusRequestEntityTooLarge, fault.New(fault.Exhausted, fault.ReasonInvalidRequest,
				"the request's body has more than %d bytes", maxBody).WithHint("Send long input in parts, with POST /v1/commands/{id}:input"))
			return
		}
		if err != nil {
			g.refuseAs(w, r, http.StatusRequestTimeout, fault.Wrap(err, fault.Cancelled, fault.ReasonCallCancelled,
				"the request's body did not arrive whole").WithHint("Send it again"))
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		next.ServeHTTP(w, r)
	})
}

// doorman checks Host and Origin. A web page from elsewhere can make a browser
// send requests here: under a name of its own that it lets resolve to us (DNS
// rebinding; the Host header tells), or simply across origins (the Origin and
// Sec-Fetch-Site headers tell).
type doorman struct {
	hosts   []string // lower case; without a port it is for any port
	ip      netip.Addr
	anyIP   bool // listening on all addresses: rebinding needs a name
	origins []string
}

func newDoorman(addr net.Addr, hosts, origins []string) *doorman {
	d := &doorman{}
	for _, h := range hosts {
		d.hosts = append(d.hosts, strings.ToLower(h))
	}
	for _, o := range origins {
		d.origins = append(d.origins, strings.ToLower(strings.TrimSuffix(o, "/")))
	}
	if at, err := netip.ParseAddrPort(addr.String()); err == nil {
		d.ip = at.Addr().Unmap()
		d.anyIP = d.ip.IsUnspecified()
	}
	return d
}

// knows reports whether a Host header ("name", "name:port", "[::1]:port") names
// this server.
func (d *doorman) knows(host string) bool {
	host = strings.ToLower(host)
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.TrimSuffix(strings.Trim(name, "[]"), ".")
	if slices.Contains(d.hosts, host) || slices.Contains(d.hosts, name) || slices.Contains(d.hosts, "["+name+"]") {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		ip = ip.Unmap()
		return d.anyIP || ip.IsLoopback() || ip == d.ip
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// guard refuses what comes under a foreign name or from a foreign page, and
// answers the preflights (Fetch standard, CORS protocol) of allowed pages.
func (d *doorman) guard(refuse func(http.ResponseWriter, *http.Request, error), next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	for _, o := range d.origins {
		// One that is not an origin allows nothing; configuration refuses it before.
		_ = crossOrigin.AddTrustedOrigin(o)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.knows(r.Host) {
			refuse(w, r, fault.New(fault.PermissionDenied, fault.ReasonForbiddenOrigin, "this server does not answer to the name %q", r.Host).
				WithHint("Use localhost or the address it listens on, or add the name to http.allowed_hosts"))
			return
		}
		foreign := crossOrigin.Check(r) != nil
		if origin := strings.ToLower(r.Header.Get("Origin")); origin != "" {
			w.Header().Add("Vary", "Origin")
			page, err := url.Parse(origin)
			switch {
			case slices.Contains(d.origins, origin):
				foreign = false
				h := w.Header()
				// Without Allow-Credentials: such a page calls with a token of its own, never
				// with the cookie (see fromOwnPage).
				h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
				h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")
				if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
					h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
					h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id")
					h.Set("Access-Control-Max-Age", "600")
					w.WriteHeader(http.StatusNoContent)
					return
				}
			case err != nil || page.Host != strings.ToLower(r.Host):
				foreign = true
			}
		}
		if foreign {
			refuse(w, r, foreignPage(r))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// foreignPage refuses the page that a request is from.
func foreignPage(r *http.Request) error {
	who := "of another site, which the browser does not name," // Sec-Fetch-Site alone
	if origin := r.Header.Get("Origin"); origin != "" {
		who = fmt.Sprintf("from %q", cut(origin))
	}
	return fault.New(fault.PermissionDenied, fault.ReasonForbiddenOrigin, "web pages %s may not call this server", who).
		WithHint("Add the origin to http.allowed_origins if its pages are to be trusted; signing in and out is for the server's own pages alone")
}
