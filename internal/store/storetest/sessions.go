package storetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// session makes a session that is opening; more sets what a case is about.
func (b *bench) session(more ...func(*session.Session)) session.Session {
	s := session.Session{
		ID: newID(b.now), Version: 1, State: session.Opening,
		Spec:       session.Spec{Host: "web1"},
		CreatedBy:  command.Actor{Principal: "deploy", Origin: command.OriginGRPC},
		CreateTime: b.now, LastActivity: b.now,
	}
	s.Spec.Name = "s" + strings.ToLower(s.ID[20:])
	for _, f := range more {
		f(&s)
	}
	b.now = b.now.Add(time.Second)
	return s
}

func named(name string) func(*session.Session) {
	return func(s *session.Session) { s.Spec.Name = name }
}

// opened is what the audit is told of a new session.
func opened(s session.Session) audit.Entry {
	return audit.Entry{Time: s.CreateTime, Kind: audit.SessionOpened, Principal: s.CreatedBy.Principal, Host: s.Spec.Host, Subject: s.Spec.Name}
}

func (b *bench) begin(s session.Session) session.Session {
	b.Helper()
	b.must(b.CreateSession(b.Context(), s, opened(s)))
	return s
}

// moved saves a session in another state and gives it as it is then.
func (b *bench) moved(s session.Session, to session.State) session.Session {
	b.Helper()
	s.Version, s.State = s.Version+1, to
	if s.Ended() {
		s.EndTime = b.now
	}
	b.must(b.SaveSession(b.Context(), s))
	return s
}

// is requires that a reference means a session, as it is.
func (b *bench) is(ref string, want session.Session) {
	b.Helper()
	got, err := b.Session(b.Context(), ref)
	b.must(err)
	b.sameSession(got, want)
}

func (b *bench) sameSession(got, want session.Session) {
	b.Helper()
	for _, s := range []*session.Session{&got, &want} {
		for _, t := range []*time.Time{&s.CreateTime, &s.OpenTime, &s.EndTime, &s.LastActivity, &s.ExpireTime} {
			*t = t.UTC().Truncate(time.Microsecond)
		}
		if len(s.Spec.Labels) == 0 {
			s.Spec.Labels = nil
		}
	}
	want.Viewers, want.Keyboard, want.Current = nil, "", ""
	if !reflect.DeepEqual(got, want) {
		b.Fatalf("session differs\n got %s\nwant %s", text(got), text(want))
	}
}

// sessionFields fills every field of a session by reflection, so that a field that is
// added later and forgotten in a driver fails here.
func sessionFields(b *bench) {
	full := func(seed int64) session.Session {
		var s session.Session
		fill(b, reflect.ValueOf(&s).Elem(), &seed)
		return s
	}
	first := full(1)
	first.ID, first.State = newID(first.CreateTime), session.Opening
	b.begin(first)
	b.pause()
	b.is(first.ID, first)
	b.is(first.Spec.Name, first)

	second := full(1000)
	second.ID, second.State = first.ID, session.Open
	b.must(b.SaveSession(b.Context(), second))
	b.pause()
	second.Spec, second.CreatedBy, second.CreateTime = first.Spec, first.CreatedBy, first.CreateTime
	b.is(first.ID, second)
	list, err := b.Sessions(b.Context(), session.Filter{Limit: 10})
	b.must(err)
	if len(list) != 1 {
		b.Fatalf("%d sessions are listed, want 1", len(list))
	}
	b.sameSession(list[0], second)

	// All that can go is gone again, and what is nothing is told from what is zero.
	third := session.Session{ID: first.ID, Version: second.Version + 1, State: session.Closing}
	b.must(b.SaveSession(b.Context(), third))
	b.pause()
	third.Spec, third.CreatedBy, third.CreateTime = first.Spec, first.CreatedBy, first.CreateTime
	b.is(first.ID, third)
	last := third
	var none int
	var begin int64
	last.Version, last.State, last.End, last.Exit, last.Truncated = last.Version+1, session.Ended, &command.Failure{}, &none, &begin
	b.must(b.SaveSession(b.Context(), last))
	b.pause()
	b.is(first.ID, last)

	bare := session.Session{ID: newID(b.now), State: session.Opening, Spec: session.Spec{Name: "bare"}}
	b.begin(bare)
	b.pause()
	b.is("bare", bare)
}

