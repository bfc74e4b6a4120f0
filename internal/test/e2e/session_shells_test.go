package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

var silent = flag.Duration("e2e.silent", 3*time.Second, "how long a command in each kind of shell says nothing; what ends one without marks takes 2 s")

// sessionShells are the shells that tell their own ends.
var sessionShells = []string{"bash", "zsh", "fish", "dash", "ash", "mksh"}

// sessionColumns are what is tried in each shell, in the order of the table.
var sessionColumns = []string{"codes", "cd", "variable", "lines", "prompt", "UTF-8", "wide", "200 columns", "vim", "silent", "exit"}

// shellRow is one shell of one host, with a session in it.
type shellRow struct {
	where, shell string
	host         string
	machine      *sshtest.Machine
	account      string
	keeper       telexecv1.Keeper
	quiet        string // id of the command that says nothing
	cells        map[string]string
}

// name is that of its session.
func (r *shellRow) name() string { return r.host }

// TestSessionShells is the matrix of sessions: every shell that tells its own ends, on
// every kind of SSH server. With -v it prints the table.
func TestSessionShells(t *testing.T) {
	t.Parallel()
	rows, env := shellMatrix(t)
	if len(rows) == 0 {
		t.Skip("none of the shells is here; make setup gets them")
	}
	t.Run("each", func(t *testing.T) {
		for _, r := range rows {
			t.Run(r.host, func(t *testing.T) {
				t.Parallel()
				r.tryAll(t, env)
			})
		}
	})
	if t.Failed() {
		return
	}
	// They are silent all at once.
	for _, r := range rows {
		resp, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Session: r.name(), Command: fmt.Sprintf("sleep %.1f; echo wo''ke", silent.Seconds()), Wait: now()})
		if err != nil {
			t.Fatal(r.host, err)
		}
		r.quiet = resp.GetCommand().GetId()
	}
	began := time.Now()
	for _, r := range rows {
		c := awaitFor(t, env, r.quiet, *silent+20*time.Second)
		// Its start is told some milliseconds late.
		if out, _, _ := output(t, env, &telexecv1.StreamOutputRequest{CommandId: r.quiet}); !marked(c, 0) || out != "woke\r\n" || c.GetEndTime().AsTime().Sub(c.GetCreateTime().AsTime()) < *silent {
			r.cells["silent"] = fmt.Sprintf("%q after %v: %v", out, time.Since(began), c)
		}
	}
	t.Run("exit", func(t *testing.T) {
		for _, r := range rows {
			t.Run(r.host, func(t *testing.T) {
				t.Parallel()
				r.tryExit(t, env)
			})
		}
	})

	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "host\tshell\tkeeper\t%s\n", strings.Join(sessionColumns, "\t"))
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s", r.where, r.shell, strings.ToLower(strings.TrimPrefix(r.keeper.String(), "KEEPER_")))
		for _, c := range sessionColumns {
			cell := "yes"
			if why := r.cells[c]; why != "" {
				cell = "NO"
				t.Errorf("%s: %s: %s", r.host, c, why)
			}
			fmt.Fprintf(w, "\t%s", cell)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	t.Logf("\n%s", table.String())
}

