package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/fault"
)

// envPrefix begins the name of every variable. TELEXEC_CONFIG names the file;
// TELEXEC_SERVER and TELEXEC_TOKEN belong to the clients.
const envPrefix = "TELEXEC_"

// Load reads the configuration: defaults, then the file, then the variables,
// then the flags. The file is flags.Config, else TELEXEC_CONFIG, else telexec.yaml
// in $XDG_CONFIG_HOME/telexec or ~/.config/telexec; only that last one may be
// absent. An empty variable is one that is not set.
//
// The error is a *fault.Error with all problems, one in each of its Fields.
func Load(flags Flags, getenv func(string) string) (Config, error) {
	l := &loader{getenv: getenv, from: make(map[string]source)}
	l.surroundings()
	l.defaults()
	if err := l.file(flags.Config); err != nil {
		return Config{}, err
	}
	l.variables()
	l.flags(flags)
	l.complete()
	if err := l.err(); err != nil {
		return Config{}, err
	}
	return l.cfg, nil
}

// loader is one run of Load.
type loader struct {
	cfg      Config
	getenv   func(string) string
	cwd      string
	from     map[string]source // by key: who set it; a default is in no source
	problems []problem
}

// source is where a value stands.
type source struct {
	name string // file, variable or flag
	line int    // in the file; 0: not in a file
}

func (s source) String() string {
	if s.line == 0 {
		return s.name
	}
	return fmt.Sprintf("%s:%d", s.name, s.line)
}

// problem is one thing that is wrong.
type problem struct {
	at      source
	key     string // as in the file: hosts[0].name; may be empty
	message string
}

func (p problem) String() string {
	s := p.message
	if p.key != "" {
		s = p.key + ": " + s
	}
	if p.at.name != "" {
		s = p.at.String() + ": " + s
	}
	return s
}

func (l *loader) problem(at source, key, format string, args ...any) {
	l.problems = append(l.problems, problem{at, key, fmt.Sprintf(format, args...)})
}

