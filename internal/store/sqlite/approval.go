package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// approvalColumns are those of table approval besides its key.
var approvalColumns = []string{
	"version", "state", "rule", "count", "roles", "allow_self", "deadline",
	"requester", "requester_origin", "requester_roles", "host", "target", "line", "revision", "author", "author_origin",
	"hash", "create_time", "decide_time", "decisions",
}

func approvalValues(a *approval.Approval) []any {
	return []any{
		a.Version, string(a.State), a.Rule, int64(a.Count), packStrings(a.Roles), a.AllowSelf, micros(a.Deadline),
		a.Requester.Principal, string(a.Requester.Origin), packStrings(a.RequesterRoles), a.Host, a.Target, a.Command,
		int64(a.Revision), a.Author.Principal, string(a.Author.Origin),
		a.Hash, micros(a.CreateTime), micros(a.DecideTime), packDecisions(a.Decisions),
	}
}

var selectApproval = "SELECT a.command, " + qualified("a", approvalColumns) + " FROM "

func scanApproval(scan func(dest ...any) error) (a approval.Approval, err error) {
	var deadline, created, decided int64
	var roles, requesterRoles, decisions []byte
	err = scan(&a.CommandID,
		&a.Version, &a.State, &a.Rule, &a.Count, &roles, &a.AllowSelf, &deadline,
		&a.Requester.Principal, &a.Requester.Origin, &requesterRoles, &a.Host, &a.Target, &a.Command, &a.Revision, &a.Author.Principal, &a.Author.Origin,
		&a.Hash, &created, &decided, &decisions)
	if err != nil {
		if !ofDatabase(err) {
			err = damaged(a.CommandID, err)
		}
		return a, err
	}
	a.Deadline, a.CreateTime, a.DecideTime = moment(deadline), moment(created), moment(decided)
	if len(a.Hash) == 0 {
		a.Hash = nil
	}
	var damage [4]error
	a.Roles, damage[0] = unpackStrings(roles)
	a.RequesterRoles, damage[1] = unpackStrings(requesterRoles)
	a.Decisions, damage[2] = unpackDecisions(decisions)
	if !slices.Contains(approval.States, a.State) {
		damage[3] = errors.New("unknown state " + string(a.State))
	}
	if err := errors.Join(damage[:]...); err != nil {
		return a, damaged(a.CommandID, err)
	}
	return a, nil
}

func packDecisions(list []approval.Decision) []byte {
	if len(list) == 0 {
		return nil
	}
	b := binary.AppendUvarint(nil, uint64(len(list)))
	for _, d := range list {
		for _, s := range []string{d.By.Principal, string(d.By.Origin), string(d.Verdict), d.Reason} {
			b = appendString(b, s)
		}
		b = binary.AppendVarint(b, micros(d.Time))
		b = binary.AppendVarint(b, int64(d.Revision))
		b = appendString(b, string(d.Hash))
		b = appendString(b, d.Command)
		b = appendString(b, string(d.Asked))
	}
	return b
}

func unpackDecisions(b []byte) (list []approval.Decision, err error) {
	if b == nil {
		return nil, nil
	}
	u := unpacker{rest: b}
	for range u.count() {
		d := approval.Decision{
			By:      command.Actor{Principal: u.text(), Origin: command.Origin(u.text())},
			Verdict: approval.Verdict(u.text()),
			Reason:  u.text(),
			Time:    moment(u.number()),
		}
		d.Revision = int(u.number())
		if hash := u.text(); hash != "" {
			d.Hash = []byte(hash)
		}
		d.Command = u.text()
		if asked := u.text(); asked != "" {
			d.Asked = []byte(asked)
		}
		list = append(list, d)
	}
	return list, u.end()
}

// Approval is store.Store's.
func (s *Store) Approval(ctx context.Context, commandID string) (approval.Approval, error) {
	const op = "sqlite.Approval"
	leave, err := s.enter(op)
	if err != nil {
		return approval.Approval{}, err
	}
	defer leave()
	a, err := scanApproval(s.read.QueryRowContext(ctx, selectApproval+"approval a WHERE a.command = ?", commandID).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = unknownApproval(commandID)
	}
	if err != nil {
		return approval.Approval{}, failed(op, err)
	}
	return a, nil
}

