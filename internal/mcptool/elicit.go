package mcptool

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// A command that waits for approval can be shown to the person before the client,
// by elicitation: the client shows a form, and its answer never passes the model.
//
// Whoever answers the form decides with the caller's own token. A client that
// answers forms by itself would so approve what its model has asked for. Hence three
// things must come together: whoever started the adapter allows it
// (Options.ElicitApprovals), the client can show a form, and the service says that
// this token may decide this command, which for a command of its own needs a rule
// with allow_self.
//
// How the form gets to the client depends on the revision of the protocol. Up to
// 2025-11-25 it is a request of ours, and the call waits for its answer:
//
//	execute_command ─▶ Execute: AWAITING_APPROVAL ─▶ elicitation/create ─▶ DecideApprovals ─▶ wait ─▶ answer
//
// From 2026-07-28 on the call is answered with the form (input_required), and made
// again with what was filled in. The second call finds the command of the first by
// its request id, which makes it the same command or an error, whatever came with
// it; what else it brings along is the hash of what was shown, which the service
// compares.

// asking is what came of a question to the person. The zero value: none was put.
type asking struct {
	said string              // one sentence about it, for the answer
	form *mcp.CallToolResult // the answer to the call, which is then made again
}

// askPerson lets the person decide about a command that waits for approval, as far
// as that can be done here. It returns in time for an answer within ctx, decided or
// not: the status of the command tells.
func (c *call) askPerson(ctx context.Context, cmd *telexecv1.Command) asking {
	if !c.elicits || !showsForms(c.request.ClientCapabilities()) {
		return asking{}
	}
	approval, err := c.client.GetApproval(ctx, cmd.GetId())
	if err != nil {
		c.log.WarnContext(ctx, "an approval cannot be shown", "command", cmd.GetId(), "error", err)
		return asking{said: "The person could not be asked here: " + tellError(err).Error.Message + "."}
	}
	if !approval.GetCanDecide() {
		return asking{said: strings.TrimSuffix("The person was not asked here, for somebody else must decide: "+brief(approval.GetCannotDecideReason()), ".") + "."}
	}
	if earlier, ok := c.earlierRound(); ok {
		return c.decide(ctx, cmd.GetId(), earlier.hash, c.filledIn())
	}
	text, ok := formText(approval)
	if !ok {
		return asking{said: "The person was not asked here, for the command is too long to be shown whole."}
	}
	form := &mcp.ElicitParams{Mode: "form", Message: text, RequestedSchema: formSchema}
	if c.request.ProtocolVersion() >= roundsSince {
		state := round{cmd.GetRequestId(), approval.GetRequestHash()}
		return asking{form: &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{formKey: form}, RequestState: state.String()}}
	}
	patient, cancel := context.WithTimeout(ctx, clamp(ctx, longest)) // what is left is for the decision and the answer
	defer cancel()
	filled, err := c.elicit(patient, form, cmd.GetId())
	switch {
	case err == nil:
		return c.decide(ctx, cmd.GetId(), approval.GetRequestHash(), filled)
	case errors.Is(err, errDecided):
		return asking{said: saidElsewhere}
	case patient.Err() != nil:
		return asking{said: "The person was asked here and has not answered in time; the form does not count any more."}
	}
	c.log.WarnContext(ctx, "a client shows no form", "command", cmd.GetId(), "error", err)
	return asking{said: "The person could not be asked here."}
}

const saidElsewhere = "It was decided elsewhere before the person answered here."

// errDecided ends a form: the command does not wait any more.
var errDecided = errors.New("decided elsewhere")

// elicit shows a form until it is filled in, ctx ends, or the command is decided
// elsewhere, which is errDecided.
func (c *call) elicit(ctx context.Context, form *mcp.ElicitParams, id string) (*mcp.ElicitResult, error) {
	ctx, stop := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		if c.decided(ctx, id) {
			stop(errDecided)
		}
	})
	filled, err := c.request.Session.Elicit(ctx, form)
	if err != nil && context.Cause(ctx) == errDecided {
		err = errDecided
	}
	stop(nil)
	watching.Wait()
	return filled, err
}

