package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type sessionOpenCmd struct {
	Name        string            `short:"n" placeholder:"NAME" help:"Name of the session (default: one of the host's)."`
	Reuse       bool              `help:"Where a session of this name is open on this host, take that."`
	Shell       string            `placeholder:"SHELL" help:"The shell, by path or name (default: the login shell)."`
	Size        string            `placeholder:"COLSxROWS" help:"Size of the terminal (default: of the one here, else 80x24)."`
	Keeper      string            `placeholder:"KEEPER" help:"What keeps the shell while the connection is lost: tmux, screen, dtach or none (default: the best that the host has)."`
	IdleTimeout time.Duration     `placeholder:"TIME" help:"Close it when nothing has happened for so long (default: the service's limit)."`
	Label       map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Label to find the session by. May be repeated."`
	Attach      bool              `short:"a" help:"And be at its terminal."`

	Host string `arg:"" help:"Name of the host, as telexec hosts lists it."`
}

// Help is shown by session open --help.
func (sessionOpenCmd) Help() string {
	return `Prints the name of the session when its shell has shown its prompt.

Examples:

    telexec session open web1
    telexec session open web1 --name deploy --reuse --attach
    telexec session open web1 --shell zsh --size 160x48`
}

// Run opens a session.
func (c *sessionOpenCmd) Run(ctx context.Context, a *app) error {
	req := &telexecv1.OpenSessionRequest{Host: c.Host, Name: c.Name, Reuse: c.Reuse, Shell: c.Shell, Term: terminalType(a.env), Labels: c.Label}
	columns, rows, err := terminalSize(a.env, c.Size)
	if err != nil {
		return err
	}
	req.Columns, req.Rows = int32(columns), int32(rows)
	if c.Keeper != "" {
		n, ok := telexecv1.Keeper_value["KEEPER_"+enumName(c.Keeper)]
		if !ok || n == 0 {
			return failure("there is no keeper %q", c.Keeper).withHint("There are tmux, screen, dtach and none")
		}
		req.Keeper = telexecv1.Keeper(n)
	}
	if c.IdleTimeout != 0 {
		if c.IdleTimeout < leastIdle || c.IdleTimeout > mostIdle {
			return failure("--idle-timeout is from 1m to 365 days (8760h)")
		}
		req.IdleTimeout = durationpb.New(c.IdleTimeout)
	}
	if c.Attach {
		if err := attachable(a.env); err != nil {
			return err
		}
	}
	if c.Reuse {
		a.hints = map[string]string{"SESSION_EXISTS": "That one is on another host, or another's in which you may not run commands: take another --name"}
	}
	var opened *telexecv1.Session
	err = a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		resp, err := cl.OpenSession(ctx, req)
		if err != nil {
			return err
		}
		opened = resp.GetSession()
		switch {
		case resp.GetReused():
			a.out.note("%s was open already, since %s", opened.GetName(), a.out.ago(opened.GetCreateTime()))
			if differs := c.differs(req, opened); len(differs) > 0 {
				a.out.tell("%s is as it was opened: %s", opened.GetName(), strings.Join(differs, "; "))
			}
		case opened.GetKeeperReason() != "":
			a.out.note("its shell ends with the connection to %s: %s", opened.GetHost(), opened.GetKeeperReason())
		}
		switch {
		case c.Attach:
			return nil
		case a.opts.JSON:
			return a.out.document(opened)
		}
		_, err = io.WriteString(a.out.stdout, opened.GetName()+"\n")
		return err
	})
	if err != nil || !c.Attach {
		return err
	}
	return (&sessionAttachCmd{Session: opened.GetName()}).Run(ctx, a)
}

// differs tells where a session that was open already is not what was asked for.
func (c *sessionOpenCmd) differs(req *telexecv1.OpenSessionRequest, s *telexecv1.Session) (what []string) {
	tell := func(name, is, asked string) {
		if is != asked {
			what = append(what, fmt.Sprintf("%s is %s, not %s", name, firstOf(is, "none"), asked))
		}
	}
	if asked := path.Base(c.Shell); c.Shell != "" && asked != "sh" && asked != path.Base(s.GetShell()) { // sh may be any
		tell("its shell", s.GetShell(), c.Shell)
	}
	if c.Size != "" {
		tell("its size", fmt.Sprintf("%dx%d", s.GetColumns(), s.GetRows()), fmt.Sprintf("%dx%d", req.GetColumns(), req.GetRows()))
	}
	if c.Keeper != "" {
		tell("its keeper", enum(s.GetKeeper().String(), "KEEPER_"), enum(req.GetKeeper().String(), "KEEPER_"))
	}
	if c.IdleTimeout != 0 {
		idle := ""
		if s.GetIdleTimeout() != nil {
			idle = humanDuration(s.GetIdleTimeout().AsDuration())
		}
		tell("its --idle-timeout", idle, humanDuration(c.IdleTimeout))
	}
	for _, key := range slices.Sorted(maps.Keys(c.Label)) {
		tell("its label "+key, s.GetLabels()[key], firstOf(c.Label[key], "empty"))
	}
	return what
}

// terminalType is the type of the terminal here, where there is one.
func terminalType(env Env) string {
	if _, ok := terminal(env.Stdout); ok {
		return env.Getenv("TERM")
	}
	return ""
}
