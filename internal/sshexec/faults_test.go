package sshexec

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// tampering is a dialer that changes the first start of a run on its way, or the
// first script of another mode.
type tampering struct {
	*dialer
	mode   string // empty: modeStart
	script func(script []byte) []byte
	sent   func() // called behind it
	done   atomic.Bool
}

func (d *tampering) Open(ctx context.Context, host inventory.Host) (Session, error) {
	ses, err := d.dialer.Open(ctx, host)
	if err == nil {
		ses.Channel = &tampered{ses.Channel, d}
	}
	return ses, err
}

type tampered struct {
	ssh.Channel
	d *tampering
}

func (c *tampered) Write(b []byte) (int, error) {
	d := c.d
	if !bytes.Contains(b, []byte("\nmode="+command.Quote(cmp.Or(d.mode, modeStart))+"\n")) || d.done.Swap(true) {
		return c.Channel.Write(b)
	}
	script := b
	if d.script != nil {
		script = d.script(b)
	}
	if _, err := c.Channel.Write(script); err != nil {
		return 0, err
	}
	if d.sent != nil {
		d.sent()
	}
	return len(b), nil
}

// counted gives a command that counts its starts in a file.
func counted(t *testing.T, line string) (spec *command.Spec, starts func() int) {
	t.Helper()
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "starts")
	return &command.Spec{Line: "echo x >>" + file + "; " + line}, func() int {
		b, _ := os.ReadFile(file)
		return bytes.Count(b, []byte("x"))
	}
}

// unhurried is an askAfter that leaves a follower the time to look at a run that
// seems dead as often as it does, which is four times a tenth of a second and
// more where there is much else to do: it has twice as long to answer.
const unhurried = 500 * time.Millisecond

// outcome starts a run and sees it to its end.
func (h *host) outcome(run Run) (e command.Ending, out string, err error) {
	o := newOutput()
	run.Output = o.sink
	ctx, cancel := context.WithTimeout(h.t.Context(), 90*time.Second)
	defer cancel()
	p, err := h.runner.Start(ctx, run)
	if err != nil {
		return e, "", err
	}
	e, err = p.Wait()
	p.Collected()
	<-p.(*durable).through
	return e, o.text(command.Stdout), err
}

// Whatever is killed at whatever point of a start, the command starts at most
// once, and what is said of it is true.
func TestStartThatIsKilledOnTheWay(t *testing.T) {
	t.Parallel()
	const self = `myself; kill -s KILL "${me%%:*}"; `
	for _, c := range []struct {
		name, at, with string
		far            bool
		reason         string // of the error; empty: none
		starts         int
		code           string
	}{
		{"claimer", "  [ $mode = start ] || true >\"$id.k\"", "kill -s KILL $$; ", false, fault.ReasonStartFailed, 0, ""},
		{"behind the greeting", "  exec 7<&0", "kill -s KILL $$; ", false, fault.ReasonStartFailed, 0, ""},
		{"finisher", "    put \"$id.b\"", self, false, fault.ReasonOutputIncomplete, 1, "3"},
		{"follower", "    exec <&7", self, false, "", 1, "3"},
		{"follower, far", "    exec <&7", self, true, "", 1, "3"},
		{"command before it is let go", "[ -e \"$telexec_id.st\" ]", "kill -s KILL $$; ", false, fault.ReasonStartFailed, 0, ""},
		{"command behind that", "telexec_stat=\n", "kill -s KILL $$; ", false, fault.ReasonStartFailed, 0, ""},
		{"conductor", "  x=$?", self, false, fault.ReasonSupervisorKilled, 1, ""},
		{"at the end", "  put \"$id.st\" \"done $how\"", self, false, fault.ReasonOutputIncomplete, 1, "3"},
		{"behind the end", "  if [ \"$now\" = no ] && ", self, false, "", 1, "3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
			d := &tampering{dialer: newDialer(t), script: func(b []byte) []byte {
				if c.far {
					b = bytes.Replace(b, []byte("now=no"), []byte("now=yes"), 1)
				} else {
					b = bytes.Replace(b, []byte("now=yes"), []byte("now=no"), 1)
				}
				if !bytes.Contains(b, []byte(c.at)) {
					t.Errorf("the script has no %q", c.at)
				}
				return bytes.Replace(b, []byte(c.at), []byte(c.with+strings.TrimLeft(c.at, " ")), 1)
			}}
			h.runner = New(d, Options{StartTimeout: 3 * time.Second})
			h.runner.askAfter = unhurried
			spec, starts := counted(t, "echo out; sleep 0.2; exit 3")
			run := Run{ID: newID(), Host: h.inv, Spec: spec, Fence: 1}
			e, out, err := h.outcome(run)
			if fault.ReasonOf(err) != c.reason || c.code != "" && code(e) != c.code {
				t.Errorf("%+v, %v", e, err)
			}
			if n := starts(); n != c.starts {
				t.Errorf("%d starts", n)
			}
			if c.reason == "" && out != "out\n" || !strings.HasPrefix("out\n", out) {
				t.Errorf("output %q", out)
			}
			eventually(t, "nothing is left", func() bool { return len(marked(t, run.ID)) == 0 })
		})
	}
}

