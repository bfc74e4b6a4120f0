package storetest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// gated creates a command that waits for an approval.
func (b *bench) gated(more ...func(*command.Command)) (command.Command, approval.Approval) {
	b.Helper()
	c := b.command(append(more, func(c *command.Command) { c.State = command.AwaitingApproval })...)
	gate := approval.Approval{
		CommandID: c.ID, Version: 1, State: approval.Pending, Rule: "upgrades", Count: 1, Roles: []string{"approver"},
		Deadline: b.now.Add(time.Hour), Requester: c.CreatedBy, Author: c.CreatedBy, Host: c.Spec.Host, Command: c.Spec.Line,
		Revision: 1, Hash: []byte("hash of the request"), CreateTime: c.CreateTime,
	}
	stored, created, err := b.Create(b.Context(), c, []byte("hash of "+c.ID), &gate, accepted(c))
	b.must(err)
	if !created {
		b.Fatal("the command was not created")
	}
	b.same(stored, c)
	return c, gate
}

// decision is a step that approves and takes the command to a state.
func (b *bench) decision(c command.Command, a approval.Approval, to command.State) approval.Step {
	a.Version++
	a.State, a.DecideTime = approval.Approved, b.now
	a.Decisions = append(slices.Clone(a.Decisions), approval.Decision{
		By: command.Actor{Principal: "ann", Origin: command.OriginCLI}, Verdict: approval.Approve, Time: b.now, Revision: a.Revision, Hash: a.Hash,
	})
	return approval.Step{Approval: a, Change: command.Change{From: c.State, Fence: c.Fence, Command: b.next(c, to),
		Audit: []audit.Entry{{Time: b.now, Kind: audit.ApprovalDecided, CommandID: c.ID}}}}
}

// waits requires that the stored approval of a command is this one.
func (b *bench) waits(want approval.Approval) {
	b.Helper()
	got, err := b.Approval(b.Context(), want.CommandID)
	b.must(err)
	if !reflect.DeepEqual(got, want) {
		b.Fatalf("approval differs\n got %s\nwant %s", text(got), text(want))
	}
}

func approvalFields(b *bench) {
	c := b.command(func(c *command.Command) { c.State = command.AwaitingApproval })
	var gate approval.Approval
	n := int64(0)
	fill(b, reflect.ValueOf(&gate).Elem(), &n)
	gate.CommandID, gate.State = c.ID, approval.Pending
	_, _, err := b.Create(b.Context(), c, nil, &gate, accepted(c))
	b.must(err)
	b.pause()
	b.waits(gate)

	n = 1000
	step := approval.Step{Change: command.Change{From: c.State, Command: b.next(c, command.AwaitingApproval)}}
	fill(b, reflect.ValueOf(&step.Approval).Elem(), &n)
	step.Approval.CommandID, step.Approval.State, step.Approval.Version = c.ID, approval.Withdrawn, gate.Version+1
	b.must(b.Decide(b.Context(), []approval.Step{step}))
	b.pause()
	b.waits(step.Approval)

	// All that can go is gone again.
	step.Approval = approval.Approval{CommandID: c.ID, Version: step.Approval.Version + 1, State: approval.Rejected}
	b.must(b.Decide(b.Context(), []approval.Step{step}))
	b.pause()
	b.waits(step.Approval)

	for _, id := range []string{b.create(b.command()).ID, "", newID(b.now)} {
		_, err := b.Approval(b.Context(), id)
		b.fails(err, fault.NotFound, fault.ReasonUnknownApproval)
	}
}

