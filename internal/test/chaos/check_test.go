package chaos

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const second = time.Second

// perfect makes the record of a command that ran as it should.
func perfect(change ...func(*Record)) *Record {
	r := &Record{Number: 3, Host: "web1", Script: Script{Kind: Steady, Seed: 8, Scale: 1, Pace: 1, Exit: 5}}
	for _, f := range change {
		f(r)
	}
	r.Begin(1 * second)
	r.Answer("01A")
	r.Note(1*second, "execute: 01A")
	size := [2]int64{r.Script.Size(Stdout), r.Script.Size(Stderr)}
	end := Sighting{By: "audit", Asked: 20 * second, At: 20 * second, State: "COMPLETED", Ended: true, Code: 5,
		EndTime: time.Unix(1000, 0), Size: size, Cut: [2]int64{-1, -1}}
	alive := end
	alive.State, alive.Ended, alive.Code, alive.EndTime, alive.Size = "RUNNING", false, -1, time.Time{}, [2]int64{}
	alive.By, alive.Stream, alive.Asked, alive.At = "watcher 1", 1, 1*second, 2*second
	r.See(alive)
	seen := end
	seen.By, seen.Stream, seen.Asked, seen.At = "watcher 1", 1, 1*second, 9*second
	r.See(seen)
	r.Watched(reading(r.Script, "watcher 1", size, true))
	r.Starts, r.Status, r.Listed, r.Stored = 1, end, end, reading(r.Script, "audit", size, false)
	r.Over(10 * second)
	return r
}

// reading makes a Watch that got so many bytes.
func reading(s Script, by string, size [2]int64, follow bool) *Watch {
	w := NewWatch(by, s, [2]int64{})
	for _, stream := range []Stream{Stdout, Stderr} {
		data := make([]byte, size[stream])
		s.Content(stream, 0, data)
		half := len(data) / 2
		w.Take(stream, 0, data[:half])
		w.Take(stream, int64(half), data[half:])
	}
	w.Follow, w.Done = follow, true
	return w
}

// becomes sets the end that everybody tells.
func becomes(change func(*Sighting)) func(*Record) {
	return func(r *Record) {
		change(&r.Status)
		change(&r.Listed)
		for i := range r.sightings {
			if r.sightings[i].Ended {
				change(&r.sightings[i])
			}
		}
	}
}

var anyFault = []Fault{
	{Kind: KillService, From: 2 * second, To: 3 * second},
	{Kind: KillSessions, Host: "web1", From: 2 * second, To: 3 * second},
	{Kind: FillDisk, Host: "web1", From: 2 * second, To: 3 * second},
}

// TestCheckAccepts: what may be, also where a fault explains it.
func TestCheckAccepts(t *testing.T) {
	lost := becomes(func(s *Sighting) { s.State, s.Code, s.Reason, s.Attached = "LOST", -1, "CONNECTION_LOST", true })
	for name, r := range map[string]*Record{
		"as it should be": perfect(),
		"signal": edit(perfect(func(r *Record) { r.Script.Signal = "TERM" }),
			becomes(func(s *Sighting) { s.State, s.Code, s.Signal, s.Reason = "FAILED", -1, "TERM", "SIGNALLED" })),
		"cancelled": edit(perfect(func(r *Record) { r.Cancel = true }), cut(40, 2),
			becomes(func(s *Sighting) {
				s.State, s.Code, s.Reason, s.Outcome = "CANCELLED", -1, "CANCELLED_BY_CALLER", "GONE"
			})),
		"cancel too late": perfect(func(r *Record) { r.Cancel = true }),
		"timed out": edit(perfect(func(r *Record) { r.Timeout = second; r.Script.Kind = Endless }), cut(40, 2),
			becomes(func(s *Sighting) { s.State, s.Code, s.Reason = "TIMED_OUT", -1, "TIMEOUT" })),
		"attached and lost": edit(perfect(func(r *Record) { r.Attached = true }), lost),
		"attached and lost, seen more than is stored": edit(perfect(func(r *Record) { r.Attached = true }), lost, func(r *Record) {
			short(r, 40, 2)
			r.watches[0] = reading(r.Script, "watcher 1", [2]int64{50, 2}, true)
		}),
		"not started": edit(perfect(), cut(0, 0), func(r *Record) { r.Starts = 0 },
			becomes(func(s *Sighting) { s.State, s.Code, s.Reason = "FAILED", -1, "HOST_UNREACHABLE" })),
		"no space": edit(perfect(), cut(0, 0), func(r *Record) { r.Starts = 0 },
			becomes(func(s *Sighting) { s.State, s.Code, s.Reason = "FAILED", -1, "NO_SPACE" })),
		"disk full": edit(perfect(), cut(40, 2), becomes(func(s *Sighting) { s.Cut = [2]int64{40, 2} })),
	} {
		if v := r.Check(anyFault); len(v) > 0 {
			t.Errorf("%s: %q\n%s", name, v, r.History(anyFault))
		}
	}
}

