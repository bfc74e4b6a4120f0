package gateway

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/metadata"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

// A recording is a file. The call that reads it gives pieces, each a line of JSON as of
// every stream; who accepts the type of such files gets the file itself.
const (
	recordingRule = "/v1/sessions/{session}/recording"
	recordingType = "application/x-asciicast" // as asciinema names it
)

// wantsRecording reports whether a request asks for a recording as a file.
func (g *Gateway) wantsRecording(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/recording") &&
		g.ruleOf(http.MethodGet, r.URL.Path) == recordingRule &&
		slices.ContainsFunc(tokens(r.Header, "Accept"), func(t string) bool {
			kind, _, _ := strings.Cut(t, ";")
			return strings.EqualFold(strings.TrimSpace(kind), recordingType)
		})
}

// recording answers with a recording as a file. One that breaks off ends the connection
// before its end, so that nobody takes it for the whole.
func (g *Gateway) recording(w http.ResponseWriter, r *http.Request) {
	q := &telexecv1.ReadRecordingRequest{Session: strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/sessions/"), "/recording")}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		g.refuse(w, r, invalid("the query cannot be read").WithHint("Percent-encode its values"))
		return
	}
	if err := (strictQuery{}).Parse(q, values, utilities.NewDoubleArray([][]string{{"session"}})); err != nil {
		g.refuse(w, r, invalid("%v", err).WithHint("offset is the first byte of the file to send"))
		return
	}
	c := g.visit(r)
	md := callMetadata(r, c)
	md.Set(requestIDKey, c.Call)
	var piece *telexecv1.ReadRecordingResponse
	stream, err := telexecv1.NewSessionServiceClient(g.conn).ReadRecording(metadata.NewOutgoingContext(r.Context(), md), q)
	if err == nil {
		piece, err = stream.Recv()
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", recordingType)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": q.GetSession() + ".cast"}))
	for {
		if _, err := w.Write(piece.GetData()); err != nil || piece.GetLast() {
			return
		}
		if piece, err = stream.Recv(); err != nil {
			g.options.Logger.InfoContext(r.Context(), "a recording broke off", "session", q.GetSession(), "reason", fault.ReasonOf(err), "error", err)
			panic(http.ErrAbortHandler)
		}
	}
}
