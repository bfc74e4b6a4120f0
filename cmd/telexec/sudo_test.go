package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

func TestSudoPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(" from file \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fromEnv := map[string]string{sudoPasswordVariable: "from env"}
	for _, tt := range []struct {
		name     string
		c        runCmd
		env      map[string]string
		stdin    io.Reader
		user     string // empty: no sudo
		password string
		fails    string // a part of the error
	}{
		{name: "none", env: fromEnv},
		{name: "root", c: runCmd{Sudo: true}, user: "root"},
		{name: "somebody", c: runCmd{SudoUser: "deploy"}, user: "deploy"},
		{name: "both", c: runCmd{Sudo: true, SudoUser: "deploy"}, user: "deploy"},
		{name: "environment", c: runCmd{Sudo: true}, env: fromEnv, user: "root", password: "from env"},
		{name: "file before environment", c: runCmd{Sudo: true, SudoPasswordFile: file}, env: fromEnv, user: "root", password: " from file "},
		{name: "first line of stdin", c: runCmd{Sudo: true, SudoPasswordFile: "-"}, stdin: strings.NewReader("piped\nrest"), user: "root", password: "piped"},
		{name: "only line of stdin", c: runCmd{Sudo: true, SudoPasswordFile: "-"}, stdin: iotest.DataErrReader(strings.NewReader("piped")), user: "root", password: "piped"},
		{name: "no stdin", c: runCmd{Sudo: true, SudoPasswordFile: "-"}, fails: "is empty"},
		{name: "stdin without a line", c: runCmd{Sudo: true, SudoPasswordFile: "-"}, stdin: strings.NewReader(strings.Repeat("x", 1<<20)), fails: "too long"},
		{name: "stdin that fails", c: runCmd{Sudo: true, SudoPasswordFile: "-"}, stdin: iotest.ErrReader(errors.New("boom")), fails: "boom"},
		{name: "no file", c: runCmd{Sudo: true, SudoPasswordFile: "/does/not/exist"}, fails: "cannot read the password"},
		{name: "empty file", c: runCmd{Sudo: true, SudoPasswordFile: empty}, fails: "is empty"},
		{name: "password without sudo", c: runCmd{SudoPasswordFile: file}, fails: "is for a command that runs through sudo"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &app{env: Env{Stdin: tt.stdin, Getenv: func(name string) string { return tt.env[name] }}}
			s, err := tt.c.sudo(a)
			if (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Fatalf("error %v, want %q", err, tt.fails)
			}
			if err == nil && (s.GetUser() != tt.user || s.GetPassword() != tt.password) {
				t.Errorf("user %q, password %q", s.GetUser(), s.GetPassword())
			}
			if rest, ok := tt.stdin.(*strings.Reader); ok && tt.password == "piped" && rest.Len() != len("rest") {
				t.Errorf("%d bytes are left for the command", rest.Len())
			}
		})
	}
}

// sudoWants tells of a host on which sudo wants a password.
func sudoWants(password string) *scripted {
	var last *telexecv1.Command
	return &scripted{
		execute: func(n int, req *telexecv1.ExecuteRequest) *telexecv1.Command {
			last = completed(int64(n))
			if req.GetSudo().GetPassword() != password {
				last.State, last.ExitCode = telexecv1.CommandState_COMMAND_STATE_FAILED, nil
				last.Failure = &telexecv1.Failure{Reason: sudoRefused, Message: "sudo wants a password"}
			}
			return last
		},
		stream: func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			return s.Send(endedEvent(last))
		},
	}
}

// until reads the screen up to a text.
func until(t *testing.T, screen *bufio.Reader, text string) (read string) {
	t.Helper()
	for !strings.HasSuffix(read, text) {
		b, err := screen.ReadByte()
		if err != nil {
			t.Fatalf("waiting for %q: %q, %v", text, read, err)
		}
		read += string(b)
	}
	return read
}

const question = "telexec: password for sudo on web1: "

