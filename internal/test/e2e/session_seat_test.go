package e2e

import (
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// has reports whether this machine has a program.
func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// openOn opens a session as it is asked for, on a host that keeps nothing when the test
// is over.
func openOn(t *testing.T, env *testenv.Env, r *telexecv1.OpenSessionRequest) *shared {
	t.Helper()
	s := &shared{T: t, env: env, api: telexecv1.NewSessionServiceClient(env.Conn()), name: r.GetName()}
	if _, err := s.api.OpenSession(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return s
}

// get gives the session as it is.
func (s *shared) get() *telexecv1.Session {
	s.Helper()
	r, err := s.api.GetSession(s.Context(), &telexecv1.GetSessionRequest{Session: s.name}, grpc.WaitForReady(true))
	if err != nil {
		s.Fatal(err)
	}
	return r.GetSession()
}

// text gives the screen.
func (s *shared) text() *telexecv1.ReadScreenResponse {
	s.Helper()
	r, err := s.api.ReadScreen(s.Context(), &telexecv1.ReadScreenRequest{Session: s.name})
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// screen gives the lines of the screen.
func (s *shared) screen() []string { s.Helper(); return s.text().GetLines() }

// showsUntil waits for 20 s at most until the screen is as it should be.
func (s *shared) showsUntil(is func(*telexecv1.ReadScreenResponse) bool) bool {
	s.Helper()
	return comesTrue(s, 20*time.Second, func() bool { return is(s.text()) })
}
