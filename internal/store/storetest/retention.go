package storetest

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

func (b *bench) retain(r command.Retention) command.Retained {
	b.Helper()
	done, err := b.Retain(b.Context(), r)
	b.must(err)
	b.pause()
	return done
}

// trimmed requires that output before an offset is gone and says so.
func (b *bench) trimmed(id string, s command.Stream, earliest int64) {
	b.Helper()
	if got := b.stored(id).Earliest[s]; got != earliest {
		b.Fatalf("earliest offset of %s is %d, want %d", s, got, earliest)
	}
	for _, offset := range []int64{0, earliest - 1} {
		if offset >= earliest || offset < 0 {
			continue
		}
		_, err := b.ReadOutput(b.Context(), id, s, offset, 1)
		e := b.fails(err, fault.OutOfRange, fault.ReasonOutputTrimmed)
		if e.Metadata["earliest_offset"] != strconv.FormatInt(earliest, 10) {
			b.Fatalf("metadata is %v", e.Metadata)
		}
	}
}

// earliest requires that a command's output begins there.
func (b *bench) earliest(id string, want command.Sizes) {
	b.Helper()
	if got := b.stored(id).Earliest; got != want {
		b.Fatalf("the output of %s begins at %v, want %v", id, got, want)
	}
}

func trims(b *bench) {
	long := b.create(b.command())
	var whole []byte
	for i := range 20 {
		data := bytes.Repeat([]byte{'a' + byte(i)}, 10+i)
		long = b.step(long, command.Running, command.Chunk{Offset: int64(len(whole)), Data: data})
		whole = append(whole, data...)
	}
	long = b.step(long, command.Completed, command.Chunk{Stream: command.Stderr, Data: []byte("short")})
	running := b.step(b.create(b.command()), command.Running, command.Chunk{Data: whole})
	b.now = b.now.Add(30 * time.Minute)
	young := b.step(b.create(b.command()), command.Running, command.Chunk{Data: whole})
	young = b.step(young, command.Lost)
	short := b.step(b.create(b.command()), command.Running, command.Chunk{Data: whole[:33]})
	short = b.step(short, command.Failed)
	b.pause()

	size := int64(len(whole))
	r := command.Retention{Now: b.now.Add(20 * time.Minute), TrimAfter: 25 * time.Minute, TrimTo: 33, Batch: 10}
	for _, round := range []int{1, 0, 0} { // once is enough
		done := b.retain(r)
		if done.Trimmed != round || done.Deleted != 0 || done.More {
			b.Fatalf("retained %s, want %d trimmed", text(done), round)
		}
		b.earliest(long.ID, command.Sizes{size - 33, 0})
		b.trimmed(long.ID, command.Stdout, size-33)
		b.reads(long.ID, command.Stdout, size-33, 100, whole[size-33:])
		b.reads(long.ID, command.Stderr, 0, 100, []byte("short"))
		b.reads(running.ID, command.Stdout, 0, len(whole), whole)
		b.reads(young.ID, command.Stdout, 0, len(whole), whole)
	}
	// Less is kept from now on, also of what was cut before.
	r.Now, r.TrimTo = r.Now.Add(time.Hour), 4
	if done := b.retain(r); done.Trimmed != 3 {
		b.Fatalf("retained %s", text(done))
	}
	b.earliest(long.ID, command.Sizes{size - 4, 1})
	b.earliest(short.ID, command.Sizes{29, 0})
	b.trimmed(long.ID, command.Stderr, 1)
	b.trimmed(young.ID, command.Stdout, size-4)
	b.reads(long.ID, command.Stderr, 1, 100, []byte("hort"))
	b.reads(running.ID, command.Stdout, 0, len(whole), whole)

	// Apply does not undo it, whatever the record it was given says.
	got := b.stored(long.ID)
	change := got
	change.Earliest = command.Sizes{}
	change.Version++
	b.must(b.Apply(b.Context(), command.Change{From: got.State, Command: change}))
	b.trimmed(long.ID, command.Stdout, size-4)
	// And nothing is trimmed where that was not asked for.
	if done := b.retain(command.Retention{Now: r.Now.Add(1000 * time.Hour)}); done.Trimmed+done.Deleted != 0 {
		b.Fatalf("retained %s", text(done))
	}
}

func trimsLong(b *bench) {
	r := rand.New(rand.NewPCG(7, 8))
	c := b.create(b.command())
	whole := [2][]byte{randomBytes(r, 700_000), randomBytes(r, 10)}
	var tiny []command.Chunk
	for i := range len(whole[0]) / 1000 {
		tiny = append(tiny, command.Chunk{Offset: int64(i * 1000), Data: whole[0][i*1000 : (i+1)*1000]})
	}
	c = b.step(c, command.Running, append(tiny, command.Chunk{Stream: command.Stderr, Data: whole[1]})...)
	more := randomBytes(r, 3<<20)
	whole[0] = append(whole[0], more...)
	c = b.step(c, command.Completed, command.Chunk{Offset: c.Size[0], Data: more})
	b.pause()
	const kept = 200_001
	done := b.retain(command.Retention{Now: b.now, TrimTo: kept})
	size := int64(len(whole[0]))
	if done.Trimmed != 1 {
		b.Fatalf("retained %s", text(done))
	}
	b.earliest(c.ID, command.Sizes{size - kept, 0})
	b.trimmed(c.ID, command.Stdout, size-kept)
	b.reads(c.ID, command.Stdout, size-kept, 1<<20, whole[0][size-kept:])
	b.reads(c.ID, command.Stdout, size-1, 10, whole[0][size-1:])
	b.reads(c.ID, command.Stderr, 0, 100, whole[1])

	if done = b.retain(command.Retention{Now: b.now.Add(time.Hour), DeleteAfter: time.Minute}); done.Deleted != 1 {
		b.Fatalf("retained %s", text(done))
	}
	_, err := b.Get(b.Context(), c.ID)
	b.fails(err, fault.NotFound, "")
}

