package command_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/telexec/telexec/internal/command"
)

func TestPath(t *testing.T) {
	// o o e e e o e o o, and one waypoint more, that a log which begins anew makes
	// where it was not needed.
	p := command.Path{Points: []command.Sizes{{}, {2, 3}, {3, 4}, {4, 4}}, End: command.Sizes{5, 4}}
	const came = "ooeeeoeoo"
	until := map[command.Stream][]int64{command.Stdout: {2, 2, 3, 4, 5}, command.Stderr: {3, 3, 3, 4}}
	var at command.Sizes
	for position := range int64(len(came)) {
		if got := p.At(position); got != at {
			t.Errorf("At(%d) is %v, want %v", position, got, at)
		}
		s := command.Stdout
		if came[position] == 'e' {
			s = command.Stderr
		}
		if !p.Holds(s, at[s]) {
			t.Fatalf("it does not hold %d of %s", at[s], s)
		}
		if got, to := p.Place(s, at[s]); got != position || to != until[s][at[s]] {
			t.Errorf("%s at %d: position %d up to %d, want %d up to %d", s, at[s], got, to, position, until[s][at[s]])
		}
		at[s]++
	}
	if p.At(9) != p.End || p.Holds(command.Stdout, 5) || p.Holds(command.Stderr, 4) {
		t.Errorf("the end: At %v", p.At(9))
	}
	later := command.Path{Points: p.Points[2:], End: p.End}
	if later.Holds(command.Stdout, 2) || !later.Holds(command.Stdout, 3) || later.Holds(command.Stderr, 3) {
		t.Error("a stretch holds what lies before it")
	}
	if (&command.Path{}).Holds(command.Stdout, 0) {
		t.Error("an empty stretch holds something")
	}
}

func TestRising(t *testing.T) {
	for _, c := range []struct {
		points []command.Sizes
		want   bool
	}{
		{nil, true},
		{[]command.Sizes{{0, 0}}, true},
		{[]command.Sizes{{0, 1}, {0, 2}, {1, 2}, {3, 3}}, true},
		{[]command.Sizes{{1, 1}, {1, 1}}, false},
		{[]command.Sizes{{1, 1}, {2, 0}}, false},
		{[]command.Sizes{{1, 1}, {0, 2}}, false},
		{[]command.Sizes{{-1, 1}}, false},
		{[]command.Sizes{{1, -1}}, false},
	} {
		if got := command.Rising(c.points); got != c.want {
			t.Errorf("%v: %v", c.points, got)
		}
	}
}

// A stretch is made of what is stored and what is known besides.
func TestNewPath(t *testing.T) {
	points := func(p ...command.Sizes) []command.Sizes { return p }
	end := command.Sizes{9, 9}
	for _, c := range []struct {
		name          string
		position      int64
		stored, known []command.Sizes
		limit         int
		points        []command.Sizes
		end           command.Sizes
	}{
		{"nothing is stored", 4, nil, nil, 3, points(command.Sizes{}), end},
		{"the first one lies behind", 4, points(command.Sizes{3, 3}), nil, 3, points(command.Sizes{}, command.Sizes{3, 3}), end},
		{"the first one lies there", 6, points(command.Sizes{3, 3}), nil, 3, points(command.Sizes{3, 3}), end},
		{"more is known", 6, points(command.Sizes{3, 3}), points(command.Sizes{4, 4}), 3, points(command.Sizes{3, 3}, command.Sizes{4, 4}), end},
		{"there may be more", 6, points(command.Sizes{3, 3}, command.Sizes{4, 4}), points(command.Sizes{8, 8}), 2,
			points(command.Sizes{3, 3}, command.Sizes{4, 4}), command.Sizes{4, 4}},
	} {
		p := command.NewPath(c.position, c.stored, c.limit, c.known, end)
		if !slices.Equal(p.Points, c.points) || p.End != c.end {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

// Places and positions are each other's inverse, whatever the waypoints.
func FuzzPath(f *testing.F) {
	f.Add(uint64(1), uint8(5))
	f.Add(uint64(2), uint8(0))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		next := func(p command.Sizes) command.Sizes {
			p[command.Stdout] += int64(r.IntN(4))
			p[command.Stderr] += int64(r.IntN(4))
			return p
		}
		path := command.Path{Points: []command.Sizes{next(command.Sizes{})}}
		for range n {
			if p := next(path.Points[len(path.Points)-1]); p != path.Points[len(path.Points)-1] {
				path.Points = append(path.Points, p)
			}
		}
		path.End = next(path.Points[len(path.Points)-1])
		if !command.Rising(path.Points) {
			t.Fatalf("%v does not rise", path.Points)
		}
		at := path.Points[0]
		for position := at.Position(); position < path.End.Position(); position++ {
			if got := path.At(position); got != at {
				t.Fatalf("%+v: At(%d) is %v, want %v", path, position, got, at)
			}
			here := 0
			for _, s := range command.Streams {
				if !path.Holds(s, at[s]) {
					continue
				}
				if p, until := path.Place(s, at[s]); p == position {
					if until <= at[s] {
						t.Fatalf("%+v: %s at %d is up to %d", path, s, at[s], until)
					}
					at[s]++
					here++
				} else if p < position {
					t.Fatalf("%+v: %s at %d has position %d, which was told before %d", path, s, at[s], p, position)
				}
			}
			if here != 1 {
				t.Fatalf("%+v: %d bytes have position %d", path, here, position)
			}
		}
	})
}
