package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// row is one kind of login of the matrix, with what became of each thing tried.
type row struct {
	host  string
	shell string
	where string
	stage stage
	id    string // of the command of the last column

	cells map[string]string // by column; empty: all is well
}

// columns are what is tried on each row, in the order of the table.
var columns = []string{"start", "output", "exit code", "signal", "login shell", "stdin", "cancel", "resume"}

// TestLoginShells is the matrix: every login shell on every kind of host. Nothing
// of it may depend on what shell somebody has. With -v it prints the table.
func TestLoginShells(t *testing.T) {
	t.Parallel()
	rows, env := matrix(t)
	// One row at a time would take minutes, all at once more than two processors.
	var running sync.WaitGroup
	next := make(chan *row) // sent here, closed here, read by the workers
	for range 4 {
		running.Go(func() {
			for r := range next {
				r.tryAll(t)
			}
		})
	}
	for _, r := range rows {
		next <- r
	}
	close(next)
	running.Wait()
	resume(t, rows)

	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "host\tlogin shell\t%s\n", strings.Join(columns, "\t"))
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s", r.where, r.shell)
		for _, c := range columns {
			cell := "yes"
			if why := r.cells[c]; why != "" {
				cell = "NO"
				t.Errorf("%s, %s: %s: %s", r.where, r.shell, c, why)
			}
			fmt.Fprintf(w, "\t%s", cell)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	t.Logf("\n%s", table.String())
	if t.Failed() {
		return
	}
	list, err := env.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{Active: true})
	if err != nil || len(list.GetCommands()) != 0 {
		t.Errorf("still active: %v, %v", list, err)
	}
}

// matrix makes the hosts, and one service for all of them.
func matrix(t *testing.T) ([]*row, *testenv.Env) {
	var rows []*row
	var hosts []inventory.Host
	add := func(m *sshtest.Machine, where, shell, account string) {
		name := strings.ReplaceAll(where+"-"+shell, " ", "-")
		h := m.HostOf(name, account)
		h.MaxCommands = 10
		hosts = append(hosts, h)
		rows = append(rows, &row{host: name, shell: shell, where: where, stage: stage{machine: m}, cells: make(map[string]string)})
	}
	var accounts []sshtest.Account
	for _, shell := range sshtest.Shells {
		if !sshtest.HasShell(shell) {
			t.Logf("no %s here; make setup gets it", shell)
			continue
		}
		accounts = append(accounts, sshtest.Account{Name: "root-" + shell, Root: true, Shell: shell}, sshtest.Account{Name: "user-" + shell, Shell: shell})
	}
	// A skip inside of a subtest leaves the others alone.
	openssh := sshtest.StartMachine(t, sshtest.MachineOptions{Accounts: accounts})
	var dropbear, busybox *sshtest.Machine
	if sshtest.HasFlavour(sshtest.Dropbear) {
		dropbear = sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: sshtest.Dropbear, Accounts: accounts})
	} else {
		t.Log("no dropbear here; make setup gets it")
	}
	if sshtest.HasFlavour(sshtest.BusyBox) {
		busybox = sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: sshtest.BusyBox, Accounts: []sshtest.Account{{Name: "root", Root: true}, {Name: "user"}}})
	} else {
		t.Log("no BusyBox here; make setup gets it")
	}
	for _, a := range accounts {
		if a.Root {
			add(openssh, "OpenSSH root", a.Shell, a.Name)
		} else {
			add(openssh, "OpenSSH user", a.Shell, a.Name)
		}
		if dropbear != nil && !a.Root {
			add(dropbear, "dropbear", a.Shell, a.Name)
		}
	}
	if dropbear != nil {
		add(dropbear, "dropbear root", "sh", "root-sh")
	}
	if busybox != nil {
		add(busybox, "BusyBox root", "ash", "root")
		add(busybox, "BusyBox user", "ash", "user")
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return strings.Compare(a.where, b.where) })
	env := testenv.Start(t, testenv.WithoutHosts(), testenv.WithHosts(hosts...))
	for _, r := range rows {
		r.stage.Env = env
	}
	return rows, env
}

// run runs a command on the row's host, and gives nothing where the call failed.
func (r *row) run(t testing.TB, req *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, string) {
	req.Host, req.Wait = r.host, durationpb.New(15*time.Second)
	resp, err := r.stage.Commands().Execute(t.Context(), req)
	if err != nil {
		return nil, err.Error()
	}
	if !ended(resp.GetCommand()) {
		return nil, fmt.Sprintf("it has not ended: %v", resp.GetCommand())
	}
	return resp, ""
}

