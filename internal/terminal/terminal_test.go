package terminal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/store/sqlite"
	"github.com/telexec/telexec/internal/terminal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(closing{m}) }

// closing closes the store that tests share when they are through.
type closing struct{ m *testing.M }

func (c closing) Run() int {
	defer func() {
		if shared.store != nil {
			_ = shared.store.Close()
			_ = os.RemoveAll(shared.dir)
		}
	}()
	return c.m.Run()
}

// shared is the store of the tests that need none of their own: to open one costs more
// than most of them.
var shared struct {
	once  sync.Once
	dir   string
	store *sqlite.Store
	err   error
}

func sharedStore(t testing.TB) *sqlite.Store {
	t.Helper()
	shared.once.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "terminal"); shared.err == nil {
			shared.store, shared.err = sqlite.Open(context.Background(), filepath.Join(shared.dir, "telexec.db"), sqlite.Options{Key: seal.NewKey(make([]byte, seal.KeySize))})
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.store
}

// endAll ends what a stopped service has left in the store: the next one would look for
// it.
func endAll(t testing.TB, st *sqlite.Store) {
	list, err := st.Sessions(context.Background(), session.Filter{States: []session.State{session.Opening, session.Open, session.Closing}, Limit: 100})
	for _, one := range list {
		one.State, one.EndTime, one.Version = session.Ended, time.Now(), one.Version+1
		err = errors.Join(err, st.SaveSession(context.Background(), one))
	}
	if err != nil {
		t.Error(err)
	}
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

var (
	ann = caller("ann", command.OriginWeb, access.RoleOperator)
	bob = caller("bob", command.OriginMCP, access.RoleOperator)
	eve = caller("eve", command.OriginREST, access.RoleViewer)
	adm = caller("admin", command.OriginCLI, access.RoleAdmin)
)

func caller(name string, origin command.Origin, roles ...access.Role) access.Caller {
	return access.Caller{Principal: access.Principal{Name: name, Roles: roles}, Origin: origin}
}

// service is a set of sessions on a machine, with a real store. It is also what people's
// commands are told to.
type service struct {
	*terminal.Terminals
	t       testing.TB
	machine *machine
	store   *sqlite.Store
	stop    func()

	mu    sync.Mutex
	typed []typedLine
	deaf  bool // it takes up nothing that is typed
	fails error

	takers sync.WaitGroup
}

// typedLine is a command that was typed.
type typedLine struct {
	id, line, by string
	number       int64
	session      string
	taken        chan *job // gets what was taken up, nil where it could not be
}

func openStore(t testing.TB, dir string) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(dir, "telexec.db"), sqlite.Options{Key: seal.NewKey(make([]byte, seal.KeySize))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

var usual = terminal.Limits{
	MaxSessions: 20, MaxPerPrincipal: 10, IdleTimeout: time.Hour, ReconnectTimeout: time.Minute,
	Record: true, RecordingBytes: 64 << 20, Scrollback: 1000,
}

// start starts a service with the store that all tests share.
func start(t testing.TB) *service {
	st := sharedStore(t)
	t.Cleanup(func() { endAll(t, st) })
	return startWith(t, newMachine(t), st, usual)
}

// startAlone starts one with a store of its own.
func startAlone(t testing.TB) *service {
	return startWith(t, newMachine(t), openStore(t, t.TempDir()), usual)
}

func startWith(t testing.TB, m *machine, st *sqlite.Store, limits terminal.Limits) *service {
	t.Helper()
	set, err := terminal.New(terminal.Options{
		Shells: m, Journal: st, Hosts: m, Limits: limits,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return runSet(t, set, m, st)
}

func runSet(t testing.TB, set *terminal.Terminals, m *machine, st *sqlite.Store) *service {
	t.Helper()
	s := &service{Terminals: set, t: t, machine: m, store: st}
	set.Use(s)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- set.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the sessions do not stop")
		}
		s.takers.Wait()
	})
	t.Cleanup(s.stop)
	select {
	case <-set.Ready():
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	return s
}

// within gives what comes of ch.
func within[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("in vain: %s", what)
		panic("unreachable")
	}
}

// with is s for a subtest.
func (s *service) with(t testing.TB) *service {
	return &service{Terminals: s.Terminals, t: t, machine: s.machine, store: s.store}
}

// Typed is terminal.Commands.
func (s *service) Typed(_ context.Context, by access.Caller, on session.Session, number int64, line string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return "", s.fails
	}
	l := typedLine{id: fmt.Sprintf("typed-%d", number), line: line, by: by.Name, number: number, session: on.ID}
	if !s.deaf {
		l.taken = make(chan *job, 1)
		s.takers.Go(func() { l.taken <- s.takeUp(l) })
	}
	s.typed = append(s.typed, l)
	return l.id, nil
}

