package main

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// What run would have exited with is what wait does, however often the service
// goes away meanwhile.
func TestWait(t *testing.T) {
	code := int32(7)
	for _, tt := range []struct {
		name string
		last *telexecv1.Command
		code int
		says string // on standard error; empty: nothing
	}{
		{"exit code", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, ExitCode: &code}, 7, ""},
		{"success", completed(9), 0, ""},
		{"cancelled", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_CANCELLED}, 130, "was cancelled"},
		{"lost", &telexecv1.Command{State: telexecv1.CommandState_COMMAND_STATE_LOST, Host: "web1"}, 125, "is lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &scripted{status: func(n int) (*telexecv1.Command, error) {
				switch n {
				case 1:
					return durableCommand(1, connected), nil // the longest wait was over
				case 2:
					return nil, status.Error(codes.Unavailable, "connection reset")
				case 3:
					return durableCommand(2, away), nil
				}
				return tt.last, nil
			}}
			i := s.start(t)
			got := i.run(t.Context(), "wait", someID)
			if got != tt.code || i.stdout.Len() > 0 || !strings.Contains(i.stderr.String(), tt.says) || tt.says == "" && i.stderr.Len() > 0 {
				t.Errorf("code %d, stdout %q, stderr %q", got, i.stdout.String(), i.stderr.String())
			}
			if s.statuses != 4 {
				t.Errorf("asked %d times", s.statuses)
			}
		})
	}
}

func TestWaitDoesNotComeBackWithoutBeingAskedTo(t *testing.T) {
	s := &scripted{status: func(n int) (*telexecv1.Command, error) {
		if n == 1 {
			return durableCommand(1, connected), nil
		}
		return nil, status.Error(codes.Unavailable, "connection reset")
	}}
	i := s.start(t)
	if code := i.run(t.Context(), "wait", "--retry-for", "0", someID); code != 125 || s.statuses != 2 {
		t.Errorf("code %d after %d questions, stderr %q", code, s.statuses, i.stderr.String())
	}
}

// A reader that has seen enough of the help is no error.
func TestHelpWhoseReaderGoesAway(t *testing.T) {
	for _, args := range []string{"run --help", "--help", "help run", "--version", ""} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		var i invocation
		code := run(t.Context(), Env{Stdout: w, Stderr: &i.stderr, Getenv: func(string) string { return "" }}, strings.Fields(args))
		w.Close()
		if code != 141 || i.stderr.Len() > 0 {
			t.Errorf("%q: code %d, stderr %q", args, code, i.stderr.String())
		}
	}
}
