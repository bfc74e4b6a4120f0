package terminal_test

import (
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

var kept = session.Spec{Host: "web1", Shell: "bash", Keeper: session.KeptByTmux}

func TestAConnectionIsLostAndTheShellWithIt(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	j := s.begin(on, "sleep 1000")
	s.machine.of(on.ID).breakLink()
	_, err := j.wait()
	wants(t, err, fault.ReasonConnectionLost)
	e := v.seen("end", func(e terminal.Event) bool { return e.Kind == terminal.EventEnded })
	if e.Session.End.Reason != fault.ReasonConnectionLost || e.Session.End.Hint == "" {
		t.Errorf("%+v", e.Session.End)
	}
	v.sees("[telexec] the connection to web1 was lost: the link is broken")
}

func TestAConnectionIsLostAndTheShellGoesOn(t *testing.T) {
	s := start(t)
	on := s.openSpec(kept)
	if on.Keeper != session.KeptByTmux {
		t.Fatalf("%+v", on)
	}
	v := s.attach(ann, on, terminal.AttachOptions{})
	s.run(on, "x=there; echo before").ends("0", command.ByMark)
	var lost, back int
	news := make(chan error, 10)
	r := terminal.Run{ID: "long", Spec: &command.Spec{SessionID: on.ID, Line: "echo begun; sleep 0.7; echo done; (exit 6)"}, Link: func(why error) { news <- why }}
	j, err := s.tryBegin(t.Context(), on, r)
	if err != nil {
		t.Fatal(err)
	}
	s.poll("that it has begun", func() bool { return strings.Contains(j.out.String(), "begun") })
	short := s.get(on)
	s.machine.reach(false)
	v.seen("the loss", func(e terminal.Event) bool {
		return e.Kind == terminal.EventSession && e.Session.Connection == command.Reconnecting
	})
	v.sees("[telexec] the connection to web1 was lost")
	wants(t, v.Input(t.Context(), []byte("x")), fault.ReasonConnectionLost)
	_, err = j.Cancel(t.Context(), time.Second)
	wants(t, err, fault.ReasonConnectionLost)
	s.machine.reach(true)
	v.seen("that it is back", func(e terminal.Event) bool {
		return e.Kind == terminal.EventSession && e.Session.Connection == command.Connected && e.Session.Version > short.Version+1
	})
	end, err := j.wait()
	if err != nil || end.Truncation == nil || end.Truncation.Offset[command.Stdout] != 7 || end.Truncation.Offset[command.Stderr] != -1 {
		t.Errorf("%+v, %+v, %v", end, end.Truncation, err)
	}
	if j.out.String() != "begun\r\n" {
		t.Errorf("%q", j.out)
	}
	for len(news) > 0 {
		if why := within(t, news, "the news"); why != nil {
			lost++
		} else {
			back++
		}
	}
	if lost != 1 || back != 1 {
		t.Errorf("told of %d losses and %d returns", lost, back)
	}
	if out := s.run(on, "echo still $x").ends("0", command.ByMark); out != "still there\r\n" {
		t.Errorf("%q", out)
	}
	v.sees("still there\r\n")
	// One that ends while nobody sees it.
	gone := s.begin(on, "sleep 0.5")
	console := s.machine.of(on.ID)
	s.poll("that it runs", console.runs)
	s.machine.reach(false)
	s.poll("that it has ended", func() bool { return !console.runs() })
	s.machine.reach(true)
	if end, err := gone.wait(); err != nil || end.Code != nil || end.Completion != command.ByPrompt {
		t.Errorf("%+v, %v", end, err)
	}
	s.run(on, "true").ends("0", command.ByMark)
	// What is not there any more.
	s.machine.reach(false)
	console.end()
	s.machine.reach(true)
	s.poll("the end", func() bool { one := s.get(on); return one.Ended() && one.End.Reason == fault.ReasonSessionGone })
}

func TestAHostThatStaysAway(t *testing.T) {
	limits := usual
	limits.ReconnectTimeout = 500 * time.Millisecond
	s := startWith(t, newMachine(t), openStore(t, t.TempDir()), limits)
	on := s.openSpec(kept)
	closing := s.openSpec(kept)
	j := s.begin(on, "sleep 1000")
	s.machine.reach(false)
	_, err := j.wait()
	wants(t, err, fault.ReasonConnectionLost)
	s.poll("the end", func() bool { one := s.get(on); return one.Ended() && one.End.Reason == fault.ReasonConnectionLost })
	s.poll("the other end", func() bool { one := s.get(closing); return one.Ended() })
}

func TestCloseWhileTheHostIsAway(t *testing.T) {
	s := start(t)
	on := s.openSpec(kept)
	s.machine.reach(false)
	s.poll("the loss", func() bool { return s.get(on).Connection == command.Reconnecting })
	closed := make(chan session.Session, 1)
	go func() {
		one, _, err := s.Close(t.Context(), ann, on.ID, "")
		if err != nil {
			t.Error(err)
		}
		closed <- one
	}()
	s.poll("that it is being closed", func() bool { return s.get(on).State == session.Closing })
	s.machine.reach(true)
	if one := within(t, closed, "the close"); one.State != session.Ended || one.End.Reason != fault.ReasonSessionClosed {
		t.Errorf("%+v", one)
	}
	if left := s.machine.of(on.ID).members(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestARestartOfTheService(t *testing.T) {
	m, dir := newMachine(t), t.TempDir()
	st := openStore(t, dir)
	s := startWith(t, m, st, usual)
	on, plain := s.openSpec(kept), s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	w := s.attach(ann, plain, terminal.AttachOptions{})
	s.run(on, "x=there").ends("0", command.ByMark)
	j, idle := s.begin(on, "echo running; sleep 0.6; (exit 9)"), s.begin(plain, "sleep 1000")
	s.poll("that it runs", func() bool { return strings.Contains(j.out.String(), "running") })
	s.stop()
	_, err := j.wait()
	wants(t, err, fault.ReasonConnectionLost)
	_, err = idle.wait()
	wants(t, err, fault.ReasonServiceRestarted)
	v.await("that the service stops", func() bool { return fault.ReasonOf(v.err) == fault.ReasonDraining })
	if e := w.seen("end", func(e terminal.Event) bool { return e.Kind == terminal.EventEnded }); e.Session.End.Reason != fault.ReasonServiceRestarted {
		t.Errorf("%+v", e.Session.End)
	}
	if left := m.of(plain.ID).members(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	_, _, err = s.Open(t.Context(), ann, session.Spec{Host: "web1"}, false)
	wants(t, err, fault.ReasonDraining)

	before, err := st.Session(t.Context(), on.ID)
	if err != nil || before.State != session.Open || before.Output == 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	again := startWith(t, m, st, usual)
	p, err := again.Resume(t.Context(), terminal.Run{ID: j.id, Spec: &command.Spec{SessionID: on.ID, Line: "x"}, From: command.Sizes{9, 0}, Output: (&sink{}).take})
	if err != nil {
		t.Fatal(err)
	}
	resumed := &job{Process: p, id: j.id, t: t, out: &sink{}}
	end, err := resumed.wait()
	if err != nil || end.Truncation == nil || end.Truncation.Offset[command.Stdout] != 9 || end.Code != nil && *end.Code != 9 {
		t.Errorf("%+v, %v", end, err)
	}
	if one := again.get(on); one.State != session.Open || one.Connection != command.Connected || one.Output < before.Output || one.Version <= before.Version {
		t.Errorf("%+v", one)
	}
	if out := again.run(on, "echo still $x").ends("0", command.ByMark); out != "still there\r\n" {
		t.Errorf("%q", out)
	}
	// Nothing runs: a command that was to be there has ended.
	p, err = again.Resume(t.Context(), terminal.Run{ID: "other", Spec: &command.Spec{SessionID: on.ID, Line: "x"}, Output: (&sink{}).take})
	if err != nil {
		t.Fatal(err)
	}
	if end, err := (&job{Process: p, t: t, out: &sink{}}).wait(); err != nil || end.Code != nil || end.Completion != command.ByPrompt {
		t.Errorf("%+v, %v", end, err)
	}
	_, err = again.Resume(t.Context(), terminal.Run{ID: "other", Spec: &command.Spec{SessionID: plain.ID, Line: "x"}})
	wants(t, err, fault.ReasonSessionEnded)
	var text tape
	again.poll("the recording goes on", func() bool {
		text = again.recording(on)
		return strings.Contains(text.output, "still there")
	})
	if !strings.Contains(strings.Join(text.marks, "|"), "interrupted") {
		t.Errorf("%q", text.marks)
	}
}

// After kill -9 the store has what was there at the last save.
func TestARestartAfterACrash(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	s := startWith(t, m, st, usual)
	on, plain := s.openSpec(kept), s.open("bash")
	saved, err := st.Session(t.Context(), on.ID)
	if err != nil || saved.State != session.Open || saved.Keeper != session.KeptByTmux {
		t.Fatalf("%+v, %v", saved, err)
	}
	one, err := st.Session(t.Context(), plain.ID)
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	// The store of another machine, as it would have been left.
	st = openStore(t, t.TempDir())
	for _, was := range []session.Session{saved, one} {
		was.State, was.Version = session.Opening, 1
		if err := st.CreateSession(t.Context(), was, auditEntry); err != nil {
			t.Fatal(err)
		}
		was.State, was.Version = session.Open, 2
		if err := st.SaveSession(t.Context(), was); err != nil {
			t.Fatal(err)
		}
	}
	again := startWith(t, m, st, usual)
	again.poll("that it is back", func() bool { return again.get(on).Connection == command.Connected })
	if now := again.get(on); now.Output < saved.Output+100<<20 {
		t.Errorf("the offsets may be others': %d, then %d", saved.Output, now.Output)
	}
	again.run(on, "true").ends("0", command.ByMark)
	if marks := again.tapeOf(on).marks; len(marks) == 0 || !strings.Contains(marks[0], "interrupted") { // it has a beginning, too
		t.Errorf("%q", marks)
	}
	if now := again.get(plain); now.State != session.Ended || now.End.Reason != fault.ReasonServiceRestarted {
		t.Errorf("%+v", now)
	}
}
