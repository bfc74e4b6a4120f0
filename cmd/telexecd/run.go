// Telexecd is the service: it runs commands on remote hosts over SSH and keeps
// them, and answers gRPC on one port and REST on another.
//
// This file puts the rooms together, and is the only place where they meet:
//
//	gateway ─memory─▶ rpcserver ─▶ api ─▶ engine ─▶ sshexec ─▶ sshconn ─▶ hosts
//	gRPC clients ──TCP──▶ ┘         │ ▲     ├─▶ store/sqlite    ▲
//	                                │ workflow                  │
//	                                └─────▶ terminal ─▶ sshterm ┘
//
// Each room declares what it needs of the others as a small interface;
// adapt.go and sessions.go are the glue where two rooms have a word each for the same
// thing.
//
// The service starts in this order: configuration, store, hosts, ports,
// recovery, of sessions first, since commands are in them; then it says on one
// line of standard output that it is ready. It stops the other way round: no new
// commands, running ones get the drain timeout, then the doors close and sessions
// are let go of, then connections and store.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/test/bufconn"

	"github.com/telexec/telexec/gen/openapi"
	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/api"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway"
	"github.com/telexec/telexec/internal/gateway/socket"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/program"
	"github.com/telexec/telexec/internal/rpcserver"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/sshexec"
	"github.com/telexec/telexec/internal/sshterm"
	"github.com/telexec/telexec/internal/store/sqlite"
	"github.com/telexec/telexec/internal/telemetry"
	"github.com/telexec/telexec/internal/terminal"
	"github.com/telexec/telexec/internal/workflow"
	"github.com/telexec/telexec/web"
)

const (
	// memoryPipe is how many bytes the gateway's connection to the gRPC server
	// holds each way.
	memoryPipe = 256 << 10
	// lastWords is how long calls under way may take once no command is looked
	// after any more: enough to send what is known.
	lastWords = 2 * time.Second
	// gcPercent lets the heap grow by half before it is collected. What the service
	// holds is small and short-lived, so memory is dearer here than the collector.
	gcPercent = 50
)

// env is all that the program gets from outside.
type env struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Hangups        <-chan os.Signal // each has the policy read again; nil: none ever comes
}

// cli is the command line.
type cli struct {
	config.Flags `embed:""`
	Check        bool                `help:"Only check the configuration and the policy: exit code 0 where they are right, 1 with the mistakes where they are not."`
	Help         program.HelpFlag    `short:"h" help:"Show help."`
	Version      program.VersionFlag `help:"Print the version of this program."`
}

// errUsage marks a command line that makes no sense.
var errUsage = errors.New("run \"telexecd --help\" for the flags")

// exitCode gives 0 for success, 2 for a wrong command line, 1 for the rest.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	return 1
}

// run is the program: it serves until ctx ends, and returns when everything has
// stopped. Its error is meant for people.
func run(ctx context.Context, e env, args []string) error {
	flags, err := parse(e, args)
	if errors.Is(err, program.ErrShown) {
		return nil
	}
	if err != nil {
		return err
	}
	cfg, err := config.Load(flags.Flags, e.Getenv)
	if err != nil {
		return plain(err)
	}
	rules, err := newPolicy(cfg)
	if err != nil {
		return plain(err)
	}
	if flags.Check {
		return plain(check(e, cfg, rules))
	}
	if e.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	}
	load := func() (config.Config, error) { return config.Load(flags.Flags, e.Getenv) }
	return plain(serve(ctx, e, cfg, rules, load))
}

// check makes of the configuration all that can be made without a port, the data
// directory or a call to somebody, and tells that it is right.
func check(e env, cfg config.Config, rules *policy.Policy) error {
	if _, err := newIdentity(cfg, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if _, err := openHosts(cfg, e.Getenv); err != nil {
		return err
	}
	if _, err := loadTLS(cfg.TLS); err != nil {
		return err
	}
	for _, w := range rules.Warnings() {
		fmt.Fprintln(e.Stderr, "warning:", w)
	}
	_, err := fmt.Fprintf(e.Stdout, "the configuration is right: %d hosts, %d rules, default %s\n", len(cfg.Hosts), len(cfg.Policy.Rules), cfg.Policy.Default)
	return err
}

func openHosts(cfg config.Config, getenv func(string) string) (*inventory.Inventory, error) {
	return inventory.Open(inventory.Options{
		Hosts: cfg.Hosts, SSHConfig: cfg.SSHConfig, Home: cfg.Home, User: cfg.User, SSH: cfg.SSH,
		MaxCommands: cfg.Limits.MaxCommandsPerHost, SpoolLimit: cfg.Limits.SpoolLimit, Getenv: getenv,
	})
}

// plain gives a fault's text for people, without the words for the log.
func plain(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return errors.New(f.Text())
	}
	return err
}

