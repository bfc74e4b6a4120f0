package terminal_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// heap is how much memory is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMoreKeysAtOnceThanThereIsRoomFor(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	s.begin(on, "stty raw -echo; cat >/dev/null")
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	keys := make([]session.Key, 40)
	for i := range keys {
		keys[i].Text = strings.Repeat("x", 16<<10)
	}
	for range 2 {
		if _, _, err := s.Keys(ctx, ann, on.ID, keys, 0, 0); err != nil {
			t.Error(err)
		}
	}
}

// A program asks the terminal without end and reads no answer.
func TestAnswersThatNobodyReads(t *testing.T) {
	limits := usual
	limits.Record = false
	s := startWith(t, newMachine(t), openStore(t, t.TempDir()), limits)
	on := s.open("bash")
	before := heap()
	const size = 9_000_000
	_, err := s.Start(t.Context(), terminal.Run{
		ID: jobID(), Output: func(command.Stream, []byte) error { return nil },
		Spec: &command.Spec{SessionID: on.ID, Line: `stty raw -echo; head -c 9000000 /dev/zero | tr '\0' x | sed 's/xxx/\x1b[c/g'; cat >/dev/null`},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.poll("all of it", func() bool { return s.get(on).Output > size })
	if grown := heap() - before; grown > size {
		t.Errorf("grown by %d KiB", grown>>10)
	}
}

// What a program has asked for and not read is not a part of the next line.
func TestAnAnswerIsNoCommand(t *testing.T) {
	for _, shell := range []string{"bash", "dash", "zsh", "fish", "mksh"} {
		t.Run(shell, func(t *testing.T) {
			s := start(t)
			on := s.open(shell)
			s.run(on, `printf '\033[6n\033[c'`).ends("0", command.ByMark)
			if out := s.run(on, "echo ok").ends("0", command.ByMark); out != "ok\r\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

// After kill -9 a session may be stored as one that is just being opened, or closed.
func TestTakenUpInTheMiddle(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	s := startWith(t, m, st, usual)
	opening, closing := s.openSpec(kept), s.openSpec(kept)
	was := map[session.State]session.Session{}
	for state, on := range map[session.State]session.Session{session.Opening: opening, session.Closing: closing} {
		one, err := st.Session(t.Context(), on.ID)
		if err != nil {
			t.Fatal(err)
		}
		was[state] = one
	}
	s.stop()
	st = openStore(t, t.TempDir())
	for state, one := range was {
		one.State, one.Version, one.OpenTime = session.Opening, 1, time.Time{}
		if err := st.CreateSession(t.Context(), one, auditEntry); err != nil {
			t.Fatal(err)
		}
		if one.State, one.Version = state, 2; state != session.Opening {
			if err := st.SaveSession(t.Context(), one); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := startWith(t, m, st, usual)
	again.poll("the end", func() bool { one := again.get(closing); return one.Ended() })
	if one := again.get(closing); one.End.Reason != fault.ReasonSessionClosed {
		t.Errorf("%+v", one.End)
	}
	if left := m.of(closing.ID).members(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	again.poll("that it opens", func() bool { return again.get(opening).State != session.Opening })
	if one := again.get(opening); one.State != session.Open || one.OpenTime.IsZero() {
		t.Errorf("%+v %+v", one, one.End)
	}
}

// A service that stops while the host of a session that is being closed is away leaves
// that to the next one.
func TestAStopWhileAClosingHostIsAway(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	s := startWith(t, m, st, usual)
	on := s.openSpec(kept)
	m.reach(false)
	s.poll("the loss", func() bool { return s.get(on).Connection == command.Reconnecting })
	ctx, stop := context.WithCancel(t.Context())
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _, _ = s.Close(ctx, ann, on.ID, "")
	}()
	s.poll("that it is being closed", func() bool { return s.get(on).State == session.Closing })
	stop()
	within(t, closed, "the close")
	s.stop()
	m.reach(true)
	again := startWith(t, m, st, usual)
	again.poll("the end", func() bool { one := again.get(on); return one.Ended() })
	if left := m.of(on.ID).members(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWhoWaitsForRoomIsToldOfTheLoss(t *testing.T) {
	s := start(t)
	on := s.openSpec(kept)
	j := s.begin(on, "stty raw -echo; echo raw; sleep 1; cat >/dev/null")
	s.poll("raw", func() bool { return strings.Contains(j.out.String(), "raw") })
	v := s.attach(ann, on, terminal.AttachOptions{})
	refused := make(chan error, 1)
	go func() {
		for {
			if err := v.Input(t.Context(), make([]byte, 64<<10)); err != nil {
				refused <- err
				return
			}
		}
	}()
	v.await("that it types", func() bool { return s.get(on).Keyboard != "" })
	s.machine.reach(false)
	select {
	case err := <-refused:
		wants(t, err, fault.ReasonConnectionLost)
	case <-time.After(patience):
		t.Error("it waits for ever")
	}
	s.machine.reach(true)
}

// What a command leaves of its input is typed by whoever has sent it, and not by the
// one who typed last.
func TestInputBehindTheEndOfACommand(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	j := s.begin(on, "read x")
	if _, err := j.InputBy(t.Context(), bob, []byte("a\rtrue and more\r"), false); err != nil {
		t.Fatal(err)
	}
	s.typedJob("true and more")
	if l := s.lines(); l[0].by != "bob" {
		t.Errorf("%+v", l)
	}
}

func TestAMarkInPieces(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	s.run(on, `n=$(grep -oh 'k=[0-9a-f]\{32\}' ~/session*/* | head -n 1)`).ends("0", command.ByMark)
	out := s.run(on, `printf '\033]133;'; sleep 0.2; printf 'Z;%s\a' $n; echo behind`).ends("0", command.ByMark)
	if out != "behind\r\n" {
		t.Errorf("%q", out)
	}
	v.sees("behind")
}

func TestAStormOfTheKeyboard(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		err = v.Keyboard(t.Context(), terminal.TakeKeyboard, "")
	}
	wants(t, err, fault.ReasonRateLimited)
	v.types("true\r") // it is not locked out
}

// The rules judge a line as the shell will read it that has the terminal.
func TestTheShellThatReads(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	s.begin(on, "fish").wait()
	s.poll("fish", func() bool { return s.get(on).Shell == "fish" })
	s.begin(on, "exit").wait()
	s.poll("bash", func() bool { return s.get(on).Shell == "bash" })
}
