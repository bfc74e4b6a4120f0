package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

const (
	awaiting = telexecv1.CommandState_COMMAND_STATE_AWAITING_APPROVAL
	queued   = telexecv1.CommandState_COMMAND_STATE_QUEUED
	starting = telexecv1.CommandState_COMMAND_STATE_STARTING
	running  = telexecv1.CommandState_COMMAND_STATE_RUNNING
	rejected = telexecv1.CommandState_COMMAND_STATE_REJECTED
	expired  = telexecv1.CommandState_COMMAND_STATE_EXPIRED
)

// rulesOfApproval ask one approver, two, and one who must be quick.
const rulesOfApproval = `policy:
  rules:
    - {name: one, effect: require_approval, match: {programs: [factor]}}
    - {name: two, effect: require_approval, match: {programs: [cksum]}, approval: {count: 2}}
    - {name: quick, effect: require_approval, match: {programs: [logname]}, approval: {timeout: 1s}}
`

// desk is where an agent asks and approvers decide, by the real programs.
type desk struct {
	*testing.T
	env   *testenv.Env
	token map[string]secret.Text
	ran   string // a directory in which commands leave their traces
}

// TestApprovalStory tells what becomes of commands that a rule wants approved, on
// one service for all chapters.
func TestApprovalStory(t *testing.T) {
	t.Parallel()
	server := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), MaxSessions: 10})
	narrow := server.Host("narrow")
	narrow.MaxCommands = 1
	env := testenv.Start(t, testenv.WithHosts(narrow), testenv.WithConfig(rulesOfApproval))
	dir, err := os.MkdirTemp("", "telexec-approvals-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{T: t, env: env, ran: dir, token: map[string]secret.Text{
		"": env.Token, "agent": env.Key("agent", "operator"), anna: env.Key(anna, "approver"), bert: env.Key(bert, "approver"),
		"both": env.Key("both", "operator", "approver"),
	}}
	for _, chapter := range []struct {
		name string
		tell func(*desk)
	}{
		{"watched from beginning to end", (*desk).watched},
		{"asked for by the command line", (*desk).byCLI},
		{"rejected", (*desk).rejects},
		{"nobody decides", (*desk).expires},
		{"two approvers", (*desk).twoApprovers},
		{"nobody approves their own", (*desk).own},
		{"a batch is decided whole or not at all", (*desk).batch},
		{"the service is killed while it waits", (*desk).killed},
		{"new rules", (*desk).reload},
	} {
		t.Run(chapter.name, func(t *testing.T) {
			in := *d
			in.T = t
			chapter.tell(&in)
		})
	}
	if said := d.cli("", "audit", "verify"); said.Code != 0 || !strings.HasPrefix(said.Stdout, "intact, ") {
		t.Errorf("audit verify: %+v", said)
	}
}

// cli runs telexec for one of the people.
func (d *desk) cli(who string, args ...string) testenv.Said {
	d.Helper()
	said, err := d.env.CLI(d.Context(), d.token[who], args...)
	if err != nil {
		d.Fatalf("telexec %s: %v\n%s%s", strings.Join(args, " "), err, said.Stdout, said.Stderr)
	}
	return said
}

// trace gives what is added to a command line so that each run of it is counted.
func (d *desk) trace(name string) string { return "; echo ran >> " + filepath.Join(d.ran, name) }

