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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
	Command   string   `placeholder:"ID" help:"Only about this command: its id, or enough of its end."`
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
		PageSize: maxPage, Kinds: c.Kind, Principal: c.Principal, Host: c.Host,
	}
	for _, k := range c.Kind {
		if known := knownValues["kind"]; !slices.Contains(known, k) {
			return failure("there is no kind %q", k).withHint("The kinds are %s", strings.Join(known, ", "))
		}
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
		if c.Command != "" {
			id, err := a.idArg(ctx, cl, c.Command)
			if err != nil {
				return err
			}
			req.CommandId = id
		}
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
	what := firstOf(e.GetCommand(), e.GetSubject(), e.GetMethod(), e.GetDetail())
	if ofTask(e) {
		what = firstOf(e.GetDetail(), e.GetTask())
	}
	return []cell{
		plainCell(strconv.FormatInt(e.GetSequence(), 10)), plainCell(a.out.ago(e.GetTime())), plainCell(e.GetKind()), plainCell(by),
		plainCell(firstOf(e.GetAddress(), "-")), plainCell(firstOf(e.GetHost(), "-")), cameToCell(e),
		plainCell(what),
	}
}

// ofTask reports whether an entry is about a task as a whole.
func ofTask(e *telexecv1.AuditEntry) bool { return strings.HasPrefix(e.GetKind(), "task.") }

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
	if e.GetCount() > 1 && !ofTask(e) { // there it is the number of steps
		text += fmt.Sprintf(" ×%d", e.GetCount())
	}
	return cell{text, colour}
}

type auditVerifyCmd struct {
	From string `placeholder:"ROW:HASH" help:"A row that was noted earlier, elsewhere: it must be as it was, and what is behind it is checked."`
	File string `placeholder:"EXPORT" type:"existingfile" help:"Check this export instead of the service's audit; no service is asked. - for standard input."`
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
    telexec audit verify --file audit.jsonl
    zcat audit.jsonl.gz | telexec audit verify --file -`
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
		resp, err := a.verifyFile(ctx, c.File, req)
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

// verifyFile checks the export in a file, or that which comes on standard input. A
// signal ends it, also while nothing comes.
func (a *app) verifyFile(ctx context.Context, file string, req *telexecv1.VerifyAuditRequest) (*telexecv1.VerifyAuditResponse, error) {
	export := a.env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, failure("cannot read the export: %v", err)
		}
		defer f.Close()
		export = f
	}
	ctx, stop := a.interruptible(ctx)
	type result struct {
		resp *telexecv1.VerifyAuditResponse
		err  error
	}
	checked := make(chan result, 1) // sent to once; nobody may be there to take it
	go func() {
		resp, err := verifyExport(export, req)
		checked <- result{resp, err}
	}()
	select {
	case r := <-checked:
		_ = stop()
		return r.resp, r.err
	case <-ctx.Done():
		if interrupted := stop(); interrupted != nil {
			return nil, interrupted
		}
		return nil, ctx.Err()
	}
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
	if c.File == "" {
		return c.export(ctx, a, a.out.stdout, func() error { return nil })
	}
	// What it tells is for admins; and no earlier export is written over.
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failure("cannot write the export: %v", err)
	}
	err = c.export(ctx, a, f, func() error { return errors.Join(f.Sync(), f.Close()) })
	if info, statErr := os.Stat(c.File); err != nil && statErr == nil && info.Size() == 0 {
		_ = os.Remove(c.File) // ours, and in the way of the next attempt
	}
	return err
}

// export writes the rows to out and then calls finish, behind which they are kept.
// Only what is kept is told to be there to go on from.
func (c *auditExportCmd) export(ctx context.Context, a *app, out io.Writer, finish func() error) error {
	w := bufio.NewWriter(out)
	last, n := c.After, 0
	var writeErr error // matters more than a signal, so that it is not given to session
	err := a.session(ctx, func(ctx context.Context, cl *client.Client) (err error) {
		last, n, err, writeErr = c.rows(ctx, a, cl, w)
		return err
	})
	if writeErr == nil {
		writeErr = w.Flush()
	}
	writeErr = errors.Join(writeErr, finish())
	switch {
	case errors.Is(writeErr, syscall.EPIPE):
		return writeErr // nobody reads it to its end
	case writeErr != nil:
		return failure("the export could not be written: %v", writeErr).withHint("What was written is not whole: remove it, and export again")
	case err != nil && n > 0:
		onward := ""
		if c.File != "" {
			onward = " >> " + shellWord(c.File) // which is there now, and would be refused
		}
		a.out.tell("%d rows were exported, up to row %d: telexec audit export --after %[2]d%[3]s goes on", n, last, onward)
	}
	return err
}

// rows writes the rows to w and tells how far it is. It gives the last row and how
// many there were, how reading them has ended, and how writing them has.
func (c *auditExportCmd) rows(ctx context.Context, a *app, cl *client.Client, w io.Writer) (last int64, n int, readErr, writeErr error) {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	last = c.After
	told, begun := a.out.now(), false
	shows := a.out.remarks && !a.out.quiet && c.File != ""
	for row, err := range cl.ExportAudit(ctx, &telexecv1.ExportAuditRequest{AfterSequence: c.After}) {
		if err != nil {
			readErr = err
			break
		}
		writeErr = lines.Encode(exportRow{row.GetSequence(), hex.EncodeToString(row.GetPreviousHash()), hex.EncodeToString(row.GetHash()), row.GetText()})
		if writeErr != nil {
			break
		}
		last = row.GetSequence()
		n++
		if now := a.out.now(); shows && now.Sub(told) >= progressEvery {
			told, begun = now, true
			a.out.printErr(fmt.Sprintf("\rtelexec: %d rows", n))
		}
	}
	switch {
	case shows && readErr == nil && writeErr == nil:
		a.out.printErr(fmt.Sprintf("\rtelexec: %d rows, the last is %d\n", n, last))
	case begun:
		a.out.printErr("\n") // how far it came is told with the error
	}
	return last, n, readErr, writeErr
}

// plainWord is a word that a shell reads as it is.
var plainWord = regexp.MustCompile(`^[\w/.,:@%+-]+$`)

// shellWord gives s as a shell reads it as one word.
func shellWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
