package config_test

import (
	"math"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/config"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "30s": 30 * time.Second, "1h30m": 90 * time.Minute, "500ms": 500 * time.Millisecond,
		"30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "0d": 0, "106751d": 106751 * 24 * time.Hour,
	} {
		if got, err := config.ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "30", "d", "-1d", "-1s", "+1s", "1d-1h", "1dd", "1.5d", "106751d24h", "106752d", "99999999999d", "1w", "abc"} {
		if got, err := config.ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "65536": 65536, "64KiB": 65536, "10MiB": 10 << 20, "10 mib": 10 << 20, "1GB": 1e9, "1GiB": 1 << 30,
		"5B": 5, "2kB": 2000, "3MB": 3e6, "1TB": 1e12, "1TiB": 1 << 40, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := config.ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "10M", "1.5GiB", "1 000", "0x10", "9223372036854775808", "9223372036854775807KiB"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		text, back string
		want       config.Target
	}{
		{"web1", "", config.Target{Host: "web1"}},
		{"web1:22", "", config.Target{Host: "web1", Port: 22}},
		{"ops@web1:22", "", config.Target{User: "ops", Host: "web1", Port: 22}},
		{"ops@corp@web1", "", config.Target{User: "ops@corp", Host: "web1"}},
		{"::1", "", config.Target{Host: "::1"}},
		{"[::1]", "::1", config.Target{Host: "::1"}},
		{"[::1]:22", "", config.Target{Host: "::1", Port: 22}},
		{"ops@[::1]", "", config.Target{User: "ops", Host: "::1"}},
		{"fe80::1%eth0", "", config.Target{Host: "fe80::1%eth0"}},
		{"ssh://ops@web1:22/", "ops@web1:22", config.Target{User: "ops", Host: "web1", Port: 22}},
	} {
		got, err := config.ParseTarget(c.text)
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v, want %+v", c.text, got, err, c.want)
		}
		if c.back == "" {
			c.back = c.text
		}
		if got.String() != c.back {
			t.Errorf("%q comes back as %q, want %q", c.text, got, c.back)
		}
	}
	for _, text := range []string{
		"", "@web1", "ops@", "web1:", "web1:0", "web1:65536", "web1:ssh", ":22", "[::1", "[::1]x", "[]", "[]:22", "a b", "-oProxyCommand=x",
		"ops@-x", "a,b", "a/b", "ssh://", "a\x00b", "o\nps@a",
	} {
		if got, err := config.ParseTarget(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"a", "u@a:1", "[::1]:22", "ssh://u@[::1]:22/", "a%b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := config.ParseTarget(text)
		if err != nil {
			return
		}
		if again, err := config.ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%q is %+v, which comes back from %q as %+v, %v", text, got, got, again, err)
		}
	})
}
