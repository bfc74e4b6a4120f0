package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/program"
	"github.com/telexec/telexec/pkg/client"
)

type serverCmd struct{}

// Run shows the service.
func (c *serverCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		info, err := cl.GetServerInfo(ctx)
		if err != nil {
			return err
		}
		if a.opts.JSON {
			return a.out.document(info)
		}
		return a.out.columns(a.serverRows(cl.Server(), info))
	})
}

func (a *app) serverRows(address string, info *telexecv1.GetServerInfoResponse) [][]cell {
	f := facts{}
	f.add("Server", fmt.Sprintf("%s at %s", info.GetNode(), address))
	if info.GetDraining() {
		f.paint("State", "shutting down: it takes no new commands", yellow)
	} else {
		f.paint("State", "up for "+duration(info.GetUptime()), green)
	}
	f.add("Version", version(info.GetVersion(), info.GetCommit(), info.GetGoVersion()))
	f.add("Store", info.GetStore())
	f.add("Commands", fmt.Sprintf("%d running, %d queued", info.GetRunningCommands(), info.GetQueuedCommands()))
	f.add("Watchers", strconv.Itoa(int(info.GetWatchers())))
	f.add("You are", strings.TrimSuffix(fmt.Sprintf("%s (%s)", info.GetPrincipal(), strings.Join(info.GetRoles(), ", ")), " ()"))
	if t := info.GetCredentialsExpireTime(); t != nil {
		f.add("", fmt.Sprintf("until %s (%s left)", a.out.clock(t), a.out.left(t)))
	}
	if l := info.GetLimits(); l != nil {
		f.add("Limits", fmt.Sprintf("%d commands at once, %d per host, %d waiting", l.GetMaxCommands(), l.GetMaxCommandsPerHost(), l.GetMaxQueued()))
		f.add("", fmt.Sprintf("output whole for %s, then %s of each stream; history %s",
			duration(l.GetFullOutputRetention()), size(l.GetRetainedOutputBytes()), duration(l.GetHistoryRetention())))
	}
	return f.rows
}

type versionCmd struct{}

// serverVersion is how long version waits for the service: it is only asked by
// the way.
const serverVersion = 2 * time.Second

// Run shows both versions; that of the service only if it can be had.
func (c *versionCmd) Run(ctx context.Context, a *app) error {
	own, commit := program.Build()
	a.opts.RetryFor = 0
	var info *telexecv1.GetServerInfoResponse
	serverErr := a.session(ctx, func(ctx context.Context, cl *client.Client) (err error) {
		ctx, cancel := context.WithTimeout(ctx, serverVersion)
		defer cancel()
		info, err = cl.GetServerInfo(ctx)
		return err
	})
	if e, ok := errors.AsType[*exitError](serverErr); ok && e.message == "" {
		return serverErr // Ctrl-C
	}
	if a.opts.JSON {
		return a.out.versions(own, commit, info, serverErr)
	}
	f := facts{}
	f.add("telexec", version(own, commit, runtime.Version()))
	if serverErr == nil {
		f.add("telexecd", version(info.GetVersion(), info.GetCommit(), info.GetGoVersion()))
	} else {
		f.paint("telexecd", serverErr.Error(), grey)
	}
	return a.out.columns(f.rows)
}

// versions prints the two as one JSON document.
func (p *printer) versions(own, commit string, info *telexecv1.GetServerInfoResponse, serverErr error) error {
	doc := map[string]any{"client": versionDoc{own, commit, runtime.Version()}}
	if serverErr == nil {
		doc["server"] = versionDoc{info.GetVersion(), info.GetCommit(), info.GetGoVersion()}
	} else {
		doc["serverError"] = serverErr.Error()
	}
	return p.value(doc)
}

type versionDoc struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	GoVersion string `json:"goVersion"`
}

func version(v, commit, goVersion string) string {
	if len(commit) > 12 {
		commit = commit[:12]
	}
	if commit != "" {
		v += " (" + commit + ")"
	}
	return v + ", " + goVersion
}
