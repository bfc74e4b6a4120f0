package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

func starts(name string) *telexecv1.AttachRequest {
	return &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Session: name}}}
}

func types(text string) *telexecv1.AttachRequest {
	return &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Input{Input: []byte(text)}}
}

func over() TerminalEvent {
	s := open()
	s.State = session.Ended
	return TerminalEvent{Kind: TerminalEnded, Session: &s}
}

// Everything that a viewer can be told, in its order, with large things in pieces.
func TestAttachTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, svc := newStage(open())
		st.events = []any{
			TerminalEvent{Kind: TerminalAttached, Session: new(open()), Offset: 5},
			TerminalEvent{Kind: TerminalScreen, Screen: &Picture{Offset: 5, Data: make([]byte, 2*maxPart+1), Size: session.Size{Columns: 100, Rows: 30}, Commands: []CommandLine{{"c", 3}}}},
			TerminalEvent{Kind: TerminalScreen, Screen: &Picture{Offset: 5, Size: session.DefaultSize}},
			TerminalEvent{Kind: TerminalOutput, Offset: 5, Data: make([]byte, maxPart+2)},
			40 * time.Second,
			TerminalEvent{Kind: TerminalSession, Session: new(open())},
			TerminalEvent{Kind: TerminalTyped, Typist: &session.Viewer{ID: "v2", Actor: command.Actor{Principal: "bob"}}},
			over(),
		}
		l := newLine(asAnn(t), &telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{
			Session: "deploy", Role: telexecv1.ViewerRole_VIEWER_ROLE_OBSERVER, FromOffset: new(int64(3)), Label: "me",
		}}})
		close(l.says) // it has nothing more to say, and goes on watching
		err := svc.Attach(l)
		want := []string{
			"attached v1 VIEWER_ROLE_WRITER at 5, resumed false, may type true",
			"screen of 31744 at 5, 100x30, 1 commands, continued false",
			"screen of 31744 at 5, 100x30, 0 commands, continued true",
			"screen of 1 at 5, 100x30, 0 commands, continued true",
			"screen of 0 at 5, 80x24, 0 commands, continued false",
			"output of 31744 at 5", "output of 2 at 31749",
			"heartbeat", "heartbeat",
			"session v3", "typed v2 bob", "ended SESSION_STATE_ENDED",
		}
		if got := l.told(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v\n%s", err, strings.Join(got, "\n"))
		}
		if o := st.options; o.Role != session.Observer || *o.From != 3 || o.Label != "me" || o.Scrollback != -1 || o.Size != nil {
			t.Errorf("%+v", o)
		}
		if got := st.asked(); !slices.Equal(got, []string{"attach to " + aSession + " by ann", "left"}) {
			t.Errorf("%q", got)
		}
	})
}

// What the viewer says is done in its order; what is refused is told, and to the audit
// once of each reason.
func TestAttachListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, svc := newStage(open())
		st.refuse = fault.New(fault.PermissionDenied, fault.ReasonTypingNotAllowed, "no").WithHint("watch")
		st.events = []any{TerminalEvent{Kind: TerminalAttached, Session: new(open())}, time.Second, over()}
		l := newLine(asAnn(t), starts("deploy"), types("a"), types("b"),
			&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Resize{Resize: &telexecv1.TerminalSize{Columns: 90, Rows: 20}}},
			&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Acknowledged{Acknowledged: 77}},
			&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Keyboard{Keyboard: &telexecv1.KeyboardRequest{Action: telexecv1.KeyboardAction_KEYBOARD_ACTION_HAND_OVER, Viewer: "v2"}}})
		if err := svc.Attach(l); err != nil {
			t.Error(err)
		}
		want := []string{"attach to " + aSession + " by ann", `input "a"`, `input "b"`, "resize 90x20", "acknowledged 77", "keyboard 3 v2", "left"}
		if got := st.asked(); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		got := l.told()
		slices.Sort(got)
		if !slices.Equal(got, []string{"attached v1 VIEWER_ROLE_WRITER at 0, resumed false, may type true", "ended SESSION_STATE_ENDED",
			"refused TYPING_NOT_ALLOWED", "refused TYPING_NOT_ALLOWED", "refused TYPING_NOT_ALLOWED"}) {
			t.Errorf("%q", got)
		}
		entries := svc.refusals.(*told).entries
		if len(entries) != 1 || entries[0].Reason != fault.ReasonTypingNotAllowed || entries[0].Principal != "ann" || entries[0].Method != "SessionService/Attach" ||
			entries[0].Session != aSession || entries[0].Host != "web1" {
			t.Errorf("audit %+v", entries)
		}
		st.refuse = fault.New(fault.FailedPrecondition, fault.ReasonKeyboardTaken, "bob has it") // is no affair of the audit
		st.events = []any{TerminalEvent{Kind: TerminalAttached, Session: new(open())}, time.Second, over()}
		if err := svc.Attach(newLine(asAnn(t), starts("deploy"), types("a"))); err != nil || len(svc.refusals.(*told).entries) != 1 {
			t.Errorf("%v, audit %+v", err, svc.refusals.(*told).entries)
		}
	})
}

