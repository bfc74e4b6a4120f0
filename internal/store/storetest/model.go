package storetest

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/store"
)

// model is the store in the plainest form: maps.
type model struct {
	commands map[string]*entry
	requests map[[2]string]request
	told     int   // entries of the audit
	number   int64 // of the last change
}

type entry struct {
	command.Command
	output [2][]byte // all that was ever written
	number int64     // of its last change
}

type request struct {
	id, hash string
	time     time.Time
}

func (m *model) all() (all []command.Command) {
	for _, e := range m.commands {
		all = append(all, e.Command)
	}
	slices.SortFunc(all, func(a, b command.Command) int { return a.CreateTime.Compare(b.CreateTime) })
	return all
}

// any gives one of the commands, or nil.
func (m *model) any(r *rand.Rand) *entry {
	all := m.all()
	if len(all) == 0 {
		return nil
	}
	return m.commands[all[r.IntN(len(all))].ID]
}

// random does random calls and compares every answer.
func random(b *bench) {
	seed := uint64(time.Now().UnixNano())
	b.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	m := &model{commands: map[string]*entry{}, requests: map[[2]string]request{}}
	for range 300 {
		b.now = b.now.Add(time.Duration(r.IntN(600)) * time.Second)
		switch r.IntN(21) {
		case 0, 1, 2, 3:
			m.create(b, r)
		case 4, 5, 6, 7, 8, 9, 10:
			m.apply(b, r)
		case 11, 12:
			if e := m.any(r); e != nil {
				b.same(b.stored(e.ID), e.Command)
			}
		case 13, 14, 15:
			m.read(b, r)
		case 16, 17:
			all := m.all()
			b.lists(randomFilter(r, all), all)
		case 18:
			m.retain(b, r)
		case 19:
			b.pause()
		case 20:
			m.changes(b, r)
		}
	}
	b.lists(command.Filter{}, m.all())
	if got := len(b.chain()); got != m.told {
		b.Fatalf("the audit has %d entries, want %d", got, m.told)
	}
}

func (m *model) create(b *bench, r *rand.Rand) {
	c := b.command(func(c *command.Command) {
		c.State = command.States[r.IntN(3)]
		c.CreatedBy.Principal = principals[r.IntN(2)]
		c.CreatedBy.Origin = command.Origins[r.IntN(6)]
		c.Spec.Host = hosts[r.IntN(3)]
		c.Fence = int64(r.IntN(3))
		if r.IntN(2) == 0 {
			c.Spec.RequestID = string('a' + rune(r.IntN(4)))
		}
		if r.IntN(2) == 0 {
			c.Spec.Env = map[string]string{"A": "1"}
			c.Spec.Stdin = randomBytes(r, r.IntN(100))
			c.Spec.Redact = []secret.Text{secret.New("hush")}
		}
		if r.IntN(3) == 0 {
			c.Spec.Session, c.Spec.SessionID, c.Spec.SessionOwner = "build", sessions[r.IntN(2)], principals[r.IntN(2)]
			c.Spec.Typed, c.SessionOffset = int64(r.IntN(3)), int64(r.IntN(1000)-1)
		}
		if r.IntN(2) == 0 {
			c.Spec.Labels = map[string]string{"tier": tiers[r.IntN(3)], "rare": "yes"}
		}
	})
	hash := string('x' + rune(r.IntN(2)))
	stored, created, err := b.add(b.Context(), c, []byte(hash))
	key := [2]string{c.CreatedBy.Principal, c.Spec.RequestID}
	old, known := m.requests[key]
	if c.Spec.RequestID != "" && known && c.CreateTime.Sub(old.time) < store.RequestIDLife {
		if old.hash != hash {
			b.fails(err, fault.AlreadyExists, fault.ReasonRequestIDReused)
			return
		}
		b.must(err)
		if created {
			b.Fatal("a repeated request was stored")
		}
		b.same(stored, m.commands[old.id].Command)
		return
	}
	b.must(err)
	if !created {
		b.Fatal("a new request was not stored")
	}
	b.same(stored, c)
	m.told++
	m.number++
	m.commands[c.ID] = &entry{Command: c, number: m.number}
	if c.Spec.RequestID != "" {
		m.requests[key] = request{id: c.ID, hash: hash, time: c.CreateTime}
	}
}