// err puts the problems into one error; nil when there are none. Those of the
// file come first, in the order of its lines.
func (l *loader) err() error {
	if len(l.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(l.problems, func(a, b problem) int {
		if (a.at.line == 0) != (b.at.line == 0) {
			return cmp.Compare(b.at.line, a.at.line)
		}
		return cmp.Compare(a.at.line, b.at.line)
	})
	message := l.problems[0].String()
	if n := len(l.problems); n > 1 {
		var list strings.Builder
		fmt.Fprintf(&list, "the configuration has %d problems:", n)
		for _, p := range l.problems {
			list.WriteString("\n  " + p.String())
		}
		message = list.String()
	}
	e := fault.New(fault.Invalid, fault.ReasonBadConfig, "%s", message).
		WithOp("config.load").
		WithHint("docs/configuration.md describes every setting")
	for _, p := range l.problems {
		e.Fields = append(e.Fields, fault.Field{Path: p.key, Message: p.message})
	}
	return e
}

// surroundings finds what ~, relative paths and "the current user" stand for.
func (l *loader) surroundings() {
	l.cfg.Home, l.cfg.User = l.getenv("HOME"), l.getenv("USER")
	// The user database is asked first for the name, as OpenSSH does, and last for
	// the directory, as shells do. A container may have no entry at all.
	if u, err := user.Current(); err == nil {
		l.cfg.Home, l.cfg.User = cmp.Or(l.cfg.Home, u.HomeDir), cmp.Or(u.Username, l.cfg.User)
	}
	l.cwd, _ = os.Getwd() // without one, only relative paths suffer
}

// under gives the path of name in the directory of an XDG variable, else in
// fallback under the home directory.
func (l *loader) under(variable, fallback, name string) string {
	dir := l.getenv(variable)
	if !filepath.IsAbs(dir) { // the XDG specification wants relative ones ignored
		dir = filepath.Join(l.cfg.Home, fallback)
	}
	return filepath.Join(dir, name)
}

// leaf is one setting: a field that is no section.
type leaf struct {
	key   string // "log.level"
	field reflect.StructField
	value reflect.Value
}

// variable gives the name of the leaf's environment variable; empty for a list or
// a mapping.
func (f leaf) variable() string {
	if f.value.Kind() == reflect.Slice || f.value.Kind() == reflect.Map {
		return ""
	}
	return envPrefix + strings.ToUpper(strings.ReplaceAll(f.key, ".", "_"))
}

// leaves gives the settings of a section, in the order of its fields.
func leaves(section reflect.Value, prefix string) []leaf {
	var all []leaf
	for field, v := range section.Fields() {
		name := field.Tag.Get("yaml")
		switch {
		case name == "-":
		case isSection(v.Type()):
			all = append(all, leaves(v, prefix+name+".")...)
		default:
			all = append(all, leaf{prefix + name, field, v})
		}
	}
	return all
}

func (l *loader) defaults() {
	for _, f := range leaves(reflect.ValueOf(&l.cfg).Elem(), "") {
		if text, ok := f.field.Tag.Lookup("default"); ok {
			l.set(f, text, source{name: "default"}, l.cwd)
		}
	}
	clear(l.from)
}

func (l *loader) variables() {
	for _, f := range leaves(reflect.ValueOf(&l.cfg).Elem(), "") {
		if name := f.variable(); name != "" {
			if text := l.getenv(name); text != "" {
				l.set(f, text, source{name: name}, l.cwd)
			}
		}
	}
}

func (l *loader) flags(flags Flags) {
	given := make(map[string]source)
	texts := make(map[string]string)
	for field, v := range reflect.ValueOf(flags).Fields() {
		if key := field.Tag.Get("setting"); key != "" && v.String() != "" {
			given[key], texts[key] = source{name: "--" + field.Tag.Get("name")}, v.String()
		}
	}
	for _, f := range leaves(reflect.ValueOf(&l.cfg).Elem(), "") {
		if at, ok := given[f.key]; ok {
			l.set(f, texts[f.key], at, l.cwd)
		}
	}
}

// set gives a leaf its value; relative paths start from dir.
func (l *loader) set(f leaf, text string, at source, dir string) {
	l.from[f.key] = at
	if err := setText(f.value, f.field.Tag, text, place{l.cfg.Home, dir}); err != nil {
		l.problem(at, f.key, "%v", err)
	}
}

// file finds, reads and decodes the file. The error is for a file that cannot be
// read; what is wrong inside is a problem.
func (l *loader) file(flag string) error {
	at := place{l.cfg.Home, l.cwd}
	name, by := flag, "--config"
	if name == "" {
		name, by = l.getenv(envPrefix+"CONFIG"), envPrefix+"CONFIG"
	}
	named := name != ""
	if !named {
		name, by = l.under("XDG_CONFIG_HOME", ".config", "telexec/telexec.yaml"), "the default place"
	}
	path, err := at.path(name)
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return nil
	case err != nil:
		return fault.Wrap(err, fault.Invalid, fault.ReasonBadConfig,
			"the configuration file %s (from %s) cannot be read: %v", name, by, cause(err)).
			WithOp("config.load").
			WithHint("Name a file that exists and that the user of the service may read")
	}
	l.cfg.File = path
	d := &decoder{loader: l, file: path}
	d.decode(data)
	l.checkMode(path, d.secrets)
	return nil
}

// checkMode refuses a file that leaks its secrets or that anybody may change.
// The group may read it: it is how a file of root's is shared with the service.
func (l *loader) checkMode(path string, secrets bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	switch mode := info.Mode().Perm(); {
	case mode&0o002 != 0:
		l.problem(source{name: path}, "", "anybody may write this file (mode %04o); run: chmod o-rw %s", mode, path)
	case secrets && mode&0o004 != 0:
		l.problem(source{name: path}, "", "this file holds a secret and anybody may read it (mode %04o); run: chmod o-rw %s, or keep the secret in a file of its own", mode, path)
	}
}