func edit(r *Record, changes ...func(*Record)) *Record {
	for _, f := range changes {
		f(r)
	}
	return r
}

// cut makes everybody see so much of the output only.
func cut(stdout, stderr int64) func(*Record) { return func(r *Record) { short(r, stdout, stderr) } }

func short(r *Record, stdout, stderr int64) {
	size := [2]int64{stdout, stderr}
	becomes(func(s *Sighting) { s.Size = size })(r)
	r.watches[0] = reading(r.Script, "watcher 1", size, true)
	r.Stored = reading(r.Script, "audit", size, false)
}

// TestCheckRefuses: each rule finds what it is for, and says so.
func TestCheckRefuses(t *testing.T) {
	see := func(f func(*Sighting)) func(*Record) {
		return func(r *Record) {
			s := r.Status
			s.By, s.Asked, s.At = "poll", 10*second, 11*second
			f(&s)
			r.See(s)
		}
	}
	for _, c := range []struct {
		name   string
		want   string
		faults []Fault
		change func(*Record)
	}{
		{"never answered", "one id: no request", nil, func(r *Record) { r.id = "" }},
		{"two ids", "one id: the same request gave 01A and 01B", nil, func(r *Record) { r.Answer("01B") }},
		{"two starts", "one start: the host has seen 2", anyFault, func(r *Record) { r.Starts = 2 }},
		{"no start", "one start: the host has seen 0", anyFault, func(r *Record) { r.Starts = 0 }},
		{"two starts of one that was cancelled", "one start", nil, edited(becomes(func(s *Sighting) { s.State, s.Outcome = "CANCELLED", "GONE" }),
			func(r *Record) { r.Cancel, r.Starts = true, 2 })},
		{"still running", "true end: it has not ended", nil, func(r *Record) { r.Status.State, r.Status.Ended = "RUNNING", false }},
		{"wrong code", "true end: it ended as COMPLETED exit 0", anyFault, becomes(func(s *Sighting) { s.Code = 0 })},
		{"no code", "true end", anyFault, becomes(func(s *Sighting) { s.Code = -1 })},
		{"code for a signal", "true end", nil, func(r *Record) { r.Script.Signal = "KILL" }},
		{"wrong signal", "true end", nil, edited(becomes(func(s *Sighting) { s.State, s.Reason, s.Signal, s.Code = "FAILED", "SIGNALLED", "TERM", -1 }),
			func(r *Record) { r.Script.Signal = "KILL" })},
		{"durable and lost", "true end: it ended as LOST", anyFault, becomes(func(s *Sighting) { s.State, s.Code = "LOST", -1 })},
		{"attached and lost for nothing", "true end: it ended as LOST", nil, edited(becomes(func(s *Sighting) { s.State, s.Code = "LOST", -1 }),
			func(r *Record) { r.Attached = true })},
		{"cancelled, and nobody asked", "true end: it ended as CANCELLED", nil, becomes(func(s *Sighting) { s.State, s.Code = "CANCELLED", -1 })},
		{"cancelled without a proof", "true end: CANCELLED without a proof", nil, edited(becomes(func(s *Sighting) { s.State, s.Outcome = "CANCELLED", "LEFT" }),
			func(r *Record) { r.Cancel = true })},
		{"timed out, and nobody asked", "true end: it ended as TIMED_OUT", nil, becomes(func(s *Sighting) { s.State, s.Code = "TIMED_OUT", -1 })},
		{"not started, and no fault", "true end: it ended as FAILED", nil, edited(cut(0, 0), func(r *Record) { r.Starts = 0 },
			becomes(func(s *Sighting) { s.State, s.Code, s.Reason = "FAILED", -1, "HOST_UNREACHABLE" }))},
		{"not started, and it has", "true end: it ended as FAILED", anyFault, becomes(func(s *Sighting) { s.State, s.Code, s.Reason = "FAILED", -1, "HOST_UNREACHABLE" })},
		{"another end later", "one end: two ends", nil, see(func(s *Sighting) { s.State, s.Code = "LOST", -1 })},
		{"another code later", "one end: two ends", nil, see(func(s *Sighting) { s.Code = 6 })},
		{"another end time later", "one end: two ends", nil, see(func(s *Sighting) { s.EndTime = time.Unix(1001, 0) })},
		{"alive after its end", "but it had been seen ended", nil, see(func(s *Sighting) { s.State, s.Ended = "RUNNING", false })},
		{"alive after its end on one stream", "saw it ended and then RUNNING", nil, see(func(s *Sighting) { s.Stream, s.Asked, s.State, s.Ended = 1, 0, "RUNNING", false })},
		{"a byte twice", "watchers: watcher 1: stdout: bytes at offset 0", nil, func(r *Record) { r.watches[0].Take(Stdout, 0, []byte{0}) }},
		{"a byte missing", "watchers: watcher 1: stderr: bytes at offset", nil, func(r *Record) { r.watches[0].Take(Stderr, r.watches[0].Next[Stderr]+1, nil) }},
		{"a gap", "said to be removed", nil, func(r *Record) { r.watches[0].Gap(Stdout, 1, 2) }},
		{"a wrong byte", "is wrong", nil, func(r *Record) { r.watches[0].Take(Stdout, r.watches[0].Next[Stdout], []byte{0, 0, 0, 0}) }},
		{"a watcher that failed", "watchers: watcher 1: no route", nil, func(r *Record) { r.watches[0].Failed(errors.New("no route")) }},
		{"a watcher without an end", "has never seen the end", nil, func(r *Record) { r.watches[0].Done = false }},
		{"a watcher that saw less", "watcher 1: stdout: got bytes 0 to 40", nil, func(r *Record) { r.watches[0] = reading(r.Script, "watcher 1", [2]int64{40, r.Status.Size[1]}, true) }},
		{"nothing stored", "stored output: what is stored could not be read", nil, func(r *Record) { r.Stored = nil }},
		{"less stored", "stored output: stdout: 40 bytes stored", anyFault, cut(40, 2)},
		{"more stored", "stored output", nil, func(r *Record) { short(r, r.Status.Size[0]+1, r.Status.Size[1]) }},
		{"other bytes stored", "stored output: stdout: SHA-256", nil, func(r *Record) { r.Stored.sums[Stdout].Write([]byte("x")) }},
		{"store not readable to the end", "stored output: gone", nil, func(r *Record) { r.Stored.Failed(errors.New("gone")) }},
		{"cut without a full disk", "no disk was full", nil, edited(cut(40, 2), becomes(func(s *Sighting) { s.Cut = [2]int64{40, 2} }))},
		{"cut elsewhere than told", "stored output: stdout: 40 bytes stored, 39", anyFault, edited(cut(40, 2), becomes(func(s *Sighting) { s.Cut = [2]int64{39, 2} }))},
		{"list and status", "agreement: GetStatus tells", nil, func(r *Record) { r.Listed.Code = 9 }},
		{"not in the list", "agreement: GetStatus tells", nil, func(r *Record) { r.Listed = Sighting{} }},
		{"sizes", "agreement: GetStatus tells", nil, func(r *Record) { r.Stored.Next[Stdout]-- }},
		{"not durable", "durability: it was made an attached run", nil, becomes(func(s *Sighting) { s.Attached = true })},
		{"left", "left on the host: process 12", nil, func(r *Record) { r.Left = []string{"process 12"} }},
	} {
		r := perfect()
		c.change(r)
		got := r.Check(c.faults)
		if !slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, c.want) }) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func edited(changes ...func(*Record)) func(*Record) {
	return func(r *Record) { edit(r, changes...) }
}

