// Package config reads the configuration of telexecd: one YAML file, the
// TELEXEC_* environment variables and the flags, merged into one validated
// Config. Nobody else reads them.
//
// Start with Config: its fields are the whole of what can be set. A field's tags
// say how it is read, and its comment is its row in docs/configuration.md, which
// a test keeps in step:
//
//	yaml     name of the key in the file
//	default  value when nothing sets it, as it would be written
//	auto     a default that is computed, in words
//	kind     how the text is read where the Go type does not say it:
//	         addr, path, pathOrNone, size, …
//	enum     the allowed words; of a list or mapping, those of its elements
//	min max  the allowed range, as it would be written
//	empty    no: a key that is there must say something; for keys whose absence
//	         means "whatever it is", where a value left out would open a door
//	of       of a field without a key: the key of the file whose content it is
//
// Every scalar outside the lists has a variable as well: log.level is
// TELEXEC_LOG_LEVEL. Flags win over variables, which win over the file.
//
// Load finds all problems, not only the first; each names the file and line, the
// variable or the flag it comes from, and what would be right. It can be called
// again while the service runs; Config.Changed then tells what is new.
//
// The files: config.go, identity.go, rules.go, sessions.go and tasks.go hold the settings, each with the
// checks of its own; load.go merges the sources, decode.go walks the YAML, value.go
// reads single values, target.go hosts, content.go the files that settings name.
// The room is past 1,500 lines because a third of them are the settings, whose
// comments are their documentation.
package config

import (
	"log/slog"
	"time"

	"github.com/telexec/telexec/internal/secret"
)

// Config is everything that can be set, checked: addresses can be listened on,
// paths are absolute, secrets have been read from their files. It is not changed
// after Load.
type Config struct {
	// Address that gRPC listens on. Port 0 takes a free one.
	GRPCAddr string `yaml:"grpc_addr" kind:"addr" default:"127.0.0.1:7070"`
	// Address that REST, its OpenAPI document and the metrics are served on. Port 0 takes a free one.
	HTTPAddr string `yaml:"http_addr" kind:"addr" default:"127.0.0.1:7080"`
	// Whether the ports may speak plain text on an address that other machines reach. Commands, output and tokens can then be read on the way; set tls instead where you can.
	InsecureListen bool `yaml:"insecure_listen" enum:"false|true" default:"false"`
	// Directory of the service's own files; made with mode 0700 when it is not there.
	DataDir string `yaml:"data_dir" kind:"path" auto:"$XDG_STATE_HOME/telexec, else ~/.local/state/telexec"`
	// How long a stopping service waits for calls that are being answered.
	DrainTimeout time.Duration `yaml:"drain_timeout" default:"10s"`

	Log        Log        `yaml:"log"`
	TLS        TLS        `yaml:"tls"`
	Auth       Auth       `yaml:"auth"`
	HTTP       HTTP       `yaml:"http"`
	RateLimits RateLimits `yaml:"rate_limits"`
	Policy     Policy     `yaml:"policy"`
	Redaction  Redaction  `yaml:"redaction"`
	Audit      Audit      `yaml:"audit"`
	Limits     Limits     `yaml:"limits"`
	Retention  Retention  `yaml:"retention"`
	Sessions   Sessions   `yaml:"sessions"`
	Tasks      Tasks      `yaml:"tasks"`
	Store      Store      `yaml:"store"`
	SSH        SSH        `yaml:"ssh"`

	// OpenSSH client configuration whose aliases are hosts too; it may be absent. "" or none switches it off.
	SSHConfig string `yaml:"ssh_config" kind:"pathOrNone" default:"~/.ssh/config"`

	// The hosts of the service itself, see below.
	Hosts []Host `yaml:"hosts"`

	// File is the file that was read; empty when there was none.
	File string `yaml:"-"`
	// Home is the home directory that ~ stands for, from HOME or the user database.
	Home string `yaml:"-"`
	// User is the login name of the user the service runs as.
	User string `yaml:"-"`
}

// Log is about the service's own log, on stderr.
type Log struct {
	// Least level that is logged.
	Level slog.Level `yaml:"level" enum:"debug|info|warn|error" default:"info"`
	// text for people, json for programs; auto is text on a terminal and json elsewhere.
	Format LogFormat `yaml:"format" enum:"auto|text|json" default:"auto"`
}

// LogFormat is how log lines look.
type LogFormat string

