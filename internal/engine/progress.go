package engine

import (
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/output"
)

// What a command's output says about its progress goes from whoever appends the
// output, who only leaves the last of it, to the owner, who tells it.

// progressEvery is how often progress is told at most.
const progressEvery = 200 * time.Millisecond

// seen is the last progress in the output.
type seen struct {
	progress command.Progress
	news     bool // the owner has not told it
}

// newGauge makes the gauge of a stream of which has bytes came before.
func newGauge(has int64) *output.Gauge {
	g := new(output.Gauge)
	if has > 0 {
		g.Skip()
	}
	return g
}

// measure has what g sees in data told. data was masked: a label shows no more than
// the output does.
func (l *live) measure(g *output.Gauge, data []byte) {
	p, news := g.Write(data, time.Now())
	if !news {
		return
	}
	l.mu.Lock()
	waits := l.seen.news
	l.seen = seen{progress: p, news: true}
	l.mu.Unlock()
	if !waits { // else the owner knows
		l.kickOwner()
	}
}

// takeSeen takes the last progress that was seen, where it was not told.
func (l *live) takeSeen() (p command.Progress, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, news = l.seen.progress, l.seen.news
	l.seen.news = false
	return p, news
}

// takeProgress sees to progress that was left for the owner: it is told now, or by
// tellBy where some was told just before.
func (l *live) takeProgress() {
	l.mu.Lock()
	news := l.seen.news
	l.mu.Unlock()
	if !news || l.tellBy != nil {
		return
	}
	if left := time.Until(l.progressTold.Add(progressEvery)); left > 0 {
		l.tellBy = time.After(left)
		return
	}
	l.tellProgress()
}

// tellProgress tells the last progress that was seen. It is no reason to write to the
// journal, which gets it with whatever is written next: it is worth less than that,
// and what comes with the output that it was seen in is on its way anyhow.
func (l *live) tellProgress() {
	l.tellBy = nil
	p, news := l.takeSeen()
	if !news {
		return
	}
	l.progressTold = time.Now()
	unstored := l.unstored
	l.change(func(c *command.Command) { c.Progress = &p })
	l.unstored = unstored
}
