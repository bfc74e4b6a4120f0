package access_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
)

// diary is a recorder that keeps what it is told, unless told to fail or to hang.
type diary struct {
	mu      sync.Mutex
	entries []audit.Entry
	err     error
	hang    bool
}

func (d *diary) Record(ctx context.Context, entries ...audit.Entry) error {
	d.mu.Lock()
	hang := d.hang
	d.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	d.entries = append(d.entries, entries...)
	return nil
}

func (d *diary) fail(err error)  { d.mu.Lock(); d.err = err; d.mu.Unlock() }
func (d *diary) hangs(hang bool) { d.mu.Lock(); d.hang = hang; d.mu.Unlock() }

// logged is what was logged, for several goroutines.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *logged) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// take gives the entries since the last call.
func (d *diary) take() []audit.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := d.entries
	d.entries = nil
	return taken
}

// total gives how many refusals the entries stand for.
func total(entries []audit.Entry) (n int) {
	for _, e := range entries {
		n += max(1, e.Count)
	}
	return n
}

// pass lets time go by in a bubble, and everything happen that is due.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func refusal(i int) audit.Entry {
	return audit.Entry{Principal: "p", Address: "192.0.2.1", Method: fmt.Sprintf("Service/Method%d", i), Reason: fault.ReasonRoleMissing, Detail: "no"}
}

// refusals runs one in a bubble of time; stop ends it.
func refusals(t *testing.T, d *diary, log *logged) (r *access.Refusals, stop func()) {
	r = access.NewRefusals(d, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return r, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run gave %v", err)
		}
	}
}

func TestAFloodOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r, stop := refusals(t, d, &logged{})
		for range 1000 {
			r.Tell(t.Context(), refusal(1))
		}
		last := refusal(1)
		last.Call = "the last"
		r.Tell(t.Context(), last)
		r.Tell(t.Context(), refusal(2))
		first := d.take()
		if len(first) != 2 || first[0].Count != 0 || first[0].Kind != audit.Refused || first[0].Time.IsZero() || first[1].Method != "Service/Method2" {
			t.Fatalf("at once: %+v", first)
		}
		pass(9 * time.Second)
		if e := d.take(); len(e) != 0 {
			t.Errorf("before 10 s: %+v", e)
		}
		pass(time.Second)
		if e := d.take(); len(e) != 1 || e[0].Count != 1000 || e[0].Call != "the last" || e[0].Method != "Service/Method1" {
			t.Errorf("after 10 s: %+v", e)
		}
		// The next one is a first one again.
		r.Tell(t.Context(), refusal(1))
		if e := d.take(); len(e) != 1 || e[0].Count != 0 {
			t.Errorf("afterwards: %+v", e)
		}
		r.Tell(t.Context(), refusal(1))
		r.Tell(t.Context(), refusal(1))
		stop()
		if e := d.take(); len(e) != 1 || e[0].Count != 2 {
			t.Errorf("at the end: %+v", e)
		}
		for range 3 {
			r.Tell(t.Context(), refusal(1))
		}
		if e := d.take(); len(e) != 3 {
			t.Errorf("after the end: %+v", e)
		}
	})
}

func TestWhatIsAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r, stop := refusals(t, d, &logged{})
		defer stop()
		for _, change := range []func(*audit.Entry){
			func(*audit.Entry) {},
			func(e *audit.Entry) { e.Principal = "q" },
			func(e *audit.Entry) { e.Address = "192.0.2.2" },
			func(e *audit.Entry) { e.Method = "Service/Other" },
			func(e *audit.Entry) { e.Reason = fault.ReasonRateLimited },
		} {
			e := refusal(1)
			change(&e)
			r.Tell(t.Context(), e)
			if got := d.take(); len(got) != 1 {
				t.Errorf("%+v is like another one", e)
			}
			r.Tell(t.Context(), e)
			if got := d.take(); len(got) != 0 {
				t.Errorf("%+v is like none", e)
			}
		}
	})
}

func TestTheTableOfRefusalsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r, stop := refusals(t, d, &logged{})
		const all = 5000
		for i := range all {
			r.Tell(t.Context(), refusal(i))
		}
		e := refusal(all)
		e.Reason = fault.ReasonRateLimited
		r.Tell(t.Context(), e)
		first := d.take()
		if len(first) >= 1000 {
			t.Errorf("%d were written at once", len(first))
		}
		stop()
		rest := d.take()
		if len(rest) != 2 || total(first)+total(rest) != all+1 {
			t.Errorf("%d and %d stand for %d of %d", len(first), len(rest), total(first)+total(rest), all+1)
		}
		for _, e := range rest {
			if e.Kind != audit.Refused || e.Principal != "p" || e.Method != "" || e.Reason == "" || e.Detail == "" || e.Time.IsZero() {
				t.Errorf("%+v", e)
			}
		}
	})
}

