package chaos

import (
	"fmt"
	"slices"
	"strings"
)

// rules are all that a record is held against.
var rules = []struct {
	name  string
	check func(*Record, []Fault) []string
}{
	{"one id", (*Record).checkAnswers},
	{"one start", (*Record).checkStarts},
	{"true end", (*Record).checkEnd},
	{"one end", (*Record).checkOneEnd},
	{"watchers", (*Record).checkWatches},
	{"stored output", (*Record).checkStored},
	{"agreement", (*Record).checkAgreement},
	{"durability", (*Record).checkDurability},
	{"left on the host", (*Record).checkLeft},
}

// mostOfARule is how many breaches of one rule are told of a command: the same
// thing seen by all its watchers is no news.
const mostOfARule = 3

// Check gives what the record shows to be wrong; nothing where all is well. All
// faults of the run are given, and those that the command may have felt count.
func (r *Record) Check(faults []Fault) (violations []string) {
	if r.id == "" {
		return []string{"one id: no request was ever answered"}
	}
	for _, rule := range rules {
		found := rule.check(r, faults)
		for i, what := range found {
			if i == mostOfARule {
				violations = append(violations, fmt.Sprintf("%s: … and %d more like that", rule.name, len(found)-i))
				break
			}
			violations = append(violations, rule.name+": "+what)
		}
	}
	return violations
}

// felt reports whether a fault met the command's life for which is gives true.
func (r *Record) felt(faults []Fault, is func(Fault) bool) bool {
	return slices.ContainsFunc(faults, func(f Fault) bool { return f.meets(r.Host, r.begun, r.over) && is(f) })
}

func (r *Record) checkAnswers([]Fault) (found []string) {
	for _, id := range r.answers {
		if id != r.id {
			found = append(found, fmt.Sprintf("the same request gave %s and %s", r.id, id))
		}
	}
	return found
}

func (r *Record) checkStarts([]Fault) []string {
	least := 1
	switch r.Status.State {
	case "CANCELLED", "TIMED_OUT", "LOST":
		least = 0 // it may have been over before it wrote its line
	case "FAILED":
		if r.Status.Reason != "SIGNALLED" {
			least = 0
		}
	}
	if r.Starts < least || r.Starts > 1 {
		return []string{fmt.Sprintf("the host has seen %d starts of a command that ended as %s", r.Starts, r.Status)}
	}
	return nil
}

// notStarted are the reasons of a command that could not be started.
var notStarted = []string{
	"HOST_UNREACHABLE", "CONNECT_TIMEOUT", "CONNECTION_REFUSED", "HANDSHAKE_FAILED", "CHANNEL_REFUSED", "EXEC_REFUSED", "CONNECTION_LOST",
}

// NotStarted reports whether it ended without a start, for a reason that the
// faults explain.
func (r *Record) NotStarted(faults []Fault) bool {
	s := r.Status
	if s.State != "FAILED" || r.Starts > 0 {
		return false
	}
	if s.Reason == "NO_SPACE" || s.Reason == "NOT_DURABLE" {
		return r.felt(faults, func(f Fault) bool { return f.Kind == FillDisk })
	}
	return slices.Contains(notStarted, s.Reason) && r.felt(faults, func(f Fault) bool { return f.Host != "" && f.breaksLink() })
}

// Lost reports whether it ended as LOST and had the right to.
func (r *Record) Lost(faults []Fault) bool {
	return r.Status.State == "LOST" && r.Attached && r.felt(faults, Fault.breaksLink)
}

func (r *Record) checkEnd(faults []Fault) []string {
	s := r.Status
	switch {
	case !s.Ended:
		return []string{fmt.Sprintf("it has not ended: %s", s)}
	case s.State == "COMPLETED" && r.Script.Signal == "" && r.Script.Kind != Endless && s.Code == r.Script.Exit && s.Signal == "",
		s.State == "FAILED" && s.Reason == "SIGNALLED" && r.Script.Signal != "" && s.Signal == r.Script.Signal && s.Code == -1,
		// SSH has no names for some signals, and sshd then tells none.
		s.State == "FAILED" && s.Reason == "SIGNALLED" && r.Script.Signal != "" && s.Signal == "UNKNOWN" && s.Attached:
		return nil
	case s.State == "CANCELLED" && r.Cancel:
		if s.Outcome != "GONE" && s.Outcome != "NEVER_STARTED" && s.Outcome != "ALREADY_ENDED" {
			return []string{fmt.Sprintf("CANCELLED without a proof: %s", s)}
		}
		return nil
	case s.State == "TIMED_OUT" && r.Timeout > 0, r.NotStarted(faults), r.Lost(faults):
		return nil
	}
	want := fmt.Sprintf("exit %d", r.Script.Exit)
	if r.Script.Signal != "" {
		want = "SIG" + r.Script.Signal
	}
	if r.Script.Kind == Endless {
		want = "none of its own"
	}
	return []string{fmt.Sprintf("it ended as %s; its true end is %s (cancelled %t, timeout %v, attached %t)", s, want, r.Cancel, r.Timeout, r.Attached)}
}

