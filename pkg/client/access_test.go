package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

const otherID = "01J8Z3K4M5N6P7Q8R9S0T1V2W4"

// loses makes the peer lose the first n answers of a method, after the work.
func (p *peer) loses(method string, n int) {
	p.after = func(m string, call int) error {
		if m == method && call <= n {
			return dropped
		}
		return nil
	}
}

func decision(p *peer, id string, v telexecv1.Verdict) *telexecv1.Decision {
	d := &telexecv1.Decision{CommandId: id, Verdict: v, RequestHash: p.approvals[id].GetRequestHash()}
	if v == telexecv1.Verdict_VERDICT_MODIFY {
		d.Modified = &telexecv1.ModifiedRequest{Command: "ls"}
	}
	return d
}

func TestListsAboutAccess(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{})
	var got []string
	for a, err := range c.ListApprovals(t.Context(), &telexecv1.ListApprovalsRequest{}) {
		got = append(got, fmt.Sprint(a.GetCommandId(), err))
	}
	for e, err := range c.ListAuditEntries(t.Context(), &telexecv1.ListAuditEntriesRequest{}) {
		got = append(got, fmt.Sprint(e.GetSequence(), err))
	}
	if want := []string{"1<nil>", "2<nil>", "3 <nil>", "2 <nil>", "1 <nil>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if r, err := c.ExplainPolicy(t.Context(), &telexecv1.ExplainPolicyRequest{Command: "ls"}); err != nil || r.GetRule() != "ls" {
		t.Error(r, err)
	}
	if r, err := c.VerifyAudit(t.Context(), &telexecv1.VerifyAuditRequest{}); err != nil || !r.GetIntact() {
		t.Error(r, err)
	}
	if _, err := c.GetApproval(t.Context(), testID); err == nil {
		t.Error("an approval that is not there")
	}
}

// A decision whose answer is lost is told as what it was, however it went.
func TestDecisionWhoseAnswerIsLost(t *testing.T) {
	const approve, reject, modify = telexecv1.Verdict_VERDICT_APPROVE, telexecv1.Verdict_VERDICT_REJECT, telexecv1.Verdict_VERDICT_MODIFY
	for _, tt := range []struct {
		name     string
		required int32
		verdict  telexecv1.Verdict
		state    telexecv1.ApprovalState
	}{
		{"the last approval", 1, approve, telexecv1.ApprovalState_APPROVAL_STATE_APPROVED},
		{"one of two", 2, approve, telexecv1.ApprovalState_APPROVAL_STATE_PENDING},
		{"a rejection", 2, reject, telexecv1.ApprovalState_APPROVAL_STATE_REJECTED},
		{"a modification", 1, modify, telexecv1.ApprovalState_APPROVAL_STATE_PENDING},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.waits(tt.required, testID, otherID)
				p.loses("DecideApprovals", 1)
				c := p.dial(t, Options{})
				resp, err := c.DecideApprovals(t.Context(), &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{
					decision(p, testID, tt.verdict), decision(p, otherID, tt.verdict),
				}})
				if err != nil || len(resp.GetApprovals()) != 2 {
					t.Fatal(resp, err)
				}
				for _, a := range resp.GetApprovals() {
					if a.GetState() != tt.state || len(a.GetDecisions()) != 1 {
						t.Errorf("%v", a)
					}
				}
				if n := p.count("DecideApprovals"); n != 2 {
					t.Errorf("%d calls", n)
				}
			})
		})
	}
}

// Where somebody else was first, the refusal is the answer, also when an own
// attempt was lost before.
func TestDecisionThatSomebodyElseTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.waits(1, testID)
		d := decision(p, testID, telexecv1.Verdict_VERDICT_APPROVE)
		p.before = func(method string, n int, _ proto.Message) error {
			if method != "DecideApprovals" || n > 1 {
				return nil
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.decide("bob", d)
			return dropped
		}
		c := p.dial(t, Options{})
		_, err := c.DecideApprovals(t.Context(), &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{d}})
		if e, ok := asError(err); !ok || e.Reason != reasonAlreadyDecided || strings.Contains(e.Hint, "not known") {
			t.Errorf("got %v", err)
		}
	})
}