// Where sudo wants a password and somebody is at the terminal, he is asked, and
// the command is tried once more.
func TestSudoAsks(t *testing.T) {
	s := sudoWants("hunter2")
	i := s.start(t)
	keyboard, screen, wait := i.startOnTerminal(t, "run", "--sudo", "web1", "id")
	shown := until(t, screen, question)
	if !strings.Contains(shown, "sudo wants a password [SUDO_REFUSED]") {
		t.Errorf("%q", shown)
	}
	_, _ = keyboard.WriteString("hunter2\r")
	until(t, screen, "\n")
	if code := wait(); code != 0 {
		t.Errorf("code %d", code)
	}
	requests := s.requests()
	if len(requests) != 2 || requests[0].GetSudo().GetPassword() != "" || requests[1].GetSudo().GetPassword() != "hunter2" ||
		requests[1].GetSudo().GetUser() != "root" || requests[0].GetRequestId() == requests[1].GetRequestId() {
		t.Errorf("%v", requests)
	}
}

// What is typed is not shown, and a wrong password is an end as any other.
func TestSudoAsksOnce(t *testing.T) {
	s := sudoWants("hunter2")
	i := s.start(t)
	keyboard, screen, wait := i.startOnTerminal(t, "run", "--sudo", "--sudo-password-file", "-", "web1", "id")
	until(t, screen, question)
	_, _ = keyboard.WriteString("wrong\r")
	shown := until(t, screen, "[SUDO_REFUSED]")
	if code := wait(); code != 125 || strings.Contains(shown, "wrong") {
		t.Errorf("code %d, %q", code, shown)
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestSudoAsksAndNobodyAnswers(t *testing.T) {
	for _, tt := range []struct {
		name string
		act  func(i *invocation, keyboard *os.File)
		code int
	}{
		{"Enter alone", func(_ *invocation, keyboard *os.File) { _, _ = keyboard.WriteString("\r") }, 125},
		{"Ctrl-D", func(_ *invocation, keyboard *os.File) { _, _ = keyboard.WriteString("\x04") }, 130},
		{"Ctrl-C", func(_ *invocation, keyboard *os.File) { _, _ = keyboard.WriteString("\x03") }, 130},
		{"SIGTERM", func(i *invocation, _ *os.File) { i.signals <- syscall.SIGTERM }, 143},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := sudoWants("hunter2")
			i := s.start(t)
			i.signals = make(chan os.Signal, 1)
			keyboard, screen, wait := i.startOnTerminal(t, "run", "--sudo", "web1", "id")
			until(t, screen, question)
			tt.act(i, keyboard)
			if code := wait(); code != tt.code {
				t.Errorf("code %d, want %d", code, tt.code)
			}
			if n := len(s.requests()); n != 1 {
				t.Errorf("%d requests", n)
			}
			_, _ = keyboard.WriteString("\r") // for the reader that a signal has left behind
		})
	}
}

// Nobody is asked where nobody is, where a program reads along, or where the
// second request would contradict the first.
func TestSudoDoesNotAsk(t *testing.T) {
	refused := &telexecv1.Command{Failure: &telexecv1.Failure{Reason: sudoRefused}}
	_, tty := openTerminal(t)
	for name, tt := range map[string]struct {
		c     runCmd
		req   *telexecv1.ExecuteRequest
		cmd   *telexecv1.Command
		json  bool
		stdin io.Reader
		want  bool
	}{
		"somebody is there":      {req: &telexecv1.ExecuteRequest{}, cmd: refused, stdin: tty, want: true},
		"no terminal":            {req: &telexecv1.ExecuteRequest{}, cmd: refused, stdin: strings.NewReader("")},
		"a program":              {req: &telexecv1.ExecuteRequest{}, cmd: refused, stdin: tty, json: true},
		"had a password":         {req: &telexecv1.ExecuteRequest{Sudo: &telexecv1.Sudo{Password: "x"}}, cmd: refused, stdin: tty},
		"a request id":           {c: runCmd{RequestID: "r"}, req: &telexecv1.ExecuteRequest{}, cmd: refused, stdin: tty},
		"another failure":        {req: &telexecv1.ExecuteRequest{}, cmd: &telexecv1.Command{Failure: &telexecv1.Failure{Reason: "NO_SPACE"}}, stdin: tty},
		"it has run":             {req: &telexecv1.ExecuteRequest{}, cmd: &telexecv1.Command{Failure: refused.GetFailure(), StartTime: timestamppb.Now()}, stdin: tty},
		"nothing is known of it": {req: &telexecv1.ExecuteRequest{}, stdin: tty},
	} {
		a := &app{env: Env{Stdin: tt.stdin}, opts: globals{JSON: tt.json}}
		if _, got := tt.c.mayAsk(a, tt.req, tt.cmd); got != tt.want {
			t.Errorf("%s: asks %v", name, got)
		}
	}
}