// TestStrangersTakeNoPlaceFromPrincipals: whatever a stranger makes up, what
// principals are refused is told with their names.
func TestStrangersTakeNoPlaceFromPrincipals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r, stop := refusals(t, d, &logged{})
		stranger := func(i int, address string) audit.Entry {
			return audit.Entry{Address: address, Origin: "grpc", Method: fmt.Sprintf("Service/Method%d", i), Reason: fault.ReasonNoCredentials, Detail: "no"}
		}
		all := 0
		tell := func(e audit.Entry) { r.Tell(t.Context(), e); all++ }
		for i := range 1000 { // one address
			tell(stranger(i, fmt.Sprintf("2001:db8::%x", i+1)))
		}
		first := d.take()
		if len(first) != 16 {
			t.Errorf("%d kinds of one network were written at once", len(first))
		}
		other := stranger(1, "192.0.2.9") // is still told of
		tell(other)
		if e := d.take(); len(e) != 1 || e[0].Address != "192.0.2.9" {
			t.Errorf("another stranger: %+v", e)
		}
		for i := range 1000 { // many addresses
			e := stranger(1, fmt.Sprintf("198.51.100.%d", i%250))
			e.Method = fmt.Sprintf("Service/Method%d", i/250)
			e.Origin = "rest"
			tell(e)
		}
		strangers := d.take()
		if len(first)+1+len(strangers) != 64 {
			t.Errorf("%d kinds of strangers were written at once", len(first)+1+len(strangers))
		}
		for i := range 3 {
			e := refusal(i)
			e.Principal = fmt.Sprint("p", i)
			tell(e)
			if got := d.take(); len(got) != 1 || got[0].Principal != e.Principal {
				t.Errorf("%s: %+v", e.Principal, got)
			}
		}
		stop()
		rest := d.take()
		if n := total(first) + total(strangers) + 4 + total(rest); n != all {
			t.Errorf("%d of %d are told", n, all)
		}
		doors := make(map[string]bool)
		for _, e := range rest {
			if e.Principal != "" {
				t.Errorf("%+v", e)
			}
			if e.Detail != "no" {
				doors[e.Method+" "+e.Address] = true
			}
		}
		if len(rest) > 130 || !doors["gRPC 2001:db8::"] || !doors["REST "] || doors["gRPC "] {
			t.Errorf("%d rows, of the doors %v", len(rest), doors)
		}
	})
}

// TestGuessesKeepTheirPlaces: calls that show nothing, which cost their callers
// nothing, do not hide from where somebody guesses, and at what.
func TestGuessesKeepTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r, stop := refusals(t, d, &logged{})
		for i := range 4000 { // of many kinds, from many addresses, also that of the guess
			for _, reason := range []string{fault.ReasonNoCredentials, fault.ReasonForbiddenOrigin, fault.ReasonRateLimited} {
				r.Tell(t.Context(), audit.Entry{
					Address: fmt.Sprintf("198.51.100.%d", i%200), Origin: "grpc", Method: fmt.Sprint("Service/Method", i%30), Reason: reason, Detail: "no",
				})
			}
		}
		d.take()
		guess := audit.Entry{Address: "198.51.100.1", Origin: "rest", Method: "GET /v1/hosts", Reason: fault.ReasonBadCredentials, Detail: "no"}
		r.Tell(t.Context(), guess)
		if e := d.take(); len(e) != 1 || e[0].Address != guess.Address || e[0].Method != guess.Method || e[0].Reason != guess.Reason {
			t.Errorf("a guess: %+v", e)
		}
		for i := range 1000 { // guesses are bounded, too
			guess.Address = fmt.Sprintf("203.0.113.%d", i%250)
			guess.Method = fmt.Sprint("GET /", i)
			r.Tell(t.Context(), guess)
		}
		if e := d.take(); len(e) != 63 {
			t.Errorf("%d guesses were written at once", len(e))
		}
		stop()
		for _, e := range d.take() {
			if e.Reason == fault.ReasonBadCredentials && e.Count == 0 {
				t.Errorf("%+v", e)
			}
		}
	})
}

