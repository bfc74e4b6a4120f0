// Package approval holds the words for a decision that a command waits for: who
// may take it, what was decided so far, and the pure functions that say what a
// decision leads to. No I/O happens here.
//
//	PENDING ──enough approve──▶ APPROVED       the command is queued
//	        ──one rejects─────▶ REJECTED       it never runs
//	        ──the deadline────▶ EXPIRED        it never runs
//	        ──it is cancelled─▶ WITHDRAWN      it never runs
//
// An approval is of one request, word for word: Hash is the SHA-256 of all of it,
// and a decision names the hash that the decider was shown. A modification makes a
// new revision with a new hash; decisions of an earlier revision count no more.
package approval

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// State is where an approval is. The strings are stored and shown.
type State string

// The states. All but Pending are ends.
const (
	Pending   State = "PENDING"   // → Approved, Rejected, Expired, Withdrawn
	Approved  State = "APPROVED"  // enough have approved
	Rejected  State = "REJECTED"  // one has rejected
	Expired   State = "EXPIRED"   // nobody decided in time
	Withdrawn State = "WITHDRAWN" // the command was cancelled
)

// States lists all states.
var States = []State{Pending, Approved, Rejected, Expired, Withdrawn}

// Verdict is what a decider says. The strings are stored and shown.
type Verdict string

// The verdicts.
const (
	Approve Verdict = "APPROVE" // run it as it was shown
	Reject  Verdict = "REJECT"  // do not run it
	Modify  Verdict = "MODIFY"  // run this instead
)

// Decider is who decides.
type Decider struct {
	command.Actor
	Roles []string // an admin has every role
}

func (d Decider) has(role string) bool {
	return slices.Contains(d.Roles, role) || slices.Contains(d.Roles, "admin")
}

// Ballot is what a decider says about one command.
type Ballot struct {
	CommandID string
	Verdict   Verdict
	Shown     []byte // hash of the request as the decider was shown it
	Reason    string
	Modified  *Modification // with Modify
}

// Modification is what is to run instead.
type Modification struct {
	Line    string
	Argv    []string
	Timeout time.Duration // 0: as it was asked for
}

// Decision is one that was taken.
type Decision struct {
	By       command.Actor
	Verdict  Verdict
	Reason   string
	Time     time.Time
	Revision int    // that it is of
	Hash     []byte // of the request that the decider was shown
	Command  string // of Modify: the command line from then on, at most MaxShown bytes; the Hash of the next revision is of all of it
	Asked    []byte // of Modify: SHA-256 of the Modification, by which it is known when it is asked for again
}

// Bounds of what an approval holds, so that whoever modifies again and again cannot
// make it too large to be sent or listed.
const (
	// MaxShown is how many bytes of an earlier command line a Decision shows.
	MaxShown = 4096
	// MaxRevisions is how often a request can be modified, and once more.
	MaxRevisions = 50
)

// Approval is a decision that a command waits for, or has waited for. Values are
// passed by copy; slices in them are never changed after they were set.
type Approval struct {
	CommandID string // the command; there is one approval of a command
	Version   int64  // grows with every change; the store compares it
	State     State

	// What the rule asks for.
	Rule      string
	Count     int      // how many must approve
	Roles     []string // who may: any of these
	AllowSelf bool     // also whoever asked
	Deadline  time.Time

	// What it is about.
	Requester      command.Actor
	RequesterRoles []string // for the rules, when it is modified
	Host           string
	Target         string        // login user and address of the host: "ops@10.0.0.7:22"
	Command        string        // the line as it is now
	Revision       int           // 1 as it was asked for; one more with every modification
	Author         command.Actor // of this revision
	Hash           []byte        // SHA-256 of the whole request as it is now

	CreateTime time.Time
	DecideTime time.Time // zero while pending
	Decisions  []Decision
}

// Approvals gives how many have approved the revision as it is now.
func (a *Approval) Approvals() (n int) {
	for _, d := range a.Decisions {
		if d.Revision == a.Revision && d.Verdict == Approve {
			n++
		}
	}
	return n
}

