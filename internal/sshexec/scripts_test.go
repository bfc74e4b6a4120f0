package sshexec

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// The scripts without a connection: run by a shell here, so that a test can give
// them tools that fail.

// shelf is a directory for runs, and what a shell is to be started with.
type shelf struct {
	t     *testing.T
	facts *facts
	env   []string
}

func newShelf(t *testing.T) *shelf {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	dir := filepath.Join(t.TempDir(), "runs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &shelf{t: t, env: os.Environ(), facts: &facts{
		dirs: []string{dir}, newSession: "setsid", follow: "tail", boot: strings.TrimSpace(string(boot)), has: []string{"printf"},
	}}
}

// instead puts a program in front of those that are found.
func (s *shelf) instead(name, script string) {
	s.t.Helper()
	bin := s.t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.env = append(slices.Clone(s.env), "PATH="+bin+":"+os.Getenv("PATH"))
}

func (s *shelf) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.facts.dirs[0], name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// record gives the words of a file of a run.
func (s *shelf) record(name string) []string {
	b, _ := os.ReadFile(filepath.Join(s.facts.dirs[0], name))
	return strings.Fields(string(b))
}

// said is what a script has said by now, marks and all.
type said struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *said) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *said) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// follower is start.sh at work.
type follower struct {
	io.WriteCloser      // its standard input
	out, err       said // its streams
	ended          chan struct{}
}

// run starts start.sh for a run. The follower is ended with the test.
func (s *shelf) run(run Run, mode, now string) *follower {
	s.t.Helper()
	return s.follow(newDurable(nil, run, mode), mode, now)
}

func (s *shelf) follow(d *durable, mode, now string) *follower {
	s.t.Helper()
	d.facts, d.key = s.facts, strings.Repeat("K", nonceSize)
	f := &follower{ended: make(chan struct{})}
	cmd := exec.Command("/bin/sh")
	cmd.Env, cmd.Dir = s.env, s.t.TempDir()
	cmd.Stdout, cmd.Stderr = &f.out, &f.err
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	f.WriteCloser = in
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(f.ended)
	}()
	s.t.Cleanup(func() {
		in.Close()
		<-f.ended
	})
	io.WriteString(in, "now="+now+"\n"+d.startScript(strings.Repeat("N", nonceSize), mode))
	return f
}

// await waits until standard error has a mark with these words.
func (f *follower) await(t *testing.T, words string) {
	t.Helper()
	eventually(t, words, func() bool { return strings.Contains(f.err.String(), ": "+words) })
}

func runOf(text string) Run {
	return Run{ID: newID(), Fence: 1, Spec: &command.Spec{Line: text}}
}

// A listing that failed is no proof that nobody is left.
func TestLadderWithoutAwk(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.instead("awk", "exit 127")
	id := newID()
	victim := exec.Command("sleep", "1000")
	victim.Env = append(os.Environ(), "TELEXEC_ID="+id)
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer victim.Wait()
	defer victim.Process.Kill()
	cmd := exec.Command("/bin/sh")
	cmd.Env = s.env
	vars := identity{boot: "-", start: "-"}.vars(id, "nonce", "N", "grace_int", "1", "grace_term", "1")
	cmd.Stdin = strings.NewReader(vars + ladderScript)
	out, err := cmd.Output()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), " none") {
		t.Errorf("%q %v", out, err)
	}
}

