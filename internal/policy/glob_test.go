package policy

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"*", "", true}, {"?", "", false}, {"a", "a", true}, {"a", "A", false},
		{"*.log", "x.log", true}, {"*.log", "a/x.log", true}, {"web?", "web1", true}, {"web?", "web", false}, {"?", "é", true}, {"??", "é", false},
		{"[a]", "[a]", true}, {"[a]", "a", false},
	} {
		if got := glob(c.pattern, c.text); got != c.want {
			t.Errorf("glob(%q, %q) is %v", c.pattern, c.text, got)
		}
	}
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/tmp/*", "/tmp/a", true}, {"/tmp/*", "/tmp/a/b", false}, {"/tmp/**", "/tmp/a/b", true}, {"/tmp/*/b", "/tmp/a/b", true},
		{"/tmp/?", "/tmp//", false}, {"/tmp/**", "/tmp/../x", false}, {"/tmp/**", "/tmp/a/../../x", false}, {"/tmp/**", "/tmp/./x", false},
		{"**", "..", false}, {"**", "../x", false}, {"**/x", "a/b/x", true}, {"*/**/x", "a/b/c/x", true}, {"/tmp/..", "/tmp/..", true},
		{"**/*.log", "a/b/c.log", true}, {"**/a*c/d", "x/abc/abc/d", true}, {"**/a*c/d", "x/abc/ab/d", false},
	} {
		if got := globPath(c.pattern, c.path); got != c.want {
			t.Errorf("globPath(%q, %q) is %v", c.pattern, c.path, got)
		}
	}
}

// The walk finds what a regular expression finds.
func TestGlobAgainstExpressions(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(from []string, n int) string {
		var b strings.Builder
		for range r.IntN(n) {
			b.WriteString(from[r.IntN(len(from))])
		}
		return b.String()
	}
	for range 50_000 {
		pattern, text := pick([]string{"a", "b", "/", "*", "**", "?"}, 8), pick([]string{"a", "b", "/"}, 10)
		for slash, words := range map[bool][]string{
			false: {"**", ".*", "*", ".*", "?", "."},
			true:  {"***", ".*", "**", ".*", "*", "[^/]*", "?", "[^/]"},
		} {
			// Three stars and more are what two are.
			for slash && strings.Contains(pattern, "***") {
				pattern = strings.ReplaceAll(pattern, "***", "**")
			}
			want := regexp.MustCompile("^" + strings.NewReplacer(words...).Replace(pattern) + "$").MatchString(text)
			if got := match(pattern, text, slash); got != want {
				t.Fatalf("match(%q, %q, %v) is %v", pattern, text, slash, got)
			}
		}
	}
}

// No pattern makes it walk back more than it has to.
func TestGlobIsFast(t *testing.T) {
	start := time.Now()
	text := strings.Repeat("a", 100_000)
	if glob(strings.Repeat("*a", 50)+"b", text) || match(strings.Repeat("**a*a", 20)+"b", text, true) {
		t.Error("a text without a b matches")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}
