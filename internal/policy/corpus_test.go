package policy_test

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/policy"
)

// lookers is the allow-list of the corpora.
func lookers(t testing.TB) *policy.Policy {
	t.Helper()
	return newPolicy(t, policy.Rules{Default: policy.Deny, Rules: []policy.Rule{
		{Name: "look", Effect: policy.Allow, Match: policy.Match{Programs: lookPrograms}},
		{Name: "update", Effect: policy.Allow, Match: policy.Match{Commands: []string{"apt update"}}},
	}})
}

var lookPrograms = []string{"ls", "cat", "uptime", "df", "grep", "echo", "date", "head", "find", "printf", "test", "[", "true", "env", ":", "read", "exit",
	"shift", "wait", "ulimit", "cd"}

func newPolicy(t testing.TB, rules policy.Rules) *policy.Policy {
	t.Helper()
	p, err := policy.New(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var written = strings.NewReplacer("⏎", "\n", "⇥", "\t", "␍", "\r", "␀", "\x00")

// corpus reads the commands of a file of testdata.
func corpus(t testing.TB, name string) []string {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "\t#")
		if line == "" || strings.HasPrefix(line, "# ") {
			continue
		}
		lines = append(lines, written.Replace(line))
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	return lines
}

func TestNothingSlipsPast(t *testing.T) {
	p := lookers(t)
	lines := corpus(t, "slip.txt")
	if len(lines) < 150 {
		t.Fatalf("the corpus has %d lines only", len(lines))
	}
	for _, line := range lines {
		d := p.Decide(policy.Request{Line: line})
		if d.Effect != policy.Deny || d.Reason == "" {
			t.Errorf("%q is %s: %s", line, d.Effect, d.Reason)
		}
		// An approval of one program, and a rule for what is not known, are no way
		// around the default either.
		if !d.Parsed && d.Why == "" {
			t.Errorf("%q was not taken apart, and it is not told why", line)
		}
	}
}

func TestHonestCommandsRun(t *testing.T) {
	p := lookers(t)
	lines := corpus(t, "honest.txt")
	if len(lines) < 60 {
		t.Fatalf("the corpus has %d lines only", len(lines))
	}
	for _, line := range lines {
		if d := p.Decide(policy.Request{Line: line}); d.Effect != policy.Allow || !d.Parsed {
			t.Errorf("%q is %s: %s", line, d.Effect, d.Reason)
		}
	}
}

// What hides a program from an allow-list must not hide it from a deny-list: a
// slip attempt that runs id, or may, is not let through where id is denied.
func TestDenyListsAreNotSlippedPast(t *testing.T) {
	p := newPolicy(t, policy.Rules{Default: policy.Allow, Rules: []policy.Rule{
		{Name: "no-id", Effect: policy.Deny, Match: policy.Match{Programs: []string{"id"}}},
	}})
	for _, line := range []string{"id", "/usr/bin/id", "ls; id", "ls $(id)", "$(echo id)", "i\"\"d", "eval $x", "sh -c id", "env -S id", "{id,}", "x() { id; }; x",
		"find . -exec id \\;", "strace id", "echo $'\\'' ; id #'", "ls <(id)", "ls | xargs id", "/???/id", "sudo id", "busybox id", "i${x}d", "if",
		"/lib64/ld-linux-x86-64.so.2 /bin/id", "/lib/ld-musl-x86_64.so.1 /bin/id", "ld.so /bin/id", "ld-linux.so.2 /bin/id", "systemd-cat id", "systemd-nspawn id",
		"tini id", "dumb-init id", "catatonit id", "torify id", "trickle id", "scl enable x id", "sem id", "tmux new id", "screen -dm id", "ip netns exec x id",
		"ip -4 -s netns exec x id", "ip -n x netns exec y id", "ip -f inet netns exec x id", "ip net e x id", "ip vrf exec x id", "ip -b x", "ip --batch x", "ip $x", "ip netns $x", "ip $x exec y id", "ls | xargs ip",
		"ls | xargs ip netns", "/sbin/ip netns exec x id", "keychain id", "with-contenv id", "hyperfine id"} {
		if d := p.Decide(policy.Request{Line: line}); d.Effect != policy.Deny || d.Rule != "no-id" {
			t.Errorf("%q is %s by %s", line, d.Effect, d.Rule)
		}
	}
	for _, line := range []string{"ls", "ls $x", "apt update; rm -rf /tmp/x", "echo id", "PATH=/tmp ls > /tmp/x", "ip addr show $x", "ip -4 addr show dev \"$x\"", "ip -br a",
		"ip -n x link set $x up", "ip netns list", "ip neigh", "ip -6 route get $x", "xargs ip link show", "ip link add vrf0 type vrf table 10", "ip"} {
		if d := p.Decide(policy.Request{Line: line}); d.Effect != policy.Allow {
			t.Errorf("%q is %s: %s", line, d.Effect, d.Reason)
		}
	}
}
