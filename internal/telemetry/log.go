// Package telemetry is how the service is seen from outside: its log, its
// metrics, and the request id that ties a caller's call to both.
//
// It is the lowest room but one: it knows words of its own only (strings,
// durations), so that every other room may use it. NewLogger makes the one
// logger that main hands to all rooms; Metrics holds every metric, on a registry
// of its own rather than the process-wide default, so that two services in one
// test process do not collide.
//
// Nothing here takes the content of a command, its output or a token. What is
// logged is decided at the place of logging; secrets mask themselves (package
// secret).
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"os"
)

// Format is how log records are written.
type Format string

// The formats.
const (
	FormatAuto Format = "auto" // text on a terminal, JSON elsewhere
	FormatText Format = "text" // key=value
	FormatJSON Format = "json" // one JSON object per line
)

// NewLogger makes the logger of a process, which writes records of the level and
// above.
func NewLogger(w io.Writer, level slog.Level, format Format) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	inJSON := *options
	inJSON.ReplaceAttr = durationText
	var h slog.Handler = slog.NewJSONHandler(w, &inJSON)
	if format == FormatText || format == FormatAuto && isTerminal(w) {
		h = slog.NewTextHandler(w, options)
	}
	return slog.New(withRequestID{h})
}

// durationText writes a duration as text does, "112.4ms": a bare number of
// nanoseconds in JSON does not tell its unit.
func durationText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// isTerminal reports whether w is a character device. That /dev/null is one too
// does no harm.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// withRequestID adds the request id of the context to every record.
type withRequestID struct{ slog.Handler }

func (h withRequestID) Handle(ctx context.Context, r slog.Record) error {
	if id := RequestID(ctx); id != "" {
		r.AddAttrs(slog.String("request_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h withRequestID) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withRequestID{h.Handler.WithAttrs(attrs)}
}

func (h withRequestID) WithGroup(name string) slog.Handler {
	return withRequestID{h.Handler.WithGroup(name)}
}
