// Package inventory knows the hosts: those of the service's own configuration
// and the aliases of ssh_config. Both become a Host, in which everything has been
// settled that is needed to connect: the address, the user, the keys, the files
// of known hosts, the jump hosts on the way.
//
// Start with Host and Open. An Inventory is read once and does not change; a name
// that is in neither place is no host, whatever it looks like.
package inventory

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
)

// Options is what an Inventory is made of.
type Options struct {
	Hosts       []config.Host       // of the configuration; names are unique
	SSHConfig   string              // path of ssh_config; empty: none. It may be absent
	Home        string              // directory that ~ stands for
	User        string              // login name where nothing names another
	SSH         config.SSH          // ConnectTimeout, Keepalive… and Agent are the defaults of every host
	MaxCommands int                 // of a host that does not say
	SpoolLimit  int64               // of a host that does not say
	Getenv      func(string) string // for variables in ssh_config; nil: none is set
}

// Inventory holds the hosts. It may be used by several goroutines at once.
type Inventory struct {
	home  string
	hosts map[string]resolved
}

// resolved is a host, or why it cannot be used.
type resolved struct {
	host Host
	err  error
}

// Open reads ssh_config and settles every host. Its errors are BAD_SSH_CONFIG with
// file and line, and BAD_CONFIG when hosts of the configuration cannot work, all of
// them at once. An alias that cannot work is told by Lookup: it may be in nobody's
// way.
func Open(o Options) (*Inventory, error) {
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	var file sshFile
	if o.SSHConfig != "" {
		reader := sshReader{home: o.Home, open: openSSHFile, glob: filepath.Glob}
		var err error
		if file, err = reader.read(o.SSHConfig, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	r := newResolver(o, file)
	inv := &Inventory{home: o.Home, hosts: make(map[string]resolved)}
	for name := range r.aliases {
		host, err := r.resolve(config.Target{Host: name})
		inv.hosts[name] = resolved{host, err}
	}
	var bad []fault.Field
	for i := range o.Hosts {
		name := o.Hosts[i].Name
		host, err := r.resolve(config.Target{Host: name})
		inv.hosts[name] = resolved{host, err}
		if e := fault.From(err); e != nil && e.Reason == fault.ReasonHostMisconfigured {
			bad = append(bad, fault.Field{Path: "hosts." + name, Message: e.Text()})
		}
	}
	if len(bad) > 0 {
		messages := make([]string, len(bad))
		for i, f := range bad {
			messages[i] = f.Message
		}
		e := fault.New(fault.Invalid, fault.ReasonBadConfig, "%s", strings.Join(messages, "\n")).
			WithHint("Mend these hosts in the configuration, or in ssh_config where they take it from there")
		e.Fields = bad
		return nil, e
	}
	return inv, nil
}

// Lookup gives a host by its name. UNKNOWN_HOST names those that are alike;
// NOT_SUPPORTED is for an alias with a ProxyCommand, HOST_MISCONFIGURED for one
// that cannot work, such as a loop of jump hosts.
//
// The caller may not change what the Host holds.
func (inv *Inventory) Lookup(name string) (Host, error) {
	r, known := inv.hosts[name]
	if !known {
		hint := "Take one of the configured hosts or an alias of ssh_config (telexec hosts lists them), or add it to hosts in the configuration"
		near := fault.Nearest(name, maps.Keys(inv.hosts))
		if t, err := config.ParseTarget(name); err == nil && len(near) == 0 {
			near = fault.Nearest(t.Host, maps.Keys(inv.hosts)) // of ops@web1:22, the host
		}
		if len(near) > 0 {
			hint = "Did you mean " + strings.Join(near, " or ") + "? telexec hosts lists all"
		}
		return Host{}, fault.New(fault.NotFound, fault.ReasonUnknownHost, "there is no host named %q", name).
			WithHint("%s", hint).With("host", name)
	}
	if r.err != nil {
		return Host{}, r.err
	}
	return inv.withKeys(r.host), nil
}

// List gives all hosts by name. A host that Lookup refuses is in it too, with
// what could be settled about it.
func (inv *Inventory) List() []Host {
	all := make([]Host, 0, len(inv.hosts))
	for _, r := range inv.hosts {
		all = append(all, inv.withKeys(r.host))
	}
	slices.SortFunc(all, func(a, b Host) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// defaultKeys are the names of private keys in ~/.ssh that are tried where none
// is named.
var defaultKeys = []string{"id_ed25519", "id_ecdsa", "id_rsa"}

// withKeys adds the default keys and certificates to a host and its jump hosts
// where nothing was said about them (nil; an empty list says: none). It looks at
// each call, so that a key made after the start is found.
func (inv *Inventory) withKeys(h Host) Host {
	if h.IdentityFiles == nil {
		for _, name := range defaultKeys {
			if path := filepath.Join(inv.home, ".ssh", name); exists(path) {
				h.IdentityFiles = append(h.IdentityFiles, path)
			}
		}
	}
	if h.CertificateFiles == nil {
		for _, key := range h.IdentityFiles {
			if path := key + "-cert.pub"; exists(path) {
				h.CertificateFiles = append(h.CertificateFiles, path)
			}
		}
	}
	if len(h.Via) > 0 {
		h.Via = slices.Clone(h.Via)
		for i := range h.Via {
			h.Via[i] = inv.withKeys(h.Via[i])
		}
	}
	return h
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