// takeUp takes a command up that was typed, as the engine does.
func (s *service) takeUp(l typedLine) *job {
	j, err := s.tryBegin(context.WithoutCancel(s.t.Context()), session.Session{}, terminal.Run{ID: l.id, Spec: &command.Spec{SessionID: l.session, Line: l.line, Typed: l.number}})
	if err != nil {
		return nil // its session is over
	}
	return j
}

// typedJob waits for the command that was typed last to be this line, and gives it.
func (s *service) typedJob(line string) *job {
	s.t.Helper()
	var last typedLine
	if !until(s.t.Context(), patience, func() bool {
		lines := s.lines()
		if len(lines) > 0 {
			last = lines[len(lines)-1]
		}
		return last.line == line
	}) {
		s.t.Fatalf("%q is no command; these are: %+v", line, s.lines())
	}
	if j := within(s.t, last.taken, "that it is taken up"); j != nil {
		return j
	}
	s.t.Fatalf("%q was not taken up", line)
	panic("unreachable")
}

func (s *service) lines() []typedLine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.typed)
}

// open opens a session with a shell.
func (s *service) open(shell string) session.Session {
	s.t.Helper()
	return s.openSpec(session.Spec{Host: "web1", Shell: shell})
}

func (s *service) openSpec(spec session.Spec) session.Session {
	s.t.Helper()
	one, _, err := s.Open(s.t.Context(), ann, spec, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return one
}

// sink takes the output of a command.
type sink struct {
	mu   sync.Mutex
	data bytes.Buffer
	size int64
	most int    // how much of it is remembered; 0: all
	slow func() // called before each piece; nil: nothing
}

func (k *sink) take(_ command.Stream, b []byte) error {
	if k.slow != nil {
		k.slow()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.data.Write(b)
	k.size += int64(len(b))
	if n := k.data.Len() - k.most; k.most > 0 && n > 0 {
		k.data.Next(n)
	}
	return nil
}

// keep says how much of it is remembered.
func (k *sink) keep(most int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.most = most
}

func (k *sink) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.data.String()
}

// job is a command in a session.
type job struct {
	*terminal.Process
	id  string
	t   testing.TB
	out *sink
}

var jobs struct {
	sync.Mutex
	n int
}

func jobID() string {
	jobs.Lock()
	defer jobs.Unlock()
	jobs.n++
	return fmt.Sprintf("job-%d", jobs.n)
}

func (s *service) begin(on session.Session, line string) *job {
	s.t.Helper()
	j, err := s.tryBegin(s.t.Context(), on, terminal.Run{ID: jobID(), Spec: &command.Spec{SessionID: on.ID, Line: line}})
	if err != nil {
		s.t.Fatal(err)
	}
	return j
}

func (s *service) tryBegin(ctx context.Context, on session.Session, r terminal.Run) (*job, error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	out := &sink{}
	if r.Spec.Typed != 0 {
		out.most = keepMost
	}
	if r.Output == nil {
		r.Output = out.take
	}
	if r.CancelledBy == nil {
		r.CancelledBy = func() command.Actor { return bob.Actor() }
	}
	p, err := s.Start(ctx, r)
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { _ = p.Close() })
	return &job{Process: p, id: r.ID, t: s.t, out: out}, nil
}

// wait gives how a command ended.
func (j *job) wait() (command.Ending, error) {
	j.t.Helper()
	type result struct {
		end command.Ending
		err error
	}
	ended := make(chan result, 1)
	go func() {
		end, err := j.Wait()
		ended <- result{end, err}
	}()
	select {
	case r := <-ended:
		return r.end, r.err
	case <-time.After(patience):
		j.t.Fatalf("the command does not end; so far: %q", j.out)
		panic("unreachable")
	}
}

// ends checks how a command ended: its code, or "none", and its output.
func (j *job) ends(code string, by command.Completion) string {
	j.t.Helper()
	end, err := j.wait()
	if err != nil {
		j.t.Fatalf("%v; output %q", err, j.out)
	}
	got := "none"
	if end.Code != nil {
		got = fmt.Sprint(*end.Code)
	}
	if got != code || end.Completion != by {
		j.t.Errorf("code %s by %q, want %s by %q; output %q", got, end.Completion, code, by, j.out)
	}
	return j.out.String()
}

func (s *service) run(on session.Session, line string) *job { s.t.Helper(); return s.begin(on, line) }

