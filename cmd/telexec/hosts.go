package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type hostsCmd struct {
	List  hostsListCmd  `cmd:"" default:"withargs" help:"List the hosts (the default)."`
	Show  hostsShowCmd  `cmd:"" help:"Show one host."`
	Check hostsCheckCmd `cmd:"" help:"Connect to a host and tell what was found; exit code 0 only if all is well."`
}

type hostsListCmd struct {
	Label map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Only with this label; may be repeated, then all must match."`
}

// Help is shown by hosts --help.
func (hostsListCmd) Help() string {
	return `There are also telexec hosts show HOST, and telexec hosts check HOST, which connects to it and tells what was found.

Examples:

    telexec hosts --label env=prod
    telexec hosts check web1 --timeout 5s`
}

// Run lists the hosts.
func (c *hostsListCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		var rows [][]cell
		for h, err := range cl.ListHosts(ctx, &telexecv1.ListHostsRequest{PageSize: maxPage, Labels: c.Label}) {
			if err != nil {
				return err
			}
			if a.opts.JSON {
				if err := a.out.line(h); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, []cell{
				plainCell(h.GetName()), plainCell(target(h)),
				plainCell(fmt.Sprintf("%d/%d", h.GetRunningCommands(), h.GetMaxCommands())), plainCell(strconv.Itoa(int(h.GetQueuedCommands()))),
				a.health(h), plainCell(labelText(h.GetLabels())),
			})
		}
		if a.opts.JSON {
			return nil
		}
		return a.out.table([]string{"NAME", "TARGET", "RUNNING", "QUEUED", "LAST SEEN", "LABELS"}, rows)
	})
}

// target is "user@address via jump, jump".
func target(h *telexecv1.Host) string {
	s := h.GetAddress()
	if h.GetUser() != "" {
		s = h.GetUser() + "@" + s
	}
	if len(h.GetProxyJump()) > 0 {
		s += " via " + strings.Join(h.GetProxyJump(), ", ")
	}
	return s
}

// health says when the host was last reached, or why it was not.
func (a *app) health(h *telexecv1.Host) cell {
	switch {
	case h.GetLastFailure() != nil:
		return cell{h.GetLastFailure().GetReason(), red}
	case h.GetConnections() > 0:
		return cell{"connected", green}
	case h.GetLastConnectedTime() == nil:
		return cell{"never", grey}
	}
	return plainCell(a.out.ago(h.GetLastConnectedTime()))
}

type hostsShowCmd struct {
	Host string `arg:"" help:"Name of the host."`
}

// Run shows one host.
func (c *hostsShowCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		h, err := cl.GetHost(ctx, c.Host)
		if err != nil {
			return err
		}
		if a.opts.JSON {
			return a.out.document(h)
		}
		return a.out.columns(a.hostRows(h))
	})
}

func (a *app) hostRows(h *telexecv1.Host) [][]cell {
	rows := facts{}
	rows.add("Host", h.GetName())
	rows.add("Target", target(h))
	rows.add("Defined in", enum(h.GetSource().String(), "HOST_SOURCE_"))
	rows.add("Labels", labelText(h.GetLabels()))
	rows.add("Commands", fmt.Sprintf("%d running of at most %d, %d queued", h.GetRunningCommands(), h.GetMaxCommands(), h.GetQueuedCommands()))
	rows.add("Connections", strconv.Itoa(int(h.GetConnections())))
	if h.GetLastConnectedTime() != nil {
		rows.add("Last seen", a.out.moment(h.GetLastConnectedTime()))
	}
	if f := h.GetLastFailure(); f != nil {
		rows.lines("Last failure", failureText(f)+", "+a.out.ago(h.GetLastFailureTime()), red)
		rows.lines("", f.GetHint(), "")
	}
	return rows.rows
}

type hostsCheckCmd struct {
	Host    string        `arg:"" help:"Name of the host."`
	Timeout time.Duration `placeholder:"TIME" help:"How long it may take, 1s to 60s (default: the host's connect timeout)."`
}

// Run checks one host.
func (c *hostsCheckCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		req := &telexecv1.CheckHostRequest{Host: c.Host}
		if c.Timeout != 0 {
			req.Timeout = durationpb.New(c.Timeout)
		}
		resp, err := cl.CheckHost(ctx, req)
		if err != nil {
			return err
		}
		if err := a.printCheck(c.Host, resp); err != nil {
			return err
		}
		if !resp.GetOk() {
			return &exitError{code: exitNo}
		}
		return nil
	})
}

func (a *app) printCheck(name string, resp *telexecv1.CheckHostResponse) error {
	if a.opts.JSON {
		return a.out.document(resp)
	}
	rows := facts{}
	rows.add("Host", fmt.Sprintf("%s (%s)", name, target(resp.GetHost())))
	if resp.GetOk() {
		rows.paint("Check", "ok, after "+duration(resp.GetDuration()), green)
	} else {
		rows.lines("Check", fmt.Sprintf("failed after %s: %s", duration(resp.GetDuration()), failureText(resp.GetFailure())), red)
		rows.lines("", resp.GetFailure().GetHint(), "")
	}
	rows.add("Server", resp.GetServerVersion())
	rows.add("Host key", resp.GetHostKeyFingerprint())
	if resp.GetDurability() != telexecv1.Durability_DURABILITY_UNSPECIFIED {
		rows.add("Commands are", because(enum(resp.GetDurability().String(), "DURABILITY_"), resp.GetDurabilityReason()))
	}
	return a.out.columns(rows.rows)
}

// because adds a reason, if there is one.
func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}
