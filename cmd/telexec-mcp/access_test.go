package main

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// made gives the token of a new API key.
func made(t *testing.T, e *testenv.Env, req *telexecv1.CreateTokenRequest) string {
	t.Helper()
	resp, err := e.Admin().CreateToken(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetSecret()
}

// TestFormsOverHTTP: the answer of a person gets through a server that keeps no
// sessions, and decides with the caller's own token. An older client cannot be
// asked there, and is told.
func TestFormsOverHTTP(t *testing.T) {
	e := testenv.Start(t, testenv.WithConfig(`
policy:
  rules:
    - {name: own, effect: require_approval, match: {commands: ["echo mine"]}, approval: {allow_self: true}}
`))
	env := forService(e)
	env["TELEXEC_MCP_ELICIT_APPROVALS"] = "true"
	url := start(t, env, "--http", "0").stderr.after(t, "telexec-mcp: serving MCP on ")
	both := made(t, e, &telexecv1.CreateTokenRequest{Principal: "agent-x", Roles: []string{"operator", "approver"}})
	starts := made(t, e, &telexecv1.CreateTokenRequest{Principal: "agent-y", Roles: []string{"operator"}})
	for _, tt := range []struct {
		token, revision string
		shown           int // forms
		want            string
	}{
		{both, "2026-07-28", 1, "completed, exit code 0"},
		{both, "2025-11-25", 0, "awaiting_approval"},
		{starts, "2026-07-28", 0, "awaiting_approval"},
	} {
		shown := 0
		answer := func(_ context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			if shown++; !strings.Contains(req.Params.Message, "    | echo mine\n") {
				t.Errorf("the form: %s", req.Params.Message)
			}
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"decision": "approve"}}, nil
		}
		session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{ElicitationHandler: answer}).
			Connect(t.Context(), over(t, url, tt.token), &mcp.ClientSessionOptions{ProtocolVersion: tt.revision})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { session.Close() })
		r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "execute_command", Arguments: map[string]any{"host": e.Host, "command": "echo mine"}})
		if err != nil || !strings.Contains(text(r), tt.want) || shown != tt.shown {
			t.Errorf("%s: %d forms, %v: %s", tt.revision, shown, err, text(r))
		}
	}
}

// TestRefusedCallersOverHTTP: a caller learns what is wrong with his token, and how
// long to wait.
func TestRefusedCallersOverHTTP(t *testing.T) {
	e := testenv.Start(t, testenv.WithoutHosts())
	_, url := served(t, e)
	old := made(t, e, &telexecv1.CreateTokenRequest{Principal: "old", Roles: []string{"operator"}})
	if _, err := e.Admin().RevokeToken(t.Context(), &telexecv1.RevokeTokenRequest{Principal: "old"}); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, "POST", url, listTools, "Authorization", "Bearer "+old); a.StatusCode != 401 || strings.Contains(a.text, "does not know") || a.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("a token that was taken back: %s: %s", a.Status, a.text)
	}
	slow := made(t, e, &telexecv1.CreateTokenRequest{Principal: "slow", Roles: []string{"operator"}, Limits: &telexecv1.CallLimits{ReadsPerSecond: 0.001}})
	for range 3 {
		a := ask(t, "POST", url, listTools, "Authorization", "Bearer "+slow)
		if a.StatusCode == 200 {
			continue // the first may come at once
		}
		if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); a.StatusCode != 429 || err != nil || seconds < 1 {
			t.Errorf("too many calls: %s, Retry-After %q: %s", a.Status, a.Header.Get("Retry-After"), a.text)
		}
		return
	}
	t.Error("a caller may call as often as he likes")
}

func TestElicitApprovalsSetting(t *testing.T) {
	for _, tt := range []struct {
		flag  bool
		value string
		want  bool
	}{{false, "", false}, {true, "", true}, {false, "true", true}, {false, "1", true}, {false, "false", false}, {true, "false", true}} {
		got, err := toolOptions{ElicitApprovals: tt.flag}.elicits(func(string) string { return tt.value })
		if got != tt.want || err != nil {
			t.Errorf("%+v: %t, %v", tt, got, err)
		}
	}
	var stderr bytes.Buffer
	env := map[string]string{"TELEXEC_MCP_ELICIT_APPROVALS": "perhaps", "TELEXEC_TOKEN": "x"}
	if code := run(t.Context(), Env{Stdin: strings.NewReader(""), Stdout: &stderr, Stderr: &stderr, Getenv: func(name string) string { return env[name] }}, nil); code != 2 || !strings.Contains(stderr.String(), "neither true nor false") {
		t.Errorf("code %d: %s", code, stderr.String())
	}
}
