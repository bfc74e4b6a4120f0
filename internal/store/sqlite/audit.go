package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
)

// The audit is written by the writer alone, in the transaction of what it tells.
// Each row needs the one before it, so the writer holds the end of the chain in
// memory: once as it is committed, and once as it will be when the transaction
// under way is.
//
//	committed ──copy at BEGIN──▶ next ──tell, tell, …──▶ next' ──COMMIT──▶ committed
//	    ▲                                                   │
//	    └──────────────── rollback: next' is dropped ◀──────┘
//
// What rows are found by is indexed by the step (indexStep), not by the row: four
// indexes would make each commit write as many pages again as all the rest of it.
//
// The head row says where the chain ends, and has a tag over all of it that only the
// service's key makes. It is written once per transaction. The first one, of a chain
// without rows, is made with the tables (beginAudit), so that from then on there is
// always one: where it is missing, it was removed.
//
// Where the file does not end as the head says, somebody has been at it. The chain
// then goes on in a way that keeps the break in it for good (resume): a head that
// is written anew over a chain that was cut would be the end of all evidence.
//
// What cannot be found here, for the file holds nothing that would tell:
//
//   - that it was put back as a whole, as of some day before,
//   - that another one was put in its place, which is new or looks like one that a
//     version without an audit has left, whose tables had no tag to be known by. The
//     log then says, at that start, that an audit begins.
//
// A head or an export that is kept elsewhere tells both.

const purposeHead = "audit head"

// chain is the end of the audit.
type chain struct {
	audit.Head
	indexed int64 // number of the last row that is in audit_index
	latest  int64 // µs: latest time of all entries, and of what was there before there was an audit
	back    int64 // µs: by how much at most an entry was earlier than one before it
}

// backUnknown is a back that bounds nothing: lists by time walk what there is.
const backUnknown = math.MaxInt64 / 4

// headText is what the tag is of: all columns. Those that only lists need are in it,
// since a wrong one hides rows.
func headText(c chain) []byte {
	text := append(binary.BigEndian.AppendUint64(nil, uint64(c.Seq)), c.Hash[:]...)
	for _, n := range []int64{c.indexed, c.latest, c.back} {
		text = binary.BigEndian.AppendUint64(text, uint64(n))
	}
	return text
}

const putHead = "INSERT OR REPLACE INTO audit_head (one, seq, hash, tag, indexed, latest, back) VALUES (1, ?, ?, ?, ?, ?, ?)"

func headValues(c chain, key *seal.Key) []any {
	return []any{c.Seq, c.Hash[:], key.Tag(purposeHead, headText(c)), c.indexed, c.latest, c.back}
}

// beginAudit writes the first head, in the transaction that makes its table. Where
// an earlier version, which kept no audit, has left commands, latest is the time of
// the newest one: of those alone the chain need not tell.
func beginAudit(ctx context.Context, c *sql.Conn, key *seal.Key) error {
	var first chain
	if err := c.QueryRowContext(ctx, "SELECT coalesce(max(max(create_time), 1), 0) FROM command").Scan(&first.latest); err != nil {
		return err
	}
	_, err := c.ExecContext(ctx, putHead, headValues(first, key)...)
	return err
}

// columns are those of a row beside its text.
type columns struct {
	time                           int64
	kind, principal, host, command string
}

func columnsOf(e *audit.Entry) columns {
	c := columns{kind: asInJSON(string(e.Kind)), principal: asInJSON(e.Principal), host: asInJSON(e.Host), command: asInJSON(e.CommandID)}
	if year := e.Time.UTC().Year(); year >= 0 && year <= 9999 { // others are not written by Chain either
		c.time = micros(e.Time.Truncate(time.Microsecond))
	}
	return c
}

// asInJSON gives s as it comes out of JSON: a byte that is not UTF-8 is there
// written as the replacement character.
func asInJSON(s string) string { return string([]rune(s)) }

// tell adds entries to the chain. It runs on the writer's goroutine, behind
// everything that can refuse the change.
func (w *writer) tell(ctx context.Context, told ...audit.Entry) error {
	for i := range told {
		row := audit.Chain(w.next.Seq, w.next.Hash, told[i])
		c := columnsOf(&told[i])
		if _, err := w.insertAudit.ExecContext(ctx, row.Seq, row.Prev[:], row.Hash[:], row.Text,
			c.time, c.kind, c.principal, c.host, c.command); err != nil {
			return err
		}
		w.next.Head = audit.Head{Seq: row.Seq, Hash: row.Hash}
		w.next.back = max(w.next.back, w.next.latest-c.time)
		w.next.latest = max(w.next.latest, c.time)
	}
	return nil
}

