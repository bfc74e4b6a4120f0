package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

func TestApprovalsList(t *testing.T) {
	d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade\x1b[2K")}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "approvals"), 0, []string{
		"ID ", "LEFT", someID + "  1 min ago  59 min  web1  ann via mcp  upgrades  0/1        apt upgrade\\x1b[2K\n",
	}, nil)
	if req := last[*telexecv1.ListApprovalsRequest](t, d); len(req.GetStates()) != 1 || req.GetMineToDecide() {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approvals", "--all", "--mine"), 0, []string{"STATE", "pending"}, nil)
	if req := last[*telexecv1.ListApprovalsRequest](t, d); len(req.GetStates()) != 0 || !req.GetMineToDecide() {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approvals", "list", "--json"), 0, []string{`"commandId":"` + someID + `"`}, nil)
}

func TestApprovalsShow(t *testing.T) {
	ap := waiting(someID, "apt upgrade\nrm \u202ex")
	ap.RequiredApprovals, ap.Approvals, ap.Roles = 2, 1, []string{"approver", "admin"}
	ap.StdinBytes, ap.StdinSha256 = 3, []byte{0xab}
	ap.Decisions = []*telexecv1.ApprovalDecision{
		{By: &telexecv1.Actor{Principal: "bob", Origin: telexecv1.Origin_ORIGIN_CLI}, Verdict: telexecv1.Verdict_VERDICT_APPROVE, Reason: "fine\nby me", Time: timestamppb.New(time.Now().Add(-90 * time.Second)), Revision: 1},
		{By: &telexecv1.Actor{Principal: "eve"}, Verdict: telexecv1.Verdict_VERDICT_MODIFY, Time: timestamppb.Now(), Revision: 1},
	}
	c := ap.GetCommand()
	c.SudoUser, c.WorkingDirectory, c.EnvNames, c.LoginShell = "root", "/srv", []string{"A", "B"}, true
	c.Timeout, c.StdinOpen, c.Labels, c.ActionType = durationpb.New(time.Minute), true, map[string]string{"app": "shop"}, "deploy"
	d := &desk{approvals: []*telexecv1.Approval{ap}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "approvals", "show", "T1V2W3"), 0, []string{
		"Approval      " + someID + "\n", "State         pending, by 2 approvers or admins, 1 of whom approved already, until ", "(59 min left)\n",
		"Host          web1\n", "As            root\n", "Command       | apt upgrade\n              | rm \\u202ex\n", "It holds characters that are not to be seen",
		"Directory     /srv\n", "Environment   A B\n", "Runs          in the login shell\n", "Timeout       1 min\n",
		"Input         3 B, SHA-256 ab\n", "more may be written", "Labels        app=shop\n", "Action        deploy\n", "Asked for by  ann via mcp\n",
		"Rule          upgrades\n", "Request       " + hex.EncodeToString(ap.GetRequestHash()) + ", revision 1\n",
		"Decision      approve by bob via cli, 1 min ago, of revision 1\n              | fine\n              | by me\n", "modify by eve",
		"You           may decide: telexec approve " + someID,
	}, nil)
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approvals", "show", someID, "--json"), 0, []string{`"requestHash": "`, `"canDecide": true`}, nil)

	ap = waiting(someID, "ls")
	ap.CanDecide, ap.CannotDecideReason = false, "you asked for it yourself"
	d.approvals[0] = ap
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approvals", "show", "approvals/"+someID), 0, []string{
		"You           may not decide: you asked for it yourself\n", "As            the login user", "Directory     the login directory", "Timeout       none\n",
		"by 1 approver, until ", "!Input", "!Environment",
	}, nil)
	ap.State, ap.DecideTime = telexecv1.ApprovalState_APPROVAL_STATE_REJECTED, timestamppb.Now()
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approvals", "show", someID), 0, []string{"State         rejected, ", "!You "}, nil)
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approvals", "show", otherID), 125, nil, []string{"nothing waits", "telexec approvals lists what waits"})
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approvals", "show", "ZZZZ"), 125, nil, []string{"none of the last 1 approvals", "telexec approvals --all"})
}

func TestApproveWithoutATerminal(t *testing.T) {
	d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade"), waiting(otherID, "apt update")}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "approve", someID), 125, nil, []string{"no terminal", "--yes"})

	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", "--reason", "go", someID, otherID, someID), 0, []string{
		someID + "  approved for web1  apt upgrade\n", otherID + "  approved for web1  apt update\n",
	}, nil)
	req := last[*telexecv1.DecideApprovalsRequest](t, d)
	if len(req.GetDecisions()) != 2 {
		t.Fatalf("%v", req)
	}
	for n, one := range req.GetDecisions() {
		if !bytes.Equal(one.GetRequestHash(), d.approvals[n].GetRequestHash()) || one.GetReason() != "go" || one.GetVerdict() != telexecv1.Verdict_VERDICT_APPROVE {
			t.Errorf("%v", one)
		}
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", "--json", someID, otherID), 0, []string{`"state":"APPROVAL_STATE_APPROVED"`}, nil)
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", "--json", someID), 0, []string{`"state": "APPROVAL_STATE_APPROVED"`}, nil)

	// Something else instead.
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", "--modify", "apt upgrade -s", someID), 0, []string{"modified; waits for another approver, until "}, nil)
	one := last[*telexecv1.DecideApprovalsRequest](t, d).GetDecisions()[0]
	if one.GetModified().GetCommand() != "apt upgrade -s" || one.GetVerdict() != telexecv1.Verdict_VERDICT_MODIFY || len(one.GetRequestHash()) == 0 {
		t.Errorf("%v", one)
	}

	// One of two.
	d.approvals[0].RequiredApprovals = 2
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", someID), 0, []string{"waits for more: 1/2 approvals, until "}, nil)
}

// What was shown is what is approved.
func TestApproveWhatWasShown(t *testing.T) {
	d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade")}}
	shown := hex.EncodeToString(d.approvals[0].GetRequestHash())
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", "--request-hash", shown, someID), 0, []string{"approved"}, nil)
	d.approvals[0] = waiting(someID, "apt upgrades")
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", "--request-hash", shown, someID), 125, []string{"!approved"}, []string{"has changed", "telexec approvals show"})
	for _, bad := range []string{"abc", strings.Repeat("a", 62), strings.Repeat("?", 44)} {
		i = d.sit(t)
		i.want(t, i.run(t.Context(), "approve", "--yes", "--request-hash", bad, someID), 125, nil, []string{"not a SHA-256"})
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", "--modify", "ls", someID, otherID), 125, nil, []string{"one approval at a time"})
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "approve", "--yes", otherID), 125, nil, []string{"nothing waits"})
}

// On a terminal each request is shown, and asked about.
func TestApproveOnATerminal(t *testing.T) {
	const more = "Modify " + someID + "? [y/N] "
	for _, tt := range []struct {
		name  string
		args  []string
		typed []string // for each question
		code  int
		shows string
		taken int // decisions
	}{
		{"yes", nil, []string{"y\r"}, 0, "approved for web1", 1},
		{"YES", nil, []string{" YES \r"}, 0, "approved for web1", 1},
		{"no", nil, []string{"n\r"}, 1, "nothing was decided", 0},
		{"Enter alone", nil, []string{"\r"}, 1, "nothing was decided", 0},
		{"the end of input", nil, []string{"\x04"}, 1, "nothing was decided", 0},
		{"something else", nil, []string{"yesterday\r"}, 1, "nothing was decided", 0},
		{"two", []string{otherID}, []string{"y\r", "y\r"}, 0, "approved for web1", 2},
		{"the second is refused", []string{otherID}, []string{"y\r", "n\r"}, 1, "nothing was decided", 0},
		{"something else instead", []string{"--modify", "true\u202e"}, []string{"y\r"}, 0, "modified; waits", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade"), waiting(otherID, "apt update")}}
			i := d.sit(t)
			keyboard, screen, wait := i.startOnTerminal(t, append([]string{"approve", someID}, tt.args...)...)
			for n, typed := range tt.typed {
				shown := until(t, screen, "[y/N] ")
				if line := d.approvals[n].GetCommand().GetCommand(); !strings.Contains(shown, line) || !strings.Contains(shown, "Request") {
					t.Errorf("%q is not shown: %q", line, shown)
				}
				if slices.Contains(tt.args, "--modify") && (!strings.Contains(shown, `true\u202e`) || !strings.HasSuffix(shown, more)) {
					t.Errorf("what is to run instead is not shown: %q", shown)
				}
				_, _ = keyboard.WriteString(typed)
			}
			until(t, screen, tt.shows)
			if code := wait(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if tt.taken > 0 {
				if n := len(last[*telexecv1.DecideApprovalsRequest](t, d).GetDecisions()); n != tt.taken {
					t.Errorf("%d decisions", n)
				}
				return
			}
			for _, req := range d.requests {
				if _, ok := req.(*telexecv1.DecideApprovalsRequest); ok {
					t.Error("something was decided")
				}
			}
		})
	}
}

func TestApproveIsInterrupted(t *testing.T) {
	d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade")}}
	i := d.sit(t)
	i.signals = make(chan os.Signal, 1)
	keyboard, screen, wait := i.startOnTerminal(t, "approve", someID)
	until(t, screen, "[y/N] ")
	i.signals <- syscall.SIGTERM
	if code := wait(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	_, _ = keyboard.WriteString("\r") // for the reader that was left behind
}

// Nobody is asked about what he may not decide.
func TestApproveWhatIsNotYours(t *testing.T) {
	d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade")}}
	d.approvals[0].CanDecide, d.approvals[0].CannotDecideReason = false, "you asked for it yourself"
	i := d.sit(t)
	_, screen, wait := i.startOnTerminal(t, "approve", someID)
	shown := until(t, screen, "not yours to approve now: you asked for it yourself")
	if code := wait(); code != 125 || strings.Contains(shown, "[y/N]") {
		t.Errorf("exit code %d, %q", code, shown)
	}
}

func TestReject(t *testing.T) {
	d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade"), waiting(otherID, "apt update")}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "reject", someID), 125, nil, []string{"--reason"})
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "reject", someID, otherID, "--reason", "no"), 0, []string{someID + "  rejected  apt upgrade\n", otherID + "  rejected"}, nil)
	req := last[*telexecv1.DecideApprovalsRequest](t, d)
	for _, one := range req.GetDecisions() {
		if one.GetVerdict() != telexecv1.Verdict_VERDICT_REJECT || one.GetReason() != "no" || one.GetRequestHash() != nil {
			t.Errorf("%v", one)
		}
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "reject", "x", "--reason", "no"), 125, nil, []string{"not the id"})
}

// awaiting is a command that waits for approval.
func awaiting(version int64, have int32) *telexecv1.Command {
	return &telexecv1.Command{
		Id: someID, Version: version, Host: "web1", State: telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL, PolicyRule: "upgrades",
		AwaitedApproval: &telexecv1.AwaitedApproval{RequiredApprovals: 2, Approvals: have, Roles: []string{"approver"}, ExpireTime: timestamppb.New(time.Now().Add(time.Hour))},
	}
}

// A command that waits for approval is followed: what it waits for is told, each
// thing once.
func TestRunWaitsForApproval(t *testing.T) {
	s := &scripted{
		execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return awaiting(1, 0) },
		stream: func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			return errors.Join(s.Send(commandEvent(awaiting(1, 0))), s.Send(commandEvent(awaiting(2, 1))), s.Send(commandEvent(durableCommand(3, connected))),
				s.Send(outputEvent(0, "out\n")), s.Send(endedEvent(completed(4))))
		},
	}
	i := s.start(t)
	i.want(t, i.run(t.Context(), "run", "web1", "apt", "upgrade"), 0, []string{"out\n"}, []string{
		"telexec: " + someID + " waits for approval by 2 approvers until ", " (rule upgrades): telexec approvals show " + someID + "\n", ", 1 of whom approved already until ",
		"telexec: " + someID + " is approved\n",
	})
	if n := strings.Count(i.stderr.String(), "waits for approval"); n != 2 {
		t.Errorf("told %d times:\n%s", n, i.stderr.String())
	}
	i = s.start(t)
	i.want(t, i.run(t.Context(), "run", "--quiet", "web1", "apt", "upgrade"), 0, []string{"out\n"}, nil)
	i = s.start(t)
	i.want(t, i.run(t.Context(), "logs", "-f", someID), 0, []string{"out\n"}, []string{"waits for approval by 2 approvers until ", "is approved"})
	i = s.start(t)
	i.want(t, i.run(t.Context(), "run", "--detach", "web1", "apt", "upgrade"), 0, []string{someID + "\n"}, []string{"waits for approval"})
}

// Who asked is told that something else runs.
func TestRunIsApprovedAsSomethingElse(t *testing.T) {
	asked, runs := awaiting(1, 0), durableCommand(2, connected)
	asked.Command, runs.Command = "apt upgrade", "apt upgrade -s\x1b"
	s := &scripted{
		execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return asked },
		stream: func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			return errors.Join(s.Send(commandEvent(runs)), s.Send(endedEvent(completed(3))))
		},
	}
	i := s.start(t)
	i.want(t, i.run(t.Context(), "run", "web1", "apt", "upgrade"), 0, nil, []string{"is approved, but as something else: apt upgrade -s\\x1b\n"})
}

func TestRunIsNotApproved(t *testing.T) {
	for state, failure := range map[telexecv1.CommandState]*telexecv1.Failure{
		telexecv1.CommandState_COMMAND_STATE_REJECTED: {Reason: "REJECTED", Message: "bob has rejected it: not on a Friday"},
		telexecv1.CommandState_COMMAND_STATE_EXPIRED:  {Reason: "APPROVAL_EXPIRED", Message: "nobody decided in time"},
	} {
		s := &scripted{
			execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return awaiting(1, 0) },
			stream: func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
				return s.Send(endedEvent(&telexecv1.Command{Id: someID, Host: "web1", Version: 2, State: state, Failure: failure}))
			},
		}
		i := s.start(t)
		i.want(t, i.run(t.Context(), "run", "web1", "apt"), 125, nil, []string{"waits for approval", "!is approved", "telexec: web1: " + failure.GetMessage() + " [" + failure.GetReason() + "]\n"})
	}
}

// Nothing runs that could be interrupted: the first Ctrl-C withdraws the command.
func TestCtrlCWhileItWaitsForApproval(t *testing.T) {
	gone := make(chan struct{})
	s := &scripted{
		execute: func(int, *telexecv1.ExecuteRequest) *telexecv1.Command { return awaiting(1, 0) },
		stream: func(s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			<-gone
			return s.Send(endedEvent(&telexecv1.Command{Id: someID, Host: "web1", Version: 2, State: telexecv1.CommandState_COMMAND_STATE_CANCELLED}))
		},
		cancel: &telexecv1.CancelResponse{Report: &telexecv1.CancelReport{Outcome: telexecv1.CancelOutcome_CANCEL_OUTCOME_NEVER_STARTED}},
	}
	i := s.start(t)
	i.signals = make(chan os.Signal, 1)
	told := &untilText{text: "waits for approval", seen: make(chan struct{})}
	answered := &untilText{text: "never started", seen: make(chan struct{})}
	i.stderrTo = io.MultiWriter(told, answered)
	_, wait := i.start(t, "run", "web1", "apt")
	<-told.seen
	i.signals <- os.Interrupt
	<-answered.seen
	close(gone)
	if code := wait(); code != 130 {
		t.Errorf("exit code %d\n%s", code, answered.String())
	}
}

func TestStatusOfWhatWaits(t *testing.T) {
	s := &scripted{status: func(int) (*telexecv1.Command, error) { return awaiting(1, 0), nil }}
	i := s.start(t)
	i.want(t, i.run(context.WithoutCancel(t.Context()), "status", someID), 0, []string{
		"State         awaiting_approval\n              waits for approval by 2 approvers until ", "telexec approvals show " + someID, "Rule          upgrades\n",
	}, nil)
}

// Of a step the whole plan is shown, on which hosts it runs, and what takes it back; and
// none of it can pass for something else.
func TestApprovalOfAStep(t *testing.T) {
	step := func(name, line, undo string, hosts ...string) *telexecv1.Step {
		s := &telexecv1.Step{Name: name, Command: line, Undo: undo, State: telexecv1.StepState_STEP_STATE_PENDING}
		for _, h := range hosts {
			s.Runs = append(s.Runs, &telexecv1.StepRun{Host: h})
		}
		return s
	}
	task := &telexecv1.Task{
		Id: someID, Task: "roll out\nStep 9  harmless", State: telexecv1.TaskState_TASK_STATE_AWAITING_APPROVAL,
		Steps: []*telexecv1.Step{
			step("drain", "lbctl drain", "", "web1"),
			step("upgrade", "apt upgrade\nrm -rf /x", "apt downgrade\u202e", "web1", "web2", "web3"),
			step("migrate", "./migrate", "", ""),
		},
	}
	task.Steps[2].Session, task.Steps[2].NeedsApproval = "deploy", true
	task.Steps[1].Rollout = &telexecv1.Rollout{Canary: 1, Parallel: 2}
	ap := &telexecv1.Approval{
		CommandId: someID, State: telexecv1.ApprovalState_APPROVAL_STATE_PENDING, RequiredApprovals: 1, Task: task, Step: "upgrade", CanDecide: true,
		Command: &telexecv1.Command{Host: "web1", Command: task.Steps[1].GetCommand()},
	}
	d := &desk{approvals: []*telexecv1.Approval{ap}}
	i := d.sit(t)
	code := i.run(t.Context(), "approvals", "show", someID)
	for _, want := range []string{
		"Task          | roll out\n              | Step 9  harmless\n",
		"Step          upgrade, number 2 of 3; 1 first, 2 at once\n",
		"Host          web1\nand on        web2 web3\n",
		"Command       | apt upgrade\n              | rm -rf /x\nUndo          apt downgrade\\u202e\n",
		"Step 1        drain on web1, pending\n  runs        lbctl drain\n",
		"Step 2        upgrade on web1 web2 web3, pending; this one\n",
		"Step 3        migrate in session deploy, pending; needs approval\n",
	} {
		if code != 0 || !strings.Contains(i.stdout.String(), want) {
			t.Errorf("code %d, no\n%s\nin\n%s%s", code, want, i.stdout.String(), i.stderr.String())
		}
	}
	i.stdout.Reset()
	if i.run(t.Context(), "approvals"); !strings.Contains(i.stdout.String(), "web1 +2") || !strings.Contains(i.stdout.String(), "upgrade of roll out") {
		t.Errorf("list:\n%s", i.stdout.String())
	}
	ap.Undoes, ap.Command.Command = true, "apt downgrade"
	i.stdout.Reset()
	if i.run(t.Context(), "approvals", "show", someID); !strings.Contains(i.stdout.String(), "number 2 of 3; this is what takes it back\n") ||
		strings.Contains(i.stdout.String(), "and on") || strings.Contains(i.stdout.String(), "\nUndo ") {
		t.Errorf("undo:\n%s", i.stdout.String())
	}
	ap.Undoes, ap.Step = false, "migrate"
	i.stdout.Reset()
	if i.run(t.Context(), "approvals", "show", someID); !strings.Contains(i.stdout.String(), "Step          migrate, number 3 of 3, in session deploy; needs approval\n") {
		t.Errorf("in a session:\n%s", i.stdout.String())
	}
}