// marked lists the processes that belong to a run, supervisors and all.
func marked(t testing.TB, id string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if pid := filepath.Base(filepath.Dir(f)); (bytes.Contains(b, []byte("TELEXEC_ID="+id+"\x00")) || bytes.Contains(b, []byte("TELEXEC_RUN="+id+"\x00"))) && alive(pid) {
			found = append(found, pid)
		}
	}
	return found
}

// When the connection dies at any time of a start, the command starts once; or
// not at all, and that is said.
func TestStartThatLosesItsConnection(t *testing.T) {
	t.Parallel()
	var ran atomic.Int64
	t.Cleanup(func() {
		if ran.Load() == 0 {
			t.Error("none of them has run")
		}
	})
	for i := range 12 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
			sent := make(chan struct{})
			h.runner = New(&tampering{dialer: newDialer(t), sent: func() { close(sent) }}, Options{})
			h.runner.askAfter = unhurried
			spec, starts := counted(t, "cat; echo out; exit 3")
			spec.Stdin = []byte("in")
			var (
				e       command.Ending
				out     string
				err     error
				running sync.WaitGroup
			)
			running.Go(func() { e, out, err = h.outcome(Run{ID: newID(), Host: h.inv, Spec: spec, Fence: 1}) })
			<-sent
			if i > 0 {
				<-time.After(time.Duration(i-1) * time.Millisecond)
			}
			h.server.KillSessions()
			running.Wait()
			switch fault.ReasonOf(err) {
			case "":
				if code(e) != "3" || out != "inout\n" || starts() != 1 {
					t.Errorf("%s %q, %d starts", code(e), out, starts())
				}
				ran.Add(1)
			case fault.ReasonStartFailed:
				// What was about to begin may be found dead by the one that comes again.
				if starts() != 0 {
					t.Errorf("%v, and %d starts", err, starts())
				}
			default:
				t.Errorf("%v, %d starts", err, starts())
			}
		})
	}
}

// Two starts of one id at once: one starts it, and both have its output.
func TestTwoStartsAtOnce(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	h.runner.askAfter = 150 * time.Millisecond
	for range 5 {
		spec, starts := counted(t, "sleep 0.2; echo out; exit 3")
		run := Run{ID: newID(), Host: h.inv, Spec: spec, Fence: 1}
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				e, out, err := h.outcome(run)
				// The one that comes later may find that the other has cleaned up.
				if fault.ReasonOf(err) != fault.ReasonRunRemoved && (err != nil || code(e) != "3" || out != "out\n") {
					t.Errorf("%s %q %v", code(e), out, err)
				}
			})
		}
		both.Wait()
		if n := starts(); n != 1 {
			t.Fatalf("%d starts", n)
		}
	}
}

// A start that arrives when all is over starts nothing.
func TestLateStart(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	late := make(chan string, 1) // the script that was held up
	d := &tampering{dialer: newDialer(t), script: func(b []byte) []byte {
		late <- string(b)
		return []byte("exec sleep 1000\n")
	}}
	sent := make(chan struct{})
	d.sent = func() { close(sent) }
	h.runner = New(d, Options{})
	spec, starts := counted(t, "exit 3")
	run := Run{ID: newID(), Host: h.inv, Spec: spec, Fence: 1}
	var running sync.WaitGroup
	running.Go(func() {
		if e, _, err := h.outcome(run); err != nil || code(e) != "3" {
			t.Error(e, err)
		}
	})
	<-sent
	h.server.KillSessions()
	running.Wait()
	if _, err := h.runner.ask(t.Context(), h.inv, <-late); err != nil {
		t.Fatal(err)
	}
	if n := starts(); n != 1 {
		t.Errorf("%d starts", n)
	}
}

