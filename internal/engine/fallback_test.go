package engine_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

func TestNotDurable(t *testing.T) {
	t.Run("it runs attached, and says why", func(t *testing.T) {
		o, m := onMachine(t)
		m.notDurable.Store(true)
		n := start(t, o)
		s := n.ended(n.execute("exit 3"))
		if s.State != command.Completed || code(s) != "3" || s.Durability != command.Attached || s.DurabilityReason != "there is no shell" {
			t.Errorf("%s, %s, %s: %q", s.State, code(s), s.Durability, s.DurabilityReason)
		}
	})
	t.Run("it must be durable", func(t *testing.T) {
		o, m := onMachine(t)
		m.notDurable.Store(true)
		n := start(t, o)
		s := n.ended(n.execute("exit 3", func(s *command.Spec) { s.Durability = command.Durable }))
		if s.State != command.Failed || reason(s) != fault.ReasonNotDurable || m.started(s.ID) != 0 {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
	})
	// The crash is after the fallback was recorded: it may have been started, and
	// an attached start is not found again, so it is never made twice.
	t.Run("a crash before the second start", func(t *testing.T) {
		o, m := onMachine(t)
		m.notDurable.Store(true)
		here := make(chan struct{}, 1)
		m.beforeStart = func(ctx context.Context, r engine.Run) error {
			if r.Attached {
				here <- struct{}{}
				<-ctx.Done()
				return fault.From(ctx.Err())
			}
			return nil
		}
		n := start(t, o)
		id := n.execute("true")
		<-here
		c := in(t, o, id)
		if c.State != command.Starting || c.Durability != command.Attached || c.DurabilityReason == "" {
			t.Errorf("the journal has %s, %s: %q", c.State, c.Durability, c.DurabilityReason)
		}
		n.crash()
		m.notDurable.Store(false)
		m.with(func() { m.beforeStart = nil })
		n = start(t, o)
		if s := n.ended(id); s.State != command.Lost || reason(s) != fault.ReasonServiceRestarted || m.started(id) != 0 {
			t.Errorf("%s, %+v, started %d times", s.State, s.Failure, m.started(id))
		}
	})
	t.Run("a stop before the second start", func(t *testing.T) {
		o, m := onMachine(t)
		m.notDurable.Store(true)
		here := make(chan struct{}, 1)
		m.beforeStart = func(ctx context.Context, r engine.Run) error {
			if r.Attached {
				here <- struct{}{}
				<-ctx.Done()
				return fault.From(ctx.Err())
			}
			return nil
		}
		n := start(t, o)
		id := n.execute("exit 2")
		<-here
		n.stop()
		m.notDurable.Store(false)
		m.with(func() { m.beforeStart = nil })
		n = start(t, o)
		if s := n.ended(id); s.State != command.Completed || code(s) != "2" || s.Durability != command.Durable {
			t.Errorf("%s, %+v, %s", s.State, s.Failure, s.Durability)
		}
	})
	t.Run("after a takeover", func(t *testing.T) {
		o, m := onMachine(t)
		here := make(chan struct{})
		m.beforeStart = func(ctx context.Context, _ engine.Run) error { close(here); <-ctx.Done(); return lostLink() }
		n := start(t, o)
		id := n.execute("exit 2")
		<-here
		n.crash()
		m.with(func() { m.beforeStart = nil })
		m.notDurable.Store(true)
		n = start(t, o)
		// The owner before may have started it: it is not started another way.
		if s := n.ended(id); s.State != command.Failed || reason(s) != fault.ReasonNotDurable || m.started(id) != 0 {
			t.Errorf("%s, %+v, started %d times", s.State, s.Failure, m.started(id))
		}
	})
}

// A password for sudo is not stored, so a restart loses it: a command that has not
// started cannot be any more, one that has goes on.
func TestSudoPasswordIsLost(t *testing.T) {
	sudo := func(s *command.Spec) {
		s.Sudo = &command.Sudo{User: "root", Password: secret.New("hush"), NeedsPassword: true}
	}
	o, m := onMachine(t)
	o.Hosts = hosts{"h": 2}
	// The store keeps all of Sudo but the password.
	o.Journal = forgetful{o.Journal}
	var revealed atomic.Int32
	here := make(chan string, 2)
	m.beforeStart = func(ctx context.Context, r engine.Run) error {
		if r.Spec.Sudo.Password.Reveal() == "hush" {
			revealed.Add(1)
		}
		if r.Spec.Line == "echo unsent" {
			here <- r.ID
			<-ctx.Done()
			return lostLink()
		}
		return nil
	}
	m.afterSpawn = func(r engine.Run) { here <- r.ID; m.cut() }
	n := start(t, o)
	unsent := n.execute("echo unsent", sudo)
	<-here
	sent := n.execute("exit 3", sudo)
	<-here
	queued := n.execute("echo queued", sudo)
	n.crash()
	if revealed.Load() != 2 {
		t.Errorf("the password was given %d times", revealed.Load())
	}
	m.restore()
	n = start(t, o)
	for _, id := range []string{unsent, queued} {
		s := n.ended(id)
		if s.State != command.Failed || reason(s) != fault.ReasonServiceRestarted || !strings.Contains(s.Failure.Hint, "password") || m.started(id) != 0 {
			t.Errorf("%s: %s, %+v", s.Spec.Line, s.State, s.Failure)
		}
	}
	if s := n.ended(sent); s.State != command.Completed || code(s) != "3" || m.started(sent) != 1 {
		t.Errorf("the one that had started: %s, %+v", s.State, s.Failure)
	}
}

// forgetful is a journal that has what a store keeps of sudo: not the password.
type forgetful struct{ engine.Journal }

func (f forgetful) List(ctx context.Context, filter command.Filter) ([]command.Command, error) {
	list, err := f.Journal.List(ctx, filter)
	for i := range list {
		list[i].Spec.Sudo = &command.Sudo{User: "root", NeedsPassword: true}
	}
	return list, err
}

// After the start nobody can find the secrets of it in memory either.
func TestSecretsAreForgotten(t *testing.T) {
	o, _ := onMachine(t)
	n := start(t, o)
	id := n.execute("sleep 60", func(s *command.Spec) {
		s.Stdin, s.Env = []byte("hush"), map[string]string{"TOKEN": "hush"}
		s.Sudo = &command.Sudo{User: "root", Password: secret.New("hush"), NeedsPassword: true}
	})
	s := n.running(id)
	if s.Spec.Stdin != nil || s.Spec.Env["TOKEN"] != "" || !s.Spec.Sudo.Password.IsZero() || !s.Spec.Sudo.NeedsPassword || len(s.Spec.Env) != 1 {
		t.Errorf("%+v", s.Spec)
	}
}