// Approvals is store.Store's. A damaged one is left out and logged.
func (s *Store) Approvals(ctx context.Context, f approval.Filter) ([]approval.Approval, error) {
	const op = "sqlite.Approvals"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	list, err := filled(f.Limit, f.Before, func(limit int, before string) ([]approval.Approval, string, error) {
		f.Limit, f.Before = limit, before
		return s.approvalPage(ctx, f)
	})
	return list, failed(op, err)
}

// approvalPage also gives the id to go on behind, empty where nothing older is left.
func (s *Store) approvalPage(ctx context.Context, f approval.Filter) (list []approval.Approval, last string, err error) {
	in := approvalInquiry(f, s.counter(ctx))
	text, args, err := in.compose()
	if err != nil {
		return nil, "", err
	}
	find, done, err := s.lists.prepared(ctx, s.read, selectApproval+"("+text+") q CROSS JOIN approval a ON a.command = q.id ORDER BY a.command DESC")
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
		a, err := scanApproval(rows.Scan)
		last = a.CommandID
		if _, damage := errors.AsType[*fault.Error](err); damage {
			s.log.Warn("a list leaves out a damaged approval", "command", a.CommandID, "error", err)
			continue
		}
		if err != nil {
			return nil, "", err
		}
		list = append(list, a)
	}
	if n < f.Limit {
		last = ""
	}
	return list, last, rows.Err()
}

func approvalInquiry(f approval.Filter, count func(text string, args []any) (int, error)) *inquiry {
	in := &inquiry{everything: walk{from: "approval a", where: "1", id: "a.command"}, limit: f.Limit, count: count}
	states := make([]string, len(f.States))
	for i, state := range f.States {
		states[i] = string(state)
	}
	in.asksAny(byApproval("state"), "a.state", states)
	if v := f.Visible; v != nil {
		in.asksOneOf(
			group{byApproval("requester"), "a.requester", "", []string{v.Principal}, "+a.requester IN (%s)"},
			group{
				walk{from: "approval_role r CROSS JOIN approval a ON a.command = r.command", where: "r.role = ?", id: "r.command"},
				"r.role", "", v.Roles, "EXISTS (SELECT 1 FROM approval_role WHERE role IN (%s) AND command = a.command)",
			},
			group{byApproval("host"), "a.host", "", v.Hosts, "+a.host IN (%s)"},
		)
	}
	if f.Before != "" {
		in.below = f.Before
	}
	return in
}

// byApproval is the walk of a column of approval that has an index of its name.
func byApproval(column string) walk {
	return walk{from: "approval a INDEXED BY approval_" + column, where: "a." + column + " = ?", id: "a.command"}
}

// step is an approval.Step, prepared.
type step struct {
	*approval.Step
	run    extent
	sealed sealedSpec // of Spec
}

// Decide is store.Store's.
func (s *Store) Decide(ctx context.Context, steps []approval.Step) error {
	const op = "sqlite.Decide"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	all := make([]step, len(steps))
	seen := make(map[string]bool)
	size := 0
	for i := range steps {
		given := steps[i] // a copy: the writer may still work on it when ctx has ended this call
		id := given.Change.Command.ID
		if given.Approval.CommandID != id || seen[id] {
			return fault.New(fault.Internal, fault.ReasonInternal, "step %d decides about %q and changes %q, or there are two of it", i, given.Approval.CommandID, id).WithOp(op)
		}
		seen[id] = true
		run, err := runOf(given.Change.Output)
		if err != nil {
			return err
		}
		all[i] = step{Step: &given, run: run}
		if given.Spec != nil {
			all[i].sealed = sealSpec(s.key, id, given.Change.Command.State, given.Spec)
			size += len(all[i].sealed.stdin)
		}
		size += run.size
	}
	return failed(op, s.writer.do(ctx, size, func() error { return s.writer.decide(all) }))
}

