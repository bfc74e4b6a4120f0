package sshexec

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

const grace = 500 * time.Millisecond

// Whatever tree a command has grown, a cancel leaves nothing of it.
func TestCancelTrees(t *testing.T) {
	trees := []struct {
		name, line string
		signal     string // what must have sufficed; empty: any
		ended      int    // at least
	}{
		{"sleep", "echo ready; exec sleep 1000", "INT", 1},
		{"pipeline", "echo ready; sleep 1000 | cat | cat", "INT", 3},
		{"background", "sleep 1000 & sleep 1000 & echo ready; wait", "TERM", 3},
		{"nohup", "nohup sleep 1000 >/dev/null 2>&1 & echo ready; wait", "TERM", 2},
		{"setsid", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo ready; wait", "TERM", 2},
		{"setsid without parent", "(setsid sleep 1000 </dev/null >/dev/null 2>&1 &); echo ready; sleep 1000", "TERM", 2},
		{"session without environment", "(env -i sleep 1000 </dev/null >/dev/null 2>&1 &); echo ready; sleep 1000", "", 2},
		{"ignores", "trap '' INT TERM HUP; echo ready; while :; do sleep 1000; done", "KILL", 2},
		{"stopped", "sleep 1000 & kill -STOP $!; echo ready; kill -STOP $$", "", 2},
		{"fifty", "i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i+1)); done; echo ready; wait", "TERM", 51},
		{"respawning", "echo ready; for i in 1 2 3 4 5; do (trap '' INT TERM; while :; do sleep 0.05; done) & done; wait", "KILL", 5},
		{"name like a stat line", "cp /bin/sleep \"$D/a) R 1 1\"; echo ready; \"$D/a) R 1 1\" 1000", "INT", 1},
	}
	eachUser(t, func(t *testing.T, h *host) {
		for _, c := range trees {
			t.Run(c.name, func(t *testing.T) {
				dir := t.TempDir()
				for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
					os.Chmod(d, 0o777)
				}
				h := *h
				h.t = t
				r := h.start(command.Spec{Line: c.line, Env: map[string]string{"D": dir}})
				r.await(t, has("ready"))
				if strings.Contains(c.name, "stopped") {
					eventually(t, "it is stopped", func() bool {
						b, _ := os.ReadFile("/proc/" + itoa(r.who.pid) + "/stat")
						return strings.Contains(string(b), ") T ")
					})
				}
				begin := time.Now()
				report, err := r.Cancel(t.Context(), grace)
				if err != nil || report.Outcome != command.Gone || len(report.Left) > 0 {
					t.Fatalf("%+v, %v", report, err)
				}
				t.Logf("%v, %+v", time.Since(begin), report)
				if c.signal != "" && report.Signal != c.signal || report.Ended < c.ended {
					t.Errorf("%+v, want %s and at least %d", report, c.signal, c.ended)
				}
				if left := carriers(t, r.id); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				if _, err := r.Wait(); err != nil {
					t.Error(err)
				}
				if report, err := r.Cancel(t.Context(), grace); err != nil || report.Outcome != command.AlreadyEnded {
					t.Errorf("once more: %+v, %v", report, err)
				}
			})
		}
	})
}

func TestCancelAtOnce(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "sleep 1000"})
	report, err := r.Cancel(t.Context(), 0)
	if err != nil || report.Outcome != command.Gone || report.Signal != "KILL" {
		t.Errorf("%+v, %v", report, err)
	}
	if exit, err := r.Wait(); err != nil || code(exit) != "signal KILL" {
		t.Error(code(exit), err)
	}
}

func TestCancelOfATerminal(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "exec bash --norc -i", Pty: &command.Pty{}})
	r.Input(t.Context(), []byte("PS1=; set -m; sleep 1000 & sleep 1001 & sleep 1002; echo after\n"), false)
	eventually(t, "the job runs", func() bool { return len(carriers(t, r.id)) == 4 })
	if err := r.Signal(t.Context(), "INT"); err != nil {
		t.Fatal(err)
	}
	// Only the job in the foreground has gone.
	eventually(t, "the job has ended", func() bool { return len(carriers(t, r.id)) == 3 })
	report, err := r.Cancel(t.Context(), grace)
	if err != nil || report.Outcome != command.Gone || len(carriers(t, r.id)) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
	r.Wait()
}

