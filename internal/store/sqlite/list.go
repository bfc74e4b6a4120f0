package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// A list walks one index from its newest end and checks the other conditions on
// the rows it meets. Every index has the id behind its own column, so the walk is
// in the order of the list, begins at the page's cursor, and stops when the page
// is full; several states are as many walks, merged. Nothing older is read. Where
// several conditions have an index, each is asked how many commands it has, up to
// probeMost, and the rarest one is walked.
//
// The time of creation needs no index: ids begin with it.

const (
	// probeMost: telling ten from a thousand matters; past that a page fills fast
	// unless conditions exclude each other.
	probeMost = 1000
	// idSlack is how far the time in an id may be from CreateTime, which decides.
	idSlack = time.Minute
	// visibleMost is how many hosts, or roles, have a walk each. SQLite takes 500 walks
	// in one statement; long before, they cost more than they save.
	visibleMost = 100
)

// List is store.Store's.
func (s *Store) List(ctx context.Context, f command.Filter) ([]command.Command, error) {
	const op = "sqlite.List"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	list, err := filled(f.Limit, f.Before, func(limit int, before string) ([]command.Command, string, error) {
		f.Limit, f.Before = limit, before
		return s.page(ctx, f)
	})
	return list, failed(op, err)
}

// filled gives up to most things from behind an id, 0 for all, page by page: damaged rows
// leave gaps, and who gets less than he asked for takes it for the end. A page comes with
// the id to go on behind, empty where nothing older is left.
func filled[T any](most int, before string, page func(limit int, before string) (list []T, last string, err error)) ([]T, error) {
	var list []T
	for {
		some, last, err := page(most-len(list), before)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
		if most <= 0 || len(list) >= most || last == "" {
			return list, nil
		}
		before = last
	}
}

// page finds the ids and reads the rows, both in one transaction, so that every
// row still matches. Nothing is prepared while it holds a connection: all of them
// could be waiting for one more. A damaged row is left out; last is the id to go
// on behind, empty where nothing older is left.
func (s *Store) page(ctx context.Context, f command.Filter) (list []command.Command, last string, err error) {
	in := inquiryOf(f, s.counter(ctx))
	text, args, err := in.compose()
	if err != nil {
		return nil, "", err
	}
	find, done, err := s.lists.prepared(ctx, s.read, text)
	if err != nil {
		return nil, "", err
	}
	defer done()
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, "", err
	}
	defer tx.Rollback() // nothing was written
	ids, err := readIDs(tx.StmtContext(ctx, find).QueryContext(ctx, args...))
	if err != nil {
		return nil, "", err
	}
	get := tx.StmtContext(ctx, s.getOne)
	list = make([]command.Command, 0, len(ids))
	for _, id := range ids {
		c, err := scanCommand(get.QueryRowContext(ctx, id).Scan, s.key)
		// Only scanCommand's damage is a fault yet, and half a record is damage too.
		if _, damage := errors.AsType[*fault.Error](err); damage || errors.Is(err, sql.ErrNoRows) {
			s.log.Warn("a list leaves out a damaged record", "command", id, "error", err)
			continue
		}
		if err != nil {
			return nil, "", err
		}
		list = append(list, c)
	}
	if len(ids) > 0 && len(ids) == f.Limit {
		last = ids[len(ids)-1]
	}
	return list, last, nil
}

