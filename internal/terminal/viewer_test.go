package terminal_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/screen"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

func TestOpen(t *testing.T) {
	s := startAlone(t)
	one, reused, err := s.Open(t.Context(), ann, session.Spec{Host: "web1", Name: "work", Labels: map[string]string{"a": "b"}}, false)
	if err != nil || reused {
		t.Fatal(reused, err)
	}
	if one.State != session.Open || one.Spec.Name != "work" || one.Shell != "bash" || one.Size != session.DefaultSize || one.Keeper != session.KeptByNone ||
		one.Connection != "CONNECTED" || one.OpenTime.IsZero() || one.Spec.IdleTimeout != time.Hour || !one.Recorded {
		t.Errorf("%+v", one)
	}
	text, err := s.Screen(t.Context(), ann, "work", 0)
	if err != nil || !slices.Contains(text.Lines, "me$") || text.CursorColumn != 4 {
		t.Errorf("%+v, %v", text, err)
	}
	again, reused, err := s.Open(t.Context(), ann, session.Spec{Host: "web1", Name: "work"}, true)
	if err != nil || !reused || again.ID != one.ID {
		t.Errorf("%+v, %v, %v", again, reused, err)
	}
	for what, try := range map[string]struct {
		by     terminalCaller
		spec   session.Spec
		reuse  bool
		reason string
	}{
		"the name is taken":             {ann, session.Spec{Host: "web1", Name: "work"}, false, fault.ReasonSessionExists},
		"the name is taken elsewhere":   {ann, session.Spec{Host: "web2", Name: "work"}, true, fault.ReasonSessionExists},
		"the name is somebody else's":   {bob, session.Spec{Host: "web1", Name: "work"}, true, fault.ReasonSessionExists},
		"the role is missing":           {eve, session.Spec{Host: "web1"}, false, fault.ReasonRoleMissing},
		"there is no such host":         {ann, session.Spec{Host: "nowhere"}, false, fault.ReasonUnknownHost},
		"the host cannot be reached":    {ann, session.Spec{Host: "unreachable", Name: "far"}, false, fault.ReasonHostUnreachable},
		"the host that was far is free": {ann, session.Spec{Host: "unreachable", Name: "far"}, false, fault.ReasonHostUnreachable},
	} {
		if _, _, err := s.Open(t.Context(), try.by, try.spec, try.reuse); fault.ReasonOf(err) != try.reason {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, want := range []string{"web1", "web1-2", "user-web1-22"} {
		spec := session.Spec{Host: "web1", Shell: "dash"}
		if want == "user-web1-22" {
			spec.Host = "user@web1:22"
		}
		if one := s.openSpec(spec); one.Spec.Name != want {
			t.Errorf("name %q, want %q", one.Spec.Name, want)
		}
	}
	if list, err := s.List(t.Context(), ann, session.Filter{Limit: 10, States: []session.State{session.Open}}); err != nil || len(list) != 4 || list[0].Spec.Name != "user-web1-22" {
		t.Errorf("%d sessions, %v", len(list), err)
	}
	if list, err := s.List(t.Context(), bob, session.Filter{Limit: 10}); err != nil || len(list) != 0 {
		t.Errorf("bob sees %d sessions, %v", len(list), err)
	}
	_, err = s.Get(t.Context(), bob, "work")
	wants(t, err, fault.ReasonAccessDenied)
	_, err = s.Get(t.Context(), bob, "none")
	wants(t, err, fault.ReasonAccessDenied)
	_, err = s.Get(t.Context(), adm, "none")
	wants(t, err, fault.ReasonUnknownSession)
}

func TestLimits(t *testing.T) {
	limits := usual
	limits.MaxSessions, limits.MaxPerPrincipal = 3, 2
	s := startWith(t, newMachine(t), openStore(t, t.TempDir()), limits)
	first := s.open("dash")
	s.open("dash")
	_, _, err := s.Open(t.Context(), ann, session.Spec{Host: "web1"}, false)
	wants(t, err, fault.ReasonTooManySessions)
	for range 2 {
		if _, _, err = s.Open(t.Context(), bob, session.Spec{Host: "web1", Shell: "dash"}, false); err != nil {
			break
		}
	}
	wants(t, err, fault.ReasonTooManySessions)
	if _, _, err := s.Close(t.Context(), ann, first.ID, ""); err != nil {
		t.Fatal(err)
	}
	s.open("dash")
}

func TestViewersSeeTheSame(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	a := s.attach(ann, on, terminal.AttachOptions{Label: "Firefox", Role: session.Writer})
	b := s.attach(adm, on, terminal.AttachOptions{Role: session.Observer})
	a.types("echo one; printf '\\033[31mred\\033[0m\\n'; printf 'wide 漢字 \\xff\\n'\r")
	a.sees("wide 漢字 \xff\r\n")
	a.sees("\x1b[31mred\x1b[0m\r\n")
	j := s.begin(on, "printf 'in the mid\\033[3'; read x; printf '2mdle\\033[0m\\n'")
	a.sees("in the mid\x1b[3")

	// The third comes in the middle of a sequence.
	c := s.attach(ann, on, terminal.AttachOptions{Scrollback: -1})
	pic := c.seen("screen", func(e terminal.Event) bool { return e.Kind == terminal.EventScreen }).Screen
	a.types("\r")
	j.ends("0", "MARK")
	last := s.begin(on, "echo the last")
	last.ends("0", "MARK")
	for _, v := range []*viewing{a, b, c} {
		v.sees("the last\r\n")
		v.await("the prompt, behind which nothing comes", func() bool { return bytes.HasSuffix(v.out.Bytes(), []byte("me$ ")) })
	}
	if a.text() != b.text() {
		t.Errorf("one saw %q, another %q", a.text(), b.text())
	}
	if !strings.HasSuffix(a.text(), c.text()) {
		t.Errorf("the late one saw %q, the first %q", c.text(), a.text())
	}
	first, late := screen.New(80, 24, 1000), screen.New(pic.Size.Columns, pic.Size.Rows, 1000)
	_, _ = first.Write(a.seen("screen", func(e terminal.Event) bool { return e.Kind == terminal.EventScreen }).Screen.Data)
	_, _ = first.Write([]byte(a.text()))
	_, _ = late.Write(pic.Data)
	_, _ = late.Write([]byte(c.text()))
	if x, y := string(first.Snapshot(1000)), string(late.Snapshot(1000)); x != y {
		t.Errorf("the screens differ:\n%q\n%q", x, y)
	}

	var ids []string
	for _, m := range s.attach(ann, on, terminal.AttachOptions{Scrollback: 100}).seen("screen", func(e terminal.Event) bool { return e.Kind == terminal.EventScreen }).Screen.Marks {
		ids = append(ids, m.ID)
	}
	if want := []string{"typed-1", s.idOf(j), s.idOf(last)}; !slices.Equal(ids, want) {
		t.Errorf("commands on the screen %q, want %q", ids, want)
	}
}

// TestTheFirstPictureFits: who comes with a window of another size is given the screen
// in that size, and not one that has to be drawn anew at once.
func TestTheFirstPictureFits(t *testing.T) {
	s := startAlone(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{Role: session.Writer, Size: &session.Size{Columns: 40, Rows: 10}})
	first := v.seen("screen", func(e terminal.Event) bool { return e.Kind == terminal.EventScreen }).Screen
	if want := (session.Size{Columns: 40, Rows: 10}); first.Size != want {
		t.Errorf("the screen is %v, the window %v", first.Size, want)
	}
}

// TestACommandBehindAResize: a prompt that is drawn anew loses the line it was on, and
// the command that is typed there is found all the same.
func TestACommandBehindAResize(t *testing.T) {
	s := startAlone(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{Role: session.Writer})
	before := s.get(on).Output
	v.Resize(session.Size{Columns: 61, Rows: 20})
	v.await("the prompt anew", func() bool { return s.get(on).Output > before })
	one := s.begin(on, "echo one")
	one.ends("0", "MARK")
	marks := s.attach(ann, on, terminal.AttachOptions{Scrollback: 100}).seen("screen", func(e terminal.Event) bool { return e.Kind == terminal.EventScreen }).Screen.Marks
	if len(marks) != 1 || marks[0].ID != s.idOf(one) {
		t.Errorf("%+v, want %s", marks, s.idOf(one))
	}
}

func TestResumeAtAnOffset(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	a := s.attach(ann, on, terminal.AttachOptions{})
	s.run(on, "echo one").ends("0", "MARK")
	a.sees("one\r\n")
	at := a.from + int64(strings.Index(a.text(), "one"))
	over := func(e terminal.Event) bool { return e.Kind == terminal.EventCommand && e.Over }
	end := a.seen("the end of it", over)
	b := s.attach(ann, on, terminal.AttachOptions{From: &at})
	b.sees("one\r\n")
	if e := b.events[0]; e.Kind != terminal.EventAttached || !e.Resumed || e.Offset != at || !strings.HasPrefix(b.text(), "one\r\n") {
		t.Errorf("%+v, %q", e, b.text())
	}
	// What became of commands meanwhile is told at its place, too.
	if e := b.seen("the end that it has missed", over); e.CommandID != end.CommandID || e.Offset != end.Offset || e.Offset <= at {
		t.Errorf("told %+v, others %+v", e, end)
	}
	s.run(on, "head -c 3000000 /dev/zero | tr '\\0' x").ends("0", "MARK")
	c := s.attach(ann, on, terminal.AttachOptions{From: &at})
	c.seen("screen", func(e terminal.Event) bool { return e.Kind == terminal.EventScreen })
	beyond := at + 1<<40
	d := s.attach(ann, on, terminal.AttachOptions{From: &beyond})
	if d.seen("beginning", func(e terminal.Event) bool { return e.Kind == terminal.EventAttached }).Resumed {
		t.Error("resumed behind the end")
	}
}

// A viewer who takes nothing slows nobody, and memory stays flat under yes.
func TestAViewerWhoTakesNothing(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v, err := s.Attach(t.Context(), adm, on.ID, terminal.AttachOptions{Window: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	stalled := s.view(v, true)
	quick := s.attach(ann, on, terminal.AttachOptions{})
	quick.types("yes\r")
	base := s.get(on).Output
	s.poll("much output", func() bool { return s.get(on).Output > base+5<<19 })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s.poll("more output", func() bool { return s.get(on).Output > base+5<<20 })
	began := time.Now()
	if err := quick.Input(t.Context(), []byte{3}); err != nil {
		t.Fatal(err)
	}
	s.poll("the prompt", func() bool { return s.get(on).Current == "" && !s.busy(on) })
	t.Logf("the prompt was back after %v", time.Since(began))
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	s.poll("that it is told who is behind", func() bool {
		return slices.ContainsFunc(s.get(on).Viewers, func(v session.Viewer) bool { return v.ID == stalled.ID() && v.Behind })
	})
	if n := len(stalled.text()); n != 64<<10 {
		t.Errorf("%d bytes were sent to one who takes nothing", n)
	}
	// Once it takes what it has got, it is given the screen.
	stalled.mu.Lock()
	stalled.hold = false
	seen := stalled.from + int64(stalled.out.Len())
	stalled.mu.Unlock()
	stalled.Acknowledge(seen)
	stalled.await("screen anew", func() bool { return stalled.from > seen })
	s.run(on, "echo done").ends("0", "MARK")
	stalled.sees("done\r\n")
}

func TestTheEndIsTold(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	a, b := s.attach(ann, on, terminal.AttachOptions{}), s.attach(adm, on, terminal.AttachOptions{})
	a.types("exit 3\r")
	for _, v := range []*viewing{a, b} {
		e := v.seen("end", func(e terminal.Event) bool { return e.Kind == terminal.EventEnded })
		if end := e.Session.End; e.Session.State != session.Ended || end.Reason != fault.ReasonShellExited || *e.Session.Exit != 3 {
			t.Errorf("%+v", e.Session)
		}
		v.await("no more", func() bool { return errors.Is(v.err, io.EOF) })
	}
	stored, err := s.store.Session(t.Context(), on.Spec.Name)
	if err != nil || stored.State != session.Ended || stored.End.Reason != fault.ReasonShellExited || stored.Output == 0 {
		t.Errorf("%+v, %v", stored, err)
	}
	_, err = s.Attach(t.Context(), ann, on.ID, terminal.AttachOptions{})
	wants(t, err, fault.ReasonSessionEnded)
	_, err = s.Screen(t.Context(), ann, on.Spec.Name, 0)
	wants(t, err, fault.ReasonSessionEnded)
	wants(t, a.Input(t.Context(), []byte("x")), fault.ReasonSessionEnded)
}

func TestClose(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	j := s.begin(on, "sleep 1000")
	_, _, err := s.Close(t.Context(), eve, on.ID, "")
	wants(t, err, fault.ReasonRoleMissing)
	_, _, err = s.Close(t.Context(), bob, on.ID, "")
	wants(t, err, fault.ReasonAccessDenied)
	one, report, err := s.Close(t.Context(), ann, on.ID, "enough")
	if err != nil || one.State != session.Ended || one.End.Reason != fault.ReasonSessionClosed || !strings.Contains(one.End.Message, "enough") ||
		report.Outcome != "GONE" || report.Ended < 1 {
		t.Errorf("%+v, %+v, %v", one, report, err)
	}
	if left := s.machine.of(on.ID).members(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	_, err = j.wait()
	wants(t, err, fault.ReasonSessionClosed)
	v.seen("end", func(e terminal.Event) bool { return e.Kind == terminal.EventEnded })
	if one, report, err = s.Close(t.Context(), ann, on.ID, ""); err != nil || one.State != session.Ended || report.Outcome != "ALREADY_ENDED" {
		t.Errorf("%+v, %+v, %v", one, report, err)
	}
}

func TestAViewerLeaves(t *testing.T) {
	s := start(t)
	on := s.open("dash")
	v, err := s.Attach(t.Context(), ann, on.ID, terminal.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() {
		for {
			if _, err := v.Next(t.Context()); err != nil {
				waits <- err
				return
			}
		}
	}()
	v.Close()
	v.Close()
	wants(t, within(t, waits, "the refusal"), fault.ReasonCallCancelled)
	s.poll("nobody is there", func() bool { return len(s.get(on).Viewers) == 0 })
	w, err := s.Attach(t.Context(), ann, on.ID, terminal.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for range 3 {
		_, err = w.Next(ctx)
	}
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
