package storetest

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
)

// changed gives what has changed behind a number, page by page.
func (b *bench) changed(after int64, page int) (list []command.Changed) {
	b.Helper()
	for {
		more, err := b.Changes(b.Context(), after, page)
		b.must(err)
		if len(more) > page {
			b.Fatalf("a page of %d has %d", page, len(more))
		}
		for _, c := range more {
			if c.Number <= after {
				b.Fatalf("number %d comes behind %d", c.Number, after)
			}
			after = c.Number
		}
		list = append(list, more...)
		if len(more) < page {
			return list
		}
	}
}

func (b *bench) lastChange() int64 {
	b.Helper()
	last, err := b.LastChange(b.Context())
	b.must(err)
	return last
}

// changedAre requires that these commands, as they are, have changed behind a number.
func (b *bench) changedAre(after int64, want ...command.Command) {
	b.Helper()
	got := b.changed(after, 2)
	if len(got) != len(want) {
		b.Fatalf("%d commands have changed behind %d, want %d: %s", len(got), after, len(want), text(got))
	}
	for i, c := range got {
		b.same(c.Command, want[i])
	}
	if last := b.lastChange(); len(got) > 0 && got[len(got)-1].Number != last {
		b.Fatalf("the last number told is %d, and the last given is %d", got[len(got)-1].Number, last)
	}
}

func numbers(b *bench) {
	if last := b.lastChange(); last != 0 {
		b.Fatalf("a new store has given the number %d", last)
	}
	b.changedAre(0)
	one, two, three := b.create(b.command()), b.create(b.command()), b.create(b.command())
	b.changedAre(0, one, two, three)
	b.pause()
	begin := b.lastChange()
	one = b.step(one, command.Running)
	b.changedAre(0, two, three, one)
	b.changedAre(begin, one)
	b.pause()

	// Mere output is no change, nor is what was refused, or given again.
	now := b.lastChange()
	for _, c := range []*command.Command{&one, &three} { // which has changed last, and which has not
		next := *c
		next.Size[command.Stdout] = 3
		b.must(b.Apply(b.Context(), command.Change{From: c.State, Fence: c.Fence, Command: next, Output: []command.Chunk{{Data: []byte("abc")}}}))
		*c = next
	}
	wrong := command.Change{From: one.State, Fence: one.Fence + 1, Command: one}
	wrong.Command.Version++
	if err := b.Apply(b.Context(), wrong); err == nil {
		b.Fatal("a change with another fence was taken")
	}
	if _, _, err := b.add(b.Context(), two, nil); err == nil {
		b.Fatal("an id was used twice")
	}
	b.changedAre(now)
	if last := b.lastChange(); last != now {
		b.Fatalf("what changed nothing was numbered %d behind %d", last, now)
	}
	b.pause()
	b.changedAre(0, two, three, one)

	one = b.step(one, command.Completed, command.Chunk{Offset: 3, Data: []byte("d")})
	two = b.step(two, command.Starting)
	if last := b.lastChange(); last != now+2 {
		b.Fatalf("two changes went from %d to %d", now, last)
	}
	b.pause()
	b.changedAre(now, one, two)
	b.changedAre(0, three, one, two)
}

// decidedNumbers has a decision be a change of all commands that it is about.
func decidedNumbers(b *bench) {
	first, gate := b.gated()
	second, gate2 := b.gated()
	begin := b.lastChange()
	steps := []approval.Step{b.decision(first, gate, command.Queued), b.decision(second, gate2, command.Queued)}
	b.must(b.Decide(b.Context(), steps))
	b.pause()
	b.changedAre(begin, steps[0].Change.Command, steps[1].Change.Command)
	if err := b.Decide(b.Context(), steps); err == nil {
		b.Fatal("a decision was taken twice")
	}
	if last := b.lastChange(); last != begin+2 {
		b.Fatalf("two changes went from %d to %d", begin, last)
	}
}