// shellMatrix makes the hosts, and one service for all of them.
func shellMatrix(t *testing.T) ([]*shellRow, *testenv.Env) {
	var rows []*shellRow
	var hosts []inventory.Host
	add := func(m *sshtest.Machine, where, shell, account string, keeper telexecv1.Keeper) {
		r := &shellRow{where: where, shell: shell, host: where + "-" + shell, machine: m, account: account, keeper: keeper, cells: make(map[string]string)}
		hosts = append(hosts, m.HostOf(r.host, account))
		rows = append(rows, r)
	}
	var accounts []sshtest.Account
	for _, shell := range sessionShells {
		if sshtest.HasShell(shell) {
			accounts = append(accounts, sshtest.Account{Name: "user-" + shell, Shell: shell})
		} else {
			t.Logf("no %s here; make setup gets it", shell)
		}
	}
	if len(accounts) == 0 {
		return nil, nil
	}
	openssh := sshtest.StartMachine(t, sshtest.MachineOptions{Accounts: accounts})
	calmFish(t, openssh)
	tmux := telexecv1.Keeper_KEEPER_NONE
	if has("tmux") {
		tmux = telexecv1.Keeper_KEEPER_TMUX
	}
	for _, a := range accounts {
		add(openssh, "OpenSSH", a.Shell, a.Name, tmux)
	}
	if sshtest.HasFlavour(sshtest.Dropbear) {
		dropbear := sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: sshtest.Dropbear, Accounts: accounts})
		calmFish(t, dropbear)
		for _, a := range accounts {
			add(dropbear, "dropbear", a.Shell, a.Name, telexecv1.Keeper_KEEPER_NONE)
		}
	}
	if sshtest.HasFlavour(sshtest.BusyBox) {
		busybox := sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: sshtest.BusyBox, Accounts: []sshtest.Account{{Name: "user"}}})
		add(busybox, "BusyBox", "ash", "user", telexecv1.Keeper_KEEPER_NONE)
	}
	env := testenv.Start(t, testenv.WithoutHosts(), testenv.WithHosts(hosts...))
	return rows, env
}

// calmFish keeps fish from reading all manual pages in the background when it starts for
// the first time.
func calmFish(t *testing.T, m *sshtest.Machine) {
	t.Helper()
	if sshtest.HasShell("fish") {
		home := m.Home("user-fish")
		m.Run("sh", "-c", `cd "$1" && mkdir -p .local/share/fish/generated_completions && chown -R --reference=. .local`, "sh", home)
	}
}

// marked reports whether a command ended by itself with a code that the shell told.
func marked(c *telexecv1.Command, code int32) bool {
	return c.GetState() == completed && c.GetCompletion() == telexecv1.Completion_COMPLETION_MARK && c.ExitCode != nil && c.GetExitCode() == code
}

// tryAll opens the session, and fills the cells of what can be tried at once.
func (r *shellRow) tryAll(t *testing.T, env *testenv.Env) {
	s := openOn(t, env, &telexecv1.OpenSessionRequest{Host: r.host, Name: r.name(), Keeper: r.keeper})
	if got := s.get(); got.GetShell() != r.shell || got.GetCompletion() != telexecv1.Completion_COMPLETION_MARK || got.GetKeeper() != r.keeper {
		t.Fatalf("opened as %v", got)
	}
	v := s.attach(env.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_WRITER)
	is := func(column, line string, code int32, want string) {
		t.Helper()
		if c, out := s.run(line); r.cells[column] == "" && (!marked(c, code) || out != want || c.GetSessionOffset() == 0) {
			r.cells[column] = fmt.Sprintf("%q printed %q, want %q: %v", line, out, want, c)
		}
	}
	shows := func(column string, want ...string) {
		t.Helper()
		if lines := s.screen(); r.cells[column] == "" && !strings.Contains("\n"+strings.Join(lines, "\n")+"\n", "\n"+strings.Join(want, "\n")+"\n") {
			r.cells[column] = fmt.Sprintf("the screen is %q, want %q in it", lines, want)
		}
	}
	for _, code := range []int32{0, 1, 5, 130} {
		is("codes", fmt.Sprintf("sh -c 'exit %d'", code), code, "")
	}
	is("codes", "false", 1, "")
	is("codes", "false; sh -c 'exit 5'", 5, "")
	is("cd", "cd /var/tmp", 0, "")
	is("cd", "pwd", 0, "/var/tmp\r\n")
	set, loop := "who=wor''ld", "for i in 1 2\ndo echo $i\ndone"
	if r.shell == "fish" {
		set, loop = "set who wor''ld", "for i in 1 2\necho $i\nend"
	}
	is("variable", set, 0, "")
	is("variable", `echo "hello $who"`, 0, "hello world\r\n")
	is("lines", loop, 0, "1\r\n2\r\n")
	is("lines", "echo a\n\nsh -c 'exit 3'", 3, "a\r\n")
	is("prompt", `printf 'root@host:~# '; sleep 0.5; printf '\n$ '; sleep 0.2; echo end`, 0, "root@host:~# \r\n$ end\r\n")
	is("UTF-8", "echo 'größe: ✓ naïve'", 0, "größe: ✓ naïve\r\n")
	shows("UTF-8", "größe: ✓ naïve")
	is("wide", "echo 日本語|cat; printf '%s\\n' 👍|cat", 0, "日本語\r\n👍\r\n")
	shows("wide", "日本語", "👍")
	is("200 columns", "printf '%0200d\\n' 7", 0, strings.Repeat("0", 199)+"7\r\n")
	shows("200 columns", strings.Repeat("0", 80), strings.Repeat("0", 80), strings.Repeat("0", 39)+"7")
	is("200 columns", "echo "+strings.Repeat("x", 200), 0, strings.Repeat("x", 200)+"\r\n")
	r.cells["vim"] = r.tryVim(v)
	v.sees(strings.Repeat("x", 200) + "\r\n")
	for _, hidden := range []string{"133;", "_telexec", "nested"} {
		if strings.Contains(v.seen.String(), hidden) {
			t.Errorf("%s was seen, which nobody should: %q", hidden, v.seen.String())
		}
	}
}