// Void against a start: either it runs and is told, or it never does.
func TestVoidAgainstStart(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	h.runner.askAfter = 150 * time.Millisecond
	h.durably(command.Spec{Line: "true"}).end(t)
	ran, never := 0, 0
	for i := range 12 {
		spec, starts := counted(t, "sleep 0.05; exit 3")
		run := Run{ID: newID(), Host: h.inv, Spec: spec, Fence: 1, Output: newOutput().sink}
		var both sync.WaitGroup
		both.Go(func() {
			if p, err := h.runner.Start(t.Context(), run); err == nil {
				p.Wait()
				p.Close()
			}
		})
		<-time.After(time.Duration(i) * time.Millisecond)
		void := run
		void.Fence, void.Void = 2, true
		p, err := h.runner.Resume(t.Context(), void)
		switch {
		case err == nil:
			if e, err := p.Wait(); err != nil || code(e) != "3" || starts() != 1 {
				t.Error(e, err, starts())
			}
			p.Collected()
			<-p.(*durable).through
			ran++
		case fault.ReasonOf(err) == fault.ReasonNeverStarted || fault.ReasonOf(err) == fault.ReasonStartFailed:
			both.Wait()
			if n := starts(); n != 0 {
				t.Errorf("%v, and %d starts", err, n)
			}
			never++
		default:
			t.Error(err)
		}
		both.Wait()
	}
	t.Log(ran, "ran,", never, "never")
}

