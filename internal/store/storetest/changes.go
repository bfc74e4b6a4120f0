package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/store"
)

func withRequest(id string) func(*command.Command) {
	return func(c *command.Command) { c.Spec.RequestID = id }
}

func requestIDs(b *bench) {
	ctx := b.Context()
	first := b.command(withRequest("r1"))
	_, created, err := b.add(ctx, first, []byte("content"))
	b.must(err)
	if !created {
		b.Fatal("the first one was not created")
	}
	first = b.step(first, command.Starting)
	first = b.step(first, command.Running)
	b.pause()

	again := b.command(withRequest("r1"))
	stored, created, err := b.add(ctx, again, []byte("content"))
	b.must(err)
	if created {
		b.Fatal("the same request was stored twice")
	}
	b.same(stored, first) // as it is now
	_, err = b.Get(ctx, again.ID)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)

	_, created, err = b.add(ctx, again, []byte("other content"))
	e := b.fails(err, fault.AlreadyExists, fault.ReasonRequestIDReused)
	if created || e.Metadata["command_id"] != first.ID || e.Hint == "" {
		b.Fatalf("created %v, error %#v", created, e)
	}

	// Replay says what Create would, and stores nothing.
	stored, found, err := b.Replay(ctx, again, []byte("content"))
	b.must(err)
	if !found {
		b.Fatal("Replay does not know the request")
	}
	b.same(stored, first)
	_, _, err = b.Replay(ctx, again, []byte("other content"))
	b.fails(err, fault.AlreadyExists, fault.ReasonRequestIDReused)
	fresh := b.command(withRequest("r2"))
	if _, found, err = b.Replay(ctx, fresh, nil); err != nil || found {
		b.Fatalf("found %v, error %v", found, err)
	}
	_, err = b.Get(ctx, fresh.ID)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)

	// Another principal's ids, and no id at all, are none of its concern.
	other := b.command(withRequest("r1"), func(c *command.Command) { c.CreatedBy.Principal = "other" })
	for _, c := range []command.Command{other, b.command(), b.command()} {
		if _, created, err = b.add(ctx, c, nil); err != nil || !created {
			b.Fatalf("created %v, error %v", created, err)
		}
	}

	// The id of a command is never used twice.
	_, _, err = b.add(ctx, first, nil)
	if err == nil {
		b.Fatal("a command was stored under an id that is in use")
	}
	b.same(b.stored(first.ID), first)
}

func requestIDForgotten(b *bench) {
	ctx := b.Context()
	first := b.command(withRequest("r1"))
	_, _, err := b.add(ctx, first, []byte("content"))
	b.must(err)
	b.pause()
	b.now = first.CreateTime.Add(store.RequestIDLife - time.Microsecond)
	if _, created, err := b.add(ctx, b.command(withRequest("r1")), []byte("content")); err != nil || created {
		b.Fatalf("before the time: created %v, error %v", created, err)
	}
	b.now = first.CreateTime.Add(store.RequestIDLife)
	second := b.command(withRequest("r1"))
	if _, created, err := b.add(ctx, second, []byte("other")); err != nil || !created {
		b.Fatalf("after the time: created %v, error %v", created, err)
	}
	b.pause()
	if stored, created, err := b.add(ctx, b.command(withRequest("r1")), []byte("other")); err != nil || created || stored.ID != second.ID {
		b.Fatalf("the id names %s (created %v, error %v), want %s", stored.ID, created, err, second.ID)
	}
	// Retention forgets those that are old enough, and only those.
	for _, r := range []struct {
		now       time.Time
		forgotten bool
	}{
		{second.CreateTime.Add(store.RequestIDLife - time.Second), false},
		{second.CreateTime.Add(store.RequestIDLife), true},
	} {
		_, err = b.Retain(ctx, command.Retention{Now: r.now})
		b.must(err)
		b.pause()
		b.now = second.CreateTime.Add(time.Minute)
		_, created, err := b.add(ctx, b.command(withRequest("r1")), []byte("other"))
		b.must(err)
		if created != r.forgotten {
			b.Fatalf("retention at %v: forgotten %v, want %v", r.now, created, r.forgotten)
		}
	}
}

