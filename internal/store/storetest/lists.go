package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/command"
)

// matches is what a filter says, in the plainest words.
func matches(f command.Filter, c command.Command) bool {
	for name, value := range f.Labels {
		if got, ok := c.Spec.Labels[name]; !ok || got != value {
			return false
		}
	}
	return (len(f.States) == 0 || slices.Contains(f.States, c.State)) &&
		(f.Host == "" || f.Host == c.Spec.Host) &&
		(f.Origin == "" || f.Origin == c.CreatedBy.Origin) &&
		(f.Session == "" || f.Session == c.Spec.SessionID) &&
		(f.Task == "" || c.Spec.Task != nil && f.Task == c.Spec.Task.ID) &&
		(f.Visible == nil || f.Visible.Principal == c.CreatedBy.Principal || slices.Contains(f.Visible.Hosts, c.Spec.Host) ||
			c.Spec.SessionOwner != "" && f.Visible.Principal == c.Spec.SessionOwner) &&
		(f.Principal == "" || f.Principal == c.CreatedBy.Principal) &&
		(f.From.IsZero() || !c.CreateTime.Before(f.From)) &&
		(f.To.IsZero() || c.CreateTime.Before(f.To)) &&
		(f.Before == "" || c.ID < f.Before)
}

// selected is what List should give of all commands.
func selected(f command.Filter, all []command.Command) (list []command.Command) {
	for _, c := range all {
		if matches(f, c) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b command.Command) int {
		if a.ID > b.ID {
			return -1
		}
		return 1
	})
	if f.Limit > 0 && len(list) > f.Limit {
		list = list[:f.Limit]
	}
	return list
}

func (b *bench) lists(f command.Filter, all []command.Command) []command.Command {
	b.Helper()
	got, err := b.List(b.Context(), f)
	b.must(err)
	want := selected(f, all)
	if len(got) != len(want) {
		b.Fatalf("%s: %d commands, want %d", text(f), len(got), len(want))
	}
	for i := range got {
		b.same(got[i], want[i])
	}
	return got
}

var (
	hosts      = []string{"web1", "web2", "db1"}
	principals = []string{"deploy", "agent"}
	tiers      = []string{"front", "back", ""}
	sessions   = []string{"01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"}
	taskIDs    = []string{"01ARZ3NDEKTSV4RRFFQ69G5FAX", "01ARZ3NDEKTSV4RRFFQ69G5FAY"}
)

// history makes commands of all kinds.
func (b *bench) history(r *rand.Rand, n int) (all []command.Command) {
	for i := range n {
		c := b.create(b.command(func(c *command.Command) {
			c.Spec.Host = hosts[r.IntN(len(hosts))]
			c.CreatedBy.Principal = principals[r.IntN(len(principals))]
			c.CreatedBy.Origin = command.Origins[r.IntN(3)]
			c.Spec.Labels = map[string]string{"tier": tiers[r.IntN(len(tiers))]}
			if i%5 == 0 {
				c.Spec.Labels["rare"] = "yes"
			}
			if i%6 == 0 {
				c.Spec.Task = &command.TaskRef{ID: taskIDs[r.IntN(len(taskIDs))], Step: i, Name: "step"}
			}
			if i%4 == 0 {
				c.Spec.SessionID, c.Spec.SessionOwner = sessions[r.IntN(len(sessions))], principals[r.IntN(len(principals))]
			}
		}))
		if state := command.States[r.IntN(len(command.States))]; state != c.State {
			c = b.step(c, state)
		}
		all = append(all, c)
	}
	return all
}

func randomFilter(r *rand.Rand, all []command.Command) (f command.Filter) {
	sometimes := func() bool { return r.IntN(4) == 0 }
	if sometimes() {
		f.Host = hosts[r.IntN(len(hosts))]
	}
	if sometimes() {
		f.Principal = principals[r.IntN(len(principals))]
	}
	if sometimes() {
		f.Origin = command.Origins[r.IntN(len(command.Origins))]
	}
	if sometimes() {
		f.Session = sessions[r.IntN(len(sessions))]
	}
	if sometimes() {
		f.Task = taskIDs[r.IntN(len(taskIDs))]
	}
	if sometimes() {
		f.Visible = &command.Visible{Principal: principals[r.IntN(len(principals))]}
		for _, host := range hosts {
			if r.IntN(2) == 0 {
				f.Visible.Hosts = append(f.Visible.Hosts, host)
			}
		}
	}
	for sometimes() {
		f.States = append(f.States, command.States[r.IntN(len(command.States))])
	}
	if sometimes() {
		f.Labels = map[string]string{"tier": tiers[r.IntN(len(tiers))]}
	}
	if sometimes() {
		f.Labels = map[string]string{"rare": "yes", "tier": tiers[r.IntN(len(tiers))]}
	}
	if len(all) > 0 {
		if sometimes() {
			f.Before = all[r.IntN(len(all))].ID
		}
		if sometimes() {
			f.From = all[r.IntN(len(all))].CreateTime
		}
		if sometimes() {
			f.To = all[r.IntN(len(all))].CreateTime
		}
	}
	if sometimes() {
		f.Limit = 1 + r.IntN(5)
	}
	return f
}

