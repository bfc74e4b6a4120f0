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
)

// List is store.Store's.
func (s *Store) List(ctx context.Context, f command.Filter) ([]command.Command, error) {
	const op = "sqlite.List"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	var list []command.Command
	for most := f.Limit; ; f.Limit = most - len(list) {
		page, last, err := s.page(ctx, f)
		if err != nil {
			return nil, failed(op, err)
		}
		list = append(list, page...)
		// Damaged rows leave gaps; who gets less than he asked for takes it for the end.
		if most <= 0 || len(list) >= most || last == "" {
			return list, nil
		}
		f.Before = last
	}
}

// page finds the ids and reads the rows, both in one transaction, so that every
// row still matches. Nothing is prepared while it holds a connection: all of them
// could be waiting for one more. A damaged row is left out; last is the id to go
// on behind, empty where nothing older is left.
func (s *Store) page(ctx context.Context, f command.Filter) (list []command.Command, last string, err error) {
	in := inquiry{f: f, count: func(text string, args []any) (n int, err error) {
		stmt, done, err := s.lists.prepared(ctx, s.read, text)
		if err != nil {
			return 0, err
		}
		defer done()
		err = stmt.QueryRowContext(ctx, args...).Scan(&n)
		return n, err
	}}
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
		c, err := scanCommand(get.QueryRowContext(ctx, id).Scan)
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

// inquiry makes the SQL of a list.
type inquiry struct {
	f     command.Filter
	count func(text string, args []any) (int, error)
}

// condition is one thing that a filter asks for.
type condition struct {
	walk   []walk // indexes that together have it; several for several states
	check  string // the same, as a check on a row that was met
	values []any  // for check
}

// walk is one run of an index.
type walk struct {
	from  string // table and index
	where string
	args  []any
	id    string // the column that is the id
}

func (in *inquiry) conditions() []condition {
	var all []condition
	column := func(name, value string) {
		if value != "" {
			all = append(all, condition{
				walk:   []walk{{from: "command c INDEXED BY command_" + name, where: "c." + name + " = ?", args: []any{value}, id: "c.id"}},
				check:  "c." + name + " = ?",
				values: []any{value},
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in.f.Labels)) {
		args := []any{name, in.f.Labels[name]}
		all = append(all, condition{
			walk:   []walk{{from: "command_label l CROSS JOIN command c ON c.id = l.command", where: "l.name = ? AND l.value = ?", args: args, id: "l.command"}},
			check:  "EXISTS (SELECT 1 FROM command_label WHERE name = ? AND value = ? AND command = c.id)",
			values: args,
		})
	}
	if len(in.f.States) > 0 {
		var c condition
		states := slices.Clone(in.f.States)
		slices.Sort(states)
		for _, state := range slices.Compact(states) {
			c.walk = append(c.walk, walk{from: "command c INDEXED BY command_state", where: "c.state = ?", args: []any{string(state)}, id: "c.id"})
			c.values = append(c.values, string(state))
		}
		c.check = "c.state IN (" + placeholders(len(c.values)) + ")"
		all = append(all, c)
	}
	column("principal", in.f.Principal)
	column("host", in.f.Host)
	column("origin", string(in.f.Origin))
	return all
}

// compose gives the statement that finds the ids of the page, newest first.
func (in *inquiry) compose() (text string, args []any, err error) {
	conditions := in.conditions()
	walks := []walk{{from: "command c", where: "1", id: "c.id"}}
	if len(conditions) > 0 {
		best, err := in.rarest(conditions)
		if err != nil {
			return "", nil, err
		}
		walks = conditions[best].walk
		conditions = slices.Delete(conditions, best, best+1)
	}
	limit := in.f.Limit
	if limit <= 0 {
		limit = -1
	}
	var b strings.Builder
	for i, w := range walks {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		where, bounds := in.bounds(w)
		// Each run stops by itself when it has filled a page.
		b.WriteString("SELECT id FROM (SELECT " + w.id + " AS id FROM " + w.from + " WHERE " + where)
		args = append(args, bounds...)
		for _, c := range conditions {
			b.WriteString(" AND " + c.check)
			args = append(args, c.values...)
		}
		if !in.f.From.IsZero() {
			b.WriteString(" AND c.create_time >= ?")
			args = append(args, micros(in.f.From))
		}
		if !in.f.To.IsZero() {
			b.WriteString(" AND c.create_time < ?")
			args = append(args, micros(in.f.To))
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
	// One upper bound only: of two, SQLite seeks to one and walks to the other.
	before := in.f.Before
	if !in.f.To.IsZero() {
		if to := idAt(in.f.To.Add(idSlack)); before == "" || to < before {
			before = to
		}
	}
	if before != "" {
		where += " AND " + w.id + " < ?"
		args = append(args, before)
	}
	if !in.f.From.IsZero() {
		where += " AND " + w.id + " >= ?"
		args = append(args, idAt(in.f.From.Add(-idSlack)))
	}
	return where, args
}

// rarest finds the condition that the fewest commands fulfil.
func (in *inquiry) rarest(conditions []condition) (best int, err error) {
	if len(conditions) == 1 {
		return 0, nil
	}
	least := probeMost + 1
	for i, c := range conditions {
		sum := 0
		for _, w := range c.walk {
			if sum >= least {
				break
			}
			// The label's walk counts without its join.
			from, _, _ := strings.Cut(w.from, " CROSS JOIN")
			where, args := in.bounds(w)
			n, err := in.count("SELECT count(*) FROM (SELECT 1 FROM "+from+" WHERE "+where+" LIMIT ?)", append(args, least))
			if err != nil {
				return 0, err
			}
			sum += n
		}
		if sum < least {
			best, least = i, sum
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
