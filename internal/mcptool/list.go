package mcptool

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

const (
	// defaultList and maxList are how many things a list shows.
	defaultList = 50
	maxList     = 200
	// maxRow is how much of a command line a list shows.
	maxRow = 120
	// maxFetches is how many pages of the service are looked at for one page of a list
	// that is narrowed to some hosts. Then it gives what it has, and a token to go on.
	maxFetches = 40
)

type runningArgs struct {
	Host   string            `json:"host,omitempty" jsonschema:"only on this host"`
	Labels map[string]string `json:"labels,omitempty" jsonschema:"only with all of these labels"`
	pageArgs
}

type pageArgs struct {
	Limit     int    `json:"limit,omitempty" jsonschema:"at most so many, 1 to 200; default 50"`
	PageToken string `json:"page_token,omitempty" jsonschema:"next_page_token of the page before, with the same filters"`
}

type historyArgs struct {
	States    []string          `json:"states,omitempty" jsonschema:"only in one of these states, as get_command_status names them"`
	Host      string            `json:"host,omitempty" jsonschema:"only on this host"`
	Session   string            `json:"sessionName,omitempty" jsonschema:"only in this session, also what people typed there"`
	Origin    string            `json:"origin,omitempty" jsonschema:"only through this door: grpc, rest, websocket, mcp, cli or web"`
	Principal string            `json:"principal,omitempty" jsonschema:"only asked for by this one"`
	Since     string            `json:"since,omitempty" jsonschema:"only created at or after, RFC 3339, or so long ago: 90m, 24h, 7d"`
	Before    string            `json:"before,omitempty" jsonschema:"only created before, as since"`
	Labels    map[string]string `json:"labels,omitempty" jsonschema:"only with all of these labels"`
	pageArgs
}

// listFacts is a list of commands.
type listFacts struct {
	Commands      []rowFacts `json:"commands"`
	NextPageToken string     `json:"next_page_token,omitempty" jsonschema:"there are more: ask again with it"`
}

// rowFacts is a command in a list.
type rowFacts struct {
	CommandID    string  `json:"command_id"`
	State        string  `json:"state"`
	Ended        bool    `json:"ended"`
	Host         string  `json:"host"`
	Session      string  `json:"session,omitempty" jsonschema:"name of the session that it runs in"`
	Command      string  `json:"command" jsonschema:"its first 120 bytes"`
	ExitCode     *int32  `json:"exit_code,omitempty"`
	Reason       string  `json:"reason,omitempty" jsonschema:"why it failed, if it did"`
	Rule         string  `json:"rule,omitempty" jsonschema:"the rule that wants it approved, while it is awaiting_approval"`
	CreateTime   string  `json:"create_time"`
	DurationSecs float64 `json:"duration_seconds,omitempty"`
	CreatedBy    string  `json:"created_by,omitempty"`
}

type hostsArgs struct {
	Check  bool              `json:"check,omitempty" jsonschema:"connect to each host now, to learn whether it is reachable; takes up to 20 s"`
	Labels map[string]string `json:"labels,omitempty" jsonschema:"only with all of these labels"`
	pageArgs
}

// hostsFacts is a list of hosts.
type hostsFacts struct {
	Hosts         []hostFacts `json:"hosts"`
	NextPageToken string      `json:"next_page_token,omitempty" jsonschema:"there are more: ask again with it"`
}

