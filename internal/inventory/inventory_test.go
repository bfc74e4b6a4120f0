package inventory_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/secret"
)

// defaults are the settings that hosts of these tests have when nothing is said.
var defaults = config.SSH{ConnectTimeout: 10 * time.Second, KeepaliveInterval: 5 * time.Second, KeepaliveMax: 3, Agent: "/run/agent"}

// base makes Options with a home directory of the test's own, an ssh_config in
// it, and the hosts of a YAML file.
func base(t *testing.T, sshConfig, hosts string) inventory.Options {
	t.Helper()
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := inventory.Options{Home: home, User: "me", SSH: defaults, MaxCommands: 10, SpoolLimit: 1 << 30}
	o.SSHConfig = write(t, filepath.Join(home, ".ssh/config"), sshConfig)
	if hosts != "" {
		file := write(t, filepath.Join(home, "t.yaml"), "hosts:\n"+hosts)
		c, err := config.Load(config.Flags{Config: file}, func(name string) string {
			return map[string]string{"HOME": home}[name]
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Hosts = c.Hosts
	}
	return o
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, o inventory.Options) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func lookup(t *testing.T, inv *inventory.Inventory, name string) inventory.Host {
	t.Helper()
	h, err := inv.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func wantBadSSHConfig(t *testing.T, o inventory.Options, part string) {
	t.Helper()
	_, err := inventory.Open(o)
	e := fault.From(err)
	if e == nil || e.Reason != fault.ReasonBadSSHConfig || !strings.Contains(e.Message, part) || e.Hint == "" {
		t.Errorf("got %v, want BAD_SSH_CONFIG with %q and a hint", err, part)
	}
}

func TestHostOfTheConfiguration(t *testing.T) {
	o := base(t, "Host *\n  User nobody\n  Port 99\n  StrictHostKeyChecking no\n", `
- name: full
  address: full.example.com:2222
  user: deploy
  identity_file: [/k1, ~/k2]
  certificate_file: /c
  passphrase: pp
  password: pw
  known_hosts_file: /known
  host_key_policy: accept-new
  host_key_alias: alias
  connect_timeout: 3s
  max_commands: 2
  spool_limit: 64MiB
  labels: {env: prod}
- name: small
  address: Small.Example.com
`)
	inv := open(t, o)
	ssh := filepath.Join(o.Home, ".ssh")
	for _, want := range []inventory.Host{{
		Name: "full", Address: "full.example.com:2222", User: "deploy",
		IdentityFiles: []string{"/k1", o.Home + "/k2"}, CertificateFiles: []string{"/c"}, Agent: "/run/agent",
		Passphrase: secret.New("pp"), Password: secret.New("pw"),
		KnownHostsFiles: []string{"/known"}, HostKeyAlias: "alias", HostKeyPolicy: inventory.AcceptNew,
		ConnectTimeout: 3 * time.Second, KeepaliveInterval: 5 * time.Second, KeepaliveMax: 3,
		MaxCommands: 2, SpoolLimit: 64 << 20, Labels: map[string]string{"env": "prod"}, Source: inventory.FromConfig,
	}, {
		// Nothing comes from Host * of ssh_config: the address is no alias.
		Name: "small", Address: "small.example.com:22", User: "me", Agent: "/run/agent",
		KnownHostsFiles: []string{ssh + "/known_hosts", ssh + "/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
		HostKeyPolicy:   inventory.Strict,
		ConnectTimeout:  10 * time.Second, KeepaliveInterval: 5 * time.Second, KeepaliveMax: 3,
		MaxCommands: 10, SpoolLimit: 1 << 30, Source: inventory.FromConfig,
	}} {
		if got := lookup(t, inv, want.Name); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestHostTakesFromItsAlias(t *testing.T) {
	o := base(t, `
Host web1
  HostName 10.0.0.1
  User fromssh
  Port 2200
  IdentityFile /ssh/key
  CertificateFile /ssh/cert
  UserKnownHostsFile /ssh/known
  GlobalKnownHostsFile none
  HostKeyAlias sshalias
  ProxyJump jump
  ConnectTimeout 4
  StrictHostKeyChecking accept-new
Host *
  ServerAliveInterval 0
  ServerAliveCountMax 0
  IdentitiesOnly yes
  IdentityAgent none
Host jump
`, `
- name: web1
  max_commands: 1
- name: mine
  address: web1:22
  user: root
  identity_file: /mine
  certificate_file: /minecert
  known_hosts_file: /minehosts
  host_key_alias: minealias
  host_key_policy: strict
  proxy_jump: none
  connect_timeout: 1s
`)
	inv := open(t, o)
	want := inventory.Host{
		Name: "web1", Address: "10.0.0.1:2200", User: "fromssh", IdentityFiles: []string{"/ssh/key"},
		CertificateFiles: []string{"/ssh/cert"}, KnownHostsFiles: []string{"/ssh/known"}, HostKeyAlias: "sshalias",
		HostKeyPolicy: inventory.AcceptNew, ConnectTimeout: 4 * time.Second, KeepaliveMax: 1, IdentitiesOnly: true,
		MaxCommands: 1, SpoolLimit: 1 << 30, Source: inventory.FromConfig, Via: []inventory.Host{lookup(t, inv, "jump")},
	}
	if got := lookup(t, inv, "web1"); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	want = inventory.Host{
		Name: "mine", Address: "10.0.0.1:22", User: "root", IdentityFiles: []string{"/mine"},
		CertificateFiles: []string{"/minecert"}, KnownHostsFiles: []string{"/minehosts"}, HostKeyAlias: "minealias",
		HostKeyPolicy: inventory.Strict, ConnectTimeout: time.Second, KeepaliveMax: 1, IdentitiesOnly: true,
		MaxCommands: 10, SpoolLimit: 1 << 30, Source: inventory.FromConfig,
	}
	if got := lookup(t, inv, "mine"); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestListHoldsNamesAndNoPatterns(t *testing.T) {
	o := base(t, `
Host zeta alpha web* !not ? mid
Host alpha
Host *.example.com
Match host matched
Host outer
  Include only-for-outer
Host broken
  ProxyCommand nc %h %p
`, "- name: mid\n- name: beta\n")
	write(t, filepath.Join(o.Home, ".ssh/only-for-outer"), "Host outer inner\n")
	inv := open(t, o)
	var got []string
	for _, h := range inv.List() {
		got = append(got, h.Name+" "+string(h.Source))
	}
	want := []string{"alpha ssh_config", "beta config", "broken ssh_config", "mid config", "outer ssh_config", "zeta ssh_config"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// An alias that is only named where it can never apply is none.
	for _, name := range []string{"inner", "webx", "matched", "a.example.com", "not"} {
		if _, err := inv.Lookup(name); fault.ReasonOf(err) != fault.ReasonUnknownHost {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnknownHost(t *testing.T) {
	inv := open(t, base(t, "Host web1 web2 bastion\n", "- name: ops@web1\n  address: web1\n  user: ops\n"))
	for name, hint := range map[string]string{
		"web3":           "Did you mean web1 or web2? telexec hosts lists all",
		"me@web1:22":     "Did you mean web1 or ops@web1 or web2?",
		"root@10.0.0.1":  "Take one of the configured hosts or an alias of ssh_config",
		"web1.other.com": "Take one",
		"":               "Take one",
	} {
		_, err := inv.Lookup(name)
		e := fault.From(err)
		if e == nil || e.Reason != fault.ReasonUnknownHost || e.Kind != fault.NotFound || e.Metadata["host"] != name {
			t.Errorf("%q: %v", name, err)
		} else if !strings.HasPrefix(e.Hint, hint) {
			t.Errorf("%q: hint %q, want %q", name, e.Hint, hint)
		}
	}
	if h := lookup(t, inv, "ops@web1"); h.User != "ops" || h.Address != "web1:22" {
		t.Errorf("a name that looks like a target is a name: %+v", h)
	}
}

// via tells the way to a host: user@address of every hop.
func via(h inventory.Host) string {
	var hops []string
	for _, hop := range h.Via {
		if hop.Via != nil {
			return fmt.Sprintf("%s has jump hosts of its own", hop.Name)
		}
		hops = append(hops, hop.Name+"="+hop.User+"@"+hop.Address)
	}
	return strings.Join(hops, " ")
}

func TestJumpHosts(t *testing.T) {
	inv := open(t, base(t, `
Host a
  ProxyJump b,c
Host b
  HostName b.example.com
  ProxyJump d
  User bob
Host c
  ProxyJump never
Host d
  Port 2222
Host straight
  ProxyJump none
Host viaconfig
  ProxyJump conf
Host five
  ProxyJump x1,x2,x3,x4,x5
Host six
  ProxyJump x0,x1,x2,x3,x4,x5
Host six2
  ProxyJump five,y
Host loop1
  ProxyJump loop2
Host loop2
  ProxyJump x,loop1
Host self
  ProxyJump self:2222
Host cmd
  ProxyCommand nc %h %p
Host viacmd
  ProxyJump cmd
Host *.internal
  User wild
Host *
  ProxyJump none
`, `
- name: conf
  address: conf.example.com
  proxy_jump: [ops@b:2200, "me@10.0.0.1", "x.internal"]
- name: chain
  proxy_jump: conf
- name: jump@conf
  address: 10.9.9.9
- name: whole
  proxy_jump: jump@conf
- name: freed
  address: cmd
  proxy_jump: d
- name: usescmd
  address: cmd
`))
	for name, want := range map[string]string{
		"a":         "d=me@d:2222 b=bob@b.example.com:22 c=me@c:22",
		"b":         "d=me@d:2222",
		"straight":  "",
		"conf":      "d=me@d:2222 ops@b:2200=ops@b.example.com:2200 me@10.0.0.1=me@10.0.0.1:22 x.internal=wild@x.internal:22",
		"chain":     "d=me@d:2222 ops@b:2200=ops@b.example.com:2200 me@10.0.0.1=me@10.0.0.1:22 x.internal=wild@x.internal:22 conf=me@conf.example.com:22",
		"viaconfig": "d=me@d:2222 ops@b:2200=ops@b.example.com:2200 me@10.0.0.1=me@10.0.0.1:22 x.internal=wild@x.internal:22 conf=me@conf.example.com:22",
		"five":      "x1=me@x1:22 x2=me@x2:22 x3=me@x3:22 x4=me@x4:22 x5=me@x5:22",
		"whole":     "jump@conf=me@10.9.9.9:22",
		"freed":     "d=me@d:2222",
	} {
		if got := via(lookup(t, inv, name)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
	for name, want := range map[string]struct{ reason, part string }{
		"six":     {fault.ReasonHostMisconfigured, "it has 6 jump hosts (x0, x1, x2, x3, x4, x5), and at most 5 are possible"},
		"six2":    {fault.ReasonHostMisconfigured, "it has 7 jump hosts"},
		"loop1":   {fault.ReasonHostMisconfigured, "loop1 cannot be used: its jump hosts go round in a circle: loop1 → loop2 → loop1"},
		"self":    {fault.ReasonHostMisconfigured, "self → self"},
		"cmd":     {fault.ReasonNotSupported, "the host cmd needs the ProxyCommand of ssh_config, which is not run"},
		"viacmd":  {fault.ReasonNotSupported, "the host cmd needs"},
		"usescmd": {fault.ReasonNotSupported, "the host usescmd needs"},
	} {
		_, err := inv.Lookup(name)
		if e := fault.From(err); e == nil || e.Reason != want.reason || !strings.Contains(e.Message, want.part) || e.Hint == "" {
			t.Errorf("%s: %v, want %s with %q", name, err, want.reason, want.part)
		}
	}
}

func TestHostsOfTheConfigurationThatCannotWorkStopTheStart(t *testing.T) {
	o := base(t, "", "- name: a\n  proxy_jump: b\n- name: b\n  proxy_jump: a\n- name: c\n  proxy_jump: [1,2,3,4,5,6]\n- name: d\n")
	_, err := inventory.Open(o)
	e := fault.From(err)
	if e == nil || e.Reason != fault.ReasonBadConfig || len(e.Fields) != 3 || e.Fields[2].Path != "hosts.c" {
		t.Fatalf("got %v with %v", err, e)
	}
	for _, part := range []string{"a → b → a", "b → a → b", "it has 6 jump hosts"} {
		if !strings.Contains(e.Message, part) {
			t.Errorf("%s\nlacks %q", e.Message, part)
		}
	}
}

func TestKeysThatAppearLater(t *testing.T) {
	o := base(t, "Host none\n  IdentityFile none\n  CertificateFile none\nHost named\n  IdentityFile ~/.ssh/named\nHost a\n  ProxyJump b\nHost b\n", "")
	inv := open(t, o)
	if h := lookup(t, inv, "a"); h.IdentityFiles != nil {
		t.Errorf("keys that do not exist: %v", h.IdentityFiles)
	}
	ssh := filepath.Join(o.Home, ".ssh")
	for _, name := range []string{"id_rsa", "id_ed25519", "id_ed25519-cert.pub", "named-cert.pub", "id_dsa"} {
		write(t, filepath.Join(ssh, name), "")
	}
	keys, certs := []string{ssh + "/id_ed25519", ssh + "/id_rsa"}, []string{ssh + "/id_ed25519-cert.pub"}
	h := lookup(t, inv, "a")
	for _, h := range []inventory.Host{h, h.Via[0], inv.List()[1]} {
		if !slices.Equal(h.IdentityFiles, keys) || !slices.Equal(h.CertificateFiles, certs) {
			t.Errorf("%s: keys %v, certificates %v", h.Name, h.IdentityFiles, h.CertificateFiles)
		}
	}
	if h := lookup(t, inv, "none"); len(h.IdentityFiles)+len(h.CertificateFiles) != 0 {
		t.Errorf("none: keys %v, certificates %v", h.IdentityFiles, h.CertificateFiles)
	}
	if h := lookup(t, inv, "named"); !slices.Equal(h.CertificateFiles, []string{ssh + "/named-cert.pub"}) {
		t.Errorf("named: certificates %v", h.CertificateFiles)
	}
}

func TestTokens(t *testing.T) {
	o := base(t, `
Host n
  HostName h.example.com
  Port 2222
  User r
  IdentityFile ~/%d-%u-%r-%h-%n-%p-%k-%%
  IdentityFile ${KEYS}/%i/%L/%l
  IdentityAgent ${RUN}/agent
  UserKnownHostsFile %d/%n
  HostKeyAlias k
Host sock
  IdentityAgent SSH_AUTH_SOCK
Host dollar
  IdentityAgent $RUN
Host tilde
  IdentityAgent ~/agent
  IdentityFile ~
Host bad1
  IdentityFile %q
Host bad2
  IdentityFile x%
Host bad3
  IdentityFile ${NOT_SET}/x
Host bad4
  IdentityFile ${RUN
Host bad5
  UserKnownHostsFile ~other/x
Host bad6
  HostName %r.example.com
Host bad7
  IdentityAgent %C
`, "")
	o.Getenv = func(name string) string {
		return map[string]string{"KEYS": "/ke%ys", "RUN": "/run/me", "SSH_AUTH_SOCK": "/run/sock"}[name]
	}
	inv := open(t, o)
	local, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	short, _, _ := strings.Cut(local, ".")
	h := lookup(t, inv, "n")
	want := []string{
		o.Home + "/" + o.Home + "-me-r-h.example.com-n-2222-k-%",
		fmt.Sprintf("/ke%%ys/%d/%s/%s", os.Getuid(), short, local),
	}
	want[0] = filepath.Clean(want[0])
	if !slices.Equal(h.IdentityFiles, want) {
		t.Errorf("keys %q, want %q", h.IdentityFiles, want)
	}
	if h.Agent != "/run/me/agent" || h.KnownHostsFiles[0] != o.Home+"/n" {
		t.Errorf("agent %q, known hosts %q", h.Agent, h.KnownHostsFiles)
	}
	for name, agent := range map[string]string{"sock": "/run/sock", "dollar": "/run/me", "tilde": o.Home + "/agent"} {
		if h := lookup(t, inv, name); h.Agent != agent {
			t.Errorf("%s: agent %q, want %q", name, h.Agent, agent)
		}
	}
	for name, part := range map[string]string{
		"bad1": "has the token %q", "bad2": "ends with a lone %", "bad3": "the variable NOT_SET is not set",
		"bad4": "the variable RUN is not set", "bad5": "only ~/ is expanded", "bad6": "has the token %r", "bad7": "has the token %C",
	} {
		_, err := inv.Lookup(name)
		if e := fault.From(err); e == nil || e.Reason != fault.ReasonHostMisconfigured || !strings.Contains(e.Message, part) || e.Hint == "" {
			t.Errorf("%s: %v, want %q", name, err, part)
		}
	}
	o.Getenv = nil
	if h := lookup(t, open(t, o), "sock"); h.Agent != "" {
		t.Errorf("agent %q without an environment", h.Agent)
	}
}

// TestMatchThatIsNotDecided: ssh would run the command; here the block never
// counts, not even negated, and nothing is run.
func TestMatchThatIsNotDecided(t *testing.T) {
	o := base(t, "", "")
	ran := filepath.Join(o.Home, "ran")
	write(t, o.SSHConfig, `
Host a
Match exec "touch `+ran+`"
  Port 1
Match !exec false
  Port 2
Match tagged x
  Port 3
`)
	if h := lookup(t, open(t, o), "a"); h.Address != "a:22" {
		t.Errorf("address %s", h.Address)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the command was run")
	}
}

func TestFilesOfSSHConfig(t *testing.T) {
	o := base(t, "Include inner ~/outer /none/such\n", "")
	write(t, filepath.Join(o.Home, ".ssh/inner"), "Host in\n")
	write(t, filepath.Join(o.Home, "outer"), "Host out\n")
	inv := open(t, o)
	lookup(t, inv, "in")
	lookup(t, inv, "out")

	if err := os.Symlink("/none/such", filepath.Join(o.Home, ".ssh/dangling")); err != nil {
		t.Fatal(err)
	}
	write(t, o.SSHConfig, "Include dangling\nHost a\n")
	lookup(t, open(t, o), "a")

	for text, part := range map[string]string{
		"\nInclude ~other/x\n": "config:2: ~other/x: only ~/ is expanded",
		"Include [\n":          "config:1: ",
		"Include .\n":          ".ssh cannot be read", // a directory
	} {
		write(t, o.SSHConfig, text)
		wantBadSSHConfig(t, o, part)
	}

	write(t, o.SSHConfig, "Host a\n")
	if err := os.Chmod(o.SSHConfig, 0o620); err != nil {
		t.Fatal(err)
	}
	wantBadSSHConfig(t, o, "others than its owner may write")

	for _, path := range []string{"", filepath.Join(o.Home, "absent"), "/dev/null"} {
		o.SSHConfig = path
		if list := open(t, o).List(); len(list) != 0 {
			t.Errorf("%q: %v", path, list)
		}
	}
}
