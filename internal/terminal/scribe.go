package terminal

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/session"
)

// Sizes and times of what waits for the journal.
const (
	scribeMost   = 4 << 20 // bytes of recording; beyond that it is cut
	scribeEvents = 1000    // audit entries
	scribeRetry  = time.Second
	saveMost     = 2 * time.Second // who opens a session waits so long at most until that is stored
)

// scribe brings a session to the journal, so that its owner never waits for it: the
// session as it was last, its recording, and what the audit is told. What could not be
// stored is tried again.
type scribe struct {
	live *live
	kick chan struct{} // has an element when something waits; capacity 1
	quit chan struct{} // closed by end
	done chan struct{} // closed when nothing waits any more, or in vain

	mu      sync.Mutex
	session *session.Session // nil: it is stored as it is
	told    []audit.Entry
	tape    []byte // of the recording, …
	tapeAt  int64  // … of which the journal has so much
	lost    bool   // the journal does not take the recording
	wanted  int64  // saves so far, …
	saved   int64  // … of which so many are done
	bell    output.Bell
}

func newScribe(l *live) *scribe {
	s := &scribe{live: l, tapeAt: l.taped, kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	l.asides.Go(func() { s.run(l.ctx) })
	return s
}

func (s *scribe) signal() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// save has the session stored, unless a later version comes first.
func (s *scribe) save(as session.Session) {
	s.mu.Lock()
	s.session = &as
	s.wanted++
	s.mu.Unlock()
	s.signal()
}

// settle waits for a moment until what save was called for is stored.
func (s *scribe) settle(ctx context.Context) {
	most := time.NewTimer(saveMost)
	defer most.Stop()
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	for {
		rung := s.bell.Rung()
		s.mu.Lock()
		done := s.saved >= wanted
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-rung:
		case <-s.done:
			return
		case <-most.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// tell has the audit told.
func (s *scribe) tell(e audit.Entry) {
	s.mu.Lock()
	if len(s.told) < scribeEvents {
		s.told = append(s.told, e)
	}
	s.mu.Unlock()
	s.signal()
}

// record has more of the recording stored; false where too much of it waits already, or
// the journal does not take it.
func (s *scribe) record(data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost || len(s.tape)+len(data) > scribeMost {
		return false
	}
	s.tape = append(s.tape, data...)
	s.signal()
	return true
}

// run stores what waits until end is called and everything is stored.
func (s *scribe) run(ctx context.Context) {
	defer close(s.done)
	quit := s.quit
	for {
		err := s.write(ctx)
		kick, again := s.kick, (<-chan time.Time)(nil)
		switch {
		case err == nil && quit == nil:
			return
		case err != nil:
			if ctx.Err() == nil {
				s.live.set.log.Warn("a session could not be stored for now", "session", s.live.id, "error", err)
			}
			kick, again = nil, time.After(scribeRetry)
		}
		select {
		case <-kick:
		case <-again:
		case <-quit:
			quit = nil
		case <-ctx.Done():
			return
		}
	}
}

// write stores what waits now.
func (s *scribe) write(ctx context.Context) error {
	s.mu.Lock()
	as, told, tape, at, wanted := s.session, s.told, s.tape, s.tapeAt, s.wanted
	s.session, s.told = nil, nil
	s.mu.Unlock()
	ctx, stop := context.WithTimeout(ctx, storeMost)
	defer stop()
	l := s.live
	var tapeErr error
	if len(tape) > 0 {
		tapeErr = l.set.journal.AppendRecording(ctx, l.id, at, tape)
		s.mu.Lock()
		switch kind := fault.KindOf(tapeErr); {
		case tapeErr == nil:
			s.tape, s.tapeAt = slices.Clone(s.tape[len(tape):]), at+int64(len(tape))
		case kind == fault.Aborted, kind == fault.DataLoss, kind == fault.NotFound:
			s.lost, s.tape = true, nil
			l.set.log.Error("a recording cannot go on", "session", l.id, "error", tapeErr)
		}
		s.mu.Unlock()
	}
	var err error
	switch {
	case as != nil:
		err = l.set.journal.SaveSession(ctx, *as, told...)
	case len(told) > 0:
		err = l.set.journal.Record(ctx, told...)
	}
	if fault.KindOf(err) == fault.Aborted && err != nil {
		l.set.log.Error("another one has stored a later version of a session", "session", l.id, "error", err)
		err = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.session == nil {
			s.session = as
		}
		s.told = append(told, s.told...)
		return err
	}
	s.saved = wanted
	s.bell.Ring()
	if tapeErr != nil && !s.lost {
		return tapeErr
	}
	return nil
}

// end stores the session as it is at its end, with what waits, and gives it. over says
// that it has ended, which the audit is told.
func (s *scribe) end(as session.Session, over bool) session.Session {
	if over {
		s.tell(ended(&as))
	}
	s.save(as)
	close(s.quit)
	most := time.NewTimer(storeMost)
	defer most.Stop()
	select {
	case <-s.done:
	case <-most.C:
		s.live.set.log.Error("the end of a session could not be stored", "session", s.live.id)
	}
	return as
}