// An approval holds a modification only if it is that one: whoever modifies may have
// done so before.
func TestHolds(t *testing.T) {
	const modify = telexecv1.Verdict_VERDICT_MODIFY
	modified := func(line string, timeout time.Duration, argv ...string) *telexecv1.Decision {
		m := &telexecv1.ModifiedRequest{Command: line, Argv: argv}
		if timeout > 0 {
			m.Timeout = durationpb.New(timeout)
		}
		return &telexecv1.Decision{Verdict: modify, RequestHash: []byte("h"), Modified: m}
	}
	now := func(revision int32, line string, timeout time.Duration, argv ...string) *telexecv1.Approval {
		c := &telexecv1.Command{Command: line, Argv: argv}
		if timeout > 0 {
			c.Timeout = durationpb.New(timeout)
		}
		return &telexecv1.Approval{Revision: revision, Command: c, Decisions: []*telexecv1.ApprovalDecision{
			{By: &telexecv1.Actor{Principal: "bob"}, Verdict: modify, RequestHash: []byte("g"), Revision: 1, Command: "make"},
			{By: &telexecv1.Actor{Principal: "ann"}, Verdict: modify, RequestHash: []byte("h"), Revision: 2, Command: line},
		}}
	}
	long := strings.Repeat("x", 5000)
	cut := now(4, long[:4093]+"…", 0)
	for name, tt := range map[string]struct {
		a     *telexecv1.Approval
		who   string
		d     *telexecv1.Decision
		holds bool
		known bool
	}{
		"it":                         {now(3, "ls", 0), "ann", modified("ls", 0), true, true},
		"its arguments":              {now(3, "ls -l", 0, "ls", "-l"), "ann", modified("", 0, "ls", "-l"), true, true},
		"its timeout":                {now(3, "ls", time.Minute), "ann", modified("ls", time.Minute), true, true},
		"without a hash":             {now(3, "ls", 0), "ann", &telexecv1.Decision{Verdict: modify}, true, true},
		"of another":                 {now(3, "ls", 0), "eve", modified("ls", 0), false, true},
		"another verdict":            {now(3, "ls", 0), "ann", &telexecv1.Decision{Verdict: telexecv1.Verdict_VERDICT_REJECT}, false, true},
		"another request":            {now(3, "ls", 0), "ann", &telexecv1.Decision{Verdict: modify, RequestHash: []byte("f")}, false, true},
		"another line":               {now(3, "ls", 0), "ann", modified("rm", 0), false, true},
		"other arguments":            {now(3, "rm -r", 0, "rm", "-r"), "ann", modified("", 0, "ls", "-l"), false, true},
		"arguments, not that line":   {now(3, "ls -l", 0, "ls", "-l"), "ann", modified("ls -l", 0), false, true},
		"a line, not those":          {now(3, "ls -l", 0), "ann", modified("", 0, "ls", "-l"), false, true},
		"another timeout":            {now(3, "ls", time.Hour), "ann", modified("ls", time.Minute), false, true},
		"no timeout":                 {now(3, "ls", 0), "ann", modified("ls", time.Minute), false, true},
		"a timeout of who knows":     {now(3, "ls", time.Hour), "ann", modified("ls", 0), false, false},
		"modified again":             {now(4, "ls", 0), "ann", modified("ls", 0), false, false},
		"another line, again":        {now(4, "ls", 0), "ann", modified("rm", 0), false, true},
		"a line shown in part":       {cut, "ann", modified(long, 0), false, false},
		"arguments, again":           {now(4, "ls -l", 0), "ann", modified("", 0, "ls", "-l"), false, false},
		"a timeout, after a further": {now(4, "ls", time.Minute), "ann", modified("ls", time.Minute), false, false},
	} {
		if got, err := holds(tt.a, tt.d, tt.who); got != tt.holds || (err == nil) != tt.known {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// What cannot be known is said.
func TestDecisionInDoubt(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(method string, n int) error
		lost   int
		reason string
		hint   string
	}{
		{"the service does not come back", func(_ string, n int) error {
			if n > 1 {
				return dropped
			}
			return nil
		}, 1, ReasonUnreachable, "not known"},
		{"the approvals cannot be read", func(method string, _ int) error {
			if method == "GetApproval" {
				return no(codes.PermissionDenied, "ROLE_MISSING")
			}
			return nil
		}, 1, reasonAlreadyDecided, "not known"},
		{"nor who asks", func(method string, _ int) error {
			if method == "GetServerInfo" {
				return no(codes.Unauthenticated, "TOKEN_EXPIRED")
			}
			return nil
		}, 1, reasonAlreadyDecided, "not known"},
		{"a refusal that says that nothing was done", func(method string, n int) error {
			switch {
			case method != "DecideApprovals":
				return nil
			case n == 1:
				return dropped
			}
			return no(codes.PermissionDenied, "ROLE_MISSING")
		}, 0, "ROLE_MISSING", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.waits(1, testID)
				p.before = func(method string, n int, _ proto.Message) error { return tt.before(method, n) }
				p.loses("DecideApprovals", tt.lost)
				c := p.dial(t, Options{})
				_, err := c.DecideApprovals(t.Context(), &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{
					decision(p, testID, telexecv1.Verdict_VERDICT_APPROVE),
				}})
				if e, ok := asError(err); !ok || e.Reason != tt.reason || !strings.Contains(e.Hint, tt.hint) || tt.hint == "" && e.Hint != "" {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestTokens(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{})
	made, err := c.CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: "ann"})
	if err != nil || made.GetSecret() != "s3cret" {
		t.Fatal(made, err)
	}
	if _, err := c.CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: "ann"}); err == nil || strings.Contains(err.Error(), "lost") {
		t.Errorf("a name that is taken: %v", err)
	}
	if was, err := c.RevokeToken(t.Context(), "ann"); err != nil || was.GetRevokeTime() == nil {
		t.Error(was, err)
	}
	if _, err := c.RevokeToken(t.Context(), "ann"); err == nil {
		t.Error("revoked twice")
	}
	for _, name := range []string{"ann", "bob"} {
		if _, err := c.CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: name}); err != nil {
			t.Fatal(err)
		}
	}
	for all, want := range map[bool][]string{true: {"ann", "ann", "bob"}, false: {"ann", "bob"}} {
		var got []string
		for token, err := range c.ListTokens(t.Context(), &telexecv1.ListTokensRequest{IncludeInactive: all}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, token.GetPrincipal())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: %v", all, got)
		}
	}
}

