package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// maxPage is the most that the service gives at once.
const maxPage = 1000

type psCmd struct {
	Host    string `placeholder:"HOST" help:"Only those on this host."`
	Session string `placeholder:"NAME" help:"Only those in this session."`
	Task    string `placeholder:"ID" help:"Only those of the steps of this task."`
}

// Help is shown by ps --help.
func (psCmd) Help() string {
	return `Examples:

    telexec ps
    telexec ps --json | jq -r .id

A durable command lives on its host by itself, an attached one on its SSH connection. While a host cannot be reached its
durable commands are "reconnecting": they go on there.`
}

// Run lists what has not ended.
func (c *psCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		id, err := a.taskFlag(ctx, cl, c.Task)
		if err != nil {
			return err
		}
		_, err = a.list(ctx, cl, &telexecv1.ListCommandsRequest{Active: true, Host: c.Host, Session: c.Session, TaskId: id}, 0, active)
		return err
	})
}

type historyCmd struct {
	Host      string            `placeholder:"HOST" help:"Only on this host."`
	Session   string            `placeholder:"NAME" help:"Only in this session."`
	Task      string            `placeholder:"ID" help:"Only of the steps of this task, and of what takes them back."`
	State     []string          `placeholder:"STATE" help:"Only in one of these states: awaiting_approval, queued, starting, running, completed, failed, cancelled, timed_out, rejected, expired, lost."`
	Origin    string            `placeholder:"DOOR" help:"Only those that came through this door: grpc, rest, websocket, mcp, cli, web."`
	Label     map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Only with this label; may be repeated, then all must match."`
	Principal string            `placeholder:"NAME" help:"Only those asked for by this principal."`
	Since     string            `placeholder:"TIME" help:"Only those created since then: a duration before now (90m, 2h, 7d), a date or a time (2006-01-02, RFC 3339)."`
	Before    string            `placeholder:"TIME" help:"Only those created before then; written as --since is."`
	Limit     int               `default:"50" placeholder:"N" help:"At most so many (default ${default}; 0: all)."`
	PageToken string            `allowempty:"" placeholder:"TOKEN" help:"Go on where an earlier page ended."`
}

// Help is shown by history --help.
func (historyCmd) Help() string {
	return `Examples:

    telexec history --host web1 --state failed,lost --since 2h
    telexec history --label deploy=42 --limit 0 --json`
}

// Run lists commands, newest first.
func (c *historyCmd) Run(ctx context.Context, a *app) error {
	req := &telexecv1.ListCommandsRequest{Host: c.Host, Session: c.Session, Labels: c.Label, Principal: c.Principal, PageToken: c.PageToken}
	for _, s := range c.State {
		n, ok := telexecv1.CommandState_value["COMMAND_STATE_"+enumName(s)]
		if !ok || n == 0 {
			return failure("there is no state %q", s).withHint("telexec history --help lists the states")
		}
		req.States = append(req.States, telexecv1.CommandState(n))
	}
	if c.Origin != "" {
		n, ok := telexecv1.Origin_value["ORIGIN_"+enumName(c.Origin)]
		if !ok || n == 0 {
			return failure("there is no door %q", c.Origin).withHint("telexec history --help lists the doors")
		}
		req.Origin = telexecv1.Origin(n)
	}
	var err error
	if req.CreateTimeFrom, req.CreateTimeTo, err = a.between(c.Since, c.Before); err != nil {
		return err
	}
	if c.Limit < 0 {
		return failure("--limit cannot be below 0")
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		var err error
		if req.TaskId, err = a.taskFlag(ctx, cl, c.Task); err != nil {
			return err
		}
		token, err := a.list(ctx, cl, req, c.Limit, all)
		if err == nil && token != "" {
			a.out.note("there are older ones: --page-token %s goes on, --limit 0 shows all", token)
		}
		return err
	})
}

// enumName gives the name of an enum value as a user writes it: "timed-out".
func enumName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

