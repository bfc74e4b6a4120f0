// Package engine runs commands: it admits them, queues them, gives each an owner
// that starts it and sees it to its end, and answers whoever asks about it.
//
// Every command that has not ended is a live (live.go). One goroutine owns it,
// the only place where its state changes; everything else sends it messages or
// takes snapshots. What may follow what is decided by command.Next, what is true
// is what the Journal has: an end is stored before anybody is told of it. Who
// may run is decided by the queue (queue.go). Watchers (watch.go) are cursors.
//
// An ordinary command costs two durable commits: one when it is accepted,
// already with its slot where one is free, and one at its end with the last of
// its output. That it is running is told at once and stored with the first
// output that is.
//
// A durable command lives on its host by itself, whatever becomes of the
// connection and of the service: an owner lets go of it when the service stops,
// and the next run takes it up where the journal says it was (take.go). An
// attached one ends with its connection. How a command comes to run on its host,
// and what may have been started there when nobody knows, is host.go's; the care
// for one that runs is attend.go's, and what the journal gets of it persist.go's.
//
//	QUEUED ──slot──▶ STARTING ──Start──▶ RUNNING ──Wait──▶ an end ──▶ Collected
//	                    │ ▲                 │ ▲
//	                    ▼ │ Start again     ▼ │ Resume from the stored byte
//	                  the service is stopped or killed
//
// A command in a session runs in a shell that others share, and is otherwise a command
// like any other; what is special about it is in session.go, shell.go (the rules),
// busy.go, typed.go and, of its owner, inside.go.
//
// How a command is accepted is accept.go's, who may do what admission.go's, what
// waits for people decide.go's, and what the audit is told of it all tell.go's. The
// room is larger than most: what becomes of a command is decided in one place, by
// one owner, and its files share that owner's fields.
//
// The engine knows nothing of SSH, SQL or the wire; ports.go has what it needs
// of them.
package engine

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/secret"
)

// Limits bounds the engine. All are above zero.
type Limits struct {
	MaxCommands  int           // running at once in the service
	MaxQueued    int           // waiting for a slot at once in the service
	MaxAwaiting  int           // waiting for approval at once, of one principal
	QueueTimeout time.Duration // how long a command may wait, where it does not say itself
	DrainTimeout time.Duration // how long attached commands get when the service stops
}

// Options is what an Engine is made of. Journal, Runner and Hosts are needed.
type Options struct {
	Journal   Journal
	Runner    Runner
	Hosts     Hosts
	Sessions  Sessions // nil: there are none, and asking for one is NOT_SUPPORTED
	Node      string   // name of this node
	Limits    Limits
	Retention command.Retention // TrimAfter, TrimTo, DeleteAfter
	Rights    *access.Rights    // nil: everybody's own, and an admin's everything
	Policy    *policy.Policy    // nil: everything is allowed; SetPolicy replaces it
	Redact    []secret.Text     // masked in the output of every command
	Excerpt   int               // bytes of head and of tail of a stream that the audit gets
	Logger    *slog.Logger      // nil: slog.Default
	Meter     Meter             // nil: nothing is counted
}

// Engine is described in the package comment. Its methods may be called
// concurrently, those that start commands only after Ready.
type Engine struct {
	journal   Journal
	runner    Runner
	hosts     Hosts
	sessions  Sessions
	node      string
	limits    Limits
	retention command.Retention
	log       *slog.Logger
	meter     Meter
	queue     *queue
	rights    *access.Rights
	policy    atomic.Pointer[policy.Policy]
	redact    []secret.Text
	redaction *output.Redaction // of redact alone
	excerpt   int

	// deciding is a lock that can be waited for with a context: whoever has sent into
	// it holds it, and alone changes commands that wait for approval.
	deciding chan struct{}

	// births takes accepted commands from Execute to Run, which starts their
	// owners; unbuffered, never closed.
	births    chan birth
	cleaning  *cleaning
	ready     chan struct{}  // closed by Run after recovery
	stopping  chan struct{}  // closed by Drain
	accepting sync.WaitGroup // calls of accept; Add is guarded by mu and not draining
	entropy   io.Reader      // of ids; safe for concurrent use
	unsaved   *output.Budget

	// storeFirst is how long the first signal of a cancel waits for the store, so
	// that a service that is killed meanwhile knows why the command has ended.
	storeFirst time.Duration

	feed *feed // of what changes

	trouble atomic.Pointer[error] // why the store took nothing the last time; nil: it did

	mu       sync.Mutex
	lives    map[string]*live
	inside   map[string]map[string]*live // those of each session, by its id
	watching map[string]int              // watchers by command id
	watchers int
	draining bool
}

// unsavedMost is how many bytes of output of all commands may wait for the store
// before those that print most have to wait.
const unsavedMost = 128 << 20