func (m *model) apply(b *bench, r *rand.Rand) {
	e := m.any(r)
	if e == nil {
		return
	}
	ch := command.Change{From: e.State, Fence: e.Fence}
	var output [2][]byte
	for _, s := range command.Streams {
		output[s] = e.output[s]
		for range r.IntN(3) {
			data := randomBytes(r, r.IntN(1<<r.IntN(18)))
			ch.Output = append(ch.Output, command.Chunk{Stream: s, Offset: int64(len(output[s])), Data: data})
			output[s] = slices.Concat(output[s], data)
		}
	}
	to := e.State
	if !to.Ended() && r.IntN(3) == 0 {
		to = command.States[r.IntN(len(command.States))]
		// What has started does not go back, so its secrets need not either.
		if e.State == command.Running && !to.Ended() {
			to = command.Running
		}
	}
	ch.Command = b.next(e.Command, to, ch.Output...)
	ch.Command.Fence += int64(r.IntN(2))
	for range r.IntN(3) {
		ch.Audit = append(ch.Audit, audit.Entry{Time: b.now, Kind: audit.CommandInput, CommandID: e.ID})
	}
	wrong := r.IntN(8) == 0
	if wrong {
		if r.IntN(2) == 0 {
			ch.Fence += 1 + int64(r.IntN(3))
		} else {
			ch.From = "ELSEWHERE"
		}
	}
	err := b.Apply(b.Context(), ch)
	if wrong {
		b.fails(err, fault.Aborted, "")
		return
	}
	b.must(err)
	m.told += len(ch.Audit)
	m.number++
	e.Command, e.output, e.number = ch.Command, output, m.number
}

func (m *model) read(b *bench, r *rand.Rand) {
	e := m.any(r)
	if e == nil {
		return
	}
	s := command.Streams[r.IntN(2)]
	whole := e.output[s]
	offset := int64(r.IntN(len(whole) + 10))
	limit := r.IntN(1 << r.IntN(19))
	got, err := b.ReadOutput(b.Context(), e.ID, s, offset, limit)
	if offset < e.Earliest[s] {
		b.fails(err, fault.OutOfRange, fault.ReasonOutputTrimmed)
		return
	}
	b.must(err)
	size := int64(len(whole))
	want := whole[min(offset, size):min(offset+int64(limit), size)]
	if string(got) != string(want) {
		b.Fatalf("%s of %s at %d: %d bytes, want %d", s, e.ID, offset, len(got), len(want))
	}
}

func (m *model) retain(b *bench, r *rand.Rand) {
	ret := command.Retention{
		Now:         b.now,
		TrimAfter:   time.Duration(r.IntN(48)) * time.Hour,
		TrimTo:      int64(r.IntN(1 << r.IntN(18))),
		DeleteAfter: time.Duration(r.IntN(200)) * time.Hour,
		Batch:       1 + r.IntN(3),
	}
	if e := m.any(r); e != nil && r.IntN(2) == 0 {
		ret.InUse = func(id string) bool { return id == e.ID }
	}
	for more := true; more; {
		done, err := b.Retain(b.Context(), ret)
		b.must(err)
		more = done.More
	}
	for id, e := range m.commands {
		if !e.Ended() || ret.InUse != nil && ret.InUse(id) {
			continue
		}
		age := ret.Now.Sub(e.EndTime)
		if ret.DeleteAfter > 0 && age >= ret.DeleteAfter {
			delete(m.commands, id)
			key := [2]string{e.CreatedBy.Principal, e.Spec.RequestID}
			if m.requests[key].id == id {
				delete(m.requests, key)
			}
			continue
		}
		if ret.TrimTo > 0 && age >= ret.TrimAfter {
			for _, s := range command.Streams {
				e.Earliest[s] = max(e.Earliest[s], int64(len(e.output[s]))-ret.TrimTo)
			}
		}
	}
	for key, q := range m.requests {
		if ret.Now.Sub(q.time) >= store.RequestIDLife {
			delete(m.requests, key)
		}
	}
}
