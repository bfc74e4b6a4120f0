package engine_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
)

// local is a Runner that runs commands on this machine, so that the engine is
// tested with real processes and without a network. Its hooks put faults where a
// host would.
type local struct {
	beforeStart func(ctx context.Context, r engine.Run) error // may be nil
	onCancel    func() (*command.CancelReport, error)         // instead of the kill; may be nil
	onWait      func(command.Exit) (command.Exit, error)      // instead of the truth; may be nil
}

func (r local) Start(ctx context.Context, run engine.Run) (engine.Process, error) {
	if !run.Attached {
		return nil, fault.New(fault.Unsupported, fault.ReasonNotDurable, "it keeps nothing")
	}
	if r.beforeStart != nil {
		if err := r.beforeStart(ctx, run); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("/bin/sh", "-c", run.Spec.CommandLine())
	cmd.Env = os.Environ()
	for name, value := range run.Spec.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{local: r, cmd: cmd, started: time.Now()}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fault.Wrap(err, fault.FailedPrecondition, fault.ReasonStartFailed, "cannot start it")
	}
	for s, from := range map[command.Stream]io.Reader{command.Stdout: stdout, command.Stderr: stderr} {
		p.copying.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := from.Read(buf)
				if run.Output(s, buf[:n]) != nil || err != nil {
					return
				}
			}
		})
	}
	if !run.Spec.StdinOpen {
		p.stdin.Write(run.Spec.Stdin)
		p.stdin.Close()
	}
	return p, nil
}

// Sweep finds nothing: a process of this machine ends with its engine.
func (r local) Sweep(context.Context, string, inventory.Host, time.Duration) (command.CancelReport, error) {
	if r.onCancel != nil {
		if report, err := r.onCancel(); report != nil {
			return *report, err
		} else if err != nil {
			return command.CancelReport{}, err
		}
	}
	return command.CancelReport{Outcome: command.AlreadyEnded}, nil
}

// Resume finds nothing, for the same reason.
func (r local) Resume(context.Context, engine.Run) (engine.Process, error) {
	return nil, fault.New(fault.NotFound, fault.ReasonRunRemoved, "it keeps nothing")
}

// Clean finds nothing either.
func (r local) Clean(context.Context, inventory.Host, func(string, bool) bool) (int, error) {
	return 0, nil
}

type process struct {
	local
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	started time.Time
	copying sync.WaitGroup
	total   int64
}

func (p *process) Started() time.Time                       { return p.started }
func (p *process) Durability() (command.Durability, string) { return command.Attached, "it runs here" }

func (p *process) Wait() (end command.Ending, err error) {
	p.copying.Wait()
	p.cmd.Wait()
	end.Exit = exitOf(p.cmd)
	if p.onWait != nil {
		end.Exit, err = p.onWait(end.Exit)
	}
	return end, err
}

// exitOf tells how a process has ended.
func exitOf(cmd *exec.Cmd) (exit command.Exit) {
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		exit.Signal = map[syscall.Signal]string{syscall.SIGKILL: "KILL", syscall.SIGTERM: "TERM", syscall.SIGINT: "INT"}[status.Signal()]
	} else {
		code := status.ExitStatus()
		exit.Code = &code
	}
	return exit
}

func (p *process) Signal(_ context.Context, name string) error {
	sig := map[string]syscall.Signal{"INT": syscall.SIGINT, "KILL": syscall.SIGKILL}[name]
	return syscall.Kill(-p.cmd.Process.Pid, sig)
}

func (p *process) Cancel(context.Context, time.Duration) (command.CancelReport, error) {
	if p.onCancel != nil {
		if r, err := p.onCancel(); r != nil || err != nil {
			if r == nil {
				r = &command.CancelReport{}
			}
			return *r, err
		}
	}
	if errors.Is(syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL), syscall.ESRCH) {
		return command.CancelReport{Outcome: command.AlreadyEnded}, nil
	}
	return command.CancelReport{Outcome: command.Gone, Signal: "KILL", Ended: 1}, nil
}

func (p *process) Input(_ context.Context, data []byte, eof bool) (int64, error) {
	n, err := p.stdin.Write(data)
	p.total += int64(n)
	if eof {
		p.stdin.Close()
	}
	return p.total, err
}

func (p *process) Collected() {}

// Close kills it: a process of this machine cannot be let go of while somebody
// waits for its output.
func (p *process) Close() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// hosts are the hosts by name, with how many commands each may run.
type hosts map[string]int

func (h hosts) Lookup(name string) (inventory.Host, error) {
	if n, ok := h[name]; ok {
		return inventory.Host{Name: name, MaxCommands: n}, nil
	}
	return inventory.Host{}, fault.New(fault.NotFound, fault.ReasonUnknownHost, "there is no host %q", name)
}

func (h hosts) List() (list []inventory.Host) {
	for name, n := range h {
		list = append(list, inventory.Host{Name: name, MaxCommands: n})
	}
	return list
}

