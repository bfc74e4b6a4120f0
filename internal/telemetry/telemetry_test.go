package telemetry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/telemetry"
)

func TestLoggerAddsTheRequestID(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelDebug, telemetry.FormatJSON)
	ctx := telemetry.WithRequestID(t.Context(), "req-1")
	log.With("a", 1).WithGroup("g").DebugContext(ctx, "hello", "b", 2)

	var rec map[string]any
	if err := json.Unmarshal(out.Bytes(), &rec); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	group, _ := rec["g"].(map[string]any)
	if rec["msg"] != "hello" || rec["a"] != 1.0 || group["request_id"] != "req-1" {
		t.Errorf("record = %v", rec)
	}

	out.Reset()
	log.Info("without a request")
	if strings.Contains(out.String(), "request_id") {
		t.Errorf("a record outside a request has an id: %s", out.String())
	}
}

func TestDurationsHaveTheirUnit(t *testing.T) {
	for format, want := range map[telemetry.Format]string{
		telemetry.FormatText: " took=112.4ms\n", telemetry.FormatJSON: `"took":"112.4ms"`,
	} {
		var out bytes.Buffer
		telemetry.NewLogger(&out, slog.LevelInfo, format).Info("m", "took", 112_400*time.Microsecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: no %q in %s", format, want, out.String())
		}
	}
}

func TestLoggerLevelAndFormat(t *testing.T) {
	for _, c := range []struct {
		level  slog.Level
		format telemetry.Format
		want   string // start of the one line written
	}{
		{slog.LevelInfo, telemetry.FormatText, "time="},
		{slog.LevelInfo, telemetry.FormatJSON, `{"time"`},
		{slog.LevelInfo, telemetry.FormatAuto, `{"time"`}, // a buffer is no terminal
		{slog.LevelWarn, telemetry.FormatText, ""},
	} {
		var out bytes.Buffer
		log := telemetry.NewLogger(&out, c.level, c.format)
		log.Debug("never")
		log.Info("once")
		if got := out.String(); !strings.HasPrefix(got, c.want) || strings.Contains(got, "never") || (c.want == "") != (got == "") {
			t.Errorf("level %v format %q wrote %q", c.level, c.format, got)
		}
	}
}

func TestAutoFormatLooksAtTheFile(t *testing.T) {
	for name, want := range map[string]string{os.DevNull: "*slog.TextHandler", filepath.Join(t.TempDir(), "log"): "*slog.JSONHandler"} {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h := telemetry.NewLogger(f, slog.LevelInfo, telemetry.FormatAuto).Handler()
		if got := fmt.Sprintf("%+v", h); !strings.Contains(fmt.Sprintf("%#v", h), want[1:]) {
			t.Errorf("%s: handler %s", name, got)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	if got := telemetry.AcceptRequestID("abc-123/x"); got != "abc-123/x" {
		t.Errorf("a good id became %q", got)
	}
	for _, bad := range []string{"", "with space", "line\nbreak", "é", strings.Repeat("x", telemetry.MaxRequestID+1)} {
		got := telemetry.AcceptRequestID(bad)
		if got == bad || len(got) < 20 {
			t.Errorf("%q became %q", bad, got)
		}
	}
	if a, b := telemetry.NewRequestID(), telemetry.NewRequestID(); a == b {
		t.Errorf("two ids are the same: %s", a)
	}
	if telemetry.RequestID(t.Context()) != "" {
		t.Error("an empty context has an id")
	}
}

func TestMetrics(t *testing.T) {
	m := telemetry.NewMetrics("v1.2.3")
	m.Observe(telemetry.Gauges{
		Running: func() int { return 3 }, Queued: func() int { return 4 }, SSHConnections: func() int { return 2 },
	})
	m.CallStarted()
	m.CallStarted()
	m.Call("/telexec.v1.CommandService/Execute", "OK", 3*time.Millisecond)
	m.CommandEnded("COMPLETED", time.Second)
	m.CommandEnded("EXPIRED", 0)
	m.Output(100)
	m.Output(23)
	m.SocketOpened()
	m.SocketOpened()
	m.SocketSent(40, 3*time.Millisecond)
	m.SocketReceived(7)
	m.SocketResumed()
	m.SocketClosed(1001)
	m.SocketClosed(4711)

	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body := w.Body.String()
	for _, want := range []string{
		`telexec_build_info{version="v1.2.3"} 1`,
		`telexec_request_duration_seconds_count{code="OK",method="/telexec.v1.CommandService/Execute"} 1`,
		"telexec_requests_in_flight 1",
		"telexec_commands_running 3", "telexec_commands_queued 4", "telexec_ssh_connections 2",
		`telexec_commands_ended_total{state="COMPLETED"} 1`, `telexec_commands_ended_total{state="EXPIRED"} 1`,
		"telexec_command_duration_seconds_count 1",
		"telexec_command_output_bytes_total 123",
		"telexec_websockets 0", `telexec_websocket_closed_total{code="1001"} 1`, `telexec_websocket_closed_total{code="other"} 1`,
		`telexec_websocket_messages_total{direction="sent"} 1`, `telexec_websocket_bytes_total{direction="received"} 7`,
		`telexec_websocket_message_age_seconds_bucket{le="0.005"} 1`, "telexec_websocket_resumed_total 1",
		"go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if strings.Contains(body, "telexec_watchers") {
		t.Error("a gauge without a function is there")
	}
}
