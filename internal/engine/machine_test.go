package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
)

// machine is a Runner whose commands outlive their owners, as they do on a host:
// real processes of this machine, whose output lies in a spool and whose end is
// recorded. The line to it can be cut, and its hooks put faults where a host or
// the line would.
type machine struct {
	t    *testing.T
	bell output.Bell

	mu      sync.Mutex
	down    bool            // the line is cut
	runs    map[string]*run // by command id
	removed map[string]bool // what it kept was removed
	spawned map[string]int  // how often each command was started
	visits  int             // calls of Clean
	cleaned []string        // ids that were removed by Clean
	aged    bool            // nobody has touched for a week what Clean finds
	asked   []string        // calls, "start", "resume" or "void" with the id
	hooks                   // changed under mu once an engine has begun

	panics     atomic.Bool // its processes tell nothing about themselves
	notDurable atomic.Bool
	local      local // attached ones
}

// hooks put faults where a host or the line would; each may be nil.
type hooks struct {
	beforeStart  func(ctx context.Context, r engine.Run) error // before anything is sent
	afterSpawn   func(r engine.Run)                            // before the reply
	beforeCancel func() error                                  // before the ladder
	// ladder is asked instead of it, which runs where it gives neither of the two.
	ladder   func(ctx context.Context, grace time.Duration) (*command.CancelReport, error)
	onClean  func() error
	onCancel func() error          // after the ladder, before its reply
	onEnd    func(*command.Ending) // changes what is recorded
}

// faults gives the hooks as they are now: a goroutine of an engine before may still
// ask when the test sets them for the next one.
func (m *machine) faults() hooks {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hooks
}

// run is what the machine keeps of a command; its machine's mu guards it.
type run struct {
	cmd       *exec.Cmd
	stdin     io.WriteCloser
	started   time.Time
	fence     int64
	void      bool
	spool     [2][]byte
	end       *command.Ending
	collected bool
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, runs: map[string]*run{}, removed: map[string]bool{}, spawned: map[string]int{}}
	t.Cleanup(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, r := range m.runs {
			if r.cmd != nil && r.end == nil {
				syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
			}
		}
	})
	t.Cleanup(m.restore)
	return m
}

func (m *machine) cut() {
	m.mu.Lock()
	m.down = true
	m.mu.Unlock()
	m.bell.Ring()
}

func (m *machine) restore() {
	m.mu.Lock()
	m.down = false
	m.mu.Unlock()
	m.bell.Ring()
}

// with calls f while nothing else happens.
func (m *machine) with(f func()) {
	m.mu.Lock()
	f()
	m.mu.Unlock()
	m.bell.Ring()
}

func unreachable() error {
	return fault.New(fault.Unavailable, fault.ReasonHostUnreachable, "no route to host").WithHint("Look at the network")
}

func lostLink() error {
	return fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the connection was lost")
}

// online waits until the line is up, or ctx or closed ends; it tells link of the
// changes it sees.
func (m *machine) online(ctx context.Context, closed <-chan struct{}, link func(error)) error {
	for told := false; ; {
		rung := m.bell.Rung()
		m.mu.Lock()
		down := m.down
		m.mu.Unlock()
		if !down {
			if told {
				link(nil)
			}
			return nil
		}
		if !told {
			told = true
			link(unreachable())
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return lostLink()
		case <-closed:
			return lostLink()
		}
	}
}