// TestCommandsThatThePolicyDenies are told apart, up to a bound that keeps the name.
func TestCommandsThatThePolicyDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r, stop := refusals(t, d, &logged{})
		denied := func(who, line string) audit.Entry {
			return audit.Entry{Principal: who, Address: "192.0.2.1", Method: "CommandService/Execute", Reason: fault.ReasonPolicyDenied, Host: "web1", Command: line, Detail: "no"}
		}
		for i := range 100 {
			r.Tell(t.Context(), denied("ann", fmt.Sprint("rm ", i)))
		}
		if e := d.take(); len(e) != 32 || e[1].Command != "rm 1" {
			t.Errorf("%d written at once", len(e))
		}
		elsewhere := denied("bob", "rm 1")
		r.Tell(t.Context(), elsewhere)
		elsewhere.Host = "web2"
		r.Tell(t.Context(), elsewhere)
		if e := d.take(); len(e) != 2 {
			t.Errorf("of another principal: %+v", e)
		}
		stop()
		if e := d.take(); len(e) != 1 || e[0].Principal != "ann" || e[0].Count != 68 || e[0].Reason != fault.ReasonPolicyDenied || e[0].Command != "" {
			t.Errorf("the rest: %+v", e)
		}
	})
}

// TestManyPrincipals: beyond all bounds refusals are still counted.
func TestManyPrincipals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r, stop := refusals(t, d, &logged{})
		const all = 10_000
		for i := range all {
			e := refusal(1)
			e.Principal = fmt.Sprint("p", i)
			r.Tell(t.Context(), e)
		}
		stop()
		e := d.take()
		if last := e[len(e)-1]; total(e) != all || len(e) != 2048+4096+1 || last.Principal != "" || last.Count != all-2048-4096 {
			t.Errorf("%d rows for %d: %+v", len(e), total(e), last)
		}
	})
}

func TestARefusalIsNotLostWhenTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, log := &diary{}, &logged{}
		r, stop := refusals(t, d, log)
		d.fail(errors.New("disk full"))
		for range 3 {
			r.Tell(t.Context(), refusal(1))
		}
		if text := log.String(); strings.Count(text, "disk full") != 1 || !strings.Contains(text, "level=ERROR") ||
			!strings.Contains(text, "method=Service/Method1") || !strings.Contains(text, "principal=p") {
			t.Errorf("log:\n%s", text)
		}
		pass(10 * time.Second) // failed, and is kept
		if text := log.String(); strings.Count(text, "disk full") != 2 || !strings.Contains(text, "count=3") {
			t.Errorf("log:\n%s", text)
		}
		r.Tell(t.Context(), refusal(1))
		d.fail(nil)
		pass(10 * time.Second)
		if e := d.take(); len(e) != 1 || e[0].Count != 4 {
			t.Errorf("when the store is back: %+v", e)
		}
		stop()
	})
}

// What is kept after a failure goes into what was opened meanwhile, or to the
// others where there is no place.
func TestRefusalsThatAreKeptFindAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, log := &diary{}, &logged{}
		r, stop := refusals(t, d, log)
		const all = 600
		tell := func() {
			for i := range all {
				r.Tell(t.Context(), refusal(i))
			}
		}
		tell()
		tell()
		written := total(d.take())
		d.hangs(true) // the flush takes a second, in which others come
		pass(10 * time.Second)
		d.hangs(false)
		tell()
		pass(time.Second)
		stop()
		if written += total(d.take()); written != 3*all {
			t.Errorf("%d of %d are told, log %d bytes", written, 3*all, len(log.String()))
		}
	})
}

func TestAHangingStoreMakesNobodyWaitLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, log := &diary{hang: true}, &logged{}
		r := access.NewRefusals(d, slog.New(slog.NewTextHandler(log, nil)))
		gone, cancel := context.WithCancel(t.Context())
		cancel() // a caller that has gone away is told of all the same
		begun := time.Now()
		r.Tell(gone, refusal(1))
		if took := time.Since(begun); took != time.Second {
			t.Errorf("waited %v", took)
		}
		if !strings.Contains(log.String(), "deadline") {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestWhatIsRefusedByAccess(t *testing.T) {
	for _, c := range []struct {
		err  error
		told bool
	}{
		{nil, false},
		{errors.New("x"), false},
		{fault.New(fault.NotFound, fault.ReasonUnknownHost, ""), false},
		{fault.New(fault.Exhausted, fault.ReasonQueueFull, ""), false},
		{fault.New(fault.Exhausted, fault.ReasonRateLimited, ""), true},
		{fault.New(fault.Exhausted, fault.ReasonTooManyStreams, ""), true},
		{fault.New(fault.Unauthenticated, fault.ReasonBadCredentials, ""), true},
		{fmt.Errorf("x: %w", fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "")), true},
	} {
		if access.RefusedByAccess(c.err) != c.told {
			t.Errorf("%v: %v", c.err, !c.told)
		}
	}
}
