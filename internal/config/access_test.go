package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

const (
	hs256  = "0123456789abcdef0123456789abcdef"
	public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
)

// around makes a home directory with the files that settings name.
func around(t *testing.T) (string, environ) {
	t.Helper()
	dir, env := home(t)
	for name, content := range map[string]string{
		"hs256": hs256 + "\n", "short": "0123456789", "public.pem": public, "text": "no key\n", "empty": "\n",
		"private.pem": strings.ReplaceAll(public, "PUBLIC", "PRIVATE"), "ca.pem": "x", "values": "hunter2\n",
		"open.pem": public, "open-values": "hunter2\n",
	} {
		write(t, filepath.Join(dir, name), content)
	}
	for _, name := range []string{"open.pem", "open-values"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir, env
}

func loadAround(t *testing.T, yaml string) (config.Config, string, error) {
	t.Helper()
	dir, env := around(t)
	c, err := config.Load(config.Flags{Config: write(t, filepath.Join(dir, "t.yaml"), yaml)}, env.getenv)
	return c, dir, err
}

func TestWhoMayDoWhat(t *testing.T) {
	got, dir, err := loadAround(t, `
tls: {cert_file: a, key_file: b, client_ca_file: ca.pem}
auth:
  jwt:
    - name: corp
      issuer: https://login.example.com
      audience: telexec
      jwks_url: https://login.example.com/keys
      clock_skew: 30s
      principal_claim: email
      roles_claim: realm.roles
      roles: {ops: [operator, approver], "on": viewer}
    - {name: ci-2, issuer: ci, audience: x, secret_file: hs256, roles: {a: admin}}
    - {name: key, issuer: key, audience: x, public_key_file: public.pem, roles: {a: [admin]}}
    - {name: dev, issuer: dev, audience: x, jwks_url: "http://127.0.0.1:8080/keys", roles: {a: [admin]}}
  client_certificates:
    roles: {ci.example.com: [operator]}
  wider:
    - {roles: [operator, viewer], hosts: ["dev*"], labels: {env: dev}}
    - roles: approver
      hosts: "*"
http: {session_lifetime: 30d}
rate_limits:
  principal: {start: 0.5, read: 0, streams: 3}
  address: {failures: 1.25}
policy:
  default: require_approval
  default_approval: {count: 2, roles: [admin], timeout: 5m, allow_self: true}
  rules:
    # A comment is no rule.
    - name: look
      effect: allow
      match:
        hosts: ["web*", db1]
        labels: {env: prod}
        principals: ["jwt:corp:*"]
        roles: operator
        origins: [mcp, cli]
        programs: [ls]
        commands: [apt update]
        args: ["-*"]
        writes: [/tmp/*]
        variables: [LANG]
        action_types: [package_update]

    - &base
      name: upgrades
      effect: require_approval
      match: {programs: [apt]}
    - <<: *base
      name: careful
      approval: {count: 2, timeout: 30m}
    - {name: rest, effect: deny}
  action_types:
    package_update: [apt update, "apt upgrade *"]
    one: uptime
redaction: {values_file: values}
audit: {output_bytes: 0}
store: {key_file: sealing.key}
`)
	if err != nil {
		t.Fatal(err)
	}
	admin := map[string][]string{"a": {"admin"}}
	jwt := func(name string) config.JWT {
		return config.JWT{Name: name, Issuer: name, Audience: "x", ClockSkew: time.Minute, PrincipalClaim: "sub", RolesClaim: "roles", Roles: admin}
	}
	shared, key, dev := jwt("ci-2"), jwt("key"), jwt("dev")
	shared.Issuer, shared.SecretFile, shared.Secret = "ci", dir+"/hs256", secret.New(hs256)
	key.PublicKeyFile, key.PublicKey = dir+"/public.pem", []byte(public)
	dev.JWKSURL = "http://127.0.0.1:8080/keys"
	gate := config.Approval{Count: 1, Roles: []string{"approver"}, Timeout: time.Hour}
	careful := config.Approval{Count: 2, Roles: []string{"approver"}, Timeout: 30 * time.Minute}
	apt := config.Match{Programs: []string{"apt"}}
	for name, c := range map[string]struct{ got, want any }{
		"tls": {got.TLS, config.TLS{CertFile: dir + "/a", KeyFile: dir + "/b", ClientCAFile: dir + "/ca.pem"}},
		"jwt": {got.Auth.JWT, []config.JWT{{
			Name: "corp", Issuer: "https://login.example.com", Audience: "telexec", JWKSURL: "https://login.example.com/keys",
			ClockSkew: 30 * time.Second, PrincipalClaim: "email", RolesClaim: "realm.roles",
			Roles: map[string][]string{"ops": {"operator", "approver"}, "on": {"viewer"}},
		}, shared, key, dev}},
		"certificates": {got.Auth.ClientCertificates.Roles, map[string][]string{"ci.example.com": {"operator"}}},
		"wider": {got.Auth.Wider, []config.Wider{
			{Roles: []string{"operator", "viewer"}, Hosts: []string{"dev*"}, Labels: map[string]string{"env": "dev"}},
			{Roles: []string{"approver"}, Hosts: []string{"*"}},
		}},
		"session": {got.HTTP.SessionLifetime, 720 * time.Hour},
		"rates": {got.RateLimits, config.RateLimits{
			Principal: config.PrincipalRates{Start: 0.5, Read: 0, List: 100, Stream: 200, Streams: 3},
			Address:   config.AddressRates{Start: 400, Read: 2000, List: 200, Stream: 400, Failures: 1.25},
		}},
		"policy": {got.Policy, config.Policy{
			Default:         "require_approval",
			DefaultApproval: config.Approval{Count: 2, Roles: []string{"admin"}, Timeout: 5 * time.Minute, AllowSelf: true},
			Rules: []config.Rule{
				{Name: "look", Effect: "allow", Line: 31, Match: config.Match{
					Hosts: []string{"web*", "db1"}, Labels: map[string]string{"env": "prod"}, Principals: []string{"jwt:corp:*"},
					Roles: []string{"operator"}, Origins: []string{"mcp", "cli"}, Programs: []string{"ls"}, Commands: []string{"apt update"},
					Args: []string{"-*"}, Writes: []string{"/tmp/*"}, Variables: []string{"LANG"}, ActionTypes: []string{"package_update"},
				}},
				{Name: "upgrades", Effect: "require_approval", Line: 47, Match: apt, Approval: gate},
				{Name: "careful", Effect: "require_approval", Line: 50, Match: apt, Approval: careful},
				{Name: "rest", Effect: "deny", Line: 53},
			},
			ActionTypes: map[string][]string{"package_update": {"apt update", "apt upgrade *"}, "one": {"uptime"}},
		}},
		"redaction": {got.Redaction, config.Redaction{ValuesFile: dir + "/values", Values: []secret.Text{secret.New("hunter2")}}},
		"audit":     {got.Audit, config.Audit{}},
		"key":       {got.Store.KeyFile, dir + "/sealing.key"},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, c.got, c.want)
		}
	}
}