// A piece of input that is long on its way has come by another one meanwhile.
func TestInputThatComesLate(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	for name, newer := range map[string]string{"late": "1 key", "superseded": "9 key"} {
		id := newID()
		s.write(id+".st", "run boot 1 1 1 1 run\n")
		s.write(id+".f", "1 key 1\n")
		s.write(id+".n", fmt.Sprintf("%-120s%s", "0", "0"))
		piece := func(from, size int, in io.Reader) *exec.Cmd {
			cmd := exec.Command("/bin/sh", "-c", newline+inputHead+fmt.Sprintf("nonce=N dir=%s id=%s fence=1 from=%d size=%d eof=no; ",
				expression(s.facts.dirs[0]), id, from, size)+inputTail)
			cmd.Stdin = in
			return cmd
		}
		late, in := io.Pipe()
		first := piece(0, 5, late)
		answer := make(chan string, 1) // sent to once
		go func() {
			out, _ := first.Output()
			answer <- string(out)
		}()
		eventually(t, "the first is on its way", func() bool {
			found, _ := filepath.Glob(filepath.Join(s.facts.dirs[0], id+".in_*"))
			return len(found) > 0
		})
		for from := 0; from < 10; from += 5 {
			if out, err := piece(from, 5, strings.NewReader("again")).Output(); err != nil || string(out) != fmt.Sprintf("telexec:N: took %d\n", from+5) {
				t.Errorf("%q %v", out, err)
			}
		}
		s.write(id+".f", newer+"\n")
		io.WriteString(in, "first")
		in.Close()
		want := map[string]string{"late": "telexec:N: took 10\n", "superseded": "telexec:N: superseded\n"}[name]
		if got := <-answer; got != want || s.record(id + ".n")[0] != "10" || s.record(id + ".in.0.5")[0] != "again" {
			t.Errorf("%s: %q, and it stands at %v", name, got, s.record(id+".n"))
		}
	}
}

// Whichever shell above a command with open input is killed: when the command is
// gone, so is the run.
func TestKillAboveACommandWithInput(t *testing.T) {
	t.Parallel()
	for up := 1; up <= 2; up++ {
		h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
		k := h.durably(command.Spec{Line: "echo up; read x; exit 3", StdinOpen: true})
		k.await(t, has("up"))
		pid := h.record(k.run.ID, ".st")[2]
		above := pid
		for range up {
			above = parentOf(t, above)
		}
		n, _ := strconv.Atoi(above)
		syscall.Kill(n, syscall.SIGKILL)
		k.Input(t.Context(), []byte("x\n"), false) // where the first above is gone, the input may have ended
		e, err := k.Wait()
		if up == 1 && fault.ReasonOf(err) != fault.ReasonSupervisorKilled || up == 2 && (err != nil || code(e) != "3") {
			t.Errorf("%d up: %s %v", up, code(e), err)
		}
		k.Collected()
		<-k.Process.(*durable).through
	}
}

func parentOf(t *testing.T, pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[1]
}

// What hands over the output fails: then nobody says that it was all.
func TestToolThatFailsInMidOutput(t *testing.T) {
	t.Parallel()
	for tool, script := range map[string]string{
		"tail": `head -c 4 "$3"; exit 1`,
		"cat":  `[ -e /proc/self/fd/6 ] && exec /bin/cat "$@"; head -c 4 "$1"; exit 1`,
	} {
		s := newShelf(t)
		run := runOf("echo one; echo two")
		if tool == "tail" {
			f := s.run(run, modeStart, "yes")
			f.await(t, "done")
		}
		s.instead(tool, script)
		mode, now := modeResume, "yes"
		if tool == "cat" {
			mode, now = modeStart, "no"
		}
		f := s.run(run, mode, now)
		eventually(t, "the end of the run", func() bool { r := s.record(run.ID + ".st"); return len(r) > 0 && r[0] == "done" })
		if tool == "tail" {
			<-f.ended
		} else {
			io.WriteString(f, "state\n")
			f.await(t, "state final exit 0")
		}
		if out := f.out.String() + f.err.String(); strings.Contains(out, ": end\n") || strings.Contains(out, ": done ") {
			t.Errorf("%s: %q", tool, out)
		}
	}
}

// A host where the place of the runs is not to be had may have run it before.
func TestRetryWithoutTheDirectory(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{modeStart: "nodir", modeRetry: "none"} {
		s := newShelf(t)
		os.Remove(s.facts.dirs[0])
		f := s.run(runOf("true"), mode, "yes")
		f.await(t, want)
	}
}