// indexed are the columns that rows are found by, with the letter of each in
// audit_index. There is no entry for what is empty.
var indexed = []struct{ letter, column string }{{"k", "kind"}, {"p", "principal"}, {"h", "host"}, {"c", "command"}}

// indexAudit indexes the rows between two numbers; countIndexed gives how many
// entries a row has, and shouldIndex how many it should have.
var indexAudit, countIndexed, shouldIndex = func() (insert, count, should string) {
	var entries, present, due []string
	for _, i := range indexed {
		word := "'" + i.letter + "' || a." + i.column
		entries = append(entries, "SELECT "+word+", a.seq FROM audit a WHERE a.seq > ?1 AND a.seq <= ?2 AND a."+i.column+" > ''")
		present = append(present, "EXISTS (SELECT 1 FROM audit_index i WHERE i.word = "+word+" AND i.seq = a.seq)")
		due = append(due, "(a."+i.column+" > '')")
	}
	return "INSERT OR IGNORE INTO audit_index (word, seq) " + strings.Join(entries, " UNION ALL "), strings.Join(present, " + "), strings.Join(due, " + ")
}()

const (
	indexStep = 64   // so many rows may be without entries, and are looked through
	indexMost = 4096 // at most so many get theirs in one transaction
)

// writeHead ends a transaction that has added to the chain.
func (w *writer) writeHead(ctx context.Context) error {
	if w.next.Seq == w.committed.Seq {
		return nil
	}
	if w.next.Seq-w.next.indexed >= indexStep {
		to := min(w.next.Seq, w.next.indexed+indexMost)
		if _, err := w.indexAudit.ExecContext(ctx, w.next.indexed, to); err != nil {
			return err
		}
		w.next.indexed = to
	}
	_, err := w.putHead.ExecContext(ctx, headValues(w.next, w.key)...)
	return err
}

// selectHead also tells whether there may be what there is: an API key, an approval
// or a command that is newer than the audit has come with a row. So the first head
// does not fit any more when it is put back over a chain that was erased.
const selectHead = `SELECT seq, hash, tag, indexed, latest, back, CASE seq WHEN 0 THEN NOT (
		EXISTS (SELECT 1 FROM api_key) OR EXISTS (SELECT 1 FROM approval) OR EXISTS (SELECT 1 FROM session) OR
		EXISTS (SELECT 1 FROM command WHERE audit_head.latest = 0 OR create_time > audit_head.latest)
	) ELSE 1 END FROM audit_head`

// readHead gives the head row. genuine is false where there is none, its tag is not
// the service's, or it cannot be the last one that was written; c is then one that
// leads to no row, and hides none.
func readHead(row *sql.Row, key *seal.Key) (c chain, genuine bool, err error) {
	var hash, tag []byte
	var fits bool
	err = row.Scan(&c.Seq, &hash, &tag, &c.indexed, &c.latest, &c.back, &fits)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return chain{}, false, err
	}
	copy(c.Hash[:], hash)
	if err != nil || !fits || len(hash) != len(c.Hash) || !key.Check(purposeHead, headText(c), tag) {
		return chain{back: backUnknown}, false, nil
	}
	return c, true, nil
}

