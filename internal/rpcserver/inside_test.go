package rpcserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
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
		"EventService/WatchEvents":        access.ClassStream,
		"HostService/ListHosts":           access.ClassList,
		"HostService/GetHost":             access.ClassRead,
		"HostService/CheckHost":           access.ClassRead,
		"SessionService/OpenSession":      access.ClassStart,
		"SessionService/GetSession":       access.ClassRead,
		"SessionService/ListSessions":     access.ClassList,
		"SessionService/CloseSession":     access.ClassRead,
		"SessionService/Attach":           access.ClassStream,
		"SessionService/ReadScreen":       access.ClassRead,
		"SessionService/SendKeys":         access.ClassRead,
		"SessionService/ReadRecording":    access.ClassStream,
		"TaskService/SubmitTask":          access.ClassStart,
		"TaskService/GetTask":             access.ClassRead,
		"TaskService/ListTasks":           access.ClassList,
		"TaskService/CancelTask":          access.ClassRead,
		"TaskService/UndoTask":            access.ClassStart,
		"TaskService/DecideTask":          access.ClassRead,
		"TaskService/WatchTask":           access.ClassStream,
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
	for _, table := range []map[string]bool{starts, tries, holds} {
		for method := range table {
			if _, subject := methodName(method); subject != "" {
				t.Errorf("there is no method %s", method)
			}
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

// A refused call names its session, also where its first message begins a conversation.
func TestARefusalNamesItsSession(t *testing.T) {
	for _, r := range []proto.Message{
		&telexecv1.ReadScreenRequest{Session: "deploy"},
		&telexecv1.ExecuteRequest{Session: "deploy", Command: "id"},
		&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Session: "deploy"}}},
	} {
		var e audit.Entry
		if describe(&e, r.ProtoReflect()); e.Session != "deploy" {
			t.Errorf("%T: %+v", r, e)
		}
	}
	var e audit.Entry // what is typed is nobody's affair
	describe(&e, (&telexecv1.SendKeysRequest{Session: "deploy", Keys: []*telexecv1.Key{{Key: &telexecv1.Key_Text{Text: "plant"}}}}).ProtoReflect())
	describe(&e, (&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Input{Input: []byte("plant")}}).ProtoReflect())
	if text, _ := json.Marshal(e); strings.Contains(string(text), "plant") {
		t.Errorf("%s", text)
	}
}

// A refused call names its task; a refused plan the step that was refused, and no other.
func TestARefusalNamesItsTask(t *testing.T) {
	const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	for _, r := range []proto.Message{
		&telexecv1.GetTaskRequest{TaskId: id}, &telexecv1.CancelTaskRequest{TaskId: id}, &telexecv1.UndoTaskRequest{TaskId: id}, &telexecv1.WatchTaskRequest{TaskId: id},
	} {
		var e audit.Entry
		if describe(&e, r.ProtoReflect()); e.Task != id || e.CommandID != "" {
			t.Errorf("%T: %+v", r, e)
		}
	}
	var decision audit.Entry
	if describe(&decision, (&telexecv1.DecideTaskRequest{TaskId: id, ApprovalId: "an approval"}).ProtoReflect()); decision.Task != id || decision.CommandID != "an approval" {
		t.Errorf("%+v", decision)
	}
	plan := &telexecv1.SubmitTaskRequest{Task: "roll out", Steps: []*telexecv1.StepSpec{
		{Host: "web1", Command: "true"},
		{Hosts: []string{"web1", "web2"}, Command: "reboot", Undo: "halt", SudoUser: "db"},
		{Session: "deploy", Argv: []string{"rm", "a b"}},
	}}
	for field, want := range map[string]audit.Entry{
		"steps[0].command": {Host: "web1", Command: "true"},
		"steps[1].command": {Command: "reboot", SudoUser: "db"},
		"steps[1].undo":    {Command: "halt", SudoUser: "db"},
		"steps[2].command": {Session: "deploy", Command: "rm 'a b'"},
		"steps[3].command": {}, "steps": {}, "": {}, "steps[-1].command": {}, "stops[0].command": {}, "task[0].command": {}, "labels[0].x": {},
	} {
		var e audit.Entry
		if describePart(&e, plan.ProtoReflect(), field); !reflect.DeepEqual(e, want) {
			t.Errorf("%s: %+v", field, e)
		}
	}
}

func TestWhatIsCutAndMasked(t *testing.T) {
	long := strings.Repeat("é", 300)
	if name := shorten(long, maxName); len(name) > maxName || !strings.HasPrefix(name, "éé") || !strings.HasSuffix(name, "é…") {
		t.Errorf("%q", name)
	}
	// A secret that begins another one, and those that stand quoted in a text.
	m := &telexecv1.ExecuteRequest{Redact: []string{"plant", "plant-more", `a"b`, "it's"}}
	mask, ok := maskOf(m.ProtoReflect())
	if text := mask(`plant-more plant "a\"b" 'it'\''s' a"b`); !ok || text != `********** ***** "***" '****' ***` {
		t.Errorf("%q", text)
	}
	c := &call{}
	if c.masked("x plant") != "x plant" {
		t.Error("without a message there is nothing to mask")
	}
	c.message.Store(m)
	if c.masked("x plant") != "x *****" {
		t.Error(c.masked("x plant"))
	}
	c = &call{}
	c.message.Store(&telexecv1.ExecuteRequest{Redact: []string{strings.Repeat("a", maxSecret+1)}})
	if strings.Contains(c.masked("plant"), "plant") {
		t.Error(c.masked("plant"))
	}
}