var ann = access.Caller{
	Principal: access.Principal{Name: "ann", Roles: []access.Role{access.RoleOperator}},
	Origin:    command.OriginGRPC, Address: "192.0.2.7", Call: "call-1",
}

// node is a running engine.
type node struct {
	*engine.Engine
	t       *testing.T
	kind    command.Durability // that execute asks for
	journal *mortal
	stop    func() // graceful; returns when it has stopped
}

// start runs an engine until the test ends. Options that are not given get
// values that suit tests.
func start(t *testing.T, o engine.Options, before ...func(*engine.Engine)) *node {
	t.Helper()
	if o.Hosts == nil {
		o.Hosts = hosts{"h": 10}
	}
	if o.Runner == nil {
		o.Runner = local{}
	}
	if o.Limits == (engine.Limits{}) {
		o.Limits = engine.Limits{MaxCommands: 100, MaxQueued: 100, MaxAwaiting: 20, QueueTimeout: time.Hour, DrainTimeout: time.Millisecond}
	}
	o.Retention = command.Retention{TrimAfter: time.Hour, TrimTo: 1 << 20, DeleteAfter: time.Hour}
	journal := &mortal{Journal: o.Journal} // one engine's own
	o.Journal = journal
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range before {
		f(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	kind := command.Attached
	if _, ok := o.Runner.(*machine); ok {
		kind = ""
	}
	n := &node{Engine: e, t: t, kind: kind, journal: journal, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	})}
	t.Cleanup(n.stop)
	<-e.Ready()
	return n
}

// crash ends the engine as kill -9 would: from now on it writes nothing.
func (n *node) crash() {
	n.journal.dead.Store(true)
	n.stop()
}

// stores waits until the journal has a command as wanted.
func (n *node) stores(id, what string, enough func(command.Command) bool) {
	n.t.Helper()
	late := time.After(20 * time.Second)
	for {
		rung := n.journal.bell.Rung()
		c, err := n.journal.Get(n.t.Context(), id)
		if err == nil && enough(c) {
			return
		}
		select {
		case <-rung:
		case <-late:
			n.t.Fatalf("the journal has the command %s, %s, not %s", c.State, c.Connection, what)
		}
	}
}

// dropping begins to watch a command. What it gives waits until the command has no
// owner any more, without that owner having ended it. Who begins to watch only then
// is told what the journal has, where another owner may have ended it.
func (n *node) dropping(id string) (dropped func()) {
	n.t.Helper()
	w, err := n.Watch(n.t.Context(), ann, id, engine.WatchOptions{Follow: true})
	return func() {
		n.t.Helper()
		if err == nil {
			defer w.Close()
		}
		for err == nil {
			_, err = w.Next(n.t.Context())
		}
		if fault.ReasonOf(err) != fault.ReasonDraining {
			n.t.Errorf("the watcher is told %v", err)
		}
	}
}

// mortal is a journal that an engine can be cut off from.
type mortal struct {
	engine.Journal
	dead atomic.Bool
	bell output.Bell // rung after every write
}

var errDead = fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the service is dead")

func (m *mortal) Apply(ctx context.Context, ch command.Change) error {
	defer m.bell.Ring()
	if m.dead.Load() {
		return errDead
	}
	return m.Journal.Apply(ctx, ch)
}

// execute accepts a shell line on host h.
func (n *node) execute(line string, more ...func(*command.Spec)) string {
	n.t.Helper()
	spec := command.Spec{Host: "h", Line: line, Durability: n.kind}
	for _, f := range more {
		f(&spec)
	}
	s, _, err := n.Execute(n.t.Context(), ann, spec)
	if err != nil {
		n.t.Fatal(err)
	}
	return s.ID
}

// until waits for a command to be as wanted.
func (n *node) until(id string, what string, enough func(engine.Snapshot) bool) engine.Snapshot {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	s, err := n.Await(ctx, id, enough)
	if err != nil {
		n.t.Fatal(err)
	}
	if !enough(s) {
		n.t.Fatalf("command is %s (%+v), not %s", s.State, s.Failure, what)
	}
	return s
}

func (n *node) ended(id string) engine.Snapshot {
	n.t.Helper()
	return n.until(id, "ended", func(s engine.Snapshot) bool { return s.Ended() })
}

func (n *node) running(id string) engine.Snapshot {
	n.t.Helper()
	return n.until(id, "running", func(s engine.Snapshot) bool { return s.State == command.Running })
}

// prints waits until the command runs and its stdout has want.
func (n *node) prints(id, want string) {
	n.t.Helper()
	n.until(id, "printing "+want, func(s engine.Snapshot) bool {
		data, _ := n.ReadOutput(n.t.Context(), id, command.Stdout, 0, 1<<20)
		return (s.State == command.Running || s.Ended()) && strings.Contains(string(data), want)
	})
}