// decided waits until a command does not wait for approval any more; false where
// that does not happen shortly before ctx ends, or cannot be told.
func (c *call) decided(ctx context.Context, id string) bool {
	var version int64 // 0: the first answer comes at once
	for wait := clamp(ctx, longest); wait > 0; wait = clamp(ctx, longest) {
		resp, err := c.client.GetStatus(ctx, &telexecv1.GetStatusRequest{
			CommandId: id, Wait: durationpb.New(wait), IfVersionGreaterThan: &version, Output: &telexecv1.OutputOptions{Omit: true},
		})
		if err != nil {
			return false
		}
		if !awaits(resp.GetCommand()) {
			return true
		}
		version = resp.GetCommand().GetVersion()
	}
	return false
}

// decide tells the service what was filled in, if that is a decision.
func (c *call) decide(ctx context.Context, id string, shown []byte, filled *mcp.ElicitResult) asking {
	decision := &telexecv1.Decision{CommandId: id, RequestHash: shown}
	decision.Verdict, decision.Reason = verdictOf(filled)
	said := "The person was asked here and has approved it."
	switch decision.GetVerdict() {
	case telexecv1.Verdict_VERDICT_UNSPECIFIED:
		return asking{said: "The person was asked here and has not decided."}
	case telexecv1.Verdict_VERDICT_REJECT:
		said = "The person was asked here and has rejected it."
	}
	_, err := c.client.DecideApprovals(ctx, &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{decision}})
	if err == nil {
		c.log.InfoContext(ctx, "a person has decided through a form", "command", id, "verdict", decision.GetVerdict().String())
		return asking{said: said}
	}
	c.log.WarnContext(ctx, "what a person has decided does not count", "command", id, "error", err)
	switch e := tellError(err).Error; e.Reason {
	case "ALREADY_DECIDED":
		return asking{said: saidElsewhere}
	case "REQUEST_CHANGED":
		return asking{said: "The person was asked here, but what would run was changed meanwhile, so that the answer does not count."}
	default:
		return asking{said: fmt.Sprintf("The person was asked here, but the answer could not be passed on (%s: %s).", e.Reason, strings.TrimSuffix(e.Message, "."))}
	}
}

// showsForms reports whether a client can show a form. One that names no mode can:
// older revisions know no other.
func showsForms(capabilities *mcp.ClientCapabilities) bool {
	if capabilities == nil || capabilities.Elicitation == nil {
		return false
	}
	return capabilities.Elicitation.Form != nil || capabilities.Elicitation.URL == nil
}

// roundsSince is the revision from which on a server does not ask by requests of its
// own, but by the answer to a call.
const roundsSince = "2026-07-28"

// round is what a call is to bring along when it is made again with the form filled
// in. It comes from the client, and so nothing here may be trusted; see the top.
type round struct {
	requestID string
	hash      []byte // of what was shown
}

func (r round) String() string { return hex.EncodeToString(r.hash) + "." + r.requestID }

// earlierRound is the round that a call goes on with.
func (c *call) earlierRound() (round, bool) {
	if !c.elicits {
		return round{}, false
	}
	shown, requestID, ok := strings.Cut(c.request.Params.RequestState, ".")
	hash, err := hex.DecodeString(shown)
	return round{requestID, hash}, ok && err == nil && len(hash) > 0 && requestID != ""
}

// filledIn is the form that came with a call, or nil.
func (c *call) filledIn() *mcp.ElicitResult {
	filled, _ := c.request.Params.InputResponses[formKey].(*mcp.ElicitResult)
	return filled
}

// The form: a word that says it, so that no click alone can approve, and a reason.
const (
	formKey      = "approval"
	fieldVerdict = "decision"
	fieldReason  = "reason"
	maxReason    = 1024 // bytes, as the service takes
)

var formSchema = &jsonschema.Schema{
	Type: "object",
	Properties: map[string]*jsonschema.Schema{
		fieldVerdict: {Type: "string", Title: "Decision", Description: "approve: run it as it is shown; reject: do not run it", Enum: []any{"approve", "reject"}},
		fieldReason:  {Type: "string", Title: "Reason", Description: "kept with the decision, and told to the agent", MaxLength: new(maxReason)},
	},
	Required: []string{fieldVerdict},
}

