package chaos

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"time"
)

// Times in this package are counted from the start of the run.

// FaultKind is a manner of breaking things.
type FaultKind string

// The faults.
const (
	KillService    FaultKind = "kill -9"      // of telexecd, then started again
	RestartService FaultKind = "restart"      // of telexecd, as an operator does
	StopService    FaultKind = "SIGSTOP"      // of telexecd for a while, then SIGCONT
	KillSessions   FaultKind = "sessions"     // the sshd processes of all connections to a host are killed
	StopSSHD       FaultKind = "sshd away"    // the sshd of a host is gone for a while
	DropLink       FaultKind = "packets lost" // all packets to a host, for a while
	DelayLink      FaultKind = "packets late" // all packets to a host, for a while
	FillDisk       FaultKind = "disk full"    // that of a host's run directory
)

// Fault is something that was broken.
type Fault struct {
	Kind     FaultKind
	Host     string // empty: the service itself
	From, To time.Duration
}

func (f Fault) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s", f.Kind, f.Host))
}

// echo is how long after its end a fault may still be felt: a dead connection has
// to be noticed, a pause between two attempts to pass.
const echo = 15 * time.Second

// meets reports whether it could be felt at some time from from to to on host.
func (f Fault) meets(host string, from, to time.Duration) bool {
	return (f.Host == "" || f.Host == host) && f.From <= to && from <= f.To+echo
}

// breaksLink reports whether an attached run on its host may not outlive it.
func (f Fault) breaksLink() bool { return f.Kind != DelayLink && f.Kind != FillDisk }

// Sighting is a command as somebody saw it.
type Sighting struct {
	By       string        // who: "watcher 2", "poll", "list", …
	Stream   int           // sightings with the same number above 0 came over one stream, in order
	Asked    time.Duration // when the call was made
	At       time.Duration // when the answer came
	State    string        // as the API names it, without its prefix
	Ended    bool
	Code     int // exit code; -1: none
	Signal   string
	Reason   string // of its failure
	EndTime  time.Time
	Size     [2]int64
	Cut      [2]int64 // offset from which on output was not kept; -1: all was
	Attached bool
	Outcome  string // of its cancel, where there was one
}

func (s Sighting) String() string {
	text := s.State
	if s.Code >= 0 {
		text += fmt.Sprintf(" exit %d", s.Code)
	}
	if s.Signal != "" {
		text += " by SIG" + s.Signal
	}
	if s.Reason != "" {
		text += " " + s.Reason
	}
	if s.Outcome != "" {
		text += " cancel " + s.Outcome
	}
	if s.Attached {
		text += " attached"
	}
	return fmt.Sprintf("%s, %d+%d bytes", text, s.Size[Stdout], s.Size[Stderr])
}

// end is what no two sightings of an end may differ in.
func (s Sighting) end() string {
	return fmt.Sprintf("%s code %d signal %q reason %q at %s, %v bytes, cut %v", s.State, s.Code, s.Signal, s.Reason,
		s.EndTime.UTC().Format(time.RFC3339Nano), s.Size, s.Cut)
}

// Watch is one reading of a command's output. It checks each byte as it comes,
// so it needs no memory for them. It belongs to one goroutine.
type Watch struct {
	By       string
	From     [2]int64 // where it began
	Next     [2]int64 // what it waits for
	Problems []string // bytes that were wrong, missing or repeated
	Done     bool     // it has seen the end of the stream
	Follow   bool     // it was to see all there will ever be

	script Script
	sums   [2]hash.Hash // of everything, where it began at 0
	buf    []byte
}

// NewWatch begins a reading at these offsets.
func NewWatch(by string, s Script, from [2]int64) *Watch {
	return &Watch{By: by, From: from, Next: from, script: s, sums: [2]hash.Hash{sha256.New(), sha256.New()}}
}

// Take checks bytes that came.
func (w *Watch) Take(s Stream, offset int64, data []byte) {
	if offset != w.Next[s] {
		w.problem("%s: bytes at offset %d where %d was next", s, offset, w.Next[s])
		w.Next[s] = offset
	}
	w.Next[s] += int64(len(data))
	w.sums[s].Write(data)
	if len(w.buf) < len(data) {
		w.buf = make([]byte, len(data))
	}
	want := w.buf[:len(data)]
	w.script.Content(s, offset, want)
	if bytes.Equal(want, data) {
		return
	}
	for i := range data {
		if data[i] != want[i] {
			upTo := min(len(data), i+40)
			w.problem("%s: byte %d is wrong: %q, want %q", s, offset+int64(i), data[i:upTo], want[i:upTo])
			return
		}
	}
}