// Void calls off a start that has begun, and the owner of that start is told so and
// has removed everything before void is through with its look: it never starts, and
// that is said.
func TestVoidOfWhatIsRemoved(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]string{
		"before its fence is there": "  tries=0\n",
		"behind its fence":          "  judge\n  case $verdict in\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
			// through gives a runner in whose first script of a mode each second
			// string stands in front of the first.
			through := func(mode string, edits ...string) *Runner {
				return New(&tampering{dialer: newDialer(t), mode: mode, script: func(b []byte) []byte {
					b = bytes.Replace(b, []byte("now=yes"), []byte("now=no"), 1)
					for i := 0; i < len(edits); i += 2 {
						at := []byte(edits[i])
						if bytes.Count(b, at) != 1 {
							t.Errorf("the script has %q %d times", at, bytes.Count(b, at))
						}
						b = bytes.Replace(b, at, append([]byte(edits[i+1]+"\n"), at...), 1)
					}
					return b
				}}, Options{})
			}
			const wait = "; do sleep 0.01; done"
			starter := through(modeStart,
				"  claim || resume\n", `true >"$id.passed"; until [ -e "$id.go" ]`+wait,
				"    go) ! unfollowed || go", "go) ;;", // it would be retired
				"  if [ -n \"$1\" ] || [ -e \"$id.k\" ]", `true >"$id.clean"; until [ -e "$id.seen" ]`+wait)
			voider := through(modeVoid,
				"    for base; do\n      [ ! -h \"$base\" ] && cd \"$base\" && [ -O . ] && make", `until [ -e "$new/$id.passed" ]`+wait,
				"    ! find_run \"$@\" || resume\n    if ", `until [ -e "$new/$id.st" ]`+wait,
				"  tries=0\n", `until [ -e "$id.clean" ]`+wait, // it has looked at the fence
				look, `true >"$id.seen"; while [ -e "$id.st" ]`+wait)
			spec, starts := counted(t, "exit 3")
			run := Run{ID: newID(), Host: h.inv, Spec: spec, Fence: 1, Output: newOutput().sink}
			void := run
			void.Fence, void.Void = 2, true
			var starting sync.WaitGroup
			starting.Go(func() {
				if _, err := starter.Start(t.Context(), run); fault.ReasonOf(err) != fault.ReasonStartFailed {
					t.Errorf("the start gives %v", err)
				}
			})
			if _, err := voider.Resume(t.Context(), void); fault.ReasonOf(err) != fault.ReasonNeverStarted {
				t.Errorf("void gives %v", err)
			}
			starting.Wait()
			if n := starts(); n != 0 {
				t.Errorf("%d starts", n)
			}
			// What stops a start that is still on its way, and nothing else.
			if left := h.filesOf(run.ID); !slices.Equal(left, []string{h.file(run.ID, ".go")}) {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// supervisors lists what runs in the session of the follower's shell.
func supervisors(t testing.TB, leader string) (pids []string) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if fields[3] == leader && fields[0] != "Z" {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// record reads one file of a run.
func (h *host) record(id, name string) []string {
	h.t.Helper()
	f, err := h.runner.facts(h.t.Context(), h.inv)
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(f.dirs[0], id+name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// Any process that has to do with a run but the command itself may be killed.
func TestKillOfEachSupervisor(t *testing.T) {
	t.Parallel()
	for i := range 10 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
			h.runner.askAfter = 150 * time.Millisecond
			killed := h.file("killed", newID())
			k := h.durably(command.Spec{Line: "echo a; echo b >&2; until [ -e " + killed + " ]; do sleep 0.05; done; sleep 0.5; echo c; echo d >&2; exit 3"})
			defer os.Remove(killed)
			k.await(t, has("a"))
			var f []string
			eventually(t, "it is followed", func() bool { f = h.record(k.run.ID, ".f"); return len(f) >= 6 })
			leader, _, _ := strings.Cut(f[3], ":")
			all := supervisors(t, leader)
			var name []byte
			if i < len(all) {
				pid, _ := strconv.Atoi(all[i])
				name, _ = os.ReadFile("/proc/" + all[i] + "/cmdline")
				syscall.Kill(pid, syscall.SIGKILL)
			}
			if err := os.WriteFile(killed, nil, 0o600); err != nil {
				t.Error(err)
			}
			e, err := k.Wait()
			k.Collected()
			if i >= len(all) {
				<-k.Process.(*durable).through
				t.Skip("there are only", len(all))
			}
			out, stderr := k.text(command.Stdout), k.text(command.Stderr)
			t.Logf("%q killed: %v %v %q %q", name, e, err, out, stderr)
			whole := out == "a\nc\n" && stderr == "b\nd\n"
			switch fault.ReasonOf(err) {
			case "":
				if code(e) != "3" || !whole && e.Truncation == nil {
					t.Error("it is not told that output is missing")
				}
			case fault.ReasonOutputIncomplete:
				if code(e) != "3" {
					t.Error(code(e))
				}
			case fault.ReasonSupervisorKilled:
			default:
				t.Error(err)
			}
			if !strings.HasPrefix("a\nc\n", out) || !strings.HasPrefix("b\nd\n", stderr) {
				t.Error("the output is wrong")
			}
			<-k.Process.(*durable).through
			eventually(t, "nothing is left", func() bool { return len(marked(t, k.run.ID)) == 0 })
		})
	}
}

// Output is whole, whatever it looks like and wherever it is resumed.
func TestResumeFromEveryOffset(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		spec := command.Spec{Line: `i=0; while [ $i -lt 40 ]; do printf 'x\036telexec:%s: done exit 0\n\036\036tele\000\036' ABCDEFGHIJKLMNOPQRSTUVWXYZ; printf '\036telexec:AB' >&2; i=$((i+1)); done; sleep 0.3; printf '\036'; printf '\n\036telexec:' >&2`}
		one := "x\x1etelexec:ABCDEFGHIJKLMNOPQRSTUVWXYZ: done exit 0\n\x1e\x1etele\x00\x1e"
		want := [2]string{strings.Repeat(one, 40) + "\x1e", strings.Repeat("\x1etelexec:AB", 40) + "\n\x1etelexec:"}
		k := h.durably(spec)
		k.await(t, has(one))
		follow := func(from command.Sizes, fence int64) Process {
			o := newOutput()
			run := k.run
			run.From, run.Fence, run.Output = from, fence, o.sink
			p, err := h.runner.Resume(t.Context(), run)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Wait(); err != nil {
				t.Error(from, err)
			}
			for _, s := range command.Streams {
				if got := o.text(s); got != want[s][from[s]:] {
					t.Errorf("from %v: %q, not %q", from, got, want[s][from[s]:])
				}
			}
			return p
		}
		var last Process
		for i := range int64(8) {
			from := command.Sizes{rand.Int64N(int64(len(want[0])) - 2), rand.Int64N(int64(len(want[1])) - 12)}
			if i == 7 {
				from = command.Sizes{int64(len(want[0])), int64(len(want[1]))}
			}
			if last != nil {
				last.Close()
			}
			last = follow(from, i+1)
		}
		last.Collected()
		k.Close()
		<-last.(*durable).through
	})
}

// Both streams at once, much of it, into a sink that is slow.
func TestMuchOutputIntoASlowSink(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	const size = 20 << 20
	var got [2]atomic.Int64
	run := Run{ID: newID(), Host: h.inv, Fence: 1, Spec: &command.Spec{
		Line: fmt.Sprintf("head -c %d /dev/zero & head -c %d /dev/zero >&2; wait; exit 3", size, size)}}
	pause := time.NewTicker(time.Millisecond)
	defer pause.Stop()
	run.Output = func(s command.Stream, data []byte) error {
		if got[s].Add(int64(len(data)))>>20 != (got[s].Load()-int64(len(data)))>>20 {
			<-pause.C
		}
		return nil
	}
	p, err := h.runner.Start(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := p.Wait(); err != nil || code(e) != "3" || got[0].Load() != size || got[1].Load() != size {
		t.Errorf("%v %v %d %d", e, err, got[0].Load(), got[1].Load())
	}
	p.Collected()
	<-p.(*durable).through
}