// verdictOf reads a form. To decline it is to reject, as its text says; whatever is
// not plainly a yes or a no is no decision.
func verdictOf(filled *mcp.ElicitResult) (telexecv1.Verdict, string) {
	if filled == nil {
		return telexecv1.Verdict_VERDICT_UNSPECIFIED, ""
	}
	reason, _ := filled.Content[fieldReason].(string)
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) > maxReason {
		reason = reason[:runeStart(reason, maxReason)]
	}
	switch {
	case filled.Action == "decline":
		return telexecv1.Verdict_VERDICT_REJECT, reason
	case filled.Action != "accept":
	case filled.Content[fieldVerdict] == "approve":
		return telexecv1.Verdict_VERDICT_APPROVE, reason
	case filled.Content[fieldVerdict] == "reject":
		return telexecv1.Verdict_VERDICT_REJECT, reason
	}
	return telexecv1.Verdict_VERDICT_UNSPECIFIED, ""
}

// maxShown is how long a form may be, in bytes: what is to be approved must be
// shown whole, and read.
const maxShown = 4 << 10

// formText shows what would run, where and for whom. It is not ok where that is too
// long.
func formText(a *telexecv1.Approval) (text string, ok bool) {
	cmd := a.GetCommand()
	var b strings.Builder
	fmt.Fprintf(&b, "An AI agent wants to run this command, and %s wants it approved.\n", whoWants(a.GetRule()))
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "\n%s: %s", name, pictured(value))
		}
	}
	line("Host", cmd.GetHost())
	line("Target", a.GetTarget())
	line("Session", cmd.GetSession())
	line("Asked for by", a.GetRequestedBy().GetPrincipal())
	line("As user, by sudo", cmd.GetSudoUser())
	line("Directory", cmd.GetWorkingDirectory())
	var sets []string
	for _, name := range cmd.GetEnvNames() {
		sets = append(sets, strconv.Quote(name))
	}
	line("Sets variables, to values that are not shown", strings.Join(sets, " "))
	if n := a.GetStdinBytes(); n > 0 {
		line("Standard input", fmt.Sprintf("%s, SHA-256 %x", count(n, "byte"), a.GetStdinSha256()))
	}
	if cmd.GetStdinOpen() {
		line("Input", "more can be sent while it runs")
	}
	if cmd.GetLoginShell() {
		line("Shell", "the login shell, with its profile")
	}
	if cmd.GetPty() != nil {
		line("Terminal", "yes")
	}
	if t := cmd.GetTimeout(); t != nil {
		line("Ended after", t.AsDuration().String())
	}
	line("Kind of action", cmd.GetActionType())
	line("Approvals", fmt.Sprintf("%d of %d; waits until %s", a.GetApprovals(), a.GetRequiredApprovals(), clock(a.GetExpireTime())))
	b.WriteString("\nCommand:\n\n")
	if argv := cmd.GetArgv(); len(argv) > 0 {
		for i, arg := range argv {
			fmt.Fprintf(&b, "    %d| %s\n", i, strings.ReplaceAll(pictured(arg), "\n", "⟨U+000A⟩"))
		}
	} else {
		for row := range strings.SplitSeq(picturedLines(cmd.GetCommand()), "\n") {
			fmt.Fprintf(&b, "    | %s\n", row)
		}
	}
	b.WriteString("\nTo decline is to reject it. To close this without an answer leaves it waiting.")
	return b.String(), b.Len() <= maxShown
}

// pictured writes a text on one line so that nothing in it is unseen: what has no
// picture of its own is written as its number, ⟨U+001B⟩.
func pictured(s string) string {
	return strings.ReplaceAll(picturedLines(s), "\n", "⟨U+000A⟩")
}

// picturedLines is pictured but for line feeds, which stay.
func picturedLines(s string) string {
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, "⟨%02X⟩", s[i])
		case r == '\n', seen(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		}
	}
	return b.String()
}

// seen reports whether a person sees r where it stands. The joiners and selectors
// that hidden leaves in output are not, nor is any space but the ordinary one.
func seen(r rune) bool {
	return unicode.IsPrint(r) && !hidden(r) && r != 0xFE0E && r != 0xFE0F
}
