package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What differs from run to run, and how a transcript writes it.
var (
	introduction = regexp.MustCompile(`lines that begin with \\?"(=== [0-9a-f]{8})\\?"`)

	commandID = regexp.MustCompile(`\b01[0-9A-HJKMNP-TV-Z]{24}\b`) // the time comes first
	pageToken = regexp.MustCompile(`page_token(?:": | )"([^"]+)"`)
	undoMark  = regexp.MustCompile(`/undo/([0-9a-z]+)`) // in the handle of an undo, which one it is

	words = []struct {
		pattern *regexp.Regexp
		word    string
	}{
		{regexp.MustCompile(`\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+\.[0-9]{3}Z`), "TIME"},
		{regexp.MustCompile(`(since |"since": ")[0-9-]+T[0-9:]+Z`), "${1}TIME"},
		{regexp.MustCompile(`127\.0\.0\.1:[0-9]+`), "ADDRESS"},
		{regexp.MustCompile(`("request_id": )"[A-Z2-7]{26}"`), `${1}"REQUEST"`},
		{regexp.MustCompile(`("duration_seconds": )[0-9.e-]+`), `${1}"SECONDS"`},
		{regexp.MustCompile(`("(?:running|queued)_commands": )[0-9]+`), `${1}"N"`},
		{regexp.MustCompile(`running [0-9]+ of ([0-9]+), queued [0-9]+`), "running N of $1, queued N"},
		{regexp.MustCompile(`("version": )(?:"[^"]*"|[0-9]+)`), `${1}"VERSION"`},
		// One more or less says nothing.
		{regexp.MustCompile(`(if_version_greater_than\\?": )[0-9]+`), "${1}VERSION"},
		{regexp.MustCompile(`(?s)  "_meta": \{\n    "io\.modelcontextprotocol/serverInfo": \{.*?\n    \}\n  \},?\n`), ""}, // in every answer
		// A command that has just started is told as either; nobody can know which.
		{regexp.MustCompile(`(on \S+: |"state": ")starting\b`), "${1}running"},
		// What keeps a shell is what is installed.
		{regexp.MustCompile(`\n(?:(?:tmux|screen|dtach) keeps it when the connection to its host is lost\.|It ends when the connection to its host is lost.*)`), "\nKEEPER"},
		{regexp.MustCompile(`("keeper": )"[a-z]+"(?:,\s*"keeper_reason": "[^"]*")?`), `${1}"KEEPER"`},
		// These are not there where there is too little to tell.
		{regexp.MustCompile(`(on \S+: [a-z_]+(?:, (?:exit code|signal) \w+)?) after [0-9.]+ s`), "$1"},
		{regexp.MustCompile(`\nIts last output was [0-9.]+ s ago\.`), ""},
	}
)

// named are values of which only the order in which they appear is known.
type named struct {
	prefix string
	values []string
}

// name gives the name of a value, ID1 for the first.
func (n *named) name(value string) string {
	i := slices.Index(n.values, value)
	if i < 0 {
		i = len(n.values)
		n.values = append(n.values, value)
	}
	return n.prefix + strconv.Itoa(i+1)
}

// value gives what a name stands for; empty for none.
func (n *named) value(name string) string {
	digits, ok := strings.CutPrefix(name, n.prefix)
	i, err := strconv.Atoi(digits)
	if !ok || err != nil || i < 1 || i > len(n.values) {
		return ""
	}
	return n.values[i-1]
}

// plain writes an answer so that it is the same in every run.
func (c *conversation) plain(text string) string {
	for _, m := range introduction.FindAllStringSubmatch(text, -1) {
		text = strings.ReplaceAll(text, m[1], "=== MARK") // and not what looks like one
	}
	for _, m := range pageToken.FindAllStringSubmatch(text, -1) {
		text = strings.ReplaceAll(text, m[1], c.tokens.name(m[1]))
	}
	for _, m := range undoMark.FindAllStringSubmatch(text, -1) {
		text = strings.ReplaceAll(text, m[0], "/undo/"+c.undoes.name(m[1]))
	}
	text = commandID.ReplaceAllStringFunc(text, c.ids.name)
	for _, w := range words {
		text = w.pattern.ReplaceAllString(text, w.word)
	}
	return strings.ReplaceAll(text, c.user, "USER")
}

// plainJSON is plain for JSON, which it writes in many lines.
func (c *conversation) plainJSON(data json.RawMessage) (string, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return "", fmt.Errorf("%q: %w", data, err)
	}
	return c.plain(b.String()), nil
}
