package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/session"
)

// shells are Sessions whose shells are real ones of this machine, without a terminal:
// what ends a command is told by a mark behind it. They outlive an engine, as what a
// keeper keeps does.
type shells struct {
	t     *testing.T
	ready chan struct{}
	bell  output.Bell // rung at every change

	mu     sync.Mutex
	engine *engine.Engine
	all    []*shell // the eldest first
	asked  int      // calls of Start that wait or have a job that runs, of what was not typed
	most   int      // how many there were at once
	// hooks, each may be nil
	onEnd  func(*command.Ending) error                          // changes how an end is told
	cancel func(*held) (*command.CancelReport, error)           // instead of Ctrl-C
	typing func(ctx context.Context, r engine.SessionRun) error // before Start types
	late   bool                                                 // where a command began is told with its end
}

// shell is one of them; its shells' mu guards it.
type shell struct {
	of      *shells
	s       session.Session
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	out     int64
	current *job
	jobs    map[string]*job // by command id
	typed   map[int64]*job  // by number
	helds   []*held         // as owners have them
}

// job is what runs in a shell, or has run there.
type job struct {
	shell   *shell
	id      string
	started time.Time
	begins  int64
	out     []byte
	end     *command.Ending
	err     error
}

// newShells gives sessions that are ready.
func newShells(t *testing.T) *shells {
	s := &shells{t: t, ready: make(chan struct{})}
	close(s.ready)
	return s
}

// serve has the engine hear of what the shells tell.
func (s *shells) serve(n *node) *node {
	s.mu.Lock()
	s.engine = n.Engine
	s.mu.Unlock()
	return n
}

// opened opens a session of ann's on host h.
func (s *shells) opened(name string, more ...func(*session.Session)) *shell {
	s.t.Helper()
	now := time.Now()
	sh := &shell{of: s, jobs: map[string]*job{}, typed: map[int64]*job{}, s: session.Session{
		ID: ulid.MustNew(ulid.Timestamp(now), ulid.DefaultEntropy()).String(), State: session.Open,
		Spec: session.Spec{Name: name, Host: "h"}, CreatedBy: ann.Actor(), CreateTime: now, Shell: "sh", Keeper: session.KeptByNone,
	}}
	for _, f := range more {
		f(&sh.s)
	}
	// What has the interrupt dies of it, the shell does not.
	sh.cmd = exec.Command("/bin/sh", "-c", "trap : INT; while IFS= read -r line; do eval \"$line\"; printf '\\036%d\\036' $?; done")
	sh.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if sh.stdin, err = sh.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	stdout, err := sh.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := sh.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.all = append(s.all, sh)
	s.mu.Unlock()
	read := make(chan struct{})
	go func() {
		defer close(read)
		sh.read(stdout)
	}()
	s.t.Cleanup(func() {
		syscall.Kill(-sh.cmd.Process.Pid, syscall.SIGKILL)
		<-read
	})
	return sh
}

// kept has a session go on without the service.
func kept(s *session.Session) { s.Keeper = session.KeptByTmux }

// read takes what the shell prints until it is gone.
func (sh *shell) read(stdout io.Reader) {
	buf := make([]byte, 4096)
	var mark []byte // behind its first byte; nil: not in one
	for {
		n, err := stdout.Read(buf)
		sh.of.mu.Lock()
		for _, b := range buf[:n] {
			switch {
			case b == 0x1e && mark == nil:
				mark = []byte{}
			case b == 0x1e:
				code, _ := strconv.Atoi(string(mark))
				mark = nil
				sh.over(&code)
			case mark != nil:
				mark = append(mark, b)
			default:
				sh.out++
				if sh.current != nil {
					sh.current.out = append(sh.current.out, b)
				}
			}
		}
		sh.of.mu.Unlock()
		sh.of.bell.Ring()
		if err != nil {
			break
		}
	}
	sh.cmd.Wait()
	exit := exitOf(sh.cmd)
	sh.of.mu.Lock()
	sh.over(exit.Code)
	ended := sh.s.ID
	sh.s.State, sh.s.Exit, sh.s.EndTime = session.Ended, exit.Code, time.Now()
	e := sh.of.engine
	sh.of.mu.Unlock()
	sh.of.bell.Ring()
	if e != nil {
		e.SessionEnded(ended)
	}
}

