package e2e

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/testenv"
)

// shared is a session of a test.
type shared struct {
	*testing.T
	env  *testenv.Env
	api  telexecv1.SessionServiceClient
	name string
}

// openShared opens a session with bash on the host that is always there.
func openShared(t *testing.T, env *testenv.Env, name string, keeper telexecv1.Keeper) *shared {
	t.Helper()
	s := &shared{T: t, env: env, api: telexecv1.NewSessionServiceClient(env.Conn()), name: name}
	t.Cleanup(func() { closeShared(t, env, name) })
	r, err := s.api.OpenSession(t.Context(), &telexecv1.OpenSessionRequest{Host: env.Host, Name: name, Shell: "bash", Keeper: keeper, Columns: 100, Rows: 30})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.GetSession(); got.GetState() != telexecv1.SessionState_SESSION_STATE_OPEN || got.GetShell() != "bash" || got.GetCompletion() != telexecv1.Completion_COMPLETION_MARK ||
		got.GetKeeper() != keeper || got.GetColumns() != 100 || !got.GetMayType() || got.GetConnection() != telexecv1.Connection_CONNECTION_CONNECTED {
		t.Fatalf("opened as %v", got)
	}
	return s
}

// closeShared closes a session at the end of a test: a shell that is kept outlives
// the service.
func closeShared(t testing.TB, env *testenv.Env, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	_, err := telexecv1.NewSessionServiceClient(env.Conn()).CloseSession(ctx, &telexecv1.CloseSessionRequest{Session: name}, grpc.WaitForReady(true))
	if err != nil && status.Code(err) != codes.NotFound {
		t.Errorf("the session %s could not be closed: %v", name, err)
	}
}

// run runs a line in the session and gives its end, with what it printed.
func (s *shared) run(line string) (*telexecv1.Command, string) {
	s.Helper()
	r, err := s.env.Commands().Execute(s.Context(), &telexecv1.ExecuteRequest{Session: s.name, Command: line, Wait: durationpb.New(20 * time.Second)}, grpc.WaitForReady(true))
	if err != nil {
		s.Fatalf("%s: %v", line, err)
	}
	return r.GetCommand(), string(r.GetStdout().GetData())
}

// start begins a line in the session, and waits until it is in the state.
func (s *shared) start(line string, state telexecv1.CommandState) *telexecv1.Command {
	s.Helper()
	r, err := s.env.Commands().Execute(s.Context(), &telexecv1.ExecuteRequest{Session: s.name, Command: line, Wait: durationpb.New(0)})
	if err != nil {
		s.Fatal(err)
	}
	return await(s, s.env, r.GetCommand().GetId(), func(c *telexecv1.Command) bool { return c.GetState() == state })
}

// seat is somebody at the terminal of a session.
type seat struct {
	*shared
	stream   grpc.BidiStreamingClient[telexecv1.AttachRequest, telexecv1.AttachResponse]
	attached *telexecv1.Attached
	seen     strings.Builder             // all output, behind the screen that came first
	at       int64                       // where the output goes on
	told     []*telexecv1.AttachResponse // all else
}

// attach sits down at it. The stream lasts as long as the test, at most a minute.
func (s *shared) attach(conn *grpc.ClientConn, role telexecv1.ViewerRole) *seat {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	s.Cleanup(cancel)
	stream, err := telexecv1.NewSessionServiceClient(conn).Attach(ctx)
	if err != nil {
		s.Fatal(err)
	}
	v := &seat{shared: s, stream: stream}
	v.say(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Session: s.name, Role: role, Label: "test"}}})
	v.until("the screen", func(m *telexecv1.AttachResponse) bool { return m.GetScreen() != nil })
	if v.attached == nil {
		s.Fatal("the screen came before anybody was attached")
	}
	return v
}

func (v *seat) say(r *telexecv1.AttachRequest) {
	v.Helper()
	if err := v.stream.Send(r); err != nil {
		v.Fatal(err)
	}
}

