package main

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// house is a service that has sessions, as a test wants them: what a real one tells only
// to another principal, or when it hangs.
type house struct {
	telexecv1.UnimplementedSessionServiceServer

	sessions []*telexecv1.Session
	refuse   error // of OpenSession

	opened []*telexecv1.OpenSessionRequest
	keys   []*telexecv1.SendKeysRequest
}

// start serves on loopback and gives an invocation that asks there.
func (h *house) start(t *testing.T) *invocation {
	t.Helper()
	return (&scripted{house: h}).start(t)
}

// OpenSession reuses the first.
func (h *house) OpenSession(_ context.Context, req *telexecv1.OpenSessionRequest) (*telexecv1.OpenSessionResponse, error) {
	h.opened = append(h.opened, req)
	if h.refuse != nil {
		return nil, h.refuse
	}
	return &telexecv1.OpenSessionResponse{Session: h.sessions[0], Reused: req.GetReuse()}, nil
}

func (h *house) SendKeys(_ context.Context, req *telexecv1.SendKeysRequest) (*telexecv1.SendKeysResponse, error) {
	h.keys = append(h.keys, req)
	return &telexecv1.SendKeysResponse{Settled: true, Screen: &telexecv1.ReadScreenResponse{}}, nil
}

// Attach shows the first, and takes nothing that is said.
func (h *house) Attach(s grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
	_ = s.Send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Attached{Attached: &telexecv1.Attached{Viewer: "v1", Session: h.sessions[0]}}})
	_ = s.Send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Screen{Screen: &telexecv1.Screen{Data: []byte("$ ready")}}})
	<-s.Context().Done()
	return nil
}