func racingCreates(b *bench) {
	var created atomic.Int32
	first := make([]string, 50)
	commands := make([]command.Command, len(first))
	for i := range commands {
		commands[i] = b.command(withRequest("r1"))
	}
	for _, err := range together(len(first), func(i int) error {
		stored, fresh, err := b.add(b.Context(), commands[i], []byte("content"))
		if fresh {
			created.Add(1)
		}
		first[i] = stored.ID
		return err
	}) {
		b.must(err)
	}
	b.pause()
	if n := created.Load(); n != 1 {
		b.Fatalf("%d were created, want 1", n)
	}
	list, err := b.List(b.Context(), command.Filter{})
	b.must(err)
	if len(list) != 1 {
		b.Fatalf("%d commands are stored, want 1", len(list))
	}
	for _, id := range first {
		if id != list[0].ID {
			b.Fatalf("one caller was told %s, the stored one is %s", id, list[0].ID)
		}
	}
}

func compareAndSet(b *bench) {
	ctx := b.Context()
	c := b.create(b.command(func(c *command.Command) { c.Fence = 3 }))
	b.pause()
	next := b.next(c, command.Starting)
	next.Fence, next.Node = 4, "node-b"
	hello := []command.Chunk{{Data: []byte("hello")}}
	for _, wrong := range []command.Change{
		{From: command.Starting, Fence: 3, Command: next, Output: hello},
		{From: command.Queued, Fence: 2, Command: next, Output: hello},
		{From: command.Queued, Fence: 4, Command: next, Output: hello},
		{From: "", Fence: 3, Command: next, Output: hello},
	} {
		b.fails(b.Apply(ctx, wrong), fault.Aborted, "")
		b.pause()
		b.same(b.stored(c.ID), c)
		b.reads(c.ID, command.Stdout, 0, 100, nil)
	}
	b.must(b.Apply(ctx, command.Change{From: command.Queued, Fence: 3, Command: next}))
	b.pause()
	b.same(b.stored(c.ID), next)
	// The old owner wakes up.
	b.fails(b.Apply(ctx, command.Change{From: command.Starting, Fence: 3, Command: c}), fault.Aborted, "")

	unknown := b.command()
	b.fails(b.Apply(ctx, command.Change{From: command.Queued, Command: unknown, Output: hello}), fault.NotFound, fault.ReasonUnknownCommand)
	_, err := b.Get(ctx, unknown.ID)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)
	_, err = b.Get(ctx, "")
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)
}

func racingChanges(b *bench) {
	c := b.create(b.command())
	var winner atomic.Int64
	won := 0
	for _, err := range together(50, func(i int) error {
		next := b.next(c, command.Starting, command.Chunk{Data: []byte{byte(i)}})
		next.Version = int64(100 + i)
		err := b.Apply(b.Context(), command.Change{From: command.Queued, Command: next, Output: []command.Chunk{{Data: []byte{byte(i)}}}})
		if err == nil {
			winner.Store(int64(i))
		}
		return err
	}) {
		if err == nil {
			won++
			continue
		}
		b.fails(err, fault.Aborted, "")
	}
	b.pause()
	if won != 1 {
		b.Fatalf("%d of 50 won, want 1", won)
	}
	if got := b.stored(c.ID); got.Version != 100+winner.Load() {
		b.Fatalf("version %d is stored, %d won", got.Version, winner.Load())
	}
	b.reads(c.ID, command.Stdout, 0, 10, []byte{byte(winner.Load())})
}