// sessionNames has names that are open once, and names of those that have ended.
func sessionNames(b *bench) {
	ctx := b.Context()
	_, err := b.Session(ctx, "build")
	b.fails(err, fault.NotFound, fault.ReasonUnknownSession)
	first := b.begin(b.session(named("build")))
	b.pause()
	taken := func() {
		b.Helper()
		told := b.chain()
		other := b.session(named("build"))
		e := b.fails(b.CreateSession(ctx, other, opened(other)), fault.AlreadyExists, fault.ReasonSessionExists)
		if e.Hint == "" || e.Metadata["session"] != "build" {
			b.Fatalf("%+v", e)
		}
		_, err := b.Session(ctx, other.ID)
		b.fails(err, fault.NotFound, fault.ReasonUnknownSession)
		b.tells(told)
	}
	for _, state := range []session.State{session.Open, session.Closing} {
		taken()
		first = b.moved(first, state)
		b.pause()
	}
	taken()
	another := b.begin(b.session(named("Build"))) // names are told apart to the letter
	first = b.moved(first, session.Ended)
	b.pause()
	b.is("build", first)

	// The newest of those that have ended, whatever was saved last.
	second := b.moved(b.begin(b.session(named("build"))), session.Ended)
	old := b.moved(b.begin(b.session(named("build"), func(s *session.Session) { s.ID = newID(b.now.Add(-time.Hour)) })), session.Ended)
	b.pause()
	b.is("build", second)
	b.is(old.ID, old)
	// One that has not ended comes before all of them, were it older.
	open := b.begin(b.session(named("build"), func(s *session.Session) { s.ID = newID(b.now.Add(-2 * time.Hour)) }))
	b.pause()
	b.is("build", open)
	taken()
	b.is(first.ID, first)
	b.is("Build", another)
	// A session that is stored when it is over is in nobody's way.
	b.begin(b.session(named("build"), func(s *session.Session) { s.State = session.Ended }))
	b.is("build", open)

	same := b.session(named("other"))
	same.ID = open.ID
	b.fails(b.CreateSession(ctx, same, opened(same)), fault.Internal, "")
	b.is("build", open)
}

// racingSessions has many ask for one name at once.
func racingSessions(b *bench) {
	const callers = 50
	var all [callers]session.Session
	for i := range all {
		all[i] = b.session(named("one"))
	}
	won := -1
	for i, err := range together(callers, func(i int) error { return b.CreateSession(b.Context(), all[i], opened(all[i])) }) {
		if err == nil && won >= 0 {
			b.Fatal("two have the name")
		}
		if err == nil {
			won = i
			continue
		}
		b.fails(err, fault.AlreadyExists, fault.ReasonSessionExists)
	}
	if won < 0 {
		b.Fatal("nobody has the name")
	}
	b.pause()
	b.is("one", all[won])
	if told := b.chain(); len(told) != 1 {
		b.Fatalf("the audit has %d entries", len(told))
	}
}

// sessionVersions saves what is newer than what is stored, and nothing else.
func sessionVersions(b *bench) {
	ctx := b.Context()
	s := b.begin(b.session())
	told := b.chain()
	refused := func(s session.Session) {
		b.Helper()
		e := b.fails(b.SaveSession(ctx, s, b.entry(audit.SessionEnded, "refused")), fault.Aborted, "")
		if e.Hint == "" {
			b.Fatalf("%+v", e)
		}
		b.tells(told)
	}
	wrong := s
	wrong.Title = "wrong"
	for _, wrong.Version = range []int64{s.Version, s.Version - 1, -5} {
		refused(wrong)
	}
	b.pause()
	b.is(s.ID, s)

	s.Version, s.State, s.Title = s.Version+7, session.Open, "right"
	b.must(b.SaveSession(ctx, s, b.entry(audit.SessionTyped, "a"), b.entry(audit.SessionKeyboard, "b")))
	b.pause()
	told = b.tells(told, b.entry(audit.SessionTyped, "a"), b.entry(audit.SessionKeyboard, "b"))
	b.is(s.ID, s)

	// Many at once: whatever order they come in, the newest stays.
	const savers = 20
	for i, err := range together(savers, func(i int) error {
		next := s
		next.Version += 1 + int64(i)
		return b.SaveSession(ctx, next)
	}) {
		if err != nil {
			b.fails(err, fault.Aborted, "")
			if i == savers-1 {
				b.Fatal("the newest was refused")
			}
		}
	}
	s.Version += savers
	b.pause()
	b.is(s.ID, s)

	// An end never changes; what is told of it may.
	s = b.moved(s, session.Ended)
	back := s
	back.Version, back.State = back.Version+1, session.Open
	refused(back)
	s.Version, s.Recorded = s.Version+1, true
	b.must(b.SaveSession(ctx, s))
	b.pause()
	b.is(s.ID, s)

	gone := b.session()
	b.fails(b.SaveSession(ctx, gone, b.entry(audit.SessionEnded, "gone")), fault.NotFound, fault.ReasonUnknownSession)
	b.tells(told)
}

