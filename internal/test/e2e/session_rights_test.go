package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestTurnsInASession: of many commands for one shell each has it alone, in the order in
// which they came, and one that is called off while it waits never runs.
func TestTurnsInASession(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t)
	s := openShared(t, env, "turns", telexecv1.Keeper_KEEPER_NONE)
	v := s.attach(env.Conn(), telexecv1.ViewerRole_VIEWER_ROLE_WRITER)

	// While something runs that a person has typed, the others wait.
	v.types("read -r x; echo got $x\r")
	typed := v.until("what was typed", func(m *telexecv1.AttachResponse) bool { return m.GetCommand() != nil }).GetCommand().GetCommand()
	await(t, env, typed.GetId(), func(c *telexecv1.Command) bool { return c.GetState() == running })
	now, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{Session: "turns"})
	if err != nil || now.GetCommand().GetId() != typed.GetId() {
		t.Errorf("what runs: %v, %v", now, err)
	}
	_, err = env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Session: "turns", Command: "true", IfBusy: telexecv1.IfBusy_IF_BUSY_REFUSE})
	if code, i := reason(t, err); code != codes.FailedPrecondition || i.GetReason() != fault.ReasonSessionBusy || i.GetMetadata()["command_id"] != typed.GetId() ||
		i.GetMetadata()["command"] != "read -r x; echo got $x" || i.GetMetadata()["principal"] != "admin" {
		t.Errorf("refused with %v", err)
	}
	first := s.start("echo first", telexecv1.CommandState_COMMAND_STATE_QUEUED)
	never := s.start("touch ~/never_; echo never", telexecv1.CommandState_COMMAND_STATE_QUEUED)
	if first.GetQueue().GetWaitsFor() != "session" || never.GetQueue().GetPosition() <= first.GetQueue().GetPosition() {
		t.Errorf("they wait: %v, %v", first, never)
	}
	r, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: never.GetId()})
	if err != nil || r.GetCommand().GetState() != cancelled || !r.GetCommand().GetStartTime().AsTime().IsZero() && r.GetCommand().GetStartTime() != nil {
		t.Errorf("called off: %v, %v", r, err)
	}
	v.types("the answer\r")
	v.sees("got the answer")
	if c := await(t, env, first.GetId(), ended); !marked(c, 0) {
		t.Errorf("%v", c)
	}

	// Twenty at once, and somebody who types in between.
	const many = 20
	commands := make([]*telexecv1.Command, many)
	var all sync.WaitGroup
	for i := range commands {
		all.Go(func() {
			r, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{
				Session: "turns", Command: fmt.Sprintf("echo begin %d; sleep 0.02; echo end %[1]d", i), Wait: durationpb.New(30 * time.Second),
			})
			if err != nil {
				t.Error(err)
				return
			}
			commands[i] = r.GetCommand()
			// The terminal shows what somebody types, whatever runs there.
			out := strings.ReplaceAll(string(r.GetStdout().GetData()), "echo in ''between\r\n", "")
			if want := fmt.Sprintf("begin %d\r\nend %[1]d\r\n", i); out != want || !marked(commands[i], 0) {
				t.Errorf("%q, want %q: %v", out, want, r.GetCommand())
			}
		})
	}
	v.sees("begin ")
	v.types("echo in ''between\r")
	all.Wait()
	if t.Failed() {
		return
	}
	between := v.command("echo in ''between", completed).GetCommand()
	v.sees("\rin between\r\n")
	commands = append(commands, between)
	// Where each stands in the output of the terminal.
	type place struct{ begin, end int64 }
	places := make(map[string]place)
	stands := func() bool {
		for _, m := range v.told {
			if c := m.GetCommand(); c != nil {
				p, known := places[c.GetCommand().GetId()]
				if !known {
					p.begin = c.GetOffset()
				} else if ended(c.GetCommand()) {
					p.end = c.GetOffset()
				}
				places[c.GetCommand().GetId()] = p
			}
		}
		return !slices.ContainsFunc(commands, func(c *telexecv1.Command) bool { return places[c.GetId()].end == 0 })
	}
	if !stands() {
		v.until("the ends of all", func(*telexecv1.AttachResponse) bool { return stands() })
	}
	slices.SortFunc(commands, func(a, b *telexecv1.Command) int {
		return cmp.Compare(places[a.GetId()].begin, places[b.GetId()].begin)
	})
	for i, c := range commands[1:] {
		if before := commands[i]; places[c.GetId()].begin < places[before.GetId()].end {
			t.Errorf("%q began before %q had ended: %v", c.GetCommand(), before.GetCommand(), places)
		}
	}
	if strings.Contains(v.seen.String(), "never") {
		t.Errorf("what was called off was typed: %q", v.seen.String())
	}
	if c, out := s.run("ls ~/never_ 2>/dev/null; true"); out != "" || !marked(c, 0) {
		t.Errorf("what was called off has run: %q", out)
	}
}

