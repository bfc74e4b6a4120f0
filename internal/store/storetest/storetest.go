// Package storetest is the suite that every driver of package store passes. A
// driver's test is one line:
//
//	storetest.Run(t, func(t *testing.T, dir string) store.Store { … })
//
// Every case runs twice: once as it is, and once with the store closed and
// opened again at each point where the case says so (bench.pause), since what
// was answered must be there after a restart. The case "model" does random calls
// and compares every answer with a map in memory; it prints its seed.
package storetest

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/store"
)

// Open opens the driver's store in a directory, which may hold one already. It
// ends the test where it cannot.
type Open func(t *testing.T, dir string) store.Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		run  func(b *bench)
	}{
		{"every field comes back", everyField},
		{"the zero command comes back", zeroCommand},
		{"secrets go with the start", secrets},
		{"a password for sudo is never stored", sudoPassword},
		{"a request id names one command", requestIDs},
		{"a request id is forgotten", requestIDForgotten},
		{"fifty creates with one request id", racingCreates},
		{"a change is compare and set", compareAndSet},
		{"fifty racing changes", racingChanges},
		{"changes are numbered", numbers},
		{"a decision is numbered", decidedNumbers},
		{"numbers outlive what is deleted", deletedNumbers},
		{"numbers are given in the order of commits", followedNumbers},
		{"output is read from any offset", output},
		{"output has no gap and no repeat", outputGaps},
		{"output of many chunks", longOutput},
		{"the order of output comes with it", orderComesWith},
		{"the order of output is read from any position", orderFromAnywhere},
		{"a wrong order is refused", wrongOrder},
		{"the order of trimmed output goes", orderIsTrimmed},
		{"many readers beside a writer", manyReaders},
		{"readers who leave in the middle", leavingReaders},
		{"the audit comes with what it tells", auditComesWith},
		{"a refused change is not told", refusedIsNotTold},
		{"the audit of many writers is a chain", auditOfMany},
		{"the audit is listed", auditLists},
		{"the audit by time, whatever the clock does", auditTimes},
		{"the audit outlives what it tells of", auditOutlives},
		{"every field of an approval comes back", approvalFields},
		{"a decision is compare and set", decides},
		{"a decision is about all or none", decidesAllOrNone},
		{"fifty racing deciders", racingDeciders},
		{"a decision replaces what was asked for", modifies},
		{"approvals are listed", approvalLists},
		{"lists show the approvals that the caller may see", visibleApprovals},
		{"visible approvals are paged", visibleApprovalPages},
		{"an approval goes with its command", approvalGoes},
		{"every field of a key comes back", keyFields},
		{"a name has one valid key", keyNames},
		{"secrets lie nowhere in clear", nothingInClear},
		{"lists show what the caller may see", visible},
		{"lists are filtered", filters},
		{"lists are paged", pages},
		{"lists by time", times},
		{"retention trims", trims},
		{"retention trims long output in steps", trimsLong},
		{"retention deletes", deletes},
		{"retention leaves what is in use", inUse},
		{"retention works in batches", batches},
		{"every field of a session comes back", sessionFields},
		{"a name has one open session", sessionNames},
		{"fifty sessions of one name", racingSessions},
		{"a session is saved by version", sessionVersions},
		{"a nonce lies nowhere in clear", nonceInClear},
		{"sessions are listed", sessionLists},
		{"a recording is read from any offset", recordings},
		{"racing recordings", racingRecordings},
		{"retention deletes sessions", sessionsGo},
		{"every field of a task comes back", taskFields},
		{"a request id names one task", taskRequests},
		{"a task is saved by version, all or none", taskVersions},
		{"events of a task are read from any one on", taskEvents},
		{"tasks are listed", taskLists},
		{"large tasks come in short pages", largeTasks},
		{"retention deletes tasks", tasksGo},
		{"retention leaves a task that is undone meanwhile", taskUndoneMeanwhile},
		{"a closed store says so", closed},
		{"an ended context", endedContext},
		{"close under load", closeUnderLoad},
		{"model", random},
	} {
		// What only lists runs once under the race detector, over restarts.
		if !raceEnabled || !slices.Contains(listing, c.name) {
			t.Run(c.name, func(t *testing.T) {
				c.run(newBench(t, open, false))
			})
		}
		t.Run(c.name+" over restarts", func(t *testing.T) {
			c.run(newBench(t, open, true))
		})
	}
}

// listing are the long cases without concurrency.
var listing = []string{
	"lists show the approvals that the caller may see", "visible approvals are paged", "approvals are listed",
	"lists show what the caller may see", "lists are filtered", "lists are paged", "lists by time",
	"the audit is listed", "the audit by time, whatever the clock does", "sessions are listed", "large tasks come in short pages", "model",
}

// bench is one case at work.
type bench struct {
	*testing.T
	store.Store
	open     Open
	dir      string
	restarts bool
	now      time.Time // of the next command made; moves on with each
}