// between reads --since and --before; nil where one was not given.
func (a *app) between(since, before string) (from, to *timestamppb.Timestamp, err error) {
	now := a.out.now()
	read := func(s string) *timestamppb.Timestamp {
		if s == "" || err != nil {
			return nil
		}
		var t time.Time
		t, err = parseSince(s, now)
		return timestamppb.New(t)
	}
	from, to = read(since), read(before)
	return from, to, err
}

// parseSince understands a duration before now, in days too, a date and a time.
func parseSince(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, failure("cannot read the time %q", s).withHint("Write a duration (90m, 2h, 7d), a date (2006-01-02) or a time (RFC 3339)")
}

// column is one of a list that others do not have.
type column struct {
	header string
	cell   func(*telexecv1.Command) string
}

// shown gives the columns of a list beside those that all have: progress only where
// a command has any and it may still go on.
func shown(cmds []*telexecv1.Command, own column) []column {
	if own.header == active.header && slices.ContainsFunc(cmds, func(c *telexecv1.Command) bool { return c.GetProgress() != nil }) {
		return []column{own, {"PROGRESS", progressText}}
	}
	return []column{own}
}

// What has not ended has no exit code; how it lives is told of it instead.
var (
	active = column{"DURABILITY", durabilityText}
	all    = column{"EXIT", exitText}
)

// list prints up to limit commands (0: all) and gives the token of the next page.
// JSON lines come as they are fetched; a table needs all to be aligned.
func (a *app) list(ctx context.Context, cl *client.Client, req *telexecv1.ListCommandsRequest, limit int, kind column) (next string, err error) {
	var cmds []*telexecv1.Command
	for left := limit; ; {
		req.PageSize = maxPage
		if limit > 0 {
			req.PageSize = int32(min(left, maxPage))
		}
		page, err := cl.ListCommandsPage(ctx, req)
		if err != nil {
			return "", err
		}
		for _, cmd := range page.GetCommands() {
			if !a.opts.JSON {
				cmds = append(cmds, cmd)
			} else if err := a.out.line(cmd); err != nil {
				return "", err
			}
		}
		left -= len(page.GetCommands())
		next = page.GetNextPageToken()
		if next == "" || limit > 0 && left <= 0 {
			break
		}
		req.PageToken = next
	}
	if a.opts.JSON {
		return next, nil
	}
	own := shown(cmds, kind)
	if slices.ContainsFunc(cmds, func(c *telexecv1.Command) bool { return c.GetSession() != "" }) {
		own = append(own, column{"SESSION", func(c *telexecv1.Command) string { return firstOf(c.GetSession(), "-") }})
	}
	if slices.ContainsFunc(cmds, func(c *telexecv1.Command) bool { return c.GetTaskStep() != "" }) {
		own = append(own, column{"STEP", func(c *telexecv1.Command) string {
			_, step := taskStep(c)
			return firstOf(step, "-")
		}})
	}
	header := []string{"ID", "HOST", "STATE"}
	for _, c := range own {
		header = append(header, c.header)
	}
	rows := make([][]cell, len(cmds))
	for i, cmd := range cmds {
		rows[i] = a.row(cmd, own)
	}
	return next, a.out.table(append(header, "CREATED", "TOOK", "BY", "COMMAND"), rows)
}

func (a *app) row(cmd *telexecv1.Command, own []column) []cell {
	took := "-"
	if cmd.GetStartTime() != nil {
		took = duration(cmd.GetDuration())
	}
	row := []cell{plainCell(cmd.GetId()), plainCell(cmd.GetHost()), stateCell(cmd)}
	for _, c := range own {
		row = append(row, plainCell(c.cell(cmd)))
	}
	return append(row,
		plainCell(a.out.ago(cmd.GetCreateTime())), plainCell(took), plainCell(actor(cmd.GetCreatedBy())), plainCell(cmd.GetCommand()))
}

