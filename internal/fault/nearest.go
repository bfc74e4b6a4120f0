package fault

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// Nearest gives the known names that name was most likely meant to be, the best
// first, at most three; none when nothing is close. It is for hints: "did you
// mean …".
func Nearest(name string, known iter.Seq[string]) []string {
	type candidate struct {
		name string
		away int
	}
	// A third of the letters may be wrong: "grcp_addr" is grpc_addr, "web9" is
	// web1, but two short names that share nothing are not alike.
	limit := max(1, len(name)/3)
	var near []candidate
	for k := range known {
		away := distance(strings.ToLower(name), strings.ToLower(k), limit)
		if away > limit && len(name) >= 3 && strings.Contains(k, name) {
			away = limit // a part of the name was given
		}
		if away <= limit && away < max(len(name), len(k)) {
			near = append(near, candidate{k, away})
		}
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.away, b.away), cmp.Compare(a.name, b.name))
	})
	var names []string
	for _, c := range near[:min(len(near), 3)] {
		if c.away <= near[0].away+1 {
			names = append(names, c.name)
		}
	}
	return names
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that make b of a (optimal string alignment), in bytes. It may give
// any number above limit when there are more than limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
