package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// desk is where approvals lie, newest first. Those with May set are not the
// caller's, and left out where only the caller's are asked for.
type desk struct {
	list    []Approval
	by      access.Caller
	filter  approval.Filter
	mine    bool
	ballots []approval.Ballot
	fail    error
}

func (d *desk) Approval(_ context.Context, by access.Caller, id string) (Approval, error) {
	d.by = by
	for _, a := range d.list {
		if a.CommandID == id {
			return a, nil
		}
	}
	return Approval{}, fault.New(fault.NotFound, fault.ReasonUnknownApproval, "no approval %s", id)
}

func (d *desk) Approvals(_ context.Context, by access.Caller, f approval.Filter, mine bool) (list []Approval, next string, err error) {
	d.by, d.filter, d.mine = by, f, mine
	looked := 0
	for _, a := range d.list {
		if f.Before != "" && a.CommandID >= f.Before {
			continue
		}
		if looked == f.Limit {
			return list, next, d.fail
		}
		looked++
		next = a.CommandID
		if !mine || a.May == nil {
			list = append(list, a)
		}
	}
	return list, "", d.fail
}

func (d *desk) Decide(_ context.Context, by access.Caller, ballots []approval.Ballot) ([]Approval, error) {
	d.by, d.ballots = by, ballots
	if d.fail != nil {
		return nil, d.fail
	}
	return d.list[:len(ballots)], nil
}

func (d *desk) fill(n int, edit func(i int, a *Approval)) {
	for i := range n {
		a := Approval{Approval: approval.Approval{CommandID: fmt.Sprintf("%s%03d", anID[:23], n-i), State: approval.Pending, Revision: 1}}
		edit(i, &a)
		d.list = append(d.list, a)
	}
}

func TestEveryFieldOfAnApprovalIsTold(t *testing.T) {
	a := full[Approval]()
	a.Decisions[0].Revision = a.Revision
	p := approvalToProto(a, noon)
	// The command's own fields have a test of their own.
	missing := slices.DeleteFunc(unset("", p.ProtoReflect()), func(path string) bool { return strings.HasPrefix(path, "command.") })
	if !slices.Equal(missing, []string{"can_decide", "task"}) { // of which the plan is added
		t.Errorf("never set: %v", missing)
	}
	if sum := sha256.Sum256(a.Snapshot.Spec.Stdin); p.GetName() != "approvals/"+a.CommandID || !bytes.Equal(p.GetStdinSha256(), sum[:]) ||
		p.GetStdinBytes() != int64(len(a.Snapshot.Spec.Stdin)) || p.GetApprovals() != 1 || p.GetCannotDecideReason() != "not yours" {
		t.Errorf("%v", p)
	}
	inside := map[string]string{
		"Approval.Version":          "of the store",
		"Approval.AllowSelf":        "can_decide tells what follows from it",
		"Approval.RequesterRoles":   "for the rules",
		"Approval.Host":             "told with the command",
		"Approval.Command":          "told with the command",
		"Approval.Author.Principal": "can_decide tells what follows from it",
		"Approval.Author.Origin":    "can_decide tells what follows from it",
	}
	leaves("", reflect.ValueOf(&a).Elem(), func(path string, v reflect.Value) {
		if strings.HasPrefix(path, "Snapshot.") {
			return
		}
		old := reflect.ValueOf(v.Interface())
		v.SetZero()
		changed := !proto.Equal(p, approvalToProto(a, noon))
		v.Set(old)
		if _, hidden := inside[path]; changed == hidden {
			t.Errorf("%s: changes the wire: %v", path, changed)
		}
	})
	// Each field of a decision, too: it is a list, which leaves takes as one.
	d := reflect.ValueOf(&a.Decisions[0]).Elem()
	leaves("", d, func(path string, v reflect.Value) {
		old := reflect.ValueOf(v.Interface())
		v.SetZero()
		// What was asked for is told by what became of it.
		if proto.Equal(p, approvalToProto(a, noon)) != (path == "Asked") {
			t.Errorf("decision: %s changes the wire or does not", path)
		}
		v.Set(old)
	})
	// What is not there is not filled in, and standard input itself is not shown.
	p = approvalToProto(Approval{Snapshot: Snapshot{Command: command.Command{Spec: command.Spec{Stdin: []byte("hunter2")}}}}, noon)
	if !p.GetCanDecide() || p.DecideTime != nil || p.GetCannotDecideReason() != "" || strings.Contains(p.String(), "hunter2") {
		t.Errorf("%v", p)
	}
	if p = approvalToProto(Approval{}, noon); p.GetStdinSha256() != nil {
		t.Errorf("the digest of no input: %v", p)
	}
}