func readIDs(rows *sql.Rows, err error) (ids []string, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// counter gives what counts rows for an inquiry.
func (s *Store) counter(ctx context.Context) func(text string, args []any) (int, error) {
	return func(text string, args []any) (n int, err error) {
		stmt, done, err := s.lists.prepared(ctx, s.read, text)
		if err != nil {
			return 0, err
		}
		defer done()
		err = stmt.QueryRowContext(ctx, args...).Scan(&n)
		return n, err
	}
}

// inquiry makes the SQL of a list: of commands, of approvals, of the audit.
type inquiry struct {
	everything   walk        // taken where no condition has an index
	conditions   []condition // all must hold; the rarest one is walked
	checks       []predicate // all must hold; they have no index
	below, least any         // bounds of the id, exclusive and inclusive; nil: none
	limit        int         // 0: none
	count        func(text string, args []any) (int, error)
}

// condition is one thing that a filter asks for and that indexes find.
type condition struct {
	predicate        // on a row that was met otherwise
	walks     []walk // that together find the rows; several may find the same one
	probe     []walk // the same, to be counted only; nil: walks
	sorts     bool   // they are not in order: all the rows are read, so there must be few
}

// predicate is a condition on a row.
type predicate struct {
	text string
	args []any
}

// walk is one run of an index.
type walk struct {
	from  string // table and index
	where string
	args  []any
	id    string // the column that is the id
}

// asks adds a condition that one walk finds, and its own text checks.
func (in *inquiry) asks(w walk, args ...any) {
	w.args = args
	in.conditions = append(in.conditions, condition{predicate: predicate{w.where, args}, walks: []walk{w}})
}

// asksAny adds the condition that a column has one of some values: as many walks.
func (in *inquiry) asksAny(one walk, column string, values []string) {
	if len(values) == 0 {
		return
	}
	values = slices.Sorted(slices.Values(values))
	var c condition
	for _, v := range slices.Compact(values) {
		w := one
		w.args = []any{v}
		c.walks = append(c.walks, w)
		c.args = append(c.args, v)
	}
	c.text = column + " IN (" + placeholders(len(c.args)) + ")"
	in.conditions = append(in.conditions, c)
}

// inquiryOf is the inquiry of a filter of commands.
func inquiryOf(f command.Filter, count func(text string, args []any) (int, error)) *inquiry {
	in := &inquiry{everything: walk{from: "command c", where: "1", id: "c.id"}, limit: f.Limit, count: count}
	for _, name := range slices.Sorted(maps.Keys(f.Labels)) {
		args := []any{name, f.Labels[name]}
		in.conditions = append(in.conditions, condition{
			walks:     []walk{{from: "command_label l CROSS JOIN command c ON c.id = l.command", where: "l.name = ? AND l.value = ?", args: args, id: "l.command"}},
			probe:     []walk{{from: "command_label l", where: "l.name = ? AND l.value = ?", args: args, id: "l.command"}},
			predicate: predicate{"EXISTS (SELECT 1 FROM command_label WHERE name = ? AND value = ? AND command = c.id)", args},
		})
	}
	states := make([]string, len(f.States))
	for i, state := range f.States {
		states[i] = string(state)
	}
	in.asksAny(byColumn("state"), "c.state", states)
	for _, c := range []struct{ name, value string }{
		{"principal", f.Principal}, {"host", f.Host}, {"origin", string(f.Origin)},
	} {
		if c.value != "" {
			in.asks(byColumn(c.name), c.value)
		}
	}
	if f.Session != "" {
		in.asks(walk{from: "command c INDEXED BY command_session", where: "c.session = ?" + inSession, id: "c.id"}, f.Session)
	}
	if f.Task != "" {
		in.asks(walk{from: "command c INDEXED BY command_task", where: "c.task = ?" + inTask, id: "c.id"}, f.Task)
	}
	if v := f.Visible; v != nil {
		// The signs keep SQLite from gathering both by their indexes, and sorting.
		in.asksOneOf(
			group{byColumn("principal"), "c.principal", "", []string{v.Principal}, "+c.principal IN (%s)"},
			group{byColumn("session_owner"), "c.session_owner", owned, []string{v.Principal}, "(+c.session_owner IN (%s)" + owned + ")"},
			group{byColumn("host"), "c.host", "", v.Hosts, "+c.host IN (%s)"},
		)
	}
	// One upper bound only: of two, SQLite seeks to one and walks to the other.
	before := f.Before
	if !f.To.IsZero() {
		in.checks = append(in.checks, predicate{"c.create_time < ?", []any{micros(f.To)}})
		if to := idAt(f.To.Add(idSlack)); before == "" || to < before {
			before = to
		}
	}
	if before != "" {
		in.below = before
	}
	if !f.From.IsZero() {
		in.checks = append(in.checks, predicate{"c.create_time >= ?", []any{micros(f.From)}})
		in.least = idAt(f.From.Add(-idSlack))
	}
	return in
}

// The indexes of what few commands have hold those alone.
const (
	inSession = " AND c.session <> ''"
	inTask    = " AND c.task <> ''"
	owned     = " AND c.session_owner <> ''"
)

// byColumn is the walk of a column of command that has an index of its name.
func byColumn(name string) walk {
	return walk{from: "command c INDEXED BY command_" + name, where: "c." + name + " = ?", id: "c.id"}
}

// group is what an index finds for each of some values, as part of a condition.
type group struct {
	one    walk   // for one of the values
	column string // that has them
	also   string // what holds for whatever is in the index: " AND …"
	values []string
	check  string // on a row met otherwise, with %s for the places of the values
}

// asksOneOf adds the condition that a row is in one of the groups, or in several:
// one walk for each value of each group. Values beyond visibleMost are one walk for
// all of them where there are few such rows; else most of what there is fulfils the
// condition: all is walked and checked.
func (in *inquiry) asksOneOf(groups ...group) {
	var c condition
	var checks []string
	for _, g := range groups {
		values := slices.Compact(slices.Sorted(slices.Values(g.values)))
		if len(values) == 0 {
			continue
		}
		places := placeholders(len(values))
		all := g.one
		all.where = g.column + " IN (" + places + ")" + g.also
		for _, v := range values {
			all.args = append(all.args, v)
		}
		checks = append(checks, strings.Replace(g.check, "%s", places, 1))
		c.args = append(c.args, all.args...)
		c.probe = append(c.probe, all)
		if len(values) > visibleMost {
			c.walks, c.sorts = append(c.walks, all), true
			continue
		}
		for _, v := range values {
			w := g.one
			w.where += g.also
			w.args = []any{v}
			c.walks = append(c.walks, w)
		}
	}
	c.text = "(" + strings.Join(checks, " OR ") + ")"
	in.conditions = append(in.conditions, c)
}

// compose gives the statement that finds the ids of the page, newest first.
func (in *inquiry) compose() (text string, args []any, err error) {
	best, err := in.rarest()
	if err != nil {
		return "", nil, err
	}
	walks, checks := []walk{in.everything}, slices.Clip(in.checks)
	for i, c := range in.conditions {
		if i == best {
			walks = c.walks
			continue
		}
		checks = append(checks, c.predicate)
	}
	limit := in.limit
	if limit <= 0 {
		limit = -1
	}
	var b strings.Builder
	for i, w := range walks {
		if i > 0 {
			b.WriteString(" UNION ")
		}
		where, bounds := in.bounds(w)
		// Each run stops by itself when it has filled a page, also with rows that
		// another one has found: to pass over those could take it through all of them.
		b.WriteString("SELECT id FROM (SELECT " + w.id + " AS id FROM " + w.from + " WHERE " + where)
		args = append(args, bounds...)
		for _, c := range checks {
			b.WriteString(" AND " + c.text)
			args = append(args, c.args...)
		}
		b.WriteString(" ORDER BY " + w.id + " DESC LIMIT ?)")
		args = append(args, limit)
	}
	b.WriteString(" ORDER BY id DESC LIMIT ?")
	return b.String(), append(args, limit), nil
}

// bounds is the part of an index that a walk goes through.
func (in *inquiry) bounds(w walk) (where string, args []any) {
	where, args = w.where, slices.Clone(w.args)
	if in.below != nil {
		where += " AND " + w.id + " < ?"
		args = append(args, in.below)
	}
	if in.least != nil {
		where += " AND " + w.id + " >= ?"
		args = append(args, in.least)
	}
	return where, args
}

// rarest finds the condition that the fewest rows fulfil; -1 where there is none to
// be walked.
func (in *inquiry) rarest() (best int, err error) {
	if len(in.conditions) == 1 && !in.conditions[0].sorts {
		return 0, nil
	}
	best = -1
	fewest := probeMost + 1
	for i, c := range in.conditions {
		probe := c.probe
		if probe == nil {
			probe = c.walks
		}
		sum := 0
		for _, w := range probe {
			if sum >= fewest {
				break
			}
			where, args := in.bounds(w)
			n, err := in.count("SELECT count(*) FROM (SELECT 1 FROM "+w.from+" WHERE "+where+" LIMIT ?)", append(args, fewest))
			if err != nil {
				return 0, err
			}
			sum += n
		}
		if sum < fewest || best < 0 && !c.sorts {
			best, fewest = i, min(sum, fewest)
		}
	}
	return best, nil
}

// idAt is the smallest id of a time.
func idAt(t time.Time) string {
	var id ulid.ULID
	if ms := t.UnixMilli(); ms > 0 {
		_ = id.SetTime(min(uint64(ms), ulid.MaxTime()))
	}
	return id.String()
}

// listings are the prepared statements of lists, by their text. There are as many
// as kinds of filters in use; past listingsMost a new kind is prepared each time.
type listings struct {
	mu         sync.Mutex
	statements map[string]*sql.Stmt // closed with the pool
}

const listingsMost = 128

// prepared gives a statement and what to call when it is no longer used.
func (l *listings) prepared(ctx context.Context, db *sql.DB, text string) (stmt *sql.Stmt, done func(), err error) {
	l.mu.Lock()
	stmt = l.statements[text]
	l.mu.Unlock()
	if stmt != nil {
		return stmt, func() {}, nil
	}
	if stmt, err = db.PrepareContext(ctx, text); err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.statements) >= listingsMost || l.statements[text] != nil {
		return stmt, func() { stmt.Close() }, nil
	}
	if l.statements == nil {
		l.statements = make(map[string]*sql.Stmt)
	}
	l.statements[text] = stmt
	return stmt, func() {}, nil
}