// nonceInClear looks for what a session's marks are known by in the files.
func nonceInClear(b *bench) {
	const nonce = "hush, 0123456789abcdef of a session"
	s := b.begin(b.session(func(s *session.Session) { s.Nonce = nonce }))
	b.must(b.AppendRecording(b.Context(), s.ID, 0, []byte("[0, \"o\", \"hello\"]\n")))
	for _, state := range []session.State{session.Open, session.Closing, session.Ended} {
		b.pause()
		b.hides(nonce, nonce[6:])
		b.is(s.ID, s)
		s = b.moved(s, state)
	}
	s.Nonce = ""
	s = b.moved(s, session.Ended)
	b.pause()
	b.is(s.ID, s)
}

// sessionHistory makes sessions of all kinds.
func (b *bench) sessionHistory(r *rand.Rand, n int) (all []session.Session) {
	for i := range n {
		s := b.begin(b.session(func(s *session.Session) {
			s.Spec.Host = hosts[r.IntN(len(hosts))]
			s.CreatedBy.Principal = principals[r.IntN(len(principals))]
			if i%3 == 0 { // several of one name, of which one at most is open
				s.Spec.Name = "again"
			}
		}))
		state := session.States[r.IntN(len(session.States))]
		if s.Spec.Name == "again" && i < n-3 {
			state = session.Ended
		}
		if state != s.State {
			s = b.moved(s, state)
		}
		all = append(all, s)
	}
	return all
}

func (b *bench) listsSessions(f session.Filter, all []session.Session) {
	b.Helper()
	var want []session.Session
	for _, s := range slices.Backward(all) { // by falling id
		if f.Has(&s) && (f.Before == "" || s.ID < f.Before) && (f.Limit <= 0 || len(want) < f.Limit) {
			want = append(want, s)
		}
	}
	got, err := b.Sessions(b.Context(), f)
	b.must(err)
	if len(got) != len(want) {
		b.Fatalf("%s: %d sessions, want %d", text(f), len(got), len(want))
	}
	for i := range got {
		b.sameSession(got[i], want[i])
	}
}

func sessionLists(b *bench) {
	r := rand.New(rand.NewPCG(21, 22))
	b.listsSessions(session.Filter{Limit: 50}, nil)
	all := b.sessionHistory(r, 40)
	b.pause()
	for _, f := range []session.Filter{
		{}, {Host: "web1"}, {Host: "nowhere"}, {Principal: "agent"}, {Name: "again"}, {Name: "nothing"}, {Name: all[1].Spec.Name},
		{States: []session.State{session.Ended}}, {States: session.States}, {States: []session.State{"NONE"}},
		{States: []session.State{session.Opening, session.Open, session.Closing}, Host: "web2", Principal: "deploy"},
		{Visible: &command.Visible{}}, {Visible: &command.Visible{Principal: "agent"}},
		{Visible: &command.Visible{Principal: "nobody", Hosts: []string{"web1", "db1", "nowhere"}}},
		{Visible: &command.Visible{Principal: "agent", Hosts: []string{"web1"}}, Principal: "deploy", States: []session.State{session.Ended}},
		{Visible: &command.Visible{Principal: "agent", Hosts: manyNames(300)}},
	} {
		for _, f.Limit = range []int{50, 3, 1} {
			b.listsSessions(f, all)
			f.Before = all[len(all)/2].ID
			b.listsSessions(f, all)
			f.Before = ""
		}
		// Page by page it is the same list.
		f.Limit = 4
		for page := []session.Session{{}}; len(page) > 0; {
			b.listsSessions(f, all)
			var err error
			page, err = b.Sessions(b.Context(), f)
			b.must(err)
			if len(page) > 0 {
				f.Before = page[len(page)-1].ID
			}
		}
	}
}

func manyNames(n int) []string {
	names := []string{"db1"}
	for i := range n {
		names = append(names, fmt.Sprint("other", i))
	}
	return names
}