// runs gives how often a traced command has run.
func (d *desk) runs(name string) int {
	d.Helper()
	b, err := os.ReadFile(filepath.Join(d.ran, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.Fatal(err)
	}
	return bytes.Count(b, []byte("ran\n"))
}

// ask begins a command by REST as the agent, and checks that it waits.
func (d *desk) ask(host, line string) (id string) {
	d.Helper()
	a := rest(d, d.env, "POST", "/v1/commands", fmt.Sprintf(`{"host": %q, "command": %q}`, host, line), "Authorization", "Bearer "+d.token["agent"].Reveal())
	var r struct {
		Command struct {
			ID, State, PolicyRule string
			AwaitedApproval       struct{ RequiredApprovals int }
		}
	}
	if err := unmarshal(a, &r); err != nil || r.Command.State != awaiting.String() || r.Command.PolicyRule == "" || r.Command.AwaitedApproval.RequiredApprovals == 0 {
		d.Fatalf("%s: %v: %s", line, err, a.body)
	}
	return r.Command.ID
}

// decided checks that the audit has these decisions about a command, oldest first,
// each "anna APPROVE".
func (d *desk) decided(id string, want ...string) {
	d.Helper()
	var got []string
	for e := range auditOf(d.Context(), d, d.env, &telexecv1.ListAuditEntriesRequest{CommandId: id, Kinds: []string{"approval.decided"}}) {
		got = append(got, e.GetBy().GetPrincipal()+" "+e.GetOutcome())
		if e.GetAddress() != "127.0.0.1" || len(e.GetRequestHash()) == 0 || e.GetHost() == "" || e.GetRule() == "" {
			d.Errorf("not told whole: %v", e)
		}
	}
	if slices.Reverse(got); !slices.Equal(got, want) {
		d.Errorf("the audit has the decisions %q, want %q", got, want)
	}
}

// watched: whoever watches sees each state.
func (d *desk) watched() {
	blocker := begin(d, d.env, &telexecv1.ExecuteRequest{Host: "narrow", Command: "sleep 1000"})
	id := d.ask("narrow", `factor 6; read -r x; echo "got $x"`+d.trace("watched"))
	conn := d.env.As(d.token["agent"])
	ctx, cancel := context.WithTimeout(d.Context(), 30*time.Second)
	defer cancel()
	s, err := telexecv1.NewCommandServiceClient(conn).StreamOutput(ctx, &telexecv1.StreamOutputRequest{CommandId: id, Follow: true})
	if err != nil {
		d.Fatal(err)
	}
	var states []telexecv1.CommandState
	var stdout strings.Builder
	reach := func(want telexecv1.CommandState) {
		d.Helper()
		for {
			m, err := s.Recv()
			if err != nil {
				d.Fatalf("before %v: %v; seen %v", want, err, states)
			}
			stdout.Write(m.GetChunk().GetData())
			c := m.GetCommand()
			if m.GetEnded() != nil {
				c = m.GetEnded()
			}
			if c == nil {
				continue
			}
			if n := len(states); n == 0 || states[n-1] != c.GetState() {
				states = append(states, c.GetState())
			}
			if c.GetState() == want {
				return
			}
		}
	}
	reach(awaiting)
	mine := d.cli(anna, "approvals", "--mine", "--json")
	if mine.Code != 0 || !strings.Contains(mine.Stdout, id) {
		d.Errorf("approvals --mine: %+v", mine)
	}
	if shown := d.cli(anna, "approvals", "show", id); !strings.Contains(shown.Stdout, `read -r x`) || !strings.Contains(shown.Stdout, "agent via rest") ||
		!strings.Contains(shown.Stdout, "may decide") {
		d.Errorf("approvals show: %+v", shown)
	}
	if said := d.cli(anna, "approve", "--yes", "--reason", "go on", id); said.Code != 0 || !strings.Contains(said.Stdout, "approved for narrow") {
		d.Errorf("approve: %+v", said)
	}
	reach(queued)
	if d.runs("watched") != 0 {
		d.Error("it ran before its turn")
	}
	if _, err := d.env.Commands().Cancel(d.Context(), &telexecv1.CancelRequest{CommandId: blocker, Grace: durationpb.New(0)}); err != nil {
		d.Fatal(err)
	}
	reach(completed)
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			d.Fatal(err)
		}
		stdout.Write(m.GetChunk().GetData())
	}
	if stdout.String() != "6: 2 3\ngot \n" || d.runs("watched") != 1 {
		d.Errorf("it ran %d times, and printed %q", d.runs("watched"), stdout.String())
	}
	want := []telexecv1.CommandState{awaiting, queued, starting, running, completed}
	if states = slices.DeleteFunc(states, func(s telexecv1.CommandState) bool { return s == starting }); !slices.Equal(states, slices.DeleteFunc(want, func(s telexecv1.CommandState) bool { return s == starting })) {
		d.Errorf("the watcher saw %v", states)
	}
	d.decided(id, anna+" APPROVE")
}

