package mcptool

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// running is a command that was started when its story began, and last printed
// something idle ago.
func running(since, idle time.Duration) *telexecv1.Command {
	now := time.Now()
	return &telexecv1.Command{
		Id: testID, Host: "web1", Version: 1, State: telexecv1.CommandState_COMMAND_STATE_RUNNING, Connection: telexecv1.Connection_CONNECTION_CONNECTED,
		CreateTime: timestamppb.New(now.Add(-since)), StartTime: timestamppb.New(now.Add(-since)), Duration: durationpb.New(since),
		LastActivityTime: timestamppb.New(now.Add(-idle)),
	}
}

// forever is a command that runs and prints nothing.
func forever(since time.Duration) *telexecv1.Command { return running(since, since) }

// endsAfter is one that ends at a time.
func endsAfter(d time.Duration) func(time.Duration) *telexecv1.Command {
	return func(since time.Duration) *telexecv1.Command {
		c := forever(since)
		if since >= d {
			c.State, c.ExitCode, c.Version = telexecv1.CommandState_COMMAND_STATE_COMPLETED, new(int32(0)), 2
		}
		return c
	}
}

// took calls a tool in a bubble of time, and gives how long the call lasted and
// what its structured content says.
func took(t *testing.T, s *service, name, arguments string) (d time.Duration, told map[string]any, text string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.began = time.Now()
		session := s.serve(t, Options{})
		began := time.Now()
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: json.RawMessage(arguments)})
		if err != nil {
			t.Fatal(err)
		}
		d = time.Since(began)
		told, _ = result.StructuredContent.(map[string]any)
		text = result.Content[0].(*mcp.TextContent).Text
	})
	return d, told, text
}

// TestHowLongCallsWait: as long as they are asked to, and never near the minute
// after which clients give up.
func TestHowLongCallsWait(t *testing.T) {
	execute := func(more string) string { return `{"host":"web1","command":"sleep 1h"` + more + `}` }
	status := func(more string) string { return `{"command_id":"` + testID + `"` + more + `}` }
	const most = longest - margin
	for _, tt := range []struct {
		tool, arguments string
		life            func(time.Duration) *telexecv1.Command
		want            time.Duration
	}{
		{"execute_command", execute(``), forever, defaultWait},
		{"execute_command", execute(`,"wait_seconds":null`), forever, defaultWait},
		{"execute_command", execute(`,"wait_seconds":0`), forever, 0},
		{"execute_command", execute(`,"wait_seconds":0.5`), forever, 500 * time.Millisecond},
		{"execute_command", execute(`,"wait_seconds":50`), forever, most},
		{"execute_command", execute(`,"wait_seconds":86400`), forever, most},
		{"execute_command", execute(`,"wait_seconds":1e300`), forever, most},
		{"execute_command", execute(``), endsAfter(time.Second), time.Second},
		{"execute_command", execute(``), endsAfter(20 * time.Second), 20 * time.Second},
		{"execute_command_async", execute(``), forever, 0},
		{"get_command_status", status(``), forever, 0},
		{"get_command_status", status(`,"wait_seconds":5`), forever, 5 * time.Second},
		{"get_command_status", status(`,"wait_seconds":86400`), forever, most},
		{"get_command_status", status(`,"wait_seconds":50`), endsAfter(7 * time.Second), 7 * time.Second},
		{"get_command_status", status(`,"until_silence_seconds":3`), forever, 3 * time.Second},
	} {
		t.Run(tt.tool+" "+tt.arguments, func(t *testing.T) {
			if d, _, text := took(t, &service{life: tt.life}, tt.tool, tt.arguments); d < tt.want || d > tt.want+200*time.Millisecond {
				t.Errorf("it lasted %s, want %s: %s", d, tt.want, text)
			}
		})
	}
}

// TestQueuedIsNotSilent, nor is a command whose host cannot be reached.
func TestQueuedIsNotSilent(t *testing.T) {
	queued := func(since time.Duration) *telexecv1.Command {
		c := forever(since)
		c.State, c.StartTime, c.Connection = telexecv1.CommandState_COMMAND_STATE_QUEUED, nil, 0
		return c
	}
	away := func(since time.Duration) *telexecv1.Command {
		c := forever(since)
		c.Connection = telexecv1.Connection_CONNECTION_RECONNECTING
		return c
	}
	for name, life := range map[string]func(time.Duration) *telexecv1.Command{"queued": queued, "away": away} {
		for _, pattern := range []string{"", `,"until_pattern":"x"`} {
			s := &service{life: life, stream: func(out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
				_ = out.Send(commandEvent(life(0)))
				<-out.Context().Done()
				return nil
			}}
			if d, told, _ := took(t, s, "get_command_status", `{"command_id":"`+testID+`","until_silence_seconds":1,"wait_seconds":5`+pattern+`}`); told["why"] != "time" || d < 5*time.Second {
				t.Errorf("%s%s: %v after %s", name, pattern, told["why"], d)
			}
		}
	}
}

func commandEvent(c *telexecv1.Command) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Command{Command: c}}
}

