package terminal_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

func TestTheKeyboard(t *testing.T) {
	s := startAlone(t) // with an audit of its own
	on := s.open("bash")
	a, b := s.attach(ann, on, terminal.AttachOptions{}), s.attach(adm, on, terminal.AttachOptions{})
	watcher := s.attach(ann, on, terminal.AttachOptions{Role: session.Observer})
	has := func(who string) {
		t.Helper()
		if got := s.get(on).Keyboard; got != who {
			t.Errorf("%q has the keyboard, want %q", got, who)
		}
	}
	says := func(reason string, err error) { t.Helper(); wants(t, err, reason) }
	in := func(v *viewing, text string) error { return v.Input(t.Context(), []byte(text)) }
	move := func(v *viewing, to terminal.KeyboardAction, who string) error {
		return v.Keyboard(t.Context(), to, who)
	}

	has("")
	says(fault.ReasonTypingNotAllowed, in(watcher, "x"))
	says(fault.ReasonTypingNotAllowed, move(watcher, terminal.TakeKeyboard, ""))
	says("", in(a, "echo one"))
	has(a.ID()) // who types has it
	says(fault.ReasonKeyboardTaken, in(b, "x"))
	says(fault.ReasonKeyboardTaken, move(b, terminal.HandOverKeyboard, b.ID()))
	says(fault.ReasonKeyboardTaken, move(b, terminal.ReleaseKeyboard, ""))
	says("", move(b, terminal.TakeKeyboard, ""))
	has(b.ID())
	says(fault.ReasonKeyboardTaken, in(a, "x"))
	says("", in(b, " two\r"))
	a.sees("one two\r\n")
	if l := s.typedJob("echo one two"); l == nil || s.lines()[0].by != "admin" {
		t.Errorf("typed by %+v", s.lines())
	}
	says(fault.ReasonUnknownViewer, move(b, terminal.HandOverKeyboard, "v99"))
	says(fault.ReasonTypingNotAllowed, move(b, terminal.HandOverKeyboard, watcher.ID()))
	says("", move(b, terminal.HandOverKeyboard, a.ID()))
	has(a.ID())
	a.seen("that it was handed over", func(e terminal.Event) bool { return e.Kind == terminal.EventSession && e.Session.Keyboard == a.ID() })
	says("", move(a, terminal.ReleaseKeyboard, ""))
	has("")
	says("", move(a, terminal.ReleaseKeyboard, ""))
	says(fault.ReasonKeyboardTaken, move(a, terminal.HandOverKeyboard, b.ID()))
	says("", move(b, terminal.TakeKeyboard, ""))
	b.Close() // with its holder it is free
	s.poll("that it is free", func() bool { return s.get(on).Keyboard == "" })
	says(fault.ReasonUnknownViewer, in(b, "x"))
	says("", in(a, "\r"))
	_, err := s.Attach(t.Context(), eve, on.ID, terminal.AttachOptions{})
	says(fault.ReasonAccessDenied, err)

	var rows []audit.Row
	s.poll("the audit", func() bool {
		var err error
		rows, err = s.store.AuditRows(t.Context(), audit.Filter{Kinds: []audit.Kind{audit.SessionOpened, audit.SessionTyped, audit.SessionKeyboard}, Limit: 100})
		return err != nil || len(rows) >= 7
	})
	var told []string
	for _, row := range slices.Backward(rows) {
		e, err := row.Entry()
		if err != nil || e.Session != on.ID || e.Host != "web1" {
			t.Errorf("%+v, %v", e, err)
		}
		told = append(told, string(e.Kind)+" "+e.Principal+" "+e.Detail)
	}
	want := []string{"session.opened ann name web1, shell bash", "session.typed ann ", "session.keyboard admin taken from ann", "session.typed admin ",
		"session.keyboard admin handed over to ann", "session.keyboard ann released", "session.keyboard admin taken"}
	if !slices.Equal(told, want) {
		t.Errorf("the audit has %q, want %q", told, want)
	}
}

// Who has the keyboard may type also by other ways than as that viewer, and nobody else.
func TestTheKeyboardIsAPersons(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	if err := v.Keyboard(t.Context(), terminal.TakeKeyboard, ""); err != nil {
		t.Fatal(err)
	}
	j := s.begin(on, "read x; read y; echo got $x $y")
	_, err := j.InputBy(t.Context(), adm, []byte("no\n"), false)
	wants(t, err, fault.ReasonKeyboardTaken)
	_, err = j.Input(t.Context(), []byte("no\n"), false)
	wants(t, err, fault.ReasonKeyboardTaken)
	if n, err := j.InputBy(t.Context(), ann, []byte("one\n"), false); err != nil || n != 4 {
		t.Error(n, err)
	}
	_, _, err = s.Keys(t.Context(), adm, on.ID, []session.Key{{Text: "no\n"}}, 0, 0)
	wants(t, err, fault.ReasonKeyboardTaken)
	if _, _, err := s.Keys(t.Context(), ann, on.ID, []session.Key{{Text: "two\n"}}, 0, 0); err != nil {
		t.Error(err)
	}
	if out := j.ends("0", "MARK"); !strings.HasSuffix(out, "got one two\r\n") {
		t.Errorf("%q", out)
	}
}

func TestTheSizeOfTheTerminal(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	is := func(columns int) {
		t.Helper()
		s.poll("the size", func() bool { return s.get(on).Size.Columns == columns })
	}
	a := s.attach(ann, on, terminal.AttachOptions{Size: &session.Size{Columns: 100, Rows: 30}})
	is(100)
	b := s.attach(ann, on, terminal.AttachOptions{Size: &session.Size{Columns: 90, Rows: 30}})
	is(90)
	c := s.attach(ann, on, terminal.AttachOptions{Size: &session.Size{Columns: 50, Rows: 30}, Role: session.Observer})
	is(90)
	if err := a.Keyboard(t.Context(), terminal.TakeKeyboard, ""); err != nil {
		t.Fatal(err)
	}
	is(100)
	b.Resize(session.Size{Columns: 70, Rows: 20})
	c.Resize(session.Size{Columns: 40, Rows: 20})
	a.Resize(session.Size{Columns: 120, Rows: 40})
	is(120)
	if out := s.run(on, "stty size").ends("0", "MARK"); out != "40 120\r\n" {
		t.Errorf("%q", out)
	}
	if text, err := s.Screen(t.Context(), ann, on.ID, 0); err != nil || len(text.Lines) != 40 {
		t.Errorf("%d lines, %v", len(text.Lines), err)
	}
	if err := a.Keyboard(t.Context(), terminal.ReleaseKeyboard, ""); err != nil {
		t.Fatal(err)
	}
	a.Close()
	is(70)
	c.seen("the size", func(e terminal.Event) bool {
		return e.Kind == terminal.EventSession && e.Session.Size == session.Size{Columns: 70, Rows: 20}
	})
}
