package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/telexec/telexec/pkg/client"
)

const (
	mcpPath    = "/mcp"
	healthPath = "/healthz"

	maxBody   = 4 << 20  // bytes of one request; the service takes no larger messages either
	maxHeader = 64 << 10 // bytes

	headerLimit = 5 * time.Second
	bodyLimit   = 30 * time.Second
	idleLimit   = 2 * time.Minute
	stopLimit   = 5 * time.Second // for the calls under way when the program is to stop
)

// serveHTTP serves MCP at /mcp until ctx ends, which is no error. It tells on
// stderr when it is ready.
func serveHTTP(ctx context.Context, stderr io.Writer, server *mcp.Server, service *client.Client, o httpOptions, log *slog.Logger) error {
	addr, err := listenAddr(o)
	if err != nil {
		return err
	}
	origins, err := parseOrigins(o.AllowOrigin)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           newHandler(server, service, origins, log),
		ReadHeaderTimeout: headerLimit,
		ReadTimeout:       bodyLimit, // until the body has come; the call may take longer
		// No WriteTimeout: it would cut a call that waits for 50 s.
		IdleTimeout:    idleLimit,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	scheme := "http"
	if o.Cert != "" {
		cert, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return failure("cannot use --tls-cert and --tls-key: %v", err)
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		scheme = "https"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return failure("cannot serve: %v", err)
	}
	fmt.Fprintf(stderr, "telexec-mcp: serving MCP on %s://%s%s\n", scheme, listener.Addr(), mcpPath)

	ended := make(chan error, 1) // sent to once, when Serve is over
	go func() {
		if srv.TLSConfig != nil {
			ended <- srv.ServeTLS(listener, "", "")
			return
		}
		ended <- srv.Serve(listener)
	}()
	select {
	case err := <-ended:
		return failure("cannot go on serving: %v", err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if err := srv.Shutdown(stopCtx); err != nil {
		log.Info("calls under way are cut off; their commands go on")
		_ = srv.Close() // its errors are those of connections that broke by themselves
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newHandler gives all that is served over HTTP.
func newHandler(server *mcp.Server, service *client.Client, origins map[string]bool, log *slog.Logger) http.Handler {
	// Stateless, so that any instance serves any call. A caller of the protocol
	// from 2026-07-28 on ends his waiting by going away.
	streamable := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{
		Stateless: true, PropagateRequestCancellation: true, MaxRequestBodyBytes: maxBody, Logger: log,
	})
	d := &door{service: service, origins: origins, log: log}
	mux := http.NewServeMux()
	mux.Handle(mcpPath, d.authenticated(d.checked(streamable, smallBatch, taskNamed)))
	mux.HandleFunc("GET "+healthPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n")
	})
	return d.sameOrigin(mux)
}

// listenAddr gives the address to listen on. It refuses plain HTTP to other
// machines, unless that was asked for.
func listenAddr(o httpOptions) (string, error) {
	addr := o.Addr
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	host, port, err := net.SplitHostPort(addr)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return "", usageError("cannot serve on %q", o.Addr).withHint("Give --http as a port or as host:port: 7090, 127.0.0.1:7090")
	}
	if host == "" {
		host = "127.0.0.1"
	}
	addr = net.JoinHostPort(host, port)
	if !client.Loopback(addr) && o.Cert == "" && !o.Insecure {
		return "", usageError("HTTP on %s would be plain text: everybody on the way could read the tokens of callers and change their commands", addr).
			withHint("Use TLS (--tls-cert, --tls-key), or say explicitly that plain text is fine here (--http-insecure)")
	}
	return addr, nil
}