// One directory has the word that a run never starts: that is enough.
func TestTombstoneInAnotherDirectory(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	second := filepath.Join(t.TempDir(), "more")
	if err := os.Mkdir(second, 0o700); err != nil {
		t.Fatal(err)
	}
	s.facts.dirs = append(s.facts.dirs, second)
	run := runOf("echo ran")
	s.run(run, modeVoid, "yes").await(t, "never")
	if err := os.Remove(filepath.Join(s.facts.dirs[0], run.ID+".go")); err != nil {
		t.Fatal(err)
	}
	s.run(run, modeStart, "yes").await(t, "never")
}

// What was not on the disk when the host fell over does not tell that nothing ran.
func TestClaimOfAnotherBoot(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	run := runOf("true")
	record := "claim 00000000-0000-0000-0000-000000000000 1:1"
	s.write(run.ID+".st", fmt.Sprintf("%-120s%s\n", record, "claim"))
	s.run(run, modeResume, "yes").await(t, "final "+strings.Repeat("K", nonceSize)+" rebooted")
	run = runOf("true")
	d := newDurable(nil, run, modeStart)
	d.again = true // it was sent when the host had another boot id
	s.facts.boot = "00000000-0000-0000-0000-000000000000"
	s.follow(d, modeRetry, "yes").await(t, "none")
}

// Who follows a run that is just being claimed, as a cancel does that overtakes the
// start, follows both of its streams.
func TestRunThatIsJustClaimed(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.facts.has = nil // cat writes the command file
	gate := filepath.Join(t.TempDir(), "gate")
	s.instead("cat", fmt.Sprintf(`[ -e %[1]s ] || { true >%[1]s.reached; while [ ! -e %[1]s ]; do sleep 0.01; done; }; exec /bin/cat "$@"`, gate))
	run := runOf("echo hello")
	s.run(run, modeStart, "yes")
	eventually(t, "the start is held up", func() bool { _, err := os.Stat(gate + ".reached"); return err == nil })
	f := s.run(run, modeVoid, "yes")
	f.await(t, "live ")
	eventually(t, "it follows", func() bool { return len(s.record(run.ID+".f")) > 5 })
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end on both streams", func() bool {
		return strings.Contains(f.out.String(), ": done exit 0") && strings.Contains(f.err.String(), ": done exit 0")
	})
}

// Who asks sudo for a password may do so in words of his own, without a line end.
func TestSudoThatAsksInItsOwnWords(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.instead("sudo", `printf 'Password for ann: ' >&2; IFS= read -r word; [ "$word" = secret ] || exit 1
while [ "$1" != -- ]; do shift; done; shift; exec "$@"`)
	run := runOf("echo did >&2; exit 3")
	run.Spec.Sudo = &command.Sudo{NeedsPassword: true, Password: secret.New("secret")}
	f := s.run(run, modeStart, "yes")
	f.await(t, "done exit 3")
	// Between them stands what the follower says.
	if asked, did, ok := strings.Cut(f.err.String(), "Password for ann: "); !ok || !strings.Contains(did, "did\n") {
		t.Errorf("%q, %q", asked, did)
	}
}

// What a login's environment makes every program say is not the word of a shell
// about a signal.
func TestCodeThatLooksLikeASignal(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.env = append(s.env, "LD_PRELOAD=/nonexistent/lib.so")
	for text, want := range map[string]string{"exit 143": "done exit 143", "kill -s TERM $$": "done signal TERM"} {
		s.run(runOf(text), modeStart, "yes").await(t, want)
	}
}

