package main

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

func TestPlan(t *testing.T) {
	for name, tt := range map[string]struct{ yaml, want string }{
		"all of it": {`# what it is about
task: |
  roll out
  version 5
priority: 5
conversation_id: c-1
context: {build: 42, by: ann}
labels:
  deploy: "42"
requestId: r-1
steps:
  - name: drain
    host: web1
    argv: [systemctl, stop, "app a"]
    needsApproval: true
    undo: systemctl start app
    on_failure: undo
    timeout: 1m30s
    retry: {times: 3, backoff: 500ms}
    workingDirectory: /srv
    sudo_user: root
    action_type: service.stop
  - hosts: [web1, web2]
    command: true
    rollout:
      canary: 1
      go_on: false
  - hostLabels: {env: prod}
    command: >-
      echo a
      b
  - session: deploy
    command: 0022
    undo: ~
`, `{"task": "roll out\nversion 5\n", "priority": 5, "conversationId": "c-1", "context": {"build": "42", "by": "ann"}, "labels": {"deploy": "42"}, "requestId": "r-1",
			"steps": [{"name": "drain", "host": "web1", "argv": ["systemctl", "stop", "app a"], "needsApproval": true, "undo": "systemctl start app", "onFailure": "undo",
			"timeout": "90s", "retry": {"times": 3, "backoff": "0.5s"}, "workingDirectory": "/srv", "sudoUser": "root", "actionType": "service.stop"},
			{"hosts": ["web1", "web2"], "command": "true", "rollout": {"canary": 1}},
			{"hostLabels": {"env": "prod"}, "command": "echo a b"}, {"session": "deploy", "command": "0022"}]}`},
		"JSON": {"{\n\t\"task\": \"say \\\"h\\u00e9\\\" \\/ \\ud83d\\ude00\\n\",\n\t\"steps\": [{\"host\":\"web1\",\"command\":\"a\\tb\"}]}",
			`{"task": "say \"hé\" / 😀\n", "steps": [{"host": "web1", "command": "a\tb"}]}`},
		"anchors": {"task: t\nsteps:\n  - &a {host: web1, command: id, timeout: 5s}\n  - <<: *a\n    command: ls\n  - *a\n",
			`{"task": "t", "steps": [{"host": "web1", "command": "id", "timeout": "5s"}, {"host": "web1", "command": "ls", "timeout": "5s"}, {"host": "web1", "command": "id", "timeout": "5s"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := parsePlan("plan.yaml", []byte(tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			want := &telexecv1.SubmitTaskRequest{}
			if err := protojson.Unmarshal([]byte(tt.want), want); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(p.req, want) {
				t.Errorf("got %v\nwant %v", p.req, want)
			}
		})
	}
}

func TestPlanThatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct{ yaml, want string }{
		"empty":            {"# nothing\n", "plan.yaml holds no plan"},
		"no YAML":          {"task: [\n", "not YAML"},
		"control bytes":    {"\x00\x01", ""},
		"a list":           {"- a\n", "plan.yaml:1: must be a mapping of keys, not a list"},
		"a word":           {"hello\n", "plan.yaml:1: must be a mapping of keys, not a single value"},
		"unknown key":      {"task: t\nstep: []\n", `plan.yaml:2: there is no key "step"; there are task, steps, priority,`},
		"of a step":        {"task: t\nsteps:\n  - name: restart\n    comand: ls\n", `plan.yaml:4: steps[0] "restart": there is no key "comand"; there are name, host, `},
		"deeper":           {"steps:\n  - host: a\n    retry: {time: 3}\n", `plan.yaml:3: steps[0]: retry: there is no key "time"; there are times, backoff`},
		"duration":         {"steps:\n  - name: x\n    timeout: 30\n", `plan.yaml:3: steps[0] "x": timeout: "30" is no length of time; write it as in 90s, 5m or 1h30m`},
		"number":           {"priority: high\n", `plan.yaml:1: priority: must be a whole number, not "high"`},
		"bool":             {"steps:\n  - needs_approval: yes\n", `plan.yaml:2: steps[0]: needs_approval: must be true or false, not "yes"`},
		"no list":          {"steps: {host: a}\n", "plan.yaml:1: steps: must be a list"},
		"hosts":            {"steps:\n  - hosts: web1\n", "plan.yaml:2: steps[0]: hosts: must be a list"},
		"map":              {"labels: {a: [b]}\n", "plan.yaml:1: labels: a: must be a single value"},
		"command":          {"steps:\n  - command: [ls]\n", "plan.yaml:2: steps[0]: command: must be a single value"},
		"a step in a word": {"steps: [ls]\n", "plan.yaml:1: steps[0]: must be a mapping of keys, not a single value"},
		"twice":            {"steps:\n  - host: a\n    needs_approval: true\n    needsApproval: false\n", "plan.yaml:4: steps[0]: needsApproval: it stands here twice"},
		"the same twice":   {"task: a\ntask: b\n", "plan.yaml:2: not YAML: "},
		"alias":            {"task: *nope\n", "plan.yaml:1: nothing stands behind the alias *nope"},
		"itself":           {"task: t\nsteps: &a [*a]\n", "plan.yaml:2: "},
		"two documents":    {"task: a\n---\ntask: b\n", "plan.yaml:3: a second document; a file holds one plan"},
		"several":          {"tusk: a\nsteps:\n  - hast: b\n", "the plan has 2 problems:\nplan.yaml:1: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parsePlan("plan.yaml", []byte(tt.yaml))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
		})
	}
}

// What is no plan costs little, however it is written.
func TestPlanBeyondItsBounds(t *testing.T) {
	times := strings.Repeat
	bomb := "a: &a {x: y}\n"
	for c := 'b'; c <= 'e'; c++ {
		bomb += fmt.Sprintf("%c: &%[1]c {<<: [%s]}\n", c, strings.TrimSuffix(times("*"+string(c-1)+", ", 20), ", "))
	}
	big := times("x", 100_000)
	for name, tt := range map[string]struct{ yaml, want string }{
		"bytes":            {"task: t\nsteps:\n  - command: \"echo \xff\xfe\"\n", "plan.yaml:3: not UTF-8 text: there is a byte 0xff"},
		"no character":     {"task: t\nlabels: {a: \"\\U00110000\"}\n", "plan.yaml:2: an escape that stands for no character"},
		"half a character": {"{\"task\": \"\\udfff\"}", "plan.yaml:1: "},
		"UTF-16":           {"\xff\xfet\x00", "plan.yaml:1: not UTF-8 text"},
		"brackets":         {"\ntask: " + times("[", 100_000), "plan.yaml:2: nested more than 20 deep"},
		"braces":           {"task: " + times("{a: ", 30_000), "plan.yaml:1: nested more than 20 deep"},
		"lines of them":    {times("[\n", 100_000), "plan.yaml:21: nested more than 20 deep"},
		"hyphens":          {times("- ", 100_000), "plan.yaml:1: nested more than 20 deep"},
		"questions":        {times("? ", 100_000), "plan.yaml:1: nested more than 20 deep"},
		"indentation":      {deep(1000), "plan.yaml:21: nested more than 20 deep"},
		"keys":             {many(50_000), "more than 40000 words and signs up to here"},
		"aliases":          {"a: &a b\nsteps: [" + times("*a,", 200_000) + "]", "plan.yaml:2: more than 40000 words"},
		"blank lines":      {"task: |\n" + times("\n", 500_000), "plan.yaml:202: more than 200 blank lines in a row"},
		"blanks":           {"task: |\n" + times("  \r\n", 100_000), "plan.yaml:202: more than 200 blank lines in a row"},
		"merges":           {bomb + "<<: *e\n", "more than 40000 keys and elements"},
		"merges of a step": {bomb + "steps: [*e, *e, *e]\n", "more than 40000 keys and elements"},
		"hosts":            {"steps:\n  - hosts: &h\n" + times("      - h\n", 5000) + times("  - hosts: *h\n", 99), "more than 40000 keys and elements"},
		"steps":            {"task: t\nsteps:\n" + times("-\n", 10_000), "plan.yaml:103: steps: the plan has 10000 steps; the limit is 100"},
		"text":             {"task: &t " + big + "\ncontext: {a: *t, b: *t}\n", "plan.yaml: the plan has 300002 bytes of text; the limit is 262144"},
		"names":            {"task: t\nsteps: [{hosts: [&h " + big + times(", *h", 100) + "]}]\n", "plan.yaml: the plan has 10100"},
		"problems":         {many(30), "the plan has more than 20 problems:\nplan.yaml:1: "},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := parsePlan("plan.yaml", []byte(tt.yaml))
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.400v\nwant %s", err, tt.want)
			}
			if err != nil && strings.Count(err.Error(), "\n") > 21 {
				t.Errorf("%d lines", strings.Count(err.Error(), "\n"))
			}
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 256 {
				t.Errorf("took %d MiB", mib)
			}
		})
	}
}

// deep is keys that stand in one another, each on its line.
func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// many is keys beside one another.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: v\n", i)
	}
	return b.String()
}

// The largest plans are within the bounds.
func TestPlanWithinItsBounds(t *testing.T) {
	step := "  - {host: web1, name: n, needsApproval: true, timeout: 5s, retry: {times: 3, backoff: 10s}, rollout: {canary: 1, parallel: 2}, command: \"" + strings.Repeat("x", 2500) + "\"}\n"
	for name, yaml := range map[string]string{
		"steps":                        "task: t\nsteps:\n" + strings.Repeat(step, 100),
		"hosts":                        "task: t\nsteps:\n  - hosts:\n" + strings.Repeat("      - web1\n", 1000),
		"arguments":                    "task: t\nsteps:\n  - argv:\n" + strings.Repeat("      - arg\n", 4096),
		"text":                         "task: " + strings.Repeat("x", planText),
		"lines":                        "task: |\n" + strings.Repeat("  echo\n\n", 20_000),
		"U+FFFD":                       "task: \"� \\ufffd \\uFFFD\"\n",
		"blank lines":                  "task: |\n  a\n" + strings.Repeat("\n", planBlank) + "  b\n",
		"many steps, indented by four": "task: t\nsteps:\n" + strings.Repeat("    - rollout:\n          canary: 1\n", 100),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parsePlan("plan.yaml", []byte(yaml)); err != nil {
				t.Error(err)
			}
		})
	}
}

func FuzzPlan(f *testing.F) {
	for _, s := range []string{"task: a", "steps: [{host: a, retry: {times: 1}}]", "{\"task\": 1}", "a: &a [*a]", "<<: {task: b}", "- - -"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parsePlan("x", []byte(s)); (p == nil) != (err != nil) {
			t.Errorf("%q: %v, %v", s, p, err)
		}
	})
}