// TestWhoMayTypeInASession: typing passes no rules, so it goes by roles; a command does,
// and what another one has is hidden.
func TestWhoMayTypeInASession(t *testing.T) {
	t.Parallel()
	const rules = `policy: {rules: [{name: never, effect: deny, match: {programs: [factor]}}]}`
	for name, config := range map[string]string{"without rules": "", "with rules": rules} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := testenv.Start(t, testenv.WithConfig(config))
			ruled := config != ""
			conns := map[string]*grpc.ClientConn{"admin": env.Conn()}
			for person, role := range map[string]string{"olga": "operator", "otto": "operator", "vera": "viewer"} {
				conns[person] = env.As(env.Key(person, role))
			}
			opened, err := telexecv1.NewSessionServiceClient(conns["otto"]).OpenSession(t.Context(), &telexecv1.OpenSessionRequest{Host: env.Host, Name: "ottos", Shell: "bash", Keeper: telexecv1.Keeper_KEEPER_NONE})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeShared(t, env, "ottos") })
			if may := opened.GetSession().GetMayType(); may == ruled {
				t.Errorf("otto may type in his session: %v", may)
			}
			s := &shared{T: t, env: env, api: telexecv1.NewSessionServiceClient(conns["otto"]), name: "ottos"}

			// Its owner.
			own := s.attach(conns["otto"], telexecv1.ViewerRole_VIEWER_ROLE_UNSPECIFIED)
			if writes := own.attached.GetRole() == telexecv1.ViewerRole_VIEWER_ROLE_WRITER; writes == ruled {
				t.Errorf("otto is attached as %v", own.attached.GetRole())
			}
			if ruled {
				if why := s.attachFails(conns["otto"], telexecv1.ViewerRole_VIEWER_ROLE_WRITER); why != fault.ReasonTypingNotAllowed {
					t.Errorf("otto as a writer: %s", why)
				}
				_, err := s.api.SendKeys(t.Context(), &telexecv1.SendKeysRequest{Session: "ottos", Keys: keys("factor 12", "Enter")})
				if _, i := reason(t, err); i.GetReason() != fault.ReasonTypingNotAllowed {
					t.Errorf("otto's keys: %v", err)
				}
				before := len(own.seen.String())
				_, err = telexecv1.NewCommandServiceClient(conns["otto"]).Execute(t.Context(), &telexecv1.ExecuteRequest{Session: "ottos", Command: "factor 12"})
				if code, i := reason(t, err); code != codes.PermissionDenied || i.GetReason() != fault.ReasonPolicyDenied {
					t.Errorf("a command that is not allowed: %v", err)
				}
				if c, out := s.as(conns["otto"], "echo all''owed"); !marked(c, 0) || out != "allowed\r\n" {
					t.Errorf("%q, %v", out, c)
				}
				own.sees("allowed\r\n")
				if strings.Contains(own.seen.String()[before:], "factor") {
					t.Errorf("what is not allowed was typed: %q", own.seen.String())
				}
			}

			// An administrator types wherever.
			admin := s.attach(conns["admin"], telexecv1.ViewerRole_VIEWER_ROLE_WRITER)
			admin.types("factor 1''2\r")
			admin.sees("12: 2 2 3")
			if c := admin.command("factor 1''2", completed).GetCommand(); c.GetCreatedBy().GetPrincipal() != "admin" {
				t.Errorf("%v", c)
			}
			admin.keyboard(telexecv1.KeyboardAction_KEYBOARD_ACTION_TAKE)
			admin.until("the keyboard", func(m *telexecv1.AttachResponse) bool {
				return m.GetSession().GetKeyboard() == admin.attached.GetViewer()
			})

			// Who is neither sees nothing of it, by its name, by its id and by what runs in it.
			long := s.start("sleep 1000", running)
			for _, person := range []string{"olga", "vera"} {
				for _, ref := range []string{"ottos", opened.GetSession().GetId()} {
					theirs := telexecv1.NewSessionServiceClient(conns[person])
					_, got := theirs.GetSession(t.Context(), &telexecv1.GetSessionRequest{Session: ref})
					_, screen := theirs.ReadScreen(t.Context(), &telexecv1.ReadScreenRequest{Session: ref})
					_, status := telexecv1.NewCommandServiceClient(conns[person]).GetStatus(t.Context(), &telexecv1.GetStatusRequest{Session: ref})
					_, cancel := telexecv1.NewCommandServiceClient(conns[person]).Cancel(t.Context(), &telexecv1.CancelRequest{Session: ref})
					_, execute := telexecv1.NewCommandServiceClient(conns[person]).Execute(t.Context(), &telexecv1.ExecuteRequest{Session: ref, Command: "true"})
					for i, err := range []error{got, screen, status, cancel, execute} {
						if code, _ := reason(t, err); code != codes.PermissionDenied {
							t.Errorf("%s, %s, call %d: %v", person, ref, i, err)
						}
					}
					if why := (&shared{T: t, env: env, name: ref}).attachFails(conns[person], telexecv1.ViewerRole_VIEWER_ROLE_OBSERVER); why == "" {
						t.Errorf("%s is attached to %s", person, ref)
					}
				}
				list, err := telexecv1.NewSessionServiceClient(conns[person]).ListSessions(t.Context(), &telexecv1.ListSessionsRequest{})
				if err != nil || len(list.GetSessions()) != 0 {
					t.Errorf("%s is told of %v, %v", person, list, err)
				}
			}
			if got := await(t, env, long.GetId(), func(*telexecv1.Command) bool { return true }); got.GetState() != running {
				t.Errorf("what runs there: %v", got)
			}

			s.with(conns["admin"]).toldInAudit(opened.GetSession().GetId(), ruled)
		})
	}
}