// tryVim types a text into vim, by hand.
func (r *shellRow) tryVim(v *seat) string {
	v.Helper()
	editor := "vim -u NONE -i NONE -N"
	if r.where == "BusyBox" {
		editor = "vi"
	} else if !has("vim") {
		return ""
	}
	line := editor + " ~/written"
	v.types(line + "\r")
	if !v.showsUntil(func(s *telexecv1.ReadScreenResponse) bool {
		return s.GetAlternateScreen() && len(s.GetLines()) > 2 && strings.HasPrefix(s.GetLines()[1], "~")
	}) {
		return fmt.Sprintf("it does not come: %q", v.screen())
	}
	v.types("ione\rtwo ü\x1b")
	if !v.showsUntil(func(s *telexecv1.ReadScreenResponse) bool { return strings.HasPrefix(s.GetLines()[1], "two") }) {
		return fmt.Sprintf("it does not show what is typed: %q", v.screen())
	}
	v.types(":wq\r")
	if c := v.command(line, completed).GetCommand(); !marked(c, 0) || c.GetCreatedBy().GetPrincipal() != "admin" {
		return fmt.Sprintf("it is the command %v", c)
	}
	if text, err := os.ReadFile(r.machine.Path(r.account, "~/written")); err != nil || string(text) != "one\ntwo ü\n" {
		return fmt.Sprintf("it has written %q, %v", text, err)
	}
	if s := v.text(); s.GetAlternateScreen() || !strings.Contains(strings.Join(s.GetLines(), "\n"), editor) {
		return fmt.Sprintf("the screen from before is not back: %q", s.GetLines())
	}
	return ""
}

// tryExit ends the shell.
func (r *shellRow) tryExit(t *testing.T, env *testenv.Env) {
	t.Helper()
	s := &shared{T: t, env: env, api: telexecv1.NewSessionServiceClient(env.Conn()), name: r.name()}
	v := s.attach(env.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_OBSERVER)
	c, _ := s.run("exit 7")
	end := v.until("the end", func(m *telexecv1.AttachResponse) bool { return m.GetEnded() != nil }).GetEnded()
	if end.GetEnd().GetReason() != fault.ReasonShellExited || end.ExitCode == nil || end.GetExitCode() != 7 || c.GetState() != completed || c.GetExitCode() != 7 {
		r.cells["exit"] = fmt.Sprintf("%v: %v", c, end)
	}
	id := v.attached.GetSession().GetId()
	if left := r.machine.Leftovers(id); len(left) > 0 && !comesTrue(t, 5*time.Second, func() bool { left = r.machine.Leftovers(id); return len(left) == 0 }) {
		r.cells["exit"] += fmt.Sprintf("left on the host: %q", left)
	}
}

// awaitFor waits for the end of a command, for so long.
func awaitFor(t testing.TB, env *testenv.Env, id string, most time.Duration) *telexecv1.Command {
	t.Helper()
	limit := time.Now().Add(most)
	for {
		s, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: id, Wait: durationpb.New(10 * time.Second), Output: &telexecv1.OutputOptions{Omit: true}}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		if ended(s.GetCommand()) || time.Now().After(limit) {
			return s.GetCommand()
		}
	}
}
