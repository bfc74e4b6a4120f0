package sshexec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// file gives the path of one file of a run.
func (h *host) file(id, name string) string {
	h.t.Helper()
	f, err := h.runner.facts(h.t.Context(), h.inv)
	if err != nil {
		h.t.Fatal(err)
	}
	return filepath.Join(f.dirs[0], id+name)
}

// rewrite changes a record of a run, which keeps its form.
func (h *host) rewrite(id, name string, change func(words []string) []string) {
	h.t.Helper()
	words := change(h.record(id, name))
	words = words[:len(words)-1]
	line := strings.Join(words, " ")
	line += strings.Repeat(" ", max(0, 120-len(line))) + words[0] + "\n"
	if err := os.WriteFile(h.file(id, name), []byte(line), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) filesOf(id string) []string {
	h.t.Helper()
	all, err := filepath.Glob(h.file(id, ".*"))
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func TestEveryExitCode(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	for i := 0; i < 256; i += 5 {
		k := h.durably(command.Spec{Line: "exit " + strconv.Itoa(i) + " "})
		if e := k.end(t); code(e) != strconv.Itoa(i) || e.Signal != "" {
			t.Errorf("exit %d: %s", i, code(e))
		}
	}
}

// A shell does not speak of SIGINT and SIGPIPE, so these two stay codes.
func TestEverySignal(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	for _, name := range []string{"HUP", "INT", "QUIT", "ILL", "ABRT", "FPE", "KILL", "USR1", "SEGV", "PIPE", "ALRM", "TERM", "XCPU", "SYS", "BUS"} {
		want := "signal " + name
		switch name {
		case "INT":
			want = "130"
		case "PIPE":
			want = "141"
		}
		k := h.durably(command.Spec{Line: "kill -s " + name + " $$; sleep 1"})
		if e := k.end(t); code(e) != want {
			t.Errorf("%s: %s", name, code(e))
		}
	}
}

func TestCoreDump(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{})
	k := h.durably(command.Spec{Line: "ulimit -c unlimited 2>/dev/null; cd $(mktemp -d) && trap 'rm -rf $PWD' EXIT; sh -c 'kill -SEGV $$'; exec sh -c 'kill -SEGV $$'"})
	if e := k.end(t); e.Signal != "SEGV" {
		t.Errorf("%+v", e)
	}
}

// An owner whose fence is lower may neither follow, nor send, nor end, nor remove.
func TestFence(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	k := h.durably(command.Spec{Line: "echo up; cat; exit 3", StdinOpen: true})
	k.await(t, has("up"))
	h.rewrite(k.run.ID, ".f", func(w []string) []string { w[0] = "7"; return w })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := k.Input(ctx, []byte("x"), false); fault.ReasonOf(err) != fault.ReasonSuperseded {
		t.Error("input:", err)
	}
	if err := k.Signal(ctx, "KILL"); fault.ReasonOf(err) != fault.ReasonSuperseded {
		t.Error("signal:", err)
	}
	if r, err := k.Cancel(ctx, 0); fault.ReasonOf(err) != fault.ReasonSuperseded {
		t.Error("cancel:", r, err)
	}
	run := k.run
	run.Fence, run.Output = 6, newOutput().sink
	if _, err := h.runner.Resume(ctx, run); fault.ReasonOf(err) != fault.ReasonSuperseded {
		t.Error("resume:", err)
	}
	if _, err := h.runner.Start(ctx, run); fault.ReasonOf(err) != fault.ReasonSuperseded {
		t.Error("start:", err)
	}
	k.Close()
	k.Collected()
	d := k.Process.(*durable)
	<-d.through
	if err := d.removeFiles(ctx); err != nil {
		t.Error(err)
	}
	if n := len(h.filesOf(k.run.ID)); n < 5 {
		t.Errorf("%d files are left", n)
	}
	again := h.resumed(k, 8)
	if n, err := again.Input(ctx, []byte("y"), true); err != nil || n != 1 {
		t.Error(n, err)
	}
	if e := again.end(t); code(e) != "3" || again.text(command.Stdout) != "up\ny" {
		t.Error(code(e), again.text(command.Stdout))
	}
	if left := h.filesOf(k.run.ID); len(left) > 0 {
		t.Error(left)
	}
}

// What has become of a run is told from what is left of it.
func TestWhatBecameOfARun(t *testing.T) {
	t.Parallel()
	const boot = 1 // the word of a record that has the boot id
	gone := func(h *host, id string) {
		for _, pid := range marked(h.t, id) {
			n, _ := strconv.Atoi(pid)
			syscall.Kill(n, syscall.SIGKILL)
		}
	}
	for _, c := range []struct {
		name    string
		happens func(h *host, k kept)
		reason  string
		code    string
	}{
		{"reboot", func(h *host, k kept) {
			h.rewrite(k.run.ID, ".st", func(w []string) []string { w[boot] = "another-boot"; return w })
		}, fault.ReasonHostRebooted, ""},
		{"reboot behind the exit", func(h *host, k kept) {
			h.rewrite(k.run.ID, ".st", func(w []string) []string {
				return []string{"exit", "another-boot", w[2], w[3], w[4], w[5], "7", "exit"}
			})
		}, fault.ReasonOutputIncomplete, "7"},
		{"torn by a reboot", func(h *host, k kept) {
			h.rewrite(k.run.ID, ".b", func(w []string) []string { w[boot] = "another-boot"; return w })
			os.Truncate(h.file(k.run.ID, ".st"), 10)
		}, fault.ReasonHostRebooted, ""},
		{"torn, and nobody lives", func(h *host, k kept) {
			os.Truncate(h.file(k.run.ID, ".st"), 10)
			os.Truncate(h.file(k.run.ID, ".b"), 0)
		}, fault.ReasonSupervisorKilled, ""},
		{"record removed", func(h *host, k kept) { os.Remove(h.file(k.run.ID, ".st")) }, fault.ReasonRunRemoved, ""},
		{"all removed", func(h *host, k kept) {
			for _, f := range h.filesOf(k.run.ID) {
				os.Remove(f)
			}
		}, fault.ReasonRunRemoved, ""},
		{"foreign record", func(h *host, k kept) {
			h.rewrite(k.run.ID, ".st", func([]string) []string { return []string{"exit", "2", "exit"} })
			h.rewrite(k.run.ID, ".b", func(w []string) []string { w[0] = "1:1"; return w })
		}, fault.ReasonNoExitStatus, ""},
		{"killed, all of it", func(h *host, k kept) {
			f := h.record(k.run.ID, ".f")
			leader, _, _ := strings.Cut(f[3], ":")
			for _, pid := range append(supervisors(h.t, leader), h.record(k.run.ID, ".st")[2]) {
				n, _ := strconv.Atoi(pid)
				syscall.Kill(n, syscall.SIGKILL)
			}
		}, fault.ReasonSupervisorKilled, ""},
		{"pid recycled", func(h *host, k kept) {
			h.rewrite(k.run.ID, ".st", func(w []string) []string { w[5] = "17"; return w })
			h.rewrite(k.run.ID, ".b", func(w []string) []string { w[0] = "1:17"; return w })
		}, fault.ReasonSupervisorKilled, ""},
	} {
		for _, how := range []string{"while it is followed", "before it is followed again"} {
			t.Run(c.name+" "+how, func(t *testing.T) {
				t.Parallel()
				h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
				h.runner.askAfter = 100 * time.Millisecond
				k := h.durably(command.Spec{Line: "echo up; sleep 1000"})
				k.await(t, has("up"))
				eventually(t, "it is followed", func() bool { return len(h.record(k.run.ID, ".f")) >= 6 })
				defer gone(h, k.run.ID)
				p := k.Process
				var err error
				if how == "while it is followed" {
					c.happens(h, k)
				} else {
					k.Close()
					c.happens(h, k)
					run := k.run
					run.Fence, run.Output = 2, newOutput().sink
					p, err = h.runner.Resume(t.Context(), run)
				}
				var e command.Ending
				if err == nil {
					e, err = p.Wait()
					p.Collected()
					<-p.(*durable).through
				}
				if fault.ReasonOf(err) != c.reason || c.code != "" && code(e) != c.code {
					t.Errorf("%v %v", e, err)
				}
			})
		}
	}
}

// What a spool cannot hold is drained; the command goes on, and the place of the
// cut is told.
func TestSpoolLimit(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	h.inv.SpoolLimit = 64 << 10
	for _, c := range []struct {
		line     string
		out, err int64
	}{
		{"head -c 200000 /dev/zero; echo done >&2; exit 3", 64 << 10, -1},
		{"head -c 200000 /dev/zero >&2; sleep 0.1; head -c 100000 /dev/zero; exit 3", 64 << 10, 64 << 10},
		{"head -c 65536 /dev/zero; exit 3", -1, -1},
		{"head -c 65537 /dev/zero; exit 3", 64 << 10, -1},
	} {
		k := h.durably(command.Spec{Line: c.line})
		e := k.end(t)
		cut := command.Sizes{-1, -1}
		if e.Truncation != nil {
			cut = e.Truncation.Offset
		}
		if code(e) != "3" || cut != (command.Sizes{c.out, c.err}) {
			t.Errorf("%q: %s, %+v", c.line, code(e), e.Truncation)
		}
		for _, s := range command.Streams {
			if cut[s] >= 0 && int64(len(k.text(s))) != cut[s] {
				t.Errorf("%q: %d bytes came of stream %v", c.line, len(k.text(s)), s)
			}
		}
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	m := sshtest.StartMachine(t, sshtest.MachineOptions{Accounts: []sshtest.Account{{Name: "small", SmallDisk: 1 << 20}}})
	h := on(t, m, "small")
	h.durably(command.Spec{Line: "true"}).end(t)
	// Full before the start.
	m.Fill("small")
	for _, spec := range []command.Spec{{Line: "echo ran >/tmp/never"}, {Line: "true", Stdin: []byte("x")}, {Line: "true", StdinOpen: true}} {
		run := Run{ID: newID(), Host: h.inv, Spec: &spec, Fence: 1, Output: newOutput().sink}
		if _, err := h.runner.Start(t.Context(), run); fault.ReasonOf(err) != fault.ReasonNoSpace {
			t.Error(err)
		}
		if left := h.filesAt(m, "small", run.ID); len(left) > 0 {
			t.Error(left)
		}
	}
	m.Free("small")
	// Full while it runs.
	k := h.durably(command.Spec{Line: "echo up; sleep 0.3; head -c 2000000 /dev/zero; echo err >&2; exit 3"})
	k.await(t, has("up"))
	m.Fill("small")
	e := k.end(t)
	if code(e) != "3" || e.Truncation == nil || e.Truncation.Offset[command.Stdout] != int64(len(k.text(command.Stdout))) {
		t.Errorf("%s, %+v, %d bytes", code(e), e.Truncation, len(k.text(command.Stdout)))
	}
	m.Free("small")
}

// filesAt lists the files of a run on a machine.
func (h *host) filesAt(m *sshtest.Machine, account, id string) []string {
	all, err := filepath.Glob(m.Path(account, "~/.local/state/telexec/"+id+"*"))
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func TestReboot(t *testing.T) {
	t.Parallel()
	m := sshtest.StartMachine(t, sshtest.MachineOptions{OwnPIDs: true})
	h := on(t, m, "root")
	k := h.durably(command.Spec{Line: "echo up; sleep 1000"})
	k.await(t, has("up"))
	m.Reboot()
	if _, err := k.Wait(); fault.ReasonOf(err) != fault.ReasonHostRebooted {
		t.Error(err)
	}
	k.Collected()
	<-k.Process.(*durable).through
	if left := m.Leftovers(k.run.ID); len(left) > 0 {
		t.Error(left)
	}
}

// Clean removes what is through and ended, what is a week old, and strays; and
// nothing that lives.
func TestClean(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	stop := func(k kept) { k.Wait(); k.Close(); <-k.Process.(*durable).through }
	ended, mine, old := h.durably(command.Spec{Line: "true"}), h.durably(command.Spec{Line: "true"}), h.durably(command.Spec{Line: "true"})
	for _, k := range []kept{ended, mine, old} {
		stop(k)
	}
	live := h.durably(command.Spec{Line: "echo up; sleep 1000"})
	live.await(t, has("up"))
	ago := time.Now().Add(-8 * 24 * time.Hour)
	for _, f := range append(h.filesOf(old.run.ID), h.filesOf(live.run.ID)...) {
		if err := os.Chtimes(f, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	stray, foreign := h.file("STRAY"+newID(), ".in_1"), h.file("a b", ".st")
	for _, f := range []string{stray, foreign} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(f, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	n, err := h.runner.Clean(t.Context(), h.inv, func(id string, isOld bool) bool {
		if isOld != (id == old.run.ID) {
			t.Errorf("%s: old %t", id, isOld)
		}
		return isOld || id == ended.run.ID || id == live.run.ID
	})
	if err != nil || n < 2 {
		t.Error(n, err)
	}
	for k, want := range map[*kept]bool{&ended: false, &mine: true, &old: false, &live: true} {
		if got := len(h.filesOf(k.run.ID)) > 0; got != want {
			t.Errorf("%v: %v", k.run.Spec.Line, h.filesOf(k.run.ID))
		}
	}
	if _, err := os.Stat(stray); err == nil {
		t.Error("the stray is still there")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("somebody else's file was removed")
	}
	os.Remove(foreign)
	if r, err := live.Cancel(t.Context(), grace); err != nil || r.Outcome != command.Gone {
		t.Error(r, err)
	}
	live.end(t)
	mine.Collected()
	mine.Process.(*durable).removeFiles(t.Context())
}

// Collected and Close, in every order and more than once.
func TestCollectedAndClosed(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	for name, f := range map[string]func(p Process){
		"collected":         func(p Process) { p.Wait(); p.Collected(); p.Collected() },
		"closed, collected": func(p Process) { p.Wait(); p.Close(); p.Close(); p.Collected() },
		"collected, closed": func(p Process) { p.Wait(); p.Collected(); p.Close() },
		"at once":           func(p Process) { p.Wait(); go p.Close(); p.Collected() },
		"closed before":     func(p Process) { p.Close(); p.Wait(); p.Collected() },
	} {
		k := h.durably(command.Spec{Line: "sleep 0.05"})
		f(k.Process)
		<-k.Process.(*durable).through
		eventually(t, name+": the files are removed", func() bool { return len(h.filesOf(k.run.ID)) == 0 })
	}
}

// A sink that never returns does not keep Close from doing so.
func TestCloseWithABlockedSink(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	blocked, free := make(chan struct{}), make(chan struct{})
	calls := 0
	run := Run{ID: newID(), Host: h.inv, Fence: 1, Spec: &command.Spec{Line: "echo a; sleep 0.1; echo b; sleep 1000"},
		Output: func(command.Stream, []byte) error {
			if calls++; calls == 1 {
				close(blocked)
			}
			<-free
			return nil
		}}
	p, err := h.runner.Start(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	<-blocked
	p.Close()
	if _, err := p.Wait(); fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
	d := p.(*durable)
	<-d.through
	close(free)
	if r, err := p.Cancel(t.Context(), 0); err != nil || r.Outcome != command.Gone {
		t.Error(r, err)
	}
	p.Collected()
	eventually(t, "the files are removed", func() bool { return len(h.filesOf(run.ID)) == 0 })
}

// A sink that fails costs the rest of its stream, and is not called again.
func TestSinkThatFails(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	calls := 0
	o := newOutput()
	run := Run{ID: newID(), Host: h.inv, Fence: 1, Spec: &command.Spec{Line: "echo a; sleep 0.1; echo b; echo c >&2; exit 3"},
		Output: func(s command.Stream, data []byte) error {
			if s == command.Stdout {
				calls++
				return errSink
			}
			return o.sink(s, data)
		}}
	p, err := h.runner.Start(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.Wait()
	if code(e) != "3" || !errors.Is(err, errSink) || fault.ReasonOf(err) != fault.ReasonOutputIncomplete || calls != 1 || o.text(command.Stderr) != "c\n" {
		t.Error(code(e), err, calls, o.text(command.Stderr))
	}
	p.Collected()
	<-p.(*durable).through
}

// The end of Start's context gives the start up, at any time.
func TestStartGivenUp(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	h.durably(command.Spec{Line: "true"}).end(t)
	for i := range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		run := Run{ID: newID(), Host: h.inv, Fence: 1, Spec: &command.Spec{Line: "sleep 1000"}, Output: newOutput().sink}
		p, err := h.runner.Start(ctx, run)
		cancel()
		switch {
		case err == nil:
			p.Close()
		case !errors.Is(err, context.DeadlineExceeded) && fault.ReasonOf(err) != fault.ReasonConnectionLost:
			t.Error(err)
		}
		run.Void, run.Fence = true, 2
		p, err = h.runner.Resume(t.Context(), run)
		if err != nil {
			if r := fault.ReasonOf(err); r != fault.ReasonNeverStarted && r != fault.ReasonStartFailed {
				t.Error(err)
			}
			continue
		}
		if r, err := p.Cancel(t.Context(), 0); err != nil {
			t.Error(r, err)
		}
		p.Wait()
		p.Collected()
		<-p.(*durable).through
	}
}

// Where the host stays away, the run is given up in time, and Resume when its
// context ends.
func TestHostThatStaysAway(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	h.runner.opts.ReconnectTimeout = 200 * time.Millisecond
	k := h.durably(command.Spec{Line: "echo up; sleep 1000"})
	k.await(t, has("up"))
	h.server.Stop()
	if _, err := k.Wait(); fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
	k.Close()
	<-k.Process.(*durable).through
	h.runner.opts.ReconnectTimeout = time.Hour
	told := make(chan error, 100)
	run := k.run
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run.Link = func(why error) {
		told <- why
		time.AfterFunc(400*time.Millisecond, cancel) // some attempts more
	}
	if _, err := h.runner.Resume(ctx, run); fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
	if why := <-told; why == nil || len(told) > 0 {
		t.Error(why, len(told))
	}
	h.server.Restart()
	again := h.resumed(k, 3)
	if r, err := again.Cancel(t.Context(), grace); err != nil || r.Outcome != command.Gone {
		t.Error(r, err)
	}
	again.end(t)
}
