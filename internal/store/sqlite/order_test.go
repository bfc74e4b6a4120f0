package sqlite

import (
	"slices"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// A row that is damaged is told, whatever the damage.
func TestDamagedOrder(t *testing.T) {
	for name, damage := range map[string]string{
		"no number":        "UPDATE output_order SET points = x'ff'",
		"half a waypoint":  "UPDATE output_order SET points = x'01'",
		"twice the same":   "UPDATE output_order SET points = x'0000'",
		"behind the end":   "UPDATE output_order SET points = x'0150'",
		"a huge step":      "UPDATE output_order SET points = x'ffffffffffffffffff0101'",
		"begins below 0":   "UPDATE output_order SET stdout = -1",
		"begins behind":    "UPDATE output_order SET stdout = position + 1",
		"beyond the end":   "UPDATE output_order SET position = 1000, stdout = 500",
		"before the other": "INSERT INTO output_order SELECT command, position + 1, stdout - 1, x'' FROM output_order",
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			defer s.Close()
			c := benchCommand(time.Now())
			if _, _, err := s.Create(t.Context(), c, nil, nil, accepted(c)); err != nil {
				t.Fatal(err)
			}
			ch := end(c, command.Chunk{Data: []byte("0123456789")}, command.Chunk{Stream: command.Stderr, Data: []byte("0123456789")})
			ch.Order = []command.Sizes{{1, 1}, {2, 3}, {5, 5}}
			if err := s.Apply(t.Context(), ch); err != nil {
				t.Fatal(err)
			}
			if got, err := s.ReadOrder(t.Context(), c.ID, 0, 9); err != nil || !slices.Equal(got, ch.Order) {
				t.Fatal(got, err)
			}
			if _, err := s.writer.conn.ExecContext(t.Context(), damage); err != nil {
				t.Fatal(err)
			}
			if got, err := s.ReadOrder(t.Context(), c.ID, 0, 9); fault.ReasonOf(err) != fault.ReasonStoreDamaged {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// Much order of little output goes in steps, to its end.
func TestOrderIsCutInSteps(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := benchCommand(time.Now())
	if _, _, err := s.Create(t.Context(), c, nil, nil, accepted(c)); err != nil {
		t.Fatal(err)
	}
	const turns = (stepOrder + 20) * rowPoints
	data := make([]byte, turns+1)
	ch := end(c, command.Chunk{Data: data}, command.Chunk{Stream: command.Stderr, Data: data})
	for i := range int64(turns) {
		ch.Order = append(ch.Order, command.Sizes{i, i + 1})
	}
	if err := s.Apply(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), TrimTo: 100}); err != nil {
		t.Fatal(err)
	}
	got, err := s.ReadOrder(t.Context(), c.ID, 0, turns)
	if err != nil || len(got) < 99 || len(got) > 2*rowPoints || !slices.Equal(got, ch.Order[turns-len(got):]) {
		t.Errorf("%d waypoints are left, %v", len(got), err)
	}
}

// Whatever a row has, what comes of it is waypoints of that output or an error; and
// what is packed comes back.
func FuzzUnpackOrder(f *testing.F) {
	f.Add(int64(0), int64(0), []byte{})
	f.Add(int64(1), int64(1), packOrder([]command.Sizes{{1, 1}, {2, 300}, {70_000, 300}}))
	f.Add(int64(-1), int64(1<<62), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, out, err int64, b []byte) {
		end := command.Sizes{1 << 40, 1 << 41}
		points, e := unpackOrder(nil, command.Sizes{out, err}, end, b)
		if e != nil {
			return
		}
		if !command.Rising(points) || !points[len(points)-1].Within(end) {
			t.Fatalf("%v", points)
		}
		again, e := unpackOrder(nil, points[0], end, packOrder(points))
		if e != nil || !slices.Equal(again, points) {
			t.Fatalf("%v came back as %v, %v", points, again, e)
		}
	})
}
