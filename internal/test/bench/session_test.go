package bench

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

var (
	sessionFull   = flag.Bool("bench.session.full", false, "assert what is promised, and not only what no machine may miss")
	sessionFlood  = flag.Duration("bench.session.flood", 500*time.Millisecond, "how long yes prints")
	sessionKeys   = flag.Int("bench.session.keys", 20, "keys that are pressed at each terminal")
	sessionRounds = flag.Int("bench.session.rounds", 2, "late viewers, and cancels")
)

// promised gives a limit that holds where nothing else is done on the machine, and in
// the ordinary run, which is beside everything else, a wide one.
func promised(d time.Duration) time.Duration {
	if *sessionFull {
		return d
	}
	return max(20*d, 5*time.Second)
}

// pane is somebody who sees a terminal and types at it.
type pane struct {
	t     testing.TB
	send  func(*telexecv1.AttachRequest) error
	recv  func() (*telexecv1.AttachResponse, error)
	mu    sync.Mutex // of send
	rest  []byte
	at    int64
	acked int64
	start time.Time // when it asked to be attached
	draws bool      // screens that come anew are read, too
}

// attach attaches over gRPC, or over a WebSocket.
func attach(t testing.TB, env *testenv.Env, session string, overSocket bool) *pane {
	t.Helper()
	p := &pane{t: t, start: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	if overSocket {
		conn, _, err := websocket.Dial(ctx, "ws://"+env.HTTPAddr+"/v1/sessions/"+session+"/terminal", &websocket.DialOptions{
			HTTPHeader:   http.Header{"Authorization": {"Bearer " + env.Token.Reveal()}},
			Subprotocols: []string{"telexec.v1.proto"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.CloseNow() })
		conn.SetReadLimit(8 << 20)
		p.send = func(r *telexecv1.AttachRequest) error {
			b, err := proto.Marshal(r)
			if err != nil {
				return err
			}
			return conn.Write(ctx, websocket.MessageBinary, b)
		}
		p.recv = func() (*telexecv1.AttachResponse, error) {
			_, b, err := conn.Read(ctx)
			if err != nil {
				return nil, err
			}
			m := &telexecv1.AttachResponse{}
			return m, proto.Unmarshal(b, m)
		}
	} else {
		stream, err := telexecv1.NewSessionServiceClient(env.Conn()).Attach(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p.send, p.recv = stream.Send, stream.Recv
	}
	if err := p.say(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Start{Start: &telexecv1.AttachStart{Session: session}}}); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := p.recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetScreen() != nil {
			p.at, p.acked = m.GetScreen().GetOffset(), m.GetScreen().GetOffset()
			return p
		}
	}
}

func (p *pane) say(r *telexecv1.AttachRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.send(r)
}

// Write types.
func (p *pane) Write(b []byte) (int, error) {
	return len(b), p.say(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Input{Input: bytes.Clone(b)}})
}

// Read gives output, and acknowledges it.
func (p *pane) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		m, err := p.recv()
		switch {
		case err != nil:
			return 0, err
		case m.GetRefused() != nil:
			return 0, errors.New(m.GetRefused().GetMessage())
		case m.GetEnded() != nil:
			return 0, io.EOF
		case m.GetScreen() != nil:
			p.at, p.acked = m.GetScreen().GetOffset(), m.GetScreen().GetOffset()
			if p.draws {
				p.rest = m.GetScreen().GetData()
			}
		case m.GetOutput() != nil:
			if m.GetOutput().GetOffset() != p.at {
				return 0, fmt.Errorf("byte %d came instead of %d", m.GetOutput().GetOffset(), p.at)
			}
			p.rest = m.GetOutput().GetData()
			p.at += int64(len(p.rest))
		}
		if p.at-p.acked >= 64<<10 {
			p.acked = p.at
			if err := p.say(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Acknowledged{Acknowledged: p.at}}); err != nil {
				return 0, err
			}
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// openBench opens a session with bash that has a prompt of its own, and ends it with the
// test.
func openBench(t testing.TB, env *testenv.Env, name string, keeper telexecv1.Keeper) {
	t.Helper()
	api := telexecv1.NewSessionServiceClient(env.Conn())
	if _, err := api.OpenSession(t.Context(), &telexecv1.OpenSessionRequest{Host: env.Host, Name: name, Shell: "bash", Keeper: keeper}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		if _, err := api.CloseSession(ctx, &telexecv1.CloseSessionRequest{Session: name}); err != nil {
			t.Error(err)
		}
	})
	inSession(t, env, name, "PS1='bench$ '")
}