// birth is an accepted command that needs its owner.
type birth struct {
	live *live
	host *inventory.Host // nil: it has no slot yet
}

// New makes an engine. It does nothing until Run.
//
// Its error is that of a value to be masked that cannot be.
func New(o Options) (*Engine, error) {
	redaction, err := output.NewRedaction(o.Redact...)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		journal: o.Journal, runner: o.Runner, hosts: o.Hosts, sessions: o.Sessions,
		node: o.Node, limits: o.Limits, retention: o.Retention,
		log: o.Logger, meter: o.Meter,
		queue:      newQueue(o.Limits.MaxCommands, o.Limits.MaxQueued),
		births:     make(chan birth),
		cleaning:   newCleaning(),
		stopping:   make(chan struct{}),
		ready:      make(chan struct{}),
		entropy:    &ulid.LockedMonotonicReader{MonotonicReader: ulid.Monotonic(rand.Reader, 0)},
		unsaved:    output.NewBudget(unsavedMost),
		rights:     o.Rights,
		redact:     o.Redact,
		redaction:  redaction,
		excerpt:    o.Excerpt,
		deciding:   make(chan struct{}, 1),
		storeFirst: 100 * time.Millisecond,
		lives:      make(map[string]*live),
		inside:     make(map[string]map[string]*live),
		watching:   make(map[string]int),
	}
	if e.sessions == nil {
		e.sessions = noSessions{}
	}
	if e.log == nil {
		e.log = slog.Default()
	}
	if e.meter == nil {
		e.meter = noMeter{}
	}
	e.feed = newFeed(e)
	e.SetPolicy(o.Policy)
	return e, nil
}

// Ready is closed when recovery is done and commands are taken.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// Run takes up what the last run of the service left, then works until ctx ends:
// then it takes no more commands, gives attached ones that run DrainTimeout to
// end, lets go of durable ones, and returns when no owner is left. It is called
// once.
func (e *Engine) Run(ctx context.Context) error {
	// Owners outlive ctx by the drain.
	owning, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	left, err := e.recover(ctx)
	if err != nil {
		return err
	}
	var owners sync.WaitGroup
	own := func(b birth) {
		owners.Go(func() {
			defer e.unregister(b.live)
			b.live.own(owning, b.host)
		})
	}
	for _, l := range left {
		own(birth{live: l})
	}
	owners.Go(func() {
		for {
			select {
			case b := <-e.births:
				own(b)
			case <-owning.Done():
				return
			}
		}
	})
	owners.Go(func() { e.feed.run(owning) })
	close(e.ready)
	e.retainUntil(ctx)
	e.Drain()
	e.accepting.Wait()
	e.awaitIdle()
	stop()
	owners.Wait()
	e.cleaning.done.Wait()
	return nil
}

// Drain makes the engine take no more commands; queued ones are not started any
// more and stay queued for the next run of the service.
func (e *Engine) Drain() {
	e.mu.Lock()
	if !e.draining {
		close(e.stopping)
	}
	e.draining = true
	e.mu.Unlock()
	e.queue.close()
}

// awaitIdle waits until no attached command runs, at most DrainTimeout. Durable
// ones go on without the service.
func (e *Engine) awaitIdle() {
	deadline := time.NewTimer(e.limits.DrainTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if !e.holding() {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return
		}
	}
}

// holding reports whether a command lives that ends with the service.
func (e *Engine) holding() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.lives {
		if l.attached() {
			return true
		}
	}
	return false
}

func (e *Engine) register(l *live) {
	e.mu.Lock()
	e.add(l)
	l.watchers.Store(int32(e.watching[l.id]))
	e.mu.Unlock()
}

// add makes l a live command. mu is held.
func (e *Engine) add(l *live) {
	e.lives[l.id] = l
	if l.session == "" {
		return
	}
	if e.inside[l.session] == nil {
		e.inside[l.session] = make(map[string]*live)
	}
	e.inside[l.session][l.id] = l
}

func (e *Engine) unregister(l *live) {
	e.mu.Lock()
	delete(e.lives, l.id)
	if inside := e.inside[l.session]; inside != nil {
		if delete(inside, l.id); len(inside) == 0 {
			delete(e.inside, l.session)
		}
	}
	e.mu.Unlock()
	e.feed.touch(l)
	l.bell.Ring() // one that was never stored is not there any more
}

// find gives a live command; nil where it has ended or never was.
func (e *Engine) find(id string) *live {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lives[id]
}

func (e *Engine) watch(id string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers += n
	if e.watching[id] += n; e.watching[id] == 0 {
		delete(e.watching, id)
	}
	if l := e.lives[id]; l != nil {
		l.watchers.Store(int32(e.watching[id]))
		l.bell.Ring()
	}
}

// stored gives a command that has no live as it is told.
func (e *Engine) stored(c command.Command) Snapshot {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Snapshot{Command: c, Watchers: e.watching[c.ID]}
}

