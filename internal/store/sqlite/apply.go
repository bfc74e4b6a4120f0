package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/store"
	"github.com/telexec/telexec/internal/store/sqlite/bulk"
)

// Create is store.Store's.
func (s *Store) Create(ctx context.Context, c command.Command, hash []byte, gate *approval.Approval, told audit.Entry) (stored command.Command, created bool, err error) {
	const op = "sqlite.Create"
	leave, err := s.enter(op)
	if err != nil {
		return command.Command{}, false, err
	}
	defer leave()
	// The change has its own result: the writer may still work on it when ctx has
	// ended this call.
	var result struct {
		command command.Command
		created bool
	}
	sealed := sealSpec(s.key, c.ID, c.State, &c.Spec)
	if gate != nil { // the caller's, who may go on with it when ctx has ended this call
		own := *gate
		gate = &own
	}
	if err := s.writer.do(ctx, len(sealed.stdin), func() (err error) {
		result.command, result.created, err = s.writer.create(c, hash, sealed, gate, told)
		return err
	}); err != nil {
		return command.Command{}, false, failed(op, err)
	}
	return result.command, result.created, nil
}

// create runs on the writer's goroutine. Whatever can refuse comes before the
// first thing written.
func (w *writer) create(c command.Command, hash []byte, sealed sealedSpec, gate *approval.Approval, told audit.Entry) (stored command.Command, created bool, err error) {
	ctx := context.Background()
	principal, requestID := c.CreatedBy.Principal, c.Spec.RequestID
	if requestID != "" {
		old, err := w.replay(ctx, &c, hash)
		if err != nil || old != nil {
			if old != nil {
				stored = *old
			}
			return stored, false, err
		}
	}
	r, err := w.insertCommand.ExecContext(ctx, append(append(fixedValues(&c), changingValues(&c)...), w.nextChange+1)...)
	if err != nil {
		return stored, false, err
	}
	if n, err := r.RowsAffected(); err != nil {
		return stored, false, err
	} else if n == 0 {
		return stored, false, fault.New(fault.Internal, fault.ReasonInternal, "there is a command %q already", c.ID)
	}
	w.nextChange++
	if _, err := w.insertSpec.ExecContext(ctx, append([]any{c.ID}, askedValues(&c.Spec)...)...); err != nil {
		return stored, false, err
	}
	if err := w.putSealed(ctx, c.ID, sealed); err != nil {
		return stored, false, err
	}
	if err := w.putLabels(ctx, c.ID, c.Spec.Labels); err != nil {
		return stored, false, err
	}
	if gate != nil {
		if _, err := w.insertApproval.ExecContext(ctx, append(approvalValues(gate), c.ID)...); err != nil {
			return stored, false, err
		}
		if err := w.putRoles(ctx, c.ID, gate.Roles); err != nil {
			return stored, false, err
		}
	}
	if requestID != "" {
		if _, err := w.putRequest.ExecContext(ctx, principal, requestID, c.ID, nonNil(hash), micros(c.CreateTime)); err != nil {
			return stored, false, err
		}
	}
	return c, true, w.tell(ctx, told)
}

func (w *writer) putSealed(ctx context.Context, id string, s sealedSpec) error {
	if s.env != nil || s.stdin != nil {
		if _, err := w.insertStart.ExecContext(ctx, id, s.env, s.stdin); err != nil {
			return err
		}
	}
	if s.redact != nil {
		if _, err := w.insertRedact.ExecContext(ctx, id, s.redact); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) putLabels(ctx context.Context, id string, labels map[string]string) error {
	for name, value := range labels {
		if _, err := w.insertLabel.ExecContext(ctx, name, value, id); err != nil {
			return err
		}
	}
	return nil
}

// replay gives the command that the request id of c names, nil if none, or says
// that it was for something else.
func (w *writer) replay(ctx context.Context, c *command.Command, hash []byte) (*command.Command, error) {
	var id string
	var was []byte
	var at int64
	switch err := w.findRequest.QueryRowContext(ctx, c.CreatedBy.Principal, c.Spec.RequestID).Scan(&id, &was, &at); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if c.CreateTime.Sub(moment(at)) >= store.RequestIDLife {
		return nil, nil
	}
	if string(was) != string(hash) {
		return nil, fault.New(fault.AlreadyExists, fault.ReasonRequestIDReused,
			"the request id %q was used for another command within the last 24 hours", c.Spec.RequestID).
			WithHint("Use a new request id for a new command; repeat a request unchanged").With("command_id", id)
	}
	old, err := scanCommand(w.getOne.QueryRowContext(ctx, id).Scan, w.key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, damaged(id, err) // they are deleted together
	}
	return &old, err
}

// Apply is store.Store's.
func (s *Store) Apply(ctx context.Context, ch command.Change) error {
	const op = "sqlite.Apply"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	run, err := runOf(ch.Output)
	if err != nil {
		return err
	}
	if err := checkOrder(ch.Order, run); err != nil {
		return err
	}
	if streams := run.bulky(); len(streams) > 0 && bulk.Named(ch.Command.ID) {
		return failed(op, s.applyBulk(ctx, &ch, run, streams))
	}
	return failed(op, s.writer.do(ctx, run.size, func() error { return s.writer.apply(&ch, run, filed{}) }))
}

// extent is where the output of a change begins and ends in each stream; -1 for
// a stream without.
type extent struct {
	from, to command.Sizes
	size     int // bytes of both
}

func runOf(output []command.Chunk) (extent, error) {
	e := extent{from: command.Sizes{-1, -1}, to: command.Sizes{-1, -1}}
	for _, c := range output {
		switch {
		case int(c.Stream) >= len(e.from) || c.Offset < 0:
			return e, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "a chunk has stream %d and offset %d", c.Stream, c.Offset)
		case len(c.Data) == 0:
			continue
		case e.from[c.Stream] < 0:
			e.from[c.Stream] = c.Offset
		case c.Offset != e.to[c.Stream]:
			return e, fault.New(fault.Invalid, fault.ReasonInvalidRequest,
				"the output of %s goes on at %d where %d was due", c.Stream, c.Offset, e.to[c.Stream])
		}
		e.to[c.Stream] = c.End()
		e.size += len(c.Data)
	}
	return e, nil
}

