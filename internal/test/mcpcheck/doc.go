// Package mcpcheck checks telexec-mcp with clients that are not ours: the command
// line of the MCP Inspector, which is what people try servers with, and the
// official conformance suite of the protocol.
//
//	make mcp-check
//
// Both are npm programs, pinned in tools/mcp with the node that runs them; without
// them the tests are skipped. A real telexec-mcp talks to a real telexecd with a
// real sshd behind it:
//
//	inspector ── stdio, HTTP ───────────────────▶ telexec-mcp ─▶ telexecd ─▶ sshd
//	conformance suite ── HTTP ─▶ front (below) ─▶ telexec-mcp
//
// The suite was made for a server of its own with tools such as slow_compute, and
// cannot show a token. The front stands in between: it adds the token, and where
// the suite asks for a tool or resource of that server it asks ours for what does
// the same: slow_compute is execute_command of a sleep. Requests are changed in
// nothing else, and answers not at all, so that what is checked is what a client
// gets. fixtures_test.go has the table.
//
// testdata/expected-failures.yml lists what the suite finds missing, each with the reason.
// It is exact both ways: a check that fails and is not listed fails the test, and
// so does one that is listed and passes.
package mcpcheck