// complete fills in what is computed and checks what concerns several settings.
func (l *loader) complete() {
	c := &l.cfg
	if _, set := l.from["data_dir"]; !set {
		c.DataDir = l.under("XDG_STATE_HOME", ".local/state", "telexec")
	}
	c.Store.SQLiteFile = cmp.Or(c.Store.SQLiteFile, filepath.Join(c.DataDir, "telexec.db"))
	c.Store.KeyFile = cmp.Or(c.Store.KeyFile, filepath.Join(c.DataDir, "store.key"))
	c.Auth.AdminTokenFile = cmp.Or(c.Auth.AdminTokenFile, filepath.Join(c.DataDir, "admin.token"))
	if _, set := l.from["ssh.agent"]; !set {
		c.SSH.Agent = l.getenv("SSH_AUTH_SOCK")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		set, other := "tls.cert_file", "tls.key_file"
		if c.TLS.CertFile == "" {
			set, other = other, set
		}
		l.problem(l.from[set], set, "%s is missing; TLS needs both", other)
	}
	if _, port, err := net.SplitHostPort(c.HTTPAddr); err == nil && port != "0" && c.HTTPAddr == c.GRPCAddr {
		at := cmp.Or(l.from["http_addr"], l.from["grpc_addr"])
		l.problem(at, "http_addr", "is the same as grpc_addr, %s; each needs a port of its own", c.GRPCAddr)
	}
	l.auth()
	l.policy()
	l.sessions()
	l.redaction()
	l.hosts()
}

// tried reports whether something sets the key, were it wrongly.
func (l *loader) tried(key string) bool {
	_, set := l.from[key]
	return set
}

// needed is a problem where the element of a list lacks a key that it needs.
func (l *loader) needed(element, key string, given bool) {
	if !given && !l.tried(element+"."+key) {
		l.problem(l.from[element], element, "%s is missing", key)
	}
}

// unique checks that the element of a list has a name, and one of its own; first
// holds the keys of those before it by their names. what is what the list is of.
func (l *loader) unique(first map[string]string, name, element, what string) bool {
	l.needed(element, "name", name != "")
	if name == "" {
		return false
	}
	if other, taken := first[name]; taken {
		l.problem(l.from[element+".name"], element+".name", "%q is taken by the %s at line %d; names are unique", name, what, l.from[other].line)
		return false
	}
	first[name] = element
	return true
}

// hosts checks the hosts and reads their secrets.
func (l *loader) hosts() {
	first := make(map[string]string)
	for i := range l.cfg.Hosts {
		h, key := &l.cfg.Hosts[i], fmt.Sprintf("hosts[%d]", i)
		if !l.unique(first, h.Name, key, "host") {
			continue
		}
		l.address(h, key)
		for _, hop := range h.ProxyJump {
			if hop.Host == NoTarget && len(h.ProxyJump) > 1 {
				l.problem(l.from[key+".proxy_jump"], key+".proxy_jump", "none stands alone; leave it out or the hosts beside it")
			}
		}
		l.secret(&h.Passphrase, h.PassphraseFile, key+".passphrase")
		l.secret(&h.Password, h.PasswordFile, key+".password")
	}
}

// address fills in and checks a host's address.
func (l *loader) address(h *Host, key string) {
	if at, set := l.from[key+".address"]; set {
		if h.Address.User != "" {
			l.problem(at, key+".address", "holds a user; write user: %s beside it", h.Address.User)
		}
		return
	}
	t, err := ParseTarget(h.Name)
	if err != nil || t != (Target{Host: h.Name}) {
		l.problem(l.from[key], key, "address is missing, and the name %q is not one", h.Name)
		return
	}
	h.Address = t
}
