package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
)

// Shells keeps sessions. Methods may be called concurrently. Each refuses what the
// caller may not do (ROLE_MISSING, ACCESS_DENIED, TYPING_NOT_ALLOWED). A ref is the
// name or the id of a session; UNKNOWN_SESSION where there is none.
type Shells interface {
	// Open starts a shell and gives its session when it is there. reuse: one of that
	// name on that host is as good.
	Open(ctx context.Context, by access.Caller, spec session.Spec, reuse bool) (s session.Session, reused bool, err error)
	// Get gives a session.
	Get(ctx context.Context, by access.Caller, ref string) (session.Session, error)
	// List gives the sessions that the caller may see, newest first.
	List(ctx context.Context, by access.Caller, f session.Filter) ([]session.Session, error)
	// Close ends a session, and what runs in it.
	Close(ctx context.Context, by access.Caller, ref, reason string) (session.Session, command.CancelReport, error)
	// MayType reports whether the caller may type in a session.
	MayType(by access.Caller, s session.Session) bool
	// Watch begins to watch the sessions that the caller may see; the caller closes the
	// watcher.
	Watch(ctx context.Context, by access.Caller) SessionsWatcher
}

// SessionsWatcher is one watcher of sessions, for one goroutine.
type SessionsWatcher interface {
	// Next waits for the next session that was opened, has changed or has ended; nil
	// once those that had not ended at the beginning have been told.
	Next(ctx context.Context) (*session.Session, error)
	// Close ends the watch.
	Close()
}

// Terminals are what sessions show, and what is typed there. Methods may be called
// concurrently, and refuse as those of Shells.
type Terminals interface {
	// Attach makes the caller a viewer, who closes itself.
	Attach(ctx context.Context, by access.Caller, ref string, o AttachOptions) (Attachment, error)
	// Screen gives the screen as text, behind so many lines of scrollback.
	Screen(ctx context.Context, by access.Caller, ref string, scrollback int) (ScreenText, error)
	// Keys types, and gives the screen when it has not changed for as long as settle, or
	// after a while all the same.
	Keys(ctx context.Context, by access.Caller, ref string, keys []session.Key, settle time.Duration, scrollback int) (t ScreenText, settled bool, err error)
	// Recording gives a piece of the recording; last where there is no more, as yet.
	Recording(ctx context.Context, by access.Caller, ref string, offset int64, limit int) (data []byte, last bool, err error)
}

// ScreenText is a screen as text.
type ScreenText struct {
	Lines                   []string // without trailing spaces
	Scrollback              int      // how many of them are above the screen
	CursorRow, CursorColumn int
	Alternate               bool // a full-screen program has it
	Session                 session.Session
}

// defaultSettle is how long a screen must be still where the caller does not say.
const defaultSettle = 200 * time.Millisecond

// Sessions answers for SessionService.
type Sessions struct {
	telexecv1.UnsafeSessionServiceServer // a new call of the proto does not compile until it is answered

	shells    Shells
	terminals Terminals
	engine    Engine
	refusals  Refusals
}

// NewSessions makes the service.
func NewSessions(s Shells, t Terminals, e Engine, r Refusals) *Sessions {
	return &Sessions{shells: s, terminals: t, engine: e, refusals: r}
}

// toProto gives a session as the caller sees it.
func (s *Sessions) toProto(by access.Caller, one session.Session) *telexecv1.Session {
	return sessionToProto(one, s.shells.MayType(by, one))
}

// OpenSession is of SessionService.
func (s *Sessions) OpenSession(ctx context.Context, r *telexecv1.OpenSessionRequest) (*telexecv1.OpenSessionResponse, error) {
	by := caller(ctx)
	one, reused, err := s.shells.Open(ctx, by, sessionSpecFromProto(r), r.GetReuse())
	if err != nil {
		return nil, err
	}
	return &telexecv1.OpenSessionResponse{Session: s.toProto(by, one), Reused: reused}, nil
}

