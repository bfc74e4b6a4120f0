package output

import "slices"

// automaton finds all of many strings in one pass (Aho and Corasick, "Efficient
// String Matching: An Aid to Bibliographic Search", 1975). Its states are the
// beginnings of the strings; the state after some text is the longest beginning
// that the text ends with.
//
// States are numbered level by level, so that the children of a state follow
// one another and those of the next state come right behind them: a number per
// state says where both begin, and a state takes 11 bytes. Most bytes of a text
// begin nothing; from the root, pairs leaps over them up to three at a time, as
// the searches of Boyer-Moore and Wu-Manber do.
type automaton struct {
	label   []byte   // the byte that leads from a state's parent to it
	child   []uint32 // the children of state v are child[v] to child[v+1]-1
	fail    []uint32 // where to go on when no child fits: the longest other beginning that the text ends with
	longest []uint16 // how long the longest string is that ends here; 0 for none
	levels  []uint32 // the first state of each depth

	root  [256]uint32    // the root's children by their byte; 0 for none
	pairs [1 << 16]uint8 // by two bytes that follow one another: leap and begins
}

// What pairs says. All strings have at least leastForm bytes.
const (
	leap   = 1<<2 - 1 // how far no string begins, when the pair is the third and fourth byte from here
	begins = 1 << 2   // some string begins with the pair
)

// mostStates keeps the states of an automaton within 4 MiB.
const mostStates = 4 << 20 / 11

// newAutomaton makes the automaton of strings that are sorted, each once, and
// have leastForm to 65,535 bytes; nil where it would be too large.
func newAutomaton(sorted []string) *automaton {
	a := &automaton{label: []byte{0}}
	type share struct{ from, to int } // the strings that go through a state
	level, next := []share{{0, len(sorted)}}, []share(nil)
	for depth := 0; len(level) > 0; depth++ {
		a.levels = append(a.levels, uint32(len(a.label)-len(level)))
		next = next[:0]
		for _, g := range level {
			a.child = append(a.child, uint32(len(a.label)))
			ends := 0
			if g.from < g.to && len(sorted[g.from]) == depth {
				ends = depth
				g.from++
			}
			a.longest = append(a.longest, uint16(ends))
			for g.from < g.to {
				c, to := sorted[g.from][depth], g.from+1
				for to < g.to && sorted[to][depth] == c {
					to++
				}
				a.label = append(a.label, c)
				next = append(next, share{g.from, to})
				g.from = to
			}
		}
		if len(a.label) > mostStates {
			return nil
		}
		level, next = next, level
	}
	a.child = append(a.child, uint32(len(a.label)))
	a.label, a.child, a.longest = slices.Clone(a.label), slices.Clone(a.child), slices.Clone(a.longest)

	for v := a.child[0]; v < a.child[1]; v++ {
		a.root[a.label[v]] = v
	}
	a.fail = make([]uint32, len(a.label))
	for u := 1; u < len(a.label); u++ {
		for v := a.child[u]; v < a.child[u+1]; v++ {
			a.fail[v] = a.next(a.fail[u], a.label[v])
			a.longest[v] = max(a.longest[v], a.longest[a.fail[v]])
		}
	}

	for i := range a.pairs {
		a.pairs[i] = leastForm - 1
	}
	for _, s := range sorted {
		for i := range leastForm - 1 {
			p := &a.pairs[pair(s[i], s[i+1])]
			*p = *p&^leap | min(*p&leap, uint8(leastForm-2-i))
		}
		a.pairs[pair(s[0], s[1])] |= begins
	}
	return a
}

func pair(x, y byte) uint16 { return uint16(x)<<8 | uint16(y) }

// next gives the state after one more byte.
func (a *automaton) next(state uint32, c byte) uint32 {
	for state != 0 {
		for v := a.child[state]; v < a.child[state+1]; v++ {
			if a.label[v] == c {
				return v
			}
		}
		state = a.fail[state]
	}
	return a.root[c]
}

// skip gives the next place from i on where a string may begin, for a text that
// is at the root at i, which is not its end. Nor is what it gives: of the last
// bytes it says nothing.
func (a *automaton) skip(text []byte, i int) int {
	for i+leastForm <= len(text) {
		four := text[i : i+leastForm : i+leastForm]
		if far := a.pairs[pair(four[2], four[3])] & leap; far > 0 {
			i += int(far)
			continue
		}
		if a.pairs[pair(four[0], four[1])]&begins != 0 {
			break
		}
		i++
	}
	return i
}

// depth is how many bytes of text lead from the root to the state.
func (a *automaton) depth(state uint32) int {
	d, exact := slices.BinarySearch(a.levels, state)
	if !exact {
		d--
	}
	return d
}
