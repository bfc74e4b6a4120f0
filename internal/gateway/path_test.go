package gateway

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestAfterTheLoginNobodyIsSentElsewhere(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/v1/hosts": "/v1/hosts", "/v1/hosts?a=b&c=http://x": "/v1/hosts?a=b&c=http://x", "/a#b": "/a#b",
		"": "/", "v1": "/", "//evil.example": "/", "/\\evil.example": "/", "\\\\evil.example": "/", "/\t/evil.example": "/", "/\n/evil.example": "/",
		"https://evil.example/": "/", "javascript:alert(1)": "/", "///evil.example": "/", "/..//evil.example": "/", "/.//evil.example": "/",
		" /x": "/", "/x y": "/", "/é": "/", "/%zz": "/", "/\x00": "/", "/" + strings.Repeat("x", maxNext): "/",
	} {
		if got := localPath(path); got != want {
			t.Errorf("%q: %q", path, got)
		}
	}
}

// Wherever a browser is sent, it is to this server.
func FuzzLocalPath(f *testing.F) {
	for _, seed := range []string{"/", "//x", "/\\x", "/%2f/x", "/a?b#c", "http://x", "/;//x", "/@x", "/a/../..//x"} {
		f.Add(seed)
	}
	base := &url.URL{Scheme: "http", Host: "telexec.example", Path: "/login"}
	f.Fuzz(func(t *testing.T, s string) {
		path := localPath(s)
		to, err := base.Parse(path)
		if err != nil || to.Host != base.Host || to.Scheme != base.Scheme || to.User != nil {
			t.Errorf("%q leads to %v, %v", s, to, err)
		}
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t ") {
			t.Errorf("%q gives %q", s, path)
		}
	})
}

func TestSpokenTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{12 * time.Hour: "12 hours", time.Hour: "1 hour", 90 * time.Minute: "90 minutes", time.Second: "1 minute"} {
		if got := spoken(d); got != want {
			t.Errorf("%v: %q", d, got)
		}
	}
}