func output(b *bench) {
	c := b.create(b.command())
	c = b.step(c, command.Starting)
	b.reads(c.ID, command.Stdout, 0, 100, nil)
	b.reads(c.ID, command.Stdout, 7, 100, nil) // behind the end
	random := rand.New(rand.NewPCG(1, 2))
	var whole [2][]byte
	for _, size := range []int{1, 5, 0, 300_000, 1 << 20, 3, 131072, 7} {
		var chunks []command.Chunk
		for _, s := range command.Streams {
			data := randomBytes(random, size/(1+int(s)))
			chunks = append(chunks, command.Chunk{Stream: s, Offset: int64(len(whole[s])), Data: data})
			whole[s] = append(whole[s], data...)
			// A second chunk right behind the first.
			chunks = append(chunks, command.Chunk{Stream: s, Offset: int64(len(whole[s])), Data: []byte("\x00\xff")})
			whole[s] = append(whole[s], "\x00\xff"...)
		}
		c = b.step(c, command.Running, chunks...)
		b.pause()
	}
	b.same(b.stored(c.ID), c)
	for _, s := range command.Streams {
		end := len(whole[s])
		b.reads(c.ID, s, 0, end+1, whole[s])
		b.reads(c.ID, s, int64(end), 10, nil)
		b.reads(c.ID, s, int64(end)+1000, 10, nil)
		b.reads(c.ID, s, 0, 0, nil)
		for range 60 {
			from := random.IntN(end)
			limit := random.IntN(1 << random.IntN(22))
			b.reads(c.ID, s, int64(from), limit, whole[s][from:min(end, from+limit)])
		}
	}
	c = b.step(c, command.Completed, command.Chunk{Stream: command.Stderr, Offset: int64(len(whole[1])), Data: []byte("last")})
	b.pause()
	b.reads(c.ID, command.Stderr, int64(len(whole[1])), 100, []byte("last"))

	_, err := b.ReadOutput(b.Context(), newID(b.now), command.Stdout, 0, 10)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)
	_, err = b.ReadOutput(b.Context(), c.ID, command.Stdout, -1, 10)
	b.fails(err, fault.Invalid, "")
}

func outputGaps(b *bench) {
	c := b.create(b.command())
	c = b.step(c, command.Running, command.Chunk{Data: []byte("0123456789")})
	for _, wrong := range []struct {
		kind   fault.Kind
		output []command.Chunk
	}{
		{fault.Aborted, []command.Chunk{{Offset: 0, Data: []byte("0123456789")}}}, // again
		{fault.Aborted, []command.Chunk{{Offset: 9, Data: []byte("x")}}},
		{fault.Aborted, []command.Chunk{{Offset: 11, Data: []byte("x")}}},
		{fault.Aborted, []command.Chunk{{Offset: 10, Data: []byte("x")}, {Stream: command.Stderr, Offset: 1, Data: []byte("x")}}},
		{fault.Invalid, []command.Chunk{{Offset: 10, Data: []byte("x")}, {Offset: 12, Data: []byte("y")}}},
		{fault.Invalid, []command.Chunk{{Offset: 10, Data: []byte("xx")}, {Offset: 11, Data: []byte("y")}}},
		{fault.Invalid, []command.Chunk{{Offset: -1, Data: []byte("x")}}},
		{fault.Invalid, []command.Chunk{{Stream: 2, Data: []byte("x")}}},
	} {
		err := b.Apply(b.Context(), command.Change{From: c.State, Command: b.next(c, command.Completed), Output: wrong.output})
		b.fails(err, wrong.kind, "")
		b.pause()
		b.same(b.stored(c.ID), c)
		b.reads(c.ID, command.Stdout, 0, 100, []byte("0123456789"))
		b.reads(c.ID, command.Stderr, 0, 100, nil)
	}
}

// longOutput has many callers write much at once, each its own command.
func longOutput(b *bench) {
	const callers, steps = 8, 10
	commands := make([]command.Command, callers)
	for i := range commands {
		commands[i] = b.create(b.command())
	}
	whole := make([][]byte, callers)
	half := func(i int) error {
		random := rand.New(rand.NewPCG(uint64(i), uint64(len(whole[i]))))
		for range steps {
			c := commands[i]
			chunk := command.Chunk{Offset: int64(len(whole[i])), Data: randomBytes(random, 1+random.IntN(100_000))}
			next := b.next(c, command.Running, chunk)
			if err := b.Apply(b.Context(), command.Change{From: c.State, Command: next, Output: []command.Chunk{chunk}}); err != nil {
				return err
			}
			commands[i], whole[i] = next, append(whole[i], chunk.Data...)
		}
		return nil
	}
	for range 2 {
		for _, err := range together(callers, half) {
			b.must(err)
		}
		b.pause()
	}
	for i, c := range commands {
		b.reads(c.ID, command.Stdout, 0, len(whole[i])+1, whole[i])
		b.same(b.stored(c.ID), c)
	}
}

