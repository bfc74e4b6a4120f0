package storetest

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// turns is a command whose output comes with an order.
type turns struct {
	command.Command
	whole [2][]byte
	order []command.Sizes
}

// print applies a change with so many turns of both streams, at most size bytes at a
// time.
func (c *turns) print(b *bench, r *rand.Rand, n, size int) {
	b.Helper()
	ch := command.Change{From: c.State, Fence: c.Fence}
	at := c.Size
	var fresh [2][]byte
	for range n {
		for _, s := range command.Streams {
			data := randomBytes(r, 1+r.IntN(size))
			if s == command.Stdout && at[command.Stderr] > 0 {
				ch.Order = append(ch.Order, at)
			}
			fresh[s] = append(fresh[s], data...)
			at[s] += int64(len(data))
		}
	}
	for _, s := range command.Streams {
		ch.Output = append(ch.Output, command.Chunk{Stream: s, Offset: c.Size[s], Data: fresh[s]})
		c.whole[s] = append(c.whole[s], fresh[s]...)
	}
	ch.Command = b.next(c.Command, command.Running, ch.Output...)
	b.must(b.Apply(b.Context(), ch))
	c.Command, c.order = ch.Command, append(c.order, ch.Order...)
}

// ordered requires what ReadOrder gives.
func (b *bench) ordered(id string, position int64, limit int, want []command.Sizes) {
	b.Helper()
	got, err := b.ReadOrder(b.Context(), id, position, limit)
	b.must(err)
	if !slices.Equal(got, want) {
		b.Fatalf("at %d, at most %d: %d waypoints %.200s\nwant %d: %.200s", position, limit, len(got), text(got), len(want), text(want))
	}
}

// since gives the waypoints that ReadOrder gives of all.
func since(order []command.Sizes, position int64, limit int) []command.Sizes {
	rest := order[max(0, command.Before(order, position)):]
	return rest[:min(limit, len(rest))]
}

func orderComesWith(b *bench) {
	r := rand.New(rand.NewPCG(1, 3))
	c := &turns{Command: b.create(b.command())}
	b.ordered(c.ID, 0, 100, nil)
	// Beside output in rows and in bulk, and both.
	for _, size := range []int{10, 300_000, 10, 100_000, 1} {
		c.print(b, r, 3, size)
		b.pause()
		b.ordered(c.ID, 0, 100, c.order)
		for _, s := range command.Streams {
			b.reads(c.ID, s, 0, len(c.whole[s])+1, c.whole[s])
		}
	}
	// What is refused leaves none behind.
	at := c.Size
	next := b.next(c.Command, command.Running, command.Chunk{Offset: at[0], Data: []byte("x")})
	ch := command.Change{From: c.State, Fence: c.Fence + 1, Command: next, Order: []command.Sizes{at},
		Output: []command.Chunk{{Offset: at[0], Data: []byte("x")}}}
	b.fails(b.Apply(b.Context(), ch), fault.Aborted, "")
	b.pause()
	b.ordered(c.ID, 0, 100, c.order)
	// A waypoint at the beginning of a change of one stream.
	ch.Fence = c.Fence
	b.must(b.Apply(b.Context(), ch))
	b.pause()
	b.ordered(c.ID, 0, 100, append(c.order, at))

	_, err := b.ReadOrder(b.Context(), newID(b.now), 0, 10)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)
	_, err = b.ReadOrder(b.Context(), c.ID, -1, 10)
	b.fails(err, fault.Invalid, "")
	_, err = b.ReadOrder(b.Context(), c.ID, 0, -1)
	b.fails(err, fault.Invalid, "")
}

func orderFromAnywhere(b *bench) {
	r := rand.New(rand.NewPCG(2, 3))
	c := &turns{Command: b.create(b.command())}
	for _, n := range []int{1, 1, 5000, 1, 700, 2} {
		c.print(b, r, n, 3)
		b.pause()
	}
	end := c.Size.Position()
	for _, p := range []int64{0, 1, c.order[0].Position() - 1, c.order[0].Position(), end - 1, end, end + 1000} {
		b.ordered(c.ID, p, 1<<20, since(c.order, p, 1<<20))
	}
	b.ordered(c.ID, 0, 0, nil)
	for range 200 {
		p, limit := r.Int64N(end), 1+r.IntN(1<<r.IntN(13))
		b.ordered(c.ID, p, limit, since(c.order, p, limit))
	}
}

func wrongOrder(b *bench) {
	c := &turns{Command: b.create(b.command())}
	c.print(b, rand.New(rand.NewPCG(3, 3)), 2, 10)
	out, err := c.Size[0], c.Size[1]
	output := []command.Chunk{{Offset: out, Data: []byte("0123456789")}, {Stream: command.Stderr, Offset: err, Data: []byte("0123456789")}}
	for _, wrong := range []struct {
		output []command.Chunk
		order  []command.Sizes
	}{
		{nil, []command.Sizes{{out, err}}},
		{output, []command.Sizes{{out - 1, err}}},
		{output, []command.Sizes{{out, err - 1}}},
		{output, []command.Sizes{{out + 10, err + 10}}},
		{output, []command.Sizes{{out + 11, err}}},
		{output, []command.Sizes{{out + 1, err + 11}}},
		{output, []command.Sizes{{out + 1, err + 1}, {out + 1, err + 1}}},
		{output, []command.Sizes{{out + 1, err + 2}, {out + 2, err + 1}}},
		{output[:1], []command.Sizes{{out + 1, err}, {out + 2, err + 1}}},
	} {
		ch := command.Change{From: c.State, Command: b.next(c.Command, command.Running, wrong.output...), Output: wrong.output, Order: wrong.order}
		b.fails(b.Apply(b.Context(), ch), fault.Invalid, "")
		b.pause()
		b.same(b.stored(c.ID), c.Command)
		b.ordered(c.ID, 0, 100, c.order)
	}
}

func orderIsTrimmed(b *bench) {
	r := rand.New(rand.NewPCG(4, 3))
	c := &turns{Command: b.create(b.command())}
	for range 700 { // more than one step of retention removes
		c.print(b, r, 2, 20)
	}
	c.Command = b.step(c.Command, command.Completed)
	b.pause()
	for _, kept := range []int64{10_000, 5_000, 100} {
		b.retain(command.Retention{Now: b.now.Add(time.Hour), TrimTo: kept})
		earliest := b.stored(c.ID).Earliest
		got, err := b.ReadOrder(b.Context(), c.ID, 0, 1<<20)
		b.must(err)
		// All that is needed for what is left, and not much more.
		gone := len(c.order) - len(got)
		if !slices.Equal(got, c.order[gone:]) {
			b.Fatalf("%d waypoints are left that are not the last ones", len(got))
		}
		if gone == 0 || !got[0].Within(earliest) {
			b.Fatalf("the waypoints begin at %v, the output at %v; %d are gone", got[0], earliest, gone)
		}
		if n := len(got); n > 4 && got[4].Within(earliest) {
			b.Fatalf("the waypoints begin at %v, the output at %v", got[0], earliest)
		}
	}
	b.retain(command.Retention{Now: b.now.Add(time.Hour), DeleteAfter: time.Minute})
	_, err := b.ReadOrder(b.Context(), c.ID, 0, 1)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)
}
