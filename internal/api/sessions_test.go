package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

func open() session.Session {
	return session.Session{
		ID: aSession, Version: 3, State: session.Open, Spec: session.Spec{Name: "deploy", Host: "web1"},
		CreatedBy: command.Actor{Principal: "ann"}, Size: session.DefaultSize, Nonce: "plant",
	}
}

func newStage(sessions ...session.Session) (*stage, *Sessions) {
	st := &stage{sessions: sessions, role: session.Writer}
	p, _ := newPlant(running())
	return st, NewSessions(st, st, p, &told{})
}

func TestSessions(t *testing.T) {
	st, svc := newStage(open())
	ctx := asAnn(t)
	st.text = ScreenText{Lines: []string{"a", "b\xff"}, Scrollback: 1, CursorRow: 2, CursorColumn: 3, Alternate: true, Session: open()}

	o, err := svc.OpenSession(ctx, &telexecv1.OpenSessionRequest{Host: "web1", Name: "deploy", Reuse: true, Rows: 40})
	if err != nil || !o.GetReused() || o.GetSession().GetName() != "deploy" || !o.GetSession().GetMayType() || st.spec.Size != (session.Size{Columns: 80, Rows: 40}) {
		t.Errorf("%v, %v: %+v", o, err, st.spec)
	}
	g, err := svc.GetSession(as(t.Context(), "bob"), &telexecv1.GetSessionRequest{Session: "deploy"})
	if err != nil || g.GetSession().GetId() != aSession || g.GetSession().GetMayType() {
		t.Errorf("%v, %v", g, err)
	}
	c, err := svc.CloseSession(ctx, &telexecv1.CloseSessionRequest{Session: "deploy", Reason: "done"})
	if err != nil || c.GetReport().GetEnded() != 3 || c.GetSession().GetId() != aSession {
		t.Errorf("%v, %v", c, err)
	}
	r, err := svc.ReadScreen(ctx, &telexecv1.ReadScreenRequest{Session: "deploy", ScrollbackLines: 7})
	if err != nil || !slices.Equal(r.GetLines(), []string{"a", "b\uFFFD"}) || r.GetScrollbackLines() != 1 || r.GetCursorRow() != 2 || r.GetCursorColumn() != 3 ||
		!r.GetAlternateScreen() || !r.GetSession().GetMayType() {
		t.Errorf("%v, %v", r, err)
	}
	keys := []*telexecv1.Key{{Key: &telexecv1.Key_Text{Text: "ls"}}, {Key: &telexecv1.Key_Name{Name: "Enter"}}}
	for _, settle := range []*durationpb.Duration{nil, durationpb.New(0)} {
		k, err := svc.SendKeys(ctx, &telexecv1.SendKeysRequest{Session: "deploy", Keys: keys, Settle: settle, ScrollbackLines: 2})
		if err != nil || !k.GetSettled() || len(k.GetScreen().GetLines()) != 2 {
			t.Errorf("%v, %v", k, err)
		}
	}
	want := []string{
		"open deploy on web1 by ann", "close deploy by ann: done", "screen of deploy with 7",
		"keys [{ls } { Enter}] in deploy by ann, 200ms, 2", "keys [{ls } { Enter}] in deploy by ann, 0s, 2",
	}
	if got := st.asked(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}

	st.fail = fault.New(fault.PermissionDenied, fault.ReasonAccessDenied, "no")
	_, err1 := svc.OpenSession(ctx, &telexecv1.OpenSessionRequest{})
	_, err2 := svc.GetSession(ctx, &telexecv1.GetSessionRequest{Session: "deploy"})
	_, err3 := svc.CloseSession(ctx, &telexecv1.CloseSessionRequest{})
	_, err4 := svc.ReadScreen(ctx, &telexecv1.ReadScreenRequest{})
	_, err5 := svc.SendKeys(ctx, &telexecv1.SendKeysRequest{})
	_, err6 := svc.ListSessions(ctx, &telexecv1.ListSessionsRequest{})
	for i, err := range []error{err1, err2, err3, err4, err5, err6} {
		if err != st.fail {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestSessionPages(t *testing.T) {
	var all []session.Session
	for i := range 5 {
		s := open()
		s.ID = fmt.Sprintf("%s%d", aSession[:25], 9-i)
		s.Spec.Labels = map[string]string{"a": strings.Repeat("x", 700_000)} // two of them make a page
		all = append(all, s)
	}
	st, svc := newStage(all...)
	var got []string
	for req := (&telexecv1.ListSessionsRequest{PageSize: 4, Host: "web1"}); ; {
		page, err := svc.ListSessions(asAnn(t), req)
		if err != nil || len(page.GetSessions()) == 0 || len(page.GetSessions()) > 2 {
			t.Fatalf("%d sessions, %v", len(page.GetSessions()), err)
		}
		for _, s := range page.GetSessions() {
			got = append(got, s.GetId()[25:])
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
		if _, err := svc.ListSessions(asAnn(t), &telexecv1.ListSessionsRequest{PageToken: req.PageToken, Host: "other"}); fault.ReasonOf(err) != fault.ReasonBadPageToken {
			t.Errorf("token of another list: %v", err)
		}
	}
	if strings.Join(got, "") != "98765" || st.filter.Limit != 5 || st.filter.Host != "web1" || len(st.filter.States) != 3 {
		t.Errorf("%v, %+v", got, st.filter)
	}
}

// reel keeps what a recording is sent in.
type reel struct {
	grpc.ServerStream
	ctx  context.Context
	sent []*telexecv1.ReadRecordingResponse
	fail error
}

func (r *reel) Context() context.Context { return r.ctx }
func (r *reel) Send(m *telexecv1.ReadRecordingResponse) error {
	r.sent = append(r.sent, m)
	return r.fail
}

func TestRecordingComesInPieces(t *testing.T) {
	st, svc := newStage(open())
	for _, c := range []struct {
		size, from int
		pieces     int
	}{
		{0, 0, 1}, {1, 0, 1}, {maxPart, 0, 1}, {maxPart + 1, 0, 2}, {3*maxPart - 1, 5, 3}, {10, 10, 1}, {10, 99, 1},
	} {
		st.recording = []byte(strings.Repeat("x", c.size))
		out := &reel{ctx: asAnn(t)}
		if err := svc.ReadRecording(&telexecv1.ReadRecordingRequest{Session: "deploy", Offset: int64(c.from)}, out); err != nil || len(out.sent) != c.pieces {
			t.Fatalf("%+v: %d pieces, %v", c, len(out.sent), err)
		}
		at := int64(c.from)
		for i, m := range out.sent {
			if m.GetOffset() != at || len(m.GetData()) > maxPart || m.GetLast() != (i == c.pieces-1) {
				t.Errorf("%+v: piece %d is at %d with %d bytes, last %v", c, i, m.GetOffset(), len(m.GetData()), m.GetLast())
			}
			at += int64(len(m.GetData()))
		}
		if want := max(c.size, c.from); at != int64(want) {
			t.Errorf("%+v: ends at %d", c, at)
		}
	}
	if got := st.asked(); !slices.Contains(got, "recording of "+aSession+" from 0") {
		t.Errorf("asked by its name, which may go to another session: %q", got)
	}
	gone := errors.New("gone")
	if err := svc.ReadRecording(&telexecv1.ReadRecordingRequest{Session: "deploy"}, &reel{ctx: asAnn(t), fail: gone}); err != gone {
		t.Error(err)
	}
	if err := svc.ReadRecording(&telexecv1.ReadRecordingRequest{Session: "other"}, &reel{ctx: asAnn(t)}); fault.ReasonOf(err) != fault.ReasonUnknownSession {
		t.Error(err)
	}
	st.fail = fault.New(fault.NotFound, fault.ReasonNotRecorded, "no")
	if err := svc.ReadRecording(&telexecv1.ReadRecordingRequest{Session: "deploy"}, &reel{ctx: asAnn(t)}); err != st.fail {
		t.Error(err)
	}
}
