package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// The groups of operations, in the order in which they are shown.
const (
	tagCommands  = "Commands"
	tagSessions  = "Sessions"
	tagTasks     = "Tasks"
	tagEvents    = "Events"
	tagSocket    = "WebSocket"
	tagHosts     = "Hosts"
	tagApprovals = "Approvals"
	tagPolicy    = "Policy"
	tagTokens    = "API keys"
	tagAudit     = "Audit"
	tagService   = "Service"
)

func tags() []any {
	tag := func(name, description string) any { return object{"name": name, "description": description} }
	return []any{
		tag(tagCommands, "Run commands on hosts, see what becomes of them, stop them."),
		tag(tagSessions, "Terminals on hosts that people and agents share."),
		tag(tagTasks, "Several steps, one after the other, which people approve, and which can be undone."),
		tag(tagEvents, "What happens, as it happens."),
		tag(tagSocket, "Output, events and calls over one connection."),
		tag(tagHosts, "Which hosts there are, and how they are."),
		tag(tagApprovals, "What waits for a person's yes."),
		tag(tagPolicy, "What the rules would say."),
		tag(tagTokens, "Who may call; for administrators."),
		tag(tagAudit, "Who did what; for administrators."),
		tag(tagService, "What this service is and how it does."),
	}
}

// intro is the description of the document: what holds for every operation. The
// limits and the reasons are put in.
const intro = `Start a command, and have its output with the answer:

~~~sh
curl -sS http://127.0.0.1:7080/v1/commands -H "Authorization: Bearer $TOKEN" \
  -d '{"host": "web1", "command": "df -h /", "output": {"text": true}}'
~~~

The answer has the exit code and the output; or, where the command takes longer than ` + "`wait`" + `, its id, by which it is
asked for, watched and cancelled. Losing the connection never touches a command.

<details><summary>Who calls</summary>

A program sends a **bearer token**: an API key, a JSON Web Token of an issuer that the service trusts, or the
administrator's. A browser that has signed in at ` + "`/login`" + ` sends a **cookie**, which holds that token sealed. A **client
certificate** (mutual TLS) counts where the service is set up for it. The first of the three that is there counts. Cookie and
certificate count only for programs and for pages of this server, and with them a body has to say that it is
` + "`application/json`" + `. What a caller may do its roles tell: viewer, operator, approver, admin.

</details>

<details><summary>JSON</summary>

It is that of protobuf. Fields have lowerCamelCase names; one that has its default value is left out, but where it says something, as exitCode 0
does. int64 is a string, for JSON
numbers are exact up to 2^53 only; a duration is a string of seconds, ` + "`\"2.5s\"`" + `; a time is RFC 3339 in UTC; bytes are base64.
A field or query parameter that does not exist is refused. All fields of a POST are in its body, those of a GET or a DELETE
in its query: ` + "`output.text=true`, `labels[app]=shop`" + `.

</details>

<details><summary>Streams</summary>

An answer of type ` + "`" + streamType + "`" + ` is one JSON object per line, each sent at once, for as long as there is something to tell
(` + "`curl -N`" + `). A stream that breaks off says so in its last line, ` + "`{\"error\": …}`" + `; one that just
stops was cut off on the way, and is asked for again from the last offset or sequence that arrived.

</details>

<details><summary>Errors</summary>

Every error has one shape, google.rpc.Status, under the HTTP status that belongs to its reason. The message says what
happened and what to do about it. For programs there is an ErrorInfo of domain "telexec" among the details, with a reason that never
changes its meaning and the hint alone; a BadRequest names the fields that are wrong, a RetryInfo says when a retry helps
(so does the header Retry-After). X-Request-Id is in every answer, and in the service's log. A command that fails is no error of the call:
it is in the answer, with its own failure.

%s

</details>

<details><summary>Limits</summary>

Above a rate the answer is 429 with Retry-After; ten seconds' worth may come at once. These are the defaults:

%s

A body has at most 4 MiB (else 413) and arrives within 60 s (else 408); headers have at most 64 KiB. One input to a command
has at most 1 MiB, a command line 120,000 bytes; an answer carries at most 1 MiB of each stream.

</details>`