// Gap takes the service's word that bytes are not stored any more; in the time
// of a run there is no such gap.
func (w *Watch) Gap(s Stream, from, to int64) {
	w.problem("%s: bytes %d to %d are said to be removed", s, from, to)
	w.Next[s] = to
}

// Failed notes that it could not go on.
func (w *Watch) Failed(err error) { w.problem("%v", err) }

func (w *Watch) problem(format string, args ...any) {
	if len(w.Problems) < 5 { // the first ones tell the story
		w.Problems = append(w.Problems, fmt.Sprintf(format, args...))
	}
}

// Event is a line of a command's history, for people.
type Event struct {
	At   time.Duration
	What string
}

// Record is what was asked of a command, done to it and seen of it. Its fields
// up to Script are set before it is shared; the methods that add to it may be
// called at once; Check and History are for when all is over.
type Record struct {
	Number   int
	Host     string
	Script   Script
	Cancel   bool          // it was to be cancelled
	Attached bool          // it was asked to be attached
	Timeout  time.Duration // 0: none

	mu        sync.Mutex
	id        string
	answers   []string // the ids that all requests with its request id gave
	begun     time.Duration
	over      time.Duration
	sightings []Sighting
	watches   []*Watch
	history   []Event

	// What was found when all was over.
	Starts int      // lines that it wrote on the host
	Status Sighting // GetStatus
	Listed Sighting // ListCommands
	Stored *Watch   // StreamOutput of what is stored
	Left   []string // processes and files that are still on the host
}

// Begin notes when it was first asked for.
func (r *Record) Begin(at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = at
}

// Over notes when nothing more was expected of it.
func (r *Record) Over(at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = at
}

// Answer notes the id that a request gave.
func (r *Record) Answer(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.id == "" {
		r.id = id
	}
	r.answers = append(r.answers, id)
}

// ID is the command's id; empty before the first Answer.
func (r *Record) ID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id
}

// See adds a sighting.
func (r *Record) See(s Sighting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sightings = append(r.sightings, s)
}

// Last is the latest sighting; ok is false where there is none.
func (r *Record) Last() (s Sighting, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sightings) == 0 {
		return s, false
	}
	return r.sightings[len(r.sightings)-1], true
}

// Watched adds a reading that is over.
func (r *Record) Watched(w *Watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches = append(r.watches, w)
}

// Note adds a line to the history.
func (r *Record) Note(at time.Duration, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, Event{at, fmt.Sprintf(format, args...)})
}

// mostLines is how much of a history is shown: sightings repeat themselves.
const mostLines = 200

// History is what happened to the command, in order, with the faults that it
// may have felt; a sighting is left out where it says what its like has said.
func (r *Record) History(faults []Fault) string {
	events := slices.Clone(r.history)
	said := make(map[string]string)
	for _, s := range r.sightings {
		text := s.State + s.Reason + s.Outcome
		if said[s.By] != text {
			events = append(events, Event{s.At, fmt.Sprintf("%s (asked at %v): %s", s.By, s.Asked.Round(time.Millisecond), s)})
		}
		said[s.By] = text
	}
	for _, f := range faults {
		if f.meets(r.Host, r.begun, r.over) {
			events = append(events, Event{f.From, fmt.Sprintf("── %s, until %v", f, f.To.Round(time.Millisecond))})
		}
	}
	slices.SortStableFunc(events, func(a, b Event) int { return int(a.At - b.At) })
	var b strings.Builder
	fmt.Fprintf(&b, "command %d %s on %s: %s", r.Number, r.id, r.Host, r.Script.Kind)
	if r.Script.Signal != "" {
		fmt.Fprintf(&b, ", ends by SIG%s", r.Script.Signal)
	} else {
		fmt.Fprintf(&b, ", ends with %d", r.Script.Exit)
	}
	fmt.Fprintf(&b, ", cancel %t, timeout %v, attached %t\n", r.Cancel, r.Timeout, r.Attached)
	for i, e := range events {
		if i == mostLines {
			fmt.Fprintf(&b, "  … and %d more\n", len(events)-i)
			break
		}
		fmt.Fprintf(&b, "  %9.3fs %s\n", e.At.Seconds(), e.What)
	}
	return b.String()
}
