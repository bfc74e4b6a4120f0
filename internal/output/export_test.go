package output

// Forms is what is looked for of a value.
var Forms = forms

// MostStates is the bound of an automaton.
const MostStates = mostStates

// States is how many states the redaction has.
func (r *Redaction) States() int { return len(r.find.label) }

// Held is how many bytes the stream holds back.
func (s *RedactedStream) Held() int { return len(s.buf) - s.start }

// MostPoints is how many waypoints may wait for the store.
const MostPoints = mostPoints

// Waypoints is how many waypoints the log has in memory.
func (l *Log) Waypoints() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.order.points)
}