func parse(e env, args []string) (c cli, err error) {
	parser, err := kong.New(&c, kong.Name("telexecd"),
		kong.Description("Runs commands on remote hosts over SSH and never loses one. Flags win over TELEXEC_* variables, which win over the configuration file."),
		kong.NoDefaultHelp(),
		kong.Writers(e.Stdout, e.Stderr))
	if err != nil {
		return c, err
	}
	_, err = parser.Parse(args)
	if err != nil && !errors.Is(err, program.ErrShown) {
		return c, fmt.Errorf("%w; %w", err, errUsage)
	}
	return c, err
}

// serve makes all parts and runs them. load reads the configuration again.
func serve(ctx context.Context, e env, cfg config.Config, rules *policy.Policy, load func() (config.Config, error)) (err error) {
	log := telemetry.NewLogger(e.Stderr, cfg.Log.Level, telemetry.Format(cfg.Log.Format))
	version, commit := program.Build()
	metrics := telemetry.NewMetrics(version)

	if err := prepareDataDir(cfg.DataDir); err != nil {
		return err
	}
	key, err := seal.OpenKey(cfg.Store.KeyFile)
	if err != nil {
		return err
	}
	store, err := sqlite.Open(ctx, cfg.Store.SQLiteFile, sqlite.Options{Logger: log, Key: key})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var drained time.Time // when the service began to stop; zero before
	who, err := openIdentity(ctx, cfg, store, log)
	if err != nil {
		return err
	}
	refusals := access.NewRefusals(store, log)
	warn(log, rules)
	hosts, err := openHosts(cfg, e.Getenv)
	if err != nil {
		return err
	}
	tlsConfig, err := loadTLS(cfg.TLS)
	if err != nil {
		return err
	}
	grpcPort, err := listen(cfg, "grpc_addr", cfg.GRPCAddr)
	if err != nil {
		return err
	}
	defer grpcPort.Close() // closed before in the ordinary case
	httpPort, err := listen(cfg, "http_addr", cfg.HTTPAddr)
	if err != nil {
		return err
	}
	defer httpPort.Close()

	pool := sshconn.New(sshconn.Options{
		Logger: log, IdleTimeout: cfg.SSH.IdleTimeout,
		SessionsPerConn: cfg.SSH.SessionsPerConnection, HandshakesPerHost: cfg.SSH.HandshakesPerHost,
	})
	defer pool.Close()
	node, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("the name of this machine: %w", err)
	}
	exec := sshexec.New(dialer{pool}, sshexec.Options{ReconnectTimeout: cfg.Limits.ReconnectTimeout})
	shared, err := terminal.New(terminal.Options{
		Shells: shells{sshterm.New(dialer{pool}, sshterm.Options{}), metrics}, Journal: store, Hosts: hosts, Rights: who.rights,
		Limits: terminal.Limits{
			MaxSessions: cfg.Sessions.MaxSessions, MaxPerPrincipal: cfg.Sessions.MaxPerPrincipal,
			IdleTimeout: cfg.Sessions.IdleTimeout, Lifetime: cfg.Sessions.Lifetime, ReconnectTimeout: cfg.Limits.ReconnectTimeout,
			Record: cfg.Sessions.Record, RecordingBytes: cfg.Sessions.RecordingLimit, Scrollback: cfg.Sessions.Scrollback,
			Prompts: cfg.Sessions.Prompts,
		},
		Redact: cfg.Redaction.Values, Logger: log,
	})
	if err != nil {
		return fmt.Errorf("sessions: %w", plain(err))
	}
	eng, err := engine.New(engine.Options{
		Journal: store, Rights: who.rights, Policy: rules, Redact: cfg.Redaction.Values, Excerpt: int(cfg.Audit.OutputBytes),
		Runner: runner{exec}, Hosts: hosts, Sessions: inSessions{shared}, Node: node,
		Limits: engine.Limits{
			MaxCommands: cfg.Limits.MaxCommands, MaxQueued: cfg.Limits.MaxQueued, MaxAwaiting: cfg.Limits.MaxAwaiting,
			QueueTimeout: cfg.Limits.QueueTimeout, DrainTimeout: cfg.DrainTimeout,
		},
		Retention: command.Retention{
			TrimAfter: cfg.Retention.FullOutput, TrimTo: cfg.Retention.OutputBytes, DeleteAfter: cfg.Retention.History,
		},
		Logger: log, Meter: meter{metrics},
	})
	if err != nil {
		return fmt.Errorf("redaction.values_file: %w", plain(err))
	}
	shared.Use(eng)
	flow := workflow.New(workflow.Options{
		Journal: store, Commands: steps{eng}, Hosts: hosts, Rights: who.rights,
		Limits: workflow.Limits{Running: cfg.Tasks.MaxRunning, Queued: cfg.Tasks.MaxQueued, Approval: cfg.Tasks.ApprovalTimeout, History: cfg.Retention.History},
		Logger: log,
	})
	observe(metrics, eng, shared, flow, pool, hosts)

	server, err := rpcserver.New(rpcserver.Options{
		Authenticator: who.doors, Limiter: who.limiter, Revocations: who.keys, Refusals: refusals,
		TLS: tlsConfig, Logger: log, Meter: metrics, DrainTimeout: lastWords,
	})
	if err != nil {
		return err
	}
	commands := commands{eng}
	terms := terminals{shared}
	telexecv1.RegisterCommandServiceServer(server, api.NewCommands(commands, commands, commands, terms, cfg.Limits.DefaultWait))
	tasks := tasks{flow}
	telexecv1.RegisterEventServiceServer(server, api.NewEvents(commands, terms, tasks))
	telexecv1.RegisterTaskServiceServer(server, api.NewTasks(tasks, commands))
	telexecv1.RegisterSessionServiceServer(server, api.NewSessions(terms, terms, commands, refusals))
	telexecv1.RegisterHostServiceServer(server, api.NewHosts(hosts, commands, links{pool, exec}, who.rights))
	telexecv1.RegisterApprovalServiceServer(server, api.NewApprovals(commands, tasks))
	telexecv1.RegisterPolicyServiceServer(server, api.NewPolicy(eng))
	telexecv1.RegisterAdminServiceServer(server, api.NewAdmin(api.Info{
		Version: version, Commit: commit, GoVersion: runtime.Version(), Node: node, Store: "sqlite", Started: time.Now(),
		Limits: api.Limits{
			MaxCommands: cfg.Limits.MaxCommands, MaxCommandsPerHost: cfg.Limits.MaxCommandsPerHost, MaxQueued: cfg.Limits.MaxQueued,
			RetainedOutput: cfg.Retention.OutputBytes, FullOutput: cfg.Retention.FullOutput, History: cfg.Retention.History,
		},
	}, commands, who.keys, store, who.rights))
	known := []<-chan struct{}{shared.Ready(), eng.Ready(), flow.Ready()}
	memory := bufconn.Listen(memoryPipe)
	rest, err := gateway.New(ctx, gateway.Options{
		Dial: memory.DialContext, Authenticator: who.doors, Limiter: who.limiter, Refusals: refusals, Recorder: store,
		Sealer: key, SessionLifetime: cfg.HTTP.SessionLifetime, Problem: rpcserver.Problem, Ready: readiness(eng, known),
		Metrics: metrics.Handler(), OpenAPI: openapi.JSON, UI: web.Files(),
		Addr: httpPort.Addr(), AllowedHosts: cfg.HTTP.AllowedHosts, AllowedOrigins: cfg.HTTP.AllowedOrigins,
		SocketMeter: metrics, SocketLimits: socket.Limits{All: cfg.HTTP.MaxSockets, PerPrincipal: cfg.HTTP.MaxSocketsPerPrincipal},
		TLS: tlsConfig, DrainTimeout: lastWords, Logger: log,
	})
	if err != nil {
		return err
	}
	defer rest.Close()

	// Before the first command, and before a reload can tell of the next rules.
	if err := store.Record(ctx, loaded(cfg)); err != nil {
		return err
	}
	reload := reloading{load: load, use: eng.SetPolicy, typing: who.rights.SetTyping, audit: store, log: log, cfg: cfg}
	err = runAll(ctx, eng, known,
		func(ctx context.Context) error { return server.Run(ctx, grpcPort, memory) },
		func(ctx context.Context) error { return rest.Run(ctx, httpPort) },
		[]part{
			{"API keys", who.keys.Run},
			{"issuers of tokens", who.issuers.Run},
			{"refusals", refusals.Run},
			{"sessions", func(ctx context.Context) error {
				if err := shared.Run(ctx); ctx.Err() == nil {
					return err
				}
				return nil // it was stopped before it had begun
			}},
			{"tasks", flow.Run},
			{"ends of sessions", func(ctx context.Context) error { return tellEnds(ctx, shared, eng.SessionEnded) }},
			{"reload", func(ctx context.Context) error { return reload.run(ctx, e.Hangups) }},
		},
		func(serving bool) error {
			server.SetServing(serving)
			if !serving {
				drained = time.Now()
				log.Info("draining", "why", why(ctx))
				return nil
			}
			if err := store.Record(ctx, audit.Entry{Time: time.Now(), Kind: audit.ServiceStarted, Subject: node, Detail: version}); err != nil {
				return err
			}
			log.Info("ready", "version", version, "grpc", grpcPort.Addr().String(), "http", httpPort.Addr().String(), "data", cfg.DataDir)
			_, err := fmt.Fprintf(e.Stdout, "telexecd ready grpc=%s http=%s data=%s\n", grpcPort.Addr(), httpPort.Addr(), cfg.DataDir)
			return err
		})
	if !drained.IsZero() {
		ctx := context.WithoutCancel(ctx)
		tellStopped(ctx, log, eng, time.Since(drained))
		if recordErr := store.Record(ctx, audit.Entry{Time: time.Now(), Kind: audit.ServiceStopped, Subject: node, Detail: version}); recordErr != nil {
			log.Error("that the service stopped could not be told to the audit", "error", recordErr)
		}
	}
	return err
}