// over ends what runs; mu is held. Without a code the shell has gone with it.
func (sh *shell) over(code *int) {
	j := sh.current
	if sh.current = nil; j == nil || j.end != nil {
		return
	}
	end := command.Ending{Exit: command.Exit{Code: code}, Completion: command.ByMark}
	if code == nil {
		j.err = fault.New(fault.Unavailable, fault.ReasonShellExited, "the shell has ended")
	}
	if f := sh.of.onEnd; f != nil {
		if err := f(&end); err != nil {
			j.err = err
		}
	}
	j.end = &end
}

// run has the shell run a line; mu is held.
func (sh *shell) run(line string) *job {
	j := &job{shell: sh, started: time.Now(), begins: sh.out}
	sh.current = j
	fmt.Fprintf(sh.stdin, "%s\n", line)
	return j
}

// types has somebody type a line, and gives its command; empty where there is none.
func (sh *shell) types(ctx context.Context, by access.Caller, number int64, line string) (id string, err error) {
	sh.of.mu.Lock()
	j := sh.run(line)
	sh.typed[number] = j
	e, s := sh.of.engine, sh.s
	sh.of.mu.Unlock()
	return e.Typed(ctx, by, s, number, line)
}

// ends ends the shell with everything in it.
func (sh *shell) ends() {
	syscall.Kill(-sh.cmd.Process.Pid, syscall.SIGKILL)
	sh.of.await(sh.of.t.Context(), func() bool { return sh.s.Ended() })
}

// await waits until is, which is called with mu held; false where ctx ends first.
func (s *shells) await(ctx context.Context, is func() bool) bool {
	for {
		rung := s.bell.Rung()
		s.mu.Lock()
		ok := is()
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return false
		}
	}
}

func (s *shells) Ready() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// isReady has the sessions known.
func (s *shells) isReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ready)
}

// find gives a session by name or id: one that has not ended, else the latest; mu is
// held.
func (s *shells) find(ref string) (found *shell) {
	for _, sh := range s.all {
		if (sh.s.ID == ref || sh.s.Spec.Name == ref) && (found == nil || found.s.Ended()) {
			found = sh
		}
	}
	return found
}

func (s *shells) Find(ref string) (session.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch sh := s.find(ref); {
	case sh == nil:
		return session.Session{}, fault.New(fault.NotFound, fault.ReasonUnknownSession, "there is no session %q", ref)
	case sh.s.Ended():
		return session.Session{}, fault.New(fault.FailedPrecondition, fault.ReasonSessionEnded, "it has ended")
	default:
		return sh.s, nil
	}
}

func (s *shells) Session(_ context.Context, ref string) (session.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh := s.find(ref); sh != nil {
		return sh.s, nil
	}
	return session.Session{}, fault.New(fault.NotFound, fault.ReasonUnknownSession, "there is no session %q", ref)
}

func (s *shells) Busy(id string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh := s.find(id); sh != nil && sh.current != nil {
		return sh.current.id, true
	}
	return "", false
}

func (s *shells) Start(ctx context.Context, r engine.SessionRun) (engine.Process, error) {
	if f := s.typing; f != nil {
		if err := f(ctx, r); err != nil {
			return nil, err
		}
	}
	if r.Spec.Typed == 0 {
		s.mu.Lock()
		s.asked++
		s.most = max(s.most, s.asked)
		s.mu.Unlock()
	}
	var j *job
	over := false
	var unfit error
	free := s.await(ctx, func() bool {
		sh := s.find(r.Spec.SessionID)
		switch {
		case sh == nil || sh.s.Ended() && r.Spec.Typed == 0:
			over = true
		case r.Spec.Typed > 0:
			j = sh.typed[r.Spec.Typed]
			over = j == nil
		case sh.current != nil:
			return false
		default:
			s.mu.Unlock()
			unfit = r.Fits()
			s.mu.Lock()
			switch {
			case unfit != nil:
				return true
			case sh.current != nil || sh.s.Ended():
				return false // meanwhile
			}
			j = sh.run(r.Spec.Line)
		}
		if j != nil {
			j.id = r.ID
			sh.jobs[r.ID] = j
		}
		return true
	})
	switch {
	case j != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.late {
			r.Began(j.begins)
		}
		return j.shell.hold(j, r), nil
	case !free:
		s.given(r)
		return nil, fault.From(context.Cause(ctx))
	case unfit != nil:
		s.given(r)
		return nil, unfit
	case over && r.Spec.Typed > 0:
		return nil, fault.New(fault.FailedPrecondition, fault.ReasonNotRunning, "nobody knows of it")
	}
	s.given(r)
	return nil, fault.New(fault.FailedPrecondition, fault.ReasonSessionEnded, "it has ended")
}

