package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// startProcess runs telexec as a process of its own on a terminal of its own:
// what is typed there may be a signal to it.
func (i *invocation) startProcess(t *testing.T, args ...string) (keyboard *os.File, screen *bufio.Reader, wait func() int) {
	t.Helper()
	keyboard, tty := openTerminal(t)
	cmd := exec.CommandContext(t.Context(), "telexec", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=dumb"}
	for name, value := range i.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return keyboard, bufio.NewReader(keyboard), func() int {
		err := cmd.Wait()
		if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
			t.Error(err)
		}
		return cmd.ProcessState.ExitCode()
	}
}

// Until the command runs the terminal is an ordinary one, so that it can be left.
func TestCtrlCOnATerminalBeforeTheCommandRuns(t *testing.T) {
	queued := &telexecv1.Command{Id: someID, Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_QUEUED, Queue: &telexecv1.Queue{Position: 2, WaitsFor: "host"}}
	for _, tt := range []struct {
		name string
		cmd  *telexecv1.Command
		told []string // each is waited for before the next Ctrl-C
	}{
		{"it waits for approval", awaiting(1, 0), []string{"waits for approval"}},
		{"it is queued", queued, []string{"waits on web1", "Ctrl-C again cancels it"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withdrawn := make(chan struct{})
			s := &scripted{
				execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return tt.cmd },
				stream: func(out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
					select {
					case <-withdrawn:
					case <-out.Context().Done():
						return out.Context().Err()
					}
					return out.Send(endedEvent(&telexecv1.Command{Id: someID, Version: 9, Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_CANCELLED}))
				},
				cancel:    &telexecv1.CancelResponse{Report: &telexecv1.CancelReport{Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_NEVER_STARTED}},
				cancelled: sync.OnceFunc(func() { close(withdrawn) }),
			}
			keyboard, screen, wait := s.start(t).startProcess(t, "run", "-t", "web1", "top")
			for _, text := range tt.told {
				until(t, screen, text)
				_, _ = keyboard.WriteString("\x03")
			}
			until(t, screen, "was cancelled")
			if code := wait(); code != 130 {
				t.Errorf("code %d", code)
			}
		})
	}
}

// What is typed before the command runs is typed ahead, as in a shell; what ends
// input there is no key of the command's. From then on every key is.
func TestTypedBeforeTheCommandRuns(t *testing.T) {
	approved := make(chan struct{})
	done := make(chan struct{})
	came := make(chan []byte, 100)
	var taken int64
	s := &scripted{
		execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return awaiting(1, 0) },
		stream: func(out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			select {
			case <-approved:
			case <-out.Context().Done():
				return out.Context().Err()
			}
			if err := out.Send(commandEvent(durableCommand(2, connected))); err != nil {
				return err
			}
			select {
			case <-done:
			case <-out.Context().Done():
				return out.Context().Err()
			}
			return out.Send(endedEvent(completed(3)))
		},
		input: func(req *telexecv1.SendInputRequest) *telexecv1.SendInputResponse {
			taken += int64(len(req.GetData()))
			came <- req.GetData()
			return &telexecv1.SendInputResponse{StdinBytes: taken}
		},
	}
	expectInput := func(want string) {
		t.Helper()
		var got []byte
		for deadline := time.After(20 * time.Second); len(got) < len(want); {
			select {
			case data := <-came:
				got = append(got, data...)
			case <-deadline:
				t.Fatalf("the command got %q, want %q", got, want)
			}
		}
		if !bytes.Equal(got, []byte(want)) {
			t.Errorf("the command got %q, want %q", got, want)
		}
	}
	keyboard, screen, wait := s.start(t).startOnTerminal(t, "run", "-t", "web1", "sh")
	until(t, screen, "waits for approval")
	_, _ = keyboard.WriteString("one\r\x04two")
	until(t, screen, "two") // the terminal has taken it all
	close(approved)
	expectInput("one\ntwo")
	_, _ = keyboard.WriteString("\x03\x04\x00")
	expectInput("\x03\x04\x00")
	close(done)
	if code := wait(); code != 0 {
		t.Errorf("code %d", code)
	}
}

// A terminal that is left is as it was, whatever the command does later.
func TestTerminalIsAsItWas(t *testing.T) {
	keyboard, tty := openTerminal(t)
	a := &app{env: Env{Stdin: tty, Stdout: tty, Stderr: &lockedWriter{w: tty}, Getenv: func(string) string { return "" }}}
	a.out = newPrinter(a.env)
	f := &follower{app: a, input: tty}
	if err := f.terminal(a.env, &telexecv1.ExecuteRequest{}); err != nil {
		t.Fatal(err)
	}
	screen := bufio.NewReader(keyboard)
	told := func(want string) {
		t.Helper()
		a.out.tell("x")
		_, _ = tty.WriteString("y\n")
		if got := until(t, screen, "y") + until(t, screen, "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	told("telexec: x\r\ny\r\n")
	f.keys.begin()
	f.keys.begin()
	told("telexec: x\r\ny\n")
	f.keys.end()
	f.keys.begin()
	told("telexec: x\r\ny\r\n")
}
