package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/session"
)

// How a session.Session lies in its table, and what is done with it. As with a
// command, the columns of one kind, the values for them and the places they are read
// into stand in the same order.

// purposeNonce is what a session's nonce is sealed for, bound to the session.
const purposeNonce = "session nonce"

// sessionFixed are the columns of session that only CreateSession writes.
var sessionFixed = []string{
	"id", "name", "host", "principal", "origin", "create_time",
	"asked_shell", "asked_term", "asked_columns", "asked_rows", "asked_keeper", "idle_timeout", "labels",
}

func sessionFixedValues(s *session.Session) []any {
	return []any{
		s.ID, s.Spec.Name, s.Spec.Host, s.CreatedBy.Principal, string(s.CreatedBy.Origin), micros(s.CreateTime),
		s.Spec.Shell, s.Spec.Term, int64(s.Spec.Size.Columns), int64(s.Spec.Size.Rows), string(s.Spec.Keeper),
		int64(s.Spec.IdleTimeout), packMap(s.Spec.Labels),
	}
}

// sessionChanging are those that every SaveSession writes.
var sessionChanging = []string{
	"version", "state", "open_time", "end_time", "last_activity", "expire_time",
	"shell", "completion", "keeper", "keeper_reason", "connection", "columns", "rows", "title", "output",
	"end_reason", "end_message", "end_hint", "exit_code", "nonce", "sole", "recorded", "truncated",
}

func sessionChangingValues(s *session.Session, key *seal.Key) []any {
	v := []any{
		s.Version, string(s.State), micros(s.OpenTime), micros(s.EndTime), micros(s.LastActivity), micros(s.ExpireTime),
		s.Shell, string(s.Completion), string(s.Keeper), s.KeeperReason, string(s.Connection),
		int64(s.Size.Columns), int64(s.Size.Rows), s.Title, s.Output,
	}
	if f := s.End; f != nil {
		v = append(v, f.Reason, f.Message, f.Hint)
	} else {
		v = append(v, nil, nil, nil)
	}
	if s.Exit != nil {
		v = append(v, int64(*s.Exit))
	} else {
		v = append(v, nil)
	}
	if s.Nonce != "" {
		v = append(v, key.Seal(purposeNonce, []byte(s.Nonce), []byte(s.ID)))
	} else {
		v = append(v, nil)
	}
	v = append(v, s.Sole, s.Recorded)
	if s.Truncated != nil {
		return append(v, *s.Truncated)
	}
	return append(v, nil)
}

// selectSession reads whole sessions; what they are of follows, under the name s.
var selectSession = "SELECT " + qualified("s", sessionFixed) + ", " + qualified("s", sessionChanging) + " FROM "

// sessionOf finds the id that a reference means: an id, else the name of the one that
// has not ended, else the newest of that name.
const sessionOf = `coalesce((SELECT id FROM session WHERE id = ?1),
	(SELECT id FROM session WHERE name = ?1 AND state <> '` + string(session.Ended) + `'),
	(SELECT id FROM session WHERE name = ?1 ORDER BY id DESC LIMIT 1))`

// scanSession reads one row of selectSession. What no Session can be is damage. A
// nonce that the key does not open was sealed with another one: the rest is as it was.
func scanSession(scan func(dest ...any) error, key *seal.Key) (session.Session, error) {
	var (
		s                                             session.Session
		created, opened, ended, active, expires, idle int64
		askedColumns, askedRows, columns, rows        int64
		reason, message, hint                         sql.NullString
		exit, truncated                               sql.NullInt64
		labels, nonce                                 []byte
	)
	err := scan(
		&s.ID, &s.Spec.Name, &s.Spec.Host, &s.CreatedBy.Principal, &s.CreatedBy.Origin, &created,
		&s.Spec.Shell, &s.Spec.Term, &askedColumns, &askedRows, &s.Spec.Keeper, &idle, &labels,

		&s.Version, &s.State, &opened, &ended, &active, &expires,
		&s.Shell, &s.Completion, &s.Keeper, &s.KeeperReason, &s.Connection, &columns, &rows, &s.Title, &s.Output,
		&reason, &message, &hint, &exit, &nonce, &s.Sole, &s.Recorded, &truncated,
	)
	if err != nil {
		if !ofDatabase(err) {
			err = damagedSession(s.ID, err) // a value that its column cannot have
		}
		return s, err
	}
	s.CreateTime, s.OpenTime, s.EndTime = moment(created), moment(opened), moment(ended)
	s.LastActivity, s.ExpireTime = moment(active), moment(expires)
	s.Spec.IdleTimeout = time.Duration(idle)
	s.Spec.Size = session.Size{Columns: int(askedColumns), Rows: int(askedRows)}
	s.Size = session.Size{Columns: int(columns), Rows: int(rows)}
	if reason.Valid {
		s.End = &command.Failure{Reason: reason.String, Message: message.String, Hint: hint.String}
	}
	if exit.Valid {
		code := int(exit.Int64)
		s.Exit = &code
	}
	if truncated.Valid {
		s.Truncated = &truncated.Int64
	}
	if len(nonce) > 0 {
		if plain, err := key.Open(purposeNonce, nonce, []byte(s.ID)); err == nil {
			s.Nonce = string(plain)
		}
	}
	s.Spec.Labels, err = unpackMap(labels)
	if !slices.Contains(session.States, s.State) {
		err = errors.Join(err, errors.New("unknown state "+string(s.State)))
	}
	if err != nil {
		return s, damagedSession(s.ID, err)
	}
	return s, nil
}

