package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// accepted is what the audit is told of a new command.
func accepted(c command.Command) audit.Entry {
	return audit.Entry{Time: c.CreateTime, Kind: audit.CommandAccepted, Principal: c.CreatedBy.Principal, CommandID: c.ID, Host: c.Spec.Host, Command: c.Spec.Line}
}

// chain gives all that the audit was told, and requires that it is one chain that
// ends where the store says.
func (b *bench) chain() (told []audit.Entry) {
	b.Helper()
	head, err := b.AuditHead(b.Context())
	b.must(err)
	var checker audit.Checker
	for {
		rows, err := b.AuditChain(b.Context(), checker.Head().Seq, 7)
		b.must(err)
		if len(rows) > 7 {
			b.Fatalf("%d rows, asked for 7", len(rows))
		}
		for _, row := range rows {
			b.must(checker.Next(row))
			e, err := row.Entry()
			b.must(err)
			told = append(told, e)
		}
		if len(rows) == 0 {
			b.must(checker.End(head))
			return told
		}
	}
}

// tells requires that the audit has been told so much more since before, and gives
// all of it.
func (b *bench) tells(before []audit.Entry, more ...audit.Entry) []audit.Entry {
	b.Helper()
	told := b.chain()
	if len(told) != len(before)+len(more) {
		b.Fatalf("the audit has %d entries, want %d and %d more", len(told), len(before), len(more))
	}
	for i, want := range slices.Concat(before, more) {
		if got := told[i]; text(got) != text(want) {
			b.Fatalf("entry %d is\n%s\nwant\n%s", i+1, text(got), text(want))
		}
	}
	return told
}

func (b *bench) entry(kind audit.Kind, subject string) audit.Entry {
	code := 3
	return audit.Entry{Time: b.now, Kind: kind, Principal: "ann", Subject: subject, ExitCode: &code, Detail: "<&> ü \u2028"}
}

// auditComesWith has every call that can tell something do so.
func auditComesWith(b *bench) {
	ctx := b.Context()
	told := b.tells(nil)
	b.must(b.Record(ctx))
	told = b.tells(told)
	b.must(b.Record(ctx, b.entry(audit.ServiceStarted, "a"), b.entry(audit.PolicyLoaded, "b")))
	told = b.tells(told, b.entry(audit.ServiceStarted, "a"), b.entry(audit.PolicyLoaded, "b"))
	b.pause()
	told = b.tells(told)

	c, gate := b.gated()
	told = b.tells(told, accepted(c))
	b.pause()
	first := b.decision(c, gate, command.Queued)
	first.Change.Audit = []audit.Entry{b.entry(audit.ApprovalDecided, "one"), b.entry(audit.CommandInput, "two")}
	b.must(b.Decide(ctx, []approval.Step{first}))
	told = b.tells(told, first.Change.Audit...)
	b.pause()
	c = first.Change.Command
	next := b.next(c, command.Completed)
	ended := b.entry(audit.CommandEnded, "three")
	b.must(b.Apply(ctx, command.Change{From: c.State, Fence: c.Fence, Command: next, Audit: []audit.Entry{ended}}))
	told = b.tells(told, ended)
	b.pause()

	k := b.key("ci")
	b.must(b.AddKey(ctx, k, b.entry(audit.TokenCreated, "ci")))
	told = b.tells(told, b.entry(audit.TokenCreated, "ci"))
	b.pause()
	_, err := b.RevokeKey(ctx, "ci", b.now, b.entry(audit.TokenRevoked, "ci"))
	b.must(err)
	told = b.tells(told, b.entry(audit.TokenRevoked, "ci"))
	b.pause()

	// With output that a driver may keep elsewhere.
	c = b.create(b.command())
	told = b.tells(told, accepted(c))
	big := []command.Chunk{{Data: make([]byte, 1<<20)}}
	b.must(b.Apply(ctx, command.Change{From: c.State, Command: b.next(c, command.Running, big...), Output: big, Audit: []audit.Entry{ended}}))
	b.pause()
	b.tells(told, ended)
}

