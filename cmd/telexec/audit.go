package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type auditCmd struct {
	List   auditListCmd   `cmd:"" default:"withargs" help:"List what was done, newest first (the default)."`
	Verify auditVerifyCmd `cmd:"" help:"Check that the audit is as it was written; exit code 0 only if it is."`
	Export auditExportCmd `cmd:"" help:"Write the audit as JSON lines that can be checked anywhere."`
}

type auditListCmd struct {
	Kind      []string `placeholder:"KIND" help:"Only of these kinds, as command.accepted, approval.decided, refused, login, token.created."`
	Principal string   `placeholder:"NAME" help:"Only by this principal."`
	Host      string   `placeholder:"HOST" help:"Only on this host."`
	Command   string   `placeholder:"ID" help:"Only about this command: its whole id."`
	Since     string   `placeholder:"TIME" help:"Only since then: a duration before now (90m, 2h, 7d), a date or a time (2006-01-02, RFC 3339)."`
	Limit     int      `default:"50" placeholder:"N" help:"At most so many (default ${default}; 0: all)."`
}

// Help is shown by audit --help.
func (auditListCmd) Help() string {
	return `There are also telexec audit verify and telexec audit export. Only an admin may.

Examples:

    telexec audit --kind refused --since 2h
    telexec audit --command 01J8Z3K4M5N6P7Q8R9S0T1V2W3 --json`
}

// Run lists the entries. JSON lines come as they are fetched.
func (c *auditListCmd) Run(ctx context.Context, a *app) error {
	req := &telexecv1.ListAuditEntriesRequest{
		PageSize: maxPage, Kinds: c.Kind, Principal: c.Principal, Host: c.Host, CommandId: strings.TrimPrefix(c.Command, "commands/"),
	}
	if c.Limit < 0 {
		return failure("--limit cannot be below 0")
	}
	if c.Limit > 0 {
		req.PageSize = int32(min(c.Limit, maxPage))
	}
	if c.Since != "" {
		t, err := parseSince(c.Since, a.out.now())
		if err != nil {
			return err
		}
		req.TimeFrom = timestamppb.New(t)
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		var rows [][]cell
		n := 0
		for e, err := range cl.ListAuditEntries(ctx, req) {
			if err != nil {
				return err
			}
			if n++; c.Limit > 0 && n > c.Limit {
				break
			}
			if !a.opts.JSON {
				rows = append(rows, a.auditRow(e))
			} else if err := a.out.line(e); err != nil {
				return err
			}
			if n == c.Limit {
				break // without fetching a page for nothing
			}
		}
		if a.opts.JSON {
			return nil
		}
		return a.out.table([]string{"ROW", "TIME", "KIND", "BY", "FROM", "HOST", "CAME TO", "WHAT"}, rows)
	})
}

func (a *app) auditRow(e *telexecv1.AuditEntry) []cell {
	by := "-"
	if e.GetBy().GetPrincipal() != "" {
		by = actor(e.GetBy())
	}
	return []cell{
		plainCell(strconv.FormatInt(e.GetSequence(), 10)), plainCell(a.out.ago(e.GetTime())), plainCell(e.GetKind()), plainCell(by),
		plainCell(firstOf(e.GetAddress(), "-")), plainCell(firstOf(e.GetHost(), "-")), cameToCell(e),
		plainCell(firstOf(e.GetCommand(), e.GetSubject(), e.GetMethod(), e.GetDetail())),
	}
}

// cameToCell is what came of what an entry tells: "deny by no-shells",
// "completed, exit code 3", "TOKEN_EXPIRED ×4".
func cameToCell(e *telexecv1.AuditEntry) cell {
	var parts []string
	colour := ""
	if e.GetDecision() != "" {
		parts = append(parts, strings.TrimSuffix(e.GetDecision()+" by "+e.GetRule(), " by "))
	}
	if e.GetOutcome() != "" {
		parts = append(parts, strings.ToLower(e.GetOutcome()))
	}
	if e.ExitCode != nil {
		parts = append(parts, fmt.Sprintf("exit code %d", e.GetExitCode()))
	}
	if e.GetSignal() != "" {
		parts = append(parts, e.GetSignal())
	}
	if e.GetReason() != "" {
		parts = append(parts, e.GetReason())
		colour = red
	}
	text := firstOf(strings.Join(parts, ", "), "-")
	if e.GetCount() > 1 {
		text += fmt.Sprintf(" ×%d", e.GetCount())
	}
	return cell{text, colour}
}