func (r *Record) checkOneEnd([]Fault) (found []string) {
	var first *Sighting
	streams := make(map[int]bool) // those that have shown an end
	for i := range r.sightings {
		s := &r.sightings[i]
		if s.Ended && (first == nil || s.At < first.At) {
			first = s
		}
		if s.Stream > 0 && streams[s.Stream] && !s.Ended {
			found = append(found, fmt.Sprintf("%s saw it ended and then %s", s.By, s))
		}
		streams[s.Stream] = streams[s.Stream] || s.Ended
	}
	if first == nil {
		return found
	}
	for _, s := range r.sightings {
		switch {
		case s.Ended && s.end() != first.end():
			found = append(found, fmt.Sprintf("two ends: %s (%s at %v) and %s (%s at %v)", first.end(), first.By, first.At, s.end(), s.By, s.At))
		case !s.Ended && s.Asked > first.At:
			found = append(found, fmt.Sprintf("%s asked at %v and saw %s, but it had been seen ended at %v by %s", s.By, s.Asked, s, first.At, first.By))
		}
	}
	return slices.Compact(found)
}

// kept gives how much of a stream must have been kept where it ran to its own
// end; exact is false where any beginning of it will do.
func (r *Record) kept(s Stream) (size int64, exact bool) {
	switch {
	case r.Status.Cut[s] >= 0:
		return r.Status.Cut[s], true
	case r.Status.State == "COMPLETED", r.Status.Reason == "SIGNALLED":
		return r.Script.Size(s), true
	}
	return r.Script.Size(s), false
}

func (r *Record) checkWatches(faults []Fault) (found []string) {
	for _, w := range r.watches {
		// The last bytes that were seen of a lost attached run may not be stored.
		if len(w.Problems) > 0 {
			found = append(found, fmt.Sprintf("%s: %s", w.By, strings.Join(w.Problems, "; ")))
		}
		if !w.Follow {
			continue
		}
		if !w.Done {
			found = append(found, fmt.Sprintf("%s has never seen the end; it is at %v", w.By, w.Next))
			continue
		}
		for _, s := range []Stream{Stdout, Stderr} {
			more := w.Next[s] > r.Status.Size[s] && r.Lost(faults)
			if w.Next[s] != r.Status.Size[s] && w.From[s] <= r.Status.Size[s] && !more {
				found = append(found, fmt.Sprintf("%s: %s: got bytes %d to %d of %d", w.By, s, w.From[s], w.Next[s], r.Status.Size[s]))
			}
		}
	}
	return found
}

func (r *Record) checkStored(faults []Fault) (found []string) {
	if r.Stored == nil {
		return []string{"what is stored could not be read"}
	}
	found = append(found, r.Stored.Problems...)
	for _, s := range []Stream{Stdout, Stderr} {
		size, exact := r.kept(s)
		if got := r.Stored.Next[s]; got > size || exact && got != size {
			found = append(found, fmt.Sprintf("%s: %d bytes stored, %d printed", s, got, size))
		}
		if got, want := sum(r.Stored.sums[s]), r.Script.Sum(s, r.Stored.Next[s]); got != want {
			found = append(found, fmt.Sprintf("%s: SHA-256 %s, want %s", s, got, want))
		}
		if r.Status.Cut[s] >= 0 && !r.felt(faults, func(f Fault) bool { return f.Kind == FillDisk }) {
			found = append(found, fmt.Sprintf("%s: said to be cut at %d, and no disk was full", s, r.Status.Cut[s]))
		}
	}
	return found
}

func (r *Record) checkAgreement([]Fault) (found []string) {
	if r.Status.end() != r.Listed.end() {
		found = append(found, fmt.Sprintf("GetStatus tells %s, ListCommands %s", r.Status.end(), r.Listed.end()))
	}
	if r.Stored != nil && r.Stored.Next != r.Status.Size {
		found = append(found, fmt.Sprintf("GetStatus tells %v bytes, StreamOutput gives %v", r.Status.Size, r.Stored.Next))
	}
	return found
}

func (r *Record) checkDurability(faults []Fault) []string {
	if r.Status.Attached && !r.Attached && !r.felt(faults, func(f Fault) bool { return f.Kind == FillDisk }) {
		return []string{"it was made an attached run, although its host can keep it"}
	}
	return nil
}

func (r *Record) checkLeft([]Fault) []string { return r.Left }
