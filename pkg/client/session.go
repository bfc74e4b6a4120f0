package client

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// OpenSession starts a shell on a host and gives its session when it has shown its
// prompt. With a name and reuse it is retried as every call that does no harm when it
// reaches the service twice; otherwise only where it provably never left this
// machine, for there would be two. Commands run in it by Execute with its name.
func (c *Client) OpenSession(ctx context.Context, req *telexecv1.OpenSessionRequest) (*telexecv1.OpenSessionResponse, error) {
	return call(ctx, c, req.GetName() != "" && req.GetReuse(), c.sessions.OpenSession, req)
}

// GetSession tells how a session is, by its name or id, and who is there.
func (c *Client) GetSession(ctx context.Context, session string) (*telexecv1.Session, error) {
	resp, err := call(ctx, c, true, c.sessions.GetSession, &telexecv1.GetSessionRequest{Session: session})
	return resp.GetSession(), err
}

// ListSessions gives the sessions that match req, newest first, over all pages; as
// ListCommands.
func (c *Client) ListSessions(ctx context.Context, req *telexecv1.ListSessionsRequest) iter.Seq2[*telexecv1.Session, error] {
	req = proto.CloneOf(req)
	return pages(func(token string) ([]*telexecv1.Session, string, error) {
		if token != "" {
			req.PageToken = token
		}
		resp, err := c.ListSessionsPage(ctx, req)
		return resp.GetSessions(), resp.GetNextPageToken(), err
	})
}

// ListSessionsPage gives one page, for callers that page themselves.
func (c *Client) ListSessionsPage(ctx context.Context, req *telexecv1.ListSessionsRequest) (*telexecv1.ListSessionsResponse, error) {
	return call(ctx, c, true, c.sessions.ListSessions, req)
}

// CloseSession ends a session and what runs in it; harmless where it has ended.
func (c *Client) CloseSession(ctx context.Context, req *telexecv1.CloseSessionRequest) (*telexecv1.CloseSessionResponse, error) {
	return call(ctx, c, true, c.sessions.CloseSession, req)
}

// ReadScreen tells what is on the screen of a session, as text.
func (c *Client) ReadScreen(ctx context.Context, req *telexecv1.ReadScreenRequest) (*telexecv1.ReadScreenResponse, error) {
	return call(ctx, c, true, c.sessions.ReadScreen, req)
}

// SendKeys types in a session, and gives the screen that follows. It is not retried
// once any of it may have been typed.
func (c *Client) SendKeys(ctx context.Context, req *telexecv1.SendKeysRequest) (*telexecv1.SendKeysResponse, error) {
	return call(ctx, c, false, c.sessions.SendKeys, req)
}

// ReadRecording gives the recording of a session as far as it is, from req.Offset on,
// in pieces that follow each other exactly. It resumes by itself: when the connection
// or the service goes away it goes on at the next byte. The sequence ends behind the
// piece that is the last one as yet, or with an error. Leaving the loop ends the
// stream.
func (c *Client) ReadRecording(ctx context.Context, req *telexecv1.ReadRecordingRequest) iter.Seq2[*telexecv1.ReadRecordingResponse, error] {
	return func(yield func(*telexecv1.ReadRecordingResponse, error) bool) {
		// Its id, since another session may have its name when the connection is back.
		s, err := c.GetSession(ctx, req.GetSession())
		if err != nil {
			yield(nil, err)
			return
		}
		req := proto.CloneOf(req)
		req.Session = s.GetId()
		if err := c.resuming(ctx, func(p *pause) *Error { return c.recordingOnce(ctx, req, p, yield) }); err != nil {
			yield(nil, err)
		}
	}
}

// recordingOnce reads over one connection and notes in req how far it has come. It
// gives nil when nothing more is to be done.
func (c *Client) recordingOnce(ctx context.Context, req *telexecv1.ReadRecordingRequest, p *pause, yield func(*telexecv1.ReadRecordingResponse, error) bool) *Error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.sessions.ReadRecording(streamCtx, req)
	if err != nil {
		return c.decode(ctx, err)
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return newError(codes.Unavailable, ReasonUnreachable, "the service at %s ended the recording too early", c.server)
		}
		if err != nil {
			return c.decode(ctx, err)
		}
		if piece.GetOffset() != req.GetOffset() {
			return newError(codes.DataLoss, ReasonProtocol, "the service sent byte %d of the recording where %d was to come", piece.GetOffset(), req.GetOffset())
		}
		req.Offset += int64(len(piece.GetData()))
		p.progress()
		if !yield(piece, nil) || piece.GetLast() {
			return nil
		}
	}
}