// why tells what ended ctx: the signal, or that a part of the service failed.
func why(ctx context.Context) string {
	if cause := context.Cause(ctx); cause != nil {
		return cause.Error()
	}
	return "a part of the service has failed"
}

// tellStopped logs that the engine has let go of everything, and how many
// commands wait for the next start: durable ones that go on on their hosts, and
// queued ones.
func tellStopped(ctx context.Context, log *slog.Logger, commands lister, after time.Duration) {
	running, err := commands.List(ctx, itself, command.Filter{States: []command.State{command.Starting, command.Running}})
	queued, queuedErr := commands.List(ctx, itself, command.Filter{States: []command.State{command.Queued, command.AwaitingApproval}})
	if err = errors.Join(err, queuedErr); err != nil {
		log.Error("stopped; what is left cannot be told", "after", after, "error", err)
		return
	}
	log.Info("stopped", "after", after, "commands_that_go_on", len(running), "queued", len(queued))
}

// lister tells which commands there are.
type lister interface {
	List(context.Context, access.Caller, command.Filter) ([]engine.Snapshot, error)
}

// part is something that runs beside the doors, as long as they do.
type part struct {
	name string
	run  func(context.Context) error
}

// runAll runs the engine and the doors until ctx ends or one of them fails. The
// doors, and what runs beside them, outlive the engine: while commands end they can
// be watched and asked for. known are closed when what the last run has left is known
// again. serving is told when the service takes commands, and when no more.
func runAll(ctx context.Context, eng *engine.Engine, known []<-chan struct{}, grpcDoor, httpDoor func(context.Context) error, beside []part, serving func(bool) error) error {
	group, ctx := errgroup.WithContext(ctx)
	doors, closeDoors := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoors()
	group.Go(guarded("engine", func() error {
		defer closeDoors()
		return eng.Run(ctx)
	}))
	group.Go(guarded("gRPC", func() error {
		// Until recovery is done the store tells of commands, sessions and tasks that nobody
		// looks after: whoever comes earlier waits in the port's backlog.
		if !recovered(doors, known...) {
			return nil
		}
		return grpcDoor(doors)
	}))
	group.Go(guarded("HTTP", func() error { return httpDoor(doors) }))
	for _, p := range beside {
		group.Go(guarded(p.name, func() error { return p.run(doors) }))
	}
	group.Go(guarded("readiness", func() error {
		if recovered(ctx, known...) {
			if err := serving(true); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return serving(false)
	}))
	return group.Wait()
}

// recovered waits until all that was left by the last run is looked after; false where
// ctx ends before.
func recovered(ctx context.Context, ready ...<-chan struct{}) bool {
	for _, r := range ready {
		select {
		case <-r:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// guarded makes a panic of a part an error, so that the others stop in order.
func guarded(name string, part func() error) func() error {
	return func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic in %s: %v\n%s", name, p, debug.Stack())
			}
		}()
		return part()
	}
}

func open(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

// readiness tells why the service takes no commands.
func readiness(eng *engine.Engine, known []<-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		if !slices.ContainsFunc(known, open) && !eng.Stats().Draining {
			return eng.CheckStore(ctx)
		}
		return fault.New(fault.Unavailable, fault.ReasonDraining, "the service takes no commands: it is starting or shutting down").
			WithHint("Ask again in a moment").WithRetry(time.Second)
	}
}

// observe connects the gauges.
func observe(m *telemetry.Metrics, eng *engine.Engine, shared *terminal.Terminals, flow *workflow.Workflow, pool *sshconn.Pool, hosts *inventory.Inventory) {
	var names []string
	for _, h := range hosts.List() {
		names = append(names, h.Name)
	}
	m.Observe(telemetry.Gauges{
		Running:       func() int { return eng.Stats().Running },
		Queued:        func() int { return eng.Stats().Queued },
		Watchers:      func() int { return eng.Stats().Watchers },
		EventWatchers: func() int { return eng.Stats().EventWatchers },
		Sessions:      func() int { return shared.Stats().Sessions },
		Viewers:       func() int { return shared.Stats().Viewers },
		Tasks:         func() int { return flow.Stats().Begun },
		TasksQueued:   func() int { return flow.Stats().Queued },
		SSHConnections: func() (n int) {
			for _, name := range names {
				n += pool.Stats(name).Connections
			}
			return n
		},
	})
}

// prepareDataDir makes the data directory where it is missing and sees whether
// it can be written.
func prepareDataDir(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(dir, ".probe-"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be used: %w. Choose another with --data-dir, or give it to the user of the service", filepath.Clean(dir), err)
	}
	return nil
}

func loadTLS(t config.TLS) (*tls.Config, error) {
	if !t.Enabled() {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("the TLS certificate %s with the key %s cannot be used: %w", t.CertFile, t.KeyFile, err)
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"}, // gRPC clients insist on h2
	}
	if t.ClientCAFile != "" {
		c.ClientAuth = tls.VerifyClientCertIfGiven
		c.ClientCAs, err = readCertificates(t.ClientCAFile)
	}
	return c, err
}

// listen opens a port. Plain text on an address that others can reach must be
// wished for: whoever reads it has the token.
func listen(cfg config.Config, setting, addr string) (net.Listener, error) {
	flag := "--" + strings.ReplaceAll(setting, "_", "-")
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %q is no address to listen on: %w", setting, addr, err)
	}
	if !at.IP.IsLoopback() && !cfg.TLS.Enabled() && !cfg.InsecureListen {
		return nil, fmt.Errorf("%s %s can be reached from other machines, and there is no TLS to protect tokens, commands and output on the way: "+
			"set tls.cert_file and tls.key_file, or listen on 127.0.0.1, or say that you mean it with insecure_listen: true", setting, addr)
	}
	l, err := net.ListenTCP("tcp", at)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w. Another telexecd may be running; choose another address with %s", addr, err, flag)
	}
	return l, nil
}
