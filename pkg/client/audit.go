package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// ListAuditEntries gives the entries of the audit that match req, newest first,
// over all pages; as ListCommands. Only an admin may.
func (c *Client) ListAuditEntries(ctx context.Context, req *telexecv1.ListAuditEntriesRequest) iter.Seq2[*telexecv1.AuditEntry, error] {
	req = proto.CloneOf(req)
	return pages(func(token string) ([]*telexecv1.AuditEntry, string, error) {
		if token != "" {
			req.PageToken = token
		}
		resp, err := c.ListAuditEntriesPage(ctx, req)
		return resp.GetEntries(), resp.GetNextPageToken(), err
	})
}

// ListAuditEntriesPage gives one page, for callers that page themselves.
func (c *Client) ListAuditEntriesPage(ctx context.Context, req *telexecv1.ListAuditEntriesRequest) (*telexecv1.ListAuditEntriesResponse, error) {
	return call(ctx, c, true, c.admin.ListAuditEntries, req)
}

// VerifyAudit lets the service check its audit. That a row is not as it was
// written is an answer (intact is false), not an error. It takes as long as
// reading all of it does, or what is behind the row that req names: head_sequence
// and head_hash of an earlier answer. Only an admin may.
func (c *Client) VerifyAudit(ctx context.Context, req *telexecv1.VerifyAuditRequest) (*telexecv1.VerifyAuditResponse, error) {
	return call(ctx, c, true, c.admin.VerifyAudit, req)
}

// ExportAudit gives the rows of the audit behind req.AfterSequence, in the order
// they were written and as they are, damaged ones too: an AuditChain checks them.
// It resumes by itself: when the connection or the service goes away it goes on
// behind the last row, so that none is missing or comes twice. The sequence ends
// behind the row that was the last when the service came to it, or with an error.
// Leaving the loop ends the stream. Only an admin may.
func (c *Client) ExportAudit(ctx context.Context, req *telexecv1.ExportAuditRequest) iter.Seq2[*telexecv1.ExportAuditResponse, error] {
	return func(yield func(*telexecv1.ExportAuditResponse, error) bool) {
		req := proto.CloneOf(req)
		if err := c.resuming(ctx, func(p *pause) *Error { return c.exportOnce(ctx, req, p, yield) }); err != nil {
			yield(nil, err)
		}
	}
}

// exportOnce exports over one connection and notes in req how far it has come. It
// gives nil when nothing more is to be done.
func (c *Client) exportOnce(ctx context.Context, req *telexecv1.ExportAuditRequest, p *pause, yield func(*telexecv1.ExportAuditResponse, error) bool) *Error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.admin.ExportAudit(streamCtx, req)
	if err != nil {
		return c.decode(ctx, err)
	}
	for {
		row, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.decode(ctx, err)
		}
		if row.GetSequence() <= req.GetAfterSequence() {
			return newError(codes.DataLoss, ReasonProtocol, "the service sent row %d of the audit behind row %d", row.GetSequence(), req.GetAfterSequence())
		}
		req.AfterSequence = row.GetSequence()
		p.progress()
		if !yield(row, nil) {
			return nil
		}
	}
}

// AuditChain checks rows of the audit, as ExportAudit gives them, without the
// service: each must follow the one before it, and its hash must be that of its
// text. So a row that was changed, removed, put in or moved is found; that rows are
// missing at the end is only seen by who has noted the number and hash of one of
// them (VerifyAudit gives them as head_sequence and head_hash).
//
// The zero value is ready for a chain from any row on, AuditChainAfter for one from
// a certain row on. It is for one goroutine.
type AuditChain struct {
	sequence int64
	hash     []byte // of the last good row; nil before the first
	broken   *AuditBreak
}

// AuditChainAfter is a chain that goes on behind a row that is known by its number
// and its hash, of 32 bytes: ExportAudit with that after_sequence gives its rows.
func AuditChainAfter(sequence int64, hash []byte) *AuditChain {
	return &AuditChain{sequence: sequence, hash: append([]byte{}, hash...)} // never nil, which would ask for nothing
}

// AuditBreak is the first row at which a chain is broken.
type AuditBreak struct {
	Sequence int64  // number of the row; where one is missing, its number
	Why      string // one sentence for people
}

// Error tells where and why.
func (b *AuditBreak) Error() string {
	return fmt.Sprintf("row %d of the audit: %s", b.Sequence, b.Why)
}

// Next checks the row that must follow. Its error is the *AuditBreak of the first
// row that is not good, then and from then on.
func (a *AuditChain) Next(row *telexecv1.ExportAuditResponse) error {
	if a.broken == nil {
		a.broken = a.check(row)
	}
	if a.broken != nil {
		return a.broken
	}
	a.sequence, a.hash = row.GetSequence(), bytes.Clone(row.GetHash())
	return nil
}

func (a *AuditChain) check(row *telexecv1.ExportAuditResponse) *AuditBreak {
	n, due, previous := row.GetSequence(), a.sequence+1, a.hash
	switch {
	case n < 1:
		return &AuditBreak{n, "no row has such a number"}
	case a.hash == nil && n == 1:
		previous = make([]byte, sha256.Size)
	case a.hash == nil && bytes.Equal(row.GetPreviousHash(), make([]byte, sha256.Size)):
		// The service leaves a number out where its audit was erased, and begins anew.
		return &AuditBreak{1, fmt.Sprintf("it is missing, and so is all up to row %d, which begins a new chain", n)}
	case a.hash == nil: // the chain is checked from here on
		due, previous = n, row.GetPreviousHash()
	}
	hash := sha256.New()
	hash.Write(row.GetPreviousHash())
	_, _ = io.WriteString(hash, row.GetText()) // a hash takes everything
	switch {
	case n > due:
		return &AuditBreak{due, fmt.Sprintf("it is missing; the next one there is %d", n)}
	case n < due:
		return &AuditBreak{n, "it stands twice, or out of its order"}
	case !bytes.Equal(row.GetPreviousHash(), previous) || len(previous) != sha256.Size:
		return &AuditBreak{n, "it does not follow the row before it: one of the two was changed, moved or put in"}
	case !bytes.Equal(hash.Sum(nil), row.GetHash()):
		return &AuditBreak{n, "its text is not what was written"}
	}
	return nil
}

// Head gives number and hash of the last good row, at first of the one that is
// known; 0 and nil where there is none.
func (a *AuditChain) Head() (sequence int64, hash []byte) { return a.sequence, a.hash }