// viewing is a viewer whose events are gathered.
type viewing struct {
	*terminal.Viewer
	who access.Caller
	t   testing.TB

	mu     sync.Mutex
	events []terminal.Event
	out    bytes.Buffer // since the last screen
	from   int64        // offset of its first byte
	err    error
	news   chan struct{} // closed and made anew at each event
	hold   bool          // it acknowledges nothing
	done   chan struct{}
}

func (s *service) attach(by access.Caller, on session.Session, o terminal.AttachOptions) *viewing {
	s.t.Helper()
	v, err := s.Attach(s.t.Context(), by, on.ID, o)
	if err != nil {
		s.t.Fatal(err)
	}
	w := s.view(v, false)
	w.who = by
	return w
}

func (s *service) view(v *terminal.Viewer, hold bool) *viewing {
	w := &viewing{Viewer: v, t: s.t, news: make(chan struct{}), hold: hold, done: make(chan struct{})}
	ctx, stop := context.WithCancel(s.t.Context())
	go func() {
		defer close(w.done)
		for {
			e, err := v.Next(ctx)
			w.mu.Lock()
			if err != nil {
				w.err = err
			} else {
				e.Data = bytes.Clone(e.Data)
				switch e.Kind {
				case terminal.EventOutput:
					if e.Offset != w.from+int64(w.out.Len()) {
						s.t.Errorf("output at %d, and %d bytes from %d were seen", e.Offset, w.out.Len(), w.from)
					}
					w.out.Write(e.Data)
					if n := w.out.Len() - keepMost; n > 0 { // the test's own memory is bounded, too
						w.out.Next(n)
						w.from += int64(n)
					}
				case terminal.EventScreen:
					w.out.Reset()
					w.from = e.Screen.Offset
				case terminal.EventAttached:
					w.from = e.Offset
				}
				w.events = append(w.events, e)
			}
			close(w.news)
			w.news = make(chan struct{})
			seen, hold := w.from+int64(w.out.Len()), w.hold
			w.mu.Unlock()
			if err != nil {
				return
			}
			if !hold {
				v.Acknowledge(seen)
			}
		}
	}()
	s.t.Cleanup(func() {
		stop()
		v.Close()
		<-w.done
	})
	return w
}

// keepMost is how much of what it has seen a viewer of tests remembers.
const keepMost = 4 << 20

// await waits until something is so of what was seen.
func (w *viewing) await(what string, met func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		ok, news := met(), w.news
		if !ok && w.err != nil {
			w.mu.Unlock()
			w.t.Fatalf("waiting for %s: %v; output %q", what, w.err, w.text())
		}
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-news:
		case <-deadline:
			w.t.Fatalf("no %s; output %q", what, w.text())
		}
	}
}

func (w *viewing) by() string { return w.who.Name }

func (w *viewing) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.String()
}

// sees waits for a text in the output.
func (w *viewing) sees(text string) {
	w.t.Helper()
	w.await(fmt.Sprintf("%q", text), func() bool { return strings.Contains(w.out.String(), text) })
}

// seen waits for an event, and gives the first that is one of those.
func (w *viewing) seen(what string, is func(terminal.Event) bool) (found terminal.Event) {
	w.t.Helper()
	w.await(what, func() bool {
		i := slices.IndexFunc(w.events, is)
		if i >= 0 {
			found = w.events[i]
		}
		return i >= 0
	})
	return found
}

// types types, and fails the test where it may not.
func (w *viewing) types(text string) {
	w.t.Helper()
	if err := w.Input(w.t.Context(), []byte(text)); err != nil {
		w.t.Fatal(err)
	}
}

func wants(t testing.TB, err error, reason string) {
	t.Helper()
	if fault.ReasonOf(err) != reason {
		t.Errorf("error %v, want %s", err, reason)
	}
	if e := fault.From(err); e != nil && e.Message == "" {
		t.Errorf("no message in %v", err)
	}
}

// poll waits until something is so.
func (s *service) poll(what string, met func() bool) {
	s.t.Helper()
	if !until(s.t.Context(), patience, met) {
		s.t.Fatalf("in vain: %s", what)
	}
}

func (s *service) get(on session.Session) session.Session {
	s.t.Helper()
	one, err := s.Get(s.t.Context(), adm, on.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	return one
}

type terminalCaller = access.Caller

func (s *service) busy(on session.Session) bool {
	_, busy := s.Busy(on.ID)
	return busy
}

func (s *service) idOf(j *job) string { return j.id }

// atPrompt reports whether the cursor is in a line that begins with a prompt.
func (s *service) atPrompt(on session.Session) bool {
	text, err := s.Screen(s.t.Context(), ann, on.ID, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	line := text.Lines[text.Scrollback+text.CursorRow]
	return strings.HasPrefix(line, "me$") || strings.Contains(line, "# ") || strings.HasSuffix(line, "#")
}