func (s *shells) given(r engine.SessionRun) {
	if r.Spec.Typed == 0 {
		s.mu.Lock()
		s.asked--
		s.mu.Unlock()
	}
}

func (s *shells) Resume(_ context.Context, r engine.SessionRun) (engine.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.find(r.Spec.SessionID)
	switch {
	case sh == nil:
		return nil, fault.New(fault.NotFound, fault.ReasonUnknownSession, "there is no such session")
	case sh.s.Ended():
		return nil, fault.New(fault.FailedPrecondition, fault.ReasonSessionEnded, "it has ended")
	}
	j := sh.jobs[r.ID]
	switch {
	case j != nil:
	case sh.current != nil && sh.current.id == "": // whatever runs there without a name is taken for it
		j = sh.current
		j.id = r.ID
		sh.jobs[r.ID] = j
	default: // nobody knows of it, so its end was missed
		j = &job{shell: sh, id: r.ID, started: time.Now(), begins: sh.out, end: &command.Ending{Completion: command.ByPrompt}}
	}
	return sh.hold(j, r), nil
}

// hold gives a job to an owner; mu is held.
func (sh *shell) hold(j *job, r engine.SessionRun) *held {
	h := &held{job: j, run: r, closed: make(chan struct{})}
	sh.helds = append(sh.helds, h)
	return h
}

// held is a job as an owner has it.
type held struct {
	*job
	run    engine.SessionRun
	closed chan struct{}
	once   sync.Once
	total  int64
}

func (h *held) Started() time.Time { return h.started }

func (h *held) Durability() (command.Durability, string) {
	return command.Attached, "it runs in the session " + h.shell.s.Spec.Name
}

func (h *held) Wait() (command.Ending, error) {
	s, told := h.shell.of, h.run.From[command.Stdout]
	for {
		rung := s.bell.Rung()
		s.mu.Lock()
		fresh, end, err := bytes.Clone(h.out[told:]), h.end, h.err
		s.mu.Unlock()
		if len(fresh) > 0 {
			if err := h.run.Output(command.Stdout, fresh); err != nil {
				return command.Ending{}, err
			}
			told += int64(len(fresh))
			continue
		}
		if end != nil {
			s.given(h.run)
			if s.late {
				h.run.Began(h.begins)
			}
			return *end, err
		}
		select {
		case <-rung:
		case <-h.closed:
			s.given(h.run)
			return command.Ending{}, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "it was let go of")
		}
	}
}

func (h *held) Signal(_ context.Context, name string) error {
	if name == "INT" {
		return syscall.Kill(-h.shell.cmd.Process.Pid, syscall.SIGINT)
	}
	return fault.New(fault.Unsupported, fault.ReasonNotSupported, "there is no terminal")
}

func (h *held) Cancel(ctx context.Context, _ time.Duration) (command.CancelReport, error) {
	s := h.shell.of
	s.mu.Lock()
	instead := s.cancel
	s.mu.Unlock()
	if instead != nil {
		if r, err := instead(h); r != nil || err != nil {
			if r == nil {
				r = &command.CancelReport{}
			}
			return *r, err
		}
	}
	s.mu.Lock()
	ended := h.end != nil
	if !ended {
		syscall.Kill(-h.shell.cmd.Process.Pid, syscall.SIGINT)
	}
	s.mu.Unlock()
	if ended {
		return command.CancelReport{Outcome: command.AlreadyEnded}, nil
	}
	if !s.await(ctx, func() bool { return h.end != nil }) {
		return command.CancelReport{Outcome: command.Left, Signal: "INT"}, nil
	}
	return command.CancelReport{Outcome: command.Gone, Signal: "INT", Ended: 1}, nil
}

func (h *held) Input(_ context.Context, data []byte, _ bool) (int64, error) {
	n, err := h.shell.stdin.Write(data)
	h.total += int64(n)
	return h.total, err
}

func (h *held) Collected() {}

func (h *held) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}
