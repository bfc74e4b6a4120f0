package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// rowPoints is how many waypoints one row of output_order has at most: what is
// unpacked to find one.
const rowPoints = 1024

// checkOrder refuses waypoints that are not those of the output of a change.
func checkOrder(order []command.Sizes, run extent) error {
	if len(order) == 0 {
		return nil
	}
	ok := command.Rising(order) && run.size > 0
	first, last := order[0], order[len(order)-1]
	for _, s := range command.Streams {
		if run.from[s] >= 0 {
			ok = ok && first[s] >= run.from[s] && last[s] <= run.to[s]
		} else {
			ok = ok && first[s] == last[s]
		}
	}
	if !ok || last == run.to {
		return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the waypoints do not rise from the beginning of the output to before its end")
	}
	return nil
}

// putOrder runs on the writer's goroutine.
func (w *writer) putOrder(ctx context.Context, id string, order []command.Sizes) error {
	for points := range slices.Chunk(order, rowPoints) {
		first := points[0]
		if _, err := w.insertOrder.ExecContext(ctx, id, first.Position(), first[command.Stdout], packOrder(points)); err != nil {
			return err
		}
	}
	return nil
}

// cutOrder runs on the writer's goroutine: one step of removing the order of output
// before earliest. It reports whether there may be more.
func (w *writer) cutOrder(ctx context.Context, id string, earliest command.Sizes) (more bool, err error) {
	r, err := w.deleteOrder.ExecContext(ctx, id, earliest[command.Stdout], earliest[command.Stderr], stepOrder)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == stepOrder-1, err
}

// packOrder packs how far each waypoint but the first lies behind the one before it.
func packOrder(points []command.Sizes) []byte {
	b := make([]byte, 0, 4*len(points))
	for i, p := range points[1:] {
		for _, s := range command.Streams {
			b = binary.AppendUvarint(b, uint64(p[s]-points[i][s]))
		}
	}
	return b
}

// unpackOrder adds the waypoints of a row to points. None lies behind end.
func unpackOrder(points []command.Sizes, first, end command.Sizes, b []byte) ([]command.Sizes, error) {
	next := func(at, end int64) (int64, bool) {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(end-at) {
			return 0, false
		}
		b = b[size:]
		return at + int64(n), true
	}
	for p := first; ; {
		bad := p[command.Stdout] < 0 || p[command.Stderr] < 0 || !p.Within(end)
		if n := len(points); bad || n > 0 && (!points[n-1].Within(p) || points[n-1] == p) {
			return nil, errPacked
		}
		points = append(points, p)
		if len(b) == 0 {
			return points, nil
		}
		for _, s := range command.Streams {
			var ok bool
			if p[s], ok = next(p[s], end[s]); !ok {
				return nil, errPacked
			}
		}
	}
}

// selectOrder gives the rows of waypoints from the one with the last waypoint at or
// before a position on; or one row without where there is none.
const selectOrder = `SELECT c.stored_stdout, c.stored_stderr, o.position, o.stdout, o.points
	FROM command c LEFT JOIN output_order o ON o.command = c.id AND o.position >=
		ifnull((SELECT max(position) FROM output_order WHERE command = ?1 AND position <= ?2), 0)
	WHERE c.id = ?1 ORDER BY o.position`

// ReadOrder is store.Store's. Its cost is a seek and the rows it touches.
func (s *Store) ReadOrder(ctx context.Context, id string, position int64, limit int) ([]command.Sizes, error) {
	const op = "sqlite.ReadOrder"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if position < 0 || limit < 0 {
		return nil, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "there is no order at position %d (at most %d waypoints)", position, limit).WithOp(op)
	}
	points, err := s.order(ctx, id, position, limit)
	if errors.Is(err, errPacked) {
		err = damaged(id, fmt.Errorf("the order of its output at %d: %w", position, err))
	}
	return points, failed(op, err)
}

func (s *Store) order(ctx context.Context, id string, position int64, limit int) (points []command.Sizes, err error) {
	rows, err := s.readOrder.QueryContext(ctx, id, position)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	found := false
	for len(points) < limit && rows.Next() {
		var end command.Sizes
		var at, stdout sql.NullInt64
		var packed sql.RawBytes // valid until the next Next; unpacked at once
		if err := rows.Scan(&end[command.Stdout], &end[command.Stderr], &at, &stdout, &packed); err != nil {
			return nil, err
		}
		if found = true; !at.Valid {
			break
		}
		if points, err = unpackOrder(points, command.Sizes{stdout.Int64, at.Int64 - stdout.Int64}, end, packed); err != nil {
			return nil, err
		}
		points = points[max(0, command.Before(points, position)):]
	}
	if err := closeRows(rows); err != nil {
		return nil, err
	}
	if !found && limit > 0 {
		return nil, unknownCommand(id)
	}
	return points[:min(len(points), limit)], nil
}
