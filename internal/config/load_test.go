package config_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// environ is an environment with a home directory of the test's own.
type environ map[string]string

func (e environ) getenv(name string) string { return e[name] }

func home(t *testing.T) (string, environ) {
	dir := t.TempDir()
	return dir, environ{"HOME": dir}
}

// write makes a file, 0600, with its directory.
func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load loads one file.
func load(t *testing.T, yaml string) (config.Config, error) {
	t.Helper()
	dir, env := home(t)
	return config.Load(config.Flags{Config: write(t, filepath.Join(dir, "t.yaml"), yaml)}, env.getenv)
}

func TestDefaults(t *testing.T) {
	dir, env := home(t)
	env["SSH_AUTH_SOCK"] = "/run/agent"
	got, err := config.Load(config.Flags{}, env.getenv)
	if err != nil {
		t.Fatal(err)
	}
	if got.User == "" {
		t.Error("no user")
	}
	state := filepath.Join(dir, ".local/state/telexec")
	want := config.Config{
		GRPCAddr: "127.0.0.1:7070", HTTPAddr: "127.0.0.1:7080",
		DataDir: state, DrainTimeout: 10 * time.Second,
		Log:  config.Log{Level: slog.LevelInfo, Format: config.LogAuto},
		Auth: config.Auth{AdminTokenFile: state + "/admin.token"},
		HTTP: config.HTTP{SessionLifetime: 12 * time.Hour, MaxSockets: 4096, MaxSocketsPerPrincipal: 256},
		RateLimits: config.RateLimits{
			Principal: config.PrincipalRates{Start: 200, Read: 1000, List: 100, Stream: 200, Streams: 1000},
			Address:   config.AddressRates{Start: 400, Read: 2000, List: 200, Stream: 400, Failures: 5},
		},
		Policy: config.Policy{Default: "allow"},
		Audit:  config.Audit{OutputBytes: 1024},
		Limits: config.Limits{
			MaxCommands: 1000, MaxCommandsPerHost: 10, MaxQueued: 10000, MaxAwaiting: 100,
			QueueTimeout: 24 * time.Hour, DefaultWait: 30 * time.Second,
			ReconnectTimeout: 24 * time.Hour, SpoolLimit: 4 << 30,
		},
		Retention: config.Retention{OutputBytes: 10 << 20, FullOutput: time.Hour, History: 720 * time.Hour},
		Sessions: config.Sessions{
			MaxSessions: 100, MaxPerPrincipal: 20, IdleTimeout: 24 * time.Hour, TypingRoles: []string{"operator", "admin"},
			Record: true, RecordingLimit: 64 << 20, Scrollback: 10000,
		},
		Tasks: config.Tasks{MaxRunning: 20, MaxQueued: 1000, ApprovalTimeout: 24 * time.Hour},
		Store: config.Store{SQLiteFile: state + "/telexec.db", KeyFile: state + "/store.key"},
		SSH: config.SSH{
			ConnectTimeout: 10 * time.Second, KeepaliveInterval: 5 * time.Second, KeepaliveMax: 3,
			IdleTimeout: 5 * time.Minute, SessionsPerConnection: 8, HandshakesPerHost: 5, Agent: "/run/agent",
		},
		SSHConfig: dir + "/.ssh/config",
		Home:      dir, User: got.User,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.TLS.Enabled() {
		t.Error("TLS is on without files")
	}
}

func TestFlagsWinOverVariablesOverFile(t *testing.T) {
	dir, env := home(t)
	file := write(t, filepath.Join(dir, "t.yaml"), `
grpc_addr: 127.0.0.1:1
http_addr: 127.0.0.1:2
data_dir: from-file
log: {level: error}
limits: {max_commands: 7, reconnect_timeout: 2d, spool_limit: 64KiB}
`)
	env["TELEXEC_HTTP_ADDR"] = "127.0.0.1:3"
	env["TELEXEC_DATA_DIR"] = "/from/env"
	env["TELEXEC_LOG_LEVEL"] = "debug"
	env["TELEXEC_LIMITS_MAX_QUEUED"] = "9"
	env["TELEXEC_LIMITS_SPOOL_LIMIT"] = "1GB"
	env["TELEXEC_SSH_AGENT"] = "none"
	env["SSH_AUTH_SOCK"] = "/run/agent"
	env["TELEXEC_HOSTS"] = "ignored" // lists have no variable
	env["TELEXEC_STORE_SQLITE_FILE"] = ""
	got, err := config.Load(config.Flags{Config: file, DataDir: "/from/flag", LogFormat: "json"}, env.getenv)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, got, want any }{
		{"file", got.GRPCAddr, "127.0.0.1:1"},
		{"file", got.Limits.MaxCommands, 7},
		{"variable", got.HTTPAddr, "127.0.0.1:3"},
		{"variable", got.Log.Level, slog.LevelDebug},
		{"variable", got.Limits.MaxQueued, 9},
		{"file", got.Limits.ReconnectTimeout, 48 * time.Hour},
		{"variable", got.Limits.SpoolLimit, int64(1e9)},
		{"variable", got.SSH.Agent, ""},
		{"flag", got.DataDir, "/from/flag"},
		{"flag", got.Log.Format, config.LogJSON},
		{"computed from the flag", got.Store.SQLiteFile, "/from/flag/telexec.db"},
		{"path", got.File, file},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestWhichFile(t *testing.T) {
	dir, env := home(t)
	cwd := t.TempDir()
	t.Chdir(cwd)
	addr := func(port string) string { return "grpc_addr: 127.0.0.1:" + port + "\n" }
	flag := write(t, filepath.Join(cwd, "flag.yaml"), addr("1"))
	variable := write(t, filepath.Join(dir, "var.yaml"), addr("2"))
	xdg := write(t, filepath.Join(dir, "xdg/telexec/telexec.yaml"), addr("3"))
	plain := write(t, filepath.Join(dir, ".config/telexec/telexec.yaml"), addr("4"))
	check := func(flags config.Flags, file, port string) {
		t.Helper()
		got, err := config.Load(flags, env.getenv)
		if err != nil {
			t.Fatal(err)
		}
		if got.File != file || got.GRPCAddr != "127.0.0.1:"+port {
			t.Errorf("got %s with %s, want %s with port %s", got.File, got.GRPCAddr, file, port)
		}
	}
	check(config.Flags{}, plain, "4")
	env["XDG_CONFIG_HOME"] = "xdg" // relative: ignored
	check(config.Flags{}, plain, "4")
	env["XDG_CONFIG_HOME"] = filepath.Join(dir, "xdg")
	check(config.Flags{}, xdg, "3")
	env["TELEXEC_CONFIG"] = "~/var.yaml"
	check(config.Flags{}, variable, "2")
	check(config.Flags{Config: "flag.yaml"}, flag, "1")
	env["XDG_STATE_HOME"] = "/state"
	if got, err := config.Load(config.Flags{}, env.getenv); err != nil || got.DataDir != "/state/telexec" {
		t.Errorf("data_dir %q, %v", got.DataDir, err)
	}

	for _, c := range []struct{ flag, variable, want string }{
		{"gone.yaml", "", "gone.yaml (from --config) cannot be read: no such file"},
		{"", "/gone.yaml", "/gone.yaml (from TELEXEC_CONFIG) cannot be read: no such file"},
		{dir, "", "is a directory"},
		{"~nobody/x", "", "only ~/ is expanded"},
	} {
		env["TELEXEC_CONFIG"] = c.variable
		_, err := config.Load(config.Flags{Config: c.flag}, env.getenv)
		if fault.ReasonOf(err) != fault.ReasonBadConfig || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q: %v, want %q", c.flag, c.variable, err, c.want)
		}
		if fault.From(err).Hint == "" {
			t.Errorf("%v has no hint", err)
		}
	}
}

func TestHosts(t *testing.T) {
	dir, env := home(t)
	write(t, filepath.Join(dir, "etc/web1.password"), "hunter2 \r\n")
	write(t, filepath.Join(dir, "key.passphrase"), "tr0ub4dor")
	file := write(t, filepath.Join(dir, "etc/t.yaml"), `
hosts:
  - name: web1
    address: web1.example.com:2222
    user: deploy
    identity_file: ~/.ssh/id_ed25519
    certificate_file: [certs/a, /b]
    passphrase_file: ~/key.passphrase
    password_file: web1.password
    known_hosts_file: ~/.ssh/known_hosts
    host_key_policy: accept-new
    host_key_alias: web
    proxy_jump: [bastion, "ops@[2001:db8::1]:2200"]
    connect_timeout: 5s
    max_commands: 3
    spool_limit: 512MiB
    labels: &labels {env: prod, version: 1.10, "on": yes, rack: 007}
  - &small
    name: bastion
    password: 1234
    proxy_jump: none
    labels: *labels
  - <<: *small
    name: v6
    address: 2001:db8::2
    user:
  - name: literal
    passphrase: |
      two
      lines
`)
	got, err := config.Load(config.Flags{Config: file}, env.getenv)
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"env": "prod", "version": "1.10", "on": "yes", "rack": "007"}
	none := []config.Target{{Host: "none"}}
	want := []config.Host{{
		Name: "web1", Address: config.Target{Host: "web1.example.com", Port: 2222}, User: "deploy",
		IdentityFile:    []string{dir + "/.ssh/id_ed25519"},
		CertificateFile: []string{dir + "/etc/certs/a", "/b"},
		PassphraseFile:  dir + "/key.passphrase", Passphrase: secret.New("tr0ub4dor"),
		PasswordFile: dir + "/etc/web1.password", Password: secret.New("hunter2 "),
		KnownHostsFile: []string{dir + "/.ssh/known_hosts"},
		HostKeyPolicy:  "accept-new", HostKeyAlias: "web",
		ProxyJump:      []config.Target{{Host: "bastion"}, {User: "ops", Host: "2001:db8::1", Port: 2200}},
		ConnectTimeout: 5 * time.Second, MaxCommands: 3, SpoolLimit: 512 << 20, Labels: labels,
	}, {
		Name: "bastion", Address: config.Target{Host: "bastion"}, Password: secret.New("1234"), ProxyJump: none, Labels: labels,
	}, {
		Name: "v6", Address: config.Target{Host: "2001:db8::2"}, Password: secret.New("1234"), ProxyJump: none, Labels: labels,
	}, {
		Name: "literal", Address: config.Target{Host: "literal"}, Passphrase: secret.New("two\nlines\n"),
	}}
	for i := range want {
		if !reflect.DeepEqual(got.Hosts[i], want[i]) {
			t.Errorf("got  %+v\nwant %+v", got.Hosts[i], want[i])
		}
	}
	if len(got.Hosts) != len(want) {
		t.Errorf("%d hosts", len(got.Hosts))
	}
}