// byCLI: telexec run waits for the approval, and ends as the command does.
func (d *desk) byCLI() {
	ran := make(chan testenv.Said, 1) // one, from the run; never blocks
	line := "factor 10" + d.trace("cli") + "; exit 3"
	go func() {
		said, err := d.env.CLI(d.Context(), d.token["agent"], "run", d.env.Host, line)
		if err != nil {
			d.Errorf("run: %v", err)
		}
		ran <- said
	}()
	var id string
	if !comesTrue(d, 20*time.Second, func() bool {
		list, err := telexecv1.NewApprovalServiceClient(d.env.Conn()).ListApprovals(d.Context(), &telexecv1.ListApprovalsRequest{
			States: []telexecv1.ApprovalState{telexecv1.ApprovalState_APPROVAL_STATE_PENDING},
		})
		for _, a := range list.GetApprovals() {
			id = a.GetCommandId()
		}
		return err == nil && id != ""
	}) {
		d.Fatal("nothing waits")
	}
	if said := d.cli("agent", "approve", "--yes", id); said.Code == 0 {
		d.Errorf("the agent approves what it asked for: %+v", said)
	}
	if said := d.cli(bert, "approve", "--yes", id); said.Code != 0 {
		d.Errorf("approve: %+v", said)
	}
	said := <-ran
	if said.Code != 3 || said.Stdout != "10: 2 5\n" || !strings.Contains(said.Stderr, id+" waits for approval by 1 approver") || d.runs("cli") != 1 {
		d.Errorf("%+v; it ran %d times", said, d.runs("cli"))
	}
	d.decided(id, bert+" APPROVE")
}

func (d *desk) rejects() {
	id := d.ask(d.env.Host, "factor 6"+d.trace("rejected"))
	if said := d.cli(bert, "reject", "--reason", "not on a Friday", id); said.Code != 0 {
		d.Errorf("reject: %+v", said)
	}
	said := d.cli("agent", "wait", id)
	if said.Code != 125 || !strings.Contains(said.Stderr, "not on a Friday") {
		d.Errorf("wait: %+v", said)
	}
	d.never(id, rejected, fault.ReasonRejected, "rejected")
	if said := d.cli(anna, "approve", "--yes", id); said.Code == 0 {
		d.Errorf("approved behind its end: %+v", said)
	}
	d.decided(id, bert+" REJECT")
}

// never checks that a command has ended so and did not run.
func (d *desk) never(id string, state telexecv1.CommandState, reason, trace string) {
	d.Helper()
	got := await(d, d.env, id, ended)
	if got.GetState() != state || got.GetFailure().GetReason() != reason || got.GetStartTime() != nil || got.ExitCode != nil || d.runs(trace) != 0 {
		d.Errorf("it ran %d times: %v", d.runs(trace), got)
	}
}

func (d *desk) expires() {
	id := d.ask(d.env.Host, "logname"+d.trace("expired"))
	d.never(id, expired, fault.ReasonApprovalExpired, "expired")
	if said := d.cli(anna, "approve", "--yes", id); said.Code == 0 {
		d.Errorf("approved behind its end: %+v", said)
	}
	d.decided(id)
}

func (d *desk) twoApprovers() {
	id := d.ask(d.env.Host, "cksum /dev/null"+d.trace("two"))
	if said := d.cli(anna, "approve", "--yes", id); said.Code != 0 || !strings.Contains(said.Stdout, "1/2") {
		d.Errorf("the first: %+v", said)
	}
	// The same again is no second approval, nor is another word of the same person.
	if said := d.cli(anna, "approve", "--yes", id); said.Code != 0 || !strings.Contains(said.Stdout, "1/2") {
		d.Errorf("the first again: %+v", said)
	}
	if said := d.cli(anna, "approve", "--yes", "--reason", "really", id); said.Code == 0 {
		d.Errorf("the first once more: %+v", said)
	}
	if got := await(d, d.env, id, func(*telexecv1.Command) bool { return true }); got.GetState() != awaiting || got.GetAwaitedApproval().GetApprovals() != 1 || d.runs("two") != 0 {
		d.Errorf("with one of two: %v", got)
	}
	if said := d.cli(bert, "approve", "--yes", id); said.Code != 0 {
		d.Errorf("the second: %+v", said)
	}
	if got := await(d, d.env, id, ended); got.GetState() != completed || d.runs("two") != 1 {
		d.Errorf("it ran %d times: %v", d.runs("two"), got)
	}
	d.decided(id, anna+" APPROVE", bert+" APPROVE")
}