type auditVerifyCmd struct {
	From string `placeholder:"ROW:HASH" help:"A row that was noted earlier, elsewhere: it must be as it was, and what is behind it is checked."`
	File string `placeholder:"EXPORT" type:"existingfile" help:"Check this export instead of the service's audit; no service is asked."`
}

// Help is shown by audit verify --help.
func (auditVerifyCmd) Help() string {
	return `Each row has the SHA-256 of the row before it and of its own text, so that a row that was changed, removed, moved or put
in is found; the first such row is named. Exit code 0: the audit is as it was written; 1: it is not.

An audit that was written anew from the beginning fits together as well. So note its last row somewhere else from time to time,
and give it to the next check, which takes no longer than what came since. An export can be checked on another machine; it may
begin at that row or behind it. That rows are missing at the end of an export is not seen, unless the row is missing too.

Examples:

    telexec audit verify
    telexec audit verify --from 1234:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    telexec audit verify --file audit.jsonl`
}

// Run checks.
func (c *auditVerifyCmd) Run(ctx context.Context, a *app) error {
	req := &telexecv1.VerifyAuditRequest{}
	if c.From != "" {
		row, hash, _ := strings.Cut(c.From, ":")
		n, err := strconv.ParseInt(row, 10, 64)
		if err != nil || n < 1 {
			return failure("--from: %q does not begin with the number of a row", c.From).withHint("Give it as telexec audit verify has told it, ROW:HASH")
		}
		req.AfterSequence = n
		if req.AfterHash, err = parseHash("--from", hash); err != nil {
			return err
		}
	}
	if c.File != "" {
		f, err := os.Open(c.File)
		if err != nil {
			return failure("cannot read the export: %v", err)
		}
		defer f.Close()
		resp, err := verifyExport(f, req)
		if err != nil {
			return err
		}
		return a.verified(req, resp)
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		resp, err := cl.VerifyAudit(ctx, req)
		if err != nil {
			return err
		}
		return a.verified(req, resp)
	})
}

// verified prints what a check has found and ends with the code for it.
func (a *app) verified(req *telexecv1.VerifyAuditRequest, resp *telexecv1.VerifyAuditResponse) error {
	var err error
	switch {
	case a.opts.JSON:
		err = a.out.document(resp)
	case resp.GetIntact():
		behind := ""
		if req.GetAfterSequence() > 0 {
			behind = fmt.Sprintf(" behind row %d", req.GetAfterSequence())
		}
		_, err = fmt.Fprintf(a.out.stdout, "%s, %d rows%s; the last is %d:%x\n", a.out.paint("intact", green), resp.GetVerifiedRows(), behind,
			resp.GetHeadSequence(), resp.GetHeadHash())
	default:
		_, err = fmt.Fprintf(a.out.stdout, "%s at row %d: %s\n", a.out.paint("broken", red), resp.GetBrokenSequence(), printable(resp.GetBrokenReason()))
	}
	if err != nil {
		return err
	}
	if !resp.GetIntact() {
		return &exitError{code: exitNo}
	}
	return nil
}

// exportRow is a line of an export.
type exportRow struct {
	Sequence     int64  `json:"sequence"`
	PreviousHash string `json:"previous_hash"` // hexadecimal, as hash
	Hash         string `json:"hash"`
	Text         string `json:"text"` // of which hash is the SHA-256, behind that of the row before
}

// exportLine is the most that a line of an export may have, in bytes.
const exportLine = 16 << 20