// TestProblemsOfWhoMayDoWhat gives each file with the problems it has, line by
// line, and no others.
func TestProblemsOfWhoMayDoWhat(t *testing.T) {
	const (
		jwt  = "auth:\n  jwt:\n  - name: corp\n    issuer: i\n    audience: a\n    roles: {x: [viewer]}\n    "
		rule = "policy:\n  rules:\n  - name: a\n    effect: allow\n    "
	)
	for _, c := range []struct {
		yaml string
		want []string
	}{
		{jwt + "jwks_url: https://x/y\n", nil},
		{"auth:\n  jwt:\n  -\n", []string{"3: auth.jwt[0]: name is missing", "3: auth.jwt[0]: issuer is missing", "3: auth.jwt[0]: audience is missing",
			"3: auth.jwt[0]: roles is missing", "3: auth.jwt[0]: one of secret_file, public_key_file and jwks_url is missing"}},
		{"auth:\n  jwt: corp\n", []string{"2: auth.jwt: must be a list, not a single value"}},
		{"auth:\n  jwt:\n  - name: c:d\n    issuer: ''\n    audience: ''\n    principal_claim: ''\n    roles_claim: ''\n    roles: [viewer]\n    jwks_url: https://x\n", []string{
			`3: auth.jwt[0].name: "c:d" is no name for an issuer; take up to 32 small letters, digits and -, no - first or last`,
			"4: auth.jwt[0].issuer: must not be empty", "5: auth.jwt[0].audience: must not be empty",
			"6: auth.jwt[0].principal_claim: must not be empty", "7: auth.jwt[0].roles_claim: must not be empty",
			"8: auth.jwt[0].roles: must be a mapping of keys, not a list",
		}},
		{jwt + "jwks_url: https://x\n  - {name: corp, issuer: i, audience: b, jwks_url: https://y, roles: {x: viewer}}\n", []string{
			`8: auth.jwt[1].name: "corp" is taken by the issuer at line 3; names are unique`,
			"8: auth.jwt[1].issuer: is that of the entry at line 3; which keys to use would be open",
		}},
		{jwt + "jwks_url: https://x\n    secret_file: hs256\n", []string{"7: auth.jwt[0].jwks_url: is set beside secret_file; only one of them can be"}},
		{jwt + "jwks_url: http://x/y", []string{`7: auth.jwt[0].jwks_url: "http://x/y" is not a URL such as https://login.example.com/.well-known/jwks.json; http is for loopback only`}},
		{jwt + "jwks_url: x", []string{`7: auth.jwt[0].jwks_url: "x" is not a URL`}},
		{jwt + "jwks_url: https://u:p@x/y", []string{`7: auth.jwt[0].jwks_url: "https://u:p@x/y" is not a URL`}},
		{jwt + "jwks_url: http://[::1]:1/y", nil},
		{jwt + "jwks_url: http://localhost/y", nil},
		{jwt + "secret_file: gone", []string{"7: auth.jwt[0].secret_file: DIR/gone cannot be read: no such file or directory"}},
		{jwt + "secret_file: short", []string{"7: auth.jwt[0].secret_file: the secret in DIR/short has 10 bytes; HS256 needs at least 32"}},
		{jwt + "secret_file: open-values", []string{"7: auth.jwt[0].secret_file: anybody may read or write DIR/open-values (mode 0666); run: chmod o-rw DIR/open-values"}},
		{jwt + "public_key_file: open.pem", []string{"7: auth.jwt[0].public_key_file: anybody may write DIR/open.pem (mode 0666); run: chmod o-w DIR/open.pem"}},
		{jwt + "public_key_file: text", []string{"7: auth.jwt[0].public_key_file: DIR/text holds no key in PEM"}},
		{jwt + "public_key_file: private.pem", []string{"7: auth.jwt[0].public_key_file: DIR/private.pem holds a private key"}},
		{jwt + "public_key_file: .", []string{"7: auth.jwt[0].public_key_file: DIR is not a file of at most 1048576 bytes"}},
		{jwt + "clock_skew: 11m\n    secret_file: hs256", []string{`7: auth.jwt[0].clock_skew: "11m" is more than 10m`}},
		{"auth:\n  jwt:\n  - name: corp\n    issuer: i\n    audience: a\n    secret_file: hs256\n    roles:\n", []string{
			"7: auth.jwt[0].roles: has no value; leave the key out or write a mapping to lists of: viewer, operator, approver, admin"}},
		{"auth:\n  jwt:\n  - name: corp\n    issuer: i\n    audience: a\n    secret_file: hs256\n    roles:\n      x: [root, ~]\n      y: []\n      z:\n", []string{
			`8: auth.jwt[0].roles.x[0]: "root" is not one of viewer, operator, approver, admin`,
			"8: auth.jwt[0].roles.x[1]: has no value",
			"9: auth.jwt[0].roles.y: is empty; leave the key out or write a list of: viewer, operator, approver, admin",
			"10: auth.jwt[0].roles.z: has no value; leave the key out or write a list of",
		}},

		{"auth:\n  client_certificates:\n    roles: {a: admin}\n", []string{"3: auth.client_certificates.roles: tls.client_ca_file is missing; without it no client is asked for a certificate"}},
		{"auth:\n  client_certificates:\n    roles: {}\n", []string{"3: auth.client_certificates.roles: is empty; leave the key out"}},
		{"tls:\n  client_ca_file: ca.pem\n", []string{"2: tls.client_ca_file: tls.cert_file and tls.key_file are missing; certificates of clients need TLS"}},
		{"tls:\n  cert_file: c\n  key_file: k\n  client_ca_file: gone\n", []string{"4: tls.client_ca_file: DIR/gone cannot be read"}},

		{"auth:\n  wider:\n  - roles: [operator]\n", []string{`3: auth.wider[0]: hosts or labels is missing; for all hosts write hosts: ["*"]`}},
		{"auth:\n  wider:\n  - hosts: ['*']\n", []string{"3: auth.wider[0]: roles is missing"}},
		{"auth:\n  wider:\n  - roles: [boss]\n    hosts: []\n    labels: {}\n", []string{
			`3: auth.wider[0].roles[0]: "boss" is not one of`,
			"4: auth.wider[0].hosts: is empty; leave the key out or write a list of: pattern",
			"5: auth.wider[0].labels: is empty; leave the key out or write a mapping of texts",
		}},
		{"auth:\n  wider:\n  - roles: [viewer]\n    hosts: ['', '[a']\n", []string{
			`4: auth.wider[0].hosts[0]: "" is not a pattern such as web*`, `4: auth.wider[0].hosts[1]: "[a" is not a pattern`}},

		{"http:\n  session_lifetime: 59s\n", []string{`2: http.session_lifetime: "59s" is less than 1m`}},
		{"http: {session_lifetime: 31d}\n", []string{`1: http.session_lifetime: "31d" is more than 30d`}},
		{"rate_limits:\n  principal:\n    start: -1\n    read: fast\n    list: 1e3\n    stream: .inf\n    streams: 1.5\n", []string{
			`3: rate_limits.principal.start: "-1" is not a number such as 100 or 0.5`,
			`4: rate_limits.principal.read: "fast" is not a number`,
			`5: rate_limits.principal.list: "1e3" is not a number`,
			`6: rate_limits.principal.stream: ".inf" is not a number`,
			`7: rate_limits.principal.streams: "1.5" is not a whole number`,
		}},
		{"rate_limits:\n  address:\n    failures: 1000000.5\n    start: [1]\n    streams: 1\n", []string{
			`3: rate_limits.address.failures: "1000000.5" is more than 1000000`,
			"4: rate_limits.address.start: must be a number of at most 1000000, not a list",
			"5: rate_limits.address.streams: unknown key (did you mean stream?)",
		}},

		{"policy:\n  default: ask\n", []string{`2: policy.default: "ask" is not one of allow, deny, require_approval`}},
		{"policy:\n  default_approval:\n    count: 0\n    roles: [boss]\n    timeout: 0s\n    allow_self: maybe\n", []string{
			`3: policy.default_approval.count: "0" is less than 1`, `4: policy.default_approval.roles[0]: "boss" is not one of`,
			`5: policy.default_approval.timeout: "0s" is less than 1s`, `6: policy.default_approval.allow_self: "maybe" is not one of false, true`,
		}},
		{"policy:\n  rules:\n  -\n", []string{"3: policy.rules[0]: name is missing", "3: policy.rules[0]: effect is missing"}},
		{"policy:\n  rules:\n  - name: a b\n    effect: permit\n    approval: {}\n", []string{
			`3: policy.rules[0].name: "a b" is no name for a rule; take up to 100 letters`, `4: policy.rules[0].effect: "permit" is not one of`,
		}},
		{"policy:\n  rules:\n  - {name: default, effect: deny}\n  - {name: action_types, effect: deny}\n  - {name: step, effect: deny}\n", []string{
			`3: policy.rules[0].name: "default" is no name for a rule`, `4: policy.rules[1].name: "action_types" is no name for a rule`, `5: policy.rules[2].name: "step" is no name for a rule`,
		}},
		{rule + "\n  - {name: b, effect: deny}\n  - {name: a, effect: deny}\n", []string{`7: policy.rules[2].name: "a" is taken by the rule at line 3; names are unique`}},
		{rule + "approval: {count: 2}\n", []string{"5: policy.rules[0].approval: is only for rules with effect: require_approval; leave it out or change the effect"}},
		{rule + "match:\n", []string{"5: policy.rules[0].match: has no value; leave the key out or write a mapping of keys"}},
		{rule + "match: {}\n", nil},
		{rule + "match: [a]\n", []string{"5: policy.rules[0].match: must be a mapping of keys, not a list"}},
		{rule + "match: *nope\n", []string{"5: policy.rules[0].match: no value stands behind the alias *nope"}},
		{rule + "match:\n      programs:\n      args: []\n      writes: ['']\n      labels: {a: }\n      roles: [root]\n      origins: [telnet]\n      program: ls\n", []string{
			"6: policy.rules[0].match.programs: has no value; leave the key out or write a list of: pattern",
			"7: policy.rules[0].match.args: is empty; leave the key out",
			"8: policy.rules[0].match.writes[0]: must not be empty",
			"9: policy.rules[0].match.labels.a: has no value; it must be text",
			`10: policy.rules[0].match.roles[0]: "root" is not one of viewer`,
			`11: policy.rules[0].match.origins[0]: "telnet" is not one of grpc, rest, websocket, mcp, cli, web`,
			"12: policy.rules[0].match.program: unknown key (did you mean programs?)",
		}},
		{"policy:\n  rules:\n  - name: a\n    effect: require_approval\n    approval:\n      count: 101\n      timeout: -1h\n      roles: []\n", []string{
			`6: policy.rules[0].approval.count: "101" is more than 100`, `7: policy.rules[0].approval.timeout: "-1h" is not a duration`,
			"8: policy.rules[0].approval.roles: is empty",
		}},
		{"policy:\n  action_types:\n    a: []\n    b:\n    c: ['']\n    d: {e: f}\n    '': [x]\n", []string{
			"3: policy.action_types.a: is empty", "4: policy.action_types.b: has no value", "5: policy.action_types.c[0]: must not be empty",
			"6: policy.action_types.d[0]: must be a pattern, not a mapping", "7: policy.action_types: a name is empty",
		}},

		{"redaction:\n  values_file: gone\n", []string{"2: redaction.values_file: DIR/gone cannot be read"}},
		{"redaction:\n  values_file: empty\n", []string{"2: redaction.values_file: DIR/empty is empty"}},
		{"redaction:\n  values_file: open-values\n", []string{"2: redaction.values_file: anybody may read or write DIR/open-values"}},
		{"audit:\n  output_bytes: 64KB\n", nil},
		{"audit:\n  output_bytes: 65KiB\n", []string{`2: audit.output_bytes: "65KiB" is more than 64KiB`}},
		{"store:\n  key_file: ''\n", []string{"2: store.key_file: a path is missing"}},
	} {
		_, dir, err := loadAround(t, c.yaml)
		var got []string
		if err != nil {
			got = strings.Split(fault.From(err).Message, "\n  ")
			if len(got) > 1 {
				got = got[1:]
			}
		}
		ok := len(got) == len(c.want)
		for i := 0; ok && i < len(got); i++ {
			ok = strings.HasPrefix(got[i], dir+"/t.yaml:"+strings.ReplaceAll(c.want[i], "DIR", dir))
		}
		if !ok {
			t.Errorf("%s\n got %s\nwant %s", c.yaml, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}

func TestValuesToMask(t *testing.T) {
	dir, env := home(t)
	long := strings.Repeat("x", 4096)
	values := write(t, filepath.Join(dir, "values"), "abcd\r\n\n# no comment\nabcd\n"+long+"\nlast one")
	env["TELEXEC_REDACTION_VALUES_FILE"] = values
	got, err := config.Load(config.Flags{}, env.getenv)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, v := range got.Redaction.Values {
		all = append(all, v.Reveal())
	}
	if want := []string{"abcd", "# no comment", long, "last one"}; !reflect.DeepEqual(all, want) {
		t.Errorf("the values are %q", all)
	}

	write(t, values, "good-value\nabc\n"+long+"x\n hunter2\nhunter2\t\n")
	_, err = config.Load(config.Flags{}, env.getenv)
	want := strings.ReplaceAll(`the configuration has 4 problems:
  FILE:2: redaction.values_file: a value of 3 bytes; write one of 4 to 4096 bytes in a line
  FILE:3: redaction.values_file: a value of 4097 bytes; write one of 4 to 4096 bytes in a line
  FILE:4: redaction.values_file: a value that begins or ends with white space; write it without, and the rest of it is masked
  FILE:5: redaction.values_file: a value that begins or ends with white space; write it without, and the rest of it is masked`, "FILE", values)
	if got := fault.From(err).Message; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	write(t, values, strings.Repeat("0123456789abcde\n", 1<<16)+"x")
	if _, err := config.Load(config.Flags{}, env.getenv); err == nil || !strings.Contains(err.Error(), "is not a file of at most 1048576 bytes") {
		t.Errorf("a file of more than 1 MiB: %v", err)
	}
}

// TestVariablesOfNewSettings: scalars have variables, lists and mappings have none.
func TestVariablesOfNewSettings(t *testing.T) {
	_, env := home(t)
	env["TELEXEC_RATE_LIMITS_PRINCIPAL_START"] = "2.5"
	env["TELEXEC_POLICY_DEFAULT"] = "require_approval"
	env["TELEXEC_POLICY_DEFAULT_APPROVAL_TIMEOUT"] = "2h"
	for _, list := range []string{"AUTH_JWT", "AUTH_WIDER", "AUTH_CLIENT_CERTIFICATES_ROLES", "POLICY_RULES", "POLICY_ACTION_TYPES", "POLICY_DEFAULT_APPROVAL_ROLES"} {
		env["TELEXEC_"+list] = "x"
	}
	got, err := config.Load(config.Flags{}, env.getenv)
	want := config.Policy{
		Default:         "require_approval",
		DefaultApproval: config.Approval{Count: 1, Roles: []string{"approver"}, Timeout: 2 * time.Hour},
	}
	if err != nil || got.RateLimits.Principal.Start != 2.5 || !reflect.DeepEqual(got.Policy, want) {
		t.Errorf("%+v, %v", got, err)
	}
	env["TELEXEC_POLICY_DEFAULT"] = "deny" // then nobody's approval counts
	if got, err = config.Load(config.Flags{}, env.getenv); err != nil || !reflect.DeepEqual(got.Policy, config.Policy{Default: "deny"}) {
		t.Errorf("%+v, %v", got, err)
	}
	env["TELEXEC_RATE_LIMITS_ADDRESS_FAILURES"] = "1,5"
	if _, err := config.Load(config.Flags{}, env.getenv); err == nil ||
		!strings.Contains(err.Error(), `TELEXEC_RATE_LIMITS_ADDRESS_FAILURES: rate_limits.address.failures: "1,5" is not a number such as 100 or 0.5`) {
		t.Error(err)
	}
}

// TestChanged loads a file, changes it, and loads it again.
func TestChanged(t *testing.T) {
	dir, env := around(t)
	file := filepath.Join(dir, "t.yaml")
	at := func(yaml string) config.Config {
		t.Helper()
		write(t, file, yaml)
		c, err := config.Load(config.Flags{Config: file}, env.getenv)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const (
		jwt   = "auth: {jwt: [{name: a, issuer: i, audience: a, secret_file: hs256, roles: {x: [viewer]}}]}\n"
		rules = "policy: {rules: [{name: a, effect: allow, match: {labels: {a: b}, programs: [ls]}}]}\n"
		hosts = "hosts: [{name: a, address: 'b:22', password: hunter2, labels: {x: y}}]\n"
	)
	for _, c := range []struct {
		was, is string
		want    []string
	}{
		{"", "", nil},
		{"", "log: {level: info}\nauth: {jwt: []}\nhosts: []\n", nil}, // the defaults
		{rules + hosts, "# another line\n" + rules + hosts, nil},
		{"log: {level: debug}\ngrpc_addr: '127.0.0.1:1'\n", "rate_limits: {address: {failures: 6}}\n", []string{"grpc_addr", "log.level", "rate_limits.address.failures"}},
		{hosts, strings.Replace(hosts, "hunter2", "hunter3", 1), []string{"hosts"}},
		{hosts, strings.Replace(hosts, "b:22", "b:23", 1), []string{"hosts"}},
		{hosts, strings.Replace(hosts, "x: y", "x: z", 1), []string{"hosts"}},
		{hosts, strings.Replace(hosts, "x: y", "y: y", 1), []string{"hosts"}},
		{hosts, strings.Replace(hosts, "x: y", "x: y, z: z", 1), []string{"hosts"}},
		{hosts, "", []string{"hosts"}},
		{jwt, strings.Replace(jwt, "viewer", "viewer, admin", 1), []string{"auth.jwt"}},
		{rules, strings.Replace(rules, "[ls]", "[id]", 1), []string{"policy.rules"}},
		{rules, "policy: {default: deny, action_types: {a: [b]}}\n", []string{"policy.default", "policy.rules", "policy.action_types"}},
		{"", "data_dir: /x\n", []string{"data_dir", "auth.admin_token_file", "store.sqlite_file", "store.key_file"}},
	} {
		was, is := at(c.was), at(c.is)
		if got := was.Changed(is); !reflect.DeepEqual(got, c.want) {
			t.Errorf("from %s to %s: %v, want %v", c.was, c.is, got, c.want)
		}
		if got := is.Changed(was); !reflect.DeepEqual(got, c.want) {
			t.Errorf("from %s back to %s: %v, want %v", c.is, c.was, got, c.want)
		}
	}

	// The file stays, what is in the files that it names does not.
	const yaml = "redaction: {values_file: values}\n" + jwt
	was := at(yaml)
	write(t, filepath.Join(dir, "values"), "hunter3\n")
	write(t, filepath.Join(dir, "hs256"), hs256+"x")
	is := at(yaml)
	got := was.Changed(is)
	if want := []string{"auth.jwt", "redaction.values_file"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the content of files changed: %v, want %v", got, want)
	}
	if s := fmt.Sprintf("%+v", is); strings.Contains(s, "hunter3") || strings.Contains(s, hs256) {
		t.Errorf("a secret shows in %s", s)
	}
}