func decides(b *bench) {
	c, gate := b.gated()
	b.pause()
	b.waits(gate)
	told := b.chain()
	// Each of these says one thing that is not so.
	for i, wrong := range []func(st *approval.Step){
		func(st *approval.Step) { st.Approval.Version++ },
		func(st *approval.Step) { st.Approval.Version-- },
		func(st *approval.Step) { st.Change.From = command.Queued },
		func(st *approval.Step) { st.Change.Fence++ },
		func(st *approval.Step) { st.Change.Output = []command.Chunk{{Offset: 1, Data: []byte("x")}} },
	} {
		step := b.decision(c, gate, command.Queued)
		spec := c.Spec
		spec.Line = "rm -rf /"
		step.Spec = &spec
		wrong(&step)
		b.fails(b.Decide(b.Context(), []approval.Step{step}), fault.Aborted, "")
		b.pause()
		b.waits(gate)
		b.same(b.stored(c.ID), c)
		if t := b.chain(); len(t) != len(told) {
			b.Fatalf("case %d: a refused decision was told", i)
		}
	}
	step := b.decision(c, gate, command.Queued)
	b.must(b.Decide(b.Context(), []approval.Step{step}))
	b.pause()
	b.waits(step.Approval)
	b.same(b.stored(c.ID), step.Change.Command)
	b.tells(told, step.Change.Audit...)
	// Once is enough.
	b.fails(b.Decide(b.Context(), []approval.Step{step}), fault.Aborted, "")

	unknown := b.command()
	b.fails(b.Decide(b.Context(), []approval.Step{b.decision(unknown, approval.Approval{CommandID: unknown.ID}, command.Queued)}), fault.NotFound, fault.ReasonUnknownCommand)
	free := b.create(b.command())
	b.fails(b.Decide(b.Context(), []approval.Step{b.decision(free, approval.Approval{CommandID: free.ID}, command.Starting)}), fault.NotFound, fault.ReasonUnknownApproval)
	b.must(b.Decide(b.Context(), nil))
}

func decidesAllOrNone(b *bench) {
	var commands []command.Command
	var gates []approval.Approval
	for range 5 {
		c, gate := b.gated()
		commands, gates = append(commands, c), append(gates, gate)
	}
	told := b.chain()
	steps := func() (list []approval.Step) {
		for i := range commands {
			list = append(list, b.decision(commands[i], gates[i], command.Queued))
		}
		return list
	}
	for at := range commands {
		for _, wrong := range []func(st *approval.Step){
			func(st *approval.Step) { st.Approval.Version += 7 },
			func(st *approval.Step) { st.Change.From = command.Running },
		} {
			list := steps()
			wrong(&list[at])
			b.fails(b.Decide(b.Context(), list), fault.Aborted, "")
			b.pause()
			for i := range commands {
				b.waits(gates[i])
				b.same(b.stored(commands[i].ID), commands[i])
			}
			b.tells(told)
		}
	}
	// Nothing is decided twice at once, or about another command.
	list := steps()
	for _, wrong := range [][]approval.Step{{list[0], list[1], list[0]}, {{Approval: list[0].Approval, Change: list[1].Change}}} {
		b.fails(b.Decide(b.Context(), wrong), fault.Internal, "")
	}
	b.waits(gates[0])
	b.must(b.Decide(b.Context(), list))
	b.pause()
	for _, st := range list {
		b.waits(st.Approval)
		b.same(b.stored(st.Change.Command.ID), st.Change.Command)
		told = append(told, st.Change.Audit...)
	}
	b.tells(told)
}

// racingDeciders decide about one command at once, each also about one of its own.
func racingDeciders(b *bench) {
	shared, gate := b.gated()
	const n = 50
	own := make([]command.Command, n)
	gates := make([]approval.Approval, n)
	lists := make([][]approval.Step, n)
	for i := range n {
		own[i], gates[i] = b.gated()
		st := b.decision(shared, gate, command.Queued)
		st.Approval.Rule = string(rune('A' + i))
		lists[i] = []approval.Step{b.decision(own[i], gates[i], command.Queued), st}
	}
	told := len(b.chain())
	var winner atomic.Int64
	won := 0
	for _, err := range together(n, func(i int) error {
		err := b.Decide(b.Context(), lists[i])
		if err == nil {
			winner.Store(int64(i))
		}
		return err
	}) {
		if err == nil {
			won++
			continue
		}
		b.fails(err, fault.Aborted, "")
	}
	b.pause()
	if won != 1 {
		b.Fatalf("%d of %d won, want 1", won, n)
	}
	if got := len(b.chain()); got != told+2 {
		b.Fatalf("%d entries were told, want 2", got-told)
	}
	for i := range n {
		if int64(i) == winner.Load() {
			b.waits(lists[i][0].Approval)
			b.waits(lists[i][1].Approval)
			continue
		}
		b.waits(gates[i])
		b.same(b.stored(own[i].ID), own[i])
	}
}

