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
	endRetry     = 3 * time.Second // for the end of a session without the rest of its recording; longer than scribeRetry
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
	tapeAt  int64  // … of which the journal has so much, …
	until   int64  // … with all output before this offset, …
	taped   int64  // … of which the journal has that before this one
	lost    bool   // the journal does not take the recording
	through bool   // run stores nothing more
	wanted  int64  // saves so far, …
	saved   int64  // … of which so many are done
	bell    output.Bell
}

func newScribe(l *live) *scribe {
	s := &scribe{live: l, tapeAt: l.taped, until: l.s.Output, taped: l.s.Output, kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
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

// tell has the audit told. Where too much waits already, the log is.
func (s *scribe) tell(e audit.Entry) {
	s.mu.Lock()
	full := len(s.told) >= scribeEvents
	if !full {
		s.told = append(s.told, e)
	}
	s.mu.Unlock()
	if full {
		s.untold(e)
	}
	s.signal()
}

// untold tells the log what the audit was not told.
func (s *scribe) untold(entries ...audit.Entry) {
	for _, e := range entries {
		s.live.set.log.Error("what was done in a session could not be written to the audit", "session", e.Session, "kind", e.Kind, "time", e.Time,
			"principal", e.Principal, "origin", e.Origin, "address", e.Address, "call", e.Call, "host", e.Host, "reason", e.Reason, "detail", e.Detail)
	}
}

// record has more of the recording stored, which then has all output before an offset;
// false where too much of it waits already, or the journal does not take it.
func (s *scribe) record(data []byte, until int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost || len(s.tape)+len(data) > scribeMost {
		return false
	}
	s.tape, s.until = append(s.tape, data...), until
	s.signal()
	return true
}

// run stores what waits until end is called and everything is stored. When ctx ends
// before, the log has what the audit was not told.
func (s *scribe) run(ctx context.Context) {
	defer close(s.done)
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.untold(s.told...)
	}()
	quit := s.quit
	for {
		err := s.write(ctx)
		kick, again := s.kick, (<-chan time.Time)(nil)
		switch {
		case err == nil && quit == nil && s.idle():
			return
		case err == nil && quit == nil:
			continue
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
	as, told, tape, at, until, wanted := s.session, s.told, s.tape, s.tapeAt, s.until, s.wanted
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
		case s.lost: // it was given up meanwhile
		case tapeErr == nil:
			s.tape, s.tapeAt, s.taped = slices.Clone(s.tape[len(tape):]), at+int64(len(tape)), until
		case kind == fault.Aborted, kind == fault.DataLoss, kind == fault.NotFound:
			s.lost, s.tape = true, nil
			l.set.log.Error("a recording cannot go on", "session", l.id, "error", tapeErr)
		}
		s.mu.Unlock()
	}
	var err error
	switch as = s.truncated(as); {
	case as != nil:
		err = l.set.journal.SaveSession(ctx, *as, told...)
	case len(told) > 0:
		err = l.set.journal.Record(ctx, told...)
	}
	if fault.KindOf(err) == fault.Aborted && err != nil {
		l.set.log.Error("another one has stored a later version of a session", "session", l.id, "error", err)
		as, err = nil, nil
		if len(told) > 0 { // rather twice than never
			err = l.set.journal.Record(ctx, told...)
		}
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

// truncated says in a session that its recording is lost from where the journal has it.
func (s *scribe) truncated(as *session.Session) *session.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if as == nil || !s.lost || as.Truncated != nil && *as.Truncated <= s.taped {
		return as
	}
	cut, at := *as, s.taped
	cut.Truncated = &at
	return &cut
}

// end stores the session as it is at its end, with what waits, and gives it. over says
// that it has ended, which the audit is told: until that is stored, the session must not
// be taken for one that has, and the next run must not find it open. So it is tried until
// the service stops; lingers is called when it takes long.
func (s *scribe) end(as session.Session, over bool, lingers func()) session.Session {
	if over {
		s.tell(ended(&as))
	}
	s.save(as)
	close(s.quit)
	stored := s.await(storeMost)
	if s.giveUp(&as) && !stored {
		stored = s.await(endRetry)
	}
	if !stored && over {
		s.live.set.log.Error("the end of a session cannot be stored for now", "session", s.live.id)
		lingers()
		select {
		case <-s.done:
			stored = true
		case <-s.live.set.stopping:
			stored = s.await(storeMost)
		}
	}
	if !stored {
		s.live.set.log.Error("the end of a session could not be stored", "session", s.live.id)
	}
	return as
}

// await waits until everything is stored, for so long at most.
func (s *scribe) await(d time.Duration) bool {
	most := time.NewTimer(d)
	defer most.Stop()
	select {
	case <-s.done:
		return true
	case <-most.C:
		return false
	}
}

// giveUp gives up what of the recording is not stored, and reports whether there was such.
// What is missing must be told, even where there is no room for it: the session, as it is
// at its end, says so and is saved anew.
func (s *scribe) giveUp(as *session.Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lost && len(s.tape) == 0 {
		return false
	}
	s.lost, s.tape = true, nil
	if at := s.taped; as.Truncated == nil || *as.Truncated > at {
		s.live.set.log.Warn("a recording is cut", "session", s.live.id, "offset", at)
		as.Truncated = &at
	}
	if !s.through { // else it is stored so: see truncated
		as.Version++
		last := *as
		s.session = &last
		s.wanted++
		s.signal()
	}
	return true
}

// idle reports whether nothing waits: then nothing more is stored.
func (s *scribe) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.through = s.session == nil && len(s.told) == 0 && len(s.tape) == 0
	return s.through
}
