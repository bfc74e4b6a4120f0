package api

import (
	"context"
	"errors"
	"math"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
)

// chainStep is how many rows are read at once where all are read: some hundred
// kilobytes, and with the longest excerpts of output that can be configured at most
// some twenty megabytes.
const chainStep = 64

// beforeAll is below every number that a row can have, also those that the service
// gives to none, the first of which is 0.
const beforeAll = math.MinInt64

// AuditLog is the audit as it was written. Methods may be called concurrently.
type AuditLog interface {
	// AuditRows gives rows newest first.
	AuditRows(ctx context.Context, f audit.Filter) ([]audit.Row, error)
	// AuditChain gives rows in their order, behind the one with a number.
	AuditChain(ctx context.Context, after int64, limit int) ([]audit.Row, error)
	// AuditHead gives the end of the chain as it was written last, or STORE_DAMAGED.
	AuditHead(ctx context.Context) (audit.Head, error)
}

// ListAuditEntries is of AdminService.
func (a *Admin) ListAuditEntries(ctx context.Context, r *telexecv1.ListAuditEntriesRequest) (*telexecv1.ListAuditEntriesResponse, error) {
	if err := a.may(ctx); err != nil {
		return nil, err
	}
	unpaged := proto.CloneOf(r)
	unpaged.PageSize, unpaged.PageToken = 0, ""
	cursor, err := pageCursor(unpaged, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := pageSize(r.GetPageSize())
	f := audit.Filter{
		Principal: r.GetPrincipal(), Host: r.GetHost(), CommandID: r.GetCommandId(),
		From: timeFromProto(r.GetTimeFrom()), To: timeFromProto(r.GetTimeTo()), Limit: size + 1,
	}
	for _, kind := range r.GetKinds() {
		f.Kinds = append(f.Kinds, audit.Kind(kind))
	}
	if cursor != "" {
		if f.Before, err = strconv.ParseInt(cursor, 10, 64); err != nil || f.Before < 1 {
			return nil, badPageToken() // the seal is no secret
		}
	}
	rows, err := a.log.AuditRows(ctx, f)
	if err != nil {
		return nil, err
	}
	page, bytes := &telexecv1.ListAuditEntriesResponse{}, 0
	for i, row := range rows {
		p := rowToProto(row)
		bytes += proto.Size(p)
		if i == size || i > 0 && bytes > maxPageBytes {
			page.NextPageToken = pageToken(unpaged, strconv.FormatInt(rows[i-1].Seq, 10))
			break
		}
		page.Entries = append(page.Entries, p)
	}
	return page, nil
}

// VerifyAudit is of AdminService.
func (a *Admin) VerifyAudit(ctx context.Context, r *telexecv1.VerifyAuditRequest) (*telexecv1.VerifyAuditResponse, error) {
	if err := a.may(ctx); err != nil {
		return nil, err
	}
	if (r.GetAfterSequence() == 0) != (len(r.GetAfterHash()) == 0) {
		return nil, invalid("after_hash", "goes with after_sequence, and the other way round",
			"a row that is known has a number and a hash, and one of the two is missing").
			WithHint("Give head_sequence and head_hash of an earlier answer as after_sequence and after_hash, or neither")
	}
	known := audit.Head{Seq: r.GetAfterSequence()}
	copy(known.Hash[:], r.GetAfterHash())
	good, broken, err := a.verify(ctx, known)
	if err != nil {
		return nil, err
	}
	answer := &telexecv1.VerifyAuditResponse{Intact: broken == nil}
	if good.Seq >= known.Seq && good.Seq > 0 { // else not even the known row is good
		answer.VerifiedRows, answer.HeadSequence, answer.HeadHash = good.Seq-known.Seq, good.Seq, good.Hash[:]
	}
	if b, ok := errors.AsType[*audit.Break](broken); ok {
		answer.BrokenSequence, answer.BrokenReason = b.Seq, b.Why
	}
	return answer, nil
}

// verify checks the audit from the row that is known, or from the first one where
// it is zero. It gives the last good row, one before the known one where that is
// not good, and the *audit.Break where there is one.
func (a *Admin) verify(ctx context.Context, known audit.Head) (good audit.Head, broken, err error) {
	// The head before the rows: the audit grows meanwhile.
	head, headErr := a.log.AuditHead(ctx)
	if headErr != nil && fault.KindOf(headErr) != fault.DataLoss {
		return good, nil, headErr
	}
	if headErr == nil && head.Seq < known.Seq {
		return good, &audit.Break{Seq: head.Seq + 1, Why: "it is missing, and so is all up to the row whose hash was noted"}, nil
	}
	var checker audit.Checker
	from := int64(beforeAll)
	if known.Seq > 0 {
		from = known.Seq - 1
		checker = *audit.NewChecker(audit.Head{Seq: from})
	}
	beyond := false // there are rows behind head
	err = a.eachRow(ctx, from, func(row audit.Row) error {
		if headErr == nil && row.Seq > head.Seq {
			beyond = true
			return errEnough
		}
		isKnown := known.Seq > 0 && row.Seq == known.Seq
		if isKnown { // what it follows is its own affair: its hash was noted
			checker = *audit.NewChecker(audit.Head{Seq: from, Hash: row.Prev})
		}
		if broken = checker.Next(row); broken == nil && isKnown {
			broken = checker.Expect(known.Hash)
		}
		if broken != nil {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return good, nil, err
	}
	if broken == nil && headErr == nil {
		broken = checker.End(head)
	}
	if broken == nil && beyond {
		// They came meanwhile, unless the service has written none since.
		later, err := a.log.AuditHead(ctx)
		if err != nil && fault.KindOf(err) != fault.DataLoss {
			return good, nil, err
		}
		if err == nil && later.Seq <= head.Seq {
			broken = &audit.Break{Seq: head.Seq + 1, Why: "it was not written by the service, whose last row is the one before"}
		}
		headErr = err
	}
	good = checker.Head()
	switch {
	case broken != nil:
	case good.Seq < known.Seq:
		broken = &audit.Break{Seq: known.Seq, Why: "it is missing, and is the row whose hash was noted"}
	case headErr != nil:
		broken = &audit.Break{Seq: good.Seq + 1, Why: "whether rows are missing at the end cannot be told: " + fault.From(headErr).Message}
	}
	return good, broken, nil
}

// errEnough ends eachRow.
var errEnough = errors.New("api: enough rows")

// eachRow gives all rows behind one, in their order.
func (a *Admin) eachRow(ctx context.Context, after int64, f func(audit.Row) error) error {
	for {
		rows, err := a.log.AuditChain(ctx, after, chainStep)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if err := f(row); err != nil {
				return err
			}
		}
		last := rows[len(rows)-1].Seq
		if last <= after { // a damaged order would go round for ever
			return nil
		}
		after = last
	}
}

// ExportAudit is of AdminService.
func (a *Admin) ExportAudit(r *telexecv1.ExportAuditRequest, out grpc.ServerStreamingServer[telexecv1.ExportAuditResponse]) error {
	ctx := out.Context()
	if err := a.may(ctx); err != nil {
		return err
	}
	after := r.GetAfterSequence()
	if after == 0 {
		after = beforeAll
	}
	return a.eachRow(ctx, after, func(row audit.Row) error {
		return out.Send(&telexecv1.ExportAuditResponse{
			Sequence: row.Seq, PreviousHash: row.Prev[:], Hash: row.Hash[:], Text: text(string(row.Text)),
		})
	})
}

// may refuses whoever is no administrator.
func (a *Admin) may(ctx context.Context) error {
	by := caller(ctx)
	return a.rights.May(by, access.Administer, access.Thing{Owner: by.Name})
}
