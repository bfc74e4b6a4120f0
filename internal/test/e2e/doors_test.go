package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestGRPCurl does with grpcurl, and no proto file, what its users do.
func TestGRPCurl(t *testing.T) {
	t.Parallel()
	grpcurl := testenv.Tool(t, "grpcurl")
	env := testenv.Start(t)
	call := func(args ...string) string {
		t.Helper()
		args = append([]string{"-plaintext", "-H", "authorization: Bearer " + env.Token.Reveal()}, args...)
		out, err := exec.CommandContext(t.Context(), grpcurl, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("grpcurl %s: %v\n%s", strings.Join(args[3:], " "), err, out)
		}
		return string(out)
	}
	if out := call(env.GRPCAddr, "list"); !strings.Contains(out, "telexec.v1.CommandService") || !strings.Contains(out, "grpc.health.v1.Health") {
		t.Errorf("list: %s", out)
	}
	if out := call(env.GRPCAddr, "describe", "telexec.v1.CommandService"); !strings.Contains(out, "rpc StreamOutput ( .telexec.v1.StreamOutputRequest ) returns ( stream .telexec.v1.StreamOutputResponse )") {
		t.Errorf("describe: %s", out)
	}
	var run struct {
		Command struct {
			ID       string
			State    string
			ExitCode *int
		}
		Stdout struct{ Data []byte }
	}
	out := call("-d", `{"host":"web1","command":"echo hello; exit 3"}`, env.GRPCAddr, "telexec.v1.CommandService/Execute")
	if err := json.Unmarshal([]byte(out), &run); err != nil || run.Command.ExitCode == nil || *run.Command.ExitCode != 3 || string(run.Stdout.Data) != "hello\n" {
		t.Errorf("Execute: %v\n%s", err, out)
	}
	if out := call("-d", `{"command_id":"`+run.Command.ID+`","follow":true,"text":true}`, env.GRPCAddr, "telexec.v1.CommandService/StreamOutput"); !strings.Contains(out, `"text": "hello\n"`) || !strings.Contains(out, `"ended"`) {
		t.Errorf("StreamOutput: %s", out)
	}
	long := begin(t, env, &telexecv1.ExecuteRequest{Command: "sleep 1000"})
	if out := call("-d", `{"command_id":"`+long+`"}`, env.GRPCAddr, "telexec.v1.CommandService/Cancel"); !strings.Contains(out, "CANCEL_OUTCOME_GONE") {
		t.Errorf("Cancel: %s", out)
	}
	// Without a token not even the list of services.
	if out, err := exec.CommandContext(t.Context(), grpcurl, "-plaintext", env.GRPCAddr, "list").CombinedOutput(); err == nil || !strings.Contains(string(out), "no credentials") {
		t.Errorf("list without a token: %v\n%s", err, out)
	}
}

// TestReflectionIsEnough makes a call with nothing but what the server tells
// about itself, as generated clients of any language may.
func TestReflectionIsEnough(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	s, err := reflectionpb.NewServerReflectionClient(env.Conn()).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files := &descriptorpb.FileDescriptorSet{}
	known := map[string]bool{}
	ask := func(r *reflectionpb.ServerReflectionRequest) {
		t.Helper()
		if err := s.Send(r); err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if err != nil || m.GetFileDescriptorResponse() == nil {
			t.Fatalf("%v, %v", m, err)
		}
		for _, b := range m.GetFileDescriptorResponse().GetFileDescriptorProto() {
			f := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(b, f); err != nil {
				t.Fatal(err)
			}
			if !known[f.GetName()] {
				known[f.GetName()] = true
				files.File = append(files.File, f)
			}
		}
	}
	ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "telexec.v1.HostService"}})
	for i := 0; i < len(files.File); i++ {
		for _, name := range files.File[i].GetDependency() {
			if !known[name] {
				ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileByFilename{FileByFilename: name}})
			}
		}
	}
	s.CloseSend()
	registry, err := protodesc.NewFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	d, err := registry.FindDescriptorByName("telexec.v1.HostService.ListHosts")
	if err != nil {
		t.Fatal(err)
	}
	method := d.(protoreflect.MethodDescriptor)
	answer := dynamicpb.NewMessage(method.Output())
	if err := env.Conn().Invoke(t.Context(), "/telexec.v1.HostService/ListHosts", dynamicpb.NewMessage(method.Input()), answer); err != nil {
		t.Fatal(err)
	}
	if n := answer.Get(method.Output().Fields().ByName("hosts")).List().Len(); n != len(users(env)) {
		t.Errorf("%d hosts", n)
	}
}

