package inventory

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
)

// resolver settles hosts: it merges what the configuration says with what
// ssh_config says and the defaults, in this order, and walks the jump hosts.
type resolver struct {
	Options
	file      sshFile
	byName    map[string]*config.Host
	aliases   map[string]bool        // names that ssh_config gives settings for
	said      map[string]*sshOptions // what it says, by name; filled as it is asked for
	localHost string
	localUID  string
}

func newResolver(o Options, file sshFile) *resolver {
	r := &resolver{Options: o, file: file, byName: make(map[string]*config.Host), aliases: make(map[string]bool), said: make(map[string]*sshOptions)}
	for i := range o.Hosts {
		r.byName[o.Hosts[i].Name] = &o.Hosts[i]
	}
	names := make(map[string]bool)
	file.names(names)
	for name := range names {
		if r.options(name).named {
			r.aliases[name] = true
		}
	}
	r.localHost, _ = os.Hostname() // only for tokens that hardly anybody uses
	r.localUID = strconv.Itoa(os.Getuid())
	return r
}

// options gives what ssh_config says about a name. It is played once for each: a
// jump host is on the way to many.
func (r *resolver) options(name string) *sshOptions {
	said := r.said[name]
	if said == nil {
		said = r.file.options(name, r.User)
		r.said[name] = said
	}
	return said
}

// resolve settles a host: one of the configuration, an alias, or else an address.
// The host is as complete as it could be made even with an error.
func (r *resolver) resolve(t config.Target) (Host, error) {
	return r.walk(t, true, nil)
}

// walk is resolve on the way of jump hosts that path tells. With jumps false, the
// host's own jump hosts do not count, because the hop before it is already named.
func (r *resolver) walk(t config.Target, jumps bool, path []string) (Host, error) {
	t = r.whole(t)
	h, hops, err := r.settle(t)
	if err != nil || !jumps {
		return h, err
	}
	path = append(slices.Clip(path), t.Host)
	for i, hop := range hops {
		hop = r.whole(hop)
		if slices.Contains(path, hop.Host) {
			return h, misconfigured(path[0], "its jump hosts go round in a circle: %s", strings.Join(append(path, hop.Host), " → ")).
				WithHint("Leave the jump host itself out, with Host * !%s in ssh_config or proxy_jump: none in the configuration", hop.Host)
		}
		// As with ssh -J, the first hop is reached as its own settings say, and every
		// other one through the hop before it.
		via, err := r.walk(hop, i == 0, path)
		if err != nil {
			return h, err
		}
		h.Via = append(h.Via, via.Via...)
		via.Via = nil
		h.Via = append(h.Via, via)
	}
	if len(h.Via) > MaxJumps {
		names := make([]string, len(h.Via))
		for i := range h.Via {
			names[i] = h.Via[i].Name
		}
		h.Via = nil
		return h, misconfigured(h.Name, "it has %d jump hosts (%s), and at most %d are possible", len(names), strings.Join(names, ", "), MaxJumps).
			WithHint("Take a shorter way to it")
	}
	return h, nil
}

// whole takes a target that is the name of a host as a whole, such as ops@web1,
// for that name.
func (r *resolver) whole(t config.Target) config.Target {
	if name := t.String(); r.byName[name] != nil {
		return config.Target{Host: name}
	}
	return t
}

func misconfigured(host, format string, args ...any) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonHostMisconfigured, "the host %s cannot be used: %s", host, fmt.Sprintf(format, args...)).
		With("host", host)
}