// TestCheckTellsAFew: one mistake that everybody has seen is told three times.
func TestCheckTellsAFew(t *testing.T) {
	r := perfect()
	for range 10 {
		r.Answer("01B")
	}
	if v := r.Check(nil); len(v) != mostOfARule+1 || !strings.Contains(v[mostOfARule], "7 more") {
		t.Errorf("%q", v)
	}
}

// TestHistory: it has what was done, seen and broken, in order.
func TestHistory(t *testing.T) {
	r := perfect(func(r *Record) { r.Script.Signal = "TERM" })
	r.See(r.Status)
	r.See(r.Status)
	for i := range mostLines {
		r.Note(30*second, "line %d", i)
	}
	faults := append(slices.Clone(anyFault), Fault{Kind: DropLink, Host: "web2", From: 2 * second, To: 3 * second})
	text := r.History(faults)
	order := []string{"ends by SIGTERM", "execute: 01A", "RUNNING", "── kill -9, until 3s", "── sessions web1", "COMPLETED exit 5", "audit", "line 0", "and"}
	for _, want := range order {
		at := strings.Index(text, want)
		if at < 0 {
			t.Fatalf("no %q, or out of order, in\n%s", want, text)
		}
		text = text[at:]
	}
	if strings.Contains(r.History(faults), "web2") || strings.Count(r.History(faults), "audit") != 1 {
		t.Error(r.History(faults))
	}
	if last, ok := r.Last(); !ok || last != r.Status || r.ID() != "01A" {
		t.Errorf("%v", last)
	}
	if _, ok := (&Record{}).Last(); ok {
		t.Error("a sighting of nothing")
	}
	s := Sighting{State: "FAILED", Code: -1, Signal: "KILL", Reason: "SIGNALLED", Outcome: "GONE", Attached: true}
	if got := s.String(); got != "FAILED by SIGKILL SIGNALLED cancel GONE attached, 0+0 bytes" {
		t.Error(got)
	}
}