// TestEveryMethodWantsAToken walks the methods of the real server, by gRPC and
// where it has a route by REST.
func TestEveryMethodWantsAToken(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.WithoutHosts())
	naked := env.Dial(nil)
	defer naked.Close()
	methods := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("telexec.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			svc := f.Services().Get(i)
			for j := range svc.Methods().Len() {
				methods++
				m := svc.Methods().Get(j)
				err := naked.Invoke(t.Context(), "/"+string(svc.FullName())+"/"+string(m.Name()), dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output()))
				if code, i := reason(t, err); code != codes.Unauthenticated || i.GetReason() != fault.ReasonNoCredentials {
					t.Errorf("%s: %v", m.FullName(), err)
				}
			}
		}
		return true
	})
	if methods < 11 {
		t.Errorf("walked only %d methods", methods)
	}
	bad := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+strings.Repeat("0", 64))
	_, err := telexecv1.NewHostServiceClient(naked).ListHosts(bad, &telexecv1.ListHostsRequest{})
	if _, i := reason(t, err); i.GetReason() != fault.ReasonBadCredentials {
		t.Errorf("wrong token: %v", err)
	}
	h, err := healthpb.NewHealthClient(naked).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/": 401, "/v1/commands": 401, "/v1/hosts": 401, "/v1/server": 401,
		"/metrics": 401, "/openapi.json": 401, "/v1/nothing": 401, "/debug/pprof/": 401,
	} {
		if a := rest(t, env, "GET", path, "", "Authorization", ""); a.status != want {
			t.Errorf("GET %s without a token: HTTP %d %s", path, a.status, a.body)
		}
	}
	for path, says := range map[string]string{"/metrics": "telexec_request_duration_seconds", "/openapi.json": `"openapi"`} {
		if a := rest(t, env, "GET", path, ""); a.status != 200 || !bytes.Contains(a.body, []byte(says)) {
			t.Errorf("GET %s: HTTP %d %.200s", path, a.status, a.body)
		}
	}
	if strings.Contains(env.Log(), env.Token.Reveal()) {
		t.Error("the token is in the log")
	}
}

// TestTheSameByREST does by HTTP what the others do by gRPC, with curl where the
// request is a person's.
func TestTheSameByREST(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	type command struct {
		ID        string
		State     string
		ExitCode  *int
		CreatedBy struct{ Principal, Origin string }
	}
	var run struct {
		Command command
		Stdout  struct {
			Data []byte
			Text string
		}
	}
	get := func(a answer, into any) {
		t.Helper()
		if err := json.Unmarshal(a.body, into); err != nil || a.status != 200 {
			t.Fatalf("HTTP %d, %v: %s", a.status, err, a.body)
		}
	}
	curl, err := exec.LookPath("curl")
	if err == nil {
		out, err := exec.CommandContext(t.Context(), curl, "-sS", "-H", "Authorization: Bearer "+env.Token.Reveal(),
			"-d", `{"host":"web1","command":"echo hello; exit 3","output":{"text":true}}`, "http://"+env.HTTPAddr+"/v1/commands").Output()
		if err != nil {
			t.Fatal(err)
		}
		get(answer{200, out}, &run)
	} else {
		get(rest(t, env, "POST", "/v1/commands", `{"host":"web1","command":"echo hello; exit 3","output":{"text":true}}`), &run)
	}
	if c := run.Command; c.State != "COMMAND_STATE_COMPLETED" || c.ExitCode == nil || *c.ExitCode != 3 || run.Stdout.Text != "hello\n" ||
		c.CreatedBy.Origin != "ORIGIN_REST" || c.CreatedBy.Principal != "admin" {
		t.Errorf("%+v", run)
	}
	id := run.Command.ID

	get(rest(t, env, "GET", "/v1/commands/"+id+"?output.text=true&wait=1s", ""), &run)
	if run.Stdout.Text != "hello\n" || run.Command.ID != id {
		t.Errorf("status: %+v", run)
	}
	a := rest(t, env, "GET", "/v1/commands/"+id+"/output?stdout_offset=2&follow=true", "")
	lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
	if a.status != 200 || len(lines) != 4 || !strings.Contains(lines[0], `"command"`) || !strings.Contains(lines[1], `"offset":"2"`) ||
		!strings.Contains(lines[2], `"outputComplete"`) || !strings.Contains(lines[3], `"ended"`) {
		t.Errorf("output: HTTP %d\n%s", a.status, a.body)
	}
	long := begin(t, env, &telexecv1.ExecuteRequest{Command: "read a; echo $a; exec sleep 1000", StdinOpen: true})
	var input struct{ StdinBytes string }
	get(rest(t, env, "POST", "/v1/commands/"+long+":input", `{"data":"eQo="}`), &input)
	waitOutput(t, env, long, "y\n")
	get(rest(t, env, "POST", "/v1/commands/"+long+":signal", `{"signal":"CONT"}`), &run)
	var cancel struct {
		Report  struct{ Outcome string }
		Command command
	}
	get(rest(t, env, "POST", "/v1/commands/"+long+":cancel", ``), &cancel)
	if input.StdinBytes != "2" || cancel.Report.Outcome != "CANCEL_OUTCOME_GONE" || cancel.Command.State != "COMMAND_STATE_CANCELLED" {
		t.Errorf("%+v %+v", input, cancel)
	}
	var list struct {
		Commands      []command
		NextPageToken string
	}
	get(rest(t, env, "GET", "/v1/commands?page_size=1&host=web1", ""), &list)
	if len(list.Commands) != 1 || list.Commands[0].ID != long || list.NextPageToken == "" {
		t.Fatalf("%+v", list)
	}
	token := list.NextPageToken
	list.NextPageToken = ""
	get(rest(t, env, "GET", "/v1/commands?page_size=1&host=web1&page_token="+token, ""), &list)
	if len(list.Commands) != 1 || list.Commands[0].ID != id || list.NextPageToken != "" {
		t.Errorf("%+v", list)
	}
	get(rest(t, env, "GET", "/v1/commands?states=COMMAND_STATE_CANCELLED&origin=ORIGIN_GRPC", ""), &list)
	if len(list.Commands) != 1 || list.Commands[0].ID != long {
		t.Errorf("%+v", list)
	}
	var host struct {
		Host struct{ Name, Source string }
		OK   bool
	}
	get(rest(t, env, "GET", "/v1/hosts/web1", ""), &host)
	if host.Host.Name != "web1" || host.Host.Source != "HOST_SOURCE_CONFIG" {
		t.Errorf("%+v", host)
	}
	get(rest(t, env, "POST", "/v1/hosts/web1:check", ""), &host)
	if !host.OK {
		t.Errorf("%+v", host)
	}
}