func (d *desk) own() {
	r, err := telexecv1.NewCommandServiceClient(d.env.As(d.token["both"])).Execute(d.Context(), &telexecv1.ExecuteRequest{Host: d.env.Host, Command: "factor 6" + d.trace("own")})
	if err != nil {
		d.Fatal(err)
	}
	id := r.GetCommand().GetId()
	asked, err := telexecv1.NewApprovalServiceClient(d.env.Conn()).GetApproval(d.Context(), &telexecv1.GetApprovalRequest{CommandId: id})
	if err != nil {
		d.Fatal(err)
	}
	if said := d.cli("both", "approve", "--yes", id); said.Code == 0 || !strings.Contains(said.Stderr, "of their own") {
		d.Errorf("approve: %+v", said)
	}
	if said := d.cli("both", "approvals", "--mine"); strings.Contains(said.Stdout, id) {
		d.Errorf("approvals --mine: %+v", said)
	}
	// What is modified to something wider is nobody's own decision either.
	if said := d.cli(anna, "approve", "--yes", "--modify", "factor 7; id"+d.trace("own"), id); said.Code != 0 || !strings.Contains(said.Stdout, "another approver") {
		d.Errorf("modify: %+v", said)
	}
	for _, who := range []string{anna, "both"} {
		if said := d.cli(who, "approve", "--yes", id); said.Code == 0 {
			d.Errorf("%s approves: %+v", who, said)
		}
	}
	// What was shown before is not what would run now.
	old := fmt.Sprintf("%x", asked.GetApproval().GetRequestHash())
	if said := d.cli(bert, "approve", "--yes", "--request-hash", old, id); said.Code == 0 || !strings.Contains(said.Stderr, "shown") {
		d.Errorf("approved what was not shown: %+v", said)
	}
	if d.runs("own") != 0 {
		d.Error("it ran")
	}
	if said := d.cli(bert, "approve", "--yes", id); said.Code != 0 {
		d.Errorf("approve: %+v", said)
	}
	stdout, _, last := output(d, d.env, &telexecv1.StreamOutputRequest{CommandId: id})
	if !strings.HasPrefix(stdout, "7: 7\nuid=") || last.GetState() != completed || d.runs("own") != 1 {
		d.Errorf("it ran %d times, %q, %v", d.runs("own"), stdout, last)
	}
	d.decided(id, anna+" MODIFY", bert+" APPROVE")
}

func (d *desk) batch() {
	first, second, third := d.ask(d.env.Host, "factor 1"+d.trace("batch")), d.ask(d.env.Host, "factor 2"+d.trace("batch")), d.ask(d.env.Host, "factor 3"+d.trace("batch"))
	if said := d.cli(anna, "reject", "--reason", "no", third); said.Code != 0 {
		d.Errorf("reject: %+v", said)
	}
	approvals := telexecv1.NewApprovalServiceClient(d.env.As(d.token[anna]))
	r := &telexecv1.DecideApprovalsRequest{}
	for _, id := range []string{first, second, third} {
		got, err := approvals.GetApproval(d.Context(), &telexecv1.GetApprovalRequest{CommandId: id})
		if err != nil {
			d.Fatal(err)
		}
		r.Decisions = append(r.Decisions, &telexecv1.Decision{CommandId: id, Verdict: telexecv1.Verdict_VERDICT_APPROVE, RequestHash: got.GetApproval().GetRequestHash()})
	}
	// One cannot be decided any more: none is.
	if _, err := approvals.DecideApprovals(d.Context(), r); reasonCode(d, err) != codes.FailedPrecondition {
		d.Errorf("with one that is decided: %v", err)
	}
	// Of one another request was shown: none is.
	r.Decisions = r.Decisions[:2]
	shown := r.Decisions[1].GetRequestHash()
	r.Decisions[1].RequestHash = slices.Concat([]byte{shown[0] ^ 1}, shown[1:])
	if _, err := approvals.DecideApprovals(d.Context(), r); reasonCode(d, err) != codes.Aborted {
		d.Errorf("with one that was not shown so: %v", err)
	}
	for _, id := range []string{first, second} {
		if got := await(d, d.env, id, func(*telexecv1.Command) bool { return true }); got.GetState() != awaiting || d.runs("batch") != 0 {
			d.Errorf("it was decided: %v", got)
		}
	}
	if said := d.cli(anna, "approve", "--yes", first, second); said.Code != 0 || strings.Count(said.Stdout, "approved for "+d.env.Host) != 2 {
		d.Errorf("approve both: %+v", said)
	}
	for _, id := range []string{first, second} {
		if got := await(d, d.env, id, ended); got.GetState() != completed {
			d.Error(got)
		}
		d.decided(id, anna+" APPROVE")
	}
	if d.runs("batch") != 2 {
		d.Errorf("they ran %d times", d.runs("batch"))
	}
	d.decided(third, anna+" REJECT")
}

func reasonCode(t testing.TB, err error) codes.Code {
	t.Helper()
	code, _ := reason(t, err)
	return code
}