// decide runs on the writer's goroutine: all that can refuse a step comes before
// the first thing written of any.
func (w *writer) decide(steps []step) error {
	ctx := context.Background()
	for i := range steps {
		if err := w.decidable(ctx, &steps[i]); err != nil {
			return err
		}
	}
	for i := range steps {
		if err := w.writeStep(ctx, &steps[i]); err != nil {
			if _, refused := errors.AsType[*fault.Error](err); refused {
				// It was found to be acceptable above, and something is written by now.
				err = errors.New("sqlite: a step that was checked is refused: " + err.Error())
			}
			return err
		}
	}
	return nil
}

// decidable refuses a step that cannot be taken.
func (w *writer) decidable(ctx context.Context, st *step) error {
	id := st.Approval.CommandID
	at, err := scanWhere(w.where.QueryRowContext(ctx, id))
	if errors.Is(err, sql.ErrNoRows) {
		return unknownCommand(id)
	}
	if err != nil {
		return err
	}
	var version int64
	err = w.approvalVersion.QueryRowContext(ctx, id).Scan(&version)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return unknownApproval(id)
	case err != nil:
		return err
	case version != st.Approval.Version-1:
		return fault.New(fault.Aborted, fault.ReasonInternal, "the approval of command %s was changed meanwhile: it has version %d, not %d", id, version, st.Approval.Version-1).
			WithHint("Read the approval again and decide anew").With("command_id", id)
	case !at.takes(&st.Change, st.run):
		return w.refusal(ctx, &st.Change, st.run)
	}
	return nil
}

// writeStep writes a step that decidable has let through.
func (w *writer) writeStep(ctx context.Context, st *step) error {
	if _, err := w.updateApproval.ExecContext(ctx, append(approvalValues(&st.Approval), st.Approval.CommandID)...); err != nil {
		return err
	}
	if _, err := w.deleteRoles.ExecContext(ctx, st.Approval.CommandID); err != nil {
		return err
	}
	if err := w.putRoles(ctx, st.Approval.CommandID, st.Approval.Roles); err != nil {
		return err
	}
	if st.Spec != nil {
		if err := w.rewrite(ctx, st); err != nil {
			return err
		}
	}
	return w.apply(&st.Change, st.run, filed{})
}

func (w *writer) putRoles(ctx context.Context, id string, roles []string) error {
	for _, role := range roles {
		if _, err := w.insertRole.ExecContext(ctx, role, id); err != nil {
			return err
		}
	}
	return nil
}

// rewrite replaces what was asked for. The request id stays: it names the command,
// whatever has become of it.
func (w *writer) rewrite(ctx context.Context, st *step) error {
	id := st.Approval.CommandID
	var principal, requestID string
	var packed []byte
	if err := w.belongings.QueryRowContext(ctx, id).Scan(&principal, &requestID, &packed); err != nil {
		return err
	}
	spec := *st.Spec
	spec.RequestID = requestID
	if _, err := w.updateSpec.ExecContext(ctx, append(askedValues(&spec), id)...); err != nil {
		return err
	}
	if _, err := w.updateHost.ExecContext(ctx, spec.Host, spec.SessionID, spec.SessionOwner, taskID(&spec), id); err != nil {
		return err
	}
	// Labels that cannot be read leave rows behind that lists pass over.
	if labels, _ := unpackMap(packed); !maps.Equal(labels, spec.Labels) {
		for name, value := range labels {
			if _, err := w.deleteLabel.ExecContext(ctx, name, value, id); err != nil {
				return err
			}
		}
		if err := w.putLabels(ctx, id, spec.Labels); err != nil {
			return err
		}
	}
	if _, err := w.deleteStart.ExecContext(ctx, id); err != nil {
		return err
	}
	if _, err := w.deleteRedact.ExecContext(ctx, id); err != nil {
		return err
	}
	return w.putSealed(ctx, id, st.sealed)
}

func unknownApproval(id string) *fault.Error {
	return fault.New(fault.NotFound, fault.ReasonUnknownApproval, "nothing waits or has waited for an approval under %q", id).
		WithHint("Check the id; the approval goes with its command, which retention deletes").With("command_id", id)
}

// assignments gives "a = ?, b = ?".
func assignments(columns []string) string { return strings.Join(columns, " = ?, ") + " = ?" }