// A token is in one answer only: where that is lost, the key is not asked for
// again, and the caller is told what to do.
func TestTokenWhoseAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.loses("CreateToken", 1)
		c := p.dial(t, Options{})
		_, err := c.CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: "ann"})
		if e, ok := asError(err); !ok || e.Reason != ReasonUnreachable || !strings.Contains(e.Hint, "revoke ann") {
			t.Errorf("got %v", err)
		}
		if n := p.count("CreateToken"); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// The service may have kept the key although it says that its store failed; a
// second attempt then finds the name taken, by a key whose token nobody has.
func TestTokenThatTheStoreHasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.after = func(method string, n int) error {
			if method == "CreateToken" && n == 1 {
				return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: reasonStoreUnavailable}, retryIn(time.Second))
			}
			return nil
		}
		c := p.dial(t, Options{})
		_, err := c.CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: "ann"})
		if e, ok := asError(err); !ok || e.Reason != reasonTokenNameTaken || !strings.Contains(e.Hint, "revoke ann") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRevocationWhoseAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.loses("RevokeToken", 1)
		c := p.dial(t, Options{})
		for range 2 {
			if _, err := c.CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: "ann"}); err != nil {
				t.Fatal(err)
			}
			_ = sleep(t.Context(), time.Minute)
			if was, err := c.RevokeToken(t.Context(), "ann"); err != nil || was.GetId() != fmt.Sprint(len(p.tokens)-1) {
				t.Errorf("got %v, %v", was, err)
			}
		}
		p.before = func(method string, _ int, _ proto.Message) error {
			if method == "ListTokens" {
				return no(codes.PermissionDenied, "ROLE_MISSING")
			}
			return nil
		}
		p.calls["RevokeToken"] = 0 // lose one more
		if _, err := c.CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: "ann"}); err != nil {
			t.Fatal(err)
		}
		_, err := c.RevokeToken(t.Context(), "ann")
		if e, ok := asError(err); !ok || e.Reason != reasonUnknownToken {
			t.Errorf("got %v", err)
		}
	})
}

// An export that is cut off goes on behind its last row.
func TestExportResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.rows = chained("a", "b", "c", "d", "e")
		p.before = func(method string, n int, _ proto.Message) error {
			if method == "row" && (n == 2 || n == 5) {
				return dropped
			}
			return nil
		}
		c := p.dial(t, Options{})
		req := &telexecv1.ExportAuditRequest{}
		var chain AuditChain
		var got string
		for row, err := range c.ExportAudit(t.Context(), req) {
			if err != nil {
				t.Fatal(err)
			}
			if err := chain.Next(row); err != nil {
				t.Error(err)
			}
			got += row.GetText()
		}
		if got != "abcde" || req.GetAfterSequence() != 0 {
			t.Errorf("got %q", got)
		}
		if n := p.count("ExportAudit"); n != 3 {
			t.Errorf("%d streams", n)
		}
		got = ""
		for row := range c.ExportAudit(t.Context(), &telexecv1.ExportAuditRequest{AfterSequence: 2}) {
			if got += row.GetText(); got == "cd" {
				break
			}
		}
		if got != "cd" {
			t.Errorf("from the third on: %q", got)
		}
	})
}