// TestOriginsOfClients: our own clients say what they are; nobody outside can
// say that he is the gateway.
func TestOriginsOfClients(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	for said, want := range map[string]telexecv1.Origin{
		"": telexecv1.Origin_ORIGIN_GRPC, "cli": telexecv1.Origin_ORIGIN_CLI, "mcp": telexecv1.Origin_ORIGIN_MCP,
		"rest": telexecv1.Origin_ORIGIN_GRPC, "websocket": telexecv1.Origin_ORIGIN_GRPC,
	} {
		ctx := t.Context()
		if said != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "telexec-origin", said)
		}
		r, err := env.Commands().Execute(ctx, &telexecv1.ExecuteRequest{Host: env.Host, Command: "true"})
		if err != nil || r.GetCommand().GetCreatedBy().GetOrigin() != want {
			t.Errorf("%q: %v, %v", said, r.GetCommand().GetCreatedBy(), err)
		}
	}
}

// TestTheCallersDeadlineIsAnsweredBefore: a caller that gives 1 s gets the id
// within it, although the command and the usual wait are longer.
func TestTheCallersDeadlineIsAnsweredBefore(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	// The first command connects to the host.
	execute(t, env, &telexecv1.ExecuteRequest{Command: "true"})
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	r, err := env.Commands().Execute(ctx, &telexecv1.ExecuteRequest{Host: env.Host, Command: "echo started; exec sleep 1000"})
	if err != nil || ended(r.GetCommand()) || r.GetCommand().GetId() == "" {
		t.Fatalf("%v, %v", r, err)
	}
	if c, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: r.GetCommand().GetId(), Grace: durationpb.New(0)}); err != nil || !ended(c.GetCommand()) {
		t.Errorf("%v, %v", c, err)
	}
	// A client that goes away does not take its command with it.
	ctx, cancel = context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := env.Commands().Execute(ctx, &telexecv1.ExecuteRequest{Host: env.Host, Command: "sleep 0.7; echo done", RequestId: "left-alone"})
		gone <- err
	}()
	var id string
	for id == "" {
		list, err := env.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{Active: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.GetCommands() {
			id = c.GetId()
		}
	}
	cancel()
	if err := <-gone; status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
	if stdout, _, last := output(t, env, &telexecv1.StreamOutputRequest{CommandId: id}); stdout != "done\n" || last.GetExitCode() != 0 {
		t.Errorf("%q %v", stdout, last)
	}
}
