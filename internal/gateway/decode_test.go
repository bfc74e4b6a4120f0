package gateway_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

func TestRequestsThatCannotBeMeant(t *testing.T) {
	var started atomic.Int32
	d := open(t, &service{
		execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
			started.Add(1)
			return &telexecv1.ExecuteResponse{}, nil
		},
		status: func(context.Context, *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
			started.Add(1)
			return &telexecv1.GetStatusResponse{}, nil
		},
	})
	const other = "01BX5ZZKBKACTAV9WEVGEMMVRZ"
	const run = `{"host":"r","command":"id",`
	long := strings.Repeat("hunter2 ", 1<<14)
	for name, c := range map[string]struct{ method, path, body, says string }{
		"path is not UTF-8":        {"GET", "/v1/hosts/%ff", "", "path is not UTF-8"},
		"verb's path is not UTF-8": {"POST", "/v1/commands/%ff:cancel", "{}", "path is not UTF-8"},
		"no route, not UTF-8":      {"GET", "/%ff", "", "path is not UTF-8"},
		"query is not UTF-8":       {"GET", "/v1/commands?host=%ff", "", `query parameter "host" is not UTF-8`},
		"query's key":              {"GET", "/v1/commands?%ff=1", "", "query is not UTF-8"},
		"body is not UTF-8":        {"POST", "/v1/commands", `{"host":"r","command":"` + "\xff" + `"}`, "invalid UTF-8"},

		"bytes":              {"POST", "/v1/commands", run + `"stdin":"hunter2!!"}`, "invalid value for bytes field stdin (line 1:"},
		"long":               {"POST", "/v1/commands", run + `"stdin":"` + long + `"}`, "bytes field stdin"},
		"number for text":    {"POST", "/v1/commands", run + `"sudo":{"password":17017}}`, "string field password (line 1:"},
		"text for a message": {"POST", "/v1/commands", run + `"sudo":"hunter2"}`, "(line 1:"},
		"text for a map":     {"POST", "/v1/commands", run + `"env":"hunter2"}`, "(line 1:"},
		"map of numbers":     {"POST", "/v1/commands", run + `"env":{"A":17017}}`, "(line 1:"},
		"duration":           {"POST", "/v1/commands", run + `"wait":"hunter2"}`, "google.protobuf.Duration value (line 1:"},
		"deceiving value":    {"POST", "/v1/commands", run + `"sudo":"a: unknown field \"hunter2\""}`, "(line 1:"},
		"long name":          {"POST", "/v1/commands", run + `"` + long + `":1}`, "(line 1:"},
		"not JSON":           {"POST", "/v1/commands", run + `"stdin":hunter2}`, "not JSON, at byte 36"},
		"form":               {"POST", "/v1/commands", `host=r&command=hunter2`, "not JSON, at byte 1"},

		"text behind":        {"POST", "/v1/commands", `{"host":"r","command":"echo 1"} hunter2`, "behind the end of the JSON object, at byte 33"},
		"object behind":      {"POST", "/v1/commands", `{"host":"r","command":"echo 1"}{"host":"r","command":"echo 2"}`, "behind the end"},
		"NUL behind":         {"POST", "/v1/commands", `{"host":"r","command":"echo 1"}` + "\x00", "behind the end"},
		"array":              {"POST", "/v1/commands", `[{"host":"r","command":"echo 1"}]`, "(line 1:1)"},
		"long query":         {"GET", "/v1/commands?page_size=" + strings.Repeat("9", 1<<14), "", "page_size"},
		"long key":           {"GET", "/v1/commands?" + strings.Repeat("k", 1<<14) + "=1", "", "no query parameter"},
		"id in the query":    {"GET", "/v1/commands/" + anID + "?commandId=" + other, "", "commandId contradicts the path"},
		"id, other spelling": {"GET", "/v1/commands/" + anID + "?command_id=" + other, "", "commandId contradicts the path"},
		"id twice":           {"GET", "/v1/commands/" + anID + "?commandId=" + anID + "&commandId=" + other, "", "commandId contradicts the path"},
		"id in a body":       {"POST", "/v1/commands/" + anID + ":cancel", `{"commandId":"` + other + `"}`, "commandId contradicts the path"},
		"host in a body":     {"POST", "/v1/hosts/a:check", `{"host":"b"}`, "host contradicts the path"},
		"session in a body":  {"POST", "/v1/sessions/a:cancel", `{"session":"b"}`, "session contradicts the path"},
		"session and id":     {"POST", "/v1/sessions/a:cancel", `{"commandId":"` + anID + `"}`, "either"},
		"query of a POST":    {"POST", "/v1/commands/" + anID + ":cancel?commandId=" + other, "", "no query parameters"},
		"offset of a start":  {"POST", "/v1/commands", run + `"output":{"stdoutOffset":"0"}}`, "has no output yet"},
	} {
		t.Run(name, func(t *testing.T) {
			a := d.do(c.method, c.path, c.body)
			code, reason, hint, message := a.problem(t)
			if a.status != 400 || code != 3 || reason != fault.ReasonInvalidRequest || hint == "" || !strings.Contains(message, c.says) {
				t.Errorf("HTTP %d, %.2000s", a.status, a.body)
			}
			if strings.Contains(a.body, "hunter2") || strings.Contains(a.body, "17017") || strings.Contains(a.body, "marshal") || len(message) >= 1024 {
				t.Errorf("%d bytes: %.2000s", len(message), a.body)
			}
		})
	}
	if n := started.Load(); n != 0 {
		t.Errorf("%d requests came through", n)
	}
	for name, c := range map[string]struct{ method, path, body string }{
		"the same id": {"GET", "/v1/commands/" + anID + "?commandId=" + anID, ""},
		"white space": {"POST", "/v1/commands", "\n " + `{"host":"r","command":"echo 1"}` + " \r\n"},
		"UTF-8":       {"POST", "/v1/commands", `{"host":"r","command":"echo é"}`},
	} {
		if a := d.do(c.method, c.path, c.body); a.status != 200 {
			t.Errorf("%s: HTTP %d %s", name, a.status, a.body)
		}
	}
	if a := d.do("POST", "/v1/commands/"+anID+":cancel", ""); a.status != 501 { // not in this test's service
		t.Errorf("no body: HTTP %d %s", a.status, a.body)
	}
}