// resume finds where the chain goes on. Whatever it finds, the service starts: it
// is needed for looking into it.
//
// Behind a head that is the service's, the next row follows that head and has a
// number that nobody has used: rows that were cut off stay missing, and rows that
// were put behind it are not followed. Without such a head the next row follows the
// last one there is, but leaves out a number.
func (w *writer) resume(ctx context.Context) error {
	head, genuine, err := readHead(w.conn.QueryRowContext(ctx, selectHead), w.key)
	if err != nil {
		return err
	}
	var last audit.Head
	var hash []byte
	err = w.conn.QueryRowContext(ctx, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").Scan(&last.Seq, &hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	copy(last.Hash[:], hash)
	w.committed = head
	switch {
	case !genuine:
		w.log.Error("the end of the audit was not written by this service: rows may have been removed, put in or changed; the audit goes on and leaves out the number of one row to mark the place",
			"last_row", last.Seq, "missing_row", last.Seq+1)
		w.committed = chain{Head: audit.Head{Seq: last.Seq + 1, Hash: last.Hash}, back: backUnknown}
	case last != head.Head:
		w.log.Error("the audit does not end with the last row that this service has written: rows were removed, put in or changed; the audit goes on behind that row",
			"last_row", last.Seq, "last_written_row", head.Seq)
		w.committed.Seq, w.committed.back = max(head.Seq, last.Seq), backUnknown
	case head.Seq == 0 && head.latest > 0:
		w.log.Warn("the database has commands of a version that kept no audit: the audit begins now",
			"newest_command", moment(head.latest))
	case head.Seq == 0:
		w.log.Info("the database is new: its audit begins now")
	}
	return nil
}

// Record is store.Store's.
func (s *Store) Record(ctx context.Context, told ...audit.Entry) error {
	const op = "sqlite.Record"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	told = slices.Clone(told) // the writer may still work on it when ctx has ended this call
	return failed(op, s.writer.do(ctx, 0, func() error { return s.writer.tell(context.Background(), told...) }))
}

// AuditHead is store.Store's.
func (s *Store) AuditHead(ctx context.Context) (audit.Head, error) {
	const op = "sqlite.AuditHead"
	leave, err := s.enter(op)
	if err != nil {
		return audit.Head{}, err
	}
	defer leave()
	head, genuine, err := readHead(s.read.QueryRowContext(ctx, selectHead), s.key)
	switch {
	case err != nil:
		return audit.Head{}, failed(op, err)
	case genuine:
		return head.Head, nil
	}
	return audit.Head{}, fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "the record of where the audit ends was not written by this service").
		WithHint("Somebody has changed the database, or the service's key was replaced; compare the audit with an export or a backup").WithOp(op)
}

// selectAudit also tells whether a row is indexed as it should be.
var selectAudit = "SELECT a.seq, a.prev, a.hash, a.text, a.time, a.kind, a.principal, a.host, a.command, a.seq > ?1 OR " +
	countIndexed + " = " + shouldIndex + " FROM "

// AuditChain is store.Store's.
func (s *Store) AuditChain(ctx context.Context, after int64, limit int) ([]audit.Row, error) {
	const op = "sqlite.AuditChain"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	head, _, err := readHead(s.read.QueryRowContext(ctx, selectHead), s.key)
	if err != nil {
		return nil, failed(op, err)
	}
	find, done, err := s.lists.prepared(ctx, s.read, selectAudit+"audit a WHERE a.seq > ?2 ORDER BY a.seq LIMIT ?3")
	if err != nil {
		return nil, failed(op, err)
	}
	defer done()
	rows, err := readAudit(find.QueryContext(ctx, head.indexed, after, max(0, limit)))
	return rows, failed(op, err)
}

// AuditRows is store.Store's.
func (s *Store) AuditRows(ctx context.Context, f audit.Filter) (list []audit.Row, err error) {
	const op = "sqlite.AuditRows"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	head, _, err := readHead(s.read.QueryRowContext(ctx, selectHead), s.key)
	if err != nil {
		return nil, failed(op, err)
	}
	in := auditInquiry(f, head.indexed, s.counter(ctx))
	if err := s.auditBounds(ctx, in, f, head); err != nil {
		return nil, failed(op, err)
	}
	text, args, err := in.compose()
	if err != nil {
		return nil, failed(op, err)
	}
	find, done, err := s.lists.prepared(ctx, s.read, selectAudit+"("+text+") q CROSS JOIN audit a ON a.seq = q.id ORDER BY a.seq DESC")
	if err != nil {
		return nil, failed(op, err)
	}
	defer done()
	list, err = readAudit(find.QueryContext(ctx, append([]any{head.indexed}, args...)...))
	return list, failed(op, err)
}