// benchPrompt is that of such a session, behind the end of a line.
const benchPrompt = "bench$ "

// inSession runs a line to its end.
func inSession(t testing.TB, env *testenv.Env, name, line string) *telexecv1.Command {
	t.Helper()
	r, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Session: name, Command: line, Wait: durationpb.New(20 * time.Second)})
	if err != nil || r.GetCommand().GetEndTime() == nil {
		t.Fatalf("%s: %v, %v", line, r, err)
	}
	return r.GetCommand()
}

// keepers are those that the machine has.
func keepersHere() map[string]telexecv1.Keeper {
	all := map[string]telexecv1.Keeper{"direct": telexecv1.Keeper_KEEPER_NONE}
	if _, err := exec.LookPath("tmux"); err == nil {
		all["tmux"] = telexecv1.Keeper_KEEPER_TMUX
	}
	return all
}

// TestSessions measures terminals through the whole service: the echo of a key, beside
// other ways to the same sshd; a flood of output with a viewer who does not read; the
// first screen of who comes late; a cancel.
func TestSessions(t *testing.T) {
	env := testenv.Start(t)
	t.Run("echo", func(t *testing.T) { sessionEcho(t, env) })
	t.Run("flood/raw", func(t *testing.T) { rawFlood(t, env.Servers[env.Host]) })
	for name, keeper := range keepersHere() {
		t.Run("flood/"+name, func(t *testing.T) { flood(t, env, "flood-"+name, keeper) })
	}
	t.Run("late", func(t *testing.T) { lateViewers(t, env) })
	for name, keeper := range keepersHere() {
		t.Run("cancel/"+name, func(t *testing.T) { cancels(t, env, "cancel-"+name, keeper) })
	}
}

// sessionEcho presses keys at several terminals in turns.
func sessionEcho(t *testing.T, env *testenv.Env) {
	const begin, ready = "stty sane; printf 'rea''dy\\n'; exec cat >/dev/null", "ready"
	srv := env.Servers[env.Host]
	keyboards := plainTerminals(t, srv, begin)
	for name, keeper := range keepersHere() {
		for _, door := range []string{"grpc", "websocket"} {
			session := "echo-" + name + "-" + door
			openBench(t, env, session, keeper)
			p := attach(t, env, session, door == "websocket")
			if _, err := p.Write([]byte(begin + "\r")); err != nil {
				t.Fatal(err)
			}
			keyboards = append(keyboards, keyboard{name + ", " + door, p, p})
		}
	}
	for _, k := range keyboards {
		k.await(t, ready)
		for range 10 { // warm
			k.press(t, "x", "x")
		}
		k.press(t, "\r", "\n")
	}
	times := make([][]time.Duration, len(keyboards))
	for n := range *sessionKeys {
		for i, k := range keyboards {
			begin := time.Now()
			k.press(t, "x", "x")
			times[i] = append(times[i], time.Since(begin))
			if n%60 == 59 { // a line has an end
				k.press(t, "\r", "\n")
			}
		}
	}
	base := min(percentile(times[0], 50), percentile(times[1], 50))
	for i, k := range keyboards {
		p50 := percentile(times[i], 50)
		t.Logf("echo, %s: p50 %.2f ms, p99 %.2f ms; %+.2f ms over the quicker of the first two", k.name, ms(p50), ms(percentile(times[i], 99)), ms(p50-base))
		if over := p50 - base; over > promised(3*time.Millisecond) {
			t.Errorf("%s: a key takes %v more", k.name, over)
		}
	}
}

// plainTerminals are those of a raw connection and of the OpenSSH client.
func plainTerminals(t testing.TB, srv *sshtest.Server, begin string) []keyboard {
	t.Helper()
	conn := dial(t, srv)
	raw, err := conn.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	in, err1 := raw.StdinPipe()
	out, err2 := raw.StdoutPipe()
	if err := firstError(err1, err2, raw.RequestPty("xterm-256color", 24, 80, ssh.TerminalModes{}), raw.Start(begin)); err != nil {
		t.Fatal(err)
	}
	client := exec.Command("ssh", append([]string{"-tt"}, append(slices.Clone(controlMaster(t, srv)), begin)...)...)
	client.Stderr = t.Output()
	clientIn, err1 := client.StdinPipe()
	clientOut, err2 := client.StdoutPipe()
	if err := firstError(err1, err2, client.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Process.Kill(); client.Wait() })
	return []keyboard{{"raw", in, out}, {"openssh", clientIn, clientOut}}
}

// sight is a text that was seen.
type sight struct {
	at  time.Time
	err error
}