// Ten commands run; one is cancelled, and the others do not notice.
func TestCancelOfOneAmongTen(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		var runs []run
		for range 10 {
			r := h.start(command.Spec{Line: "sleep 1000 & sleep 1000 & echo ready; wait"})
			r.await(t, has("ready"))
			runs = append(runs, r)
		}
		if report, err := runs[4].Cancel(t.Context(), grace); err != nil || report.Outcome != command.Gone || report.Ended != 3 {
			t.Errorf("%+v, %v", report, err)
		}
		for i, r := range runs {
			want := 3
			if i == 4 {
				want = 0
			}
			if got := len(carriers(t, r.id)); got != want {
				t.Errorf("command %d has %d processes, want %d", i, got, want)
			}
		}
		var all sync.WaitGroup
		for _, r := range runs {
			all.Go(func() { r.Cancel(t.Context(), grace); r.Wait() })
		}
		all.Wait()
	})
}

// A pid that belongs to another process by now is not touched, nor is anything
// after a restart of the host.
func TestDecoy(t *testing.T) {
	h := start(t, sshtest.Options{})
	decoy := exec.Command("sleep", "1000")
	decoy.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := decoy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { decoy.Process.Kill(); decoy.Wait() }()
	pid := int64(decoy.Process.Pid)

	r := h.start(command.Spec{Line: "sleep 1000"})
	own := r.who
	defer func() {
		r.who = own
		r.Cancel(t.Context(), 0)
		r.Wait()
	}()
	r.who = identity{pid: pid, group: pid, session: pid, boot: own.boot, start: "1"}
	if err := r.Signal(t.Context(), "KILL"); fault.ReasonOf(err) != fault.ReasonNotRunning {
		t.Errorf("signal: %v", err)
	}
	id := r.attached.id
	r.attached.id = "another"
	if report, err := r.Cancel(t.Context(), 0); err != nil || report.Outcome != command.AlreadyEnded {
		t.Errorf("cancel: %+v, %v", report, err)
	}
	r.who = own
	r.who.boot = "another-boot"
	r.attached.id = id
	if report, err := r.Cancel(t.Context(), 0); err != nil || report.Outcome != command.AlreadyEnded || !strings.Contains(report.Message, "restarted") {
		t.Errorf("after a restart: %+v, %v", report, err)
	}
	if err := r.Signal(t.Context(), "KILL"); fault.ReasonOf(err) != fault.ReasonNotRunning {
		t.Errorf("signal after a restart: %v", err)
	}
	if !alive(itoa(pid)) || !alive(itoa(own.pid)) {
		t.Error("a process was ended that was not ours")
	}
}

func TestSignal(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		r := h.start(command.Spec{Line: "trap 'echo got USR1' USR1; trap 'echo got INT; exit 9' INT; echo ready; while :; do sleep 0.02; done"})
		r.await(t, has("ready"))
		if err := r.Signal(t.Context(), "USR1"); err != nil {
			t.Fatal(err)
		}
		r.await(t, has("got USR1"))
		if err := r.Signal(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		r.await(t, has("got INT"))
		if exit, err := r.Wait(); err != nil || code(exit) != "9" {
			t.Error(code(exit), err)
		}
		if err := r.Signal(t.Context(), "INT"); fault.ReasonOf(err) != fault.ReasonNotRunning {
			t.Error(err)
		}

		r = h.start(command.Spec{Line: "sleep 1000"})
		if err := r.Signal(t.Context(), "NOSUCH"); fault.ReasonOf(err) != fault.ReasonSignalFailed {
			t.Error(err)
		}
		if err := r.Signal(t.Context(), "$(id)"); fault.ReasonOf(err) != fault.ReasonInvalidRequest {
			t.Error(err)
		}
		if err := r.Signal(t.Context(), "TERM"); err != nil {
			t.Error(err)
		}
		if exit, err := r.Wait(); err != nil || code(exit) != "signal TERM" {
			t.Error(code(exit), err)
		}
	})
}

