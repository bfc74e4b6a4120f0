package sshconn

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// The reading and matching of known_hosts files, as in sshd(8), "SSH_KNOWN_HOSTS
// FILE FORMAT". The libraries refuse a whole file for one line that they cannot
// read, a key type of tomorrow for instance, and with it every host in it; here,
// as in OpenSSH, such a line is no entry and the others count. Lines are read by
// x/crypto/ssh, and a test holds the matching against ssh-keygen -F.

// knownLine is one entry of a known_hosts file.
type knownLine struct {
	file    string
	number  int    // from 1
	marker  string // "", "cert-authority" or "revoked"
	pattern string // as written: patterns apart by commas, or one hash
	key     ssh.PublicKey
}

func (l knownLine) String() string { return fmt.Sprintf("%s:%d", l.file, l.number) }

// The markers.
const (
	markerAuthority = "cert-authority"
	markerRevoked   = "revoked"
)

// knownHosts is the content of some known_hosts files, in their order.
type knownHosts []knownLine

// readKnownHosts reads files. One that does not exist is empty.
func readKnownHosts(files []string) (knownHosts, error) {
	var all knownHosts
	for _, file := range files {
		content, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, parseKnownHosts(content, file)...)
	}
	return all, nil
}

// parseKnownHosts reads the content of a file. A line that is no entry is skipped.
func parseKnownHosts(content []byte, file string) knownHosts {
	var all knownHosts
	number := 0
	for line := range bytes.Lines(content) {
		number++
		marker, hosts, key, _, _, err := ssh.ParseKnownHosts(line)
		if err != nil || !slices.Contains([]string{"", markerAuthority, markerRevoked}, marker) {
			continue
		}
		all = append(all, knownLine{
			file: file, number: number, marker: marker, pattern: strings.Join(hosts, ","), key: key,
		})
	}
	return all
}

// matches reports whether the entry is for a host: name is as in knownName.
func (l knownLine) matches(name string) bool {
	if strings.HasPrefix(l.pattern, "|") {
		return matchHash(l.pattern, name)
	}
	found := false
	for pattern := range strings.SplitSeq(strings.ToLower(l.pattern), ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if pattern == "" || !matchPattern(pattern, name) {
			continue
		}
		if negated {
			return false
		}
		found = true
	}
	return found
}

// matchHash compares name with "|1|salt|hash", which is HMAC-SHA1 of the name.
func matchHash(pattern, name string) bool {
	parts := strings.Split(pattern, "|")
	if len(parts) != 4 || parts[1] != "1" {
		return false
	}
	salt, err1 := base64.StdEncoding.DecodeString(parts[2])
	hash, err2 := base64.StdEncoding.DecodeString(parts[3])
	if err1 != nil || err2 != nil {
		return false
	}
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return hmac.Equal(mac.Sum(nil), hash)
}

// matchPattern is the match of ssh_config(5), "PATTERNS": * and ?, without
// regard for dots and brackets. It takes time in proportion to the product of
// the lengths at most, because patterns come from files of others.
func matchPattern(pattern, s string) bool {
	star, mark := -1, 0 // where the last * was, and what of s it has taken
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}

// knownName is the name under which a host's key is looked up and written:
// "host" on port 22, else "[host]:port"; the alias as it is.
func knownName(address, alias string) string {
	if alias != "" {
		return strings.ToLower(alias)
	}
	return strings.ToLower(knownhosts.Normalize(address))
}

// withoutPort gives the host of "[host]:port"; false where there is no port.
func withoutPort(name string) (string, bool) {
	if end := strings.LastIndex(name, "]:"); strings.HasPrefix(name, "[") && end > 0 {
		return name[1:end], true
	}
	return name, false
}

// find gives the entries for name that have the marker.
func (k knownHosts) find(name, marker string) []knownLine {
	var found []knownLine
	for _, l := range k {
		if l.marker == marker && l.matches(name) {
			found = append(found, l)
		}
	}
	return found
}

// revoked gives the entry that revokes one of the keys, for whichever host it
// is written: a key that leaked somewhere is good nowhere.
func (k knownHosts) revoked(keys ...ssh.PublicKey) (knownLine, bool) {
	for _, l := range k {
		if l.marker == markerRevoked && slices.ContainsFunc(keys, func(key ssh.PublicKey) bool { return sameKey(l.key, key) }) {
			return l, true
		}
	}
	return knownLine{}, false
}

// holds reports whether one of the lines has the key.
func holds(lines []knownLine, key ssh.PublicKey) bool {
	return slices.ContainsFunc(lines, func(l knownLine) bool { return sameKey(l.key, key) })
}

// trusts reports whether the key is written for the host. As in OpenSSH, a host
// on a port of its own for which there is no entry may also have the key that is
// written for the host without a port.
func (k knownHosts) trusts(name string, key ssh.PublicKey) bool {
	if lines := k.find(name, ""); len(lines) > 0 {
		return holds(lines, key)
	}
	plain, ok := withoutPort(name)
	return ok && holds(k.find(plain, ""), key)
}

// authorities gives the entries of certificate authorities for the host.
func (k knownHosts) authorities(name string) []knownLine {
	lines := k.find(name, markerAuthority)
	if plain, ok := withoutPort(name); ok && len(lines) == 0 {
		lines = k.find(plain, markerAuthority)
	}
	return lines
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// algorithms gives the host key algorithms to ask for, so that the server shows
// a key that can be checked: certificates where an authority is known, then the
// types of the known keys, then all others, for a clear refusal instead of a
// failed negotiation.
func (k knownHosts) algorithms(name string) []string {
	known := k.find(name, "")
	if plain, ok := withoutPort(name); ok && len(known) == 0 {
		known = k.find(plain, "")
	}
	signed := len(k.authorities(name)) > 0
	rank := func(algorithm string) int {
		if isCertificate(algorithm) {
			if signed {
				return 0
			}
			return 3
		}
		if slices.ContainsFunc(known, func(l knownLine) bool { return l.key.Type() == keyFormat(algorithm) }) {
			return 1
		}
		return 2
	}
	all := ssh.SupportedAlgorithms().HostKeys
	if !signed {
		all = slices.DeleteFunc(all, isCertificate)
	}
	// Among equals, the modern and short keys first.
	preference := []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}
	place := func(algorithm string) int {
		if i := slices.Index(preference, algorithm); i >= 0 {
			return i
		}
		return len(preference)
	}
	slices.SortStableFunc(all, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return place(a) - place(b)
	})
	return all
}

func isCertificate(algorithm string) bool { return strings.Contains(algorithm, "-cert-") }

// keyFormat is the type of the keys that an algorithm signs with: the RSA
// signature algorithms share one (RFC 8332).
func keyFormat(algorithm string) string {
	if algorithm == ssh.KeyAlgoRSASHA256 || algorithm == ssh.KeyAlgoRSASHA512 {
		return ssh.KeyAlgoRSA
	}
	return algorithm
}