// apply runs on the writer's goroutine. The compare-and-set comes first, so that
// a refusal has written nothing. Output that lies in files already is recorded.
func (w *writer) apply(ch *command.Change, run extent, laid filed) error {
	ctx := context.Background()
	c := &ch.Command
	number := w.nextChange + 1
	values := append(changingValues(c),
		c.Version, number,
		run.to[command.Stdout], run.to[command.Stderr],
		c.Ended(), run.to[command.Stdout], run.to[command.Stderr],
		c.ID, string(ch.From), ch.Fence, run.from[command.Stdout], run.from[command.Stderr])
	var changed int64
	err := w.update.QueryRowContext(ctx, values...).Scan(&changed)
	if errors.Is(err, sql.ErrNoRows) {
		return w.refusal(ctx, ch, run)
	}
	if err != nil {
		return err
	}
	w.nextChange = max(w.nextChange, changed)
	for stream, e := range laid {
		if e != nil {
			if _, err := w.insertPiece.ExecContext(ctx, c.ID, int64(stream), e.Offset, e.Sums, e.Length); err != nil {
				return err
			}
		}
	}
	for _, chunk := range ch.Output {
		if laid[chunk.Stream] != nil {
			continue
		}
		for at := 0; at < len(chunk.Data); at += pieceSize {
			piece := chunk.Data[at:min(at+pieceSize, len(chunk.Data))]
			if _, err := w.insertPiece.ExecContext(ctx, c.ID, int64(chunk.Stream), chunk.Offset+int64(at), piece, nil); err != nil {
				return err
			}
		}
	}
	if err := w.putOrder(ctx, c.ID, ch.Order); err != nil {
		return err
	}
	if needsStart(ch.From) && !needsStart(c.State) {
		if _, err = w.deleteStart.ExecContext(ctx, c.ID); err != nil {
			return err
		}
	}
	if !ch.From.Ended() && c.Ended() {
		if _, err = w.deleteRedact.ExecContext(ctx, c.ID); err != nil {
			return err
		}
	}
	return w.tell(ctx, ch.Audit...)
}

// refusal finds out why a compare-and-set met no row.
func (w *writer) refusal(ctx context.Context, ch *command.Change, run extent) error {
	id := ch.Command.ID
	at, err := scanWhere(w.where.QueryRowContext(ctx, id))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return unknownCommand(id)
	case err != nil:
		return err
	}
	e := fault.New(fault.Aborted, fault.ReasonInternal, "command %s was changed by another owner", id).
		WithHint("Read the command again and decide anew").WithRetry(time.Millisecond)
	if at.state != ch.From || at.fence != ch.Fence {
		e.Message += ": it is " + string(at.state) + " with fence " + itoa(int(at.fence)) + ", not " + string(ch.From) + " with " + itoa(int(ch.Fence))
		return e
	}
	for _, s := range command.Streams {
		if run.from[s] >= 0 && run.from[s] != at.stored[s] {
			e.Message += ": its " + s.String() + " is stored up to " + itoa(int(at.stored[s])) + ", not " + itoa(int(run.from[s]))
		}
	}
	return e
}

// nonNil makes nil the empty blob, for a column that is never NULL.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
