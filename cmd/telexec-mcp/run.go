// Command telexec-mcp gives AI agents the hosts of a telexec service, as tools of
// the Model Context Protocol (MCP). It is an adapter and nothing more: what it
// offers is internal/mcptool, which calls the service through pkg/client, and it
// keeps nothing itself. Any instance serves any call, and ending one ends no
// command.
//
//	run.go    the grammar, the client of the service, exit codes
//	stdio.go  MCP over standard input and output: one agent, the user's own token
//	http.go   MCP over HTTP: many agents, each with his own token; start and stop
//	door.go   what an HTTP request passes before it is served: origin, token, size
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/telexec/telexec/internal/mcptool"
	"github.com/telexec/telexec/internal/program"
	"github.com/telexec/telexec/pkg/client"
)

// Env is all that the program gets from outside, signals apart: those end the
// context of run.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// options is the grammar. Its order is that of --help.
type options struct {
	Service serviceOptions `embed:"" group:"The service:"`
	Tools   toolOptions    `embed:"" group:"What is offered:"`
	HTTP    httpOptions    `embed:"" group:"MCP over HTTP:"`

	LogLevel slog.Level          `default:"warn" placeholder:"LEVEL" help:"What is logged on standard error, at least: debug, info, warn or error (default ${default})."`
	Help     program.HelpFlag    `short:"h" help:"Show help."`
	Version  program.VersionFlag `help:"Print the version of this program."`
}

type serviceOptions struct {
	Server    string `short:"s" placeholder:"ADDR" help:"The service: host:port, or https://host:port for TLS (also TELEXEC_SERVER; default ${server})."`
	Token     string `placeholder:"TOKEN" help:"Bearer token (also TELEXEC_TOKEN; better there or in a file, for others on this machine can see arguments)."`
	TokenFile string `placeholder:"FILE" type:"path" help:"File with the token (default: admin.token in telexecd's data directory)."`
	TLS       bool   `name:"tls" help:"Use TLS whatever the address says."`
	CAFile    string `name:"ca-file" placeholder:"FILE" type:"path" help:"PEM file with the authorities to trust (also TELEXEC_CA_FILE); implies --tls."`
	Insecure  bool   `help:"Allow plain text to another machine: token, commands and output can be read and changed on the way."`
}

type toolOptions struct {
	Toolsets  []string `placeholder:"NAME" help:"Offer only these of the groups of tools: ${toolsets}."`
	ReadOnly  bool     `help:"Offer no tool that acts: nothing is started, cancelled or written to."`
	HostAllow []string `placeholder:"PATTERN" help:"Let nobody see or use other hosts than these, whatever the token may; '*' and '?' stand for any text and any character. May be repeated."`

	ElicitApprovals bool `help:"Let the person decide through the client's own forms about commands that wait for approval, where rule and token allow that (also TELEXEC_MCP_ELICIT_APPROVALS=true). A client that answers forms by itself then approves by itself."`
}

type httpOptions struct {
	Addr        string   `name:"http" placeholder:"ADDR" help:"Serve at http://ADDR/mcp in place of standard input and output. A port alone is one of loopback. Callers show a telexec token as bearer; this program then has none of its own."`
	AllowOrigin []string `name:"http-allow-origin" placeholder:"ORIGIN" help:"Let web pages of this origin call, as in https://app.example.com. May be repeated."`
	Insecure    bool     `name:"http-insecure" help:"Serve plain HTTP to other machines: tokens, commands and output can be read and changed on the way."`
	Cert        string   `name:"tls-cert" placeholder:"FILE" type:"path" help:"Serve HTTPS, with this certificate chain (PEM)."`
	Key         string   `name:"tls-key" placeholder:"FILE" type:"path" help:"The key of the certificate (PEM)."`
}

// description is shown above the flags in --help.
const description = `Run commands on remote hosts from AI agents: an MCP server for a telexec service.

It speaks MCP on standard input and output, and is started by the agent's program. Most take this in their settings:

    {
      "mcpServers": {
        "telexec": {
          "command": "telexec-mcp",
          "args": ["--host-allow", "web*,db1"],
          "env": {"TELEXEC_SERVER": "${server}"}
        }
      }
    }

With --http it is a server for many:

    telexec-mcp --http 7090

    {
      "mcpServers": {
        "telexec": {
          "type": "http",
          "url": "http://127.0.0.1:7090/mcp",
          "headers": {"Authorization": "Bearer TOKEN"}
        }
      }
    }

It keeps nothing itself: commands live in the service, go on when this program ends, and any instance knows them.

Exit codes: 0 when standard input has ended or a signal has ended the program; 2 for wrong usage; 1 for every other failure.`

// The exit codes of failures.
const (
	exitFailure = 1
	exitUsage   = 2
)

// exitError ends the program with a code.
type exitError struct {
	code    int
	message string
	hint    string
}

func (e *exitError) Error() string { return e.message }

func failure(format string, args ...any) *exitError {
	return &exitError{code: exitFailure, message: fmt.Sprintf(format, args...)}
}

func usageError(format string, args ...any) *exitError {
	return &exitError{code: exitUsage, message: fmt.Sprintf(format, args...), hint: "See telexec-mcp --help"}
}

