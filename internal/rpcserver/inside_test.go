package rpcserver

import (
	"net"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
)

// TestEveryMethodHasAClass: a new method is not put into a class by chance.
func TestEveryMethodHasAClass(t *testing.T) {
	want := map[string]access.Class{
		"CommandService/Execute":          access.ClassStart,
		"CommandService/StreamOutput":     access.ClassStream,
		"CommandService/GetStatus":        access.ClassRead,
		"CommandService/Cancel":           access.ClassRead,
		"CommandService/Signal":           access.ClassRead,
		"CommandService/SendInput":        access.ClassRead,
		"CommandService/ListCommands":     access.ClassList,
		"HostService/ListHosts":           access.ClassList,
		"HostService/GetHost":             access.ClassRead,
		"HostService/CheckHost":           access.ClassRead,
		"ApprovalService/ListApprovals":   access.ClassList,
		"ApprovalService/GetApproval":     access.ClassRead,
		"ApprovalService/DecideApprovals": access.ClassRead,
		"PolicyService/ExplainPolicy":     access.ClassRead,
		"AdminService/GetServerInfo":      access.ClassRead,
		"AdminService/CreateToken":        access.ClassRead,
		"AdminService/ListTokens":         access.ClassList,
		"AdminService/RevokeToken":        access.ClassRead,
		"AdminService/ListAuditEntries":   access.ClassList,
		"AdminService/VerifyAudit":        access.ClassRead,
		"AdminService/ExportAudit":        access.ClassStream,
	}
	there := 0
	protoregistry.GlobalFiles.RangeFilesByPackage(ownPackage, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				name := string(service.Name()) + "/" + string(m.Name())
				class, known := want[name]
				if !known {
					t.Errorf("%s: say here which class of calls it belongs to", name)
				}
				if got := classOf("/"+string(ownPackage)+"."+name, m.IsStreamingServer() || m.IsStreamingClient()); got != class {
					t.Errorf("%s is %v", name, got)
				}
				there++
			}
		}
		return true
	})
	if there != len(want) {
		t.Errorf("%d methods of %d are there", there, len(want))
	}
	for method := range starts {
		if _, subject := methodName(method); subject != "" {
			t.Errorf("there is no method %s", method)
		}
	}
}

func TestOnlyWhatAnEntryShowsIsLookedAt(t *testing.T) {
	describeOf := func(r *telexecv1.ExecuteRequest) (e audit.Entry) {
		describe(&e, r.ProtoReflect())
		return e
	}
	// A secret over the border of what is shown.
	at := strings.Repeat("x", audit.MaxCommand-5)
	if e := describeOf(&telexecv1.ExecuteRequest{Command: at + "plantplant" + at, Redact: []string{"plantplant"}}); strings.Contains(e.Command, "plant") ||
		len(e.Command) > audit.MaxCommand || !strings.HasPrefix(e.Command, at) {
		t.Errorf("%d bytes, %q", len(e.Command), e.Command[len(at)-5:])
	}
	if e := describeOf(&telexecv1.ExecuteRequest{Argv: []string{at, "plantplant", "plantplant", at}, Redact: []string{"plantplant"}}); strings.Contains(e.Command, "plant") ||
		len(e.Command) > audit.MaxCommand {
		t.Errorf("%d bytes, %q", len(e.Command), e.Command[len(at)-5:])
	}
	// More secrets than the contract allows: nobody looks for them, and nothing is shown.
	if e := describeOf(&telexecv1.ExecuteRequest{Host: "h", Command: "plant", Redact: make([]string, 10)}); e.Command != "plant" || e.Host != "h" {
		t.Errorf("%+v", e)
	}
	for _, r := range []*telexecv1.ExecuteRequest{
		{Host: "h", Command: "plant", Redact: strings.Split(strings.Repeat("aaaa ", 100)+"plant", " ")},
		{Host: "h", Command: "plant", Redact: []string{strings.Repeat("a", maxSecret+1), "plant"}},
	} {
		if e := describeOf(r); e.Command != "" || e.Host != "h" {
			t.Errorf("%+v", e)
		}
	}
	if e := describeOf(&telexecv1.ExecuteRequest{Command: "id", Sudo: &telexecv1.Sudo{User: "db"}}); e.SudoUser != "db" {
		t.Errorf("%+v", e)
	}
}

func TestAddresses(t *testing.T) {
	for text, addr := range map[string]net.Addr{
		"192.0.2.1":   &net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 1},
		"2001:db8::1": &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1},
		"":            &net.UnixAddr{Name: "/run/x", Net: "unix"},
	} {
		if got := ipOf(addr); got != text {
			t.Errorf("%v: %q", addr, got)
		}
	}
}