func (v *seat) types(text string) {
	v.Helper()
	v.say(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Input{Input: []byte(text)}})
}

func (v *seat) keyboard(action telexecv1.KeyboardAction) {
	v.Helper()
	v.say(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Keyboard{Keyboard: &telexecv1.KeyboardRequest{Action: action}}})
}

// next gives the next thing that is told, and sees to it that output has no hole.
func (v *seat) next() (*telexecv1.AttachResponse, error) {
	v.Helper()
	m, err := v.stream.Recv()
	if err != nil {
		return nil, err
	}
	if m.GetOutput() == nil && m.GetScreen() == nil {
		v.told = append(v.told, m)
	}
	switch {
	case m.GetTime() == nil:
		v.Errorf("without a time: %v", m)
	case m.GetAttached() != nil:
		v.attached = m.GetAttached()
	case m.GetScreen() != nil:
		v.at = m.GetScreen().GetOffset()
	case m.GetOutput() != nil:
		if m.GetOutput().GetOffset() != v.at {
			v.Errorf("output at %d, want %d", m.GetOutput().GetOffset(), v.at)
		}
		v.at += int64(len(m.GetOutput().GetData()))
		v.seen.Write(m.GetOutput().GetData())
	}
	return m, nil
}

// until waits for something that is told.
func (v *seat) until(what string, enough func(*telexecv1.AttachResponse) bool) *telexecv1.AttachResponse {
	v.Helper()
	for {
		m, err := v.next()
		if err != nil {
			v.Fatalf("waiting for %s: %v, having seen %q and been told\n%v", what, err, v.seen.String(), v.told)
		}
		if enough(m) {
			return m
		}
	}
}

// sees waits until a text was printed.
func (v *seat) sees(text string) {
	v.Helper()
	if !strings.Contains(v.seen.String(), text) {
		v.until(text, func(*telexecv1.AttachResponse) bool { return strings.Contains(v.seen.String(), text) })
	}
}

// connected waits until the service is connected to the shell.
func (v *seat) connected() {
	v.Helper()
	is := func(s *telexecv1.Session) bool { return s.GetConnection() == telexecv1.Connection_CONNECTION_CONNECTED }
	if !is(v.attached.GetSession()) {
		v.until("the connection", func(m *telexecv1.AttachResponse) bool { return is(m.GetSession()) })
	}
}

// command waits for a command in a state, at its place in the output.
func (v *seat) command(line string, state telexecv1.CommandState) *telexecv1.SessionCommand {
	v.Helper()
	return v.until(line, func(m *telexecv1.AttachResponse) bool {
		return m.GetCommand().GetCommand().GetCommand() == line && m.GetCommand().GetCommand().GetState() == state
	}).GetCommand()
}