// deletedNumbers has retention delete the commands that changed last.
func deletedNumbers(b *bench) {
	kept := b.create(b.command())
	for range 3 {
		b.step(b.create(b.command()), command.Completed)
	}
	last := b.lastChange()
	b.retain(command.Retention{Now: b.now.Add(time.Hour), DeleteAfter: time.Minute, Batch: 2})
	b.retain(command.Retention{Now: b.now.Add(time.Hour), DeleteAfter: time.Minute, Batch: 2})
	if list := b.changed(0, 10); len(list) != 1 || list[0].Command.ID != kept.ID {
		b.Fatalf("what is left has changed: %s", text(list))
	}
	if now := b.lastChange(); now != last {
		b.Fatalf("the last number was %d, and is %d when its command is gone", last, now)
	}
	b.pause()
	kept = b.step(kept, command.Running)
	if now := b.lastChange(); now != last+1 {
		b.Fatalf("the number behind %d is %d", last, now)
	}
	b.changedAre(last, kept)
}

// followedNumbers has somebody follow the numbers while many write: nothing comes
// later at or below a number that was told.
func followedNumbers(b *bench) {
	const writers, each = 8, 15
	done := make(chan struct{})
	var following sync.WaitGroup
	var told []command.Changed
	var failed error
	following.Go(func() {
		after := int64(0)
		for last := false; ; {
			select {
			case <-done:
				last = true
			default:
			}
			page, err := b.Changes(b.Context(), after, 7)
			if err != nil {
				failed = err
				return
			}
			for _, c := range page {
				after = c.Number
			}
			if told = append(told, page...); last && len(page) == 0 {
				return
			}
		}
	})
	ends := make([]command.Command, writers*each)
	made := make([]command.Command, len(ends))
	for i := range made {
		made[i] = b.command()
	}
	for _, err := range together(writers, func(w int) error {
		for i := w * each; i < (w+1)*each; i++ {
			c := made[i]
			if _, _, err := b.add(b.Context(), c, nil); err != nil {
				return err
			}
			for _, to := range []command.State{command.Running, command.Completed} {
				next := b.next(c, to)
				if err := b.Apply(b.Context(), command.Change{From: c.State, Fence: c.Fence, Command: next}); err != nil {
					return err
				}
				c = next
			}
			ends[i] = c
		}
		return nil
	}) {
		b.must(err)
	}
	close(done)
	following.Wait()
	b.must(failed)
	versions := make(map[string]int64)
	before := int64(0)
	for _, c := range told {
		if c.Number <= before {
			b.Fatalf("number %d comes behind %d", c.Number, before)
		}
		if v := versions[c.Command.ID]; c.Command.Version <= v {
			b.Fatalf("version %d of %s comes behind %d", c.Command.Version, c.Command.ID, v)
		}
		before, versions[c.Command.ID] = c.Number, c.Command.Version
	}
	for _, c := range ends {
		if versions[c.ID] != c.Version {
			b.Fatalf("of %s version %d was told last, and it has %d", c.ID, versions[c.ID], c.Version)
		}
	}
	if last := b.lastChange(); last != before || last != int64(3*len(ends)) {
		b.Fatalf("%d was told last and %d given, of %d changes", before, last, 3*len(ends))
	}
	b.pause()
	if got := b.changed(0, 50); len(got) != len(ends) {
		b.Fatalf("%d commands have changed, of %d", len(got), len(ends))
	}
}

// changes compares what has changed behind some number with the model.
func (m *model) changes(b *bench, r *rand.Rand) {
	if last := b.lastChange(); last != m.number {
		b.Fatalf("the last number is %d, want %d", last, m.number)
	}
	after := r.Int64N(m.number + 2)
	var want []*entry
	for _, e := range m.commands {
		if e.number > after {
			want = append(want, e)
		}
	}
	slices.SortFunc(want, func(a, b *entry) int { return int(a.number - b.number) })
	got := b.changed(after, 1+r.IntN(20))
	if len(got) != len(want) {
		b.Fatalf("%d have changed behind %d, want %d", len(got), after, len(want))
	}
	for i, e := range want {
		if b.same(got[i].Command, e.Command); got[i].Number != e.number {
			b.Fatalf("%s has number %d, want %d", e.ID, got[i].Number, e.number)
		}
	}
}