// looks reads on and on, and tells when texts were seen, one behind the other; it counts
// what it reads.
type looks struct {
	pane  *pane
	mu    sync.Mutex
	wants []string
	tail  []byte
	found chan sight // gets each of them; has room for all
	bytes int64
}

func look(p *pane) *looks {
	l := &looks{pane: p, found: make(chan sight, 8)}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := p.Read(buf)
			now := time.Now()
			l.mu.Lock()
			l.bytes += int64(n)
			l.tail = append(l.tail, buf[:n]...)
			l.check(now, err)
			if len(l.tail) > 256 {
				l.tail = append(l.tail[:0], l.tail[len(l.tail)-256:]...)
			}
			l.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return l
}

func (l *looks) check(now time.Time, err error) {
	for len(l.wants) > 0 {
		want := []byte(l.wants[0])
		switch i := bytes.Index(l.tail, want); {
		case i >= 0:
			l.tail = append(l.tail[:0], l.tail[i+len(want):]...)
			l.wants = l.wants[1:]
			l.found <- sight{at: now}
		case err != nil:
			l.wants = nil
			l.found <- sight{err: err}
		default:
			return
		}
	}
}

// ask begins to look for texts in what comes from now on.
func (l *looks) ask(texts ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wants, l.tail = texts, l.tail[:0]
}

// next gives when the next of them was seen.
func (l *looks) next(t testing.TB) time.Time {
	t.Helper()
	select {
	case s := <-l.found:
		if s.err != nil {
			t.Fatal(s.err)
		}
		return s.at
	case <-time.After(time.Minute):
		l.mu.Lock()
		defer l.mu.Unlock()
		t.Fatalf("%q do not come; last came %q", l.wants, l.tail)
		panic("unreachable")
	}
}

func (l *looks) read() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// rawFlood tells what yes prints on a terminal of a raw connection, to compare with.
func rawFlood(t *testing.T, srv *sshtest.Server) {
	raw, err := dial(t, srv).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	out, err := raw.StdoutPipe()
	if err := firstError(err, raw.RequestPty("xterm-256color", 24, 80, ssh.TerminalModes{}), raw.Start("yes")); err != nil {
		t.Fatal(err)
	}
	n, began := 0, time.Now()
	for buf := make([]byte, 64<<10); time.Since(began) < *sessionFlood; {
		read, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += read
	}
	t.Logf("yes on a raw connection: %.1f MiB/s", float64(n)/mib/time.Since(began).Seconds())
}

// flood has yes print, with one viewer who does not read, and ends it with Ctrl-C, and
// once more by a cancel.
func flood(t *testing.T, env *testenv.Env, name string, keeper telexecv1.Keeper) {
	openBench(t, env, name, keeper)
	stalled := attach(t, env, name, false)
	typist, other := look(attach(t, env, name, false)), look(attach(t, env, name, true))
	before := rss(t, env)
	most := before
	printed := func() int64 {
		t.Helper()
		r, err := telexecv1.NewSessionServiceClient(env.Conn()).GetSession(t.Context(), &telexecv1.GetSessionRequest{Session: name})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetSession().GetOutputOffset()
	}
	runs := func() (all, reader float64) {
		t.Helper()
		if _, err := typist.pane.Write([]byte("yes\r")); err != nil {
			t.Fatal(err)
		}
		session, from, began := printed(), other.read(), time.Now()
		for tick := time.Tick(50 * time.Millisecond); time.Since(began) < *sessionFlood; <-tick {
			most = max(most, rss(t, env))
		}
		rate := func(n int64) float64 { return float64(n) / mib / time.Since(began).Seconds() }
		return rate(printed() - session), rate(other.read() - from)
	}

	all, rate := runs()
	typist.ask("^C", benchPrompt)
	other.ask("^C", benchPrompt)
	pressed := time.Now()
	if _, err := typist.pane.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	answered, back := typist.next(t).Sub(pressed), typist.next(t).Sub(pressed)
	other.next(t)
	otherBack := other.next(t).Sub(pressed)
	most = max(most, rss(t, env))

	runs()
	typist.ask("[CANCELLED]", benchPrompt)
	asked := time.Now()
	r, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{Session: name})
	if err != nil || r.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE {
		t.Errorf("%v, %v", r, err)
	}
	told, cancelBack := typist.next(t).Sub(asked), typist.next(t).Sub(asked)
	most = max(most, rss(t, env))
	t.Logf("%s: %v of yes: %.1f MiB/s, %.1f to who reads; RSS %d MiB before, %d at most, %d after; Ctrl-C: ^C seen after %.0f ms, prompt after %.0f ms, by another viewer after %.0f ms; cancel: told after %.0f ms, prompt after %.0f ms",
		name, *sessionFlood, all, rate, before/mib, most/mib, rss(t, env)/mib, ms(answered), ms(back), ms(otherBack), ms(told), ms(cancelBack))
	if back > promised(500*time.Millisecond) || otherBack > promised(500*time.Millisecond) || cancelBack > promised(time.Second) {
		t.Errorf("the prompt is back after %v, for others %v, after a cancel %v", back, otherBack, cancelBack)
	}
	if most-before > 96*mib {
		t.Errorf("the service took %d MiB more", (most-before)/mib)
	}
	if *sessionFull && rate < 0.5 {
		t.Errorf("who reads gets %.1f MiB/s", rate)
	}

	// Who has slept sees all that there is now.
	stalled.draws = true
	late := look(stalled)
	late.ask("awake")
	if _, err := typist.pane.Write([]byte("echo a''wake\r")); err != nil {
		t.Fatal(err)
	}
	late.next(t)
}

