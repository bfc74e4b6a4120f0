package workflow_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/workflow"
)

// field is where commands run: they and it outlive the service. What a command comes to is
// in its line:
//
//	ok, fail, lost, silent    how it ends, at once
//	hold …                    it runs until the test ends it
//	ask …                     it waits for people first
//	denied                    rules refuse it
type field struct {
	t     testing.TB
	bell  output.Bell
	hosts []inventory.Host

	mu       sync.Mutex
	trouble  func(doing, id string) error
	commands map[string]*command.Command
	began    []string // "line@host", in the order in which they began
	starts   map[string]int
	most, on int // running at once
}

func newField(t testing.TB, hosts int) *field {
	f := &field{t: t, commands: make(map[string]*command.Command), starts: make(map[string]int)}
	for i := range hosts {
		f.hosts = append(f.hosts, inventory.Host{Name: fmt.Sprintf("h%02d", i), Labels: map[string]string{"env": "prod", "even": fmt.Sprint(i%2 == 0)}})
	}
	return f
}

var always = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (f *field) Ready() <-chan struct{} { return always }

func (f *field) NewID() string { return ulid.Make().String() }

func (f *field) Lookup(name string) (inventory.Host, error) {
	for _, h := range f.hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return inventory.Host{}, fault.New(fault.NotFound, fault.ReasonUnknownHost, "there is no host %q", name).WithHint("telexec hosts lists them")
}

func (f *field) List() []inventory.Host { return f.hosts }

func (f *field) Judge(_ context.Context, _ access.Caller, spec command.Spec) error {
	if strings.HasPrefix(spec.Line, "denied") {
		return fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "the policy refuses the command").WithHint("Ask an administrator")
	}
	return nil
}

func (f *field) fails(doing, id string) error {
	if f.trouble != nil {
		return f.trouble(doing, id)
	}
	return nil
}

func (f *field) Start(ctx context.Context, by access.Caller, spec command.Spec, id string) (command.Command, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.bell.Ring()
	if err := f.fails("start", id); err != nil {
		return command.Command{}, err
	}
	if err := f.Judge(ctx, by, spec); err != nil {
		return command.Command{}, err
	}
	if f.commands[id] != nil {
		f.t.Errorf("%s is started twice", id)
	}
	c := &command.Command{ID: id, Version: 1, State: command.Queued, Spec: spec, CreatedBy: by.Actor(), CreateTime: time.Now()}
	f.commands[id] = c
	if spec.Session != "" {
		c.Spec.Host, c.Spec.SessionID = "h00", "id of "+strings.TrimPrefix(spec.Session, "id of ")
	}
	if word, _, _ := strings.Cut(spec.Line, " "); word == "ask" || spec.Task.Gate > 0 && spec.Task.Under == "" {
		c.State = command.AwaitingApproval
	} else {
		f.run(c)
	}
	if err := f.fails("started", id); err != nil {
		return command.Command{}, err
	}
	return *c, nil
}

// run has a command run, and end where it does so at once; mu is held.
func (f *field) run(c *command.Command) {
	f.began = append(f.began, c.Spec.Line+"@"+c.Spec.Host)
	f.starts[c.Spec.Line+"@"+c.Spec.Host]++
	c.State, c.StartTime = command.Running, time.Now()
	c.Version++
	f.on++
	f.most = max(f.most, f.on)
	line := strings.TrimPrefix(c.Spec.Line, "ask ")
	word, _, _ := strings.Cut(line, " ")
	switch word {
	case "hold":
	case "fail":
		f.end(c, command.Completed, 3)
	case "lost":
		f.end(c, command.Lost, -1)
	case "silent":
		f.end(c, command.Completed, -1)
	default:
		f.end(c, command.Completed, 0)
	}
}

func (f *field) end(c *command.Command, state command.State, code int) {
	if c.Ended() {
		return
	}
	if c.State == command.Running {
		f.on--
	}
	c.State, c.EndTime = state, time.Now()
	c.Version++
	if code >= 0 {
		c.Exit.Code = &code
	}
	if state != command.Completed {
		c.Failure = &command.Failure{Reason: string(state), Message: "it is " + string(state)}
	}
	f.bell.Ring()
}

func (f *field) Get(_ context.Context, id string) (command.Command, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fails("get", id); err != nil {
		return command.Command{}, err
	}
	if c := f.commands[id]; c != nil {
		return *c, nil
	}
	return command.Command{}, fault.New(fault.NotFound, fault.ReasonUnknownCommand, "there is no command %q", id)
}

func (f *field) Await(ctx context.Context, id string, version int64) (command.Command, error) {
	for {
		rung := f.bell.Rung()
		c, err := f.Get(ctx, id)
		if err != nil || c.Version > version || c.Ended() {
			return c, err
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return c, nil
		}
	}
}

func (f *field) Cancel(_ context.Context, _ access.Caller, id string, _ workflow.Cancel) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.commands[id]
	if c == nil {
		return fault.New(fault.NotFound, fault.ReasonUnknownCommand, "there is no command %q", id)
	}
	f.end(c, command.Cancelled, -1)
	return nil
}

// of gives the command that runs, or waits, on a host, once there is one.
func (f *field) of(line, host string) command.Command {
	f.t.Helper()
	var found command.Command
	f.until(line+" on "+host, func() bool {
		for _, c := range f.commands {
			if c.Spec.Line == line && c.Spec.Host == host && !c.Ended() {
				found = *c
				return true
			}
		}
		return false
	})
	return found
}

// ends ends what runs on a host.
func (f *field) ends(line, host string, code int) {
	f.t.Helper()
	c := f.of(line, host)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end(f.commands[c.ID], command.Completed, code)
}

// tells has what runs on a host tell how much of it is done.
func (f *field) tells(line, host string, percent float64) {
	f.t.Helper()
	c := f.of(line, host)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands[c.ID].Progress = &command.Progress{Percent: percent}
	f.commands[c.ID].Version++
	f.bell.Ring()
}

// decides has people say yes or no to what waits on a host; with another line it runs
// instead.
func (f *field) decides(line, host string, yes bool, instead string) {
	f.t.Helper()
	c := f.of(line, host)
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.bell.Ring()
	one := f.commands[c.ID]
	switch {
	case !yes:
		f.end(one, command.Rejected, -1)
		one.Failure = &command.Failure{Reason: fault.ReasonRejected, Message: "somebody has rejected it"}
		return
	case instead != "":
		one.Spec.Line = instead
	}
	f.run(one)
}

// until waits until something is so; met is called with mu held.
func (f *field) until(what string, met func() bool) {
	f.t.Helper()
	late := time.After(20 * time.Second)
	for {
		rung := f.bell.Rung()
		f.mu.Lock()
		is := met()
		f.mu.Unlock()
		if is {
			return
		}
		select {
		case <-rung:
		case <-late:
			f.t.Fatalf("in vain: %s", what)
		}
	}
}

// log gives what has begun, in its order, and begins a new one.
func (f *field) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.began = nil }()
	return strings.Join(f.began, " ")
}

func (f *field) twice() (which []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for line, n := range f.starts {
		if n > 1 {
			which = append(which, line)
		}
	}
	slices.Sort(which)
	return which
}
