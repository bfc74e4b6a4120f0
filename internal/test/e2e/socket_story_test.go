package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protojson"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// socket is a WebSocket of a client.
type socket struct {
	t    testing.TB
	conn *websocket.Conn
}

func connect(t testing.TB, env *testenv.Env, path string) (*socket, error) {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), "ws://"+env.HTTPAddr+path, &websocket.DialOptions{
		// As a browser does, which can set no header.
		Subprotocols:    []string{"telexec.v1.json", "telexec.bearer." + base64.RawURLEncoding.EncodeToString([]byte(env.Token.Reveal()))},
		CompressionMode: websocket.CompressionNoContextTakeover,
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(4 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	return &socket{t, conn}, nil
}

func mustConnect(t testing.TB, env *testenv.Env, path string) *socket {
	t.Helper()
	s, err := connect(t, env, path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *socket) send(text string) {
	s.t.Helper()
	if err := s.conn.Write(s.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *socket) next() (*telexecv1.SocketMessage, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	_, p, err := s.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	m := &telexecv1.SocketMessage{}
	return m, protojson.Unmarshal(p, m)
}

// until reads to the message of this type and id, and gives it with the output that
// came before.
func (s *socket) until(kind, id string) (*telexecv1.SocketMessage, string) {
	s.t.Helper()
	var out strings.Builder
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("before %s %q: %v", kind, id, err)
		}
		out.Write(m.GetData().GetChunk().GetData())
		switch {
		case m.GetType() == kind && m.GetId() == id:
			return m, out.String()
		case m.GetType() == "error":
			s.t.Fatalf("before %s %q: %v", kind, id, m)
		}
	}
}

// pageExamples gives the requests that docs/websocket.md shows, by what they ask for,
// and the message.
func pageExamples(t testing.TB) (requests map[string]string, told string) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/websocket.md")
	if err != nil {
		t.Fatal(err)
	}
	requests = make(map[string]string)
	for i, block := range strings.Split(string(page), "```json\n") {
		if block, _, _ = strings.Cut(block, "```"); i == 0 {
			continue
		}
		if strings.HasPrefix(block, `{"start"`) { // of a terminal
			if err := protojson.Unmarshal([]byte(block), &telexecv1.AttachRequest{}); err != nil {
				t.Fatalf("%s: %v", block, err)
			}
			continue
		}
		if !strings.HasPrefix(block, `{"id"`) {
			told = block
			continue
		}
		for line := range strings.Lines(block) {
			r := &telexecv1.SocketRequest{}
			if err := protojson.Unmarshal([]byte(line), r); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			asked := r.ProtoReflect().WhichOneof(r.ProtoReflect().Descriptor().Oneofs().ByName("request"))
			requests[string(asked.Name())] = line
		}
	}
	return requests, told
}