// killed: a command that waits, one that has one of two approvals, and one that was
// approved a moment ago survive the service's death; none runs twice.
func (d *desk) killed() {
	waits, half, approved := d.ask(d.env.Host, "factor 6"+d.trace("waits")), d.ask(d.env.Host, "cksum /dev/null"+d.trace("half")), d.ask(d.env.Host, "factor 8"+d.trace("approved"))
	if said := d.cli(anna, "approve", "--yes", half); said.Code != 0 {
		d.Errorf("approve: %+v", said)
	}
	before, err := telexecv1.NewApprovalServiceClient(d.env.Conn()).GetApproval(d.Context(), &telexecv1.GetApprovalRequest{CommandId: waits})
	if err != nil {
		d.Fatal(err)
	}
	if said := d.cli(anna, "approve", "--yes", approved); said.Code != 0 {
		d.Errorf("approve: %+v", said)
	}
	d.env.Kill()
	d.env.Restart()
	for _, id := range []string{waits, half} {
		if got := await(d, d.env, id, func(*telexecv1.Command) bool { return true }); got.GetState() != awaiting {
			d.Errorf("after the restart: %v", got)
		}
	}
	if said := d.cli(anna, "approve", "--yes", "--reason", "again", half); said.Code == 0 {
		d.Errorf("the first approval was forgotten: %+v", said)
	}
	// What was shown before the restart is still what runs.
	hash := fmt.Sprintf("%x", before.GetApproval().GetRequestHash())
	if said := d.cli(bert, "approve", "--yes", "--request-hash", hash, waits); said.Code != 0 {
		d.Errorf("approve: %+v", said)
	}
	if said := d.cli(bert, "approve", "--yes", half); said.Code != 0 {
		d.Errorf("approve: %+v", said)
	}
	for id, trace := range map[string]string{waits: "waits", half: "half", approved: "approved"} {
		if got := await(d, d.env, id, ended); got.GetState() != completed || d.runs(trace) != 1 {
			d.Errorf("%s ran %d times: %v", trace, d.runs(trace), got)
		}
	}
	d.decided(waits, bert+" APPROVE")
	d.decided(half, anna+" APPROVE", bert+" APPROVE")
	d.decided(approved, anna+" APPROVE")
}

// reload: new rules count from SIGHUP on, for what comes then; rules with a mistake
// change nothing.
func (d *desk) reload() {
	old := d.ask(d.env.Host, "factor 6"+d.trace("old"))
	if said := d.cli("agent", "run", d.env.Host, "nproc"); said.Code != 0 {
		d.Fatalf("without a rule: %+v", said)
	}
	loaded := func() (n int) {
		for range auditOf(d.Context(), d, d.env, &telexecv1.ListAuditEntriesRequest{Kinds: []string{"policy.loaded"}}) {
			n++
		}
		return n
	}
	before := loaded()
	d.env.Configure("policy: {rules: [{name: wrong, effect: sometimes}]}")
	d.env.Signal(syscall.SIGHUP)
	if !comesTrue(d, 10*time.Second, func() bool { return strings.Contains(d.env.Log(), "was not reloaded") }) {
		d.Error("a mistake in the rules is not told")
	}
	if said := d.cli("agent", "run", "-d", d.env.Host, "factor 5"); !strings.Contains(said.Stderr, "waits for approval") {
		d.Errorf("after a mistake: %+v", said)
	}
	d.env.Configure("policy: {rules: [{name: later, effect: require_approval, match: {programs: [nproc]}}, {name: never, effect: deny, match: {programs: [factor]}}]}")
	d.env.Signal(syscall.SIGHUP)
	if !comesTrue(d, 10*time.Second, func() bool { return loaded() == before+1 }) {
		d.Fatal("the new rules are not in force")
	}
	// The audit has them before they are in force; the log is told after.
	if !comesTrue(d, 10*time.Second, func() bool { return strings.Contains(d.env.Log(), "the policy was reloaded") }) {
		d.Fatal("the new rules are not told")
	}
	if said := d.cli("agent", "run", "-d", d.env.Host, "nproc"); !strings.Contains(said.Stderr, "(rule later)") {
		d.Errorf("by the new rule: %+v", said)
	}
	if said := d.cli("agent", "run", d.env.Host, "factor 6"); said.Code != 125 || !strings.Contains(said.Stderr, `rule "never"`) {
		d.Errorf("by the new rule: %+v", said)
	}
	// What waits goes on as it was asked to.
	if said := d.cli(anna, "approve", "--yes", old); said.Code != 0 {
		d.Errorf("approve: %+v", said)
	}
	if got := await(d, d.env, old, ended); got.GetState() != completed || d.runs("old") != 1 {
		d.Errorf("it ran %d times: %v", d.runs("old"), got)
	}
}