// Who says that it has said all, and has asked for something, has left when that is done.
func TestAttachIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, svc := newStage(open())
		st.refuse = fault.New(fault.FailedPrecondition, fault.ReasonKeyboardTaken, "bob has it")
		st.events = []any{TerminalEvent{Kind: TerminalAttached, Session: new(open())}, time.Hour}
		l := newLine(asAnn(t), starts("deploy"), types("a"), types("b"))
		close(l.says)
		if err := svc.Attach(l); err != nil {
			t.Error(err)
		}
		if got := st.asked(); !slices.Equal(got, []string{"attach to " + aSession + " by ann", `input "a"`, `input "b"`, "left"}) {
			t.Errorf("%q", got)
		}
		refused := 0
		for _, text := range l.told() {
			if text == "refused KEYBOARD_TAKEN" {
				refused++
			}
		}
		if refused != 2 {
			t.Errorf("%q", l.told())
		}
	})
}

func TestAttachIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		says  []*telexecv1.AttachRequest
		field string
	}{
		"nothing":    {nil, "start"},
		"no start":   {[]*telexecv1.AttachRequest{types("x")}, "start"},
		"no session": {[]*telexecv1.AttachRequest{starts("")}, "start.session"},
		"two starts": {[]*telexecv1.AttachRequest{starts("deploy"), starts("deploy")}, "start"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st, svc := newStage(open())
				st.events = []any{TerminalEvent{Kind: TerminalAttached, Session: new(open())}, time.Hour}
				l := newLine(asAnn(t), c.says...)
				close(l.says)
				err := svc.Attach(l)
				if e := fault.From(err); err == nil || e.Kind != fault.Invalid || len(e.Fields) != 1 || e.Fields[0].Path != c.field || e.Hint == "" {
					t.Errorf("%v", err)
				}
			})
		})
	}
	st, svc := newStage(open())
	st.fail = fault.New(fault.PermissionDenied, fault.ReasonTypingNotAllowed, "no")
	if err := svc.Attach(newLine(asAnn(t), starts("deploy"))); err != st.fail {
		t.Error(err)
	}
	gone := errors.New("gone")
	l := newLine(asAnn(t))
	l.err = gone
	close(l.says)
	if err := svc.Attach(l); err != gone {
		t.Error(err)
	}
}

// Who says nothing at all does not keep a call for ever.
func TestAttachIsNotStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, svc := newStage(open())
		ctx, cancel := context.WithCancel(asAnn(t))
		defer cancel()
		began := time.Now()
		err := svc.Attach(newLine(ctx))
		if e := fault.From(err); err == nil || e.Kind != fault.DeadlineExceeded || e.Hint == "" || time.Since(began) != startWithin {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// Either side ends the call: the client, its credentials, the terminal, a send that fails.
func TestAttachEnds(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(*stage, *line, context.CancelFunc)
		want   error
	}{
		"the client says nonsense": {func(_ *stage, l *line, _ context.CancelFunc) { l.err = broken; close(l.says) }, broken},
		"the client goes":          {func(_ *stage, _ *line, cancel context.CancelFunc) { cancel() }, context.Canceled},
		"the terminal fails":       {func(st *stage, _ *line, _ context.CancelFunc) { st.events[1] = broken }, broken},
		"nobody reads":             {func(_ *stage, l *line, _ context.CancelFunc) { l.fail = broken }, broken},
		"a refusal cannot be told": {func(st *stage, l *line, _ context.CancelFunc) {
			st.events, st.refuse, l.fail = []any{time.Hour}, errors.New("no"), broken
			l.says <- types("x")
		}, broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(asAnn(t))
				defer cancel()
				st, svc := newStage(open())
				st.events = []any{TerminalEvent{Kind: TerminalAttached, Session: new(open())}, time.Hour}
				l := newLine(ctx, starts("deploy"))
				c.change(st, l, cancel)
				if err := svc.Attach(l); !errors.Is(err, c.want) {
					t.Error(err)
				}
				// Who is gone before it is heard has never been there.
				if got := st.asked(); len(got) > 0 && got[len(got)-1] != "left" || len(got) == 0 && c.want != context.Canceled {
					t.Errorf("%q", got)
				}
				cancel() // as gRPC does when the call is answered: nobody is left behind
			})
		})
	}
}