// TestTheWebSocketPage sends what docs/websocket.md shows.
func TestTheWebSocketPage(t *testing.T) {
	env := testenv.Start(t)
	examples, told := pageExamples(t)
	m := &telexecv1.SocketMessage{}
	if err := protojson.Unmarshal([]byte(told), m); err != nil || string(m.GetData().GetChunk().GetData()) != "hello\n" {
		t.Errorf("%v: %s", err, told)
	}
	s := mustConnect(t, env, "/v1/socket")
	watcher := mustConnect(t, env, "/v1/events")
	watcher.until("synced", "events")
	s.send(examples["execute"])
	answer, _ := s.until("execute", "e1")
	for first := true; ; first = false {
		m, _ := watcher.until("event", "events")
		c := m.GetData().GetEvent()
		if c.GetId() != answer.GetData().GetExecute().GetCommand().GetId() || first && c.GetCreatedBy().GetOrigin() != telexecv1.Origin_ORIGIN_WEBSOCKET {
			t.Fatalf("%v", m)
		}
		if c.GetEndTime() != nil {
			break
		}
	}
	if wait := answer.GetData().GetExecute().GetCommand(); wait.GetEndTime() != nil || answer.GetResource() != "commands/"+wait.GetId() {
		t.Errorf("%v", answer)
	}
	if last, out := s.until("ended", "e1"); last.GetData().GetEnded().GetExitCode() != 0 || !strings.Contains(out, "load average") {
		t.Errorf("%v after %q", last, out)
	}

	s.send(fmt.Sprintf(`{"id":"cat","execute":{"host":%q,"command":"trap 'echo hup' HUP; head -c 1000 /dev/zero; while :; do read x && echo got $x; done","stdinOpen":true}}`, env.Host))
	answer, _ = s.until("execute", "cat")
	id := answer.GetData().GetExecute().GetCommand().GetId()
	await(t, env, id, func(c *telexecv1.Command) bool { return c.GetStdoutBytes() == 1000 })
	mine := func(name string) string { return strings.ReplaceAll(examples[name], anExample, id) }
	s.send(mine("subscribe_events"))
	s.until("synced", "v1")
	s.send(mine("subscribe_output"))
	s.send(mine("input"))
	seen := ""
	for !strings.Contains(seen, "got yes\n") {
		m, err := s.next()
		if err != nil || m.GetType() == "error" {
			t.Fatal(m, err)
		}
		if c := m.GetData().GetChunk(); m.GetId() == "o1" {
			if seen += string(c.GetData()); c != nil && c.GetOffset() < 1000 {
				t.Errorf("%v", m)
			}
		}
	}
	s.send(mine("signal"))
	s.until("signal", "s1")
	s.send(mine("unsubscribe"))
	s.until("unsubscribed", "u1")
	s.send(mine("cancel"))
	answer, _ = s.until("cancel", "c1")
	if c := answer.GetData().GetCancel().GetCommand(); c.GetState() != telexecv1.CommandState_COMMAND_STATE_CANCELLED {
		t.Errorf("%v", answer)
	}
	await(t, env, id, ended)
}

// anExample is the command of the page.
const anExample = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// TestASocketGoesOnAfterACrash of the service, at the next byte.
func TestASocketGoesOnAfterACrash(t *testing.T) {
	env := testenv.Start(t)
	id := begin(t, env, &telexecv1.ExecuteRequest{Host: env.Host, Command: "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.01; done"})
	var got strings.Builder
	for crashes := 0; ; {
		s, err := connect(t, env, fmt.Sprintf("/v1/commands/%s/stream?stdout_offset=%d", id, got.Len()))
		if err != nil {
			t.Fatal(err)
		}
		done := false
		for !done {
			m, err := s.next()
			if err != nil {
				break // the crash
			}
			if c := m.GetData().GetChunk(); c != nil {
				if c.GetOffset() != int64(got.Len()) {
					t.Fatalf("offset %d, have %d", c.GetOffset(), got.Len())
				}
				got.Write(c.GetData())
			}
			if e := m.GetData().GetError(); e != nil {
				t.Logf("told %s", e.GetMessage())
				break
			}
			done = m.GetType() == "ended"
			if crashes < 2 && got.Len() > 1000*(crashes+1) {
				crashes++
				env.Kill()
				env.Restart()
			}
		}
		if done {
			break
		}
	}
	var want strings.Builder
	for i := range 400 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if got.String() != want.String() {
		t.Errorf("%d bytes, want %d", got.Len(), want.Len())
	}
}

// TestASocketIsToldOfTheEnd of the service.
func TestASocketIsToldOfTheEnd(t *testing.T) {
	env := testenv.Start(t)
	id := begin(t, env, &telexecv1.ExecuteRequest{Host: env.Host, Command: "sleep 60"})
	s := mustConnect(t, env, "/v1/commands/"+id+"/stream")
	s.until("command", "stream")
	stopped := make(chan struct{})
	go func() { env.Stop(); close(stopped) }()
	told := false
	for {
		m, err := s.next()
		if err != nil {
			if websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Error(err)
			}
			break
		}
		if e := m.GetData().GetError(); e != nil && m.GetId() == "" {
			if told = true; !strings.Contains(e.GetMessage(), "shutting down") {
				t.Errorf("%v", m)
			}
		}
	}
	if !told {
		t.Error("closed without a word")
	}
	<-stopped
}