func TestWhichCallsWait(t *testing.T) {
	const execute, status = "/telexec.v1.CommandService/Execute", "/telexec.v1.CommandService/GetStatus"
	for _, c := range []struct {
		method  string
		request any
		waits   bool
	}{
		{execute, &telexecv1.ExecuteRequest{}, true}, // 30 s by default
		{execute, &telexecv1.ExecuteRequest{Wait: durationpb.New(0)}, false},
		{execute, &telexecv1.ExecuteRequest{Wait: durationpb.New(time.Second)}, true},
		{status, &telexecv1.GetStatusRequest{}, false},
		{status, &telexecv1.GetStatusRequest{Wait: durationpb.New(0)}, false},
		{status, &telexecv1.GetStatusRequest{Wait: durationpb.New(time.Second)}, true},
		{"/telexec.v1.HostService/ListHosts", &telexecv1.ListHostsRequest{}, false},
		{"/telexec.v1.SessionService/OpenSession", &telexecv1.OpenSessionRequest{}, true},
		{"/telexec.v1.SessionService/CloseSession", &telexecv1.CloseSessionRequest{}, true},
		{"/telexec.v1.SessionService/SendKeys", &telexecv1.SendKeysRequest{Settle: durationpb.New(0)}, true}, // 10 s at most
		{"/telexec.v1.SessionService/ReadScreen", &telexecv1.ReadScreenRequest{}, false},
		{"/telexec.v1.TaskService/SubmitTask", &telexecv1.SubmitTaskRequest{}, false},
		{"/telexec.v1.TaskService/UndoTask", &telexecv1.UndoTaskRequest{}, false},
		{"/telexec.v1.TaskService/DecideTask", &telexecv1.DecideTaskRequest{}, false},
		{"/telexec.v1.TaskService/CancelTask", &telexecv1.CancelTaskRequest{Grace: durationpb.New(0)}, true}, // until that is proven
		{"/telexec.v1.TaskService/GetTask", &telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_ENDED}, false},
		{"/telexec.v1.TaskService/GetTask", &telexecv1.GetTaskRequest{Wait: durationpb.New(time.Second)}, true},
	} {
		if got := (&call{method: c.method}).waits(c.request); got != c.waits {
			t.Errorf("%s %v: %v", c.method, c.request, got)
		}
	}
}

// TestAMessageThatDoesNotEnd: who asks without credentials has some seconds.
func TestAMessageThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, begun := &call{}, time.Now()
		hangs := make(chan struct{})
		err := brief(t.Context(), c, func(ctx context.Context) error {
			if !c.ends {
				t.Error("the call cannot be ended")
			}
			return untilOver(ctx, func() error { <-hangs; return nil })
		})
		if fault.ReasonOf(err) != fault.ReasonCallDeadline || time.Since(begun) != openTimeout {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		close(hangs)
	})
}

// silent is a stream on which nothing comes until it is closed.
type silent struct {
	grpc.ServerStream
	closed chan struct{}
}

func (s silent) RecvMsg(any) error { <-s.closed; return io.EOF }

// TestAMessageIsWaitedForSoLong, and counts as late before that.
func TestAMessageIsWaitedForSoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, hangs := time.Now(), make(chan struct{})
		defer close(hangs)
		var counted, released time.Duration
		c := &call{late: func() (func(), error) {
			counted = time.Since(begun)
			return func() { released = time.Since(begun) }, nil
		}}
		s := &guardedStream{ServerStream: silent{closed: hangs}, ctx: t.Context(), call: c}
		if err := s.RecvMsg(nil); fault.ReasonOf(err) != fault.ReasonCallDeadline || counted != lateAfter || released != messageTimeout {
			t.Errorf("%v, counted from %v to %v", err, counted, released)
		}
		if code := c.told.Load(); code != 0 {
			t.Errorf("gRPC has told %v", code)
		}
	})
}

func TestAHandlerIsLeftAlone(t *testing.T) {
	want := errors.New("x")
	if err := untilOver(t.Context(), func() error { return want }); err != want {
		t.Error(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel() // the client has gone: the handler says what it makes of it
	for range 20 {
		if err := untilOver(gone, func() error { return want }); err != want {
			t.Error(err)
		}
	}
	for _, ctx := range []context.Context{t.Context(), gone} {
		func() {
			defer func() {
				if p, ok := recover().(panicOf); !ok || p.value != "oh no" || !strings.Contains(string(p.stack), "inside_test.go") {
					t.Errorf("%+v", p)
				}
			}()
			untilOver(ctx, func() error { panic("oh no") })
		}()
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