// progressText is how far a command says it is: "42 %".
func progressText(cmd *telexecv1.Command) string {
	p := cmd.GetProgress()
	if p == nil {
		return "-"
	}
	return strconv.FormatFloat(p.GetPercent(), 'f', -1, 64) + " %"
}

// exitText is the exit code, the signal, or why there is none; nothing is filled
// in.
func exitText(cmd *telexecv1.Command) string {
	switch {
	case cmd.ExitCode != nil:
		return strconv.Itoa(int(cmd.GetExitCode()))
	case cmd.GetExitSignal() != "":
		return cmd.GetExitSignal()
	}
	switch cmd.GetState() {
	case telexecv1.CommandState_COMMAND_STATE_FAILED, telexecv1.CommandState_COMMAND_STATE_REJECTED,
		telexecv1.CommandState_COMMAND_STATE_LOST: // the other states say it themselves
		return firstOf(cmd.GetFailure().GetReason(), "-")
	}
	return "-"
}

// durabilityText is how a command lives on its host; nothing before its start.
func durabilityText(cmd *telexecv1.Command) string {
	if cmd.GetDurability() == telexecv1.Durability_DURABILITY_UNSPECIFIED {
		return "-"
	}
	return enum(cmd.GetDurability().String(), "DURABILITY_")
}

// taskStep gives the id of the task, and the name of the step, that a command is of.
func taskStep(cmd *telexecv1.Command) (id, step string) {
	id, step, _ = strings.Cut(strings.TrimPrefix(cmd.GetTaskStep(), "tasks/"), "/steps/")
	return id, step
}

// actor is "admin via cli".
func actor(who *telexecv1.Actor) string {
	if who == nil {
		return "-"
	}
	return fmt.Sprintf("%s via %s", who.GetPrincipal(), originName(who.GetOrigin()))
}

// labelText is "a=1 b=2", sorted.
func labelText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, " ")
}

// wholeID is an id (a ULID), partOfID what may be given of one.
var (
	wholeID  = regexp.MustCompile(`^[0-7][0-9A-HJKMNP-TV-Z]{25}$`)
	partOfID = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{4,25}$`)
)

// idArg finds the whole id: all of it as it is, or the beginning or the end of
// one of the last commands, as long as only one of them fits.
func (a *app) idArg(ctx context.Context, cl *client.Client, arg string) (string, error) {
	return a.findID(arg, "commands", "telexec history lists the commands", func() ([]string, error) {
		page, err := cl.ListCommandsPage(ctx, &telexecv1.ListCommandsRequest{PageSize: maxPage})
		var ids []string
		for _, cmd := range page.GetCommands() {
			ids = append(ids, cmd.GetId())
		}
		return ids, err
	})
}

// article is " command" of "commands", "n approval" of "approvals": what follows an "a".
func article(what string) string {
	one := strings.TrimSuffix(what, "s")
	if strings.HasPrefix(one, "a") {
		return "n " + one
	}
	return " " + one
}

// findID finds the whole id, if need be among those that list gives. what they
// are, and where, is told where none or several fit.
func (a *app) findID(arg, what, where string, list func() ([]string, error)) (string, error) {
	id := strings.ToUpper(strings.TrimPrefix(arg, "commands/"))
	if wholeID.MatchString(id) {
		return id, nil
	}
	if !partOfID.MatchString(id) {
		return "", failure("%q is not the id of a%s, nor enough of one", arg, article(what)).
			withHint("An id has 26 characters; the last four or more will do. %s", where)
	}
	all, err := list()
	if err != nil {
		return "", err
	}
	var found []string
	for _, one := range all {
		if strings.HasSuffix(one, id) || strings.HasPrefix(one, id) {
			found = append(found, one)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", failure("none of the last %d %s has an id that begins or ends with %s", len(all), what, arg).withHint("%s", where)
	}
	return "", failure("%d %s have an id that begins or ends with %s, among them %s and %s", len(found), what, arg, found[0], found[1]).
		withHint("Give more of it; the end tells more than the beginning, which is the time")
}