// TestSession is the life of a session that a program and two people share.
func TestSession(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	s := openShared(t, env, "deploy", telexecv1.Keeper_KEEPER_NONE)
	commands := env.Commands()

	// Nothing has run yet, and nothing can be cancelled.
	now, err := commands.GetStatus(t.Context(), &telexecv1.GetStatusRequest{Session: "deploy"})
	if err != nil || !now.GetNoTask() || now.GetCommand() != nil {
		t.Errorf("status of a new session: %v, %v", now, err)
	}
	if r, err := commands.Cancel(t.Context(), &telexecv1.CancelRequest{Session: "deploy"}); err != nil || !r.GetNoTask() {
		t.Errorf("cancel in a new session: %v, %v", r, err)
	}

	// Commands share a shell, and end with its codes.
	s.run("cd /var/tmp; who=world")
	for _, c := range []struct {
		line, out string
		code      int32
	}{
		{"pwd", "/var/tmp", 0}, {`echo "hello $who"`, "hello world", 0}, {"false", "", 1}, {"(exit 5)", "", 5}, {"for i in 1 2\ndo echo $i\ndone", "1\r\n2", 0},
	} {
		got, out := s.run(c.line)
		if got.GetState() != completed || got.ExitCode == nil || got.GetExitCode() != c.code || got.GetCompletion() != telexecv1.Completion_COMPLETION_MARK || strings.TrimSpace(out) != c.out {
			t.Errorf("%q: %q, %v", c.line, out, got)
		}
		if got.GetSession() != "deploy" || got.GetHost() != env.Host || got.GetSessionId() == "" || got.SessionOffset == nil {
			t.Errorf("where it ran: %v", got)
		}
	}

	// One at a time: what runs is told, another one waits or is refused.
	ann, bob := s.attach(env.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_UNSPECIFIED), s.attach(env.As(env.Key("bob", "admin")), telexecv1.ViewerRole_VIEWER_ROLE_WRITER)
	long := s.start("sleep 1000", running)
	now, err = commands.GetStatus(t.Context(), &telexecv1.GetStatusRequest{Session: "deploy"})
	if err != nil || now.GetCommand().GetId() != long.GetId() {
		t.Errorf("status of a busy session: %v, %v", now, err)
	}
	_, err = commands.Execute(t.Context(), &telexecv1.ExecuteRequest{Session: "deploy", Command: "true", IfBusy: telexecv1.IfBusy_IF_BUSY_REFUSE})
	if code, i := reason(t, err); code != codes.FailedPrecondition || i.GetReason() != fault.ReasonSessionBusy || i.GetMetadata()["command_id"] != long.GetId() ||
		i.GetMetadata()["principal"] != "admin" || i.GetMetadata()["since"] == "" {
		t.Errorf("refused with %v, %v", err, i)
	}
	next := s.start("echo it is my turn", telexecv1.CommandState_COMMAND_STATE_QUEUED)
	if next.GetQueue().GetWaitsFor() != "session" {
		t.Errorf("it waits for %q", next.GetQueue().GetWaitsFor())
	}

	// Whoever may, cancels it by the session's name, and everybody sees it.
	r, err := commands.Cancel(t.Context(), &telexecv1.CancelRequest{Session: "deploy", Reason: "enough"})
	if err != nil || r.GetCommand().GetId() != long.GetId() || r.GetCommand().GetState() != cancelled || r.GetReport().GetOutcome() != gone {
		t.Errorf("cancel: %v, %v", r, err)
	}
	for _, v := range []*seat{ann, bob} {
		v.sees("[CANCELLED] Command terminated by gRPC client")
		v.command("sleep 1000", cancelled)
	}
	if got := await(t, env, next.GetId(), ended); got.GetState() != completed || got.GetExitCode() != 0 {
		t.Errorf("what waited: %v", got)
	}

	// What somebody types is a command, too.
	ann.types("echo ty''ped\r")
	ann.sees("\rtyped\r\n")
	typed := ann.command("echo ty''ped", completed)
	if c := typed.GetCommand(); c.GetExitCode() != 0 || c.ExitCode == nil || c.GetCreatedBy().GetPrincipal() != "admin" || c.GetSession() != "deploy" || typed.GetOffset() <= c.GetSessionOffset() {
		t.Errorf("typed: %v", typed)
	}
	bob.until("who types", func(m *telexecv1.AttachResponse) bool {
		return m.GetTyped().GetViewer() == ann.attached.GetViewer() && m.GetTyped().GetActor().GetPrincipal() == "admin"
	})
	bob.sees("\rtyped\r\n")
	in := func() (lines []string) {
		t.Helper()
		list, err := commands.ListCommands(t.Context(), &telexecv1.ListCommandsRequest{Session: "deploy"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.GetCommands() {
			lines = append(lines, c.GetCommand())
		}
		return lines
	}
	if lines := in(); len(lines) != 9 || lines[0] != "echo ty''ped" || lines[1] != "echo it is my turn" {
		t.Errorf("the commands of the session are %q", lines)
	}

	// The keyboard is one's, and who only looks has none.
	bob.keyboard(telexecv1.KeyboardAction_KEYBOARD_ACTION_TAKE)
	ann.until("that bob has the keyboard", func(m *telexecv1.AttachResponse) bool {
		return m.GetSession().GetKeyboard() == bob.attached.GetViewer()
	})
	ann.types("x")
	if m := ann.until("a refusal", func(m *telexecv1.AttachResponse) bool { return m.GetRefused() != nil }); m.GetRefused().GetReason() != fault.ReasonKeyboardTaken || m.GetRefused().GetHint() == "" {
		t.Errorf("refused: %v", m)
	}
	eve := s.attach(env.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_OBSERVER)
	eve.types("x")
	if m := eve.until("a refusal", func(m *telexecv1.AttachResponse) bool { return m.GetRefused() != nil }); m.GetRefused().GetReason() != fault.ReasonTypingNotAllowed {
		t.Errorf("refused: %v", m)
	}
	got, err := s.api.GetSession(t.Context(), &telexecv1.GetSessionRequest{Session: "deploy"})
	if err != nil || len(got.GetSession().GetViewers()) != 3 || got.GetSession().GetViewers()[1].GetActor().GetPrincipal() != "bob" || got.GetSession().GetKeyboard() != bob.attached.GetViewer() {
		t.Errorf("who is there: %v, %v", got, err)
	}
	bob.keyboard(telexecv1.KeyboardAction_KEYBOARD_ACTION_RELEASE)
	ann.until("that nobody has the keyboard", func(m *telexecv1.AttachResponse) bool {
		return m.GetSession() != nil && m.GetSession().GetKeyboard() == ""
	})

	// Programs type as well, and read the screen.
	typedKeys, err := s.api.SendKeys(t.Context(), &telexecv1.SendKeysRequest{Session: "deploy", Keys: keys("echo by ke''ys", "Enter")})
	if err != nil || !slices.Contains(typedKeys.GetScreen().GetLines(), "by keys") || !typedKeys.GetSettled() {
		t.Errorf("keys: %v, %v", typedKeys, err)
	}
	screen, err := s.api.ReadScreen(t.Context(), &telexecv1.ReadScreenRequest{Session: "deploy", ScrollbackLines: 1000})
	if err != nil || !slices.Contains(screen.GetLines(), "hello world") || len(screen.GetLines()) != int(screen.GetScrollbackLines())+30 {
		t.Errorf("screen: %v, %v", screen, err)
	}

	metrics := string(rest(t, env, "GET", "/metrics", "").body)
	for _, line := range []string{"\ntelexec_sessions 1\n", "\ntelexec_session_viewers 3\n", "\ntelexec_terminal_output_bytes_total "} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics have no %q", line)
		}
	}
	if strings.Contains(metrics, "\ntelexec_terminal_output_bytes_total 0\n") {
		t.Error("no output of terminals was counted")
	}

	// It is over for everybody, and everybody has seen the same. Nothing waits for it any more.
	last, never := s.start("sleep 1000", running), s.start("echo never", telexecv1.CommandState_COMMAND_STATE_QUEUED)
	closed, err := s.api.CloseSession(t.Context(), &telexecv1.CloseSessionRequest{Session: "deploy", Reason: "done"})
	if err != nil || closed.GetSession().GetState() != telexecv1.SessionState_SESSION_STATE_ENDED || closed.GetSession().GetEnd().GetReason() != fault.ReasonSessionClosed {
		t.Errorf("closed: %v, %v", closed, err)
	}
	if got := await(t, env, never.GetId(), ended); got.GetState() != telexecv1.CommandState_COMMAND_STATE_FAILED || got.GetFailure().GetReason() != fault.ReasonSessionEnded {
		t.Errorf("what waited: %v", got)
	}
	if got := await(t, env, last.GetId(), ended); got.GetState() == completed {
		t.Errorf("what ran in it: %v", got)
	}
	for _, v := range []*seat{ann, bob, eve} {
		v.until("the end", func(m *telexecv1.AttachResponse) bool { return m.GetEnded() != nil })
		if _, err := v.next(); !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %v", err)
		}
	}
	if a, b := ann.seen.String(), bob.seen.String(); !strings.HasSuffix(a, b) && !strings.HasSuffix(b, a) {
		t.Errorf("one has seen\n%q\nthe other\n%q", a, b)
	}
	if strings.Contains(ann.seen.String(), "133;") {
		t.Errorf("marks were seen: %q", ann.seen.String())
	}
	_, err = commands.Execute(t.Context(), &telexecv1.ExecuteRequest{Session: "deploy", Command: "true"})
	if _, i := reason(t, err); i.GetReason() != fault.ReasonSessionEnded && i.GetReason() != fault.ReasonUnknownSession {
		t.Errorf("a command for a session that has ended: %v", err)
	}
	if s.recording(t, 0) == "" {
		t.Error("there is no recording")
	}
}

