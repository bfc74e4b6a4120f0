package client

import (
	"context"
	"iter"

	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// ListCommands gives the commands that match req, newest first, over all pages
// from req.PageToken on; req.PageSize is how many are fetched at a time. An
// error ends the sequence. Leaving the loop early fetches no further page.
func (c *Client) ListCommands(ctx context.Context, req *telexecv1.ListCommandsRequest) iter.Seq2[*telexecv1.Command, error] {
	req = proto.CloneOf(req)
	return pages(func(token string) ([]*telexecv1.Command, string, error) {
		if token != "" {
			req.PageToken = token
		}
		resp, err := c.ListCommandsPage(ctx, req)
		return resp.GetCommands(), resp.GetNextPageToken(), err
	})
}

// ListCommandsPage gives one page, for callers that page themselves.
func (c *Client) ListCommandsPage(ctx context.Context, req *telexecv1.ListCommandsRequest) (*telexecv1.ListCommandsResponse, error) {
	return call(ctx, c, true, c.commands.ListCommands, req)
}

// ListHosts gives the hosts that match req, by name, over all pages; as
// ListCommands.
func (c *Client) ListHosts(ctx context.Context, req *telexecv1.ListHostsRequest) iter.Seq2[*telexecv1.Host, error] {
	req = proto.CloneOf(req)
	return pages(func(token string) ([]*telexecv1.Host, string, error) {
		if token != "" {
			req.PageToken = token
		}
		resp, err := c.ListHostsPage(ctx, req)
		return resp.GetHosts(), resp.GetNextPageToken(), err
	})
}

// ListHostsPage gives one page, for callers that page themselves.
func (c *Client) ListHostsPage(ctx context.Context, req *telexecv1.ListHostsRequest) (*telexecv1.ListHostsResponse, error) {
	return call(ctx, c, true, c.hosts.ListHosts, req)
}

// pages turns a call for the page behind a token into one sequence.
func pages[T any](page func(token string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for token := ""; ; {
			items, next, err := page(token)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}