// The formats.
const (
	LogAuto LogFormat = "auto" // LogText on a terminal, LogJSON elsewhere
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// TLS is for both ports. Either both files are set or none.
type TLS struct {
	// Certificate chain in PEM for both ports; needs tls.key_file.
	CertFile string `yaml:"cert_file" kind:"path"`
	// Private key in PEM for tls.cert_file.
	KeyFile string `yaml:"key_file" kind:"path"`
	// Certificate authorities in PEM of clients' certificates: clients are asked for one, which is checked against these, but may go without.
	ClientCAFile string `yaml:"client_ca_file" kind:"path"`
}

// Enabled reports whether the ports speak TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// HTTP is about the HTTP port alone.
type HTTP struct {
	// Host headers that are answered besides loopback names and http_addr: names or addresses, with a port or for any port.
	AllowedHosts []string `yaml:"allowed_hosts" kind:"httpHost"`
	// Origins of web pages that may call besides the service's own, such as https://ops.example.com.
	AllowedOrigins []string `yaml:"allowed_origins" kind:"origin"`
	// How long a browser stays signed in.
	SessionLifetime time.Duration `yaml:"session_lifetime" default:"12h" min:"1m" max:"30d"`
	// WebSockets that are open at once; 0 sets no limit.
	MaxSockets int `yaml:"max_sockets" default:"4096" min:"0" max:"1000000"`
	// The same for one principal.
	MaxSocketsPerPrincipal int `yaml:"max_sockets_per_principal" default:"256" min:"0" max:"1000000"`
}

// Limits bounds what runs and waits.
type Limits struct {
	// Commands that run at once on all hosts together.
	MaxCommands int `yaml:"max_commands" default:"1000" min:"1" max:"100000"`
	// Commands that run at once on one host, where the host does not say otherwise.
	MaxCommandsPerHost int `yaml:"max_commands_per_host" default:"10" min:"1" max:"10000"`
	// Commands that wait in the queue; one more is refused.
	MaxQueued int `yaml:"max_queued" default:"10000" min:"0" max:"1000000"`
	// Commands of one principal that wait for approval; one more is refused.
	MaxAwaiting int `yaml:"max_awaiting_approval" default:"100" min:"1" max:"100000"`
	// How long a command may wait in the queue before it expires.
	QueueTimeout time.Duration `yaml:"queue_timeout" default:"24h" min:"1s"`
	// How long Execute waits for the end where the caller does not say.
	DefaultWait time.Duration `yaml:"default_wait" default:"30s" max:"10m"`
	// How long a host may be away until the commands that live on it are given up as LOST; they may well go on there.
	ReconnectTimeout time.Duration `yaml:"reconnect_timeout" default:"24h" min:"1s"`
	// Bytes of each stream of a command that may lie on its host until it has ended and all was collected. What it prints beyond that is not kept, and the command tells from where on.
	SpoolLimit int64 `yaml:"spool_limit" kind:"size" default:"4GiB" min:"64KiB"`
}

// Retention says how long results are kept.
type Retention struct {
	// Bytes of each stream that are kept of an ended command: its head and its tail.
	OutputBytes int64 `yaml:"output_bytes" kind:"size" default:"10MiB"`
	// How long the whole output is kept after the end, before it is cut to output_bytes.
	FullOutput time.Duration `yaml:"full_output" default:"1h"`
	// How long ended commands are kept, ended tasks, and ended sessions with their recordings.
	History time.Duration `yaml:"history" default:"30d" min:"1m"`
}

// Store is where commands are kept.
type Store struct {
	// The SQLite database.
	SQLiteFile string `yaml:"sqlite_file" kind:"path" auto:"telexec.db in data_dir"`
	// File with the key that seals secrets in the database; made with mode 0600 at the first start. Without it they are lost.
	KeyFile string `yaml:"key_file" kind:"path" auto:"store.key in data_dir"`
}

// Redaction is about values that nobody shall see in an output.
type Redaction struct {
	// File with secret values, one per line, of 4 to 4096 bytes each: they are masked in every command's output.
	ValuesFile string `yaml:"values_file" kind:"path"`

	// Values is what ValuesFile holds, every value once.
	Values []secret.Text `yaml:"-" of:"values_file"`
}

// Audit is about the record of who did what.
type Audit struct {
	// Bytes of the head and of the tail of each stream that the entry about an ended command shows; 0 shows none.
	OutputBytes int64 `yaml:"output_bytes" kind:"size" default:"1KiB" max:"64KiB"`
}

// SSH holds the defaults for every host and the figures of the connection pool.
type SSH struct {
	// Limit for connecting (dial, handshake, authentication), and for opening a channel. A command that waits for others on a busy host fails only when the host lets nobody in, starts nothing and ends nothing for so long.
	ConnectTimeout time.Duration `yaml:"connect_timeout" default:"10s" min:"100ms" max:"10m"`
	// Time between keepalives; 0 sends none.
	KeepaliveInterval time.Duration `yaml:"keepalive_interval" default:"5s"`
	// Keepalives without an answer until a peer is taken for dead.
	KeepaliveMax int `yaml:"keepalive_max" default:"3" min:"1" max:"1000"`
	// How long a connection without commands stays open.
	IdleTimeout time.Duration `yaml:"idle_timeout" default:"5m"`
	// Commands on one connection before another one is opened; sshd allows 10 sessions unless told otherwise.
	SessionsPerConnection int `yaml:"sessions_per_connection" default:"8" min:"1" max:"1000"`
	// Handshakes with one host at once; sshd begins to refuse at 10 unless told otherwise.
	HandshakesPerHost int `yaml:"handshakes_per_host" default:"5" min:"1" max:"100"`
	// Socket of the SSH agent, or none.
	Agent string `yaml:"agent" kind:"pathOrNone" auto:"$SSH_AUTH_SOCK"`
}

// Host is a host of the file. What it leaves out comes from the ssh_config alias
// that its address names, if it names one, else from the defaults.
type Host struct {
	// What callers ask for; unique.
	Name string `yaml:"name" kind:"hostName"`
	// Host name, IP address or ssh_config alias, with or without a port: web1.example.com:22, [2001:db8::1]:22.
	Address Target `yaml:"address" auto:"name"`
	// Login name.
	User string `yaml:"user" auto:"ssh_config, else the user of the service"`
	// Private keys, tried in this order; a list, or one alone.
	IdentityFile []string `yaml:"identity_file" kind:"path" auto:"ssh_config, else those of id_ed25519, id_ecdsa and id_rsa in ~/.ssh that exist"`
	// OpenSSH certificates for the keys; a list, or one alone.
	CertificateFile []string `yaml:"certificate_file" kind:"path" auto:"ssh_config, else KEY-cert.pub beside each key"`
	// File that holds the passphrase of the private keys.
	PassphraseFile string `yaml:"passphrase_file" kind:"path"`
	// Passphrase of the private keys, in place of passphrase_file.
	Passphrase secret.Text `yaml:"passphrase"`
	// File that holds the login password.
	PasswordFile string `yaml:"password_file" kind:"path"`
	// Login password, in place of password_file.
	Password secret.Text `yaml:"password"`
	// Files that the host key is looked up in, these and no others; accept-new writes to the first. A list, or one alone.
	KnownHostsFile []string `yaml:"known_hosts_file" kind:"path" auto:"ssh_config, else known_hosts and known_hosts2 in ~/.ssh, ssh_known_hosts and ssh_known_hosts2 in /etc/ssh"`
	// What to do with an unknown host key: strict refuses it, accept-new writes it down. A changed key is always refused.
	HostKeyPolicy string `yaml:"host_key_policy" enum:"strict|accept-new" auto:"ssh_config, else strict"`
	// Name that the host key is looked up under, in place of the address.
	HostKeyAlias string `yaml:"host_key_alias" auto:"ssh_config"`
	// Hosts to go through, first hop first: names of hosts, aliases, or [user@]host[:port]. A list, or one alone; none for no jump.
	ProxyJump []Target `yaml:"proxy_jump" auto:"ssh_config"`
	// Limit for connecting (dial, handshake, authentication), and for opening a channel. A command that waits for others on a busy host fails only when the host lets nobody in, starts nothing and ends nothing for so long.
	ConnectTimeout time.Duration `yaml:"connect_timeout" min:"100ms" max:"10m" auto:"ssh_config, else ssh.connect_timeout"`
	// Commands that run at once on this host.
	MaxCommands int `yaml:"max_commands" min:"1" max:"10000" auto:"limits.max_commands_per_host"`
	// Bytes of each stream of a command that may lie on this host until it has ended and all was collected.
	SpoolLimit int64 `yaml:"spool_limit" kind:"size" min:"64KiB" auto:"limits.spool_limit"`
	// posix, or none for a host without a POSIX shell (a network device, a restricted login): command lines go out as they are and run attached.
	Shell string `yaml:"shell" enum:"posix|none" auto:"posix"`
	// Words of your own about the host, to filter by.
	Labels map[string]string `yaml:"labels"`
}

// Flags are the settings that telexecd takes on its command line. An empty one
// was not given. The tags are for kong, which parses them.
type Flags struct {
	Config    string `name:"config" placeholder:"FILE" help:"Configuration file; it must exist. Default: $XDG_CONFIG_HOME/telexec/telexec.yaml (~/.config/…), if it is there."`
	DataDir   string `name:"data-dir" placeholder:"DIR" help:"Directory of the service's own files (default $XDG_STATE_HOME/telexec, else ~/.local/state/telexec)." setting:"data_dir"`
	GRPCAddr  string `name:"grpc-addr" placeholder:"ADDR" help:"Address that gRPC listens on (default 127.0.0.1:7070)." setting:"grpc_addr"`
	HTTPAddr  string `name:"http-addr" placeholder:"ADDR" help:"Address that HTTP listens on (default 127.0.0.1:7080)." setting:"http_addr"`
	LogLevel  string `name:"log-level" placeholder:"LEVEL" help:"debug, info, warn or error." setting:"log.level"`
	LogFormat string `name:"log-format" placeholder:"FORMAT" help:"text, json or auto." setting:"log.format"`
}