// modifies replaces every field of what was asked for.
func modifies(b *bench) {
	c, gate := b.gated(withRequest("r1"), func(c *command.Command) {
		c.Spec.Labels = map[string]string{"tier": "front", "same": "yes"}
		c.Spec.Env, c.Spec.Stdin = map[string]string{"A": "1"}, []byte("old")
	})
	var spec command.Spec
	n := int64(0)
	fill(b, reflect.ValueOf(&spec).Elem(), &n)
	spec.RequestID, spec.SecretsLost = c.Spec.RequestID, false
	spec.Labels = map[string]string{"tier": "back", "same": "yes"}
	b.pause()

	step := b.decision(c, gate, command.AwaitingApproval)
	step.Spec = &spec
	b.must(b.Decide(b.Context(), []approval.Step{step}))
	changed := step.Change.Command
	changed.Spec = spec
	changed.Spec.Sudo = withoutPassword(spec.Sudo)
	b.pause()
	b.same(b.stored(c.ID), changed)
	for label, found := range map[string]bool{"tier=front": false, "tier=back": true, "same=yes": true} {
		name, value, _ := strings.Cut(label, "=")
		list, err := b.List(b.Context(), command.Filter{Labels: map[string]string{name: value}})
		if b.must(err); (len(list) == 1) != found {
			b.Fatalf("%d commands with label %s", len(list), label)
		}
	}
	for host, found := range map[string]bool{c.Spec.Host: false, spec.Host: true} {
		list, err := b.List(b.Context(), command.Filter{Host: host})
		if b.must(err); (len(list) == 1) != found {
			b.Fatalf("%d commands on %q", len(list), host)
		}
	}
	// The request id goes on to name it, by what was asked for first.
	replayed, found, err := b.Replay(b.Context(), c, []byte("hash of "+c.ID))
	if b.must(err); !found {
		b.Fatal("the request is not known")
	}
	b.same(replayed, changed)

	// Less than before, and it is queued.
	less := command.Spec{RequestID: "another", Host: "web1", Line: "true"}
	second := b.decision(changed, step.Approval, command.Queued)
	second.Spec = &less
	b.must(b.Decide(b.Context(), []approval.Step{second}))
	queued := second.Change.Command
	queued.Spec = less
	queued.Spec.RequestID = c.Spec.RequestID
	b.pause()
	b.same(b.stored(c.ID), queued)

	// One that is rejected keeps nothing secret.
	other, gate := b.gated()
	third := b.decision(other, gate, command.Rejected)
	third.Spec = &spec
	b.must(b.Decide(b.Context(), []approval.Step{third}))
	rejected := third.Change.Command
	rejected.Spec = started(spec)
	rejected.Spec.RequestID, rejected.Spec.Redact, rejected.Spec.Sudo = "", nil, withoutPassword(spec.Sudo)
	b.pause()
	b.same(b.stored(other.ID), rejected)
}

func approvalLists(b *bench) {
	var all []approval.Approval
	for i := range 20 {
		c, gate := b.gated()
		if i%3 > 0 {
			step := b.decision(c, gate, command.Queued)
			step.Approval.State = approval.States[i%5]
			b.must(b.Decide(b.Context(), []approval.Step{step}))
			gate = step.Approval
		}
		all = append(all, gate)
	}
	b.pause()
	for _, states := range [][]approval.State{nil, {approval.Pending}, {approval.Expired, approval.Approved}, approval.States, {"NONE"}} {
		for _, before := range []string{"", all[0].CommandID, all[7].CommandID, all[19].CommandID} {
			for _, limit := range []int{0, 1, 4} {
				b.listsApprovals(approval.Filter{States: states, Before: before, Limit: limit}, all)
			}
		}
	}
}

// approvalKinds makes approvals of all kinds, oldest first. Some of them are for
// other roles than they were at first.
func (b *bench) approvalKinds(r *rand.Rand, n int) (all []approval.Approval) {
	roles := [][]string{{"approver"}, {"lead"}, {"approver", "lead"}, {"lead", "lead", "a,b"}, {"lead\xff"}, nil}
	for range n {
		c, gate := b.gated(func(c *command.Command) {
			c.Spec.Host = hosts[r.IntN(len(hosts))]
			c.CreatedBy.Principal = principals[r.IntN(len(principals))]
		})
		for r.IntN(3) > 0 {
			step := b.decision(c, gate, command.AwaitingApproval)
			step.Approval.State = approval.States[r.IntN(len(approval.States))]
			step.Approval.Roles = roles[r.IntN(len(roles))]
			b.must(b.Decide(b.Context(), []approval.Step{step}))
			c, gate = step.Change.Command, step.Approval
		}
		all = append(all, gate)
	}
	return all
}