// recording gives a recording from a byte on.
func (s *shared) recording(t *testing.T, from int64) string {
	t.Helper()
	stream, err := s.api.ReadRecording(t.Context(), &telexecv1.ReadRecordingRequest{Session: s.name, Offset: from})
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for {
		piece, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		all.Write(piece.GetData())
		if piece.GetLast() {
			return all.String()
		}
	}
}

// TestSessionsAreToldAndRecorded: a session is there from its beginning to its end for
// whoever watches events, in the list, and in its recording, by gRPC and by REST.
func TestSessionsAreToldAndRecorded(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	a := rest(t, env, "POST", "/v1/sessions", `{"host": "web1", "name": "one", "shell": "bash", "keeper": "KEEPER_NONE", "labels": {"app": "shop"}}`)
	if a.status != http.StatusOK {
		t.Fatalf("HTTP %d %s", a.status, a.body)
	}
	s := &shared{T: t, env: env, api: telexecv1.NewSessionServiceClient(env.Conn()), name: "one"}
	if again := rest(t, env, "POST", "/v1/sessions", `{"host": "web1", "name": "one"}`); again.status != http.StatusConflict {
		t.Errorf("opened twice: HTTP %d %s", again.status, again.body)
	} else if why, _ := again.reason(t); why != fault.ReasonSessionExists {
		t.Errorf("opened twice: %s", why)
	}
	if reused, err := s.api.OpenSession(t.Context(), &telexecv1.OpenSessionRequest{Host: "web1", Name: "one", Reuse: true}); err != nil || !reused.GetReused() {
		t.Errorf("%v, %v", reused, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, err := telexecv1.NewEventServiceClient(env.Conn()).WatchEvents(ctx, &telexecv1.WatchEventsRequest{Labels: map[string]string{"app": "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, enough func(m *telexecv1.WatchEventsResponse) bool) {
		t.Helper()
		for {
			m, err := events.Recv()
			if err != nil {
				t.Fatalf("waiting for %s: %v", what, err)
			}
			if enough(m) {
				return
			}
		}
	}
	known := false
	until("synced", func(m *telexecv1.WatchEventsResponse) bool {
		known = known || m.GetSession().GetName() == "one"
		return m.GetSynced() != nil
	})
	if !known {
		t.Error("the session was not told before synced")
	}
	s.run("echo gr''üße")
	if a := rest(t, env, "GET", "/v1/sessions/one/status", ""); a.status != http.StatusOK || !strings.Contains(string(a.body), "COMMAND_STATE_COMPLETED") {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if a := rest(t, env, "POST", "/v1/sessions/one:keys", `{"keys": [{"text": "exit 7"}, {"name": "Enter"}], "settle": "0s"}`); a.status != http.StatusOK {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	until("the end", func(m *telexecv1.WatchEventsResponse) bool {
		end := m.GetSession()
		if end.GetState() == telexecv1.SessionState_SESSION_STATE_ENDED && (end.GetEnd().GetReason() != fault.ReasonShellExited || end.GetExitCode() != 7) {
			t.Errorf("ended as %v", end)
		}
		return end.GetState() == telexecv1.SessionState_SESSION_STATE_ENDED
	})

	whole := s.recording(t, 0)
	header, _, _ := strings.Cut(whole, "\n")
	if !strings.Contains(header, `"version":2`) || !strings.Contains(whole, "grüße") || strings.Contains(whole, "133;") {
		t.Fatalf("recorded is %q", whole)
	}
	if a := rest(t, env, "GET", "/v1/sessions/one/recording", "", "Accept", "application/x-asciicast"); a.status != http.StatusOK || string(a.body) != whole {
		t.Errorf("as a file: HTTP %d %q", a.status, a.body)
	}
	if rest := s.recording(t, 10); rest != whole[10:] {
		t.Errorf("from byte 10 on it is %q", rest)
	}
	list, err := s.api.ListSessions(t.Context(), &telexecv1.ListSessionsRequest{})
	all, allErr := s.api.ListSessions(t.Context(), &telexecv1.ListSessionsRequest{Ended: true, Name: "one"})
	if err != nil || allErr != nil || len(list.GetSessions()) != 0 || len(all.GetSessions()) != 1 || all.GetSessions()[0].GetEnd().GetReason() != fault.ReasonShellExited {
		t.Errorf("%v %v, %v %v", list, err, all, allErr)
	}
	if a := rest(t, env, "DELETE", "/v1/sessions/one?reason=again", ""); a.status != http.StatusOK {
		t.Errorf("closing what has ended: HTTP %d %s", a.status, a.body)
	}
	kinds := map[string]int{}
	for e := range auditOf(t.Context(), t, env, &telexecv1.ListAuditEntriesRequest{}) {
		if e.GetSession() != "" {
			kinds[e.GetKind()]++
		}
	}
	for _, kind := range []string{"session.opened", "session.typed", "session.ended", "command.accepted", "command.ended"} {
		if kinds[kind] == 0 {
			t.Errorf("the audit has no %s of the session: %v", kind, kinds)
		}
	}
}

// TestASessionSurvivesARestart: what keeps the shell on the host keeps it for the
// service, too, with what runs in it.
func TestASessionSurvivesARestart(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	s := openShared(t, env, "kept", telexecv1.Keeper_KEEPER_TMUX)
	s.run("answer=42")
	lost := openShared(t, env, "lost", telexecv1.Keeper_KEEPER_NONE)
	long := s.start("sh -c 'read x; echo got $x'", running)
	before, err := s.api.GetSession(t.Context(), &telexecv1.GetSessionRequest{Session: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	env.Restart()
	after, err := s.api.GetSession(t.Context(), &telexecv1.GetSessionRequest{Session: "kept"}, grpc.WaitForReady(true))
	if err != nil || after.GetSession().GetId() != before.GetSession().GetId() || after.GetSession().GetVersion() <= before.GetSession().GetVersion() ||
		after.GetSession().GetState() != telexecv1.SessionState_SESSION_STATE_OPEN {
		t.Fatalf("%v, %v", after, err)
	}
	if over, err := lost.api.GetSession(t.Context(), &telexecv1.GetSessionRequest{Session: "lost"}); err != nil || over.GetSession().GetEnd().GetReason() != fault.ReasonServiceRestarted {
		t.Errorf("%v, %v", over, err)
	}
	v := s.attach(env.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_WRITER)
	v.connected()
	if got := await(t, env, long.GetId(), func(*telexecv1.Command) bool { return true }); got.GetState() != running {
		t.Fatalf("what ran in it: %v", got)
	}
	v.types("input\r")
	v.sees("got input")
	if got := await(t, env, long.GetId(), ended); got.GetState() != completed || got.ExitCode == nil || got.GetExitCode() != 0 {
		t.Errorf("what ran in it ended as %v", got)
	}
	if c, out := s.run("echo $answer"); strings.TrimSpace(out) != "42" || c.GetExitCode() != 0 {
		t.Errorf("it is another shell: %q, %v", out, c)
	}
}