// CreateSession is store.Store's.
func (s *Store) CreateSession(ctx context.Context, one session.Session, told audit.Entry) error {
	const op = "sqlite.CreateSession"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	values := append(sessionFixedValues(&one), sessionChangingValues(&one, s.key)...)
	return failed(op, s.writer.do(ctx, 0, func() error { return s.writer.createSession(&one, values, told) }))
}

// createSession runs on the writer's goroutine. Whatever can refuse comes before the
// first thing written.
func (w *writer) createSession(s *session.Session, values []any, told audit.Entry) error {
	ctx := context.Background()
	if !s.Ended() {
		var other string
		err := w.sessionOpen.QueryRowContext(ctx, s.Spec.Name).Scan(&other)
		if err == nil {
			return fault.New(fault.AlreadyExists, fault.ReasonSessionExists, "a session named %q is open", s.Spec.Name).
				WithHint("Choose another name, close that session first, or ask to reuse it").With("session", s.Spec.Name)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	r, err := w.insertSession.ExecContext(ctx, values...)
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return fault.New(fault.Internal, fault.ReasonInternal, "there is a session %q already", s.ID)
	}
	return w.tell(ctx, told)
}

// SaveSession is store.Store's.
func (s *Store) SaveSession(ctx context.Context, one session.Session, told ...audit.Entry) error {
	const op = "sqlite.SaveSession"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	values := append(sessionChangingValues(&one, s.key), one.ID, one.Version, one.Ended())
	told = slices.Clone(told) // the writer may still work on it when ctx has ended this call
	return failed(op, s.writer.do(ctx, 0, func() error { return s.writer.saveSession(&one, values, told) }))
}

// saveSession runs on the writer's goroutine.
func (w *writer) saveSession(s *session.Session, values []any, told []audit.Entry) error {
	ctx := context.Background()
	r, err := w.updateSession.ExecContext(ctx, values...)
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return w.notSaved(ctx, s)
	}
	return w.tell(ctx, told...)
}

// notSaved finds out why a compare-and-set met no row.
func (w *writer) notSaved(ctx context.Context, s *session.Session) error {
	var version int64
	var state session.State
	err := w.sessionVersion.QueryRowContext(ctx, s.ID).Scan(&version, &state)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return unknownSession(s.ID)
	case err != nil:
		return err
	}
	return fault.New(fault.Aborted, fault.ReasonInternal, "session %s was changed meanwhile: it is %s with version %d; this is %s with %d", s.ID, state, version, s.State, s.Version).
		WithHint("Read the session again and decide anew").With("session", s.ID)
}

// Session is store.Store's.
func (s *Store) Session(ctx context.Context, ref string) (session.Session, error) {
	const op = "sqlite.Session"
	leave, err := s.enter(op)
	if err != nil {
		return session.Session{}, err
	}
	defer leave()
	one, err := scanSession(s.getSession.QueryRowContext(ctx, ref).Scan, s.key)
	if errors.Is(err, sql.ErrNoRows) {
		err = unknownSession(ref)
	}
	if err != nil {
		return session.Session{}, failed(op, err)
	}
	return one, nil
}

// Sessions is store.Store's. A damaged one is left out and logged.
func (s *Store) Sessions(ctx context.Context, f session.Filter) ([]session.Session, error) {
	const op = "sqlite.Sessions"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	list, err := filled(f.Limit, f.Before, func(limit int, before string) ([]session.Session, string, error) {
		f.Limit, f.Before = limit, before
		return s.sessionPage(ctx, f)
	})
	return list, failed(op, err)
}

// sessionPage also gives the id to go on behind, empty where nothing older is left.
func (s *Store) sessionPage(ctx context.Context, f session.Filter) (list []session.Session, last string, err error) {
	text, args, err := sessionInquiry(f, s.counter(ctx)).compose()
	if err != nil {
		return nil, "", err
	}
	find, done, err := s.lists.prepared(ctx, s.read, selectSession+"("+text+") q CROSS JOIN session s ON s.id = q.id ORDER BY s.id DESC")
	if err != nil {
		return nil, "", err
	}
	defer done()
	rows, err := find.QueryContext(ctx, args...)
	if err != nil {
		return nil, "", err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		one, err := scanSession(rows.Scan, s.key)
		last = one.ID
		if _, damage := errors.AsType[*fault.Error](err); damage {
			s.log.Warn("a list leaves out a damaged session", "session", one.ID, "error", err)
			continue
		}
		if err != nil {
			return nil, "", err
		}
		list = append(list, one)
	}
	if n < f.Limit {
		last = ""
	}
	return list, last, rows.Err()
}

func sessionInquiry(f session.Filter, count func(text string, args []any) (int, error)) *inquiry {
	in := &inquiry{everything: walk{from: "session s", where: "1", id: "s.id"}, limit: f.Limit, count: count}
	states := make([]string, len(f.States))
	for i, state := range f.States {
		states[i] = string(state)
	}
	in.asksAny(bySession("state"), "s.state", states)
	for _, c := range []struct{ name, value string }{{"name", f.Name}, {"principal", f.Principal}, {"host", f.Host}} {
		if c.value != "" {
			in.asks(bySession(c.name), c.value)
		}
	}
	if v := f.Visible; v != nil {
		in.asksOneOf(
			group{bySession("principal"), "s.principal", "", []string{v.Principal}, "+s.principal IN (%s)"},
			group{bySession("host"), "s.host", "", v.Hosts, "+s.host IN (%s)"},
		)
	}
	if f.Before != "" {
		in.below = f.Before
	}
	return in
}

// bySession is the walk of a column of session that has an index of its name.
func bySession(column string) walk {
	return walk{from: "session s INDEXED BY session_" + column, where: "s." + column + " = ?", id: "s.id"}
}