func TestPagesOfApprovals(t *testing.T) {
	d := &desk{}
	notMine := fault.New(fault.PermissionDenied, fault.ReasonNotYourDecision, "not yours")
	d.fill(9, func(i int, a *Approval) {
		if i < 7 { // the three newest pages have none
			a.May = notMine
		}
	})
	svc, ctx := NewApprovals(d, &flow{}), asAnn(t)
	for _, mine := range []bool{false, true} {
		req := &telexecv1.ListApprovalsRequest{PageSize: 2, MineToDecide: mine, States: []telexecv1.ApprovalState{telexecv1.ApprovalState_APPROVAL_STATE_PENDING}}
		var sizes []int
		for {
			page, err := svc.ListApprovals(ctx, req)
			if err != nil {
				t.Fatal(err)
			}
			if d.by.Name != "ann" || d.filter.Limit != 2 || d.mine != mine || !slices.Equal(d.filter.States, []approval.State{approval.Pending}) {
				t.Errorf("%+v", d)
			}
			sizes = append(sizes, len(page.GetApprovals()))
			if req.PageToken = page.GetNextPageToken(); req.PageToken == "" || len(sizes) > 9 {
				break
			}
		}
		want := []int{2, 2, 2, 2, 1}
		if mine {
			want = []int{0, 0, 0, 1, 1}
		}
		if !slices.Equal(sizes, want) {
			t.Errorf("mine %v: pages of %v", mine, sizes)
		}
	}
	first, err := svc.ListApprovals(ctx, &telexecv1.ListApprovalsRequest{PageSize: 1})
	if err != nil || first.GetNextPageToken() == "" {
		t.Fatal(first, err)
	}
	for _, other := range []*telexecv1.ListApprovalsRequest{
		{PageToken: first.GetNextPageToken(), MineToDecide: true},
		{PageToken: first.GetNextPageToken(), States: []telexecv1.ApprovalState{telexecv1.ApprovalState_APPROVAL_STATE_EXPIRED}},
		{PageToken: "x"},
	} {
		if _, err := svc.ListApprovals(ctx, other); fault.ReasonOf(err) != fault.ReasonBadPageToken {
			t.Errorf("%v: %v", other, err)
		}
	}
}

func TestWhichApprovalsAreAskedFor(t *testing.T) {
	d := &desk{}
	svc, ctx := NewApprovals(d, &flow{}), asAnn(t)
	for _, c := range []struct {
		req  *telexecv1.ListApprovalsRequest
		want []approval.State
	}{
		{&telexecv1.ListApprovalsRequest{}, nil},
		// Only what is pending can be decided, so nothing else is looked through.
		{&telexecv1.ListApprovalsRequest{MineToDecide: true}, []approval.State{approval.Pending}},
		{&telexecv1.ListApprovalsRequest{MineToDecide: true, States: []telexecv1.ApprovalState{3, 4}}, []approval.State{approval.Rejected, approval.Expired}},
	} {
		page, err := svc.ListApprovals(ctx, c.req)
		if err != nil || page.GetNextPageToken() != "" || !slices.Equal(d.filter.States, c.want) || d.filter.Limit != 50 {
			t.Errorf("%v: %v, %+v", c.req, err, d.filter)
		}
	}
	d.fail = errors.New("store")
	if _, err := svc.ListApprovals(ctx, &telexecv1.ListApprovalsRequest{}); err != d.fail {
		t.Error(err)
	}
}

func TestAPageOfApprovalsIsNotTooLarge(t *testing.T) {
	d := &desk{}
	d.fill(60, func(_ int, a *Approval) { a.Snapshot.Spec.Line = strings.Repeat("x", 120_000) })
	svc := NewApprovals(d, &flow{})
	req, total := &telexecv1.ListApprovalsRequest{PageSize: 25}, 0
	for {
		page, err := svc.ListApprovals(asAnn(t), req)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.GetApprovals()); n == 0 || proto.Size(page) > maxPageBytes+1000 {
			t.Fatalf("a page of %d, %d bytes", n, proto.Size(page))
		}
		for i, a := range page.GetApprovals() {
			if a.GetCommandId() != d.list[total+i].CommandID {
				t.Fatalf("%s is left out", d.list[total+i].CommandID)
			}
		}
		total += len(page.GetApprovals())
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if total != 60 {
		t.Errorf("%d approvals", total)
	}
}