// recorded requires that part of a recording is what was written.
func (b *bench) recorded(id string, offset int64, limit int, want []byte) {
	b.Helper()
	got, err := b.ReadRecording(b.Context(), id, offset, limit)
	b.must(err)
	if !bytes.Equal(got, want) {
		b.Fatalf("at %d: %d bytes %.60q, want %d bytes %.60q", offset, len(got), got, len(want), want)
	}
}

func recordings(b *bench) {
	ctx := b.Context()
	plain := b.begin(b.session())
	s := b.begin(b.session(func(s *session.Session) { s.Recorded = true }))
	b.pause()
	_, err := b.ReadRecording(ctx, plain.ID, 0, 10)
	if e := b.fails(err, fault.NotFound, fault.ReasonNotRecorded); e.Hint == "" {
		b.Fatalf("%+v", e)
	}
	b.recorded(s.ID, 0, 10, nil) // it is to come
	for _, id := range []string{newID(b.now), "", "../x", s.Spec.Name} {
		b.fails(b.AppendRecording(ctx, id, 0, []byte("x")), fault.NotFound, fault.ReasonUnknownSession)
		_, err := b.ReadRecording(ctx, id, 0, 10)
		b.fails(err, fault.NotFound, fault.ReasonUnknownSession)
	}
	for _, wrong := range []struct {
		offset int64
		max    int
	}{{-1, 1}, {0, -1}} {
		_, err := b.ReadRecording(ctx, s.ID, wrong.offset, wrong.max)
		b.fails(err, fault.Invalid, "")
	}

	// Pieces of all sizes, over the borders of whatever a driver cuts it into; in between
	// some that do not begin at the end.
	r := rand.New(rand.NewPCG(23, 24))
	var whole []byte
	add := func(data []byte) {
		b.Helper()
		b.must(b.AppendRecording(ctx, s.ID, int64(len(whole)), data))
		whole = append(whole, data...)
	}
	for i, size := range []int{1, 0, 100, 3995, 1, 60_000, 1438, 1, 70_000, 8192, 300_000, 4 << 20, 1, 65_535, 4<<20 + 77, 2} {
		add(randomBytes(r, size))
		end := int64(len(whole))
		for _, wrong := range []int64{-1, 0, end - 1, end + 1, end + 4<<20} {
			for _, data := range [][]byte{{1, 2, 3}, nil} {
				if wrong == end {
					continue
				}
				e := b.fails(b.AppendRecording(ctx, s.ID, wrong, data), fault.Aborted, "")
				if e.Metadata["recording_bytes"] != strconv.FormatInt(end, 10) || e.Hint == "" {
					b.Fatalf("%+v", e)
				}
			}
		}
		if i%4 == 3 {
			b.pause()
		}
		b.recorded(s.ID, max(0, end-10), 100, whole[max(0, end-10):])
	}
	size := int64(len(whole))
	for range 60 {
		offset := r.Int64N(size + 10)
		limit := r.IntN(1 << r.IntN(24))
		b.recorded(s.ID, offset, limit, whole[min(offset, size):min(offset+int64(limit), size)])
	}
	b.recorded(s.ID, 0, int(^uint(0)>>1), whole)
	b.recorded(s.ID, size-1, int(^uint(0)>>1), whole[size-1:])
	b.recorded(s.ID, int64(^uint64(0)>>1), int(^uint(0)>>1), nil)

	// The last of it comes when the session has ended, and it is there whatever the
	// session then says of itself.
	s = b.moved(s, session.Ended)
	add([]byte("last"))
	s.Recorded = false
	s = b.moved(s, session.Ended)
	b.pause()
	b.recorded(s.ID, size, 10, []byte("last"))
	b.is(s.ID, s)
	_, err = b.ReadRecording(ctx, plain.ID, 0, 10)
	b.fails(err, fault.NotFound, fault.ReasonNotRecorded)
}