// with is s for the holder of a connection.
func (s *shared) with(conn *grpc.ClientConn) *shared {
	return &shared{T: s.T, env: s.env, api: telexecv1.NewSessionServiceClient(conn), name: s.name}
}

// as runs a line in the session for the holder of a connection.
func (s *shared) as(conn *grpc.ClientConn, line string) (*telexecv1.Command, string) {
	s.Helper()
	r, err := telexecv1.NewCommandServiceClient(conn).Execute(s.Context(), &telexecv1.ExecuteRequest{Session: s.name, Command: line, Wait: durationpb.New(20 * time.Second)})
	if err != nil {
		s.Fatalf("%s: %v", line, err)
	}
	return r.GetCommand(), string(r.GetStdout().GetData())
}

// attachFails tries to attach, and gives the reason of the refusal; empty: there was none.
func (s *shared) attachFails(conn *grpc.ClientConn, role telexecv1.ViewerRole) string {
	s.Helper()
	stream, err := telexecv1.NewSessionServiceClient(conn).Attach(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if err := stream.Send(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Session: s.name, Role: role}}}); err != nil && !errors.Is(err, io.EOF) {
		s.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		_, i := reason(s, err)
		return i.GetReason()
	}
	return ""
}

// toldInAudit checks what the audit has of such a session, once it was closed.
func (s *shared) toldInAudit(id string, ruled bool) {
	s.Helper()
	if _, err := s.api.CloseSession(s.Context(), &telexecv1.CloseSessionRequest{Session: id, Reason: "enough"}); err != nil {
		s.Fatal(err)
	}
	type entry struct{ kind, principal, detail string }
	var told []entry
	for e := range auditOf(s.Context(), s.T, s.env, &telexecv1.ListAuditEntriesRequest{}) {
		if e.GetSession() == id {
			detail := ""
			switch e.GetKind() {
			case "session.keyboard":
				detail = e.GetDetail()
			case "session.ended":
				detail = e.GetReason()
			case "command.accepted":
				detail = e.GetDecision() + ": " + e.GetCommand()
			}
			told = append(told, entry{e.GetKind(), e.GetBy().GetPrincipal(), detail})
		}
	}
	want := []entry{
		{"session.opened", "otto", ""}, {"session.typed", "admin", ""}, {"session.keyboard", "admin", "taken"},
		{"command.accepted", "admin", "typed: factor 1''2"}, {"command.accepted", "admin", "allow: sleep 1000"}, {"session.ended", "otto", fault.ReasonSessionClosed},
	}
	if ruled {
		want = append(want, entry{"command.accepted", "otto", "allow: echo all''owed"})
	}
	for _, w := range want {
		if !slices.Contains(told, w) {
			s.Errorf("the audit has no %v of the session, but %v", w, told)
		}
	}
}