func deletes(b *bench) {
	all := b.history(rand.New(rand.NewPCG(9, 10)), 40)
	b.now = b.now.Add(time.Hour)
	end := b.now
	old := b.create(b.command(withRequest("r1"), func(c *command.Command) {
		c.Spec.Labels = map[string]string{"tier": "front", "old": "yes"}
		c.Spec.Stdin = []byte("x")
	}))
	old = b.step(old, command.Rejected, command.Chunk{Data: []byte("out")})
	fresh := b.create(b.command())
	b.now = end.Add(2 * time.Hour)
	fresh = b.step(fresh, command.Completed)
	b.pause()

	now := end.Add(3 * time.Hour)
	var left []command.Command
	gone := 1 // old
	for _, c := range all {
		if c.Ended() {
			gone++
		} else {
			left = append(left, c)
		}
	}
	left = append(left, fresh)
	for _, want := range []int{gone, 0} {
		if done := b.retain(command.Retention{Now: now, DeleteAfter: 90 * time.Minute}); done.Deleted != want || done.More {
			b.Fatalf("retained %s, want %d deleted", text(done), want)
		}
	}
	b.lists(command.Filter{}, left)
	b.lists(command.Filter{Labels: map[string]string{"tier": "front"}}, left)
	b.lists(command.Filter{Labels: map[string]string{"old": "yes"}}, left)
	b.lists(command.Filter{States: command.States}, left)
	_, err := b.Get(b.Context(), old.ID)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)
	_, err = b.ReadOutput(b.Context(), old.ID, command.Stdout, 0, 1)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)
	b.fails(b.Apply(b.Context(), command.Change{From: old.State, Command: old}), fault.NotFound, fault.ReasonUnknownCommand)
	// Its request id went with it.
	b.now = old.CreateTime.Add(time.Minute)
	if _, created, err := b.add(b.Context(), b.command(withRequest("r1")), nil); err != nil || !created {
		b.Fatalf("created %v, error %v", created, err)
	}
}

func inUse(b *bench) {
	var ids []string
	for range 7 {
		c := b.step(b.create(b.command()), command.Completed, command.Chunk{Data: []byte("0123456789")})
		ids = append(ids, c.ID)
	}
	b.pause()
	watched := map[string]bool{ids[0]: true, ids[1]: true, ids[2]: true, ids[4]: true}
	r := command.Retention{Now: b.now.Add(time.Hour), TrimTo: 5, Batch: 2, InUse: func(id string) bool { return watched[id] }}
	// The batch is filled from behind those in use.
	if done := b.retain(r); done.Trimmed != 2 || !done.More {
		b.Fatalf("retained %s", text(done))
	}
	if done := b.retain(r); done.Trimmed != 1 || done.More {
		b.Fatalf("retained %s", text(done))
	}
	r.DeleteAfter = time.Minute
	for r.Batch = 3; b.retain(r).More; {
	}
	var left []string
	list, err := b.List(b.Context(), command.Filter{})
	b.must(err)
	for _, c := range list {
		left = append(left, c.ID)
		b.reads(c.ID, command.Stdout, 0, 100, []byte("0123456789"))
		if !watched[c.ID] {
			b.Fatalf("%s is left and was not in use", c.ID)
		}
	}
	if len(left) != len(watched) {
		b.Fatalf("%d are left, want %d", len(left), len(watched))
	}
	r.InUse = nil
	for r.Batch = 3; b.retain(r).More; {
	}
	b.lists(command.Filter{}, nil)
}

func batches(b *bench) {
	const n = 75
	for range n {
		b.step(b.create(b.command()), command.Expired, command.Chunk{Data: []byte("0123456789")})
	}
	b.pause()
	for _, r := range []command.Retention{
		{Now: b.now.Add(time.Hour), TrimTo: 5, Batch: 10},
		{Now: b.now.Add(time.Hour), DeleteAfter: time.Minute, Batch: 10},
	} {
		sum := 0
		for more := true; more; {
			done := b.retain(r)
			if did := done.Trimmed + done.Deleted; did > 10 {
				b.Fatalf("retained %s", text(done))
			}
			sum += done.Trimmed + done.Deleted
			more = done.More
		}
		if sum != n {
			b.Fatalf("%d were done, want %d", sum, n)
		}
	}
	b.lists(command.Filter{}, nil)
}