// A tail that was killed is noticed when the service asks, and so is an older
// owner that has woken up.
func TestFollowerThatWasHurt(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	run := runOf("sleep 1000")
	f := s.run(run, modeStart, "yes")
	f.await(t, "run ")
	defer func() {
		pid, _ := strconv.Atoi(s.record(run.ID + ".st")[2])
		syscall.Kill(pid, syscall.SIGKILL)
		eventually(t, "the end of the run", func() bool { return s.record(run.ID + ".st")[0] == "done" })
	}()
	hold := s.record(run.ID + ".f")
	s.write(run.ID+".f", fmt.Sprintf("%-120s%s\n", "0 "+strings.Join(hold[1:len(hold)-1], " "), "0"))
	io.WriteString(f, "state\n")
	f.await(t, "state live")
	if now := s.record(run.ID + ".f"); !slices.Equal(now, hold) {
		t.Errorf("%q, and was %q", now, hold)
	}
	tail, _ := strconv.Atoi(hold[4])
	syscall.Kill(tail, syscall.SIGKILL)
	eventually(t, "the tail is gone", func() bool { return !alive(hold[4]) })
	io.WriteString(f, "state\n")
	<-f.ended
}

// Nothing but what follows is ended with the follower, whoever has the numbers by
// then.
func TestFollowerEndsNobodyElse(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	run := runOf("sleep 1000")
	f := s.run(run, modeStart, "yes")
	f.await(t, "run ")
	hold := s.record(run.ID + ".f")
	f.Close()
	<-f.ended
	for _, tail := range hold[4:6] {
		eventually(t, "the end of a tail", func() bool { return !alive(tail) })
	}
	pid, _ := strconv.Atoi(s.record(run.ID + ".st")[2])
	if err := syscall.Kill(pid, 0); err != nil {
		t.Error("the command went with its follower:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	syscall.Kill(pid, syscall.SIGKILL)
	for s.record(run.ID + ".st")[0] != "done" && pause(ctx, 10*time.Millisecond) {
	}
}

// Whatever a process calls itself, the ladder ends nothing but what it is for, and
// misses nothing.
func TestNamesOfProcessesAreNoOrders(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	sleeper := func(id, name string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", `printf %s "$1" >/proc/$$/comm; echo; read x`, "sh", name)
		if id != "" {
			cmd.Env = append(os.Environ(), "TELEXEC_ID="+id)
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	id := newID()
	bystander := sleeper("", "bystander")
	pid := strconv.Itoa(bystander.Process.Pid)
	for _, name := range []string{"\n" + pid + "/environ ", "\nseen " + pid + ":1", "\n" + pid + " (x) S 1", "\xe2\x82"} {
		sleeper("", name)
	}
	for _, name := range []string{"a\nb", "x) S 1 (y", "\xe2\x82"} {
		sleeper(id, name)
	}
	cmd := exec.Command("/bin/sh")
	cmd.Env = append(s.env, "LC_ALL=C.UTF-8")
	cmd.Stdin = strings.NewReader(identity{boot: "-", start: "-"}.vars(id, "nonce", "N", "grace_int", "0", "grace_term", "20") + ladderScript)
	out, err := cmd.Output()
	if err != nil || string(out) != "telexec:N: done TERM 3 0 proc\n" {
		t.Errorf("%q %v", out, err)
	}
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil || !alive(pid) {
		t.Error("the bystander was ended")
	}
}

// A spool that was removed while nobody looked is missed, and nothing takes its place.
func TestSpoolThatIsGoneAtTheEnd(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	k := h.durably(command.Spec{Line: "echo up; sleep 0.5; echo more; exit 3"})
	k.await(t, has("up"))
	if err := os.Remove(h.file(k.run.ID, ".o")); err != nil {
		t.Fatal(err)
	}
	h.server.KillSessions()
	e, err := k.Wait()
	if fault.ReasonOf(err) != fault.ReasonOutputIncomplete || code(e) != "3" || k.text(command.Stdout) != "up\n" {
		t.Errorf("%s %v %q", code(e), err, k.text(command.Stdout))
	}
	k.Collected()
	<-k.Process.(*durable).through
}
