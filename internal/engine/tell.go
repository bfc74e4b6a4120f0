package engine

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/policy"
)

// What the audit is told of commands. An entry goes with the change that it tells
// of, into the same transaction of the journal: accepted with Create, the end and
// a cancel with Apply, a decision with Decide. What changes nothing in the journal,
// a signal or input, is told before it is sent.

// entry begins an entry with who did it.
func entry(kind audit.Kind, by access.Caller) audit.Entry {
	return audit.Entry{
		Time: time.Now(), Kind: kind,
		Principal: by.Name, Origin: string(by.Origin), Address: by.Address, Call: by.Call,
	}
}

// about adds the command that an entry is about, with what is secret in its line
// masked. l is its live where the caller has it, which may have been let go of since.
func (e *Engine) about(en audit.Entry, c *command.Command, l *live) audit.Entry {
	if l == nil {
		l = e.find(c.ID)
	}
	en.CommandID, en.Session, en.Host, en.Command, en.Rule = c.ID, c.Spec.SessionID, c.Spec.Host, e.masked(c, l), c.Rule
	if c.Spec.Task != nil {
		en.Task = c.Spec.Task.ID
	}
	if c.Spec.Sudo != nil {
		en.SudoUser = c.Spec.Sudo.User
		if en.SudoUser == "" {
			en.SudoUser = "root"
		}
	}
	return en
}

// masked gives the command line as the audit may keep it: none where what must not
// be shown of it is not known any more. Without l, which is of a command that has no
// owner, the masks are those of c.
func (e *Engine) masked(c *command.Command, l *live) string {
	redaction := e.redaction
	if c.Spec.SecretsLost || l != nil && l.unmaskable != nil {
		return ""
	}
	if l != nil {
		redaction = l.redaction
	} else if len(c.Spec.Redact) > 0 {
		var err error
		if redaction, err = output.NewRedaction(slices.Concat(e.redact, c.Spec.Redact)...); err != nil {
			return "" // there are more values now than can be masked: better nothing
		}
	}
	mask := redaction.Stream()
	line := bytes.Clone(mask.Write([]byte(c.CommandLine())))
	return string(append(line, mask.Flush()...))
}

func (e *Engine) accepted(by access.Caller, c *command.Command, said policy.Decision, hash []byte) audit.Entry {
	en := e.about(entry(audit.CommandAccepted, by), c, nil)
	en.Decision, en.RequestHash, en.Subject = string(said.Effect), hash, c.Spec.ActionType
	en.Outcome = string(c.State)
	return en
}

// ended tells of a command that has ended as c is.
func (e *Engine) ended(c *command.Command, stdout, stderr *audit.Output) audit.Entry {
	en := audit.Entry{Time: c.EndTime, Kind: audit.CommandEnded, Principal: c.CreatedBy.Principal, Origin: string(c.CreatedBy.Origin)}
	en = e.about(en, c, nil)
	en.Outcome, en.ExitCode, en.Signal = string(c.State), c.Exit.Code, c.Exit.Signal
	en.Stdout, en.Stderr = stdout, stderr
	if c.Failure != nil {
		en.Reason, en.Detail = c.Failure.Reason, c.Failure.Message
	}
	return en
}

func (e *Engine) decided(by access.Caller, c *command.Command, before, now *approval.Approval) audit.Entry {
	en := e.about(entry(audit.ApprovalDecided, by), c, nil)
	last := now.Decisions[len(before.Decisions)] // a narrowing modification has two; the first says it
	en.Outcome, en.Detail, en.RequestHash = string(last.Verdict), last.Reason, last.Hash
	if last.Verdict == approval.Modify {
		en.RequestHash = now.Hash // of what would run from then on
	}
	en.Decision, en.Rule = string(now.State), before.Rule
	return en
}

// tells gives an entry about a command that somebody acts on.
func (l *live) tells(kind audit.Kind, by access.Caller) audit.Entry {
	s := l.snapshot()
	return l.engine.about(entry(kind, by), &s.Command, l)
}

// writer is who writes to a command's standard input, and from where.
type writer struct {
	principal, address string
	origin             command.Origin
}

// tellInput tells the audit of input: once of each writer of a command, not of
// every key.
func (e *Engine) tellInput(ctx context.Context, by access.Caller, l *live) error {
	w := writer{by.Name, by.Address, by.Origin}
	l.mu.Lock()
	known := l.writers[w]
	l.mu.Unlock()
	if known {
		return nil
	}
	if err := e.journal.Record(ctx, l.tells(audit.CommandInput, by)); err != nil {
		return err
	}
	l.mu.Lock()
	if l.writers == nil {
		l.writers = make(map[writer]bool)
	}
	l.writers[w] = true
	l.mu.Unlock()
	return nil
}