func chunkEvent(offset int64, data string) *telexecv1.StreamOutputResponse {
	return &telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Chunk{
		Chunk: &telexecv1.OutputChunk{Stream: telexecv1.Stream_STREAM_STDOUT, Offset: offset, Data: []byte(data)},
	}}
}

// TestPatternBeforeSilence: what was printed long ago is looked at before the
// silence since then counts; and silence begins anew with what is printed.
func TestPatternBeforeSilence(t *testing.T) {
	old := "booting\nREADY 4711\n"
	life := func(since time.Duration) *telexecv1.Command {
		c := running(since+time.Hour, since+time.Hour)
		c.StdoutBytes = int64(len(old))
		return c
	}
	s := &service{life: life, stream: func(out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		_ = out.Send(commandEvent(life(0)))
		<-time.After(100 * time.Millisecond) // a slow network
		_ = out.Send(chunkEvent(0, old))
		for i := range 3 {
			select {
			case <-out.Context().Done():
				return nil
			case <-time.After(2 * time.Second):
				_ = out.Send(chunkEvent(int64(len(old)+2*i), ".\n"))
			}
		}
		<-out.Context().Done()
		return nil
	}}
	arguments := `{"command_id":"` + testID + `","until_silence_seconds":5,"wait_seconds":40,"until_pattern":"`
	_, told, text := took(t, s, "get_command_status", arguments+`^READY"}`)
	if told["why"] != "pattern" || !strings.Contains(text, "READY 4711") {
		t.Errorf("%v: %s", told, text)
	}
	// That it was silent for an hour before does not count, and what comes does.
	if d, told, _ := took(t, s, "get_command_status", arguments+`^nothing"}`); told["why"] != "silence" || d < 11*time.Second || d > 12*time.Second {
		t.Errorf("%v after %s, want silence 5 s behind the last dot, which came after 6", told["why"], d)
	}
}

// TestLookWithoutWaiting: what was printed is looked at, and nothing is waited for.
func TestLookWithoutWaiting(t *testing.T) {
	s := &service{life: forever, stream: func(out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		_ = out.Send(commandEvent(forever(0)))
		<-time.After(100 * time.Millisecond)
		_ = out.Send(chunkEvent(0, "READY\n"))
		return out.Send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Ended{Ended: forever(0)}})
	}}
	for pattern, why := range map[string]string{"^READY": "pattern", "^STEADY": "time"} {
		if _, told, text := took(t, s, "get_command_status", `{"command_id":"`+testID+`","wait_seconds":0,"until_pattern":"`+pattern+`"}`); told["why"] != why {
			t.Errorf("%s: %v: %s", pattern, told["why"], text)
		}
	}
}

// TestSearchGoesOn: a search that was stopped by its budget goes on behind what it has
// told, also inside of a line that a progress bar has written.
func TestSearchGoesOn(t *testing.T) {
	var bar strings.Builder
	for i := range 500 {
		fmt.Fprintf(&bar, "step %03d\r", i)
	}
	bar.WriteString("\n")
	s := &service{life: endsAfter(0), streamFrom: func(req *telexecv1.StreamOutputRequest, out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		c := endsAfter(0)(0)
		c.StdoutBytes = int64(bar.Len())
		_ = out.Send(commandEvent(c))
		_ = out.Send(chunkEvent(req.GetStdoutOffset(), bar.String()[req.GetStdoutOffset():]))
		return out.Send(&telexecv1.StreamOutputResponse{Event: &telexecv1.StreamOutputResponse_Ended{Ended: c}})
	}}
	session := s.serve(t, Options{})
	seen, offset := 0, int64(0)
	for pages := 0; ; pages++ {
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_command_output", Arguments: map[string]any{
			"command_id": testID, "stream": "stdout", "pattern": "^step", "offset": offset, "max_bytes": 1000,
		}})
		if err != nil {
			t.Fatal(err)
		}
		var page pageFacts
		b, _ := json.Marshal(result.StructuredContent)
		if err := json.Unmarshal(b, &page); err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Matches {
			if want := fmt.Sprintf("step %03d", seen); m.Line != want {
				t.Fatalf("page %d: %q, want %q", pages, m.Line, want)
			}
			seen++
		}
		if !page.More {
			break
		}
		if offset = page.StdoutInfo.NextOffset; pages > 100 {
			t.Fatal("it does not get on")
		}
	}
	if seen != 500 {
		t.Errorf("%d of 500", seen)
	}
}

// TestSilenceCountsFromTheCall: what was silent before may just have been answered.
func TestSilenceCountsFromTheCall(t *testing.T) {
	life := func(since time.Duration) *telexecv1.Command {
		c := running(since+time.Hour, since+time.Hour)
		if since > 2*time.Second { // a line, at 2 s
			c.StdoutBytes, c.LastActivityTime, c.Version = 5, timestamppb.New(time.Now().Add(2*time.Second-since)), 2
		}
		return c
	}
	if d, told, text := took(t, &service{life: life}, "get_command_status", `{"command_id":"`+testID+`","until_silence_seconds":3}`); told["why"] != "silence" || d < 5*time.Second || d > 5200*time.Millisecond {
		t.Errorf("%v after %s: %s", told["why"], d, text)
	}
}

