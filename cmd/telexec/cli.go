package main

import (
	"context"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/program"
)

// cli is the grammar. Its order is that of --help.
type cli struct {
	globals `embed:"" group:"Global flags:"`

	Run     runCmd     `cmd:"" help:"Run a command on a host, as if here: live output, its exit code."`
	Logs    logsCmd    `cmd:"" help:"Show the output of a command."`
	Wait    waitCmd    `cmd:"" help:"Wait for the end of a command and exit with its exit code."`
	Status  statusCmd  `cmd:"" help:"Show where a command is."`
	Cancel  cancelCmd  `cmd:"" help:"End commands and all their processes."`
	Signal  signalCmd  `cmd:"" help:"Send one signal to a command."`
	Input   inputCmd   `cmd:"" help:"Write to the standard input of a command."`
	Ps      psCmd      `cmd:"" help:"List the commands that have not ended."`
	History historyCmd `cmd:"" help:"List commands, newest first."`
	Events  eventsCmd  `cmd:"" help:"Follow what happens to all commands."`

	Session sessionCmd `cmd:"" aliases:"sessions" help:"Shells on hosts that last, on terminals that people and agents share."`

	Task taskCmd `cmd:"" aliases:"tasks" help:"Plans of several steps, some of which wait for a yes, and which can be taken back."`

	Approvals approvalsCmd `cmd:"" help:"List the commands that wait for approval, show one as it is to be judged."`
	Approve   approveCmd   `cmd:"" help:"Let commands run that wait for approval."`
	Reject    rejectCmd    `cmd:"" help:"Refuse commands that wait for approval."`
	Policy    policyCmd    `cmd:"" help:"Tell what the rules would say about a command."`

	Hosts hostsCmd `cmd:"" help:"List hosts, show one, check whether one can be reached."`

	Token tokenCmd `cmd:"" help:"Make, list and revoke API keys."`
	Audit auditCmd `cmd:"" help:"Show what was done, check that nobody has changed it, export it."`

	Server     serverCmd     `cmd:"" aliases:"info" help:"Show what the service is and how it does."`
	Version    versionCmd    `cmd:"" help:"Show the versions of this program and of the service."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
	HelpFor    helpCmd       `cmd:"" name:"help" help:"Show help, of one command if it is named."`
}

// globals are the flags of every subcommand.
type globals struct {
	Server    string `short:"s" placeholder:"ADDR" help:"The service: host:port, or https://host:port for TLS (also TELEXEC_SERVER; default ${server})."`
	Token     string `placeholder:"TOKEN" help:"Bearer token (also TELEXEC_TOKEN; better there or in a file, for others on this machine can see arguments)."`
	TokenFile string `placeholder:"FILE" type:"path" help:"File with the token (default: admin.token in telexecd's data directory)."`
	TLS       bool   `name:"tls" help:"Use TLS whatever the address says."`
	CAFile    string `name:"ca-file" placeholder:"FILE" type:"path" help:"PEM file with the authorities to trust (also TELEXEC_CA_FILE); implies --tls."`
	Insecure  bool   `help:"Allow plain text to another machine: token, commands and output can be read and changed on the way."`

	RetryFor time.Duration `default:"2m" placeholder:"TIME" help:"How long to try to come back to a service that went away (default ${default}; 0: not at all)."`

	JSON  bool `name:"json" short:"j" help:"Print JSON: one document, or one per line for lists and streams."`
	Quiet bool `short:"q" help:"No remarks of telexec's own on standard error, only errors."`

	Help         program.HelpFlag    `short:"h" help:"Show help."`
	PrintVersion program.VersionFlag `name:"version" help:"Print the version of this program."`
}

type helpCmd struct {
	Command []string `arg:"" optional:"" help:"The command: hosts check, for instance."`
}

// Run shows what --help shows.
func (c *helpCmd) Run(ctx context.Context, a *app) error {
	return a.dispatch(ctx, append(slices.Clone(c.Command), "--help"))
}