// TestProblems gives each file with what its error says; all problems are told at
// once, in the order of the lines.
func TestProblems(t *testing.T) {
	for _, c := range []struct {
		yaml string
		want []string
	}{
		{"grcp_addr: 127.0.0.1:1\n", []string{"t.yaml:1: grcp_addr: unknown key (did you mean grpc_addr?)"}},
		{"log:\n  levle: info\n", []string{"t.yaml:2: log.levle: unknown key (did you mean level?)"}},
		{"log: {nonsense: 1}", []string{"unknown key (known here: level, format)"}},
		{"hosts:\n- name: a\n  identity_files: [x]\n", []string{"t.yaml:3: hosts[0].identity_files: unknown key (did you mean identity_file?)"}},
		{"file: x", []string{"t.yaml:1: file: unknown key"}}, // fields without a key of their own

		{"log:\n  level: loud\n", []string{`t.yaml:2: log.level: "loud" is not one of debug, info, warn, error`}},
		{"limits: {queue_timeout: 30}", []string{`limits.queue_timeout: "30" is not a duration such as 500ms, 30s, 1h30m or 30d`}},
		{"limits: {queue_timeout: -30s}", []string{"is not a duration"}},
		{"limits: {queue_timeout: 1ms}", []string{`"1ms" is less than 1s`}},
		{"limits: {reconnect_timeout: 999ms}", []string{`limits.reconnect_timeout: "999ms" is less than 1s`}},
		{"limits: {spool_limit: 65535}", []string{`limits.spool_limit: "65535" is less than 64KiB`}},
		{"limits: {spool_limit: lots}", []string{`"lots" is not a size such as`}},
		{"limits: {spool_limit: [1GiB]}", []string{"must be a size of at least 64KiB, not a list"}},
		{"hosts: [{name: a, spool_limit: 1KiB}]", []string{`hosts[0].spool_limit: "1KiB" is less than 64KiB`}},
		{"limits: {max_commands: many}", []string{`"many" is not a whole number`}},
		{"limits: {max_commands: 0}", []string{`"0" is less than 1`}},
		{"limits: {max_commands: 1000000}", []string{`"1000000" is more than 100000`}},
		{"limits: {max_commands: [1]}", []string{"must be a whole number from 1 to 100000, not a list"}},
		{"retention: {output_bytes: 10M}", []string{`"10M" is not a size such as`}},
		{"retention: {output_bytes: {a: b}}", []string{"must be a size, not a mapping"}},
		{"grpc_addr: 7070", []string{`"7070" is not an address to listen on such as 127.0.0.1:7070`}},
		{"grpc_addr: 'x:ssh'", []string{`"x:ssh" is not an address`}},
		{"data_dir: ''", []string{"a path is missing"}},
		{"data_dir: ~", nil},
		{"data_dir: ~other/x", []string{"only ~/ is expanded"}},
		{"log: info", []string{"t.yaml:1: log: must be a mapping of keys, not a single value"}},
		{"- a", []string{"must be a mapping of keys, not a list"}},
		{"log:", nil},
		{"", nil},
		{"# nothing\n", nil},

		{"tls: {cert_file: /c}", []string{"t.yaml:1: tls.cert_file: tls.key_file is missing; TLS needs both"}},
		{"tls: {key_file: /c}", []string{"tls.key_file: tls.cert_file is missing"}},
		{"grpc_addr: 127.0.0.1:7080", []string{"t.yaml:1: http_addr: is the same as grpc_addr"}},
		{"{grpc_addr: '127.0.0.1:0', http_addr: '127.0.0.1:0'}", nil},
		{"http: {allowed_hosts: ['http://x']}", []string{`http.allowed_hosts[0]: "http://x" is not a name or address`}},
		{"http: {allowed_origins: [https://a, https://b/]}", []string{`http.allowed_origins[1]: "https://b/" is not an origin such as https://ops.example.com`}},
		{"http: {allowed_origins: https://a, allowed_hosts: [\"EX.com:80\"]}", nil},

		{"hosts: web1", []string{"hosts: must be a list, not a single value"}},
		{"hosts:\n- web1", []string{"t.yaml:2: hosts[0]: must be a mapping of keys"}},
		{"hosts:\n-\n", []string{"t.yaml:2: hosts[0]: name is missing"}},
		{"hosts:\n- user: x\n", []string{"t.yaml:2: hosts[0]: name is missing"}},
		{"hosts:\n- name: 'a b'\n", []string{`t.yaml:2: hosts[0].name: "a b" is no name for a host`}},
		{"hosts:\n- name: none\n", []string{`hosts[0].name: "none" is no name for a host`}},
		{"hosts:\n- name: a\n- name: b\n- name: a\n", []string{`t.yaml:4: hosts[2].name: "a" is taken by the host at line 2`}},
		{"hosts:\n- name: u@a\n", []string{`t.yaml:2: hosts[0]: address is missing, and the name "u@a" is not one`}},
		{"hosts: [{name: u@a, address: a}]", nil},
		{"hosts: [{name: a, address: 'b:0'}]", []string{`"b:0" is not a host: write host, host:port or [IPv6]:port`}},
		{"hosts: [{name: a, address: u@b}]", []string{"hosts[0].address: holds a user; write user: u beside it"}},
		{"hosts: [{name: a, proxy_jump: [none, b]}]", []string{"hosts[0].proxy_jump: none stands alone"}},
		{"hosts: [{name: a, proxy_jump: [b, ~]}]", []string{"hosts[0].proxy_jump[1]: has no value; it must be a host[:port]"}},
		{"hosts: [{name: a, host_key_policy: no}]", []string{`"no" is not one of strict, accept-new`}},
		{"hosts: [{name: a, labels: {x: [1]}}]", []string{"hosts[0].labels.x: must be text, not a list"}},
		{"hosts: [{name: a, labels: [x]}]", []string{"hosts[0].labels: must be a mapping of keys, not a list"}},
		{"hosts:\n- name: a\n  password_file: gone\n", []string{"t.yaml:3: hosts[0].password_file: ", "gone cannot be read: no such file"}},
		{"hosts:\n- name: a\n  password_file: t.yaml\n  password: x", []string{"is set beside password; only one of them can be"}},
		{"hosts:\n- name: a\n  password_file: /dev/null", []string{"is not a file of at most"}},

		{"a: [", []string{"t.yaml:1: not YAML: "}},
		{"log:\n  level: info\n  level: info\n", []string{"t.yaml:3: not YAML: mapping key \"level\" already defined"}},
		{"log: {}\n---\nlog: {}\n", []string{"a second document; a file holds one"}},
		{"log: *nope", []string{"log: no value stands behind the alias *nope"}},
		{"log: &a\n  <<: *a\n", []string{"merges (<<) are nested too deeply"}},
		{"log: &a\n  <<: [{level: warn}, {level: info}]\n", nil},
		{"log: !!map {? level : info}", nil},

		{"grcp_addr: x\nlog:\n  level: loud\n  format: x\nhosts:\n- name: a\n- nam: b\n", []string{
			"the configuration has 5 problems:",
			"\n  ", "t.yaml:1: grcp_addr", "\n  ", "t.yaml:3: log.level", "t.yaml:4: log.format",
			"t.yaml:7: hosts[1]: name is missing",
		}},
	} {
		_, err := load(t, c.yaml)
		if len(c.want) == 0 {
			if err != nil {
				t.Errorf("%q: %v", c.yaml, err)
			}
			continue
		}
		if fault.ReasonOf(err) != fault.ReasonBadConfig || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v, want BAD_CONFIG", c.yaml, err)
			continue
		}
		rest := fault.From(err).Message
		for _, want := range c.want {
			i := strings.Index(rest, want)
			if i < 0 {
				t.Errorf("%q:\n%s\nlacks, after what came before, %q", c.yaml, err, want)
				break
			}
			rest = rest[i+len(want):]
		}
	}
}

