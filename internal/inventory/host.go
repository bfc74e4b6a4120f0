package inventory

import (
	"time"

	"github.com/telexec/telexec/internal/secret"
)

// HostKeyPolicy says what to do with a host key that is not known. A key that
// differs from the known one is refused whatever the policy.
type HostKeyPolicy string

// The policies.
const (
	Strict    HostKeyPolicy = "strict"     // an unknown key is refused
	AcceptNew HostKeyPolicy = "accept-new" // an unknown key is written to known_hosts
)

// Source is where a host is defined.
type Source string

// The sources.
const (
	FromConfig    Source = "config"
	FromSSHConfig Source = "ssh_config"
)

// Host is an SSH target, with everything that is needed to connect to it:
// configuration file, ssh_config and defaults have been merged, paths are
// absolute, and jump hosts are resolved.
type Host struct {
	Name    string // what callers ask for
	Address string // host:port to dial
	User    string // login name

	IdentityFiles    []string    // private keys, tried in this order
	CertificateFiles []string    // OpenSSH certificates, matched to the keys
	IdentitiesOnly   bool        // of the agent's keys, only those in IdentityFiles
	Agent            string      // socket of the agent; empty: none
	Passphrase       secret.Text // of the private keys
	Password         secret.Text // for password and keyboard-interactive

	KnownHostsFiles []string // the first one is written by AcceptNew
	HostKeyAlias    string   // look up the key under this name instead
	HostKeyPolicy   HostKeyPolicy

	Via []Host // jump hosts, first hop first; at most MaxJumps; their own Via is empty

	ConnectTimeout    time.Duration // over dial, handshake and authentication; and over the opening of a channel
	KeepaliveInterval time.Duration // between keepalives; 0: none
	KeepaliveMax      int           // unanswered keepalives until the peer is dead

	MaxCommands int   // commands at once
	SpoolLimit  int64 // bytes per stream of a command that may lie there until it is through; 0: no limit
	NoShell     bool  // it has no POSIX shell
	Labels      map[string]string
	Source      Source
}

// MaxJumps is how many jump hosts a host may have.
const MaxJumps = 5