// sees is what a filter of approvals says, in the plainest words.
func sees(f approval.Filter, a approval.Approval) bool {
	v := f.Visible
	return (len(f.States) == 0 || slices.Contains(f.States, a.State)) &&
		(f.Before == "" || a.CommandID < f.Before) &&
		(v == nil || v.Principal == a.Requester.Principal || slices.Contains(v.Hosts, a.Host) ||
			slices.ContainsFunc(a.Roles, func(role string) bool { return slices.Contains(v.Roles, role) }))
}

// listsApprovals requires that a list has what its filter says, newest first.
func (b *bench) listsApprovals(f approval.Filter, all []approval.Approval) []approval.Approval {
	b.Helper()
	var want []approval.Approval
	for _, a := range slices.Backward(all) {
		if sees(f, a) && (f.Limit == 0 || len(want) < f.Limit) {
			want = append(want, a)
		}
	}
	got, err := b.Approvals(b.Context(), f)
	if b.must(err); !reflect.DeepEqual(got, want) {
		b.Fatalf("%s: %s\nwant %s", text(f), text(got), text(want))
	}
	return got
}

// visibleApprovals has callers who may see nothing, a little, much of it for
// several reasons at once, and who have more roles and hosts than a statement can
// name one by one.
func visibleApprovals(b *bench) {
	all := b.approvalKinds(rand.New(rand.NewPCG(21, 22)), 60)
	b.pause()
	many := func(names ...string) []string {
		for i := range 300 {
			names = append(names, fmt.Sprint("other", i))
		}
		return names
	}
	for _, v := range []*approval.Visible{
		nil,
		{},
		{Principal: "nobody", Roles: []string{"approve", "a", "approver,lead", ""}, Hosts: []string{""}},
		{Principal: "agent"},
		{Roles: []string{"approver"}},
		{Roles: []string{"lead", "lead"}},
		{Roles: []string{"a,b"}},
		{Roles: []string{"lead\xff"}},
		{Hosts: []string{"web1", "nowhere", "web1"}},
		{Principal: "agent", Roles: []string{"lead", "approver"}, Hosts: []string{"web1"}},
		{Principal: "agent", Roles: []string{"lead", "approver", "a,b", "lead\xff"}, Hosts: hosts},
		{Principal: "nobody", Hosts: many("web1")},
		{Principal: "agent", Roles: many("lead", "approver")},
		{Principal: "agent", Roles: many("lead"), Hosts: many("db1")},
	} {
		for _, states := range [][]approval.State{nil, {approval.Pending}, {approval.Expired, approval.Approved}, approval.States} {
			for _, before := range []string{"", all[30].CommandID} {
				for _, limit := range []int{0, 1, 4} {
					b.listsApprovals(approval.Filter{States: states, Visible: v, Before: before, Limit: limit}, all)
				}
			}
		}
	}
}

// visibleApprovalPages reads on page by page; then one approval becomes others' to
// decide, and nobody's.
func visibleApprovalPages(b *bench) {
	all := b.approvalKinds(rand.New(rand.NewPCG(23, 24)), 43)
	for _, v := range []approval.Visible{
		{Roles: []string{"lead", "approver"}},
		{Principal: "agent", Roles: []string{"approver"}, Hosts: []string{"web1", "web2"}},
	} {
		f := approval.Filter{Visible: &v, Limit: 4}
		for {
			b.pause()
			page := b.listsApprovals(f, all)
			if len(page) < f.Limit {
				break
			}
			f.Before = page[len(page)-1].CommandID
		}
	}
	c, gate := b.gated(func(c *command.Command) { c.Spec.Host, c.CreatedBy.Principal = "alone", "alone" })
	all = append(all, gate)
	old := approval.Filter{Visible: &approval.Visible{Roles: gate.Roles}, States: []approval.State{approval.Pending}}
	fresh := approval.Filter{Visible: &approval.Visible{Roles: []string{"root"}}}
	for _, change := range []func(a *approval.Approval){
		func(a *approval.Approval) { a.State, a.Roles = approval.Pending, []string{"root", "approver"} },
		func(a *approval.Approval) { a.State, a.Roles = approval.Pending, []string{"root"} },
		func(a *approval.Approval) { a.State = approval.Rejected },
		func(a *approval.Approval) { a.Roles = nil },
	} {
		b.listsApprovals(old, all)
		b.listsApprovals(fresh, all)
		step := b.decision(c, gate, command.AwaitingApproval)
		change(&step.Approval)
		b.must(b.Decide(b.Context(), []approval.Step{step}))
		c, gate = step.Change.Command, step.Approval
		all[len(all)-1] = gate
		b.pause()
	}
	b.listsApprovals(old, all)
	b.listsApprovals(fresh, all)
}

