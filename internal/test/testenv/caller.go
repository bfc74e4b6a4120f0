package testenv

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"time"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/secret"
)

// cliLimit is how long a run of the command line may take.
const cliLimit = time.Minute

// Key makes an API key with these roles for the principal of that name, and gives
// its token. There must not be one of this name already.
func (e *Env) Key(name string, roles ...string) secret.Text {
	e.t.Helper()
	made, err := e.Admin().CreateToken(e.t.Context(), &telexecv1.CreateTokenRequest{Principal: name, Roles: roles})
	if err != nil {
		e.t.Fatalf("a key for %s: %v", name, err)
	}
	return secret.New(made.GetSecret())
}

// As is a connection to the gRPC port that carries this token; one that is zero
// carries none. It lasts over restarts, and is closed at the end of the test.
func (e *Env) As(token secret.Text) *grpc.ClientConn {
	e.t.Helper()
	var conn *grpc.ClientConn
	if token.IsZero() {
		conn = e.Dial(nil)
	} else {
		conn = e.Dial(bearer{token})
	}
	e.t.Cleanup(func() { conn.Close() })
	return conn
}

// Said is what a run of the command line came to.
type Said struct {
	Stdout, Stderr string
	Code           int // exit code
}

// CLI runs the real telexec for the holder of the token until it ends, for a
// minute at most. It may be called from any goroutine; build the program before,
// by a call of Build.
func (e *Env) CLI(ctx context.Context, token secret.Text, args ...string) (Said, error) {
	ctx, cancel := context.WithTimeout(ctx, cliLimit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, Build(e.t, "telexec"), args...)
	cmd.Env = append(e.environment(), "TELEXEC_SERVER="+e.GRPCAddr, "TELEXEC_TOKEN="+token.Reveal())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	said := Said{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	if _, ended := errors.AsType[*exec.ExitError](err); ended && ctx.Err() == nil {
		err = nil
	}
	return said, err
}