// A command is told at its place when it is begun, and when it has ended as it ended,
// although that is stored only a moment later; the output goes on meanwhile.
func TestAttachTellsOfCommands(t *testing.T) {
	begins := TerminalEvent{Kind: TerminalCommand, CommandID: anID, Offset: 10}
	ends := TerminalEvent{Kind: TerminalCommand, CommandID: anID, Offset: 30, Over: true}
	out := TerminalEvent{Kind: TerminalOutput, Offset: 30, Data: []byte("$ ")}
	busy := open()
	busy.Current = anID
	attached := func(s session.Session) TerminalEvent { return TerminalEvent{Kind: TerminalAttached, Session: &s} }
	const run, done = "command COMMAND_STATE_RUNNING at ", "command COMMAND_STATE_COMPLETED at "
	for name, c := range map[string]struct {
		offset int64 // SessionOffset of the command
		stored bool  // its end is, already
		events []any
		want   []string
	}{
		"from its beginning": {10, false, []any{attached(open()), begins, time.Second, ends, out, time.Second, over()},
			[]string{run + "10", "output of 2 at 30", done + "30"}},
		"where its place is not stored yet": {-1, false, []any{attached(open()), begins, time.Second, ends, out, time.Second, over()},
			[]string{run + "10", "output of 2 at 30", done + "30"}},
		"one that prints nothing": {10, false, []any{attached(open()), begins, TerminalEvent{Kind: TerminalCommand, CommandID: anID, Offset: 10, Over: true}, out, time.Second, over()},
			[]string{run + "10", "output of 2 at 30", done + "10"}},
		"who came in its middle": {-1, false, []any{attached(busy), time.Second, ends, out, time.Second, over()}, []string{"output of 2 at 30", done + "30"}},
		// It began while somebody attached: that it runs was told before its beginning.
		"who came at its beginning":            {-1, false, []any{attached(busy), begins, time.Second, ends, out, time.Second, over()}, []string{run + "10", "output of 2 at 30", done + "30"}},
		"one that was over before it was told": {10, true, []any{attached(open()), begins, ends, out, over()}, []string{done + "10", done + "30", "output of 2 at 30"}},
		"whose end is not stored in time":      {10, false, []any{attached(open()), begins, time.Second, ends, out, 10 * time.Second, over()}, []string{run + "10", "output of 2 at 30"}},
		"who came back in its middle":          {10, false, []any{attached(open()), ends, out, time.Second, over()}, []string{"output of 2 at 30", done + "30"}},
		"whose end is stored":                  {10, true, []any{attached(open()), ends, out, over()}, []string{done + "30", "output of 2 at 30"}},
		"at the end of its session":            {10, false, []any{attached(open()), begins, time.Millisecond, ends, over()}, []string{run + "10", done + "30"}},
		"one that nobody knows (any more)":     {10, false, []any{attached(open()), TerminalEvent{Kind: TerminalCommand, CommandID: "other"}, over()}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st, _ := newStage(open())
				p, _ := newPlant(running())
				p.commands[0].SessionOffset = c.offset
				p.change, p.after = end, 100*time.Millisecond
				if strings.Contains(name, "not stored in time") {
					p.after = 2 * time.Hour
				}
				if c.stored {
					end(&p.commands[0])
				}
				svc := NewSessions(st, st, p, &told{})
				st.events = c.events
				l := newLine(asAnn(t), starts("deploy"))
				if err := svc.Attach(l); err != nil {
					t.Error(err)
				}
				got := l.told()
				if got = got[1:]; len(got) == 0 || got[len(got)-1] != "ended SESSION_STATE_ENDED" || !slices.Equal(got[:len(got)-1], c.want) {
					t.Errorf("%q", got)
				}
			})
		})
	}
	// A store that fails is no command that is not there.
	synctest.Test(t, func(t *testing.T) {
		st, _ := newStage(open())
		p, _ := newPlant(running())
		broken := errors.New("store")
		svc := NewSessions(st, st, failingGet{p, broken}, &told{})
		st.events = []any{attached(open()), begins, over()}
		if err := svc.Attach(newLine(asAnn(t), starts("deploy"))); err != broken {
			t.Error(err)
		}
	})
}

type failingGet struct {
	*plant
	err error
}

func (f failingGet) Get(context.Context, access.Caller, string) (Snapshot, error) {
	return Snapshot{}, f.err
}
