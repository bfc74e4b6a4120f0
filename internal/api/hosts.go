package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// Hosts answers for HostService.
type Hosts struct {
	telexecv1.UnsafeHostServiceServer

	inventory   Inventory
	load        Load
	connections Connections
	rights      *access.Rights
}

// NewHosts makes the service.
func NewHosts(i Inventory, l Load, c Connections, r *access.Rights) *Hosts {
	return &Hosts{inventory: i, load: l, connections: c, rights: r}
}

// ListHosts is of HostService.
func (h *Hosts) ListHosts(_ context.Context, r *telexecv1.ListHostsRequest) (*telexecv1.ListHostsResponse, error) {
	unpaged := proto.CloneOf(r)
	unpaged.PageSize, unpaged.PageToken = 0, ""
	cursor, err := pageCursor(unpaged, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(slices.Clone(h.inventory.List()), func(host inventory.Host) bool {
		return host.Name <= cursor || !labelled(host, r.GetLabels())
	})
	slices.SortFunc(list, func(a, b inventory.Host) int { return cmp.Compare(a.Name, b.Name) })
	page := &telexecv1.ListHostsResponse{}
	if size := pageSize(r.GetPageSize()); len(list) > size {
		list = list[:size]
		page.NextPageToken = pageToken(unpaged, list[size-1].Name)
	}
	for _, host := range list {
		page.Hosts = append(page.Hosts, h.toProto(host))
	}
	return page, nil
}

// labelled reports whether a host has all of the labels.
func labelled(host inventory.Host, labels map[string]string) bool {
	for k, v := range labels {
		if has, ok := host.Labels[k]; !ok || has != v {
			return false
		}
	}
	return true
}

func (h *Hosts) toProto(host inventory.Host) *telexecv1.Host {
	running, queued := h.load.Load(host.Name)
	return hostToProto(host, running, queued, h.connections.Link(host.Name))
}

// GetHost is of HostService.
func (h *Hosts) GetHost(_ context.Context, r *telexecv1.GetHostRequest) (*telexecv1.GetHostResponse, error) {
	host, err := h.inventory.Lookup(r.GetHost())
	if err != nil {
		return nil, err
	}
	return &telexecv1.GetHostResponse{Host: h.toProto(host)}, nil
}

// CheckHost is of HostService.
func (h *Hosts) CheckHost(ctx context.Context, r *telexecv1.CheckHostRequest) (*telexecv1.CheckHostResponse, error) {
	by := caller(ctx)
	if err := h.rights.May(by, access.Start, access.Thing{Owner: by.Name, Host: r.GetHost()}); err != nil {
		return nil, err // it uses the keys to the host, as a command would
	}
	host, err := h.inventory.Lookup(r.GetHost())
	if err != nil {
		return nil, err
	}
	if r.GetTimeout() != nil {
		host.ConnectTimeout = r.GetTimeout().AsDuration()
	}
	host.ConnectTimeout = waitWithin(ctx, host.ConnectTimeout)
	start := time.Now()
	found, err := h.connections.Check(ctx, host)
	took := time.Since(start)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // the caller went away; that says nothing of the host
	}
	p := &telexecv1.CheckHostResponse{
		Host:               h.toProto(host),
		Ok:                 err == nil,
		Duration:           durationpb.New(took),
		ServerVersion:      found.ServerVersion,
		HostKeyFingerprint: found.HostKey,
		Durability:         durabilityToProto(found.Durability),
		DurabilityReason:   found.DurabilityReason,
	}
	if err != nil {
		e := fault.From(err)
		p.Failure = failureToProto(&command.Failure{Reason: e.Reason, Message: e.Message, Hint: e.Hint})
	}
	return p, nil
}
