package gateway_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

// TestARecordingAsAFile: who accepts the type of the file gets its bytes and nothing
// else, who does not gets the pieces of the call.
func TestARecordingAsAFile(t *testing.T) {
	const path = "/v1/sessions/build/recording"
	accept := []string{"Accept", "text/html, application/x-asciicast;q=0.9"}
	file := "{\"version\":2}\n[0.1,\"o\",\"a\xff\"]\n"
	var ctx context.Context
	d := open(t, &service{record: func(r *telexecv1.ReadRecordingRequest, ss recordingStream) error {
		ctx = ss.Context()
		switch {
		case r.GetSession() != "build":
			return fault.New(fault.NotFound, fault.ReasonNotRecorded, "there is none").WithHint("Record the next one")
		case r.GetOffset() < 0:
			return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "below 0")
		}
		for at := r.GetOffset(); ; at += 7 {
			rest := file[at:]
			piece := rest[:min(7, len(rest))]
			if err := ss.Send(&telexecv1.ReadRecordingResponse{Offset: at, Data: []byte(piece), Last: len(rest) <= 7}); err != nil || len(rest) <= 7 {
				return err
			}
		}
	}})
	a := d.do("GET", path, "", accept...)
	if a.status != 200 || a.body != file || a.header.Get("Content-Type") != "application/x-asciicast" || a.header.Get("Content-Disposition") != "attachment; filename=build.cast" {
		t.Errorf("HTTP %d %v %q", a.status, a.header, a.body)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("x-request-id"); len(got) != 1 || got[0] != a.header.Get("X-Request-Id") || len(md.Get("telexec-origin")) != 1 {
		t.Errorf("metadata %v", md)
	}
	if a := d.do("GET", path+"?offset=3", "", accept...); a.body != file[3:] {
		t.Errorf("from byte 3: %q", a.body)
	}
	if a := d.do("GET", path, ""); a.header.Get("Content-Type") != "application/x-ndjson" || strings.Count(a.body, "\n") != (len(file)+6)/7 {
		t.Errorf("without its type: %v %q", a.header, a.body)
	}
	for path, want := range map[string]int{path + "?ofset=3": 400, path + "?offset=x": 400, path + "?offset=%zz": 400, path + "?offset=-1": 400, "/v1/sessions/other/recording": 404} {
		a := d.do("GET", path, "", accept...)
		if _, reason, hint, _ := a.problem(t); a.status != want || reason == "" || hint == "" && want == 404 {
			t.Errorf("%s: HTTP %d %s", path, a.status, a.body)
		}
	}
	if a := d.do("POST", path, "{}", accept...); a.status != 405 || a.header.Get("Allow") != "GET" {
		t.Errorf("POST: HTTP %d %s", a.status, a.body)
	}
}

// TestARecordingThatBreaksOff: half a file does not look like a file.
func TestARecordingThatBreaksOff(t *testing.T) {
	d := open(t, &service{record: func(_ *telexecv1.ReadRecordingRequest, ss recordingStream) error {
		if err := ss.Send(&telexecv1.ReadRecordingResponse{Data: []byte("{}\n")}); err != nil {
			return err
		}
		return fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down")
	}})
	resp, err := d.client.Do(d.request("GET", "/v1/sessions/build/recording", "", "Accept", "application/x-asciicast"))
	if err != nil {
		return // it broke off before the header was out
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("HTTP %d %q, and no error", resp.StatusCode, body)
	}
}
