package terminal

// Stats is how many there are just now.
type Stats struct {
	Sessions int // that have not ended
	Viewers  int // attached to them
}

// Stats tells.
func (t *Terminals) Stats() Stats {
	all := t.all()
	s := Stats{Sessions: len(all)}
	for _, l := range all {
		l.mu.Lock()
		s.Viewers += len(l.pub.Viewers)
		l.mu.Unlock()
	}
	return s
}
