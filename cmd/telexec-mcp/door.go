package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/telexec/telexec/internal/mcptool"
	"github.com/telexec/telexec/pkg/client"
)

// door is what every HTTP request passes, in this order:
//
//	sameOrigin     web pages only of allowed origins; their preflights end here
//	authenticated  a token that the service knows
//	smallBatch     no more than a few calls in one request
//	taskNamed      a header that names the same task as the body
//
// The SDK behind it refuses what reaches loopback under another name (DNS
// rebinding) and what is no MCP.
type door struct {
	service *client.Client
	origins map[string]bool // allowed beside the server's own
	log     *slog.Logger
}

// parseOrigins reads --http-allow-origin. An origin is scheme://host[:port], in
// the one form that browsers send (RFC 6454, section 6.2), for it is compared as
// text.
func parseOrigins(allowed []string) (map[string]bool, error) {
	origins := make(map[string]bool, len(allowed))
	for _, origin := range allowed {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || origin != strings.ToLower(u.Scheme+"://"+u.Host) {
			return nil, usageError("%q is no origin", origin).
				withHint("Give it as browsers send it, in lower case and without a path: https://app.example.com, http://localhost:6274")
		}
		origins[origin] = true
	}
	return origins, nil
}

// sameOrigin refuses requests from web pages, which browsers mark with their
// origin, unless it is allowed or the server's own.
func (d *door) sameOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if origin == "" {
			next.ServeHTTP(w, r)
			return
		}
		if !d.origins[origin] && !ownOrigin(r, origin) {
			d.log.Info("refused: web page", "origin", origin, "remote", r.RemoteAddr)
			http.Error(w, "Forbidden: web pages of this origin may not call; telexec-mcp --http-allow-origin allows them", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate, Retry-After")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "POST, GET, DELETE")
			h.Set("Access-Control-Allow-Headers",
				"Authorization, Content-Type, Accept, Last-Event-ID, Mcp-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ownOrigin reports whether a page is this server's own. A name proves nothing,
// for whoever owns one can let it point here (DNS rebinding); http's
// CrossOriginProtection would take such a page for ours. An address cannot be
// made to point elsewhere, and neither can localhost.
func ownOrigin(r *http.Request, origin string) bool {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if origin != scheme+"://"+r.Host {
		return false
	}
	u, err := url.Parse(origin)
	return err == nil && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()) != nil)
}

// verifyLimit is how long the service may take to tell whose token it is. It
// outlasts a hiccup, and leaves a call that waits for 50 s within the minute
// after which clients give up.
const verifyLimit = 3 * time.Second

// callerKey is that of the *auth.TokenInfo in the context of a request.
type callerKey struct{}

// authenticated serves only those who show a token that the service knows.
func (d *door) authenticated(next http.Handler) http.Handler {
	// The SDK takes a TokenInfo from its own middleware only. That makes an
	// internal error of a service that is away, so it gets what is known already.
	next = auth.RequireBearerToken(func(ctx context.Context, _ string, _ *http.Request) (*auth.TokenInfo, error) {
		info, _ := ctx.Value(callerKey{}).(*auth.TokenInfo)
		return info, nil
	}, &auth.RequireBearerTokenOptions{AllowMissingExpiration: true})(next)

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := bearer(r)
		if !ok {
			d.refuse(w, r, "Bearer", "a telexec token is needed, in the header \"Authorization: Bearer TOKEN\"")
			return
		}
		info, err := d.verify(r.Context(), token)
		switch e, _ := errors.AsType[*client.Error](err); {
		case err == nil:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, info)))
		case e != nil && e.Code.String() == "Unauthenticated":
			why := "the telexec service does not know this token"
			if e.Reason != "BAD_CREDENTIALS" && e.Message != "" { // it is over, or was taken back
				why = e.Error()
			}
			d.refuse(w, r, `Bearer error="invalid_token"`, why)
		case e != nil && e.Code.String() == "PermissionDenied":
			d.log.Info("refused: "+e.Message, "remote", r.RemoteAddr)
			http.Error(w, "Forbidden: "+e.Error(), http.StatusForbidden)
		case e != nil && e.Code.String() == "ResourceExhausted":
			d.log.Info("refused: "+e.Message, "remote", r.RemoteAddr)
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(max(e.RetryAfter.Seconds(), 1)))))
			http.Error(w, "Too Many Requests: "+e.Error(), http.StatusTooManyRequests)
		case r.Context().Err() != nil: // the caller went away
		default:
			d.log.Warn("a caller cannot be verified", "error", err)
			w.Header().Set("Retry-After", "5")
			http.Error(w, "Service Unavailable: the telexec service cannot be reached just now, or does not answer; try again in a few seconds",
				http.StatusServiceUnavailable)
		}
	})
}

func (d *door) refuse(w http.ResponseWriter, r *http.Request, challenge, why string) {
	d.log.Info("refused: "+why, "remote", r.RemoteAddr)
	w.Header().Set("WWW-Authenticate", challenge)
	http.Error(w, "Unauthorized: "+why, http.StatusUnauthorized)
}