func closed(b *bench) {
	c := b.create(b.command())
	b.must(b.Ping(b.Context()))
	b.must(b.Store.Close())
	b.must(b.Store.Close())
	ctx := b.Context()
	_, _, create := b.add(ctx, b.command(), nil)
	_, get := b.Get(ctx, c.ID)
	_, list := b.List(ctx, command.Filter{})
	_, read := b.ReadOutput(ctx, c.ID, command.Stdout, 0, 1)
	_, order := b.ReadOrder(ctx, c.ID, 0, 1)
	_, retain := b.Retain(ctx, command.Retention{Now: b.now})
	_, _, replay := b.Replay(ctx, c, nil)
	for _, err := range append(b.others(ctx, c), create, b.Apply(ctx, command.Change{From: c.State, Command: c}), get, list, read, order, retain, replay, b.Ping(ctx)) {
		e := b.fails(err, fault.Unavailable, fault.ReasonStoreUnavailable)
		if e.Hint == "" {
			b.Fatalf("no hint in %v", err)
		}
	}
	b.Store = b.open(b.T, b.dir)
	b.same(b.stored(c.ID), c)
}

func endedContext(b *bench) {
	c := b.create(b.command())
	ctx := ended()
	fresh := b.command()
	_, _, create := b.add(ctx, fresh, nil)
	_, get := b.Get(ctx, c.ID)
	_, list := b.List(ctx, command.Filter{})
	_, read := b.ReadOutput(ctx, c.ID, command.Stdout, 0, 1)
	_, order := b.ReadOrder(ctx, c.ID, 0, 1)
	_, retain := b.Retain(ctx, command.Retention{Now: b.now.Add(time.Hour), DeleteAfter: 1, TrimTo: 1})
	_, _, replay := b.Replay(ctx, c, nil)
	told := len(b.chain())
	for _, err := range append(b.others(ctx, c), create, b.Apply(ctx, command.Change{From: c.State, Command: b.next(c, command.Running)}), get, list, read, order, retain, replay, b.Ping(ctx)) {
		b.fails(err, fault.Cancelled, fault.ReasonCallCancelled)
	}
	b.pause()
	b.same(b.stored(c.ID), c)
	_, err := b.Get(b.Context(), fresh.ID)
	b.fails(err, fault.NotFound, "")
	if got := len(b.chain()); got != told {
		b.Fatalf("%d entries were told in an ended context", got-told)
	}
}

// others calls what is not about commands, each in a way that would succeed.
func (b *bench) others(ctx context.Context, c command.Command) []error {
	told := audit.Entry{Kind: audit.Login}
	_, one := b.Approval(ctx, c.ID)
	_, approvals := b.Approvals(ctx, approval.Filter{})
	_, rows := b.AuditRows(ctx, audit.Filter{From: b.now})
	_, chain := b.AuditChain(ctx, 0, 1)
	_, head := b.AuditHead(ctx)
	_, revoke := b.RevokeKey(ctx, "ci", b.now, told)
	_, keys := b.Keys(ctx)
	return append(append(b.sessionCalls(ctx), b.taskCalls(ctx)...),
		b.Decide(ctx, []approval.Step{b.decision(c, approval.Approval{CommandID: c.ID}, command.Queued)}), one, approvals,
		b.Record(ctx, told), rows, chain, head, b.AddKey(ctx, b.key("other"), told), revoke, b.UseKey(ctx, "id", b.now), keys,
	)
}

// closeUnderLoad closes the store while callers write: what was answered with
// nil is stored, the rest is told to be unavailable.
func closeUnderLoad(b *bench) {
	var stored [8][]command.Command
	commands := make(chan command.Command)
	enough := make(chan struct{})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go func() {
		defer close(commands)
		for i := 0; ; i++ {
			c := b.command()
			if i == 200 {
				close(enough)
			}
			select {
			case commands <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	closing := b.Store
	errs := together(len(stored)+1, func(i int) error {
		if i == len(stored) {
			<-enough
			return closing.Close()
		}
		for c := range commands {
			if _, _, err := closing.Create(ctx, c, nil, nil, accepted(c)); err != nil {
				cancel()
				return err
			}
			stored[i] = append(stored[i], c)
		}
		return nil
	})
	for i, err := range errs {
		switch kind := fault.KindOf(err); {
		case err == nil, kind == fault.Unavailable, kind == fault.Cancelled:
		default:
			b.Errorf("caller %d: %v", i, err)
		}
	}
	b.must(errors.Join(errs[len(stored)]))
	b.Store = b.open(b.T, b.dir)
	n := 0
	for _, list := range stored {
		for _, c := range list {
			n++
			b.same(b.stored(c.ID), c)
		}
	}
	if n < 100 {
		b.Fatalf("only %d commands were stored before the close", n)
	}
}
