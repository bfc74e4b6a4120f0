package gateway_test

import (
	"context"
	"regexp"
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
)

// rules gives method and path of every HTTP rule of the contract.
func rules() (all [][2]string) {
	protoregistry.GlobalFiles.RangeFilesByPackage("telexec.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				rule, _ := proto.GetExtension(f.Services().Get(i).Methods().Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
					if path := r.GetGet(); path != "" {
						all = append(all, [2]string{"GET", path})
					}
					if path := r.GetPost(); path != "" {
						all = append(all, [2]string{"POST", path})
					}
					if path := r.GetDelete(); path != "" {
						all = append(all, [2]string{"DELETE", path})
					}
				}
			}
		}
		return true
	})
	return all
}

// TestEveryRouteIsGuarded goes to every route there is without credentials, with
// bad ones, under a foreign name and from a foreign page: it is refused in the one
// shape, and the audit is told once.
func TestEveryRouteIsGuarded(t *testing.T) {
	all := rules()
	if len(all) < 20 {
		t.Fatalf("walked only %d routes", len(all))
	}
	all = append(all, [][2]string{{"GET", "/metrics"}, {"GET", "/openapi.json"}, {"GET", "/docs"}, {"GET", "/"}, {"GET", "/hosts"}, {"GET", "/commands/{command_id}"}, {"GET", "/assets/{file}"}, {"PUT", "/v1/commands"},
		{"GET", "/v1/socket"}, {"GET", "/v1/commands/{command_id}/stream"}, {"GET", "/api/agent/{task_id}/updates"}}...)
	var d *door
	for i, route := range all {
		// A handler that was reached would panic, or not be implemented. The audit is
		// told at once only of the first eight kinds of refusals of a stranger.
		if i%2 == 0 {
			d = open(t, &service{})
		}
		path := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(route[1], anID)
		for _, c := range []struct {
			name   string
			header []string
			status int
			reason string
		}{
			{"no token", []string{"Authorization", ""}, 401, fault.ReasonNoCredentials},
			{"bad token", []string{"Authorization", "Bearer plant"}, 401, fault.ReasonBadCredentials},
			{"foreign name", []string{"Host", "evil.example"}, 403, fault.ReasonForbiddenOrigin},
		} {
			name := c.name
			a := d.do(route[0], path, "", c.header...)
			if _, reason, hint, _ := a.problem(t); a.status != c.status || reason != c.reason || hint == "" {
				t.Errorf("%v, %s: HTTP %d %s", route, name, a.status, a.body)
			}
			e := d.audit.take()
			if len(e) != 1 || e[0].Kind != audit.Refused || e[0].Method != route[0]+" "+route[1] || e[0].Reason != c.reason || e[0].Principal != "" ||
				e[0].Address != "127.0.0.1" || e[0].Call != a.header.Get("X-Request-Id") || e[0].Detail == "" || e[0].Subject != "" {
				t.Errorf("%v, %s: audit %+v", route, name, e)
			}
		}
	}
	d = open(t, &service{}) // to whose audit these are the first
	if a := d.do("POST", "/v1/hosts", "", "Authorization", "", "Cookie", "telexec=plant"); a.status != 401 {
		t.Errorf("bad cookie: HTTP %d", a.status)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Reason != fault.ReasonBadCredentials || e[0].Origin != "web" {
		t.Errorf("bad cookie: audit %+v", e)
	}
	// From a foreign page: with any method.
	for _, method := range []string{"GET", "POST", "OPTIONS"} {
		if a := d.do(method, "/v1/commands", "", "Origin", "https://evil.example"); a.status != 403 {
			t.Errorf("%s: HTTP %d", method, a.status)
		}
		if e := d.audit.take(); len(e) != 1 || e[0].Reason != fault.ReasonForbiddenOrigin {
			t.Errorf("%s: audit %+v", method, e)
		}
	}
	// What is not there has one name, and says what was asked for.
	if a := d.do("BREW", "/pot", "", "Authorization", ""); a.status != 401 {
		t.Errorf("HTTP %d", a.status)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Method != "other other" || e[0].Subject != "BREW /pot" {
		t.Errorf("audit %+v", e)
	}
}

// TestWhatTheServerRefusesItTells: a refusal from behind the gateway is told once,
// with the address of the gateway's client.
func TestWhatTheServerRefusesItTells(t *testing.T) {
	d := open(t, &service{
		execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
			return nil, fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "no").WithHint("Ask").With("rule", "r1").With("decision", "deny")
		},
	})
	if a := d.do("POST", "/v1/commands", `{"host":"h","command":"id"}`); a.status != 403 {
		t.Fatalf("HTTP %d %s", a.status, a.body)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Method != "CommandService/Execute" || e[0].Principal != "admin" || e[0].Origin != "rest" ||
		e[0].Address != "127.0.0.1" || e[0].Host != "h" || e[0].Command != "id" || e[0].Rule != "r1" {
		t.Errorf("audit %+v", e)
	}
}

func TestNobodySetsOurMetadataFromOutside(t *testing.T) {
	var md metadata.MD
	d := open(t, asking(&md))
	var header []string
	for _, key := range []string{"Telexec-Address", "Telexec-Client", "Telexec-Client-Bin", "Telexec-Origin"} {
		header = append(header, key, "plant", "Grpc-Metadata-"+key, "plant")
	}
	if a := d.do("GET", statusPath, "", header...); a.status != 200 {
		t.Fatalf("HTTP %d %s", a.status, a.body)
	}
	for key, values := range md {
		if slices.Contains(values, "plant") {
			t.Errorf("%s: %v", key, values)
		}
	}
	if a, o := md.Get("telexec-address"), md.Get("telexec-origin"); len(a) != 1 || a[0] != "127.0.0.1" || len(o) != 1 || o[0] != "rest" || len(md.Get("telexec-client-bin")) != 0 {
		t.Errorf("metadata %v", md)
	}
}
