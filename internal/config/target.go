package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Target names a host to connect to: [user@]host[:port]. The host is a name, an
// address, or an alias that somebody else resolves.
type Target struct {
	User string // empty: not given
	Host string // without brackets
	Port int    // 1 to 65535; 0: not given
}

// NoTarget is the word for "nowhere", as in proxy_jump: none.
const NoTarget = "none"

// ParseTarget reads [user@]host[:port], with an IPv6 address in brackets where a
// port follows, or as ssh://[user@]host[:port].
func ParseTarget(text string) (Target, error) {
	bad := fmt.Errorf("%q is not a host: write host, host:port or [IPv6]:port", text)
	var t Target
	rest := strings.TrimSuffix(text, "/")
	rest, url := strings.CutPrefix(rest, "ssh://")
	if !url {
		rest = text
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if t.User, rest = rest[:i], rest[i+1:]; t.User == "" {
			return Target{}, bad
		}
	}
	t.Host = rest
	switch {
	case strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "]"):
		t.Host = rest[1 : len(rest)-1]
	case strings.HasPrefix(rest, "["), strings.Count(rest, ":") == 1:
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			return Target{}, bad
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Target{}, bad
		}
		t.Host, t.Port = host, int(n)
	}
	if strings.Contains(t.Host, ":") {
		if _, err := netip.ParseAddr(t.Host); err != nil {
			return Target{}, bad
		}
	}
	if t.Host == "" || t.Host[0] == '-' || strings.ContainsFunc(t.Host, notInHost) || strings.ContainsFunc(t.User, notInUser) {
		return Target{}, bad
	}
	return t, nil
}

// notInHost finds what no host name, address or alias has.
func notInHost(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("[]@/,", r) }

func notInUser(r rune) bool { return r < ' ' || r == 0x7f }

// UnmarshalText is ParseTarget.
func (t *Target) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTarget(string(b))
	return err
}

// String gives the form that ParseTarget reads.
func (t Target) String() string {
	s := t.Host
	switch {
	case t.Port != 0:
		s = net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
	case t.User != "" && strings.Contains(s, ":"):
		s = "[" + s + "]"
	}
	if t.User != "" {
		s = t.User + "@" + s
	}
	return s
}