func TestExportFails(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		rows   []*telexecv1.ExportAuditResponse
		reason string
	}{
		"refused":           {no(codes.PermissionDenied, "ROLE_MISSING"), chained("a"), "ROLE_MISSING"},
		"stays away":        {dropped, chained("a"), ReasonUnreachable},
		"comes out of turn": {nil, []*telexecv1.ExportAuditResponse{chained("a", "b")[1], chained("a", "b")[0]}, ReasonProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.rows = tt.rows
				p.before = func(string, int, proto.Message) error { return tt.err }
				c := p.dial(t, Options{})
				var last error
				for _, err := range c.ExportAudit(t.Context(), &telexecv1.ExportAuditRequest{}) {
					last = err
				}
				if e, ok := asError(last); !ok || e.Reason != tt.reason {
					t.Errorf("got %v", last)
				}
			})
		})
	}
}

func TestAuditChain(t *testing.T) {
	good := func() []*telexecv1.ExportAuditResponse { return chained("a", "b", "c", "d") }
	for _, tt := range []struct {
		name   string
		spoil  func(rows []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse
		broken int64 // 0: intact
		why    string
	}{
		{"intact", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse { return r }, 0, ""},
		{"from the third on", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse { return r[2:] }, 0, ""},
		{"changed", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse { r[1].Text = "B"; return r }, 2, "not what was written"},
		{"changed with its hash", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			r[1] = chained("a", "B")[1]
			return r
		}, 3, "does not follow"},
		{"removed", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			return slices.Delete(r, 1, 2)
		}, 2, "the next one there is 3"},
		{"removed and counted anew", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			r = slices.Delete(r, 1, 2)
			r[1].Sequence, r[2].Sequence = 2, 3
			return r
		}, 2, "does not follow"},
		{"swapped", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			r[1], r[2] = r[2], r[1]
			return r
		}, 2, "the next one there is 3"},
		{"swapped and counted anew", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			r[1], r[2] = r[2], r[1]
			r[1].Sequence, r[2].Sequence = 2, 3
			return r
		}, 2, "does not follow"},
		{"twice", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			return slices.Insert(r, 1, r[0])
		}, 1, "stands twice"},
		{"a beginning that is none", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			r[1].Sequence = 1
			return r[1:]
		}, 1, "does not follow"},
		{"begun anew where it was erased", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			for _, row := range r {
				row.Sequence++
			}
			return r
		}, 1, "begins a new chain"},
		{"no number", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse { r[0].Sequence = 0; return r }, 0, "no row has such a number"},
		{"a byte moved from the hash to the text", func(r []*telexecv1.ExportAuditResponse) []*telexecv1.ExportAuditResponse {
			r[1].Text, r[1].PreviousHash = string(r[1].PreviousHash[31:])+r[1].Text, r[1].PreviousHash[:31]
			return r[1:]
		}, 2, "does not follow"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var chain AuditChain
			var err error
			for _, row := range tt.spoil(good()) {
				err = chain.Next(row)
			}
			if tt.why == "" {
				if n, hash := chain.Head(); err != nil || n != 4 || string(hash) != string(good()[3].GetHash()) {
					t.Errorf("head %d %x, %v", n, hash, err)
				}
				return
			}
			b, ok := errors.AsType[*AuditBreak](err)
			if !ok || b.Sequence != tt.broken || !strings.Contains(b.Error(), tt.why) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Behind a row that is known, nothing can be put in its place.
func TestAuditChainAfter(t *testing.T) {
	rows := chained("a", "b", "c")
	for _, tt := range []struct {
		name     string
		sequence int64
		hash     []byte
		broken   int64 // 0: intact
	}{
		{"as noted", 1, rows[0].GetHash(), 0},
		{"another hash", 1, rows[1].GetHash(), 2},
		{"no hash", 1, nil, 2},
		{"rows missing behind it", 0, make([]byte, 32), 1},
		{"rows from before it", 2, rows[1].GetHash(), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chain := AuditChainAfter(tt.sequence, tt.hash)
			if n, hash := chain.Head(); n != tt.sequence || string(hash) != string(tt.hash) {
				t.Errorf("at first %d %x", n, hash)
			}
			err := errors.Join(chain.Next(rows[1]), chain.Next(rows[2]))
			b, ok := errors.AsType[*AuditBreak](err)
			if ok != (tt.broken > 0) || ok && b.Sequence != tt.broken {
				t.Errorf("%v", err)
			}
			if n, _ := chain.Head(); !ok && n != 3 {
				t.Errorf("the last is %d", n)
			}
		})
	}
}