// TestChangesOfState: those that somebody waits for end a wait.
func TestChangesOfState(t *testing.T) {
	states := func(names ...string) func(time.Duration) *telexecv1.Command { // one for each second
		return func(since time.Duration) *telexecv1.Command {
			c := forever(since)
			i := min(int(since.Seconds()), len(names)-1)
			c.State, c.Version = telexecv1.CommandState(telexecv1.CommandState_value["COMMAND_STATE_"+names[i]]), int64(i+1)
			return c
		}
	}
	for _, tt := range []struct {
		life func(time.Duration) *telexecv1.Command
		why  string
		d    time.Duration
	}{
		{states("QUEUED", "STARTING", "RUNNING"), "state", 2 * time.Second},
		{states("STARTING", "RUNNING", "COMPLETED"), "ended", 2 * time.Second},
		{states("AWAITING_APPROVAL", "QUEUED", "RUNNING"), "state", time.Second},
		{states("RUNNING"), "time", 10 * time.Second},
	} {
		if d, told, text := took(t, &service{life: tt.life}, "get_command_status", `{"command_id":"`+testID+`","wait_seconds":10}`); told["why"] != tt.why || d < tt.d || d > tt.d+200*time.Millisecond {
			t.Errorf("%v after %s, want %s after %s: %s", told["why"], d, tt.why, tt.d, text)
		}
	}
}

// TestIDSurvivesTheService: from its first answer on the id is told, whatever
// becomes of the service.
func TestIDSurvivesTheService(t *testing.T) {
	s := &service{life: forever, refuse: func() error { return status.Error(codes.Unavailable, "gone") }}
	_, told, text := took(t, s, "execute_command", `{"host":"web1","command":"sleep 1h","wait_seconds":20}`)
	if told["command_id"] != testID || told["ended"] != false || told["stale"] == nil || !strings.Contains(text, testID) {
		t.Errorf("%v: %s", told, text)
	}
}

// TestIDSurvivesAServiceThatHangs: it answers once and then never again.
func TestIDSurvivesAServiceThatHangs(t *testing.T) {
	s := &service{life: forever, hang: true}
	d, told, text := took(t, s, "execute_command", `{"host":"web1","command":"sleep 1h","wait_seconds":20}`)
	if told["command_id"] != testID || told["stale"] == nil || d > longest+time.Second {
		t.Errorf("after %s: %v: %s", d, told, text)
	}
}

// TestProgress: a client that asks for it hears about once a second how it goes,
// and the values grow.
func TestProgress(t *testing.T) {
	for name, tt := range map[string]struct {
		seen    *telexecv1.Progress
		message string
		total   float64
	}{
		"recognised":            {&telexecv1.Progress{Percent: 42, Label: "Setting up libc6 (2.36)"}, "Setting up libc6 (2.36)", 100},
		"recognised, no label":  {&telexecv1.Progress{Percent: 42}, "100% packet loss", 100},
		"a label with a filler": {&telexecv1.Progress{Percent: 42, Label: "Setting\u3164 up"}, "Setting up", 100},
		"not recognised":        {nil, "100% packet loss", 0},
	} {
		t.Run(name, func(t *testing.T) { testProgress(t, tt.seen, tt.message, tt.total) })
	}
}

func testProgress(t *testing.T, seen *telexecv1.Progress, message string, total float64) {
	synctest.Test(t, func(t *testing.T) {
		life := func(d time.Duration) *telexecv1.Command {
			cmd := endsAfter(10 * time.Second)(d)
			cmd.Progress = seen
			return cmd
		}
		s := &service{life: life, stdout: "Get:1 packages\n100% packet loss\n"}
		s.began = time.Now()
		o := Options{Client: s.dial(t)}
		server, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		here, there := mcp.NewInMemoryTransports()
		serving, err := server.Connect(t.Context(), there, nil)
		if err != nil {
			t.Fatal(err)
		}
		var told []*mcp.ProgressNotificationParams
		session, err := mcp.NewClient(&mcp.Implementation{Name: "test"}, &mcp.ClientOptions{
			ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) { told = append(told, r.Params) },
		}).Connect(t.Context(), here, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = session.CallTool(t.Context(), &mcp.CallToolParams{
			Meta: mcp.Meta{"progressToken": "p"}, Name: "execute_command", Arguments: map[string]any{"host": "web1", "command": "apt upgrade"},
		})
		_ = session.Close()
		_ = serving.Wait()
		if err != nil || len(told) < 7 || len(told) > 11 {
			t.Fatalf("%d notifications, %v", len(told), err)
		}
		for i, p := range told {
			least := 0.0
			if seen != nil {
				least = seen.GetPercent()
			}
			if p.Message != message || p.Total != total || p.Progress < least || i > 0 && p.Progress <= told[i-1].Progress {
				t.Errorf("%+v", p)
			}
		}
	})
}