func (m *machine) Start(ctx context.Context, r engine.Run) (engine.Process, error) {
	if f := m.faults().beforeStart; f != nil {
		if err := f(ctx, r); err != nil {
			return nil, err
		}
	}
	if r.Attached {
		m.with(func() { m.spawned[r.ID]++ })
		return m.local.Start(ctx, r)
	}
	if m.notDurable.Load() {
		return nil, fault.New(fault.Unsupported, fault.ReasonNotDurable, "there is no shell").WithHint("Use another host")
	}
	m.mu.Lock()
	if m.down {
		m.mu.Unlock()
		return nil, unreachable()
	}
	m.asked = append(m.asked, "start "+r.ID)
	was := m.runs[r.ID]
	var err error
	switch {
	case was == nil:
		err = m.spawn(r)
	case r.Fence < was.fence:
		err = fault.New(fault.Aborted, fault.ReasonSuperseded, "fence %d", was.fence)
	case was.void:
		err = fault.New(fault.FailedPrecondition, fault.ReasonNeverStarted, "it was voided")
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if f := m.faults().afterSpawn; was == nil && f != nil {
		f(r)
	}
	if err := m.online(ctx, nil, r.Link); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.attend(r), nil
}

// spawn starts a command; mu is held.
func (m *machine) spawn(r engine.Run) error {
	k := &run{cmd: exec.Command("/bin/sh", "-c", r.Spec.CommandLine()), fence: r.Fence, started: time.Now()}
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	k.cmd.Stdout, k.cmd.Stderr = spool{m, k, command.Stdout}, spool{m, k, command.Stderr}
	var err error
	if k.stdin, err = k.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := k.cmd.Start(); err != nil {
		return err
	}
	if !r.Spec.StdinOpen {
		k.stdin.Write(r.Spec.Stdin)
		k.stdin.Close()
	}
	m.runs[r.ID] = k
	m.spawned[r.ID]++
	go func() {
		k.cmd.Wait()
		end := command.Ending{Exit: exitOf(k.cmd)}
		if f := m.faults().onEnd; f != nil {
			f(&end)
		}
		m.with(func() { k.end = &end })
	}()
	return nil
}

// spool is one stream's.
type spool struct {
	m *machine
	k *run
	s command.Stream
}

func (s spool) Write(b []byte) (int, error) {
	s.m.with(func() { s.k.spool[s.s] = append(s.k.spool[s.s], b...) })
	return len(b), nil
}

func (m *machine) Resume(ctx context.Context, r engine.Run) (engine.Process, error) {
	for {
		if err := m.online(ctx, nil, r.Link); err != nil {
			return nil, err
		}
		m.mu.Lock()
		if m.down {
			m.mu.Unlock()
			continue
		}
		defer m.mu.Unlock()
		kind := "resume "
		if r.Void {
			kind = "void "
		}
		m.asked = append(m.asked, kind+r.ID)
		k := m.runs[r.ID]
		switch {
		case k == nil && r.Void:
			m.runs[r.ID] = &run{void: true, fence: r.Fence}
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonNeverStarted, "it never started")
		case k == nil || m.removed[r.ID]:
			return nil, fault.New(fault.NotFound, fault.ReasonRunRemoved, "what was kept of it is gone").WithHint("Look there")
		case k.void:
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonNeverStarted, "it never started")
		case r.Fence < k.fence:
			return nil, fault.New(fault.Aborted, fault.ReasonSuperseded, "fence %d", k.fence)
		}
		return m.attend(r), nil
	}
}

// attend gives an owner its process; mu is held.
func (m *machine) attend(r engine.Run) *durable {
	k := m.runs[r.ID]
	k.fence = r.Fence
	p := &durable{m: m, k: k, r: r, closed: make(chan struct{}), through: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	go p.follow()
	return p
}

func (m *machine) Sweep(_ context.Context, id string, _ inventory.Host, _ time.Duration) (command.CancelReport, error) {
	return command.CancelReport{Outcome: command.AlreadyEnded, Message: id}, nil
}

func (m *machine) Clean(_ context.Context, _ inventory.Host, through func(string, bool) bool) (int, error) {
	if f := m.faults().onClean; f != nil {
		m.with(func() { m.visits++ })
		return 0, f()
	}
	m.mu.Lock()
	aged := m.aged
	ids := []string{"01ARZ3NDEKTSV4RRFFQ69G5FAV"} // another service's
	for id := range m.runs {
		ids = append(ids, id)
	}
	m.mu.Unlock()
	ids = slices.DeleteFunc(ids, func(id string) bool { return !through(id, aged) })
	m.with(func() {
		m.visits++
		m.cleaned = append(m.cleaned, ids...)
	})
	return len(ids), nil
}

// durable is one owner's hold of a run.
type durable struct {
	m       *machine
	k       *run
	r       engine.Run
	closed  chan struct{}
	close   func()
	through chan struct{} // closed by follow
	end     command.Ending
	err     error
}

// follow gives the owner both streams, and the end after them.
func (p *durable) follow() {
	defer close(p.through)
	at := p.r.From
	for {
		if p.err = p.m.online(context.Background(), p.closed, p.r.Link); p.err != nil {
			return
		}
		rung := p.m.bell.Rung()
		p.m.mu.Lock()
		var news [2][]byte
		for s := range news {
			news[s] = p.k.spool[s][at[s]:]
		}
		end, down, fence := p.k.end, p.m.down, p.k.fence
		removed := p.m.removed[p.r.ID]
		p.m.mu.Unlock()
		switch {
		case fence > p.r.Fence:
			p.err = fault.New(fault.Aborted, fault.ReasonSuperseded, "fence %d", fence)
			return
		case removed:
			p.err = fault.New(fault.NotFound, fault.ReasonRunRemoved, "what was kept of it is gone")
			return
		case down:
			continue
		}
		for s, data := range news {
			if p.r.Output(command.Stream(s), data) != nil {
				<-p.closed
				p.err = lostLink()
				return
			}
			at[s] += int64(len(data))
		}
		switch {
		case len(news[0])+len(news[1]) > 0:
			continue
		case end != nil:
			p.end = *end
			return
		}
		select {
		case <-rung:
		case <-p.closed:
			p.err = lostLink()
			return
		}
	}
}

func (p *durable) Started() time.Time { return p.k.started }
func (p *durable) Durability() (command.Durability, string) {
	if p.m.panics.Load() {
		panic("boom")
	}
	return command.Durable, ""
}
func (p *durable) Close() error { p.close(); return nil }

func (p *durable) Wait() (command.Ending, error) {
	<-p.through
	return p.end, p.err
}

func (p *durable) Collected() { p.m.with(func() { p.k.collected = true }) }

// ask reports what stands between a request and the host.
func (p *durable) ask() error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.m.down {
		return unreachable()
	}
	return nil
}