func newBench(t *testing.T, open Open, restarts bool) *bench {
	dir := t.TempDir()
	b := &bench{T: t, Store: open(t, dir), open: open, dir: dir, restarts: restarts,
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	t.Cleanup(func() {
		if err := b.Store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

// pause is a point where the store may be restarted.
func (b *bench) pause() {
	b.Helper()
	if !b.restarts {
		return
	}
	b.must(b.Store.Close())
	b.Store = b.open(b.T, b.dir)
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("unexpected error: %v", err)
	}
}

// fails requires a fault of a kind and, where reason is not empty, a reason.
func (b *bench) fails(err error, kind fault.Kind, reason string) *fault.Error {
	b.Helper()
	if err == nil {
		b.Fatalf("no error; want kind %d reason %s", kind, reason)
	}
	e := fault.From(err)
	if e.Kind != kind || reason != "" && e.Reason != reason {
		b.Fatalf("error %v (kind %d); want kind %d reason %s", err, e.Kind, kind, reason)
	}
	if e.Message == "" {
		b.Fatalf("the error has no message: %#v", e)
	}
	return e
}

// command makes a command that is queued; more sets what a case is about.
func (b *bench) command(more ...func(*command.Command)) command.Command {
	c := newCommand(b.now, more...)
	b.now = b.now.Add(time.Second)
	return c
}

func newCommand(now time.Time, more ...func(*command.Command)) command.Command {
	c := command.Command{
		ID:           newID(now),
		Version:      1,
		State:        command.Queued,
		Spec:         command.Spec{Host: "web1", Line: "uname -a"},
		CreatedBy:    command.Actor{Principal: "deploy", Origin: command.OriginGRPC},
		CreateTime:   now,
		LastActivity: now,
	}
	for _, f := range more {
		f(&c)
	}
	return c
}

var ids struct {
	sync.Mutex
	n uint64
}

// newID gives an id of a time; of ids of one time, the later is the larger.
func newID(t time.Time) string {
	ids.Lock()
	defer ids.Unlock()
	ids.n++
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(t))
	for i, n := len(id)-1, ids.n; n > 0; i, n = i-1, n>>8 {
		id[i] = byte(n)
	}
	return id.String()
}

// add creates a command that waits for nothing.
func (b *bench) add(ctx context.Context, c command.Command, hash []byte) (stored command.Command, created bool, err error) {
	return b.Create(ctx, c, hash, nil, accepted(c))
}

func (b *bench) create(c command.Command) command.Command {
	b.Helper()
	stored, created, err := b.add(b.Context(), c, []byte("hash of "+c.ID))
	b.must(err)
	if !created {
		b.Fatalf("command %s was not created", c.ID)
	}
	b.same(stored, c)
	return c
}

// step applies a change to a command and gives the command as it is then.
func (b *bench) step(c command.Command, to command.State, output ...command.Chunk) command.Command {
	b.Helper()
	next := b.next(c, to, output...)
	told := audit.Entry{Time: b.now, Kind: audit.CommandInput, CommandID: c.ID, Host: c.Spec.Host, Outcome: string(to)}
	b.must(b.Apply(b.Context(), command.Change{From: c.State, Fence: c.Fence, Command: next, Output: output, Audit: []audit.Entry{told}}))
	return next
}

// next is a command after a step.
func (b *bench) next(c command.Command, to command.State, output ...command.Chunk) command.Command {
	c.Version++
	c.LastActivity = b.now
	c.State = to
	if to.Ended() && c.EndTime.IsZero() {
		c.EndTime = b.now
	}
	for _, chunk := range output {
		c.Size[chunk.Stream] = chunk.End()
	}
	if to.Ended() {
		c.Spec.Redact = nil
	}
	if to != command.Queued && to != command.Starting && to != command.AwaitingApproval {
		c.Spec = started(c.Spec)
	}
	return c
}

// started is a spec as it is kept after the start.
func started(s command.Spec) command.Spec {
	s.Stdin = nil
	if len(s.Env) > 0 {
		env := make(map[string]string)
		for name := range s.Env {
			env[name] = ""
		}
		s.Env = env
	}
	return s
}

func (b *bench) stored(id string) command.Command {
	b.Helper()
	c, err := b.Get(b.Context(), id)
	b.must(err)
	return c
}

func (b *bench) same(got, want command.Command) {
	b.Helper()
	if got, want = normal(got), normal(want); !reflect.DeepEqual(got, want) {
		b.Fatalf("command differs\n got %s\nwant %s", text(got), text(want))
	}
}

// normal makes equal what the contract calls the same.
func normal(c command.Command) command.Command {
	for _, t := range []*time.Time{&c.CreateTime, &c.StartTime, &c.EndTime, &c.LastActivity} {
		*t = (*t).UTC().Truncate(time.Microsecond)
	}
	if len(c.Spec.Argv) == 0 {
		c.Spec.Argv = nil
	}
	if len(c.Spec.Env) == 0 {
		c.Spec.Env = nil
	}
	if len(c.Spec.Labels) == 0 {
		c.Spec.Labels = nil
	}
	if len(c.Spec.Stdin) == 0 {
		c.Spec.Stdin = nil
	}
	if len(c.Spec.Redact) == 0 {
		c.Spec.Redact = nil
	}
	return c
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (b *bench) reads(id string, s command.Stream, offset int64, limit int, want []byte) {
	b.Helper()
	got, err := b.ReadOutput(b.Context(), id, s, offset, limit)
	b.must(err)
	if string(got) != string(want) {
		b.Fatalf("%s at %d: %d bytes %.60q, want %d bytes %.60q", s, offset, len(got), got, len(want), want)
	}
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// together calls f n times at once and gives the errors.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var wait sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wait.Go(func() {
			<-begin
			errs[i] = f(i)
		})
	}
	close(begin)
	wait.Wait()
	return errs
}

// ended is a context that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
