package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Summary is what a run has come to.
type Summary struct {
	Seed       uint64
	Commands   int
	Ends       map[string]int // commands by the end that they had
	Kinds      map[Kind]int
	Durable    int
	Faults     map[FaultKind]int
	Bytes      int64 // of output, stored
	Delivered  int64 // of output, to all watchers
	Watchers   int
	Sightings  int
	Replays    int // requests that were sent again
	Cut        int // commands of whose output the host could not keep all
	NotStarted int // that a fault kept from starting
	Tombstones int // empty files of starts that were tried again
	Violations int
	Took       time.Duration
	Reattached []time.Duration // from the start of the service after a kill -9 until a command was connected
	Late       int             // commands that were not within the limit
}

// Add counts a record. Check must have been asked before.
func (s *Summary) Add(r *Record, faults []Fault) {
	if s.Ends == nil {
		s.Ends, s.Kinds = make(map[string]int), make(map[Kind]int)
	}
	s.Commands++
	s.Ends[r.Status.State]++
	s.Kinds[r.Script.Kind]++
	if !r.Status.Attached {
		s.Durable++
	}
	if r.Status.Cut != [2]int64{-1, -1} {
		s.Cut++
	}
	if r.NotStarted(faults) {
		s.NotStarted++
	}
	if r.Stored != nil {
		s.Bytes += r.Stored.Next[Stdout] + r.Stored.Next[Stderr]
	}
	for _, w := range r.watches {
		s.Watchers++
		s.Delivered += w.Next[Stdout] - w.From[Stdout] + w.Next[Stderr] - w.From[Stderr]
	}
	s.Sightings += len(r.sightings)
	s.Replays += max(0, len(r.answers)-1)
}

// String gives the table.
func (s *Summary) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	faults := 0
	for _, n := range s.Faults {
		faults += n
	}
	row("seed", "%d", s.Seed)
	row("commands", "%d, of them durable %d", s.Commands, s.Durable)
	row("  by kind", "%s", counts(s.Kinds))
	row("  by end", "%s", counts(s.Ends))
	row("  kept from starting by a fault", "%d", s.NotStarted)
	row("  output cut by a full disk, and told", "%d", s.Cut)
	row("faults", "%d", faults)
	row("  by kind", "%s", counts(s.Faults))
	row("output", "%.1f MB stored, %.1f MB to %d watchers", float64(s.Bytes)/1e6, float64(s.Delivered)/1e6, s.Watchers)
	row("sightings", "%d; %d requests sent again", s.Sightings, s.Replays)
	row("tombstones of starts tried again", "%d", s.Tombstones)
	if len(s.Reattached) > 0 || s.Late > 0 {
		row("re-attached after kill -9", "%s; %d not in time", Spread(s.Reattached), s.Late)
	}
	row("wall time", "%v", s.Took.Round(100*time.Millisecond))
	row("violations", "%d", s.Violations)
	w.Flush()
	return b.String()
}

// counts gives "name n" for each, the most frequent first.
func counts[K ~string](m map[K]int) string {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b K) int { return cmp.Or(m[b]-m[a], cmp.Compare(a, b)) })
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = fmt.Sprintf("%s %d", k, m[k])
	}
	return strings.Join(parts, ", ")
}

// Quantile is the time that a share of ds does not exceed, nearest rank; 0 where
// there are none. ds is sorted.
func Quantile(ds []time.Duration, share float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(share*float64(len(ds))))]
}

// Spread gives p50, p99 and the most of ds, which is sorted.
func Spread(ds []time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s, max %s (of %d)", ms(Quantile(ds, 0.5)), ms(Quantile(ds, 0.99)), ms(Quantile(ds, 1)), len(ds))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
