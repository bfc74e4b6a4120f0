package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

const (
	lostLine = "telexec: the service has lost the connection to web1; command " + someID + " goes on there, reconnecting"
	backLine = "telexec: the connection to web1 is back; command " + someID + " is followed on"
)

// hostGoesAway tells of a command whose host is away for a while.
func hostGoesAway() *scripted {
	return &scripted{
		execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return durableCommand(1, connected) },
		stream: func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			for _, e := range []*telexecv1.StreamOutputResponse{
				commandEvent(durableCommand(2, connected)), outputEvent(0, "one\n"),
				commandEvent(durableCommand(3, away)), commandEvent(durableCommand(4, away)),
				commandEvent(durableCommand(5, connected)), outputEvent(4, "two\n"),
				endedEvent(completed(6)),
			} {
				if err := s.Send(e); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func TestHostThatGoesAwayIsTold(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   string
		stderr string
	}{
		{"run", "run web1 true", lostLine + "\n" + backLine + "\n"},
		{"run quietly", "run --quiet web1 true", ""},
		{"run for a program", "run --json web1 true", ""},
		{"logs", "logs -f " + someID, lostLine + "\n" + backLine + "\n"},
		{"logs quietly", "logs -q -f " + someID, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := hostGoesAway().start(t)
			code := i.run(t.Context(), strings.Fields(tt.args)...)
			if code != 0 || i.stderr.String() != tt.stderr {
				t.Errorf("code %d, stderr %q, want %q", code, i.stderr.String(), tt.stderr)
			}
			if out := i.stdout.String(); out != "one\ntwo\n" && strings.Count(out, "CONNECTION_RECONNECTING") != 2 {
				t.Errorf("stdout %q", out)
			}
		})
	}
}

// On a terminal it stands out, unless colours are not wanted.
func TestHostThatGoesAwayOnATerminal(t *testing.T) {
	for _, tt := range []struct{ noColour, lost string }{
		{"", "\x1b[33m" + lostLine + "\x1b[0m"}, {"1", lostLine},
	} {
		i := hostGoesAway().start(t)
		i.env["NO_COLOR"] = tt.noColour
		_, screen, wait := i.startOnTerminal(t, "run", "-n", "web1", "true")
		expect(t, screen, "one")
		expect(t, screen, tt.lost)
		expect(t, screen, "two")
		if code := wait(); code != 0 {
			t.Errorf("code %d", code)
		}
	}
}

// An end is told by the outcome alone, whatever the connection was before.
func TestLinkOfACommandThatEnds(t *testing.T) {
	var i invocation
	l := link{out: &printer{stderr: &i.stderr}}
	lost := durableCommand(2, away)
	l.watch(lost)
	lost.State = telexecv1.CommandState_COMMAND_STATE_LOST
	l.watch(lost)
	if i.stderr.String() != lostLine+"\n" {
		t.Errorf("%q", i.stderr.String())
	}
}

// Who leaves a command that lives on its host is told that it goes on there.
func TestLeavingADurableCommand(t *testing.T) {
	gone := make(chan struct{})
	s := &scripted{
		execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return durableCommand(1, connected) },
		stream: func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			_ = s.Send(commandEvent(durableCommand(1, connected)))
			_ = s.Send(outputEvent(0, "ready\n"))
			<-s.Context().Done()
			close(gone)
			return nil
		},
	}
	i := s.start(t)
	i.signals = make(chan os.Signal, 1)
	out, wait := i.start(t, "run", "web1", "sleep 600")
	expect(t, out, "ready")
	i.signals <- syscall.SIGTERM
	want := "telexec: command " + someID + " goes on without you, on web1 by itself: telexec logs -f " + someID +
		" is back with it, telexec cancel " + someID + " ends it\n"
	if code := wait(); code != 143 || i.stderr.String() != want {
		t.Errorf("code %d, %q", code, i.stderr.String())
	}
	<-gone
}

// Who detaches on a terminal is told the same; a script gets the id alone.
func TestDetachTellsHowToComeBack(t *testing.T) {
	i := hostGoesAway().start(t)
	_, screen, wait := i.startOnTerminal(t, "run", "-d", "web1", "true")
	expect(t, screen, someID)
	expect(t, screen, "telexec: telexec logs -f "+someID+" follows it, telexec cancel "+someID+" ends it")
	if code := wait(); code != 0 {
		t.Errorf("code %d", code)
	}
	if code := i.run(t.Context(), "run", "-d", "web1", "true"); code != 0 || i.stdout.String() != someID+"\n" || i.stderr.Len() > 0 {
		t.Errorf("code %d, %q, %q", code, i.stdout.String(), i.stderr.String())
	}
}