// tryAll fills all cells but that of resume.
func (r *row) tryAll(t testing.TB) {
	const odd = "\x00\xff'\"\\$`!é\n"
	is := func(column string, req *telexecv1.ExecuteRequest, want func(*telexecv1.ExecuteResponse) bool) {
		resp, problem := r.run(t, req)
		if problem == "" && !want(resp) {
			problem = resp.String()
		}
		r.cells[column] = problem
	}
	is("start", &telexecv1.ExecuteRequest{Command: "true"}, func(resp *telexecv1.ExecuteResponse) bool {
		return resp.GetCommand().GetDurability() == telexecv1.Durability_DURABILITY_DURABLE && resp.GetCommand().GetState() == completed
	})
	is("output", &telexecv1.ExecuteRequest{Command: `printf '\000\377'; printf %s "$A"; printf 'err\001' >&2`, Env: map[string]string{"A": odd[2:]}},
		func(resp *telexecv1.ExecuteResponse) bool {
			return string(resp.GetStdout().GetData()) == odd && string(resp.GetStderr().GetData()) == "err\x01"
		})
	is("exit code", &telexecv1.ExecuteRequest{Command: "exit 77"}, func(resp *telexecv1.ExecuteResponse) bool {
		return resp.GetCommand().ExitCode != nil && resp.GetCommand().GetExitCode() == 77 && resp.GetCommand().GetState() == completed
	})
	is("signal", &telexecv1.ExecuteRequest{Command: "kill -TERM $$"}, func(resp *telexecv1.ExecuteResponse) bool {
		c := resp.GetCommand()
		return c.GetState() == failed && c.GetExitSignal() == "TERM" && c.ExitCode == nil && c.GetFailure().GetReason() == fault.ReasonSignalled
	})
	is("login shell", &telexecv1.ExecuteRequest{Command: "echo in; exit 5", LoginShell: true}, func(resp *telexecv1.ExecuteResponse) bool {
		return string(resp.GetStdout().GetData()) == "in\n" && resp.GetCommand().GetExitCode() == 5
	})
	is("stdin", &telexecv1.ExecuteRequest{Command: "cat", Stdin: []byte(odd)}, func(resp *telexecv1.ExecuteResponse) bool {
		return string(resp.GetStdout().GetData()) == odd
	})
	r.cells["cancel"] = r.tryCancel(t)
}

func (r *row) tryCancel(t testing.TB) string {
	word := newWord()
	resp, err := r.stage.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{
		Host: r.host, Command: "setsid sleep " + word + " & sleep " + word + " | cat", Wait: now(),
	})
	if err != nil {
		return err.Error()
	}
	if !comesTrue(t, 20*time.Second, func() bool { return len(r.stage.machine.Running("sleep\x00"+word)) == 2 }) {
		return "it does not run"
	}
	start := time.Now()
	c, err := r.stage.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: resp.GetCommand().GetId()})
	took := time.Since(start)
	switch left := r.stage.machine.Running(word); {
	case err != nil:
		return err.Error()
	case c.GetReport().GetOutcome() != gone || c.GetCommand().GetState() != cancelled:
		return c.String()
	case len(left) > 0:
		return fmt.Sprintf("said to be gone, and left: %q", left)
	case took > 3*time.Second*slowness:
		return fmt.Sprintf("it took %v", took)
	}
	return ""
}

// resume fills the cells of that name: each row starts a story, all connections
// die at once, and all of each story must come.
func resume(t testing.TB, rows []*row) {
	line, stdout, stderr := story(800, "0.5")
	machines := make(map[*sshtest.Machine]bool)
	for _, r := range rows {
		resp, err := r.stage.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: r.host, Command: line, Wait: now()})
		if err != nil {
			r.cells["resume"] = err.Error()
			continue
		}
		r.id = resp.GetCommand().GetId()
		machines[r.stage.machine] = true
	}
	for _, r := range rows {
		if r.id == "" {
			continue
		}
		if err := r.stage.getsTo(t, r.id, 500); err != nil {
			r.cells["resume"], r.id = err.Error(), ""
		}
	}
	for m := range machines {
		m.KillSessions()
	}
	for _, r := range rows {
		if r.id == "" {
			continue
		}
		c := await(t, r.stage.Env, r.id, ended)
		gotOut, gotErr, _ := output(t, r.stage.Env, &telexecv1.StreamOutputRequest{CommandId: r.id})
		if c.GetState() != completed || c.GetExitCode() != 7 || gotOut != stdout || gotErr != stderr {
			r.cells["resume"] = fmt.Sprintf("%d of %d bytes of stdout, %d of %d of stderr: %v", len(gotOut), len(stdout), len(gotErr), len(stderr), c)
		}
	}
	var left []string
	clean := func(r *row) bool { left = r.stage.machine.Leftovers(r.id); return len(left) == 0 }
	limit := time.Now().Add(10 * time.Second) // for all of them
	for _, r := range rows {
		if r.id != "" && r.cells["resume"] == "" && !comesTrue(t, time.Until(limit), func() bool { return clean(r) }) {
			r.cells["resume"] = fmt.Sprintf("left on the host: %q", left)
		}
	}
}