// GetSession is of SessionService.
func (s *Sessions) GetSession(ctx context.Context, r *telexecv1.GetSessionRequest) (*telexecv1.GetSessionResponse, error) {
	by := caller(ctx)
	one, err := s.shells.Get(ctx, by, r.GetSession())
	if err != nil {
		return nil, err
	}
	return &telexecv1.GetSessionResponse{Session: s.toProto(by, one)}, nil
}

// ListSessions is of SessionService.
func (s *Sessions) ListSessions(ctx context.Context, r *telexecv1.ListSessionsRequest) (*telexecv1.ListSessionsResponse, error) {
	unpaged := proto.CloneOf(r)
	unpaged.PageSize, unpaged.PageToken = 0, ""
	cursor, err := pageCursor(unpaged, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	size, f, by := pageSize(r.GetPageSize()), sessionFilterFromProto(r), caller(ctx)
	f.Before, f.Limit = cursor, size+1 // one more tells whether there is a next page
	list, err := s.shells.List(ctx, by, f)
	if err != nil {
		return nil, err
	}
	page, bytes := &telexecv1.ListSessionsResponse{}, 0
	for i, one := range list {
		p := s.toProto(by, one)
		bytes += proto.Size(p)
		if i == size || i > 0 && bytes > maxPageBytes {
			page.NextPageToken = pageToken(unpaged, list[i-1].ID)
			break
		}
		page.Sessions = append(page.Sessions, p)
	}
	return page, nil
}

// CloseSession is of SessionService.
func (s *Sessions) CloseSession(ctx context.Context, r *telexecv1.CloseSessionRequest) (*telexecv1.CloseSessionResponse, error) {
	by := caller(ctx)
	one, report, err := s.shells.Close(ctx, by, r.GetSession(), r.GetReason())
	if err != nil {
		return nil, err
	}
	return &telexecv1.CloseSessionResponse{Session: s.toProto(by, one), Report: reportToProto(report)}, nil
}

// ReadScreen is of SessionService.
func (s *Sessions) ReadScreen(ctx context.Context, r *telexecv1.ReadScreenRequest) (*telexecv1.ReadScreenResponse, error) {
	by := caller(ctx)
	t, err := s.terminals.Screen(ctx, by, r.GetSession(), int(r.GetScrollbackLines()))
	if err != nil {
		return nil, err
	}
	return screenTextToProto(t, s.shells.MayType(by, t.Session)), nil
}

// SendKeys is of SessionService.
func (s *Sessions) SendKeys(ctx context.Context, r *telexecv1.SendKeysRequest) (*telexecv1.SendKeysResponse, error) {
	by, settle := caller(ctx), defaultSettle
	if r.GetSettle() != nil {
		settle = r.GetSettle().AsDuration()
	}
	keys := make([]session.Key, len(r.GetKeys()))
	for i, k := range r.GetKeys() {
		keys[i] = session.Key{Text: k.GetText(), Name: k.GetName()}
	}
	t, settled, err := s.terminals.Keys(ctx, by, r.GetSession(), keys, settle, int(r.GetScrollbackLines()))
	if err != nil {
		return nil, err
	}
	return &telexecv1.SendKeysResponse{Screen: screenTextToProto(t, s.shells.MayType(by, t.Session)), Settled: settled}, nil
}

// ReadRecording is of SessionService.
func (s *Sessions) ReadRecording(r *telexecv1.ReadRecordingRequest, out grpc.ServerStreamingServer[telexecv1.ReadRecordingResponse]) error {
	ctx := out.Context()
	by := caller(ctx)
	one, err := s.shells.Get(ctx, by, r.GetSession())
	if err != nil {
		return err
	}
	for offset := r.GetOffset(); ; {
		// By its id: while one is read another may get the name.
		data, last, err := s.terminals.Recording(ctx, by, one.ID, offset, maxPart)
		if err != nil {
			return err
		}
		if err := out.Send(&telexecv1.ReadRecordingResponse{Offset: offset, Data: data, Last: last}); err != nil || last {
			return err
		}
		offset += int64(len(data))
	}
}
