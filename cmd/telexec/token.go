package main

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type tokenCmd struct {
	Create tokenCreateCmd `cmd:"" help:"Make an API key and print its token, this once."`
	List   tokenListCmd   `cmd:"" help:"List the API keys, without their tokens."`
	Revoke tokenRevokeCmd `cmd:"" help:"Take an API key back, at once."`
}

type tokenCreateCmd struct {
	Name    string   `arg:"" help:"Name of the principal that it stands for: small letters, digits and . _ @ -"`
	Role    []string `required:"" placeholder:"ROLE" help:"What its holder may do: viewer, operator, approver, admin. May be repeated."`
	Expires string   `placeholder:"TIME" help:"How long it is good, as 12h or 30d (default: for ever)."`

	StartRate   float64 `placeholder:"N" help:"Commands that it may start per second (0: the service's limit, as for the others)."`
	ReadRate    float64 `placeholder:"N" help:"Calls that ask and act on what runs, per second."`
	ListRate    float64 `placeholder:"N" help:"Lists per second."`
	StreamRate  float64 `placeholder:"N" help:"New streams per second."`
	OpenStreams int32   `placeholder:"N" help:"Open streams at once."`
}

// Help is shown by token create --help.
func (tokenCreateCmd) Help() string {
	return `The token is the one line on standard output; all else is told on standard error. The service stores only a hash of
it: a token that was lost is revoked, and another made. Only an admin may.

Examples:

    telexec token create ci --role operator --expires 30d > ci.token
    TELEXEC_TOKEN=$(telexec token create ann --role operator --role approver)`
}

// Run makes a key.
func (c *tokenCreateCmd) Run(ctx context.Context, a *app) error {
	req := &telexecv1.CreateTokenRequest{Principal: c.Name, Roles: c.Role}
	if c.Expires != "" {
		d, err := parseLifetime(c.Expires)
		if err != nil {
			return err
		}
		req.Lifetime = durationpb.New(d)
	}
	limits := telexecv1.CallLimits{
		StartsPerSecond: c.StartRate, ReadsPerSecond: c.ReadRate, ListsPerSecond: c.ListRate, StreamsPerSecond: c.StreamRate, OpenStreams: c.OpenStreams,
	}
	if c.StartRate != 0 || c.ReadRate != 0 || c.ListRate != 0 || c.StreamRate != 0 || c.OpenStreams != 0 {
		req.Limits = &limits
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		resp, err := cl.CreateToken(ctx, req)
		if err != nil {
			return err
		}
		if a.opts.JSON {
			err = a.out.document(resp)
		} else {
			_, err = io.WriteString(a.out.stdout, resp.GetSecret()+"\n")
		}
		if err != nil {
			return failure("the token could not be written, and is lost: %v", err).
				withHint("telexec token revoke %s takes its key back; then make another", c.Name)
		}
		t := resp.GetToken()
		until := "for ever"
		if t.GetExpireTime() != nil {
			until = "until " + a.out.clock(t.GetExpireTime())
		}
		if !a.opts.JSON {
			a.out.tell("the key of %s (%s) is good %s; its token is shown this once", t.GetPrincipal(), strings.Join(t.GetRoles(), ", "), until)
		}
		return nil
	})
}

// parseLifetime understands a duration, in days too.
func parseLifetime(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	return 0, failure("cannot read the time %q", s).withHint("Give it as 90m, 12h or 30d")
}

type tokenListCmd struct {
	All bool `help:"Also those that are good no more: revoked, or expired."`
}

// Run lists the keys.
func (c *tokenListCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		var rows [][]cell
		for t, err := range cl.ListTokens(ctx, &telexecv1.ListTokensRequest{PageSize: maxPage, IncludeInactive: c.All}) {
			if err != nil {
				return err
			}
			if !a.opts.JSON {
				rows = append(rows, []cell{
					plainCell(t.GetPrincipal()), plainCell(strings.Join(t.GetRoles(), ",")), a.tokenState(t), plainCell(t.GetCreatedBy()),
					plainCell(a.out.ago(t.GetCreateTime())), plainCell(a.out.ago(t.GetLastUseTime())), plainCell(t.GetId()),
				})
			} else if err := a.out.line(t); err != nil {
				return err
			}
		}
		if a.opts.JSON {
			return nil
		}
		return a.out.table([]string{"PRINCIPAL", "ROLES", "STATE", "MADE BY", "MADE", "LAST USED", "ID"}, rows)
	})
}

// tokenState is "good for 29 days", or why it is not.
func (a *app) tokenState(t *telexecv1.Token) cell {
	switch {
	case t.GetRevokeTime() != nil:
		return cell{"revoked " + a.out.ago(t.GetRevokeTime()), grey}
	case t.GetExpireTime() == nil:
		return cell{"good", green}
	case !t.GetExpireTime().AsTime().After(a.out.now()):
		return cell{"expired " + a.out.ago(t.GetExpireTime()), red}
	}
	return cell{"good for " + a.out.left(t.GetExpireTime()), green}
}

type tokenRevokeCmd struct {
	Name string `arg:"" name:"principal" help:"Name of the principal that it stands for."`
}

// Help is shown by token revoke --help.
func (tokenRevokeCmd) Help() string {
	return `The next call with its token is refused, and streams that it has opened end. Commands that its holder has started go on;
telexec history --principal NAME lists them. Only an admin may.`
}

// Run revokes a key.
func (c *tokenRevokeCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		t, err := cl.RevokeToken(ctx, c.Name)
		if err != nil {
			return err
		}
		if a.opts.JSON {
			return a.out.document(t)
		}
		a.out.note("the key of %s is revoked", t.GetPrincipal())
		return nil
	})
}