// settle merges all that is said about a host, and gives its jump hosts.
func (r *resolver) settle(t config.Target) (Host, []config.Target, error) {
	own := r.byName[t.Host]
	said := &sshOptions{}
	address := t.Host
	h := Host{Name: t.String(), Source: FromSSHConfig}
	switch {
	case own != nil:
		h.Source, address = FromConfig, own.Address.Host
		// Only an alias brings ssh_config in: a host that the configuration describes
		// by its address is not changed by Host * in a file beside it.
		if r.aliases[address] {
			said = r.options(address)
		}
	default:
		own = &config.Host{}
		said = r.options(address)
	}
	if own.Name != "" && t.User == "" && t.Port == 0 {
		h.Name = own.Name
	}

	h.User = cmp.Or(t.User, own.User, set(said.user), r.User)
	port := cmp.Or(t.Port, own.Address.Port, set(said.port), 22)
	host := address
	var err error
	if said.hostName != nil {
		if host, err = expand(*said.hostName, map[byte]string{'h': address}); err != nil {
			return h, nil, misconfigured(h.Name, "HostName in ssh_config: %v", err).WithHint("Only %%h and %%%% can be used there")
		}
	}
	if _, err := netip.ParseAddr(host); err != nil {
		host = strings.ToLower(host) // as OpenSSH does with names, so that known_hosts agrees
	}
	h.Address = net.JoinHostPort(host, strconv.Itoa(port))

	h.Password, h.Passphrase = own.Password, own.Passphrase
	h.HostKeyAlias = cmp.Or(own.HostKeyAlias, set(said.hostKeyAlias))
	h.HostKeyPolicy = cmp.Or(HostKeyPolicy(own.HostKeyPolicy), set(said.policy), Strict)
	h.ConnectTimeout = cmp.Or(own.ConnectTimeout, set(said.connectTimeout), r.SSH.ConnectTimeout)
	h.KeepaliveInterval = or(said.aliveInterval, r.SSH.KeepaliveInterval)
	h.KeepaliveMax = max(1, or(said.aliveMax, r.SSH.KeepaliveMax))
	h.IdentitiesOnly = set(said.identitiesOnly)
	h.MaxCommands = cmp.Or(own.MaxCommands, r.MaxCommands)
	h.SpoolLimit = cmp.Or(own.SpoolLimit, r.SpoolLimit)
	h.NoShell = own.Shell == "none"
	h.Labels = own.Labels

	e := r.expander(&h, address, host, port)
	if err := r.files(&h, own, said, e); err != nil {
		return h, nil, misconfigured(h.Name, "in ssh_config, %v", err).
			WithHint("Write the path out, or set the variable for the service")
	}
	hops, err := r.jumps(h.Name, own, said)
	return h, hops, err
}

// expander gives what tokens stand for in ssh_config's paths for a host.
func (r *resolver) expander(h *Host, alias, host string, port int) expander {
	short, _, _ := strings.Cut(r.localHost, ".")
	return expander{
		home:   r.Home,
		getenv: r.Getenv,
		tokens: map[byte]string{
			'd': r.Home, 'i': r.localUID, 'u': r.User, 'L': short, 'l': r.localHost,
			'n': alias, 'h': host, 'p': strconv.Itoa(port), 'r': h.User,
			'k': cmp.Or(h.HostKeyAlias, alias),
		},
	}
}

// files settles the keys, the certificates, the known hosts and the agent. A list
// of keys or certificates stays nil where nothing is said about it.
func (r *resolver) files(h *Host, own *config.Host, said *sshOptions, e expander) (err error) {
	either := func(own, said []string) []string {
		switch {
		case len(own) > 0:
			return own
		case len(said) == 0 || err != nil:
			return nil
		}
		var paths []string
		paths, err = e.paths(said)
		return paths
	}
	h.IdentityFiles = either(own.IdentityFile, said.identityFiles)
	h.CertificateFiles = either(own.CertificateFile, said.certificateFiles)
	h.KnownHostsFiles = either(own.KnownHostsFile, slices.Concat(
		or(said.userKnownHosts, []string{"~/.ssh/known_hosts", "~/.ssh/known_hosts2"}),
		or(said.globalKnownHosts, []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"})))
	if err != nil {
		return err
	}
	h.Agent, err = r.agent(said.identityAgent, e)
	return err
}

// agent gives the socket of the agent; empty for none.
func (r *resolver) agent(said *string, e expander) (string, error) {
	switch {
	case said == nil:
		return r.SSH.Agent, nil
	case strings.EqualFold(*said, none):
		return "", nil
	case *said == "SSH_AUTH_SOCK":
		return r.Getenv(*said), nil
	case strings.HasPrefix(*said, "$") && !strings.HasPrefix(*said, "${"):
		return r.Getenv((*said)[1:]), nil
	}
	return e.path(*said)
}

// jumps gives the jump hosts that are named for a host.
func (r *resolver) jumps(name string, own *config.Host, said *sshOptions) ([]config.Target, error) {
	switch {
	case len(own.ProxyJump) > 0:
		if own.ProxyJump[0].Host == config.NoTarget {
			return nil, nil
		}
		return own.ProxyJump, nil
	case said.proxyCommand != nil && !strings.EqualFold(*said.proxyCommand, none):
		return nil, fault.New(fault.Unsupported, fault.ReasonNotSupported,
			"the host %s needs the ProxyCommand of ssh_config, which is not run", name).
			WithHint("Give it a ProxyJump in ssh_config, or an entry in hosts with proxy_jump").
			With("host", name)
	}
	return set(said.jump), nil
}

// set gives what an option was set to, else the zero value.
func set[T any](option *T) T {
	var zero T
	return or(option, zero)
}

// or gives what an option was set to, else another value.
func or[T any](option *T, otherwise T) T {
	if option == nil {
		return otherwise
	}
	return *option
}
