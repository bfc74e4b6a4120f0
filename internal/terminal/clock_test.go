package terminal_test

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// timeless are shells in memory, so that the clock of a bubble drives them: real
// processes would stop it. What is typed is printed, and behind each Enter a prompt.
type timeless struct{}

func (timeless) Open(context.Context, terminal.ShellSpec) (terminal.Shell, error) {
	k := &timelessShell{out: make(chan []byte, 100), over: make(chan struct{})}
	k.out <- []byte("ready> ")
	return k, nil
}

type timelessShell struct {
	out  chan []byte
	rest []byte
	over chan struct{}
	once sync.Once
}

func (k *timelessShell) Facts() terminal.Facts { return terminal.Facts{Keeper: session.KeptByNone} }

func (k *timelessShell) Read(p []byte) (int, error) {
	if len(k.rest) == 0 {
		select {
		case k.rest = <-k.out:
		case <-k.over:
			return 0, io.EOF
		}
	}
	n := copy(p, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}

func (k *timelessShell) Write(p []byte) (int, error) {
	for i, line := range bytes.Split(p, []byte("\r")) {
		if i > 0 {
			k.out <- []byte("\r\nready> ")
		}
		if len(line) > 0 {
			k.out <- bytes.Clone(line)
		}
	}
	return len(p), nil
}

func (k *timelessShell) Resize(session.Size) error { return nil }
func (k *timelessShell) Exit() *int                { return nil }
func (k *timelessShell) Close() error              { k.once.Do(func() { close(k.over) }); return nil }

func (k *timelessShell) Foreground(context.Context, int) (terminal.Foreground, error) {
	return terminal.Foreground{}, fault.New(fault.Unsupported, fault.ReasonNotSupported, "no processes")
}

func (k *timelessShell) Ladder(context.Context, int, time.Duration) (command.CancelReport, error) {
	return command.CancelReport{}, fault.New(fault.Unsupported, fault.ReasonNotSupported, "no processes")
}

func (k *timelessShell) End(context.Context) (command.CancelReport, error) {
	return command.CancelReport{Outcome: command.Gone}, k.Close()
}

func (k *timelessShell) Sweep(context.Context) error { return nil }

// bubble runs sessions of timeless shells.
func bubble(t *testing.T, limits terminal.Limits, f func(t *testing.T, s *service)) {
	synctest.Test(t, func(t *testing.T) {
		m, st := newMachine(t), openStore(t, t.TempDir())
		set, err := terminal.New(terminal.Options{Shells: timeless{}, Journal: st, Hosts: m, Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		s := runSet(t, set, m, st)
		f(t, s)
		s.stop()
	})
}

func TestSessionsEndWithTime(t *testing.T) {
	limits := usual
	limits.IdleTimeout, limits.Lifetime = time.Hour, 10*time.Hour
	bubble(t, limits, func(t *testing.T, s *service) {
		on := s.openSpec(session.Spec{Host: "web1", IdleTimeout: 10 * time.Minute})
		if on.Spec.IdleTimeout != 10*time.Minute || on.ExpireTime.Sub(on.CreateTime) != 10*time.Hour {
			t.Errorf("%+v", on)
		}
		busy := s.openSpec(session.Spec{Host: "web1", IdleTimeout: 1000 * time.Hour})
		if busy.Spec.IdleTimeout != time.Hour {
			t.Errorf("%+v", busy)
		}
		v := s.attach(ann, busy, terminal.AttachOptions{})
		typing := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); <-time.After(30 * time.Minute) {
				v.types("\r")
			}
		}
		<-time.After(9 * time.Minute)
		if one := s.get(on); one.Ended() {
			t.Error("it has ended too early")
		}
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if one := s.get(on); !one.Ended() || one.End.Reason != fault.ReasonIdleTimeout || one.EndTime.Sub(on.OpenTime).Round(time.Minute) != 10*time.Minute {
			t.Errorf("%+v", one)
		}
		typing(9 * time.Hour)
		if one := s.get(busy); one.Ended() {
			t.Error("it has ended although it was used")
		}
		typing(time.Hour)
		synctest.Wait()
		one, err := s.store.Session(t.Context(), busy.ID)
		if err != nil || !one.Ended() || one.End.Reason != fault.ReasonLifetimeOver || one.EndTime.Sub(one.CreateTime) != 10*time.Hour {
			t.Errorf("%+v, %v", one, err)
		}
	})
}

func TestTheKeyboardIsGivenBackWithTime(t *testing.T) {
	bubble(t, usual, func(t *testing.T, s *service) {
		on := s.openSpec(session.Spec{Host: "web1"})
		a, b := s.attach(ann, on, terminal.AttachOptions{}), s.attach(adm, on, terminal.AttachOptions{})
		a.types("x")
		<-time.After(6 * time.Second)
		a.types("y")
		<-time.After(6 * time.Second)
		wants(t, b.Input(t.Context(), []byte("z")), fault.ReasonKeyboardTaken)
		<-time.After(5 * time.Second)
		synctest.Wait()
		b.types("z")
		if err := a.Keyboard(t.Context(), terminal.TakeKeyboard, ""); err != nil {
			t.Error(err)
		}
		<-time.After(time.Minute)
		wants(t, b.Input(t.Context(), []byte("z")), fault.ReasonKeyboardTaken)
	})
}

// Windows that are resized without pause give the terminal their last size, and few of
// those between.
func TestSizesAreCoalesced(t *testing.T) {
	bubble(t, usual, func(t *testing.T, s *service) {
		on := s.openSpec(session.Spec{Host: "web1"})
		v := s.attach(ann, on, terminal.AttachOptions{})
		before := s.get(on).Version
		for i := range 200 {
			v.Resize(session.Size{Columns: 100 + i, Rows: 30})
		}
		<-time.After(time.Second)
		synctest.Wait()
		if one := s.get(on); one.Size.Columns != 299 || one.Version-before > 20 {
			t.Errorf("%+v after %d versions", one.Size, one.Version-before)
		}
	})
}