// auditInquiry is the inquiry of a filter, but for its times.
func auditInquiry(f audit.Filter, to int64, count func(text string, args []any) (int, error)) *inquiry {
	in := &inquiry{everything: walk{from: "audit a", where: "1", id: "a.seq"}, least: int64(1), limit: f.Limit, count: count}
	for _, i := range indexed {
		var values []string
		switch i.column {
		case "kind":
			for _, k := range f.Kinds {
				values = append(values, string(k))
			}
		case "principal":
			values = []string{f.Principal}
		case "host":
			values = []string{f.Host}
		case "command":
			values = []string{f.CommandID}
		}
		values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
		if len(values) == 0 {
			continue
		}
		slices.Sort(values)
		var c condition
		column := "a." + i.column
		for _, v := range slices.Compact(values) {
			v = asInJSON(v)
			c.args = append(c.args, v)
			// An entry may be left of a row that somebody has removed.
			c.walks = append(c.walks, walk{from: "audit_index i CROSS JOIN audit a ON a.seq = i.seq",
				where: "i.word = ? AND i.seq <= ? AND " + column + " = ?", args: []any{i.letter + v, to, v}, id: "i.seq"})
			c.probe = append(c.probe, walk{from: "audit_index i", where: "i.word = ? AND i.seq <= ?", args: []any{i.letter + v, to}, id: "i.seq"})
		}
		c.text = column + " IN (" + placeholders(len(c.args)) + ")"
		behind := walk{from: "audit a", where: "a.seq > ? AND " + c.text, args: append([]any{to}, c.args...), id: "a.seq"}
		c.walks = append(c.walks, behind)
		in.conditions = append(in.conditions, c)
	}
	if f.Before != 0 {
		in.below = f.Before
	}
	return in
}

// auditBounds adds the times of a filter. Rows stand in the order in which they were
// written, which is nearly that of their times: back tells how nearly. So one row
// bounds the walk, whatever the clock has done:
//
//   - Behind a row of To + back there is none before To, since none is earlier than
//     one in front of it by more than back.
//   - In front of a row of less than From - back there is none of From or later.
func (s *Store) auditBounds(ctx context.Context, in *inquiry, f audit.Filter, head chain) error {
	if !f.To.IsZero() {
		in.checks = append(in.checks, predicate{"a.time < ?", []any{micros(f.To)}})
		_, behind, err := s.auditAt(ctx, micros(f.To)+head.back, head.Seq)
		if err != nil {
			return err
		}
		if before, ok := in.below.(int64); behind > 0 && (!ok || behind < before) {
			in.below = behind
		}
	}
	if !f.From.IsZero() {
		in.checks = append(in.checks, predicate{"a.time >= ?", []any{micros(f.From)}})
		front, _, err := s.auditAt(ctx, micros(f.From)-head.back, head.Seq)
		if err != nil {
			return err
		}
		in.least = front + 1
	}
	return nil
}

// auditAt finds the place of a time by halving: a row that is earlier, and one that
// is not. Each is what it is said to be; that they are neighbours depends on the
// clock. 0: none was met.
func (s *Store) auditAt(ctx context.Context, at, last int64) (earlier, other int64, err error) {
	find, done, err := s.lists.prepared(ctx, s.read, "SELECT seq, time FROM audit WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT 1")
	if err != nil {
		return 0, 0, err
	}
	defer done()
	for from, to := int64(1), last+1; from < to; {
		middle := from + (to-from)/2
		var seq, time int64
		switch err := find.QueryRowContext(ctx, middle, to).Scan(&seq, &time); {
		case errors.Is(err, sql.ErrNoRows):
			to = middle
		case err != nil:
			return 0, 0, err
		case time >= at:
			other, to = seq, middle
		default:
			earlier, from = seq, seq+1
		}
	}
	return earlier, other, nil
}

// readAudit reads the rows of selectAudit as they are, whatever somebody has made
// of them. Columns beside the text that tell something else are what a list is
// found by, and no part of what is hashed: such a row comes with another text.
func readAudit(rows *sql.Rows, err error) (list []audit.Row, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r audit.Row
		var prev, hash, text, at, kind, principal, host, command any
		var found bool
		if err := rows.Scan(&r.Seq, &prev, &hash, &text, &at, &kind, &principal, &host, &command, &found); err != nil {
			return nil, err
		}
		p, _ := prev.([]byte)
		h, _ := hash.([]byte)
		r.Text, _ = text.([]byte)
		copy(r.Prev[:], p)
		copy(r.Hash[:], h)
		whole := found && len(p) == len(r.Prev) && len(h) == len(r.Hash)
		if e, err := r.Entry(); err == nil {
			c := columnsOf(&e)
			whole = whole && at == c.time && kind == c.kind && principal == c.principal && host == c.host && command == c.command
		}
		if !whole {
			r.Text, _ = json.Marshal(map[string]string{
				"damaged": "what this row is found by does not tell the same as its text",
				"text":    string(r.Text),
			})
		}
		list = append(list, r)
	}
	return list, rows.Err()
}