// refusedIsNotTold has every call that tells something be refused.
func refusedIsNotTold(b *bench) {
	ctx := b.Context()
	c, gate := b.gated(withRequest("r1"))
	k := b.key("ci")
	b.must(b.AddKey(ctx, k, b.entry(audit.TokenCreated, "ci")))
	told := b.chain()
	unsaid := b.entry(audit.Refused, "never told")

	again := c
	again.ID = newID(b.now)
	for _, hash := range []string{"hash of " + c.ID, "other"} { // a repetition, and a reused id
		_, created, err := b.Create(ctx, again, []byte(hash), nil, unsaid)
		if created || (err == nil) != (hash != "other") {
			b.Fatalf("created %v, %v", created, err)
		}
	}
	_, _, err := b.Create(ctx, c, []byte("hash of "+c.ID), nil, unsaid)
	b.must(err) // the repetition of itself
	twin := c
	twin.Spec.RequestID = ""
	if _, _, err = b.Create(ctx, twin, nil, nil, unsaid); err == nil {
		b.Fatal("a command was stored under an id that is in use")
	}
	change := command.Change{From: command.Running, Command: b.next(c, command.Completed), Audit: []audit.Entry{unsaid}}
	b.fails(b.Apply(ctx, change), fault.Aborted, "")
	change.Output = []command.Chunk{{Data: make([]byte, 1<<20)}}
	b.fails(b.Apply(ctx, change), fault.Aborted, "")
	wrong := b.decision(c, gate, command.Queued)
	wrong.Approval.Version++
	wrong.Change.Audit = []audit.Entry{unsaid}
	b.fails(b.Decide(ctx, []approval.Step{wrong}), fault.Aborted, "")
	b.fails(b.AddKey(ctx, b.key("ci"), unsaid), fault.AlreadyExists, fault.ReasonTokenNameTaken)
	_, err = b.RevokeKey(ctx, "nobody", b.now, unsaid)
	b.fails(err, fault.NotFound, fault.ReasonUnknownToken)
	b.fails(b.Record(ended(), unsaid), fault.Cancelled, "")
	b.pause()
	b.tells(told)
}