type hostFacts struct {
	Name        string            `json:"name" jsonschema:"what execute_command takes as host"`
	Address     string            `json:"address"`
	User        string            `json:"user,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Reachable   string            `json:"reachable" jsonschema:"yes, no, or unknown: the service has not tried since it started (try with check)"`
	Failure     *failureFacts     `json:"failure,omitempty" jsonschema:"why it could not be reached the last time"`
	Unchecked   string            `json:"unchecked,omitempty" jsonschema:"why it was not checked although that was asked for"`
	Running     int32             `json:"running_commands"`
	Queued      int32             `json:"queued_commands"`
	MaxCommands int32             `json:"max_commands"`
}

func (a *adapter) listTools() []tool {
	looks := nature{closedWorld: true}
	return []tool{
		declare(a, declaration{
			name: "list_running_commands", title: "Running commands", toolset: observe, nature: looks,
			description: "The commands that have not ended, newest first, as far as you may see them: ids, states, hosts. Limit 50.",
		}, a.listRunning),
		declare(a, declaration{
			name: "list_command_history", title: "Command history", toolset: observe, nature: looks,
			description: "Commands, running and ended, newest first, filtered by state, host, session, time, origin, principal or label. Limit 50; next_page_token goes on.",
		}, a.listHistory),
		declare(a, declaration{
			name: "list_hosts", title: "Hosts", toolset: hosts, nature: nature{}, limit: longest,
			description: "The hosts that commands can run on: names, labels, whether they are reachable, how busy they are.",
		}, a.listHosts),
	}
}

func (a *adapter) listRunning(ctx context.Context, _ *call, in runningArgs) (answer[listFacts], error) {
	return a.list(ctx, &telexecv1.ListCommandsRequest{Active: true, Host: in.Host, Labels: in.Labels}, in.pageArgs, "")
}

func (a *adapter) listHistory(ctx context.Context, _ *call, in historyArgs) (answer[listFacts], error) {
	var none answer[listFacts]
	req := &telexecv1.ListCommandsRequest{Host: in.Host, Principal: in.Principal, Labels: in.Labels}
	for _, name := range in.States {
		state, ok := telexecv1.CommandState_value["COMMAND_STATE_"+strings.ToUpper(name)]
		if !ok || state == 0 {
			return none, refuse("INVALID_ARGUMENT", "Take one of "+names(telexecv1.CommandState_value, "COMMAND_STATE_"), "there is no state %q", name)
		}
		req.States = append(req.States, telexecv1.CommandState(state))
	}
	if in.Origin != "" {
		origin, ok := telexecv1.Origin_value["ORIGIN_"+strings.ToUpper(in.Origin)]
		if !ok || origin == 0 {
			return none, refuse("INVALID_ARGUMENT", "Take one of "+names(telexecv1.Origin_value, "ORIGIN_"), "there is no origin %q", in.Origin)
		}
		req.Origin = telexecv1.Origin(origin)
	}
	now, token := anchor(in.PageToken)
	in.PageToken = token
	var err error
	if in.Session != "" {
		if req.Session, err = a.mayUse(ctx, in.Session); err != nil {
			return none, err
		}
	}
	if req.CreateTimeFrom, err = moment("since", in.Since, now); err != nil {
		return none, err
	}
	if req.CreateTimeTo, err = moment("before", in.Before, now); err != nil {
		return none, err
	}
	mark := ""
	if in.Since != "" || in.Before != "" {
		mark = strconv.FormatInt(now.UnixMicro(), 36) + anchorMark
	}
	ans, err := a.list(ctx, req, in.pageArgs, mark)
	return ans, sessionError(in.Session, err)
}

// A page token may hold the moment that relative times count from: "24h" must mean
// the same on every page, which the service's own token insists on.
const anchorMark = "~"

// anchor takes a page token apart.
func anchor(pageToken string) (now time.Time, token string) {
	micros, rest, ok := strings.Cut(pageToken, anchorMark)
	if n, err := strconv.ParseInt(micros, 36, 64); ok && err == nil {
		return time.UnixMicro(n), rest
	}
	return time.Now(), pageToken
}

// names lists the values of an enumeration as tools write them.
func names(values map[string]int32, prefix string) string {
	var all []string
	for _, name := range slices.SortedFunc(maps.Keys(values), func(a, b string) int { return int(values[a] - values[b]) }) {
		if values[name] != 0 {
			all = append(all, enumName(name, prefix))
		}
	}
	return strings.Join(all, ", ")
}

// moment reads a time, or a duration before now.
func moment(name, s string, now time.Time) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return timestamppb.New(t), nil
	}
	if days, isDays := strings.CutSuffix(s, "d"); isDays {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return timestamppb.New(now.AddDate(0, 0, -n)), nil
		}
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return timestamppb.New(now.Add(-ago)), nil
	}
	return nil, refuse("INVALID_ARGUMENT", "Give RFC 3339, as 2026-01-31T08:00:00Z, or how long ago, as 90m, 24h or 7d", "cannot read %s %q", name, s)
}

// list gives one page of commands on hosts that the caller may know. The token for
// the next one begins with mark.
func (a *adapter) list(ctx context.Context, req *telexecv1.ListCommandsRequest, page pageArgs, mark string) (answer[listFacts], error) {
	out := listFacts{Commands: []rowFacts{}}
	if req.GetHost() == "" && len(a.hosts) == 1 && !strings.ContainsAny(a.hosts[0], `*?[\`) {
		req.Host = a.hosts[0] // then the service need not give others
	}
	rows, err := visible(page, func(token string, size int32) ([]*telexecv1.Command, string, error) {
		req.PageToken, req.PageSize = token, size
		resp, err := a.client.ListCommandsPage(ctx, req)
		return resp.GetCommands(), resp.GetNextPageToken(), err
	}, func(c *telexecv1.Command) bool { return a.may(c.GetHost()) }, &out.NextPageToken)
	if err != nil {
		return answer[listFacts]{}, err
	}
	if out.NextPageToken != "" {
		out.NextPageToken = mark + out.NextPageToken
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s, newest first.", count(len(rows), "command"))
	for _, c := range rows {
		row := rowOf(c)
		out.Commands = append(out.Commands, row)
		fmt.Fprintf(&text, "\n%s  %s  %s  %s", row.CommandID, row.CreateTime, row.Host, row.State)
		if row.ExitCode != nil {
			fmt.Fprintf(&text, " %d", *row.ExitCode)
		}
		if row.Reason != "" {
			fmt.Fprintf(&text, " %s", row.Reason)
		}
		if row.Rule != "" {
			fmt.Fprintf(&text, " by the rule %s", row.Rule)
		}
		if row.Session != "" {
			fmt.Fprintf(&text, "  in %s by %s", row.Session, row.CreatedBy)
		}
		fmt.Fprintf(&text, "  %s", row.Command)
	}
	if out.NextPageToken != "" {
		fmt.Fprintf(&text, "\nThere are more: page_token %q.", out.NextPageToken)
	}
	return answer[listFacts]{data: out, text: text.String()}, nil
}

func rowOf(c *telexecv1.Command) rowFacts {
	f := facts(c)
	row := rowFacts{
		CommandID: f.CommandID, State: f.State, Ended: f.Ended, Host: f.Host, Session: f.Session, Command: cut(oneLine(f.Command), maxRow),
		ExitCode: f.ExitCode, Reason: c.GetFailure().GetReason(), CreateTime: f.CreateTime, DurationSecs: f.DurationSecs, CreatedBy: f.CreatedBy,
	}
	if f.Approval != nil {
		row.Rule = f.Approval.Rule
	}
	return row
}

// oneLine writes a text so that it cannot look like anything but a line of a list.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if hidden(r) || unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, s)
}

// visible gives the items of a page that may be seen. Where others fill a page it
// goes on to the next ones, within bounds.
func visible[T any](page pageArgs, fetch func(token string, size int32) ([]T, string, error), may func(T) bool, next *string) ([]T, error) {
	limit := page.Limit
	if limit == 0 {
		limit = defaultList
	}
	var all []T
	token := page.PageToken
	for fetches := 1; ; fetches++ {
		// Never more than there is room for: what follows belongs to the next token.
		items, following, err := fetch(token, int32(limit-len(all)))
		if err != nil {
			return nil, err
		}
		all = append(all, slices.Collect(filter(items, may))...)
		if token = following; token == "" || len(all) >= limit || fetches >= maxFetches {
			*next = token
			return all, nil
		}
	}
}

func filter[T any](items []T, may func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, item := range items {
			if may(item) && !yield(item) {
				return
			}
		}
	}
}

// How hosts are checked: so many at once, each for so long, so that a page of them
// is answered in time.
const (
	checksAtOnce = 16
	checkTimeout = 5 * time.Second
	checkLimit   = 20 * time.Second
)

func (a *adapter) listHosts(ctx context.Context, _ *call, in hostsArgs) (answer[hostsFacts], error) {
	out := hostsFacts{Hosts: []hostFacts{}}
	rows, err := visible(in.pageArgs, func(token string, size int32) ([]*telexecv1.Host, string, error) {
		resp, err := a.client.ListHostsPage(ctx, &telexecv1.ListHostsRequest{PageToken: token, PageSize: size, Labels: in.Labels})
		return resp.GetHosts(), resp.GetNextPageToken(), err
	}, func(h *telexecv1.Host) bool { return a.may(h.GetName()) }, &out.NextPageToken)
	if err != nil {
		return answer[hostsFacts]{}, err
	}
	for _, h := range rows {
		out.Hosts = append(out.Hosts, hostOf(h))
	}
	if in.Check {
		a.check(ctx, out.Hosts)
	}
	var text strings.Builder
	text.WriteString(count(len(out.Hosts), "host") + ".")
	for _, h := range out.Hosts {
		fmt.Fprintf(&text, "\n%s  %s@%s  reachable: %s", h.Name, h.User, h.Address, h.Reachable)
		if h.Failure != nil {
			fmt.Fprintf(&text, " (%s)", h.Failure.Reason)
		}
		if h.Unchecked != "" {
			fmt.Fprintf(&text, " (not checked: %s)", h.Unchecked)
		}
		fmt.Fprintf(&text, "  running %d of %d, queued %d", h.Running, h.MaxCommands, h.Queued)
		for _, key := range slices.Sorted(maps.Keys(h.Labels)) {
			fmt.Fprintf(&text, "  %s=%s", key, oneLine(h.Labels[key]))
		}
	}
	if out.NextPageToken != "" {
		fmt.Fprintf(&text, "\nThere are more: page_token %q.", out.NextPageToken)
	}
	return answer[hostsFacts]{data: out, text: text.String()}, nil
}

// hostOf tells what the service knows of a host without asking it.
func hostOf(h *telexecv1.Host) hostFacts {
	f := hostFacts{
		Name: h.GetName(), Address: h.GetAddress(), User: h.GetUser(), Labels: h.GetLabels(), Reachable: "unknown",
		Running: h.GetRunningCommands(), Queued: h.GetQueuedCommands(), MaxCommands: h.GetMaxCommands(),
	}
	switch {
	case h.GetLastFailure() != nil:
		f.Reachable, f.Failure = "no", failureOf(h.GetLastFailure())
	case h.GetLastConnectedTime() != nil:
		f.Reachable = "yes"
	}
	return f
}

// check asks each host, some at a time. A host whose turn does not come in time
// stays as it was.
func (a *adapter) check(ctx context.Context, all []hostFacts) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, checksAtOnce) // one token for each check under way
	for i := range all {
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				all[i].Unchecked = "its turn did not come in time; ask for fewer hosts at once"
				return
			}
			resp, err := a.client.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: all[i].Name, Timeout: durationpb.New(checkTimeout)})
			switch {
			case err != nil: // of the call: what is known of the host is not touched
				e := tellError(err).Error
				all[i].Unchecked = e.Reason + ": " + e.Message
			case resp.GetOk():
				all[i].Reachable, all[i].Failure = "yes", nil
			default:
				all[i].Reachable, all[i].Failure = "no", failureOf(resp.GetFailure())
			}
		})
	}
	wg.Wait()
}