func (e *exitError) withHint(format string, args ...any) *exitError {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// run is the whole program: it gives the exit code. The end of ctx stops it, as
// signals do.
func run(ctx context.Context, env Env, args []string) int {
	err := serve(ctx, env, args)
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*exitError](err)
	if !ok {
		e = failure("%v", err)
	}
	fmt.Fprintf(env.Stderr, "telexec-mcp: %s\n", e.message)
	if e.hint != "" {
		fmt.Fprintf(env.Stderr, "  %s\n", e.hint)
	}
	return e.code
}

// serve parses args and serves until ctx or the input ends.
func serve(ctx context.Context, env Env, args []string) error {
	var o options
	parser, err := kong.New(&o,
		kong.Name("telexec-mcp"),
		kong.Description(strings.ReplaceAll(description, "${server}", client.DefaultServer)),
		kong.NoDefaultHelp(),
		kong.Writers(env.Stdout, env.Stderr),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 100}),
		kong.Vars{"server": client.DefaultServer, "toolsets": strings.Join(mcptool.ToolsetNames, ", ")},
	)
	if err != nil {
		return err
	}
	_, err = parser.Parse(args)
	switch {
	case errors.Is(err, program.ErrShown):
		return nil
	case errors.Is(err, syscall.EPIPE):
		return err // nobody reads the help to its end
	case err != nil:
		return usageError("%v", err)
	}
	if err := o.check(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: o.LogLevel}))
	service, err := o.dial(env, log)
	if err != nil {
		return err
	}
	defer service.Close()
	elicit, err := o.Tools.elicits(env.Getenv)
	if err != nil {
		return err
	}
	server, err := mcptool.New(mcptool.Options{
		Client: service, Version: program.Version(), Logger: log, ElicitApprovals: elicit,
		Toolsets: o.Tools.Toolsets, ReadOnly: o.Tools.ReadOnly, Hosts: o.Tools.HostAllow,
	})
	if err != nil {
		return usageError("%v", err)
	}
	if o.HTTP.Addr != "" {
		return serveHTTP(ctx, env.Stderr, server, service, o.HTTP, log)
	}
	return serveStdio(ctx, server, env.Stdin, env.Stdout)
}

// elicits reports whether the person may be asked.
func (o toolOptions) elicits(getenv func(string) string) (bool, error) {
	value := getenv("TELEXEC_MCP_ELICIT_APPROVALS")
	if o.ElicitApprovals || value == "" {
		return o.ElicitApprovals, nil
	}
	elicit, err := strconv.ParseBool(value)
	if err != nil {
		return false, usageError("TELEXEC_MCP_ELICIT_APPROVALS is neither true nor false: %q", value)
	}
	return elicit, nil
}

// check refuses flags that contradict each other.
func (o *options) check() error {
	h := o.HTTP
	switch {
	case o.Tools.Toolsets != nil && len(o.Tools.Toolsets) == 0, o.Tools.HostAllow != nil && len(o.Tools.HostAllow) == 0:
		// Empty would mean all: a variable that is not set must not open everything.
		return usageError("--toolsets and --host-allow need a value; leave them out to allow all")
	case h.Addr != "" && (o.Service.Token != "" || o.Service.TokenFile != ""):
		return usageError("--token and --token-file are not for --http: there every caller shows his own token, and may do what it allows").
			withHint(`Give the token to the agent's program, for its header "Authorization: Bearer TOKEN"; see telexec-mcp --help`)
	case h.Addr == "" && (len(h.AllowOrigin) > 0 || h.Insecure || h.Cert != "" || h.Key != ""):
		return usageError("--http-allow-origin, --http-insecure, --tls-cert and --tls-key need --http")
	case (h.Cert == "") != (h.Key == ""):
		return usageError("--tls-cert and --tls-key need each other")
	}
	return nil
}

// dial makes the client of the service. It does not connect yet: the service may
// come later than its adapter, and go and come back.
func (o *options) dial(env Env, log *slog.Logger) (*client.Client, error) {
	s := o.Service
	server := firstOf(s.Server, env.Getenv("TELEXEC_SERVER"))
	var token client.Token
	if o.HTTP.Addr == "" {
		var err error
		if token, err = s.token(server, env.Getenv, log); err != nil {
			return nil, err
		}
	}
	c, err := client.Dial(client.Options{
		Server:    server,
		Token:     token,
		Origin:    "mcp",
		TLS:       s.TLS,
		CAFile:    firstOf(s.CAFile, env.Getenv("TELEXEC_CA_FILE")),
		Insecure:  s.Insecure,
		UserAgent: "telexec-mcp/" + program.Version(),
		OnRetry: func(err *client.Error, delay time.Duration) {
			log.Info("trying again", "error", err.Message, "delay", delay)
		},
	})
	if e, ok := errors.AsType[*client.Error](err); ok {
		return nil, usageError("%s", e.Message).withHint("%s", firstOf(e.Hint, "See telexec-mcp --help"))
	}
	return c, err
}

// token finds the bearer token: --token, --token-file, else where every client
// looks for it.
func (s serviceOptions) token(server string, getenv func(string) string, log *slog.Logger) (client.Token, error) {
	if s.Token != "" {
		return client.Token(s.Token), nil
	}
	if s.TokenFile != "" {
		b, err := os.ReadFile(s.TokenFile)
		if err != nil {
			return "", failure("cannot read the token file: %v", err)
		}
		return client.Token(strings.TrimSpace(string(b))), nil
	}
	token, err := client.FindToken(server, getenv)
	if err != nil {
		log.Warn("no token", "error", err) // of another user: his token is not ours
	}
	return token, nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