func (e *Engine) watched(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.watching[id] > 0
}

// Get gives a command as it is now to a caller who may see it. UNKNOWN_COMMAND
// where there is none, or ACCESS_DENIED where the caller must not know whether
// there is.
func (e *Engine) Get(ctx context.Context, by access.Caller, id string) (Snapshot, error) {
	s, err := e.get(ctx, id)
	return s, e.shown(ctx, by, access.Look, id, s, err)
}

// get is Get for the engine itself.
func (e *Engine) get(ctx context.Context, id string) (Snapshot, error) {
	if l := e.find(id); l != nil {
		return l.snapshot(), nil
	}
	c, err := e.journal.Get(ctx, id)
	return e.stored(c), err
}

// Await gives a command that Get or Execute has given before, as soon as enough
// says so, or it has ended, or ctx is done; the end of ctx is not an error.
func (e *Engine) Await(ctx context.Context, id string, enough func(Snapshot) bool) (Snapshot, error) {
	l := e.find(id)
	if l == nil {
		return e.get(context.WithoutCancel(ctx), id)
	}
	for {
		rung := l.bell.Rung()
		s := l.snapshot()
		if s.Ended() || enough(s) {
			return s, nil
		}
		if e.find(id) != l {
			return e.get(context.WithoutCancel(ctx), id)
		}
		select {
		case <-rung:
		case <-l.done:
			return l.snapshot(), nil
		case <-ctx.Done():
			return l.snapshot(), nil
		}
	}
}

// List gives the commands that the caller may see, newest first, as they are now.
func (e *Engine) List(ctx context.Context, by access.Caller, f command.Filter) ([]Snapshot, error) {
	if err := e.rights.May(by, access.Look, access.Thing{Owner: by.Name}); err != nil {
		return nil, err
	}
	f.Visible = e.visible(by)
	stored, err := e.journal.List(ctx, f)
	if err != nil {
		return nil, err
	}
	list := make([]Snapshot, len(stored))
	for i, c := range stored {
		if l := e.find(c.ID); l != nil {
			list[i] = l.snapshot()
		} else {
			list[i] = e.stored(c)
		}
	}
	return list, nil
}

// ReadOutput gives bytes of a stream of a command that Get or Execute has given
// before, from offset on, at most limit, and none at the end of what there is.
func (e *Engine) ReadOutput(ctx context.Context, id string, s command.Stream, offset int64, limit int) ([]byte, error) {
	if l := e.find(id); l != nil {
		return l.log.Read(ctx, s, offset, limit)
	}
	return e.journal.ReadOutput(ctx, id, s, offset, limit)
}

// noteStore remembers whether the store took a write.
func (e *Engine) noteStore(err error) {
	switch {
	case fault.KindOf(err) == fault.Unavailable:
		e.trouble.Store(&err)
	case err == nil:
		e.trouble.Store(nil)
	}
}

// StoreTrouble is why the store took nothing the last time it was asked; nil
// where it did.
func (e *Engine) StoreTrouble() error {
	if err := e.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// CheckStore is StoreTrouble, but asks the store anew where there was some.
func (e *Engine) CheckStore(ctx context.Context) error {
	if e.StoreTrouble() == nil {
		return nil
	}
	err := e.journal.Ping(ctx)
	e.noteStore(err)
	return err
}

// Load tells how many commands run on a host and wait for it, in its sessions too.
func (e *Engine) Load(host string) (running, queued int) {
	running, queued = e.queue.load(host)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, inside := range e.inside {
		for _, l := range inside {
			if l.host != host {
				break // as all of one session
			}
			switch l.state() {
			case command.Starting, command.Running:
				running++
			case command.Queued:
				queued++
			}
		}
	}
	return running, queued
}

// Stats is how the engine does.
type Stats struct {
	Running, Queued int
	Watchers        int // of the output of one command each
	EventWatchers   int // of what happens to all
	Draining        bool
}

// Stats tells how the engine does now.
func (e *Engine) Stats() Stats {
	running, queued := e.queue.total()
	e.mu.Lock()
	defer e.mu.Unlock()
	return Stats{Running: running, Queued: queued, Watchers: e.watchers, EventWatchers: int(e.feed.watching.Load()), Draining: e.draining}
}

// retainEvery is how often retention looks; what it may remove is an index away.
const retainEvery = time.Minute

// retainUntil does retention until ctx ends.
func (e *Engine) retainUntil(ctx context.Context) {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		r := e.retention
		r.InUse = e.watched
		r.Batch = 100
		for more := true; more && ctx.Err() == nil; {
			r.Now = time.Now()
			done, err := e.journal.Retain(ctx, r)
			if err != nil {
				e.log.Warn("retention failed", "error", err)
				break
			}
			more = done.More
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