func TestCancelThatIsNotDone(t *testing.T) {
	pending := &telexecv1.CancelReport{Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_PENDING}
	for _, tt := range []struct {
		name string
		args string
		resp *telexecv1.CancelResponse
		out  string
		err  string
	}{
		{"host away", "", &telexecv1.CancelResponse{Command: durableCommand(2, away), Report: pending}, someID + "  pending\n",
			"telexec: web1 cannot be reached; the command goes on there, and is cancelled as soon as it can be: telexec status " + someID + " tells what came of it\n"},
		{"slow", "", &telexecv1.CancelResponse{Command: durableCommand(2, connected), Report: pending}, someID + "  pending\n",
			"telexec: the cancel goes on by itself: telexec status " + someID + " tells what came of it, telexec cancel " + someID + " asks once more\n"},
		{"quiet", "--quiet", &telexecv1.CancelResponse{Command: durableCommand(2, away), Report: pending}, someID + "  pending\n", ""},
		{"left", "", &telexecv1.CancelResponse{Command: durableCommand(2, connected), Report: &telexecv1.CancelReport{
			Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_LEFT, Left: []*telexecv1.Process{{Pid: 77, User: "root", Command: "backup", Why: "not permitted"}},
		}}, "process 77 of root, backup: not permitted\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := (&scripted{cancel: tt.resp}).start(t)
			code := i.run(t.Context(), append([]string{"cancel", someID}, strings.Fields(tt.args)...)...)
			if code != 1 || !strings.HasSuffix(i.stdout.String(), tt.out) || i.stderr.String() != tt.err {
				t.Errorf("code %d, stdout %q, stderr %q", code, i.stdout.String(), i.stderr.String())
			}
		})
	}
}

// A cancel by Ctrl-C tells the same, and goes on following.
func TestCtrlCWhileTheHostIsAway(t *testing.T) {
	cancelled := make(chan struct{})
	s := &scripted{
		execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return durableCommand(1, connected) },
		cancel: &telexecv1.CancelResponse{Command: durableCommand(3, away), Report: &telexecv1.CancelReport{
			Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_PENDING, Left: []*telexecv1.Process{{Pid: 77, User: "root", Command: "backup"}},
		}},
		stream: func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			_ = s.Send(commandEvent(durableCommand(2, away)))
			_ = s.Send(outputEvent(0, "ready\n"))
			<-cancelled
			c := completed(4)
			c.State, c.ExitCode = telexecv1.CommandState_COMMAND_STATE_CANCELLED, nil
			return s.Send(endedEvent(c))
		},
	}
	i := s.start(t)
	i.signals = make(chan os.Signal, 2)
	told := &untilText{text: "left: process 77 of root, backup\n", seen: cancelled}
	i.stderrTo = told
	out, wait := i.start(t, "run", "web1", "sleep 600")
	expect(t, out, "ready")
	i.signals <- os.Interrupt
	i.signals <- os.Interrupt
	if code := wait(); code != 130 {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{lostLine, "telexec: pending\n", "is cancelled as soon as it can be", "was cancelled"} {
		if !strings.Contains(told.String(), want) {
			t.Errorf("%q is not in %q", want, told.String())
		}
	}
}

func TestListOfWhatRuns(t *testing.T) {
	queued := &telexecv1.Command{Id: someID, Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_QUEUED, Command: "b"}
	attached := durableCommand(1, connected)
	attached.Durability = telexecv1.Durability_DURABILITY_ATTACHED
	i := (&scripted{list: []*telexecv1.Command{durableCommand(1, away), attached, queued}}).start(t)
	if code := i.run(t.Context(), "ps"); code != 0 {
		t.Fatalf("code %d: %s", code, i.stderr.String())
	}
	lines := strings.Split(i.stdout.String(), "\n")
	for n, want := range [][]string{
		{"ID", "HOST", "STATE", "DURABILITY", "CREATED"},
		{someID, "web1", "reconnecting", "durable"}, {someID, "web1", "running", "attached"}, {someID, "web1", "queued", "-"},
	} {
		if got := strings.Fields(lines[n]); len(got) < len(want) || strings.Join(got[:len(want)], " ") != strings.Join(want, " ") {
			t.Errorf("line %d is %q", n, lines[n])
		}
	}
}

func TestListOfWhatTellsItsProgress(t *testing.T) {
	installs := durableCommand(1, connected)
	installs.Progress = &telexecv1.Progress{Percent: 62.5, Label: "Setting up libc6"}
	for _, tt := range []struct {
		call string
		want [][]string
	}{
		{"ps", [][]string{{"DURABILITY", "PROGRESS", "CREATED"}, {"durable", "62.5 %"}, {"durable", "- "}}},
		{"history", [][]string{{"STATE", "EXIT", "CREATED"}}},
	} {
		i := (&scripted{list: []*telexecv1.Command{installs, durableCommand(1, connected)}}).start(t)
		if code := i.run(t.Context(), tt.call); code != 0 {
			t.Fatalf("code %d: %s", code, i.stderr.String())
		}
		lines := strings.Split(i.stdout.String(), "\n")
		for n, want := range tt.want {
			if !strings.Contains(strings.Join(strings.Fields(lines[n]), " "), strings.Join(want, " ")) {
				t.Errorf("%s: line %d is %q", tt.call, n, lines[n])
			}
		}
	}
}

func TestStateOfACommandThatIsNotSeen(t *testing.T) {
	cmd := durableCommand(1, away)
	if got := stateText(cmd); got != "reconnecting to web1; the command goes on there" {
		t.Errorf("%q", got)
	}
	cmd.Cancellation = &telexecv1.Cancellation{}
	if got := stateText(cmd); got != "cancelling, as soon as web1 can be reached; until then it goes on there" {
		t.Errorf("%q", got)
	}
}