// May tells why the decider may not decide it; nil where they may. That they may
// not see it at all is for the caller to say.
func (a *Approval) May(d Decider) error {
	refuse := func(format string, args ...any) error {
		return fault.New(fault.PermissionDenied, fault.ReasonNotYourDecision, format, args...).
			WithHint("Ask a holder of %s", strings.Join(a.Roles, " or ")).With("command_id", a.CommandID)
	}
	switch {
	case a.State != Pending:
		return fault.New(fault.FailedPrecondition, fault.ReasonAlreadyDecided, "it has been decided: it is %s", a.State).
			WithHint("Nothing more can be decided about it; the command's status tells what came of it").With("command_id", a.CommandID)
	case !slices.ContainsFunc(a.Roles, d.has):
		return refuse("it is for %s to decide", strings.Join(a.Roles, " or "))
	case !a.AllowSelf && d.Principal == a.Requester.Principal:
		return refuse("nobody decides about a command of their own")
	case d.Principal == a.Author.Principal && d.Principal != a.Requester.Principal:
		return refuse("nobody approves a modification of their own that goes beyond what was asked for; another approver must")
	case a.decided(d.Principal):
		return refuse("%s has approved it already; another approver must", d.Principal)
	}
	return nil
}

func (a *Approval) decided(principal string) bool {
	return slices.ContainsFunc(a.Decisions, func(d Decision) bool {
		return d.Revision == a.Revision && d.By.Principal == principal
	})
}

// Take gives the approval with one more decision, Approve or Reject, by a decider
// who May decide and was shown the request with the given hash. One who was shown
// another one is told so (REQUEST_CHANGED), and one who comes after the deadline
// that it is over (ALREADY_DECIDED), whether or not the end is stored by then.
func (a Approval) Take(d Decider, v Verdict, reason string, shown []byte, now time.Time) (Approval, error) {
	if v != Approve && v != Reject {
		return a, fault.New(fault.Internal, fault.ReasonInternal, "%q is no verdict of Take", v)
	}
	if err := a.May(d); err != nil && (v != Reject || fault.ReasonOf(err) != fault.ReasonNotYourDecision || !a.mayReject(d)) {
		return a, err
	}
	if err := a.stands(shown, now); err != nil {
		return a, err
	}
	a.Version++
	a.Decisions = append(slices.Clone(a.Decisions), Decision{By: d.Actor, Verdict: v, Reason: reason, Time: now, Revision: a.Revision, Hash: a.Hash})
	switch {
	case v == Reject:
		a.State, a.DecideTime = Rejected, now
	default:
		a.conclude(now)
	}
	return a, nil
}

// stands tells why a decision about what was shown cannot be taken at now.
func (a *Approval) stands(shown []byte, now time.Time) error {
	switch {
	case !now.Before(a.Deadline):
		return fault.New(fault.FailedPrecondition, fault.ReasonAlreadyDecided, "its time is over: nobody can decide it any more").
			WithHint("Have it asked for again; the command's status tells what came of this one").With("command_id", a.CommandID)
	case !bytes.Equal(shown, a.Hash):
		return fault.New(fault.Aborted, fault.ReasonRequestChanged, "what was shown is not the request that waits, which is revision %d", a.Revision).
			WithHint("Read it again and decide anew").With("command_id", a.CommandID).With("revision", strconv.Itoa(a.Revision))
	}
	return nil
}

// conclude approves it where enough have; at least one must.
func (a *Approval) conclude(now time.Time) {
	if a.Approvals() >= max(a.Count, 1) {
		a.State, a.DecideTime = Approved, now
	}
}

// mayReject reports whether a decider who may not approve may at least reject:
// to say no to one's own request, or after one's own yes, harms nobody.
func (a *Approval) mayReject(d Decider) bool {
	return a.State == Pending && (slices.ContainsFunc(a.Roles, d.has) || d.Principal == a.Requester.Principal)
}

