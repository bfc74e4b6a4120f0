package mcpcheck

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// wait is more than a short command takes.
var wait = durationpb.New(30 * time.Second)

// start starts a command on the host of the environment, or in a session there, as
// another client of the service, and gives its id. It waits only if req says so.
func start(t *testing.T, env *testenv.Env, req *telexecv1.ExecuteRequest) (id string) {
	t.Helper()
	if req.GetSession() == "" {
		req.Host = env.Host
	}
	if req.GetWait() == nil {
		req.Wait = durationpb.New(0)
	}
	r, err := env.Commands().Execute(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return r.GetCommand().GetId()
}

// begin starts a command that says when it is ready, and returns when it has.
func begin(t *testing.T, env *testenv.Env, req *telexecv1.ExecuteRequest) (id string) {
	t.Helper()
	id = start(t, env, req)
	stream, err := env.Commands().StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			t.Fatalf("%s printed nothing: %v", req.GetCommand(), err)
		}
		if event.GetChunk() != nil {
			return id
		}
	}
}

// end waits for the end of a command, and gives it with its standard output.
func end(t *testing.T, env *testenv.Env, id string) (*telexecv1.Command, string) {
	t.Helper()
	for {
		r, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: id, Wait: wait})
		if err != nil {
			t.Fatal(err)
		}
		if r.GetCommand().GetEndTime() != nil {
			return r.GetCommand(), string(r.GetStdout().GetData())
		}
	}
}