// A process of another user can only be reported.
func TestCancelLeavesWhatItMayNotSignal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a program that becomes another user")
	}
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	if exec.Command("su", "-s", "/bin/sh", h.inv.User, "-c", "sudo -n true").Run() == nil {
		t.Skip("sudo reaches everything here")
	}
	// A setuid copy of dash that becomes root altogether and then sleeps.
	perl, err := exec.LookPath("perl")
	if err != nil {
		testenv.Missing(t, "needs perl")
	}
	b, err := os.ReadFile("/bin/dash")
	if err != nil {
		testenv.Missing(t, "needs dash")
	}
	rootly := filepath.Join(h.server.Dir, "rootly")
	if err := os.WriteFile(rootly, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(rootly, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	r := h.start(command.Spec{Line: rootly + ` -pc "exec ` + perl + ` -e '\$< = \$>; \$< == 0 or die; \$SIG{INT}=\$SIG{TERM}=q(IGNORE); \$|=1; print qq(ready\n); sleep 1000'"; true`})
	r.await(t, has("ready"))
	report, err := r.Cancel(t.Context(), 100*time.Millisecond)
	if err != nil || report.Outcome != command.Left || len(report.Left) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	left := report.Left[0]
	if left.User != "root" || !strings.Contains(left.Command, "perl") || !strings.Contains(left.Why, "may not") {
		t.Errorf("%+v", left)
	}
	if err := syscall.Kill(int(left.PID), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	r.Wait()
}

// The ladder's other eyes: ps where there is no /proc, and none at all.
func TestLadderWithoutProc(t *testing.T) {
	h := start(t, sshtest.Options{})
	for how, hide := range map[string]string{
		"ps":   "proc=/nonexistent\n",
		"none": "proc=/nonexistent\nps() { return 1; }\n",
	} {
		r := h.start(command.Spec{Line: "trap '' INT; sleep 1000 & sleep 1000 & echo ready; wait"})
		r.await(t, has("ready"))
		who := r.who
		if how == "ps" {
			b, err := exec.Command("sh", "-c", "LC_ALL=C ps -o lstart= -p "+itoa(who.pid)).Output()
			if err != nil {
				t.Fatal(err)
			}
			who.start = strings.Join(strings.Fields(string(b)), " ")
		}
		vars := who.vars(r.id, "grace_int", "10", "grace_term", "40") + hide
		lines, err := h.runner.ask(t.Context(), h.inv, vars+"signal=CONT tty=no\n"+signalScript)
		if err != nil || strings.Join(lines, "|") != "sent" {
			t.Errorf("%s: signal: %q, %v", how, lines, err)
		}
		lines, err = h.runner.ask(t.Context(), h.inv, vars+ladderScript)
		if err != nil {
			t.Fatal(err)
		}
		report, err := hostshell.ParseReport(lines)
		want := map[string]command.Outcome{"ps": command.Gone, "none": command.Unproven}[how]
		if err != nil || report.Outcome != want {
			t.Errorf("%s: %q: %+v, %v", how, lines, report, err)
		}
		if left := carriers(t, r.id); len(left) > 0 {
			t.Errorf("%s: left %v", how, left)
		}
		r.Wait()
	}
}

// Every shell that may be /bin/sh reads the scripts the same.
func TestScriptsInEveryShell(t *testing.T) {
	for _, shell := range interpreters(t) {
		t.Run(strings.Join(shell, " "), func(t *testing.T) {
			t.Parallel()
			id := newID()
			cmd := exec.Command("sh", "-c", "trap '' INT; sleep 1000 & sleep 1000 & echo ready; wait")
			cmd.Env = append(os.Environ(), "TELEXEC_ID="+id)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			pid := int64(cmd.Process.Pid)
			stat, _ := os.ReadFile("/proc/" + itoa(pid) + "/stat")
			boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
			who := identity{pid: pid, group: pid, session: pid, boot: strings.TrimSpace(string(boot)),
				start: strings.Fields(string(stat)[strings.LastIndex(string(stat), ")"):])[20]}
			ask := func(script string, more ...string) []string {
				run := exec.Command(shell[0], shell[1:]...)
				run.Stdin = strings.NewReader("nonce=n\n" + who.vars(id, more...) + script)
				answer, err := run.Output()
				if err != nil {
					t.Fatalf("%s: %v", script, err)
				}
				return hostshell.Lines("n", string(answer))
			}
			if got := ask(signalScript, "signal", "CONT", "tty", "no"); strings.Join(got, "|") != "sent" {
				t.Errorf("signal: %q", got)
			}
			got := ask(ladderScript, "grace_int", "5", "grace_term", "50")
			report, err := hostshell.ParseReport(got)
			if err != nil || report.Outcome != command.Gone || report.Signal != "TERM" || report.Ended < 3 {
				t.Errorf("ladder: %q: %+v, %v", got, report, err)
			}
			cmd.Wait()
			if left := carriers(t, id); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if got := ask(signalScript, "signal", "CONT", "tty", "no"); strings.Join(got, "|") != "gone" {
				t.Errorf("signal behind the end: %q", got)
			}
		})
	}
}

func TestCancelWhenTheHostDoesNotAnswer(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "echo ready; sleep 1000"})
	r.await(t, has("ready"))
	ctx, cancel := context.WithCancel(t.Context())
	h.server.Pause()
	h.runner.opts.ControlTimeout = 200 * time.Millisecond
	go cancel()
	report, err := r.Cancel(ctx, 0)
	if err == nil || report.Outcome != command.Unproven || report.Message == "" {
		t.Errorf("%+v, %v", report, err)
	}
	h.server.Resume()
	h.runner.opts.ControlTimeout = 10 * time.Second
	if report, err := r.Cancel(t.Context(), 0); err != nil || report.Outcome != command.Gone && report.Outcome != command.AlreadyEnded {
		t.Errorf("%+v, %v", report, err)
	}
	r.Wait()
	h.server.Stop()
	r.attached.mu.Lock()
	r.reported = false // as after a lost connection
	r.attached.mu.Unlock()
	if report, err := r.Cancel(t.Context(), 0); err == nil || report.Outcome != command.Unproven {
		t.Errorf("%+v, %v", report, err)
	}
	if err := r.Signal(t.Context(), "INT"); err == nil {
		t.Error("a signal was sent to a server that is down")
	}
}