// rates are the limits of calls that a caller meets, with their defaults. A test
// holds them against docs/configuration.md.
var rates = []struct{ what, setting, value string }{
	{"commands started per second", "rate_limits.principal.start", "200"},
	{"other calls per second", "rate_limits.principal.read", "1000"},
	{"lists per second", "rate_limits.principal.list", "100"},
	{"streams opened per second", "rate_limits.principal.stream", "200"},
	{"open streams and waiting calls at once", "rate_limits.principal.streams", "1000"},
}

// rateTable gives the limits as a table of Markdown.
func rateTable() string {
	rows := "| of one caller | at most | setting |\n|---|---|---|"
	for _, r := range rates {
		rows += fmt.Sprintf("\n| %s | %s | `%s` |", r.what, r.value, r.setting)
	}
	return rows
}

// reasonRow is a row of the table of calls in docs/errors.md: reason, gRPC codes,
// HTTP statuses, what it means, what to do.
var reasonRow = regexp.MustCompile("(?m)^\\| (`[A-Z0-9_]+`) \\| [A-Z_, ]+ \\| ([0-9, ]+) \\| (.*) \\| (.*) \\|$")

// reasonTable gives the reasons of failed calls as a table of Markdown, from the
// page that explains them.
func reasonTable(page string) (string, error) {
	found := reasonRow.FindAllStringSubmatch(page, -1)
	if len(found) == 0 {
		return "", fmt.Errorf("the page of errors has no table of reasons with HTTP statuses")
	}
	rows := "| reason | HTTP | what it means | what to do |\n|---|---|---|---|"
	for _, r := range found {
		rows += "\n| " + strings.Join(r[1:], " | ") + " |"
	}
	return rows, nil
}

// reasonsByStatus gives the names of the reasons that each HTTP status has, in the
// order of the page.
func reasonsByStatus(page string) map[string][]string {
	all := map[string][]string{}
	for _, r := range reasonRow.FindAllStringSubmatch(page, -1) {
		for status := range strings.SplitSeq(r[2], ", ") {
			all[status] = append(all[status], r[1])
		}
	}
	return all
}

// credentials are the ways to say who calls; one is enough.
func credentials() (schemes object, security []any) {
	schemes = object{
		"bearer": object{
			"type": "http", "scheme": "bearer",
			"description": "An API key (POST /v1/tokens makes one), a JSON Web Token of an issuer that the service trusts, or what stands in the file admin.token of its data directory.",
		},
		"cookie": object{
			"type": "apiKey", "in": "cookie", "name": "telexec",
			"description": "What a browser has that signed in at /login; it sends it by itself, and nothing needs to be entered here. With TLS its name is __Host-telexec.",
		},
		"certificate": object{
			"type":        "mutualTLS",
			"description": "A client certificate of an authority that tls.client_ca_file names.",
		},
	}
	return schemes, []any{object{"bearer": []any{}}, object{"cookie": []any{}}, object{"certificate": []any{}}}
}

// ownPaths are the operations of the gateway that are not calls of the contract.
func ownPaths() object {
	text := func(kind string, sample any) object {
		return object{kind: object{"schema": object{"type": "string"}, "example": sample}}
	}
	health := object{"application/json": object{
		"schema":  object{"type": "object", "required": []any{"status"}, "properties": object{"status": object{"type": "string", "const": "ok"}}},
		"example": object{"status": "ok"},
	}}
	get := func(id, summary, description string, content object, needsToken bool) object {
		answers := object{"200": object{"description": "It is so.", "content": content}}
		op := object{"operationId": id, "summary": summary, "description": description, "tags": []any{tagService}, "responses": answers}
		if needsToken {
			refer(answers, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests)
		} else {
			op["security"] = []any{}
		}
		return object{"get": op}
	}
	ready := get("Gateway_Ready", "Tell whether the service takes commands", "Answers 200 where the service takes commands, and 503 with the reason where it does not: while it starts, drains, or its store fails. It needs no token.", health, false)
	refer(ready["get"].(object)["responses"].(object), http.StatusServiceUnavailable)
	return object{
		"/healthz": get("Gateway_Health", "Tell whether the service is alive", "Answers 200 as long as the process answers at all. It needs no token.", health, false),
		"/readyz":  ready,
		"/metrics": get("Gateway_Metrics", "Get metrics for Prometheus", "The text format of Prometheus.",
			text("text/plain", "# HELP telexec_commands_running Commands that run now.\n# TYPE telexec_commands_running gauge\ntelexec_commands_running 2\n"), true),
	}
}