// TestSummary: the table adds up.
func TestSummary(t *testing.T) {
	s := Summary{Seed: 12, Faults: map[FaultKind]int{KillService: 2, FillDisk: 1}, Reattached: []time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}}
	s.Add(perfect(), nil)
	s.Add(edit(perfect(), cut(40, 2), becomes(func(s *Sighting) { s.Cut, s.Attached = [2]int64{40, 2}, true })), anyFault)
	r := edit(perfect(), cut(0, 0), func(r *Record) { r.Starts, r.Stored = 0, nil; r.Answer("01A") },
		becomes(func(s *Sighting) { s.State, s.Code, s.Reason = "FAILED", -1, "NO_SPACE" }))
	s.Add(r, anyFault)
	text := strings.Join(strings.Fields(s.String()), " ")
	for _, want := range []string{
		"seed 12", "commands 3, of them durable 2", "by kind steady 3", "by end COMPLETED 2, FAILED 1", "kept from starting by a fault 1",
		"cut by a full disk, and told 1", "faults 3 by kind kill -9 2, disk full 1", "to 3 watchers", "1 requests sent again",
		"re-attached after kill -9 p50 2.0 ms, p99 3.0 ms, max 3.0 ms (of 3); 0 not in time", "violations 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, s.String())
		}
	}
	if Quantile(nil, 0.5) != 0 {
		t.Error("a quantile of nothing")
	}
}
