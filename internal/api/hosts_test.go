package api

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// park is an inventory with connections.
type park struct {
	hosts   []inventory.Host
	found   Finding
	problem error
	takes   time.Duration
}

func (p *park) List() []inventory.Host { return p.hosts }
func (p *park) Lookup(name string) (inventory.Host, error) {
	for _, h := range p.hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return inventory.Host{}, fault.New(fault.NotFound, fault.ReasonUnknownHost, "no host %s", name)
}
func (p *park) Link(string) Link { return Link{Connections: 4} }
func (p *park) Check(ctx context.Context, h inventory.Host) (Finding, error) {
	select {
	case <-time.After(h.ConnectTimeout):
		return Finding{}, fault.New(fault.DeadlineExceeded, fault.ReasonConnectTimeout, "no answer").WithHint("look")
	case <-time.After(p.takes):
		return p.found, p.problem
	case <-ctx.Done():
		return Finding{}, ctx.Err()
	}
}

func TestHosts(t *testing.T) {
	p := &park{}
	for _, n := range []string{"web3", "db1", "web1", "web2"} {
		p.hosts = append(p.hosts, inventory.Host{Name: n, Labels: map[string]string{"kind": n[:2]}})
	}
	svc := NewHosts(p, &plant{}, p, nil)
	ctx := asAnn(t)
	req, got := &telexecv1.ListHostsRequest{PageSize: 2}, []string(nil)
	for {
		page, err := svc.ListHosts(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range page.GetHosts() {
			got = append(got, h.GetName())
			if int(h.GetRunningCommands()) != len(h.GetName()) || h.GetQueuedCommands() != 2 || h.GetConnections() != 4 {
				t.Errorf("%v", h)
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(got, []string{"db1", "web1", "web2", "web3"}) {
		t.Error(got)
	}
	labelled, err := svc.ListHosts(ctx, &telexecv1.ListHostsRequest{Labels: map[string]string{"kind": "db"}})
	if err != nil || len(labelled.GetHosts()) != 1 {
		t.Errorf("%v, %v", labelled, err)
	}
	if _, err := svc.ListHosts(ctx, &telexecv1.ListHostsRequest{PageToken: "x"}); fault.ReasonOf(err) != fault.ReasonBadPageToken {
		t.Error(err)
	}
	one, err := svc.GetHost(ctx, &telexecv1.GetHostRequest{Host: "web1"})
	if err != nil || one.GetHost().GetName() != "web1" {
		t.Errorf("%v, %v", one, err)
	}
	_, err1 := svc.GetHost(ctx, &telexecv1.GetHostRequest{Host: "web9"})
	_, err2 := svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web9"})
	if fault.ReasonOf(err1) != fault.ReasonUnknownHost || fault.ReasonOf(err2) != fault.ReasonUnknownHost {
		t.Error(err1, err2)
	}
}

func TestCheckHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &park{hosts: []inventory.Host{{Name: "web1", Address: "10.0.0.1:22", ConnectTimeout: 10 * time.Second}}, takes: 2 * time.Second,
			found: Finding{ServerVersion: "SSH-2.0-x", HostKey: "SHA256:y", Durability: command.Attached, DurabilityReason: "old"}}
		svc := NewHosts(p, &plant{}, p, nil)
		ctx := asAnn(t)
		r, err := svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web1"})
		if err != nil || !r.GetOk() || r.GetFailure() != nil || r.GetDuration().AsDuration() != 2*time.Second || r.GetServerVersion() != "SSH-2.0-x" ||
			r.GetHostKeyFingerprint() != "SHA256:y" || r.GetDurability() != telexecv1.Durability_DURABILITY_ATTACHED || r.GetDurabilityReason() != "old" {
			t.Errorf("%v, %v", r, err)
		}
		r, err = svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web1", Timeout: durationpb.New(time.Second)})
		if err != nil || r.GetOk() || r.GetFailure().GetReason() != fault.ReasonConnectTimeout || r.GetFailure().GetHint() == "" || r.GetDuration().AsDuration() != time.Second {
			t.Errorf("%v, %v", r, err)
		}
		p.problem = fault.New(fault.Unavailable, fault.ReasonConnectionRefused, "refused").WithHint("start sshd")
		r, err = svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: "web1"})
		if err != nil || r.GetFailure().GetReason() != fault.ReasonConnectionRefused || r.GetFailure().GetHint() != "start sshd" {
			t.Errorf("%v, %v", r, err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := svc.CheckHost(gone, &telexecv1.CheckHostRequest{Host: "web1"}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A check uses the keys to a host as a command would, so it takes the same role. What
// there is may be seen by all.
func TestCheckHostIsForOperators(t *testing.T) {
	p := &park{hosts: []inventory.Host{{Name: "web1", ConnectTimeout: time.Minute}}}
	svc := NewHosts(p, &plant{}, p, nil)
	for role, may := range map[access.Role]bool{access.RoleViewer: false, access.RoleApprover: false, access.RoleOperator: true, access.RoleAdmin: true} {
		ctx := as(t.Context(), "ann", role)
		for _, host := range []string{"web1", "web9"} { // and nobody learns more by it
			_, err := svc.CheckHost(ctx, &telexecv1.CheckHostRequest{Host: host})
			if (fault.ReasonOf(err) != fault.ReasonRoleMissing) != may {
				t.Errorf("%s, %s: %v", role, host, err)
			}
		}
		if _, err := svc.GetHost(ctx, &telexecv1.GetHostRequest{Host: "web1"}); err != nil {
			t.Errorf("%s: %v", role, err)
		}
		if page, err := svc.ListHosts(ctx, &telexecv1.ListHostsRequest{}); err != nil || len(page.GetHosts()) != 1 {
			t.Errorf("%s: %v, %v", role, page, err)
		}
	}
}

func TestServerInfo(t *testing.T) {
	info := full[Info]()
	info.Started = time.Now().Add(-time.Minute)
	r, err := NewAdmin(info, &plant{}, nil, nil, nil).GetServerInfo(asAnn(t), &telexecv1.GetServerInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if missing := unset("", r.ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}
	if r.GetPrincipal() != "ann" || !slices.Equal(r.GetRoles(), []string{"operator"}) || !r.GetCredentialsExpireTime().AsTime().Equal(noon) || r.GetUptime().AsDuration() < time.Minute || r.GetLimits().GetRetainedOutputBytes() != info.Limits.RetainedOutput {
		t.Errorf("%v", r)
	}
}
