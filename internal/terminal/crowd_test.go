package terminal_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// A session has so many viewers at most.
func TestManyViewers(t *testing.T) {
	bubble(t, usual, func(t *testing.T, s *service) {
		on := s.openSpec(session.Spec{Host: "web1"})
		var all []*terminal.Viewer
		for range 100 {
			v, err := s.Attach(t.Context(), ann, on.ID, terminal.AttachOptions{Role: session.Observer})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, v)
		}
		_, err := s.Attach(t.Context(), ann, on.ID, terminal.AttachOptions{})
		wants(t, err, fault.ReasonTooManyStreams)
		if e := fault.From(err); e == nil || e.Kind != fault.Exhausted || e.Hint == "" {
			t.Errorf("%+v", err)
		}
		from := s.get(on).Output
		_, err = s.Attach(t.Context(), ann, on.ID, terminal.AttachOptions{From: &from})
		wants(t, err, fault.ReasonTooManyStreams)
		if n := len(s.get(on).Viewers); n != 100 {
			t.Errorf("%d viewers", n)
		}
		all[0].Close()
		synctest.Wait()
		s.attach(ann, on, terminal.AttachOptions{})
		for _, v := range all {
			v.Close()
		}
	})
}

// Who comes and goes is told in one go; who has the keyboard, and how large the terminal
// is, at once.
func TestManyComeAtOnce(t *testing.T) {
	bubble(t, usual, func(t *testing.T, s *service) {
		on := s.openSpec(session.Spec{Host: "web1"})
		a := s.attach(ann, on, terminal.AttachOptions{})
		told := func() (list []*session.Session) {
			synctest.Wait()
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, e := range a.events {
				if e.Kind == terminal.EventSession {
					list = append(list, e.Session)
				}
			}
			return list
		}
		<-time.After(time.Second)
		before := len(told())
		for range 50 {
			s.attach(adm, on, terminal.AttachOptions{Role: session.Observer})
			synctest.Wait()
		}
		if n := len(told()) - before; n != 1 {
			t.Errorf("it was told %d times at once", n)
		}
		<-time.After(100 * time.Millisecond)
		if list := told(); len(list)-before != 2 || len(list[len(list)-1].Viewers) != 51 {
			t.Errorf("it was told %d times, at last of %d viewers", len(list)-before, len(list[len(list)-1].Viewers))
		}
		before = len(told())
		for _, action := range []terminal.KeyboardAction{terminal.TakeKeyboard, terminal.ReleaseKeyboard, terminal.TakeKeyboard} {
			if err := a.Keyboard(t.Context(), action, ""); err != nil {
				t.Fatal(err)
			}
			holder := ""
			if action == terminal.TakeKeyboard {
				holder = a.ID()
			}
			if list := told(); list[len(list)-1].Keyboard != holder {
				t.Errorf("%q has the keyboard, want %q", list[len(list)-1].Keyboard, holder)
			}
		}
		a.Resize(session.Size{Columns: 50, Rows: 10})
		if list := told(); list[len(list)-1].Size.Columns != 50 || len(list)-before != 4 {
			t.Errorf("%d changes, at last %v", len(list)-before, list[len(list)-1].Size)
		}
	})
}

// ended waits for the end to be told.
func (w *viewing) ended() {
	w.t.Helper()
	w.seen("end", func(e terminal.Event) bool { return e.Kind == terminal.EventEnded })
	w.await("no more", func() bool { return errors.Is(w.err, io.EOF) })
}

// A viewer who takes nothing is told of the end, too: at once where it would have to be
// given the screen, else when it has had time to take what there is.
func TestTheEndIsToldToWhoTakesNothing(t *testing.T) {
	bubble(t, usual, func(t *testing.T, s *service) {
		for what, n := range map[string]int{"left behind": 2200 << 10, "in the ring": 40 << 10} {
			on := s.openSpec(session.Spec{Host: "web1"})
			v, err := s.Attach(t.Context(), ann, on.ID, terminal.AttachOptions{Window: 16 << 10})
			if err != nil {
				t.Fatal(err)
			}
			w := s.view(v, true)
			typing := s.attach(ann, on, terminal.AttachOptions{})
			for range n >> 10 {
				typing.types(strings.Repeat("x", 1<<10))
			}
			typing.await("all of it", func() bool { return typing.from+int64(typing.out.Len()) >= int64(n) })
			if _, _, err := s.Close(t.Context(), ann, on.ID, ""); err != nil {
				t.Fatal(err)
			}
			typing.ended()
			synctest.Wait()
			w.mu.Lock()
			soon := slices.ContainsFunc(w.events, func(e terminal.Event) bool { return e.Kind == terminal.EventEnded })
			w.mu.Unlock()
			if soon != (what == "left behind") {
				t.Errorf("%s: told at once: %v", what, soon)
			}
			<-time.After(time.Minute)
			w.ended()
		}
	})
}

// held takes up what is typed only when it is let.
type held struct {
	*service
	let chan struct{}
}

func (h held) Typed(ctx context.Context, by access.Caller, on session.Session, number int64, line string) (string, error) {
	<-h.let
	return h.service.Typed(ctx, by, on, number, line)
}

// A command that became known while a viewer was away is told when it comes back,
// although it began before.
func TestACommandThatBecameKnownMeanwhile(t *testing.T) {
	s := start(t)
	h := held{s, make(chan struct{})}
	s.Use(h)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	v.types("echo one''two\r")
	v.sees("onetwo\r\n")
	v.await("the prompt", func() bool { return strings.HasSuffix(v.out.String(), "me$ ") })
	v.mu.Lock()
	at := v.from + int64(v.out.Len())
	v.mu.Unlock()
	v.Close()
	close(h.let)
	s.typedJob("echo one''two").ends("0", "MARK")
	back := s.attach(ann, on, terminal.AttachOptions{From: &at})
	if e := back.seen("that it began", func(e terminal.Event) bool { return e.Kind == terminal.EventCommand && !e.Over }); e.CommandID != "typed-1" || e.Offset >= at {
		t.Errorf("%+v", e)
	}
	back.seen("its end", func(e terminal.Event) bool { return e.Kind == terminal.EventCommand && e.Over })
	if e := back.events[0]; !e.Resumed {
		t.Errorf("%+v", e)
	}
}