// lateViewers measures how long the first screen takes, with 1,000 lines above it.
func lateViewers(t *testing.T, env *testenv.Env) {
	openBench(t, env, "late", telexecv1.Keeper_KEEPER_NONE)
	inSession(t, env, "late", `for i in $(seq 1 2000); do printf '\033[3%dm%d\033[m %s\n' $((i % 8)) $i 'a line of some length, as logs have them, and in colours'; done`)
	for _, overSocket := range []bool{false, true} {
		var times []time.Duration
		for range max(*sessionRounds, 5) {
			p := attach(t, env, "late", overSocket)
			times = append(times, time.Since(p.start))
		}
		p50 := percentile(times, 50)
		t.Logf("first screen over %s: p50 %.1f ms, worst %.1f ms", map[bool]string{false: "gRPC", true: "a new WebSocket"}[overSocket], ms(p50), ms(slices.Max(times)))
		if p50 > promised(100*time.Millisecond) {
			t.Errorf("the first screen comes after %v", p50)
		}
	}
}

// cancels measures a cancel as another viewer sees it.
func cancels(t *testing.T, env *testenv.Env, name string, keeper telexecv1.Keeper) {
	openBench(t, env, name, keeper)
	watcher := look(attach(t, env, name, true))
	for _, line := range []string{"sleep 1000", `sh -c 'trap "" INT; while :; do sleep 0.1; done'`} {
		var told, back []time.Duration
		for range *sessionRounds {
			watcher.ask(strings.Fields(line)[0])
			r, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Session: name, Command: line, Wait: durationpb.New(0)})
			if err != nil {
				t.Fatal(err)
			}
			runningNow(t, env, r.GetCommand().GetId())
			watcher.next(t)
			watcher.ask("[CANCELLED]", benchPrompt)
			asked := time.Now()
			report, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{Session: name}, grpc.WaitForReady(true))
			if err != nil || report.GetReport().GetOutcome() != telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE {
				t.Fatalf("%v, %v", report, err)
			}
			told = append(told, watcher.next(t).Sub(asked))
			back = append(back, watcher.next(t).Sub(asked))
		}
		t.Logf("%s: cancel of %s: told after p50 %.0f ms, worst %.0f ms; prompt after p50 %.0f ms, worst %.0f ms",
			name, line, ms(percentile(told, 50)), ms(slices.Max(told)), ms(percentile(back, 50)), ms(slices.Max(back)))
		if worst := slices.Max(told); worst > promised(100*time.Millisecond) {
			t.Errorf("%s: told after %v", line, worst)
		}
		limit := time.Second
		if strings.Contains(line, "trap") {
			limit = 5 * time.Second // grace, and KILL
		}
		if worst := slices.Max(back); worst > promised(limit) {
			t.Errorf("%s: the prompt is back after %v", line, worst)
		}
	}
}

// runningNow waits until a command runs.
func runningNow(t testing.TB, env *testenv.Env, id string) {
	t.Helper()
	for version := int64(0); ; {
		s, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{
			CommandId: id, Wait: durationpb.New(10 * time.Second), IfVersionGreaterThan: &version, Output: &telexecv1.OutputOptions{Omit: true},
		})
		if err != nil || s.GetCommand().GetEndTime() != nil {
			t.Fatalf("%v, %v", s, err)
		}
		if s.GetCommand().GetState() == telexecv1.CommandState_COMMAND_STATE_RUNNING {
			return
		}
		version = s.GetCommand().GetVersion()
	}
}
