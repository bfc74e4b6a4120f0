package inventory

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
)

// FuzzSSHConfig reads any text as ssh_config, which may include itself, and
// settles every host in it. It never panics nor hangs, and its errors are ours.
func FuzzSSHConfig(f *testing.F) {
	for _, s := range []string{
		"Host a b !c *\n HostName %h.x\n Port 22\nProxyJump u@b:22,[::1]:2\n",
		"Match final host a,!b user x\nIdentityFile ~/${X}/%d\nMatch !all\n",
		"Include /self /other\nHost=a\nUserKnownHostsFile \"a b\" c\\ d # e\n",
		"Host a\nProxyJump a\nHost b\nProxyCommand none\nServerAliveInterval 1w2d\n",
		"\"Host\" a\n\tStrictHostKeyChecking no\r\nIdentityAgent $X\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := sshReader{
			home: "/home/me",
			open: func(path string) ([]byte, error) {
				switch path {
				case "/config", "/self":
					return []byte(text), nil
				case "/other":
					return []byte("Host other\nPort 1\n"), nil
				}
				return nil, fs.ErrNotExist
			},
			glob: func(pattern string) ([]string, error) { return []string{pattern}, nil },
		}
		file, err := r.read("/config", 0)
		if err != nil {
			if _, ok := errors.AsType[*fault.Error](err); !ok {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		res := newResolver(Options{Home: "/home/me", User: "me", Getenv: func(string) string { return "x" }}, file)
		for name := range res.aliases {
			h, err := res.resolve(config.Target{Host: name})
			if err != nil {
				if _, ok := errors.AsType[*fault.Error](err); !ok {
					t.Errorf("%T %v", err, err)
				}
				continue
			}
			if h.Address == "" || h.User == "" || h.HostKeyPolicy == "" || len(h.Via) > MaxJumps {
				t.Errorf("%q: %+v", name, h)
			}
		}
	})
}

// FuzzMatches holds the pattern matcher against a plain recursive one.
func FuzzMatches(f *testing.F) {
	for _, s := range [][2]string{{"web1.example.com", "web?.*.com"}, {"aab", "*a*b"}, {"", "*"}, {"a", ""}, {"abc", "a**c?"}} {
		f.Add(s[0], s[1])
	}
	var plain func(s, p string) bool
	plain = func(s, p string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return plain(s, p[1:]) || s != "" && plain(s[1:], p)
		}
		return s != "" && (p[0] == '?' || p[0] == s[0]) && plain(s[1:], p[1:])
	}
	f.Fuzz(func(t *testing.T, s, p string) {
		if len(s) > 12 || len(p) > 12 {
			return // the plain one takes exponential time
		}
		if got, want := matches(s, p), plain(s, p); got != want {
			t.Errorf("matches(%q, %q) is %v", s, p, got)
		}
	})
}