// Revise gives the approval with a new revision of the request by a decider who
// May decide: hash and line are of the request as it is to be, gate what the
// rules ask for it now. Where it is narrower than the one before, the modification
// is the decider's approval as well; else somebody else must approve it.
func (a Approval) Revise(d Decider, b Ballot, hash []byte, line string, narrower bool, gate Gate, now time.Time) (Approval, error) {
	if err := a.May(d); err != nil {
		return a, err
	}
	if err := a.stands(b.Shown, now); err != nil {
		return a, err
	}
	if a.Revision > MaxRevisions {
		return a, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "it was modified %d times, and cannot be once more", MaxRevisions).
			WithHint("Approve it, or reject it and have it asked for anew").With("command_id", a.CommandID)
	}
	a.Version++
	a.Revision++
	a.Decisions = append(slices.Clone(a.Decisions), Decision{
		By: d.Actor, Verdict: Modify, Reason: b.Reason, Time: now, Revision: a.Revision - 1, Hash: a.Hash, Command: cut(line), Asked: b.Modified.digest(),
	})
	a.Hash, a.Command = hash, line
	a.Rule, a.Count, a.Roles, a.AllowSelf = gate.Rule, max(a.Count, gate.Count), gate.Roles, gate.AllowSelf
	if narrower {
		a.Decisions = append(a.Decisions, Decision{By: d.Actor, Verdict: Approve, Reason: b.Reason, Time: now, Revision: a.Revision, Hash: hash})
	} else {
		a.Author = d.Actor
	}
	a.conclude(now)
	return a, nil
}

// cut gives at most MaxShown bytes of a line, with an ellipsis where it was longer.
func cut(line string) string {
	if len(line) <= MaxShown {
		return line
	}
	n := MaxShown - len("…")
	for n > 0 && !utf8.RuneStart(line[n]) {
		n--
	}
	return line[:n] + "…"
}

// Gate is what a rule asks for.
type Gate struct {
	Rule      string
	Count     int
	Roles     []string
	AllowSelf bool
}

// End gives the approval ended without a decision: Expired, Withdrawn, or Rejected
// by the service itself, which cannot run the command any more.
func (a Approval) End(s State, now time.Time) Approval {
	a.Version++
	a.State, a.DecideTime = s, now
	return a
}

// Same reports whether b is a after the same decisions.
func (a *Approval) Same(b *Approval) bool {
	return a.Version == b.Version && a.State == b.State && bytes.Equal(a.Hash, b.Hash) && a.DecideTime.Equal(b.DecideTime) &&
		slices.EqualFunc(a.Decisions, b.Decisions, func(x, y Decision) bool {
			return x.By == y.By && x.Verdict == y.Verdict && x.Time.Equal(y.Time)
		})
}

// Taken reports whether the decider has taken that decision already: who asks again,
// since the answer was lost, is to hear the same, whatever others have decided
// meanwhile.
func (a *Approval) Taken(d Decider, b Ballot) bool {
	return slices.ContainsFunc(a.Decisions, func(was Decision) bool {
		return was.By.Principal == d.Principal && was.Verdict == b.Verdict && was.Reason == b.Reason &&
			(bytes.Equal(was.Hash, b.Shown) || b.Verdict == Reject && len(b.Shown) == 0) &&
			bytes.Equal(was.Asked, b.Modified.digest())
	})
}

// digest gives the SHA-256 of the modification; nil of none.
func (m *Modification) digest() []byte {
	if m == nil {
		return nil
	}
	text := binary.AppendVarint(nil, int64(m.Timeout))
	for _, part := range append([]string{m.Line}, m.Argv...) {
		text = append(binary.AppendUvarint(text, uint64(len(part))), part...)
	}
	sum := sha256.Sum256(text)
	return sum[:]
}

// Step is one approval's part of a change that the store takes whole or not at
// all: the approval as it is to be, applied only while the stored one has the
// version before, and what it means for the command.
type Step struct {
	Approval Approval
	Change   command.Change
	Spec     *command.Spec // not nil: what is asked for from now on
}

// Filter selects approvals for a list. The zero value selects all; newest first,
// by falling command id.
type Filter struct {
	States  []State
	Visible *Visible // nil: whatever there is
	Before  string   // only command ids below this one
	Limit   int      // at most so many; 0: no limit
}

// Visible bounds a list to what a caller may see: what the principal asked for,
// what holders of one of these roles decide about, and what is on these hosts. A
// role is found word for word: that an admin has every role is for the caller to
// say, with a nil Visible.
type Visible struct {
	Principal string
	Roles     []string
	Hosts     []string
}