// verifyExport checks an export as the service checks its audit. Where a row is
// known, the export may begin before it, with it or right behind it. The error is a
// file that is no export.
func verifyExport(r io.Reader, req *telexecv1.VerifyAuditRequest) (*telexecv1.VerifyAuditResponse, error) {
	known := req.GetAfterSequence()
	chain := &client.AuditChain{}
	if known > 0 {
		chain = client.AuditChainAfter(known, req.GetAfterHash())
	}
	resp := &telexecv1.VerifyAuditResponse{Intact: true}
	broken := func(err error) {
		if b, ok := errors.AsType[*client.AuditBreak](err); ok {
			resp.Intact, resp.BrokenSequence, resp.BrokenReason = false, b.Sequence, b.Why
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, exportLine)
	met := known == 0 // the known row, or one behind it
	n := 0
	for ; resp.GetIntact() && lines.Scan(); n++ {
		row, err := parseExportRow(lines.Bytes())
		if err != nil {
			return nil, failure("line %d is not a row of an export: %v", n+1, err).
				withHint("telexec audit export writes one that can be checked")
		}
		switch {
		case !met && row.GetSequence() < known: // nobody has asked about it
		case !met && row.GetSequence() == known:
			met = true
			if err := asNoted(row, req.GetAfterHash()); err != nil {
				broken(err)
				return resp, nil
			}
		default:
			met = true
			if err := chain.Next(row); err != nil {
				broken(err)
				continue
			}
			resp.VerifiedRows++
		}
	}
	if err := lines.Err(); err != nil {
		return nil, failure("cannot read the export: %v", err)
	}
	if n == 0 {
		return nil, failure("the export holds no row")
	}
	if !met {
		broken(&client.AuditBreak{Sequence: known, Why: "it was noted, and is not in the export"})
		return resp, nil
	}
	resp.HeadSequence, resp.HeadHash = chain.Head()
	return resp, nil
}

// asNoted checks the row that is known.
func asNoted(row *telexecv1.ExportAuditResponse, hash []byte) error {
	var alone client.AuditChain
	if err := alone.Next(row); err != nil {
		return err
	}
	if !bytes.Equal(row.GetHash(), hash) {
		return &client.AuditBreak{Sequence: row.GetSequence(), Why: "it has another hash than the one that was noted"}
	}
	return nil
}

func parseExportRow(line []byte) (*telexecv1.ExportAuditResponse, error) {
	var e exportRow
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, err
	}
	previous, err := hex.DecodeString(e.PreviousHash)
	if err != nil {
		return nil, fmt.Errorf("previous_hash: %w", err)
	}
	hash, err := hex.DecodeString(e.Hash)
	if err != nil {
		return nil, fmt.Errorf("hash: %w", err)
	}
	return &telexecv1.ExportAuditResponse{Sequence: e.Sequence, PreviousHash: previous, Hash: hash, Text: e.Text}, nil
}

type auditExportCmd struct {
	After int64  `placeholder:"ROW" help:"Only rows behind this one."`
	File  string `arg:"" optional:"" type:"path" help:"File to write, which must not be there yet (default: standard output)."`
}

// Help is shown by audit export --help.
func (auditExportCmd) Help() string {
	return `Each line is a JSON object: sequence, previous_hash and hash in hexadecimal, and text, the entry as it was written:

    hash = SHA-256(previous_hash as 32 bytes, followed by text)

An export that is cut off goes on by itself; one that was ended goes on with --after. telexec audit verify --file checks it.
Only an admin may.

Examples:

    telexec audit export audit.jsonl
    telexec audit export --after 1234 >> audit.jsonl`
}

// progressEvery is how often the number of rows written is told.
const progressEvery = 200 * time.Millisecond

// Run exports.
func (c *auditExportCmd) Run(ctx context.Context, a *app) error {
	if c.After < 0 {
		return failure("--after cannot be below 0")
	}
	out := a.out.stdout
	if c.File != "" {
		// What it tells is for admins; and no earlier export is written over.
		f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return failure("cannot write the export: %v", err)
		}
		defer f.Close() // again, where all went well
		out = f
	}
	w := bufio.NewWriter(out)
	err := a.session(ctx, func(ctx context.Context, cl *client.Client) error { return c.export(ctx, a, cl, w) })
	if flushErr := w.Flush(); err == nil {
		err = flushErr
	}
	if f, ok := out.(*os.File); ok && c.File != "" && err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	return err
}

func (c *auditExportCmd) export(ctx context.Context, a *app, cl *client.Client, w io.Writer) error {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	last, n := c.After, 0
	told := a.out.now()
	shows := a.out.remarks && !a.out.quiet && c.File != ""
	var err error
	for row, rowErr := range cl.ExportAudit(ctx, &telexecv1.ExportAuditRequest{AfterSequence: c.After}) {
		if err = rowErr; err != nil {
			break
		}
		err = lines.Encode(exportRow{row.GetSequence(), hex.EncodeToString(row.GetPreviousHash()), hex.EncodeToString(row.GetHash()), row.GetText()})
		if err != nil {
			break
		}
		last = row.GetSequence()
		n++
		if now := a.out.now(); shows && now.Sub(told) >= progressEvery {
			told = now
			a.out.printErr(fmt.Sprintf("\rtelexec: %d rows", n))
		}
	}
	if shows {
		a.out.printErr(fmt.Sprintf("\rtelexec: %d rows, the last is %d\n", n, last))
	}
	if err != nil && n > 0 {
		a.out.tell("%d rows were exported, up to row %d: --after %[2]d goes on", n, last)
	}
	return err
}