func TestGraces(t *testing.T) {
	for grace, want := range map[time.Duration][2]int64{
		-time.Second: {0, 0}, 0: {0, 0}, 10 * time.Millisecond: {0, 1}, 20 * time.Millisecond: {1, 1},
		500 * time.Millisecond: {10, 40}, time.Minute: {1200, 4800},
	} {
		if a, b := graces(grace); [2]int64{a, b} != want {
			t.Errorf("%v: %d, %d, want %v", grace, a, b, want)
		}
	}
}

// forced makes a server on which a shell command sees every request first; it
// finds a flag file in $F.
func forced(t *testing.T, script string) (h *host, flag string) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	flag = filepath.Join(dir, "flag")
	return start(t, sshtest.Options{ExtraConfig: []string{
		"ForceCommand F=" + flag + "; " + script + `; eval "$SSH_ORIGINAL_COMMAND"`,
	}}), flag
}

const isControl = `[ "$SSH_ORIGINAL_COMMAND" = "exec /bin/sh" ]`

func TestAnswerThatIsNone(t *testing.T) {
	h, flag := forced(t, isControl+` && [ -e $F ] && { cat $F; exit; }`)
	r := h.start(command.Spec{Line: "sleep 1000"})
	if err := os.WriteFile(flag, []byte("Welcome\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	report, err := r.Cancel(t.Context(), 0)
	if fault.ReasonOf(err) != fault.ReasonSignalFailed || report.Outcome != command.Unproven {
		t.Errorf("%+v, %v", report, err)
	}
	if err := r.Signal(t.Context(), "INT"); fault.ReasonOf(err) != fault.ReasonSignalFailed {
		t.Error(err)
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	if report, err := r.Cancel(t.Context(), 0); err != nil || report.Outcome != command.Gone {
		t.Errorf("%+v, %v", report, err)
	}
	r.Wait()
}

// When the connection breaks under the ladder, it is asked once more; where there
// is nothing left then, the first one may have ended it, and that is not claimed.
func TestAnswerLost(t *testing.T) {
	h, flag := forced(t, isControl+` && mkdir $F 2>/dev/null && kill -9 $PPID`)
	r := h.start(command.Spec{Line: "sleep 1000"})
	report, err := r.Cancel(t.Context(), 0)
	proven := err == nil && report.Outcome == command.Gone
	open := fault.ReasonOf(err) == fault.ReasonConnectionLost && report.Outcome == command.Unproven
	if !proven && !open {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := os.Stat(flag); err != nil {
		t.Error("the connection did not break:", err)
	}
	if left := carriers(t, r.id); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	r.Wait()

	// A signal is not: it may have been sent.
	os.Remove(flag)
	r = h.start(command.Spec{Line: "sleep 1000"})
	if err := r.Signal(t.Context(), "CONT"); fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
	r.Cancel(t.Context(), 0)
	r.Wait()
}

func TestConnectionLostWhileStarting(t *testing.T) {
	h, _ := forced(t, `kill -9 $PPID; sleep 1`)
	_, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "true"}, newOutput().sink)
	if fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
}
