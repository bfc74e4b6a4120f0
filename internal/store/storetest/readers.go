package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// manyReaders reads in every way while one writes: a reader sees a record and the
// output that came with it, or neither.
func manyReaders(b *bench) {
	const line = "0123456789"
	c := b.step(b.create(b.command()), command.Running)
	id := c.ID // c itself is the writer's
	errs := together(41, func(i int) error {
		if i == 0 {
			for range 200 {
				chunk := command.Chunk{Offset: c.Size[0], Data: []byte(line)}
				next := b.next(c, command.Running, chunk)
				if err := b.Apply(b.Context(), command.Change{From: c.State, Command: next, Output: []command.Chunk{chunk}}); err != nil {
					return err
				}
				c = next
			}
			return nil
		}
		r := rand.New(rand.NewPCG(uint64(i), 0))
		for range 20 {
			var size int64
			switch i % 2 {
			case 0:
				got, err := b.Get(b.Context(), id)
				if err != nil {
					return err
				}
				size = got.Size[0]
			default:
				f := randomFilter(r, nil)
				f.Labels, f.Host, f.Principal, f.Origin, f.Session, f.Task, f.Visible = nil, "", "", "", "", "", nil
				f.States = append(f.States, command.Running)
				list, err := b.List(b.Context(), f)
				if err != nil || len(list) != 1 {
					return errors.Join(err, fmt.Errorf("%d commands listed", len(list)))
				}
				size = list[0].Size[0]
			}
			data, err := b.ReadOutput(b.Context(), id, command.Stdout, 0, 1<<20)
			if err != nil || int64(len(data)) < size || len(data)%len(line) != 0 {
				return errors.Join(err, fmt.Errorf("%d bytes where the record told of %d", len(data), size))
			}
		}
		return nil
	})
	for _, err := range errs {
		b.must(err)
	}
	b.pause()
	b.same(b.stored(c.ID), c)
}

// leavingReaders end their contexts at any moment of a read. Each read returns, so that
// none keeps what it has of the store: with what it asked for, or as for an ended context.
func leavingReaders(b *bench) {
	c := turns{Command: b.step(b.create(b.command()), command.Running)}
	c.print(b, rand.New(rand.NewPCG(1, 0)), 20, 4<<10)
	began := time.Now()
	whole, err := b.ReadOutput(b.Context(), c.ID, command.Stdout, 0, int(c.Size[command.Stdout])-1)
	b.must(err)
	usual := time.Since(began)
	errs := together(4, func(i int) error {
		r := rand.New(rand.NewPCG(uint64(i), 0))
		for range 250 {
			ctx, leave := context.WithTimeout(b.Context(), time.Duration(r.Int64N(int64(2*usual))))
			data, err := b.ReadOutput(ctx, c.ID, command.Stdout, 0, len(whole))
			_, orderErr := b.ReadOrder(ctx, c.ID, 0, 3)
			leave()
			if err == nil && !bytes.Equal(data, whole) {
				return fmt.Errorf("%d bytes, other than the %d that are there", len(data), len(whole))
			}
			for _, err := range []error{err, orderErr} {
				if err != nil && fault.KindOf(err) != fault.DeadlineExceeded {
					return err
				}
			}
		}
		return nil
	})
	for _, err := range errs {
		b.must(err)
	}
	b.pause()
}