// bearer gives the token of a request, by RFC 6750, section 2.1.
func bearer(r *http.Request) (client.Token, bool) {
	fields := strings.Fields(r.Header.Get("Authorization"))
	if len(fields) != 2 || !strings.EqualFold(fields[0], "Bearer") {
		return "", false
	}
	return client.Token(fields[1]), true
}

// verify asks the service whose token it is, for every request anew: that costs
// 0.3 ms on loopback (BenchmarkVerify), and a token that was withdrawn opens
// nothing any more.
func (d *door) verify(ctx context.Context, token client.Token) (*auth.TokenInfo, error) {
	ctx, cancel := context.WithTimeout(client.WithToken(ctx, token), verifyLimit)
	defer cancel()
	info, err := d.service.GetServerInfo(ctx)
	if err != nil {
		return nil, err
	}
	return &auth.TokenInfo{UserID: info.GetPrincipal(), Extra: map[string]any{mcptool.TokenKey: token}}, nil
}

// maxBatch is how many calls a request may hold: their answers, of up to 3 MB each,
// are all made before the first is sent. Revisions from 2025-06-18 on have no batches.
const maxBatch = 16

// refusal is an answer to a request that is not served.
type refusal struct {
	code        int
	contentType string
	body        []byte
}

// plainRefusal is one in words.
func plainRefusal(code int, format string, args ...any) *refusal {
	text := http.StatusText(code) + ": " + fmt.Sprintf(format, args...) + "\n"
	return &refusal{code, "text/plain; charset=utf-8", []byte(text)}
}

// checked reads the body of a request, and goes on where no check refuses it.
func (d *door) checked(next http.Handler, checks ...func(http.Header, []byte) *refusal) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		var refused *refusal
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			refused = plainRefusal(http.StatusRequestEntityTooLarge, "a request may have %d bytes", tooLarge.Limit)
		} else if err != nil {
			refused = plainRefusal(http.StatusBadRequest, "it cannot be read: %v", err)
		}
		for _, check := range checks {
			if refused == nil {
				refused = check(r.Header, body)
			}
		}
		if refused != nil {
			d.log.Info("refused: "+http.StatusText(refused.code), "remote", r.RemoteAddr)
			w.Header().Set("Content-Type", refused.contentType)
			w.WriteHeader(refused.code)
			_, _ = w.Write(refused.body)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// smallBatch refuses requests that hold many calls. What is no JSON the SDK tells.
func smallBatch(_ http.Header, body []byte) *refusal {
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) {
		return nil
	}
	var batch []json.RawMessage
	if json.Unmarshal(body, &batch) != nil || len(batch) <= maxBatch {
		return nil
	}
	return plainRefusal(http.StatusBadRequest, "a batch may hold %d messages; send one request for each", maxBatch)
}

// taskNamed refuses a request about a task whose header Mcp-Name is not the
// task's id. From protocol 2026-07-28 on what stands between client and server
// may route by the headers, so they must say the same as the body. The SDK checks
// the methods that it knows; an error from anywhere behind it comes out as HTTP
// 200, where this one must be 400.
func taskNamed(h http.Header, body []byte) *refusal {
	// That Mcp-Method is the body's the SDK checks for every method.
	if h.Get("Mcp-Protocol-Version") < mcptool.TasksSince || !slices.Contains(mcptool.TaskMethods, h.Get("Mcp-Method")) {
		return nil
	}
	mismatch := taskNameMismatch(h.Get("Mcp-Name"), body)
	if mismatch == nil {
		return nil
	}
	return &refusal{http.StatusBadRequest, "application/json", mismatch}
}

// taskNameMismatch gives the JSON-RPC error for a request that is about another
// task than name, and nil for every other: the SDK and the methods tell what is
// wrong with those.
func taskNameMismatch(name string, body []byte) []byte {
	msg, err := jsonrpc.DecodeMessage(body)
	req, ok := msg.(*jsonrpc.Request)
	if err != nil || !ok {
		return nil
	}
	// A map, because a struct would take "TASKID" for the field as well.
	var params map[string]json.RawMessage
	var id string
	if json.Unmarshal(req.Params, &params) != nil || json.Unmarshal(params["taskId"], &id) != nil || name == id {
		return nil
	}
	why := fmt.Sprintf("header mismatch: Mcp-Name header value %q does not match taskId %q in the body", name, id)
	if name == "" {
		why = fmt.Sprintf("missing required Mcp-Name header for method %q: it is the taskId", req.Method)
	}
	b, err := jsonrpc.EncodeMessage(&jsonrpc.Response{ID: req.ID, Error: &jsonrpc.Error{Code: mcp.CodeHeaderMismatch, Message: why}})
	if err != nil {
		return []byte("{}") // an id, a number and a text: cannot be
	}
	return b
}