func filters(b *bench) {
	r := rand.New(rand.NewPCG(3, 4))
	b.lists(command.Filter{}, nil)
	all := b.history(r, 60)
	b.pause()
	for _, f := range []command.Filter{
		{},
		{Host: "web1"},
		{Host: "nowhere"},
		{Principal: "agent"},
		{Origin: command.OriginREST},
		{Origin: command.OriginWeb},
		{States: []command.State{command.Queued}},
		{States: []command.State{command.Queued, command.Starting, command.Running}},
		{States: []command.State{command.Failed, command.Failed}},
		{States: []command.State{"NONE"}},
		{States: command.States},
		{Session: sessions[0]},
		{Session: "nothing"},
		{Task: taskIDs[0]},
		{Task: "nothing"},
		{Task: taskIDs[1], Host: "web1", States: command.States[3:]},
		{Session: sessions[1], Host: "web1", States: command.States[3:]},
		{Labels: map[string]string{"tier": ""}},
		{Labels: map[string]string{"tier": "front"}},
		{Labels: map[string]string{"tier": "front", "rare": "yes"}},
		{Labels: map[string]string{"nothing": ""}},
		{Host: "web2", Principal: "deploy", Origin: command.OriginGRPC, Labels: map[string]string{"tier": "back"}, States: command.States[4:]},
	} {
		b.lists(f, all)
		f.Limit = 3
		b.lists(f, all)
	}
	for range 200 {
		b.lists(randomFilter(r, all), all)
	}
}

func pages(b *bench) {
	all := b.history(rand.New(rand.NewPCG(5, 6)), 43)
	for _, f := range []command.Filter{{}, {Host: "web1"}, {States: []command.State{command.Queued, command.Completed, command.Lost}}, {Labels: map[string]string{"tier": "back"}}} {
		want := selected(f, all)
		f.Limit = 4
		for len(want) > 0 {
			b.pause()
			page := b.lists(f, all)
			for i, c := range page {
				b.same(c, want[i])
			}
			want = want[len(page):]
			f.Before = page[len(page)-1].ID
			if len(page) < f.Limit && len(want) > 0 {
				b.Fatalf("a short page, and %d are left", len(want))
			}
		}
		b.lists(f, all)
	}
}

// visible has callers who may see next to nothing, something, and more hosts than
// a statement can name.
func visible(b *bench) {
	r := rand.New(rand.NewPCG(11, 12))
	all := b.history(r, 60)
	b.pause()
	many := []string{"web1", "db1"}
	for i := range 700 {
		many = append(many, fmt.Sprint("other", i))
	}
	most := slices.Clone(many)
	for i := range 500 {
		most = append(most, fmt.Sprint("another", i))
	}
	for _, v := range []command.Visible{
		{},
		{Principal: "nobody"},
		{Principal: "agent"},
		{Principal: "agent", Hosts: []string{"web1"}},
		{Principal: "agent", Hosts: []string{"web1", "web1", "nowhere"}},
		{Principal: "nobody", Hosts: hosts},
		{Principal: "agent", Hosts: many},
		{Principal: "nobody", Hosts: most},
	} {
		for _, f := range []command.Filter{
			{}, {Principal: "agent"}, {Principal: "deploy"}, {Session: sessions[0]}, {Host: "web1"}, {Host: "web2", States: command.States[3:]},
			{Labels: map[string]string{"tier": "back"}}, {Before: all[30].ID, From: all[10].CreateTime},
		} {
			f.Visible = &v
			b.lists(f, all)
			f.Limit = 4
			b.lists(f, all)
		}
	}
}

func times(b *bench) {
	begin := b.now
	var all []command.Command
	for i := range 30 {
		b.now = begin.Add(time.Duration(i) * 20 * time.Minute)
		all = append(all, b.create(b.command(func(c *command.Command) {
			c.CreateTime = c.CreateTime.Add(time.Duration(i) * time.Microsecond)
			c.Spec.Host = fmt.Sprint("web", i%2)
		})))
	}
	b.pause()
	for _, c := range all {
		for _, d := range []time.Duration{-time.Microsecond, 0, time.Microsecond} {
			at := c.CreateTime.Add(d)
			b.lists(command.Filter{From: at}, all)
			b.lists(command.Filter{To: at}, all)
			b.lists(command.Filter{From: at.Add(-time.Hour), To: at, Host: "web1", Limit: 2}, all)
		}
	}
	for _, far := range []time.Time{time.Unix(-1<<40, 0), time.Unix(1<<40, 0)} {
		b.lists(command.Filter{From: far}, all)
		b.lists(command.Filter{To: far}, all)
	}
}
