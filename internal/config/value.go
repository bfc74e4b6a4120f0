package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// place is where a text was found, as far as its meaning depends on it.
type place struct {
	home string // what ~ stands for; empty: unknown
	dir  string // what relative paths start from
}

// setText parses text into v as the field's type and tags say. Files, variables,
// flags and defaults all come through here, so that a value means the same
// wherever it stands. The error says what is wrong and what would be right.
func setText(v reflect.Value, tag reflect.StructTag, text string, at place) error {
	if words := tag.Get("enum"); words != "" {
		return setWord(v, strings.Split(words, "|"), text)
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	kind := tag.Get("kind")
	switch v.Kind() {
	case reflect.String:
		s, err := checked(kind, text, at)
		if err != nil {
			return err
		}
		v.SetString(s)
	case reflect.Float64:
		n, err := within(text, tag, parseDecimal)
		if err != nil {
			return err
		}
		v.SetFloat(n)
	default:
		n, err := within(text, tag, func(s string) (int64, error) { return number(v, kind, s) })
		if err != nil {
			return err
		}
		v.SetInt(n)
	}
	return nil
}

// within parses a number and holds it against the range in the tag, which is
// written as the number is.
func within[N cmp.Ordered](text string, tag reflect.StructTag, parse func(string) (N, error)) (N, error) {
	n, err := parse(text)
	if err != nil {
		return n, err
	}
	for _, limit := range []struct {
		tag, is string
		beyond  func(limit N) bool
	}{
		{"min", "less than", func(limit N) bool { return n < limit }},
		{"max", "more than", func(limit N) bool { return n > limit }},
	} {
		if s := tag.Get(limit.tag); s != "" {
			if bound, err := parse(s); err != nil || limit.beyond(bound) {
				return n, fmt.Errorf("%q is %s %s", text, limit.is, s)
			}
		}
	}
	return n, nil
}

// setWord sets one of the allowed words.
func setWord(v reflect.Value, words []string, text string) error {
	for _, w := range words {
		if w != text {
			continue
		}
		if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
			return u.UnmarshalText([]byte(text))
		}
		if v.Kind() == reflect.Bool {
			v.SetBool(text == "true")
			return nil
		}
		v.SetString(text)
		return nil
	}
	return fmt.Errorf("%q is not one of %s", text, strings.Join(words, ", "))
}

// decimal is how a number with decimals is written: no sign, no exponent.
var decimal = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

func parseDecimal(text string) (float64, error) {
	if n, err := strconv.ParseFloat(text, 64); err == nil && decimal.MatchString(text) {
		return n, nil
	}
	return 0, fmt.Errorf("%q is not a number such as 100 or 0.5", text)
}

// number reads what is kept as an integer: durations, sizes, counts.
func number(v reflect.Value, kind, text string) (int64, error) {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		d, err := ParseDuration(text)
		return int64(d), err
	case kind == "size":
		return ParseSize(text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", text)
	}
	return n, nil
}

// hostName is what a host may be called: it stands in URLs and on command lines.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,254}$`)

// Names of the settings' own: an issuer's stands in names of principals, between
// colons, and a rule's in messages and in the audit.
var (
	issuerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	ruleName   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}$`)
)

// checked reads a string of a kind.
func checked(kind, text string, at place) (string, error) {
	switch kind {
	case "addr":
		return text, checkAddr(text)
	case "path":
		return at.path(text)
	case "pathOrNone":
		if text == "" || text == "none" {
			return "", nil
		}
		return at.path(text)
	case "hostName":
		if !hostName.MatchString(text) || text == NoTarget {
			return "", fmt.Errorf("%q is no name for a host; take up to 255 letters, digits and _ . : @ + -, a letter, digit or _ first, but not none", text)
		}
	case "httpHost":
		if text == "" || strings.ContainsAny(text, "/@ *") {
			return "", fmt.Errorf("%q is not a name or address, with a port or without", text)
		}
		return strings.ToLower(text), nil
	case "origin":
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != text {
			return "", fmt.Errorf("%q is not an origin such as https://ops.example.com", text)
		}
	case "issuerName":
		if !issuerName.MatchString(text) {
			return "", fmt.Errorf("%q is no name for an issuer; take up to 32 small letters, digits and -, no - first or last", text)
		}
	case "ruleName":
		if !ruleName.MatchString(text) || text == "default" || text == "action_types" || text == "step" {
			return "", fmt.Errorf("%q is no name for a rule; take up to 100 letters, digits and _ . : -, a letter, digit or _ first, but not default, action_types or step", text)
		}
	case "prompt":
		return text, checkPrompt(text)
	case "jwksURL":
		return text, checkJWKSURL(text)
	case "glob":
		if _, err := path.Match(text, ""); err != nil || text == "" {
			return "", fmt.Errorf("%q is not a pattern such as web*", text)
		}
	case "pattern", "word":
		if text == "" {
			return "", errors.New("must not be empty")
		}
	}
	return text, nil
}

// checkJWKSURL wants https, so that nobody on the way exchanges the keys.
func checkJWKSURL(text string) error {
	u, err := url.Parse(text)
	if err == nil && u.Hostname() != "" && u.User == nil && u.Fragment == "" {
		ip, _ := netip.ParseAddr(u.Hostname())
		if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip.IsLoopback()) {
			return nil
		}
	}
	return fmt.Errorf("%q is not a URL such as https://login.example.com/.well-known/jwks.json; http is for loopback only", text)
}

func checkAddr(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on such as 127.0.0.1:7070 or [::1]:7070", text)
	}
	return nil
}

// path makes a path absolute: ~ is the home directory, and a relative path starts
// where the text was found.
func (at place) path(text string) (string, error) {
	if text == "" {
		return "", errors.New("a path is missing")
	}
	if text == "~" || strings.HasPrefix(text, "~/") {
		if at.home == "" {
			return "", fmt.Errorf("%q cannot be expanded, because HOME is not set; write the whole path", text)
		}
		return filepath.Join(at.home, text[1:]), nil
	}
	if strings.HasPrefix(text, "~") {
		return "", fmt.Errorf("%q: only ~/ is expanded; write the whole path", text)
	}
	if filepath.IsAbs(text) {
		return filepath.Clean(text), nil
	}
	return filepath.Join(at.dir, text), nil
}

// ParseDuration reads a duration that is not negative: Go's form with days in
// front, such as 90s, 1h30m, 30d or 1d12h.
func ParseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration such as 500ms, 30s, 1h30m or 30d", text)
	const day = 24 * time.Hour
	var days time.Duration
	rest := text
	if n, after, ok := strings.Cut(text, "d"); ok {
		count, err := strconv.ParseUint(n, 10, 31)
		if err != nil || count > uint64(math.MaxInt64/day) {
			return 0, bad
		}
		days, rest = time.Duration(count)*day, after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || rest[0] == '-' || rest[0] == '+' || d > math.MaxInt64-days {
		return 0, bad
	}
	return days + d, nil
}

// units are the units of sizes, each with its number of bytes.
var units = map[string]int64{
	"": 1, "b": 1,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
}

// ParseSize reads a number of bytes that is not negative: 1048576, 10MiB, 1GB.
func ParseSize(text string) (int64, error) {
	digits := strings.TrimLeft(text, "0123456789")
	n, err := strconv.ParseInt(text[:len(text)-len(digits)], 10, 64)
	unit, known := units[strings.ToLower(strings.TrimSpace(digits))]
	if err != nil || !known || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size such as 65536, 64KiB, 10MiB or 1GB", text)
	}
	return n * unit, nil
}