func approvalGoes(b *bench) {
	c, gate := b.gated()
	step := b.decision(c, gate, command.Rejected)
	b.must(b.Decide(b.Context(), []approval.Step{step}))
	stays, other := b.gated()
	b.pause()
	if done := b.retain(command.Retention{Now: b.now.Add(time.Hour), DeleteAfter: time.Minute}); done.Deleted != 1 {
		b.Fatalf("retained %s", text(done))
	}
	_, err := b.Approval(b.Context(), c.ID)
	b.fails(err, fault.NotFound, fault.ReasonUnknownApproval)
	list, err := b.Approvals(b.Context(), approval.Filter{})
	if b.must(err); len(list) != 1 || list[0].CommandID != stays.ID {
		b.Fatalf("approvals are %s", text(list))
	}
	b.listsApprovals(approval.Filter{Visible: &approval.Visible{Roles: gate.Roles}}, []approval.Approval{other})
	b.waits(other)
}

func keyFields(b *bench) {
	list, err := b.Keys(b.Context())
	if b.must(err); len(list) != 0 {
		b.Fatalf("keys are %s", text(list))
	}
	var k access.Key
	n := int64(0)
	fill(b, reflect.ValueOf(&k).Elem(), &n)
	zero := access.Key{ID: "zero", Name: "aaa"}
	for _, k := range []access.Key{k, zero} {
		b.must(b.AddKey(b.Context(), k, audit.Entry{Kind: audit.TokenCreated}))
	}
	b.pause()
	list, err = b.Keys(b.Context())
	if b.must(err); !reflect.DeepEqual(list, []access.Key{k, zero}) {
		b.Fatalf("keys are %s\nwant %s", text(list), text([]access.Key{k, zero}))
	}
}

func keyNames(b *bench) {
	ctx := b.Context()
	first, second, other := b.key("ci"), b.key("ci"), b.key("backup")
	keys := func(want ...access.Key) {
		b.Helper()
		b.pause()
		list, err := b.Keys(ctx)
		if b.must(err); !reflect.DeepEqual(list, want) {
			b.Fatalf("keys are %s\nwant %s", text(list), text(want))
		}
	}
	told := audit.Entry{Time: b.now, Kind: audit.TokenCreated}
	b.must(b.AddKey(ctx, first, told))
	e := b.fails(b.AddKey(ctx, second, told), fault.AlreadyExists, fault.ReasonTokenNameTaken)
	if e.Hint == "" {
		b.Fatal("no hint")
	}
	b.must(b.AddKey(ctx, other, told))
	keys(other, first)

	at := b.now.Add(1234567 * time.Nanosecond)
	b.must(b.UseKey(ctx, first.ID, at))
	b.must(b.UseKey(ctx, first.ID, b.now)) // told late
	first.LastUse = at.Truncate(time.Microsecond)
	keys(other, first)
	if err := b.UseKey(ctx, "nobody", at); err != nil {
		b.fails(err, fault.NotFound, fault.ReasonUnknownToken)
	}

	revoked, err := b.RevokeKey(ctx, "ci", at, told)
	b.must(err)
	first.RevokeTime = at.Truncate(time.Microsecond)
	if !reflect.DeepEqual(revoked, first) {
		b.Fatalf("revoked %s, want %s", text(revoked), text(first))
	}
	keys(other, first)
	_, err = b.RevokeKey(ctx, "ci", at, told)
	b.fails(err, fault.NotFound, fault.ReasonUnknownToken)
	b.must(b.AddKey(ctx, second, told)) // the name is free again
	keys(other, first, second)
	_, err = b.RevokeKey(ctx, "ci", at, told)
	b.must(err)
	second.RevokeTime = first.RevokeTime
	keys(other, first, second)
}