// The largest approval that there can be is less than a message of 4 MiB, so that no
// single one makes a list impossible.
func TestTheLargestApprovalCanBeSent(t *testing.T) {
	a := full[Approval]()
	a.Snapshot.Spec.Line = strings.Repeat("x", 120_000)
	a.Decisions = nil
	for range 2*approval.MaxRevisions + 100 {
		a.Decisions = append(a.Decisions, approval.Decision{
			By: command.Actor{Principal: strings.Repeat("p", 255)}, Verdict: approval.Modify, Reason: strings.Repeat("r", 1024),
			Time: noon, Revision: 1, Hash: make([]byte, 32), Command: strings.Repeat("c", approval.MaxShown),
		})
	}
	if size := proto.Size(approvalToProto(a, noon)); size > maxPageBytes {
		t.Errorf("%d bytes", size)
	}
}

func TestGetApproval(t *testing.T) {
	d := &desk{}
	d.fill(1, func(_ int, a *Approval) {})
	svc := NewApprovals(d, &flow{})
	got, err := svc.GetApproval(asAnn(t), &telexecv1.GetApprovalRequest{CommandId: d.list[0].CommandID})
	if err != nil || got.GetApproval().GetCommandId() != d.list[0].CommandID || d.by.Name != "ann" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := svc.GetApproval(asAnn(t), &telexecv1.GetApprovalRequest{CommandId: anID}); fault.ReasonOf(err) != fault.ReasonUnknownApproval {
		t.Error(err)
	}
}

func TestDecideApprovals(t *testing.T) {
	d := &desk{}
	d.fill(3, func(_ int, a *Approval) {})
	svc, hash := NewApprovals(d, &flow{}), bytes.Repeat([]byte{7}, 32)
	ids := []string{d.list[0].CommandID, d.list[1].CommandID, d.list[2].CommandID}
	req := &telexecv1.DecideApprovalsRequest{Decisions: []*telexecv1.Decision{
		{CommandId: ids[0], Verdict: telexecv1.Verdict_VERDICT_APPROVE, RequestHash: hash, Reason: "yes"},
		{CommandId: ids[1], Verdict: telexecv1.Verdict_VERDICT_REJECT}, // no is no, whatever was shown
		{CommandId: ids[2], Verdict: telexecv1.Verdict_VERDICT_MODIFY, RequestHash: hash,
			Modified: &telexecv1.ModifiedRequest{Command: "uptime", Argv: []string{"a"}, Timeout: durationpb.New(time.Minute)}},
	}}
	got, err := svc.DecideApprovals(asAnn(t), req)
	if err != nil || len(got.GetApprovals()) != 3 || got.GetApprovals()[2].GetCommandId() != ids[2] || d.by.Name != "ann" {
		t.Errorf("%v, %v", got, err)
	}
	want := []approval.Ballot{
		{CommandID: ids[0], Verdict: approval.Approve, Shown: hash, Reason: "yes"},
		{CommandID: ids[1], Verdict: approval.Reject},
		{CommandID: ids[2], Verdict: approval.Modify, Shown: hash, Modified: &approval.Modification{Line: "uptime", Argv: []string{"a"}, Timeout: time.Minute}},
	}
	if !reflect.DeepEqual(d.ballots, want) {
		t.Errorf("%+v", d.ballots)
	}
	// A yes to nothing in particular is none, and then nothing is decided at all.
	for i, v := range map[int]telexecv1.Verdict{0: telexecv1.Verdict_VERDICT_APPROVE, 2: telexecv1.Verdict_VERDICT_MODIFY} {
		d.ballots = nil
		bad := proto.CloneOf(req)
		bad.Decisions[i].RequestHash = nil
		_, err := svc.DecideApprovals(asAnn(t), bad)
		if e := fault.From(err); err == nil || e.Reason != fault.ReasonInvalidRequest || e.Hint == "" || e.Metadata["command_id"] != ids[i] ||
			len(e.Fields) != 1 || e.Fields[0].Path != fmt.Sprintf("decisions[%d].request_hash", i) || d.ballots != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
	d.fail = fault.New(fault.Aborted, fault.ReasonRequestChanged, "changed")
	if _, err := svc.DecideApprovals(asAnn(t), req); err != d.fail {
		t.Error(err)
	}
}