func (p *durable) Signal(_ context.Context, name string) error {
	if err := p.ask(); err != nil {
		return err
	}
	return syscall.Kill(-p.k.cmd.Process.Pid, map[string]syscall.Signal{"INT": syscall.SIGINT}[name])
}

func (p *durable) Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error) {
	if err := p.ask(); err != nil {
		return command.CancelReport{}, err
	}
	faults := p.m.faults()
	if faults.beforeCancel != nil {
		if err := faults.beforeCancel(); err != nil {
			return command.CancelReport{}, err
		}
	}
	if faults.ladder != nil {
		if r, err := faults.ladder(ctx, grace); r != nil || err != nil {
			if r == nil {
				r = &command.CancelReport{}
			}
			return *r, err
		}
	}
	report := command.CancelReport{Outcome: command.Gone, Signal: "KILL", Ended: 1}
	p.m.mu.Lock()
	ended := p.k.end != nil
	p.m.mu.Unlock()
	if ended || errors.Is(syscall.Kill(-p.k.cmd.Process.Pid, syscall.SIGKILL), syscall.ESRCH) {
		report = command.CancelReport{Outcome: command.AlreadyEnded, Message: "nothing is there"}
	}
	if faults.onCancel != nil {
		if err := faults.onCancel(); err != nil {
			return command.CancelReport{}, err
		}
	}
	return report, nil
}

func (p *durable) Input(_ context.Context, data []byte, eof bool) (int64, error) {
	if err := p.ask(); err != nil {
		return 0, err
	}
	n, err := p.k.stdin.Write(data)
	if eof {
		p.k.stdin.Close()
	}
	return int64(n), err
}

// started is how often a command was started.
func (m *machine) started(id string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spawned[id]
}

// hasEnded reports whether a command's end is recorded.
func (m *machine) hasEnded(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.runs[id] != nil && m.runs[id].end != nil
}

// await waits until what holds under mu is so.
func (m *machine) await(what string, enough func() bool) {
	m.t.Helper()
	late := time.After(20 * time.Second)
	for {
		rung := m.bell.Rung()
		m.mu.Lock()
		ok := enough()
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-rung:
		case <-late:
			m.t.Fatal("it never came to this: " + what)
		}
	}
}

// stdout gives all of a command's standard output.
func stdout(n *node, id string) string {
	var all []byte
	for {
		data, err := n.ReadOutput(n.t.Context(), id, command.Stdout, int64(len(all)), 1<<20)
		if err != nil {
			return fmt.Sprint(err)
		}
		if len(data) == 0 {
			return string(all)
		}
		all = append(all, data...)
	}
}
