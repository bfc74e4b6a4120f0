package sshexec

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// Nothing that may have run is said not to have started, whatever became of its
// greeting.
func TestStartThatIsNotHeard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, forced, line, said string }{
		// The server stands still just when the command is started.
		{"frozen", "kill -STOP $PPID", "touch $D/ran", "could not be found out"},
		{"greeting dropped", "exec 2>/dev/null", "touch $D/ran; sleep 100", "what was found of it there was ended"},
		{"short, greeting dropped", "exec 2>/dev/null", "touch $D/ran; exec 1>&-; sleep 100; true", "what was found of it there was ended"},
		{"behind a megabyte", "head -c 3000000 /dev/zero >&2", "touch $D/ran", "megabyte"},
		// Not much more, for after a second it is looked for.
		{"behind a megabyte, still running", "head -c 1100000 /dev/zero >&2", "touch $D/ran; sleep 100", "what was found of it there was ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, flag := forced(t, isControl+` || { `+c.forced+`; }`)
			control := 10 * time.Second
			if c.name == "frozen" {
				control = 300 * time.Millisecond
			}
			h.runner = New(newDialer(t), Options{StartTimeout: 5 * time.Second, ControlTimeout: control})
			t.Cleanup(h.server.Resume) // before the dialer closes
			dir := filepath.Dir(flag)
			_, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: strings.ReplaceAll(c.line, "$D", dir)}, newOutput().sink)
			if f := fault.From(err); f == nil || !mayHaveStarted(f) || !strings.Contains(f.Message, c.said) {
				t.Errorf("%v", err)
			}
			eventually(t, "the command has run", func() bool {
				_, err := os.Stat(filepath.Join(dir, "ran"))
				return err == nil
			})
		})
	}
}

// A server tells the exit before the output that waits for room in the window.
// When the connection dies then, the exit is true and the rest of the output is
// said to be missing.
func TestConnectionLostBehindTheExit(t *testing.T) {
	h := start(t, sshtest.Options{})
	const size = 2_130_000
	var got bytes.Buffer
	blocked, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "head -c 2130000 /dev/zero; exit 5"}, func(_ command.Stream, data []byte) error {
		once.Do(func() { close(blocked) })
		<-free
		got.Write(data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-blocked
	eventually(t, "the exit is told", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.reported
	})
	h.server.KillSessions()
	<-p.ses.Lost
	close(free)
	exit, err := p.Wait()
	if got.Len() >= size {
		t.Fatalf("all %d bytes came", got.Len())
	}
	if code(exit) != "5" || fault.ReasonOf(err) != fault.ReasonOutputIncomplete || fault.From(err).Hint == "" {
		t.Errorf("%s, %v with %d of %d bytes", code(exit), err, got.Len(), size)
	}
}

// So too where the streams are read to the last byte that came.
func TestConnectionLostBehindTheExitWhileAChildHoldsTheOutput(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "sleep 1000 & echo parent; exit 5"})
	eventually(t, "the exit is told", func() bool {
		r.attached.mu.Lock()
		defer r.attached.mu.Unlock()
		return r.reported
	})
	h.server.KillSessions()
	if exit, err := r.Wait(); code(exit) != "5" || fault.ReasonOf(err) != fault.ReasonOutputIncomplete {
		t.Errorf("%s, %v", code(exit), err)
	}
	for _, pid := range carriers(t, r.id) {
		exec.Command("kill", "-KILL", pid).Run()
	}
}

// What the host told before Close is not thrown away by it.
func TestCloseBehindTheExit(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "sleep 1000 & echo parent; exit 5"})
	eventually(t, "the exit is told", func() bool {
		r.attached.mu.Lock()
		defer r.attached.mu.Unlock()
		return r.reported
	})
	r.Close()
	if exit, err := r.Wait(); code(exit) != "5" || fault.ReasonOf(err) != fault.ReasonOutputIncomplete {
		t.Errorf("%s, %v", code(exit), err)
	}
	for _, pid := range carriers(t, r.id) {
		exec.Command("kill", "-KILL", pid).Run()
	}
	<-r.Done()
	if exit, err := r.Wait(); code(exit) != "5" || fault.ReasonOf(err) != fault.ReasonOutputIncomplete {
		t.Errorf("when the channel has ended: %s, %v", code(exit), err)
	}
}

// Where the processes of others cannot be seen, nothing is proven gone; and ps
// alone finds nothing of which no pid is known.
func TestLadderThatCannotSeeAll(t *testing.T) {
	h := start(t, sshtest.Options{})
	nobody := identity{boot: "-", start: "-"}
	for how, hide := range map[string]string{
		// As with hidepid: init is not to be seen, and this is not root.
		"own":  "id() { echo 1000; }\nproc=" + ownProc(t) + "\n",
		"none": "proc=/nonexistent\n",
	} {
		lines, err := h.runner.ask(t.Context(), h.inv, nobody.vars(newID(), "grace_int", "0", "grace_term", "0")+hide+ladderScript)
		if err != nil {
			t.Fatal(err)
		}
		report, err := hostshell.ParseReport(lines)
		if err != nil || report.Outcome != command.Unproven || !strings.HasSuffix(lines[0], how) {
			t.Errorf("%s: %q, %+v, %v", how, lines, report, err)
		}
	}
}

// ownProc makes a copy of /proc as far as a shell needs it to see itself: a
// directory whose self-made entries are links, without one for init.
func ownProc(t *testing.T) string {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	// Which pid the shell gets is not known before: any but 1.
	for _, name := range []string{"uptime", "sys", "self"} {
		if err := os.Symlink("/proc/"+name, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir + "; ln -s /proc/$$ $proc/$$"
}