// auditOfMany has many tell at once, some of them in vain.
func auditOfMany(b *bench) {
	const callers, each = 12, 25
	c := b.create(b.command())
	var want []string
	for round := range 2 {
		for _, err := range together(callers, func(i int) error {
			for j := range each {
				var err error
				switch i % 4 {
				case 0:
					err = b.Record(b.Context(), audit.Entry{Time: b.now, Kind: audit.Refused, Detail: fmt.Sprint(round, i, j)}, audit.Entry{Time: b.now, Kind: audit.Login})
				case 1:
					fresh := newCommand(b.now)
					_, _, err = b.Create(b.Context(), fresh, nil, nil, audit.Entry{Time: b.now, Kind: audit.CommandAccepted, Detail: fmt.Sprint(round, i, j)})
				case 2: // refused
					err = b.Apply(b.Context(), command.Change{From: command.Running, Command: c, Audit: []audit.Entry{{Time: b.now, Kind: audit.CommandEnded}}})
					if fault.KindOf(err) == fault.Aborted {
						err = nil
					} else {
						err = errors.Join(err, errors.New("a change was not refused"))
					}
				case 3:
					err = b.Apply(b.Context(), command.Change{From: c.State, Command: c, Audit: []audit.Entry{{Time: b.now, Kind: audit.CommandInput, Detail: fmt.Sprint(round, i, j)}}})
				}
				if err != nil {
					return err
				}
			}
			return nil
		}) {
			b.must(err)
		}
		for i := range callers {
			for j := range each {
				if i%4 != 2 {
					want = append(want, fmt.Sprint(round, i, j))
				}
			}
		}
		b.pause()
		var got []string
		logins := 0
		for _, e := range b.chain() {
			switch e.Kind {
			case audit.CommandEnded:
				b.Fatal("a refused change was told")
			case audit.Login:
				logins++
			}
			if e.Detail != "" {
				got = append(got, e.Detail)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, slices.Sorted(slices.Values(want))) || logins != (round+1)*each*callers/4 {
			b.Fatalf("%d entries and %d logins, want %d", len(got), logins, len(want))
		}
	}
}

// numbered is an entry with its number.
type numbered struct {
	seq int64
	audit.Entry
}

func (b *bench) numbered() (all []numbered) {
	for i, e := range b.chain() {
		all = append(all, numbered{int64(i + 1), e})
	}
	return all
}

func (b *bench) auditList(f audit.Filter, all []numbered) {
	b.Helper()
	rows, err := b.AuditRows(b.Context(), f)
	b.must(err)
	var want []int64
	for _, e := range slices.Backward(all) {
		if (len(f.Kinds) == 0 || slices.Contains(f.Kinds, e.Kind)) &&
			(f.Principal == "" || f.Principal == e.Principal) &&
			(f.Host == "" || f.Host == e.Host) &&
			(f.CommandID == "" || f.CommandID == e.CommandID) &&
			(f.From.IsZero() || !e.Time.Before(f.From)) &&
			(f.To.IsZero() || e.Time.Before(f.To)) &&
			(f.Before == 0 || e.seq < f.Before) &&
			(f.Limit == 0 || len(want) < f.Limit) {
			want = append(want, e.seq)
		}
	}
	var got []int64
	for _, row := range rows {
		got = append(got, row.Seq)
		if e, err := row.Entry(); err != nil || text(e) != text(all[row.Seq-1].Entry) {
			b.Fatalf("row %d is %s, %v", row.Seq, row.Text, err)
		}
	}
	if !slices.Equal(got, want) {
		b.Fatalf("%s: rows %v, want %v", text(f), got, want)
	}
}

func auditLists(b *bench) {
	r := rand.New(rand.NewPCG(13, 14))
	b.auditList(audit.Filter{}, nil)
	ids := []string{newID(b.now), newID(b.now), ""}
	who := append([]string{""}, principals...)
	for range 60 {
		b.must(b.Record(b.Context(), audit.Entry{
			Time: b.now, Kind: audit.Kinds[r.IntN(4)], Principal: who[r.IntN(3)], Host: hosts[r.IntN(3)], CommandID: ids[r.IntN(3)],
		}))
		b.now = b.now.Add(time.Duration(r.IntN(1000)) * time.Second)
	}
	all := b.numbered()
	b.pause()
	for _, f := range []audit.Filter{
		{}, {Principal: "deploy"}, {Principal: "nobody"}, {Host: "web1"}, {CommandID: ids[0]}, {CommandID: "none"},
		{Kinds: audit.Kinds[:1]}, {Kinds: audit.Kinds}, {Kinds: []audit.Kind{audit.Login}},
		{Kinds: audit.Kinds[1:3], Principal: "agent", Host: "db1", CommandID: ids[1]},
	} {
		for _, before := range []int64{0, 1, 2, 100, 1000} {
			for _, limit := range []int{0, 1, 5} {
				f.Before, f.Limit = before, limit
				b.auditList(f, all)
			}
		}
	}
	// Bytes that are not UTF-8 are found as they were given.
	b.must(b.Record(b.Context(), audit.Entry{Time: b.now, Kind: audit.Refused, Principal: "a\xff\xfeb"}))
	b.pause()
	if rows, err := b.AuditRows(b.Context(), audit.Filter{Principal: "a\xff\xfeb"}); err != nil || len(rows) != 1 {
		b.Fatalf("%d rows, %v", len(rows), err)
	}
	b.chain()
}

// auditTimes has the clock jump back and forth, and callers tell late.
func auditTimes(b *bench) {
	r := rand.New(rand.NewPCG(15, 16))
	begin := b.now
	for i := range 120 {
		switch {
		case i == 40:
			b.now = b.now.Add(-30 * time.Minute)
		case i == 80:
			b.now = b.now.Add(5 * time.Hour)
		}
		b.now = b.now.Add(time.Minute)
		b.must(b.Record(b.Context(), audit.Entry{Time: b.now.Add(-time.Duration(r.IntN(5)) * time.Second), Kind: audit.Kinds[r.IntN(2)]}))
		if i%30 == 29 {
			b.pause()
			all := b.numbered()
			for range 30 {
				f := audit.Filter{Limit: r.IntN(3) * 4}
				if r.IntN(3) > 0 {
					f.From = begin.Add(time.Duration(r.IntN(600)) * time.Minute)
				}
				if r.IntN(3) > 0 {
					f.To = all[r.IntN(len(all))].Time.Add(time.Duration(r.IntN(3)-1) * time.Microsecond)
				}
				if r.IntN(3) == 0 {
					f.Before = 1 + int64(r.IntN(len(all)))
				}
				if r.IntN(3) == 0 {
					f.Kinds = audit.Kinds[:1]
				}
				b.auditList(f, all)
			}
		}
	}
	// A clock far off, or none at all, bounds nothing.
	for _, at := range []time.Time{{}, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), b.now} {
		b.must(b.Record(b.Context(), audit.Entry{Time: at, Kind: audit.Login}))
	}
	b.pause()
	if all := b.numbered(); len(all) != 124 {
		b.Fatalf("%d entries", len(all))
	} else {
		b.auditList(audit.Filter{From: begin.Add(time.Hour), To: begin.Add(2 * time.Hour)}, all)
	}
}

func auditOutlives(b *bench) {
	c := b.step(b.create(b.command()), command.Completed)
	told := b.chain()
	b.retain(command.Retention{Now: b.now.Add(10_000 * time.Hour), DeleteAfter: time.Hour})
	_, err := b.Get(b.Context(), c.ID)
	b.fails(err, fault.NotFound, fault.ReasonUnknownCommand)
	b.tells(told)
	b.auditList(audit.Filter{CommandID: c.ID}, b.numbered())
}

func (b *bench) key(name string) access.Key {
	k := access.Key{ID: newID(b.now), Name: name, CreateTime: b.now}
	copy(k.Hash[:], "hash of "+k.ID)
	b.now = b.now.Add(time.Second)
	return k
}