// racingRecordings has many append to one recording, each where it believes the end to
// be, and others to their own.
func racingRecordings(b *bench) {
	const writers, pieces = 6, 12
	shared := b.begin(b.session())
	var own [writers]session.Session
	for i := range own {
		own[i] = b.begin(b.session())
	}
	piece := func(i, n int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 1+n*1000) }
	for _, err := range together(writers, func(i int) error {
		var mine, at int64
		for n := 0; n < pieces; {
			err := b.AppendRecording(b.Context(), shared.ID, at, piece(i, n))
			if fault.KindOf(err) == fault.Aborted {
				if at, err = strconv.ParseInt(fault.From(err).Metadata["recording_bytes"], 10, 64); err == nil {
					continue
				}
			}
			if err != nil {
				return err
			}
			if err := b.AppendRecording(b.Context(), own[i].ID, mine, piece(i, n)); err != nil {
				return err
			}
			at, mine, n = at+int64(len(piece(i, n))), mine+int64(len(piece(i, n))), n+1
		}
		return nil
	}) {
		b.must(err)
	}
	b.pause()
	whole, err := b.ReadRecording(b.Context(), shared.ID, 0, 1<<30)
	b.must(err)
	for i, s := range own {
		var want []byte
		for n := range pieces {
			want = append(want, piece(i, n)...)
			if !bytes.Contains(whole, piece(i, n)) {
				b.Fatalf("piece %d of %d is missing", n, i)
			}
		}
		b.recorded(s.ID, 0, 1<<30, want)
		if got := bytes.Count(whole, []byte{byte('a' + i)}); got != len(want) {
			b.Fatalf("writer %d has %d bytes in it, want %d", i, got, len(want))
		}
	}
}

// sessionsGo has retention delete what ended long ago.
func sessionsGo(b *bench) {
	ctx := b.Context()
	record := func(s session.Session) session.Session {
		b.must(b.AppendRecording(ctx, s.ID, 0, []byte("recording of "+s.ID)))
		return s
	}
	var old []session.Session
	for range 5 {
		old = append(old, b.moved(record(b.begin(b.session(named("old")))), session.Ended))
	}
	inIt := b.create(b.command(func(c *command.Command) { c.Spec.Session, c.Spec.SessionID = "old", old[0].ID }))
	open := b.moved(record(b.begin(b.session())), session.Open)
	end := b.now
	b.now = b.now.Add(2 * time.Hour)
	fresh := b.moved(record(b.begin(b.session())), session.Ended)
	b.pause()

	now := end.Add(3 * time.Hour)
	// Without a time to delete after nothing goes.
	if done := b.retain(command.Retention{Now: now.Add(9999 * time.Hour), TrimTo: 1}); done.Sessions != 0 {
		b.Fatalf("retained %s", text(done))
	}
	sum := 0
	for more := true; more; {
		done := b.retain(command.Retention{Now: now, DeleteAfter: 90 * time.Minute, Batch: 2, InUse: func(id string) bool { return id == old[4].ID }})
		if done.Sessions > 2 || done.Deleted+done.Trimmed != 0 {
			b.Fatalf("retained %s", text(done))
		}
		sum, more = sum+done.Sessions, done.More
	}
	if sum != 4 {
		b.Fatalf("%d sessions were deleted, want 4", sum)
	}
	gone := func(s session.Session) {
		b.Helper()
		_, err := b.Session(ctx, s.ID)
		b.fails(err, fault.NotFound, fault.ReasonUnknownSession)
		_, err = b.ReadRecording(ctx, s.ID, 0, 10)
		b.fails(err, fault.NotFound, fault.ReasonUnknownSession)
		b.fails(b.AppendRecording(ctx, s.ID, 0, []byte("x")), fault.NotFound, fault.ReasonUnknownSession)
		b.fails(b.SaveSession(ctx, s), fault.NotFound, fault.ReasonUnknownSession)
	}
	for _, s := range old[:4] {
		gone(s)
	}
	// What was in use goes when it is not any more.
	b.is("old", old[4])
	if done := b.retain(command.Retention{Now: now, DeleteAfter: 90 * time.Minute}); done.Sessions != 1 || done.More {
		b.Fatalf("retained %s", text(done))
	}
	gone(old[4])
	_, err := b.Session(ctx, "old")
	b.fails(err, fault.NotFound, fault.ReasonUnknownSession)
	for _, s := range []session.Session{open, fresh} {
		b.is(s.ID, s)
		b.recorded(s.ID, 0, 100, []byte("recording of "+s.ID))
	}
	// A command goes by its own end, not with the session.
	b.same(b.stored(inIt.ID), inIt)
	b.lists(command.Filter{Session: old[0].ID}, []command.Command{inIt})
}

// sessionCalls calls what is about sessions, each in a way that would succeed.
func (b *bench) sessionCalls(ctx context.Context) []error {
	s := b.session()
	_, one := b.Session(ctx, s.ID)
	_, list := b.Sessions(ctx, session.Filter{Limit: 1})
	_, read := b.ReadRecording(ctx, s.ID, 0, 1)
	return []error{b.CreateSession(ctx, s, opened(s)), b.SaveSession(ctx, s), one, list, b.AppendRecording(ctx, s.ID, 0, []byte("x")), read}
}