func TestProblemsOfVariablesAndFlags(t *testing.T) {
	dir, env := home(t)
	file := write(t, filepath.Join(dir, "t.yaml"), "\n\nnonsense: 1\n")
	env["TELEXEC_LOG_LEVEL"] = "loud"
	_, err := config.Load(config.Flags{Config: file, GRPCAddr: "x"}, env.getenv)
	want := []fault.Field{
		{Path: "nonsense", Message: "unknown key (known here: grpc_addr, http_addr, insecure_listen, data_dir, drain_timeout, log, tls, auth, http, rate_limits, policy, redaction, audit, limits, retention, sessions, tasks, store, ssh, ssh_config, hosts)"},
		{Path: "log.level", Message: `"loud" is not one of debug, info, warn, error`},
		{Path: "grpc_addr", Message: `"x" is not an address to listen on such as 127.0.0.1:7070 or [::1]:7070`},
	}
	if got := fault.From(err).Fields; !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, part := range []string{"t.yaml:3: nonsense", "TELEXEC_LOG_LEVEL: log.level", "--grpc-addr: grpc_addr"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v\nlacks %q", err, part)
		}
	}
}

func TestSecretsAreNotReadableByAnybody(t *testing.T) {
	const inline = "hosts: [{name: a, password: hunter2}]\n"
	for _, c := range []struct {
		yaml string
		mode os.FileMode
		want string
	}{
		{inline, 0o600, ""},
		{inline, 0o640, ""},
		{inline, 0o644, "this file holds a secret and anybody may read it (mode 0644); run: chmod o-rw "},
		{"", 0o644, ""},
		{"", 0o646, "anybody may write this file (mode 0646)"},
	} {
		dir, env := home(t)
		file := write(t, filepath.Join(dir, "t.yaml"), c.yaml)
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(config.Flags{Config: file}, env.getenv)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %v: %v, want %q", c.yaml, c.mode, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}

	for _, c := range []struct {
		content string
		mode    os.FileMode
		want    string
	}{
		{"x", 0o640, ""},
		{"x", 0o604, "anybody may read or write"},
		{"\n", 0o600, "is empty"},
		{strings.Repeat("x", 65<<10), 0o600, "is not a file of at most 65536 bytes"},
	} {
		dir, env := home(t)
		pass := write(t, filepath.Join(dir, "pass"), c.content)
		if err := os.Chmod(pass, c.mode); err != nil {
			t.Fatal(err)
		}
		file := write(t, filepath.Join(dir, "t.yaml"), "hosts:\n- name: a\n  passphrase_file: pass\n")
		_, err := config.Load(config.Flags{Config: file}, env.getenv)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), "t.yaml:3: hosts[0].passphrase_file: ") {
			t.Errorf("%.10q, %v: %v, want %q", c.content, c.mode, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestSSHConfigSwitchedOff(t *testing.T) {
	for _, off := range []string{`""`, "none"} {
		got, err := load(t, "ssh_config: "+off+"\nssh: {agent: none}\n")
		if err != nil || got.SSHConfig != "" || got.SSH.Agent != "" {
			t.Errorf("%s: %q, %q, %v", off, got.SSHConfig, got.SSH.Agent, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		"grpc_addr: 127.0.0.1:1\nlog: {level: debug}\n",
		"hosts:\n- &a\n  name: a\n  proxy_jump: [b, 'u@[::1]:2']\n  labels: {x: 1}\n- <<: *a\n  name: b\n",
		"hosts: [{name: a, password: x, identity_file: [a, b]}]",
		"a: [", "? x\n: y", "log: &a\n  <<: *a\n", "retention: {history: 1d1h, output_bytes: 1 KiB}", "--- \n--- \n", "&a *a", "- - ? - :\n", "a: !!x |\n",
		"policy:\n  default: deny\n  rules:\n  - &r {name: a, effect: require_approval, match: {hosts: ['*'], labels: {a: b}}, approval: {count: 2}}\n  - <<: *r\n    name: b\n  action_types: {x: [y]}\n",
		"auth:\n  jwt: [{name: a, issuer: b, audience: c, jwks_url: 'https://d', roles: {e: admin}}]\n  wider: [{roles: viewer, hosts: '*'}]\n",
		"rate_limits: {principal: {start: 0.5}, address: {failures: 1e9}}\nredaction: {values_file: t.yaml}\n",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	file := filepath.Join(dir, "t.yaml")
	env := environ{"HOME": dir}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := config.Load(config.Flags{Config: file}, env.getenv)
		if err == nil {
			for _, h := range got.Hosts {
				if h.Name == "" || h.Address.Host == "" {
					t.Errorf("host %+v has no name or address", h)
				}
			}
			for _, r := range got.Policy.Rules {
				if r.Name == "" || r.Effect == "" || r.Line < 1 || (r.Approval.Count > 0) != (r.Effect == config.RequireApproval) {
					t.Errorf("rule %+v is not whole", r)
				}
			}
			for _, j := range got.Auth.JWT {
				if j.Name == "" || j.Issuer == "" || j.Secret.IsZero() && j.PublicKey == nil && j.JWKSURL == "" {
					t.Errorf("issuer %+v is not whole", j)
				}
			}
			if diff := got.Changed(got); diff != nil {
				t.Errorf("it differs from itself in %v", diff)
			}
			return
		}
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Reason != fault.ReasonBadConfig || e.Message == "" {
			t.Errorf("%T %v", err, err)
		}
	})
}
